//! Real players, as plain processes: what they decode is counted, and compared where the player tells enough.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::process::{Process, as_nobody};
use super::publisher::clip;
use super::wait_for;

/// A decoded frame or a block of sound, as ffmpeg's framemd5 tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// 0 is the first stream of the file.
    pub stream: usize,
    /// Presentation time, seconds.
    pub time: f64,
    /// MD5 of the picture.
    pub md5: String,
}

/// An ffmpeg that decodes; [`Process::stdout`] then holds what [`frames`] reads. `seconds` 0 plays to the end.
#[track_caller]
pub fn ffmpeg(url: &str, seconds: u32) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(ffmpeg_arguments(url, seconds));
    Process::start(command)
}

/// The same with options for the input, such as its transport.
#[track_caller]
pub fn ffmpeg_with(options: &[&str], url: &str, seconds: u32) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(options).args(ffmpeg_arguments(url, seconds));
    Process::start(command)
}

/// The arguments of [`ffmpeg`], for one elsewhere.
pub fn ffmpeg_arguments(url: &str, seconds: u32) -> Vec<String> {
    let mut arguments = vec!["-nostdin", "-hide_banner", "-loglevel", "warning", "-i", url, "-map", "0"];
    // Each frame as it came: none doubled or dropped to keep a rate, times as fine as the stream's.
    arguments.extend(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-flush_packets", "1"]);
    let seconds = seconds.to_string();
    if seconds != "0" {
        arguments.extend(["-t", &seconds]);
    }
    arguments.extend(["-f", "framemd5", "-"]);
    arguments.into_iter().map(str::to_owned).collect()
}

/// Reads framemd5 text; a last line that is not whole yet is left out.
pub fn frames(text: &str) -> Vec<Frame> {
    let mut units = HashMap::new();
    let mut frames = Vec::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (stream, ratio) = base.split_once(": ").unwrap();
            let (numerator, denominator) = ratio.split_once('/').unwrap();
            let unit = numerator.parse::<f64>().unwrap() / denominator.parse::<f64>().unwrap();
            units.insert(stream.parse::<usize>().unwrap(), unit);
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let stream = fields[0].parse().unwrap();
            let ticks: f64 = fields[2].parse().unwrap();
            frames.push(Frame { stream, time: ticks * units[&stream], md5: fields[5].to_owned() });
        }
    }
    frames
}

/// The frames of one stream.
pub fn of_stream(frames: &[Frame], stream: usize) -> Vec<Frame> {
    frames.iter().filter(|frame| frame.stream == stream).cloned().collect()
}

/// The stream of pictures in framemd5 text, the first of several; RTSP lists sound first.
///
/// # Panics
/// Where the text names none.
#[track_caller]
pub fn video_stream(text: &str) -> usize {
    let streams = text.lines().filter_map(|line| line.strip_prefix("#media_type ")?.split_once(": "));
    let mut videos = streams.filter(|(_, kind)| *kind == "video");
    videos.next().and_then(|(stream, _)| stream.parse().ok()).unwrap_or_else(|| panic!("no pictures in {text}"))
}

/// Where each picture of [`clip`] stands in it, by its MD5.
#[track_caller]
pub fn clip_pictures() -> &'static HashMap<String, usize> {
    static PICTURES: OnceLock<HashMap<String, usize>> = OnceLock::new();
    PICTURES.get_or_init(|| {
        let decoded = ffmpeg(&clip().display().to_string(), 0).finish(Duration::from_secs(30));
        let pictures = of_stream(&frames(&decoded.stdout), 0);
        pictures.into_iter().enumerate().map(|(at, frame)| (frame.md5, at)).collect()
    })
}

/// Checks that pictures are those of [`clip`], played over and over, none missing between the first and the last.
///
/// # Panics
/// At the first that is another, or not the next.
#[track_caller]
pub fn assert_clip_over_and_over<'a>(md5s: impl IntoIterator<Item = &'a str>) {
    let places = clip_pictures();
    let mut expected = None;
    for (at, md5) in md5s.into_iter().enumerate() {
        let place = *places.get(md5).unwrap_or_else(|| panic!("picture {at} is not one of the clip's"));
        if let Some(expected) = expected {
            assert_eq!(place, expected, "picture {at} is not the next of the clip's");
        }
        expected = Some((place + 1) % places.len());
    }
}

