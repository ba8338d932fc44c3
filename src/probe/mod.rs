//! The probe, without its sockets: what it sends, what it is told to try, and what follows from what it saw.
//!
//! A probe runs at the viewer's side and asks the server by the control port. [`plan`] is what the two say to
//! each other, [`datagram`] what goes by UDP, [`verdict`] turns what was seen into lines for people, [`table`] prints them.

pub mod datagram;
pub mod plan;
pub mod table;
pub mod verdict;

pub use datagram::{Datagram, Kind, TOKEN_BYTES, Token};
pub use plan::{
    Challenge, Challenged, Echo, ProbeAnswer, ProbePlan, Protocol, Speaks, TcpTest, UdpInTest, UdpOutTest, Untried, Wanted,
};
pub use verdict::{Line, Outcome, Report, Seen, State, TcpSeen, judge};

/// Client ports that one request may ask challenges for.
pub const CHALLENGES_MAX: usize = 64;
