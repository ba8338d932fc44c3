//! How much later than the earliest a packet came.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Packets that came later than this are told apart.
pub const LATE: Duration = Duration::from_millis(100);
/// How much earlier than the first packet one may be, µs; those that are earlier still count as this much.
const HEADROOM_US: i64 = 10_000_000;
/// Differences of more count as this much, µs.
const LARGEST_US: u64 = 600_000_000;

/// Delays of packets, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DelayReport {
    /// The median.
    pub p50: f64,
    /// 99 of 100 came no later.
    pub p99: f64,
    /// The latest.
    pub max: f64,
    /// Packets of more than [`LATE`].
    pub late_packets: u64,
    /// Packets that were looked at.
    pub packets: u64,
}

/// Arrivals less send times, against the smallest such difference.
///
/// The source's clock has another zero than ours, so that the difference of one packet tells nothing: the earliest of all is the
/// zero. It may come late, or again and again where the source's clock is fast, so differences are recorded against a zero well
/// before the first packet, and the smallest is subtracted when all are known.
#[derive(Debug)]
pub(super) struct Delays {
    /// [`HEADROOM_US`] before the first packet's difference.
    zero_us: Option<i64>,
    histogram: Histogram<u64>,
    /// The smallest difference, µs after the zero.
    earliest_us: u64,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { zero_us: None, histogram: empty(), earliest_us: u64::MAX }
    }

    /// Adds a packet: its arrival, µs since any instant, always the same, and its send time on the source's clock, ms.
    pub(super) fn add(&mut self, arrival_us: i64, send_time_ms: u32) {
        let difference = arrival_us.saturating_sub(i64::from(send_time_ms) * 1000);
        let zero = *self.zero_us.get_or_insert(difference.saturating_sub(HEADROOM_US));
        let after = u64::try_from(difference.saturating_sub(zero)).unwrap_or(0).min(LARGEST_US);
        self.earliest_us = self.earliest_us.min(after);
        self.histogram.saturating_record(after);
    }

    /// What was seen; `None` where there was no packet.
    pub(super) fn report(&self) -> Option<DelayReport> {
        let packets = self.histogram.len();
        let late_us = u64::try_from(LATE.as_micros()).unwrap_or(u64::MAX);
        // The median of a bucket, since its edge would make all late by its width.
        let delay_us = |us: u64| self.histogram.median_equivalent(us).saturating_sub(self.earliest_us);
        let at = |quantile: f64| delay_us(self.histogram.value_at_quantile(quantile)) as f64 / 1000.0;
        (packets > 0).then(|| DelayReport {
            p50: at(0.50),
            p99: at(0.99),
            max: at(1.0),
            late_packets: self
                .histogram
                .iter_recorded()
                .filter(|bucket| delay_us(bucket.value_iterated_to()) > late_us)
                .map(|bucket| bucket.count_at_value())
                .sum(),
            packets,
        })
    }
}

/// Five digits: at [`HEADROOM_US`] from the zero a bucket is 64 µs wide.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LARGEST_US, 5).expect("the bounds are constants that fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected.abs() * 0.02 + 0.01
    }

    #[test]
    fn the_earliest_is_the_zero_whenever_it_comes() {
        let mut delays = Delays::new();
        assert_eq!(delays.report(), None);
        // Sent every 40 ms; they come 50, 10, 210 and 10 ms after the earliest, which is the third of five.
        for (n, late_us) in [(0, 50_000), (1, 10_000), (2, 0), (3, 210_000), (4, 10_000)] {
            delays.add(7_000_000 + n * 40_000 + late_us, 90_000 + u32::try_from(n).unwrap() * 40);
        }
        let report = delays.report().unwrap();
        assert!(near(report.p50, 10.0) && near(report.p99, 210.0) && near(report.max, 210.0), "{report:?}");
        assert_eq!((report.packets, report.late_packets), (5, 1));
    }

    #[test]
    fn a_fast_source_clock_moves_the_zero_and_nothing_else() {
        let mut delays = Delays::new();
        // Each of the 20 000 packets is earlier than all before, by 5 µs: 100 ms in all.
        for n in 0..20_000u32 {
            delays.add(i64::from(n) * 40_000 - i64::from(n) * 5, n * 40);
        }
        let report = delays.report().unwrap();
        assert!((report.p50 - 50.0).abs() < 2.0 && (report.p99 - 99.0).abs() < 2.0 && report.max < 102.0, "{report:?}");
        assert_eq!(report.packets, 20_000);
        assert!(report.late_packets < 400, "{report:?}");
    }

    #[test]
    fn a_clock_that_jumps_breaks_nothing() {
        let mut delays = Delays::new();
        for (arrival, sent) in [(0, u32::MAX), (1, 0), (2, u32::MAX), (i64::from(u32::MAX), 5)] {
            delays.add(arrival, sent);
        }
        assert_eq!(delays.report().map(|report| report.packets), Some(4));
    }
}
