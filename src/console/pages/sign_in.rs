//! Signing in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::header::{RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use maud::html;

use super::query;
use crate::console::Console;
use crate::console::form::Form;
use crate::console::guard::{
    BEFORE, FORM_TOKEN, SESSION, Visitor, cookie, foreign_form, is_own, is_same_site, peer_of, set_cookie, visitor,
};
use crate::console::layout::{Refused, open_page, see_other, sentence};
use crate::control::{Peer, calls};

/// An open form of signing in is good for so long.
const FORM_LIFE: Duration = Duration::from_secs(3600);
/// Longer names are nobody's.
const NAME_MAX: usize = 64;
/// Seconds after which whoever tried too often may try again: an address that guessed too much has one more guess by then.
const RETRY_S: u16 = 30;
/// Longer passwords neither.
const PASSWORD_MAX: usize = 256;

/// `GET /sign-in`
pub(in crate::console) async fn form(State(console): State<Arc<Console>>, headers: HeaderMap, uri: Uri) -> Response {
    let query = query(&uri);
    let next = is_own(query.get("next")).unwrap_or("/");
    if visitor(&console, &headers).is_some() {
        return see_other(next);
    }
    shown(&console, &headers, StatusCode::OK, next, "", None)
}

/// The form; the cookie that it is bound to is set where there is none.
fn shown(console: &Console, headers: &HeaderMap, status: StatusCode, next: &str, user: &str, why: Option<&str>) -> Response {
    let before = match cookie(headers, BEFORE) {
        Some(before) => before.to_owned(),
        None => {
            let mut random = [0; 16];
            // Without it nobody could be signed in either.
            if getrandom::fill(&mut random).is_err() {
                return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "The system has no random numbers.").shown(None);
            }
            BASE64_URL_SAFE_NO_PAD.encode(random)
        }
    };
    let body = html! {
        @if let Some(why) = why { p.refused role="alert" { (why) } }
        @if !console.plane.has_users() {
            p.note {
                "Nobody may sign in yet. On the machine of the daemon make a user, name the file by " code { "[control] users_file" }
                ", and start the daemon anew:"
            }
            pre { "wmrelay passwd --role operator /etc/wmrelay/operators NAME" }
        }
        form.fields.narrow method="post" action="/sign-in" {
            input type="hidden" name=(FORM_TOKEN) value=(console.form_key.token(&before));
            input type="hidden" name="next" value=(next);
            label { "Name" input name="user" required autocomplete="username" autocapitalize="none" maxlength=(NAME_MAX) value=(user) autofocus; }
            label { "Password" input name="password" type="password" required autocomplete="current-password" maxlength=(PASSWORD_MAX); }
            button type="submit" { "Sign in" }
        }
    };
    let mut response = open_page(status, "Sign in", &body);
    add_cookie(&mut response, &set_cookie(BEFORE, &before, FORM_LIFE));
    response
}

/// `POST /sign-in`
pub(in crate::console) async fn sign_in(
    State(console): State<Arc<Console>>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let form = match Form::read(headers, body).await {
        Ok(form) => form,
        Err(refused) => return refused.shown(None),
    };
    if !is_same_site(headers) {
        return foreign_form().shown(None);
    }
    let next = is_own(form.get("next")).unwrap_or("/");
    let (user, password) = (form.get("user"), form.raw("password"));
    if !cookie(headers, BEFORE).is_some_and(|before| console.form_key.knows(before, form.raw(FORM_TOKEN))) {
        let why = "This form was open for too long, or the daemon was started anew since. Send it once more.";
        let user = if user.len() > NAME_MAX { "" } else { user };
        return shown(&console, headers, StatusCode::FORBIDDEN, next, user, Some(why));
    }
    if user.is_empty() || user.len() > NAME_MAX || password.is_empty() || password.len() > PASSWORD_MAX {
        let why = "Name and password have both to be there, and not longer than any of ours.";
        return shown(&console, headers, StatusCode::BAD_REQUEST, next, "", Some(why));
    }
    match calls::sign_in_from(&console.plane, peer_of(peer), user, password, "console").await {
        Ok((token, _, life)) => {
            // The browser forgets it, and nobody else is to find it good.
            if let Some(before) = cookie(headers, SESSION) {
                console.plane.sign_out(before);
            }
            let mut response = see_other(next);
            add_cookie(&mut response, &set_cookie(SESSION, &token, life));
            add_cookie(&mut response, &set_cookie(BEFORE, "", Duration::ZERO));
            response
        }
        Err(failure) => {
            let mut response = shown(&console, headers, failure.status(), next, user, Some(&sentence(failure.message())));
            if failure.status() == StatusCode::TOO_MANY_REQUESTS {
                response.headers_mut().insert(RETRY_AFTER, RETRY_S.into());
            }
            response
        }
    }
}

/// `POST /sign-out`
pub(in crate::console) async fn sign_out(
    State(console): State<Arc<Console>>,
    Extension(visitor): Extension<Visitor>,
) -> Response {
    console.plane.sign_out(&visitor.token);
    let mut response = see_other("/sign-in");
    add_cookie(&mut response, &set_cookie(SESSION, "", Duration::ZERO));
    response
}

fn add_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(SET_COOKIE, value);
    }
}
