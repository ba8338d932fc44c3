//! What a viewer's connection takes in and gives out.

use std::time::Duration;

use bytes::Bytes;

use crate::asf::Selection;
use crate::viewing::{Answer, Ask};

/// What is the same for all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The `Server` field. Windows Media players go away where it does not begin with `Cougar/` or `Rex/`.
    pub server: String,
    /// For a complete head, from its first byte.
    pub head: Duration,
    /// For the next request on a connection that is kept alive.
    pub keep_alive: Duration,
    /// How long a session lasts that does not play.
    pub idle: Duration,
    /// What players are told of that, less.
    pub idle_told: Duration,
    /// How long a player has for the second of its two tests of pipelining.
    pub pipeline_test: Duration,
    /// Host name for addresses in what people and players are given, if it is not the one by which they came.
    pub public_name: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: concat!("Cougar/9.5.6001.18281 wmrelay/", env!("CARGO_PKG_VERSION")).into(),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            idle: Duration::from_secs(65),
            idle_told: Duration::from_secs(60),
            pipeline_test: Duration::from_secs(1),
            public_name: None,
        }
    }
}

/// What happens to a connection.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// The peer sends no more.
    End,
    /// Answer to an [`Ask`], or news of what is played.
    Answer(Answer),
    /// Another connection of the session says so.
    Told(Told),
    /// The instant of `Connection::poll_timeout` has come.
    Timeout,
}

/// What one connection of a session has to say to the one that plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The player selects other streams.
    Select(Selection),
    /// Another connection plays in its stead.
    Leave,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the TCP connection, between two packets of media.
    Send(Bytes),
    /// For the relay.
    Ask(Ask),
    /// For another connection of the same session: [`Input::Told`].
    Tell {
        /// The key that it was made with.
        connection: usize,
        /// What.
        told: Told,
    },
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(CloseReason),
}

/// Why a connection ended; also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The last answer was sent.
    Done,
    /// The peer closed.
    Left,
    /// The broadcast or the file ended.
    Ended,
    /// Not admitted, not there, not allowed.
    Refused,
    /// The stream changed, and this viewer cannot be told.
    Changed,
    /// Another connection of its session plays in its stead.
    TakenOver,
    /// No complete request in time.
    Idle,
    /// The file that was played changed, or cannot be read.
    Broken,
    /// Not HTTP, or broken HTTP.
    Protocol,
}

impl CloseReason {
    /// The value of the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "answered",
            Self::Left => "left",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Changed => "stream_changed",
            Self::TakenOver => "taken_over",
            Self::Idle => "idle",
            Self::Broken => "content_broken",
            Self::Protocol => "protocol",
        }
    }
}
