//! What comes: responses, headers, packets, ends. Source: MS-WMSP 3.1.5.

use std::time::Instant;

use bytes::Bytes;

use super::frames::{Frame, Frames};
use super::plain::{Piece, Plain};
use super::response::Response;
use super::{
    ANSWER_TIME, CHANGE_TIME, Client, Content, Errand, Exchange, Known, MOST_LOGINS, SESSION_TIME, Stage, Step, metafile,
};
use crate::asf;
use crate::http::body::Body;
use crate::playing::{ClientEnd, ClientEvent, ClientOutput, DataPath, StartAt, restored};
use crate::text::Challenge;
use crate::wire::Hresult;

/// Bytes that tell what a body is.
const SNIFF_LEN: usize = 4;
/// Longest text that is read.
const TEXT_BOUND: usize = 64 << 10;
/// Bytes of a text in which it is told from other texts as soon as it can be.
const SNIFFED_TEXT: usize = 2 << 10;
/// Longest place that is gone to, bytes.
const PLACE_BOUND: usize = 4 << 10;
/// The reason of `$E` behind which another stream follows.
const ENTRY_FINISHED: u32 = 1;
/// What a server may say of how long a session lasts at rest, seconds.
const SESSION_TIMES_S: std::ops::RangeInclusive<u32> = 2..=600;

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Reads,
    /// It is done with, and so is what else has come of it.
    Over,
}

impl Client {
    pub(super) fn read(&mut self, now: Instant, bytes: &[u8]) {
        let Some(Exchange { errand, mut stage }) = self.exchange.take() else { return };
        let mut input = bytes;
        let after = loop {
            match &mut stage {
                // Nothing was asked yet.
                Stage::Connecting => break After::Reads,
                Stage::Head(reader) => match reader.push(&mut input) {
                    Ok(None) => break After::Reads,
                    Ok(Some(response)) => match self.response(now, errand, &response) {
                        Some(next) => stage = next,
                        None => break After::Over,
                    },
                    Err(why) => break self.breaks(now, errand, why),
                },
                Stage::Body { body, content } => match body.next(&mut input) {
                    Ok(Some(piece)) => {
                        if self.content(now, errand, content, piece) == After::Over {
                            break After::Over;
                        }
                    }
                    Ok(None) if body.is_done() => {
                        self.body_end(now, errand, content, true);
                        break After::Over;
                    }
                    Ok(None) => break After::Reads,
                    Err(error) => break self.breaks(now, errand, error.to_string()),
                },
            }
        };
        match after {
            After::Reads => self.exchange = Some(Exchange { errand, stage }),
            After::Over => {}
        }
    }

    /// The server has closed the connection.
    pub(super) fn closed(&mut self, now: Instant) {
        match self.exchange.take() {
            Some(Exchange { errand, stage: Stage::Body { mut body, mut content } }) => {
                let whole = body.end_of_input();
                self.body_end(now, errand, &mut content, whole);
            }
            Some(Exchange { errand, .. }) => self.ends_early(now, errand, ClientEnd::Closed),
            None => {}
        }
    }

    /// What the server says cannot be understood.
    fn breaks(&mut self, now: Instant, errand: Errand, why: String) -> After {
        self.ends_early(now, errand, ClientEnd::Protocol(why));
        After::Over
    }

    /// A connection came to nothing; logs and signs of life are not worth more than a try.
    fn ends_early(&mut self, now: Instant, errand: Errand, end: ClientEnd) {
        match errand {
            Errand::Describe | Errand::Play => self.close(end),
            Errand::KeepAlive | Errand::Log => self.done(now, errand),
        }
    }

    /// A log or a sign of life was told, as far as it could be.
    fn done(&mut self, now: Instant, errand: Errand) {
        match &self.step {
            Step::Leaving(end) => self.close(end.clone()),
            _ if errand == Errand::KeepAlive => self.rest(now),
            _ => {}
        }
    }

