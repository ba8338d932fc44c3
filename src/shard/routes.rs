//! Who is reached by what arrives outside of his own connection: resend requests, ICMP errors, a lease taken over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::command::{Command, CommandSender, EndCause};

/// Where a session lives.
#[derive(Debug, Clone)]
struct Home {
    shard: CommandSender,
    conn: usize,
    address: IpAddr,
    destination: Option<SocketAddr>,
}

/// The sessions of all shards by client id, and by the UDP port that they leased.
#[derive(Debug, Default)]
pub(super) struct Routes(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<u32, Home>,
    destinations: HashMap<SocketAddr, u32>,
}

impl Routes {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        // A panic elsewhere leaves whole entries: the table stays good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session under an unpredictable id that nobody has.
    pub(super) fn enter(self: &Arc<Self>, shard: &CommandSender, conn: usize, address: IpAddr, ids: impl Fn() -> u32) -> Entry {
        let mut table = self.table();
        let client_id = loop {
            let id = ids();
            if id != 0 && !table.sessions.contains_key(&id) {
                break id;
            }
        };
        table.sessions.insert(client_id, Home { shard: shard.clone(), conn, address, destination: None });
        Entry { routes: Arc::clone(self), client_id }
    }

    /// Hands a resend request to its session, if it comes from the session's address.
    pub(super) fn datagram(&self, client_id: u32, from: IpAddr, bytes: &[u8]) -> bool {
        match self.table().sessions.get(&client_id) {
            Some(home) if home.address == from.to_canonical() => {
                home.shard.send(Command::Datagram { conn: home.conn, client_id, bytes: bytes.into() })
            }
            _ => false,
        }
    }

    /// Ends the session whose leased port does not exist.
    pub(super) fn unreachable(&self, destination: SocketAddr) {
        let table = self.table();
        let Some((client_id, home)) = table.destinations.get(&destination).and_then(|id| table.sessions.get_key_value(id)) else {
            return;
        };
        home.shard.send(Command::End { conn: home.conn, client_id: *client_id, why: EndCause::Unreachable });
    }

    /// Ends the session that lost its lease to a newer connection of the same player.
    pub(super) fn superseded(&self, owner: u64) {
        let table = self.table();
        let Some((client_id, home)) = u32::try_from(owner).ok().and_then(|id| table.sessions.get_key_value(&id)) else { return };
        home.shard.send(Command::End { conn: home.conn, client_id: *client_id, why: EndCause::TakenOver });
    }
}

/// A session's entry; dropping it takes the session out.
#[derive(Debug)]
pub(super) struct Entry {
    routes: Arc<Routes>,
    client_id: u32,
}

impl Entry {
    /// The id that the session's resend requests carry.
    pub(super) const fn client_id(&self) -> u32 {
        self.client_id
    }

    /// Notes, or forgets, where the session's datagrams go.
    pub(super) fn leads_to(&self, destination: Option<SocketAddr>) {
        let mut table = self.routes.table();
        let Some(home) = table.sessions.get_mut(&self.client_id) else { return };
        let before = std::mem::replace(&mut home.destination, destination);
        if let Some(before) = before {
            forget(&mut table, before, self.client_id);
        }
        if let Some(destination) = destination {
            table.destinations.insert(destination, self.client_id);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.routes.table();
        let home = table.sessions.remove(&self.client_id);
        if let Some(destination) = home.and_then(|home| home.destination) {
            forget(&mut table, destination, self.client_id);
        }
    }
}

/// The port may belong to a successor already.
fn forget(table: &mut Table, destination: SocketAddr, client_id: u32) {
    if table.destinations.get(&destination) == Some(&client_id) {
        table.destinations.remove(&destination);
    }
}
