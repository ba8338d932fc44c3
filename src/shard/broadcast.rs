//! One publishing point as one shard serves it: the window, the framed images, the viewers.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::edge::{Edge, Slice};
pub use super::framing::Framing;
pub use super::image::Image;
use super::image::Plan;
use super::lag::Lag;
use super::origins::Origins;
use super::out_queue::Partial;
use super::pace::Pace;
use super::rtp::{self, in_flow};
use super::variants::Variant;
pub use super::viewer::{Cold, Hot, Link, Phase, Seats, Viewer};
use super::viewer::{Full, Run, account, most_packets};
use crate::asf::StreamSet;
use crate::mms::media::Next;
use crate::relay::{Batch, BatchPacket, Generation, Window};
use crate::rtsp::media::{Carriage, MAX_DATAGRAM, Stretch, fragments};
use crate::rtsp::startup::StartupProfile;
use crate::settings::WindowBounds;
use crate::viewing::{Cue, HeadStart};

/// Batches whose delay is measured one by one; more wait only while a socket is full.
const MOST_UNSENT: usize = 1000;
/// A picture comes from its encoder in several reads. What is not there when its first part goes out would wait for a whole tick.
const REST_OF_PICTURE: Duration = Duration::from_millis(2);
/// As many bytes fill one segmented send: there is no use in gathering more.
const FULL_BYTES: usize = 60_000;

/// What came of serving one viewer.
#[derive(Debug, PartialEq, Eq)]
pub enum Served {
    /// It has all that is due for now.
    Live,
    /// It catches up; more is due with the next tick.
    CatchingUp,
    /// Its TCP buffer is full; the rest of a packet that was cut goes first when it is not.
    TcpBlocked(Option<Partial>),
    /// The UDP socket's buffer is full.
    UdpBlocked,
    /// The queue of the device towards it is full.
    PathBlocked,
    /// It now knows with which packet it begins, and is to be told before it gets that.
    Cued,
    /// The next packet belongs to another header.
    NewGeneration,
    /// It fell out of the window for the second time in a row.
    TooSlow,
    /// The source has ended and the viewer has everything.
    Finished,
}

/// What a pass sent; handed to the metrics once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Packets over TCP.
    pub tcp_packets: u64,
    /// Bytes over TCP.
    pub tcp_bytes: u64,
    /// Writes.
    pub tcp_calls: u64,
    /// Datagrams.
    pub udp_packets: u64,
    /// Bytes over UDP.
    pub udp_bytes: u64,
    /// Sends.
    pub udp_calls: u64,
    /// Datagrams that the system refused.
    pub udp_failed: u64,
    /// Packets that slow viewers lost.
    pub skipped: u64,
    /// Packets of files that went too late.
    pub late: u64,
    /// Times that a packet of a file was due and was not in memory.
    pub late_reads: u64,
    /// ICMP errors wait in the error queue.
    pub icmp_pending: bool,
}

/// One publishing point as one shard serves it.
#[derive(Debug)]
pub struct Broadcast {
    /// The last seconds, with their images.
    pub(super) window: Window<Image>,
    /// The playing viewers of this shard.
    pub viewers: Seats,
    /// The newest header.
    pub generation: Option<Arc<Generation>>,
    /// Connections that opened it before there was a header.
    pub(super) waiting: Vec<(usize, Instant)>,
    /// The source has ended: who has everything gets the end of the stream.
    pub(super) ended: bool,
    /// When those at the live edge are to get what they do not have yet.
    pub(super) due: Option<Instant>,
    /// The last pass over those at the live edge was cut short and is to go on; it was due then.
    pub(super) unfinished: Option<Instant>,
    /// How late such passes are.
    pub(super) lag: Lag,
    /// When the last pass over those at the live edge was due.
    last_pass: Option<Instant>,
    /// Bytes that came since that pass.
    gathered_bytes: usize,
    /// Some viewer catches up: the next catch-up tick has work.
    pub(super) catching_up: bool,
    /// When batches of which nothing was sent yet came, and their packets.
    pub(super) unsent: Vec<(Instant, u64)>,
    /// What it is cut from, where it is a variant.
    pub(super) variant: Option<Box<Variant>>,
    /// The channels that are cut from it.
    pub(super) variants: Vec<usize>,
    /// Keys of viewers of other channels that go over to this one with the next key frame.
    pub(super) wanted_by: Vec<usize>,
    /// It was a variant, and its place may be taken by another.
    pub(super) is_free: bool,
    /// Numbers of the packets that the last pass brought; those at the live edge get nothing beyond before the next one.
    fresh: Range<u64>,
    /// These packets, framed.
    edge: Edge,
    /// Longest RTP packet, bytes.
    max_datagram: usize,
}

