//! Viewers over RTP on real sockets of this machine, and a virtual clock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::asf::{StreamSet, padding};
use crate::relay::admission::Sign;
use crate::relay::{BatchPacket, Relay};
use crate::rtsp::depacketize::{Depacketizer, Losses};
use crate::rtsp::recovery::{ReceiverReport, ReportBlock};
use crate::settings::{Settings, WindowBounds};
use crate::shard::broadcast::{Broadcast, Framing, Link, Phase, Served, Viewer};
use crate::shard::conn::ResendPath;
use crate::shard::conn::{Opened, Place};
use crate::shard::out_queue::{Flushed, OutQueue};
use crate::shard::sniff::Protocol;
use crate::shard::stage::{Blocked, Moment, Stage};
use crate::shard::state::{Arrival, State};
use crate::shard::udp::UdpPort;
use crate::viewing::Cue;
use crate::wire::Guid;

const SIZE: usize = 1000;
const FLOW: Flow = Flow { ssrc: 0x90CB_CAAC, sequence: 0xFFF0 };
const DATAGRAMS: Framing = Framing::Rtp(Carriage::Datagrams);
const FRAMES: Framing = Framing::Rtp(Carriage::Interleaved { channel: 5 });

#[expect(clippy::disallowed_methods, reason = "the base of a virtual clock")]
fn base() -> Instant {
    Instant::now()
}

fn generation() -> Arc<Generation> {
    let video: StreamSet = [1].into_iter().collect();
    Arc::new(Generation {
        number: 0,
        header: Bytes::from_static(b"header"),
        packet_size: SIZE,
        preroll_ms: 0,
        bit_rate: 1_000_000,
        streams: video,
        video,
        ssrc: FLOW.ssrc,
        sequence: FLOW.sequence,
    })
}

/// A packet with one payload, filled with its number. Every fourth ends a picture: it has padding.
fn asf(number: u64) -> Vec<u8> {
    let fill = number.to_le_bytes()[0];
    let padding: u16 = if number % 4 == 3 { 300 + u16::from(fill) } else { 0 };
    let flags = if padding > 0 { 0x10 } else { 0 };
    let mut packet = vec![0x82, 0, 0, flags, 0x5D];
    packet.extend_from_slice(&padding.to_le_bytes()[..if padding > 0 { 2 } else { 0 }]);
    packet.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
    packet.extend_from_slice(&[
        0,
        0,
        if number.is_multiple_of(50) { 0x81 } else { 1 },
        fill,
        0,
        0,
        0,
        0,
        8,
        9,
        9,
        9,
        9,
        9,
        9,
        9,
        9,
    ]);
    packet.resize(SIZE - usize::from(padding), fill);
    packet.resize(SIZE, 0);
    packet
}

/// Packets a millisecond apart; every 50th starts a key frame.
fn batch(first: u64, count: u64, due: Instant) -> Arc<Batch> {
    let packet = |number: u64| BatchPacket {
        number,
        send_time_ms: u32::try_from(number).unwrap(),
        join_point: number.is_multiple_of(50),
        key: number.is_multiple_of(50),
        used_len: 1000,
    };
    let numbers = first..first + count;
    let bytes = numbers.clone().flat_map(asf).collect::<Vec<_>>().into();
    Arc::new(Batch { generation: generation(), first, bytes, packets: numbers.map(packet).collect(), due })
}

/// What a viewer gets of some packets, cut into so many fragments, on a flow that is so far ahead.
fn expected(carriage: Carriage, fragments: u16, numbers: std::ops::Range<u64>, ahead: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for number in numbers {
        let mut packets = Packets::new(carriage, fragments);
        let info = crate::asf::walk(&asf(number)).unwrap();
        assert_eq!((u64::from(info.send_time_ms), info.key), (number, number.is_multiple_of(50)));
        let facts = Facts { packet: in_flow(number).wrapping_add(ahead), send_time_ms: info.send_time_ms, key: info.key };
        packets.push(&asf(number), SIZE, FLOW, facts);
        out.extend((0..fragments).map(|index| packets.stretch(0, 1).fragment(index).unwrap().to_vec()));
    }
    out
}

fn broadcast(seconds: u32, max_datagram: usize) -> Broadcast {
    let mut broadcast = Broadcast::new(&WindowBounds { seconds, bytes: 64 << 20 }).with_datagrams(max_datagram);
    broadcast.generation = Some(generation());
    broadcast
}

