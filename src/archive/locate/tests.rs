use std::sync::{Arc, mpsc};

use super::*;
use crate::archive::testing::{Claims, PATIENCE, Root, answer, archive, asf, packet};
use crate::archive::{Archive, pool};
use crate::asf::fabricate::object;
use crate::asf::{guids, samples};

const FILES: [&str; 8] = [
    "audio-wmav2.wma",
    "camera-mjpeg-pcmu.asf",
    "edge-packets-pcmu.asf",
    "h264-aac-bframes.asf",
    "h264-aac-nobframes.asf",
    "live-asf-pipe.asf",
    "mbr-2video-1audio.asf",
    "vod-wmv2-wmav2-indexed.wmv",
];

/// What a scan of every packet of a file finds.
struct Reference {
    packets: u64,
    preroll_ms: u64,
    /// Presentation time and packet of the leader's key frames; `None` without a leader.
    keys: Option<Vec<(u64, u64)>>,
    /// The presentation time of each packet's first payload.
    first_ms: Vec<u64>,
}

impl Reference {
    fn new(file: &Arc<AsfFile>) -> Self {
        let all = file.read_all();
        let header = &file.description().header;
        let mut keys: Vec<(u8, u64, u64)> = Vec::new();
        for (number, packet) in (0..).zip(&all) {
            for start in payloads(packet).unwrap().filter(|start| start.key && start.offset == 0) {
                if header.video().contains(start.stream) {
                    keys.push((start.stream, start.presentation_ms.into(), number));
                }
            }
        }
        let leader = keys.iter().map(|(stream, ..)| *stream).min();
        let of_leader = |leader| keys.iter().filter(|key| key.0 == leader).map(|(_, ms, number)| (*ms, *number)).collect();
        Self {
            packets: all.len() as u64,
            preroll_ms: header.preroll_ms().into(),
            keys: leader.map(of_leader),
            first_ms: all.iter().map(|packet| walk(packet).unwrap().first_presentation_ms.into()).collect(),
        }
    }

    fn at_time(&self, ms: u64) -> u64 {
        let wanted = ms + self.preroll_ms;
        match &self.keys {
            Some(keys) => keys.iter().filter(|(ms, _)| *ms <= wanted).max().map_or(0, |(_, number)| *number),
            None => {
                let smallest = self.first_ms.iter().filter(|ms| **ms >= wanted).min();
                smallest.map_or(self.packets - 1, |smallest| self.first_ms.iter().rposition(|ms| ms == smallest).unwrap() as u64)
            }
        }
    }

    fn at_packet(&self, number: u64) -> u64 {
        let number = number.min(self.packets - 1);
        let Some(keys) = &self.keys else { return number };
        keys.iter().map(|key| key.1).filter(|key| *key <= number).max().unwrap_or(0)
    }

    /// Compares every way to ask, at so many places.
    fn compare(&self, file: &Arc<AsfFile>, places: u64, what: &str) {
        let length_ms = file.description().play_duration_ms + file.description().begin_ms + 5_000;
        for place in 0..=places {
            let ms = length_ms * place / places;
            assert_eq!(find(file, Start::Time { ms }), Ok(self.at_time(ms)), "{what}: at {ms} ms");
            let number = (self.packets + 10) * place / places;
            assert_eq!(find(file, Start::Packet(number)), Ok(self.at_packet(number)), "{what}: packet {number}");
            let size = file.description().header.packet_size() as u64;
            let offset = file.description().data_start + number * size + place % size;
            assert_eq!(find(file, Start::Offset(offset)), Ok(self.at_packet(number)), "{what}: byte {offset}");
        }
        // To the millisecond round each key frame.
        for (ms, _) in self.keys.iter().flatten() {
            for ms in [ms - 1, *ms, ms + 1] {
                let ms = ms.saturating_sub(self.preroll_ms);
                assert_eq!(find(file, Start::Time { ms }), Ok(self.at_time(ms)), "{what}: at {ms} ms");
            }
        }
    }
}

/// A made file's packets: what is shown when. One packet every 100 ms.
fn open(archive: &Arc<Archive>, root: &Root, bytes: &[u8]) -> Arc<AsfFile> {
    root.write("made.asf", bytes);
    let file = archive.open_and_wait(root.path(), "made.asf").unwrap();
    std::fs::rename(root.path().join("made.asf"), root.path().join("kept.asf")).unwrap();
    file
}

