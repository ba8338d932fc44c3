//! Connections that have not yet said what they speak: bounded, and counted when they never do.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::metrics as names;
use crate::relay::admission::limit_key;

/// Undecided connections in all.
const MOST: usize = 16_384;
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
}

impl Stray {
    const ALL: [Self; 4] = [Self::Silent, Self::UnknownProtocol, Self::WrongPort, Self::Crowded];

    const fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::UnknownProtocol => "unknown_protocol",
            Self::WrongPort => "wrong_port",
            Self::Crowded => "too_many_connections",
        }
    }
}

/// The connections at the door.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<Crowd>);

#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    all: usize,
    /// Oldest first; addresses without one are not kept.
    waiting: HashMap<IpAddr, VecDeque<(u64, AbortHandle)>>,
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
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a connection that was accepted; [`Self::enter`] follows.
    pub(super) fn ticket(&self, peer: IpAddr) -> Ticket {
        let mut crowd = self.crowd();
        crowd.next += 1;
        Ticket { number: crowd.next, key: limit_key(peer) }
    }

    /// Lets a connection wait at the door; the oldest that says nothing makes room where there is none.
    pub(super) fn enter(&self, ticket: Ticket, task: AbortHandle) {
        if task.is_finished() {
            return;
        }
        let mut crowd = self.crowd();
        let of_address = crowd.waiting.get(&ticket.key).map_or(0, VecDeque::len);
        let crowded = if of_address >= MOST_PER_ADDRESS {
            Some(ticket.key)
        } else if crowd.all >= MOST {
            crowd.waiting.iter().max_by_key(|(_, waiting)| waiting.len()).map(|(key, _)| *key)
        } else {
            None
        };
        if let Some(key) = crowded
            && let Some((_, oldest)) = crowd.waiting.get_mut(&key).and_then(VecDeque::pop_front)
        {
            oldest.abort();
            crowd.all -= 1;
            crowd.note(key, Stray::Crowded);
        }
        crowd.waiting.entry(ticket.key).or_default().push_back((ticket.number, task));
        crowd.all += 1;
    }

    /// A connection leaves the door.
    pub(super) fn leave(&self, ticket: Ticket) {
        let mut crowd = self.crowd();
        let Some(waiting) = crowd.waiting.get_mut(&ticket.key) else { return };
        let before = waiting.len();
        waiting.retain(|(number, _)| *number != ticket.number);
        let gone = before - waiting.len();
        if waiting.is_empty() {
            crowd.waiting.remove(&ticket.key);
        }
        crowd.all -= gone;
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
        let [silent, unknown_protocol, wrong_port, too_many] = Stray::ALL.map(of);
        tracing::info!(
            silent,
            unknown_protocol,
            wrong_port,
            too_many,
            last_peer = %peer,
            last_cause = why.label(),
            "connections closed that did not become a viewer or publisher"
        );
    }
}

impl Crowd {
    fn note(&mut self, peer: IpAddr, stray: Stray) {
        metrics::counter!(names::REFUSALS, "cause" => stray.label()).increment(1);
        *self.untold.entry(stray).or_default() += 1;
        self.last = Some((peer, stray));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_of_a_crowded_address_makes_room() {
        let strays = Strays::default();
        let silent = || tokio::spawn(std::future::pending::<()>());
        let (crowded, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let bystander = silent();
        strays.enter(strays.ticket(other), bystander.abort_handle());
        let tasks: Vec<_> = (0..MOST_PER_ADDRESS).map(|_| silent()).collect();
        let tickets: Vec<_> = tasks
            .iter()
            .map(|task| {
                let ticket = strays.ticket(crowded);
                strays.enter(ticket, task.abort_handle());
                ticket
            })
            .collect();
        let newest = silent();
        strays.enter(strays.ticket(crowded), newest.abort_handle());
        tokio::task::yield_now().await;
        assert!(tasks[0].is_finished(), "the oldest is let go");
        assert!(!tasks[1].is_finished() && !newest.is_finished() && !bystander.is_finished());
        assert_eq!(strays.crowd().untold.get(&Stray::Crowded), Some(&1));
        tickets.into_iter().for_each(|ticket| strays.leave(ticket));
        assert_eq!(strays.crowd().all, 2, "who left counts no more, and nobody twice");
    }
}
