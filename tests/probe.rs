//! `wmrelay probe` through firewalls that are known: each port's verdict is right, and nothing is called open that is not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::Need::{self, Program, Root};
use support::daemon::{Daemon, Launch, sum_of};
use support::namespace::{CLIENT, Network, SERVER};
use support::process::Process;
use support::{ready, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wmrelay");
const MINUTE: Duration = Duration::from_secs(60);
const NEEDS: [Need; 3] = [Root, Program("ip"), Program("nft")];

/// A server and a client, and the daemon with one who may sign in.
struct Site {
    network: Network,
    daemon: Daemon,
    control: u16,
    _folder: tempfile::TempDir,
}

/// What a probe said.
struct Probed {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Site {
    #[track_caller]
    fn new() -> Self {
        let network = Network::new("table inet nothing { }");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("operators");
        let mut passwd = Command::new(PROGRAM);
        passwd.args(["passwd", "--role", "operator"]).arg(&file).arg("anna");
        let mut passwd = passwd.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        passwd.stdin.take().unwrap().write_all(b"geheim\n").unwrap();
        assert!(passwd.wait().unwrap().success());
        let daemon = Launch::new("")
            .in_namespace(network.server())
            .listen(["10.77.1.1:1755", "10.77.1.1:8080", "127.0.0.1:9755"])
            .rtsp("10.77.1.1:8554")
            .rtsp_server_port(5004)
            .control(format!("users_file = {file:?}"))
            .start();
        let control = daemon.control.port();
        Self { network, daemon, control, _folder: folder }
    }

    /// Rules of the firewall between, for what is forwarded.
    #[track_caller]
    fn firewall(&self, rules: &str) {
        self.network.load_at_firewall(&format!(
            "table ip wmrelay {{ chain forward {{ type filter hook forward priority filter; policy accept;\n{rules}\n}}\n}}"
        ));
    }

    /// Runs the probe at the client, and checks what holds for all reports.
    #[track_caller]
    fn probe(&self, more: &[&str]) -> Probed {
        let control = self.control.to_string();
        let mut arguments = vec!["probe", SERVER, "--user", "anna", "--control", &control, "--json"];
        arguments.extend(more);
        let mut command = self.network.client_command(PROGRAM, &arguments);
        command.env("WMRELAY_PASSWORD", "geheim");
        let finished = Process::start(command).finish(MINUTE);
        let report: Value = serde_json::from_str(&finished.stdout).unwrap_or(Value::Null);
        let probed = Probed { code: finished.status.code(), report, stderr: finished.stderr };
        let wanted = match probed.report["outcome"].as_str() {
            Some("open") => Some(0),
            Some("unknown") | None => Some(1),
            _ => Some(3),
        };
        assert_eq!(probed.code, wanted, "{} {}", probed.report, probed.stderr);
        probed
    }
}

impl Probed {
    /// `WAY PORTS STATE` of each line, the control port by its name.
    fn lines(&self, control: u16) -> Vec<String> {
        let lines = self.report["lines"].as_array().unwrap_or_else(|| panic!("{}", self.stderr));
        let told = lines.iter().map(|line| {
            let text = |key: &str| line[key].as_str().unwrap();
            let ports = if text("ports") == control.to_string() { "control" } else { text("ports") };
            format!("{} {ports} {}", text("way"), text("state"))
        });
        told.collect()
    }

    fn list(&self, key: &str) -> Vec<&str> {
        self.report[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
    }
}

/// What an open way looks like, for ten viewers.
const OPEN: [&str; 8] = [
    "tcp_out control open",
    "tcp_out 1755 open",
    "tcp_out 8554 open",
    "tcp_out 8080 open",
    "udp_in 1024-1033 open",
    "udp_in 1024-1053 open",
    "udp_out 1755 open",
    "udp_out 5005 open",
];

/// The open way, but for these.
fn but(changes: &[(usize, &[&str])]) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, open) in OPEN.iter().enumerate() {
        match changes.iter().find(|(changed, _)| *changed == index) {
            Some((_, instead)) => lines.extend(instead.iter().map(|line| (*line).to_owned())),
            None => lines.push((*open).to_owned()),
        }
    }
    lines
}

#[test]
fn six_firewalls_and_a_nat() {
    if !ready("six_firewalls_and_a_nat", &NEEDS) {
        return;
    }
    let site = Site::new();
    let control = site.control;

    // 1: all open. A certificate that nobody vouches for is refused first, and the one that is named is believed.
    let unknown = site.probe(&[]);
    assert!(unknown.stderr.contains("Nothing was sent") && unknown.report.is_null(), "{}", unknown.stderr);
    let fingerprint = unknown.stderr.split("say --fingerprint ").nth(1).unwrap().split('.').next().unwrap().to_owned();
    assert!(site.daemon.log().contains(&fingerprint), "the log shows it");
    let other = site.probe(&["--fingerprint", &"AB".repeat(32)]);
    assert!(other.stderr.contains("another certificate"), "{}", other.stderr);
    let known = ["--fingerprint", fingerprint.as_str()];
    let open = site.probe(&known);
    assert_eq!(open.lines(control), OPEN);
    assert!(open.list("nat").is_empty() && open.list("asks").is_empty(), "{}", open.report);
    assert_eq!(open.report["seen_as"], CLIENT);

    // A port that a player of this machine has is told as such, and neither open nor closed.
    let play = ["play", &format!("mmsu://{SERVER}/demo"), "--ports", "1030", "--seconds", "40"];
    let player = Process::start(site.network.client_command(PROGRAM, &play));
    let metrics = || site.network.get_at_server(9755, "/metrics");
    wait_until("a viewer over UDP", MINUTE, || sum_of(&metrics(), "wmrelay_viewers", &[("transport", "udp")]) == 1.0);
    let taken = site.probe(&known);
    drop(player);
    let others = |last: &str| {
        ["1024-1029 open", "1030 unknown", &format!("1031-{last} open")].map(|line| format!("udp_in {line}")).join("; ")
    };
    let wanted: Vec<_> = but(&[(4, &[&others("1033")]), (5, &[&others("1053")])]);
    assert_eq!(taken.lines(control).join("; "), wanted.join("; "), "{}", taken.report);
    assert!(taken.report.to_string().contains("another program of this machine has the port"), "{}", taken.report);

    let pass = format!("tcp dport {control} accept\ntcp sport {control} accept\n");
    // 2: UDP range too small.
    site.firewall(&format!("ip daddr {CLIENT} udp dport 1027-65535 drop"));
    let small = site.probe(&known);
    let closed = but(&[
        (4, &["udp_in 1024-1026 open", "udp_in 1027-1033 silent"]),
        (5, &["udp_in 1024-1026 open", "udp_in 1027-1053 silent"]),
    ]);
    assert_eq!(small.lines(control), closed, "{}", small.report);
    assert_eq!(
        small.list("asks"),
        [
            "UDP from the server's port 1755 to viewers' ports 1024-1033 (closed are 1027-1033)",
            "UDP from the server's port 5004 to viewers' ports 1024-1053 (closed are 1027-1053)"
        ]
    );

    // A plan for MMS alone: what it leaves out is asked for by nobody.
    site.firewall(&format!(
        "{pass}tcp dport 1755 accept\ntcp sport 1755 accept\nudp dport 1755 accept\nudp sport 1755 udp dport 1024-1033 accept\ndrop"
    ));
    let mms = site.probe(&[known[0], known[1], "--protocol", "mms"]);
    let wanted = [OPEN[0], OPEN[1], OPEN[4], OPEN[6]];
    assert_eq!((mms.lines(control), mms.list("asks").len()), (wanted.map(str::to_owned).to_vec(), 0), "{}", mms.report);

    // 3: resend ports closed.
    site.firewall(&format!("ip daddr {SERVER} udp dport {{ 1755, 5005 }} drop"));
    let deaf = site.probe(&known);
    assert_eq!(deaf.lines(control), but(&[(6, &["udp_out 1755 silent"]), (7, &["udp_out 5005 silent"])]), "{}", deaf.report);
    assert_eq!(deaf.list("asks").len(), 2, "{}", deaf.report);
    // The same for all but answers: what a firewall lets through from ports that media came to is no open port.
    site.firewall(&format!("ct state established accept\nip daddr {SERVER} udp dport {{ 1755, 5005 }} drop"));
    let deaf = site.probe(&known);
    assert_eq!(deaf.lines(control), but(&[(6, &["udp_out 1755 silent"]), (7, &["udp_out 5005 silent"])]), "{}", deaf.report);
    assert!(deaf.report.to_string().contains("that media came to"), "{}", deaf.report);

    // 4: control alone, by drop and by reject.
    let only_control = [
        (1, &["tcp_out 1755 silent"][..]),
        (2, &["tcp_out 8554 silent"]),
        (3, &["tcp_out 8080 silent"]),
        (4, &["udp_in 1024-1033 silent"]),
        (5, &["udp_in 1024-1053 silent"]),
        (6, &["udp_out 1755 silent"]),
        (7, &["udp_out 5005 silent"]),
    ];
    site.firewall(&format!("{pass}drop"));
    let closed = site.probe(&known);
    assert_eq!(closed.lines(control), but(&only_control), "{}", closed.report);
    assert_eq!(closed.list("asks").len(), 7, "{}", closed.report);
    for reject in ["reject with tcp reset", "reject with icmp type admin-prohibited", "reject"] {
        site.firewall(&format!("{pass}meta l4proto tcp {reject}\nmeta l4proto udp drop"));
        let refused = site.probe(&known);
        let wanted: Vec<_> = but(&only_control)
            .into_iter()
            .map(|line| if line.starts_with("tcp_out") { line.replace("silent", "refused") } else { line })
            .collect();
        assert_eq!(refused.lines(control), wanted, "{reject}: {}", refused.report);
    }

    // A NAT in front of the viewer: addresses are rewritten, ports too, and what comes from outside has no way in.
    site.network.load_at_firewall(
        "table ip wmrelay {
          chain postrouting { type nat hook postrouting priority srcnat; oifname \"to-server\" meta l4proto { tcp, udp } masquerade to :20000-29999; }
          chain prerouting { type nat hook prerouting priority dstnat; }
        }",
    );
    let nat = site.probe(&known);
    let behind = but(&[(4, &["udp_in 1024-1033 silent"]), (5, &["udp_in 1024-1053 silent"])]);
    assert_eq!(nat.lines(control), behind, "{}", nat.report);
    assert_eq!((nat.report["seen_as"].as_str(), nat.report["client"].as_str()), (Some("10.77.1.254"), Some(CLIENT)));
    let told = nat.list("nat").join("\n");
    assert!(told.contains("there is a NAT between") && told.contains("rewrites the ports"), "{told}");
    let forwarding = format!("has to forward the ports to this machine, {CLIENT}");
    assert_eq!(nat.list("asks").iter().filter(|ask| ask.ends_with(&forwarding)).count(), 2, "{}", nat.report);

    // The server keeps what was found, the latest first.
    let mut socket = UnixStream::connect(site.daemon.folder().join("control.sock")).unwrap();
    write!(socket, "GET /v1/probes HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let reports: Value = serde_json::from_str(&support::daemon::parse_answer(&answer).1).unwrap();
    assert_eq!((reports[0]["user"].as_str(), reports[0]["address"].as_str()), (Some("anna"), Some("10.77.1.254")));
    assert_eq!(reports[0]["report"], nat.report);
}

/// A router that forwards the client ports: they are open, and the rewriting is told. (On a router that did not forward them a moment
/// ago the old paths would live on for half a minute.)
#[test]
fn behind_a_nat_that_forwards_the_ports() {
    if !ready("behind_a_nat_that_forwards_the_ports", &NEEDS) {
        return;
    }
    let site = Site::new();
    site.network.load_at_firewall(&format!(
        "table ip wmrelay {{
          chain postrouting {{ type nat hook postrouting priority srcnat; oifname \"to-server\" masquerade; }}
          chain prerouting {{ type nat hook prerouting priority dstnat; iifname \"to-server\" udp dport 1024-1053 dnat to {CLIENT}; }}
        }}"
    ));
    let forwarded = site.probe(&["--insecure"]);
    assert_eq!(forwarded.lines(site.control), OPEN, "{}", forwarded.report);
    assert_eq!(forwarded.list("nat").len(), 1, "{}", forwarded.report);
}

/// What is typed wrong is told with what to type instead.
#[test]
fn mistakes_are_told_with_what_to_say_instead() {
    if !ready("mistakes_are_told_with_what_to_say_instead", &NEEDS) {
        return;
    }
    let site = Site::new();
    let plain = site.probe(&["--plain"]);
    assert!(plain.stderr.contains("leave out --plain"), "{}", plain.stderr);
    assert_eq!(plain.stderr.matches("HTTP").count(), 1, "{}", plain.stderr);
}

/// Without the control port nobody can be asked: nothing is called open that did not answer, and of UDP nothing is claimed.
#[test]
fn where_the_control_port_is_closed_it_says_what_it_cannot_know() {
    if !ready("where_the_control_port_is_closed_it_says_what_it_cannot_know", &NEEDS) {
        return;
    }
    let site = Site::new();
    let unknown = ["udp_in 1024-1025 unknown", "udp_out 1755 unknown", "udp_out 5005 unknown"];
    let lines = |mms: &str, others: &str| -> Vec<String> {
        let ports = ["554", "8554", "80", "8080", "443", "8443"];
        let tcp = [format!("tcp_out control {others}"), format!("tcp_out 1755 {mms}")];
        let rest = ports.iter().map(|port| format!("tcp_out {port} {others}"));
        tcp.into_iter().chain(rest).chain(unknown.map(str::to_owned)).collect()
    };
    // TCP 1755 alone, all closed, and all refused.
    site.firewall("tcp dport 1755 accept\ntcp sport 1755 accept\ndrop");
    let alone = site.probe(&["--viewers", "2"]);
    assert_eq!(alone.lines(site.control), lines("open", "silent"), "{}", alone.report);
    assert_eq!(alone.list("asks"), [format!("TCP from viewers to the server's port {}", site.control)]);
    assert!(alone.report["seen_as"].is_null() && alone.list("notes")[0].contains("nothing is known of UDP"), "{}", alone.report);

    site.firewall("drop");
    let closed = site.probe(&["--viewers", "2"]);
    assert_eq!(closed.lines(site.control), lines("silent", "silent"), "{}", closed.report);
    assert!(closed.list("notes").iter().any(|note| note.contains("answers: it is not the right address")), "{}", closed.report);

    site.firewall("meta l4proto tcp reject with tcp reset\ndrop");
    let refused = site.probe(&["--viewers", "2"]);
    assert_eq!(refused.lines(site.control), lines("refused", "refused"), "{}", refused.report);
}
