//! With our own server: playing, pausing, seeking, other headers, ends.

use super::*;

const LIVE: &str = "live-asf-pipe.asf";
const OTHER: &str = "audio-wmav2.wma";

fn whole(name: &str) -> Vec<usize> {
    (0..content(name, true).1.len()).collect()
}

#[test]
fn a_broadcast_over_tcp_to_its_end() {
    let mut rig = Rig::new(ClientTransport::Tcp, content(LIVE, true));
    rig.run(Duration::from_secs(60));
    assert_eq!(rig.end, Some(ClientEnd::Ended));
    assert_eq!(rig.told(), ["opened", "header", "starting", "tcp", "end"]);
    assert_eq!(rig.numbers(), whole(LIVE));
    assert_eq!(header_of(&rig).packet_size(), rig.description.packet_size as usize);
    assert!(
        matches!(rig.events[0], ClientEvent::Opened { live: true, duration_s: 0.0, packet_count: 0, .. }),
        "{:?}",
        rig.events[0]
    );
    let stats = rig.client.stats();
    assert_eq!((stats.packets, stats.gaps, stats.stale), (whole(LIVE).len() as u64, 0, 0));
}

#[test]
fn a_broadcast_over_udp_to_its_end() {
    for fragments in [1, 3] {
        let mut rig = Rig::new(UDP, content(LIVE, true)).fragmented(fragments);
        rig.run(Duration::from_secs(60));
        assert_eq!((rig.end.clone(), rig.connections), (Some(ClientEnd::Ended), 1));
        assert_eq!(rig.told(), ["opened", "header", "starting", "udp", "end"]);
        assert_eq!(rig.numbers(), whole(LIVE));
        assert_eq!(rig.client.stats().gaps, 0);
    }
}

#[test]
fn udp_refused_is_tcp_on_the_same_connection() {
    let mut rig = Rig::new(UDP, content(LIVE, true));
    rig.leases = false;
    rig.run(Duration::from_secs(60));
    assert_eq!((rig.end.clone(), rig.connections), (Some(ClientEnd::Ended), 1));
    assert_eq!(rig.told(), ["opened", "header", "no udp", "starting", "tcp", "end"]);
    assert_eq!(rig.numbers(), whole(LIVE));
}

#[test]
fn udp_alone_does_not_fall_back() {
    let mut rig = Rig::with(ClientConfig::new(URL.into(), UDP), content(LIVE, true));
    rig.leases = false;
    rig.run(Duration::from_secs(60));
    assert!(matches!(rig.end, Some(ClientEnd::Status { what: "SETUP", code: 461, .. })), "{:?}", rig.end);
}

#[test]
fn udp_that_brings_nothing_is_tcp_on_another_connection() {
    let (description, packets) = content(LIVE, true);
    let length = packets.len() * 10;
    let mut rig = Rig::new(UDP, (description, packets.into_iter().cycle().take(length).collect()));
    rig.loss_permille = 1000;
    let begun = rig.now;
    rig.run_to(1);
    assert!(rig.now - begun < UDP_TIME + Duration::from_secs(1), "{:?}", rig.now - begun);
    rig.run(Duration::from_secs(60));
    assert_eq!((rig.end.clone(), rig.connections), (Some(ClientEnd::Ended), 2));
    assert_eq!(rig.told(), ["opened", "header", "starting", "udp", "no udp", "starting", "tcp", "end"], "one header");
    assert!((length - 300..length).contains(&rig.received().len()), "a broadcast has gone on in the meantime");
}

#[test]
fn a_file_that_is_over_before_udp_has_brought_anything_is_played_over_tcp() {
    let start = StartAt::Packet(20);
    let config = ClientConfig { fall_back: true, start, ..ClientConfig::new(URL.into(), UDP) };
    let mut rig = Rig::with(config, content(LIVE, false));
    rig.loss_permille = 1000;
    rig.run(Duration::from_secs(60));
    assert_eq!((rig.end.clone(), rig.connections), (Some(ClientEnd::Ended), 2));
    assert_eq!(rig.told(), ["opened", "header", "starting", "udp", "no udp", "starting", "tcp", "end"]);
    assert_eq!(rig.numbers(), whole(LIVE)[20..]);
}

