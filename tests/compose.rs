//! ASF that is made here of elementary streams, read by ffmpeg: frames come out as they went in.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic is a test's report; and the base of the virtual clock"
)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use support::Need::{self, Program};
use support::player::{frames, of_stream};
use support::process::Process;
use support::ready;
use wmrelay::asf::compose::{Composition, Frame, Latency, Law, StreamFormat, Writer};
use wmrelay::wire::Guid;

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const LIMIT: Duration = Duration::from_secs(60);

/// What ffmpeg writes to its standard output.
#[track_caller]
fn made(arguments: &str) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error"]).args(arguments.split(' ')).arg("-");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where each occurrence of a pattern begins.
fn places(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(pattern)).collect()
}

/// The bytes from each place to the next.
fn split<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let ends = places.iter().skip(1).copied().chain([bytes.len()]);
    places.iter().zip(ends).map(|(from, to)| &bytes[*from..to]).collect()
}

/// One stream with its frames and when each is shown, milliseconds.
struct Track<'a> {
    format: StreamFormat,
    frames: Vec<(u64, bool, &'a [u8])>,
}

/// Writes the tracks side by side and lets ffmpeg read them; every frame has to come out as it went in, and when.
#[track_caller]
fn assert_read(tracks: &[Track<'_>], packet_size: u16, latency: Latency) {
    let streams = tracks.iter().map(|track| track.format.clone()).collect();
    let composition = Composition { streams, packet_size, preroll_ms: 500 };
    let header = composition.header(Guid([7; 16]), 0).unwrap();
    let mut writer = Writer::new(&composition, latency);
    let mut all: Vec<(u64, usize, bool, &[u8])> = Vec::new();
    for (stream, track) in tracks.iter().enumerate() {
        all.extend(track.frames.iter().map(|(ms, key, bytes)| (*ms, stream, *key, *bytes)));
    }
    all.sort_by_key(|(ms, stream, ..)| (*ms, *stream));
    let begin = Instant::now();
    for (ms, stream, key, bytes) in all {
        let now = begin + Duration::from_millis(ms);
        writer.push(now, &Frame { stream, presentation_ms: ms, decode_ms: ms, key, bytes }).unwrap();
    }
    writer.flush();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.asf");
    std::fs::write(&file, [header.bytes(), &header.data_head()[..], &writer.take()].concat()).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-i"]).arg(&file).args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
    let done = Process::start(command).finish(LIMIT);
    assert_eq!(done.stderr, "", "ffmpeg has nothing to complain about");
    for (stream, track) in tracks.iter().enumerate() {
        let read = of_stream(&frames(&done.stdout), stream);
        let md5 = |bytes: &[u8]| Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let expected: Vec<String> = track.frames.iter().map(|(.., bytes)| md5(bytes)).collect();
        assert!(read.iter().map(|frame| &frame.md5).eq(&expected), "stream {stream}\n{}", done.stdout);
        for (frame, (ms, ..)) in read.iter().zip(&track.frames) {
            assert!(
                (frame.time - *ms as f64 / 1000.0 - read[0].time).abs() < 0.002,
                "stream {stream}: {} at {ms} ms",
                frame.time
            );
        }
    }
}

#[test]
fn h264_and_aac() {
    if !ready("h264_and_aac", FFMPEG) {
        return;
    }
    let video = made(
        "-f lavfi -i testsrc=size=320x240:rate=25:duration=3 -pix_fmt yuv420p -c:v libx264 -bf 0 -g 25 -x264-params aud=1 -f h264",
    );
    let pictures = split(&video, &places(&video, &[0, 0, 0, 1, 9]));
    assert_eq!(pictures.len(), 75);
    let [sps, pps] = [0x67, 0x68].map(|first| places(&video, &[0, 0, 0, 1, first])[0]);
    let slice = places(&video, &[0, 0, 1]).into_iter().find(|at| *at > pps + 3).unwrap();
    // Start codes of three bytes and of four.
    let end = if video[slice - 1] == 0 { slice - 1 } else { slice };
    let parameter_sets = Bytes::copy_from_slice(&video[sps..end]);
    let is_key = |picture: &[u8]| !places(picture, &[0, 0, 0, 1, 0x67]).is_empty();
    let frames = (0..).zip(&pictures).map(|(at, picture)| (at * 40, is_key(picture), *picture));
    let video = Track {
        format: StreamFormat::H264 { width: 320, height: 240, parameter_sets, pixel_aspect: (1, 1) },
        frames: frames.collect(),
    };
    assert_eq!(video.frames.iter().filter(|(_, key, _)| *key).count(), 3);

    let sound = made("-f lavfi -i sine=sample_rate=48000:duration=3 -ac 2 -c:a aac -b:a 96k -f adts");
    let mut rest = &sound[..];
    let mut raw = Vec::new();
    while let [_, _, _, l2, l1, l0, ..] = rest {
        let len = usize::from(*l2 & 3) << 11 | usize::from(*l1) << 3 | usize::from(*l0 >> 5);
        raw.push(&rest[7..len]);
        rest = &rest[len..];
    }
    let config = Bytes::from_static(&[0x11, 0x90]);
    let frames = (0_u64..).zip(&raw).map(|(at, frame)| (at * 1024 / 48, true, *frame));
    let sound = Track { format: StreamFormat::Aac { sample_rate: 48_000, channels: 2, config }, frames: frames.collect() };
    assert!(sound.frames.len() > 100);
    let tracks = [video, sound];
    assert_read(&tracks, 1400, Latency::Low);
    assert_read(&tracks, 1400, Latency::Usual);
    assert_read(&tracks, 8192, Latency::Usual);
    assert_read(&tracks, 700, Latency::Low);
}

#[test]
fn motion_jpeg_and_g711() {
    if !ready("motion_jpeg_and_g711", FFMPEG) {
        return;
    }
    let images = made("-f lavfi -i testsrc=size=320x240:rate=10:duration=3 -pix_fmt yuvj420p -c:v mjpeg -f mjpeg");
    let images = split(&images, &places(&images, &[0xFF, 0xD8, 0xFF]));
    assert_eq!(images.len(), 30);
    let frames = (0..).zip(&images).map(|(at, image)| (at * 100, true, *image));
    let video = Track { format: StreamFormat::Mjpeg { width: 320, height: 240 }, frames: frames.collect() };
    for (law, codec) in [(Law::A, "pcm_alaw -f alaw"), (Law::Mu, "pcm_mulaw -f mulaw")] {
        let samples = made(&format!("-f lavfi -i sine=sample_rate=8000:duration=3 -c:a {codec}"));
        let frames = (0..).zip(samples.chunks_exact(160)).map(|(at, samples)| (at * 20, true, samples));
        let format = StreamFormat::G711 { law, sample_rate: 8000, channels: 1 };
        let sound = Track { format, frames: frames.collect() };
        let video = Track { format: video.format.clone(), frames: video.frames.clone() };
        assert_read(&[sound, video], 1400, Latency::Low);
    }
}

#[test]
fn pcm_and_mp3() {
    if !ready("pcm_and_mp3", FFMPEG) {
        return;
    }
    let samples = made("-f lavfi -i sine=sample_rate=16000:duration=2 -c:a pcm_s16le -f s16le");
    let frames = (0..).zip(samples.chunks_exact(640)).map(|(at, samples)| (at * 20, true, samples));
    let pcm = Track { format: StreamFormat::Pcm { sample_rate: 16_000, channels: 1 }, frames: frames.collect() };
    assert_read(&[pcm], 1400, Latency::Usual);
    let mp3 = made(
        "-f lavfi -i sine=sample_rate=48000:duration=2 -ac 1 -c:a libmp3lame -b:a 64k -write_xing 0 -id3v2_version 0 -f mp3",
    );
    // 64 kbit/s at 48 kHz: each frame is 24 ms and 192 bytes.
    let frames = (0..).zip(mp3.chunks_exact(192)).map(|(at, frame)| (at * 24, true, frame));
    let mp3 = Track { format: StreamFormat::Mp3 { sample_rate: 48_000, channels: 1 }, frames: frames.collect() };
    assert!(mp3.frames.iter().all(|(.., frame)| frame[0] == 0xFF));
    assert_read(&[mp3], 1400, Latency::Low);
}
