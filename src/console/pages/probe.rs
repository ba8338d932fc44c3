//! What probes of viewers' networks found, and how one is run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::streams::host;
use super::{date, query};
use crate::console::Console;
use crate::console::guard::{Visitor, now};
use crate::console::layout::page;
use crate::console::paging::Paging;
use crate::console::words;
use crate::control::{ProbeReport, certificate};
use crate::probe::State as Found;
use crate::probe::table::{state, way};

/// Where probes sign in if nothing else is said: the registered port of `senip`.
const CONTROL_PORT: u16 = 3898;
/// Reports of a page: each may be long.
const REPORTS_SHOWN: usize = 10;

/// `GET /probe`
pub(in crate::console) async fn probe(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let (probes, now) = (&console.plane.probes, now());
    let paging = Paging::by(REPORTS_SHOWN, probes.reports(now), query(&uri).get("page"));
    let reports = probes.list(now, paging.range());
    let command = command(&console, &host(&headers)).await;
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
                    @match &command {
                        Some(command) => pre { (command) },
                        None => p.note { "There is no control port, at which a probe signs in. Say " code { "[control] listen" } " and start the daemon anew." },
                    }
                    @if console.control_certificate.is_some() {
                        p.small { "The fingerprint may be left out where that machine trusts the authority of the certificate." }
                    }
                }
                li {
                    "It prints a table: what is open, what is blocked and at which side as far as can be told, and what to ask the "
                    "administrator for. The same is shown here."
                }
            }
        }
        (found(&reports, date()))
        (paging.links("/probe"))
    };
    page(&visitor, "/probe", "Probe", &body)
}

/// How a probe of this server is run; `None`: it has no control port.
async fn command(console: &Console, host: &str) -> Option<String> {
    let port = console.plane.listeners.get("control")?.first()?.port();
    let file = console.control_certificate.as_ref().map(|certificate| certificate.file().to_owned());
    let trust = match file {
        None => " --plain".to_owned(),
        Some(file) => {
            // Read each time: it may be another one by now. What cannot be read is left out, and the probe says what it is shown.
            let read = tokio::task::spawn_blocking(move || certificate::fingerprint(&file)).await;
            read.ok().and_then(Result::ok).map(|shown| format!(" --fingerprint {shown}")).unwrap_or_default()
        }
    };
    let control = if port == CONTROL_PORT { String::new() } else { format!(" --control {port}") };
    Some(format!("wmrelay probe {host} --viewers 10{control}{trust}"))
}

/// Reports never change: there is something new only where there are others.
fn found(reports: &[ProbeReport], now: SystemTime) -> Markup {
    let numbers: Vec<_> = reports.iter().map(|report| report.id.to_string()).collect();
    html! {
        div data-live data-edition=(numbers.join(" ")) id="probes" {
            @if reports.is_empty() {
                p.empty { "None has reported yet." }
            } @else {
                p.small { "The texts are what the probes say; nothing vouches for them." }
            }
            @for (index, report) in reports.iter().enumerate() { (reported(report, now, index == 0)) }
        }
    }
}

fn reported(probe: &ProbeReport, now: SystemTime, is_newest: bool) -> Markup {
    let report = &probe.report;
    let at = now.checked_sub(Duration::from_secs(probe.ago_s)).unwrap_or(now);
    let parts = [
        ("Rewritten on the way", &report.nat),
        ("Ask the administrator of the firewall to let pass", &report.asks),
        ("Besides", &report.notes),
    ];
    html! {
        details.report id={ "probe-" (probe.id) } open[is_newest] {
            summary id={ "report-of-" (probe.id) } {
                strong { (probe.address) } " "
                span.small {
                    (words::date(at)) ", by " (probe.user) ", for "
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
                @if !sentences.is_empty() { h2 { (title) } ul { @for sentence in sentences { li { (sentence) } } } }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Report;
    use crate::probe::verdict::Outcome;

    #[test]
    fn the_newest_is_open_and_all_are_words_of_others() {
        let report = |id| {
            let text = || "<b>h</b>".to_owned();
            let report = Report {
                host: text(),
                server: text(),
                client: text(),
                seen_as: None,
                viewers: 2,
                outcome: Outcome::Open,
                lines: Vec::new(),
                nat: Vec::new(),
                asks: vec![text()],
                notes: Vec::new(),
            };
            ProbeReport { id, user: "anna".into(), address: "192.0.2.1".into(), ago_s: 7, report }
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let page = found(&[report(9), report(4)], now).into_string();
        assert!(page.contains("data-edition=\"9 4\"") && page.contains("nothing vouches for them"), "{page}");
        assert!(page.contains("id=\"probe-9\" open") && page.contains("id=\"probe-4\">"), "{page}");
        assert!(page.contains("&lt;b&gt;h&lt;/b&gt;") && !page.contains("<b>"), "{page}");
        assert!(page.contains("1970-01-01 00:00:03 UTC, by anna"), "{page}");
        assert!(found(&[], now).into_string().contains("None has reported yet."));
    }
}
