//! All publishing points of the daemon: those of the settings, those that are lent, those that publishers make.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use metrics::{Gauge, gauge};

use super::admission::{Admission, PortCounts};
use super::catalog::Catalog;
use super::created::{CreateRefusal, Created};
use super::delivery::{PointId, ShardPort};
use super::lending::{Loan, in_profile};
use super::point::{Point, Shared, Watch};
use super::publish::{PublishRefusal, Publisher, PublisherId};
use crate::metrics as names;
use crate::settings::{PublishingPoint, Settings, Source, Station};
use crate::wire::Guid;

/// Hears of publishing points, by the names that viewers know.
type PointListener = Box<dyn Fn(&Arc<Point>, &str) + Send + Sync>;

/// The publishing points and who may watch them; shared by all threads.
pub struct Relay {
    /// Those of the settings in force; replaced as a whole.
    catalog: RwLock<Arc<Catalog>>,
    shared: Arc<Shared>,
    /// What publishers make.
    created: Created,
    /// Of settings that are no longer in force, until nobody has them any more.
    leaving: Mutex<Vec<Arc<Point>>>,
    listeners: RwLock<Vec<PointListener>>,
    admission: Admission,
    leased: Gauge,
    resting: Gauge,
    held: Gauge,
}

/// What other settings did to the publishing points.
#[derive(Debug, Default)]
pub struct PointChanges {
    /// They are new.
    pub added: Vec<Arc<Point>>,
    /// They are gone: viewers get the end of the stream, and nobody can feed them.
    pub removed: Vec<Arc<Point>>,
    /// They have other settings than these, which they had before.
    pub changed: Vec<(Arc<Point>, Arc<PublishingPoint>)>,
}

impl Relay {
    /// The publishing points of the settings, without sources. `file_ids` makes the File IDs of broadcast headers,
    /// which are to be random. The recorder of metrics is to be there already.
    pub fn new(settings: &Settings, file_ids: Box<dyn FnMut() -> Guid + Send>, shards: Vec<Arc<dyn ShardPort>>) -> Arc<Self> {
        let shared = Arc::new(Shared::new(shards, file_ids, settings));
        let settings = Arc::new(settings.clone());
        let (catalog, _) = Catalog::default().next(&settings, &shared);
        Arc::new(Self {
            catalog: RwLock::new(Arc::new(catalog)),
            created: Created::new(&settings, Arc::clone(&shared)),
            shared,
            leaving: Mutex::default(),
            listeners: RwLock::default(),
            admission: Admission::new(&settings),
            leased: gauge!(names::PORT_LEASES, "state" => "leased"),
            resting: gauge!(names::PORT_LEASES, "state" => "resting"),
            held: gauge!(names::PORT_LEASES, "state" => "held"),
        })
    }

    /// Other settings are in force from now on: publishing points come and go, and have other settings. Who watches one that stays
    /// does not notice. Sources are another's business. Call it from one place only.
    pub fn apply(&self, settings: &Arc<Settings>) -> PointChanges {
        let before = self.catalog();
        let (catalog, changes) = before.next(settings, &self.shared);
        drop(before);
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
        // A name of the settings comes before one that a publisher made. Behind the catalog: an encoder that comes back at once finds
        // the name there, and makes it no second time.
        for point in &changes.added {
            if let Some(made) = self.created.point(point.name()) {
                self.created.destroy(&made);
            }
        }
        self.admission.apply(settings);
        self.created.apply(settings);
        for point in &changes.removed {
            point.close();
        }
        self.lock_leaving().extend(changes.removed.iter().cloned());
        for point in changes.added.iter().filter(|point| !point.settings().is_lender()) {
            self.tell(point, point.name());
        }
        changes
    }

    /// The settings in force; of what waits for a restart those before.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.catalog().settings)
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_leaving(&self) -> MutexGuard<'_, Vec<Arc<Point>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The publishing point that a viewer or publisher names: the exact name first, else one that differs only in
    /// the case of ASCII letters, as people type them.
    pub fn point(&self, name: &str) -> Option<Arc<Point>> {
        self.catalog().point(name).or_else(|| self.created.point(name))
    }

