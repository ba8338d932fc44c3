//! What clients call themselves.

use crate::viewing::Player;

/// Longest name that is kept, characters.
const TOKEN_BOUND: usize = 256;

/// Whose `User-Agent` it is. Source: MS-RTSP 2.2.6.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Agent {
    /// Windows Media Player and the Format SDK, 9 and later.
    Wmp,
    /// Windows Media Services, or a relay that passes for it: pulls.
    WmServer,
    /// A caching proxy for Windows Media.
    WmCacheProxy,
    /// An extender of Windows Media Center.
    McExtender,
    /// FFmpeg's libavformat, and mpv on top of it.
    Lavf,
    /// GStreamer.
    GStreamer,
    /// VLC.
    Vlc,
    /// Anything else, or nothing.
    Other,
}

impl Agent {
    /// Of the first `User-Agent` header: GStreamer sends a second one to please other servers.
    pub fn of(user_agent: Option<&str>) -> Self {
        const PRODUCTS: [(&str, Agent); 8] = [
            ("WMPlayer/", Agent::Wmp),
            ("WMServer/", Agent::WmServer),
            ("WMCacheProxy/", Agent::WmCacheProxy),
            ("MCExtender/", Agent::McExtender),
            ("Lavf", Agent::Lavf),
            ("libmpv", Agent::Lavf),
            ("GStreamer/", Agent::GStreamer),
            ("LibVLC/", Agent::Vlc),
        ];
        let name = user_agent.unwrap_or_default();
        let starts = |product: &str| name.get(..product.len()).is_some_and(|start| start.eq_ignore_ascii_case(product));
        PRODUCTS.into_iter().find(|(product, _)| starts(product)).map_or(Self::Other, |(_, agent)| agent)
    }

    /// Speaks the Windows Media dialect by itself.
    pub const fn is_windows_media(self) -> bool {
        matches!(self, Self::Wmp | Self::WmServer | Self::WmCacheProxy | Self::McExtender)
    }
}

/// The player behind the first `User-Agent` header, which found the server under `host` (without port).
///
/// Version and GUID are those of Windows Media clients; the GUID names an installation, and some have none.
/// Source: MS-RTSP 2.2.6.12.
pub fn player_of(user_agent: Option<&str>, host: Option<&str>) -> Player {
    let token: String = user_agent.unwrap_or_default().chars().take(TOKEN_BOUND).collect();
    let (version, guid) = if Agent::of(Some(&token)).is_windows_media() { (version(&token), guid(&token)) } else { (None, None) };
    Player { token, version, guid, host: host.map(str::to_owned), is_wms4: false }
}

/// Major and minor of the first product.
fn version(token: &str) -> Option<(u16, u16)> {
    let (_, rest) = token.split(' ').next()?.split_once('/')?;
    let mut numbers = rest.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// The GUID, if there is one in the usual form.
fn guid(token: &str) -> Option<String> {
    let guid = token.split(' ').find_map(|product| product.strip_prefix("guid/"))?;
    let groups: Vec<usize> = guid.split('-').map(str::len).collect();
    let digits = guid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    (digits && groups == [8, 4, 4, 4, 12]).then(|| guid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents() {
        for (name, agent, windows_media) in [
            (Some("WMPlayer/9.0.0.2833 guid/3300AD50-2C39-46C0-AE0A-AC7B8159E203"), Agent::Wmp, true),
            (Some("WMServer/9.5.0.0"), Agent::WmServer, true),
            (Some("wmserver/9"), Agent::WmServer, true),
            (Some("WMCacheProxy/9.00.00.1234"), Agent::WmCacheProxy, true),
            (Some("MCExtender/1.0.0.0"), Agent::McExtender, true),
            (Some("Lavf59.27.100"), Agent::Lavf, false),
            (Some("libmpv"), Agent::Lavf, false),
            (Some("GStreamer/1.22.0"), Agent::GStreamer, false),
            (Some("LibVLC/3.0.24 (LIVE555 Streaming Media v2016.11.28)"), Agent::Vlc, false),
            (Some("WMPlayer"), Agent::Other, false),
            (Some("ü"), Agent::Other, false),
            (None, Agent::Other, false),
        ] {
            assert_eq!((Agent::of(name), Agent::of(name).is_windows_media()), (agent, windows_media), "{name:?}");
        }
    }

    #[test]
    fn players() {
        const GUID: &str = "3300AD50-2C39-46C0-AE0A-AC7B8159E203";
        for (name, version, guid) in [
            (format!("WMPlayer/11.0.5721.5145 guid/{GUID} NSPlayer/11.0"), Some((11, 0)), Some(GUID)),
            (format!("WMPlayer/12.0 guid/{GUID}0"), Some((12, 0)), None),
            (format!("WMPlayer/9 guid/{}", GUID.replace('5', "g")), Some((9, 0)), None),
            ("WMPlayer/9x.1".to_owned(), None, None),
            (format!("Lavf/59.27 guid/{GUID}"), None, None),
        ] {
            let player = player_of(Some(&name), Some("media.example"));
            assert_eq!((player.version, player.guid.as_deref()), (version, guid), "{name}");
            assert_eq!((player.token, player.host.as_deref()), (name, Some("media.example")));
        }
        assert_eq!(player_of(None, None), Player::default());
        assert_eq!(player_of(Some(&"ü".repeat(1000)), None).token.chars().count(), TOKEN_BOUND);
    }
}
