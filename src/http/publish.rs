//! The connection of a publisher: one request after the other, each body a piece of one ASF stream.
//!
//! GStreamer's sink sends a stream as many `PUT`s on one connection; ffmpeg and curl send one request and then wait for the response.
//! Windows Media Encoder sends a small request first whose body is no stream ([`super::push`]), then one after the other.
//!
//! ```text
//! Head ── complete ─→ Asked ── Accept ─→ Body ── all of it ─→ Ended ── Accept ─→ Head (kept alive) or Draining
//!   ├── PushSetup ─→ Setup ── all of its body ─→ Asked ── Session ─→ Head
//!   └── refused, at any time ─→ Draining: response sent, sending half closed, what still comes is thrown away ─→ Closed
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::body::{Body, Framing};
use super::head::{Head, HeadReader};
use super::push::{self, MAX_SETUP_LENGTH, MAX_START_LENGTH, Push, PushId, Setup};
use super::request::PublishRequest;
use super::response::{self, After, Refusal, Status};

/// What still comes after a refusal is read up to here, so that the sender sees the response and not a reset.
const DRAIN_BYTES: usize = 64 << 10;
/// And for so long.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// How long the engine waits for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first byte, and from there for the complete head.
    pub head: Duration,
    /// For the next byte of a body, and for the next request on a connection that is kept alive.
    pub idle: Duration,
    /// For an encoder's next request. Within its bodies whoever has its session counts the time.
    pub inactivity: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(30), inactivity: push::Timers::default().inactivity }
    }
}

/// What happens to the connection.
#[derive(Debug)]
pub enum Input<'a> {
    /// The peer sent bytes.
    Bytes(&'a [u8]),
    /// The peer sends no more.
    End,
    /// What was asked, or (a refusal, at any time) that the stream cannot go on.
    Answer(Answer),
    /// The time of [`Connection::poll_timeout`] has come.
    Timeout,
}

/// The decision about a request, or about a body that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Accept,
    /// Go on, in an encoder's session.
    Session {
        /// Its id.
        push_id: PushId,
        /// The present time, for the response.
        date: SystemTime,
    },
    /// Say so and close.
    Refuse(Refusal),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes.
    Send(Bytes),
    /// Decide, and hand in an [`Answer`].
    Ask(PublishRequest),
    /// A piece of the stream.
    Body(Bytes),
    /// The body is complete: use what came of it, and hand in an [`Answer`].
    BodyEnd {
        /// The connection closes after the response, so that no other request can carry the stream on.
        last: bool,
    },
    /// Close the sending half.
    HalfClose,
    /// Close. Nothing follows.
    Close(CloseReason),
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The last request was answered with 200.
    Done,
    /// A request was refused with this status.
    Refused(Status),
    /// The peer closed before its request was complete.
    Broken,
    /// The peer closed, or was silent, where no request was under way.
    Idle,
}

/// The engine of one connection.
///
/// Bytes that come while an [`Answer`] is outstanding are kept, so its driver answers before it reads again.
#[derive(Debug)]
pub struct Connection {
    timeouts: Timeouts,
    state: State,
    /// Bytes that came while an answer was outstanding.
    held: Vec<u8>,
    /// The peer sends no more.
    ended: bool,
    /// The last request was an encoder's, which has responses of its own.
    encoder: bool,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    Head { reader: HeadReader, deadline: Instant },
    Setup { head: Head, wish: Box<PublishRequest>, body: Body, text: Vec<u8>, deadline: Instant },
    Asked { head: Head, framing: Framing, is_setup: bool },
    Body { body: Body, keeps_alive: bool, last_byte: Instant },
    Ended { keeps_alive: bool },
    Draining { left: usize, deadline: Instant, reason: CloseReason },
    Closed,
}

impl Connection {
    /// A connection from which nothing was read yet.
    pub fn new(now: Instant, timeouts: Timeouts) -> Self {
        let state = State::Head { reader: HeadReader::default(), deadline: now + timeouts.head };
        Self { timeouts, state, held: Vec::new(), ended: false, encoder: false, outputs: VecDeque::new() }
    }

