//! A publishing point: a name, one live source, many viewers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge};

use super::admission::Account;
use super::batch::Generation;
use super::counted::Counted;
use super::delivery::{Delivery, PointId, ShardPort};
use super::drops::{DropCause, Drops};
use super::faults::Fault;
use super::ids::{Place, PointIds, Vacancy};
use super::publish::{Feed, PublishRefusal, Publisher, PublisherId};
use super::recutting::DatagramRoom;
use crate::asf::{Header, PacketError};
use crate::metrics as names;
use crate::settings::{PublishingPoint, Settings, Source};
use crate::wire::Guid;

/// Larger batches would make viewers wait for each other; smaller ones are the source's own business.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// A name that viewers can open, and the state of its source.
pub struct Point {
    id: PointId,
    name: Box<str>,
    settings: RwLock<Arc<PublishingPoint>>,
    shared: Arc<Shared>,
    meters: Meters,
    generation: Mutex<Option<Arc<Generation>>>,
    feed: Mutex<Feed>,
    watchers: Mutex<Watchers>,
    /// While it is lent, that of the name which it is lent to.
    account: Mutex<Account>,
    /// Who hears of it beside the shards.
    followers: Mutex<Vec<Weak<dyn ShardPort>>>,
    source_listeners: Mutex<Vec<SourceListener>>,
}

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    /// It sends.
    pub up: bool,
    /// Something stands in for it.
    pub on_fallback: bool,
    /// Since when.
    pub on_fallback_since: Option<Instant>,
    /// Packets that were taken of it, as long as the daemon runs.
    pub packets: u64,
    /// Those that were no valid ASF and were left out.
    pub left_out: u64,
    /// Times that it ended, or could not be had, and nobody had told it to go: an end because nobody watches is none.
    pub restarts: u64,
    /// Why, the last time.
    pub last_fault: Option<Fault>,
    /// When its last packet came.
    pub last_packet: Option<Instant>,
    /// Bits a second, of the last seconds.
    pub bit_rate: u64,
}

/// Hears how many watch, until it says that it does not want to any more.
type WatcherListener = Box<dyn Fn(u32) -> bool + Send + Sync>;

/// Hears whether a source sends.
type SourceListener = Box<dyn Fn(bool) + Send + Sync>;

/// What all publishing points have in common.
pub(super) struct Shared {
    pub(super) shards: Vec<Arc<dyn ShardPort>>,
    /// Makes the File IDs of broadcast headers.
    pub(super) file_ids: Mutex<Box<dyn FnMut() -> Guid + Send>>,
    pub(super) max_batch_bytes: usize,
    /// What packets fit; `None` lets all be.
    datagram_room: Option<DatagramRoom>,
    ids: PointIds,
    /// All that there are, by their numbers.
    live: Mutex<BTreeMap<PointId, Weak<Point>>>,
}

impl Shared {
    /// Batches are cut so that a window holds several of them.
    pub(super) fn new(shards: Vec<Arc<dyn ShardPort>>, file_ids: Box<dyn FnMut() -> Guid + Send>, settings: &Settings) -> Self {
        let window = &settings.window;
        let share = if window.bytes == 0 { MAX_BATCH_BYTES } else { window.bytes / 8 };
        let (file_ids, max_batch_bytes) = (Mutex::new(file_ids), share.min(MAX_BATCH_BYTES));
        let (ids, live) = (PointIds::default(), Mutex::default());
        Self { shards, file_ids, max_batch_bytes, datagram_room: DatagramRoom::new(&settings.udp), ids, live }
    }

    /// A publishing point with a number of its own.
    pub(super) fn make(self: &Arc<Self>, settings: PublishingPoint) -> Arc<Point> {
        let point = Arc::new(Point::new(self.ids.take(), settings, Arc::clone(self)));
        self.lock_live().insert(point.id, Arc::downgrade(&point));
        point
    }

    /// The publishing point that has a number now.
    pub(super) fn by_id(&self, id: PointId) -> Option<Arc<Point>> {
        self.lock_live().get(&id)?.upgrade()
    }

    /// All publishing points that there are.
    pub(super) fn all(&self) -> Vec<Arc<Point>> {
        self.lock_live().values().filter_map(Weak::upgrade).collect()
    }

    /// Takes a publishing point away that nobody feeds, watches or finds any more: its number, and its place, are free when all shards
    /// have let go of it.
    pub(super) fn vacate(&self, point: &Arc<Point>, place: Option<Place>) {
        self.lock_live().remove(&point.id);
        point.vacate(Arc::new(self.ids.vacancy(point.id, place)));
    }

