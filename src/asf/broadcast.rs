//! The header that viewers of a live stream get, made from the source's.

use bytes::Bytes;

use super::guids;
use super::header::Header;
use super::properties::{ExtendedStream, FileProperties};
use super::rewrite::{Edit, data_head, size};
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
        let header = self.rewritten(|object| match object.guid {
            guids::FILE_PROPERTIES => Edit::Replace(self.live_file_properties(file_id, created)),
            guids::EXTENDED_STREAM_PROPERTIES => Edit::Replace(live_extended_stream(object.bytes)),
            guids::INDEX_PARAMETERS
            | guids::MEDIA_OBJECT_INDEX_PARAMETERS
            | guids::TIMECODE_INDEX_PARAMETERS
            | guids::INDEX_PLACEHOLDER
            | guids::MARKER
            | guids::DIGITAL_SIGNATURE
            | guids::PADDING
            | guids::SCRIPT_COMMAND => Edit::Drop,
            _ => Edit::Keep,
        });
        // A size of all ones, which some take for "unknown", makes VLC play nothing.
        [&header, data_head(file_id, 0, 0).as_slice()].concat().into()
    }

    fn live_file_properties(&self, file_id: Guid, created: u64) -> Vec<u8> {
        let packet_size = u32::try_from(self.packet_size()).unwrap_or(u32::MAX);
        let mut out = Writer::with_capacity(FileProperties::LEN);
        out.guid(guids::FILE_PROPERTIES).u64(size(FileProperties::LEN)).guid(file_id);
        out.u64(0).u64(created).zeros(24).u64(u64::from(self.preroll_ms()));
        out.u32(BROADCAST).u32(packet_size).u32(packet_size).u32(self.bit_rate());
        out.finish()
    }
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
    use crate::asf::objects::Objects;
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
            assert_eq!(Objects::new(&live.bytes()[30..]).count(), count, "{name}");
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
