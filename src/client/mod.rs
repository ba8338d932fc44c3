//! `wmrelay play`: plays a stream without decoding it, and tells how it was; `wmrelay swarm` ([`swarm`]) does so by the thousand.
//!
//! The conversation is [`crate::mms::client`], [`crate::http::client`] or [`crate::rtsp::client`]; here are their sockets.

pub mod api;
mod connection;
mod engine;
mod inquire;
mod landing;
mod order;
mod play;
pub mod probe;
mod reach;
mod sockets;
pub mod swarm;
pub mod tls;
mod url;
mod write;

#[cfg(test)]
mod tests;

pub use connection::Steering;
pub use inquire::{Content, inquire};
pub use order::Order;
pub use play::{PlayError, PlayOptions, PlayReport, play, play_observed};
pub use url::{DEFAULT_HTTP_PORT, DEFAULT_PORT, DEFAULT_RTSP_PORT, Scheme, StreamUrl, UrlError};
pub use write::AsfFile;
