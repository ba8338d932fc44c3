//! What connections do that the access log tells of.
//!
//! A player over HTTP whose requests name its session may say how it went after its connection is gone, and may come back on
//! another: its line waits for that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::conn::{Conn, Place};
use super::engine::Engine;
use super::state::State;
use crate::access_log::{ClientReport, Visit};
use crate::http::viewer::Expired;
use crate::mms::log::Logging;
use crate::settings::Viewers;
use crate::text::Credentials;
use crate::text::signed::masked;
use crate::viewing::{Answer, Ask, Content, Denial, Login, OpenRefusal};
use crate::wire::Hresult;

/// How long a player has to say how it went, or to come back. Source: MS-WMLOG, by the habit of Windows Media Services.
const REPORT_TIME: Duration = Duration::from_secs(30);
/// Lines that wait at most; of more the new ones do not wait.
const WAITING_BOUND: usize = 4096;

/// What a connection does with one name.
#[derive(Debug)]
pub(super) struct Underway {
    name: Box<str>,
    began: Instant,
    /// Who it says it is.
    user: Option<String>,
    /// It was let in by that.
    proven: bool,
    /// It was refused, or failed; in the numbers of HTTP.
    failure: Option<u16>,
    played: bool,
    /// It got all that there is.
    completed: bool,
    transport: &'static str,
    duration: Duration,
    file_bytes: u64,
    bit_rate: u32,
    /// What the connection had been sent before, and asked for again.
    packets_before: u64,
    bytes_before: u64,
    resends_before: u64,
}

/// Lines of sessions that may go on, by client id, and until when they wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<u32, (Visit, Instant)>);

