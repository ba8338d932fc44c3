//! The header that viewers of a live stream get, made from the source's.

use bytes::Bytes;

use super::guids;
use super::header::{EXTENSION_HEAD_LEN, HEADER_HEAD_LEN, Header};
use super::objects::{Object, Objects};
use super::properties::{ExtendedStream, FileProperties};
use crate::wire::{Guid, Writer};

/// Flag of the File Properties Object: sizes, counts and durations are unknown. Seekable stays clear.
const BROADCAST: u32 = 1;

impl Header {
    /// The header of a broadcast: a Header Object and the 50 bytes of Data Object head that belong to it.
    ///
    /// `file_id` is to be new for every generation of a stream's header, `created` counts 100 ns from 1601.
    /// Counts, sizes and durations are 0. Indexes, markers, padding and signatures, which would be wrong now, go;
    /// so do script commands, which may open web pages in a player. All else is the source's, byte for byte.
    ///
    /// Source: ASF 3.2 and 4.1.
    pub fn broadcast(&self, file_id: Guid, created: u64) -> Bytes {
        let mut children = Writer::with_capacity(self.bytes().len());
        let mut count = 0;
        for object in objects(self.bytes(), HEADER_HEAD_LEN) {
            count += u32::from(self.rewrite(&object, file_id, created, &mut children));
        }
        let children = children.finish();
        let mut out = Writer::with_capacity(HEADER_HEAD_LEN + children.len() + 50);
        out.guid(guids::HEADER).u64(size(HEADER_HEAD_LEN + children.len())).u32(count).u8(1).u8(2).bytes(&children);
        // A size of all ones, which some take for "unknown", makes VLC play nothing.
        out.guid(guids::DATA).u64(50).guid(file_id).u64(0).u16(0x0101);
        Bytes::from(out.finish())
    }

    /// Appends what becomes of one object; false where nothing does.
    fn rewrite(&self, object: &Object<'_>, file_id: Guid, created: u64, out: &mut Writer) -> bool {
        match object.guid {
            guids::FILE_PROPERTIES => self.file_properties(file_id, created, out),
            guids::EXTENDED_STREAM_PROPERTIES => {
                out.bytes(&live_extended_stream(object.bytes));
            }
            guids::HEADER_EXTENSION => {
                let mut children = Writer::with_capacity(object.bytes.len());
                for child in objects(object.bytes, EXTENSION_HEAD_LEN) {
                    // Extensions do not nest; one inside another passes as an unknown object.
                    if child.guid == guids::HEADER_EXTENSION {
                        children.bytes(child.bytes);
                    } else {
                        self.rewrite(&child, file_id, created, &mut children);
                    }
                }
                let children = children.finish();
                out.guid(guids::HEADER_EXTENSION).u64(size(EXTENSION_HEAD_LEN + children.len()));
                out.bytes(object.bytes.get(24..42).unwrap_or_default());
                out.u32(u32::try_from(children.len()).unwrap_or(u32::MAX)).bytes(&children);
            }
            guids::INDEX_PARAMETERS
            | guids::MEDIA_OBJECT_INDEX_PARAMETERS
            | guids::TIMECODE_INDEX_PARAMETERS
            | guids::INDEX_PLACEHOLDER
            | guids::MARKER
            | guids::DIGITAL_SIGNATURE
            | guids::PADDING
            | guids::SCRIPT_COMMAND => return false,
            _ => {
                out.bytes(object.bytes);
            }
        }
        true
    }

    fn file_properties(&self, file_id: Guid, created: u64, out: &mut Writer) {
        let packet_size = u32::try_from(self.packet_size()).unwrap_or(u32::MAX);
        out.guid(guids::FILE_PROPERTIES).u64(size(FileProperties::LEN)).guid(file_id);
        out.u64(0).u64(created).zeros(24).u64(u64::from(self.preroll_ms()));
        out.u32(BROADCAST).u32(packet_size).u32(packet_size).u32(self.bit_rate());
    }
}

