use super::*;
use crate::asf::fabricate_stream::objects;
use crate::asf::{Recutter, fabricate, payloads, samples, walk};
use crate::relay::testing::{at, base};
use crate::relay::{BatchPacket, PointId, Relay, ShardPort};
use crate::settings::{PublishingPoint, Settings};
use crate::wire::Guid;
use proptest::prelude::*;
use std::sync::Mutex;

/// A shard that remembers.
#[derive(Default)]
struct Mailbox(Mutex<Vec<Delivery>>);

impl ShardPort for Mailbox {
    fn deliver(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}

impl Mailbox {
    fn take(&self) -> Vec<Delivery> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A relay with a publishing point that is pushed to and one that is not, two shards, and a real stream.
struct Bench {
    base: Instant,
    relay: Arc<Relay>,
    shards: [Arc<Mailbox>; 2],
    header: Header,
    packets: Vec<Vec<u8>>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::of("live-asf-pipe.asf", change)
    }

    fn of(sample: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let timeout = Some(Duration::from_secs(30));
        let point = |name: &str, source| PublishingPoint { source_timeout: timeout, ..PublishingPoint::new(name, source) };
        let publishing_points = vec![point("cam", Source::Push), point("demo", Source::Demo)];
        let mut settings = Settings { publishing_points, ..Settings::default() };
        change(&mut settings);
        let shards = [Arc::default(), Arc::default()];
        let ports = shards.iter().map(|shard: &Arc<Mailbox>| Arc::clone(shard) as Arc<dyn ShardPort>).collect();
        let mut last = 0;
        let file_ids = move || {
            last += 1;
            Guid([last; 16])
        };
        let (header, packets) = samples::stream(sample);
        Self { base: base(), relay: Relay::new(&settings, Box::new(file_ids), ports), shards, header, packets }
    }

    fn at(&self, ms: u64) -> Instant {
        at(self.base, ms)
    }

    fn publish(&self, ms: u64, user: &str) -> Result<Publisher, PublishRefusal> {
        self.relay.publish(self.at(ms), "cam", PublisherId::User(user.into()))
    }

    /// A publisher whose header and first packet have come.
    fn begin(&self, ms: u64) -> Publisher {
        let mut publisher = self.publish(ms, "ann").unwrap();
        publisher.header(self.at(ms), 0, &self.header).unwrap();
        publisher.packets(self.at(ms), self.some(0..1)).unwrap();
        publisher
    }

    fn some(&self, range: std::ops::Range<usize>) -> BytesMut {
        self.packets[range].concat().as_slice().into()
    }

    /// What the first shard got, in words; the second got the same.
    fn seen(&self) -> Vec<String> {
        let [first, second] = [0, 1].map(|shard| self.shards[shard].take());
        assert_eq!(first.len(), second.len());
        for pair in first.iter().zip(&second) {
            if let (Delivery::Batch { batch, .. }, Delivery::Batch { batch: other, .. }) = pair {
                assert!(Arc::ptr_eq(batch, other), "shards share the packets");
            }
        }
        first.iter().map(word).collect()
    }
}

fn word(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Generation { point: PointId(0), generation } => format!("generation {}", generation.number),
        Delivery::Batch { point: PointId(0), batch } => format!("{:?} of {}", batch.numbers(), batch.generation.number),
        Delivery::SourceLost { point: PointId(0) } => "lost".into(),
        Delivery::Ended { point: PointId(0) } => "ended".into(),
        other => panic!("{other:?}"),
    }
}

