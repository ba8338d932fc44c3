//! H.264 out of RTP: access units in the byte stream form. Source: RFC 6184; ITU-T H.264 7.4.1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::sps::{Sps, pps_id};
use super::{MAX_UNIT_LEN, PayloadError, RtpPacket, Unit, parameter};
use crate::asf::compose::StreamFormat;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Most parameter sets that are kept of each kind, and their longest, bytes.
const MOST_SETS: usize = 8;
const SET_BOUND: usize = 1024;

// Types of NAL units.
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;
// Of RTP alone.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// The type of a supplemental enhancement that says: decoding may begin here.
const RECOVERY_POINT: u8 = 6;

/// Puts access units together. Units that lost a part are left out.
#[derive(Debug, Default)]
pub(super) struct H264 {
    sets: Sets,
    open: Option<Open>,
    /// Something of the unit with this timestamp is lost.
    broken: Option<u32>,
}

/// The parameter sets that came last, by their numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Sets {
    sps: Vec<(u32, Bytes)>,
    pps: Vec<(u32, Bytes)>,
    facts: Option<Sps>,
}

/// An access unit that is coming.
#[derive(Debug, Default)]
struct Open {
    timestamp: u32,
    bytes: Vec<u8>,
    /// Where parameter sets belong: behind an access unit delimiter.
    sets_at: usize,
    /// A NAL unit comes in pieces, of which the first is there.
    in_pieces: bool,
    has_slice: bool,
    has_idr: bool,
    has_sps: bool,
    has_pps: bool,
    may_begin: bool,
}

impl Sets {
    /// Takes a parameter set.
    fn note(&mut self, nal: &[u8]) {
        if nal.len() > SET_BOUND {
            return;
        }
        let (list, id) = match nal.first().map(|first| first & 0x1F) {
            Some(SPS) => {
                let Some(sps) = Sps::parse(nal) else { return };
                self.facts = Some(sps);
                (&mut self.sps, sps.id)
            }
            Some(PPS) => {
                let Some(id) = pps_id(nal) else { return };
                (&mut self.pps, id)
            }
            _ => return,
        };
        if let Some((_, known)) = list.iter_mut().find(|(known, _)| *known == id) {
            if *known != nal {
                *known = Bytes::copy_from_slice(nal);
            }
        } else if list.len() < MOST_SETS {
            list.push((id, Bytes::copy_from_slice(nal)));
        }
    }

    /// All of them in the byte stream form; `None` while there are not both kinds.
    fn byte_stream(&self) -> Option<Vec<u8>> {
        if self.sps.is_empty() || self.pps.is_empty() {
            return None;
        }
        Some(self.sps.iter().chain(&self.pps).flat_map(|(_, nal)| START_CODE.iter().chain(nal)).copied().collect())
    }
}

