//! Streams pulled over HTTP: from other daemons, from VLC, from servers that know nothing of streaming.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::archive::{self, HASTE, report};
use support::daemon::{Daemon, Launch};
use support::media::{data, data_start, repeated};
use support::player::{self, assert_clip_over_and_over, frames, of_stream, open_to_all};
use support::process::{Process, as_nobody, send_signal};
use support::publisher::ffmpeg_push;
use support::viewer::{Viewer, wait_for_source};
use support::web::{WebServer, endless, respond};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const LIMIT: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures and sound for ten seconds, with an index.
const INDEXED: &str = "vod-wmv2-wmav2-indexed.wmv";

/// Settings of a daemon whose `cam` is pulled; `more` is added to its source.
fn pulled(url: &str, more: &str) -> String {
    format!("[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"pull\", url = \"{url}\"{more} }}\n")
}

/// A URL with the HTTP port.
fn http_url(daemon: &Daemon, scheme: &str, name: &str) -> String {
    format!("{scheme}://{}/{name}", daemon.http)
}

/// What `wmrelay play` reports of a URL.
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
    let _publisher = ffmpeg_push("asf_stream", "POST", &first.publish_url("", "cam1"));
    wait_for_source(&first, "cam1");
    let folder = tempfile::tempdir().unwrap();
    let visits = folder.path().join("access.log");
    let source = pulled(&http_url(&first, "mmsh", "cam1?k=hush"), "");
    let second = Daemon::start(format!("[access_log]\nfile = {visits:?}\n{source}"));
    // Any protocol on any port.
    let third = Daemon::start(pulled(&second.url("http", "cam"), ""));
    wait_for_source(&third, "cam");
    for url in [third.url("mmst", "cam"), http_url(&third, "mmsh", "cam")] {
        let decoded = player::ffmpeg(&url, 3).finish(MINUTE);
        let pictures = of_stream(&frames(&decoded.stdout), 0);
        assert!(pictures.len() >= 35, "{url}: {} pictures\n{}", pictures.len(), decoded.stderr);
        assert!(frames(&decoded.stdout).iter().any(|frame| frame.stream == 1), "{url}: no sound");
        // The packet of the key frame may begin with the picture before it, which nobody can decode.
        assert_clip_over_and_over(pictures[1..].iter().map(|frame| frame.md5.as_str()));
    }
    let played = play(&http_url(&third, "http", "cam"), &["--seconds", "2"]);
    assert_eq!((&played["transport"], &played["live"]), (&"http".into(), &true.into()), "{played}");
    for daemon in [&second, &third] {
        assert_eq!(daemon.metric("wmrelay_pull_connects_total", &[("point", "cam"), ("result", "failed")]), 0.0);
    }
    // Access keys are not told; who leaves says goodbye.
    assert!(second.log().contains("/cam1?…") && !second.log().contains("hush"), "{}", second.log());
    assert!(third.stop().success());
    assert!(second.stop().success());
    // 408 is who leaves without a word.
    let visits = std::fs::read_to_string(visits).unwrap();
    let goodbye = |line: &str| line.contains(" 200 ") && line.contains("NSServer/9.0.0.3171") && line.contains(" http TCP ");
    assert!(visits.lines().any(goodbye), "the third tells the second how it was: {visits}");
}

