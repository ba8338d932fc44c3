//! Who asks, whether that is enough, and whether a form is one of ours.
//!
//! What shows that somebody has signed in is the token that the control port gives too, in a cookie that no script and no other site
//! gets to see. A form carries a second one that is made of it, so that no other site can send a form that counts; beside that the
//! browser says which site sent it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::Console;
use super::form::Form;
use super::layout::{Refused, see_other};
use crate::control::accounts::Role;
use crate::control::{Caller, Peer};
use crate::text::percent_encode;

/// Holds the token of somebody who has signed in. `__Host-` binds it to this very host, whole and inside TLS.
pub(super) const SESSION: &str = "__Host-wmrelay";
/// Holds a random text for those who have not: their one form is bound to it.
pub(super) const BEFORE: &str = "__Host-wmrelay-sign-in";
/// No page, but a part of one.
const STILL: &str = "/still";
/// The field of a form that shows that it is ours.
pub(super) const FORM_TOKEN: &str = "form_token";
/// Longer values are none of ours.
const COOKIE_MAX: usize = 128;
/// Longer paths are not gone back to.
const NEXT_MAX: usize = 512;

/// Somebody who has signed in and may see the page.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Name and role.
    pub(super) caller: Caller,
    /// What their cookie holds.
    pub(super) token: String,
    /// For the forms of their pages.
    pub(super) form_token: String,
}

impl Visitor {
    /// Whether they may do what this role may.
    pub(super) fn is(&self, role: Role) -> bool {
        self.caller.role >= role
    }
}

/// Makes and knows the tokens of forms.
pub(super) struct FormKey([u8; 32]);

impl FormKey {
    /// A new one; forms that were open before are to be opened again.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// The token of the forms of whoever has this cookie.
    pub(super) fn token(&self, cookie: &str) -> String {
        let digest = self.mac(cookie).map(|mac| mac.finalize().into_bytes());
        digest.map(|digest| BASE64_URL_SAFE_NO_PAD.encode(digest)).unwrap_or_default()
    }

    /// Whether a form of theirs shows it; takes as long whatever is wrong with it.
    pub(super) fn knows(&self, cookie: &str, token: &str) -> bool {
        let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(token) else { return false };
        self.mac(cookie).is_some_and(|mac| mac.verify_slice(&bytes).is_ok())
    }

    fn mac(&self, cookie: &str) -> Option<Hmac<Sha256>> {
        // A key of any length is good for an HMAC.
        Hmac::<Sha256>::new_from_slice(&self.0).ok().map(|mac| mac.chain_update(cookie.as_bytes()))
    }
}

/// What is before every page that is not for everybody: lets through who has this role at least, and of what would change
/// something only forms of ours. Behind it a request has its [`Visitor`], and a [`Form`] where it brought one.
pub(super) async fn guard(State((console, least)): State<(Arc<Console>, Role)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(visitor) = visitor(&console, &parts.headers) else {
        if !leads_to_a_page(&parts) {
            return Refused::new(StatusCode::UNAUTHORIZED, "Sign in first.").shown(None);
        }
        // What was to be sent is lost, but a form that is sent twice is worse.
        return see_other(&format!("/sign-in?next={}", percent_encode(&own_path(&parts))));
    };
    if !visitor.is(least) {
        let why =
            format!("This is for the role {least}. You are signed in as {}, a {}.", visitor.caller.user, visitor.caller.role);
        return Refused::new(StatusCode::FORBIDDEN, why).shown(Some(&visitor));
    }
    let mut rest = body;
    if !is_safe(&parts.method) {
        let form = match Form::read(&parts.headers, rest).await {
            Ok(form) => form,
            Err(refused) => return refused.shown(Some(&visitor)),
        };
        if !is_same_site(&parts.headers) || !console.form_key.knows(&visitor.token, form.raw(FORM_TOKEN)) {
            return foreign_form().shown(Some(&visitor));
        }
        parts.extensions.insert(form);
        rest = axum::body::Body::empty();
    }
    parts.extensions.insert(visitor);
    next.run(Request::from_parts(parts, rest)).await
}

/// Who has signed in, if anybody.
pub(super) fn visitor(console: &Console, headers: &HeaderMap) -> Option<Visitor> {
    let token = cookie(headers, SESSION)?;
    let caller = console.plane.caller(now(), token)?;
    Some(Visitor { caller, token: token.to_owned(), form_token: console.form_key.token(token) })
}

pub(super) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// What is told of a form that is not ours, or no longer.
pub(super) fn foreign_form() -> Refused {
    Refused::new(
        StatusCode::FORBIDDEN,
        "This form was not sent by a page of this console, or the daemon was started anew since. Open the page again, and repeat it there.",
    )
}

