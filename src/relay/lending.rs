//! Publishing points that are lent to names of a mirrored folder or of a template, which nobody knows before a viewer says them; and to
//! other profiles of a transcoded one or of a name of such a template, which may never be wanted.
//!
//! They are there from the beginning, so that their ids stay dense and fixed. A loan ends when nobody watches; the publishing
//! point is lent again once every shard has let go of what it kept of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admission::Account;
use super::delivery::PointId;
use super::point::{Point, Watch};
use crate::settings::{PROFILES_MAX, PublishingPoint, Settings, Source};

/// Names of one folder that can be live at once.
pub const LOANS_PER_FOLDER: usize = 64;

/// How many publishing points one of the settings lends.
pub(super) fn loans_of(point: &PublishingPoint, settings: &Settings) -> usize {
    match &point.source {
        source if point.is_lender() => {
            if source.is_folder() {
                LOANS_PER_FOLDER
            } else {
                point.at_once
            }
        }
        // Its own profile needs none.
        Source::Ffmpeg { .. } => settings.profiles.len().saturating_sub(1).min(PROFILES_MAX),
        _ => 0,
    }
}

/// The publishing points that one folder or template lends, or one that is transcoded.
pub(super) struct Reserve {
    slots: Vec<Arc<Point>>,
    ledger: Arc<Mutex<Ledger>>,
}

struct Ledger {
    /// By the name, of a folder that below it.
    taken: HashMap<Box<str>, Lent>,
    free: FreeSlots,
    accounts: Accounts,
}

/// What is lent to one name.
struct Lent {
    account: Account,
    /// The place of each profile of it; `None` is its own.
    places: Vec<(Option<Box<str>>, usize)>,
}

impl Lent {
    fn place(&self, profile: Option<&str>) -> Option<usize> {
        self.places.iter().find(|(own, _)| own.as_deref() == profile).map(|(_, slot)| *slot)
    }
}

/// What the viewers of what is lent count for.
enum Accounts {
    /// All for the lender, whose stream it is in other profiles.
    Lender(Account),
    /// Those of each name for that, in whatever profile.
    Names {
        lender: PointId,
        /// Of the newest name.
        serial: u64,
    },
}

impl Accounts {
    const fn next(&mut self) -> Account {
        match self {
            Self::Lender(account) => *account,
            Self::Names { lender, serial } => {
                *serial += 1;
                Account::of_name(*lender, *serial)
            }
        }
    }
}

/// Places of publishing points that nobody has.
#[derive(Clone)]
pub(super) struct FreeSlots(Arc<Mutex<Vec<usize>>>);

/// A publishing point that was lent, as the one who feeds it has it. Dropped without [`Loan::give_back`] it stays lent.
pub struct Loan {
    point: Arc<Point>,
    slot: usize,
    name: Box<str>,
    profile: Option<Box<str>>,
    ledger: Arc<Mutex<Ledger>>,
}

/// A publishing point on its way back: it is free when all shards have dropped this.
pub struct Vacancy {
    slot: usize,
    free: FreeSlots,
}

impl FreeSlots {
    /// So many, of which the first is taken first.
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new((0..count).rev().collect())))
    }

    pub(super) fn take(&self) -> Option<usize> {
        lock(&self.0).pop()
    }

    /// What gives a place back when it is dropped.
    pub(super) fn vacancy(&self, slot: usize) -> Vacancy {
        Vacancy { slot, free: self.clone() }
    }
}

impl Reserve {
    /// What `lender` has to lend.
    pub(super) fn new(slots: Vec<Arc<Point>>, lender: &Point) -> Self {
        let free = FreeSlots::new(slots.len());
        let accounts = if lender.settings().is_lender() {
            Accounts::Names { lender: lender.id(), serial: 0 }
        } else {
            Accounts::Lender(lender.account())
        };
        Self { slots, ledger: Arc::new(Mutex::new(Ledger { taken: HashMap::new(), free, accounts })) }
    }

    pub(super) fn lent(&self, name: &str, profile: Option<&str>) -> Option<Watch> {
        let ledger = lock(&self.ledger);
        let slot = ledger.taken.get(name)?.place(profile)?;
        // Under the lock, so that it is not given back in between.
        self.slots.get(slot).map(Point::watch)
    }

