//! Packets of files on their way to one viewer.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::broadcast::{Link, Tally, Viewer};
use super::framing::Framing;
use super::origins::Origins;
use super::out_queue::Partial;
use super::rtp;
use super::viewer::{Full, Run, account};
use crate::asf;
use crate::mms::media::{self, Next};
use crate::rtsp::media::{Carriage, Facts, Flow, Packets, fragments};
use crate::viewing::Cue;

/// A send that comes so much later than it was due is late.
const LATE: Duration = Duration::from_millis(100);

/// Packets on their way to one viewer: framed, one after the other. One for all viewers of a shard, so that it stays in the
/// processor's cache.
#[derive(Debug)]
pub(super) struct Stage {
    image: Vec<u8>,
    packets: Vec<Staged>,
    rtp: InRtp,
    /// Longest RTP packet over UDP, bytes.
    max_datagram: usize,
}

/// The packets where they go in RTP.
#[derive(Debug)]
struct InRtp {
    flow: Flow,
    packets: Packets,
    /// The number in the flow with which the first of them was framed.
    origin: u32,
}

/// Packets that were gathered for a viewer, and had no room.
#[derive(Debug)]
pub(super) struct Backlog {
    image: Vec<u8>,
    packets: Vec<Staged>,
    rtp: Option<InRtp>,
}

#[derive(Debug, Clone, Copy)]
struct Staged {
    number: u64,
    due: Instant,
}

/// What hinders a viewer from being sent more.
#[derive(Debug)]
pub(super) enum Blocked {
    /// Its TCP buffer is full; the rest of a packet that was cut goes first when it is not.
    Tcp(Option<Partial>),
    /// No room for datagrams now.
    Udp(Full),
}

/// When something is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The viewer itself could not take more until then.
    pub(super) free_since: Instant,
}

/// What came of sending.
#[derive(Debug)]
pub(super) struct Staging {
    /// Packets that have begun to go.
    pub(super) begun: usize,
    /// Their bytes.
    pub(super) bytes: usize,
    /// What hinders more.
    pub(super) blocked: Option<Blocked>,
}

impl Stage {
    /// Nothing yet; RTP packets over UDP are to have so many bytes at most.
    pub(super) const fn new(max_datagram: usize) -> Self {
        let rtp = InRtp { flow: Flow { ssrc: 0, sequence: 0 }, packets: Packets::new(Carriage::Datagrams, 1), origin: 0 };
        Self { image: Vec::new(), packets: Vec::new(), rtp, max_datagram }
    }

