//! Messages as bytes.

use std::fmt::{Display, Write as _};

use bytes::Bytes;

use super::Method;

/// Characters of words in place of the standard ones: FFmpeg keeps 255.
const WORDS: usize = 200;

/// Writes a request: first line, headers in the order given, body.
#[derive(Debug)]
pub struct RequestWriter(String);

/// Writes a response: status line, headers in the order given, body.
#[derive(Debug)]
pub struct ResponseWriter(String);

impl RequestWriter {
    /// A request for `target`, which is written as it is.
    pub fn new(method: &Method, target: &str) -> Self {
        let mut out = String::with_capacity(512);
        push_clean(&mut out, method.as_str());
        out.push(' ');
        push_clean(&mut out, target);
        out.push_str(" RTSP/1.0\r\n");
        Self(out)
    }
}

impl ResponseWriter {
    /// A response with this status and its standard words.
    pub fn new(status: u16) -> Self {
        let mut out = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(out, "RTSP/1.0 {status} {}\r\n", reason(status));
        Self(out)
    }

    /// A response with this status and words for a person in place of the standard ones, of which FFmpeg and others show nothing but
    /// this line: the first line of them, at most 200 printable characters of ASCII; the standard words where there are none.
    pub fn in_words(status: u16, words: &str) -> Self {
        let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let words: String = words.lines().next().unwrap_or_default().chars().take(WORDS).map(printable).collect();
        let words = words.trim();
        let words = if words.is_empty() { reason(status) } else { words };
        Self(format!("RTSP/1.0 {status} {words}\r\n"))
    }
}

/// The writers differ in their first lines only.
macro_rules! rest_of_message {
    ($writer:ty) => {
        impl $writer {
            /// Adds a header. Values come from us, never as received: a line break in one is our fault, and is left out.
            pub fn header(&mut self, name: &str, value: impl Display) -> &mut Self {
                push_header(&mut self.0, name, &value);
                self
            }

            /// The message without body.
            pub fn finish(mut self) -> Bytes {
                self.0.push_str("\r\n");
                self.0.into()
            }

            /// The message with `Content-Length` and this body.
            pub fn body(self, body: &[u8]) -> Bytes {
                let mut out = Vec::from(self.head_for(body.len()));
                out.extend_from_slice(body);
                out.into()
            }

            /// The head alone, with `Content-Length`, for a body of so many bytes that is sent apart.
            pub fn head_for(mut self, body_bytes: usize) -> Bytes {
                push_header(&mut self.0, "Content-Length", &body_bytes);
                self.finish()
            }
        }
    };
}

rest_of_message!(RequestWriter);
rest_of_message!(ResponseWriter);

fn push_header(out: &mut String, name: &str, value: &dyn Display) {
    push_clean(out, name);
    out.push_str(": ");
    push_clean(out, &value.to_string());
    out.push_str("\r\n");
}

fn push_clean(out: &mut String, text: &str) {
    debug_assert!(clean(text).eq(text.chars()), "a control character in {text:?}");
    out.extend(clean(text));
}

/// Everything but control characters.
fn clean(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_control() || *c == '\t')
}

/// Appends an interleaved frame. Source: RFC 2326 10.12.
///
/// A payload over 65 535 bytes has no frame; nothing is appended then.
pub fn interleaved(channel: u8, payload: &[u8], out: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(payload.len()) else {
        debug_assert!(false, "{} bytes in one frame", payload.len());
        return;
    };
    let [high, low] = length.to_be_bytes();
    out.extend_from_slice(&[b'$', channel, high, low]);
    out.extend_from_slice(payload);
}

/// The words beside a status. Source: RFC 2326 7.1.1.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        250 => "Low on Storage Space",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Time-out",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        451 => "Parameter Not Understood",
        452 => "Conference Not Found",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        455 => "Method Not Valid in This State",
        456 => "Header Field Not Valid for Resource",
        457 => "Invalid Range",
        458 => "Parameter Is Read-Only",
        459 => "Aggregate Operation Not Allowed",
        460 => "Only Aggregate Operation Allowed",
        461 => "Unsupported Transport",
        462 => "Destination Unreachable",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Time-out",
        505 => "RTSP Version Not Supported",
        551 => "Option Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses() {
        let mut out = ResponseWriter::new(200);
        out.header("CSeq", 3).header("Session", "8134007897615700187;timeout=60");
        assert_eq!(out.finish(), "RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 8134007897615700187;timeout=60\r\n\r\n");
        let mut out = ResponseWriter::new(461);
        out.header("CSeq", 0);
        assert_eq!(out.body(b"no\n"), "RTSP/1.0 461 Unsupported Transport\r\nCSeq: 0\r\nContent-Length: 3\r\n\r\nno\n");
        assert_eq!(ResponseWriter::new(799).head_for(2080), "RTSP/1.0 799 Unknown\r\nContent-Length: 2080\r\n\r\n");
    }

    #[test]
    fn words_of_our_own() {
        let words = |words: &str| ResponseWriter::in_words(415, words).finish();
        assert_eq!(words("It is\tVP\u{e9}."), "RTSP/1.0 415 It is?VP?.\r\n\r\n");
        assert_eq!(words("It is VP8.\r\nX: y"), "RTSP/1.0 415 It is VP8.\r\n\r\n", "the rest is for the body");
        assert_eq!(words("It is VP8.\rX: y"), "RTSP/1.0 415 It is VP8.?X: y\r\n\r\n");
        assert_eq!(words(&"x".repeat(300)), format!("RTSP/1.0 415 {}\r\n\r\n", "x".repeat(200)));
        assert_eq!(words(""), "RTSP/1.0 415 Unsupported Media Type\r\n\r\n");
    }

    #[test]
    fn end_of_stream() {
        let body = b"Session: 13856065358275910855\r\nEOF: true\r\nEnd-Of-Playlist-Entry: true\r\n";
        let mut out = RequestWriter::new(&Method::SetParameter, "rtsp://h/live.wsx");
        out.header("Content-Type", "application/x-wms-extension-cmd").header("CSeq", 5);
        let head = "SET_PARAMETER rtsp://h/live.wsx RTSP/1.0\r\nContent-Type: application/x-wms-extension-cmd\r\nCSeq: 5\r\n";
        let tail = "Content-Length: 71\r\n\r\n";
        assert_eq!(out.body(body), [head.as_bytes(), tail.as_bytes(), body].concat());
    }

    #[test]
    fn control_characters_are_left_out() {
        let broken = "rtsp://h/\r\nSet-Cookie: x\0\u{85}\ty";
        assert_eq!(clean(broken).collect::<String>(), "rtsp://h/Set-Cookie: x\ty");
        let response = std::panic::catch_unwind(|| {
            let mut out = ResponseWriter::new(200);
            out.header("Location", broken);
            out.finish()
        });
        // Where assertions are on, our fault is to be seen.
        assert_eq!(response.is_err(), cfg!(debug_assertions));
        let expected = "RTSP/1.0 200 OK\r\nLocation: rtsp://h/Set-Cookie: x\ty\r\n\r\n";
        assert!(response.is_ok_and(|response| response == expected) != cfg!(debug_assertions));
    }

    #[test]
    fn frames() {
        let mut out = vec![9];
        interleaved(2, b"abc", &mut out);
        assert_eq!(out, [9, b'$', 2, 0, 3, b'a', b'b', b'c']);
        interleaved(0, &[0; 65_535], &mut out);
        assert_eq!((out.len(), &out[8..12]), (8 + 4 + 65_535, &[b'$', 0, 0xFF, 0xFF][..]));
    }
}
