use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::asf::compose::{Composition, Law, StreamFormat};
use crate::asf::fabricate::{extended_stream_with, file_properties, header, object, plans, video};
use crate::asf::{payloads, samples, walk};
use crate::wire::Guid;

const SPS: &[u8] = &[0, 0, 0, 1, 0x67, 66, 0xC0, 10, 0, 0, 0, 1, 0x68, 0xCE];
const OTHER_SPS: &[u8] = &[0, 0, 0, 1, 0x67, 77, 0x40, 12, 0, 0, 0, 1, 0x68, 0xEE];

fn h264(parameter_sets: &'static [u8]) -> StreamFormat {
    StreamFormat::H264 { width: 320, height: 240, parameter_sets: Bytes::from_static(parameter_sets), pixel_aspect: (1, 1) }
}

fn aac(config: &'static [u8]) -> StreamFormat {
    StreamFormat::Aac { sample_rate: 44_100, channels: 2, config: Bytes::from_static(config) }
}

fn composed(streams: Vec<StreamFormat>, packet_size: u16, preroll_ms: u32) -> Header {
    Composition { streams, packet_size, preroll_ms }.header(Guid([7; 16]), 1).unwrap()
}

fn of(new: &[StreamFormat], old: &[StreamFormat]) -> Result<(), Difference> {
    let (new, old) = (composed(new.to_vec(), 1400, 3100), composed(old.to_vec(), 1400, 500));
    Guise::of(&new, &old, ParameterSets::InBand).map(drop)
}

#[test]
fn what_a_decoder_can_do_without_does_not_count() {
    let mjpeg = StreamFormat::Mjpeg { width: 320, height: 240 };
    let g711 = StreamFormat::G711 { law: Law::A, sample_rate: 8000, channels: 1 };
    for streams in [
        ([h264(SPS), aac(&[0x12, 0x10])], [h264(OTHER_SPS), aac(&[0x12, 0x10, 0x56, 0xE5, 0])]),
        ([h264(&[]), g711.clone()], [h264(SPS), g711.clone()]),
        ([mjpeg.clone(), g711.clone()], [mjpeg, g711]),
    ] {
        assert_eq!(of(&streams.0, &streams.1), Ok(()));
        assert_eq!(of(&streams.1, &streams.0), Ok(()));
    }
}

#[test]
fn the_first_difference_is_told() {
    let base = [h264(SPS), aac(&[0x12, 0x10])];
    let larger = StreamFormat::H264 { width: 640, height: 240, parameter_sets: Bytes::from_static(SPS), pixel_aspect: (1, 1) };
    let mono = StreamFormat::Aac { sample_rate: 44_100, channels: 1, config: Bytes::from_static(&[0x12, 0x08]) };
    let mjpeg = StreamFormat::Mjpeg { width: 320, height: 240 };
    let mp3 = StreamFormat::Mp3 { sample_rate: 44_100, channels: 2 };
    for (new, words) in [
        (vec![base[0].clone()], "stream 2 is not there, or of another kind"),
        (vec![base[1].clone(), base[0].clone()], "stream 1 is not there, or of another kind"),
        (vec![base[0].clone(), base[1].clone(), base[1].clone()], "stream 3 is not there, or of another kind"),
        (vec![mjpeg, base[1].clone()], "stream 1: MJPG, not H264"),
        (vec![larger, base[1].clone()], "stream 1: 640x240 pixels, not 320x240"),
        (vec![base[0].clone(), mono], "stream 2: 44100 Hz and 1 channels, not 44100 Hz and 2"),
        (vec![base[0].clone(), mp3], "stream 2: format 0x0055, not 0x00FF"),
        // Another rate inside; HE-AAC; a rate that is written out; nothing.
        (vec![base[0].clone(), aac(&[0x11, 0x90])], "stream 2: the codec's own data"),
        (vec![base[0].clone(), aac(&[0x2B, 0x11])], "stream 2: the codec's own data"),
        (vec![base[0].clone(), aac(&[])], "stream 2: the codec's own data"),
        // The other form of H.264, in which lengths stand in place of start codes.
        (vec![h264(&[1, 66, 0xC0, 10]), base[1].clone()], "stream 1: the codec's own data"),
    ] {
        let difference = of(&new, &base).unwrap_err().to_string();
        assert!(difference.starts_with(words), "{difference}, not {words}");
    }
    for config in [&[0x2B_u8, 0x11][..], &[0x17, 0x80], &[]] {
        let strange =
            [base[0].clone(), StreamFormat::Aac { sample_rate: 1, channels: 2, config: Bytes::copy_from_slice(config) }];
        assert_eq!(of(&strange, &strange), Err(Difference::CodecData(2)), "{config:?}: nobody knows what follows from it");
    }
    let (new, old) = (composed(base.to_vec(), 1200, 500), composed(base.to_vec(), 1400, 500));
    let difference = Guise::of(&new, &old, ParameterSets::InBand).unwrap_err();
    assert_eq!(difference.to_string(), "packets of 1200 bytes, not 1400");
    // In the header alone, decoders would keep the wrong ones.
    let (new, old) = (composed(vec![h264(SPS)], 1400, 500), composed(vec![h264(OTHER_SPS)], 1400, 500));
    assert_eq!(Guise::of(&new, &old, ParameterSets::InHeader).unwrap_err(), Difference::CodecData(1));
    assert!(Guise::of(&new, &new, ParameterSets::InHeader).is_ok());
}

