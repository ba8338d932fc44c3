//! Draining, as it is ordered and looked at from outside: the shards do it, balancers, systemd and listeners are told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::plane::Plane;
use crate::settings::{self, Elsewhere};
use crate::shard::{Drain, DrainOrder};

/// News that a listener may be behind.
const NEWS_KEPT: usize = 16;

/// How a drain is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainWish {
    /// Where new viewers are sent; `None`: they are refused.
    pub redirect: Option<Elsewhere>,
    /// How long those who watch may go on; `None`: until they leave by themselves.
    pub timeout: Option<Duration>,
    /// The daemon ends when nobody watches any more, or that time is over.
    pub exit: bool,
}

/// How a drain goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainState {
    /// Where new viewers are sent; `None`: they are refused.
    pub redirect: Option<Elsewhere>,
    /// Since it began.
    pub lasts: Duration,
    /// Until those who still watch are ended; `None`: they are not.
    pub left: Option<Duration>,
    /// The daemon ends behind it.
    pub exit: bool,
    /// Nobody watches any more, or the time is over.
    pub over: bool,
}

/// What happens to a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DrainEvent {
    /// No new viewers are taken.
    Begun,
    /// Nobody watches any more, or the time is over.
    Over,
    /// New viewers are taken again.
    Cancelled,
}

/// The one drain that there may be.
pub(super) struct Drains {
    shards: Drain,
    current: Mutex<Option<Current>>,
    news: broadcast::Sender<DrainEvent>,
}

struct Current {
    wish: DrainWish,
    began: Instant,
    until: Option<Instant>,
    over: bool,
}

impl Drains {
    pub(super) fn new(shards: Drain) -> Self {
        Self { shards, current: Mutex::default(), news: broadcast::Sender::new(NEWS_KEPT) }
    }
}

impl DrainWish {
    /// What SIGTERM wants where the settings let viewers finish.
    pub fn of_stop(settings: &settings::Drain) -> Self {
        Self { redirect: settings.redirect.clone(), timeout: Some(settings.timeout), exit: true }
    }
}

impl Plane {
    /// Takes no new viewers from now on. Another wish while one is carried out replaces it; its time begins anew.
    pub fn begin_drain(&self, now: Instant, wish: DrainWish) -> DrainState {
        let until = wish.timeout.and_then(|timeout| now.checked_add(timeout));
        // Under the lock, so that of two wishes the shards obey the one that is shown.
        let mut current = self.drains.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.insert(Current { wish, began: now, until, over: false });
        self.drains.shards.set(Some(DrainOrder { redirect: current.wish.redirect.clone(), until }));
        self.health.set_draining(true);
        // Nobody may listen.
        let _ = self.drains.news.send(DrainEvent::Begun);
        current.state(now)
    }

    /// Takes new viewers again; false where it never stopped.
    pub(super) fn cancel_drain(&self) -> bool {
        let mut current = self.drains.current.lock().unwrap_or_else(PoisonError::into_inner);
        let was_draining = current.take().is_some();
        if was_draining {
            self.drains.shards.set(None);
            self.health.set_draining(false);
            let _ = self.drains.news.send(DrainEvent::Cancelled);
        }
        was_draining
    }

    /// How the drain goes; `None` while there is none. Asked from time to time, it tells listeners when it is over.
    pub fn look_at_drain(&self, now: Instant) -> Option<DrainState> {
        let mut current = self.drains.current.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_mut()?;
        let is_over = current.until.is_some_and(|until| until <= now) || self.relay.admission().viewers() == 0;
        if is_over && !current.over {
            current.over = true;
            let _ = self.drains.news.send(DrainEvent::Over);
        }
        Some(current.state(now))
    }

    /// News of drains from now on.
    pub(super) fn listen_to_drains(&self) -> broadcast::Receiver<DrainEvent> {
        self.drains.news.subscribe()
    }
}

impl Current {
    fn state(&self, now: Instant) -> DrainState {
        DrainState {
            redirect: self.wish.redirect.clone(),
            lasts: now.saturating_duration_since(self.began),
            left: self.until.map(|until| until.saturating_duration_since(now)),
            exit: self.wish.exit,
            over: self.over,
        }
    }
}
