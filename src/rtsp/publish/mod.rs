//! The connection of a publisher over RTSP, sans-IO: Windows Media streams, announced with their ASF header, or elementary streams that
//! ASF can carry, a track each.
//!
//! ```text
//! ANNOUNCE ─→ Authorise ─→ Publish ─→ SETUP mode=record (─→ Ports, over UDP) ─→ RECORD ─→ packets ─→ TEARDOWN
//!     ↑ again: another header of the same stream
//! ```
//!
//! What a publisher says is otherwise what a server of Windows Media says to its players: all streams in one flow of RTP, or a flow
//! for each. Tracks have a flow each, and reports that put them side by side.
//!
//! Source: RFC 2326 10.3, 10.11; RFC 3550 6.4; MS-RTSP 2.2.1, 2.2.5.

mod announced;
mod api;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use announced::{Announced, Content, describe};
pub use api::{Announcement, Answer, Ask, CloseReason, Input, NotAsf, Output, Publication, Refusal};
use bytes::{Bytes, BytesMut};

use super::depacketize::{Depacketizer, Losses};
use super::message::{Bounds, MessageError, Method, Reader, Request, ResponseWriter, Target, Unit, interleaved};
use super::reorder::Reorder;
use super::sdp::{Media, Role};
use super::tracks::Tracks;
use super::transport::{Lower, Mode, Spec};
use crate::asf::padding;

/// What a publisher may ask for.
const METHODS: &str = "OPTIONS, ANNOUNCE, SETUP, RECORD, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// As viewers are told.
const SERVER: &str = "WMServer/9.5.6001.18000";
/// For the next request of somebody who does not publish yet.
const UNSETTLED: Duration = Duration::from_secs(30);
/// Without media and without a request a session is over after this.
const IDLE: Duration = Duration::from_secs(40);
/// What publishers are told of that.
const IDLE_TOLD_S: u64 = 30;
/// Padded packets of one RTP packet, bytes, beyond which no sender has anything to say.
const RESTORED_BYTES: usize = 256 << 10;
/// Requests of somebody who does not publish yet.
const UNSETTLED_REQUESTS: u32 = 32;
/// How often a publisher of tracks hears that its media comes.
const REPORT_TIME: Duration = Duration::from_secs(5);
/// A receiver report that reports nothing.
const EMPTY_REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 0];
/// Packets in a row by which another sender's flow is known.
const NEW_FLOW: u8 = 3;
/// Of what a sender calls itself.
const AGENT_BYTES: usize = 256;
/// Before the name, where somebody writes the URL as HTTP has it.
const PREFIX: &str = "publish/";

/// A publisher's connection, from its ANNOUNCE on.
///
/// Requests are taken one at a time; while an [`Ask`] is outstanding later bytes wait, so its driver answers before it reads again.
#[derive(Debug)]
pub struct Connection {
    /// Inside TLS there is no UDP.
    is_tls: bool,
    /// The session's id.
    id: u32,
    reader: Reader,
    waiting: Option<Waiting>,
    stream: Option<Stream>,
    deadline: Option<Instant>,
    /// When the publisher is told next that its media comes.
    report_due: Option<Instant>,
    /// When it came.
    since: Instant,
    unsettled_requests: u32,
    closed: bool,
    outputs: VecDeque<Output>,
}

/// A request that waits for a decision.
#[derive(Debug)]
enum Waiting {
    /// What it announces is not read yet.
    Authority {
        request: Box<Request>,
        name: String,
    },
    Announce {
        request: Box<Request>,
        name: String,
        announced: Option<Box<Announced>>,
    },
    Setup {
        request: Box<Request>,
        media: usize,
        spec: Spec,
    },
}

/// What is published.
#[derive(Debug)]
struct Stream {
    name: String,
    content: Content,
    media: Vec<Media>,
    /// All that is set up travels so.
    lower: Option<Lower>,
    flows: Vec<Flow>,
    records: bool,
}

/// RTP packets of one sender.
#[derive(Debug)]
struct Flow {
    way: Way,
    ssrc: Option<[u8; 4]>,
    /// Packets in a row of another one.
    strangers: u8,
    carries: Carries,
}

/// How media and reports come.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Channels of interleaved frames.
    Channels { media: u8, reports: Option<u8> },
    /// A pair of ports; where reports go at the publisher's.
    Pair { number: usize, reports: Option<u16> },
}

#[derive(Debug)]
enum Carries {
    Asf {
        reorder: Reorder,
        depacketizer: Depacketizer,
    },
    Track(usize),
    /// Media that is left out.
    Nothing,
}

