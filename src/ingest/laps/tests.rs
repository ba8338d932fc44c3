use super::*;
use crate::asf::{Event, Reader, samples};
use crate::ingest::demo;
use crate::ingest::playlist::Medium;

/// Header and packets of an ASF file.
fn read(bytes: &[u8]) -> (Header, Vec<Vec<u8>>) {
    let mut reader = Reader::new();
    reader.feed(bytes);
    reader.finish();
    let Some(Ok(Event::Header(header))) = reader.poll() else { panic!("no header") };
    let mut packets = Vec::new();
    while let Some(Ok(Event::Packets(bytes))) = reader.poll() {
        packets.extend(bytes.chunks_exact(header.packet_size()).map(<[u8]>::to_vec));
    }
    (header, packets)
}

fn demo() -> (Header, Vec<Vec<u8>>) {
    let Medium::BuiltIn(bytes) = demo::medium() else { panic!() };
    read(bytes)
}

/// An object that went out: its number and its presentation time.
type Object = (u32, u32);

#[derive(Default)]
struct Played {
    objects: BTreeMap<u8, Vec<Object>>,
    sends: Vec<u32>,
    dues: Vec<u64>,
}

impl Played {
    fn play(&mut self, laps: &mut Laps, packets: &[Vec<u8>]) {
        for packet in packets {
            let mut packet = packet.clone();
            self.dues.push(laps.place(&mut packet).unwrap());
            self.sends.push(crate::asf::walk(&packet).unwrap().send_time_ms);
            for payload in payloads(&packet).unwrap().filter(|payload| payload.offset == 0) {
                self.objects.entry(payload.stream).or_default().push((payload.object, payload.presentation_ms));
            }
        }
    }
}

fn loops(header: &Header, packets: &[Vec<u8>], laps: usize) -> Played {
    let (mut played, mut timeline) = (Played::default(), Laps::default());
    for lap in 0..laps {
        timeline.begin(header, lap > 0);
        played.play(&mut timeline, packets);
    }
    played
}

#[test]
fn demo_runs_on_without_a_seam() {
    let (header, packets) = demo();
    let played = loops(&header, &packets, 4);
    for (stream, step) in [(1, 40), (2, 64)] {
        let objects = &played.objects[&stream];
        for pair in objects.windows(2) {
            assert_eq!(pair[1].1 - pair[0].1, step, "stream {stream}");
            assert_eq!(pair[1].0, (pair[0].0 + 1) & 0xFF, "stream {stream}");
        }
        assert_eq!(u32::try_from(objects.len()).unwrap() * step, 32_000);
    }
    assert!(played.sends.is_sorted() && played.dues.is_sorted());
    assert_eq!(*played.dues.last().unwrap(), 24_000 + played.dues[packets.len() - 1]);
}

#[test]
fn without_a_stated_duration_the_frames_tell() {
    let (header, packets) = demo();
    // The broadcast form of the header states no duration.
    let broadcast = Header::parse(&header.broadcast(crate::wire::Guid([1; 16]), 0)).unwrap();
    assert_eq!(broadcast.play_duration_ms(), None);
    let played = loops(&broadcast, &packets, 3);
    for (stream, step) in [(1, 40), (2, 64)] {
        assert!(played.objects[&stream].windows(2).all(|pair| pair[1].1 - pair[0].1 == step), "stream {stream}");
    }
}

#[test]
fn an_absurd_duration_is_not_believed() {
    let (header, packets) = demo();
    let mut laps = Laps::default();
    for stated in [7000, 60_000] {
        laps.begin(&header, false);
        laps.stated_ms = Some(stated);
        Played::default().play(&mut laps, &packets);
        let extent = laps.extent.as_ref().unwrap();
        assert_eq!(extent.played_ms(laps.stated_ms, laps.latest.unwrap().0), 8000, "{stated}");
    }
}

