//! What feeds the publishing points, and how it is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use maud::html;

use super::query;
use crate::console::Console;
use crate::console::form::Form;
use crate::console::guard::Visitor;
use crate::console::layout::{Refused, id_of, notice, page, see_other};
use crate::console::paging::Paging;
use crate::console::question::Question;
use crate::console::words;
use crate::control::accounts::Role;
use crate::control::calls::{self, OpenName, SourceAnswer, SourceState};
use crate::text::percent_encode;

/// A source that sends less often than that is told of.
const SILENT_S: u64 = 10;

/// What comes of disconnecting one.
const OUTCOME: &str = "A publisher that is disconnected may come again at once; a source of the daemon's own begins anew.";

/// `GET /sources`
pub(in crate::console) async fn sources(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let sources = calls::sources(&console.plane);
    let paging = Paging::new(sources.len(), query.get("page"));
    let may_act = visitor.is(Role::Operator);
    let body = html! {
        (notice(query.get("done")))
        p.lead { (OUTCOME) }
        div data-live id="sources" {
            table.stack {
                thead { tr {
                    th scope="col" { "Publishing point" } th scope="col" { "State" } th scope="col" { "Viewers" }
                    th scope="col" { "Comes in" } th scope="col" { "So far" } th scope="col" { "Source" }
                    @if may_act { th scope="col" { span.aside { "What to do" } } }
                } }
                tbody {
                    @for source in paging.of(&sources) {
                        tr id=(id_of("source", &source.point)) {
                            th.long scope="row" { (source.point) }
                            td data-label="State" { (state(source)) }
                            td data-label="Viewers" { (source.watchers) }
                            td data-label="Comes in" { (comes_in(source)) }
                            td data-label="So far" { (so_far(source)) }
                            td data-label="Source" {
                                code { (source.source) }
                                @if let Some(failure) = &source.last_failure { p.small { (words::failure(failure)) } }
                            }
                            @if may_act {
                                td.act {
                                    @if source.up && source.state != SourceState::OpenedByName {
                                        a.danger href={ "/sources/disconnect?point=" (percent_encode(&source.point)) } id=(id_of("disconnect", &source.point)) {
                                            "Disconnect" span.aside { " " (source.point) }
                                        }
                                    }
                                }
                            }
                        }
                        @for name in &source.names { (open_name(name, &source.point, may_act)) }
                    }
                }
            }
        }
        (paging.links("/sources"))
    };
    page(&visitor, "/sources", "Sources", &body)
}

fn state(source: &SourceAnswer) -> maud::Markup {
    let since = source.on_fallback_s.filter(|_| source.state == SourceState::StandingIn);
    html! {
        (badge(source.state))
        @if let Some(since) = since { span.small { " for " (words::time(Duration::from_secs(since))) } }
    }
}

fn badge(state: SourceState) -> maud::Markup {
    let (class, text) = words::state(state);
    html! { span class={ "state " (class) } { (text) } }
}

/// The row of a name that is open, under that of its publishing point.
fn open_name(name: &OpenName, point: &str, may_act: bool) -> maud::Markup {
    let OpenName { state, watchers, silent_s, bit_rate, packets, left_out, restarts, last_failure, .. } = name;
    html! {
        tr id=(id_of("name", &name.name)) {
            th.long scope="row" { span.aside { "Of " (point) ": " } "↳ " (name.name) }
            td data-label="State" { (badge(*state)) }
            td data-label="Viewers" { (watchers) }
            td data-label="Comes in" { (rate(*state == SourceState::Live, *silent_s, *bit_rate)) }
            td data-label="So far" { (counts(*packets, *left_out, *restarts)) }
            td data-label="Source" { @if let Some(failure) = last_failure { p.small { (words::failure(failure)) } } @else { "as above" } }
            @if may_act { td.act {} }
        }
    }
}

/// What it sends now, or for how long it has sent nothing.
fn comes_in(source: &SourceAnswer) -> String {
    match source.state {
        // Each viewer of files has its own.
        SourceState::OnDemand => String::new(),
        SourceState::OpenedByName if source.names.is_empty() => "no name is open".into(),
        _ => rate(source.up, source.silent_s, source.bit_rate),
    }
}

fn rate(up: bool, silent_s: Option<u64>, bit_rate: u64) -> String {
    match silent_s {
        None => "nothing yet".into(),
        Some(seconds) if seconds >= SILENT_S || !up => format!("nothing for {}", words::time(Duration::from_secs(seconds))),
        Some(_) => words::bit_rate(bit_rate),
    }
}

fn so_far(source: &SourceAnswer) -> String {
    if source.state == SourceState::OnDemand { String::new() } else { counts(source.packets, source.left_out, source.restarts) }
}

fn counts(packets: u64, left_out: u64, restarts: u64) -> String {
    let mut text = words::count(packets, "packet", "packets");
    if left_out > 0 {
        text.push_str(&format!(", {left_out} left out"));
    }
    if restarts > 0 {
        text.push_str(&format!(", failed {}", words::count(restarts, "time", "times")));
    }
    text
}

/// `GET /sources/disconnect?point=NAME`: whether it is meant.
pub(in crate::console) async fn ask(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let name = query.raw("point");
    let Some(source) = calls::sources(&console.plane).into_iter().find(|source| source.point == name) else {
        return Refused::new(StatusCode::NOT_FOUND, "There is no such publishing point.").shown(Some(&visitor));
    };
    let question = Question {
        place: "/sources",
        title: &format!("Disconnect the source of {}?", source.point),
        outcome: OUTCOME,
        facts: &[
            ("Publishing point", source.point.clone()),
            ("Viewers", source.watchers.to_string()),
            ("Comes in", comes_in(&source)),
            ("Source", source.source.clone()),
        ],
        action: "/sources/disconnect",
        field: Some(("point", &source.point)),
        button: "Disconnect it",
    };
    question.page(&visitor)
}

/// `POST /sources/disconnect`
pub(in crate::console) async fn disconnect(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Extension(form): Extension<Form>,
) -> Response {
    match calls::disconnect_source(&console.plane, form.raw("point"), &visitor.caller.user) {
        Ok(()) => see_other("/sources?done=disconnected"),
        Err(failure) => Refused::from(failure).shown(Some(&visitor)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_source_is() {
        let source = |up, silent_s| SourceAnswer {
            point: "cam".into(),
            state: if up { SourceState::Live } else { SourceState::WaitingForPublisher },
            source: "push".into(),
            up,
            on_fallback: false,
            on_fallback_s: None,
            watchers: 0,
            bit_rate: 400_000,
            packets: 1,
            left_out: 2,
            restarts: 3,
            silent_s,
            last_failure: None,
            names: Vec::new(),
        };
        let told = |up, silent_s| comes_in(&source(up, silent_s));
        assert_eq!(
            [told(true, Some(0)), told(true, Some(10)), told(false, Some(70))],
            ["400 kbit/s", "nothing for 10 s", "nothing for 1 min 10 s"]
        );
        assert_eq!(
            (told(false, None), so_far(&source(true, None))),
            ("nothing yet".into(), "1 packet, 2 left out, failed 3 times".into())
        );
    }
}
