//! The redirect to another URL.

use super::frame::{Message, body};
use crate::wire::{DecodeError, Writer, decode_utf16, encode_utf16_nul};

/// UTF-16 units of a location that are read.
const MAX_UNITS: usize = 2048;

/// `LinkMacToViewerReportRedirect`: sent in place of a ReportOpenFile; the server closes behind it. Source: MS-MMSP 2.2.4.9.
///
/// Windows Media Format 7 and later understand it; Windows Media Player 6.4 and the open-source clients do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRedirect {
    /// What to do.
    pub kind: RedirectKind,
    /// URL of scheme `mms`, `mmsu` or `mmst`, not percent-encoded.
    pub location: String,
}

/// What a redirect asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectKind {
    /// Open this URL.
    Url,
    /// Use this proxy; without a location: none any more.
    Proxy,
}

impl Message for ReportRedirect {
    const MID: u32 = 0x0004_0022;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("hr", 4)?;
        let kind = match cursor.u16("RedirectType")? {
            1 => RedirectKind::Url,
            2 => RedirectKind::Proxy,
            _ => return Err(cursor.invalid("RedirectType", 2, "neither 1 nor 2")),
        };
        let length = usize::from(cursor.u16("cbLocation")?);
        let location = decode_utf16(cursor.take("wszLocation", length)?, MAX_UNITS)
            .ok_or_else(|| cursor.invalid("wszLocation", length, "not valid UTF-16"))?;
        Ok(Self { kind, location })
    }

    fn write(&self, body: &mut Writer) {
        let kind = match self.kind {
            RedirectKind::Url => 1,
            RedirectKind::Proxy => 2,
        };
        // Longer locations do not exist; one that did would end early rather than break the frame.
        let location = encode_utf16_nul(&self.location.chars().take(MAX_UNITS / 2).collect::<String>());
        body.u32(0).u16(kind).u16(u16::try_from(location.len()).unwrap_or(0)).bytes(&location);
    }
}
