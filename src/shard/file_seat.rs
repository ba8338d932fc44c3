//! One viewer of a file: where it is, what it wants, and the packets that are due for it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::broadcast::{Link, Tally, Viewer};
use super::file_pace::FilePace;
use super::origins::Origins;
use super::out_queue::Partial;
use super::pace::TICK;
use super::viewer::{account, most_packets};
use crate::archive::{AsfFile, Block, Lookup, ReadError, Wake};
use crate::asf::{self, Kept, OnDemandFacts, Recut, Selection, Selector, StreamSet};
use crate::mms::media::{self, DataHead, HEAD_LEN};
use crate::mms::play::Until;
use crate::mms::session::{Content, Description};
use crate::wire::Guid;

/// A send that comes so much later than it was due is late.
const LATE: Duration = Duration::from_millis(100);
/// Packets of a file that are looked at in one turn of a viewer.
const MOST_AT_ONCE: u32 = 512;
/// Bytes gathered for one call.
const STAGE_BYTES: usize = 64 << 10;

/// A file as one viewer is given it: as it is, or cut anew.
pub(super) struct Opening {
    pub(super) file: Arc<AsfFile>,
    recut: Option<Recut>,
    /// Header Object and the first 50 bytes of the Data Object.
    pub(super) header: Bytes,
    pub(super) packet_size: usize,
    /// Send times tell nothing: the bit rate does.
    by_rate: bool,
}

impl Opening {
    /// `recut_size`: the size of packets to cut it to, if that is less than its own.
    pub(super) fn new(file: Arc<AsfFile>, recut_size: Option<usize>) -> Self {
        let description = file.description();
        let recut = recut_size.and_then(|size| Recut::new(&description.header, size));
        let packet_size = recut.as_ref().map_or(description.header.packet_size(), Recut::packet_size);
        let parts = recut.as_ref().map_or(1, |recut| recut.parts() as u64);
        let header = description.header.on_demand(&OnDemandFacts {
            packet_size,
            packets: description.packets.saturating_mul(parts),
            play_duration_ms: description.play_duration_ms,
            send_duration_ms: description.send_duration_ms,
            seekable: description.can_seek,
            // The same for all who open the same file: players know it again by that.
            file_id: Some(Guid(
                Md5::new().chain_update(&description.head).chain_update(packet_size.to_le_bytes()).finalize().into(),
            )),
        });
        let by_rate = description.packets > 1 && description.send_duration_ms == 0;
        Self { file, recut, header, packet_size, by_rate }
    }

    /// Packets that one of the file's becomes.
    fn parts(&self) -> u64 {
        self.recut.as_ref().map_or(1, |recut| recut.parts() as u64)
    }

    /// Packets in all, as the viewer counts them.
    pub(super) fn packets(&self) -> u64 {
        self.file.description().packets.saturating_mul(self.parts())
    }

    /// The file's packet that a packet of the viewer's comes from.
    pub(super) fn source_packet(&self, packet: u64) -> u64 {
        packet / self.parts()
    }

    /// The first packet of the viewer's that comes from a packet of the file.
    pub(super) fn first_part(&self, source_packet: u64) -> u64 {
        source_packet.saturating_mul(self.parts())
    }

    pub(super) fn bit_rate(&self) -> u32 {
        self.file.description().header.bit_rate()
    }

    pub(super) fn describe(&self) -> Description {
        Description {
            header: self.header.clone(),
            packet_size: u32::try_from(self.packet_size).unwrap_or(u32::MAX),
            bit_rate: self.bit_rate(),
            streams: self.file.description().header.streams().iter().map(|stream| stream.number).collect(),
            content: Content::File { duration_ms: self.file.description().play_duration_ms, packets: self.packets() },
        }
    }

    /// A time as players give it, as the file counts: some count from the begin of a piece of a recording, which has the times of
    /// the whole.
    pub(super) fn media_ms(&self, ms: u64) -> u64 {
        let begin_ms = self.file.description().begin_ms;
        if ms < begin_ms { begin_ms + ms } else { ms }
    }

    pub(super) fn until(&self, until: Until) -> End {
        match until {
            Until::Time(ms) => End::At(self.media_ms(ms.into())),
            Until::After(ms) => End::After(ms),
        }
    }

    /// The packet of the file in which a byte of it lies, as the file counts: a viewer of a file that is cut anew counts bytes of
    /// what it is given.
    pub(super) fn packet_at(&self, offset: u64) -> u64 {
        self.source_packet(offset.saturating_sub(self.header.len() as u64) / (self.packet_size as u64).max(1))
    }