/// A Simple Index of these entries; the GUID is a parameter, as VLC gives it the Index Object's.
fn index_of(guid: crate::wire::Guid, entries: &[u32]) -> Vec<u8> {
    let mut body = vec![0; 16];
    body.extend_from_slice(&10_000_000_u64.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_le_bytes());
    entries.iter().for_each(|entry| body.extend_from_slice(&[&entry.to_le_bytes()[..], &[1, 0]].concat()));
    object(guid, &body)
}

/// Each sample as it is, with its index cut off, with one like VLC's, and with entries that mean nothing.
#[test]
fn every_sample_against_a_full_scan() {
    let archive = archive(64 << 20, 2);
    let root = Root::new();
    let mut random = 1_u32;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u32::try_from(u64::from(random >> 8) % below).unwrap()
    };
    for name in FILES {
        let bytes = samples::bytes(name);
        root.sample(name);
        let file = archive.open_and_wait(root.path(), name).unwrap();
        let reference = Reference::new(&file);
        assert_eq!(reference.keys.is_some(), file.description().leader.is_some(), "{name}");
        assert_eq!(find(&file, Start::Beginning), Ok(0));
        reference.compare(&file, 700, name);
        assert!(file.index_is_right(), "{name}: its index was doubted");

        let size = file.description().header.packet_size() as u64;
        let data_end = usize::try_from(file.description().data_start + reference.packets * size).unwrap();
        let others = |behind: &[u8]| [&bytes[..data_end], behind].concat();
        let plain = open(&archive, &root, &others(&[]));
        assert_eq!(plain.description().index, None);
        reference.compare(&plain, 300, &format!("{name} without index"));

        let bogus = open(&archive, &root, &others(&index_of(guids::INDEX, &[0; 10])));
        assert_eq!(bogus.description().index, None);
        reference.compare(&bogus, 20, &format!("{name} with an index of VLC"));

        for round in 0..20 {
            let mut entries: Vec<_> = (0..15).map(|_| next(reference.packets)).collect();
            if round > 0 {
                entries.sort_unstable();
            }
            let random = open(&archive, &root, &others(&index_of(guids::SIMPLE_INDEX, &entries)));
            let used = round > 0 && random.description().leader.is_some();
            assert_eq!(random.description().index.is_some(), used, "{name}: only entries that rise can be an index");
            reference.compare(&random, 60, &format!("{name} with entries {entries:?}"));
        }
    }
}

/// The index of a sample, an Index Object this time.
#[test]
fn an_index_object_serves() {
    let mut body = Vec::new();
    body.extend_from_slice(&1000_u32.to_le_bytes());
    body.extend_from_slice(&[1, 0, 1, 0, 0, 0, 1, 0, 3, 0, 15, 0, 0, 0]);
    body.extend_from_slice(&[0; 8]);
    for entry in [0_u32, 0, 0, 0, 0, 0, 31, 31, 48, 48, 63, 63, 79, 79, 79] {
        body.extend_from_slice(&(entry * 3200).to_le_bytes());
    }
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let bytes = samples::bytes("vod-wmv2-wmav2-indexed.wmv");
    let file = open(&archive, &root, &[&bytes[..709 + 94 * 3200], &object(guids::INDEX, &body)].concat());
    assert_eq!(file.description().index.as_ref().map(crate::asf::Index::entries), Some(15));
    Reference::new(&file).compare(&file, 200, "Index Object");
    assert!(file.index_is_right());
}

/// 100 ms a packet; `keys` says in which packets a key frame of stream 1 begins.
fn made(count: u32, keys: impl Fn(u32) -> bool, time_ms: impl Fn(u32) -> u32) -> Vec<u8> {
    let packets: Vec<_> = (0..count)
        .map(|number| packet(time_ms(number), &[(3, false, time_ms(number) + 2900), (1, keys(number), time_ms(number) + 3000)]))
        .collect();
    asf(Claims::LIVE, &packets, &[])
}

#[test]
fn a_recording_with_a_clock_of_its_own() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(500, |number| number % 20 == 3, |number| 600_000 + number * 100));
    Reference::new(&file).compare(&file, 500, "begins at ten minutes");
    assert_eq!(find(&file, Start::Time { ms: 0 }), Ok(0));
    assert_eq!(find(&file, Start::Time { ms: 600_000 + 2_300 }), Ok(23));
}

