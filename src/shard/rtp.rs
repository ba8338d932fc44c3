//! ASF packets in RTP on their way: runs of datagrams, writes of interleaved frames.

use std::io::{self, IoSlice};
use std::time::Instant;

use bytes::Bytes;

use super::broadcast::{Framing, Tally};
use super::conn::Place;
use super::engine::Event;
use super::image::PARTS;
use super::origins::Origins;
use super::out_queue::Partial;
use super::stage::file_fragments;
use super::state::State;
use super::udp::Route;
use super::viewer::{Full, Run, Wire, account};
use crate::mms::media::Next;
use crate::relay::{Batch, Generation};
use crate::rtsp::media::{self, Carriage, Facts, Flow, Packets, Stretch};
use crate::viewing::Answer;

/// Packets as they go out by datagram, and between the responses of a connection; each made when its first viewer needs it.
#[derive(Debug, Default)]
pub(super) struct Images {
    datagrams: Option<Box<Packets>>,
    interleaved: Option<Box<Packets>>,
}

impl Images {
    /// The one of such viewers, where it has been made.
    pub(super) fn get(&self, carriage: Carriage) -> Option<&Packets> {
        match carriage {
            Carriage::Datagrams => self.datagrams.as_deref(),
            Carriage::Interleaved { .. } => self.interleaved.as_deref(),
        }
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, carriage: Carriage) -> Option<&mut Packets> {
        match carriage {
            Carriage::Datagrams => self.datagrams.as_deref_mut(),
            Carriage::Interleaved { .. } => self.interleaved.as_deref_mut(),
        }
    }

    /// The one of such viewers, empty where it has not been made.
    pub(super) fn get_or_new(&mut self, carriage: Carriage) -> &mut Packets {
        let image = match carriage {
            Carriage::Datagrams => &mut self.datagrams,
            Carriage::Interleaved { .. } => &mut self.interleaved,
        };
        image.get_or_insert_with(|| Box::new(Packets::new(carriage, 1)))
    }

    /// Lets go of what is in them, of their memory only where that is more than `most` bytes.
    pub(super) fn clear(&mut self, most: usize) {
        [&mut self.datagrams, &mut self.interleaved].into_iter().flatten().for_each(|image| image.clear(1, most));
    }
}

/// The flow that all viewers of a generation share.
pub(super) const fn flow_of(generation: &Generation) -> Flow {
    Flow { ssrc: generation.ssrc, sequence: generation.sequence }
}

/// Where a packet of a window stands in the flow.
#[expect(clippy::cast_possible_truncation, reason = "numbers in a flow are modulo 2^32")]
pub(super) const fn in_flow(packet: u64) -> u32 {
    packet as u32
}

/// Frames the packets of a batch from `index` on.
pub(super) fn frame(batch: &Batch, index: usize, max_datagram: usize, image: &mut Packets) {
    let packet_size = batch.generation.packet_size;
    let fragments = media::fragments(packet_size, max_datagram);
    if image.is_empty() && image.fragments() != fragments {
        image.clear(fragments, usize::MAX);
    }
    image.reserve(batch.packets.len().saturating_sub(index), packet_size);
    for (at, packet) in batch.packets.iter().enumerate().skip(index) {
        let facts = Facts { packet: in_flow(batch.first + at as u64), send_time_ms: packet.send_time_ms, key: packet.key };
        image.push(batch.packet(at).unwrap_or_default(), packet_size, flow_of(&batch.generation), facts);
    }
}

/// How far a viewer's sequence numbers are ahead of those that all others get for the same packets.
pub(super) const fn ahead(next: &Next, fragments: u16) -> u16 {
    Flow { ssrc: 0, sequence: 0 }.sequence_of(next.sequence.wrapping_sub(in_flow(next.packet)), fragments)
}

/// What was sent of some stretches.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// ASF packets that are sent, or begun.
    pub(super) packets: usize,
    /// Bytes of these on the wire.
    pub(super) bytes: usize,
}

