//! Clients that are broken, slow or up to something: they get a log line, the others go on playing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use support::asf::Synthetic;
use support::daemon::Daemon;
use support::mms::{self, Control, Incoming, control, result_of};
use support::publisher::Publisher;
use support::viewer::{PLAYER, Viewer, open, wait_for_source};
use support::{Random, stays, wait_for, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

/// 1400-byte packets, 1.1 Mbit/s.
const STREAM: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 100 };

/// What a daemon may grow by under any of these: sockets' bookkeeping and a window, far from a leak.
const GROWTH_KIB: u64 = 16 << 10;

const POINT: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";

fn published(settings: &str, stream: Synthetic) -> (Daemon, Publisher) {
    let daemon = Daemon::start(format!("{settings}\n{POINT}"));
    let publisher = Publisher::start(daemon.http, "cam1", stream, u32::MAX);
    wait_for_source(&daemon, "cam1");
    (daemon, publisher)
}

/// The connection is closed by the daemon, whatever it sends before.
#[track_caller]
fn assert_closed(mut connection: TcpStream, what: &str) {
    connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 4096];
    wait_until(&format!("the end of a connection that sent {what}"), MINUTE, || match connection.read(&mut buffer) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    });
}

/// The daemon's resident memory has not grown by more than it may.
#[track_caller]
fn assert_bounded(before_kib: u64, after_kib: u64) {
    eprintln!("resident: {before_kib} KiB, then {after_kib} KiB");
    assert!(after_kib < before_kib + GROWTH_KIB, "{before_kib} KiB, then {after_kib} KiB");
}

fn connect(daemon: &Daemon) -> TcpStream {
    connect_to(daemon.mms)
}

fn connect_to(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    connection.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    connection
}

fn hello() -> Vec<u8> {
    control(0, mms::CONNECT, &mms::connect_body(PLAYER))
}

