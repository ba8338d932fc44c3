//! The client's engine over RTSP: plays one stream, without decoding it, from a Windows Media server. Streams of other servers can
//! be counted.
//!
//! Bytes and datagrams go in, messages, requests for lost packets and packets come out; the engine knows neither sockets nor clocks.
//!
//! ```text
//! OPTIONS → DESCRIBE → SETUP … → PLAY → media ─┬→ end of stream ─→ TEARDOWN → closed
//!              ↑          ↑        ↑           ├→ another header ─→ SETUP …
//!              │          │        └ PAUSE ←───┴─ seek, pause
//!              │          └ 461: the same over TCP
//!              └ nothing comes over UDP: another connection, over TCP
//! ```
//!
//! Source: MS-RTSP 3.1; RFC 2326.

mod answers;
mod api;
mod asks;
mod media;
mod plain;
mod request;
mod setup;
mod steps;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use api::{ClientConfig, ClientTransport, PULLING_SERVER};
use plain::Flows;
use setup::Setup;
use window::Window;

use super::depacketize::Depacketizer;
use super::media::{FRAME_HEAD_LEN, HEAD_LEN};
use super::message::{Bounds, Frames, Reader, Unit};
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, ClientStats, StartAt};
use crate::text::Challenge;

/// Time for each answer. A server may wait for its source before it answers.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// Time for the answer to our goodbye.
const STOP_TIME: Duration = Duration::from_secs(2);
/// The longest time without a byte or datagram; servers are asked for a sign of life more often.
const SILENCE: Duration = Duration::from_secs(90);
/// Time for the first datagram, where there is another way.
const UDP_TIME: Duration = Duration::from_secs(5);
/// Time for what is still on its way when the stream is over, at most, and at least over UDP.
const END_TIME: Duration = Duration::from_secs(1);
const STRAGGLER_TIME: Duration = Duration::from_millis(200);
/// How long a session lasts where the server does not say. Source: RFC 2326 12.37.
const SESSION_TIME_S: u64 = 60;

/// What a client is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// The description is wanted.
    Describing,
    /// One stream after the other.
    SettingUp,
    /// The server is to play.
    Starting,
    Playing,
    /// The server said that another stream follows.
    Changing,
    /// The server is to stop, after which we go on elsewhere, or rest.
    Halting,
    /// Nothing, until somebody wants to go on.
    Resting,
    /// The stream is over; missing packets are still wanted.
    Ending,
    /// Goodbye was said; then it is over, for this reason.
    Leaving(ClientEnd),
    Done,
}

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Errand {
    Options,
    Describe,
    /// A stream of the list, before anything is played.
    Setup,
    /// A stream more, while it plays.
    Add(u8),
    /// A stream less.
    Drop(u8),
    Play,
    Pause,
    KeepAlive,
    Teardown,
}

impl Errand {
    const fn name(&self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Setup | Self::Add(_) => "SETUP",
            Self::Play => "PLAY",
            Self::Pause => "PAUSE",
            Self::KeepAlive => "GET_PARAMETER",
            Self::Drop(_) | Self::Teardown => "TEARDOWN",
        }
    }
}

/// A request that was not answered yet.
#[derive(Debug)]
struct Pending {
    cseq: u64,
    errand: Errand,
    due: Instant,
}

/// The stream that was described.
#[derive(Debug)]
struct Known {
    /// Of the whole, for PLAY and TEARDOWN.
    url: String,
    /// `None`: it is no ASF.
    asf: Option<Asf>,
}

/// What is known of ASF.
#[derive(Debug)]
struct Asf {
    header: Bytes,
    packet_size: usize,
    streams: StreamSet,
    /// URLs for SETUP, by stream.
    urls: Vec<(u8, String)>,
}

/// What the server granted.
#[derive(Debug, Default)]
struct Session {
    id: String,
    /// How often it is told that we are there.
    keep_alive: Duration,
    /// Streams set up.
    streams: StreamSet,
    /// Channels of media.
    channels: Vec<u8>,
    /// The server's UDP ports: where media comes from, and where requests for lost packets go.
    media_port: Option<u16>,
    resend_ports: Option<(u16, u16)>,
    /// By which those name the session.
    resend_ssrc: Option<u32>,
}

