//! Passes over seated viewers, without threads and without a relay behind them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::asf::StreamSet;
use crate::relay::{Batch, BatchPacket, Delivery, Generation, PointId, Relay};
use crate::settings::Settings;
use crate::shard::Context;
use crate::shard::broadcast::Viewer;
use crate::shard::conn::{Opened, Place};
use crate::shard::pace::Pace;
use crate::shard::sniff::Protocol;
use crate::shard::state::Arrival;
use crate::shard::udp::Route;
use crate::wire::Guid;

const SIZE: usize = 1000;

fn now() -> Instant {
    Clock::now().into_std()
}

/// So long ago that what came then is due.
fn before() -> Instant {
    now() - Duration::from_secs(1)
}

/// A shard with two publishing points.
fn shard() -> State {
    let mut settings = Settings::default();
    let first = settings.publishing_points_or_demo().remove(0);
    let second = crate::settings::PublishingPoint { name: "second".into(), ..first.clone() };
    settings.publishing_points = vec![first, second];
    let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
    let (sender, _) = tokio::sync::mpsc::unbounded_channel();
    let context = Context::for_tests(settings, relay, sender);
    State::new(Arc::new(context), 0)
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
        ssrc: 7,
        sequence: 9,
    })
}

fn batch(generation: &Arc<Generation>, first: u64, count: usize) -> Arc<Batch> {
    let packet =
        |number| BatchPacket { number: u64::from(number), send_time_ms: number, join_point: true, key: true, used_len: 1000 };
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
    let arrival = Arrival {
        peer,
        local: listener.local_addr().unwrap(),
        at: now(),
        udp: Some(Arc::clone(&port)),
        protocol: Protocol::Mms,
        tls: false,
        takes_publishers: false,
    };
    let key = shard.admit(now(), arrival, Rc::new(stream));
    let destination = socket.local_addr().unwrap();
    let opens = Arc::clone(&shard.context.relay.points()[point]);
    let conn = &mut shard.conns[key];
    let origin = shard.origins.id(&port, Ipv4Addr::LOCALHOST.into()).unwrap();
    conn.route = Some(Route { destination: destination.into(), origin, segmented: true, fragmented: false });
    conn.opened = Some(Opened { generation: Some(0), header_bytes: 6, packet_size: SIZE, ..Opened::new(opens, "demo") });
    let viewer = Viewer::over_udp(key, conn.route.unwrap());
    conn.place = Place::Seat(shard.broadcasts[point].viewers.push(viewer));
    Seated { key, port, _player: (player, socket) }
}

/// One pass in which these UDP ports are found full.
fn pass(shard: &mut State, full: &[&Arc<UdpPort>]) {
    let mut pass = shard.begin_pass(now(), true);
    pass.full.extend(full.iter().map(|port| Arc::clone(port)));
    while shard.turn(&mut pass) {}
    shard.end_pass(&pass);
}

/// Whether those at the live edge of a publishing point have something to get, and whether somebody catches up.
fn work(shard: &State, point: usize) -> (bool, bool) {
    let broadcast = &shard.broadcasts[point];
    (broadcast.next_due().is_some(), broadcast.catching_up)
}

fn packets(shard: &State, point: usize) -> u64 {
    shard.broadcasts[point].viewers.hot(0).unwrap().packets
}

#[tokio::test]
async fn a_full_socket_is_remembered_for_all_publishing_points() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 1).await;
    shard.deliver(before(), Delivery::Batch { point: PointId(1), batch: batch(&generation(0), 0, 3) });
    pass(&mut shard, &[&viewer.port]);
    assert_eq!((packets(&shard, 1), work(&shard, 1)), (0, (true, false)));
    assert_eq!(shard.broadcasts[1].unsent.len(), 1, "the delay is measured when it is sent");
    pass(&mut shard, &[]);
    assert_eq!((packets(&shard, 1), work(&shard, 1)), (3, (false, false)));
    assert!(shard.broadcasts[1].unsent.is_empty());
}

