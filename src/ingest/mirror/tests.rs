use super::*;
use crate::ingest::pull::tests::{CAN_SEEK, LIMIT, Server, Viewer, short, wait_until};
use crate::ingest::{stop, testing};
use crate::mms::block::ReadBlock;
use crate::mms::end::{CloseFile, ReportEndOfStream, StopPlaying};
use crate::mms::open::BROADCAST;
use crate::mms::redirect::{RedirectKind, ReportRedirect};
use crate::mms::select::{ReportStreamSwitch, StreamEntry, StreamSwitch};
use crate::playing::{Course, StartAt};
use crate::relay::{Delivery, LOANS_PER_FOLDER, Watch};
use crate::settings::{PublishingPoint, Settings};
use crate::shard::{Item, RelayedFile};
use std::net::IpAddr;
use tokio::sync::oneshot;

struct Bench {
    mirror: Arc<Mirror>,
    relay: Arc<Relay>,
    collector: Arc<testing::Collector>,
    stopper: stop::Stopper,
    /// Keeps the tasks' stops possible.
    stop: stop::Stop,
}

impl Bench {
    fn new(url: &str) -> Self {
        let source = Source::Pull { url: url.to_owned(), start: Start::Always, linger: Duration::from_millis(50) };
        let (relay, collector) = testing::collecting(&[("mirror", source)]);
        let (stopper, stop) = stop::channel();
        let transcoders = Transcoders::new(Handle::current(), Arc::clone(&relay), &Settings::default(), stop.downgrade());
        let mirror = Mirror::new(Handle::current(), Arc::clone(&relay), transcoders, stop.downgrade());
        Self { mirror, relay, collector, stopper, stop }
    }

    fn of(server: &Server) -> Self {
        Self::new(&format!("mmst://{}/shows/", server.address))
    }

    fn wish_of(&self, viewer: &str, below: &str) -> oneshot::Receiver<Found> {
        let (answer, found) = oneshot::channel();
        let answer = Box::new(move |found| {
            let _ = answer.send(found);
        });
        let viewer: IpAddr = viewer.parse().unwrap();
        self.mirror.take(Wish {
            folder: self.relay.point("mirror").unwrap(),
            below: below.into(),
            profile: None,
            viewer,
            wake: Box::new(|| ()),
            answer,
        });
        found
    }

    fn wish(&self, below: &str) -> oneshot::Receiver<Found> {
        self.wish_of("192.0.2.1", below)
    }

    async fn refused(&self, below: &str) -> Refused {
        match found(self.wish(below)).await {
            Found::Refused(refused) => refused,
            found => panic!("{found:?}"),
        }
    }

    async fn stop(self) {
        drop(self.stop);
        timeout(LIMIT, self.stopper.stop()).await.expect("some task does not end");
    }
}

async fn found(answer: oneshot::Receiver<Found>) -> Found {
    timeout(LIMIT, answer).await.expect("no answer").unwrap()
}

async fn live(answer: oneshot::Receiver<Found>) -> Watch {
    match found(answer).await {
        Found::Live(watch) => watch,
        found => panic!("{found:?}"),
    }
}

/// The question what a name is, answered.
async fn answer(server: &Server, wanted: &str, hr: Hresult, attributes: u32) {
    let (mut asks, name) = server.asked().await;
    assert_eq!(name, wanted);
    asks.report(hr, attributes).await;
    if !hr.is_failure() {
        leaves(&mut asks).await;
    }
}

/// Whoever only asks says goodbye at once: behind the request for the header.
async fn leaves(asks: &mut Viewer) {
    asks.expect::<ReadBlock>().await;
    asks.expect::<CloseFile>().await;
}

async fn nobody_connects(server: &Server) {
    let connects = timeout(Duration::from_millis(50), server.listener.accept()).await;
    assert!(connects.is_err(), "nobody is to ask");
}

