//! What a connection speaks, told from its first bytes.

/// A protocol that a media port knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// MMS over TCP.
    Mms,
    /// HTTP/1.x.
    Http,
}

/// What the first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// They name a protocol.
    Is(Protocol),
    /// They may still become one; more are wanted.
    Undecided,
    /// Nothing that is spoken here.
    Unknown,
}

/// Bytes that decide at the latest.
pub(super) const DECIDING_BYTES: usize = 8;
/// The session id field of every MMS control packet (MS-MMSP 2.2.3).
const MMS_SESSION_ID: [u8; 4] = [0xCE, 0xFA, 0x0B, 0xB0];
const HTTP_METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];

/// Tells the protocol from the first bytes of a connection.
pub(super) fn sniff(first: &[u8]) -> Sniffed {
    let head = first.get(..DECIDING_BYTES).unwrap_or(first);
    if HTTP_METHODS.iter().any(|method| head.starts_with(method.get(..head.len().min(method.len())).unwrap_or_default())) {
        let decided = HTTP_METHODS.iter().any(|method| head.starts_with(method.get(..DECIDING_BYTES).unwrap_or(method)));
        return if decided { Sniffed::Is(Protocol::Http) } else { Sniffed::Undecided };
    }
    if head.first().is_some_and(|rep| *rep != 1) {
        return Sniffed::Unknown;
    }
    let id = head.get(4..).unwrap_or_default();
    match (id.len(), MMS_SESSION_ID.starts_with(id)) {
        (4, true) => Sniffed::Is(Protocol::Mms),
        (_, true) => Sniffed::Undecided,
        (_, false) => Sniffed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_known_head_is_undecided_until_it_is_clear() {
        for (bytes, protocol, enough) in [
            (&b"\x01\0\0\0\xCE\xFA\x0B\xB0\xC8"[..], Protocol::Mms, 8),
            (b"POST /publish/cam1 HTTP/1.1", Protocol::Http, 5),
            (b"PUT /publish/cam1", Protocol::Http, 4),
            (b"OPTIONS * HTTP/1.1", Protocol::Http, 8),
        ] {
            for end in 0..bytes.len() {
                let expected = if end < enough { Sniffed::Undecided } else { Sniffed::Is(protocol) };
                assert_eq!(sniff(&bytes[..end]), expected, "{end} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn strangers_are_known_at_the_first_wrong_byte() {
        for bytes in [&b"\x16\x03\x01"[..], b"SSH-2.0", b"\x01\0\0\0\0", b"\0", b"POSTE "] {
            assert_eq!(sniff(bytes), Sniffed::Unknown, "{bytes:?}");
        }
    }
}
