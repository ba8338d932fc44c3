//! What a connection speaks, told from its first bytes.

/// A protocol that a media port knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// MMS over TCP.
    Mms,
    /// HTTP/1.x.
    Http,
    /// RTSP.
    Rtsp,
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

/// Bytes that decide, but for a method that two protocols have.
pub(super) const DECIDING_BYTES: usize = 8;
/// By then the first line of a request has ended, which names its protocol.
const LINE_BYTES: usize = 4 << 10;
/// The session id field of every MMS control packet (MS-MMSP 2.2.3).
const MMS_SESSION_ID: [u8; 4] = [0xCE, 0xFA, 0x0B, 0xB0];
const METHODS: [(&[u8], Protocol); 18] = [
    (b"GET ", Protocol::Http),
    (b"HEAD ", Protocol::Http),
    (b"POST ", Protocol::Http),
    (b"PUT ", Protocol::Http),
    (b"DELETE ", Protocol::Http),
    (b"PATCH ", Protocol::Http),
    (b"CONNECT ", Protocol::Http),
    (b"TRACE ", Protocol::Http),
    (b"DESCRIBE", Protocol::Rtsp),
    (b"SETUP ", Protocol::Rtsp),
    (b"PLAY ", Protocol::Rtsp),
    (b"PAUSE ", Protocol::Rtsp),
    (b"TEARDOWN", Protocol::Rtsp),
    (b"GET_PARA", Protocol::Rtsp),
    (b"SET_PARA", Protocol::Rtsp),
    (b"ANNOUNCE", Protocol::Rtsp),
    (b"RECORD ", Protocol::Rtsp),
    (b"REDIRECT", Protocol::Rtsp),
];
/// What is asked by both.
const OPTIONS: &[u8] = b"OPTIONS ";

/// Tells the protocol from the first bytes of a connection.
pub(super) fn sniff(first: &[u8]) -> Sniffed {
    if let Some(rest) = first.strip_prefix(OPTIONS) {
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_rtsp = line.windows(6).any(|part| part == b" RTSP/");
        return match (is_rtsp, line.len() < rest.len() || first.len() >= LINE_BYTES) {
            (true, _) => Sniffed::Is(Protocol::Rtsp),
            (false, true) => Sniffed::Is(Protocol::Http),
            (false, false) => Sniffed::Undecided,
        };
    }
    let head = first.get(..DECIDING_BYTES).unwrap_or(first);
    if let Some((_, protocol)) = METHODS.iter().find(|(method, _)| head.starts_with(method)) {
        return Sniffed::Is(*protocol);
    }
    if METHODS.iter().map(|(method, _)| method).chain([&OPTIONS]).any(|method| method.starts_with(head)) {
        return Sniffed::Undecided;
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
            (b"OPTIONS * HTTP/1.1\r\n", Protocol::Http, 20),
            (b"OPTIONS rtsp://media.example/cam1 RTSP/1.0\r\n", Protocol::Rtsp, 39),
            (b"DESCRIBE rtsp://media.example/cam1 RTSP/1.0\r\n", Protocol::Rtsp, 8),
            (b"PLAY rtsp://media.example/cam1/ RTSP/1.0\r\n", Protocol::Rtsp, 5),
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
