//! Streams pulled, played and counted over RTSP: of other daemons, and of a camera that is no Windows Media server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::Need::{self, Program};
use support::archive::{self, HASTE, assert_same, decoded, report};
use support::daemon::{Daemon, Launch};
use support::player::{self, assert_clip_over_and_over, frames, of_stream};
use support::process::{Process, send_signal};
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const LIMIT: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures and sound for ten seconds, with an index.
const INDEXED: &str = "vod-wmv2-wmav2-indexed.wmv";
const INDEXED_PACKETS: u64 = 94;
const DEMO: &str = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";

/// Settings of a daemon whose `cam` is pulled; `more` is added to its source.
fn pulled(url: &str, more: &str) -> String {
    format!("[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"pull\", url = \"{url}\"{more} }}\n")
}

/// A URL with the RTSP port.
fn rtsp_url(daemon: &Daemon, scheme: &str, name: &str) -> String {
    format!("{scheme}://{}/{name}", daemon.rtsp)
}

/// What `wmrelay play` reports of a URL, of which it writes nothing.
#[track_caller]
fn play(url: &str, arguments: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    report(&archive::play(url, &folder.path().join("x"), arguments).finish(MINUTE))
}

/// What `wmrelay play` says where there is nothing to play.
#[track_caller]
fn complaint(url: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let done = archive::play(url, &folder.path().join("x"), &[]).finish(MINUTE);
    assert!(!done.status.success(), "{}", done.stdout);
    done.stderr
}

#[test]
fn a_relay_of_a_relay_of_a_relay() {
    if !ready("a_relay_of_a_relay_of_a_relay", FFMPEG) {
        return;
    }
    let first = Daemon::start("[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n");
    let _publisher = support::publisher::ffmpeg_push("asf_stream", "POST", &first.publish_url("", "cam1"));
    wait_for_source(&first, "cam1");
    let second = Daemon::start(pulled(&rtsp_url(&first, "rtspt", "cam1"), ""));
    let third = Daemon::start(pulled(&rtsp_url(&second, "rtsp", "cam"), ""));
    wait_for_source(&third, "cam");
    let url = third.url("mmst", "cam");
    let decoded = player::ffmpeg(&url, 3).finish(MINUTE);
    let pictures = of_stream(&frames(&decoded.stdout), 0);
    assert!(pictures.len() >= 35, "{url}: {} pictures\n{}", pictures.len(), decoded.stderr);
    assert!(frames(&decoded.stdout).iter().any(|frame| frame.stream == 1), "{url}: no sound");
    // The packet of the key frame may begin with the picture before it, which nobody can decode.
    assert_clip_over_and_over(pictures[1..].iter().map(|frame| frame.md5.as_str()));
    let played = play(&rtsp_url(&third, "rtsp", "cam"), &["--seconds", "2"]);
    assert_eq!((&played["live"], &played["lost"]), (&true.into(), &0.into()), "{played}");
    for daemon in [&second, &third] {
        assert_eq!(daemon.metric("wmrelay_pull_connects_total", &[("point", "cam"), ("result", "failed")]), 0.0);
    }
    assert!(third.stop().success());
    wait_until("the goodbye", LIMIT, || second.metric("wmrelay_viewers", &[]) == 0.0);
}

#[test]
fn a_file_comes_whole_over_either_path() {
    if !ready("a_file_comes_whole_over_either_path", FFMPEG) {
        return;
    }
    let (daemon, root) = archive::archive(HASTE);
    let folder = tempfile::tempdir().unwrap();
    for (scheme, transport, ports) in [("rtspt", "tcp", "1024-1033"), ("rtspu", "udp", "2100-2103")] {
        let file = folder.path().join(scheme);
        let url = rtsp_url(&daemon, scheme, &format!("archive/{INDEXED}"));
        let played = report(&archive::play(&url, &file, &["--ports", ports]).finish(MINUTE));
        assert_eq!(played["transport"], transport, "{played}");
        assert_eq!((&played["packets"], &played["live"]), (&INDEXED_PACKETS.into(), &false.into()), "{played}");
        assert_eq!((&played["lost"], &played["ended_by"]), (&0.into(), &"the stream ended".into()), "{played}");
        assert_eq!(played["port"].as_u64(), (transport == "udp").then_some(2100), "{played}");
        assert_same(scheme, &decoded(&file), &decoded(&root.path().join(INDEXED)));
    }
}

#[test]
fn a_file_from_other_places() {
    let (daemon, _root) = archive::archive("");
    let url = rtsp_url(&daemon, "rtspt", &format!("archive/{INDEXED}"));
    let begins = |arguments: &[&str]| {
        let played = play(&url, &[arguments, &["--seconds", "2"]].concat());
        (played["first_key_presentation_ms"].as_i64().unwrap(), played)
    };
    let (ms, played) = begins(&["--start", "5"]);
    assert!((4000..=5000).contains(&ms), "{played}");
    let (ms, played) = begins(&["--packet", "40"]);
    assert!((2000..6000).contains(&ms), "{played}");
    let (ms, played) = begins(&["--offset", "150000"]);
    assert!((2000..6000).contains(&ms), "{played}");
    let played = play(&url, &["--seek-after", "1:8"]);
    let ms = played["first_key_presentation_ms"].as_i64().unwrap();
    assert!((6000..=8000).contains(&ms) && played["ended_by"] == "the stream ended", "{played}");
    let file = daemon.folder().join("sound.asf");
    report(&archive::play(&url, &file, &["--streams", "2"]).finish(MINUTE));
    assert!(std::fs::metadata(file).unwrap().len() > 10_000);
}

