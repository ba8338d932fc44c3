//! Leases of the UDP ports on which players listen.
//!
//! Firewalls in front of players open a range only, one port a viewer. The pool knows, for each client address,
//! which ports of the range are in use, so that two players never claim one port and a player that cannot be
//! reached hears so at once. See MS-MMSP 3.2.5.5 for the exchange in which a port is announced.
//!
//! A port can be held for a ticket before its player comes. Over MMS a port is announced before the name, and so before the ticket
//! in that: until then a hold belongs to the address. So:
//!
//! - A session that announces exactly a held port, and whose ticket is not known yet, leases it provisionally.
//! - If it then opens a name with the ticket of the hold, the port is what it was held for.
//! - If it opens one without that ticket, it keeps the port, since it came first to one that nobody was sent anything on; the hold
//!   is over, and the ticket's own player is judged as any other when it comes: the port is taken, and it goes on by TCP. No further
//!   hold ends by that session: it counts as one without a ticket from then on.
//! - If it ends before it has opened anything, or as a session of the ticket, the port is held again for as long as the ticket lives,
//!   for a player that rolls over may come to it again.
//! - A session that is known to have no ticket, or another, is refused a held port as one that is taken. Over RTSP the name comes
//!   first, so that this is always known.
//! - A ticket of which a session announces another port holds nothing any more.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::address::canonical;
use crate::settings::{OutsidePool, Udp};

/// Below are the ports of well-known services: no data goes there, whatever a client announces.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// How long a freed port rests, so that a newcomer does not get datagrams that were meant for the one before.
const REST: Duration = Duration::from_secs(5);

/// Which client ports are in use, for each client address.
///
/// There is no clock in here: the time of a release is the latest time that a claim or a tick brought.
#[derive(Debug)]
pub struct ClientPortPool {
    shared: Arc<Shared>,
}

/// A client asks for data on a port of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where the client's control connection comes from.
    pub address: IpAddr,
    /// The port it announced.
    pub port: u16,
    /// The address it announced, if it could be read.
    pub announced: Option<IpAddr>,
    /// The player's GUID text, if it sent one.
    pub player: Option<String>,
    /// The session.
    pub owner: u64,
    /// The ticket that it has shown.
    pub ticket: TicketShown,
}

/// What is known of the ticket of a session that claims a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketShown {
    /// It has not opened a name yet.
    NotYet,
    /// None.
    None,
    /// The one of this serial number.
    Serial(u64),
}

/// Why UDP is refused; the player takes TCP then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LeaseRefusal {
    /// UDP is switched off.
    #[error("UDP is switched off: `enabled` of `[udp]`")]
    Disabled,
    /// The port is below 1024.
    #[error("the announced port is below 1024")]
    Privileged,
    /// The port is not one of `client_ports`.
    #[error("the announced port is outside of `client_ports` of `[udp]`")]
    OutsidePool,
    /// The announced address is not the connection's.
    #[error("the announced address is not the connection's: a NAT stands between (`refuse_on_nat_mismatch`)")]
    NatMismatch,
    /// Another session has the port, or had it a moment ago.
    #[error("the port is leased to another session of this address, or rests after one")]
    Taken,
    /// All ports of `client_ports` are leased to sessions of this address.
    #[error("all `client_ports` of this address are leased")]
    Exhausted,
    /// Nothing that was sent to the address by UDP arrived: [`super::Learned`].
    #[error("what was sent to this address by UDP lately did not arrive (`wmrelay learned`; `remember_s` of `[udp]`)")]
    Learned,
}

impl LeaseRefusal {
    /// The `cause` label of the fall-backs metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Privileged => "privileged",
            Self::OutsidePool => "outside_pool",
            Self::NatMismatch => "nat_mismatch",
            Self::Taken => "taken",
            Self::Exhausted => "exhausted",
            Self::Learned => "learned",
        }
    }
}

/// Ports of all client addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounts {
    /// In use.
    pub leased: usize,
    /// Freed, not yet given to others.
    pub resting: usize,
    /// Held for tickets whose players have not come yet.
    pub held: usize,
}

/// One client port that is in use or at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortFacts {
    /// The client.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// It was freed, and is not given to others yet.
    pub resting: bool,
    /// The ticket that it is held for, or that the session which has it shows.
    pub ticket: Option<u64>,
    /// That ticket's player has not come yet.
    pub held: bool,
    /// For how long.
    pub age: Duration,
}

/// The claim of one session on one port; given back when it is dropped.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    address: IpAddr,
    port: u16,
    epoch: u64,
    superseded: Option<u64>,
}

/// A port that waits for the player of a ticket; free again when this is dropped, unless a session has it by then.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    address: IpAddr,
    port: u16,
    ticket: u64,
}

