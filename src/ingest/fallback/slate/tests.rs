use super::*;
use crate::asf::{Event, Format, Reader, payloads, samples, walk};

fn read(slate: &[u8]) -> (Header, Vec<Vec<u8>>) {
    let mut reader = Reader::new();
    reader.feed(slate);
    reader.finish();
    let Some(Ok(Event::Header(header))) = reader.poll() else { panic!("no header") };
    let mut packets = Vec::new();
    while let Some(Ok(Event::Packets(batch))) = reader.poll() {
        packets.extend(batch.chunks(header.packet_size()).map(<[u8]>::to_vec));
    }
    (header, packets)
}

/// A program that does what a shell's line says.
fn script(folder: &tempfile::TempDir, line: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.path().join("ffmpeg");
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Slates that this program makes.
fn slates_of(program: impl Into<String>, text: &str) -> Slates {
    Slates::new(text.into(), program.into())
}

impl Slates {
    fn is_warned(&self) -> bool {
        self.maker.warned.not_made.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn without_ffmpeg_there_is_no_slate_and_one_attempt_a_minute() {
    let mut slates = slates_of("no/such/program", "gone");
    assert_eq!(slates.of(None).await, None);
    assert!(slates.is_warned() && slates.made.len() == 1);
    assert_eq!(slates.of(None).await, None);
}

#[tokio::test]
async fn a_program_that_writes_nothing_or_without_end_makes_no_slate() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["exit 0", "echo broken >&2; exit 1", "exec cat /dev/zero"] {
        let mut slates = slates_of(script(&folder, line), "gone");
        assert_eq!(slates.of(None).await, None, "{line}");
    }
}

#[tokio::test]
async fn where_text_cannot_be_drawn_the_slate_is_plain() {
    let folder = tempfile::tempdir().unwrap();
    let line = "case \"$*\" in *drawtext*) echo 'No such filter: drawtext' >&2; exit 1;; *) echo picture;; esac";
    let mut slates = slates_of(script(&folder, line), "gone");
    assert_eq!(slates.of(None).await.as_deref(), Some(&b"picture\n"[..]));
    assert!(slates.maker.warned.without_text.load(Ordering::Relaxed));
}

#[tokio::test]
async fn the_text_goes_through_a_file_and_a_format_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let line = format!("echo x >>{}; echo \"$*\"; cat /proc/self/fd/0", count.display());
    let text = "50 % off: 'a'\\,[b]%{pts}\nsecond";
    let mut slates = slates_of(script(&folder, &line), text);
    let slate = slates.of(None).await.unwrap();
    let shown = String::from_utf8(slate.to_vec()).unwrap();
    let (arguments, file) = shown.split_once('\n').unwrap();
    assert_eq!(file, text);
    assert!(arguments.contains("expansion=none") && !arguments.contains("off"), "{arguments}");
    for _ in 0..3 {
        assert_eq!(slates.of(None).await.as_ref(), Some(&slate));
    }
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
}

/// What the encoder of a source and that of its slate are, they have equal headers: players notice nothing.
#[tokio::test]
async fn a_slate_of_ffmpeg_continues_a_source_of_ffmpeg() {
    let mut slates = slates_of("ffmpeg", "Camera 1 is not there");
    let Some(slate) = slates.of(None).await else { return eprintln!("no ffmpeg: nothing was tested") };
    let (header, packets) = read(&slate);
    assert!(!slates.is_warned());
    let info = walk(&packets[0]).unwrap();
    assert!(info.key_starts.intersects(header.video()), "it begins with a key frame");
    // The slate as if it were the source.
    let mut again = slates_of("ffmpeg", "Another text");
    let (other, _) = read(&again.of(Some(&header)).await.unwrap());
    assert!(other.continues(&header), "{:?} {:?}", SlateFormat::of(&header), header.streams());
    // And what another ffmpeg made long ago.
    let crate::ingest::playlist::Medium::BuiltIn(demo) = crate::ingest::demo::medium() else { panic!() };
    let (demo, _) = read(demo);
    let (slate, _) = read(&again.of(Some(&demo)).await.unwrap());
    assert_eq!(slate.codec_data(1), demo.codec_data(1), "{:?}", SlateFormat::of(&demo));
    assert!(slate.continues(&demo), "{:?}", SlateFormat::of(&demo));
    assert_eq!(again.made.len(), 2);
}

#[tokio::test]
async fn headers_in_quick_succession_make_no_slates_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let line = format!("echo x >>{}; echo picture", count.display());
    let mut slates = slates_of(script(&folder, &line), "gone");
    for name in ["live-asf-pipe.asf", "h264-aac-nobframes.asf", "audio-wmav2.wma"] {
        slates.prepare(Some(&samples::stream(name).0));
    }
    slates.prepare(None);
    assert!(slates.of(None).await.is_some(), "one that is needed is made at once");
    // One ahead of the three, and this.
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2);
}

/// A maker that hangs holds nobody up: a slate that is there is shown, and the other one when it is made.
#[tokio::test]
async fn what_is_at_hand_is_shown_while_another_format_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    let line = format!(
        "case \"$*\" in *s=640x480*) echo any;; *) echo x >>{}; until [ -e {} ]; do sleep 0.02; done; echo right;; esac",
        begun.display(),
        go.display()
    );
    let mut slates = slates_of(script(&folder, &line), "gone");
    let (source, _) = samples::stream("live-asf-pipe.asf");
    let any = slates.of(None).await.unwrap();
    slates.begun_at = None;
    // Ahead, beside everything else.
    slates.prepare(Some(&source));
    tokio::time::pause();
    let begun_at = Instant::now();
    assert_eq!(slates.at_hand(Some(&source)).await, Some(any));
    let waited = begun_at.elapsed();
    tokio::time::resume();
    assert!(waited >= PATIENCE_MAX && waited < PATIENCE_MAX + Duration::from_secs(1), "{waited:?}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(slates.of(Some(&source)).await.as_deref(), Some(&b"right\n"[..]));
    assert_eq!(std::fs::read_to_string(&begun).unwrap().lines().count(), 1, "it was not begun again");
}