/// Captions of a source pass, commands that open web pages only where the settings let them.
#[test]
fn commands_open_nothing_unless_they_may() {
    let header =
        Header::parse(&fabricate::header(&[fabricate::file_properties(200, 1), fabricate::audio(1), fabricate::commands(3)]));
    let command = |kind| {
        let data = fabricate::command(kind, "http://h");
        fabricate::command_packet(3, 0, u32::try_from(data.len()).unwrap(), &data)
    };
    for allowed in [false, true] {
        let bench = Bench::with(|settings| settings.publishing_points[0].url_commands = allowed);
        let mut publisher = bench.publish(0, "ann").unwrap();
        publisher.header(bench.base, 0, header.as_ref().unwrap()).unwrap();
        let packets = [command("TEXT"), command("URL")];
        publisher.packets(bench.base, packets.concat().as_slice().into()).unwrap();
        let (_, _, sent) = bench.sent();
        let texts = sent.iter().map(|packet| payloads(packet).unwrap().next().unwrap().data.to_vec()).collect::<Vec<_>>();
        let url = fabricate::command("URL", "http://h");
        let left = if allowed { url.clone() } else { vec![0; url.len()] };
        assert_eq!(texts, [fabricate::command("TEXT", "http://h"), left]);
    }
}

#[test]
fn shards_get_the_generation_and_then_its_batches() {
    let bench = Bench::new();
    let point = bench.relay.point("cam").unwrap();
    assert!(point.generation().is_none());
    let mut publisher = bench.publish(0, "ann").unwrap();
    publisher.header(bench.base, 0, &bench.header).unwrap();
    assert_eq!(point.generation().unwrap().header, bench.header.broadcast(Guid([1; 16]), 0));
    let accepted = publisher.packets(bench.at(40), bench.some(0..3)).unwrap();
    assert_eq!(accepted, Accepted { packets: 3, invalid: 0 });
    publisher.packets(bench.at(80), BytesMut::new()).unwrap();
    let [_, Delivery::Batch { batch, .. }] = &bench.shards[0].0.lock().unwrap()[..] else { panic!("no batch") };
    assert_eq!((batch.bytes.as_ref(), batch.due), (bench.some(0..3).as_ref(), bench.at(40)));
    for ((number, packet), source) in (0..).zip(&batch.packets).zip(&bench.packets) {
        let info = walk(source).unwrap();
        let expected = BatchPacket {
            number,
            send_time_ms: info.send_time_ms,
            join_point: info.key_starts.contains(1),
            key: info.key,
            used_len: info.used_len,
        };
        assert_eq!(*packet, expected);
    }
}

#[test]
fn names_are_found_in_any_case_but_exactly_first() {
    let point = |name: &str| PublishingPoint::new(name, Source::Push);
    let bench = Bench::with(|settings| settings.publishing_points = ["Cam", "cam", "Ünï"].map(point).into());
    let found = |name| bench.relay.point(name).map(|point| point.id());
    assert_eq!(found("cam"), Some(PointId(1)));
    assert_eq!((found("Cam"), found("CAM")), (Some(PointId(0)), Some(PointId(0))));
    assert_eq!((found("ÜNï"), found("ünï"), found("")), (Some(PointId(2)), None, None), "only ASCII letters are folded");
    assert_eq!(bench.relay.points().len(), 3);
}

#[test]
fn refusals_tell_why() {
    let bench = Bench::new();
    let publish = |name: &str, id| bench.relay.publish(bench.base, name, id).map(drop);
    assert_eq!(publish("none", PublisherId::Local), Err(PublishRefusal::Unknown { name: "none".into() }));
    assert_eq!(publish("demo", PublisherId::Local), Err(PublishRefusal::NotPush { name: "demo".into() }));
    assert_eq!(publish("demo", PublisherId::BuiltIn), Ok(()));
    let publisher = bench.publish(0, "ann").unwrap();
    assert_eq!(publish("cam", PublisherId::Local), Err(PublishRefusal::Busy { name: "cam".into() }));
    drop(publisher);
    let awaits = |ms, name| bench.relay.awaits_publisher(bench.at(ms), name);
    assert_eq!(["none", "demo", "cam", "CAM"].map(|name| awaits(0, name)), [false, false, true, true]);
    let mut publisher = bench.begin(0);
    assert!(!awaits(1999, "cam") && awaits(2000, "cam"), "it may be gone");
    publisher.packets(bench.at(3000), bench.some(1..2)).unwrap();
    assert!(!awaits(4999, "cam"));
    drop(publisher);
    assert!(awaits(4999, "cam"));
}

