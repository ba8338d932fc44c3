//! The Advanced Systems Format: header, packets, framing. No IO.

mod broadcast;
pub mod chunk;
mod commands;
mod compact;
pub mod compose;
mod content_description;
#[cfg(test)]
pub(crate) mod fabricate;
#[cfg(test)]
pub(crate) mod fabricate_stream;
mod framed;
pub mod guids;
mod guise;
pub mod header;
pub mod index;
mod lay;
mod layout;
mod objects;
mod on_demand;
pub mod packet;
pub mod padding;
pub mod payloads;
mod properties;
mod recut;
mod recut_live;
mod rewrite;
#[cfg(test)]
pub(crate) mod samples;
mod select;
pub mod shift;
pub mod stream;
mod stream_rates;
mod stream_set;

pub use commands::blank_url_commands;
pub use content_description::ContentDescription;
#[cfg(test)]
pub(crate) use content_description::tests::object as content_description_object;
pub use guise::{Difference, Guise, ParameterSets};
pub use header::{Header, HeaderError};
pub use index::{Index, IndexBounds, IndexSearch};
pub use on_demand::OnDemandFacts;
pub use packet::{PacketError, PacketInfo, send_time_ms, walk};
pub use padding::{restore, strip};
pub use payloads::{Payload, Payloads, payloads};
pub use properties::{Format, Stream, StreamKind};
pub use recut::Recut;
pub use recut_live::Recutter;
pub use select::{KEYLESS_MS, Kept, Selection, Selector};
pub use shift::{ObjectNumbers, Shift, shift};
pub use stream::{Event, Reader, StreamError};
pub use stream_rates::StreamRates;
pub use stream_set::StreamSet;
