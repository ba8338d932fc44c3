//! Hooks: programs and a web server hear when sources and viewers come and go.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use support::daemon::Daemon;
use support::process::children_of;
use support::viewer::{Viewer, wait_for_source};
use support::wait_until;

const LIMIT: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret of the tests";

fn toml(argv: &[&str]) -> String {
    serde_json::to_string(argv).unwrap() // a JSON array of strings is a TOML one
}

#[test]
fn programs_hear_each_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let (script, told) = (folder.path().join("hook"), folder.path().join("told"));
    let text = format!(
        "cd '{}'\nprintf '%s|' \"$1\" \"$WMRELAY_EVENT\" \"$WMRELAY_POINT\" \"$WMRELAY_OF\" \"$WMRELAY_SOURCE\" \"$WMRELAY_VIEWERS\" >> told\necho >> told\n",
        folder.path().display()
    );
    std::fs::write(&script, text).unwrap();
    let program = toml(&["sh", script.to_str().unwrap(), "$(touch x)`touch x`;touch x"]);
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/demo.asf");
    let settings = format!(
        "[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\nhooks = {{ on_ready = [], on_last_viewer = {} }}\n\
         [[publishing_point]]\nname = \"cam-*\"\nsource = {{ type = \"exec\", linger_s = 0, argv = {} }}\n\
         [hooks]\non_ready = {program}\non_gone = {program}\non_first_viewer = {program}\non_last_viewer = {program}\n",
        toml(&["/bin/echo", "gone:", "$(touch x)"]),
        toml(&["sh", "-c", "cat \"$1\"; exec sleep 1000", "sh", demo.to_str().unwrap(), "{1}"]),
    );
    let daemon = Daemon::start(settings);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let one = Viewer::tcp(daemon.mms, "CAM-a $(touch x)");
    one.wait_for_packets(2, LIMIT);
    let two = Viewer::tcp(daemon.mms, "cam-a $(touch x)");
    two.wait_for_packets(2, LIMIT);
    drop((one, two));
    wait_until("the events of the template", LIMIT, || lines().len() >= 4);
    let line = |event: &str, viewers: u32| format!("$(touch x)`touch x`;touch x|{event}|cam-a $(touch x)|cam-*|exec|{viewers}|");
    assert_eq!(lines(), [line("first_viewer", 1), line("ready", 1), line("last_viewer", 0), line("gone", 0)]);
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(2, LIMIT);
    drop(viewer);
    wait_until("the last event of the demo", LIMIT, || daemon.log().contains("gone: $(touch x)"));
    wait_until("the first event of the demo", LIMIT, || lines().len() == 5);
    assert_eq!(lines()[4], "$(touch x)`touch x`;touch x|first_viewer|demo|demo|demo|1|");
    assert_eq!(daemon.metric("wmrelay_hooks_total", &[("kind", "command"), ("result", "ok")]), 6.0);
    assert!(daemon.stop().success());
    // What the end brings is told too: the demo is gone.
    assert_eq!(lines().len(), 6, "{:?}", lines());
    assert!(lines()[5].contains("|gone|demo|"));
    assert!(!folder.path().join("x").exists() && !Path::new("x").exists());
}

#[test]
fn a_program_that_hangs_is_killed_and_disturbs_nobody() {
    let hangs = toml(&["sh", "-c", "trap '' TERM; sleep 1000 & wait"]);
    let daemon = Daemon::start(format!(
        "[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n\
         [hooks]\ntimeout_s = 1\non_ready = {hangs}\non_first_viewer = {hangs}\n"
    ));
    wait_for_source(&daemon, "demo");
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(20, LIMIT);
    let killed = || daemon.metric("wmrelay_hooks_total", &[("kind", "command"), ("result", "timeout")]);
    wait_until("both are killed", LIMIT, || killed() == 2.0);
    wait_until("nothing is left of them", LIMIT, || children_of(daemon.id()).is_empty());
    viewer.assert_undisturbed();
    assert!(daemon.log().contains("did not end within 1 s and was killed"));
}

#[test]
fn a_web_server_that_was_down_hears_all_in_order() {
    // An address that nobody else has; its port is free until the server is up.
    let address = TcpListener::bind((Ipv4Addr::new(127, 77, 3, 9), 0)).unwrap().local_addr().unwrap();
    let daemon = Daemon::start(format!(
        "[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n\
         [hooks]\nurl = \"http://{address}/hook\"\nsecret = \"{SECRET}\"\n"
    ));
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(2, LIMIT);
    drop(viewer);
    let count = |result: &str| daemon.metric("wmrelay_hooks_total", &[("kind", "webhook"), ("result", result)]);
    wait_until("it is tried", LIMIT, || count("retried") >= 1.0);
    assert_eq!(count("ok"), 0.0);
    let events = served(address, 3);
    let words: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(words.iter().filter(|word| *word == "ready").count(), 1);
    let of_viewers: Vec<_> = words.iter().filter(|word| *word != "ready").collect();
    assert_eq!(of_viewers, ["first_viewer", "last_viewer"]);
    let numbers: Vec<u64> =
        events.iter().map(|event| event["id"].as_str().unwrap().split_once('-').unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    wait_until("all are taken", LIMIT, || count("ok") == 3.0);
    assert!(!daemon.log().contains(SECRET));
}

/// Serves so many requests; their bodies, after a look at their signatures.
#[track_caller]
fn served(address: SocketAddr, count: usize) -> Vec<serde_json::Value> {
    let listener = TcpListener::bind(address).unwrap();
    (0..count)
        .map(|_| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.ends_with(b"}") {
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0, "the request is not whole");
                request.extend_from_slice(&buffer[..count]);
            }
            let request = String::from_utf8(request).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let signature = head.lines().find_map(|line| line.strip_prefix("Wmrelay-Signature: t=")).unwrap();
            let (time, digest) = signature.split_once(",sha256=").unwrap();
            let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            let wanted = mac.chain_update(format!("{time}.{body}")).finalize().into_bytes();
            assert_eq!(digest, wanted.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            serde_json::from_str(body).unwrap()
        })
        .collect()
}
