//! What `wmrelay firewall` prints, loaded: so many viewers play over UDP, nothing else passes, and each rule is needed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program, Root};
use support::daemon::{Daemon, Launch, sum_of};
use support::namespace::{CLIENT, Network, SERVER};
use support::player::{ffmpeg_arguments, frames, of_stream, video_stream};
use support::process::Process;
use support::{ready, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wmrelay");
const MINUTE: Duration = Duration::from_secs(60);
const NEEDS: [Need; 4] = [Root, Program("ip"), Program("nft"), Program("bash")];

/// Viewers of the plans whose rules are taken away one by one.
const FEW: u16 = 3;
/// What those listen on over MMS, and over RTSP with three ports each.
const MMS_PORTS: &str = "1024-1026";
const RTSP_PORTS: &str = "1024-1032";

/// What the plan is made of; the daemon's own file has the same ports.
const SETTINGS: &str = "mms.listen = \"10.77.1.1:1755\"
http.listen = \"10.77.1.1:8080\"
rtsp.listen = \"10.77.1.1:8554\"
console.listen = \"10.77.1.1:8443\"
[control]
listen = \"10.77.1.1:3898\"
users_file = \"users\"
";

/// The last packet of each ten is lost on its way into the client, whatever the firewall says; packets within and beyond the ports
/// of MMS are counted.
fn client_rules(viewers: u16) -> String {
    let beyond = 1024 + viewers;
    let last = beyond - 1;
    format!(
        "table ip wmrelay {{
  counter within {{ }}
  counter beyond {{ }}
  chain input {{
    type filter hook input priority filter; policy accept;
    udp dport 1024-{last} counter name within
    udp dport {beyond}-5000 udp sport != 5004 counter name beyond
    udp sport {{ 1755, 5004 }} numgen inc mod 10 == 9 drop
  }}
}}"
    )
}

/// What comes in at the server itself, behind its rules.
const SERVER_COUNTERS: &str = "table ip wmrelay {
  counter requests { }
  counter rtsp_requests { }
  chain input {
    type filter hook input priority 10; policy accept;
    udp dport 1755 counter name requests
    udp dport 5005 counter name rtsp_requests
  }
}";

/// Somebody who may sign in.
#[track_caller]
fn add_user(file: &Path) {
    let mut passwd = Command::new(PROGRAM);
    passwd.args(["passwd", "--role", "viewer"]).arg(file).arg("anna");
    let mut passwd = Process::start(passwd);
    passwd.take_stdin().write_all(b"geheim\n").unwrap();
    assert!(passwd.finish(MINUTE).status.success());
}

/// What `wmrelay firewall` prints for these settings.
#[track_caller]
fn plan(settings: &str, options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    add_user(&folder.path().join("users"));
    let config = folder.path().join("wmrelay.toml");
    std::fs::write(&config, settings).unwrap();
    let mut plan = Command::new(PROGRAM);
    plan.args(["firewall", "--for", "nftables"]).args(options).arg("--config").arg(&config);
    let planned = Process::start(plan).finish(MINUTE);
    assert!(planned.status.success(), "{}", planned.stderr);
    planned.stdout
}

/// A daemon with a network, and the rules for it.
struct Site {
    network: Network,
    _daemon: Daemon,
    side: &'static str,
    rules: String,
}

impl Site {
    #[track_caller]
    fn new(side: &'static str, viewers: u16) -> Self {
        let rules = plan(SETTINGS, &["--viewers", &viewers.to_string(), "--side", side, "--client-net", "10.77.2.0/24"]);
        let network = Network::new("table inet nothing { }");
        network.load_at_client(&client_rules(viewers));
        let daemon = Launch::new("")
            .in_namespace(network.server())
            .listen(["10.77.1.1:1755", "10.77.1.1:8080", "127.0.0.1:9755"])
            .rtsp("10.77.1.1:8554")
            .rtsp_server_port(5004)
            .start();
        let site = Self { network, _daemon: daemon, side, rules };
        site.load(&site.rules);
        site
    }

