//! Sources of publishing points that are lent: they start for one name and end with the loan.

use std::sync::Arc;

use tokio::time::{Duration, sleep};
use tracing::warn;

use super::playlist::Medium;
use super::stop::Stop;
use super::transcode::Transcoders;
use super::watched::Watched;
use super::{camera, exec, file, pull};
use crate::relay::{Loan, Point};
use crate::settings::{Source, Start};
use crate::text::Login;

/// Hears why a name brings nothing.
pub(super) type Failed = Box<dyn Fn(&str) + Send + Sync>;

/// Feeds a publishing point that is lent, until nobody has watched for the linger. `failed` hears of a source that brings nothing
/// at all.
///
/// A type of source that can be lent has its arm here; each one gives its loan back by [`Loan::give_back`].
pub(super) async fn run(loan: Loan, source: Source, transcoders: Arc<Transcoders>, stop: Stop, failed: Failed) {
    match source {
        Source::Pull { url, linger, .. } => {
            // Never pulled but for viewers, whatever the settings say.
            pull::run_lent(loan, pull::Upstream { url, start: Start::Watched, linger }, stop).await;
        }
        Source::Exec { argv, linger, .. } => {
            exec::run_lent(loan, exec::Command { argv, start: Start::Watched, linger }, stop, failed).await;
        }
        Source::File { paths, linger, .. } => {
            file::run_lent(loan, paths.into_iter().map(Medium::File).collect(), linger, stop).await;
        }
        Source::Ffmpeg { input, profile, linger, .. } => {
            transcoders.feed_lent(loan, input, &profile, linger, stop, failed).await;
        }
        Source::Camera { url, login, udp, linger, .. } => {
            let login = login.map(|login| Login { user: login.user, password: login.password });
            camera::run_lent(loan, camera::Source { url, login, udp, start: Start::Watched, linger }, stop, failed).await;
        }
        Source::Push | Source::Demo | Source::Files { .. } | Source::Stations { .. } => {
            warn!(point = loan.point().name(), "its type of source cannot be lent");
            fail(loan, stop).await;
        }
    }
}

/// Of a name that nothing can bring: whoever waits for it hears so, and it goes back when they have left.
pub(super) async fn fail(mut loan: Loan, mut stop: Stop) {
    loan.fail();
    let mut watched = Watched::new(loan.point(), Start::Watched);
    loop {
        tokio::select! {
            () = watched.end(Duration::ZERO) => {}
            () = stop.requested() => return,
        }
        // Where somebody has come in the meantime it stays.
        match loan.give_back() {
            Ok(()) => return,
            Err(kept) => loan = kept,
        }
    }
}

/// When a source runs, and for how long the publishing point that it feeds is ours: for ever, or until it goes back.
pub(super) struct Tenure {
    point: Arc<Point>,
    watched: Watched,
    loan: Option<Loan>,
}

impl Tenure {
    pub(super) fn new(point: Arc<Point>, start: Start, loan: Option<Loan>) -> Self {
        let watched = Watched::new(&point, start);
        Self { point, watched, loan }
    }

    pub(super) const fn point(&self) -> &Arc<Point> {
        &self.point
    }

    pub(super) fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Waits until the source is to run; false: the publishing point has gone back.
    pub(super) async fn begins(&mut self) -> bool {
        let mut watched = self.watched.clone();
        loop {
            tokio::select! {
                // In this order, for a loan that was never watched is at its end too.
                biased;
                () = self.watched.begin() => return true,
                // All have left since the last run, which was lingered over.
                () = watched.end(Duration::ZERO), if self.loan.is_some() => {
                    if self.gives_back() {
                        return false;
                    }
                }
            }
        }
    }

    /// Waits before the next attempt of a source that failed; false: the publishing point has gone back.
    pub(super) async fn rests(&mut self, wait: Duration) -> bool {
        let mut watched = self.watched.clone();
        let waited = sleep(wait);
        let mut waited = std::pin::pin!(waited);
        loop {
            tokio::select! {
                () = &mut waited => return true,
                // There is nothing to linger for: the next one who names it is to be told what it is by then.
                () = watched.end(Duration::ZERO), if self.loan.is_some() => {
                    if self.gives_back() {
                        return false;
                    }
                }
            }
        }
    }

    fn gives_back(&mut self) -> bool {
        let Some(loan) = self.loan.take() else { return false };
        // Where somebody has come in the meantime it stays.
        self.loan = loan.give_back().err();
        self.loan.is_none()
    }
}
