//! The connection of a viewer over HTTP, sans-IO: Windows Media's streaming protocol, and plain downloads.
//!
//! Source: MS-WMSP.

mod api;

pub use api::{CloseReason, Config, Input, Output, Told};
