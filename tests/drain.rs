//! Draining: who comes is sent to another daemon, who watches goes on until the time is over; taken back; and behind SIGTERM.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::Need::Program;
use support::daemon::{Daemon, Launch, http_get};
use support::gstreamer::{GSTREAMER, Transport, pictures_to, wait_for_pictures};
use support::player::{Vlc, ffmpeg, ffmpeg_with, frames, wait_for_frames};
use support::process::send_signal;
use support::publisher::clip;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, stays, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// A publishing point `cam` with picture and sound.
fn cam() -> Daemon {
    let daemon =
        Daemon::start(format!("[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"file\", path = {:?} }}\n", clip()));
    wait_for_source(&daemon, "cam");
    daemon
}

/// Where a daemon takes viewers of every protocol.
fn place(daemon: &Daemon) -> String {
    format!("mms://{}", daemon.http)
}

#[track_caller]
fn drain(daemon: &Daemon, arguments: &[&str]) -> String {
    let (said, code) = daemon.command(&[&["drain"], arguments].concat());
    assert_eq!(code, Some(0), "{said}");
    said
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_str(&daemon.command(&["status", "--json"]).0).unwrap()
}

/// Our own player, for a second; its report, or what it says where it does not play.
fn play(url: &str) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let output = command.args(["play", url, "--seconds", "1", "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn who_comes_plays_from_the_second_by_every_protocol() {
    let (first, second) = (Daemon::start(""), Daemon::start(""));
    let watching = Viewer::tcp(first.mms, "demo");
    watching.wait_for_packets(5, LIMIT);
    let said = drain(&first, &["--redirect", &place(&second)]);
    assert!(said.contains(&format!("sent to {}", place(&second))) && said.contains("those who watch finish"), "{said}");
    assert_eq!(http_get(first.admin, "/readyz"), (503, "draining\n".into()));
    let state = status(&first);
    assert_eq!((state["state"].as_str(), &state["drain"]["left_s"]), (Some("draining"), &Value::Null), "{state}");

    for (scheme, port) in
        [("mms", first.mms), ("mmst", first.mms), ("mmsh", first.http), ("http", first.http), ("rtsp", first.rtsp)]
    {
        let report = play(&format!("{scheme}://{port}/demo")).unwrap_or_else(|error| panic!("{scheme}: {error}"));
        let landed = report["url"].as_str().unwrap_or_default().contains(&second.http.to_string());
        assert!(landed && report["packets"].as_u64() > Some(0), "{scheme}: {report}");
    }
    assert_eq!(first.metric("wmrelay_redirects_total", &[]), 5.0);
    // A playlist is asked for where the stream is.
    let (code, _) = http_get(first.http, "/demo.asx");
    assert_eq!(code, 302);
    watching.assert_undisturbed();

    assert_eq!(drain(&first, &["--cancel"]), "new viewers are taken again\n");
    assert_eq!((http_get(first.admin, "/readyz").0, status(&first)["state"].as_str()), (200, Some("serving")));
    let report = play(&first.url("mms", "demo")).unwrap();
    assert!(report["url"].as_str().unwrap().contains(&first.mms.to_string()), "{report}");
    assert_eq!(first.command(&["drain", "--cancel"]).1, Some(3));
}

/// Players over HTTP ask for the description on one connection, and play on the next.
#[test]
fn a_session_over_http_that_has_begun_goes_on() {
    let first = Daemon::start("");
    let ask = |pragmas: &str| {
        let mut stream = TcpStream::connect_timeout(&first.http, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let head = format!("GET /demo HTTP/1.1\r\nHost: a\r\nUser-Agent: NSPlayer/9.0.0.3250\r\nPragma: {pragmas}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            answer.push(byte[0]);
        }
        String::from_utf8(answer).unwrap()
    };
    let describe = "no-cache,rate=1.000,stream-time=0,xClientGUID={3300AD50-2C39-46C0-AE0A-70B64F321A80}";
    let described = ask(describe);
    let id: String = described.split_once("client-id=").unwrap().1.chars().take_while(char::is_ascii_digit).collect();
    drain(&first, &["--redirect", "mms://b.example/old"]);
    let played = ask(&format!("no-cache,rate=1.000,client-id={id},xPlayStrm=1"));
    assert!(played.starts_with("HTTP/1.1 200 "), "{played}");
    let sent_on = ask(describe);
    assert!(sent_on.starts_with("HTTP/1.1 302 ") && sent_on.contains("Location: http://b.example/old/demo\r\n"), "{sent_on}");
}

#[test]
fn more_time_leaves_the_redirect_and_nobody_is_sent_in_a_circle() {
    let (first, second) = (Daemon::start(""), Daemon::start(""));
    for port in [first.mms, first.http, first.rtsp] {
        let (said, code) = first.command(&["drain", "--redirect", &format!("mms://localhost:{}", port.port())]);
        assert!(code == Some(1) && said.contains(&format!("leads back to this daemon, which listens on {port}")), "{said}");
    }
    assert_eq!(status(&first)["state"], "serving");
    drain(&first, &["--redirect", &place(&second), "--timeout", "50"]);
    let said = drain(&first, &["--timeout", "100"]);
    assert!(said.contains(&format!("sent to {}", place(&second))), "{said}");
    let said = drain(&first, &["--redirect", "mms://b.example"]);
    assert!(said.contains("sent to mms://b.example") && status(&first)["drain"]["left_s"].as_u64() > Some(50), "{said}");
}

#[test]
fn ffmpeg_follows_over_http_and_rtsp() {
    if !ready("ffmpeg_follows_over_http_and_rtsp", &[Program("ffmpeg")]) {
        return;
    }
    let (first, second) = (cam(), cam());
    drain(&first, &["--redirect", &place(&second)]);
    for (options, url) in [
        (&[][..], format!("mmsh://{}/cam", first.http)),
        (&[][..], format!("http://{}/cam", first.http)),
        (&["-rtsp_transport", "tcp"][..], first.rtsp_url("rtsp", "cam")),
    ] {
        let done = ffmpeg_with(options, &url, 2).finish(LIMIT);
        assert!(frames(&done.stdout).len() > 20, "{url}: {}", done.stderr);
    }
    assert_eq!(first.metric("wmrelay_joins_total", &[]), 0.0);
}

#[test]
fn gstreamer_follows_over_rtsp() {
    if !ready("gstreamer_follows_over_rtsp", GSTREAMER) {
        return;
    }
    let (first, second) = (cam(), cam());
    drain(&first, &["--redirect", &place(&second)]);
    let file = first.folder().join("pictures");
    let mut player = pictures_to(&first.rtsp_url("rtsp", "cam"), Transport::Tcp, &file);
    wait_for_pictures(&mut player, &file, 20, LIMIT);
    assert_eq!(first.metric("wmrelay_joins_total", &[]), 0.0);
}

#[test]
fn vlc_follows_over_http() {
    if !ready("vlc_follows_over_http", &[Program("cvlc"), Program("ffmpeg")]) {
        return;
    }
    let (first, second) = (cam(), cam());
    drain(&first, &["--redirect", &place(&second)]);
    for url in [format!("mmsh://{}/cam", first.http), format!("http://{}/cam", first.http)] {
        Vlc::play(&url).wait_for_pictures(20, LIMIT);
    }
    assert_eq!(first.metric("wmrelay_joins_total", &[]), 0.0);
}

#[test]
fn who_watches_goes_on_until_the_time_is_over_and_sees_the_end() {
    if !ready("who_watches_goes_on_until_the_time_is_over_and_sees_the_end", &[Program("ffmpeg")]) {
        return;
    }
    let first = cam();
    let over_tcp = Viewer::tcp(first.mms, "cam");
    let over_udp = Viewer::udp(first.mms, "cam", 4461, None);
    let mut players = [
        ffmpeg(&format!("mmsh://{}/cam", first.http), 0),
        ffmpeg_with(&["-rtsp_transport", "tcp"], &first.rtsp_url("rtsp", "cam"), 0),
    ];
    for player in &mut players {
        wait_for_frames(player, 5, LIMIT);
    }
    over_udp.wait_for_packets(5, LIMIT);
    drain(&first, &["--timeout", "4"]);
    let refused = play(&first.url("mms", "cam")).unwrap_err();
    assert!(!refused.is_empty());
    for (scheme, port) in [("http", first.http), ("rtsp", first.rtsp)] {
        play(&format!("{scheme}://{port}/cam")).unwrap_err();
    }
    // They go on, which packets tell: of 4 s some are left in any case.
    over_tcp.wait_for_packets(20, LIMIT);
    over_udp.wait_for_packets(20, LIMIT);
    assert!(over_tcp.ended().is_none() && status(&first)["drain"]["over"] == false);

    for viewer in [&over_tcp, &over_udp] {
        let end = wait_for("the end of the stream", LIMIT, || viewer.ended());
        assert!(end.contains("end of stream"), "{end}");
    }
    for player in players {
        let done = player.finish(LIMIT);
        assert!(done.status.success(), "{}", done.stderr);
    }
    wait_until("nobody is left", LIMIT, || first.command(&["viewers"]).0.contains("nobody"));
    // The daemon stays, without viewers, until it is told otherwise.
    let state = status(&first);
    assert_eq!((state["state"].as_str(), &state["drain"]["over"]), (Some("draining"), &Value::Bool(true)), "{state}");
    drain(&first, &["--cancel"]);
    Viewer::tcp(first.mms, "cam").wait_for_packets(5, LIMIT);
}

#[test]
fn sigterm_lets_them_finish_and_a_second_one_does_not() {
    let second = Daemon::start("");
    let settings = format!("[drain]\ntimeout_s = 600\nredirect = \"{}\"\n", place(&second));
    // What systemd would hear.
    let folder = tempfile::tempdir().unwrap();
    let systemd = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    systemd.set_read_timeout(Some(LIMIT)).unwrap();
    let hears = |words: &str| {
        wait_until(words, LIMIT, || {
            let mut bytes = [0; 4096];
            let count = systemd.recv(&mut bytes).unwrap_or_else(|error| panic!("{words}: {error}"));
            String::from_utf8_lossy(&bytes[..count]).contains(words)
        });
    };
    let mut first = Launch::new(settings.as_str()).environment("NOTIFY_SOCKET", folder.path().join("notify")).start();
    let watching = Viewer::tcp(first.mms, "demo");
    watching.wait_for_packets(5, LIMIT);
    send_signal(first.id(), "TERM");
    wait_until("it drains", LIMIT, || http_get(first.admin, "/readyz").1 == "draining\n");
    let report = play(&first.url("mms", "demo")).unwrap();
    assert!(report["url"].as_str().unwrap().contains(&second.http.to_string()), "{report}");
    watching.assert_undisturbed();
    assert_eq!(status(&first)["drain"]["exit"], true);
    // Whatever an operator wishes now, it ends.
    let (said, code) = first.command(&["drain", "--cancel"]);
    assert!(code != Some(0) && said.contains("told to end"), "{said}");
    drain(&first, &["--redirect", &place(&second), "--timeout", "500"]);
    let state = status(&first);
    assert_eq!(state["drain"]["exit"], true);
    assert!(state["drain"]["left_s"].as_u64().is_some_and(|left_s| left_s <= 500), "{state}");
    hears("EXTEND_TIMEOUT_USEC=15000000");
    hears("STATUS=Draining, no new viewers: 1 sessions");
    send_signal(first.id(), "TERM");
    hears("STOPPING=1");
    // As long as the unit's TimeoutStopSec.
    hears("EXTEND_TIMEOUT_USEC=20000000");
    assert!(wait_for("the end of the stream", LIMIT, || watching.ended()).contains("end of stream"));
    wait_until("the daemon ends", LIMIT, || !first.runs());

    // It also ends when the last one has left.
    let mut first = Launch::new(settings).start();
    let watching = Viewer::tcp(first.mms, "demo");
    watching.wait_for_packets(5, LIMIT);
    send_signal(first.id(), "TERM");
    wait_until("it drains", LIMIT, || http_get(first.admin, "/readyz").1 == "draining\n");
    stays("the daemon waits for the viewer", Duration::from_secs(2), || first.runs());
    drop(watching);
    wait_until("the daemon ends", LIMIT, || !first.runs());
}

/// Over UDP the end is told a moment behind the last packet: a daemon that ends behind its drain must not be quicker.
#[test]
fn a_drain_that_ends_the_daemon_tells_everybody_the_end_first() {
    type Order = fn(&Daemon);
    let orders: [(&str, Order, &str); 3] = [
        ("", |daemon| drop(drain(daemon, &["--exit", "--timeout", "2"])), "drain --exit"),
        ("[drain]\ntimeout_s = 2\n", |daemon| send_signal(daemon.id(), "TERM"), "SIGTERM"),
        (
            "[drain]\ntimeout_s = 600\n",
            |daemon| {
                send_signal(daemon.id(), "TERM");
                wait_until("it drains", LIMIT, || http_get(daemon.admin, "/readyz").1 == "draining\n");
                drain(daemon, &["--timeout", "2"]);
            },
            "SIGTERM, and less time then",
        ),
    ];
    for (settings, order, what) in orders {
        let mut daemon = Daemon::start(settings);
        let mut viewers = vec![Viewer::tcp(daemon.mms, "demo")];
        viewers.extend((4471..4474).map(|port| Viewer::udp(daemon.mms, "demo", port, None)));
        viewers.iter().for_each(|viewer| viewer.wait_for_packets(5, LIMIT));
        order(&daemon);
        for viewer in &viewers {
            let end = wait_for("the end of the stream", LIMIT, || viewer.ended());
            assert_eq!(end, "end of stream, 0x0", "{what}");
        }
        wait_until("the daemon ends", LIMIT, || !daemon.runs());
        assert!(!daemon.log().contains("did not leave in time"), "{}", daemon.log());
    }
}

#[test]
fn a_relay_that_pulls_follows() {
    let (first, second) = (Daemon::start(""), Daemon::start(""));
    drain(&first, &["--redirect", &place(&second)]);
    let points: String = [("mms", first.mms), ("http", first.http), ("rtsp", first.rtsp)]
        .iter()
        .map(|(scheme, at)| {
            format!("[[publishing_point]]\nname = \"{scheme}\"\nsource = {{ type = \"pull\", url = \"{scheme}://{at}/demo\" }}\n")
        })
        .collect();
    let third = Daemon::start(points);
    for scheme in ["mms", "http", "rtsp"] {
        wait_for_source(&third, scheme);
        Viewer::tcp(third.mms, scheme).wait_for_packets(5, LIMIT);
    }
    assert_eq!(first.metric("wmrelay_joins_total", &[]), 0.0);
}

#[test]
fn events_tell_of_it() {
    let daemon = Daemon::start("");
    let socket = daemon.folder().join("control.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut heard = String::new();
    let mut read_until = |event: &str| {
        while !heard.contains(event) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    read_until("200 OK");
    drain(&daemon, &[]);
    read_until("event: drain_begun");
    read_until("event: drain_over");
    drain(&daemon, &["--cancel"]);
    read_until("event: drain_cancelled");
    let (said, code) = daemon.command(&["drain", "--redirect", "ftp://b"]);
    assert!(code == Some(2) && said.contains("nothing that viewers watch by"), "{said}");
}
