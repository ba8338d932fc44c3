//! The only owner of viewers' sockets.

mod handoff;
pub mod listen;
mod sniff;
pub mod udp;

pub use handoff::{HandOff, Handed};
