//! Whether the daemon lives: every shard gives a sign of life, others ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a shard is to give a sign of life.
pub const BEAT_EVERY: Duration = Duration::from_secs(1);

/// A shard that was silent for longer is stuck. A turn of a shard takes about a millisecond; a machine that swaps, or
/// that its host has stopped for a moment, may well need some seconds.
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// Signs of life of all shards, and whether the daemon serves. Shared by reference counting; no locks.
#[derive(Debug)]
pub struct Health {
    start: Instant,
    /// Milliseconds from `start` to each shard's last sign of life.
    beats: Box<[AtomicU64]>,
    ready: AtomicBool,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    /// Health of a daemon with this many shards; the time until their first sign of life counts from `now`.
    pub fn new(now: Instant, shards: usize) -> Arc<Self> {
        let beats = (0..shards).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            start: now,
            beats,
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
    }

    /// A shard's sign of life, about every [`BEAT_EVERY`]; a number beyond the last shard is ignored.
    pub fn beat(&self, shard: usize, now: Instant) {
        if let Some(beat) = self.beats.get(shard) {
            // Relaxed: nothing else is published with it, and a late reader only reads an older beat.
            beat.store(self.millis(now), Ordering::Relaxed);
        }
    }

    /// Whether every shard gave a sign of life within [`STALE_AFTER`].
    pub fn healthy(&self, now: Instant) -> bool {
        self.stale(now).is_none()
    }

    /// A shard that is stuck, and for how long it has been silent.
    pub fn stale(&self, now: Instant) -> Option<(usize, Duration)> {
        let now = self.millis(now);
        let silent = self.beats.iter().map(|beat| Duration::from_millis(now.saturating_sub(beat.load(Ordering::Relaxed))));
        silent.enumerate().find(|(_, silent)| *silent > STALE_AFTER)
    }

    /// All is bound, viewers can connect.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// New viewers are taken no more, or again.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
    }

    /// The end has begun: no longer ready, though alive until it is done.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether viewers can connect now.
    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.stopping() && !self.draining()
    }

    /// Whether new viewers are sent elsewhere or refused.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the end has begun.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "one base time; the test adds to it")]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn one_silent_shard_is_enough() {
        let start = base();
        let health = Health::new(start, 2);
        assert!(health.healthy(start + STALE_AFTER), "shards may take a moment to begin");
        assert!(!health.healthy(start + STALE_AFTER + SECOND));
        health.beat(0, start + 6 * SECOND);
        assert_eq!(health.stale(start + 7 * SECOND), Some((1, 7 * SECOND)));
        health.beat(1, start + 7 * SECOND);
        health.beat(2, start + 7 * SECOND);
        assert!(health.healthy(start + 7 * SECOND));
        assert_eq!(health.stale(start + 12 * SECOND), Some((0, 6 * SECOND)));
    }

    #[test]
    fn ready_from_bound_to_stopping() {
        let health = Health::new(base(), 1);
        assert!(!health.ready());
        health.set_ready();
        assert!(health.ready());
        health.set_draining(true);
        assert!(!health.ready() && health.draining());
        health.set_draining(false);
        assert!(health.ready());
        health.set_stopping();
        assert!(!health.ready() && health.stopping());
    }
}
