//! A real stream of several rates, its viewers on real connections, and a clock that the tests move.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant as Clock;

use super::*;
use crate::asf::{Header, payloads, samples};
use crate::mms::media::{DataHead, HEAD_LEN};
use crate::relay::{Delivery, Publisher, PublisherId, Relay, ShardPort};
use crate::settings::{PublishingPoint, Settings, Source};
use crate::shard::Context;
use crate::shard::conn::Opened;
use crate::shard::sniff::Protocol;
use crate::shard::state::Arrival;
use crate::wire::Guid;

/// Video 1 and 2, sound 3, eight seconds in 180 packets.
const SAMPLE: &str = "mbr-2video-1audio.asf";
const PACKET_TIME: Duration = Duration::from_millis(45);

#[derive(Default)]
struct Mailbox(Mutex<Vec<Delivery>>);

impl ShardPort for Mailbox {
    fn deliver(&self, delivery: Delivery) {
        self.0.lock().unwrap().push(delivery);
    }
}

struct Bench {
    shard: State,
    publisher: Publisher,
    mailbox: Arc<Mailbox>,
    header: Header,
    packets: Vec<Vec<u8>>,
    published: usize,
}

/// A viewer over TCP, and what has come to it.
struct Seated {
    key: usize,
    player: std::net::TcpStream,
    bytes: Vec<u8>,
}

fn now() -> Instant {
    Clock::now().into_std()
}

fn set(streams: &[u8]) -> StreamSet {
    streams.iter().copied().collect()
}

fn some(streams: &[u8]) -> Selection {
    Selection::all(set(streams))
}

impl Bench {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { publishing_points: vec![PublishingPoint::new("cam", Source::Push)], ..Settings::default() };
        // Everything goes as it comes.
        settings.delivery.tick = Duration::ZERO;
        change(&mut settings);
        let mailbox: Arc<Mailbox> = Arc::default();
        let relay = Relay::new(&settings, Box::new(Guid::default), vec![Arc::clone(&mailbox) as Arc<dyn ShardPort>]);
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let context = Context::for_tests(settings, Arc::clone(&relay), sender);
        let (header, packets) = samples::stream(SAMPLE);
        let mut publisher = relay.publish(now(), "cam", PublisherId::Local).unwrap();
        publisher.header(now(), 0, &header).unwrap();
        let mut bench = Self { shard: State::new(Arc::new(context), 0), publisher, mailbox, header, packets, published: 0 };
        bench.deliver();
        bench
    }

    fn deliver(&mut self) {
        let deliveries = std::mem::take(&mut *self.mailbox.0.lock().unwrap());
        // So long ago that it is due.
        let came = now() - Duration::from_secs(1);
        for delivery in deliveries {
            self.shard.deliver(came, delivery);
        }
    }

    /// Publishes so many packets in real time, one after the other, and serves everybody after each.
    async fn publish(&mut self, count: usize) {
        self.publish_by(count, 1).await;
    }

    /// The same with so many packets to a pass.
    async fn publish_by(&mut self, count: usize, to_a_pass: usize) {
        for n in 1..=count {
            tokio::time::advance(PACKET_TIME).await;
            let packet = BytesMut::from(&self.packets[self.published % self.packets.len()][..]);
            if self.published > 0 && self.published.is_multiple_of(self.packets.len()) {
                self.publisher.header(now(), 0, &self.header).unwrap();
            }
            self.published += 1;
            self.publisher.packets(now(), packet).unwrap();
            self.deliver();
            if n.is_multiple_of(to_a_pass) {
                self.shard.pass_for_tests(now());
            }
        }
    }

    async fn seat(&mut self, selection: Selection) -> Seated {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let local = listener.local_addr().unwrap();
        let player = std::net::TcpStream::connect(local).unwrap();
        let (stream, peer): (TcpStream, SocketAddr) = listener.accept().await.unwrap();
        player.set_nonblocking(true).unwrap();
        let key = self.shard.admit(
            now(),
            Arrival { peer, local, at: now(), udp: None, protocol: Protocol::Mms, tls: false, takes_publishers: false },
            Rc::new(stream),
        );
        let point = self.shard.context.relay.point("cam").unwrap();
        let conn = self.shard.conns.get_mut(key).unwrap();
        let packet_size = self.header.packet_size();
        conn.opened = Some(Opened { generation: Some(0), packet_size, ..Opened::new(point, "cam") });
        conn.selection = selection;
        self.shard.play(key, now(), 10);
        self.shard.flush(key, now());
        Seated { key, player, bytes: Vec::new() }
    }

    fn channel(&self, viewer: &Seated) -> usize {
        self.shard.conns.get(viewer.key).unwrap().opened.as_ref().unwrap().channel
    }
}

