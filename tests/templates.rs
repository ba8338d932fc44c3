//! Templates: one publishing point for many names, each opened when somebody watches it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::Need::{self, Program};
use support::camera::{A_LAW, CAMERA, H264};
use support::daemon::{Daemon, http_get};
use support::inputs::{camera_file, watch};
use support::mms::{self, Control, open_result};
use support::player::{self, frames, of_stream, video_stream};
use support::process::children_of;
use support::viewer::Viewer;
use support::{ready, stays, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg"), Program("ffprobe")];
const LIMIT: Duration = Duration::from_secs(30);

/// NS_E_FILE_NOT_FOUND: there is nothing of that name.
const FILE_NOT_FOUND: u32 = 0xC00D_001A;

/// A camera: a script that notes its first argument and sends the built-in picture.
struct Camera {
    folder: tempfile::TempDir,
}

impl Camera {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/demo.asf");
        let script = format!(
            "cd '{}'\nprintf '%s\\0' \"$1\" >> names\ncase \"$1\" in *broken*) exit 1;; *silent*) exec sleep 1000;; esac\ncat '{}'\nexec sleep 1000\n",
            folder.path().display(),
            demo.display()
        );
        std::fs::write(folder.path().join("camera"), script).unwrap();
        Self { folder }
    }

    /// A publishing point that runs it with this argument.
    fn point(&self, name: &str, argument: &str, more: &str) -> String {
        let argv = serde_json::to_string(&["sh", self.script().to_str().unwrap(), argument]).unwrap();
        format!(
            "[[publishing_point]]\nname = \"{name}\"\n{more}source = {{ type = \"exec\", linger_s = 0, start = \"watched\", argv = {argv} }}\n"
        )
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("camera")
    }

    /// What it was run with, the earliest first, each once: its picture has an end, and then it is run again.
    fn names(&self) -> Vec<String> {
        let mut names = self.runs();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// What each run of it was, the earliest first.
    fn runs(&self) -> Vec<String> {
        let names = std::fs::read_to_string(self.folder.path().join("names")).unwrap_or_default();
        names.split_terminator('\0').map(str::to_owned).collect()
    }
}

#[test]
fn of_fifty_templates_two_run_while_two_are_watched() {
    let camera = Camera::new();
    let settings: String = (0..50).map(|n| camera.point(&format!("site{n}/*"), &format!("{n}:{{1}}"), "")).collect();
    let daemon = Daemon::start(settings);
    let one = Viewer::tcp(daemon.mms, "site7/front");
    let two = Viewer::tcp(daemon.mms, "SITE31/front");
    let again = Viewer::tcp(daemon.mms, "site7/front");
    [&one, &two, &again].iter().for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    assert_eq!(children_of(daemon.id()).len(), 2);
    assert_eq!(camera.names(), ["7:front", "31:front"]);
    let up = |name: &str| daemon.metric("wmrelay_source_up", &[("point", name)]);
    assert_eq!((up("site7/*"), up("site31/*"), up("site8/*")), (1.0, 1.0, 0.0));
    let joins = |name: &str| daemon.metric("wmrelay_joins_total", &[("point", name)]);
    assert_eq!((joins("site7/*"), joins("site31/*")), (2.0, 1.0));
    // Whoever is the last of one name ends its child, and no other.
    drop(again);
    drop(two);
    wait_until("the second child ends", LIMIT, || children_of(daemon.id()).len() == 1);
    one.wait_for_packets(20, LIMIT);
    drop(one);
    wait_until("the first child ends", LIMIT, || children_of(daemon.id()).is_empty());
    assert_eq!((up("site7/*"), up("site31/*")), (0.0, 0.0));
    // And it begins anew.
    Viewer::tcp(daemon.mms, "site7/front").wait_for_packets(5, LIMIT);
    assert!(daemon.stop().success());
}

#[test]
fn of_fifty_templates_that_transcode_two_do_while_two_are_watched() {
    if !ready("of_fifty_templates_that_transcode_two_do_while_two_are_watched", FFMPEG) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let point = |n: u32| {
        let site = folder.path().join(n.to_string());
        std::fs::create_dir(&site).unwrap();
        std::os::unix::fs::symlink(camera_file(), site.join("front.mp4")).unwrap();
        format!(
            "[[publishing_point]]\nname = \"site{n}/*\"\nsource = {{ type = \"ffmpeg\", input = {:?}, profile = \"wmp9\", linger_s = 1 }}\n",
            site.join("{1}.mp4")
        )
    };
    let daemon = Daemon::start((0..50).map(point).collect::<String>());
    let children = |profile: &str| daemon.metric("wmrelay_transcode_children", &[("profile", profile)]);
    assert!(children_of(daemon.id()).is_empty(), "nobody watches");
    let viewers = ["site7/front", "SITE31/front", "site7/front"].map(|name| watch(&daemon, name));
    viewers.iter().for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    // By the kernel's word, not only by ours.
    let programs = || -> Vec<String> {
        let names = children_of(daemon.id()).into_iter().map(|child| std::fs::read_to_string(format!("/proc/{child}/comm")));
        names.map(|name| name.unwrap_or_default().trim().to_owned()).collect()
    };
    assert_eq!((programs(), children("wmp9")), (vec!["ffmpeg".to_owned(); 2], 2.0));
    stays("two children", Duration::from_secs(1), || programs().len() == 2);
    let restarts = daemon.metric("wmrelay_transcode_restarts_total", &[]);
    assert_eq!(restarts, 0.0, "they are the first ones");
    let [one, two, again] = viewers;
    drop((two, again));
    wait_until("the child that nobody watches any more ends", LIMIT, || programs().len() == 1);
    one.wait_for_packets(20, LIMIT);
    assert_eq!((one.ended(), children("wmp9")), (None, 1.0));
    drop(one);
    wait_until("the last child ends", LIMIT, || children_of(daemon.id()).is_empty());
    assert_eq!(daemon.metric("wmrelay_source_up", &[]), 0.0);
}

#[test]
fn of_templates_of_cameras_only_the_one_that_is_watched_connects() {
    let test = "of_templates_of_cameras_only_the_one_that_is_watched_connects";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = support::camera::Camera::start(test, &[H264, A_LAW], None) else { return };
    let unwatched = TcpListener::bind("127.0.0.1:0").unwrap();
    unwatched.set_nonblocking(true).unwrap();
    let point = |name: String, address: std::net::SocketAddr| {
        format!(
            "[[publishing_point]]\nname = \"{name}-*\"\nsource = {{ type = \"camera\", url = \"rtsp://{address}/{{1}}\", linger_s = 0 }}\n"
        )
    };
    let others = unwatched.local_addr().unwrap();
    let mut settings: String = (0..20).map(|n| point(format!("shed{n}"), others)).collect();
    settings.push_str(&point("yard".to_owned(), camera.address));
    let daemon = Daemon::start(settings);
    let decoded = player::ffmpeg(&daemon.url("mmst", "yard-cam"), 2).finish(LIMIT);
    assert!(decoded.status.success(), "{}", decoded.stderr);
    let pictures = of_stream(&frames(&decoded.stdout), video_stream(&decoded.stdout));
    assert!(pictures.len() >= 15, "{} pictures\n{}", pictures.len(), decoded.stderr);
    wait_until("it leaves the camera", LIMIT, || daemon.log().contains("left, nobody watches"));
    let connects = |result: &str| daemon.metric("wmrelay_camera_connects_total", &[("result", result)]);
    assert_eq!((connects("played"), connects("failed")), (1.0, 0.0), "{}", daemon.log());
    assert!(unwatched.accept().is_err(), "one that nobody watches was connected to");
    // And it would be: by whoever watches.
    let _player = player::ffmpeg(&daemon.url("mmst", "shed7-cam"), 1);
    wait_until("a connection", LIMIT, || unwatched.accept().is_ok());
}

#[test]
fn what_viewers_name_reaches_the_program_as_it_is_or_not_at_all() {
    let camera = Camera::new();
    let daemon = Daemon::start(camera.point("cam-*", "{1}", "") + &camera.point("two-*-*", "a={2};b={1}", ""));
    let long = "x".repeat(2000);
    let hostile = ["../x", "a/b", "..\\x", "x\u{7}", "x\r\ny", "-version", "x?k=$(id)", long.as_str()];
    for name in hostile {
        let name = format!("cam-{name}");
        assert_ne!(open_result(daemon.mms, &name), 0, "{name:?}");
        // Over HTTP too, where each byte can be said.
        let path: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let status = http_get(daemon.http, &format!("/{path}")).0;
        assert!(matches!(status, 400 | 404), "{name:?}: {status}");
    }
    for path in ["/cam-%00", "/cam-x%00y", "/cam-%2e%2e%2fx", "/cam-../x", "/cam-%ff"] {
        let status = http_get(daemon.http, path).0;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    assert_eq!(camera.names(), [""; 0]);
    let taken = ["$(touch x)", "`touch x`;touch x|touch x&", "a b  c", "'\"*~{1}", "Köln ☃", ".hidden", "%00"];
    for name in taken {
        assert_eq!(open_result(daemon.mms, &format!("cam-{name}")), 0, "{name:?}");
        wait_until("its child's end", LIMIT, || children_of(daemon.id()).is_empty());
    }
    assert_eq!(camera.names(), taken);
    assert!(!camera.folder.path().join("x").exists() && !daemon.folder().join("x").exists());
    assert_eq!(open_result(daemon.mms, "two-{2}-$HOME"), 0);
    assert_eq!(camera.names().last().unwrap(), "a=$HOME;b={2}");
}

#[test]
fn a_name_of_its_own_comes_before_templates() {
    let camera = Camera::new();
    let settings = camera.point("*", "any {1}", "")
        + &camera.point("cam-*", "cam {1}", "")
        + &camera.point("cam-1", "one", "")
        + &camera.point("cam-b*", "b {1}", "");
    let daemon = Daemon::start(settings);
    // What is not transcoded has one profile, whatever is asked for.
    for (name, argument) in [("cam-1", "one"), ("Cam-2?profile=wmp64", "cam 2"), ("cam-b2", "b 2"), ("x", "any x")] {
        Viewer::tcp(daemon.mms, name).wait_for_packets(2, LIMIT);
        assert_eq!(camera.names().last().unwrap(), argument, "{name}");
    }
}

#[test]
fn names_at_once_are_limited_and_those_that_bring_nothing_leave_nothing_behind() {
    let camera = Camera::new();
    let daemon = Daemon::start(camera.point("cam-*", "{1}", "at_once = 3\n"));
    let playing: Vec<_> = ["1", "2", "3"].map(|name| Viewer::tcp(daemon.mms, &format!("cam-{name}"))).into();
    playing.iter().for_each(|viewer| viewer.wait_for_packets(5, LIMIT));
    let refused = || daemon.metric("wmrelay_refusals_total", &[("cause", "mirror_full")]);
    for n in 4..24 {
        assert_ne!(open_result(daemon.mms, &format!("cam-{n}")), 0);
    }
    assert_eq!((refused(), children_of(daemon.id()).len()), (20.0, 3));
    // One that is live already is none more.
    Viewer::tcp(daemon.mms, "cam-2").wait_for_packets(5, LIMIT);
    playing.iter().for_each(Viewer::assert_undisturbed);
    assert_eq!(camera.names(), ["1", "2", "3"]);
    drop(playing);
    wait_until("all children end", LIMIT, || children_of(daemon.id()).is_empty());
    // More of those that fail than there is room for at once, one after the other.
    for n in 0..6 {
        assert_ne!(open_result(daemon.mms, &format!("cam-broken{n}")), 0);
    }
    // The same again and again is not run again and again.
    for _ in 0..5 {
        assert_ne!(open_result(daemon.mms, "cam-broken5"), 0);
    }
    let runs = camera.runs();
    // Once for each of the six that ask would be six; a busy machine may fit a second attempt in before who waits is told.
    assert!(runs.iter().filter(|name| *name == "broken5").count() <= 4, "{runs:?}");
    let good = Viewer::tcp(daemon.mms, "cam-good");
    good.wait_for_packets(5, LIMIT);
    stays("one child", Duration::from_millis(300), || children_of(daemon.id()).len() == 1);
    assert_eq!(daemon.metric("wmrelay_source_up", &[("point", "cam-*")]), 1.0);
}

#[test]
fn names_that_bring_nothing_hold_an_address_up_for_source_timeout_s() {
    let camera = Camera::new();
    let daemon = Daemon::start(camera.point("cam-*", "{1}", "source_timeout_s = 10\n"));
    let ask = |name: String| {
        let mut control = Control::connect(daemon.mms);
        control.send(mms::CONNECT, &mms::connect_body(support::viewer::PLAYER));
        control.expect(mms::CONNECTED, LIMIT);
        control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
        control.expect(mms::FUNNEL_CONNECTED, LIMIT);
        control.send(mms::OPEN_FILE, &mms::open_body(&name));
        mms::result_of(&control.expect(mms::OPENED, LIMIT))
    };
    let busy = || daemon.metric("wmrelay_refusals_total", &[("cause", "mirror_busy")]);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|n| scope.spawn(move || ask(format!("cam-silent{n}")))).collect();
        wait_until("eight children", LIMIT, || children_of(daemon.id()).len() == 8);
        assert_ne!(open_result(daemon.mms, "cam-good"), 0);
        assert_eq!(busy(), 1.0);
        // They are refused when their time has come, and so hold nothing any more, though nothing ever came.
        for asked in asking {
            assert_ne!(asked.join().unwrap(), 0);
        }
    });
    // Their places are free a moment after their children have ended.
    wait_until("a place", LIMIT, || open_result(daemon.mms, "cam-good") == 0);
    Viewer::tcp(daemon.mms, "cam-good").wait_for_packets(5, LIMIT);
}

