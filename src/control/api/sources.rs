//! What feeds the publishing points.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody};
use super::caller::{Operator, Publisher};
use crate::control::plane::Plane;
use crate::settings::{Source, shown_source};

/// The source of a publishing point.
#[derive(Serialize, ToSchema)]
pub(crate) struct SourceAnswer {
    /// The publishing point.
    pub(crate) point: String,
    /// As the settings write it, without what may be secret.
    pub(crate) source: String,
    /// It sends.
    pub(crate) up: bool,
    /// Something stands in for it.
    pub(crate) on_fallback: bool,
    /// Those who watch, or wait for it.
    pub(crate) watchers: u32,
    /// Bits a second, of the last seconds.
    pub(crate) bit_rate: u64,
    /// Packets that were taken of it since the daemon began.
    pub(crate) packets: u64,
    /// Those that were no valid ASF and were left out.
    pub(crate) left_out: u64,
    /// Times that it began anew.
    pub(crate) restarts: u64,
    /// Since its last packet; `null` where none has come.
    pub(crate) silent_s: Option<u64>,
}

/// All sources.
#[utoipa::path(
    get, path = "/v1/sources", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "The source of each publishing point of the settings", body = [SourceAnswer]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn sources(State(plane): State<Arc<Plane>>, _: Publisher) -> Json<Vec<SourceAnswer>> {
    Json(survey(&plane))
}

/// All of them, in the order of the settings.
pub(crate) fn survey(plane: &Plane) -> Vec<SourceAnswer> {
    let now = tokio::time::Instant::now().into_std();
    let answer = |point: &Arc<crate::relay::Point>| {
        let health = point.source_health();
        SourceAnswer {
            point: point.name().to_owned(),
            source: shown(&point.settings().source),
            up: health.up,
            on_fallback: health.on_fallback,
            watchers: point.watchers(),
            bit_rate: health.bit_rate,
            packets: health.packets,
            left_out: health.left_out,
            restarts: health.restarts,
            silent_s: health.last_packet.map(|at| now.saturating_duration_since(at).as_secs()),
        }
    };
    plane.relay.points().iter().map(answer).collect()
}

/// Arguments of a program may be anything, secrets too.
fn shown(source: &Source) -> String {
    match source {
        Source::Exec { argv, .. } => {
            format!("{{ type = \"exec\", program = {:?} }}", argv.first().map_or("", String::as_str))
        }
        source => shown_source(source),
    }
}

/// Which source is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Disconnect {
    /// The publishing point.
    point: String,
}

/// Disconnect a source: a publisher loses its connection and may come again, a source of ours begins anew.
#[utoipa::path(
    post, path = "/v1/sources/disconnect", tag = "operation", security(("token" = [])),
    request_body = Disconnect,
    responses(
        (status = 204, description = "It is told to go"),
        (status = 400, description = "No such JSON", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 404, description = "There is no such publishing point", body = FailureBody),
        (status = 409, description = "It has no source now", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
    )
)]
pub(super) async fn disconnect(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    Body(Disconnect { point: name }): Body<Disconnect>,
) -> Result<StatusCode, Failure> {
    disconnect_source(&plane, &name, &caller.user)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Does it, in the name of somebody.
pub(crate) fn disconnect_source(plane: &Plane, name: &str, by: &str) -> Result<(), Failure> {
    let point = plane.relay.point(name).ok_or_else(|| Failure::none("there is no such publishing point"))?;
    if !point.disconnect_source() {
        return Err(Failure::new(StatusCode::CONFLICT, "no_source", "nothing feeds it at this moment"));
    }
    tracing::info!(point = point.name(), by, "its source was disconnected by an operator");
    Ok(())
}
