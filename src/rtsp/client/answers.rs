//! What the server answers. Source: MS-RTSP 3.1.5; RFC 2326 11.

use std::time::{Duration, Instant};

use super::{Asf, Client, Errand, Known, SESSION_TIME_S, Session, Step};
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, StartAt};
use crate::rtsp::depacketize::Depacketizer;
use crate::rtsp::message::{Request, Response};
use crate::rtsp::sdp::{Npt, Remote, Role, base_url};
use crate::text::Challenge;

/// Challenges answered in a row, one of them because a nonce was too old.
const MOST_LOGINS: u32 = 2;
/// Longest place that is gone to, and longest session id that is taken, bytes.
const PLACE_BOUND: usize = 4 << 10;
const SESSION_BOUND: usize = 256;
/// What a server may say of how long a session lasts, seconds.
const SESSION_TIMES_S: std::ops::RangeInclusive<u64> = 10..=3600;

impl Client {
    pub(super) fn response(&mut self, now: Instant, response: &Response) {
        if response.status < 200 {
            return;
        }
        // By its number; the oldest one, where the server has a count of its own.
        let cseq = response.headers.number::<u64>("CSeq");
        let at = self.pending.iter().position(|pending| Some(pending.cseq) == cseq);
        if at.is_none() && self.repeats_cseq {
            // To something that is not waited for any more.
            return;
        }
        self.repeats_cseq |= at.is_some();
        let Some(pending) = self.pending.remove(at.unwrap_or(0)) else { return };
        let errand = pending.errand;
        if let Some(entry) = response.headers.number::<u32>("X-Playlist-Gen-Id").filter(|entry| *entry != 0) {
            // While a change is on its way, an answer may still name what was before.
            self.entry.get_or_insert(entry);
        }
        match response.status {
            401 => return self.challenged(now, errand, response),
            300..=399 if matches!(errand, Errand::Options | Errand::Describe | Errand::Setup | Errand::Play) => {
                if let Some(place) = response.headers.get("Location") {
                    return self.redirected(place);
                }
            }
            _ => self.logins = 0,
        }
        match errand {
            // Whoever does not know it may know the rest.
            Errand::Options => {
                let methods = response.headers.get("Public").unwrap_or_default();
                self.lacks_get_parameter = !methods.is_empty() && !methods.contains("GET_PARAMETER");
                self.ask(now, Errand::Describe);
            }
            Errand::Describe if is_success(response) => self.described(now, response),
            Errand::Setup => self.set_up(now, response),
            Errand::Add(stream) if is_success(response) => self.added(stream, response),
            Errand::Play if is_success(response) => self.plays(now, response),
            // 455: it has stopped by itself.
            Errand::Pause if response.status != 454 => self.halted(now),
            Errand::KeepAlive if response.status != 454 => {}
            Errand::Add(_) | Errand::Drop(_) => {}
            // Something else has come in between.
            Errand::Play if self.step != Step::Starting => {}
            Errand::Teardown => {
                if let Step::Leaving(end) = &self.step {
                    let end = end.clone();
                    self.close(end);
                }
            }
            Errand::Describe | Errand::Play | Errand::Pause | Errand::KeepAlive => self.refused(errand.name(), response),
        }
    }

    pub(super) fn refused(&mut self, what: &'static str, response: &Response) {
        let reason = response.reason.chars().filter(|c| !c.is_control()).take(80).collect();
        self.close(ClientEnd::Status { what, code: response.status, reason });
    }

    /// The server wants credentials: says the same again with them, if that makes sense.
    fn challenged(&mut self, now: Instant, errand: Errand, response: &Response) {
        let fields: Vec<&str> = response.headers.all("WWW-Authenticate").collect();
        self.logins += 1;
        let end = match Challenge::best(fields.iter().copied()) {
            _ if self.config.login.is_none() => ClientEnd::CredentialsWanted,
            Some(challenge) if self.logins == 1 || (self.logins <= MOST_LOGINS && challenge.is_stale()) => {
                (self.challenge, self.answers) = (Some(challenge), 0);
                return self.ask(now, errand);
            }
            _ => ClientEnd::CredentialsRefused,
        };
        match &self.step {
            Step::Leaving(end) => {
                let end = end.clone();
                self.close(end);
            }
            _ => self.close(end),
        }
    }

    fn redirected(&mut self, place: &str) {
        match self.place(place) {
            Some(place) => self.close(ClientEnd::Redirected(place)),
            None => self.fail("it names a place that cannot be one"),
        }
    }

    /// A place that the server names, as a URL.
    pub(super) fn place(&self, place: &str) -> Option<String> {
        let place = place.trim();
        if place.is_empty() || place.len() > PLACE_BOUND || place.chars().any(char::is_control) {
            return None;
        }
        Some(if place.starts_with('/') {
            let end = self.config.url.splitn(4, '/').take(3).map(|part| part.len() + 1).sum::<usize>();
            format!("{}{place}", self.config.url.get(..end.saturating_sub(1)).unwrap_or(&self.config.url))
        } else {
            place.to_owned()
        })
    }

