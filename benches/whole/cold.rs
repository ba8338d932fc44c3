//! How long a viewer of a cold source waits for its first picture: from the connection to the packet with the first key frame.
//!
//! The camera runs already, so joins fall anywhere between two of its key frames. Each round has a daemon of its own that knows nothing
//! of its sources.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wmrelay::asf::{Header, walk};
use wmrelay::client::{PlayOptions, play_observed};
use wmrelay::playing::ClientEvent;

use crate::daemon::Daemon;
use crate::rtsp_camera::{Camera, KEY_FRAME_INTERVAL, now};
use crate::{load, quantile};

const ROUNDS: u32 = 7;
/// Beside the key frame interval.
const GOAL: Duration = Duration::from_secs(2);
/// Nobody waits longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// H.264 without B-frames, and AAC: what cameras send.
const CLIP: &str = "-f lavfi -i testsrc2=size=640x360:rate=25 -f lavfi -i sine=440:sample_rate=44100 -t 20 -c:v libx264 -preset ultrafast \
    -tune zerolatency -profile:v main -pix_fmt yuv420p -g 25 -b:v 1500k -c:a aac -b:a 64k";

/// A program that runs; ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ffmpeg(input: &[&str], output: &[&str]) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(input).args(output).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Prints the section.
pub(crate) fn cold() {
    println!("key frames {} s apart; {}", KEY_FRAME_INTERVAL.as_secs(), load());
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (file, playlist) = (folder.path().join("clip.mp4"), folder.path().join("live.m3u8"));
    let [file, playlist] = [file, playlist].map(|path| path.display().to_string());
    let made = ffmpeg(&CLIP.split_whitespace().collect::<Vec<_>>(), &[&file]).status();
    assert!(made.is_ok_and(|status| status.success()), "ffmpeg makes a clip");
    let hls = ["-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_list_size", "5", "-hls_flags", "delete_segments", &playlist];
    let _hls = Running(ffmpeg(&["-re", "-stream_loop", "-1", "-i", &file], &hls).spawn().expect("ffmpeg starts"));
    let transcoded = |input: &str, profile: &str| format!("type = \"ffmpeg\", input = \"{input}\", profile = \"{profile}\"");
    let camera = Camera::start();
    let sources = [
        ("a camera, by the daemon itself", format!("type = \"camera\", url = \"{}\"", camera.url())),
        ("a camera, copied by ffmpeg (wmp12)", transcoded(&camera.url(), "wmp12")),
        ("a camera, transcoded by ffmpeg (wmp9)", transcoded(&camera.url(), "wmp9")),
        ("a file, transcoded (wmp9)", transcoded(&file, "wmp9")),
        ("an HLS playlist, transcoded (wmp9)", transcoded(&playlist, "wmp9")),
    ];
    wait_for_segments(&playlist);
    for (name, source) in sources {
        let settings =
            format!("[[publishing_point]]\nname = \"cold\"\nsource = {{ start = \"watched\", linger_s = 0, {source} }}\n");
        let (mut first, mut again) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let daemon = Daemon::start(&settings, &[]);
            // Another place between two key frames each time.
            let phase = KEY_FRAME_INTERVAL * (round * 3 % ROUNDS) / ROUNDS;
            std::thread::sleep(phase);
            first.push(first_picture_ms(&daemon));
            daemon.wait_for_rest();
            std::thread::sleep(phase);
            again.push(first_picture_ms(&daemon));
        }
        let goal_ms = (GOAL + KEY_FRAME_INTERVAL).as_millis();
        for (which, ms) in [("cold", first), ("and again, by what is known now", again)] {
            let (median, worst) = (quantile(&ms, 0.5), quantile(&ms, 1.0));
            println!(
                "{name}, {which}: first picture after {median:.0} ms (median of {ROUNDS}), worst {worst:.0}; goal {goal_ms}"
            );
        }
    }
    println!("{}", load());
}

/// Until there is as much as players of HLS begin with.
fn wait_for_segments(playlist: impl AsRef<Path>) {
    for _ in 0..200 {
        if std::fs::read_to_string(&playlist).is_ok_and(|text| text.matches("#EXTINF").count() >= 3) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("ffmpeg has written no three segments within 20 s");
}

/// From the connection to the packet in which the first key frame begins, milliseconds.
fn first_picture_ms(daemon: &Daemon) -> f64 {
    let url = format!("mmst://{}/cold", daemon.mms());
    let options = PlayOptions { duration: Some(PATIENCE), ..PlayOptions::new(url.parse().expect("a URL")) };
    let (begin, done) = (now(), tokio::sync::Notify::new());
    let (mut video, mut picture) = (Default::default(), None);
    let play = play_observed(options, done.notified(), |event, _| match event {
        ClientEvent::Header(header) => video = Header::parse(header).expect("a header").video(),
        ClientEvent::Packet { bytes, .. } if walk(bytes).is_ok_and(|packet| packet.key_starts.intersects(video)) => {
            picture.get_or_insert_with(now);
            done.notify_one();
        }
        _ => {}
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(play).expect("it plays");
    picture.map_or(f64::INFINITY, |picture| (picture - begin).as_secs_f64() * 1000.0)
}
