//! How far the passes over a publishing point's viewers lag behind.

use std::time::{Duration, Instant};

/// So long media must go out too late before anybody is refused: a hiccup of the machine is no overload.
const SUSTAINED: Duration = Duration::from_millis(500);
/// A late pass that ended so long ago says nothing of now.
const STALE: Duration = Duration::from_secs(2);

/// The lag of one publishing point in one shard.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// When the pass that is under way was due, and when it began.
    under_way: Option<(Instant, Instant)>,
    /// When the first and the last of those passes ended that were too late with none in time between them.
    late: Option<(Instant, Instant)>,
}

impl Lag {
    /// A pass begins that was due then, or goes on after it was cut short.
    pub(super) fn begin(&mut self, now: Instant, due: Instant) {
        self.under_way.get_or_insert((due, now));
    }

    /// It ended: everybody was served. How late that was, where it was later than `limit`.
    pub(super) fn end(&mut self, now: Instant, limit: Duration) -> Option<Duration> {
        let before = self.since(now);
        let (due, _) = self.under_way.take()?;
        let late = Some(now.saturating_duration_since(due)).filter(|late| *late > limit);
        self.late = late.map(|_| (before.unwrap_or(now), now));
        late
    }

    /// Since when passes end too late, if the last of them says anything of now.
    fn since(&self, now: Instant) -> Option<Instant> {
        let (first, last) = self.late?;
        let until = self.under_way.map_or(now, |(_, began)| began);
        (until.saturating_duration_since(last) < STALE).then_some(first)
    }

    /// Whether media has been late for so long that nobody else is to be taken on.
    pub(super) fn is_sustained(&self, now: Instant, limit: Duration) -> bool {
        // A pass that goes on and on has not ended late yet.
        let under_way = self.under_way.map(|(_, began)| began + limit);
        let since = self.since(now).into_iter().chain(under_way).min();
        since.is_some_and(|since| now.saturating_duration_since(since) >= SUSTAINED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(250);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    /// Passes that are due `every` so often and take `took` each; when the next one is due.
    fn passes(lag: &mut Lag, start: Instant, count: u32, every: Duration, took: Duration) -> Instant {
        for n in 0..count {
            let due = start + every * n;
            lag.begin(due, due);
            lag.end(due + took, LIMIT);
        }
        start + every * count
    }

    #[test]
    fn a_hiccup_is_no_overload() {
        let (start, mut lag) = (base(), Lag::default());
        let now = passes(&mut lag, start, 1, ms(300), ms(290));
        assert!(!lag.is_sustained(now, LIMIT));
        let now = passes(&mut lag, now, 1, ms(300), ms(10));
        let now = passes(&mut lag, now, 1, ms(300), ms(290));
        assert!(!lag.is_sustained(now + ms(100), LIMIT));
        // The whole machine stood still for seconds; then everything goes on.
        let woken = now + ms(9000);
        lag.begin(woken, now);
        assert!(!lag.is_sustained(woken + ms(5), LIMIT));
        assert_eq!(lag.end(woken + ms(10), LIMIT), Some(ms(9010)));
        assert!(!lag.is_sustained(woken + ms(20), LIMIT));
    }

    #[test]
    fn passes_that_are_late_again_and_again_are_until_one_is_in_time() {
        for took in [ms(290), ms(3000)] {
            let (start, mut lag) = (base(), Lag::default());
            let now = passes(&mut lag, start, 4, took + ms(10), took);
            assert!(lag.is_sustained(now, LIMIT), "{took:?}");
            // While the next one is under way, too.
            lag.begin(now, now);
            assert!(lag.is_sustained(now + ms(5), LIMIT) && lag.is_sustained(now + took, LIMIT), "{took:?}");
            assert_eq!(lag.end(now + ms(250), LIMIT), None);
            assert!(!lag.is_sustained(now + ms(250), LIMIT));
        }
    }

    #[test]
    fn a_pass_that_does_not_end_is() {
        let (start, mut lag) = (base(), Lag::default());
        lag.begin(start, start);
        // Cut short and gone on with.
        lag.begin(start + ms(400), start);
        assert!(!lag.is_sustained(start + LIMIT + SUSTAINED - ms(1), LIMIT));
        assert!(lag.is_sustained(start + LIMIT + SUSTAINED, LIMIT));
    }

    #[test]
    fn overload_ends_with_the_stream() {
        let (start, mut lag) = (base(), Lag::default());
        let now = passes(&mut lag, start, 5, ms(300), ms(290));
        assert!(lag.is_sustained(now, LIMIT));
        assert!(!lag.is_sustained(now + STALE, LIMIT));
    }
}
