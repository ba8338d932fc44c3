//! `wmrelay swarm` against our daemon, over loopback: everybody it promises joins, and whoever cannot is told by cause.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::daemon::Daemon;
use support::process::{Finished, Process};
use support::wait_until;

/// A swarm takes its seconds and some more; a machine under load takes longer.
const LIMIT: Duration = Duration::from_secs(90);
const DEMO: &str = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";

fn start(url: &str, args: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.arg("swarm").arg(url).args(args);
    Process::start(command)
}

#[track_caller]
fn run(url: &str, args: &[&str]) -> Finished {
    let finished = start(url, args).finish(LIMIT);
    assert_eq!(finished.stderr.lines().filter(|line| !line.starts_with("wmrelay: ")).count(), 0, "{}", finished.stderr);
    finished
}

/// The report of a swarm of which somebody joined.
#[track_caller]
fn report(url: &str, args: &[&str]) -> Value {
    let finished = run(url, &[args, &["--json"]].concat());
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    parse(&finished.stdout)
}

#[track_caller]
fn parse(stdout: &str) -> Value {
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

fn viewers(report: &Value) -> [u64; 4] {
    ["viewers_asked", "viewers_joined", "viewers_playing", "viewers_failed"].map(|name| number(&report[name]))
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn failures(report: &Value) -> BTreeMap<String, u64> {
    serde_json::from_value(report["failures"].clone()).unwrap()
}

#[track_caller]
fn wait_for_leaving(daemon: &Daemon) {
    wait_until("the goodbye of all viewers", Duration::from_secs(20), || daemon.metric("wmrelay_viewers", &[]) == 0.0);
}

#[test]
fn a_hundred_viewers_over_udp_and_as_many_over_tcp() {
    let daemon = Daemon::start(DEMO);
    let pid = daemon.id().to_string();
    for (scheme, transport) in [("mms", "udp"), ("mmst", "tcp")] {
        // Two addresses with 50 ports each: every port is taken, and none is left.
        let args = ["--viewers", "100", "--seconds", "2", "--addresses", "127.0.0.2-127.0.0.3", "--ports", "3000-3049"];
        let report = report(&daemon.url(scheme, "demo"), &[&args[..], &["--pid", &pid]].concat());
        assert_eq!(viewers(&report), [100, 100, 100, 0], "{report}");
        assert_eq!((report["transport"].as_str(), failures(&report).len()), (Some(transport), 0));
        let (measured, whole) = (&report["measured"], &report["whole_run"]);
        assert!(
            number(&measured["packets"]) >= 1000 && number(&measured["bytes"]) > 100 * number(&measured["packets"]),
            "{report}"
        );
        assert!(number(&whole["packets"]) > number(&measured["packets"]), "{report}");
        assert_eq!(number(&whole["stale"]) + number(&whole["duplicates"]), 0, "{report}");
        assert_eq!(number(&whole["gaps"]), number(&whole["recovered"]) + number(&whole["lost"]), "{report}");
        assert!(report["join_ms"]["p50"].as_f64() >= report["first_packet_ms"]["p50"].as_f64(), "{report}");
        assert!(report["join_ms"]["max"].as_f64() >= report["join_ms"]["p99"].as_f64(), "{report}");
        assert_eq!(number(&report["delay_ms"]["packets"]), number(&measured["packets"]), "{report}");
        assert!(
            report["server_cpu_ns_per_packet"].as_f64() > Some(0.0) && number(&report["server_resident_bytes"]) > 0,
            "{report}"
        );
        assert_eq!(
            (report["estimated"].as_bool(), report["gro"].as_bool(), report["unread"].as_bool()),
            (Some(false), Some(false), Some(false))
        );
        wait_for_leaving(&daemon);
    }
}

#[test]
fn unread_media_does_not_end_a_viewer() {
    let daemon = Daemon::start(DEMO);
    let args = ["--viewers", "50", "--seconds", "2", "--unread", "--gro", "--addresses", "127.0.0.4", "--ports", "3000-3049"];

    let udp = report(&daemon.url("mms", "demo"), &args);
    assert_eq!(viewers(&udp), [50, 50, 50, 0], "{udp}");
    assert_eq!((udp["estimated"].as_bool(), udp["gro"].as_bool(), udp["unread"].as_bool()), (Some(true), Some(true), Some(true)));
    let packets = number(&udp["measured"]["packets"]);
    // Four of the fifty read.
    assert!(packets >= 500 && number(&udp["delay_ms"]["packets"]) * 50 / 4 == packets, "{udp}");
    assert!(udp["dropped_here"].is_null() && udp.get("server_core_share").is_none(), "{udp}");
    wait_for_leaving(&daemon);

    let tcp = report(&daemon.url("mmst", "demo"), &args);
    assert_eq!(viewers(&tcp), [50, 50, 50, 0], "{tcp}");
    assert_eq!((tcp["estimated"].as_bool(), tcp["gro"].as_bool()), (Some(false), Some(false)));
    assert!(number(&tcp["measured"]["packets"]) >= 500, "{tcp}");
    assert!(number(&tcp["delay_ms"]["packets"]) * 8 < number(&tcp["measured"]["packets"]), "four viewers' only: {tcp}");
    wait_for_leaving(&daemon);
}

#[test]
fn twenty_viewers_over_http_read_or_not() {
    let daemon = Daemon::start(DEMO);
    let args = ["--viewers", "20", "--seconds", "2", "--addresses", "127.0.0.9", "--pid", &daemon.id().to_string()];
    // The port of MMS takes HTTP too.
    let urls = [daemon.url("mmsh", "demo"), format!("http://{}/demo", daemon.http)];
    for (url, more) in urls.iter().zip([None, Some("--unread")]) {
        let report = report(url, &[&args[..], more.as_slice()].concat());
        assert_eq!(viewers(&report), [20, 20, 20, 0], "{report}");
        assert_eq!((report["transport"].as_str(), report["estimated"].as_bool()), (Some("http"), Some(false)));
        let (measured, whole) = (&report["measured"], &report["whole_run"]);
        assert!(
            number(&measured["packets"]) >= 200 && number(&measured["bytes"]) > 100 * number(&measured["packets"]),
            "{report}"
        );
        assert!(number(&whole["packets"]) > number(&measured["packets"]), "{report}");
        assert_eq!(number(&whole["stale"]) + number(&whole["gaps"]), 0, "{report}");
        let delays = number(&report["delay_ms"]["packets"]);
        if more.is_none() {
            assert_eq!(delays, number(&measured["packets"]), "{report}");
        } else {
            assert!(delays * 4 < number(&measured["packets"]), "four viewers' only: {report}");
        }
        assert!(report["join_ms"]["p50"].as_f64() >= report["first_packet_ms"]["p50"].as_f64(), "{report}");
        assert!(report["server_cpu_ns_per_packet"].as_f64() > Some(0.0), "{report}");
        wait_for_leaving(&daemon);
    }
    // Once each, though each had several connections.
    assert_eq!(daemon.metric("wmrelay_joins_total", &[("protocol", "http")]), 40.0, "{}", daemon.metrics());

    let finished = run(&daemon.url("mmsh", "none"), &["--viewers", "3", "--seconds", "0"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("3 × the stream's description refused: 404 "), "{}", finished.stdout);
    let finished = run(&daemon.url("http", "demo"), &["--viewers", "3", "--transport", "udp"]);
    assert_eq!((finished.status.code(), finished.stdout.as_str()), (Some(1), ""));
    assert!(finished.stderr.contains("HTTP has no UDP"), "{}", finished.stderr);
}

#[test]
fn joined_datagrams_are_the_same_packets() {
    let daemon = Daemon::start(DEMO);
    let args = ["--viewers", "20", "--seconds", "2", "--gro", "--addresses", "127.0.0.5", "--ports", "3000-3049"];
    let report = report(&daemon.url("mms", "demo"), &args);
    assert_eq!(viewers(&report), [20, 20, 20, 0], "{report}");
    assert_eq!((number(&report["whole_run"]["stale"]), number(&report["whole_run"]["duplicates"])), (0, 0), "{report}");
    assert!(report["gro"].as_bool() == Some(true) && number(&report["measured"]["packets"]) >= 200, "{report}");
}

#[test]
fn who_is_refused_is_counted_by_cause() {
    let daemon = Daemon::start(format!("{DEMO}[limits]\nviewers = 7\n"));
    let args = ["--viewers", "20", "--seconds", "1", "--addresses", "127.0.0.6", "--ports", "3000-3049"];
    for scheme in ["mms", "mmst"] {
        let report = report(&daemon.url(scheme, "demo"), &args);
        assert_eq!(viewers(&report), [20, 7, 7, 13], "{report}");
        let failures = failures(&report);
        assert_eq!(failures.values().sum::<u64>(), 13, "{failures:?}");
        assert!(failures.keys().all(|cause| cause.contains("refused")), "{failures:?}");
        wait_for_leaving(&daemon);
    }
    // Ports that the server does not lease: no fall back to TCP.
    let outside = ["--viewers", "3", "--seconds", "0", "--ports", "6000-6010"];
    let finished = run(&daemon.url("mms", "demo"), &outside);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("3 × the data path refused: "), "{}", finished.stdout);
    assert_eq!(finished.stderr, "wmrelay: no viewer got a packet\n");
}

#[test]
fn a_server_that_goes_is_the_failure_of_all() {
    let daemon = Daemon::start(DEMO);
    let swarm = start(&daemon.url("mmst", "demo"), &["--viewers", "10", "--seconds", "60", "--json"]);
    wait_until("ten viewers", Duration::from_secs(20), || daemon.metric("wmrelay_viewers", &[]) == 10.0);
    daemon.stop();
    let finished = swarm.finish(LIMIT);
    assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(1), "wmrelay: no viewer played to the end\n"));
    let report = parse(&finished.stdout);
    assert_eq!(viewers(&report), [10, 10, 0, 10], "{report}");
    assert_eq!(failures(&report).values().sum::<u64>(), 10, "{report}");
}

