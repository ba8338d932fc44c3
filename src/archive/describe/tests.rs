use super::*;
use crate::archive::beneath::Place;
use crate::archive::testing::{Claims, Root, asf, packet};
use crate::asf::fabricate::{data_head, object};
use crate::asf::samples;
use crate::wire::Guid;

fn describe(bytes: &[u8]) -> Result<Description, OpenError> {
    let root = Root::new();
    root.write("file", bytes);
    Description::read(&Disk::open(Place::new(root.path(), "file")).unwrap())
}

/// So many packets, 100 ms each, sent from `begin_ms` on, shown 3 s later; every tenth begins a key frame of stream 1.
fn packets(count: u32, begin_ms: u32) -> Vec<Vec<u8>> {
    let packet = |number: u32| {
        let ms = begin_ms + number * 100;
        packet(ms, &[(1, number.is_multiple_of(10), ms + 3000), (3, false, ms + 2900)])
    };
    (0..count).map(packet).collect()
}

fn simple_index(entries: u32) -> Vec<u8> {
    let mut body = vec![0; 16];
    body.extend_from_slice(&10_000_000_u64.to_le_bytes());
    body.extend_from_slice(&[1, 0, 0, 0]);
    body.extend_from_slice(&entries.to_le_bytes());
    body.resize(body.len() + 6 * entries as usize, 0);
    object(guids::SIMPLE_INDEX, &body)
}

#[test]
fn the_samples() {
    let facts = |name: &str| {
        let found = describe(&samples::bytes(name)).unwrap();
        assert!(found.can_seek, "{name}");
        assert_eq!(found.head.len() as u64, found.data_start, "{name}");
        let first: Vec<_> = samples::stream(name).1.into_iter().take(100).collect();
        let lead_ms = first.iter().flat_map(|packet| {
            let sent_ms = walk(packet).unwrap().send_time_ms;
            payloads(packet).unwrap().map(move |payload| payload.presentation_ms.saturating_sub(sent_ms))
        });
        assert_eq!(Some(found.lead_ms), lead_ms.max(), "{name}");
        (found.packets, found.play_duration_ms, found.index.map_or(0, |index| index.entries()), found.leader)
    };
    assert_eq!(facts("vod-wmv2-wmav2-indexed.wmv"), (94, 10_046, 15, Some(1)));
    assert_eq!(facts("mbr-2video-1audio.asf"), (180, 8_064, 13, Some(1)));
    assert_eq!(facts("audio-wmav2.wma"), (54, 20_015, 0, None));
    assert_eq!(facts("edge-packets-pcmu.asf").0, 130);
    assert_eq!(facts("h264-aac-bframes.asf").0, 54);
    // From a pipe: counts and durations are not in the header, an index and 12 stray bytes stand at the end.
    let (packets, duration_ms, entries, leader) = facts("live-asf-pipe.asf");
    assert_eq!((packets, entries, leader), (217, 15, Some(1)));
    assert!((9_900..10_100).contains(&duration_ms), "{duration_ms}");
}

