//! What an ASF file is, read once when it is opened.

use bytes::Bytes;

use super::disk::Disk;
use super::{NotAsf, OpenError, ReadError};
use crate::asf::header::DATA_HEAD_LEN;
use crate::asf::{Header, HeaderError, Index, IndexBounds, IndexSearch, StreamKind, StreamSet, guids, index, payloads, walk};
use crate::wire::Cursor;

/// Most headers fit into the first read, bytes.
const FIRST_READ_LEN: usize = 16 << 10;
/// Objects between header and data, and behind the data, that are passed over or read.
const MAX_OBJECTS: usize = 256;
/// Counts from here on are fill patterns of writers that did not know.
const ABSURD_PACKET_COUNT: u64 = 0xFFFF_FFFF;
/// Packets at the front that tell lead and begin.
const FRONT_PACKETS: u64 = 100;
/// Packets at the front in which a key frame is looked for.
const KEY_SEARCH_PACKETS: u64 = 1000;
/// Or so many bytes, where those are more packets: a file of a high rate that was cut in the middle of a group of pictures.
const KEY_SEARCH_LEN: u64 = 32 << 20;
/// Bytes at the end that tell how long the file is, at most [`FRONT_PACKETS`] packets.
const TAIL_LEN: u64 = 256 << 10;
/// A file that begins sooner than this begins at 0: writers' first packets are some frames late.
const PROMPT_MS: u64 = 1000;

/// What an ASF file is.
#[derive(Debug)]
pub struct Description {
    /// The parsed header.
    pub header: Header,
    /// The Header Object and the 50 bytes of the Data Object's head, as they stand in the file.
    pub head: Bytes,
    /// Where the first packet begins, bytes from the start of the file.
    pub data_start: u64,
    /// Packets that can be read, at least 1.
    pub packets: u64,
    /// How long the file plays, without the preroll; from the last presentation times where the header does not know.
    pub play_duration_ms: u64,
    /// From the first packet's send time to the end of the last, by their own words.
    pub send_duration_ms: u64,
    /// The media time at which the file begins: 0, or more in a piece of a recording that keeps its recorder's clock.
    ///
    /// Media times of the file run from here to here plus `play_duration_ms`.
    pub begin_ms: u64,
    /// How far presentation runs ahead of sending: the largest difference in the first 100 packets.
    pub lead_ms: u32,
    /// The index for the leading video stream, where a sound one is there.
    pub index: Option<Index>,
    /// Whether places other than the beginning can be found.
    pub can_seek: bool,
    /// The video stream whose key frames make join points: the lowest that has any. `None` where every packet is one.
    pub leader: Option<u8>,
}

impl Description {
    /// Reads what is needed of a file: its header, some packets at both ends, the indexes behind the data.
    ///
    /// # Errors
    /// [`OpenError::NotAsf`], and [`OpenError::Io`] where a read fails.
    ///
    /// Source: ASF 2 and 3; bounds of our own.
    pub(super) fn read(disk: &Disk) -> Result<Self, OpenError> {
        let (header, data_at, data_head) = read_head(disk)?;
        let head = Bytes::from([&header.bytes()[..], &data_head].concat());
        let size = header.packet_size() as u64;
        let data_start = data_at + DATA_HEAD_LEN as u64;
        let source = Source { disk, data_start, size };
        let data_packets = stated_by_data(&data_head, &header);
        let packets = count_packets(&source, &header, data_packets)?;
        if packets == 0 {
            return Err(NotAsf::NoPackets.into());
        }
        let front = Front::read(&source, &header, packets)?;
        let (end_ms, sent_ms) = read_tail(&source, packets)?;
        let preroll_ms = u64::from(header.preroll_ms());
        let begin_ms = front.first_ms.unwrap_or_default().saturating_sub(preroll_ms);
        let begin_ms = if begin_ms < PROMPT_MS { 0 } else { begin_ms };
        let seen_ms = end_ms.saturating_sub(preroll_ms + begin_ms);
        let whole = data_packets.into_iter().chain(header.packet_count()).min().is_none_or(|stated| stated <= packets);
        let play_duration_ms = header
            .play_duration_ms()
            .filter(|stated| whole && *stated <= 2 * seen_ms + 10_000 && seen_ms <= 2 * stated + 10_000)
            .unwrap_or(seen_ms);
        let index = match front.leader {
            Some(leader) => read_index(&source, &header, leader, packets, data_packets)?,
            None => None,
        };
        Ok(Self {
            head,
            data_start,
            packets,
            play_duration_ms,
            send_duration_ms: sent_ms.saturating_sub(front.first_sent_ms.unwrap_or_default()),
            begin_ms,
            lead_ms: front.lead_ms,
            index,
            can_seek: packets > 1 && play_duration_ms > 0,
            leader: front.leader,
            header,
        })
    }
}

