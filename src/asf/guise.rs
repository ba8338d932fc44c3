//! Packets of one header sent under another one, so that players notice nothing: what they have to have in common for that.

use super::packet::PacketError;
use super::properties::{Format, Stream, StreamKind};
use super::shift::shift_presentation;
use super::{Header, guids};
use crate::wire::{Cursor, DecodeError};

/// Audio format tags of WAVEFORMATEX whose decoders need nothing but the number of samples, channels and bits.
const PLAIN_SOUND: [u16; 4] = [0x0001, 0x0006, 0x0007, 0x0055];
/// That of AAC without heads, whose codec data is an `AudioSpecificConfig`.
const RAW_AAC: u16 = 0x00FF;

/// Where decoders of H.264 find the parameter sets of what is sent under the other header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterSets {
    /// Before each of its key frames, with numbers that the other stream does not use: those of the other header stay as they are
    /// in the decoder, and the other stream goes on with them.
    InBand,
    /// In its header, perhaps there alone: they have to be the other header's.
    InHeader,
}

/// What packets become when they are sent under another header.
#[derive(Debug, Clone)]
pub struct Guise {
    header: Header,
    /// Added to presentation times, milliseconds; wraps.
    delta_ms: u32,
}

/// Why packets cannot be sent under another header: the first thing that players would stumble over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// Packets are of one size, which the header tells.
    #[error("packets of {new} bytes, not {old}")]
    PacketSize {
        /// Of the packets, bytes.
        new: usize,
        /// By the other header, bytes.
        old: usize,
    },
    /// There is a licence for one of them alone.
    #[error("encryption")]
    Encryption,
    /// Replicated data is read by what the header says of it.
    #[error("payload extension systems")]
    PayloadExtensions,
    /// A stream that one of them has not, or has as something else.
    #[error("stream {0} is not there, or of another kind")]
    Stream(u8),
    /// Another codec.
    #[error("stream {number}: {new}, not {old}")]
    Codec {
        /// The stream.
        number: u8,
        /// Of the packets.
        new: String,
        /// By the other header.
        old: String,
    },
    /// Another size of pictures.
    #[error("stream {number}: {}x{} pixels, not {}x{}", new.0, new.1, old.0, old.1)]
    Size {
        /// The stream.
        number: u8,
        /// Width and height of the packets' pictures.
        new: (u32, u32),
        /// By the other header.
        old: (u32, u32),
    },
    /// Other samples.
    #[error("stream {number}: {} Hz and {} channels, not {} Hz and {}", new.0, new.1, old.0, old.1)]
    Samples {
        /// The stream.
        number: u8,
        /// Samples a second and channels of the packets' sound.
        new: (u32, u16),
        /// By the other header.
        old: (u32, u16),
    },
    /// The decoder is set up otherwise: blocks, bits, or what the codec keeps in the header.
    #[error("stream {0}: the codec's own data (such as SPS and PPS, or an AudioSpecificConfig)")]
    CodecData(u8),
    /// Times or bytes of the stream are laid otherwise.
    #[error("stream {0}: time offset or error correction")]
    Laying(u8),
}

impl Guise {
    /// How packets of `header` are sent under `other`, which players have.
    ///
    /// Presentation times are moved by the difference of the prerolls. Bit rates, names, dates and durations need not match; of a
    /// codec's data that has to which its decoder cannot do without.
    ///
    /// # Errors
    /// [`Difference`] where decoders could not go on.
    ///
    /// Source: ASF 3.3, 9.1 and 9.2; what decoders do without by FFmpeg's.
    pub fn of(header: &Header, other: &Header, sets: ParameterSets) -> Result<Self, Difference> {
        let (new, old) = (header.packet_size(), other.packet_size());
        if new != old {
            return Err(Difference::PacketSize { new, old });
        }
        if header.is_encrypted() || other.is_encrypted() {
            return Err(Difference::Encryption);
        }
        if header.replicated_len() != other.replicated_len() {
            return Err(Difference::PayloadExtensions);
        }
        let is_played = |stream: &&Stream| matches!(stream.kind, StreamKind::Audio | StreamKind::Video);
        let stream_of = |header: &Header, number| header.streams().iter().copied().find(|stream| stream.number == number);
        for old in other.streams().iter().filter(is_played) {
            if stream_of(header, old.number).is_none() {
                return Err(Difference::Stream(old.number));
            }
        }
        for new in header.streams() {
            let old = stream_of(other, new.number).filter(|old| old.kind == new.kind).ok_or(Difference::Stream(new.number))?;
            let objects = header.properties_of_stream(new.number).zip(other.properties_of_stream(new.number));
            let (new_object, old_object) = objects.ok_or(Difference::Stream(new.number))?;
            compare((new, &Setup::of(new_object)), (&old, &Setup::of(old_object)), sets)?;
        }
        let delta_ms = other.preroll_ms().wrapping_sub(header.preroll_ms());
        Ok(Self { header: other.clone(), delta_ms })
    }

