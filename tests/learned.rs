//! Where a firewall drops UDP without a word, the first player waits for it, and those that come after it do not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::Need::{Program, Root};
use support::daemon::{Daemon, Launch, sum_of};
use support::namespace::{CLIENT, Network, SERVER};
use support::player::{ffmpeg_arguments, frames};
use support::process::Process;
use support::{ready, wait_until};

const MINUTE: Duration = Duration::from_secs(60);
const LISTEN: [&str; 3] = ["10.77.1.1:1755", "127.0.0.1:8080", "127.0.0.1:9755"];

/// Lets MMS and RTSP through, and what comes by UDP from the server if `udp` says so (`accept` or `drop`).
fn rules(udp: &str) -> String {
    format!(
        "table ip wmrelay {{
  counter media {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    tcp dport {{ 1755, 8554 }} accept
    tcp sport {{ 1755, 8554 }} ct state established accept
    ip saddr {CLIENT} ip daddr {SERVER} udp dport 1755 accept
    ip saddr {SERVER} ip daddr {CLIENT} udp dport 1024-1123 counter name media {udp}
  }}
}}"
    )
}

struct Site {
    network: Network,
    daemon: Daemon,
}

impl Site {
    fn new(settings: &str) -> Self {
        let network = Network::new(&rules("drop"));
        let settings = format!("[udp]\nclient_ports = \"1024-1123\"\n{settings}");
        let launch = Launch::new(settings).in_namespace(network.server()).listen(LISTEN).rtsp("10.77.1.1:8554");
        let daemon = launch.rtsp_server_port(5004).start();
        Self { network, daemon }
    }

    /// Our own player behind the firewall; its report.
    #[track_caller]
    fn plays(&self, url: &str) -> Value {
        self.plays_for(url, "2")
    }

    /// One that waits for UDP, and then plays by TCP.
    #[track_caller]
    fn rolls_over(&self, url: &str) {
        let report = self.plays_for(url, "20");
        let why = report["udp_refused"].as_str().unwrap_or_default();
        assert!(
            report["transport"] == "tcp" && !why.is_empty() && !why.contains("0xC00D00D1") && !why.contains("461"),
            "{report}"
        );
        assert!(report["packets"].as_u64().unwrap() > 0, "{report}");
    }

    #[track_caller]
    fn plays_for(&self, url: &str, seconds: &str) -> Value {
        Self::report(self.start(url, "1024-1123", seconds))
    }

    fn start(&self, url: &str, ports: &str, seconds: &str) -> Process {
        let arguments = ["play", url, "--ports", ports, "--seconds", seconds, "--json"];
        Process::start(self.network.client_command(env!("CARGO_BIN_EXE_wmrelay"), &arguments))
    }

    #[track_caller]
    fn report(player: Process) -> Value {
        let played = player.finish(MINUTE);
        assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
        serde_json::from_str(&played.stdout).unwrap_or_else(|error| panic!("{error}: {}", played.stdout))
    }

    fn learned(&self) -> Value {
        serde_json::from_str(&self.daemon.command(&["learned", "--json"]).0).unwrap()
    }

    fn refused_as_learned(&self) -> f64 {
        let metrics = self.network.get_at_server(9755, "/metrics");
        sum_of(&metrics, "wmrelay_transport_fallbacks_total", &[("cause", "learned")])
    }

    /// What happened to all sessions that are over.
    fn stories(&self) -> String {
        (1..=20).map(|session| self.daemon.command(&["why", &session.to_string()]).0).collect()
    }
}