#[tokio::test]
async fn a_live_name_is_asked_for_once_and_pulled_once() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    for lap in 1..=2 {
        let (one, two) = (bench.wish("K\u{f6}ln/a b?#1"), bench.wish_of("192.0.2.2", "K\u{f6}ln/a b?#1"));
        answer(&server, "shows/K\u{f6}ln/a b?#1", Hresult::OK, BROADCAST).await;
        let (one, two) = (live(one).await, live(two).await);
        let (mut pull, name) = server.asked().await;
        assert_eq!(name, "shows/K\u{f6}ln/a b?#1");
        pull.play(BROADCAST).await;
        pull.packets(&short()).await;
        wait_until(|| bench.collector.packets().len() >= 20).await;
        // Whoever comes later gets it without a question.
        let three = live(bench.wish("K\u{f6}ln/a b?#1")).await;
        assert!(Arc::ptr_eq(one.point(), two.point()) && Arc::ptr_eq(one.point(), three.point()), "lap {lap}");
        assert_eq!(three.point().watchers(), 3);
        drop((one, two));
        pull.packets(&short()).await;
        drop(three);
        pull.expect::<StopPlaying>().await;
        pull.say(&ReportEndOfStream { hr: Hresult::OK, incarnation: 10 }).await;
        let vacated = |(_, delivery): &(_, Delivery)| matches!(delivery, Delivery::Vacated { .. });
        wait_until(|| bench.collector.deliveries.lock().unwrap().iter().any(vacated)).await;
        assert_eq!(bench.collector.generations(), 1, "each loan begins anew");
        bench.collector.deliveries.lock().unwrap().clear();
    }
    bench.stop().await;
}

#[tokio::test]
async fn refusals_are_remembered_for_a_while() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let (one, two) = (bench.wish("a"), bench.wish("a"));
    answer(&server, "shows/a", Hresult::ACCESS_DENIED, 0).await;
    for answer in [one, two] {
        let found = found(answer).await;
        assert!(matches!(&found, Found::Refused(Refused { hr: Hresult::ACCESS_DENIED, .. })), "{found:?}");
    }
    assert_eq!(bench.refused("a").await.cause, "upstream_refused");
    nobody_connects(&server).await;
    // Forgotten, it is asked for again.
    bench.mirror.lock().known.values_mut().for_each(|(since, _)| *since -= MEMORY);
    let again = bench.wish("a");
    answer(&server, "shows/a", Hresult::OK, BROADCAST).await;
    drop(live(again).await);
    bench.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_across_a_reload_is_asked_for_once_more() {
    let (server, other) = (Server::bind().await, Server::bind().await);
    let bench = Bench::of(&server);
    let wish = bench.wish("a");
    let (mut before, _) = server.asked().await;
    let url = format!("mmst://{}/others/", other.address);
    let source = Source::Pull { url, start: Start::Always, linger: Duration::from_millis(50) };
    let settings = Settings { publishing_points: vec![PublishingPoint::new("mirror", source)], ..Settings::default() };
    bench.relay.apply(&Arc::new(settings));
    bench.mirror.forget();
    before.report(Hresult::ACCESS_DENIED, 0).await;
    answer(&other, "others/a", Hresult::OK, BROADCAST).await;
    let watch = live(wish).await;
    assert_eq!(other.asked().await.1, "others/a", "it is pulled from there");
    assert!(bench.mirror.lock().known.is_empty());
    // What a source of before brings, or does not, is no news either.
    bench.mirror.lock().remember(0, Key { folder: PointId(0), name: "b".into(), profile: None }, NotLive::File);
    assert!(bench.mirror.lock().known.is_empty());
    drop(watch);
    bench.stop().await;
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let key = |n: usize| Key { folder: PointId(0), name: n.to_string(), profile: None };
    let mut desk = Desk::default();
    for n in 0..MOST_REMEMBERED + 10 {
        desk.remember(0, key(n), NotLive::File);
    }
    assert_eq!(desk.known.len(), MOST_REMEMBERED);
    assert!(desk.known.contains_key(&key(MOST_REMEMBERED + 9)));
}

#[tokio::test]
async fn names_that_cannot_be_are_not_asked_for() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    for name in ["", "/a", "a/", "a//b", "./a", "a/../b", ".."] {
        let refused = bench.refused(name).await;
        assert_eq!((refused.hr, refused.cause), (Hresult::FILE_NOT_FOUND, "unknown_name"), "{name}");
    }
    nobody_connects(&server).await;
    let nowhere = Bench::new("mmst://127.0.0.1:9/");
    assert_eq!(nowhere.refused("a").await.cause, "upstream_failed");
    bench.stop().await;
    nowhere.stop().await;
}

