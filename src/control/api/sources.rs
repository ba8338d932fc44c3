//! What feeds the publishing points.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody};
use super::caller::{Operator, Publisher};
use crate::control::plane::Plane;
use crate::relay::{Fault, Point, SourceHealth};
use crate::settings::{Source, Start, shown_source};

/// How a source is, in one word for all faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SourceState {
    /// It sends.
    Live,
    /// Something else is sent in its place: its fallback, or its slate.
    StandingIn,
    /// It is being had for the first time, or again, and nothing has failed since it sent last.
    Starting,
    /// It is had while somebody watches, and nobody does.
    WaitingForViewer,
    /// It is for publishers, and none sends.
    WaitingForPublisher,
    /// Files, which each viewer is sent from the beginning.
    OnDemand,
    /// A template, a list of stations or another server's folder: what a viewer names is had when it is named.
    OpenedByName,
    /// It ended or cannot be had; the last failure says why. It is tried again.
    Failing,
}

/// Why a source ended, or could not be had, though nobody wanted that.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SourceFailure {
    /// For a person, 300 characters at most, without passwords in addresses. Of a child process its own last words are in it.
    pub(crate) reason: String,
    /// Since then.
    pub(crate) ago_s: u64,
    /// How often it failed without a packet in between; 0: packets have come since, or it was one name of many.
    pub(crate) in_a_row: u32,
}

/// A name that is open, of a template, of a list of stations, of another server's folder, or in another profile.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenName {
    /// What viewers open, with `?profile=` where that is not its own.
    pub(crate) name: String,
    pub(crate) state: SourceState,
    /// Those who watch, or wait for it.
    pub(crate) watchers: u32,
    /// Bits a second, of the last seconds.
    pub(crate) bit_rate: u64,
    /// Packets that were taken of it since it was opened.
    pub(crate) packets: u64,
    /// Those that were no valid ASF and were left out.
    pub(crate) left_out: u64,
    /// As of any source.
    pub(crate) restarts: u64,
    /// Since its last packet; `null` where none has come.
    pub(crate) silent_s: Option<u64>,
    /// Why it ended, or could not be had, the last time.
    pub(crate) last_failure: Option<SourceFailure>,
}

/// The source of a publishing point. Of a template, a list of stations or another server's folder the numbers are the sums of its
/// names that are open.
#[derive(Serialize, ToSchema)]
pub(crate) struct SourceAnswer {
    /// The publishing point.
    pub(crate) point: String,
    pub(crate) state: SourceState,
    /// As the settings write it, without what may be secret.
    pub(crate) source: String,
    /// It sends.
    pub(crate) up: bool,
    /// Something stands in for it.
    pub(crate) on_fallback: bool,
    /// For how long something has stood in for it; `null` where nothing does.
    pub(crate) on_fallback_s: Option<u64>,
    /// Those who watch, or wait for it.
    pub(crate) watchers: u32,
    /// Bits a second, of the last seconds.
    pub(crate) bit_rate: u64,
    /// Packets that were taken of it since the daemon began.
    pub(crate) packets: u64,
    /// Those that were no valid ASF and were left out.
    pub(crate) left_out: u64,
    /// Faults: times that it ended, or could not be had, and nobody wanted that. An end because nobody watches, or by an operator, is
    /// none.
    pub(crate) restarts: u64,
    /// Since its last packet; `null` where none has come.
    pub(crate) silent_s: Option<u64>,
    /// Why it ended, or could not be had, the last time; `null` where it never failed. Of a template or a list, of which name.
    pub(crate) last_failure: Option<SourceFailure>,
    /// Its names that are open, in their order.
    pub(crate) names: Vec<OpenName>,
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
    plane.relay.points().iter().map(|point| answer(plane, point, now)).collect()
}

fn answer(plane: &Plane, point: &Point, now: Instant) -> SourceAnswer {
    let settings = point.settings();
    let health = point.source_health();
    let ago_s = |at: Instant| now.saturating_duration_since(at).as_secs();
    let names: Vec<_> = plane.relay.open_names(point.id()).into_iter().map(|(name, lent)| open_name(name, &lent, now)).collect();
    let mut answer = SourceAnswer {
        point: point.name().to_owned(),
        state: state_of(point),
        source: shown(&settings.source),
        up: health.up,
        on_fallback: health.on_fallback,
        on_fallback_s: health.on_fallback_since.map(ago_s),
        watchers: point.watchers(),
        bit_rate: health.bit_rate,
        packets: health.packets,
        left_out: health.left_out,
        restarts: health.restarts,
        silent_s: health.last_packet.map(ago_s),
        last_failure: health.last_fault.map(|fault| SourceFailure::of(fault, now)),
        names,
    };
    if settings.is_lender() {
        sum_up(&mut answer);
    }
    answer
}

