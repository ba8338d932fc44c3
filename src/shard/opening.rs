//! A file on demand as viewers are given it.

use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::archive::{AsfFile, Lookup};
use crate::asf::{self, Kept, OnDemandFacts, Recut, Selection, Selector, StreamSet};
use crate::viewing::Until;
use crate::viewing::{Content, Description};
use crate::wire::Guid;

/// A file as viewers are given it: as it is, or cut anew.
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
            ssrc: 0,
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
    pub(super) fn send_time_ms(&self, number: u64, packet: &[u8]) -> u32 {
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

/// Where a play ends before the end of its file, in the file's own time, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    At(u64),
    /// So long after the first packet.
    After(u32),
}