impl Connection {
    /// A connection that was just taken over. `id` is an unpredictable number for its session.
    pub fn new(now: Instant, id: u32, is_tls: bool) -> Self {
        Self {
            is_tls,
            id,
            reader: Reader::new(Bounds::PUBLISHER),
            waiting: None,
            stream: None,
            deadline: Some(now + UNSETTLED),
            report_due: None,
            since: now,
            unsettled_requests: 0,
            closed: false,
            outputs: VecDeque::new(),
        }
    }

    /// What is to be done next, oldest first; call until `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.deadline, self.report_due].into_iter().flatten().min()
    }

    /// The tracks that frames come of; `None` where it is ASF packets that come.
    pub fn tracks(&self) -> Option<&Tracks> {
        match &self.stream.as_ref()?.content {
            Content::Tracks { tracks, .. } => Some(tracks),
            Content::Asf(_) => None,
        }
    }

    /// Whether media is taken now.
    pub fn records(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.records)
    }

    /// What was lost of the stream on its way.
    pub fn losses(&self) -> Losses {
        if let Some(tracks) = self.tracks() {
            return Losses { missing: tracks.lost(), ..Losses::default() };
        }
        let losses = self.stream.iter().flat_map(|stream| &stream.flows).filter_map(|flow| match &flow.carries {
            Carries::Asf { depacketizer, .. } => Some(depacketizer.losses()),
            Carries::Track(_) | Carries::Nothing => None,
        });
        losses.fold(Losses::default(), |sum, losses| Losses {
            missing: sum.missing + losses.missing,
            late: sum.late + losses.late,
            incomplete: sum.incomplete + losses.incomplete,
        })
    }

    /// Takes one input in. After [`Output::Close`] inputs do nothing.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.closed {
            return;
        }
        match input {
            Input::Bytes(bytes) => self.reader.push(bytes),
            Input::Datagram { pair, is_rtcp, bytes } => {
                let is_its = |flow: &Flow| matches!(flow.way, Way::Pair { number, .. } if number == pair);
                return self.media(now, is_its, is_rtcp, bytes);
            }
            Input::Answer(answer) => self.answer(now, answer),
            Input::Timeout if self.deadline.is_some_and(|deadline| deadline <= now) => return self.close(CloseReason::Idle),
            Input::Timeout => return self.report(now),
        }
        self.read(now);
    }

    fn read(&mut self, now: Instant) {
        while !self.closed && self.waiting.is_none() {
            match self.reader.next() {
                Ok(None) => return,
                Ok(Some(Unit::Request(request))) => self.act(now, Box::new(request)),
                Ok(Some(Unit::Response(_))) => {}
                Ok(Some(Unit::Frame { channel, payload })) => {
                    let channels = |flow: &Flow| match flow.way {
                        Way::Channels { media, reports } => (Some(media), reports),
                        Way::Pair { .. } => (None, None),
                    };
                    let is_report = self.flows().any(|flow| channels(flow).1 == Some(channel));
                    let is_its = |flow: &Flow| if is_report { channels(flow).1 } else { channels(flow).0 } == Some(channel);
                    self.media(now, is_its, is_report, &payload);
                }
                Err(error) => self.misread(now, &error),
            }
        }
    }

    fn misread(&mut self, now: Instant, error: &MessageError) {
        let mut response = ResponseWriter::new(error.status);
        if let Some(cseq) = error.cseq {
            response.header("CSeq", cseq);
        }
        response.header("Server", SERVER);
        self.send(response.finish());
        if error.goes_on { self.heard(now) } else { self.close(CloseReason::Protocol) }
    }

    fn act(&mut self, now: Instant, request: Box<Request>) {
        if self.stream.is_none() {
            self.unsettled_requests += 1;
            if self.unsettled_requests > UNSETTLED_REQUESTS {
                self.respond(now, &request, 503, &[]);
                return self.close(CloseReason::Refused);
            }
        }
        if request.headers.number::<u64>("CSeq").is_none() {
            return self.respond(now, &request, 400, &[]);
        }
        if let Some(required) = request.headers.get("Require") {
            let is_tag = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let unsupported: String = required.chars().take_while(is_tag).take(64).collect();
            return self.respond(now, &request, 551, &[("Unsupported", &unsupported)]);
        }
        let named = request.headers.get("Session").map(|named| named.split(';').next().unwrap_or_default().trim().parse());
        if named.is_some_and(|named| named != Ok(self.id)) {
            return self.respond(now, &request, 454, &[]);
        }
        match &request.method {
            Method::Options => self.respond(now, &request, 200, &[("Public", METHODS)]),
            Method::Announce => self.announce(now, request),
            Method::GetParameter | Method::SetParameter => self.respond(now, &request, 200, &[]),
            Method::Teardown => {
                self.respond(now, &request, 200, &[]);
                self.close(CloseReason::Left);
            }
            Method::Setup if self.stream.is_some() => self.setup(now, request),
            Method::Record | Method::Pause => {
                let Some(stream) = self.stream.as_mut().filter(|stream| !stream.flows.is_empty()) else {
                    return self.respond(now, &request, 455, &[("Allow", METHODS)]);
                };
                stream.records = request.method == Method::Record;
                let has_tracks = matches!(stream.content, Content::Tracks { .. });
                self.report_due = (stream.records && has_tracks).then(|| now + REPORT_TIME);
                self.respond(now, &request, 200, &[]);
            }
            Method::Setup | Method::Describe | Method::Play | Method::Redirect => {
                self.respond(now, &request, 455, &[("Allow", METHODS)]);
            }
            Method::Other(_) => self.respond(now, &request, 501, &[("Public", METHODS)]),
        }
    }

    /// Source: RFC 2326 10.3.
    fn announce(&mut self, now: Instant, request: Box<Request>) {
        let name = Target::parse(&request.target).ok().and_then(|target| target.name());
        let Some(name) = name else { return self.respond(now, &request, 400, &[]) };
        let name = point_of(&name).to_owned();
        if !request.headers.is_type("application/sdp") {
            return self.respond(now, &request, 415, &[("Accept", "application/sdp")]);
        }
        let agent = request.headers.get("User-Agent").map(|agent| agent.chars().take(AGENT_BYTES).collect());
        let publication = Publication {
            method: request.method.as_str().to_owned(),
            target: request.target.clone(),
            name: name.clone(),
            authorization: request.headers.get("Authorization").map(str::to_owned),
            via_proxy: request.headers.get("Via").is_some(),
            user_agent: agent,
        };
        self.deadline = None;
        self.waiting = Some(Waiting::Authority { request, name });
        self.outputs.push_back(Output::Ask(Ask::Authorise(Box::new(publication))));
    }

    /// Reads what is announced, now that its sender may publish.
    fn authorised(&mut self, request: Box<Request>, name: String) {
        let (announcement, announced) = match describe(&request) {
            Ok(announced) => (Ok(announced.content.announcement()), Some(Box::new(announced))),
            Err(why) => (Err(why), None),
        };
        self.waiting = Some(Waiting::Announce { request, name, announced });
        self.outputs.push_back(Output::Ask(Ask::Publish(Box::new(announcement))));
    }

    fn answer(&mut self, now: Instant, answer: Answer) {
        match (self.waiting.take(), answer) {
            (Some(Waiting::Authority { request, name }), Answer::Accept) => self.authorised(request, name),
            (Some(Waiting::Announce { request, name, announced: Some(announced) }), Answer::Accept) => {
                let Announced { content, media } = *announced;
                match self.stream.as_mut().filter(|stream| stream.name == name) {
                    // Another header; what is set up stays so.
                    Some(stream) if matches!((&stream.content, &content), (Content::Asf(_), Content::Asf(_))) => {
                        for flow in &mut stream.flows {
                            flow.carries = content.carries(0);
                        }
                        (stream.content, stream.media) = (content, media);
                    }
                    _ => {
                        let (lower, flows) = (None, Vec::new());
                        self.stream = Some(Stream { name, content, media, lower, flows, records: false });
                        self.report_due = None;
                    }
                }
                self.respond(now, &request, 200, &[]);
            }
            (
                Some(Waiting::Authority { request, .. } | Waiting::Announce { request, .. } | Waiting::Setup { request, .. }),
                Answer::Refuse(refusal),
            ) => self.refuse(now, &request, &refusal),
            (Some(Waiting::Setup { request, media, spec }), Answer::Port(port)) => match port {
                Some(port) => self.set_up(now, &request, media, &Spec { server_port: Some((port, port.checked_add(1))), ..spec }),
                None => self.respond(now, &request, 461, &[]),
            },
            (waiting, _) => self.waiting = waiting,
        }
    }

    /// Source: RFC 2326 10.4.
    fn setup(&mut self, now: Instant, request: Box<Request>) {
        let Some(stream) = &self.stream else { return };
        let target = request.target.split('?').next().unwrap_or_default();
        let token = target.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let Some(media) = stream.media.iter().position(|media| media.token() == token) else {
            return self.respond(now, &request, 400, &[]);
        };
        if matches!(stream.content, Content::Asf(_)) {
            match stream.media.get(media).map(|media| media.role) {
                // Nothing is asked for again of a publisher.
                Some(Role::Rtx) => return self.respond(now, &request, 461, &[]),
                Some(Role::Plain) => return self.respond(now, &request, 415, &[]),
                Some(Role::Asf(_)) | None => {}
            }
        }
        let Ok(specs) = Spec::parse_all(request.headers.all("Transport")) else { return self.respond(now, &request, 400, &[]) };
        let fits = |spec: &Spec| match spec.lower {
            // One transport for the whole of a session.
            lower if stream.lower.is_some_and(|ours| ours != lower) => false,
            Lower::Udp => !self.is_tls,
            Lower::Tcp => true,
        };
        let spec = specs.into_iter().find(|spec| spec.unicast && spec.mode != Some(Mode::Play) && fits(spec));
        match spec {
            Some(spec) if spec.lower == Lower::Udp => {
                let pair = stream.pair();
                self.deadline = None;
                self.waiting = Some(Waiting::Setup { request, media, spec });
                self.outputs.push_back(Output::Ask(Ask::Ports { pair }));
            }
            Some(spec) => self.set_up(now, &request, media, &spec),
            None => self.respond(now, &request, 461, &[]),
        }
    }

    fn set_up(&mut self, now: Instant, request: &Request, media: usize, spec: &Spec) {
        let Some(stream) = &mut self.stream else { return };
        let mut answer = Spec { mode: Some(Mode::Record), destination: None, source: None, ssrc: None, ..spec.clone() };
        let way = match spec.lower {
            Lower::Udp => {
                let reports = spec.client_port.and_then(|(first, second)| second.or_else(|| first.checked_add(1)));
                Way::Pair { number: stream.pair(), reports }
            }
            Lower::Tcp => {
                let next = u8::try_from(stream.flows.len() * 2).unwrap_or(u8::MAX - 1);
                let (media, reports) = spec.interleaved.unwrap_or((next, next.checked_add(1)));
                answer.interleaved = Some((media, reports));
                Way::Channels { media, reports }
            }
        };
        stream.lower = Some(spec.lower);
        if !stream.flows.iter().any(|flow| flow.way.is_same(way)) {
            if stream.flows.len() >= stream.media.len() {
                return self.respond(now, request, 461, &[]);
            }
            let carries = stream.content.carries(media);
            stream.flows.push(Flow { way, ssrc: None, strangers: 0, carries });
        }
        self.respond(now, request, 200, &[("Transport", &answer.to_string())]);
    }

    fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.stream.iter().flat_map(|stream| &stream.flows)
    }

    /// What came on a channel or to a port of one of the flows.
    fn media(&mut self, now: Instant, is_its: impl Fn(&Flow) -> bool, is_report: bool, bytes: &[u8]) {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.records) else { return };
        let Some(flow) = stream.flows.iter_mut().find(|flow| is_its(flow)) else { return };
        // Reports may share the channel or port. Source: RFC 5761 4.
        let is_media = !is_report && matches!(bytes, [first, kind, ..] if first >> 6 == 2 && !(192..=223).contains(kind));
        if !is_media {
            if let (Carries::Track(track), Content::Tracks { tracks, .. }) = (&flow.carries, &mut stream.content) {
                tracks.rtcp(*track, bytes);
            }
            return;
        }
        let Some(ssrc) = bytes.get(8..12).and_then(|bytes| bytes.first_chunk()).copied() else { return };
        if flow.ssrc.is_some_and(|ours| ours != ssrc) {
            // A stray one does not tear the flow.
            flow.strangers += 1;
            if flow.strangers < NEW_FLOW {
                return;
            }
            match (&mut flow.carries, &mut stream.content) {
                (Carries::Asf { reorder, depacketizer }, _) => {
                    reorder.restart();
                    depacketizer.restart();
                }
                (Carries::Track(track), Content::Tracks { tracks, .. }) => tracks.restart(*track),
                _ => {}
            }
        }
        (flow.ssrc, flow.strangers) = (Some(ssrc), 0);
        let is_datagram = matches!(flow.way, Way::Pair { .. });
        match (&mut flow.carries, &mut stream.content) {
            (Carries::Asf { reorder, depacketizer }, Content::Asf(header)) => {
                let (size, mut packets) = (header.packet_size(), BytesMut::new());
                let mut take = |rtp: &[u8]| {
                    // What is no packet is left out, whichever part of it is not sound.
                    let _ = depacketizer.push(rtp, |packet| {
                        if packets.len() < RESTORED_BYTES {
                            let _ = padding::restore(packet, size, &mut packets);
                        }
                    });
                };
                if is_datagram {
                    reorder.push(now, bytes, take);
                } else {
                    take(bytes);
                }
                if !packets.is_empty() {
                    self.heard(now);
                    self.outputs.push_back(Output::Packets(packets));
                }
            }
            (Carries::Track(track), Content::Tracks { tracks, .. }) => {
                let mut frames = Vec::new();
                let mut take = |frame| frames.push(frame);
                let taken = if is_datagram {
                    tracks.datagram(now, *track, bytes, &mut take)
                } else {
                    tracks.rtp(now, *track, bytes, &mut take)
                };
                if !frames.is_empty() {
                    self.heard(now);
                    self.outputs.extend(frames.into_iter().map(Output::Frame));
                }
                if let Err(error) = taken {
                    self.close(CloseReason::Frames(error));
                }
            }
            // Of media that is left out.
            _ => {}
        }
    }

    /// Tells a publisher of tracks that its media comes. Source: RFC 3550 6.4.2.
    fn report(&mut self, now: Instant) {
        if self.report_due.is_none_or(|due| due > now) {
            return;
        }
        self.report_due = Some(now + REPORT_TIME);
        let ways: Vec<Way> = self.flows().map(|flow| flow.way).collect();
        for way in ways {
            match way {
                Way::Channels { reports: Some(channel), .. } => {
                    let mut frame = Vec::new();
                    interleaved(channel, &EMPTY_REPORT, &mut frame);
                    self.send(frame.into());
                }
                Way::Pair { number, reports: Some(port) } => {
                    self.outputs.push_back(Output::Report { pair: number, port, bytes: Bytes::from_static(&EMPTY_REPORT) });
                }
                Way::Channels { .. } | Way::Pair { .. } => {}
            }
        }
    }

    fn respond(&mut self, now: Instant, request: &Request, status: u16, headers: &[(&str, &str)]) {
        let mut response = self.reply(request, status);
        for (name, value) in headers {
            response.header(name, value);
        }
        self.send(response.finish());
        self.heard(now);
    }

    fn refuse(&mut self, now: Instant, request: &Request, refusal: &Refusal) {
        let mut response = self.begin(request, ResponseWriter::in_words(refusal.status, &refusal.text));
        for challenge in &refusal.challenges {
            response.header("WWW-Authenticate", challenge);
        }
        if let Some(seconds) = refusal.retry_after_s {
            response.header("Retry-After", seconds);
        }
        response.header("Content-Type", "text/plain; charset=utf-8");
        let bytes = response.body(format!("{}\r\n", refusal.text).as_bytes());
        self.send(bytes);
        self.heard(now);
        if refusal.last {
            self.close(CloseReason::Refused);
        }
    }

    fn reply(&self, request: &Request, status: u16) -> ResponseWriter {
        self.begin(request, ResponseWriter::new(status))
    }

    fn begin(&self, request: &Request, mut response: ResponseWriter) -> ResponseWriter {
        if let Some(cseq) = request.headers.number::<u64>("CSeq") {
            response.header("CSeq", cseq);
        }
        response.header("Server", SERVER);
        if self.stream.is_some() {
            response.header("Session", format_args!("{};timeout={IDLE_TOLD_S}", self.id));
        }
        response
    }

    fn heard(&mut self, now: Instant) {
        // Who does not publish holds a place, whatever is asked meanwhile.
        self.deadline = Some(if self.stream.is_some() { now + IDLE } else { self.since + UNSETTLED });
    }

    fn send(&mut self, bytes: Bytes) {
        self.outputs.push_back(Output::Send(bytes));
    }

    fn close(&mut self, reason: CloseReason) {
        self.closed = true;
        self.deadline = None;
        self.outputs.push_back(Output::Close(reason));
    }
}

/// The publishing point that a publisher's URL names.
pub fn point_of(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

impl Stream {
    /// The pair of ports that the next media is given: ASF shares one.
    fn pair(&self) -> usize {
        if matches!(self.content, Content::Asf(_)) { 0 } else { self.flows.len() }
    }
}

impl Way {
    /// Whether two are one flow.
    fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Channels { media, .. }, Self::Channels { media: other, .. }) => media == other,
            (Self::Pair { number, .. }, Self::Pair { number: other, .. }) => number == other,
            _ => false,
        }
    }
}
