//! AAC out of RTP: raw frames. Source: RFC 3640 3.2, 3.3.6; ISO/IEC 14496-3 1.6.2.1.

use bytes::Bytes;

use super::bits::Bits;
use super::{PayloadError, RtpPacket, Unit, parameter};
use crate::asf::compose::StreamFormat;

/// Samples a second by their number. Source: ISO/IEC 14496-3 Table 1.18.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
/// Kinds of audio objects: spectral band replication, parametric stereo; without them, what the frames are.
const SBR: u32 = 5;
const PS: u32 = 29;
/// Longest configuration that is taken, bytes.
const CONFIG_BOUND: usize = 64;
/// Longest frame, bytes: more than a decoder may be given.
const FRAME_BOUND: usize = 64 << 10;

/// What a decoder has to know beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    bytes: Bytes,
    /// Of what comes out.
    sample_rate: u32,
    channels: u16,
    /// Samples of a frame, and how many there are of them a second.
    frame_samples: u32,
    core_rate: u32,
}

impl Config {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let config = Self::read(&mut Bits::new(bytes))?;
        Some(Self { bytes: Bytes::copy_from_slice(bytes), ..config })
    }

    /// Reads an `AudioSpecificConfig` up to the length of its frames; its bytes are left out.
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let kind = object_type(bits);
        let core_rate = sample_rate(bits)?;
        let mut channels = match bits.number(4) {
            count @ 1..=6 => u16::try_from(count).ok()?,
            7 => 8,
            _ => return None,
        };
        let mut output_rate = core_rate;
        if kind == SBR || kind == PS {
            output_rate = sample_rate(bits)?;
            object_type(bits);
            if kind == PS {
                channels = 2;
            }
        }
        let frame_samples = if bits.bit() { 960 } else { 1024 };
        (!bits.is_over()).then(|| Self { bytes: Bytes::new(), sample_rate: output_rate, channels, frame_samples, core_rate })
    }

    /// The same, of these bytes.
    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    /// Ticks from one frame to the next.
    pub(super) fn frame_ticks(&self, clock_hz: u32) -> u32 {
        let ticks = u64::from(self.frame_samples) * u64::from(clock_hz) / u64::from(self.core_rate.max(1));
        u32::try_from(ticks).unwrap_or(self.frame_samples)
    }

    pub(super) fn format(&self) -> StreamFormat {
        let Self { bytes, sample_rate, channels, .. } = self;
        StreamFormat::Aac { sample_rate: *sample_rate, channels: *channels, config: bytes.clone() }
    }
}

fn object_type(bits: &mut Bits<'_>) -> u32 {
    match bits.number(5) {
        31 => 32 + bits.number(6),
        kind => kind,
    }
}

fn sample_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.number(4) {
        15 => Some(bits.number(24)).filter(|rate| *rate > 0),
        index => SAMPLE_RATES.get(usize::try_from(index).ok()?).copied(),
    }
}

/// Takes frames out of packets of the `AAC-hbr` and `AAC-lbr` modes.
#[derive(Debug)]
pub(super) struct Aac {
    config: Config,
    /// Ticks from one frame to the next.
    frame_ticks: u32,
    /// Bits of the fields of a head: size, index, difference of indices.
    size_bits: u32,
    index_bits: u32,
    delta_bits: u32,
    /// A frame that comes in pieces: when it is, how long it gets, what is there.
    pieces: Option<(u32, usize, Vec<u8>)>,
}

