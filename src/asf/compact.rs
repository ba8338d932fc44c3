//! A header without what no player needs for playing, for places where there is little room.

use bytes::Bytes;

use super::guids;
use super::header::{DATA_HEAD_LEN, Header};
use super::objects::{OBJECT_HEAD_LEN, Object};
use super::properties::FileProperties;
use super::rewrite::{Edit, data_head, size};
use crate::wire::{Cursor, DecodeError, Guid, Writer};

/// A longer value of a tag is a picture, lyrics or the like.
const VALUE_BOUND: usize = 1024;

/// How much goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// What is not about the content, and long values of tags.
    Ballast,
    /// Tags, and markers.
    Tags,
    /// All but what playing takes.
    Words,
}

impl Header {
    /// The Header Object without ballast, and where that is not enough for `bound` bytes without more.
    ///
    /// Padding, branding, script commands, index parameters, signatures (of what the header was) and long values of
    /// tags, such as pictures, always go. Then, as far as it takes: first tags and markers; after those everything
    /// but the properties, rates, exclusions, priorities and languages of streams, and what belongs to encryption.
    /// What is left then is given, however long it is.
    ///
    /// Source: ASF 3 and 4.
    #[must_use]
    pub fn compact(&self, bound: usize) -> Bytes {
        let ballast = self.without(Loss::Ballast);
        if ballast.len() <= bound {
            return ballast;
        }
        let tags = self.without(Loss::Tags);
        if tags.len() <= bound { tags } else { self.without(Loss::Words) }
    }

    /// The head of a Data Object, for a header that came without one: 50 bytes, with the header's File ID and count of packets.
    pub fn data_head(&self) -> [u8; DATA_HEAD_LEN] {
        let head = data_head(self.file_id(), self.packet_count().unwrap_or_default(), size(self.packet_size()));
        head.first_chunk().copied().unwrap_or([0; DATA_HEAD_LEN])
    }

    /// The File ID.
    pub fn file_id(&self) -> Guid {
        self.file_properties().map_or(Guid([0; 16]), |object| FileProperties::file_id(&object))
    }

    /// Whether the header says that one may seek.
    pub fn is_seekable(&self) -> bool {
        !self.is_broadcast() && self.file_properties().is_some_and(|object| FileProperties::is_seekable(&object))
    }

    fn without(&self, loss: Loss) -> Bytes {
        self.rewritten(|object| match object.guid {
            guids::FILE_PROPERTIES
            | guids::STREAM_PROPERTIES
            | guids::EXTENDED_STREAM_PROPERTIES
            | guids::STREAM_BITRATE_PROPERTIES
            | guids::BITRATE_MUTUAL_EXCLUSION
            | guids::ADVANCED_MUTUAL_EXCLUSION
            | guids::GROUP_MUTUAL_EXCLUSION
            | guids::STREAM_PRIORITIZATION
            | guids::LANGUAGE_LIST
            | guids::CONTENT_ENCRYPTION
            | guids::EXTENDED_CONTENT_ENCRYPTION
            | guids::ADVANCED_CONTENT_ENCRYPTION => Edit::Keep,
            guids::PADDING
            | guids::CONTENT_BRANDING
            | guids::SCRIPT_COMMAND
            | guids::INDEX_PARAMETERS
            | guids::MEDIA_OBJECT_INDEX_PARAMETERS
            | guids::TIMECODE_INDEX_PARAMETERS
            | guids::INDEX_PLACEHOLDER
            | guids::DIGITAL_SIGNATURE => Edit::Drop,
            guids::EXTENDED_CONTENT_DESCRIPTION | guids::METADATA_LIBRARY if loss == Loss::Ballast => {
                match without_long_values(object) {
                    Ok(Some(shorter)) => Edit::Replace(shorter),
                    // One that cannot be read is left to those who can.
                    Ok(None) | Err(_) => Edit::Keep,
                }
            }
            guids::EXTENDED_CONTENT_DESCRIPTION | guids::METADATA_LIBRARY | guids::MARKER if loss != Loss::Ballast => Edit::Drop,
            _ if loss == Loss::Words => Edit::Drop,
            _ => Edit::Keep,
        })
    }
}

/// An Extended Content Description or Metadata Library Object without long values; `None` where it has none.
fn without_long_values(object: &Object<'_>) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut body = object.body();
    let all = body.u16("tags")?;
    let mut kept = Writer::with_capacity(object.bytes.len());
    let mut count = 0_u16;
    for _ in 0..all {
        let from = body;
        let value_len = tag(object.guid, &mut body)?;
        if value_len <= VALUE_BOUND {
            kept.bytes(from.rest().get(..body.position() - from.position()).unwrap_or_default());
            count += 1;
        }
    }
    if count == all {
        return Ok(None);
    }
    let mut out = Writer::with_capacity(OBJECT_HEAD_LEN + 2 + kept.len());
    out.guid(object.guid).u64(size(OBJECT_HEAD_LEN + 2 + kept.len())).u16(count).bytes(&kept.finish());
    Ok(Some(out.finish()))
}

