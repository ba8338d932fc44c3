//! What lives longer than a connection: players without pipelining speak about one session over several.
//!
//! Source: MS-WMSP 3.2.1, 3.2.2.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use crate::asf::{Selection, StreamSet};

/// Sessions that do not play, at most; of more the one that would expire first goes. Those that play have a connection each,
/// and are bounded with the connections.
const IDLE_BOUND: usize = 4096;
/// Longest log that is kept of a session, bytes.
pub(super) const LOG_BOUND: usize = 8 << 10;

/// Whose session it is. Everything but the address is a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Address of the player.
    pub peer: IpAddr,
    /// Text between the braces of `xClientGUID`.
    pub guid: Option<String>,
    /// Of the agent.
    pub version: (u16, u16),
}

#[derive(Debug)]
struct Session {
    owner: Owner,
    name: String,
    /// The streams of the header that was told last.
    streams: StreamSet,
    selection: Selection,
    log: Option<String>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// On this connection.
    Plays(usize),
    /// Until then.
    Idle(Instant),
}

/// A session that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its number.
    pub client_id: u32,
    /// Who had it.
    pub owner: Owner,
    /// What was opened last.
    pub name: String,
    /// What the player said about its playing, as sent, at most 8 KiB; escape it before logging.
    pub log: Option<String>,
}

/// Why a connection may not play for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaysForAnother;

/// The sessions of one shard, by client id.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: HashMap<u32, Session>,
    /// Those that do not play, by the end of their time.
    idle: BTreeSet<(Instant, u32)>,
    displaced: Vec<Expired>,
}