    fn described(&mut self, now: Instant, response: &Response) {
        let headers = &response.headers;
        let base = base_url(&self.config.url, headers.get("Content-Base"), headers.get("Content-Location"));
        match Remote::parse(&String::from_utf8_lossy(&response.body), &base) {
            Ok(remote) => self.describe(now, remote),
            Err(error) => self.fail(error.to_string()),
        }
    }

    /// Another stream takes the place of the one that was played. Source: MS-RTSP 3.1.5.12.
    pub(super) fn announced(&mut self, now: Instant, request: &Request) {
        let base = base_url(&self.config.url, None, None);
        let remote = match Remote::parse(&String::from_utf8_lossy(&request.body), &base) {
            Ok(remote) => remote,
            Err(error) => return self.fail(error.to_string()),
        };
        self.entry = request.headers.number("X-Playlist-Gen-Id").or(self.entry);
        (self.change_due, self.end_due) = (None, None);
        self.flush(now);
        if let Some(session) = &mut self.session {
            session.streams = StreamSet::EMPTY;
        }
        // The new one has places of its own.
        self.start_at = Some(StartAt::Beginning);
        self.describe(now, remote);
    }

    /// A description came: sets up what is in it.
    fn describe(&mut self, now: Instant, remote: Remote) {
        let live = remote.is_broadcast;
        let Some(windows_media) = &remote.windows_media else {
            if !self.config.counts_plain {
                return self.leave(now, ClientEnd::NotAsf);
            }
            self.opened_plain(&remote);
            self.known = Some(Known { url: remote.url.clone(), asf: None });
            return self.begin_setups(now, &remote);
        };
        let (header, blob) = (&windows_media.header, windows_media.blob.clone());
        let packet_size = header.packet_size();
        let streams: StreamSet = header.streams().iter().map(|stream| stream.number).collect();
        let role = |media: &crate::rtsp::sdp::Media| match media.role {
            Role::Asf(stream) => Some((stream, media.url.clone())),
            Role::Rtx | Role::Plain => None,
        };
        let urls = remote.media.iter().filter_map(role).collect();
        let is_first = self.known.is_none();
        let is_same = self.known.as_ref().and_then(|known| known.asf.as_ref()).is_some_and(|asf| asf.header == blob);
        if is_first {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of content are few")]
            let duration_s = header.play_duration_ms().map_or(0.0, |ms| ms as f64 / 1000.0);
            self.event(ClientEvent::Opened {
                live,
                duration_s: if live { 0.0 } else { duration_s },
                packet_count: if live { 0 } else { header.packet_count().unwrap_or(0) },
                packet_size: u32::try_from(packet_size).unwrap_or(u32::MAX),
                bit_rate: header.bit_rate(),
            });
        }
        // One that comes before anything was played takes the place of the one that was described.
        let is_new = self.stats.packets > 0;
        if is_new && !is_same {
            self.event(ClientEvent::NewHeader(blob.clone()));
        } else if !is_same {
            self.event(ClientEvent::Header(blob.clone()));
        }
        let bound = usize::try_from(windows_media.packet_bound).unwrap_or(usize::MAX);
        self.depacketizer = Depacketizer::new(bound);
        self.known = Some(Known { url: remote.url.clone(), asf: Some(Asf { header: blob, packet_size, streams, urls }) });
        if let Some(wished) = self.config.streams.filter(|wished| is_first && !wished.intersects(streams)) {
            return self.leave(now, ClientEnd::NoSuchStream { wished, existing: streams });
        }
        self.begin_setups(now, &remote);
    }

    fn opened_plain(&mut self, remote: &Remote) {
        if self.known.is_some() {
            return;
        }
        let from_ms = match remote.range.map(|range| range.start) {
            Some(Npt::Ms(ms)) => ms,
            _ => 0,
        };
        let duration_ms = remote.range.and_then(|range| range.end_ms).map_or(0, |end| end.saturating_sub(from_ms));
        let live = remote.is_broadcast || duration_ms == 0;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of content are few")]
        let duration_s = if live { 0.0 } else { duration_ms as f64 / 1000.0 };
        self.event(ClientEvent::Opened { live, duration_s, packet_count: 0, packet_size: 0, bit_rate: 0 });
    }

    /// What a response says about the session, which begins with the first one.
    pub(super) fn session(&mut self, response: &Response) -> &mut Session {
        let told = response.headers.get("Session").unwrap_or_default();
        let mut parts = told.split(';').map(str::trim);
        let id = parts.next().unwrap_or_default();
        let is_sendable = id.len() <= SESSION_BOUND && id.bytes().all(|byte| byte.is_ascii_graphic());
        let id = if is_sendable { id } else { "" };
        let timeout = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("timeout") { value.trim().parse::<u64>().ok() } else { None }
        });
        let s = timeout.unwrap_or(SESSION_TIME_S).clamp(*SESSION_TIMES_S.start(), *SESSION_TIMES_S.end());
        let session = self.session.get_or_insert_with(Session::default);
        if !id.is_empty() {
            id.clone_into(&mut session.id);
        }
        if timeout.is_some() || session.keep_alive.is_zero() {
            session.keep_alive = Duration::from_millis(s * 1000 / 2);
        }
        session
    }
}

pub(super) const fn is_success(response: &Response) -> bool {
    response.status < 300
}
