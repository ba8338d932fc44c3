//! OpenFile and its report: the name of a publishing point, and what it is.

use super::frame::{Message, body};
use crate::wire::{DecodeError, Hresult, Writer, encode_utf16_nul};

/// The only file id we hand out: VLC knows 1 and 2, and every open-source client says 1 later whatever it was given.
pub const FILE_ID: u32 = 1;
/// `fileAttributes` of a live broadcast; with any other bit libmms and xine believe that they can seek.
pub const BROADCAST: u32 = 0x0200_0000;
/// `fileAttributes` of a file in which players may seek. Fast forward and rewind (0x00800000) are not offered.
pub const CAN_SEEK: u32 = 0x0100_0000;
/// Units of a name that are kept; one more than is allowed, so that a longer one is known as such.
const MAX_NAME_UNITS: usize = 1024;
const MAX_TOKEN: usize = 8192;

/// `LinkViewerToMacOpenFile`. Source: MS-MMSP 2.2.4.21.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// Echoed in the report.
    pub incarnation: u32,
    /// Path of the URL as sent, not percent-encoded; unreadable units are U+FFFD. See [`OpenFile::point`].
    pub name: String,
    /// Credentials.
    pub token: Token,
}

/// The token of an OpenFile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// There is none.
    None,
    /// BASIC: base64 text; NTLM: see [`super::security`].
    Bytes(Vec<u8>),
    /// Place or size of it are outside the message.
    Invalid,
}

impl OpenFile {
    /// The publishing point's name, with one leading slash stripped.
    ///
    /// # Errors
    /// [`Hresult::INVALID_NAME`] for an empty name, more than 1,024 UTF-16 units, unreadable or control characters, a backslash, a
    /// colon or a `..` segment; [`Hresult::INVALID_ARGUMENT`] for a token outside of the message.
    pub fn point(&self) -> Result<&str, Hresult> {
        if self.token == Token::Invalid {
            return Err(Hresult::INVALID_ARGUMENT);
        }
        let name = self.name.strip_prefix('/').unwrap_or(&self.name);
        let forbidden = |c: char| c.is_control() || matches!(c, '\\' | ':' | char::REPLACEMENT_CHARACTER);
        let units = self.name.encode_utf16().count();
        if name.is_empty() || units > MAX_NAME_UNITS || name.contains(forbidden) || name.split('/').any(|part| part == "..") {
            return Err(Hresult::INVALID_NAME);
        }
        Ok(name)
    }
}

impl Message for OpenFile {
    const MID: u32 = 0x0003_0005;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let incarnation = cursor.u32("playIncarnation")?;
        cursor.skip("spare", 4)?;
        let at = usize::try_from(cursor.u32("token")?).unwrap_or(usize::MAX);
        let size = usize::try_from(cursor.u32("cbtoken")?).unwrap_or(usize::MAX);
        let rest = cursor.rest();
        let token = match (at, size) {
            (0, _) | (_, 0) => Token::None,
            _ if at % 2 != 0 || size > MAX_TOKEN => Token::Invalid,
            _ => at
                .checked_add(size)
                .and_then(|end| rest.get(at..end))
                .map_or(Token::Invalid, |bytes| Token::Bytes(bytes.to_vec())),
        };
        let name = if at == 0 { rest } else { rest.get(..at).unwrap_or(rest) };
        let units = name.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let units = units.take_while(|unit| *unit != 0).take(MAX_NAME_UNITS + 1);
        let name = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Ok(Self { incarnation, name, token })
    }

    fn write(&self, body: &mut Writer) {
        let name = encode_utf16_nul(&self.name);
        let (at, token) = match &self.token {
            Token::Bytes(bytes) => (name.len(), bytes.as_slice()),
            Token::None | Token::Invalid => (0, [].as_slice()),
        };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        body.u32(self.incarnation).u32(0).u32(number(at)).u32(number(token.len())).bytes(&name).bytes(token);
    }
}

