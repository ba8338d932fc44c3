//! The connection of a viewer over HTTP, sans-IO: Windows Media's streaming protocol, and plain downloads.
//!
//! Requests are taken one at a time. While the relay thinks about one, later bytes wait; while media is sent in chunks, later
//! requests are answered behind it, when its body ends (MS-WMSP 3.2.4.1).
//!
//! ```text
//! Head ─→ Body ─→ acted upon ─┬→ answered from here ──────────────────────────────→ Head, or closed
//!                             └→ Admit ─→ Open ──────→ header told ─→ Play, PlayFile ─→ end ─→ Head, or closed
//!                                    └──→ OpenBytes ─→ head told ───→ SendBytes ──────────→ Head, or closed
//! ```
//!
//! Source: MS-WMSP.

mod agent;
mod api;
mod download;
mod host;
mod metadata;
mod pages;
mod place;
mod play;
mod pragma;
mod reading;
mod relayed;
mod reply;
mod request;
mod requests;
mod sessions;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub(in crate::http) use agent::version;
pub use api::{CloseReason, Config, Input, Output, Report, Told};
use bytes::Bytes;
pub use host::name_of as host_of;
use play::Playing;
use reading::Reading;
use relayed::Waiting;
pub use sessions::{Expired, Owner, Sessions};

use super::response::Refusal;
use super::wrap::{LAST_CHUNK, Wrap};
use crate::viewing::Ask;

/// Bytes that may wait while the relay thinks: one request with a log, or a few without.
const AHEAD_BOUND: usize = 96 << 10;
/// Responses that may wait behind media.
const RESPONSES_BOUND: usize = 32;
/// Requests of a connection that was never admitted, before it is closed behind an answer.
const UNADMITTED_REQUESTS: u64 = 8;

/// How far the player's test is whether requests overtake responses on the way to us. Source: MS-WMSP 3.2.5.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    No,
    /// The first response is open; until then the second request has to come.
    Open(Instant),
    /// It did not.
    Failed,
}

/// The session that a request names; `None` where it names none.
pub fn client_id(head: &super::head::Head) -> Option<u32> {
    pragma::Pragmas::of(head).ok()?.number("client-id").filter(|id| *id != 0)
}

/// Where a viewer's connection is, besides what it plays.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    sessions: Rc<RefCell<Sessions>>,
    /// The key of this connection, by which others of its session name it.
    key: usize,
    peer: IpAddr,
    local: SocketAddr,
    /// For a session that begins here.
    own_id: u32,
    /// The session that it belongs to, of which others may know.
    session: Option<u32>,
    reading: Reading,
    /// For what is read.
    deadline: Option<Instant>,
    /// The relay owes an answer.
    waiting: Option<Waiting>,
    /// Bytes that came meanwhile.
    held: Vec<u8>,
    /// How many of them have been read.
    held_read: usize,
    admitted: bool,
    /// It has been, or is: others do not stay for long.
    was_admitted: bool,
    /// Requests since that moment, which is at most a second ago.
    requests_in_second: u32,
    second: Instant,
    playing: Option<Playing>,
    /// Of the last play.
    incarnation: u8,
    test: Test,
    /// The player keeps to one connection.
    pipelined: bool,
    /// Responses that wait for the end of a chunked body.
    behind: Vec<Bytes>,
    closed: bool,
    /// When something happened last.
    heard: Instant,
    outputs: VecDeque<Output>,
    report: Report,
}

