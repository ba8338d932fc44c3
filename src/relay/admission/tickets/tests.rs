use std::ops::RangeInclusive;

use super::*;
use crate::relay::admission::{Claim, Lease, PortCounts, TicketShown};
use crate::relay::testing::{at, base};
use crate::settings::{PortRanges, Settings};
use proptest::prelude::*;

const HOLD: Duration = Duration::from_secs(30);

fn pool(range: RangeInclusive<u16>) -> ClientPortPool {
    let mut udp = Settings::default().udp;
    udp.client_ports = PortRanges(vec![range]);
    ClientPortPool::new(&udp)
}

/// A table of tickets and a pool of ten ports.
struct Rig {
    tickets: Tickets,
    ports: ClientPortPool,
    issued: u8,
}

impl Rig {
    fn new() -> Self {
        Self { tickets: Tickets::new(HOLD), ports: pool(1024..=1033), issued: 0 }
    }

    fn order(&mut self, now: Instant, port: PortWish) -> Result<(String, TicketFacts), OrderRefusal> {
        self.issued += 1;
        let order = Order { address: viewer(), name: "cam".into(), user: "anna".into(), port };
        self.tickets.issue(now, &self.ports, order, [self.issued; TICKET_LEN])
    }

    fn issue(&mut self, now: Instant) -> (String, TicketFacts) {
        self.order(now, PortWish::IfFree).unwrap()
    }

    fn show(&self, now: Instant, key: &str, session: u64) -> Result<TicketUse, TicketRefusal> {
        self.tickets.show(now, key, viewer(), "cam", Who { session, player: None })
    }

    /// A session announces a port.
    fn claim(&self, now: Instant, port: u16, session: u64, ticket: TicketShown) -> Result<Lease, LeaseRefusal> {
        self.ports.claim(now, Claim { address: viewer(), port, announced: None, player: None, owner: session, ticket })
    }

    fn counts(&self) -> (usize, usize, usize) {
        let PortCounts { leased, resting, held } = self.ports.counts();
        (leased, resting, held)
    }
}

fn viewer() -> IpAddr {
    IpAddr::from([192, 0, 2, 7])
}

fn seconds(base: Instant, seconds: u64) -> Instant {
    at(base, seconds * 1000)
}

#[test]
fn it_is_good_for_one_address_and_one_name() {
    let (now, mut rig) = (base(), Rig::new());
    let (key, facts) = rig.issue(now);
    assert_eq!((key.len(), key.as_bytes()[0], facts.client_port, facts.expires), (33, b't', Some(1024), HOLD));
    let who = Who { session: 1, player: None };
    let show = |key: &str, address: &str, name: &str| rig.tickets.show(now, key, address.parse().unwrap(), name, who).err();
    assert_eq!(show(&key, "192.0.2.8", "cam"), Some(TicketRefusal::OtherAddress));
    assert_eq!(show(&key, "2001:db8::1", "cam"), Some(TicketRefusal::OtherAddress));
    assert_eq!(show(&key, "192.0.2.7", "cam2"), Some(TicketRefusal::OtherName));
    assert_eq!(show(&key, "192.0.2.7", "cam"), None);
    assert_eq!(show(&key.to_ascii_uppercase(), "::ffff:192.0.2.7", "cam"), None, "players change the case");
    let mut changed = key.clone();
    changed.replace_range(32..33, if key.ends_with('0') { "1" } else { "0" });
    for none in [
        changed.as_str(),
        "",
        "t",
        &key[1..],
        &format!("{key}0"),
        &key.replacen('t', "u", 1),
        "t+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1",
    ] {
        assert_eq!(show(none, "192.0.2.7", "cam"), Some(TicketRefusal::Unknown), "{none}");
        assert!(none == changed || !Tickets::is_ticket(none));
    }
    let v6 = Order { address: "2001:db8::1".parse().unwrap(), name: "cam".into(), user: "b".into(), port: PortWish::None };
    let (key, facts) = rig.tickets.issue(now, &rig.ports, v6, [99; TICKET_LEN]).unwrap();
    assert_eq!(facts.client_port, None);
    let show = |address: &str| rig.tickets.show(now, &key, address.parse().unwrap(), "cam", who).err();
    assert_eq!((show("2001:db8::1"), show("2001:db8::2")), (None, Some(TicketRefusal::OtherAddress)), "not its neighbour either");
}

