//! What those at the live edge get with one pass: nearly everybody gets the same.

use std::io::IoSlice;

use bytes::Bytes;

use super::framing::Framing;
use super::image::{Image, TCP_PACKETS, slab_parts};
use super::rtp;
use crate::http::wrap::Slab;
use crate::mms::media::{self, HEAD_LEN, Next};
use crate::relay::Window;
use crate::rtsp::media::{Carriage, Stretch};

/// More than this is no tick but a source in a hurry; what is beyond goes batch by batch.
const MOST_BYTES: usize = 1 << 20;

/// The packets of one pass, framed in one buffer for each protocol, made when its first viewer needs them.
///
/// As in an [`Image`], two bytes of each MMS head are stamped just before each send. One buffer for all passes: it stays in the
/// processor's cache, and no page of it is new.
#[derive(Debug, Default)]
pub(super) struct Edge {
    from: u64,
    end: u64,
    generation: u32,
    packet_size: usize,
    mms: Vec<u8>,
    slabs: Vec<u8>,
    rtp: rtp::Images,
}

/// A part of an [`Edge`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    /// Packets before it.
    index: usize,
    framing: Framing,
    /// Bytes of a packet on the wire.
    pub(super) stride: usize,
    pub(super) packets: u32,
}

impl Edge {
    /// Is about the packets from number `from` on and before `end`, as far as they have the header of the first.
    pub(super) fn begin(&mut self, window: &Window<Image>, from: u64, end: u64) {
        for image in [&mut self.mms, &mut self.slabs] {
            if image.capacity() > 2 * MOST_BYTES {
                *image = Vec::new();
            }
            image.clear();
        }
        self.rtp.clear(2 * MOST_BYTES);
        (self.from, self.end) = (from, from);
        let mut bytes = 0;
        while self.end < end && bytes < MOST_BYTES {
            let Some((batch, index)) = window.packet(self.end) else { break };
            let generation = &batch.generation;
            if self.end == from {
                (self.generation, self.packet_size) = (generation.number, generation.packet_size);
            } else if generation.number != self.generation {
                break;
            }
            let packets = batch.packets.len() - index;
            bytes += packets * (generation.packet_size + HEAD_LEN);
            self.end += packets as u64;
        }
    }

    /// Whether it is about what those get who begin at `from`.
    pub(super) fn is_of(&self, from: u64) -> bool {
        self.from == from && self.end > from
    }

    /// Nothing in it is valid any more.
    pub(super) fn clear(&mut self) {
        self.end = self.from;
    }

    /// What a viewer of this header gets whose next packet is `from`; at most as many packets as `most` says for the stride,
    /// in RTP packets of `max_datagram` bytes.
    pub(super) fn slice(
        &mut self,
        window: &Window<Image>,
        from: u64,
        generation: u32,
        (framing, max_datagram): (Framing, usize),
        most: impl FnOnce(usize) -> u32,
    ) -> Option<Slice> {
        if from < self.from || from >= self.end || generation != self.generation {
            return None;
        }
        self.frame(window, framing, max_datagram);
        let (there, unit) = match framing {
            Framing::Mms => (self.mms.len(), framing.stride(self.packet_size)),
            Framing::Http(_) => (self.slabs.len(), Slab::new(self.packet_size).stride()),
            Framing::Rtp(carriage) => (self.rtp.get(carriage)?.len(), 1),
        };
        if there as u64 != (self.end - self.from) * unit as u64 {
            // The window has let go of some: what is left of it is sent batch by batch.
            return None;
        }
        let index = usize::try_from(from - self.from).ok()?;
        let stride = framing.stride(self.packet_size);
        let packets = u32::try_from(self.end - from).unwrap_or(u32::MAX).min(most(stride));
        Some(Slice { index, framing, stride, packets })
    }

    /// Frames the packets for a protocol, unless that was done.
    fn frame(&mut self, window: &Window<Image>, framing: Framing, max_datagram: usize) {
        let image = match framing {
            Framing::Mms => &mut self.mms,
            Framing::Http(_) => &mut self.slabs,
            Framing::Rtp(carriage) => return self.frame_rtp(window, carriage, max_datagram),
        };
        if !image.is_empty() {
            return;
        }
        let mut number = self.from;
        while number < self.end {
            let Some((batch, index)) = window.packet(number) else { break };
            let bytes = batch.bytes.get(index * self.packet_size..).unwrap_or_default();
            match framing {
                Framing::Mms => media::wrap(bytes, self.packet_size, batch.locations(index), image),
                Framing::Http(_) | Framing::Rtp(_) => Slab::new(self.packet_size).wrap(bytes, batch.locations(index), image),
            }
            number += (batch.packets.len() - index) as u64;
        }
    }

    fn frame_rtp(&mut self, window: &Window<Image>, carriage: Carriage, max_datagram: usize) {
        let image = self.rtp.get_or_new(carriage);
        if !image.is_empty() {
            return;
        }
        let mut number = self.from;
        while number < self.end {
            let Some((batch, index)) = window.packet(number) else { break };
            rtp::frame(batch, index, max_datagram, image);
            number += (batch.packets.len() - index) as u64;
        }
    }

    /// Gives the RTP packets of a slice to `send`, numbered as this viewer gets them.
    pub(super) fn rtp<T>(&mut self, slice: &Slice, next: &Next, carriage: Carriage, send: impl FnOnce(&[Stretch<'_>]) -> T) -> T {
        let image = self.rtp.get_or_new(carriage);
        image.stamp(rtp::ahead(next, image.fragments()), carriage);
        send(&[image.stretch(slice.index, slice.packets as usize)])
    }

    /// Gives the bytes for a viewer to `send`; its numbers, where it has some of its own, are written into the heads first.
    pub(super) fn stamped<T>(&mut self, slice: &Slice, next: &Next, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let packets = slice.packets as usize;
        match slice.framing {
            Framing::Mms => {
                let begin = slice.index * slice.stride;
                let bytes = self.mms.get_mut(begin..begin + packets * slice.stride).unwrap_or_default();
                media::stamp(bytes, slice.stride, next.incarnation, next.sequence);
                send(&[IoSlice::new(bytes)])
            }
            Framing::Http(wrap) => {
                let slab = Slab::new(self.packet_size);
                let begin = slice.index * slab.stride();
                let slabs = self.slabs.get(begin..begin + packets * slab.stride()).unwrap_or_default();
                let mut parts = [IoSlice::new(&[]); TCP_PACKETS];
                let count = slab_parts(slabs, slab, wrap, &mut parts);
                send(parts.get(..count).unwrap_or_default())
            }
            Framing::Rtp(_) => send(&[]),
        }
    }

    /// The head of a packet of an MMS slice, as it was stamped last.
    pub(super) fn head(&self, slice: &Slice, packet: usize) -> Option<[u8; HEAD_LEN]> {
        self.mms.get((slice.index + packet) * slice.stride..)?.first_chunk().copied()
    }

    /// A packet of a slice as a viewer over HTTP gets it.
    pub(super) fn part(&self, slice: &Slice, packet: usize) -> Option<Bytes> {
        let Framing::Http(wrap) = slice.framing else { return None };
        let slab = Slab::new(self.packet_size);
        let begin = (slice.index + packet) * slab.stride();
        self.slabs.get(begin..)?.get(slab.part(wrap)).map(Bytes::copy_from_slice)
    }
}

impl Slice {
    pub(super) const fn framing(&self) -> Framing {
        self.framing
    }
}
