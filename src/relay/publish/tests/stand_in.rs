//! What stands in for a source, and how the source gets its place back.

use super::*;
use crate::settings::{FOREVER, Fallback, FallbackKind};

/// Streams that no player takes for that of [`Bench::new`].
const OTHER: &str = "mbr-2video-1audio.asf";

impl Bench {
    /// Something stands in for `cam` after five seconds.
    fn with_fallback() -> Self {
        Self::of("live-asf-pipe.asf", fallback)
    }

    fn cam(&self) -> Arc<Point> {
        self.relay.point("cam").unwrap()
    }

    #[track_caller]
    fn stand_in(&self, ms: u64, header: &Header) -> Publisher {
        let mut publisher = self.cam().stand_in(self.at(ms)).unwrap_or_else(|wait| panic!("{wait:?} too early"));
        publisher.header(self.at(ms), 0, header).unwrap();
        publisher
    }

    /// Sends one packet of another stream.
    fn send(&self, publisher: &mut Publisher, ms: u64, packet: &[u8]) -> Result<Accepted, PublishError> {
        publisher.packets(self.at(ms), packet.into())
    }

    /// The packets in which key frames of the pictures begin.
    fn keys(&self) -> Vec<usize> {
        (0..self.packets.len()).filter(|index| walk(&self.packets[*index]).unwrap().key_starts.contains(1)).collect()
    }
}

fn fallback(settings: &mut Settings) {
    let (kind, after) = (FallbackKind::Slate("gone".into()), Duration::from_secs(5));
    settings.publishing_points[0].fallback = Some(Fallback { kind, after });
}

fn wait(point: &Arc<Point>, now: Instant) -> Duration {
    point.stand_in(now).map(drop).unwrap_err()
}

#[test]
fn its_turn_comes_when_the_source_has_been_silent_for_so_long() {
    let bench = Bench::with_fallback();
    let cam = bench.cam();
    assert!(cam.source_expected(), "a join may wait");
    assert_eq!(wait(&cam, bench.at(0)), Duration::from_secs(5), "nobody has come yet");
    assert_eq!(wait(&cam, bench.at(4000)), Duration::from_secs(1));
    let mut source = bench.begin(4500);
    // Signs of life are no packets.
    source.alive(bench.at(8000)).unwrap();
    assert_eq!(wait(&cam, bench.at(9499)), Duration::from_millis(1));
    source.packets(bench.at(9499), bench.some(1..2)).unwrap();
    assert_eq!(wait(&cam, bench.at(9500)), Duration::from_millis(4999));
    drop(source);
    assert_eq!(wait(&cam, bench.at(14_498)), Duration::from_millis(1));
    bench.stand_in(14_499, &bench.header);
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..2 of 0", "lost"]);
    // Whoever starts a source only now gives it its time.
    let bench = Bench::with_fallback();
    drop(bench.begin(0));
    bench.cam().expect_source(bench.at(60_000));
    assert_eq!(wait(&bench.cam(), bench.at(61_000)), Duration::from_secs(4));
    // And where the settings do not speak of it, nothing stands in.
    let bench = Bench::new();
    drop(bench.begin(0));
    assert_eq!(wait(&bench.cam(), bench.at(3_600_000)), FOREVER);
}

