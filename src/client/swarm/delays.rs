//! How much later than the earliest a packet came.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Packets that came later than this are told apart.
pub const LATE: Duration = Duration::from_millis(100);
/// Delays of more count as this much, µs.
const LONGEST_US: u64 = 600_000_000;

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
/// zero.
#[derive(Debug)]
pub(super) struct Delays {
    zero_us: Option<i64>,
    histogram: Histogram<u64>,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { zero_us: None, histogram: empty() }
    }

    /// Adds a packet: its arrival, µs since any instant, always the same, and its send time on the source's clock, ms.
    pub(super) fn add(&mut self, arrival_us: i64, send_time_ms: u32) {
        let difference = arrival_us - i64::from(send_time_ms) * 1000;
        let zero = *self.zero_us.get_or_insert(difference);
        if let Ok(delay) = u64::try_from(difference - zero) {
            self.histogram.saturating_record(delay);
            return;
        }
        // An earlier one than all before: seldom after the first few, so the histogram may be made anew.
        let shift = zero.abs_diff(difference);
        let mut shifted = empty();
        for bucket in self.histogram.iter_recorded() {
            shifted.saturating_record_n(bucket.value_iterated_to().saturating_add(shift), bucket.count_at_value());
        }
        shifted.saturating_record(0);
        self.histogram = shifted;
        self.zero_us = Some(difference);
    }

    /// What was seen; `None` where there was no packet.
    pub(super) fn report(&self) -> Option<DelayReport> {
        let packets = self.histogram.len();
        let late_us = u64::try_from(LATE.as_micros()).unwrap_or(u64::MAX);
        let ms = |us: u64| us as f64 / 1000.0;
        (packets > 0).then(|| DelayReport {
            p50: ms(self.histogram.value_at_quantile(0.50)),
            p99: ms(self.histogram.value_at_quantile(0.99)),
            max: ms(self.histogram.max()),
            late_packets: self
                .histogram
                .iter_recorded()
                .filter(|b| b.value_iterated_to() > late_us)
                .map(|b| b.count_at_value())
                .sum(),
            packets,
        })
    }
}

/// Two digits are enough for times that are told in milliseconds.
fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are constants that fit")
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
    fn a_clock_that_jumps_breaks_nothing() {
        let mut delays = Delays::new();
        for (arrival, sent) in [(0, u32::MAX), (1, 0), (2, u32::MAX), (i64::from(u32::MAX), 5)] {
            delays.add(arrival, sent);
        }
        assert_eq!(delays.report().map(|report| report.packets), Some(4));
    }
}
