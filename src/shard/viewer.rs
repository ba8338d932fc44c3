//! What a shard knows of each playing viewer: a hot record that every pass reads, and the rest.

use std::io::{self, IoSlice};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::broadcast::Tally;
use super::framing::Framing;
use super::image::TCP_PACKETS;
use super::origins::Origins;
use super::pace::Pace;
use super::rtp::in_flow;
use super::udp::{Route, Sent};
use super::variants::Slowness;
use crate::mms::media::{Next, Track};
use crate::rtsp::media::Flow;

/// Times that a full device queue is waited for, a millisecond each, before what it does not take is given up.
const QUEUE_TRIES: u8 = 8;

/// How media reaches a viewer.
#[derive(Debug)]
pub enum Link {
    /// On the control connection.
    Tcp(Wire),
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

/// A connection as passes write to it: past tokio, whose own record of it would be one more line of memory for each viewer.
#[derive(Debug)]
pub struct Wire(RawFd);

impl Wire {
    /// Writes without waiting; the bytes that the system took, which may be fewer than there are, or none.
    ///
    /// # Errors
    /// The connection is gone.
    #[allow(unsafe_code, reason = "a hot record has no room for an owner")]
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: a Wire is made for a viewer only, whose cold record owns the connection, and is private to it.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0) };
        let socket = SockRef::from(&fd);
        loop {
            let written = match parts {
                [single] => socket.send(single),
                several => socket.send_vectored(several),
            };
            return match written {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                result => result,
            };
        }
    }
}

/// What had no room for datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The queue of the device towards the viewer.
    Path,
    /// The socket that many share.
    Socket,
}

/// Packets of this size that one call to a viewer takes; with a stride of 0 sizes differ, and there may be more than one call.
pub(super) fn most_packets(link: &Link, origins: &Origins, stride: usize) -> u32 {
    match link {
        Link::Udp(route) if stride > 0 => {
            origins.port(route.origin).map_or(1, |port| u32::try_from(port.segments(stride)).unwrap_or(1))
        }
        _ => u32::try_from(TCP_PACKETS).unwrap_or(u32::MAX),
    }
}

/// Datagrams that one call is to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// How many.
    pub(super) datagrams: usize,
    /// Bytes of each, but the last one may be shorter.
    pub(super) len: usize,
    /// Bytes of all.
    pub(super) bytes: usize,
}

/// Notes what became of a call that was to send these datagrams. How many of them are done with, and what was full, if
/// something was.
pub(super) fn account(route: &mut Route, refusals: &mut u8, sent: &Sent, run: Run, tally: &mut Tally) -> (usize, Option<Full>) {
    route.segmented &= !sent.unsegmentable;
    route.fragmented |= sent.too_big;
    tally.udp_calls += u64::from(sent.calls);
    tally.udp_failed += u64::from(sent.failed);
    tally.icmp_pending |= sent.errors_pending;
    let Run { datagrams, len, bytes } = run;
    let done = if sent.bytes == bytes { datagrams } else { sent.bytes / len };
    let gone = (done as u64).saturating_sub(sent.failed.into());
    tally.udp_packets += gone;
    tally.udp_bytes += (gone * len as u64).min(bytes as u64);
    if sent.queue_full && *refusals < QUEUE_TRIES {
        *refusals += 1;
        return (done, Some(Full::Path));
    }
    *refusals = 0;
    if sent.queue_full {
        // It may be full for long: the datagrams are lost, as on any link that is too narrow, and nobody else waits.
        tally.udp_failed += (datagrams - done) as u64;
        return (datagrams, None);
    }
    (done, sent.blocked.then_some(Full::Socket))
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
#[repr(align(64))]
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
    /// Times in a row that the device's queue towards it was full.
    pub refusals: u8,
    /// How its packets are framed.
    pub(super) framing: Framing,
    /// How media reaches it.
    pub(super) link: Link,
}

