use proptest::prelude::*;

use super::*;
use crate::asf::fabricate::{Form, Piece, Plan, plans};
use crate::asf::fabricate_stream::{Fabricated, Object, objects, packet_streams, slow_streams};
use crate::asf::{Header, Recut, payloads, samples, walk};

fn set(streams: &[u8]) -> StreamSet {
    streams.iter().copied().collect()
}

fn all(header: &Header) -> StreamSet {
    header.streams().iter().map(|stream| stream.number).collect()
}

fn selector(header: &Header, streams: &[u8], thinned: &[u8]) -> Selector {
    Selector::new(all(header), header.video(), Selection { streams: set(streams), thinned: set(thinned) })
}

/// The packets that are sent, checked as to form.
fn select(selector: &mut Selector, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for packet in packets {
        let mut out = vec![0xAA];
        match selector.packet(packet, &mut out).unwrap() {
            Kept::Nothing => assert_eq!(out.len(), 1),
            Kept::Whole => {
                assert_eq!(out.len(), 1);
                sent.push(packet.clone());
            }
            Kept::Rewritten => {
                assert_eq!((out.len(), out[0]), (1 + packet.len(), 0xAA));
                let (before, after) = (walk(packet).unwrap(), walk(&out[1..]).unwrap());
                assert_eq!((after.send_time_ms, after.duration_ms), (before.send_time_ms, before.duration_ms));
                assert!(after.payloads < before.payloads && before.streams.covers(after.streams));
                sent.push(out[1..].to_vec());
            }
        }
    }
    sent
}

/// What is to be sent of these objects from the start on.
fn wanted(objects: Vec<Object>, header: &Header, selection: Selection) -> Vec<Object> {
    let thinned = selection.thinned.intersection(header.video());
    if selection.streams.covers(all(header)) && thinned.is_empty() {
        return objects;
    }
    let mut begun = StreamSet::EMPTY;
    let wants = |object: &Object| {
        if !header.video().contains(object.stream) {
            return selection.streams.contains(object.stream);
        }
        if object.key {
            begun.insert(object.stream);
        }
        selection.streams.contains(object.stream)
            && begun.contains(object.stream)
            && (object.key || !selection.thinned.contains(object.stream))
    };
    objects.into_iter().filter(wants).collect()
}

#[test]
fn samples_by_every_selection() {
    for (name, ..) in samples::STREAMS {
        let (header, packets) = samples::stream(name);
        for bits in 0..8_u8 {
            for thin in [&[][..], &[1], &[1, 2, 3]] {
                let streams: Vec<u8> = (1..=3).filter(|stream| bits >> (stream - 1) & 1 == 1).collect();
                let mut selector = selector(&header, &streams, thin);
                let found = objects(select(&mut selector, &packets));
                assert_eq!(found, wanted(objects(&packets), &header, selector.selection()), "{name} {streams:?} {thin:?}");
            }
        }
    }
}

/// Objects that begin in these packets, by stream: number and whether it is a key frame.
fn begun(packets: &[Vec<u8>], stream: u8) -> Vec<(u8, bool)> {
    let found = packets.iter().flat_map(|packet| payloads(packet).unwrap());
    let starts = found.filter(|payload| payload.stream == stream && payload.offset == 0);
    starts.map(|payload| (payload.object.to_le_bytes()[0], payload.key)).collect()
}

