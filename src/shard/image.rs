//! The packets of a batch as one protocol frames them.

use std::io::IoSlice;
use std::ops::Range;

use crate::mms::media::{self, HEAD_LEN, Next};
use crate::relay::{Batch, BatchPacket, Spot, Window};

/// Batches that one system call gathers.
const PARTS: usize = 32;

/// The packets of one batch as MMS frames them, made when the first MMS viewer needs them.
///
/// Everything in it is the same for all viewers but two bytes of each head, which are stamped just before each send: the kernel
/// has its copy when the call returns, so one image serves all.
#[derive(Debug, Default)]
pub struct Image(Vec<u8>);

impl Image {
    fn framed(&mut self, batch: &Batch) {
        if self.0.is_empty() {
            media::wrap(&batch.bytes, batch.generation.packet_size, batch.locations(0), &mut self.0);
        }
    }
}

/// What one call sends: the same for all viewers that have this header and get this packet next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Number of the first packet.
    from: u64,
    spot: Spot,
    parts: usize,
    pub(super) packets: u32,
    /// Bytes of a packet and its head.
    pub(super) stride: usize,
    /// The packets after it belong to another header.
    pub(super) boundary: bool,
}

impl Plan {
    /// Gathers packets from number `from` on that have this header, as long as they are `due`; `most` tells how many packets of a
    /// stride a call takes. `None` where the window has none.
    pub(super) fn new(
        window: &mut Window<Image>,
        from: u64,
        generation: u32,
        most: impl Fn(usize) -> u32,
        due: impl Fn(&BatchPacket) -> bool,
    ) -> Option<Self> {
        let spot = window.locate(from)?;
        let mut plan = Self { from, spot, parts: 0, packets: 0, stride: 1, boundary: false };
        let mut index = spot.packet;
        while plan.parts < PARTS {
            let Some((batch, image)) = window.batch_mut(spot.batch + plan.parts) else { break };
            if batch.generation.number != generation {
                plan.boundary = true;
                break;
            }
            plan.stride = batch.generation.packet_size + HEAD_LEN;
            let there = batch.packets.get(index..).unwrap_or_default();
            let room = most(plan.stride).saturating_sub(plan.packets) as usize;
            let count = there.iter().take(room).take_while(|packet| due(packet)).count();
            if count == 0 {
                break;
            }
            image.framed(batch);
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
        let (mut left, mut first, mut sequence) = (self.packets, self.spot.packet, next.sequence);
        let mut ranges: [Range<usize>; PARTS] = std::array::from_fn(|_| 0..0);
        for (range, index) in ranges.iter_mut().zip(self.spot.batch..).take(self.parts) {
            let Some((batch, image)) = window.batch_mut(index) else { break };
            let there = u32::try_from(batch.packets.len().saturating_sub(first)).unwrap_or(u32::MAX);
            let count = left.min(there);
            *range = first * self.stride..(first + count as usize) * self.stride;
            let part = image.0.get_mut(range.clone()).unwrap_or_default();
            media::stamp(part, self.stride, next.incarnation, sequence);
            (left, first, sequence) = (left - count, 0, sequence.wrapping_add(count));
        }
        let window = &*window;
        let mut parts = [IoSlice::new(&[]); PARTS];
        for ((part, range), index) in parts.iter_mut().zip(ranges).zip(self.spot.batch..).take(self.parts) {
            *part = IoSlice::new(window.batch(index).and_then(|(_, image)| image.0.get(range)).unwrap_or_default());
        }
        send(parts.get(..self.parts).unwrap_or_default())
    }

    /// The head of a packet, as it was stamped last.
    pub(super) fn head(&self, window: &Window<Image>, packet: u64) -> Option<[u8; HEAD_LEN]> {
        let spot = window.locate(self.from + packet)?;
        let (_, image) = window.batch(spot.batch)?;
        image.0.get(spot.packet * self.stride..)?.first_chunk().copied()
    }
}
