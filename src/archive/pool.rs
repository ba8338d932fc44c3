//! The threads that read, and their queue.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shield::shielded;
use super::{AsfFile, Inner};

/// Reads of blocks that are only foreseen wait in the queue up to so many times the number of readers.
const FORESEEN_PER_READER: usize = 4;

/// So many blocks are read in a row while a task waits: viewers go first, but who comes is let in.
const BLOCKS_IN_A_ROW: u32 = 8;

/// An opening or a search; it is told by the archive itself when that is closing.
pub(super) type Task = Box<dyn FnOnce(&Arc<Inner>) + Send>;

/// The queue. Blocks go before tasks, and tasks leave a thread to them where there are two: a long search makes no
/// viewer late.
pub(super) struct Pool {
    queue: Mutex<Queue>,
    more: Condvar,
    readers: usize,
    check_every: Option<Duration>,
}

struct Queue {
    blocks: VecDeque<(Arc<AsfFile>, u64)>,
    tasks: VecDeque<Task>,
    tasks_running: usize,
    /// Blocks taken since the last task.
    in_a_row: u32,
    /// When the open files are looked at next, if ever; `None` while a thread does.
    check_at: Option<Instant>,
    closed: bool,
}

enum Job {
    Block(Arc<AsfFile>, u64),
    Task(Task),
    Check,
}

impl Queue {
    /// The next read or task, if one may run.
    fn take(&mut self, readers: usize) -> Option<Job> {
        let task_may_run = !self.tasks.is_empty() && self.tasks_running < (readers - 1).max(1);
        if !(task_may_run && self.in_a_row >= BLOCKS_IN_A_ROW)
            && let Some((file, number)) = self.blocks.pop_front()
        {
            self.in_a_row = self.in_a_row.saturating_add(1);
            return Some(Job::Block(file, number));
        }
        if !task_may_run {
            return None;
        }
        let task = self.tasks.pop_front()?;
        self.in_a_row = 0;
        self.tasks_running += 1;
        Some(Job::Task(task))
    }
}

/// The time, for the interval of checks.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Pool {
    pub(super) fn new(readers: usize, check_every: Option<Duration>) -> Self {
        let queue = Queue {
            blocks: VecDeque::new(),
            tasks: VecDeque::new(),
            tasks_running: 0,
            in_a_row: 0,
            check_at: check_every.map(|every| now() + every),
            closed: false,
        };
        Self { queue: Mutex::new(queue), more: Condvar::new(), readers, check_every }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// No more jobs; the threads end when the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    /// Queues the read of a block; `false` where the pool is closed.
    pub(super) fn push_block(&self, file: &Arc<AsfFile>, number: u64) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        queue.blocks.push_back((file.clone(), number));
        drop(queue);
        self.more.notify_one();
        true
    }

    /// Whether there is room for a read that nobody waits for yet.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.lock();
        !queue.closed && queue.blocks.len() < self.readers * FORESEEN_PER_READER
    }

    /// Queues a task, or gives it back where the pool is closed.
    pub(super) fn push_task(&self, task: Task) -> Result<(), Task> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(task);
        }
        queue.tasks.push_back(task);
        drop(queue);
        self.more.notify_one();
        Ok(())
    }

    /// The next job, waiting for it; `None` when the pool is closed and all is done.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            let wait = match queue.check_at {
                Some(at) if !queue.closed => {
                    let wait = at.saturating_duration_since(now());
                    if wait.is_zero() {
                        queue.check_at = None;
                        if !queue.blocks.is_empty() || !queue.tasks.is_empty() {
                            // Whoever was woken for these does something else now.
                            self.more.notify_one();
                        }
                        return Some(Job::Check);
                    }
                    Some(wait)
                }
                _ => None,
            };
            if let Some(job) = queue.take(self.readers) {
                return Some(job);
            }
            if queue.closed && queue.tasks.is_empty() {
                return None;
            }
            queue = match wait {
                Some(wait) => self.more.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.more.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// What a reader thread does until the pool is closed.
    pub(super) fn run(archive: &Arc<Inner>) {
        let pool = &archive.pool;
        while let Some(job) = pool.next() {
            match job {
                Job::Block(file, number) => shielded("the read of a block", || file.read_queued(number)),
                Job::Task(task) => {
                    shielded("an opening or a search", || task(archive));
                    pool.lock().tasks_running -= 1;
                    pool.more.notify_one();
                }
                Job::Check => {
                    shielded("the check of open files", || archive.check_files());
                    pool.lock().check_at = pool.check_every.map(|every| now() + every);
                    pool.more.notify_one();
                }
            }
        }
    }
}
