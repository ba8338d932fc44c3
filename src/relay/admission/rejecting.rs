//! Single UDP ports of players where ICMP said that nobody gets what is sent there, while others of the address may get theirs: a
//! firewall that rejects some of the ports behind which a household or an office is.
//!
//! A port is refused by its number, and another port to the player that had it: some take another one each time. Firewalls know ranges:
//! a port that is nearer to one at which something has arrived is not refused. Who lies by ICMP has to know a session's address and port while nothing
//! has arrived there yet, and gains that this one player plays by TCP.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address::{canonical, limit_key};
use super::learned::{ARRIVAL_KEPT, PlayerMark, make_room};

/// Ports that are remembered of an address, or /64; the oldest make room, so that nobody fills the table of others.
const PORTS_BOUND: usize = 32;

/// What is known of ports, by what limits count as one client.
#[derive(Debug, Default)]
pub(super) struct PortNotes(HashMap<IpAddr, Vec<Note>>);

#[derive(Debug)]
struct Note {
    address: IpAddr,
    port: u16,
    at: Instant,
    told: Told,
}

#[derive(Debug)]
enum Told {
    Arrives,
    Rejected { player: PlayerMark, refused: u64 },
}

/// A port that is refused.
#[derive(Debug)]
pub(super) struct RejectedPort {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) since: Instant,
    pub(super) refused: u64,
}

impl PortNotes {
    /// Nobody gets what is sent to this port of a player.
    pub(super) fn rejected(&mut self, now: Instant, address: IpAddr, port: u16, player: PlayerMark) {
        self.note(now, address, port, Told::Rejected { player, refused: 0 });
    }

    /// Something sent to this port arrived. True where it was refused until now.
    pub(super) fn arrives(&mut self, now: Instant, address: IpAddr, port: u16) -> bool {
        self.note(now, address, port, Told::Arrives)
    }

    /// Whether a player is to be refused these ports; that is counted.
    pub(super) fn refuses(
        &mut self,
        now: Instant,
        remember: Duration,
        address: IpAddr,
        ports: &[u16],
        player: &PlayerMark,
    ) -> bool {
        let Some(notes) = self.0.get_mut(&limit_key(address)) else { return false };
        let address = canonical(address);
        notes.retain(|note| note.is_fresh(now, remember));
        let distance = |note: &Note| ports.iter().map(|port| port.abs_diff(note.port)).min().unwrap_or(u16::MAX);
        let known = notes.iter().filter(|note| note.address == address);
        let nearest = known.min_by_key(|note| (distance(note), matches!(note.told, Told::Rejected { .. })));
        let Some(Note { port, told: Told::Rejected { .. }, .. }) = nearest else { return false };
        let (port, is_own) = (*port, ports.contains(port));
        for note in notes.iter_mut().filter(|note| note.address == address) {
            if let Told::Rejected { player: before, refused } = &mut note.told
                && (is_own && note.port == port || !is_own && before.is_known_as(player))
            {
                *refused += 1;
                return true;
            }
        }
        false
    }

    /// Those that are refused.
    pub(super) fn list(&self, now: Instant, remember: Duration) -> impl Iterator<Item = RejectedPort> {
        self.0.values().flatten().filter(move |note| note.is_fresh(now, remember)).filter_map(|note| match note.told {
            Told::Rejected { refused, .. } => {
                Some(RejectedPort { address: note.address, port: note.port, since: note.at, refused })
            }
            Told::Arrives => None,
        })
    }

    /// Forgets all but the ports of these addresses; how many of them were refused.
    pub(super) fn retain(&mut self, stays: impl Fn(&IpAddr) -> bool) -> usize {
        let mut forgotten = 0;
        self.keep(|note| {
            let keeps = stays(&note.address);
            forgotten += usize::from(!keeps && matches!(note.told, Told::Rejected { .. }));
            keeps
        });
        forgotten
    }

    /// What is too old is forgotten.
    pub(super) fn tick(&mut self, now: Instant, remember: Duration) {
        self.keep(|note| note.is_fresh(now, remember));
    }

    fn keep(&mut self, mut keeps: impl FnMut(&Note) -> bool) {
        self.0.retain(|_, notes| {
            notes.retain(&mut keeps);
            !notes.is_empty()
        });
    }

    /// True where the port was rejected until now.
    fn note(&mut self, now: Instant, address: IpAddr, port: u16, told: Told) -> bool {
        let (key, address) = (limit_key(address), canonical(address));
        make_room(&mut self.0, &key, |notes| notes.last().map_or(now, |note| note.at));
        let notes = self.0.entry(key).or_default();
        let before = notes.iter().position(|note| note.address == address && note.port == port);
        let before = before.map(|index| notes.remove(index));
        if notes.len() >= PORTS_BOUND {
            notes.remove(0);
        }
        // The newest last.
        notes.push(Note { address, port, at: now, told });
        before.is_some_and(|before| matches!(before.told, Told::Rejected { .. }))
    }
}