/// Whether somebody gets to see what is answered: a picture or a script's question is not sent to the form of signing in. Browsers that
/// are too old to say so ask for pages, but for pictures.
fn leads_to_a_page(parts: &Parts) -> bool {
    let said = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let is_page = match said("sec-fetch-dest") {
        None | Some("document") => true,
        Some("empty") => said("sec-fetch-mode").is_none_or(|mode| mode == "navigate"),
        Some(_) => false,
    };
    is_page && parts.uri.path() != STILL
}

const fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a browser says that a page of ours sent it. Where the browser is too old to say so, the form's token alone decides.
pub(super) fn is_same_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    // As our pages let no address of theirs be told, browsers say "null" of them too.
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).filter(|origin| *origin != "null") else {
        return true;
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    origin.strip_prefix("https://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

/// The value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut values = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
    values.find(|value| !value.is_empty() && value.len() <= COOKIE_MAX)
}

/// The words that set a cookie; with no time left it is taken away.
pub(super) fn set_cookie(name: &str, value: &str, life: Duration) -> String {
    format!("{name}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Strict", life.as_secs())
}

/// Where somebody wanted to go; what only a form leads to is its page.
fn own_path(parts: &Parts) -> String {
    let whole = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    if is_safe(&parts.method) { is_own(whole).unwrap_or("/").to_owned() } else { "/".to_owned() }
}

/// A path of ours, as it may be gone to behind the sign-in: nothing that a browser takes for another site.
pub(super) fn is_own(path: &str) -> Option<&str> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (path.len() <= NEXT_MAX && is_plain && path.starts_with('/') && !path.starts_with("//")).then_some(path)
}

/// Where a request came from.
pub(super) fn peer_of(peer: Option<Extension<Peer>>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Extension(Peer(address))| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_own_paths_are_gone_back_to() {
        for good in ["/", "/viewers", "/firewall?viewers=10&side=viewer"] {
            assert_eq!(is_own(good), Some(good));
        }
        for bad in
            ["", "viewers", "//evil.example", "/\\evil.example", "https://evil.example/", "/a b", "/a\r\nSet-Cookie:", "/\u{e9}"]
        {
            assert_eq!(is_own(bad), None, "{bad:?}");
        }
        assert_eq!(is_own(&format!("/{}", "a".repeat(NEXT_MAX))), None);
    }

    #[test]
    fn cookies_are_found_by_their_whole_names() {
        let long = format!("{SESSION}={}", "a".repeat(COOKIE_MAX + 1));
        let found = |value: &str| cookie(&headers(&[("cookie", value)]), SESSION).map(str::to_owned);
        assert_eq!(found("a=b; __Host-wmrelay=token; c=d").as_deref(), Some("token"));
        for none in ["", "a=b", "__Host-wmrelay-sign-in=x", "x__Host-wmrelay=y", "__Host-wmrelay=", &long] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn only_pages_of_ours_send_forms() {
        let host = ("host", "a.example:8443");
        for same in [
            &[host, ("sec-fetch-site", "same-origin"), ("origin", "null")][..],
            &[host, ("origin", "https://a.example:8443")],
            &[host, ("origin", "null")],
            &[host],
        ] {
            assert!(is_same_site(&headers(same)), "{same:?}");
        }
        for foreign in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site"), ("origin", "https://a.example:8443")],
            &[host, ("sec-fetch-site", "none")],
            &[host, ("origin", "https://evil.example")],
            &[host, ("origin", "http://a.example:8443")],
            &[host, ("origin", "https://a.example")],
        ] {
            assert!(!is_same_site(&headers(foreign)), "{foreign:?}");
        }
    }

    #[test]
    fn only_pages_lead_to_the_form_of_signing_in() {
        let leads = |path: &str, fields: &[(&'static str, &str)]| {
            let (mut parts, ()) = axum::http::Request::get(path).body(()).unwrap().into_parts();
            parts.headers = headers(fields);
            leads_to_a_page(&parts)
        };
        assert!(leads("/viewers", &[]) && leads("/viewers", &[("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")]));
        assert!(leads("/viewers", &[("sec-fetch-dest", "empty"), ("sec-fetch-mode", "navigate")]));
        assert!(!leads("/viewers", &[("sec-fetch-dest", "empty"), ("sec-fetch-mode", "cors")]));
        assert!(!leads("/viewers", &[("sec-fetch-dest", "image")]) && !leads("/still?point=a", &[]));
    }

    #[test]
    fn the_token_of_a_form_is_good_for_its_cookie() {
        let (key, other) = (FormKey([1; 32]), FormKey([2; 32]));
        let token = key.token("cookie");
        assert!(key.knows("cookie", &token));
        assert!(!key.knows("cookie2", &token) && !other.knows("cookie", &token) && !key.knows("cookie", ""));
        assert!(!key.knows("cookie", &token[1..]) && !key.knows("cookie", "§"));
    }

    #[test]
    fn cookies_are_for_this_host_alone() {
        let set = set_cookie(SESSION, "token", Duration::from_secs(7));
        assert_eq!(set, "__Host-wmrelay=token; Path=/; Max-Age=7; Secure; HttpOnly; SameSite=Strict");
    }
}
