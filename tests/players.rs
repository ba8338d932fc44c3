//! Real players and a real encoder against a real daemon: what it is all for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::player::{self, Frame, Vlc, assert_clip_over_and_over, frames, of_stream};
use support::process::{Process, children_of, send_signal};
use support::publisher::{CLIP_FRAME_RATE, CLIP_SECONDS, clip, clip_for_ever, ffmpeg_push};
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_for, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const VLC: &[Need] = &[Program("ffmpeg"), Program("cvlc")];
const MPLAYER: &[Need] = &[Program("ffmpeg"), Program("mplayer")];
const MPV: &[Need] = &[Program("ffmpeg"), Program("mpv")];

/// A daemon with nothing said has the built-in demo.
const NOTHING: &str = "";
const PUSH: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
/// VLC's UDP port is always 7000, outside of the built-in pool.
const PUSH_AND_VLC_PORT: &str =
    "[udp]\nclient_ports = \"1024-5000,7000\"\n[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";

const MINUTE: Duration = Duration::from_secs(60);

/// A daemon and an ffmpeg that publishes the clip to `cam1`.
fn pushed(settings: &str) -> (Daemon, Process) {
    let daemon = Daemon::start(settings);
    let publisher = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");
    (daemon, publisher)
}

/// Decodes three seconds with ffmpeg and checks what can be checked of any stream.
#[track_caller]
fn three_seconds(url: &str, least: usize) -> Vec<Frame> {
    let decoded = player::ffmpeg(url, 3).finish(MINUTE);
    let frames = frames(&decoded.stdout);
    let pictures = of_stream(&frames, 0);
    assert!(decoded.status.success(), "{}", decoded.stderr);
    assert!(pictures.len() >= least, "{} pictures\n{}", pictures.len(), decoded.stderr);
    assert!(frames.iter().any(|frame| frame.stream == 1), "no sound");
    assert!(!decoded.stderr.contains("concealing"), "{}", decoded.stderr);
    assert_no_break(&pictures, 0.5);
    pictures
}

/// Times go forward, by less than `longest` seconds each.
#[track_caller]
fn assert_no_break(pictures: &[Frame], longest: f64) {
    for pair in pictures.windows(2) {
        let step = pair[1].time - pair[0].time;
        assert!(step > 0.0 && step < longest, "a step of {step:.3} s at {:.3} s", pair[0].time);
    }
}

fn md5s(pictures: &[Frame]) -> impl Iterator<Item = &str> {
    pictures.iter().map(|frame| frame.md5.as_str())
}

