//! Media begun, stopped and ended by the player.

use std::time::Instant;

use super::describe::aggregate;
use super::reply::METHODS;
use super::setup::SWITCH;
use super::{Ask, CloseReason, Config, Connection, Play, Request, Step, Target, Until};
use crate::rtsp::message::StreamToken;
use crate::rtsp::transport::{BadRange, Range, RangeStart, RtpInfo};
use crate::viewing::{Acceleration, Content, Cue, Position};

/// Media time per real time over UDP, at most.
const UDP_RATE: u32 = 3;
/// No preroll is longer.
const PREROLL_BOUND_MS: u64 = 60_000;

/// How a play goes, as its player is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    acceleration: Option<Acceleration>,
    speed: u8,
}

impl Default for Promise {
    fn default() -> Self {
        Self { acceleration: None, speed: 1 }
    }
}

impl Connection {
    /// Whether a request is about what is set up; requests for one of its streams alone are `None` but as `token`.
    pub(super) fn is_about_session(&self, request: &Request) -> Result<Option<StreamToken>, u16> {
        let Some(opened) = self.opened.as_ref().filter(|_| self.session.is_some()) else { return Err(454) };
        let target = Target::parse(&request.target).map_err(|_| 400_u16)?;
        if target.is_server() || opened.is_whole(&target) {
            return Ok(None);
        }
        match target.split_stream() {
            Some((whole, token)) if opened.target.same_path(&whole) => Ok(Some(token)),
            _ => Err(404),
        }
    }

    /// Source: MS-RTSP 3.2.5.8.
    pub(super) fn play(&mut self, now: Instant, request: Box<Request>) {
        match self.is_about_session(&request) {
            Ok(None) => {}
            Ok(Some(_)) => return self.refuse(now, &request, 460),
            Err(status) => return self.refuse(now, &request, status),
        }
        if request.headers.get("Session").is_none() {
            return self.refuse(now, &request, 454);
        }
        let (Some(session), Some(opened)) = (&mut self.session, &self.opened) else { return };
        if session.streams.is_empty() || session.carriage.is_none() {
            return self.refuse_with(now, &request, 455, &[("Allow", METHODS)]);
        }
        if request.headers.get("X-Playlist").is_some() {
            // There is no entry before or behind this one.
            return self.refuse(now, &request, 400);
        }
        let range = match request.headers.get("Range").map(Range::parse).transpose() {
            Ok(range) => range,
            Err(BadRange::Syntax) => return self.refuse(now, &request, 400),
            Err(BadRange::Unit) => return self.refuse(now, &request, 457),
        };
        let is_file = matches!(opened.description.content, Content::File { .. });
        if session.state == Play::Playing && (range.is_none() || !is_file) {
            // It confirms what is played already.
            return self.accept(now, &request);
        }
        let paused = session.state == Play::Paused && range.is_none();
        let incarnation = self.incarnation.wrapping_add(1);
        let goes_on = self.goes_on.filter(|_| paused && is_file);
        let mut promise = Promise::default();
        let ask = match range {
            _ if goes_on.is_some() => {
                let from = Position::Packet(goes_on.unwrap_or_default());
                Ask::PlayFile { from, until: session.until, incarnation, acceleration: None, speed: 1 }
            }
            _ if paused => Ask::Resume { incarnation, until: session.until },
            _ if !is_file => Ask::Play { incarnation },
            range => {
                let Some((from, until)) = place(range, opened.description.content) else {
                    return self.refuse(now, &request, 457);
                };
                session.until = until;
                // As the shard has it: over UDP no more than three times.
                let most = if session.ports.is_some() { self.config.burst_rate.min(UDP_RATE) } else { self.config.burst_rate };
                promise.acceleration = granted(&request, &self.config, most, opened.description.bit_rate);
                promise.speed = speed(&request, most);
                let Promise { acceleration, speed } = promise;
                Ask::PlayFile { from, until, incarnation, acceleration, speed }
            }
        };
        (self.incarnation, self.promise) = (incarnation, promise);
        session.ended = false;
        self.select();
        self.wait(now, request, Step::Cued, ask);
    }

