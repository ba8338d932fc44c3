use super::*;
use crate::relay::testing::{at, base};
use crate::settings::{PortRanges, Settings};
use proptest::prelude::*;

fn pool(ranges: &[RangeInclusive<u16>], change: impl FnOnce(&mut Udp)) -> ClientPortPool {
    let mut udp = Settings::default().udp;
    udp.client_ports = PortRanges(ranges.to_vec());
    change(&mut udp);
    ClientPortPool::new(&udp)
}

fn ten() -> ClientPortPool {
    pool(&[1024..=1033], |_| ())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A claim of an anonymous player at 192.0.2.1.
fn claim(port: u16, owner: u64) -> Claim {
    Claim { address: ip("192.0.2.1"), port, announced: None, player: None, owner, ticket: TicketShown::NotYet }
}

fn named(port: u16, owner: u64, player: &str, announced: &str) -> Claim {
    Claim { announced: Some(ip(announced)), player: Some(player.into()), ..claim(port, owner) }
}

#[test]
fn an_announced_port_belongs_to_one_session_of_its_address() {
    let (now, pool) = (base(), ten());
    let lease = pool.claim(now, claim(1030, 1)).unwrap();
    assert_eq!((lease.port(), lease.superseded()), (1030, None));
    assert_eq!(pool.claim(now, claim(1030, 2)).unwrap_err(), LeaseRefusal::Taken);
    let mapped = Claim { address: ip("::ffff:192.0.2.1"), ..claim(1030, 2) };
    assert_eq!(pool.claim(now, mapped).unwrap_err(), LeaseRefusal::Taken);
    let _elsewhere = pool.claim(now, Claim { address: ip("192.0.2.2"), ..claim(1030, 2) }).unwrap();
    let neighbours = ["2001:db8::1", "2001:db8::2"].map(|host| Claim { address: ip(host), ..claim(1030, 2) });
    let _leases = neighbours.map(|claim| pool.claim(now, claim).unwrap());
    assert_eq!(pool.counts(), PortCounts { leased: 4, resting: 0, held: 0 });
}

#[test]
fn ports_outside_are_refused_or_allowed_from_1024_on() {
    let (now, pool) = (base(), pool(&[1000..=1030, 7000..=7000], |_| ()));
    for (port, refusal) in [
        (0, LeaseRefusal::Privileged),
        (1000, LeaseRefusal::Privileged),
        (1023, LeaseRefusal::Privileged),
        (1031, LeaseRefusal::OutsidePool),
        (65535, LeaseRefusal::OutsidePool),
    ] {
        assert_eq!(pool.claim(now, claim(port, 1)).unwrap_err(), refusal, "{port}");
    }
    let _leases = [1024, 1030, 7000].map(|port| pool.claim(now, claim(port, u64::from(port))).unwrap());
    assert_eq!(pool.claim_lowest(now, ip("192.0.2.1"), 9).unwrap().port(), 1025);
}

#[test]
fn ports_outside_by_setting() {
    let (now, pool) = (base(), pool(&[1024..=1033], |udp| udp.outside_pool = OutsidePool::Allow));
    let outside = pool.claim(now, claim(40000, 1)).unwrap();
    assert_eq!(pool.claim(now, claim(40000, 2)).unwrap_err(), LeaseRefusal::Taken);
    assert_eq!(pool.claim(now, claim(1023, 2)).unwrap_err(), LeaseRefusal::Privileged);
    let inside: Vec<_> = (2..12).map(|owner| pool.claim_lowest(now, ip("192.0.2.1"), owner).unwrap()).collect();
    assert_eq!(pool.claim(now, claim(40000, 99)).unwrap_err(), LeaseRefusal::Taken, "outside, no port is exhausted");
    drop((outside, inside));
    assert_eq!(pool.counts(), PortCounts { leased: 0, resting: 11, held: 0 });
}

#[test]
fn the_lowest_free_port_first_until_none_is_left() {
    let (now, pool, address) = (base(), ten(), ip("192.0.2.1"));
    let announced = pool.claim(now, claim(1026, 100)).unwrap();
    let mut leases: Vec<_> = (0..9).map(|owner| pool.claim_lowest(now, address, owner).unwrap()).collect();
    assert_eq!(leases.iter().map(Lease::port).collect::<Vec<_>>(), [1024, 1025, 1027, 1028, 1029, 1030, 1031, 1032, 1033]);
    assert_eq!(pool.claim_lowest(now, address, 50).unwrap_err(), LeaseRefusal::Exhausted);
    assert_eq!(pool.claim(now, claim(1024, 50)).unwrap_err(), LeaseRefusal::Exhausted);
    assert_eq!(pool.claim_lowest(now, ip("192.0.2.2"), 50).unwrap().port(), 1024, "another address, another pool");
    leases.remove(4);
    drop(announced);
    let later = at(now, 5000);
    assert_eq!(pool.claim_lowest(later, address, 51).unwrap().port(), 1026);
    assert_eq!(pool.claim_lowest(later, address, 52).unwrap().port(), 1029);
}

#[test]
fn a_freed_port_rests_for_others() {
    let (now, pool, address) = (base(), ten(), ip("192.0.2.1"));
    drop(pool.claim_lowest(now, address, 1).unwrap());
    assert_eq!(pool.claim(at(now, 4999), claim(1024, 2)).unwrap_err(), LeaseRefusal::Taken);
    assert_eq!(pool.claim_lowest(at(now, 4999), address, 2).unwrap().port(), 1025);
    let own = pool.claim_lowest(at(now, 4999), address, 1).unwrap();
    assert_eq!(own.port(), 1024, "not for its owner");
    drop(own);
    assert_eq!(
        pool.claim(at(now, 5000), claim(1024, 2)).unwrap_err(),
        LeaseRefusal::Taken,
        "the first rest is over, the second is not"
    );
    assert_eq!(pool.claim(at(now, 9999), claim(1024, 2)).unwrap().port(), 1024);
}

#[test]
fn a_rest_is_no_rest_for_the_same_player() {
    let (now, pool) = (base(), ten());
    drop(pool.claim(now, named(1024, 1, "{A}", "10.0.0.1")).unwrap());
    assert_eq!(pool.claim(now, named(1024, 2, "{A}", "10.0.0.2")).unwrap_err(), LeaseRefusal::Taken);
    assert_eq!(pool.claim(now, named(1024, 2, "{B}", "10.0.0.1")).unwrap_err(), LeaseRefusal::Taken);
    let lease = pool.claim(now, named(1024, 2, "{A}", "10.0.0.1")).unwrap();
    assert_eq!(lease.superseded(), None, "nobody had it any more");
}

#[test]
fn the_same_player_takes_its_port_over() {
    let (now, pool) = (base(), ten());
    let dead = pool.claim(now, named(1024, 1, "{A}", "10.0.0.1")).unwrap();
    for other in [named(1024, 2, "{A}", "10.0.0.2"), named(1024, 2, "{B}", "10.0.0.1"), claim(1024, 2)] {
        assert_eq!(pool.claim(now, other).unwrap_err(), LeaseRefusal::Taken);
    }
    let lease = pool.claim(now, named(1024, 2, "{A}", "::ffff:10.0.0.1")).unwrap();
    assert_eq!(lease.superseded(), Some(1));
    drop(dead);
    assert_eq!(pool.counts(), PortCounts { leased: 1, resting: 0, held: 0 }, "the loser frees nothing");
    assert_eq!(pool.claim(now, claim(1024, 3)).unwrap_err(), LeaseRefusal::Taken);
    drop(lease);
    assert_eq!(pool.counts(), PortCounts { leased: 0, resting: 1, held: 0 });
}

#[test]
fn players_without_guid_or_address_are_strangers() {
    let (now, pool) = (base(), ten());
    let nameless = |owner| Claim { announced: Some(ip("10.0.0.1")), ..claim(1024, owner) };
    let addressless = |owner| Claim { player: Some("{A}".into()), ..claim(1025, owner) };
    let _leases = [nameless(1), addressless(2)].map(|claim| pool.claim(now, claim).unwrap());
    assert_eq!(pool.claim(now, nameless(3)).unwrap_err(), LeaseRefusal::Taken);
    assert_eq!(pool.claim(now, addressless(3)).unwrap_err(), LeaseRefusal::Taken);
}

#[test]
fn a_session_that_claims_again_supersedes_nobody() {
    let (now, pool) = (base(), ten());
    let first = pool.claim(now, claim(1024, 1)).unwrap();
    let again = pool.claim(now, claim(1024, 1)).unwrap();
    assert_eq!(again.superseded(), None);
    drop(first);
    assert_eq!(pool.counts(), PortCounts { leased: 1, resting: 0, held: 0 });
}

#[test]
fn settings_refuse_udp_or_a_nat() {
    let now = base();
    let off = pool(&[1024..=1033], |udp| udp.enabled = false);
    assert_eq!(off.claim(now, claim(1024, 1)).unwrap_err(), LeaseRefusal::Disabled);
    assert_eq!(off.claim_lowest(now, ip("192.0.2.1"), 1).unwrap_err(), LeaseRefusal::Disabled);
    let nat = pool(&[1024..=1033], |udp| udp.refuse_on_nat_mismatch = true);
    assert_eq!(nat.claim(now, named(1024, 1, "{A}", "10.0.0.1")).unwrap_err(), LeaseRefusal::NatMismatch);
    nat.claim(now, named(1024, 1, "{A}", "::ffff:192.0.2.1")).unwrap();
    assert_eq!(ten().claim(now, named(1024, 1, "{A}", "10.0.0.1")).unwrap().port(), 1024, "by default a NAT is no reason");
}

#[test]
fn nothing_is_kept_of_addresses_that_left() {
    let (now, pool) = (base(), ten());
    for host in 0..1000_u32 {
        drop(pool.claim(now, Claim { address: IpAddr::from(host.to_be_bytes()), ..claim(1024, 1) }).unwrap());
        assert!(pool.claim(now, Claim { address: IpAddr::from(host.to_be_bytes()), ..claim(80, 1) }).is_err());
    }
    pool.tick(at(now, 4999));
    assert_eq!(pool.counts(), PortCounts { leased: 0, resting: 1000, held: 0 });
    pool.tick(at(now, 5000));
    assert_eq!(pool.counts(), PortCounts::default());
    let state = pool.shared.lock();
    assert!(state.hosts.is_empty() && state.rests.is_empty());
}

/// GUID and announced address of a player, as small numbers.
type Player = Option<(u8, u8)>;

/// The rules written down as plainly as can be: a list of ports with who had them last.
#[derive(Default)]
struct Model {
    ports: Vec<ModelPort>,
}

struct ModelPort {
    address: IpAddr,
    port: u16,
    /// The end of its rest.
    until: Option<Instant>,
    owner: u64,
    player: Player,
}

impl Model {
    fn forget(&mut self, now: Instant) {
        self.ports.retain(|slot| slot.until.is_none_or(|until| until > now));
    }

    fn find(&mut self, address: IpAddr, port: u16) -> Option<&mut ModelPort> {
        self.ports.iter_mut().find(|slot| slot.address == address && slot.port == port)
    }

    /// Whether the port is free for this owner and player, or theirs already.
    fn open(&mut self, address: IpAddr, port: u16, owner: u64, player: Player) -> bool {
        self.find(address, port).is_none_or(|slot| slot.owner == owner || (player.is_some() && slot.player == player))
    }

    fn take(&mut self, address: IpAddr, port: u16, owner: u64, player: Player) {
        self.ports.retain(|slot| (slot.address, slot.port) != (address, port));
        self.ports.push(ModelPort { address, port, until: None, owner, player });
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim { host: u8, port: u16, player: u8, announced: u8, owner: u64 },
    Lowest { host: u8, owner: u64 },
    Drop(prop::sample::Index),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = (0..3_u8, 1020..1036_u16, 0..3_u8, 0..3_u8, 0..12_u64);
    let step = prop_oneof![
        4 => claim.prop_map(|(host, port, player, announced, owner)| Step::Claim { host, port, player, announced, owner }),
        4 => (0..3_u8, 0..40_u64).prop_map(|(host, owner)| Step::Lowest { host, owner }),
        4 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => (0..3000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn any_history_follows_the_rules(steps in steps(), allow in any::<bool>()) {
        let pool = pool(&[1024..=1027, 1030..=1031], |udp| if allow { udp.outside_pool = OutsidePool::Allow });
        let in_pool = [1024, 1025, 1026, 1027, 1030, 1031];
        let (mut now, mut model, mut leases) = (base(), Model::default(), Vec::<(Lease, IpAddr, u64)>::new());
        for step in steps {
            match step {
                Step::Claim { host, port, player, announced, owner } => {
                    let address = IpAddr::from([192, 0, 2, host]);
                    let guid = (player > 0).then(|| format!("{{{player}}}"));
                    let ip = (announced > 0).then(|| IpAddr::from([10, 0, 0, announced]));
                    let identity = (player > 0 && announced > 0).then_some((player, announced));
                    model.forget(now);
                    let may = port >= 1024 && (allow || in_pool.contains(&port)) && model.open(address, port, owner, identity);
                    let result = pool.claim(now, Claim { address, port, announced: ip, player: guid, owner, ticket: TicketShown::NotYet });
                    prop_assert_eq!(result.is_ok(), may, "{:?}", result);
                    if let Ok(lease) = result {
                        let loser = model.find(address, port).filter(|slot| slot.until.is_none() && slot.owner != owner).map(|slot| slot.owner);
                        prop_assert_eq!((lease.port(), lease.superseded()), (port, loser));
                        model.take(address, port, owner, identity);
                        leases.push((lease, address, owner));
                    }
                }
                Step::Lowest { host, owner } => {
                    let address = IpAddr::from([192, 0, 2, host]);
                    model.forget(now);
                    let free = |port: &u16| model.find(address, *port).is_none_or(|slot| slot.until.is_some() && slot.owner == owner);
                    let expected = in_pool.into_iter().find(free).ok_or(LeaseRefusal::Exhausted);
                    let result = pool.claim_lowest(now, address, owner);
                    prop_assert_eq!(result.as_ref().map(Lease::port).map_err(|refusal| *refusal), expected);
                    if let Ok(lease) = result {
                        prop_assert_eq!(lease.superseded(), None);
                        model.take(address, lease.port(), owner, None);
                        leases.push((lease, address, owner));
                    }
                }
                Step::Drop(index) if !leases.is_empty() => {
                    let (lease, address, owner) = leases.swap_remove(index.index(leases.len()));
                    // The newest lease of a port is the one that counts; equal owners are told apart by their order.
                    let newest = lease.epoch == pool.shared.lock().hosts.get(&address).and_then(|host| host.slots.get(&lease.port())).map_or(0, |slot| slot.epoch);
                    if newest {
                        let slot = model.find(address, lease.port()).unwrap();
                        prop_assert_eq!((slot.until, slot.owner), (None, owner));
                        slot.until = Some(now + REST);
                    }
                    drop(lease);
                }
                Step::Drop(_) => {}
                Step::Wait(ms) => {
                    now = at(now, ms);
                    pool.tick(now);
                }
            }
            model.forget(now);
            let leased = model.ports.iter().filter(|slot| slot.until.is_none()).count();
            prop_assert_eq!(pool.counts(), PortCounts { leased, resting: model.ports.len() - leased, held: 0 });
        }
        drop(leases);
        pool.tick(now + REST);
        prop_assert_eq!(pool.counts(), PortCounts::default());
        let state = pool.shared.lock();
        prop_assert!(state.hosts.is_empty() && state.rests.is_empty());
    }
}
