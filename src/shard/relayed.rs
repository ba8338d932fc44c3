//! Files of an upstream: each viewer has a connection there, and is sent what comes from it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::watch;

use super::broadcast::{Link, Tally, Viewer};
use super::conn::{Opened, Place};
use super::file_pace::{FilePace, Speed};
use super::file_seat::{FileServed, Moment, Stage};
use super::inflow::{Inflow, Item};
use super::origins::Origins;
use super::pace::TICK;
use super::state::State;
use super::viewer::most_packets;
use crate::asf::{self, Header, OnDemandFacts, Recut, Selection};
use crate::metrics as names;
use crate::mms::client::{Course, StartAt};
use crate::mms::hresult::Hresult;
use crate::mms::media::HEAD_LEN;
use crate::mms::play::{self, Acceleration, Until};
use crate::mms::session::{Answer, Content, Description, Input, OpenRefusal};
use crate::relay::Point;
use crate::settings::Oversize;
use crate::wire::Guid;

/// Packets that can be sent again.
const RING: usize = 256;
/// Time for a full socket buffer to drain a little.
const ROOM: Duration = Duration::from_millis(1);

/// A file of an upstream, open for one viewer. The connection there ends when this is dropped.
#[derive(Debug)]
pub struct RelayedFile {
    /// The folder that it is below.
    pub folder: Arc<Point>,
    /// Header Object and the first 50 bytes of the Data Object, as the upstream sent them.
    pub header: Bytes,
    /// How long it plays, preroll not included, as the upstream says.
    pub duration_ms: u64,
    /// ASF packets, as the upstream says.
    pub packets: u64,
    /// What comes.
    pub inflow: Arc<Inflow>,
    /// What is to come.
    pub course: watch::Sender<Course>,
}

/// The same, as its viewer is given it: as it is, or cut anew.
pub(super) struct Relayed {
    file: RelayedFile,
    parsed: Header,
    recut: Option<Recut>,
    header: Bytes,
    packet_size: usize,
    /// Packets that were sent last.
    sent: RefCell<VecDeque<(u64, Bytes)>>,
}

impl Relayed {
    fn new(file: RelayedFile, recut_size: Option<usize>) -> Option<Self> {
        let parsed = Header::parse(&file.header).ok()?;
        let recut = recut_size.and_then(|size| Recut::new(&parsed, size));
        let packet_size = recut.as_ref().map_or(parsed.packet_size(), Recut::packet_size);
        let header = match &recut {
            None => file.header.clone(),
            Some(recut) => parsed.on_demand(&OnDemandFacts {
                packet_size,
                packets: file.packets.saturating_mul(recut.parts() as u64),
                play_duration_ms: file.duration_ms,
                send_duration_ms: file.duration_ms,
                seekable: true,
                file_id: Some(Guid(
                    Md5::new().chain_update(&file.header).chain_update(packet_size.to_le_bytes()).finalize().into(),
                )),
            }),
        };
        Some(Self { file, parsed, recut, header, packet_size, sent: RefCell::default() })
    }

    fn parts(&self) -> u64 {
        self.recut.as_ref().map_or(1, |recut| recut.parts() as u64)
    }

    fn describe(&self) -> Description {
        Description {
            header: self.header.clone(),
            packet_size: u32::try_from(self.packet_size).unwrap_or(u32::MAX),
            bit_rate: self.parsed.bit_rate(),
            streams: self.parsed.streams().iter().map(|stream| stream.number).collect(),
            content: Content::File {
                duration_ms: self.file.duration_ms,
                packets: self.file.packets.saturating_mul(self.parts()),
            },
        }
    }

