//! One publishing point as one shard serves it: the window, the framed images, the viewers.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::out_queue::OutQueue;
use super::pace::Pace;
use super::udp::{Route, UdpPort};
use crate::mms::media::{self, HEAD_LEN, Track};
use crate::relay::{Batch, Generation, Window};
use crate::settings::WindowBounds;

/// Batches that one system call gathers.
const PARTS: usize = 16;
/// Packets of one write to a TCP viewer: some 90 KB of a usual stream.
const TCP_PACKETS: u32 = 64;

/// The packets of one batch as MMS frames them, made when the first MMS viewer needs them.
///
/// Everything in it is the same for all viewers but two bytes of each head, which are stamped just before each send: the kernel
/// has its copy when the call returns, so one image serves all.
#[derive(Debug, Default)]
pub struct Image(Vec<u8>);

impl Image {
    fn framed(&mut self, batch: &Batch) -> &mut [u8] {
        if self.0.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the number")]
            media::wrap(&batch.bytes, batch.generation.packet_size, batch.first as u32, &mut self.0);
        }
        &mut self.0
    }
}

/// How media reaches a viewer.
#[derive(Debug, Clone)]
pub enum Transport {
    /// On the control connection.
    Tcp,
    /// To a leased port.
    Udp(Route, Arc<UdpPort>),
}

impl Transport {
    /// The label in logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp(..) => "udp",
        }
    }
}

/// A viewer's place in a stream.
#[derive(Debug)]
pub struct Viewer {
    /// Key of its connection.
    pub conn: usize,
    /// Number of the packet that it gets next.
    pub cursor: u64,
    /// Sequence numbers, and what they stood for.
    pub track: Track,
    /// How media reaches it.
    pub transport: Transport,
    /// The header that it has.
    pub generation: u32,
    /// Its pace while it catches up; `None` once it is at the live edge.
    pub(super) pace: Option<Pace>,
    /// It begins with the next join point.
    pub awaits_join_point: bool,
    /// It fell out of the window: what passes until it goes on is lost to it.
    skipping: bool,
    /// Its TCP buffer is full; the connection's task says when it is not.
    pub(super) blocked: bool,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it, heads included.
    pub bytes: u64,
    /// Packets that it lost by being slow.
    pub skipped: u64,
}

impl Viewer {
    /// A viewer that has not been placed.
    pub fn new(conn: usize, transport: Transport, generation: u32) -> Self {
        Self {
            conn,
            cursor: 0,
            track: Track::default(),
            transport,
            generation,
            pace: None,
            awaits_join_point: true,
            skipping: false,
            blocked: false,
            packets: 0,
            bytes: 0,
            skipped: 0,
        }
    }
}

/// What came of serving one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It has all there is.
    Live,
    /// It catches up; more is due with the next tick.
    CatchingUp,
    /// Its TCP buffer is full.
    TcpBlocked,
    /// The UDP socket's buffer is full.
    UdpBlocked,
    /// The next packet belongs to another header.
    NewGeneration,
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
    /// ICMP errors wait in the error queue.
    pub icmp_pending: bool,
}

/// One publishing point as one shard serves it.
#[derive(Debug)]
pub struct Broadcast {
    /// The last seconds, with their images.
    pub window: Window<Image>,
    /// The playing viewers of this shard.
    pub viewers: Vec<Viewer>,
    /// The newest header.
    pub generation: Option<Arc<Generation>>,
    /// Connections that opened it before there was a header.
    pub waiting: Vec<usize>,
    /// The source has ended: who has everything gets the end of the stream.
    pub ended: bool,
    /// Something came that live viewers do not have yet.
    pub fresh: bool,
    /// Some viewer catches up: the next tick has work.
    pub(super) catching_up: bool,
    /// When batches of which nothing was sent yet were due, and their packets.
    pub unsent: Vec<(Instant, u64)>,
}

impl Broadcast {
    /// A publishing point of which nothing has come yet.
    pub fn new(bounds: &WindowBounds) -> Self {
        Self {
            window: Window::new(bounds),
            viewers: Vec::new(),
            generation: None,
            waiting: Vec::new(),
            ended: false,
            fresh: false,
            catching_up: false,
            unsent: Vec::new(),
        }
    }

