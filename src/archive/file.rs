//! An ASF file that is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;

use super::block::{self, Block};
use super::cache::{Asked, Claim, Key, Wake};
use super::describe::Description;
use super::disk::{Disk, FileId};
use super::key_table::KeyTableCell;
use super::locate::{Search, Start};
use super::shield::caught;
use super::{Inner, ReadError};
use crate::asf::StreamSet;

/// What came of asking for a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// In memory.
    Here(Arc<Block>),
    /// It is being read; the caller is woken.
    Pending,
    /// It will not come.
    Failed(ReadError),
}

/// An ASF file that is open: what it is, and its packets in blocks.
///
/// All who open the same file share one. It is closed when the last of them lets go.
pub struct AsfFile {
    archive: Arc<Inner>,
    disk: Disk,
    /// By which the cache knows its blocks.
    cache_id: FileId,
    /// Goes with the file.
    alive: Arc<()>,
    description: Description,
    packets_per_block: u64,
    fault: OnceLock<ReadError>,
    pub(super) learnt: Learnt,
    /// The next read panics.
    #[cfg(test)]
    pub(super) read_panics: AtomicBool,
}

/// What searches have found out about a file.
#[derive(Default)]
pub(super) struct Learnt {
    /// The index has led astray.
    pub(super) index_is_wrong: AtomicBool,
    /// Whether send times rise, by a probe.
    pub(super) rises: OnceLock<bool>,
    /// The key frames of a file whose send times do not rise.
    pub(super) keys: KeyTableCell,
}

impl AsfFile {
    pub(super) fn new(archive: Arc<Inner>, disk: Disk, cache_id: FileId, description: Description) -> Self {
        Self {
            archive,
            disk,
            cache_id,
            alive: Arc::default(),
            packets_per_block: block::packets_per_block(description.header.packet_size()),
            description,
            fault: OnceLock::new(),
            learnt: Learnt::default(),
            #[cfg(test)]
            read_panics: AtomicBool::new(false),
        }
    }

    /// What the file is, as read when it was opened.
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Packets in each block but the last: as many as 32 KiB hold, at least 1.
    pub const fn packets_per_block(&self) -> u64 {
        self.packets_per_block
    }

    /// How many blocks there are, at least 1. Block *b* begins with packet *b* × [`Self::packets_per_block`].
    pub const fn blocks(&self) -> u64 {
        self.description.packets.div_ceil(self.packets_per_block)
    }

    /// Why the file can no longer be read, once that is known; cheap.
    pub fn fault(&self) -> Option<ReadError> {
        self.fault.get().cloned()
    }

    /// Bytes of the file.
    pub const fn bytes(&self) -> u64 {
        self.disk.len()
    }

    /// When it was last written, seconds of Unix time.
    pub const fn modified_s(&self) -> i64 {
        self.disk.modified_s()
    }

    /// Another number for another file, or the same one after a change.
    pub fn identity(&self) -> u64 {
        self.disk.identity()
    }

    /// Reads bytes of the file as it stands, past the cache. `done` is called on a reader thread and must not block.
    pub fn read_bytes(self: &Arc<Self>, at: u64, len: usize, done: Box<dyn FnOnce(Result<Bytes, ReadError>) + Send>) {
        let file = Arc::clone(self);
        let task: super::pool::Task = Box::new(move |_| {
            done(caught("the read of a download", || file.bytes_now(at, len)).and_then(|read| read));
        });
        if let Err(task) = self.archive.pool.push_task(task) {
            // Nothing is read then.
            task(&self.archive);
        }
    }

    fn bytes_now(&self, at: u64, len: usize) -> Result<Bytes, ReadError> {
        if self.archive.pool.is_closed() {
            return Err(ReadError::Closed);
        }
        if at.checked_add(len as u64).is_none_or(|end| end > self.bytes()) {
            return Err(ReadError::PastTheEnd);
        }
        let mut bytes = vec![0; len];
        let read = self.disk.read(at, &mut bytes);
        if let Err(error @ (ReadError::Changed | ReadError::Vanished)) = &read {
            self.fail(error.clone());
        }
        read.map(|()| bytes.into())
    }

    /// Asks for a block. One that is not in memory is read once for all who ask; `wake` then makes what is called with
    /// it, on a reader thread.
    ///
    /// Never blocks. Takes a lock for a moment, so ask once a block, not once a packet.
    pub fn block(self: &Arc<Self>, number: u64, wake: impl FnOnce() -> Wake) -> Lookup {
        if let Some(fault) = self.fault() {
            return Lookup::Failed(fault);
        }
        if number >= self.blocks() {
            return Lookup::Failed(ReadError::PastTheEnd);
        }
        match self.archive.cache.ask(self.key(number), wake) {
            Asked::Here(block) => {
                self.archive.counters.hit();
                Lookup::Here(block)
            }
            Asked::Waits => Lookup::Pending,
            Asked::First => {
                if !self.archive.pool.push_block(self, number) {
                    self.read_queued(number);
                }
                Lookup::Pending
            }
        }
    }