    /// Media begins behind the answer.
    pub(super) fn cued(&mut self, now: Instant, request: &Request, cue: &Cue) {
        self.goes_on = None;
        if let Some(session) = &mut self.session {
            session.state = Play::Playing;
        }
        let (Some(session), Some(opened)) = (&self.session, &self.opened) else { return };
        let infos: Vec<RtpInfo> = session
            .streams
            .iter()
            .map(|(token, _)| RtpInfo {
                url: self.stream_url(opened, *token),
                seq: Some(cue.sequence),
                rtptime: Some(cue.timestamp),
            })
            .collect();
        let range = match opened.description.content {
            Content::Live => None,
            Content::File { duration_ms, .. } => Some((cue.timestamp, duration_ms)),
        };
        let bit_rate = opened.description.bit_rate;
        let head_start = cue.head_start.as_deref().zip(acceleration(request)).map(|(start, wish)| Acceleration {
            bandwidth: wish.bandwidth.min(bit_rate.saturating_mul(start.rate)),
            duration_ms: wish.duration_ms.min(start.media_ms),
        });
        let accelerated = self.promise.acceleration.or(head_start);
        let mut response = self.reply(request, 200);
        response.header("RTP-Info", RtpInfo::list(&infos));
        if let Some((from_ms, duration_ms)) = range {
            let end_ms = duration_ms.max(u64::from(from_ms));
            response.header("Range", Range::Time { from: RangeStart::Ms(from_ms.into()), to_ms: Some(end_ms) });
        }
        if request.headers.get("Scale").is_some() {
            response.header("Scale", "1.0");
        }
        if request.headers.get("Speed").is_some() {
            response.header("Speed", format_args!("{}.0", self.promise.speed));
        }
        if let Some(Acceleration { bandwidth, duration_ms }) = accelerated.filter(|wish| wish.duration_ms > 0) {
            response.header("X-Accelerate-Streaming", format_args!("AccelDuration={duration_ms};AccelBandwidth={bandwidth};"));
            let profile = cue.head_start.as_ref().and_then(|start| start.profile.as_ref());
            if let Some(profile) = profile.filter(|_| self.reads_profiles) {
                response.header("X-StartupProfile", profile);
            }
        }
        self.respond(now, response);
    }

    /// Source: MS-RTSP 3.2.5.11.
    pub(super) fn pause(&mut self, now: Instant, request: &Request) {
        match self.is_about_session(request) {
            Ok(None) => {}
            Ok(Some(_)) => return self.refuse(now, request, 460),
            Err(status) => return self.refuse(now, request, status),
        }
        let Some(session) = &mut self.session else { return };
        match session.state {
            Play::Playing => {
                session.state = Play::Paused;
                self.ask(Ask::Stop);
                self.accept(now, request);
            }
            // What ended by itself is paused as well.
            _ if session.ended => self.accept(now, request),
            _ => self.refuse_with(now, request, 455, &[("Allow", METHODS)]),
        }
    }

    /// Source: MS-RTSP 3.2.5.17.
    pub(super) fn teardown(&mut self, now: Instant, request: &Request) {
        match self.is_about_session(request) {
            Ok(_) if request.headers.is_type(SWITCH) => self.switch(now, request),
            Ok(Some(token)) => {
                self.accept(now, request);
                self.deselect(now, token);
            }
            Ok(None) => {
                self.accept(now, request);
                self.close(CloseReason::Left);
            }
            // Whoever leaves need not have come.
            Err(454) if aggregate(request).is_ok() => {
                self.accept(now, request);
                self.close(CloseReason::Left);
            }
            Err(status) => self.refuse(now, request, status),
        }
    }
}

/// Where a play begins, and where it ends. Times are of content, without the preroll: so players ask, whatever they are told.
fn place(range: Option<Range>, content: Content) -> Option<(Position, Option<Until>)> {
    let Content::File { duration_ms, packets } = content else { return None };
    match range {
        None => Some((Position::Time(0), None)),
        Some(Range::Time { from, to_ms }) => {
            let from = if let RangeStart::Ms(ms) = from { ms } else { 0 };
            let until = to_ms.filter(|end| *end < duration_ms).and_then(|end| u32::try_from(end).ok()).map(Until::Time);
            // Windows Media players count with the preroll, so that the end is later for them.
            let is_there = from <= duration_ms.saturating_add(PREROLL_BOUND_MS);
            is_there.then_some((Position::Time(from.min(duration_ms)), until))
        }
        Some(Range::Packet { from, .. }) => {
            let start = u32::try_from(from).ok().filter(|start| u64::from(*start) < packets)?;
            Some((Position::Packet(start), None))
        }
        Some(Range::Byte { from, .. }) => Some((Position::Offset(u32::try_from(from).ok()?), None)),
    }
}

/// How many times faster than it plays all of a file is sent: whole times, and no more than a begin. Source: RFC 2326 12.35.
fn speed(request: &Request, most: u32) -> u8 {
    let wish = request.headers.get("Speed").and_then(|value| value.split('.').next()?.trim().parse::<u32>().ok());
    u8::try_from(wish.unwrap_or(1).clamp(1, most.max(1))).unwrap_or(u8::MAX)
}

/// What of a wish for a fast start of a file is granted: no more than asked for, and than the settings have.
fn granted(request: &Request, config: &Config, most: u32, bit_rate: u32) -> Option<Acceleration> {
    let wish = acceleration(request)?;
    let rate = (wish.bandwidth / bit_rate.max(1)).clamp(1, most.max(1));
    let burst_ms = u32::try_from(config.burst.as_millis()).unwrap_or(u32::MAX);
    Some(Acceleration {
        bandwidth: wish.bandwidth.min(bit_rate.saturating_mul(rate)),
        duration_ms: wish.duration_ms.min(burst_ms),
    })
}

/// `AccelBandwidth` and `AccelDuration`. Source: MS-RTSP 2.2.6.13.
pub(super) fn acceleration(request: &Request) -> Option<Acceleration> {
    let value = request.headers.get("X-Accelerate-Streaming")?;
    let number = |key: &str| {
        let mut pairs = value.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(key)).and_then(|(_, number)| number.trim().parse().ok())
    };
    Some(Acceleration { bandwidth: number("AccelBandwidth")?, duration_ms: number("AccelDuration")? })
}
