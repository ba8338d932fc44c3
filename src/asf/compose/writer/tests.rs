use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::asf::compose::{Law, StreamFormat};
use crate::asf::{payloads, walk};

const PREROLL_MS: u32 = 500;

#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
fn base() -> Instant {
    Instant::now()
}

fn composition(packet_size: u16) -> Composition {
    let sets = Bytes::from_static(&[0, 0, 0, 1, 0x67, 0, 0, 0, 1, 0x68]);
    let video = StreamFormat::H264 { width: 64, height: 64, parameter_sets: sets, pixel_aspect: (1, 1) };
    let audio = StreamFormat::G711 { law: Law::A, sample_rate: 8000, channels: 1 };
    Composition { streams: vec![video, audio], packet_size, preroll_ms: PREROLL_MS }
}

fn frame(stream: usize, ms: u64, key: bool, bytes: &[u8]) -> Frame<'_> {
    Frame { stream, presentation_ms: ms, decode_ms: ms, key, bytes }
}

/// An object as it comes out of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    stream: u8,
    presentation_ms: u32,
    key: bool,
    bytes: Vec<u8>,
    pieces: usize,
}

/// Puts objects together as a player does; checks what every packet has to keep.
fn objects(packet_size: usize, packets: &[u8]) -> Vec<Object> {
    assert!(packets.len().is_multiple_of(packet_size));
    let (mut done, mut open) = (Vec::new(), BTreeMap::<u8, (u32, Object, u32)>::new());
    let mut latest = 0;
    for packet in packets.chunks(packet_size) {
        let info = walk(packet).unwrap();
        assert!(info.send_time_ms >= latest, "send times never step back");
        latest = info.send_time_ms + u32::from(info.duration_ms);
        for payload in payloads(packet).unwrap() {
            assert!(payload.presentation_ms >= info.send_time_ms);
            let fresh = || Object {
                stream: payload.stream,
                presentation_ms: payload.presentation_ms,
                key: payload.key,
                bytes: Vec::new(),
                pieces: 0,
            };
            let (number, object, size) =
                open.entry(payload.stream).or_insert_with(|| (payload.object, fresh(), payload.object_size));
            assert_eq!((*number, *size), (payload.object, payload.object_size));
            assert_eq!((object.presentation_ms, object.key), (payload.presentation_ms, payload.key));
            assert_eq!(payload.offset as usize, object.bytes.len());
            object.bytes.extend_from_slice(payload.data);
            object.pieces += 1;
            if object.bytes.len() == *size as usize {
                done.push(open.remove(&payload.stream).unwrap().1);
            }
        }
    }
    assert!(open.is_empty(), "every object is whole");
    done
}

#[test]
fn a_picture_leaves_at_once_in_its_own_packets() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Low));
    writer.push(now, &frame(0, 0, true, &[1; 3000])).unwrap();
    let first = writer.take();
    assert_eq!(first.len(), 3 * 1400);
    assert_eq!(objects(1400, &first).len(), 1);
    writer.push(now, &frame(0, 40, false, &[2; 10])).unwrap();
    let second = writer.take();
    assert_eq!(objects(1400, &second)[0].bytes, [2; 10]);
    assert_eq!((writer.take().len(), writer.poll_timeout()), (0, None));
}

#[test]
fn sound_waits_for_company_but_not_long() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Low));
    let at = |ms| now + Duration::from_millis(ms);
    writer.push(now, &frame(1, 0, true, &[1; 160])).unwrap();
    writer.push(at(20), &frame(1, 20, true, &[2; 160])).unwrap();
    assert_eq!((writer.take().len(), writer.poll_timeout()), (0, Some(at(40))));
    writer.handle_timeout(at(39));
    assert!(writer.take().is_empty());
    writer.handle_timeout(at(40));
    let packets = writer.take();
    assert_eq!(walk(&packets).unwrap().duration_ms, 20);
    let sound = objects(1400, &packets);
    assert_eq!(sound.len(), 2);
    assert!(sound.iter().all(|object| object.key), "sound is always key");
    // Who is never asked is late, but not for ever.
    writer.push(at(60), &frame(1, 60, true, &[3; 160])).unwrap();
    writer.push(at(400), &frame(1, 80, true, &[4; 160])).unwrap();
    assert_eq!(objects(1400, &writer.take()).len(), 1);
    writer.flush();
    assert_eq!(objects(1400, &writer.take())[0].bytes, [4; 160]);
}

#[test]
fn usual_latency_fills_packets() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Usual));
    let at = |ms| now + Duration::from_millis(ms);
    writer.push(at(0), &frame(0, 0, true, &[1; 100])).unwrap();
    writer.push(at(33), &frame(0, 33, false, &[2; 100])).unwrap();
    assert!(writer.take().is_empty());
    writer.push(at(66), &frame(0, 66, false, &[3; 100])).unwrap();
    let packets = writer.take();
    assert_eq!((packets.len(), objects(1400, &packets).len()), (1400, 3), "a picture ended 40 ms after the packet began");
}

#[test]
fn key_pictures_begin_packets() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Usual));
    writer.push(now, &frame(1, 0, true, &[9; 160])).unwrap();
    writer.push(now, &frame(0, 0, true, &[1; 100])).unwrap();
    writer.push(now, &frame(0, 10, false, &[2; 100])).unwrap();
    writer.push(now, &frame(0, 20, true, &[3; 100])).unwrap();
    writer.flush();
    let packets = writer.take();
    let starts: Vec<(bool, u8)> = packets
        .chunks(1400)
        .map(|packet| (walk(packet).unwrap().key_starts.contains(1), walk(packet).unwrap().payloads))
        .collect();
    assert_eq!(starts, [(false, 1), (true, 2), (true, 1)]);
}