    /// Has a block read that will be wanted soon. Does nothing where it is in memory or on its way, where the file has
    /// no such block, or where the readers are busy.
    pub fn prefetch(self: &Arc<Self>, number: u64) {
        if self.fault.get().is_some() || number >= self.blocks() || !self.archive.pool.has_room() {
            return;
        }
        if self.archive.cache.want(self.key(number)) && !self.archive.pool.push_block(self, number) {
            self.read_queued(number);
        }
    }

    /// Finds the packet from which to play: that in which the last key frame at or before a place begins.
    ///
    /// `done` is called on a reader thread and must not block. Beyond the end, the last key frame is found; before the
    /// first, packet 0. Without video every packet serves. Source: MS-MMSP 3.2.5.11.
    pub fn locate(self: &Arc<Self>, start: Start, done: Box<dyn FnOnce(Result<u64, ReadError>) + Send>) {
        self.locate_for(start, None, done);
    }

    /// The same for a viewer of some streams alone: where the stream whose key frames count is not among them, those of the
    /// lowest video stream that is do. `None`: of all.
    pub fn locate_for(
        self: &Arc<Self>,
        start: Start,
        streams: Option<StreamSet>,
        done: Box<dyn FnOnce(Result<u64, ReadError>) + Send>,
    ) {
        Search::new(self, start, streams, None, done).queue();
    }

    /// The same for somebody who may leave: when the last that `wanted` points to is dropped, the search ends soon, with
    /// [`ReadError::Unwanted`] if it has found nothing yet. `done` is called in any case.
    pub fn locate_while(
        self: &Arc<Self>,
        wanted: Weak<()>,
        start: Start,
        streams: Option<StreamSet>,
        done: Box<dyn FnOnce(Result<u64, ReadError>) + Send>,
    ) {
        Search::new(self, start, streams, Some(wanted), done).queue();
    }

    /// What the file was opened by.
    pub(super) const fn archive(&self) -> &Arc<Inner> {
        &self.archive
    }

    const fn key(&self, number: u64) -> Key {
        (self.cache_id, number)
    }

    /// Looks whether the file is still the one at its place, and faults it if not.
    pub(super) fn check(&self) {
        if self.fault.get().is_none()
            && let Err(error) = self.disk.check()
        {
            self.fail(error);
        }
    }

    fn fail(&self, error: ReadError) {
        if self.fault.get().is_none() {
            // First of all: whoever sees the fault opens the file anew.
            self.archive.faulted_files().push((self.disk.id(), Arc::downgrade(&self.alive)));
        }
        if self.fault.set(error).is_ok() {
            self.archive.cache.forget(self.cache_id);
        }
    }

    /// Reads a block that was queued, unless somebody else has.
    pub(super) fn read_queued(&self, number: u64) {
        if self.archive.cache.begin(self.key(number)) {
            let _ = self.read_claimed(number);
        }
    }

    /// A block, read on this thread if need be, which must be a reader thread.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(super) fn block_now(&self, number: u64) -> Result<Arc<Block>, ReadError> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        match self.archive.cache.claim(self.key(number)) {
            Claim::Here(block) => {
                self.archive.counters.hit();
                Ok(block)
            }
            Claim::Read => self.read_claimed(number),
            Claim::Waits(answer) => answer.recv().unwrap_or(Err(ReadError::Closed)),
        }
    }

    fn read_claimed(&self, number: u64) -> Result<Arc<Block>, ReadError> {
        let result = caught("the read of a block", || self.read(number)).and_then(|read| read).map(Arc::new);
        if let Err(error @ (ReadError::Changed | ReadError::Vanished)) = &result {
            self.fail(error.clone());
        }
        self.archive.cache.finish(self.key(number), &result);
        if self.fault.get().is_some() {
            // The fault came while this was read: nothing of the file stays.
            self.archive.cache.forget(self.cache_id);
        }
        result
    }

    fn read(&self, number: u64) -> Result<Block, ReadError> {
        if self.archive.pool.is_closed() {
            return Err(ReadError::Closed);
        }
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        #[cfg(test)]
        assert!(!self.read_panics.swap(false, Ordering::SeqCst), "on purpose");
        let description = &self.description;
        let packet_size = description.header.packet_size();
        let first = number.saturating_mul(self.packets_per_block);
        let count = description.packets.saturating_sub(first).min(self.packets_per_block);
        let len = usize::try_from(count).unwrap_or_default() * packet_size;
        if len == 0 {
            return Err(ReadError::PastTheEnd);
        }
        let mut bytes = vec![0; len];
        self.disk.read(description.data_start + first * packet_size as u64, &mut bytes)?;
        self.archive.counters.read(len);
        Ok(Block::new(first, packet_size, bytes.into_boxed_slice()))
    }

    /// Whether the index may still be trusted.
    pub(super) fn index_is_right(&self) -> bool {
        !self.learnt.index_is_wrong.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for AsfFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsfFile").field("disk", &self.disk).field("fault", &self.fault).finish_non_exhaustive()
    }
}
