//! What an input holds, as ffprobe tells, and what of it needs no transcoding.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Duration, Instant, timeout};

use super::argv;
use super::words::masked;
use crate::ingest::child::{Bounds, Running, Words};
use crate::settings::{AudioCodec, AudioProfile, FfmpegInput, Profile, VideoCodec, VideoProfile, url_without_secrets};

/// Time to look at an input.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// Longest answer that is read; a stream takes some 2 KiB.
const ANSWER_BYTES: usize = 256 << 10;
/// What is known of an input is good for so long.
const MEMORY: Duration = Duration::from_secs(300);
/// Inputs that are remembered.
const MOST_REMEMBERED: usize = 256;

/// Which streams of an input are taken as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copies {
    pub(super) video: bool,
    pub(super) audio: bool,
}

/// The first streams of an input, which are those that are taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Streams {
    video: Option<Video>,
    audio: Option<Audio>,
}

#[derive(Debug, Clone, PartialEq)]
struct Video {
    codec: String,
    pixels: String,
    size: (u32, u32),
    reorders: bool,
    /// Where it is known.
    frame_rate: Option<f64>,
    bit_rate: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
struct Audio {
    codec: String,
    profile: String,
    sample_rate: u32,
    channels: u32,
    bit_rate: Option<u32>,
    /// How it is to be decoded stands beside the stream, as ASF wants it, not in each of its frames.
    has_configuration: bool,
}

/// ffprobe's JSON; numbers that it writes as text, and fields that are missing, are nothing unusual.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    streams: Vec<RawStream>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStream {
    codec_type: String,
    codec_name: String,
    profile: Option<Loose>,
    pix_fmt: String,
    width: u32,
    height: u32,
    has_b_frames: u32,
    avg_frame_rate: String,
    bit_rate: String,
    sample_rate: String,
    channels: u32,
    extradata_size: u32,
    disposition: Disposition,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Disposition {
    attached_pic: u32,
}

/// A profile without a name is a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Text(String),
    Other(IgnoredAny),
}

impl Streams {
    /// Reads ffprobe's answer; `None` where it is none.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let answer: Answer = serde_json::from_slice(json).ok()?;
        let mut streams = Self::default();
        for raw in answer.streams {
            match raw.codec_type.as_str() {
                "video" if streams.video.is_none() && raw.disposition.attached_pic == 0 => {
                    streams.video = Some(Video {
                        codec: raw.codec_name,
                        pixels: raw.pix_fmt,
                        size: (raw.width, raw.height),
                        reorders: raw.has_b_frames > 0,
                        frame_rate: ratio(&raw.avg_frame_rate),
                        bit_rate: raw.bit_rate.parse().ok(),
                    });
                }
                "audio" if streams.audio.is_none() => {
                    streams.audio = Some(Audio {
                        codec: raw.codec_name,
                        profile: match raw.profile {
                            Some(Loose::Text(profile)) => profile,
                            Some(Loose::Other(_)) | None => String::new(),
                        },
                        sample_rate: raw.sample_rate.parse().unwrap_or_default(),
                        channels: raw.channels,
                        bit_rate: raw.bit_rate.parse().ok(),
                        has_configuration: raw.extradata_size > 0,
                    });
                }
                _ => {}
            }
        }
        Some(streams)
    }

    /// What of it fits a profile as it is. A bit rate that nobody states is taken for one that fits.
    pub(super) fn copies(&self, profile: &Profile) -> Copies {
        if !profile.copy {
            return Copies::default();
        }
        let video = self.video.as_ref().zip(profile.video.as_ref()).is_some_and(|(stream, wanted)| stream.fits(wanted));
        let audio = self.audio.as_ref().zip(profile.audio.as_ref()).is_some_and(|(stream, wanted)| stream.fits(wanted));
        Copies { video, audio }
    }
}

