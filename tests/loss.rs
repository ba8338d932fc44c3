//! Five of a hundred datagrams lost, both ways: resends must bring them back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::asf::Synthetic;
use support::daemon::Daemon;
use support::forwarder::Forwarder;
use support::forwarder::rtsp::RtspForwarder;
use support::process::Process;
use support::publisher::Publisher;
use support::viewer::wait_for_source;
use support::wait_until;

const PACKETS: u64 = 20_000;
const LOSS_PER_MILLE: u64 = 50;

/// A thousand small packets a second: twenty seconds give 20,000.
const STREAM: Synthetic = Synthetic { packet_size: 200, packets_per_second: 1000 };

/// The forwarder's own address, so that the pool of 127.0.0.1 is left to other tests.
const FORWARDER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

const SETTINGS: &str = "[[publishing_point]]\nname = \"loss\"\nsource = { type = \"push\" }\n";

#[test]
fn resends_recover_five_percent_of_twenty_thousand() {
    let daemon = Daemon::start(SETTINGS);
    let publisher = Publisher::start(daemon.http, "loss", STREAM, u32::MAX);
    wait_for_source(&daemon, "loss");
    let forwarder = Forwarder::start(FORWARDER, daemon.mms, LOSS_PER_MILLE, 0x5EED);

    let report = play(&format!("mms://{}/loss", forwarder.address));
    println!("to viewer: {:?}, to daemon: {:?}; {report}", forwarder.to_viewer(), forwarder.to_daemon());
    assert_recovered(&report, forwarder.to_viewer(), forwarder.media_numbers());
    assert!(publisher.runs(), "the publisher had to stop: {:?}", publisher.end());
}

/// Repetitions of RTSP: asked for by NACK, sent as copies to ports of their own.
#[test]
fn nacks_recover_five_percent_of_twenty_thousand() {
    let daemon = Daemon::start(SETTINGS);
    let publisher = Publisher::start(daemon.http, "loss", STREAM, u32::MAX);
    wait_for_source(&daemon, "loss");
    let forwarder = RtspForwarder::start(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 81)), daemon.rtsp, LOSS_PER_MILLE, 0x5EED);

    let report = play(&format!("rtsp://{}/loss", forwarder.address));
    println!("to viewer: {:?}, to daemon: {:?}; {report}", forwarder.to_viewer(), forwarder.to_daemon());
    assert_recovered(&report, forwarder.to_viewer(), forwarder.media_numbers());
    assert!(publisher.runs(), "the publisher had to stop: {:?}", publisher.end());
}

/// Plays for 23 seconds over UDP; the report.
fn play(url: &str) -> Value {
    let mut play = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    play.args(["play", url, "--transport", "udp", "--seconds", "23", "--json"]);
    let played = Process::start(play).finish(Duration::from_secs(60));
    assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
    serde_json::from_str(&played.stdout).unwrap()
}

/// 20,000 packets came, at most one of a thousand is missing, and the path did lose five of a hundred datagrams.
#[track_caller]
fn assert_recovered(report: &Value, (passed, lost): (u64, u64), (sent, through): (u64, u64)) {
    let count = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"));
    assert_eq!(report["transport"], "udp", "{report}");
    // The path did lose what it should, or the rest proves nothing.
    let loss = 1000 * lost / (passed + lost);
    assert!(loss.abs_diff(LOSS_PER_MILLE) <= 10, "{loss} of 1000 lost");
    assert!(count("gaps") > PACKETS * 3 / 100, "{report}");

    let wanted = count("packets") + count("lost");
    assert!(wanted >= PACKETS, "only {wanted} packets in the time: {report}");
    assert!(count("lost") * 1000 <= wanted, "more than one of a thousand lost: {report}");
    assert!(count("recovered") * 100 >= count("gaps") * 98, "{report}");
    // The report is the client's own. Seen from the path: of the numbers that the daemon sent, as many got through.
    assert!(sent >= PACKETS && through * 1000 >= sent * 999, "{through} of {sent} numbers got through");
    assert!(count("packets") <= through, "{report}, but only {through} numbers got through");
}

/// The forwarder on its own: the same seed loses the same datagrams.
#[test]
fn the_forwarders_losses_repeat() {
    let losses = |seed: u64| {
        let mut random = support::Random(seed);
        (0..1000).filter(|_| random.chance(LOSS_PER_MILLE)).count()
    };
    assert_eq!(losses(1), losses(1));
    assert!((20..80).contains(&losses(1)));
    assert_ne!((1..5).map(losses).collect::<Vec<_>>(), vec![losses(1); 4]);
}

/// A lossless forwarder changes nothing: what the lossy one shows is the loss.
#[test]
fn without_loss_nothing_is_asked_for_again() {
    let daemon = Daemon::start(SETTINGS);
    let slow = Synthetic { packet_size: 200, packets_per_second: 100 };
    let _publisher = Publisher::start(daemon.http, "loss", slow, u32::MAX);
    wait_for_source(&daemon, "loss");
    let forwarder = Forwarder::start(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 78)), daemon.mms, 0, 1);
    let mut play = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    play.args(["play", &format!("mms://{}/loss", forwarder.address), "--transport", "udp", "--seconds", "3", "--json"]);
    let played = Process::start(play).finish(Duration::from_secs(60));
    let report: Value = serde_json::from_str(&played.stdout).unwrap();
    assert_eq!((&report["gaps"], &report["lost"]), (&0.into(), &0.into()), "{report}");
    assert!(report["packets"].as_u64().unwrap() >= 100, "{report}");
    wait_until("the viewer's end at the daemon", Duration::from_secs(10), || daemon.metric("wmrelay_viewers", &[]) == 0.0);
}
