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
use crate::shard::SessionFacts;

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
    /// Whose ticket it is held for, or whose ticket that session has.
    pub(crate) user: Option<String>,
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
    /// It waits for the player of a viewing session.
    Held,
}

/// All client ports that are leased, held or at rest.
#[utoipa::path(
    get, path = "/v1/leases", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "By address and port", body = [LeaseAnswer]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn leases(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Vec<LeaseAnswer>> {
    let sessions = plane.sessions().await;
    Json(survey(&plane, &sessions))
}

/// All of them, by address and port; whose they are is known from these sessions.
pub(crate) fn survey(plane: &Plane, sessions: &[SessionFacts]) -> Vec<LeaseAnswer> {
    let owners: HashMap<_, _> =
        sessions.iter().flat_map(|facts| facts.client_ports.iter().map(move |port| ((facts.peer.ip(), *port), facts))).collect();
    let (admission, now) = (plane.relay.admission(), tokio::time::Instant::now().into_std());
    let tickets = admission.tickets().list(now);
    let ports = admission.ports().list(now);
    let answer = ports.into_iter().map(|port| {
        let owner = owners.get(&(port.address, port.port)).filter(|_| !port.resting && !port.held);
        LeaseAnswer {
            address: port.address.to_string(),
            port: port.port,
            state: match (port.resting, port.held) {
                (true, _) => LeaseState::Resting,
                (_, true) => LeaseState::Held,
                _ => LeaseState::Leased,
            },
            age_s: port.age.as_secs(),
            session: owner.map(|facts| facts.session),
            // Who plays by a ticket keeps its port when that is over.
            user: (tickets.iter())
                .find(|ticket| {
                    Some(ticket.serial) == port.ticket || owner.is_some_and(|facts| ticket.session == Some(facts.session))
                })
                .map(|ticket| ticket.user.clone()),
            packets: owner.map_or(0, |facts| facts.packets),
            resends: owner.map_or(0, |facts| facts.resends_granted),
        }
    });
    answer.collect()
}
