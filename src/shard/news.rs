//! What reaches a shard from outside, and how sessions end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::command::Command;
use super::conn::{Conn, Opened, Place, channel_of};
use super::engine::{Engine, Event};
use super::state::State;
use crate::http::viewer as http;
use crate::metrics as names;
use crate::mms::media::HEAD_LEN;
use crate::relay::{Delivery, Fault, Generation, PointId};
use crate::settings::{Oversize, Source};
use crate::viewing::{Answer, OpenRefusal};
use crate::wire::Hresult;

/// Time from the end of the stream to the close when the daemon stops.
pub(super) const FAREWELL: Duration = Duration::from_millis(900);
/// Why a viewer is refused whose publishing point sends nothing.
const NO_SOURCE: &str = "its source is not there";
/// A TCP viewer that takes no byte for this long is gone.
const STALLED: Duration = Duration::from_secs(60);

impl State {
    /// Takes in what a publishing point tells.
    pub(super) fn deliver(&mut self, now: Instant, delivery: Delivery) {
        match delivery {
            Delivery::Batch { point, batch } => {
                let tick = self.context.settings.delivery.tick;
                let Some(broadcast) = self.broadcast(channel_of(point)) else { return };
                let watched_in_part = !broadcast.variants.is_empty();
                broadcast.push(now, tick, Arc::clone(&batch));
                if watched_in_part {
                    self.push_to_variants(channel_of(point), now, tick, &batch);
                }
                self.pump_wake.notify_one();
            }
            Delivery::Generation { point, generation } => {
                self.warn_of_oversize(point, &generation);
                let Some(broadcast) = self.broadcast(channel_of(point)) else { return };
                broadcast.ended = false;
                broadcast.generation = Some(Arc::clone(&generation));
                for channel in broadcast.variants.clone() {
                    if let Some(variant) = self.broadcast(channel) {
                        variant.ended = false;
                        variant.generation = Some(Arc::clone(&generation));
                    }
                }
                for key in self.who_waits(point) {
                    let answer = self.opened(key, &generation);
                    self.drive(key, now, Event::Answer(answer));
                }
            }
            Delivery::SourceLost { .. } => {}
            // The vacancy is dropped behind this: only then is the publishing point free for another name.
            Delivery::Vacated { point, .. } => self.vacate(channel_of(point)),
            Delivery::Ended { point } => {
                self.end_files(point, now);
                let Some(broadcast) = self.broadcast(channel_of(point)) else { return };
                broadcast.end(now);
                for channel in broadcast.variants.clone() {
                    if let Some(variant) = self.broadcast(channel) {
                        variant.end(now);
                    }
                }
                for key in self.who_waits(point) {
                    self.waited_in_vain(key, now);
                }
                self.pump_wake.notify_one();
            }
        }
    }

    /// Ends the viewers of files of a publishing point that is gone. Downloads go on to their end.
    fn end_files(&mut self, point: PointId, now: Instant) {
        let is_it = |conn: &Conn| {
            matches!(conn.place, Place::OnDemand(_)) && conn.opened.as_ref().is_some_and(|opened| opened.point.id() == point)
        };
        let keys: Vec<usize> = self.conns.iter().filter(|(_, conn)| is_it(conn)).map(|(key, _)| key).collect();
        for key in keys {
            self.tell_next_sequence(key, now);
            self.drive(key, now, Event::Answer(Answer::Ended));
            self.park(key);
        }
    }

    /// Takes the connections that still wait for the first header of a publishing point.
    fn who_waits(&mut self, point: PointId) -> Vec<usize> {
        let waiting =
            self.broadcast(channel_of(point)).map(|broadcast| std::mem::take(&mut broadcast.waiting)).unwrap_or_default();
        let mut keys: Vec<usize> = waiting.into_iter().map(|(key, _)| key).collect();
        keys.retain(|key| {
            let opened = self.conns.get(*key).and_then(|conn| conn.opened.as_ref());
            opened.is_some_and(|opened| opened.point.id() == point && opened.generation.is_none())
        });
        keys
    }

    /// No header came for a viewer that waits for one.
    fn waited_in_vain(&mut self, key: usize, now: Instant) {
        if let Some(conn) = self.conns.get_mut(key) {
            // It is no longer a reason for the source to run.
            let opened = conn.opened.take();
            conn.refused_because(why_nothing(opened.as_ref(), now));
        }
        metrics::counter!(names::REFUSALS, "cause" => "no_source").increment(1);
        self.drive(key, now, Event::Answer(Answer::Opened(Err(OpenRefusal::Status(Hresult::NO_STREAM)))));
    }

    /// Refuses viewers that have waited for the header of a source for as long as viewers wait for one that is gone.
    fn refuse_late_sources(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (channel, broadcast) in self.broadcasts.iter_mut() {
            broadcast.waiting.retain(|(key, since)| {
                let opened = self.conns.get(*key).and_then(|conn| conn.opened.as_ref());
                // It may have opened something else since.
                let opened = opened.filter(|opened| channel_of(opened.point.id()) == channel && opened.generation.is_none());
                let Some(opened) = opened else { return false };
                let timeout = opened.point.settings().source_timeout;
                let is_late = timeout.is_some_and(|timeout| now.saturating_duration_since(*since) >= timeout);
                if is_late {
                    late.push(*key);
                }
                !is_late
            });
        }
        for key in late {
            self.waited_in_vain(key, now);
        }
    }

