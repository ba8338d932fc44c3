//! The header that a player of a file gets, made from the file's own.

use bytes::Bytes;

use super::guids;
use super::header::{DATA_HEAD_LEN, Header};
use super::properties::FileProperties;
use super::rewrite::{Edit, data_head, size};
use crate::wire::Guid;

/// What is true of a file as it is sent, whatever its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDemandFacts {
    /// Size of every packet, bytes, 100 to 65527. Another than the header's means that the packets are re-cut.
    pub packet_size: usize,
    /// How many packet numbers there are; of a re-cut file that many for each of its packets as each is cut into.
    pub packets: u64,
    /// How long it plays, without the preroll.
    pub play_duration_ms: u64,
    /// Send time of the last packet and its duration.
    pub send_duration_ms: u64,
    /// Whether a player may seek.
    pub seekable: bool,
    /// The File ID of a file that is not what its header says; `None` keeps the header's.
    pub file_id: Option<Guid>,
}

impl Header {
    /// The header of a file on demand: a Header Object and the 50 bytes of Data Object head that belong to it.
    ///
    /// Sizes, counts and durations are those of `facts`; never a broadcast. Where the header said the same, its bytes
    /// stay as they are: finer durations than milliseconds too, and a file size that covers indexes behind the
    /// packets. Where packets were re-cut or miscounted, the File ID of `facts` is put in. What would be wrong then
    /// goes: a signature wherever anything changed; markers, index parameters and placeholders, which hold byte
    /// offsets or promise an index, with re-cut packets. All else is the file's, byte for byte.
    ///
    /// Source: ASF 3.2 and 4.
    pub fn on_demand(&self, facts: &OnDemandFacts) -> Bytes {
        let recut = facts.packet_size != self.packet_size();
        let own_id = self.file_properties().map_or(Guid([0; 16]), |object| FileProperties::file_id(&object));
        let altered = recut || self.packet_count() != Some(facts.packets);
        let file_id = facts.file_id.filter(|_| altered).unwrap_or(own_id);
        // The size of the header is in its own file size: first without, to know how long it gets.
        let draft = self.for_file(facts, recut, file_id, 0);
        let data_len = facts.packets.saturating_mul(size(facts.packet_size));
        let file_size = size(draft.len() + DATA_HEAD_LEN).saturating_add(data_len);
        let header = self.for_file(facts, recut, file_id, file_size);
        [&header, data_head(file_id, facts.packets, size(facts.packet_size)).as_slice()].concat().into()
    }

    fn for_file(&self, facts: &OnDemandFacts, recut: bool, file_id: Guid, file_size: u64) -> Bytes {
        let new = |object: &[u8]| self.file_properties_of(object, facts, recut, file_id, file_size);
        let changed = recut || self.file_properties().is_some_and(|object| new(&object) != object);
        self.rewritten(|object| match object.guid {
            guids::FILE_PROPERTIES => Edit::Replace(new(object.bytes)),
            guids::DIGITAL_SIGNATURE if changed => Edit::Drop,
            guids::INDEX_PARAMETERS
            | guids::MEDIA_OBJECT_INDEX_PARAMETERS
            | guids::TIMECODE_INDEX_PARAMETERS
            | guids::INDEX_PLACEHOLDER
            | guids::MARKER
                if recut =>
            {
                Edit::Drop
            }
            _ => Edit::Keep,
        })
    }

