//! A publishing point: a name, one live source, many viewers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::batch::Generation;
use super::delivery::{Delivery, PointId, ShardPort};
use super::publish::Feed;
use crate::settings::{PublishingPoint, Source};

/// Metrics name at most this many publishing points; the rest share one label.
const LABELLED_POINTS: u32 = 100;

/// A name that viewers can open, and the state of its source.
pub struct Point {
    id: PointId,
    settings: PublishingPoint,
    shards: Arc<[Arc<dyn ShardPort>]>,
    generation: Mutex<Option<Arc<Generation>>>,
    pub(super) feed: Mutex<Feed>,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    count: u32,
    listeners: Vec<Box<dyn Fn(u32) + Send + Sync>>,
}

/// Counts as one watcher of a publishing point until it is dropped.
pub struct Watch {
    point: Arc<Point>,
}

impl Point {
    pub(super) fn new(id: PointId, settings: PublishingPoint, shards: Arc<[Arc<dyn ShardPort>]>) -> Self {
        let (generation, feed, watchers) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { id, settings, shards, generation, feed, watchers }
    }

    /// Its index.
    pub fn id(&self) -> PointId {
        self.id
    }

    /// Its name, as the settings write it.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What the settings say of it.
    pub fn settings(&self) -> &PublishingPoint {
        &self.settings
    }

    /// The `point` label of metrics: the name, or `other` from the 101st publishing point on.
    pub fn label(&self) -> &str {
        if self.id.0 < LABELLED_POINTS { &self.settings.name } else { "other" }
    }

    /// The current header; `None` before the first one, and after the end of the stream until a source is back.
    ///
    /// Shards hear of it by [`Delivery::Generation`] also, which may lag behind this answer.
    pub fn generation(&self) -> Option<Arc<Generation>> {
        self.lock_generation().clone()
    }

    /// Whether a source comes by itself, so that a join may wait for the first header.
    pub fn source_expected(&self) -> bool {
        !matches!(self.settings.source, Source::Push)
    }

    /// Counts a watcher for as long as the guard lives.
    pub fn watch(self: &Arc<Self>) -> Watch {
        self.change_watchers(|count| count + 1);
        Watch { point: Arc::clone(self) }
    }

    /// Watchers now.
    pub fn watchers(&self) -> u32 {
        self.lock_watchers().count
    }

    /// Calls `listener` with the number of watchers: now, and whenever it changes. Calls come one at a time and
    /// in order; the listener must not block, nor call the watcher functions of this publishing point.
    pub fn on_watchers(&self, listener: Box<dyn Fn(u32) + Send + Sync>) {
        let mut watchers = self.lock_watchers();
        listener(watchers.count);
        watchers.listeners.push(listener);
    }

    pub(super) fn set_generation(&self, generation: Option<Arc<Generation>>) {
        *self.lock_generation() = generation;
    }

    pub(super) fn deliver(&self, delivery: &Delivery) {
        self.shards.iter().for_each(|shard| shard.deliver(delivery.clone()));
    }

    pub(super) fn lock_feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_generation(&self) -> MutexGuard<'_, Option<Arc<Generation>>> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_watchers(&self, change: impl FnOnce(u32) -> u32) {
        let mut watchers = self.lock_watchers();
        watchers.count = change(watchers.count);
        watchers.listeners.iter().for_each(|listener| listener(watchers.count));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.point.change_watchers(|count| count.saturating_sub(1));
    }
}