    #[track_caller]
    fn load(&self, rules: &str) {
        match self.side {
            "server" => self.network.load_at_server(&format!("flush ruleset\n{rules}\n{SERVER_COUNTERS}")),
            _ => self.network.load_at_firewall(rules),
        }
    }

    /// The names of the rules, in their order.
    fn rule_names(&self) -> Vec<&str> {
        self.rules.lines().filter_map(rule_name).collect()
    }

    /// The rules without one.
    #[track_caller]
    fn without(&self, name: &str) -> String {
        let kept: Vec<_> = self.rules.lines().filter(|line| rule_name(line) != Some(name)).collect();
        assert_eq!(kept.len() + 1, self.rules.lines().count(), "{name} is one rule of\n{}", self.rules);
        kept.join("\n")
    }

    /// Whether what a rule is there for works.
    fn works(&self, rule: &str, limit_s: u32) -> bool {
        let play = |url: &str, ports: &str, seconds: &str| self.play(url, ports, seconds, limit_s);
        let played = |url: &str, ports: &str, seconds: &str| {
            play(url, ports, seconds).is_some_and(|report| report["packets"].as_u64() > Some(0))
        };
        let over_tcp = |url: &str| played(url, MMS_PORTS, "1");
        // The header may be what is lost on the way; it is asked for again after a second.
        let over_udp = |url: &str, ports: &str| played(url, ports, "3");
        let recovered = |url: &str, ports: &str| {
            play(url, ports, "3").is_some_and(|report| {
                assert!(report["gaps"].as_u64() > Some(0), "nothing was lost: {report}");
                report["recovered"].as_u64() > Some(0)
            })
        };
        match (rule, self.side) {
            ("control", _) => self.reaches(&Self::client, SERVER, 3898),
            ("console", _) => self.reaches(&Self::client, SERVER, 8443),
            ("MMS", _) | ("answers", "viewer") => over_tcp(&format!("mmst://{SERVER}/demo")),
            ("MMS media", _) => over_udp(&format!("mmsu://{SERVER}/demo"), MMS_PORTS),
            // From the leased port they would pass as answers to media; they may come from any.
            ("MMS resends", "server") => self.datagram_arrives(1755, "requests"),
            ("RTSP resends", "server") => self.datagram_arrives(5005, "rtsp_requests"),
            ("MMS resends", _) => recovered(&format!("mmsu://{SERVER}/demo"), MMS_PORTS),
            ("RTSP", _) => over_tcp(&format!("rtspt://{SERVER}:8554/demo")),
            ("RTSP media", _) => over_udp(&format!("rtspu://{SERVER}:8554/demo"), RTSP_PORTS),
            ("RTSP resends", _) => recovered(&format!("rtspu://{SERVER}:8554/demo"), RTSP_PORTS),
            ("HTTP", _) => over_tcp(&format!("http://{SERVER}:8080/demo")),
            ("answers", "server") => self.reaches(&Self::server, CLIENT, 22),
            ("this machine itself", "server") => self.reaches(&Self::server, "127.0.0.1", 9755),
            // What it is there for is that something does not pass.
            ("other media", "server") => !over_udp(&format!("mmsu://{SERVER}/demo"), "1027"),
            other => panic!("nothing is known that {other:?} is needed for"),
        }
    }

    /// Plays; `None` where that does not end in time with a report.
    fn play(&self, url: &str, ports: &str, seconds: &str, limit_s: u32) -> Option<serde_json::Value> {
        let limit = limit_s.to_string();
        let arguments = [&limit, PROGRAM, "play", url, "--ports", ports, "--seconds", seconds, "--json"];
        let played = Process::start(self.network.client_command("timeout", &arguments)).finish(MINUTE);
        serde_json::from_str(&played.stdout).ok()
    }

