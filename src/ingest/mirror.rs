//! Folders of other servers, templates and lists of stations: what a name of theirs is, and who brings it.
//!
//! Nobody knows the names before viewers say them, so each is asked for at the upstream, once for all who wish for it at the
//! time. A live name gets a publishing point on loan and is fed while it is watched; of a file of a folder each viewer has a
//! connection of its own.

mod relayed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::stop::WeakStop;
use super::transcode::{Transcoders, count_while_watched};
use super::{lent, now};
use crate::client::{Content, PlayError, StreamUrl, UrlError, inquire};
use crate::playing::ClientEnd;
use crate::relay::admission::{Slot, Slots};
use crate::relay::{Point, PointId, Relay};
use crate::settings::{Source, Start};
use crate::shard::{Found, Refused, Wish};
use crate::text::percent_encode;
use crate::wire::Hresult;

/// Names that are asked for at once.
const FLIGHTS: usize = 64;
/// Of them, for viewers of one address (IPv6: one /64).
const FLIGHTS_PER_ADDRESS: usize = 8;
/// Time to find out what a name is.
const FLIGHT_TIME: Duration = Duration::from_secs(20);
/// A name that is not live is not asked for again for so long.
const MEMORY: Duration = Duration::from_secs(5);
/// Such names that are remembered.
const MOST_REMEMBERED: usize = 256;

/// Files of one folder that are played at once.
const FILES: usize = 200;
/// Of them, by viewers of one address, so that none takes them all.
const FILES_PER_ADDRESS: usize = 100;

/// A folder and a name below it, or a template and a name of it, in a profile that is not its own or in that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    folder: PointId,
    name: String,
    profile: Option<String>,
}

/// Answers the wishes for names of mirrored folders and templates.
pub(super) struct Mirror {
    runtime: Handle,
    relay: Arc<Relay>,
    stop: WeakStop,
    transcoders: Arc<Transcoders>,
    slots: Arc<Slots>,
    /// Those of viewers of files, by folder.
    files: Mutex<HashMap<PointId, Arc<Slots>>>,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    /// Who waits for each name that is being asked for.
    flights: HashMap<Key, Vec<Wish>>,
    /// Names that are not live, and since when that is known.
    known: HashMap<Key, (Instant, NotLive)>,
    /// Of the settings by which names are asked for: one more whenever those are others.
    serial: u64,
}

/// What a name is that nobody pulls.
#[derive(Clone)]
enum NotLive {
    File,
    Refused(Refused),
}

impl Mirror {
    pub(super) fn new(runtime: Handle, relay: Arc<Relay>, transcoders: Arc<Transcoders>, stop: WeakStop) -> Arc<Self> {
        let slots = Slots::new(FLIGHTS, FLIGHTS_PER_ADDRESS);
        let (files, desk) = (Mutex::default(), Mutex::default());
        Arc::new(Self { runtime, relay, stop, transcoders, slots, files, desk })
    }

    /// What is known of names is asked for anew: the settings are others.
    pub(super) fn forget(&self) {
        let mut desk = self.lock();
        desk.known.clear();
        desk.serial += 1;
    }

