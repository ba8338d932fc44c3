//! Sources that ffmpeg transcodes, with a real ffmpeg: inputs of many kinds, profiles, shared children, limits, faults.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::mms::{self, Control, result_of};
use support::player::{self, Frame, frames, of_stream};
use support::process::{Process, children_of, send_signal};
use support::viewer::Viewer;
use support::web::{WebServer, respond};
use support::{ready, wait_for, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg"), Program("ffprobe")];
/// Other tests and other programs may want the processor too.
const LIMIT: Duration = Duration::from_secs(60);

/// Ten seconds of H.264 without B-frames, a key frame each second, and AAC: what a camera sends.
#[track_caller]
fn camera_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mine = folder.join(format!("camera-{}.mp4", std::process::id()));
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=20"]);
        command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100", "-t", "10"]);
        command.args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline", "-g", "20"]);
        command.args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k"]).arg(&mine);
        let made = Process::start(command).finish(LIMIT);
        assert!(made.status.success(), "ffmpeg makes no file: {}", made.stderr);
        let file = folder.join("camera.mp4");
        std::fs::rename(&mine, &file).unwrap();
        file
    })
}

/// A publishing point that is transcoded while it is watched; `more` is added to its source.
fn point(name: &str, input: &str, profile: &str, more: &str) -> String {
    format!(
        "[[publishing_point]]\nname = {name:?}\nsource = {{ type = \"ffmpeg\", input = {input:?}, profile = {profile:?}, \
         start = \"watched\", linger_s = 1{more} }}\n"
    )
}

fn from_file(name: &str, profile: &str) -> String {
    point(name, &camera_file().display().to_string(), profile, "")
}

/// The camera, sent elsewhere by an ffmpeg of its own for ever, in real time.
#[track_caller]
fn send_camera(output: &[&str]) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i"]).arg(camera_file());
    command.args(["-c", "copy"]).args(output);
    Process::start(command)
}

/// The codecs of what is played, as ffprobe calls them, pictures first.
#[track_caller]
fn codecs(url: &str) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-loglevel", "error", "-show_entries", "stream=codec_type,codec_name,codec_tag_string,has_b_frames"]);
    command.args(["-of", "csv=p=0", url]);
    let done = Process::start(command).finish(LIMIT);
    assert!(done.status.success(), "{url}: {}", done.stderr);
    let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| line.contains("audio"));
    lines
}

/// Plays for some seconds of media; pictures and blocks of sound.
#[track_caller]
fn decoded(url: &str, seconds: u32) -> (Vec<Frame>, Vec<Frame>) {
    let done = player::ffmpeg(url, seconds).finish(LIMIT);
    assert!(done.status.success(), "{url}: {}", done.stderr);
    let (all, video) = (frames(&done.stdout), video_of(&done.stdout));
    let sound = all.iter().filter(|frame| Some(frame.stream) != video).cloned().collect();
    (video.map(|video| of_stream(&all, video)).unwrap_or_default(), sound)
}

fn video_of(text: &str) -> Option<usize> {
    text.contains(": video\n").then(|| player::video_stream(text))
}

/// Pictures that change, in time, and sound.
#[track_caller]
fn assert_plays(url: &str, seconds: u32, rate: u32) {
    let (pictures, sound) = decoded(url, seconds);
    let least = usize::try_from(rate * seconds * 3 / 4).unwrap();
    assert!(pictures.len() >= least, "{url}: {} pictures", pictures.len());
    assert!(pictures.windows(2).all(|pair| pair[0].time < pair[1].time), "{url}: times go back");
    let different: std::collections::HashSet<_> = pictures.iter().map(|frame| &frame.md5).collect();
    assert!(different.len() > pictures.len() / 2, "{url}: {} different ones of {}", different.len(), pictures.len());
    assert!(sound.len() > 5, "{url}: {} blocks of sound", sound.len());
}

/// Children that transcode now, all or of one profile.
fn children(daemon: &Daemon, labels: &[(&str, &str)]) -> f64 {
    daemon.metric("wmrelay_transcode_children", labels)
}

