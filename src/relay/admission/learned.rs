//! Addresses to which UDP was granted and nothing showed that it arrives: there players are refused it at once, rather than wait for
//! media that a firewall drops, until they take the next protocol.
//!
//! What counts is one IPv4 address or one IPv6 /64: a household behind its own router. Neighbours of an address have other routers, so
//! that nothing is learnt of them.
//!
//! Signs that nothing arrives: a player that had UDP, showed no sign of life and is soon there again to play by TCP; a player's own
//! report that it received nothing; ICMP errors, which anybody might send, if a session by TCP or those of another one follow. One of
//! them is enough where nothing was ever seen to arrive, three where something was within the last hour: then it may have been that
//! player alone. A sign of life (a request for a lost packet, a report of packets, over RTSP a receiver report that names one that was
//! sent, an answer to what only came by UDP) clears the address.
//!
//! Where ICMP errors end what is sent to a session, and nothing has arrived there, its port and its player are refused, whatever arrives
//! at other ports of the address: see [`super::rejecting`].
//!
//! Nothing is learnt of this machine itself: no firewall stands between.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::address::limit_key;
use super::rejecting::PortNotes;

/// Within such a time a player comes again that gave up on UDP: the slowest wait for half a minute before they try the next protocol.
const SECOND_ATTEMPT: Duration = Duration::from_secs(60);
/// How long it is remembered that something arrived.
pub(super) const ARRIVAL_KEPT: Duration = Duration::from_secs(3600);
/// Signs that are needed against an address where something has arrived.
const SIGNS_AGAINST_ARRIVALS: u8 = 3;
/// Addresses in each table; the oldest make room.
pub(super) const BOUND: usize = 4096;

/// What tells that UDP does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An ICMP error about a datagram.
    Icmp,
    /// The player's own report says that it received nothing.
    Report,
    /// The player came again and played by TCP.
    SecondAttempt,
}

impl Sign {
    /// One word for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Report => "report",
            Self::SecondAttempt => "second_attempt",
        }
    }
}

/// By what a player is known again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlayerMark {
    /// Its GUID text.
    pub guid: Option<String>,
    /// Its name for itself.
    pub agent: String,
    /// What it opened last.
    pub name: String,
}

impl PlayerMark {
    /// A player that has a GUID keeps it; without one it has to be the same program that opens the same name.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.guid, &other.guid) {
            (Some(one), Some(two)) => one.eq_ignore_ascii_case(two),
            _ => self.agent == other.agent && self.name == other.name,
        }
    }

    /// The same, and it is known by something.
    pub(super) fn is_known_as(&self, other: &Self) -> bool {
        (self.guid.is_some() || !self.agent.is_empty()) && self.is_same(other)
    }
}

/// An address, or a port of one, that is refused UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearnedFacts {
    /// The address, or the /64; of a port its very address.
    pub prefix: IpNet,
    /// The port, with others that the same player asks for; `None`: all ports of the address.
    pub port: Option<u16>,
    /// What told it last.
    pub sign: Sign,
    /// Since so long.
    pub age: Duration,
    /// It is tried again after so long.
    pub expires: Duration,
    /// Ports that were refused for it.
    pub refused: u64,
}

/// What was learnt of all addresses.
#[derive(Debug)]
pub struct Learned {
    table: Mutex<Table>,
    remember: Duration,
}

#[derive(Debug, Default)]
struct Table {
    refused: HashMap<IpAddr, Entry>,
    /// The last one of each address that had UDP and gave no sign of life.
    silent: HashMap<IpAddr, (Instant, PlayerMark)>,
    /// The last ICMP error, and about which session.
    doubts: HashMap<IpAddr, (Instant, u64)>,
    /// When something arrived last, and signs against it since then.
    arrivals: HashMap<IpAddr, (Instant, u8)>,
    ports: PortNotes,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    sign: Sign,
    refused: u64,
}

impl Learned {
    /// Nothing is known yet. Each address is remembered for so long; 0: none ever is.
    pub fn new(remember: Duration) -> Self {
        Self { table: Mutex::default(), remember }
    }

    /// Whether an address is to be refused UDP.
    pub fn refuses(&self, now: Instant, address: IpAddr) -> bool {
        let mut table = self.lock();
        let key = limit_key(address);
        match table.refused.get_mut(&key) {
            Some(entry) if now.saturating_duration_since(entry.since) < self.remember => {
                entry.refused += 1;
                true
            }
            Some(_) => {
                table.refused.remove(&key);
                false
            }
            None => false,
        }
    }

