//! From a place in a file to the packet from which to play it: the one in which the last key frame at or before begins.
//!
//! Presentation times of key frames rise with the packets, and that alone is relied on for the answer; the index and the
//! send times only tell where to begin to look. Every walk is bounded.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::key_table::{KeyTable, Partial, Wanted};
use super::shield::{caught, shielded};
use super::{AsfFile, Block, ReadError};
use crate::asf::{PacketInfo, StreamSet, payloads, send_time_ms, walk};

/// How far one walk goes, packets.
const WALK_PACKETS: u64 = 20_000;
/// How far one walk goes, bytes.
const WALK_LEN: u64 = 64 << 20;
/// A key frame that is older than this is not gone back to where a later one serves, ms.
const BACK_MS: u32 = 60_000;
/// Sane writers send a key frame before it is shown; what is sent so much after a time cannot belong before it, ms.
const LATE_MS: u64 = 10_000;
/// Invalid packets in a row that a search passes over.
const INVALID_PACKETS: u64 = 50;
/// Places at which send times are compared.
const PROBES: u64 = 16;
/// Key frames, or packets without them, that are kept of a file whose send times do not rise.
const MAX_KEYS: usize = 1 << 20;

/// Where to play from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first packet.
    Beginning,
    /// A media time: the preroll is not in it.
    Time {
        /// Milliseconds.
        ms: u64,
    },
    /// A packet number. A packet beyond the last means the last.
    Packet(u64),
    /// A byte of the file; those in front of the data mean packet 0.
    Offset(u64),
}

/// Who is told where to play from.
type Done = Box<dyn FnOnce(Result<u64, ReadError>) + Send>;

/// A search to be done on a reader thread.
pub(super) struct Search {
    file: Arc<AsfFile>,
    start: Start,
    streams: Option<StreamSet>,
    wanted: Option<Weak<()>>,
    done: Done,
}

impl Search {
    /// For a viewer of these streams (`None`: all), who wants it while `wanted` points to something (`None`: always).
    pub(super) fn new(
        file: &Arc<AsfFile>,
        start: Start,
        streams: Option<StreamSet>,
        wanted: Option<Weak<()>>,
        done: Done,
    ) -> Self {
        Self { file: file.clone(), start, streams, wanted, done }
    }

    /// Has it done on a reader thread.
    pub(super) fn queue(self) {
        let archive = self.file.archive().clone();
        if let Err(task) = archive.pool.push_task(Box::new(move |_| self.run())) {
            // Nothing is read then.
            task(&archive);
        }
    }

    /// Tells the result.
    pub(super) fn end(self, result: Result<u64, ReadError>) {
        shielded("a search", || (self.done)(result));
    }

    fn run(self) {
        let mut search = self;
        loop {
            let found = caught("a search", || find_for(&search.file, search.start, search.streams, search.wanted.as_ref()));
            match found {
                Ok(Ok(number)) => return search.end(Ok(number)),
                Ok(Err(Stop::Read(error))) | Err(error) => return search.end(Err(error)),
                Ok(Err(Stop::TableIsRead)) => {
                    let file = search.file.clone();
                    match file.learnt.keys.put_aside(search) {
                        Some(again) => search = again,
                        None => return,
                    }
                }
            }
        }
    }
}

