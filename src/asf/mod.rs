//! The Advanced Systems Format: header, packets, framing. No IO.

mod stream_set;

pub use stream_set::StreamSet;