/// So long before somebody comes, so long before there is media, and so long from then on.
#[test]
fn it_ends_a_while_after_the_first_media() {
    let (start, mut rig) = (base(), Rig::new());
    let late = |rig: &Rig, key: &str, s| rig.show(seconds(start, s), key, 9).err();
    let (key, _) = rig.issue(start);
    assert_eq!(late(&rig, &key, 30), Some(TicketRefusal::Expired), "nobody came");
    let udp = rig.show(seconds(start, 29), &key, 1).unwrap();
    assert_eq!(late(&rig, &key, 59), Some(TicketRefusal::Expired), "nobody got media");
    let tcp = rig.show(seconds(start, 58), &key, 2).unwrap();
    assert!(tcp.plays());
    tcp.media(seconds(start, 58));
    tcp.media(seconds(start, 80));
    drop(udp);
    assert_eq!(late(&rig, &key, 87), Some(TicketRefusal::InUse));
    assert_eq!(late(&rig, &key, 88), Some(TicketRefusal::Expired));
    // The one that plays goes on, and may pause.
    tcp.stops();
    assert!(rig.show(seconds(start, 5000), &key, 2).is_ok() && tcp.plays());
    rig.tickets.tick(seconds(start, 9000));
    assert_eq!(rig.tickets.list(seconds(start, 9000)).len(), 1, "as long as it plays");
    drop(tcp);
    rig.tickets.tick(seconds(start, 9000));
    assert_eq!(late(&rig, &key, 9000), Some(TicketRefusal::Unknown), "nothing is kept of it");
}

#[test]
fn one_session_plays_at_a_time() {
    let (now, mut rig) = (base(), Rig::new());
    let (key, _) = rig.issue(now);
    let (one, two) = (rig.show(now, &key, 1).unwrap(), rig.show(now, &key, 2).unwrap());
    assert!(one.plays() && one.plays());
    assert!(!two.plays(), "both were there before either played");
    assert_eq!(rig.show(now, &key, 3).unwrap_err(), TicketRefusal::InUse);
    two.stops();
    assert!(!two.plays(), "it was not the one that played");
    drop(one);
    assert!(two.plays());
    drop(two);
    // A player that has several connections is known by something else.
    let by = |session| rig.tickets.show(now, &key, viewer(), "cam", Who { session, player: Some(77) });
    let (first, next) = (by(4).unwrap(), by(4).unwrap());
    assert!(first.plays() && next.plays());
    let further = by(5).unwrap();
    assert!(further.plays());
    drop((first, next));
    assert_eq!(rig.tickets.list(now)[0].session, Some(5), "what ended was not the one that plays now");
}

/// Two downloads that name one session of players are two, before the end and after it; and who only asked to play does not come back.
#[test]
fn who_has_not_played_in_the_session_is_somebody_else() {
    let (start, mut rig) = (base(), Rig::new());
    let (key, _) = rig.issue(start);
    let by = |s, session, player| rig.tickets.show(seconds(start, s), &key, viewer(), "cam", Who { session, player });
    let (first, second) = (by(0, 1, None).unwrap(), by(0, 2, None).unwrap());
    assert!(first.plays());
    first.media(start);
    assert!(!second.plays(), "both were there before");
    assert_eq!(by(1, 3, None).unwrap_err(), TicketRefusal::InUse);
    assert_eq!(by(60, 3, None).unwrap_err(), TicketRefusal::Expired);
    drop((first, second));
    let (played, asked) = (by(5, 4, Some(77)).unwrap(), by(5, 5, Some(78)).unwrap());
    assert!(asked.plays());
    drop(asked);
    assert!(played.plays());
    played.media(seconds(start, 5));
    drop(played);
    assert_eq!(by(60, 6, Some(78)).unwrap_err(), TicketRefusal::Expired, "it never had media");
    assert_eq!(by(60, 6, None).unwrap_err(), TicketRefusal::Expired);
    assert!(by(60, 6, Some(77)).is_ok());
    rig.tickets.tick(seconds(start, 900));
    assert!(rig.tickets.list(seconds(start, 900)).is_empty());
}

