//! The indexes behind the data: from a presentation time to a packet from which its key frame is found.
//!
//! Writers get them wrong in many ways, and a wrong one is worse than none. Whatever does not fit the file's own facts
//! makes an index behave as if it were not there; what fits may still be wrong, so a look-up is a hint to check.

use super::StreamSet;
use super::guids;
use super::objects::OBJECT_HEAD_LEN;
use crate::wire::{Cursor, Guid};

/// Entries that one index may have, ten million: 115 days of seconds, 40 MB in memory.
pub const MAX_ENTRIES: u64 = 10_000_000;

/// The longest index object that is worth reading, bytes: a Simple Index of [`MAX_ENTRIES`].
pub const MAX_INDEX_LEN: u64 = 56 + 6 * MAX_ENTRIES;

/// Bytes of a Simple Index Object in front of its first entry.
const SIMPLE_HEAD_LEN: u64 = 56;
/// An interval under a millisecond would be a mistake, one over an hour no help.
const INTERVAL_100_NS: std::ops::RangeInclusive<u64> = 10_000..=36_000_000_000;
/// Specifiers of an Index Object: three types for each of 127 streams.
const MAX_SPECIFIERS: u16 = 3 * 127;
/// The specifier type "nearest past clean point".
const CLEAN_POINT: u16 = 3;
/// An Index Object's offset for "no such place".
const NO_PLACE: u32 = u32::MAX;

/// What an index is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexBounds {
    /// Packets of the file.
    pub packets: u64,
    /// Bytes of each.
    pub packet_size: u32,
}

/// The head of an object behind the data: its GUID and its whole size in bytes.
///
/// `None` where `head` holds no object that fits into the `present` bytes from its first to the end of the file: under
/// 24 bytes, a size under 24, or one that leads out. Source: ASF 2.1.
pub fn object_head(head: &[u8], present: u64) -> Option<(Guid, u64)> {
    let mut cursor = Cursor::new(head);
    let guid = cursor.guid("object id").ok()?;
    let size = cursor.u64("object size").ok()?;
    (24..=present).contains(&size).then_some((guid, size))
}

/// A sound index: packet numbers at even steps of presentation time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    interval_100_ns: u64,
    /// Never empty, never falling, each below the number of packets.
    packets: Vec<u32>,
}

impl Index {
    /// A packet at or before the one in which the last key frame at or before that time begins, if the index is right.
    ///
    /// `presentation_ms` includes the preroll, as presentation times in packets do. The packet may be that of a key
    /// frame one interval older, and, where the writer mixed several video streams into one index, of another stream.
    pub fn packet_for(&self, presentation_ms: u64) -> Option<u64> {
        let entry = presentation_ms.saturating_mul(10_000) / self.interval_100_ns;
        let entry = usize::try_from(entry).unwrap_or(usize::MAX);
        self.packets.get(entry).or(self.packets.last()).map(|packet| u64::from(*packet))
    }

    /// How many entries there are, at least 1.
    pub const fn entries(&self) -> usize {
        self.packets.len()
    }

    /// Reads a Simple Index Object, `None` where anything in it cannot be.
    ///
    /// Source: ASF 6.1.
    fn simple(object: &[u8], bounds: IndexBounds) -> Option<Self> {
        let mut cursor = Cursor::new(object);
        let (_, size) = object_head(object, object.len() as u64)?;
        cursor.skip("head and file id", OBJECT_HEAD_LEN + 16).ok()?;
        let interval_100_ns = cursor.u64("interval").ok()?;
        cursor.skip("maximum packet count", 4).ok()?;
        let count = u64::from(cursor.u32("entries").ok()?);
        if !INTERVAL_100_NS.contains(&interval_100_ns) || count == 0 || count > MAX_ENTRIES {
            return None;
        }
        if SIMPLE_HEAD_LEN + count * 6 > size {
            return None;
        }
        let entries = cursor.take("entries", usize::try_from(count * 6).ok()?).ok()?;
        let mut packets = Packets::with_room_for(count);
        for entry in entries.chunks_exact(6) {
            packets.push(u64::from(u32::from_le_bytes(*entry.first_chunk()?)), bounds)?;
        }
        Some(Self { interval_100_ns, packets: packets.0 })
    }

