//! Headers told, media begun, changed and ended.

use std::time::Instant;

use super::request::Request;
use super::sessions::Owner;
use super::{CloseReason, Connection, Output, Told, agent, metadata, place, reply};
use crate::asf::Selection;
use crate::http::response::{Refusal, Status};
use crate::http::viewer::agent::Family;
use crate::http::wrap::{Control, MAX_PACKET, Wrap, chunk, header_frames, metadata_frames};
use crate::viewing::{Ask, Content, Description, OpenRefusal};
use crate::wire::Hresult;

const HEADER_TYPE: &str = "application/vnd.ms.wms-hdr.asfv1";
pub(super) const MEDIA_TYPE: &str = "application/x-mms-framed";
const RAW_TYPE: &str = "video/x-ms-asf";
/// Reasons of `$E`: the end; the next entry follows; it broke off (MS-WMSP 2.2.3.4).
const FINISHED: u32 = 0;
const ENTRY_FINISHED: u32 = 1;
const UNSPECIFIED: u32 = 0x8000_4005;

/// What is played on a connection.
#[derive(Debug)]
pub(super) struct Playing {
    pub(super) wrap: Wrap,
    name: String,
    description: Description,
    selection: Selection,
    /// Headers told in this play.
    generation: u32,
    manners: Manners,
}

/// What a player takes.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// It is of version 9 or later: it wants the end of an entry told.
    is_9: bool,
    /// It expects `$M` before `$H`: it is of version 9 or later, and we seem to be.
    metadata: bool,
    /// It loses its place when the header changes: MPlayer.
    loses_place: bool,
}

impl Playing {
    /// The frames that tell the header.
    fn header(&self) -> Vec<u8> {
        frames(self.manners, self.generation, &self.name, &self.description)
    }
}

fn frames(manners: Manners, generation: u32, name: &str, description: &Description) -> Vec<u8> {
    let mut frames = Vec::new();
    if manners.metadata {
        frames = metadata_frames(&metadata::text(generation, name, description.content, &description.header));
    }
    frames.extend(header_frames(&description.header));
    frames
}

/// Each frame as its own chunk where that is the wrapping: there are players that look for one at the begin of the other.
fn wrapped(wrap: Wrap, frames: &[u8]) -> Vec<u8> {
    if wrap != Wrap::Chunked {
        return frames.to_vec();
    }
    let mut rest = frames;
    let mut chunks = Vec::with_capacity(frames.len() + 32);
    while let [_, _, low, high, ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])) + 4;
        let (frame, behind) = rest.split_at(len.min(rest.len()));
        chunks.extend(chunk(frame));
        rest = behind;
    }
    chunks
}

impl Connection {
    fn manners(&self, request: &Request) -> Manners {
        let is_9 = request.agent.is_9();
        let ours = self.config.server.strip_prefix("Cougar").map_or((0, 0), agent::version);
        Manners { is_9, metadata: is_9 && ours.0 >= 9, loses_place: request.pragmas.guid_first }
    }

    /// The session of a Describe or Play: the one that is named, else this connection's; a new one where there is none. And
    /// whether the player has to learn that what it named is gone.
    fn join(&mut self, now: Instant, request: &Request) -> (u32, bool) {
        let named = request.client_id();
        let mut sessions = self.sessions.borrow_mut();
        let known = named.filter(|id| sessions.is_of(*id, self.peer));
        let ours = self.session.filter(|id| named.is_none() && sessions.holds(*id));
        let client_id = known.or(ours).unwrap_or(self.own_id);
        let owner = Owner { peer: self.peer, guid: request.pragmas.guid(), version: request.agent.version };
        sessions.found(client_id, owner, &request.name, now + self.config.idle);
        drop(sessions);
        self.session = Some(client_id);
        self.report.client_id = Some(client_id);
        (client_id, named.is_some() && known.is_none())
    }

    /// The tokens of every response within a session.
    pub(super) fn tokens(&self) -> [String; 2] {
        let client_id = self.session.map(|id| format!("client-id={id}")).unwrap_or_default();
        [client_id, format!("timeout={}", self.config.idle_told.as_millis())]
    }

