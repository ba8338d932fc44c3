//! Sources that are killed again and again under fifty viewers, and under real players: nobody is lost, the slate comes and goes, and
//! nothing is left behind.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::camera::{A_LAW, AAC, CAMERA, Camera, H264};
use support::daemon::Daemon;
use support::gstreamer::{self, GSTREAMER};
use support::inputs::{listens, send_camera};
use support::player::{self, Frame, Vlc, frames, of_stream, video_stream};
use support::process::{Process, children_of, send_signal, zombies_of};
use support::viewer::Viewer;
use support::{Random, ready, wait_for, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);
/// What a daemon may take more after many turns; the allocator keeps some, and viewers' buffers come and go.
const GROWTH_KIB: u64 = 24 << 10;
/// So often something is killed.
const KILLS: u32 = 20;
/// A publishing point with a slate, behind its source.
const SLATE: &str = "fallback = { slate = \"It is not there\" }\nfallback_after_s = 1\n";

/// What a daemon holds.
struct Holds {
    resident_kib: u64,
    files: usize,
}

impl Holds {
    fn of(daemon: &Daemon) -> Self {
        Self { resident_kib: daemon.resident_kib(), files: daemon.open_files() }
    }

    /// No more than that is held now, and nothing is left of children.
    #[track_caller]
    fn assert_flat(&self, daemon: &Daemon) {
        let now = Self::of(daemon);
        eprintln!("resident {} KiB, then {}; {} files, then {}", self.resident_kib, now.resident_kib, self.files, now.files);
        assert!(now.resident_kib < self.resident_kib + GROWTH_KIB, "{} KiB, then {}", self.resident_kib, now.resident_kib);
        // A connection that was cut may be open for a moment.
        wait_until("no more files than before", MINUTE, || daemon.open_files() <= self.files + 1);
        assert_eq!(zombies_of(daemon.id()), 0);
    }
}

fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The child of an input that listens is killed, which its sender does not survive either; later another sender comes.
#[test]
fn a_transcoding_child_killed_twenty_times_under_fifty_viewers() {
    if !ready("a_transcoding_child_killed_twenty_times_under_fifty_viewers", FFMPEG) {
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("rtmp://{free}/live/key");
    // Pictures alone: viewers that select the first stream then get every packet.
    let daemon = Daemon::start(format!(
        "[window]\nseconds = 4\n[[profile]]\nname = \"pictures\"\nvideo = {{ codec = \"wmv2\" }}\ncopy = false\n\
         [[publishing_point]]\nname = \"cam1\"\n{SLATE}source = {{ type = \"ffmpeg\", input = {url:?}, profile = \"pictures\", \
         input_arguments = [\"-listen\", \"1\", \"-analyzeduration\", \"200000\"] }}\n"
    ));
    let send = || {
        wait_until("the listener", MINUTE, || listens(free.port()));
        send_camera(&["-an", "-f", "flv", &url])
    };
    // Slates are made by children too.
    let transcoder = || {
        let reads = |id: &u32| {
            std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&url))
        };
        children_of(daemon.id()).into_iter().find(reads)
    };
    let restarts = || daemon.metric("wmrelay_transcode_restarts_total", &[("point", "cam1")]);
    let mut sender = send();
    // The slate is of the source's own format once that is known, so that players go on with the header that they have.
    wait_until("the slate of its format", MINUTE, || {
        daemon.log().matches("slate made").count() >= 1 && daemon.metric("wmrelay_source_up", &[]) == 1.0
    });
    wait_until("the source", MINUTE, || !daemon.on_fallback("cam1").0);
    let (first, first_restarts) = (daemon.on_fallback("cam1").1, restarts());
    let viewers = Viewer::fifty(&daemon, "cam1", 4870);

    let mut random = Random(11);
    let mut steady = None;
    for round in 1..=KILLS {
        sleep_ms(random.next() % 200);
        let child = wait_for("the child", MINUTE, transcoder);
        send_signal(child, "KILL");
        drop(sender);
        let turn = first + f64::from(round);
        wait_until("the slate", MINUTE, || daemon.on_fallback("cam1") == (true, turn));
        sleep_ms(random.next() % 300);
        sender = send();
        wait_until("the source", MINUTE, || daemon.on_fallback("cam1") == (false, turn));
        if round == 5 {
            steady = Some(Holds::of(&daemon));
        }
    }
    viewers.iter().for_each(|viewer| viewer.assert_unbroken(MINUTE));
    steady.unwrap().assert_flat(&daemon);
    assert_eq!((restarts() - first_restarts, children_of(daemon.id()).len()), (f64::from(KILLS), 1));
    assert_eq!(daemon.metric("wmrelay_viewers", &[]), 50.0, "nobody left");
    assert_eq!(daemon.log().matches("signal: 9").count(), KILLS as usize, "{}", daemon.log());
}