    /// Reads an Index Object's entries for the clean points of a stream, `None` where it has none, or where anything in
    /// it cannot be. VLC writes one whose body has the shape of a Simple Index.
    ///
    /// Source: ASF 6.2.
    fn object(object: &[u8], stream: u8, bounds: IndexBounds) -> Option<Self> {
        let mut cursor = Cursor::new(object);
        let (_, size) = object_head(object, object.len() as u64)?;
        // What stands behind the object is not its own.
        cursor.skip("head", OBJECT_HEAD_LEN).ok()?;
        let mut cursor = Cursor::new(cursor.rest().get(..usize::try_from(size).ok()?.checked_sub(OBJECT_HEAD_LEN)?)?);
        let interval_100_ns = u64::from(cursor.u32("interval").ok()?) * 10_000;
        let specifiers = cursor.u16("specifiers").ok()?;
        let blocks = cursor.u32("blocks").ok()?;
        if !INTERVAL_100_NS.contains(&interval_100_ns) || !(1..=MAX_SPECIFIERS).contains(&specifiers) || blocks == 0 {
            return None;
        }
        let mut column = None;
        for number in 0..usize::from(specifiers) {
            let (of, kind) = (cursor.u16("stream").ok()?, cursor.u16("type").ok()?);
            if !(1..=127).contains(&of) || !(1..=3).contains(&kind) {
                return None;
            }
            if of == u16::from(stream) && kind == CLEAN_POINT && column.is_none() {
                column = Some(number);
            }
        }
        let (column, width) = (column?, usize::from(specifiers));
        let mut packets = Packets::default();
        // A block of no entries still takes its positions, so that the loop ends where the bytes do.
        for _ in 0..blocks {
            let count = cursor.u32("entries").ok()?;
            let positions = cursor.take("block positions", width * 8).ok()?;
            let block = u64::from_le_bytes(*positions.get(column * 8..)?.first_chunk()?);
            let offsets = cursor.take("offsets", usize::try_from(count).ok()?.checked_mul(width * 4)?).ok()?;
            for entry in offsets.chunks_exact(width * 4) {
                let offset = u32::from_le_bytes(*entry.get(column * 4..)?.first_chunk()?);
                let packet = if offset == NO_PLACE {
                    packets.last()
                } else {
                    let at = block.checked_add(u64::from(offset))?;
                    let size = u64::from(bounds.packet_size);
                    (at.checked_rem(size)? == 0).then(|| at / size)?
                };
                packets.push(packet, bounds)?;
            }
        }
        (!packets.0.is_empty()).then_some(Self { interval_100_ns, packets: packets.0 })
    }
}

/// Packet numbers that rise, in the file.
#[derive(Default)]
struct Packets(Vec<u32>);

impl Packets {
    fn with_room_for(count: u64) -> Self {
        Self(Vec::with_capacity(usize::try_from(count).unwrap_or_default()))
    }

    fn last(&self) -> u64 {
        self.0.last().copied().unwrap_or_default().into()
    }

    fn push(&mut self, packet: u64, bounds: IndexBounds) -> Option<()> {
        let sound = packet < bounds.packets && packet >= self.last() && (self.0.len() as u64) < MAX_ENTRIES;
        self.0.push(u32::try_from(packet).ok().filter(|_| sound)?);
        Some(())
    }
}

/// Picks the index that serves a stream out of the objects behind the data.
///
/// Simple Indexes stand one per video stream in order of stream number, and do not say whose they are. FFmpeg writes a
/// single one that mixes all of them. An Index Object says it; it counts where no Simple Index serves.
#[derive(Debug)]
pub struct IndexSearch {
    bounds: IndexBounds,
    stream: u8,
    /// Video streams of the header, and those of them with a lower number than `stream`.
    streams: u32,
    rank: u32,
    simple_seen: u32,
    first: Option<Index>,
    ranked: Option<Index>,
    object: Option<Index>,
}

impl IndexSearch {
    /// For one of the header's video streams; `video` holds all of them, also those without clean points.
    pub fn new(bounds: IndexBounds, video: StreamSet, stream: u8) -> Self {
        let rank = u32::try_from(video.iter().filter(|other| *other < stream).count()).unwrap_or(u32::MAX);
        Self { bounds, stream, streams: video.len(), rank, simple_seen: 0, first: None, ranked: None, object: None }
    }

    /// Whether an object of this GUID and size is worth reading.
    pub fn wants(&self, guid: Guid, size: u64) -> bool {
        let simple = guid == guids::SIMPLE_INDEX && [0, self.rank].contains(&self.simple_seen);
        size <= MAX_INDEX_LEN && (simple || (guid == guids::INDEX && self.object.is_none()))
    }