    /// Source: MS-WMSP 3.2.5.4.
    pub(super) fn describe(&mut self, now: Instant, request: &Request, description: &Description) {
        if !carries(description) {
            return self.refuse_size(now, request);
        }
        let (client_id, reset) = self.join(now, request);
        self.sessions.borrow_mut().told(client_id, description.streams, Selection::all(description.streams));
        let is_9 = request.agent.is_9();
        let pipelines = is_9 && !request.http_1_0 && !request.via && request.pragmas.is_set("pipeline-experiment");
        self.pipelined |= pipelines;
        let [id, timeout] = self.tokens();
        let features = format!("features=\"{}\"", metadata::features(description.content));
        let reset = if reset { "xResetStrm=1" } else { "" };
        let pipelining = if pipelines { "pipeline-experiment=1" } else { "" };
        let reply = reply::Reply::new(&self.config.server, request.http_1_0, Status::Ok)
            .field("Content-Type", HEADER_TYPE)
            .field("Pragma", &reply::pragma(&[&id, &features, &timeout, reset, pipelining]))
            .field("Cache-Control", &request.cache_control(cache_control(is_9, description.content)))
            .supported(is_9)
            .connection(request.keeps_alive);
        let body = frames(self.manners(request), 1, &request.name, description);
        let response = reply.body(&body, request.head_only);
        self.respond(now, response, request.keeps_alive);
    }

    /// Source: MS-WMSP 3.2.5.6.
    pub(super) fn play(&mut self, now: Instant, request: &Request, description: Description) {
        if !carries(&description) {
            return self.refuse_size(now, request);
        }
        let (client_id, reset) = self.join(now, request);
        let wrap = if request.takes_chunks() { Wrap::Chunked } else { Wrap::Framed };
        let head = self.play_head(request, wrap, reset, &description);
        if request.head_only {
            self.send(head);
            return self.close(now, CloseReason::Done);
        }
        let owner = Owner { peer: self.peer, guid: request.pragmas.guid(), version: request.agent.version };
        let before = self.sessions.borrow_mut().play(client_id, self.key, &owner);
        match before {
            Ok(None) => {}
            Ok(Some(connection)) => self.outputs.push_back(Output::Tell { connection, told: Told::Leave }),
            Err(_) => {
                let refusal = super::request::bad("the session of this client-id plays for somebody else");
                return self.refuse(now, &refusal, request.http_1_0, false, CloseReason::Refused);
            }
        }
        let all = Selection::all(description.streams);
        let pulls_all = request.agent.family == Family::Server && request.agent.version.0 < 5;
        let wish = place::select(&request.pragmas, Selection::default(), description.streams).filter(|_| !pulls_all);
        let selection = wish.unwrap_or(all);
        self.sessions.borrow_mut().told(client_id, description.streams, selection);
        let playing =
            Playing { wrap, name: request.name.clone(), description, selection, generation: 1, manners: self.manners(request) };
        let mut told = playing.header();
        if reply::wants_header_twice(request, reset) {
            told.extend(Control::End(ENTRY_FINISHED).bytes());
            told.extend(Control::Change.bytes());
            told.extend(header_frames(&playing.description.header));
        }
        let mut response = head;
        response.extend(wrapped(wrap, &told));
        self.send(response);
        self.begin(playing, Some(request));
    }

    fn play_head(&self, request: &Request, wrap: Wrap, reset: bool, description: &Description) -> Vec<u8> {
        let is_9 = request.agent.is_9();
        let mut reply = reply::Reply::new(&self.config.server, request.http_1_0, Status::Ok).field("Content-Type", MEDIA_TYPE);
        if wrap == Wrap::Chunked {
            reply = reply.field("Transfer-Encoding", "chunked");
        }
        let [id, timeout] = self.tokens();
        let features = format!("features=\"{}\"", metadata::features(description.content));
        let reset = if reset { "xResetStrm=1" } else { "" };
        let granted = place::acceleration(&self.config, &request.pragmas, request.agent.version, description.bit_rate);
        let burst = match (description.content, granted) {
            (Content::File { .. }, Some((name, granted))) => {
                format!("{name}BW={}, {name}Duration={}", granted.bandwidth, granted.duration_ms)
            }
            _ => String::new(),
        };
        reply
            .field("Pragma", &reply::pragma(&[&id, &features, &timeout, reset, &burst]))
            .field("Cache-Control", &request.cache_control(cache_control(is_9, description.content)))
            .supported(is_9)
            .connection(wrap == Wrap::Chunked)
            .open()
    }

    /// A broadcast as a file that never ends.
    pub(super) fn play_raw(&mut self, now: Instant, request: &Request, description: Description) {
        if description.content != Content::Live {
            let refusal = reply::refused(&OpenRefusal::Status(Hresult::FILE_NOT_FOUND));
            return self.refuse(now, &refusal, request.http_1_0, request.head_only, CloseReason::Refused);
        }
        let mut response = reply::Reply::new(&self.config.server, request.http_1_0, Status::Ok)
            .field("Content-Type", RAW_TYPE)
            .field("Cache-Control", &request.cache_control("no-cache, no-store"))
            .field("Accept-Ranges", "none")
            .connection(false)
            .open();
        if request.head_only {
            self.send(response);
            return self.close(now, CloseReason::Done);
        }
        response.extend_from_slice(&description.header);
        self.send(response);
        let manners = Manners { is_9: false, metadata: false, loses_place: true };
        let selection = Selection::all(description.streams);
        self.begin(Playing { wrap: Wrap::Raw, name: String::new(), description, selection, generation: 1, manners }, None);
    }

