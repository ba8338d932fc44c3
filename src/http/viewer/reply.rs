//! Responses as players expect them.

use std::fmt::Write as _;

use super::pragma::Pragmas;
use super::request::Request;
use crate::http::response::{Refusal, Status};
use crate::viewing::{Challenge, Denial, OpenRefusal};
use crate::wire::Hresult;

/// What is answered to methods that are none of ours.
pub(super) const METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// When it is worth to ask again, seconds.
const RETRY_AFTER_S: u64 = 10;
/// The same after too many wrong passwords.
const GUESSES_RETRY_S: u64 = 60;
/// What we implement of what players from version 9 on may leave out.
const SUPPORTED: &str = "com.microsoft.wm.sswitch, com.microsoft.wm.predstrm";

/// A response under construction: the head, field by field.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    head: String,
}

impl Reply {
    /// The status line and `Server`, which every response has; `http_1_0` as the request.
    pub(super) fn new(server: &str, http_1_0: bool, status: Status) -> Self {
        let minor = u8::from(!http_1_0);
        Self { head: format!("HTTP/1.{minor} {} {}\r\nServer: {server}\r\n", status.code(), status.reason()) }
    }

    /// A field; the value is ours, and has no line end.
    pub(super) fn field(mut self, name: &str, value: &str) -> Self {
        // Writing to a String cannot fail.
        let _ = write!(self.head, "{name}: {value}\r\n");
        self
    }

    /// What players from version 9 on are told of what is implemented.
    pub(super) fn supported(self, is_9: bool) -> Self {
        if is_9 { self.field("Supported", SUPPORTED) } else { self }
    }

    /// `Connection`.
    pub(super) fn connection(self, keeps: bool) -> Self {
        self.field("Connection", if keeps { "Keep-Alive" } else { "close" })
    }

    /// The head alone: of a response whose length follows from something else.
    pub(super) fn open(mut self) -> Vec<u8> {
        self.head.push_str("\r\n");
        self.head.into_bytes()
    }

