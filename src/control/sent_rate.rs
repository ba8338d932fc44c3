//! The rate at which viewers are really sent to, from what the shards count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time between two readings of what was sent.
pub(super) const READ_EVERY: Duration = Duration::from_secs(1);
/// What "now" means of a rate: packets go in bursts, and the beginning of a play faster than the rest.
pub(super) const LATELY: Duration = Duration::from_secs(5);
/// The longest time over which it is known.
const KEPT: Duration = Duration::from_secs(10);
/// A shorter time says nothing of a rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// Readings of the last seconds.
#[derive(Debug)]
pub(super) struct SentRate(VecDeque<(Instant, u64)>);

impl SentRate {
    /// Nothing was sent before `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self(VecDeque::from([(now, 0)]))
    }

    /// Notes how many bytes were sent up to now.
    pub(super) fn read(&mut self, now: Instant, bytes: u64) {
        self.0.push_back((now, bytes));
        // One that is old enough stays.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= KEPT) {
            self.0.pop_front();
        }
    }

    /// Bits per second over the last `time`, up to 10 s, or since the begin; `bytes` were sent up to now.
    pub(super) fn over(&self, time: Duration, now: Instant, bytes: u64) -> u64 {
        let is_old = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= time;
        let Some((at, before)) = self.0.iter().rev().find(is_old).or(self.0.front()) else { return 0 };
        let milliseconds = now.saturating_duration_since(*at).max(SHORTEST).as_millis();
        let bits = u128::from(bytes.saturating_sub(*before)) * 8;
        u64::try_from(bits * 1000 / milliseconds).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_the_rate_of_the_last_seconds() {
        let begin = tokio::time::Instant::now().into_std();
        let mut rate = SentRate::new(begin);
        assert_eq!(rate.over(LATELY, begin + SECOND / 10, 100), 800, "a tenth of a second is no rate");
        // 1000 bytes a second for a minute, then none.
        let mut sent = 0;
        for second in 1..=60 {
            sent += 1000;
            rate.read(begin + SECOND * second, sent);
            assert_eq!(rate.over(LATELY, begin + SECOND * second, sent), 8000, "{second}");
        }
        assert!(rate.0.len() <= 11, "{}", rate.0.len());
        let end = begin + SECOND * 60;
        for (seconds, lately, longer) in [(1, 6400, 7200), (3, 3200, 5600), (5, 0, 4000), (9, 0, 800), (10, 0, 0)] {
            rate.read(end + SECOND * seconds, sent);
            let now = end + SECOND * seconds;
            assert_eq!((rate.over(LATELY, now, sent), rate.over(KEPT, now, sent)), (lately, longer), "{seconds}");
        }
        // What was sent since the last reading counts as well.
        assert_eq!(rate.over(LATELY, end + SECOND * 10, sent + 5000), 8000);
        // Nobody read for an hour.
        assert_eq!(rate.over(LATELY, end + SECOND * 3610, sent + 3_600_000), 8000);
    }
}
