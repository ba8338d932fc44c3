//! RTSP by hand: one image of a packet for all, every protocol on every port, and connections that send what they should not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use support::asf::Synthetic;
use support::daemon::Daemon;
use support::mms::open_result;
use support::publisher::Publisher;
use support::rtsp::{Connection, Incoming, rtp};
use support::viewer::{Viewer, wait_for_source};
use support::{Random, wait_until};

const MINUTE: Duration = Duration::from_secs(60);
const STREAM: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 100 };
const POINT: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
const INTERLEAVED: &str = "RTP/AVP/TCP;unicast;interleaved=0-1";

#[track_caller]
fn published(settings: &str) -> (Daemon, Publisher) {
    let daemon = Daemon::start(format!("{settings}{POINT}"));
    let publisher = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam1");
    (daemon, publisher)
}

/// Plays `cam1` on a port and takes so many datagrams, by their sequence numbers.
fn datagrams(daemon: &Daemon, port: u16, count: usize) -> (Connection, BTreeMap<u16, Vec<u8>>) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(MINUTE)).unwrap();
    let mut connection = Connection::open(daemon.rtsp, "cam1");
    let answer = connection.play(&format!("RTP/AVP/UDP;unicast;client_port={port}-{}", port + 1));
    let told: u16 = number_behind(answer.header("RTP-Info").unwrap(), "seq=");
    let mut datagrams = BTreeMap::new();
    let mut buffer = [0; 2048];
    while datagrams.len() < count {
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), daemon.rtsp.ip());
        let sequence = rtp(&buffer[..len]).0;
        if datagrams.is_empty() {
            assert_eq!(sequence, told, "the answer to PLAY tells the first number");
        }
        datagrams.insert(sequence, buffer[..len].to_vec());
    }
    (connection, datagrams)
}

fn number_behind(text: &str, mark: &str) -> u16 {
    let rest = text.split_once(mark).unwrap().1;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().unwrap()
}

/// FFmpeg tells the dialect by the answer to OPTIONS, and may be about to publish.
#[test]
fn ffmpeg_finds_a_plain_server_while_nobody_publishes() {
    let daemon = Daemon::start(POINT);
    let ask = |agent: &str, query: &str| {
        let mut connection = Connection::open(daemon.rtsp, "cam1");
        connection.agent = agent.into();
        connection.url.push_str(query);
        let options = connection.ask("OPTIONS", "", "");
        let described = connection.ask("DESCRIBE", "", "");
        let is_plain = options.header("Server").unwrap().starts_with("wmrelay/");
        (is_plain, described.status(), described.header("Location").map(str::to_owned))
    };
    let again = format!("rtsp://{}/cam1?dialect=wm", daemon.rtsp);
    assert_eq!(ask("Lavf59.27.100", ""), (true, 302, Some(again)));
    assert_eq!(ask("Lavf59.27.100", "?dialect=wm"), (false, 503, None));
    assert_eq!(ask("Lavf59.27.100", "?dialect=other"), (false, 503, None));
    assert_eq!(ask("WMPlayer/9.0.0.2833", ""), (false, 503, None));
    let _publisher = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam1");
    assert_eq!(ask("Lavf59.27.100", ""), (false, 200, None));
    assert_eq!(daemon.metric("wmrelay_sessions_total", &[("protocol", "rtsp")]), 5.0);
}

/// Nothing tells it whether a publisher is awaited, nor does it cost it a second connection.
#[test]
fn ffmpeg_that_may_not_publish_finds_the_server_of_players() {
    let daemon = Daemon::start(format!("{POINT}[access]\npublishers_deny = [\"127.0.0.1\"]\n"));
    let mut connection = Connection::open(daemon.rtsp, "cam1");
    connection.agent = "Lavf59.27.100".into();
    let options = connection.ask("OPTIONS", "", "");
    assert!(options.header("Server").unwrap().starts_with("WMServer/"), "{options:?}");
    assert_eq!(connection.ask("DESCRIBE", "", "").status(), 503);
}

/// A datagram is one image, whoever gets it and whichever shard sends it.
#[test]
fn all_viewers_get_the_same_datagrams_from_all_shards() {
    let (daemon, _publisher) = published("shards = 2\n");
    // Connections are dealt out to the shards in turn.
    let viewers: Vec<_> = std::thread::scope(|scope| {
        let daemon = &daemon;
        let viewers: Vec<_> = (0..6).map(|number| scope.spawn(move || datagrams(daemon, 2600 + 2 * number, 300))).collect();
        viewers.into_iter().map(|viewer| viewer.join().unwrap().1).collect()
    });
    for other in &viewers[1..] {
        let common: Vec<_> = viewers[0].iter().filter_map(|(sequence, one)| Some((one, other.get(sequence)?))).collect();
        assert!(common.len() >= 150, "{} datagrams in common", common.len());
        assert!(common.iter().all(|(one, other)| one == other), "two images of one packet");
    }
}

