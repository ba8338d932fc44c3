//! HTTP/1.1 on the media port, sans-IO: publishers that push (`POST` or `PUT` to `/publish/NAME`, encoders with a protocol of
//! their own), and viewers.
//!
//! Heads and body lengths are read more strictly than most servers do: a request that two parsers could understand
//! differently is refused, so that no proxy in front of us can be used to smuggle one request inside another.

mod body;
pub mod client;
mod errand;
mod head;
mod publish;
pub mod push;
mod request;
mod response;
pub mod viewer;
pub mod wrap;

pub use body::{Body, BodyError, Framing, FramingError};
pub use errand::Errand;
pub use head::{Head, HeadError, HeadReader};
pub use publish::{Answer, CloseReason, Connection, Input, Output, Timeouts};
pub use request::PublishRequest;
pub use response::{Refusal, Status};
