//! The publishing points of the settings in force, and how names find them: made anew as a whole when the settings change.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::delivery::PointId;
use super::lending::Reserve;
use super::point::{Point, Shared};
use super::registry::PointChanges;
use super::stations::Directory;
use crate::settings::{Pattern, Settings, Source};

/// What the settings name.
#[derive(Default)]
pub(super) struct Catalog {
    pub(super) settings: Arc<Settings>,
    /// In the order of the settings.
    pub(super) points: Vec<Arc<Point>>,
    /// What each of them lends.
    pub(super) reserves: HashMap<PointId, Arc<Reserve>>,
    by_name: HashMap<String, Arc<Point>>,
    /// The first publishing point of each name in lower case.
    by_folded_name: HashMap<String, Arc<Point>>,
    /// Those with the most characters of their own first.
    pub(super) templates: Vec<(Pattern, Arc<Point>)>,
    pub(super) stations: Vec<(Arc<Point>, Arc<Directory>)>,
}

impl Catalog {
    /// That of other settings. Publishing points of the same name and kind are the same ones, with those settings from now on; what the
    /// others lent ends.
    pub(super) fn next(&self, settings: &Arc<Settings>, shared: &Arc<Shared>) -> (Self, PointChanges) {
        let mut next = Self { settings: Arc::clone(settings), ..Self::default() };
        let mut changes = PointChanges::default();
        let mut before: HashMap<&str, &Arc<Point>> = self.points.iter().map(|point| (point.name(), point)).collect();
        let other_profiles = self.settings.profiles != settings.profiles;
        for wanted in settings.publishing_points_or_demo() {
            let same = before.get(wanted.name.as_str()).filter(|point| point.settings().is_same_kind(&wanted)).copied();
            let point = match same {
                Some(point) => {
                    before.remove(wanted.name.as_str());
                    let old = point.settings();
                    let reserve = self.reserves.get(&point.id());
                    if *old != wanted {
                        point.set_settings(wanted);
                        changes.changed.push((Arc::clone(point), Arc::clone(&old)));
                    }
                    if let Some(reserve) = reserve {
                        let now = point.settings();
                        // What is not transcoded has no profile.
                        let transcoded = matches!(now.source, Source::Ffmpeg { .. });
                        reserve.apply(&now, settings, old.source != now.source || transcoded && other_profiles);
                        next.reserves.insert(point.id(), Arc::clone(reserve));
                    }
                    Arc::clone(point)
                }
                None => {
                    let point = shared.make(wanted);
                    next.reserves.insert(point.id(), Arc::new(Reserve::new(Arc::clone(shared), &point, settings)));
                    changes.added.push(Arc::clone(&point));
                    point
                }
            };
            next.add(point, self);
        }
        next.templates.sort_by_key(|(pattern, _)| Reverse(pattern.literal_chars()));
        // In the order of the settings before.
        for point in self.points.iter().filter(|point| before.contains_key(point.name())) {
            if let Some(reserve) = self.reserves.get(&point.id()) {
                reserve.close();
            }
            changes.removed.push(Arc::clone(point));
        }
        (next, changes)
    }

