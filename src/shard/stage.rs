//! Packets of files on their way to one viewer.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::broadcast::{Link, Tally, Viewer};
use super::framing::Framing;
use super::origins::Origins;
use super::out_queue::Partial;
use super::viewer::{Full, account};
use crate::asf;
use crate::mms::media;

/// A send that comes so much later than it was due is late.
const LATE: Duration = Duration::from_millis(100);

/// Packets on their way to one viewer: framed, one after the other. One for all viewers of a shard, so that it stays in the
/// processor's cache.
#[derive(Debug, Default)]
pub(super) struct Stage {
    image: Vec<u8>,
    packets: Vec<Staged>,
}

/// Packets that were gathered for a viewer, and had no room.
#[derive(Debug)]
pub(super) struct Backlog {
    image: Vec<u8>,
    packets: Vec<Staged>,
}

#[derive(Debug, Clone, Copy)]
struct Staged {
    number: u64,
    due: Instant,
}

/// What hinders a viewer from being sent more.
#[derive(Debug)]
pub(super) enum Blocked {
    /// Its TCP buffer is full; the rest of a packet that was cut goes first when it is not.
    Tcp(Option<Partial>),
    /// No room for datagrams now.
    Udp(Full),
}

/// When something is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The viewer itself could not take more until then.
    pub(super) free_since: Instant,
}

impl Stage {
    /// Sends the first packets of what was gathered with one call: how many packets have begun to go, and what hinders more.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn send(
        &mut self,
        viewer: &mut Viewer,
        moment: Moment,
        stride: usize,
        count: usize,
        origins: &Origins,
        tally: &mut Tally,
    ) -> io::Result<(usize, Option<Blocked>)> {
        let (stage, Moment { now, free_since }) = (self, moment);
        let Viewer { hot, cold } = viewer;
        let image = stage.image.get_mut(..count * stride).unwrap_or_default();
        if hot.framing == Framing::Mms {
            media::stamp(image, stride, hot.next.incarnation, hot.next.sequence);
        }
        let parts = [IoSlice::new(image)];
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let sent = origins.send(route, &parts, stride);
                let (done, full) = account(route, &mut hot.refusals, &sent, count, stride, tally);
                (done, full.map(Blocked::Udp))
            }
            Link::Tcp(wire) => {
                let taken = wire.write(&parts)?;
                let begun = taken.div_ceil(stride);
                tally.tcp_calls += 1;
                tally.tcp_packets += begun as u64;
                tally.tcp_bytes += (begun * stride) as u64;
                hot.blocked = taken < image.len();
                if hot.blocked {
                    cold.expect_room();
                }
                let rest = image.get(taken..begun * stride).filter(|rest| !rest.is_empty());
                (begun, hot.blocked.then(|| Blocked::Tcp(rest.map(|rest| Partial::own(Bytes::copy_from_slice(rest))))))
            }
        };
        // A send that does nothing and does not say why would go on for ever.
        let blocked = blocked.or_else(|| (begun == 0).then_some(Blocked::Udp(Full::Path)));
        for packet in stage.packets.iter().take(begun.min(count)) {
            cold.track.jump(&mut hot.next, packet.number);
            hot.next.advance(1);
            tally.late += u64::from(now.saturating_duration_since(packet.due.max(free_since)) > LATE);
        }
        hot.packets += begun as u64;
        Ok((begun, blocked))
    }

    /// Packets in it.
    pub(super) const fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes in it.
    pub(super) const fn bytes(&self) -> usize {
        self.image.len()
    }

    /// Whether nothing is in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What is in it behind the first packets, as many as `sent`.
    pub(super) fn behind(&self, sent: usize, stride: usize) -> Option<Box<Backlog>> {
        let packets = self.packets.get(sent..).filter(|packets| !packets.is_empty())?.to_vec();
        Some(Box::new(Backlog { image: self.image.get(sent * stride..)?.to_vec(), packets }))
    }

    /// Begins with what had no room before.
    pub(super) fn begin(&mut self, backlog: Option<Box<Backlog>>) {
        self.clear();
        if let Some(backlog) = backlog {
            self.image.extend_from_slice(&backlog.image);
            self.packets.extend_from_slice(&backlog.packets);
        }
    }

    fn clear(&mut self) {
        self.image.clear();
        self.packets.clear();
    }

    /// Adds a packet, framed.
    pub(super) fn push(&mut self, framing: Framing, number: u64, packet: &[u8], due: Instant) {
        let range = framing.push(packet, number, &mut self.image);
        // MPlayer and xine take the padding of such a packet for media.
        asf::padding::settle(self.image.get_mut(range).unwrap_or_default());
        self.packets.push(Staged { number, due });
    }
}
