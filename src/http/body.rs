//! Where a request's body ends, and the bytes in it.

use super::head::Head;
use super::response::{Refusal, Status};

/// Longest line with a chunk's size, extensions included, bytes.
const SIZE_LINE_BOUND: usize = 256;
/// Longest trailer section, bytes.
const TRAILERS_BOUND: usize = 8 << 10;

/// How a request says where its body ends.
///
/// RFC 9112 6.3, without its leniencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes. The number is the sender's and may be anything; it sizes no buffer.
    Length(u64),
    /// With the chunk of size 0.
    Chunked,
    /// With the connection: no length is given and the sender says that it will close.
    UntilEnd,
}

/// Why a body has no end that one can trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Two parsers may see two different ends.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// No length, and the connection is to stay.
    #[error("send the body chunked, with a Content-Length, or with Connection: close")]
    LengthRequired,
}

impl From<FramingError> for Refusal {
    fn from(error: FramingError) -> Self {
        let status = match error {
            FramingError::Ambiguous(_) => Status::BadRequest,
            FramingError::LengthRequired => Status::LengthRequired,
        };
        Self::new(status, format!("The request body has no clear length: {error}."))
    }
}

impl Framing {
    /// Of a `POST` or `PUT`.
    ///
    /// # Errors
    /// [`FramingError`].
    pub fn of(head: &Head) -> Result<Self, FramingError> {
        let mut codings = head.all("Transfer-Encoding");
        let mut lengths = head.all("Content-Length");
        match (codings.next(), lengths.next()) {
            (Some(_), Some(_)) => Err(FramingError::Ambiguous("there are both Transfer-Encoding and Content-Length")),
            (Some(_), None) if head.http_1_0 => Err(FramingError::Ambiguous("HTTP/1.0 has no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") && codings.next().is_none() => Ok(Self::Chunked),
            (Some(_), None) => Err(FramingError::Ambiguous("the Transfer-Encoding is not exactly chunked")),
            (None, Some(length)) => {
                let digits = (1..=19).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
                let value = length.parse().ok().filter(|_| digits);
                let value = value.ok_or(FramingError::Ambiguous("the Content-Length is not a plain decimal number"))?;
                if lengths.any(|other| other != length) {
                    return Err(FramingError::Ambiguous("there are different Content-Lengths"));
                }
                Ok(Self::Length(value))
            }
            (None, None) if head.keeps_alive() => Err(FramingError::LengthRequired),
            (None, None) => Ok(Self::UntilEnd),
        }
    }
}

/// Why a chunked body cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is broken: {0}")]
pub struct BodyError(&'static str);

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(Status::BadRequest, format!("Bad request: {error}."))
    }
}

/// Takes the framing off a body.
#[derive(Debug)]
pub struct Body {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of data are left; then the body ends.
    Length(u64),
    UntilEnd,
    /// In the digits of a chunk's size; `line` counts its line's bytes.
    Size {
        size: u64,
        digits: usize,
    },
    /// Behind them, up to CR.
    Extension {
        size: u64,
        line: usize,
    },
    /// LF of that line.
    SizeEnd {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line; `read` counts the bytes of the section.
    TrailerStart {
        read: usize,
    },
    Trailer {
        read: usize,
    },
    TrailerLf {
        read: usize,
    },
    LastLf,
    Done,
}

impl Body {
    /// A body that has yet to come.
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilEnd => State::UntilEnd,
        };
        Self { state }
    }

    /// Whether all of it has come.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The sender closed its half. Whether that is where the body may end.
    pub const fn end_of_input(&mut self) -> bool {
        if matches!(self.state, State::UntilEnd) {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// Takes framing and data from the front of `input`; gives the next piece of data, `None` when input or body is at its end.
    /// What stands behind the body stays in `input`.
    ///
    /// # Errors
    /// [`BodyError`]; the body is of no further use then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(left) => {
                    let data = take(input, left);
                    self.state = match left - data.len() as u64 {
                        0 => State::Done,
                        left => State::Length(left),
                    };
                    return Ok(Some(data).filter(|data| !data.is_empty()));
                }
                State::UntilEnd => return Ok(Some(take(input, u64::MAX)).filter(|data| !data.is_empty())),
                State::Data(left) => {
                    let data = take(input, left);
                    self.state = match left - data.len() as u64 {
                        0 => State::DataCr,
                        left => State::Data(left),
                    };
                    return Ok(Some(data).filter(|data| !data.is_empty()));
                }
                framing => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    self.state = framing.after(byte)?;
                }
            }
        }
    }
}

fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).map_or(input.len(), |most| most.min(input.len()));
    let (data, rest) = input.split_at(count);
    *input = rest;
    data
}

impl State {
    /// The state behind one byte of chunk framing.
    ///
    /// RFC 9112 7.1.
    fn after(self, byte: u8) -> Result<Self, BodyError> {
        match (self, byte) {
            (Self::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let size = size.checked_mul(16).ok_or(BodyError("a chunk is larger than any can be"))? + digit;
                // Leading zeros make no number larger, so they need a bound of their own.
                if digits == 16 {
                    Err(BodyError("a chunk size has more than 16 digits"))
                } else {
                    Ok(Self::Size { size, digits: digits + 1 })
                }
            }
            (Self::Size { digits: 0, .. }, _) => Err(BodyError("a chunk has no size")),
            (Self::Size { size, .. } | Self::Extension { size, .. }, b'\r') => Ok(Self::SizeEnd { size }),
            (Self::Size { size, digits }, b';' | b' ' | b'\t') => Ok(Self::Extension { size, line: digits + 1 }),
            (Self::Size { .. }, _) => Err(BodyError("a chunk size is not hexadecimal")),
            (Self::Extension { .. }, byte) if byte != b'\t' && (byte < b' ' || byte == 0x7F) => {
                Err(BodyError("a control character beside a chunk size"))
            }
            (Self::Extension { line, .. }, _) if line >= SIZE_LINE_BOUND => Err(BodyError("chunk extensions over 256 bytes")),
            (Self::Extension { size, line }, _) => Ok(Self::Extension { size, line: line + 1 }),
            (Self::SizeEnd { size: 0 }, b'\n') => Ok(Self::TrailerStart { read: 0 }),
            (Self::SizeEnd { size }, b'\n') => Ok(Self::Data(size)),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::Size { size: 0, digits: 0 }),
            (Self::DataCr | Self::DataLf, _) => Err(BodyError("a chunk is longer than its size")),
            (Self::TrailerStart { .. }, b'\r') => Ok(Self::LastLf),
            (Self::LastLf, b'\n') => Ok(Self::Done),
            (Self::TrailerStart { read } | Self::Trailer { read }, _) if read >= TRAILERS_BOUND => {
                Err(BodyError("trailers over 8 KiB"))
            }
            (Self::Trailer { read }, b'\r') => Ok(Self::TrailerLf { read: read + 1 }),
            (Self::TrailerStart { .. } | Self::Trailer { .. }, 0 | b'\n') => Err(BodyError("a NUL or bare LF in the trailers")),
            (Self::TrailerStart { .. }, b' ' | b'\t') => Err(BodyError("a folded trailer")),
            (Self::TrailerStart { read } | Self::Trailer { read }, _) => Ok(Self::Trailer { read: read + 1 }),
            (Self::TrailerLf { read }, b'\n') => Ok(Self::TrailerStart { read: read + 1 }),
            (Self::SizeEnd { .. } | Self::LastLf | Self::TrailerLf { .. }, _) => Err(BodyError("a CR is not followed by LF")),
            // Data and its ends are not read byte by byte.
            (Self::Length(_) | Self::UntilEnd | Self::Data(_) | Self::Done, _) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;
    use proptest::prelude::*;

    fn framing(version: &str, fields: &str) -> Result<Framing, FramingError> {
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{fields}\r\n");
        Framing::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap())
    }

