//! Servers that are written down: logins, redirects, cameras, servers with ways of their own, hostile ones.

use proptest::prelude::*;

use super::*;
use crate::rtsp::message::interleaved;
use crate::text::Login;

/// The client against lines.
struct Script {
    now: Instant,
    client: Client,
    /// What it sent, one message each.
    sent: Vec<String>,
    datagrams: Vec<(u16, u16, Bytes)>,
    events: Vec<ClientEvent>,
    end: Option<ClientEnd>,
}

const CAMERA: &str = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=Cam\r\nt=0 0\r\na=control:*\r\na=range:npt=now-\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=1\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\na=control:rtsp://10.0.0.9/cam/trackID=2\r\n";

impl Script {
    fn new(config: ClientConfig) -> Self {
        let now = base();
        let client = Client::new(now, config);
        let mut script = Self { now, client, sent: Vec::new(), datagrams: Vec::new(), events: Vec::new(), end: None };
        script.drain();
        script
    }

    fn tcp() -> Self {
        Self::new(ClientConfig { counts_plain: true, ..ClientConfig::new(URL.into(), ClientTransport::Tcp) })
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                ClientOutput::Send(bytes) => self.sent.push(String::from_utf8(bytes.to_vec()).unwrap()),
                ClientOutput::DatagramTo { from, to, bytes } => self.datagrams.push((from, to, bytes)),
                ClientOutput::Event(event) => self.events.push(event),
                ClientOutput::Close(end) => self.end = Some(end),
                other => panic!("{other:?}"),
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.client.handle(self.now, ClientInput::Bytes(bytes));
        self.drain();
    }

    fn last(&self) -> &str {
        self.sent.last().unwrap()
    }

    /// Answers the last request, which has to begin so.
    fn answer(&mut self, to: &str, status: &str, headers: &str, body: &str) {
        assert!(self.last().starts_with(to), "{to}: {}", self.last());
        let cseq = self.last().lines().find_map(|line| line.strip_prefix("CSeq: ")).unwrap().to_owned();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.bytes(format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}").as_bytes());
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.client.handle(self.now, ClientInput::Timeout);
            self.drain();
        }
        self.now = until;
    }
}

fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([7; 20]);
    packet
}

#[test]
fn a_camera_is_counted() {
    let mut script = Script::tcp();
    script.answer("OPTIONS rtsp://media.example/live RTSP/1.0", "200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n", "");
    assert!(script.last().contains("User-Agent: WMServer/9.5.0.0\r\n") && script.last().contains("Accept: application/sdp\r\n"));
    script.answer("DESCRIBE", "200 OK", "Content-Type: application/sdp\r\nContent-Base: rtsp://10.0.0.9/cam/\r\n", CAMERA);
    assert!(script.last().contains("Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=PLAY\r\n"), "{}", script.last());
    // Spaces, no unicast, a strange SSRC, other channels.
    script.answer(
        "SETUP rtsp://media.example/cam/trackID=1 RTSP/1.0",
        "200 OK",
        "Session: ab12 ; timeout = 20\r\nTransport: RTP/AVP/TCP;interleaved=4-5;ssrc=XYZ\r\n",
        "",
    );
    assert!(script.last().contains("Session: ab12\r\n") && script.last().contains("interleaved=2-3"), "{}", script.last());
    script.answer("SETUP rtsp://media.example/cam/trackID=2 RTSP/1.0", "200 OK", "Session: ab12\r\n", "");
    script.answer("PLAY rtsp://media.example/cam/ RTSP/1.0", "200 OK", "", "");
    let mut frames = Vec::new();
    for (channel, sequence) in [(4, 65_534), (2, 1), (4, 65_535), (4, 2), (5, 9), (2, 2), (9, 1), (4, 3)] {
        interleaved(channel, &rtp(sequence, 1), &mut frames);
    }
    script.bytes(&frames);
    let stats = script.client.stats();
    assert_eq!((stats.packets, stats.gaps, stats.bytes), (6, 2, 6 * 32));
    assert!(matches!(script.events[0], ClientEvent::Opened { live: true, .. }));
    assert_eq!(script.events.iter().filter(|event| matches!(event, ClientEvent::Counted { .. })).count(), 6);
    // Signs of life, by OPTIONS, at half the time.
    let before = script.sent.len();
    script.pass(Duration::from_secs(9));
    assert_eq!(script.sent.len(), before);
    script.pass(Duration::from_secs(1));
    script.answer("OPTIONS rtsp://media.example/cam/ RTSP/1.0", "200 OK", "Session: ab12\r\n", "");
    script.client.handle(script.now, ClientInput::Stop);
    script.drain();
    script.answer("TEARDOWN rtsp://media.example/cam/ RTSP/1.0", "200 OK", "", "");
    assert_eq!(script.end, Some(ClientEnd::Stopped));
    let stats = script.client.stats();
    assert_eq!((stats.gaps, stats.lost), (2, 2));
}

