//! Publishing points that publishers make by publishing to a name that there is not.
//!
//! One that was taken away leaves its number and place free when nobody has it any more and every shard has let go of what it kept of
//! it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;

use super::delivery::PointId;
use super::ids::{Place, Places};
use super::point::{Point, Shared};
use crate::settings::{PointAccess, PublishingPoint, Settings, check_name};

/// Why a publishing point is not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CreateRefusal {
    /// The settings do not say so.
    #[error("publishers make no publishing points here; `create = true` in [publish] would let them")]
    Off,
    /// Nobody could open it.
    #[error("no publishing point can have that name: {0}")]
    Name(String),
    /// It is there, or below one that is a folder.
    #[error("the name {name:?} belongs to the publishing point {by:?}")]
    Taken {
        /// The name asked for.
        name: String,
        /// Whose it is.
        by: String,
    },
    /// The one whose settings are to be taken over is not there, or is fed in another way.
    #[error("the template {name:?} is no publishing point with a source of type \"push\"")]
    Template {
        /// The name of the template.
        name: String,
    },
    /// As many are there as may be.
    #[error("publishers have made {most} publishing points already; `create_limit` in [publish] says how many there may be")]
    Full {
        /// How many.
        most: usize,
    },
}

/// The publishing points that publishers have made.
pub(super) struct Created {
    shared: Arc<Shared>,
    places: Places,
    book: Mutex<Book>,
}

struct Book {
    rules: Rules,
    /// By name in lower case: names that differ in capitals alone are one.
    by_name: HashMap<String, PointId>,
    all: HashMap<PointId, Entry>,
}

/// What the settings say.
struct Rules {
    /// Whether there may be new ones, and how many there may be.
    create: bool,
    most: usize,
    /// What those have that are made without a template.
    template: PublishingPoint,
}

impl Rules {
    fn new(settings: &Settings) -> Self {
        let access = PointAccess { viewers: settings.access.viewers, ..PointAccess::default() };
        let commands = settings.hooks.commands.clone();
        let template = PublishingPoint { access, commands, ..PublishingPoint::push(String::new(), settings.source_timeout) };
        Self { create: settings.publish.create, most: settings.publish.create_limit, template }
    }
}

struct Entry {
    point: Arc<Point>,
    /// It counts.
    place: Place,
    /// It was taken away: nobody finds it by its name.
    is_leaving: bool,
    /// Since when nobody feeds or watches it.
    idle_since: Option<Instant>,
}

impl Created {
    pub(super) fn new(settings: &Settings, shared: Arc<Shared>) -> Self {
        let book = Book { rules: Rules::new(settings), by_name: HashMap::new(), all: HashMap::new() };
        Self { shared, places: Places::default(), book: Mutex::new(book) }
    }

    /// Other settings hold for those that are made from now on; those that are there stay.
    pub(super) fn apply(&self, settings: &Settings) {
        self.lock().rules = Rules::new(settings);
    }

    /// Whether there may be new ones.
    pub(super) fn is_open(&self) -> bool {
        self.lock().rules.create
    }

    pub(super) fn point(&self, name: &str) -> Option<Arc<Point>> {
        let book = self.lock();
        let id = book.by_name.get(&name.to_ascii_lowercase())?;
        book.all.get(id).map(|entry| Arc::clone(&entry.point))
    }

    /// Whether it was made by a publisher.
    pub(super) fn has(&self, id: PointId) -> bool {
        self.lock().all.contains_key(&id)
    }