/// A VLC that decodes and shows, to nobody.
pub struct Vlc {
    process: Process,
    _home: tempfile::TempDir,
    asked: std::time::Instant,
}

impl Vlc {
    /// Starts it with a URL.
    #[track_caller]
    pub fn play(url: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        open_to_all(home.path());
        let mut command = as_nobody("cvlc", home.path());
        // Without an own port for its statistics: they are asked for on its standard input.
        command.args(["-I", "oldrc", "--rc-fake-tty", "--no-color", "--vout=vdummy", "--aout=adummy", "--no-video-title-show"]);
        command.args(["--network-caching=300", url]);
        Self { process: Process::start(command), _home: home, asked: std::time::Instant::now() }
    }

    /// Says a line to it, a command of its remote control.
    pub fn say(&mut self, line: &str) {
        self.process.say(line);
    }

    /// Pictures shown and sound buffers played so far.
    pub fn shown(&mut self) -> (u64, u64) {
        if self.asked.elapsed() > Duration::from_millis(300) {
            self.process.say("stats");
            self.asked = std::time::Instant::now();
        }
        let said = self.process.stdout();
        let last = |key: &str| {
            let line =
                said.lines().rev().find(|line| line.contains(key) && line.trim_end().ends_with(|c: char| c.is_ascii_digit()));
            line.and_then(|line| line.rsplit(':').next()?.trim().parse().ok()).unwrap_or(0)
        };
        (last("frames displayed"), last("buffers played"))
    }

    /// Waits until it has shown that many pictures, and played sound.
    #[track_caller]
    pub fn wait_for_pictures(&mut self, pictures: u64, limit: Duration) {
        let mut shown = (0, 0);
        let begin = std::time::Instant::now();
        while begin.elapsed() < limit {
            shown = self.shown();
            if shown.0 >= pictures && shown.1 > 0 {
                return;
            }
            assert!(self.process.runs(), "VLC ended\n{}", self.process.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("VLC showed {} of {pictures} pictures, {} sound buffers\n{}", shown.0, shown.1, self.process.stderr());
    }
}

/// The MD5 of each picture that MPlayer decodes, `count` of them.
#[track_caller]
pub fn mplayer(url: &str, count: usize) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("pictures");
    let mut command = Command::new("mplayer");
    command.args(["-noconfig", "all", "-nolirc", "-really-quiet", "-benchmark", "-ao", "null"]);
    command.args(["-vo", &format!("md5sum:outfile={}", list.display()), "-frames", &count.to_string(), url]);
    let done = Process::start(command).finish(Duration::from_secs(60));
    let text = std::fs::read_to_string(&list).unwrap_or_else(|error| panic!("MPlayer decoded nothing: {error}\n{}", done.stderr));
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The number of pictures that mpv shows, at most `count`.
#[track_caller]
pub fn mpv(url: &str, count: u64) -> u64 {
    mpv_with(&[], url, count)
}

/// The same with options before the URL.
#[track_caller]
pub fn mpv_with(options: &[&str], url: &str, count: u64) -> u64 {
    let mut command = Command::new("mpv");
    command.args(["--no-config", "--vo=null", "--ao=null", "--untimed", "--term-status-msg=frame=${estimated-frame-number} "]);
    command.args(options).args([&format!("--frames={count}"), url]);
    let done = Process::start(command).finish(Duration::from_secs(60));
    let said = format!("{}{}", done.stdout, done.stderr);
    let last = said.rsplit("frame=").find_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    last.unwrap_or_else(|| panic!("mpv showed nothing:\n{said}")) + 1
}

/// Lets another user into a folder.
pub fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// Waits until a decoding ffmpeg has given that many pictures, and returns what it has given.
#[track_caller]
pub fn wait_for_frames(process: &mut Process, count: usize, limit: Duration) -> Vec<Frame> {
    wait_for(&format!("{count} decoded pictures"), limit, || {
        let pictures = of_stream(&frames(&process.stdout()), 0);
        if pictures.len() >= count {
            return Some(pictures);
        }
        assert!(process.runs(), "ffmpeg ended after {} pictures\n{}", pictures.len(), process.stderr());
        None
    })
}
