//! A firewall between server and viewers that lets through what the port pool allows, and nothing else; and network
//! devices that cannot do what others can.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::Need::{Program, Root};
use support::asf::Synthetic;
use support::daemon::{Daemon, Launch, sum_of};
use support::gstreamer::GSTREAMER;
use support::mms::{self, Control, Incoming, result_of};
use support::namespace::{CLIENT, Network, SERVER};
use support::player::{assert_clip_over_and_over, ffmpeg_arguments, frames, of_stream, video_stream};
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

const PROGRAM: &str = env!("CARGO_BIN_EXE_wmrelay");
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

/// Counts what leaves the server in one send each: over the loopback, and over the device that leads to the client.
const SENDS: &str = "table ip wmrelay {
  counter local { }
  counter remote { }
  chain output {
    type filter hook output priority filter; policy accept;
    udp dport 1024-1033 oifname \"lo\" counter name local
    udp dport 1024-1033 oifname \"eth0\" counter name remote
  }
}";

/// 2.8 Mbit/s in packets that just fill a datagram; read from a file, some five of them become due at a time.
const DENSE: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 250 };

/// A daemon that plays [`DENSE`] for ever as `dense`; its file is in `folder`.
#[track_caller]
fn serve_dense(network: &Network, folder: &Path) -> Daemon {
    let file = folder.join("dense.asf");
    let packets = (0..1000).flat_map(|number| DENSE.packet(number));
    std::fs::write(&file, DENSE.header().into_iter().chain(packets).collect::<Vec<u8>>()).unwrap();
    let point = format!("[[publishing_point]]\nname = \"dense\"\nsource = {{ type = \"file\", path = {file:?} }}\n");
    Launch::new(format!("{SETTINGS}{point}")).in_namespace(network.server()).listen(LISTEN).start()
}

/// The arguments of a UDP viewer of it.
fn play_dense(seconds: &str) -> Vec<String> {
    let url = format!("mms://{SERVER}/dense");
    ["play", &url, "--transport", "udp", "--seconds", seconds, "--json"].map(str::to_owned).to_vec()
}

/// All that was sent to a UDP viewer has come.
#[track_caller]
fn assert_whole(report: &serde_json::Value) {
    assert_eq!((&report["transport"], &report["lost"]), (&"udp".into(), &0.into()), "{report}");
    assert!(report["packets"].as_u64().unwrap() > 200, "{report}");
}

/// A device that neither cuts segmented sends nor computes checksums.
///
/// Linux refused segmented sends over such a device until 6.10; since 6.11 it cuts them in software, and nothing is refused here. The
/// narrow device below is the one that refuses on every kernel.
#[test]
fn a_device_without_offloads_carries_every_packet() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ethtool")];
    if !ready("a_device_without_offloads_carries_every_packet", &needs) {
        return;
    }
    let network = Network::new(&firewall_rules());
    let off = ["tx-udp-segmentation", "tx", "sg", "gso"].map(|feature| [feature, "off"]).concat();
    network.at_server("ethtool", &[vec!["-K", "eth0"], off].concat());
    let folder = tempfile::tempdir().unwrap();
    let _daemon = serve_dense(&network, folder.path());
    let report = report(Process::start(network.client_command(PROGRAM, &play_dense("5"))));
    assert_whole(&report);
    let metrics = network.get_at_server(9755, "/metrics");
    assert_eq!(sum_of(&metrics, "wmrelay_udp_send_errors_total", &[]), 0.0, "{metrics}");
    assert!(network.counted("media") >= report["packets"].as_u64().unwrap());
}