#[tokio::test]
async fn one_address_has_eight_questions_at_once() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let waiting: Vec<_> = (0..FLIGHTS_PER_ADDRESS).map(|n| bench.wish(&format!("name{n}"))).collect();
    assert_eq!(bench.refused("one more").await.hr, Hresult::TOO_MANY_SESSIONS);
    // The same name is no question more, and another address has its own.
    let (same, other) = (bench.wish("name0"), bench.wish_of("192.0.2.2", "other"));
    for _ in 0..=FLIGHTS_PER_ADDRESS {
        let (mut asks, _) = server.asked().await;
        asks.report(Hresult::FILE_NOT_FOUND, 0).await;
    }
    for answer in waiting.into_iter().chain([same, other]) {
        let found = found(answer).await;
        assert!(matches!(&found, Found::Refused(Refused { hr: Hresult::FILE_NOT_FOUND, .. })), "{found:?}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn redirects_are_followed() {
    let (server, other) = (Server::bind().await, Server::bind().await);
    let bench = Bench::of(&server);
    let wish = bench.wish("a");
    let location = format!("mmst://{}/elsewhere", other.address);
    let (mut sent_on, name) = server.asked().await;
    assert_eq!(name, "shows/a");
    sent_on.say(&ReportRedirect { kind: RedirectKind::Url, location: location.clone() }).await;
    answer(&other, "elsewhere", Hresult::OK, BROADCAST).await;
    drop(live(wish).await);
    bench.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_what_is_refused_when_it_is_pulled() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let wish = bench.wish("a");
    answer(&server, "shows/a", Hresult::OK, BROADCAST).await;
    let watch = live(wish).await;
    let (mut pull, _) = server.asked().await;
    pull.report(Hresult::FILE_NOT_FOUND, 0).await;
    let ended = |(_, delivery): &(_, Delivery)| matches!(delivery, Delivery::Ended { point } if *point == watch.point().id());
    wait_until(|| bench.collector.deliveries.lock().unwrap().iter().any(ended)).await;
    // Its viewers leave before it is tried again: the publishing point goes back all the same.
    drop(watch);
    wait_until(|| bench.relay.lent(PointId(0), "a", None).is_none()).await;
    bench.stop().await;
}

/// The viewer of a file wants it from here on.
fn plays(file: &RelayedFile, play: u32, from: StartAt) {
    file.course.send_replace(Course { play, from: Some(from), streams: None });
}

/// What comes next of a play.
async fn next(file: &RelayedFile, play: u32) -> Item {
    let mut item = None;
    wait_until(|| {
        item = file.inflow.pop(play);
        item.is_some()
    })
    .await;
    item.unwrap()
}

async fn expect_packets(file: &RelayedFile, play: u32, locations: std::ops::Range<u32>) {
    let packets = short();
    for expected in locations {
        let item = next(file, play).await;
        let Item::Packet { location, bytes } = item else { panic!("{item:?} in place of packet {expected}") };
        assert_eq!((location, &bytes[..]), (expected, &packets[expected as usize][..]));
    }
}

#[tokio::test]
async fn a_file_is_relayed_for_each_viewer() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let wish = bench.wish("b.wmv");
    answer(&server, "shows/b.wmv", Hresult::OK, CAN_SEEK).await;
    let (mut upstream, name) = server.asked().await;
    assert_eq!(name, "shows/b.wmv");
    let opens = async {
        let Found::File(file) = found(wish).await else { panic!("it is a file") };
        plays(&file, 1, StartAt::Beginning);
        file
    };
    let ((), file) = tokio::join!(upstream.play(CAN_SEEK), opens);
    let packets = short();
    upstream.packets(&packets[..5]).await;
    expect_packets(&file, 1, 0..5).await;
    // A connection that breaks is made anew where it was; the server begins with the key frame before that.
    drop(upstream);
    let (mut upstream, _) = server.asked().await;
    assert_eq!(upstream.start(CAN_SEEK).await.location, 5);
    upstream.sequence = 3;
    upstream.packets(&packets[3..8]).await;
    expect_packets(&file, 1, 5..8).await;
    upstream.end().await;
    assert_eq!(next(&file, 1).await, Item::End);
    nobody_connects(&server).await;
    // Elsewhere, with a connection that breaks twice without a packet.
    plays(&file, 2, StartAt::Packet(7));
    for _ in 0..2 {
        let (mut upstream, _) = server.asked().await;
        assert_eq!(upstream.start(CAN_SEEK).await.location, 7);
    }
    let lost = next(&file, 2).await;
    assert!(matches!(lost, Item::Lost(_)), "{lost:?}");
    nobody_connects(&server).await;
    // Once more; a seek while it plays, and a rest.
    plays(&file, 3, StartAt::Packet(9));
    let (mut upstream, _) = server.asked().await;
    assert_eq!(upstream.start(CAN_SEEK).await.location, 9);
    plays(&file, 4, StartAt::Packet(12));
    assert_eq!(upstream.expect::<StopPlaying>().await.incarnation, 10);
    file.course.send_modify(|course| course.from = None);
    upstream.say(&ReportEndOfStream { hr: Hresult::OK, incarnation: 10 }).await;
    // It is gone: goodbye. Another viewer needs no question.
    drop(file);
    let second = bench.wish("b.wmv");
    let (mut other, _) = server.asked().await;
    other.report(Hresult::ACCESS_DENIED, 0).await;
    let refused = found(second).await;
    assert!(matches!(&refused, Found::Refused(Refused { hr: Hresult::ACCESS_DENIED, .. })), "{refused:?}");
    bench.stop().await;
}

