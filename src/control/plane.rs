//! What the control plane knows of the daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, broadcast};

use super::Health;
use super::accounts::{Accounts, AccountsFile};
use super::drain::Drains;
use super::tokens::{Caller, Tokens};
use crate::relay::Relay;
use crate::relay::admission::Guesses;
use crate::settings::Settings;
use crate::shard::{Drain, Roster};

/// Passwords looked at at once: each takes 19 MiB and a processor for some tens of milliseconds.
const AT_ONCE: usize = 2;
/// Those that may wait for that; further ones are told to come later.
const WAITING_MAX: usize = 32;

/// What is logged, and how that is changed.
pub trait LogLevel: Send + Sync {
    /// In the words of the settings.
    fn level(&self) -> String;

    /// Logs by another level from now on.
    ///
    /// # Errors
    /// It is none; a sentence for the person who wrote it.
    fn set(&self, level: &str) -> Result<(), String>;
}

/// News of sources that a listener may be behind.
const SOURCE_NEWS_KEPT: usize = 256;

/// What is served, and by whom: shared by all requests.
pub struct Plane {
    /// In force.
    pub settings: Arc<Settings>,
    /// Publishing points, leases, limits.
    pub relay: Arc<Relay>,
    /// Sessions.
    pub roster: Roster,
    /// Signs of life.
    pub health: Arc<Health>,
    /// The listeners by what they serve, as the system numbered them.
    pub listeners: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// When the daemon began.
    pub started: Instant,
    /// What is logged.
    pub log: Box<dyn LogLevel>,
    pub(super) drains: Drains,
    sources: broadcast::Sender<SourceEvent>,
    accounts: Option<AccountsFile>,
    tokens: Mutex<Tokens>,
    guesses: Mutex<Guesses>,
    verifiers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A source began to send, or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceEvent {
    /// The publishing point.
    pub(super) point: String,
    /// It sends.
    pub(super) up: bool,
}

/// Why nobody is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignInRefusal {
    /// Name or password is wrong.
    Wrong,
    /// There were too many wrong ones from this address.
    Guesses,
    /// Too many sign in at this moment.
    Busy,
}

/// What a plane is made of.
pub struct PlaneParts {
    /// See [`Plane::settings`].
    pub settings: Arc<Settings>,
    /// See [`Plane::relay`].
    pub relay: Arc<Relay>,
    /// See [`Plane::roster`].
    pub roster: Roster,
    /// Lets the shards take no new viewers.
    pub drain: Drain,
    /// See [`Plane::health`].
    pub health: Arc<Health>,
    /// See [`Plane::listeners`].
    pub listeners: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// Who may sign in.
    pub accounts: Option<AccountsFile>,
    /// See [`Plane::log`].
    pub log: Box<dyn LogLevel>,
    /// See [`Plane::started`].
    pub started: Instant,
}

impl Plane {
    /// Nobody has signed in yet.
    pub fn new(parts: PlaneParts) -> Self {
        let PlaneParts { settings, relay, roster, drain, health, listeners, accounts, log, started } = parts;
        let sources = broadcast::Sender::new(SOURCE_NEWS_KEPT);
        for point in relay.points() {
            let (name, sender) = (point.name().to_owned(), sources.clone());
            // Nobody may listen.
            point.on_source(Box::new(move |up| drop(sender.send(SourceEvent { point: name.clone(), up }))));
        }
        Self {
            settings,
            relay,
            roster,
            health,
            listeners,
            started,
            log,
            drains: Drains::new(drain),
            sources,
            accounts,
            tokens: Mutex::default(),
            guesses: Mutex::default(),
            verifiers: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// News of the sources of the settings' publishing points, from now on.
    pub(super) fn listen_to_sources(&self) -> broadcast::Receiver<SourceEvent> {
        self.sources.subscribe()
    }

    /// Looks whether the file of those who may sign in has changed. Waits for the disk.
    pub(super) fn refresh_accounts(&self) {
        if let Some(file) = &self.accounts {
            file.refresh();
        }
    }

    fn accounts(&self) -> Arc<Accounts> {
        self.accounts.as_ref().map(AccountsFile::current).unwrap_or_default()
    }

    /// Whose token this is.
    pub(super) fn caller(&self, now: Instant, token: &str) -> Option<Caller> {
        let accounts = self.accounts();
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).caller(now, token, &accounts)
    }

    /// A token for whoever knows the password, and for how long it is good.
    pub(super) async fn sign_in(
        self: &Arc<Self>,
        peer: IpAddr,
        user: String,
        password: String,
    ) -> Result<(String, Caller, Duration), SignInRefusal> {
        let now = || tokio::time::Instant::now().into_std();
        let waits = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| SignInRefusal::Busy)?;
        {
            // Counted before it is known, so that many at once are not one.
            let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
            if !guesses.may_guess(now(), peer) {
                return Err(SignInRefusal::Guesses);
            }
            guesses.wrong(now(), peer);
        }
        let works = Arc::clone(&self.verifiers).acquire_owned().await.map_err(|_| SignInRefusal::Busy)?;
        let accounts = self.accounts();
        let name = user.clone();
        // Who goes away does not stop it: it has its place until it is done.
        let verified = tokio::task::spawn_blocking(move || {
            let account = accounts.verify(&name, &password).cloned();
            drop((waits, works));
            account
        });
        let Ok(Some(account)) = verified.await else { return Err(SignInRefusal::Wrong) };
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner).right(now(), peer);
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| SignInRefusal::Busy)?;
        let life = self.settings.control.sign_in;
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).issue(now(), &user, &account, life, random);
        Ok((token, Caller { user, role: account.role }, life))
    }

    /// Ends a token.
    pub(super) fn sign_out(&self, token: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).revoke(token);
    }
}