impl Broadcast {
    /// A publishing point of which nothing has come yet.
    pub fn new(bounds: &WindowBounds) -> Self {
        Self {
            window: Window::new(bounds),
            viewers: Seats::default(),
            generation: None,
            waiting: Vec::new(),
            ended: false,
            due: None,
            unfinished: None,
            lag: Lag::default(),
            last_pass: None,
            gathered_bytes: 0,
            catching_up: false,
            unsent: Vec::new(),
            variant: None,
            variants: Vec::new(),
            wanted_by: Vec::new(),
            is_free: false,
            fresh: 0..0,
            edge: Edge::default(),
            max_datagram: MAX_DATAGRAM,
        }
    }

    /// The same with RTP packets of at most so many bytes.
    pub const fn with_datagrams(mut self, max_datagram: usize) -> Self {
        self.max_datagram = max_datagram;
        self
    }

    /// What a viewer over RTP gets first, or next; `None` while it waits for a packet to begin with.
    pub fn cue(&self, index: usize) -> Option<Cue> {
        let hot = self.viewers.hot(index).filter(|hot| matches!(hot.phase, Phase::CatchingUp | Phase::Live))?;
        let (batch, at) = self.window.packet(hot.next.packet)?;
        let fragments = fragments(batch.generation.packet_size, self.max_datagram);
        Some(Cue {
            sequence: rtp::flow_of(&batch.generation).sequence_of(hot.next.sequence, fragments),
            timestamp: batch.packets.get(at)?.send_time_ms,
            head_start: None,
        })
    }

    /// What a viewer that was just placed is sent faster than it plays, as far as `limit_ms` goes: the window from there on.
    pub(super) fn head_start(&self, index: usize, streams: StreamSet, limit_ms: u32) -> Option<HeadStart> {
        let (hot, cold) = (self.viewers.hot(index)?, self.viewers.cold(index)?);
        cold.pace?;
        let (first, _) = self.window.packet(hot.next.packet)?;
        let generation = Arc::clone(&first.generation);
        let mut profile = StartupProfile::new(streams, generation.video, generation.bit_rate, limit_ms);
        let (begin_ms, mut number, mut end_ms) = (self.send_time(hot.next.packet)?, hot.next.packet, 0);
        while let Some((batch, at)) = self.window.packet(number).filter(|(batch, _)| batch.generation.number == generation.number)
        {
            let (Some(packet), Some(bytes)) = (batch.packets.get(at), batch.packet(at)) else { break };
            if !profile.push(bytes, packet.send_time_ms) {
                break;
            }
            (end_ms, number) = (packet.send_time_ms, number + 1);
        }
        let udp = matches!(hot.link, Link::Udp(_));
        let rate = u32::try_from(Pace::rate(udp)).unwrap_or(1);
        Some(HeadStart { media_ms: end_ms.saturating_sub(begin_ms).min(limit_ms), rate, profile: profile.header() })
    }