    /// Whether a datagram of the client from a port of the system's choice gets to a port of the server.
    fn datagram_arrives(&self, port: u16, counter: &str) -> bool {
        let before = self.network.counted_at_server(counter);
        let send = format!("echo x > /dev/udp/{SERVER}/{port}");
        Process::start(self.client("bash", &["-c", &send])).finish(MINUTE);
        // Nothing overtakes it on the way.
        assert!(self.reaches(&Self::client, SERVER, 1755));
        self.network.counted_at_server(counter) > before
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        self.network.client_command(program, arguments)
    }

    fn server(&self, program: &str, arguments: &[&str]) -> Command {
        self.network.server_command(program, arguments)
    }

    /// Whether a TCP connection gets there: where nobody listens the other end says so, and where a firewall drops it nobody does.
    fn reaches(&self, from: &dyn Fn(&Self, &str, &[&str]) -> Command, address: &str, port: u16) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{address}/{port}");
        let tried = Process::start(from(self, "timeout", &["2", "bash", "-c", &connect])).finish(MINUTE);
        tried.status.code() != Some(124)
    }
}

/// The name of the rule that a line of the rules is.
fn rule_name(line: &str) -> Option<&str> {
    let is_rule = !line.trim_start().starts_with('#');
    line.split_once(" comment \"").filter(|_| is_rule).and_then(|(_, name)| name.trim().strip_suffix('"'))
}

/// Each thing works, and does not once its rule is taken away.
#[track_caller]
fn each_rule_is_needed(site: &Site, wanted: &[&str]) {
    assert_eq!(site.rule_names(), wanted, "{}", site.rules);
    for rule in wanted {
        assert!(site.works(rule, 20), "{rule} with\n{}", site.rules);
    }
    for rule in wanted {
        let rules = site.without(rule);
        site.load(&rules);
        assert!(!site.works(rule, 6), "{rule} works with\n{rules}");
    }
    site.load(&site.rules);
}

/// What no rule names, in both directions.
#[track_caller]
fn nothing_else_passes(site: &Site) {
    let client = |port| site.reaches(&Site::client, SERVER, port);
    assert!(client(1755), "the way is there");
    for port in [22, 1754, 1756, 5004, 8081] {
        assert!(!client(port), "TCP {port} at the server");
    }
}

#[test]
fn the_viewers_side_lets_through_what_it_says_and_each_rule_is_needed() {
    if !ready("the_viewers_side_lets_through_what_it_says_and_each_rule_is_needed", &NEEDS) {
        return;
    }
    let site = Site::new("viewer", FEW);
    let wanted =
        ["answers", "control", "console", "MMS", "MMS resends", "RTSP", "RTSP resends", "HTTP", "MMS media", "RTSP media"];
    each_rule_is_needed(&site, &wanted);

    nothing_else_passes(&site);
    assert!(!site.reaches(&Site::server, CLIENT, 22), "TCP from the server");
    // To a port of the range, but from none of the server's; and out of the range.
    let before = site.network.counted_at_client("within");
    for port in [1024, 1027] {
        let send = format!("echo x > /dev/udp/{CLIENT}/{port}");
        Process::start(site.server("bash", &["-c", &send])).finish(MINUTE);
    }
    // Nothing overtakes them on the way.
    assert!(site.reaches(&Site::client, SERVER, 1755));
    assert_eq!(site.network.counted_at_client("within"), before);
    assert_eq!(site.network.counted_at_client("beyond"), 0);
}

#[test]
fn the_servers_side_lets_through_what_it_says_and_each_rule_is_needed() {
    if !ready("the_servers_side_lets_through_what_it_says_and_each_rule_is_needed", &NEEDS) {
        return;
    }
    let site = Site::new("server", FEW);
    let wanted = [
        "this machine itself",
        "answers",
        "control",
        "console",
        "MMS",
        "MMS resends",
        "RTSP",
        "RTSP resends",
        "HTTP",
        "MMS media",
        "RTSP media",
        "other media",
    ];
    each_rule_is_needed(&site, &wanted);
    nothing_else_passes(&site);
}