    fn files_of(&self, folder: PointId) -> Arc<Slots> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(folder).or_insert_with(|| Slots::new(FILES, FILES_PER_ADDRESS)))
    }

    /// Takes a wish, on any thread.
    pub(super) fn take(self: &Arc<Self>, wish: Wish) {
        let key = Key { folder: wish.folder.id(), name: wish.below.clone(), profile: wish.profile.clone() };
        if let Some(watch) = self.relay.lent(key.folder, &key.name, key.profile.as_deref()) {
            return (wish.answer)(Found::Live(watch));
        }
        // One name must not be written in two ways, and a folder itself is nothing to play.
        if key.name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse([wish], &refused(Hresult::FILE_NOT_FOUND, "unknown_name", "not the name of anything in a folder"));
        }
        let mut desk = self.lock();
        if let Some(waiting) = desk.flights.get_mut(&key) {
            return waiting.push(wish);
        }
        let known = desk.known.get(&key).filter(|(since, _)| since.elapsed() < MEMORY).map(|(_, known)| known.clone());
        if let Some(known) = known {
            drop(desk);
            return self.fulfil([wish], &known);
        }
        let (Some(slot), Some(stop)) = (self.slots.take(wish.viewer), self.stop.upgrade()) else {
            drop(desk);
            let reason = "too many names are being asked for at the upstream at once";
            return refuse([wish], &refused(Hresult::TOO_MANY_SESSIONS, "mirror_busy", reason));
        };
        let folder = Arc::clone(&wish.folder);
        desk.flights.insert(key.clone(), vec![wish]);
        drop(desk);
        let flight = Flight { mirror: Arc::clone(self), key, landed: false };
        self.runtime.spawn(stop.until(flight.fly(folder, slot)));
    }

    /// Answers wishes for a name that is not live.
    fn fulfil(&self, wishes: impl IntoIterator<Item = Wish>, known: &NotLive) {
        let NotLive::Refused(refused) = known else { return wishes.into_iter().for_each(|wish| self.open(wish)) };
        refuse(wishes, refused);
    }

    /// Opens a file at the upstream for one viewer.
    fn open(&self, wish: Wish) {
        let slot = self.files_of(wish.folder.id()).take(wish.viewer);
        let url = match self.source_of(&wish.folder, &wish.below, None) {
            Some(Source::Pull { url, .. }) => url.parse().ok(),
            _ => None,
        };
        match (url, slot, self.stop.upgrade()) {
            (Some(url), Some(slot), Some(stop)) => {
                let span = info_span!("relayed", point = wish.folder.name(), name = wish.below, viewer = %wish.viewer);
                let run = async move {
                    relayed::run(url, wish).await;
                    drop(slot);
                };
                self.runtime.spawn(stop.until(run.instrument(span)));
            }
            _ => {
                let reason = "too many files of this folder are played already";
                refuse([wish], &refused(Hresult::TOO_MANY_SESSIONS, "mirror_full", reason));
            }
        }
    }

    /// Gives a viewer the publishing point of a live name; the first one starts the source. `slot`, of a name that could not be
    /// asked for, is taken until the source sends.
    fn lend(self: &Arc<Self>, key: &Key, wish: Wish, source: &Source, slot: &mut Option<Slot>) {
        if let Some(watch) = self.relay.lent(key.folder, &key.name, key.profile.as_deref()) {
            return (wish.answer)(Found::Live(watch));
        }
        let share = match source {
            Source::Ffmpeg { input, profile, .. } => match self.transcoders.share(wish.viewer, input, profile) {
                Ok(share) => share,
                Err(refused) => return refuse([wish], &refused),
            },
            _ => None,
        };
        let Some((watch, loan)) = self.relay.lend(key.folder, &key.name, key.profile.as_deref()) else {
            warn!(
                point = wish.folder.name(),
                name = key.name,
                "as many of its names are live already as may be: no more at once"
            );
            let reason = "too many names of this folder or template are live already";
            return refuse([wish], &refused(Hresult::TOO_MANY_SESSIONS, "mirror_full", reason));
        };
        if let (Some(loan), Some(stop)) = (loan, self.stop.upgrade()) {
            if let Some(slot) = slot.take() {
                let slot = Mutex::new(Some(slot));
                loan.point().on_source(Box::new(move |is_up| {
                    if is_up {
                        slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    }
                }));
            }
            let (mirror, key) = (Arc::clone(self), key.clone());
            let serial = self.lock().serial;
            let lender = Arc::clone(&wish.folder);
            let failed: lent::Failed = Box::new(move |reason| {
                lender.name_failed(now(), &format!("{}: {reason}", key.name));
                let known = NotLive::Refused(refused(Hresult::NO_STREAM, "source_failed", reason));
                mirror.lock().remember(serial, key.clone(), known);
            });
            share.into_iter().for_each(|share| count_while_watched(loan.point(), share));
            self.runtime.spawn(lent::run(loan, source.clone(), Arc::clone(&self.transcoders), stop, failed));
        }
        (wish.answer)(Found::Live(watch));
    }

    /// What brings a name of a folder, template or list of stations, in another profile than its own where one is named; `None` where
    /// nothing can.
    fn source_of(&self, folder: &Point, below: &str, other: Option<&str>) -> Option<Source> {
        match (&folder.settings().source, folder.settings().pattern()) {
            (source, Some(pattern)) => {
                let mut source = source.filled(&pattern.captures(below)?)?;
                match (&mut source, other) {
                    (_, None) => {}
                    (Source::Ffmpeg { profile, .. }, Some(other)) => other.clone_into(profile),
                    _ => return None,
                }
                Some(source)
            }
            (Source::Stations { linger, .. }, None) => {
                let url = self.relay.station(folder.id(), below)?.url;
                Some(Source::Pull { url, start: Start::Watched, linger: *linger })
            }
            (Source::Pull { url, start, linger }, None) if folder.settings().source.is_folder() => {
                Some(Source::Pull { url: format!("{url}{}", percent_encode(below)), start: *start, linger: *linger })
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that is being asked for.
struct Flight {
    mirror: Arc<Mirror>,
    key: Key,
    landed: bool,
}

impl Flight {
    /// Asks for the name, and answers all who wait for it.
    async fn fly(mut self, folder: Arc<Point>, slot: Slot) {
        let mut serial = self.mirror.lock().serial;
        let mut found = self.ask(&folder).await;
        let now = self.mirror.lock().serial;
        if std::mem::replace(&mut serial, now) != now {
            // By settings that have gone meanwhile: those of now may bring it from elsewhere, or not at all.
            found = self.ask(&folder).await;
            if self.mirror.lock().serial != serial {
                found = Err(NotLive::Refused(failed(&"the settings changed again and again while it was asked for")));
            }
        }
        match found {
            Err(known) => {
                drop(slot);
                let wishes = self.land(Some((serial, &known)));
                self.mirror.fulfil(wishes, &known);
            }
            Ok((source, known)) => {
                // Of what is known to be there the upstream's own bounds are enough.
                let mut slot = (known == Known::Unasked).then_some(slot);
                self.land(None).into_iter().for_each(|wish| self.mirror.lend(&self.key, wish, &source, &mut slot));
            }
        }
    }

    /// What brings the name by the settings of now, and how sure that is.
    async fn ask(&self, folder: &Point) -> Result<(Source, Known), NotLive> {
        match self.mirror.source_of(folder, &self.key.name, self.key.profile.as_deref()) {
            Some(source) => ask(folder, &source).await.map(|known| (source, known)),
            None => Err(NotLive::Refused(refused(Hresult::FILE_NOT_FOUND, "unknown_name", "the source cannot have such a name"))),
        }
    }

    /// Whoever comes from now on is not among those who wait, but may know what is known by the settings of a serial.
    fn land(&mut self, known: Option<(u64, &NotLive)>) -> Vec<Wish> {
        self.landed = true;
        let mut desk = self.mirror.lock();
        if let Some((serial, known)) = known {
            desk.remember(serial, self.key.clone(), known.clone());
        }
        desk.flights.remove(&self.key).unwrap_or_default()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // The daemon stops, or this has failed: nobody is to wait for an answer.
        if !self.landed {
            refuse(self.land(None), &failed(&"it was given up"));
        }
    }
}

impl Desk {
    /// What came of settings that are gone is not remembered.
    fn remember(&mut self, serial: u64, key: Key, known: NotLive) {
        if serial != self.serial {
            return;
        }
        self.known.retain(|_, (since, _)| since.elapsed() < MEMORY);
        if self.known.len() >= MOST_REMEMBERED
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (since, _))| *since).map(|(key, _)| key.clone())
        {
            self.known.remove(&oldest);
        }
        self.known.insert(key, (Instant::now(), known));
    }
}

/// How sure it is that a name is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Asked,
    /// Only trying tells.
    Unasked,
}

