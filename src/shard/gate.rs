//! Who may watch what not everybody may: passwords and signed URLs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::metrics as names;
use crate::relay::Point;
use crate::relay::admission::Guesses;
use crate::settings::Viewers;
use crate::text::signed::{KeyRefusal, Secrets};
use crate::text::{Authenticator, Verdict};
use crate::viewing::{Challenge, Denial, Login, OpenRefusal, Pass};

/// Tells the time of day, seconds of Unix time.
pub type UnixClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Decides for all shards. Its locks are held for as long as a hash takes, at an open and never while media flows.
pub struct Gate {
    secrets: RwLock<Option<Arc<Secrets>>>,
    users: RwLock<Option<Arc<Mutex<Authenticator>>>>,
    passwords: Mutex<Guesses>,
    /// Of keys, which nobody guesses: they bound the lines in the log.
    keys: Mutex<Guesses>,
    clock: UnixClock,
}

/// Why a pass opens nothing.
enum Fault {
    /// Somebody may be guessing.
    Wrong(Denial),
    /// A password was wrong; the next may be right.
    WrongLogin(Challenge),
    /// Nothing that anybody should be held to account for.
    Harmless(OpenRefusal),
}

impl Gate {
    /// `secrets` sign URLs, `users` have passwords.
    pub fn new(secrets: Option<Secrets>, users: Option<Authenticator>, clock: UnixClock) -> Self {
        let gate = Self {
            secrets: RwLock::default(),
            users: RwLock::default(),
            passwords: Mutex::default(),
            keys: Mutex::default(),
            clock,
        };
        gate.set_secrets(secrets);
        gate.set_users(users);
        gate
    }

    /// Other keys sign URLs from now on. Who was let in before stays.
    pub fn set_secrets(&self, secrets: Option<Secrets>) {
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets.map(Arc::new);
    }

    /// Others have passwords from now on. Who was let in before stays.
    pub fn set_users(&self, users: Option<Authenticator>) {
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users.map(|users| Arc::new(Mutex::new(users)));
    }

    /// Whether a viewer may open what lies `below` a publishing point; notes for the metrics and the log where not. `proven`: its
    /// credentials were right before, for the same request.
    ///
    /// # Errors
    /// What it is to be told.
    pub(super) fn admit(
        &self,
        now: Instant,
        peer: SocketAddr,
        point: &Point,
        below: &str,
        pass: &Pass,
        proven: bool,
    ) -> Result<(), OpenRefusal> {
        let settings = point.settings();
        let access = &settings.access;
        Self::admit_address(peer, point)?;
        let (fault, guesses) = match access.viewers {
            Viewers::All => return Ok(()),
            Viewers::Users if proven => return Ok(()),
            Viewers::Signed => (self.key(peer, &point.full_name(below), pass), &self.keys),
            Viewers::Users => (self.login(now, peer, pass), &self.passwords),
        };
        let (cause, refusal) = match fault {
            Ok(()) => return Ok(()),
            Err(Fault::Harmless(OpenRefusal::Denied(denial))) => return Err(Self::deny(peer, point, denial)),
            Err(Fault::Harmless(refusal)) => return Err(refusal),
            Err(Fault::Wrong(denial)) => (denial.label(), OpenRefusal::Denied(denial)),
            Err(Fault::WrongLogin(challenge)) => ("wrong_password", OpenRefusal::Login(challenge)),
        };
        Self::note_guess(guesses, now, peer, point, cause);
        Err(refusal)
    }

    /// Whether the rules of a publishing point let an address watch.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn admit_address(peer: SocketAddr, point: &Point) -> Result<(), OpenRefusal> {
        if point.settings().access.may_watch(peer.ip()) { Ok(()) } else { Err(Self::deny(peer, point, Denial::Address)) }
    }

    /// Notes for the metrics and the log that a viewer is not let in.
    pub(super) fn deny(peer: SocketAddr, point: &Point, denial: Denial) -> OpenRefusal {
        metrics::counter!(names::REFUSALS, "cause" => denial.label()).increment(1);
        tracing::info!(peer = %peer.ip(), cause = denial.label(), point = point.name(), "viewer refused");
        OpenRefusal::Denied(denial)
    }

    /// Somebody may be guessing.
    fn note_guess(guesses: &Mutex<Guesses>, now: Instant, peer: SocketAddr, point: &Point, cause: &'static str) {
        metrics::counter!(names::REFUSALS, "cause" => cause).increment(1);
        let mut guesses = lock(guesses);
        if guesses.may_guess(now, peer.ip()) {
            guesses.wrong(now, peer.ip());
            // Programs that ban addresses read this line, which stays as it is. Of the journal they see nothing but the message, and
            // no field that comes from a viewer may stand in front of the address.
            tracing::warn!(target: "wmrelay::auth", point = point.name(), "viewer not let in: peer={} cause={cause}", peer.ip());
        }
    }

    /// Keys cannot be guessed, so a right one is good whatever else comes from its address.
    // The name is as the settings write it: viewers may use other letters.
    fn key(&self, peer: SocketAddr, name: &str, pass: &Pass) -> Result<(), Fault> {
        let harmless = |denial| Err(Fault::Harmless(OpenRefusal::Denied(denial)));
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(secrets), Some(key)) = (secrets, &pass.key) else { return harmless(Denial::NoKey) };
        match secrets.check(key, name, peer.ip(), (self.clock)()) {
            Ok(()) => Ok(()),
            Err(KeyRefusal::Expired) => harmless(Denial::ExpiredKey),
            Err(KeyRefusal::Wrong) => Err(Fault::Wrong(Denial::WrongKey)),
        }
    }

    /// Passwords can be guessed: an address that did so often is not even listened to.
    fn login(&self, now: Instant, peer: SocketAddr, pass: &Pass) -> Result<(), Fault> {
        let harmless = |denial| Err(Fault::Harmless(OpenRefusal::Denied(denial)));
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(users) = users else { return harmless(Denial::Address) };
        let Some(Login { method, target, authorization }) = &pass.login else {
            return Err(Fault::Harmless(OpenRefusal::Login(challenge(&mut lock(&users), now, false))));
        };
        if !lock(&self.passwords).may_guess(now, peer.ip()) {
            return harmless(Denial::Guesses);
        }
        let mut users = lock(&users);
        match users.check(now, method, target, authorization) {
            Ok(Verdict::Granted { .. }) => Ok(()),
            Ok(Verdict::Denied) => Err(Fault::WrongLogin(challenge(&mut users, now, false))),
            Ok(Verdict::Stale) => Err(Fault::Harmless(OpenRefusal::Login(challenge(&mut users, now, true)))),
            Err(_) => harmless(Denial::BadLogin),
        }
    }
}

fn challenge(users: &mut Authenticator, now: Instant, stale: bool) -> Challenge {
    Challenge { values: users.challenges(now, stale), realm: users.realm().to_owned() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