    /// Lets media begin: of a file where the request says.
    fn begin(&mut self, playing: Playing, request: Option<&Request>) {
        self.deadline = None;
        self.incarnation = self.incarnation.wrapping_add(1);
        let incarnation = self.incarnation;
        if playing.selection != Selection::all(playing.description.streams) {
            self.ask(Ask::Select(playing.selection));
        }
        match (playing.description.content, request) {
            (Content::File { .. }, Some(request)) => {
                let (pragmas, version) = (&request.pragmas, request.agent.version);
                // libmms and xine, who are told from ffmpeg by the version of HTTP.
                let adds_preroll = version.0 == 4 && request.http_1_0;
                let from = place::position(pragmas, &playing.description, adds_preroll);
                let acceleration = place::acceleration(&self.config, pragmas, version, playing.description.bit_rate);
                let acceleration = acceleration.map(|(_, granted)| granted);
                self.ask(Ask::PlayFile { incarnation, from, until: place::until(pragmas), acceleration, speed: 1 });
            }
            _ => self.ask(Ask::Play { incarnation }),
        }
        self.playing = Some(playing);
    }

    /// Other streams, from the next key frame on.
    pub(super) fn select(&mut self, selection: Selection) {
        if let Some(playing) = self.playing.as_mut().filter(|playing| playing.wrap != Wrap::Raw) {
            playing.selection = selection;
            self.ask(Ask::Select(selection));
        }
    }

    pub(super) fn told(&mut self, now: Instant, told: Told) {
        match told {
            Told::Select(selection) => self.select(selection),
            Told::Leave if self.playing.is_some() => self.close(now, CloseReason::TakenOver),
            Told::Leave => {}
        }
    }

    /// The header of what is played changed. Players before version 9 take `$E(1)` for a reason to come again.
    pub(super) fn new_generation(&mut self, now: Instant, description: Description) {
        let Some(mut playing) = self.playing.take() else { return };
        if playing.manners.loses_place || !carries(&description) {
            self.playing = Some(playing);
            return self.close(now, CloseReason::Changed);
        }
        self.ask(Ask::Stop);
        if playing.description.streams != description.streams {
            playing.selection = Selection::all(description.streams);
        }
        playing.description = description;
        playing.generation = playing.generation.saturating_add(1);
        let mut frames = Vec::new();
        if playing.manners.is_9 {
            frames.extend(Control::End(ENTRY_FINISHED).bytes());
        }
        frames.extend(Control::Change.bytes());
        frames.extend(playing.header());
        self.send(wrapped(playing.wrap, &frames));
        if let Some(client_id) = self.session {
            self.sessions.borrow_mut().told(client_id, playing.description.streams, playing.selection);
        }
        self.begin(playing, None);
    }

    /// Nothing more will come of the broadcast.
    pub(super) fn ended(&mut self, now: Instant) {
        match self.playing.as_ref().map(|playing| playing.wrap) {
            None => {}
            Some(Wrap::Raw) => self.close(now, CloseReason::Ended),
            Some(wrap) => {
                self.stop_media(now);
                self.send(wrapped(wrap, &Control::End(FINISHED).bytes()));
                self.end_body();
                if wrap == Wrap::Chunked { self.rest(now) } else { self.close(now, CloseReason::Ended) }
            }
        }
    }

    /// What was asked for of the file has been sent.
    pub(super) fn finished(&mut self, now: Instant, incarnation: u8) {
        // It may be the end of a play that another one has replaced by now.
        if incarnation == self.incarnation {
            self.ended(now);
        }
    }

    /// What is played breaks off.
    pub(super) fn fail(&mut self, now: Instant, reason: CloseReason) {
        if let Some(wrap) = self.playing.as_ref().map(|playing| playing.wrap).filter(|wrap| *wrap != Wrap::Raw) {
            self.stop_media(now);
            self.send(wrapped(wrap, &Control::End(UNSPECIFIED).bytes()));
            self.end_body();
        }
        self.close(now, reason);
    }

    fn refuse_size(&mut self, now: Instant, request: &Request) {
        let refusal =
            Refusal::new(Status::InternalServerError, "The packets of this stream do not fit the frames of this protocol.");
        self.refuse(now, &refusal, request.http_1_0, request.head_only, CloseReason::Refused);
    }
}

/// Whether packets of this size fit a frame.
fn carries(description: &Description) -> bool {
    usize::try_from(description.packet_size).is_ok_and(|size| (1..=MAX_PACKET).contains(&size))
}

const fn cache_control(is_9: bool, content: Content) -> &'static str {
    match content {
        Content::Live if is_9 => "no-cache, x-wms-stream-type=\"broadcast\"",
        _ => "no-cache",
    }
}