fn push(broadcast: &mut Broadcast, batch: Arc<Batch>) {
    let due = batch.due;
    broadcast.push(due, Duration::ZERO, batch);
    broadcast.begin_pass(due, Duration::ZERO);
}

struct Udp {
    sockets: Vec<UdpSocket>,
    port: Arc<UdpPort>,
    origins: Origins,
}

impl Udp {
    fn new(viewers: usize) -> Self {
        let open = |_| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let port = Arc::new(UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap());
        Self { sockets: (0..viewers).map(open).collect(), port, origins: Origins::default() }
    }

    fn route(&mut self, viewer: usize) -> Route {
        let origin = self.origins.id(&self.port, Ipv4Addr::LOCALHOST.into()).unwrap();
        Route { destination: self.sockets[viewer].local_addr().unwrap().into(), origin, segmented: true, fragmented: false }
    }

    fn seat(&mut self, broadcast: &mut Broadcast, now: Instant) -> usize {
        let viewer = broadcast.viewers.len();
        let mut seated = Viewer::over_udp(viewer, self.route(viewer)).framed(DATAGRAMS);
        seated.start(0, 0, SIZE);
        broadcast.place(&mut seated, now);
        broadcast.viewers.push(seated)
    }

    fn receive(&self, viewer: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| self.sockets[viewer].recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())).collect()
    }

    /// Serves a viewer until it has all, in steps of 10 ms.
    fn serve(&self, broadcast: &mut Broadcast, viewer: usize, mut now: Instant) -> (Vec<Vec<u8>>, Tally) {
        let (mut tally, mut got) = (Tally::default(), Vec::new());
        loop {
            let served = broadcast.serve(viewer, now, &self.origins, &mut tally).unwrap();
            got.extend(self.receive(viewer));
            match served {
                Served::Live => return (got, tally),
                Served::CatchingUp => now += Duration::from_millis(10),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn all_viewers_get_the_very_datagrams_at_the_live_edge_and_behind_it() {
    for (max_datagram, fragments) in [(1452, 1), (700, 2), (350, 3)] {
        let (start, mut udp, mut broadcast) = (base(), Udp::new(3), broadcast(20, max_datagram));
        push(&mut broadcast, batch(0, 10, start));
        push(&mut broadcast, batch(10, 21, start));
        udp.seat(&mut broadcast, start);
        assert_eq!(broadcast.cue(0), Some(Cue { sequence: 0xFFF0, timestamp: 0, head_start: None }));
        assert_eq!(udp.serve(&mut broadcast, 0, start).0, expected(Carriage::Datagrams, fragments, 0..31, 0), "caught up");
        udp.seat(&mut broadcast, start);
        udp.serve(&mut broadcast, 1, start);
        udp.seat(&mut broadcast, start);
        let cue = broadcast.cue(0);
        assert_eq!(cue, None, "nothing is there for it yet");
        push(&mut broadcast, batch(31, 17, start));
        let now = expected(Carriage::Datagrams, fragments, 31..48, 0);
        let (first, tally) = udp.serve(&mut broadcast, 0, start);
        assert!(first == now && udp.serve(&mut broadcast, 1, start).0 == now, "{fragments} fragments");
        assert_eq!((tally.udp_packets, tally.udp_failed), (17 * u64::from(fragments), 0));
        assert_eq!(tally.udp_bytes, now.iter().map(Vec::len).sum::<usize>() as u64);
        if fragments == 1 {
            // Three full ones and the shorter one that ends a picture go together.
            assert_eq!(tally.udp_calls, 5);
        }
        let (all, _) = udp.serve(&mut broadcast, 2, start);
        assert_eq!(all, expected(Carriage::Datagrams, fragments, 0..48, 0), "whoever comes later gets the same");
        let bytes: usize = all.iter().map(Vec::len).sum();
        let viewer = broadcast.viewers.swap_remove(0).unwrap();
        assert_eq!((viewer.hot.packets, viewer.bytes()), (48, bytes as u64));
    }
}

#[test]
fn without_segmentation_each_datagram_goes_by_itself() {
    let (start, mut udp, mut broadcast) = (base(), Udp::new(1), broadcast(20, 700));
    push(&mut broadcast, batch(0, 1, start));
    let viewer = udp.seat(&mut broadcast, start);
    udp.serve(&mut broadcast, viewer, start);
    let Link::Udp(route) = &mut broadcast.viewers.hot_mut(viewer).unwrap().link else { panic!("UDP") };
    route.segmented = false;
    push(&mut broadcast, batch(1, 12, start));
    let (got, tally) = udp.serve(&mut broadcast, viewer, start);
    assert_eq!(got, expected(Carriage::Datagrams, 2, 1..13, 0));
    assert_eq!((tally.udp_calls, tally.udp_packets), (24, 24));
    assert_eq!(tally.udp_bytes, got.iter().map(Vec::len).sum::<usize>() as u64);
}

#[test]
fn who_comes_from_another_variant_keeps_its_numbers_and_nobody_else_notices() {
    let (start, mut udp, mut broadcast) = (base(), Udp::new(2), broadcast(20, 700));
    push(&mut broadcast, batch(0, 2, start));
    for viewer in 0..2 {
        udp.seat(&mut broadcast, start);
        udp.serve(&mut broadcast, viewer, start);
    }
    // As `move_to` does: packet 2 would have been number 7 where it comes from.
    let (hot, cold) = broadcast.viewers.both_mut(1).unwrap();
    hot.next.sequence = 7;
    cold.track.switch(&mut hot.next, 3, 2);
    for (first, count) in [(2, 5), (7, 9)] {
        push(&mut broadcast, batch(first, count, start));
        let numbers = first..first + count;
        assert_eq!(udp.serve(&mut broadcast, 0, start).0, expected(Carriage::Datagrams, 2, numbers.clone(), 0));
        assert_eq!(udp.serve(&mut broadcast, 1, start).0, expected(Carriage::Datagrams, 2, numbers.clone(), 5));
    }
    // The same from the batches, as for those who were left behind.
    broadcast.nothing_is_fresh();
    for viewer in [0, 1] {
        let (hot, cold) = broadcast.viewers.both_mut(viewer).unwrap();
        cold.track.jump(&mut hot.next, 1);
        (hot.next.sequence, hot.phase) = (1 + if viewer == 1 { 5 } else { 0 }, Phase::CatchingUp);
    }
    for (viewer, ahead) in [(0, 0), (1, 5)] {
        assert_eq!(udp.serve(&mut broadcast, viewer, start).0, expected(Carriage::Datagrams, 2, 1..16, ahead));
    }
}

#[test]
fn what_a_slow_viewer_loses_is_a_gap_in_its_numbers() {
    let (start, mut udp, mut broadcast) = (base(), Udp::new(1), broadcast(1, 1452));
    push(&mut broadcast, batch(0, 5, start));
    udp.seat(&mut broadcast, start);
    udp.serve(&mut broadcast, 0, start);
    for first in (5..2005).step_by(20) {
        push(&mut broadcast, batch(first, 20, start));
    }
    let mut tally = Tally::default();
    broadcast.serve(0, start, &udp.origins, &mut tally).unwrap();
    let first = tally.skipped + 5;
    assert!(tally.skipped > 500 && first.is_multiple_of(50));
    assert_eq!(udp.receive(0).first(), expected(Carriage::Datagrams, 1, first..first + 1, 0).first());
    let (hot, cold) = broadcast.viewers.both_mut(0).unwrap();
    assert_eq!(cold.track.lookup(&hot.next, 4).map(|sent| sent.packet), Some(4));
    assert_eq!(cold.track.lookup(&hot.next, in_flow(first)).map(|sent| sent.packet), Some(first));
    assert_eq!(cold.track.lookup(&hot.next, in_flow(first) - 1), None, "never sent");
}

#[test]
fn who_waits_for_a_key_frame_is_cued_before_it_comes() {
    let (start, mut udp, mut broadcast) = (base(), Udp::new(1), broadcast(20, 700));
    push(&mut broadcast, batch(10, 20, start));
    udp.seat(&mut broadcast, start);
    let serve = |broadcast: &mut Broadcast| broadcast.serve(0, start, &udp.origins, &mut Tally::default()).unwrap();
    assert_eq!((serve(&mut broadcast), broadcast.cue(0)), (Served::Live, None));
    push(&mut broadcast, batch(30, 30, start));
    assert_eq!(serve(&mut broadcast), Served::Cued);
    assert!(udp.receive(0).is_empty(), "first it is told");
    let cue = Some(Cue { sequence: FLOW.sequence.wrapping_add(100), timestamp: 50, head_start: None });
    assert_eq!(broadcast.cue(0), cue);
    assert_eq!(serve(&mut broadcast), Served::Live);
    assert_eq!(udp.receive(0), expected(Carriage::Datagrams, 2, 50..60, 0));
}

#[tokio::test]
async fn short_writes_lose_and_repeat_nothing() {
    // In one pass, and in batches as those get them who catch up; another viewer has another channel and other numbers.
    for (max_datagram, fragments, step, ahead) in [(1452, 1, 2999, 0), (700, 2, 2999, 3), (1452, 1, 40, 3), (700, 2, 40, 0)] {
        short_writes(max_datagram, fragments, step, ahead).await;
    }
}

async fn short_writes(max_datagram: usize, fragments: u16, step: u64, ahead: u32) {
    let control_message = Bytes::from([0xCC, 0x33, 0xCC, 0x33].repeat(12));
    let (start, mut broadcast) = (base(), broadcast(60, max_datagram));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = Rc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    socket2::SockRef::from(&*stream).set_send_buffer_size(8 << 10).unwrap();
    let (mut viewer, _) = listener.accept().await.unwrap();
    let (mut other, _other_end) = {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Viewer::over_tcp(1, Rc::new(stream)).framed(Framing::Rtp(Carriage::Interleaved { channel: 0 })), listener.accept().await)
    };
    let mut out = OutQueue::default();
    let mut seat = Viewer::over_tcp(0, Rc::clone(&stream)).framed(FRAMES);
    push(&mut broadcast, batch(0, 1, start));
    for viewer in [&mut seat, &mut other] {
        viewer.start(0, 0, SIZE);
        broadcast.place(viewer, start);
        (viewer.cold.pace, viewer.hot.phase) = (None, Phase::Live);
    }
    seat.hot.next.sequence += ahead;
    broadcast.viewers.push(seat);
    broadcast.viewers.push(other);
    for first in (1..3000).step_by(usize::try_from(step).unwrap()) {
        push(&mut broadcast, batch(first, (3000 - first).min(step), start));
    }
    let carriage = Carriage::Interleaved { channel: 5 };
    let frames = expected(carriage, fragments, 0..3000, ahead);
    let total: usize = frames.iter().map(Vec::len).sum();
    let (mut received, mut tally, mut blocked, mut control) = (Vec::new(), Tally::default(), 0, 0);
    while received.len() < total + control * 48 {
        let mut waits = true;
        if out.flush(&stream).unwrap() == Flushed::All {
            if control < 5 && blocked > 3 * control {
                out.push(control_message.clone());
                control += 1;
                continue;
            }
            if blocked % 4 == 0 {
                let _ = broadcast.serve(1, start, &Origins::default(), &mut Tally::default()).unwrap();
            }
            match broadcast.serve(0, start, &Origins::default(), &mut tally).unwrap() {
                Served::TcpBlocked(rest) => {
                    out.keep(rest);
                    blocked += 1;
                }
                Served::Live => waits = !out.is_empty(),
                other => panic!("{other:?}"),
            }
        }
        let mut buffer = [0; 5000];
        tokio::select! {
            read = viewer.read(&mut buffer) => received.extend_from_slice(&buffer[..read.unwrap()]),
            writable = stream.writable(), if waits => writable.unwrap(),
        }
    }
    assert!(blocked > 3 && control == 5, "{blocked} short writes, {control} control messages");
    let (mut rest, mut messages) = (received.as_slice(), 0);
    let mut frames = frames.iter();
    while !rest.is_empty() {
        if rest.starts_with(&control_message) {
            rest = &rest[48..];
            messages += 1;
        } else {
            let frame = frames.next().unwrap();
            assert!(rest.starts_with(frame), "in its turn, and never half of it");
            rest = &rest[frame.len()..];
        }
    }
    assert_eq!((messages, frames.next()), (control, None));
    let viewer = broadcast.viewers.swap_remove(0).unwrap();
    assert_eq!((tally.tcp_packets, tally.tcp_bytes, viewer.bytes()), (3000, total as u64, total as u64));
}

#[test]
fn a_file_has_a_flow_of_its_own() {
    let (now, mut udp) = (base(), Udp::new(1));
    let mut viewer = Viewer::over_udp(0, udp.route(0)).framed(DATAGRAMS);
    let flow = Flow { ssrc: 5, sequence: 65_530 };
    viewer.start(0, 0, SIZE);
    viewer.cold.track.jump(&mut viewer.hot.next, 7);
    let moment = Moment { now, free_since: now };
    let (mut stage, mut tally, mut got, mut bytes) = (Stage::new(700), Tally::default(), Vec::new(), 0);
    stage.begin(flow, None);
    (7..15).for_each(|number| stage.push(DATAGRAMS, number, &asf(number), now));
    // What has no room at once, then more behind it, and a seek; others use the stage meanwhile.
    for more in [None, Some(15..18), Some(100..104)] {
        if let Some(more) = more {
            let backlog = stage.behind(0, 0);
            stage.begin(Flow::default(), None);
            (0..3).for_each(|number| stage.push(FRAMES, number, &asf(number), now));
            stage.begin(flow, backlog);
            more.for_each(|number| stage.push(DATAGRAMS, number, &asf(number), now));
        }
        let count = stage.len().min(5);
        let sent = stage.send(&mut viewer, moment, 0, count, &udp.origins, &mut tally).unwrap();
        assert!((sent.begun, sent.blocked.is_none()) == (count, true));
        bytes += sent.bytes;
        got.extend(udp.receive(0));
        let rest = stage.behind(count, 0);
        stage.begin(flow, rest);
    }
    let sequence = |rtp: &Vec<u8>| u16::from_be_bytes([rtp[2], rtp[3]]);
    assert!(got.iter().zip(0..).all(|(rtp, n)| sequence(rtp) == 65_530_u16.wrapping_add(n) && rtp[8..12] == [0, 0, 0, 5]));
    assert_eq!((got.len(), bytes, viewer.bytes()), (30, got.iter().map(Vec::len).sum(), bytes as u64));
    let (mut depacketizer, mut packets) = (Depacketizer::new(SIZE), Vec::new());
    for rtp in &got {
        depacketizer.push(rtp, |packet| padding::restore(packet, SIZE, &mut packets).unwrap()).unwrap();
    }
    let sent: Vec<u8> = (7..18).chain(100..104).flat_map(asf).collect();
    assert!(packets == sent && depacketizer.losses() == Losses::default());
}

#[tokio::test]
async fn a_frame_of_a_file_is_never_a_fragment() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = Rc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    socket2::SockRef::from(&*stream).set_send_buffer_size(8 << 10).unwrap();
    let (mut player, _) = listener.accept().await.unwrap();
    let mut viewer = Viewer::over_tcp(0, Rc::clone(&stream)).framed(FRAMES);
    viewer.start(0, 0, SIZE);
    let (now, mut stage, mut tally) = (base(), Stage::new(700), Tally::default());
    let moment = Moment { now, free_since: now };
    stage.begin(FLOW, None);
    (0..2000).for_each(|number| stage.push(FRAMES, number, &asf(number), now));
    let sent = stage.send(&mut viewer, moment, 0, 2000, &Origins::default(), &mut tally).unwrap();
    let Some(Blocked::Tcp(Some(rest))) = sent.blocked else { panic!("no such buffer takes 2 MB") };
    let all = expected(Carriage::Interleaved { channel: 5 }, 1, 0..2000, 0).concat();
    let frames = &all[..sent.bytes];
    assert!(sent.begun < 2000 && tally.tcp_bytes == sent.bytes as u64);
    let (mut out, mut got, mut buffer) = (OutQueue::default(), Vec::new(), [0; 5000]);
    out.keep(Some(rest));
    while got.len() < frames.len() {
        out.flush(&stream).unwrap();
        tokio::select! {
            read = player.read(&mut buffer) => got.extend_from_slice(&buffer[..read.unwrap()]),
            writable = stream.writable(), if !out.is_empty() => writable.unwrap(),
        }
    }
    assert!(got == frames, "up to the end of the packet that was cut");
}

/// A session that was sent packets 50 to 59 by UDP, of which nothing is known to have arrived.
struct Playing {
    shard: State,
    key: usize,
    start: Instant,
    udp: Udp,
    /// Sequence number of packet 50.
    next: u16,
    _player: TcpStream,
}

const VIEWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

impl Playing {
    async fn new(max_datagram: usize, fragments: u16) -> Self {
        let mut settings = Settings::default();
        (settings.udp.max_datagram_v4, settings.udp.max_datagram_v6) = (max_datagram, max_datagram);
        settings.publishing_points = settings.publishing_points_or_demo();
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        let mut shard = State::new(Arc::new(super::super::Context::for_tests(settings, relay, sender)), 0);
        let (start, mut udp) = (base(), Udp::new(2));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let player = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, local) = listener.accept().await.unwrap();
        let arrival = Arrival {
            peer: (VIEWER, 40_000).into(),
            local,
            at: start,
            udp: Some(Arc::clone(&udp.port)),
            protocol: Protocol::Mms,
            tls: false,
            takes_publishers: false,
        };
        let key = shard.admit(start, arrival, Rc::new(stream));
        let (media, again) = (udp.route(0), udp.route(1));
        shard.origins = std::mem::take(&mut udp.origins);
        let point = Arc::clone(&shard.context.relay.points()[0]);
        let conn = &mut shard.conns[key];
        (conn.route, conn.framing) = (Some(media), DATAGRAMS);
        conn.resend_path = Some(Box::new(ResendPath { route: again, leases: Vec::new() }));
        conn.opened = Some(Opened { generation: Some(0), packet_size: SIZE, flow: FLOW, ..Opened::new(point, "demo") });
        push(&mut shard.broadcasts[0], batch(0, 60, start));
        shard.play(key, start, 0);
        let Place::Seat(index) = shard.conns[key].place else { panic!("it plays") };
        let next = FLOW.sequence_of(50, fragments);
        let cue = Cue { sequence: next, timestamp: 50, head_start: None };
        assert_eq!(shard.broadcasts[0].cue(index), Some(cue.clone()));
        shard.look_at_answer(key, &Answer::Cued(cue));
        let (hot, cold) = shard.broadcasts[0].viewers.both_mut(index).unwrap();
        (hot.phase, cold.pace) = (Phase::Live, None);
        shard.broadcasts[0].serve(index, start, &shard.origins, &mut shard.tally).unwrap();
        Self { shard, key, start, udp, next, _player: player }
    }

    /// Whether a report of the highest number of each flow takes back that UDP does not arrive at its address.
    fn is_cleared_by(&mut self, highest: &[(u32, u16)]) -> bool {
        let relay = Arc::clone(&self.shard.context.relay);
        let learned = relay.admission().learned();
        learned.reset(None);
        assert!(learned.failed(self.start, VIEWER, Sign::SecondAttempt));
        let blocks = highest.iter().map(|(ssrc, highest)| ReportBlock { ssrc: *ssrc, highest: *highest }).collect();
        self.shard.look_at_report(self.key, self.start, &ReceiverReport { blocks });
        !learned.would_refuse(self.start, VIEWER)
    }

    /// Something is sent to it for the first time.
    fn begin_trial(&mut self) {
        self.shard.conns[self.key].udp_trial = None;
        self.shard.udp_was_sent(self.key, self.start);
    }
}