    /// A publishing point, of the settings, lent or created.
    pub fn by_id(&self, id: PointId) -> Option<Arc<Point>> {
        self.shared.by_id(id)
    }

    /// The publishing point that a viewer's name belongs to, and which of its names it is: none where it is the publishing point
    /// itself, the whole of it where that is a template or a list of stations, as these write it, and the path below it where it is a
    /// folder.
    ///
    /// A name of its own counts before stations, these before templates, of these the one with the most characters of its own, and then the first in the
    /// settings; of folders the longest match counts.
    pub fn resolve<'n>(&self, name: &'n str) -> Option<(Arc<Point>, Cow<'n, str>)> {
        if let Some(point) = self.point(name) {
            return Some((point, Cow::Borrowed("")));
        }
        let catalog = self.catalog();
        let of_list = catalog
            .stations
            .iter()
            .find_map(|(list, directory)| Some((Arc::clone(list), Cow::Owned(directory.station(name)?.name))));
        if of_list.is_some() {
            return of_list;
        }
        let of_template = catalog.templates.iter().find_map(|(pattern, point)| {
            let captures = pattern.captures(name)?;
            Some((Arc::clone(point), Cow::Owned(pattern.name(&captures))))
        });
        of_template.or_else(|| {
            name.rmatch_indices('/').find_map(|(slash, _)| {
                let point = self.point(name.get(..slash)?).filter(|point| point.settings().source.is_folder())?;
                Some((point, Cow::Borrowed(name.get(slash + 1..)?)))
            })
        })
    }

    /// What people are shown in place of a viewer's name, where the settings say that.
    pub fn title(&self, name: &str) -> Option<String> {
        let (point, below) = self.resolve(name)?;
        if let Some(station) = self.station(point.id(), &below) {
            return station.title;
        }
        let settings = point.settings();
        let title = settings.title.as_deref()?;
        match settings.pattern() {
            Some(pattern) => Some(pattern.captures(&below)?.fill(title)),
            None => below.is_empty().then(|| title.to_owned()),
        }
    }

    /// A station of a list, by the publishing point that stands for the list.
    pub fn station(&self, list: PointId, name: &str) -> Option<Station> {
        self.catalog().stations.iter().find(|(point, _)| point.id() == list)?.1.station(name)
    }

    /// A list has been read: these are its stations from now on. Those who watch another one watch on.
    pub fn set_stations(&self, list: PointId, stations: Vec<Station>) {
        if let Some((_, directory)) = self.catalog().stations.iter().find(|(point, _)| point.id() == list) {
            directory.set(stations);
        }
    }

    /// The publishing points of the settings, in their order.
    pub fn points(&self) -> Vec<Arc<Point>> {
        self.catalog().points.clone()
    }

    /// Makes a publishing point of this name for publishers, with the settings of another one of type push where one is named.
    ///
    /// # Errors
    /// Any [`CreateRefusal`]; a name that exists is refused as one that cannot be had.
    pub fn create(&self, name: &str, template: Option<&str>) -> Result<Arc<Point>, CreateRefusal> {
        if !self.created.is_open() {
            return Err(CreateRefusal::Off);
        }
        let template = template.map(|template| {
            let pushed = self.point(template).filter(|point| point.settings().source == Source::Push);
            pushed.ok_or_else(|| CreateRefusal::Template { name: template.to_owned() })
        });
        if let Some((point, _)) = self.resolve(name) {
            return Err(CreateRefusal::Taken { name: name.to_owned(), by: point.name().to_owned() });
        }
        let template = template.transpose()?.map(|template| template.settings().as_ref().clone());
        let point = self.created.create(name, template)?;
        // Other settings may have come since the look above.
        if let Some(other) = self.catalog().point(name) {
            self.created.destroy(&point);
            return Err(CreateRefusal::Taken { name: name.to_owned(), by: other.name().to_owned() });
        }
        self.tell(&point, name);
        Ok(point)
    }

    /// Whether publishers make publishing points.
    pub fn creates(&self) -> bool {
        self.created.is_open()
    }

    /// Whether a publisher made this publishing point.
    pub fn is_created(&self, id: PointId) -> bool {
        self.created.has(id)
    }

    /// Takes a publishing point away that a publisher made: its viewers get the end of the stream, and who feeds it has to go. Of
    /// others nothing happens.
    pub fn destroy(&self, point: &Arc<Point>) {
        self.created.destroy(point);
    }

    /// The publishing point that is lent to a name of a mirrored folder or template, or to another profile of that name or, without
    /// a name, of the lender itself; if one is. It stays so while it is watched.
    pub fn lent(&self, lender: PointId, name: &str, profile: Option<&str>) -> Option<Watch> {
        self.catalog().reserves.get(&lender)?.lent(name, profile)
    }

    /// Lends a publishing point to what [`Relay::lent`] says; with the loan where that is new, so that a source is needed. `None`
    /// where all are lent, or where it lends none.
    pub fn lend(&self, lender: PointId, name: &str, profile: Option<&str>) -> Option<(Watch, Option<Loan>)> {
        let (watch, loan) = self.catalog().reserves.get(&lender)?.lend(name, profile)?;
        if loan.is_some() {
            self.tell(watch.point(), &in_profile(watch.point().full_name(name), profile));
        }
        Some((watch, loan))
    }

    /// What a publishing point has lent now, by the names that viewers open, in the order of these.
    pub fn open_names(&self, lender: PointId) -> Vec<(String, Arc<Point>)> {
        let mut names = self.catalog().reserves.get(&lender).map(|reserve| reserve.open_names()).unwrap_or_default();
        names.sort_by(|(one, _), (other, _)| one.cmp(other));
        names
    }

    /// Calls `listener` with each publishing point that can have viewers and its name: with those of the settings now, with others
    /// when they come, are lent or created. What it hears them by is forgotten when they go.
    pub fn on_point(&self, listener: PointListener) {
        for point in self.points().iter().filter(|point| !point.settings().is_lender()) {
            listener(point, point.name());
        }
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn tell(&self, point: &Arc<Point>, name: &str) {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|listener| listener(point, name));
    }

    /// Who comes in.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The right to feed the publishing point of this name, as [`Point::publish`].
    ///
    /// # Errors
    /// Any [`PublishRefusal`].
    pub fn publish(&self, now: Instant, name: &str, credentials: PublisherId) -> Result<Publisher, PublishRefusal> {
        let point = self.point(name).ok_or_else(|| PublishRefusal::Unknown { name: name.to_owned() })?;
        point.publish(now, credentials)
    }

    /// Whether somebody could publish under this name now who may publish at all: there is a publishing point for it, or one can be
    /// made, and [`Relay::publish`] would not refuse who has the same credentials as the one before.
    pub fn awaits_publisher(&self, now: Instant, name: &str) -> bool {
        match self.point(name) {
            Some(point) => point.awaits_publisher(now),
            None => self.creates() && self.resolve(name).is_none(),
        }
    }

    /// Lets time pass, about once a second: streams whose source stays away end, publishing points that are gone give their numbers
    /// back, ports end their rest.
    pub fn tick(&self, now: Instant) {
        self.shared.all().iter().for_each(|point| point.tick(now));
        self.created.tick(now);
        let left: Vec<_> = self.lock_leaving().extract_if(.., |point| Arc::strong_count(point) == 1).collect();
        left.iter().for_each(|point| self.shared.vacate(point, None));
        self.admission.tick(now);
        let PortCounts { leased, resting, held } = self.admission.ports().counts();
        self.leased.set(count(leased));
        self.resting.set(count(resting));
        self.held.set(count(held));
    }
}