/// A file that is open, and will play once its viewer says so.
async fn opened(server: &Server, bench: &Bench, packet_count: u64) -> (RelayedFile, Viewer) {
    let wish = bench.wish("b.wmv");
    answer(server, "shows/b.wmv", Hresult::OK, CAN_SEEK).await;
    let (mut upstream, _) = server.asked().await;
    upstream.packet_count = packet_count;
    let opens = async {
        let Found::File(file) = found(wish).await else { panic!("it is a file") };
        plays(&file, 1, StartAt::Beginning);
        file
    };
    let ((), file) = tokio::join!(upstream.play(CAN_SEEK), opens);
    (file, upstream)
}

#[tokio::test]
async fn a_file_rests_goes_on_and_leaves_streams_out() {
    let (server, packets) = (Server::bind().await, short());
    let bench = Bench::of(&server);
    let (file, mut upstream) = opened(&server, &bench, 20).await;
    upstream.packets(&packets[..5]).await;
    expect_packets(&file, 1, 0..5).await;
    file.course.send_modify(|course| course.from = None);
    upstream.stops().await;
    // It goes on from where its viewer says, on the same connection.
    plays(&file, 2, StartAt::Packet(5));
    assert_eq!(upstream.go_on().await.location, 5);
    upstream.packets(&packets[5..8]).await;
    expect_packets(&file, 2, 5..8).await;
    // Without the second stream from here on.
    file.course.send_modify(|course| course.streams = Some([1].into_iter().collect()));
    let switch = upstream.expect::<StreamSwitch>().await;
    assert_eq!(switch.entries, [StreamEntry { source: 2, destination: 0xFFFF, thinning: 0 }]);
    upstream.say(&ReportStreamSwitch { hr: Hresult::OK }).await;
    upstream.packets(&packets[8..9]).await;
    expect_packets(&file, 2, 8..9).await;
    // A seek while it plays keeps that.
    plays(&file, 3, StartAt::Time { s: 1.5 });
    file.course.send_modify(|course| course.streams = Some([1].into_iter().collect()));
    upstream.stops().await;
    let start = upstream.go_on().await;
    assert!((start.position_s - 1.5).abs() < 1e-9, "{start:?}");
    nobody_connects(&server).await;
    drop(file);
    upstream.expect::<StopPlaying>().await;
    bench.stop().await;
}

#[tokio::test]
async fn what_breaks_behind_the_last_packet_is_whole_and_what_is_broken_is_left_out() {
    let (server, packets) = (Server::bind().await, short());
    let bench = Bench::of(&server);
    let (file, mut upstream) = opened(&server, &bench, 4).await;
    let broken = vec![0xFF; packets[1].len() - 1];
    upstream.packets(&[packets[0].clone(), broken]).await;
    upstream.packets(&packets[2..4]).await;
    expect_packets(&file, 1, 0..1).await;
    expect_packets(&file, 1, 2..4).await;
    drop(upstream);
    assert_eq!(next(&file, 1).await, Item::End);
    nobody_connects(&server).await;
    bench.stop().await;
}