    /// Takes the next object behind the data: all its bytes, or none where it is not [wanted](Self::wants).
    pub fn take(&mut self, guid: Guid, object: &[u8]) {
        if guid == guids::SIMPLE_INDEX {
            // A broken one keeps its place in the row.
            let index =
                (self.simple_seen == 0 || self.simple_seen == self.rank).then(|| Index::simple(object, self.bounds)).flatten();
            if self.simple_seen == self.rank && self.rank > 0 {
                self.ranked = index;
            } else if self.simple_seen == 0 {
                self.first = index;
            }
            self.simple_seen += 1;
        } else if guid == guids::INDEX && self.object.is_none() {
            self.object = Index::object(object, self.stream, self.bounds);
        }
    }

    /// The index to use, if one is sound.
    pub fn finish(self) -> Option<Index> {
        let simple = match self.simple_seen {
            // One for each, or one for all.
            seen if seen == self.streams && self.rank > 0 => self.ranked,
            seen if seen == self.streams || seen == 1 => self.first,
            _ => None,
        };
        simple.or(self.object)
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use proptest::prelude::*;

    use super::*;
    use crate::asf::samples;
    use crate::wire::Writer;

    const BOUNDS: IndexBounds = IndexBounds { packets: 100, packet_size: 1400 };

    fn simple(interval: u64, count: u32, entries: &[(u32, u16)]) -> Vec<u8> {
        let mut out = Writer::default();
        out.guid(guids::SIMPLE_INDEX).u64(56 + 6 * entries.len() as u64).zeros(16).u64(interval).u32(9).u32(count);
        for (packet, span) in entries {
            out.u32(*packet).u16(*span);
        }
        out.finish()
    }

    fn sound(entries: &[u32]) -> Vec<u8> {
        let entries: Vec<_> = entries.iter().map(|packet| (*packet, 1)).collect();
        simple(10_000_000, u32::try_from(entries.len()).unwrap(), &entries)
    }

    /// An Index Object; each block is its positions and its rows of offsets.
    fn index_object(interval_ms: u32, specifiers: &[(u16, u16)], blocks: &[(Vec<u64>, Vec<Vec<u32>>)]) -> Vec<u8> {
        let mut body = Writer::default();
        body.u32(interval_ms).u16(u16::try_from(specifiers.len()).unwrap()).u32(u32::try_from(blocks.len()).unwrap());
        for (stream, kind) in specifiers {
            body.u16(*stream).u16(*kind);
        }
        for (positions, rows) in blocks {
            body.u32(u32::try_from(rows.len()).unwrap());
            positions.iter().for_each(|position| _ = body.u64(*position));
            rows.iter().flatten().for_each(|offset| _ = body.u32(*offset));
        }
        crate::asf::fabricate::object(guids::INDEX, &body.finish())
    }

    fn search(objects: &[Vec<u8>], video: &[u8], stream: u8) -> Option<Index> {
        let mut search = IndexSearch::new(BOUNDS, video.iter().copied().collect(), stream);
        for object in objects {
            let (guid, _) = object_head(object, object.len() as u64).unwrap();
            search.take(guid, object);
        }
        search.finish()
    }

    fn at(sample: &str) -> Option<(Vec<u8>, IndexBounds)> {
        let bytes = samples::bytes(sample);
        let (_, packets, packet_size) = samples::STREAMS.into_iter().find(|(name, ..)| *name == sample).unwrap();
        let begin = bytes.windows(16).position(|window| window == guids::SIMPLE_INDEX.0)?;
        let bounds = IndexBounds { packets: packets as u64, packet_size: u32::try_from(packet_size).unwrap() };
        Some((bytes[begin..].to_vec(), bounds))
    }

    #[test]
    fn indexes_of_the_samples() {
        let (bytes, bounds) = at("vod-wmv2-wmav2-indexed.wmv").unwrap();
        let index = Index::simple(&bytes, bounds).unwrap();
        assert_eq!(index.packets, [0, 0, 0, 0, 0, 0, 31, 31, 48, 48, 63, 63, 79, 79, 79]);
        let packet = |ms| index.packet_for(ms).unwrap();
        assert_eq!(
            (packet(0), packet(5_999), packet(6_000), packet(8_000), packet(14_999), packet(u64::MAX)),
            (0, 0, 31, 48, 79, 79)
        );

        let (bytes, bounds) = at("live-asf-pipe.asf").unwrap();
        assert_eq!(object_head(&bytes, bytes.len() as u64), Some((guids::SIMPLE_INDEX, 146)));
        assert_eq!(bytes.len(), 146 + 12, "a stray tail follows");
        assert_eq!(object_head(&bytes[146..], 12), None);
        assert_eq!(Index::simple(&bytes, bounds).unwrap().packets[5..8], [0, 74, 74]);
    }

    #[test]
    fn cut_at_every_length() {
        let (bytes, bounds) = at("vod-wmv2-wmav2-indexed.wmv").unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(Index::simple(&bytes[..cut], bounds), None, "{cut}");
            // With a size that is right again.
            let mut part = bytes[..cut].to_vec();
            if cut >= 24 {
                part[16..24].copy_from_slice(&(cut as u64).to_le_bytes());
            }
            assert_eq!(Index::simple(&part, bounds), None, "{cut}");
        }
        let rows = vec![vec![0, 0], vec![NO_PLACE, 2800]];
        let object = index_object(1000, &[(1, 1), (2, 3)], &[(vec![0, 1400], rows.clone()), (vec![0, 14_000], rows)]);
        assert_eq!(Index::object(&object, 2, BOUNDS).unwrap().packets, [1, 3, 10, 12]);
        for cut in 0..object.len() {
            let mut part = object[..cut].to_vec();
            assert_eq!(Index::object(&part, 2, BOUNDS), None, "{cut}");
            if cut >= 24 {
                part[16..24].copy_from_slice(&(cut as u64).to_le_bytes());
            }
            assert_eq!(Index::object(&part, 2, BOUNDS), None, "{cut}");
        }
    }