#[test]
fn ten_play_over_udp_through_a_plan_for_ten_and_the_eleventh_over_tcp() {
    let needs = [&NEEDS[..], &[Program("ffmpeg")]].concat();
    if !ready("ten_play_over_udp_through_a_plan_for_ten_and_the_eleventh_over_tcp", &needs) {
        return;
    }
    let site = Site::new("viewer", 10);
    let url = format!("mms://{SERVER}/demo");
    let start = |seconds: &str| {
        let arguments = ["play", &url, "--seconds", seconds, "--json"];
        Process::start(site.client(PROGRAM, &arguments))
    };
    let viewers =
        |transport: &str| sum_of(&site.network.get_at_server(9755, "/metrics"), "wmrelay_viewers", &[("transport", transport)]);
    let ten: Vec<_> = (0..10).map(|_| start("8")).collect();
    wait_until("ten viewers over UDP", MINUTE, || viewers("udp") == 10.0);

    // The pool of the daemon is wider than the plan: it grants 1034, and nothing comes there.
    let eleventh = report(start("16"));
    assert_eq!(eleventh["transport"], "tcp", "{eleventh}");
    assert!(eleventh["packets"].as_u64() > Some(0), "{eleventh}");
    assert_eq!(site.network.counted_at_client("beyond"), 0);

    let mut ports = Vec::new();
    let mut recovered = 0;
    for viewer in ten {
        let report = report(viewer);
        assert_eq!(report["transport"], "udp", "{report}");
        assert!(report["packets"].as_u64() > Some(0), "{report}");
        ports.push(report["port"].as_u64().unwrap());
        recovered += report["recovered"].as_u64().unwrap();
    }
    ports.sort_unstable();
    assert_eq!(ports, (1024..1034).collect::<Vec<_>>());
    assert!(recovered > 0, "of what was lost nothing came again");

    // As the plan says how to set it: it uses three of the four ports. It does not ask for lost packets again.
    let options = ["-rtsp_transport", "udp", "-min_port", "1024", "-max_port", "1027"].map(str::to_owned);
    let arguments: Vec<_> = options.into_iter().chain(ffmpeg_arguments(&format!("rtsp://{SERVER}:8554/demo"), 3)).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let before = site.network.counted_at_client("within");
    let ffmpeg = Process::start(site.client("ffmpeg", &arguments)).finish(MINUTE);
    assert!(ffmpeg.status.success(), "{}", ffmpeg.stderr);
    assert!(!of_stream(&frames(&ffmpeg.stdout), video_stream(&ffmpeg.stdout)).is_empty(), "{}", ffmpeg.stderr);
    assert!(site.network.counted_at_client("within") > before, "no media over UDP");
}

/// Without a file the plan is the running daemon's: with the ports that it got, and with the control port only where somebody may sign
/// in. With nobody to ask it says what it goes by.
#[test]
fn the_running_daemon_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = Command::new(PROGRAM);
    plan.args(["firewall", "--viewers", "2"]);
    plan.env("RUNTIME_DIRECTORY", folder.path()).env("XDG_RUNTIME_DIR", folder.path()).current_dir(folder.path());
    let alone = Process::start(plan).finish(MINUTE);
    assert!(alone.status.success(), "{}", alone.stderr);
    assert!(alone.stderr.contains("no daemon runs here that could be asked; planned from"), "{}", alone.stderr);
    assert!(alone.stdout.contains("TCP from viewers to the server's port 1755"), "{}", alone.stdout);

    // What only this machine reaches is in no plan, and the daemon says so.
    let daemon = Daemon::start("");
    let (told, code) = daemon.command(&["firewall", "--viewers", "2"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("no listener that other machines reach"), "{told}");
    drop(daemon);

    if !ready("the_running_daemon_is_asked", &NEEDS) {
        return;
    }
    let network = Network::new("table inet nothing { }");
    let users = folder.path().join("users");
    add_user(&users);
    let nobody = folder.path().join("nobody");
    std::fs::write(&nobody, "# nobody yet\n").unwrap();
    for (file, has_users) in [(&users, true), (&nobody, false)] {
        let daemon = Launch::new("udp.client_ports = \"2000-2999\"\n")
            .in_namespace(network.server())
            .listen(["10.77.1.1:0", "10.77.1.1:0", "10.77.1.1:0"])
            .control(format!("users_file = {file:?}"))
            .start();
        let arguments = ["firewall", "--viewers", "2", "--for", "nftables", "--client-net", "10.77.2.0/24"];
        let (plan, code) = daemon.command(&arguments);
        assert_eq!(code, Some(0), "{plan}");
        let mms = daemon.mms.port();
        assert!(plan.contains(&format!("tcp dport {mms} accept comment \"MMS\"")), "{plan}");
        assert!(plan.contains(&format!("udp sport {mms} udp dport 2000-2001")), "{plan}");
        assert_eq!(plan.contains("comment \"control\""), has_users, "{plan}");
        assert!(plan.contains(&format!("TCP {} asks for no password", daemon.admin.port())), "{plan}");
        let (told, code) = daemon.command(&["firewall", "--viewers", "1001"]);
        assert_eq!(code, Some(1));
        assert!(told.contains("has room for 1000 of 1001 viewers over UDP by MMS, 1 port each; make"), "{told}");
    }
}