#[test]
fn a_source_that_never_came_is_stood_in_for() {
    let bench = Bench::with_fallback();
    wait(&bench.cam(), bench.at(0));
    let mut slate = bench.stand_in(5000, &bench.header);
    slate.packets(bench.at(5000), bench.some(0..2)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..2 of 0"]);
    assert!(bench.cam().generation().is_some() && bench.cam().source_header().is_none());
}

#[test]
fn an_equal_header_joins_the_timelines_both_ways() {
    let bench = Bench::with_fallback();
    let keys = bench.keys();
    let mut source = bench.publish(0, "ann").unwrap();
    source.header(bench.at(0), 0, &bench.header).unwrap();
    source.packets(bench.at(0), bench.some(0..10)).unwrap();
    drop(source);
    let mut slate = bench.stand_in(5000, &bench.header);
    slate.packets(bench.at(5000), bench.some(0..3)).unwrap();
    let (words, before, packets) = bench.sent();
    assert_eq!(words, ["generation 0", "0..10 of 0", "lost", "10..13 of 0"]);
    assert_eq!(before[10].send_time_ms, before[9].send_time_ms + 5000, "as much later as passed");
    assert!(before[10].join_point);

    // It is back in the middle of a group of pictures: the slate goes on.
    let key = keys[2];
    let mut source = bench.publish(6000, "ann").unwrap();
    source.header(bench.at(6000), 0, &bench.header).unwrap();
    for (at, index) in (6000..).step_by(100).zip(key - 4..key) {
        let accepted = source.packets(bench.at(at), bench.some(index..index + 1)).unwrap();
        assert_eq!(accepted, Accepted { packets: 1, invalid: 0 });
        slate.packets(bench.at(at), bench.some(3..4)).unwrap();
    }
    // Its key frame, in the midst of other packets.
    source.packets(bench.at(6500), bench.some(key - 2..key + 3)).unwrap();
    assert_eq!(slate.packets(bench.at(6501), bench.some(4..5)), Err(PublishError::Yielded));
    assert_eq!(slate.alive(bench.at(6501)), Err(PublishError::Yielded));
    drop(slate);
    source.packets(bench.at(6600), bench.some(key + 3..key + 4)).unwrap();
    let (words, after, more) = bench.sent();
    assert_eq!(words, ["13..14 of 0", "14..15 of 0", "15..16 of 0", "16..17 of 0", "17..20 of 0", "20..21 of 0"]);
    assert!(after[4].join_point && after[4].send_time_ms > after[3].send_time_ms);
    let whole = [packets, more].concat();
    for stream in [1, 2] {
        let payloads = whole.iter().flat_map(|packet| payloads(packet).unwrap());
        let mut numbers: Vec<u32> = payloads.filter(|payload| payload.stream == stream).map(|payload| payload.object).collect();
        numbers.dedup();
        assert!(numbers.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0xFF), "object numbers of stream {stream} run on");
    }
    assert_eq!(wait(&bench.cam(), bench.at(6700)), Duration::from_millis(4900));
}

#[test]
fn an_unequal_header_opens_a_generation_each_way_and_five_seconds_apart() {
    let bench = Bench::with_fallback();
    let (other, others) = samples::stream(OTHER);
    let keys = bench.keys();
    drop(bench.begin(0));
    let mut slate = bench.stand_in(5000, &other);
    bench.send(&mut slate, 5000, &others[0]).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost", "generation 1", "1..2 of 1"]);

    // It is back a second later: the header of the slate is too young to be followed by another.
    let mut source = bench.publish(6000, "ann").unwrap();
    assert_eq!(source.header_wait(bench.at(6000), &bench.header).unwrap(), Duration::ZERO, "it is not held, its packets are");
    source.header(bench.at(6000), 0, &bench.header).unwrap();
    let (first, second) = (keys[1], keys[2]);
    source.packets(bench.at(6000), bench.some(first..second + 2)).unwrap();
    source.packets(bench.at(9999), bench.some(second + 2..second + 3)).unwrap();
    bench.send(&mut slate, 9999, &others[1]).unwrap();
    assert_eq!(bench.seen(), ["2..3 of 1"]);
    // Then it goes on from its newest key frame, without waiting for another one.
    source.packets(bench.at(10_000), bench.some(second + 3..second + 4)).unwrap();
    assert_eq!(bench.send(&mut slate, 10_001, &others[2]), Err(PublishError::Yielded));
    let (words, notes, packets) = bench.sent();
    assert_eq!(words, ["generation 2", "3..7 of 2"]);
    assert!(notes[0].join_point);
    assert_eq!(packets, bench.packets[second..second + 4], "on its own clock");

    // And when it goes at once, what stands in waits for its turn.
    drop(source);
    let early = bench.cam().stand_in(bench.at(15_000)).unwrap();
    assert_eq!(early.header_wait(bench.at(14_000), &other).unwrap(), Duration::from_secs(1));
}