    fn add(&mut self, point: Arc<Point>, before: &Self) {
        let settings = point.settings();
        if let Some(pattern) = settings.pattern() {
            self.templates.push((pattern, Arc::clone(&point)));
        } else if matches!(settings.source, Source::Stations { .. }) {
            let known = before.stations.iter().find(|(list, _)| Arc::ptr_eq(list, &point));
            let directory = known.map(|(_, directory)| Arc::clone(directory)).unwrap_or_default();
            self.stations.push((Arc::clone(&point), directory));
        } else {
            self.by_name.entry(settings.name.clone()).or_insert_with(|| Arc::clone(&point));
            self.by_folded_name.entry(settings.name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&point));
        }
        self.points.push(point);
    }

    /// The exact name first, else one that differs only in the case of ASCII letters.
    pub(super) fn point(&self, name: &str) -> Option<Arc<Point>> {
        self.by_name.get(name).or_else(|| self.by_folded_name.get(&name.to_ascii_lowercase())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::asf::samples;
    use crate::relay::testing::{Shard, base};
    use crate::relay::{Delivery, PublishError, PublishRefusal, PublisherId, Relay, ShardPort};
    use crate::settings::{FfmpegInput, Publish, PublishingPoint, Start, Viewers};
    use crate::wire::Guid;

    fn pull(url: &str) -> Source {
        Source::Pull { url: url.into(), start: Start::Watched, linger: Duration::ZERO }
    }

    fn settings(points: &[(&str, Source)]) -> Settings {
        let points = points.iter().map(|(name, source)| PublishingPoint::new(*name, source.clone()));
        let publish = Publish { create: true, create_limit: 2 };
        Settings { publishing_points: points.collect(), publish, ..Settings::default() }
    }

    fn relay(points: &[(&str, Source)]) -> (Arc<Relay>, Arc<Shard>) {
        let shard = Arc::<Shard>::default();
        let ports = vec![Arc::clone(&shard) as Arc<dyn ShardPort>];
        (Relay::new(&settings(points), Box::new(Guid::default), ports), shard)
    }

    fn names(points: &[Arc<Point>]) -> Vec<&str> {
        points.iter().map(|point| point.name()).collect()
    }

    #[test]
    fn what_stays_is_the_same_and_numbers_are_used_again() {
        let (relay, shard) = relay(&[("stays", Source::Push), ("goes", Source::Push), ("last", Source::Demo)]);
        let (stays, goes) = (relay.point("stays").unwrap(), relay.point("goes").unwrap());
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let mut publishers = [&stays, &goes].map(|point| point.publish(base(), PublisherId::Local).unwrap());
        for publisher in &mut publishers {
            publisher.header(base(), 0, &header).unwrap();
            publisher.packets(base(), packets[0].as_slice().into()).unwrap();
        }
        let watch = goes.watch();
        shard.told();
        let next = settings(&[("new", Source::Push), ("last", Source::Demo), ("stays", Source::Push)]);
        let changes = relay.apply(&Arc::new(next));
        assert_eq!((names(&changes.added), names(&changes.removed), changes.changed.len()), (vec!["new"], vec!["goes"], 0));
        assert_eq!(names(&relay.points()), ["new", "last", "stays"]);
        assert!(Arc::ptr_eq(&relay.point("STAYS").unwrap(), &stays) && relay.resolve("goes").is_none());
        assert_eq!(relay.point("new").unwrap().id(), PointId(3), "a number of its own while the other is watched");
        let told = shard.told();
        assert!(
            matches!(&told[..], [Delivery::SourceLost { point: PointId(1) }, Delivery::Ended { point: PointId(1) }]),
            "{told:?}"
        );
        let [mut staying, mut going] = publishers;
        assert!(staying.packets(base(), packets[1].as_slice().into()).is_ok());
        let lost = going.packets(base(), packets[1].as_slice().into());
        assert_eq!(lost, Err(PublishError::Expelled));
        assert!(matches!(goes.publish(base(), PublisherId::Local), Err(PublishRefusal::Unknown { .. })));
        assert!(!goes.source_expected() && goes.generation().is_none());
        drop((changes, going, goes));
        shard.told();
        relay.tick(base());
        assert!(shard.told().is_empty(), "somebody watches");
        drop(watch);
        relay.tick(base());
        let told = shard.told();
        assert!(matches!(&told[..], [Delivery::Vacated { point: PointId(1), .. }]), "{told:?}");
        drop(told);
        // The name can come back, and is another one.
        let next = settings(&[("goes", Source::Push), ("stays", Source::Push)]);
        let changes = relay.apply(&Arc::new(next));
        assert_eq!((names(&changes.added), names(&changes.removed)), (vec!["goes"], vec!["new", "last"]));
        assert_eq!(relay.point("goes").unwrap().id(), PointId(1));
    }

    #[test]
    fn other_settings_hold_for_who_is_there() {
        let (relay, shard) = relay(&[("cam", Source::Push), ("film", pull("mms://h/1"))]);
        let (cam, film) = (relay.point("cam").unwrap(), relay.point("film").unwrap());
        let publisher = cam.publish(base(), PublisherId::Local).unwrap();
        let mut next = settings(&[("cam", Source::Push), ("film", pull("mms://h/2"))]);
        (next.publishing_points[0].title, next.publishing_points[0].access.viewers) = (Some("Front".into()), Viewers::Signed);
        let changes = relay.apply(&Arc::new(next.clone()));
        let before: Vec<_> = changes.changed.iter().map(|(point, before)| (point.name(), before.title.clone())).collect();
        assert_eq!((before, changes.added.len() + changes.removed.len()), (vec![("cam", None), ("film", None)], 0));
        assert!(Arc::ptr_eq(&relay.point("cam").unwrap(), &cam) && Arc::ptr_eq(&relay.point("film").unwrap(), &film));
        assert_eq!((relay.title("cam").as_deref(), cam.settings().access.viewers), (Some("Front"), Viewers::Signed));
        assert_eq!(film.settings().source, pull("mms://h/2"));
        assert!(publisher.alive(base()).is_ok() && shard.told().is_empty());
        // Another kind of source comes: who pushes has to go.
        next.publishing_points[0].source = Source::Demo;
        relay.apply(&Arc::new(next.clone()));
        assert_eq!(publisher.alive(base()), Err(PublishError::Expelled));
        assert!(cam.publish(base(), PublisherId::BuiltIn).is_ok());
        // Of another kind it is another publishing point.
        next.publishing_points[0].source = Source::Files { root: "/srv".into() };
        let changes = relay.apply(&Arc::new(next));
        assert_eq!((names(&changes.added), names(&changes.removed)), (vec!["cam"], vec!["cam"]));
        assert!(!Arc::ptr_eq(&relay.point("cam").unwrap(), &cam));
    }

    #[test]
    fn what_is_lent_goes_on_by_the_settings_before() {
        let (relay, shard) = relay(&[("cam-*", pull("mms://h/{1}"))]);
        let (lender, _) = relay.resolve("cam-1").unwrap();
        let (watch, loan) = relay.lend(lender.id(), "cam-1", None).unwrap();
        let mut next = settings(&[("cam-*", pull("mms://other/{1}"))]);
        next.publishing_points[0].access.viewers = Viewers::Signed;
        next.publishing_points[0].at_once = 2;
        relay.apply(&Arc::new(next.clone()));
        assert!(relay.lent(lender.id(), "cam-1", None).is_none(), "who comes now gets the new source");
        let lent = watch.point().settings();
        assert_eq!((&lent.source, lent.access.viewers), (&pull("mms://h/{1}"), Viewers::Signed));
        let (other, second) = relay.lend(lender.id(), "cam-1", None).unwrap();
        assert!(!Arc::ptr_eq(other.point(), watch.point()) && second.is_some());
        assert_eq!(other.point().settings().source, pull("mms://other/{1}"));
        assert!(relay.lend(lender.id(), "cam-2", None).is_none(), "both count");
        drop(watch);
        assert!(loan.unwrap().give_back().is_ok());
        drop(shard.told());
        assert!(relay.lend(lender.id(), "cam-2", None).is_some());
        // The template goes, and all that it has lent with it.
        relay.apply(&Arc::new(settings(&[("x", Source::Push)])));
        assert!(shard.told().iter().any(|told| matches!(told, Delivery::Ended { point } if *point == other.point().id())));
        assert!(relay.lend(lender.id(), "cam-3", None).is_none());
        drop(other);
        assert!(second.unwrap().give_back().is_ok());
    }

    #[test]
    fn other_profiles_are_nothing_to_what_is_not_transcoded() {
        let input = FfmpegInput { input: "/srv/{1}".into(), arguments: Vec::new() };
        let ffmpeg = Source::Ffmpeg { input, profile: "wmp9".into(), start: Start::Watched, linger: Duration::ZERO };
        let points = [("cam-*", pull("mms://h/{1}")), ("tv-*", ffmpeg)];
        let (relay, _) = relay(&points);
        let [pulled, transcoded] = ["cam-1", "tv-1"].map(|name| {
            let lender = relay.resolve(name).unwrap().0.id();
            let lent = relay.lend(lender, name, None).unwrap();
            move |relay: &Relay| {
                let _lent = &lent;
                relay.lent(lender, name, None).is_some()
            }
        });
        let mut next = settings(&points);
        next.profiles.pop();
        relay.apply(&Arc::new(next));
        assert!(pulled(&relay) && !transcoded(&relay));
    }

    #[test]
    fn a_name_of_the_settings_comes_before_one_that_was_made() {
        let (relay, shard) = relay(&[("cam", Source::Push)]);
        let made = relay.create("New", None).unwrap();
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let mut publisher = made.publish(base(), PublisherId::Local).unwrap();
        publisher.header(base(), 0, &header).unwrap();
        publisher.packets(base(), packets[0].as_slice().into()).unwrap();
        shard.told();
        relay.apply(&Arc::new(settings(&[("cam", Source::Push), ("new", Source::Demo)])));
        assert!(!relay.is_created(relay.point("New").unwrap().id()) && relay.is_created(made.id()));
        let told = shard.told();
        assert!(matches!(&told[..], [Delivery::SourceLost { .. }, Delivery::Ended { .. }]), "{told:?}");
        assert_eq!(publisher.packets(base(), packets[1].as_slice().into()), Err(PublishError::Expelled));
        assert!(matches!(made.publish(base(), PublisherId::Local), Err(PublishRefusal::Unknown { .. })));
        assert!(relay.create("new", None).is_err(), "the settings have it");
        // It counts no longer when its publisher has gone.
        let id = made.id();
        drop((publisher, made, told));
        relay.tick(base());
        shard.told();
        assert!(!relay.is_created(id) && ["one", "two"].iter().all(|name| relay.create(name, None).is_ok()));
        let mut next = settings(&[("cam", Source::Push)]);
        next.publish.create = false;
        relay.apply(&Arc::new(next));
        assert!(!relay.creates() && relay.create("other", None).is_err());
    }
}