#[tokio::test]
async fn what_is_asked_for_again_is_the_very_datagram() {
    for (max_datagram, fragments) in [(1452, 1), (700, 2)] {
        let Playing { mut shard, key, udp, next, .. } = Playing::new(max_datagram, fragments).await;
        let sent = udp.receive(0);
        assert_eq!(sent, expected(Carriage::Datagrams, fragments, 50..60, 0));
        for rtp in &sent {
            shard.resend(key, u16::from_be_bytes([rtp[2], rtp[3]]).into());
        }
        // Before it came, not yet, and long ago.
        let end = next.wrapping_add(10 * fragments);
        for sequence in [next.wrapping_sub(1), end, end.wrapping_add(1), end.wrapping_sub(9000)] {
            shard.resend(key, sequence.into());
        }
        assert_eq!(udp.receive(1), sent);
        assert!(udp.receive(0).is_empty());
    }
}

#[tokio::test]
async fn a_report_of_what_was_sent_shows_that_it_arrives() {
    for (max_datagram, fragments) in [(1452, 1), (700, 2)] {
        let mut playing = Playing::new(max_datagram, fragments).await;
        let (next, ssrc) = (playing.next, FLOW.ssrc);
        let (end, other) = (next.wrapping_add(10 * fragments), ssrc + 1);
        assert!(!playing.is_cleared_by(&[(ssrc, end - 1)]), "nothing was sent yet");
        playing.begin_trial();
        // Of another flow, of what was told over TCP, before it came, not yet, and long ago.
        assert!(!playing.is_cleared_by(&[(other, end - 1)]) && !playing.is_cleared_by(&[]));
        for highest in [next, next.wrapping_sub(1), end, end.wrapping_add(1), end.wrapping_sub(9000)] {
            assert!(!playing.is_cleared_by(&[(ssrc, highest)]), "{highest}");
        }
        for blocks in [&[(ssrc, next + 1)][..], &[(ssrc, end - 1)], &[(other, 0), (ssrc, end - 2)]] {
            playing.begin_trial();
            assert!(playing.is_cleared_by(blocks), "{blocks:?}");
        }
        // It is known, and says nothing of what others meet later.
        assert!(!playing.is_cleared_by(&[(ssrc, end - 1)]));
        playing.begin_trial();
        let viewers = &mut playing.shard.broadcasts[0].viewers;
        viewers.hot_mut(0).unwrap().framing = FRAMES;
        assert!(!playing.is_cleared_by(&[(ssrc, end - 1)]), "it came on the connection");
    }
}

