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
    /// The scale goes as far as this at least.
    pub(super) least: u64,
}

impl Chart<'_> {
    /// Draws samples, the oldest first.
    pub(super) fn draw(&self, samples: &[Sample], now: Instant) -> Markup {
        let highest = samples.iter().map(self.value).max().unwrap_or(0);
        let latest = samples.last().map_or(0, self.value);
        let (now_words, most_words) = ((self.words)(latest), (self.words)(highest));
        let said = format!("{}: {now_words} now, {most_words} at most in the last hour", self.title);
        let top = top_of_scale(highest.max(self.least));
        let line = self.line(samples, now, top);
        html! {
            figure.chart {
                figcaption { strong { (self.title) } " " span { (now_words) " now, at most " (most_words) } }
                div.plot {
                    div.scale aria-hidden="true" { @for value in [top, top / 2, 0] { span { ((self.words)(value)) } } }
                    svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(said) {
                        @for y in [0, HEIGHT / 2, HEIGHT] { line.grid x1="0" x2=(WIDTH) y1=(y) y2=(y) {} }
                        @if let Some((first, last, points)) = line {
                            polygon.area points={ (first) "," (HEIGHT) " " (points) " " (last) "," (HEIGHT) } {}
                            polyline.line points=(points) {}
                        }
                    }
                    div.axis aria-hidden="true" { span { "an hour ago" } span { "half an hour" } span { "now" } }
                }
                details id=(id_of("table", self.title)) { summary id=(id_of("numbers", self.title)) { "As numbers" } (self.table(samples, now)) }
            }
        }
    }

    /// Where it begins, where it ends, and all its points.
    fn line(&self, samples: &[Sample], now: Instant, top: u64) -> Option<(u64, u64, String)> {
        let hour = u64::try_from(HISTORY.as_millis()).unwrap_or(u64::MAX);
        let x = |sample: &Sample| {
            let age = u64::try_from(now.saturating_duration_since(sample.at).as_millis()).unwrap_or(u64::MAX).min(hour);
            (hour - age) * WIDTH / hour
        };
        let y = |sample: &Sample| HEIGHT - (self.value)(sample).min(top).saturating_mul(HEIGHT) / top.max(1);
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

/// The next number that is as easy to read as its half: 2, 4, 6, 8 or 10 of a power of ten.
fn top_of_scale(highest: u64) -> u64 {
    let mut power: u64 = 1;
    while power.saturating_mul(10) < highest && power < u64::MAX / 10 {
        power *= 10;
    }
    [2, 4, 6, 8]
        .into_iter()
        .map(|digit| power.saturating_mul(digit))
        .find(|top| *top >= highest)
        .unwrap_or(power.saturating_mul(10))
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
    fn scales_end_at_even_numbers() {
        let ends = [0, 2, 3, 7, 9, 10, 11, 81, 100, 101, 1_234_567, u64::MAX].map(top_of_scale);
        assert_eq!(ends, [2, 2, 4, 8, 10, 10, 20, 100, 100, 200, 2_000_000, u64::MAX]);
    }

    #[test]
    fn samples_are_a_line_from_left_to_right() {
        let now = super::super::guard::now() + HISTORY;
        let sample = |ago: u64, viewers| Sample { at: now - Duration::from_secs(ago), viewers, bit_rate: 0 };
        let chart = Chart { title: "Viewers", value: |sample| sample.viewers.into(), words: |n| n.to_string(), least: 2 };
        let samples = [sample(3600, 0), sample(1800, 10), sample(0, 5)];
        let drawn = chart.draw(&samples, now).into_string();
        assert!(drawn.contains("points=\"0,100 500,0 1000,50\""), "{drawn}");
        assert!(drawn.contains("Viewers: 5 now, 10 at most in the last hour"), "{drawn}");
        assert!(drawn.contains("<td>30–35</td><td>10</td>"), "{drawn}");
        assert!(drawn.contains("<span>10</span><span>5</span><span>0</span>"), "{drawn}");
        // Before the first sample, and with nobody there.
        assert!(!chart.draw(&[], now).into_string().contains("polyline"));
        assert!(chart.draw(&[sample(0, 0)], now).into_string().contains("points=\"1000,100\""));
    }
}
