//! Packets on their way to the shards.

use std::sync::Arc;
use std::time::Instant;

use crate::asf::PacketError;
use crate::relay::batch::{Batch, BatchPacket, Generation};
use crate::relay::delivery::Delivery;
use crate::relay::drops::{DropCause, Drops};
use crate::relay::point::Point;
use crate::relay::timeline::Timeline;

/// Makes batches of one generation and of a bounded size, and sends them.
pub(super) struct Outbox<'p> {
    pub(super) point: &'p Point,
    now: Instant,
    /// Packets that are still to come, at most.
    left: usize,
    draft: Option<Draft>,
}

/// A batch in the making.
// Packets are copied out of the reader's buffer: a slice of it would keep all of the buffer in the windows, whatever
// the slice's length, and the byte bound of a window would bound nothing.
struct Draft {
    generation: Arc<Generation>,
    first: u64,
    bytes: Vec<u8>,
    packets: Vec<BatchPacket>,
}

impl<'p> Outbox<'p> {
    /// For so many packets, which are due now.
    pub(super) const fn new(point: &'p Point, now: Instant, packets: usize) -> Self {
        Self { point, now, left: packets, draft: None }
    }

    /// Gives a packet that came at `came` its place, and takes it along.
    ///
    /// # Errors
    /// [`PacketError`] where it is invalid, and left out.
    pub(super) fn place(&mut self, timeline: &mut Timeline, came: Instant, packet: &mut [u8]) -> Result<(), PacketError> {
        let point = self.point;
        if let Some(placed) = timeline.place(came, packet, &mut || point.file_id())? {
            if let Some(generation) = placed.opened {
                self.send();
                point.open_generation(generation);
            }
            if let Some(generation) = timeline.generation() {
                self.push(generation, placed.number, placed.packet, packet);
            }
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }

    /// The same for packets that re-cutting made: none should be invalid.
    pub(super) fn place_all(
        &mut self,
        timeline: &mut Timeline,
        drops: &mut Drops,
        came: Instant,
        mut packets: Vec<u8>,
        packet_size: usize,
    ) {
        self.left = packets.len() / packet_size.max(1);
        for packet in packets.chunks_exact_mut(packet_size.max(1)) {
            if let Err(error) = self.place(timeline, came, packet) {
                self.point.drops(drops, self.now, DropCause::Unsound, &error);
            }
        }
    }

    fn push(&mut self, generation: &Arc<Generation>, number: u64, packet: BatchPacket, bytes: &[u8]) {
        let most = (self.point.max_batch_bytes() / bytes.len().max(1)).max(1);
        if self.draft.as_ref().is_some_and(|draft| draft.packets.len() >= most) {
            self.send();
        }
        let draft = self.draft.get_or_insert_with(|| {
            let packets = self.left.clamp(1, most);
            Draft {
                generation: Arc::clone(generation),
                first: number,
                bytes: Vec::with_capacity(packets * bytes.len()),
                packets: Vec::with_capacity(packets),
            }
        });
        draft.bytes.extend_from_slice(bytes);
        draft.packets.push(packet);
    }

    pub(super) fn send(&mut self) {
        let Some(Draft { generation, first, bytes, packets }) = self.draft.take() else { return };
        let bytes = bytes.into_boxed_slice().into();
        let batch = Arc::new(Batch { generation, first, bytes, packets: packets.into_boxed_slice(), due: self.now });
        self.point.deliver(&Delivery::Batch { point: self.point.id(), batch });
    }
}
