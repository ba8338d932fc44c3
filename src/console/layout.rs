//! What all pages have: their frame, their headers, and those that say what did not work.

use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use maud::{DOCTYPE, Markup, html};
use sha2::{Digest as _, Sha256};

use super::guard::{FORM_TOKEN, Visitor};
use crate::control::accounts::Role;
use crate::control::calls::Failure;

/// What a page may load: our own style, script and pictures. Nothing from elsewhere, nothing inline, no frames around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// No Strict-Transport-Security: the certificate is mostly one that the daemon made itself, often for an address. With it browsers
/// would let nobody past their warning once they have seen it, for all that this host serves; who has a certificate of an authority
/// can have it said by what stands in front.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The pages of the bar at the top: path, name, and who sees them.
const PLACES: [(&str, &str, Role); 8] = [
    ("/", "Streams", Role::Viewer),
    ("/sources", "Sources", Role::Publisher),
    ("/viewers", "Viewers", Role::Operator),
    ("/load", "Load", Role::Operator),
    ("/leases", "Ports", Role::Operator),
    ("/firewall", "Firewall", Role::Operator),
    ("/probe", "Probe", Role::Operator),
    ("/users", "Users", Role::Operator),
];

/// The version makes a new daemon's files new ones to browsers that keep them.
const STYLE: &str = concat!("/assets/console.css?v=", env!("CARGO_PKG_VERSION"));
const SCRIPT: &str = concat!("/assets/console.js?v=", env!("CARGO_PKG_VERSION"));
const ICON: &str = concat!("/assets/icon.svg?v=", env!("CARGO_PKG_VERSION"));

/// A page for somebody who has signed in; `place` is its path in the bar.
pub(super) fn page(visitor: &Visitor, place: &str, title: &str, body: &Markup) -> Response {
    Html(framed(Some(visitor), place, title, body).into_string()).into_response()
}

/// A page for anybody.
pub(super) fn open_page(status: StatusCode, title: &str, body: &Markup) -> Response {
    (status, Html(framed(None, "", title, body).into_string())).into_response()
}

fn framed(visitor: Option<&Visitor>, place: &str, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · wmrelay" }
                link rel="stylesheet" href=(STYLE);
                link rel="icon" type="image/svg+xml" href=(ICON);
                script src=(SCRIPT) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header.bar {
                    a.brand href="/" { img src=(ICON) alt="" width="24" height="24"; "wmrelay" }
                    @if let Some(visitor) = visitor {
                        nav aria-label="Pages" {
                            @for (path, name, least) in PLACES {
                                @if visitor.is(least) {
                                    a href=(path) aria-current=[(path == place).then_some("page")] { (name) }
                                }
                            }
                        }
                        form.who method="post" action="/sign-out" {
                            (form_token(visitor))
                            span { (visitor.caller.user) " " span.role { (visitor.caller.role) } }
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                main #main { h1 { (title) } (body) }
                footer { "wmrelay " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// What every form that changes something carries.
pub(super) fn form_token(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(visitor.form_token); }
}

/// What was done, by the word that the page's address says it with; any other word says nothing.
pub(super) fn notice(done: &str) -> Markup {
    let text = match done {
        "kicked" => "The session is ended.",
        "disconnected" => "The source is told to go.",
        "signed-out" => "That user is signed out everywhere.",
        _ => return html! {},
    };
    html! { p.notice role="status" { (text) } }
}

/// The id of what a page shows of something that has a name: names hold what ids do not, and places in lists are others' later.
pub(super) fn id_of(what: &str, name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    format!("{what}-{}", BASE64_URL_SAFE_NO_PAD.encode(digest.get(..12).unwrap_or_default()))
}

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    /// As a page, with the bar of those who have signed in.
    pub(super) fn shown(self, visitor: Option<&Visitor>) -> Response {
        let title = match self.status {
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::METHOD_NOT_ALLOWED => "Not done that way",
            StatusCode::TOO_MANY_REQUESTS => "Not now",
            _ => "That did not work",
        };
        let body = html! { p.refused { (self.why) } p { a href="/" { "To the start" } } };
        (self.status, Html(framed(visitor, "", title, &body).into_string())).into_response()
    }
}

/// There is no such page.
pub(super) async fn not_found() -> Response {
    Refused::new(StatusCode::NOT_FOUND, "There is no such page.").shown(None)
}

/// There is one, but not for this.
pub(super) async fn not_that_way() -> Response {
    let mut response = Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "This address is there, but not for that: it is a page to look at, or the end of a form.",
    )
    .shown(None);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    response
}

/// Go there, with GET.
pub(super) fn see_other(path: &str) -> Response {
    match HeaderValue::from_str(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response(),
        Err(_) => (StatusCode::SEE_OTHER, [(LOCATION, HeaderValue::from_static("/"))]).into_response(),
    }
}

/// Adds what every answer says to browsers; who knows better when it is to be kept has said so already.
pub(super) async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::new(failure.status(), sentence(failure.message()))
    }
}

/// The API's words begin small and end without a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
