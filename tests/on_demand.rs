//! Files on demand: real players get what the file holds, wherever they begin, and nothing but what lies in the root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::media::{Sample, folder};
use support::player::{self, frames};
use support::process::{Finished, Process};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg"), Program("ffprobe")];
const VLC: &[Need] = &[Program("ffmpeg"), Program("cvlc")];
const MINUTE: Duration = Duration::from_secs(60);

/// Faster than it plays, since here nobody watches.
const HASTE: &str = "[delivery]\nburst_ms = 60000\nburst_rate = 100\n";

/// A daemon with a folder of samples under `archive`, and what is said beside.
fn archive(settings: &str) -> (Daemon, tempfile::TempDir) {
    let root = folder();
    let point = format!("[[publishing_point]]\nname = \"archive/\"\nsource = {{ type = \"files\", root = {:?} }}\n", root.path());
    (Daemon::start(format!("{settings}{point}")), root)
}

/// What each stream of a file or a URL decodes to: the MD5 of every picture and block of sound, in order.
#[track_caller]
fn decoded(input: &str) -> BTreeMap<usize, Vec<String>> {
    streams_of(&player::ffmpeg(input, 0).finish(MINUTE))
}

#[track_caller]
fn streams_of(done: &Finished) -> BTreeMap<usize, Vec<String>> {
    assert!(done.status.success(), "{}", done.stderr);
    let mut streams: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for frame in frames(&done.stdout) {
        streams.entry(frame.stream).or_default().push(frame.md5);
    }
    assert!(!streams.is_empty(), "{}", done.stderr);
    streams
}

#[track_caller]
fn assert_same(name: &str, got: &BTreeMap<usize, Vec<String>>, file: &Path) {
    let expected = decoded(&file.display().to_string());
    for (stream, md5s) in &expected {
        let of_stream = got.get(stream).map_or(&[][..], Vec::as_slice);
        assert_eq!(of_stream.len(), md5s.len(), "{name}: frames of stream {stream}");
        assert!(of_stream == md5s, "{name}: stream {stream} differs");
    }
    assert_eq!(got.len(), expected.len(), "{name}");
}

/// Our own client; it writes what comes into a file.
fn play(url: &str, file: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", "--json", "--write"]).arg(file).args(arguments).arg(url);
    Process::start(command)
}