    /// Whether a player is to be refused these ports of its address.
    pub fn refuses_ports(&self, now: Instant, address: IpAddr, ports: &[u16], player: &PlayerMark) -> bool {
        self.refuses(now, address) || self.lock().ports.refuses(now, self.remember, address, ports, player)
    }

    /// ICMP said, more than once and since the first datagram, that nobody gets what is sent to this port of a player, and nothing
    /// arrived there: the port is refused from now on, and others to this player.
    pub fn rejected(&self, now: Instant, address: IpAddr, port: u16, player: PlayerMark) {
        if self.is_of_interest(address) {
            self.lock().ports.rejected(now, address, port, player);
        }
    }

    /// Whether an address would be refused UDP; that is not counted.
    pub fn would_refuse(&self, now: Instant, address: IpAddr) -> bool {
        let table = self.lock();
        table.refused.get(&limit_key(address)).is_some_and(|entry| now.saturating_duration_since(entry.since) < self.remember)
    }

    /// A player was sent something by UDP, and left without a sign that it arrived.
    pub fn silent(&self, now: Instant, address: IpAddr, player: PlayerMark) {
        if self.is_of_interest(address) {
            let mut table = self.lock();
            make_room(&mut table.silent, &limit_key(address), |(at, _)| *at);
            table.silent.insert(limit_key(address), (now, player));
        }
    }

    /// A player plays by TCP. What tells that UDP does not arrive, where its address is refused that from now on: it had UDP a moment ago
    /// and nothing arrived, or ICMP said so.
    pub fn plays_by_tcp(&self, now: Instant, address: IpAddr, player: &PlayerMark) -> Option<Sign> {
        let mut table = self.lock();
        let key = limit_key(address);
        let is_doubted = table.doubts.remove(&key).is_some_and(|(at, _)| now.saturating_duration_since(at) <= SECOND_ATTEMPT);
        let mut is_second = false;
        if let Some((at, before)) = table.silent.get(&key) {
            let is_over = now.saturating_duration_since(*at) > SECOND_ATTEMPT;
            let is_same = before.is_same(player);
            if is_over || is_same {
                table.silent.remove(&key);
            }
            is_second = is_same && !is_over;
        }
        drop(table);
        let sign = if is_doubted { Some(Sign::Icmp) } else { Some(Sign::SecondAttempt).filter(|_| is_second) };
        sign.filter(|sign| self.failed(now, address, *sign))
    }

    /// ICMP says of a session that UDP does not arrive. True where the address is refused it from now on: it said so of another
    /// session too. Alone it is no more than a doubt.
    pub fn doubted(&self, now: Instant, address: IpAddr, session: u64) -> bool {
        if !self.is_of_interest(address) {
            return false;
        }
        let mut table = self.lock();
        let key = limit_key(address);
        let before = table.doubts.get(&key).filter(|(at, _)| now.saturating_duration_since(*at) <= SECOND_ATTEMPT);
        let is_second = before.is_some_and(|(_, other)| *other != session);
        if is_second {
            table.doubts.remove(&key);
        } else {
            make_room(&mut table.doubts, &key, |(at, _)| *at);
            table.doubts.insert(key, (now, session));
        }
        drop(table);
        is_second && self.failed(now, address, Sign::Icmp)
    }

    /// There is a sign that UDP does not arrive. True where the address is refused it from now on.
    pub fn failed(&self, now: Instant, address: IpAddr, sign: Sign) -> bool {
        if !self.is_of_interest(address) {
            return false;
        }
        let key = limit_key(address);
        let mut table = self.lock();
        if let Some((at, signs)) = table.arrivals.get_mut(&key)
            && now.saturating_duration_since(*at) < ARRIVAL_KEPT
        {
            *signs += 1;
            if *signs < SIGNS_AGAINST_ARRIVALS {
                return false;
            }
        }
        table.arrivals.remove(&key);
        make_room(&mut table.refused, &key, |entry| entry.since);
        let refused = table.refused.get(&key).map_or(0, |entry| entry.refused);
        table.refused.insert(key, Entry { since: now, sign, refused });
        true
    }

    /// There is a sign that UDP arrives at this port. True where the address, or the port, was refused it until now.
    pub fn arrived(&self, now: Instant, address: IpAddr, port: u16) -> bool {
        if !self.is_of_interest(address) {
            return false;
        }
        let key = limit_key(address);
        let mut table = self.lock();
        table.silent.remove(&key);
        table.doubts.remove(&key);
        make_room(&mut table.arrivals, &key, |(at, _)| *at);
        table.arrivals.insert(key, (now, 0));
        let was_rejected = table.ports.arrives(now, address, port);
        table.refused.remove(&key).is_some() || was_rejected
    }

