//! The client's engine for cameras, and for whatever else speaks plain RTSP: logs in, sets pictures and sound up, keeps the session
//! alive, and gives whole frames on one axis of time.
//!
//! Bytes and datagrams go in, messages and frames come out; the engine knows neither sockets nor clocks. Everything that a camera can
//! make of itself is bounded: messages by the reader, frames by 8 MiB, answers and silence by time.
//!
//! It is our own for these bounds: the session of the crate `retina` (0.4.21), which knows more cameras, takes messages and access
//! units of any length and has no switch for it. Whatever gives [`CameraOutput::Frame`] can take its place.
//!
//! ```text
//! DESCRIBE ─→ SETUP pictures ─→ SETUP sound ─→ PLAY ─→ frames ─→ TEARDOWN
//!   ↑ └ 401, once                                       └ GET_PARAMETER, or OPTIONS, at half of the session's time
//!   └──┘
//! ```
//!
//! Source: RFC 2326; RFC 3550.

mod answers;
mod clock;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::message::{Bounds, Frames, MessageError, Method, Reader, Request, RequestWriter, ResponseWriter, Unit as Message};
use super::payload::{Depacketizer, PayloadError, RtpPacket, SenderReport, Unit, Unusable};
use super::reorder::Reorder;
use super::sdp::SdpError;
use super::transport::{Lower, Mode, Spec};
use crate::asf::compose::StreamFormat;
use crate::text::{Challenge, Login};
use clock::Clocks;

/// Time for each answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest time without a frame.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a camera hears that somebody is there, where it does not say how often it wants to. Source: RFC 2326 12.37.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often a camera that sends datagrams hears that somebody is there.
const REPORT_TIME: Duration = Duration::from_secs(5);
/// Packets in a row that make no sense: it is not what it says.
const MALFORMED_IN_A_ROW: u32 = 200;
/// A picture that is to be shown earlier than one before it, by up to half a second and no more pictures in a row than this, is out of
/// order; otherwise the camera's clock began anew.
const REORDERS_PER_S: u32 = 2;
const MOST_REORDERED: u32 = 8;
/// So often in a row that is no accident.
const REORDERED_TIMES: u32 = 3;
/// An empty receiver report.
const EMPTY_REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 0];

/// Pictures and sound, one of each: so many tracks are set up, and so many pairs of ports are wanted.
pub const MOST_TRACKS: usize = 2;

/// What a camera's engine has to know.
#[derive(Debug, Clone)]
pub struct CameraConfig {
    /// `rtsp://HOST:PORT/…` without login.
    pub url: String,
    /// Who asks.
    pub login: Option<Login>,
    /// The `User-Agent`.
    pub user_agent: String,
    /// Where datagrams are taken in, RTP and RTCP by track; `None`: media comes on the connection.
    pub ports: Option<[(u16, u16); MOST_TRACKS]>,
    /// Nobody can foresee it.
    pub salt: [u8; 8],
}

/// What the engine wants, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraOutput {
    /// To be sent on the connection.
    Send(Bytes),
    /// To be sent as a datagram, from the RTP (or RTCP) port of a track to a port of the camera.
    Datagram {
        /// From 0.
        track: usize,
        /// From the second port of its pair.
        is_rtcp: bool,
        /// Of the camera.
        to: u16,
        /// RTP or RTCP.
        bytes: Bytes,
    },
    /// Media that is not taken, by its place in the description, from 1.
    LeftOut {
        /// From 1.
        media: usize,
        /// For a person.
        why: Unusable,
    },
    /// From now on frames come.
    Playing,
    /// A frame.
    Frame {
        /// From 0.
        track: usize,
        /// From the beginning of the session, milliseconds.
        ms: u64,
        /// Nothing before it is needed to decode it.
        key: bool,
        /// As ASF has it.
        bytes: Bytes,
    },
}

