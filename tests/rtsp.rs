//! RTSP to real players: live streams over TCP and UDP, what each does where UDP is refused, how a stream ends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::archive::decoded;
use support::daemon::Daemon;
use support::gstreamer::{self, GSTREAMER, Transport, pictures_in};
use support::media::data;
use support::player::{self, Frame, assert_clip_over_and_over, frames, of_stream, video_stream};
use support::process::{Finished, Process, children_of, send_signal};
use support::publisher::{clip, ffmpeg_push};
use support::rtsp::Connection;
use support::viewer::wait_for_source;
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MPLAYER: &[Need] = &[Program("ffmpeg"), Program("mplayer")];
const MPV: &[Need] = &[Program("ffmpeg"), Program("mpv")];

const PUSH: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
/// All ports that players choose by themselves.
const WIDE_POOL: &str = "[udp]\nclient_ports = \"1024-65535\"\n";
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures of three laps of the clip and a half.
const SOME: u64 = 105;

/// A daemon and an ffmpeg that publishes the clip to `cam1`.
#[track_caller]
fn pushed(settings: &str) -> (Daemon, Process) {
    let daemon = Daemon::start(format!("{settings}{PUSH}"));
    let publisher = ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    wait_for_source(&daemon, "cam1");
    (daemon, publisher)
}

/// The ports that an ffmpeg takes, from this one on.
fn ports(first: u16) -> [String; 4] {
    ["-min_port".into(), first.to_string(), "-max_port".into(), (first + 98).to_string()]
}

/// An ffmpeg that decodes over UDP, to ports from this one on.
#[track_caller]
fn ffmpeg_over_udp(url: &str, first: u16, seconds: u32) -> Process {
    let ports = ports(first);
    let options: Vec<&str> = ["-rtsp_transport", "udp"].into_iter().chain(ports.iter().map(String::as_str)).collect();
    player::ffmpeg_with(&options, url, seconds)
}

/// Checks that an ffmpeg played pictures of the clip, none missing, and sound.
#[track_caller]
fn assert_played(done: &Finished, least: usize) {
    let stream = video_stream(&done.stdout);
    let frames = frames(&done.stdout);
    let pictures = of_stream(&frames, stream);
    assert!(done.status.success(), "{}", done.stderr);
    assert!(pictures.len() >= least, "{} pictures\n{}", pictures.len(), done.stderr);
    assert!(frames.iter().any(|frame| frame.stream != stream), "no sound");
    assert_clip_over_and_over(md5s(&pictures));
}

fn md5s(pictures: &[Frame]) -> impl Iterator<Item = &str> {
    pictures.iter().map(|frame| frame.md5.as_str())
}

#[track_caller]
fn assert_sessions(daemon: &Daemon, connections: f64, [tcp, udp]: [f64; 2]) {
    let joins = |transport| daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", transport)]);
    let sessions = daemon.metric("wmrelay_sessions_total", &[("protocol", "rtsp")]);
    assert_eq!((sessions, joins("tcp"), joins("udp")), (connections, tcp, udp), "connections, plays over TCP, over UDP");
}

#[track_caller]
fn assert_refused(daemon: &Daemon, cause: &str, times: f64) {
    assert_eq!(daemon.metric("wmrelay_transport_fallbacks_total", &[("cause", cause)]), times, "UDP refused: {cause}");
    assert_eq!(daemon.metric("wmrelay_transport_fallbacks_total", &[]), times, "UDP refused for anything");
}

#[test]
fn ffmpeg_plays_live_over_tcp() {
    if !ready("ffmpeg_plays_live_over_tcp", FFMPEG) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    assert_played(&player::ffmpeg_with(&["-rtsp_transport", "tcp"], &daemon.rtsp_url("rtsp", "cam1"), 4).finish(MINUTE), 55);
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 0.0);
}

