//! Our client and our server.

use std::time::Duration;

use super::world::{PACKETS_PER_S, World};
use crate::mms::session::{CloseReason, Transport};
use crate::mms::testing::{asf_header, description};
use crate::playing::{ClientEnd, ClientEvent, ClientInput, StartAt};
use crate::viewing::{Ask, Content, Description};
use crate::wire::Hresult;

const MINUTE: Duration = Duration::from_secs(60);

fn playing(transport: Transport) -> ClientEvent {
    ClientEvent::Playing { path: transport.into() }
}

fn other() -> Description {
    Description {
        header: asf_header(800, &[3], 2_000),
        packet_size: 800,
        bit_rate: 640_000,
        streams: [3].into_iter().collect(),
        content: Content::Live,
        ssrc: 0,
    }
}

#[test]
fn twenty_thousand_packets_over_a_link_that_loses_five_of_a_hundred() {
    for seed in [1, 0xDEAD_BEEF, 42] {
        let mut world = World::new(true, false);
        world.seed(seed);
        world.link.loss_permille = 50;
        world.link.jitter = Duration::from_millis(10);
        world.run(MINUTE * 10, |world| world.offered >= 20_000);
        world.end();
        world.run(MINUTE, |world| world.client_end.is_some());
        let stats = world.client.stats();
        assert_eq!(world.client_end, Some(ClientEnd::Ended), "{stats:?}");
        let delivered = world.packets.len() as u64;
        assert!(delivered * 1000 >= world.offered * 999, "{delivered} of {}: {stats:?}", world.offered);
        assert!(stats.gaps >= 800, "the link did lose: {stats:?}");
        assert_eq!(stats.gaps, stats.recovered + stats.lost, "{stats:?}");
        assert_eq!(stats.packets, delivered);
        // Nobody asks for much more than what is missing.
        let granted = world.session.report().resends_granted;
        assert!(granted <= stats.gaps * 2, "{granted} of {stats:?}");
    }
}

#[test]
fn nothing_is_asked_for_on_a_good_link() {
    for udp in [true, false] {
        let mut world = World::new(udp, false);
        // Datagrams overtake each other, but come within the reorder delay; some come twice.
        world.link.jitter = Duration::from_millis(25);
        world.link.twice_permille = 100;
        world.run(MINUTE, |world| world.packets.len() >= 3_000);
        let stats = world.client.stats();
        assert_eq!((stats.resend_requests, stats.lost), (0, 0), "{stats:?}");
        assert_eq!(stats.duplicates > 100, udp);
        assert_eq!(stats.reordered, stats.recovered);
        // Sequence numbers begin at 0 and follow the packet numbers.
        assert!((0..2_900).zip(world.packets.values()).all(|(n, sequence)| n == *sequence));
    }
}

#[test]
fn a_long_hole_is_noticed_and_counted() {
    let mut world = World::new(true, false);
    world.run(MINUTE, |world| world.packets.len() >= 500);
    world.link.loss_permille = 1000;
    world.run(Duration::from_secs(3), |_| false);
    world.link.loss_permille = 0;
    world.run(MINUTE, |world| world.packets.len() >= 2_000);
    let stats = world.client.stats();
    assert_eq!(stats.gaps, stats.recovered + stats.lost, "{stats:?}");
    assert!((290..=310).contains(&stats.gaps), "{stats:?}");
    // The server's limit lets through what it does in half a second.
    assert!(stats.recovered >= 64, "{stats:?}");
}

#[test]
fn udp_refused_goes_on_over_tcp_on_the_same_connection() {
    let mut world = World::new(true, true);
    world.claim = Err(Hresult::INVALID_PORT);
    world.run(MINUTE, |world| world.packets.len() >= 200);
    assert_eq!(world.events[0], ClientEvent::FunnelRefused(Hresult::INVALID_PORT));
    assert_eq!(world.events[2..], [ClientEvent::Starting, playing(Transport::Tcp)]);
    assert_eq!(world.session.report().refused_funnels, 1);
    assert!(world.now - world.start < Duration::from_secs(3));
}

#[test]
fn udp_refused_without_fall_back_ends() {
    let mut world = World::new(true, false);
    world.claim = Err(Hresult::DUPLICATE_ADDRESS);
    world.run(MINUTE, |world| world.client_end.is_some());
    let refused = ClientEnd::Refused { what: "the data path", hr: Hresult::DUPLICATE_ADDRESS };
    assert_eq!(world.client_end, Some(refused));
}

