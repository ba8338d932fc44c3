//! The packets of a batch as one protocol frames them.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use super::framing::Framing;
use super::rtp;
use crate::http::wrap::{Slab, Wrap};
use crate::mms::media::{self, HEAD_LEN, Next};
use crate::relay::{Batch, BatchPacket, Spot, Window};
use crate::rtsp::media::{Carriage, Stretch};

/// Packets of one write to a TCP viewer: some 90 KB of a usual stream.
pub(super) const TCP_PACKETS: usize = 64;
/// Batches that one system call gathers.
pub(super) const PARTS: usize = 32;

/// The packets of one batch as each protocol frames them, made when its first viewer needs them.
///
/// What MMS frames is the same for all its viewers but two bytes of each head, which are stamped just before each send: the kernel
/// has its copy when the call returns, so one image serves all. Slabs of HTTP are the same for all, and RTP packets for nearly all.
#[derive(Debug, Default)]
pub struct Image {
    mms: Vec<u8>,
    slabs: Vec<u8>,
    rtp: rtp::Images,
}

impl Image {
    fn framed(&mut self, batch: &Batch, framing: Framing, max_datagram: usize) {
        let packet_size = batch.generation.packet_size;
        match framing {
            Framing::Mms if self.mms.is_empty() => {
                media::wrap(&batch.bytes, packet_size, batch.locations(0), &mut self.mms);
            }
            Framing::Http(_) if self.slabs.is_empty() => {
                Slab::new(packet_size).wrap(&batch.bytes, batch.locations(0), &mut self.slabs);
            }
            Framing::Rtp(carriage) => {
                let image = self.rtp.get_or_new(carriage);
                if image.is_empty() {
                    rtp::frame(batch, 0, max_datagram, image);
                }
            }
            _ => {}
        }
    }
}

/// The parts of slabs that such a viewer is sent, as few as there can be; how many.
pub(super) fn slab_parts<'a>(slabs: &'a [u8], slab: Slab, wrap: Wrap, parts: &mut [IoSlice<'a>]) -> usize {
    if wrap == Wrap::Chunked {
        if let Some(part) = parts.first_mut().filter(|_| !slabs.is_empty()) {
            *part = IoSlice::new(slabs);
            return 1;
        }
        return 0;
    }
    let slices = slabs.chunks_exact(slab.stride()).filter_map(|bytes| bytes.get(slab.part(wrap)));
    parts.iter_mut().zip(slices).map(|(part, bytes)| *part = IoSlice::new(bytes)).count()
}

/// What one call sends: the same for all viewers that have this header and get this packet next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Number of the first packet.
    from: u64,
    spot: Spot,
    parts: usize,
    pub(super) packets: u32,
    framing: Framing,
    /// Bytes of a packet on the wire.
    pub(super) stride: usize,
    /// The packets after it belong to another header.
    pub(super) boundary: bool,
}

impl Plan {
    /// Gathers packets from number `from` on that have this header, as long as they are `due`; `most` tells how many packets of a
    /// stride a call takes, `max_datagram` how long RTP packets may be. `None` where the window has none.
    pub(super) fn new(
        window: &mut Window<Image>,
        from: u64,
        generation: u32,
        (framing, max_datagram): (Framing, usize),
        most: impl Fn(usize) -> u32,
        due: impl Fn(&BatchPacket) -> bool,
    ) -> Option<Self> {
        let spot = window.locate(from)?;
        let mut plan = Self { from, spot, parts: 0, packets: 0, framing, stride: 1, boundary: false };
        let mut index = spot.packet;
        while plan.parts < PARTS {
            let Some((batch, image)) = window.batch_mut(spot.batch + plan.parts) else { break };
            if batch.generation.number != generation {
                plan.boundary = true;
                break;
            }
            plan.stride = framing.stride(batch.generation.packet_size);
            let there = batch.packets.get(index..).unwrap_or_default();
            let room = most(plan.stride).saturating_sub(plan.packets) as usize;
            let count = there.iter().take(room).take_while(|packet| due(packet)).count();
            if count == 0 {
                break;
            }
            image.framed(batch, framing, max_datagram);
            plan.packets += u32::try_from(count).unwrap_or(u32::MAX);
            plan.parts += 1;
            if count < there.len() {
                break;
            }
            index = 0;
        }
        Some(plan)
    }

