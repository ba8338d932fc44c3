//! Publishing points that are lent to names of a mirrored folder or of a template, which nobody knows before a viewer says them; and to
//! other profiles of a transcoded one or of a name of such a template, which may never be wanted.
//!
//! Each is made when it is lent. A loan ends when nobody watches; it counts until every shard has let go of what it kept of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admission::Account;
use super::delivery::PointId;
use super::ids::{Place, Places};
use super::point::{Point, Shared, Watch};
use crate::settings::{PROFILES_MAX, PublishingPoint, Settings, Source};

/// Names of one folder that can be live at once.
pub const LOANS_PER_FOLDER: usize = 64;

/// How many publishing points one of the settings lends.
fn loans_of(point: &PublishingPoint, settings: &Settings) -> usize {
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

/// The publishing points that one of the settings lends: a folder, a template, a list of stations, one that is transcoded; others lend
/// none.
pub(super) struct Reserve {
    shared: Arc<Shared>,
    ledger: Arc<Mutex<Ledger>>,
}

struct Ledger {
    /// By the name, of a folder that below it.
    taken: HashMap<Box<str>, Lent>,
    /// Lent by what the settings said before: who watches goes on, and nobody finds them.
    put_by: Vec<Entry>,
    places: Places,
    most: usize,
    /// What is lent has the lender's settings, but nothing stands in for it.
    template: PublishingPoint,
    accounts: Accounts,
    /// The lender is gone.
    is_closed: bool,
}

/// What is lent to one name.
struct Lent {
    account: Account,
    entries: Vec<Entry>,
}

/// A publishing point that is lent.
struct Entry {
    /// `None`: its own.
    profile: Option<Box<str>>,
    point: Arc<Point>,
    place: Place,
}

impl Lent {
    fn point(&self, profile: Option<&str>) -> Option<&Arc<Point>> {
        self.entries.iter().find(|entry| entry.profile.as_deref() == profile).map(|entry| &entry.point)
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

/// A publishing point that was lent, as the one who feeds it has it. Dropped without [`Loan::give_back`] it stays lent.
pub struct Loan {
    point: Arc<Point>,
    name: Box<str>,
    profile: Option<Box<str>>,
    shared: Arc<Shared>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Ledger {
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.taken.values().flat_map(|lent| &lent.entries).chain(&self.put_by)
    }

    /// Takes out what was lent under a number.
    fn remove(&mut self, name: &str, id: PointId) -> Option<Entry> {
        let is_it = |entry: &Entry| entry.point.id() == id;
        if let Some(at) = self.put_by.iter().position(is_it) {
            return Some(self.put_by.swap_remove(at));
        }
        let lent = self.taken.get_mut(name)?;
        let entry = lent.entries.swap_remove(lent.entries.iter().position(is_it)?);
        if lent.entries.is_empty() {
            self.taken.remove(name);
        }
        Some(entry)
    }
}

impl Reserve {
    /// What `lender` has to lend, by these settings of the whole.
    pub(super) fn new(shared: Arc<Shared>, lender: &Point, settings: &Settings) -> Self {
        let of_lender = lender.settings();
        let accounts = if of_lender.is_lender() {
            Accounts::Names { lender: lender.id(), serial: 0 }
        } else {
            Accounts::Lender(lender.account())
        };
        let ledger = Ledger {
            taken: HashMap::new(),
            put_by: Vec::new(),
            places: Places::default(),
            most: loans_of(&of_lender, settings),
            template: of(&of_lender),
            accounts,
            is_closed: false,
        };
        Self { shared, ledger: Arc::new(Mutex::new(ledger)) }
    }

    pub(super) fn lent(&self, name: &str, profile: Option<&str>) -> Option<Watch> {
        let ledger = lock(&self.ledger);
        // Under the lock, so that it is not given back in between.
        ledger.taken.get(name)?.point(profile).map(Point::watch)
    }

    /// What is lent now, by the names that viewers open.
    pub(super) fn open_names(&self) -> Vec<(String, Arc<Point>)> {
        let ledger = lock(&self.ledger);
        let named = |name: &str, entry: &Entry| {
            (in_profile(entry.point.full_name(name), entry.profile.as_deref()), Arc::clone(&entry.point))
        };
        ledger.taken.iter().flat_map(|(name, lent)| lent.entries.iter().map(move |entry| named(name, entry))).collect()
    }

    pub(super) fn lend(&self, name: &str, profile: Option<&str>) -> Option<(Watch, Option<Loan>)> {
        let mut guard = lock(&self.ledger);
        let ledger = &mut *guard;
        if let Some(point) = ledger.taken.get(name).and_then(|lent| lent.point(profile)) {
            return Some((point.watch(), None));
        }
        let place = ledger.places.take(ledger.most).filter(|_| !ledger.is_closed)?;
        let point = self.shared.make(ledger.template.clone());
        let accounts = &mut ledger.accounts;
        let new = || Lent { account: accounts.next(), entries: Vec::new() };
        let lent = ledger.taken.entry(name.into()).or_insert_with(new);
        point.set_account(lent.account);
        let watch = point.watch();
        lent.entries.push(Entry { profile: profile.map(Into::into), point: Arc::clone(&point), place });
        let (name, profile) = (name.into(), profile.map(Into::into));
        let (shared, ledger) = (Arc::clone(&self.shared), Arc::clone(&self.ledger));
        Some((watch, Some(Loan { point, name, profile, shared, ledger })))
    }

    /// The lender's settings are others. What is lent goes on with the source that it has; `anew`: nobody finds that any more, so that
    /// who comes now gets what the settings say now.
    pub(super) fn apply(&self, lender: &PublishingPoint, settings: &Settings, anew: bool) {
        let mut ledger = lock(&self.ledger);
        ledger.most = loans_of(lender, settings);
        ledger.template = of(lender);
        for entry in ledger.entries() {
            let source = entry.point.settings().source.clone();
            entry.point.set_settings(PublishingPoint { source, ..of(lender) });
        }
        if anew {
            let before = std::mem::take(&mut ledger.taken);
            ledger.put_by.extend(before.into_values().flat_map(|lent| lent.entries));
        }
    }

    /// The lender is gone: nothing is lent any more, and who watches what was lent gets the end.
    pub(super) fn close(&self) {
        let lent: Vec<_> = {
            let mut ledger = lock(&self.ledger);
            ledger.is_closed = true;
            ledger.entries().map(|entry| Arc::clone(&entry.point)).collect()
        };
        lent.iter().for_each(|point| point.close());
    }
}

/// A name as viewers open it in a profile.
pub(super) fn in_profile(name: String, profile: Option<&str>) -> String {
    match profile {
        Some(profile) => format!("{name}?profile={profile}"),
        None => name,
    }
}

/// The settings of what is lent, by those of the lender.
fn of(lender: &PublishingPoint) -> PublishingPoint {
    PublishingPoint { fallback: None, ..lender.clone() }
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

    /// Nothing can bring it: whoever watches gets the end, and nobody waits for its beginning. It is to be given back all the same.
    pub fn fail(&self) {
        self.point.close();
    }

    /// Gives it back, if nobody watches. Its publisher must be gone, else it is superseded.
    ///
    /// # Errors
    /// The loan itself where somebody watches.
    pub fn give_back(self) -> Result<(), Self> {
        let entry = {
            let mut ledger = lock(&self.ledger);
            if self.point.watchers() > 0 {
                drop(ledger);
                return Err(self);
            }
            ledger.remove(&self.name, self.point.id())
        };
        if let Some(Entry { point, place, .. }) = entry {
            self.shared.vacate(&point, Some(place));
        }
        Ok(())
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
        assert_eq!(relay.points().len(), 2);
        for (id, point) in (0..).zip(relay.points()) {
            assert_eq!((point.id(), relay.by_id(point.id()).map(|point| point.id())), (PointId(id), Some(point.id())));
        }
        assert!(relay.by_id(PointId(2)).is_none());
        let (watch, loan) = relay.lend(FOLDER, "a/b", None).unwrap();
        assert_eq!((loan.unwrap().name(), watch.point().name(), watch.point().id()), ("a/b", "mirror", PointId(2)));
        assert!(Arc::ptr_eq(&relay.by_id(PointId(2)).unwrap(), watch.point()));
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
    fn what_is_open_is_told_by_the_names_of_viewers() {
        let (relay, _) = relay();
        assert!(relay.open_names(FOLDER).is_empty() && relay.open_names(PointId(1)).is_empty());
        let lent =
            [("b/2", None), ("a", Some("wmp64")), ("a", None)].map(|(name, profile)| relay.lend(FOLDER, name, profile).unwrap());
        let names = || relay.open_names(FOLDER).into_iter().map(|(name, point)| (name, point.watchers())).collect::<Vec<_>>();
        assert_eq!(names(), [("mirror/a".into(), 1), ("mirror/a?profile=wmp64".into(), 1), ("mirror/b/2".into(), 1)]);
        let [(watch, loan), ..] = lent;
        drop(watch);
        assert!(loan.unwrap().give_back().is_ok());
        assert!(!names().iter().any(|(name, _)| name == "mirror/b/2"));
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
