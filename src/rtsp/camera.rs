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

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::message::{Bounds, Frames, MessageError, Method, Reader, Request, RequestWriter, ResponseWriter, Unit as Message};
use super::payload::Unusable;
use super::sdp::SdpError;
use super::tracks::{Frame, Tracks, TracksError};
use super::transport::{Lower, Mode, Spec};
use crate::text::{Challenge, Login};

/// Time for each answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The longest time without a frame.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a camera hears that somebody is there, where it does not say how often it wants to. Source: RFC 2326 12.37.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often a camera that sends datagrams hears that somebody is there.
const REPORT_TIME: Duration = Duration::from_secs(5);
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
    Frame(Frame),
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
    /// Its frames are of no use.
    #[error(transparent)]
    Tracks(#[from] TracksError),
    /// No answer.
    #[error("{0} without answer for 10 s")]
    NoAnswer(&'static str),
    /// Nothing comes.
    #[error("no frame for 15 s")]
    Silent,
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

/// Where a track is, and how it comes.
#[derive(Debug)]
struct Path {
    url: String,
    /// RTP and RTCP on the connection.
    channels: (u8, u8),
    /// RTP and RTCP ports of the camera.
    server_ports: Option<(u16, u16)>,
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
    /// One for each track.
    paths: Vec<Path>,
    tracks: Tracks,
    session: Option<String>,
    /// How often it hears that somebody is there.
    keep_alive: Duration,
    keep_alive_due: Option<Instant>,
    lacks_get_parameter: bool,
    report_due: Option<Instant>,
    /// When the last frame came, or the session began to play.
    latest: Instant,
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
            paths: Vec::new(),
            tracks: Tracks::new(Vec::new()),
            session: None,
            keep_alive: KEEP_ALIVE,
            keep_alive_due: None,
            lacks_get_parameter: false,
            report_due: None,
            latest: now,
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

    /// The tracks that frames come of; known when it plays.
    pub const fn tracks(&self) -> &Tracks {
        &self.tracks
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
                    let at = self.paths.iter().position(|path| [path.channels.0, path.channels.1].contains(&channel));
                    let Some((at, path)) = at.and_then(|at| Some((at, self.paths.get(at)?))) else { continue };
                    let is_rtcp = channel == path.channels.1;
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
        self.media(now, track, is_rtcp, bytes)
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

    /// RTP or RTCP of a track.
    fn media(&mut self, now: Instant, at: usize, is_rtcp: bool, bytes: &[u8]) -> Result<(), CameraError> {
        if self.step != Step::Playing {
            return Ok(());
        }
        if is_rtcp {
            self.tracks.rtcp(at, bytes);
            return Ok(());
        }
        let (latest, outputs) = (&mut self.latest, &mut self.outputs);
        let mut take = |frame| {
            *latest = now;
            outputs.push_back(CameraOutput::Frame(frame));
        };
        match self.config.ports {
            Some(_) => self.tracks.datagram(now, at, bytes, &mut take)?,
            None => self.tracks.rtp(now, at, bytes, &mut take)?,
        }
        Ok(())
    }

    /// Tells a camera that sends datagrams that somebody is there; firewalls between hear it too.
    fn tell_ports(&mut self) {
        for (track, (_, to)) in self.paths.iter().enumerate().filter_map(|(at, path)| Some((at, path.server_ports?))) {
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
        let path = match self.step {
            Step::SettingUp(at) => self.paths.get(at).map(|path| (at, path.url.clone())),
            _ => None,
        };
        let spec = path.as_ref().map(|(at, _)| self.spec(*at));
        let url = path.map_or_else(|| self.url.clone(), |(_, url)| url);
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
