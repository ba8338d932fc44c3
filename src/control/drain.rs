//! Draining, as it is ordered and looked at from outside: the shards do it, balancers, systemd and listeners are told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::plane::Plane;
use crate::settings::{self, Elsewhere};
use crate::shard::{Drain, DrainOrder};

/// News that a listener may be behind.
const NEWS_KEPT: usize = 16;

/// How a drain is to go. What is not said stays as it is in the one that is carried out; where there is none, the settings say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DrainWish {
    /// What becomes of new viewers.
    pub newcomers: Option<Newcomers>,
    /// How long those who watch may go on from now.
    pub timeout: Option<Duration>,
    /// The daemon ends when nobody watches any more, or that time is over.
    pub exit: Option<bool>,
}

/// What becomes of new viewers while it drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newcomers {
    /// They are refused.
    Refused,
    /// They are sent there.
    SentTo(Elsewhere),
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
    redirect: Option<Elsewhere>,
    exit: bool,
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
    fn begin(&mut self, now: Instant, wish: DrainWish, settings: &settings::Drain) -> &Current {
        let DrainWish { newcomers, timeout, exit } = wish;
        let until = |timeout: Duration| now.checked_add(timeout);
        // Without a time in the settings they stay until they leave by themselves.
        let before = self.current.take().unwrap_or_else(|| Current {
            redirect: settings.redirect.clone(),
            exit: false,
            began: now,
            until: Some(settings.timeout).filter(|timeout| !timeout.is_zero()).and_then(until),
            over: false,
        });
        let redirect = match newcomers {
            None => before.redirect,
            Some(Newcomers::Refused) => None,
            Some(Newcomers::SentTo(elsewhere)) => Some(elsewhere),
        };
        let until = timeout.map_or(before.until, until);
        let exit = self.ends || exit.unwrap_or(before.exit);
        self.current.insert(Current { redirect, exit, began: before.began, until, over: false })
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
        Self { newcomers: None, timeout: Some(settings.timeout), exit: Some(true) }
    }
}

impl Plane {
    /// Takes no new viewers from now on; while it drains already, what the wish says changes that. Where the daemon was told to end it
    /// does in any case.
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
        let current = book.begin(now, wish, &self.relay.settings().drain);
        self.drains.shards.set(Some(DrainOrder { redirect: current.redirect.clone(), until: current.until }));
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

    /// Where new viewers would be sent, and that it is our own listener, where that is plain. Nothing said of them: where a drain that
    /// begins now would send them by the settings.
    pub(super) fn leads_back(&self, newcomers: Option<&Newcomers>) -> Option<(Elsewhere, SocketAddr)> {
        let in_force = self.relay.settings();
        let redirect = match newcomers {
            Some(Newcomers::Refused) => None,
            Some(Newcomers::SentTo(elsewhere)) => Some(elsewhere),
            None if self.drains.lock().current.is_some() => None,
            None => in_force.drain.redirect.as_ref(),
        };
        let media = ["mms", "http", "rtsp", "rtsps"].into_iter().filter_map(|what| self.listeners.get(what));
        let redirect = redirect?;
        redirect.leads_to(media.flatten().copied(), is_own).map(|listener| (redirect.clone(), listener))
    }

    /// News of drains from now on.
    pub(super) fn listen_to_drains(&self) -> broadcast::Receiver<DrainEvent> {
        self.drains.news.subscribe()
    }
}

impl Current {
    fn state(&self, now: Instant) -> DrainState {
        DrainState {
            redirect: self.redirect.clone(),
            lasts: now.saturating_duration_since(self.began),
            left: self.until.map(|until| until.saturating_duration_since(now)),
            exit: self.exit,
            over: self.over,
        }
    }
}

/// Whether an address is one of this machine: what is sent there comes from there. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn wish(timeout: Option<Duration>) -> DrainWish {
        DrainWish { timeout, ..DrainWish::default() }
    }

    #[test]
    fn what_is_not_said_stays_as_it_was() {
        let now = tokio::time::Instant::now().into_std();
        let elsewhere = |host: &str| host.parse::<Elsewhere>().unwrap();
        let settings = settings::Drain { timeout: MINUTE, redirect: Some(elsewhere("b")) };
        let mut book = Book::default();
        let mut told = |after: Duration, wish: DrainWish| {
            let state = book.begin(now + after, wish, &settings).state(now + after);
            (state.redirect.map(|to| to.to_string()), state.lasts, state.left, state.exit)
        };
        let to = |host: &str| Some(format!("mms://{host}"));
        let zero = Duration::ZERO;
        assert_eq!(told(zero, DrainWish::default()), (to("b"), zero, Some(MINUTE), false), "as the settings say");
        let sent = DrainWish { newcomers: Some(Newcomers::SentTo(elsewhere("c"))), ..DrainWish::default() };
        assert_eq!(told(MINUTE / 2, sent), (to("c"), MINUTE / 2, Some(MINUTE / 2), false));
        assert_eq!(told(MINUTE / 2, wish(Some(2 * MINUTE))), (to("c"), MINUTE / 2, Some(2 * MINUTE), false));
        assert_eq!(
            told(MINUTE, DrainWish { exit: Some(true), ..DrainWish::default() }),
            (to("c"), MINUTE, Some(3 * MINUTE / 2), true)
        );
        assert_eq!(
            told(MINUTE, DrainWish::of_stop(&settings)),
            (to("c"), MINUTE, Some(MINUTE), true),
            "SIGTERM says nothing of where"
        );
        let refused = DrainWish { newcomers: Some(Newcomers::Refused), timeout: None, exit: Some(false) };
        assert_eq!(told(MINUTE, refused), (None, MINUTE, Some(MINUTE), false));
        assert_eq!(told(MINUTE, DrainWish::default()), (None, MINUTE, Some(MINUTE), false));
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own([192, 0, 2, 7].into()) && !is_own("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn what_was_told_to_end_ends_whatever_else_is_wished() {
        let now = tokio::time::Instant::now().into_std();
        let settings = settings::Drain::default();
        let mut book = Book::default();
        assert_eq!(book.cancel(), Err(CancelRefusal::NoDrain));
        let state = book.begin(now, wish(None), &settings).state(now);
        assert_eq!((state.exit, state.left), (false, None));
        assert_eq!(book.cancel(), Ok(()));
        book.ends = true;
        book.begin(now, wish(Some(MINUTE)), &settings);
        let later = now + MINUTE / 2;
        let state = book.begin(later, wish(None), &settings).state(later);
        assert_eq!((state.exit, state.left), (true, Some(MINUTE / 2)), "within the time that there was");
        let state = book.begin(later, wish(Some(2 * MINUTE)), &settings).state(later);
        assert_eq!((state.exit, state.left), (true, Some(2 * MINUTE)));
        assert_eq!(book.cancel(), Err(CancelRefusal::Ends));
    }
}