#[test]
fn udp_that_is_refused_is_no_reason_not_to_play() {
    let daemon = Daemon::start(DEMO);
    wait_for_source(&daemon, "demo");
    // Outside the ports that the server sends to.
    let ports = ["--ports", "40000-40019", "--seconds", "2"];
    let played = play(&rtsp_url(&daemon, "rtsp", "demo"), &ports);
    assert_eq!((&played["transport"], &played["udp_refused"]), (&"tcp".into(), &"the server refuses it".into()), "{played}");
    let folder = tempfile::tempdir().unwrap();
    let done = archive::play(&rtsp_url(&daemon, "rtspu", "demo"), &folder.path().join("x"), &ports).finish(MINUTE);
    assert!(done.stderr.contains("SETUP refused: 461"), "{}", done.stderr);
    assert!(complaint(&rtsp_url(&daemon, "rtsp", "none")).contains("DESCRIBE refused: 404"));
}

#[test]
fn an_upstream_that_is_killed_and_comes_back() {
    let mut first = Daemon::start(DEMO);
    let second = Daemon::start(pulled(&rtsp_url(&first, "rtspt", "demo"), ""));
    let viewer = Viewer::tcp(second.mms, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let address: &'static str = Box::leak(first.rtsp.to_string().into_boxed_str());
    send_signal(first.id(), "KILL");
    wait_until("the first is dead", LIMIT, || !first.runs());
    wait_until("the second notices", LIMIT, || second.metric("wmrelay_source_up", &[("point", "cam")]) == 0.0);
    let _again = Launch::new(DEMO).rtsp(address).start();
    wait_for_source(&second, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let seen = viewer.seen();
    assert_eq!((seen.ended, seen.missing, seen.backward, seen.time_backward), (None, 0, 0, 0));
}

#[test]
fn pulled_while_somebody_watches() {
    let upstream = Daemon::start(DEMO);
    let daemon = Daemon::start(pulled(&rtsp_url(&upstream, "rtspt", "demo"), ", start = \"watched\", linger_s = 1"));
    let viewers = || upstream.metric("wmrelay_viewers", &[]);
    for _ in 0..2 {
        let viewer = Viewer::tcp(daemon.mms, "cam");
        viewer.wait_for_packets(20, LIMIT);
        assert_eq!(viewers(), 1.0);
        drop(viewer);
        wait_until("the pull ends", LIMIT, || viewers() == 0.0);
    }
}

#[test]
fn a_file_pulled_begins_again() {
    let (upstream, _root) = archive::archive("");
    let url = rtsp_url(&upstream, "rtspt", &format!("archive/{INDEXED}"));
    let daemon = Daemon::start(pulled(&url, ""));
    let viewer = Viewer::tcp(daemon.mms, "cam");
    wait_until("the second lap", MINUTE, || daemon.log().contains("begins again"));
    viewer.wait_for_packets(20, LIMIT);
    let seen = viewer.seen();
    // Large packets are cut anew, which leaves a few numbers out where a lap ends.
    assert_eq!((seen.ended, seen.backward, seen.time_backward), (None, 0, 0));
}

#[test]
fn headers_that_change_are_followed() {
    let files = [support::media::data(INDEXED), support::media::data("audio-wmav2.wma")];
    let loops = format!("[[publishing_point]]\nname = \"loop\"\nsource = {{ type = \"file\", paths = {files:?} }}\n");
    let upstream = Daemon::start(loops);
    wait_for_source(&upstream, "loop");
    let over = |scheme: &str| Daemon::start(pulled(&rtsp_url(&upstream, scheme, "loop"), ""));
    let daemons = [over("rtspt"), over("rtspu")];
    for daemon in &daemons {
        wait_until("two changes", MINUTE, || daemon.log().matches("the stream changes").count() >= 2);
        assert_eq!(daemon.log().matches("connects").count(), 1, "{}", daemon.log());
    }
}

#[test]
fn with_user_and_password() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("viewers");
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    passwd.arg("passwd").arg(&users).args(["anna", "--realm", "studio"]);
    let mut passwd = passwd.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    passwd.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    assert!(passwd.wait().unwrap().success());
    let upstream = Daemon::start(format!("[users]\nviewers_file = {users:?}\n{DEMO}access = \"users\"\n"));
    wait_for_source(&upstream, "demo");
    let url = |login: &str| rtsp_url(&upstream, "rtspt", "demo").replace("//", &format!("//{login}"));
    let played = play(&url("anna:s3cret@"), &["--seconds", "1"]);
    assert!(played["packets"].as_u64().unwrap() > 0 && !played.to_string().contains("s3cret"), "{played}");
    assert!(complaint(&url("anna:wrong@")).contains("does not accept the user name"));
    assert!(complaint(&url("")).contains("wants a user name and a password"));
    let daemon = Daemon::start(pulled(&url("anna:s3cret@"), ""));
    wait_for_source(&daemon, "cam");
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
}

#[test]
fn a_folder_is_not_pulled_over_rtsp() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wmrelay.toml");
    let point = "[[publishing_point]]\nname = \"a/\"\nsource = { type = \"pull\", url = \"rtsp://192.0.2.1/b/\" }\n";
    std::fs::write(&file, point).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["check", "--config"]).arg(&file);
    let done = Process::start(command).finish(LIMIT);
    assert!(!done.status.success() && done.stderr.contains("no folder is pulled"), "{}{}", done.stdout, done.stderr);
}