    fn file_properties_of(&self, object: &[u8], facts: &OnDemandFacts, recut: bool, file_id: Guid, file_size: u64) -> Vec<u8> {
        let mut new = FileProperties::with_packets(object, facts.packets, facts.packet_size);
        let own = |at| FileProperties::u64_at(object, at);
        let preroll_ms = u64::from(self.preroll_ms());
        let play_ms = facts.play_duration_ms.saturating_add(preroll_ms);
        FileProperties::put(&mut new, FileProperties::FILE_ID_AT, &file_id.0);
        // An index behind the packets counts too, as long as the packets are the file's own.
        let stays = !recut && own(FileProperties::PACKET_COUNT_AT) == facts.packets;
        if !(stays && own(FileProperties::FILE_SIZE_AT) >= file_size) {
            FileProperties::put(&mut new, FileProperties::FILE_SIZE_AT, &file_size.to_le_bytes());
        }
        for (at, ms) in [(FileProperties::PLAY_DURATION_AT, play_ms), (FileProperties::SEND_DURATION_AT, facts.send_duration_ms)]
        {
            if own(at) / 10_000 != ms {
                FileProperties::put(&mut new, at, &ms.saturating_mul(10_000).to_le_bytes());
            }
        }
        FileProperties::put(&mut new, FileProperties::PREROLL_AT, &preroll_ms.to_le_bytes());
        FileProperties::put_flags(&mut new, facts.seekable);
        if self.file_bit_rate() == 0 {
            // Players refuse a rate of 0.
            FileProperties::put(&mut new, FileProperties::BIT_RATE_AT, &self.bit_rate().to_le_bytes());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, data_head as fabricated_head, extension, file_properties, header, object, video};
    use crate::asf::samples;

    const ID: Guid = Guid([0x5A; 16]);

    /// What [`file_properties`] says.
    fn facts() -> OnDemandFacts {
        OnDemandFacts {
            packet_size: 1400,
            packets: 7,
            play_duration_ms: 7_000,
            send_duration_ms: 7_000,
            seekable: true,
            file_id: Some(ID),
        }
    }

    #[test]
    fn true_headers_stay_byte_for_byte() {
        for name in ["vod-wmv2-wmav2-indexed.wmv", "audio-wmav2.wma", "h264-aac-bframes.asf", "camera-mjpeg-pcmu.asf"] {
            let file = samples::bytes(name);
            let (source, packets) = samples::stream(name);
            let head = &file[..source.bytes().len() + DATA_HEAD_LEN];
            let own = source.file_properties().unwrap();
            let facts = OnDemandFacts {
                packet_size: source.packet_size(),
                packets: packets.len() as u64,
                play_duration_ms: source.play_duration_ms().unwrap(),
                send_duration_ms: FileProperties::u64_at(&own, FileProperties::SEND_DURATION_AT) / 10_000,
                seekable: own[88] & 2 != 0,
                file_id: Some(ID),
            };
            assert_eq!(source.on_demand(&facts), head, "{name}");
        }
    }

    #[test]
    fn a_capture_becomes_a_file() {
        let mut file = file_properties(1400, 1);
        file[40..80].fill(0);
        let signature = object(guids::DIGITAL_SIGNATURE, &[0; 8]);
        let marker = object(guids::MARKER, &[0; 24]);
        let source = Header::parse(&header(&[signature, marker.clone(), audio(1), file.clone()])).unwrap();
        let found = source.on_demand(&facts());
        file[24..40].fill(0x5A);
        let len = source.bytes().len() - 32;
        file[40..48].copy_from_slice(&(len as u64 + 50 + 7 * 1400).to_le_bytes());
        file[56..64].copy_from_slice(&7_u64.to_le_bytes());
        file[64..72].copy_from_slice(&100_000_000_u64.to_le_bytes());
        file[72..80].copy_from_slice(&70_000_000_u64.to_le_bytes());
        file[88] = 2;
        let mut head = fabricated_head(7, 1400);
        head[24..40].fill(0x5A);
        assert_eq!(found, [header(&[marker, audio(1), file]), head].concat(), "the signature goes, the marker stays");
    }

    #[test]
    fn a_file_that_is_re_cut() {
        let dropped = [guids::INDEX_PARAMETERS, guids::INDEX_PLACEHOLDER, guids::MARKER].map(|guid| object(guid, &[0; 24]));
        let kept = object(guids::SCRIPT_COMMAND, &[0; 20]);
        let mut file = file_properties(3200, 2);
        let source = [file.clone(), kept.clone(), dropped[2].clone(), extension(&[dropped.concat(), video(2)]), audio(1)];
        let source = Header::parse(&header(&source)).unwrap();
        let facts = OnDemandFacts { packets: 21, file_id: None, ..facts() };
        let found = source.on_demand(&facts);
        let len = found.len() as u64 + 21 * 1400;
        file[40..48].copy_from_slice(&len.to_le_bytes());
        file[56..64].copy_from_slice(&21_u64.to_le_bytes());
        file[92..100].copy_from_slice(&[0x78, 5, 0, 0, 0x78, 5, 0, 0]);
        let expected = [header(&[file, kept, extension(&[video(2)]), audio(1)]), fabricated_head(21, 1400)].concat();
        assert_eq!(found, expected, "without an id of its own it keeps the file's");
        let parsed = Header::parse(&found).unwrap();
        assert_eq!((parsed.packet_count(), parsed.data_packet_count()), (Some(21), Some(21)));
        assert_eq!(parsed.play_duration_ms(), source.play_duration_ms());
    }

    #[test]
    fn absurd_facts_saturate() {
        let source = Header::parse(&header(&[audio(1), file_properties(1400, 0)])).unwrap();
        let facts = OnDemandFacts { packets: u64::MAX, play_duration_ms: u64::MAX, send_duration_ms: u64::MAX, ..facts() };
        assert!(Header::parse(&source.on_demand(&facts)).is_ok());
    }
}