/// The objects of a level that `Header::parse` has found sound.
fn objects(bytes: &[u8], start: usize) -> impl Iterator<Item = Object<'_>> {
    Objects::new(bytes.get(start..).unwrap_or_default()).map_while(Result::ok)
}

const fn size(len: usize) -> u64 {
    len as u64
}

/// An Extended Stream Properties Object for a stream without beginning, end or seeking.
fn live_extended_stream(object: &[u8]) -> Vec<u8> {
    let mut live = object.to_vec();
    if let Some(times) = live.get_mut(ExtendedStream::START_AND_END_TIME) {
        times.fill(0);
    }
    if let Some(flags) = live.get_mut(ExtendedStream::FLAGS_AT) {
        *flags = *flags & !ExtendedStream::SEEKABLE | ExtendedStream::RESEND_LIVE_CLEAN_POINTS;
    }
    live
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, bit_rates, extended_stream, extension, file_properties, header, object, video};
    use crate::asf::samples;
    use crate::wire::Cursor;

    const ID: Guid = Guid([0x5A; 16]);

    #[test]
    fn every_field_of_a_broadcast() {
        let placeholder = object(guids::INDEX_PLACEHOLDER, &[0; 10]);
        let unknown = object(Guid([3; 16]), &[1, 2, 3]);
        let source = header(&[
            object(guids::SCRIPT_COMMAND, &[0; 20]),
            audio(1),
            file_properties(1400, 2),
            object(guids::MARKER, &[0; 24]),
            object(guids::PADDING, &[0; 999]),
            object(guids::DIGITAL_SIGNATURE, &[0; 8]),
            extension(&[
                object(guids::INDEX_PARAMETERS, &[0; 10]),
                object(guids::MEDIA_OBJECT_INDEX_PARAMETERS, &[0; 10]),
                extended_stream(2, 90_000, 0x13, &video(2)),
                object(guids::TIMECODE_INDEX_PARAMETERS, &[0; 10]),
                placeholder,
                unknown.clone(),
            ]),
            bit_rates(&[(1, 64_000)]),
        ]);
        let live = Header::parse(&source).unwrap().broadcast(ID, 77);

        let mut file = Writer::default();
        file.guid(ID).u64(0).u64(77).u64(0).u64(0).u64(0).u64(3_000).u32(1).u32(1400).u32(1400).u32(154_000);
        let mut stream = extended_stream(2, 90_000, 0x19, &video(2));
        stream[24..40].fill(0);
        let mut data = Writer::default();
        data.guid(guids::DATA).u64(50).guid(ID).u64(0).u16(0x0101);
        let expected = [
            header(&[
                audio(1),
                object(guids::FILE_PROPERTIES, &file.finish()),
                extension(&[stream, unknown]),
                bit_rates(&[(1, 64_000)]),
            ]),
            data.finish(),
        ]
        .concat();
        assert_eq!(live, expected);
    }

    #[test]
    fn samples_become_broadcasts() {
        for (name, ..) in samples::STREAMS {
            let (source, _) = samples::stream(name);
            let bytes = source.broadcast(ID, 5);
            let live = Header::parse(&bytes).unwrap();
            assert_eq!(bytes.len(), live.bytes().len() + 50, "{name}");
            assert!(live.is_broadcast() && live.continues(&source), "{name}");
            assert_eq!(
                (live.streams(), live.bit_rate(), live.packet_count()),
                (source.streams(), source.bit_rate(), None),
                "{name}"
            );
            assert_eq!(live.broadcast(ID, 5), bytes, "{name}: a broadcast's header is one already");
            let mut children = Cursor::new(&bytes[24..]);
            let count = usize::try_from(children.u32("children").unwrap()).unwrap();
            assert_eq!(objects(live.bytes(), HEADER_HEAD_LEN).count(), count, "{name}");
        }
    }

    #[test]
    fn an_absurd_preroll_does_not_reach_viewers() {
        let mut file = file_properties(1400, 0);
        file[80..88].fill(0xFF);
        let live = Header::parse(&header(&[file, audio(1)])).unwrap().broadcast(ID, 0);
        assert_eq!(live[30 + 80..30 + 88], 5_000_u64.to_le_bytes());
    }
}
