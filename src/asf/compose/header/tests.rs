use bytes::Bytes;

use super::*;
use crate::asf::compose::{Law, StreamFormat};
use crate::asf::{Format, StreamKind};

fn h264(width: u16, height: u16) -> StreamFormat {
    let parameter_sets = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 2, 3, 0, 0, 0, 1, 0x68, 4]);
    StreamFormat::H264 { width, height, parameter_sets, pixel_aspect: (1, 1) }
}

fn aac() -> StreamFormat {
    StreamFormat::Aac { sample_rate: 48_000, channels: 2, config: Bytes::from_static(&[0x11, 0x90]) }
}

fn mu_law() -> StreamFormat {
    StreamFormat::G711 { law: Law::Mu, sample_rate: 8000, channels: 1 }
}

fn composition(streams: &[StreamFormat]) -> Composition {
    Composition { streams: streams.to_vec(), packet_size: 1400, preroll_ms: 500 }
}

fn header(streams: &[StreamFormat]) -> Header {
    composition(streams).header(Guid([7; 16]), 9).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n").collect()
}

#[test]
fn our_own_reader_reads_it() {
    let header = header(&[h264(1920, 1080), aac(), mu_law()]);
    assert_eq!((header.packet_size(), header.preroll_ms(), header.is_broadcast()), (1400, 500, true));
    assert_eq!(header.video().iter().collect::<Vec<_>>(), [1], "pictures have key frames to wait for");
    let [video, sound, speech] = header.streams() else { panic!("{:?}", header.streams()) };
    assert_eq!((video.number, video.kind), (1, StreamKind::Video));
    assert_eq!(video.format, Format::Video { four_cc: *b"H264", width: 1920, height: 1080 });
    assert_eq!(video.bit_rate, 1920 * 1080 * 25 / 10);
    assert_eq!((sound.number, sound.kind), (2, StreamKind::Audio));
    let expected = Format::Audio { tag: 0x00FF, channels: 2, sample_rate: 48_000, bytes_per_s: 16_000 };
    assert_eq!(sound.format, expected);
    let expected = Format::Audio { tag: 7, channels: 1, sample_rate: 8000, bytes_per_s: 8000 };
    assert_eq!((speech.number, speech.format), (3, expected));
    assert_eq!(header.bit_rate(), 1920 * 1080 * 25 / 10 + 128_000 + 64_000);
    assert_eq!(header.file_id(), Guid([7; 16]));
    // It goes to viewers as any other source's does.
    let sent = Header::parse(&header.broadcast(Guid([8; 16]), 10)).unwrap();
    assert!(sent.continues(&header));
}

#[test]
fn the_same_streams_continue_and_others_do_not() {
    let streams = [h264(640, 480), aac()];
    let first = header(&streams);
    let again = composition(&streams).header(Guid([9; 16]), 77).unwrap();
    assert!(again.continues(&first));
    let mut other_sets = h264(640, 480);
    if let StreamFormat::H264 { parameter_sets, .. } = &mut other_sets {
        *parameter_sets = Bytes::from_static(&[0, 0, 0, 1, 0x67, 9]);
    }
    for others in [vec![h264(640, 360), aac()], vec![other_sets, aac()], vec![h264(640, 480)], vec![aac(), h264(640, 480)]] {
        assert!(!header(&others).continues(&first), "{others:?}");
    }
}

#[test]
fn every_format_is_taken() {
    let formats = [
        StreamFormat::Mjpeg { width: 320, height: 240 },
        StreamFormat::G711 { law: Law::A, sample_rate: 8000, channels: 2 },
        StreamFormat::Pcm { sample_rate: 16_000, channels: 1 },
        StreamFormat::Mp3 { sample_rate: 44_100, channels: 2 },
    ];
    let header = header(&formats);
    let seen: Vec<Format> = header.streams().iter().map(|stream| stream.format).collect();
    let audio = |tag, channels, sample_rate, bytes_per_s| Format::Audio { tag, channels, sample_rate, bytes_per_s };
    assert_eq!(
        seen,
        [
            Format::Video { four_cc: *b"MJPG", width: 320, height: 240 },
            audio(6, 2, 8000, 16_000),
            audio(1, 1, 16_000, 32_000),
            audio(0x55, 2, 44_100, 16_000),
        ]
    );
}

