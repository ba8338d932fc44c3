//! HTTP to real viewers: one name, played by whatever asks for it, over whichever media port.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::player::{self, Vlc, assert_clip_over_and_over, frames, of_stream};
use support::publisher::ffmpeg_push;
use support::ready;
use support::viewer::wait_for_source;

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const VLC: &[Need] = &[Program("ffmpeg"), Program("cvlc")];
const MPLAYER: &[Need] = &[Program("ffmpeg"), Program("mplayer")];
const MPV: &[Need] = &[Program("ffmpeg"), Program("mpv")];

/// A daemon with nothing said has the built-in demo.
const NOTHING: &str = "";
const PUSH: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
const MINUTE: Duration = Duration::from_secs(60);

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
