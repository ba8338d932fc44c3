//! The sessions of encoders that push, which outlive their connections.
//!
//! A session holds the right to feed its publishing point, so that viewers wait while a connection is replaced. A connection leases
//! the stream for the time of a body, and gives it back at the body's end or its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep_until;
use tracing::info;

use super::feed::{Ended, Feed, Tally};
use super::gate::{Denial, Gate};
use super::now;
use super::stop::Stop;
use crate::http::push::{Expiry, Frames, Occupied, PushId, Session, Setup, Timers};
use crate::http::{PublishRequest, Refusal, Status};
use crate::relay::admission::{Slot, Slots};
use crate::relay::{Point, PublisherId};

/// Sessions at once.
const SESSIONS: usize = 256;
/// Of them, from one address (IPv6: one /64).
const SESSIONS_PER_ADDRESS: usize = 32;
/// Ids at once that were given with a challenge and have no session yet.
const INVITATIONS: usize = 256;
/// Of them, to one address.
const INVITATIONS_PER_ADDRESS: usize = 8;
/// While a connection deals with what came, its session is looked at so often.
const BUSY_LOOK: Duration = Duration::from_secs(1);

/// The sessions of all encoders.
pub(super) struct Encoders {
    gate: Arc<Gate>,
    timers: Timers,
    slots: Arc<Slots>,
    invitation_slots: Arc<Slots>,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    sessions: HashMap<PushId, Entry>,
    /// Ids that a challenge has carried: whoever answers it on another connection is the same encoder.
    invitations: HashMap<PushId, Invitation>,
}

struct Invitation {
    peer: IpAddr,
    until: Instant,
    _slot: Slot,
}

struct Entry {
    session: Session,
    /// There while no connection has it.
    stream: Option<Stream>,
    point: Arc<Point>,
    peer: IpAddr,
    id: PublisherId,
    auto_destroy: bool,
    /// Tells the connection that has the stream to give it back.
    evict: Arc<Notify>,
    /// Tells that it did.
    parked: Arc<Notify>,
    /// And to look at the timers anew.
    changed: Arc<Notify>,
    _slot: Slot,
}

/// What a session sends.
pub(super) struct Stream {
    pub(super) feed: Feed,
    pub(super) frames: Frames,
    since: Instant,
}

/// A session's stream while a connection has it. Dropped, it goes back, and the session waits for another connection.
pub(super) struct Lease {
    encoders: Arc<Encoders>,
    id: PushId,
    stream: Option<Stream>,
    evict: Arc<Notify>,
}

/// Why a request does not get its session.
pub(super) enum Unmet {
    Denied(Denial),
    /// A silent connection has it, and was told to give it back: ask again when that has happened.
    Yields(Arc<Notify>),
}

impl From<Refusal> for Unmet {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal.into())
    }
}

impl Encoders {
    pub(super) fn new(gate: Arc<Gate>) -> Arc<Self> {
        let slots = Slots::new(SESSIONS, SESSIONS_PER_ADDRESS);
        let invitation_slots = Slots::new(INVITATIONS, INVITATIONS_PER_ADDRESS);
        Arc::new(Self { gate, timers: Timers::default(), slots, invitation_slots, desk: Mutex::default() })
    }

    /// The id that goes with a challenge; `None` where an address has too many, which does no harm: the encoder then begins
    /// without.
    pub(super) fn invite(&self, now: Instant, peer: IpAddr, named: Option<&PushId>) -> Option<PushId> {
        let mut desk = self.lock();
        desk.invitations.retain(|_, invitation| invitation.until > now);
        if let Some(known) = named.filter(|id| desk.invitations.get(id).is_some_and(|invitation| invitation.peer == peer)) {
            return Some(known.clone());
        }
        let slot = self.invitation_slots.take(peer)?;
        let id = random_id().ok()?;
        desk.invitations.insert(id.clone(), Invitation { peer, until: now + self.timers.inactivity, _slot: slot });
        Some(id)
    }