/// A source of names has no numbers of its own.
fn sum_up(answer: &mut SourceAnswer) {
    for name in &answer.names {
        answer.up |= name.state == SourceState::Live;
        answer.watchers += name.watchers;
        answer.bit_rate += name.bit_rate;
        answer.packets += name.packets;
        answer.left_out += name.left_out;
        answer.restarts += name.restarts;
    }
    answer.silent_s = answer.names.iter().filter_map(|name| name.silent_s).min();
}

fn open_name(name: String, point: &Point, now: Instant) -> OpenName {
    let health = point.source_health();
    OpenName {
        name,
        state: state(point, &health, false),
        watchers: point.watchers(),
        bit_rate: health.bit_rate,
        packets: health.packets,
        left_out: health.left_out,
        restarts: health.restarts,
        silent_s: health.last_packet.map(|at| now.saturating_duration_since(at).as_secs()),
        last_failure: health.last_fault.map(|fault| SourceFailure::of(fault, now)),
    }
}

impl SourceFailure {
    pub(crate) fn of(fault: Fault, now: Instant) -> Self {
        let ago_s = now.saturating_duration_since(fault.at).as_secs();
        Self { reason: fault.reason, ago_s, in_a_row: fault.in_a_row }
    }
}

/// How the source of a publishing point of the settings is.
pub(crate) fn state_of(point: &Point) -> SourceState {
    state(point, &point.source_health(), point.settings().is_lender())
}

/// `is_lender`: it lends names; what it lends has its settings and does not.
fn state(point: &Point, health: &SourceHealth, is_lender: bool) -> SourceState {
    let settings = point.settings();
    let waits_for_viewer = || {
        let watched = match &settings.source {
            Source::Push | Source::Demo | Source::Files { .. } => false,
            // Of these what a viewer names is had for viewers alone.
            Source::Stations { .. } => true,
            Source::File { start, .. }
            | Source::Exec { start, .. }
            | Source::Camera { start, .. }
            | Source::Pull { start, .. }
            | Source::Ffmpeg { start, .. } => *start == Start::Watched,
        };
        watched && point.watchers() == 0
    };
    match &settings.source {
        _ if is_lender => SourceState::OpenedByName,
        Source::Files { .. } => SourceState::OnDemand,
        _ if health.on_fallback && point.generation().is_some() => SourceState::StandingIn,
        _ if health.up => SourceState::Live,
        Source::Push => SourceState::WaitingForPublisher,
        _ if waits_for_viewer() => SourceState::WaitingForViewer,
        _ if health.last_fault.as_ref().is_some_and(|fault| fault.in_a_row > 0) => SourceState::Failing,
        _ => SourceState::Starting,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Relay;
    use crate::settings::{PublishingPoint, Settings};
    use crate::wire::Guid;
    use std::time::Duration;

    #[test]
    fn each_kind_has_states_of_its_own() {
        let (linger, url) = (Duration::ZERO, |path: &str| format!("mms://h/{path}"));
        let pull = |path: &str, start| Source::Pull { url: url(path), start, linger };
        let points = [
            ("push", Source::Push),
            ("always", pull("a", Start::Always)),
            ("watched", pull("a", Start::Watched)),
            ("files", Source::Files { root: "/srv".into() }),
            ("folder", pull("", Start::Watched)),
            ("cam-*", pull("{1}", Start::Watched)),
            ("list", Source::Stations { file: "/etc/list".into(), linger }),
        ];
        let publishing_points = points.map(|(name, source)| PublishingPoint::new(name, source)).into();
        let settings = Settings { publishing_points, ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let points = relay.points();
        let states = || points.iter().map(|point| state_of(point)).collect::<Vec<_>>();
        use SourceState::{Failing, OnDemand, OpenedByName, Starting, WaitingForPublisher, WaitingForViewer};
        let of_names = [OnDemand, OpenedByName, OpenedByName, OpenedByName];
        assert_eq!(states()[..3], [WaitingForPublisher, Starting, WaitingForViewer]);
        assert_eq!(states()[3..], of_names);
        let now = tokio::time::Instant::now().into_std();
        points.iter().for_each(|point| point.source_failed(now, "no connection"));
        assert_eq!(states()[..3], [WaitingForPublisher, Failing, WaitingForViewer], "nobody watches: nobody misses it");
        assert_eq!(states()[3..], of_names, "of many names one says nothing of the others");
        let _watches: Vec<_> = points.iter().map(|point| point.watch()).collect();
        assert_eq!(states()[..3], [WaitingForPublisher, Failing, Failing]);
        // What is lent has the lender's settings and a state of its own.
        let (_watch, _loan) = relay.lend(points[5].id(), "cam-1", None).unwrap();
        let names = relay.open_names(points[5].id());
        let lent = open_name(names[0].0.clone(), &names[0].1, now);
        assert_eq!((lent.name.as_str(), lent.state, lent.watchers), ("cam-1", Starting, 1));
        assert_eq!(serde_json::to_value(WaitingForViewer).unwrap(), "waiting_for_viewer");
    }
}