/// Why a camera cannot be had, or cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CameraError {
    /// It does not speak RTSP.
    #[error("what it sends is no RTSP: {0}")]
    Message(#[from] MessageError),
    /// It refuses a request.
    #[error("{what} refused: {status} {reason}")]
    Status {
        /// Which request.
        what: &'static str,
        /// What it says.
        status: u16,
        /// The words beside it.
        reason: String,
    },
    /// It wants a login and none is set.
    #[error("it wants a user and a password; set `user` and `password` of the source, or write them into its URL")]
    LoginWanted,
    /// The login is wrong.
    #[error("it refuses the user or the password")]
    LoginRefused,
    /// It is somewhere else.
    #[error("it is at another address; set that one in the source's URL")]
    Moved,
    /// Its description is none.
    #[error(transparent)]
    Description(#[from] SdpError),
    /// Nothing can be sent on as it is.
    #[error("{0}; nothing of it can be sent on without transcoding: use a source of type \"ffmpeg\", or \"exec\" with ffmpeg")]
    NothingUsable(String),
    /// Pictures come in another order than they are shown in.
    #[error(
        "its pictures come in another order than they are shown in (B-frames), which Windows Media players do not expect: \
         switch them off in the camera, or use a source of type \"ffmpeg\", or \"exec\" with ffmpeg"
    )]
    Reordered,
    /// No answer.
    #[error("{0} without answer for 10 s")]
    NoAnswer(&'static str),
    /// Nothing comes.
    #[error("no frame for 15 s")]
    Silent,
    /// Packets make no sense.
    #[error("200 packets in a row that cannot be read, the last one: {0}")]
    Malformed(PayloadError),
    /// A frame without end.
    #[error("a frame of over 8 MiB")]
    LongFrame,
    /// The session is over.
    #[error("it ended the session")]
    Ended,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Describing,
    /// This track.
    SettingUp(usize),
    Starting,
    Playing,
}

/// A request without its answer.
#[derive(Debug, Clone, Copy)]
struct Pending {
    cseq: u64,
    what: &'static str,
    due: Instant,
}

#[derive(Debug)]
struct Track {
    url: String,
    depacketizer: Depacketizer,
    /// RTP and RTCP on the connection.
    channels: (u8, u8),
    /// RTP and RTCP ports of the camera.
    server_ports: Option<(u16, u16)>,
    reorder: Reorder,
    order: Order,
    lost: u64,
}

/// Whether frames come in the order in which they are shown.
#[derive(Debug, Default)]
struct Order {
    /// The latest timestamp.
    latest: Option<u32>,
    /// Frames before that one which came behind it, in a row, and how often that was so.
    behind: u32,
    times: u32,
}

/// What a frame's timestamp tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tells {
    /// It is as it should be, or not yet clear.
    Nothing,
    /// The camera's clock began anew.
    Restart,
    /// Pictures come in another order than they are shown in.
    Reordering,
}

impl Order {
    /// `may_reorder`: pictures; sound does not.
    fn note(&mut self, timestamp: u32, clock_hz: u32, may_reorder: bool) -> Tells {
        let step = self.latest.map_or(0, |latest| timestamp.wrapping_sub(latest).cast_signed());
        if step >= 0 {
            self.times = match std::mem::take(&mut self.behind) {
                // Between two that were out of order some may be in order.
                0 => self.times,
                _ => self.times + 1,
            };
            self.latest = Some(timestamp);
            return if self.times >= REORDERED_TIMES { Tells::Reordering } else { Tells::Nothing };
        }
        self.behind += 1;
        if may_reorder && self.behind <= MOST_REORDERED && step.unsigned_abs() <= clock_hz / REORDERS_PER_S {
            return Tells::Nothing;
        }
        *self = Self { latest: Some(timestamp), ..Self::default() };
        Tells::Restart
    }
}

/// A session with a camera, over one connection.
#[derive(Debug)]
pub struct Camera {
    config: CameraConfig,
    reader: Reader,
    step: Step,
    cseq: u64,
    pending: Option<Pending>,
    challenge: Option<Challenge>,
    answers: u32,
    logins: u32,
    /// Of the whole, for PLAY.
    url: String,
    tracks: Vec<Track>,
    clocks: Clocks,
    session: Option<String>,
    /// How often it hears that somebody is there.
    keep_alive: Duration,
    keep_alive_due: Option<Instant>,
    lacks_get_parameter: bool,
    report_due: Option<Instant>,
    /// When the last frame came, or the session began to play.
    latest: Instant,
    malformed: u32,
    units: Vec<Unit>,
    outputs: VecDeque<CameraOutput>,
}

impl Camera {
    /// A session over a connection that is there now.
    pub fn new(now: Instant, config: CameraConfig) -> Self {
        let url = config.url.clone();
        let mut camera = Self {
            config,
            reader: Reader::new(Bounds { other: 64 << 10, frames: Frames::Give, ..Bounds::CLIENT }),
            step: Step::Describing,
            cseq: 0,
            pending: None,
            challenge: None,
            answers: 0,
            logins: 0,
            url,
            tracks: Vec::new(),
            clocks: Clocks::new(std::iter::empty()),
            session: None,
            keep_alive: KEEP_ALIVE,
            keep_alive_due: None,
            lacks_get_parameter: false,
            report_due: None,
            latest: now,
            malformed: 0,
            units: Vec::new(),
            outputs: VecDeque::new(),
        };
        camera.ask(now);
        camera
    }

