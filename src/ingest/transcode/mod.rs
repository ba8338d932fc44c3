//! Inputs that ffmpeg reads: one child for each input and profile, shared by all publishing points that want it.
//!
//! A publishing point with such a source wants its own profile; viewers who ask for another one by `?profile=NAME` are lent a
//! publishing point of that, which wants the same input in that profile.

mod argv;
mod job;
mod probe;
mod subscriber;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use tokio::runtime::Handle;
use tokio::time::Duration;
use tracing::{Instrument as _, info_span, warn};

use job::Job;
use probe::Probes;
use subscriber::{Order, Subscriber};
use words::Meters;

use super::lent::Failed;
use super::stop::{Stop, WeakStop};
use crate::metrics::REFUSALS;
use crate::relay::{Loan, Point, Relay};
use crate::settings::{FfmpegInput, Profile, Settings, Source, Start, Transcode};
use crate::shard::{Found, PROFILE, Refused, Wish};
use crate::wire::Hresult;

/// The `cause` label of those who are refused because enough children run.
const NO_CHILD: &str = "transcode_children";

/// An input and the name of a profile, as the settings write it.
type Key = (FfmpegInput, String);

/// All children that transcode.
pub(super) struct Transcoders {
    runtime: Handle,
    relay: Arc<Relay>,
    settings: Transcode,
    profiles: Vec<Arc<Profile>>,
    probes: Probes,
    stop: WeakStop,
    jobs: Mutex<HashMap<Key, Arc<Job>>>,
}

/// A publishing point's claim on a child: it runs until the last one is dropped.
pub(super) struct Subscription {
    transcoders: Arc<Transcoders>,
    job: Arc<Job>,
}

/// Enough children run.
#[derive(Debug)]
struct Full;

impl Transcoders {
    pub(super) fn new(runtime: Handle, relay: Arc<Relay>, settings: &Settings, stop: WeakStop) -> Arc<Self> {
        let profiles = settings.profiles.iter().cloned().map(Arc::new).collect();
        let (settings, probes, jobs) = (settings.transcode.clone(), Probes::default(), Mutex::default());
        Arc::new(Self { runtime, relay, settings, profiles, probes, stop, jobs })
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
        // The settings name no other than there are.
        let Some(profile) = self.profile(profile) else { return };
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
        let refused = |hr, cause, reason: &str| Refused { hr, cause, reason: reason.to_owned() };
        if let Some(watch) = self.relay.lent(wish.folder.id(), &wish.below) {
            return Ok(watch);
        }
        let profile = wish.below.strip_prefix(PROFILE).and_then(|name| self.profile(name));
        let (Source::Ffmpeg { input, linger, .. }, Some(profile)) = (&wish.folder.settings().source, profile) else {
            return Err(refused(Hresult::FILE_NOT_FOUND, "unknown_name", "there is no such profile"));
        };
        let full = "as many children transcode as the settings allow ([transcode] children)";
        let Some(stop) = self.stop.upgrade() else {
            return Err(refused(Hresult::NO_STREAM, NO_CHILD, "the daemon stops"));
        };
        let key = (input.clone(), profile.name.to_string());
        let has_room = {
            let jobs = self.lock();
            jobs.contains_key(&key) || jobs.len() < self.settings.children
        };
        if !has_room {
            return Err(refused(Hresult::TOO_MANY_SESSIONS, NO_CHILD, full));
        }
        let Some((watch, loan)) = self.relay.lend(wish.folder.id(), &wish.below) else {
            return Err(refused(Hresult::TOO_MANY_SESSIONS, NO_CHILD, "all profiles of this publishing point are lent already"));
        };
        if let Some(loan) = loan {
            let span = info_span!("ffmpeg", point = wish.folder.name(), profile = &*profile.name);
            // Never without viewers, whatever the settings say of the publishing point itself.
            let order = Order { input: input.clone(), profile, start: Start::Watched, linger: *linger };
            let subscriber = Subscriber::new(Arc::clone(self), Arc::clone(loan.point()), Some(loan), order);
            self.runtime.spawn(subscriber.run(stop).instrument(span));
        }
        Ok(watch)
    }

    fn profile(&self, name: &str) -> Option<Arc<Profile>> {
        self.profiles.iter().find(|profile| profile.is_called(name)).cloned()
    }

    /// A claim on the child of an input and a profile; the first one starts it. `point`: who wants it, for the metrics.
    ///
    /// # Errors
    /// [`Full`], which is counted and told.
    fn subscribe(self: &Arc<Self>, order: &Order, point: &str) -> Result<Subscription, Full> {
        let key = (order.input.clone(), order.profile.name.to_string());
        let mut jobs = self.lock();
        if let Some(job) = jobs.get(&key) {
            job.wanted.send_modify(|wanted| *wanted += 1);
            return Ok(Subscription { transcoders: Arc::clone(self), job: Arc::clone(job) });
        }
        let room = jobs.len() < self.settings.children;
        let (true, Some(stop)) = (room, self.stop.upgrade()) else {
            drop(jobs);
            counter!(REFUSALS, "cause" => NO_CHILD).increment(1);
            let children = self.settings.children;
            warn!(children, "not started: as many children transcode as the settings allow ([transcode] children)");
            return Err(Full);
        };
        let job = Arc::new(Job::new(order.input.clone(), Arc::clone(&order.profile)));
        job.wanted.send_replace(1);
        jobs.insert(key.clone(), Arc::clone(&job));
        drop(jobs);
        let meters = Meters::new(point, &order.profile.name);
        let (transcoders, running) = (Arc::clone(self), Arc::clone(&job));
        let span = info_span!("transcode", point, profile = &*order.profile.name);
        self.runtime.spawn(transcoders.keep(key, running, meters, stop).instrument(span));
        Ok(Subscription { transcoders: Arc::clone(self), job })
    }

    /// Runs a job until nobody wants it. It counts until its child has ended: an input may be had by one only.
    async fn keep(self: Arc<Self>, key: Key, job: Arc<Job>, meters: Meters, mut stop: Stop) {
        loop {
            job.run(&self.settings, &self.probes, &meters, &mut stop).await;
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

impl Drop for Subscription {
    fn drop(&mut self) {
        // Under the lock, so that a job is not given up while somebody claims it.
        let _jobs = self.transcoders.lock();
        self.job.wanted.send_modify(|wanted| *wanted = wanted.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
