//! Files to viewers on real connections, from a real archive, on a clock that the tests move.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::Path;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::archive::Lookup;
use crate::asf::{Kept, Selector, StreamSet, padding, payloads, samples};
use crate::mms::media::DataHead;
use crate::relay::Relay;
use crate::settings::{PublishingPoint, Settings};
use crate::shard::Context;
use crate::shard::sniff::Protocol;
use crate::shard::state::Arrival;
use crate::viewing::Ask;
use crate::viewing::{Pass, Player};
use crate::wire::Guid;

/// 94 packets of 3200 bytes, ten seconds.
const FILE: &str = "vod-wmv2-wmav2-indexed.wmv";
const SIZE: usize = 3200;

struct Bench {
    shard: State,
    mailbox: UnboundedReceiver<Command>,
    key: usize,
    player: std::net::TcpStream,
    bytes: Vec<u8>,
}

fn now() -> Instant {
    Clock::now().into_std()
}

impl Bench {
    /// A viewer that has opened a file of `tests/data`. `buffers`: bytes that its connection holds, about.
    async fn open(name: &str, buffers: Option<usize>, change: impl FnOnce(&mut Settings)) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let point = PublishingPoint::new("archive", Source::Files { root });
        let mut settings = Settings { publishing_points: vec![point], ..Settings::default() };
        change(&mut settings);
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, mailbox) = unbounded_channel();
        let context = Context::for_tests(settings, relay, sender);
        let mut shard = State::new(Arc::new(context), 0);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let local = listener.local_addr().unwrap();
        let player = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(bytes) = buffers {
            player.set_recv_buffer_size(bytes).unwrap();
        }
        player.connect(&local.into()).unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        if let Some(bytes) = buffers {
            socket2::SockRef::from(&stream).set_send_buffer_size(bytes).unwrap();
        }
        player.set_nonblocking(true).unwrap();
        let key = shard.admit(
            now(),
            Arrival { peer, local, at: now(), udp: None, protocol: Protocol::Mms, tls: false, takes_publishers: false },
            Rc::new(stream),
        );
        assert!(matches!(shard.answer(key, now(), Ask::Admit(Player::default())), Some(Answer::Admitted(Ok(())))));
        let mut bench = Self { shard, mailbox, key, player: player.into(), bytes: Vec::new() };
        let open = Ask::Open { name: format!("archive/{name}"), pass: Pass::default() };
        assert!(bench.shard.answer(key, now(), open).is_none(), "a reader answers");
        bench.command().await;
        bench
    }

    /// Carries out what a reader has to say.
    async fn command(&mut self) {
        let command = self.mailbox.recv().await.unwrap();
        self.shard.command(now(), command);
    }

    async fn play(&mut self, from: Position, until: Option<Until>) {
        let ask = Ask::PlayFile { incarnation: 10, from, until, acceleration: None, speed: 1 };
        self.shard.answer(self.key, now(), ask);
        self.command().await;
    }

    fn plays(&self) -> bool {
        matches!(self.shard.conns.get(self.key).unwrap().place, Place::OnDemand(_))
    }

    /// Lets time pass until the play is over; when that was, after the begin. `read` bytes are taken at once.
    async fn run(&mut self, read: usize) -> Duration {
        let begin = now();
        while self.plays() {
            let conn = self.shard.conns.get(self.key).unwrap();
            let Place::OnDemand(seat) = &conn.place else { break };
            if seat.viewer.hot.blocked {
                assert!(self.read(read) > 0 || self.shard.conns.get(self.key).is_some());
                // What a connection's task does when there is room.
                self.shard.flush(self.key, now());
                tokio::time::advance(Duration::from_millis(1)).await;
            } else if let Some(due) = seat.due {
                if due > now() {
                    tokio::time::advance(due - now()).await;
                }
                while self.shard.file_turn() {}
                self.shard.settle();
                self.read(read);
            } else {
                self.command().await;
            }
        }
        let took = now() - begin;
        while !self.shard.conns.get(self.key).unwrap().out.is_empty() {
            self.read(1 << 20);
            self.shard.flush(self.key, now());
        }
        let conn = self.shard.conns.get(self.key).unwrap();
        let Place::Parked(viewer) = &conn.place else { panic!("it has a seat") };
        let sent = usize::try_from(viewer.hot.packets).unwrap() * (HEAD_LEN + conn.opened.as_ref().unwrap().packet_size);
        // What is still on its way.
        self.player.set_nonblocking(false).unwrap();
        self.player.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let here = self.bytes.len();
        self.bytes.resize(sent, 0);
        self.player.read_exact(&mut self.bytes[here..]).unwrap();
        self.player.set_nonblocking(true).unwrap();
        took
    }

    fn read(&mut self, most: usize) -> usize {
        let mut buffer = vec![0; most];
        let count = self.player.read(&mut buffer).unwrap_or(0);
        self.bytes.extend_from_slice(&buffer[..count]);
        count
    }

    /// Numbers, sequence numbers and packets that have come.
    fn packets(&self, size: usize) -> Vec<(u64, u8, Vec<u8>)> {
        assert!(self.bytes.len().is_multiple_of(HEAD_LEN + size), "{} bytes", self.bytes.len());
        let whole = self.bytes.chunks_exact(HEAD_LEN + size);
        whole
            .map(|data| {
                let head = DataHead::parse(data).unwrap();
                assert_eq!((head.incarnation, usize::from(head.size)), (10, HEAD_LEN + size));
                (head.location.into(), head.flags, data[HEAD_LEN..].to_vec())
            })
            .collect()
    }
}

