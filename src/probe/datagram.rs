//! What a probe and the server send to each other by UDP.
//!
//! Ours alone: eight letters that neither a message of MMS (0D F0 EF BE) nor one of RTP or RTCP (its two highest bits are 10) begins
//! with, a letter for the direction, the probe's token, and the ports as the sender knows them.

use crate::wire::{Cursor, Writer};

const MAGIC: [u8; 8] = *b"wmprobe1";
/// Bytes of a token: nobody guesses that.
pub const TOKEN_BYTES: usize = 16;
/// Bytes of a datagram.
pub const DATAGRAM_BYTES: usize = MAGIC.len() + 1 + TOKEN_BYTES + 2 + 2;

/// What a probe is known by on the way.
pub type Token = [u8; TOKEN_BYTES];

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the server to a client port.
    Challenge,
    /// From the client to a port of the server.
    Echo,
}

/// A probe's datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Which way it goes.
    pub kind: Kind,
    /// Of which probe.
    pub token: Token,
    /// The server's port as its sender knows it.
    pub server_port: u16,
    /// The client's port as its sender knows it.
    pub client_port: u16,
}

impl Datagram {
    /// Reads one; `None` for anything else, which the first byte nearly always shows.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != DATAGRAM_BYTES || !bytes.starts_with(&MAGIC) {
            return None;
        }
        let mut cursor = Cursor::new(bytes);
        cursor.skip("magic", MAGIC.len()).ok()?;
        let kind = match cursor.take("kind", 1).ok()? {
            b"C" => Kind::Challenge,
            b"E" => Kind::Echo,
            _ => return None,
        };
        let token = cursor.take("token", TOKEN_BYTES).ok()?.try_into().ok()?;
        Some(Self { kind, token, server_port: cursor.u16("server port").ok()?, client_port: cursor.u16("client port").ok()? })
    }

    /// The bytes of it, [`DATAGRAM_BYTES`] of them.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(DATAGRAM_BYTES);
        let kind = match self.kind {
            Kind::Challenge => b"C",
            Kind::Echo => b"E",
        };
        out.bytes(&MAGIC).bytes(kind).bytes(&self.token).u16(self.server_port).u16(self.client_port);
        out.finish()
    }
}

/// A token as JSON has it: 32 hexadecimal digits.
pub fn token_text(token: &Token) -> String {
    token.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`token_text`] wrote.
pub fn token_of(text: &str) -> Option<Token> {
    let digits = text.as_bytes().as_chunks::<2>();
    let bytes = digits.0.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    if digits.1.is_empty() { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_and_nothing_else() {
        for kind in [Kind::Challenge, Kind::Echo] {
            let datagram = Datagram { kind, token: [7; 16], server_port: 1755, client_port: 1033 };
            let bytes = datagram.bytes();
            assert_eq!(bytes.len(), DATAGRAM_BYTES);
            assert!(bytes.len() <= 64);
            assert_eq!(Datagram::parse(&bytes), Some(datagram));
            assert_eq!(Datagram::parse(&bytes[..28]), None);
            assert_eq!(Datagram::parse(&[&bytes[..], b"x"].concat()), None);
        }
        assert_eq!(Datagram::parse(&[0; DATAGRAM_BYTES]), None);
        assert_eq!(Datagram::parse(b"wmprobe1X...................."), None);
    }

    /// No resend request, and no packet of RTP or RTCP, is taken for one, and none of these for those.
    #[test]
    fn it_is_no_message_of_media() {
        let bytes = Datagram { kind: Kind::Echo, token: [0; 16], server_port: 0, client_port: 0 }.bytes();
        assert_ne!(&bytes[..4], &[0x0D, 0xF0, 0xEF, 0xBE]);
        assert_ne!(bytes[0] >> 6, 2);
        let mut request = [0; DATAGRAM_BYTES];
        request[..4].copy_from_slice(&[0x0D, 0xF0, 0xEF, 0xBE]);
        assert_eq!(Datagram::parse(&request), None);
    }

    #[test]
    fn tokens_as_text() {
        let token: Token = std::array::from_fn(|i| u8::try_from(i * 16).unwrap());
        assert_eq!(token_of(&token_text(&token)), Some(token));
        for text in
            ["", "00", "zz112233445566778899aabbccddeeff", "00112233445566778899aabbccddeefff", "é0112233445566778899aabbccddeef"]
        {
            assert_eq!(token_of(text), None, "{text}");
        }
    }
}
