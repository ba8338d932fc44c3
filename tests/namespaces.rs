//! A firewall between server and viewers that lets through what the port pool allows, and nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::Need::{Program, Root};
use support::daemon::{Launch, sum_of};
use support::mms::{self, Control, Incoming, result_of};
use support::namespace::{CLIENT, Network, SERVER};
use support::player::{assert_clip_over_and_over, ffmpeg_arguments, frames, of_stream};
use support::process::Process;
use support::publisher::push_arguments;
use support::viewer::{PLAYER, open_and_start};
use support::{ready, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

/// "At once": no player waits for silence. Generous, for a busy machine; silence would be seconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What an administrator opens: TCP and UDP 1755 towards the server, ten UDP ports towards the viewers.
fn firewall_rules() -> String {
    format!(
        "table ip wmrelay {{
  counter stray {{ }}
  counter media {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ip saddr {CLIENT} ip daddr {SERVER} tcp dport 1755 accept
    ip saddr {SERVER} ip daddr {CLIENT} tcp sport 1755 ct state established accept
    ip saddr {CLIENT} ip daddr {SERVER} udp dport 1755 accept
    ip saddr {SERVER} ip daddr {CLIENT} udp dport 1024-1033 counter name media accept
    meta l4proto udp counter name stray drop
  }}
}}"
    )
}

const SETTINGS: &str = "[udp]\nclient_ports = \"1024-1033\"\n";
const LISTEN: [&str; 3] = ["10.77.1.1:1755", "127.0.0.1:8080", "127.0.0.1:9755"];

#[test]
fn ten_udp_viewers_behind_one_address_and_the_eleventh_by_tcp() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("ten_udp_viewers_behind_one_address_and_the_eleventh_by_tcp", &needs) {
        return;
    }
    let network = Network::new(&firewall_rules());
    let _daemon = Launch::new(SETTINGS).in_namespace(network.server()).listen(LISTEN).start();
    let url = format!("mms://{SERVER}/demo");
    // Without --transport: UDP, and TCP where that is refused.
    let play = |seconds: &str| {
        let arguments = ["play", &url, "--seconds", seconds, "--json"];
        Process::start(network.client_command(env!("CARGO_BIN_EXE_wmrelay"), &arguments))
    };
    let viewers =
        |transport: &str| sum_of(&network.get_at_server(9755, "/metrics"), "wmrelay_viewers", &[("transport", transport)]);

    let ten: Vec<Process> = (0..10).map(|_| play("12")).collect();
    wait_until("ten viewers over UDP", MINUTE, || viewers("udp") == 10.0);

    // All ten ports are taken. The eleventh opens 1034 by itself and is told no.
    let eleventh = report(play("3"));
    assert_eq!(eleventh["transport"], "tcp", "{eleventh}");
    assert!(eleventh["udp_refused"].as_str().is_some_and(|cause| cause.starts_with("0xC00D0043")), "{eleventh}");
    assert!(eleventh["packets"].as_u64().unwrap() > 0, "{eleventh}");
    let first_packet = Duration::from_secs_f64(eleventh["first_packet_ms"].as_f64().unwrap() / 1000.0);
    assert!(first_packet < AT_ONCE, "the eleventh waited {first_packet:?}");

    announces_a_port_outside(&network);

    assert_eq!(viewers("udp"), 10.0, "ten still play");
    let mut ports = Vec::new();
    for viewer in ten {
        let report = report(viewer);
        assert_eq!(report["transport"], "udp", "{report}");
        ports.push(report["port"].as_u64().unwrap());
        assert!(report["packets"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(report["lost"], 0, "{report}");
    }
    ports.sort_unstable();
    assert_eq!(ports, (1024..1034).collect::<Vec<_>>());
    assert!(network.counted("media") > 0);
    assert_eq!(network.counted("stray"), 0, "the daemon sent UDP that the firewall had to drop");
    let metrics = network.get_at_server(9755, "/metrics");
    assert!(sum_of(&metrics, "wmrelay_transport_fallbacks_total", &[]) >= 2.0, "{metrics}");
}

/// From another machine nobody publishes without a password; ffmpeg knows Digest and shows the refusal.
#[test]
fn publishers_on_other_machines_need_a_password() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ffmpeg")];
    if !ready("publishers_on_other_machines_need_a_password", &needs) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    passwd.arg("passwd").arg(&users).arg("anna");
    let mut passwd = Process::start(passwd);
    passwd.say("secret");
    let made = passwd.finish(MINUTE);
    assert!(made.status.success(), "{}{}", made.stdout, made.stderr);
    assert!(!std::fs::read_to_string(&users).unwrap().contains("secret"), "the password itself is in the file");

    let network = Network::new("table ip wmrelay { }");
    let settings = format!(
        "[users]\nfile = \"{}\"\n[[publishing_point]]\nname = \"cam1\"\nsource = {{ type = \"push\" }}\n",
        users.display()
    );
    let listen = ["10.77.1.1:1755", "10.77.1.1:8080", "127.0.0.1:9755"];
    let daemon = Launch::new(settings).in_namespace(network.server()).listen(listen).start();
    let push = |user: &str| {
        let url = format!("http://{user}{SERVER}:8080/publish/cam1");
        Process::start(network.client_command("ffmpeg", &push_arguments("asf_stream", "POST", &url)))
    };
    let source_up = || sum_of(&network.get_at_server(9755, "/metrics"), "wmrelay_source_up", &[("point", "cam1")]);

    // ffmpeg sends on and reads no answer before its own end: it learns of a refusal by a broken connection.
    for user in ["", "anna:wrong@", "bert:secret@"] {
        let refused = push(user).finish(MINUTE);
        assert!(!refused.status.success() || refused.stderr.contains("Broken pipe"), "{user}: {}", refused.stderr);
    }
    assert_eq!(source_up(), 0.0);
    // No password at all is how a conversation by Digest begins; a wrong one is worth a line.
    assert_eq!(daemon.log().matches("publisher refused").count(), 2);

    let _publisher = push("anna:secret@");
    wait_until("the publisher with the right password", MINUTE, || source_up() == 1.0);
    let url = format!("mmst://{SERVER}/cam1");
    let played = Process::start(network.client_command("ffmpeg", &ffmpeg_arguments(&url, 3))).finish(MINUTE);
    let pictures = of_stream(&frames(&played.stdout), 0);
    assert!(pictures.len() >= 40, "{} pictures\n{}", pictures.len(), played.stderr);
    assert_clip_over_and_over(pictures.iter().map(|picture| picture.md5.as_str()));
}