#[test]
fn a_source_that_comes_back_while_the_stand_in_gets_ready_keeps_its_place() {
    let bench = Bench::with_fallback();
    drop(bench.begin(0));
    let mut slate = bench.cam().stand_in(bench.at(5000)).unwrap();
    let source = bench.begin(5100);
    assert_eq!(slate.header(bench.at(5200), 0, &bench.header), Err(PublishError::Yielded));
    drop(slate);
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost", "1..2 of 0"]);
    drop(source);
}

#[test]
fn a_silent_source_gets_its_place_back_by_its_next_key_frame() {
    let bench = Bench::with_fallback();
    let keys = bench.keys();
    let mut source = bench.begin(0);
    let mut slate = bench.stand_in(5000, &bench.header);
    slate.packets(bench.at(5000), bench.some(0..1)).unwrap();
    source.packets(bench.at(5100), bench.some(1..3)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "1..2 of 0"]);
    source.packets(bench.at(5200), bench.some(keys[1]..keys[1] + 1)).unwrap();
    assert_eq!(bench.seen(), ["2..3 of 0"]);
    assert!(slate.packets(bench.at(5200), bench.some(1..2)).is_err());
}

#[test]
fn a_source_without_key_frames_gets_its_place_back_in_half_a_minute() {
    let bench = Bench::with_fallback();
    drop(bench.begin(0));
    let _slate = bench.stand_in(5000, &bench.header);
    bench.seen();
    let mut source = bench.publish(6000, "ann").unwrap();
    source.header(bench.at(6000), 0, &bench.header).unwrap();
    // One picture that is no key frame, over and over.
    let packet = bench.packets.iter().find(|packet| {
        let info = walk(packet).unwrap();
        info.streams.contains(1) && !info.key
    });
    let (packet, mut back) = (packet.unwrap(), None);
    let own = walk(packet).unwrap().send_time_ms;
    for ms in (6000..60_000).step_by(500) {
        let mut packet = packet.clone();
        let by = u32::try_from(ms).unwrap().wrapping_sub(own);
        crate::asf::shift(&mut packet, &crate::asf::Shift::times(by)).unwrap();
        source.packets(bench.at(ms), packet.as_slice().into()).unwrap();
        if back.is_none() && !bench.seen().is_empty() {
            back = Some(ms);
        }
    }
    assert_eq!(back, Some(36_000));
}

#[test]
fn a_stand_in_without_end_keeps_the_stream_and_its_own_end_ends_it() {
    let bench = Bench::with_fallback();
    drop(bench.begin(0));
    bench.relay.tick(bench.at(1000));
    let mut slate = bench.stand_in(5000, &bench.header);
    for second in 5..300 {
        slate.packets(bench.at(second * 1000), bench.some(0..1)).unwrap();
        bench.relay.tick(bench.at(second * 1000 + 500));
    }
    assert!(!bench.seen().contains(&"ended".to_owned()));
    // It breaks: viewers wait for the time-out from there.
    drop(slate);
    bench.relay.tick(bench.at(328_900));
    assert!(bench.seen().is_empty());
    bench.relay.tick(bench.at(329_000));
    assert_eq!(bench.seen(), ["ended"]);
    // What comes next begins anew, whoever it is.
    let source = bench.begin(330_000);
    assert_eq!(bench.seen(), ["generation 1", "296..297 of 1"]);
    drop(source);
}

#[test]
fn a_source_that_flaps_makes_no_more_than_a_header_in_five_seconds() {
    let bench = Bench::with_fallback();
    let (other, others) = samples::stream(OTHER);
    let (mut slate, mut opened): (Option<Publisher>, Vec<u64>) = (None, Vec::new());
    wait(&bench.cam(), bench.at(0));
    let mut source = None;
    for ms in (0..120_000).step_by(100) {
        // There for half a second, then away for six and a half.
        match ms % 7000 {
            0 => {
                let mut publisher = bench.publish(ms, "ann").unwrap();
                if publisher.header_wait(bench.at(ms), &bench.header).unwrap().is_zero() {
                    publisher.header(bench.at(ms), 0, &bench.header).unwrap();
                    source = Some(publisher);
                }
            }
            100..500 => {
                if let Some(source) = &mut source {
                    source.packets(bench.at(ms), bench.some(0..1)).unwrap();
                }
            }
            500 => source = None,
            _ => {}
        }
        match &mut slate {
            Some(publisher) => {
                if bench.send(publisher, ms, &others[0]).is_err() {
                    slate = None;
                }
            }
            None => {
                if let Ok(mut publisher) = bench.cam().stand_in(bench.at(ms))
                    && publisher.header_wait(bench.at(ms), &other).unwrap().is_zero()
                {
                    publisher.header(bench.at(ms), 0, &other).unwrap();
                    slate = Some(publisher);
                }
            }
        }
        let generations = bench.seen().iter().filter(|word| word.starts_with("generation")).count();
        opened.extend(std::iter::repeat_n(ms, generations));
    }
    assert!(opened.len() > 10, "{opened:?}");
    assert!(opened.windows(2).all(|pair| pair[1] - pair[0] >= 5000), "{opened:?}");
}