#[test]
fn ffmpeg_plays_live_over_udp() {
    if !ready("ffmpeg_plays_live_over_udp", FFMPEG) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    assert_played(&ffmpeg_over_udp(&daemon.rtsp_url("rtsp", "cam1"), 1100, 4).finish(MINUTE), 55);
    assert_sessions(&daemon, 1.0, [0.0, 1.0]);
    assert_refused(&daemon, "outside_pool", 0.0);
}

/// FFmpeg proposes ports from 5000 on.
#[test]
fn ffmpeg_with_ports_outside_the_pool_goes_over_to_tcp_on_the_same_connection() {
    if !ready("ffmpeg_with_ports_outside_the_pool_goes_over_to_tcp_on_the_same_connection", FFMPEG) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    assert_played(&player::ffmpeg(&daemon.rtsp_url("rtsp", "cam1"), 4).finish(MINUTE), 55);
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 1.0);
}

/// Leases all even ports from `first` on, `count` of them, with the odd ones behind them; for as long as the connections live.
#[track_caller]
fn lease(daemon: &Daemon, first: u16, count: u16) -> Vec<Connection> {
    let lease = |port: u16| {
        let mut other = Connection::open(daemon.rtsp, "cam1");
        other.granted("DESCRIBE", "", "");
        other.granted("SETUP", "video", &format!("Transport: RTP/AVP/UDP;unicast;client_port={port}-{}\r\n", port + 1));
        other
    };
    (0..count).map(|number| lease(first + 2 * number)).collect()
}

#[test]
fn ffmpeg_with_ports_that_others_have_goes_over_to_tcp_on_the_same_connection() {
    if !ready("ffmpeg_with_ports_that_others_have_goes_over_to_tcp_on_the_same_connection", FFMPEG) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    let _others = lease(&daemon, 1200, 5);
    let options = ["-min_port", "1200", "-max_port", "1209"];
    assert_played(&player::ffmpeg_with(&options, &daemon.rtsp_url("rtsp", "cam1"), 4).finish(MINUTE), 55);
    assert_sessions(&daemon, 6.0, [1.0, 0.0]);
    assert_refused(&daemon, "taken", 1.0);
}

/// Plays `cam1` with GStreamer until it has decoded some pictures, and checks them.
#[track_caller]
fn gstreamer_plays(daemon: &Daemon, play: impl FnOnce(&PathBuf) -> Process) {
    let out = daemon.folder().join("pictures");
    let mut player = play(&out);
    gstreamer::wait_for_pictures(&mut player, &out, SOME, MINUTE);
    drop(player);
    assert_clip_over_and_over(md5s(&pictures_in(&out)));
}

