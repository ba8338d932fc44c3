use super::*;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// Of x264: 320 by 240, baseline.
const SPS_320: &str = "6742c00dd90141fb011000000300100000030320f142a480";
const PPS_320: &str = "68cb83cb20";

/// A slice of this type that begins a picture.
fn slice(kind: u8, len: usize) -> Vec<u8> {
    let mut nal = vec![0x60 | kind, 0x88];
    nal.extend((2..len).map(|at| u8::try_from(at % 256).unwrap() | 1));
    nal
}

fn with_sets() -> H264 {
    let sets = [SPS_320, PPS_320].map(|set| STANDARD.encode(unhex(set))).join(",");
    H264::new(&format!("packetization-mode=1;sprop-parameter-sets={sets};profile-level-id=42c00d")).unwrap()
}

/// What came of a packet.
struct Pushed {
    units: Vec<Unit>,
    result: Result<(), PayloadError>,
}

fn push(h264: &mut H264, timestamp: u32, marker: bool, payload: &[u8]) -> Pushed {
    push_after(h264, false, timestamp, marker, payload)
}

fn push_after(h264: &mut H264, lost: bool, timestamp: u32, marker: bool, payload: &[u8]) -> Pushed {
    let mut out = Vec::new();
    let packet = RtpPacket { marker, payload_type: 96, sequence: 1, timestamp, ssrc: 0, payload };
    let result = h264.push(&packet, lost, &mut out);
    Pushed { units: out, result }
}

/// NAL units in the byte stream form.
fn stream(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&START_CODE[..], nal].concat()).collect()
}

#[test]
fn what_parameter_sets_say() {
    let of = |hex: &str| Sps::parse(&unhex(hex)).map(|sps| (sps.width, sps.height, sps.aspect, sps.reorders));
    assert_eq!(of(SPS_320), Some((320, 240, (1, 1), Some(false))));
    let high = "67640028acb200f0044fcb80880000030008000003019078c19240";
    assert_eq!(of(high), Some((1920, 1080, (1, 1), Some(false))), "cropped from 1088");
    let with_b = "674d401eeca05017fcb808800000030080000019078b16cb";
    assert_eq!(of(with_b), Some((640, 360, (1, 1), Some(true))));
    assert_eq!(of(&SPS_320[..10]), None);
    let mut h264 = H264::new("").unwrap();
    assert_eq!((h264.format(), h264.reorders()), (None, false));
    push(&mut h264, 0, false, &unhex(with_b));
    assert!(h264.reorders());
    assert!(H264::new("packetization-mode=2").is_err());
}

#[test]
fn parameter_sets_stand_before_every_key_picture() {
    let mut h264 = with_sets();
    let Some(StreamFormat::H264 { width: 320, height: 240, parameter_sets, .. }) = h264.format() else { panic!() };
    let (sps, pps) = (unhex(SPS_320), unhex(PPS_320));
    assert_eq!(parameter_sets, stream(&[&sps, &pps]));
    let (idr, other) = (slice(5, 20), slice(1, 9));
    let Pushed { units, .. } = push(&mut h264, 90, true, &idr);
    assert_eq!((units[0].timestamp, units[0].key), (90, true));
    assert_eq!(units[0].bytes, stream(&[&sps, &pps, &idr]));
    let Pushed { units, .. } = push(&mut h264, 91, true, &other);
    assert_eq!((units[0].key, &units[0].bytes[..]), (false, &stream(&[&other])[..]));
    // A delimiter stays in front; sets that are there are not doubled.
    push(&mut h264, 92, false, &[9, 0x10]);
    let Pushed { units, .. } = push(&mut h264, 92, true, &idr);
    assert_eq!(units[0].bytes, stream(&[&[9, 0x10], &sps, &pps, &idr]));
    for nal in [&[9, 0x10][..], &sps, &pps] {
        push(&mut h264, 93, false, nal);
    }
    let Pushed { units, .. } = push(&mut h264, 93, true, &idr);
    assert_eq!(units[0].bytes, stream(&[&[9, 0x10], &sps, &pps, &idr]));
}

