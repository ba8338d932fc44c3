//! The packets of a batch as one protocol frames them.

use std::io::IoSlice;

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
            #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the number")]
            media::wrap(&batch.bytes, batch.generation.packet_size, batch.first as u32, &mut self.0);
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

    /// The range in the image of each part, and its packets.
    fn ranges<'w>(&self, window: &'w Window<Image>) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> + use<'w> {
        let (mut left, mut first, plan) = (self.packets as usize, self.spot.packet, *self);
        (plan.spot.batch..plan.spot.batch + plan.parts).map_while(move |index| {
            let (batch, _) = window.batch(index)?;
            let count = left.min(batch.packets.len().saturating_sub(first));
            let range = first * plan.stride..(first + count) * plan.stride;
            (left, first) = (left - count, 0);
            Some((index, range))
        })
    }

    /// Writes a viewer's numbers into the heads and gives the stamped images to `send`.
    pub(super) fn stamped<T>(&self, window: &mut Window<Image>, next: &Next, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut sequence = next.sequence;
        let (mut left, mut first) = (self.packets as usize, self.spot.packet);
        for index in self.spot.batch..self.spot.batch + self.parts {
            let Some((batch, image)) = window.batch_mut(index) else { break };
            let count = left.min(batch.packets.len().saturating_sub(first));
            let part = image.0.get_mut(first * self.stride..(first + count) * self.stride).unwrap_or_default();
            media::stamp(part, self.stride, next.incarnation, sequence);
            #[expect(clippy::cast_possible_truncation, reason = "at most `packets`, which has 32 bits")]
            {
                sequence = sequence.wrapping_add(count as u32);
            }
            (left, first) = (left - count, 0);
        }
        let window = &*window;
        let mut parts = [IoSlice::new(&[]); PARTS];
        for (part, (index, range)) in parts.iter_mut().zip(self.ranges(window)) {
            if let Some((_, image)) = window.batch(index) {
                *part = IoSlice::new(image.0.get(range).unwrap_or_default());
            }
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
