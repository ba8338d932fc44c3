//! What probes of viewers' networks found, and how one is run.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::{Markup, html};

use super::streams::host;
use crate::console::Console;
use crate::console::guard::{Visitor, now};
use crate::console::layout::page;
use crate::console::words;
use crate::control::ProbeReport;
use crate::probe::State as Found;
use crate::probe::table::{state, way};

/// `GET /probe`
pub(in crate::console) async fn probe(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    let reports = console.plane.probes.list(now());
    let body = html! {
        p.lead {
            "A probe says what the firewalls between a viewer and this server let through. It has to be run where the viewer is, for only "
            "there it is seen what arrives."
        }
        section.how {
            h2 { "How to run one" }
            ol {
                li { "Copy the program " code { "wmrelay" } " to a machine at the viewer's side. Nothing has to be installed." }
                li {
                    "Run it there with the name of this server and as many viewers as are to watch at once, and sign in:"
                    pre { "wmrelay probe " (host(&headers)) " --viewers 10" }
                }
                li {
                    "It prints a table: what is open, what is blocked and at which side as far as can be told, and what to ask the "
                    "administrator for. The same is shown here."
                }
            }
        }
        div data-live id="probes" {
            @if reports.is_empty() { p.empty { "None has reported yet." } }
            @for report in &reports { (reported(report)) }
        }
    };
    page(&visitor, "/probe", "Probe", &body)
}

fn reported(probe: &ProbeReport) -> Markup {
    let report = &probe.report;
    let parts = [
        ("Rewritten on the way", &report.nat),
        ("Ask the administrator of the firewall to let pass", &report.asks),
        ("Besides", &report.notes),
    ];
    html! {
        section.report {
            h2 {
                (probe.address) " "
                span.small {
                    (words::time(Duration::from_secs(probe.ago_s))) " ago, by " (probe.user) ", for "
                    (words::count(report.viewers, "viewer", "viewers")) " of " (report.host)
                }
            }
            table.stack {
                thead { tr { th scope="col" { "Port" } th scope="col" { "For" } th scope="col" { "Result" } th scope="col" { "In words" } } }
                tbody {
                    @for line in &report.lines {
                        tr {
                            th scope="row" { (way(line.way)) " " (line.ports) }
                            td data-label="For" { (line.what) }
                            td data-label="Result" { span class={ "state " (colour(line.state)) } { (state(line.state)) } }
                            td data-label="In words" { (line.words) }
                        }
                    }
                }
            }
            @for (title, sentences) in parts {
                @if !sentences.is_empty() { h3 { (title) } ul { @for sentence in sentences { li { (sentence) } } } }
            }
        }
    }
}

const fn colour(state: Found) -> &'static str {
    match state {
        Found::Open => "live",
        Found::Unknown => "waits",
        Found::Refused | Found::Silent | Found::Something => "off",
    }
}