    /// What is to be done next; drain it after every call that changes something.
    pub fn poll_output(&mut self) -> Option<CameraOutput> {
        self.outputs.pop_front()
    }

    /// When [`Camera::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Instant {
        let dues = [self.pending.map(|pending| pending.due), self.keep_alive_due, self.report_due];
        let silent = (self.step == Step::Playing).then_some(self.latest + SILENCE);
        dues.into_iter().chain([silent]).flatten().min().unwrap_or(self.latest + SILENCE)
    }

    /// What the frames of a track are, as soon as that is known: with the first key frame at the latest. `None` too for a track that
    /// there is not.
    pub fn format(&self, track: usize) -> Option<StreamFormat> {
        self.tracks.get(track)?.depacketizer.format()
    }

    /// How many tracks there are; known when it plays.
    pub const fn tracks(&self) -> usize {
        self.tracks.len()
    }

    /// Whether a track is pictures.
    pub fn is_video(&self, track: usize) -> bool {
        self.tracks.get(track).is_some_and(|track| track.depacketizer.is_video())
    }

    /// Whether a track says that its pictures may come in another order than they are shown in; it may say so and not do it.
    pub fn reorders(&self, track: usize) -> bool {
        self.tracks.get(track).is_some_and(|track| track.depacketizer.reorders())
    }

    /// RTP packets that never came.
    pub fn lost(&self) -> u64 {
        self.tracks.iter().map(|track| track.lost).sum()
    }

    /// Bytes of the connection.
    ///
    /// # Errors
    /// [`CameraError`]: the session is over.
    pub fn bytes(&mut self, now: Instant, bytes: &[u8]) -> Result<(), CameraError> {
        self.reader.push(bytes);
        loop {
            match self.reader.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Message::Response(response))) => self.response(now, &response)?,
                Ok(Some(Message::Request(request))) => self.asked(&request),
                Ok(Some(Message::Frame { channel, payload })) => {
                    let at = self.tracks.iter().position(|track| [track.channels.0, track.channels.1].contains(&channel));
                    let Some((at, track)) = at.and_then(|at| Some((at, self.tracks.get(at)?))) else { continue };
                    let is_rtcp = channel == track.channels.1;
                    if self.config.ports.is_none() {
                        self.media(now, at, is_rtcp, &payload)?;
                    }
                }
                Err(error) if error.goes_on => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A datagram that came to a port of a track, from the camera's address.
    ///
    /// # Errors
    /// As [`Camera::bytes`].
    pub fn datagram(&mut self, now: Instant, track: usize, is_rtcp: bool, bytes: &[u8]) -> Result<(), CameraError> {
        if is_rtcp {
            return self.media(now, track, true, bytes);
        }
        let Some(reorder) = self.tracks.get_mut(track).map(|track| &mut track.reorder) else { return Ok(()) };
        let mut ready = Vec::new();
        reorder.push(now, bytes, |rtp| ready.push(rtp.to_vec()));
        ready.into_iter().try_for_each(|rtp| self.media(now, track, false, &rtp))
    }

    /// The time of [`Camera::poll_timeout`] has come.
    ///
    /// # Errors
    /// [`CameraError::NoAnswer`], [`CameraError::Silent`].
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), CameraError> {
        if let Some(pending) = self.pending.filter(|pending| pending.due <= now) {
            return Err(CameraError::NoAnswer(pending.what));
        }
        if self.step == Step::Playing && self.latest + SILENCE <= now {
            return Err(CameraError::Silent);
        }
        if self.keep_alive_due.is_some_and(|due| due <= now) && self.pending.is_none() {
            self.keep_alive_due = Some(now + self.keep_alive);
            self.ask(now);
        }
        if self.report_due.is_some_and(|due| due <= now) {
            self.report_due = Some(now + REPORT_TIME);
            self.tell_ports();
        }
        Ok(())
    }

    /// A goodbye, if there is a session; nobody waits for its answer.
    pub fn leave(&mut self) -> Option<Bytes> {
        self.session.as_ref()?;
        Some(self.request(&Method::Teardown, &self.url.clone(), None))
    }

    /// RTP or RTCP of a track, in order.
    fn media(&mut self, now: Instant, at: usize, is_rtcp: bool, bytes: &[u8]) -> Result<(), CameraError> {
        if self.step != Step::Playing {
            return Ok(());
        }
        let Some(track) = self.tracks.get_mut(at) else { return Ok(()) };
        if is_rtcp {
            if let Some(report) = SenderReport::find(bytes) {
                self.clocks.report(at, &report);
            }
            return Ok(());
        }
        let read = match RtpPacket::parse(bytes) {
            Some(packet) => track.depacketizer.push(&packet, &mut self.units),
            None => Err(PayloadError::Malformed("no RTP")),
        };
        match read {
            Ok(lost) => track.lost += u64::from(lost),
            Err(PayloadError::TooLong) => return Err(CameraError::LongFrame),
            Err(error) => {
                self.malformed += 1;
                if self.malformed >= MALFORMED_IN_A_ROW {
                    return Err(CameraError::Malformed(error));
                }
            }
        }
        let may_reorder = track.depacketizer.may_reorder();
        let clock_hz = track.depacketizer.clock_hz();
        for unit in self.units.drain(..) {
            self.malformed = 0;
            self.latest = now;
            let tells = track.order.note(unit.timestamp, clock_hz, may_reorder);
            if tells == Tells::Reordering {
                return Err(CameraError::Reordered);
            }
            let ms = self.clocks.place(now, at, unit.timestamp, tells == Tells::Restart);
            self.outputs.push_back(CameraOutput::Frame { track: at, ms, key: unit.key, bytes: unit.bytes });
        }
        Ok(())
    }

    /// Tells a camera that sends datagrams that somebody is there; firewalls between hear it too.
    fn tell_ports(&mut self) {
        for (track, (_, to)) in self.tracks.iter().enumerate().filter_map(|(at, track)| Some((at, track.server_ports?))) {
            let bytes = Bytes::from_static(&EMPTY_REPORT);
            self.outputs.push_back(CameraOutput::Datagram { track, is_rtcp: true, to, bytes });
        }
    }

    /// Sends the request that the present step is for.
    fn ask(&mut self, now: Instant) {
        let (method, what) = match self.step {
            Step::Describing => (Method::Describe, "DESCRIBE"),
            Step::SettingUp(_) => (Method::Setup, "SETUP"),
            Step::Starting => (Method::Play, "PLAY"),
            Step::Playing if self.lacks_get_parameter => (Method::Options, "OPTIONS"),
            Step::Playing => (Method::GetParameter, "GET_PARAMETER"),
        };
        let track = match self.step {
            Step::SettingUp(at) => self.tracks.get(at).map(|track| (at, track.url.clone())),
            _ => None,
        };
        let spec = track.as_ref().map(|(at, _)| self.spec(*at));
        let url = track.map_or_else(|| self.url.clone(), |(_, url)| url);
        let bytes = self.request(&method, &url, spec);
        self.pending = Some(Pending { cseq: self.cseq, what, due: now + ANSWER_TIME });
        self.outputs.push_back(CameraOutput::Send(bytes));
    }

    /// How a track is to travel.
    fn spec(&self, at: usize) -> Spec {
        let mode = Some(Mode::Play);
        match self.config.ports.and_then(|ports| ports.get(at).copied()) {
            Some((rtp, rtcp)) => Spec { client_port: Some((rtp, Some(rtcp))), mode, ..Spec::new(Lower::Udp) },
            None => {
                let first = u8::try_from(at * 2).unwrap_or_default();
                Spec { interleaved: Some((first, Some(first + 1))), mode, ..Spec::new(Lower::Tcp) }
            }
        }
    }

    fn request(&mut self, method: &Method, url: &str, spec: Option<Spec>) -> Bytes {
        self.cseq += 1;
        let mut request = RequestWriter::new(method, url);
        request.header("CSeq", self.cseq).header("User-Agent", &self.config.user_agent);
        if let Some((login, challenge)) = self.config.login.as_ref().zip(self.challenge.as_ref()) {
            self.answers += 1;
            let mut nonce = String::new();
            for byte in self.config.salt {
                // Writing to a String cannot fail.
                let _ = write!(nonce, "{byte:02x}");
            }
            let _ = write!(nonce, "{:08x}", self.answers);
            request.header("Authorization", challenge.answer(login, method.as_str(), url, self.answers, &nonce));
        }
        if let Some(session) = &self.session {
            request.header("Session", session);
        }
        match method {
            Method::Describe => {
                request.header("Accept", "application/sdp");
            }
            Method::Play => {
                request.header("Range", "npt=0.000-");
            }
            _ => {}
        }
        if let Some(spec) = spec {
            request.header("Transport", spec);
        }
        request.finish()
    }

    /// Answers a request of the camera's; none is expected.
    fn asked(&mut self, request: &Request) {
        let is_known = matches!(request.method, Method::Options | Method::GetParameter | Method::SetParameter);
        let mut response = ResponseWriter::new(if is_known { 200 } else { 501 });
        if let Some(cseq) = request.headers.number::<u64>("CSeq") {
            response.header("CSeq", cseq);
        }
        self.outputs.push_back(CameraOutput::Send(response.finish()));
    }
}
