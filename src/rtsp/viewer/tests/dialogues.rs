//! Players as they were seen.

use super::*;

const U: &str = "rtsp://media.example:8554/cam1";

#[test]
fn ffmpeg_over_tcp() {
    let mut rig = Rig::new(live());
    let options = rig.ask(&format!("OPTIONS {U}"), "");
    assert!(
        field(&options, "Server").starts_with("WMServer/") && field(&options, "Public").contains("GET_PARAMETER"),
        "{options}"
    );
    let described = rig.ask(&format!("DESCRIBE {U}"), "Accept: application/sdp\r\n");
    assert_eq!((status(&described), field(&described, "Content-Type")), (200, "application/sdp"));
    assert!(
        described.contains("\r\na=control:rtsp://media.example:8554/cam1/\r\n") && described.contains("a=control:rtx"),
        "{described}"
    );
    let first = rig.ask(&format!("SETUP {U}/audio"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=play\r\n");
    assert_eq!(field(&first, "Session"), format!("{SESSION};timeout=60"));
    assert_eq!(field(&first, "Transport"), "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=90cbcaac;mode=PLAY");
    let session = format!("Session: {SESSION}\r\n");
    let second =
        rig.ask(&format!("SETUP {U}/video"), &format!("{session}Transport: RTP/AVP/TCP;unicast;interleaved=2-3;mode=play\r\n"));
    assert_eq!(field(&second, "Transport"), "RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=90cbcaac;mode=PLAY");
    let playing = rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=0.000-\r\n"));
    assert_eq!(field(&playing, "RTP-Info"), format!("url={U}/audio;seq=4660;rtptime=2000, url={U}/video;seq=4660;rtptime=2000"));
    assert!(!playing.contains("\r\nRange:"), "a broadcast has none: {playing}");
    assert_eq!(rig.connection.carriage(), Some(Carriage::Interleaved { channel: 0 }), "all on the first one's channel");
    assert_eq!(rig.connection.poll_timeout(), None, "media on the connection keeps it");
    assert!(rig.asks.contains(&Ask::Select(Selection::all([1, 2].into_iter().collect()))));
    let left = rig.ask(&format!("TEARDOWN {U}/"), &session);
    assert_eq!((status(&left), rig.closed), (200, Some(CloseReason::Left)));
    assert_eq!(rig.asks.last(), Some(&Ask::Stop));
}

#[test]
fn ffmpeg_over_udp_and_what_it_loses() {
    let mut rig = Rig::new(live());
    rig.ask(&format!("DESCRIBE {U}"), "");
    let rtx = rig.ask(&format!("SETUP {U}/rtx"), "Transport: RTP/AVP/UDP;unicast;client_port=3000-3001;mode=play\r\n");
    assert_eq!(
        field(&rtx, "Transport"),
        "RTP/AVP/UDP;unicast;source=192.0.2.1;server_port=5004-5005;client_port=3000-3001;ssrc=2f73682b;mode=PLAY"
    );
    let session = format!("Session: {SESSION}\r\n");
    for stream in ["audio", "video"] {
        let answer = rig.ask(
            &format!("SETUP {U}/{stream}"),
            &format!("{session}Transport: RTP/AVP/UDP;unicast;client_port=3002;mode=play\r\n"),
        );
        assert!(field(&answer, "Transport").contains(";client_port=3002;ssrc=90cbcaac"), "{answer}");
    }
    let leases: Vec<_> = rig.asks.iter().filter(|ask| matches!(ask, Ask::Lease(_))).collect();
    assert_eq!(
        leases,
        [
            &Ask::Lease(UdpPorts { owner: CLIENT_ID, flow: Flow::Resends, first: 3000, pair: true, then: Some(3002) }),
            &Ask::Lease(UdpPorts { owner: CLIENT_ID, flow: Flow::Media, first: 3002, pair: false, then: None }),
        ]
    );
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 200);
    assert_eq!(rig.connection.carriage(), Some(Carriage::Datagrams));
    rig.input(Input::Datagram(&NACK));
    assert_eq!(rig.asks.last(), Some(&Ask::Resend { sequences: vec![4662, 4663, 4665] }));
    // Keep-alives keep it; without them it ends.
    rig.wait(Duration::from_secs(60));
    assert_eq!(status(&rig.ask(&format!("GET_PARAMETER {U}/"), &session)), 200);
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.closed, None);
    rig.wait(Duration::from_secs(31));
    assert_eq!(rig.closed, Some(CloseReason::Idle));
}

