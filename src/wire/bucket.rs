//! A token bucket on a clock that is handed in.

use std::time::{Duration, Instant};

/// Allows `rate` things a second, `burst` at once.
///
/// It keeps one instant only: when the bucket will be full again.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    full_at: Instant,
    interval: Duration,
    burst: u32,
}

impl TokenBucket {
    /// A full bucket; `rate` and `burst` at least 1.
    pub fn new(now: Instant, rate_per_s: u32, burst: u32) -> Self {
        Self { full_at: now, interval: Duration::from_secs(1) / rate_per_s.max(1), burst: burst.max(1) }
    }

    /// Takes one token; `false` where there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let granted = full_at.duration_since(now) <= self.interval * self.burst;
        if granted {
            self.full_at = full_at;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "one base instant for the virtual clock")]
    fn burst_then_rate() {
        let mut now = Instant::now();
        let mut bucket = TokenBucket::new(now, 50, 100);
        assert_eq!((0..200).filter(|_| bucket.take(now)).count(), 100);
        now += Duration::from_millis(100);
        assert_eq!((0..200).filter(|_| bucket.take(now)).count(), 5);
        now += Duration::from_secs(60);
        assert_eq!((0..200).filter(|_| bucket.take(now)).count(), 100);
    }
}
