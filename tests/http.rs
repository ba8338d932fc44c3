//! HTTP to real viewers: one name, played by whatever asks for it, over whichever media port.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::archive::{HASTE, Streams, archive, assert_same, decoded, serve, streams_of, vlc_dump, with_each_sample};
use support::daemon::Daemon;
use support::media::{Sample, data};
use support::player::{self, Vlc, assert_clip_over_and_over, frames, of_stream};
use support::process::Process;
use support::publisher::ffmpeg_push;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const VLC: &[Need] = &[Program("ffmpeg"), Program("cvlc")];
const CURL: &[Need] = &[Program("curl")];
const MPLAYER: &[Need] = &[Program("ffmpeg"), Program("mplayer")];
const MPV: &[Need] = &[Program("ffmpeg"), Program("mpv")];

/// A daemon with nothing said has the built-in demo.
const NOTHING: &str = "";
const PUSH: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures and sound for ten seconds, with an index.
const INDEXED: &str = "vod-wmv2-wmav2-indexed.wmv";
/// The object that every ASF file begins with, its first eight bytes (ASF 10.1).
const ASF_HEADER: [u8; 8] = [0x30, 0x26, 0xB2, 0x75, 0x8E, 0x66, 0xCF, 0x11];

/// `SCHEME://127.0.0.1:PORT/NAME` with the HTTP port.
fn http_url(daemon: &Daemon, scheme: &str, name: &str) -> String {
    format!("{scheme}://{}/{name}", daemon.http)
}

