//! A token bucket.

use std::time::Instant;

/// So many nanoseconds make one second; levels are kept in billionths of a token, without rounding.
const NANOS: u64 = 1_000_000_000;

/// Lets through `rate_per_s` events a second on average and `burst` at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_per_s: u64,
    /// Billionths of a token.
    capacity: u64,
    level: u64,
    filled: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket; `None` when the rate is 0, which is no limit. A burst of 0 is one second's worth.
    pub fn new(rate_per_s: u32, burst: u32) -> Option<Self> {
        let burst = if burst == 0 { rate_per_s } else { burst };
        let capacity = u64::from(burst) * NANOS;
        (rate_per_s != 0).then(|| Self { rate_per_s: rate_per_s.into(), capacity, level: capacity, filled: None })
    }

    /// Takes one token if there is one. A `now` before the last one counts as the last one.
    pub fn take(&mut self, now: Instant) -> bool {
        let filled = *self.filled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(filled).as_nanos();
        let gained = u64::try_from(elapsed.saturating_mul(self.rate_per_s.into())).unwrap_or(u64::MAX);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        self.filled = Some(filled.max(now));
        let taken = self.level.checked_sub(NANOS);
        self.level = taken.unwrap_or(self.level);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "one base for the virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    fn taken(bucket: &mut TokenBucket, now: Instant) -> usize {
        (0..1000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn bursts_then_runs_at_the_rate() {
        let start = base();
        let mut bucket = TokenBucket::new(10, 3).unwrap();
        assert_eq!(taken(&mut bucket, start), 3);
        assert!(!bucket.take(start + Duration::from_millis(99)));
        assert!(bucket.take(start + Duration::from_millis(100)));
        assert!(!bucket.take(start + Duration::from_millis(100)));
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(1000)), 3);
    }

    #[test]
    fn zero_rate_is_no_limit_and_zero_burst_one_second() {
        assert!(TokenBucket::new(0, 5).is_none());
        assert_eq!(taken(&mut TokenBucket::new(7, 0).unwrap(), base()), 7);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let start = base();
        let mut bucket = TokenBucket::new(1, 1).unwrap();
        assert!(bucket.take(start + Duration::from_secs(10)));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + Duration::from_secs(10)));
        assert!(bucket.take(start + Duration::from_secs(11)));
    }
}