#[test]
fn a_template_of_another_server_asks_that_one() {
    let upstream = Daemon::start("[[publishing_point]]\nname = \"studio 1\"\nsource = { type = \"demo\" }\n");
    let pull = |name: &str, scheme: &str, address: std::net::SocketAddr| {
        format!(
            "[[publishing_point]]\nname = \"{name}-*\"\ntitle = \"Studio {{1}}\"\nsource = {{ type = \"pull\", linger_s = 0, url = \"{scheme}://{address}/studio%20{{1}}\" }}\n"
        )
    };
    let daemon = Daemon::start(
        pull("mms", "mmst", upstream.mms) + &pull("http", "http", upstream.http) + &pull("rtsp", "rtspt", upstream.rtsp),
    );
    for name in ["mms", "http", "rtsp"] {
        let viewer = Viewer::tcp(daemon.mms, &format!("{name}-1"));
        viewer.wait_for_packets(20, LIMIT);
        assert_eq!(open_result(daemon.mms, &format!("{name}-2")), FILE_NOT_FOUND, "{name}");
        assert_eq!(daemon.metric("wmrelay_source_up", &[]), 1.0);
        drop(viewer);
        wait_until("nobody pulls", LIMIT, || upstream.metric("wmrelay_viewers", &[]) == 0.0);
        wait_until("the loan's end", LIMIT, || daemon.metric("wmrelay_source_up", &[]) == 0.0);
    }
    let (status, playlist) = http_get(daemon.http, "/mms-1.asx");
    assert!(status == 200 && playlist.contains("Studio 1"), "{playlist}");
}

#[test]
fn a_template_of_files_plays_each_while_it_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/demo.asf");
    for name in ["one.asf", ".hidden.asf", "two words.asf"] {
        std::fs::copy(&demo, folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("{1}.asf");
    let daemon =
        Daemon::start(format!("[[publishing_point]]\nname = \"clip-*\"\nsource = {{ type = \"file\", path = {path:?} }}\n"));
    for name in ["clip-three", "clip-.hidden", "clip-../one", "clip-.", "clip-one.asf/../one"] {
        assert_ne!(open_result(daemon.mms, name), 0, "{name}");
    }
    let viewers = ["clip-one", "clip-two words"].map(|name| Viewer::tcp(daemon.mms, name));
    viewers.iter().for_each(|viewer| viewer.wait_for_packets(20, LIMIT));
    assert_eq!(daemon.metric("wmrelay_source_up", &[("point", "clip-*")]), 2.0);
}
