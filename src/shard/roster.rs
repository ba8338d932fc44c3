//! What the shards tell of their sessions when somebody asks, and how sessions are ended from outside.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use super::Context;
use super::command::{Command, EndCause};
use super::conn::{Conn, Place};
use super::state::State;
use super::timeline::{Step, Timeline};
use crate::text::signed::masked;

/// Sessions that a shard tells of at once: a fraction of a millisecond, so that no tick is late for it.
const PAGE: usize = 128;
/// Sessions that have ended and can still be asked about, the latest ones.
const ENDED_KEPT: usize = 1000;

/// A shard answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// News that a listener may be behind; who is further behind misses some.
const NEWS_KEPT: usize = 1024;

/// One session, as it is at the moment of the question.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// Its number, which no other one has while the daemon runs.
    pub session: u64,
    /// `mms`, `http` or `rtsp`.
    pub protocol: &'static str,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// The viewer.
    pub peer: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// The publishing point that it has open.
    pub point: Option<String>,
    /// The name that it opened, keys masked; also of what was refused.
    pub name: Option<String>,
    /// What it calls itself.
    pub player: String,
    /// Since it connected.
    pub lasts: Duration,
    /// It is sent media, or waits for it.
    pub plays: bool,
    /// Its UDP ports that are sent to, or are held for it.
    pub client_ports: Vec<u16>,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes sent to it, heads included, those of downloads too.
    pub bytes: u64,
    /// Packets that it lost by being slow.
    pub skipped: u64,
    /// Packets that it asked for again.
    pub resends_asked: u64,
    /// Packets that it was sent again.
    pub resends_granted: u64,
    /// What it says about its own playing; empty if nothing.
    pub report: String,
    /// Why it ended; `None` while it goes on.
    pub end: Option<String>,
}

/// A session and its time line.
#[derive(Debug, Clone)]
pub struct SessionStory {
    /// What it is, or was at its end.
    pub facts: SessionFacts,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// When it ended; `None` while it goes on.
    pub ended: Option<SystemTime>,
}

/// News of a session.
#[derive(Debug, Clone)]
pub enum SessionEvent {
    /// It was sent its first packet of media.
    Plays(Arc<SessionFacts>),
    /// It has ended.
    Ended(Arc<SessionFacts>),
}

/// Where news of sessions goes; nothing is made of them while nobody listens.
#[derive(Debug)]
pub(super) struct News(broadcast::Sender<SessionEvent>);

impl Default for News {
    fn default() -> Self {
        Self(broadcast::Sender::new(NEWS_KEPT))
    }
}

/// Some sessions of a shard, and where to go on.
#[derive(Debug)]
pub(super) struct Page {
    sessions: Vec<SessionFacts>,
    next: Option<usize>,
}

/// The sessions that ended last, of all shards.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<VecDeque<(SystemTime, SessionFacts, Timeline)>>);

impl Ended {
    fn add(&self, at: SystemTime, facts: SessionFacts, timeline: Timeline) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() == ENDED_KEPT {
            ended.pop_front();
        }
        ended.push_back((at, facts, timeline));
    }

    fn story(&self, session: u64) -> Option<SessionStory> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, facts, timeline) = ended.iter().find(|(_, facts, _)| facts.session == session)?;
        Some(SessionStory { facts: facts.clone(), steps: timeline.steps(), ended: Some(*at) })
    }

    fn latest(&self, most: usize) -> Vec<(SystemTime, SessionFacts)> {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.iter().rev().take(most).map(|(at, facts, _)| (*at, facts.clone())).collect()
    }
}

/// All sessions, for those who look at the daemon from outside.
#[derive(Clone)]
pub struct Roster(pub(super) Arc<Context>);

impl Roster {
    /// All sessions now, by their numbers. A shard that has failed tells of none.
    pub async fn sessions(&self) -> Vec<SessionFacts> {
        let mut sessions = Vec::new();
        for shard in &self.0.shards {
            let mut from = Some(0);
            while let Some(first) = from.take() {
                let (reply, answer) = oneshot::channel();
                shard.send(Command::Survey { first, reply });
                if let Some(page) = patient(answer).await {
                    sessions.extend(page.sessions);
                    from = page.next;
                }
            }
        }
        sessions.sort_by_key(|facts| facts.session);
        sessions
    }

    /// What happened to a session that is there, or that ended lately.
    pub async fn story(&self, session: u64) -> Option<SessionStory> {
        for shard in &self.0.shards {
            let (reply, answer) = oneshot::channel();
            shard.send(Command::Tell { session, reply });
            if let Some(Some(story)) = patient(answer).await {
                return Some(story);
            }
        }
        self.0.ended.story(session)
    }

    /// The sessions that ended last and when, the latest first.
    pub fn ended(&self, most: usize) -> Vec<(SystemTime, SessionFacts)> {
        self.0.ended.latest(most)
    }

    /// Bytes that all viewers were sent so far, framing and downloads included.
    pub fn sent_bytes(&self) -> u64 {
        self.0.sent_bytes.load(Ordering::Relaxed)
    }