    /// The same for packets of another size, which are cut anew before players get them.
    #[must_use]
    pub fn in_packets_of(self, packet_size: usize) -> Self {
        Self { header: self.header.with_packet_size(packet_size), ..self }
    }

    /// The header that they are sent under.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Moves the presentation times of a packet to where they belong under that header.
    ///
    /// # Errors
    /// [`PacketError`] where the packet is invalid; it is then untouched.
    pub fn put_on(&self, packet: &mut [u8]) -> Result<(), PacketError> {
        shift_presentation(packet, self.delta_ms)
    }
}

fn compare(
    (new, new_setup): (&Stream, &Setup<'_>),
    (old, old_setup): (&Stream, &Setup<'_>),
    sets: ParameterSets,
) -> Result<(), Difference> {
    let number = new.number;
    if new.encrypted || old.encrypted {
        return Err(Difference::Encryption);
    }
    if new_setup.time_offset != old_setup.time_offset || new_setup.scrambling != old_setup.scrambling {
        return Err(Difference::Laying(number));
    }
    let (new_data, old_data) = (new_setup.type_specific, old_setup.type_specific);
    let sound = match (new.format, old.format) {
        (
            Format::Video { four_cc, width, height },
            Format::Video { four_cc: other, width: other_width, height: other_height },
        ) => {
            if !four_cc.eq_ignore_ascii_case(&other) {
                return Err(Difference::Codec { number, new: escaped(four_cc), old: escaped(other) });
            }
            if (width, height) != (other_width, other_height) {
                return Err(Difference::Size { number, new: (width, height), old: (other_width, other_height) });
            }
            let same = same_pictures(four_cc, codec_data_of_pictures(new_data), codec_data_of_pictures(old_data), sets);
            return if same { Ok(()) } else { Err(Difference::CodecData(number)) };
        }
        (Format::Audio { tag, .. }, Format::Audio { tag: other, .. }) if tag != other => {
            return Err(Difference::Codec { number, new: format!("format 0x{tag:04X}"), old: format!("0x{other:04X}") });
        }
        (Format::Audio { .. }, Format::Audio { .. }) => Sound::parse(new_data).ok().zip(Sound::parse(old_data).ok()),
        _ => return if new_data == old_data { Ok(()) } else { Err(Difference::CodecData(number)) },
    };
    let (new, old) = sound.ok_or(Difference::CodecData(number))?;
    if (new.sample_rate, new.channels) != (old.sample_rate, old.channels) {
        let (new, old) = ((new.sample_rate, new.channels), (old.sample_rate, old.channels));
        return Err(Difference::Samples { number, new, old });
    }
    if new.decodes_as(&old) { Ok(()) } else { Err(Difference::CodecData(number)) }
}

/// Whether a decoder of pictures that was set up with one goes on with the other.
fn same_pictures(four_cc: [u8; 4], new: &[u8], old: &[u8], sets: ParameterSets) -> bool {
    match &four_cc.map(|c| c.to_ascii_uppercase()) {
        // Each picture has its tables.
        b"MJPG" => true,
        b"H264" if sets == ParameterSets::InBand => has_start_codes(new) && has_start_codes(old),
        _ => new == old,
    }
}

/// Whether H.264 is in the byte stream form, as its parameter sets are; without any it must be.
fn has_start_codes(codec_data: &[u8]) -> bool {
    codec_data.is_empty() || codec_data.starts_with(&[0, 0, 1]) || codec_data.starts_with(&[0, 0, 0, 1])
}

/// What the codec keeps behind the BITMAPINFOHEADER.
fn codec_data_of_pictures(type_specific: &[u8]) -> &[u8] {
    // 11 bytes of the picture, of which the last two count those of the format.
    let len = type_specific.get(9..).and_then(|rest| rest.first_chunk()).map_or(0, |len| u16::from_le_bytes(*len));
    type_specific.get(11..).and_then(|format| format.get(..usize::from(len))?.get(40..)).unwrap_or_default()
}

/// A four-character code, for people.
fn escaped(four_cc: [u8; 4]) -> String {
    four_cc.escape_ascii().to_string()
}

/// WAVEFORMATEX.
#[derive(Debug, PartialEq, Eq)]
struct Sound<'a> {
    tag: u16,
    channels: u16,
    sample_rate: u32,
    bytes_per_s: u32,
    block: u16,
    bits: u16,
    codec_data: &'a [u8],
}

impl<'a> Sound<'a> {
    fn parse(type_specific: &'a [u8]) -> Result<Self, DecodeError> {
        let mut wave = Cursor::new(type_specific);
        let (tag, channels) = (wave.u16("tag")?, wave.u16("channels")?);
        let (sample_rate, bytes_per_s) = (wave.u32("sample rate")?, wave.u32("bytes per second")?);
        let (block, bits, len) = (wave.u16("block align")?, wave.u16("bits")?, wave.u16("codec data length")?);
        let codec_data = wave.take("codec data", len.into())?;
        Ok(Self { tag, channels, sample_rate, bytes_per_s, block, bits, codec_data })
    }

    /// Whether a decoder that was set up with the other one goes on with this. Codec, rate and channels are equal.
    fn decodes_as(&self, other: &Self) -> bool {
        if PLAIN_SOUND.contains(&self.tag) {
            self.bits == other.bits
        } else if self.tag == RAW_AAC {
            matches!((self.aac(), other.aac()), (Some(new), Some(old)) if new == old)
        } else {
            // Decoders of Windows Media Audio go by the bit rate too.
            self == other
        }
    }

    /// The part of an `AudioSpecificConfig` that AAC LC is decoded by: kind of object, rate, channels, length of frames. What may
    /// follow says whether there is more than LC, and finds nothing in what is LC alone. `None` for all that is more complicated.
    ///
    /// Source: ISO/IEC 14496-3, 1.6.2.1 and 4.4.1.
    fn aac(&self) -> Option<[u8; 2]> {
        let [first, second, ..] = *self.codec_data else { return None };
        let (object_type, rate) = (first >> 3, (first & 7) << 1 | second >> 7);
        // Type 2 is LC; rate 15 is one that is written out.
        (object_type == 2 && rate != 15).then_some([first, second])
    }
}

/// What a Stream Properties Object says of how a stream is laid into packets.
struct Setup<'a> {
    time_offset: &'a [u8],
    /// The interleaving of sound, where there is one.
    scrambling: Option<&'a [u8]>,
    type_specific: &'a [u8],
}

impl<'a> Setup<'a> {
    /// Of an object that was found sound.
    ///
    /// Source: ASF 3.3 and 9.1.
    fn of(object: &'a [u8]) -> Self {
        let part = |at: usize, len: usize| object.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        let len = |at: usize| {
            let field = part(at, 4).first_chunk().copied().unwrap_or_default();
            usize::try_from(u32::from_le_bytes(field)).unwrap_or(usize::MAX)
        };
        let (type_len, correction_len) = (len(64), len(68));
        let correction = part(78_usize.saturating_add(type_len), correction_len);
        // The first byte is how many blocks are spread; one is none.
        let spreads = part(40, 16) == guids::AUDIO_SPREAD.0 && correction.first().is_some_and(|span| *span > 1);
        Self { time_offset: part(56, 8), scrambling: spreads.then_some(correction), type_specific: part(78, type_len) }
    }
}

#[cfg(test)]
mod tests;