    /// Puts a viewer where a join begins: at the newest key frame, else at the next one.
    pub fn place(&self, viewer: &mut Viewer, now: Instant) {
        // Between a new header and its first packets the window's key frames belong to a header that the viewer no longer has.
        let own =
            |number: &u64| self.window.packet(*number).is_some_and(|(batch, _)| batch.generation.number == viewer.generation);
        let join = self.window.join_point().filter(own);
        viewer.awaits_join_point = join.is_none();
        viewer.cursor = join.unwrap_or_else(|| self.window.end());
        let udp = matches!(viewer.transport, Transport::Udp(..));
        viewer.pace = self.send_time(viewer.cursor).map(|send_time_ms| Pace::new(now, send_time_ms, udp));
        viewer.blocked = false;
        viewer.skipping = false;
    }

    fn send_time(&self, number: u64) -> Option<u32> {
        let (batch, index) = self.window.packet(number)?;
        batch.packets.get(index).map(|packet| packet.send_time_ms)
    }

    /// Sends one viewer what is due for it. `tcp` is its connection, needed where media goes over it.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub fn serve(
        &mut self,
        index: usize,
        now: Instant,
        mut tcp: Option<(&TcpStream, &mut OutQueue)>,
        tally: &mut Tally,
    ) -> io::Result<Served> {
        let Some(viewer) = self.viewers.get_mut(index) else { return Ok(Served::Live) };
        if viewer.cursor < self.window.begin() && !viewer.awaits_join_point {
            // Slower than the window is long: on to the next picture that can be decoded.
            viewer.awaits_join_point = true;
            viewer.skipping = true;
        }
        loop {
            if viewer.awaits_join_point {
                let from = viewer.cursor.max(self.window.begin());
                let join = self.window.next_join_point(from);
                let to = join.unwrap_or_else(|| self.window.end()).max(viewer.cursor);
                if viewer.skipping {
                    viewer.skipped += to - viewer.cursor;
                    tally.skipped += to - viewer.cursor;
                }
                viewer.cursor = to;
                if join.is_none() {
                    return Ok(if self.ended { Served::Finished } else { Served::Live });
                }
                viewer.awaits_join_point = false;
                viewer.skipping = false;
            }
            if viewer.cursor >= self.window.end() {
                viewer.pace = None;
                return Ok(if self.ended { Served::Finished } else { Served::Live });
            }
            let plan = plan(&mut self.window, viewer, now);
            if plan.packets == 0 {
                return Ok(if plan.boundary { Served::NewGeneration } else { Served::CatchingUp });
            }
            let mut parts = [IoSlice::new(&[]); PARTS];
            let parts = gather(&self.window, viewer.cursor, &plan, &mut parts);
            let total = plan.stride * plan.packets as usize;
            let (done, blocked) = match &mut viewer.transport {
                Transport::Udp(route, port) => {
                    let sent = port.send(route, parts, plan.stride);
                    route.segmented &= !sent.unsegmentable;
                    tally.udp_calls += u64::from(sent.calls);
                    tally.udp_failed += u64::from(sent.failed);
                    tally.icmp_pending |= sent.errors_pending;
                    let gone = sent.bytes as u64 / plan.stride as u64 - u64::from(sent.failed);
                    tally.udp_packets += gone;
                    tally.udp_bytes += gone * plan.stride as u64;
                    (sent.bytes, sent.blocked.then_some(Served::UdpBlocked))
                }
                Transport::Tcp => {
                    let Some((stream, out)) = &mut tcp else { return Ok(Served::TcpBlocked) };
                    tally.tcp_calls += 1;
                    let taken = out.write_media(stream, parts)?;
                    // A packet that is cut counts as a whole: its rest follows before anything else.
                    let begun = taken.div_ceil(plan.stride) as u64;
                    tally.tcp_packets += begun;
                    tally.tcp_bytes += begun * plan.stride as u64;
                    (taken, (taken < total).then_some(Served::TcpBlocked))
                }
            };
            let (whole, rest) = (done / plan.stride, done % plan.stride);
            if rest > 0
                && let Some((_, out)) = &mut tcp
            {
                keep_rest(&self.window, viewer.cursor + whole as u64, plan.stride, rest, out);
            }
            // A packet that is under way has its number, whenever its rest follows.
            let begun = u32::try_from(whole).unwrap_or(u32::MAX) + u32::from(rest > 0);
            viewer.track.sent(viewer.cursor, begun);
            viewer.cursor += u64::from(begun);
            viewer.packets += u64::from(begun);
            viewer.bytes += u64::from(begun) * plan.stride as u64;
            if let Some(pace) = &mut viewer.pace {
                pace.spend(begun);
            }
            if let Some(blocked) = blocked {
                viewer.blocked = blocked == Served::TcpBlocked;
                return Ok(blocked);
            }
        }
    }
}

