//! Where the packets of a viewer of a file come from: the file's blocks, by its selection.

use std::rc::Rc;
use std::sync::Arc;

use super::file_pace::FilePace;
use super::opening::{End, Opening};
use super::seat::{Served, Turn};
use super::stage::Stage;
use crate::archive::{Block, Lookup, ReadError};
use crate::asf::{self, Selection, Selector};

/// Packets of a file that are looked at in one turn of a viewer.
const MOST_AT_ONCE: u32 = 512;
/// Bytes gathered for one call.
const STAGE_BYTES: usize = 64 << 10;

/// One viewer's way through a file.
pub(super) struct FileFeed {
    pub(super) opening: Rc<Opening>,
    selector: Selector,
    /// Number of the packet to look at next; those that the viewer did not select are behind it, but were not sent.
    cursor: u64,
    block: Option<Arc<Block>>,
    /// The block that is being read for it.
    reading: Option<u64>,
    until: Option<End>,
}

impl FileFeed {
    /// From packet `from` on, as the viewer counts.
    pub(super) fn new(opening: Rc<Opening>, selection: Selection, from: u64, until: Option<End>) -> Self {
        let selector = opening.selector(selection);
        Self { opening, selector, cursor: from, block: None, reading: None, until }
    }

    /// Another selection from here on; whether it is another one.
    pub(super) fn select(&mut self, selection: Selection) -> bool {
        let differs = self.selector.selection() != selection;
        self.selector.switch(selection);
        differs
    }

    /// A block that it asked for has come; it may be wanted no more.
    pub(super) fn take_block(&mut self, block: Arc<Block>) {
        self.reading = None;
        if block.packet(self.opening.source_packet(self.cursor)).is_some() {
            self.opening.file.prefetch(block.first() / self.opening.file.packets_per_block() + 1);
            self.block = Some(block);
        }
    }

    /// Gathers what is due; tells why it stopped, where that is not for want of room.
    pub(super) fn gather(&mut self, turn: &mut Turn<'_>, pace: &mut FilePace, stage: &mut Stage) -> Option<Served> {
        let now = turn.now;
        let opening = Rc::clone(&self.opening);
        let mut looked_at = 0;
        while stage.len() < turn.most && stage.bytes() < STAGE_BYTES {
            looked_at += 1;
            if looked_at > MOST_AT_ONCE {
                // Others first: a selection may keep nothing of a long file.
                return Some(Served::Until(now));
            }
            let number = opening.source_packet(self.cursor);
            if number >= opening.file.description().packets {
                return Some(Served::Finished);
            }
            let block = match self.block(number, pace, turn) {
                Ok(Some(block)) => block,
                Ok(None) => return Some(Served::Waiting),
                Err(error) => return Some(Served::Broken(error.to_string())),
            };
            let packet = block.packet(number).unwrap_or_default();
            let send_time_ms = opening.send_time_ms(number, packet);
            let due = pace.due(send_time_ms, stage.bytes());
            if due > now {
                return Some(Served::Until(due.max(now + pace.portion(turn.tick))));
            }
            if self.is_past_end(packet) {
                return Some(Served::Finished);
            }
            opening.cut(number, packet, &mut self.selector, |number, packet| stage.push(turn.framing, number, packet, due));
            pace.passed(send_time_ms);
            self.cursor = opening.first_part(number + 1);
        }
        None
    }

    /// When the packet that is looked at next is to be sent, on the file's clock, milliseconds; `None` where it is not in memory.
    pub(super) fn next_send_time_ms(&self) -> Option<u32> {
        let number = self.opening.source_packet(self.cursor);
        let file = &self.opening.file;
        let read = match &self.block {
            Some(block) if block.packet(number).is_some() => Some(Arc::clone(block)),
            _ => match file.block(number / file.packets_per_block(), || Box::new(|_| ())) {
                Lookup::Here(block) => Some(block),
                Lookup::Pending | Lookup::Failed(_) => None,
            },
        };
        asf::send_time_ms(read?.packet(number)?)
    }

    /// The block of a packet; `None` while it is being read.
    fn block(&mut self, number: u64, pace: &FilePace, turn: &mut Turn<'_>) -> Result<Option<Arc<Block>>, ReadError> {
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
        match file.block(index, || (turn.wake)()) {
            Lookup::Here(block) => {
                self.reading = None;
                file.prefetch(index + 1);
                self.block = Some(Arc::clone(&block));
                Ok(Some(block))
            }
            Lookup::Pending => {
                if self.reading.replace(index) != Some(index) && pace.is_under_way() {
                    turn.tally.late_reads += 1;
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
}
