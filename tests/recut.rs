//! What re-cutting and selection make of the samples, as a real decoder sees it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::Need::{self, Program};
use support::player::{self, Frame, frames, of_stream};
use support::process::Process;
use support::ready;
use wmrelay::asf::{
    Event, Header, Kept, OnDemandFacts, Reader, Recut, Recutter, Selection, Selector, StreamSet, payloads, send_time_ms,
};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);

/// Samples and the packet size to re-cut them to.
const SAMPLES: [(&str, usize); 7] = [
    ("vod-wmv2-wmav2-indexed.wmv", 1400),
    ("audio-wmav2.wma", 1400),
    ("h264-aac-bframes.asf", 1400),
    ("h264-aac-nobframes.asf", 1400),
    ("camera-mjpeg-pcmu.asf", 700),
    ("mbr-2video-1audio.asf", 700),
    ("edge-packets-pcmu.asf", 400),
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn read(name: &str) -> (Header, Vec<Vec<u8>>) {
    let (mut reader, mut header, mut packets) = (Reader::new(), None, Vec::new());
    reader.feed(&std::fs::read(sample(name)).unwrap());
    reader.finish();
    while let Some(event) = reader.poll() {
        match event.unwrap() {
            Event::Header(new) => header = Some(new),
            Event::Packets(batch) => {
                let size = header.as_ref().map_or(1, Header::packet_size);
                packets.extend(batch.chunks(size).map(<[u8]>::to_vec));
            }
            Event::End => (),
        }
    }
    (header.unwrap(), packets)
}

/// Writes a file of packets of one size, whose header says so.
fn write(folder: &Path, header: &Header, packet_size: usize, packets: &[u8]) -> PathBuf {
    assert_eq!(packets.len() % packet_size, 0);
    let last = packets.chunks(packet_size).last().and_then(send_time_ms).unwrap();
    let facts = OnDemandFacts {
        packet_size,
        packets: (packets.len() / packet_size) as u64,
        play_duration_ms: header.play_duration_ms().unwrap(),
        send_duration_ms: u64::from(last),
        seekable: true,
        file_id: None,
    };
    let path = folder.join("made.asf");
    std::fs::write(&path, [&header.on_demand(&facts), packets].concat()).unwrap();
    path
}

#[track_caller]
fn decode(path: &Path) -> Vec<Frame> {
    let decoded = player::ffmpeg(path.to_str().unwrap(), 0).finish(MINUTE);
    assert!(decoded.status.success(), "{}: {}", path.display(), decoded.stderr);
    frames(&decoded.stdout)
}

/// The same frames, stream by stream, at the same times.
#[track_caller]
fn assert_same_frames(found: &[Frame], expected: &[Frame], name: &str) {
    assert!(!expected.is_empty(), "{name}: nothing decoded");
    assert_eq!(found.len(), expected.len(), "{name}");
    for stream in 0..=expected.iter().map(|frame| frame.stream).max().unwrap() {
        assert!(of_stream(found, stream) == of_stream(expected, stream), "{name}: stream {stream} differs");
    }
}

/// Packet by packet, as files are re-cut.
fn recut_file(header: &Header, packets: &[Vec<u8>], size: usize) -> Vec<u8> {
    let recut = Recut::new(header, size).unwrap();
    let mut out = Vec::new();
    packets.iter().for_each(|packet| assert!(recut.recut(packet, &mut out).unwrap() > 0));
    out
}

#[test]
fn re_cut_files_decode_to_the_same_frames() {
    if !ready("re_cut_files_decode_to_the_same_frames", FFMPEG) {
        return;
    }
    for (name, size) in SAMPLES {
        let (header, packets) = read(name);
        let folder = tempfile::tempdir().unwrap();
        let made = write(folder.path(), &header, size, &recut_file(&header, &packets, size));
        assert_same_frames(&decode(&made), &decode(&sample(name)), name);
    }
}

#[test]
fn re_cut_streams_decode_to_the_same_frames() {
    if !ready("re_cut_streams_decode_to_the_same_frames", FFMPEG) {
        return;
    }
    for (name, size) in SAMPLES {
        let (header, packets) = read(name);
        let (mut recutter, mut out) = (Recutter::new(&header, size), Vec::new());
        packets.iter().for_each(|packet| recutter.push(packet, &mut out).unwrap());
        recutter.flush(&mut out);
        let folder = tempfile::tempdir().unwrap();
        let made = write(folder.path(), &header, size, &out);
        assert_same_frames(&decode(&made), &decode(&sample(name)), name);
    }
}

#[test]
fn the_tone_of_every_packet_form_survives() {
    if !ready("the_tone_of_every_packet_form_survives", FFMPEG) {
        return;
    }
    let (header, packets) = read("edge-packets-pcmu.asf");
    let folder = tempfile::tempdir().unwrap();
    let made = write(folder.path(), &header, 400, &recut_file(&header, &packets, 400));
    let tone = folder.path().join("tone.ul");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "warning", "-i"]).arg(&made).args(["-c", "copy", "-f", "mulaw"]).arg(&tone);
    let copied = Process::start(command).finish(MINUTE);
    assert!(copied.status.success(), "{}", copied.stderr);
    let expected = std::fs::read(sample("edge-packets-pcmu.expected.ul")).unwrap();
    assert!(std::fs::read(&tone).unwrap() == expected, "the joined objects differ from the tone");
}