/// Passes over one tag; gives how long its value is.
fn tag(list: Guid, body: &mut Cursor<'_>) -> Result<usize, DecodeError> {
    let value_len = if list == guids::METADATA_LIBRARY {
        body.skip("tag language and stream", 4)?;
        let name_len = body.u16("tag name length")?;
        body.u16("tag type")?;
        let value_len = usize::try_from(body.u32("tag value length")?).unwrap_or(usize::MAX);
        body.skip("tag name", name_len.into())?;
        value_len
    } else {
        let name_len = body.u16("tag name length")?;
        body.skip("tag name", name_len.into())?;
        body.u16("tag type")?;
        body.u16("tag value length")?.into()
    };
    body.skip("tag value", value_len)?;
    Ok(value_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, bit_rates, extended_stream, extension, file_properties, header, object, video};
    use crate::asf::{content_description_object, samples};

    /// Tags of an Extended Content Description Object, by the lengths of their values.
    fn tags(lens: &[u16]) -> Vec<u8> {
        let mut body = Writer::default();
        body.u16(u16::try_from(lens.len()).unwrap());
        for len in lens {
            body.u16(4).bytes(b"a\0\0\0").u16(1).u16(*len).zeros(usize::from(*len));
        }
        object(guids::EXTENDED_CONTENT_DESCRIPTION, &body.finish())
    }

    /// The same of a Metadata Library Object.
    fn library(lens: &[u16]) -> Vec<u8> {
        let mut body = Writer::default();
        body.u16(u16::try_from(lens.len()).unwrap());
        for len in lens {
            body.u16(0).u16(1).u16(4).u16(1).u32((*len).into()).bytes(b"a\0\0\0").zeros(usize::from(*len));
        }
        object(guids::METADATA_LIBRARY, &body.finish())
    }

    #[test]
    fn what_goes_first_and_what_never() {
        let (file, words) = (file_properties(1400, 2), content_description_object("title", "author"));
        let stream = extended_stream(2, 90_000, 0x13, &video(2));
        let rates = bit_rates(&[(1, 64_000)]);
        let unknown = object(Guid([3; 16]), &[1; 300]);
        let source = Header::parse(&header(&[
            object(guids::SCRIPT_COMMAND, &[0; 20]),
            file.clone(),
            object(guids::CONTENT_BRANDING, &[0; 200]),
            words.clone(),
            tags(&[20, 4000, 5]),
            object(guids::MARKER, &[0; 100]),
            audio(1),
            object(guids::DIGITAL_SIGNATURE, &[0; 30]),
            rates.clone(),
            unknown.clone(),
            object(guids::PADDING, &[0; 5000]),
            extension(&[
                object(guids::INDEX_PARAMETERS, &[0; 10]),
                stream.clone(),
                library(&[2000, 9]),
                object(guids::LANGUAGE_LIST, &[0; 10]),
            ]),
        ]))
        .unwrap();
        let languages = object(guids::LANGUAGE_LIST, &[0; 10]);
        let no_ballast = header(&[
            file.clone(),
            words.clone(),
            tags(&[20, 5]),
            object(guids::MARKER, &[0; 100]),
            audio(1),
            rates.clone(),
            unknown.clone(),
            extension(&[stream.clone(), library(&[9]), languages.clone()]),
        ]);
        assert_eq!(source.compact(usize::MAX), no_ballast);
        assert_eq!(source.compact(no_ballast.len()), no_ballast);
        let no_tags =
            header(&[file.clone(), words, audio(1), rates.clone(), unknown, extension(&[stream.clone(), languages.clone()])]);
        assert_eq!(source.compact(no_ballast.len() - 1), no_tags);
        let bare = header(&[file, audio(1), rates, extension(&[stream, languages])]);
        assert_eq!(source.compact(no_tags.len() - 1), bare);
        assert_eq!(source.compact(0), bare);
    }

    #[test]
    fn tags_that_lie_are_left_alone() {
        for (at, value) in [(24, 9), (26, 0xFFFF), (34, 0xFFFF)] {
            let mut tags = tags(&[2000, 1]);
            tags[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
            let source = header(&[file_properties(1400, 2), audio(1), tags]);
            assert_eq!(Header::parse(&source).unwrap().compact(usize::MAX), source);
        }
    }

    #[test]
    fn samples_stay_the_same_streams() {
        for (name, ..) in samples::STREAMS {
            let (source, _) = samples::stream(name);
            for bound in [usize::MAX, 0] {
                let compact = Header::parse(&source.compact(bound)).unwrap();
                assert!(compact.continues(&source), "{name}");
                assert_eq!((compact.streams(), compact.video()), (source.streams(), source.video()), "{name}");
                assert_eq!(compact.file_id(), source.file_id());
            }
        }
    }

    #[test]
    fn a_head_for_a_header_without_one() {
        let source = header(&[file_properties(1400, 2), audio(1)]);
        let source = Header::parse(&source).unwrap();
        assert!(source.is_seekable() && source.data_packet_count().is_none());
        let whole = Header::parse(&[source.bytes(), source.data_head().as_slice()].concat()).unwrap();
        assert_eq!(whole.data_packet_count(), Some(7));
        assert!(!Header::parse(&header(&[file_properties(1400, 3), audio(1)])).unwrap().is_seekable());
    }
}
