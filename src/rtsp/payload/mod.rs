//! Elementary streams out of RTP: what cameras, and encoders that publish over RTSP, send. No IO.
//!
//! Each format has its way to lay frames into packets; out come whole frames as ASF has them, one object each. What is incomplete
//! is left out, and what is too long is refused.
//!
//! Source: RFC 3550, and one more RFC for each format.

mod aac;
mod bits;
mod h264;
mod jpeg;
mod jpeg_tables;
mod latm;
mod rtp;
mod sound;
mod sps;

use bytes::Bytes;

pub use rtp::{RtpPacket, SenderReport};

use super::sdp::{Media, MediaKind};
use crate::asf::compose::{Law, MAX_OBJECT_LEN, StreamFormat};
use aac::Aac;
use h264::H264;
use jpeg::Jpeg;
use latm::Latm;
use sound::Samples;

/// Longest frame that is put together, bytes.
const MAX_UNIT_LEN: usize = MAX_OBJECT_LEN;

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// On the clock of the media, modulo 2^32.
    pub timestamp: u32,
    /// Nothing before it is needed to decode it.
    pub key: bool,
    /// As ASF has it.
    pub bytes: Bytes,
}

/// Why a packet, and what it belongs to, is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is not as its format says.
    #[error("{0}")]
    Malformed(&'static str),
    /// A frame goes on and on.
    #[error("a frame of over 8 MiB")]
    TooLong,
}

/// Why a media cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// ASF carries no such codec, or no player would know it.
    #[error("{0} is no codec that is sent on without transcoding")]
    Codec(String),
    /// The codec is known, but not in this form.
    #[error("{codec}: {reason}")]
    Form {
        /// By its description.
        codec: String,
        /// What is missing or unknown.
        reason: &'static str,
    },
    /// Neither pictures nor sound.
    #[error("neither pictures nor sound")]
    Other,
}

/// Takes the packets of one media, in order, and gives whole frames.
#[derive(Debug)]
pub struct Depacketizer {
    clock_hz: u32,
    payload_type: Option<u8>,
    sequence: Option<u16>,
    /// What comes does not follow on what came.
    is_torn: bool,
    codec: Codec,
}

#[derive(Debug)]
enum Codec {
    H264(H264),
    Aac(Aac),
    Latm(Latm),
    Jpeg(Jpeg),
    Samples(Samples),
}

impl Depacketizer {
    /// For a media by its description.
    ///
    /// # Errors
    /// [`Unusable`] where its frames cannot be sent on as they are.
    pub fn new(media: &Media) -> Result<Self, Unusable> {
        if media.kind == MediaKind::Other {
            return Err(Unusable::Other);
        }
        let Some(map) = &media.rtpmap else {
            let name =
                media.payload_type.map_or_else(|| "an unknown codec".to_owned(), |kind| format!("RTP payload type {kind}"));
            return Err(Unusable::Codec(name));
        };
        let fmtp = media.fmtp.as_deref().unwrap_or_default();
        let form = |reason| Unusable::Form { codec: map.encoding.clone(), reason };
        let channels = map.parameters.as_deref().and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        let sound = |codec| -> Result<Codec, Unusable> {
            if !(1..=8).contains(&channels) {
                return Err(form("its number of channels is not 1 to 8"));
            }
            Ok(Codec::Samples(Samples::new(codec, map.clock_hz, channels)))
        };
        let codec = match map.encoding.to_ascii_uppercase().as_str() {
            "H264" => Codec::H264(H264::new(fmtp).map_err(form)?),
            "MPEG4-GENERIC" => Codec::Aac(Aac::new(fmtp, map.clock_hz).map_err(form)?),
            "MP4A-LATM" => Codec::Latm(Latm::new(fmtp, map.clock_hz).map_err(form)?),
            "JPEG" => Codec::Jpeg(Jpeg::default()),
            "PCMA" => sound(sound::Codec::G711(Law::A))?,
            "PCMU" => sound(sound::Codec::G711(Law::Mu))?,
            "L16" => sound(sound::Codec::L16)?,
            _ => return Err(Unusable::Codec(map.encoding.clone())),
        };
        Ok(Self { clock_hz: map.clock_hz, payload_type: media.payload_type, sequence: None, is_torn: false, codec })
    }

    /// Ticks a second of the timestamps.
    pub const fn clock_hz(&self) -> u32 {
        self.clock_hz
    }

    /// What the frames are, as soon as that is known; that may be with the first frame only, and may change.
    pub fn format(&self) -> Option<StreamFormat> {
        match &self.codec {
            Codec::H264(h264) => h264.format(),
            Codec::Aac(aac) => Some(aac.format()),
            Codec::Latm(latm) => Some(latm.format()),
            Codec::Jpeg(jpeg) => jpeg.format(),
            Codec::Samples(samples) => Some(samples.format()),
        }
    }

    /// Whether it is pictures.
    pub const fn is_video(&self) -> bool {
        matches!(self.codec, Codec::H264(_) | Codec::Jpeg(_))
    }

    /// Whether the format lets pictures come in another order than they are shown in.
    pub const fn may_reorder(&self) -> bool {
        matches!(self.codec, Codec::H264(_))
    }

    /// Whether pictures may come in another order than they are shown in, by what the encoder says.
    pub fn reorders(&self) -> bool {
        matches!(&self.codec, Codec::H264(h264) if h264.reorders())
    }

    /// Another sender's packets follow: numbers begin anywhere.
    pub const fn restart(&mut self) {
        (self.sequence, self.is_torn) = (None, true);
    }

    /// Takes the next packet and adds the frames that are whole by it. Returns how many packets are missing before it.
    ///
    /// Packets of another payload type are passed over.
    ///
    /// # Errors
    /// [`PayloadError`]: the packet and the frame that it belongs to are left out.
    pub fn push(&mut self, packet: &RtpPacket<'_>, out: &mut Vec<Unit>) -> Result<u16, PayloadError> {
        if self.payload_type.is_some_and(|kind| kind != packet.payload_type) {
            return Ok(0);
        }
        let missing = self.sequence.map_or(0, |last| packet.sequence.wrapping_sub(last).wrapping_sub(1));
        if missing > 0x8000 {
            // Late, or a twin.
            return Ok(0);
        }
        self.sequence = Some(packet.sequence);
        let lost = std::mem::take(&mut self.is_torn) || missing > 0;
        match &mut self.codec {
            Codec::H264(h264) => h264.push(packet, lost, out)?,
            Codec::Aac(aac) => aac.push(packet, lost, out)?,
            Codec::Latm(latm) => latm.push(packet, lost, out)?,
            Codec::Jpeg(jpeg) => jpeg.push(packet, lost, out)?,
            Codec::Samples(samples) => samples.push(packet, out),
        }
        Ok(missing)
    }
}

/// A format parameter by its name, which is compared without case.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    let pairs = fmtp.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
