//! Sessions whose connections are gone, for players that come again.
//!
//! Source: MS-RTSP 3.2.7.2.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use super::{Play, Session};

/// Sessions of one shard that wait; who would be one more is not waited for.
const MOST: usize = 4096;

/// Sessions of one shard that have outlived their connections, or may.
#[derive(Debug, Default)]
pub struct Sessions {
    resting: HashMap<u64, Resting>,
    /// By client id: those that came again, and may go once more.
    returned: HashSet<u32>,
}

/// A session without connection.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) session: Session,
    /// The packet of a file behind the last one that was sent.
    pub(super) next: Option<u32>,
    peer: IpAddr,
    until: Instant,
}

/// The client id with which a session began: the low half of its own id.
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
pub const fn client_id_of(session: u64) -> u32 {
    session as u32
}

impl Sessions {
    /// Takes in a session whose connection is gone. Its ports are given back, so it has none.
    pub(super) fn rest(&mut self, mut session: Session, next: Option<u32>, peer: IpAddr, until: Instant) {
        self.returned.remove(&client_id_of(session.id));
        if self.resting.len() >= MOST {
            return;
        }
        if session.ports.take().is_some() {
            session.carriage = None;
            session.streams.clear();
        }
        session.resends = false;
        if session.state == Play::Playing {
            session.state = Play::Paused;
        }
        self.resting.insert(session.id, Resting { session, next, peer, until });
    }

    /// Gives a session to a connection from the address that it had.
    pub(super) fn take(&mut self, id: u64, peer: IpAddr) -> Option<Resting> {
        self.resting.get(&id).filter(|resting| resting.peer == peer)?;
        self.returned.insert(client_id_of(id));
        self.resting.remove(&id)
    }

    /// A session that came again is over.
    pub(super) fn forget(&mut self, id: u64) {
        self.returned.remove(&client_id_of(id));
    }

    /// Lets those go that have waited long enough.
    pub fn sweep(&mut self, now: Instant) {
        self.resting.retain(|_, resting| resting.until > now);
    }

    /// Whether a session that began with this client id is waited for, or is here again.
    pub fn holds(&self, client_id: u32) -> bool {
        self.returned.contains(&client_id) || self.resting.keys().any(|id| client_id_of(*id) == client_id)
    }
}
