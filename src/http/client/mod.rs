//! The client's engine over HTTP: plays one stream, without decoding it, from a server of Windows Media's streaming protocol (in
//! non-pipelined mode), or as plain ASF from any other.
//!
//! Each request has a connection of its own; the engine says when it wants one, and knows neither sockets nor clocks.
//!
//! ```text
//! Describe ─┬→ $H ──→ Play ─→ $H $D … ─┬→ $E ──→ Log ─→ closed
//!           │          ↑ └─ seek, streams ┘ │
//!           │          └──── resumed ← at rest (KeepAlive, again and again)
//!           ├→ ASF: it plays already
//!           └→ 3xx, ASX, [Reference]: elsewhere
//! ```
//!
//! Source: MS-WMSP 3.1.

mod frames;
mod media;
mod metafile;
mod plain;
mod request;
mod response;
mod steps;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use frames::Frames;
use plain::Plain;
use response::{ResponseReader, Server};

use super::body::Body;
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, ClientStats, StartAt};
use crate::text::{Challenge, Login};
use crate::wire::Guid;

/// Time for each answer, up to the header. A server may wait for its source before it answers.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Time to tell the server how it was.
const LOG_TIME: Duration = Duration::from_secs(2);
/// The longest time without a byte while it plays.
const SILENCE: Duration = Duration::from_secs(30);
/// Time for media of a stream that has changed, where the server waits to be asked for it.
const CHANGE_TIME: Duration = Duration::from_secs(2);
/// How long a session lasts at rest where the server does not say.
const SESSION_TIME: Duration = Duration::from_secs(60);
/// How much earlier than that it is told that we are there.
const KEEP_ALIVE_LEAD: Duration = Duration::from_millis(500);
/// Challenges answered in a row, one of them because a nonce was too old.
const MOST_LOGINS: u32 = 2;

/// What is to be played, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConfig {
    /// Host of the URL with its port, if that is not 80; IPv6 in brackets.
    pub host: String,
    /// Path and query as the request line has them: with a slash at the begin, without spaces and control characters.
    pub target: String,
    /// The `User-Agent`, for instance `NSServer/9.0.0.3171`. Encoders give their stream to an `NSServer` only.
    pub player: String,
    /// Identifies this player, the same over its connections.
    pub guid: Guid,
    /// For a server that asks for it; never told to one that does not.
    pub login: Option<Login>,
    /// Random bytes, for the proofs of the password.
    pub salt: [u8; 8],
    /// Where to begin.
    pub start: StartAt,
    /// The streams to be sent; `None`: all.
    pub streams: Option<StreamSet>,
    /// Packets are counted and told of as [`ClientEvent::Counted`], without their bytes: for who plays by the thousand.
    pub count_only: bool,
    /// At the end of a stream stay, for a [`ClientInput::Seek`] to go on from, instead of leaving.
    pub stays: bool,
    /// While it plays, the longest time without media; then it leaves. `None`: for ever, as long as anything comes.
    pub media_time: Option<Duration>,
}

impl ClientConfig {
    /// Plays all of it from the beginning, packet by packet.
    pub const fn new(host: String, target: String, player: String, guid: Guid) -> Self {
        let (login, streams, media_time) = (None, None, None);
        let (salt, start, count_only, stays) = ([0; 8], StartAt::Beginning, false, false);
        Self { host, target, player, guid, login, salt, start, streams, count_only, stays, media_time }
    }
}

/// What a client is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The header is wanted.
    Describing,
    /// The server is to play.
    Starting,
    Playing,
    /// The server said that another stream follows.
    Changing,
    /// Nothing, until somebody wants to go on.
    Resting,
    /// The server is told how it was; then it is over, for this reason.
    Leaving(ClientEnd),
    Done,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Describe,
    Play,
    KeepAlive,
    Log,
}

impl Errand {
    const fn name(self) -> &'static str {
        match self {
            Self::Describe => "the stream's description",
            Self::Play => "playing",
            Self::KeepAlive => "keeping the session",
            Self::Log => "the log",
        }
    }
}