#[test]
fn every_built_in_profile_of_a_file() {
    if !ready("every_built_in_profile_of_a_file", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(from_file("cam", "wmp9"));
    for (profile, expected, rate) in [
        ("wmp64", &["msmpeg4v3,video,MP43,0", "wmav1,audio,[96][1][0][0]"][..], 15),
        ("wmp9", &["wmv2,video,WMV2,0", "wmav2,audio,a[1][0][0]"], 20),
        // This one as the file has it: it fits already.
        ("wmp12", &["h264,video,H264,0", "aac,audio,[255][0][0][0]"], 20),
        ("radio", &["wmav2,audio,a[1][0][0]"], 0),
    ] {
        let url = daemon.url("mmst", &format!("cam?profile={profile}"));
        assert_eq!(codecs(&url), expected, "{profile}");
        if rate > 0 {
            assert_plays(&url, 3, rate);
        } else {
            let (pictures, sound) = decoded(&url, 3);
            assert!(pictures.is_empty() && sound.len() > 10, "{}", sound.len());
        }
        let copies = daemon.log().contains("copies_video=true");
        assert_eq!(copies, ["wmp12", "radio"].contains(&profile), "{profile}: {}", daemon.log());
    }
    wait_until("the last child leaves", LIMIT, || children(&daemon, &[]) == 0.0 && children_of(daemon.id()).is_empty());
    assert!(daemon.stop().success());
}

#[test]
fn profiles_over_http_and_rtsp() {
    if !ready("profiles_over_http_and_rtsp", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(from_file("cam", "wmp9"));
    let _own = Viewer::tcp(daemon.mms, "cam");
    let _other = Viewer::tcp(daemon.mms, "cam?profile=wmp64");
    for (name, codec) in [("cam", "wmv2"), ("cam?profile=WMP64", "msmpeg4v3")] {
        let http = format!("http://{}/{name}", daemon.http);
        for url in [http.replace("http:", "mmsh:"), http, daemon.rtsp_url("rtsp", name)] {
            let found = codecs(&url);
            assert!(found[0].starts_with(codec), "{url}: {found:?}");
        }
    }
    let (status, playlist) = support::daemon::http_get(daemon.http, "/cam.asx?profile=wmp64");
    assert!(status == 200 && playlist.contains("/cam?profile=wmp64\""), "{playlist}");
    assert_eq!(children(&daemon, &[]), 2.0);
}

#[test]
fn viewers_of_one_profile_share_a_child() {
    if !ready("viewers_of_one_profile_share_a_child", FFMPEG) {
        return;
    }
    // Two publishing points of one input: that is one child too.
    let settings = format!("{}{}", from_file("cam", "wmp9"), from_file("same", "wmp9"));
    let daemon = Daemon::start(settings);
    let viewers = ["cam", "cam", "same", "cam?profile=wmp9"].map(|name| Viewer::tcp(daemon.mms, name));
    viewers.iter().for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    assert_eq!((children(&daemon, &[]), children_of(daemon.id()).len()), (1.0, 1));
    let small = Viewer::tcp(daemon.mms, "same?profile=wmp64");
    small.wait_for_packets(10, LIMIT);
    assert_eq!((children(&daemon, &[]), children_of(daemon.id()).len()), (2.0, 2));
    assert_eq!(children(&daemon, &[("point", "same"), ("profile", "wmp64")]), 1.0);
    wait_until("speed is told", LIMIT, || daemon.metric("wmrelay_transcode_speed", &[("profile", "wmp64")]) > 0.1);
    // Behind the daemon in priority: the 17th field of what the kernel tells behind the name.
    for child in children_of(daemon.id()) {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
        let nice: i32 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{child}/limits")).unwrap();
        assert!(nice >= 5 && limits.contains("2147483648"), "{stat}\n{limits}");
    }
    drop(small);
    wait_until("the small one ends", LIMIT, || children(&daemon, &[]) == 1.0);
    viewers.iter().for_each(Viewer::assert_undisturbed);
}

#[test]
fn a_player_of_1999_gets_what_it_decodes() {
    if !ready("a_player_of_1999_gets_what_it_decodes", FFMPEG) {
        return;
    }
    let rule = "[[player_profile]]\nplayer = \"NSPlayer/4.\"\nprotocol = \"rtsp\"\nprofile = \"radio\"\n";
    let daemon = Daemon::start(format!("{rule}{}", from_file("cam", "wmp9")));
    let open = |player: &str, name: &str| {
        let mut control = Control::connect(daemon.mms);
        control.send(mms::CONNECT, &mms::connect_body(player));
        control.expect(mms::CONNECTED, LIMIT);
        control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
        control.expect(mms::FUNNEL_CONNECTED, LIMIT);
        control.send(mms::OPEN_FILE, &mms::open_body(name));
        (result_of(&control.expect(mms::OPENED, LIMIT)), control)
    };
    let guid = "{3F2504E0-4F89-41D3-9A0C-0305E82C3301}";
    for (player, profile) in [("NSPlayer/4.1.0.3925", "wmp64"), ("NSPlayer/9.0.0.3250", "wmp9")] {
        let (result, _control) = open(&format!("{player}; {guid}"), "cam");
        assert_eq!((result, children(&daemon, &[("profile", profile)])), (0, 1.0), "{player}");
    }
    // Who asks gets what it asks for.
    let (result, _control) = open(&format!("NSPlayer/4.1.0.3925; {guid}"), "cam?profile=wmp12");
    assert_eq!((result, children(&daemon, &[("profile", "wmp12")])), (0, 1.0));
    let (result, _control) = open(&format!("NSPlayer/9.0; {guid}"), "cam?profile=wmp10");
    assert_eq!(result, 0xC00D_001A, "no such profile");
}

#[test]
fn hls_and_rtsp_and_udp_and_rtmp() {
    if !ready("hls_and_rtsp_and_udp_and_rtmp", FFMPEG) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let playlist = root.join("x.m3u8").display().to_string();
    let _hls = send_camera(&["-f", "hls", "-hls_time", "1", "-hls_list_size", "4", "-hls_flags", "delete_segments", &playlist]);
    let served = root.clone();
    let web = WebServer::start(move |head, stream| {
        let name = head.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').split('?').next().unwrap();
        match std::fs::read(served.join(name)) {
            Ok(bytes) => respond(stream, "200 OK", "", &bytes),
            Err(_) => respond(stream, "404 Not Found", "", b""),
        }
    });
    wait_until("segments", LIMIT, || std::fs::read_to_string(&playlist).is_ok_and(|text| text.matches("#EXTINF").count() >= 3));
    // What this crate sends over RTSP itself stands for a camera.
    let upstream = Daemon::start("[[publishing_point]]\nname = \"push\"\nsource = { type = \"push\" }\n");
    let _publisher = support::publisher::ffmpeg_push("asf_stream", "POST", &upstream.publish_url("", "push"));
    support::viewer::wait_for_source(&upstream, "push");
    let free_udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let free_tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ts = format!("udp://{free_udp}?pkt_size=1316");
    let _ts = send_camera(&["-f", "mpegts", &ts]);
    let rtmp = format!("rtmp://{free_tcp}/live/key");
    let settings = [
        point("hls", &web.url("http", "x.m3u8?token=s3cret"), "wmp9", ""),
        point("local", &playlist, "wmp64", ""),
        point("rtsp", &upstream.rtsp_url("rtsp", "push"), "wmp9", ""),
        point("udp", &format!("udp://{free_udp}"), "wmp9", ""),
        point("wmv", &support::publisher::clip().display().to_string(), "wmp9", ""),
        point("rtmp", &rtmp, "wmp9", ", input_arguments = [\"-listen\", \"1\"]"),
    ];
    let daemon = Daemon::start(settings.concat());
    for (name, codec, rate) in
        [("hls", "wmv2", 20), ("local", "msmpeg4v3", 15), ("rtsp", "wmv2", 15), ("udp", "wmv2", 20), ("wmv", "wmv2", 15)]
    {
        let viewer = watch(&daemon, name);
        let url = daemon.url("mmst", name);
        assert!(codecs(&url)[0].starts_with(codec), "{url}");
        assert_plays(&url, 3, rate);
        drop(viewer);
    }
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
    assert_eq!(daemon.log().matches("copies_video=true").count(), 1, "that of Windows Media: {}", daemon.log());

    // The publisher comes when it likes, and again. The listener is looked for in the kernel's table: a connection would be taken for
    // the publisher.
    let entry = format!(":{:04X} 00000000:0000 0A", free_tcp.port());
    let listens = || std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&entry);
    let viewer = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| watch(&daemon, "rtmp"));
        wait_until("the listener", LIMIT, listens);
        let publisher = send_camera(&["-f", "flv", &rtmp]);
        let viewer = viewer.join().unwrap();
        assert_plays(&daemon.url("mmst", "rtmp"), 3, 20);
        drop(publisher);
        viewer
    });
    wait_until("the next child", LIMIT, || daemon.metric("wmrelay_transcode_restarts_total", &[("point", "rtmp")]) > 0.0);
    let packets = viewer.seen().packets;
    wait_until("the listener again", LIMIT, listens);
    let _publisher = send_camera(&["-f", "flv", &rtmp]);
    wait_until("packets of the second publisher", LIMIT, || viewer.seen().packets > packets + 50);
    assert_eq!(viewer.ended(), None);
}

