//! ASF made here, of elementary streams: the header that describes them, and packets of their frames. No IO.
//!
//! ```text
//! StreamFormat … → Composition → header
//!                       └──────→ Writer ← frames
//!                                  └────→ packets
//! ```
//!
//! Source: ASF 3 and 5.2.

mod format;
mod header;
mod writer;

pub use format::{Law, StreamFormat};
pub use header::{Composition, CompositionError};
pub use writer::{Frame, FrameError, Latency, MAX_OBJECT_LEN, Writer};
