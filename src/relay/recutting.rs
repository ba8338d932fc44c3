//! Sources whose packets do not fit a datagram: what is cut anew for all viewers, and how long its rest waits.

use std::time::{Duration, Instant};

use crate::asf::{Header, PacketError, Recutter};
use crate::settings::{Oversize, Udp};

/// The head in front of a packet in an MMS datagram, bytes (MS-MMSP 2.2.2).
const DATAGRAM_HEAD_LEN: usize = 8;

/// A packet that is not full waits for the next source packet, which is to fill it: sent at once, a source of 3200 bytes
/// would make three packets of each of its own instead of two and a third, and the third nearly empty. That costs the
/// time between two source packets, 130 ms at 200 kbit/s, and never over 300 ms of send time; presentation is some
/// seconds behind. When no source packet comes, the tick sends what is older than this: with a tick a second, a rest
/// waits for a second and a half at most.
const HOLD: Duration = Duration::from_millis(500);

/// Which sources are cut anew, and to what size.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatagramRoom {
    /// The largest packet that fits a datagram of either address family, bytes.
    largest: usize,
    /// What the others are cut to, bytes.
    size: usize,
}

impl DatagramRoom {
    /// By the settings; `None` where no source is cut anew.
    pub(super) fn new(udp: &Udp) -> Option<Self> {
        let largest = udp.max_datagram_v4.min(udp.max_datagram_v6).saturating_sub(DATAGRAM_HEAD_LEN);
        (udp.enabled && udp.oversize == Oversize::Recut).then(|| Self { largest, size: udp.recut_size() })
    }

    /// The header that viewers of this source get where its packets do not fit.
    pub(super) fn fitting(self, header: &Header) -> Option<Header> {
        let fitting = (header.packet_size() > self.largest).then(|| header.with_packet_size(self.size))?;
        (fitting.packet_size() < header.packet_size()).then_some(fitting)
    }
}

/// A source that is being cut anew.
#[derive(Debug)]
pub(super) struct Recutting {
    source_size: usize,
    recutter: Recutter,
    /// Packets that are full, one after the other.
    full: Vec<u8>,
    /// When the source packet came with which the open packet begins; also set where that brought no media.
    since: Option<Instant>,
}

impl Recutting {
    /// From packets of `source` to those of `fitting`, which [`DatagramRoom::fitting`] made of it.
    pub(super) fn new(source: &Header, fitting: &Header) -> Self {
        let recutter = Recutter::new(source, fitting.packet_size());
        Self { source_size: source.packet_size(), recutter, full: Vec::new(), since: None }
    }

    /// Size of the source's packets, bytes.
    pub(super) const fn source_size(&self) -> usize {
        self.source_size
    }

    /// Size of the packets made, bytes.
    pub(super) const fn packet_size(&self) -> usize {
        self.recutter.packet_size()
    }

    /// Takes a source packet in.
    ///
    /// # Errors
    /// [`PacketError`] where it cannot be cut: nothing of it is kept.
    pub(super) fn push(&mut self, now: Instant, packet: &[u8]) -> Result<(), PacketError> {
        let before = self.full.len();
        let result = self.recutter.push(packet, &mut self.full);
        // What closed a packet began another.
        if self.full.len() > before || self.since.is_none() {
            self.since = Some(now);
        }
        result
    }

    /// Takes the full packets out.
    pub(super) fn take_full(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.full)
    }

    /// Takes the open packet out, if there is one, with the time at which its first source packet came.
    pub(super) fn take_open(&mut self) -> Option<(Instant, Vec<u8>)> {
        let since = self.since.take()?;
        let mut packet = Vec::new();
        self.recutter.flush(&mut packet);
        (!packet.is_empty()).then_some((since, packet))
    }

    /// Whether the open packet must wait no longer.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= HOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;
    use crate::settings::Settings;

    fn size_for(sample: &str, change: impl FnOnce(&mut Udp)) -> Option<usize> {
        let mut udp = Settings::default().udp;
        change(&mut udp);
        let (header, _) = samples::stream(sample);
        DatagramRoom::new(&udp)?.fitting(&header).map(|header| header.packet_size())
    }

    #[test]
    fn only_what_does_not_fit_is_cut_anew() {
        let (small, large) = ("live-asf-pipe.asf", "audio-wmav2.wma");
        assert_eq!((size_for(small, |_| ()), size_for(large, |_| ())), (None, Some(1400)));
        assert_eq!(size_for(small, |udp| udp.max_datagram_v6 = 1408), None);
        assert_eq!(size_for(small, |udp| udp.max_datagram_v6 = 1407), Some(1399), "the smaller of both counts");
        assert_eq!(size_for(large, |udp| udp.max_datagram_v4 = 3208), Some(1400));
        assert_eq!(size_for(large, |udp| (udp.max_datagram_v4, udp.max_datagram_v6) = (3208, 3208)), None);
        assert_eq!(size_for(large, |udp| udp.enabled = false), None);
        assert_eq!(size_for(large, |udp| udp.oversize = Oversize::Fragment), None);
        assert_eq!(size_for(large, |udp| udp.oversize = Oversize::Refuse), None);
    }
}