#[test]
fn what_is_no_asf_file() {
    let reason = |bytes: &[u8]| match describe(bytes) {
        Err(OpenError::NotAsf(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&samples::bytes("live-asf_stream-pipe.mmsh")), NotAsf::ChunkFramed);
    assert_eq!(reason(b""), NotAsf::Header(HeaderError::NotAsf));
    assert_eq!(reason(b"RIFF and so on, long enough to be a header"), NotAsf::Header(HeaderError::NotAsf));
    let whole = asf(Claims::LIVE, &packets(1, 0), &[]);
    let data_start = whole.len() - 400;
    for cut in 0..whole.len() {
        let reason = reason(&whole[..cut]);
        let expected = match cut {
            cut if cut < data_start - 50 => matches!(reason, NotAsf::Header(_)),
            cut if cut < data_start => reason == NotAsf::NoData,
            _ => reason == NotAsf::NoPackets,
        };
        assert!(expected, "{cut}: {reason}");
    }
    assert!(describe(&whole).is_ok());
    assert_eq!(reason(&asf(Claims::LIVE, &[vec![0xFF; 400]], &[])), NotAsf::NoPackets, "none that can be read");
}

#[test]
fn counts_that_lie() {
    let count = |flags, data_len, file_packets, behind: &[u8]| {
        let claims = Claims { flags, data_len, file_packets };
        describe(&asf(claims, &packets(30, 0), behind)).unwrap().packets
    };
    assert_eq!(count(2, None, 30, &[]), 30);
    assert_eq!(count(2, None, 30, &[1; 399]), 30);
    for (flags, data_len, file_packets) in [
        (3, Some(50), 0),
        (1, Some(0), 0),
        (1, Some(u64::MAX), u64::MAX),
        (0, Some(u64::MAX), u64::MAX),
        (0, Some(1 << 63), 1 << 63),
        (0, Some(50 + 400 * 0xFFFF_FFFE), 0xFFFF_FFFE),
        (2, Some(12_049), 0),
        (2, None, 0),
        (2, Some(50), 30),
        (2, None, 31),
    ] {
        for behind in [&[][..], &[7; 399], &simple_index(15), &simple_index(40_000), &[0; 5000]] {
            let found = count(flags, data_len, file_packets, behind);
            assert_eq!(found, 30, "flags {flags}, {data_len:?}, {file_packets}, {} behind", behind.len());
        }
    }
    assert_eq!(count(2, None, 7, &[]), 7, "the header says less than the Data Object");
    assert_eq!(count(2, Some(50 + 5 * 400), 30, &[]), 5, "the other way round");
}

#[test]
fn a_file_that_ends_early() {
    let claims = Claims { flags: 2, data_len: None, file_packets: 30 };
    let whole = asf(claims, &packets(30, 0), &[]);
    for missing in [1, 399, 400, 401, 4000] {
        let found = describe(&whole[..whole.len() - missing]).unwrap();
        assert_eq!(found.packets, 30 - (missing as u64).div_ceil(400), "{missing}");
        assert_eq!(found.play_duration_ms, (found.packets - 1) * 100, "as long as what is there");
        assert!(found.can_seek);
    }
}

#[test]
fn times() {
    let claims = Claims { flags: 2, data_len: None, file_packets: 120 };
    // The header says 7 s.
    let found = describe(&asf(claims, &packets(120, 0), &[])).unwrap();
    assert_eq!((found.play_duration_ms, found.send_duration_ms, found.begin_ms, found.lead_ms), (7_000, 11_940, 0, 3_000));
    let found = describe(&asf(claims, &packets(1200, 0), &[])).unwrap();
    assert_eq!((found.packets, found.play_duration_ms), (120, 7_000));
    // A recording whose clock is at 10 minutes.
    let found = describe(&asf(Claims::LIVE, &packets(50, 600_000), &[])).unwrap();
    assert_eq!((found.play_duration_ms, found.send_duration_ms, found.begin_ms), (5_000, 4_940, 599_900));
    let wrong = Claims { flags: 2, data_len: None, file_packets: 900 };
    assert_eq!(describe(&asf(wrong, &packets(900, 0), &[])).unwrap().play_duration_ms, 89_900, "7 s cannot be");
}

#[test]
fn the_leading_stream() {
    let leader = |frames: &[(u8, bool)]| {
        let packets: Vec<_> = (0..150_u32)
            .map(|number| {
                let frames: Vec<_> =
                    frames.iter().map(|(stream, key)| (*stream, *key && number % 5 == 2, number * 100)).collect();
                packet(number * 100, &frames)
            })
            .collect();
        describe(&asf(Claims::LIVE, &packets, &[])).unwrap().leader
    };
    assert_eq!(leader(&[(1, true), (2, true)]), Some(1));
    assert_eq!(leader(&[(1, false), (2, true)]), Some(2));
    assert_eq!(leader(&[(1, false), (3, true)]), None, "the key frames of audio do not count");
}

#[test]
fn objects_round_the_data() {
    let unknown = object(Guid([0x55; 16]), &[1; 700]);
    let plain = asf(Claims::LIVE, &packets(30, 0), &[]);
    let at = plain.len() - 30 * 400 - 50;
    let found = describe(&[&plain[..at], &unknown, &plain[at..], &unknown, &simple_index(5)].concat()).unwrap();
    assert_eq!((found.packets, found.data_start), (30, at as u64 + 724 + 50));
    assert_eq!(found.index.unwrap().entries(), 5, "the index stands behind an unknown object");
    assert_eq!(found.head.len(), at + 50);
    assert!(found.head.ends_with(&data_head(30, 400)[24..]));

    let mut huge = simple_index(5);
    for size in [0, 23, 1 << 63, u64::MAX, u64::MAX - 23] {
        huge[16..24].copy_from_slice(&u64::to_le_bytes(size));
        assert_eq!(describe(&[&plain[..], &huge].concat()).unwrap().index, None, "size {size}");
    }
    let mut many = simple_index(5);
    many[52..56].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(describe(&[&plain[..], &many].concat()).unwrap().index, None);
    let mut past = simple_index(5);
    past[56] = 30;
    assert_eq!(describe(&[&plain[..], &past].concat()).unwrap().index, None, "an entry past the end of the data");
}