/// A device that takes less than a datagram refuses segmented sends: its viewer gets IP fragments, the others' sends stay long.
#[test]
fn a_device_that_refuses_segmented_sends_carries_every_packet_and_costs_nobody_else() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash")];
    if !ready("a_device_that_refuses_segmented_sends_carries_every_packet_and_costs_nobody_else", &needs) {
        return;
    }
    let network = Network::new(&firewall_rules());
    network.at_server("ip", &["link", "set", "eth0", "mtu", "1000"]);
    network.load_at_server(SENDS);
    let folder = tempfile::tempdir().unwrap();
    let _daemon = serve_dense(&network, folder.path());

    let far = Process::start(network.client_command(PROGRAM, &play_dense("8")));
    wait_until("packets to the viewer behind the narrow device", MINUTE, || network.counted_at_server("remote") > 20);
    let near = report(Process::start(network.server_command(PROGRAM, &play_dense("4"))));
    let far = report(far);
    assert_whole(&near);
    assert_whole(&far);

    let packets = |report: &serde_json::Value| report["packets"].as_u64().unwrap();
    let (local, remote) = (network.counted_at_server("local"), network.counted_at_server("remote"));
    assert!(remote >= packets(&far), "{remote} sends of {} packets over the narrow device", packets(&far));
    eprintln!("far: {} packets in {remote} sends; near: {} packets in {local} sends", packets(&far), packets(&near));
    assert!(local * 2 < packets(&near), "{local} sends of {} packets over the loopback", packets(&near));
    let metrics = network.get_at_server(9755, "/metrics");
    assert_eq!(sum_of(&metrics, "wmrelay_udp_send_errors_total", &[]), 0.0, "{metrics}");
}

/// The queue of a device fills up towards one viewer: that one loses packets, nobody waits for it and nobody is turned away.
#[test]
fn a_link_without_room_costs_its_own_viewer_only() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("tc")];
    if !ready("a_link_without_room_costs_its_own_viewer_only", &needs) {
        return;
    }
    let network = Network::new(&firewall_rules());
    network.load_at_server(SENDS);
    let folder = tempfile::tempdir().unwrap();
    let _daemon = serve_dense(&network, folder.path());
    let _far = Process::start(network.client_command(PROGRAM, &play_dense("60")));
    wait_until("packets to the far viewer", MINUTE, || network.counted_at_server("remote") > 20);
    network.at_server("tc", &"qdisc add dev eth0 root tbf rate 16kbit burst 2000 limit 3000".split(' ').collect::<Vec<_>>());
    let given_up = || sum_of(&network.get_at_server(9755, "/metrics"), "wmrelay_udp_send_errors_total", &[]);
    wait_until("datagrams that the full device did not take", MINUTE, || given_up() > 0.0);

    let before = given_up();
    let near = report(Process::start(network.server_command(PROGRAM, &play_dense("4"))));
    assert_whole(&near);
    // 250 a second: less would mean that the near viewer waited for the far one.
    assert!(near["packets"].as_u64().unwrap() > 750, "{near}");
    assert!(given_up() > before, "the far viewer's link is still full");
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

/// A firewall that lets RTSP through and no datagram of media, and tells nobody.
fn silent_firewall() -> String {
    format!(
        "table ip wmrelay {{
  counter media {{ }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    tcp dport 8554 accept
    tcp sport 8554 ct state established accept
    ip saddr {SERVER} ip daddr {CLIENT} udp dport 1024-1123 counter name media drop
  }}
}}"
    )
}

/// A daemon that serves RTSP behind it.
#[track_caller]
fn behind_silence(network: &Network) -> Daemon {
    let settings = "[udp]\nclient_ports = \"1024-1123\"\n";
    Launch::new(settings).in_namespace(network.server()).listen(LISTEN).rtsp("10.77.1.1:8554").start()
}