#[test]
fn when_nobody_watches_both_end_and_the_next_stream_is_the_sources() {
    let bench = Bench::with_fallback();
    let watch = bench.cam().watch();
    // With a viewer, the end of the source is for the stand-in.
    bench.begin(0).end(bench.at(100));
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0", "lost"]);
    let slate = bench.stand_in(5000, &bench.header);
    drop(watch);
    slate.end(bench.at(6000));
    assert_eq!(bench.seen(), ["ended"]);
    let source = bench.begin(7000);
    assert_eq!(bench.seen(), ["generation 1", "1..2 of 1"], "no key frame is waited for");
    source.end(bench.at(8000));
    assert_eq!(bench.seen(), ["ended", "lost"]);
    // The other way round: the stand-in goes first, while the source is on its way.
    let slate = bench.stand_in(20_000, &bench.header);
    let mut source = bench.publish(20_100, "ann").unwrap();
    source.header(bench.at(20_100), 0, &bench.header).unwrap();
    slate.end(bench.at(20_200));
    assert_eq!(bench.seen(), ["generation 2"]);
    source.end(bench.at(20_300));
    assert_eq!(bench.seen(), ["ended", "lost"]);
}

#[test]
fn a_later_stand_in_supersedes_the_earlier_one() {
    let bench = Bench::with_fallback();
    wait(&bench.cam(), bench.at(0));
    let mut old = bench.stand_in(5000, &bench.header);
    let mut new = bench.stand_in(5000, &bench.header);
    assert_eq!(old.packets(bench.at(5000), bench.some(0..1)), Err(PublishError::Yielded));
    drop(old);
    new.packets(bench.at(5000), bench.some(0..1)).unwrap();
    assert_eq!(bench.seen(), ["generation 0", "0..1 of 0"]);
}

#[test]
fn packets_that_do_not_fit_a_datagram_are_cut_on_both_sides() {
    let bench = Bench::of(LARGE, fallback);
    let small = bench.header.with_packet_size(1400);
    let mut cut = Vec::new();
    let mut recutter = Recutter::new(&bench.header, 1400);
    bench.packets.iter().for_each(|packet| recutter.push(packet, &mut cut).unwrap());
    let source = bench.begin(0);
    assert_eq!(bench.cam().source_header().unwrap().packet_size(), 1400, "as viewers get it");
    drop(source);
    let mut slate = bench.stand_in(5000, &small);
    bench.send(&mut slate, 5000, &cut[..1400 * 5]).unwrap();
    let mut source = bench.publish(6000, "ann").unwrap();
    source.header(bench.at(6000), 0, &bench.header).unwrap();
    source.packets(bench.at(6000), bench.some(0..4)).unwrap();
    drop(source);
    let (words, _, packets) = bench.sent();
    assert_eq!(words.iter().filter(|word| word.starts_with("generation")).count(), 1, "{words:?}");
    let mut again = objects(cut[..1400 * 5].chunks(1400).map(<[u8]>::to_vec).collect::<Vec<_>>());
    again.extend(objects(&bench.packets[..4]));
    let found = objects(packets).into_iter().rev().take(4).collect::<Vec<_>>();
    for (found, expected) in found.iter().zip(again.iter().rev()) {
        assert_eq!(found.data, expected.data);
    }
}