/// A Connect with four bytes of its framing changed.
fn hello_with(at: usize, value: u32) -> Vec<u8> {
    let mut bytes = hello();
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn garbage_and_wrong_lengths_end_one_connection_each() {
    let (daemon, _publisher) = published("[limits]\nhandshake_s = 2", STREAM);
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    viewer.wait_for_packets(50, MINUTE);
    let before = daemon.resident_kib();

    let mut random = Random(1);
    let mut attempts: Vec<(String, Vec<u8>)> = Vec::new();
    for size in [1, 8, 31, 32, 33, 200, 5000, 200_000] {
        attempts.push((format!("{size} bytes of noise"), random.bytes(size)));
        attempts.push((format!("a Connect and {size} bytes of noise"), [hello(), random.bytes(size)].concat()));
    }
    for length in [0, 1, 8, 15, 16, 17, 23, 0xFFFF, 0x10_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, u32::MAX] {
        attempts.push((format!("a messageLength of {length:#x}"), hello_with(8, length)));
        attempts.push((format!("a chunkLen of {length:#x}"), hello_with(32, length)));
    }
    attempts.push(("another seal".into(), hello_with(12, 0)));
    attempts.push(("a message of the wrong direction".into(), control(0, mms::CONNECTED, &[0; 64])));
    attempts.push(("a Connect without its fixed part".into(), control(0, mms::CONNECT, &[])));
    attempts.push(("StartPlaying first".into(), control(0, mms::START_PLAYING, &mms::start_body())));
    attempts.push(("two Connects".into(), [hello(), hello()].concat()));
    let names = ["..\\..\\etc\\passwd", "../../etc/passwd", "cam1\u{1}", "", "C:\\x", &"a".repeat(5000)];
    for name in names {
        attempts.push((
            format!("a name such as {:.20}", name),
            [hello(), control(1, mms::OPEN_FILE, &mms::open_body(name))].concat(),
        ));
    }
    for funnel in [
        "",
        "\\\\",
        "\\\\1.2.3.4\\UDP\\",
        "\\\\1.2.3.4\\UDP\\99999",
        "\\\\1.2.3.4\\SCTP\\1",
        "\\\\x\\UDP\\-1",
        &"\\".repeat(3000),
    ] {
        attempts.push((
            format!("a funnel such as {funnel:.20}"),
            [hello(), control(1, mms::CONNECT_FUNNEL, &mms::funnel_body(funnel))].concat(),
        ));
    }

    // All at once first, then one after the other: both orders have their own faults to find.
    let connections: Vec<_> = attempts
        .iter()
        .map(|(what, bytes)| {
            let mut connection = connect(&daemon);
            // The daemon may close in the middle of it.
            let _ = connection.write_all(bytes);
            (connection, what)
        })
        .collect();
    for (connection, what) in connections {
        assert_closed(connection, what);
    }
    for (_, bytes) in &attempts {
        let mut connection = connect(&daemon);
        let _ = connection.write_all(bytes);
        let _ = connection.shutdown(Shutdown::Both);
    }
    // And on the other ports, where the same bytes are just as wrong.
    for (what, bytes) in attempts.iter().take(8) {
        for port in [daemon.http, daemon.admin] {
            let mut connection = connect_to(port);
            let _ = connection.write_all(bytes);
            let _ = connection.shutdown(Shutdown::Write);
            assert_closed(connection, what);
        }
    }

    viewer.assert_undisturbed();
    let after = daemon.resident_kib();
    assert_bounded(before, after);
    wait_until("only the viewer and the publisher are connected", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 1.0);
    let log = daemon.log();
    wait_until("the log tells of what was turned away at the door", MINUTE, || daemon.log().contains("did not become a viewer"));
    assert!(
        log.lines().filter(|line| line.contains("session ended") && !line.contains("reason=\"the player left")).count() >= 10,
        "{log}"
    );
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn datagrams_of_nonsense_are_dropped() {
    let (daemon, _publisher) = published("", STREAM);
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = Random(2);
    let mut resend = vec![0x0D, 0xF0, 0xEF, 0xBE];
    resend.extend(random.bytes(4));
    resend.extend([1, 0, 32, 0]);
    resend.extend(random.bytes(128));
    for size in (0..200).chain([1472, 9000]) {
        socket.send_to(&random.bytes(size), daemon.mms).unwrap();
        socket.send_to(&resend[..size.min(resend.len())], daemon.mms).unwrap();
    }
    viewer.assert_undisturbed();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "something was answered");
}

#[test]
fn half_messages_and_single_bytes() {
    let (daemon, _publisher) = published("[limits]\nhandshake_s = 3", STREAM);
    let viewer = Viewer::tcp(daemon.mms, "cam1");

    // Half a message, then nothing: the handshake timer ends it.
    let hello = hello();
    let halves: Vec<TcpStream> = [1, 4, 31, 32, 40, hello.len() - 1]
        .iter()
        .map(|cut| {
            let mut connection = connect(&daemon);
            connection.write_all(&hello[..*cut]).unwrap();
            connection
        })
        .collect();

    // One byte at a time is slow, not wrong: it is answered.
    let mut slow = Control::connect(daemon.mms);
    for byte in &hello {
        assert!(slow.send_raw(&[*byte]));
    }
    assert_eq!(result_of(&slow.expect(mms::CONNECTED, MINUTE)), 0);
    for byte in control(1, mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037")) {
        assert!(slow.send_raw(&[byte]));
    }
    assert_eq!(result_of(&slow.expect(mms::FUNNEL_CONNECTED, MINUTE)), 0);

    for half in halves {
        assert_closed(half, "half a message");
    }
    viewer.assert_undisturbed();
}

/// One stops reading: its own packets are dropped, nobody else's, and they pile up nowhere.
#[test]
fn a_viewer_that_stops_reading_slows_none_of_fifty() {
    // 5.6 Mbit/s fill a stopped viewer's socket buffers within seconds.
    let stream = Synthetic { packet_size: 1400, packets_per_second: 500 };
    let (daemon, publisher) = published("[window]\nseconds = 4", stream);
    let fifty: Vec<Viewer> = (0..50).map(|_| Viewer::tcp(daemon.mms, "cam1")).collect();
    for viewer in &fifty {
        viewer.wait_for_packets(100, MINUTE);
    }
    let mut stopped = Control::connect(daemon.mms);
    let funnel = format!("\\\\{}\\TCP\\1037", stopped.local());
    open(&mut stopped, "cam1", &funnel, None);
    // And one over HTTP of each kind: plain, in frames, in frames that are chunks.
    let _stopped_over_http = [
        "GET /cam1 HTTP/1.0\r\n",
        "GET /cam1 HTTP/1.0\r\nUser-Agent: NSPlayer/9.0\r\nPragma: xPlayStrm=1\r\n",
        "GET /cam1 HTTP/1.1\r\nUser-Agent: NSPlayer/9.0\r\nPragma: xPlayStrm=1,version11-enabled=1\r\n",
    ]
    .map(|request| {
        let mut connection = TcpStream::connect(daemon.http).unwrap();
        write!(connection, "{request}Host: h\r\n\r\n").unwrap();
        let mut status = [0; 12];
        connection.read_exact(&mut status).unwrap();
        assert_eq!(&status[8..], b" 200");
        connection
    });
    let before = daemon.resident_kib();

    // Ten megabytes: more than the system's socket buffers take, so the daemon must have let go of some.
    let sent = publisher.sent();
    wait_until("7500 packets", MINUTE, || publisher.sent() >= sent + 7500);
    let after = daemon.resident_kib();
    assert_bounded(before, after);

    let published = publisher.sent();
    for viewer in &fifty {
        wait_until("a viewer is up to date", Duration::from_secs(5), || viewer.seen().number >= Some(published - 1));
        let seen = viewer.seen();
        assert_eq!((seen.missing, seen.backward, &seen.ended), (0, 0, &None), "{seen:?}");
        assert!(seen.longest_pause < Duration::from_millis(1500), "{seen:?}");
    }

    // The stopped one finds its place in the stream again, or its connection at an end; both are fair.
    let mut last = None;
    let mut skipped = false;
    wait_for("what became of the stopped viewer", MINUTE, || match stopped.receive(Duration::from_secs(1)) {
        Some(Incoming::Data(data)) => {
            skipped |= last.is_some_and(|last: u32| data.location > last + 1);
            last = Some(data.location);
            skipped.then_some(())
        }
        Some(Incoming::End) => Some(()),
        _ => None,
    });
    assert!(publisher.runs(), "{:?}", publisher.end());
}

#[test]
fn a_publisher_gone_for_five_seconds_loses_no_viewer() {
    let (daemon, publisher) = published("", STREAM);
    let tcp = Viewer::tcp(daemon.mms, "cam1");
    let udp = Viewer::udp(daemon.mms, "cam1", 4801, None);
    tcp.wait_for_packets(50, MINUTE);
    udp.wait_for_packets(50, MINUTE);

    publisher.vanish();
    wait_until("the daemon sees it go", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 0.0);
    let last = tcp.seen();
    stays("both viewers are connected", Duration::from_secs(5), || tcp.ended().is_none() && udp.ended().is_none());

    // An encoder that was started again: the same header, times from 0.
    let _again = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    tcp.wait_for_packets(100, MINUTE);
    udp.wait_for_packets(100, MINUTE);
    for viewer in [&tcp, &udp] {
        let seen = viewer.seen();
        assert_eq!((seen.missing, seen.backward, seen.time_backward, &seen.ended), (0, 0, 0, &None), "{seen:?}");
    }
    // Five seconds of pause are five seconds of the stream's clock, near enough.
    let ahead = f64::from(tcp.seen().send_time_ms - last.send_time_ms) / 1000.0;
    assert!((4.0..30.0).contains(&ahead), "the stream's clock is {ahead} s on");
    assert_eq!(daemon.metric("wmrelay_viewers", &[]), 2.0);
    assert!(daemon.metric("wmrelay_source_restarts_total", &[("point", "cam1")]) >= 1.0);
}

/// Without a source for longer than `source_timeout_s`, viewers are told that it is over.
#[test]
fn a_publisher_gone_for_good_ends_its_viewers() {
    let (daemon, publisher) = published("source_timeout_s = 1", STREAM);
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    viewer.wait_for_packets(50, MINUTE);
    let answer = publisher.end().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    wait_until("the end of the viewer", MINUTE, || viewer.ended().is_some());
    assert_eq!(viewer.ended().unwrap(), "end of stream, 0x0");
}

/// Whatever address a player announces, data goes to the one that it connected from.
#[test]
fn an_announced_third_address_gets_nothing() {
    let (daemon, _publisher) = published("", STREAM);
    let third = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 55));
    let victim = UdpSocket::bind((third, 4802)).unwrap();
    victim.set_read_timeout(Some(Duration::from_millis(10))).unwrap();

    let viewer = Viewer::udp(daemon.mms, "cam1", 4802, Some(third));
    viewer.wait_for_packets(200, MINUTE);
    assert!(victim.recv(&mut [0; 2048]).is_err(), "the third address was sent something");
    assert_eq!(viewer.seen().missing, 0, "{:?}", viewer.seen());
}

/// A viewer whose port is closed answers by ICMP, on the socket that serves all others too.
#[test]
fn an_icmp_from_one_viewer_loses_no_packet_of_another() {
    let (daemon, _publisher) = published("", STREAM);
    let other = Viewer::udp(daemon.mms, "cam1", 4803, None);
    other.wait_for_packets(50, MINUTE);

    for round in 0..5 {
        let mut gone = Control::connect(daemon.mms);
        let port = 4810 + round;
        let socket = UdpSocket::bind((gone.local(), port)).unwrap();
        let funnel = format!("\\\\{}\\UDP\\{port}", gone.local());
        open(&mut gone, "cam1", &funnel, Some(&socket));
        drop(socket);
        // Its session ends by itself: nobody is there.
        wait_for("the end of a viewer whose port is closed", MINUTE, || {
            matches!(gone.receive(Duration::from_millis(100)), Some(Incoming::End)).then_some(())
        });
    }
    other.wait_for_packets(200, MINUTE);
    let seen = other.seen();
    assert_eq!((seen.missing, seen.backward, &seen.ended), (0, 0, &None), "{seen:?}");
    assert!(seen.longest_pause < Duration::from_millis(1500), "{seen:?}");
}
