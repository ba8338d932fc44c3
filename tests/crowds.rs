//! More connections than anybody needs, and fewer open files than anybody wants: those who watch play on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use support::asf::Synthetic;
use support::daemon::{Daemon, Launch, http_get};
use support::mms::{self, control};
use support::publisher::Publisher;
use support::viewer::{PLAYER, Viewer, wait_for_source};
use support::wait_until;

const MINUTE: Duration = Duration::from_secs(60);

/// How long ten thousand may be silent: all are made, seen and counted while not one has run out of time, which takes a few seconds
/// here, and must not fail on a machine that is many times as busy. The test lasts as long as this.
const HANDSHAKE: Duration = MINUTE;

/// 1400-byte packets, 1.1 Mbit/s.
const STREAM: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 100 };

/// New viewers are judged by whether they get in, not by how busy the machine is.
const LIMITS: &str = "[limits]\nmax_send_delay_ms = 0";
const POINT: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";

/// What a connection may cost the daemon: its engine, its entry in the tables, its task. Buffers of its own would be more.
const KIB_PER_CONNECTION: u64 = 8;

/// How far a peer gets before it falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// It says nothing.
    AtOnce,
    /// It sends half of its Connect.
    HalfAHello,
    /// It sends its Connect, and is answered.
    Connected,
}

/// The tests share this process's limit on open files.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Raises this process's limit as far as it goes.
fn raise_file_limit() -> u64 {
    let highest = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: highest, maximum: highest }).unwrap();
    highest.unwrap_or(u64::MAX)
}

fn connect_from(source: Ipv4Addr, daemon: SocketAddr, silence: Silence) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddrV4::new(source, 0).into()).unwrap();
    socket.connect_timeout(&daemon.into(), Duration::from_secs(10)).unwrap();
    let mut connection = TcpStream::from(socket);
    let hello = control(0, mms::CONNECT, &mms::connect_body(PLAYER));
    let said = match silence {
        Silence::AtOnce => 0,
        Silence::HalfAHello => hello.len() / 2,
        Silence::Connected => hello.len(),
    };
    // The daemon may have closed it to make room.
    let _ = connection.write_all(&hello[..said]);
    connection
}

/// The connection is closed by the daemon, whatever it sends before.
#[track_caller]
fn assert_closed(connection: &mut TcpStream) {
    connection.set_read_timeout(Some(HANDSHAKE + MINUTE)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "a silent connection was not closed: {error}");
                return;
            }
        }
    }
}

fn publish(daemon: &Daemon) -> Publisher {
    let publisher = Publisher::start(daemon.http, "cam1", STREAM, u32::MAX);
    wait_for_source(daemon, "cam1");
    publisher
}

/// The count of silent connections in a line of the log.
fn silent_in(line: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix("silent="))?.parse().ok()
}

