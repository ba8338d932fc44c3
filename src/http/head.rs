//! Request heads: collected byte by byte under bounds, checked for what smuggles, then parsed by httparse.

use super::response::{Refusal, Status};

/// Longest head, bytes.
const HEAD_BOUND: usize = 32 << 10;
/// Longest line of it, bytes.
const LINE_BOUND: usize = 8 << 10;
/// Most fields.
const FIELDS_BOUND: usize = 64;
/// Empty lines that are passed over in front of a request; some clients send one behind a body (RFC 9112 2.2).
const EMPTY_LINES_BOUND: usize = 2;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Method; case counts.
    pub method: String,
    /// Target, byte for byte as in the request line.
    pub target: String,
    /// HTTP/1.0: connections close after a response unless said otherwise.
    pub http_1_0: bool,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The values of a field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first value of a field.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a field that lists tokens has this one; case does not count.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the sender wants to go on with the connection after this request (RFC 9112 9.3).
    pub fn keeps_alive(&self) -> bool {
        !self.has_token("Connection", "close") && (!self.http_1_0 || self.has_token("Connection", "keep-alive"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_BOUND];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            // The reader found the empty line that ends the head, so nothing can be missing.
            Ok(httparse::Status::Partial) => return Err(HeadError::Syntax("the request line or a field is cut off")),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(httparse::Error::Version) => return Err(HeadError::Version),
            Err(httparse::Error::HeaderName) => return Err(HeadError::Syntax("a field name is not a token")),
            Err(httparse::Error::HeaderValue) => return Err(HeadError::Syntax("a field value holds a control character")),
            Err(_) => return Err(HeadError::Syntax("the request line is not METHOD TARGET HTTP/1.1")),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Syntax("the request line is not METHOD TARGET HTTP/1.1"));
        };
        let fields = request.headers.iter();
        let fields =
            fields.map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).trim().to_owned())).collect();
        let head = Self { method: method.to_owned(), target: target.to_owned(), http_1_0: minor == 0, fields };
        let hosts = head.all("Host").count();
        if hosts > 1 || (hosts == 0 && !head.http_1_0) {
            return Err(HeadError::Syntax("there is not exactly one Host field"));
        }
        Ok(head)
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is no request, or one that two parsers may read differently.
    #[error("{0}")]
    Syntax(&'static str),
    /// The request line is over 8 KiB.
    #[error("the request line is longer than 8 KiB")]
    TargetTooLong,
    /// Over 32 KiB, 64 fields or 8 KiB in one.
    #[error("the request head has more than 64 fields, 32 KiB, or 8 KiB in one line")]
    TooLarge,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        let status = match error {
            HeadError::Syntax(_) => Status::BadRequest,
            HeadError::TargetTooLong => Status::UriTooLong,
            HeadError::TooLarge => Status::FieldsTooLarge,
            HeadError::Version => Status::VersionNotSupported,
        };
        Self::new(status, format!("Bad request: {error}."))
    }
}

/// Collects one head.
///
/// httparse takes a bare LF for a line end; here CR and LF come in pairs only. A folded line, a NUL, a lone CR are refused as they
/// arrive, before the head is complete.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
    line_start: usize,
    empty_lines: usize,
}

