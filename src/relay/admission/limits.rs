//! How many viewers there may be, and how much they may draw.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use thiserror::Error;

use super::address::{canonical, limit_key};
use super::rate::TokenBucket;
use crate::relay::delivery::PointId;
use crate::settings::{Access, Limits};

/// Why a viewer is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The access rules name the address.
    #[error("the access rules (`[access]`) do not let this address watch")]
    Access,
    /// `viewers` is reached.
    #[error("the server is full: `viewers` of `[limits]` is reached")]
    Viewers,
    /// `viewers_per_address` is reached.
    #[error("too many sessions from this address: `viewers_per_address` of `[limits]` is reached")]
    Address,
    /// More sessions a second than `joins_per_s`.
    #[error("too many new sessions at once: `joins_per_s` of `[limits]` is reached")]
    Joins,
    /// `viewers_per_point` is reached.
    #[error("the publishing point is full: `viewers_per_point` of `[limits]` is reached")]
    Point,
    /// `bandwidth_kbps` would be exceeded.
    #[error("no bandwidth left: `bandwidth_kbps` of `[limits]` would be exceeded")]
    Bandwidth,
}

impl Refusal {
    /// The `cause` label of the refusals metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Viewers => "viewers",
            Self::Address => "viewers_per_address",
            Self::Joins => "joins",
            Self::Point => "viewers_per_point",
            Self::Bandwidth => "bandwidth",
        }
    }
}

/// What viewers count for against `viewers_per_point`: a publishing point, in whatever profile, or a name that one is lent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account {
    point: PointId,
    /// Which name, in order of their loans; 0: the publishing point itself.
    name: u64,
}

impl Account {
    /// That of a publishing point with a stream of its own.
    pub const fn of_point(point: PointId) -> Self {
        Self { point, name: 0 }
    }

    /// That of a name, by its lender and a number from 1 on, which no other name gets there as long as the daemon runs.
    pub const fn of_name(lender: PointId, serial: u64) -> Self {
        Self { point: lender, name: serial }
    }
}

/// Counts sessions and what they draw against the limits.
#[derive(Debug)]
pub(super) struct Gate {
    rules: RwLock<Arc<Rules>>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Rules {
    limits: Limits,
    access: Access,
}

#[derive(Debug)]
struct Counts(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    viewers: u32,
    /// Addresses without a session are not kept.
    by_address: HashMap<IpAddr, u32>,
    /// Those without a viewer are not kept.
    by_account: HashMap<Account, u32>,
    bit_rate: u64,
    joins: Option<TokenBucket>,
}

/// The place of one session; given back when it is dropped.
#[derive(Debug)]
pub struct SessionPermit {
    counts: Arc<Counts>,
    key: IpAddr,
    opened: Option<Opened>,
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    account: Account,
    bit_rate: u32,
}

impl Gate {
    pub(super) fn new(limits: &Limits, access: &Access) -> Self {
        let joins = TokenBucket::new(limits.joins_per_s, limits.joins_burst);
        let taken = Taken { viewers: 0, by_address: HashMap::new(), by_account: HashMap::new(), bit_rate: 0, joins };
        let rules = Rules { limits: limits.clone(), access: access.clone() };
        Self { rules: RwLock::new(Arc::new(rules)), counts: Arc::new(Counts(Mutex::new(taken))) }
    }

    /// Other rules from now on. Who has a place keeps it, be there more than there may be.
    pub(super) fn apply(&self, limits: &Limits, access: &Access) {
        let before = self.rules();
        let rate = |limits: &Limits| (limits.joins_per_s, limits.joins_burst);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Rules { limits: limits.clone(), access: access.clone() });
        if rate(&before.limits) != rate(limits) {
            self.counts.lock().joins = TokenBucket::new(limits.joins_per_s, limits.joins_burst);
        }
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn may_watch(&self, peer: IpAddr) -> bool {
        self.rules().access.may_watch(canonical(peer))
    }

    pub(super) fn may_publish(&self, peer: IpAddr) -> bool {
        self.rules().access.may_publish(canonical(peer))
    }

    pub(super) fn connect(&self, now: Instant, peer: IpAddr) -> Result<SessionPermit, Refusal> {
        let rules = self.rules();
        if !rules.access.may_watch(canonical(peer)) {
            return Err(Refusal::Access);
        }
        let key = limit_key(peer);
        let mut taken = self.counts.lock();
        if reached(taken.viewers, rules.limits.viewers) {
            return Err(Refusal::Viewers);
        }
        if reached(taken.by_address.get(&key).copied().unwrap_or(0), rules.limits.viewers_per_address) {
            return Err(Refusal::Address);
        }
        // Last, so that those who are refused anyway do not use up the rate of the others.
        if taken.joins.as_mut().is_some_and(|joins| !joins.take(now)) {
            return Err(Refusal::Joins);
        }
        taken.viewers += 1;
        *taken.by_address.entry(key).or_default() += 1;
        Ok(SessionPermit { counts: Arc::clone(&self.counts), key, opened: None })
    }

