//! What a session takes in and gives out.

use std::time::Duration;

use bytes::Bytes;

use crate::mms::frame::FrameError;
use crate::mms::log::{Logging, escaped};
use crate::viewing::{Answer, Ask, Player};
use crate::wire::{DecodeError, Hresult};

/// What is the same for all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `major.minor.build.revision` for the player; 9 or more makes the end of a stream unambiguous (MS-MMSP 3.1.5.18).
    pub server_version: String,
    /// Scheme by which some publishing points ask who somebody is, `BASIC` or nothing: players before Windows Media Player 8 want
    /// to know it beforehand (MS-MMSP 3.2.5.6).
    pub authentication: String,
    /// Time for each step up to ReadBlock; all of them together get three times as much.
    pub handshake: Duration,
    /// How much longer than a step it may take us to open a name, whose source may only be starting.
    pub source_wait: Duration,
    /// Time without a message of a session that does not play.
    pub idle: Duration,
    /// The same of one that has played a file: a person may have paused it.
    pub pause: Duration,
    /// A Ping goes out so long after the last message; the third without an answer is the last.
    pub keep_alive: Duration,
    /// Time from the end of a broadcast to the close, in which resends are still served.
    pub linger: Duration,
    /// How long media waits for a StartPlaying after a StreamChange on TCP.
    pub hold: Duration,
    /// Time from the last packet to the EndOfStream over UDP, for packets on their way.
    pub drain: Duration,
    /// A UDP socket with the number of the TCP port is bound, and UDP is allowed.
    pub udp: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_version: "9.1.1.3841".into(),
            authentication: String::new(),
            handshake: Duration::from_secs(10),
            source_wait: Duration::ZERO,
            idle: Duration::from_secs(60),
            pause: Duration::from_secs(3600),
            keep_alive: Duration::from_secs(30),
            linger: Duration::from_secs(30),
            hold: Duration::from_secs(5),
            drain: Duration::from_millis(100),
            udp: true,
        }
    }
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A resend request for this session's client id, from this session's address.
    Datagram(&'a [u8]),
    /// Answer to an [`Ask`], or news of what is played.
    Answer(Answer),
    /// The instant of [`super::Session::poll_timeout`] has come.
    Timeout,
}

/// What is to be done for a session, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the TCP connection, in one write: MPlayer takes one `recv` for one answer.
    Send(Bytes),
    /// For the leased UDP port.
    Datagram(Bytes),
    /// For the relay.
    Ask(Ask),
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(CloseReason),
}

/// Why a session ended; also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The player said goodbye.
    Left,
    /// The broadcast ended.
    Ended,
    /// Not admitted.
    Refused,
    /// Sent elsewhere.
    Redirected,
    /// The next step of the handshake did not come in time.
    Handshake,
    /// The file that was played changed, or cannot be read.
    Broken,
    /// Nothing heard of a session that did not play.
    Idle,
    /// Three Pings without an answer.
    Unanswered,
    /// Three messages that did not fit the state.
    WrongState,
    /// More messages a second than a player sends.
    Flood,
    /// Not MMS, or broken MMS.
    Protocol,
}

impl CloseReason {
    /// The value of the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Ended => "ended",
            Self::Refused => "refused",
            Self::Redirected => "redirected",
            Self::Handshake => "handshake",
            Self::Broken => "content_broken",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
            Self::WrongState => "wrong_state",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
        }
    }
}

/// What a player did that ends its session at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The bytes are not MMS.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message is broken.
    #[error("message 0x{mid:08X}: {error}")]
    Message {
        /// Which.
        mid: u32,
        /// Where.
        error: DecodeError,
    },
    /// The first message is not Connect.
    #[error("message 0x{0:08X} before Connect")]
    NotConnected(u32),
    /// Connect comes a second time.
    #[error("a second Connect on one connection")]
    SecondConnect,
    /// Too many messages that are not those of a player.
    #[error("more than {0} unknown messages")]
    Unknown(u8),
    /// Too many messages a second.
    #[error("more than {0} messages a second")]
    Flood(u32),
    /// Too many messages before an answer.
    #[error("more than {0} bytes of messages sent ahead")]
    Ahead(usize),
}

impl PeerError {
    /// How it counts among the ends of sessions.
    pub const fn reason(&self) -> CloseReason {
        match self {
            Self::Flood(_) | Self::Ahead(_) => CloseReason::Flood,
            _ => CloseReason::Protocol,
        }
    }
}

/// The data path of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// On the control connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a session tells about itself for its last log line.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Who played.
    pub player: Option<Player>,
    /// What was opened last.
    pub point: Option<String>,
    /// Why that did not open; nothing where it did, or is being opened.
    pub open_failure: Option<Hresult>,
    /// The data path.
    pub transport: Option<Transport>,
    /// Control messages taken in.
    pub messages: u64,
    /// Those of them that no player is known to send.
    pub unknown_messages: u8,
    /// UDP funnels refused.
    pub refused_funnels: u32,
    /// Packets that resend requests named.
    pub resends_asked: u64,
    /// Those of them that were passed on to the relay.
    pub resends_granted: u64,
    /// What the player said last about its playing.
    pub log: Option<Box<Logging>>,
}

impl Report {
    /// The player's own words about itself, safe for one line of a log.
    pub fn player_text(&self) -> String {
        escaped(self.player.as_ref().map_or("", |player| &player.token))
    }

    /// The player's own words about its playing, safe for one line of a log.
    pub fn log_text(&self) -> Option<String> {
        self.log.as_ref().map(ToString::to_string)
    }
}