/// `LinkMacToViewerReportOpenFile`. Source: MS-MMSP 2.2.4.7.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReportOpenFile {
    /// Success or why not.
    pub hr: Hresult,
    /// Echo of the request.
    pub incarnation: u32,
    /// [`FILE_ID`]; 0 on failure, because VLC looks at nothing else.
    pub file_id: u32,
    /// [`BROADCAST`] for live, [`CAN_SEEK`] for a file.
    pub attributes: u32,
    /// Duration, seconds; 0 for live.
    pub duration_s: f64,
    /// Duration rounded up, seconds; 0 for live.
    pub blocks: u32,
    /// Fixed size of ASF packets, bytes.
    pub packet_size: u32,
    /// ASF packets; 0 for live.
    pub packet_count: u64,
    /// Sum of the streams' bit rates, bits per second; not 0.
    pub bit_rate: u32,
    /// Bytes of the ASF header that ReadBlock yields; VLC waits for exactly so many.
    pub header_size: u32,
}

impl Message for ReportOpenFile {
    const MID: u32 = 0x0004_0006;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let hr = Hresult(cursor.u32("hr")?);
        let incarnation = cursor.u32("playIncarnation")?;
        let file_id = cursor.u32("openFileId")?;
        cursor.skip("padding and fileName", 8)?;
        let attributes = cursor.u32("fileAttributes")?;
        let duration_s = cursor.f64("fileDuration")?;
        let blocks = cursor.u32("fileBlocks")?;
        cursor.skip("unused1", 16)?;
        Ok(Self {
            hr,
            incarnation,
            file_id,
            attributes,
            duration_s,
            blocks,
            packet_size: cursor.u32("filePacketSize")?,
            packet_count: cursor.u64("filePacketCount")?,
            bit_rate: cursor.u32("fileBitRate")?,
            header_size: cursor.u32("fileHeaderSize")?,
        })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(self.incarnation).u32(self.file_id).zeros(8).u32(self.attributes).f64(self.duration_s);
        body.u32(self.blocks).zeros(16).u32(self.packet_size).u64(self.packet_count).u32(self.bit_rate).u32(self.header_size);
        body.zeros(40);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> Result<String, Hresult> {
        OpenFile { incarnation: 1, name: name.to_owned(), token: Token::None }.point().map(ToOwned::to_owned)
    }

    #[test]
    fn names_that_open_and_names_that_do_not() {
        assert_eq!(point("/live/cam1").as_deref(), Ok("live/cam1"));
        assert_eq!(point("Köln 1%20a").as_deref(), Ok("Köln 1%20a"), "not percent-decoded");
        assert_eq!(point("a..b").as_deref(), Ok("a..b"));
        assert_eq!(point(&"x".repeat(1024)).as_deref(), Ok("x".repeat(1024).as_str()));
        let long = "x".repeat(1025);
        for bad in ["", "/", "..", "a/../b", "a\\b", "c:a", "a\nb", "a\u{7f}", "\u{FFFD}", &long] {
            assert_eq!(point(bad), Err(Hresult::INVALID_NAME), "{bad:?}");
        }
    }

    fn with_token(at: u32, size: u32, tail: &[u8]) -> OpenFile {
        let mut out = Writer::default();
        out.zeros(8).u32(1).u32(0).u32(at).u32(size).bytes(tail);
        OpenFile::parse(&out.finish()).unwrap()
    }

    #[test]
    fn tokens() {
        let tail = b"a\0\0\0dG9rZW4=\0";
        assert_eq!(with_token(4, 9, tail).token, Token::Bytes(b"dG9rZW4=\0".to_vec()));
        assert_eq!(with_token(4, 9, tail).name, "a");
        assert_eq!(with_token(2, 9, b"a\0dG9rZW4=\0").name, "a", "the token may end the name");
        assert_eq!(with_token(0, 0, tail).token, Token::None);
        for (at, size) in [(3, 4), (4, 12), (u32::MAX - 1, 8), (4, u32::MAX), (4, 8193)] {
            let open = with_token(at, size, tail);
            assert_eq!(open.token, Token::Invalid);
            assert_eq!(open.point(), Err(Hresult::INVALID_ARGUMENT));
        }
        let open = OpenFile { incarnation: 9, name: "ab".into(), token: Token::Bytes(b"xyz".to_vec()) };
        let mut out = Writer::default();
        out.zeros(8);
        open.write(&mut out);
        assert_eq!(OpenFile::parse(&out.finish()), Ok(open));
    }
}
