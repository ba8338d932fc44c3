//! What the relay is asked for a request, and what becomes of its answers.

use std::time::Instant;

use super::host::Origin;
use super::request::{Request, Wish};
use super::{CloseReason, Connection, download, pages, reply};
use crate::http::response::{Refusal, Status};
use crate::http::viewer::agent::Family;
use crate::rtsp::sdp::{self, Facts};
use crate::viewing::{Answer, Ask, Description, FileFacts, OpenRefusal, Player};
use crate::wire::Hresult;

/// A request that waits for the relay.
#[derive(Debug)]
pub(super) struct Waiting {
    request: Box<Request>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Admitted,
    Opened,
    Facts,
    /// Bytes of a file are on their way.
    BytesSent,
}

impl Connection {
    /// Asks for what the request is about; who has not been admitted is introduced first.
    pub(super) fn ask_relay(&mut self, now: Instant, request: Box<Request>) {
        let player = player(&request);
        self.report.player = Some(player.clone());
        if self.admitted {
            return self.open(now, request);
        }
        self.wait(request, Step::Admitted, Ask::Admit(player));
    }

    fn open(&mut self, now: Instant, request: Box<Request>) {
        if request.name.is_empty() {
            return self.refuse_open(now, &request, &OpenRefusal::Status(Hresult::FILE_NOT_FOUND));
        }
        let (name, pass) = (request.name.clone(), request.pass.clone());
        match request.wish {
            Wish::Download | Wish::Page | Wish::Asx(_) | Wish::M3u | Wish::GetContentInfo => {
                self.wait(request, Step::Facts, Ask::OpenBytes { name, pass });
            }
            _ => self.wait(request, Step::Opened, Ask::Open { name, pass }),
        }
    }

    fn wait(&mut self, request: Box<Request>, step: Step, ask: Ask) {
        self.deadline = None;
        self.waiting = Some(Waiting { request, step });
        self.ask(ask);
    }