    /// Takes a batch in. It is due a `tick` after the last pass; almost at once when that is over, at once when a send is full.
    pub fn push(&mut self, now: Instant, tick: Duration, batch: Arc<Batch>) {
        self.ended = false;
        self.gathered_bytes = self.gathered_bytes.saturating_add(batch.bytes.len());
        let full = self.gathered_bytes >= FULL_BYTES;
        let rest = now + REST_OF_PICTURE.min(tick);
        // Without the slack one late picture would shift all later ticks to where it came, and all later pictures would wait for them.
        let at = if full { now } else { self.last_pass.map_or(rest, |last| rest.max(last + tick - tick / 8)) };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        let full = self.unsent.len() >= MOST_UNSENT;
        match self.unsent.last_mut().filter(|_| full) {
            Some((_, packets)) => *packets += batch.packets.len() as u64,
            None => self.unsent.push((batch.due, batch.packets.len() as u64)),
        }
        self.window.push(batch);
    }

    /// What is in the window is not for those at the live edge: they have had it elsewhere.
    pub(super) fn nothing_is_fresh(&mut self) {
        self.fresh = self.window.end()..self.window.end();
    }

    /// The number in the source of a packet, or of what comes behind the last one.
    pub(super) fn source_number(&self, packet: u64) -> u64 {
        let number = |packet: u64| {
            self.window.packet(packet).and_then(|(batch, index)| batch.packets.get(index)).map(|found| found.number)
        };
        let past_last = || self.window.end().checked_sub(1).and_then(number).map(|last| last + 1);
        number(packet).or_else(past_last).unwrap_or(packet)
    }

