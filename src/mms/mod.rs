//! MMS, the Microsoft Media Server protocol: messages, framing of media, the server's and the client's engine. No IO.
//!
//! A file a message family; [`frame`] carries them, [`session`] and [`client`] are the two sides of the conversation, and [`media`]
//! frames packets and keeps the per-viewer numbers.
//!
//! Source: MS-MMSP 6.1; where it contradicts itself or the players, the comment at the place says what is done.

pub mod block;

pub mod client;
pub mod connect;
pub mod data;
pub mod end;
pub mod frame;
pub mod funnel;
pub mod log;
pub mod media;
pub mod open;
pub mod ping;
pub mod play;
pub mod redirect;
pub mod resend;
pub mod security;
pub mod select;
pub mod session;

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod testing;