/// What FFmpeg does: by itself it waits for ever. Told a timeout, it says PAUSE, sets up anew on the same connection over TCP, and plays.
#[test]
fn ffmpeg_behind_a_firewall_that_drops_udp_goes_over_to_tcp_on_the_same_connection_once_it_has_a_timeout() {
    let needs = [Root, Program("ip"), Program("nft"), Program("bash"), Program("ffmpeg")];
    if !ready("ffmpeg_behind_a_firewall_that_drops_udp_goes_over_to_tcp_on_the_same_connection_once_it_has_a_timeout", &needs) {
        return;
    }
    let network = Network::new(&silent_firewall());
    let _daemon = behind_silence(&network);
    let metric = |name: &str, labels: &[(&str, &str)]| sum_of(&network.get_at_server(9755, "/metrics"), name, labels);
    let start = |options: &[&str]| {
        let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        arguments.extend(ffmpeg_arguments(&format!("rtsp://{SERVER}:8554/demo"), 3));
        Process::start(network.client_command("ffmpeg", &arguments))
    };
    let viewers = || ["udp", "tcp"].map(|transport| metric("wmrelay_viewers", &[("transport", transport)]));
    let mut patient = start(&["-min_port", "1024", "-max_port", "1070"]);
    wait_until("a play over UDP", MINUTE, || viewers() == [1.0, 0.0]);
    // Microseconds.
    let told = start(&["-timeout", "5000000", "-min_port", "1080", "-max_port", "1122"]);
    wait_until("another play over UDP", MINUTE, || viewers() == [2.0, 0.0]);
    wait_until("a play over TCP", MINUTE, || viewers() == [1.0, 1.0]);
    let done = told.finish(MINUTE);
    assert!(done.status.success(), "{}", done.stderr);
    assert!(done.stderr.contains("UDP timeout, retrying with TCP"), "{}", done.stderr);
    assert!(of_stream(&frames(&done.stdout), video_stream(&done.stdout)).len() >= 20, "{}", done.stderr);
    assert!(patient.runs() && frames(&patient.stdout()).is_empty(), "it played: {}", patient.stderr());
    assert_eq!(metric("wmrelay_sessions_total", &[("protocol", "rtsp")]), 2.0, "a connection each");
    let joins = ["udp", "tcp"].map(|transport| metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", transport)]));
    assert_eq!(joins, [2.0, 0.0], "a viewer joins once, whatever it changes to");
    assert_eq!(metric("wmrelay_transport_fallbacks_total", &[]), 0.0, "we refused nothing");
    assert!(network.counted("media") > 0, "nothing was dropped");
}

/// What GStreamer does: five seconds without a datagram, then it ends its session, comes back on another connection for TCP, and plays.
#[test]
fn gstreamer_behind_a_firewall_that_drops_udp_comes_back_over_tcp() {
    let needs = [&[Root, Program("ip"), Program("nft"), Program("bash")], GSTREAMER].concat();
    if !ready("gstreamer_behind_a_firewall_that_drops_udp_comes_back_over_tcp", &needs) {
        return;
    }
    let network = Network::new(&silent_firewall());
    let daemon = behind_silence(&network);
    let metric = |name: &str, labels: &[(&str, &str)]| sum_of(&network.get_at_server(9755, "/metrics"), name, labels);
    let out = daemon.folder().join("dump");
    let pipeline = format!(
        "-q rtspsrc location=rtsp://{SERVER}:8554/demo port-range=1024-1123 ! rtpasfdepay ! filesink buffer-mode=unbuffered location={}",
        out.display()
    );
    let mut gstreamer = Process::start(network.client_command("gst-launch-1.0", &pipeline.split(' ').collect::<Vec<_>>()));
    wait_until("a play over UDP", MINUTE, || metric("wmrelay_viewers", &[("transport", "udp")]) == 1.0);
    wait_until("a play over TCP", MINUTE, || metric("wmrelay_viewers", &[("transport", "tcp")]) == 1.0);
    wait_until("media", MINUTE, || {
        assert!(gstreamer.runs(), "{}", gstreamer.stderr());
        std::fs::metadata(&out).is_ok_and(|metadata| metadata.len() > 50_000)
    });
    assert_eq!(metric("wmrelay_viewers", &[("transport", "udp")]), 0.0);
    assert_eq!(metric("wmrelay_port_leases", &[("state", "leased")]), 0.0, "the ports are given back");
    assert_eq!(metric("wmrelay_sessions_total", &[("protocol", "rtsp")]), 2.0, "another connection");
    assert_eq!(metric("wmrelay_transport_fallbacks_total", &[]), 0.0, "we refused nothing");
    assert!(network.counted("media") > 0, "nothing was dropped");
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