/// Over TCP the same image comes behind four bytes.
#[test]
fn a_frame_on_the_connection_holds_the_datagram() {
    let (daemon, _publisher) = published("");
    std::thread::scope(|scope| {
        let by_udp = scope.spawn(|| datagrams(&daemon, 2620, 300).1);
        let mut connection = Connection::open(daemon.rtsp, "cam1");
        connection.play(INTERLEAVED);
        let frames = frames(&mut connection, 300);
        let by_udp = by_udp.join().unwrap();
        let common: Vec<_> = frames.iter().filter_map(|packet| Some((packet, by_udp.get(&rtp(packet).0)?))).collect();
        assert!(common.len() >= 150, "{} packets in common", common.len());
        assert!(common.iter().all(|(frame, datagram)| frame == datagram));
    });
}

/// The next frames of media.
#[track_caller]
fn frames(connection: &mut Connection, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while frames.len() < count {
        match connection.receive(MINUTE) {
            Some(Incoming::Frame(0, packet)) => frames.push(packet),
            Some(Incoming::Message(_)) => {}
            other => panic!("wanted media behind {} packets, got {other:?}", frames.len()),
        }
    }
    frames
}

/// What is answered first to these bytes; empty where the connection just closes.
#[track_caller]
fn answer(address: SocketAddr, request: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(MINUTE)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut buffer = [0; 4096];
    let count = connection.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

fn rtsp_options(address: SocketAddr) -> String {
    answer(address, &format!("OPTIONS rtsp://{address}/cam1 RTSP/1.0\r\nCSeq: 7\r\n\r\n"))
}

fn http_options(address: SocketAddr) -> String {
    answer(address, &format!("OPTIONS /cam1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn every_port_serves_every_protocol() {
    let (daemon, _publisher) = published("");
    for address in [daemon.mms, daemon.http, daemon.rtsp] {
        let rtsp = rtsp_options(address);
        assert!(rtsp.starts_with("RTSP/1.0 200 ") && rtsp.contains("\r\nCSeq: 7\r\n"), "{address}: {rtsp}");
        let http = http_options(address);
        assert!(http.starts_with("HTTP/1."), "{address}: {http}");
        let get = answer(address, &format!("GET /cam1 HTTP/1.0\r\nHost: {address}\r\n\r\n"));
        assert!(get.starts_with("HTTP/1.0 200 ") || get.starts_with("HTTP/1.1 200 "), "{address}: {get:.200}");
        assert_eq!(open_result(address, "cam1"), 0, "MMS at {address}");
        let mut connection = Connection::open(address, "cam1");
        connection.play(INTERLEAVED);
        let frames = frames(&mut connection, 20);
        assert!(frames.windows(2).all(|pair| rtp(&pair[1]).0 == rtp(&pair[0]).0.wrapping_add(1)));
        let viewer = Viewer::tcp(address, "cam1");
        viewer.wait_for_packets(20, MINUTE);
    }
    // An OPTIONS and a play each.
    assert_eq!(daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", "tcp")]), 3.0);
    assert!(daemon.metric("wmrelay_sessions_total", &[("protocol", "rtsp")]) >= 3.0);
    assert!(daemon.metric("wmrelay_sessions_total", &[("protocol", "mms")]) >= 6.0);
    assert!(daemon.metric("wmrelay_sessions_total", &[("protocol", "http")]) >= 3.0);
}

/// `protocols` of one listener says nothing about the others.
#[test]
fn a_protocol_that_a_listener_does_not_have_is_not_served_there() {
    let daemon = support::daemon::Launch::new(POINT).protocols(["[\"mms\"]", "[\"http\"]", "[\"rtsp\"]"]).start();
    let _publisher = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam1");
    for (address, serves) in [(daemon.mms, "mms"), (daemon.http, "http"), (daemon.rtsp, "rtsp")] {
        assert_eq!(rtsp_options(address).starts_with("RTSP/1.0 200 "), serves == "rtsp", "RTSP where {serves} is served");
        let get = answer(address, &format!("GET /cam1 HTTP/1.0\r\nHost: {address}\r\n\r\n"));
        assert_eq!(get.get(8..13) == Some(" 200 "), serves == "http", "HTTP where {serves} is served: {get:.200}");
        let connect = support::mms::control(0, support::mms::CONNECT, &support::mms::connect_body(support::viewer::PLAYER));
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(MINUTE)).unwrap();
        connection.write_all(&connect).unwrap();
        let mut head = [0; 16];
        let answered = connection.read_exact(&mut head).is_ok() && head[4..8] == connect[4..8];
        assert_eq!(answered, serves == "mms", "MMS where {serves} is served");
    }
}

/// Whoever sends what is no RTSP is answered with an error or not at all, and its connection ends; nobody else notices.
#[test]
fn broken_heads_end_their_connection_and_no_other() {
    let (daemon, _publisher) = published("[limits]\nhandshake_s = 2\n");
    let mut bystander = Connection::open(daemon.rtsp, "cam1");
    bystander.play(INTERLEAVED);
    let first = frames(&mut bystander, 20);
    let before = daemon.resident_kib();

    let url = format!("rtsp://{}/cam1", daemon.rtsp);
    let head = |more: &str| format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n{more}\r\n").into_bytes();
    let mut random = Random(6);
    let attempts: Vec<(&str, Vec<u8>)> = vec![
        ("a line of 64 KiB", format!("OPTIONS {} RTSP/1.0\r\n", "x".repeat(1 << 16)).into_bytes()),
        ("a field of 64 KiB", head(&format!("X-Long: {}\r\n", "x".repeat(1 << 16)))),
        ("a thousand fields", head(&"X-Many: 1\r\n".repeat(1000))),
        ("two lengths", head("Content-Length: 3\r\nContent-Length: 30\r\n")),
        ("a length of 4 TB", head("Content-Length: 4294967296000\r\n")),
        ("a negative length", head("Content-Length: -1\r\n")),
        ("a request within a length that is none", head("Content-Length: 1e1\r\n\r\nTEARDOWN")),
        ("a zero within a field", head("X-Zero: a\0b\r\n")),
        ("half a head", format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n").into_bytes()),
        ("a frame and half another", [b"$\0\0\x04abcd$\0\xFF\xFF".as_slice(), &random.bytes(100)].concat()),
        ("noise behind a method", [b"DESCRIBE ".as_slice(), &random.bytes(5000)].concat()),
        ("another protocol's end", format!("DESCRIBE {url} HTTP/9.9\r\n\r\n\r\n").into_bytes()),
    ];
    let connections: Vec<_> = attempts
        .iter()
        .map(|(what, bytes)| {
            let mut connection = TcpStream::connect(daemon.rtsp).unwrap();
            // The daemon may close in the middle of it.
            let _ = connection.write_all(bytes);
            (what, connection)
        })
        .collect();
    // One byte at a time, for as long as the handshake may take and no longer.
    let mut slow = TcpStream::connect(daemon.rtsp).unwrap();
    let endless = [head("").as_slice()[..20].to_vec(), b"X".repeat(1 << 20)].concat();
    wait_until("the end of a slow head", MINUTE, || {
        static AT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let at = AT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        slow.write_all(&endless[at..=at]).is_err()
    });
    for (what, mut connection) in connections {
        connection.set_read_timeout(Some(MINUTE)).unwrap();
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = connection.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let answers: Vec<&str> = answer.lines().filter(|line| line.starts_with("RTSP/1.0 ")).collect();
        assert!(answers.len() <= 2 && !answer.contains("Public: x"), "{what}: {answer}");
        eprintln!("{what}: {answers:?}");
    }

    // Every packet since, and nothing else.
    let rest = frames(&mut bystander, 400);
    let numbers: Vec<u16> = first.iter().chain(&rest).map(|packet| rtp(packet).0).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "a bystander lost packets");
    let after = daemon.resident_kib();
    assert!(after < before + (16 << 10), "{before} KiB, then {after} KiB");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    wait_until("the bystander's connection alone", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 1.0);
}

/// What is said wrongly in a session has an error for an answer, and the session plays on.
#[test]
fn wrong_requests_in_a_session_are_refused_and_it_plays_on() {
    let (daemon, _publisher) = published("");
    let mut connection = Connection::open(daemon.rtsp, "cam1");
    connection.play(INTERLEAVED);
    let mut numbers = Vec::new();
    let session = connection.session.clone();
    for (method, stream, more, wrong_session, status) in [
        ("PLAY", "", "", true, 454),
        ("TEARDOWN", "", "", true, 454),
        ("PLAY", "", "Range: smpte=x\r\n", false, 400),
        ("PAUSE", "audio", "", false, 460),
        ("RECORD", "", "", false, 405),
        ("NONSENSE", "", "", false, 501),
        ("GET_PARAMETER", "", "Require: no.such.feature\r\n", false, 551),
        ("GET_PARAMETER", "", "X-Folded: one\r\n two\r\nX-Folded: three\r\n", false, 200),
    ] {
        if wrong_session {
            connection.session = Some("1234567890".into());
        }
        let answer = connection.ask(method, stream, more);
        assert_eq!(answer.status(), status, "{method} {stream} {more}: {answer:?}");
        connection.session.clone_from(&session);
        numbers.extend(frames(&mut connection, 30).iter().map(|packet| rtp(packet).0));
    }
    // A frame of the client's in front of a request, and two requests at once.
    connection.send_raw(b"$\x01\0\x08\x80\xC9\0\x01\0\0\0\0\r\n");
    assert_eq!(connection.ask("GET_PARAMETER", "", "").status(), 200);
    numbers.extend(frames(&mut connection, 30).iter().map(|packet| rtp(packet).0));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "packets went missing");
    connection.granted("TEARDOWN", "", "");
    wait_until("its end", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 0.0);
    assert_eq!(daemon.metric("wmrelay_sessions_total", &[("protocol", "rtsp")]), 1.0);
}
