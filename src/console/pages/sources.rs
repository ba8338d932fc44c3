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
use crate::control::calls::{self, SourceAnswer};
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
                            td data-label="Source" { code { (source.source) } }
                            @if may_act {
                                td.act {
                                    @if source.up {
                                        a.danger href={ "/sources/disconnect?point=" (percent_encode(&source.point)) } id=(id_of("disconnect", &source.point)) {
                                            "Disconnect" span.aside { " " (source.point) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        (paging.links("/sources"))
    };
    page(&visitor, "/sources", "Sources", &body)
}

fn state(source: &SourceAnswer) -> maud::Markup {
    let (class, text) = match (source.up, source.on_fallback) {
        (_, true) => ("waits", "Something stands in"),
        (true, false) => ("live", "Sends"),
        (false, false) => ("off", "Silent"),
    };
    html! { span class={ "state " (class) } { (text) } }
}

/// What it sends now, or for how long it has sent nothing.
fn comes_in(source: &SourceAnswer) -> String {
    match source.silent_s {
        None => "nothing yet".into(),
        Some(seconds) if seconds >= SILENT_S || !source.up => {
            format!("nothing for {}", words::time(Duration::from_secs(seconds)))
        }
        Some(_) => words::bit_rate(source.bit_rate),
    }
}

fn so_far(source: &SourceAnswer) -> String {
    let SourceAnswer { packets, left_out, restarts, .. } = source;
    let mut text = words::count(*packets, "packet", "packets");
    if *left_out > 0 {
        text.push_str(&format!(", {left_out} left out"));
    }
    if *restarts > 0 {
        text.push_str(&format!(", begun anew {}", words::count(*restarts, "time", "times")));
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
            source: "push".into(),
            up,
            on_fallback: false,
            watchers: 0,
            bit_rate: 400_000,
            packets: 1,
            left_out: 2,
            restarts: 3,
            silent_s,
        };
        let told = |up, silent_s| comes_in(&source(up, silent_s));
        assert_eq!(
            [told(true, Some(0)), told(true, Some(10)), told(false, Some(70))],
            ["400 kbit/s", "nothing for 10 s", "nothing for 1 min 10 s"]
        );
        assert_eq!(
            (told(false, None), so_far(&source(true, None))),
            ("nothing yet".into(), "1 packet, 2 left out, begun anew 3 times".into())
        );
    }
}