#[test]
fn ffmpeg_plays_the_demo() {
    if !ready("ffmpeg_plays_the_demo", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    three_seconds(&daemon.url("mmst", "demo"), 20);
}

#[test]
fn vlc_plays_the_demo_over_tcp() {
    if !ready("vlc_plays_the_demo_over_tcp", VLC) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    Vlc::play(&daemon.url("mmst", "demo")).wait_for_pictures(30, MINUTE);
    assert!(daemon.metric("wmrelay_joins_total", &[("transport", "tcp")]) >= 1.0);
}

/// One test for all of VLC over UDP: two of them would want port 7000 of one address at once.
#[test]
fn vlc_plays_over_udp() {
    if !ready("vlc_plays_over_udp", VLC) {
        return;
    }
    let demo = Daemon::start("[udp]\nclient_ports = \"1024-5000,7000\"\n");
    Vlc::play(&demo.url("mmsu", "demo")).wait_for_pictures(30, MINUTE);
    assert!(demo.metric("wmrelay_joins_total", &[("transport", "udp")]) >= 1.0);

    let (push, _publisher) = pushed(PUSH_AND_VLC_PORT);
    Vlc::play(&push.url("mmsu", "cam1")).wait_for_pictures(30, MINUTE);
    assert!(push.metric("wmrelay_joins_total", &[("transport", "udp")]) >= 1.0);
}

#[test]
fn mplayer_plays_the_demo() {
    if !ready("mplayer_plays_the_demo", MPLAYER) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    assert_eq!(player::mplayer(&daemon.url("mmst", "demo"), 40).len(), 40);
}

#[test]
fn mpv_plays_the_demo() {
    if !ready("mpv_plays_the_demo", MPV) {
        return;
    }
    let daemon = Daemon::start(NOTHING);
    // Its status line may miss the last one.
    assert!(player::mpv(&daemon.url("mmst", "demo"), 40) >= 39);
}

#[test]
fn ffmpeg_plays_what_ffmpeg_publishes() {
    if !ready("ffmpeg_plays_what_ffmpeg_publishes", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(PUSH);
    for (format, method) in [("asf_stream", "POST"), ("asf", "POST"), ("asf_stream", "PUT")] {
        let publisher = ffmpeg_push(format, method, &daemon.publish_url("", "cam1"));
        wait_for_source(&daemon, "cam1");
        let pictures = three_seconds(&daemon.url("mmst", "cam1"), 40);
        assert_clip_over_and_over(md5s(&pictures));
        publisher.signal("INT");
        publisher.finish(MINUTE);
        wait_until("the end of the source", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 0.0);
    }
}

#[test]
fn vlc_and_mplayer_play_what_ffmpeg_publishes() {
    if !ready("vlc_and_mplayer_play_what_ffmpeg_publishes", &[VLC, MPLAYER].concat()) {
        return;
    }
    let (daemon, _publisher) = pushed(PUSH);
    Vlc::play(&daemon.url("mmst", "cam1")).wait_for_pictures(30, MINUTE);
    let pictures = player::mplayer(&daemon.url("mmst", "cam1"), 45);
    assert_eq!(pictures.len(), 45);
    assert_clip_over_and_over(pictures.iter().map(String::as_str));
}

#[test]
fn a_second_publisher_is_told_so() {
    if !ready("a_second_publisher_is_told_so", FFMPEG) {
        return;
    }
    let (daemon, mut first) = pushed(PUSH);
    let second = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1")).finish(MINUTE);
    assert!(!second.status.success() || !second.stderr.is_empty(), "the second publisher was taken");
    assert!(first.runs(), "the first publisher had to go: {}", first.stderr());
    three_seconds(&daemon.url("mmst", "cam1"), 40);
}

/// Every picture of three laps, in order, at even times: the seam cannot be told from the rest.
#[test]
fn a_file_loop_runs_over_three_laps_without_a_break() {
    if !ready("a_file_loop_runs_over_three_laps_without_a_break", FFMPEG) {
        return;
    }
    let settings =
        format!("[[publishing_point]]\nname = \"loop\"\nsource = {{ type = \"file\", path = \"{}\" }}\n", clip().display());
    let daemon = Daemon::start(settings);
    wait_for_source(&daemon, "loop");
    let lap = (CLIP_SECONDS * CLIP_FRAME_RATE) as usize;
    let mut viewer = player::ffmpeg(&daemon.url("mmst", "loop"), 0);
    let pictures = player::wait_for_frames(&mut viewer, 3 * lap + lap / 2, MINUTE);
    assert_clip_over_and_over(md5s(&pictures));
    assert_no_break(&pictures, 0.25);
    // The clip's pictures over the time between first and last: laps neither stretched nor squeezed.
    let time = pictures[pictures.len() - 1].time - pictures[0].time;
    let nominal = (pictures.len() - 1) as f64 / f64::from(CLIP_FRAME_RATE);
    assert!((time - nominal).abs() < 0.1 * nominal, "{time:.2} s for {nominal:.2} s of pictures");
}

#[test]
fn vlc_plays_a_file_loop() {
    if !ready("vlc_plays_a_file_loop", VLC) {
        return;
    }
    let settings =
        format!("[[publishing_point]]\nname = \"loop\"\nsource = {{ type = \"file\", path = \"{}\" }}\n", clip().display());
    let daemon = Daemon::start(settings);
    wait_for_source(&daemon, "loop");
    Vlc::play(&daemon.url("mmst", "loop")).wait_for_pictures(u64::from(4 * CLIP_SECONDS * CLIP_FRAME_RATE), MINUTE);
}

/// Settings with an ffmpeg as the child process of `camera`.
fn child_source(start: &str) -> String {
    let mut argv = vec!["ffmpeg".to_owned()];
    argv.extend(clip_for_ever());
    argv.extend(["-f", "asf", "-"].map(str::to_owned));
    let argv = serde_json::to_string(&argv).unwrap(); // a JSON array of strings is a TOML one
    format!("[[publishing_point]]\nname = \"camera\"\nsource = {{ type = \"exec\", argv = {argv}, {start} }}\n")
}

#[test]
fn viewers_outlive_the_death_of_a_child_source() {
    if !ready("viewers_outlive_the_death_of_a_child_source", VLC) {
        return;
    }
    let daemon = Daemon::start(child_source("start = \"always\""));
    wait_for_source(&daemon, "camera");
    let mut ffmpeg = player::ffmpeg(&daemon.url("mmst", "camera"), 0);
    let mut vlc = Vlc::play(&daemon.url("mmst", "camera"));
    player::wait_for_frames(&mut ffmpeg, 30, MINUTE);
    vlc.wait_for_pictures(20, MINUTE);

    let first = only_child(&daemon);
    send_signal(first, "KILL");
    let second = wait_for("another child", MINUTE, || children_of(daemon.id()).into_iter().find(|child| *child != first));
    wait_for_source(&daemon, "camera");
    assert!(daemon.metric("wmrelay_source_restarts_total", &[("point", "camera")]) >= 1.0);

    // More than any player keeps in its buffers.
    let before = of_stream(&frames(&ffmpeg.stdout()), 0).len();
    let shown = vlc.shown().0;
    let pictures = player::wait_for_frames(&mut ffmpeg, before + 90, MINUTE);
    vlc.wait_for_pictures(shown + 60, MINUTE);
    // The new child begins at 0; the viewer must not see its clock go back, nor leap.
    assert_no_break(&pictures, 10.0);
    assert_eq!(only_child(&daemon), second, "the second child goes on");

    let id = daemon.id();
    assert!(daemon.stop().success());
    assert!(!std::path::Path::new(&format!("/proc/{second}")).exists(), "child {second} outlived the daemon {id}");
}

#[test]
fn a_watched_child_source_runs_with_its_viewers() {
    if !ready("a_watched_child_source_runs_with_its_viewers", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(child_source("start = \"watched\", linger_s = 1"));
    assert!(children_of(daemon.id()).is_empty(), "a child without a viewer");
    let viewer = Viewer::tcp(daemon.mms, "camera");
    viewer.wait_for_packets(20, MINUTE);
    only_child(&daemon);
    drop(viewer);
    wait_until("the child's end after its last viewer", MINUTE, || children_of(daemon.id()).is_empty());
    // And again, for the next one.
    Viewer::tcp(daemon.mms, "camera").wait_for_packets(20, MINUTE);
}

#[track_caller]
fn only_child(daemon: &Daemon) -> u32 {
    let children = children_of(daemon.id());
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// The yardstick itself: as many pictures as it should have, all different, and two players agree on them.
#[test]
fn the_clip_has_a_picture_for_every_place() {
    if !ready("the_clip_has_a_picture_for_every_place", MPLAYER) {
        return;
    }
    let pictures = (CLIP_SECONDS * CLIP_FRAME_RATE) as usize;
    assert_eq!(player::clip_pictures().len(), pictures);
    let shown = player::mplayer(&clip().display().to_string(), 2 * pictures);
    assert_eq!(shown.len(), pictures - 1, "MPlayer does not show the last picture of a file");
    assert_clip_over_and_over(shown.iter().map(String::as_str));
}
