//! Passes over seated viewers, without threads and without a relay behind them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::asf::StreamSet;
use crate::mms::session::Config;
use crate::relay::{Batch, BatchPacket, Delivery, Generation, Relay};
use crate::settings::Settings;
use crate::shard::Context;
use crate::shard::broadcast::Viewer;
use crate::shard::command::CommandSender;
use crate::shard::conn::{Opened, Place};
use crate::shard::pace::Pace;
use crate::shard::state::Arrival;
use crate::shard::udp::Route;
use crate::wire::Guid;

const SIZE: usize = 1000;

fn now() -> Instant {
    Clock::now().into_std()
}

/// A shard with two publishing points.
fn shard() -> State {
    let mut settings = Settings::default();
    let first = settings.publishing_points_or_demo().remove(0);
    let second = crate::settings::PublishingPoint { name: "second".into(), ..first.clone() };
    settings.publishing_points = vec![first, second];
    let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
    let (sender, _) = tokio::sync::mpsc::unbounded_channel();
    let context = Context {
        settings: Arc::new(settings),
        relay,
        shards: vec![CommandSender(sender)],
        routes: Arc::default(),
        udp_ports: Vec::new(),
        mms_with_udp: Arc::new(Config::default()),
        mms_without_udp: Arc::new(Config { udp: false, ..Config::default() }),
        sessions: AtomicU64::new(0),
        next_shard: AtomicUsize::new(0),
        beat: Arc::new(|_, _| {}),
    };
    State::new(Arc::new(context), 0)
}

fn generation(number: u32) -> Arc<Generation> {
    let video: StreamSet = [1].into_iter().collect();
    let header = Bytes::from_static(b"header");
    Arc::new(Generation { number, header, packet_size: SIZE, preroll_ms: 0, bit_rate: 1_000_000, streams: video, video })
}

fn batch(generation: &Arc<Generation>, first: u64, count: usize) -> Arc<Batch> {
    let packet = |number| BatchPacket { send_time_ms: number, join_point: true, used_len: 1000 };
    let packets = (u32::try_from(first).unwrap()..).map(packet).take(count).collect();
    Arc::new(Batch { generation: Arc::clone(generation), first, bytes: vec![0; SIZE * count].into(), packets, due: now() })
}

/// A UDP viewer in the first seat of a publishing point, and what must stay open for it.
struct Seated {
    key: usize,
    port: Arc<UdpPort>,
    _player: (TcpStream, UdpSocket),
}

async fn seat(shard: &mut State, point: usize) -> Seated {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let player = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = Arc::new(UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap());
    let arrival = Arrival { peer, local: listener.local_addr().unwrap(), at: now(), udp: Some(Arc::clone(&port)) };
    let key = shard.admit(now(), arrival, Rc::new(stream));
    let destination = socket.local_addr().unwrap();
    let opens = Arc::clone(&shard.context.relay.points()[point]);
    let conn = &mut shard.conns[key];
    conn.route = Some(Route { destination, source: Ipv4Addr::LOCALHOST.into(), segmented: true, fragmented: false });
    conn.opened = Some(Opened { generation: Some(0), header_bytes: 6, _watch: opens.watch(), point: opens });
    conn.place = Place::Seat(0);
    let viewer = Viewer::new(key, conn.transport(), 0);
    shard.broadcasts[point].viewers.push(viewer);
    Seated { key, port, _player: (player, socket) }
}

/// One pass in which these UDP ports are found full.
fn pass(shard: &mut State, full: &[&Arc<UdpPort>]) {
    let mut pass = shard.begin_pass();
    pass.full.extend(full.iter().map(|port| Arc::clone(port)));
    let mut position = Position::default();
    while shard.turn(&mut position, &mut pass) {}
    shard.end_pass(pass);
}

#[tokio::test]
async fn a_full_socket_is_remembered_for_all_publishing_points() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 1).await;
    shard.deliver(now(), Delivery::Batch { point: PointId(1), batch: batch(&generation(0), 0, 3) });
    pass(&mut shard, &[&viewer.port]);
    assert_eq!((shard.broadcasts[1].viewers[0].packets, shard.work()), (0, (true, false)));
    assert_eq!(shard.broadcasts[1].unsent.len(), 1, "the delay is measured when it is sent");
    pass(&mut shard, &[]);
    assert_eq!((shard.broadcasts[1].viewers[0].packets, shard.work()), (3, (false, false)));
    assert!(shard.broadcasts[1].unsent.is_empty());
}

#[tokio::test]
async fn a_full_socket_does_not_stop_who_catches_up() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 1).await;
    shard.broadcasts[1].viewers[0].pace = Some(Pace::new(now(), 0, true));
    shard.deliver(now(), Delivery::Batch { point: PointId(1), batch: batch(&generation(0), 0, 300) });
    pass(&mut shard, &[]);
    assert_eq!(shard.work(), (false, true));
    pass(&mut shard, &[&viewer.port]);
    assert_eq!(shard.work(), (false, true));
}

#[tokio::test]
async fn packets_of_a_header_that_is_gone_by_now_are_announced_all_the_same() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 0).await;
    let point = PointId(0);
    shard.broadcasts[0].viewers[0].awaits_join_point = false;
    for delivery in [
        Delivery::Batch { point, batch: batch(&generation(0), 0, 3) },
        Delivery::Generation { point, generation: generation(1) },
        Delivery::Batch { point, batch: batch(&generation(1), 3, 3) },
        Delivery::Ended { point },
    ] {
        shard.deliver(now(), delivery);
    }
    pass(&mut shard, &[]);
    assert_eq!(shard.broadcasts[0].viewers[0].packets, 3);
    assert_eq!(shard.conns[viewer.key].opened.as_ref().unwrap().generation, Some(1));
}

#[tokio::test]
async fn who_takes_the_seat_of_another_is_not_passed_over() {
    let mut shard = shard();
    let mut seated = Vec::new();
    for index in 0..3 {
        let viewer = seat(&mut shard, 0).await;
        shard.conns[viewer.key].place = Place::Seat(index);
        seated.push(viewer);
    }
    shard.deliver(now(), Delivery::Batch { point: PointId(0), batch: batch(&generation(0), 0, 3) });
    let mut pass = shard.begin_pass();
    // The last one is served, then the first leaves and the last takes its seat.
    let mut position = Position { point: 0, left: Some(3) };
    assert!(!shard.serve(PointId(0), 2, now()));
    position.left = Some(2);
    shard.remove(seated[0].key, now());
    while shard.turn(&mut position, &mut pass) {}
    assert!(shard.broadcasts[0].viewers.iter().all(|viewer| viewer.packets == 3));
}
