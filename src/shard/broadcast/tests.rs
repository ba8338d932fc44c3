//! A broadcast's viewers over real sockets of this machine, and a virtual clock.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::asf::StreamSet;
use crate::http::wrap::Wrap;
use crate::mms::media::{DataHead, HEAD_LEN};
use crate::relay::BatchPacket;
use crate::shard::out_queue::{Flushed, OutQueue};
use crate::shard::udp::{Route, UdpPort};

const SIZE: usize = 1000;
const STRIDE: usize = SIZE + HEAD_LEN;
const SSRC: u32 = 0x90CB_CAAC;
const SEQUENCE: u16 = 0xFFF0;

#[expect(clippy::disallowed_methods, reason = "the base of a virtual clock")]
fn base() -> Instant {
    Instant::now()
}

fn generation(number: u32) -> Arc<Generation> {
    let video: StreamSet = [1].into_iter().collect();
    let header = Bytes::from_static(b"header");
    Arc::new(Generation {
        number,
        header,
        packet_size: SIZE,
        preroll_ms: 0,
        bit_rate: 1_000_000,
        streams: video,
        video,
        ssrc: SSRC,
        sequence: SEQUENCE,
    })
}

/// Packets `first..first + count`, a millisecond apart, each filled with its number; every 50th starts a key frame.
fn batch(generation: &Arc<Generation>, first: u64, count: u64, due: Instant) -> Arc<Batch> {
    let numbers = first..first + count;
    let packet = |number: u64| BatchPacket {
        number,
        send_time_ms: u32::try_from(number).unwrap(),
        join_point: number.is_multiple_of(50),
        key: number.is_multiple_of(50),
        used_len: 1000,
    };
    let bytes = numbers.clone().flat_map(|number| vec![number.to_le_bytes()[0]; SIZE]).collect::<Vec<_>>().into();
    Arc::new(Batch { generation: Arc::clone(generation), first, bytes, packets: numbers.map(packet).collect(), due })
}

fn broadcast(seconds: u32) -> Broadcast {
    let mut broadcast = Broadcast::new(&WindowBounds { seconds, bytes: 64 << 20 });
    broadcast.generation = Some(generation(0));
    broadcast
}

struct Udp {
    viewer: UdpSocket,
    origins: Origins,
    route: Route,
}

impl Udp {
    fn new() -> Self {
        let viewer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        viewer.set_nonblocking(true).unwrap();
        let port = Arc::new(UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap());
        let mut origins = Origins::default();
        let origin = origins.id(&port, Ipv4Addr::LOCALHOST.into()).unwrap();
        let destination = viewer.local_addr().unwrap().into();
        Self { viewer, origins, route: Route { destination, origin, segmented: true, fragmented: false } }
    }

    fn seat(&self, broadcast: &mut Broadcast, now: Instant) {
        let mut viewer = Viewer::over_udp(0, self.route);
        viewer.start(10, 0, SIZE);
        broadcast.place(&mut viewer, now);
        broadcast.viewers.push(viewer);
    }

    /// (LocationId, incarnation, AFFlags) of all datagrams that are there; their bodies are checked.
    fn receive(&self) -> Vec<(u32, u8, u8)> {
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| self.viewer.recv(&mut buffer).ok().map(|len| check(&buffer[..len]))).collect()
    }

    fn serve(&self, broadcast: &mut Broadcast, now: Instant) -> (Served, Tally) {
        let mut tally = Tally::default();
        (broadcast.serve(0, now, &self.origins, &mut tally).unwrap(), tally)
    }
}

fn check(packet: &[u8]) -> (u32, u8, u8) {
    let head = DataHead::parse(packet).unwrap();
    assert_eq!(packet.len(), STRIDE);
    assert!(packet[HEAD_LEN..].iter().all(|byte| *byte == head.location.to_le_bytes()[0]), "the body of {}", head.location);
    (head.location, head.incarnation, head.flags)
}

