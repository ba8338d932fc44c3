//! The only owner of viewers' sockets.

mod handoff;

pub use handoff::{HandOff, Handed};