    /// What is to be done next; call until `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Head { deadline, .. } | State::Setup { deadline, .. } | State::Draining { deadline, .. } => Some(*deadline),
            State::Body { .. } if self.encoder => None,
            State::Body { last_byte, .. } => Some(*last_byte + self.timeouts.idle),
            State::Asked { .. } | State::Ended { .. } | State::Closed => None,
        }
    }

    /// Nothing was read for a while by our own will: the peer's time to send begins anew.
    pub const fn resume(&mut self, now: Instant) {
        if let State::Body { last_byte, .. } = &mut self.state {
            *last_byte = now;
        }
    }

    /// Whether [`Output::Close`] was given.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Bytes(bytes) => self.bytes(now, bytes),
            Input::End => {
                self.ended = true;
                self.end();
            }
            Input::Answer(Answer::Refuse(refusal)) => match &self.state {
                // No request is there to answer.
                State::Head { reader, .. } if reader.is_empty() => self.close(CloseReason::Idle),
                _ => self.refuse(now, &refusal),
            },
            Input::Answer(Answer::Accept) => self.accepted(now, None),
            Input::Answer(Answer::Session { push_id, date }) => self.accepted(now, Some((push_id, date))),
            Input::Timeout => self.timeout(now),
        }
    }

    fn bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Head { reader, deadline } => {
                    if reader.is_empty() {
                        *deadline = now + self.timeouts.head;
                    }
                    match reader.push(bytes) {
                        Ok((taken, head)) => {
                            bytes = bytes.get(taken..).unwrap_or_default();
                            if let Some(head) = head {
                                self.ask(now, head);
                            }
                        }
                        Err(error) => self.refuse(now, &error.into()),
                    }
                }
                State::Setup { body, text, .. } => {
                    match body.next(&mut bytes) {
                        Ok(data) => text.extend_from_slice(data.unwrap_or_default()),
                        Err(error) => self.refuse(now, &error.into()),
                    }
                    self.finish_setup(now);
                }
                State::Asked { .. } | State::Ended { .. } => {
                    self.held.extend_from_slice(bytes);
                    return;
                }
                State::Body { body, last_byte, .. } => {
                    *last_byte = now;
                    match body.next(&mut bytes) {
                        Ok(Some(data)) => self.outputs.push_back(Output::Body(Bytes::copy_from_slice(data))),
                        Ok(None) => {}
                        Err(error) => self.refuse(now, &error.into()),
                    }
                    self.finish_body();
                }
                State::Draining { left, reason, .. } => {
                    *left = left.saturating_sub(bytes.len());
                    if *left == 0 {
                        let reason = *reason;
                        self.close(reason);
                    }
                    return;
                }
                State::Closed => return,
            }
        }
    }

    fn ask(&mut self, now: Instant, head: Head) {
        let request = Framing::of(&head).map_err(Refusal::from);
        // Who asks for something that is not there learns that first, not how to word the request.
        self.encoder = push::kind_of(&head).is_some();
        let request = match PublishRequest::of(&head, request == Ok(Framing::Length(0))) {
            Ok(wish) => request.and_then(|framing| encoder_framing(framing, &wish).map(|()| (framing, wish))),
            Err(refusal) => Err(refusal),
        };
        let unknown = head.all("Expect").find(|expected| !expected.eq_ignore_ascii_case("100-continue"));
        match request {
            Ok(_) if unknown.is_some() => {
                self.refuse(
                    now,
                    &Refusal::new(Status::ExpectationFailed, "The only expectation that can be met is 100-continue."),
                );
            }
            Ok((framing, wish)) if matches!(wish.push, Some(Push::Setup(_))) => {
                let body = Body::new(framing);
                self.invite(&head, &body);
                self.state =
                    State::Setup { head, wish: Box::new(wish), body, text: Vec::new(), deadline: now + self.timeouts.head };
                self.finish_setup(now);
            }
            Ok((framing, wish)) => {
                self.state = State::Asked { head, framing, is_setup: false };
                self.outputs.push_back(Output::Ask(wish));
            }
            Err(refusal) => self.refuse_to(now, &refusal, head.method == "HEAD"),
        }
    }

    /// Lets a sender begin that waits for a word.
    fn invite(&mut self, head: &Head, body: &Body) {
        // HTTP/1.0 knows no interim responses (RFC 9110 10.1.1).
        if head.first("Expect").is_some() && !head.http_1_0 && !body.is_done() {
            self.outputs.push_back(Output::Send(response::continue_()));
        }
    }

    /// Asks about a PushSetup whose body is complete. With it no byte is in the way of a challenge.
    fn finish_setup(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Setup { head, wish, body, text, .. } if body.is_done() => {
                self.state = State::Asked { head, framing: Framing::Length(0), is_setup: true };
                match Setup::parse(&text) {
                    Ok(setup) => self.outputs.push_back(Output::Ask(PublishRequest { push: Some(Push::Setup(setup)), ..*wish })),
                    Err(refusal) => self.refuse(now, &refusal),
                }
            }
            other => self.state = other,
        }
    }

    fn accepted(&mut self, now: Instant, session: Option<(PushId, SystemTime)>) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Asked { head, is_setup: true, .. } => self.respond(now, session, head.keeps_alive()),
            State::Asked { head, framing, .. } => {
                let body = Body::new(framing);
                self.invite(&head, &body);
                let keeps_alive = head.keeps_alive() && framing != Framing::UntilEnd;
                self.state = State::Body { body, keeps_alive, last_byte: now };
                self.finish_body();
            }
            State::Ended { keeps_alive } => self.respond(now, session, keeps_alive),
            other => self.state = other,
        }
        let held = std::mem::take(&mut self.held);
        self.bytes(now, &held);
        if self.ended {
            self.end();
        }
    }

    /// The response to a request that was carried out.
    fn respond(&mut self, now: Instant, session: Option<(PushId, SystemTime)>, keeps_alive: bool) {
        let after = if keeps_alive && !self.ended { After::KeepAlive } else { After::Close };
        let wait = if session.is_some() { self.timeouts.inactivity } else { self.timeouts.idle };
        let response = session.map_or_else(|| response::ok(after), |(id, date)| push::no_content(&id, date, after));
        self.outputs.push_back(Output::Send(response));
        match after {
            After::KeepAlive => self.state = State::Head { reader: HeadReader::default(), deadline: now + wait },
            After::Close => self.drain(now, CloseReason::Done),
        }
    }

    /// Reports a body that is complete.
    fn finish_body(&mut self) {
        if let State::Body { body, keeps_alive, .. } = &self.state
            && body.is_done()
        {
            let keeps_alive = *keeps_alive;
            self.state = State::Ended { keeps_alive };
            self.outputs.push_back(Output::BodyEnd { last: !keeps_alive });
        }
    }

    /// The peer sends no more, and all that it sent is read.
    fn end(&mut self) {
        match &mut self.state {
            State::Head { reader, .. } => {
                let reason = if reader.is_empty() { CloseReason::Idle } else { CloseReason::Broken };
                self.close(reason);
            }
            State::Setup { .. } => self.close(CloseReason::Broken),
            State::Body { body, .. } => {
                if body.end_of_input() {
                    self.finish_body();
                } else {
                    self.close(CloseReason::Broken);
                }
            }
            State::Draining { reason, .. } => {
                let reason = *reason;
                self.close(reason);
            }
            State::Asked { .. } | State::Ended { .. } | State::Closed => {}
        }
    }

    fn timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.state {
            State::Head { reader, .. } if reader.is_empty() => self.close(CloseReason::Idle),
            State::Head { .. } => {
                let text = format!("The request head was not complete after {} s.", self.timeouts.head.as_secs());
                self.refuse(now, &Refusal::new(Status::RequestTimeout, text));
            }
            State::Setup { .. } => {
                let text = format!("The body of the PushSetup was not complete after {} s.", self.timeouts.head.as_secs());
                self.refuse(now, &Refusal::new(Status::RequestTimeout, text));
            }
            State::Body { .. } => {
                let text = format!("Nothing came for {} s.", self.timeouts.idle.as_secs());
                self.refuse(now, &Refusal::new(Status::RequestTimeout, text));
            }
            State::Draining { reason, .. } => {
                let reason = *reason;
                self.close(reason);
            }
            State::Asked { .. } | State::Ended { .. } | State::Closed => {}
        }
    }

    fn refuse(&mut self, now: Instant, refusal: &Refusal) {
        self.refuse_to(now, refusal, false);
    }

    fn refuse_to(&mut self, now: Instant, refusal: &Refusal, to_head: bool) {
        match &self.state {
            State::Draining { .. } | State::Closed => {}
            // A probe for a challenge has no body that would be in the way: the answer may come on the same connection.
            State::Asked { head, framing: Framing::Length(0), .. }
                if refusal.status == Status::Unauthorized && !refusal.last && head.keeps_alive() =>
            {
                let response = self.refusal(refusal, After::KeepAlive, to_head);
                self.outputs.push_back(Output::Send(response));
                self.state = State::Head { reader: HeadReader::default(), deadline: now + self.timeouts.idle };
                let held = std::mem::take(&mut self.held);
                self.bytes(now, &held);
                if self.ended {
                    self.end();
                }
            }
            State::Head { .. } | State::Setup { .. } | State::Asked { .. } | State::Body { .. } | State::Ended { .. } => {
                let response = self.refusal(refusal, After::Close, to_head);
                self.outputs.push_back(Output::Send(response));
                self.drain(now, CloseReason::Refused(refusal.status));
            }
        }
    }

    fn refusal(&self, refusal: &Refusal, after: After, to_head: bool) -> Bytes {
        if self.encoder { push::refusal(refusal, after) } else { response::refusal(refusal, after, to_head) }
    }

    fn drain(&mut self, now: Instant, reason: CloseReason) {
        self.held = Vec::new();
        self.outputs.push_back(Output::HalfClose);
        if self.ended {
            self.close(reason);
        } else {
            self.state = State::Draining { left: DRAIN_BYTES, deadline: now + DRAIN_TIME, reason };
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Close(reason));
    }
}

/// Encoders say how long their bodies are, by `Content-Length` alone (MS-WMHTTP 3.1.4.1.1, 3.1.4.2.1).
fn encoder_framing(framing: Framing, wish: &PublishRequest) -> Result<(), Refusal> {
    let most = match wish.push {
        None => return Ok(()),
        Some(Push::Setup(_)) => MAX_SETUP_LENGTH,
        Some(Push::Start) => MAX_START_LENGTH,
    };
    match framing {
        Framing::Length(length) if length <= most => Ok(()),
        Framing::Length(_) => Err(Refusal::new(Status::ContentTooLarge, format!("A body like this has {most} bytes at most."))),
        Framing::Chunked | Framing::UntilEnd => {
            Err(Refusal::new(Status::LengthRequired, "Encoders send bodies with a Content-Length, never chunked."))
        }
    }
}

#[cfg(test)]
mod tests;
