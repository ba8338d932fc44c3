//! Numbers of publishing points: each is given to another one when nobody keeps anything of the one before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::delivery::PointId;

/// Gives numbers to publishing points: the lowest that is free, so that they stay dense.
#[derive(Clone, Default)]
pub(super) struct PointIds(Arc<Mutex<Ids>>);

#[derive(Default)]
struct Ids {
    /// The first that nobody has ever had.
    next: u32,
    free: BinaryHeap<Reverse<u32>>,
}

/// How many publishing points of one kind there are, those on their way back included.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<usize>>);

/// A claim on one of them.
pub(super) struct Place(Places);

/// A publishing point on its way back: its number is free when all shards have dropped this.
pub struct Vacancy {
    id: PointId,
    ids: PointIds,
    /// What it counted for until then.
    _place: Option<Place>,
}

impl PointIds {
    pub(super) fn take(&self) -> PointId {
        let mut ids = lock(&self.0);
        if let Some(Reverse(id)) = ids.free.pop() {
            return PointId(id);
        }
        let id = ids.next;
        ids.next += 1;
        PointId(id)
    }

    /// What gives a number, and its place, back when it is dropped.
    pub(super) fn vacancy(&self, id: PointId, place: Option<Place>) -> Vacancy {
        Vacancy { id, ids: self.clone(), _place: place }
    }
}

impl Places {
    /// A place where fewer than `most` are taken.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let mut taken = lock(&self.0);
        (*taken < most).then(|| {
            *taken += 1;
            Place(self.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.0.0);
        *taken = taken.saturating_sub(1);
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        lock(&self.ids.0).free.push(Reverse(self.id.0));
    }
}

impl fmt::Debug for Vacancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vacancy").field("id", &self.id).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_given() {
        let ids = PointIds::default();
        let taken: Vec<_> = (0..4).map(|_| ids.take().0).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        let places = Places::default();
        let place = places.take(1);
        assert!(place.is_some() && places.take(1).is_none() && places.take(2).is_some());
        let held = ids.vacancy(PointId(2), place);
        drop(ids.vacancy(PointId(1), None));
        assert!(places.take(1).is_none(), "it counts until all have let go");
        assert_eq!([ids.take().0, ids.take().0], [1, 4]);
        drop(held);
        assert!(places.take(1).is_some());
        assert_eq!(ids.take().0, 2);
    }
}
