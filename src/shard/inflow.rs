//! What comes from an upstream for one viewer, on its way to the shard.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

/// Bytes that wait, beyond which the upstream is left unread.
const ROOM_BYTES: usize = 1 << 20;

/// One thing that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A packet, with the upstream's number.
    Packet {
        /// The number, LocationId.
        location: u32,
        /// All of it, padding included.
        bytes: Bytes,
    },
    /// The play has come to its end.
    End,
    /// The play cannot go on; why.
    Lost(String),
}

/// A queue from a connection to the shard of its viewer, bounded by the reader of `room`.
pub struct Inflow {
    queue: Mutex<Queue>,
    room: watch::Sender<bool>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    /// Each with the play that it belongs to.
    items: VecDeque<(u32, Item)>,
    bytes: usize,
    /// Somebody found nothing in it.
    waits: bool,
    /// Plays up to this one are over: what still comes of them is of no use.
    over: u32,
}

impl Inflow {
    /// `wake` is called when something has come for who found nothing; on the thread of who brings it.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { queue: Mutex::default(), room: watch::Sender::new(true), wake }
    }

    /// Whether more may be read.
    pub fn room(&self) -> watch::Receiver<bool> {
        self.room.subscribe()
    }

    /// Puts in what belongs to a play.
    pub fn push(&self, play: u32, item: Item) {
        let mut queue = self.lock();
        if play <= queue.over {
            return;
        }
        queue.bytes += item.len();
        queue.items.push_back((play, item));
        let (bytes, waits) = (queue.bytes, std::mem::take(&mut queue.waits));
        drop(queue);
        self.tell(bytes);
        if waits {
            (self.wake)();
        }
    }

    /// Takes the next of a play out, and what is of others; `None` where there is nothing yet: `wake` is then called when there is.
    pub fn pop(&self, play: u32) -> Option<Item> {
        let mut queue = self.lock();
        let mut found = None;
        while let Some((of, item)) = queue.items.pop_front() {
            queue.bytes -= item.len();
            if of == play {
                found = Some(item);
                break;
            }
        }
        queue.waits = found.is_none();
        let bytes = queue.bytes;
        drop(queue);
        self.tell(bytes);
        found
    }

    /// Puts back what was taken out last.
    pub(super) fn put_back(&self, play: u32, item: Item) {
        let mut queue = self.lock();
        queue.bytes += item.len();
        queue.items.push_front((play, item));
    }

    /// A play is over: nobody wants what is there of it, or still comes.
    pub(super) fn end(&self, play: u32) {
        *self.lock() = Queue { over: play, ..Queue::default() };
        self.tell(0);
    }

    fn tell(&self, bytes: usize) {
        let has_room = bytes < ROOM_BYTES;
        self.room.send_if_modified(|room| std::mem::replace(room, has_room) != has_room);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Packet { bytes, .. } => bytes.len(),
            Self::End | Self::Lost(_) => 0,
        }
    }
}

impl fmt::Debug for Inflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflow").field("bytes", &self.lock().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn bounded_by_its_room_and_one_play_at_a_time() {
        let wakes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&wakes);
        let inflow = Inflow::new(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let room = inflow.room();
        let packet = |location| Item::Packet { location, bytes: vec![0; ROOM_BYTES / 2].into() };
        inflow.push(1, packet(7));
        assert_eq!((*room.borrow(), wakes.load(Ordering::Relaxed)), (true, 0), "nobody waits");
        inflow.push(2, packet(8));
        assert!(!*room.borrow());
        assert_eq!(inflow.pop(2), Some(packet(8)), "what is of the play before goes");
        assert!(*room.borrow());
        assert_eq!(inflow.pop(2), None);
        inflow.push(2, Item::End);
        inflow.push(2, Item::Lost(String::new()));
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        assert_eq!(inflow.pop(2), Some(Item::End));
        inflow.push(3, packet(1));
        inflow.end(3);
        inflow.push(3, packet(2));
        assert_eq!((inflow.pop(3), *room.borrow()), (None, true), "it is over, whatever still comes");
        inflow.push(4, packet(3));
        assert_eq!(inflow.pop(4), Some(packet(3)));
    }
}
