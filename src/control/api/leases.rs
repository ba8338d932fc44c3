//! Which client ports are taken.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::FailureBody;
use super::caller::Operator;
use crate::control::plane::Plane;

/// A client port.
#[derive(Serialize, ToSchema)]
pub(crate) struct LeaseAnswer {
    /// The client.
    pub(crate) address: String,
    /// Its UDP port.
    pub(crate) port: u16,
    pub(crate) state: LeaseState,
    /// For so many seconds.
    pub(crate) age_s: u64,
    /// The session that has it.
    pub(crate) session: Option<u64>,
    /// Packets sent to that.
    pub(crate) packets: u64,
    /// Packets that it was sent again.
    pub(crate) resends: u64,
}

/// What becomes of a client port.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LeaseState {
    /// A viewer has it.
    Leased,
    /// A viewer had it, and nobody else gets it yet.
    Resting,
}

/// All client ports that are leased or at rest.
#[utoipa::path(
    get, path = "/v1/leases", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "By address and port", body = [LeaseAnswer]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn leases(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Vec<LeaseAnswer>> {
    Json(survey(&plane).await)
}

/// All of them, by address and port.
pub(crate) async fn survey(plane: &Plane) -> Vec<LeaseAnswer> {
    let sessions = plane.roster.sessions().await;
    let owners: HashMap<_, _> =
        sessions.iter().flat_map(|facts| facts.client_ports.iter().map(move |port| ((facts.peer.ip(), *port), facts))).collect();
    let ports = plane.relay.admission().ports().list(tokio::time::Instant::now().into_std());
    let answer = ports.into_iter().map(|port| {
        let owner = owners.get(&(port.address, port.port)).filter(|_| !port.resting);
        LeaseAnswer {
            address: port.address.to_string(),
            port: port.port,
            state: if port.resting { LeaseState::Resting } else { LeaseState::Leased },
            age_s: port.age.as_secs(),
            session: owner.map(|facts| facts.session),
            packets: owner.map_or(0, |facts| facts.packets),
            resends: owner.map_or(0, |facts| facts.resends_granted),
        }
    });
    answer.collect()
}