    /// A response begins; how its body is to be read, `None` where that is of no interest.
    fn response(&mut self, now: Instant, errand: Errand, response: &Response) -> Option<Stage> {
        if response.code == 401 {
            return self.challenged(now, errand, response);
        }
        self.logins = 0;
        if matches!(errand, Errand::KeepAlive | Errand::Log) {
            self.session(response);
            self.outputs.push_back(ClientOutput::Disconnect);
            self.done(now, errand);
            return None;
        }
        let place = response.first("Location").filter(|_| matches!(response.code, 300..=304 | 307 | 308));
        if let Some(place) = place {
            self.redirected(place);
            return None;
        }
        if !(200..300).contains(&response.code) {
            let (what, code, reason) = (errand.name(), response.code, response.reason.clone());
            self.close(ClientEnd::Status { what, code, reason });
            return None;
        }
        self.server = response.server();
        self.plays_on = self.server.major < 9 || response.supports("predstrm");
        self.session(response);
        if let Some(features) = response.pragma("features").filter(|features| !features.trim().is_empty()) {
            self.is_broadcast = Some(features.split(',').any(|feature| feature.trim().eq_ignore_ascii_case("broadcast")));
        }
        self.is_media_type = response.first("Content-Type").is_some_and(|kind| kind.starts_with("application/x-mms-framed"));
        self.is_bounded = response.first("Content-Length").is_some();
        match response.framing() {
            Ok(framing) => Some(Stage::Body { body: Body::new(framing), content: Content::Unknown(Vec::new()) }),
            Err(why) => {
                self.fail(why);
                None
            }
        }
    }

    /// What a response says about the session.
    fn session(&mut self, response: &Response) {
        self.client_id = response.pragma_number("client-id").filter(|id| *id != 0).or(self.client_id);
        if let Some(ms) = response.pragma_number("timeout") {
            let s = (ms / 1000).clamp(*SESSION_TIMES_S.start(), *SESSION_TIMES_S.end());
            self.session_time = std::time::Duration::from_secs(s.into());
        } else {
            self.session_time = self.session_time.min(SESSION_TIME);
        }
    }

    /// The server wants credentials: says the same again with them, if that makes sense.
    fn challenged(&mut self, now: Instant, errand: Errand, response: &Response) -> Option<Stage> {
        let challenge = Challenge::best(response.all("WWW-Authenticate"));
        self.logins += 1;
        let end = match challenge {
            _ if self.config.login.is_none() => ClientEnd::CredentialsWanted,
            // The nonce of the connection before may have grown too old by now.
            Some(challenge) if self.logins == 1 || (self.logins <= MOST_LOGINS && challenge.is_stale()) => {
                (self.challenge, self.answers) = (Some(challenge), 0);
                let due = self.answer_due;
                self.connect(now, errand);
                // The time for a log is the time for all of it.
                if errand == Errand::Log {
                    self.answer_due = due;
                }
                return None;
            }
            _ => ClientEnd::CredentialsRefused,
        };
        self.ends_early(now, errand, end);
        None
    }

    fn redirected(&mut self, place: &str) {
        if place.len() > PLACE_BOUND || place.chars().any(char::is_control) {
            return self.fail("it names a place that cannot be one");
        }
        self.close(ClientEnd::Redirected(metafile::resolved(place, &self.config.host, &self.config.target)));
    }

    /// A piece of a body.
    fn content(&mut self, now: Instant, errand: Errand, content: &mut Content, piece: &[u8]) -> After {
        let mut piece = piece;
        let first;
        if let Content::Unknown(bytes) = content {
            bytes.extend_from_slice(piece);
            if bytes.len() < SNIFF_LEN {
                return After::Reads;
            }
            first = std::mem::take(bytes);
            piece = &first;
            *content = if Frames::sniff(piece) {
                Content::Frames(Frames::default())
            } else if Plain::sniff(piece) {
                self.is_plain = true;
                Content::Plain(Box::default())
            } else {
                Content::Text(Vec::new())
            };
        }
        match content {
            Content::Text(text) => {
                let room = TEXT_BOUND - text.len();
                text.extend_from_slice(piece.get(..room).unwrap_or(piece));
                // Beyond a few declarations and comments the end is waited for.
                let is_other = text.len() <= SNIFFED_TEXT && metafile::sniff(text) == Some(false);
                if text.len() == TEXT_BOUND || is_other {
                    self.text(&std::mem::take(text));
                    return After::Over;
                }
                After::Reads
            }
            Content::Frames(frames) => {
                frames.feed(piece);
                self.frames(now, errand, frames)
            }
            Content::Plain(plain) => {
                plain.feed(piece);
                self.plain(now, plain)
            }
            Content::Unknown(_) | Content::Ignored => After::Reads,
        }
    }

