//! Blocks in memory, bounded in bytes over all files, and who waits for those that are not there yet.
//!
//! A block is read once however many ask for it: the first asker has it queued, the others wait along.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use metrics::Gauge;

use super::disk::FileId;
use super::shield::shielded;
use super::{Block, ReadError};
use crate::metrics as names;

/// What is told when a block is there or cannot be read. Called on a reader thread, so it must not block.
pub type Wake = Box<dyn FnOnce(Result<Arc<Block>, ReadError>) + Send>;

/// A block of a file.
pub(super) type Key = (FileId, u64);

/// At most so many parts, each with its own lock.
const SHARDS: usize = 16;
/// A part smaller than this would hold too few blocks to tell the old from the new.
const MIN_SHARD_BYTES: usize = 2 << 20;

/// What an asker finds.
pub(super) enum Asked {
    Here(Arc<Block>),
    /// Nobody has asked before: a read must be queued.
    First,
    /// It is queued or being read.
    Waits,
}

/// What a thread finds that may read by itself.
pub(super) enum Claim {
    Here(Arc<Block>),
    /// The thread must read it and [finish](BlockCache::finish).
    Read,
    /// Another thread is reading it now.
    Waits(mpsc::Receiver<Result<Arc<Block>, ReadError>>),
}

enum Slot {
    Here { block: Arc<Block>, used: u64 },
    Wanted { waiters: Vec<Wake>, reading: bool },
}

/// One part of the cache.
#[derive(Default)]
struct Shard {
    slots: HashMap<Key, Slot>,
    /// The blocks that are here by the time of their last use.
    order: BTreeMap<u64, Key>,
    /// Counts uses.
    clock: u64,
    bytes: usize,
}

/// All blocks.
pub(super) struct BlockCache {
    shards: Box<[Mutex<Shard>]>,
    /// The bound of each.
    shard_bytes: usize,
    gauge: Gauge,
}

impl BlockCache {
    pub(super) fn new(bytes: usize) -> Self {
        let shards = (bytes / MIN_SHARD_BYTES).clamp(1, SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_bytes: bytes / shards,
            gauge: metrics::gauge!(names::CACHE_BYTES),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the length, which is not zero")]
    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        // The file's number is a hash already; neighbouring blocks go to different shards.
        let number = (key.0 ^ u128::from(key.1)) % self.shards.len() as u128;
        self.shards[usize::try_from(number).unwrap_or_default()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a block; `wake` is kept where it is not here.
    pub(super) fn ask(&self, key: Key, wake: impl FnOnce() -> Wake) -> Asked {
        let mut shard = self.shard(key);
        if let Some(block) = shard.here(key) {
            return Asked::Here(block);
        }
        match shard.slots.entry(key).or_insert_with(|| Slot::Wanted { waiters: Vec::new(), reading: false }) {
            Slot::Wanted { waiters, reading } => {
                let first = waiters.is_empty() && !*reading;
                waiters.push(wake());
                if first { Asked::First } else { Asked::Waits }
            }
            Slot::Here { block, .. } => Asked::Here(block.clone()),
        }
    }

    /// Notes that a block will be wanted; `false` where it is here, or on its way.
    pub(super) fn want(&self, key: Key) -> bool {
        match self.shard(key).slots.entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(Slot::Wanted { waiters: Vec::new(), reading: false });
                true
            }
        }
    }

    /// Takes the read of a queued block over; `false` where another thread has it, or had.
    pub(super) fn begin(&self, key: Key) -> bool {
        match self.shard(key).slots.get_mut(&key) {
            Some(Slot::Wanted { reading, .. }) => !std::mem::replace(reading, true),
            _ => false,
        }
    }

    /// Asks for a block on a thread that reads. It never waits for a read that has not begun: that one it takes over,
    /// so that threads cannot wait for one another.
    pub(super) fn claim(&self, key: Key) -> Claim {
        let mut shard = self.shard(key);
        if let Some(block) = shard.here(key) {
            return Claim::Here(block);
        }
        match shard.slots.entry(key).or_insert_with(|| Slot::Wanted { waiters: Vec::new(), reading: false }) {
            Slot::Wanted { waiters, reading: true } => {
                let (told, answer) = mpsc::sync_channel(1);
                waiters.push(Box::new(move |result| _ = told.send(result)));
                Claim::Waits(answer)
            }
            Slot::Wanted { reading, .. } => {
                *reading = true;
                Claim::Read
            }
            Slot::Here { block, .. } => Claim::Here(block.clone()),
        }
    }

    /// Ends a read: keeps the block, unless it would not be read again, and tells all who wait.
    pub(super) fn finish(&self, key: Key, result: &Result<Arc<Block>, ReadError>) {
        let waiters = {
            let mut shard = self.shard(key);
            let waiters = match shard.slots.remove(&key) {
                Some(Slot::Wanted { waiters, .. }) => waiters,
                Some(Slot::Here { block, used }) => {
                    self.drop_bytes(&mut shard, used, block.size());
                    Vec::new()
                }
                None => Vec::new(),
            };
            if let Ok(block) = result {
                shard.clock += 1;
                let used = shard.clock;
                shard.order.insert(used, key);
                shard.bytes += block.size();
                self.gauge.increment(float(block.size()));
                shard.slots.insert(key, Slot::Here { block: block.clone(), used });
                self.evict(&mut shard);
            }
            waiters
        };
        for wake in waiters {
            let result = result.clone();
            shielded("a waiting viewer", move || wake(result));
        }
    }

    /// Drops the blocks of a file. Those who hold one keep it.
    pub(super) fn forget(&self, file: FileId) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<_> = shard.order.iter().filter(|(_, key)| key.0 == file).map(|(used, key)| (*used, *key)).collect();
            for (used, key) in gone {
                if let Some(Slot::Here { block, .. }) = shard.slots.remove(&key) {
                    self.drop_bytes(&mut shard, used, block.size());
                }
            }
        }
    }

    /// Bytes of all blocks that are here.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes).sum()
    }

    fn evict(&self, shard: &mut Shard) {
        while shard.bytes > self.shard_bytes {
            let Some((used, key)) = shard.order.pop_first() else { break };
            if let Some(Slot::Here { block, .. }) = shard.slots.remove(&key) {
                self.drop_bytes(shard, used, block.size());
            }
        }
    }

    fn drop_bytes(&self, shard: &mut Shard, used: u64, len: usize) {
        shard.order.remove(&used);
        shard.bytes -= len;
        self.gauge.decrement(float(len));
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        self.gauge.decrement(float(self.bytes()));
    }
}

impl Shard {
    /// A block that is here, used just now.
    fn here(&mut self, key: Key) -> Option<Arc<Block>> {
        let Some(Slot::Here { block, used }) = self.slots.get_mut(&key) else { return None };
        self.clock += 1;
        self.order.remove(used);
        *used = self.clock;
        self.order.insert(self.clock, key);
        Some(block.clone())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a cache has less than 2^53 bytes")]
const fn float(bytes: usize) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests;