/// Packets of a file that is being read.
struct Source<'a> {
    disk: &'a Disk,
    data_start: u64,
    /// Of a packet, bytes.
    size: u64,
}

impl Source<'_> {
    /// Packets by the length of the file alone.
    const fn held(&self) -> u64 {
        self.disk.len().saturating_sub(self.data_start) / self.size
    }

    fn packets(&self, first: u64, count: u64) -> Result<Vec<u8>, ReadError> {
        read(self.disk, self.data_start + first * self.size, count * self.size)
    }
}

fn read(disk: &Disk, at: u64, len: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ReadError::PastTheEnd)?];
    disk.read(at, &mut bytes)?;
    Ok(bytes)
}

/// The header, where the Data Object begins, and its head.
fn read_head(disk: &Disk) -> Result<(Header, u64, [u8; DATA_HEAD_LEN]), OpenError> {
    let mut first = read(disk, 0, disk.len().min(FIRST_READ_LEN as u64))?;
    if first.starts_with(b"$H") {
        return Err(NotAsf::ChunkFramed.into());
    }
    let len = Header::gather_len(&first).map_err(NotAsf::from)?.ok_or(NotAsf::Header(HeaderError::NotAsf))?;
    if len > first.len() {
        first = read(disk, 0, disk.len().min(len as u64))?;
    }
    let header = Header::parse(&first).map_err(NotAsf::from)?;
    let mut at = header.bytes().len() as u64;
    for _ in 0..MAX_OBJECTS {
        let present = disk.len().saturating_sub(at);
        if present < DATA_HEAD_LEN as u64 {
            break;
        }
        let mut head = [0; DATA_HEAD_LEN];
        disk.read(at, &mut head)?;
        if head.starts_with(&guids::DATA.0) {
            return Ok((header, at, head));
        }
        let Some((_, size)) = index::object_head(&head, present) else { break };
        at += size;
    }
    Err(NotAsf::NoData.into())
}

/// Packets by the Data Object's size, where that is a whole number of them and no fill pattern.
fn stated_by_data(head: &[u8], header: &Header) -> Option<u64> {
    let mut cursor = Cursor::new(head);
    cursor.guid("object id").ok()?;
    let len = cursor.u64("object size").ok()?.checked_sub(DATA_HEAD_LEN as u64)?;
    let (count, rest) = (len / header.packet_size() as u64, len % header.packet_size() as u64);
    (rest == 0 && (1..ABSURD_PACKET_COUNT).contains(&count)).then_some(count)
}

/// How many packets there are: what the file holds, or less where the header or the Data Object say less.
///
/// Where neither knows, or they claim more than there is, what stands behind the last sound packet is none: an index,
/// or zeros of a disk that ran full.
fn count_packets(source: &Source<'_>, header: &Header, data_packets: Option<u64>) -> Result<u64, ReadError> {
    let held = source.held();
    let stated = data_packets.into_iter().chain(header.packet_count()).min();
    if let Some(stated) = stated.filter(|stated| *stated <= held) {
        return Ok(stated);
    }
    let streams: StreamSet = header.streams().iter().map(|stream| stream.number).collect();
    let sound = |number| -> Result<bool, ReadError> {
        let packet = source.packets(number, 1)?;
        Ok(walk(&packet).is_ok_and(|info| info.streams.iter().all(|stream| streams.contains(stream))))
    };
    // Longer and longer strides back to a sound packet, then halves of the last stride.
    let (mut end, mut stride) = (held, 1);
    let mut last = loop {
        let Some(candidate) = end.checked_sub(stride) else {
            if end == 0 || !sound(0)? {
                return Ok(0);
            }
            break 0;
        };
        if sound(candidate)? {
            break candidate;
        }
        (end, stride) = (candidate, stride * 2);
    };
    while last + 1 < end {
        let middle = last + (end - last) / 2;
        if sound(middle)? {
            last = middle;
        } else {
            end = middle;
        }
    }
    Ok(last + 1)
}