/// Why a search does not go on.
#[derive(Debug)]
enum Stop {
    Read(ReadError),
    /// Another search reads the table of key frames: this one goes on when that is through.
    TableIsRead,
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Finds the packet for a viewer of these streams (`None`: all), reading through the cache. For reader threads.
///
/// Source: MS-MMSP 3.2.5.11.
fn find_for(file: &AsfFile, start: Start, streams: Option<StreamSet>, wanted: Option<&Weak<()>>) -> Result<u64, Stop> {
    let description = file.description();
    let last = description.packets - 1;
    let mut search = Walks { file, wanted, block: None };
    let selected = streams.map_or(description.header.video(), |streams| streams.intersection(description.header.video()));
    let other = description.leader.filter(|leader| !selected.contains(*leader)).and_then(|_| selected.iter().next());
    if let Some(other) = other {
        // The index is the leader's.
        match start {
            Start::Beginning => {}
            Start::Time { ms } if search.rises()? => {
                let presentation_ms = ms.saturating_add(description.header.preroll_ms().into());
                let near = search.bisect(presentation_ms)?;
                return match search.ahead(near, other, presentation_ms)?.last {
                    Some(found) => Ok(found),
                    None => Ok(search.key_frame_behind(near, other, presentation_ms)?),
                };
            }
            Start::Time { .. } => {}
            Start::Packet(number) => return Ok(search.back(number.min(last), |_, info| info.key_starts.contains(other))?),
            Start::Offset(at) => {
                let number = at.saturating_sub(description.data_start) / description.header.packet_size() as u64;
                return Ok(search.back(number.min(last), |_, info| info.key_starts.contains(other))?);
            }
        }
    }
    let number = match start {
        Start::Beginning => return Ok(0),
        Start::Time { ms } => {
            let presentation_ms = ms.saturating_add(description.header.preroll_ms().into());
            return match description.leader {
                Some(leader) => search.key_frame(leader, presentation_ms),
                None => search.any_packet(presentation_ms),
            };
        }
        Start::Packet(number) => number,
        Start::Offset(at) => at.saturating_sub(description.data_start) / description.header.packet_size() as u64,
    };
    match description.leader {
        Some(leader) => Ok(search.back(number.min(last), |_, info| info.key_starts.contains(leader))?),
        None => Ok(number.min(last)),
    }
}

/// The same for a viewer of everything.
#[cfg(test)]
fn find(file: &AsfFile, start: Start) -> Result<u64, ReadError> {
    find_for(file, start, None, None).map_err(|stop| match stop {
        Stop::Read(error) => error,
        Stop::TableIsRead => panic!("another search is on its way"),
    })
}

/// Presentation times of the leader's key frames that begin in a packet.
fn key_times(packet: &[u8], leader: u8) -> impl Iterator<Item = u64> {
    let starts = payloads(packet).into_iter().flatten();
    starts.filter(move |start| start.stream == leader && start.key && start.offset == 0).map(|start| start.presentation_ms.into())
}

/// What a walk forward has found.
struct Ahead {
    /// The last packet in which a key frame begins that is not too late.
    last: Option<u64>,
    /// The walk came to a later one or to the end, not to its bound.
    whole: bool,
}

/// The walks of one search through its file.
struct Walks<'a> {
    file: &'a AsfFile,
    wanted: Option<&'a Weak<()>>,
    /// The block of the last packet: neighbours are asked for mostly.
    block: Option<Arc<Block>>,
}

