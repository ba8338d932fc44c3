//! The API of the control port and of the Unix socket: HTTP/1.1 and JSON, described by `/openapi.json`.

mod answer;
mod caller;
mod drain;
mod events;
mod firewall;
mod learned;
mod leases;
mod log_level;
mod points;
mod probe;
mod reload;
mod sign_in;
mod sources;
mod status;
mod viewers;
mod viewing;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use caller::Peer;
pub(super) use caller::{Face, Here};

/// What calls tell and do, for pages that tell and do the same.
pub(crate) mod calls {
    pub(crate) use super::answer::Failure;
    pub(crate) use super::firewall::{RTSP_PORTS_MAX, SERVERS_MAX, VIEWERS_MAX};
    pub(crate) use super::leases::{LeaseAnswer, survey as leases};
    pub(crate) use super::points::{PointAnswer, PointKind, StreamAnswer, answer as point};
    pub(crate) use super::sign_in::sign_in_from;
    pub(crate) use super::sources::{OpenName, SourceAnswer, SourceFailure, SourceState, disconnect_source, survey as sources};
    pub(crate) use super::status::survey as status;
    pub(crate) use super::viewers::kick_session;
}

use super::plane::Plane;
use answer::Failure;

/// Bytes of a request's body: names, passwords, short orders.
const BODY_MAX: usize = 64 << 10;

/// What is told of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "wmrelay",
        description = "The control plane of a streaming relay. Sign in at `/v1/sign-in`, then send the token as `Authorization: Bearer TOKEN`. \
                       The Unix socket asks for no token: whoever may open it is an operator. Every failure has a body of the same form."
    ),
    modifiers(&Tokens)
)]
struct Described;

/// The one way to show who asks.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// All calls.
pub(super) fn router(plane: Arc<Plane>) -> Router {
    let (router, openapi) = described();
    // Anybody may ask, as often as they like: it is written once.
    let openapi = Bytes::from(openapi.to_json().unwrap_or_default());
    let as_json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    router
        .route("/openapi.json", get(move || async move { (as_json, openapi) }))
        .fallback(async || Failure::new(StatusCode::NOT_FOUND, "not_found", "there is no such call; see /openapi.json"))
        .method_not_allowed_fallback(async || {
            let why = "this call knows other methods; see /openapi.json";
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why)
        })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(map_response(private))
        .with_state(plane)
}

/// Answers hold tokens and who watches what: nobody keeps them on the way, and no browser takes them for what they are not.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn described() -> (Router<Arc<Plane>>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(sign_in::sign_in))
        .routes(routes!(sign_in::sign_out))
        .routes(routes!(sign_in::me))
        .routes(routes!(points::points))
        .routes(routes!(sources::sources))
        .routes(routes!(sources::disconnect))
        .routes(routes!(log_level::log_level, log_level::set_log_level))
        .routes(routes!(status::status))
        .routes(routes!(reload::reload))
        .routes(routes!(drain::drain, drain::cancel))
        .routes(routes!(viewers::viewers))
        .routes(routes!(viewers::viewer, viewers::kick))
        .routes(routes!(leases::leases))
        .routes(routes!(learned::learned, learned::reset_all))
        .routes(routes!(learned::reset))
        .routes(routes!(viewing::open, viewing::list))
        .routes(routes!(viewing::give_back))
        .routes(routes!(events::events))
        .routes(routes!(firewall::firewall))
        .routes(routes!(probe::begin, probe::reports))
        .routes(routes!(probe::heard))
        .routes(routes!(probe::challenge))
        .routes(routes!(probe::report))
        .split_for_parts()
}