/// Finds out whether what brings a name is there.
async fn ask(folder: &Point, source: &Source) -> Result<Known, NotLive> {
    match source {
        Source::Pull { url, .. } => {
            let url: StreamUrl = url.parse().map_err(|error: UrlError| NotLive::Refused(failed(&error)))?;
            // Whoever wrote the list knows it, and who names another one hears of it later.
            if matches!(folder.settings().source, Source::Stations { .. }) {
                return Ok(Known::Unasked);
            }
            debug!(%url, "asks what it is");
            match timeout(FLIGHT_TIME, inquire(url)).await {
                Err(_) => Err(NotLive::Refused(failed(&"no answer from the upstream"))),
                Ok(Ok(Content::Live)) => Ok(Known::Asked),
                // A name of its own is played to all alike, over and over, as that of any publishing point.
                Ok(Ok(Content::File)) if !folder.settings().source.is_folder() => Ok(Known::Asked),
                Ok(Ok(Content::File)) => Err(NotLive::File),
                Ok(Err(error)) => Err(NotLive::Refused(why(&error))),
            }
        }
        Source::File { paths, .. } => {
            for path in paths {
                if !tokio::fs::metadata(path).await.is_ok_and(|file| file.is_file()) {
                    info!(point = folder.name(), path = %path.display(), "no such file");
                    return Err(NotLive::Refused(refused(Hresult::FILE_NOT_FOUND, "unknown_name", "there is no such file")));
                }
            }
            Ok(Known::Asked)
        }
        _ => Ok(Known::Unasked),
    }
}

/// What an upstream that does not open a name means for its viewers.
fn why(error: &PlayError) -> Refused {
    match error {
        PlayError::Session { end: ClientEnd::Refused { hr, .. }, .. } => refused(*hr, "upstream_refused", &error.to_string()),
        PlayError::Session { end: ClientEnd::Status { code, .. }, .. } => {
            let hr = match code {
                401 | 403 => Hresult::ACCESS_DENIED,
                404 | 410 => Hresult::FILE_NOT_FOUND,
                _ => Hresult::NO_STREAM,
            };
            refused(hr, "upstream_refused", &error.to_string())
        }
        _ => failed(error),
    }
}

fn failed(error: &dyn ToString) -> Refused {
    refused(Hresult::NO_STREAM, "upstream_failed", &error.to_string())
}

fn refused(hr: Hresult, cause: &'static str, reason: &str) -> Refused {
    Refused { hr, cause, reason: reason.to_owned() }
}

fn refuse(wishes: impl IntoIterator<Item = Wish>, why: &Refused) {
    wishes.into_iter().for_each(|wish| (wish.answer)(Found::Refused(why.clone())));
}

#[cfg(test)]
mod tests;