/// A viewer that waits as long as a cold input takes.
#[track_caller]
fn watch(daemon: &Daemon, name: &str) -> Viewer {
    let mut control = Control::connect(daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body(support::viewer::PLAYER));
    control.expect(mms::CONNECTED, LIMIT);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    control.expect(mms::FUNNEL_CONNECTED, LIMIT);
    control.send(mms::OPEN_FILE, &mms::open_body(name));
    assert_eq!(result_of(&control.expect(mms::OPENED, LIMIT)), 0, "{name}");
    drop(control);
    Viewer::tcp(daemon.mms, name)
}

#[test]
fn no_more_children_than_allowed_and_one_that_is_killed_comes_back() {
    if !ready("no_more_children_than_allowed_and_one_that_is_killed_comes_back", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(format!("[transcode]\nchildren = 1\n{}{}", from_file("cam", "wmp9"), from_file("two", "wmp64")));
    let viewer = Viewer::tcp(daemon.mms, "cam");
    viewer.wait_for_packets(10, LIMIT);
    let refusals = || daemon.metric("wmrelay_refusals_total", &[("cause", "transcode_children")]);
    assert_ne!(mms::open_result(daemon.mms, "cam?profile=wmp64"), 0);
    assert_eq!(refusals(), 1.0);
    assert_ne!(mms::open_result(daemon.mms, "two"), 0);
    assert!(refusals() >= 2.0);
    viewer.wait_for_packets(10, LIMIT);
    for round in 1..=2 {
        let before = wait_for("the child", LIMIT, || children_of(daemon.id()).first().copied());
        send_signal(before, "KILL");
        wait_until("another child", LIMIT, || children_of(daemon.id()).iter().any(|child| *child != before));
        viewer.wait_for_packets(50, LIMIT);
        assert_eq!(viewer.ended(), None);
        wait_until("it is counted", LIMIT, || {
            daemon.metric("wmrelay_transcode_restarts_total", &[("point", "cam")]) >= f64::from(round)
        });
    }
    assert!(children_of(daemon.id()).len() == 1 && daemon.log().contains("signal: 9"), "{}", daemon.log());
}

#[test]
fn an_input_that_says_nothing_and_one_that_says_garbage_harm_nobody() {
    if !ready("an_input_that_says_nothing_and_one_that_says_garbage_harm_nobody", FFMPEG) {
        return;
    }
    // It accepts, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let garbage = WebServer::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")?;
        let mut random = support::Random(7);
        loop {
            stream.write_all(&random.bytes(64 << 10))?;
        }
    });
    // A playlist from afar that names a file of this machine.
    let secret = camera_file().display().to_string();
    let thief = WebServer::start(move |_, stream| {
        let text =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{secret}\n#EXTINF:5,\n{secret}\n#EXT-X-ENDLIST\n");
        respond(stream, "200 OK", "Content-Type: application/vnd.apple.mpegurl\r\n", text.as_bytes())
    });
    let always = |name: &str, input: &str| {
        format!(
            "[[publishing_point]]\nname = {name:?}\nsource = {{ type = \"ffmpeg\", input = {input:?}, profile = \"quick\" }}\n"
        )
    };
    let settings = [
        "[[profile]]\nname = \"quick\"\nvideo = { codec = \"wmv2\" }\naudio = { codec = \"wmav2\" }\ncopy = false\n".to_owned(),
        always("silent", &format!("http://u:p4ss@{}/x", silent.local_addr().unwrap())),
        always("garbage", &garbage.url("http", "x.ts")),
        always("thief", &thief.url("http", "x.m3u8")),
        from_file("cam", "wmp64"),
    ];
    let daemon = Daemon::start(settings.concat());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The listener's queue is emptied, so that ffmpeg is connected and waits for words.
        let accepted = scope.spawn(|| {
            silent.set_nonblocking(true).unwrap();
            let mut held = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                held.extend(silent.accept());
                std::thread::sleep(Duration::from_millis(20));
            }
            held.len()
        });
        let viewer = Viewer::tcp(daemon.mms, "cam");
        viewer.wait_for_packets(100, LIMIT);
        let restarts = |name: &str| daemon.metric("wmrelay_transcode_restarts_total", &[("point", name)]);
        let failed = ["silent", "garbage", "thief"];
        wait_until("all have failed", 2 * LIMIT, || failed.iter().all(|name| restarts(name) > 0.0));
        for name in failed {
            assert_eq!(daemon.metric("wmrelay_source_up", &[("point", name)]), 0.0, "{name}");
        }
        viewer.wait_for_packets(50, LIMIT);
        assert_eq!((viewer.seen().missing, viewer.ended()), (0, None));
        drop(viewer);
        assert!(daemon.log().contains("not on whitelist"), "{}", daemon.log());
        assert!(!daemon.log().contains("p4ss"), "{}", daemon.log());
        let id = daemon.id();
        assert!(daemon.stop().success());
        assert!(children_of(id).is_empty());
        stop.store(true, Ordering::Relaxed);
        assert!(accepted.join().unwrap() > 0);
    });
}