/// What one call is to send.
struct Plan {
    packets: u32,
    parts: usize,
    stride: usize,
    /// The packets after it belong to another header.
    boundary: bool,
}

/// Packets of this size that one call can carry.
fn packets_of_one_call(transport: &Transport, stride: usize) -> u32 {
    match transport {
        Transport::Udp(route, port) if route.segmented => u32::try_from(port.segments(stride)).unwrap_or(1),
        _ => TCP_PACKETS,
    }
}

/// Chooses what is due for a viewer and stamps it into the images.
fn plan(window: &mut Window<Image>, viewer: &mut Viewer, now: Instant) -> Plan {
    let (incarnation, sequence) = viewer.track.next();
    let mut plan = Plan { packets: 0, parts: 0, stride: 1, boundary: false };
    let paced = viewer.pace.as_mut().map_or(u32::MAX, |pace| pace.packets(now));
    while plan.parts < PARTS {
        let Some(run) = window.run(viewer.cursor + u64::from(plan.packets)) else { break };
        if run.batch.generation.number != viewer.generation {
            plan.boundary = true;
            break;
        }
        plan.stride = run.batch.generation.packet_size + HEAD_LEN;
        let limit = packets_of_one_call(&viewer.transport, plan.stride).min(paced).saturating_sub(plan.packets);
        let there = run.batch.packets.get(run.index..).unwrap_or_default();
        let due = match viewer.pace {
            Some(pace) => there.iter().take_while(|packet| pace.is_due(now, packet.send_time_ms)).count(),
            None => there.len(),
        };
        let count = due.min(limit as usize);
        let range = run.index * plan.stride..(run.index + count) * plan.stride;
        let image = run.framing.framed(run.batch).get_mut(range).unwrap_or_default();
        media::stamp(image, plan.stride, incarnation, sequence.wrapping_add(plan.packets));
        if count == 0 {
            break;
        }
        let taken = u32::try_from(count).unwrap_or(u32::MAX);
        plan.packets += taken;
        plan.parts += 1;
        if count < there.len() {
            break;
        }
    }
    plan
}

/// The stamped images of a plan, for one system call.
fn gather<'p, 'w>(window: &'w Window<Image>, from: u64, plan: &Plan, parts: &'p mut [IoSlice<'w>; PARTS]) -> &'p [IoSlice<'w>] {
    let mut left = plan.packets as usize;
    let mut number = from;
    for part in parts.iter_mut().take(plan.parts) {
        let Some((batch, index, image)) = window.framed(number) else { break };
        let count = left.min(batch.packets.len() - index);
        *part = IoSlice::new(image.0.get(index * plan.stride..(index + count) * plan.stride).unwrap_or_default());
        left -= count;
        number += count as u64;
    }
    parts.get(..plan.parts).unwrap_or_default()
}

/// Keeps the rest of the packet that a short write cut.
fn keep_rest(window: &Window<Image>, number: u64, stride: usize, written: usize, out: &mut OutQueue) {
    let Some((batch, index, image)) = window.framed(number) else { return };
    let head = image.0.get(index * stride..).and_then(|framed| framed.first_chunk::<HEAD_LEN>());
    if let Some(head) = head {
        out.keep_partial(*head, Arc::clone(batch), index, written);
    }
}

#[cfg(test)]
mod tests;