/// A connection.
#[derive(Debug)]
struct Exchange {
    errand: Errand,
    stage: Stage,
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    Connecting,
    Head(ResponseReader),
    Body { body: Body, content: Content },
}

/// What the body of a response is.
#[derive(Debug)]
enum Content {
    /// Its first bytes tell.
    Unknown(Vec<u8>),
    /// A text that may name another place.
    Text(Vec<u8>),
    Frames(Frames),
    Plain(Box<Plain>),
    /// Of no interest.
    Ignored,
}

/// The stream that was described.
#[derive(Debug)]
struct Known {
    header: Bytes,
    packet_size: usize,
    streams: StreamSet,
    live: bool,
}

/// A stream to be played, over as many connections as it takes.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    step: Step,
    exchange: Option<Exchange>,
    /// How the present answer begins: its type says that media follows the header by itself.
    is_media_type: bool,
    /// The body has a length.
    is_bounded: bool,
    server: Server,
    /// It does not wait for a choice of streams when the stream changes.
    plays_on: bool,
    client_id: Option<u32>,
    session_time: Duration,
    /// By the server's words; `None` where it says nothing of that.
    is_broadcast: Option<bool>,
    /// It sends ASF as it is.
    is_plain: bool,
    known: Option<Known>,
    selected: StreamSet,
    started_at: StartAt,
    start_at: StartAt,
    is_paused: bool,
    /// Plain ASF: what lies before it is left out.
    skips_to: Option<StartAt>,
    /// Number of the packet behind the last one of this play.
    next_location: Option<u32>,
    sequence: u32,
    challenge: Option<Challenge>,
    /// How often it was answered.
    answers: u32,
    /// Challenges since the last answer that was none.
    logins: u32,
    /// When the present play began, and how long those before it took.
    playing_since: Option<Instant>,
    played: Duration,
    stats: ClientStats,
    answer_due: Option<(Instant, &'static str)>,
    change_due: Option<Instant>,
    keep_alive_due: Option<Instant>,
    silent_at: Instant,
    media_at: Instant,
    has_room: bool,
    outputs: VecDeque<ClientOutput>,
}

