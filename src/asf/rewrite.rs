//! Rewriting a header object by object, and the packet size that live re-cutting gives it.

use bytes::Bytes;

use super::guids;
use super::header::{EXTENSION_HEAD_LEN, HEADER_HEAD_LEN, Header};
use super::objects::{Object, Objects};
use super::properties::FileProperties;
use crate::wire::{Guid, Writer};

/// What becomes of one object of a header.
pub(super) enum Edit {
    /// It stays, byte for byte.
    Keep,
    /// It goes.
    Drop,
    /// These bytes stand in its place, its head included.
    Replace(Vec<u8>),
}

/// The objects of a level that `Header::parse` has found sound.
pub(super) fn objects(bytes: &[u8], start: usize) -> impl Iterator<Item = Object<'_>> {
    Objects::new(bytes.get(start..).unwrap_or_default()).map_while(Result::ok)
}

pub(super) const fn size(len: usize) -> u64 {
    len as u64
}

/// The head of a Data Object, 50 bytes: its File ID, the packets in it, and its size by them.
pub(super) fn data_head(file_id: Guid, packets: u64, packet_size: u64) -> Vec<u8> {
    let mut head = Writer::with_capacity(50);
    head.guid(guids::DATA).u64(50_u64.saturating_add(packets.saturating_mul(packet_size)));
    head.guid(file_id).u64(packets).u16(0x0101);
    head.finish()
}

impl Header {
    /// The Header Object with every object of both levels as `edit` wants it; counts and sizes follow.
    ///
    /// Where `edit` changes nothing the bytes are the header's own, whatever its counts say.
    pub(super) fn rewritten(&self, edit: impl Fn(&Object<'_>) -> Edit) -> Bytes {
        let Some((count, children)) = rewrite_level(self.bytes(), HEADER_HEAD_LEN, &|object| match object.guid {
            guids::HEADER_EXTENSION => match rewrite_level(object.bytes, EXTENSION_HEAD_LEN, &edit) {
                None => Edit::Keep,
                Some((_, children)) => Edit::Replace(extension(object, &children)),
            },
            _ => edit(object),
        }) else {
            return self.bytes().clone();
        };
        let mut out = Writer::with_capacity(HEADER_HEAD_LEN + children.len());
        out.guid(guids::HEADER).u64(size(HEADER_HEAD_LEN + children.len())).u32(count).u8(1).u8(2).bytes(&children);
        Bytes::from(out.finish())
    }

    /// The header of the same streams in packets of another size, as live re-cutting makes them.
    ///
    /// `packet_size` is taken into 100 to 65527 bytes. A count of packets goes, for it is not known any more. Equal
    /// headers give equal ones, so that what continues a header goes on continuing it.
    ///
    /// Source: ASF 3.2.
    #[must_use]
    pub fn with_packet_size(&self, packet_size: usize) -> Self {
        if packet_size == self.packet_size() {
            return self.clone();
        }
        let bytes = self.rewritten(|object| match object.guid {
            guids::FILE_PROPERTIES => Edit::Replace(FileProperties::with_packets(object.bytes, 0, packet_size)),
            _ => Edit::Keep,
        });
        // It was sound before, and the size that was put in is a sound one.
        Self::parse(&bytes).unwrap_or_else(|_| self.clone())
    }
}

/// The objects of one level after their edits, and how many there are; `None` where nothing changes.
fn rewrite_level(bytes: &[u8], start: usize, edit: &impl Fn(&Object<'_>) -> Edit) -> Option<(u32, Vec<u8>)> {
    let mut out = Writer::with_capacity(bytes.len());
    let (mut count, mut changed) = (0, false);
    for object in objects(bytes, start) {
        match edit(&object) {
            Edit::Keep => {
                out.bytes(object.bytes);
            }
            Edit::Drop => {
                changed = true;
                continue;
            }
            Edit::Replace(new) => {
                changed |= new != object.bytes;
                out.bytes(&new);
            }
        }
        count += 1;
    }
    changed.then(|| (count, out.finish()))
}

/// A Header Extension Object with other children.
fn extension(object: &Object<'_>, children: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(EXTENSION_HEAD_LEN + children.len());
    out.guid(guids::HEADER_EXTENSION).u64(size(EXTENSION_HEAD_LEN + children.len()));
    out.bytes(object.bytes.get(24..42).unwrap_or_default());
    out.u32(u32::try_from(children.len()).unwrap_or(u32::MAX)).bytes(children);
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, extension, file_properties, header, object, video};
    use crate::asf::samples;

    #[test]
    fn a_header_that_nothing_changes_in_keeps_its_bytes() {
        let mut source = header(&[audio(1), extension(&[video(2)]), file_properties(1400, 0)]);
        source[24..28].copy_from_slice(&77_u32.to_le_bytes());
        let source = Header::parse(&source).unwrap();
        assert_eq!(source.rewritten(|_| Edit::Keep), source.bytes());
        assert_eq!(source.rewritten(|object| Edit::Replace(object.bytes.to_vec())), source.bytes());
    }

    #[test]
    fn drops_and_replaces_on_both_levels() {
        let (old, new) = (object(Guid([3; 16]), &[1, 2, 3]), object(Guid([4; 16]), &[5]));
        let file = file_properties(1400, 0);
        let source = [file.clone(), old.clone(), audio(1), extension(&[old.clone(), guids_padding(), video(2)])];
        let found = Header::parse(&header(&source)).unwrap().rewritten(|object| match object.guid {
            Guid([3, ..]) => Edit::Replace(new.clone()),
            guids::PADDING | guids::AUDIO => Edit::Drop,
            _ => Edit::Keep,
        });
        assert_eq!(found, header(&[file, new.clone(), audio(1), extension(&[new, video(2)])]));
    }

    fn guids_padding() -> Vec<u8> {
        object(guids::PADDING, &[0; 9])
    }

    #[test]
    fn another_packet_size_and_nothing_else() {
        for (name, _, packet_size) in samples::STREAMS {
            let (source, _) = samples::stream(name);
            let small = source.with_packet_size(700);
            assert_eq!((small.packet_size(), small.packet_count(), small.data_packet_count()), (700, None, None), "{name}");
            assert_eq!((small.streams(), small.bit_rate()), (source.streams(), source.bit_rate()), "{name}");
            assert!(small.continues(&source.clone().with_packet_size(700)) && !small.continues(&source), "{name}");
            let same = source.with_packet_size(packet_size);
            assert!(same.continues(&source) && same.bytes() == source.bytes(), "{name}");
            assert_eq!(source.with_packet_size(1).packet_size(), 100);
            assert_eq!(source.with_packet_size(usize::MAX).packet_size(), 65_527);
        }
    }
}
