//! A reader over a slice that cannot run past its end.

use super::Guid;

/// Why bytes do not decode, and where.
///
/// `field` is the name of the field that was being read, `offset` its place in bytes from the start of the slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The slice ends inside the field.
    #[error("{field} at byte {offset}: {missing} more bytes expected")]
    Short {
        /// Field being read.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// Bytes that are not there.
        missing: usize,
    },
    /// The field is there, but its value is not allowed.
    #[error("{field} at byte {offset}: {reason}")]
    Invalid {
        /// Field read.
        field: &'static str,
        /// Where it begins.
        offset: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads little-endian fields from a slice, front to back.
///
/// Every method that takes bytes fails with [`DecodeError::Short`] where fewer are left, and then takes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// Bytes read so far.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub const fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    /// The bytes left, not consumed.
    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn take(&mut self, field: &'static str, n: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.rest();
        match left.get(..n) {
            Some(bytes) => {
                self.at += n;
                Ok(bytes)
            }
            None => Err(DecodeError::Short { field, offset: self.at, missing: n - left.len() }),
        }
    }

    /// Passes over `n` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn skip(&mut self, field: &'static str, n: usize) -> Result<(), DecodeError> {
        self.take(field, n).map(|_| ())
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// The next eight bytes as a double.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn f64(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        self.array(field).map(f64::from_le_bytes)
    }

    /// The next 16 bytes as a GUID in file order.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer are left.
    pub fn guid(&mut self, field: &'static str) -> Result<Guid, DecodeError> {
        self.array(field).map(Guid)
    }

    /// The error for a value that was read but is not allowed; `width` bytes back is where it began.
    pub const fn invalid(&self, field: &'static str, width: usize, reason: &'static str) -> DecodeError {
        DecodeError::Invalid { field, offset: self.at.saturating_sub(width), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_little_endian_and_stops_at_the_end() {
        let mut cursor = Cursor::new(&[1, 2, 0, 3, 0, 0, 0, 9]);
        assert_eq!(cursor.u8("a"), Ok(1));
        assert_eq!(cursor.u16("b"), Ok(2));
        assert_eq!(cursor.u32("c"), Ok(3));
        assert_eq!(cursor.u16("d"), Err(DecodeError::Short { field: "d", offset: 7, missing: 1 }));
        assert_eq!(cursor.remaining(), 1, "a failed read takes nothing");
        assert_eq!(cursor.take("e", usize::MAX), Err(DecodeError::Short { field: "e", offset: 7, missing: usize::MAX - 1 }));
    }
}
