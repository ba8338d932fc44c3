//! The daemon as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::FailureBody;
use super::caller::Operator;
use super::drain::Draining;
use super::sources::{SourceState, state_of};
use crate::control::plane::Plane;

/// How the daemon is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    /// Of the program.
    version: &'static str,
    pub(crate) state: DaemonState,
    /// While no new viewers are taken.
    drain: Option<Draining>,
    /// Since it began.
    pub(crate) uptime_s: u64,
    /// Sessions that have a place.
    pub(crate) sessions: u32,
    /// What they were sent together, bits per second: measured over the last five seconds, framing and downloads included.
    pub(crate) bit_rate: u64,
    /// Publishing points of the settings.
    pub(crate) points: usize,
    /// Those of them whose source sends now.
    pub(crate) points_live: usize,
    /// Those of them where something stands in for the source.
    pub(crate) points_standing_in: usize,
    /// Client ports leased to viewers.
    pub(crate) ports_leased: usize,
    /// Client ports that rest after a viewer.
    pub(crate) ports_resting: usize,
    /// Client ports held for viewing sessions.
    pub(crate) ports_held: usize,
    /// Where it listens, by what is served there.
    pub(crate) listeners: BTreeMap<&'static str, Vec<String>>,
}

/// What the daemon does.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DaemonState {
    /// It is about to serve.
    Starting,
    /// It serves.
    Serving,
    /// A thread that serves viewers does not answer.
    Stuck,
    /// It serves those who watch, and takes no new viewers.
    Draining,
    /// It is about to end.
    Stopping,
}

/// How the daemon is.
#[utoipa::path(
    get, path = "/v1/status", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "How the daemon is", body = Status),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn status(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Status> {
    Json(survey(&plane))
}

/// How it is.
pub(crate) fn survey(plane: &Plane) -> Status {
    let now = tokio::time::Instant::now().into_std();
    let (admission, points) = (plane.relay.admission(), plane.relay.points());
    let ports = admission.ports().counts();
    let states: Vec<_> = points.iter().map(|point| state_of(point)).collect();
    let in_state = |state| states.iter().filter(|other| **other == state).count();
    let state = if plane.health.stopping() {
        DaemonState::Stopping
    } else if !plane.health.healthy(now) {
        DaemonState::Stuck
    } else if plane.health.draining() {
        DaemonState::Draining
    } else if plane.health.ready() {
        DaemonState::Serving
    } else {
        DaemonState::Starting
    };
    let listeners = plane.listeners.iter().map(|(what, at)| (*what, at.iter().map(ToString::to_string).collect()));
    Status {
        version: env!("CARGO_PKG_VERSION"),
        state,
        drain: plane.look_at_drain(now).as_ref().map(Draining::of),
        uptime_s: now.saturating_duration_since(plane.started).as_secs(),
        sessions: admission.viewers(),
        bit_rate: plane.bit_rate(now),
        points: points.len(),
        points_live: in_state(SourceState::Live),
        points_standing_in: in_state(SourceState::StandingIn),
        ports_leased: ports.leased,
        ports_resting: ports.resting,
        ports_held: ports.held,
        listeners: listeners.collect(),
    }
}
