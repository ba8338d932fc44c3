//! Connections that have not yet said what they speak: bounded, and counted when they never do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::metrics as names;
use crate::relay::admission::limit_key;

/// Undecided connections in all, however many open files there may be.
pub const MOST_UNDECIDED: usize = 16_384;
/// Of them, from one address (IPv6: one /64). A NAT full of players needs few: each speaks at once.
const MOST_PER_ADDRESS: usize = 2_048;
/// How often what was turned away is told, if anything was.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why a connection ended at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stray {
    /// It said nothing, or too little, in time.
    Silent,
    /// What it said is no protocol of ours.
    UnknownProtocol,
    /// It speaks what this port does not serve.
    WrongPort,
    /// It made room for newer ones.
    Crowded,
    /// It was to speak TLS and did not, or none that is good enough.
    Handshake,
    /// There are enough connections inside TLS.
    TlsLimit,
}

impl Stray {
    const ALL: [Self; 6] = [Self::Silent, Self::UnknownProtocol, Self::WrongPort, Self::Crowded, Self::Handshake, Self::TlsLimit];

    const fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::UnknownProtocol => "unknown_protocol",
            Self::WrongPort => "wrong_port",
            Self::Crowded => "too_many_connections",
            Self::Handshake => "tls_handshake",
            Self::TlsLimit => "tls_limit",
        }
    }
}

/// The connections at the door.
#[derive(Debug)]
pub(super) struct Strays {
    most: usize,
    crowd: Mutex<Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    all: usize,
    /// By the order in which they came; addresses without one are not kept.
    waiting: HashMap<IpAddr, BTreeMap<u64, AbortHandle>>,
    /// How many of each address there are, so that a flood from everywhere at once is not searched for the most crowded.
    crowds: BTreeSet<(usize, IpAddr)>,
    untold: HashMap<Stray, u64>,
    last: Option<(IpAddr, Stray)>,
}

/// A connection's place at the door.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    number: u64,
    key: IpAddr,
}

impl Strays {
    /// An empty door for at most `undecided_max` connections, and never more than 16,384.
    pub(super) fn new(undecided_max: usize) -> Self {
        Self { most: undecided_max.clamp(1, MOST_UNDECIDED), crowd: Mutex::default() }
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a connection that was accepted; [`Self::enter`] follows.
    pub(super) fn ticket(&self, peer: IpAddr) -> Ticket {
        let mut crowd = self.crowd();
        crowd.next += 1;
        Ticket { number: crowd.next, key: limit_key(peer) }
    }

    /// Lets a connection wait at the door; the oldest that says nothing makes room where there is none.
    ///
    /// True where one was told to go: its descriptor is free when its task has run once more.
    pub(super) fn enter(&self, ticket: Ticket, task: AbortHandle) -> bool {
        if task.is_finished() {
            return false;
        }
        let mut crowd = self.crowd();
        let of_address = crowd.waiting.get(&ticket.key).map_or(0, BTreeMap::len);
        let crowded = if of_address >= MOST_PER_ADDRESS {
            Some(ticket.key)
        } else if crowd.all >= self.most {
            crowd.crowds.last().map(|(_, key)| *key)
        } else {
            None
        };
        let oldest = crowded.and_then(|key| Some((key, crowd.of(key, BTreeMap::pop_first)?.1)));
        if let Some((key, oldest)) = &oldest {
            oldest.abort();
            crowd.note(*key, Stray::Crowded);
        }
        crowd.of(ticket.key, |waiting| waiting.insert(ticket.number, task));
        oldest.is_some()
    }

    /// A connection leaves the door.
    pub(super) fn leave(&self, ticket: Ticket) {
        self.crowd().of(ticket.key, |waiting| waiting.remove(&ticket.number));
    }

    /// Counts a connection that was turned away.
    pub(super) fn note(&self, peer: IpAddr, stray: Stray) {
        self.crowd().note(peer.to_canonical(), stray);
    }

    /// Says in one line what was turned away since the last time.
    pub(super) fn tell(&self) {
        let mut crowd = self.crowd();
        let Some((peer, why)) = crowd.last.take() else { return };
        let untold = std::mem::take(&mut crowd.untold);
        drop(crowd);
        let of = |stray| untold.get(&stray).copied().unwrap_or(0);
        let [silent, unknown_protocol, wrong_port, too_many, tls_handshake, tls_limit] = Stray::ALL.map(of);
        tracing::info!(
            silent,
            unknown_protocol,
            wrong_port,
            too_many,
            tls_handshake,
            tls_limit,
            last_peer = %peer,
            last_cause = why.label(),
            "connections closed that did not become a viewer or publisher"
        );
    }
}

impl Crowd {
    /// Changes who waits of an address, and keeps the counts true.
    fn of<T>(&mut self, key: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, AbortHandle>) -> T) -> T {
        let waiting = self.waiting.entry(key).or_default();
        let before = waiting.len();
        let result = change(waiting);
        let after = waiting.len();
        if after == 0 {
            self.waiting.remove(&key);
        }
        if after != before {
            self.crowds.remove(&(before, key));
            if after > 0 {
                self.crowds.insert((after, key));
            }
            self.all = self.all + after - before;
        }
        result
    }