impl Seated {
    /// All packets that have come so far: numbers on the wire, sequence numbers, packets.
    fn packets(&mut self, size: usize) -> Vec<(u32, u8, Vec<u8>)> {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = self.player.read(&mut buffer) {
            self.bytes.extend_from_slice(&buffer[..count]);
        }
        let whole = self.bytes.chunks_exact(HEAD_LEN + size);
        whole
            .map(|data| {
                let head = DataHead::parse(data).unwrap();
                assert_eq!((usize::from(head.size), head.incarnation), (HEAD_LEN + size, 10));
                (head.location, head.flags, data[HEAD_LEN..].to_vec())
            })
            .collect()
    }
}

/// Streams in order of their first payload, each with whether that starts a key frame.
fn firsts(packets: &[(u32, u8, Vec<u8>)]) -> Vec<(u8, bool)> {
    let mut seen: Vec<(u8, bool)> = Vec::new();
    for (.., packet) in packets {
        for payload in payloads(packet).unwrap() {
            if !seen.iter().any(|(stream, _)| *stream == payload.stream) {
                seen.push((payload.stream, payload.key && payload.offset == 0));
            }
        }
    }
    seen
}

fn assert_numbers(packets: &[(u32, u8, Vec<u8>)]) {
    for pair in packets.windows(2) {
        assert!(pair[1].0 > pair[0].0, "numbers of the source go up");
        assert_eq!(pair[1].1, pair[0].1.wrapping_add(1), "what is left out uses no sequence number");
    }
}

#[tokio::test(start_paused = true)]
async fn each_viewer_gets_what_it_selected() {
    let mut bench = Bench::new(|_| {});
    bench.publish(40).await;
    let mut all = bench.seat(some(&[1, 2, 3])).await;
    let mut small = bench.seat(some(&[2, 3])).await;
    let mut same = bench.seat(some(&[2, 3])).await;
    let mut sound = bench.seat(some(&[3])).await;
    bench.publish(120).await;
    assert_eq!(bench.channel(&all), 0);
    assert_eq!(bench.channel(&small), bench.channel(&same), "cut once for both");
    assert_ne!(bench.channel(&small), bench.channel(&sound));
    let size = bench.header.packet_size();
    let (of_all, of_small, of_sound) = (all.packets(size), small.packets(size), sound.packets(size));
    for packets in [&of_all, &of_small, &of_sound] {
        assert!(packets.len() > 20, "{}", packets.len());
        assert_numbers(packets);
    }
    let streams = |packets: &[(u32, u8, Vec<u8>)]| firsts(packets).into_iter().map(|(stream, _)| stream).collect::<StreamSet>();
    assert_eq!((streams(&of_all), streams(&of_small), streams(&of_sound)), (set(&[1, 2, 3]), set(&[2, 3]), set(&[3])));
    // It joined in the middle, and begins with a picture all the same.
    assert!(firsts(&of_small).contains(&(2, true)));
    assert_eq!(of_small, same.packets(size));
    // The numbers are those of the same packets in the whole stream.
    for (number, _, packet) in of_small.iter().filter(|(number, ..)| of_all.iter().any(|(other, ..)| other == number)) {
        let (.., whole) = of_all.iter().find(|(other, ..)| other == number).unwrap();
        assert_eq!(asf::send_time_ms(packet), asf::send_time_ms(whole));
    }
}