#[test]
fn ten_have_the_ten_lowest_ports_and_the_eleventh_none() {
    let (now, mut rig) = (base(), Rig::new());
    let ports: Vec<_> = (0..10).map(|_| rig.issue(now).1.client_port.unwrap()).collect();
    assert_eq!(ports, (1024..=1033).collect::<Vec<_>>());
    assert_eq!(rig.issue(now).1.client_port, None);
    assert_eq!(rig.order(now, PortWish::Needed).unwrap_err(), OrderRefusal::Port(LeaseRefusal::Exhausted));
    assert_eq!(rig.counts(), (0, 0, 10));
    assert!(rig.ports.is_held(viewer(), 1033) && !rig.ports.is_held(viewer(), 1034));
    // One is given back, and nothing was sent to its port: it is free at once.
    assert!(rig.tickets.give_back(now, 4) && !rig.tickets.give_back(now, 4) && !rig.tickets.give_back(now, 400));
    assert_eq!(rig.issue(now).1.client_port, Some(1027));
    // All are over.
    rig.tickets.tick(at(now, 29_999));
    assert_eq!(rig.counts(), (0, 0, 10));
    rig.tickets.tick(seconds(now, 30));
    assert_eq!(rig.counts(), (0, 0, 0));
    assert_eq!(rig.ports.list(now), [], "nothing is kept of the address");
}

#[test]
fn there_are_only_so_many() {
    let (now, tickets, ports) = (base(), Tickets::new(HOLD), pool(1024..=5000));
    let of_user = u32::try_from(OF_USER_MAX).unwrap();
    let issue = |n: u32, address: u32| {
        let mut random = [0; TICKET_LEN];
        random[..4].copy_from_slice(&n.to_be_bytes());
        let address = IpAddr::from((0x0A00_0000 + address).to_be_bytes());
        let order = Order { address, name: "cam".into(), user: format!("user{}", n / of_user), port: PortWish::None };
        tickets.issue(now, &ports, order, random).map(|_| ())
    };
    let of_address = u32::try_from(OF_ADDRESS_MAX).unwrap();
    for n in 0..of_address {
        issue(n, 0).unwrap();
    }
    assert_eq!(issue(9_999_999, 0), Err(OrderRefusal::OfAddress));
    assert_eq!(issue(0, 1), Err(OrderRefusal::OfUser));
    let all = u32::try_from(TICKETS_MAX).unwrap();
    for n in of_address..all {
        issue(n, 1 + n / of_address).unwrap();
    }
    assert_eq!(issue(9_999_999, 5_000_000), Err(OrderRefusal::InAll));
}

/// Each way on from a hold: who comes to the port, and with what.
#[test]
fn a_held_port_goes_to_the_player_of_its_ticket() {
    let (now, mut rig) = (base(), Rig::new());
    let (key, facts) = rig.issue(now);
    let serial = facts.serial;
    // Known to have another ticket, or none: refused at once.
    for ticket in [TicketShown::None, TicketShown::Serial(serial + 1)] {
        assert_eq!(rig.claim(now, 1024, 1, ticket).unwrap_err(), LeaseRefusal::Taken);
    }
    // Over MMS the name comes later.
    let lease = rig.claim(now, 1024, 1, TicketShown::NotYet).unwrap();
    assert_eq!((lease.ticket(), rig.counts()), (Some(serial), (1, 0, 0)));
    assert_eq!(rig.claim(now, 1024, 2, TicketShown::NotYet).unwrap_err(), LeaseRefusal::Taken, "one at a time");
    let shown = rig.show(now, &key, 1).unwrap();
    assert_eq!((lease.settle(Some(serial)), shown.port()), (None, Some(1024)));
    // It fails and rolls over: the port waits for it, for whichever protocol comes next, until the ticket is over.
    drop((shown, lease));
    assert_eq!(rig.counts(), (0, 0, 1));
    let lease = rig.claim(now, 1024, 3, TicketShown::Serial(serial)).unwrap();
    assert_eq!((lease.settle(Some(serial)), lease.superseded()), (None, None));
    // A further session of the ticket has lost the one before.
    let next = rig.claim(now, 1024, 4, TicketShown::Serial(serial)).unwrap();
    assert_eq!((next.superseded(), next.ticket(), lease.ticket()), (Some(3), Some(serial), None));
    drop(lease);
    rig.tickets.tick(seconds(now, 30));
    assert_eq!((rig.counts(), next.ticket()), ((1, 0, 0), None), "who has the port keeps it");
    drop(next);
    assert_eq!(rig.counts(), (0, 1, 0));
}