fn report(done: &Finished) -> serde_json::Value {
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    serde_json::from_str(done.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {}", done.stdout))
}

#[test]
fn ffmpeg_plays_every_sample_whole() {
    if !ready("ffmpeg_plays_every_sample_whole", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    for Sample { name, .. } in support::media::SAMPLES {
        let got = decoded(&daemon.url("mmst", &format!("archive/{name}")));
        assert_same(name, &got, &root.path().join(name));
    }
}

#[test]
fn our_client_plays_every_sample_whole_over_tcp_and_udp() {
    if !ready("our_client_plays_every_sample_whole_over_tcp_and_udp", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    let out = tempfile::tempdir().unwrap();
    for Sample { name, packet_size, packets } in support::media::SAMPLES {
        for scheme in ["mmst", "mmsu"] {
            let file = out.path().join(format!("{scheme}-{name}"));
            let done = play(&daemon.url(scheme, &format!("archive/{name}")), &file, &[]).finish(MINUTE);
            let report = report(&done);
            assert_eq!(report["lost"], 0, "{name}: {report}");
            assert_eq!(report["live"], false, "{name}: {report}");
            // Over UDP packets of more than 1400 bytes are cut anew.
            if scheme == "mmst" || packet_size <= 1400 {
                assert_eq!(report["packets"].as_u64(), Some(packets), "{name}: {report}");
            } else {
                assert!(report["packets"].as_u64() > Some(packets), "{name}: {report}");
            }
            assert_eq!(report["packets"], report["packet_count"], "{name}: {report}");
            assert_same(name, &decoded(&file.display().to_string()), &root.path().join(name));
        }
    }
}

/// VLC writes the bytes that its MMS access gives its demultiplexer into a file.
fn vlc_dump(url: &str, file: &Path) -> Process {
    let home = file.parent().unwrap();
    player::open_to_all(home);
    let mut command = support::process::as_nobody("cvlc", home);
    command.args(["-I", "dummy", "--demux=dump", "--demuxdump-file"]).arg(file).args([url, "vlc://quit"]);
    Process::start(command)
}

/// One test for TCP and UDP, one file after the other over UDP: every VLC of one address wants its port 7000.
#[test]
fn vlc_plays_every_sample_whole() {
    if !ready("vlc_plays_every_sample_whole", VLC) {
        return;
    }
    let (daemon, root) = archive(&format!("[udp]\nclient_ports = \"1024-5000,7000\"\n{HASTE}"));
    let out = tempfile::tempdir().unwrap();
    for scheme in ["mmst", "mmsu"] {
        for Sample { name, .. } in support::media::SAMPLES {
            wait_until("port 7000 is free", MINUTE, || daemon.metric("wmrelay_port_leases", &[]) == 0.0);
            let file = out.path().join(format!("{scheme}-{name}"));
            let done = vlc_dump(&daemon.url(scheme, &format!("archive/{name}")), &file).finish(MINUTE);
            assert!(file.exists(), "VLC wrote nothing of {name}\n{}", done.stderr);
            assert_same(name, &decoded(&file.display().to_string()), &root.path().join(name));
        }
    }
}

/// What `edge-packets-pcmu.asf` holds is known to the byte.
#[test]
fn every_form_of_packet_comes_through() {
    if !ready("every_form_of_packet_comes_through", FFMPEG) {
        return;
    }
    let (daemon, _root) = archive(HASTE);
    let expected = std::fs::read(support::media::data("edge-packets-pcmu.expected.ul")).unwrap();
    let out = tempfile::tempdir().unwrap();
    for scheme in ["mmst", "mmsu"] {
        let file = out.path().join(format!("{scheme}.asf"));
        play(&daemon.url(scheme, "archive/edge-packets-pcmu.asf"), &file, &[]).finish(MINUTE);
        let sound = out.path().join("sound.ul");
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-y", "-loglevel", "error", "-i"]).arg(&file).args(["-c", "copy", "-f", "mulaw"]).arg(&sound);
        Process::start(command).finish(MINUTE);
        assert!(std::fs::read(&sound).unwrap() == expected, "{scheme}");
    }
}

/// The presentation times of a file's key frames, media time in milliseconds, and the packets they begin in.
fn key_frames(file: &Path) -> Vec<(u64, u64)> {
    let mut command = Command::new("ffprobe");
    command.args([
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "packet=pts_time,dts_time,pos,flags",
        "-of",
        "csv=p=0",
    ]);
    let done = Process::start({
        command.arg(file);
        command
    })
    .finish(MINUTE);
    let (start, size) = support::media::data_start(file);
    let milliseconds = |text: &str| text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round() as u64);
    done.stdout
        .lines()
        .filter(|line| line.contains('K'))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let position: u64 = fields[2].parse().ok()?;
            Some((milliseconds(fields[1]).or_else(|| milliseconds(fields[0]))?, (position - start) / size))
        })
        .collect()
}

