//! The objects inside an ASF object: one walk for every level of a header.

use crate::wire::{Cursor, DecodeError, Guid};

/// Bytes in front of every object's body: GUID and size.
pub(super) const OBJECT_HEAD_LEN: usize = 24;

/// Objects that one level may hold; real headers have about ten.
const MAX_OBJECTS: usize = 1024;

/// One object: its GUID and all its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object<'a> {
    pub(super) guid: Guid,
    /// Where the object begins, in bytes from the start of the walked slice.
    pub(super) at: usize,
    /// The whole object, its 24 bytes of head included.
    pub(super) bytes: &'a [u8],
}

impl<'a> Object<'a> {
    /// A cursor at the body. Its offsets count from the body's first byte.
    pub(super) fn body(&self) -> Cursor<'a> {
        Cursor::new(self.bytes.get(OBJECT_HEAD_LEN..).unwrap_or_default())
    }
}

/// The objects of `bytes`, one behind the other. The iteration ends after the first error.
///
/// Sizes alone lead from object to object: the count that a Header Object states is often wrong in files
/// made by hand. Less than an object's head at the end is passed over.
pub(super) struct Objects<'a> {
    cursor: Cursor<'a>,
    seen: usize,
    broken: bool,
}

impl<'a> Objects<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(bytes), seen: 0, broken: false }
    }

    fn object(&mut self) -> Result<Object<'a>, DecodeError> {
        let at = self.cursor.position();
        let mut peek = self.cursor;
        let guid = peek.guid("object id")?;
        let size = peek.u64("object size")?;
        if self.seen == MAX_OBJECTS {
            return Err(peek.invalid("object", OBJECT_HEAD_LEN, "more than 1024 objects on one level"));
        }
        self.seen += 1;
        if size < 24 {
            return Err(peek.invalid("object size", 8, "less than the 24 bytes of an object's head"));
        }
        // A size beyond usize cannot be inside the slice either.
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > self.cursor.remaining() {
            return Err(peek.invalid("object size", 8, "runs past the end of the object around it"));
        }
        let bytes = self.cursor.take("object", size)?;
        Ok(Object { guid, at, bytes })
    }
}

impl<'a> Iterator for Objects<'a> {
    type Item = Result<Object<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.cursor.remaining() < OBJECT_HEAD_LEN {
            return None;
        }
        let object = self.object();
        self.broken = object.is_err();
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: u64, body: usize) -> Vec<u8> {
        let mut bytes = vec![7; 16];
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.resize(24 + body, 1);
        bytes
    }

    #[test]
    fn walks_by_size() {
        let bytes = [object(24, 0), object(30, 6), vec![0; 23]].concat();
        let found: Vec<_> = Objects::new(&bytes).map(|o| o.map(|o| (o.at, o.bytes.len(), o.body().remaining()))).collect();
        assert_eq!(found, [Ok((0, 24, 0)), Ok((24, 30, 6))]);
    }

    #[test]
    fn refuses_sizes_that_lie() {
        for size in [0, 23, 31, 1 << 63, u64::MAX] {
            let bytes = object(size, 6);
            let found: Vec<_> = Objects::new(&bytes).map(|o| o.map(|o| o.at)).collect();
            assert!(matches!(found[..], [Err(DecodeError::Invalid { offset: 16, .. })]), "{size}: {found:?}");
        }
    }

    #[test]
    fn bounds_the_number_of_objects() {
        let bytes = object(24, 0).repeat(1025);
        assert_eq!(Objects::new(&bytes).filter(Result::is_ok).count(), 1024);
        assert_eq!(Objects::new(&bytes).filter(Result::is_err).count(), 1);
    }
}
