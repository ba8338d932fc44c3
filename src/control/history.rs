//! Viewers and bit rate of the last hour.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back it is known.
pub const HISTORY: Duration = Duration::from_secs(3600);
/// The time between two samples.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// So many samples are kept: those of [`HISTORY`].
const SAMPLES_MAX: usize = 360;

/// How it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Sessions that had a place.
    pub viewers: u32,
    /// What they were sent together, bits per second: the mean since the sample before.
    pub bit_rate: u64,
}

/// The samples of the last hour, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    /// Adds one; the oldest goes where there are too many.
    pub(super) fn add(&mut self, sample: Sample) {
        if self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Those that are not too old.
    pub(super) fn list(&self, now: Instant) -> Vec<Sample> {
        self.0.iter().filter(|sample| now.saturating_duration_since(sample.at) <= HISTORY).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept() {
        let (mut history, begin) = (History::default(), tokio::time::Instant::now().into_std());
        for n in 0..1000u32 {
            history.add(Sample { at: begin + SAMPLE_EVERY * n, viewers: n, bit_rate: 0 });
        }
        let now = begin + SAMPLE_EVERY * 999;
        let kept = history.list(now);
        assert_eq!((kept.len(), kept[0].viewers, kept[359].viewers), (360, 640, 999));
        assert_eq!(history.list(now + HISTORY).len(), 1, "after an hour without samples");
    }
}
