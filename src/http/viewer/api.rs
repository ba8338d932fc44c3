//! What a viewer's connection takes in and gives out.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::asf::Selection;
use crate::viewing::{Answer, Ask, Player, Titles};

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
    /// Longest fast start of a file, in media time, and how many times faster than it plays a file begins: players are promised
    /// no more.
    pub burst: Duration,
    /// See there.
    pub burst_rate: u32,
    /// Host name for addresses in what people and players are given, if it is not the one by which they came.
    pub public_name: Option<String>,
    /// Where MMS listens on ports of its own.
    pub mms: Vec<SocketAddr>,
    /// The port of RTSP, for descriptions; there are none without.
    pub rtsp_port: Option<u16>,
    /// What people are shown in place of names.
    pub titles: Titles,
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
            burst: Duration::from_secs(5),
            burst_rate: 5,
            public_name: None,
            mms: Vec::new(),
            rtsp_port: None,
            titles: Titles::default(),
        }
    }
}

impl Config {
    /// The port of MMS at the address by which a player came, or at another one: that may be the address of a proxy.
    pub(super) fn mms_port(&self, local: SocketAddr) -> Option<u16> {
        let local = local.ip().to_canonical();
        let serves = |listener: &&SocketAddr| {
            let ip = listener.ip().to_canonical();
            ip == local || ip.is_unspecified() && ip.is_ipv4() == local.is_ipv4()
        };
        // Another address of ours may lead there; that of this machine alone does so for nobody else.
        let others = || self.mms.iter().find(|listener| !listener.ip().to_canonical().is_loopback());
        self.mms.iter().find(serves).or_else(others).map(SocketAddr::port)
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

/// What is to be done, in order: after [`Ask::Stop`] no packet is begun, and what is sent next follows the one that was.
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
    /// Sent elsewhere.
    Redirected,
    /// The stream changed, and this viewer cannot be told.
    Changed,
    /// Another connection of its session plays in its stead.
    TakenOver,
    /// No complete request in time.
    Idle,
    /// The file that was played changed, or cannot be read.
    Broken,
    /// More requests than a player sends.
    Flood,
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
            Self::Redirected => "redirected",
            Self::Changed => "stream_changed",
            Self::TakenOver => "taken_over",
            Self::Idle => "idle",
            Self::Broken => "content_broken",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
        }
    }
}

/// What a connection tells about itself for the log.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Who asked for something of the relay last.
    pub player: Option<Player>,
    /// What was asked for last: `describe`, `play`, `download` and so on; nothing where no request was understood.
    pub asked: Option<&'static str>,
    /// Name of the publishing point that was asked for last, decoded; it has no control characters.
    pub name: Option<String>,
    /// What stood behind the question mark of its target, without keys; escape it before logging.
    pub query: Option<String>,
    /// The session that this connection belongs to.
    pub client_id: Option<u32>,
    /// The player has named a session that is its own: it keeps it in mind.
    pub names_session: bool,
    /// Requests understood.
    pub requests: u64,
    /// What the player said last about its playing, as sent, at most 8 KiB.
    pub log: Option<String>,
}

impl Report {
    /// The player's own words about itself, safe for one line of a log.
    pub fn player_text(&self) -> String {
        escaped(self.player.as_ref().map_or("", |player| &player.token), 128)
    }

    /// The player's own words about its playing, safe for one line of a log.
    pub fn log_text(&self) -> Option<String> {
        self.log.as_ref().map(|log| escaped(log, 2048))
    }
}

/// At most so many characters of foreign text, without any that break a line or a terminal.
fn escaped(text: &str, most: usize) -> String {
    let out: String = text.chars().take(most).flat_map(char::escape_default).collect();
    if out.is_empty() { "-".into() } else { out }
}