impl State {
    /// Notes what an engine asks for.
    pub(super) fn note_ask(&mut self, key: usize, now: Instant, ask: &Ask) {
        if !self.context.access_log.is_on() {
            return;
        }
        match ask {
            Ask::Open { name, pass } | Ask::OpenBytes { name, pass } => {
                let user = pass.login.as_ref().and_then(user_of);
                let Some(conn) = self.conns.get_mut(key) else { return };
                if let Some(underway) = conn.underway.as_mut().filter(|underway| *underway.name == **name) {
                    underway.user = user.or(underway.user.take());
                    return;
                }
                // What it was sent until now is of the name before.
                self.park(key);
                self.end_visit(key, now);
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.underway = Some(Underway { user, ..Underway::new(conn, name, now) });
                }
            }
            Ask::Play { .. } | Ask::PlayFile { .. } | Ask::Resume { .. } | Ask::SendBytes { .. } => {
                if let Some(conn) = self.conns.get_mut(key) {
                    let transport = if conn.route.is_some() { "UDP" } else { "TCP" };
                    if let Some(underway) = &mut conn.underway {
                        (underway.played, underway.completed, underway.transport) = (true, false, transport);
                    }
                }
            }
            // It is over with what it was sent, unless it is to come again with a password.
            Ask::Rest if self.conns.get(key).and_then(|conn| conn.underway.as_ref()?.failure) != Some(401) => {
                self.park(key);
                self.end_visit(key, now);
            }
            _ => {}
        }
    }

    /// Notes what an engine is told.
    pub(super) fn note_answer(&mut self, key: usize, now: Instant, answer: &Answer) {
        if !self.context.access_log.is_on() {
            return;
        }
        if let Answer::Admitted(Err(_)) = answer {
            // A line of its own.
            self.end_visit(key, now);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Answer::Admitted(Err(hr)) = answer {
            let name = conn.engine.name().unwrap_or_default().to_owned();
            let failure = Some(status_of(*hr));
            conn.underway = Some(Underway { failure, ..Underway::new(conn, &name, now) });
        }
        let asks_for_users = conn.opened.as_ref().is_some_and(|opened| opened.point.settings().access.viewers == Viewers::Users);
        let tries_on = conn.engine.tries_bare_name();
        let Some(underway) = &mut conn.underway else { return };
        match answer {
            // Only what comes of the last name that it tries counts.
            Answer::Opened(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND)))
            | Answer::Bytes(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND)))
                if tries_on => {}
            Answer::Opened(Ok(description)) => {
                underway.failure = None;
                underway.proven |= asks_for_users;
                underway.bit_rate = description.bit_rate;
                if let Content::File { duration_ms, packets } = description.content {
                    underway.duration = Duration::from_millis(duration_ms);
                    underway.file_bytes =
                        packets.saturating_mul(description.packet_size.into()) + description.header.len() as u64;
                }
            }
            Answer::Bytes(Ok(facts)) => {
                underway.proven |= asks_for_users;
                (underway.failure, underway.file_bytes) = (None, facts.len);
            }
            Answer::Opened(Err(OpenRefusal::Status(hr))) | Answer::Bytes(Err(OpenRefusal::Status(hr))) => {
                underway.failure = Some(status_of(*hr));
            }
            Answer::Opened(Err(OpenRefusal::Login(_))) | Answer::Bytes(Err(OpenRefusal::Login(_))) => {
                underway.failure = Some(401)
            }
            Answer::Opened(Err(OpenRefusal::Denied(denial))) | Answer::Bytes(Err(OpenRefusal::Denied(denial))) => {
                underway.failure = Some(if *denial == Denial::Guesses { 429 } else { 403 });
            }
            // It comes again, to the other place or in the other way.
            Answer::Opened(Err(OpenRefusal::Redirect(_))) | Answer::Bytes(Err(OpenRefusal::Redirect(_))) => conn.underway = None,
            Answer::Broken => underway.failure = Some(500),
            Answer::Ended | Answer::Finished { .. } | Answer::BytesSent => underway.completed = true,
            _ => {}
        }
    }

    /// A connection does nothing more with the name that it had opened. It has left its seat.
    pub(super) fn end_visit(&mut self, key: usize, now: Instant) {
        let Some(underway) = self.conns.get_mut(key).and_then(|conn| conn.underway.take()) else { return };
        let Some(conn) = self.conns.get(key) else { return };
        // What is only looked at is played over another connection, or not at all.
        if !underway.played && underway.failure.is_none() && matches!(conn.engine, Engine::Http(_)) {
            return;
        }
        let returns_as = conn.engine.returns_as();
        let visit = self.visit_of(conn, underway, now);
        match returns_as.filter(|client_id| self.http_sessions.borrow().holds(*client_id)) {
            Some(client_id) => self.wait_for_report(client_id, visit, now),
            None => self.context.access_log.tell(visit),
        }
    }

    fn visit_of(&self, conn: &Conn, underway: Underway, now: Instant) -> Visit {
        let (packets, bytes, resends_asked) = sent_on(conn);
        let player = conn.engine.player();
        // What is not there was looked for under its bare name last; the player asked for the whole.
        let asked = conn.engine.name().filter(|_| underway.failure == Some(404) && matches!(conn.engine, Engine::Http(_)));
        let name = asked.unwrap_or(&underway.name);
        Visit {
            peer: conn.peer.ip(),
            local: SocketAddr::new(conn.local.ip().to_canonical(), conn.local.port()),
            ended: (self.context.wall_clock)(),
            lasted: now.saturating_duration_since(underway.began),
            protocol: conn.engine.protocol(),
            transport: underway.transport,
            status: underway.failure.unwrap_or(if underway.completed { 200 } else { 408 }),
            agent: masked(player.map_or("", |player| player.token.split(';').next().unwrap_or_default())),
            player_id: player.and_then(|player| player.guid.as_deref()).map(masked),
            user: underway.user.filter(|_| underway.proven),
            duration: underway.duration,
            file_bytes: underway.file_bytes,
            bit_rate: underway.bit_rate,
            packets: packets.saturating_sub(underway.packets_before),
            bytes: bytes.saturating_sub(underway.bytes_before),
            resends_asked: resends_asked.saturating_sub(underway.resends_before),
            viewers: self.context.relay.admission().viewers(),
            session: conn.session,
            report: conn.engine.client_report(),
            // It may have a key that was not split off: escaped, or of a player that says `?` otherwise.
            name: masked(name),
        }
    }

    fn wait_for_report(&mut self, client_id: u32, visit: Visit, now: Instant) {
        let until = now + REPORT_TIME;
        let is_full = self.waiting_visits.0.len() >= WAITING_BOUND;
        match self.waiting_visits.0.get_mut(&client_id) {
            Some((before, at)) if before.name == visit.name => {
                before.goes_on_as(visit);
                *at = until;
            }
            Some(other) => {
                let (before, _) = std::mem::replace(other, (visit, until));
                self.context.access_log.tell(before);
            }
            None if is_full => self.context.access_log.tell(visit),
            None => {
                self.waiting_visits.0.insert(client_id, (visit, until));
            }
        }
    }

    /// Tells of those who have had their time to say how it went; of all, if the daemon stops.
    pub(super) fn tell_of_visits(&mut self, now: Instant, all: bool) {
        let mut sessions = self.http_sessions.borrow_mut();
        let due: Vec<u32> = self.waiting_visits.0.iter().filter(|(_, (_, at))| all || *at <= now).map(|(id, _)| *id).collect();
        for client_id in due {
            if !all && sessions.plays(client_id) {
                // It has come back: what it is sent now is of the same line.
                if let Some((_, at)) = self.waiting_visits.0.get_mut(&client_id) {
                    *at = now + REPORT_TIME;
                }
                continue;
            }
            if let Some((mut visit, _)) = self.waiting_visits.0.remove(&client_id) {
                let said = sessions.take_log(client_id);
                visit.report = said.as_deref().and_then(report_in).or(visit.report);
                self.context.access_log.tell(visit);
            }
        }
    }

    /// A session is no more: it can say nothing.
    pub(super) fn tell_of_expired(&mut self, expired: &Expired) {
        if let Some((mut visit, _)) = self.waiting_visits.0.remove(&expired.client_id) {
            visit.report = expired.log.as_deref().and_then(report_in).or(visit.report);
            self.context.access_log.tell(visit);
        }
    }
}

