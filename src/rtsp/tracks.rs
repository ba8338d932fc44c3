//! The elementary streams of one sender, a camera or an encoder that publishes: whole frames on one axis of time.

use std::time::Instant;

use bytes::Bytes;

use super::clocks::Clocks;
use super::payload::{Depacketizer, PayloadError, RtpPacket, SenderReport, Unit};
use super::reorder::Reorder;
use crate::asf::compose::StreamFormat;

/// Packets in a row that make no sense: the sender is not what it says.
const MALFORMED_IN_A_ROW: u32 = 200;
/// A picture that is to be shown earlier than one before it, by up to half a second and no more pictures in a row than this, is out of
/// order; otherwise the sender's clock began anew.
const REORDERS_PER_S: u32 = 2;
const MOST_REORDERED: u32 = 8;
/// So many in order between two that are not have nothing to do with each other.
const MOST_IN_ORDER: u32 = 64;
/// So often in a row that is no accident.
const REORDERED_TIMES: u32 = 3;

/// Why a sender's frames cannot be taken any longer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TracksError {
    /// Pictures come in another order than they are shown in.
    #[error(
        "its pictures come in another order than they are shown in (B-frames), which Windows Media players do not expect: switch them \
         off there, or use a source of type \"ffmpeg\", or \"exec\" with ffmpeg"
    )]
    Reordered,
    /// Packets make no sense.
    #[error("200 packets in a row that cannot be read, the last one: {0}")]
    Malformed(PayloadError),
    /// A frame without end.
    #[error("a frame of over 8 MiB")]
    LongFrame,
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From 0.
    pub track: usize,
    /// From the beginning of the session, milliseconds.
    pub ms: u64,
    /// Nothing before it is needed to decode it.
    pub key: bool,
    /// As ASF has it.
    pub bytes: Bytes,
}

/// The tracks of a session.
#[derive(Debug)]
pub struct Tracks {
    tracks: Vec<Track>,
    clocks: Clocks,
    malformed: u32,
    units: Vec<Unit>,
}

#[derive(Debug)]
struct Track {
    depacketizer: Depacketizer,
    reorder: Reorder,
    order: Order,
    lost: u64,
}

/// Whether frames come in the order in which they are shown.
#[derive(Debug, Default)]
struct Order {
    /// The latest timestamp.
    latest: Option<u32>,
    /// Frames before that one which came behind it, in a row, and how often that was so.
    behind: u32,
    times: u32,
    /// Frames in order since then.
    in_order: u32,
}

/// What a frame's timestamp tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    /// It is as it should be, or not yet clear.
    Nothing,
    /// The sender's clock began anew.
    Restart,
    /// Pictures come in another order than they are shown in.
    Reordering,
}

impl Order {
    /// `may_reorder`: pictures; sound does not.
    fn note(&mut self, timestamp: u32, clock_hz: u32, may_reorder: bool) -> Tells {
        let step = self.latest.map_or(0, |latest| timestamp.wrapping_sub(latest).cast_signed());
        if step >= 0 {
            if std::mem::take(&mut self.behind) > 0 {
                (self.times, self.in_order) = (self.times + 1, 0);
            } else {
                // Between two that were out of order some may be in order; a clock that is set back now and then is no reordering.
                self.in_order = self.in_order.saturating_add(1);
                if self.in_order > MOST_IN_ORDER {
                    self.times = 0;
                }
            }
            self.latest = Some(timestamp);
            return if self.times >= REORDERED_TIMES { Tells::Reordering } else { Tells::Nothing };
        }
        self.behind += 1;
        if may_reorder && self.behind <= MOST_REORDERED && step.unsigned_abs() <= clock_hz / REORDERS_PER_S {
            return Tells::Nothing;
        }
        *self = Self { latest: Some(timestamp), ..Self::default() };
        Tells::Restart
    }
}