#[test]
fn who_comes_first_without_the_ticket_keeps_the_port() {
    let (now, mut rig) = (base(), Rig::new());
    let (key, facts) = rig.issue(now);
    let stranger = rig.claim(now, 1024, 1, TicketShown::NotYet).unwrap();
    assert_eq!(stranger.settle(None), Some(facts.serial));
    assert_eq!((stranger.settle(None), stranger.ticket()), (None, None), "once");
    assert_eq!(rig.tickets.list(now)[0].client_port, None);
    // The ticket's player is judged as any other.
    let shown = rig.show(now, &key, 2).unwrap();
    assert_eq!(shown.port(), None);
    assert_eq!(rig.claim(now, 1024, 2, TicketShown::Serial(facts.serial)).unwrap_err(), LeaseRefusal::Taken);
    drop((stranger, shown));
    rig.tickets.tick(seconds(now, 30));
    assert_eq!(rig.counts(), (0, 1, 0), "an end of the ticket changes nothing");
    // One that leaves before it has opened anything takes nothing away.
    let (_, facts) = rig.issue(seconds(now, 40));
    drop(rig.claim(seconds(now, 40), 1024, 5, TicketShown::NotYet).unwrap());
    assert_eq!((rig.counts(), facts.client_port), ((0, 0, 1), Some(1024)));
}

#[test]
fn another_port_makes_the_held_one_free() {
    let (now, mut rig) = (base(), Rig::new());
    let (key, facts) = rig.issue(now);
    let shown = rig.show(now, &key, 1).unwrap();
    let lease = rig.claim(now, 1030, 1, TicketShown::NotYet).unwrap();
    assert_eq!((lease.ticket(), shown.port(), shown.let_port_go()), (None, Some(1024), Some(1024)));
    assert_eq!((lease.settle(Some(facts.serial)), shown.port(), shown.let_port_go()), (None, None, None));
    assert_eq!(rig.counts(), (1, 0, 0));
    assert_eq!(rig.issue(now).1.client_port, Some(1024));
}

#[test]
fn without_udp_nothing_is_held() {
    let mut udp = Settings::default().udp;
    udp.enabled = false;
    let mut rig = Rig { ports: ClientPortPool::new(&udp), ..Rig::new() };
    assert_eq!(rig.issue(base()).1.client_port, None);
    let refusal = rig.order(base(), PortWish::Needed).unwrap_err();
    assert!(refusal.to_string().contains("UDP is switched off"), "{refusal}");
}

