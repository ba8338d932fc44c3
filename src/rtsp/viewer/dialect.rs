//! As which server a client finds us.
//!
//! FFmpeg reads that from the answer to OPTIONS alone, before it has said whether it plays or publishes. To play it needs a server of
//! Windows Media. As a publisher it takes such a server for one that wants a place for repetitions over UDP, and gives up before it
//! asks for anything. So it finds a plain server where a publisher is awaited; and whoever then asks for a description there is a
//! player after all, and is sent to the same name again, with a mark by which it finds the other server.

use std::time::Instant;

use super::describe::aggregate;
use super::reply::{METHODS, METHODS_OF_PUBLISHERS};
use super::{Ask, CloseReason, Connection, Request, Step, Target, player_of};
use crate::rtsp::publish;

/// What is no server of Windows Media to anybody.
pub(super) const PLAIN_SERVER: &str = concat!("wmrelay/", env!("CARGO_PKG_VERSION"));
/// What FFmpeg calls itself, playing or publishing.
const FFMPEG: &str = "Lavf";
/// The mark in a URL's query.
const MARK: (&str, &str) = ("dialect", "wm");

impl Connection {
    pub(super) fn options(&mut self, now: Instant, request: Box<Request>) {
        match self.may_be_published(&request) {
            Some(name) => self.wait(now, request, Step::Awaited, Ask::AwaitsPublisher { name }),
            None => self.methods(now, &request),
        }
    }

    /// Whether somebody may publish what the client has asked about.
    pub(super) fn awaited(&mut self, now: Instant, request: &Request, awaits: bool) {
        self.is_plain = awaits;
        self.methods(now, request);
    }

    fn methods(&mut self, now: Instant, request: &Request) {
        let publishers = if self.config.publishers { METHODS_OF_PUBLISHERS } else { "" };
        self.refuse_with(now, request, 200, &[("Public", &format!("{METHODS}{publishers}"))]);
    }

    /// The name, where it may be that this client is about to publish it and minds which server it finds.
    fn may_be_published(&self, request: &Request) -> Option<String> {
        let agent = request.headers.get("User-Agent")?;
        let is_ffmpeg = agent.get(..FFMPEG.len())?.eq_ignore_ascii_case(FFMPEG);
        let plays = self.session.is_some() || self.opened.is_some();
        if !is_ffmpeg || plays || !self.config.publishers {
            return None;
        }
        let target = Target::parse(&request.target).ok()?;
        // Inside TLS it does without UDP by itself.
        let is_told = target.is_tls || target.query.as_deref().is_some_and(|query| query.split('&').any(is_mark));
        target.name().filter(|_| !is_told).map(|name| publish::point_of(&name).to_owned())
    }

    /// Sends a player to the same name again that found a plain server there. Nothing of the relay's is held yet.
    pub(super) fn send_again(&mut self, now: Instant, request: &Request) {
        let mut target = match aggregate(request) {
            Ok(target) => target,
            Err(status) => return self.refuse(now, request, status),
        };
        self.report.player = Some(player_of(request.headers.get("User-Agent"), target.host()));
        self.report.name = target.name();
        let query = target.query.take().unwrap_or_default();
        let mark = format!("{}={}", MARK.0, MARK.1);
        let others = query.split('&').filter(|pair| !pair.is_empty() && !is_mark(pair));
        target.query = Some(others.chain([mark.as_str()]).collect::<Vec<_>>().join("&"));
        let location = target.url(&self.host());
        self.refuse_with(now, request, 302, &[("Location", &location)]);
        self.close(CloseReason::SentAgain);
    }
}

/// Whether a part of a query has the mark's key. Its value does not count: who comes with another one would be sent on for ever.
fn is_mark(pair: &str) -> bool {
    pair.split('=').next() == Some(MARK.0)
}