    pub(super) fn create(&self, name: &str, template: Option<PublishingPoint>) -> Result<Arc<Point>, CreateRefusal> {
        check_name(name).map_err(CreateRefusal::Name)?;
        self.vacate_all();
        let mut book = self.lock();
        if !book.rules.create {
            return Err(CreateRefusal::Off);
        }
        let folded = name.to_ascii_lowercase();
        if book.by_name.contains_key(&folded) {
            return Err(CreateRefusal::Taken { name: name.to_owned(), by: name.to_owned() });
        }
        let most = book.rules.most;
        let place = self.places.take(most).ok_or(CreateRefusal::Full { most })?;
        let template = template.unwrap_or_else(|| book.rules.template.clone());
        // Nothing stands in where a publisher that ends is to end it.
        let point = self.shared.make(PublishingPoint { name: name.to_owned(), fallback: None, ..template });
        book.by_name.insert(folded, point.id());
        book.all.insert(point.id(), Entry { point: Arc::clone(&point), place, is_leaving: false, idle_since: None });
        Ok(point)
    }

    /// Nobody finds it from now on, those who watch it get the end, and who still feeds it is told to go.
    pub(super) fn destroy(&self, point: &Arc<Point>) {
        let mut book = self.lock();
        let Book { by_name, all, .. } = &mut *book;
        let own = all.get_mut(&point.id()).filter(|entry| Arc::ptr_eq(&entry.point, point));
        if let Some(entry) = own.filter(|entry| !entry.is_leaving) {
            entry.is_leaving = true;
            by_name.remove(&point.name().to_ascii_lowercase());
            drop(book);
            point.close();
        }
    }

    /// Lets time pass: publishing points that nobody feeds or watches for their time-out of the source go, and places of those that
    /// went become free.
    pub(super) fn tick(&self, now: Instant) {
        for point in self.in_use() {
            if self.is_deserted(now, &point) {
                self.destroy(&point);
            }
        }
        self.vacate_all();
    }

    fn in_use(&self) -> Vec<Arc<Point>> {
        self.lock().all.values().filter(|entry| !entry.is_leaving).map(|entry| Arc::clone(&entry.point)).collect()
    }

    fn is_deserted(&self, now: Instant, point: &Point) -> bool {
        let in_use = point.is_fed() || point.watchers() > 0;
        let mut book = self.lock();
        let Some(entry) = book.all.get_mut(&point.id()) else { return false };
        if in_use {
            entry.idle_since = None;
            return false;
        }
        let idle = now.saturating_duration_since(*entry.idle_since.get_or_insert(now));
        point.settings().source_timeout.is_some_and(|timeout| idle >= timeout)
    }