/// Five cameras, four times each, ten viewers each.
#[test]
fn cameras_killed_twenty_times_under_fifty_viewers() {
    let test = "cameras_killed_twenty_times_under_fifty_viewers";
    if !ready(test, CAMERA) {
        return;
    }
    const CAMERAS: u32 = 5;
    let cameras: Option<Vec<Camera>> = (0..CAMERAS).map(|_| Camera::start(test, &[H264, A_LAW], None)).collect();
    let Some(cameras) = cameras else { return };
    let points = cameras.iter().enumerate().map(|(number, camera)| {
        format!(
            "[[publishing_point]]\nname = \"cam{number}\"\n{SLATE}source = {{ type = \"camera\", url = \"{}\" }}\n",
            camera.url()
        )
    });
    let daemon = Daemon::start(format!("[window]\nseconds = 4\n{}", points.collect::<String>()));
    let names: Vec<String> = (0..CAMERAS).map(|number| format!("cam{number}")).collect();
    for name in &names {
        wait_until("the source", MINUTE, || {
            daemon.metric("wmrelay_source_up", &[("point", name)]) == 1.0 && !daemon.on_fallback(name).0
        });
    }
    let swarms: Vec<Process> = names.iter().map(|name| swarm(&daemon, name)).collect();
    wait_until("all viewers", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 50.0);
    let fallbacks = || -> f64 { names.iter().map(|name| daemon.on_fallback(name).1).sum() };
    // All cameras and viewers are connected, as they are in the end.
    let (first, files) = (fallbacks(), daemon.open_files());

    let steady = std::thread::scope(|scope| {
        let daemon = &daemon;
        let turns = cameras.into_iter().zip(&names).zip(1..).map(|((mut camera, name), seed)| {
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut steady = None;
                for round in 1..=KILLS / CAMERAS {
                    // One that shows something for two seconds is tried again soon.
                    sleep_ms(2500 + random.next() % 1000);
                    let turn = daemon.on_fallback(name).1 + 1.0;
                    camera.switch_off();
                    wait_until("the slate", MINUTE, || daemon.on_fallback(name) == (true, turn));
                    sleep_ms(random.next() % 500);
                    camera.switch_on();
                    wait_until("the source", MINUTE, || daemon.on_fallback(name) == (false, turn));
                    if round == 2 {
                        steady = Some(daemon.resident_kib());
                    }
                }
                // It stays on.
                (camera, steady)
            })
        });
        let turns: Vec<_> = turns.collect();
        turns.into_iter().map(|turn| turn.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(fallbacks() - first, f64::from(KILLS), "slates, each left again");
    wait_until("nobody left", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 50.0);
    let (_cameras, steady): (Vec<Camera>, Vec<_>) = steady.into_iter().unzip();
    let resident_kib = steady.into_iter().flatten().max().unwrap();
    Holds { resident_kib, files }.assert_flat(&daemon);
    for swarm in swarms {
        swarm.signal("INT");
        let report = swarm.finish(MINUTE);
        assert!(report.status.success(), "{}{}", report.stdout, report.stderr);
        let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
        let counts = ["viewers_joined", "viewers_playing", "viewers_failed"].map(|name| report[name].as_u64());
        assert_eq!(counts, [Some(10), Some(10), Some(0)], "{report}");
    }
    assert!(children_of(daemon.id()).is_empty());
}

/// The pictures that an FFmpeg has decoded so far.
fn pictures(ffmpeg: &Process) -> Vec<Frame> {
    let output = ffmpeg.stdout();
    let frames = frames(&output);
    if frames.is_empty() { frames } else { of_stream(&frames, video_stream(&output)) }
}

/// The slate goes on under the camera's own header, which differs in nothing that players see: one stream, with all that is shown.
#[test]
fn real_players_go_on_through_a_camera_that_is_killed_and_comes_back() {
    let test = "real_players_go_on_through_a_camera_that_is_killed_and_comes_back";
    if !ready(test, &[CAMERA, GSTREAMER, &[Program("cvlc")]].concat()) {
        return;
    }
    const PICTURE_LEN: u64 = 176 * 144 * 3 / 2;
    let Some(mut camera) = Camera::start(test, &[H264, AAC], None) else { return };
    let daemon = Daemon::start(format!(
        "[window]\nseconds = 4\n[[publishing_point]]\nname = \"cam\"\n{SLATE}source = {{ type = \"camera\", url = \"{}\" }}\n",
        camera.url()
    ));
    wait_until("the source, and a slate for it", MINUTE, || {
        daemon.log().contains("encoder: \"libx264\"")
            && !daemon.on_fallback("cam").0
            && daemon.metric("wmrelay_source_up", &[]) == 1.0
    });
    let file = daemon.folder().join("pictures");
    let mut mms = player::ffmpeg(&daemon.url("mmst", "cam"), 0);
    let mut rtsp = player::ffmpeg(&daemon.rtsp_url("rtsp", "cam"), 0);
    let mut gstreamer = gstreamer::playbin_to(&daemon.rtsp_url("rtspt", "cam"), &file);
    let mut vlc = Vlc::play(&daemon.url("http", "cam"));
    let mut go_on = |what: &str, count: u64| {
        let mut shown = || {
            let of = |ffmpeg: &Process| pictures(ffmpeg).len() as u64;
            let written = std::fs::metadata(&file).map_or(0, |metadata| metadata.len() / PICTURE_LEN);
            [of(&mms), of(&rtsp), vlc.shown().0, written]
        };
        let before = shown();
        wait_until(&format!("{count} more pictures of {what} in FFmpeg by MMS and RTSP, VLC and GStreamer"), MINUTE, || {
            shown().iter().zip(before).all(|(now, before)| *now >= before + count)
        });
        assert!(mms.runs() && rtsp.runs() && gstreamer.runs(), "{what}: {}{}{}", mms.stderr(), rtsp.stderr(), gstreamer.stderr());
    };
    go_on("the camera", 15);
    let turn = daemon.on_fallback("cam").1 + 1.0;
    camera.switch_off();
    wait_until("the slate", MINUTE, || daemon.on_fallback("cam") == (true, turn));
    // More than what players had buffered of the camera, and than a lap.
    go_on("the slate", 65);
    camera.switch_on();
    wait_until("the source", MINUTE, || daemon.on_fallback("cam") == (false, turn));
    go_on("the camera again", 30);
    for ffmpeg in [&mms, &rtsp] {
        let pictures = pictures(ffmpeg);
        // Snow is never the same; what the encoder makes of the slate comes again in each lap, if no byte of it is lost.
        let different: HashSet<&str> = pictures.iter().map(|picture| picture.md5.as_str()).collect();
        assert!(different.len() + 10 <= pictures.len(), "{} of {}\n{}", different.len(), pictures.len(), ffmpeg.stderr());
        assert!(!ffmpeg.stderr().contains("error while decoding"), "{}", ffmpeg.stderr());
    }
    assert!(!daemon.log().contains("begin anew"), "{}", daemon.log());
}

/// Ten viewers that follow a stream through its changes, until they are told to end.
#[track_caller]
fn swarm(daemon: &Daemon, name: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["swarm", &daemon.url("mmst", name), "--viewers", "10", "--seconds", "300", "--json"]);
    Process::start(command)
}