    pub(super) fn answer(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::NewGeneration(description) => return self.new_generation(now, description),
            Answer::Ended => return self.ended(now),
            Answer::Finished { incarnation } => return self.finished(now, incarnation),
            Answer::Broken => return self.broken(now),
            _ => {}
        }
        let Some(Waiting { request, step }) = self.waiting.take() else { return };
        match (step, answer) {
            (Step::Admitted, Answer::Admitted(Ok(()))) => {
                (self.admitted, self.was_admitted) = (true, true);
                self.open(now, request);
            }
            (Step::Admitted, Answer::Admitted(Err(hr))) => self.refuse_open(now, &request, &OpenRefusal::Status(hr)),
            (Step::Opened, Answer::Opened(Ok(description))) => self.opened(now, &request, description),
            (Step::Opened, Answer::Opened(Err(refusal))) | (Step::Facts, Answer::Bytes(Err(refusal))) => {
                self.not_opened(now, request, step, &refusal);
            }
            (Step::Facts, Answer::Bytes(Ok(facts))) => self.facts(now, request, &facts),
            (Step::BytesSent, Answer::BytesSent) if request.keeps_alive => self.rest(now),
            (Step::BytesSent, Answer::BytesSent) => self.close(now, CloseReason::Done),
            // An answer to something else: the one that is owed is still to come.
            (step, _) => self.waiting = Some(Waiting { request, step }),
        }
    }

    /// Not under this name, or not as a file.
    fn not_opened(&mut self, now: Instant, mut request: Box<Request>, step: Step, refusal: &OpenRefusal) {
        match (refusal, request.bare_name()) {
            (OpenRefusal::NotAFile, _) if step == Step::Facts && request.wish == Wish::Download => {
                let (name, pass) = (request.name.clone(), request.pass.clone());
                self.wait(request, Step::Opened, Ask::Open { name, pass });
            }
            (OpenRefusal::NotAFile, _) if step == Step::Facts => self.metafile(now, &request),
            // Some players want an ending that shows what it is.
            (OpenRefusal::Status(Hresult::FILE_NOT_FOUND), Some(bare)) => {
                request.name = bare.to_owned();
                self.open(now, request);
            }
            _ => self.refuse_open(now, &request, refusal),
        }
    }

    /// Whether what it asks the relay for plays in a session of players, of which one connection plays at a time.
    pub fn plays_in_session(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| {
            matches!(waiting.request.wish, Wish::Describe | Wish::Play | Wish::PlayNextEntry) && !waiting.request.head_only
        })
    }

    /// Whether the name that the relay was asked for, if it is not there, is tried again without its ending.
    pub fn tries_bare_name(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.request.bare_name().is_some())
    }

    fn refuse_open(&mut self, now: Instant, request: &Request, refusal: &OpenRefusal) {
        if let OpenRefusal::Redirect(location) = refusal
            && let Some(response) = reply::redirect(&self.config.server, &request.with_ending(location), request)
        {
            self.send(response);
            return self.close(now, CloseReason::Redirected);
        }
        if let OpenRefusal::Login(challenge) = refusal {
            // The connection stays: the same request with credentials follows on it.
            let response = reply::unauthorized(&self.config.server, challenge, request);
            return self.respond(now, response, request.keeps_alive);
        }
        self.refuse(now, &reply::refused(refusal), request.http_1_0, request.head_only, CloseReason::Refused);
    }

    fn opened(&mut self, now: Instant, request: &Request, description: Description) {
        match request.wish {
            Wish::Describe => self.describe(now, request, &description),
            Wish::Sdp => self.sdp(now, request, &description),
            Wish::Download => self.play_raw(now, request, description),
            _ => self.play(now, request, description),
        }
    }

    fn facts(&mut self, now: Instant, request: Box<Request>, facts: &FileFacts) {
        if request.wish != Wish::Download {
            return self.metafile(now, &request);
        }
        let (response, part) = download::response(&self.config.server, &request, facts, request.keeps_alive);
        match part {
            Some((first, len)) => {
                self.send(response);
                self.wait(request, Step::BytesSent, Ask::SendBytes { first, len });
            }
            None => self.respond(now, response, request.keeps_alive),
        }
    }

    /// What people are shown in place of the name, if that is set.
    fn title(&self, request: &Request) -> Option<String> {
        self.config.titles.of(&request.name)
    }

    /// A page or a playlist, of something that is there.
    pub(super) fn metafile(&mut self, now: Instant, request: &Request) {
        let origin = Origin::new(self.config.public_name.as_deref(), request.host.as_deref(), self.local)
            .with_mms(self.config.mms_port(self.local));
        let query = &request.onward_query();
        let title = self.title(request);
        let title = title.as_deref().unwrap_or(&request.name);
        let (kind, text) = match request.wish {
            Wish::Page => ("text/html; charset=utf-8", pages::page(&origin, &request.name, title, query)),
            Wish::M3u => ("audio/x-mpegurl", pages::m3u(&origin, &request.name, title, query)),
            Wish::Asx(kind) => (kind.content_type(), pages::asx(&origin, &request.name, title, query)),
            Wish::GetContentInfo => {
                return self.acknowledge(now, request, Status::Ok, request.keeps_alive && self.pipelined);
            }
            _ => return self.refuse_open(now, request, &OpenRefusal::NotAFile),
        };
        let mut reply = reply::Reply::new(&self.config.server, request.http_1_0, Status::Ok)
            .field("Content-Type", kind)
            .field("Cache-Control", &request.cache_control("no-cache"));
        if request.wish == Wish::Page {
            reply = reply
                .field("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
                .field("X-Content-Type-Options", "nosniff")
                // The address may hold a key.
                .field("Referrer-Policy", "no-referrer");
        }
        let response = reply.connection(request.keeps_alive).body(text.as_bytes(), request.head_only);
        self.respond(now, response, request.keeps_alive);
    }

    /// The description that RTSP has of it, with the address of that.
    fn sdp(&mut self, now: Instant, request: &Request, description: &Description) {
        let origin = Origin::new(self.config.public_name.as_deref(), request.host.as_deref(), self.local);
        let Some(port) = self.config.rtsp_port else {
            return self.refuse_open(now, request, &OpenRefusal::NotAFile);
        };
        let url = origin.rtsp_url(port, &request.name, &request.onward_query());
        let is_ipv6 = self.local.ip().to_canonical().is_ipv6();
        // GStreamer's HTTP client names itself like its RTSP client.
        let reduced = request.agent.token.starts_with("GStreamer");
        let text =
            sdp::describe(description, &Facts { reduced, title: self.title(request), ..Facts::of(description, url, is_ipv6) });
        let reply = reply::Reply::new(&self.config.server, request.http_1_0, Status::Ok)
            .field("Content-Type", "application/sdp")
            .field("Cache-Control", &request.cache_control("no-cache"));
        let response = reply.connection(request.keeps_alive).body(text.as_bytes(), request.head_only);
        self.respond(now, response, request.keeps_alive);
    }

    /// The file that is played or sent cannot be read on.
    fn broken(&mut self, now: Instant) {
        if self.playing.is_some() {
            return self.fail(now, CloseReason::Broken);
        }
        match self.waiting.as_ref().map(|waiting| waiting.step) {
            // A body that is shorter than was said tells enough.
            Some(Step::BytesSent) => self.close(now, CloseReason::Broken),
            Some(_) => {
                let refusal = Refusal::new(Status::InternalServerError, "The file cannot be read.");
                self.refuse(now, &refusal, false, false, CloseReason::Broken);
            }
            None => {}
        }
    }
}

fn player(request: &Request) -> Player {
    let agent = &request.agent;
    Player {
        token: agent.token.clone(),
        version: agent.streams().then_some(agent.version),
        guid: request.pragmas.guid(),
        host: request.host.as_deref().and_then(super::host::name_of).map(str::to_owned),
        is_wms4: agent.family == Family::Server && agent.version.0 < 5,
    }
}
