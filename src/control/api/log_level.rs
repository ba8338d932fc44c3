//! What the daemon logs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody};
use super::caller::Operator;
use crate::control::plane::Plane;

/// What is logged.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, or several for parts of the daemon: `info,wmrelay::ingest=debug`.
    #[schema(max_length = 1024)]
    level: String,
}

/// What is logged now.
#[utoipa::path(
    get, path = "/v1/log-level", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "What is logged now", body = LogLevel),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn log_level(State(plane): State<Arc<Plane>>, _: Operator) -> Json<LogLevel> {
    Json(LogLevel { level: plane.log.level() })
}

/// Log by another level from now on, until the daemon ends.
#[utoipa::path(
    put, path = "/v1/log-level", tag = "operation", security(("token" = [])),
    request_body = LogLevel,
    responses(
        (status = 204, description = "Changed"),
        (status = 400, description = "No such JSON, or no such level", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
    )
)]
pub(super) async fn set_log_level(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    Body(LogLevel { level }): Body<LogLevel>,
) -> Result<StatusCode, Failure> {
    if level.len() > LEVEL_MAX {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_level", format!("a level has at most {LEVEL_MAX} bytes")));
    }
    if level.split(',').any(|part| part.trim().is_empty()) {
        let why = "an empty level is none; there are off, error, warn, info, debug and trace";
        return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_level", why));
    }
    // Said before it may be silenced.
    tracing::warn!(level = %level.escape_debug(), by = caller.user, "an operator changes what is logged");
    plane.log.set(&level).map_err(|why| Failure::new(StatusCode::BAD_REQUEST, "bad_level", why))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Bytes of a level.
const LEVEL_MAX: usize = 1024;