    #[test]
    fn simple_indexes_that_lie_are_none() {
        let entries = [(0, 1), (5, 1)];
        assert!(Index::simple(&simple(10_000_000, 2, &entries), BOUNDS).is_some());
        assert!(Index::simple(&simple(10_000_000, 1, &entries), BOUNDS).is_some(), "bytes to spare");
        for (interval, count) in [(0, 2), (9_999, 2), (1 << 63, 2), (u64::MAX, 2), (10_000_000, 0), (10_000_000, 3)] {
            assert_eq!(Index::simple(&simple(interval, count, &entries), BOUNDS), None, "{interval} {count}");
        }
        assert_eq!(Index::simple(&simple(10_000_000, u32::MAX, &entries), BOUNDS), None, "34 GB of entries");
        assert_eq!(Index::simple(&sound(&[0, 100]), BOUNDS), None, "past the last packet");
        assert_eq!(Index::simple(&sound(&[0, u32::MAX]), BOUNDS), None);
        assert_eq!(Index::simple(&sound(&[7, 6]), BOUNDS), None, "falls");
        for size in [0, 23, 24, 55, 67, 69, 1 << 63, u64::MAX] {
            let mut object = sound(&[0, 5]);
            object[16..24].copy_from_slice(&size.to_le_bytes());
            assert_eq!(Index::simple(&object, BOUNDS), None, "size {size}");
            assert_eq!(object_head(&object, 68).is_some(), (24..=68).contains(&size), "size {size}");
        }
    }

    #[test]
    fn index_objects_that_lie_are_none() {
        let rows = vec![vec![0], vec![1400]];
        let good = || vec![(vec![0], rows.clone())];
        assert!(Index::object(&index_object(1000, &[(1, 3)], &good()), 1, BOUNDS).is_some());
        assert_eq!(Index::object(&index_object(1000, &[(1, 3)], &good()), 2, BOUNDS), None, "another stream's");
        assert_eq!(Index::object(&index_object(1000, &[(1, 1)], &good()), 1, BOUNDS), None, "not clean points");
        for (interval, specifiers) in
            [(0, vec![(1, 3)]), (u32::MAX, vec![(1, 3)]), (1000, vec![]), (1000, vec![(0, 3)]), (1000, vec![(1, 4)])]
        {
            assert_eq!(
                Index::object(&index_object(interval, &specifiers, &good()), 1, BOUNDS),
                None,
                "{interval} {specifiers:?}"
            );
        }
        let with = |position: u64, offset: u32| index_object(1000, &[(1, 3)], &[(vec![position], vec![vec![offset]])]);
        assert!(Index::object(&with(1400, 1400 * 98), 1, BOUNDS).is_some());
        for (position, offset) in [(1400, 1400 * 99), (0, 1399), (1, 1400), (1 << 63, 0), (u64::MAX, 1), (u64::MAX - 1399, 0)] {
            assert_eq!(Index::object(&with(position, offset), 1, BOUNDS), None, "{position} {offset}");
        }
        assert_eq!(Index::object(&index_object(1000, &[(1, 3)], &[]), 1, BOUNDS), None, "no blocks");
        let patched = |at: usize, bytes: &[u8]| {
            let mut object = index_object(1000, &[(1, 3)], &good());
            object[at..at + bytes.len()].copy_from_slice(bytes);
            Index::object(&object, 1, BOUNDS)
        };
        assert_eq!(patched(28, &[0xFF; 2]), None, "65535 specifiers");
        assert_eq!(patched(30, &[0xFF; 4]), None, "4 billion blocks");
        assert_eq!(patched(38, &[0xFF; 4]), None, "4 billion entries");
    }

