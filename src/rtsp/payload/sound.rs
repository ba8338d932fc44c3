//! Samples out of RTP: G.711 and 16-bit PCM. Source: RFC 3551 4.5.

use super::{RtpPacket, Unit};
use crate::asf::compose::{Law, StreamFormat};

/// The longest object of samples, in parts of a second: what comes at once is cut into these.
const OBJECTS_PER_S: u32 = 25;

/// What the samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    G711(Law),
    /// 16 bits, the high byte first.
    L16,
}

#[derive(Debug)]
pub(super) struct Samples {
    codec: Codec,
    sample_rate: u32,
    channels: u16,
}

impl Samples {
    pub(super) const fn new(codec: Codec, sample_rate: u32, channels: u16) -> Self {
        Self { codec, sample_rate, channels }
    }

    pub(super) const fn format(&self) -> StreamFormat {
        let Self { sample_rate, channels, .. } = *self;
        match self.codec {
            Codec::G711(law) => StreamFormat::G711 { law, sample_rate, channels },
            Codec::L16 => StreamFormat::Pcm { sample_rate, channels },
        }
    }

    pub(super) fn push(&self, packet: &RtpPacket<'_>, out: &mut Vec<Unit>) {
        let width = if self.codec == Codec::L16 { 2 } else { 1 };
        let block = usize::from(self.channels) * width;
        let samples = (self.sample_rate / OBJECTS_PER_S).max(1);
        let object = usize::try_from(samples).unwrap_or(usize::MAX).saturating_mul(block);
        let mut timestamp = packet.timestamp;
        for piece in packet.payload.chunks(object) {
            let whole = piece.get(..piece.len() / block * block).unwrap_or_default();
            if whole.is_empty() {
                return;
            }
            let bytes = match self.codec {
                Codec::G711(_) => whole.to_vec(),
                Codec::L16 => whole.as_chunks::<2>().0.iter().flat_map(|[high, low]| [*low, *high]).collect(),
            };
            out.push(Unit { timestamp, key: true, bytes: bytes.into() });
            timestamp = timestamp.wrapping_add(samples);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket { marker: false, payload_type: 0, sequence: 1, timestamp: u32::MAX, ssrc: 0, payload }
    }

    #[test]
    fn long_packets_are_cut_into_40_ms() {
        let samples = Samples::new(Codec::G711(Law::Mu), 8000, 1);
        let mut out = Vec::new();
        samples.push(&packet(&[7; 700]), &mut out);
        let lens: Vec<(u32, usize)> = out.iter().map(|unit| (unit.timestamp, unit.bytes.len())).collect();
        assert_eq!(lens, [(u32::MAX, 320), (319, 320), (639, 60)]);
        samples.push(&packet(&[]), &mut out);
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn bytes_of_samples_change_places() {
        let samples = Samples::new(Codec::L16, 8000, 2);
        let mut out = Vec::new();
        samples.push(&packet(&[1, 2, 3, 4, 5, 6, 7]), &mut out);
        assert_eq!(out[0].bytes[..], [2, 1, 4, 3], "a block that is cut is left out");
    }
}