#[test]
fn the_second_player_is_sent_to_tcp_at_once() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("the_second_player_is_sent_to_tcp_at_once", &needs) {
        return;
    }
    for (url, refusal) in [(format!("mms://{SERVER}/demo"), "0xC00D00D1"), (format!("rtsp://{SERVER}:8554/demo"), "")] {
        let site = Site::new("");
        site.rolls_over(&url);
        assert!(site.network.counted("media") > 0, "nothing was dropped");
        let learned = site.learned();
        let told = (
            learned[0]["prefix"].as_str(),
            learned[0]["sign"].as_str(),
            &learned[0]["refused"],
            learned.as_array().unwrap().len(),
        );
        assert_eq!(told, (Some("10.77.2.2/32"), Some("second_attempt"), &0.into(), 1), "{learned}");
        let dropped = site.network.counted("media");

        let report = site.plays(&url);
        let why = report["udp_refused"].as_str().unwrap();
        assert!(report["transport"] == "tcp" && why.contains(refusal), "{report}");
        assert_eq!((site.network.counted("media"), site.refused_as_learned() >= 1.0), (dropped, true), "not a datagram was sent");
        let (table, _) = site.daemon.command(&["learned"]);
        assert!(table.contains("10.77.2.2/32") && table.contains("second_attempt"), "{table}");
        let stories = site.stories();
        for words in
            ["nothing showed that what was sent to it by UDP arrived", "it is refused there for 3600 s", "did not arrive"]
        {
            assert!(stories.contains(words), "{words}: {stories}");
        }

        // The firewall is opened: by itself nobody would know before the hour is over.
        site.network.load_at_firewall(&rules("accept"));
        assert_eq!(site.plays(&url)["transport"], "tcp");
        assert_eq!(site.daemon.command(&["learned", "--reset", "192.0.2.1"]).1, Some(3), "another address");
        assert_eq!(
            site.daemon.command(&["learned", "--reset", "10.77.2.0/24"]).0,
            "1 address is forgotten: UDP is tried again there\n"
        );
        let report = site.plays(&url);
        assert_eq!((&report["transport"], &report["udp_refused"]), (&"udp".into(), &Value::Null), "{report}");
        assert_eq!(site.daemon.command(&["learned"]).0, "UDP is refused to no address\n");
    }
}

/// FFmpeg over RTSP comes again on the same connection.
#[test]
fn ffmpeg_waits_once() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ffmpeg")];
    if !ready("ffmpeg_waits_once", &needs) {
        return;
    }
    let site = Site::new("");
    let play = |first: u16| {
        let (first, last) = (first.to_string(), (first + 9).to_string());
        // Microseconds.
        let mut arguments: Vec<String> =
            ["-timeout", "5000000", "-min_port", &first, "-max_port", &last].iter().map(|option| (*option).to_owned()).collect();
        arguments.extend(ffmpeg_arguments(&format!("rtsp://{SERVER}:8554/demo"), 2));
        let done = Process::start(site.network.client_command("ffmpeg", &arguments)).finish(MINUTE);
        assert!(done.status.success() && frames(&done.stdout).len() > 20, "{}", done.stderr);
        done.stderr
    };
    let first = play(1024);
    assert!(first.contains("UDP timeout, retrying with TCP"), "{first}");
    wait_until("what was learnt", MINUTE, || site.learned().as_array().unwrap().len() == 1);
    let second = play(1040);
    assert!(!second.contains("UDP timeout"), "{second}");
    assert!(site.refused_as_learned() >= 1.0);
}

/// Where UDP has arrived a single failure may be that player's own.
#[test]
fn one_failure_is_not_enough_where_udp_arrives() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("one_failure_is_not_enough_where_udp_arrives", &needs) {
        return;
    }
    let (site, url) = (Site::new(""), format!("mms://{SERVER}/demo"));
    site.network.load_at_firewall(&rules("accept"));
    assert_eq!(site.plays(&url)["transport"], "udp");
    site.network.load_at_firewall(&rules("drop"));
    for learned in [0, 0, 1] {
        site.rolls_over(&url);
        assert_eq!(site.learned().as_array().unwrap().len(), learned);
    }
}

/// FFmpeg's own reports of what it received say that UDP arrives, though it loses nothing and asks for nothing.
#[test]
fn a_players_reports_tell_that_udp_arrives() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ffmpeg")];
    if !ready("a_players_reports_tell_that_udp_arrives", &needs) {
        return;
    }
    let (site, url) = (Site::new(""), format!("rtsp://{SERVER}:8554/demo"));
    // What opens the path is shorter: a report of nothing.
    let reports = "counter reports { }\n  counter media { }";
    let reported = "udp dport 5005 udp length > 32 counter name reports accept\n    ip saddr";
    let open = rules("accept").replacen("counter media { }", reports, 1).replacen("ip saddr", reported, 1);
    site.network.load_at_firewall(&open);
    // Other ports than those of the next player: they rest.
    let mut arguments: Vec<String> =
        ["-rtsp_transport", "udp", "-min_port", "1060", "-max_port", "1069"].iter().map(|option| (*option).to_owned()).collect();
    arguments.extend(ffmpeg_arguments(&url, 0));
    let player = Process::start(site.network.client_command("ffmpeg", &arguments));
    wait_until("a report", MINUTE, || site.network.counted("reports") > 0);
    player.signal("INT");
    player.finish(MINUTE);
    site.network.load_at_firewall(&rules("drop"));
    site.rolls_over(&url);
    assert!(!site.daemon.command(&["why", "1"]).0.contains("nothing showed"), "{}", site.stories());
    assert_eq!(site.learned().as_array().unwrap().len(), 0, "it has arrived a moment ago");
}