#[test]
fn an_interrupt_ends_it_with_the_report() {
    let daemon = Daemon::start(DEMO);
    let swarm = start(&daemon.url("mmst", "demo"), &["--viewers", "10", "--seconds", "600", "--json"]);
    wait_until("ten viewers", Duration::from_secs(20), || daemon.metric("wmrelay_viewers", &[]) == 10.0);
    swarm.signal("INT");
    let finished = swarm.finish(LIMIT);
    assert!(finished.status.success(), "{}", finished.stderr);
    let report = parse(&finished.stdout);
    assert_eq!((report["interrupted"].as_bool(), number(&report["viewers_failed"])), (Some(true), 0), "{report}");
    wait_for_leaving(&daemon);
}

#[test]
fn joining_alone_and_nobody_there() {
    let daemon = Daemon::start(DEMO);
    let report = report(&daemon.url("mmst", "demo"), &["--viewers", "5", "--seconds", "0"]);
    assert_eq!(viewers(&report), [5, 5, 5, 0], "{report}");
    assert!(report["measured_s"].as_f64() == Some(0.0) && number(&report["whole_run"]["packets"]) >= 5, "{report}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let finished = run(&format!("mmst://{unused}/demo"), &["--viewers", "4"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("4 × connecting: Connection refused"), "{}", finished.stdout);
}

/// Where the plays of a file began that the daemon's log tells of: packets of the file.
fn places(daemon: &Daemon) -> Vec<u64> {
    let log = daemon.log();
    let plays = log.lines().filter_map(|line| line.split_once("plays from here on")?.1.split_once(" packet="));
    plays.map(|(_, packet)| packet.trim().parse().unwrap()).collect()
}

/// A file of ten seconds that is sent in less than half of one.
#[test]
fn viewers_of_a_file_begin_anywhere_and_once_more_at_its_end() {
    let root = support::media::folder();
    let settings = format!("[log]\nlevel = \"info,wmrelay::shard=debug\"\n{}", support::archive::HASTE);
    for (start, scheme, more) in [
        ("random", "mmst", None),
        ("random", "mms", None),
        ("random", "mmsh", None),
        ("5", "mmst", Some("--unread")),
        ("5", "mms", Some("--unread")),
        ("5", "mmsh", Some("--unread")),
    ] {
        let daemon = support::archive::serve(root.path(), &settings);
        let args = ["--viewers", "10", "--seconds", "2", "--start", start, "--addresses", "127.0.0.7", "--ports", "3000-3049"];
        let url = daemon.url(scheme, "archive/vod-wmv2-wmav2-indexed.wmv");
        let report = report(&url, &[&args[..], more.as_slice()].concat());
        assert_eq!(viewers(&report), [10, 10, 10, 0], "{report}");
        let (places, restarts) = (places(&daemon), number(&report["restarts"]));
        assert!(restarts >= 10 && places.len() as u64 >= restarts, "{restarts} times to the end: {places:?}");
        let several: std::collections::BTreeSet<_> = places.iter().collect();
        if start == "random" {
            assert!(several.len() >= 3, "{places:?}");
        } else {
            assert!(several.len() == 1 && places[0] > 0, "{places:?}");
        }
        assert!(report["delay_ms"].is_null(), "{report}");
        wait_for_leaving(&daemon);
    }
}