    /// Sends the first packets of what was gathered, with one call where they have a stride.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn send(
        &mut self,
        viewer: &mut Viewer,
        moment: Moment,
        stride: usize,
        count: usize,
        origins: &Origins,
        tally: &mut Tally,
    ) -> io::Result<Staging> {
        if let Framing::Rtp(carriage) = viewer.hot.framing {
            return self.send_rtp(viewer, moment, carriage, count, origins, tally);
        }
        let stage = self;
        let Viewer { hot, cold } = viewer;
        let image = stage.image.get_mut(..count * stride).unwrap_or_default();
        if hot.framing == Framing::Mms {
            media::stamp(image, stride, hot.next.incarnation, hot.next.sequence);
        }
        let parts = [IoSlice::new(image)];
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let sent = origins.send(route, &parts, stride);
                let run = Run { datagrams: count, len: stride, bytes: image.len() };
                let (done, full) = account(route, &mut hot.refusals, &sent, run, tally);
                (done, full.map(Blocked::Udp))
            }
            Link::Tcp(wire) => {
                let taken = wire.write(&parts)?;
                let begun = taken.div_ceil(stride);
                tally.tcp_calls += 1;
                tally.tcp_packets += begun as u64;
                tally.tcp_bytes += (begun * stride) as u64;
                hot.blocked = taken < image.len();
                if hot.blocked {
                    cold.expect_room();
                }
                let rest = image.get(taken..begun * stride).filter(|rest| !rest.is_empty());
                (begun, hot.blocked.then(|| Blocked::Tcp(rest.map(|rest| Partial::own(Bytes::copy_from_slice(rest))))))
            }
        };
        Ok(stage.note_sent(viewer, moment, count, Staging { begun, bytes: begun * stride, blocked }, tally))
    }

    /// The same in RTP.
    fn send_rtp(
        &mut self,
        viewer: &mut Viewer,
        moment: Moment,
        carriage: Carriage,
        count: usize,
        origins: &Origins,
        tally: &mut Tally,
    ) -> io::Result<Staging> {
        let Viewer { hot, cold } = viewer;
        let InRtp { packets, origin, .. } = &mut self.rtp;
        let ahead = Flow::default().sequence_of(hot.next.sequence.wrapping_sub(*origin), packets.fragments());
        packets.stamp(ahead, carriage);
        let stretches = [packets.stretch(0, count)];
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let (begun, full) = rtp::over_udp(&stretches, route, &mut hot.refusals, origins, tally);
                (begun, full.map(Blocked::Udp))
            }
            Link::Tcp(wire) => {
                let (begun, rest) = rtp::over_tcp(&stretches, wire, tally)?;
                hot.blocked = rest.is_some();
                if hot.blocked {
                    cold.expect_room();
                }
                (begun, rest.map(Blocked::Tcp))
            }
        };
        viewer.sent_in_rtp(begun.bytes as u64);
        Ok(self.note_sent(viewer, moment, count, Staging { begun: begun.packets, bytes: begun.bytes, blocked }, tally))
    }

    fn note_sent(&self, viewer: &mut Viewer, moment: Moment, count: usize, sent: Staging, tally: &mut Tally) -> Staging {
        let (Viewer { hot, cold }, Moment { now, free_since }) = (viewer, moment);
        let Staging { begun, bytes, blocked } = sent;
        // A send that does nothing and does not say why would go on for ever.
        let blocked = blocked.or_else(|| (begun == 0).then_some(Blocked::Udp(Full::Path)));
        for packet in self.packets.iter().take(begun.min(count)) {
            cold.track.jump(&mut hot.next, packet.number);
            hot.next.advance(1);
            tally.late += u64::from(now.saturating_duration_since(packet.due.max(free_since)) > LATE);
        }
        hot.packets += begun as u64;
        Staging { begun, bytes, blocked }
    }

    /// Packets in it.
    pub(super) const fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes in it.
    pub(super) const fn bytes(&self) -> usize {
        self.image.len() + self.rtp.packets.bytes()
    }

    /// Whether nothing is in it.
    pub(super) const fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// What is in it behind the first packets, as many as `sent`.
    pub(super) fn behind(&self, sent: usize, stride: usize) -> Option<Box<Backlog>> {
        let packets = self.packets.get(sent..).filter(|packets| !packets.is_empty())?.to_vec();
        let rtp = (!self.rtp.packets.is_empty()).then(|| InRtp {
            flow: self.rtp.flow,
            packets: self.rtp.packets.behind(sent),
            origin: self.rtp.origin.wrapping_add(rtp::in_flow(sent as u64)),
        });
        Some(Box::new(Backlog { image: self.image.get(sent * stride..).unwrap_or_default().to_vec(), packets, rtp }))
    }

    /// Begins with what had no room before. In RTP packets are of this flow.
    pub(super) fn begin(&mut self, flow: Flow, backlog: Option<Box<Backlog>>) {
        self.image.clear();
        self.packets.clear();
        self.rtp.packets.clear(1, usize::MAX);
        (self.rtp.flow, self.rtp.origin) = (flow, 0);
        if let Some(backlog) = backlog {
            self.image.extend_from_slice(&backlog.image);
            self.packets.extend_from_slice(&backlog.packets);
            if let Some(rtp) = backlog.rtp {
                self.rtp = rtp;
            }
        }
    }

    /// What a viewer over RTP whose numbers are `next` gets first of it.
    pub(super) fn cue(&self, next: &Next) -> Option<Cue> {
        /// Where the timestamp stands in an RTP packet. Source: RFC 3550 5.1.
        const TIMESTAMP_AT: usize = 4;
        let InRtp { flow, packets, .. } = &self.rtp;
        let first = packets.stretch(0, 1).fragment(0)?;
        let timestamp = first.get(packets.prefix_len() + TIMESTAMP_AT..)?.first_chunk()?;
        let sequence = flow.sequence_of(next.sequence, packets.fragments());
        Some(Cue { sequence, timestamp: u32::from_be_bytes(*timestamp), head_start: None })
    }

    /// Adds a packet, framed.
    pub(super) fn push(&mut self, framing: Framing, number: u64, packet: &[u8], due: Instant) {
        if let Framing::Rtp(carriage) = framing {
            let InRtp { flow, packets, origin } = &mut self.rtp;
            if packets.is_empty() {
                packets.begin(carriage, file_fragments(carriage, packet.len(), self.max_datagram));
            }
            push_rtp(packets, packet, *flow, origin.wrapping_add(rtp::in_flow(packets.len() as u64)));
            return self.packets.push(Staged { number, due });
        }
        let range = framing.push(packet, number, &mut self.image);
        // MPlayer and xine take the padding of such a packet for media.
        asf::padding::settle(self.image.get_mut(range).unwrap_or_default());
        self.packets.push(Staged { number, due });
    }
}

/// RTP packets that a packet of a file becomes, which one viewer alone is sent: a frame over TCP takes all of it.
pub(super) fn file_fragments(carriage: Carriage, packet_size: usize, max_datagram: usize) -> u16 {
    match carriage {
        Carriage::Datagrams => fragments(packet_size, max_datagram),
        Carriage::Interleaved { .. } => fragments(packet_size, usize::MAX),
    }
}

/// Adds a packet of a file, which has its header's size.
pub(super) fn push_rtp(packets: &mut Packets, packet: &[u8], flow: Flow, number: u32) {
    let info = asf::walk(packet);
    let (send_time_ms, key) = info.map_or((0, false), |info| (info.send_time_ms, info.key));
    packets.push(packet, packet.len(), flow, Facts { packet: number, send_time_ms, key });
}
