//! Challenge and response: the frame of BASIC and NTLM over MMS.

use super::frame::{Message, body};
use crate::wire::{DecodeError, Writer};

/// Largest token that is read, bytes.
const MAX_TOKEN: usize = 8192;

/// Fields that challenge and response share. Source: MS-MMSP 2.2.4.14, 2.2.4.24.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecurityToken {
    /// Challenge: that of the request that caused it; response: that of the challenge.
    pub incarnation: u32,
    /// The server's choice, echoed by the response.
    pub cookie: u32,
    /// BASIC: the realm (UTF-16) or base64 credentials (ASCII); NTLM: two zero bytes and then its message.
    pub token: Vec<u8>,
}

fn parse(message: &[u8]) -> Result<SecurityToken, DecodeError> {
    let mut cursor = body(message)?;
    let incarnation = cursor.u32("playIncarnation")?;
    let cookie = cursor.u32("cookie")?;
    let length = usize::try_from(cursor.u32("cbToken")?).unwrap_or(usize::MAX);
    if length > MAX_TOKEN {
        return Err(cursor.invalid("cbToken", 4, "more than 8192"));
    }
    Ok(SecurityToken { incarnation, cookie, token: cursor.take("pToken", length)?.to_vec() })
}

fn write(token: &SecurityToken, body: &mut Writer) {
    let length = u32::try_from(token.token.len()).unwrap_or(u32::MAX);
    body.u32(token.incarnation).u32(token.cookie).u32(length).bytes(&token.token);
}

/// `LinkMacToViewerSecurityChallenge`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityChallenge(pub SecurityToken);

impl Message for SecurityChallenge {
    const MID: u32 = 0x0004_001A;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        parse(message).map(Self)
    }

    fn write(&self, body: &mut Writer) {
        write(&self.0, body);
    }
}

/// `LinkViewerToMacSecurityResponse`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityResponse(pub SecurityToken);

impl Message for SecurityResponse {
    const MID: u32 = 0x0003_001A;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        parse(message).map(Self)
    }

    fn write(&self, body: &mut Writer) {
        write(&self.0, body);
    }
}
