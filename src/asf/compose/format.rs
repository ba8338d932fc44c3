//! The formats of elementary streams that ASF carries, as its header has them.

use bytes::Bytes;

use crate::wire::Writer;

/// Audio format tags of WAVEFORMATEX.
const PCM: u16 = 0x0001;
const A_LAW: u16 = 0x0006;
const MU_LAW: u16 = 0x0007;
const MP3: u16 = 0x0055;
const RAW_AAC: u16 = 0x00FF;
/// Bytes of a BITMAPINFOHEADER.
const BITMAP_LEN: usize = 40;
/// The most that a decoder takes of a raw AAC frame, bytes by channel.
const AAC_BLOCK: u16 = 768;
/// Bit/s of AAC, by channel, and of MP3, where nobody says.
const AAC_BIT_RATE: u32 = 64_000;
const MP3_BIT_RATE: u32 = 128_000;
/// Pixels that cost one bit of H.264, 25 times a second: what cameras are set to, mostly.
const PIXELS_PER_BIT: u32 = 10;
const FRAMES_PER_S: u32 = 25;

/// How samples of G.711 are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// A-law, Europe.
    A,
    /// µ-law, America and Japan.
    Mu,
}

/// What an elementary stream is, and what one object of it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFormat {
    /// H.264 in the byte stream form (Annex B): an object is an access unit whose NAL units begin with start codes, SPS and PPS
    /// before each IDR picture.
    H264 {
        /// Pixels, cropped.
        width: u16,
        /// Pixels, cropped.
        height: u16,
        /// SPS and PPS with start codes of four bytes.
        parameter_sets: Bytes,
        /// Shape of a pixel, width by height; (1, 1) is square.
        pixel_aspect: (u16, u16),
    },
    /// Motion JPEG: an object is a JFIF image with all its tables, and a key frame.
    Mjpeg {
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
    /// AAC without ADTS heads: an object is a raw frame.
    Aac {
        /// Samples a second that come out of the decoder.
        sample_rate: u32,
        /// Channels that come out of the decoder.
        channels: u16,
        /// `AudioSpecificConfig`, ISO/IEC 14496-3.
        config: Bytes,
    },
    /// G.711: an object is any number of samples.
    G711 {
        /// Which of the two.
        law: Law,
        /// Samples a second.
        sample_rate: u32,
        /// Channels, their samples in turn.
        channels: u16,
    },
    /// Samples of 16 bits, the low byte first: an object is any number of them for each channel.
    Pcm {
        /// Samples a second.
        sample_rate: u32,
        /// Channels, their samples in turn.
        channels: u16,
    },
    /// MPEG-1 layer 3: an object is a frame with its head.
    Mp3 {
        /// Samples a second.
        sample_rate: u32,
        /// Channels.
        channels: u16,
    },
}

impl StreamFormat {
    /// Whether it is pictures, which have key frames to wait for.
    pub const fn is_video(&self) -> bool {
        matches!(self, Self::H264 { .. } | Self::Mjpeg { .. })
    }

    /// The codec's name, for people.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::H264 { .. } => "H.264",
            Self::Mjpeg { .. } => "Motion JPEG",
            Self::Aac { .. } => "AAC",
            Self::G711 { law: Law::A, .. } => "G.711 A-law",
            Self::G711 { law: Law::Mu, .. } => "G.711 µ-law",
            Self::Pcm { .. } => "PCM",
            Self::Mp3 { .. } => "MP3",
        }
    }

    /// Bit/s that are told where nobody knows: by the size of pictures, or as the format has it.
    pub fn usual_bit_rate(&self) -> u32 {
        match self {
            Self::H264 { width, height, .. } => {
                let pixels = u32::from(*width) * u32::from(*height);
                pixels.saturating_mul(FRAMES_PER_S) / PIXELS_PER_BIT
            }
            Self::Mjpeg { width, height } => (u32::from(*width) * u32::from(*height)).saturating_mul(FRAMES_PER_S),
            _ => self.bytes_per_s().saturating_mul(8),
        }
        .max(1)
    }

    /// Audio alone.
    fn bytes_per_s(&self) -> u32 {
        match *self {
            Self::H264 { .. } | Self::Mjpeg { .. } => 0,
            Self::Aac { channels, .. } => u32::from(channels).saturating_mul(AAC_BIT_RATE) / 8,
            Self::G711 { sample_rate, channels, .. } => sample_rate.saturating_mul(channels.into()),
            Self::Pcm { sample_rate, channels } => sample_rate.saturating_mul(channels.into()).saturating_mul(2),
            Self::Mp3 { .. } => MP3_BIT_RATE / 8,
        }
    }

    /// What the Codec List says of it: `FourCC` or format tag.
    pub(super) fn codec_info(&self) -> Vec<u8> {
        match self {
            Self::H264 { .. } => b"H264".to_vec(),
            Self::Mjpeg { .. } => b"MJPG".to_vec(),
            _ => self.tag().to_le_bytes().to_vec(),
        }
    }

    const fn tag(&self) -> u16 {
        match self {
            Self::G711 { law: Law::A, .. } => A_LAW,
            Self::G711 { law: Law::Mu, .. } => MU_LAW,
            Self::Mp3 { .. } => MP3,
            Self::Aac { .. } => RAW_AAC,
            Self::H264 { .. } | Self::Mjpeg { .. } | Self::Pcm { .. } => PCM,
        }
    }

    /// The type-specific data of the Stream Properties Object; `None` where codec data is too long for its length field.
    pub(super) fn type_specific(&self) -> Option<Vec<u8>> {
        match self {
            Self::H264 { width, height, parameter_sets, .. } => image(*width, *height, *b"H264", parameter_sets),
            Self::Mjpeg { width, height } => image(*width, *height, *b"MJPG", &[]),
            Self::Aac { sample_rate, channels, config } => self.wave(*sample_rate, *channels, (AAC_BLOCK, 16), config),
            Self::G711 { sample_rate, channels, .. } => self.wave(*sample_rate, *channels, (*channels, 8), &[]),
            Self::Pcm { sample_rate, channels } => self.wave(*sample_rate, *channels, (channels.saturating_mul(2), 16), &[]),
            Self::Mp3 { sample_rate, channels } => {
                // Id, flags, block size, frames in a block, delay of the codec: MPEGLAYER3WAVEFORMAT.
                let mut codec = Writer::default();
                codec.u16(1).u32(2).u16(1).u16(1).u16(1393);
                self.wave(*sample_rate, *channels, (1, 0), &codec.finish())
            }
        }
    }

    /// WAVEFORMATEX.
    fn wave(&self, sample_rate: u32, channels: u16, (block, bits): (u16, u16), codec: &[u8]) -> Option<Vec<u8>> {
        let mut wave = Writer::default();
        wave.u16(self.tag()).u16(channels).u32(sample_rate).u32(self.bytes_per_s()).u16(block).u16(bits);
        wave.u16(u16::try_from(codec.len()).ok()?).bytes(codec);
        Some(wave.finish())
    }
}

/// Size of the picture, and BITMAPINFOHEADER with what the codec adds to it.
fn image(width: u16, height: u16, four_cc: [u8; 4], codec: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(BITMAP_LEN + codec.len()).ok()?;
    let (width, height) = (u32::from(width), u32::from(height));
    let mut image = Writer::default();
    image.u32(width).u32(height).u8(2).u16(len);
    image.u32(len.into()).u32(width).u32(height).u16(1).u16(24).bytes(&four_cc);
    // Size of the image, pixels a metre, colours: nobody reads them.
    image.zeros(20).bytes(codec);
    Some(image.finish())
}
