//! The seam between the relay and the threads that serve viewers.

use std::sync::Arc;

use super::batch::{Batch, Generation};
use super::ids::Vacancy;

/// Number of a publishing point: dense, from 0, at the start in the order of the settings. One that is gone leaves its number to another
/// when no shard keeps anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub u32);

/// What a publishing point tells every shard, in this order: a generation comes before its batches.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// A header that differs from the one before, or the first one.
    Generation {
        /// Of which publishing point.
        point: PointId,
        /// The header.
        generation: Arc<Generation>,
    },
    /// Packets to send now.
    Batch {
        /// Of which publishing point.
        point: PointId,
        /// The packets.
        batch: Arc<Batch>,
    },
    /// The source is gone; viewers wait for it.
    SourceLost {
        /// Of which publishing point.
        point: PointId,
    },
    /// The source stayed away longer than its time-out: viewers get the end of the stream.
    Ended {
        /// Of which publishing point.
        point: PointId,
    },
    /// A publishing point is gone, and nobody watches it: nothing of it is to be kept.
    Vacated {
        /// Of which publishing point.
        point: PointId,
        /// To be dropped when that is done.
        vacancy: Arc<Vacancy>,
    },
}

/// The mailbox of a shard.
pub trait ShardPort: Send + Sync {
    /// Takes a delivery. Called under the lock of the publishing point, so that all shards see one order:
    /// it must neither block nor call the relay.
    fn deliver(&self, delivery: Delivery);
}