/// The packets of the sample of two rates that a viewer gets, and how many video objects are in them.
fn selected(header: &Header, packets: &[Vec<u8>], streams: &[u8], thinned: &[u8]) -> (Vec<u8>, usize) {
    let set = |streams: &[u8]| streams.iter().copied().collect::<StreamSet>();
    let selection = Selection { streams: set(streams), thinned: set(thinned) };
    let all = header.streams().iter().map(|stream| stream.number).collect();
    let mut selector = Selector::new(all, header.video(), selection);
    let mut out = Vec::new();
    for packet in packets {
        if selector.packet(packet, &mut out).unwrap() == Kept::Whole {
            out.extend_from_slice(packet);
        }
    }
    let objects = out.chunks(header.packet_size()).flat_map(|packet| payloads(packet).unwrap());
    let starts = objects.filter(|payload| header.video().contains(payload.stream) && payload.offset == 0).count();
    (out, starts)
}

/// Decodes two streams of a file, by their places in it, and checks that the decoder has nothing to say.
fn decode_two(path: &Path, streams: [usize; 2]) -> [Vec<Frame>; 2] {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-i"]).arg(path);
    command.args(streams.iter().flat_map(|stream| ["-map".to_owned(), format!("0:{stream}")]));
    command.args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "framemd5", "-"]);
    let decoded = Process::start(command).finish(MINUTE);
    let complaints =
        decoded.stderr.lines().filter(|line| !line.is_empty() && !line.starts_with("Guessed Channel Layout")).count();
    assert!(decoded.status.success() && complaints == 0, "{}", decoded.stderr);
    let found = frames(&decoded.stdout);
    [0, 1].map(|stream| of_stream(&found, stream).into_iter().map(|frame| Frame { stream: 0, ..frame }).collect())
}

#[test]
fn selections_decode_cleanly() {
    if !ready("selections_decode_cleanly", FFMPEG) {
        return;
    }
    let name = "mbr-2video-1audio.asf";
    let (header, packets) = read(name);
    let folder = tempfile::tempdir().unwrap();
    for (video, place) in [(1, 0), (2, 1)] {
        let [pictures, sound] = decode_two(&sample(name), [place, 2]);
        let (whole, objects) = selected(&header, &packets, &[video, 3], &[]);
        let found = decode_two(&write(folder.path(), &header, header.packet_size(), &whole), [place, 2]);
        assert!(found == [pictures.clone(), sound.clone()], "stream {video} alone with its sound");
        let (thin, key_frames) = selected(&header, &packets, &[video, 3], &[video]);
        let [key_pictures, thin_sound] = decode_two(&write(folder.path(), &header, header.packet_size(), &thin), [place, 2]);
        assert!(key_frames >= 3 && key_frames * 4 < objects, "{key_frames} key frames of {objects}");
        assert!(thin_sound == sound, "sound is never thinned");
        assert_eq!(key_pictures.len(), key_frames);
        assert!(key_pictures.iter().all(|picture| pictures.contains(picture)), "key frames differ when alone");
    }
}
