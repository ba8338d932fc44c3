//! GStreamer, by its command-line tools: what it takes out of RTP, what it decodes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Need::{self, Element, Program};
use super::player::{Frame, frames};
use super::process::{Finished, Process};
use super::publisher::clip;
use super::wait_until;

/// What all of this needs.
pub const GSTREAMER: &[Need] = &[
    Program("ffmpeg"),
    Program("gst-launch-1.0"),
    Element("rtspsrc"),
    Element("rtpasfdepay"),
    Element("avdec_wmv2"),
    Element("videoconvert"),
    Element("playbin"),
];

/// Bytes of a decoded picture of [`clip`] and of the samples that are decoded here: I420, 320 by 240.
const PICTURE_LEN: u64 = 320 * 240 * 3 / 2;

/// How media is to come.
#[derive(Debug, Clone, Copy)]
pub enum Transport {
    Tcp,
    /// To ports from this one on, of a hundred.
    Udp(u16),
    /// UDP to ports from this one on; TCP where that is refused.
    Any(u16),
}

/// `rtspsrc` with all that is said of the transport.
fn source(url: &str, transport: Transport) -> Vec<String> {
    let (protocols, first) = match transport {
        Transport::Tcp => ("tcp", None),
        Transport::Udp(first) => ("udp", Some(first)),
        // multicast is between them in GStreamer's own order.
        Transport::Any(first) => ("udp+udp-mcast+tcp", Some(first)),
    };
    let mut words = vec!["rtspsrc".to_owned(), format!("location={url}"), format!("protocols={protocols}")];
    words.extend(first.map(|first| format!("port-range={first}-{}", first + 99)));
    words
}

/// Writes the header and the packets that come into a file, which then is ASF.
pub fn dump(url: &str, transport: Transport, file: &Path) -> Process {
    launch(&source(url, transport), &format!("! rtpasfdepay ! filesink location={}", file.display()))
}

/// The same to the end of the stream. On busy machines GStreamer sometimes passes over our word that it is over, where that comes while
/// its own parts still start, and waits for ever: then it is tried again, twice.
#[track_caller]
pub fn dump_whole(url: &str, transport: Transport, file: &Path) -> Finished {
    for _ in 0..2 {
        let mut player = dump(url, transport, file);
        let begin = Instant::now();
        while player.runs() && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !player.runs() {
            return player.finish(Duration::from_secs(1));
        }
    }
    dump(url, transport, file).finish(Duration::from_secs(60))
}

/// Writes decoded pictures of WMV 2 into a file, one behind the other; sound is not asked for.
pub fn pictures_to(url: &str, transport: Transport, file: &Path) -> Process {
    let rest = format!("! rtpasfdepay ! asfdemux name=split split.video_0 ! queue ! avdec_wmv2 ! {}", sink(file));
    launch(&source(url, transport), &rest)
}

/// The same by GStreamer's own player, which finds out by itself what it needs. `rtspt` and `rtspu` force TCP and UDP.
pub fn playbin_to(url: &str, file: &Path) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "playbin", &format!("uri={url}"), "audio-sink=fakesink", &format!("video-sink={}", sink(file))]);
    Process::start(command)
}

/// The player again, told to begin elsewhere.
pub fn play_from(url: &str, seconds: &str, file: &Path) -> Process {
    let mut command = Command::new("gst-play-1.0");
    command.args(["--no-interactive", "--start-position", seconds, "--audiosink=fakesink"]);
    command.args([&format!("--videosink={}", sink(file)), url]);
    Process::start(command)
}

fn launch(source: &[String], rest: &str) -> Process {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").args(source).args(rest.split(' '));
    Process::start(command)
}

fn sink(file: &Path) -> String {
    format!("videoconvert ! video/x-raw,format=I420 ! filesink buffer-mode=unbuffered location={}", file.display())
}

/// Waits until there are so many pictures in a file; who writes it must not end before.
#[track_caller]
pub fn wait_for_pictures(player: &mut Process, file: &Path, count: u64, limit: Duration) {
    let len = || std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    wait_until(&format!("{count} pictures of GStreamer's"), limit, || {
        let done = len() >= count * PICTURE_LEN;
        assert!(done || player.runs(), "GStreamer ended after {} pictures\n{}", len() / PICTURE_LEN, player.stderr());
        done
    });
}

/// The whole pictures in a file.
#[track_caller]
pub fn pictures_in(file: &Path) -> Vec<Frame> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", "320x240"]);
    command.arg("-i").arg(file).args(["-f", "framemd5", "-"]);
    let done = Process::start(command).finish(Duration::from_secs(60));
    let pictures = frames(&done.stdout);
    assert!(!pictures.is_empty(), "no picture in {}; the clip is {}\n{}", file.display(), clip().display(), done.stderr);
    pictures
}
