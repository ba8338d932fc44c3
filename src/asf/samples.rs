//! The sample streams of `tests/data`, for tests.

use super::{Event, Header, Reader};

/// Every sample that is a stream, with its packet count and packet size.
pub(crate) const STREAMS: [(&str, usize, usize); 9] = [
    ("audio-wmav2.wma", 54, 3200),
    ("camera-mjpeg-pcmu.asf", 126, 1400),
    ("edge-packets-pcmu.asf", 130, 800),
    ("h264-aac-bframes.asf", 54, 3200),
    ("h264-aac-nobframes.asf", 89, 3200),
    ("live-asf-pipe.asf", 217, 1400),
    ("live-asf_stream-pipe.mmsh", 217, 1400),
    ("mbr-2video-1audio.asf", 180, 1400),
    ("vod-wmv2-wmav2-indexed.wmv", 94, 3200),
];

/// A file of `tests/data`.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Header and packets of a sample, read in one go.
pub(crate) fn stream(name: &str) -> (Header, Vec<Vec<u8>>) {
    let (mut reader, mut header, mut packets) = (Reader::new(), None, Vec::new());
    reader.feed(&bytes(name));
    reader.finish();
    while let Some(event) = reader.poll() {
        match event.unwrap() {
            Event::Header(new) => assert!(header.replace(new).is_none(), "{name}: two headers"),
            Event::Packets(batch) => {
                let size = header.as_ref().unwrap().packet_size();
                packets.extend(batch.chunks(size).map(<[u8]>::to_vec));
            }
            Event::End => (),
        }
    }
    (header.unwrap(), packets)
}

/// All packets of all samples.
pub(crate) fn packets() -> Vec<Vec<u8>> {
    STREAMS.iter().flat_map(|(name, ..)| stream(name).1).collect()
}
