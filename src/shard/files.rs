//! Files on demand: opening, seeking and serving, as far as a shard has its part in it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::Instant as Clock;

use super::command::Command;
use super::conn::{Conn, Opened, Place};
use super::engine::Event;
use super::file_feed::FileFeed;
use super::file_pace::{FilePace, Speed, Wish};
use super::framing::Framing;
use super::opening::{End, Opening};
use super::relayed::Relayed;
use super::seat::{self, Feed, OnDemandSeat, Served, Title};
use super::stage::Blocked;
use super::state::State;
use super::timeline::FIRST_PACKET;
use super::viewer::Full;
use crate::archive::{AsfFile, Block, OpenError, ReadError, Start, Wake};
use crate::asf::Selection;
use crate::metrics as names;
use crate::mms::media::HEAD_LEN;
use crate::relay::Point;
use crate::settings::{Oversize, Source};
use crate::viewing::{Answer, Description, OpenRefusal};
use crate::viewing::{Position, Until};
use crate::wire::Hresult;

/// How long a turn over the viewers of files goes on before it lets others in.
const TURN: Duration = Duration::from_millis(1);
/// Time for a full socket buffer to drain a little.
const ROOM: Duration = Duration::from_millis(1);

/// Searches of one session that go on at once: one that waits for others must not hold up the next.
const MOST_SEARCHES: u8 = 2;

/// How a play is to be: its incarnation, its end, its begin's speed.
pub(super) type Wanted = (u8, Option<Until>, Wish);

/// A play that waits for its place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seek {
    /// Where to, for the log.
    asked: Start,
    incarnation: u8,
    until: Option<End>,
    wish: Wish,
}

impl State {
    /// Opens a file of an on-demand publishing point; the answer comes when a reader has done it.
    pub(super) fn open_file(&mut self, key: usize, point: Arc<Point>, below: &str, name: &str) -> Option<Answer> {
        let settings = point.settings();
        let Source::Files { root } = &settings.source else {
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
        self.drive(key, now, Event::Answer(answer));
    }

    fn file_answer(&mut self, key: usize, result: Result<Arc<AsfFile>, OpenError>) -> Answer {
        let refused = |hr| Answer::Opened(Err(OpenRefusal::Status(hr)));
        let Some(conn) = self.conns.get(key) else { return refused(Hresult::NO_STREAM) };
        let Some(opened) = &conn.opened else { return refused(Hresult::INVALID_REQUEST) };
        let file = match result {
            Ok(file) => file,
            Err(error) => return refused(self.not_opened(key, &error)),
        };
        let recut_size = match self.recut_size(conn, &opened.name, file.description().header.packet_size()) {
            Ok(size) => size,
            Err(refusal) => return Answer::Opened(Err(refusal)),
        };
        let opening = self.opening(file, recut_size);
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let (Some(opened), Some(permit)) = (&mut conn.opened, &mut conn.permit) else {
            return refused(Hresult::INVALID_REQUEST);
        };
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.account(), opening.bit_rate()) {
            return refused(self.refused(key, refusal));
        }
        let description = Description { ssrc: opened.flow.ssrc, ..opening.describe() };
        opened.generation = Some(0);
        opened.header_bytes = opening.header.len();
        opened.packet_size = opening.packet_size;
        conn.selection = Selection::all(description.streams);
        opened.title = Some(Title::File(opening));
        Answer::Opened(Ok(description))
    }

    /// Notes for the metrics and the log why a file does not open; the protocols' word for it.
    pub(super) fn not_opened(&mut self, key: usize, error: &OpenError) -> Hresult {
        let conn = self.conns.get_mut(key);
        let tries_on = matches!(error, OpenError::NotFound) && conn.as_ref().is_some_and(|conn| conn.engine.tries_bare_name());
        if let Some(conn) = conn.filter(|_| !tries_on) {
            conn.refused_because(error);
            metrics::counter!(names::REFUSALS, "cause" => cause(error)).increment(1);
            let name = conn.opened.as_ref().map_or("", |opened| &opened.name).escape_debug();
            tracing::info!(session = conn.session, peer = %conn.peer, %name, "not opened: {error}");
        }
        match error {
            OpenError::Denied => Hresult::ACCESS_DENIED,
            _ => Hresult::FILE_NOT_FOUND,
        }
    }

