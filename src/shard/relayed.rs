//! Files of an upstream: each viewer has a connection there, and is sent what comes from it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use tokio::sync::watch;

use super::conn::Opened;
use super::file_pace::FilePace;
use super::inflow::{Inflow, Item};
use super::seat::{Served, Title, Turn};
use super::stage::Stage;
use super::state::State;
use crate::asf::{self, Header, OnDemandFacts, Recut, Selection};
use crate::playing::{Course, StartAt};
use crate::relay::Point;
use crate::viewing::{Answer, Content, Description, OpenRefusal};
use crate::viewing::{Position, Until};
use crate::wire::{Guid, Hresult};

/// Packets that can be sent again, and their bytes.
const RING: usize = 256;
const RING_BYTES: usize = 512 << 10;

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
    pub(super) packet_size: usize,
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
            ssrc: 0,
        }
    }

    /// Where the upstream is to begin, for who counts as the viewer does.
    fn start(&self, place: Position) -> StartAt {
        let packet = |number: u64| StartAt::Packet(u32::try_from(number / self.parts()).unwrap_or(u32::MAX));
        match place {
            #[expect(clippy::cast_precision_loss, reason = "no content is 285,000 years long")]
            Position::Time(ms) => StartAt::Time { s: ms as f64 / 1000.0 },
            Position::Packet(number) => packet(number.into()),
            Position::Offset(offset) if self.recut.is_none() => StartAt::Offset(offset),
            Position::Offset(offset) => {
                packet(u64::from(offset).saturating_sub(self.header.len() as u64) / (self.packet_size as u64).max(1))
            }
        }
    }

    /// Hands what the viewer gets of one packet to `take`.
    fn cut(&self, location: u32, packet: Bytes, mut take: impl FnMut(u64, Bytes)) {
        let first = u64::from(location) * self.parts();
        if packet.len() != self.parsed.packet_size() {
            // Packets are sent at a stride.
            return;
        }
        let Some(recut) = &self.recut else { return take(first, packet) };
        let mut pieces = Vec::new();
        if let Ok(parts) = recut.recut(&packet, &mut pieces) {
            let pieces = Bytes::from(pieces);
            for part in 0..parts {
                take(first + part as u64, pieces.slice(part * self.packet_size..(part + 1) * self.packet_size));
            }
        }
    }

    /// Asks the upstream to play from a place on. `keeps`: what is sent may be asked for again.
    pub(super) fn play(
        relayed: &Rc<Self>,
        place: Position,
        until: Option<Until>,
        selection: Selection,
        keeps: bool,
    ) -> RelayedFeed {
        let (from, streams) = (relayed.start(place), selection.streams);
        let mut play = 0;
        relayed.file.course.send_modify(|course| {
            *course = Course { play: course.play + 1, from: Some(from), streams: Some(streams) };
            play = course.play;
        });
        RelayedFeed { relayed: Rc::clone(relayed), play, keeps, until, next: None }
    }

    /// Another selection from here on, which the upstream carries out.
    pub(super) fn select(&self, selection: Selection) {
        self.file.course.send_modify(|course| course.streams = Some(selection.streams));
    }

    /// Its viewer does not play: the upstream is to rest.
    pub(super) fn rest(&self) {
        let mut over = 0;
        self.file.course.send_modify(|course| {
            course.from = None;
            over = course.play;
        });
        self.file.inflow.end(over);
    }

    pub(super) fn bit_rate(&self) -> u32 {
        self.parsed.bit_rate()
    }

    /// Keeps what is sent, to send it again.
    fn keep(&self, number: u64, packet: Bytes) {
        let mut sent = self.sent.borrow_mut();
        if sent.len() >= RING.min(RING_BYTES / self.packet_size.max(1)) {
            sent.pop_front();
        }
        sent.push_back((number, packet));
    }

    /// Hands a packet that was sent before to `take`.
    pub(super) fn again(&self, number: u64, take: impl FnOnce(u64, &[u8])) {
        if let Some((_, packet)) = self.sent.borrow().iter().rev().find(|(sent, _)| *sent == number) {
            take(number, packet);
        }
    }
}

/// One viewer's way through a file of an upstream.
pub(super) struct RelayedFeed {
    pub(super) relayed: Rc<Relayed>,
    /// Which play of its connection.
    play: u32,
    /// What is sent may be asked for again.
    keeps: bool,
    until: Option<Until>,
    /// What has come and is not due yet.
    next: Option<(u32, Bytes)>,
}

impl RelayedFeed {
    /// Gathers what is due; tells why there is no more, where that is not for want of room.
    pub(super) fn gather(&mut self, turn: &Turn<'_>, pace: &mut FilePace, stage: &mut Stage) -> Option<Served> {
        let now = turn.now;
        let relayed = Rc::clone(&self.relayed);
        while stage.len() < turn.most {
            let (location, packet) = match self.next.take() {
                Some(next) => next,
                None => match relayed.file.inflow.pop(self.play) {
                    None => return Some(Served::Waiting),
                    // Looked at again once all before it has been sent.
                    Some(end @ (Item::End | Item::Lost(_))) if !stage.is_empty() => {
                        relayed.file.inflow.put_back(self.play, end);
                        return None;
                    }
                    Some(Item::End) => return Some(Served::Finished),
                    Some(Item::Lost(reason)) => return Some(Served::Broken(format!("the upstream was lost: {reason}"))),
                    Some(Item::Packet { location, bytes }) => (location, bytes),
                },
            };
            let send_time_ms = asf::send_time_ms(&packet).unwrap_or_default();
            let due = pace.due(send_time_ms, stage.bytes());
            if due > now {
                self.next = Some((location, packet));
                return Some(Served::Until(due.max(now + pace.portion(turn.tick))));
            }
            if self.is_past_end(&packet) {
                self.next = Some((location, packet));
                return Some(Served::Finished);
            }
            pace.passed(send_time_ms);
            relayed.cut(location, packet, |number, packet| {
                stage.push(turn.framing, number, &packet, due);
                if self.keeps {
                    relayed.keep(number, packet);
                }
            });
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
        let Some(conn) = self.conns.get(key) else { return refused(Hresult::NO_STREAM) };
        let name = conn.engine.name().unwrap_or_default().to_owned();
        let mut opened = Opened::new(Arc::clone(&file.folder), &name);
        let own_size = Header::parse(&file.header).map_or(0, |header| header.packet_size());
        let recut_size = match self.recut_size(conn, &name, own_size) {
            Ok(size) => size,
            Err(refusal) => return Answer::Opened(Err(refusal)),
        };
        let Some(relayed) = Relayed::new(file, recut_size) else { return refused(Hresult::NO_STREAM) };
        let Some(conn) = self.conns.get_mut(key) else { return refused(Hresult::NO_STREAM) };
        let Some(permit) = &mut conn.permit else { return refused(Hresult::INVALID_REQUEST) };
        let admission = self.context.relay.admission();
        if let Err(refusal) = admission.open(permit, opened.point.account(), relayed.parsed.bit_rate()) {
            return refused(self.refused(key, refusal));
        }
        let description = Description { ssrc: opened.flow.ssrc, ..relayed.describe() };
        opened.generation = Some(0);
        opened.header_bytes = relayed.header.len();
        opened.packet_size = relayed.packet_size;
        opened.title = Some(Title::Relayed(Rc::new(relayed)));
        conn.selection = Selection::all(description.streams);
        conn.opened = Some(opened);
        Answer::Opened(Ok(description))
    }
}