#[test]
fn messages_may_be_cut_anywhere() {
    for piece in [1, 2, 3, 7, 61, 1000] {
        let mut rig = Rig::new(ClientTransport::Tcp, content(LIVE, true));
        rig.piece = piece;
        rig.run(Duration::from_secs(60));
        assert_eq!((rig.end.clone(), rig.numbers().len()), (Some(ClientEnd::Ended), whole(LIVE).len()), "{piece}");
    }
}

#[test]
fn a_file_from_any_place() {
    for (start, first, range) in [
        (StartAt::Beginning, 0, Position::Time(0)),
        (StartAt::Time { s: 7.5 }, 7, Position::Time(7500)),
        (StartAt::Packet(30), 30, Position::Packet(30)),
        (StartAt::Offset(5000), 0, Position::Offset(5000)),
    ] {
        let config = ClientConfig { start, ..ClientConfig::new(URL.into(), ClientTransport::Tcp) };
        let mut rig = Rig::with(config, content(LIVE, false));
        rig.run(Duration::from_secs(60));
        assert_eq!(rig.end, Some(ClientEnd::Ended), "{start:?}");
        assert_eq!(rig.numbers(), whole(LIVE)[first..], "{start:?}");
        assert!(rig.asks.iter().any(|ask| matches!(ask, Ask::PlayFile { from, .. } if *from == range)), "{start:?}");
        let location = rig.events.iter().find_map(|event| match event {
            ClientEvent::Packet { location, .. } => Some(*location),
            _ => None,
        });
        assert_eq!(location, Some(if start == StartAt::Packet(30) { 30 } else { 0 }));
    }
}

#[test]
fn a_pause_loses_nothing_and_repeats_nothing() {
    for transport in [ClientTransport::Tcp, UDP] {
        let mut rig = Rig::new(transport, content(LIVE, false));
        rig.run_to(10);
        rig.input(ClientInput::Pause);
        rig.run(Duration::from_secs(1));
        let paused = rig.received().len();
        assert!((10..20).contains(&paused), "{paused}");
        // Longer than the session would last without signs of life.
        rig.run(Duration::from_secs(300));
        assert_eq!((rig.received().len(), &rig.end), (paused, &None));
        rig.input(ClientInput::Resume);
        rig.run(Duration::from_secs(60));
        assert_eq!(rig.end, Some(ClientEnd::Ended));
        assert_eq!(rig.numbers(), whole(LIVE));
    }
}

#[test]
fn a_seek_goes_elsewhere_and_nothing_of_before_comes() {
    for transport in [ClientTransport::Tcp, UDP] {
        let mut rig = Rig::new(transport, content(LIVE, false));
        rig.run_to(10);
        rig.input(ClientInput::Seek(StartAt::Packet(40)));
        let before = rig.received().len();
        rig.run(Duration::from_secs(60));
        let numbers = rig.numbers();
        assert_eq!(numbers[..before], whole(LIVE)[..before]);
        assert_eq!(numbers[before..], whole(LIVE)[40..]);
        assert_eq!(rig.told().iter().filter(|told| **told == "starting").count(), 2);
    }
}

#[test]
fn seeks_and_pauses_before_it_plays() {
    let mut rig = Rig::new(ClientTransport::Tcp, content(LIVE, false));
    rig.input(ClientInput::Pause);
    rig.run(Duration::from_secs(200));
    assert_eq!((rig.told(), &rig.end), (vec!["opened", "header"], &None), "it rests, and is kept");
    rig.input(ClientInput::Seek(StartAt::Packet(20)));
    rig.input(ClientInput::Resume);
    // While PLAY is on its way.
    rig.input(ClientInput::Seek(StartAt::Packet(50)));
    rig.run(Duration::from_secs(60));
    assert_eq!(rig.numbers(), whole(LIVE)[50..]);
}