/// The vector of MS-RTSP's form: asks for 4662, 4663 and 4665.
const NACK: [u8; 88] = [
    0x80, 0xC9, 0x00, 0x01, 0x11, 0x22, 0x33, 0x44, 0x81, 0xCA, 0x00, 0x0F, 0x11, 0x22, 0x33, 0x44, 0x01, 0x32, 0x37, 0x39, 0x36,
    0x30, 0x39, 0x32, 0x34, 0x35, 0x39, 0x40, 0x57, 0x4D, 0x53, 0x3A, 0x37, 0x66, 0x66, 0x34, 0x32, 0x65, 0x30, 0x37, 0x2D, 0x33,
    0x63, 0x37, 0x63, 0x2D, 0x34, 0x65, 0x62, 0x35, 0x2D, 0x39, 0x63, 0x31, 0x37, 0x2D, 0x36, 0x62, 0x64, 0x64, 0x31, 0x31, 0x61,
    0x64, 0x39, 0x30, 0x64, 0x65, 0x00, 0x00, 0x00, 0x00, 0x91, 0xCD, 0x00, 0x03, 0x11, 0x22, 0x33, 0x44, 0x90, 0xCB, 0xCA, 0xAC,
    0x12, 0x36, 0x00, 0x05,
];

#[test]
fn udp_refused_is_said_with_the_first_setup_and_tcp_follows() {
    for (ports, why) in [("33620-33621", "outside the pool"), ("4999-5000", "the next port is outside"), ("1024-1026", "no pair")]
    {
        let mut rig = Rig::new(live());
        rig.ask(&format!("DESCRIBE {U}"), "");
        let transport = format!("Transport: RTP/AVP/UDP;unicast;client_port={ports};mode=play\r\n");
        let refused = rig.ask(&format!("SETUP {U}/rtx"), &transport);
        assert_eq!(status(&refused), 461, "{why}");
        assert!(!refused.contains("Transport:") && !refused.contains("Session:"), "{refused}");
        let again = rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/UDP;unicast;client_port=3000-3001\r\n");
        assert_eq!(status(&again), 461, "one transport for all");
        let tcp = rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=play\r\n");
        assert_eq!(status(&tcp), 200);
    }
}

#[test]
fn one_header_may_list_both() {
    let mut rig = Rig::new(live());
    let both = "Transport: RTP/AVP/UDP;unicast;client_port=40000-40001;mode=PLAY, RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let answer = rig.ask_as("WMPlayer/9.0.0.2833", &format!("SETUP {U}/audio"), both);
    assert_eq!(status(&answer), 200, "no description is needed");
    assert!(field(&answer, "Transport").starts_with("RTP/AVP/TCP;unicast;interleaved=0-1"), "{answer}");
}

#[test]
fn gstreamer_gets_one_block_and_asks_again_for_the_first_ports() {
    let mut rig = Rig::new(live());
    let gst = "GStreamer/1.22.0";
    let described = rig.ask_as(gst, &format!("DESCRIBE {U}"), "");
    assert_eq!(described.matches("\r\nm=").count(), 2, "pictures and rtx: {described}");
    let first = rig.ask_as(gst, &format!("SETUP {U}/video"), "Transport: RTP/AVP;unicast;client_port=3000-3001\r\n");
    assert_eq!(status(&first), 200);
    let session = format!("Session: {SESSION}\r\n");
    let other =
        rig.ask_as(gst, &format!("SETUP {U}/audio"), &format!("{session}Transport: RTP/AVP;unicast;client_port=3002-3003\r\n"));
    assert_eq!(status(&other), 461);
    let same =
        rig.ask_as(gst, &format!("SETUP {U}/audio"), &format!("{session}Transport: RTP/AVP;unicast;client_port=3000-3001\r\n"));
    assert_eq!(status(&same), 200);
    assert_eq!(rig.asks.iter().filter(|ask| matches!(ask, Ask::Lease(_))).count(), 1);
}

