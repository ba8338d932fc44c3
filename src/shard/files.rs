//! Files on demand: opening, seeking and serving, as far as a shard has its part in it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::Instant as Clock;

use super::command::Command;
use super::conn::{Opened, Place};
use super::file_pace::{FilePace, Speed};
use super::file_seat::{End, FileSeat, FileServed, Opening};
use super::state::State;
use crate::archive::{AsfFile, Block, OpenError, ReadError, Start, Wake};
use crate::asf::Selection;
use crate::metrics as names;
use crate::mms::hresult::Hresult;
use crate::mms::media::HEAD_LEN;
use crate::mms::play::{self, Acceleration, Until};
use crate::mms::session::{Answer, Input, OpenRefusal};
use crate::relay::Point;
use crate::settings::{Oversize, Source};

/// How long a turn over the viewers of files goes on before it lets others in.
const TURN: Duration = Duration::from_millis(1);
/// Time for a full socket buffer to drain a little.
const ROOM: Duration = Duration::from_millis(1);

/// How a play is to be: its incarnation, its end, its begin's speed.
pub(super) type Wanted = (u8, Option<Until>, Option<Acceleration>);

/// A play that waits for its place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seek {
    /// Where to, for the log.
    asked: Start,
    incarnation: u8,
    until: Option<End>,
    acceleration: Option<Acceleration>,
}