    #[test]
    fn lengths() {
        for (fields, expected) in [
            ("Content-Length: 12\r\n", Ok(Framing::Length(12))),
            ("Content-Length: 12\r\nContent-Length: 12\r\n", Ok(Framing::Length(12))),
            ("Content-Length: 2147483647\r\n", Ok(Framing::Length(0x7FFF_FFFF))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Connection: close\r\n", Ok(Framing::UntilEnd)),
            ("", Err(FramingError::LengthRequired)),
        ] {
            assert_eq!(framing("1.1", fields), expected, "{fields}");
        }
        assert_eq!(framing("1.0", ""), Ok(Framing::UntilEnd));
    }

    #[test]
    fn ambiguous_lengths() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(matches!(framing("1.1", fields), Err(FramingError::Ambiguous(_))), "{fields}");
        }
        assert!(framing("1.0", "Transfer-Encoding: chunked\r\n").is_err());
    }

    /// All data, and what is left behind the body.
    fn read(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let mut body = Body::new(framing);
        let (mut data, mut behind) = (Vec::new(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while let Some(part) = body.next(&mut piece)? {
                data.extend_from_slice(part);
            }
            behind.extend_from_slice(piece);
        }
        Ok((data, behind, body.is_done()))
    }

    #[test]
    fn chunks_split_at_every_byte() {
        let whole = b"4\r\nwiki\r\n0A ;ext=\"a\"\r\npedia in \r\n\r\n000\r\nX-T: 1\r\nY: 2\r\n\r\nNEXT";
        let broken = read(Framing::Chunked, &[whole]);
        assert!(broken.is_err(), "the second chunk is one byte longer than it says");
        let whole = b"4\r\nwiki\r\n09 ;ext=\"a\"\r\npedia in \r\n000\r\nX-T: 1\r\nY: 2\r\n\r\nNEXT";
        for cut in 0..=whole.len() {
            let (data, behind, done) = read(Framing::Chunked, &[&whole[..cut], &whole[cut..]]).unwrap();
            assert_eq!((data.as_slice(), done), (b"wikipedia in ".as_slice(), true), "{cut}");
            assert!(b"NEXT".ends_with(&behind[..]) || behind.ends_with(b"NEXT"), "{cut}");
            let (_, behind, done) = read(Framing::Chunked, &[&whole[..cut]]).unwrap();
            assert_eq!((done, behind.len()), (cut >= whole.len() - 4, cut.saturating_sub(whole.len() - 4)));
        }
    }

    #[test]
    fn broken_chunks() {
        let long_extension = format!("1;{}\r\n", "x".repeat(SIZE_LINE_BOUND));
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(TRAILERS_BOUND));
        let zeros = "0".repeat(17);
        for text in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "1\n",
            "1\rx",
            "1;\n",
            "1\r\nab",
            "1\r\na\rb",
            "1\r\na\nb",
            "0\r\n\rx",
            "0\r\nX\n",
            "0\r\n y\r\n",
            "10000000000000000\r\n",
            "0\r\nX: y\rz",
            "1;\0\r\n",
            " 1\r\n",
            "0x1\r\n",
            &long_extension,
            &long_trailer,
            &zeros,
        ] {
            assert!(read(Framing::Chunked, &[text.as_bytes()]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn length_and_end() {
        assert_eq!(read(Framing::Length(3), &[b"ab", b"cd"]), Ok((b"abc".to_vec(), b"d".to_vec(), true)));
        assert_eq!(read(Framing::Length(0), &[b"ab"]), Ok((vec![], b"ab".to_vec(), true)));
        assert_eq!(read(Framing::UntilEnd, &[b"ab", b"cd"]), Ok((b"abcd".to_vec(), vec![], false)));
        assert!(Body::new(Framing::UntilEnd).end_of_input());
        assert!(!Body::new(Framing::Length(1)).end_of_input());
        assert!(!Body::new(Framing::Chunked).end_of_input());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3')], 0..100)) {
            let _ = read(Framing::Chunked, &[&bytes]);
        }

        #[test]
        fn chunked_comes_back(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6)) {
            let mut wire = Vec::new();
            for part in &parts {
                wire.extend(format!("{:X}\r\n", part.len()).bytes());
                wire.extend(part);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
            prop_assert_eq!(read(Framing::Chunked, &[&wire]), Ok((parts.concat(), vec![], true)));
        }
    }
}
