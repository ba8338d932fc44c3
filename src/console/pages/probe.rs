//! What probes of viewers' networks found, and how one is run.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::html;

use super::streams::host;
use crate::console::Console;
use crate::console::guard::Visitor;
use crate::console::layout::page;
use crate::console::words;
use crate::control::ProbeReport;
use crate::probe::table::{state, way};

/// `GET /probe`
pub(in crate::console) async fn probe(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    let reports = console.plane.probes.list(tokio::time::Instant::now().into_std());
    let body = html! {
        p.lead {
            "A probe says what the firewalls between a viewer and this server let through. It has to be run where the viewer is, for only "
            "there it is seen what arrives."
        }
        section.how {
            h2 { "How to run one" }
            ol {
                li { "Copy the program " code { "wmrelay" } " to a machine at the viewer's side. Nothing has to be installed." }
                li { "Run it there with the name of this server and as many viewers as are to watch at once, and sign in:"
                    pre { "wmrelay probe " (host(&headers)) " --viewers 10" } }
                li { "It prints a table: what is open, what is blocked and at which side as far as can be told, and what to ask the "
                    "administrator for. The same is shown here." }
            }
        }
        div data-live id="probes" {
            @if reports.is_empty() { p.empty { "None has reported yet." } }
            @for ProbeReport { user, address, ago_s, report, .. } in &reports {
                section.report {
                    h2 { (address) " " span.small { (words::time(Duration::from_secs(*ago_s))) " ago, by " (user) ", for " (report.viewers) " viewers" } }
                    table.stack {
                        thead { tr { th scope="col" { "Ports" } th scope="col" { "What" } th scope="col" { "Result" } th scope="col" { "In words" } } }
                        tbody {
                            @for line in &report.lines {
                                tr {
                                    th scope="row" { (way(line.way)) " " (line.ports) }
                                    td data-label="What" { (line.what) }
                                    td data-label="Result" { (state(line.state)) }
                                    td data-label="In words" { (line.words) }
                                }
                            }
                        }
                    }
                    @for (title, sentences) in [
                        ("Rewritten on the way", &report.nat),
                        ("To ask the administrator of the firewall for", &report.asks),
                        ("Besides", &report.notes),
                    ] {
                        @if !sentences.is_empty() {
                            h3 { (title) }
                            ul { @for sentence in sentences { li { (sentence) } } }
                        }
                    }
                }
            }
        }
    };
    page(&visitor, "/probe", "Probe", &body)
}