#[test]
fn a_rate_switches_at_a_key_frame_of_the_new_one() {
    let (header, packets) = samples::stream("mbr-2video-1audio.asf");
    let key_of_two =
        packets.iter().enumerate().skip(50).find(|(_, packet)| walk(packet).unwrap().key_starts.contains(2)).unwrap().0;
    let mut selector = selector(&header, &[1, 3], &[]);
    let mut sent = select(&mut selector, &packets[..50]);
    assert!(begun(&sent, 2).is_empty());
    selector.switch(Selection { streams: set(&[2, 3]), thinned: StreamSet::EMPTY });
    sent.extend(select(&mut selector, &packets[50..key_of_two]));
    assert_eq!(begun(&sent, 2), [], "not yet");
    assert_eq!(begun(&sent, 1), begun(&packets[..key_of_two], 1), "goes on");
    sent.extend(select(&mut selector, &packets[key_of_two..]));
    assert_eq!(begun(&sent, 2), begun(&packets[key_of_two..], 2));
    assert!(begun(&sent, 1).len() <= begun(&packets[..=key_of_two], 1).len(), "the first rate has ended");
    let sent = objects(&sent);
    assert!(sent.iter().all(|object| object.data.len() == usize::try_from(object.size).unwrap()), "an object lacks its end");
    assert_eq!(sent.iter().filter(|object| object.stream == 3).count(), begun(&packets, 3).len(), "sound all along");
}

#[test]
fn a_switch_taken_back_never_stops() {
    let (header, packets) = samples::stream("mbr-2video-1audio.asf");
    let mut selector = selector(&header, &[1, 3], &[]);
    let mut sent = select(&mut selector, &packets[..50]);
    selector.switch(Selection { streams: set(&[2, 3]), thinned: StreamSet::EMPTY });
    sent.extend(select(&mut selector, &packets[50..52]));
    selector.switch(Selection { streams: set(&[1, 3]), thinned: StreamSet::EMPTY });
    sent.extend(select(&mut selector, &packets[52..]));
    let wanted: Vec<_> = objects(&packets).into_iter().filter(|object| object.stream != 2).collect();
    assert_eq!(objects(&sent), wanted);
}

#[test]
fn thinning_ends_with_a_key_frame() {
    let (header, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
    let mut selector = selector(&header, &[1, 2], &[]);
    let mut sent = select(&mut selector, &packets[..20]);
    selector.switch(Selection { streams: set(&[1, 2]), thinned: set(&[1]) });
    sent.extend(select(&mut selector, &packets[20..50]));
    selector.switch(Selection { streams: set(&[1, 2]), thinned: StreamSet::EMPTY });
    sent.extend(select(&mut selector, &packets[50..]));
    let video = begun(&sent, 1);
    assert!(video.len() < begun(&packets, 1).len());
    let gaps: Vec<_> = video.windows(2).filter(|pair| pair[1].0 != pair[0].0.wrapping_add(1)).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|pair| pair[1].1), "each gap ends with a key frame: {gaps:?}");
    assert_eq!(begun(&sent, 2), begun(&packets, 2), "sound all along");
}

