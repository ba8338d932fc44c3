//! What the control plane knows of the daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, broadcast};

use super::Health;
use super::accounts::{Accounts, AccountsFile};
use super::drain::Drains;
use super::history::{History, Sample};
use super::probes::Probes;
use super::reload::ReloadOrders;
use super::surveys::Surveys;
use super::throttle::{Throttle, TooMany};
use super::tokens::{Caller, Tokens};
use crate::relay::Relay;
use crate::settings::Settings;
use crate::shard::{Drain, Prober, Roster, SessionFacts};

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

/// Pages that ask again every two seconds are told of sessions as they were so long ago at most.
const RECENT: Duration = Duration::from_secs(1);

/// What is served, and by whom: shared by all requests.
pub struct Plane {
    /// As they were when the daemon began; those in force now are [`Relay::settings`].
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
    /// Has the settings read again.
    pub reload: ReloadOrders,
    /// Probes of the way to viewers.
    pub probes: Probes,
    history: Mutex<History>,
    surveys: Surveys<Vec<SessionFacts>>,
    pub(super) drains: Drains,
    sources: broadcast::Sender<SourceEvent>,
    accounts: Option<AccountsFile>,
    tokens: Mutex<Tokens>,
    throttle: Mutex<Throttle>,
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
    /// There were too many wrong ones.
    TooMany(TooMany),
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
    /// See [`Plane::reload`].
    pub reload: ReloadOrders,
    /// See [`Plane::started`].
    pub started: Instant,
    /// Sends the challenges of probes.
    pub prober: Prober,
}

impl Plane {
    /// Nobody has signed in yet.
    pub fn new(parts: PlaneParts) -> Self {
        let PlaneParts { settings, relay, roster, drain, health, listeners, accounts, log, reload, started, prober } = parts;
        let sources = broadcast::Sender::new(SOURCE_NEWS_KEPT);
        let news = sources.clone();
        relay.on_point(Box::new(move |point, name| {
            // What is lent has another name than its lender.
            if point.name() == name {
                let (name, sender) = (name.to_owned(), news.clone());
                // Nobody may listen.
                point.on_source(Box::new(move |up| drop(sender.send(SourceEvent { point: name.clone(), up }))));
            }
        }));
        Self {
            settings,
            relay,
            roster,
            health,
            listeners,
            started,
            log,
            reload,
            probes: Probes::new(prober),
            history: Mutex::default(),
            surveys: Surveys::default(),
            drains: Drains::new(drain),
            sources,
            accounts,
            tokens: Mutex::default(),
            throttle: Mutex::default(),
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

    /// Whether anybody may sign in.
    pub fn has_users(&self) -> bool {
        !self.accounts().is_empty()
    }

    /// Who may sign in.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.as_ref().map(AccountsFile::current).unwrap_or_default()
    }

    /// Whose token this is.
    pub fn caller(&self, now: Instant, token: &str) -> Option<Caller> {
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
        self.lock_throttle().check(now(), peer, &user).map_err(SignInRefusal::TooMany)?;
        let works = Arc::clone(&self.verifiers).acquire_owned().await.map_err(|_| SignInRefusal::Busy)?;
        // Counted only when its turn has come, so that many who know their passwords are not taken for one who does not.
        let attempt = self.lock_throttle().begin(now(), peer, &user).map_err(SignInRefusal::TooMany)?;
        let accounts = self.accounts();
        let name = user.clone();
        // Who goes away does not stop it: it has its place until it is done.
        let verified = tokio::task::spawn_blocking(move || {
            let account = accounts.verify(&name, &password).cloned();
            drop((waits, works));
            account
        });
        let Ok(Some(account)) = verified.await else { return Err(SignInRefusal::Wrong) };
        self.lock_throttle().right(now(), &attempt);
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| SignInRefusal::Busy)?;
        let life = self.relay.settings().control.sign_in;
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).issue(now(), &user, &account, life, random);
        Ok((token, Caller { user, role: account.role }, life))
    }

    fn lock_throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a token.
    pub fn sign_out(&self, token: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).revoke(token);
    }

    /// Ends all tokens of a user.
    pub fn sign_out_user(&self, user: &str) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).revoke_user(user);
    }

    /// Tokens of each user who has some.
    pub fn signed_in(&self, now: Instant) -> BTreeMap<String, usize> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).by_user(now)
    }

    /// All sessions by their numbers, by a survey that begins after the question: who has just done something sees what came of it.
    /// Many who ask at once share the next one.
    pub(super) async fn sessions(&self) -> Arc<Vec<SessionFacts>> {
        self.sessions_since(tokio::time::Instant::now().into_std()).await
    }

    /// The same for pages that are drawn anew from time to time: by one that began a second ago at most, and after the last
    /// [`Plane::kick`].
    pub async fn recent_sessions(&self) -> Arc<Vec<SessionFacts>> {
        let now = tokio::time::Instant::now().into_std();
        self.sessions_since(now.checked_sub(RECENT).unwrap_or(now)).await
    }

    async fn sessions_since(&self, since: Instant) -> Arc<Vec<SessionFacts>> {
        let now = || tokio::time::Instant::now().into_std();
        self.surveys.since(since, now, || self.roster.sessions()).await
    }

    /// Ends a session; false if there is none of that number.
    pub(super) async fn kick(&self, session: u64) -> bool {
        let was_there = self.roster.kick(session).await;
        self.surveys.outdate();
        was_there
    }

    /// Notes how it is now, for [`Plane::samples`].
    pub(super) fn sample(&self, now: Instant) {
        let admission = self.relay.admission();
        let sample = Sample { at: now, viewers: admission.viewers(), bit_rate: admission.bit_rate() };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).add(sample);
    }

    /// How it was in the last hour, the oldest first; the last is now.
    pub fn samples(&self, now: Instant) -> Vec<Sample> {
        let mut samples = self.history.lock().unwrap_or_else(PoisonError::into_inner).list(now);
        let admission = self.relay.admission();
        samples.push(Sample { at: now, viewers: admission.viewers(), bit_rate: admission.bit_rate() });
        samples
    }
}