impl Note {
    fn is_fresh(&self, now: Instant, remember: Duration) -> bool {
        let kept = if matches!(self.told, Told::Arrives) { ARRIVAL_KEPT } else { remember };
        now.saturating_duration_since(self.at) < kept
    }
}

#[cfg(test)]
mod tests {
    use super::super::learned::BOUND;
    use super::*;
    use crate::relay::testing::{at, base};

    const HOUR: Duration = Duration::from_secs(3600);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn player(guid: Option<&str>, agent: &str) -> PlayerMark {
        PlayerMark { guid: guid.map(str::to_owned), agent: agent.into(), name: "cam".into() }
    }

    #[test]
    fn a_port_is_refused_to_all_and_other_ports_to_its_player() {
        let (now, viewer) = (base(), ip("192.0.2.7"));
        let (ffmpeg, wmp, unnamed) = (player(None, "Lavf"), player(Some("{A}"), "NSPlayer"), player(None, ""));
        let mut notes = PortNotes::default();
        notes.rejected(now, viewer, 21_115, ffmpeg.clone());
        notes.rejected(now, viewer, 21_120, unnamed.clone());
        assert!(!notes.arrives(now, viewer, 21_100));
        let mut refuses =
            |address: &str, ports: &[u16], player: &PlayerMark| notes.refuses(now, HOUR, ip(address), ports, player);
        assert!(refuses("192.0.2.7", &[21_115], &wmp) && refuses("::ffff:192.0.2.7", &[21_114, 21_115], &wmp));
        assert!(refuses("192.0.2.7", &[21_117, 21_118], &ffmpeg), "it takes another one each time");
        assert!(
            !refuses("192.0.2.7", &[21_117], &wmp) && !refuses("192.0.2.7", &[21_117], &unnamed),
            "others are not that player"
        );
        assert!(
            !refuses("192.0.2.7", &[21_100], &ffmpeg) && !refuses("192.0.2.7", &[21_101], &ffmpeg),
            "there something arrives"
        );
        assert!(!refuses("192.0.2.8", &[21_115], &ffmpeg), "another address");
        // What arrives at the very port clears it.
        assert!(notes.arrives(now, viewer, 21_115) && !notes.arrives(now, viewer, 21_115));
        assert!(!notes.refuses(now, HOUR, viewer, &[21_115], &ffmpeg));
        assert_eq!(notes.list(now, HOUR).map(|port| port.port).collect::<Vec<_>>(), [21_120]);
    }

    #[test]
    fn hosts_of_one_64_are_told_apart() {
        let (now, mut notes, mark) = (base(), PortNotes::default(), player(None, "Lavf"));
        notes.rejected(now, ip("2001:db8::1"), 1024, mark.clone());
        assert!(!notes.refuses(now, HOUR, ip("2001:db8::2"), &[1024], &mark));
        assert!(notes.refuses(now, HOUR, ip("2001:db8::1"), &[1024], &mark));
    }

    #[test]
    fn it_is_forgotten_in_time_and_on_demand() {
        let (start, viewer, mark) = (base(), ip("192.0.2.7"), player(None, "Lavf"));
        let mut notes = PortNotes::default();
        notes.rejected(start, viewer, 1024, mark.clone());
        notes.arrives(start, viewer, 1025);
        assert!(notes.refuses(at(start, 3_599_999), HOUR, viewer, &[1024], &mark));
        assert!(!notes.refuses(start + HOUR, HOUR, viewer, &[1024], &mark));
        notes.rejected(start, viewer, 1024, mark);
        assert_eq!(notes.retain(|address| *address == viewer), 0);
        assert_eq!((notes.retain(|_| false), notes.0.len()), (1, 0));
        notes.arrives(start, viewer, 1025);
        notes.tick(start + ARRIVAL_KEPT, HOUR);
        assert!(notes.0.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_nobody_fills_what_others_have() {
        let (start, mut notes) = (base(), PortNotes::default());
        let other = ip("192.0.2.8");
        notes.rejected(start, other, 1024, PlayerMark::default());
        for port in 1024..2024 {
            notes.rejected(start, ip("192.0.2.7"), port, PlayerMark::default());
        }
        assert_eq!(notes.0.values().map(Vec::len).sum::<usize>(), PORTS_BOUND + 1);
        assert!(notes.refuses(start, HOUR, other, &[1024], &PlayerMark::default()));
        let address = |n: u32| IpAddr::from((0x0A00_0000 + n).to_be_bytes());
        for n in 0..u32::try_from(BOUND).unwrap() + 10 {
            notes.rejected(at(start, n.into()), address(n), 1024, PlayerMark::default());
        }
        assert_eq!(notes.0.len(), BOUND);
    }
}
