//! What a viewer's connection takes in and gives out.

use std::time::Duration;

use bytes::Bytes;

use crate::viewing::{Answer, Ask, Player, Titles};

/// The `Server` field where nothing else is said: players of Windows Media look for such a one.
pub const SERVER: &str = "WMServer/9.5.6001.18000";

/// What is the same for all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The `Server` field. Players take the dialect of Windows Media where it begins with `WMServer/`, in the very first answer.
    pub server: String,
    /// For the first complete request.
    pub head: Duration,
    /// For the next request of a player that has set nothing up.
    pub unsettled: Duration,
    /// How long a session lasts of which nothing is heard, unless media runs over its connection.
    pub idle: Duration,
    /// What players are told of that, less.
    pub idle_told: Duration,
    /// Behind the end of the stream, for players that would wait for ever: then the connection closes.
    pub farewell: Duration,
    /// Longest fast start of a file, in media time, and how many times faster than it plays a file begins: players are promised
    /// no more.
    pub burst: Duration,
    /// See there.
    pub burst_rate: u32,
    /// Whoever announces a stream is handed over: [`Output::HandOver`].
    pub publishers: bool,
    /// Host name for addresses in what players are given, if it is not the one by which they came.
    pub public_name: Option<String>,
    /// What people are shown in place of names.
    pub titles: Titles,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: SERVER.into(),
            head: Duration::from_secs(10),
            unsettled: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            idle_told: Duration::from_secs(60),
            farewell: Duration::from_secs(5),
            burst: Duration::from_secs(5),
            burst_rate: 5,
            publishers: false,
            public_name: None,
            titles: Titles::default(),
        }
    }
}

/// What happens to a connection.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes of the TCP connection.
    Bytes(&'a [u8]),
    /// A request for lost packets, from the player's address.
    Datagram(&'a [u8]),
    /// Answer to an [`Ask`], or news of what is played.
    Answer(Answer),
    /// The connection is gone.
    End {
        /// The packet behind the last one that was sent, if a file was played.
        next: Option<u32>,
    },
    /// The instant of `Connection::poll_timeout` has come.
    Timeout,
}

/// What is to be done, in order: after [`Ask::Stop`] no packet is begun, and what is sent next follows the one that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the TCP connection, between two packets of media.
    Send(Bytes),
    /// For the ports leased for resends.
    Datagram(Bytes),
    /// For the relay.
    Ask(Ask),
    /// The connection is a publisher's from here on: what comes next on it, its request first. Nothing follows.
    HandOver(Vec<u8>),
    /// Close the connection when everything before it is sent. Nothing follows.
    Close(CloseReason),
}

/// Why a connection ended; also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The player said goodbye.
    Left,
    /// The broadcast or the file ended.
    Ended,
    /// Not admitted, not there, not allowed.
    Refused,
    /// Sent elsewhere.
    Redirected,
    /// Sent to the same name again: it plays where it might have published.
    SentAgain,
    /// The stream changed, and this player cannot be told.
    Changed,
    /// Nothing was heard in time.
    Idle,
    /// The file that was played changed, or cannot be read.
    Broken,
    /// More requests than a player sends.
    Flood,
    /// Not RTSP, or broken RTSP.
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
            Self::SentAgain => "sent_again",
            Self::Changed => "stream_changed",
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
    /// Name of the publishing point that was asked for last, decoded; it has no control characters.
    pub name: Option<String>,
    /// Requests understood.
    pub requests: u64,
    /// What the player said last about its playing, as sent.
    pub log: Option<String>,
    /// Packets that requests named, and those of them that were asked of the relay.
    pub resends_asked: u64,
    /// See there.
    pub resends_granted: u64,
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