    pub(super) fn open(&self, permit: &mut SessionPermit, account: Account, bit_rate: u32) -> Result<(), Refusal> {
        let rules = self.rules();
        let mut taken = self.counts.lock();
        // What the session has open now is given back by the same call and does not stand in its way.
        let (own_rate, own_place) = permit.opened.map_or((0, false), |own| (own.bit_rate, own.account == account));
        let viewers = taken.by_account.get(&account).copied().unwrap_or(0) - u32::from(own_place);
        if reached(viewers, rules.limits.viewers_per_point) {
            return Err(Refusal::Point);
        }
        let bit_rates = taken.bit_rate - u64::from(own_rate) + u64::from(bit_rate);
        let limit = rules.limits.bandwidth_kbps.saturating_mul(1000);
        if limit != 0 && bit_rates > limit {
            return Err(Refusal::Bandwidth);
        }
        if let Some(opened) = permit.opened.take() {
            taken.close(opened);
        }
        *taken.by_account.entry(account).or_default() += 1;
        taken.bit_rate += u64::from(bit_rate);
        permit.opened = Some(Opened { account, bit_rate });
        Ok(())
    }

    /// Sessions now.
    pub(super) fn viewers(&self) -> u32 {
        self.counts.lock().viewers
    }

    /// Sum of the bit rates of all open sessions, bit/s.
    pub(super) fn bit_rate(&self) -> u64 {
        self.counts.lock().bit_rate
    }
}

fn reached(count: u32, limit: u32) -> bool {
    limit != 0 && count >= limit
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn close(&mut self, opened: Opened) {
        give_back(&mut self.by_account, opened.account);
        self.bit_rate -= u64::from(opened.bit_rate);
    }
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl SessionPermit {
    /// Books another bit rate, bit/s, for a viewer whose stream changed under it. Never refused: the viewer is
    /// there already and did not ask for it.
    pub fn rebook(&mut self, bit_rate: u32) {
        if let Some(opened) = &mut self.opened {
            let mut taken = self.counts.lock();
            taken.bit_rate = taken.bit_rate - u64::from(opened.bit_rate) + u64::from(bit_rate);
            opened.bit_rate = bit_rate;
        }
    }

    /// Gives the publishing point back; the session goes on.
    pub fn close(&mut self) {
        if let Some(opened) = self.opened.take() {
            self.counts.lock().close(opened);
        }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        self.close();
        let mut taken = self.counts.lock();
        taken.viewers -= 1;
        give_back(&mut taken.by_address, self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::{at, base};
    use crate::settings::Settings;

    const POINT: Account = Account::of_point(PointId(0));
    const OTHER: Account = Account::of_name(PointId(0), 1);

    fn gate(change: impl FnOnce(&mut Limits)) -> Gate {
        let mut settings = Settings::default();
        change(&mut settings.limits);
        Gate::new(&settings.limits, &settings.access)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn connect(gate: &Gate, peer: &str) -> Result<SessionPermit, Refusal> {
        gate.connect(base(), ip(peer))
    }

    #[test]
    fn other_limits_hold_for_who_comes() {
        let gate = gate(|limits| limits.viewers = 3);
        let permits: Vec<_> = (0..3).map(|_| connect(&gate, "192.0.2.1").unwrap()).collect();
        assert_eq!(connect(&gate, "192.0.2.1").unwrap_err(), Refusal::Viewers);
        let (mut limits, mut access) = (Settings::default().limits, Access::default());
        (limits.viewers, limits.joins_per_s) = (2, 1);
        access.viewers_deny = vec!["192.0.2.9/32".parse().unwrap()];
        gate.apply(&limits, &access);
        assert_eq!(gate.viewers(), 3, "who is there stays");
        assert_eq!(connect(&gate, "192.0.2.9").unwrap_err(), Refusal::Access);
        drop(permits);
        let _one = connect(&gate, "192.0.2.1").unwrap();
        assert_eq!(connect(&gate, "192.0.2.1").unwrap_err(), Refusal::Joins);
        // The rate that is the same goes on counting.
        gate.apply(&limits, &Access::default());
        assert_eq!(connect(&gate, "192.0.2.9").unwrap_err(), Refusal::Joins);
    }

    #[test]
    fn zero_is_no_limit() {
        let gate = gate(|_| ());
        let mut permits: Vec<_> = (0..500).map(|_| connect(&gate, "192.0.2.1").unwrap()).collect();
        for permit in &mut permits {
            gate.open(permit, POINT, u32::MAX).unwrap();
        }
        assert_eq!((gate.viewers(), gate.bit_rate()), (500, 500 * u64::from(u32::MAX)));
        drop(permits);
        assert_eq!((gate.viewers(), gate.bit_rate()), (0, 0));
        let taken = gate.counts.lock();
        assert!(taken.by_address.is_empty() && taken.by_account.is_empty(), "nothing is kept of sessions that ended");
    }

    #[test]
    fn viewers_in_all() {
        let gate = gate(|limits| limits.viewers = 2);
        let first = connect(&gate, "192.0.2.1").unwrap();
        let _second = connect(&gate, "192.0.2.2").unwrap();
        assert_eq!(connect(&gate, "192.0.2.3").unwrap_err(), Refusal::Viewers);
        drop(first);
        connect(&gate, "192.0.2.3").unwrap();
    }

    #[test]
    fn viewers_of_one_address() {
        let gate = gate(|limits| limits.viewers_per_address = 1);
        let first = connect(&gate, "192.0.2.1").unwrap();
        assert_eq!(connect(&gate, "::ffff:192.0.2.1").unwrap_err(), Refusal::Address);
        let _other = connect(&gate, "192.0.2.2").unwrap();
        let _v6 = connect(&gate, "2001:db8::1").unwrap();
        assert_eq!(connect(&gate, "2001:db8::ffff:2").unwrap_err(), Refusal::Address);
        let _v6_other = connect(&gate, "2001:db8:0:1::1").unwrap();
        drop(first);
        connect(&gate, "192.0.2.1").unwrap();
    }

    #[test]
    fn viewers_of_one_point() {
        let gate = gate(|limits| limits.viewers_per_point = 1);
        let mut permits = [connect(&gate, "192.0.2.1").unwrap(), connect(&gate, "192.0.2.1").unwrap()];
        gate.open(&mut permits[0], POINT, 1).unwrap();
        assert_eq!(gate.open(&mut permits[1], POINT, 1).unwrap_err(), Refusal::Point);
        gate.open(&mut permits[1], OTHER, 1).unwrap();
        gate.open(&mut permits[0], POINT, 1).unwrap();
        assert_eq!(gate.open(&mut permits[0], OTHER, 1).unwrap_err(), Refusal::Point);
        assert_eq!(gate.open(&mut permits[1], POINT, 1).unwrap_err(), Refusal::Point, "a refused session keeps its place");
        permits[0].close();
        gate.open(&mut permits[1], POINT, 1).unwrap();
    }

    #[test]
    fn bandwidth() {
        let gate = gate(|limits| limits.bandwidth_kbps = 300);
        let mut permits: Vec<_> = (0..3).map(|_| connect(&gate, "192.0.2.1").unwrap()).collect();
        gate.open(&mut permits[0], POINT, 150_000).unwrap();
        gate.open(&mut permits[1], POINT, 150_000).unwrap();
        assert_eq!(gate.open(&mut permits[2], POINT, 1).unwrap_err(), Refusal::Bandwidth);
        gate.open(&mut permits[1], OTHER, 150_000).unwrap();
        permits[1].rebook(149_000);
        gate.open(&mut permits[2], POINT, 1000).unwrap();
        permits[0].rebook(u32::MAX);
        assert_eq!(gate.bit_rate(), u64::from(u32::MAX) + 150_000);
        permits.clear();
        assert_eq!(gate.bit_rate(), 0);
    }

    #[test]
    fn joins_a_second() {
        let gate = gate(|limits| {
            limits.joins_per_s = 10;
            limits.viewers_per_address = 2;
        });
        let base = base();
        let mut permits = Vec::new();
        for (host, tenth) in (0..10).map(|host| (host, 0)).chain([(10, 1)]) {
            permits.push(gate.connect(at(base, tenth * 100), IpAddr::from([192, 0, 2, host])).unwrap());
        }
        assert_eq!(gate.connect(at(base, 100), ip("192.0.2.99")).unwrap_err(), Refusal::Joins);
        let _second = gate.connect(at(base, 200), ip("192.0.2.1")).unwrap();
        assert_eq!(gate.connect(at(base, 300), ip("192.0.2.1")).unwrap_err(), Refusal::Address);
        gate.connect(at(base, 300), ip("192.0.2.99")).unwrap();
    }

    #[test]
    fn access_rules_see_the_ipv4_address() {
        let mut settings = Settings::default();
        settings.access.viewers_allow = vec!["192.0.2.0/24".parse().unwrap()];
        settings.access.publishers_deny = vec!["192.0.2.0/24".parse().unwrap()];
        let gate = Gate::new(&settings.limits, &settings.access);
        connect(&gate, "::ffff:192.0.2.1").unwrap();
        assert_eq!(connect(&gate, "198.51.100.1").unwrap_err(), Refusal::Access);
        assert!(!gate.may_publish(ip("::ffff:192.0.2.1")) && gate.may_publish(ip("198.51.100.1")));
    }
}