    /// One shard says it for all: packets as they come to viewers do not fit a datagram. Where the settings let such
    /// sources be cut anew their packets are small by now, and the publisher has told of it.
    fn warn_of_oversize(&self, point: PointId, generation: &Generation) {
        let udp = &self.context.settings.udp;
        let datagram = generation.packet_size + HEAD_LEN;
        if self.index != 0 || !udp.enabled || datagram <= udp.max_datagram_v4 {
            return;
        }
        let point = self.context.relay.by_id(point);
        let name = point.as_ref().map_or("?", |point| point.name());
        let room = udp.max_datagram_v4.saturating_sub(HEAD_LEN);
        let what = match udp.oversize {
            // With `recut` only those whose header could not be made anew.
            Oversize::Recut | Oversize::Fragment => "they go to UDP viewers as IP fragments, which some firewalls drop",
            Oversize::Refuse => "its viewers get TCP only",
        };
        tracing::warn!(
            point = name,
            packet_size = generation.packet_size,
            "packets of this source do not fit a datagram: {what}; encode with -packet_size {} or less",
            room.min(1400)
        );
    }

    /// Carries out a command from outside of the shard.
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Delivery(delivery) => self.deliver(now, delivery),
            Command::Datagram { conn, client_id, bytes, pending } => {
                pending.fetch_sub(1, Ordering::Relaxed);
                if self.is(conn, client_id) {
                    self.drive(conn, now, Event::Datagram(&bytes));
                }
            }
            Command::Report { conn, client_id, report, pending } => {
                pending.fetch_sub(1, Ordering::Relaxed);
                if self.is(conn, client_id) {
                    self.look_at_report(conn, now, &report);
                }
            }
            Command::End { conn, client_id, why } => {
                if self.is(conn, client_id) {
                    self.close(conn, why.label(), why.to_string());
                }
            }
            Command::Unreached { conn, client_id, is_settled } => {
                if self.is(conn, client_id) {
                    self.look_at_icmp(conn, now, is_settled);
                }
            }
            Command::Fragment { conn: key, client_id } => {
                if self.is(key, client_id) {
                    self.fragment(key);
                }
            }
            Command::FileOpened { conn, client_id, request, result } => {
                if self.is(conn, client_id) {
                    self.file_opened(conn, now, request, result);
                }
            }
            Command::Found { conn, client_id, request, found } => {
                if self.is(conn, client_id) {
                    self.found(conn, now, request, found);
                }
            }
            Command::Located { conn, client_id, request, seek, result } => {
                if self.is(conn, client_id) {
                    self.located(conn, now, request, seek, result);
                }
            }
            Command::Came { conn, client_id } => {
                if self.is(conn, client_id) {
                    self.serve_title(conn, now);
                }
            }
            Command::BytesOpened { conn, client_id, request, result } => {
                if self.is(conn, client_id) {
                    self.bytes_opened(conn, now, request, result);
                }
            }
            Command::BytesRead { conn, client_id, request, result } => {
                if self.is(conn, client_id) {
                    self.bytes_read(conn, now, request, result);
                }
            }
            Command::BlockRead { conn, client_id, request, result } => {
                if self.is(conn, client_id) {
                    self.block_read(conn, now, request, result);
                }
            }
            // Who asked may have gone.
            Command::Survey { first, reply } => drop(reply.send(self.survey(now, first))),
            Command::Tell { session, reply } => drop(reply.send(self.story(now, session))),
            Command::Kick { session, reply } => drop(reply.send(self.kick(session))),
            Command::Drain(order) => self.drain(order),
            Command::Stop => {
                self.stopping = Some(now);
                self.end_all(now, "stopped", "the daemon stops");
            }
            Command::Connection(_) => {}
        }
    }

    /// Who plays gets the end of the stream, all others go. Who is being told the end already has until [`FAREWELL`] for it.
    pub(super) fn end_all(&mut self, now: Instant, label: &'static str, text: &'static str) {
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.conns.get(key) else { continue };
            if matches!(conn.place, Place::Seat(_) | Place::OnDemand(_)) || conn.engine.owes_end() {
                self.tell_next_sequence(key, now);
                self.drive(key, now, Event::Answer(Answer::Ended));
            } else {
                self.close(key, label, text);
            }
        }
    }

    /// Keys are used again: a command that comes late must not meet another session.
    fn is(&self, key: usize, client_id: u32) -> bool {
        self.conns.get(key).is_some_and(|conn| conn.entry.client_id() == client_id)
    }

    /// Ends viewers that take nothing any more, and all that are left a moment after a stop.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.refuse_late_sources(now);
        self.sweep_drained(now);
        self.sweep_mute(now);
        let stopped = self.stopping.is_some_and(|since| now.saturating_duration_since(since) >= FAREWELL);
        let keys: Vec<usize> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(conn) = self.conns.get(key) else { continue };
            let (blocked, written) = (self.is_blocked(conn), conn.out.written_bytes() + self.packets_sent(conn));
            let Some(conn) = self.conns.get_mut(key) else { continue };
            if written != conn.progress.0 || conn.out.is_empty() && !blocked {
                conn.progress = (written, now);
            } else if now.saturating_duration_since(conn.progress.1) > STALLED {
                self.close(key, "stalled", "stopped reading");
            }
            if stopped {
                self.close(key, "stopped", "the daemon stops");
            }
        }
        let expired = self.http_sessions.borrow_mut().expire(now);
        for expired in expired {
            self.tell_of_expired(&expired);
            // It may be there again under the same number.
            if !self.http_sessions.borrow().holds(expired.client_id) {
                self.http_homes.remove(&expired.client_id);
            }
        }
        let mut sessions = self.rtsp_sessions.borrow_mut();
        sessions.sweep(now);
        self.rtsp_homes.retain(|client_id, _| sessions.holds(*client_id));
        drop(sessions);
        self.tell_of_visits(now, false);
    }

    /// Takes a connection out and writes the session's one line.
    pub(super) fn remove(&mut self, key: usize, now: Instant) {
        self.park(key);
        self.end_visit(key, now);
        self.end_udp_trial(key, now);
        let Some(mut conn) = self.conns.try_remove(key) else { return };
        // Its session, where that outlives it, plays here no more.
        let next = match (&conn.place, &conn.opened) {
            (Place::Parked(viewer), Some(Opened { title: Some(_), .. })) => u32::try_from(viewer.hot.next.packet).ok(),
            _ => None,
        };
        let _ = conn.engine.handle(now, Event::Left(next));
        if let Some(opened) = &conn.opened
            && let Some(broadcast) = self.broadcasts.get_mut(channel_of(opened.point.id()))
        {
            broadcast.waiting.retain(|(waiting, _)| *waiting != key);
        }
        self.counters.connections.decrement(1.0);
        let reason = conn.end_reason();
        self.counters.ended(conn.closing.as_ref().map_or("closed_by_player", |ending| ending.label));
        let (packets, bytes, skipped) = match &conn.place {
            Place::Parked(viewer) => (viewer.hot.packets, viewer.bytes(), viewer.cold.skipped),
            _ => (0, 0, 0),
        };
        let is_play = matches!(conn.engine, Engine::Mms(_)) || bytes + conn.downloaded > 0;
        if conn.handed_over {
            tracing::debug!(session = conn.session, peer = %conn.peer, reason, "handed over");
        } else if !is_play && conn.closing.as_ref().is_some_and(|ending| ending.label == http::CloseReason::Done.label()) {
            // A description, a playlist, a report: of a session whose line is another connection's, or of none.
            tracing::debug!(session = conn.session, peer = %conn.peer, reason, "answered");
        } else {
            Self::tell_of_end(&conn, now, (packets, bytes, skipped), &reason);
            self.keep_ended(&mut conn, now, &reason);
        }
        let client_id = conn.entry.client_id();
        if self.http_sessions.borrow().holds(client_id) {
            // Further connections of that session are to find here.
            self.http_homes.insert(client_id, conn.entry);
        } else if self.rtsp_sessions.borrow().holds(client_id) {
            self.rtsp_homes.insert(client_id, conn.entry);
        }
    }

    /// The one line of a session.
    fn tell_of_end(conn: &Conn, now: Instant, (packets, bytes, skipped): (u64, u64, u64), reason: &str) {
        let account = conn.engine.account();
        tracing::info!(
            session = conn.session,
            peer = %conn.peer,
            protocol = conn.engine.protocol(),
            transport = conn.transport(),
            point = conn.opened.as_ref().map_or("", |opened| opened.point.name()),
            name = %conn.opened.as_ref().map_or("", |opened| &opened.name).escape_debug(),
            player = account.player,
            seconds = now.saturating_duration_since(conn.accepted).as_secs(),
            packets,
            bytes = bytes + conn.downloaded,
            skipped,
            resends_asked = account.resends_asked,
            resends_granted = account.resends_granted,
            client_report = account.client_report,
            reason,
            "session ended"
        );
    }
}

/// Why a publishing point sends nothing, for who wanted to see it.
pub(super) fn why_nothing(opened: Option<&Opened>, now: Instant) -> String {
    let Some(Opened { point, .. }) = opened else { return NO_SOURCE.to_owned() };
    let is_pushed = matches!(point.settings().source, Source::Push);
    match point.source_health().last_fault {
        None if is_pushed => "nobody publishes it".to_owned(),
        None => "nothing came of its source in time".to_owned(),
        Some(Fault { reason, at, in_a_row }) => {
            let row = if in_a_row > 1 { format!(", {in_a_row} times in a row") } else { String::new() };
            let ago = now.saturating_duration_since(at).as_secs();
            format!("its source failed {ago} s ago{row}: {reason}")
        }
    }
}
