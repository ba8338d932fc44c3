//! How long a source that failed waits before it tries again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// A source that ran for so long was good: its end is a new beginning.
const GOOD: Duration = Duration::from_secs(60);
/// The same of one that sent media to viewers: they wait for it, and a fault of many seconds each is no tight loop.
const GOOD_WITH_MEDIA: Duration = Duration::from_secs(2);

/// Doubles from 0.5 s to 30 s; starts over once a run was good.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
}

impl BackOff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The run that is over sent media to viewers for so long.
    pub(super) fn played(&mut self, media: Duration) {
        if media >= GOOD_WITH_MEDIA {
            self.next = FIRST;
        }
    }

    /// The wait after a run of this length.
    pub(super) fn after(&mut self, run: Duration) -> Duration {
        if run >= GOOD {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_starts_over() {
        let mut back_off = BackOff::new();
        let waits: Vec<u128> = (0..9).map(|_| back_off.after(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(back_off.after(GOOD), FIRST);
        assert_eq!(back_off.after(Duration::ZERO), FIRST * 2);
        back_off.played(Duration::from_secs(1));
        assert_eq!(back_off.after(Duration::ZERO), FIRST * 4, "no sooner for a second of media");
        back_off.played(GOOD_WITH_MEDIA);
        assert_eq!(back_off.after(GOOD_WITH_MEDIA), FIRST);
    }
}