    fn lock_live(&self) -> MutexGuard<'_, BTreeMap<PointId, Weak<Point>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of one publishing point's source.
pub(super) struct Meters {
    /// Sources that send; one at most, but the label `other` counts several. Only ever moved up and down, never set:
    /// a publishing point of the name `other` shares it with all those beyond the last label.
    pub(super) up: Gauge,
    pub(super) restarts: Counter,
    pub(super) packets: Counter,
    pub(super) invalid: Counter,
    /// Moved up and down as `up` is.
    pub(super) fallback: Gauge,
    pub(super) fallbacks: Counter,
    /// By [`DropCause`].
    dropped: [Counter; DropCause::ALL.len()],
}

#[derive(Default)]
struct Watchers {
    count: u32,
    listeners: Vec<WatcherListener>,
}

/// Counts as one watcher of a publishing point until it is dropped.
pub struct Watch {
    point: Arc<Point>,
}

impl Point {
    pub(super) fn new(id: PointId, settings: PublishingPoint, shared: Arc<Shared>) -> Self {
        let label = names::point_label(&settings.name);
        let meters = Meters {
            up: gauge!(names::SOURCE_UP, "point" => label.clone()),
            restarts: counter!(names::SOURCE_RESTARTS, "point" => label.clone()),
            packets: counter!(names::SOURCE_PACKETS, "point" => label.clone()),
            invalid: counter!(names::SOURCE_INVALID_PACKETS, "point" => label.clone()),
            fallback: gauge!(names::SOURCE_FALLBACK, "point" => label.clone()),
            fallbacks: counter!(names::SOURCE_FALLBACKS, "point" => label.clone()),
            dropped: DropCause::ALL
                .map(|cause| counter!(names::DROPPED_PACKETS, "point" => label.clone(), "cause" => cause.label())),
        };
        // So that the metric is there before the source is.
        meters.up.increment(0);
        if settings.fallback.is_some() {
            meters.fallback.increment(0);
        }
        let (generation, feed, watchers, followers) = (Mutex::default(), Mutex::default(), Mutex::default(), Mutex::default());
        let account = Mutex::new(Account::of_point(id));
        let (name, settings) = (settings.name.as_str().into(), RwLock::new(Arc::new(settings)));
        let source_listeners = Mutex::default();
        Self { id, name, settings, shared, meters, generation, feed, watchers, account, followers, source_listeners }
    }

    /// Its index.
    pub fn id(&self) -> PointId {
        self.id
    }

    /// What its viewers count for against the limit of a publishing point: all profiles of one stream are one.
    pub fn account(&self) -> Account {
        *self.lock_account()
    }

    pub(super) fn set_account(&self, account: Account) {
        *self.lock_account() = account;
    }

    fn lock_account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name, as the settings write it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole name of what a viewer opens here, `below` as [`Relay::resolve`](super::Relay::resolve) says it: what access keys
    /// are made for.
    pub fn full_name(&self, below: &str) -> String {
        match below {
            "" => self.name().to_owned(),
            whole if self.settings().lends_whole_names() => whole.to_owned(),
            path => format!("{}/{path}", self.name()),
        }
    }

    /// What the settings say of it now.
    pub fn settings(&self) -> Arc<PublishingPoint> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The settings say something else of it from now on; its name stays. Who watches goes on. A publisher that pushes has to go where
    /// another kind of source comes.
    pub(super) fn set_settings(&self, settings: PublishingPoint) {
        if settings.fallback.is_some() {
            // So that the metric is there before it is needed.
            self.meters.fallback.increment(0);
        }
        let mut feed = self.lock_feed();
        let other_source = settings.source != self.settings().source;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        feed.judge_commands(self);
        if other_source {
            feed.expel(self);
        }
    }

    /// Takes it away: viewers get the end of the stream, and nobody can feed it any more.
    pub(super) fn close(&self) {
        let mut feed = self.lock_feed();
        feed.close();
        feed.expel(self);
        feed.end(self);
    }

    /// The current header; `None` before the first one, and after the end of the stream until a source is back.
    ///
    /// Shards hear of it by [`Delivery::Generation`] also, which may lag behind this answer.
    pub fn generation(&self) -> Option<Arc<Generation>> {
        self.lock_generation().clone()
    }

    /// Whether a source comes by itself, or something that stands in for it, so that a join may wait for the first header.
    pub fn source_expected(&self) -> bool {
        let settings = self.settings();
        if self.lock_feed().is_closed() {
            return false;
        }
        settings.fallback.is_some() || !matches!(settings.source, Source::Push)
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
        self.on_watchers_while(Box::new(move |count| {
            listener(count);
            true
        }));
    }

    /// As [`Point::on_watchers`], until the listener answers `false`.
    pub fn on_watchers_while(&self, listener: Box<dyn Fn(u32) -> bool + Send + Sync>) {
        let mut watchers = self.lock_watchers();
        let count = watchers.count;
        if listener(count) {
            watchers.listeners.push(listener);
        }
    }

