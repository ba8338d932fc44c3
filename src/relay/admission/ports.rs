//! Leases of the UDP ports on which players listen.
//!
//! Firewalls in front of players open a range only, one port a viewer. The pool knows, for each client address,
//! which ports of the range are in use, so that two players never claim one port and a player that cannot be
//! reached hears so at once. See MS-MMSP 3.2.5.5 for the exchange in which a port is announced.

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
    /// Leased ports inside the ranges.
    leased_in_pool: usize,
    /// Every port of the ranges below this one is leased.
    leased_below: u16,
}

#[derive(Debug)]
struct Slot {
    /// Tells the lease from earlier ones of the same port.
    epoch: u64,
    holder: Holder,
    resting: bool,
    /// Of the lease, or of the rest.
    since: Option<Instant>,
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
            && host.slots.get(&port).is_some_and(|slot| !slot.holder.is_same(&holder))
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
                resting: slot.resting,
                age: slot.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            })
        });
        let mut facts: Vec<_> = facts.collect();
        // Shards wait for the lock.
        drop(state);
        facts.sort_by_key(|facts| (facts.address, facts.port));
        facts
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

    /// Hands a port over whose slot is free, rests for the same holder, or is leased to the same holder.
    fn lease(self: &Arc<Self>, state: &mut State, address: IpAddr, port: u16, holder: Holder) -> Lease {
        state.epoch += 1;
        let (epoch, owner, since) = (state.epoch, holder.owner, state.clock);
        let host = state.hosts.entry(address).or_default();
        let before = host.slots.insert(port, Slot { epoch, holder, resting: false, since });
        let (rested, leased_before) = match before {
            Some(slot) if slot.resting => (1, None),
            leased => (0, leased),
        };
        state.counts.resting -= rested;
        if leased_before.is_none() {
            state.counts.leased += 1;
            host.leased_in_pool += usize::from(self.contains(port));
        }
        let superseded = leased_before.map(|slot| slot.holder.owner).filter(|loser| *loser != owner);
        Lease { shared: Arc::clone(self), address, port, epoch, superseded }
    }

    /// Puts a port to rest, unless it has another lease by now.
    fn release(&self, address: IpAddr, port: u16, epoch: u64) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let (Some(clock), Some(host)) = (state.clock, state.hosts.get_mut(&address)) else { return };
        let Some(slot) = host.slots.get_mut(&port).filter(|slot| slot.epoch == epoch) else { return };
        (slot.resting, slot.since) = (true, Some(clock));
        host.leased_in_pool -= usize::from(self.contains(port));
        host.leased_below = host.leased_below.min(port);
        state.counts.leased -= 1;
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
            if host.slots.get(&rest.port).is_some_and(|slot| slot.epoch == rest.epoch) {
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
        let leased = |slots: &HashMap<u16, Slot>, port| slots.get(&port).is_some_and(|slot| !slot.resting);
        let lowest = pool.from(self.leased_below).find(|port| !leased(&self.slots, *port));
        self.leased_below = lowest.unwrap_or(u16::MAX);
        let free = |port: &u16| self.slots.get(port).is_none_or(|slot| slot.resting && slot.holder.is_same(holder));
        pool.from(self.leased_below).find(free)
    }
}

impl Holder {
    fn is_same(&self, other: &Self) -> bool {
        self.owner == other.owner || (self.player.is_some() && self.player == other.player)
    }
}

#[cfg(test)]
mod tests;
