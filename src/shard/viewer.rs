//! What a shard knows of each playing viewer: a hot record that every pass reads, and the rest.

use std::mem::size_of;
use std::rc::Rc;

use tokio::net::TcpStream;

use super::pace::Pace;
use super::udp::Route;
use crate::mms::media::{HEAD_LEN, Next, Track};

/// How media reaches a viewer.
#[derive(Debug, Clone)]
pub enum Link {
    /// On the control connection.
    Tcp(Rc<TcpStream>),
    /// To a leased port.
    Udp(Route),
}

impl Link {
    /// The label in logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
        }
    }
}

/// Where a viewer stands with regard to the live edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It begins with the next join point.
    Awaiting,
    /// It fell out of the window: what passes until the next join point is lost to it.
    Skipping,
    /// It is sent the past, at its pace.
    CatchingUp,
    /// It gets what comes when it comes.
    Live,
}

/// What a pass reads and writes of each viewer: one cache line, so that thousands of them stay near the processor.
#[derive(Debug)]
pub struct Hot {
    /// The packet that it gets next, and its numbers.
    pub next: Next,
    /// Packets sent to it.
    pub packets: u64,
    /// The header that it has.
    pub generation: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Its connection is full, or has something to say first; the connection's task tells when that is over.
    pub blocked: bool,
    /// How media reaches it.
    pub link: Link,
}

const _: () = assert!(size_of::<Hot>() <= 64, "a viewer's hot record fills one cache line");

/// The rest: needed when a viewer joins, leaves, falls behind or asks for something again.
#[derive(Debug)]
pub struct Cold {
    /// Key of its connection.
    pub conn: usize,
    /// What its sequence numbers stood for.
    pub track: Track,
    /// Its pace; while [`Phase::CatchingUp`] only.
    pub(super) pace: Option<Pace>,
    /// Packets that it lost by being slow.
    pub skipped: u64,
    /// Its first packet has been noted.
    pub joined: bool,
    /// Bytes of each packet of the header that it has.
    packet_size: usize,
    /// Packets of headers before that one, and their bytes on the wire.
    before: (u64, u64),
}

/// A viewer that has, or had, a seat.
#[derive(Debug)]
pub struct Viewer {
    /// What passes need.
    pub hot: Hot,
    /// The rest.
    pub cold: Cold,
}

impl Viewer {
    /// A viewer that has not been placed.
    pub fn new(conn: usize, link: Link) -> Self {
        let next = Next::default();
        Self {
            hot: Hot { next, packets: 0, generation: 0, phase: Phase::Awaiting, blocked: false, link },
            cold: Cold { conn, track: Track::new(), pace: None, skipped: 0, joined: false, packet_size: 0, before: (0, 0) },
        }
    }

    /// A play begins: packets carry this incarnation, and belong to this header.
    pub fn start(&mut self, incarnation: u8, generation: u32, packet_size: usize) {
        self.cold.before = (self.hot.packets, self.bytes());
        self.cold.packet_size = packet_size;
        self.cold.track.start(&mut self.hot.next, incarnation);
        self.hot.generation = generation;
    }

    /// Bytes sent to it, heads included.
    pub fn bytes(&self) -> u64 {
        let (packets, bytes) = self.cold.before;
        bytes + (self.hot.packets - packets) * (self.cold.packet_size + HEAD_LEN) as u64
    }
}

/// The viewers of one publishing point and shard: flat arrays, so that a pass walks through memory in order.
#[derive(Debug, Default)]
pub struct Seats {
    hot: Vec<Hot>,
    cold: Vec<Cold>,
}

impl Seats {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.hot.len()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty()
    }

    /// Takes the last seat; its index.
    pub fn push(&mut self, viewer: Viewer) -> usize {
        self.hot.push(viewer.hot);
        self.cold.push(viewer.cold);
        self.hot.len() - 1
    }

    /// Frees a seat; the last viewer takes it.
    pub fn swap_remove(&mut self, index: usize) -> Option<Viewer> {
        (index < self.hot.len()).then(|| Viewer { hot: self.hot.swap_remove(index), cold: self.cold.swap_remove(index) })
    }

    /// What passes need of a viewer.
    pub fn hot(&self, index: usize) -> Option<&Hot> {
        self.hot.get(index)
    }

    /// The same, to change it.
    pub fn hot_mut(&mut self, index: usize) -> Option<&mut Hot> {
        self.hot.get_mut(index)
    }

    /// The rest of a viewer.
    pub fn cold(&self, index: usize) -> Option<&Cold> {
        self.cold.get(index)
    }

    /// Both.
    pub fn both_mut(&mut self, index: usize) -> Option<(&mut Hot, &mut Cold)> {
        Some((self.hot.get_mut(index)?, self.cold.get_mut(index)?))
    }
}
