//! What came of a source, counted for those who look after it.

use std::time::Instant;

use super::publish::Accepted;

/// Milliseconds over which a source's rate is taken: pictures and key frames are of unlike sizes.
const RATE_OVER_MS: u64 = 5000;

/// The counts of one source.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Packets that were taken.
    pub(super) packets: u64,
    /// Those that were left out.
    pub(super) left_out: u64,
    /// Ends of it, and attempts to have it, that failed; ends that were wanted are none.
    pub(super) restarts: u64,
    /// When the last packet came.
    pub(super) last: Option<Instant>,
    /// Bits a second, of the last [`RATE_OVER_MS`].
    pub(super) bit_rate: u64,
    bytes: u64,
    /// Since when `bytes` count.
    counted_since: Option<Instant>,
}

impl Counted {
    pub(super) fn take(&mut self, now: Instant, accepted: Accepted, packet_size: usize) {
        self.packets += accepted.packets;
        self.left_out += accepted.invalid;
        self.bytes += accepted.packets.saturating_mul(u64::try_from(packet_size).unwrap_or(u64::MAX));
        if accepted.packets > 0 {
            self.last = Some(now);
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let since = *self.counted_since.get_or_insert(now);
        let ms = u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
        if ms >= RATE_OVER_MS {
            self.bit_rate = std::mem::take(&mut self.bytes).saturating_mul(8000) / ms;
            self.counted_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relay::testing::base;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let (mut counted, start) = (Counted::default(), base());
        let second = |seconds| start + Duration::from_secs(seconds);
        counted.tick(start);
        for n in 0..5 {
            counted.take(second(n), Accepted { packets: 10, invalid: u64::from(n == 3) }, 1250);
            counted.tick(second(n));
        }
        assert_eq!((counted.bit_rate, counted.packets, counted.left_out, counted.last), (0, 50, 1, Some(second(4))));
        counted.tick(second(5));
        assert_eq!(counted.bit_rate, 100_000);
        counted.take(second(6), Accepted::default(), 1250);
        counted.tick(second(10));
        assert_eq!((counted.bit_rate, counted.last), (0, Some(second(4))));
    }
}
