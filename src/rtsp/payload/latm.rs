//! AAC out of RTP as MP4A-LATM, its configuration in the description. Source: RFC 6416 6; ISO/IEC 14496-3 1.7.3.

use bytes::Bytes;

use super::aac::Config;
use super::bits::Bits;
use super::{PayloadError, RtpPacket, Unit, parameter};
use crate::asf::compose::StreamFormat;

/// Longest multiplexed element, bytes: what is longer says a broken sender.
const ELEMENT_BOUND: usize = 64 << 10;

/// Takes frames out of multiplexed elements.
#[derive(Debug)]
pub(super) struct Latm {
    config: Config,
    /// Frames of one element.
    frames: u32,
    frame_ticks: u32,
    /// An element in pieces: when it is, what is there.
    pieces: Option<(u32, Vec<u8>)>,
    /// What comes belongs to an element whose beginning was lost.
    is_torn: bool,
}

impl Latm {
    /// By the format parameters of a description.
    pub(super) fn new(fmtp: &str, clock_hz: u32) -> Result<Self, &'static str> {
        if parameter(fmtp, "cpresent") != Some("0") {
            return Err("its configuration is not in its description (cpresent=0)");
        }
        let config = parameter(fmtp, "config").and_then(super::aac::unhex);
        let config = config.ok_or("its description has no configuration for a decoder")?;
        let (frames, config) = mux_config(&config).ok_or("its configuration is not that of a single stream of AAC")?;
        let frame_ticks = config.frame_ticks(clock_hz);
        Ok(Self { config, frames, frame_ticks, pieces: None, is_torn: false })
    }

    pub(super) fn format(&self) -> StreamFormat {
        self.config.format()
    }

    pub(super) fn push(&mut self, packet: &RtpPacket<'_>, lost: bool, out: &mut Vec<Unit>) -> Result<(), PayloadError> {
        const MALFORMED: PayloadError = PayloadError::Malformed("LATM whose lengths do not fit its packet");
        if lost {
            // The rest of an element that has begun is of no use; whether one has begun that did not come shows below, mostly.
            self.is_torn |= self.pieces.take().is_some();
        }
        if std::mem::take(&mut self.is_torn) && self.pieces.is_none() {
            // The marker ends an element.
            self.is_torn = !packet.marker;
            return Ok(());
        }
        let (timestamp, mut element) = self.pieces.take().unwrap_or_else(|| (packet.timestamp, Vec::new()));
        if timestamp != packet.timestamp || element.len() + packet.payload.len() > ELEMENT_BOUND {
            self.is_torn = !packet.marker;
            return Err(MALFORMED);
        }
        element.extend_from_slice(packet.payload);
        if !packet.marker {
            self.pieces = Some((timestamp, element));
            return Ok(());
        }
        let mut rest = element.as_slice();
        for frame in 0..self.frames {
            let mut len = 0;
            loop {
                let (byte, behind) = rest.split_first().ok_or(MALFORMED)?;
                (len, rest) = (len + usize::from(*byte), behind);
                if *byte != u8::MAX {
                    break;
                }
            }
            let (bytes, behind) = rest.split_at_checked(len).ok_or(MALFORMED)?;
            rest = behind;
            if !bytes.is_empty() {
                let timestamp = timestamp.wrapping_add(self.frame_ticks.wrapping_mul(frame));
                out.push(Unit { timestamp, key: true, bytes: Bytes::copy_from_slice(bytes) });
            }
        }
        Ok(())
    }
}

/// How many frames an element has, and the configuration, of the simple kind that senders send: one stream, all of one time.
fn mux_config(bytes: &[u8]) -> Option<(u32, Config)> {
    let mut bits = Bits::new(bytes);
    let (version, same_timing, sub_frames) = (bits.bit(), bits.bit(), bits.number(6));
    let (programs, layers) = (bits.number(4), bits.number(3));
    if (version, same_timing, programs, layers) != (false, true, 0, 0) {
        return None;
    }
    let begin = bits.clone();
    let config = Config::read(&mut bits)?;
    // Behind the configuration of a plain kind: a core coder with its delay, an extension.
    if bits.bit() {
        bits.skip(14);
    }
    bits.skip(1);
    let bytes = begin.bytes_up_to(&bits)?;
    Some((sub_frames + 1, config.with_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As GStreamer writes it: LC, 44.1 kHz, stereo.
    const GSTREAMER: &str = "cpresent=0;config=40002420;bitrate=0";

    fn latm() -> Latm {
        Latm::new(GSTREAMER, 44_100).unwrap()
    }

    fn packet(timestamp: u32, marker: bool, payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket { marker, payload_type: 96, sequence: 1, timestamp, ssrc: 0, payload }
    }

    #[test]
    fn configurations() {
        let StreamFormat::Aac { sample_rate, channels, config } = latm().format() else { panic!("no AAC") };
        assert_eq!((sample_rate, channels, &*config), (44_100, 2, &[0x12, 0x10][..]));
        for wrong in [
            "",
            "config=40002420",
            "cpresent=1;config=40002420",
            "cpresent=0",
            "cpresent=0;config=C0002420",
            "cpresent=0;config=4000",
        ] {
            assert!(Latm::new(wrong, 44_100).is_err(), "{wrong}");
        }
        // Two frames an element.
        assert_eq!(Latm::new("cpresent=0;config=41002420", 44_100).unwrap().frames, 2);
    }

    #[test]
    fn elements_whole_and_in_pieces() {
        let (mut latm, mut out) = (latm(), Vec::new());
        let long = [&[255, 45][..], &[7; 300]].concat();
        latm.push(&packet(5, true, &[2, 8, 9]), false, &mut out).unwrap();
        latm.push(&packet(6, false, &long[..100]), false, &mut out).unwrap();
        latm.push(&packet(6, true, &long[100..]), false, &mut out).unwrap();
        // A piece is lost: the rest is not taken for another element.
        latm.push(&packet(7, false, &long[..100]), false, &mut out).unwrap();
        latm.push(&packet(8, false, &[1, 1]), true, &mut out).unwrap();
        latm.push(&packet(8, true, &[1, 1]), false, &mut out).unwrap();
        latm.push(&packet(9, true, &[1, 4]), false, &mut out).unwrap();
        let seen: Vec<_> = out.iter().map(|unit| (unit.timestamp, unit.bytes.to_vec())).collect();
        assert_eq!(seen, [(5, vec![8, 9]), (6, vec![7; 300]), (9, vec![4])]);
        assert!(latm.push(&packet(10, true, &[9, 1]), false, &mut out).is_err());
    }

    #[test]
    fn times_of_frames_in_one_element() {
        let (mut latm, mut out) = (Latm::new("cpresent=0;config=41002420", 44_100).unwrap(), Vec::new());
        latm.push(&packet(u32::MAX, true, &[1, 8, 1, 9]), false, &mut out).unwrap();
        assert_eq!(out.iter().map(|unit| unit.timestamp).collect::<Vec<_>>(), [u32::MAX, 1023]);
    }

    proptest! {
        #[test]
        fn any_payloads(payloads in proptest::collection::vec((any::<bool>(), any::<bool>(), 0..2_u32, any::<Vec<u8>>()), 0..20)) {
            let (mut latm, mut out) = (latm(), Vec::new());
            for (lost, marker, timestamp, payload) in &payloads {
                let _ = latm.push(&packet(*timestamp, *marker, payload), *lost, &mut out);
            }
            prop_assert!(out.iter().all(|unit| !unit.bytes.is_empty()));
        }
    }
}