    /// Hands a packet that was sent before to `take`, if it is still in memory; else it is fetched, for when it is asked for
    /// once more.
    pub(super) fn again(&self, number: u64, selection: Selection, mut take: impl FnMut(u64, &[u8])) {
        let source = self.source_packet(number);
        let index = source / self.file.packets_per_block();
        let Lookup::Here(block) = self.file.block(index, || Box::new(|_| ())) else { return };
        let (streams, video) = self.streams();
        self.cut(
            source,
            block.packet(source).unwrap_or_default(),
            &mut Selector::amid(streams, video, selection),
            |cut, packet| {
                if cut == number {
                    take(number, packet);
                }
            },
        );
    }

    /// All streams, and those with key frames to begin with: none where the file marks no key frame.
    fn streams(&self) -> (StreamSet, StreamSet) {
        let description = self.file.description();
        let streams = description.header.streams().iter().map(|stream| stream.number).collect();
        (streams, if description.leader.is_some() { description.header.video() } else { StreamSet::EMPTY })
    }

    pub(super) fn selector(&self, selection: Selection) -> Selector {
        let (streams, video) = self.streams();
        Selector::new(streams, video, selection)
    }

    /// When a packet of the file is to be sent, on its own clock.
    fn send_time_ms(&self, number: u64, packet: &[u8]) -> u32 {
        if self.by_rate {
            let bits = number.saturating_mul(packet.len() as u64 * 8);
            return u32::try_from(bits.saturating_mul(1000) / u64::from(self.bit_rate())).unwrap_or(u32::MAX);
        }
        asf::send_time_ms(packet).unwrap_or_default()
    }

    /// Hands what a viewer gets of one packet of the file to `take`, with its number.
    pub(super) fn cut(&self, number: u64, packet: &[u8], selector: &mut Selector, mut take: impl FnMut(u64, &[u8])) {
        let mut selected = Vec::new();
        let kept = match selector.packet(packet, &mut selected) {
            // What no walk accepts is no packet: a player can do nothing with it either.
            Err(_) | Ok(Kept::Nothing) => return,
            Ok(Kept::Whole) => packet,
            Ok(Kept::Rewritten) => &selected,
        };
        let first = self.first_part(number);
        let Some(recut) = &self.recut else { return take(first, kept) };
        let mut pieces = Vec::new();
        if let Ok(parts) = recut.recut(kept, &mut pieces) {
            for (part, piece) in (0..parts as u64).zip(pieces.chunks_exact(self.packet_size)) {
                take(first + part, piece);
            }
        }
    }
}

/// Packets on their way to one viewer: framed, one after the other. One for all viewers of a shard, so that it stays in the
/// processor's cache.
#[derive(Debug, Default)]
pub(super) struct Stage {
    image: Vec<u8>,
    packets: Vec<Staged>,
}

#[derive(Debug, Clone, Copy)]
struct Staged {
    number: u64,
    due: Instant,
}

/// Where a play ends before the end of its file, in the file's own time, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    At(u64),
    /// So long after the first packet.
    After(u32),
}

/// What came of serving a viewer of a file.
#[derive(Debug)]
pub(super) enum FileServed {
    /// It has all that is due; more is then.
    Until(Instant),
    /// What comes next is being read from the disk.
    Reading,
    /// Its TCP buffer is full; the rest of a packet that was cut goes first when it is not.
    TcpBlocked(Option<Partial>),
    /// No room for datagrams now.
    UdpBlocked,
    /// It has everything.
    Finished,
    /// The file cannot be played on.
    Broken(ReadError),
}

/// One viewer of a file.
pub(super) struct FileSeat {
    pub(super) viewer: Viewer,
    opening: Rc<Opening>,
    selector: Selector,
    pace: FilePace,
    /// Number of the packet to look at next; those that the viewer did not select are behind it, but were not sent.
    cursor: u64,
    /// Packets with lower numbers were sent, though the cursor may have gone back to one of them.
    sent_below: u64,
    /// Where the cursor and the selection were before what is on its way was gathered.
    before: Option<(u64, Selector)>,
    block: Option<Arc<Block>>,
    /// The block that is being read for it.
    reading: Option<u64>,
    until: Option<End>,
    /// The viewer itself could not take more until then.
    free_since: Instant,
    /// When it is served next; kept by who has the clock.
    pub(super) due: Option<Instant>,
}

impl FileSeat {
    /// A viewer that has been told nothing yet of this play, which begins with packet `from`.
    pub(super) fn new(
        now: Instant,
        mut viewer: Viewer,
        opening: Rc<Opening>,
        selection: Selection,
        from: u64,
        pace: FilePace,
        until: Option<End>,
    ) -> Self {
        viewer.cold.track.jump(&mut viewer.hot.next, from);
        viewer.hot.blocked = false;
        let selector = opening.selector(selection);
        let (cursor, block, reading) = (from, None, None);
        let (sent_below, before) = (from, None);
        Self { viewer, opening, selector, pace, cursor, sent_below, before, block, reading, until, free_since: now, due: None }
    }

