//! What those at the live edge get with one pass: nearly everybody gets the same.

use std::io::IoSlice;

use super::image::Image;
use crate::mms::media::{self, HEAD_LEN, Next};
use crate::relay::Window;

/// More than this is no tick but a source in a hurry; what is beyond goes batch by batch.
const MOST_BYTES: usize = 1 << 20;

/// The packets of one pass in one buffer, framed as MMS has it, made when the first MMS viewer needs them.
///
/// As in an [`Image`], two bytes of each head are stamped just before each send. One buffer for all passes: it stays in the
/// processor's cache, and no page of it is new.
#[derive(Debug, Default)]
pub(super) struct Edge {
    from: u64,
    end: u64,
    generation: u32,
    /// Bytes of a packet and its head.
    stride: usize,
    image: Vec<u8>,
}

/// A part of an [`Edge`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    offset: usize,
    /// Bytes of a packet and its head.
    pub(super) stride: usize,
    pub(super) packets: u32,
}

impl Slice {
    /// Bytes on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.stride * self.packets as usize
    }
}

impl Edge {
    /// Frames the packets from number `from` on and before `end`, as far as they have the header of the first.
    pub(super) fn fill(&mut self, window: &Window<Image>, from: u64, end: u64) {
        if self.image.capacity() > 2 * MOST_BYTES {
            self.image = Vec::new();
        }
        self.image.clear();
        (self.from, self.end) = (from, from);
        while self.end < end && self.image.len() < MOST_BYTES {
            let Some((batch, index)) = window.packet(self.end) else { break };
            let generation = &batch.generation;
            if self.end == from {
                (self.generation, self.stride) = (generation.number, generation.packet_size + HEAD_LEN);
            } else if generation.number != self.generation {
                break;
            }
            let packets = batch.packets.len() - index;
            let bytes = batch.bytes.get(index * generation.packet_size..).unwrap_or_default();
            media::wrap(bytes, generation.packet_size, batch.locations(index), &mut self.image);
            self.end += packets as u64;
        }
    }

    /// Whether it was filled for those who begin at `from`.
    pub(super) fn is_of(&self, from: u64) -> bool {
        self.from == from && self.end > from
    }

    /// Nothing in it is valid any more.
    pub(super) fn clear(&mut self) {
        self.end = self.from;
    }

    /// What a viewer of this header gets whose next packet is `from`; at most as many packets as `most` says for the stride.
    pub(super) fn slice(&self, from: u64, generation: u32, most: impl FnOnce(usize) -> u32) -> Option<Slice> {
        if from < self.from || from >= self.end || generation != self.generation {
            return None;
        }
        let offset = usize::try_from(from - self.from).ok()? * self.stride;
        let packets = u32::try_from(self.end - from).unwrap_or(u32::MAX).min(most(self.stride));
        Some(Slice { offset, stride: self.stride, packets })
    }

    /// Writes a viewer's numbers into the heads and gives the stamped bytes to `send`.
    pub(super) fn stamped<T>(&mut self, slice: &Slice, next: &Next, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let bytes = self.image.get_mut(slice.offset..slice.offset + slice.bytes()).unwrap_or_default();
        media::stamp(bytes, slice.stride, next.incarnation, next.sequence);
        send(&[IoSlice::new(bytes)])
    }

    /// The head of a packet of a slice, as it was stamped last.
    pub(super) fn head(&self, slice: &Slice, packet: usize) -> Option<[u8; HEAD_LEN]> {
        self.image.get(slice.offset + packet * slice.stride..)?.first_chunk().copied()
    }
}
