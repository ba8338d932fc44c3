//! The connection of a viewer over RTSP, sans-IO.
//!
//! Requests are taken one at a time, and answered in their order. While the relay thinks about one, later bytes wait.
//!
//! ```text
//! OPTIONS ──→ (AwaitsPublisher) ─→ methods
//! DESCRIBE ─→ Admit ─→ Open ─→ description
//! SETUP ───→ (the same) ─→ Lease, over UDP ─→ Ready ⇄ Playing ─→ end of stream ─→ Ready, or closed
//!                                             PLAY: Play, PlayFile, Resume ─→ Cued ─→ answer, then media
//! ```
//!
//! Source: MS-RTSP 3.2; RFC 2326.

mod api;
mod describe;
mod dialect;
mod ends;
mod parameters;
mod play;
mod reply;
mod sessions;
mod setup;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

pub use api::{CloseReason, Config, Input, Output, Report, SERVER};
use bytes::Bytes;
pub use sessions::{Sessions, client_id_of};

use describe::aggregate;

use super::media::Carriage;
use super::message::{Agent, Bounds, MessageError, Method, Reader, Request, ResponseWriter, Target, Unit, player_of};
use super::recovery::Nack;
use super::sdp::Tracks;
use super::transport::Spec;
use crate::asf::StreamSet;
use crate::text::profile_of;
use crate::text::signed::key_of;
use crate::viewing::{Answer, Ask, Description, Login, OpenRefusal, Pass, Until};
use crate::wire::TokenBucket;

/// By which a player says that it reads profiles of the begin. Source: MS-RTSP 2.2.6.10.
const STARTUP_PROFILE: &str = "com.microsoft.wm.startupprofile";
/// Bytes that may wait while the relay thinks: some pipelined requests with a log among them.
const AHEAD_BOUND: usize = 96 << 10;
/// Bytes of frames from a player, a second: reports are far less.
const FRAME_BYTES_PER_S: u64 = 64 << 10;
/// Requests of one session in [`HEARTBEAT_S`]. Source: MS-RTSP 3.2.5.1.
const MOST_REQUESTS: u32 = 240;
const HEARTBEAT_S: u32 = 30;
/// Packets sent again to one session, a second; more than any stream loses that can be watched.
const RESENDS_PER_S: u32 = 100;
const RESENDS_AT_ONCE: u32 = 200;

/// Where a viewer's connection is, besides what it plays.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    sessions: Rc<RefCell<Sessions>>,
    peer: IpAddr,
    local: SocketAddr,
    /// The first of our two UDP ports for RTP; `None` where there is no UDP.
    server_port: Option<u16>,
    /// By which requests for lost packets name the session. Unpredictable.
    client_id: u32,
    /// The id of the next session. Unpredictable.
    next_id: u64,
    reader: Reader,
    /// Bytes that came while the relay owed an answer.
    ahead: usize,
    waiting: Option<Waiting>,
    admitted: bool,
    opened: Option<Opened>,
    session: Option<Session>,
    /// The packet of the file with which a session goes on that came again.
    goes_on: Option<u32>,
    /// The client found a plain server here, see [`dialect`].
    is_plain: bool,
    /// The player reads `X-StartupProfile`.
    reads_profiles: bool,
    /// UDP was refused once: all streams are to end on one transport.
    udp_refused: bool,
    /// Of the last play.
    incarnation: u8,
    /// How the play in hand goes, as its player is told.
    promise: play::Promise,
    /// The RTP sequence number behind the last packet that was sent.
    next_sequence: Option<u16>,
    /// Of our own requests.
    cseq: u64,
    /// Tests of UDP paths, and the last one.
    tests: (u8, Option<Instant>),
    /// Since then nothing is set up, and was not described for the first time.
    unsettled: Instant,
    since: Instant,
    requests: TokenBucket,
    resends: TokenBucket,
    deadline: Option<Instant>,
    closed: bool,
    outputs: VecDeque<Output>,
    report: Report,
}

/// A request, and what is owed for it.
#[derive(Debug)]
struct Waiting {
    request: Box<Request>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Awaited,
    Admitted,
    Opened,
    Leased(Box<setup::Leasing>),
    Cued,
}

/// What is described to the player.
#[derive(Debug)]
struct Opened {
    /// The whole of it, as the player wrote it.
    target: Target,
    name: String,
    description: Description,
    tracks: Tracks,
    /// Counts the headers told: `X-Playlist-Gen-Id`.
    entry: u32,
}

impl Opened {
    /// Whether a target is the whole of it. A stream's token may stand in the path or, behind a key, in the query.
    fn is_whole(&self, target: &Target) -> bool {
        self.target.same_path(target) && (target.query.is_none() || target.query == self.target.query)
    }
}

