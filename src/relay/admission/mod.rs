//! Who comes in: access rules, limits, and leases of client ports.

mod address;
mod guesses;
mod learned;
mod limits;
mod ports;
mod rate;
mod rejecting;
mod slots;
mod tickets;

use std::net::IpAddr;
use std::time::Instant;

pub use address::{canonical, limit_key};
pub use guesses::Guesses;
pub use learned::{Learned, LearnedFacts, PlayerMark, Sign};
pub use limits::{Account, Refusal, SessionPermit};
pub use ports::{Claim, ClientPortPool, Hold, Lease, LeaseRefusal, PortCounts, PortFacts, TicketShown};
pub use rate::TokenBucket;
pub use slots::{Slot, Slots};
pub use tickets::{Order, OrderRefusal, PortWish, TICKET_LEN, TicketFacts, TicketRefusal, TicketUse, Tickets, Who};

use crate::settings::Settings;

/// Decides about every viewer, for all shards.
#[derive(Debug)]
pub struct Admission {
    gate: limits::Gate,
    ports: ClientPortPool,
    tickets: Tickets,
    learned: Learned,
}

impl Admission {
    /// Nobody is there yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            gate: limits::Gate::new(&settings.limits, &settings.access),
            ports: ClientPortPool::new(&settings.udp),
            tickets: Tickets::new(settings.control.hold),
            learned: Learned::new(settings.udp.remember),
        }
    }

    /// Other access rules and limits hold for who comes from now on; who is there stays.
    pub fn apply(&self, settings: &Settings) {
        self.gate.apply(&settings.limits, &settings.access);
    }

    /// A place for a new session of `peer`, by the access rules and the limits on sessions.
    ///
    /// # Errors
    /// [`Refusal::Access`], [`Refusal::Viewers`], [`Refusal::Address`] or [`Refusal::Joins`].
    pub fn connect(&self, now: Instant, peer: IpAddr) -> Result<SessionPermit, Refusal> {
        self.gate.connect(now, peer)
    }

    /// A place at a publishing point for a session that will draw `bit_rate` bit/s; the one it had open before,
    /// if any, is given back. A session that is refused keeps what it had.
    ///
    /// # Errors
    /// [`Refusal::Point`] or [`Refusal::Bandwidth`].
    pub fn open(&self, permit: &mut SessionPermit, account: Account, bit_rate: u32) -> Result<(), Refusal> {
        self.gate.open(permit, account, bit_rate)
    }

    /// Whether the access rules let an address publish.
    pub fn may_publish(&self, peer: IpAddr) -> bool {
        self.gate.may_publish(peer)
    }

    /// Whether the access rules let an address watch.
    pub fn may_watch(&self, peer: IpAddr) -> bool {
        self.gate.may_watch(peer)
    }

    /// Sessions that have a place now.
    pub fn viewers(&self) -> u32 {
        self.gate.viewers()
    }

    /// Sum of the bit rates of all open sessions, bit/s.
    pub fn bit_rate(&self) -> u64 {
        self.gate.bit_rate()
    }

    /// The client ports that UDP funnels lease.
    pub fn ports(&self) -> &ClientPortPool {
        &self.ports
    }

    /// What opens a name, and holds a port, for one address.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Addresses at which UDP does not arrive.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Lets time pass: ports end their rest, and tickets end.
    pub fn tick(&self, now: Instant) {
        self.ports.tick(now);
        self.tickets.tick(now);
        self.learned.tick(now);
    }
}