    /// The size that packets of this size are cut to for a session; `None`: they stay as they are.
    ///
    /// # Errors
    /// They do not fit a datagram, and are to go over TCP: there it may come again.
    pub(super) fn recut_size(&self, conn: &Conn, name: &str, packet_size: usize) -> Result<Option<usize>, OpenRefusal> {
        let udp = &self.context.settings.udp;
        let fits = conn.route.is_none() || conn.udp.as_ref().is_none_or(|port| port.fits(packet_size + HEAD_LEN));
        match udp.oversize {
            _ if fits => Ok(None),
            Oversize::Fragment => Ok(None),
            Oversize::Recut => Ok(Some(udp.recut_size())),
            Oversize::Refuse => {
                metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
                Err(OpenRefusal::Redirect(conn.over_tcp(name)))
            }
        }
    }

    /// What all viewers share who are given a file in packets of the same size.
    fn opening(&mut self, file: Arc<AsfFile>, recut_size: Option<usize>) -> Rc<Opening> {
        let mut same = self.openings.iter().filter(|(size, _)| *size == recut_size).filter_map(|(_, opening)| opening.upgrade());
        if let Some(opening) = same.find(|opening| Arc::ptr_eq(&opening.file, &file)) {
            return opening;
        }
        self.openings.retain(|(_, opening)| opening.strong_count() > 0);
        let opening = Rc::new(Opening::new(file, recut_size));
        self.openings.push((recut_size, Rc::downgrade(&opening)));
        opening
    }

    /// Begins a play of what is on demand.
    pub(super) fn play_title(&mut self, key: usize, now: Instant, place: Position, wanted: Wanted) {
        self.park(key);
        match self.conns.get(key).and_then(|conn| conn.opened.as_ref()?.title.clone()) {
            Some(Title::File(opening)) => self.play_file(key, &opening, place, wanted),
            Some(Title::Relayed(relayed)) => self.play_relayed(key, now, &relayed, place, wanted),
            None => {}
        }
    }

    /// Asks the upstream to play from a place on, and seats the viewer for what comes.
    fn play_relayed(&mut self, key: usize, now: Instant, relayed: &Rc<Relayed>, place: Position, wanted: Wanted) {
        let Some(conn) = self.conns.get(key) else { return };
        let (incarnation, until, wish) = wanted;
        let feed = Relayed::play(relayed, place, until, conn.selection, conn.route.is_some());
        let (rate, size) = (relayed.bit_rate(), relayed.packet_size);
        let speed = Speed::new(&self.context.settings, wish, conn.route.is_some(), rate, size);
        self.seat(key, now, Feed::Relayed(feed), speed, incarnation, 0);
    }