    /// Forgets what was learnt of the addresses of a network (of an IPv6 network longer than /64: of its /64), or of all; how many
    /// addresses and ports were refused. What has arrived there counts no more either: the next sign does.
    pub fn reset(&self, network: Option<IpNet>) -> usize {
        let network = network.map(|network| match network {
            IpNet::V6(v6) if v6.prefix_len() > 64 => IpNet::new(v6.addr().into(), 64).unwrap_or(network),
            other => other,
        });
        let stays = |key: &IpAddr| network.is_some_and(|network| !network.contains(key));
        let mut table = self.lock();
        let before = table.refused.len();
        table.refused.retain(|key, _| stays(key));
        table.silent.retain(|key, _| stays(key));
        table.doubts.retain(|key, _| stays(key));
        table.arrivals.retain(|key, _| stays(key));
        before - table.refused.len() + table.ports.retain(stays)
    }

    /// All that are refused UDP at `now`, by address, and ports behind.
    pub fn list(&self, now: Instant) -> Vec<LearnedFacts> {
        let table = self.lock();
        let facts = table.refused.iter().filter_map(|(key, entry)| {
            let age = now.saturating_duration_since(entry.since);
            let expires = self.remember.checked_sub(age).filter(|left| !left.is_zero())?;
            Some(LearnedFacts { prefix: prefix_of(*key), port: None, sign: entry.sign, age, expires, refused: entry.refused })
        });
        let ports = table.ports.list(now, self.remember).map(|rejected| {
            let age = now.saturating_duration_since(rejected.since);
            LearnedFacts {
                prefix: rejected.address.into(),
                port: Some(rejected.port),
                sign: Sign::Icmp,
                age,
                expires: self.remember.saturating_sub(age),
                refused: rejected.refused,
            }
        });
        let mut facts: Vec<_> = facts.chain(ports).collect();
        drop(table);
        facts.sort_by_key(|facts| (facts.prefix, facts.port));
        facts
    }