/// What ICMP says, milliseconds after the first datagram.
impl Playing {
    fn unreached(&mut self, ms: u64, is_settled: bool) {
        self.shard.look_at_icmp(self.key, self.start + Duration::from_millis(ms), is_settled);
    }

    fn state(&self) -> (bool, bool, bool) {
        let conn = &self.shard.conns[self.key];
        (conn.closing.is_some(), conn.is_mute(), matches!(conn.place, Place::Seat(_)))
    }

    fn is_rejected(&self) -> bool {
        let learned = self.shard.context.relay.admission().learned();
        let port = self.udp.sockets[0].local_addr().unwrap().port();
        learned.refuses_ports(self.start, VIEWER, &[port], &Default::default())
    }
}

#[tokio::test]
async fn a_session_that_icmp_is_about_is_held_where_nothing_has_arrived() {
    let mut playing = Playing::new(1452, 1).await;
    playing.begin_trial();
    for (ms, is_settled) in [(10, false), (900, false)] {
        playing.unreached(ms, is_settled);
        assert_eq!(playing.state(), (false, false, true), "{ms}");
    }
    assert!(!playing.is_rejected());
    playing.udp.receive(0);
    playing.unreached(2100, true);
    assert_eq!(playing.state(), (false, true, false), "it is held, and sent nothing more");
    assert!(playing.is_rejected());
    playing.shard.resend(playing.key, playing.next.into());
    playing.shard.send_datagram(playing.key, b"header");
    assert!(playing.udp.receive(1).is_empty());
    playing.unreached(2200, true);
    playing.shard.sweep_mute(playing.start + Duration::from_millis(62_099));
    assert_eq!(playing.state(), (false, true, false));
    playing.shard.sweep_mute(playing.start + Duration::from_millis(62_100));
    assert_eq!(playing.state(), (true, true, false), "no player waits so long");
}