    /// With a body of known length, which is left out for `HEAD`.
    pub(super) fn body(self, body: &[u8], head_only: bool) -> Vec<u8> {
        let mut bytes = self.field("Content-Length", &body.len().to_string()).open();
        if !head_only {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// The bytes of a refusal; the connection closes behind it.
pub(super) fn refusal(server: &str, refusal: &Refusal, http_1_0: bool, head_only: bool) -> Vec<u8> {
    let mut reply = Reply::new(server, http_1_0, refusal.status);
    if refusal.status == Status::MethodNotAllowed {
        reply = reply.field("Allow", METHODS);
    }
    if let Some(wait) = refusal.retry_after {
        reply = reply.field("Retry-After", &wait.as_secs().max(1).to_string());
    }
    let reply = reply.field("Cache-Control", "no-cache").field("Content-Type", "text/plain; charset=utf-8").connection(false);
    reply.body(format!("{}\n", refusal.text).as_bytes(), head_only)
}

/// The bytes of a challenge. The connection stays where the request lets it: players answer on the same one (MS-WMSP 3.1.5.3).
///
/// A player that lists the schemes that it knows is offered those; Digest in any case, for the list of some is not true.
pub(super) fn unauthorized(server: &str, challenge: &Challenge, request: &Request) -> Vec<u8> {
    let mut reply = Reply::new(server, request.http_1_0, Status::Unauthorized);
    for value in &challenge.values {
        let scheme = value.split(' ').next().unwrap_or_default();
        let knows = |list: &String| list.split([',', ' ']).any(|known| known.eq_ignore_ascii_case(scheme));
        if scheme == "Digest" || request.schemes.as_ref().is_none_or(knows) {
            reply = reply.field("WWW-Authenticate", value);
        }
    }
    let reply = reply.field("Cache-Control", "no-cache").field("Content-Type", "text/plain; charset=utf-8");
    reply.connection(request.keeps_alive).body(b"User and password are needed, or they are wrong.\n", request.head_only)
}

/// The bytes of an answer that sends elsewhere. ffmpeg takes `http` targets only, VLC stays with the protocol for `mmsh` only.
///
/// `None` where the target is no URL that a field can carry.
pub(super) fn redirect(server: &str, location: &str, request: &Request) -> Option<Vec<u8>> {
    let (_, rest) = location.split_once("://")?;
    let clean = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
    let scheme = if request.agent.streams() && request.agent.version.0 == 7 { "mmsh" } else { "http" };
    let text = format!("The stream is at {scheme}://{rest}.\n");
    let reply = Reply::new(server, request.http_1_0, Status::Found).field("Location", &format!("{scheme}://{rest}"));
    let reply = reply.field("Cache-Control", "no-cache").field("Content-Type", "text/plain; charset=utf-8").connection(false);
    clean.then(|| reply.body(text.as_bytes(), request.head_only))
}

/// In words and numbers of HTTP, why a name does not open.
pub(super) fn refused(refusal: &OpenRefusal) -> Refusal {
    let unavailable = |text: &str| Refusal::unavailable(text, std::time::Duration::from_secs(RETRY_AFTER_S));
    match refusal {
        OpenRefusal::Status(Hresult::FILE_NOT_FOUND | Hresult::INVALID_NAME) | OpenRefusal::NotAFile => {
            Refusal::new(Status::NotFound, "There is no stream of this name.")
        }
        OpenRefusal::Status(Hresult::ACCESS_DENIED) => Refusal::new(Status::Forbidden, "This stream is not for you."),
        OpenRefusal::Status(Hresult::NO_STREAM) => unavailable("The stream has no source now; try again later."),
        OpenRefusal::Status(Hresult::TOO_MANY_SESSIONS | Hresult::OPEN_FILE_LIMIT) => {
            unavailable("The server or this stream has as many viewers as it may have; try again later.")
        }
        OpenRefusal::Status(Hresult::INSUFFICIENT_BANDWIDTH) => {
            unavailable("The server has no bandwidth left for this stream; try again later.")
        }
        OpenRefusal::Status(hr) => unavailable(&format!("The stream cannot be opened now: {hr}.")),
        OpenRefusal::Denied(Denial::Guesses) => Refusal {
            retry_after: Some(std::time::Duration::from_secs(GUESSES_RETRY_S)),
            ..Refusal::new(Status::TooManyRequests, "There were too many wrong passwords from your address; try again later.")
        },
        OpenRefusal::Denied(Denial::BadLogin) => Refusal::new(Status::BadRequest, "Bad request: the credentials cannot be read."),
        OpenRefusal::Denied(denial) => Refusal::new(
            Status::Forbidden,
            match denial {
                Denial::NoKey => "This stream is opened by a signed address alone (with ?k= and a key at its end).",
                Denial::WrongKey => "The key in the address is not for this stream, or not for you.",
                Denial::ExpiredKey | Denial::ExpiredTicket => "The time of this address is over; ask for a new one.",
                Denial::WrongTicket => "The ticket in the address is not for this stream, or not for you.",
                Denial::TicketInUse => "Somebody plays by this address at this moment; ask for another one.",
                _ => "This stream is not for you.",
            },
        ),
        // It has an answer of its own.
        OpenRefusal::Login(_) => Refusal::new(Status::Unauthorized, "User and password are needed."),
        OpenRefusal::Redirect(_) => unavailable("The stream is elsewhere, at an address that cannot be told."),
    }
}

/// The `Pragma` of a response within a session.
pub(super) fn pragma(tokens: &[&str]) -> String {
    let mut value = String::from("no-cache");
    for token in tokens.iter().filter(|token| !token.is_empty()) {
        value.push_str(", ");
        value.push_str(token);
    }
    value
}

/// Whether a player of old would take the first header behind a reset for another entry's and needs it twice.
///
/// Source: MS-WMSP 3.2.5.6.
pub(super) fn wants_header_twice(request: &Request, reset: bool) -> bool {
    let first = if request.agent.family == super::agent::Family::Server { 3 } else { 2 };
    let context = |pragmas: &Pragmas| pragmas.number("request-context") == Some(first);
    reset && request.agent.version.0 < 7 && context(&request.pragmas)
}