    /// Lets time pass: what is too old is forgotten.
    pub fn tick(&self, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at);
        let mut table = self.lock();
        table.refused.retain(|_, entry| age(entry.since) < self.remember);
        table.silent.retain(|_, (at, _)| age(*at) <= SECOND_ATTEMPT);
        table.doubts.retain(|_, (at, _)| age(*at) <= SECOND_ATTEMPT);
        table.arrivals.retain(|_, (at, _)| age(*at) < ARRIVAL_KEPT);
        table.ports.tick(now, self.remember);
    }

    fn is_of_interest(&self, address: IpAddr) -> bool {
        !self.remember.is_zero() && !address.to_canonical().is_loopback()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network that a key of the tables stands for.
fn prefix_of(key: IpAddr) -> IpNet {
    match key {
        IpAddr::V6(_) => IpNet::new(key, 64).unwrap_or_else(|_| key.into()),
        IpAddr::V4(_) => key.into(),
    }
}

/// Takes the oldest out where there is no room for this one.
pub(super) fn make_room<K: Eq + Hash + Copy, V>(table: &mut HashMap<K, V>, wanted: &K, at: impl Fn(&V) -> Instant) {
    if table.len() >= BOUND
        && !table.contains_key(wanted)
        && let Some(oldest) = table.iter().min_by_key(|(_, value)| at(value)).map(|(key, _)| *key)
    {
        table.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::{at, base};

    const HOUR: Duration = Duration::from_secs(3600);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn player(guid: Option<&str>, agent: &str) -> PlayerMark {
        PlayerMark { guid: guid.map(str::to_owned), agent: agent.into(), name: "cam".into() }
    }

    fn prefixes(learned: &Learned, now: Instant) -> Vec<String> {
        learned.list(now).iter().map(|facts| facts.prefix.to_string()).collect()
    }

    #[test]
    fn who_comes_again_by_tcp_had_no_luck_with_udp() {
        let (now, viewer) = (base(), ip("192.0.2.7"));
        let (wmp, other, vlc) = (player(Some("{A}"), "NSPlayer"), player(Some("{B}"), "NSPlayer"), player(None, "VLC"));
        for (first, second, after_ms, learns) in [
            (&wmp, &wmp, 10_000, true),
            (&wmp, &player(Some("{a}"), "other words"), 60_000, true),
            (&wmp, &wmp, 60_001, false),
            (&wmp, &other, 10_000, false),
            (&vlc, &vlc, 10_000, true),
            (&vlc, &wmp, 10_000, false),
            (&vlc, &PlayerMark { name: "other".into(), ..vlc.clone() }, 10_000, false),
        ] {
            let learned = Learned::new(HOUR);
            learned.silent(now, viewer, first.clone());
            assert!(learned.plays_by_tcp(now, ip("192.0.2.8"), second).is_none(), "another address");
            assert_eq!(
                learned.plays_by_tcp(at(now, after_ms), viewer, second).is_some(),
                learns,
                "{first:?} {second:?} {after_ms}"
            );
            assert_eq!(learned.refuses(at(now, after_ms), ip("::ffff:192.0.2.7")), learns);
            assert!(!learned.refuses(at(now, after_ms), ip("192.0.2.8")), "nothing is learnt of neighbours");
        }
        // Nobody had UDP.
        assert!(Learned::new(HOUR).plays_by_tcp(now, viewer, &wmp).is_none());
    }

    #[test]
    fn icmp_alone_is_a_doubt() {
        let (now, viewer, mark) = (base(), ip("192.0.2.7"), player(None, "VLC"));
        let learned = Learned::new(HOUR);
        for _ in 0..9 {
            assert!(!learned.doubted(now, viewer, 1), "of one session");
        }
        assert!(!learned.refuses(now, viewer));
        assert_eq!(learned.plays_by_tcp(at(now, 60_001), viewer, &mark), None, "long ago");
        assert!(!learned.doubted(now, viewer, 1));
        assert_eq!(learned.plays_by_tcp(at(now, 1000), ip("192.0.2.8"), &mark), None);
        assert_eq!(learned.plays_by_tcp(at(now, 60_000), viewer, &mark), Some(Sign::Icmp));
        assert!(learned.refuses(at(now, 60_000), viewer));
        // Of two sessions, and what has arrived takes it back.
        let learned = Learned::new(HOUR);
        assert!(!learned.doubted(now, viewer, 1) && learned.doubted(at(now, 1), viewer, 2));
        let learned = Learned::new(HOUR);
        assert!(!learned.doubted(now, viewer, 1) && !learned.arrived(now, viewer, 1024));
        assert_eq!(learned.plays_by_tcp(at(now, 1000), viewer, &mark), None);
    }

    #[test]
    fn a_full_table_keeps_the_others_where_one_is_told_again() {
        let (start, learned) = (base(), Learned::new(HOUR));
        let address = |n: u32| IpAddr::from((0x0A00_0000 + n).to_be_bytes());
        for n in 0..u32::try_from(BOUND).unwrap() {
            assert!(learned.failed(at(start, n.into()), address(n), Sign::Report));
        }
        assert!(learned.failed(at(start, 9999), address(7), Sign::Report));
        assert!(learned.lock().refused.contains_key(&address(0)));
    }

    #[test]
    fn one_sign_is_not_enough_where_something_arrives() {
        let (start, viewer, learned) = (base(), ip("192.0.2.7"), Learned::new(HOUR));
        assert!(!learned.arrived(start, viewer, 1024));
        let failed = |ms| learned.failed(at(start, ms), viewer, Sign::Icmp);
        assert_eq!([failed(1), failed(2)], [false; 2]);
        assert!(!learned.arrived(at(start, 3), viewer, 1024));
        assert_eq!([failed(4), failed(5), failed(6)], [false, false, true]);
        assert!(learned.refuses(at(start, 7), viewer));
        assert!(learned.arrived(at(start, 8), viewer, 1024), "a success clears it");
        assert!(!learned.refuses(at(start, 9), viewer));
        // What arrived long ago says nothing of today.
        assert!(learned.failed(at(start, 8) + ARRIVAL_KEPT, viewer, Sign::Report));
    }

    #[test]
    fn a_rejected_port_is_refused_beside_one_that_gets_its_media() {
        let (now, viewer, learned) = (base(), ip("192.0.2.7"), Learned::new(HOUR));
        let (mark, other) = (player(Some("{A}"), "NSPlayer"), player(Some("{B}"), "NSPlayer"));
        learned.arrived(now, viewer, 21_100);
        learned.rejected(now, viewer, 21_115, mark.clone());
        learned.arrived(now, viewer, 21_100);
        assert!(learned.refuses_ports(now, viewer, &[21_115], &other) && learned.refuses_ports(now, viewer, &[21_116], &mark));
        assert!(!learned.refuses_ports(now, viewer, &[21_101], &other) && !learned.refuses(now, viewer));
        assert!(!learned.would_refuse(now, viewer), "other ports are open");
        let facts = &learned.list(at(now, 1000))[0];
        let told = (facts.prefix.to_string(), facts.port, facts.expires, facts.refused, facts.sign.label());
        assert_eq!(told, ("192.0.2.7/32".into(), Some(21_115), Duration::from_secs(3599), 2, "icmp"));
        assert!(learned.arrived(now, viewer, 21_115) && !learned.refuses_ports(now, viewer, &[21_115], &mark));
        learned.rejected(now, viewer, 21_115, mark.clone());
        assert_eq!(learned.reset(Some("192.0.2.0/24".parse().unwrap())), 1);
        assert!(!learned.refuses_ports(now, viewer, &[21_115], &mark));
    }

    #[test]
    fn it_is_forgotten_in_time_and_on_demand() {
        let (start, learned) = (base(), Learned::new(HOUR));
        for viewer in ["192.0.2.7", "192.0.2.8", "198.51.100.1", "2001:db8::1", "2001:db8:0:1::1"] {
            assert!(learned.failed(start, ip(viewer), Sign::Icmp));
        }
        assert!(learned.refuses(start, ip("2001:db8::2")) && learned.would_refuse(start, ip("2001:db8::3")));
        let facts = &learned.list(at(start, 1000))[3];
        let told = (facts.prefix.to_string(), facts.age, facts.expires, facts.refused, facts.sign.label());
        assert_eq!(told, ("2001:db8::/64".into(), Duration::from_secs(1), Duration::from_secs(3599), 1, "icmp"));
        assert_eq!(learned.reset(Some("2001:db8::77/128".parse().unwrap())), 1);
        assert_eq!(learned.reset(Some("192.0.2.0/24".parse().unwrap())), 2);
        assert_eq!(learned.reset(Some("192.0.2.7/32".parse().unwrap())), 0);
        assert_eq!(prefixes(&learned, start), ["198.51.100.1/32", "2001:db8:0:1::/64"]);
        assert!(learned.refuses(at(start, 3_599_999), ip("198.51.100.1")));
        assert!(!learned.refuses(start + HOUR, ip("198.51.100.1")));
        learned.tick(start + HOUR);
        assert!(prefixes(&learned, start).is_empty());
        assert!(learned.failed(start, ip("192.0.2.7"), Sign::Icmp));
        assert_eq!((learned.reset(None), prefixes(&learned, start).len()), (1, 0));
    }

    #[test]
    fn nothing_is_learnt_where_that_is_off_or_makes_no_sense() {
        let (now, mark) = (base(), player(None, "VLC"));
        let (off, on) = (Learned::new(Duration::ZERO), Learned::new(HOUR));
        for (learned, viewer) in [(&off, "192.0.2.7"), (&on, "127.0.0.1"), (&on, "::1"), (&on, "::ffff:127.8.8.8")] {
            learned.silent(now, ip(viewer), mark.clone());
            learned.rejected(now, ip(viewer), 1024, mark.clone());
            assert!(!learned.refuses_ports(now, ip(viewer), &[1024], &mark), "{viewer}");
            assert!(
                learned.plays_by_tcp(now, ip(viewer), &mark).is_none() && !learned.failed(now, ip(viewer), Sign::Icmp),
                "{viewer}"
            );
            assert!(!learned.refuses(now, ip(viewer)) && learned.list(now).is_empty());
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (start, learned) = (base(), Learned::new(HOUR));
        let address = |n: u32| IpAddr::from((0x0A00_0000 + n).to_be_bytes());
        for n in 0..u32::try_from(BOUND).unwrap() + 10 {
            let now = at(start, n.into());
            assert!(learned.failed(now, address(n), Sign::Icmp));
            learned.silent(now, address(n), PlayerMark::default());
            learned.doubted(now, address(n), 1);
            learned.arrived(now, address(n + 1_000_000), 1024);
        }
        let table = learned.lock();
        assert_eq!((table.refused.len(), table.silent.len(), table.arrivals.len()), (BOUND, BOUND, BOUND));
        assert_eq!(table.doubts.len(), BOUND);
        assert!(!table.refused.contains_key(&address(9)) && table.refused.contains_key(&address(10)));
    }
}