#[test]
fn gstreamer_plays_live_over_tcp() {
    if !ready("gstreamer_plays_live_over_tcp", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    gstreamer_plays(&daemon, |out| gstreamer::pictures_to(&daemon.rtsp_url("rtsp", "cam1"), Transport::Tcp, out));
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
}

#[test]
fn gstreamer_plays_live_over_udp() {
    if !ready("gstreamer_plays_live_over_udp", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    gstreamer_plays(&daemon, |out| gstreamer::pictures_to(&daemon.rtsp_url("rtsp", "cam1"), Transport::Udp(1300), out));
    assert_sessions(&daemon, 1.0, [0.0, 1.0]);
    assert_refused(&daemon, "outside_pool", 0.0);
}

#[test]
fn gstreamers_player_plays_live_over_tcp() {
    if !ready("gstreamers_player_plays_live_over_tcp", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    gstreamer_plays(&daemon, |out| gstreamer::playbin_to(&daemon.rtsp_url("rtspt", "cam1"), out));
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 0.0);
}

#[test]
fn gstreamers_player_plays_live_over_udp() {
    if !ready("gstreamers_player_plays_live_over_udp", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed(WIDE_POOL);
    gstreamer_plays(&daemon, |out| gstreamer::playbin_to(&daemon.rtsp_url("rtspu", "cam1"), out));
    assert_sessions(&daemon, 1.0, [0.0, 1.0]);
}

/// By itself the player takes ports that the system gives it.
#[test]
fn gstreamers_player_with_ports_outside_the_pool_goes_over_to_tcp_on_the_same_connection() {
    if !ready("gstreamers_player_with_ports_outside_the_pool_goes_over_to_tcp_on_the_same_connection", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    gstreamer_plays(&daemon, |out| gstreamer::playbin_to(&daemon.rtsp_url("rtsp", "cam1"), out));
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 1.0);
}

#[test]
fn gstreamer_with_ports_that_others_have_goes_over_to_tcp_on_the_same_connection() {
    if !ready("gstreamer_with_ports_that_others_have_goes_over_to_tcp_on_the_same_connection", GSTREAMER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    let _others = lease(&daemon, 1400, 50);
    gstreamer_plays(&daemon, |out| gstreamer::pictures_to(&daemon.rtsp_url("rtsp", "cam1"), Transport::Any(1400), out));
    assert_sessions(&daemon, 51.0, [1.0, 0.0]);
    assert_refused(&daemon, "taken", 1.0);
}

/// mpv wants TCP by itself.
#[test]
fn mpv_plays_live() {
    if !ready("mpv_plays_live", MPV) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    // Its status line may miss the last one.
    assert!(player::mpv(&daemon.rtsp_url("rtsp", "cam1"), 60) >= 59);
    assert_sessions(&daemon, 1.0, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 0.0);
}

#[test]
fn mpv_plays_live_over_udp() {
    if !ready("mpv_plays_live_over_udp", MPV) {
        return;
    }
    let (daemon, _publisher) = pushed(WIDE_POOL);
    assert!(player::mpv_with(&["--rtsp-transport=udp"], &daemon.rtsp_url("rtsp", "cam1"), 60) >= 59);
    assert_sessions(&daemon, 1.0, [0.0, 1.0]);
}

/// It is told to use UDP, and has no choice: it says what was refused.
#[test]
fn mpv_with_udp_alone_and_ports_outside_the_pool_gives_up() {
    if !ready("mpv_with_udp_alone_and_ports_outside_the_pool_gives_up", MPV) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    let mut command = Command::new("mpv");
    command.args(["--no-config", "--vo=null", "--ao=null", "--rtsp-transport=udp", &daemon.rtsp_url("rtsp", "cam1")]);
    let done = Process::start(command).finish(MINUTE);
    assert!(
        !done.status.success() && format!("{}{}", done.stdout, done.stderr).contains("461"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    assert_sessions(&daemon, 1.0, [0.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 1.0);
}

/// Its own RTSP is for other servers; then it takes FFmpeg's, which asks for UDP first.
#[test]
fn mplayer_plays_live_over_tcp_once_udp_is_refused() {
    if !ready("mplayer_plays_live_over_tcp_once_udp_is_refused", MPLAYER) {
        return;
    }
    let (daemon, _publisher) = pushed("");
    let pictures = player::mplayer(&daemon.rtsp_url("rtsp", "cam1"), 60);
    assert_eq!(pictures.len(), 60);
    assert_clip_over_and_over(pictures.iter().map(String::as_str));
    // Two connections of its own before FFmpeg's.
    let sessions = daemon.metric("wmrelay_sessions_total", &[("protocol", "rtsp")]);
    assert_sessions(&daemon, sessions, [1.0, 0.0]);
    assert_refused(&daemon, "outside_pool", 1.0);
}

/// FFmpeg when we close the connection, GStreamer at our word.
#[test]
fn players_end_with_the_stream() {
    if !ready("players_end_with_the_stream", GSTREAMER) {
        return;
    }
    let (daemon, publisher) = pushed("");
    let url = daemon.rtsp_url("rtsp", "cam1");
    let outs = ["tcp", "udp"].map(|name| daemon.folder().join(name));
    let mut by_ffmpeg = [player::ffmpeg_with(&["-rtsp_transport", "tcp"], &url, 0), ffmpeg_over_udp(&url, 1600, 0)];
    let mut by_gstreamer =
        [gstreamer::pictures_to(&url, Transport::Tcp, &outs[0]), gstreamer::pictures_to(&url, Transport::Udp(1700), &outs[1])];
    for (player, out) in by_gstreamer.iter_mut().zip(&outs) {
        gstreamer::wait_for_pictures(player, out, SOME, MINUTE);
    }
    wait_until("ffmpeg over UDP and TCP", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 4.0);
    for player in &mut by_ffmpeg {
        wait_until("pictures of ffmpeg's", MINUTE, || frames(&player.stdout()).len() > 60);
    }
    publisher.signal("INT");
    publisher.finish(MINUTE);
    for player in by_ffmpeg {
        assert_played(&player.finish(MINUTE), 30);
    }
    for (player, out) in by_gstreamer.into_iter().zip(&outs) {
        let done = player.finish(MINUTE);
        assert!(done.status.success(), "{}", done.stderr);
        assert_clip_over_and_over(md5s(&pictures_in(out)));
    }
    wait_until("no viewer is left", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 0.0);
    assert_sessions(&daemon, 4.0, [2.0, 2.0]);
}

/// Another header: FFmpeg and GStreamer could not use it, so their connections end, and they come back to the new one.
#[test]
fn players_come_back_when_the_header_changes() {
    if !ready("players_come_back_when_the_header_changes", GSTREAMER) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("pictures"));
    std::os::unix::fs::symlink(clip(), &source).unwrap();
    let mut argv: Vec<String> =
        ["ffmpeg", "-nostdin", "-loglevel", "warning", "-re", "-stream_loop", "-1", "-i"].map(str::to_owned).into();
    argv.push(source.display().to_string());
    argv.extend(["-c", "copy", "-packet_size", "1400", "-f", "asf", "-"].map(str::to_owned));
    let argv = serde_json::to_string(&argv).unwrap(); // a JSON array of strings is a TOML one
    let point = "[[publishing_point]]\nname = \"camera\"\nsource";
    let daemon = Daemon::start(format!("{point} = {{ type = \"exec\", argv = {argv}, start = \"always\" }}\n"));
    wait_for_source(&daemon, "camera");
    let url = daemon.rtsp_url("rtsp", "camera");
    let mut by_ffmpeg = [player::ffmpeg_with(&["-rtsp_transport", "tcp"], &url, 0), ffmpeg_over_udp(&url, 1800, 0)];
    let mut by_gstreamer = gstreamer::pictures_to(&url, Transport::Tcp, &out);
    for player in &mut by_ffmpeg {
        wait_until("pictures of ffmpeg's", MINUTE, || frames(&player.stdout()).len() > 60);
    }
    gstreamer::wait_for_pictures(&mut by_gstreamer, &out, 30, MINUTE);

    let other = data("vod-wmv2-wmav2-indexed.wmv");
    std::fs::remove_file(&source).unwrap();
    std::os::unix::fs::symlink(&other, &source).unwrap();
    let [child] = children_of(daemon.id())[..] else { panic!("one child is expected") };
    send_signal(child, "KILL");
    for player in by_ffmpeg {
        assert_played(&player.finish(MINUTE), 30);
    }
    by_gstreamer.finish(MINUTE);
    assert_clip_over_and_over(md5s(&pictures_in(&out)));
    assert_eq!(daemon.metric("wmrelay_session_ends_total", &[("reason", "stream_changed")]), 3.0);

    let expected: Vec<String> = decoded(&other)[&0].clone();
    let again = player::ffmpeg_with(&["-rtsp_transport", "tcp"], &url, 2).finish(MINUTE);
    let pictures = of_stream(&frames(&again.stdout), video_stream(&again.stdout));
    assert!(pictures.len() > 20, "{}", again.stderr);
    assert!(md5s(&pictures).all(|md5| expected.iter().any(|known| known == md5)), "pictures of something else");
}
