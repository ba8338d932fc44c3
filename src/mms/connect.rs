//! Connect and its report: who the player is, what the server calls itself.

use super::frame::{Message, body};
use crate::viewing::Player;
use crate::wire::{Cursor, DecodeError, Hresult, Writer, decode_utf16, encode_utf16_nul};

/// Incarnation that says "no packet pair", the only kind we use.
pub const NO_PACKET_PAIR: u32 = 0xF0F0_F0EF;
const TO_VIEWER_REVISION: u32 = 0x0004_000B;
const TO_SERVER_REVISION: u32 = 0x0003_001C;
/// UTF-16 units of a subscriber name that are read; the rest is passed over.
const MAX_NAME_UNITS: usize = 1024;

/// `LinkViewerToMacConnect`, the first message of a session. Source: MS-MMSP 2.2.4.17.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Whether packet pair is wanted; [`NO_PACKET_PAIR`] and unknown values mean no.
    pub incarnation: u32,
    /// One to three strings that each ended in NUL: the client token, a HOST line, a VIA line.
    pub subscriber: Vec<String>,
}

impl Message for Connect {
    const MID: u32 = 0x0003_0001;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let incarnation = cursor.u32("playIncarnation")?;
        cursor.skip("protocol revisions", 8)?;
        let mut subscriber = Vec::new();
        let units = cursor.rest().as_chunks::<2>().0;
        for text in units.get(..MAX_NAME_UNITS.min(units.len())).unwrap_or_default().split(|unit| *unit == [0, 0]) {
            if subscriber.len() == 3 || (text.is_empty() && !subscriber.is_empty()) {
                break;
            }
            let text: Vec<u16> = text.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            subscriber.push(String::from_utf16_lossy(&text));
        }
        Ok(Self { incarnation, subscriber })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.incarnation).u32(TO_VIEWER_REVISION).u32(TO_SERVER_REVISION);
        for text in &self.subscriber {
            body.bytes(&encode_utf16_nul(text));
        }
    }
}

impl Connect {
    /// Reads the subscriber name. Source: MS-MMSP 2.2.4.17.
    pub fn player(&self) -> Player {
        let token = self.subscriber.first().cloned().unwrap_or_default();
        let version = token.strip_prefix("NSPlayer/").and_then(|rest| {
            let mut parts = rest.split([';', '.', ' ']);
            let major = parts.next()?.parse().ok()?;
            Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
        });
        let guid = token.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(guid, _)| guid.to_owned());
        let named = |text: &str| {
            let at = text.to_ascii_lowercase().find("host: ")?;
            let host = text.get(at + 6..)?.split([';', ' ']).next()?;
            // A port follows the last colon, unless that colon belongs to a bare IPv6 address.
            let host = match host.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']')) => name,
                _ => host,
            };
            (!host.is_empty()).then(|| host.to_owned())
        };
        let host = self.subscriber.iter().find_map(|text| named(text));
        Player { is_wms4: token.starts_with("Spoo"), token, version, guid, host }
    }
}

/// `LinkMacToViewerReportConnectedEX`. Source: MS-MMSP 2.2.4.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportConnectedEx {
    /// Success or why not.
    pub hr: Hresult,
    /// Whether packet pair is done.
    pub incarnation: u32,
    /// `major.minor[.build.rev]`; the major number steers players.
    pub server_version: String,
    /// Authentication scheme; empty is none.
    pub authentication: String,
}

impl ReportConnectedEx {
    /// The major version of the server, 0 where it cannot be read.
    pub fn server_major(&self) -> u16 {
        self.server_version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }
}

impl Message for ReportConnectedEx {
    const MID: u32 = 0x0004_0001;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let hr = Hresult(cursor.u32("hr")?);
        let incarnation = cursor.u32("playIncarnation")?;
        cursor.skip("revisions and block sizes", 32)?;
        let counts = [
            cursor.u32("cbServerVersionInfo")?,
            cursor.u32("cbVersionInfo")?,
            cursor.u32("cbVersionUrl")?,
            cursor.u32("cbAuthenPackage")?,
        ];
        let mut texts = counts.into_iter().map(|units| text(&mut cursor, units));
        let server_version = texts.next().transpose()?.unwrap_or_default();
        // The two in between name a player update: nothing for us.
        let authentication = texts.nth(2).transpose()?.unwrap_or_default();
        Ok(Self { hr, incarnation, server_version, authentication })
    }

    fn write(&self, body: &mut Writer) {
        let strings = [&self.server_version, &self.authentication]
            .map(|text| if text.is_empty() { Vec::new() } else { encode_utf16_nul(text) });
        let [version, authentication] = &strings;
        let units = |bytes: &[u8]| u32::try_from(bytes.len() / 2).unwrap_or(0);
        body.u32(self.hr.0).u32(self.incarnation).u32(TO_VIEWER_REVISION).u32(TO_SERVER_REVISION);
        body.f64(1.0).u32(1).u32(1).u32(0x8000).u32(10_000_000);
        body.u32(units(version)).u32(0).u32(0).u32(units(authentication));
        body.bytes(version).bytes(authentication);
    }
}

/// The next `units` UTF-16 units as text; a count that runs over the end is cut there.
fn text(cursor: &mut Cursor<'_>, units: u32) -> Result<String, DecodeError> {
    let bytes = usize::try_from(units).unwrap_or(usize::MAX).saturating_mul(2).min(cursor.remaining());
    let bytes = cursor.take("string", bytes)?;
    Ok(decode_utf16(bytes, MAX_NAME_UNITS).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn player(texts: &[&str]) -> Player {
        Connect { incarnation: 0, subscriber: texts.iter().map(ToString::to_string).collect() }.player()
    }

    #[test]
    fn subscriber_names_of_players() {
        let wmp = player(&["NSPlayer/9.0.0.3250; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}; Host: media.example:1755"]);
        assert_eq!(wmp.version, Some((9, 0)));
        assert_eq!(wmp.guid.as_deref(), Some("3F2504E0-4F89-41D3-9A0C-0305E82C3301"));
        assert_eq!(wmp.host.as_deref(), Some("media.example"));
        let vlc = player(&["NSPlayer/7.0.0.1956; {0xbabac001-0x4bb9-0x1234-0x00000000}; Host: 127.0.0.1"]);
        assert_eq!(vlc.guid.as_deref(), Some("0xbabac001-0x4bb9-0x1234-0x00000000"));
        assert!(player(&["Spooooon!"]).is_wms4 && player(&["Spoooon!"]).is_wms4);
        let proxied = player(&["NSPlayer/4.1.0.3925; {A}", "HOST: radio.example", "VIA: proxy"]);
        assert_eq!((proxied.version, proxied.host.as_deref()), (Some((4, 1)), Some("radio.example")));
        assert_eq!(player(&["NSPlayer/10"]).version, Some((10, 0)));
        assert_eq!(player(&["a; Host: [2001:db8::1]:1755"]).host.as_deref(), Some("[2001:db8::1]"));
        assert_eq!(player(&["a; Host: 2001:db8::1"]).host.as_deref(), Some("2001:db8::1"));
        assert_eq!(player(&["a; Host: "]).host, None);
    }

    #[test]
    fn the_name_is_bounded() {
        let long = Connect { incarnation: 0, subscriber: vec!["x".repeat(3000)] };
        let mut out = Writer::default();
        out.zeros(8);
        long.write(&mut out);
        let read = Connect::parse(&out.finish()).unwrap();
        assert_eq!(read.subscriber, ["x".repeat(MAX_NAME_UNITS)]);
    }
}
