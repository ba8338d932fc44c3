//! Tickets: what a viewer program gets for its player, so that this is let in, and has a UDP port of its own.
//!
//! A ticket is 16 random bytes, in the query of a URL where the key of a signed one would be: `?k=t` and 32 hexadecimal digits. It is
//! good for one client address and one name. Whoever comes with it need not show what the publishing point asks of viewers
//! otherwise: that its holder signed in stands for that. What the rules say of addresses holds for it too.
//!
//! It is good from when it is issued until so long after the first media: over as many connections as a player makes until one of its
//! protocols works, and for one session that plays at a time. It ends as well if nobody comes for so long, or if nobody who came
//! gets media in as long again. Whoever has played by it may come back after that, in the same session.
//!
//! Nothing here knows a clock or makes random bytes. What is kept is a hash of each ticket: how long a search takes tells nothing about
//! those there are.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::address::{canonical, limit_key};
use super::ports::{ClientPortPool, Hold, LeaseRefusal};

/// Random bytes of a ticket.
pub const TICKET_LEN: usize = 16;
/// Tickets of one address (IPv6: of a /64) that are good at once: a house full of viewers behind one router.
const OF_ADDRESS_MAX: usize = 128;
/// And of one user.
const OF_USER_MAX: usize = 32;
/// And of all.
const TICKETS_MAX: usize = 8192;
/// How long it is remembered of a ticket that it was one: who comes late is told so, and who has played may come back.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Those that are remembered at most.
const REMEMBERED_MAX: usize = 2 * TICKETS_MAX;

/// All tickets.
#[derive(Debug)]
pub struct Tickets {
    table: Arc<Mutex<Table>>,
    hold: Duration,
}

/// What a ticket is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who may come with it.
    pub address: IpAddr,
    /// The name that it opens, as the settings write it: `Point::full_name`.
    pub name: String,
    /// Who asked for it.
    pub user: String,
    /// Whether a UDP port is to be held.
    pub port: PortWish,
}

/// Whether a UDP port is to be held for a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWish {
    /// No.
    None,
    /// If there is one.
    IfFree,
    /// Without one there is no ticket.
    Needed,
}

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OrderRefusal {
    /// Too many of its address are good now.
    #[error("{OF_ADDRESS_MAX} tickets of this address are good now; give some back, or wait until they end")]
    OfAddress,
    /// Too many of its user are good now.
    #[error("{OF_USER_MAX} tickets of this user are good now; give some back, or wait until they end")]
    OfUser,
    /// Too many are good now.
    #[error("too many tickets are good now; wait until some end")]
    InAll,
    /// There is no UDP port for it.
    #[error("no UDP port can be held: {0}")]
    Port(LeaseRefusal),
}

/// Why a ticket opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketRefusal {
    /// There is none like it.
    Unknown,
    /// It is good for another address.
    OtherAddress,
    /// It is good for another name.
    OtherName,
    /// It was good.
    Expired,
    /// Another session plays by it.
    InUse,
}

/// Who comes with a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The session.
    pub session: u64,
    /// By which a player's further connections are known, where each of them that plays displaces the one before.
    pub player: Option<u32>,
}

impl Who {
    fn is_same(&self, other: &Self) -> bool {
        self.session == other.session || self.player.is_some() && self.player == other.player
    }
}

/// A ticket that is good, or by which somebody plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketFacts {
    /// Its number.
    pub serial: u64,
    /// Who asked for it.
    pub user: String,
    /// The name that it opens.
    pub name: String,
    /// Who may come with it.
    pub address: IpAddr,
    /// The UDP port that is held for it, or that its session has.
    pub client_port: Option<u16>,
    /// For so long it is good, if nobody comes or plays.
    pub expires: Duration,
    /// The session that plays by it.
    pub session: Option<u64>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    serials: HashMap<[u8; 32], u64>,
    tickets: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    address: IpAddr,
    name: String,
    user: String,
    until: Instant,
    /// Somebody has come with it.
    shown: bool,
    /// Somebody was sent media by it.
    played: bool,
    hold: Option<Hold>,
    /// Who plays by it.
    plays: Option<Who>,
    /// Who was sent media by it last.
    player: Option<Who>,
    /// Its holder wants it no more: nobody comes back.
    given_back: bool,
    /// Sessions that have it open.
    sessions: u32,
}

