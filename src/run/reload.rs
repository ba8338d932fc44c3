//! Settings that are read again while the daemon runs: all that can be wrong is found before anything changes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant as Clock, timeout};

use super::check::{NamedFiles, read_named_files};
use super::placed;
use super::serve::random_bytes;
use crate::control::{ReloadOrder, ReloadReply, Reloaded, systemd};
use crate::ingest::Ingest;
use crate::logging::LevelSwitch;
use crate::relay::Relay;
use crate::settings::{Difference, Loaded, PointChange, Problem, Settings, SettingsError, Sources, difference, load};
use crate::shard::Gate;
use crate::text::Authenticator;

/// Reading the settings takes milliseconds; a disk that needs longer is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the settings again, and puts them into force.
pub(super) struct Reloader {
    /// Where the settings come from.
    pub(super) sources: Sources,
    pub(super) relay: Arc<Relay>,
    /// What lets viewers in.
    pub(super) gate: Arc<Gate>,
    pub(super) level: LevelSwitch,
    /// What was read last of users and keys.
    pub(super) files: NamedFiles,
}

/// Settings that are being read again.
pub(super) struct Reading {
    asked: Asked,
    prepared: Pin<Box<dyn Future<Output = Result<Prepared, SettingsError>>>>,
}

/// Settings that were read again, or what is wrong with them.
pub(super) struct Read {
    asked: Asked,
    prepared: Result<Prepared, SettingsError>,
}

/// Who wants them read.
enum Asked {
    Signal,
    Order(ReloadOrder),
}

/// Settings that are sound.
struct Prepared {
    loaded: Loaded,
    files: NamedFiles,
}

impl Reloader {
    /// Begins to read the settings again, for SIGHUP. systemd hears of it.
    pub(super) fn read_by_signal(&self) -> Reading {
        tracing::info!("SIGHUP: reading the settings again");
        systemd::reloading();
        self.read(Asked::Signal)
    }

    /// The same for somebody who waits for what comes of it.
    pub(super) fn read_by_order(&self, order: ReloadOrder) -> Reading {
        self.read(Asked::Order(order))
    }

    fn read(&self, asked: Asked) -> Reading {
        let sources = self.sources.clone();
        // A disk may be slow, and sources run on this thread.
        let task = timeout(PATIENCE, tokio::task::spawn_blocking(move || prepare(&sources)));
        let prepared = Box::pin(async move {
            match task.await {
                Ok(Ok(prepared)) => prepared,
                Ok(Err(error)) => Err(problem(format!("they could not be read: {error}"))),
                Err(_) => Err(problem(format!("they could not be read within {} s", PATIENCE.as_secs()))),
            }
        });
        Reading { asked, prepared }
    }

    /// Puts settings that were read into force, and tells who asked.
    pub(super) fn finish(&mut self, read: Read, ingest: &Ingest, status: impl FnOnce() -> String) {
        let Read { asked, prepared } = read;
        match asked {
            Asked::Signal => {
                // What is wrong is in the log.
                let _ = self.reload(prepared, ingest, false, "SIGHUP");
                systemd::ready(&status());
            }
            Asked::Order(ReloadOrder { dry_run, by, reply }) => {
                // Who asked may have gone.
                let _ = reply.send(self.reload(prepared, ingest, dry_run, &by));
            }
        }
    }

    /// Puts the settings into force unless that is only to be tried. `by`: who asks, for the log.
    ///
    /// # Errors
    /// All that is wrong with them: then nothing has changed.
    fn reload(&mut self, prepared: Result<Prepared, SettingsError>, ingest: &Ingest, dry_run: bool, by: &str) -> ReloadReply {
        let Prepared { loaded, files } = match prepared {
            Ok(prepared) => prepared,
            Err(SettingsError { problems }) => {
                if !dry_run {
                    for problem in &problems {
                        tracing::error!(by, "the settings cannot be used, those before stay in force: {problem}");
                    }
                }
                return Err(problems);
            }
        };
        let (mut found, in_force) = difference(&self.relay.settings(), &loaded.settings);
        for (differs, key) in [
            (files.users != self.files.users, "users.file"),
            (files.viewers != self.files.viewers, "users.viewers_file"),
            (files.secrets != self.files.secrets, "signing.key_file"),
        ] {
            if differs && !found.applied.contains(&key) {
                found.applied.push(key);
            }
        }
        if !dry_run {
            for problem in &loaded.warnings {
                let place = Some(problem.place.as_str()).filter(|place| !place.is_empty());
                tracing::warn!(place, key = problem.key, problem = problem.message, "a setting that was probably not meant so");
            }
            self.apply(ingest, in_force, files, &found);
            tracing::info!(by, "settings reloaded: {}", words(&found));
        }
        Ok(Reloaded { difference: found, warnings: loaded.warnings, files: loaded.files })
    }

    fn apply(&mut self, ingest: &Ingest, settings: Settings, files: NamedFiles, found: &Difference) {
        let settings = Arc::new(settings);
        if found.applied.contains(&"log.level")
            && let Err(error) = self.level.set(&settings.log.level)
        {
            tracing::warn!(%error, "the log level stays as it is");
        }
        if files.secrets != self.files.secrets {
            self.gate.set_secrets(files.secrets.clone());
        }
        // What players were asked before stays good where nobody's password is another.
        if files.watchers() != self.files.watchers() {
            let authenticator =
                files.watchers().map(|users| Authenticator::new(Clock::now().into_std(), users.clone(), random_bytes()));
            self.gate.set_users(authenticator);
        }
        let changes = self.relay.apply(&settings);
        ingest.apply(&settings, files.users.clone(), found, &changes);
        self.files = files;
    }
}

impl Reading {
    /// What was read, when it has been; `None` at once where nothing is being read.
    pub(super) async fn end_of(reading: &mut Option<Self>) -> Option<Read> {
        let prepared = reading.as_mut()?.prepared.as_mut().await;
        reading.take().map(|Self { asked, .. }| Read { asked, prepared })
    }
}

fn prepare(sources: &Sources) -> Result<Prepared, SettingsError> {
    let loaded = load(sources)?;
    match read_named_files(&loaded.settings).map_err(|error| placed(error, &loaded.places)) {
        Ok(files) => Ok(Prepared { loaded, files }),
        Err(error) => Err(error.downcast::<SettingsError>().unwrap_or_else(|error| problem(format!("{error:#}")))),
    }
}

fn problem(message: String) -> SettingsError {
    SettingsError { problems: vec![Problem { place: String::new(), key: String::new(), message }] }
}

/// A difference in one line, for the log.
fn words(found: &Difference) -> String {
    if found.is_empty() {
        return "nothing differs".into();
    }
    let names = |wanted: fn(&PointChange) -> bool| {
        let of = found.points.iter().filter(move |point| wanted(&point.change));
        of.map(|point| point.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let parts = [
        ("added", names(|change| matches!(change, PointChange::Added))),
        ("changed", names(|change| matches!(change, PointChange::Changed { .. }))),
        ("removed", names(|change| matches!(change, PointChange::Removed))),
        ("applied", found.applied.join(", ")),
        ("waiting for a restart", found.waiting.join(", ")),
    ];
    let told: Vec<_> =
        parts.into_iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what}: {names}")).collect();
    told.join("; ")
}