impl Aac {
    /// By the format parameters of a description.
    pub(super) fn new(fmtp: &str, clock_hz: u32) -> Result<Self, &'static str> {
        let mode = parameter(fmtp, "mode").unwrap_or("AAC-hbr");
        if !mode.eq_ignore_ascii_case("AAC-hbr") && !mode.eq_ignore_ascii_case("AAC-lbr") {
            return Err("its mode is neither AAC-hbr nor AAC-lbr");
        }
        let others =
            ["CTSDeltaLength", "DTSDeltaLength", "randomAccessIndication", "streamStateIndication", "auxiliaryDataSizeLength"];
        if others.iter().any(|name| parameter(fmtp, name).is_some_and(|value| value != "0")) {
            return Err("its packets have heads that AAC needs nowhere");
        }
        let bits = |name, usual| parameter(fmtp, name).map_or(Some(usual), |value| value.parse().ok()).filter(|bits| *bits <= 16);
        let (Some(size_bits), Some(index_bits), Some(delta_bits)) =
            (bits("sizelength", 13), bits("indexlength", 3), bits("indexdeltalength", 3))
        else {
            return Err("the lengths in the heads of its packets are no numbers up to 16");
        };
        if size_bits == 0 {
            return Err("its packets do not tell how long frames are");
        }
        let config = parameter(fmtp, "config").and_then(unhex).and_then(|bytes| Config::parse(&bytes));
        let config = config.ok_or("its description has no configuration for a decoder, or one that is unknown")?;
        let frame_ticks = config.frame_ticks(clock_hz);
        Ok(Self { config, frame_ticks, size_bits, index_bits, delta_bits, pieces: None })
    }

    pub(super) fn format(&self) -> StreamFormat {
        self.config.format()
    }

    pub(super) fn push(&mut self, packet: &RtpPacket<'_>, lost: bool, out: &mut Vec<Unit>) -> Result<(), PayloadError> {
        if lost {
            self.pieces = None;
        }
        const MALFORMED: PayloadError = PayloadError::Malformed("AAC whose heads do not fit its packet");
        let ([n1, n0], rest) = packet.payload.split_first_chunk::<2>().ok_or(MALFORMED)?;
        let heads_bits = u32::from(u16::from_be_bytes([*n1, *n0]));
        let heads_len = usize::try_from(heads_bits.div_ceil(8)).map_err(|_| MALFORMED)?;
        let (heads, mut data) = rest.split_at_checked(heads_len).ok_or(MALFORMED)?;
        let (mut heads, mut left) = (Bits::new(heads), heads_bits);
        let mut timestamp = packet.timestamp;
        let mut is_first = true;
        loop {
            let index_bits = if is_first { self.index_bits } else { self.delta_bits };
            let head_bits = self.size_bits + index_bits;
            if left < head_bits {
                return Ok(());
            }
            left -= head_bits;
            let len = usize::try_from(heads.number(self.size_bits)).map_err(|_| MALFORMED)?;
            // Frames that are skipped are interleaved ones, which nobody sends live.
            let skipped = heads.number(index_bits);
            if !is_first {
                timestamp = timestamp.wrapping_add(self.frame_ticks.wrapping_mul(skipped.wrapping_add(1)));
            }
            match data.split_at_checked(len) {
                Some((frame, behind)) if self.pieces.is_none() => {
                    if !frame.is_empty() {
                        out.push(Unit { timestamp, key: true, bytes: Bytes::copy_from_slice(frame) });
                    }
                    data = behind;
                }
                _ if is_first && left == 0 => return self.piece(timestamp, len, data, out),
                _ => {
                    self.pieces = None;
                    return Err(MALFORMED);
                }
            }
            is_first = false;
        }
    }

    /// A piece of a frame that is longer than a packet.
    fn piece(&mut self, timestamp: u32, len: usize, data: &[u8], out: &mut Vec<Unit>) -> Result<(), PayloadError> {
        let (at, whole, mut bytes) = self.pieces.take().unwrap_or_else(|| (timestamp, len, Vec::new()));
        if (at, whole) != (timestamp, len) || len > FRAME_BOUND || bytes.len() + data.len() > len {
            return Err(PayloadError::Malformed("pieces of AAC that do not belong together"));
        }
        bytes.extend_from_slice(data);
        if bytes.len() < len {
            self.pieces = Some((at, whole, bytes));
        } else {
            out.push(Unit { timestamp, key: true, bytes: bytes.into() });
        }
        Ok(())
    }
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_matches('"');
    if text.len() > CONFIG_BOUND * 2 {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() >= 4 && digits.len().is_multiple_of(2))?;
    Some(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HBR: &str =
        "streamtype=5;profile-level-id=1; mode=AAC-hbr; config=1190; sizeLength=13;indexLength=3;indexDeltaLength=3";

    fn aac() -> Aac {
        Aac::new(HBR, 48_000).unwrap()
    }

    fn packet(timestamp: u32, payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket { marker: true, payload_type: 96, sequence: 1, timestamp, ssrc: 0, payload }
    }

    #[test]
    fn configurations() {
        let of = |hex: &str| {
            let fmtp = format!("mode=AAC-hbr;config={hex}");
            Aac::new(&fmtp, 48_000).map(|aac| (aac.config.sample_rate, aac.config.channels, aac.frame_ticks))
        };
        assert_eq!(of("1190"), Ok((48_000, 2, 1024)));
        assert_eq!(of("1210"), Ok((44_100, 2, 1114)));
        assert_eq!(of("1588"), Ok((8000, 1, 6144)), "LC of 8 kHz on a clock of 48");
        // HE-AAC told outright: 24 kHz in, 48 kHz out.
        assert_eq!(of("2b118800"), Ok((48_000, 2, 2048)));
        assert!(of("").is_err() && of("zz").is_err() && of("1f80").is_err() && of("11").is_err());
        assert!(Aac::new("mode=CELP-cbr;config=1190", 48_000).is_err());
        assert!(Aac::new("sizelength=0;config=1190", 48_000).is_err());
    }

    #[test]
    fn several_frames_in_a_packet() {
        let mut out = Vec::new();
        // 32 bits of heads: 3 bytes, then 2.
        aac().push(&packet(90, &[0, 32, 0, 3 << 3, 0, 2 << 3, 1, 2, 3, 4, 5]), false, &mut out).unwrap();
        let units: Vec<(u32, &[u8])> = out.iter().map(|unit| (unit.timestamp, &unit.bytes[..])).collect();
        assert_eq!(units, [(90, &[1, 2, 3][..]), (90 + 1024, &[4, 5])]);
    }

    #[test]
    fn a_frame_in_pieces() {
        let (mut aac, mut out) = (aac(), Vec::new());
        aac.push(&packet(7, &[0, 16, 0, 5 << 3, 1, 2, 3]), false, &mut out).unwrap();
        assert!(out.is_empty());
        aac.push(&packet(7, &[0, 16, 0, 5 << 3, 4, 5]), false, &mut out).unwrap();
        assert_eq!(out[0].bytes[..], [1, 2, 3, 4, 5]);
        aac.push(&packet(8, &[0, 16, 0, 5 << 3, 1, 2, 3]), false, &mut out).unwrap();
        aac.push(&packet(9, &[0, 16, 0, 1 << 3, 6]), true, &mut out).unwrap();
        assert_eq!(out[1].bytes[..], [6], "what lost a piece is left out");
        aac.push(&packet(10, &[0, 16, 0, 5 << 3, 1, 2, 3]), false, &mut out).unwrap();
        assert!(aac.push(&packet(11, &[0, 16, 0, 6 << 3, 1, 2, 3]), false, &mut out).is_err());
    }

    proptest! {
        #[test]
        fn any_packets(packets in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let (mut aac, mut out) = (aac(), Vec::new());
            for (lost, payload) in &packets {
                let _ = aac.push(&packet(1, payload), *lost, &mut out);
            }
            prop_assert!(out.iter().all(|unit| unit.bytes.len() <= FRAME_BOUND));
        }
    }
}