    /// Calls `listener` when a source begins to send, if one does already at once, and when it is gone. Calls come one at a time and
    /// in order; the listener must not block, nor call this publishing point.
    pub fn on_source(&self, listener: SourceListener) {
        let feed = self.lock_feed();
        if feed.is_up() {
            listener(true);
        }
        self.lock_source_listeners().push(listener);
    }

    /// The right to feed it. A publisher with the same credentials that was silent for 2 s is superseded: its calls fail
    /// from now on.
    ///
    /// # Errors
    /// [`PublishRefusal::NotPush`] and [`PublishRefusal::Busy`].
    pub fn publish(self: &Arc<Self>, now: Instant, credentials: PublisherId) -> Result<Publisher, PublishRefusal> {
        Publisher::new(Arc::clone(self), now, credentials)
    }

    /// The right to feed it in place of its source, where the settings let something stand in and no packet of the source has come
    /// for as long as they say. The source gets its place back with its first key frame; calls of the stand-in fail from then on.
    /// One that stood in before is superseded.
    ///
    /// # Errors
    /// How long it takes until then if the source stays silent.
    pub fn stand_in(self: &Arc<Self>, now: Instant) -> Result<Publisher, Duration> {
        Publisher::stand_in(Arc::clone(self), now)
    }

    /// The source is asked for from now on: its silence counts from here, for [`Point::stand_in`].
    pub fn expect_source(&self, now: Instant) {
        self.lock_feed().expect_source(now);
    }

    /// The header that the source sent last, be the source there or not, and as viewers get it: for packets that fit a datagram.
    pub fn source_header(&self) -> Option<Header> {
        let header = self.lock_feed().source_header().cloned()?;
        Some(self.fitting(&header).unwrap_or(header))
    }

    /// Takes the right to feed it from the source that has it: that hears so with its next packet or sign of life. Whether there was
    /// one. A source of ours begins again by itself.
    pub fn disconnect_source(&self) -> bool {
        self.lock_feed().dismiss()
    }

    /// How its source is.
    pub fn source_health(&self) -> SourceHealth {
        let feed = self.lock_feed();
        let Counted { packets, left_out, restarts, last: last_packet, bit_rate, .. } = feed.counted();
        SourceHealth {
            up: feed.is_up(),
            on_fallback: feed.is_on_fallback(),
            on_fallback_since: feed.stands_in_since(),
            packets,
            left_out,
            restarts,
            last_fault: feed.last_fault().cloned(),
            last_packet,
            bit_rate,
        }
    }

    /// Its source ended, or could not begin, and that was not wanted: `reason` is kept, in words for a person, and counted as a
    /// restart. Of a source that was told to go nothing is.
    pub fn source_failed(&self, now: Instant, reason: &str) {
        self.lock_feed().failed(now, reason, self);
    }

    /// A name that it would lend brought nothing; `reason` says which, and is kept. No source of its own ended.
    pub fn name_failed(&self, now: Instant, reason: &str) {
        self.lock_feed().name_failed(now, reason);
    }

    /// Tells `follower` what the shards are told, for as long as it lives: the present generation first, if there is one.
    pub fn follow(&self, follower: &Arc<dyn ShardPort>) {
        // Nothing is delivered in between.
        let _feed = self.lock_feed();
        if let Some(generation) = self.generation() {
            follower.deliver(Delivery::Generation { point: self.id, generation });
        }
        self.lock_followers().push(Arc::downgrade(follower));
    }

    /// Ends the stream: viewers get its end, and those who wait for its beginning are refused. A source that comes back
    /// begins another one.
    pub fn end(&self) {
        self.lock_feed().end(self);
    }

    /// Whether it is for publishers, and no other one keeps out who has its credentials.
    pub(super) fn awaits_publisher(&self, now: Instant) -> bool {
        self.settings().source == Source::Push && self.lock_feed().awaits_publisher(now)
    }

    /// Whether a publisher has the right to feed it now.
    pub(super) fn is_fed(&self) -> bool {
        self.lock_feed().has_publisher()
    }

    /// Forgets the source and whoever listened, and tells the shards to do the same.
    pub(super) fn vacate(&self, vacancy: Arc<Vacancy>) {
        self.lock_watchers().listeners.clear();
        let mut feed = self.lock_feed();
        feed.forget(self);
        self.lock_source_listeners().clear();
        self.set_generation(None);
        self.deliver(&Delivery::Vacated { point: self.id, vacancy });
    }

    pub(super) fn set_generation(&self, generation: Option<Arc<Generation>>) {
        *self.lock_generation() = generation;
    }

    /// Makes a generation the current one and tells the shards.
    pub(super) fn open_generation(&self, generation: Arc<Generation>) {
        self.set_generation(Some(Arc::clone(&generation)));
        self.deliver(&Delivery::Generation { point: self.id, generation });
    }

