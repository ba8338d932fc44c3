//! What probes of viewers' networks found, and how one is run.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::html;

use super::streams::host;
use crate::console::Console;
use crate::console::guard::Visitor;
use crate::console::layout::page;
use crate::console::words;

/// `GET /probe`
pub(in crate::console) async fn probe(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Response {
    let reports = console.plane.probes.list();
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
            @for report in &reports {
                section.report {
                    h2 { (report.address) " " span.small { (words::date(report.at)) ", by " (report.user) } }
                    table.stack {
                        thead { tr { th scope="col" { "What" } th scope="col" { "Result" } th scope="col" { "In words" } } }
                        tbody {
                            @for line in &report.lines {
                                tr {
                                    th scope="row" { (line.what) }
                                    td data-label="Result" { (line.result) }
                                    td data-label="In words" { (line.words) }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    page(&visitor, "/probe", "Probe", &body)
}
