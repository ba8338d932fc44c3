//! How many bytes a source may send.

use std::time::{Duration, Instant};

use tracing::warn;

/// Bit/s that every source has: more than a header states that is wrong, or that is yet to come.
const LEAST: u64 = 16_000_000;
/// A source may send so many times what its header states: peaks, and padding that is not stated.
const TIMES: u64 = 4;
/// What may come at once, as time at that rate: catching up after a stall, and the lead of a file.
const BURST: Duration = Duration::from_secs(2);

/// Counts bytes and tells how long their source is to wait.
#[derive(Debug)]
pub(super) struct ByteRate {
    bytes_per_s: u64,
    /// When all that came has been paid for with time.
    paid: Option<Instant>,
    /// It was told that it sends too much.
    told: bool,
}

impl ByteRate {
    /// Of a source whose header is not known.
    pub(super) const fn new() -> Self {
        Self { bytes_per_s: LEAST / 8, paid: None, told: false }
    }

    /// The header states so many bit/s.
    pub(super) fn set_bit_rate(&mut self, bit_rate: u32) {
        self.bytes_per_s = (u64::from(bit_rate) * TIMES).max(LEAST) / 8;
    }

    /// Bytes came; the wait before more may be read. The first wait is told: what comes late then is the source's own doing.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let cost = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_s);
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        self.paid = Some(paid);
        let wait = paid.saturating_duration_since(now).saturating_sub(BURST);
        if !wait.is_zero() && !std::mem::replace(&mut self.told, true) {
            let most_kbps = self.bytes_per_s * 8 / 1000;
            warn!(most_kbps, "sends more than its header states by far, and is held back");
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testing;

    /// Sends for a virtual minute as fast as it may; bytes a second.
    fn flood(rate: &mut ByteRate) -> u64 {
        let (start, mut now, mut sent) = (testing::start(), testing::start(), 0);
        while now < start + Duration::from_secs(60) {
            now += rate.take(now, 16 << 10);
            sent += 16 << 10;
        }
        sent / 60
    }

    #[test]
    fn a_flood_is_held_to_the_rate() {
        let mut rate = ByteRate::new();
        // 2 MB/s, and the burst of 2 s.
        assert!((2_060_000..2_070_000).contains(&flood(&mut rate)));
        rate.set_bit_rate(300_000);
        assert_eq!(rate.bytes_per_s, 2_000_000);
        let mut rate = ByteRate::new();
        rate.set_bit_rate(20_000_000);
        assert!((10_300_000..10_400_000).contains(&flood(&mut rate)));
        rate.set_bit_rate(u32::MAX);
        assert_eq!(rate.bytes_per_s, 2_147_483_647);
    }

    #[test]
    fn a_burst_goes_at_once_and_comes_back() {
        let (mut rate, now) = (ByteRate::new(), testing::start());
        assert_eq!(rate.take(now, 4_000_000), Duration::ZERO);
        assert_eq!(rate.take(now, 2_000), Duration::from_millis(1));
        let later = now + Duration::from_secs(3600);
        assert_eq!(rate.take(later, 4_000_000), Duration::ZERO, "an hour of silence is no more than one burst");
        assert_eq!(rate.take(later, 2_000_000), Duration::from_secs(1));
    }
}