impl Client {
    /// A client on a connection that has just come about; its first request is in the queue.
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        let mut client = Self {
            start_at: config.start,
            config,
            step: Step::Describing,
            exchange: Some(Exchange { errand: Errand::Describe, stage: Stage::Connecting }),
            is_media_type: false,
            is_bounded: false,
            server: Server::default(),
            plays_on: true,
            client_id: None,
            session_time: SESSION_TIME,
            is_broadcast: None,
            is_plain: false,
            known: None,
            selected: StreamSet::EMPTY,
            started_at: StartAt::Beginning,
            is_paused: false,
            skips_to: None,
            next_location: None,
            sequence: 0,
            challenge: None,
            answers: 0,
            logins: 0,
            playing_since: None,
            played: Duration::ZERO,
            stats: ClientStats::default(),
            answer_due: Some((now + ANSWER_TIME, Errand::Describe.name())),
            change_due: None,
            keep_alive_due: None,
            silent_at: now + SILENCE,
            media_at: now,
            has_room: true,
            outputs: VecDeque::new(),
        };
        client.connected();
        client
    }

    /// Takes one input in; drain [`Client::poll_output`] behind it. After [`ClientOutput::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: ClientInput<'_>) {
        if self.step == Step::Done {
            return;
        }
        match input {
            ClientInput::Bytes(bytes) => {
                self.silent_at = now + SILENCE;
                self.read(now, bytes);
            }
            ClientInput::Datagram(_) => {}
            ClientInput::Connected => self.connected(),
            ClientInput::Closed => self.closed(now),
            ClientInput::Timeout => self.timeout(now),
            ClientInput::Seek(at) => self.seek(now, at),
            ClientInput::Pause => self.pause(now),
            ClientInput::Resume => self.resume(now),
            ClientInput::Select(streams) => self.select(now, streams),
            ClientInput::Room(has_room) => {
                if has_room && !self.has_room {
                    // What was not read in the meantime cannot have come.
                    (self.silent_at, self.media_at) = (now + SILENCE, now);
                    if let Some((at, _)) = self.answer_due.as_mut().filter(|_| self.step == Step::Changing) {
                        *at = now + ANSWER_TIME;
                    }
                }
                self.has_room = has_room;
            }
            ClientInput::Stop => self.leave(now, ClientEnd::Stopped),
        }
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When [`ClientInput::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.step == Step::Done {
            return None;
        }
        let answer = self.answer_awaited().map(|(at, _)| at);
        [answer, self.silence_due(), self.media_due(), self.change_due, self.keep_alive_due].into_iter().flatten().min()
    }

    /// What was counted so far.
    pub const fn stats(&self) -> ClientStats {
        self.stats
    }

    const fn is_playing(&self) -> bool {
        matches!(self.step, Step::Playing | Step::Changing)
    }

    /// By when what is to come. What follows media comes behind it on the same connection, which may lie unread.
    fn answer_awaited(&self) -> Option<(Instant, &'static str)> {
        self.answer_due.filter(|_| self.has_room || self.step != Step::Changing)
    }

    /// When a server that says nothing is gone. All but playing has a time of its own.
    fn silence_due(&self) -> Option<Instant> {
        (self.has_room && self.is_playing()).then_some(self.silent_at)
    }

    /// When media has been missing for too long.
    fn media_due(&self) -> Option<Instant> {
        let awaited = self.step == Step::Playing && self.has_room;
        self.config.media_time.filter(|_| awaited).map(|time| self.media_at + time)
    }

    fn timeout(&mut self, now: Instant) {
        let is_due = |due: Option<Instant>| due.is_some_and(|at| now >= at);
        if is_due(self.silence_due()) {
            return self.close(ClientEnd::Silent(SILENCE));
        }
        if let Some(time) = self.config.media_time.filter(|_| is_due(self.media_due())) {
            return self.leave(now, ClientEnd::NoMedia(time));
        }
        if let Some((_, what)) = self.answer_awaited().filter(|(at, _)| now >= *at) {
            self.answer_due = None;
            match &self.step {
                Step::Leaving(end) => return self.close(end.clone()),
                // A sign of life that nobody answers; there will be another one.
                Step::Resting => self.rest(now),
                _ => return self.close(ClientEnd::NoAnswer { what, limit: ANSWER_TIME }),
            }
        }
        if is_due(self.change_due) {
            // The server waits to be asked.
            self.play(now);
        }
        if is_due(self.keep_alive_due) {
            self.keep_alive_due = None;
            self.connect(now, Errand::KeepAlive);
        }
    }

    /// Makes a connection for an errand, in place of the one that is open.
    fn connect(&mut self, now: Instant, errand: Errand) {
        self.exchange = Some(Exchange { errand, stage: Stage::Connecting });
        self.answer_due = Some((now + ANSWER_TIME, errand.name()));
        self.outputs.push_back(ClientOutput::Connect);
    }

    fn connected(&mut self) {
        let Some(Exchange { errand, stage: Stage::Connecting }) = self.exchange else { return };
        let request = self.request(errand);
        self.outputs.push_back(ClientOutput::Send(request.into()));
        self.exchange = Some(Exchange { errand, stage: Stage::Head(ResponseReader::default()) });
    }

    fn disconnect(&mut self) {
        if self.exchange.take().is_some() {
            self.outputs.push_back(ClientOutput::Disconnect);
        }
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(ClientOutput::Event(event));
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.close(ClientEnd::Protocol(why.into()));
    }

    fn close(&mut self, end: ClientEnd) {
        self.exchange = None;
        self.outputs.push_back(ClientOutput::Close(end));
        self.step = Step::Done;
    }
}