    /// Another selection from here on.
    pub(super) fn select(&mut self, selection: Selection) {
        if self.selector.selection() != selection {
            // What was sent is cut by the selection when it is sent again.
            self.viewer.cold.track.forget(&self.viewer.hot.next);
        }
        self.selector.switch(selection);
    }

    /// A block that it asked for has come; it may be wanted no more.
    pub(super) fn take_block(&mut self, block: Arc<Block>) {
        self.reading = None;
        if block.packet(self.opening.source_packet(self.cursor)).is_some() {
            self.opening.file.prefetch(block.first() / self.opening.file.packets_per_block() + 1);
            self.block = Some(block);
        }
    }

    /// The viewer takes bytes again.
    pub(super) fn is_free(&mut self, now: Instant) {
        self.viewer.hot.blocked = false;
        self.free_since = now;
    }

    /// Sends what is due. `wake` makes what is called when a block has been read, on another thread.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        tick: Duration,
        origins: &Origins,
        tally: &mut Tally,
        stage: &mut Stage,
        wake: impl Fn() -> Wake,
    ) -> io::Result<FileServed> {
        let stride = self.opening.packet_size + HEAD_LEN;
        loop {
            let most = most_packets(&self.viewer.hot.link, origins, stride).min(self.pace.packets(now));
            let stopped = if most == 0 {
                stage.clear();
                Some(FileServed::Until(now + TICK))
            } else {
                self.gather(now, tick, most as usize, tally, stage, &wake)
            };
            let mut sent = 0;
            while sent < stage.packets.len() {
                let count = (stage.packets.len() - sent).min(most as usize);
                if let Some(blocked) = self.send(now, stride, sent..sent + count, origins, tally, stage)? {
                    return Ok(blocked);
                }
                sent += count;
            }
            if let Some(stopped) = stopped {
                return Ok(stopped);
            }
        }
    }

    /// Gathers what is due; tells why it stopped, where that is not for want of room.
    fn gather(
        &mut self,
        now: Instant,
        tick: Duration,
        most: usize,
        tally: &mut Tally,
        stage: &mut Stage,
        wake: &impl Fn() -> Wake,
    ) -> Option<FileServed> {
        stage.clear();
        let opening = Rc::clone(&self.opening);
        // What a selection keeps of a packet depends on those before it.
        self.before = (!self.selector.passes_everything()).then(|| (self.cursor, self.selector.clone()));
        let mut looked_at = 0;
        while stage.packets.len() < most && stage.image.len() < STAGE_BYTES {
            looked_at += 1;
            if looked_at > MOST_AT_ONCE {
                // Others first: a selection may keep nothing of a long file.
                return Some(FileServed::Until(now));
            }
            let number = opening.source_packet(self.cursor);
            if number >= opening.file.description().packets {
                return Some(FileServed::Finished);
            }
            let block = match self.block(number, tally, wake) {
                Ok(Some(block)) => block,
                Ok(None) => return Some(FileServed::Reading),
                Err(error) => return Some(FileServed::Broken(error)),
            };
            let packet = block.packet(number).unwrap_or_default();
            let send_time_ms = opening.send_time_ms(number, packet);
            let due = self.pace.due(send_time_ms, stage.image.len());
            if due > now {
                return Some(FileServed::Until(due.max(now + self.pace.portion(tick))));
            }
            if self.is_past_end(packet) {
                return Some(FileServed::Finished);
            }
            let from = self.sent_below;
            opening.cut(number, packet, &mut self.selector, |number, packet| {
                if number >= from {
                    stage.push(number, packet, due);
                }
            });
            self.pace.passed(send_time_ms);
            self.cursor = opening.first_part(number + 1);
        }
        None
    }

    /// The block of a packet; `None` while it is being read.
    fn block(&mut self, number: u64, tally: &mut Tally, wake: &impl Fn() -> Wake) -> Result<Option<Arc<Block>>, ReadError> {
        let file = &self.opening.file;
        if let Some(fault) = file.fault() {
            return Err(fault);
        }
        let index = number / file.packets_per_block();
        if let Some(block) = self.block.as_ref().filter(|block| block.packet(number).is_some()) {
            return Ok(Some(Arc::clone(block)));
        }
        // Not kept while the next one is read: a viewer holds one block at most.
        self.block = None;
        match file.block(index, wake) {
            Lookup::Here(block) => {
                self.reading = None;
                file.prefetch(index + 1);
                self.block = Some(Arc::clone(&block));
                Ok(Some(block))
            }
            Lookup::Pending => {
                if self.reading.replace(index) != Some(index) && self.pace.is_under_way() {
                    tally.late_reads += 1;
                }
                Ok(None)
            }
            Lookup::Failed(error) => Err(error),
        }
    }

    /// Whether a packet is beyond the time at which the viewer wants to stop.
    fn is_past_end(&mut self, packet: &[u8]) -> bool {
        let Some(until) = self.until else { return false };
        let Ok(info) = asf::walk(packet) else { return false };
        let preroll_ms = self.opening.file.description().header.preroll_ms();
        let content_ms = u64::from(info.first_presentation_ms.saturating_sub(preroll_ms));
        match until {
            End::At(end_ms) => content_ms >= end_ms,
            End::After(ms) => {
                self.until = Some(End::At(content_ms + u64::from(ms)));
                ms == 0
            }
        }
    }

    /// Sends some of what was gathered with one call; `Some` where the viewer can take no more.
    fn send(
        &mut self,
        now: Instant,
        stride: usize,
        range: Range<usize>,
        origins: &Origins,
        tally: &mut Tally,
        stage: &mut Stage,
    ) -> io::Result<Option<FileServed>> {
        let moment = Moment { now, free_since: self.free_since };
        let first = range.start;
        let (begun, blocked) = stage.send(&mut self.viewer, moment, stride, range.clone(), origins, tally)?;
        if let Some(last) = stage.packets.get(range).and_then(|staged| staged.get(..begun)).and_then(<[_]>::last) {
            self.sent_below = last.number + 1;
        }
        if let Some(unsent) = stage.packets.get(first + begun) {
            // They are gathered once more when there is room.
            if blocked.is_some() {
                match self.before.take() {
                    Some((cursor, selector)) => (self.cursor, self.selector) = (cursor, selector),
                    None => self.cursor = unsent.number,
                }
            }
        }
        self.pace.sent(u32::try_from(begun).unwrap_or(u32::MAX), begun * stride);
        Ok(blocked)
    }
}