    /// News of all sessions from now on.
    pub fn listen(&self) -> broadcast::Receiver<SessionEvent> {
        self.0.news.0.subscribe()
    }

    /// Ends a session; false if there is none of that number.
    pub async fn kick(&self, session: u64) -> bool {
        for shard in &self.0.shards {
            let (reply, answer) = oneshot::channel();
            shard.send(Command::Kick { session, reply });
            if patient(answer).await.is_some_and(|was_there| was_there) {
                return true;
            }
        }
        false
    }
}

/// A shard's answer; one that is stuck gives none, and the others are told of all the same.
async fn patient<T>(answer: oneshot::Receiver<T>) -> Option<T> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.ok(),
        Err(_) => {
            tracing::warn!("a shard does not tell of its sessions; it is stuck");
            None
        }
    }
}

impl State {
    /// Tells of the sessions from a key on.
    pub(super) fn survey(&self, now: Instant, first: usize) -> Page {
        let mut keys = self.conns.iter().map(|(key, _)| key).skip_while(|key| *key < first).filter(|key| {
            // Its socket is a publisher's.
            self.conns.get(*key).is_some_and(|conn| !conn.handed_over)
        });
        let sessions: Vec<_> = keys.by_ref().take(PAGE).filter_map(|key| self.facts(self.conns.get(key)?, now).into()).collect();
        Page { sessions, next: keys.next() }
    }

    /// What happened to a session.
    pub(super) fn story(&self, now: Instant, session: u64) -> Option<SessionStory> {
        let (_, conn) = self.conns.iter().find(|(_, conn)| conn.session == session)?;
        Some(SessionStory { facts: self.facts(conn, now), steps: conn.timeline.steps(), ended: None })
    }

    /// Ends a session by its number; whether there was one.
    pub(super) fn kick(&mut self, session: u64) -> bool {
        let Some(key) = self.conns.iter().find_map(|(key, conn)| (conn.session == session).then_some(key)) else { return false };
        self.close(key, EndCause::Kicked.label(), EndCause::Kicked.to_string());
        true
    }

    /// Keeps a session that has ended for those who ask later. Those that only asked for a description or a report are not kept.
    pub(super) fn keep_ended(&self, conn: &mut Conn, now: Instant, reason: &str) {
        conn.step(now, format!("it is over: {reason}"));
        let mut facts = self.facts(conn, now);
        facts.end = Some(reason.to_owned());
        if self.context.news.0.receiver_count() > 0 {
            // Nobody may be left to hear it.
            let _ = self.context.news.0.send(SessionEvent::Ended(Arc::new(facts.clone())));
        }
        self.context.ended.add((self.context.wall_clock)(), facts, std::mem::take(&mut conn.timeline));
    }

    /// Tells those who listen that a session was sent its first packet.
    pub(super) fn tell_first_packet(&mut self, key: usize, now: Instant) {
        self.ticket_has_media(key, now);
        self.udp_was_sent(key, now);
        if self.context.news.0.receiver_count() > 0
            && let Some(conn) = self.conns.get(key)
        {
            let _ = self.context.news.0.send(SessionEvent::Plays(Arc::new(self.facts(conn, now))));
        }
    }

    fn facts(&self, conn: &Conn, now: Instant) -> SessionFacts {
        let account = conn.engine.account();
        let (plays, (packets, bytes, skipped)) = match (&conn.place, &conn.opened) {
            (Place::Parked(viewer), _) => (false, (viewer.hot.packets, viewer.bytes(), viewer.cold.skipped)),
            (Place::OnDemand(seat), _) => (true, (seat.viewer.hot.packets, seat.viewer.bytes(), seat.viewer.cold.skipped)),
            (Place::Seat(index), Some(opened)) => {
                let seats = self.broadcasts.get(opened.channel).map(|broadcast| &broadcast.viewers);
                (true, seats.and_then(|seats| seats.sent(*index)).unwrap_or_default())
            }
            (Place::Download(_), _) => (true, (0, 0, 0)),
            _ => (false, (0, 0, 0)),
        };
        let asked = conn.engine.name().map(|name| masked(&name.escape_debug().to_string()));
        SessionFacts {
            session: conn.session,
            protocol: conn.engine.protocol(),
            transport: conn.transport(),
            peer: conn.peer,
            local: SocketAddr::new(conn.local.ip().to_canonical(), conn.local.port()),
            point: conn.opened.as_ref().map(|opened| opened.point.name().to_owned()),
            name: asked,
            player: account.player,
            lasts: now.saturating_duration_since(conn.accepted),
            plays,
            client_ports: (conn.leases.iter().chain(conn.resend_path.iter().flat_map(|path| &path.leases)))
                .map(crate::relay::admission::Lease::port)
                .collect(),
            packets,
            bytes: bytes + conn.downloaded,
            skipped,
            resends_asked: account.resends_asked,
            resends_granted: account.resends_granted,
            report: account.client_report,
            end: None,
        }
    }
}