#[test]
fn who_stays_goes_on_from_the_end() {
    let config = ClientConfig { stays: true, ..ClientConfig::new(URL.into(), UDP) };
    let mut rig = Rig::with(config, content(LIVE, false));
    let count = whole(LIVE).len();
    rig.run_to(count);
    rig.run(Duration::from_secs(5));
    assert_eq!((rig.told().last(), &rig.end), (Some(&"end"), &None));
    rig.input(ClientInput::Seek(StartAt::Packet(60)));
    rig.run(Duration::from_secs(30));
    assert_eq!(rig.numbers()[count..], whole(LIVE)[60..]);
    rig.input(ClientInput::Stop);
    rig.run(Duration::from_secs(5));
    assert_eq!(rig.end, Some(ClientEnd::Stopped));
}

#[test]
fn another_header_is_followed() {
    for transport in [ClientTransport::Tcp, UDP] {
        let mut rig = Rig::new(transport, content(LIVE, true));
        rig.run_to(10);
        let before = rig.received().len();
        let (description, packets) = content(OTHER, true);
        (rig.description, rig.packets, rig.at) = (description.clone(), packets, 0);
        rig.news(Answer::NewGeneration(description));
        rig.run(Duration::from_secs(100));
        assert_eq!(rig.end, Some(ClientEnd::Ended));
        let path = if transport == UDP { "udp" } else { "tcp" };
        assert_eq!(rig.told(), ["opened", "header", "starting", path, "new header", "starting", path, "end"]);
        let new = rig.events.iter().position(|event| matches!(event, ClientEvent::NewHeader(_))).unwrap();
        rig.events.drain(..=new);
        assert!(before >= 10);
        assert_eq!(rig.numbers(), whole(OTHER));
    }
}

#[test]
fn streams_are_chosen_before_and_while_it_plays() {
    let streams = |numbers: &[u8]| -> StreamSet { numbers.iter().copied().collect() };
    let config = ClientConfig { streams: Some(streams(&[1])), ..ClientConfig::new(URL.into(), ClientTransport::Tcp) };
    let mut rig = Rig::with(config, content(LIVE, true));
    rig.run_to(5);
    let selected = |rig: &Rig| {
        let last = rig.asks.iter().rev().find_map(|ask| match ask {
            Ask::Select(selection) => Some(*selection),
            _ => None,
        });
        last.unwrap()
    };
    assert_eq!(selected(&rig), crate::asf::Selection::all(streams(&[1])));
    rig.input(ClientInput::Select(streams(&[2])));
    rig.run(Duration::from_millis(200));
    assert_eq!(selected(&rig), crate::asf::Selection::all(streams(&[2])));
    rig.input(ClientInput::Select(streams(&[1, 2])));
    rig.run(Duration::from_millis(200));
    assert_eq!((selected(&rig), &rig.end), (crate::asf::Selection::all(streams(&[1, 2])), &None));

    let config = ClientConfig { streams: Some(streams(&[9])), ..ClientConfig::new(URL.into(), ClientTransport::Tcp) };
    let mut rig = Rig::with(config, content(LIVE, true));
    rig.run(Duration::from_secs(5));
    assert!(matches!(rig.end, Some(ClientEnd::NoSuchStream { .. })), "{:?}", rig.end);
}

#[test]
fn a_long_play_is_kept_alive() {
    let (description, packets) = content(LIVE, true);
    for transport in [ClientTransport::Tcp, UDP] {
        let packets: Vec<_> = packets.iter().cycle().take(300 * 50).cloned().collect();
        let mut rig = Rig::new(transport, (description.clone(), packets));
        rig.run(Duration::from_secs(290));
        assert_eq!(rig.end, None, "the server lets go of who is silent for 90 s");
        assert!(rig.received().len() > 280 * 50);
    }
}

#[test]
fn media_that_fails_to_come_ends_it() {
    let media_time = Some(Duration::from_secs(40));
    let config = ClientConfig { media_time, ..ClientConfig::new(URL.into(), ClientTransport::Tcp) };
    let mut rig = Rig::with(config, content(LIVE, true));
    rig.run_to(5);
    rig.plays = false;
    rig.run(Duration::from_secs(45));
    assert_eq!(rig.end, Some(ClientEnd::NoMedia(Duration::from_secs(40))));
}
