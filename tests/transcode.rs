//! Sources that ffmpeg transcodes, with a real ffmpeg: inputs of many kinds, profiles, shared children, limits, faults.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::inputs::{CAMERA_FILE_RATE, camera_file, codecs, listens, send_camera, send_hls, watch};
use support::mms::{self, Control, result_of};
use support::player::{self, Frame, frames, of_stream};
use support::process::{children_of, send_signal};
use support::viewer::Viewer;
use support::web::{WebServer, respond};
use support::{ready, wait_for, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg"), Program("ffprobe")];
/// Other tests and other programs may want the processor too.
const LIMIT: Duration = Duration::from_secs(60);

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

/// Seconds of a file of which H.264 is copied.
const SHORT_S: u32 = 3;

#[test]
fn a_short_file_whose_pictures_are_copied_goes_on_and_on() {
    if !ready("a_short_file_whose_pictures_are_copied_goes_on_and_on", FFMPEG) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.mp4");
    let mut command = std::process::Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-i"]).arg(camera_file());
    command.args(["-t", &SHORT_S.to_string(), "-c", "copy"]).arg(&short);
    let made = support::process::Process::start(command).finish(LIMIT);
    assert!(made.status.success(), "{}", made.stderr);
    let daemon = Daemon::start(point("cam", &short.display().to_string(), "wmp12", ""));
    let viewer = Viewer::tcp(daemon.mms, "cam");
    viewer.wait_for_packets(10, LIMIT);
    // Over three ends of the file.
    let (pictures, sound) = decoded(&daemon.url("mmst", "cam"), 3 * SHORT_S + 1);
    let least = usize::try_from(3 * SHORT_S * CAMERA_FILE_RATE * 3 / 4).unwrap();
    assert!(pictures.len() >= least && sound.len() > 20, "{} pictures, {} blocks of sound", pictures.len(), sound.len());
    assert!(pictures.windows(2).all(|pair| pair[0].time < pair[1].time), "times go back");
    assert_eq!((viewer.seen().missing, viewer.ended()), (0, None));
    assert_eq!(daemon.metric("wmrelay_transcode_restarts_total", &[("point", "cam")]), 0.0);
    assert!(!daemon.log().contains("retry_s"), "{}", daemon.log());
    assert!(daemon.log().contains("copies_video=true"), "{}", daemon.log());
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

/// Opens a name as a player that calls itself so; what comes of it, and the connection that has it open.
#[track_caller]
fn open_as(player: &str, daemon: &Daemon, name: &str) -> (u32, Control) {
    let mut control = Control::connect(daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body(player));
    control.expect(mms::CONNECTED, LIMIT);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    control.expect(mms::FUNNEL_CONNECTED, LIMIT);
    control.send(mms::OPEN_FILE, &mms::open_body(name));
    (result_of(&control.expect(mms::OPENED, LIMIT)), control)
}

#[test]
fn a_player_of_1999_gets_what_it_decodes() {
    if !ready("a_player_of_1999_gets_what_it_decodes", FFMPEG) {
        return;
    }
    let rule = "[[player_profile]]\nplayer = \"NSPlayer/4.\"\nprotocol = \"rtsp\"\nprofile = \"radio\"\n";
    let daemon = Daemon::start(format!("{rule}{}", from_file("cam", "wmp9")));
    let open = |player: &str, name: &str| open_as(player, &daemon, name);
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

/// A template of such cameras in a folder.
fn template(folder: &Path) -> String {
    point("cam-*", &folder.join("{1}.mp4").display().to_string(), "wmp9", "")
}

/// A folder of cameras of these names.
#[track_caller]
fn cameras(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(camera_file(), folder.path().join(format!("{name}.mp4"))).unwrap();
    }
    folder
}

#[test]
fn names_of_a_template_come_in_every_profile() {
    if !ready("names_of_a_template_come_in_every_profile", FFMPEG) {
        return;
    }
    let folder = cameras(&["7", "8"]);
    let daemon = Daemon::start(template(folder.path()));
    let own = Viewer::tcp(daemon.mms, "cam-7");
    let small = ["cam-7?profile=wmp64", "CAM-7?profile=WMP64"].map(|name| Viewer::tcp(daemon.mms, name));
    small.iter().chain([&own]).for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    assert_eq!((children(&daemon, &[]), children_of(daemon.id()).len()), (2.0, 2));
    assert_eq!(children(&daemon, &[("point", "cam-*"), ("profile", "wmp64")]), 1.0);
    for (name, codec) in [("cam-7", "wmv2"), ("cam-7?profile=wmp9", "wmv2"), ("cam-7?profile=wmp64", "msmpeg4v3")] {
        let http = format!("http://{}/{name}", daemon.http);
        for url in [daemon.url("mmst", name), http.replace("http:", "mmsh:"), http, daemon.rtsp_url("rtsp", name)] {
            let found = codecs(&url);
            assert!(found[0].starts_with(codec), "{url}: {found:?}");
        }
    }
    assert_eq!(children(&daemon, &[]), 2.0, "its own profile by name is no other one");
    // A player of 1999 gets what it decodes, of this name and of another one.
    for (name, running) in [("cam-7", 2.0), ("cam-8", 3.0)] {
        let (result, _control) = open_as("NSPlayer/4.1.0.3925; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}", &daemon, name);
        assert_eq!((result, children(&daemon, &[])), (0, running), "{name}");
    }
    assert_eq!(mms::open_result(daemon.mms, "cam-7?profile=wmp10"), 0xC00D_001A, "no such profile");
    // The last one of a profile ends that, and nothing else.
    let [one, two] = small;
    drop(one);
    two.wait_for_packets(20, LIMIT);
    drop(two);
    wait_until("its own alone", LIMIT, || children(&daemon, &[]) == 1.0 && children_of(daemon.id()).len() == 1);
    own.wait_for_packets(20, LIMIT);
    own.assert_undisturbed();
    drop(own);
    wait_until("the last child leaves", LIMIT, || children(&daemon, &[]) == 0.0 && children_of(daemon.id()).is_empty());
    assert_eq!(daemon.metric("wmrelay_source_up", &[("point", "cam-*")]), 0.0);
    assert!(daemon.stop().success());
}

#[test]
fn profiles_are_no_way_round_the_limits() {
    if !ready("profiles_are_no_way_round_the_limits", FFMPEG) {
        return;
    }
    let folder = cameras(&["1", "2", "3"]);
    let settings = [
        "[limits]\nviewers_per_point = 2\n[transcode]\nchildren = 6\n".to_owned(),
        from_file("gate", "wmp9"),
        template(folder.path()),
    ];
    let daemon = Daemon::start(settings.concat());
    let refusals = |cause: &str| daemon.metric("wmrelay_refusals_total", &[("cause", cause)]);
    let mut watching = Vec::new();
    for name in ["gate", "cam-1"] {
        let before = refusals("viewers_per_point");
        watching.extend(["", "?profile=wmp64"].map(|profile| Viewer::tcp(daemon.mms, &format!("{name}{profile}"))));
        for profile in ["", "?profile=wmp64", "?profile=wmp9"] {
            assert_ne!(mms::open_result(daemon.mms, &format!("{name}{profile}")), 0, "{name}{profile}");
        }
        assert_eq!(refusals("viewers_per_point") - before, 3.0, "{name}");
    }
    // Three of six children run for this address: as many as one may have.
    assert_eq!(children(&daemon, &[]), 4.0);
    for name in ["cam-2", "cam-3?profile=wmp64", "gate?profile=radio", "cam-1?profile=radio"] {
        assert_ne!(mms::open_result(daemon.mms, name), 0, "{name}");
    }
    assert_eq!((refusals("transcode_address"), children(&daemon, &[])), (4.0, 4.0));
    watching.iter().for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    watching.iter().for_each(Viewer::assert_undisturbed);
    drop(watching);
    wait_until("all leave", LIMIT, || children(&daemon, &[]) == 0.0);
    Viewer::tcp(daemon.mms, "cam-2?profile=radio").wait_for_packets(5, LIMIT);
}

#[test]
fn hls_and_rtsp_and_udp_and_rtmp() {
    if !ready("hls_and_rtsp_and_udp_and_rtmp", FFMPEG) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let playlist = root.join("x.m3u8");
    let _hls = send_hls(&playlist);
    let served = root.clone();
    let web = WebServer::start(move |head, stream| {
        let name = head.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').split('?').next().unwrap();
        match std::fs::read(served.join(name)) {
            Ok(bytes) => respond(stream, "200 OK", "", &bytes),
            Err(_) => respond(stream, "404 Not Found", "", b""),
        }
    });
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
        point("local", &playlist.display().to_string(), "wmp64", ""),
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
    // What comes to a port of ours comes once, so a player of 1999 gets what all get, and nobody another profile.
    let viewer = watch(&daemon, "udp");
    let (result, control) = open_as("NSPlayer/4.1.0.3925; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}", &daemon, "udp");
    assert_eq!(result, 0);
    assert_eq!(mms::open_result(daemon.mms, "udp?profile=wmp64"), 0xC00D_001A, "no other profile of it");
    assert_eq!(children(&daemon, &[("point", "udp")]), 1.0);
    assert!(daemon.log().contains("there is no profile of it but"), "{}", daemon.log());
    drop((viewer, control));
    assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
    assert_eq!(daemon.log().matches("copies_video=true").count(), 1, "that of Windows Media: {}", daemon.log());

    // The publisher comes when it likes, and again.
    let listens = || listens(free_tcp.port());
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
fn a_child_at_its_memory_limit_ends_and_is_reported() {
    if !ready("a_child_at_its_memory_limit_ends_and_is_reported", FFMPEG) {
        return;
    }
    // A single picture of it takes 50 MB, and ffmpeg holds several.
    let settings = [
        "[transcode]\nmemory_bytes = 134217728\n",
        "[[profile]]\nname = \"huge\"\ncopy = false\nvideo = { codec = \"wmv2\", max_width = 7680, max_height = 4320 }\n",
        "[[publishing_point]]\nname = \"huge\"\nsource = { type = \"ffmpeg\", input = \"testsrc2=size=7680x4320:rate=5\", \
         input_arguments = [\"-f\", \"lavfi\"], profile = \"huge\" }\n",
        &from_file("radio", "radio"),
    ];
    let daemon = Daemon::start(settings.concat());
    let viewer = Viewer::tcp(daemon.mms, "radio");
    viewer.wait_for_packets(10, LIMIT);
    let restarts = |name: &str| daemon.metric("wmrelay_transcode_restarts_total", &[("point", name)]);
    wait_until("it has ended twice", 2 * LIMIT, || restarts("huge") >= 2.0);
    assert!(daemon.log().contains("Cannot allocate memory"), "{}", daemon.log());
    // It is held to it while it runs, and nobody else notices.
    viewer.wait_for_packets(20, LIMIT);
    viewer.assert_undisturbed();
    assert_eq!((restarts("radio"), daemon.metric("wmrelay_source_up", &[("point", "radio")])), (0.0, 1.0));
    let id = daemon.id();
    assert!(daemon.stop().success());
    assert!(children_of(id).is_empty());
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