    /// A session for who was authorised as `who`: the one that the request names, or a new one.
    pub(super) fn set_up(
        self: &Arc<Self>,
        now: Instant,
        peer: IpAddr,
        request: &PublishRequest,
        setup: &Setup,
        who: &PublisherId,
        stop: &Stop,
    ) -> Result<PushId, Unmet> {
        let mut desk = self.lock();
        let id = match &request.push_id {
            None => random_id()?,
            Some(id) if desk.sessions.contains_key(id) => {
                let entry = desk.of(id, &request.name).filter(|entry| entry.id == *who).ok_or_else(unknown)?;
                entry.session.set_up(now).map_err(|occupied| entry.unmet(occupied))?;
                if entry.is_current() {
                    entry.peer = peer;
                    entry.auto_destroy = setup.auto_destroy && self.gate.made(&entry.point);
                    return Ok(id.clone());
                }
                // Another publisher had the name in between: as if it began anew.
                if let Some(before) = desk.sessions.remove(id) {
                    before.changed.notify_one();
                }
                id.clone()
            }
            Some(id) if desk.invitations.get(id).is_some_and(|given| given.peer == peer && given.until > now) => {
                desk.invitations.remove(id);
                id.clone()
            }
            Some(_) => return Err(unknown().into()),
        };
        let slot = self.slots.take(peer).ok_or_else(|| {
            Refusal::unavailable("There are too many push sessions, in all or from this address.", Duration::from_secs(30))
        })?;
        let publisher = self.gate.claim(now, &request.name, who.clone(), setup.template.as_deref())?;
        let point = Arc::clone(publisher.point());
        // What fed it before was superseded by this.
        desk.sessions.retain(|_, other| {
            let is_other = !Arc::ptr_eq(&other.point, &point);
            if !is_other {
                other.evict.notify_one();
            }
            is_other
        });
        let changed = Arc::<Notify>::default();
        let entry = Entry {
            session: Session::new(now, self.timers),
            stream: Some(Stream { feed: Feed::new(publisher), frames: Frames::default(), since: now }),
            auto_destroy: setup.auto_destroy && self.gate.made(&point),
            point,
            peer,
            id: who.clone(),
            evict: Arc::default(),
            parked: Arc::default(),
            changed: Arc::clone(&changed),
            _slot: slot,
        };
        desk.sessions.insert(id.clone(), entry);
        drop(desk);
        tokio::spawn(stop.clone().until(watch(Arc::downgrade(self), id.clone(), changed)));
        Ok(id)
    }

    /// The stream of the session that a PushStart names. The id is the right to it for the address that has set the session up;
    /// others must say who they are.
    pub(super) fn start(self: &Arc<Self>, now: Instant, peer: IpAddr, request: &PublishRequest) -> Result<Lease, Unmet> {
        let Some(id) = &request.push_id else {
            return Err(
                Refusal::new(Status::BadRequest, "A PushStart names the session of a PushSetup in the cookie push-id.").into()
            );
        };
        let mut desk = self.lock();
        let entry = desk.of(id, &request.name).ok_or_else(unknown)?;
        if entry.peer != peer || !self.gate.may_publish(peer) {
            let who = self.gate.authorise(now, peer, request).map_err(Unmet::Denied)?;
            if who != entry.id {
                return Err(unknown().into());
            }
            entry.peer = peer;
        }
        entry.session.start(now).map_err(|occupied| entry.unmet(occupied))?;
        if !entry.is_current() {
            desk.sessions.remove(id);
            let text = "Another publisher with the same credentials has this publishing point now.";
            return Err(Refusal::new(Status::Conflict, text).into());
        }
        let mut stream = entry.stream.take();
        if let Some(stream) = &mut stream {
            stream.frames.begin();
        }
        entry.evict = Arc::default();
        let evict = Arc::clone(&entry.evict);
        Ok(Lease { encoders: Arc::clone(self), id: id.clone(), stream, evict })
    }

    /// A connection gives a stream back.
    fn park(&self, id: &PushId, stream: Stream, settle: impl FnOnce(&mut Session)) {
        let mut desk = self.lock();
        // Without a session, which was superseded, the stream is dropped.
        if let Some(entry) = desk.sessions.get_mut(id) {
            settle(&mut entry.session);
            entry.stream = Some(stream);
            entry.parked.notify_one();
            entry.changed.notify_one();
        }
    }

    /// A session is over: its publishing point goes as well if it was made for it. `properly`: viewers get the end of the stream at
    /// once, they need not wait for another source.
    fn finish(&self, id: &PushId, stream: Stream, properly: bool, reason: &str) {
        let entry = self.lock().sessions.remove(id);
        if let Some(entry) = entry {
            self.finished(entry, stream, properly, reason);
        }
    }

    /// The same of a session that was taken out.
    fn finished(&self, entry: Entry, stream: Stream, properly: bool, reason: &str) {
        let Entry { point, auto_destroy, .. } = entry;
        if !properly {
            Ended::failed(reason.to_owned()).note(&stream.feed);
        }
        let Tally { bytes, packets, invalid } = stream.feed.tally;
        let seconds = now().saturating_duration_since(stream.since).as_secs();
        info!(point = point.name(), seconds, bytes, packets, invalid, reason, "push session ended");
        let destroys = auto_destroy && stream.feed.is_current();
        if destroys {
            drop(stream);
            self.gate.destroy(&point);
        } else if properly {
            stream.feed.end();
        }
    }