    pub(super) fn lend(&self, name: &str, profile: Option<&str>) -> Option<(Watch, Option<Loan>)> {
        let mut guard = lock(&self.ledger);
        let ledger = &mut *guard;
        if let Some(point) = ledger.taken.get(name).and_then(|lent| self.slots.get(lent.place(profile)?)) {
            return Some((point.watch(), None));
        }
        let slot = ledger.free.take()?;
        let point = self.slots.get(slot)?;
        let accounts = &mut ledger.accounts;
        let new = || Lent { account: accounts.next(), places: Vec::new() };
        let lent = ledger.taken.entry(name.into()).or_insert_with(new);
        lent.places.push((profile.map(Into::into), slot));
        point.set_account(lent.account);
        let (name, profile, ledger) = (name.into(), profile.map(Into::into), Arc::clone(&self.ledger));
        Some((point.watch(), Some(Loan { point: Arc::clone(point), slot, name, profile, ledger })))
    }
}

impl Loan {
    /// The publishing point.
    pub fn point(&self) -> &Arc<Point> {
        &self.point
    }

    /// The name that it is lent to: of a folder that below it, of a template the whole.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The profile that is meant, where that is not its own.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// Gives it back, if nobody watches. Its publisher must be gone, else it is superseded.
    ///
    /// # Errors
    /// The loan itself where somebody watches.
    pub fn give_back(self) -> Result<(), Self> {
        let vacancy = {
            let mut ledger = lock(&self.ledger);
            if self.point.watchers() > 0 {
                drop(ledger);
                return Err(self);
            }
            if let Some(lent) = ledger.taken.get_mut(&self.name) {
                lent.places.retain(|(_, slot)| *slot != self.slot);
                if lent.places.is_empty() {
                    ledger.taken.remove(&self.name);
                }
            }
            ledger.free.vacancy(self.slot)
        };
        self.point.vacate(Arc::new(vacancy));
        Ok(())
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        lock(&self.free.0).push(self.slot);
    }
}

