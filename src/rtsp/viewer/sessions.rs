//! Sessions whose connections are gone, for players that come again.
//!
//! Source: MS-RTSP 3.2.7.2.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use super::{Play, Session};

/// Sessions of one shard that wait; who would be one more is not waited for.
const MOST: usize = 4096;
/// The same of one address.
const MOST_OF_ADDRESS: u32 = 64;

/// Sessions of one shard that have outlived their connections, or may.
#[derive(Debug, Default)]
pub struct Sessions {
    /// By the client id that they began with.
    resting: HashMap<u32, Resting>,
    of_address: HashMap<IpAddr, u32>,
    /// Those that came again, and may go once more.
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
        let client_id = client_id_of(session.id);
        self.returned.remove(&client_id);
        let count = self.of_address.entry(peer).or_default();
        if *count >= MOST_OF_ADDRESS || self.resting.len() >= MOST || self.resting.contains_key(&client_id) {
            if *count == 0 {
                self.of_address.remove(&peer);
            }
            return;
        }
        *count += 1;
        if session.ports.take().is_some() {
            session.carriage = None;
            session.streams.clear();
        }
        session.resends = false;
        if session.state == Play::Playing {
            session.state = Play::Paused;
        }
        self.resting.insert(client_id, Resting { session, next, peer, until });
    }

    /// Gives a session to a connection from the address that it had, if it is of this name.
    pub(super) fn take(&mut self, id: u64, peer: IpAddr, name: &str) -> Option<Resting> {
        let client_id = client_id_of(id);
        let is_it = |resting: &&Resting| resting.session.id == id && resting.peer == peer && resting.session.name == name;
        self.resting.get(&client_id).filter(is_it)?;
        self.returned.insert(client_id);
        let resting = self.resting.remove(&client_id);
        self.left(peer);
        resting
    }

    /// A session that came again is over.
    pub(super) fn forget(&mut self, id: u64) {
        self.returned.remove(&client_id_of(id));
    }

    /// Lets those go that have waited long enough.
    pub fn sweep(&mut self, now: Instant) {
        let over: Vec<_> = self.resting.extract_if(|_, resting| resting.until <= now).map(|(_, resting)| resting.peer).collect();
        over.into_iter().for_each(|peer| self.left(peer));
    }

    /// Whether a session that began with this client id is waited for, or is here again.
    pub fn holds(&self, client_id: u32) -> bool {
        self.returned.contains(&client_id) || self.resting.contains_key(&client_id)
    }

    fn left(&mut self, peer: IpAddr) {
        if let Some(count) = self.of_address.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
    fn an_address_leaves_no_more_than_its_share() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let [crowded, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        for id in 1..=100 {
            sessions.rest(Session::new(id, "cam1", true), None, crowded, now + Duration::from_secs(u64::from(client_id_of(id))));
        }
        assert!(sessions.holds(64) && !sessions.holds(65));
        sessions.rest(Session::new(200, "cam1", true), None, other, now);
        assert!(sessions.take(200, crowded, "cam1").is_none() && sessions.take(200, other, "cam2").is_none());
        assert!(sessions.take(200 + (1 << 32), other, "cam1").is_none(), "the whole id counts");
        assert!(sessions.take(200, other, "cam1").is_some() && sessions.holds(200));
        sessions.forget(200);
        assert!(!sessions.holds(200));
        sessions.sweep(now + Duration::from_secs(10));
        assert!(!sessions.holds(10) && sessions.holds(11));
        sessions.rest(Session::new(300, "cam1", true), None, crowded, now);
        assert!(sessions.holds(300), "there is room again");
        sessions.sweep(now + Duration::from_secs(1000));
        assert!(sessions.of_address.is_empty() && sessions.resting.is_empty());
    }
}
