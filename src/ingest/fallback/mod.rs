//! What stands in for a source that is gone or silent: another publishing point, a file, a slate.

mod point;
mod slate;
mod slate_format;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::{Duration, sleep};
use tracing::{Instrument as _, info, info_span, warn};

use super::back_off::BackOff;
use super::playlist::Medium;
use super::watched::Watched;
use super::{file, now};
use crate::asf::{Guise, Header, ParameterSets};
use crate::relay::{Point, PublishError, Publisher, Relay};
use crate::settings::{Fallback, FallbackKind, Source, Start};
use point::Tap;
use slate::Slates;

/// So often it is looked whether the source's header asks for another slate.
const LOOK: Duration = Duration::from_secs(1);

/// Stands in whenever the source of a publishing point is silent for too long, and somebody watches where that starts the source.
pub(super) async fn run(relay: Arc<Relay>, point: Arc<Point>, fallback: Fallback) {
    let span = info_span!("fallback", point = point.name());
    let (start, linger) = match &point.settings().source {
        Source::Exec { start, linger, .. }
        | Source::Pull { start, linger, .. }
        | Source::File { start, linger, .. }
        | Source::Ffmpeg { start, linger, .. }
        | Source::Camera { start, linger, .. } => (*start, *linger),
        Source::Push | Source::Demo | Source::Files { .. } | Source::Stations { .. } => (Start::Always, Duration::ZERO),
    };
    let Some(content) = Content::new(&relay, fallback.kind) else { return };
    let mut watched = Watched::new(&point, start);
    let mut substitute = Substitute { point, content, back_off: BackOff::new() };
    let work = async {
        loop {
            watched.begin().await;
            // It is only now being started.
            substitute.point.expect_source(now());
            tokio::select! {
                () = substitute.run() => {}
                () = watched.end(linger) => substitute.end(),
            }
        }
    };
    work.instrument(span).await;
}

/// What viewers get.
enum Content {
    File(PathBuf),
    Point { point: Arc<Point>, tap: Arc<Tap> },
    Slate(Slates),
}

impl Content {
    fn new(relay: &Relay, kind: FallbackKind) -> Option<Self> {
        Some(match kind {
            FallbackKind::File(path) => Self::File(path),
            FallbackKind::Slate(text) => Self::Slate(Slates::new(text, relay.settings().transcode.ffmpeg.clone())),
            FallbackKind::Point(name) => {
                // The settings are checked: it is there.
                let point = relay.point(&name)?;
                Self::Point { tap: Tap::new(&point), point }
            }
        })
    }
}

struct Substitute {
    point: Arc<Point>,
    content: Content,
    back_off: BackOff,
}

impl Substitute {
    async fn run(&mut self) {
        loop {
            let wait = match self.point.stand_in(now()) {
                Ok(publisher) => {
                    let begun = tokio::time::Instant::now();
                    info!("stands in for the source");
                    match self.play(publisher).await {
                        Ok(()) | Err(StandInError::Publish(PublishError::Yielded)) => {
                            info!("the source is back");
                            self.back_off = BackOff::new();
                            Duration::ZERO
                        }
                        Err(error) => {
                            let wait = self.back_off.after(begun.elapsed());
                            warn!(%error, retry_s = wait.as_secs_f32(), "cannot stand in for the source");
                            wait
                        }
                    }
                }
                Err(wait) => wait.min(LOOK),
            };
            if let Content::Slate(slates) = &mut self.content {
                // Made ahead, so that it is there when it is needed.
                slates.prepare(self.point.source_header().as_ref());
            }
            sleep(wait).await;
        }
    }

    async fn play(&mut self, publisher: Publisher) -> Result<(), StandInError> {
        match &mut self.content {
            Content::File(path) => file::stand_in(publisher, vec![Medium::File(path.clone())], ParameterSets::InHeader).await,
            Content::Point { point, tap } => point::stand_in(publisher, point, tap).await,
            Content::Slate(slates) => loop {
                let source = self.point.source_header();
                let slate = slates.at_hand(source.as_ref()).await.ok_or(StandInError::NoSlate)?;
                let header = Header::parse(&slate)?;
                if source.as_ref().is_none_or(|source| !slate::continues(&header, source)) {
                    wait_for_turn(&publisher, &header).await?;
                }
                // The source may have come, and gone, in the meantime: then it is known by now which slate continues it.
                if is_same(source.as_ref(), self.point.source_header().as_ref()) {
                    return file::stand_in(publisher, vec![Medium::Made(slate)], ParameterSets::InBand).await;
                }
            },
        }
    }

    /// Nobody watches any more: what stood in ends, and with it the stream.
    fn end(&self) {
        if let Ok(publisher) = self.point.stand_in(now()) {
            publisher.end(now());
        }
    }
}

/// Why what stands in cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StandInError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("{medium}: {reason}")]
    Medium { medium: String, reason: String },
    #[error("what it shows has an unusable header: {0}")]
    Header(#[from] crate::asf::HeaderError),
    #[error("there is no slate")]
    NoSlate,
}

/// Whether viewers would not notice that one follows the other.
fn is_same(before: Option<&Header>, now: Option<&Header>) -> bool {
    match (before, now) {
        (None, None) => true,
        (Some(before), Some(now)) => now.continues(before),
        _ => false,
    }
}

/// How packets of a header stand in for the source of a publishing point under the header of that, so that players notice nothing.
/// `None` where they need a header of their own, or where there is no other one.
pub(super) fn guise(point: &Point, header: &Header, sets: ParameterSets) -> Option<Guise> {
    let source = point.source_header()?;
    // What players get of it.
    let fitting = point.fitting(header);
    let fitting = fitting.as_ref().unwrap_or(header);
    if fitting.continues(&source) {
        return None;
    }
    match Guise::of(fitting, &source, sets) {
        Ok(guise) => Some(guise.in_packets_of(header.packet_size())),
        Err(difference) => {
            info!(%difference, "what stands in has another header than the source: viewers begin anew, and many players end or stop at that");
            None
        }
    }
}

/// Waits until a header may follow the last one.
///
/// # Errors
/// [`PublishError::Yielded`] where the source is back.
pub(super) async fn wait_for_turn(publisher: &Publisher, header: &Header) -> Result<(), PublishError> {
    loop {
        let wait = publisher.header_wait(now(), header)?;
        if wait.is_zero() {
            return Ok(());
        }
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests;