impl Underway {
    fn new(conn: &Conn, name: &str, began: Instant) -> Self {
        let (packets_before, bytes_before, resends_before) = sent_on(conn);
        Self {
            name: name.into(),
            began,
            user: None,
            proven: false,
            failure: None,
            played: false,
            completed: false,
            transport: if conn.route.is_some() { "UDP" } else { "TCP" },
            duration: Duration::ZERO,
            file_bytes: 0,
            bit_rate: 0,
            packets_before,
            bytes_before,
            resends_before,
        }
    }
}

/// Packets and bytes that a connection was sent, and packets that it asked for again. It has left its seat.
fn sent_on(conn: &Conn) -> (u64, u64, u64) {
    let (packets, bytes) = match &conn.place {
        Place::Parked(viewer) => (viewer.hot.packets, viewer.bytes()),
        _ => (0, 0),
    };
    let [resends_asked, ..] = conn.engine.counts();
    (packets, bytes + conn.downloaded, resends_asked)
}

fn user_of(login: &Login) -> Option<String> {
    match Credentials::parse(&login.authorization).ok()? {
        Credentials::Basic { user, .. } => Some(user),
        Credentials::Digest(response) => Some(response.user),
        Credentials::Other => None,
    }
}

fn status_of(hr: Hresult) -> u16 {
    match hr {
        Hresult::FILE_NOT_FOUND => 404,
        Hresult::ACCESS_DENIED => 403,
        Hresult::TOO_MANY_SESSIONS | Hresult::INSUFFICIENT_BANDWIDTH | Hresult::NO_STREAM => 503,
        _ => 500,
    }
}

/// What a player says over HTTP. It may repeat the address that it plays, with the key in it, in any of its words.
pub(super) fn report_in(text: &str) -> Option<ClientReport> {
    ClientReport::parse(&masked(text))
}

/// What a player says over MMS, by the columns of the log.
pub(super) fn report_of(log: &Logging) -> ClientReport {
    let mut report = ClientReport::default();
    let version = |version: u64| match version {
        0 => String::new(),
        _ => [48, 32, 16, 0].map(|shift| (version >> shift & 0xFFFF).to_string()).join("."),
    };
    for (column, text) in [
        ("c-playerid", &log.player_id),
        ("c-playerlanguage", &log.language),
        ("cs(User-Agent)", &log.user_agent),
        ("cs(Referer)", &log.hosting_page),
        ("c-hostexe", &log.host_exe),
        ("c-os", &log.os),
        ("c-cpu", &log.cpu),
        ("audiocodec", &log.audio_codec),
        ("videocodec", &log.video_codec),
        ("channelURL", &log.channel_url),
        ("c-playerversion", &version(log.client_version)),
        ("c-hostexever", &version(log.host_exe_version)),
        ("c-osversion", &version(log.os_version)),
    ] {
        report.set(column, &masked(text));
    }
    for (column, number) in [
        ("c-starttime", u64::from(log.start_ms / 1000)),
        ("x-duration", (log.played_ms / 1000).into()),
        ("c-rate", log.rate.into()),
        ("c-status", if log.hr.is_failure() { 408 } else { 200 }),
        ("filelength", (log.file_duration_ms / 1000).into()),
        ("filesize", log.file_size),
        ("avgbandwidth", log.bandwidth.into()),
        ("c-bytes", log.bytes_received),
        ("c-pkts-received", log.packets_received.into()),
        ("c-pkts-lost-client", log.packets_lost.into()),
        ("c-pkts-lost-net", log.packets_lost_net.into()),
        ("c-pkts-lost-cont-net", log.packets_lost_run.into()),
        ("c-resendreqs", log.resend_requests.into()),
        ("c-pkts-recovered-ECC", log.packets_recovered_ecc.into()),
        ("c-pkts-recovered-resent", log.packets_recovered.into()),
        ("c-buffercount", log.buffering_count.into()),
        ("c-totalbuffertime", (log.buffering_ms / 1000).into()),
        ("c-quality", log.min_quality.into()),
    ] {
        report.set(column, &number.to_string());
    }
    report
}
