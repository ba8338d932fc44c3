//! Little-endian fields appended to a buffer.

use super::Guid;

/// Appends little-endian fields to a byte vector.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// A writer with room for `capacity` bytes before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    /// Bytes written so far.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether a message is empty")]
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Appends `n` zero bytes.
    pub fn zeros(&mut self, n: usize) -> &mut Self {
        self.out.resize(self.out.len() + n, 0);
        self
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a double.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a GUID in file order.
    pub fn guid(&mut self, value: Guid) -> &mut Self {
        self.bytes(&value.0)
    }

    /// Pads with zeros to a multiple of `unit` bytes.
    pub fn pad_to(&mut self, unit: usize) -> &mut Self {
        let target = self.out.len().next_multiple_of(unit);
        self.out.resize(target, 0);
        self
    }

    /// Overwrites four bytes at `offset`, which must have been written before.
    ///
    /// # Panics
    /// Where they have not: a mistake of the caller, never of a peer.
    #[expect(clippy::indexing_slicing, reason = "the caller's contract")]
    pub fn patch_u32(&mut self, offset: usize, value: u32) -> &mut Self {
        self.out[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}
