//! What is done for a complete request.

use std::time::{Duration, Instant};

use super::reply::{METHODS, Reply, pragma};
use super::request::{Request, Wish, bad, no_descriptions};
use super::sessions::LOG_BOUND;
use super::{CloseReason, Connection, Output, Test, Told, place, play};
use crate::http::response::Status;
use crate::http::wrap::{LAST_CHUNK, chunk};
use crate::text::signed;

/// The frame by which a player sees whether responses come through (MS-WMSP 2.2.3.8).
const TEST_FRAME: &[u8] = b"$T\0\0";

/// More requests a second than any player sends, the seeks of an impatient person included.
const REQUESTS_PER_S: u32 = 50;

impl Request {
    /// The session that the request names.
    pub(super) fn client_id(&self) -> Option<u32> {
        self.pragmas.number("client-id").filter(|id| *id != 0)
    }
}

impl Connection {
    pub(super) fn act(&mut self, now: Instant, request: Box<Request>, body: &[u8]) {
        self.report.requests += 1;
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.requests_in_second) = (now, 0);
        }
        self.requests_in_second += 1;
        if self.requests_in_second > REQUESTS_PER_S {
            return self.close(now, CloseReason::Flood);
        }
        self.report.asked = Some(request.wish.label());
        if !request.wish.may_wait() {
            self.report.name = Some(request.name.clone());
            self.report.query = request.query.as_deref().map(signed::masked);
        }
        if matches!(self.test, Test::Open(_)) && request.wish != Wish::PipelineTest {
            self.test = Test::No;
            self.send(LAST_CHUNK);
        }
        let session = self.session_of(&request);
        if let Some(client_id) = session {
            self.report.names_session |= request.client_id().is_some();
            if self.playing.is_some() && self.session != session && !request.wish.may_wait() {
                // What plays belongs to the session before.
                self.stop_media(now);
                self.end_body();
            }
            if self.playing.is_none() {
                self.session = session;
                self.report.client_id = session;
            }
            self.sessions.borrow_mut().touch(client_id, now + self.config.idle);
        } else if request.wish.needs_session() {
            let refusal = bad("there is no session of this client-id");
            return self.refuse(now, &refusal, request.http_1_0, request.head_only, CloseReason::Refused);
        }
        if self.playing.is_some() && !request.wish.may_wait() {
            match request.wish {
                Wish::SelectStream => return self.select_here(&request),
                Wish::PlayNextEntry => return self.turn_body(&request),
                // Stop, and whatever shows that the player has had enough of what plays.
                _ => {
                    self.stop_media(now);
                    self.end_body();
                }
            }
        }
        match request.wish {
            Wish::Sdp if self.config.rtsp_port.is_none() => {
                let refusal = no_descriptions(".sdp");
                self.refuse(now, &refusal, request.http_1_0, request.head_only, CloseReason::Refused);
            }
            Wish::Describe | Wish::Play | Wish::PlayNextEntry | Wish::Download | Wish::Asx(_) | Wish::M3u | Wish::Sdp => {
                self.ask_relay(now, request);
            }
            Wish::Page if request.name.is_empty() => self.metafile(now, &request),
            Wish::Page => self.ask_relay(now, request),
            Wish::SelectStream => self.select_there(now, &request),
            Wish::PipelineTest => self.pipeline_test(now, &request),
            Wish::Stop => self.stop(now, &request),
            Wish::Log => {
                self.log(session, &request, body);
                self.acknowledge(now, &request, Status::NoContent, request.keeps_alive);
            }
            // One that keeps to one connection keeps it; the others come on new ones (MS-WMSP 3.2.5.9, 3.2.5.11).
            Wish::GetContentInfo if self.playing.is_none() => self.ask_relay(now, request),
            Wish::KeepAlive | Wish::GetContentInfo => {
                self.acknowledge(now, &request, Status::Ok, request.keeps_alive && self.pipelined);
            }
            Wish::SendEvent => self.acknowledge(now, &request, Status::Ok, request.keeps_alive),
            Wish::KeepAlivePipelined => {
                let reply = self.reply(&request, Status::Ok).field("Public", "GET, POST, OPTIONS").field("Allow", "OPTIONS");
                self.respond_to_options(now, &request, reply);
            }
            Wish::Methods => {
                let reply = Reply::new(&self.config.server, request.http_1_0, Status::Ok).field("Allow", METHODS);
                self.respond_to_options(now, &request, reply);
            }
        }
    }

    /// The session of a request: the one it names, if that belongs to this address; where it names none, the connection's.
    fn session_of(&self, request: &Request) -> Option<u32> {
        let sessions = self.sessions.borrow();
        match request.client_id() {
            Some(named) => Some(named).filter(|id| sessions.is_of(*id, self.peer)),
            None => self.session.filter(|id| sessions.holds(*id)),
        }
    }

    /// A response within a session.
    fn reply(&self, request: &Request, status: Status) -> Reply {
        let [id, timeout] = self.tokens();
        let reply = Reply::new(&self.config.server, request.http_1_0, status);
        reply
            .field("Pragma", &pragma(&[&id, &timeout]))
            .field("Cache-Control", "no-cache")
            .supported(request.agent.is_9() && request.agent.streams())
    }

    fn respond_to_options(&mut self, now: Instant, request: &Request, reply: Reply) {
        let keeps = request.keeps_alive || self.playing.is_some();
        self.respond(now, reply.connection(keeps).body(&[], false), keeps);
    }

    pub(super) fn acknowledge(&mut self, now: Instant, request: &Request, status: Status, keeps: bool) {
        let keeps = keeps || self.playing.is_some();
        // Of players, not of RFC 9110, which has no length in a 204.
        let response = self.reply(request, status).connection(keeps).body(&[], false);
        self.respond(now, response, keeps);
    }

    /// Logs are never refused for what is in them.
    fn log(&mut self, session: Option<u32>, request: &Request, body: &[u8]) {
        let line = request.pragmas.text("log-line").map(str::to_owned);
        let mut text = line.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        let end = (0..=LOG_BOUND.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        if let Some(client_id) = session {
            self.sessions.borrow_mut().log(client_id, &text);
        }
        self.report.log = Some(text);
    }

    /// Source: MS-WMSP 3.2.5.13.
    fn pipeline_test(&mut self, now: Instant, request: &Request) {
        if request.http_1_0 {
            let refusal = bad("pipelining is for HTTP/1.1");
            return self.refuse(now, &refusal, true, request.head_only, CloseReason::Refused);
        }
        let passed = match std::mem::replace(&mut self.test, Test::No) {
            Test::No => {
                let head = self.reply(request, Status::Ok).field("Content-Type", play::MEDIA_TYPE);
                let mut response = head.field("Transfer-Encoding", "chunked").connection(true).open();
                response.extend(chunk(TEST_FRAME));
                self.send(response);
                self.test = Test::Open(now + self.config.pipeline_test);
                return self.rest(now);
            }
            Test::Open(_) => {
                self.send(LAST_CHUNK);
                true
            }
            Test::Failed => false,
        };
        self.pipelined |= passed;
        let [id, timeout] = self.tokens();
        let result = format!("pipeline-result={}", u8::from(passed));
        let reply = Reply::new(&self.config.server, false, Status::NoContent)
            .field("Pragma", &pragma(&[&result, &id, &timeout]))
            .field("Cache-Control", "no-cache");
        self.respond(now, reply.connection(true).body(&[], false), true);
    }

    /// Ends the chunked body and begins another, in which the media goes on.
    fn turn_body(&mut self, request: &Request) {
        self.send(LAST_CHUNK);
        self.outputs.extend(self.behind.drain(..).map(Output::Send));
        let reply = self.reply(request, Status::Ok).field("Content-Type", play::MEDIA_TYPE);
        self.send(reply.field("Transfer-Encoding", "chunked").connection(true).open());
    }

    /// The player selects other streams on the connection on which it is sent them. Source: MS-WMSP 3.2.5.7.
    fn select_here(&mut self, request: &Request) {
        self.turn_body(request);
        if let Some(selection) = self.selection(request) {
            self.select(selection);
        }
    }

    /// The player selects other streams on another connection.
    fn select_there(&mut self, now: Instant, request: &Request) {
        if let Some(selection) = self.selection(request) {
            let player = self.session.and_then(|client_id| self.sessions.borrow().player(client_id));
            if let Some(connection) = player.filter(|connection| *connection != self.key) {
                self.outputs.push_back(Output::Tell { connection, told: Told::Select(selection) });
            }
        }
        self.acknowledge(now, request, Status::Ok, request.keeps_alive);
    }

    /// The session's selection with the changes of a request.
    fn selection(&self, request: &Request) -> Option<crate::asf::Selection> {
        let client_id = self.session?;
        let mut sessions = self.sessions.borrow_mut();
        let (streams, before) = sessions.selection(client_id)?;
        let selection = place::select(&request.pragmas, before, streams)?;
        sessions.told(client_id, streams, selection);
        Some(selection)
    }

    /// What plays on this connection has been stopped already.
    fn stop(&mut self, now: Instant, request: &Request) {
        let player = self.session.and_then(|client_id| self.sessions.borrow().player(client_id));
        if let Some(connection) = player.filter(|connection| *connection != self.key) {
            self.outputs.push_back(Output::Tell { connection, told: Told::Leave });
        }
        self.acknowledge(now, request, Status::Ok, request.keeps_alive);
    }
}