#[test]
fn a_seek_begins_with_a_key_frame() {
    let (header, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
    let mut video = selector(&header, &[1], &[]);
    let mut everything = selector(&header, &[1, 2], &[]);
    for selector in [&mut video, &mut everything] {
        select(selector, &packets[..10]);
        selector.restart();
    }
    assert!(select(&mut everything, &packets[31..]) == packets[31..], "everything passes whole");
    let sent = select(&mut video, &packets[31..]);
    let first = begun(&sent, 1)[0];
    assert!(first.1 && begun(&packets, 1).contains(&first));
}

#[test]
fn an_invalid_packet_changes_nothing() {
    let (header, packets) = samples::stream("mbr-2video-1audio.asf");
    let mut selector = selector(&header, &[1], &[]);
    let before = format!("{selector:?}");
    let mut out = Vec::new();
    assert!(selector.packet(&packets[0][..200], &mut out).is_err() && out.is_empty());
    assert_eq!(format!("{selector:?}"), before);
}

/// A packet of one object each, given as stream, key and number.
fn packet_at(send_time_ms: u32, frames: &[(u8, bool, u32)]) -> Vec<u8> {
    let piece = |(stream, key, object): &(u8, bool, u32)| Piece {
        stream: *stream,
        key: *key,
        object: *object,
        offset: 0,
        presentation_ms: send_time_ms + 3000,
        object_size: None,
        form: Form::Replicated(vec![9; 20], 0),
    };
    let pieces = frames.iter().map(piece).collect();
    let (correction, multiple) = (Some(2), true);
    let [packet_length, sequence, padding, object, offset, replicated, payload_length] = [0, 0, 2, 1, 3, 1, 2];
    let plan = Plan {
        correction,
        multiple,
        packet_length,
        sequence,
        padding,
        object,
        offset,
        replicated,
        payload_length,
        send_time_ms,
        pieces,
        spare: 10,
    };
    plan.build()
}

/// Streams 1 and 2 are video, 3 is sound: a frame of each every 100 ms from 5 s on, those of stream 1 key frames every 2 s.
fn rolling(count: u32) -> Vec<Vec<u8>> {
    let packet = |number: u32| {
        let frames = [(1, number.is_multiple_of(20), number & 0xFF), (2, false, number & 0xFF), (3, true, number & 0xFF)];
        packet_at(5000 + number * 100, &frames)
    };
    (0..count).map(packet).collect()
}

fn of(streams: &[u8], thinned: &[u8]) -> Selector {
    Selector::new(set(&[1, 2, 3]), set(&[1, 2]), Selection { streams: set(streams), thinned: set(thinned) })
}

#[test]
fn video_without_key_frames_begins_after_a_wait() {
    let packets = rolling(400);
    let sent = select(&mut of(&[2, 3], &[]), &packets);
    assert_eq!(begun(&sent, 2), begun(&packets[300..], 2), "30 s after the first packet");
    assert_eq!((begun(&sent, 1), begun(&sent, 3)), (vec![], begun(&packets, 3)));
    assert_eq!(begun(&select(&mut of(&[2, 3], &[2]), &packets), 2), [], "of key frames alone there is nothing");

    let mut known = of(&[2, 3], &[]);
    known.stand_in();
    assert_eq!(begun(&select(&mut known, &packets), 2), begun(&packets, 2), "at once where it is known");
    known.switch(Selection::all(set(&[1, 3])));
    known.stand_in();
    assert_eq!(begun(&select(&mut known, &packets[1..30]), 1), begun(&packets[20..30], 1), "a key frame is near");
    known.switch(Selection::all(set(&[2, 3])));
    known.switch(Selection::all(set(&[1, 3])));
    known.restart();
    known.stand_in();
    assert_eq!(begun(&select(&mut known, &packets[1..19]), 1), [], "a stream that has key frames is worth the wait");
}

#[test]
fn a_stream_that_had_a_key_frame_is_worth_any_wait() {
    let packet =
        |number: u32| packet_at(number * 100, &[(1, matches!(number, 0 | 700), number & 0xFF), (3, true, number & 0xFF)]);
    let packets: Vec<_> = (0..800).map(packet).collect();
    let mut selector = of(&[1], &[]);
    let mut sent = select(&mut selector, &packets[..10]);
    selector.switch(Selection::all(set(&[3])));
    sent.extend(select(&mut selector, &packets[10..20]));
    selector.switch(Selection::all(set(&[1])));
    sent.extend(select(&mut selector, &packets[20..]));
    let expected: Vec<_> = begun(&packets[..10], 1).into_iter().chain(begun(&packets[700..], 1)).collect();
    assert_eq!(begun(&sent, 1), expected);
}

#[test]
fn a_leap_of_the_clock_is_no_wait() {
    // Stream 2 goes on an hour later, as where recordings are joined, and has its first key frame soon after.
    let packet = |number: u32| {
        let leap_ms = if number < 50 { 0 } else { 3_600_000 };
        packet_at(5000 + number * 100 + leap_ms, &[(2, number == 60, number & 0xFF)])
    };
    let packets: Vec<_> = (0..100).map(packet).collect();
    assert_eq!(begun(&select(&mut of(&[2], &[]), &packets), 2), begun(&packets[60..], 2));
}

#[test]
fn the_old_rate_goes_on_while_the_new_one_is_waited_for() {
    let packets = rolling(800);
    let mut selector = of(&[1, 3], &[]);
    let mut sent = select(&mut selector, &packets[..100]);
    selector.switch(Selection::all(set(&[2, 3])));
    sent.extend(select(&mut selector, &packets[100..200]));
    // What is no new wait does not prolong it.
    selector.switch(Selection::all(set(&[2])));
    sent.extend(select(&mut selector, &packets[200..]));
    assert_eq!(begun(&sent, 1).len(), 401, "until the packet in which the other begins");
    assert_eq!(begun(&sent, 2), begun(&packets[400..], 2));
    assert_eq!(begun(&sent, 3), begun(&packets[..200], 3));
}

#[test]
fn thinning_of_video_without_key_frames_ends_after_a_wait() {
    let packets = rolling(800);
    let mut selector = of(&[1, 2, 3], &[]);
    let mut sent = select(&mut selector, &packets[..100]);
    selector.switch(Selection { streams: set(&[1, 2, 3]), thinned: set(&[1, 2]) });
    sent.extend(select(&mut selector, &packets[100..200]));
    selector.switch(Selection::all(set(&[1, 2, 3])));
    sent.extend(select(&mut selector, &packets[200..]));
    let expected: Vec<_> = begun(&packets[..100], 2).into_iter().chain(begun(&packets[500..], 2)).collect();
    assert_eq!(begun(&sent, 2), expected);
    assert!(selector.passes_everything());
}

/// What is to be sent where streams may have no key frames: the same, said by the times of the packets.
fn wanted_in_time(packets: &[Vec<u8>], header: &Header, selection: Selection) -> Vec<Object> {
    let video = header.video();
    let thinned = selection.thinned.intersection(video);
    let mut source = objects(packets).into_iter();
    if selection.streams.covers(all(header)) && thinned.is_empty() {
        return source.collect();
    }
    let mut first_ms = walk(&packets[0]).unwrap().send_time_ms;
    let mut last_ms = first_ms;
    let (mut begun, mut keyed, mut wanted) = (StreamSet::EMPTY, StreamSet::EMPTY, Vec::new());
    for packet in packets {
        let now_ms = walk(packet).unwrap().send_time_ms;
        if now_ms >= last_ms + KEYLESS_MS {
            first_ms += now_ms - last_ms;
        }
        last_ms = now_ms;
        let late = now_ms - first_ms >= KEYLESS_MS;
        let keyless = if late { video.difference(keyed).difference(thinned) } else { StreamSet::EMPTY };
        for payload in payloads(packet).unwrap().filter(|payload| payload.offset == 0) {
            let (object, stream) = (source.next().unwrap(), payload.stream);
            if payload.key {
                keyed.insert(stream);
            }
            if payload.key || !video.contains(stream) || keyless.contains(stream) && !keyed.contains(stream) {
                begun.insert(stream);
            }
            let sent = payload.key || !thinned.contains(stream);
            if selection.streams.contains(stream) && begun.contains(stream) && sent {
                wanted.push(object);
            }
        }
    }
    wanted
}

fn selections() -> impl Strategy<Value = Selection> {
    (0..16_u8, 0..16_u8).prop_map(|(streams, thinned)| {
        let set = |bits: u8| (1..=4).filter(|stream| bits >> (stream - 1) & 1 == 1).collect();
        Selection { streams: set(streams), thinned: set(thinned) }
    })
}

proptest! {
    #[test]
    fn keeps_what_is_selected(Fabricated { header, packets } in packet_streams(), selection in selections()) {
        let mut selector = Selector::new(all(&header), header.video(), selection);
        prop_assert_eq!(objects(select(&mut selector, &packets)), wanted(objects(&packets), &header, selection));
    }

    #[test]
    fn keeps_what_is_selected_of_video_without_key_frames(
        Fabricated { header, packets } in slow_streams(), selection in selections(),
    ) {
        let mut selector = Selector::new(all(&header), header.video(), selection);
        let found = objects(select(&mut selector, &packets));
        prop_assert!(found.iter().all(|object| object.data.len() == usize::try_from(object.size).unwrap()));
        prop_assert_eq!(found, wanted_in_time(&packets, &header, selection));
    }

    #[test]
    fn keeps_the_same_of_re_cut_packets(Fabricated { header, packets } in packet_streams(), selection in selections()) {
        let Some(recut) = Recut::new(&header, 250) else { return Ok(()) };
        let mut out = Vec::new();
        packets.iter().for_each(|packet| assert!(recut.recut(packet, &mut out).is_ok()));
        let parts: Vec<_> = out.chunks(recut.packet_size()).map(<[u8]>::to_vec).collect();
        let mut selector = Selector::new(all(&header), header.video(), selection);
        prop_assert_eq!(objects(select(&mut selector, &parts)), wanted(objects(&packets), &header, selection));
    }

    /// Whatever is switched when: objects are sent whole or not at all, and only selected or replaced streams' ones.
    #[test]
    fn switches_never_cut_an_object(
        Fabricated { header, packets } in prop_oneof![packet_streams(), slow_streams()],
        switches in proptest::collection::vec((0..12_usize, selections()), 1..5),
    ) {
        let mut selector = Selector::new(all(&header), header.video(), switches[0].1);
        let (mut sent, mut at, mut ever) = (Vec::new(), 0, switches[0].1.streams);
        for (packets_between, selection) in switches {
            let end = (at + packets_between).min(packets.len());
            sent.extend(select(&mut selector, &packets[at..end]));
            at = end;
            selector.switch(selection);
            ever = ever.union(selection.streams);
        }
        sent.extend(select(&mut selector, &packets[at..]));
        let (found, source) = (objects(&sent), objects(&packets));
        prop_assert!(found.iter().all(|object| ever.contains(object.stream) && source.contains(object)));
        for stream in header.video().iter().filter(|stream| !ever.covers(all(&header)) && ever.contains(*stream)) {
            let first = found.iter().find(|object| object.stream == stream);
            let times = packets.iter().map(|packet| walk(packet).unwrap().send_time_ms);
            let patient = times.clone().max().zip(times.min()).is_some_and(|(last, first)| last - first < KEYLESS_MS);
            prop_assert!(first.is_none_or(|first| first.key || !patient));
        }
    }

    #[test]
    fn any_packet_never_panics(plan in plans(), at in any::<u16>(), value in any::<u8>(), streams in any::<u64>()) {
        let mut packet = plan.build();
        let at = usize::from(at) % packet.len();
        packet[at] = value;
        let streams = (1..64).filter(|stream| streams >> stream & 1 == 1).collect();
        let mut selector = Selector::new((1..=127).collect(), set(&[1, 2, 3]), Selection { streams, thinned: StreamSet::EMPTY });
        let mut out = Vec::new();
        match selector.packet(&packet, &mut out) {
            Ok(Kept::Rewritten) => prop_assert!(out.len() == packet.len() && walk(&out).is_ok()),
            _ => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn any_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut selector = Selector::new(set(&[1, 2]), set(&[1]), Selection::default());
        let _ = selector.packet(&packet, &mut Vec::new());
    }
}

/// What is sent again must be what was sent first, though nothing of what came before is known any more.
#[test]
fn cuts_from_the_middle_equal_those_from_the_start() {
    for (streams, thinned) in [(&[1, 3][..], &[][..]), (&[2], &[]), (&[1, 2, 3], &[1]), (&[1, 2, 3], &[1, 2]), (&[3], &[])] {
        let (header, packets) = samples::stream("mbr-2video-1audio.asf");
        let mut from_start = selector(&header, streams, thinned);
        let selection = from_start.selection();
        let mut compared = 0;
        for packet in &packets {
            let (mut first, mut again) = (Vec::new(), Vec::new());
            let kept = from_start.packet(packet, &mut first).unwrap();
            if from_start.waiting.is_empty() {
                let mut amid = Selector::amid(all(&header), header.video(), selection);
                // The packet with which the last stream begins may hold what came before its key frame.
                let starts = walk(packet).unwrap().key_starts.intersects(header.video());
                assert!(amid.packet(packet, &mut again).unwrap() == kept && again == first || starts && compared == 0);
                compared += 1;
            }
        }
        assert!(compared > 100, "{compared}");
    }
}