    fn note(&mut self, peer: IpAddr, stray: Stray) {
        metrics::counter!(names::REFUSALS, "cause" => stray.label()).increment(1);
        *self.untold.entry(stray).or_default() += 1;
        self.last = Some((peer, stray));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    fn arrive(strays: &Strays, from: IpAddr) -> (Ticket, JoinHandle<()>) {
        let ticket = strays.ticket(from);
        let task = tokio::spawn(std::future::pending::<()>());
        strays.enter(ticket, task.abort_handle());
        (ticket, task)
    }

    fn ended(arrived: &[(Ticket, JoinHandle<()>)]) -> Vec<usize> {
        arrived.iter().enumerate().filter(|(_, (_, task))| task.is_finished()).map(|(index, _)| index).collect()
    }

    #[tokio::test]
    async fn the_oldest_of_a_crowded_address_makes_room() {
        let strays = Strays::new(MOST_UNDECIDED);
        let (crowded, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let bystander = arrive(&strays, other);
        let waiting: Vec<_> = (0..=MOST_PER_ADDRESS).map(|_| arrive(&strays, crowded)).collect();
        tokio::task::yield_now().await;
        assert_eq!(ended(&waiting), [0], "the oldest is let go");
        assert!(!bystander.1.is_finished());
        assert_eq!(strays.crowd().untold.get(&Stray::Crowded), Some(&1));
        waiting.into_iter().for_each(|(ticket, _)| strays.leave(ticket));
        let crowd = strays.crowd();
        assert_eq!(crowd.all, 1, "who left counts no more, and nobody twice");
        assert_eq!(crowd.crowds.iter().copied().collect::<Vec<_>>(), [(1, other)]);
    }

    #[tokio::test]
    async fn a_full_door_lets_go_of_the_most_crowded_address() {
        let strays = Strays::new(10);
        let (crowded, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let few: Vec<_> = (0..4).map(|_| arrive(&strays, other)).collect();
        let many: Vec<_> = (0..6).map(|_| arrive(&strays, crowded)).collect();
        let newcomer = arrive(&strays, [192, 0, 2, 3].into());
        // One of the crowd goes by itself: there is room for one.
        strays.leave(many[3].0);
        let next = arrive(&strays, other);
        tokio::task::yield_now().await;
        assert_eq!((ended(&few), ended(&many)), (vec![], vec![0]));
        let last = arrive(&strays, other);
        tokio::task::yield_now().await;
        assert_eq!((ended(&few), ended(&many)), (vec![0], vec![0]), "now the others are the crowd");
        assert!([newcomer, next, last].iter().all(|(_, task)| !task.is_finished()));
        assert_eq!(strays.crowd().all, 10);
    }
}