impl Sessions {
    /// Whether this client id names one.
    pub fn holds(&self, client_id: u32) -> bool {
        self.by_id.contains_key(&client_id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// When [`Sessions::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.idle.first().map(|(at, _)| *at)
    }

    /// Takes out those whose time is over, and those that had to make room since the last call.
    pub fn expire(&mut self, now: Instant) -> Vec<Expired> {
        let mut expired = std::mem::take(&mut self.displaced);
        while let Some((at, client_id)) = self.idle.first().copied().filter(|(at, _)| *at <= now) {
            self.idle.remove(&(at, client_id));
            expired.extend(self.by_id.remove(&client_id).map(|session| session.expired(client_id)));
        }
        expired
    }

    /// Whether a connection plays for this session.
    pub fn plays(&self, client_id: u32) -> bool {
        self.player(client_id).is_some()
    }

    /// What the player said about its playing since this was asked last.
    pub fn take_log(&mut self, client_id: u32) -> Option<String> {
        self.by_id.get_mut(&client_id)?.log.take()
    }

    /// Whether this address owns this session.
    pub(super) fn is_of(&self, client_id: u32, peer: IpAddr) -> bool {
        self.by_id.get(&client_id).is_some_and(|session| session.owner.peer == peer)
    }

    /// A new session that does not play yet, or the same again with another name.
    pub(super) fn found(&mut self, client_id: u32, owner: Owner, name: &str, until: Instant) {
        if !self.by_id.contains_key(&client_id) && self.idle.len() >= IDLE_BOUND {
            self.displace();
        }
        let session = self.by_id.entry(client_id).or_insert_with(|| Session {
            owner,
            name: String::new(),
            streams: StreamSet::EMPTY,
            selection: Selection::default(),
            log: None,
            state: State::Idle(until),
        });
        name.clone_into(&mut session.name);
        self.touch(client_id, until);
    }

    fn displace(&mut self) {
        let Some((_, oldest)) = self.idle.pop_first() else { return };
        let displaced = self.by_id.remove(&oldest).map(|session| session.expired(oldest));
        // Nobody takes them out where nobody asks.
        if self.displaced.len() < IDLE_BOUND {
            self.displaced.extend(displaced);
        }
    }

    /// The player was told a header of these streams.
    pub(super) fn told(&mut self, client_id: u32, streams: StreamSet, selection: Selection) {
        if let Some(session) = self.by_id.get_mut(&client_id) {
            (session.streams, session.selection) = (streams, selection);
        }
    }

    /// A sign of life of a session that does not play.
    pub(super) fn touch(&mut self, client_id: u32, until: Instant) {
        let Some(session) = self.by_id.get_mut(&client_id) else { return };
        if let State::Idle(at) = &mut session.state {
            self.idle.remove(&(*at, client_id));
            *at = until;
            self.idle.insert((until, client_id));
        }
    }

    /// Which connection plays.
    pub(super) fn player(&self, client_id: u32) -> Option<usize> {
        match self.by_id.get(&client_id)?.state {
            State::Plays(connection) => Some(connection),
            State::Idle(_) => None,
        }
    }

    /// This connection plays from now on; gives the one that did.
    ///
    /// # Errors
    /// [`PlaysForAnother`]: it plays, and the owner is not the same to the letter (MS-WMSP 3.2.5.6, 5.1).
    pub(super) fn play(&mut self, client_id: u32, connection: usize, by: &Owner) -> Result<Option<usize>, PlaysForAnother> {
        let Some(session) = self.by_id.get_mut(&client_id) else { return Ok(None) };
        match session.state {
            State::Idle(at) => {
                self.idle.remove(&(at, client_id));
                session.state = State::Plays(connection);
                Ok(None)
            }
            State::Plays(other) if other == connection => Ok(None),
            State::Plays(_) if (session.owner.peer, &session.owner.guid) != (by.peer, &by.guid) => Err(PlaysForAnother),
            State::Plays(other) => {
                session.state = State::Plays(connection);
                Ok(Some(other))
            }
        }
    }

    /// This connection does not play any more, if it still did.
    pub(super) fn rest(&mut self, client_id: u32, connection: usize, until: Instant) {
        if let Some(session) = self.by_id.get_mut(&client_id)
            && session.state == State::Plays(connection)
        {
            session.state = State::Idle(until);
            self.idle.insert((until, client_id));
        }
    }

    /// The streams and the selection of a session.
    pub(super) fn selection(&self, client_id: u32) -> Option<(StreamSet, Selection)> {
        self.by_id.get(&client_id).map(|session| (session.streams, session.selection))
    }

    /// What the player says about its playing; the last word counts.
    pub(super) fn log(&mut self, client_id: u32, text: &str) {
        if let Some(session) = self.by_id.get_mut(&client_id) {
            session.log = Some(text.to_owned());
        }
    }
}

impl Session {
    fn expired(self, client_id: u32) -> Expired {
        Expired { client_id, owner: self.owner, name: self.name, log: self.log }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::viewer::testing::base;

    fn owner(last: u8) -> Owner {
        Owner { peer: [192, 0, 2, last].into(), guid: Some("A".into()), version: (9, 0) }
    }

    #[test]
    fn idle_ones_expire_and_those_that_play_do_not() {
        let (mut sessions, now, idle) = (Sessions::default(), base(), Duration::from_secs(65));
        sessions.found(7, owner(1), "a", now + idle);
        sessions.found(8, owner(1), "b", now + idle);
        assert_eq!(sessions.play(8, 3, &owner(1)), Ok(None));
        sessions.touch(8, now);
        assert!(sessions.expire(now + idle - Duration::from_millis(1)).is_empty());
        let gone = sessions.expire(now + idle);
        assert_eq!(gone.iter().map(|gone| (gone.client_id, gone.name.as_str())).collect::<Vec<_>>(), [(7, "a")]);
        assert!(sessions.holds(8) && !sessions.holds(7));
        sessions.log(8, "x");
        sessions.rest(8, 4, now);
        assert_eq!(sessions.player(8), Some(3), "another connection does not end it");
        sessions.rest(8, 3, now + idle * 2);
        assert_eq!(sessions.next_expiry(), Some(now + idle * 2));
        assert_eq!(sessions.expire(now + idle * 2).first().and_then(|gone| gone.log.clone()).as_deref(), Some("x"));
        assert!(sessions.is_empty() && sessions.idle.is_empty());
    }

    #[test]
    fn nobody_takes_a_session_that_plays_for_another() {
        let (mut sessions, now) = (Sessions::default(), base());
        sessions.found(7, owner(1), "a", now);
        assert_eq!(sessions.play(7, 3, &owner(1)), Ok(None));
        assert_eq!(sessions.play(7, 4, &owner(2)), Err(PlaysForAnother));
        assert_eq!(sessions.play(7, 4, &Owner { guid: None, ..owner(1) }), Err(PlaysForAnother));
        assert_eq!(sessions.play(7, 4, &owner(1)), Ok(Some(3)));
        assert_eq!(sessions.player(7), Some(4));
        assert!(sessions.is_of(7, owner(1).peer) && !sessions.is_of(7, owner(2).peer));
    }

    #[test]
    fn the_oldest_idle_one_makes_room() {
        let (mut sessions, now) = (Sessions::default(), base());
        for (n, client_id) in (0..).zip(1..=u32::try_from(IDLE_BOUND).unwrap()) {
            sessions.found(client_id, owner(1), "a", now + Duration::from_millis(n));
        }
        sessions.play(1, 1, &owner(1)).unwrap();
        sessions.found(900_000, owner(1), "a", now);
        assert_eq!(sessions.len(), IDLE_BOUND + 1);
        sessions.found(900_001, owner(1), "a", now + Duration::from_secs(9));
        assert!(sessions.holds(1) && !sessions.holds(900_000), "the one whose time is over first");
        assert_eq!(sessions.expire(now).len(), 1);
    }
}