#[test]
fn seeks_land_on_the_right_key_frame() {
    if !ready("seeks_land_on_the_right_key_frame", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    support::media::seek_samples(root.path());
    let out = tempfile::tempdir().unwrap();
    for name in ["vod-wmv2-wmav2-indexed.wmv", "no-index.wmv", "bogus-index.wmv", "random-index.wmv", "h264-aac-nobframes.asf"] {
        let path = root.path().join(name);
        let keys = key_frames(&path);
        assert!(keys.len() >= 3, "{name}: {keys:?}");
        let (start, size) = support::media::data_start(&path);
        let mut random = support::Random(7);
        let url = daemon.url("mmst", &format!("archive/{name}"));
        let last = keys.last().unwrap().1;
        for round in 0..12 {
            let ms = random.next() % 11_000;
            let packet = 1 + random.next() % (last + 5);
            let (flag, value, expected) = match round % 3 {
                0 => ("--start", format!("{}.{:03}", ms / 1000, ms % 1000), keys.iter().rev().find(|(at, _)| *at <= ms)),
                1 => ("--packet", packet.to_string(), keys.iter().rev().find(|(_, at)| *at <= packet)),
                _ => ("--offset", (start + packet * size + 1).to_string(), keys.iter().rev().find(|(_, at)| *at <= packet)),
            };
            let (_, expected) = expected.unwrap_or(&keys[0]);
            let file = out.path().join("seek.asf");
            let done = play(&url, &file, &[flag, &value, "--seconds", "1"]).finish(MINUTE);
            let report = report(&done);
            assert_eq!(report["first_location"].as_u64(), Some(*expected), "{name} {flag} {value}: {report}\n{keys:?}");
        }
    }
}

#[test]
fn nothing_outside_of_the_root_opens() {
    let (daemon, root) = archive("");
    let outside = tempfile::tempdir().unwrap();
    std::fs::copy(root.path().join("audio-wmav2.wma"), outside.path().join("secret.wma")).unwrap();
    symlink(outside.path().join("secret.wma"), root.path().join("link.wma")).unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink("/dev/zero", root.path().join("zero.wma")).unwrap();
    symlink("audio-wmav2.wma", root.path().join("inside.wma")).unwrap();
    std::fs::create_dir(root.path().join("empty")).unwrap();
    let fifo = root.path().join("fifo.wma");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let open = |name: &str| support::mms::open_result(daemon.mms, name);
    for name in ["audio-wmav2.wma", "inside.wma"] {
        assert_eq!(open(&format!("archive/{name}")), 0, "{name}");
    }
    let secret = outside.path().join("secret.wma");
    let names = [
        "link.wma",
        "folder/secret.wma",
        "zero.wma",
        "fifo.wma",
        "empty",
        "",
        "missing.wma",
        "audio-wmav2.wma/x",
        &format!("/{}", secret.display()),
        &secret.display().to_string(),
        "edge-packets-pcmu.expected.ul",
    ];
    for name in names {
        assert_ne!(open(&format!("archive/{name}")), 0, "{name:?}");
    }
    for name in ["archive/../etc/passwd", "archive", "archive/empty/../../x"] {
        assert_ne!(open(name), 0, "{name:?}");
    }
    assert_eq!(open("archive/audio-wmav2.wma"), 0, "it still serves");
}

#[test]
fn a_file_that_changes_ends_its_viewers_and_nobody_else() {
    let (daemon, root) = archive("");
    let change: [(&str, fn(&Path)); 3] = [
        ("cut.wmv", |path| std::fs::File::options().write(true).open(path).unwrap().set_len(50_000).unwrap()),
        ("gone.wmv", |path| std::fs::remove_file(path).unwrap()),
        ("replaced.wmv", |path| {
            let other = path.with_extension("new");
            std::fs::copy(path.with_file_name("audio-wmav2.wma"), &other).unwrap();
            std::fs::rename(other, path).unwrap();
        }),
    ];
    let out = tempfile::tempdir().unwrap();
    let watched = |name: &str| play(&daemon.url("mmst", &format!("archive/{name}")), &out.path().join(name), &[]);
    let other = watched("vod-wmv2-wmav2-indexed.wmv");
    for (name, change) in change {
        let path: PathBuf = root.path().join(name);
        std::fs::copy(root.path().join("vod-wmv2-wmav2-indexed.wmv"), &path).unwrap();
        let before = daemon.metric("wmrelay_viewers", &[]);
        let viewer = watched(name);
        wait_until("it plays", MINUTE, || daemon.metric("wmrelay_viewers", &[]) > before);
        change(&path);
        let done = viewer.finish(MINUTE);
        assert!(done.status.success(), "{name}: {}{}", done.stdout, done.stderr);
    }
    wait_until("the reasons are logged", MINUTE, || {
        daemon.metric("wmrelay_session_ends_total", &[("reason", "content_broken")]) == 3.0
    });
    let log = daemon.log();
    assert!(log.contains("the file was changed or replaced while it was open"), "{log}");
    assert!(log.contains("the file was removed while it was open"), "{log}");
    let done = other.finish(MINUTE);
    assert_eq!(report(&done)["packets"].as_u64(), Some(94));
}