/// Several minutes between key frames: back over a minute only where none follows soon.
#[test]
fn key_frames_far_apart() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(5000, |number| number % 2000 == 0, |number| number * 100));
    let at = |ms| find(&file, Start::Time { ms }).unwrap();
    assert_eq!((at(0), at(59_000), at(199_000), at(200_000)), (0, 0, 2000, 2000), "from 199 s it is a second to the next");
    assert_eq!(at(100_000), 0, "neither is near: the one before");
    assert_eq!((at(499_000), at(10_000_000)), (4000, 4000), "none follows");
    assert_eq!(find(&file, Start::Packet(4999)), Ok(4000));
    assert_eq!(find(&file, Start::Packet(u64::MAX)), Ok(4000));
    assert_eq!(find(&file, Start::Offset(u64::MAX)), Ok(4000));
    assert_eq!(find(&file, Start::Offset(0)), Ok(0));
}

#[test]
fn a_file_whose_clock_jumps_back() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(600, |number| number % 20 == 0, |number| (number + 300) % 600 * 100));
    Reference::new(&file).compare(&file, 600, "jumps back");
    assert_eq!(file.learnt.rises.get(), Some(&false));
    assert_eq!(file.learnt.keys.whole().unwrap().len(), 30, "they are read once");
}

#[test]
fn a_file_without_key_frames_whose_clock_jumps_back() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(600, |_| false, |number| (number + 300) % 600 * 100));
    Reference::new(&file).compare(&file, 600, "jumps back");
    assert_eq!((file.learnt.rises.get(), file.learnt.keys.whole().unwrap().len()), (Some(&false), 600));
}

/// Searches while the table of key frames is read: `number` of them, put aside by the only reader.
fn put_aside(file: &Arc<AsfFile>, number: usize) -> mpsc::Receiver<Result<u64, ReadError>> {
    let (sender, told) = mpsc::channel();
    for _ in 0..number {
        let sender = sender.clone();
        file.locate(Start::Time { ms: 10_000 }, Box::new(move |found| sender.send(found).unwrap()));
    }
    let patience = pool::now() + PATIENCE;
    while file.learnt.keys.waiting() < number {
        assert!(pool::now() < patience, "they are not put aside");
        std::thread::yield_now();
    }
    told
}

#[test]
fn searches_wait_for_one_table_without_a_thread() {
    let (archive, root) = (archive(64 << 20, 1), Root::new());
    let bytes = made(600, |number| number % 20 == 0, |number| (number + 300) % 600 * 100);
    let read = |file: &Arc<AsfFile>, told: &mpsc::Receiver<_>| {
        let other: Vec<_> = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        assert!(other.iter().all(|found| *found == Ok(400)), "{other:?}");
        assert_eq!(file.learnt.keys.whole().unwrap().len(), 30);
    };
    // The search that reads panics, or is wanted no more: another reads on.
    let file = open(&archive, &root, &bytes);
    let Wanted::Read(mut reading) = file.learnt.keys.want() else { panic!("nobody reads it") };
    let told = put_aside(&file, 3);
    assert_eq!(file.locate_and_wait(Start::Packet(5)), Ok(0), "the only reader is free");
    assert!(told.try_recv().is_err());
    (reading.partial.keys, reading.partial.next) = ((0..15).map(|key| (key * 2000 + 33_000, u64::from(key) * 20)).collect(), 300);
    let reads = archive.counts().reads;
    assert_eq!(reading.end(Err(ReadError::Unwanted)), Err(ReadError::Unwanted));
    read(&file, &told);
    assert!(archive.counts().reads - reads <= 4, "half of it is read already");

    // It fails: so do those who wait, and the next tries again.
    let file = {
        root.write("other.asf", &bytes);
        archive.open_and_wait(root.path(), "other.asf").unwrap()
    };
    let Wanted::Read(reading) = file.learnt.keys.want() else { panic!("nobody reads it") };
    let told = put_aside(&file, 3);
    let error = ReadError::Io("worn out".into());
    assert_eq!(reading.end(Err(error.clone())), Err(error.clone()));
    assert!((0..3).all(|_| told.recv_timeout(PATIENCE).unwrap() == Err(error.clone())));
    let Wanted::Read(reading) = file.learnt.keys.want() else { panic!("nobody reads it") };
    let told = put_aside(&file, 3);
    drop(reading);
    read(&file, &told);
}