/// What is set up.
#[derive(Debug)]
struct Session {
    id: u64,
    /// What it is of.
    name: String,
    /// Tokens of the streams, in the order of their SETUPs, and their numbers.
    streams: Vec<(super::message::StreamToken, u8)>,
    carriage: Option<Carriage>,
    /// First port and whether it is a pair, as they were leased for media.
    ports: Option<(u16, bool)>,
    /// Lost packets are sent again.
    resends: bool,
    state: Play,
    /// The player understands the dialect's end of stream and change of header.
    is_windows_media: bool,
    /// The play in hand ends there.
    until: Option<Until>,
    /// Of these only key frames.
    thinned: StreamSet,
    /// What was played last has ended by itself.
    ended: bool,
}

impl Session {
    /// Of this name; nothing is set up yet.
    fn new(id: u64, name: &str, is_windows_media: bool) -> Self {
        Self {
            id,
            name: name.to_owned(),
            streams: Vec::new(),
            carriage: None,
            ports: None,
            resends: false,
            state: Play::Ready,
            is_windows_media,
            until: None,
            thinned: StreamSet::EMPTY,
            ended: false,
        }
    }
}

/// Source: MS-RTSP 3.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Play {
    /// Nothing was played yet, or what was played is over.
    Ready,
    Playing,
    Paused,
}

