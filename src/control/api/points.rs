//! What there is to watch.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::FailureBody;
use super::caller::Anybody;
use super::sources::{SourceState, state_of};
use crate::asf::{Format, Header, StreamKind};
use crate::control::plane::Plane;
use crate::relay::Point;
use crate::settings::Source;

/// A publishing point.
#[derive(Serialize, ToSchema)]
pub(crate) struct PointAnswer {
    /// What viewers open.
    pub(crate) name: String,
    /// What people are shown.
    pub(crate) title: Option<String>,
    pub(crate) kind: PointKind,
    /// Something is sent now. Of folders and templates nothing is.
    pub(crate) live: bool,
    /// How its source is: what is sent may be something that stands in for it.
    pub(crate) state: SourceState,
    /// Of what is sent now, bits per second; 0: not known.
    pub(crate) bit_rate: u32,
    /// What is sent now.
    pub(crate) streams: Vec<StreamAnswer>,
}

/// What a name is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PointKind {
    /// One live source and many viewers.
    Broadcast,
    /// A file, or a folder of files.
    OnDemand,
    /// A pattern: each name that fits it is a broadcast, or another server's folder.
    Template,
    /// A list of stations.
    Stations,
}

/// One stream of a broadcast.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamAnswer {
    /// `audio`, `video`, `script` or `other`.
    pub(crate) kind: &'static str,
    /// Its codec: four letters of video, a number of audio (`0x0161` is Windows Media Audio 2).
    pub(crate) codec: Option<String>,
    /// Pixels.
    pub(crate) width: Option<u32>,
    /// Pixels.
    pub(crate) height: Option<u32>,
    /// Bits per second; 0: not known.
    bit_rate: u32,
}

/// All publishing points.
#[utoipa::path(
    get, path = "/v1/points", tag = "viewing", security(("token" = [])),
    responses(
        (status = 200, description = "All publishing points of the settings", body = [PointAnswer]),
        (status = 401, description = "Not signed in", body = FailureBody),
    )
)]
pub(super) async fn points(State(plane): State<Arc<Plane>>, _: Anybody) -> Json<Vec<PointAnswer>> {
    Json(plane.relay.points().iter().map(|point| answer(&plane, point)).collect())
}

/// One of them.
pub(crate) fn answer(plane: &Plane, point: &Arc<Point>) -> PointAnswer {
    let settings = point.settings();
    let kind = match &settings.source {
        Source::Stations { .. } => PointKind::Stations,
        _ if settings.is_lender() => PointKind::Template,
        Source::Files { .. } => PointKind::OnDemand,
        _ => PointKind::Broadcast,
    };
    let generation = point.generation();
    let header = generation.as_ref().and_then(|generation| Header::parse(&generation.header).ok());
    PointAnswer {
        name: point.name().to_owned(),
        title: plane.relay.title(point.name()),
        kind,
        live: generation.is_some(),
        state: state_of(point),
        bit_rate: generation.map_or(0, |generation| generation.bit_rate),
        streams: header.iter().flat_map(Header::streams).map(stream).collect(),
    }
}

fn stream(stream: &crate::asf::Stream) -> StreamAnswer {
    let kind = match stream.kind {
        StreamKind::Audio => "audio",
        StreamKind::Video => "video",
        StreamKind::Command => "script",
        _ => "other",
    };
    let (codec, width, height) = match &stream.format {
        Format::Video { four_cc, width, height } => (Some(four_cc.escape_ascii().to_string()), Some(*width), Some(*height)),
        Format::Audio { tag, .. } => (Some(format!("0x{tag:04X}")), None, None),
        Format::Unread => (None, None, None),
    };
    StreamAnswer { kind, codec, width, height, bit_rate: stream.bit_rate }
}