/// The yardstick itself: the firewall passes the pool's ports, and counts and drops the one beside them.
#[test]
fn the_firewall_tells_the_pool_from_its_neighbour() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("the_firewall_tells_the_pool_from_its_neighbour", &needs) {
        return;
    }
    let network = Network::new(&firewall_rules());
    for port in [1024, 1033, 1034] {
        let send = format!("echo x > /dev/udp/{CLIENT}/{port}");
        Process::start(network.server_command("bash", &["-c", &send])).finish(MINUTE);
    }
    wait_until("two datagrams through", MINUTE, || network.counted("media") == 2);
    wait_until("one dropped", MINUTE, || network.counted("stray") == 1);
}

/// A player that announces port 40000: refused, and then served over TCP on the same connection.
#[track_caller]
fn announces_a_port_outside(network: &Network) {
    let mut control = network.connect(1755);
    control.send(mms::CONNECT, &mms::connect_body(PLAYER));
    assert_eq!(result_of(&control.expect(mms::CONNECTED, MINUTE)), 0);

    let asked = Instant::now();
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\{CLIENT}\\UDP\\40000")));
    let refusal = control.expect(mms::FUNNEL_REFUSED, MINUTE);
    assert!(asked.elapsed() < AT_ONCE, "refused after {:?}", asked.elapsed());
    assert_eq!(result_of(&refusal), mms::INVALID_PORT);

    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&format!("\\\\{CLIENT}\\TCP\\1037")));
    assert_eq!(result_of(&control.expect(mms::FUNNEL_CONNECTED, MINUTE)), 0);
    open_and_start(&mut control, "demo", None);
    assert!(asked.elapsed() < 3 * AT_ONCE, "first media after {:?}", asked.elapsed());
    media(&mut control, 10);
}

#[track_caller]
fn media(control: &mut Control, packets: usize) {
    for _ in 0..packets {
        match control.receive(MINUTE) {
            Some(Incoming::Data(data)) => assert_eq!(data.incarnation, 10),
            other => panic!("wanted media, got {other:x?}"),
        }
    }
}

#[track_caller]
fn report(process: Process) -> serde_json::Value {
    let played = process.finish(MINUTE);
    assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
    serde_json::from_str(&played.stdout).unwrap_or_else(|error| panic!("{error}: {}", played.stdout))
}