#[test]
fn several_units_in_a_packet_and_one_in_several() {
    let mut h264 = H264::new("").unwrap();
    let (sps, pps, idr) = (unhex(SPS_320), unhex(PPS_320), slice(5, 300));
    let mut aggregate = vec![0x78];
    for nal in [&sps, &pps] {
        aggregate.extend(u16::try_from(nal.len()).unwrap().to_be_bytes());
        aggregate.extend(nal);
    }
    assert!(push(&mut h264, 5, false, &aggregate).units.is_empty());
    for (index, piece) in idr[1..].chunks(100).enumerate() {
        let flags = if index == 0 { 0x80 } else { 0 } | if index == 2 { 0x40 } else { 0 };
        let Pushed { units, result } = push(&mut h264, 5, index == 2, &[&[0x7C, flags | 5], piece].concat());
        assert_eq!(result, Ok(()));
        assert_eq!(units.len(), usize::from(index == 2));
        if let [unit] = &units[..] {
            assert_eq!(unit.bytes, stream(&[&sps, &pps, &idr]));
        }
    }
}

#[test]
fn without_a_marker_the_next_timestamp_ends_a_picture() {
    let mut h264 = with_sets();
    assert!(push(&mut h264, 1, false, &slice(1, 9)).units.is_empty());
    let Pushed { units, .. } = push(&mut h264, 2, false, &slice(1, 9));
    assert_eq!((units.len(), units[0].timestamp), (1, 1));
}

#[test]
fn pictures_that_lost_a_part_are_left_out() {
    let mut h264 = with_sets();
    push(&mut h264, 1, false, &[&[0x7C, 0x85][..], &slice(5, 50)[1..]].concat());
    // The middle is lost, and the end comes.
    assert!(push_after(&mut h264, true, 1, true, &[0x7C, 0x45, 1, 2]).units.is_empty());
    assert_eq!(push(&mut h264, 2, true, &slice(1, 9)).units.len(), 1, "the next one is whole");
    // The begin of a picture is lost: its second slice does not begin with the first macroblock.
    let mut second = slice(1, 9);
    second[1] = 0x40;
    assert!(push_after(&mut h264, true, 3, true, &second).result.is_err());
    // The same behind a first slice is as it should be.
    push(&mut h264, 4, false, &slice(1, 9));
    let Pushed { units, result } = push(&mut h264, 4, true, &second);
    assert_eq!((units.len(), result), (1, Ok(())));
}

#[test]
fn pictures_that_say_so_may_be_begun_with() {
    let mut h264 = with_sets();
    // A recovery point behind another message.
    push(&mut h264, 1, false, &[6, 1, 1, 0, 6, 1, 0xC0, 0x80]);
    assert!(push(&mut h264, 1, true, &slice(1, 9)).units[0].key);
    push(&mut h264, 2, false, &[6, 1, 1, 0, 0x80]);
    assert!(!push(&mut h264, 2, true, &slice(1, 9)).units[0].key);
}

#[test]
fn a_picture_without_end_is_refused() {
    let mut h264 = with_sets();
    push(&mut h264, 1, false, &[&[0x7C, 0x85][..], &slice(5, 1400)[1..]].concat());
    let piece = [&[0x7C, 0x05][..], &[7; 60_000]].concat();
    let results: Vec<_> = (0..200).map(|_| push(&mut h264, 1, false, &piece).result).take_while(Result::is_ok).collect();
    assert_eq!(results.len(), (8 << 20) / 60_000);
}

proptest! {
    #[test]
    fn any_packets(packets in prop::collection::vec((any::<bool>(), any::<bool>(), 0..4_u32, prop::collection::vec(any::<u8>(), 0..60)), 0..40)) {
        let mut h264 = with_sets();
        for (lost, marker, timestamp, payload) in &packets {
            for unit in push_after(&mut h264, *lost, *timestamp, *marker, payload).units {
                prop_assert!(unit.bytes.starts_with(&START_CODE));
            }
        }
    }
}
