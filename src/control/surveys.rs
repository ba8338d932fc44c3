//! One look at all sessions for many who ask.
//!
//! A shard leaves its viewers for a moment to tell of its sessions. Pages that are open in many browsers ask for them every two
//! seconds, so one answer serves all of them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

/// The last survey, and how a further one is made. At most one is under way, whoever asks.
pub(super) struct Surveys<T> {
    /// Locked while one is made: who asks meanwhile waits for it.
    last: Mutex<Option<Survey<T>>>,
    /// What was done to the sessions so far.
    actions: AtomicU64,
}

struct Survey<T> {
    began: Instant,
    /// Those that had been done when it began.
    actions: u64,
    found: Arc<T>,
}

impl<T> Default for Surveys<T> {
    fn default() -> Self {
        Self { last: Mutex::default(), actions: AtomicU64::default() }
    }
}

impl<T> Surveys<T> {
    /// A survey that began later than `since`, and than the last action: the last one, or else one that `survey` makes now. `now` is the clock.
    pub(super) async fn since<F: Future<Output = T>>(
        &self,
        since: Instant,
        now: impl Fn() -> Instant,
        survey: impl FnOnce() -> F,
    ) -> Arc<T> {
        let mut last = self.last.lock().await;
        // Read before it is made: what is done while it is made may be missing in it.
        let actions = self.actions.load(Ordering::SeqCst);
        if let Some(last) = last.as_ref().filter(|last| last.began > since && last.actions == actions) {
            return Arc::clone(&last.found);
        }
        let began = now();
        let found = Arc::new(survey().await);
        *last = Some(Survey { began, actions, found: Arc::clone(&found) });
        found
    }

    /// Something was done to the sessions: nobody who asks from now on is told how they were before.
    pub(super) fn outdate(&self) {
        self.actions.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::{advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// Surveys that take 100 ms and find how many were made before.
    #[derive(Default)]
    struct Bench {
        surveys: Surveys<u64>,
        made: AtomicU64,
    }

    impl Bench {
        async fn since(&self, since: Instant) -> u64 {
            let survey = async || {
                sleep(SECOND / 10).await;
                self.made.fetch_add(1, Ordering::SeqCst)
            };
            *self.surveys.since(since, now, survey).await
        }

        /// As a page asks that may be a second old.
        async fn recent(&self) -> u64 {
            self.since(now().checked_sub(SECOND).unwrap()).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fifty_pages_cost_as_much_as_one() {
        let bench = Bench::default();
        advance(2 * SECOND).await;
        assert_eq!(join_all((0..50).map(|_| bench.recent())).await, [0; 50]);
        advance(SECOND * 8 / 10).await;
        assert_eq!(bench.recent().await, 0, "it began 0.9 s ago");
        advance(SECOND / 10).await;
        assert_eq!(join_all((0..50).map(|_| bench.recent())).await, [1; 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_now_is_told_of_nothing_before() {
        let bench = Bench::default();
        let later = async {
            sleep(SECOND / 20).await;
            join_all((0..50).map(|_| bench.since(now()))).await
        };
        let (first, later) = tokio::join!(bench.since(now()), later);
        assert_eq!((first, later), (0, vec![1; 50]), "the one that was under way is not theirs; the next one is everybody's");
    }

    #[tokio::test(start_paused = true)]
    async fn an_action_outdates_what_was_found_and_what_is_under_way() {
        let bench = Bench::default();
        advance(2 * SECOND).await;
        assert_eq!(bench.recent().await, 0);
        bench.surveys.outdate();
        let acted = async {
            sleep(SECOND / 20).await;
            bench.surveys.outdate();
            bench.recent().await
        };
        assert_eq!(tokio::join!(bench.recent(), acted), (1, 2));
        assert_eq!(bench.recent().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_stops_nobody() {
        let bench = Bench::default();
        advance(2 * SECOND).await;
        assert!(tokio::time::timeout(SECOND / 20, bench.recent()).await.is_err());
        assert_eq!(bench.recent().await, 0);
    }
}