#[test]
fn a_silent_publisher_yields_to_the_same_credentials_only() {
    let bench = Bench::new();
    let mut old = bench.begin(0);
    assert!(bench.publish(1999, "ann").is_err());
    assert!(bench.publish(60_000, "bob").is_err(), "other credentials wait for the end");
    old.alive(bench.at(3000)).unwrap();
    assert!(bench.publish(4999, "ann").is_err());
    let mut new = bench.publish(5000, "ann").unwrap();
    let late = bench.at(5001);
    assert_eq!(old.packets(late, bench.some(1..2)), Err(PublishError::Superseded));
    assert_eq!(old.header(late, 0, &bench.header), Err(PublishError::Superseded));
    assert_eq!(old.alive(late), Err(PublishError::Superseded));
    drop(old);
    new.header(late, 0, &bench.header).unwrap();
    new.packets(late, bench.some(0..2)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..3 of 0"], "viewers notice a pause only");
}

#[test]
fn a_publisher_that_is_disconnected_goes_and_another_comes() {
    let bench = Bench::new();
    let point = bench.relay.point("cam").unwrap();
    let mut old = bench.begin(0);
    assert!(point.disconnect_source());
    assert_eq!(old.packets(bench.at(10), bench.some(1..2)), Err(PublishError::Dismissed));
    assert_eq!(old.alive(bench.at(10)), Err(PublishError::Dismissed));
    drop(old);
    assert!(!point.disconnect_source(), "nobody is there");
    bench.publish(20, "bob").unwrap();
}

#[test]
fn a_source_that_comes_back_in_time_loses_no_viewer() {
    let bench = Bench::new();
    drop(bench.begin(0));
    bench.relay.tick(bench.at(1000));
    bench.relay.tick(bench.at(30_999));
    let publisher = bench.begin(31_000);
    bench.relay.tick(bench.at(32_000));
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost", "1..2 of 0"]);
    drop(publisher);
    bench.relay.tick(bench.at(61_000));
    assert_eq!(bench.seen(), ["lost"], "the time-out begins anew");
}

#[test]
fn a_source_that_stays_away_ends_the_stream() {
    let bench = Bench::new();
    let point = bench.relay.point("cam").unwrap();
    drop(bench.begin(0));
    for second in 1..100 {
        bench.relay.tick(bench.at(second * 1000));
        assert_eq!(point.generation().is_some(), second < 31, "{second}");
    }
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost", "ended"]);
    let _publisher = bench.begin(200_000);
    assert_eq!(bench.seen(), ["generation 1", "1..2 of 1"], "an equal header, but nobody has the old one");
    assert_eq!(point.generation().unwrap().number, 1);
}

#[test]
fn without_a_time_out_viewers_wait_for_ever() {
    let bench = Bench::with(|settings| settings.publishing_points[0].source_timeout = None);
    drop(bench.begin(0));
    (0..100).for_each(|hour| bench.relay.tick(bench.at(hour * 3_600_000)));
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost"]);
}

#[test]
fn a_connection_that_hangs_times_out_like_one_that_is_gone() {
    let bench = Bench::new();
    let mut publisher = bench.begin(0);
    bench.relay.tick(bench.at(29_999));
    bench.relay.tick(bench.at(30_000));
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "ended"]);
    publisher.packets(bench.at(40_000), bench.some(1..2)).unwrap();
    assert_eq!(bench.seen(), ["generation 1", "1..2 of 1"]);
    assert_eq!(bench.relay.point("cam").unwrap().generation().unwrap().number, 1);
}

#[test]
fn nothing_ends_that_never_began() {
    let bench = Bench::new();
    let publisher = bench.publish(0, "ann").unwrap();
    bench.relay.tick(bench.at(100_000));
    drop(publisher);
    bench.relay.tick(bench.at(200_000));
    bench.relay.tick(bench.at(300_000));
    assert_eq!(bench.seen(), ["lost"]);
}

