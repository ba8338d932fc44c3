//! What happens, as it happens: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, interval};

use super::answer::FailureBody;
use super::caller::Standing;
use super::viewers::Viewer;
use crate::control::drain::DrainEvent;
use crate::control::plane::{Plane, SourceEvent};
use crate::shard::SessionEvent;

/// How often it is looked whether a listener may still listen.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A source began to send, or is gone.
#[derive(Serialize)]
struct SourceNews {
    point: String,
}

/// The name says it all.
#[derive(Serialize)]
struct Nothing {}

/// Events were missed, since they came faster than they were read.
#[derive(Serialize)]
struct Missed {
    events: u64,
}

/// Listen to what happens: `session_plays` and `session_ended` with the session, `source_up` and `source_gone` with the publishing
/// point of the settings, `drain_begun`, `drain_over` and `drain_cancelled` without more, `missed` where the listener was too slow.
#[utoipa::path(
    get, path = "/v1/events", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "Server-sent events without end, their data as JSON", body = String, content_type = "text/event-stream"),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn events(
    State(plane): State<Arc<Plane>>,
    standing: Standing,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let heard = Heard {
        sessions: plane.roster.listen(),
        sources: plane.listen_to_sources(),
        drains: plane.listen_to_drains(),
        looks: interval(LOOK_EVERY),
        standing,
        plane,
    };
    let events = unfold(heard, |mut heard| async move {
        let event = heard.next().await?;
        Some((Ok(event), heard))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// What one listener hears.
struct Heard {
    sessions: Receiver<SessionEvent>,
    sources: Receiver<SourceEvent>,
    drains: Receiver<DrainEvent>,
    looks: Interval,
    standing: Standing,
    plane: Arc<Plane>,
}

impl Heard {
    /// The next event; `None` once the listener may hear no more.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let event = tokio::select! {
                _ = self.looks.tick() => None,
                event = self.sessions.recv() => Some(match event {
                    Ok(SessionEvent::Plays(facts)) => told("session_plays", &Viewer::of((*facts).clone())),
                    Ok(SessionEvent::Ended(facts)) => told("session_ended", &Viewer::of((*facts).clone())),
                    Err(RecvError::Lagged(events)) => told("missed", &Missed { events }),
                    Err(RecvError::Closed) => return None,
                }),
                event = self.sources.recv() => Some(match event {
                    Ok(SourceEvent { point, up: true }) => told("source_up", &SourceNews { point }),
                    Ok(SourceEvent { point, up: false }) => told("source_gone", &SourceNews { point }),
                    Err(RecvError::Lagged(events)) => told("missed", &Missed { events }),
                    Err(RecvError::Closed) => return None,
                }),
                event = self.drains.recv() => Some(match event {
                    Ok(DrainEvent::Begun) => told("drain_begun", &Nothing {}),
                    Ok(DrainEvent::Over) => told("drain_over", &Nothing {}),
                    Ok(DrainEvent::Cancelled) => told("drain_cancelled", &Nothing {}),
                    Err(RecvError::Lagged(events)) => told("missed", &Missed { events }),
                    Err(RecvError::Closed) => return None,
                }),
            };
            // Who signed out, or lost the role, hears nothing more.
            if !self.standing.is_good(&self.plane) {
                return None;
            }
            if event.is_some() {
                return event;
            }
        }
    }
}

fn told(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
