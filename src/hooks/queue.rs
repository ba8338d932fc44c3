//! Events that wait to be told: a bounded number, several at once, those of one publishing point one after the other.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Event;

/// See there.
pub(super) struct Queue {
    inner: Arc<Inner>,
    waiting_max: usize,
    at_once: usize,
}

struct Inner {
    state: Mutex<State>,
    /// Counts changes of the state.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Event>,
    /// Publishing points of which an event is being told.
    busy: HashSet<Arc<str>>,
}

/// An event of this publishing point is being told until this is dropped.
struct Busy {
    inner: Arc<Inner>,
    point: Arc<str>,
}

impl Queue {
    pub(super) fn new(waiting_max: usize, at_once: usize) -> Self {
        let inner = Inner { state: Mutex::default(), changes: watch::Sender::new(0) };
        Self { inner: Arc::new(inner), waiting_max, at_once }
    }

    /// Takes an event in, never waiting; the oldest that waits, where there are too many.
    pub(super) fn push(&self, event: Event) -> Option<Event> {
        let dropped = {
            let mut state = self.inner.lock();
            state.waiting.push_back(event);
            if state.waiting.len() > self.waiting_max { state.waiting.pop_front() } else { None }
        };
        self.inner.changed();
        dropped
    }

    /// Tells events by `tell`, for ever; what is being told when this is dropped is given up.
    pub(super) async fn serve<F: Future<Output = ()> + Send + 'static>(&self, tell: impl Fn(Event) -> F) {
        let mut changes = self.inner.changes.subscribe();
        let mut told = JoinSet::new();
        loop {
            changes.mark_unchanged();
            while let Some((event, busy)) = self.next() {
                let telling = tell(event);
                told.spawn(async move {
                    let _busy = busy;
                    telling.await;
                });
            }
            while told.try_join_next().is_some() {}
            // The sender is this queue's own.
            let _ = changes.changed().await;
        }
    }

    /// Returns once nothing waits and nothing is being told.
    pub(super) async fn idle(&self) {
        let is_idle = |_: &u64| {
            let state = self.inner.lock();
            state.waiting.is_empty() && state.busy.is_empty()
        };
        let _ = self.inner.changes.subscribe().wait_for(is_idle).await;
    }

    /// The oldest event that can be told now.
    fn next(&self) -> Option<(Event, Busy)> {
        let mut state = self.inner.lock();
        let State { waiting, busy } = &mut *state;
        if busy.len() >= self.at_once {
            return None;
        }
        let at = waiting.iter().position(|event| !busy.contains(&event.point))?;
        let event = waiting.remove(at)?;
        busy.insert(Arc::clone(&event.point));
        let point = Arc::clone(&event.point);
        Some((event, Busy { inner: Arc::clone(&self.inner), point }))
    }
}

impl Inner {
    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.inner.lock().busy.remove(&self.point);
        self.inner.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::tests::event;
    use tokio::sync::Semaphore;
    use tokio::task::yield_now;

    async fn settle() {
        for _ in 0..50 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn events_of_one_point_go_one_by_one_and_of_others_beside_them() {
        let queue = Arc::new(Queue::new(256, 2));
        let (may_end, told) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (served, gate, log) = (Arc::clone(&queue), Arc::clone(&may_end), Arc::clone(&told));
        let task = tokio::spawn(async move {
            let tell = move |event: Event| {
                let (gate, log) = (Arc::clone(&gate), Arc::clone(&log));
                async move {
                    log.lock().unwrap().push(event.number);
                    gate.acquire().await.unwrap().forget();
                }
            };
            served.serve(tell).await;
        });
        for (number, point) in [(0, "a"), (1, "a"), (2, "b"), (3, "c")] {
            assert!(queue.push(event(number, point)).is_none());
        }
        settle().await;
        assert_eq!(*told.lock().unwrap(), [0, 2], "two at once, and of each point one");
        may_end.add_permits(1);
        settle().await;
        assert_eq!(told.lock().unwrap()[2], 1, "the oldest that can");
        may_end.add_permits(10);
        queue.idle().await;
        assert_eq!(*told.lock().unwrap(), [0, 2, 1, 3]);
        task.abort();
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_are_dropped() {
        let queue = Queue::new(3, 1);
        let dropped: Vec<_> = (0..5).filter_map(|number| queue.push(event(number, "a"))).map(|event| event.number).collect();
        assert_eq!(dropped, [0, 1]);
    }

    #[tokio::test]
    async fn one_that_panics_holds_nobody_up() {
        let queue = Arc::new(Queue::new(3, 1));
        let served = Arc::clone(&queue);
        let task = tokio::spawn(async move {
            served
                .serve(|event| async move {
                    assert!(event.number > 0, "this one panics");
                })
                .await;
        });
        queue.push(event(0, "a"));
        queue.push(event(1, "a"));
        queue.idle().await;
        task.abort();
    }
}