#[tokio::test]
async fn a_full_socket_does_not_stop_who_catches_up() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 1).await;
    let (hot, cold) = shard.broadcasts[1].viewers.both_mut(0).unwrap();
    (hot.phase, cold.pace) = (Phase::CatchingUp, Some(Pace::new(now(), 0, true)));
    shard.deliver(before(), Delivery::Batch { point: PointId(1), batch: batch(&generation(0), 0, 300) });
    pass(&mut shard, &[]);
    assert_eq!(work(&shard, 1), (false, true));
    pass(&mut shard, &[&viewer.port]);
    assert_eq!(work(&shard, 1), (false, true));
}

#[tokio::test]
async fn packets_of_a_header_that_is_gone_by_now_are_announced_all_the_same() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 0).await;
    let point = PointId(0);
    shard.broadcasts[0].viewers.hot_mut(0).unwrap().phase = Phase::Live;
    for delivery in [
        Delivery::Batch { point, batch: batch(&generation(0), 0, 3) },
        Delivery::Generation { point, generation: generation(1) },
        Delivery::Batch { point, batch: batch(&generation(1), 3, 3) },
        Delivery::Ended { point },
    ] {
        shard.deliver(before(), delivery);
    }
    pass(&mut shard, &[]);
    assert_eq!(packets(&shard, 0), 3);
    assert_eq!(shard.conns[viewer.key].opened.as_ref().unwrap().generation, Some(1));
}