    /// When a session is to be looked at; `None` where it is gone, also if there is another of its id.
    fn deadline(&self, id: &PushId, changed: &Arc<Notify>) -> Option<Instant> {
        let desk = self.lock();
        let entry = desk.sessions.get(id).filter(|entry| Arc::ptr_eq(&entry.changed, changed))?;
        let look = now() + BUSY_LOOK;
        // A connection that has the stream sees to the time itself, to say so.
        let own = entry.session.poll_timeout().unwrap_or(look);
        Some(if entry.stream.is_some() { own } else { own.max(look) })
    }

    /// Ends a session whose time has come and that no connection has.
    fn expire(&self, id: &PushId, changed: &Arc<Notify>) {
        let ended = {
            // Under one lock, so that nobody finds it without its stream.
            let mut desk = self.lock();
            let Some(entry) = desk.sessions.get_mut(id).filter(|entry| Arc::ptr_eq(&entry.changed, changed)) else { return };
            let Some(expiry) = entry.session.expired(now()) else { return };
            let stream = entry.stream.take();
            stream.and_then(|stream| Some((desk.sessions.remove(id)?, stream, expiry)))
        };
        if let Some((entry, stream, expiry)) = ended {
            self.finished(entry, stream, false, reason(expiry));
        }
    }

    /// Sessions that there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Of them, those that a connection sends in.
    #[cfg(test)]
    pub(super) fn leased(&self) -> usize {
        self.lock().sessions.values().filter(|entry| entry.session.is_streaming()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// A session, for requests to the publishing point that it feeds.
    fn of(&mut self, id: &PushId, name: &str) -> Option<&mut Entry> {
        self.sessions.get_mut(id).filter(|entry| entry.point.name().eq_ignore_ascii_case(name))
    }
}

impl Entry {
    fn is_current(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.feed.is_current())
    }

    fn unmet(&self, occupied: Occupied) -> Unmet {
        if occupied.is_silent {
            self.evict.notify_one();
            return Unmet::Yields(Arc::clone(&self.parked));
        }
        busy().into()
    }
}

impl Lease {
    pub(super) fn stream(&mut self) -> Option<&mut Stream> {
        self.stream.as_mut()
    }

    /// Bytes of the body came.
    pub(super) fn came(&self) {
        self.session(|session| session.came(now()));
    }

    /// They were dealt with.
    pub(super) fn taken(&self, is_media: bool) {
        self.session(|session| session.taken(now(), is_media));
    }

    /// When the idle timer ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session(|session| session.poll_timeout()).flatten()
    }

    /// Whether it has.
    pub(super) fn is_expired(&self) -> bool {
        self.session(|session| session.expired(now())).flatten().is_some()
    }

    /// Returns when another connection is to have the session.
    pub(super) async fn evicted(&self) {
        self.evict.notified().await;
    }

    /// The body is complete: the session waits for the next request.
    pub(super) fn body_end(mut self) {
        if let Some(stream) = self.stream.take() {
            self.encoders.park(&self.id, stream, |session| session.body_end(now()));
        }
    }

    /// The session is over.
    pub(super) fn finish(mut self, properly: bool, reason: &str) {
        if let Some(stream) = self.stream.take() {
            self.encoders.finish(&self.id, stream, properly, reason);
        }
    }

    fn session<T>(&self, look: impl FnOnce(&mut Session) -> T) -> Option<T> {
        self.encoders.lock().sessions.get_mut(&self.id).map(|entry| look(&mut entry.session))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.encoders.park(&self.id, stream, Session::lost);
        }
    }
}

/// Looks after the timers of a session while no connection does.
async fn watch(encoders: Weak<Encoders>, id: PushId, changed: Arc<Notify>) {
    while let Some(deadline) = encoders.upgrade().and_then(|encoders| encoders.deadline(&id, &changed)) {
        tokio::select! {
            () = sleep_until(deadline.into()) => {}
            () = changed.notified() => continue,
        }
        if let Some(encoders) = encoders.upgrade() {
            encoders.expire(&id, &changed);
        }
    }
}

pub(super) const fn reason(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::Idle => "no packets came",
        Expiry::Inactive => "no request came",
    }
}

pub(super) fn busy() -> Refusal {
    let text = "Another connection sends in this push session; it must end or fall silent first.";
    Refusal { retry_after: Some(Duration::from_secs(2)), ..Refusal::new(Status::Conflict, text) }
}

fn unknown() -> Refusal {
    Refusal::new(Status::NotFound, "There is no such push session for this name; a PushSetup with push-id=0 begins one.")
}

fn random_id() -> Result<PushId, Refusal> {
    let mut bits = [0; 16];
    let filled = getrandom::fill(&mut bits);
    filled.map_err(|_| Refusal::new(Status::InternalServerError, "The system has no random numbers for a session."))?;
    Ok(PushId::random(bits))
}
