//! All publishing points of the daemon: those of the settings, those that are lent, those that publishers make.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::{Gauge, gauge};

use super::admission::{Admission, PortCounts};
use super::created::{CreateRefusal, Created};
use super::delivery::{PointId, ShardPort};
use super::lending::{Loan, Reserve, loans_of};
use super::point::{Point, Shared, Watch};
use super::publish::{PublishRefusal, Publisher, PublisherId};
use crate::metrics as names;
use crate::settings::{Settings, Source};
use crate::wire::Guid;

/// The publishing points and who may watch them; shared by all threads.
pub struct Relay {
    /// Those of the settings, then those that are lent.
    points: Vec<Arc<Point>>,
    /// How many the settings name.
    named: usize,
    /// What mirrored folders and transcoded publishing points lend.
    reserves: HashMap<PointId, Reserve>,
    /// What publishers make; their ids come last.
    created: Option<Created>,
    by_name: HashMap<String, PointId>,
    /// The first publishing point of each name in lower case.
    by_folded_name: HashMap<String, PointId>,
    admission: Admission,
    leased: Gauge,
    resting: Gauge,
}

impl Relay {
    /// The publishing points of the settings, without sources. `file_ids` makes the File IDs of broadcast headers,
    /// which are to be random. The recorder of metrics is to be there already.
    pub fn new(settings: &Settings, file_ids: Box<dyn FnMut() -> Guid + Send>, shards: Vec<Arc<dyn ShardPort>>) -> Arc<Self> {
        let shared = Arc::new(Shared::new(shards, file_ids, settings));
        let mut relay = Self {
            points: Vec::new(),
            named: 0,
            reserves: HashMap::new(),
            created: None,
            by_name: HashMap::new(),
            by_folded_name: HashMap::new(),
            admission: Admission::new(settings),
            leased: gauge!(names::PORT_LEASES, "state" => "leased"),
            resting: gauge!(names::PORT_LEASES, "state" => "resting"),
        };
        for (id, settings) in (0..).map(PointId).zip(settings.publishing_points_or_demo()) {
            relay.by_name.entry(settings.name.clone()).or_insert(id);
            relay.by_folded_name.entry(settings.name.to_ascii_lowercase()).or_insert(id);
            relay.points.push(Arc::new(Point::new(id, settings, Arc::clone(&shared))));
        }
        relay.named = relay.points.len();
        for folder in relay.points() {
            let loans = loans_of(&folder.settings().source, settings);
            if loans == 0 {
                continue;
            }
            let ids = (0..).map(PointId).skip(relay.points.len()).take(loans);
            let slots: Vec<_> = ids.map(|id| Arc::new(Point::new(id, folder.settings().clone(), Arc::clone(&shared)))).collect();
            relay.points.extend(slots.iter().cloned());
            relay.reserves.insert(folder.id(), Reserve::new(slots));
        }
        if settings.publish.create {
            relay.created = Some(Created::new(relay.points.len(), settings, shared));
        }
        Arc::new(relay)
    }

    /// The publishing point that a viewer or publisher names: the exact name first, else one that differs only in
    /// the case of ASCII letters, as people type them.
    pub fn point(&self, name: &str) -> Option<Arc<Point>> {
        match self.by_name.get(name).or_else(|| self.by_folded_name.get(&name.to_ascii_lowercase())) {
            Some(id) => self.by_id(*id),
            None => self.created.as_ref()?.point(name),
        }
    }

    /// A publishing point, of the settings, lent or created.
    pub fn by_id(&self, id: PointId) -> Option<Arc<Point>> {
        self.points.get(usize::try_from(id.0).ok()?).cloned().or_else(|| self.created.as_ref()?.by_id(id))
    }

    /// The publishing point that a viewer's name belongs to, and what of the name lies below it: nothing where it is the
    /// publishing point itself, a path where that is a folder. The longest match counts.
    pub fn resolve<'n>(&self, name: &'n str) -> Option<(Arc<Point>, &'n str)> {
        if let Some(point) = self.point(name) {
            return Some((point, ""));
        }
        name.rmatch_indices('/').find_map(|(slash, _)| {
            let point = self.point(name.get(..slash)?).filter(|point| point.settings().source.is_folder())?;
            Some((point, name.get(slash + 1..)?))
        })
    }

    /// The publishing points of the settings, by their ids.
    pub fn points(&self) -> Vec<Arc<Point>> {
        self.points.get(..self.named).unwrap_or_default().to_vec()
    }

    /// Those and, behind them, all that are lent or created or may be, by their ids. Those to lend have the names and settings of
    /// their folders, those to create have the label of many as their name.
    pub fn all_points(&self) -> Vec<Arc<Point>> {
        let created = self.created.as_ref().map(Created::points).unwrap_or_default();
        self.points.iter().cloned().chain(created).collect()
    }

    /// Makes a publishing point of this name for publishers, with the settings of another one of type push where one is named.
    ///
    /// # Errors
    /// Any [`CreateRefusal`]; a name that exists is refused as one that cannot be had.
    pub fn create(&self, name: &str, template: Option<&str>) -> Result<Arc<Point>, CreateRefusal> {
        let created = self.created.as_ref().ok_or(CreateRefusal::Off)?;
        let template = template.map(|template| {
            let pushed = self.point(template).filter(|point| point.settings().source == Source::Push);
            pushed.ok_or_else(|| CreateRefusal::Template { name: template.to_owned() })
        });
        if let Some((point, _)) = self.resolve(name) {
            return Err(CreateRefusal::Taken { name: name.to_owned(), by: point.name().to_owned() });
        }
        created.create(name, template.transpose()?.map(|template| template.settings().clone()))
    }

    /// Whether publishers make publishing points.
    pub fn creates(&self) -> bool {
        self.created.is_some()
    }

    /// Whether a publisher made this publishing point.
    pub fn is_created(&self, id: PointId) -> bool {
        usize::try_from(id.0).is_ok_and(|id| id >= self.points.len())
    }

    /// Takes a publishing point away that a publisher made: its viewers get the end of the stream. Of others nothing happens.
    pub fn destroy(&self, point: &Arc<Point>) {
        if let Some(created) = &self.created {
            created.destroy(point);
        }
    }

    /// The publishing point that is lent to a name below a mirrored folder, if one is. It stays so while it is watched.
    pub fn lent(&self, folder: PointId, name: &str) -> Option<Watch> {
        self.reserves.get(&folder)?.lent(name)
    }

    /// Lends a publishing point to a name below a mirrored folder; with the loan where that is new, so that a source is
    /// needed. `None` where all are lent, or where it is no such folder.
    pub fn lend(&self, folder: PointId, name: &str) -> Option<(Watch, Option<Loan>)> {
        self.reserves.get(&folder)?.lend(name)
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

    /// Lets time pass, about once a second: streams whose source stays away end, ports end their rest.
    pub fn tick(&self, now: Instant) {
        self.points.iter().for_each(|point| point.tick(now));
        if let Some(created) = &self.created {
            created.tick(now);
        }
        self.admission.tick(now);
        let PortCounts { leased, resting } = self.admission.ports().counts();
        self.leased.set(count(leased));
        self.resting.set(count(resting));
    }
}

/// A metric's value; more than four billion leases there are not.
fn count(leases: usize) -> u32 {
    u32::try_from(leases).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{PublishingPoint, Source};

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
}