#[tokio::test(start_paused = true)]
async fn a_video_rate_changes_at_a_key_frame_of_the_new_one() {
    let mut bench = Bench::new(|_| {});
    bench.publish(10).await;
    let mut viewer = bench.seat(some(&[1, 3])).await;
    bench.publish(25).await;
    let before = bench.channel(&viewer);
    bench.shard.select(viewer.key, some(&[2, 3]));
    assert_eq!(bench.channel(&viewer), before, "not before there is a key frame");
    // What came with the key frame and before it is due together.
    bench.publish_by(119, 7).await;
    assert_ne!(bench.channel(&viewer), before);
    let packets = viewer.packets(bench.header.packet_size());
    assert_numbers(&packets);
    let videos: Vec<(u8, bool, u32)> = packets
        .iter()
        .flat_map(|(number, _, packet)| {
            payloads(packet).unwrap().map(|payload| (payload.stream, payload.key && payload.offset == 0, *number))
        })
        .filter(|(stream, ..)| *stream != 3)
        .collect();
    let change = videos.iter().position(|(stream, ..)| *stream == 2).unwrap();
    assert!(change > 0 && videos[change].1, "the new rate begins with a key frame");
    assert!(
        videos[change..].iter().all(|(stream, ..)| *stream == 2)
            || videos[change..].iter().filter(|video| video.0 == 1).all(|video| video.2 == videos[change].2),
        "and the old one is gone"
    );
    // Sound went on all the while: no object is missing.
    let objects: Vec<u32> = packets
        .iter()
        .flat_map(|(.., packet)| payloads(packet).unwrap().filter(|payload| payload.stream == 3).map(|payload| payload.object))
        .collect();
    assert!(objects.windows(2).all(|pair| pair[1] == pair[0] || pair[1] == (pair[0] + 1) & 0xFF), "{objects:?}");
}

#[tokio::test(start_paused = true)]
async fn less_than_before_needs_no_key_frame() {
    let mut bench = Bench::new(|_| {});
    bench.publish(10).await;
    let mut viewer = bench.seat(some(&[1, 2, 3])).await;
    bench.publish(20).await;
    bench.shard.select(viewer.key, some(&[1, 3]));
    assert_ne!(bench.channel(&viewer), 0);
    let count = viewer.packets(bench.header.packet_size()).len();
    bench.publish(20).await;
    let packets = viewer.packets(bench.header.packet_size());
    assert_numbers(&packets);
    assert!(packets.len() > count);
    assert!(firsts(&packets[count..]).iter().all(|(stream, _)| *stream != 2));
    // And back: the other rate comes with its next key frame.
    bench.shard.select(viewer.key, some(&[1, 2, 3]));
    bench.publish(100).await;
    assert_eq!(bench.channel(&viewer), 0);
    assert_numbers(&viewer.packets(bench.header.packet_size()));
}

#[tokio::test(start_paused = true)]
async fn surplus_wishes_get_everything_and_unused_cuts_go() {
    let mut bench = Bench::new(|_| {});
    bench.publish(5).await;
    let point = bench.shard.context.relay.point("cam").unwrap().id();
    // Seven sets of three streams but one, each thinned in every way.
    let mut wishes = Vec::new();
    for streams in 1..8_u8 {
        for thinned in 0..4_u8 {
            let of = |bits: u8| (1..=3).filter(|stream| bits >> (stream - 1) & 1 == 1).collect::<StreamSet>();
            wishes.push(Selection { streams: of(streams), thinned: of(thinned) });
        }
    }
    let mut channels: Vec<usize> = wishes.iter().map(|wish| bench.shard.channel_for(point, *wish)).collect();
    channels.sort_unstable();
    channels.dedup();
    assert_eq!(channels.len(), 1 + MOST.min(wishes.len()).min(channels.len() - 1), "{channels:?}");
    assert!(bench.shard.broadcasts.len() <= 1 + MOST);
    assert_eq!(bench.shard.channel_for(point, some(&[1, 2, 3])), 0);
    assert_eq!(bench.shard.channel_for(point, some(&[9])), 0, "streams that are not there");
    let later = now();
    bench.shard.sweep_variants(later);
    bench.shard.sweep_variants(later + UNUSED);
    assert!(bench.shard.broadcasts[0].variants.is_empty());
    let mut viewer = bench.seat(some(&[3])).await;
    bench.publish(30).await;
    assert!(bench.shard.broadcasts.len() <= 1 + MOST, "the places are used again");
    assert!(!viewer.packets(bench.header.packet_size()).is_empty());
    bench.shard.sweep_variants(later + UNUSED * 3);
    bench.shard.sweep_variants(later + UNUSED * 9);
    assert_eq!(bench.shard.broadcasts[0].variants.len(), 1, "not while somebody watches");
}