impl Video {
    fn fits(&self, wanted: &VideoProfile) -> bool {
        let VideoProfile { codec, bit_rate, size: (width, height), frame_rate, .. } = *wanted;
        let is_small = (1..=width).contains(&self.size.0) && (1..=height).contains(&self.size.1);
        // Rates are averages of what has been seen, so a little more is meant to be as much.
        let is_slow = self.frame_rate.is_none_or(|rate| rate <= f64::from(frame_rate) * 1.05);
        let is_light = self.bit_rate.is_none_or(|rate| u64::from(rate) <= u64::from(bit_rate) * 11 / 10);
        // FFmpeg writes decode times into ASF: pictures that are not in the order in which they are shown would jump.
        let is_plain = !self.reorders && (codec != VideoCodec::H264 || ["yuv420p", "yuvj420p"].contains(&self.pixels.as_str()));
        self.codec == codec.name() && is_small && is_slow && is_light && is_plain
    }
}

impl Audio {
    fn fits(&self, wanted: &AudioProfile) -> bool {
        let AudioProfile { codec, bit_rate, sample_rate, channels } = *wanted;
        let is_plain = codec != AudioCodec::Aac || (self.has_configuration && self.profile == "LC");
        let is_light = self.bit_rate.is_none_or(|rate| u64::from(rate) <= u64::from(bit_rate) * 11 / 10);
        let fits = (1..=sample_rate).contains(&self.sample_rate) && (1..=channels).contains(&self.channels);
        self.codec == codec.name() && fits && is_light && is_plain
    }
}

/// `25/1`; `None` for `0/0`, which means that nobody knows.
fn ratio(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/')?;
    let (numerator, denominator): (f64, f64) = (numerator.parse().ok()?, denominator.parse().ok()?);
    (numerator > 0.0 && denominator > 0.0).then(|| numerator / denominator)
}

/// Whether it is worth a look what an input holds. Cameras and encoders never send Windows Media by these schemes, and a viewer who
/// opens one would wait a second or two for that answer. (Servers of Windows Media are pulled, without a child.)
fn may_fit(input: &FfmpegInput, profile: &Profile) -> bool {
    let video = profile.video.is_some_and(|video| matches!(video.codec, VideoCodec::H264 | VideoCodec::Mjpeg));
    let audio = profile.audio.is_some_and(|audio| matches!(audio.codec, AudioCodec::Aac | AudioCodec::Mp3));
    !input.is_live() || video || audio
}

/// Looks at an input.
///
/// # Errors
/// It took too long, said too much or nothing of use: words for a person.
async fn look(program: &str, input: &FfmpegInput, bounds: Bounds) -> Result<Streams, String> {
    let (secret, shown) = (input.input.clone(), url_without_secrets(&input.input));
    let log = move |line: &str| tracing::info!(line = masked(&line.replace(&secret, &shown)), "ffprobe says");
    let words = Words { heard: |_: &str| false, log };
    let mut running = Running::start(&argv::ffprobe(program, input), bounds, words)?;
    let mut answer = Vec::new();
    let read = match running.stdout.take() {
        Some(stdout) => {
            let bound = u64::try_from(ANSWER_BYTES + 1).unwrap_or(u64::MAX);
            timeout(PROBE_TIME, stdout.take(bound).read_to_end(&mut answer)).await
        }
        None => Ok(Ok(0)),
    };
    let status = running.end(matches!(read, Ok(Ok(_)))).await;
    match read {
        Err(_) => Err(format!("it told nothing for {} s", PROBE_TIME.as_secs())),
        Ok(Err(error)) => Err(format!("its answer cannot be read: {error}")),
        Ok(Ok(_)) if answer.len() > ANSWER_BYTES => Err("its answer is too long".into()),
        Ok(Ok(_)) => match Streams::parse(&answer) {
            Some(streams) if streams != Streams::default() => Ok(streams),
            _ => Err(format!("it found no streams; {status}")),
        },
    }
}

/// What is known of inputs.
#[derive(Default)]
pub(super) struct Probes(Mutex<HashMap<FfmpegInput, Known>>);

/// What is known of one.
struct Known {
    since: Instant,
    streams: Streams,
    /// The input failed since; good only where it cannot be looked at again.
    is_doubted: bool,
}

impl Known {
    fn is_good(&self) -> bool {
        !self.is_doubted && self.since.elapsed() < MEMORY
    }
}