#[test]
fn a_search_that_nobody_wants_reads_nothing() {
    let (archive, root) = (archive(64 << 20, 1), Root::new());
    for (bytes, place) in [
        (made(600, |number| number % 20 == 0, |number| (number + 300) % 600 * 100), 400),
        (made(600, |number| number % 20 == 0, |number| number * 100), 100),
    ] {
        let file = open(&archive, &root, &bytes);
        let search = |wanted: &Arc<()>, leaves: bool| {
            let weak = Arc::downgrade(wanted);
            let weak = if leaves { Weak::new() } else { weak };
            answer(|done| file.locate_while(weak, Start::Time { ms: 10_000 }, None, done))
        };
        let (wanted, reads) = (Arc::default(), archive.counts().reads);
        assert_eq!((search(&wanted, true), archive.counts().reads), (Err(ReadError::Unwanted), reads));
        assert_eq!(search(&wanted, false), Ok(place));
    }
}

#[test]
fn video_without_key_frames_begins_anywhere() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(1500, |_| false, |number| number * 100));
    assert_eq!(file.description().leader, None);
    Reference::new(&file).compare(&file, 300, "keyless");
}

/// Packets that are not sound stand between those that are.
#[test]
fn damaged_packets_are_passed_over() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let mut bytes = made(600, |number| number % 20 == 0, |number| number * 100);
    let data_start = bytes.len() - 600 * 400;
    for number in (0..599).filter(|number| number % 7 == 1 || (200..230).contains(number)) {
        bytes[data_start + number * 400..][..400].fill(0xFF);
    }
    let file = open(&archive, &root, &bytes);
    let lost = |number: u64| number % 7 == 1 || (200..230).contains(&number);
    for ms in (0..60_000).step_by(50) {
        let expected = (0..600).filter(|number| number % 20 == 0 && number * 100 <= ms && !lost(*number)).max().unwrap();
        assert_eq!(find(&file, Start::Time { ms }), Ok(expected), "{ms}");
    }
}

/// The index of another file: an hour of rising entries, none right.
#[test]
fn a_wrong_index_is_given_up() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let mut bytes = made(3000, |number| number % 20 == 0, |number| number * 100);
    bytes.extend(index_of(guids::SIMPLE_INDEX, &(0..300).map(|entry| entry * 10 + 1).collect::<Vec<_>>()));
    let file = open(&archive, &root, &bytes);
    assert!(file.description().index.is_some() && file.index_is_right());
    assert_eq!(find(&file, Start::Time { ms: 100_000 }), Ok(1000));
    assert!(!file.index_is_right());
    Reference::new(&file).compare(&file, 300, "wrong index");
}

/// Sound key frames, but hours too early or too late: the times of the index are not those of the file.
#[test]
fn an_index_with_other_times_is_given_up() {
    for step in [2, 4000] {
        let (archive, root) = (archive(64 << 20, 2), Root::new());
        let mut bytes = made(42_000, |number| number % 20 == 0, |number| number * 100);
        let entries: Vec<_> = (0..4200).map(|entry| (entry * step / 20 * 20).min(41_980)).collect();
        bytes.extend(index_of(guids::SIMPLE_INDEX, &entries));
        let file = open(&archive, &root, &bytes);
        assert!(file.description().index.is_some());
        for ms in [4_199_999, 3_000_000, 1_000_000, 3_321_000] {
            assert_eq!(find(&file, Start::Time { ms }), Ok(ms / 2000 * 20), "{step}, {ms}");
        }
        assert!(!file.index_is_right());
    }
}

/// A search in a long file without index looks at few blocks.
#[test]
fn a_search_reads_little() {
    let (archive, root) = (archive(64 << 20, 2), Root::new());
    let file = open(&archive, &root, &made(40_000, |number| number % 50 == 0, |number| number * 100));
    assert_eq!(file.locate_and_wait(Start::Time { ms: 2_000_049 }), Ok(20_000));
    let reads = archive.counts().reads;
    assert!(reads < 16 + 16 + 4, "{reads} of {} blocks", file.blocks());
}