    /// Where the upstream is to begin, for who counts as the viewer does.
    fn start(&self, place: play::Place) -> StartAt {
        let packet = |number: u64| StartAt::Packet(u32::try_from(number / self.parts()).unwrap_or(u32::MAX));
        match place {
            #[expect(clippy::cast_precision_loss, reason = "no content is 285,000 years long")]
            play::Place::Time(ms) => StartAt::Time { s: ms as f64 / 1000.0 },
            play::Place::Packet(number) => packet(number.into()),
            play::Place::Offset(offset) if self.recut.is_none() => StartAt::Offset(offset),
            play::Place::Offset(offset) => {
                packet(u64::from(offset).saturating_sub(self.header.len() as u64) / (self.packet_size as u64).max(1))
            }
        }
    }

    /// Hands what the viewer gets of one packet to `take`.
    fn cut(&self, location: u32, packet: Bytes, mut take: impl FnMut(u64, Bytes)) {
        let first = u64::from(location) * self.parts();
        let Some(recut) = &self.recut else { return take(first, packet) };
        let mut pieces = Vec::new();
        if let Ok(parts) = recut.recut(&packet, &mut pieces) {
            let pieces = Bytes::from(pieces);
            for part in 0..parts {
                take(first + part as u64, pieces.slice(part * self.packet_size..(part + 1) * self.packet_size));
            }
        }
    }

    /// Hands a packet that was sent before to `take`.
    pub(super) fn again(&self, number: u64, take: impl FnOnce(u64, &[u8])) {
        if let Some((_, packet)) = self.sent.borrow().iter().rev().find(|(sent, _)| *sent == number) {
            take(number, packet);
        }
    }
}

/// One viewer of a file of an upstream.
pub(super) struct RelayedSeat {
    pub(super) viewer: Viewer,
    relayed: Rc<Relayed>,
    /// Which play of its connection.
    play: u32,
    pace: FilePace,
    until: Option<Until>,
    /// What has come and is not due yet.
    next: Option<(u32, Bytes)>,
    /// What is due: number, when it was, the packet.
    ready: VecDeque<(u64, Instant, Bytes)>,
    free_since: Instant,
    /// When it is served next; kept by who has the clock.
    pub(super) due: Option<Instant>,
}

/// What came of serving such a viewer.
enum Came {
    Like(FileServed),
    Lost(String),
}

impl RelayedSeat {
    /// The viewer takes bytes again.
    pub(super) fn is_free(&mut self, now: Instant) {
        self.viewer.hot.blocked = false;
        self.free_since = now;
    }

    fn serve(&mut self, now: Instant, origins: &Origins, tally: &mut Tally, stage: &mut Stage) -> io::Result<Came> {
        let stride = self.relayed.packet_size + HEAD_LEN;
        loop {
            let most = most_packets(&self.viewer.hot.link, origins, stride).min(self.pace.packets(now)) as usize;
            if most == 0 {
                return Ok(Came::Like(FileServed::Until(now + TICK)));
            }
            let stopped = self.gather(now, most);
            let count = self.ready.len().min(most);
            if count == 0 {
                return Ok(stopped.unwrap_or(Came::Like(FileServed::Reading)));
            }
            stage.clear();
            for (number, due, packet) in self.ready.iter().take(count) {
                stage.push(*number, packet, *due);
            }
            let moment = Moment { now, free_since: self.free_since };
            let (begun, blocked) = stage.send(&mut self.viewer, moment, stride, 0..count, origins, tally)?;
            self.pace.sent(u32::try_from(begun).unwrap_or(u32::MAX), begun * stride);
            let mut sent = self.relayed.sent.borrow_mut();
            for (number, _, packet) in self.ready.drain(..begun.min(count)) {
                if sent.len() >= RING {
                    sent.pop_front();
                }
                sent.push_back((number, packet));
            }
            if let Some(blocked) = blocked {
                return Ok(Came::Like(blocked));
            }
        }
    }