/// A firewall that says so: its word is taken of the port, and of the address once the player comes by TCP.
#[test]
fn an_icmp_error_is_believed_with_a_second_attempt() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("an_icmp_error_is_believed_with_a_second_attempt", &needs) {
        return;
    }
    let site = Site::new("");
    site.network.load_at_firewall(&rules("reject"));
    site.rolls_over(&format!("mms://{SERVER}/demo"));
    let learned = site.learned();
    let told: Vec<_> = learned.as_array().unwrap().iter().map(|facts| (&facts["port"], facts["sign"].as_str())).collect();
    assert_eq!(told, [(&Value::Null, Some("icmp")), (&1024.into(), Some("icmp"))], "{learned}");
    assert_eq!(site.plays(&format!("mms://{SERVER}/demo"))["transport"], "tcp");
    let stories = site.stories();
    assert!(stories.contains("nothing more is sent to it by UDP") && !stories.contains("it is over: nobody"), "{stories}");
}

/// Some ports are open, others rejected: who has one of those takes TCP, at once the next time, whatever arrives at its neighbour's.
#[test]
fn who_is_rejected_takes_tcp_beside_one_that_plays_by_udp() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ffmpeg")];
    if !ready("who_is_rejected_takes_tcp_beside_one_that_plays_by_udp", &needs) {
        return;
    }
    let (site, url) = (Site::new(""), format!("mms://{SERVER}/demo"));
    let rejects =
        format!("1024-1029 accept\n    ip saddr {SERVER} ip daddr {CLIENT} udp dport 1030-1123 counter name media reject");
    site.network.load_at_firewall(&rules("accept").replace("1024-1123 counter name media accept", &rejects));
    let neighbour = site.start(&url, "1024-1029", "300");
    let by_udp = || sum_of(&site.network.get_at_server(9755, "/metrics"), "wmrelay_viewers", &[("transport", "udp")]);
    wait_until("a neighbour that plays by UDP", MINUTE, || by_udp() == 1.0);
    let rejected_ports =
        || -> Vec<u64> { site.learned().as_array().unwrap().iter().filter_map(|facts| facts["port"].as_u64()).collect() };

    let first = Site::report(site.start(&url, "1030-1049", "20"));
    let why = first["udp_refused"].as_str().unwrap_or_default();
    assert!(first["transport"] == "tcp" && why.contains("header did not arrive"), "{first}");
    assert_eq!(rejected_ports(), [1030]);
    let rejected = site.network.counted("media");
    let second = Site::report(site.start(&url, "1030-1049", "2"));
    let why = second["udp_refused"].as_str().unwrap_or_default();
    assert!(second["transport"] == "tcp" && why.contains("0xC00D00D1"), "{second}");
    assert_eq!(site.network.counted("media"), rejected, "not a datagram was sent");
    let open = Site::report(site.start(&url, "1025-1029", "2"));
    assert_eq!(open["transport"], "udp", "{open}");

    // FFmpeg gives up where its connection is closed, and takes another port each time.
    let ffmpeg = || {
        let arguments = ["-timeout", "5000000", "-min_port", "1060", "-max_port", "1099"].map(str::to_owned);
        let arguments = [arguments.to_vec(), ffmpeg_arguments(&format!("rtsp://{SERVER}:8554/demo"), 2)].concat();
        let done = Process::start(site.network.client_command("ffmpeg", &arguments)).finish(MINUTE);
        assert!(done.status.success() && frames(&done.stdout).len() > 20, "{}", done.stderr);
        done.stderr
    };
    let first = ffmpeg();
    assert!(first.contains("UDP timeout, retrying with TCP"), "{first}");
    assert_eq!(rejected_ports().len(), 2, "{}", site.learned());
    let second = ffmpeg();
    assert!(!second.contains("UDP timeout"), "{second}");

    assert_eq!(by_udp(), 1.0);
    neighbour.signal("INT");
    let neighbour = Site::report(neighbour);
    assert_eq!((&neighbour["transport"], &neighbour["lost"]), (&"udp".into(), &0.into()), "{neighbour}");
}

#[test]
fn it_can_be_switched_off() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("it_can_be_switched_off", &needs) {
        return;
    }
    let (site, url) = (Site::new("remember_s = 0\n"), format!("mms://{SERVER}/demo"));
    site.rolls_over(&url);
    assert_eq!(site.daemon.command(&["learned"]).0, "UDP is refused to no address\n");
    assert_eq!(site.refused_as_learned(), 0.0);
}