    /// Sends a viewer at the live edge what comes before a packet of this number in the source. [`Served::Live`] where it has all
    /// of that, [`Served::CatchingUp`] where it is not at the live edge.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn serve_before(&mut self, index: usize, source: u64, origins: &Origins, tally: &mut Tally) -> io::Result<Served> {
        loop {
            let Some(hot) = self.viewers.hot(index) else { return Ok(Served::CatchingUp) };
            let (from, generation) = (hot.next.packet, hot.generation);
            if hot.phase != Phase::Live || hot.blocked || from < self.window.begin() {
                return Ok(Served::CatchingUp);
            }
            if from >= self.window.end() || self.source_number(from) >= source {
                return Ok(Served::Live);
            }
            let most = |stride| most_packets(&hot.link, origins, stride);
            let framing = hot.framing;
            let plan = Plan::new(&mut self.window, from, generation, (framing, self.max_datagram), most, |packet| {
                packet.number < source
            });
            let Some(plan) = plan.filter(|plan| plan.packets > 0) else { return Ok(Served::CatchingUp) };
            if let Some(blocked) = self.send(index, &Load::Batches(plan), origins, tally)? {
                return Ok(blocked);
            }
        }
    }

    /// The source has ended; who has everything is told at once.
    pub(super) fn end(&mut self, now: Instant) {
        self.generation = None;
        self.ended = true;
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// When the next pass over those at the live edge is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.unfinished.or(self.due)
    }

    /// Begins a pass over those at the live edge, if it is time; when it was due.
    ///
    /// One that was cut short goes on first: what came since then waits, so that nobody is left behind.
    pub fn begin_pass(&mut self, now: Instant, tick: Duration) -> Option<Instant> {
        if let Some(due) = self.unfinished.take() {
            return Some(due);
        }
        let due = self.due.filter(|due| *due <= now)?;
        self.due = None;
        self.gathered_bytes = 0;
        self.fresh = self.fresh.end.max(self.window.begin())..self.window.end();
        self.edge.clear();
        // Ticks are counted from when they were due, so that none is lost to a wake-up that comes late; but not from long ago.
        self.last_pass = Some(if now.saturating_duration_since(due) < tick { due } else { now });
        Some(due)
    }

    /// Puts a viewer where a join begins: at the newest key frame, else at the next one.
    pub fn place(&self, viewer: &mut Viewer, now: Instant) {
        let Viewer { hot, cold } = viewer;
        // Between a new header and its first packets the window's key frames belong to a header that the viewer no longer has.
        let own = |number: &u64| self.window.packet(*number).is_some_and(|(batch, _)| batch.generation.number == hot.generation);
        let join = self.window.join_point().filter(own);
        cold.track.jump(&mut hot.next, join.unwrap_or_else(|| self.window.end()));
        let udp = matches!(hot.link, Link::Udp(_));
        cold.pace = join.and_then(|join| self.send_time(join)).map(|send_time_ms| Pace::new(now, send_time_ms, udp));
        hot.phase = if cold.pace.is_some() { Phase::CatchingUp } else { Phase::Awaiting };
        hot.blocked = false;
        if hot.is_in_rtp() {
            hot.next.sequence = in_flow(hot.next.packet);
            cold.uncued = hot.phase == Phase::Awaiting;
        }
    }

    fn send_time(&self, number: u64) -> Option<u32> {
        let (batch, index) = self.window.packet(number)?;
        batch.packets.get(index).map(|packet| packet.send_time_ms)
    }

    /// Sends one viewer what is due for it.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub fn serve(&mut self, index: usize, now: Instant, origins: &Origins, tally: &mut Tally) -> io::Result<Served> {
        loop {
            let Some(hot) = self.viewers.hot(index) else { return Ok(Served::Live) };
            if hot.phase != Phase::Live || hot.next.packet < self.window.begin() {
                if let Some(served) = self.approach(index, tally) {
                    return Ok(served);
                }
            } else if hot.next.packet >= self.fresh.end {
                let finished = self.ended && hot.next.packet >= self.window.end();
                return Ok(if finished { Served::Finished } else { Served::Live });
            } else if let Some(slice) = self.slice(index, origins) {
                match self.send(index, &Load::Edge(slice), origins, tally)? {
                    Some(blocked) => return Ok(blocked),
                    None => continue,
                }
            }
            let Some(plan) = self.plan(index, now, origins) else { return Ok(Served::Live) };
            if plan.packets == 0 {
                return Ok(if plan.boundary { Served::NewGeneration } else { Served::CatchingUp });
            }
            if let Some(blocked) = self.send(index, &Load::Batches(plan), origins, tally)? {
                return Ok(blocked);
            }
        }
    }

    /// What the next call to a viewer at the live edge carries, where it gets what nearly all get.
    fn slice(&mut self, index: usize, origins: &Origins) -> Option<Slice> {
        let hot = self.viewers.hot(index)?;
        if hot.next.packet < self.fresh.start {
            return None;
        }
        if !self.edge.is_of(self.fresh.start) {
            self.edge.begin(&self.window, self.fresh.start, self.fresh.end);
        }
        let most = |stride| most_packets(&hot.link, origins, stride);
        self.edge.slice(&self.window, hot.next.packet, hot.generation, (hot.framing, self.max_datagram), most)
    }

    /// Brings a viewer that is not at the live edge to its next packet; what came of it where there is none.
    fn approach(&mut self, index: usize, tally: &mut Tally) -> Option<Served> {
        let (hot, cold) = self.viewers.both_mut(index)?;
        if hot.next.packet < self.window.begin() && hot.phase != Phase::Awaiting {
            // Slower than the window is long: on to the next picture that can be decoded.
            let again = hot.phase != Phase::Skipping && cold.slowness.falls();
            hot.phase = Phase::Skipping;
            if again {
                return Some(Served::TooSlow);
            }
        }
        if matches!(hot.phase, Phase::Awaiting | Phase::Skipping) {
            let from = hot.next.packet.max(self.window.begin());
            let join = self.window.next_join_point(from);
            let to = join.unwrap_or_else(|| self.window.end()).max(hot.next.packet);
            if hot.phase == Phase::Skipping {
                cold.skipped += to - hot.next.packet;
                tally.skipped += to - hot.next.packet;
            }
            hot.skip_to(&mut cold.track, to);
            if join.is_some() {
                hot.phase = if cold.pace.is_some() { Phase::CatchingUp } else { Phase::Live };
                if std::mem::take(&mut cold.uncued) {
                    return Some(Served::Cued);
                }
            }
        }
        if hot.next.packet < self.window.end() {
            return None;
        }
        if hot.phase == Phase::CatchingUp {
            hot.phase = Phase::Live;
            cold.pace = None;
        }
        Some(if self.ended { Served::Finished } else { Served::Live })
    }

    /// What the next call to a viewer carries.
    fn plan(&mut self, index: usize, now: Instant, origins: &Origins) -> Option<Plan> {
        let (hot, cold) = self.viewers.both_mut(index)?;
        let (from, generation, framing) = (hot.next.packet, hot.generation, (hot.framing, self.max_datagram));
        let link = &hot.link;
        let most = |stride| most_packets(link, origins, stride);
        if let Some(pace) = cold.pace.as_mut().filter(|_| hot.phase == Phase::CatchingUp) {
            let left = pace.packets(now);
            let due = |packet: &BatchPacket| pace.is_due(now, packet.send_time_ms);
            return Plan::new(&mut self.window, from, generation, framing, |stride| most(stride).min(left), due);
        }
        Plan::new(&mut self.window, from, generation, framing, most, |_| true)
    }

    /// Sends; `Some` where the viewer can take no more.
    fn send(&mut self, index: usize, load: &Load, origins: &Origins, tally: &mut Tally) -> io::Result<Option<Served>> {
        if let Framing::Rtp(carriage) = load.framing() {
            return self.send_rtp(index, load, carriage, origins, tally);
        }
        let Some(hot) = self.viewers.hot_mut(index) else { return Ok(None) };
        let (next, stride, packets) = (hot.next, load.stride(), load.packets());
        let bytes = stride * packets as usize;
        let (window, edge) = (&mut self.window, &mut self.edge);
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let sent = load.stamped(window, edge, &next, |parts| origins.send(route, parts, stride));
                let run = Run { datagrams: packets as usize, len: stride, bytes };
                let (done, full) = account(route, &mut hot.refusals, &sent, run, tally);
                (done, full.map(Full::served))
            }
            Link::Tcp(wire) => {
                tally.tcp_calls += 1;
                let taken = load.stamped(window, edge, &next, |parts| wire.write(parts))?;
                // A packet that is cut counts as a whole, and has its number: its rest follows before anything else.
                let begun = if taken == bytes { packets as usize } else { taken.div_ceil(stride) };
                tally.tcp_packets += begun as u64;
                tally.tcp_bytes += (begun * stride) as u64;
                let full = taken < bytes;
                hot.blocked = full;
                if full && let Some(cold) = self.viewers.cold(index) {
                    cold.expect_room();
                }
                (begun, full.then(|| Served::TcpBlocked(load.rest(window, edge, &next, taken))))
            }
        };
        Ok(self.note_sent(index, begun, blocked))
    }

    /// The same in RTP.
    fn send_rtp(
        &mut self,
        index: usize,
        load: &Load,
        carriage: Carriage,
        origins: &Origins,
        tally: &mut Tally,
    ) -> io::Result<Option<Served>> {
        let Some(hot) = self.viewers.hot_mut(index) else { return Ok(None) };
        let (next, window, edge) = (hot.next, &mut self.window, &mut self.edge);
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let refusals = &mut hot.refusals;
                let (begun, full) = load
                    .rtp(window, edge, &next, carriage, |stretches| rtp::over_udp(stretches, route, refusals, origins, tally));
                (begun, full.map(Full::served))
            }
            Link::Tcp(wire) => {
                let (begun, rest) = load.rtp(window, edge, &next, carriage, |stretches| rtp::over_tcp(stretches, wire, tally))?;
                hot.blocked = rest.is_some();
                if rest.is_some()
                    && let Some(cold) = self.viewers.cold(index)
                {
                    cold.expect_room();
                }
                (begun, rest.map(Served::TcpBlocked))
            }
        };
        self.viewers.sent_in_rtp(index, begun.bytes);
        Ok(self.note_sent(index, begun.packets, blocked))
    }

    /// So many packets have begun to go; `Some` where the viewer can take no more.
    fn note_sent(&mut self, index: usize, begun: usize, blocked: Option<Served>) -> Option<Served> {
        let begun = u32::try_from(begun).unwrap_or(u32::MAX);
        let hot = self.viewers.hot_mut(index)?;
        debug_assert!(begun > 0 || blocked.is_some(), "a send that does nothing tells why");
        if begun == 0 && blocked.is_none() {
            // Better nothing until the next pass than the same for ever.
            return Some(Served::Live);
        }
        hot.next.advance(begun);
        hot.packets += u64::from(begun);
        if hot.phase == Phase::CatchingUp
            && let Some((_, Cold { pace: Some(pace), .. })) = self.viewers.both_mut(index)
        {
            pace.spend(begun);
        }
        blocked
    }
}