#[tokio::test(start_paused = true)]
async fn a_slate_that_continues_the_source_is_shown_sooner_than_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut slates = slates_of(script(&folder, "exec sleep 60"), "gone");
    let (source, _) = samples::stream("live-asf-pipe.asf");
    let continuing = Bytes::from(samples::bytes("live-asf-pipe.asf"));
    slates.made.push((SlateFormat::default(), Ok(continuing.clone())));
    let other = SlateFormat::of(&samples::stream("audio-wmav2.wma").0);
    slates.made.push((other, Ok(samples::bytes("audio-wmav2.wma").into())));
    let begun = Instant::now();
    assert!(slates.at_hand(Some(&source)).await == Some(continuing));
    let waited = begun.elapsed();
    assert!(waited >= PATIENCE && waited < PATIENCE_MAX, "{waited:?}");
}

#[tokio::test]
async fn failures_push_no_slate_out_and_the_one_that_is_there_is_shown() {
    let mut slates = slates_of("no/such/program", "gone");
    let good = Bytes::from_static(b"good");
    slates.made.push((SlateFormat::of(&samples::stream("audio-wmav2.wma").0), Ok(good.clone())));
    for name in ["live-asf-pipe.asf", "h264-aac-nobframes.asf", "camera-mjpeg-pcmu.asf", "live-asf-pipe.asf"] {
        assert_eq!(slates.at_hand(Some(&samples::stream(name).0)).await.as_ref(), Some(&good), "{name}");
    }
    // Four failed: three formats, and that of all players.
    assert_eq!(slates.made.iter().filter(|(_, made)| made.is_err()).count(), KEPT);
}

#[tokio::test]
async fn a_task_that_fails_is_a_failure_of_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let line = "case \"$*\" in *s=640x480*) echo any;; *) echo right;; esac";
    let mut slates = slates_of(script(&folder, line), "gone");
    let (source, _) = samples::stream("live-asf-pipe.asf");
    slates.prepare(Some(&source));
    slates.making.abort_all();
    assert_eq!(slates.of(Some(&source)).await.as_deref(), Some(&b"any\n"[..]), "it was begun again");
    let right = SlateFormat::of(&source);
    assert!(slates.made.iter().any(|(format, made)| *format == right && made.is_err()));
}

/// SPS and PPS are before each key frame, with a number that leaves those of the source in the decoder.
#[tokio::test]
async fn a_slate_of_h264_needs_no_header() {
    let mut slates = Slates::new("gone".into(), "ffmpeg".into());
    let (source, _) = samples::stream("h264-aac-nobframes.asf");
    if slates.of(None).await.is_none() {
        return eprintln!("no ffmpeg: nothing was tested");
    }
    let (_, packets) = read(&slates.of(Some(&source)).await.unwrap());
    let video = source.video();
    let mut key_frames = 0;
    for payload in packets.iter().flat_map(|packet| payloads(packet).unwrap()) {
        if video.contains(payload.stream) && payload.key && payload.offset == 0 {
            let [0, 0, 0, 1, head, _, _, _, id, ..] = *payload.data else { panic!("{:?}", &payload.data[..9]) };
            // In the first byte behind the level, as an Exp-Golomb code: 7 is 0001000.
            assert_eq!((head & 0x1F, id >> 1), (7, 0b000_1000));
            key_frames += 1;
        }
    }
    assert_eq!(key_frames, super::super::slate_format::SECONDS);
}

#[tokio::test]
async fn slates_have_the_codecs_and_the_size_of_their_source() {
    let mut slates = slates_of("ffmpeg", "gone");
    if slates.of(None).await.is_none() {
        return eprintln!("no ffmpeg: nothing was tested");
    }
    for name in ["live-asf-pipe.asf", "h264-aac-nobframes.asf", "camera-mjpeg-pcmu.asf", "audio-wmav2.wma"] {
        let (source, _) = samples::stream(name);
        let (slate, packets) = read(&slates.of(Some(&source)).await.unwrap());
        let formats = |header: &Header| -> Vec<(u8, Option<u32>, bool)> {
            let of = |stream: &crate::asf::Stream| match stream.format {
                Format::Video { width, .. } => (stream.number, Some(width), true),
                _ => (stream.number, None, false),
            };
            header.streams().iter().map(of).collect()
        };
        assert_eq!(formats(&slate), formats(&source), "{name}");
        assert_eq!(slate.packet_size(), source.packet_size(), "{name}");
        let first = walk(&packets[0]).unwrap();
        assert!(slate.video().is_empty() || first.key_starts.intersects(slate.video()), "{name}");
        assert!(continues(&slate, &source), "{name}: {:?}", Guise::of(&slate, &source, ParameterSets::InBand));
    }
}

#[tokio::test]
async fn the_settings_say_which_ffmpeg_makes_slates() {
    use super::super::Content;
    use crate::settings::{FallbackKind, Settings};
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.transcode.ffmpeg = script(&folder, "echo other");
    let (relay, _) = crate::ingest::testing::with_settings(&settings);
    let Some(Content::Slate(mut slates)) = Content::new(&relay, FallbackKind::Slate("gone".into())) else { panic!("no slates") };
    assert_eq!(slates.of(None).await.as_deref(), Some(&b"other\n"[..]));
}