impl Probes {
    /// What of an input is taken as it is: by what is known, else by looking. What cannot be looked at is taken for what it was, so that
    /// a camera that comes back just behind the look has the header that its viewers know; without that it is transcoded.
    pub(super) async fn copies(&self, program: &str, input: &FfmpegInput, profile: &Profile, bounds: Bounds) -> Copies {
        if !profile.copy || input.listens() || !may_fit(input, profile) {
            return Copies::default();
        }
        let known = self.lock().get(input).filter(|known| known.is_good()).map(|known| known.streams.clone());
        if let Some(streams) = known {
            return streams.copies(profile);
        }
        match look(program, input, bounds).await {
            Ok(streams) => {
                let copies = streams.copies(profile);
                tracing::debug!(?streams, ?copies, "looked at");
                self.remember(input.clone(), streams);
                copies
            }
            Err(reason) => match self.lock().get(input) {
                Some(known) => {
                    tracing::info!(reason, "it is not known what the input holds, so it is taken for what it held before");
                    known.streams.copies(profile)
                }
                None => {
                    tracing::info!(reason, "it is not known what the input holds, so it is transcoded");
                    Copies::default()
                }
            },
        }
    }

    /// The input is not as it was, or cannot be had: it is looked at again.
    pub(super) fn doubt(&self, input: &FfmpegInput) {
        if let Some(known) = self.lock().get_mut(input) {
            known.is_doubted = true;
        }
    }

    fn remember(&self, input: FfmpegInput, streams: Streams) {
        let mut known = self.lock();
        known.retain(|_, known| known.since.elapsed() < MEMORY);
        if known.len() < MOST_REMEMBERED || known.contains_key(&input) {
            known.insert(input, Known { since: Instant::now(), streams, is_doubted: false });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FfmpegInput, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    const CAMERA: &str = r#"{ "streams": [
        { "index": 0, "codec_name": "h264", "profile": "Main", "codec_type": "video", "width": 1280, "height": 720,
          "has_b_frames": 0, "pix_fmt": "yuvj420p", "avg_frame_rate": "25/1", "extradata_size": 36, "disposition": { "attached_pic": 0 } },
        { "index": 1, "codec_name": "aac", "profile": "LC", "codec_type": "audio", "sample_rate": "16000", "channels": 1,
          "bit_rate": "32000", "extradata_size": 2, "disposition": { "attached_pic": 0 } } ] }"#;

    fn copies(json: &str, profile: &str) -> Copies {
        Streams::parse(json.as_bytes()).unwrap().copies(Settings::default().profile(profile).unwrap())
    }

    fn of(video: bool, audio: bool) -> Copies {
        Copies { video, audio }
    }

    #[test]
    fn a_camera_fits_what_it_sends_already() {
        assert_eq!(copies(CAMERA, "wmp12"), of(true, true));
        for other in ["wmp64", "wmp9", "radio"] {
            assert_eq!(copies(CAMERA, other), of(false, false), "{other}");
        }
        let mut profile = Settings::default().profile("wmp12").unwrap().clone();
        profile.copy = false;
        assert_eq!(Streams::parse(CAMERA.as_bytes()).unwrap().copies(&profile), of(false, false));
    }

