//! What tells an encoder's request from a plain publisher's.

use super::setup::Setup;
use crate::http::head::Head;

/// What an encoder asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// A session, or that the one it names may begin anew.
    Setup(Setup),
    /// To send frames in the session that it names.
    Start,
}

/// A content type of the protocol; `Some(Err)` for one that is none of it but begins like one.
pub(in crate::http) fn kind_of(head: &Head) -> Option<Result<Push, ()>> {
    let kind = head.first("Content-Type")?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.strip_prefix("application/x-wms-push")? {
        "setup" => Some(Ok(Push::Setup(Setup::default()))),
        "start" => Some(Ok(Push::Start)),
        _ => Some(Err(())),
    }
}

/// Whether a `User-Agent` is that of an encoder which speaks the protocol: `WMEncoder/` from 9 to 12.
///
/// Source: MS-WMHTTP 2.2.1.
pub(in crate::http) fn agent_is_encoder(agent: &str) -> bool {
    let version = agent.strip_prefix("WMEncoder/").map(|version| version.split(['.', ' ']).next().unwrap_or_default());
    version.and_then(|major| major.parse().ok()).is_some_and(|major: u16| (9..=12).contains(&major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents() {
        for agent in ["WMEncoder/9.0.0.2980", "WMEncoder/11.0.5721.5145", "WMEncoder/12.0", "WMEncoder/10"] {
            assert!(agent_is_encoder(agent), "{agent}");
        }
        for agent in
            ["", "WMEncoder/8.0", "WMEncoder/13.0", "WMEncoder/", "WMEncoder", "NSPlayer/11.0", "x WMEncoder/9.0", "WMEncoder/90"]
        {
            assert!(!agent_is_encoder(agent), "{agent}");
        }
    }
}