#[derive(Debug)]
struct Shared {
    enabled: bool,
    /// Sorted, not overlapping, from 1024 on.
    ranges: Vec<RangeInclusive<u16>>,
    /// Ports in the ranges.
    size: usize,
    allow_outside: bool,
    refuse_on_nat_mismatch: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clock: Option<Instant>,
    /// Addresses without a port in use or at rest are not kept.
    hosts: HashMap<IpAddr, Host>,
    /// Oldest first, as all rests are equally long. One that was cut short stays until its time.
    rests: VecDeque<Rest>,
    counts: PortCounts,
    epoch: u64,
}

#[derive(Debug, Default)]
struct Host {
    slots: HashMap<u16, Slot>,
    /// Ports inside the ranges that are leased or held.
    leased_in_pool: usize,
    /// Every port of the ranges below this one is leased or held.
    leased_below: u16,
}

#[derive(Debug)]
struct Slot {
    /// Tells the lease from earlier ones of the same port.
    epoch: u64,
    holder: Holder,
    course: Course,
    /// Of the lease, of the hold, or of the rest.
    since: Option<Instant>,
    /// The ticket that it goes back to.
    ticket: Option<u64>,
    /// Datagrams may be on their way to it.
    used: bool,
}

/// What becomes of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Held,
    Leased,
    Resting,
}

/// Who has a port, as far as it can be told.
#[derive(Debug)]
struct Holder {
    owner: u64,
    /// GUID and announced address together name one player on one host.
    player: Option<(String, IpAddr)>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    address: IpAddr,
    port: u16,
    epoch: u64,
}

