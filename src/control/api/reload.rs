//! The settings, read again while the daemon runs.

use std::path::absolute;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::answer::{Failure, FailureBody};
use super::caller::Operator;
use crate::control::plane::Plane;
use crate::control::reload::{ReloadOrder, Reloaded};
use crate::settings::{PointChange, PointDifference, Problem};

/// What a reload changes.
#[derive(Serialize, ToSchema)]
pub(super) struct ReloadAnswer {
    /// Nothing was changed.
    dry_run: bool,
    /// Publishing points that come, change and go; of others nobody notices anything.
    points: Vec<PointChangeAnswer>,
    /// Other keys whose new values hold.
    applied: Vec<&'static str>,
    /// Keys whose new values hold only when the daemon is started again.
    waiting_for_restart: Vec<&'static str>,
    /// What works but was probably not meant.
    warnings: Vec<ProblemAnswer>,
    /// The files that were read.
    files: Vec<String>,
}

/// What happens to a publishing point.
#[derive(Serialize, ToSchema)]
pub(super) struct PointChangeAnswer {
    /// The publishing point.
    name: String,
    change: ChangeKind,
    /// What changes, by the keys of the settings.
    keys: Vec<&'static str>,
    /// Its source begins anew.
    source_restarts: bool,
    /// Its viewers stay; else they get the end of the stream.
    viewers_stay: bool,
}

/// What happens to a publishing point.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ChangeKind {
    /// It comes.
    Added,
    /// It has other settings.
    Changed,
    /// It goes.
    Removed,
}

/// Something that is wrong in the settings.
#[derive(Serialize, ToSchema)]
pub(super) struct ProblemAnswer {
    /// File and line, environment variable or flag; empty where nothing was written.
    place: String,
    /// The key.
    key: String,
    /// What is wrong, and what to do.
    message: String,
}

/// Settings that cannot be used.
#[derive(Serialize, ToSchema)]
pub(super) struct BadSettings {
    /// One word for programs: `settings`.
    error: &'static str,
    /// All problems as people read them.
    message: String,
    /// All that was found.
    problems: Vec<ProblemAnswer>,
}

/// Read the settings again and put them into force, all or nothing.
#[utoipa::path(
    post, path = "/v1/reload", tag = "operation", security(("token" = [])), 
    params(("dry_run" = Option<bool>, Query, description = "Change nothing, only tell what would change")),
    responses(
        (status = 200, description = "What changed, or would", body = ReloadAnswer),
        (status = 400, description = "Not such a query", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
        (status = 422, description = "The settings cannot be used; those before stay in force", body = BadSettings),
        (status = 503, description = "The daemon is about to end", body = FailureBody),
    )
)]
pub(super) async fn reload(
    State(plane): State<Arc<Plane>>,
    Operator(caller): Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let dry_run = match query.as_deref() {
        None | Some("" | "dry_run=false") => false,
        Some("dry_run=true") => true,
        Some(_) => {
            let why = "this call takes dry_run=true or dry_run=false behind the question mark, and nothing else";
            return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_query", why));
        }
    };
    let ends = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the daemon is about to end");
    let (reply, answer) = oneshot::channel();
    plane.reload.send(ReloadOrder { dry_run, by: caller.user, reply }).await.map_err(|_| ends())?;
    Ok(match answer.await.map_err(|_| ends())? {
        Ok(reloaded) => Json(told(dry_run, reloaded)).into_response(),
        Err(problems) => {
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            let problems = problems.into_iter().map(problem).collect();
            (StatusCode::UNPROCESSABLE_ENTITY, Json(BadSettings { error: "settings", message, problems })).into_response()
        }
    })
}

fn told(dry_run: bool, reloaded: Reloaded) -> ReloadAnswer {
    let Reloaded { difference, warnings, files } = reloaded;
    ReloadAnswer {
        dry_run,
        points: difference.points.into_iter().map(point).collect(),
        applied: difference.applied,
        waiting_for_restart: difference.waiting,
        warnings: warnings.into_iter().map(problem).collect(),
        // Who asks stands in another folder.
        files: files.iter().map(|file| absolute(file).as_deref().unwrap_or(file).display().to_string()).collect(),
    }
}

fn point(PointDifference { name, change }: PointDifference) -> PointChangeAnswer {
    let (change, keys, source_restarts) = match change {
        PointChange::Added => (ChangeKind::Added, Vec::new(), false),
        PointChange::Removed => (ChangeKind::Removed, Vec::new(), false),
        PointChange::Changed { keys, source_restarts } => (ChangeKind::Changed, keys, source_restarts),
    };
    let viewers_stay = !matches!(change, ChangeKind::Removed);
    PointChangeAnswer { name, change, keys, source_restarts, viewers_stay }
}

fn problem(Problem { place, key, message }: Problem) -> ProblemAnswer {
    ProblemAnswer { place, key, message }
}