#[test]
fn invalid_packets_are_left_out() {
    let bench = Bench::new();
    let mut publisher = bench.begin(0);
    let invalid = || vec![0xFF; 1400];
    let mixed = [bench.packets[1].clone(), invalid(), bench.packets[2].clone()].concat();
    let accepted = publisher.packets(bench.base, mixed.as_slice().into()).unwrap();
    assert_eq!(accepted, Accepted { packets: 2, invalid: 1 });
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..3 of 0"]);
}

#[test]
fn fifty_invalid_packets_in_a_row_are_the_end() {
    let bench = Bench::new();
    let mut publisher = bench.begin(0);
    let bad = |count: usize| BytesMut::from(&vec![0xFF; 1400 * count][..]);
    publisher.packets(bench.base, bad(49)).unwrap();
    publisher.packets(bench.base, bench.some(1..2)).unwrap();
    publisher.packets(bench.base, bad(49)).unwrap();
    let last: Vec<u8> = [bad(1).to_vec(), bench.packets[2].clone()].concat();
    let error = publisher.packets(bench.base, last.as_slice().into()).unwrap_err();
    assert!(matches!(&error, PublishError::Invalid { count: 50, .. }), "{error}");
    assert!(error.to_string().starts_with("50 invalid ASF packets in a row"), "{error}");
    drop(publisher);
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..2 of 0", "lost"]);
    bench.begin(1).packets(bench.at(1), bad(49)).unwrap();
}

#[test]
fn packets_need_a_header_of_their_own_publisher() {
    let bench = Bench::new();
    drop(bench.begin(0));
    let mut publisher = bench.publish(0, "ann").unwrap();
    assert_eq!(publisher.packets(bench.base, bench.some(0..1)), Err(PublishError::NoHeader));
    publisher.header(bench.base, 0, &bench.header).unwrap();
    let cut = PublishError::NotWhole { len: 1399, packet_size: 1400 };
    assert_eq!(publisher.packets(bench.base, bench.some(0..1).split_to(1399)), Err(cut));
}