impl fmt::Debug for Vacancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vacancy").field("slot", &self.slot).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;
    use crate::relay::testing::{Shard, base};
    use crate::relay::{Delivery, PointId, PublisherId, Relay, ShardPort};
    use crate::settings::{FfmpegInput, Settings, Source, Start};
    use crate::wire::Guid;
    use std::time::Duration;

    fn relay() -> (Arc<Relay>, [Arc<Shard>; 2]) {
        let source = Source::Pull { url: "mms://h/".into(), start: Start::Watched, linger: Duration::ZERO };
        let folder = PublishingPoint::new("mirror", source);
        let demo = PublishingPoint::new("demo", Source::Demo);
        let settings = Settings { publishing_points: vec![folder, demo], ..Settings::default() };
        let shards: [Arc<Shard>; 2] = Default::default();
        let ports = shards.iter().map(|shard| Arc::clone(shard) as Arc<dyn ShardPort>).collect();
        (Relay::new(&settings, Box::new(Guid::default), ports), shards)
    }

    const FOLDER: PointId = PointId(0);

    #[test]
    fn lent_points_have_ids_behind_those_of_the_settings() {
        let (relay, _) = relay();
        assert_eq!((relay.points().len(), relay.all_points().len()), (2, 2 + LOANS_PER_FOLDER));
        for (id, point) in (0..).zip(relay.all_points()) {
            assert_eq!((point.id(), relay.by_id(point.id()).map(|point| point.id())), (PointId(id), Some(point.id())));
        }
        let (watch, loan) = relay.lend(FOLDER, "a/b", None).unwrap();
        assert_eq!((loan.unwrap().name(), watch.point().name(), watch.point().id()), ("a/b", "mirror", PointId(2)));
        assert!(relay.lend(PointId(1), "a", None).is_none() && relay.lent(PointId(1), "a", None).is_none(), "no folder");
        assert!(relay.point("a/b").is_none() && relay.resolve("mirror/a/b").is_some_and(|(point, _)| point.id() == FOLDER));
    }

    #[test]
    fn one_name_is_lent_once() {
        let (relay, _) = relay();
        assert!(relay.lent(FOLDER, "a", None).is_none());
        let (one, loan) = relay.lend(FOLDER, "a", None).unwrap();
        let (two, none) = relay.lend(FOLDER, "a", None).unwrap();
        let three = relay.lent(FOLDER, "a", None).unwrap();
        assert!(none.is_none() && Arc::ptr_eq(one.point(), two.point()) && Arc::ptr_eq(one.point(), three.point()));
        let loan = loan.unwrap().give_back().unwrap_err();
        drop((one, two, three));
        assert!(loan.give_back().is_ok() && relay.lent(FOLDER, "a", None).is_none());
    }

    #[test]
    fn viewers_count_for_the_name_in_whatever_profile() {
        let source = |name: &str| {
            let input = FfmpegInput { input: format!("/srv/{name}"), arguments: Vec::new() };
            Source::Ffmpeg { input, profile: "wmp9".into(), start: Start::Watched, linger: Duration::ZERO }
        };
        let points = ["cam-*", "gate"].map(|name| PublishingPoint::new(name, source("x")));
        let settings = Settings { publishing_points: points.into(), ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let account = |name: &str, profile| {
            let (watch, loan) = relay.lend(PointId(0), name, profile).unwrap();
            (watch.point().account(), watch, loan)
        };
        let (own, small, other) = (account("cam-1", None), account("cam-1", Some("wmp64")), account("cam-2", None));
        assert_ne!(own.1.point().id(), small.1.point().id());
        assert!(own.0 == small.0 && own.0 != other.0);
        assert_eq!(small.2.as_ref().map(|loan| (loan.name(), loan.profile())), Some(("cam-1", Some("wmp64"))));
        assert!(account("cam-1", Some("wmp64")).2.is_none() && relay.lent(PointId(0), "cam-1", Some("radio")).is_none());
        // One of them goes back, and the other counts for the same still.
        drop(own.1);
        assert!(own.2.unwrap().give_back().is_ok() && relay.lent(PointId(0), "cam-1", None).is_none());
        assert_eq!((account("cam-1", None).0, account("cam-1", Some("wmp64")).0), (own.0, own.0));
        // A name that is not one of a profile, whatever it looks like.
        assert_ne!(account("cam-1?profile=wmp64", None).0, own.0);
        let gate = relay.point("gate").unwrap();
        let (watch, _loan) = relay.lend(gate.id(), "", Some("wmp64")).unwrap();
        assert!(watch.point().id() != gate.id() && watch.point().account() == gate.account());
    }

    #[test]
    fn free_again_when_all_shards_have_let_go() {
        let (relay, shards) = relay();
        let mut lent: Vec<_> = (0..LOANS_PER_FOLDER).map(|n| relay.lend(FOLDER, &n.to_string(), None).unwrap()).collect();
        assert!(relay.lend(FOLDER, "one more", None).is_none());
        let (watch, loan) = lent.remove(7);
        let id = watch.point().id();
        drop(watch);
        loan.unwrap().give_back().unwrap_or_else(|_| panic!("nobody watches"));
        for shard in &shards {
            assert!(relay.lend(FOLDER, "one more", None).is_none(), "not all have let go");
            let told = shard.told();
            assert!(matches!(&told[..], [Delivery::Vacated { point, .. }] if *point == id), "{told:?}");
        }
        assert_eq!(relay.lend(FOLDER, "one more", None).unwrap().0.point().id(), id);
    }

    #[test]
    fn nothing_of_one_loan_is_left_for_the_next() {
        let (relay, shards) = relay();
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let told = || shards.iter().map(|shard| shard.told()).next_back().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        for name in ["a", "b"] {
            let (watch, loan) = relay.lend(FOLDER, name, None).unwrap();
            let (point, listener) = (Arc::clone(watch.point()), Arc::clone(&heard));
            assert_eq!(point.id(), PointId(2));
            point.on_watchers(Box::new(move |count| listener.lock().unwrap().push((name, count))));
            let mut publisher = point.publish(base(), PublisherId::BuiltIn).unwrap();
            publisher.header(base(), 0, &header).unwrap();
            publisher.packets(base(), packets[0].as_slice().into()).unwrap();
            // The header is the same, but another name's players must have it too, and numbers begin anew.
            let told_of = told();
            assert!(matches!(&told_of[..], [Delivery::Generation { .. }, Delivery::Batch { batch, .. }] if batch.first == 0));
            assert!(point.generation().is_some());
            drop((publisher, watch));
            assert!(loan.unwrap().give_back().is_ok() && point.generation().is_none());
            assert!(matches!(&told()[..], [Delivery::SourceLost { .. }, Delivery::Vacated { .. }]));
            drop(told_of);
            shards.iter().for_each(|shard| drop(shard.told()));
        }
        assert_eq!(*heard.lock().unwrap(), [("a", 1), ("a", 0), ("b", 1), ("b", 0)], "the first one does not listen any more");
    }
}