/// A session that has opened a name by a ticket.
#[derive(Debug)]
pub struct TicketUse {
    table: Arc<Mutex<Table>>,
    hold: Duration,
    serial: u64,
    who: Who,
    user: String,
}

impl Tickets {
    /// None yet. Each is good for `hold` before somebody comes, from then on before there is media, and from then on.
    pub fn new(hold: Duration) -> Self {
        Self { table: Arc::default(), hold }
    }

    /// Whether a key is to be a ticket; others are keys of signed URLs.
    pub fn is_ticket(key: &str) -> bool {
        bytes_of(key).is_some()
    }

    /// A new ticket: its key, letters and digits, and what it is. `random` is to be that.
    ///
    /// # Errors
    /// [`OrderRefusal`].
    pub fn issue(
        &self,
        now: Instant,
        ports: &ClientPortPool,
        order: Order,
        random: [u8; TICKET_LEN],
    ) -> Result<(String, TicketFacts), OrderRefusal> {
        let mut table = lock(&self.table);
        let good = |entry: &&Entry| entry.until > now;
        let all = table.tickets.values().filter(good);
        let key = limit_key(order.address);
        if all.clone().filter(|entry| limit_key(entry.address) == key).count() >= OF_ADDRESS_MAX {
            return Err(OrderRefusal::OfAddress);
        }
        if all.clone().filter(|entry| entry.user == order.user).count() >= OF_USER_MAX {
            return Err(OrderRefusal::OfUser);
        }
        if all.count() >= TICKETS_MAX {
            return Err(OrderRefusal::InAll);
        }
        table.last += 1;
        let serial = table.last;
        let hold = match order.port {
            PortWish::None => None,
            PortWish::IfFree => ports.hold_lowest(now, order.address, serial).ok(),
            PortWish::Needed => Some(ports.hold_lowest(now, order.address, serial).map_err(OrderRefusal::Port)?),
        };
        let hash = hash_of(random);
        let entry = Entry {
            hash,
            address: canonical(order.address),
            name: order.name,
            user: order.user,
            until: now + self.hold,
            shown: false,
            played: false,
            hold,
            plays: None,
            player: None,
            given_back: false,
            sessions: 0,
        };
        let facts = entry.facts(serial, now);
        table.serials.insert(hash, serial);
        table.tickets.insert(serial, entry);
        let forgotten = table.forget_beyond(REMEMBERED_MAX, now);
        drop(table);
        drop(forgotten);
        let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((format!("t{digits}"), facts))
    }

    /// Somebody at an address opens a name, as the settings write it, by a ticket.
    ///
    /// # Errors
    /// [`TicketRefusal`].
    pub fn show(&self, now: Instant, key: &str, address: IpAddr, name: &str, who: Who) -> Result<TicketUse, TicketRefusal> {
        let hash = hash_of(bytes_of(key).ok_or(TicketRefusal::Unknown)?);
        let mut table = lock(&self.table);
        let serial = *table.serials.get(&hash).ok_or(TicketRefusal::Unknown)?;
        let entry = table.tickets.get_mut(&serial).ok_or(TicketRefusal::Unknown)?;
        if entry.address != canonical(address) {
            return Err(TicketRefusal::OtherAddress);
        }
        if entry.name != name {
            return Err(TicketRefusal::OtherName);
        }
        if entry.until <= now && !entry.player.is_some_and(|player| player.is_same(&who)) {
            return Err(TicketRefusal::Expired);
        }
        if entry.plays.is_some_and(|other| !other.is_same(&who)) {
            return Err(TicketRefusal::InUse);
        }
        if !entry.shown {
            entry.shown = true;
            entry.until = now + self.hold;
        }
        entry.sessions += 1;
        Ok(TicketUse { table: Arc::clone(&self.table), hold: self.hold, serial, who, user: entry.user.clone() })
    }

    /// Ends a ticket; who plays by it plays on. False if there is none of that number that is good.
    pub fn give_back(&self, now: Instant, serial: u64) -> bool {
        let mut table = lock(&self.table);
        let Some(entry) = table.tickets.get_mut(&serial).filter(|entry| entry.until > now) else { return false };
        (entry.until, entry.player, entry.given_back) = (now, None, true);
        let hold = entry.hold.take();
        drop(table);
        drop(hold);
        true
    }

