//! The sources of the settings' publishing points, and what stands in for them: each can be ended, and begun anew, by itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use super::playlist::Medium;
use super::stations::Look;
use super::stop::{self, Stop, WeakStop};
use super::transcode::Transcoders;
use super::{camera, demo, exec, fallback, file, pull, stations};
use crate::relay::{Point, PointChanges, PointId, Relay};
use crate::settings::{Difference, FallbackKind, PointChange, SettingsError, Source};
use crate::text::Login;

/// All that runs.
pub(super) struct Feeders {
    runtime: Handle,
    relay: Arc<Relay>,
    transcoders: Arc<Transcoders>,
    stop: WeakStop,
    running: Mutex<HashMap<PointId, Feeder>>,
}

/// What runs for one publishing point: begins anew when it is told so, ends when this is dropped.
struct Feeder {
    source: watch::Sender<()>,
    fallback: watch::Sender<()>,
}

/// What of a publishing point runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Source,
    Fallback,
}

impl Feeders {
    pub(super) fn new(runtime: Handle, relay: Arc<Relay>, transcoders: Arc<Transcoders>, stop: WeakStop) -> Arc<Self> {
        Arc::new(Self { runtime, relay, transcoders, stop, running: Mutex::default() })
    }

    /// Starts what the settings say of a publishing point.
    ///
    /// # Errors
    /// Its list of stations is there and is not sound. The file is followed all the same, and taken when it is.
    pub(super) fn start(self: &Arc<Self>, point: &Arc<Point>) -> Result<(), SettingsError> {
        let (list, begun) = match &point.settings().source {
            Source::Stations { file, .. } => match stations::begin(&self.relay, point, file) {
                Ok(taken) => (Some(taken), Ok(())),
                Err(error) => (Some(None), Err(error)),
            },
            _ => (None, Ok(())),
        };
        let Some(stop) = self.stop.upgrade() else { return begun };
        let (source, fallback) = (watch::Sender::new(()), watch::Sender::new(()));
        for (part, anew) in [(Part::Source, &source), (Part::Fallback, &fallback)] {
            let keep = Arc::clone(self).keep(Arc::clone(point), part, anew.subscribe(), list, stop.clone());
            self.runtime.spawn(keep);
        }
        self.lock().insert(point.id(), Feeder { source, fallback });
        begun
    }

    /// The settings are others: starts what is new, ends what is gone, and begins anew what is to be brought in another way.
    pub(super) fn apply(self: &Arc<Self>, difference: &Difference, changes: &PointChanges) {
        for point in &changes.removed {
            self.lock().remove(&point.id());
        }
        for point in &changes.added {
            if let Err(error) = self.start(point) {
                // It was sound a moment ago.
                warn!(list = point.name(), "the station list cannot be used:\n{error}");
            }
        }
        let moved: HashSet<&str> = changes.added.iter().chain(&changes.removed).map(|point| point.name()).collect();
        let running = self.lock();
        for point in self.relay.points() {
            let Some(feeder) = running.get(&point.id()) else { continue };
            let settings = point.settings();
            let of_point = difference.points.iter().find(|other| other.name == point.name()).map(|other| &other.change);
            let (source, fallback) = match of_point {
                Some(PointChange::Changed { keys, source_restarts }) => {
                    let is_list = matches!(settings.source, Source::Stations { .. });
                    let source = *source_restarts || is_list && keys.contains(&"source");
                    (source, source || keys.contains(&"fallback"))
                }
                _ => (false, false),
            };
            // What it shows may be another publishing point than before.
            let shows_other = settings.fallback.as_ref().is_some_and(
                |fallback| matches!(&fallback.kind, FallbackKind::Point(name) if moved.iter().any(|moved| moved.eq_ignore_ascii_case(name))),
            );
            if source {
                feeder.source.send_replace(());
            }
            if fallback || shows_other {
                feeder.fallback.send_replace(());
            }
        }
    }

