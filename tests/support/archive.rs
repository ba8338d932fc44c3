//! A daemon that serves the samples on demand, and what players make of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::daemon::Daemon;
use super::media::{self, Sample};
use super::player::{self, frames};
use super::process::{Finished, Process, as_nobody};

const MINUTE: Duration = Duration::from_secs(60);

/// Faster than it plays, since here nobody watches.
pub const HASTE: &str = "[delivery]\nburst_ms = 60000\nburst_rate = 100\n";

/// What each stream holds: the MD5 of every picture and block of sound, decoded or not, in order.
pub type Streams = BTreeMap<usize, Vec<String>>;

/// A daemon with a folder of samples under `archive`, and what is said beside.
#[track_caller]
pub fn archive(settings: &str) -> (Daemon, tempfile::TempDir) {
    let root = media::folder();
    (serve(root.path(), settings), root)
}

/// A daemon with this folder under `archive`.
#[track_caller]
pub fn serve(root: &Path, settings: &str) -> Daemon {
    let point = format!("[[publishing_point]]\nname = \"archive/\"\nsource = {{ type = \"files\", root = {root:?} }}\n");
    Daemon::start(format!("{settings}{point}"))
}

/// Does the same with every sample at once.
pub fn with_each_sample(work: impl Fn(Sample) + Sync) {
    let work = &work;
    std::thread::scope(|scope| {
        for sample in media::SAMPLES {
            scope.spawn(move || work(sample));
        }
    });
}

/// What a file decodes to.
#[track_caller]
pub fn decoded(file: &Path) -> Streams {
    streams_of(&player::ffmpeg(&file.display().to_string(), 0).finish(MINUTE))
}

/// The frames in the output of an ffmpeg that came to its end.
#[track_caller]
pub fn streams_of(done: &Finished) -> Streams {
    assert!(done.status.success(), "{}", done.stderr);
    let streams = by_stream(&done.stdout);
    assert!(!streams.is_empty(), "{}", done.stderr);
    streams
}

/// The frames in framemd5 text.
pub fn by_stream(text: &str) -> Streams {
    let mut streams = Streams::new();
    for frame in frames(text) {
        streams.entry(frame.stream).or_default().push(frame.md5);
    }
    streams
}

/// Streams are the same, frame by frame.
#[track_caller]
pub fn assert_same(what: &str, got: &Streams, expected: &Streams) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (stream, md5s) in expected {
        assert_eq!(got[stream].len(), md5s.len(), "{what}: frames of stream {stream}");
        assert!(got[stream] == *md5s, "{what}: stream {stream} differs");
    }
}

/// Our own client; it writes what comes into a file.
pub fn play(url: &str, file: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", "--json", "--write"]).arg(file).args(arguments).arg(url);
    Process::start(command)
}

/// What our client said at its end.
#[track_caller]
pub fn report(done: &Finished) -> serde_json::Value {
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    serde_json::from_str(done.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {}", done.stdout))
}

/// VLC writes the bytes that its MMS access gives its demultiplexer into a file.
pub fn vlc_dump(url: &str, file: &Path) -> Process {
    let home = file.parent().unwrap();
    player::open_to_all(home);
    let mut command = as_nobody("cvlc", home);
    // Of several videos it would choose one.
    command.args(["-I", "dummy", "--mms-all", "--demux=demuxdump", "--demuxdump-file"]).arg(file).args([url, "vlc://quit"]);
    Process::start(command)
}