    /// Writes a viewer's numbers into the heads and gives the stamped images to `send`.
    pub(super) fn stamped<T>(&self, window: &mut Window<Image>, next: &Next, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if let Framing::Http(wrap) = self.framing {
            return self.slabs(window, wrap, send);
        }
        let (mut left, mut first, mut sequence) = (self.packets, self.spot.packet, next.sequence);
        let mut ranges: [Range<usize>; PARTS] = std::array::from_fn(|_| 0..0);
        for (range, index) in ranges.iter_mut().zip(self.spot.batch..).take(self.parts) {
            let Some((batch, image)) = window.batch_mut(index) else { break };
            let there = u32::try_from(batch.packets.len().saturating_sub(first)).unwrap_or(u32::MAX);
            let count = left.min(there);
            *range = first * self.stride..(first + count as usize) * self.stride;
            let part = image.mms.get_mut(range.clone()).unwrap_or_default();
            media::stamp(part, self.stride, next.incarnation, sequence);
            (left, first, sequence) = (left - count, 0, sequence.wrapping_add(count));
        }
        let window = &*window;
        let mut parts = [IoSlice::new(&[]); PARTS];
        for ((part, range), index) in parts.iter_mut().zip(ranges).zip(self.spot.batch..).take(self.parts) {
            *part = IoSlice::new(window.batch(index).and_then(|(_, image)| image.mms.get(range)).unwrap_or_default());
        }
        send(parts.get(..self.parts).unwrap_or_default())
    }

    /// Gives the parts of the slabs to `send` that such viewers get.
    fn slabs<T>(&self, window: &Window<Image>, wrap: Wrap, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let (mut left, mut first, mut filled) = (self.packets as usize, self.spot.packet, 0);
        let mut parts = [IoSlice::new(&[]); TCP_PACKETS];
        for index in (self.spot.batch..).take(self.parts) {
            let Some((batch, image)) = window.batch(index) else { break };
            let slab = Slab::new(batch.generation.packet_size);
            let count = left.min(batch.packets.len().saturating_sub(first));
            let slabs = image.slabs.get(first * slab.stride()..(first + count) * slab.stride()).unwrap_or_default();
            filled += slab_parts(slabs, slab, wrap, parts.get_mut(filled..).unwrap_or_default());
            (left, first) = (left - count, 0);
        }
        send(parts.get(..filled).unwrap_or_default())
    }

    /// Gives the RTP packets to `send`, numbered as this viewer gets them.
    pub(super) fn rtp<T>(
        &self,
        window: &mut Window<Image>,
        next: &Next,
        carriage: Carriage,
        send: impl FnOnce(&[Stretch<'_>]) -> T,
    ) -> T {
        for index in (self.spot.batch..).take(self.parts) {
            if let Some(image) = window.batch_mut(index).and_then(|(_, image)| image.rtp.get_mut(carriage)) {
                image.stamp(rtp::ahead(next, image.fragments()), carriage);
            }
        }
        let (mut left, mut first) = (self.packets as usize, self.spot.packet);
        let mut stretches = [Stretch::default(); PARTS];
        for (stretch, index) in stretches.iter_mut().zip(self.spot.batch..).take(self.parts) {
            let Some(image) = window.batch(index).and_then(|(_, image)| image.rtp.get(carriage)) else { break };
            *stretch = image.stretch(first, left);
            (left, first) = (left - stretch.packets(), 0);
        }
        send(stretches.get(..self.parts).unwrap_or_default())
    }

    pub(super) const fn framing(&self) -> Framing {
        self.framing
    }

    /// A packet as a viewer over HTTP gets it.
    pub(super) fn part(&self, window: &Window<Image>, packet: u64) -> Option<Bytes> {
        let Framing::Http(wrap) = self.framing else { return None };
        let spot = window.locate(self.from + packet)?;
        let (batch, image) = window.batch(spot.batch)?;
        let slab = Slab::new(batch.generation.packet_size);
        image.slabs.get(spot.packet * slab.stride()..)?.get(slab.part(wrap)).map(Bytes::copy_from_slice)
    }

    /// The head of a packet, as it was stamped last.
    pub(super) fn head(&self, window: &Window<Image>, packet: u64) -> Option<[u8; HEAD_LEN]> {
        let spot = window.locate(self.from + packet)?;
        let (_, image) = window.batch(spot.batch)?;
        image.mms.get(spot.packet * self.stride..)?.first_chunk().copied()
    }
}
