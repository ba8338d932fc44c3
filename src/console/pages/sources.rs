//! What feeds the publishing points, and how it is.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;
use maud::html;

use super::query;
use crate::console::Console;
use crate::console::form::Form;
use crate::console::guard::Visitor;
use crate::console::layout::{Refused, form_token, id_of, notice, page, see_other};
use crate::console::paging::Paging;
use crate::control::accounts::Role;
use crate::control::calls::{self, SourceAnswer};

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
        p.lead { "A publisher that is disconnected may come again at once; a source of the daemon's own begins anew." }
        div data-live id="sources" {
            table.stack {
                thead { tr {
                    th scope="col" { "Publishing point" } th scope="col" { "State" } th scope="col" { "Viewers" } th scope="col" { "Source" }
                    @if may_act { th scope="col" { span.aside { "What to do" } } }
                } }
                tbody {
                    @for source in paging.of(&sources) {
                        tr id=(id_of("source", &source.point)) {
                            th.long scope="row" { (source.point) }
                            td data-label="State" { (state(source)) }
                            td data-label="Viewers" { (source.watchers) }
                            td data-label="Source" { code { (source.source) } }
                            @if may_act {
                                td {
                                    @if source.up {
                                        form method="post" action="/sources/disconnect" {
                                            (form_token(&visitor))
                                            input type="hidden" name="point" value=(source.point);
                                            button.danger type="submit" id=(id_of("disconnect", &source.point)) {
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
