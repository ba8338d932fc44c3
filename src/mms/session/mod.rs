//! The server's engine: one player's conversation from Connect to the close. Source: MS-MMSP 3.2.
//!
//! Bytes and answers go in, messages and wishes come out; the engine knows neither sockets nor clocks nor media. While it waits
//! for an answer of the relay it leaves later messages where they are, so that answers go out in the order of the requests.

mod api;
mod changes;
mod header;
mod login;
mod requests;
mod resends;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use api::{CloseReason, Config, Input, Output, PeerError, Report, Transport};
use bytes::Bytes;
use header::Fragments;
use login::Opening;
use resends::Resends;
use timers::{Timer, Timers};

use super::frame::{Decoder, Item, Message, encode};
use super::ping::{Ping, Pong};
use crate::asf::Selection;
use crate::viewing::{Ask, Content, Description};
use crate::wire::Hresult;
use crate::wire::TokenBucket;

/// Messages a second that a player may send, and how many at once.
const CONTROL_RATE: (u32, u32) = (50, 100);
/// Headers a second over UDP, and how many at once.
const UDP_HEADER_RATE: (u32, u32) = (2, 2);
/// Bytes that may wait while the relay thinks: an honest player sends a message or two ahead.
const MAX_AHEAD: usize = 32 * 1024;
/// Pings without an answer before the session ends.
const MAX_PINGS: u8 = 3;
/// Messages that did not fit the state before the session ends.
const MAX_WRONG_STATES: u8 = 3;

/// How far a session has come. Source: MS-MMSP 3.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Connect has not come, or is not answered.
    New,
    /// The player does not have the header.
    Init,
    /// It has, and does not play.
    Ready,
    /// It plays; media may rest for a moment (hold, drain).
    Streaming,
}

/// The answer for which later messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Admitted,
    Funnel,
    Opened { incarnation: u32 },
}

/// What the player opened.
#[derive(Debug)]
struct Opened {
    /// As the player knows it.
    description: Description,
    /// As it is by now, where that differs; told with the next StartPlaying, or when what plays has drained.
    next: Option<Description>,
    /// Nothing more will come.
    ended: bool,
    /// All that was asked for has been sent.
    finished: bool,
    /// Headers sent of this description.
    headers: u8,
}

/// One player's session.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    client_id: u32,
    decoder: Decoder,
    seq: u16,
    state: State,
    waiting: Option<Waiting>,
    /// What is waited for has had the time of a step, and now has [`Config::source_wait`].
    was_patient: bool,
    transport: Option<Transport>,
    /// What is being opened, for as long as the player may have to show who it is.
    opening: Option<Opening>,
    opened: Option<Opened>,
    selected: Selection,
    /// Of the last StartPlaying.
    incarnation: u32,
    /// The relay was asked to play and not to stop.
    playing: bool,
    fragments: Fragments,
    resends: Resends,
    timers: Timers,
    control_rate: TokenBucket,
    header_rate: TokenBucket,
    wrong_states: u8,
    pings: u8,
    /// Pings whose Pong has not come.
    pongs_due: u32,
    closed: bool,
    outputs: VecDeque<Output>,
    report: Report,
}