#[test]
fn sound_is_cut_only_where_it_must_be() {
    let (now, mut writer) = (base(), Writer::new(&composition(200), Latency::Usual));
    writer.push(now, &frame(1, 0, true, &[1; 100])).unwrap();
    writer.push(now, &frame(1, 10, true, &[2; 100])).unwrap();
    writer.push(now, &frame(1, 20, true, &[3; 169])).unwrap();
    writer.push(now, &frame(1, 30, true, &[4; 170])).unwrap();
    writer.flush();
    let pieces: Vec<usize> = objects(200, &writer.take()).iter().map(|object| object.pieces).collect();
    assert_eq!(pieces, [1, 1, 1, 2], "169 bytes are all that a packet of 200 holds");
}

#[test]
fn times() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Low));
    let late = Frame { stream: 0, presentation_ms: 80, decode_ms: 0, key: true, bytes: &[1] };
    writer.push(now, &late).unwrap();
    writer.push(now, &frame(0, 1000, false, &[2])).unwrap();
    // Its clock stepped back: it is sent after what was sent, and shown no earlier than that.
    writer.push(now, &frame(0, 40, false, &[3])).unwrap();
    // A minute and a half later; no packet tells such a span.
    writer.push(now, &frame(1, 1000, true, &[4])).unwrap();
    writer.push(now, &frame(1, 91_000, true, &[5])).unwrap();
    // Times are written modulo 2^32.
    writer.push(now, &frame(0, (1 << 32) + 7, true, &[6])).unwrap();
    let packets = writer.take();
    let times: Vec<(u32, u32, u16)> = packets
        .chunks(1400)
        .map(|packet| walk(packet).unwrap())
        .map(|info| (info.send_time_ms, info.first_presentation_ms, info.duration_ms))
        .collect();
    assert_eq!(times, [(0, 580, 0), (1000, 1500, 0), (1000, 1000, 0), (1000, 1500, 0), (91_000, 91_500, 0), (7, 507, 0)]);
}

#[test]
fn what_is_no_frame_is_refused_and_forgotten() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Low));
    assert_eq!(writer.push(now, &frame(0, 0, true, &[])), Err(FrameError::Empty));
    let long = vec![0; MAX_OBJECT_LEN + 1];
    assert_eq!(writer.push(now, &frame(0, 0, true, &long)), Err(FrameError::TooLong(MAX_OBJECT_LEN + 1)));
    assert_eq!(writer.push(now, &frame(2, 0, true, &[1])), Err(FrameError::NoStream(2)));
    assert_eq!(writer.push(now, &frame(300, 0, true, &[1])), Err(FrameError::NoStream(300)));
    assert!(writer.take().is_empty());
    writer.push(now, &frame(0, 0, true, &long[1..])).unwrap();
    let objects = objects(1400, &writer.take());
    assert_eq!((objects.len(), objects[0].bytes.len()), (1, MAX_OBJECT_LEN));
}

#[test]
fn object_numbers_have_one_byte_and_run_on() {
    let (now, mut writer) = (base(), Writer::new(&composition(1400), Latency::Low));
    for number in 0..600_u64 {
        writer.push(now, &frame(0, number, true, &[1])).unwrap();
        assert_eq!(writer.push(now, &frame(0, number, true, &[])), Err(FrameError::Empty));
    }
    let packets = writer.take();
    let numbers: Vec<u32> = packets.chunks(1400).map(|packet| payloads(packet).unwrap().next().unwrap().object).collect();
    assert_eq!(numbers, (0..600).map(|number| number & 0xFF).collect::<Vec<u32>>());
}

proptest! {
    #[test]
    fn any_frames_come_back_as_they_were(
        packet_size in prop_oneof![Just(100_u16), Just(1400), 100..9000_u16],
        low in any::<bool>(),
        frames in prop::collection::vec((0..2_usize, any::<bool>(), 0..3000_usize, 0..200_u64, 0..150_u64), 0..60),
    ) {
        let now = base();
        let latency = if low { Latency::Low } else { Latency::Usual };
        let mut writer = Writer::new(&composition(packet_size), latency);
        let (mut ms, mut expected, mut packets) = (0, Vec::new(), Vec::new());
        for (index, (stream, key, len, step_ms, wait_ms)) in frames.into_iter().enumerate() {
            ms += step_ms;
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + index) % 256).unwrap()).collect();
            let at = now + Duration::from_millis(ms + wait_ms);
            if writer.push(at, &frame(stream, ms, key, &bytes)).is_ok() {
                let presentation_ms = u32::try_from(ms).unwrap() + PREROLL_MS;
                expected.push((u8::try_from(stream).unwrap() + 1, presentation_ms, key || stream == 1, bytes));
            } else {
                prop_assert_eq!(len, 0);
            }
            writer.handle_timeout(at);
            packets.extend_from_slice(&writer.take());
        }
        writer.flush();
        packets.extend_from_slice(&writer.take());
        let found = objects(packet_size.into(), &packets);
        for stream in 1..=2 {
            let found: Vec<_> = found.iter().filter(|object| object.stream == stream).cloned()
                .map(|object| (object.stream, object.presentation_ms, object.key, object.bytes)).collect();
            let expected: Vec<_> = expected.iter().filter(|object| object.0 == stream).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
