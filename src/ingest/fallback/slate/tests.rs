use super::*;
use crate::asf::{Event, Format, Reader, samples, walk};

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

#[tokio::test]
async fn without_ffmpeg_there_is_no_slate_and_one_attempt_a_minute() {
    let mut slates = Slates { program: "no/such/program".into(), ..Slates::new("gone".into()) };
    assert_eq!(slates.of(None).await, None);
    assert!(slates.warned.not_made && slates.made.len() == 1);
    assert_eq!(slates.of(None).await, None);
}

#[tokio::test]
async fn a_program_that_writes_nothing_or_without_end_makes_no_slate() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["exit 0", "echo broken >&2; exit 1", "exec cat /dev/zero"] {
        let mut slates = Slates { program: script(&folder, line), ..Slates::new("gone".into()) };
        assert_eq!(slates.of(None).await, None, "{line}");
    }
}

#[tokio::test]
async fn where_text_cannot_be_drawn_the_slate_is_plain() {
    let folder = tempfile::tempdir().unwrap();
    let line = "case \"$*\" in *drawtext*) echo 'No such filter: drawtext' >&2; exit 1;; *) echo picture;; esac";
    let mut slates = Slates { program: script(&folder, line), ..Slates::new("gone".into()) };
    assert_eq!(slates.of(None).await.as_deref(), Some(&b"picture\n"[..]));
    assert!(slates.warned.without_text);
}

#[tokio::test]
async fn the_text_goes_through_a_file_and_a_format_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    let line = format!("echo x >>{}; echo \"$*\"; cat /proc/self/fd/0", count.display());
    let text = "50 % off: 'a'\\,[b]%{pts}\nsecond";
    let mut slates = Slates { program: script(&folder, &line), ..Slates::new(text.into()) };
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
    let mut slates = Slates::new("Camera 1 is not there".into());
    let Some(slate) = slates.of(None).await else { return eprintln!("no ffmpeg: nothing was tested") };
    let (header, packets) = read(&slate);
    assert!(!slates.warned.not_made);
    let info = walk(&packets[0]).unwrap();
    assert!(info.key_starts.intersects(header.video()), "it begins with a key frame");
    // The slate as if it were the source.
    let mut again = Slates::new("Another text".into());
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
    let mut slates = Slates { program: script(&folder, &line), ..Slates::new("gone".into()) };
    for name in ["live-asf-pipe.asf", "h264-aac-nobframes.asf", "audio-wmav2.wma"] {
        slates.prepare(Some(&samples::stream(name).0)).await;
    }
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
    slates.prepare(None).await;
    assert!(slates.of(None).await.is_some(), "one that is needed is made at once");
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn slates_have_the_codecs_and_the_size_of_their_source() {
    let mut slates = Slates::new("gone".into());
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
        eprintln!("{name}: joined: {}", slate.continues(&source));
    }
}
