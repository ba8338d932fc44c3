//! RTSP inside TLS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use support::Need::{self, Program};
use support::asf::Synthetic;
use support::daemon::{Daemon, Launch};
use support::player::{frames, of_stream};
use support::process::Process;
use support::publisher::Publisher;
use support::tls::{self, Made, TlsStream, make_certificate};
use support::viewer::wait_for_source;
use support::{ready, wait_for, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);

/// A daemon with the demo that serves inside TLS too.
fn start(settings: &str) -> (Daemon, Made, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let made = make_certificate(folder.path());
    (Launch::new(settings).tls(made.files.clone()).start(), made, folder)
}

fn request(line: &str, headers: &str) -> String {
    format!("{line} RTSP/1.0\r\nCSeq: 1\r\n{headers}\r\n")
}

/// Plays the demo; what comes then is media. The answers to SETUP and PLAY.
fn play(stream: &mut TlsStream, daemon: &Daemon) -> [String; 2] {
    play_of(stream, daemon, "demo")
}

fn play_of(stream: &mut TlsStream, daemon: &Daemon, name: &str) -> [String; 2] {
    let url = format!("rtsps://{}/{name}", daemon.rtsps);
    let setup = request(&format!("SETUP {url}/audio"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    let setup = tls::ask(stream, &setup).unwrap();
    assert!(setup.starts_with("RTSP/1.0 200"), "{setup}");
    let session = setup.lines().find_map(|line| line.strip_prefix("Session: ")).unwrap();
    let session = session.split(';').next().unwrap().to_owned();
    let playing = tls::ask(stream, &request(&format!("PLAY {url}/"), &format!("Session: {session}\r\n"))).unwrap();
    assert!(playing.starts_with("RTSP/1.0 200"), "{playing}");
    [setup, playing]
}

/// The next RTP packet.
fn packet(stream: &mut TlsStream) -> Vec<u8> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], head[1]), (b'$', 0), "an interleaved packet of the first channel");
    let mut packet = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut packet).unwrap();
    packet
}

/// Whether the server has hung up; what it says before is of no interest.
fn ends(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    loop {
        match stream.read(&mut [0; 256]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

fn refused(daemon: &Daemon, cause: &str) -> f64 {
    daemon.metric("wmrelay_refusals_total", &[("cause", cause)])
}

#[test]
fn ffmpeg_plays_inside_tls() {
    if !ready("ffmpeg_plays_inside_tls", FFMPEG) {
        return;
    }
    let (daemon, _, _folder) = start("");
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "warning"]);
    command.args(["-i", &format!("rtsps://{}/demo", daemon.rtsps), "-map", "0", "-t", "3"]);
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "framemd5", "-"]);
    let decoded = Process::start(command).finish(MINUTE);
    let frames = frames(&decoded.stdout);
    for stream in [0, 1] {
        let count = of_stream(&frames, stream).len();
        assert!(count >= 10, "{count} of stream {stream}\n{}", decoded.stderr);
    }
    wait_until("the end of the session", MINUTE, || daemon.metric("wmrelay_tls_connections", &[]) == 0.0);
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("session ended")).unwrap();
    assert!(line.contains("transport=\"tls\"") && line.contains("peer=127.0.0.1:"), "{line}");
}

#[test]
fn only_the_connection_itself_carries_media() {
    let (daemon, _, _folder) = start("");
    let mut viewer = tls::connect(daemon.rtsps).unwrap();
    let url = format!("rtsps://{}/demo", daemon.rtsps);
    let udp = "Transport: RTP/AVP/UDP;unicast;client_port=3000-3001\r\n";
    let answer = tls::ask(&mut viewer, &request(&format!("SETUP {url}/audio"), udp)).unwrap();
    assert!(answer.starts_with("RTSP/1.0 461"), "{answer}");
    let [_, playing] = play(&mut viewer, &daemon);
    assert!(playing.contains(&format!("url={url}/")) || playing.contains(&format!("url=\"{url}/")), "{playing}");
    for _ in 0..10 {
        assert_eq!(packet(&mut viewer)[0] >> 6, 2, "RTP");
    }
    assert_eq!(daemon.metric("wmrelay_tls_connections", &[]), 1.0);
    assert_eq!(daemon.metric("wmrelay_viewers", &[("protocol", "rtsp"), ("transport", "tcp")]), 1.0);

    // Without TLS it is another port's.
    let mut plain = TcpStream::connect(daemon.rtsp).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let options = request(&format!("OPTIONS rtsp://{}/demo", daemon.rtsp), "");
    assert!(tls::ask(&mut plain, &options).unwrap().starts_with("RTSP/1.0 200"));
}