    /// Takes what is due; tells why there is no more, where that is not for want of room.
    fn gather(&mut self, now: Instant, most: usize) -> Option<Came> {
        let relayed = Rc::clone(&self.relayed);
        while self.ready.len() < most {
            let (location, packet) = match self.next.take() {
                Some(next) => next,
                None => match relayed.file.inflow.pop(self.play) {
                    None => return Some(Came::Like(FileServed::Reading)),
                    // Looked at again once all before it has been sent.
                    Some(end @ (Item::End | Item::Lost(_))) if !self.ready.is_empty() => {
                        relayed.file.inflow.put_back(self.play, end);
                        return None;
                    }
                    Some(Item::End) => return Some(Came::Like(FileServed::Finished)),
                    Some(Item::Lost(reason)) => return Some(Came::Lost(reason)),
                    Some(Item::Packet { location, bytes }) => (location, bytes),
                },
            };
            let send_time_ms = asf::send_time_ms(&packet).unwrap_or_default();
            let due = self.pace.due(send_time_ms, 0);
            if due > now {
                self.next = Some((location, packet));
                return Some(Came::Like(FileServed::Until(due.max(now + TICK))));
            }
            if self.is_past_end(&packet) {
                self.next = Some((location, packet));
                return Some(Came::Like(FileServed::Finished));
            }
            self.pace.passed(send_time_ms);
            relayed.cut(location, packet, |number, packet| self.ready.push_back((number, due, packet)));
        }
        None
    }

    /// Whether a packet is beyond the time at which the viewer wants to stop.
    fn is_past_end(&mut self, packet: &[u8]) -> bool {
        let Some(until) = self.until else { return false };
        let Ok(info) = asf::walk(packet) else { return false };
        let content_ms = info.first_presentation_ms.saturating_sub(self.relayed.parsed.preroll_ms());
        match until {
            Until::Time(end_ms) => content_ms >= end_ms,
            Until::After(ms) => {
                self.until = Some(Until::Time(content_ms.saturating_add(ms)));
                ms == 0
            }
        }
    }
}

