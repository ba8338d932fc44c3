//! Response heads: collected under bounds, parsed by httparse, read for what a player has to know.

use crate::http::body::Framing;
use crate::http::viewer::version;

/// Longest head, bytes.
const HEAD_BOUND: usize = 32 << 10;
/// Most fields.
const FIELDS_BOUND: usize = 128;
/// Version of servers that do not tell one.
const OLDEST: u16 = 4;

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) code: u16,
    /// The words beside it, without control characters, at most 80 characters.
    pub(super) reason: String,
    fields: Vec<(String, String)>,
}

/// What a `Server` field tells. Source: MS-WMSP 2.2.1.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Server {
    /// `Cougar`: a Windows Media server, as opposed to an encoder (`Rex`) and to all others.
    pub(super) is_cougar: bool,
    /// 4 where it tells none.
    pub(super) major: u16,
}

impl Response {
    /// The values of a field, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first value of a field.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of a `Pragma` token, without quotes.
    pub(super) fn pragma(&self, name: &str) -> Option<&str> {
        let tokens = self.all("Pragma").flat_map(tokens).map(|token| token.split_once('=').unwrap_or((token, "")));
        let mut values = tokens.filter(|(token, _)| token.trim().eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// The number that the value of a `Pragma` token begins with.
    pub(super) fn pragma_number(&self, name: &str) -> Option<u32> {
        let value = self.pragma(name)?;
        let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        value.get(..end)?.parse().ok()
    }

    /// Who answers.
    pub(super) fn server(&self) -> Server {
        let field = self.first("Server").unwrap_or_default();
        // VLC writes a space where the slash should be.
        let of = |name: &str| field.strip_prefix(name).map(|rest| version(rest).0);
        match (of("Cougar"), of("Rex")) {
            (Some(major), _) => Server { is_cougar: true, major },
            (None, Some(major)) => Server { is_cougar: false, major },
            (None, None) => Server { is_cougar: false, major: OLDEST },
        }
    }

    /// Whether the server can do this of what may be left out.
    pub(super) fn supports(&self, what: &str) -> bool {
        self.all("Supported").flat_map(|list| list.split(',')).any(|item| item.trim().ends_with(what))
    }

    /// Where its body ends.
    ///
    /// # Errors
    /// What is wrong with the fields that say so.
    pub(super) fn framing(&self) -> Result<Framing, String> {
        if matches!(self.code, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if let Some(coding) = self.first("Transfer-Encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunked),
                false => Err(format!("its Transfer-Encoding is {coding:?}, which nobody asked for")),
            };
        }
        let mut lengths = self.all("Content-Length");
        let Some(length) = lengths.next() else { return Ok(Framing::UntilEnd) };
        let digits = (1..=19).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse() {
            Ok(length_bytes) if digits && lengths.all(|other| other == length) => Ok(Framing::Length(length_bytes)),
            _ => Err("its Content-Length is not one decimal number".into()),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_BOUND];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err("its head is cut off".into()),
            Err(httparse::Error::TooManyHeaders) => return Err(format!("its head has more than {FIELDS_BOUND} fields")),
            Err(error) => return Err(format!("it does not answer in HTTP: {error}")),
        }
        let reason = response.reason.unwrap_or_default().chars().filter(|c| !c.is_control()).take(80).collect();
        let fields = response.headers.iter();
        let fields = fields.map(|field| (field.name.to_owned(), String::from_utf8_lossy(field.value).trim().to_owned()));
        Ok(Self { code: response.code.unwrap_or_default(), reason, fields: fields.collect() })
    }
}

/// What stands between commas that are not in quotes.
fn tokens(line: &str) -> impl Iterator<Item = &str> + Clone {
    let mut quoted = false;
    line.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// Collects one head.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    bytes: Vec<u8>,
}

impl ResponseReader {
    /// Takes bytes up to the end of the head off the front of `input`; the head when it is complete.
    ///
    /// Lines may end in LF alone, as some old servers write them.
    ///
    /// # Errors
    /// What is wrong with it; the reader is of no further use then.
    pub(super) fn push(&mut self, input: &mut &[u8]) -> Result<Option<Response>, String> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.bytes.push(byte);
            if byte == b'\n' && (self.bytes.ends_with(b"\r\n\r\n") || self.bytes.ends_with(b"\n\n")) {
                let response = Response::parse(&self.bytes)?;
                self.bytes.clear();
                // 100 and the like come before the response.
                if !(100..200).contains(&response.code) {
                    return Ok(Some(response));
                }
            }
            if self.bytes.len() == 4 && !b"HTTP".starts_with(&self.bytes) {
                return Err("it does not answer in HTTP".into());
            }
            if self.bytes.len() > HEAD_BOUND {
                return Err(format!("the head of its answer is longer than {} KiB", HEAD_BOUND >> 10));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Response {
        let mut input = text.as_bytes();
        let response = ResponseReader::default().push(&mut input).unwrap().unwrap();
        assert_eq!(input, b"body");
        response
    }

    #[test]
    fn heads_of_servers() {
        let ours = read(
            "HTTP/1.0 200 OK\r\nServer: Cougar/9.5.6001.18281 wmrelay/1\r\n\
             Pragma: no-cache, client-id=77, features=\"broadcast,playlist\", timeout=60000\r\n\
             Supported: com.microsoft.wm.sswitch, com.microsoft.wm.predstrm\r\nContent-Length: 12\r\n\r\nbody",
        );
        assert_eq!(ours.server(), Server { is_cougar: true, major: 9 });
        assert_eq!((ours.pragma_number("client-id"), ours.pragma("features")), (Some(77), Some("broadcast,playlist")));
        assert!(ours.supports("predstrm") && !ours.supports("fastcache"));
        assert_eq!(ours.framing(), Ok(Framing::Length(12)));
        let vlc = read(
            "HTTP/1.0 200 OK\r\nContent-type: application/octet-stream\r\nServer: Cougar 4.1.0.3921\r\nPragma: no-cache\r\n\
             Pragma: client-id=30215\r\nPragma: features=\"broadcast\"\r\n\r\nbody",
        );
        assert_eq!((vlc.server(), vlc.framing()), (Server { is_cougar: true, major: 4 }, Ok(Framing::UntilEnd)));
        assert_eq!((vlc.pragma_number("client-id"), vlc.pragma("features")), (Some(30215), Some("broadcast")));
        let bare = read("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302\nLocation: /x\nTransfer-Encoding: Chunked\n\nbody");
        assert_eq!((bare.code, bare.first("location"), bare.framing()), (302, Some("/x"), Ok(Framing::Chunked)));
        assert_eq!(bare.server(), Server { is_cougar: false, major: 4 });
        assert_eq!(read("HTTP/1.0 204 No\r\nServer: Rex/12.0\r\n\r\nbody").framing(), Ok(Framing::Length(0)));
    }

    #[test]
    fn heads_that_are_none() {
        let error = |text: &str| ResponseReader::default().push(&mut text.as_bytes()).unwrap_err();
        assert!(error("SSH-2.0-x\r\n").contains("not answer in HTTP"));
        assert!(error("HTTP/9 x\r\n\r\n").contains("not answer in HTTP"));
        assert!(error(&format!("HTTP/1.0 200 OK\r\n{}", "X: y\r\n".repeat(6000))).contains("longer than 32 KiB"));
        assert!(error(&format!("HTTP/1.0 200 OK\r\n{}\r\n", "X: y\r\n".repeat(200))).contains("128 fields"));
        for fields in ["Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 99999999999999999999"] {
            assert!(read(&format!("HTTP/1.0 200 OK\r\n{fields}\r\n\r\nbody")).framing().is_err(), "{fields}");
        }
        assert!(read("HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nbody").framing().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = [b"HTTP/1.0 200 OK\r\nPragma: ", &bytes[..], b"\r\n\r\n"].concat();
            for input in [&bytes[..], &text] {
                if let Ok(Some(response)) = ResponseReader::default().push(&mut &*input) {
                    let _ = (response.framing(), response.server(), response.pragma_number("client-id"));
                }
            }
        }
    }
}