const _: () = assert!(size_of::<Hot>() <= 64, "a viewer's hot record fills one cache line");

/// The rest: needed when a viewer joins, leaves, falls behind or asks for something again.
#[derive(Debug)]
pub struct Cold {
    /// Key of its connection.
    pub conn: usize,
    /// The owner of the wire, where there is one.
    stream: Option<Rc<TcpStream>>,
    /// What its sequence numbers stood for.
    pub track: Track,
    /// Its pace until it reaches the live edge.
    pub(super) pace: Option<Pace>,
    /// Packets that it lost by being slow.
    pub skipped: u64,
    /// How well it keeps up.
    pub(super) slowness: Slowness,
    /// The channel that it goes over to with the next key frame there.
    pub(super) wanted: Option<usize>,
    /// Its first packet has been noted.
    pub joined: bool,
    /// Bytes on the wire of each packet of the header that it has.
    stride: usize,
    /// Packets of headers before that one, and their bytes on the wire.
    before: (u64, u64),
    /// Bytes of packets in RTP, which have no stride.
    rtp_bytes: u64,
    /// Its flow in RTP, where that is its own: packets of a broadcast are in the flow of their header.
    pub(super) flow: Flow,
    /// It began without knowing with which packet: it is told before it gets the first one.
    pub(super) uncued: bool,
}

/// A viewer that has, or had, a seat.
#[derive(Debug)]
pub struct Viewer {
    /// What passes need.
    pub(super) hot: Hot,
    /// The rest.
    pub(super) cold: Cold,
}

impl Viewer {
    /// A viewer of the connection with this key, which has not been placed: with a route it is sent datagrams.
    pub fn over_udp(conn: usize, route: Route) -> Self {
        Self::new(conn, Link::Udp(route), None)
    }

    /// A viewer whose media goes over its connection.
    pub fn over_tcp(conn: usize, stream: Rc<TcpStream>) -> Self {
        Self::new(conn, Link::Tcp(Wire(stream.as_raw_fd())), Some(stream))
    }

    fn new(conn: usize, link: Link, stream: Option<Rc<TcpStream>>) -> Self {
        let (next, track) = (Next::default(), Track::new());
        Self {
            hot: Hot {
                next,
                packets: 0,
                generation: 0,
                phase: Phase::Awaiting,
                blocked: false,
                refusals: 0,
                framing: Framing::Mms,
                link,
            },
            cold: Cold {
                conn,
                stream,
                track,
                pace: None,
                skipped: 0,
                slowness: Slowness::default(),
                wanted: None,
                joined: false,
                stride: 0,
                before: (0, 0),
                rtp_bytes: 0,
                flow: Flow::default(),
                uncued: false,
            },
        }
    }

    /// Puts it at the live edge with this sequence number, without a join.
    pub fn live(&mut self, sequence: u32) {
        (self.hot.next.sequence, self.hot.phase) = (sequence, Phase::Live);
    }

    /// The same viewer with its packets framed like this; before it starts.
    pub const fn framed(mut self, framing: Framing) -> Self {
        self.hot.framing = framing;
        self
    }

    /// Takes the way of media, and nothing else, from another viewer.
    pub(super) fn goes_like(&mut self, other: Self) {
        (self.hot.link, self.hot.framing) = (other.hot.link, other.hot.framing);
        (self.cold.stream, self.cold.flow) = (other.cold.stream, other.cold.flow);
    }

    /// A play begins: packets carry this incarnation, and belong to this header.
    pub fn start(&mut self, incarnation: u8, generation: u32, packet_size: usize) {
        self.cold.before = (self.hot.packets, self.bytes() - self.cold.rtp_bytes);
        self.cold.stride = self.hot.framing.stride(packet_size);
        self.cold.track.start(&mut self.hot.next, incarnation);
        self.hot.generation = generation;
    }