/// What the first packets tell.
#[derive(Default)]
struct Front {
    /// The smallest presentation time.
    first_ms: Option<u64>,
    first_sent_ms: Option<u64>,
    lead_ms: u32,
    leader: Option<u8>,
}

impl Front {
    fn read(source: &Source<'_>, header: &Header, packets: u64) -> Result<Self, ReadError> {
        let mut front = Self::default();
        let mut number = 0;
        let wanted = |front: &Self| {
            let leaderless = front.leader.is_none() && !header.video().is_empty();
            packets.min(if leaderless { KEY_SEARCH_PACKETS.max(KEY_SEARCH_LEN / source.size) } else { FRONT_PACKETS })
        };
        while number < wanted(&front) {
            let count = (wanted(&front) - number).min((32 << 10) / source.size + 1);
            for packet in source.packets(number, count)?.chunks_exact(header.packet_size()) {
                front.note(packet, header, number);
                number += 1;
            }
        }
        Ok(front)
    }

    fn note(&mut self, packet: &[u8], header: &Header, number: u64) {
        let Ok(info) = walk(packet) else { return };
        if number < FRONT_PACKETS || self.leader.is_none() {
            let key = info.key_starts.iter().find(|stream| header.video().contains(*stream));
            self.leader = self.leader.into_iter().chain(key).min();
        }
        if number >= FRONT_PACKETS {
            return;
        }
        self.first_sent_ms.get_or_insert(info.send_time_ms.into());
        for payload in payloads(packet).into_iter().flatten() {
            let ms = u64::from(payload.presentation_ms);
            self.first_ms = Some(self.first_ms.map_or(ms, |first| first.min(ms)));
            self.lead_ms = self.lead_ms.max(payload.presentation_ms.saturating_sub(info.send_time_ms));
        }
    }
}

/// The largest presentation time and the end of the last sending, ms, in the last packets; 0 where none is sound.
fn read_tail(source: &Source<'_>, packets: u64) -> Result<(u64, u64), ReadError> {
    let count = packets.min(FRONT_PACKETS).min(TAIL_LEN / source.size).max(1);
    let (mut end_ms, mut sent_ms) = (0, 0);
    let bytes = source.packets(packets - count, count)?;
    for packet in bytes.chunks_exact(usize::try_from(source.size).unwrap_or(usize::MAX)) {
        let Ok(info) = walk(packet) else { continue };
        sent_ms = sent_ms.max(u64::from(info.send_time_ms) + u64::from(info.duration_ms));
        for payload in payloads(packet).into_iter().flatten() {
            end_ms = end_ms.max(u64::from(payload.presentation_ms));
        }
    }
    Ok((end_ms, sent_ms))
}

/// The index for the leading video stream among the objects behind the data.
fn read_index(
    source: &Source<'_>,
    header: &Header,
    leader: u8,
    packets: u64,
    data_packets: Option<u64>,
) -> Result<Option<Index>, ReadError> {
    let bounds = IndexBounds { packets, packet_size: u32::try_from(source.size).unwrap_or(u32::MAX) };
    let video = header.streams().iter().filter(|stream| stream.kind == StreamKind::Video).map(|stream| stream.number).collect();
    let mut search = IndexSearch::new(bounds, video, leader);
    // More packets than are counted stand in front of it where the header states less than the Data Object.
    let before = data_packets.filter(|stated| *stated <= source.held()).unwrap_or(packets);
    let mut at = source.data_start + before * source.size;
    for _ in 0..MAX_OBJECTS {
        let present = source.disk.len().saturating_sub(at);
        let head = read(source.disk, at, present.min(24))?;
        let Some((guid, size)) = index::object_head(&head, present) else { break };
        let object = if search.wants(guid, size) { read(source.disk, at, size)? } else { Vec::new() };
        search.take(guid, &object);
        at += size;
    }
    Ok(search.finish())
}

#[cfg(test)]
mod tests;
