//! Inputs that ffmpeg reads: one child for each input and profile, shared by all publishing points that want it.
//!
//! A publishing point with such a source wants its own profile; viewers who ask for another one by `?profile=NAME` are lent a
//! publishing point of that, which wants the same input in that profile. Names of templates are lent one each by [`super::mirror`], and
//! one for each other profile.

mod argv;
mod job;
mod probe;
mod subscriber;
mod words;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use metrics::counter;
use tokio::runtime::Handle;
use tokio::time::Duration;
use tracing::{Instrument as _, info, info_span, warn};

use job::Job;
use probe::Probes;
use subscriber::{Order, Subscriber};
use words::Meters;

use super::lent::{Failed, fail};
use super::stop::{Stop, WeakStop};
use super::watched::Watched;
use crate::metrics::REFUSALS;
use crate::relay::admission::{Slot, Slots};
use crate::relay::{Loan, Point, Relay};
use crate::settings::{FfmpegInput, Profile, Settings, Source, Start, Transcode, url_without_secrets};
use crate::shard::{Found, Refused, Wish};
use crate::wire::Hresult;

/// The `cause` label of those who are refused because enough children run.
const NO_CHILD: &str = "transcode_children";
/// That of those whose address has as many lent as one may have.
const NO_SHARE: &str = "transcode_address";

/// That of those who want an input in another profile while it comes to one port.
const NO_PORT: &str = "one_profile";

/// An input and what it is made to be.
type Key = (FfmpegInput, Arc<Profile>);

/// All children that transcode.
pub(super) struct Transcoders {
    runtime: Handle,
    relay: Arc<Relay>,
    known: RwLock<Arc<Known>>,
    probes: Probes,
    stop: WeakStop,
    /// What viewers were lent that needs a child, by the address that asked first: none is to have all children.
    shares: RwLock<Arc<Slots>>,
    jobs: Mutex<HashMap<Key, Arc<Job>>>,
}

/// What the settings say.
struct Known {
    settings: Transcode,
    profiles: Vec<Arc<Profile>>,
}

impl Known {
    fn new(settings: &Settings) -> Self {
        Self { settings: settings.transcode.clone(), profiles: settings.profiles.iter().cloned().map(Arc::new).collect() }
    }

    /// Of what viewers wish for, so much for one address.
    fn shares(&self) -> Arc<Slots> {
        Slots::new(usize::MAX, (self.settings.children / 2).max(1))
    }
}

/// A publishing point's claim on a child: it runs until the last one is dropped.
pub(super) struct Subscription {
    transcoders: Arc<Transcoders>,
    job: Arc<Job>,
    watched: Watched,
}

/// Lets a share count until nobody watches what it was taken for: a child that lingers is no wish of anybody's, and who looks through
/// many names one after the other has one.
pub(super) fn count_while_watched(point: &Point, share: Slot) {
    let share = Mutex::new(Some(share));
    point.on_watchers(Box::new(move |watchers| {
        if watchers == 0 {
            share.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }));
}

/// Why there is no child now.
#[derive(Debug)]
enum NoChild {
    /// Enough children run.
    Full,
    /// The input comes to one port of this machine, which a child of another profile has.
    PortTaken,
}

impl NoChild {
    /// For who looks after the source.
    const fn reason(&self) -> &'static str {
        match self {
            Self::Full => "as many children transcode as the settings allow ([transcode] children)",
            Self::PortTaken => {
                "its input comes to one port of this machine, which another publishing point has in another profile"
            }
        }
    }
}

impl Transcoders {
    pub(super) fn new(runtime: Handle, relay: Arc<Relay>, settings: &Settings, stop: WeakStop) -> Arc<Self> {
        let known = Known::new(settings);
        let (probes, jobs, shares) = (Probes::default(), Mutex::default(), RwLock::new(known.shares()));
        Arc::new(Self { runtime, relay, known: RwLock::new(Arc::new(known)), probes, stop, shares, jobs })
    }