/// A stream to be played, over one connection, or two where UDP does not work.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    /// In place of the one of the configuration, from when that has failed.
    transport: ClientTransport,
    reader: Reader,
    /// Another connection is on its way.
    connecting: bool,
    step: Step,
    pending: VecDeque<Pending>,
    cseq: u64,
    /// The server repeats our numbers, as it should.
    repeats_cseq: bool,
    /// Signs of life are asked for by OPTIONS.
    lacks_get_parameter: bool,
    /// The entry of a playlist that is played, as the server counts.
    entry: Option<u32>,
    challenge: Option<Challenge>,
    /// How often it was answered.
    answers: u32,
    /// Challenges since the last answer that was none.
    logins: u32,
    known: Option<Known>,
    setups: VecDeque<Setup>,
    session: Option<Session>,
    /// Where the next play begins; `None`: where the last one stopped.
    start_at: Option<StartAt>,
    /// Where the present one did.
    started_at: Option<StartAt>,
    is_paused: bool,
    /// Packets of the play that is being left are not wanted.
    is_seeking: bool,
    window: Window,
    depacketizer: Depacketizer,
    /// Of the flow that comes, and how many packets of others came in a row.
    media_ssrc: Option<u32>,
    foreign: u32,
    /// Media that came before the answer to PLAY: channel, or a datagram.
    early: Vec<(Option<u8>, Bytes)>,
    flows: Flows,
    location: u32,
    sequence: u32,
    stats: ClientStats,
    keep_alive_due: Option<Instant>,
    /// Nothing came over UDP yet.
    udp_due: Option<Instant>,
    change_due: Option<Instant>,
    end_due: Option<(Instant, Instant)>,
    silent_at: Instant,
    media_at: Instant,
    has_room: bool,
    outputs: VecDeque<ClientOutput>,
}

impl Client {
    /// A client on a connection that has just come about; its first request is in the queue.
    pub fn new(now: Instant, config: ClientConfig) -> Self {
        let mut client = Self {
            transport: config.transport,
            start_at: Some(config.start),
            started_at: None,
            config,
            reader: Reader::new(Bounds::CLIENT),
            connecting: false,
            step: Step::Describing,
            pending: VecDeque::new(),
            cseq: 0,
            repeats_cseq: false,
            lacks_get_parameter: false,
            entry: None,
            challenge: None,
            answers: 0,
            logins: 0,
            known: None,
            setups: VecDeque::new(),
            session: None,
            is_paused: false,
            is_seeking: false,
            window: Window::default(),
            depacketizer: Depacketizer::new(0),
            media_ssrc: None,
            foreign: 0,
            early: Vec::new(),
            flows: Flows::default(),
            location: 0,
            sequence: 0,
            stats: ClientStats::default(),
            keep_alive_due: None,
            udp_due: None,
            change_due: None,
            end_due: None,
            silent_at: now + SILENCE,
            media_at: now,
            has_room: true,
            outputs: VecDeque::new(),
        };
        client.ask(now, Errand::Options);
        client
    }

