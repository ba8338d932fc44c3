//! HTTP to real viewers: one name, played by whatever asks for it, over whichever media port.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

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
use support::ready;
use support::viewer::wait_for_source;

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
    // Over WMSP, ffmpeg shows what stands in front of the key frame in its packet, and goes by its place in what it has read
    // before: it may leave the last packet out.
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
        assert!(text.contains(&format!("mms://{}/{encoded}", daemon.http)) && text.contains(&url), "{text}");
    }
    // The Host that is named gets into addresses, and nothing but a host does.
    let named = curl(out.path(), &["--header", "Host: media.example:8080"], &format!("{url}.asx"));
    assert!(named.text().contains(&format!("mms://media.example:8080/{encoded}\"")), "{}", named.text());
    let wild = curl(out.path(), &["--header", "Host: \"><script>"], &format!("{url}.asx"));
    assert!(!wild.text().contains("script"), "{}", wild.text());
    let m3u = curl(out.path(), &[], &format!("{url}.m3u"));
    m3u.assert_status(200);
    assert!(m3u.text().starts_with("#EXTM3U\r\n") && m3u.text().ends_with(&format!("{url}\r\n")), "{}", m3u.text());
}