#[test]
fn what_is_held_of_a_source_is_bounded() {
    let bench = Bench::with_fallback();
    let (other, _) = samples::stream(OTHER);
    drop(bench.begin(0));
    let _slate = bench.stand_in(5000, &other);
    bench.seen();
    let keys = bench.keys();
    let mut source = bench.publish(5001, "ann").unwrap();
    source.header(bench.at(5001), 0, &bench.header).unwrap();
    source.packets(bench.at(5001), bench.some(keys[1]..keys[1] + 1)).unwrap();
    let flood = bench.packets[keys[1] + 1].repeat(8_400_000 / 1400 / 10);
    for ms in 5002..5012 {
        source.packets(bench.at(ms), flood.as_slice().into()).unwrap();
    }
    source.packets(bench.at(10_000), bench.some(keys[1] + 1..keys[1] + 2)).unwrap();
    assert!(bench.seen().is_empty(), "the next key frame is waited for");
    source.packets(bench.at(10_040), bench.some(keys[2]..keys[2] + 1)).unwrap();
    assert_eq!(bench.seen(), ["generation 2", "1..2 of 2"]);
}

#[test]
fn a_header_a_second_of_a_source_that_is_stood_in_for_reaches_nobody() {
    let bench = Bench::with_fallback();
    let (other, _) = samples::stream(OTHER);
    drop(bench.begin(0));
    let mut slate = bench.stand_in(5000, &bench.header);
    let mut source = bench.publish(5000, "ann").unwrap();
    for second in 5..60 {
        let header = if second % 2 == 0 { &bench.header } else { &other };
        source.header(bench.at(second * 1000), 0, header).unwrap();
        slate.packets(bench.at(second * 1000), bench.some(0..1)).unwrap();
    }
    let words = bench.seen();
    assert_eq!(words.iter().filter(|word| word.starts_with("generation")).count(), 1, "{words:?}");
}

#[test]
fn the_metrics_tell_of_it() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = || recorder.handle().render();
    let tells = |line: &str| page().lines().any(|found| found == line);
    metrics::with_local_recorder(&recorder, || {
        let bench = Bench::with_fallback();
        assert!(tells("wmrelay_source_fallback{point=\"cam\"} 0"), "{}", page());
        drop(bench.begin(0));
        for round in 0..2 {
            let mut slate = bench.stand_in(5000 + round * 10_000, &bench.header);
            slate.packets(bench.at(5000 + round * 10_000), bench.some(0..2)).unwrap();
            assert!(tells("wmrelay_source_fallback{point=\"cam\"} 1"), "{}", page());
            assert!(tells("wmrelay_source_up{point=\"cam\"} 0"), "{}", page());
            drop(bench.begin(6000 + round * 10_000));
            bench.cam().source_failed(bench.at(6000 + round * 10_000), "it ended");
            assert!(tells("wmrelay_source_fallback{point=\"cam\"} 0"), "{}", page());
        }
    });
    for line in [
        "wmrelay_source_fallbacks_total{point=\"cam\"} 2",
        "wmrelay_source_restarts_total{point=\"cam\"} 2",
        "wmrelay_source_packets_total{point=\"cam\"} 3",
    ] {
        assert!(tells(line), "{line}\n{}", page());
    }
}

#[test]
fn who_follows_hears_what_the_shards_hear() {
    let bench = Bench::new();
    let source = bench.begin(0);
    let mailbox = Arc::new(Mailbox::default());
    let port: Arc<dyn ShardPort> = mailbox.clone();
    bench.cam().follow(&port);
    bench.seen();
    drop(source);
    drop(bench.begin(10));
    let told: Vec<_> = mailbox.take().iter().map(word).collect();
    assert_eq!(told[0], "generation 0", "the present one first");
    assert_eq!(told[1..], bench.seen());
    drop((port, mailbox));
    drop(bench.begin(20));
}

#[test]
fn since_when_it_stands_in_is_known() {
    let bench = Bench::with_fallback();
    drop(bench.begin(0));
    let since = || bench.cam().source_health().on_fallback_since;
    assert_eq!(since(), None);
    let mut slate = bench.stand_in(6000, &bench.header);
    slate.header(bench.at(8000), 0, &bench.header).unwrap();
    assert_eq!(since(), Some(bench.at(6000)), "another lap of it is no other one");
    bench.begin(9000);
    assert_eq!(since(), None);
}
