//! The samples as files to be served, and variants of them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that is served.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Its name in [`folder`].
    pub name: &'static str,
    /// Bytes of a packet.
    pub packet_size: u64,
    /// Packets.
    pub packets: u64,
}

const fn sample(name: &'static str, packet_size: u64, packets: u64) -> Sample {
    Sample { name, packet_size, packets }
}

/// Packets of 800 to 8000 bytes, pictures and sound, sound alone, several rates.
pub const SAMPLES: [Sample; 8] = [
    sample("vod-wmv2-wmav2-indexed.wmv", 3200, 94),
    sample("audio-wmav2.wma", 3200, 54),
    sample("h264-aac-bframes.asf", 3200, 54),
    sample("h264-aac-nobframes.asf", 3200, 89),
    sample("camera-mjpeg-pcmu.asf", 1400, 126),
    sample("mbr-2video-1audio.asf", 1400, 180),
    sample("edge-packets-pcmu.asf", 800, 130),
    sample("large-packets.wmv", 8000, 37),
];

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A folder with all [`SAMPLES`].
#[track_caller]
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for sample in SAMPLES.iter().filter(|sample| sample.name != "large-packets.wmv") {
        std::fs::copy(data(sample.name), folder.path().join(sample.name)).unwrap();
    }
    std::fs::copy(data("edge-packets-pcmu.expected.ul"), folder.path().join("edge-packets-pcmu.expected.ul")).unwrap();
    if super::program_path("ffmpeg").is_some() {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-loglevel", "error", "-i"]).arg(data("vod-wmv2-wmav2-indexed.wmv"));
        command.args(["-c", "copy", "-packet_size", "8000", "-f", "asf"]).arg(folder.path().join("large-packets.wmv"));
        assert!(command.status().unwrap().success());
    }
    folder
}

/// Where the packets of a file begin, and their size, both in bytes.
#[track_caller]
pub fn data_start(file: &Path) -> (u64, u64) {
    let bytes = std::fs::read(file).unwrap();
    let header = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let at = file_properties(&bytes);
    let size = u32::from_le_bytes(bytes[at + 92..at + 96].try_into().unwrap());
    (header + 50, size.into())
}

/// When the first thing in each packet of a file is shown, milliseconds of media.
#[track_caller]
pub fn presentation_times(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    let (start, size) = data_start(file);
    let at = file_properties(&bytes);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (packets, preroll_ms) = (number(at + 56), number(at + 80));
    let packets = bytes[start as usize..].chunks_exact(size as usize).take(packets as usize);
    packets
        .map(|packet| u64::from(wmrelay::asf::walk(packet).unwrap().first_presentation_ms).saturating_sub(preroll_ms))
        .collect()
}

/// Where the File Properties Object is.
fn file_properties(bytes: &[u8]) -> usize {
    let properties = [0xA1, 0xDC, 0xAB, 0x8C, 0x47, 0xA9, 0xCF, 0x11];
    bytes.windows(8).position(|window| window == properties).unwrap()
}

/// A file of ffmpeg's that plays the indexed sample so many times over, 10 s each.
#[track_caller]
pub fn repeated(times: u32, file: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-stream_loop", &(times - 1).to_string(), "-i"]);
    command.arg(data("vod-wmv2-wmav2-indexed.wmv")).args(["-map", "0", "-c", "copy", "-f", "asf"]).arg(file);
    assert!(command.status().unwrap().success());
}

/// Adds copies of an indexed file beside it that have other indexes: `no-index.wmv` none, `bogus-index.wmv` one as VLC writes it,
/// `random-index.wmv` one of random entries.
#[track_caller]
pub fn seek_samples(indexed: &Path) {
    let folder = indexed.parent().unwrap();
    let bytes = std::fs::read(indexed).unwrap();
    let (start, _) = data_start(indexed);
    // The Data Object's size stands before its end; 50 bytes of it are in front of the packets.
    let size_at = start as usize - 34;
    let data_size = u64::from_le_bytes(bytes[size_at..size_at + 8].try_into().unwrap());
    let end = usize::try_from(start - 50 + data_size).unwrap();
    let (media, index) = bytes.split_at(end);
    std::fs::write(folder.join("no-index.wmv"), media).unwrap();
    // The GUID of an Index Object in front of an empty Simple Index.
    let guid = [0xD3, 0x29, 0xE2, 0xD6, 0xDA, 0x35, 0xD1, 0x11, 0x90, 0x34, 0, 0xA0, 0xC9, 3, 0x49, 0xBE];
    let mut bogus = media.to_vec();
    bogus.extend_from_slice(&guid);
    bogus.extend_from_slice(&56u64.to_le_bytes());
    bogus.extend_from_slice(&[0; 16]);
    bogus.extend_from_slice(&10_000_000u64.to_le_bytes());
    bogus.extend_from_slice(&[0; 8]);
    std::fs::write(folder.join("bogus-index.wmv"), bogus).unwrap();
    let mut random = super::Random(3);
    let packets = 2 * data_size / data_start(indexed).1;
    let mut wild = bytes.clone();
    for entry in wild[end + 56..end + index.len()].chunks_exact_mut(6) {
        let packet = u32::try_from(random.next() % packets).unwrap();
        entry[..4].copy_from_slice(&packet.to_le_bytes());
    }
    std::fs::write(folder.join("random-index.wmv"), wild).unwrap();
}

/// A folder with `places.asf`, sound of 20 s with one frame in each packet, and when each is heard, milliseconds of media.
#[track_caller]
pub fn with_places() -> (tempfile::TempDir, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("places.asf");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "anoisesrc=seed=1:sample_rate=8000:duration=20"]);
    command.args(["-ac", "1", "-af", "asetnsamples=n=650", "-c:a", "pcm_s16le", "-packet_size", "1400", "-f", "asf"]).arg(&file);
    assert!(command.status().unwrap().success());
    let places = presentation_times(&file);
    (folder, places)
}

/// The presentation times of a file's key frames, milliseconds of media, and the packets they begin in.
#[track_caller]
pub fn key_frames(file: &Path) -> Vec<(u64, u64)> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]);
    command.args(["-show_entries", "packet=pts_time,dts_time,pos,flags"]).arg(file);
    let done = super::process::Process::start(command).finish(std::time::Duration::from_secs(60));
    let (start, size) = data_start(file);
    let milliseconds = |text: &str| text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0).round() as u64);
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let position: u64 = fields[2].parse().ok()?;
        Some((milliseconds(fields[1]).or_else(|| milliseconds(fields[0]))?, (position - start) / size))
    };
    let keys: Vec<_> = done.stdout.lines().filter(|line| line.contains('K')).filter_map(of_line).collect();
    assert!(keys.len() >= 3, "{}: {keys:?}", file.display());
    keys
}
