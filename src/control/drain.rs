//! Draining, as it is ordered and looked at from outside: the shards do it, balancers, systemd and listeners are told.

use std::sync::{Mutex, MutexGuard, PoisonError};
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
    book: Mutex<Book>,
    news: broadcast::Sender<DrainEvent>,
}

#[derive(Default)]
struct Book {
    current: Option<Current>,
    /// The daemon was told to end: whatever else is wished, it does when this drain is over, and that is within a time.
    ends: bool,
}

/// Why a drain is not taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CancelRefusal {
    /// There is none.
    NoDrain,
    /// The daemon was told to end, and ends behind it: who told it so waits for that.
    Ends,
}

struct Current {
    wish: DrainWish,
    began: Instant,
    until: Option<Instant>,
    over: bool,
}

impl Drains {
    pub(super) fn new(shards: Drain) -> Self {
        Self { shards, book: Mutex::default(), news: broadcast::Sender::new(NEWS_KEPT) }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// What a wish comes to.
    fn begin(&mut self, now: Instant, wish: DrainWish) -> &Current {
        let until = wish.timeout.and_then(|timeout| now.checked_add(timeout));
        let begun = if self.ends {
            let before = self.current.as_ref().and_then(|current| current.until);
            Current { wish: DrainWish { exit: true, ..wish }, began: now, until: until.or(before), over: false }
        } else {
            Current { wish, began: now, until, over: false }
        };
        self.current.insert(begun)
    }

    /// Takes back what there is.
    fn cancel(&mut self) -> Result<(), CancelRefusal> {
        if self.ends {
            return Err(CancelRefusal::Ends);
        }
        self.current.take().map(drop).ok_or(CancelRefusal::NoDrain)
    }
}

impl DrainWish {
    /// What SIGTERM wants where the settings let viewers finish.
    pub fn of_stop(settings: &settings::Drain) -> Self {
        Self { redirect: settings.redirect.clone(), timeout: Some(settings.timeout), exit: true }
    }
}

impl Plane {
    /// Takes no new viewers from now on. Another wish while one is carried out replaces it; its time begins anew. Where the daemon was
    /// told to end it does behind that one too, and where it has no time of its own the one before holds.
    pub fn begin_drain(&self, now: Instant, wish: DrainWish) -> DrainState {
        // Under the lock, so that of two wishes the shards obey the one that is shown.
        self.drain_by(&mut self.drains.lock(), now, wish)
    }

    /// The same for a daemon that was told to end: it does when the drain is over, which nobody can take back.
    pub fn drain_to_end(&self, now: Instant, wish: DrainWish) -> DrainState {
        let mut book = self.drains.lock();
        book.ends = true;
        self.drain_by(&mut book, now, wish)
    }

    fn drain_by(&self, book: &mut Book, now: Instant, wish: DrainWish) -> DrainState {
        let current = book.begin(now, wish);
        self.drains.shards.set(Some(DrainOrder { redirect: current.wish.redirect.clone(), until: current.until }));
        self.health.set_draining(true);
        // Nobody may listen.
        let _ = self.drains.news.send(DrainEvent::Begun);
        current.state(now)
    }

    /// Takes new viewers again.
    ///
    /// # Errors
    /// It never stopped, or ends.
    pub(super) fn cancel_drain(&self) -> Result<(), CancelRefusal> {
        let mut book = self.drains.lock();
        book.cancel()?;
        self.drains.shards.set(None);
        self.health.set_draining(false);
        let _ = self.drains.news.send(DrainEvent::Cancelled);
        Ok(())
    }

    /// How the drain goes; `None` while there is none. Asked from time to time, it tells listeners when it is over.
    pub fn look_at_drain(&self, now: Instant) -> Option<DrainState> {
        let mut book = self.drains.lock();
        let current = book.current.as_mut()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn wish(timeout: Option<Duration>) -> DrainWish {
        DrainWish { redirect: None, timeout, exit: false }
    }

    #[test]
    fn what_was_told_to_end_ends_whatever_else_is_wished() {
        let now = tokio::time::Instant::now().into_std();
        let mut book = Book::default();
        assert_eq!(book.cancel(), Err(CancelRefusal::NoDrain));
        let state = book.begin(now, wish(None)).state(now);
        assert_eq!((state.exit, state.left), (false, None));
        assert_eq!(book.cancel(), Ok(()));
        book.ends = true;
        book.begin(now, wish(Some(MINUTE)));
        let later = now + MINUTE / 2;
        let state = book.begin(later, wish(None)).state(later);
        assert_eq!((state.exit, state.left), (true, Some(MINUTE / 2)), "within the time that there was");
        let state = book.begin(later, wish(Some(2 * MINUTE))).state(later);
        assert_eq!((state.exit, state.left), (true, Some(2 * MINUTE)));
        assert_eq!(book.cancel(), Err(CancelRefusal::Ends));
    }
}