#[test]
fn swarms() {
    let daemon = Daemon::start(DEMO);
    wait_for_source(&daemon, "demo");
    for (scheme, transport, more) in
        [("rtsp", "udp", &[][..]), ("rtspt", "tcp", &[]), ("rtspt", "tcp", &["--unread"]), ("rtspu", "udp", &["--unread"])]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        command.arg("swarm").arg(rtsp_url(&daemon, scheme, "demo")).args(["--viewers", "40", "--seconds", "2", "--json"]);
        let done = Process::start({
            command.args(["--addresses", "127.0.0.2-127.0.0.3"]).args(more);
            command
        })
        .finish(MINUTE);
        assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!((&report["transport"], &report["viewers_playing"]), (&transport.into(), &40.into()), "{report}");
        assert_eq!(report["measured"]["lost"], 0, "{report}");
        assert!(report["measured"]["packets"].as_u64().unwrap() > 400, "{report}");
        wait_until("the goodbye of all viewers", LIMIT, || daemon.metric("wmrelay_viewers", &[]) == 0.0);
    }
}

/// Lines of a camera's description.
const CAMERA: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=Camera\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n\
    a=rtpmap:96 H264/90000\r\na=control:track1\r\nm=audio 0 RTP/AVP 0\r\na=control:track2\r\n";

/// A camera for one connection after the other, on loopback. It knows TCP alone, and leaves one packet out.
fn camera() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // An error: the client has gone.
            let _ = serve_camera(stream);
        }
    });
    address
}

fn serve_camera(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut setups = 0;
    loop {
        let mut head = Vec::new();
        for line in lines.by_ref() {
            match line? {
                line if line.is_empty() => break,
                line => head.push(line),
            }
        }
        let Some(request) = head.first() else { return Ok(()) };
        let cseq = head.iter().find_map(|line| line.strip_prefix("CSeq: ")).unwrap_or("0");
        let is_udp = head.iter().any(|line| line.starts_with("Transport:") && line.contains("UDP"));
        let method = request.split(' ').next().unwrap_or_default();
        let (status, fields, body) = match method {
            "DESCRIBE" => ("200 OK", format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", CAMERA.len()), CAMERA),
            "SETUP" if is_udp => ("461 Unsupported Transport", String::new(), ""),
            "SETUP" => {
                setups += 1;
                (
                    "200 OK",
                    format!(
                        "Session: 12345678;timeout=60\r\nTransport: RTP/AVP/TCP;interleaved={}-{}\r\n",
                        setups * 2 - 2,
                        setups * 2 - 1
                    ),
                    "",
                )
            }
            _ => ("200 OK", String::new(), ""),
        };
        write!(stream, "RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{fields}\r\n{body}")?;
        if method == "PLAY" {
            for sequence in (1..=101_u16).filter(|sequence| *sequence != 50) {
                for channel in [0, 2] {
                    let mut frame = vec![b'$', channel, 0, 32, 0x80, 96];
                    frame.extend(sequence.to_be_bytes());
                    frame.resize(36, 0);
                    stream.write_all(&frame)?;
                }
            }
        }
        if method == "TEARDOWN" {
            return Ok(());
        }
    }
}

#[test]
fn a_camera_is_counted_and_not_relayed() {
    let url = format!("rtsp://{}/stream1", camera());
    let played = play(&url, &["--seconds", "2"]);
    assert_eq!((&played["transport"], &played["udp_refused"]), (&"tcp".into(), &"the server refuses it".into()), "{played}");
    let counts = ["packets", "bytes", "gaps", "lost", "headers"].map(|name| played[name].as_u64().unwrap());
    assert_eq!(counts, [200, 6400, 2, 2, 0], "{played}");
    let daemon = Daemon::start(pulled(&url, ""));
    wait_until("the refusal", LIMIT, || daemon.log().contains("no Windows Media stream"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.arg("swarm").arg(url.replace("rtsp:", "rtspt:")).args(["--viewers", "1", "--seconds", "0", "--json"]);
    let done = Process::start(command).finish(MINUTE);
    assert!(done.status.success() && done.stdout.contains("\"viewers_joined\":1"), "{}{}", done.stdout, done.stderr);
}