    pub(super) fn deliver(&self, delivery: &Delivery) {
        self.shared.shards.iter().for_each(|shard| shard.deliver(delivery.clone()));
        self.lock_followers().retain(|follower| {
            let follower = follower.upgrade();
            follower.inspect(|follower| follower.deliver(delivery.clone())).is_some()
        });
    }

    /// A new File ID.
    pub(super) fn file_id(&self) -> Guid {
        (self.shared.file_ids.lock().unwrap_or_else(PoisonError::into_inner))()
    }

    pub(super) fn max_batch_bytes(&self) -> usize {
        self.shared.max_batch_bytes
    }

    /// The header that viewers get instead of a source's where its packets are to be cut anew.
    pub fn fitting(&self, header: &Header) -> Option<Header> {
        self.shared.datagram_room?.fitting(header)
    }

    /// The source sends, or does not any more. Called with the feed locked.
    pub(super) fn tell_source(&self, is_up: bool) {
        if is_up {
            self.meters.up.increment(1);
        } else {
            self.meters.up.decrement(1);
        }
        self.lock_source_listeners().iter().for_each(|listener| listener(is_up));
    }

    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    /// A packet is left out: counts it, and tells it unless that was just told.
    pub(super) fn drops(&self, drops: &mut Drops, now: Instant, cause: DropCause, error: &PacketError) {
        if let Some(counter) = self.meters.dropped.get(cause as usize) {
            counter.increment(1);
        }
        if let Some(packets) = drops.note(now, cause) {
            tracing::warn!(point = self.name(), cause = cause.label(), packets, %error, "packets of this source are left out");
        }
    }

    pub(super) fn lock_feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tick(&self, now: Instant) {
        self.lock_feed().tick(now, self);
    }

    fn lock_generation(&self) -> MutexGuard<'_, Option<Arc<Generation>>> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_followers(&self) -> MutexGuard<'_, Vec<Weak<dyn ShardPort>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_source_listeners(&self) -> MutexGuard<'_, Vec<SourceListener>> {
        self.source_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_watchers(&self, change: impl FnOnce(u32) -> u32) {
        let mut watchers = self.lock_watchers();
        watchers.count = change(watchers.count);
        let count = watchers.count;
        watchers.listeners.retain(|listener| listener(count));
    }
}

impl Watch {
    /// What is watched.
    pub fn point(&self) -> &Arc<Point> {
        &self.point
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point").field("id", &self.id).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("point", &self.point).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.point.change_watchers(|count| count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> Arc<Point> {
        let settings = Settings::default();
        let shared = Shared::new(Vec::new(), Box::new(Guid::default), &settings);
        Arc::new(Point::new(PointId(0), settings.publishing_points_or_demo().remove(0), Arc::new(shared)))
    }

    #[test]
    fn watchers_are_told_in_order() {
        let (point, told) = (point(), Arc::new(Mutex::new(Vec::new())));
        let first = point.watch();
        let listener = Arc::clone(&told);
        point.on_watchers(Box::new(move |count| listener.lock().unwrap().push(count)));
        let second = point.watch();
        drop((first, second));
        assert_eq!(*told.lock().unwrap(), [1, 2, 1, 0]);
        assert_eq!(point.watchers(), 0);
    }

    #[test]
    fn who_wants_to_hear_no_more_does_not() {
        let (point, told) = (point(), Arc::new(Mutex::new(Vec::new())));
        let listener = Arc::clone(&told);
        point.on_watchers_while(Box::new(move |count| {
            listener.lock().unwrap().push(count);
            count < 2
        }));
        let watches = [point.watch(), point.watch(), point.watch()];
        drop(watches);
        assert_eq!(*told.lock().unwrap(), [0, 1, 2]);
        assert_eq!(point.lock_watchers().listeners.len(), 0);
    }

    #[test]
    fn points_of_one_label_add_up() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        // Built with the recorder in place, as the daemon does.
        let named = |id| {
            let shared = Shared::new(Vec::new(), Box::new(Guid::default), &Settings::default());
            let settings = PublishingPoint::new(names::OTHER, Source::Demo);
            Point::new(PointId(id), settings, Arc::new(shared))
        };
        metrics::with_local_recorder(&recorder, || {
            let (one, two) = (named(0), named(1));
            for point in [&one, &two] {
                point.meters().up.increment(1);
                point.meters().packets.increment(5);
            }
            one.meters().up.decrement(1);
            // A publishing point that begins later leaves the value alone.
            named(2);
        });
        let page = recorder.handle().render();
        assert!(page.contains("wmrelay_source_up{point=\"other\"} 1\n"), "{page}");
        assert!(page.contains("wmrelay_source_packets_total{point=\"other\"} 10\n"), "{page}");
    }
}