impl ClientPortPool {
    /// All ports are free.
    pub fn new(settings: &Udp) -> Self {
        let unprivileged = |range: &RangeInclusive<u16>| *range.start().max(&FIRST_UNPRIVILEGED)..=*range.end();
        let ranges: Vec<_> = settings.client_ports.0.iter().map(unprivileged).collect();
        let shared = Shared {
            enabled: settings.enabled,
            size: ranges.iter().map(ExactSizeIterator::len).sum(),
            ranges,
            allow_outside: settings.outside_pool == OutsidePool::Allow,
            refuse_on_nat_mismatch: settings.refuse_on_nat_mismatch,
            state: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Leases the port that a client announced.
    ///
    /// A port that is leased already changes hands only to the same player: GUID and announced address equal.
    /// One host cannot bind a port twice, so the session before is dead; [`Lease::superseded`] names it.
    ///
    /// # Errors
    /// Any [`LeaseRefusal`].
    pub fn claim(&self, now: Instant, claim: Claim) -> Result<Lease, LeaseRefusal> {
        let (shared, port) = (&self.shared, claim.port);
        let (address, announced) = (canonical(claim.address), claim.announced.map(canonical));
        let inside = shared.contains(port);
        if !shared.enabled {
            return Err(LeaseRefusal::Disabled);
        }
        if port < FIRST_UNPRIVILEGED {
            return Err(LeaseRefusal::Privileged);
        }
        if !inside && !shared.allow_outside {
            return Err(LeaseRefusal::OutsidePool);
        }
        if shared.refuse_on_nat_mismatch && announced.is_some_and(|announced| announced != address) {
            return Err(LeaseRefusal::NatMismatch);
        }
        let holder = Holder { owner: claim.owner, player: claim.player.zip(announced) };
        let mut state = shared.lock();
        state.advance(now);
        if let Some(host) = state.hosts.get(&address)
            && host.slots.get(&port).is_some_and(|slot| !slot.is_for(&holder, claim.ticket))
        {
            let exhausted = inside && host.leased_in_pool >= shared.size;
            return Err(if exhausted { LeaseRefusal::Exhausted } else { LeaseRefusal::Taken });
        }
        Ok(shared.lease(&mut state, address, port, holder))
    }

    /// Leases the lowest free port of the ranges to a client that lets the server choose.
    ///
    /// # Errors
    /// [`LeaseRefusal::Disabled`] or [`LeaseRefusal::Exhausted`].
    pub fn claim_lowest(&self, now: Instant, address: IpAddr, owner: u64) -> Result<Lease, LeaseRefusal> {
        let shared = &self.shared;
        if !shared.enabled {
            return Err(LeaseRefusal::Disabled);
        }
        let address = canonical(address);
        let holder = Holder { owner, player: None };
        let mut state = shared.lock();
        state.advance(now);
        let port = match state.hosts.get_mut(&address) {
            Some(host) => host.lowest_free(shared, &holder),
            None => shared.from(0).next(),
        };
        let port = port.ok_or(LeaseRefusal::Exhausted)?;
        Ok(shared.lease(&mut state, address, port, holder))
    }

    /// Holds the lowest free port of the ranges for the player of a ticket, by the serial number of that.
    ///
    /// # Errors
    /// [`LeaseRefusal::Disabled`] or [`LeaseRefusal::Exhausted`].
    pub fn hold_lowest(&self, now: Instant, address: IpAddr, ticket: u64) -> Result<Hold, LeaseRefusal> {
        let shared = &self.shared;
        if !shared.enabled {
            return Err(LeaseRefusal::Disabled);
        }
        let address = canonical(address);
        let holder = Holder::of_ticket(ticket);
        let mut state = shared.lock();
        state.advance(now);
        let port = match state.hosts.get_mut(&address) {
            Some(host) => host.lowest_free(shared, &holder),
            None => shared.from(0).next(),
        };
        let port = port.ok_or(LeaseRefusal::Exhausted)?;
        state.epoch += 1;
        let slot =
            Slot { epoch: state.epoch, holder, course: Course::Held, since: state.clock, ticket: Some(ticket), used: false };
        let host = state.hosts.entry(address).or_default();
        // It is free: nothing is there, and nothing of this ticket rests.
        host.slots.insert(port, slot);
        host.leased_in_pool += 1;
        state.counts.held += 1;
        Ok(Hold { shared: Arc::clone(shared), address, port, ticket })
    }

    /// Lets time pass: rests end, and addresses without ports are forgotten.
    pub fn tick(&self, now: Instant) {
        self.shared.lock().advance(now);
    }

    /// All ports in use and at rest, by address and port, and how long they have been so at `now`.
    pub fn list(&self, now: Instant) -> Vec<PortFacts> {
        let state = self.shared.lock();
        let facts = state.hosts.iter().flat_map(|(address, host)| {
            host.slots.iter().map(|(port, slot)| PortFacts {
                address: *address,
                port: *port,
                resting: slot.course == Course::Resting,
                ticket: slot.ticket,
                held: slot.course == Course::Held,
                age: slot.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            })
        });
        let mut facts: Vec<_> = facts.collect();
        // Shards wait for the lock.
        drop(state);
        facts.sort_by_key(|facts| (facts.address, facts.port));
        facts
    }

    /// Whether a port is held for a ticket, or a session of that has it.
    pub fn is_held(&self, address: IpAddr, port: u16) -> bool {
        let state = self.shared.lock();
        let slot = state.hosts.get(&canonical(address)).and_then(|host| host.slots.get(&port));
        slot.is_some_and(|slot| slot.ticket.is_some())
    }

    /// Ports in use and at rest.
    pub fn counts(&self) -> PortCounts {
        self.shared.lock().counts
    }
}

impl Lease {
    /// The client's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The session that lost the port to this lease: it is dead and can be ended.
    pub fn superseded(&self) -> Option<u64> {
        self.superseded
    }

    /// The ticket that the port is held for, or was until the session came.
    pub fn ticket(&self) -> Option<u64> {
        let state = self.shared.lock();
        let slot = state.hosts.get(&self.address)?.slots.get(&self.port)?;
        slot.ticket.filter(|_| slot.epoch == self.epoch)
    }

    /// The session has opened a name, by this ticket or without one: a hold for another one is over. That one, if there was one.
    pub fn settle(&self, ticket: Option<u64>) -> Option<u64> {
        let mut state = self.shared.lock();
        let slot = state.hosts.get_mut(&self.address)?.slots.get_mut(&self.port)?;
        let is_over = slot.epoch == self.epoch && slot.ticket.is_some() && slot.ticket != ticket;
        if is_over { slot.ticket.take() } else { None }
    }
}

impl Hold {
    /// The port, for as long as it is held, or a session of the ticket has it.
    pub fn port(&self) -> Option<u16> {
        let state = self.shared.lock();
        let slot = state.hosts.get(&self.address)?.slots.get(&self.port)?;
        (slot.ticket == Some(self.ticket)).then_some(self.port)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.let_go(self.address, self.port, self.ticket);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.release(self.address, self.port, self.epoch);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contains(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }

    /// The ports of the ranges that are not below `port`, lowest first.
    fn from(&self, port: u16) -> impl Iterator<Item = u16> + '_ {
        self.ranges.iter().flat_map(move |range| port.max(*range.start())..=*range.end())
    }

    /// Hands a port over whose slot is free, rests for the same holder, is held, or is leased to the same holder.
    fn lease(self: &Arc<Self>, state: &mut State, address: IpAddr, port: u16, holder: Holder) -> Lease {
        state.epoch += 1;
        let (epoch, owner, since) = (state.epoch, holder.owner, state.clock);
        let host = state.hosts.entry(address).or_default();
        let ticket = host.slots.get(&port).and_then(|slot| slot.ticket);
        let before = host.slots.insert(port, Slot { epoch, holder, course: Course::Leased, since, ticket, used: true });
        let course = before.as_ref().map(|slot| slot.course);
        match course {
            Some(Course::Leased) => {}
            Some(Course::Held) => state.counts.held -= 1,
            Some(Course::Resting) => state.counts.resting -= 1,
            None => {}
        }
        if course != Some(Course::Leased) {
            state.counts.leased += 1;
        }
        if matches!(course, None | Some(Course::Resting)) {
            host.leased_in_pool += usize::from(self.contains(port));
        }
        let loser = before.filter(|_| course == Some(Course::Leased)).map(|slot| slot.holder.owner);
        Lease { shared: Arc::clone(self), address, port, epoch, superseded: loser.filter(|loser| *loser != owner) }
    }

    /// Puts a port to rest, or holds it again for the ticket that it was held for, unless it has another lease by now.
    fn release(&self, address: IpAddr, port: u16, epoch: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(clock), Some(host)) = (state.clock, state.hosts.get_mut(&address)) else { return };
        let Some(slot) = host.slots.get_mut(&port).filter(|slot| slot.epoch == epoch && slot.course == Course::Leased) else {
            return;
        };
        state.counts.leased -= 1;
        if let Some(ticket) = slot.ticket {
            (slot.course, slot.since, slot.holder) = (Course::Held, Some(clock), Holder::of_ticket(ticket));
            state.counts.held += 1;
            return;
        }
        self.rest(state, clock, address, port);
    }

    /// A ticket is over, or wants its port no more: a port that waits for its player is free.
    fn let_go(&self, address: IpAddr, port: u16, ticket: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(clock), Some(host)) = (state.clock, state.hosts.get_mut(&address)) else { return };
        let Some(slot) = host.slots.get_mut(&port).filter(|slot| slot.ticket == Some(ticket)) else { return };
        slot.ticket = None;
        if slot.course != Course::Held {
            // The session that has it keeps it.
            return;
        }
        state.counts.held -= 1;
        if slot.used {
            return self.rest(state, clock, address, port);
        }
        host.slots.remove(&port);
        host.leased_in_pool -= usize::from(self.contains(port));
        host.leased_below = host.leased_below.min(port);
        if host.slots.is_empty() {
            state.hosts.remove(&address);
        }
    }

