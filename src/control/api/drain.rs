//! No new viewers, so that the daemon can be taken away.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody};
use super::caller::Operator;
use crate::control::drain::{CancelRefusal, DrainState, DrainWish, Newcomers};
use crate::control::plane::Plane;
use crate::settings::{DRAIN_TIMEOUT_S_MAX, ElsewhereError};

/// Bytes of an address.
const REDIRECT_MAX: usize = 1024;

/// How to drain.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// Where new viewers are sent, such as `mms://other.example:8080`: the name is appended, the scheme is that of each viewer's protocol.
    /// Empty: they are refused. Not said: as before; as `[drain] redirect` of the settings has it where it does not drain yet.
    #[schema(max_length = 1024)]
    redirect: Option<String>,
    /// Seconds that those who watch may go on from now. Not said: as long as before; where it does not drain yet, those of
    /// `[drain] timeout_s`, and where that is 0 until they leave by themselves.
    #[schema(maximum = 86400)]
    timeout_s: Option<u32>,
    /// The daemon ends when nobody watches any more, or the time is over; else it goes on without viewers. Not said: as before; where it
    /// does not drain yet, it goes on. One that was told to end by a signal does in any case.
    exit: Option<bool>,
}

/// A drain that is carried out.
#[derive(Serialize, ToSchema)]
pub(super) struct Draining {
    /// Where new viewers are sent; none: they are refused.
    redirect: Option<String>,
    /// Since it began.
    lasts_s: u64,
    /// Until those who still watch are ended; none: they are not.
    left_s: Option<u64>,
    /// The daemon ends behind it.
    exit: bool,
    /// Nobody watches any more, or the time is over.
    over: bool,
}

impl Draining {
    pub(super) fn of(state: &DrainState) -> Self {
        Self {
            redirect: state.redirect.as_ref().map(ToString::to_string),
            lasts_s: state.lasts.as_secs(),
            // Up: 0 is over.
            left_s: state.left.map(|left| left.as_secs() + u64::from(left.subsec_nanos() > 0)),
            exit: state.exit,
            over: state.over,
        }
    }
}

/// Take no new viewers: send them elsewhere, or refuse them, and let those who watch finish. Called again it changes what it says, and no
/// more.
#[utoipa::path(
    post, path = "/v1/drain", tag = "operation", security(("token" = [])),
    request_body = Drain,
    responses(
        (status = 200, description = "It drains", body = Draining),
        (status = 400, description = "No such JSON, no such address, or too long a time", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 409, description = "The daemon ends already", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
    )
)]
pub(super) async fn drain(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    Body(Drain { redirect, timeout_s, exit }): Body<Drain>,
) -> Result<Json<Draining>, Failure> {
    let bad = |error, why| Failure::new(StatusCode::BAD_REQUEST, error, why);
    let newcomers = match redirect {
        None => None,
        Some(text) if text.is_empty() => Some(Newcomers::Refused),
        Some(text) if text.len() > REDIRECT_MAX => {
            return Err(bad("bad_redirect", format!("an address has at most {REDIRECT_MAX} bytes")));
        }
        Some(text) => {
            let elsewhere = text.parse().map_err(|error: ElsewhereError| bad("bad_redirect", error.to_string()))?;
            Some(Newcomers::SentTo(elsewhere))
        }
    };
    if let Some((redirect, listener)) = plane.leads_back(newcomers.as_ref()) {
        let why = format!("{redirect} leads back to this daemon, which listens on {listener}; name another server");
        return Err(bad("bad_redirect", why));
    }
    if timeout_s.is_some_and(|seconds| seconds > DRAIN_TIMEOUT_S_MAX) {
        return Err(bad("bad_timeout", format!("timeout_s is not between 0 and {DRAIN_TIMEOUT_S_MAX} seconds")));
    }
    let timeout = timeout_s.map(|seconds| Duration::from_secs(seconds.into()));
    if plane.health.stopping() {
        return Err(Failure::new(StatusCode::CONFLICT, "stopping", "the daemon ends already"));
    }
    let state = plane.begin_drain(tokio::time::Instant::now().into_std(), DrainWish { newcomers, timeout, exit });
    let state = Draining::of(&state);
    let to = state.redirect.as_deref().unwrap_or("nowhere");
    tracing::warn!(to, left_s = state.left_s, exit = state.exit, by = caller.user, "an operator lets it drain: no new viewers");
    Ok(Json(state))
}

/// Take new viewers again.
#[utoipa::path(
    delete, path = "/v1/drain", tag = "operation", security(("token" = [])),
    responses(
        (status = 204, description = "New viewers are taken"),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 404, description = "It does not drain", body = FailureBody),
        (status = 409, description = "The daemon ends already, or was told to end when the drain is over", body = FailureBody),
    )
)]
pub(super) async fn cancel(State(plane): State<Arc<Plane>>, Operator(caller): Operator) -> Result<StatusCode, Failure> {
    if plane.health.stopping() {
        return Err(Failure::new(StatusCode::CONFLICT, "stopping", "the daemon ends already"));
    }
    plane.cancel_drain().map_err(|refusal| match refusal {
        CancelRefusal::NoDrain => Failure::none("the daemon does not drain"),
        CancelRefusal::Ends => {
            let why = "the daemon was told to end, and ends when those who watch have left or their time is over";
            Failure::new(StatusCode::CONFLICT, "stopping", why)
        }
    })?;
    tracing::warn!(by = caller.user, "an operator ends the drain: new viewers are taken again");
    Ok(StatusCode::NO_CONTENT)
}