#[tokio::test]
async fn who_takes_the_seat_of_another_is_not_passed_over() {
    let mut shard = shard();
    let mut seated = Vec::new();
    for _ in 0..3 {
        seated.push(seat(&mut shard, 0).await);
    }
    shard.deliver(before(), Delivery::Batch { point: PointId(0), batch: batch(&generation(0), 0, 3) });
    let mut pass = shard.begin_pass(now(), true);
    // The last one is served, then the first leaves and the last takes its seat.
    assert_eq!(shard.serve(0, 2, now()), Room::Enough);
    pass.left = Some(2);
    shard.remove(seated[0].key, now());
    while shard.turn(&mut pass) {}
    let served = (0..2).map(|index| shard.broadcasts[0].viewers.hot(index).unwrap().packets);
    assert_eq!(served.collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test]
async fn what_comes_within_a_tick_goes_out_in_one_send() {
    let mut shard = shard();
    let _viewer = seat(&mut shard, 0).await;
    shard.broadcasts[0].viewers.hot_mut(0).unwrap().phase = Phase::Live;
    let tick = shard.context.settings.delivery.tick;
    let come = |shard: &mut State, now, first| {
        shard.deliver(now, Delivery::Batch { point: PointId(0), batch: batch(&generation(0), first, 1) });
    };
    let start = now();
    come(&mut shard, start - Duration::from_millis(2), 0);
    assert_eq!(shard.next_pass(start), Some(start), "the first waits for the rest of its picture only");
    pass(&mut shard, &[]);
    assert_eq!(packets(&shard, 0), 1);
    for n in 0..4 {
        come(&mut shard, start + tick / 5 * n, u64::from(n) + 1);
        assert_eq!(shard.next_pass(start), Some(start + tick - tick / 8), "counted from when the last pass was due");
    }
    let mut early = shard.begin_pass(start + tick / 2, true);
    assert!(early.points.is_empty() && !shard.turn(&mut early));
    shard.end_pass(&early);
    assert_eq!(packets(&shard, 0), 1);
    let mut pass = shard.begin_pass(start + tick, false);
    assert!(!shard.turn(&mut pass));
    assert_eq!((packets(&shard, 0), shard.tally.udp_calls), (5, 1));
    shard.end_pass(&pass);
    assert_eq!(shard.next_pass(start), None);
}

#[tokio::test]
async fn one_late_picture_does_not_delay_all_that_follow() {
    let mut broadcast = Broadcast::new(&Settings::default().window);
    let (start, tick) = (now(), Duration::from_millis(40));
    let mut waits = Vec::new();
    for picture in 0..20u32 {
        let late = if picture == 5 { Duration::from_millis(30) } else { Duration::ZERO };
        let came = start + tick * picture + late;
        broadcast.push(came, tick, batch(&generation(0), picture.into(), 1));
        let due = broadcast.next_due().unwrap();
        broadcast.begin_pass(due, tick);
        waits.push((due - came).as_millis());
    }
    let (before, after) = waits.split_at(6);
    assert_eq!(before, [2; 6]);
    // 35 ms after the late one, and five earlier with each that follows.
    assert_eq!(after[..7], [27, 22, 17, 12, 7, 2, 2]);
}

#[tokio::test]
async fn a_point_in_time_does_not_hide_one_that_lags() {
    let mut shard = shard();
    let start = now();
    for n in 0..4u32 {
        let due = start + Duration::from_millis(300) * n;
        shard.broadcasts[0].lag.begin(due, due);
        shard.broadcasts[0].lag.end(due + Duration::from_millis(290), Duration::from_millis(250));
        shard.broadcasts[1].lag.begin(due + Duration::from_millis(295), due + Duration::from_millis(295));
        shard.broadcasts[1].lag.end(due + Duration::from_millis(296), Duration::from_millis(250));
    }
    assert!(shard.is_overloaded(start + Duration::from_millis(1200)));
}

#[tokio::test]
async fn what_was_cut_short_goes_on_before_anything_new() {
    let mut shard = shard();
    let viewer = seat(&mut shard, 0).await;
    shard.broadcasts[0].viewers.hot_mut(0).unwrap().phase = Phase::Live;
    let come = |shard: &mut State, first| {
        shard.deliver(before(), Delivery::Batch { point: PointId(0), batch: batch(&generation(0), first, 3) });
    };
    come(&mut shard, 0);
    pass(&mut shard, &[&viewer.port]);
    come(&mut shard, 3);
    pass(&mut shard, &[]);
    assert_eq!(packets(&shard, 0), 3);
    let mut next = shard.begin_pass(now() + shard.context.settings.delivery.tick, true);
    while shard.turn(&mut next) {}
    assert_eq!(packets(&shard, 0), 6);
}

#[tokio::test]
async fn a_send_that_is_full_waits_for_no_tick() {
    let mut shard = shard();
    let start = now() - Duration::from_millis(2);
    let come = |shard: &mut State, first| {
        shard.deliver(start, Delivery::Batch { point: PointId(0), batch: batch(&generation(0), first, 30) });
    };
    come(&mut shard, 0);
    pass(&mut shard, &[]);
    come(&mut shard, 30);
    assert!(shard.next_pass(start) > Some(start));
    come(&mut shard, 60);
    assert_eq!(shard.next_pass(start), Some(start), "60 packets of 1000 bytes are a whole call");
}

#[tokio::test]
async fn a_shard_that_lags_takes_nobody_on() {
    use crate::viewing::{Answer, Ask, Player};
    use crate::wire::Hresult;
    let mut shard = shard();
    let viewer = seat(&mut shard, 0).await;
    let start = now();
    let admit = |shard: &mut State, now| match shard.answer(viewer.key, now, Ask::Admit(Player::default())) {
        Some(Answer::Admitted(result)) => result,
        other => panic!("{other:?}"),
    };
    shard.deliver(start, Delivery::Batch { point: PointId(0), batch: batch(&generation(0), 0, 1) });
    let pass = shard.begin_pass(start + Duration::from_millis(2), false);
    assert_eq!(admit(&mut shard, start), Ok(()));
    // The pass does not come to its end.
    assert_eq!(admit(&mut shard, start + Duration::from_secs(1)), Err(Hresult::TOO_MANY_SESSIONS));
    let mut pass = pass;
    while shard.turn(&mut pass) {}
    shard.end_pass(&pass);
    assert_eq!(admit(&mut shard, now()), Ok(()));
}