#[test]
fn who_mixes_up_the_ports_harms_nobody() {
    let (daemon, _, _folder) = start("");
    let mut viewer = tls::connect(daemon.rtsps).unwrap();
    play(&mut viewer, &daemon);
    // Clear text, to the port of TLS.
    let mut plain = TcpStream::connect(daemon.rtsps).unwrap();
    plain.write_all(request("OPTIONS *", "").as_bytes()).unwrap();
    assert!(ends(&mut plain));
    wait_until("the refusal of clear text", MINUTE, || refused(&daemon, "tls_handshake") == 1.0);
    // TLS, to the port of clear text.
    assert!(tls::connect(daemon.rtsp).is_err());
    wait_until("the refusal of TLS", MINUTE, || refused(&daemon, "unknown_protocol") == 1.0);
    // And inside TLS nothing but RTSP.
    let mut web = tls::connect(daemon.rtsps).unwrap();
    assert!(tls::ask(&mut web, "GET /demo HTTP/1.0\r\n\r\n").is_err());
    wait_until("the refusal of HTTP", MINUTE, || refused(&daemon, "wrong_port") == 1.0);
    packet(&mut viewer);
}

#[test]
fn a_handshake_that_does_not_go_on_ends() {
    let (daemon, _, _folder) = start("[limits]\nhandshake_s = 1");
    let mut viewer = tls::connect(daemon.rtsps).unwrap();
    play(&mut viewer, &daemon);
    let mut silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(daemon.rtsps).unwrap()).collect();
    for stream in &mut silent[..4] {
        // The head of a ClientHello of 512 bytes.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    }
    // A handshake that is done, and then no word.
    let mut wordless = tls::connect(daemon.rtsps).unwrap();
    assert!(silent.iter_mut().all(ends));
    assert!(matches!(wordless.read(&mut [0; 16]), Ok(0) | Err(_)));
    wait_until("nine refusals", MINUTE, || refused(&daemon, "silent") == 9.0);
    packet(&mut viewer);
    wait_until("one connection", MINUTE, || daemon.metric("wmrelay_tls_connections", &[]) == 1.0);
}

#[test]
fn who_stops_reading_holds_up_nobody() {
    let (daemon, _, _folder) = start("[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }");
    let _publisher = Publisher::start(daemon.http, "cam1", Synthetic { packet_size: 1400, packets_per_second: 1000 }, u32::MAX);
    wait_for_source(&daemon, "cam1");
    let mut stopped: Vec<TlsStream> = (0..3).map(|_| tls::connect(daemon.rtsps).unwrap()).collect();
    for stream in &mut stopped {
        // As little as the system allows, so that soon nothing fits.
        socket2::SockRef::from(&stream.sock).set_recv_buffer_size(2048).unwrap();
        play_of(stream, &daemon, "cam1");
    }
    let mut reader = tls::connect(daemon.rtsps).unwrap();
    play_of(&mut reader, &daemon, "cam1");
    // Far more of the stream than fits on the way to those who do not read: who does misses nothing.
    let sequence = |packet: Vec<u8>| u16::from_be_bytes([packet[2], packet[3]]);
    let mut last = sequence(packet(&mut reader));
    for _ in 0..4000 {
        let next = sequence(packet(&mut reader));
        assert_eq!(next, last.wrapping_add(1));
        last = next;
    }
    assert_eq!(daemon.metric("wmrelay_tls_connections", &[]), 4.0);
    drop(stopped);
    packet(&mut reader);
    wait_until("those who did not read are gone", MINUTE, || daemon.metric("wmrelay_tls_connections", &[]) == 1.0);
    wait_until("with their sessions", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 1.0);
}