impl Connection {
    /// A connection that was just accepted.
    ///
    /// `connection` is the key under which [`Output::Tell`] finds it; `client_id` a number for a session that it may found:
    /// unpredictable, not 0, not one that `sessions` or those of another shard hold. `local` is the address that the peer
    /// connected to.
    pub fn new(
        now: Instant,
        config: Arc<Config>,
        sessions: Rc<RefCell<Sessions>>,
        connection: usize,
        peer: IpAddr,
        local: SocketAddr,
        client_id: u32,
    ) -> Self {
        let deadline = Some(now + config.head);
        Self {
            config,
            sessions,
            key: connection,
            peer: peer.to_canonical(),
            local,
            own_id: client_id,
            session: None,
            reading: Reading::default(),
            deadline,
            waiting: None,
            held: Vec::new(),
            held_read: 0,
            admitted: false,
            was_admitted: false,
            requests_in_second: 0,
            second: now,
            playing: None,
            incarnation: 0,
            test: Test::No,
            pipelined: false,
            behind: Vec::new(),
            closed: false,
            heard: now,
            outputs: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Takes one input in; drain [`Connection::poll_output`] behind it. After [`Output::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.closed {
            return;
        }
        self.heard = now;
        match input {
            Input::Bytes(bytes) => self.read(now, bytes),
            Input::End => self.close(now, CloseReason::Left),
            Input::Answer(answer) => {
                self.answer(now, answer);
                self.read_held(now);
            }
            Input::Told(told) => self.told(now, told),
            Input::Timeout => self.timeout(now),
        }
    }

    /// What is to be done next, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if self.outputs.is_empty() {
            // Hardly anything is said while media flows.
            self.outputs = VecDeque::new();
        }
        output
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let test = match self.test {
            Test::Open(at) => Some(at),
            Test::No | Test::Failed => None,
        };
        self.deadline.into_iter().chain(test).min()
    }

    /// How media is wrapped here; `None` while none is to be sent.
    pub fn wrap(&self) -> Option<Wrap> {
        self.playing.as_ref().map(|playing| playing.wrap)
    }

    /// Whether [`Output::Close`] was given.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Facts for the log.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    fn timeout(&mut self, now: Instant) {
        if let Test::Open(at) = self.test
            && at <= now
        {
            self.test = Test::Failed;
            self.send(LAST_CHUNK);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            if self.reading.is_empty() {
                self.close(now, CloseReason::Idle);
            } else {
                let text = format!("The request was not complete after {} s.", self.config.head.as_secs());
                let refusal = Refusal::new(super::response::Status::RequestTimeout, text);
                self.refuse(now, &refusal, false, false, CloseReason::Idle);
            }
        }
    }

    fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        self.outputs.push_back(Output::Send(Bytes::from(bytes.into())));
    }

    fn ask(&mut self, ask: Ask) {
        self.outputs.push_back(Output::Ask(ask));
    }

    /// Sends a response; behind media that is sent in chunks it waits.
    fn respond(&mut self, now: Instant, response: Vec<u8>, keeps: bool) {
        if self.playing.is_some() {
            if self.behind.len() == RESPONSES_BOUND {
                return self.close(now, CloseReason::Protocol);
            }
            self.behind.push(response.into());
            return;
        }
        self.send(response);
        if keeps && (self.was_admitted || self.report.requests < UNADMITTED_REQUESTS) {
            self.rest(now);
        } else {
            self.close(now, CloseReason::Done);
        }
    }

    /// Waits for the next request. Its place among the viewers is free until then.
    fn rest(&mut self, now: Instant) {
        if std::mem::take(&mut self.admitted) {
            self.ask(Ask::Rest);
        }
        let time = if self.session.is_some() { self.config.idle } else { self.config.keep_alive };
        self.deadline = Some(now + time);
    }

    /// Ends the chunked body that is open, if one is, and sends what waits behind it.
    fn end_body(&mut self) {
        if matches!(self.test, Test::Open(_)) {
            self.test = Test::No;
            self.send(LAST_CHUNK);
        }
        if self.playing.take().is_some_and(|playing| playing.wrap == Wrap::Chunked) {
            self.send(LAST_CHUNK);
        }
        self.outputs.extend(self.behind.drain(..).map(Output::Send));
    }

    /// Stops media, where it runs.
    fn stop_media(&mut self, now: Instant) {
        if self.playing.is_none() {
            return;
        }
        self.ask(Ask::Stop);
        if let Some(client_id) = self.session {
            self.sessions.borrow_mut().rest(client_id, self.key, now + self.config.idle);
        }
    }

    fn refuse(&mut self, now: Instant, refusal: &Refusal, http_1_0: bool, head_only: bool, reason: CloseReason) {
        self.stop_media(now);
        let readable = self.playing.as_ref().is_none_or(|playing| playing.wrap == Wrap::Chunked);
        self.end_body();
        if readable {
            self.send(reply::refusal(&self.config.server, refusal, http_1_0, head_only));
        }
        self.close(now, reason);
    }

    fn close(&mut self, now: Instant, reason: CloseReason) {
        self.stop_media(now);
        self.playing = None;
        if let Some(client_id) = self.session {
            self.sessions.borrow_mut().touch(client_id, now + self.config.idle);
        }
        self.outputs.push_back(Output::Close(reason));
        self.closed = true;
        self.deadline = None;
        self.test = Test::No;
        self.waiting = None;
        self.held = Vec::new();
        self.behind = Vec::new();
        self.reading = Reading::default();
    }
}

impl Drop for Connection {
    /// Who drops it without a word ([`Input::End`]) leaves no session behind that plays for ever.
    fn drop(&mut self) {
        if let (Some(client_id), Ok(mut sessions)) = (self.session, self.sessions.try_borrow_mut()) {
            sessions.rest(client_id, self.key, self.heard + self.config.idle);
        }
    }
}