#[test]
fn batches_are_cut_so_that_a_window_holds_several() {
    let bench = Bench::with(|settings| settings.window.bytes = 8 * 1400 * 4);
    let mut publisher = bench.begin(0);
    publisher.packets(bench.base, bench.some(1..11)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..5 of 0", "5..9 of 0", "9..11 of 0"]);
}

#[test]
fn a_generation_that_opens_among_packets_cuts_the_batch() {
    let bench = Bench::new();
    let mut publisher = bench.begin(0);
    let near_the_end = |ms: u32, packet: &[u8]| {
        let (mut packet, own) = (packet.to_vec(), walk(packet).unwrap().send_time_ms);
        crate::asf::shift(&mut packet, &crate::asf::Shift::times(ms.wrapping_sub(own))).unwrap();
        packet
    };
    publisher.packets(bench.base, BytesMut::from(&near_the_end(1000, &bench.packets[1])[..])).unwrap();
    // Twenty-four days of source time in one step, as if they had passed.
    let later = bench.at(0x7FFF_F000);
    let packets = [0x7FFF_FFF0, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0010].map(|ms| near_the_end(ms, &bench.packets[2])).concat();
    publisher.packets(later, packets.as_slice().into()).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..2 of 0", "2..4 of 0", "generation 1", "4..6 of 1"]);
    assert_eq!(bench.relay.point("cam").unwrap().generation().unwrap().number, 1);
}

/// Pictures and sound in packets of 3200 bytes.
const LARGE: &str = "vod-wmv2-wmav2-indexed.wmv";

impl Bench {
    /// The settings as they are, and a source whose packets do not fit.
    fn large() -> Self {
        Self::of(LARGE, |_| ())
    }

    /// What the first shard got: words as of [`Bench::seen`] and all packets, whose numbers run on.
    fn sent(&self) -> (Vec<String>, Vec<BatchPacket>, Vec<Vec<u8>>) {
        let (mut words, mut notes, mut packets) = (Vec::new(), Vec::<BatchPacket>::new(), Vec::new());
        let [deliveries, _] = [0, 1].map(|shard| self.shards[shard].take());
        for delivery in deliveries {
            words.push(word(&delivery));
            let Delivery::Batch { batch, .. } = delivery else { continue };
            assert_eq!(batch.bytes.len(), batch.packets.len() * batch.generation.packet_size);
            for ((number, note), packet) in
                batch.numbers().zip(&batch.packets).zip(batch.bytes.chunks(batch.generation.packet_size))
            {
                let info = walk(packet).unwrap();
                let told = (note.number, note.send_time_ms, note.used_len);
                assert_eq!(told, (number, info.send_time_ms, info.used_len));
                assert!(notes.last().is_none_or(|last| last.number + 1 == number && last.send_time_ms <= note.send_time_ms));
                notes.push(*note);
                packets.push(packet.to_vec());
            }
        }
        (words, notes, packets)
    }

    /// Publishes packets one by one, each in its time from `ms` on, with the ticks of the daemon. When the last one came.
    fn play(&self, publisher: &mut Publisher, ms: u64, range: std::ops::Range<usize>) -> u64 {
        let mut now_ms = ms;
        for index in range {
            let due = ms + u64::from(walk(&self.packets[index]).unwrap().send_time_ms);
            (now_ms / 1000 + 1..=due / 1000).for_each(|second| self.relay.tick(self.at(second * 1000)));
            now_ms = due;
            let accepted = publisher.packets(self.at(due), self.some(index..index + 1)).unwrap();
            assert_eq!(accepted, Accepted { packets: 1, invalid: 0 }, "the source's packets count");
        }
        now_ms
    }
}

#[test]
fn packets_that_do_not_fit_a_datagram_are_cut_anew() {
    for (sample, count, size) in samples::STREAMS {
        let bench = Bench::of(sample, |_| ());
        let mut publisher = bench.publish(0, "ann").unwrap();
        publisher.header(bench.base, 0, &bench.header).unwrap();
        bench.play(&mut publisher, 0, 0..count);
        drop(publisher);
        let generation = bench.relay.point("cam").unwrap().generation().unwrap();
        assert_eq!(generation.packet_size, if size > 1400 { 1400 } else { size }, "{sample}");
        assert_eq!(generation.header, bench.header.with_packet_size(1400.min(size)).broadcast(Guid([1; 16]), 0));
        let (words, notes, packets) = bench.sent();
        assert_eq!(objects(&packets), objects(&bench.packets), "{sample}");
        assert!(words.starts_with(&["generation 0".into()]) && words.ends_with(&["lost".into()]), "{sample}: {words:?}");
        let key_frames = |packets: &[Vec<u8>]| objects(packets).iter().filter(|object| object.key && object.stream == 1).count();
        if bench.header.video().contains(1) {
            let joins = notes.iter().filter(|note| note.join_point).count();
            assert_eq!(joins, key_frames(&bench.packets), "{sample}: a viewer may begin with every key frame");
        }
    }
}

#[test]
fn a_rest_waits_for_the_next_packet_or_a_tick() {
    let bench = Bench::large();
    let mut publisher = bench.publish(0, "ann").unwrap();
    publisher.header(bench.base, 0, &bench.header).unwrap();
    publisher.packets(bench.at(10), bench.some(0..1)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..3 of 0"]);
    bench.relay.tick(bench.at(509));
    assert!(bench.seen().is_empty());
    bench.relay.tick(bench.at(510));
    bench.relay.tick(bench.at(1510));
    let (words, _, packets) = bench.sent();
    assert_eq!((words, packets.len()), (vec!["3..4 of 0".into()], 1));
    publisher.packets(bench.at(2000), bench.some(1..2)).unwrap();
    publisher.packets(bench.at(2100), bench.some(2..3)).unwrap();
    bench.relay.tick(bench.at(2510));
    assert_eq!(bench.seen(), ["4..6 of 0", "6..8 of 0"], "what came at 2100 is not old yet");
    publisher.alive(bench.at(2520)).unwrap();
    drop(publisher);
    let deliveries = bench.shards[0].take();
    let [Delivery::Batch { batch, .. }, Delivery::SourceLost { .. }] = &deliveries[..] else { panic!("{deliveries:?}") };
    assert_eq!((batch.numbers(), batch.due), (8..9, bench.at(2520)));
}

#[test]
fn a_rest_that_waited_takes_no_time_from_the_timeline() {
    let bench = Bench::large();
    let mut publisher = bench.begin(0);
    bench.relay.tick(bench.at(1000));
    let (_, notes, packets) = bench.sent();
    assert_eq!(packets.len(), 4);
    publisher.header(bench.at(1200), 0, &bench.header).unwrap();
    publisher.packets(bench.at(1200), bench.some(0..1)).unwrap();
    let (_, again, _) = bench.sent();
    assert_eq!(again[0].send_time_ms, notes[3].send_time_ms + 1200, "the rest came at 0, though it was sent at 1000");
}

#[test]
fn a_rest_is_sent_before_the_stream_ends() {
    let bench = Bench::with(|settings| settings.publishing_points[0].source_timeout = Some(Duration::from_millis(100)));
    let (header, packets) = samples::stream(LARGE);
    let mut publisher = bench.publish(0, "ann").unwrap();
    publisher.header(bench.base, 0, &header).unwrap();
    publisher.packets(bench.base, packets[0].as_slice().into()).unwrap();
    bench.relay.tick(bench.at(100));
    assert_eq!(bench.seen(), ["generation 0", "0..3 of 0", "3..4 of 0", "ended"]);
    bench.relay.tick(bench.at(1100));
    publisher.packets(bench.at(1100), packets[1].as_slice().into()).unwrap();
    assert_eq!(bench.seen(), ["generation 1", "4..6 of 1"]);
}

#[test]
fn a_source_cut_anew_comes_back_into_its_generation() {
    let bench = Bench::large();
    let count = bench.packets.len();
    let (mut start, mut parts) = (0, Vec::new());
    // Twice with a connection of its own, and once more on the last one.
    let mut publisher = None;
    for lap in 0..3_u64 {
        if lap < 2 {
            drop(publisher.take());
            start += 5000;
            publisher = Some(bench.publish(start, "ann").unwrap());
        }
        let publisher = publisher.as_mut().unwrap();
        publisher.header(bench.at(start), 0, &bench.header).unwrap();
        start = bench.play(publisher, start, 0..count);
        parts.push(bench.sent());
    }
    drop(publisher);
    parts.push(bench.sent());
    let words: Vec<_> = parts.iter().flat_map(|(words, ..)| words).filter(|word| !word.contains("..")).collect();
    assert_eq!(words, ["generation 0", "lost", "lost"]);
    let notes: Vec<_> = parts.iter().flat_map(|(_, notes, _)| notes).collect();
    assert!(notes.windows(2).all(|pair| pair[0].number + 1 == pair[1].number && pair[0].send_time_ms <= pair[1].send_time_ms));
    let packets: Vec<_> = parts.iter().flat_map(|(.., packets)| packets).collect();
    let (found, source) = (objects(packets), objects(&bench.packets));
    assert_eq!(found.len(), 3 * source.len());
    for (found, source) in found.iter().zip(source.iter().cycle()) {
        assert_eq!((found.stream, found.key, &found.data), (source.stream, source.key, &source.data));
    }
    for stream in [1, 2] {
        let numbers: Vec<u8> = found.iter().filter(|object| object.stream == stream).map(|object| object.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "object numbers of stream {stream} run on");
    }
    // Times too: what came in ten seconds, five seconds of pause, ten seconds, ten seconds.
    let passed = i64::try_from(start - 5000).unwrap();
    let covered = i64::from(notes.last().unwrap().send_time_ms) - i64::from(notes[0].send_time_ms);
    assert!((passed - covered).abs() < 400, "{covered} ms of send time in {passed} ms");
}

#[test]
fn a_source_of_another_packet_size_continues_what_was_cut_anew() {
    let bench = Bench::large();
    let mut publisher = bench.publish(0, "ann").unwrap();
    publisher.header(bench.base, 0, &bench.header).unwrap();
    publisher.packets(bench.base, bench.some(0..1)).unwrap();
    let cut = PublishError::NotWhole { len: 1400, packet_size: 3200 };
    assert_eq!(publisher.packets(bench.base, BytesMut::zeroed(1400)), Err(cut));
    // The encoder takes the advice.
    let (small, mut packets) = (bench.header.with_packet_size(1400), Vec::new());
    let mut recutter = Recutter::new(&bench.header, 1400);
    bench.packets.iter().for_each(|packet| recutter.push(packet, &mut packets).unwrap());
    for header in [&small, &bench.header] {
        assert_eq!(publisher.header_wait(bench.at(10), header).unwrap(), Duration::ZERO);
    }
    publisher.header(bench.at(10), 0, &small).unwrap();
    publisher.packets(bench.at(10), packets[..7 * 1400].into()).unwrap();
    let cut = PublishError::NotWhole { len: 3200, packet_size: 1400 };
    assert_eq!(publisher.packets(bench.at(10), BytesMut::zeroed(3200)), Err(cut));
    assert_eq!(bench.seen(), ["generation 0", "0..3 of 0", "3..4 of 0", "4..11 of 0"]);
    assert_eq!(publisher.header_wait(bench.at(10), &samples::stream("audio-wmav2.wma").0).unwrap(), Duration::from_millis(4990));
}

#[test]
fn invalid_packets_of_a_source_cut_anew_are_counted_as_they_came() {
    let bench = Bench::large();
    let mut publisher = bench.begin(0);
    let bad = |count: usize| vec![0xFF; 3200 * count];
    let mixed = [bench.packets[1].clone(), bad(1), bench.packets[2].clone(), bad(49)].concat();
    let accepted = publisher.packets(bench.base, mixed.as_slice().into()).unwrap();
    assert_eq!(accepted, Accepted { packets: 2, invalid: 50 });
    let error = publisher.packets(bench.base, bad(1).as_slice().into()).unwrap_err();
    assert!(matches!(error, PublishError::Invalid { count: 50, .. }), "{error}");
    drop(publisher);
    assert_eq!(objects(bench.sent().2), objects(&bench.packets[..3]), "nothing else is lost");
}

/// A packet of 3200 bytes whose replicated data is too long to be repeated in each piece.
fn uncut() -> Vec<u8> {
    use crate::asf::fabricate::{Form, Piece, Plan};
    let piece = Piece {
        stream: 1,
        key: true,
        object: 0,
        offset: 0,
        presentation_ms: 3000,
        object_size: None,
        form: Form::Replicated(vec![9; 20], 250),
    };
    let mut plan = Plan {
        correction: Some(2),
        multiple: true,
        packet_length: 0,
        sequence: 0,
        padding: 2,
        object: 1,
        offset: 3,
        replicated: 2,
        payload_length: 2,
        send_time_ms: 0,
        pieces: vec![piece],
        spare: 0,
    };
    plan.spare = 3200 - plan.build().len();
    plan.build()
}

#[test]
fn packets_that_are_left_out_are_counted_by_cause() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let bench = Bench::large();
        let mut publisher = bench.begin(0);
        assert!(walk(&uncut()).is_ok());
        let mixed = [bench.packets[1].clone(), uncut(), vec![0xFF; 3200], uncut()].concat();
        let accepted = publisher.packets(bench.base, mixed.as_slice().into()).unwrap();
        assert_eq!(accepted, Accepted { packets: 1, invalid: 3 });
        // What cannot happen, as far as is known.
        let mut feed = publisher.lock(bench.base).unwrap();
        let Feed { timeline, drops, .. } = &mut *feed;
        let mut outbox = Outbox::new(publisher.point(), bench.base, 0);
        outbox.place_all(timeline, drops, bench.base, vec![0xFF; 2800], 1400);
    });
    let page = recorder.handle().render();
    for (cause, count) in [("uncut", 2), ("invalid", 1), ("unsound", 2)] {
        let line = format!("wmrelay_dropped_packets_total{{point=\"cam\",cause=\"{cause}\"}} {count}");
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}