    /// A body is at its end; `whole`: at the end that it was to have.
    fn body_end(&mut self, now: Instant, errand: Errand, content: &mut Content, whole: bool) {
        match std::mem::replace(content, Content::Ignored) {
            Content::Unknown(text) | Content::Text(text) => self.text(&text),
            Content::Frames(_) if errand == Errand::Describe && self.step == Step::Describing && self.known.is_some() => {
                self.go_on(now);
            }
            Content::Frames(_) if errand == Errand::Describe && self.known.is_none() => {
                self.fail("its description ends before the ASF header does");
            }
            Content::Plain(mut plain) => {
                if whole && !self.known.as_ref().is_some_and(|known| known.live) {
                    plain.finish();
                }
                if self.plain(now, &mut plain) == After::Reads {
                    self.close(ClientEnd::Closed);
                }
            }
            Content::Frames(_) | Content::Ignored => self.close(ClientEnd::Closed),
        }
    }

    /// A text came in place of media.
    fn text(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match metafile::first_place(&text) {
            Some(place) => self.redirected(&place),
            None if text.is_empty() => self.fail("its answer is empty"),
            None if metafile::sniff(text.as_bytes()) == Some(true) => self.fail("its metafile names no place that can be played"),
            None => {
                let begins: String = text.trim_start().chars().take(24).collect();
                self.fail(format!("its answer is neither ASF nor a metafile: it begins with {begins:?}"));
            }
        }
    }

    fn frames(&mut self, now: Instant, errand: Errand, frames: &mut Frames) -> After {
        loop {
            match frames.poll() {
                Ok(None) => return After::Reads,
                Err(why) => return self.breaks(now, errand, why),
                Ok(Some(Frame::Header(header))) => {
                    if !self.header(&header) {
                        return After::Over;
                    }
                    match (errand, &self.step) {
                        // An encoder sends media behind it by itself, or it ends here; the others have nothing more to say.
                        (Errand::Describe, Step::Describing) if !self.is_media_type => {
                            self.outputs.push_back(ClientOutput::Disconnect);
                            self.go_on(now);
                            return After::Over;
                        }
                        (_, Step::Starting) => self.begin(now),
                        (_, Step::Changing) => {
                            self.step = Step::Playing;
                            // Headers alone are no media, however many come.
                            self.answer_due = None;
                            self.change_due = (!self.plays_on).then(|| now + CHANGE_TIME);
                        }
                        _ => {}
                    }
                }
                Ok(Some(Frame::Data { location, packet })) => {
                    match self.step {
                        Step::Describing if self.known.is_some() => {
                            if self.is_paused {
                                self.outputs.push_back(ClientOutput::Disconnect);
                                self.rest(now);
                                return After::Over;
                            }
                            self.event(ClientEvent::Starting);
                            self.begin(now);
                        }
                        // The header is that of the description.
                        Step::Starting => self.begin(now),
                        Step::Playing => {}
                        _ => {
                            self.stats.stale += 1;
                            continue;
                        }
                    }
                    self.change_due = None;
                    self.packet(now, location, packet);
                }
                Ok(Some(Frame::Change | Frame::End(ENTRY_FINISHED))) => self.changing(now),
                Ok(Some(Frame::End(reason))) => {
                    self.end(now, Hresult(reason));
                    return After::Over;
                }
            }
        }
    }

    /// The stream has ended; another one follows.
    fn changing(&mut self, now: Instant) {
        if matches!(self.step, Step::Starting | Step::Playing) {
            self.step = Step::Changing;
            self.answer_due = Some((now + ANSWER_TIME, "the end of a stream that goes on"));
        }
    }

    fn end(&mut self, now: Instant, hr: Hresult) {
        if self.step == Step::Describing {
            // It ended before it began.
            return self.close(if hr.is_failure() { ClientEnd::Refused { what: "playing", hr } } else { ClientEnd::Ended });
        }
        self.event(ClientEvent::End { hr });
        self.outputs.push_back(ClientOutput::Disconnect);
        if self.config.stays && !hr.is_failure() {
            return self.rest(now);
        }
        self.leave(now, ClientEnd::Ended);
    }

