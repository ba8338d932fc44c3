//! The header of a stream that is made here.

use super::StreamFormat;
use crate::asf::properties::FileProperties;
use crate::asf::rewrite::{data_head, size};
use crate::asf::{Header, HeaderError, guids};
use crate::wire::{Guid, Writer, encode_utf16_nul};

/// Smallest and largest packets of ours by bit rate, bytes.
const USUAL_PACKET_SIZES: std::ops::RangeInclusive<u32> = 1400..=8192;
/// A packet holds so much of a second's bits: ten of them are bytes of an eightieth.
const PACKET_SHARE: u32 = 80;
/// Streams that fit a stream number.
const MOST_STREAMS: usize = 127;
/// Flag of the File Properties Object: live.
const BROADCAST: u32 = 1;
/// Flag of the Extended Stream Properties Object: send clean points again to whoever joins.
const RESEND_LIVE_CLEAN_POINTS: u32 = 8;
/// Kinds of the Codec List.
const VIDEO_CODEC: u16 = 1;
const AUDIO_CODEC: u16 = 2;
/// Type of a Metadata value: 32 bits.
const METADATA_U32: u16 = 3;

/// Why there is no header for what is to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompositionError {
    /// No stream, or over 127.
    #[error("{0} streams: ASF has 1 to 127")]
    Streams(usize),
    /// SPS and PPS, or a decoder's configuration, do not fit the header.
    #[error("the codec data of stream {0} is over 64 KiB")]
    CodecData(usize),
    /// What was made of it is not taken.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Streams that are written together: stream 1 is the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    /// What the streams are.
    pub streams: Vec<StreamFormat>,
    /// Size of every packet, 100 to 65527 bytes.
    pub packet_size: u16,
    /// What players buffer, milliseconds.
    pub preroll_ms: u32,
}

impl Composition {
    /// The size of packets that suits such streams, bytes, even: 1400 where `fits_datagrams` asks for it, else a tenth of a second's
    /// bytes, 1400 to 8192.
    pub fn usual_packet_size(streams: &[StreamFormat], fits_datagrams: bool) -> u16 {
        let (least, most) = USUAL_PACKET_SIZES.into_inner();
        let bit_rate = streams.iter().fold(0_u32, |sum, stream| sum.saturating_add(stream.usual_bit_rate()));
        let size = if fits_datagrams { least } else { (bit_rate / PACKET_SHARE).clamp(least, most) & !1 };
        u16::try_from(size).unwrap_or(u16::MAX)
    }

    /// The header: a Header Object and the 50 bytes of Data Object head behind it, as they go to players.
    ///
    /// `created` counts 100 ns from 1601. The same streams give headers that differ by these two alone.
    ///
    /// # Errors
    /// [`CompositionError`] where streams or sizes are out of bounds.
    ///
    /// Source: ASF 3.
    pub fn header(&self, file_id: Guid, created: u64) -> Result<Header, CompositionError> {
        let count = self.streams.len();
        if !(1..=MOST_STREAMS).contains(&count) {
            return Err(CompositionError::Streams(count));
        }
        let mut children = vec![self.file_properties(file_id, created), self.extension()];
        for (number, format) in self.numbered() {
            children.push(stream_properties(number, format).ok_or(CompositionError::CodecData(number.into()))?);
        }
        children.push(self.codec_list());
        children.push(self.bit_rates());
        let mut body = Writer::default();
        body.u32(u32::try_from(children.len()).unwrap_or(u32::MAX)).u8(1).u8(2).bytes(&children.concat());
        let bytes = [object(guids::HEADER, &body.finish()), data_head(file_id, 0, 0)].concat();
        Ok(Header::parse(&bytes)?)
    }

    /// The streams with their numbers.
    fn numbered(&self) -> impl Iterator<Item = (u8, &StreamFormat)> {
        (1..=u8::MAX).zip(&self.streams)
    }

    fn bit_rate(&self) -> u32 {
        self.streams.iter().fold(0_u32, |sum, stream| sum.saturating_add(stream.usual_bit_rate())).max(1)
    }