    /// Frees the places whose publishing points were taken away and that nobody has any more: nobody can find them, so nobody will.
    fn vacate_all(&self) {
        let left: Vec<_> =
            self.lock().all.extract_if(|_, entry| entry.is_leaving && Arc::strong_count(&entry.point) == 1).collect();
        for (_, Entry { point, place, .. }) in left {
            self.shared.vacate(&point, Some(place));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::asf::samples;
    use crate::relay::testing::{Shard, base};
    use crate::relay::{Delivery, PublisherId, Relay, ShardPort};
    use crate::settings::{Publish, Source};
    use crate::wire::Guid;

    const SECOND: Duration = Duration::from_secs(1);

    fn relay(create: bool) -> (Arc<Relay>, Arc<Shard>) {
        let files =
            PublishingPoint { source: Source::Files { root: "/srv".into() }, ..PublishingPoint::push("files".into(), None) };
        let points = vec![PublishingPoint::push("cam".into(), Some(5 * SECOND)), files];
        let publish = Publish { create, create_limit: 2 };
        let settings = Settings { publishing_points: points, publish, ..Settings::default() };
        let shard = Arc::<Shard>::default();
        (Relay::new(&settings, Box::new(Guid::default), vec![Arc::clone(&shard) as Arc<dyn ShardPort>]), shard)
    }

    #[test]
    fn names_are_made_and_found() {
        let (relay, _) = relay(true);
        let new = relay.create("New/one", Some("CAM")).unwrap();
        assert_eq!((new.id(), new.name(), new.settings().source_timeout), (PointId(2), "New/one", Some(5 * SECOND)));
        assert!(relay.is_created(new.id()) && !relay.is_created(PointId(1)));
        for name in ["New/one", "new/ONE"] {
            assert!(Arc::ptr_eq(&relay.point(name).unwrap(), &new), "{name}");
        }
        assert!(relay.resolve("new/one/below").is_none() && Arc::ptr_eq(&relay.by_id(new.id()).unwrap(), &new));
        assert_eq!(relay.points().len(), 2);
        let other = relay.create("other", None).unwrap();
        assert_eq!(other.settings().source_timeout, Settings::default().source_timeout);
        assert_eq!(relay.create("third", None).unwrap_err(), CreateRefusal::Full { most: 2 });
        assert!(relay.publish(base(), "New/One", PublisherId::Local).is_ok());
    }

    #[test]
    fn names_that_cannot_be_had() {
        let (relay, _) = relay(true);
        assert!(matches!(relay.create("cam", None), Err(CreateRefusal::Taken { .. })));
        assert!(matches!(relay.create("files/x", None), Err(CreateRefusal::Taken { by, .. }) if by == "files"));
        for template in ["nobody", "files"] {
            assert_eq!(relay.create("x", Some(template)).unwrap_err(), CreateRefusal::Template { name: template.into() });
        }
        for name in ["publish", "publish/x", "x.asx", "X.SDP", "a\r\nb", "a/../b", "a//b", "a\\b", "c:\\x", "", " x", "a?b"] {
            assert!(matches!(relay.create(name, None), Err(CreateRefusal::Name(_))), "{name:?}");
        }
        let (off, _) = self::relay(false);
        assert!(matches!(off.create("x", None), Err(CreateRefusal::Off)));
        for (name, on_and_off) in [("x", [true, false]), ("files", [false; 2]), ("files/x", [false; 2]), ("cam", [true; 2])] {
            assert_eq!([&relay, &off].map(|relay| relay.awaits_publisher(base(), name)), on_and_off, "{name}");
        }
    }

    #[test]
    fn a_place_is_free_when_nobody_has_it() {
        let (relay, shard) = relay(true);
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let point = relay.create("new", None).unwrap();
        let watch = point.watch();
        let mut publisher = point.publish(base(), PublisherId::Local).unwrap();
        publisher.header(base(), 0, &header).unwrap();
        publisher.packets(base(), packets[0].as_slice().into()).unwrap();
        drop(publisher);
        shard.told();
        relay.destroy(&point);
        assert!(matches!(&shard.told()[..], [Delivery::Ended { .. }]) && relay.point("new").is_none());
        // The name can be had at once, the place cannot.
        assert_eq!(relay.create("new", None).unwrap().id(), PointId(3));
        drop(point);
        relay.tick(base());
        assert!(shard.told().is_empty(), "somebody watches");
        drop(watch);
        relay.tick(base());
        let told = shard.told();
        assert!(matches!(&told[..], [Delivery::Vacated { point: PointId(2), .. }]), "{told:?}");
        assert!(matches!(relay.create("third", None), Err(CreateRefusal::Full { .. })), "the shard has not let go");
        drop(told);
        assert_eq!(relay.create("third", None).unwrap().id(), PointId(2));
        relay.destroy(&relay.point("cam").unwrap());
        assert!(relay.point("cam").is_some(), "nobody made that one");
    }

    #[test]
    fn what_nobody_feeds_or_watches_goes() {
        let (relay, shard) = relay(true);
        let start = base();
        let tick = |seconds: u32| relay.tick(start + seconds * SECOND);
        let there = || relay.point("new").is_some();
        let point = relay.create("new", Some("cam")).unwrap();
        let publisher = point.publish(base(), PublisherId::Local).unwrap();
        [0, 100].into_iter().for_each(tick);
        assert!(there(), "it is fed");
        let watch = point.watch();
        drop((publisher, point));
        [101, 110].into_iter().for_each(tick);
        assert!(there(), "it is watched");
        drop(watch);
        [111, 115].into_iter().for_each(tick);
        assert!(there());
        tick(116);
        assert!(!there());
        // In the same tick the place was given back.
        assert!(shard.told().iter().any(|told| matches!(told, Delivery::Vacated { .. })));
    }
}