/// Sends datagrams in as few calls as their sizes allow: one call takes datagrams of one size, and a shorter one behind them.
///
/// An ASF packet of which only some fragments had room is sent once more: what comes twice is passed over.
pub(super) fn over_udp(
    stretches: &[Stretch<'_>],
    route: &mut Route,
    refusals: &mut u8,
    origins: &Origins,
    tally: &mut Tally,
) -> (Begun, Option<Full>) {
    let mut lens = stretches.iter().flat_map(|stretch| stretch.lens()).peekable();
    let (mut rest, mut done, mut full) = (Rest::new(stretches), 0, None);
    while let Some(len) = lens.next() {
        let most = origins.port(route.origin).map_or(1, |port| port.segments(len));
        let mut run = Run { datagrams: 1, len, bytes: len };
        while run.datagrams < most
            && let Some(next) = lens.next_if(|next| *next <= len)
        {
            run.datagrams += 1;
            run.bytes += next;
            if next < len {
                break;
            }
        }
        let mut parts = [IoSlice::new(&[]); PARTS];
        let count = rest.take(run.bytes, &mut parts);
        let sent = origins.send(route, parts.get(..count).unwrap_or_default(), len);
        let (datagrams, none) = account(route, refusals, &sent, run, tally);
        (done, full) = (done + datagrams, none);
        if datagrams < run.datagrams || full.is_some() {
            break;
        }
    }
    let fragments = stretches.first().map_or(1, Stretch::fragments);
    let packets = done / fragments;
    (Begun { packets, bytes: bytes_of(stretches, packets) }, full)
}

/// Bytes of the first so many ASF packets.
fn bytes_of(stretches: &[Stretch<'_>], packets: usize) -> usize {
    let mut left = packets;
    let bytes = stretches.iter().map(|stretch| {
        let here = left.min(stretch.packets());
        left -= here;
        stretch.bytes_of(here)
    });
    bytes.sum()
}

/// What is still to be sent of some stretches.
struct Rest<'a> {
    stretches: &'a [Stretch<'a>],
    /// Bytes of the first one that are done with.
    offset: usize,
}

impl<'a> Rest<'a> {
    const fn new(stretches: &'a [Stretch<'a>]) -> Self {
        Self { stretches, offset: 0 }
    }

    /// Takes the next bytes; in how many parts they lie.
    fn take(&mut self, bytes: usize, parts: &mut [IoSlice<'a>]) -> usize {
        let (mut left, mut count) = (bytes, 0);
        while left > 0
            && let Some((first, behind)) = self.stretches.split_first()
        {
            let here = first.bytes.get(self.offset..).unwrap_or_default();
            let here = here.get(..left).unwrap_or(here);
            if let Some(part) = parts.get_mut(count).filter(|_| !here.is_empty()) {
                *part = IoSlice::new(here);
                count += 1;
            }
            left -= here.len();
            self.offset += here.len();
            if self.offset >= first.bytes.len() {
                (self.stretches, self.offset) = (behind, 0);
            }
        }
        count
    }
}

/// Writes frames with one call. Where the system did not take all of them: what is left of the ASF packet that was cut, if one was.
///
/// # Errors
/// The TCP connection is gone.
pub(super) fn over_tcp(
    stretches: &[Stretch<'_>],
    wire: &Wire,
    tally: &mut Tally,
) -> io::Result<(Begun, Option<Option<Partial>>)> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let count = Rest::new(stretches).take(usize::MAX, &mut parts);
    let taken = wire.write(parts.get(..count).unwrap_or_default())?;
    let (mut begun, mut left, mut rest) = (Begun::default(), taken, None);
    for stretch in stretches {
        let written = left.min(stretch.bytes.len());
        let (packets, end) = stretch.begun(written);
        begun.packets += packets;
        begun.bytes += end;
        left -= written;
        if written < stretch.bytes.len() {
            let cut = stretch.bytes.get(written..end).filter(|cut| !cut.is_empty());
            rest = Some(cut.map(|cut| Partial::own(Bytes::copy_from_slice(cut))));
            break;
        }
    }
    tally.tcp_calls += 1;
    tally.tcp_packets += begun.packets as u64;
    tally.tcp_bytes += begun.bytes as u64;
    Ok((begun, rest))
}

impl State {
    /// Lets the engine of a viewer over RTP know the number behind its last packet, before it hears that there is no more.
    pub(super) fn tell_next_sequence(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get(key) else { return };
        let Some(opened) = &conn.opened else { return };
        let (hot, fragments) = match &conn.place {
            Place::Seat(index) => {
                let hot = self.broadcasts.get(opened.channel).and_then(|broadcast| broadcast.viewers.hot(*index));
                (hot, media::fragments(opened.packet_size, self.context.max_rtp_datagram()))
            }
            Place::Parked(viewer) if opened.title.is_some() => {
                let Framing::Rtp(carriage) = viewer.hot.framing else { return };
                (Some(&viewer.hot), file_fragments(carriage, opened.packet_size, self.context.max_rtp_datagram()))
            }
            _ => return,
        };
        let Some(hot) = hot.filter(|hot| hot.is_in_rtp()) else { return };
        let next = opened.flow.sequence_of(hot.next.sequence, fragments);
        self.drive(key, now, Event::Answer(Answer::NextSequence(next)));
    }
}

#[cfg(test)]
mod tests;