impl Full {
    /// What that means for who is served.
    const fn served(self) -> Served {
        match self {
            Self::Path => Served::PathBlocked,
            Self::Socket => Served::UdpBlocked,
        }
    }
}

/// What one call carries.
enum Load {
    /// What comes with the pass.
    Edge(Slice),
    /// Whatever else there is in the window.
    Batches(Plan),
}

impl Load {
    const fn stride(&self) -> usize {
        match self {
            Self::Edge(slice) => slice.stride,
            Self::Batches(plan) => plan.stride,
        }
    }

    const fn packets(&self) -> u32 {
        match self {
            Self::Edge(slice) => slice.packets,
            Self::Batches(plan) => plan.packets,
        }
    }

    const fn framing(&self) -> Framing {
        match self {
            Self::Edge(slice) => slice.framing(),
            Self::Batches(plan) => plan.framing(),
        }
    }

    /// Gives the RTP packets to `send`, numbered as this viewer gets them.
    fn rtp<T>(
        &self,
        window: &mut Window<Image>,
        edge: &mut Edge,
        next: &Next,
        carriage: Carriage,
        send: impl FnOnce(&[Stretch<'_>]) -> T,
    ) -> T {
        match self {
            Self::Edge(slice) => edge.rtp(slice, next, carriage, send),
            Self::Batches(plan) => plan.rtp(window, next, carriage, send),
        }
    }

    /// Writes a viewer's numbers into the heads and gives the stamped bytes to `send`.
    fn stamped<T>(&self, window: &mut Window<Image>, edge: &mut Edge, next: &Next, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        match self {
            Self::Edge(slice) => edge.stamped(slice, next, send),
            Self::Batches(plan) => plan.stamped(window, next, send),
        }
    }

    /// The rest of the packet that a short write of `bytes` cut, as it was stamped; `None` where it cut none.
    fn rest(&self, window: &Window<Image>, edge: &Edge, next: &Next, bytes: usize) -> Option<Partial> {
        let (whole, written) = (bytes / self.stride(), bytes % self.stride());
        if written == 0 {
            return None;
        }
        let (framing, part) = match self {
            Self::Edge(slice) => (slice.framing(), edge.part(slice, whole)),
            Self::Batches(plan) => (plan.framing(), plan.part(window, whole as u64)),
        };
        if framing != Framing::Mms {
            return part.map(|part| Partial::own(part.slice(written.min(part.len())..)));
        }
        let (batch, index) = window.packet(next.packet + whole as u64)?;
        let head = match self {
            Self::Edge(slice) => edge.head(slice, whole)?,
            Self::Batches(plan) => plan.head(window, whole as u64)?,
        };
        Some(Partial::new(head, Arc::clone(batch), index, written))
    }
}

#[cfg(test)]
mod tests;