#[tokio::test]
async fn an_upstream_that_breaks_again_and_again_is_given_up() {
    let (server, packets) = (Server::bind().await, short());
    let bench = Bench::of(&server);
    let (file, mut upstream) = opened(&server, &bench, 20).await;
    upstream.packets(&packets[..2]).await;
    expect_packets(&file, 1, 0..2).await;
    drop(upstream);
    let (mut upstream, _) = server.asked().await;
    assert_eq!(upstream.start(CAN_SEEK).await.location, 2);
    upstream.sequence = 2;
    upstream.packets(&packets[2..3]).await;
    expect_packets(&file, 1, 2..3).await;
    drop(upstream);
    let lost = next(&file, 1).await;
    assert!(matches!(lost, Item::Lost(_)), "{lost:?}");
    nobody_connects(&server).await;
    bench.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_an_answer_when_the_daemon_stops() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let wish = bench.wish("b.wmv");
    answer(&server, "shows/b.wmv", Hresult::OK, CAN_SEEK).await;
    // One who waits for a file, two who wait to know what a name is.
    let (_upstream, _) = server.asked().await;
    let (one, two) = (bench.wish("a"), bench.wish("a"));
    let (_asked, _) = server.asked().await;
    bench.stop().await;
    for answer in [wish, one, two] {
        let found = found(answer).await;
        assert!(matches!(&found, Found::Refused(Refused { reason, .. }) if reason.contains("given up")), "{found:?}");
    }
}

#[tokio::test]
async fn a_file_that_has_become_live_is_asked_for_anew() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let wish = bench.wish("b.wmv");
    answer(&server, "shows/b.wmv", Hresult::OK, CAN_SEEK).await;
    let (mut upstream, _) = server.asked().await;
    upstream.report(Hresult::OK, BROADCAST).await;
    leaves(&mut upstream).await;
    let found = found(wish).await;
    assert!(matches!(&found, Found::Refused(Refused { reason, .. }) if reason.contains("has become live")), "{found:?}");
    bench.stop().await;
}

#[tokio::test]
async fn names_and_files_of_a_folder_are_limited() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let folder = PointId(0);
    // As many live names as there may be, watched.
    let mut lent: Vec<_> = (0..LOANS_PER_FOLDER).map(|n| bench.relay.lend(folder, &n.to_string(), None).unwrap()).collect();
    let wish = bench.wish("one more");
    answer(&server, "shows/one more", Hresult::OK, BROADCAST).await;
    let refused = found(wish).await;
    let is_full =
        |found: &Found| matches!(found, Found::Refused(Refused { hr: Hresult::TOO_MANY_SESSIONS, cause: "mirror_full", .. }));
    assert!(is_full(&refused), "{refused:?}");
    // A name that is live already is none more.
    drop(live(bench.wish("7")).await);
    let (watch, loan) = lent.pop().unwrap();
    drop(watch);
    assert!(loan.unwrap().give_back().is_ok());
    bench.collector.deliveries.lock().unwrap().clear();
    let wish = bench.wish("one more");
    answer(&server, "shows/one more", Hresult::OK, BROADCAST).await;
    drop(live(wish).await);
    let (upstream, _) = server.asked().await;
    drop(upstream);
    // As many files as one address may have, and another address after that.
    let of = |viewer: &str| bench.mirror.files_of(folder).take(viewer.parse().unwrap());
    let taken: Vec<_> = (0..FILES_PER_ADDRESS).map(|_| of("192.0.2.1").unwrap()).collect();
    bench.mirror.lock().remember(0, Key { folder, name: "b.wmv".into(), profile: None }, NotLive::File);
    let refused = found(bench.wish("b.wmv")).await;
    assert!(is_full(&refused), "{refused:?}");
    let others: Vec<_> = (FILES_PER_ADDRESS..FILES).map(|_| of("192.0.2.2").unwrap()).collect();
    let refused = found(bench.wish_of("192.0.2.3", "b.wmv")).await;
    assert!(is_full(&refused), "{refused:?}");
    drop((taken, others));
    bench.stop().await;
}

#[tokio::test]
async fn who_leaves_a_file_says_goodbye() {
    let server = Server::bind().await;
    let bench = Bench::of(&server);
    let (file, mut upstream) = opened(&server, &bench, 0).await;
    drop(file);
    upstream.expect::<StopPlaying>().await;
    upstream.say(&ReportEndOfStream { hr: Hresult::OK, incarnation: 10 }).await;
    bench.stop().await;
}