#[test]
fn what_is_no_asf_cannot_be_relayed() {
    let mut script = Script::new(ClientConfig::new(URL.into(), ClientTransport::Tcp));
    script.answer("OPTIONS", "501 Not Implemented", "", "");
    script.answer("DESCRIBE", "200 OK", "Content-Type: application/sdp\r\n", CAMERA);
    assert_eq!(script.end, Some(ClientEnd::NotAsf));
}

#[test]
fn a_camera_over_udp() {
    let transport = ClientTransport::Udp { media: (6000, Some(6001)), resends: (6002, Some(6003)) };
    let config = ClientConfig { counts_plain: true, fall_back: true, ..ClientConfig::new(URL.into(), transport) };
    let mut script = Script::new(config);
    script.answer("OPTIONS", "200 OK", "", "");
    script.answer("DESCRIBE", "200 OK", "Content-Type: application/sdp\r\n", CAMERA);
    assert!(script.last().contains("RTP/AVP/UDP;unicast;client_port=6000-6001;mode=PLAY"), "{}", script.last());
    script.answer("SETUP", "200 OK", "Session: 1\r\nTransport: RTP/AVP;unicast;server_port=7000-7001\r\n", "");
    assert!(script.last().contains("client_port=6002-6003"), "{}", script.last());
    script.answer("SETUP", "200 OK", "Transport: RTP/AVP;unicast;server_port=7002-7003\r\n", "");
    assert!(script.datagrams.iter().any(|(from, to, _)| (*from, *to) == (6000, 7002)), "{:?}", script.datagrams);
    script.answer("PLAY", "200 OK", "", "");
    for (sequence, ssrc) in [(1, 1), (1, 2), (4, 1), (2, 2), (3, 1)] {
        script.client.handle(script.now, ClientInput::Datagram(&rtp(sequence, ssrc)));
    }
    // RTCP is not counted.
    script.client.handle(script.now, ClientInput::Datagram(&[0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0]));
    let stats = script.client.stats();
    assert_eq!((stats.packets, stats.gaps, stats.recovered, stats.reordered), (5, 2, 1, 1));
    script.pass(UDP_TIME + Duration::from_secs(1));
    assert_eq!(script.end, None);
}

/// The description of a Windows Media server, and a packet of it.
fn windows_media() -> (String, Vec<u8>) {
    let (description, packets) = content("live-asf-pipe.asf", true);
    let facts = crate::rtsp::sdp::Facts::of(&description, "rtsp://media.example/live/".into(), false);
    (crate::rtsp::sdp::describe(&description, &facts), packets[0].clone())
}

