//! The web console: pages for people, made where the daemon runs, with nothing that a browser would have to fetch elsewhere.
//!
//! It knows what the control plane knows and does what that does, by its very functions. Pages are whole without a script; the
//! script fetches them again from time to time and puts the parts in place that live. `maud` writes them: checked when the daemon is
//! compiled, and every value is escaped unless the page itself is written so.

mod chart;
mod form;
mod guard;
mod layout;
mod pages;
mod paging;
mod question;
mod still;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::control::Plane;
use crate::control::accounts::Role;
use crate::shard::Certificate;
use guard::{FormKey, guard};
use pages::{firewall, load, ports, probe, sign_in, sources, streams, users, viewers};
use still::Stills;

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

/// What all pages share.
struct Console {
    plane: Arc<Plane>,
    /// What the control port shows; `None`: it is not inside TLS, or there is none.
    control_certificate: Option<Arc<Certificate>>,
    stills: Arc<Stills>,
    form_key: FormKey,
}

/// All pages, to be served inside TLS with the [`Peer`](crate::control::Peer) of each connection. The certificate is that of the control
/// port, where that is inside TLS.
///
/// # Errors
/// The system has no random numbers.
pub fn router(plane: Arc<Plane>, control_certificate: Option<Arc<Certificate>>) -> Result<Router, getrandom::Error> {
    let stills = Stills::new(&plane.settings.transcode.ffmpeg);
    let console = Arc::new(Console { plane, control_certificate, stills, form_key: FormKey::new()? });
    let of =
        |least: Role, routes: Router<Arc<Console>>| routes.route_layer(from_fn_with_state((Arc::clone(&console), least), guard));
    let for_viewers = Router::new()
        .route("/", get(streams::streams))
        .route("/still", get(streams::still))
        .route("/sign-out", post(sign_in::sign_out));
    let for_publishers = Router::new().route("/sources", get(sources::sources));
    let for_operators = Router::new()
        .route("/sources/disconnect", get(sources::ask).post(sources::disconnect))
        .route("/viewers", get(viewers::viewers))
        .route("/viewers/{session}", get(viewers::viewer))
        .route("/viewers/{session}/kick", get(viewers::ask).post(viewers::kick))
        .route("/load", get(load::load))
        .route("/leases", get(ports::ports))
        .route("/firewall", get(firewall::firewall))
        .route("/probe", get(probe::probe))
        .route("/users", get(users::users))
        .route("/users/sign-out", post(users::sign_out));
    let router = Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/assets/console.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/console.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/assets/icon.svg", get(async || asset("image/svg+xml", ICON)))
        .merge(of(Role::Viewer, for_viewers))
        .merge(of(Role::Publisher, for_publishers))
        .merge(of(Role::Operator, for_operators))
        .fallback(layout::not_found)
        .method_not_allowed_fallback(layout::not_that_way)
        .layer(from_fn(layout::secured));
    Ok(router.with_state(console))
}

/// They hold nothing of anybody's; a new version has new addresses.
fn asset(kind: &'static str, text: &'static str) -> impl axum::response::IntoResponse {
    let fields = [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static("max-age=3600"))];
    (fields, text)
}