#[test]
fn an_upstream_that_is_killed_and_comes_back() {
    let mut first = Daemon::start("");
    let second = Daemon::start(pulled(&http_url(&first, "mmsh", "demo"), ""));
    let viewer = Viewer::tcp(second.mms, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let address: &'static str = Box::leak(first.http.to_string().into_boxed_str());
    send_signal(first.id(), "KILL");
    wait_until("the first is dead", LIMIT, || !first.runs());
    wait_until("the second notices", LIMIT, || second.metric("wmrelay_source_up", &[("point", "cam")]) == 0.0);
    let again = Launch::new("").listen(["127.0.0.1:0", address, "127.0.0.1:0"]).start();
    wait_for_source(&second, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let seen = viewer.seen();
    assert_eq!((seen.ended, seen.missing, seen.backward, seen.time_backward), (None, 0, 0, 0));
    assert!(second.metric("wmrelay_source_restarts_total", &[("point", "cam")]) >= 1.0);
    assert_eq!(again.metric("wmrelay_viewers", &[]), 1.0);
}

#[test]
fn pulled_while_somebody_watches() {
    let upstream = Daemon::start("");
    let daemon = Daemon::start(pulled(&http_url(&upstream, "http", "demo"), ", start = \"watched\", linger_s = 1"));
    let viewers = || upstream.metric("wmrelay_viewers", &[]);
    for _ in 0..2 {
        let viewer = Viewer::tcp(daemon.mms, "cam");
        viewer.wait_for_packets(20, LIMIT);
        assert_eq!(viewers(), 1.0);
        drop(viewer);
        wait_until("the pull ends", LIMIT, || viewers() == 0.0);
    }
}

/// VLC as a server of Windows Media over HTTP, at an address of its own.
fn vlc_server(film: &Path, home: &Path, address: SocketAddr) -> Process {
    let mut command = as_nobody("cvlc", home);
    command.args(["-I", "dummy", "--no-color"]).arg(film).arg("--sout");
    let codecs = "vcodec=WMV2,vb=400,venc=ffmpeg{keyint=15},acodec=wma2,ab=64,channels=1,samplerate=44100";
    command.arg(format!("#transcode{{{codecs}}}:std{{access=mmsh,mux=asfh,dst={address}/live}}"));
    Process::start(command)
}

#[test]
fn vlc_as_upstream() {
    if !ready("vlc_as_upstream", &[Program("ffmpeg"), Program("cvlc")]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    open_to_all(home.path());
    let film = home.path().join("film.wmv");
    repeated(18, &film);
    std::fs::set_permissions(&film, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let [.., high, low] = std::process::id().to_be_bytes();
    let free = TcpListener::bind((std::net::Ipv4Addr::new(127, high, low, 90), 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let daemon = Daemon::start(pulled(&format!("mmsh://{address}/live"), ""));
    for lap in 0..2 {
        let mut vlc = vlc_server(&film, home.path(), address);
        wait_for_source(&daemon, "cam");
        // As they came: 10 pictures a second in the film, none missing between the first and the last. VLC's encoder
        // leaves pictures out itself when the machine is busy, so one whole stretch of three is asked for.
        let longest_gap = || {
            let mut relayed = player::ffmpeg(&daemon.url("mmst", "cam"), 0);
            let pictures = player::wait_for_frames(&mut relayed, 60, MINUTE);
            let sound = of_stream(&frames(&relayed.stdout()), 1).len();
            assert!(sound > 20, "lap {lap}: {} pictures, {sound} sounds\n{}", pictures.len(), relayed.stderr());
            let times: Vec<f64> = pictures[5..].iter().map(|frame| frame.time).collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
        };
        let whole = (0..3).any(|_| longest_gap() < 0.25);
        assert!(vlc.runs() && whole, "lap {lap}: pictures are missing from each of three stretches");
        if lap == 0 {
            send_signal(vlc.id(), "KILL");
            wait_until("VLC is dead", LIMIT, || !vlc.runs());
            wait_until("the daemon notices", LIMIT, || daemon.metric("wmrelay_source_up", &[("point", "cam")]) == 0.0);
        }
    }
    assert!(daemon.log().contains("plays transport=\"http\" live=true"), "{}", daemon.log());
}

#[test]
fn files_by_http_are_files_by_mms() {
    let (daemon, root) = archive::archive(HASTE);
    let folder = tempfile::tempdir().unwrap();
    let urls = || {
        let name = format!("archive/{INDEXED}");
        [daemon.url("mmst", &name), http_url(&daemon, "mmsh", &name), http_url(&daemon, "http", &name)]
    };
    let written = urls().map(|url| {
        let file = folder.path().join("written.wmv");
        report(&archive::play(&url, &file, &[]).finish(MINUTE));
        std::fs::read(file).unwrap()
    });
    let (start, size) = data_start(&root.path().join(INDEXED));
    assert_eq!(written[0].len() as u64, start + 94 * size);
    assert!(written[0] == written[1] && written[0] == written[2], "the same bytes by either protocol");
    for place in [&["--start", "3.2"][..], &["--packet", "50"], &["--offset", "90000"], &["--start", "7.9", "--streams", "1"]] {
        let [there, here, too] = urls().map(|url| play(&url, &[place, &["--seconds", "1"]].concat()));
        for fact in ["live", "first_location", "first_send_time_ms", "first_key_presentation_ms", "duration_s", "packet_count"] {
            assert_eq!((&there[fact], &there[fact]), (&here[fact], &too[fact]), "{place:?}: {fact}\n{there}\n{here}");
        }
    }
    let [there, here, _] = urls().map(|url| play(&url, &["--seek-after", "0:5", "--seconds", "2"]));
    assert_eq!(here["first_location"], there["first_location"], "{here}");
    assert!(here["first_location"].as_u64().unwrap() > 20, "{here}");
    // Pulled: laps without a seam.
    let relay = Daemon::start(pulled(&urls()[1], ""));
    let viewer = Viewer::tcp(relay.mms, "cam");
    wait_until("two laps", MINUTE, || relay.log().matches("played to its end, begins again").count() >= 2);
    let seen = viewer.seen();
    // Large packets are cut anew, which leaves a few numbers out where a lap ends.
    assert_eq!((seen.ended, seen.backward, seen.time_backward), (None, 0, 0));
}

#[test]
fn a_folder_is_mirrored_by_http() {
    let demo = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";
    let (upstream, _root) = archive::archive(&format!("{HASTE}{demo}"));
    let url = http_url(&upstream, "http", "");
    let daemon = Daemon::start(format!(
        "{HASTE}[[publishing_point]]\nname = \"mirror/\"\nsource = {{ type = \"pull\", url = \"{url}\", linger_s = 1, start = \"watched\" }}\n"
    ));
    let one = Viewer::tcp(daemon.mms, "mirror/demo");
    one.wait_for_packets(10, LIMIT);
    let two = Viewer::tcp(daemon.mms, "mirror/demo");
    two.wait_for_packets(10, LIMIT);
    assert_eq!(upstream.metric("wmrelay_viewers", &[]), 1.0, "one for both");
    drop((one, two));
    for place in [&["--start", "5"][..], &["--packet", "50"], &["--seek-after", "0:5", "--seconds", "2"]] {
        let name = format!("archive/{INDEXED}");
        let [there, here] =
            [upstream.url("mmst", &name), daemon.url("mmst", &format!("mirror/{name}"))].map(|url| play(&url, place));
        for fact in ["live", "first_location", "first_key_presentation_ms", "duration_s", "packet_count", "lost"] {
            assert_eq!(there[fact], here[fact], "{place:?}: {fact}\n{there}\n{here}");
        }
    }
    assert_ne!(support::mms::open_result(daemon.mms, "mirror/missing"), 0);
    wait_until("nobody is at the upstream", LIMIT, || upstream.metric("wmrelay_viewers", &[]) == 0.0);
}

#[test]
fn plain_asf_over_http() {
    let file = std::fs::read(data(INDEXED)).unwrap();
    let served = file.clone();
    let server = WebServer::start(move |head, stream| match head.split(' ').nth(1) {
        Some("/endless") => endless(stream),
        Some("/film.wmv?k=hush") => respond(stream, "200 OK", "Content-Type: whatever/it-is\r\n", &served),
        _ => respond(stream, "404 Not Found", "", b"nothing"),
    });
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("written.wmv");
    let played = report(&archive::play(&server.url("http", "film.wmv?k=hush"), &written, &[]).finish(MINUTE));
    assert_eq!(
        (&played["packets"], &played["live"], &played["transport"]),
        (&94.into(), &false.into(), &"http".into()),
        "{played}"
    );
    let (start, size) = data_start(&data(INDEXED));
    let whole = usize::try_from(start + 94 * size).unwrap();
    assert!(std::fs::read(written).unwrap() == file[..whole], "all but the index");
    assert!(complaint(&server.url("http", "missing")).contains("404 Not Found"));

    let daemon = Daemon::start(pulled(&server.url("http", "endless"), ""));
    let viewer = Viewer::tcp(daemon.mms, "cam");
    viewer.wait_for_packets(100, LIMIT);
    let seen = viewer.seen();
    assert_eq!((seen.ended, seen.missing, seen.backward, seen.time_backward), (None, 0, 0, 0));
    // A file is paced, and begins again.
    let daemon = Daemon::start(pulled(&server.url("http", "film.wmv?k=hush"), ""));
    let viewer = Viewer::tcp(daemon.mms, "cam");
    wait_until("the second lap", MINUTE, || daemon.log().contains("played to its end, begins again"));
    viewer.wait_for_packets(50, LIMIT);
    let seen = viewer.seen();
    assert_eq!((seen.ended, seen.backward, seen.time_backward), (None, 0, 0));
    assert!(!daemon.log().contains("hush"), "{}", daemon.log());
}

#[test]
fn other_places_and_logins() {
    const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"studio\", nonce=\"abc\", qop=\"auth\"\r\n";
    let file = std::fs::read(data("audio-wmav2.wma")).unwrap();
    let film = move |stream: &mut TcpStream| respond(stream, "200 OK", "", &file);
    let unasked = film.clone();
    let stranger = WebServer::start(move |head, stream| match head.split(' ').nth(1) {
        Some("/open.wma") => unasked(stream),
        _ => respond(stream, "401 Unauthorized", CHALLENGE, b""),
    });
    let other = stranger.address;
    let server = WebServer::start(move |head, stream| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let goes = |stream: &mut TcpStream, place: &str| respond(stream, "302 Found", &format!("Location: {place}\r\n"), b"");
        match target {
            "/film.wma" => film(stream),
            "/moved" => goes(stream, "film.wma"),
            "/around" => goes(stream, "/around"),
            "/away" => goes(stream, &format!("http://{other}/open.wma")),
            "/list.asx" => {
                let asx = format!(
                    "<asx version=\"3.0\"><entry><ref href=\"rtsp://h/x\"/><ref href=\"http://{other}/open.wma?a=1&amp;b=2\"/></entry></asx>"
                );
                let asx = asx.replace("open.wma?a=1&amp;b=2", "open.wma");
                respond(stream, "200 OK", "Content-Type: video/x-ms-asf\r\n", asx.as_bytes())
            }
            "/reference" => respond(stream, "200 OK", "", format!("[Reference]\r\nRef1=http://{other}/open.wma\r\n").as_bytes()),
            "/page" => respond(
                stream,
                "200 OK",
                "Content-Type: text/html\r\n",
                b"<!DOCTYPE html><html><body>Hello, world, hello</body></html>",
            ),
            _ if !head.contains("Authorization: Digest username=\"cam\", realm=\"studio\", nonce=\"abc\"") => {
                respond(stream, "401 Unauthorized", CHALLENGE, b"")
            }
            "/closed" => film(stream),
            "/closed-away" => goes(stream, &format!("http://{other}/closed")),
            "/closed-here" => goes(stream, "/closed"),
            _ => respond(stream, "404 Not Found", "", b""),
        }
    });
    for path in ["moved", "away", "list.asx", "reference"] {
        assert_eq!(play(&server.url("mmsh", path), &[])["packets"], 54, "{path}");
    }
    assert!(complaint(&server.url("http", "around")).contains("too many redirects"));
    assert!(complaint(&server.url("http", "page")).contains("neither ASF nor a metafile"));
    let with_login = |path: &str| server.url("http", path).replace("//", "//cam:secret@");
    for path in ["closed", "closed-here"] {
        let played = play(&with_login(path), &[]);
        assert_eq!(played["packets"], 54, "{path}");
        assert!(!played.to_string().contains("secret"), "{played}");
    }
    assert!(complaint(&server.url("http", "closed")).contains("wants a user name and a password"));
    // Whoever it sends us to is not told who we are.
    let said = complaint(&with_login("closed-away"));
    assert!(said.contains("wants a user name and a password") && !said.contains("secret"), "{said}");
    assert!(stranger.requests().len() >= 4 && !stranger.requests().concat().contains("Authorization"));
    assert!(!server.requests().concat().contains("secret"));
}

#[test]
fn our_own_url_with_a_wrong_scheme_is_explained() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", "https://user:secret@host/x?k=secret"]);
    let done = Process::start(command).finish(LIMIT);
    assert!(done.stderr.contains("begins with mms://") && !done.stderr.contains("secret"), "{}", done.stderr);
}
