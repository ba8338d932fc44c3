//! What a header says about its content in words.

use super::guids;
use crate::wire::{Cursor, DecodeError, decode_utf16};

/// Bytes of a Header Object before its first child.
const CHILDREN_AT: usize = 30;
/// GUID and size.
const OBJECT_HEAD_LEN: u64 = 24;
/// Longest text taken, UTF-16 units.
const TEXT_BOUND: usize = 256;

/// Title and author, where they are there and not empty; at most 256 UTF-16 units each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentDescription {
    /// Title.
    pub title: Option<String>,
    /// Author.
    pub author: Option<String>,
}

impl ContentDescription {
    /// Of a Header Object. Nothing where it has no such words or is broken.
    ///
    /// Source: ASF 3.10.
    pub fn of(header: &[u8]) -> Self {
        Self::find(header).unwrap_or_default()
    }

    fn find(header: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = Cursor::new(header);
        rest.skip("head of the Header Object", CHILDREN_AT)?;
        loop {
            let guid = rest.guid("object")?;
            let size = rest.u64("object size")?;
            let size = usize::try_from(size.saturating_sub(OBJECT_HEAD_LEN)).unwrap_or(usize::MAX);
            let body = rest.take("object", size)?;
            if guid == guids::CONTENT_DESCRIPTION {
                return Self::parse(Cursor::new(body));
            }
        }
    }

    fn parse(mut body: Cursor<'_>) -> Result<Self, DecodeError> {
        let title_len = body.u16("title length")?;
        let author_len = body.u16("author length")?;
        body.skip("other lengths", 6)?;
        let title = body.take("title", title_len.into())?;
        let author = body.take("author", author_len.into())?;
        Ok(Self { title: words(title), author: words(author) })
    }
}

fn words(bytes: &[u8]) -> Option<String> {
    let units = bytes.get(..bytes.len().min(TEXT_BOUND * 2))?;
    let text = decode_utf16(units, TEXT_BOUND)?;
    let text: String = text.trim_end_matches('\0').chars().filter(|c| !c.is_control()).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::{Writer, encode_utf16_nul};

    /// A Content Description Object.
    pub(crate) fn object(title: &str, author: &str) -> Vec<u8> {
        let (title, author) = (encode_utf16_nul(title), encode_utf16_nul(author));
        let len = |text: &[u8]| u16::try_from(text.len()).unwrap();
        let mut body = Writer::default();
        body.u16(len(&title)).u16(len(&author)).zeros(6).bytes(&title).bytes(&author);
        let body = body.finish();
        let mut object = Writer::default();
        object.guid(guids::CONTENT_DESCRIPTION).u64(24 + body.len() as u64).bytes(&body);
        object.finish()
    }

    #[test]
    fn words_of_a_header() {
        let mut header = vec![0; CHILDREN_AT];
        // Another object before it.
        header.extend([9; 16]);
        header.extend(25_u64.to_le_bytes());
        header.push(0);
        header.extend(object("K\u{f6}ln\r live", ""));
        let words = ContentDescription::of(&header);
        assert_eq!((words.title.as_deref(), words.author), (Some("K\u{f6}ln live"), None));
        for cut in 0..header.len() {
            assert_eq!(ContentDescription::of(&header[..cut]), ContentDescription::default());
        }
    }
}