#[test]
fn the_end_is_told_and_a_player_outside_the_dialect_let_go() {
    let mut rig = Rig::new(file());
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    let session = format!("Session: {SESSION}\r\n");
    let playing = rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=0.000-\r\n"));
    assert_eq!(field(&playing, "Range"), "npt=2.000-60.000");
    let end = rig.input(Input::Answer(Answer::Finished { incarnation: 1 }));
    assert!(
        end.starts_with(&format!("SET_PARAMETER {U} RTSP/1.0\r\nContent-Type: application/x-wms-extension-cmd\r\n")),
        "{end}"
    );
    assert!(end.ends_with(&format!("\r\n\r\nSession: {SESSION}\r\nEOF: true\r\n")), "{end}");
    // GStreamer sends our own request back, with a length more.
    let echo = format!(
        "SET_PARAMETER {U} RTSP/1.0\r\nCSeq: 9\r\nCSeq: 1\r\nContent-Type: application/x-wms-extension-cmd\r\n\
         Content-Length: 11\r\nContent-Length: 12\r\n\r\nEOF: true\r\n\0\0"
    );
    assert_eq!(status(&rig.bytes(echo.as_bytes())), 200);
    rig.wait(Duration::from_secs(4));
    assert_eq!(rig.closed, None);
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.closed, Some(CloseReason::Ended));
}

#[test]
fn a_file_is_paused_gone_on_with_and_sought_in() {
    let mut rig = Rig::new(file());
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    let session = format!("Session: {SESSION}\r\n");
    assert_eq!(status(&rig.ask(&format!("PAUSE {U}/"), &session)), 455, "nothing plays");
    rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=0.000-\r\n"));
    assert_eq!(status(&rig.ask(&format!("PAUSE {U}/"), &session)), 200);
    assert_eq!(rig.asks.last(), Some(&Ask::Stop));
    rig.wait(Duration::from_secs(10));
    rig.ask(&format!("PLAY {U}/"), &session);
    assert_eq!(rig.asks.last(), Some(&Ask::Resume { incarnation: 2, until: None }));
    rig.ask(&format!("PAUSE {U}/"), &session);
    rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=30.000-40.5\r\n"));
    assert_eq!(
        rig.asks.last(),
        Some(&Ask::PlayFile {
            incarnation: 3,
            from: Position::Time(30_000),
            until: Some(Until::Time(40_500)),
            acceleration: None,
            speed: 1
        })
    );
    let fast = "Speed: 2.5\r\nX-Accelerate-Streaming: AccelDuration = 9000;AccelBandwidth=1000000\r\n";
    let answer = rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=0-\r\n{fast}"));
    assert_eq!(field(&answer, "Speed"), "2.0");
    assert_eq!(field(&answer, "X-Accelerate-Streaming"), "AccelDuration=5000;AccelBandwidth=900000;");
    assert!(matches!(rig.asks.last(), Some(Ask::PlayFile { speed: 2, .. })));
    // Seeking while it plays, by packet.
    rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: x-asf-packet=10-\r\n"));
    assert!(matches!(rig.asks.last(), Some(Ask::PlayFile { from: Position::Packet(10), .. })));
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: clock=1\r\n"))), 457);
}