impl State {
    /// Opens a file of an on-demand publishing point; the answer comes when a reader has done it.
    pub(super) fn open_file(&mut self, key: usize, point: Arc<Point>, below: &str, name: &str) -> Option<Answer> {
        let Source::Files { root } = &point.settings().source else {
            return Some(Answer::Opened(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND))));
        };
        let (mailbox, archive) = (self.context.mailbox(self.index).clone(), Arc::clone(&self.context.archive));
        let conn = self.conns.get_mut(key)?;
        conn.request += 1;
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        let root = root.clone();
        conn.opened = Some(Opened::new(point, name));
        archive.open(
            &root,
            below,
            Box::new(move |result| {
                mailbox.send(Command::FileOpened { conn: key, client_id, request, result });
            }),
        );
        None
    }

    /// A file was opened, or was not.
    pub(super) fn file_opened(&mut self, key: usize, now: Instant, request: u64, result: Result<Arc<AsfFile>, OpenError>) {
        if self.conns.get(key).is_none_or(|conn| conn.request != request) {
            return;
        }
        let answer = self.file_answer(key, result);
        if let (Some(conn), Answer::Opened(Err(_))) = (self.conns.get_mut(key), &answer) {
            conn.opened = None;
        }
        self.drive(key, now, Input::Answer(answer));
    }

    fn file_answer(&mut self, key: usize, result: Result<Arc<AsfFile>, OpenError>) -> Answer {
        let refused = |hr| Answer::Opened(Err(OpenRefusal::Status(hr)));
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let (Some(opened), Some(permit)) = (&mut conn.opened, &mut conn.permit) else {
            return refused(Hresult::INVALID_REQUEST);
        };
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                metrics::counter!(names::REFUSALS, "cause" => cause(&error)).increment(1);
                tracing::info!(session = conn.session, peer = %conn.peer, name = %opened.name.escape_debug(), "not opened: {error}");
                return refused(match error {
                    OpenError::Denied => Hresult::ACCESS_DENIED,
                    _ => Hresult::FILE_NOT_FOUND,
                });
            }
        };
        let udp = &self.context.settings.udp;
        let own_size = file.description().header.packet_size();
        let oversize = conn.route.is_some() && conn.udp.as_ref().is_some_and(|port| !port.fits(own_size + HEAD_LEN));
        if oversize && udp.oversize == Oversize::Refuse {
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
            return Answer::Opened(Err(OpenRefusal::Redirect(format!("mmst://{}/{}", conn.local, opened.name))));
        }
        let opening = Opening::new(file, (oversize && udp.oversize == Oversize::Recut).then(|| udp.recut_size()));
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.id(), opening.bit_rate()) {
            return refused(self.refused(key, refusal));
        }
        let description = opening.describe();
        opened.generation = Some(0);
        opened.header_bytes = opening.header.len();
        opened.packet_size = opening.packet_size;
        conn.selection = Selection::all(description.streams);
        opened.file = Some(Rc::new(opening));
        Answer::Opened(Ok(description))
    }

    /// Looks for the place where a play begins; the viewer takes its seat when a reader has found it.
    pub(super) fn play_file(&mut self, key: usize, place: play::Place, seek: Wanted) {
        self.park(key);
        let mailbox = self.context.mailbox(self.index).clone();
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(opening) = conn.opened.as_ref().and_then(|opened| opened.file.clone()) else { return };
        conn.request += 1;
        if let Some(wanted) = &mut conn.searching {
            // A search may be long, and a player may ask for another place fifty times a second: the last one counts, and
            // the search that is on its way may end early.
            *wanted = Arc::default();
            conn.next_search = Some((conn.request, place, seek));
            return;
        }
        let wanted = Arc::downgrade(conn.searching.insert(Arc::default()));
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        let (incarnation, until, acceleration) = seek;
        let until = until.map(|until| opening.until(until));
        let start = match place {
            play::Place::Time(ms) => Start::Time { ms: opening.media_ms(ms) },
            play::Place::Packet(packet) => Start::Packet(opening.source_packet(packet.into())),
            play::Place::Offset(offset) => Start::Packet(opening.packet_at(offset.into())),
        };
        let seek = Seek { asked: start, incarnation, until, acceleration };
        let all = opening.describe().streams;
        let streams = Some(conn.selection.streams).filter(|streams| *streams != all);
        opening.file.locate_while(
            wanted,
            start,
            streams,
            Box::new(move |result| {
                mailbox.send(Command::Located { conn: key, client_id, request, seek, result });
            }),
        );
    }

    /// The place was found: the play begins.
    pub(super) fn located(&mut self, key: usize, now: Instant, request: u64, seek: Seek, result: Result<u64, ReadError>) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.closing.is_none()) else { return };
        conn.searching = None;
        let wanted = conn.request;
        if let Some((_, place, seek)) = conn.next_search.take().filter(|(request, ..)| *request == wanted) {
            return self.play_file(key, place, seek);
        }
        if wanted != request {
            return;
        }
        let Some(opening) = conn.opened.as_ref().and_then(|opened| opened.file.clone()) else { return };
        let packet = match result {
            Ok(packet) => packet,
            Err(error) => return self.file_broken(key, now, &error),
        };
        let name = conn.opened.as_ref().map_or("", |opened| &opened.name).escape_debug();
        tracing::debug!(session = conn.session, %name, asked = ?seek.asked, packet, "plays from here on");
        let mut viewer = conn.take_viewer(key);
        viewer.start(seek.incarnation, 0, opening.packet_size);
        let speed =
            Speed::new(&self.context.settings, seek.acceleration, conn.route.is_some(), opening.bit_rate(), opening.packet_size);
        let pace = FilePace::new(now, speed);
        let from = opening.first_part(packet);
        self.counters.viewers(viewer.hot.link.label()).increment(1.0);
        conn.place = Place::File(Box::new(FileSeat::new(now, viewer, opening, conn.selection, from, pace, seek.until)));
        self.flush(key, now);
    }

    /// Another selection from here on, also for what plays.
    pub(super) fn select(&mut self, key: usize, selection: Selection) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.selection = selection;
        match &mut conn.place {
            Place::File(seat) => seat.select(selection),
            Place::Seat(_) => self.reselect(key, selection),
            Place::Relayed(_) => self.select_relayed(key),
            // What was sent of a file is cut by the selection when it is sent again.
            Place::Parked(viewer) => viewer.cold.track.forget(&viewer.hot.next),
            Place::Nowhere => {}
        }
    }

    /// A block that a viewer asked for has been read, or cannot be.
    pub(super) fn block_read(&mut self, key: usize, now: Instant, result: Result<Arc<Block>, ReadError>) {
        let Some(Place::File(seat)) = self.conns.get_mut(key).map(|conn| &mut conn.place) else { return };
        match result {
            Ok(block) => {
                seat.take_block(block);
                self.serve_file(key, now);
            }
            // Asked for once more it would fail once more.
            Err(error) => self.file_broken(key, now, &error),
        }
    }

    /// Sends a viewer of a file what is due, and arranges for the rest.
    pub(super) fn serve_file(&mut self, key: usize, now: Instant) {
        let mailbox = self.context.mailbox(self.index);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Place::File(seat) = &mut conn.place else { return self.serve_relayed(key, now) };
        if seat.viewer.hot.blocked {
            return;
        }
        let client_id = conn.entry.client_id();
        let wake = || -> Wake {
            let mailbox = mailbox.clone();
            Box::new(move |result| {
                mailbox.send(Command::BlockRead { conn: key, client_id, result });
            })
        };
        let tick = self.context.settings.delivery.tick;
        let served = seat.serve(now, tick, &self.origins, &mut self.tally, &mut self.stage, wake);
        if !seat.viewer.cold.joined && seat.viewer.hot.packets > 0 {
            seat.viewer.cold.joined = true;
            self.counters.joined(seat.viewer.hot.link.label(), conn.opened.as_ref().map_or("", |opened| opened.point.name()));
            self.counters.join_seconds.record(now.saturating_duration_since(conn.accepted).as_secs_f64());
        }
        match served {
            Err(error) => self.close(key, "connection_lost", format!("connection lost: {error}")),
            Ok(FileServed::Until(at)) => self.schedule(key, Some(at)),
            Ok(FileServed::Reading) => self.schedule(key, None),
            Ok(FileServed::UdpBlocked) => self.schedule(key, Some(now + ROOM)),
            Ok(FileServed::TcpBlocked(partial)) => {
                conn.out.keep(partial);
                conn.wake.notify_one();
                self.schedule(key, None);
            }
            Ok(FileServed::Finished) => {
                // First of all it leaves its seat: whatever its engine says to that, there is nothing left to send.
                let incarnation = seat.viewer.hot.next.incarnation;
                self.park(key);
                self.drive(key, now, Input::Answer(Answer::Finished { incarnation }));
            }
            Ok(FileServed::Broken(error)) => self.file_broken(key, now, &error),
        }
    }

    /// The file under a session is no longer what it was.
    fn file_broken(&mut self, key: usize, now: Instant, error: &ReadError) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.trouble = Some(error.to_string());
        }
        self.park(key);
        self.drive(key, now, Input::Answer(Answer::Broken));
    }

    /// Notes when a viewer of a file is served next.
    pub(super) fn schedule(&mut self, key: usize, at: Option<Instant>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let due = match &mut conn.place {
            Place::File(seat) => &mut seat.due,
            Place::Relayed(seat) => &mut seat.due,
            _ => return,
        };
        let before = std::mem::replace(due, at);
        if let Some(before) = before {
            self.file_timers.remove(&(before, key));
        }
        if let Some(at) = at {
            let first = self.file_timers.first().is_none_or(|(first, _)| at < *first);
            self.file_timers.insert((at, key));
            if first {
                self.pump_wake.notify_one();
            }
        }
    }

    /// Serves the viewers of files that are due, for about a millisecond; true when more are.
    pub(super) fn file_turn(&mut self) -> bool {
        let mut now = Clock::now().into_std();
        let until = now + TURN;
        while let Some((at, key)) = self.file_timers.first().copied().filter(|(at, _)| *at <= now) {
            self.file_timers.remove(&(at, key));
            match self.conns.get_mut(key).map(|conn| &mut conn.place) {
                Some(Place::File(seat)) => seat.due = None,
                Some(Place::Relayed(seat)) => seat.due = None,
                _ => {}
            }
            self.serve_file(key, now);
            now = Clock::now().into_std();
            if now >= until {
                return self.file_timers.first().is_some_and(|(at, _)| *at <= now);
            }
        }
        false
    }
}

/// The label in metrics.
const fn cause(error: &OpenError) -> &'static str {
    match error {
        OpenError::NotFound => "unknown_name",
        OpenError::Denied => "file_denied",
        OpenError::NotAFile => "not_a_file",
        OpenError::NotAsf(_) => "not_asf",
        OpenError::Io(_) => "file_unreadable",
    }
}

#[cfg(test)]
mod tests;
