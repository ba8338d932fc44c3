//! Who asks, by its `User-Agent`.

use crate::http::head::Head;

/// Longest name that is kept, characters.
const TOKEN_BOUND: usize = 256;
/// Version of those who do not tell one.
const OLDEST: (u16, u16) = (4, 1);

/// Families of agents that are treated differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// `NSPlayer`: Windows Media Player, and all who call themselves so.
    Player,
    /// `NSServer`: a server or encoder that pulls.
    Server,
    /// `WMCacheProxy`.
    Proxy,
    /// `Windows-Media-Player`: the player's shell, which looks what there is before the player comes.
    Shell,
    /// A browser that wants to show something.
    Browser,
    /// All others.
    Other,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) family: Family,
    /// Major and minor; 4.1 if the agent does not tell.
    pub(super) version: (u16, u16),
    /// As sent, at most 256 characters.
    pub(super) token: String,
    /// It names the Format SDK: a download if no streaming is asked for.
    pub(super) is_sdk: bool,
}

impl Agent {
    pub(super) fn of(head: &Head) -> Self {
        let token = head.first("User-Agent").unwrap_or_default();
        let families = [("NSPlayer", Family::Player), ("NSServer", Family::Server), ("WMCacheProxy", Family::Proxy)];
        let known = families.into_iter().find_map(|(name, family)| Some((family, token.strip_prefix(name)?)));
        let (family, version) = match known {
            Some((family, rest)) => (family, version(rest)),
            None if token.starts_with("Windows-Media-Player/") => (Family::Shell, OLDEST),
            None if token.starts_with("Mozilla/") && head.all("Accept").any(|accept| accept.contains("text/html")) => {
                (Family::Browser, OLDEST)
            }
            None => (Family::Other, OLDEST),
        };
        Self {
            family,
            version,
            token: token.chars().take(TOKEN_BOUND).collect(),
            is_sdk: known.is_some() && token.contains("WMFSDK/"),
        }
    }

    /// One that speaks Windows Media's streaming protocol.
    pub(super) const fn streams(&self) -> bool {
        matches!(self.family, Family::Player | Family::Server | Family::Proxy)
    }

    /// Of version 9 or later: it takes `$M`, `Supported`, pipelining.
    pub(super) const fn is_9(&self) -> bool {
        self.version.0 >= 9
    }
}

/// The version behind a slash: digits, a dot, digits; what follows is of no interest.
pub(in crate::http) fn version(text: &str) -> (u16, u16) {
    let Some(text) = text.strip_prefix(['/', ' ']) else { return OLDEST };
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u16>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), minor) => (major, minor.unwrap_or(0)),
        (None, _) => OLDEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn agent(fields: &str) -> Agent {
        let head = format!("GET / HTTP/1.0\r\n{fields}\r\n\r\n");
        Agent::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap())
    }

    #[test]
    fn families_and_versions() {
        for (text, family, version) in [
            ("NSPlayer/4.1.0.3856", Family::Player, (4, 1)),
            ("NSPlayer/4.1.0.3856 (compatible; LG NetCast.TV-2013)", Family::Player, (4, 1)),
            ("NSPlayer/7.10.0.3059", Family::Player, (7, 10)),
            ("NSPlayer/12.00.7601.17514 WMFSDK/12.00.7601.17514", Family::Player, (12, 0)),
            ("NSPlayer", Family::Player, (4, 1)),
            ("NSPlayer/99999999.1", Family::Player, (4, 1)),
            ("NSServer/9.0.0.3171; via WMCacheProxy", Family::Server, (9, 0)),
            ("WMCacheProxy/9.1", Family::Proxy, (9, 1)),
            ("Windows-Media-Player/12.0", Family::Shell, (4, 1)),
            ("Mozilla/5.0\r\nAccept: text/html,*/*", Family::Browser, (4, 1)),
            ("Mozilla/5.0\r\nAccept: */*", Family::Other, (4, 1)),
            ("VLC/3.0.24 LibVLC/3.0.24", Family::Other, (4, 1)),
        ] {
            let agent = agent(&format!("User-Agent: {text}"));
            assert_eq!((agent.family, agent.version), (family, version), "{text}");
        }
        assert_eq!(agent("X: y").family, Family::Other);
        assert!(agent("User-Agent: NSPlayer/12.0 WMFSDK/12.0").is_sdk);
    }
}
