//! What there is to watch, with a still of each, and how it is opened.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use maud::{Markup, html};

use super::query;
use crate::console::Console;
use crate::console::guard::{Visitor, peer_of};
use crate::console::layout::{Refused, id_of, page};
use crate::console::paging::Paging;
use crate::console::still::Still;
use crate::console::words;
use crate::control::Peer;
use crate::control::accounts::Role;
use crate::control::calls::{PointAnswer, PointKind, SourceFailure, SourceState, StreamAnswer, point as survey};
use crate::relay::Point;
use crate::settings::Viewers;
use crate::text::percent_encode;

/// Of a still: `fresh`, `older`, or `none`.
const STILL_AGE: HeaderName = HeaderName::from_static("x-still");
/// What a browser gets where there is no still: a console is no place for broken pictures.
const NO_STILL: &str = include_str!("../assets/no-still.svg");

/// `GET /`
pub(in crate::console) async fn streams(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let plane = &console.plane;
    // One list, so that nobody's facts are told of another one, and of what is not shown nothing is looked up.
    let points = plane.relay.points();
    let paging = Paging::new(points.len(), query(&uri).get("page"));
    let (host, peer) = (host(&headers), peer_of(peer));
    let body = html! {
        @if !console.stills.can_be_made() {
            p.note { "There are no pictures here, for there is no ffmpeg on this machine. Install it, and start the daemon anew." }
        }
        ul.cards data-live id="streams" {
            @for point in paging.of(&points) {
                @let has_still = console.stills.can_be_made() && may_see(&console, &visitor, peer, point);
                (card(&console, &visitor, &host, has_still, point, &survey(plane, point)))
            }
        }
        (paging.links("/"))
    };
    page(&visitor, "/", "Streams", &body)
}

fn card(console: &Console, visitor: &Visitor, host: &str, has_still: bool, point: &Point, answer: &PointAnswer) -> Markup {
    let id = |what: &str| id_of(what, &answer.name);
    let picture = answer.streams.iter().find_map(|stream| stream.width.zip(stream.height));
    let state = match answer.kind {
        PointKind::Stations => ("files", "Stations"),
        _ => words::state(answer.state),
    };
    // Of its address something may be in it.
    let health = visitor.is(Role::Publisher).then(|| point.source_health());
    let now = tokio::time::Instant::now().into_std();
    let failure = health.and_then(|health| health.last_fault).map(|fault| SourceFailure::of(fault, now));
    html! {
        li.card id=(id("stream")) {
            @if let Some((width, height)) = picture.filter(|_| answer.live && has_still) {
                img.still id=(id("still")) src={ "/still?point=" (percent_encode(&answer.name)) } alt={ "The last key frame of " (answer.name) }
                    width=(width) height=(height) loading="lazy" data-refresh;
            } @else {
                div.still.none aria-hidden="true" { span { @if !answer.live { "no picture" } @else if picture.is_some() { "video" } @else { "sound" } } }
            }
            div.facts {
                h2 { (answer.title.as_deref().unwrap_or(&answer.name)) }
                p {
                    span class={ "state " (state.0) } { (state.1) }
                    @if answer.title.is_some() { " " code { (answer.name) } }
                    @if visitor.is(Role::Publisher) && matches!(answer.kind, PointKind::Broadcast) {
                        " " span { (words::count(point.watchers(), "viewer", "viewers")) }
                    }
                    @if answer.live && answer.bit_rate > 0 { " · " (words::bit_rate(answer.bit_rate.into())) }
                }
                @if let Some(failure) = failure.filter(|_| answer.state != SourceState::Live) { p.small { (words::failure(&failure)) } }
                @if !answer.streams.is_empty() { p.small { (described(&answer.streams)) } }
            }
            @if !matches!(answer.kind, PointKind::Template | PointKind::Stations) {
                details id=(id("ways")) {
                    summary id=(id("how")) { "How to open it" }
                    (asked_for(point.settings().access.viewers))
                    ul.addresses {
                        @for (index, url) in addresses(console, host, point, answer).iter().enumerate() {
                            li { a id={ (id("way")) "-" (index) } href=(url) { code { (url) } } }
                        }
                    }
                }
            }
        }
    }
}