#[test]
fn sources_are_left_alone_where_the_settings_say_so() {
    for oversize in [crate::settings::Oversize::Fragment, crate::settings::Oversize::Refuse] {
        let bench = Bench::of(LARGE, |settings| settings.udp.oversize = oversize);
        drop(bench.begin(0));
        assert_eq!(bench.sent().2, bench.packets[..1]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_split_of_the_source_gives_the_same_packets(
        splits in prop::collection::vec((1_usize..20, 0_u64..900, any::<bool>()), 94),
        ticks in any::<bool>(),
    ) {
        let bench = Bench::large();
        let mut whole = Vec::new();
        let mut recutter = Recutter::new(&bench.header, 1400);
        bench.packets.iter().for_each(|packet| recutter.push(packet, &mut whole).unwrap());
        recutter.flush(&mut whole);
        let mut publisher = bench.publish(0, "ann").unwrap();
        publisher.header(bench.base, 0, &bench.header).unwrap();
        let (mut at, mut ms) = (0, 0);
        for (count, pause, tick) in splits {
            let end = bench.packets.len().min(at + count);
            publisher.packets(bench.at(ms), bench.some(at..end)).unwrap();
            (at, ms) = (end, ms + pause);
            if ticks && tick {
                bench.relay.tick(bench.at(ms));
            }
        }
        drop(publisher);
        let (.., packets) = bench.sent();
        if ticks {
            // Other borders between packets, nothing else.
            prop_assert_eq!(objects(&packets), objects(&bench.packets));
        } else {
            prop_assert!(packets.concat() == whole);
        }
    }
}

mod stand_in;

#[test]
fn faults_are_counted_and_ends_that_were_wanted_are_not() {
    let bench = Bench::new();
    let cam = bench.relay.point("cam").unwrap();
    let health = |ms: u64| {
        let health = cam.source_health();
        (health.restarts, health.last_fault.map(|fault| (fault.reason, fault.at == bench.at(ms), fault.in_a_row)))
    };
    // Nobody watches, over and over.
    for round in 0..3 {
        bench.begin(round * 1000).end(bench.at(round * 1000));
    }
    assert_eq!(health(0), (0, None));
    cam.source_failed(bench.at(4000), "no connection");
    cam.source_failed(bench.at(5000), "no connection");
    assert_eq!(health(5000), (2, Some(("no connection".into(), true, 2))));
    let source = bench.begin(6000);
    assert_eq!(health(5000), (2, Some(("no connection".into(), true, 0))), "the reason is kept");
    // An operator's wish, and other settings.
    assert!(cam.disconnect_source());
    drop(source);
    cam.source_failed(bench.at(7000), "dismissed");
    let source = bench.begin(8000);
    cam.lock_feed().expel(&cam);
    drop(source);
    cam.source_failed(bench.at(9000), "dismissed");
    assert_eq!(health(5000).0, 2);
    cam.source_failed(bench.at(10_000), "it hung");
    assert_eq!(health(10_000), (3, Some(("it hung".into(), true, 1))));
    // What a name brought is no fault of a source.
    cam.name_failed(bench.at(11_000), "cam-7: no such camera");
    assert_eq!(health(11_000), (3, Some(("cam-7: no such camera".into(), true, 0))));
}