/// A batch comes, and there is no tick.
fn push(broadcast: &mut Broadcast, batch: Arc<Batch>) {
    let due = batch.due;
    broadcast.push(due, Duration::ZERO, batch);
    broadcast.begin_pass(due, Duration::ZERO);
}

#[test]
fn a_join_begins_at_a_key_frame_and_catches_up_at_its_pace() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(20));
    push(&mut broadcast, batch(&generation(0), 0, 130, start));
    udp.seat(&mut broadcast, start);
    let (mut now, mut all) = (start, Vec::new());
    loop {
        let (served, _) = udp.serve(&mut broadcast, now);
        let got = udp.receive();
        assert!(got.len() <= 8, "{} packets in a tick", got.len());
        all.extend(got);
        match served {
            Served::Live => break,
            Served::CatchingUp => now += Duration::from_millis(10),
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<_> = (100..130).zip(0..).map(|(location, flags)| (location, 10, flags)).collect();
    assert_eq!(all, expected);
    // Live: a batch goes out whole, in one call, with numbers that run on.
    push(&mut broadcast, batch(&generation(0), 130, 20, now));
    let (served, tally) = udp.serve(&mut broadcast, now);
    assert_eq!((served, tally.udp_calls, tally.udp_packets), (Served::Live, 1, 20));
    assert_eq!(udp.receive().first(), Some(&(130, 10, 30)));
}

#[test]
fn small_batches_are_gathered_into_one_call() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(20));
    push(&mut broadcast, batch(&generation(0), 0, 1, start));
    udp.seat(&mut broadcast, start);
    assert_eq!(udp.serve(&mut broadcast, start).0, Served::Live);
    for number in 1..=10 {
        push(&mut broadcast, batch(&generation(0), number, 1, start));
    }
    let (_, tally) = udp.serve(&mut broadcast, start);
    assert_eq!((tally.udp_calls, tally.udp_packets), (1, 10));
    assert_eq!(udp.receive().len(), 11);
}

#[test]
fn without_a_key_frame_a_viewer_waits_for_one() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(20));
    push(&mut broadcast, batch(&generation(0), 10, 20, start));
    udp.seat(&mut broadcast, start);
    assert_eq!(udp.serve(&mut broadcast, start), (Served::Live, Tally::default()));
    push(&mut broadcast, batch(&generation(0), 30, 30, start));
    udp.serve(&mut broadcast, start);
    assert_eq!(udp.receive().first(), Some(&(50, 10, 0)));
}

#[test]
fn a_viewer_slower_than_the_window_goes_on_at_a_key_frame_without_a_hole_in_its_numbers() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(1));
    push(&mut broadcast, batch(&generation(0), 0, 5, start));
    udp.seat(&mut broadcast, start);
    let mut now = start;
    while udp.serve(&mut broadcast, now).0 != Served::Live {
        now += Duration::from_millis(10);
    }
    let before = udp.receive().len();
    for first in (5..4005).step_by(20) {
        push(&mut broadcast, batch(&generation(0), first, 20, now));
    }
    let (_, tally) = udp.serve(&mut broadcast, now);
    let next = udp.receive()[0];
    assert!(tally.skipped > 2000 && broadcast.viewers.cold(0).unwrap().skipped == tally.skipped);
    assert!(next.0.is_multiple_of(50), "goes on at a key frame: {}", next.0);
    assert_eq!(usize::from(next.2), before, "packets that were skipped used no number");
}

#[test]
fn another_header_stops_a_viewer_at_the_boundary() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(20));
    push(&mut broadcast, batch(&generation(0), 0, 5, start));
    udp.seat(&mut broadcast, start);
    broadcast.generation = Some(generation(1));
    push(&mut broadcast, batch(&generation(1), 5, 5, start));
    let mut now = start;
    let served = loop {
        match udp.serve(&mut broadcast, now).0 {
            Served::CatchingUp => now += Duration::from_millis(10),
            served => break served,
        }
    };
    assert_eq!((served, udp.receive().len()), (Served::NewGeneration, 5));
    broadcast.ended = true;
    broadcast.viewers.hot_mut(0).unwrap().generation = 1;
    assert_eq!(udp.serve(&mut broadcast, now + Duration::from_millis(10)).0, Served::Finished);
    assert_eq!(udp.receive().len(), 5);
}