    /// Begins the rest of a port that nobody has any more.
    fn rest(&self, state: &mut State, clock: Instant, address: IpAddr, port: u16) {
        let Some(host) = state.hosts.get_mut(&address) else { return };
        let Some(slot) = host.slots.get_mut(&port) else { return };
        (slot.course, slot.since) = (Course::Resting, Some(clock));
        let epoch = slot.epoch;
        host.leased_in_pool -= usize::from(self.contains(port));
        host.leased_below = host.leased_below.min(port);
        state.counts.resting += 1;
        state.rests.push_back(Rest { until: clock + REST, address, port, epoch });
    }
}

impl State {
    fn advance(&mut self, now: Instant) {
        let clock = self.clock.map_or(now, |clock| clock.max(now));
        self.clock = Some(clock);
        while self.rests.front().is_some_and(|rest| rest.until <= clock) {
            let Some(rest) = self.rests.pop_front() else { return };
            let Some(host) = self.hosts.get_mut(&rest.address) else { continue };
            if host.slots.get(&rest.port).is_some_and(|slot| slot.epoch == rest.epoch && slot.course == Course::Resting) {
                host.slots.remove(&rest.port);
                self.counts.resting -= 1;
            }
            if host.slots.is_empty() {
                self.hosts.remove(&rest.address);
            }
        }
    }
}

impl Host {
    fn lowest_free(&mut self, pool: &Shared, holder: &Holder) -> Option<u16> {
        let leased = |slots: &HashMap<u16, Slot>, port| slots.get(&port).is_some_and(|slot| slot.course != Course::Resting);
        let lowest = pool.from(self.leased_below).find(|port| !leased(&self.slots, *port));
        self.leased_below = lowest.unwrap_or(u16::MAX);
        let free =
            |port: &u16| self.slots.get(port).is_none_or(|slot| slot.course == Course::Resting && slot.holder.is_same(holder));
        pool.from(self.leased_below).find(free)
    }
}

impl Slot {
    /// Whether it may go to whoever claims it.
    fn is_for(&self, holder: &Holder, ticket: TicketShown) -> bool {
        // One host cannot bind a port twice: a further session of a ticket has lost the one before.
        let by_ticket = self.ticket.is_some_and(|own| match ticket {
            TicketShown::Serial(serial) => serial == own,
            TicketShown::NotYet => self.course == Course::Held,
            TicketShown::None => false,
        });
        by_ticket || self.course != Course::Held && self.holder.is_same(holder)
    }
}

impl Holder {
    /// A ticket, whose number no session has.
    fn of_ticket(ticket: u64) -> Self {
        Self { owner: ticket | 1 << 63, player: None }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.owner == other.owner || (self.player.is_some() && self.player == other.player)
    }
}

#[cfg(test)]
mod tests;