    /// Those that are good at `now`, and those by which somebody plays.
    pub fn list(&self, now: Instant) -> Vec<TicketFacts> {
        let table = lock(&self.table);
        let there = table.tickets.iter().filter(|(_, entry)| entry.until > now || entry.plays.is_some());
        there.map(|(serial, entry)| entry.facts(*serial, now)).collect()
    }

    /// Lets time pass: ports of tickets that are over are free.
    pub fn tick(&self, now: Instant) {
        let mut table = lock(&self.table);
        // Freed once nobody waits for this lock.
        let holds: Vec<_> =
            table.tickets.values_mut().filter(|entry| entry.until <= now).filter_map(|entry| entry.hold.take()).collect();
        let old: Vec<u64> = (table.tickets.iter())
            .filter(|(_, entry)| entry.sessions == 0 && now.saturating_duration_since(entry.until) >= REMEMBERED)
            .map(|(serial, _)| *serial)
            .collect();
        for serial in old {
            table.remove(serial);
        }
        drop(table);
        drop(holds);
    }
}

impl Table {
    fn remove(&mut self, serial: u64) -> Option<Entry> {
        let entry = self.tickets.remove(&serial)?;
        self.serials.remove(&entry.hash);
        Some(entry)
    }

    /// Takes out the oldest of those that are only remembered.
    fn forget_beyond(&mut self, most: usize, now: Instant) -> Vec<Entry> {
        let surplus = self.tickets.len().saturating_sub(most);
        let over = self.tickets.iter().filter(|(_, entry)| entry.until <= now && entry.sessions == 0);
        let oldest: Vec<u64> = over.map(|(serial, _)| *serial).take(surplus).collect();
        oldest.into_iter().filter_map(|serial| self.remove(serial)).collect()
    }
}

impl Entry {
    fn facts(&self, serial: u64, now: Instant) -> TicketFacts {
        TicketFacts {
            serial,
            user: self.user.clone(),
            name: self.name.clone(),
            address: self.address,
            client_port: self.hold.as_ref().and_then(Hold::port),
            expires: self.until.saturating_duration_since(now),
            session: self.plays.map(|who| who.session),
        }
    }
}

impl TicketUse {
    /// The number of the ticket.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Who asked for the ticket.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The session is about to play; false where another one plays by the ticket.
    pub fn plays(&self) -> bool {
        let mut table = lock(&self.table);
        let Some(entry) = table.tickets.get_mut(&self.serial) else { return true };
        if entry.plays.is_some_and(|other| !other.is_same(&self.who)) {
            return false;
        }
        entry.plays = Some(self.who);
        true
    }

    /// The session was sent media.
    pub fn media(&self, now: Instant) {
        let mut table = lock(&self.table);
        let Some(entry) = table.tickets.get_mut(&self.serial) else { return };
        entry.player = Some(self.who).filter(|_| !entry.given_back);
        if !entry.played && entry.until > now {
            entry.played = true;
            entry.until = now + self.hold;
        }
    }

    /// The session does not play any more.
    pub fn stops(&self) {
        let mut table = lock(&self.table);
        if let Some(entry) = table.tickets.get_mut(&self.serial)
            && entry.plays.is_some_and(|who| who.session == self.who.session)
        {
            entry.plays = None;
        }
    }

    /// The UDP port that is held for the ticket.
    pub fn port(&self) -> Option<u16> {
        lock(&self.table).tickets.get(&self.serial)?.hold.as_ref()?.port()
    }

    /// The player wants another port, or none: the one that was held.
    pub fn let_port_go(&self) -> Option<u16> {
        let hold = lock(&self.table).tickets.get_mut(&self.serial)?.hold.take()?;
        hold.port()
    }
}

impl Drop for TicketUse {
    fn drop(&mut self) {
        self.stops();
        if let Some(entry) = lock(&self.table).tickets.get_mut(&self.serial) {
            entry.sessions -= 1;
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_of(random: [u8; TICKET_LEN]) -> [u8; 32] {
    Sha256::digest(random).into()
}

/// Players may change the case of what they are given.
fn bytes_of(key: &str) -> Option<[u8; TICKET_LEN]> {
    let digits = key.strip_prefix(['t', 'T'])?.as_bytes();
    let mut bytes = [0; TICKET_LEN];
    if digits.len() != 2 * TICKET_LEN {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
