//! Charts of the last hour, drawn where the page is made: a line in SVG, and its numbers as a table for those who do not see it.

use std::time::{Duration, Instant};

use maud::{Markup, html};

use super::layout::id_of;
use crate::control::{HISTORY, Sample};

/// The drawing's own units; it is stretched to whatever room there is.
const WIDTH: u64 = 1000;
const HEIGHT: u64 = 100;
/// Rows of the table: five minutes each.
const ROWS: u64 = 12;

/// What is drawn.
pub(super) struct Chart<'c> {
    /// What the numbers are.
    pub(super) title: &'c str,
    /// Of each sample.
    pub(super) value: fn(&Sample) -> u64,
    /// As people read it.
    pub(super) words: fn(u64) -> String,
}

impl Chart<'_> {
    /// Draws samples, the oldest first.
    pub(super) fn draw(&self, samples: &[Sample], now: Instant) -> Markup {
        let highest = samples.iter().map(self.value).max().unwrap_or(0);
        let latest = samples.last().map_or(0, self.value);
        let (now_words, most_words) = ((self.words)(latest), (self.words)(highest));
        let said = format!("{}: {now_words} now, {most_words} at most in the last hour", self.title);
        let line = self.line(samples, now, highest);
        html! {
            figure.chart {
                figcaption { strong { (self.title) } " " span { (now_words) " now, at most " (most_words) } }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(said) {
                    @for y in [1, HEIGHT / 2, HEIGHT - 1] { line.grid x1="0" x2=(WIDTH) y1=(y) y2=(y) {} }
                    @if let Some((first, last, points)) = line {
                        polygon.area points={ (first) "," (HEIGHT) " " (points) " " (last) "," (HEIGHT) } {}
                        polyline.line points=(points) {}
                    }
                }
                div.axis aria-hidden="true" { span { "an hour ago" } span { "half an hour" } span { "now" } }
                details id=(id_of("table", self.title)) { summary id=(id_of("numbers", self.title)) { "As numbers" } (self.table(samples, now)) }
            }
        }
    }

    /// Where it begins, where it ends, and all its points.
    fn line(&self, samples: &[Sample], now: Instant, highest: u64) -> Option<(u64, u64, String)> {
        let hour = u64::try_from(HISTORY.as_millis()).unwrap_or(u64::MAX);
        let x = |sample: &Sample| {
            let age = u64::try_from(now.saturating_duration_since(sample.at).as_millis()).unwrap_or(u64::MAX).min(hour);
            (hour - age) * WIDTH / hour
        };
        // A little room above the highest.
        let y = |sample: &Sample| (HEIGHT - 2) - (self.value)(sample).saturating_mul(HEIGHT * 9 / 10) / highest.max(1);
        let points: Vec<_> = samples.iter().map(|sample| format!("{},{}", x(sample), y(sample))).collect();
        Some((x(samples.first()?), x(samples.last()?), points.join(" ")))
    }

    fn table(&self, samples: &[Sample], now: Instant) -> Markup {
        let span = HISTORY / u32::try_from(ROWS).unwrap_or(1);
        let of = |row: u64| {
            let age = |sample: &Sample| now.saturating_duration_since(sample.at);
            let (from, to) = (span.saturating_mul(row_of(row)), span.saturating_mul(row_of(row + 1)));
            samples.iter().filter(|sample| (from..to).contains(&age(sample))).map(self.value).max()
        };
        html! {
            table {
                thead { tr { th scope="col" { "Minutes ago" } th scope="col" { "At most" } } }
                tbody {
                    @for (row, value) in (0..ROWS).filter_map(|row| Some((row, (self.words)(of(row)?)))) {
                        tr {
                            td { (minutes(span, row)) "–" (minutes(span, row + 1)) }
                            td { (value) }
                        }
                    }
                }
            }
        }
    }
}

fn row_of(row: u64) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

fn minutes(span: Duration, row: u64) -> u64 {
    span.as_secs() * row / 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_a_line_from_left_to_right() {
        let now = super::super::guard::now() + HISTORY;
        let sample = |ago: u64, viewers| Sample { at: now - Duration::from_secs(ago), viewers, bit_rate: 0 };
        let chart = Chart { title: "Viewers", value: |sample| sample.viewers.into(), words: |n| n.to_string() };
        let samples = [sample(3600, 0), sample(1800, 10), sample(0, 5)];
        let drawn = chart.draw(&samples, now).into_string();
        assert!(drawn.contains("points=\"0,98 500,8 1000,53\""), "{drawn}");
        assert!(drawn.contains("Viewers: 5 now, 10 at most in the last hour"), "{drawn}");
        assert!(drawn.contains("<td>30–35</td><td>10</td>"), "{drawn}");
        // Before the first sample, and with nobody there.
        assert!(!chart.draw(&[], now).into_string().contains("polyline"));
        assert!(chart.draw(&[sample(0, 0)], now).into_string().contains("points=\"1000,98\""));
    }
}