impl Tracks {
    /// Tracks whose packets are still to come.
    pub fn new(depacketizers: Vec<Depacketizer>) -> Self {
        let clocks = Clocks::new(depacketizers.iter().map(Depacketizer::clock_hz));
        let track = |depacketizer| Track { depacketizer, reorder: Reorder::default(), order: Order::default(), lost: 0 };
        Self { tracks: depacketizers.into_iter().map(track).collect(), clocks, malformed: 0, units: Vec::new() }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// What the frames of a track are, as soon as that is known: with the first key frame at the latest. `None` too for a track that
    /// there is not.
    pub fn format(&self, track: usize) -> Option<StreamFormat> {
        self.tracks.get(track)?.depacketizer.format()
    }

    /// Whether a track is pictures.
    pub fn is_video(&self, track: usize) -> bool {
        self.tracks.get(track).is_some_and(|track| track.depacketizer.is_video())
    }

    /// Whether a track says that its pictures may come in another order than they are shown in; it may say so and not do it.
    pub fn reorders(&self, track: usize) -> bool {
        self.tracks.get(track).is_some_and(|track| track.depacketizer.reorders())
    }

    /// RTP packets that never came.
    pub fn lost(&self) -> u64 {
        self.tracks.iter().map(|track| track.lost).sum()
    }

    /// An RTCP packet of a track.
    pub fn rtcp(&mut self, track: usize, bytes: &[u8]) {
        if let Some(report) = SenderReport::find(bytes) {
            self.clocks.report(track, &report);
        }
    }

    /// An RTP packet of a track that came as a datagram: it may have been overtaken. Hands over the frames that are whole with it.
    ///
    /// # Errors
    /// [`TracksError`]: nothing of the sender is of use any longer.
    pub fn datagram(&mut self, now: Instant, track: usize, rtp: &[u8], take: &mut impl FnMut(Frame)) -> Result<(), TracksError> {
        let Some(reorder) = self.tracks.get_mut(track).map(|track| &mut track.reorder) else { return Ok(()) };
        let mut ready = Vec::new();
        reorder.push(now, rtp, |rtp| ready.push(rtp.to_vec()));
        ready.into_iter().try_for_each(|rtp| self.rtp(now, track, &rtp, take))
    }

    /// An RTP packet of a track, in order. Hands over the frames that are whole with it.
    ///
    /// # Errors
    /// As [`Tracks::datagram`].
    pub fn rtp(&mut self, now: Instant, at: usize, rtp: &[u8], take: &mut impl FnMut(Frame)) -> Result<(), TracksError> {
        let Some(track) = self.tracks.get_mut(at) else { return Ok(()) };
        let read = match RtpPacket::parse(rtp) {
            Some(packet) => track.depacketizer.push(&packet, &mut self.units),
            None => Err(PayloadError::Malformed("no RTP")),
        };
        match read {
            Ok(lost) => track.lost += u64::from(lost),
            Err(PayloadError::TooLong) => return Err(TracksError::LongFrame),
            Err(error) => {
                self.malformed += 1;
                if self.malformed >= MALFORMED_IN_A_ROW {
                    return Err(TracksError::Malformed(error));
                }
            }
        }
        let (may_reorder, clock_hz) = (track.depacketizer.may_reorder(), track.depacketizer.clock_hz());
        for unit in self.units.drain(..) {
            self.malformed = 0;
            let tells = track.order.note(unit.timestamp, clock_hz, may_reorder);
            if tells == Tells::Reordering {
                return Err(TracksError::Reordered);
            }
            let ms = self.clocks.place(now, at, unit.timestamp, tells == Tells::Restart);
            take(Frame { track: at, ms, key: unit.key, bytes: unit.bytes });
        }
        Ok(())
    }

    /// Another sender's packets follow on a track: numbers begin anywhere.
    pub fn restart(&mut self, track: usize) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.reorder.restart();
            track.depacketizer.restart();
            track.order = Order::default();
        }
    }
}