#[test]
fn the_end_gets_through() {
    let (daemon, _, _folder) = start("");
    let mut viewer = tls::connect(daemon.rtsps).unwrap();
    play(&mut viewer, &daemon);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // An error: the connection ended without the word by which TLS knows that nothing was cut off.
        viewer.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert!(daemon.stop().success());
    let bytes = reader.join().unwrap().unwrap();
    assert!(bytes.windows(11).any(|part| part == b"EOF: true\r\n"), "the end of the stream is told");
}

#[test]
fn there_is_a_limit_of_its_own() {
    let (daemon, _, _folder) = start("[limits]\ntls_connections = 1");
    let mut first = tls::connect(daemon.rtsps).unwrap();
    play(&mut first, &daemon);
    let second = tls::connect(daemon.rtsps).and_then(|mut stream| tls::ask(&mut stream, &request("OPTIONS *", "")));
    assert!(second.is_err(), "{second:?}");
    wait_until("the refusal", MINUTE, || refused(&daemon, "tls_limit") == 1.0);
    packet(&mut first);
    drop(first);
    wait_for("room for another", MINUTE, || {
        let mut next = tls::connect(daemon.rtsps).ok()?;
        tls::ask(&mut next, &request("OPTIONS *", "")).ok()
    });
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let (daemon, first, folder) = start("");
    let shown = || tls::shown(&tls::connect(daemon.rtsps).unwrap());
    assert_eq!(shown(), first.der);
    std::fs::write(&first.files[1], "no key").unwrap();
    wait_until("a word of the broken file", MINUTE, || daemon.log().contains("the new certificate of TLS cannot be used"));
    assert_eq!(shown(), first.der);
    let mut viewer = tls::connect(daemon.rtsps).unwrap();
    play(&mut viewer, &daemon);
    let second = make_certificate(folder.path());
    wait_until("the new certificate", MINUTE, || shown() == second.der);
    packet(&mut viewer);
}

#[test]
fn rules_see_the_address_of_the_peer() {
    let (daemon, _, _folder) = start("[access]\nviewers_deny = [\"127.0.0.9\"]");
    let from = |address: Ipv4Addr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&daemon.rtsps.into()).unwrap();
        let describe = request(&format!("DESCRIBE rtsps://{}/demo", daemon.rtsps), "Accept: application/sdp\r\n");
        tls::ask(&mut tls::over(socket.into()).unwrap(), &describe).unwrap()
    };
    assert!(from(Ipv4Addr::new(127, 0, 0, 9)).starts_with("RTSP/1.0 403"));
    assert!(from(Ipv4Addr::new(127, 0, 0, 8)).starts_with("RTSP/1.0 200"));
}

#[test]
fn files_that_cannot_be_used_are_told_by_check() {
    let folder = tempfile::tempdir().unwrap();
    let made = make_certificate(folder.path());
    let other = tempfile::tempdir().unwrap();
    let [_, strange] = make_certificate(other.path()).files;
    let config = folder.path().join("wmrelay.toml");
    let check = |key: &std::path::Path| {
        let text = format!("[rtsp]\ntls_listen = \"*:322\"\ncertificate = {:?}\nkey = {key:?}\n", made.files[0]);
        std::fs::write(&config, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        command.arg("check").arg("--config").arg(&config);
        Process::start(command).finish(MINUTE)
    };
    let sound = check(&made.files[1]);
    assert!(sound.status.success() && sound.stdout.contains("tls_listen = [\"*:322\"]"), "{}{}", sound.stdout, sound.stderr);
    let unsound = check(&strange);
    let told = "wmrelay.toml:4: rtsp.key: ";
    assert!(unsound.stderr.contains(told) && unsound.stderr.contains("is not the key of the certificate"), "{}", unsound.stderr);
}
