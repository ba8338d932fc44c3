//! Who watched what: a line a session, in the W3C extended format with the columns of Windows Media Services.
//!
//! Shards tell of [`Visit`]s; one thread writes them. A disk that is slow or full delays no viewer: what has no room in the
//! queue is dropped and counted.
//!
//! Source: W3C Extended Log File Format; MS-WMLOG 2.2.1.

mod file;
mod line;
mod report;
mod visit;

pub use report::ClientReport;
pub use visit::Visit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use file::LogFile;
use line::{Names, line};
use metrics::counter;

use crate::metrics::ACCESS_LOG_LINES;
use crate::settings;

/// Lines that wait for the disk at most; some 2 MB.
const QUEUE: usize = 4096;
/// A disk that takes nothing is told of so often.
const COMPLAINT_TIME: Duration = Duration::from_secs(60);
/// A disk that takes nothing keeps the daemon from its end for so long at most.
const FINISH_TIME: Duration = Duration::from_secs(2);

/// The clock on the wall.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Where lines go; a clone goes to the same file. Without a file all is forgotten.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Option<Desk>);

/// The thread that writes; it ends with [`Scribe::finish`], or when every [`AccessLog`] is gone.
#[derive(Debug, Default)]
pub struct Scribe(Option<(Desk, Receiver<()>)>);

#[derive(Debug, Clone)]
struct Desk {
    sender: SyncSender<Message>,
    orders: Arc<Orders>,
}

/// What the thread is told beside the queue, in which there may be no room.
#[derive(Debug, Default)]
struct Orders {
    reopen: AtomicBool,
    end: AtomicBool,
}

#[derive(Debug)]
enum Message {
    Visit(Box<Visit>),
    /// There are orders.
    Wake,
}

impl Desk {
    /// Does not wait: where the queue is full, the thread looks at its orders anyway when it goes on.
    fn order(&self, order: impl Fn(&Orders) -> &AtomicBool) {
        order(&self.orders).store(true, Ordering::Release);
        let _ = self.sender.try_send(Message::Wake);
    }
}

impl AccessLog {
    /// Opens the file and starts the thread. `key` is random; it goes into the hashes of addresses. `now` tells the time of day.
    ///
    /// # Errors
    /// The file cannot be opened, the thread cannot be started.
    pub fn start(settings: &settings::AccessLog, key: [u8; 32], now: WallClock) -> std::io::Result<(Self, Scribe)> {
        let Some(path) = &settings.file else { return Ok((Self(None), Scribe::default())) };
        let file = LogFile::open(path, settings, now())?;
        let names = if settings.hash_addresses { Names::Hashed(key) } else { Names::Plain };
        let (sender, receiver) = sync_channel(QUEUE);
        let (done, ended) = sync_channel(1);
        let desk = Desk { sender, orders: Arc::default() };
        let orders = Arc::clone(&desk.orders);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            run(file, &names, &now, &receiver, &orders);
            drop(done);
        })?;
        Ok((Self(Some(desk.clone())), Scribe(Some((desk, ended)))))
    }

    /// Whether anybody reads what is told here.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A session is over. Does not wait.
    pub fn tell(&self, visit: Visit) {
        let Some(desk) = &self.0 else { return };
        match desk.sender.try_send(Message::Visit(Box::new(visit))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                counter!(ACCESS_LOG_LINES, "result" => "dropped").increment(1);
            }
        }
    }

    /// The file was moved away: begins it anew under its name. Does not wait.
    pub fn reopen(&self) {
        if let Some(desk) = &self.0 {
            desk.order(|orders| &orders.reopen);
        }
    }
}

impl Scribe {
    /// Waits until all is written that was told until now, for two seconds at most: a disk that hangs longer has what is left for
    /// itself. What is told later is dropped.
    pub fn finish(self) {
        let Some((desk, ended)) = self.0 else { return };
        desk.order(|orders| &orders.end);
        // Nothing is ever sent: the thread lets go of its end when it is done, also by a panic, which was told where it happened.
        if ended.recv_timeout(FINISH_TIME) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the disk of the access log hangs; what it has not taken is lost");
        }
    }
}

fn run(mut file: LogFile, names: &Names, now: &WallClock, receiver: &Receiver<Message>, orders: &Orders) {
    let mut complained: Option<Instant> = None;
    let mut ends = false;
    while !ends && let Ok(first) = receiver.recv() {
        // As many as the queue holds are taken in a turn: all that was told before the order to end.
        ends = orders.end.load(Ordering::Acquire);
        let (mut lines, mut result) = (0, Ok(()));
        if orders.reopen.swap(false, Ordering::AcqRel) {
            result = file.reopen(now());
        }
        for message in std::iter::once(first).chain(receiver.try_iter().take(QUEUE)) {
            let Message::Visit(visit) = message else { continue };
            lines += 1;
            result = result.and(file.write(&line(&visit, names), now()));
        }
        let result = result.and(file.flush());
        let label = if result.is_ok() { "written" } else { "failed" };
        counter!(ACCESS_LOG_LINES, "result" => label).increment(lines);
        if let Err(error) = result {
            let at = tokio::time::Instant::now().into_std();
            if complained.is_none_or(|before| at.saturating_duration_since(before) >= COMPLAINT_TIME) {
                complained = Some(at);
                tracing::error!(file = %file.path().display(), %error, "the access log cannot be written; lines are lost until it can");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that nobody empties takes some 64 KB and then nothing, as a disk that hangs.
    #[test]
    fn a_disk_that_hangs_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        // Open for both, so that opening waits for nobody.
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let settings = settings::AccessLog { file: Some(path), ..settings::AccessLog::default() };
        let (log, scribe) = AccessLog::start(&settings, [0; 32], Arc::new(|| SystemTime::UNIX_EPOCH)).unwrap();
        for _ in 0..3 * QUEUE {
            log.tell(line::visit());
        }
        let (done, ended) = sync_channel(1);
        std::thread::spawn(move || {
            // More often than the queue has room for, wherever the thread hangs.
            (0..2 * QUEUE).for_each(|_| log.reopen());
            scribe.finish();
            done.send(()).unwrap();
        });
        assert!(ended.recv_timeout(Duration::from_secs(60)).is_ok());
        drop(pipe);
    }

    #[test]
    fn all_is_written_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let settings = settings::AccessLog { file: Some(path.clone()), rotate_bytes: 0, ..settings::AccessLog::default() };
        let (log, scribe) = AccessLog::start(&settings, [0; 32], Arc::new(|| SystemTime::UNIX_EPOCH)).unwrap();
        for _ in 0..QUEUE {
            log.tell(line::visit());
        }
        scribe.finish();
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.starts_with('#')).count(), QUEUE);
    }
}