impl Session {
    /// A session of a connection that was just accepted; `client_id` names it in resend requests: unpredictable, unique, not 0.
    pub fn new(now: Instant, config: Arc<Config>, client_id: u32) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Step, now + config.handshake);
        timers.set(Timer::Handshake, now + config.handshake * 3);
        Self {
            config,
            client_id,
            decoder: Decoder::from_client(),
            seq: 0,
            state: State::New,
            waiting: None,
            was_patient: false,
            transport: None,
            opening: None,
            opened: None,
            selected: Selection::default(),
            incarnation: 0,
            playing: false,
            fragments: Fragments::default(),
            resends: Resends::default(),
            timers,
            control_rate: TokenBucket::new(now, CONTROL_RATE.0, CONTROL_RATE.1),
            header_rate: TokenBucket::new(now, UDP_HEADER_RATE.0, UDP_HEADER_RATE.1),
            wrong_states: 0,
            pings: 0,
            pongs_due: 0,
            closed: false,
            outputs: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Takes one input in; drain [`Session::poll_output`] behind it. After [`Output::Close`] or an error inputs do nothing.
    ///
    /// # Errors
    /// [`PeerError`]: the player broke the protocol; what is still in the queue may be sent, then the connection is to be closed.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Result<(), PeerError> {
        if self.closed {
            return Ok(());
        }
        let result = match input {
            Input::Bytes(bytes) => {
                self.decoder.feed(bytes);
                self.take_messages(now)
            }
            Input::Datagram(datagram) => {
                self.resend_request(now, datagram);
                Ok(())
            }
            Input::Answer(answer) => {
                self.answer(now, answer);
                self.take_messages(now)
            }
            Input::Timeout => {
                while let Some((timer, due)) = self.timers.expired(now) {
                    self.expire(now, timer, due);
                }
                Ok(())
            }
        };
        if result.is_err() {
            self.shut();
        }
        result
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() {
            // A viewer's session talks at its begin and then hardly ever: it gives back what its answers took.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Facts for the session's last log line.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The id in resend requests.
    pub const fn client_id(&self) -> u32 {
        self.client_id
    }

    /// The data path, once granted.
    pub const fn transport(&self) -> Option<Transport> {
        self.transport
    }

    /// It plays, or played a moment ago and has not been told the end yet, which over UDP waits for packets on their way.
    pub fn owes_end(&self) -> bool {
        self.state == State::Streaming && !self.closed
    }

    /// The streams that the player selected; all until it says.
    pub const fn selected(&self) -> Selection {
        self.selected
    }

    fn take_messages(&mut self, now: Instant) -> Result<(), PeerError> {
        while self.waiting.is_none() && !self.closed {
            match self.decoder.poll()? {
                Some(Item::Message(frame)) => self.request(now, &frame)?,
                Some(Item::Data { .. }) | None => return Ok(()),
            }
        }
        if self.decoder.buffered() > MAX_AHEAD {
            return Err(PeerError::Ahead(MAX_AHEAD));
        }
        Ok(())
    }

    fn expire(&mut self, now: Instant, timer: Timer, due: Instant) {
        match timer {
            Timer::Step | Timer::Handshake if self.waits_for_source() => {
                // It is not the player who is slow.
                self.was_patient = true;
                self.timers.set(Timer::Step, now + self.config.source_wait);
                self.timers.stop(Timer::Handshake);
            }
            Timer::Step | Timer::Handshake => {
                if let Some(Waiting::Opened { incarnation }) = self.waiting.take() {
                    // The source did not get ready in time: a player deserves to know.
                    self.report_open_failure(incarnation, Hresult::NO_STREAM);
                }
                self.close(CloseReason::Handshake);
            }
            Timer::Idle => self.close(CloseReason::Idle),
            Timer::KeepAlive if self.pings == MAX_PINGS => self.close(CloseReason::Unanswered),
            Timer::KeepAlive => {
                self.pings += 1;
                self.pongs_due = self.pongs_due.saturating_add(1);
                self.send(&Ping);
                self.timers.set(Timer::KeepAlive, now + self.config.keep_alive);
            }
            Timer::Fragment => self.next_fragment(due),
            Timer::Hold => self.play(super::data::CHANGED_INCARNATION),
            Timer::Drain => self.drained(now),
            Timer::Linger => self.close(CloseReason::Ended),
        }
    }

    /// Whether a name is being opened, and more time for that is left.
    fn waits_for_source(&self) -> bool {
        matches!(self.waiting, Some(Waiting::Opened { .. })) && !self.was_patient && !self.config.source_wait.is_zero()
    }

    /// A message came: whoever sends is alive. One that only answers a Ping of ours does not show that anybody is there:
    /// players do that by themselves for as long as they run.
    fn heard(&mut self, now: Instant, mid: u32) {
        self.pings = 0;
        let answer = mid == Pong::MID && self.pongs_due > 0;
        self.pongs_due -= u32::from(answer);
        for (timer, time) in
            [(Timer::Step, self.config.handshake), (Timer::Idle, self.idle()), (Timer::KeepAlive, self.config.keep_alive)]
        {
            let is_ours = timer == Timer::Step && matches!(self.waiting, Some(Waiting::Opened { .. }));
            if self.timers.runs(timer) && !is_ours && !(answer && timer == Timer::Idle) {
                self.timers.set(timer, now + time);
            }
        }
    }

    /// Enters a state and starts the timers that run in it.
    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        match state {
            State::New => {}
            State::Init => {
                self.timers.set(Timer::Step, now + self.config.handshake);
                self.timers.set(Timer::Handshake, now + self.config.handshake * 3);
                self.timers.stop(Timer::Idle);
                self.timers.stop(Timer::KeepAlive);
            }
            State::Ready => {
                self.handshake_over();
                self.timers.set(Timer::Idle, now + self.idle());
                self.timers.set(Timer::KeepAlive, now + self.config.keep_alive);
            }
            State::Streaming => {
                self.handshake_over();
                self.timers.stop(Timer::Idle);
                self.timers.set(Timer::KeepAlive, now + self.config.keep_alive);
            }
        }
    }

    /// How long a session that does not play may say nothing of its own accord.
    fn idle(&self) -> Duration {
        let played = self.incarnation != 0;
        match &self.opened {
            Some(opened) if played && matches!(opened.description.content, Content::File { .. }) => {
                self.config.pause.max(self.config.idle)
            }
            _ => self.config.idle,
        }
    }

    fn handshake_over(&mut self) {
        self.was_patient = false;
        self.timers.stop(Timer::Step);
        self.timers.stop(Timer::Handshake);
    }

    /// Lets media begin.
    fn play(&mut self, incarnation: u8) {
        self.playing = true;
        self.outputs.push_back(Output::Ask(Ask::Play { incarnation }));
    }

    /// Makes media stop, where it runs.
    fn stop_media(&mut self) {
        if std::mem::take(&mut self.playing) {
            self.outputs.push_back(Output::Ask(Ask::Stop));
        }
        self.timers.stop(Timer::Hold);
        self.timers.stop(Timer::Drain);
    }

    fn send<M: Message>(&mut self, message: &M) {
        let packet = encode(self.seq, message);
        self.seq = self.seq.wrapping_add(1);
        self.outputs.push_back(Output::Send(packet));
    }

    fn send_media(&mut self, packet: Bytes) {
        self.outputs.push_back(match self.transport {
            Some(Transport::Udp) => Output::Datagram(packet),
            Some(Transport::Tcp) | None => Output::Send(packet),
        });
    }

    /// A message did not fit the state; its report is already in the queue.
    fn wrong_state(&mut self) {
        self.wrong_states += 1;
        if self.wrong_states == MAX_WRONG_STATES {
            self.close(CloseReason::WrongState);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.outputs.push_back(Output::Close(reason));
        self.shut();
    }

    fn shut(&mut self) {
        self.closed = true;
        self.waiting = None;
        self.timers.stop_all();
        self.fragments = Fragments::default();
        self.decoder = Decoder::from_client();
    }
}
