//! What stands in for a source that is gone or silent, and how the source gets its place back.
//!
//! The stand-in takes over once no packet of the source has come for the time that the settings say. From then on packets of the
//! source are held, never more than since its newest key frame, until viewers can go on with them: at its first key frame where its
//! header continues the stand-in's, else at the newest one as soon as the stand-in's header is old enough to be followed by another.

use std::time::Instant;

use super::join_points::JoinPoints;
use super::point::Point;
use crate::asf::{Header, PacketError, StreamSet, walk};

/// Bytes of a source that are held: five seconds of 12 Mbit/s. Where a key frame is further back, the next one is waited for.
const HELD_BYTES: usize = 8 << 20;

/// Ticks of 100 ns, as FILETIME counts them, in a millisecond.
const FILETIME_PER_MS: u64 = 10_000;

/// Whose packets viewers get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// The source of the publishing point.
    #[default]
    Source,
    /// What stands in for it.
    StandIn,
}

/// A header as it came, and what viewers get in its place.
#[derive(Debug, Clone)]
pub(super) struct Headed {
    pub(super) header: Header,
    /// For packets of another size, where its own do not fit a datagram.
    pub(super) fitting: Option<Header>,
    /// The streams whose commands must not open anything.
    pub(super) commands: StreamSet,
    /// As FILETIME, and when that was.
    created: u64,
    at: Instant,
}

impl Headed {
    pub(super) fn new(now: Instant, created: u64, header: &Header, point: &Point) -> Self {
        let commands = Self::commands_of(header, point);
        Self { header: header.clone(), fitting: point.fitting(header), commands, created, at: now }
    }

    /// The streams of a header whose commands must not open anything, by the settings.
    pub(super) fn commands_of(header: &Header, point: &Point) -> StreamSet {
        if point.settings().url_commands { StreamSet::EMPTY } else { header.command_streams() }
    }

    /// The header that viewers get.
    pub(super) fn taken(&self) -> &Header {
        self.fitting.as_ref().unwrap_or(&self.header)
    }

    /// The present time as FILETIME.
    pub(super) fn created(&self, now: Instant) -> u64 {
        let elapsed_ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.created.saturating_add(elapsed_ms.saturating_mul(FILETIME_PER_MS))
    }
}

/// Packets of a source that waits for its place.
#[derive(Debug)]
pub(super) struct Held {
    joins: JoinPoints,
    /// From the newest packet on that a viewer may begin with.
    packets: Vec<u8>,
}

impl Held {
    /// Of a source with these video streams.
    pub(super) fn new(video: StreamSet) -> Self {
        Self { joins: JoinPoints::new(video), packets: Vec::new() }
    }

    /// Takes a packet in; one before the first key frame is of no use to anybody.
    ///
    /// # Errors
    /// [`PacketError`] where it is invalid; it is left out.
    pub(super) fn push(&mut self, packet: &[u8]) -> Result<(), PacketError> {
        let info = walk(packet)?;
        if self.joins.notes(&info) {
            self.packets.clear();
        } else if self.packets.is_empty() {
            return Ok(());
        } else if self.packets.len() + packet.len() > HELD_BYTES {
            self.packets = Vec::new();
            return Ok(());
        }
        self.packets.extend_from_slice(packet);
        Ok(())
    }

    /// Whether there is something that viewers can begin with.
    pub(super) const fn is_ready(&self) -> bool {
        !self.packets.is_empty()
    }

    /// The packets, one after the other.
    pub(super) fn into_packets(self) -> Vec<u8> {
        self.packets
    }
}
