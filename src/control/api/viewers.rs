//! Who watches, what became of them, and how they are sent away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Failure, FailureBody, Path};
use super::caller::Operator;
use crate::control::plane::Plane;
use crate::shard::{SessionFacts, SessionStory};

/// A session.
#[derive(Serialize, ToSchema)]
pub(super) struct Viewer {
    /// Its number, which no other one has while the daemon runs.
    session: u64,
    /// `mms`, `http` or `rtsp`.
    protocol: &'static str,
    /// `udp`, `tcp` or `tls`.
    transport: &'static str,
    /// Address and port of the viewer.
    peer: String,
    /// Address and port that it connected to.
    local: String,
    /// The publishing point that it has open.
    point: Option<String>,
    /// The name that it asked for.
    name: Option<String>,
    /// What the player calls itself.
    player: String,
    /// Since it connected.
    lasts_s: f64,
    /// It is sent media, or waits for it.
    plays: bool,
    /// Its UDP ports.
    client_ports: Vec<u16>,
    /// Packets sent to it.
    packets: u64,
    /// Bytes sent to it.
    bytes: u64,
    /// Packets that it lost by being slow.
    skipped: u64,
    /// Packets that it asked for again.
    resends_asked: u64,
    /// Packets that it was sent again.
    resends_granted: u64,
    /// What it says about its own playing.
    report: String,
    /// Why it ended; `null` while it goes on.
    end: Option<String>,
}

/// A session and what happened to it.
#[derive(Serialize, ToSchema)]
pub(super) struct Story {
    #[serde(flatten)]
    viewer: Viewer,
    /// In order.
    steps: Vec<StepAnswer>,
    /// When it ended, seconds of Unix time; `null` while it goes on.
    ended_at: Option<u64>,
}

/// Something that happened.
#[derive(Serialize, ToSchema)]
pub(super) struct StepAnswer {
    /// Since the session connected.
    after_s: f64,
    /// What.
    text: String,
}

/// All sessions of now.
#[utoipa::path(
    get, path = "/v1/viewers", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "All sessions of now, by number", body = [Viewer]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn viewers(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Vec<Viewer>> {
    Json(plane.sessions().await.iter().cloned().map(Viewer::of).collect())
}

/// What happened to a session: of one that goes on, or of the thousand that ended last.
#[utoipa::path(
    get, path = "/v1/viewers/{session}", tag = "operation", security(("token" = [])),
    params(("session" = u64, Path, description = "Number of the session")),
    responses(
        (status = 200, description = "The session and its time line", body = Story),
        (status = 400, description = "No number", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 404, description = "There is none, or it ended too long ago", body = FailureBody),
    )
)]
pub(super) async fn viewer(
    State(plane): State<Arc<Plane>>,
    _: Operator,
    Path(session): Path<u64>,
) -> Result<Json<Story>, Failure> {
    let story = plane.roster.story(session).await;
    story.map(|story| Json(story_of(story))).ok_or_else(|| no_session(session))
}

/// End a session.
#[utoipa::path(
    delete, path = "/v1/viewers/{session}", tag = "operation", security(("token" = [])),
    params(("session" = u64, Path, description = "Number of the session")),
    responses(
        (status = 204, description = "It is ended"),
        (status = 400, description = "No number", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 404, description = "There is none", body = FailureBody),
    )
)]
pub(super) async fn kick(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    Path(session): Path<u64>,
) -> Result<StatusCode, Failure> {
    kick_session(&plane, session, &caller.user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one, in the name of somebody.
pub(crate) async fn kick_session(plane: &Plane, session: u64, by: &str) -> Result<(), Failure> {
    if !plane.kick(session).await {
        return Err(no_session(session));
    }
    tracing::info!(session, by, "a session was ended by an operator");
    Ok(())
}

fn no_session(session: u64) -> Failure {
    Failure::none(format!("there is no session {session}, or it ended too long ago"))
}

impl Viewer {
    pub(super) fn of(facts: SessionFacts) -> Self {
        Self {
            session: facts.session,
            protocol: facts.protocol,
            transport: facts.transport,
            peer: facts.peer.to_string(),
            local: facts.local.to_string(),
            point: facts.point,
            name: facts.name,
            player: facts.player,
            lasts_s: seconds(facts.lasts),
            plays: facts.plays,
            client_ports: facts.client_ports,
            packets: facts.packets,
            bytes: facts.bytes,
            skipped: facts.skipped,
            resends_asked: facts.resends_asked,
            resends_granted: facts.resends_granted,
            report: facts.report,
            end: facts.end,
        }
    }
}

fn story_of(story: SessionStory) -> Story {
    let step = |step: crate::shard::Step| StepAnswer { after_s: seconds(step.after), text: step.text };
    Story {
        viewer: Viewer::of(story.facts),
        steps: story.steps.into_iter().map(step).collect(),
        ended_at: story.ended.and_then(|at| Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())),
    }
}

/// Milliseconds are as much as anybody wants to read.
fn seconds(time: Duration) -> f64 {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}
