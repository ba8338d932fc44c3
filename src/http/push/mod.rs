//! Encoder push as Windows Media Encoder speaks it: what is in its requests, the frames of its bodies, the life of its session.
//!
//! ```text
//! PushSetup ──→ 204 with the session's id      nobody sends: the inactivity timer runs
//! PushStart ──→ frames, Content-Length bytes of them ──→ 204 ──→ PushStart, on this connection or another
//! ```
//!
//! The connection is read by [`super::Connection`], as that of any publisher.
//!
//! Source: MS-WMHTTP.

mod cookie;
mod frames;
mod reply;
mod request;
mod session;
mod setup;

pub use cookie::PushId;
pub use frames::{FrameError, Frames, Progress};
pub(super) use reply::{no_content, refusal};
pub use request::Push;
pub(super) use request::{agent_is_encoder, kind_of};
pub use session::{Expiry, Occupied, Session, Timers};
pub use setup::Setup;

/// Largest Content-Length of a PushStart: what encoders send that mean "for ever".
pub(super) const MAX_START_LENGTH: u64 = 2_147_483_647;
/// Largest body of a PushSetup, bytes.
pub(super) const MAX_SETUP_LENGTH: u64 = 2048;