impl Connection {
    /// A connection that was just accepted.
    ///
    /// `session` is an unpredictable number for the session that begins here; requests for lost packets name its lower half. `local` is the address that the peer connected to, `server_port` the even one of our UDP ports there.
    pub fn new(
        now: Instant,
        config: Arc<Config>,
        sessions: Rc<RefCell<Sessions>>,
        peer: IpAddr,
        local: SocketAddr,
        server_port: Option<u16>,
        session: u64,
    ) -> Self {
        let deadline = Some(now + config.head);
        Self {
            config,
            sessions,
            peer: peer.to_canonical(),
            local,
            server_port,
            client_id: client_id_of(session),
            next_id: session,
            reader: Reader::new(Bounds::VIEWER),
            ahead: 0,
            waiting: None,
            admitted: false,
            opened: None,
            session: None,
            goes_on: None,
            is_plain: false,
            reads_profiles: false,
            udp_refused: false,
            incarnation: 0,
            promise: play::Promise::default(),
            next_sequence: None,
            cseq: 0,
            tests: (0, None),
            unsettled: now,
            since: now,
            requests: TokenBucket::new(now, MOST_REQUESTS / HEARTBEAT_S, MOST_REQUESTS),
            resends: TokenBucket::new(now, RESENDS_PER_S, RESENDS_AT_ONCE),
            deadline,
            closed: false,
            outputs: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Takes one input in; drain [`Connection::poll_output`] behind it. After [`Output::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.closed {
            return;
        }
        match input {
            Input::Bytes(bytes) => {
                if self.waiting.is_some() {
                    self.ahead += bytes.len();
                    if self.ahead > AHEAD_BOUND {
                        return self.close(CloseReason::Flood);
                    }
                }
                self.reader.push(bytes);
                let allowed = FRAME_BYTES_PER_S * (now.saturating_duration_since(self.since).as_secs() + 1);
                if self.reader.skipped().bytes > allowed {
                    return self.close(CloseReason::Flood);
                }
            }
            Input::Datagram(bytes) => return self.lost(now, bytes),
            Input::End { next } => return self.left(now, next),
            Input::Answer(answer) => self.answer(now, answer),
            Input::Timeout => self.timeout(now),
        }
        self.read(now);
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
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// How media travels; `None` before a SETUP.
    pub fn carriage(&self) -> Option<Carriage> {
        self.session.as_ref().and_then(|session| session.carriage)
    }

    /// Media time, milliseconds, of which the play that is to be cued wants to be told how fast it goes; `None` where it does not.
    pub fn head_start_ms(&self) -> Option<u32> {
        let waiting = self.waiting.as_ref().filter(|waiting| matches!(waiting.step, Step::Cued))?;
        play::acceleration(&waiting.request).map(|wish| wish.duration_ms).filter(|ms| *ms > 0)
    }

    /// Whether [`Output::Close`] was given.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Facts for the log.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Whether it has a session, or has taken one up whose connection was lost.
    pub const fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Acts on what has come, as far as the relay lets it.
    fn read(&mut self, now: Instant) {
        while !self.closed && self.waiting.is_none() {
            self.ahead = 0;
            match self.reader.next() {
                Ok(None) => return,
                Ok(Some(Unit::Request(request))) => {
                    self.report.requests += 1;
                    if self.requests.take(now) {
                        self.act(now, Box::new(request));
                    } else {
                        self.refuse(now, &request, 503);
                    }
                }
                // Of a request of ours: whatever it says, nothing follows from it.
                Ok(Some(Unit::Response(_))) => self.reader.expects_echo(false),
                Ok(Some(Unit::Frame { .. })) => {}
                Err(error) => self.misread(now, &error),
            }
        }
    }

    fn misread(&mut self, now: Instant, error: &MessageError) {
        let mut response = ResponseWriter::new(error.status);
        if let Some(cseq) = error.cseq {
            response.header("CSeq", cseq);
        }
        response.header("Server", &self.config.server);
        self.send(response.finish());
        if error.goes_on {
            self.heard(now);
        } else {
            self.close(CloseReason::Protocol);
        }
    }

    /// Source: MS-RTSP 3.2.5.1.
    fn act(&mut self, now: Instant, request: Box<Request>) {
        if request.headers.number::<u64>("CSeq").is_none() {
            return self.refuse(now, &request, 400);
        }
        if let Some(required) = request.headers.get("Require") {
            let is_tag = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let unsupported: String = required.chars().take_while(is_tag).take(64).collect();
            return self.refuse_with(now, &request, 551, &[("Unsupported", &unsupported)]);
        }
        if let Some(supported) = request.headers.get("Supported") {
            self.reads_profiles = supported.contains(STARTUP_PROFILE);
        }
        if self.names_another_session(&request) {
            return if self.take_up(&request) { self.seek_entry(now, request) } else { self.refuse(now, &request, 454) };
        }
        let leaves = matches!(request.method, Method::Options | Method::Describe | Method::Teardown);
        if self.session.is_some() && self.opened.is_none() && !leaves {
            // It came again, and was not let in.
            return self.seek_entry(now, request);
        }
        let stale =
            |opened: &Opened| request.headers.number::<u32>("X-Playlist-Gen-Id").is_some_and(|id| id != 0 && id != opened.entry);
        if !leaves && request.method != Method::Play && self.opened.as_ref().is_some_and(stale) {
            return self.refuse(now, &request, 412);
        }
        match &request.method {
            Method::Options => self.options(now, request),
            Method::Describe => self.describe(now, request),
            Method::Setup => self.setup(now, request),
            Method::Play => self.play(now, request),
            Method::Pause => self.pause(now, &request),
            Method::Teardown => self.teardown(now, &request),
            Method::GetParameter => self.get_parameter(now, &request),
            Method::SetParameter => self.set_parameter(now, &request),
            Method::Announce if self.config.publishers && self.session.is_none() => self.hand_over(&request),
            Method::Announce | Method::Record | Method::Redirect => {
                self.refuse_with(now, &request, 405, &[("Allow", reply::METHODS)]);
            }
            Method::Other(_) => self.refuse_with(now, &request, 501, &[("Public", reply::METHODS)]),
        }
    }

    /// Whether it is for a session that is not ours. The first SETUP has none, and there are requests that need none.
    fn names_another_session(&self, request: &Request) -> bool {
        let Some(named) = request.headers.get("Session") else { return false };
        let id = named.split(';').next().unwrap_or_default().trim();
        let known = self.session.as_ref().is_some_and(|session| id.len() <= 20 && id.parse() == Ok(session.id));
        let needs_none = matches!(request.method, Method::Options | Method::Describe)
            || request.headers.is_type("application/x-wms-sendevent")
            || request.headers.is_type("application/x-wms-getcontentinfo")
            || request.headers.is_type("application/x-rtsp-packetpair");
        !known && !needs_none
    }

    /// A player that lost its connection goes on with its session on this one.
    fn take_up(&mut self, request: &Request) -> bool {
        let named = request.headers.get("Session").and_then(|named| named.split(';').next()?.trim().parse().ok());
        let Some(id) = named.filter(|_| self.session.is_none() && aggregate(request).is_ok()) else { return false };
        let name = aggregate(request).ok().and_then(|target| target.name()).unwrap_or_default();
        let Some(resting) = self.sessions.borrow_mut().take(id, self.peer, &name) else { return false };
        (self.session, self.goes_on) = (Some(resting.session), resting.next);
        true
    }

    /// The connection is gone. A session that plays over it, or to ports, may come again.
    fn left(&mut self, now: Instant, next: Option<u32>) {
        if let Some(session) = self.session.take() {
            let until = now + self.config.idle;
            self.sessions.borrow_mut().rest(session, next.or(self.goes_on), self.peer, until);
        }
        self.closed = true;
        (self.deadline, self.waiting) = (None, None);
    }

    fn answer(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::NewGeneration(description) => return self.new_generation(now, description),
            Answer::Ended => {
                self.cue_nothing(now);
                return self.ended(now, true);
            }
            Answer::Finished { incarnation } => {
                self.cue_nothing(now);
                return self.finished(now, incarnation);
            }
            Answer::Broken => return self.close(CloseReason::Broken),
            Answer::NextSequence(next) => {
                self.next_sequence = Some(next);
                return;
            }
            _ => {}
        }
        let Some(Waiting { request, step }) = self.waiting.take() else { return };
        match (step, answer) {
            (Step::Awaited, Answer::AwaitsPublisher(awaits)) => self.awaited(now, &request, awaits),
            (Step::Admitted, Answer::Admitted(Ok(()))) => {
                self.admitted = true;
                self.open(now, request);
            }
            (Step::Admitted, Answer::Admitted(Err(hr))) => self.not_opened(now, &request, &OpenRefusal::Status(hr)),
            (Step::Opened, Answer::Opened(Ok(description))) => self.opened(now, request, description),
            (Step::Opened, Answer::Opened(Err(refusal))) => self.not_opened(now, &request, &refusal),
            (Step::Leased(leasing), Answer::Leased(result)) => self.leased(now, request, *leasing, result.is_ok()),
            (Step::Cued, Answer::Cued(cue)) => self.cued(now, &request, &cue),
            // An answer to something else: the one that is owed is still to come.
            (step, _) => self.waiting = Some(Waiting { request, step }),
        }
    }

    /// What was to be played is over before its first packet.
    fn cue_nothing(&mut self, now: Instant) {
        if let Some(Waiting { request, .. }) = self.waiting.take_if(|waiting| matches!(waiting.step, Step::Cued)) {
            if let Some(session) = &mut self.session {
                session.state = Play::Playing;
            }
            self.accept(now, &request);
        }
    }

    fn wait(&mut self, now: Instant, request: Box<Request>, step: Step, ask: Ask) {
        // A key frame may be long in coming; one that never comes holds nobody's place.
        self.deadline = matches!(step, Step::Cued).then(|| now + self.config.idle);
        self.waiting = Some(Waiting { request, step });
        self.ask(ask);
    }

    /// Requests for lost packets that name this session.
    fn lost(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(Some(nack)) = Nack::parse(datagram) else { return };
        let Some(session) =
            self.session.as_ref().filter(|session| session.resends && (session.state != Play::Ready || session.ended))
        else {
            return;
        };
        if session.ports.is_none() || nack.v_ssrc != self.client_id {
            return;
        }
        let mut sequences: Vec<u32> = nack.sequences.iter().map(|sequence| u32::from(*sequence)).collect();
        self.report.resends_asked += sequences.len() as u64;
        sequences.retain(|_| self.resends.take(now));
        if !sequences.is_empty() {
            self.report.resends_granted += sequences.len() as u64;
            self.ask(Ask::Resend { sequences });
        }
    }

    fn timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            let ended = self.session.as_ref().is_some_and(|session| session.ended);
            self.close(if ended { CloseReason::Ended } else { CloseReason::Idle });
        }
    }

    /// A request was answered: how long the next may take.
    fn heard(&mut self, now: Instant) {
        self.deadline = match &self.session {
            // Whatever is asked meanwhile: it holds a place.
            None => Some(self.unsettled + self.config.unsettled),
            // Players outside the dialect wait for ever behind the end.
            Some(session) if session.ended && !session.is_windows_media => Some(now + self.config.farewell),
            // Who is gone is found out by what cannot be written.
            Some(session) if session.state == Play::Playing && session.ports.is_none() => None,
            Some(_) => Some(now + self.config.idle),
        };
    }

    fn send(&mut self, bytes: Bytes) {
        self.outputs.push_back(Output::Send(bytes));
    }

    fn ask(&mut self, ask: Ask) {
        self.outputs.push_back(Output::Ask(ask));
    }

    /// Ends what is set up. What is described stays.
    fn end_session(&mut self, now: Instant) {
        let Some(session) = self.session.take() else { return };
        self.unsettled = now;
        self.sessions.borrow_mut().forget(session.id);
        // Another one is another session; the lower half is by which requests find it.
        self.next_id = self.next_id.wrapping_add(0x9E37_79B9 << 32);
        self.goes_on = None;
        if session.state == Play::Playing {
            self.ask(Ask::Stop);
        }
        if !self.closed && (session.ports.is_some() || session.resends) {
            self.ask(Ask::ReleasePort);
        }
    }

    /// Somebody publishes: the rest is for others.
    fn hand_over(&mut self, request: &Request) {
        let mut bytes = request.to_bytes().to_vec();
        bytes.extend_from_slice(&self.reader.take_held());
        self.outputs.push_back(Output::HandOver(bytes));
        self.closed = true;
        self.deadline = None;
    }

    fn close(&mut self, reason: CloseReason) {
        // The ports go with the connection.
        self.closed = true;
        self.end_session(self.since);
        self.outputs.push_back(Output::Close(reason));
        self.deadline = None;
        self.waiting = None;
        self.reader = Reader::new(Bounds::VIEWER);
    }
}