impl State {
    /// The answer to an open, now that the upstream has sent the header of a file.
    pub(super) fn opened_relayed(&mut self, key: usize, file: RelayedFile) -> Answer {
        let refused = |hr| Answer::Opened(Err(OpenRefusal::Status(hr)));
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let name = conn.engine.report().point.clone().unwrap_or_default();
        let mut opened = Opened::new(Arc::clone(&file.folder), &name);
        let udp = &self.context.settings.udp;
        let own_size = Header::parse(&file.header).map_or(0, |header| header.packet_size());
        let oversize = conn.route.is_some() && conn.udp.as_ref().is_some_and(|port| !port.fits(own_size + HEAD_LEN));
        if oversize && udp.oversize == Oversize::Refuse {
            metrics::counter!(names::TRANSPORT_FALLBACKS, "cause" => "oversize").increment(1);
            return Answer::Opened(Err(OpenRefusal::Redirect(format!("mmst://{}/{name}", conn.local))));
        }
        let recut_size = (oversize && udp.oversize == Oversize::Recut).then(|| udp.recut_size());
        let Some(relayed) = Relayed::new(file, recut_size) else { return refused(Hresult::NO_STREAM) };
        let Some(permit) = &mut conn.permit else { return refused(Hresult::INVALID_REQUEST) };
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.id(), relayed.parsed.bit_rate()) {
            return refused(self.refused(key, refusal));
        }
        let description = relayed.describe();
        opened.generation = Some(0);
        opened.header_bytes = relayed.header.len();
        opened.packet_size = relayed.packet_size;
        opened.relayed = Some(Rc::new(relayed));
        conn.selection = Selection::all(description.streams);
        conn.opened = Some(opened);
        Answer::Opened(Ok(description))
    }

    /// Asks the upstream to play from a place on, and seats the viewer for what comes.
    pub(super) fn play_relayed(
        &mut self,
        key: usize,
        now: Instant,
        place: play::Place,
        seek: (u8, Option<Until>, Option<Acceleration>),
    ) {
        self.park(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(relayed) = conn.opened.as_ref().and_then(|opened| opened.relayed.clone()) else { return };
        let (incarnation, until, acceleration) = seek;
        let (from, streams) = (relayed.start(place), conn.selection.streams);
        let mut play = 0;
        relayed.file.course.send_modify(|course| {
            *course = Course { play: course.play + 1, from: Some(from), streams: Some(streams) };
            play = course.play;
        });
        let mut viewer = conn.take_viewer(key);
        viewer.start(incarnation, 0, relayed.packet_size);
        viewer.hot.blocked = false;
        let (rate, size) = (relayed.parsed.bit_rate(), relayed.packet_size);
        let pace = FilePace::new(now, Speed::new(&self.context.settings, acceleration, conn.route.is_some(), rate, size));
        self.counters.viewers(viewer.hot.link.label()).increment(1.0);
        let (next, ready) = (None, VecDeque::new());
        let seat = RelayedSeat { viewer, relayed, play, pace, until, next, ready, free_since: now, due: None };
        conn.place = Place::Relayed(Box::new(seat));
        // The media follows the report that is still in the queue.
        self.flush(key, now);
    }

    /// Sends such a viewer what is due, and arranges for the rest.
    pub(super) fn serve_relayed(&mut self, key: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Place::Relayed(seat) = &mut conn.place else { return };
        if seat.viewer.hot.blocked {
            return;
        }
        let served = seat.serve(now, &self.origins, &mut self.tally, &mut self.stage);
        if !seat.viewer.cold.joined && seat.viewer.hot.packets > 0 {
            seat.viewer.cold.joined = true;
            self.counters.joined(seat.viewer.hot.link.label(), conn.opened.as_ref().map_or("", |opened| opened.point.name()));
            self.counters.join_seconds.record(now.saturating_duration_since(conn.accepted).as_secs_f64());
        }
        match served {
            Err(error) => self.close(key, "connection_lost", format!("connection lost: {error}")),
            Ok(Came::Like(FileServed::Until(at))) => self.schedule(key, Some(at)),
            Ok(Came::Like(FileServed::UdpBlocked)) => self.schedule(key, Some(now + ROOM)),
            Ok(Came::Like(FileServed::TcpBlocked(partial))) => {
                conn.out.keep(partial);
                conn.wake.notify_one();
                self.schedule(key, None);
            }
            Ok(Came::Like(FileServed::Finished)) => {
                // As with files: it leaves its seat before its engine says anything to that.
                let incarnation = seat.viewer.hot.next.incarnation;
                self.park(key);
                self.drive(key, now, Input::Answer(Answer::Finished { incarnation }));
            }
            Ok(Came::Like(FileServed::Reading | FileServed::Broken(_))) => self.schedule(key, None),
            Ok(Came::Lost(reason)) => {
                conn.trouble = Some(format!("the upstream was lost: {reason}"));
                self.park(key);
                self.drive(key, now, Input::Answer(Answer::Broken));
            }
        }
    }

    /// Another selection from here on, which the upstream carries out.
    pub(super) fn select_relayed(&self, key: usize) {
        let Some(conn) = self.conns.get(key) else { return };
        if let Some(relayed) = conn.opened.as_ref().and_then(|opened| opened.relayed.as_ref()) {
            relayed.file.course.send_modify(|course| course.streams = Some(conn.selection.streams));
        }
    }

    /// Takes such a viewer from its seat: the upstream is to rest.
    pub(super) fn park_relayed(&mut self, key: usize) {
        self.schedule(key, None);
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Place::Relayed(seat) = std::mem::replace(&mut conn.place, Place::Nowhere) else { return };
        seat.relayed.file.course.send_modify(|course| course.from = None);
        seat.relayed.file.inflow.clear();
        let viewer = seat.viewer;
        self.counters.viewers(viewer.hot.link.label()).decrement(1.0);
        if let (Link::Udp(route), Some(own)) = (&viewer.hot.link, &mut conn.route) {
            *own = *route;
        }
        conn.place = Place::Parked(Box::new(viewer));
    }
}