#[test]
fn what_has_no_header_is_told() {
    assert_eq!(composition(&[]).header(Guid([0; 16]), 0).unwrap_err(), CompositionError::Streams(0));
    let many = vec![mu_law(); 128];
    assert_eq!(composition(&many).header(Guid([0; 16]), 0).unwrap_err(), CompositionError::Streams(128));
    let mut long = h264(64, 64);
    if let StreamFormat::H264 { parameter_sets, .. } = &mut long {
        *parameter_sets = vec![0; 65_500].into();
    }
    assert_eq!(composition(&[aac(), long]).header(Guid([0; 16]), 0).unwrap_err(), CompositionError::CodecData(2));
    let small = Composition { packet_size: 99, ..composition(&[aac()]) };
    assert!(matches!(small.header(Guid([0; 16]), 0), Err(CompositionError::Header(_))));
}

#[test]
fn packet_sizes() {
    let jpeg = StreamFormat::Mjpeg { width: 640, height: 480 };
    assert_eq!(Composition::usual_packet_size(&[h264(1920, 1080), aac()], true), 1400);
    assert_eq!(Composition::usual_packet_size(&[jpeg], false), 8192);
    assert_eq!(Composition::usual_packet_size(&[h264(352, 288)], false), 3168);
    assert_eq!(Composition::usual_packet_size(&[mu_law()], false), 1400);
}

#[test]
fn pixels_that_are_not_square_are_told() {
    let square = header(&[h264(704, 576)]);
    let mut wide = h264(704, 576);
    if let StreamFormat::H264 { pixel_aspect, .. } = &mut wide {
        *pixel_aspect = (16, 11);
    }
    let wide = header(&[wide]);
    let name = encode_utf16_nul("AspectRatioX");
    let at = wide.bytes().windows(name.len()).position(|window| window == name).unwrap();
    assert_eq!(wide.bytes()[at + name.len()..][..4], [16, 0, 0, 0]);
    assert!(!square.bytes().windows(name.len()).any(|window| window == name));
}

#[test]
fn a_header_byte_for_byte() {
    let composition = Composition { streams: vec![mu_law()], packet_size: 1400, preroll_ms: 500 };
    let header = composition.header(Guid([7; 16]), 9).unwrap();
    assert_eq!(hex(header.bytes()), GOLDEN);
}

/// Checked field by field against ASF 3.
const GOLDEN: &str = "\
3026b2758e66cf11a6d900aa0062ce6cdc01000000000000050000000102a1dc
ab8c47a9cf118ee400c00c205365680000000000000007070707070707070707
0707070707070000000000000000090000000000000000000000000000000000
0000000000000000000000000000f40100000000000001000000780500007805
000000fa0000b503bf5f2ea9cf118ee300c00c205365860000000000000011d2
d3abbaa9cf118ee600c00c205365060058000000cba5e61472c632438399a969
52065b5a58000000000000000000000000000000000000000000000000fa0000
f40100000000000000fa0000f401000000000000000000000800000001000000
0000000000000000000000009107dcb7b7a9cf118ee600c00c20536560000000
00000000409e69f84d5bcf11a8fd00805f5c442b0057fb20555bcf11a8fd0080
5f5c442b0000000000000000120000000000000001000000000007000100401f
0000401f00000100080000004052d1861d31d011a3a400a0c90348f650000000
000000004152d1861d31d011a3a400a0c90348f60100000002000c0047002e00
3700310031002000b5002d006c006100770000000100000002000700ce75f87b
8d46d1118d82006097c9a2b220000000000000000100010000fa0000
";
