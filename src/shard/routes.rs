//! Who is reached by what arrives outside of his own connection: resend requests, reports, ICMP errors, a lease taken over.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::command::{Command, CommandSender, EndCause};
use super::udp::{Destination, PathError};
use crate::rtsp::recovery::ReceiverReport;

/// Resend requests and reports of one session that may wait for its shard.
const MOST_PENDING: usize = 32;
/// How long a lease is so new that an ICMP error may be about its port's last owner.
const SETTLED: Duration = Duration::from_secs(2);

/// What became of a resend request or a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routed {
    /// It is on its way to its session.
    Taken,
    /// No session of that id is at that address.
    Stranger,
    /// The session sends more than its shard can look at.
    Flood,
}

/// Where a session lives.
#[derive(Debug, Clone)]
struct Home {
    shard: CommandSender,
    conn: usize,
    address: IpAddr,
    /// Where its datagrams go, and since when.
    destination: Option<(SocketAddr, Instant)>,
    /// Resend requests and reports on their way to the shard.
    pending: Arc<AtomicUsize>,
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
        table
            .sessions
            .insert(client_id, Home { shard: shard.clone(), conn, address, destination: None, pending: Arc::default() });
        Entry { routes: Arc::clone(self), client_id }
    }

    /// The shard of a session whose player is at that address.
    pub(super) fn home(&self, client_id: u32, from: IpAddr) -> Option<CommandSender> {
        let table = self.table();
        table.sessions.get(&client_id).filter(|home| home.address == from.to_canonical()).map(|home| home.shard.clone())
    }

    /// Hands a resend request to its session, if it comes from the session's address and `budget` allows; strangers spend nothing.
    pub(super) fn datagram(&self, client_id: u32, from: IpAddr, bytes: &[u8], budget: impl FnOnce() -> bool) -> Routed {
        let table = self.table();
        let Some(home) = table.sessions.get(&client_id).filter(|home| home.address == from.to_canonical()) else {
            return Routed::Stranger;
        };
        if home.pending.load(Ordering::Relaxed) >= MOST_PENDING || !budget() {
            return Routed::Flood;
        }
        home.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Arc::clone(&home.pending);
        home.shard.send(Command::Datagram { conn: home.conn, client_id, bytes: bytes.into(), pending });
        Routed::Taken
    }

    /// Hands a player's report of what it received to the session whose media goes to the port before the one that the report came
    /// from, if `budget` allows. Players report from there: RFC 3550 11. The SSRC in it is that of many sessions.
    pub(super) fn report(&self, from: SocketAddr, report: ReceiverReport, budget: impl FnOnce() -> bool) -> Routed {
        let Some(port) = from.port().checked_sub(1) else { return Routed::Stranger };
        let mut media = from;
        media.set_port(port);
        let table = self.table();
        let media = SocketAddr::from(Destination::from(media));
        let home = table.destinations.get(&media).and_then(|id| table.sessions.get_key_value(id));
        let Some((&client_id, home)) = home else { return Routed::Stranger };
        if home.pending.load(Ordering::Relaxed) >= MOST_PENDING || !budget() {
            return Routed::Flood;
        }
        home.pending.fetch_add(1, Ordering::Relaxed);
        home.shard.send(Command::Report { conn: home.conn, client_id, report, pending: Arc::clone(&home.pending) });
        Routed::Taken
    }

    /// Acts on what ICMP said about a datagram to `destination`.
    pub(super) fn path_error(&self, now: Instant, destination: SocketAddr, error: PathError) {
        let table = self.table();
        let Some((&client_id, home)) = table.destinations.get(&destination).and_then(|id| table.sessions.get_key_value(id))
        else {
            return;
        };
        let conn = home.conn;
        match error {
            // Right after the lease began it may be about a datagram to the one who had the port before. A port that is really
            // closed answers the next packet in the same way.
            PathError::Unreachable => {
                let is_settled = home.destination.is_none_or(|(_, since)| now.saturating_duration_since(since) >= SETTLED);
                home.shard.send(Command::Unreached { conn, client_id, is_settled });
            }
            PathError::TooBig => {
                home.shard.send(Command::Fragment { conn, client_id });
            }
        }
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
    pub(super) fn leads_to(&self, destination: Option<(SocketAddr, Instant)>) {
        let mut table = self.routes.table();
        let Some(home) = table.sessions.get_mut(&self.client_id) else { return };
        let before = std::mem::replace(&mut home.destination, destination);
        if let Some((before, _)) = before {
            forget(&mut table, before, self.client_id);
        }
        if let Some((destination, _)) = destination {
            table.destinations.insert(destination, self.client_id);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.routes.table();
        let home = table.sessions.remove(&self.client_id);
        if let Some((destination, _)) = home.and_then(|home| home.destination) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn session(routes: &Arc<Routes>) -> (Entry, tokio::sync::mpsc::UnboundedReceiver<Command>, SocketAddr) {
        let (sender, mailbox) = tokio::sync::mpsc::unbounded_channel();
        let viewer = SocketAddr::from(([192, 0, 2, 1], 1024));
        (routes.enter(&CommandSender(sender), 7, viewer.ip(), || 0xABCD), mailbox, viewer)
    }

    #[test]
    fn resend_requests_reach_their_session_from_its_address_only_and_not_as_a_flood() {
        let routes = Arc::new(Routes::default());
        let (entry, mut mailbox, viewer) = session(&routes);
        assert_eq!(routes.datagram(0xABCD, [192, 0, 2, 2].into(), b"x", || true), Routed::Stranger);
        assert_eq!(routes.datagram(0xABCE, viewer.ip(), b"x", || true), Routed::Stranger);
        let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(routes.datagram(0xABCD, mapped.into(), b"x", || true), Routed::Taken);
        for _ in 1..MOST_PENDING {
            assert_eq!(routes.datagram(0xABCD, viewer.ip(), b"x", || true), Routed::Taken);
        }
        assert_eq!(routes.datagram(0xABCD, viewer.ip(), b"x", || true), Routed::Flood);
        let Ok(Command::Datagram { pending, .. }) = mailbox.try_recv() else { panic!("a datagram") };
        pending.fetch_sub(1, Ordering::Relaxed);
        assert_eq!(routes.datagram(0xABCD, viewer.ip(), b"x", || true), Routed::Taken);
        drop(entry);
        assert_eq!(routes.datagram(0xABCD, viewer.ip(), b"x", || true), Routed::Stranger);
    }

    #[test]
    fn reports_reach_the_session_whose_media_goes_to_the_port_before() {
        #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
        let start = Instant::now();
        let routes = Arc::new(Routes::default());
        let (entry, mut mailbox, viewer) = session(&routes);
        let report = || ReceiverReport { blocks: Vec::new() };
        let from = |address: [u8; 4], port: u16| SocketAddr::from((address, port));
        let own = from([192, 0, 2, 1], 1025);
        assert_eq!(routes.report(own, report(), || true), Routed::Stranger, "nothing is sent to it");
        entry.leads_to(Some((viewer, start)));
        for stranger in [viewer, from([192, 0, 2, 1], 1026), from([192, 0, 2, 2], 1025), from([192, 0, 2, 1], 0)] {
            assert_eq!(routes.report(stranger, report(), || true), Routed::Stranger, "{stranger}");
        }
        assert_eq!(routes.report(own, report(), || false), Routed::Flood);
        for _ in 0..MOST_PENDING {
            assert_eq!(routes.report(own, report(), || true), Routed::Taken);
        }
        assert_eq!(routes.report(own, report(), || true), Routed::Flood);
        let Ok(Command::Report { conn: 7, client_id: 0xABCD, pending, .. }) = mailbox.try_recv() else { panic!("a report") };
        pending.fetch_sub(1, Ordering::Relaxed);
        assert_eq!(routes.report(own, report(), || true), Routed::Taken);
        entry.leads_to(None);
        assert_eq!(routes.report(own, report(), || true), Routed::Stranger);
    }

    #[test]
    fn an_icmp_error_may_be_about_the_last_owner_of_a_port() {
        #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
        let start = Instant::now();
        let routes = Arc::new(Routes::default());
        let (entry, mut mailbox, viewer) = session(&routes);
        entry.leads_to(Some((viewer, start)));
        routes.path_error(start + Duration::from_millis(1900), viewer, PathError::Unreachable);
        assert!(matches!(mailbox.try_recv(), Ok(Command::Unreached { conn: 7, client_id: 0xABCD, is_settled: false })));
        assert!(mailbox.try_recv().is_err());
        routes.path_error(start + Duration::from_millis(2100), viewer, PathError::Unreachable);
        assert!(matches!(mailbox.try_recv(), Ok(Command::Unreached { conn: 7, client_id: 0xABCD, is_settled: true })));
        entry.leads_to(None);
        routes.path_error(start + Duration::from_secs(9), viewer, PathError::Unreachable);
        assert!(mailbox.try_recv().is_err());
    }
}