/// Exit code 1 and a sentence where there is no such plan, 2 where the settings are wrong; nothing is printed that could be loaded.
#[test]
fn what_cannot_be_planned_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wmrelay.toml");
    let run = |settings: &str, options: &[&str]| {
        std::fs::write(&config, settings).unwrap();
        let mut plan = Command::new(PROGRAM);
        plan.arg("firewall").args(options).arg("--config").arg(&config);
        let done = Process::start(plan).finish(MINUTE);
        assert_eq!(done.stdout, "", "{}", done.stderr);
        (done.status.code(), done.stderr)
    };
    let (code, told) = run("udp.client_ports = \"1024-1033\"\n", &["--viewers", "11"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("[udp] client_ports = \"1024-1033\" has room for 10 of 11 viewers over UDP by MMS"), "{told}");
    assert!(told.contains("(--viewers, --tcp-only)"), "{told}");
    let (code, told) = run("udp.client_ports = \"1024-1033\"\n", &["--viewers", "10", "--protocol", "rtsp"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("room for 3 of 10 viewers over UDP by RTSP") && told.contains("--protocol mms"), "{told}");
    let (code, told) =
        run("http.listen = \"\"\nmms.protocols = [\"mms\"]\nrtsp.listen = \"\"\n", &["--viewers", "1", "--protocol", "http"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("no listener that other machines reach serves HTTP"), "{told}");
    let (code, told) = run("udp.client_prots = \"1024-1033\"\n", &["--viewers", "1"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("wmrelay.toml:1") && told.contains("client_ports"), "{told}");
}

/// Listeners of both IP versions, ports in several ranges, TLS: nft takes the tables, twice too.
#[test]
fn tables_of_odd_settings_can_be_loaded() {
    if !ready("tables_of_odd_settings_can_be_loaded", &NEEDS) {
        return;
    }
    let settings = "mms.listen = [\"198.51.100.7:1755\", \"198.51.100.8:1755\", \"[2001:db8::7]:1756\"]
http.listen = \"0.0.0.0:80\"
rtsp.listen = \"*:554\"
udp.client_ports = \"1024-1026,7000-7007\"
[control]
users_file = \"users\"
";
    let network = Network::new("table inet nothing { }");
    for options in [
        &["--side", "server"][..],
        &["--side", "viewer"],
        &["--side", "viewer", "--server", "203.0.113.1,2001:db8::1"],
        &["--side", "server", "--client-net", "2001:db8:1::/48"],
        &["--side", "viewer", "--client-net", "192.0.2.0/24", "--tcp-only"],
    ] {
        let rules = plan(settings, &[options, &["--viewers", "3"]].concat());
        network.load_at_firewall(&format!("{rules}{rules}"));
    }
}

#[track_caller]
fn report(process: Process) -> serde_json::Value {
    let played = process.finish(MINUTE);
    assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
    serde_json::from_str(&played.stdout).unwrap_or_else(|error| panic!("{error}: {}", played.stdout))
}