#[derive(Debug, Clone)]
enum Act {
    Issue,
    Show { ticket: usize, session: u64, right: bool },
    Claim { port: u16, session: u64, knows: Option<usize> },
    Settle { session: u64 },
    Play { session: u64 },
    Stop { session: u64 },
    Leave { session: u64 },
    GiveBack { ticket: usize },
    Wait { s: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let (ticket, session) = (0..4usize, 1..5u64);
    prop_oneof![
        Just(Act::Issue),
        (ticket.clone(), session.clone(), prop::bool::weighted(0.8)).prop_map(|(ticket, session, right)| Act::Show {
            ticket,
            session,
            right
        }),
        (1024..1029u16, session.clone(), prop::option::of(ticket.clone())).prop_map(|(port, session, knows)| Act::Claim {
            port,
            session,
            knows
        }),
        session.clone().prop_map(|session| Act::Settle { session }),
        session.clone().prop_map(|session| Act::Play { session }),
        session.clone().prop_map(|session| Act::Stop { session }),
        session.prop_map(|session| Act::Leave { session }),
        ticket.prop_map(|ticket| Act::GiveBack { ticket }),
        (0..20u64).prop_map(|s| Act::Wait { s }),
    ]
}

/// A session as the shards keep it.
#[derive(Default)]
struct Conn {
    shown: Option<TicketUse>,
    lease: Option<Lease>,
}

proptest! {
    /// Whatever players do, in whatever order.
    #[test]
    fn nobody_plays_beside_another_and_no_port_is_lost(acts in prop::collection::vec(act(), 0..120)) {
        let mut rig = Rig { ports: pool(1024..=1028), ..Rig::new() };
        let (start, mut clock) = (base(), 0);
        let mut played = std::collections::HashSet::new();
        let (mut keys, mut conns): (Vec<(String, u64)>, HashMap<u64, Conn>) = (Vec::new(), HashMap::new());
        for act in acts {
            let now = seconds(start, clock);
            match act {
                Act::Issue if keys.len() < 4 => {
                    let (key, facts) = rig.issue(now);
                    keys.push((key, facts.serial));
                }
                Act::Issue => {}
                Act::Show { ticket, session, right } => {
                    let Some((key, serial)) = keys.get(ticket).cloned() else { continue };
                    let good = rig.tickets.list(now).iter().any(|facts| facts.serial == serial && !facts.expires.is_zero());
                    let result = rig.tickets.show(now, &key, viewer(), if right { "cam" } else { "other" }, Who { session, player: None });
                    let returns = played.contains(&(serial, session));
                    if !right {
                        prop_assert_eq!(result.unwrap_err(), TicketRefusal::OtherName);
                    } else if let Ok(shown) = result {
                        prop_assert!(good || returns, "nothing opens by what is over");
                        let conn = conns.entry(session).or_default();
                        if let Some(lease) = &conn.lease {
                            lease.settle(Some(serial));
                        }
                        conn.shown = Some(shown);
                    }
                }
                Act::Claim { port, session, knows } => {
                    let ticket = knows.and_then(|at| keys.get(at)).map_or(TicketShown::NotYet, |(_, serial)| TicketShown::Serial(*serial));
                    let conn = conns.entry(session).or_default();
                    conn.lease = None;
                    conn.lease = rig.claim(now, port, session, ticket).ok();
                    if let Some(loser) = conn.lease.as_ref().and_then(Lease::superseded) {
                        conns.remove(&loser);
                    }
                }
                Act::Settle { session } => {
                    if let Some(lease) = conns.get(&session).and_then(|conn| conn.lease.as_ref()) {
                        lease.settle(None);
                        prop_assert_eq!(lease.ticket(), None);
                    }
                }
                Act::Play { session } => {
                    if let Some(shown) = conns.get(&session).and_then(|conn| conn.shown.as_ref()) {
                        let others = conns.iter().filter(|(other, conn)| {
                            **other != session && conn.shown.as_ref().is_some_and(|other| other.serial() == shown.serial())
                        });
                        let plays = rig.tickets.list(now).iter().find(|facts| facts.serial == shown.serial()).and_then(|facts| facts.session);
                        let taken = others.into_iter().any(|(other, _)| plays == Some(*other));
                        prop_assert_eq!(shown.plays(), !taken);
                        shown.media(now);
                        if !taken {
                            played.insert((shown.serial(), session));
                        }
                    }
                }
                Act::Stop { session } => {
                    if let Some(shown) = conns.get(&session).and_then(|conn| conn.shown.as_ref()) {
                        shown.stops();
                    }
                }
                Act::Leave { session } => drop(conns.remove(&session)),
                Act::GiveBack { ticket } => {
                    if let Some((_, serial)) = keys.get(ticket)
                        && rig.tickets.give_back(now, *serial)
                    {
                        played.retain(|(of, _)| of != serial);
                    }
                }
                Act::Wait { s } => {
                    clock += s;
                    rig.tickets.tick(seconds(start, clock));
                    rig.ports.tick(seconds(start, clock));
                }
            }
            let now = seconds(start, clock);
            let listed = rig.ports.list(now);
            let is = |held: bool, resting: bool| listed.iter().filter(|port| port.held == held && port.resting == resting).count();
            prop_assert_eq!(rig.counts(), (is(false, false), is(false, true), is(true, false)));
            prop_assert_eq!(is(false, false), conns.values().filter(|conn| conn.lease.is_some()).count());
            // A port is held for a ticket that is good, and that knows it.
            let tickets = rig.tickets.list(now);
            for port in listed.iter().filter(|port| port.held) {
                let ticket = tickets.iter().find(|facts| Some(facts.serial) == port.ticket);
                prop_assert_eq!(ticket.and_then(|facts| facts.client_port), Some(port.port));
            }
        }
        // All leave, and all time passes.
        conns.clear();
        let end = seconds(start, clock + 10_000);
        rig.tickets.tick(end);
        rig.ports.tick(end);
        rig.ports.tick(at(end, 6_000));
        prop_assert_eq!(rig.ports.list(end), []);
        prop_assert!(lock(&rig.tickets.table).tickets.is_empty() && lock(&rig.tickets.table).serials.is_empty());
        prop_assert_eq!(rig.counts(), (0, 0, 0));
        prop_assert_eq!(rig.tickets.list(end), []);
    }
}