impl Walks<'_> {
    const fn packets(&self) -> u64 {
        self.file.description().packets
    }

    /// Packets that one walk may look at.
    fn bound(&self) -> u64 {
        WALK_PACKETS.min(WALK_LEN / self.file.description().header.packet_size() as u64)
    }

    fn packet(&mut self, number: u64) -> Result<&[u8], ReadError> {
        if self.block.as_ref().is_none_or(|block| block.packet(number).is_none()) {
            // Every long loop comes by here.
            if self.wanted.is_some_and(|wanted| wanted.strong_count() == 0) {
                return Err(ReadError::Unwanted);
            }
            self.block = Some(self.file.block_now(number / self.file.packets_per_block())?);
        }
        self.block.as_ref().and_then(|block| block.packet(number)).ok_or(ReadError::PastTheEnd)
    }

    /// The packet with the last key frame that is to be shown at or before a time.
    fn key_frame(&mut self, leader: u8, presentation_ms: u64) -> Result<u64, Stop> {
        if let Some(found) = self.by_index(leader, presentation_ms)? {
            return Ok(found);
        }
        if !self.rises()? {
            return self.by_key_table(leader, presentation_ms);
        }
        let near = self.bisect(presentation_ms)?;
        match self.ahead(near, leader, presentation_ms)?.last {
            Some(found) => Ok(found),
            None => Ok(self.key_frame_behind(near, leader, presentation_ms)?),
        }
    }

    fn key_frame_behind(&mut self, number: u64, leader: u8, presentation_ms: u64) -> Result<u64, ReadError> {
        self.back(number, |packet, info| {
            info.key_starts.contains(leader) && key_times(packet, leader).any(|ms| ms <= presentation_ms)
        })
    }

    /// By the index, `None` where there is none that is right. What it names is only where the search begins, so that
    /// an entry may be old, or belong to another video stream.
    fn by_index(&mut self, leader: u8, presentation_ms: u64) -> Result<Option<u64>, ReadError> {
        let index = self.file.description().index.as_ref().filter(|_| self.file.index_is_right());
        let Some(named) = index.and_then(|index| index.packet_for(presentation_ms)) else { return Ok(None) };
        // In front of the first key frame there is only packet 0 to name.
        let plausible = named == 0 || self.begins_key_frame_by(named, presentation_ms)?;
        if plausible {
            match self.ahead(named, leader, presentation_ms)? {
                Ahead { last: Some(found), whole: true } => return Ok(Some(found)),
                Ahead { last: None, whole: true } => return self.key_frame_behind(named, leader, presentation_ms).map(Some),
                Ahead { whole: false, .. } => (),
            }
        }
        self.file.learnt.index_is_wrong.store(true, Ordering::Relaxed);
        Ok(None)
    }

    /// Whether a key frame of any video stream that is shown at or before a time begins in a packet.
    fn begins_key_frame_by(&mut self, number: u64, presentation_ms: u64) -> Result<bool, ReadError> {
        let video = self.file.description().header.video();
        let packet = self.packet(number)?;
        Ok(video.iter().any(|stream| key_times(packet, stream).any(|ms| ms <= presentation_ms)))
    }

    /// Walks on from a packet to the first key frame that is too late.
    fn ahead(&mut self, from: u64, leader: u8, presentation_ms: u64) -> Result<Ahead, ReadError> {
        let end = self.packets().min(from.saturating_add(self.bound()));
        let mut last = None;
        for number in from..end {
            let packet = self.packet(number)?;
            let Ok(info) = walk(packet) else { continue };
            if u64::from(info.send_time_ms) > presentation_ms.saturating_add(LATE_MS) {
                return Ok(Ahead { last, whole: true });
            }
            if !info.key_starts.contains(leader) {
                continue;
            }
            let mut too_late = false;
            for ms in key_times(packet, leader) {
                if ms <= presentation_ms {
                    last = Some(number);
                } else {
                    too_late = true;
                }
            }
            if too_late {
                return Ok(Ahead { last, whole: true });
            }
        }
        Ok(Ahead { last, whole: end == self.packets() })
    }

    /// Walks back from a packet to one that serves; 0 where none does.
    ///
    /// One that was sent over a minute before counts only where walking on from the packet finds none within a minute.
    fn back(&mut self, from: u64, serves: impl Fn(&[u8], &PacketInfo) -> bool) -> Result<u64, ReadError> {
        let (mut here_ms, mut old) = (None, 0);
        for number in (from.saturating_sub(self.bound())..=from).rev() {
            let packet = self.packet(number)?;
            if let Ok(info) = walk(packet) {
                let here_ms = *here_ms.get_or_insert(info.send_time_ms);
                if serves(packet, &info) {
                    if here_ms.saturating_sub(info.send_time_ms) <= BACK_MS {
                        return Ok(number);
                    }
                    old = number;
                    break;
                }
            }
            if number == 0 {
                return Ok(0);
            }
        }
        let leader = self.file.description().leader.unwrap_or_default();
        for number in from..self.packets().min(from.saturating_add(self.bound())) {
            let Ok(info) = walk(self.packet(number)?) else { continue };
            if info.send_time_ms.saturating_sub(here_ms.unwrap_or(info.send_time_ms)) > BACK_MS {
                break;
            }
            if info.key_starts.contains(leader) {
                return Ok(number);
            }
        }
        Ok(old)
    }

    /// The last packet that was sent so long before a time that nothing in front of it is shown later; 0 without one.
    fn bisect(&mut self, presentation_ms: u64) -> Result<u64, ReadError> {
        let description = self.file.description();
        let lead_ms = u64::from(description.lead_ms.min(description.header.preroll_ms()));
        let wanted_ms = presentation_ms.saturating_sub(lead_ms);
        let (mut low, mut high) = (0, self.packets());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.sent_from(middle)? {
                Some(ms) if u64::from(ms) <= wanted_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// The send time of the first sound packet from `number` on.
    fn sent_from(&mut self, number: u64) -> Result<Option<u32>, ReadError> {
        for number in number..self.packets().min(number + INVALID_PACKETS) {
            if let Some(ms) = send_time_ms(self.packet(number)?) {
                return Ok(Some(ms));
            }
        }
        Ok(None)
    }

    /// Whether send times rise, as far as some probes tell.
    fn rises(&mut self) -> Result<bool, ReadError> {
        if let Some(rises) = self.file.learnt.rises.get() {
            return Ok(*rises);
        }
        let (mut rises, mut before) = (true, 0);
        let last = self.packets() - 1;
        for probe in 0..PROBES {
            // Below 2^64: a file has under 2^57 packets.
            let sent = self.sent_from(last / (PROBES - 1) * probe + last % (PROBES - 1) * probe / (PROBES - 1))?;
            rises &= sent.is_none_or(|ms| ms >= before);
            before = sent.unwrap_or(before);
        }
        Ok(*self.file.learnt.rises.get_or_init(|| rises))
    }

    /// By a table of all key frames: the one shown last at or before the time, the later of equals.
    fn by_key_table(&mut self, leader: u8, presentation_ms: u64) -> Result<u64, Stop> {
        let keys = self.key_table(Some(leader))?;
        let served = keys.iter().filter(|(ms, _)| u64::from(*ms) <= presentation_ms);
        Ok(served.max().map_or(0, |(_, number)| *number))
    }

    /// When the leader's key frames are shown; without a leader, the first payload of each packet. Read once a file.
    fn key_table(&mut self, leader: Option<u8>) -> Result<KeyTable, Stop> {
        let file = self.file;
        match file.learnt.keys.want() {
            Wanted::Here(keys) => Ok(keys),
            Wanted::Taken => Err(Stop::TableIsRead),
            Wanted::Read(mut reading) => {
                let result = self.read_keys(leader, &mut reading.partial);
                Ok(reading.end(result)?)
            }
        }
    }

    /// Goes on with the table to its end.
    fn read_keys(&mut self, leader: Option<u8>, Partial { keys, next }: &mut Partial) -> Result<(), ReadError> {
        while *next < self.packets() && keys.len() < MAX_KEYS {
            let packet = self.packet(*next)?;
            match (leader, walk(packet)) {
                (None, Ok(info)) => keys.push((info.first_presentation_ms, *next)),
                (Some(leader), Ok(info)) if info.key_starts.contains(leader) => {
                    keys.extend(key_times(packet, leader).filter_map(|ms| Some((u32::try_from(ms).ok()?, *next))));
                }
                _ => (),
            }
            *next += 1;
        }
        Ok(())
    }

    /// Without key frames: of the packets whose first payload is shown at or after a time, the last of the earliest.
    fn any_packet(&mut self, presentation_ms: u64) -> Result<u64, Stop> {
        let mut found: Option<(u64, u64)> = None;
        if !self.rises()? {
            for (ms, number) in self.key_table(None)?.iter().map(|(ms, number)| (u64::from(*ms), *number)) {
                if ms >= presentation_ms && found.is_none_or(|(found_ms, _)| ms <= found_ms) {
                    found = Some((ms, number));
                }
            }
            return Ok(found.map_or(self.packets() - 1, |(_, number)| number));
        }
        let mut number = self.bisect(presentation_ms)?;
        let nearest = number.saturating_sub(self.bound());
        while number > nearest && self.shown(number)?.is_none_or(|(_, ms)| ms >= presentation_ms) {
            number -= 1;
        }
        for number in number..self.packets() {
            let Some((sent_ms, ms)) = self.shown(number)? else { continue };
            // Nothing is shown before it was sent.
            if found.is_some_and(|(found_ms, _)| sent_ms > found_ms) {
                break;
            }
            if ms >= presentation_ms && found.is_none_or(|(found_ms, _)| ms <= found_ms) {
                found = Some((ms, number));
            }
        }
        Ok(found.map_or(self.packets() - 1, |(_, number)| number))
    }

    /// When a packet is sent, and when its first payload is shown.
    fn shown(&mut self, number: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let info = walk(self.packet(number)?).ok();
        Ok(info.map(|info| (info.send_time_ms.into(), info.first_presentation_ms.into())))
    }
}

#[cfg(test)]
mod tests;