impl H264 {
    /// By the format parameters of a description.
    pub(super) fn new(fmtp: &str) -> Result<Self, &'static str> {
        if parameter(fmtp, "packetization-mode").is_some_and(|mode| mode == "2") {
            return Err("it interleaves pictures (packetization-mode 2)");
        }
        let mut h264 = Self::default();
        for set in parameter(fmtp, "sprop-parameter-sets").unwrap_or_default().split(',') {
            if let Ok(nal) = STANDARD.decode(set.trim()) {
                h264.sets.note(&nal);
            }
        }
        Ok(h264)
    }

    /// Known with the parameter sets.
    pub(super) fn format(&self) -> Option<StreamFormat> {
        let facts = self.sets.facts?;
        let parameter_sets = self.sets.byte_stream()?.into();
        let (width, height) = (facts.width, facts.height);
        Some(StreamFormat::H264 { width, height, parameter_sets, pixel_aspect: facts.aspect })
    }

    /// Whether pictures may come in another order than they are shown in, as far as the parameter sets say.
    pub(super) fn reorders(&self) -> bool {
        self.sets.facts.is_some_and(|facts| facts.reorders == Some(true))
    }

    /// Takes the next packet; `lost`: one before it did not come.
    pub(super) fn push(&mut self, packet: &RtpPacket<'_>, lost: bool, out: &mut Vec<Unit>) -> Result<(), PayloadError> {
        if lost && let Some(open) = self.open.take() {
            self.broken = Some(open.timestamp);
        }
        if self.open.as_ref().is_some_and(|open| open.timestamp != packet.timestamp) {
            self.finish(out);
        }
        if self.broken.is_some_and(|broken| broken != packet.timestamp) {
            self.broken = None;
        }
        let result = self.read(packet);
        if result.is_err() {
            self.open = None;
            self.broken = Some(packet.timestamp);
        }
        if packet.marker {
            self.finish(out);
        }
        result
    }

    fn read(&mut self, packet: &RtpPacket<'_>) -> Result<(), PayloadError> {
        let payload = packet.payload;
        let Some((first, rest)) = payload.split_first() else { return Ok(()) };
        let Self { sets, open, broken } = self;
        let is_broken = broken.is_some();
        let fresh = || Open { timestamp: packet.timestamp, ..Open::default() };
        match first & 0x1F {
            1..=23 => {
                sets.note(payload);
                if !is_broken {
                    open.get_or_insert_with(fresh).add(payload)?;
                }
            }
            STAP_A => {
                let mut rest = rest;
                while let Some(([n1, n0], behind)) = rest.split_first_chunk::<2>() {
                    let len = usize::from(u16::from_be_bytes([*n1, *n0]));
                    let (nal, behind) =
                        behind.split_at_checked(len).ok_or(PayloadError::Malformed("a NAL unit longer than its packet"))?;
                    sets.note(nal);
                    if !is_broken {
                        open.get_or_insert_with(fresh).add(nal)?;
                    }
                    rest = behind;
                }
            }
            FU_A => {
                let (head, piece) = rest.split_first().ok_or(PayloadError::Malformed("a piece of a NAL unit without a head"))?;
                if is_broken {
                    return Ok(());
                }
                let open = open.get_or_insert_with(fresh);
                if head & 0x80 != 0 {
                    open.begin_slice(head & 0x1F, piece)?;
                    open.extend(&START_CODE)?;
                    open.extend(&[first & 0xE0 | head & 0x1F])?;
                } else if !open.in_pieces {
                    return Err(PayloadError::Malformed("a piece of a NAL unit without its begin"));
                }
                open.extend(piece)?;
                open.in_pieces = head & 0x40 == 0;
            }
            _ => return Err(PayloadError::Malformed("a form of NAL units that was not agreed on")),
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Unit>) {
        self.broken = None;
        // What has no end is not given on.
        let Some(mut open) = self.open.take() else { return };
        if !open.has_slice || open.in_pieces {
            return;
        }
        let key = open.has_idr || open.may_begin;
        if key
            && !(open.has_sps && open.has_pps)
            && let Some(sets) = self.sets.byte_stream()
        {
            open.bytes.splice(open.sets_at..open.sets_at, sets);
        }
        out.push(Unit { timestamp: open.timestamp, key, bytes: open.bytes.into() });
    }
}

impl Open {
    /// Adds a whole NAL unit.
    fn add(&mut self, nal: &[u8]) -> Result<(), PayloadError> {
        let Some((first, rest)) = nal.split_first() else { return Ok(()) };
        let kind = first & 0x1F;
        self.in_pieces = false;
        match kind {
            FILLER => return Ok(()),
            SPS => self.has_sps = true,
            PPS => self.has_pps = true,
            SEI => self.may_begin |= is_recovery_point(rest),
            _ => self.begin_slice(kind, rest)?,
        }
        self.extend(&START_CODE)?;
        self.extend(nal)?;
        if kind == DELIMITER && !self.has_slice {
            self.sets_at = self.bytes.len();
        }
        Ok(())
    }

    /// Notes a slice. The first one of a picture begins with its first macroblock: if not, the one before it is lost.
    fn begin_slice(&mut self, kind: u8, slice: &[u8]) -> Result<(), PayloadError> {
        if !(SLICE..=IDR_SLICE).contains(&kind) {
            return Ok(());
        }
        if !self.has_slice && slice.first().is_none_or(|first| first & 0x80 == 0) {
            return Err(PayloadError::Malformed("a picture without its first slice"));
        }
        self.has_slice = true;
        self.has_idr |= kind == IDR_SLICE;
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), PayloadError> {
        if self.bytes.len() + bytes.len() > MAX_UNIT_LEN {
            return Err(PayloadError::TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Whether one of the messages of a supplemental enhancement says that decoding may begin here. Source: H.264 D.1.8.
fn is_recovery_point(mut messages: &[u8]) -> bool {
    // The last byte is the end of all of them.
    while messages.len() > 2 {
        let Some((kind, rest)) = number(messages) else { return false };
        if kind == usize::from(RECOVERY_POINT) {
            return true;
        }
        let Some((len, rest)) = number(rest) else { return false };
        let Some(rest) = rest.get(len..) else { return false };
        messages = rest;
    }
    false
}

/// A number as a sum of bytes, of which all but the last are 255.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 255).count();
    let (last, rest) = bytes.get(full..)?.split_first()?;
    Some((full * 255 + usize::from(*last), rest))
}

#[cfg(test)]
mod tests;