/// What viewers have to show, where the addresses alone open nothing.
fn asked_for(viewers: Viewers) -> Markup {
    html! {
        @match viewers {
            Viewers::All => {},
            Viewers::Users => p.small {
                "A name and a password are asked for. Players that know none, as most over MMS, are refused; a viewing session of the "
                "control port gives them addresses that open it."
            },
            Viewers::Signed => p.small {
                "These addresses alone are refused: each needs a key behind it, which " code { "wmrelay sign" }
                " makes, or the ticket of a viewing session of the control port."
            },
        }
    }
}

fn described(streams: &[StreamAnswer]) -> String {
    let one = |stream: &StreamAnswer| {
        let size = stream.width.zip(stream.height).map(|(width, height)| format!(" {width}×{height}")).unwrap_or_default();
        let codec = stream.codec.as_deref().map(|codec| format!(" {}", words::codec(codec))).unwrap_or_default();
        format!("{}{codec}{size}", stream.kind)
    };
    streams.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Where players find it, the most usual first.
fn addresses(console: &Console, host: &str, point: &Point, answer: &PointAnswer) -> Vec<String> {
    let name = percent_encode(&answer.name);
    let name = if point.settings().source.is_folder() { format!("{}/FILE", name.trim_end_matches('/')) } else { name };
    let listeners = &console.plane.listeners;
    let url = |scheme: &str, listener: &str, usual: u16, ending: &str| {
        let port = listeners.get(listener)?.first().map(SocketAddr::port)?;
        let port = if port == usual { String::new() } else { format!(":{port}") };
        Some(format!("{scheme}://{host}{port}/{name}{ending}"))
    };
    let all =
        [url("mms", "mms", 1755, ""), url("rtsp", "rtsp", 554, ""), url("http", "http", 80, ""), url("http", "http", 80, ".asx")];
    all.into_iter().flatten().collect()
}

/// The name by which the browser found us, without its port.
pub(super) fn host(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => host.get(..colon).unwrap_or_default(),
        _ => host,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) { "HOST".to_owned() } else { name.to_owned() }
}

/// Whether somebody may see pictures of it from where they are: operators, and those who may watch it.
fn may_see(console: &Console, visitor: &Visitor, peer: IpAddr, point: &Point) -> bool {
    let may_watch = || console.plane.relay.admission().may_watch(peer) && point.settings().access.may_watch(peer);
    visitor.is(Role::Operator) || may_watch()
}

/// `GET /still?point=NAME`, of a publishing point of the settings: what there is at once. The script reads from the head whether to
/// ask again soon.
pub(in crate::console) async fn still(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
    peer: Option<Extension<Peer>>,
    uri: Uri,
) -> Response {
    let query = query(&uri);
    let name = query.raw("point");
    let Some(point) = console.plane.relay.points().into_iter().find(|point| point.name() == name) else {
        return Refused::new(StatusCode::NOT_FOUND, "There is no such publishing point.").shown(Some(&visitor));
    };
    if !may_see(&console, &visitor, peer_of(peer), &point) {
        let why = "The access rules do not let you watch this from where you are.";
        return Refused::new(StatusCode::FORBIDDEN, why).shown(Some(&visitor));
    }
    let (age, kind, picture) = match console.stills.of(&point) {
        Still::Fresh(jpeg) => ("fresh", "image/jpeg", jpeg),
        Still::Older(jpeg) => ("older", "image/jpeg", jpeg),
        Still::None => ("none", "image/svg+xml", Bytes::from_static(NO_STILL.as_bytes())),
    };
    let fields = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (STILL_AGE, HeaderValue::from_static(age))];
    (fields, picture).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_needs_more_than_an_address_is_told() {
        let told = |viewers| asked_for(viewers).into_string();
        assert_eq!(told(Viewers::All), "");
        assert!(told(Viewers::Users).contains("a password") && told(Viewers::Users).contains("viewing session"));
        assert!(told(Viewers::Signed).contains("wmrelay sign") && told(Viewers::Signed).contains("viewing session"));
    }

    #[test]
    fn the_host_is_what_the_browser_says() {
        let of = |text: &str| host(&[(HOST, text.parse().unwrap())].into_iter().collect());
        let hosts = ["media.example:8443", "192.0.2.1", "[2001:db8::1]:443", "[2001:db8::1]", "a\"b:1", ""].map(of);
        assert_eq!(hosts, ["media.example", "192.0.2.1", "[2001:db8::1]", "[2001:db8::1]", "HOST", "HOST"]);
    }
}