/// A file's packets as players can read them all.
fn settled(name: &str) -> Vec<Vec<u8>> {
    let mut packets = samples::stream(name).1;
    packets.iter_mut().for_each(|packet| padding::settle(packet));
    packets
}

#[tokio::test(start_paused = true)]
async fn a_file_goes_whole_and_at_its_pace() {
    for name in [FILE, "edge-packets-pcmu.asf"] {
        let expected = settled(name);
        let mut bench = Bench::open(name, None, |_| {}).await;
        bench.play(Position::Time(0), None).await;
        let took = bench.run(1 << 20).await;
        let packets = bench.packets(expected[0].len());
        assert!(packets.iter().map(|(.., packet)| packet).eq(&expected), "{name}");
        assert!(packets.iter().map(|(number, ..)| *number).eq(0..expected.len() as u64));
        assert!(packets.windows(2).all(|pair| pair[1].1 == pair[0].1.wrapping_add(1)));
        // Five seconds go in one.
        let length_s = f64::from(crate::asf::send_time_ms(expected.last().unwrap()).unwrap()) / 1000.0;
        let took_s = took.as_secs_f64();
        assert!((length_s - 4.0..length_s - 3.8).contains(&took_s), "{name}: {took_s} of {length_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_seek_begins_at_a_key_frame_and_stops_where_it_is_to() {
    let mut bench = Bench::open(FILE, None, |_| {}).await;
    bench.play(Position::Time(5000), Some(Until::After(2000))).await;
    bench.run(1 << 20).await;
    let packets = bench.packets(SIZE);
    let first = payloads(&packets[0].2).unwrap().find(|payload| payload.stream == 1 && payload.key && payload.offset == 0);
    let preroll_ms = samples::stream(FILE).0.preroll_ms();
    let first_ms = first.unwrap().presentation_ms - preroll_ms;
    assert!((3000..=5000).contains(&first_ms), "{first_ms}");
    let last_ms = crate::asf::walk(&packets.last().unwrap().2).unwrap().first_presentation_ms - preroll_ms;
    let begin_ms = crate::asf::walk(&packets[0].2).unwrap().first_presentation_ms - preroll_ms;
    assert!((begin_ms + 1800..begin_ms + 2000).contains(&last_ms), "{begin_ms} to {last_ms}");
    // And on from somewhere else; sequence numbers run on.
    let count = packets.len();
    bench.play(Position::Packet(90), None).await;
    bench.run(1 << 20).await;
    let packets = bench.packets(SIZE);
    assert!(packets.len() > count && packets.windows(2).all(|pair| pair[1].1 == pair[0].1.wrapping_add(1)));
    assert_eq!(packets.last().unwrap().0, 93);
}

/// Whoever takes little at a time gets the same as who takes everything at once, also of a selection, where what is kept of a
/// packet depends on those before it.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_nothing() {
    let name = "mbr-2video-1audio.asf";
    let (header, packets) = (samples::stream(name).0, settled(name));
    let all: StreamSet = [1, 2, 3].into_iter().collect();
    for streams in [&[1, 2, 3][..], &[1, 3], &[3]] {
        let selection = Selection::all(streams.iter().copied().collect());
        let mut bench = Bench::open(name, Some(4096), |settings| settings.delivery.burst_rate = 100).await;
        bench.shard.select(bench.key, selection);
        bench.play(Position::Time(0), None).await;
        bench.run(3000).await;
        let mut selector = Selector::new(all, header.video(), selection);
        let mut expected = Vec::new();
        for (number, packet) in (0..).zip(&packets) {
            let mut out = Vec::new();
            match selector.packet(packet, &mut out).unwrap() {
                Kept::Nothing => {}
                Kept::Whole => expected.push((number, packet.clone())),
                Kept::Rewritten => expected.push((number, out)),
            }
        }
        let got: Vec<(u64, Vec<u8>)> =
            bench.packets(header.packet_size()).into_iter().map(|(number, _, packet)| (number, packet)).collect();
        assert_eq!(got.len(), expected.len(), "{streams:?}");
        assert!(got == expected, "{streams:?}");
    }
}

/// A stall of the network costs nothing of the lead that the burst gave.
#[tokio::test(start_paused = true)]
async fn who_was_held_up_catches_up() {
    let name = "edge-packets-pcmu.asf";
    let expected = settled(name);
    let mut bench = Bench::open(name, Some(4096), |_| {}).await;
    bench.play(Position::Time(0), None).await;
    let begin = now();
    tokio::time::advance(Duration::from_secs(9)).await;
    bench.run(1500).await;
    let length_s = f64::from(crate::asf::send_time_ms(expected.last().unwrap()).unwrap()) / 1000.0;
    let took_s = (now() - begin).as_secs_f64();
    assert!(took_s < 9.5_f64.max(length_s - 3.5), "{took_s} of {length_s} s");
    let packets = bench.packets(expected[0].len());
    assert!(packets.iter().map(|(.., packet)| packet).eq(&expected));
}

/// Blocks of the file before come late where the disk is slow; they are not the next file's.
#[tokio::test(start_paused = true)]
async fn one_file_after_another() {
    let other = "audio-wmav2.wma";
    let expected = settled(other);
    let mut bench = Bench::open(FILE, None, |_| {}).await;
    bench.play(Position::Packet(60), None).await;
    let key = bench.key;
    let Some(Place::OnDemand(seat)) = bench.shard.conns.get(key).map(|conn| &conn.place) else { panic!("it plays") };
    let Feed::File(feed) = &seat.feed else { panic!("a file") };
    let (read, block) = std::sync::mpsc::channel();
    let late = match feed.opening.file.block(0, || Box::new(move |block| read.send(block.unwrap()).unwrap())) {
        Lookup::Here(block) => block,
        _ => block.recv().unwrap(),
    };
    let before = bench.shard.conns.get(key).unwrap().request;
    let sent = usize::try_from(seat.viewer.hot.packets).unwrap();
    assert!(bench.shard.answer(key, now(), Ask::Open { name: format!("archive/{other}"), pass: Pass::default() }).is_none());
    bench.command().await;
    bench.play(Position::Time(0), None).await;
    bench.shard.block_read(key, now(), before, Ok(late));
    bench.shard.block_read(key, now(), before, Err(ReadError::Vanished));
    assert!(bench.plays());
    bench.run(1 << 20).await;
    assert_eq!(expected[0].len(), SIZE);
    assert!(bench.packets(SIZE)[sent..].iter().map(|(.., packet)| packet).eq(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_cap_slows_a_file_down() {
    // 300,800 bytes and their heads.
    let mut bench = Bench::open(FILE, None, |settings| settings.limits.viewer_kbps = 100).await;
    bench.play(Position::Time(0), None).await;
    let took = bench.run(1 << 20).await;
    assert!((23.5..24.5).contains(&took.as_secs_f64()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_earlier_seek_comes_too_late() {
    let mut bench = Bench::open(FILE, None, |_| {}).await;
    let seek = |from| Ask::PlayFile { incarnation: 10, from, until: None, acceleration: None, speed: 1 };
    bench.shard.answer(bench.key, now(), seek(Position::Time(9000)));
    bench.shard.answer(bench.key, now(), seek(Position::Time(0)));
    bench.command().await;
    assert!(!bench.plays(), "that place is not wanted any more");
    bench.command().await;
    assert!(bench.plays());
    bench.run(1 << 20).await;
    assert_eq!(bench.packets(SIZE).len(), 94);
    bench.shard.answer(bench.key, now(), seek(Position::Time(0)));
    bench.shard.answer(bench.key, now(), Ask::Stop);
    bench.command().await;
    assert!(!bench.plays(), "nor after a stop");
}