#[test]
fn ten_thousand_silent_connections() {
    let _alone = ONE_AT_A_TIME.lock();
    let limit = raise_file_limit();
    // Every silent connection takes a descriptor here and one there; the door takes a quarter of the daemon's.
    let each = usize::try_from((limit / 2).min(10_000)).unwrap() / 3;
    if each < 3_333 {
        let _ = writeln!(
            std::io::stderr(),
            "REDUCED: ten_thousand_silent_connections: {} of them, for ulimit -Hn is {limit}",
            3 * each
        );
    }
    let daemon = Daemon::start(format!("{LIMITS}\nhandshake_s = {}\n{POINT}", HANDSHAKE.as_secs()));
    let _publisher = publish(&daemon);
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    viewer.wait_for_packets(50, MINUTE);
    let (memory_kib, open_files) = (daemon.resident_kib(), daemon.open_files());

    let kinds = [Silence::AtOnce, Silence::HalfAHello, Silence::Connected];
    let mut silent: Vec<TcpStream> = (0..each)
        .zip((1..=10).cycle())
        .flat_map(|(_, host)| kinds.map(|kind| (Ipv4Addr::new(127, 0, 1, host), kind)))
        .map(|(source, kind)| connect_from(source, daemon.mms, kind))
        .collect();
    wait_until("all of them are there", HANDSHAKE, || daemon.open_files() >= open_files + silent.len());

    // The next viewer is served while they are there: those that got past the door are counted.
    let late = Viewer::tcp(daemon.mms, "cam1");
    late.wait_for_packets(10, MINUTE);
    let crowd = daemon.metric("wmrelay_connections", &[]);
    assert!(crowd >= (2 * each + 2) as f64, "{crowd} connections when the late viewer had joined");
    let grown_kib = daemon.resident_kib().saturating_sub(memory_kib);
    let _ = writeln!(std::io::stderr(), "{} connections: {grown_kib} KiB", silent.len());
    assert!(grown_kib < KIB_PER_CONNECTION * silent.len() as u64, "{grown_kib} KiB for {} connections", silent.len());

    for connection in &mut silent {
        assert_closed(connection);
    }
    wait_until("only the two viewers are connected", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 2.0);
    wait_until("their descriptors are closed", MINUTE, || daemon.open_files() <= open_files + 1);
    viewer.assert_undisturbed();
    late.assert_undisturbed();

    let told = || daemon.log().lines().filter(|line| line.contains("did not become a viewer")).filter_map(silent_in).sum::<u64>();
    wait_until("the log tells of those that said nothing", MINUTE, || told() == each as u64);
    assert_eq!(daemon.metric("wmrelay_refusals_total", &[("cause", "silent")]), each as f64);
    assert_eq!(daemon.metric("wmrelay_session_ends_total", &[("reason", "handshake")]), (2 * each) as f64);
    assert_eq!(http_get(daemon.admin, "/healthz").0, 200);
}

/// A daemon with 256 open files: nobody's silence fills them up, only viewers do, and then newcomers wait for a place.
#[test]
fn out_of_descriptors() {
    let _alone = ONE_AT_A_TIME.lock();
    raise_file_limit();
    let daemon = Launch::new(format!("{LIMITS}\nhandshake_s = 60\nviewers = 500\n{POINT}")).open_files(256).start();
    assert!(
        daemon.log().contains("256 open files are too few") && daemon.log().contains("limits.viewers promises 500"),
        "{}",
        daemon.log()
    );
    let _publisher = publish(&daemon);
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    viewer.wait_for_packets(50, MINUTE);
    let alone = daemon.open_files();

    // At the door: a quarter may wait, the oldest make room, and everybody else is served.
    let here = Ipv4Addr::LOCALHOST;
    let silent: Vec<TcpStream> = (0..300).map(|_| connect_from(here, daemon.mms, Silence::AtOnce)).collect();
    let turned_away = || daemon.metric("wmrelay_refusals_total", &[("cause", "too_many_connections")]);
    wait_until("all but a quarter of 256 were turned away", MINUTE, || turned_away() >= 236.0);
    assert!(daemon.open_files() <= alone + 64 + 8, "{} open files, {alone} before", daemon.open_files());
    let second = Viewer::tcp(daemon.mms, "cam1");
    second.wait_for_packets(10, MINUTE);

    // Past the door: more than there are descriptors for.
    let crowd: Vec<TcpStream> = (0..400).map(|_| connect_from(here, daemon.mms, Silence::Connected)).collect();
    wait_until("there is no descriptor left", MINUTE, || daemon.log().contains("connections cannot be accepted"));
    viewer.assert_undisturbed();
    second.assert_undisturbed();
    assert!(daemon.log().contains("Too many open files"), "{}", daemon.log());

    drop(crowd);
    drop(silent);
    let third = Viewer::tcp(daemon.mms, "cam1");
    third.wait_for_packets(10, MINUTE);
    wait_until("only the viewers are left", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 3.0);
    for viewer in [&viewer, &second, &third] {
        viewer.assert_undisturbed();
    }
}