/// A metric's value; more than four billion leases there are not.
fn count(leases: usize) -> u32 {
    u32::try_from(leases).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{PublishingPoint, Source, Start};
    use std::time::Duration;

    #[test]
    fn names_belong_to_the_longest_folder() {
        let files = || Source::Files { root: "/srv".into() };
        let point = |(name, source): (&str, Source)| PublishingPoint::new(name, source);
        let points = [("a", files()), ("a/b", files()), ("a/b/live", Source::Push), ("cam", Source::Push)];
        let settings = Settings { publishing_points: points.map(point).into(), ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        let resolved = |name: &str| relay.resolve(name).map(|(point, below)| format!("{} + {below}", point.name()));
        for (name, found) in [
            ("a/x.wmv", Some("a + x.wmv")),
            ("a/b/x.wmv", Some("a/b + x.wmv")),
            ("A/B/c/x.wmv", Some("a/b + c/x.wmv")),
            ("a/b/live", Some("a/b/live + ")),
            ("a/b/live/x", Some("a/b + live/x")),
            ("a", Some("a + ")),
            ("a/", Some("a + ")),
            ("a/../x", Some("a + ../x")),
            ("cam/x", None),
            ("ab/x", None),
            ("/a/x", None),
        ] {
            assert_eq!(resolved(name).as_deref(), found, "{name}");
        }
    }

    #[test]
    fn templates_come_behind_names_and_before_folders() {
        let pull = |url: &str| Source::Pull { url: url.into(), start: Start::Watched, linger: Duration::ZERO };
        let points = [
            ("*", pull("mms://h/any/{1}")),
            ("cam-*", pull("mms://h/{1}")),
            ("CAM-1*", pull("mms://h/one/{1}")),
            ("cam-12", Source::Push),
            ("c*m-2", pull("mms://h/first/{1}")),
            ("a", Source::Files { root: "/srv".into() }),
            ("a/cam-*", pull("mms://h/a/{1}")),
        ];
        let mut points: Vec<_> = points.map(|(name, source)| PublishingPoint::new(name, source)).into();
        points[1].title = Some("Camera {1}".into());
        points[1].at_once = 3;
        let settings = Settings { publishing_points: points, ..Settings::default() };
        let relay = Relay::new(&settings, Box::new(Guid::default), Vec::new());
        for (name, found) in [
            ("cam-12", "cam-12 + "),
            ("Cam-12", "cam-12 + "),
            ("cam-13", "CAM-1* + CAM-13"),
            ("Cam-1", "cam-* + cam-1"),
            ("cam-2", "cam-* + cam-2"),
            ("com-2", "c*m-2 + com-2"),
            ("cam-*", "cam-* + cam-*"),
            ("x", "* + x"),
            ("a/cam-3", "a/cam-* + a/cam-3"),
            ("a/com-3", "a + com-3"),
            ("a/cam-3/x", "a + cam-3/x"),
        ] {
            let resolved = relay.resolve(name).map(|(point, below)| format!("{} + {below}", point.name()));
            assert_eq!(resolved.as_deref(), Some(found), "{name}");
        }
        assert!(relay.resolve("a b/x").is_none() && relay.resolve("x\0").is_none());
        assert_eq!(relay.title("CAM-front door").as_deref(), Some("Camera front door"));
        assert_eq!((relay.title("cam-12"), relay.title("nothing/here")), (None, None));
        let id = relay.resolve("cam-7").unwrap().0.id();
        let lent: Vec<_> = ["cam-7", "cam-8", "cam-9"].map(|name| relay.lend(id, name, None).unwrap()).into();
        assert!(relay.lend(id, "cam-6", None).is_none() && relay.lend(id, "cam-8", None).is_some_and(|(_, loan)| loan.is_none()));
        assert_eq!(relay.by_id(lent[0].0.point().id()).unwrap().full_name("cam-7"), "cam-7");
        let folder = relay.point("a").unwrap();
        assert_eq!((folder.full_name("x/y"), folder.full_name("")), ("a/x/y".into(), "a".into()));
    }
}
