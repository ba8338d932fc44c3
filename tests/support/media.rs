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
    sample("large-packets.wmv", 8000, 38),
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
    let properties = [0xA1, 0xDC, 0xAB, 0x8C, 0x47, 0xA9, 0xCF, 0x11];
    let at = bytes.windows(8).position(|window| window == properties).unwrap();
    let size = u32::from_le_bytes(bytes[at + 92..at + 96].try_into().unwrap());
    (header + 50, size.into())
}

/// Adds copies of the indexed sample with other indexes: none, one as VLC writes it, one of random entries.
#[track_caller]
pub fn seek_samples(folder: &Path) {
    let indexed = folder.join("vod-wmv2-wmav2-indexed.wmv");
    let bytes = std::fs::read(&indexed).unwrap();
    let (start, size) = data_start(&indexed);
    let end = usize::try_from(start + 94 * size).unwrap();
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
    let mut wild = bytes.clone();
    for entry in wild[end + 56..end + index.len()].chunks_exact_mut(6) {
        let packet = u32::try_from(random.next() % 200).unwrap();
        entry[..4].copy_from_slice(&packet.to_le_bytes());
    }
    std::fs::write(folder.join("random-index.wmv"), wild).unwrap();
}