#[test]
fn another_generation_is_due_when_the_old_one_is_over() {
    let (header, packets) = demo();
    let (mut played, mut laps) = (Played::default(), Laps::default());
    laps.begin(&header, false);
    played.play(&mut laps, &packets);
    laps.begin(&header, false);
    let mut first = packets[0].clone();
    assert_eq!(laps.place(&mut first), Ok(8000));
    assert_eq!(first, packets[0], "its times and numbers are its own");
}

#[test]
fn a_leap_inside_a_file_is_closed() {
    let (header, packets) = demo();
    for leap in [3_600_000_u32, 3_600_000_u32.wrapping_neg()] {
        let mut broken = packets.clone();
        let half = broken.len() / 2;
        for packet in &mut broken[half..] {
            crate::asf::shift(packet, &crate::asf::Shift::times(leap)).unwrap();
        }
        let played = loops(&header, &broken, 3);
        assert!(played.sends.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) < 1000), "{leap}");
        assert!((22_000..24_000).contains(played.dues.last().unwrap()), "{leap}: {:?}", played.dues.last());
    }
}

#[test]
fn an_invalid_packet_changes_nothing() {
    let (header, packets) = demo();
    let (mut played, mut laps) = (Played::default(), Laps::default());
    laps.begin(&header, false);
    assert!(laps.place(&mut [0xFF; 1400]).is_err());
    played.play(&mut laps, &packets);
    assert!(laps.place(&mut [0xFF; 1400]).is_err());
    laps.begin(&header, true);
    played.play(&mut laps, &packets);
    assert!(played.objects[&1].windows(2).all(|pair| pair[1].1 - pair[0].1 == 40));
}

#[test]
fn a_file_of_one_packet_does_not_spin() {
    let (header, packets) = demo();
    let header = Header::parse(&header.broadcast(crate::wire::Guid([1; 16]), 0)).unwrap();
    let played = loops(&header, &packets[..1], 10);
    assert!(played.dues.windows(2).all(|pair| pair[1] > pair[0]), "{:?}", played.dues);
}

#[test]
fn times_wrap() {
    let (header, mut packets) = demo();
    for packet in &mut packets {
        crate::asf::shift(packet, &crate::asf::Shift::times(0xFFFF_FFFF - 12_000)).unwrap();
    }
    let played = loops(&header, &packets, 4);
    assert!(played.objects[&1].windows(2).all(|pair| pair[1].1.wrapping_sub(pair[0].1) == 40));
    assert!(played.dues.is_sorted() && *played.dues.last().unwrap() > 31_000);
}

#[test]
fn every_sample_runs_on() {
    for (name, ..) in samples::STREAMS {
        let (header, packets) = samples::stream(name);
        let (once, thrice) = (loops(&header, &packets, 1), loops(&header, &packets, 3));
        assert!(thrice.dues.is_sorted(), "{name}");
        assert!(thrice.sends.windows(2).all(|pair| pair[0] <= pair[1]), "{name}: send times go back");
        let mut longest_seam = 0;
        for (stream, objects) in &thrice.objects {
            let lap = &once.objects[stream];
            let step = |pair: &[Object]| pair[1].1.abs_diff(pair[0].1);
            let longest = lap.windows(2).map(step).max().unwrap_or_default();
            for (at, pair) in objects.windows(2).enumerate() {
                assert_eq!(pair[1].0 & 0xFF, (pair[0].0 + 1) & 0xFF, "{name}: object {at} of stream {stream}");
                if (at + 1) % lap.len() == 0 {
                    // Of streams of different lengths the shorter one waits for the longer; and where B-frames make video
                    // run ahead of audio, its beginning waits until the end of the audio is sent.
                    assert!(step(pair) <= longest + 120, "{name}: stream {stream} waits {} ms", step(pair));
                    longest_seam = longest_seam.max(longest);
                }
            }
        }
        assert!(longest_seam > 0, "{name} has no seam");
    }
}
