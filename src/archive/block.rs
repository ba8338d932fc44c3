//! A run of packets as it was read from the disk.

/// Bytes that a block aims at; a packet that is longer makes a block of its own.
const BLOCK_LEN: usize = 32 << 10;

/// Packets of one size per block of a file.
pub(super) fn packets_per_block(packet_size: usize) -> u64 {
    (BLOCK_LEN / packet_size.max(1)).max(1) as u64
}

/// Some packets of a file, one behind the other.
#[derive(PartialEq, Eq)]
pub struct Block {
    first: u64,
    packet_size: usize,
    bytes: Box<[u8]>,
}

impl Block {
    pub(super) const fn new(first: u64, packet_size: usize, bytes: Box<[u8]>) -> Self {
        Self { first, packet_size, bytes }
    }

    /// The number of its first packet.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// How many packets it holds, at least 1.
    pub const fn count(&self) -> usize {
        self.bytes.len() / self.packet_size
    }

    /// A packet by its number in the file, whole; `None` where another block has it.
    pub fn packet(&self, number: u64) -> Option<&[u8]> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let at = place.checked_mul(self.packet_size)?;
        self.bytes.get(at..at.checked_add(self.packet_size)?)
    }

    /// Bytes of all packets.
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("first", &self.first).field("count", &self.count()).finish_non_exhaustive()
    }
}