/// When something is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// The viewer itself could not take more until then.
    pub(super) free_since: Instant,
}

impl Stage {
    /// Sends some of what was gathered with one call: how many packets have begun to go, and what hinders more.
    ///
    /// # Errors
    /// The TCP connection is gone.
    pub(super) fn send(
        &mut self,
        viewer: &mut Viewer,
        moment: Moment,
        stride: usize,
        range: Range<usize>,
        origins: &Origins,
        tally: &mut Tally,
    ) -> io::Result<(usize, Option<FileServed>)> {
        let (stage, Moment { now, free_since }) = (self, moment);
        let Viewer { hot, cold } = viewer;
        let image = stage.image.get_mut(range.start * stride..range.end * stride).unwrap_or_default();
        media::stamp(image, stride, hot.next.incarnation, hot.next.sequence);
        let parts = [IoSlice::new(image)];
        let (begun, blocked) = match &mut hot.link {
            Link::Udp(route) => {
                let sent = origins.send(route, &parts, stride);
                let (done, full) = account(route, &mut hot.refusals, &sent, range.len(), stride, tally);
                (done, full.map(|_| FileServed::UdpBlocked))
            }
            Link::Tcp(wire) => {
                let taken = wire.write(&parts)?;
                let begun = taken.div_ceil(stride);
                tally.tcp_calls += 1;
                tally.tcp_packets += begun as u64;
                tally.tcp_bytes += (begun * stride) as u64;
                hot.blocked = taken < image.len();
                if hot.blocked {
                    cold.expect_room();
                }
                let rest = image.get(taken..begun * stride).filter(|rest| !rest.is_empty());
                (begun, hot.blocked.then(|| FileServed::TcpBlocked(rest.map(|rest| Partial::own(Bytes::copy_from_slice(rest))))))
            }
        };
        // A send that does nothing and does not say why would go on for ever.
        let blocked = blocked.or_else(|| (begun == 0).then_some(FileServed::UdpBlocked));
        let staged = stage.packets.get(range).unwrap_or_default();
        for packet in staged.iter().take(begun) {
            cold.track.jump(&mut hot.next, packet.number);
            hot.next.advance(1);
            tally.late += u64::from(now.saturating_duration_since(packet.due.max(free_since)) > LATE);
        }
        hot.packets += begun as u64;
        Ok((begun, blocked))
    }

    pub(super) fn clear(&mut self) {
        self.image.clear();
        self.packets.clear();
    }

    pub(super) fn push(&mut self, number: u64, packet: &[u8], due: Instant) {
        #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the number")]
        self.image.extend_from_slice(&DataHead::new(number as u32, 0, 0, packet.len()).bytes());
        let begin = self.image.len();
        self.image.extend_from_slice(packet);
        // MPlayer and xine take the padding of such a packet for media.
        asf::padding::settle(self.image.get_mut(begin..).unwrap_or_default());
        self.packets.push(Staged { number, due });
    }
}