#[tokio::test]
async fn one_icmp_error_is_not_enough_and_a_late_one_is_no_firewalls() {
    let mut playing = Playing::new(1452, 1).await;
    playing.begin_trial();
    playing.unreached(2500, true);
    assert_eq!((playing.state(), playing.is_rejected()), ((false, false, true), false), "of the last owner, maybe");
    let mut late = Playing::new(1452, 1).await;
    late.begin_trial();
    late.unreached(3000, true);
    late.unreached(3100, true);
    assert_eq!((late.state(), late.is_rejected()), ((false, true, false), false), "the player closed it");
}

#[tokio::test]
async fn a_session_that_icmp_is_about_ends_where_something_has_arrived() {
    let mut playing = Playing::new(1452, 1).await;
    playing.begin_trial();
    assert!(playing.is_cleared_by(&[(FLOW.ssrc, playing.next + 1)]));
    playing.unreached(900, false);
    assert_eq!(playing.state(), (false, false, true));
    playing.unreached(2500, true);
    assert_eq!((playing.state(), playing.is_rejected()), ((true, false, false), false));
    // It was not known until it was held.
    let mut playing = Playing::new(1452, 1).await;
    playing.begin_trial();
    playing.unreached(900, false);
    playing.unreached(2500, true);
    assert_eq!(playing.state(), (false, true, false));
    assert!(playing.is_rejected() && playing.is_cleared_by(&[(FLOW.ssrc, playing.next + 1)]));
    assert_eq!((playing.state(), playing.is_rejected()), ((true, false, false), false));
}