    /// Seats a viewer for a play that begins with packet `from`.
    fn seat(&mut self, key: usize, now: Instant, feed: Feed, speed: Speed, incarnation: u8, from: u64) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let mut viewer = conn.take_viewer(key);
        viewer.start(incarnation, 0, feed.packet_size());
        viewer.cold.track.jump(&mut viewer.hot.next, from);
        self.counters.viewers(&viewer.hot).increment(1.0);
        conn.place = Place::OnDemand(Box::new(OnDemandSeat::new(now, viewer, feed, FilePace::new(now, speed))));
        // The media follows the report that is still in the queue.
        self.flush(key, now);
    }

    /// Goes on behind the last packet that was sent.
    pub(super) fn resume_title(&mut self, key: usize, now: Instant, incarnation: u8, until: Option<Until>) {
        self.park(key);
        let Some(conn) = self.conns.get(key) else { return };
        let Place::Parked(viewer) = &conn.place else {
            return self.play_title(key, now, Position::Time(0), (incarnation, until, Wish::default()));
        };
        let next = viewer.hot.next.packet;
        match conn.opened.as_ref().and_then(|opened| opened.title.clone()) {
            Some(Title::File(opening)) => {
                let (rate, size) = (opening.bit_rate(), opening.packet_size);
                let speed = Speed::new(&self.context.settings, Wish::default(), conn.route.is_some(), rate, size);
                let feed = FileFeed::new(Rc::clone(&opening), conn.selection, next, until.map(|until| opening.until(until)));
                self.seat(key, now, Feed::File(Box::new(feed)), speed, incarnation, next);
            }
            Some(Title::Relayed(relayed)) => {
                let place = Position::Packet(u32::try_from(next).unwrap_or(u32::MAX));
                self.play_relayed(key, now, &relayed, place, (incarnation, until, Wish::default()));
            }
            None => {}
        }
    }

    /// Looks for the place where a play begins; the viewer takes its seat when a reader has found it.
    fn play_file(&mut self, key: usize, opening: &Rc<Opening>, place: Position, seek: Wanted) {
        let mailbox = self.context.mailbox(self.index).clone();
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.request += 1;
        if conn.searches >= MOST_SEARCHES {
            // A search may be long, and a player may ask for another place fifty times a second: the last one counts.
            conn.next_search = Some((conn.request, place, seek));
            return;
        }
        conn.searches += 1;
        let wanted = Arc::downgrade(conn.wanted.insert(Arc::default()));
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        let (incarnation, until, wish) = seek;
        let until = until.map(|until| opening.until(until));
        let start = match place {
            Position::Time(ms) => Start::Time { ms: opening.media_ms(ms) },
            Position::Packet(packet) => Start::Packet(opening.source_packet(packet.into())),
            Position::Offset(offset) => Start::Packet(opening.packet_at(offset.into())),
        };
        let seek = Seek { asked: start, incarnation, until, wish };
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
        conn.searches -= 1;
        let wanted = conn.request;
        if let Some((_, place, seek)) = conn.next_search.take().filter(|(request, ..)| *request == wanted) {
            return self.play_title(key, now, place, seek);
        }
        if wanted != request {
            return;
        }
        let Some(Title::File(opening)) = conn.opened.as_ref().and_then(|opened| opened.title.clone()) else { return };
        let packet = match result {
            Ok(packet) => packet,
            Err(error) => return self.title_broken(key, now, error.to_string()),
        };
        let name = conn.opened.as_ref().map_or("", |opened| &opened.name).escape_debug();
        tracing::debug!(session = conn.session, %name, asked = ?seek.asked, packet, "plays from here on");
        let (rate, size) = (opening.bit_rate(), opening.packet_size);
        let speed = Speed::new(&self.context.settings, seek.wish, conn.route.is_some(), rate, size);
        let from = opening.first_part(packet);
        let feed = FileFeed::new(opening, conn.selection, from, seek.until);
        self.seat(key, now, Feed::File(Box::new(feed)), speed, seek.incarnation, from);
    }

    /// Another selection from here on, also for what plays.
    pub(super) fn select(&mut self, key: usize, selection: Selection) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.selection = selection;
        match &mut conn.place {
            Place::OnDemand(seat) => seat.select(selection),
            Place::Seat(_) => self.reselect(key, selection),
            // What was sent of a file is cut by the selection when it is sent again.
            Place::Parked(viewer) => viewer.cold.track.forget(&viewer.hot.next),
            Place::Nowhere | Place::Download(_) => {}
        }
    }

    /// A block that a viewer asked for has been read, or cannot be.
    pub(super) fn block_read(&mut self, key: usize, now: Instant, request: u64, result: Result<Arc<Block>, ReadError>) {
        // Of the play that goes on: the one before may have been of another file.
        let conn = self.conns.get_mut(key).filter(|conn| conn.request == request);
        let Some(Place::OnDemand(seat)) = conn.map(|conn| &mut conn.place) else { return };
        let Feed::File(feed) = &mut seat.feed else { return };
        match result {
            Ok(block) => {
                feed.take_block(block);
                self.serve_title(key, now);
            }
            // Asked for once more it would fail once more.
            Err(error) => self.title_broken(key, now, error.to_string()),
        }
    }

    /// Sends a viewer of what is on demand what is due, and arranges for the rest.
    pub(super) fn serve_title(&mut self, key: usize, now: Instant) {
        let mailbox = self.context.mailbox(self.index);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Place::OnDemand(seat) = &mut conn.place else { return };
        if seat.viewer.hot.blocked {
            return;
        }
        let (client_id, request) = (conn.entry.client_id(), conn.request);
        let wake = || -> Wake {
            let mailbox = mailbox.clone();
            Box::new(move |result| {
                mailbox.send(Command::BlockRead { conn: key, client_id, request, result });
            })
        };
        let tick = self.context.settings.delivery.tick;
        let mut turn = seat::Turn { now, tick, most: 0, framing: Framing::Mms, tally: &mut self.tally, wake: &wake };
        let served = seat.serve(&mut turn, &self.origins, &mut self.stage);
        let incarnation = seat.viewer.hot.next.incarnation;
        if !seat.viewer.cold.joined && seat.viewer.hot.packets > 0 {
            seat.viewer.cold.joined = true;
            conn.timeline.note(now.saturating_duration_since(conn.accepted), FIRST_PACKET);
            self.counters.joined(&seat.viewer.hot, conn.opened.as_ref().map_or("", |opened| opened.point.name()));
            self.counters.join_seconds.record(now.saturating_duration_since(conn.accepted).as_secs_f64());
            self.tell_first_packet(key, now);
        }
        let Some(conn) = self.conns.get_mut(key) else { return };
        match served {
            Err(error) => self.close(key, "connection_lost", format!("connection lost: {error}")),
            Ok(Served::Until(at)) => self.schedule(key, Some(at)),
            Ok(Served::Waiting) => self.schedule(key, None),
            Ok(Served::Cued(cue)) => {
                self.schedule(key, Some(now));
                self.drive(key, now, Event::Answer(Answer::Cued(cue)));
            }
            Ok(Served::Blocked(Blocked::Udp(full))) => {
                if full == Full::Socket {
                    self.files_rest = Some(now + ROOM);
                }
                self.schedule(key, Some(now + ROOM));
            }
            Ok(Served::Blocked(Blocked::Tcp(partial))) => {
                conn.out.keep(partial);
                conn.wake.notify_one();
                self.schedule(key, None);
            }
            Ok(Served::Finished) => {
                // First of all it leaves its seat: whatever its engine says to that, there is nothing left to send.
                self.park(key);
                self.tell_next_sequence(key, now);
                self.drive(key, now, Event::Answer(Answer::Finished { incarnation }));
            }
            Ok(Served::Broken(reason)) => self.title_broken(key, now, reason),
        }
    }

    /// What a session plays is no longer what it was.
    fn title_broken(&mut self, key: usize, now: Instant, reason: String) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.trouble = Some(reason);
        }
        self.park(key);
        self.drive(key, now, Event::Answer(Answer::Broken));
    }

    /// Notes when a viewer of a file is served next.
    pub(super) fn schedule(&mut self, key: usize, at: Option<Instant>) {
        let due = match self.conns.get_mut(key).map(|conn| &mut conn.place) {
            Some(Place::OnDemand(seat)) => &mut seat.due,
            Some(Place::Download(download)) => &mut download.due,
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

    /// When the first viewer of a file is due.
    pub(super) fn next_file(&self) -> Option<Instant> {
        let (at, _) = self.file_timers.first()?;
        Some((*at).max(self.files_rest.unwrap_or(*at)))
    }

    /// Serves the viewers of files that are due, for about a millisecond; true when more are.
    pub(super) fn file_turn(&mut self) -> bool {
        let mut now = Clock::now().into_std();
        let until = now + TURN;
        // Where a socket is full each of them would only find out the same.
        self.files_rest = self.files_rest.filter(|rest| *rest > now);
        while self.files_rest.is_none()
            && let Some((at, key)) = self.file_timers.first().copied().filter(|(at, _)| *at <= now)
        {
            self.file_timers.remove(&(at, key));
            match self.conns.get_mut(key).map(|conn| &mut conn.place) {
                Some(Place::OnDemand(seat)) => {
                    seat.due = None;
                    self.serve_title(key, now);
                }
                Some(Place::Download(download)) => {
                    download.due = None;
                    self.serve_download(key, now);
                }
                _ => {}
            }
            now = Clock::now().into_std();
            if now >= until {
                return self.next_file().is_some_and(|at| at <= now);
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
