//! How the daemon is, now and over the last hour.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::Response;
use maud::html;

use crate::console::Console;
use crate::console::chart::Chart;
use crate::console::guard::{Visitor, now};
use crate::console::layout::page;
use crate::console::words;
use crate::control::calls;

/// Measured over the last seconds.
const BIT_RATE: &str = "Bit rate sent";

/// What stands in for a source is sent, but the source is not there.
fn streams_live(live: usize, standing_in: usize, all: usize) -> String {
    match standing_in {
        0 => format!("{live} of {all}"),
        _ => format!("{live} of {all}, {standing_in} with a stand-in"),
    }
}

/// `GET /load`
pub(in crate::console) async fn load(State(console): State<Arc<Console>>, Extension(visitor): Extension<Visitor>) -> Response {
    let (plane, now) = (&console.plane, now());
    let status = calls::status(plane);
    // What the API calls it.
    let state = serde_json::to_value(&status.state).ok().and_then(|state| Some(state.as_str()?.to_owned())).unwrap_or_default();
    let samples = plane.samples(now);
    let charts = [
        Chart { title: "Viewers", value: |sample| sample.viewers.into(), words: |viewers| viewers.to_string(), least: 2 },
        Chart { title: BIT_RATE, value: |sample| sample.bit_rate, words: words::bit_rate, least: 200_000 },
    ];
    let tiles = [
        ("State", state),
        ("Runs for", words::time(Duration::from_secs(status.uptime_s))),
        ("Sessions", status.sessions.to_string()),
        (BIT_RATE, words::bit_rate(status.bit_rate)),
        ("Streams live", streams_live(status.points_live, status.points_standing_in, status.points)),
        ("Client ports", format!("{} leased, {} held, {} at rest", status.ports_leased, status.ports_held, status.ports_resting)),
    ];
    let body = html! {
        div data-live id="load" {
            dl.tiles { @for (name, value) in &tiles { div { dt { (name) } dd { (value) } } } }
        }
        div.charts {
            @for (index, chart) in charts.iter().enumerate() { div data-live id={ "chart-" (index) } { (chart.draw(&samples, now)) } }
        }
        h2 { "Where it listens" }
        dl.facts-list {
            @for (what, at) in status.listeners.iter().filter(|(_, at)| !at.is_empty()) { div { dt { (what) } dd { (at.join(", ")) } } }
        }
    };
    page(&visitor, "/load", "Load", &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_not_live() {
        assert_eq!([streams_live(5, 0, 8), streams_live(5, 1, 8)], ["5 of 8", "5 of 8, 1 with a stand-in"]);
    }
}