    #[test]
    fn what_does_not_fit_is_transcoded() {
        for (from, to, expected) in [
            ("\"has_b_frames\": 0", "\"has_b_frames\": 2", of(false, true)),
            ("\"width\": 1280", "\"width\": 3840", of(false, true)),
            ("\"width\": 1280, ", "", of(false, true)),
            ("25/1", "50/1", of(false, true)),
            ("25/1", "0/0", of(true, true)),
            ("30/1", "25/1", of(true, true)),
            ("yuvj420p", "yuv420p10le", of(false, true)),
            ("\"pix_fmt\"", "\"bit_rate\": \"9000000\", \"pix_fmt\"", of(false, true)),
            ("\"pix_fmt\"", "\"bit_rate\": \"N/A\", \"pix_fmt\"", of(true, true)),
            ("\"codec_name\": \"h264\"", "\"codec_name\": \"hevc\"", of(false, true)),
            ("\"attached_pic\": 0", "\"attached_pic\": 1", of(false, true)),
            ("\"LC\"", "\"HE-AAC\"", of(true, false)),
            ("\"LC\"", "-99", of(true, false)),
            ("\"extradata_size\": 2,", "", of(true, false)),
            ("\"16000\"", "\"96000\"", of(true, false)),
            ("\"channels\": 1", "\"channels\": 6", of(true, false)),
            ("\"32000\"", "\"512000\"", of(true, false)),
        ] {
            assert_eq!(copies(&CAMERA.replacen(from, to, 1), "wmp12"), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn windows_media_fits_too() {
        let file = r#"{"streams":[
            {"codec_name":"wmav2","codec_type":"audio","sample_rate":"44100","channels":2,"bit_rate":"96000","extradata_size":10},
            {"codec_name":"wmv2","codec_type":"video","width":320,"height":240,"has_b_frames":0,"avg_frame_rate":"15/1"}]}"#;
        assert_eq!(copies(file, "wmp9"), of(true, true));
        assert_eq!(copies(file, "radio"), of(false, true));
        assert_eq!(copies(file, "wmp64"), of(false, false));
    }

    #[test]
    fn the_first_streams_count_and_anything_else_is_no_answer() {
        let two =
            CAMERA.replacen("{ \"index\": 0", "{ \"codec_type\": \"video\", \"codec_name\": \"mjpeg\" }, { \"index\": 0", 1);
        assert_eq!(copies(&two, "wmp12"), of(false, true));
        assert_eq!(Streams::parse(b"{}"), Some(Streams::default()));
        for bad in ["", "7", "{\"streams\":7}", "{\"streams\":[{\"width\":-1}]}", "\u{0}"] {
            assert_eq!(Streams::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    fn script(text: &str) -> (tempfile::TempDir, String) {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ffprobe");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = path.display().to_string();
        (folder, program)
    }

    fn input(url: &str) -> FfmpegInput {
        FfmpegInput { input: url.into(), arguments: Vec::new() }
    }

    #[tokio::test]
    async fn an_input_is_looked_at_once_until_it_fails() {
        let (folder, program) = script(
            "echo x >> \"$0.runs\"; cat <<'END'\n{\"streams\":[{\"codec_type\":\"audio\",\"codec_name\":\"wmav2\",\"sample_rate\":\"44100\",\"channels\":2}]}\nEND",
        );
        let runs = || std::fs::read_to_string(folder.path().join("ffprobe.runs")).unwrap_or_default().lines().count();
        let (probes, settings) = (Probes::default(), Settings::default());
        let profile = settings.profile("radio").unwrap();
        let camera = input("http://h/1");
        for _ in 0..2 {
            assert_eq!(probes.copies(&program, &camera, profile, Bounds::default()).await, of(false, true));
        }
        assert_eq!(runs(), 1);
        probes.doubt(&camera);
        assert_eq!(probes.copies(&program, &camera, profile, Bounds::default()).await, of(false, true));
        assert_eq!(runs(), 2);
        // Not there at that moment: it is what it was, and is looked at again the next time.
        probes.doubt(&camera);
        let (_folder, blind) = script("exit 1");
        assert_eq!(probes.copies(&blind, &camera, profile, Bounds::default()).await, of(false, true));
        assert_eq!(probes.copies(&blind, &input("http://h/2"), profile, Bounds::default()).await, Copies::default());
        assert_eq!(probes.copies(&program, &camera, profile, Bounds::default()).await, of(false, true));
        assert_eq!(runs(), 3);
        // Who waits for a publisher would take ffprobe for it.
        assert_eq!(probes.copies(&program, &input("tcp://h:1?listen"), profile, Bounds::default()).await, Copies::default());
        // What cameras send fits no profile of Windows Media.
        assert_eq!(probes.copies(&program, &input("rtsp://h/1"), profile, Bounds::default()).await, Copies::default());
        assert_eq!(runs(), 3);
        let modern = settings.profile("wmp12").unwrap();
        assert_eq!(probes.copies(&program, &input("rtsp://h/1"), modern, Bounds::default()).await, Copies::default());
        assert_eq!(runs(), 4);
    }

    #[tokio::test]
    async fn an_answer_is_bounded() {
        let (_folder, program) = script("yes '{\"streams\":[]}'");
        assert_eq!(look(&program, &input("udp://h:1"), Bounds::default()).await, Err("its answer is too long".into()));
        let (_folder, program) = script("echo no; exit 3");
        let error = look(&program, &input("udp://h:1"), Bounds::default()).await.unwrap_err();
        assert_eq!(error, "it found no streams; exit status: 3");
        let error = look("/no/such/program", &input("udp://h:1"), Bounds::default()).await.unwrap_err();
        assert!(error.starts_with("cannot run /no/such/program: No such file"), "{error}");
    }
}