#[test]
fn ffmpeg_plays_live_on_every_port() {
    if !ready("ffmpeg_plays_live_on_every_port", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(PUSH);
    let _publisher = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");
    for scheme in ["mmsh", "http"] {
        for url in [http_url(&daemon, scheme, "cam1"), daemon.url(scheme, "cam1")] {
            let decoded = player::ffmpeg(&url, 3).finish(MINUTE);
            let frames = frames(&decoded.stdout);
            let pictures = of_stream(&frames, 0);
            assert!(decoded.status.success(), "{url}: {}", decoded.stderr);
            assert!(pictures.len() >= 40, "{url}: {} pictures\n{}", pictures.len(), decoded.stderr);
            assert!(frames.iter().any(|frame| frame.stream == 1), "{url}: no sound");
            // From a key frame on, or the first would be another picture than the clip's.
            assert_clip_over_and_over(pictures.iter().map(|frame| frame.md5.as_str()));
        }
    }
}

/// The demo is there without a setting.
#[test]
fn ffmpeg_plays_the_demo() {
    if !ready("ffmpeg_plays_the_demo", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    for scheme in ["mmsh", "http"] {
        for url in [http_url(&daemon, scheme, "demo"), daemon.url(scheme, "demo")] {
            let decoded = player::ffmpeg(&url, 3).finish(MINUTE);
            let frames = frames(&decoded.stdout);
            assert!(decoded.status.success(), "{url}: {}", decoded.stderr);
            assert!(of_stream(&frames, 0).len() >= 20, "{url}: {} frames\n{}", frames.len(), decoded.stderr);
            assert!(frames.iter().any(|frame| frame.stream == 1), "{url}: no sound");
            assert!(!decoded.stderr.contains("concealing"), "{url}: {}", decoded.stderr);
        }
    }
}

#[test]
fn vlc_plays_live() {
    if !ready("vlc_plays_live", VLC) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    // WMSP and a plain stream; MMS on the HTTP port, HTTP on the MMS port; and a metafile that leads to a stream.
    let urls = [
        http_url(&daemon, "mmsh", "demo"),
        http_url(&daemon, "http", "demo"),
        http_url(&daemon, "mms", "demo"),
        daemon.url("mmsh", "demo"),
        http_url(&daemon, "http", "demo.asx"),
    ];
    for url in urls {
        eprintln!("{url}");
        Vlc::play(&url).wait_for_pictures(30, MINUTE);
    }
}

#[test]
fn mpv_plays_live() {
    if !ready("mpv_plays_live", MPV) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    for scheme in ["mmsh", "http"] {
        // Its status line may miss the last one.
        assert!(player::mpv(&http_url(&daemon, scheme, "demo"), 40) >= 39, "{scheme}");
    }
}

#[test]
fn mplayer_plays_live() {
    if !ready("mplayer_plays_live", MPLAYER) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    for scheme in ["mmsh", "http"] {
        assert_eq!(player::mplayer(&http_url(&daemon, scheme, "demo"), 40).len(), 40, "{scheme}");
    }
}

#[test]
fn ffmpeg_plays_every_sample_whole() {
    if !ready("ffmpeg_plays_every_sample_whole", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    with_each_sample(|Sample { name, .. }| {
        let expected = decoded(&root.path().join(name));
        for scheme in ["mmsh", "http"] {
            let url = http_url(&daemon, scheme, &format!("archive/{name}"));
            let got = streams_of(&player::ffmpeg(&url, 0).finish(MINUTE));
            assert_same(&url, &got, &expected);
        }
    });
}

/// What ffmpeg decodes from the key frame on that it finds in front of a time.
#[track_caller]
fn from_five_seconds_on(input: &str) -> Streams {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-noaccurate_seek", "-ss", "5", "-i", input, "-map", "0"]);
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "framemd5", "-"]);
    streams_of(&Process::start(command).finish(MINUTE))
}

/// By time in WMSP, by ranges of bytes in plain HTTP: to the same key frame as in the file.
#[test]
fn ffmpeg_seeks() {
    if !ready("ffmpeg_seeks", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    let file = root.path().join(INDEXED);
    let whole = decoded(&file);
    let expected = from_five_seconds_on(&file.display().to_string());
    let pictures = expected[&0].len();
    assert!(whole[&0].ends_with(&expected[&0]) && pictures > whole[&0].len() / 3 && pictures < whole[&0].len() * 2 / 3);
    let seek = |scheme| from_five_seconds_on(&http_url(&daemon, scheme, &format!("archive/{INDEXED}")));
    assert_same("http", &seek("http"), &expected);
    // Over WMSP, ffmpeg shows what stands in front of the key frame in its packet. It also leaves the last packet out, though it
    // was sent; why is not known.
    let got = seek("mmsh");
    let begin = got[&0].iter().position(|md5| *md5 == expected[&0][0]).expect("the key frame");
    assert!(begin <= 1 && got[&0].len() >= pictures - 4, "{begin} of {} pictures", got[&0].len());
    assert!(expected[&0].starts_with(&got[&0][begin..]), "other pictures than the file's");
    // The decoder's last word depends on where it ends.
    let sound = &got[&1][..got[&1].len() - 2];
    assert!(expected[&1].starts_with(sound) && sound.len() >= expected[&1].len() - 10, "other sound than the file's");
}

#[test]
fn vlc_plays_every_sample_whole() {
    if !ready("vlc_plays_every_sample_whole", VLC) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    let out = tempfile::tempdir().unwrap();
    with_each_sample(|Sample { name, .. }| {
        for scheme in ["mmsh", "http"] {
            let file = out.path().join(format!("{scheme}-{name}"));
            let done = vlc_dump(&http_url(&daemon, scheme, &format!("archive/{name}")), &file).finish(MINUTE);
            assert!(file.exists(), "VLC wrote nothing of {name}\n{}", done.stderr);
            assert_same(&format!("{scheme} {name}"), &decoded(&file), &decoded(&root.path().join(name)));
        }
    });
}

#[test]
fn mpv_and_mplayer_play_a_file() {
    if !ready("mpv_and_mplayer_play_a_file", &[MPV, MPLAYER].concat()) {
        return;
    }
    let (daemon, _root) = archive(HASTE);
    for scheme in ["mmsh", "http"] {
        let url = http_url(&daemon, scheme, &format!("archive/{INDEXED}"));
        assert!(player::mpv(&url, 60) >= 59, "{url}");
        let pictures = player::mplayer(&url, 60);
        assert_eq!(pictures, player::mplayer(&data(INDEXED).display().to_string(), 60), "{url}");
    }
}

/// What curl got: the response's head and the body.
struct Got {
    head: String,
    body: Vec<u8>,
}

impl Got {
    #[track_caller]
    fn field(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().unwrap_or_else(|| panic!("no {name} in\n{}", self.head))
    }

    #[track_caller]
    fn assert_status(&self, status: u16) {
        assert_eq!(self.head.split_whitespace().nth(1), Some(status.to_string().as_str()), "{}", self.head);
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// curl, told by arguments what else to do; the path goes as it stands.
#[track_caller]
fn curl(folder: &Path, arguments: &[&str], url: &str) -> Got {
    let (head, body) = (folder.join("head"), folder.join("body"));
    let _ = std::fs::remove_file(&body);
    let mut command = Command::new("curl");
    command.args(["--silent", "--path-as-is", "--max-time", "20", "--dump-header"]).arg(&head).arg("--output").arg(&body);
    command.args(arguments).arg(url);
    Process::start(command).finish(MINUTE);
    Got { head: std::fs::read_to_string(head).unwrap(), body: std::fs::read(body).unwrap_or_default() }
}

#[test]
fn curl_gets_the_bytes_of_a_file() {
    if !ready("curl_gets_the_bytes_of_a_file", CURL) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(data(INDEXED), root.path().join(INDEXED)).unwrap();
    let file = std::fs::read(data(INDEXED)).unwrap();
    let out = tempfile::tempdir().unwrap();
    let daemon = serve(root.path(), "");
    let url = http_url(&daemon, "http", &format!("archive/{INDEXED}"));
    let get = |arguments: &[&str]| curl(out.path(), arguments, &url);
    let len = file.len();

    let whole = get(&[]);
    whole.assert_status(200);
    assert_eq!((whole.field("Content-Length"), whole.field("Accept-Ranges")), (len.to_string().as_str(), "bytes"));
    assert_eq!(whole.field("Content-Type"), "video/x-ms-wmv");
    assert!(whole.body == file);
    let etag = whole.field("ETag");

    let ranges: [(&str, &[u8]); 4] = [
        ("0-99", &file[..100]),
        ("100000-100006", &file[100_000..100_007]),
        ("-9", &file[len - 9..]),
        (&format!("{}-", len - 70_000), &file[len - 70_000..]),
    ];
    for (range, expected) in ranges {
        let part = get(&["--range", range]);
        part.assert_status(206);
        assert!(part.body == expected, "{range}: {} bytes", part.body.len());
        let first = expected.as_ptr() as usize - file.as_ptr() as usize;
        assert_eq!(part.field("Content-Range"), format!("bytes {first}-{}/{len}", first + expected.len() - 1));
    }
    let beyond = get(&["--range", &format!("{len}-")]);
    beyond.assert_status(416);
    assert_eq!(beyond.field("Content-Range"), format!("bytes */{len}"));
    // Several at once: the whole, as is allowed.
    let several = get(&["--range", "0-1,5-6"]);
    several.assert_status(200);
    assert!(several.body == file);

    let head = get(&["--head"]);
    head.assert_status(200);
    assert_eq!((head.field("Content-Length"), head.field("ETag")), (len.to_string().as_str(), etag));

    let same = get(&["--range", "5-9", "--header", &format!("If-Range: {etag}")]);
    same.assert_status(206);
    assert!(same.body == file[5..10]);
    let other = get(&["--range", "5-9", "--header", "If-Range: \"of-another-file\""]);
    other.assert_status(200);
    assert!(other.body == file);

    // A download that was cut off goes on where it was.
    let begun = out.path().join("body");
    let mut command = Command::new("curl");
    std::fs::write(&begun, &file[..123_456]).unwrap();
    command.args(["--silent", "--continue-at", "-", "--output"]).arg(&begun).arg(&url);
    assert!(Process::start(command).finish(MINUTE).status.success());
    assert!(std::fs::read(&begun).unwrap() == file);

    // Two files over one connection.
    let mut command = Command::new("curl");
    command.args(["--silent", "--write-out", "%{num_connects} ", "--output", "/dev/null", "--output", "/dev/null", &url, &url]);
    assert_eq!(Process::start(command).finish(MINUTE).stdout, "1 0 ");

    let missing = curl(out.path(), &[], &http_url(&daemon, "http", "archive/missing.wmv"));
    missing.assert_status(404);
    curl(out.path(), &[], &http_url(&daemon, "http", "nothing")).assert_status(404);
}

#[test]
fn curl_gets_a_broadcast_as_a_file_without_end() {
    if !ready("curl_gets_a_broadcast_as_a_file_without_end", CURL) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    let out = tempfile::tempdir().unwrap();
    for arguments in [&["--max-time", "2"][..], &["--max-time", "2", "--http1.0"], &["--max-time", "2", "--range", "0-"]] {
        let got = curl(out.path(), arguments, &http_url(&daemon, "http", "demo"));
        got.assert_status(200);
        assert_eq!(got.field("Content-Type"), "video/x-ms-asf");
        assert!(!got.head.to_ascii_lowercase().contains("content-length"), "{}", got.head);
        assert!(got.body.starts_with(&ASF_HEADER), "{arguments:?}: {} bytes", got.body.len());
        assert!(got.body.len() > 10_000, "{arguments:?}: {} bytes", got.body.len());
    }
    let head = curl(out.path(), &["--head"], &http_url(&daemon, "http", "demo"));
    head.assert_status(200);
    assert_eq!(head.field("Content-Type"), "video/x-ms-asf");
}

/// A name that says too much, where people and their players see it.
#[test]
fn pages_and_playlists_escape_names() {
    if !ready("pages_and_playlists_escape_names", CURL) {
        return;
    }
    let daemon = Daemon::start("[[publishing_point]]\nname = \"a<b>&'c\"\nsource = { type = \"push\" }\n");
    let out = tempfile::tempdir().unwrap();
    let encoded = "a%3Cb%3E%26%27c";
    let url = http_url(&daemon, "http", encoded);

    let page = curl(out.path(), &["--user-agent", "Mozilla/5.0 (X11)", "--header", "Accept: text/html,*/*"], &url);
    page.assert_status(200);
    assert!(page.field("Content-Type").starts_with("text/html"), "{}", page.head);
    let asx = curl(out.path(), &[], &format!("{url}.asx"));
    asx.assert_status(200);
    assert_eq!(asx.field("Content-Type"), "video/x-ms-asf");
    assert!(asx.text().starts_with("<ASX"), "{}", asx.text());
    for got in [&page, &asx] {
        let text = got.text();
        assert!(text.contains("a&lt;b&gt;&amp;&#39;c") && !text.contains("<b>"), "{text}");
        assert!(text.contains(&format!("mms://{}/{encoded}", daemon.mms)) && text.contains(&url), "{text}");
    }
    // The Host that is named gets into addresses, and nothing but a host does.
    let named = curl(out.path(), &["--header", "Host: media.example:8080"], &format!("{url}.asx"));
    let own = format!("mms://media.example:{}/{encoded}\"", daemon.mms.port());
    assert!(named.text().contains(&own), "{}", named.text());
    let wild = curl(out.path(), &["--header", "Host: \"><script>"], &format!("{url}.asx"));
    assert!(!wild.text().contains("script"), "{}", wild.text());
    let titled = Daemon::start("[[publishing_point]]\nname = \"Door\"\ntitle = \"Front <door>\"\nsource = { type = \"push\" }\n");
    for ending in [".asx", ".m3u", ""] {
        let shown = curl(
            out.path(),
            &["--header", "Accept: text/html", "--user-agent", "Mozilla/5.0"],
            &http_url(&titled, "http", &format!("door{ending}")),
        );
        let expected = if ending == ".m3u" { "Front <door>" } else { "Front &lt;door&gt;" };
        assert!(shown.text().contains(expected), "{ending}: {}", shown.text());
    }
    let m3u = curl(out.path(), &[], &format!("{url}.m3u"));
    m3u.assert_status(200);
    assert!(m3u.text().starts_with("#EXTM3U\r\n") && m3u.text().ends_with(&format!("{url}\r\n")), "{}", m3u.text());
}

/// An encoder of pictures of another size than the clip's.
#[track_caller]
fn push_other_pictures(url: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "warning", "-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=15"]);
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100", "-c:v", "wmv2", "-g", "15", "-c:a", "wmav2"]);
    command.args(["-packet_size", "1400", "-f", "asf_stream", "-method", "POST", url]);
    Process::start(command)
}

#[test]
fn the_description_for_players_of_rtsp_leads_to_the_stream() {
    if !ready("the_description_for_players_of_rtsp_leads_to_the_stream", &[Program("ffmpeg"), Program("curl")]) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    let out = tempfile::tempdir().unwrap();
    let sdp = curl(out.path(), &[], &http_url(&daemon, "http", "demo.sdp"));
    sdp.assert_status(200);
    assert_eq!(sdp.field("Content-Type"), "application/sdp");
    let text = sdp.text();
    let control = text.lines().find_map(|line| line.strip_prefix("a=control:rtsp://")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(control, format!("{}/demo/", daemon.rtsp));
    let played = player::ffmpeg(&format!("rtsp://{control}"), 1);
    wait_until("ten pictures over RTSP", MINUTE, || of_stream(&frames(&played.stdout()), 1).len() >= 10);
}

#[test]
fn another_source_is_taken_or_ends_a_play_cleanly() {
    if !ready("another_source_is_taken_or_ends_a_play_cleanly", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(format!("{PUSH}[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n"));
    let publisher = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");
    let other = Viewer::tcp(daemon.mms, "demo");
    let mut framed = player::ffmpeg(&http_url(&daemon, "mmsh", "cam1"), 0);
    let mut plain = player::ffmpeg(&http_url(&daemon, "http", "cam1"), 0);
    player::wait_for_frames(&mut framed, 30, MINUTE);
    player::wait_for_frames(&mut plain, 30, MINUTE);

    publisher.signal("INT");
    publisher.finish(MINUTE);
    wait_until("the end of the source", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 0.0);
    let _second = push_other_pictures(&daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");

    // A file cannot change its header: it ends.
    let done = plain.finish(MINUTE);
    assert!(done.status.success(), "{}", done.stderr);
    // WMSP tells the change to who can take it.
    let before = of_stream(&frames(&framed.stdout()), 0).len();
    wait_until("ffmpeg goes on or ends", MINUTE, || {
        !framed.runs() || of_stream(&frames(&framed.stdout()), 0).len() >= before + 30
    });
    if !framed.runs() {
        let done = framed.finish(MINUTE);
        assert!(done.status.success(), "{}", done.stderr);
    }
    other.assert_undisturbed();
    // Who comes now gets what is sent now.
    let done = player::ffmpeg(&http_url(&daemon, "http", "cam1"), 1).finish(MINUTE);
    assert!(of_stream(&frames(&done.stdout), 0).len() >= 10, "{}", done.stderr);
}

#[test]
fn the_end_of_a_broadcast_ends_its_viewers() {
    if !ready("the_end_of_a_broadcast_ends_its_viewers", &[FFMPEG, CURL].concat()) {
        return;
    }
    let daemon = Daemon::start(format!("source_timeout_s = 1\n{PUSH}"));
    let publisher = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");
    let mut players = ["mmsh", "http"].map(|scheme| player::ffmpeg(&http_url(&daemon, scheme, "cam1"), 0));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--output", "/dev/null", &http_url(&daemon, "http", "cam1")]);
    let curl = Process::start(command);
    for player in &mut players {
        player::wait_for_frames(player, 30, MINUTE);
    }
    publisher.signal("INT");
    publisher.finish(MINUTE);
    for done in players.into_iter().chain([curl]).map(|player| player.finish(MINUTE)) {
        assert!(done.status.success(), "{}", done.stderr);
    }
}

/// What is answered before the connection is closed, at most so many bytes.
#[track_caller]
fn answer(daemon: &Daemon, request: &[u8]) -> String {
    let mut connection = TcpStream::connect_timeout(&daemon.http, Duration::from_secs(5)).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    connection.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // The daemon may close in the middle of it.
    let _ = connection.write_all(request);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while answer.len() < 1 << 20 {
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("not closed: {error}; {}", String::from_utf8_lossy(&answer)),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn hostile_requests_are_refused_and_disturb_nobody() {
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(data("audio-wmav2.wma"), root.path().join("a.wma")).unwrap();
    let secret = root.path().with_extension("secret.wma");
    std::fs::copy(data("audio-wmav2.wma"), &secret).unwrap();
    let secret_name = secret.file_name().unwrap().to_str().unwrap();
    let demo = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";
    let daemon = serve(root.path(), &format!("[limits]\nhandshake_s = 1\n{demo}"));
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(20, MINUTE);

    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}\r\n");
    let post = |more: &str| format!("POST /demo HTTP/1.1\r\nHost: h\r\n{more}\r\n");
    let flood: String = (0..1000).map(|number| format!("X-{number}: y\r\n")).collect();
    let requests = [
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n") + "01234GET /x HTTP/1.1\r\n", &["400"][..]),
        ("a length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", &["400"]),
        ("a flood of fields", get("/demo", &flood), &["431"]),
        ("one long field", get("/demo", &format!("X: {}\r\n", "y".repeat(100_000))), &["431"]),
        ("a long target", get(&format!("/{}", "y".repeat(100_000)), ""), &["414"]),
        ("a bare LF", get("/demo", "X: y\nZ: z\r\n"), &["400"]),
        ("CR LF in a name", get("/a%0D%0ASet-Cookie:%20x=y", ""), &["400", "404"]),
        ("CR LF in a playlist's name", get("/a%0D%0ASet-Cookie:%20x=y.m3u", ""), &["400", "404"]),
        ("NUL in a name", get("/archive/a.wma%00", ""), &["400", "404"]),
        ("a way up", get(&format!("/archive/../{secret_name}"), ""), &["400", "403", "404"]),
        ("a hidden way up", get(&format!("/archive/%2e%2e/{secret_name}"), ""), &["400", "403", "404"]),
        ("a way up in one part", get(&format!("/archive/..%2F{secret_name}"), ""), &["400", "403", "404"]),
        ("a way up, hidden twice", get(&format!("/archive/%252e%252e/{secret_name}"), ""), &["400", "403", "404"]),
        ("a way up with \\", get(&format!("/archive/..%5C{secret_name}"), ""), &["400", "403", "404"]),
        ("from the root on", get(&format!("/archive/{}", secret.display()), ""), &["400", "403", "404"]),
        ("the password file", get("/archive/../../../../../../etc/passwd", ""), &["400", "403", "404"]),
        ("another version", "GET /demo HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), &["400", "505"]),
        ("no host", "GET /demo HTTP/1.1\r\n\r\n".to_owned(), &["400"]),
        ("two hosts", get("/demo", "Host: i\r\n"), &["400"]),
    ];
    for (what, request, expected) in &requests {
        let answer = answer(&daemon, request.as_bytes());
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        assert!(expected.contains(&status), "{what}: {answer:.300}");
        let head = answer.split("\r\n\r\n").next().unwrap();
        assert!(!head.contains("\nSet-Cookie"), "{what}: {answer}");
        assert_eq!(answer.matches("\r\nServer: ").count(), 1, "{what} is answered once: {answer}");
    }
    // Half a head, and no more of it: its time runs out.
    for half in ["GET /demo HTTP/1.1\r\nHost: h\r\nX: ", "GET /de", "G"] {
        let answer = answer(&daemon, half.as_bytes());
        assert!(answer.is_empty() || answer.contains(" 408 "), "{half:?}: {answer}");
    }
    assert!(answer(&daemon, get("/archive/a.wma", "").as_bytes()).starts_with("HTTP/1.1 200 "), "it still serves");
    std::fs::remove_file(&secret).unwrap();
    viewer.assert_undisturbed();
    assert!(!daemon.log().contains("panicked"));
}
