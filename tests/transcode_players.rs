//! Each kind of input, made what old players decode, in each kind of player: FFmpeg, VLC, MPlayer and GStreamer at once, on one child.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::HashSet;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use support::Need::{self, Program};
use support::camera::{A_LAW, AAC, CAMERA, Camera, H264, MJPEG};
use support::daemon::Daemon;
use support::gstreamer::{self, GSTREAMER};
use support::inputs::{CAMERA_FILE_RATE, codecs, listens, send_camera, send_hls, watch};
use support::player::{self, Vlc, frames, of_stream, video_stream};
use support::process::children_of;
use support::viewer::Viewer;
use support::{ready, wait_until};

/// Other tests and other programs may want the processor too.
const LIMIT: Duration = Duration::from_secs(60);
const PLAYERS: &[Need] = &[Program("ffmpeg"), Program("ffprobe"), Program("cvlc"), Program("mplayer")];
/// What a profile for players from Windows Media Player 7 on says, as ffprobe calls it: "a" and 1 is WMA 2.
const WMP9: [&str; 2] = ["wmv2,video,WMV2,0", "wmav2,audio,a[1][0][0]"];
/// Pictures that each player has to show.
const PICTURES: usize = 30;

fn is_ready(test: &str, more: &[Need]) -> bool {
    ready(test, &[PLAYERS, GSTREAMER, more].concat())
}

/// A daemon whose `cam` is that input, transcoded while it is watched.
#[track_caller]
fn daemon(input: &str, more: &str) -> Daemon {
    Daemon::start(format!(
        "[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"ffmpeg\", input = {input:?}, profile = \"wmp9\", \
         start = \"watched\", linger_s = 1{more} }}\n"
    ))
}

/// All four players at once: pictures in each, sound where it tells of sound, from the one child that `viewer` keeps going.
#[track_caller]
fn assert_all_play(daemon: &Daemon, viewer: Viewer, rate: u32) {
    viewer.wait_for_packets(5, LIMIT);
    let file = daemon.folder().join("pictures");
    let mut vlc = Vlc::play(&format!("mmsh://{}/cam", daemon.http));
    let mut gstreamer = gstreamer::playbin_to(&daemon.rtsp_url("rtspt", "cam"), &file);
    let ffmpeg = player::ffmpeg(&daemon.url("mmst", "cam"), 3);
    let url = daemon.url("mmst", "cam");
    let mplayer = std::thread::spawn(move || player::mplayer(&url, PICTURES));

    let decoded = ffmpeg.finish(LIMIT);
    assert!(decoded.status.success(), "FFmpeg: {}", decoded.stderr);
    let (all, video) = (frames(&decoded.stdout), video_stream(&decoded.stdout));
    let pictures = of_stream(&all, video);
    let least = usize::try_from(rate * 3 * 3 / 4).unwrap();
    assert!(pictures.len() >= least, "FFmpeg: {} pictures of {least}\n{}", pictures.len(), decoded.stderr);
    assert!(pictures.windows(2).all(|pair| pair[0].time < pair[1].time), "FFmpeg: times go back");
    assert_moves("FFmpeg", pictures.iter().map(|picture| picture.md5.as_str()));
    assert!(all.iter().any(|frame| frame.stream != video), "FFmpeg: no sound");
    let shown = mplayer.join().expect("MPlayer plays");
    assert_eq!(shown.len(), PICTURES, "MPlayer");
    assert_moves("MPlayer", shown.iter().map(String::as_str));
    vlc.wait_for_pictures(PICTURES as u64, LIMIT);
    gstreamer::wait_for_pictures(&mut gstreamer, &file, PICTURES as u64, LIMIT);
    drop(gstreamer);
    let written = gstreamer::pictures_in(&file);
    assert_moves("GStreamer", written.iter().map(|picture| picture.md5.as_str()));

    assert_eq!(codecs(&daemon.url("mmst", "cam")), WMP9);
    let children = daemon.metric("wmrelay_transcode_children", &[("profile", "wmp9")]);
    assert_eq!((children, children_of(daemon.id()).len()), (1.0, 1), "one child for all of them");
    assert!(!daemon.log().contains("copies_video=true"), "{}", daemon.log());
    // It selected the pictures alone: packets that hold none of them are not for it.
    let seen = viewer.seen();
    assert_eq!((seen.backward, seen.time_backward, &seen.ended), (0, 0, &None), "{seen:?}");
    drop((viewer, vlc));
    wait_until("the child's end", LIMIT, || children_of(daemon.id()).is_empty());
}

/// Most pictures differ from the others.
#[track_caller]
fn assert_moves<'a>(player: &str, md5s: impl Iterator<Item = &'a str>) {
    let all: Vec<&str> = md5s.collect();
    let different: HashSet<&str> = all.iter().copied().collect();
    assert!(different.len() > all.len() / 2, "{player}: {} different pictures of {}", different.len(), all.len());
}

/// A track of a camera with the pictures of the other inputs: quarter VGA, and moving.
fn quarter_vga(track: &str) -> String {
    track.replace("width=176,height=144", "width=320,height=240")
}

#[test]
fn an_rtsp_server_with_h264_and_aac() {
    let test = "an_rtsp_server_with_h264_and_aac";
    if !is_ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[&quarter_vga(H264), AAC], None) else { return };
    let daemon = daemon(&camera.url(), "");
    assert_all_play(&daemon, watch(&daemon, "cam"), 15);
}

#[test]
fn a_motion_jpeg_camera() {
    let test = "a_motion_jpeg_camera";
    if !is_ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[&quarter_vga(MJPEG), A_LAW], None) else { return };
    let daemon = daemon(&camera.url(), "");
    assert_all_play(&daemon, watch(&daemon, "cam"), 10);
}

#[test]
fn an_hls_folder() {
    if !is_ready("an_hls_folder", &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let playlist = folder.path().join("x.m3u8");
    let _hls = send_hls(&playlist);
    let daemon = daemon(&playlist.display().to_string(), "");
    assert_all_play(&daemon, watch(&daemon, "cam"), CAMERA_FILE_RATE);
}

#[test]
fn a_push_by_rtmp() {
    if !is_ready("a_push_by_rtmp", &[]) {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("rtmp://{free}/live/key");
    let daemon = daemon(&url, ", input_arguments = [\"-listen\", \"1\"]");
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| watch(&daemon, "cam"));
        wait_until("the listener", LIMIT, || listens(free.port()));
        let _publisher = send_camera(&["-f", "flv", &url]);
        assert_all_play(&daemon, viewer.join().unwrap(), CAMERA_FILE_RATE);
    });
}

#[test]
fn mpeg_ts_over_udp() {
    if !is_ready("mpeg_ts_over_udp", &[]) {
        return;
    }
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _sender = send_camera(&["-f", "mpegts", &format!("udp://{free}?pkt_size=1316")]);
    let daemon = daemon(&format!("udp://{free}"), "");
    assert_all_play(&daemon, watch(&daemon, "cam"), CAMERA_FILE_RATE);
}
