//! Who watches, what happened to them, and how they are sent away.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::query;
use crate::console::Console;
use crate::console::guard::Visitor;
use crate::console::layout::{Refused, notice, page, see_other};
use crate::console::paging::Paging;
use crate::console::question::Question;
use crate::console::words;
use crate::control::calls;
use crate::shard::{SessionFacts, SessionStory};

/// Sessions that ended, the latest.
const ENDED_SHOWN: usize = 20;

/// `GET /viewers`
pub(in crate::console) async fn viewers(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let sessions = console.plane.recent_sessions().await;
    let ended = console.plane.roster.ended(ENDED_SHOWN);
    let paging = Paging::new(sessions.len(), query.get("page"));
    let body = html! {
        (notice(query.get("done")))
        div data-live id="sessions" {
            @if sessions.is_empty() { p.empty { "Nobody watches." } } @else { (table(paging.of(&sessions))) }
        }
        (paging.links("/viewers"))
        h2 { "Ended lately" }
        div data-live id="ended" { @if ended.is_empty() { p.empty { "None yet." } } @else { (ended_table(&ended)) } }
    };
    page(&visitor, "/viewers", "Viewers", &body)
}

fn table(sessions: &[SessionFacts]) -> Markup {
    html! {
        table.stack {
            thead { tr {
                th scope="col" { "Session" } th scope="col" { "Viewer" } th scope="col" { "Stream" } th scope="col" { "By" }
                th scope="col" { "For" } th scope="col" { "Sent" } th scope="col" { "Sent again" } th scope="col" { "Player" }
                th scope="col" { span.aside { "What to do" } }
            } }
            tbody {
                @for facts in sessions {
                    tr id={ "session-" (facts.session) } {
                        th scope="row" data-label="Session" { a id={ "to-session-" (facts.session) } href={ "/viewers/" (facts.session) } { (facts.session) } }
                        td.short data-label="Viewer" { (facts.peer.ip()) }
                        td.long data-label="Stream" { (what(facts)) }
                        td.short data-label="By" { (facts.protocol) "/" (facts.transport) }
                        td.short data-label="For" { (words::time(facts.lasts)) }
                        td.short data-label="Sent" { (facts.packets) " packets" }
                        td data-label="Sent again" { (facts.resends_granted) " of " (facts.resends_asked) }
                        td.long data-label="Player" { (facts.player) }
                        td.act { (kick_link(facts.session)) }
                    }
                }
            }
        }
    }
}

fn ended_table(ended: &[(SystemTime, SessionFacts)]) -> Markup {
    html! {
        table.stack {
            thead { tr {
                th scope="col" { "Session" } th scope="col" { "Viewer" } th scope="col" { "Stream" } th scope="col" { "Ended" }
                th scope="col" { "Why" }
            } }
            tbody {
                @for (at, facts) in ended {
                    tr id={ "ended-" (facts.session) } {
                        th scope="row" data-label="Session" { a id={ "to-ended-" (facts.session) } href={ "/viewers/" (facts.session) } { (facts.session) } }
                        td.short data-label="Viewer" { (facts.peer.ip()) }
                        td.long data-label="Stream" { (what(facts)) }
                        td data-label="Ended" { (words::date(*at)) }
                        td data-label="Why" { (facts.end.as_deref().unwrap_or("unknown")) }
                    }
                }
            }
        }
    }
}

fn what(facts: &SessionFacts) -> &str {
    let names = [facts.name.as_deref(), facts.point.as_deref()];
    names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("nothing yet")
}

fn kick_link(session: u64) -> Markup {
    html! {
        a.danger href={ "/viewers/" (session) "/kick" } id={ "kick-" (session) } { "End" span.aside { " session " (session) } }
    }
}

/// `GET /viewers/{session}`
pub(in crate::console) async fn viewer(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path(session): Path<String>,
) -> Response {
    let story = match number(&session) {
        Some(number) => console.plane.roster.story(number).await,
        None => None,
    };
    match story {
        Some(story) => page(&visitor, "/viewers", &format!("Session {}", story.facts.session), &told(&story)),
        None => no_session().shown(Some(&visitor)),
    }
}

fn told(story: &SessionStory) -> Markup {
    let facts = &story.facts;
    let ports: Vec<_> = facts.client_ports.iter().map(ToString::to_string).collect();
    let rows = [
        ("Viewer", facts.peer.to_string()),
        ("Connected to", facts.local.to_string()),
        ("Stream", what(facts).to_owned()),
        ("By", format!("{}/{}", facts.protocol, facts.transport)),
        ("Player", facts.player.clone()),
        ("For", words::time(facts.lasts)),
        ("UDP ports", if ports.is_empty() { "none".into() } else { ports.join(", ") }),
        ("Sent", format!("{} packets, {}", facts.packets, words::bytes(facts.bytes))),
        ("Left out, for it was slow", facts.skipped.to_string()),
        ("Sent again", format!("{} of {} asked for", facts.resends_granted, facts.resends_asked)),
        ("Says of itself", if facts.report.is_empty() { "nothing".into() } else { facts.report.clone() }),
    ];
    html! {
        div data-live id="story" {
            @match (story.ended, facts.end.as_deref()) {
                (Some(at), why) => p { span.state.off { "Ended" } " " (words::date(at)) ": " (why.unwrap_or("unknown")) },
                (None, _) => div.standing {
                    span.state.live { @if facts.plays { "Plays" } @else { "Connected" } }
                    (kick_link(facts.session))
                },
            }
            dl.facts-list { @for (name, value) in &rows { div { dt { (name) } dd { (value) } } } }
            h2 { "What happened" }
            ol.steps {
                @for step in &story.steps {
                    li { span.after { (after(step.after)) } span { (step.text) } }
                }
            }
        }
        p { a href="/viewers" { "All viewers" } }
    }
}

/// `0.42 s`
fn after(time: std::time::Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn no_session() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "There is no such session, or it ended too long ago.")
}

/// `GET /viewers/{session}/kick`: whether it is meant.
pub(in crate::console) async fn ask(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path(session): Path<String>,
) -> Response {
    let story = match number(&session) {
        Some(number) => console.plane.roster.story(number).await,
        None => None,
    };
    let Some(SessionStory { facts, ended, .. }) = story else { return no_session().shown(Some(&visitor)) };
    if ended.is_some() {
        // Its page says why.
        return see_other(&format!("/viewers/{}", facts.session));
    }
    let question = Question {
        place: "/viewers",
        title: &format!("End session {}?", facts.session),
        outcome: "The viewer is sent away at once, and may come again.",
        facts: &[
            ("Viewer", facts.peer.ip().to_string()),
            ("Stream", what(&facts).to_owned()),
            ("Player", facts.player.clone()),
            ("For", words::time(facts.lasts)),
        ],
        action: &format!("/viewers/{}/kick", facts.session),
        field: None,
        button: "End the session",
    };
    question.page(&visitor)
}

/// `POST /viewers/{session}/kick`
pub(in crate::console) async fn kick(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    Path(session): Path<String>,
) -> Response {
    let Some(number) = number(&session) else { return no_session().shown(Some(&visitor)) };
    match calls::kick_session(&console.plane, number, &visitor.caller.user).await {
        Ok(()) => see_other("/viewers?done=kicked"),
        Err(failure) => Refused::from(failure).shown(Some(&visitor)),
    }
}