    /// Bytes sent to it, heads included.
    pub fn bytes(&self) -> u64 {
        self.cold.bytes(&self.hot)
    }

    /// Counts what it was sent in RTP.
    pub(super) const fn sent_in_rtp(&mut self, bytes: u64) {
        self.cold.rtp_bytes += bytes;
    }
}

impl Hot {
    /// Whether its packets go in RTP.
    pub(super) const fn is_in_rtp(&self) -> bool {
        matches!(self.framing, Framing::Rtp(_))
    }

    /// Goes on with a packet of the window further on. In RTP what lies between leaves a gap in the numbers: with those of all
    /// others, the very datagrams can be shared on.
    pub(super) fn skip_to(&mut self, track: &mut Track, packet: u64) {
        let skipped = packet.wrapping_sub(self.next.packet);
        track.jump(&mut self.next, packet);
        if self.is_in_rtp() {
            self.next.sequence = self.next.sequence.wrapping_add(in_flow(skipped));
        }
    }
}

impl Cold {
    /// Bytes sent to this viewer, heads included, but for those in RTP at its present seat.
    fn bytes(&self, hot: &Hot) -> u64 {
        let (packets, bytes) = self.before;
        bytes + (hot.packets - packets) * self.stride as u64 + self.rtp_bytes
    }

    /// The connection took less than there was: its task is to wait until it can take more.
    pub(super) fn expect_room(&self) {
        // Tokio does not know of what was written past it.
        let full = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        if let Some(stream) = &self.stream {
            let _ = stream.try_io(Interest::WRITABLE, full);
        }
    }
}

/// The viewers of one publishing point and shard: flat arrays, so that a pass walks through memory in order.
#[derive(Debug, Default)]
pub struct Seats {
    hot: Vec<Hot>,
    cold: Vec<Cold>,
    /// Bytes that each was sent in RTP at this seat: beside the rest of what is seldom needed, each pass would fetch that.
    rtp_bytes: Vec<u64>,
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
        self.rtp_bytes.push(0);
        self.hot.len() - 1
    }

    /// Frees a seat; the last viewer takes it.
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<Viewer> {
        (index < self.hot.len()).then(|| {
            let mut viewer = Viewer { hot: self.hot.swap_remove(index), cold: self.cold.swap_remove(index) };
            viewer.sent_in_rtp(self.rtp_bytes.swap_remove(index));
            viewer
        })
    }

    /// Counts what a viewer was sent in RTP.
    pub(super) fn sent_in_rtp(&mut self, index: usize, bytes: usize) {
        if let Some(sent) = self.rtp_bytes.get_mut(index) {
            *sent += bytes as u64;
        }
    }

    /// Packets and bytes that a viewer was sent, and packets that it lost by being slow.
    pub(super) fn sent(&self, index: usize) -> Option<(u64, u64, u64)> {
        let (hot, cold) = (self.hot.get(index)?, self.cold.get(index)?);
        let in_rtp = self.rtp_bytes.get(index).copied().unwrap_or_default();
        Some((hot.packets, cold.bytes(hot) + in_rtp, cold.skipped))
    }

    /// What passes need of a viewer.
    pub(super) fn hot(&self, index: usize) -> Option<&Hot> {
        self.hot.get(index)
    }

    /// The same, to change it.
    pub(super) fn hot_mut(&mut self, index: usize) -> Option<&mut Hot> {
        self.hot.get_mut(index)
    }

    /// The rest of a viewer.
    pub(super) fn cold(&self, index: usize) -> Option<&Cold> {
        self.cold.get(index)
    }

    /// The same, to change it.
    pub(super) fn cold_mut(&mut self, index: usize) -> Option<&mut Cold> {
        self.cold.get_mut(index)
    }

    /// Both.
    pub(super) fn both_mut(&mut self, index: usize) -> Option<(&mut Hot, &mut Cold)> {
        Some((self.hot.get_mut(index)?, self.cold.get_mut(index)?))
    }
}