#[test]
fn codecs_that_are_set_up_by_the_header_alone_need_all_of_it() {
    let plain = [file_properties(1400, 0), video(1)];
    let parse = |children: &[Vec<u8>]| Header::parse(&header(children)).unwrap();
    let of = |new: &[Vec<u8>], old: &[Vec<u8>]| Guise::of(&parse(new), &parse(old), ParameterSets::InBand).map(drop);
    let mut other_data = video(1);
    // One byte of codec data more.
    other_data.push(9);
    other_data[16..24].copy_from_slice(&(24_u64 + 54 + 51 + 1).to_le_bytes());
    other_data[64..68].copy_from_slice(&52_u32.to_le_bytes());
    other_data[87..89].copy_from_slice(&41_u16.to_le_bytes());
    let mut later = video(1);
    later[56] = 1;
    assert_eq!(of(&plain, &plain), Ok(()));
    assert_eq!(of(&[file_properties(1400, 0), other_data], &plain), Err(Difference::CodecData(1)));
    assert_eq!(of(&[file_properties(1400, 0), later], &plain), Err(Difference::Laying(1)));
    let encrypted = [plain.to_vec(), vec![object(guids::CONTENT_ENCRYPTION, &[1; 16])]].concat();
    assert_eq!(of(&encrypted, &plain), Err(Difference::Encryption));
    let extended = [plain.to_vec(), vec![crate::asf::fabricate::extension(&[extended_stream_with(1, 4)])]].concat();
    assert_eq!(of(&extended, &plain), Err(Difference::PayloadExtensions));
    // Commands of the source are not missed; nor is a header for them made up.
    let commands = [plain.to_vec(), vec![crate::asf::fabricate::commands(2)]].concat();
    assert_eq!((of(&plain, &commands), of(&commands, &plain)), (Ok(()), Err(Difference::Stream(2))));
}

#[test]
fn sound_that_is_spread_over_packets_is_not_what_is_not() {
    let (source, _) = samples::stream("audio-wmav2.wma");
    assert!(Guise::of(&source, &source, ParameterSets::InHeader).is_ok());
    let spread = |span: u8| {
        let mut bytes = source.bytes().to_vec();
        let object = source.properties_of_stream(1).unwrap();
        let at = object.as_ptr() as usize - source.bytes().as_ptr() as usize;
        bytes[at + 78 + usize::from(object[64])] = span;
        Header::parse(&bytes).unwrap()
    };
    assert_eq!(source.properties_of_stream(1).unwrap()[40..56], guids::AUDIO_SPREAD.0);
    assert!(Guise::of(&spread(1), &source, ParameterSets::InHeader).is_ok());
    assert_eq!(Guise::of(&spread(4), &source, ParameterSets::InHeader).unwrap_err(), Difference::Laying(1));
    assert!(Guise::of(&spread(4), &spread(4), ParameterSets::InHeader).is_ok());
}

#[test]
fn presentation_times_are_moved_by_the_difference_of_the_prerolls() {
    let (source, packets) = samples::stream("h264-aac-nobframes.asf");
    let streams = source.streams().to_vec();
    for preroll_ms in [500_u32, 3100, 9000] {
        let mut bytes = source.bytes().to_vec();
        let file = source.file_properties().unwrap();
        let at = file.as_ptr() as usize - source.bytes().as_ptr() as usize;
        bytes[at + 80..at + 84].copy_from_slice(&preroll_ms.to_le_bytes());
        let other = Header::parse(&bytes).unwrap();
        let guise = Guise::of(&source, &other, ParameterSets::InHeader).unwrap();
        assert_eq!((guise.header().preroll_ms(), guise.header().streams()), (preroll_ms, &streams[..]));
        for packet in &packets {
            let mut moved = packet.clone();
            guise.put_on(&mut moved).unwrap();
            assert_eq!(walk(&moved).unwrap().send_time_ms, walk(packet).unwrap().send_time_ms);
            for (before, after) in payloads(packet).unwrap().zip(payloads(&moved).unwrap()) {
                let shown = |ms: u32, preroll_ms: u32| i64::from(ms) - i64::from(preroll_ms);
                assert_eq!(shown(after.presentation_ms, preroll_ms), shown(before.presentation_ms, source.preroll_ms()));
                assert_eq!((after.object, after.data), (before.object, before.data));
            }
        }
        let cut = guise.in_packets_of(9000);
        assert_eq!((cut.header().packet_size(), cut.header().preroll_ms()), (9000, preroll_ms));
    }
}

proptest! {
    #[test]
    fn presentation_times_alone_move(plan in plans(), delta_ms in any::<u32>()) {
        let packet = plan.build();
        let mut moved = packet.clone();
        shift_presentation(&mut moved, delta_ms).unwrap();
        prop_assert_eq!(walk(&moved).unwrap().send_time_ms, walk(&packet).unwrap().send_time_ms);
        for (before, after) in payloads(&packet).unwrap().zip(payloads(&moved).unwrap()) {
            // Without a time of its own a payload has the packet's.
            let bare = before.presentation_ms == plan.send_time_ms && after.presentation_ms == plan.send_time_ms;
            prop_assert!(bare || after.presentation_ms == before.presentation_ms.wrapping_add(delta_ms));
            prop_assert_eq!((after.stream, after.object, after.data), (before.stream, before.object, before.data));
        }
    }
}