#[test]
fn a_header_datagram_is_lost() {
    let mut world = World::new(true, false);
    world.link.lose_first = 1;
    world.run(MINUTE, |world| world.packets.len() >= 200);
    assert_eq!(world.events, [ClientEvent::Header(description().header), ClientEvent::Starting, playing(Transport::Udp)]);
    // One header time of 1 s + 8 × 5000 / 1,000,000.
    let took = world.now - world.start;
    assert!(took > Duration::from_millis(1040) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn no_datagram_comes_through() {
    let mut world = World::new(true, true);
    world.link.lose_first = u32::MAX;
    world.run(MINUTE, |world| world.client_end.is_some());
    assert_eq!(world.client_end, Some(ClientEnd::HeaderLost));
    // The header and four more tries.
    assert!(world.now - world.start < Duration::from_secs(6));
}

#[test]
fn the_stream_changes_while_it_plays() {
    for udp in [true, false] {
        let mut world = World::new(udp, false);
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        world.run(MINUTE, |world| world.packets.len() >= 300);
        world.change(other());
        // Media rests until the client has the header and asks for it: no packet of the new size comes before.
        world.run(MINUTE, |world| world.events.len() >= 6);
        let header = ClientEvent::NewHeader(other().header);
        let starting = || ClientEvent::Starting;
        assert_eq!(world.events[1..], [starting(), playing(transport), header, starting(), playing(transport)]);
        let before = world.packets.len();
        world.run(MINUTE, |world| world.packets.len() >= before + 300);
        let stats = world.client.stats();
        assert_eq!((stats.gaps, stats.stale, stats.lost), (0, 0, 0), "{udp}: {stats:?}");
        let plays = world.asks.iter().filter(|ask| matches!(ask, Ask::Play { .. })).count();
        let stops = world.asks.iter().filter(|ask| matches!(ask, Ask::Stop)).count();
        assert_eq!((plays, stops), (2, 1));
        // Numbers run on over the change.
        let last = *world.packets.values().max().unwrap() as usize;
        assert_eq!(last + 1, world.packets.len());
    }
}

#[test]
fn the_stream_changes_on_a_lossy_link() {
    let mut world = World::new(true, false);
    world.link.loss_permille = 50;
    for n in 1..=8 {
        world.run(MINUTE, |world| world.packets.len() >= n * 300);
        world.change(if n % 2 == 1 { other() } else { description() });
    }
    world.run(MINUTE, |world| world.packets.len() >= 3_000);
    assert_eq!(world.client_end, None);
    let headers = world.events.iter().filter(|event| matches!(event, ClientEvent::NewHeader(_))).count();
    assert_eq!(headers, 8);
}

#[test]
fn the_broadcast_ends() {
    for udp in [true, false] {
        let mut world = World::new(udp, false);
        world.run(MINUTE, |world| world.packets.len() >= 100);
        world.end();
        let offered = world.offered;
        world.run(MINUTE, |world| world.server_end.is_some());
        assert_eq!((world.client_end.take(), world.server_end), (Some(ClientEnd::Ended), Some(CloseReason::Left)));
        assert_eq!(world.events.last(), Some(&ClientEvent::End { hr: Hresult::OK }));
        assert_eq!((world.packets.len() as u64, world.offered), (offered, offered), "no packet is lost at the end");
    }
}

#[test]
fn the_viewer_leaves() {
    let mut world = World::new(true, false);
    world.link.loss_permille = 20;
    world.run(MINUTE, |world| world.packets.len() >= 1_000);
    world.stop();
    world.run(MINUTE, |world| world.server_end.is_some());
    assert_eq!((world.client_end, world.server_end), (Some(ClientEnd::Stopped), Some(CloseReason::Left)));
    assert!(world.now - world.start < Duration::from_secs(20));
    // The server learns how it was.
    let report = world.session.report();
    let log = report.log.as_ref().unwrap();
    assert_eq!(u64::from(log.packets_received), world.client.stats().packets);
    assert_eq!(log.transport, "UDP");
    let player = report.player.as_ref().unwrap();
    assert_eq!((player.version, player.host.as_deref()), (Some((7, 1)), Some("relay.example")));
}

#[test]
fn pings_are_answered() {
    let mut world = World::new(true, false);
    world.run(MINUTE * 10, |_| false);
    assert_eq!((world.client_end.take(), world.server_end), (None, None));
    let stats = world.client.stats();
    assert_eq!((stats.packets + 20) / u64::from(PACKETS_PER_S), 600, "{stats:?}");
    // Seven messages up to playing, then a Pong every half minute.
    assert_eq!(world.session.report().messages, 7 + 19);
}

/// A seek in a broadcast leads nowhere, but stops and starts all the same: numbers run on, also where they wrap.
#[test]
fn seeks_and_pauses_keep_the_numbers() {
    for (udp, loss_permille) in [(true, 0), (true, 30), (false, 0)] {
        let mut world = World::new(udp, false);
        world.link.loss_permille = loss_permille;
        for n in 1..=60 {
            let before = world.packets.len();
            world.run(MINUTE, |world| world.packets.len() >= before + 37);
            if n % 3 == 0 {
                world.client.handle(world.now, ClientInput::Pause);
                world.settle();
                world.run(Duration::from_secs(2), |_| false);
                world.client.handle(world.now, ClientInput::Resume);
            } else {
                world.client.handle(world.now, ClientInput::Seek(StartAt::Time { s: 9.0 }));
            }
            world.settle();
        }
        let before = world.packets.len();
        world.run(MINUTE, |world| world.packets.len() >= before + 300);
        world.end();
        world.run(MINUTE, |world| world.client_end.is_some());
        let stats = world.client.stats();
        assert_eq!(world.client_end, Some(ClientEnd::Ended), "{stats:?}");
        assert_eq!(stats.gaps, stats.recovered + stats.lost, "{stats:?}");
        let stops = world.asks.iter().filter(|ask| matches!(ask, Ask::Stop)).count();
        assert_eq!(stops, 60 + 1, "and the end");
        if loss_permille == 0 {
            assert_eq!((stats.gaps, stats.duplicates), (0, 0), "{udp}: {stats:?}");
            // Nothing else is gone than what came after a stop.
            assert!(stats.packets + stats.stale >= world.offered, "{} offered: {stats:?}", world.offered);
        } else {
            // What has just been noticed when a seek comes is given up.
            assert!(stats.recovered >= 40 && stats.lost <= 90, "{stats:?}");
        }
    }
}
