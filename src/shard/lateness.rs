//! How far the passes of a shard lag behind, and whether it takes new viewers on.

use std::time::{Duration, Instant};

/// So long media must go out too late before anybody is refused: a hiccup of the machine is no overload.
const SUSTAINED: Duration = Duration::from_millis(500);
/// A late pass that ended so long ago says nothing of now.
const STALE: Duration = Duration::from_secs(2);

/// The lag of one shard.
#[derive(Debug)]
pub(super) struct Lateness {
    limit: Option<Duration>,
    /// When the pass that is under way was due, and when it began.
    under_way: Option<(Instant, Instant)>,
    /// When the first and the last of those passes ended that were too late with none in time between them.
    late: Option<(Instant, Instant)>,
    /// How late the last pass ended.
    last: Duration,
    refused: u64,
}

impl Lateness {
    /// Of a shard that has sent nothing; `limit` is `limits.max_send_delay_ms`.
    pub(super) const fn new(limit: Option<Duration>) -> Self {
        Self { limit, under_way: None, late: None, last: Duration::ZERO, refused: 0 }
    }

    /// A pass begins that was due then.
    pub(super) fn begin(&mut self, now: Instant, due: Instant) {
        self.under_way = Some((due, now));
    }

    /// It ended: everybody has what was due.
    pub(super) fn end(&mut self, now: Instant) {
        let Some((due, _)) = self.under_way.take() else { return };
        self.last = now.saturating_duration_since(due);
        let before = self.recent(now);
        self.late = match self.limit {
            Some(limit) if self.last > limit => Some((before.unwrap_or(now), now)),
            _ => None,
        };
    }

    /// Since when passes end too late, if the last of them says anything of now.
    fn recent(&self, now: Instant) -> Option<Instant> {
        self.late.filter(|(_, last)| now.saturating_duration_since(*last) < STALE).map(|(first, _)| first)
    }

    /// Whether new viewers are to be refused; counts those that are.
    pub(super) fn refuses(&mut self, now: Instant) -> bool {
        let Some(limit) = self.limit else { return false };
        // A pass that goes on and on has not ended late yet.
        let under_way = self.under_way.map(|(_, began)| began + limit);
        let since = self.recent(now).into_iter().chain(under_way).min();
        let refuses = since.is_some_and(|since| now.saturating_duration_since(since) >= SUSTAINED);
        self.refused += u64::from(refuses);
        refuses
    }

    /// How many were refused since the last call, and how late the last pass ended; `None` where nobody was.
    pub(super) fn tell(&mut self) -> Option<(u64, Duration)> {
        let refused = std::mem::take(&mut self.refused);
        (refused > 0).then_some((refused, self.last))
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

    /// Passes that are due every 300 ms and take `took` each.
    fn passes(lateness: &mut Lateness, start: Instant, count: u32, took: Duration) -> Instant {
        for n in 0..count {
            let due = start + ms(300) * n;
            lateness.begin(due, due);
            lateness.end(due + took);
        }
        start + ms(300) * count
    }

    #[test]
    fn a_hiccup_refuses_nobody() {
        let (start, mut lateness) = (base(), Lateness::new(Some(LIMIT)));
        let now = passes(&mut lateness, start, 1, ms(290));
        assert!(!lateness.refuses(now));
        let now = passes(&mut lateness, now, 1, ms(10));
        let now = passes(&mut lateness, now, 1, ms(290));
        assert!(!lateness.refuses(now + ms(100)));
        // The whole machine stood still for seconds; then everything goes on.
        let woken = now + ms(9000);
        lateness.begin(woken, now);
        assert!(!lateness.refuses(woken + ms(5)));
        lateness.end(woken + ms(10));
        assert!(!lateness.refuses(woken + ms(20)));
        assert_eq!(lateness.tell(), None);
    }

    #[test]
    fn passes_that_are_late_again_and_again_refuse_until_one_is_in_time() {
        let (start, mut lateness) = (base(), Lateness::new(Some(LIMIT)));
        let now = passes(&mut lateness, start, 4, ms(290));
        assert!(lateness.refuses(now) && lateness.refuses(now));
        assert_eq!(lateness.tell(), Some((2, ms(290))));
        assert_eq!(lateness.tell(), None, "told once");
        let now = passes(&mut lateness, now, 1, ms(250));
        assert!(!lateness.refuses(now));
    }

    #[test]
    fn a_pass_that_does_not_end_refuses() {
        let (start, mut lateness) = (base(), Lateness::new(Some(LIMIT)));
        lateness.begin(start, start);
        assert!(!lateness.refuses(start + LIMIT + SUSTAINED - ms(1)));
        assert!(lateness.refuses(start + LIMIT + SUSTAINED));
    }

    #[test]
    fn overload_ends_with_the_stream() {
        let (start, mut lateness) = (base(), Lateness::new(Some(LIMIT)));
        let now = passes(&mut lateness, start, 5, ms(290));
        assert!(lateness.refuses(now));
        assert!(!lateness.refuses(now + STALE));
    }

    #[test]
    fn without_a_limit_nobody_is_refused() {
        let (start, mut lateness) = (base(), Lateness::new(None));
        let now = passes(&mut lateness, start, 9, ms(5000));
        lateness.begin(start, start);
        assert!(!lateness.refuses(now));
    }
}