    fn file_properties(&self, file_id: Guid, created: u64) -> Vec<u8> {
        let packet_size = u32::from(self.packet_size);
        let mut out = Writer::with_capacity(FileProperties::LEN);
        out.guid(guids::FILE_PROPERTIES).u64(size(FileProperties::LEN)).guid(file_id);
        out.u64(0).u64(created).zeros(24).u64(self.preroll_ms.into());
        // Not a rate of 0: Windows Media Player 12 refuses it.
        out.u32(BROADCAST).u32(packet_size).u32(packet_size).u32(self.bit_rate());
        out.finish()
    }

    fn extension(&self) -> Vec<u8> {
        let mut children: Vec<Vec<u8>> = self.numbered().map(|(number, format)| self.extended_stream(number, format)).collect();
        children.extend(self.metadata());
        let children = children.concat();
        let mut body = Writer::default();
        body.guid(guids::RESERVED_1).u16(6).u32(u32::try_from(children.len()).unwrap_or(u32::MAX)).bytes(&children);
        object(guids::HEADER_EXTENSION, &body.finish())
    }

    fn extended_stream(&self, number: u8, format: &StreamFormat) -> Vec<u8> {
        let bit_rate = format.usual_bit_rate();
        let mut body = Writer::default();
        // From and to when, then the bucket: rate, size, fullness; and the same as its peak. Then the largest object: unknown.
        body.zeros(16);
        for _ in 0..2 {
            body.u32(bit_rate).u32(self.preroll_ms).u32(0);
        }
        body.u32(0).u32(RESEND_LIVE_CLEAN_POINTS).u16(number.into());
        // Language, time of a frame (a camera's may change any time), names, payload extension systems.
        body.u16(0).u64(0).u16(0).u16(0);
        object(guids::EXTENDED_STREAM_PROPERTIES, &body.finish())
    }

    /// The shape of pixels that are not square.
    fn metadata(&self) -> Option<Vec<u8>> {
        let mut records = Vec::new();
        for (number, format) in self.numbered() {
            let StreamFormat::H264 { pixel_aspect: (x, y), .. } = format else { continue };
            if x == y || *x == 0 || *y == 0 {
                continue;
            }
            records.extend([("AspectRatioX", *x), ("AspectRatioY", *y)].map(|(name, value)| {
                let name = encode_utf16_nul(name);
                let mut record = Writer::default();
                record.u16(0).u16(number.into()).u16(u16::try_from(name.len()).unwrap_or_default());
                record.u16(METADATA_U32).u32(4).bytes(&name).u32(value.into());
                record.finish()
            }));
        }
        let count = u16::try_from(records.len()).ok().filter(|count| *count > 0)?;
        Some(object(guids::METADATA, &[&count.to_le_bytes()[..], &records.concat()].concat()))
    }

    fn codec_list(&self) -> Vec<u8> {
        let mut body = Writer::default();
        body.guid(guids::RESERVED_2).u32(u32::try_from(self.streams.len()).unwrap_or_default());
        for format in &self.streams {
            let (name, info) = (encode_utf16_nul(format.name()), format.codec_info());
            body.u16(if format.is_video() { VIDEO_CODEC } else { AUDIO_CODEC });
            // Lengths of texts are in characters, that of the information in bytes.
            body.u16(u16::try_from(name.len() / 2).unwrap_or_default()).bytes(&name);
            body.u16(1).u16(0).u16(u16::try_from(info.len()).unwrap_or_default()).bytes(&info);
        }
        object(guids::CODEC_LIST, &body.finish())
    }

    fn bit_rates(&self) -> Vec<u8> {
        let mut body = Writer::default();
        body.u16(u16::try_from(self.streams.len()).unwrap_or_default());
        for (number, format) in self.numbered() {
            body.u16(number.into()).u32(format.usual_bit_rate());
        }
        object(guids::STREAM_BITRATE_PROPERTIES, &body.finish())
    }
}

fn stream_properties(number: u8, format: &StreamFormat) -> Option<Vec<u8>> {
    let type_specific = format.type_specific()?;
    let mut body = Writer::default();
    body.guid(if format.is_video() { guids::VIDEO } else { guids::AUDIO }).guid(guids::NO_ERROR_CORRECTION);
    body.u64(0).u32(u32::try_from(type_specific.len()).ok()?).u32(0).u16(number.into()).u32(0).bytes(&type_specific);
    Some(object(guids::STREAM_PROPERTIES, &body.finish()))
}

fn object(guid: Guid, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(24 + body.len());
    out.guid(guid).u64(size(24 + body.len())).bytes(body);
    out.finish()
}

#[cfg(test)]
mod tests;