#[test]
fn a_windows_media_server_over_udp() {
    let (sdp, packet) = windows_media();
    let datagram = |sequence: u16, ssrc: u32| {
        let mut rtp = rtp(sequence, ssrc);
        rtp.truncate(12);
        rtp[1] |= 0x80;
        [&rtp[..], &[0xC0, 0, 0, 0], &packet].concat()
    };
    let mut script = Script::new(ClientConfig { salt: *b"\x11\x22\x33\x44....", ..ClientConfig::new(URL.into(), UDP) });
    script.answer("OPTIONS", "200 OK", "Server: WMServer/9.5.6001.18000\r\n", "");
    assert!(script.last().contains("Supported: com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.eosmsg"));
    script.answer("DESCRIBE", "200 OK", "Content-Type: application/sdp\r\nX-Playlist-Gen-Id: 5\r\n", &sdp);
    // What is sent again has ports of its own; all media has the same.
    assert!(script.last().contains("client_port=2002-2003;") && !script.last().contains("Session"), "{}", script.last());
    let granted =
        |ssrc: &str| format!("Session: 77;timeout=60\r\nTransport: RTP/AVP/UDP;unicast;server_port=5004-5005;ssrc={ssrc}\r\n");
    script.answer("SETUP rtsp://media.example/live/rtx RTSP", "200 OK", &granted("2f73682b"), "");
    for token in ["audio", "video"] {
        let last = script.last().to_owned();
        for header in ["client_port=2000-2001;", "Session: 77\r\n", "X-Playlist-Gen-Id: 5\r\n"] {
            assert!(last.contains(header), "{header}: {last}");
        }
        script.answer(&format!("SETUP rtsp://media.example/live/{token} RTSP"), "200 OK", &granted("90cbcaac"), "");
    }
    assert!(script.last().contains("Range: npt=0.000-\r\n"), "{}", script.last());
    assert_eq!(script.datagrams.drain(..).map(|(from, to, _)| (from, to)).collect::<Vec<_>>(), [(2000, 5004), (2002, 5004)]);
    // Media may overtake the answer; what tests the path is none.
    script.client.handle(script.now, ClientInput::Datagram(&datagram(4664, 0x90CB_CAAC)));
    script.client.handle(script.now, ClientInput::Datagram(&datagram(9000, 0x2F73_682B)));
    let info =
        "RTP-Info: url=rtsp://media.example/live/audio;seq=4661;rtptime=0, url=rtsp://media.example/live/video;seq=4661\r\n";
    script.answer("PLAY rtsp://media.example/live/ RTSP", "200 OK", info, "");
    script.client.handle(script.now, ClientInput::Datagram(&datagram(4661, 0x90CB_CAAC)));
    script.drain();
    let packets = |script: &Script| script.events.iter().filter(|event| matches!(event, ClientEvent::Packet { .. })).count();
    assert_eq!((packets(&script), script.datagrams.len()), (1, 0));
    script.pass(Duration::from_millis(40));
    // MS-RTSP 2.2.4: in session 796092459 we ask for 4662 and 4663, to the second port.
    let (from, to, nack) = script.datagrams.pop().unwrap();
    let expected = crate::rtsp::recovery::Nack { v_ssrc: 0x2F73_682B, media_ssrc: 0x90CB_CAAC, sequences: vec![4662, 4663] };
    assert_eq!((from, to, &nack[..]), (2003, 5005, &expected.bytes(0x1122_3344)[..]));
    for sequence in [4663, 4662, 4662] {
        script.client.handle(script.now, ClientInput::Datagram(&datagram(sequence, 0x90CB_CAAC)));
    }
    script.drain();
    assert_eq!(packets(&script), 4);
    // The end names the next number: one is still missing.
    let body = "Session: 77\r\nEOF: true\r\n";
    let end = format!(
        "SET_PARAMETER rtsp://media.example/live RTSP/1.0\r\nCSeq: 3\r\nContent-Type: application/x-wms-extension-cmd\r\n\
         RTP-Info: url=x;seq=4666\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    script.bytes(end.as_bytes());
    assert!(script.last().starts_with("RTSP/1.0 200 OK\r\nCSeq: 3\r\n"), "{}", script.last());
    script.pass(STRAGGLER_TIME * 2);
    assert_eq!((script.end.as_ref(), script.datagrams.is_empty()), (None, false));
    script.client.handle(script.now, ClientInput::Datagram(&datagram(4665, 0x90CB_CAAC)));
    script.drain();
    script.answer("TEARDOWN rtsp://media.example/live/ RTSP", "200 OK", "", "");
    assert_eq!((script.end.clone(), packets(&script)), (Some(ClientEnd::Ended), 5));
    let stats = script.client.stats();
    // The first one only came late.
    assert_eq!((stats.gaps, stats.recovered, stats.reordered, stats.lost), (4, 4, 1, 0), "{stats:?}");
    assert_eq!(stats.duplicates, 1);
}

#[test]
fn logins() {
    let login = Some(Login { user: "cam".into(), password: "secret".into() });
    let config = || ClientConfig { login: login.clone(), ..ClientConfig::new(URL.into(), ClientTransport::Tcp) };
    let digest = "WWW-Authenticate: Basic realm=\"r\"\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\n";
    let mut script = Script::new(config());
    script.answer("OPTIONS", "200 OK", "", "");
    assert!(!script.last().contains("Authorization"));
    script.answer("DESCRIBE", "401 Unauthorized", digest, "");
    let proof = "Authorization: Digest username=\"cam\", realm=\"r\", nonce=\"n\", uri=\"rtsp://media.example/live\"";
    assert!(script.last().contains(proof), "{}", script.last());
    script.answer("DESCRIBE", "401 Unauthorized", digest, "");
    assert_eq!(script.end, Some(ClientEnd::CredentialsRefused));

    let mut script = Script::new(config());
    script.answer("OPTIONS", "401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
    assert!(script.last().contains("Authorization: Basic Y2FtOnNlY3JldA=="), "{}", script.last());
    script.answer("OPTIONS", "200 OK", "", "");
    assert!(script.last().contains("Authorization: Basic"), "with all that follow");

    let mut script = Script::tcp();
    script.answer("OPTIONS", "401 Unauthorized", digest, "");
    assert_eq!(script.end, Some(ClientEnd::CredentialsWanted));
}

#[test]
fn places_elsewhere() {
    for (status, place, expected) in [
        ("302 Moved", "rtsp://other.example:8554/b?k=1", "rtsp://other.example:8554/b?k=1"),
        ("301 Moved", "mms://other.example/b", "mms://other.example/b"),
        ("305 Use Proxy", "/c", "rtsp://media.example/c"),
    ] {
        let mut script = Script::tcp();
        script.answer("OPTIONS", "200 OK", "", "");
        script.answer("DESCRIBE", status, &format!("Location: {place}\r\n"), "");
        assert_eq!(script.end, Some(ClientEnd::Redirected(expected.into())));
    }
    let mut script = Script::tcp();
    script.answer("OPTIONS", "200 OK", "", "");
    script.answer("DESCRIBE", "404 Not Found", "", "");
    let end = ClientEnd::Status { what: "DESCRIBE", code: 404, reason: "Not Found".into() };
    assert_eq!(script.end, Some(end));
}

#[test]
fn a_server_with_a_count_of_its_own_and_one_that_says_nothing() {
    let mut script = Script::tcp();
    script.bytes(b"\0\r\n$\x07\0\x03abcRTSP/1.0 200 OK\r\nCSeq: 999\r\n\r\n");
    script.bytes(b"RTSP/1.0 200 OK\r\nCSeq: 1000\r\nContent-Type: application/sdp\r\n");
    script.bytes(format!("Content-Length: {}\r\n\r\n{CAMERA}", CAMERA.len()).as_bytes());
    assert!(script.last().starts_with("SETUP"), "{}", script.last());
    script.pass(ANSWER_TIME);
    assert_eq!(script.end, Some(ClientEnd::NoAnswer { what: "SETUP", limit: ANSWER_TIME }));
}

#[test]
fn what_cannot_be_repeated_is_not() {
    let mut script = Script::tcp();
    script.answer("OPTIONS", "200 OK", "", "");
    script.answer("DESCRIBE", "200 OK", "Content-Type: application/sdp\r\nContent-Base: rtsp://h/x\u{85}y\r\n", CAMERA);
    script.answer("SETUP rtsp://media.example/x%C2%85y/trackID=1 ", "200 OK", "Session: a\u{85}b;timeout=60\r\n", "");
    assert!(!script.last().contains("Session:"), "{}", script.last());
    script.answer("SETUP", "200 OK", "Session: 12\r\n", "");
    script.answer("PLAY", "302 Moved", "Location: rtsp://h/\u{9b}m\r\n", "");
    assert!(matches!(script.end, Some(ClientEnd::Protocol(_))), "{:?}", script.end);
}

#[test]
fn requests_of_servers_are_answered() {
    let mut script = Script::tcp();
    for (request, status) in [
        ("OPTIONS * RTSP/1.0\r\nCSeq: 4\r\n\r\n", 200),
        ("GET_PARAMETER rtsp://h/ RTSP/1.0\r\nCSeq: 4\r\n\r\n", 200),
        ("SET_PARAMETER rtsp://h/ RTSP/1.0\r\nCSeq: 4\r\nContent-Type: application/x-wms-extension-cmd\r\n\r\n", 200),
        ("ANNOUNCE rtsp://h/ RTSP/1.0\r\nCSeq: 4\r\nContent-Length: 1\r\n\r\nx", 200),
        ("X-GO rtsp://h/ RTSP/1.0\r\nCSeq: 4\r\n\r\n", 501),
    ] {
        script.bytes(request.as_bytes());
        assert!(script.last().starts_with(&format!("RTSP/1.0 {status} ")) && script.last().contains("CSeq: 4\r\n"), "{request}");
        assert_eq!(script.end, None, "{request}");
    }
}

/// Answers that lead into every step, and what may stand between.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let wm = {
        let (description, _) = content("live-asf-pipe.asf", true);
        let facts = crate::rtsp::sdp::Facts::of(&description, "rtsp://media.example/live/".into(), false);
        crate::rtsp::sdp::describe(&description, &facts)
    };
    let with_body = |head: &str, body: &str| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let sdp = "RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\n";
    let ask = "RTSP/1.0\r\nCSeq: 1\r\n";
    let texts = vec![
        b"RTSP/1.0 200 OK\r\n\r\n".to_vec(),
        b"RTSP/1.0 200 OK\r\nSession: 1;timeout=10\r\nTransport: RTP/AVP/UDP;server_port=5004-5005;ssrc=2f73682b\r\n\r\n"
            .to_vec(),
        b"RTSP/1.0 200 OK\r\nRTP-Info: url=x;seq=7\r\n\r\n".to_vec(),
        b"RTSP/1.0 461 No\r\n\r\n".to_vec(),
        b"RTSP/1.0 401 No\r\nWWW-Authenticate: Basic\r\n\r\n".to_vec(),
        with_body(sdp, CAMERA),
        with_body(sdp, &wm),
        with_body(&format!("ANNOUNCE x {ask}Content-Type: application/sdp\r\n"), &wm),
        with_body(&format!("SET_PARAMETER x {ask}Content-Type: application/x-wms-extension-cmd\r\n"), "EOF: true\r\n"),
        with_body(
            &format!("SET_PARAMETER x {ask}Content-Type: application/x-wms-extension-cmd\r\n"),
            "End-Of-Playlist-Entry: true\r\n",
        ),
        [&b"$\0\0\x20"[..], &rtp(7, 1)].concat(),
    ];
    prop_oneof![
        6 => prop::sample::select(texts),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn whatever_a_server_says(
        said in prop::collection::vec((pieces(), 0u8..12, any::<u16>(), 0u64..8000), 0..25),
        udp: bool,
        counts_plain: bool,
    ) {
        let transport = if udp { UDP } else { ClientTransport::Tcp };
        let login = Some(Login { user: "u".into(), password: "p".into() });
        let config = ClientConfig { counts_plain, fall_back: true, login, ..ClientConfig::new(URL.into(), transport) };
        let mut now = base();
        let mut client = Client::new(now, config);
        let mut over = false;
        for (bytes, what, number, ms) in said {
            now += Duration::from_millis(ms);
            if client.poll_timeout().is_some_and(|at| at <= now) {
                client.handle(now, ClientInput::Timeout);
            }
            client.handle(now, ClientInput::Bytes(&bytes));
            match what {
                0 => client.handle(now, ClientInput::Pause),
                1 => client.handle(now, ClientInput::Resume),
                2 => client.handle(now, ClientInput::Seek(StartAt::Packet(number.into()))),
                3 => client.handle(now, ClientInput::Select([1].into_iter().collect())),
                4 => client.handle(now, ClientInput::Room(number % 2 == 0)),
                5 => client.handle(now, ClientInput::Connected),
                6..9 => client.handle(now, ClientInput::Datagram(&rtp(number, u32::from(what)))),
                9 => client.handle(now, ClientInput::Datagram(&bytes)),
                _ => {}
            }
            while let Some(output) = client.poll_output() {
                prop_assert!(!over, "{output:?} behind the end");
                over = matches!(output, ClientOutput::Close(_));
            }
        }
        client.handle(now, ClientInput::Closed);
        while let Some(output) = client.poll_output() {
            prop_assert!(!over, "{output:?} behind the end");
            over = matches!(output, ClientOutput::Close(_));
        }
        prop_assert!(over && client.poll_timeout().is_none());
        let stats = client.stats();
        prop_assert_eq!(stats.gaps, stats.recovered + stats.lost);
    }
}