/// It changed between the description and the play: the shard says so while it seats the viewer.
#[test]
fn another_header_before_the_first_packet() {
    let mut rig = Rig::new(live());
    rig.cues = false;
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    assert_eq!(rig.ask(&format!("PLAY {U}/"), &format!("Session: {SESSION}\r\n")), "");
    let told = rig.input(Input::Answer(Answer::NewGeneration(live())));
    assert_eq!((status(&told), rig.closed), (200, Some(CloseReason::Changed)));

    let mut rig = Rig::new(live());
    rig.cues = false;
    let wmp = "WMPlayer/9.0.0.2833";
    rig.ask_as(wmp, &format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask_as(wmp, &format!("PLAY {U}"), &format!("Session: {SESSION}\r\n"));
    let told = rig.input(Input::Answer(Answer::NewGeneration(live())));
    assert!(told.starts_with("RTSP/1.0 200 OK\r\n") && told.contains("ANNOUNCE rtsp://"), "{told}");
    assert_eq!(rig.asks.last(), Some(&Ask::Stop));
    let stale = format!("Session: {SESSION}\r\nX-Playlist-Gen-Id: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    assert_eq!(status(&rig.ask_as(wmp, &format!("SETUP {U}/video"), &stale)), 412);
}

#[test]
fn a_key_frame_that_never_comes_is_not_waited_for() {
    let mut rig = Rig::new(live());
    rig.cues = false;
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask(&format!("PLAY {U}/"), &format!("Session: {SESSION}\r\n"));
    rig.wait(Duration::from_secs(91));
    assert_eq!(rig.closed, Some(CloseReason::Idle));
}

#[test]
fn addresses_are_those_that_players_make_of_the_description() {
    for (asked, whole) in [(U.to_owned(), format!("{U}/")), (format!("{U}?k=abc"), format!("{U}/?k=abc"))] {
        let mut rig = Rig::new(live());
        let described = rig.ask(&format!("DESCRIBE {asked}"), "");
        assert!(described.contains(&format!("\r\na=control:{whole}\r\n")), "{described}");
        let stream = format!("{}/video", whole.trim_end_matches('/'));
        assert_eq!(status(&rig.ask(&format!("SETUP {stream}"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")), 200);
        let session = format!("Session: {SESSION}\r\n");
        let playing = rig.ask(&format!("PLAY {whole}"), &session);
        assert!(field(&playing, "RTP-Info").starts_with(&format!("url={stream};seq=")), "{playing}");
        rig.input(Input::Answer(Answer::NextSequence(77)));
        let end = rig.input(Input::Answer(Answer::Ended));
        assert!(end.contains(&format!("\r\nRTP-Info: url={stream};seq=77\r\n")), "{end}");
    }
}

#[test]
fn streams_are_switched_and_dropped_under_the_names_of_their_setups() {
    let wmp = "WMPlayer/9.0.0.2833";
    let mut rig = Rig::new(live());
    rig.ask_as(wmp, &format!("SETUP {U}/audio"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    let session = format!("Session: {SESSION}\r\n");
    rig.ask_as(wmp, &format!("PLAY {U}"), &session);
    let mut switch = |method: &str, name: &str, body: &str| {
        let kind = "Content-Type: application/x-wms-streamswitch";
        let text = format!(
            "{method} {U}/{name} RTSP/1.0\r\nCSeq: 50\r\nUser-Agent: {wmp}\r\n{session}{kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let status = status(&rig.bytes(text.as_bytes()));
        (status, rig.asks.last().cloned())
    };
    let select = |streams: &[u8], thinned: &[u8]| {
        let [streams, thinned] = [streams, thinned].map(|list| list.iter().copied().collect());
        Some(Ask::Select(Selection { thinned, ..Selection::all(streams) }))
    };
    let before = switch("SET_PARAMETER", "audio", "SSEntry: 1 1 2\r\nSSEntry: 9 9 0\r\n");
    assert_eq!(before.0, 400);
    assert!(matches!(before.1, Some(Ask::Play { .. })), "nothing of it counts: {before:?}");
    assert_eq!(switch("SET_PARAMETER", "audio", "SSEntry: 1 2 1\r\n"), (200, select(&[2], &[2])));
    assert_eq!(switch("SET_PARAMETER", "audio", "5 5 2\r\n").0, 400);
    assert_eq!(switch("TEARDOWN", "audio", "SSEntry: 2 4294967295 0\r\n"), (200, Some(Ask::Stop)), "the last one");
}

#[test]
fn a_session_that_comes_again_is_let_in_again() {
    let sessions = Rc::default();
    let session = format!("Session: {SESSION}\r\n");
    let mut rig = Rig::with(live(), &sessions);
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.input(Input::End { next: None });
    let mut rig = Rig::with(live(), &sessions);
    assert_eq!(status(&rig.ask("PLAY rtsp://media.example/other", &session)), 454, "another name");
    rig.open = Err(OpenRefusal::Login(crate::viewing::Challenge { values: vec!["Basic realm=\"r\"".into()], realm: "r".into() }));
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 401);
    rig.open = Ok(live());
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &format!("{session}Authorization: Basic x\r\n"))), 200);
}

#[test]
fn a_session_goes_on_over_another_connection() {
    let sessions = Rc::default();
    let session = format!("Session: {SESSION}\r\n");
    let mut rig = Rig::with(file(), &sessions);
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask(&format!("PLAY {U}/"), &format!("{session}Range: npt=0.000-\r\n"));
    rig.input(Input::End { next: Some(77) });

    let mut rig = Rig::with(file(), &sessions);
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), "Session: 5\r\n")), 454);
    let playing = rig.ask(&format!("PLAY {U}/"), &session);
    assert_eq!(field(&playing, "Session"), format!("{SESSION};timeout=60"));
    assert!(matches!(rig.asks.last(), Some(Ask::PlayFile { from: Position::Packet(77), .. })), "{:?}", rig.asks);
    assert_eq!(rig.connection.carriage(), Some(Carriage::Interleaved { channel: 0 }));
    assert!(sessions.borrow().holds(CLIENT_ID));
    rig.ask(&format!("TEARDOWN {U}/"), &session);
    assert!(!sessions.borrow().holds(CLIENT_ID));

    // Over UDP the ports are to be asked for again, in the same session.
    let mut rig = Rig::with(live(), &sessions);
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/UDP;unicast;client_port=3000-3001\r\n");
    rig.ask(&format!("PLAY {U}/"), &session);
    rig.input(Input::End { next: None });
    let mut rig = Rig::with(live(), &sessions);
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 455);
    let again =
        rig.ask(&format!("SETUP {U}/video"), &format!("{session}Transport: RTP/AVP/UDP;unicast;client_port=3000-3001\r\n"));
    assert_eq!(field(&again, "Session"), format!("{SESSION};timeout=60"));
    assert!(
        rig.asks.iter().any(|ask| matches!(ask, Ask::Lease(UdpPorts { owner: CLIENT_ID, .. }))),
        "its ports do not rest for it"
    );
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 200);

    // Not from elsewhere, and not for ever.
    rig.input(Input::End { next: None });
    let mut rig = Rig::with(live(), &sessions);
    rig.connection.peer = Ipv4Addr::new(192, 0, 2, 8).into();
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 454);
    sessions.borrow_mut().sweep(base() + Duration::from_secs(91));
    assert!(!sessions.borrow().holds(CLIENT_ID));
}

