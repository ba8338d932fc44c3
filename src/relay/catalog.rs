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
                        reserve.apply(&now, settings, old.source != now.source || other_profiles);
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
