//! The bytes below every format: a bounds-checked cursor, a growing writer, GUIDs, UTF-16, result codes and time units.
//!
//! Everything here is little-endian, as ASF and MMS are.

mod bucket;
mod cursor;
mod guid;
mod hresult;
mod utf16;
mod writer;

pub use bucket::TokenBucket;
pub use cursor::{Cursor, DecodeError};
pub use guid::Guid;
pub use hresult::Hresult;
pub use utf16::{decode_utf16, encode_utf16_nul};
pub use writer::Writer;

/// Seconds between 1601-01-01 (Windows file time) and 1970-01-01 (Unix time), in units of 100 ns.
pub const UNIX_EPOCH_AS_FILE_TIME: u64 = 116_444_736_000_000_000;
