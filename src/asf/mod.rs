//! The Advanced Systems Format: header, packets, framing. No IO.

mod broadcast;
pub mod chunk;
#[cfg(test)]
pub(crate) mod fabricate;
mod framed;
pub mod guids;
pub mod header;
pub mod index;
mod layout;
mod objects;
pub mod packet;
pub mod padding;
pub mod payloads;
mod properties;
#[cfg(test)]
pub(crate) mod samples;
pub mod shift;
pub mod stream;
mod stream_set;

pub use header::{Header, HeaderError};
pub use index::{Index, IndexBounds, IndexSearch};
pub use packet::{PacketError, PacketInfo, send_time_ms, walk};
pub use padding::{restore, strip};
pub use payloads::{Payload, Payloads, payloads};
pub use properties::{Format, Stream, StreamKind};
pub use shift::{ObjectNumbers, Shift, shift};
pub use stream::{Event, Reader, StreamError};
pub use stream_set::StreamSet;