    fn plain(&mut self, now: Instant, plain: &mut Plain) -> After {
        loop {
            match plain.poll() {
                Ok(None) => return After::Reads,
                Err(why) => return self.breaks(now, Errand::Describe, why),
                Ok(Some(Piece::Header(header))) => {
                    if !self.header(&header) {
                        return After::Over;
                    }
                    if self.is_paused {
                        self.outputs.push_back(ClientOutput::Disconnect);
                        self.rest(now);
                        return After::Over;
                    }
                    // It comes from its beginning on, wherever we want to begin.
                    let start = std::mem::take(&mut self.start_at);
                    self.next_location = None;
                    self.started_at = start;
                    self.skips_to = (!self.known.as_ref().is_some_and(|known| known.live)).then_some(start);
                    self.event(ClientEvent::Starting);
                    self.begin(now);
                }
                Ok(Some(Piece::Packets(mut packets))) => {
                    while packets.len() >= plain.packet_size() {
                        let packet = packets.split_to(plain.packet_size());
                        let location = self.next_location.unwrap_or(0);
                        if self.is_skipped(location, &packet) {
                            (self.media_at, self.next_location) = (now, Some(location.wrapping_add(1)));
                        } else {
                            self.packet(now, location, packet);
                        }
                    }
                }
                Ok(Some(Piece::End)) => {
                    self.end(now, Hresult::OK);
                    return After::Over;
                }
            }
        }
    }

    /// Whether a packet of plain ASF lies before the place where to begin.
    fn is_skipped(&mut self, location: u32, packet: &[u8]) -> bool {
        let Some(start) = self.skips_to else { return false };
        let is_before = match start {
            StartAt::Beginning => false,
            StartAt::Packet(first) => location < first,
            StartAt::Offset(at) => {
                let header_len = self.known.as_ref().map_or(0, |known| known.header.len() as u64);
                header_len + (u64::from(location) + 1) * packet.len() as u64 <= u64::from(at)
            }
            StartAt::Time { s } => asf::send_time_ms(packet).is_some_and(|ms| f64::from(ms) < s * 1000.0),
        };
        if !is_before {
            self.skips_to = None;
        }
        is_before
    }

    /// Media begins to come.
    fn begin(&mut self, now: Instant) {
        self.step = Step::Playing;
        self.answer_due = None;
        (self.silent_at, self.media_at) = (now + super::SILENCE, now);
        self.playing_since.get_or_insert(now);
        self.event(ClientEvent::Playing { path: DataPath::Http });
    }

    /// Takes a header; whether the connection goes on.
    fn header(&mut self, bytes: &Bytes) -> bool {
        let parsed = match asf::Header::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.fail(error.to_string());
                return false;
            }
        };
        let is_changing = self.step == Step::Changing;
        let is_same = self.known.as_ref().is_some_and(|known| known.header == *bytes);
        if is_same && !is_changing {
            return true;
        }
        let streams = parsed.streams().iter().map(|stream| stream.number).collect();
        let live = match self.is_broadcast {
            Some(is_broadcast) => is_broadcast,
            // A recording of a broadcast, as any download of one is, has a header that says so; its length says more.
            None if self.is_plain => !self.is_bounded && (parsed.is_broadcast() || parsed.packet_count().is_none()),
            None => parsed.is_broadcast(),
        };
        let is_first = self.known.is_none();
        self.known = Some(Known { header: bytes.clone(), packet_size: parsed.packet_size(), streams, live });
        if is_first {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of content are few")]
            let duration_s = parsed.play_duration_ms().map_or(0.0, |ms| ms as f64 / 1000.0);
            self.event(ClientEvent::Opened {
                live,
                duration_s: if live { 0.0 } else { duration_s },
                packet_count: if live { 0 } else { parsed.packet_count().unwrap_or(0) },
                packet_size: u32::try_from(parsed.packet_size()).unwrap_or(u32::MAX),
                bit_rate: parsed.bit_rate(),
            });
        }
        // Another one before anything was played takes the place of the one that was described.
        let is_new = self.stats.packets > 0;
        self.event(if is_new { ClientEvent::NewHeader(bytes.clone()) } else { ClientEvent::Header(bytes.clone()) });
        if let Some(wished) = self.config.streams.filter(|wished| is_first && !wished.intersects(streams)) {
            self.close(ClientEnd::NoSuchStream { wished, existing: streams });
            return false;
        }
        true
    }

    fn packet(&mut self, now: Instant, location: u32, packet: Bytes) {
        let size = self.known.as_ref().map_or(0, |known| known.packet_size);
        if !(1..=size).contains(&packet.len()) {
            self.stats.stale += 1;
            return;
        }
        self.media_at = now;
        self.next_location = Some(location.wrapping_add(1));
        self.stats.packets += 1;
        self.stats.bytes += packet.len() as u64;
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.event(if self.config.count_only {
            ClientEvent::Counted { location, send_time_ms: asf::send_time_ms(&packet) }
        } else {
            ClientEvent::Packet { location, sequence, bytes: restored(packet, size), resent: false, settled: self.sequence }
        });
    }
}
