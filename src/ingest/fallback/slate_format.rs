//! In what format a slate is made, so that players go on with the source's header where that can be.

use std::fmt::Write as _;

use crate::asf::{Format, Header};

/// The packet size of slates for sources that nobody knows, bytes: fits a datagram.
const PACKET_SIZE: usize = 1400;
/// Pictures a second where the source's header does not say how many it has.
const RATE: u32 = 10;
/// How long a slate is, seconds; then it begins again.
pub(super) const SECONDS: u32 = 4;
/// More pixels a side are no picture that a slate is made of.
const SIDE_MAX: u32 = 4096;
/// Bit rates beyond are a mistake of the header, bit/s.
const BIT_RATE_MAX: u32 = 100_000_000;
/// The number of a slate's SPS and PPS. Sources count from 0: theirs stay in the decoder beside it.
const PARAMETER_SET: &str = "sps-id=7";
/// H.264's Baseline, as SPS have it.
const BASELINE: u8 = 66;

/// What a slate is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlateFormat {
    /// By the number of the stream.
    streams: Vec<SlateStream>,
    packet_size: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SlateStream {
    Picture { encoder: &'static str, profile: Option<&'static str>, width: u32, height: u32, rate: u32, bit_rate: u32 },
    Silence { encoder: &'static str, sample_rate: u32, channels: u16, bit_rate: u32 },
}

impl Default for SlateFormat {
    /// What every player since 1999 decodes.
    fn default() -> Self {
        let picture =
            SlateStream::Picture { encoder: "wmv2", profile: None, width: 640, height: 480, rate: RATE, bit_rate: 200_000 };
        let silence = SlateStream::Silence { encoder: "wmav2", sample_rate: 44_100, channels: 2, bit_rate: 64_000 };
        Self { streams: vec![picture, silence], packet_size: PACKET_SIZE }
    }
}

impl SlateFormat {
    /// As near to a source's header as can be made: its first picture and its first sound, in its codecs where ffmpeg writes them
    /// and in those that every player decodes where not.
    pub(super) fn of(header: &Header) -> Self {
        let (mut pictures, mut sounds) = (0, 0);
        let mut streams: Vec<_> = header.streams().iter().collect();
        // ffmpeg numbers them in their order.
        streams.sort_by_key(|stream| stream.number);
        let streams = streams.into_iter().filter_map(|stream| match stream.format {
            Format::Video { four_cc, width, height } => {
                pictures += 1;
                let codec_data = header.codec_data(stream.number).unwrap_or_default();
                (pictures == 1).then(|| SlateStream::picture(four_cc, (width, height), codec_data, stream.bit_rate))
            }
            Format::Audio { tag, channels, sample_rate, bytes_per_s } => {
                sounds += 1;
                (sounds == 1).then(|| SlateStream::silence(tag, channels, sample_rate, bytes_per_s))
            }
            Format::Unread => None,
        });
        let streams: Vec<_> = streams.collect();
        if streams.is_empty() { Self::default() } else { Self { streams, packet_size: header.packet_size() } }
    }

    /// The size of the picture, if there is one.
    pub(super) fn picture(&self) -> Option<(u32, u32)> {
        self.streams.iter().find_map(|stream| match stream {
            SlateStream::Picture { width, height, .. } => Some((*width, *height)),
            SlateStream::Silence { .. } => None,
        })
    }

    /// What ffmpeg is told, but for its general options; `filter` is applied to the picture.
    pub(super) fn arguments(&self, filter: Option<&str>) -> Vec<String> {
        let mut arguments = Vec::new();
        for stream in &self.streams {
            let mut source = match stream {
                SlateStream::Picture { width, height, rate, .. } => {
                    format!("color=c=0x202428:s={width}x{height}:r={rate}:d={SECONDS}")
                }
                SlateStream::Silence { sample_rate, channels, .. } => {
                    let layout = if *channels == 1 { "mono" } else { "stereo" };
                    format!("anullsrc=r={sample_rate}:cl={layout}")
                }
            };
            if let (SlateStream::Picture { .. }, Some(filter)) = (stream, filter) {
                let _ = write!(source, ",{filter}"); // writing to a String cannot fail
            }
            arguments.extend(["-f".to_owned(), "lavfi".to_owned(), "-i".to_owned(), source]);
        }
        for (number, stream) in self.streams.iter().enumerate() {
            arguments.extend(["-map".to_owned(), number.to_string()]);
            match stream {
                SlateStream::Picture { encoder, profile, rate, bit_rate, .. } => {
                    let words = ["-c:v", *encoder, "-b:v", &bit_rate.to_string(), "-g", &rate.to_string(), "-bf", "0"];
                    arguments.extend(words.map(str::to_owned));
                    if let Some(profile) = profile {
                        // Its parameter sets are in each key frame: players have the source's header.
                        let words = ["-preset", "veryfast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-profile:v", profile];
                        arguments.extend(words.map(str::to_owned));
                        let words = ["-x264-params", PARAMETER_SET, "-bsf:v", "dump_extra=freq=keyframe", "-tag:v", "H264"];
                        arguments.extend(words.map(str::to_owned));
                    }
                    if *encoder == "mjpeg" {
                        arguments.extend(["-pix_fmt", "yuvj420p"].map(str::to_owned));
                    }
                }
                SlateStream::Silence { encoder, bit_rate, .. } => {
                    arguments.extend(["-c:a", encoder].map(str::to_owned));
                    if !encoder.starts_with("pcm") {
                        arguments.extend(["-b:a".to_owned(), bit_rate.to_string()]);
                    }
                }
            }
        }
        let ends = ["-t", &SECONDS.to_string(), "-packet_size", &self.packet_size.to_string()];
        arguments.extend(ends.map(str::to_owned));
        arguments
    }
}

impl SlateStream {
    fn picture(four_cc: [u8; 4], (width, height): (u32, u32), codec_data: &[u8], bit_rate: u32) -> Self {
        let encoder = match &four_cc.map(|c| c.to_ascii_uppercase()) {
            b"WMV1" => "wmv1",
            b"MP43" => "msmpeg4",
            b"MJPG" => "mjpeg",
            b"H264" | b"AVC1" => "libx264",
            b"MP4V" | b"XVID" | b"DIVX" | b"FMP4" => "mpeg4",
            // The others have no encoder.
            _ => "wmv2",
        };
        // Encoders take even sizes, which all real pictures have.
        let side = |pixels: u32| (pixels & !1).clamp(32, SIDE_MAX);
        let known = if &four_cc == b"WMV2" { wmv2_rates(codec_data) } else { None };
        let stated = if (1..=BIT_RATE_MAX).contains(&bit_rate) { bit_rate } else { 200_000 };
        let (rate, bit_rate) = known.unwrap_or((RATE, stated));
        // No more than the source asks of decoders.
        let profile =
            (encoder == "libx264").then(|| if h264_profile(codec_data) == Some(BASELINE) { "baseline" } else { "main" });
        Self::Picture { encoder, profile, width: side(width), height: side(height), rate, bit_rate }
    }

    fn silence(tag: u16, channels: u16, sample_rate: u32, bytes_per_s: u32) -> Self {
        let encoder = match tag {
            0x0001 => "pcm_s16le",
            0x0006 => "pcm_alaw",
            0x0007 => "pcm_mulaw",
            0x0055 => "libmp3lame",
            0x00FF | 0x1610 => "aac",
            0x0160 => "wmav1",
            // The later ones have no encoder.
            _ => "wmav2",
        };
        let bit_rate = bytes_per_s.saturating_mul(8);
        let bit_rate = if (8_000..=BIT_RATE_MAX).contains(&bit_rate) { bit_rate } else { 64_000 };
        let sample_rate = sample_rate.clamp(8_000, 96_000);
        Self::Silence { encoder, sample_rate, channels: channels.clamp(1, 2), bit_rate }
    }
}

/// The profile in the first SPS, with start codes of three or four bytes before it.
fn h264_profile(parameter_sets: &[u8]) -> Option<u8> {
    let is_sps = |window: &&[u8]| matches!(window, [0, 0, 1, head, _] if head & 0x1F == 7);
    parameter_sets.windows(5).find(is_sps).and_then(|window| window.last().copied())
}

/// Pictures a second and bit/s that WMV 2 has in its codec data: 5 bits, and 11 bits of 1024 bit/s. With the same ones the same
/// encoder writes the same codec data.
fn wmv2_rates(codec_data: &[u8]) -> Option<(u32, u32)> {
    let [first, second, ..] = codec_data else { return None };
    let bits = u32::from(u16::from_be_bytes([*first, *second]));
    let (rate, kilobits) = (bits >> 11, bits & 0x7FF);
    (rate > 0 && kilobits > 0).then_some((rate, kilobits * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;

    #[test]
    fn the_formats_of_real_sources() {
        let of = |name: &str| SlateFormat::of(&samples::stream(name).0).arguments(None).join(" ");
        let live = of("live-asf-pipe.asf");
        for part in ["-c:v wmv2", "-c:a wmav2", "-packet_size 1400"] {
            assert!(live.contains(part), "{live}");
        }
        let h264 = of("h264-aac-nobframes.asf");
        assert!(h264.contains("-c:v libx264") && h264.contains("-c:a aac"), "{h264}");
        let sound = of("audio-wmav2.wma");
        assert!(!sound.contains("color=") && sound.contains("anullsrc"), "{sound}");
        let many = of("mbr-2video-1audio.asf");
        assert_eq!((many.matches("color=").count(), many.matches("anullsrc").count()), (1, 1), "{many}");
    }

    #[test]
    fn profiles_of_h264() {
        assert_eq!(h264_profile(&[0, 0, 0, 1, 0x67, 66, 0xC0, 30]), Some(BASELINE));
        assert_eq!(h264_profile(&[0, 0, 1, 9, 0x10, 0, 0, 1, 0x27, 100, 0]), Some(100));
        assert_eq!(
            (h264_profile(&[]), h264_profile(&[0, 0, 1, 0x68, 66]), h264_profile(&[1, 66, 0, 30, 0x67])),
            (None, None, None)
        );
        let profile = |codec_data: &[u8]| match SlateStream::picture(*b"H264", (320, 240), codec_data, 1) {
            SlateStream::Picture { profile, .. } => profile,
            SlateStream::Silence { .. } => None,
        };
        assert_eq!((profile(&[0, 0, 1, 0x67, 66]), profile(&[0, 0, 1, 0x67, 100])), (Some("baseline"), Some("main")));
    }

    #[test]
    fn rates_in_the_codec_data_of_wmv2() {
        assert_eq!(wmv2_rates(&[0b1100_1000, 166, 0, 0]), Some((25, 169_984)));
        assert_eq!((wmv2_rates(&[0, 0, 0, 0]), wmv2_rates(&[0xFF])), (None, None));
    }

    #[test]
    fn what_a_header_states_is_bounded() {
        let SlateStream::Picture { width, height, bit_rate, rate, .. } =
            SlateStream::picture(*b"WMV3", (u32::MAX, 0), &[], u32::MAX)
        else {
            panic!()
        };
        assert_eq!((width, height, bit_rate, rate), (4096, 32, 200_000, RATE));
        let SlateStream::Silence { sample_rate, channels, bit_rate, .. } = SlateStream::silence(0x162, 9, 0, 0) else { panic!() };
        assert_eq!((sample_rate, channels, bit_rate), (8000, 2, 64_000));
    }
}