/// The window holds few packets, so that a viewer that reads nothing falls out of it.
#[tokio::test(start_paused = true)]
async fn who_falls_behind_twice_is_thinned_until_it_keeps_up() {
    for on_slow in [OnSlow::Thin, OnSlow::Skip] {
        let mut bench = Bench::new(|settings| {
            settings.window.seconds = 1;
            settings.delivery.on_slow = on_slow;
        });
        bench.publish(20).await;
        let mut viewer = bench.seat(some(&[1, 2, 3])).await;
        let size = bench.header.packet_size();
        for fall in 1..=2 {
            // It takes nothing for longer than the window is.
            block(&mut bench, &viewer, true);
            bench.publish(120).await;
            block(&mut bench, &viewer, false);
            bench.shard.flush(viewer.key, now());
            bench.publish(5).await;
            assert_eq!(bench.channel(&viewer) != 0, fall == 2 && on_slow == OnSlow::Thin, "fall {fall}");
        }
        if on_slow == OnSlow::Skip {
            continue;
        }
        viewer.packets(size);
        let count = viewer.packets(size).len();
        bench.publish(150).await;
        let packets = viewer.packets(size);
        let late = packets[count..].iter().flat_map(|(.., packet)| payloads(packet).unwrap());
        assert!(late.filter(|payload| payload.stream != 3).all(|payload| payload.key), "key frames alone");
        assert_eq!(firsts(&packets[count..]).len(), 3, "of both rates, and sound");
        // Ten seconds at the live edge, then the next key frame.
        for second in 0..u64::from(PATIENCE_S) {
            assert_ne!(bench.channel(&viewer), 0, "after {second} s");
            bench.shard.sweep_variants(now() + Duration::from_secs(second));
        }
        bench.publish(100).await;
        assert_eq!(bench.channel(&viewer), 0);
        assert_numbers(&packets);
    }
}

/// Its connection is full, or is not.
fn block(bench: &mut Bench, viewer: &Seated, full: bool) {
    let conn = bench.shard.conns.get(viewer.key).unwrap();
    let (Some(opened), Place::Seat(index)) = (&conn.opened, &conn.place) else { panic!("no seat") };
    let (channel, index) = (opened.channel, *index);
    bench.shard.broadcasts[channel].viewers.hot_mut(index).unwrap().blocked = full;
    if !full {
        bench.shard.serve(channel, index, now());
    }
}

#[test]
fn patience_grows_with_every_relapse() {
    let mut slowness = Slowness::default();
    assert!(!slowness.falls() && slowness.falls());
    slowness.thin();
    assert!(!slowness.falls(), "thinner than thin there is nothing");
    let mut waited = Vec::new();
    for _ in 0..6 {
        let mut seconds = 1;
        while !slowness.second(true) {
            seconds += 1;
        }
        waited.push(seconds);
        slowness.restore();
        assert!(slowness.falls());
        slowness.thin();
    }
    assert_eq!(waited, [10, 20, 40, 80, 160, 160]);
    // One that keeps up forgets its falls.
    let mut slowness = Slowness::default();
    slowness.falls();
    assert!((0..STEADY_S).all(|_| !slowness.second(true)));
    assert!(!slowness.falls());
    // A second that was not live begins the count anew.
    assert!(!slowness.second(false) && slowness.steady_s == 0);
}

/// Where nothing marks a key frame, a cut begins where the whole does.
#[tokio::test(start_paused = true)]
async fn a_cut_begins_at_a_stand_in_for_a_key_frame() {
    let bench = Bench::new(|_| ());
    let generation = bench.shard.broadcasts[0].generation.clone().unwrap();
    // After their key frames there are none for a while.
    let keyless = |packet: &&Vec<u8>| {
        let info = asf::walk(packet).unwrap();
        !info.key_starts.intersects(generation.video) && info.streams.contains(2)
    };
    let packets: Vec<_> = bench.packets.iter().filter(keyless).take(10).collect();
    for stand_in in [None, Some(3)] {
        let notes = (0..packets.len() as u64).map(|number| BatchPacket {
            number,
            send_time_ms: 0,
            join_point: stand_in == Some(number),
            key: false,
            used_len: 0,
        });
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| packet.iter().copied()).collect();
        let batch =
            Batch { generation: Arc::clone(&generation), first: 0, bytes: bytes.into(), packets: notes.collect(), due: now() };
        let mut variant =
            Variant { base: 0, selection: some(&[2]), generation: generation.number, tag: 1, cutter: None, unused_since: None };
        let cut = variant.cut(&batch, 0).map(|cut| cut.packets.clone()).unwrap_or_default();
        assert_eq!(cut.is_empty(), stand_in.is_none(), "without one it waits");
        let joins: Vec<u64> = cut.iter().filter(|packet| packet.join_point).map(|packet| packet.number).collect();
        assert_eq!(joins, cut.first().map(|packet| packet.number).into_iter().collect::<Vec<_>>());
    }
}
