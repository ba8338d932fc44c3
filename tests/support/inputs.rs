//! What ffmpeg is given to read: a file of what a camera sends, the same sent elsewhere, and who waits for a cold input.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::daemon::Daemon;
use super::mms::{self, Control, result_of};
use super::process::Process;
use super::viewer::{PLAYER, Viewer};

/// Other tests and other programs may want the processor too.
const LIMIT: Duration = Duration::from_secs(60);
/// Pictures a second of [`camera_file`].
pub const CAMERA_FILE_RATE: u32 = 20;

/// Ten seconds of H.264 without B-frames, 320 by 240, a key frame each second, and AAC: what a camera sends.
#[track_caller]
pub fn camera_file() -> &'static Path {
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

/// That, sent elsewhere by an ffmpeg of its own for ever, in real time.
#[track_caller]
pub fn send_camera(output: &[&str]) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i"]).arg(camera_file());
    command.args(["-c", "copy"]).args(output);
    Process::start(command)
}

/// The same as an HLS folder, of which this is the playlist.
#[track_caller]
pub fn send_hls(playlist: &Path) -> Process {
    let process = send_camera(&[
        "-f",
        "hls",
        "-hls_time",
        "1",
        "-hls_list_size",
        "4",
        "-hls_flags",
        "delete_segments",
        &playlist.display().to_string(),
    ]);
    super::wait_until("segments", LIMIT, || {
        std::fs::read_to_string(playlist).is_ok_and(|text| text.matches("#EXTINF").count() >= 3)
    });
    process
}

/// Whether somebody listens on a TCP port of this machine, by the kernel's table: a connection would be taken for a publisher.
pub fn listens(port: u16) -> bool {
    let entry = format!(":{port:04X} 00000000:0000 0A");
    std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&entry)
}

/// The codecs of what is played, as ffprobe calls them, pictures first.
#[track_caller]
pub fn codecs(url: &str) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-loglevel", "error", "-show_entries", "stream=codec_type,codec_name,codec_tag_string,has_b_frames"]);
    command.args(["-of", "csv=p=0", url]);
    let done = Process::start(command).finish(LIMIT);
    assert!(done.status.success(), "{url}: {}", done.stderr);
    let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| line.contains("audio"));
    lines
}

/// A viewer that waits as long as a cold input takes.
#[track_caller]
pub fn watch(daemon: &Daemon, name: &str) -> Viewer {
    let mut control = Control::connect(daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body(PLAYER));
    control.expect(mms::CONNECTED, LIMIT);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    control.expect(mms::FUNNEL_CONNECTED, LIMIT);
    control.send(mms::OPEN_FILE, &mms::open_body(name));
    assert_eq!(result_of(&control.expect(mms::OPENED, LIMIT)), 0, "{name}");
    drop(control);
    Viewer::tcp(daemon.mms, name)
}