impl HeadReader {
    /// Whether nothing has come yet.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.empty_lines == 0
    }

    /// Takes bytes up to the end of the head and says how many, with the head when it is complete.
    ///
    /// # Errors
    /// [`HeadError`]; the reader is of no further use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(usize, Option<Head>), HeadError> {
        for (index, &byte) in bytes.iter().enumerate() {
            let after_cr = self.bytes.last() == Some(&b'\r');
            match byte {
                0 => return Err(HeadError::Syntax("there is a NUL in the head")),
                b'\n' if !after_cr => return Err(HeadError::Syntax("a line ends in LF without CR")),
                b'\n' => {}
                _ if after_cr => return Err(HeadError::Syntax("a CR is not followed by LF")),
                b' ' | b'\t' if self.line_start == self.bytes.len() => {
                    return Err(HeadError::Syntax("a line begins with a blank; folded fields are not taken"));
                }
                _ => {}
            }
            self.bytes.push(byte);
            if self.bytes.len() - self.line_start > LINE_BOUND {
                return Err(if self.line_start == 0 { HeadError::TargetTooLong } else { HeadError::TooLarge });
            }
            if self.bytes.len() > HEAD_BOUND {
                return Err(HeadError::TooLarge);
            }
            if byte != b'\n' {
                continue;
            }
            let empty = self.bytes.len() - self.line_start == 2;
            if empty && self.line_start == 0 {
                self.bytes.clear();
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES_BOUND {
                    return Err(HeadError::Syntax("there are empty lines where a request should be"));
                }
            } else if empty {
                return Ok((index + 1, Some(Head::parse(&self.bytes)?)));
            }
            self.line_start = self.bytes.len();
        }
        Ok((bytes.len(), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
        HeadReader::default().push(bytes).map(|(_, head)| head)
    }

    #[test]
    fn reads_split_at_every_byte() {
        let request = b"\r\nPOST /publish/a%20b?x HTTP/1.1\r\nHost: h\r\nX-A:\t1 \r\nx-a: b, Close\r\n\r\nbody";
        let head = read(request).unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.http_1_0), ("POST", "/publish/a%20b?x", false));
        assert_eq!(head.all("X-A").collect::<Vec<_>>(), ["1", "b, Close"]);
        assert!(head.has_token("X-a", "close") && !head.has_token("X-a", "clos"));
        for cut in 0..request.len() - 4 {
            let mut reader = HeadReader::default();
            assert_eq!(reader.push(&request[..cut]), Ok((cut, None)));
            assert_eq!(reader.push(&request[cut..]), Ok((request.len() - 4 - cut, Some(head.clone()))), "{cut}");
        }
    }

    #[test]
    fn keep_alive_by_version() {
        for (line, fields, keeps) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: TE, Close\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let head = read(format!("PUT / {line}\r\nHost: h\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.keeps_alive(), keeps, "{line} {fields}");
        }
    }

    #[test]
    fn refuses_what_smuggles() {
        for request in [
            "POST / HTTP/1.1\nHost: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\n\n",
            "POST / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
            "POST / HTTP/1.1\r\n Host: h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost : h\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nX: \x01\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
            "POST  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /\r\nHost: h\r\n\r\n",
            " POST / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\n\r\n\r\n",
        ] {
            assert!(matches!(read(request.as_bytes()), Err(HeadError::Syntax(_))), "{request:?}");
        }
        for request in ["PRI * HTTP/2.0\r\n\r\n", "POST / a HTTP/1.1\r\nHost: h\r\n\r\n"] {
            assert_eq!(read(request.as_bytes()), Err(HeadError::Version), "{request:?}");
        }
    }

    #[test]
    fn is_bounded() {
        let long = "x".repeat(LINE_BOUND);
        assert_eq!(read(format!("PUT /{long}").as_bytes()), Err(HeadError::TargetTooLong));
        assert_eq!(read(format!("PUT / HTTP/1.1\r\nX: {long}").as_bytes()), Err(HeadError::TooLarge));
        let many = "X: y\r\n".repeat(FIELDS_BOUND);
        assert_eq!(read(format!("PUT / HTTP/1.1\r\nHost: h\r\n{many}\r\n").as_bytes()), Err(HeadError::TooLarge));
        let big = format!("X: {}\r\n", &long[..LINE_BOUND - 10]).repeat(5);
        assert_eq!(read(format!("PUT / HTTP/1.1\r\n{big}").as_bytes()), Err(HeadError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            let mut reader = HeadReader::default();
            if let Ok((taken, None)) = reader.push(&bytes[..cut]) {
                prop_assert_eq!(taken, cut);
                let _ = reader.push(&bytes[cut..]);
            }
        }
    }
}
