//! Addresses at which UDP does not arrive.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Failure, FailureBody, Path};
use super::caller::Operator;
use crate::control::plane::Plane;
use crate::settings::network;

/// An address, or a client port of one, where UDP is refused at once.
#[derive(Serialize, ToSchema)]
pub(super) struct LearnedAnswer {
    /// An IPv4 address (`/32`) or an IPv6 `/64`.
    prefix: String,
    /// That port alone, where ICMP said that nobody gets what is sent there, and others for the player that had it; `null`: all ports.
    port: Option<u16>,
    /// What told it last: `icmp` (an ICMP error), `report` (the player's own) or `second_attempt` (the player had UDP, gave no sign of
    /// life and was soon there again to play by TCP).
    sign: &'static str,
    /// For so many seconds.
    age_s: u64,
    /// UDP is tried again in so many seconds.
    expires_s: u64,
    /// Ports that were refused for it.
    refused: u64,
}

/// How much was forgotten.
#[derive(Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// Addresses and ports.
    forgotten: usize,
}

/// Addresses at which UDP does not arrive, so that their players are sent to TCP at once.
#[utoipa::path(
    get, path = "/v1/learned", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "By address", body = [LearnedAnswer]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn learned(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Vec<LearnedAnswer>> {
    let facts = plane.relay.admission().learned().list(tokio::time::Instant::now().into_std()).into_iter();
    let answers = facts.map(|facts| LearnedAnswer {
        prefix: facts.prefix.to_string(),
        port: facts.port,
        sign: facts.sign.label(),
        age_s: facts.age.as_secs(),
        expires_s: facts.expires.as_secs(),
        refused: facts.refused,
    });
    Json(answers.collect())
}

/// Forget all of them: UDP is tried again everywhere.
#[utoipa::path(
    delete, path = "/v1/learned", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "They are forgotten", body = Forgotten),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn reset_all(State(plane): State<Arc<Plane>>, Operator(caller): Operator) -> Json<Forgotten> {
    let forgotten = plane.relay.admission().learned().reset(None);
    tracing::info!(forgotten, by = caller.user, "UDP is tried again everywhere");
    Json(Forgotten { forgotten })
}

/// Forget those of one address or network: UDP is tried again there.
#[utoipa::path(
    delete, path = "/v1/learned/{prefix}", tag = "operation", security(("token" = [])),
    params(("prefix" = String, Path, description = "Address or network, its slash as `%2F`: `192.0.2.7`, `2001:db8::%2F64`")),
    responses(
        (status = 200, description = "They are forgotten", body = Forgotten),
        (status = 400, description = "No network", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 404, description = "Nothing was learnt of it", body = FailureBody),
    )
)]
pub(super) async fn reset(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    Path(prefix): Path<String>,
) -> Result<Json<Forgotten>, Failure> {
    let net = network(&prefix).map_err(|why| Failure::new(StatusCode::BAD_REQUEST, "bad_path", why.to_string()))?;
    match plane.relay.admission().learned().reset(Some(net)) {
        0 => Err(Failure::none(format!("UDP is refused to no address of {net}"))),
        forgotten => {
            tracing::info!(forgotten, %net, by = caller.user, "UDP is tried again");
            Ok(Json(Forgotten { forgotten }))
        }
    }
}
