//! Files that are played on demand: opened inside their root, described, read in blocks through one bounded cache.
//!
//! Files are read on a few threads of its own and nowhere else. Whoever calls never waits for a disk: what is not in
//! memory is told later. A file that changes or vanishes while it is open is faulted, and new openings get the new one.
//!
//! ```text
//! open ─► beneath (name inside the root) ─► describe (header, counts, index) ─► AsfFile
//! AsfFile::block, prefetch ─► cache ─► pool ─► disk          AsfFile::locate ─► pool ─► locate ─► cache ─► disk
//! ```

mod beneath;
mod block;
mod cache;
mod describe;
mod disk;
mod error;
mod file;
mod key_table;
mod locate;
mod pool;
mod shield;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, counter};

pub use block::Block;
pub use cache::Wake;
pub use describe::Description;
pub use error::{NotAsf, OpenError, ReadError};
pub use file::{AsfFile, Lookup};
pub use locate::Start;

use crate::metrics as names;
use beneath::Place;
use cache::BlockCache;
use disk::{Disk, FileId};
use pool::Pool;
use shield::caught;

/// How often the open files are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How much the archive may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveBounds {
    /// Bytes of blocks in memory, over all files. Blocks that somebody holds beyond that are not counted.
    pub cache_bytes: usize,
    /// Threads that read, at least 1: how many reads the disks get at once.
    pub readers: usize,
}

/// What the archive has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that were in memory when somebody asked.
    pub hits: u64,
    /// Blocks read from disks.
    pub reads: u64,
    /// Bytes of those.
    pub read_bytes: u64,
    /// Bytes of blocks in memory now.
    pub cache_bytes: usize,
}

/// The files that are played on demand. The threads end when it is dropped.
pub struct Archive {
    inner: Arc<Inner>,
    #[cfg(test)]
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What the archive, its threads and its files share.
struct Inner {
    cache: BlockCache,
    pool: Pool,
    open: Mutex<HashMap<FileId, Weak<AsfFile>>>,
    /// Faulted files that somebody still holds: what is under way for them must not reach who opens the same state of the
    /// same file again, as when it was renamed and renamed back.
    faulted: Mutex<Vec<(FileId, Weak<()>)>>,
    /// Counts the files that are in the cache by a number of their own.
    renumbered: AtomicU64,
    counters: Counters,
}

/// Counters, for the metrics and for whoever asks.
struct Counters {
    hits: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    hits_metric: Counter,
    reads_metric: Counter,
    read_bytes_metric: Counter,
}

impl Counters {
    fn new() -> Self {
        Self {
            hits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            hits_metric: counter!(names::CACHE_HITS),
            reads_metric: counter!(names::DISK_READS),
            read_bytes_metric: counter!(names::DISK_READ_BYTES),
        }
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.hits_metric.increment(1);
    }

    fn read(&self, len: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(len as u64, Ordering::Relaxed);
        self.reads_metric.increment(1);
        self.read_bytes_metric.increment(len as u64);
    }
}

impl Archive {
    /// Starts the threads.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(bounds: ArchiveBounds) -> io::Result<Arc<Self>> {
        Self::start_checking(bounds, Some(CHECK_EVERY))
    }

    /// [`Self::start`] with another interval between checks of the open files, or none.
    fn start_checking(bounds: ArchiveBounds, check_every: Option<Duration>) -> io::Result<Arc<Self>> {
        let readers = bounds.readers.max(1);
        let inner = Arc::new(Inner {
            cache: BlockCache::new(bounds.cache_bytes),
            pool: Pool::new(readers, check_every),
            open: Mutex::default(),
            faulted: Mutex::default(),
            renumbered: AtomicU64::new(0),
            counters: Counters::new(),
        });
        // Dropped on the way out, it ends those threads that did start.
        let archive = Arc::new(Self {
            inner,
            #[cfg(test)]
            threads: Mutex::default(),
        });
        for number in 0..readers {
            let inner = archive.inner.clone();
            let thread = std::thread::Builder::new().name(format!("reader-{number}")).spawn(move || Pool::run(&inner))?;
            #[cfg(test)]
            archive.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
            #[cfg(not(test))]
            drop(thread);
        }
        Ok(archive)
    }

    /// Opens a file inside `root` by its name, whose segments `/` parts; with an empty name, `root` itself is the file.
    ///
    /// `done` is called on a reader thread and must not block. Symbolic links are followed where they are relative and
    /// stay inside; what is outside does not exist. The same file at the same place is opened once and shared.
    pub fn open(self: &Arc<Self>, root: &Path, name: &str, done: Box<dyn FnOnce(Result<Arc<AsfFile>, OpenError>) + Send>) {
        let place = Place::new(root, name);
        // It goes only to a pool that the archive keeps open, so that it is always queued.
        let task: pool::Task = Box::new(move |inner| {
            done(caught("an opening", || inner.open_now(place)).unwrap_or_else(|error| Err(error.into())));
        });
        if let Err(task) = self.inner.pool.push_task(task) {
            task(&self.inner);
        }
    }

    /// What it has done.
    pub fn counts(&self) -> Counts {
        let counters = &self.inner.counters;
        Counts {
            hits: counters.hits.load(Ordering::Relaxed),
            reads: counters.reads.load(Ordering::Relaxed),
            read_bytes: counters.read_bytes.load(Ordering::Relaxed),
            cache_bytes: self.inner.cache.bytes(),
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.inner.pool.close();
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Inner {
    fn open_files(&self) -> MutexGuard<'_, HashMap<FileId, Weak<AsfFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, id: FileId) -> Option<Arc<AsfFile>> {
        self.open_files().get(&id).and_then(Weak::upgrade).filter(|file| file.fault().is_none())
    }

    fn open_now(self: &Arc<Self>, place: Place) -> Result<Arc<AsfFile>, OpenError> {
        if self.pool.is_closed() {
            return Err(ReadError::Closed.into());
        }
        let disk = Disk::open(place)?;
        if let Some(file) = self.opened(disk.id()) {
            return Ok(file);
        }
        let description = Description::read(&disk)?;
        // Another thread may have been faster.
        let mut open = self.open_files();
        let id = disk.id();
        if let Some(other) = open.get(&id).and_then(Weak::upgrade).filter(|other| other.fault().is_none()) {
            drop(open);
            return Ok(other);
        }
        let file = Arc::new(AsfFile::new(self.clone(), disk, self.cache_id(id), description));
        open.insert(id, Arc::downgrade(&file));
        Ok(file)
    }

    fn faulted_files(&self) -> MutexGuard<'_, Vec<(FileId, Weak<()>)>> {
        self.faulted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number by which the cache knows the blocks of a file: that of the file, so that blocks outlive its closing, unless
    /// one that was faulted is still around with it.
    fn cache_id(&self, id: FileId) -> FileId {
        let mut faulted = self.faulted_files();
        faulted.retain(|(_, alive)| alive.strong_count() > 0);
        if faulted.iter().all(|(other, _)| *other != id) {
            return id;
        }
        id.wrapping_add(u128::from(self.renumbered.fetch_add(1, Ordering::Relaxed)) + 1)
    }

    /// Looks at every open file, once.
    fn check_files(&self) {
        let files: Vec<_> = {
            let mut open = self.open_files();
            open.retain(|_, file| file.strong_count() > 0);
            open.values().filter_map(Weak::upgrade).collect()
        };
        for file in files {
            file.check();
        }
    }
}
