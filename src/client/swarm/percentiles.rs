//! Percentiles of times, as reports tell them.

use std::time::Duration;

use serde::Serialize;

/// Percentiles, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of these times, by nearest rank; `None` of none.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let max = times.last()?.as_secs_f64() * 1000.0;
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(max, |time| time.as_secs_f64() * 1000.0)
        };
        Some(Self { p50: at(50), p95: at(95), p99: at(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_nearest_rank() {
        let of = |ms: &[u64]| Percentiles::of(ms.iter().copied().map(Duration::from_millis).collect());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some(Percentiles { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(of(&[4, 1, 3, 2]), Some(Percentiles { p50: 2.0, p95: 4.0, p99: 4.0, max: 4.0 }));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(of(&hundred), Some(Percentiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 }));
    }
}