#[test]
fn a_viewer_of_a_header_without_packets_waits_for_its_first_key_frame() {
    let (start, udp, mut broadcast) = (base(), Udp::new(), broadcast(20));
    push(&mut broadcast, batch(&generation(0), 0, 200, start));
    broadcast.generation = Some(generation(1));
    udp.seat(&mut broadcast, start);
    let mut viewer = broadcast.viewers.swap_remove(0).unwrap();
    viewer.start(10, 1, SIZE);
    broadcast.place(&mut viewer, start);
    broadcast.viewers.push(viewer);
    assert_eq!(udp.serve(&mut broadcast, start).0, Served::Live);
    push(&mut broadcast, batch(&generation(1), 200, 30, start));
    udp.serve(&mut broadcast, start);
    assert_eq!(udp.receive().first(), Some(&(200, 10, 0)));
}

#[tokio::test]
async fn short_writes_lose_and_repeat_nothing() {
    let framings = [Framing::Mms, Framing::Http(Wrap::Chunked), Framing::Http(Wrap::Framed), Framing::Http(Wrap::Raw)];
    for framing in framings {
        // In one pass, and in batches as those get them who catch up.
        for in_batches in [false, true] {
            short_writes(framing, in_batches).await;
        }
    }
}

/// One packet as a viewer over TCP gets it.
fn framed(framing: Framing, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    framing.push(&[number.to_le_bytes()[0]; SIZE], number, &mut bytes);
    if framing == Framing::Mms {
        crate::mms::media::stamp(&mut bytes, STRIDE, 4, u32::try_from(number).unwrap());
    }
    bytes
}

async fn short_writes(framing: Framing, in_batches: bool) {
    const CONTROL: [u8; 4] = [0xCC, 0x33, 0xCC, 0x33];
    let control_message = Bytes::from(CONTROL.repeat(12));
    let (start, mut broadcast) = (base(), broadcast(60));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stream = Rc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    socket2::SockRef::from(&*stream).set_send_buffer_size(8 << 10).unwrap();
    let (mut viewer, _) = listener.accept().await.unwrap();
    let mut out = OutQueue::default();
    let mut seat = Viewer::over_tcp(0, Rc::clone(&stream));
    seat.hot.framing = framing;
    seat.start(4, 0, SIZE);
    push(&mut broadcast, batch(&generation(0), 0, 1, start));
    broadcast.place(&mut seat, start);
    (seat.cold.pace, seat.hot.phase) = (None, Phase::Live);
    broadcast.viewers.push(seat);
    for first in (1..3000).step_by(if in_batches { 40 } else { 2999 }) {
        let count = (3000 - first).min(if in_batches { 40 } else { 2999 });
        push(&mut broadcast, batch(&generation(0), first, count, start));
    }
    let stride = framing.stride(SIZE);

    let (mut received, mut tally, mut blocked, mut control) = (Vec::new(), Tally::default(), 0, 0);
    while received.len() < 3000 * stride + control * 48 {
        let mut waits = true;
        if out.flush(&stream).unwrap() == Flushed::All {
            // Some control messages between the packets, as pings are.
            if control < 5 && blocked > 3 * control {
                out.push(control_message.clone());
                control += 1;
                continue;
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
    let (mut rest, mut packets, mut messages) = (received.as_slice(), 0, 0);
    while !rest.is_empty() {
        if rest.starts_with(&control_message) {
            rest = &rest[48..];
            messages += 1;
        } else {
            assert!(rest[..stride] == framed(framing, packets), "packet {packets} as {framing:?}");
            rest = &rest[stride..];
            packets += 1;
        }
    }
    assert_eq!((messages, packets), (control, 3000));
}