    /// Takes one input in; drain [`Client::poll_output`] behind it. After [`ClientOutput::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: ClientInput<'_>) {
        if self.step == Step::Done {
            return;
        }
        match input {
            ClientInput::Bytes(_) if self.connecting => {}
            ClientInput::Bytes(bytes) => {
                self.silent_at = now + SILENCE;
                self.reader.push(bytes);
                self.read(now);
            }
            ClientInput::Datagram(datagram) => {
                if self.is_udp() && !self.connecting {
                    self.datagram(now, datagram);
                }
            }
            ClientInput::Connected => self.connected(now),
            ClientInput::Closed => self.closed(),
            ClientInput::Timeout => self.timeout(now),
            ClientInput::Seek(at) => self.seek(now, at),
            ClientInput::Pause => self.pause(now),
            ClientInput::Resume => self.resume(now),
            ClientInput::Select(streams) => self.select(now, streams),
            ClientInput::Room(has_room) => {
                if has_room && !self.has_room {
                    // What was not read in the meantime cannot have come.
                    (self.silent_at, self.media_at) = (now + SILENCE, now);
                    self.pending.iter_mut().for_each(|pending| pending.due = now + ANSWER_TIME);
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
        let end = self
            .end_due
            .filter(|_| self.step == Step::Ending)
            .map(|(least, most)| if self.window.is_whole() { least } else { most });
        let change = self.change_due.filter(|_| self.step == Step::Changing);
        let dues = [self.keep_alive_due, self.udp_due, change, end, self.window.next_due()];
        let awaited = [self.answer_due(), self.silence_due(), self.media_due()];
        dues.into_iter().chain(awaited).flatten().min()
    }

    /// From here on interleaved media is passed over as it comes, and counted by its heads alone.
    pub fn skip_media(&mut self) {
        self.reader.set_frames(Frames::Skip);
    }

    /// What was counted so far.
    pub const fn stats(&self) -> ClientStats {
        let skipped = self.reader.skipped();
        let heads = (FRAME_HEAD_LEN + HEAD_LEN) as u64 * skipped.frames;
        ClientStats {
            packets: self.stats.packets + skipped.frames,
            bytes: self.stats.bytes + skipped.bytes.saturating_sub(heads),
            ..self.stats
        }
    }

    const fn is_udp(&self) -> bool {
        matches!(self.transport, ClientTransport::Udp { .. })
    }

    /// When an answer has been missing for too long. It comes behind media, which may lie unread.
    fn answer_due(&self) -> Option<Instant> {
        self.pending.iter().map(|pending| pending.due).min().filter(|_| self.has_room)
    }

    /// When a server that says nothing is gone.
    fn silence_due(&self) -> Option<Instant> {
        self.has_room.then_some(self.silent_at)
    }

    /// When media has been missing for too long. All other steps wait for an answer, which has a time of its own, or for nothing.
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
        if is_due(self.answer_due()) && !self.unanswered(now) {
            return;
        }
        if is_due(self.udp_due) {
            return self.leave_udp(now, "no datagram came");
        }
        if is_due(self.keep_alive_due) {
            self.ask(now, Errand::KeepAlive);
        }
        if is_due(self.change_due.filter(|_| self.step == Step::Changing)) {
            // The server announced another stream, which does not come.
            return self.begin_end(now);
        }
        self.request_missing(now);
        self.end_if_whole(now);
    }

    /// Some answer did not come; whether it goes on.
    fn unanswered(&mut self, now: Instant) -> bool {
        let late: Vec<Errand> = self.pending.iter().filter(|pending| pending.due <= now).map(|p| p.errand.clone()).collect();
        self.pending.retain(|pending| pending.due > now);
        for errand in late {
            match (&self.step, errand) {
                (Step::Leaving(end), _) => {
                    let end = end.clone();
                    self.close(end);
                    return false;
                }
                // There are servers that play on, and do not answer it.
                (_, Errand::KeepAlive | Errand::Add(_) | Errand::Drop(_)) => {}
                (_, errand) => {
                    self.close(ClientEnd::NoAnswer { what: errand.name(), limit: ANSWER_TIME });
                    return false;
                }
            }
        }
        true
    }

    fn read(&mut self, now: Instant) {
        while self.step != Step::Done && !self.connecting {
            match self.reader.next() {
                Ok(None) => return,
                Ok(Some(Unit::Response(response))) => self.response(now, &response),
                Ok(Some(Unit::Request(request))) => self.asked(now, &request),
                Ok(Some(Unit::Frame { channel, payload })) => self.frame(now, channel, &payload),
                Err(error) if error.goes_on => {}
                Err(error) => self.fail(error.text),
            }
        }
    }

    /// The connection is there that was asked for: all begins again.
    fn connected(&mut self, now: Instant) {
        if std::mem::take(&mut self.connecting) {
            self.silent_at = now + SILENCE;
            self.ask(now, Errand::Options);
        }
    }

    fn closed(&mut self) {
        let end = match &self.step {
            Step::Leaving(end) => end.clone(),
            Step::Ending => {
                self.end();
                ClientEnd::Ended
            }
            _ => ClientEnd::Closed,
        };
        self.close(end);
    }

    /// UDP does not work: once more, over TCP, and on another connection: not every server has a second session on one.
    fn leave_udp(&mut self, now: Instant, reason: &'static str) {
        self.event(ClientEvent::UdpRefused { reason });
        if self.session.is_some() {
            self.ask(now, Errand::Teardown);
        }
        self.transport = ClientTransport::Tcp;
        self.stats.lost += self.window.flush();
        (self.window, self.session, self.entry) = (Window::default(), None, None);
        self.start_at = self.start_at.or(self.started_at);
        self.pending.clear();
        self.setups.clear();
        self.early = Vec::new();
        (self.keep_alive_due, self.udp_due, self.change_due, self.end_due) = (None, None, None, None);
        self.reader = Reader::new(Bounds::CLIENT);
        self.step = Step::Describing;
        self.connecting = true;
        self.outputs.push_back(ClientOutput::Connect);
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(ClientOutput::Event(event));
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.close(ClientEnd::Protocol(why.into()));
    }

    fn close(&mut self, end: ClientEnd) {
        self.stats.lost += self.window.flush() + self.flows.missing();
        self.outputs.push_back(ClientOutput::Close(end));
        self.step = Step::Done;
    }
}