    /// Other settings hold for children that are started from now on.
    pub(super) fn apply(&self, settings: &Settings) {
        let known = Known::new(settings);
        if known.settings.children != self.known().settings.children {
            *self.shares.write().unwrap_or_else(PoisonError::into_inner) = known.shares();
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Feeds a publishing point whose source is of type ffmpeg, until the daemon stops.
    pub(super) fn feed(self: &Arc<Self>, point: Arc<Point>, stop: Stop) {
        let Source::Ffmpeg { input, profile, start, linger } = point.settings().source.clone() else { return };
        // The settings name no other than there are.
        let Some(profile) = self.profile(&profile) else { return };
        let span = info_span!("ffmpeg", point = point.name(), profile = &*profile.name);
        let order = Order { input, profile, start, linger };
        let subscriber = Subscriber::new(Arc::clone(self), point, None, order);
        self.runtime.spawn(subscriber.run(stop).instrument(span));
    }

    /// Feeds a publishing point that is lent to one name of a template, while it is watched, until it has gone back.
    pub(super) async fn feed_lent(
        self: &Arc<Self>,
        loan: Loan,
        input: FfmpegInput,
        profile: &str,
        linger: Duration,
        stop: Stop,
        failed: Failed,
    ) {
        let Some(profile) = self.profile(profile) else {
            // The settings have been read again since the viewer named it.
            failed("there is no such profile any more");
            return fail(loan, stop).await;
        };
        let span = info_span!("ffmpeg", point = loan.point().name(), name = loan.name(), profile = &*profile.name);
        let order = Order { input, profile, start: Start::Watched, linger };
        let subscriber = Subscriber::new(Arc::clone(self), Arc::clone(loan.point()), Some(loan), order);
        subscriber.telling(failed).run(stop).instrument(span).await;
    }

    /// Takes the wish for another profile of a publishing point, on any thread.
    pub(super) fn take(self: &Arc<Self>, wish: Wish) {
        let answer = match self.lend(&wish) {
            Ok(watch) => Found::Live(watch),
            Err(refused) => Found::Refused(refused),
        };
        (wish.answer)(answer);
    }

    fn lend(self: &Arc<Self>, wish: &Wish) -> Result<crate::relay::Watch, Refused> {
        let (lender, profile) = (wish.folder.id(), wish.profile.as_deref());
        if let Some(watch) = self.relay.lent(lender, &wish.below, profile) {
            return Ok(watch);
        }
        let order = match (&wish.folder.settings().source, profile.and_then(|name| self.profile(name))) {
            // Never without viewers, whatever the settings say of the publishing point itself.
            (Source::Ffmpeg { input, linger, .. }, Some(profile)) => {
                Order { input: input.clone(), profile, start: Start::Watched, linger: *linger }
            }
            _ => return Err(refused(Hresult::FILE_NOT_FOUND, "unknown_name", "there is no such profile")),
        };
        let share = self.share(wish.viewer, &order.input, &order.profile.name)?;
        let Some(stop) = self.stop.upgrade() else {
            return Err(refused(Hresult::NO_STREAM, NO_CHILD, "the daemon stops"));
        };
        let Some((watch, loan)) = self.relay.lend(lender, &wish.below, profile) else {
            return Err(refused(Hresult::TOO_MANY_SESSIONS, NO_CHILD, "all profiles of this publishing point are lent already"));
        };
        if let Some(loan) = loan {
            let span = info_span!("ffmpeg", point = wish.folder.name(), profile = &*order.profile.name);
            share.into_iter().for_each(|share| count_while_watched(loan.point(), share));
            let subscriber = Subscriber::new(Arc::clone(self), Arc::clone(loan.point()), Some(loan), order);
            self.runtime.spawn(subscriber.run(stop).instrument(span));
        }
        Ok(watch)
    }

    /// Room for what is to be lent at a viewer's wish; where that needs a child, what counts for its address. Half the children are for
    /// others, whatever names and profiles one address asks for.
    ///
    /// # Errors
    /// Enough children run, or so many run for that address already.
    pub(super) fn share(&self, viewer: IpAddr, input: &FfmpegInput, profile: &str) -> Result<Option<Slot>, Refused> {
        let key = self.profile(profile).map(|profile| (input.clone(), profile));
        let (is_there, has_room) = {
            let jobs = self.lock();
            let has_room = has_room(&jobs, self.known().settings.children) || lingering(&jobs).is_some();
            (key.is_some_and(|key| jobs.contains_key(&key)), has_room)
        };
        if is_there {
            return Ok(None);
        }
        if !has_room {
            let reason = "as many children transcode as the settings allow ([transcode] children)";
            return Err(refused(Hresult::TOO_MANY_SESSIONS, NO_CHILD, reason));
        }
        let reason = "viewers of this address have half of [transcode] children already, and the rest is for others";
        let shares = Arc::clone(&self.shares.read().unwrap_or_else(PoisonError::into_inner));
        shares.take(viewer).map(Some).ok_or_else(|| refused(Hresult::TOO_MANY_SESSIONS, NO_SHARE, reason))
    }

    fn profile(&self, name: &str) -> Option<Arc<Profile>> {
        self.known().profiles.iter().find(|profile| profile.is_called(name)).cloned()
    }

    /// A claim on the child of an input and a profile; the first one starts it. `point`: who wants it, for the metrics; `watched`: for
    /// how long. Where all places are taken a child that merely lingers gives way.
    ///
    /// # Errors
    /// [`NoChild`], which is counted and told.
    fn subscribe(self: &Arc<Self>, order: &Order, point: &str, watched: &Watched) -> Result<Subscription, NoChild> {
        let key = (order.input.clone(), Arc::clone(&order.profile));
        let children = self.known().settings.children;
        let mut jobs = self.lock();
        let subscription = |job| Subscription { transcoders: Arc::clone(self), job, watched: watched.clone() };
        if order.input.owns_port()
            && let Some(other) = jobs.values().find(|job| job.input == order.input && job.profile != order.profile)
        {
            let other = other.profile.name.clone();
            drop(jobs);
            counter!(REFUSALS, "cause" => NO_PORT).increment(1);
            warn!(
                input = url_without_secrets(&order.input.input),
                "not started: the input comes to one port of this machine, which the child of profile {other:?} has"
            );
            return Err(NoChild::PortTaken);
        }
        let known = jobs.get(&key).map(Arc::clone);
        if let Some(job) = known.as_ref().filter(|job| job.takes_place()) {
            job.claim(watched.clone());
            return Ok(subscription(Arc::clone(job)));
        }
        let mut room = has_room(&jobs, children);
        if !room && let Some(lingering) = lingering(&jobs) {
            info!(
                input = url_without_secrets(&lingering.input.input),
                "nobody watches it, and its place is wanted: it gives way"
            );
            lingering.give_way();
            room = has_room(&jobs, children);
        }
        let (true, Some(stop)) = (room, self.stop.upgrade()) else {
            drop(jobs);
            counter!(REFUSALS, "cause" => NO_CHILD).increment(1);
            warn!(children, "not started: as many children transcode as the settings allow ([transcode] children)");
            return Err(NoChild::Full);
        };
        if let Some(job) = known {
            job.claim(watched.clone());
            return Ok(subscription(job));
        }
        let job = Arc::new(Job::new(order.input.clone(), Arc::clone(&order.profile)));
        job.claim(watched.clone());
        jobs.insert(key.clone(), Arc::clone(&job));
        drop(jobs);
        let meters = Meters::new(point, &order.profile.name);
        let (transcoders, running) = (Arc::clone(self), Arc::clone(&job));
        let span = info_span!("transcode", point, profile = &*order.profile.name);
        self.runtime.spawn(transcoders.keep(key, running, meters, stop).instrument(span));
        Ok(subscription(job))
    }

    /// Runs a job until nobody wants it. It counts until its child has ended: an input may be had by one only.
    async fn keep(self: Arc<Self>, key: Key, job: Arc<Job>, meters: Meters, mut stop: Stop) {
        loop {
            let known = self.known();
            job.run(&known.settings, &self.probes, &meters, &mut stop).await;
            let mut jobs = self.lock();
            if *job.wanted.borrow() == 0 || self.stop.upgrade().is_none() {
                jobs.remove(&key);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one more child may run. Those that end do not count, so that who zaps need not wait for it, but there are no more of these
/// than of others.
fn has_room(jobs: &HashMap<Key, Arc<Job>>, children: usize) -> bool {
    let taken = jobs.values().filter(|job| job.takes_place()).count();
    taken < children && jobs.len() < children.saturating_mul(2)
}

/// One that runs for nobody.
fn lingering(jobs: &HashMap<Key, Arc<Job>>) -> Option<&Arc<Job>> {
    jobs.values().find(|job| job.takes_place() && job.lingers())
}

fn refused(hr: Hresult, cause: &'static str, reason: &str) -> Refused {
    Refused { hr, cause, reason: reason.to_owned() }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Under the lock, so that a job is not given up while somebody claims it.
        let _jobs = self.transcoders.lock();
        self.job.release(&self.watched);
    }
}

#[cfg(test)]
mod tests;
