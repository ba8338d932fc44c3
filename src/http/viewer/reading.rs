//! From bytes to requests.

use std::time::Instant;

use super::request::Request;
use super::{AHEAD_BOUND, CloseReason, Connection};
use crate::http::body::{Body, Framing, FramingError};
use crate::http::head::{Head, HeadReader};
use crate::http::response::{self, Refusal, Status};
use crate::http::wrap::Wrap;

/// The request that is being read.
#[derive(Debug)]
pub(super) enum Reading {
    Head {
        reader: HeadReader,
        /// More came than the empty lines that some clients send behind a body.
        started: bool,
    },
    Body {
        request: Box<Request>,
        body: Body,
        taken: Vec<u8>,
    },
}

impl Default for Reading {
    fn default() -> Self {
        Self::Head { reader: HeadReader::default(), started: false }
    }
}

impl Reading {
    /// Whether no request has begun.
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::Head { started: false, .. })
    }
}

impl Connection {
    pub(super) fn read(&mut self, now: Instant, bytes: &[u8]) {
        let rest = self.read_on(now, bytes);
        if rest.is_empty() || self.closed {
            return;
        }
        if self.held.len() - self.held_read + rest.len() > AHEAD_BOUND {
            return self.close(now, CloseReason::Protocol);
        }
        self.held.drain(..std::mem::take(&mut self.held_read));
        self.held.extend_from_slice(rest);
    }

    /// An answer has come: what waited for it goes on.
    pub(super) fn read_held(&mut self, now: Instant) {
        if self.held.is_empty() || self.waiting.is_some() {
            return;
        }
        // They stay where they are: many small requests may be in them, each of which waits for an answer.
        let held = std::mem::take(&mut self.held);
        let rest = self.read_on(now, held.get(self.held_read..).unwrap_or_default()).len();
        if rest == 0 || self.closed {
            self.held_read = 0;
        } else {
            self.held_read = held.len() - rest;
            self.held = held;
        }
    }

    /// Reads until the relay is asked for something; gives what is left.
    fn read_on<'a>(&mut self, now: Instant, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() && !self.closed && self.waiting.is_none() {
            if self.playing.as_ref().is_some_and(|playing| playing.wrap != Wrap::Chunked) {
                // The response ends with the connection, so there is nothing to be asked on it.
                return &[];
            }
            match &mut self.reading {
                Reading::Head { .. } => self.read_head(now, &mut bytes),
                Reading::Body { .. } => self.read_body(now, &mut bytes),
            }
        }
        bytes
    }

    fn read_head(&mut self, now: Instant, bytes: &mut &[u8]) {
        let Reading::Head { reader, started } = &mut self.reading else { return };
        if !*started && bytes.iter().any(|byte| !b"\r\n".contains(byte)) {
            *started = true;
            self.deadline = Some(now + self.config.head);
        }
        match reader.push(bytes) {
            Ok((taken, head)) => {
                *bytes = bytes.get(taken..).unwrap_or_default();
                if let Some(head) = head {
                    self.reading = Reading::default();
                    self.head(now, &head);
                }
            }
            Err(error) => self.refuse(now, &error.into(), false, false, CloseReason::Protocol),
        }
    }

    fn head(&mut self, now: Instant, head: &Head) {
        let head_only = head.method == "HEAD";
        let framing = match framing(head) {
            Ok(framing) => framing,
            Err(error) => return self.refuse(now, &error.into(), head.http_1_0, head_only, CloseReason::Protocol),
        };
        let request = Request::of(head).and_then(|request| match framing {
            Framing::Length(length) if length > request.wish.body_bound() as u64 => Err(too_large(request.wish.body_bound())),
            _ => Ok(request),
        });
        let request = match request {
            Ok(request) => Box::new(request),
            Err(refusal) => return self.refuse(now, &refusal, head.http_1_0, head_only, CloseReason::Refused),
        };
        let body = Body::new(framing);
        if body.is_done() {
            self.deadline = None;
            return self.act(now, request, &[]);
        }
        if request.expects && !request.http_1_0 && self.playing.is_none() {
            self.send(response::continue_());
        }
        self.deadline = Some(now + self.config.head);
        self.reading = Reading::Body { request, body, taken: Vec::new() };
    }

    fn read_body(&mut self, now: Instant, bytes: &mut &[u8]) {
        let Reading::Body { request, body, taken } = &mut self.reading else { return };
        let (http_1_0, bound) = (request.http_1_0, request.wish.body_bound());
        let (refusal, reason) = match body.next(bytes) {
            Ok(Some(data)) if taken.len() + data.len() > bound => (too_large(bound), CloseReason::Refused),
            Ok(data) => {
                taken.extend_from_slice(data.unwrap_or_default());
                if body.is_done()
                    && let Reading::Body { request, taken, .. } = std::mem::take(&mut self.reading)
                {
                    self.deadline = None;
                    self.act(now, request, &taken);
                }
                return;
            }
            Err(error) => (error.into(), CloseReason::Protocol),
        };
        self.refuse(now, &refusal, http_1_0, false, reason);
    }
}

/// Where the body ends. Requests without a length have none, unless they are of a method that is all about it.
fn framing(head: &Head) -> Result<Framing, FramingError> {
    let tells = head.first("Content-Length").is_some() || head.first("Transfer-Encoding").is_some();
    if !tells && !matches!(head.method.as_str(), "POST" | "PUT") {
        return Ok(Framing::Length(0));
    }
    match Framing::of(head)? {
        // Only publishers may end a body with the connection.
        Framing::UntilEnd => Err(FramingError::LengthRequired),
        framing => Ok(framing),
    }
}

fn too_large(bound: usize) -> Refusal {
    Refusal::new(Status::ContentTooLarge, format!("The body of this request may have {bound} bytes."))
}