    /// Runs a part of a publishing point until that is gone or the daemon stops; `list`: how its list of stations looked when it was
    /// read.
    async fn keep(
        self: Arc<Self>,
        point: Arc<Point>,
        part: Part,
        mut begun: watch::Receiver<()>,
        list: Option<Option<Look>>,
        mut stop: Stop,
    ) {
        let mut list = list;
        loop {
            begun.borrow_and_update();
            let (stopper, own) = stop::channel();
            match part {
                Part::Source => self.bring(&point, list.take(), own),
                Part::Fallback => self.stand_in(&point, own),
            }
            let goes_on = tokio::select! {
                begun = begun.changed() => begun.is_ok(),
                () = stop.requested() => false,
            };
            stopper.stop().await;
            if !goes_on {
                return;
            }
        }
    }

    fn stand_in(&self, point: &Arc<Point>, stop: Stop) {
        if let Some(fallback) = point.settings().fallback.clone().filter(|_| !point.settings().is_lender()) {
            self.runtime.spawn(stop.until(fallback::run(Arc::clone(&self.relay), Arc::clone(point), fallback)));
        }
    }

    /// Starts a source as the settings say now.
    fn bring(self: &Arc<Self>, point: &Arc<Point>, list: Option<Option<Look>>, stop: Stop) {
        let (settings, point) = (point.settings(), Arc::clone(point));
        if let Source::Stations { file, .. } = &settings.source {
            let taken = list.unwrap_or_else(|| {
                stations::begin(&self.relay, &point, file).unwrap_or_else(|error| {
                    warn!(list = point.name(), "the station list cannot be used:\n{error}");
                    None
                })
            });
            self.runtime.spawn(stop.until(stations::follow(Arc::clone(&self.relay), point, file.clone(), taken)));
            return;
        }
        // Of what stands for many names nobody knows any before a viewer says it: [`super::mirror`] starts its source then.
        if settings.is_lender() {
            return;
        }
        match settings.source.clone() {
            // Files are read by the shards' own viewers.
            Source::Push | Source::Files { .. } | Source::Stations { .. } => {}
            Source::Pull { url, start, linger } => {
                let upstream = pull::Upstream { url, start, linger };
                self.runtime.spawn(pull::run(point, upstream, stop));
            }
            Source::File { paths, start, linger } => {
                let media = paths.into_iter().map(Medium::File).collect();
                self.runtime.spawn(stop.until(file::run_when(point, media, start, linger)));
            }
            Source::Demo => {
                self.runtime.spawn(stop.until(file::run(point, vec![demo::medium()])));
            }
            Source::Camera { url, login, udp, start, linger } => {
                let login = login.map(|login| Login { user: login.user, password: login.password });
                let source = camera::Source { url, login, udp, start, linger };
                self.runtime.spawn(camera::run(point, source, stop));
            }
            Source::Exec { argv, start, linger } => {
                let command = exec::Command { argv, start, linger };
                self.runtime.spawn(exec::run(point, command, stop));
            }
            Source::Ffmpeg { .. } => self.transcoders.feed(point, stop),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PointId, Feeder>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, sleep};

    use super::*;
    use crate::ingest::testing;
    use crate::settings::Settings;

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_broken_at_first_is_taken_when_it_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stations.txt");
        std::fs::write(&file, "nonsense\n").unwrap();
        let relay = testing::relay(&[("list", Source::Stations { file: file.clone(), linger: Duration::ZERO })]);
        let (stopper, stop) = stop::channel();
        let (runtime, settings) = (Handle::current(), Settings::default());
        let transcoders = Transcoders::new(runtime.clone(), Arc::clone(&relay), &settings, stop.downgrade());
        let feeders = Feeders::new(runtime, Arc::clone(&relay), transcoders, stop.downgrade());
        assert!(feeders.start(&relay.points()[0]).is_err());
        let new = folder.path().join("new");
        std::fs::write(&new, "one mms://h/1\n").unwrap();
        std::fs::rename(&new, &file).unwrap();
        sleep(Duration::from_secs(10)).await;
        assert!(relay.resolve("one").is_some());
        drop(stop);
        stopper.stop().await;
    }
}