#[test]
fn another_header_is_announced_to_who_understands_and_ends_the_others() {
    let another = Description { ssrc: 5, ..live() };
    let mut rig = Rig::new(live());
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask(&format!("PLAY {U}/"), &format!("Session: {SESSION}\r\n"));
    rig.input(Input::Answer(Answer::NewGeneration(another.clone())));
    assert_eq!(rig.closed, Some(CloseReason::Changed));

    let mut rig = Rig::new(live());
    let wmp = "WMPlayer/9.0.0.2833 guid/3300AD50-2C39-46C0-AE0A-AC7B8159E203";
    rig.ask_as(wmp, &format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask_as(wmp, &format!("PLAY {U}"), &format!("Session: {SESSION}\r\n"));
    let told = rig.input(Input::Answer(Answer::NewGeneration(another)));
    let (end, announce) = (told.find("End-Of-Playlist-Entry: true").unwrap(), told.find("ANNOUNCE rtsp://").unwrap());
    assert!(end < announce && told.contains("\r\nX-Playlist-Gen-Id: 2\r\n"), "{told}");
    let again = rig.ask_as(
        wmp,
        &format!("SETUP {U}/audio"),
        &format!("Session: {SESSION}\r\nX-Playlist-Gen-Id: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"),
    );
    assert!(field(&again, "Transport").contains("ssrc=00000005"), "{again}");
}

#[test]
fn the_tests_of_the_path_are_answered() {
    let mut rig = Rig::new(live());
    let tcp = rig.ask(&format!("GET_PARAMETER {U}"), "Content-Type: application/x-rtsp-packetpair\r\nContent-Length: 0\r\n");
    assert_eq!(field(&tcp, "Content-Length"), "2080");
    let wmp = "WMPlayer/9.0.0.2833";
    rig.ask_as(wmp, &format!("SETUP {U}/rtx"), "Transport: RTP/AVP/UDP;unicast;client_port=3236-3237;mode=PLAY\r\n");
    let body = "type: high-entropy-packetpair";
    let ask = format!(
        "Session: {SESSION}\r\nContent-Type: application/x-rtsp-udp-packetpair;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let text = format!("SET_PARAMETER {U} RTSP/1.0\r\nCSeq: 40\r\n{ask}");
    assert_eq!(status(&rig.bytes(text.as_bytes())), 200);
    assert_eq!(rig.datagrams.iter().map(Bytes::len).collect::<Vec<_>>(), [1470, 1471, 1472]);
    rig.bytes(text.as_bytes());
    assert_eq!(rig.datagrams.len(), 3, "not so soon again");
    for _ in 0..5 {
        rig.wait(Duration::from_secs(6));
        rig.bytes(text.as_bytes());
    }
    assert_eq!(rig.datagrams.len(), 9, "three runs, and no more");
}

#[test]
fn a_player_is_told_how_fast_a_broadcast_begins() {
    let wish = format!("Session: {SESSION}\r\nX-Accelerate-Streaming: AccelDuration=9000;AccelBandwidth=1048576\r\n");
    for (supported, profile) in [("", false), ("Supported: com.microsoft.wm.eosmsg, com.microsoft.wm.startupprofile\r\n", true)] {
        let mut rig = Rig::new(live());
        rig.ask(&format!("DESCRIBE {U}"), supported);
        rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
        let playing = rig.ask(&format!("PLAY {U}/"), &wish);
        assert_eq!(field(&playing, "X-Accelerate-Streaming"), "AccelDuration=3000;AccelBandwidth=1048576;");
        assert_eq!(playing.contains("\r\nX-StartupProfile: Rate=10\r\n"), profile, "{playing}");
    }
}

#[test]
fn challenges_and_refusals() {
    let mut rig = Rig::new(live());
    rig.open = Err(OpenRefusal::Login(crate::viewing::Challenge {
        values: vec!["Digest realm=\"r\", nonce=\"n\"".into(), "Basic realm=\"r\"".into()],
        realm: "r".into(),
    }));
    let challenged = rig.ask(&format!("DESCRIBE {U}?k=abc"), "");
    assert_eq!((status(&challenged), challenged.matches("WWW-Authenticate: ").count()), (401, 2));
    assert_eq!(rig.closed, None, "it comes again on the same connection");
    rig.open = Ok(live());
    // The same thing in another form; what differs in more than form is not taken for it.
    for (uri, target) in [("/cam1/?k=abc", "/cam1/?k=abc".to_owned()), ("/cam2?k=abc", format!("{U}?k=abc"))] {
        rig.ask(&format!("DESCRIBE {U}?k=abc"), &format!("Authorization: Digest uri=\"{uri}\", response=\"\"\r\n"));
        let Some(Ask::Open { pass, .. }) = rig.asks.last() else { panic!("{:?}", rig.asks) };
        assert_eq!(pass.login.as_ref().map(|login| login.target.clone()), Some(target));
    }
    rig.ask(&format!("DESCRIBE {U}?k=abc"), "Authorization: Digest x\r\n");
    let Some(Ask::Open { name, pass }) = rig.asks.last() else { panic!("{:?}", rig.asks) };
    assert_eq!((name.as_str(), pass.key.as_deref()), ("cam1", Some("abc")));
    assert_eq!(pass.login.as_ref().map(|login| login.method.as_str()), Some("DESCRIBE"));
    for (refusal, expected) in [
        (OpenRefusal::Status(Hresult::FILE_NOT_FOUND), 404),
        (OpenRefusal::Status(Hresult::TOO_MANY_SESSIONS), 503),
        (OpenRefusal::Denied(crate::viewing::Denial::NoKey), 403),
    ] {
        let mut rig = Rig::new(live());
        rig.open = Err(refusal);
        assert_eq!((status(&rig.ask(&format!("DESCRIBE {U}"), "")), rig.closed), (expected, None));
    }
    let mut rig = Rig::new(live());
    rig.open = Err(OpenRefusal::Redirect("mms://elsewhere.example/cam1".into()));
    let moved = rig.ask(&format!("DESCRIBE {U}"), "");
    assert_eq!((field(&moved, "Location"), rig.closed), ("rtsp://elsewhere.example/cam1", Some(CloseReason::Redirected)));
}

#[test]
fn who_announces_is_handed_over_with_what_it_has_sent() {
    let announce = "ANNOUNCE rtsp://h/cam1 RTSP/1.0\r\nCSeq: 7\r\nUser-Agent: Lavf59.27.100\r\nContent-Type: application/sdp\r\n\
                    Content-Length: 5\r\n\r\nv=0\r\nSETUP rtsp://h/cam1/vid";
    let mut rig = Rig::new(live());
    assert!(!rig.ask(&format!("OPTIONS {U}"), "").contains("ANNOUNCE"));
    assert_eq!(status(&rig.bytes(announce.as_bytes())), 405, "not where publishers are not taken");

    let mut rig = Rig::new(live());
    rig.connection.config = Arc::new(Config { publishers: true, ..Config::default() });
    assert!(rig.ask(&format!("OPTIONS {U}"), "").contains(", SET_PARAMETER, ANNOUNCE, RECORD\r\n"));
    assert_eq!(rig.bytes(announce.as_bytes()), "");
    assert_eq!(String::from_utf8_lossy(&rig.handed), announce);
    assert!(rig.connection.is_closed() && rig.connection.poll_timeout().is_none());
    // A player of this connection's does not become a publisher.
    let mut rig = Rig::new(live());
    rig.connection.config = Arc::new(Config { publishers: true, ..Config::default() });
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    assert_eq!(status(&rig.bytes(announce.split_once("SETUP").unwrap().0.as_bytes())), 405);
}
