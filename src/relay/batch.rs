//! What travels from a publishing point to the shards: header generations and batches of packets.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::asf::StreamSet;

/// One header and all that engines ask of it; packets of one generation have one size and one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Counts the headers of a publishing point, from 0.
    pub number: u32,
    /// The broadcast header: Header Object and the 50 bytes of the Data Object's head.
    pub header: Bytes,
    /// Bytes of every packet.
    pub packet_size: usize,
    /// How far presentation times run ahead of media time, milliseconds.
    pub preroll_ms: u32,
    /// Sum of the streams' rates, bit/s.
    pub bit_rate: u32,
    /// All streams.
    pub streams: StreamSet,
    /// The streams whose key frames make join points; empty for audio only.
    pub video: StreamSet,
    /// Names the flow of all viewers over RTP, so that they can share the very datagrams. Random.
    pub ssrc: u32,
    /// The RTP sequence number of packet 0 would have been this. Random.
    pub sequence: u16,
}

/// Packets that became due together; shared by all shards and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The header that describes the packets.
    pub generation: Arc<Generation>,
    /// Number of the first packet. Numbers run on over generations and sources, without a gap: those of a variant that
    /// leaves packets out are its own.
    pub first: u64,
    /// The packets one after the other, each `generation.packet_size` long.
    pub bytes: Bytes,
    /// What the walk learnt of each packet; as many as there are packets.
    pub packets: Box<[BatchPacket]>,
    /// When the batch was to be sent.
    pub due: Instant,
}

/// What the walk learnt of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPacket {
    /// Its number in the source, which a variant that leaves packets out keeps; LocationId is the low half.
    pub number: u64,
    /// Send time on the timeline of the generation, milliseconds.
    pub send_time_ms: u32,
    /// Whether a viewer may begin with this packet.
    pub join_point: bool,
    /// Whether it has something of a key frame, of whichever stream.
    pub key: bool,
    /// Bytes up to the end of the last payload, without padding.
    pub used_len: u32,
}

impl Batch {
    /// The number after the last packet's.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.packets.len() as u64)
    }

    /// The numbers of the packets.
    pub fn numbers(&self) -> Range<u64> {
        self.first..self.end()
    }

    /// The bytes of the packet at `index` in this batch.
    pub fn packet(&self, index: usize) -> Option<&[u8]> {
        let size = self.generation.packet_size;
        let start = index.checked_mul(size)?;
        self.bytes.get(start..start.checked_add(size)?)
    }

    /// LocationIds of the packets from `index` on.
    #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the number")]
    pub fn locations(&self, index: usize) -> impl Iterator<Item = u32> + '_ {
        self.packets.iter().skip(index).map(|packet| packet.number as u32)
    }

    /// Memory that the batch holds, bytes: the packets and what is kept beside them.
    pub fn footprint(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.packets) + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use crate::relay::testing::{PACKET_SIZE, base, batch, generation};

    #[test]
    fn packets_are_cut_from_the_bytes() {
        let batch = batch(&generation(0), 7, base(), &[(0, true), (1, false)]);
        assert_eq!(batch.numbers(), 7..9);
        assert_eq!(batch.packet(1), Some(&[8; PACKET_SIZE][..]));
        assert_eq!((batch.packet(2), batch.packet(usize::MAX)), (None, None));
    }
}