    /// VLC gives the Index Object's GUID to something in the shape of a Simple Index.
    #[test]
    fn the_index_object_of_vlc_is_none() {
        for entries in [&[][..], &[0, 3, 5]] {
            for id in [[0; 16], [0xAB; 16], [1; 16], [1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 3, 0, 0, 0]] {
                let mut object = sound(entries);
                object[..16].copy_from_slice(&guids::INDEX.0);
                object[24..40].copy_from_slice(&id);
                assert_eq!(search(&[object], &[1], 1), None);
            }
        }
    }

    #[test]
    fn the_index_of_the_stream_is_picked() {
        let (one, two, broken) = (sound(&[1]), sound(&[2]), sound(&[100]));
        let object = index_object(1000, &[(4, 3)], &[(vec![0], vec![vec![2 * 1400 + 1400]])]);
        let pick = |objects: &[Vec<u8>], stream| search(objects, &[2, 4], stream).map(|index| index.packets[0]);
        assert_eq!((pick(&[one.clone(), two.clone()], 2), pick(&[one.clone(), two.clone()], 4)), (Some(1), Some(2)));
        assert_eq!((pick(from_ref(&one), 2), pick(from_ref(&one), 4)), (Some(1), Some(1)), "one for all");
        assert_eq!((pick(&[broken.clone(), two.clone()], 2), pick(&[broken, two.clone()], 4)), (None, Some(2)));
        assert_eq!(pick(&[one.clone(), two.clone(), two.clone()], 4), None, "one too many: whose is which?");
        assert_eq!((pick(from_ref(&object), 2), pick(from_ref(&object), 4)), (None, Some(3)));
        assert_eq!(pick(&[object.clone(), one, two], 4), Some(2), "a Simple Index goes first");
        let search = IndexSearch::new(BOUNDS, [1].into_iter().collect(), 1);
        assert!(
            search.wants(guids::INDEX, 500) && !search.wants(guids::INDEX, 1 << 63) && !search.wants(guids::TIMECODE_INDEX, 500)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), fix in any::<bool>()) {
            if let (true, Some(size)) = (fix, bytes.len().checked_sub(24)) {
                bytes[16..24].copy_from_slice(&(size as u64 + 24).to_le_bytes());
            }
            let _ = object_head(&bytes, 400);
            for index in [Index::simple(&bytes, BOUNDS), Index::object(&bytes, 1, BOUNDS)].into_iter().flatten() {
                prop_assert!(index.packet_for(12_345).is_some_and(|packet| packet < 100));
            }
        }

        #[test]
        fn damaged_indexes_stay_in_the_file(hits in proptest::collection::vec((24..60_usize, any::<u8>()), 1..6), ms in any::<u64>()) {
            let mut objects = [
                sound(&[0, 0, 3, 9]),
                index_object(1000, &[(1, 3), (2, 3)], &[(vec![0, 0], vec![vec![0, 0], vec![1400, 2800]])]),
            ];
            for (at, value) in hits {
                objects.iter_mut().for_each(|object| object[at] = value);
            }
            let [first, second] = objects;
            for index in [Index::simple(&first, BOUNDS), Index::object(&second, 1, BOUNDS)].into_iter().flatten() {
                prop_assert!(index.packet_for(ms).is_some_and(|packet| packet < 100));
            }
        }
    }
}
