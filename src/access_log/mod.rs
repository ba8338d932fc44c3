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
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
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

/// The clock on the wall.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Where lines go; a clone goes to the same file. Without a file all is forgotten.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Option<SyncSender<Message>>);

/// The thread that writes; it ends with [`Scribe::finish`], or when every [`AccessLog`] is gone.
#[derive(Debug, Default)]
pub struct Scribe(Option<(SyncSender<Message>, JoinHandle<()>)>);

#[derive(Debug)]
enum Message {
    Visit(Box<Visit>),
    Reopen,
    End,
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
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || run(file, &names, &now, &receiver))?;
        Ok((Self(Some(sender.clone())), Scribe(Some((sender, thread)))))
    }

    /// Whether anybody reads what is told here.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A session is over. Does not wait.
    pub fn tell(&self, visit: Visit) {
        let Some(sender) = &self.0 else { return };
        match sender.try_send(Message::Visit(Box::new(visit))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                counter!(ACCESS_LOG_LINES, "result" => "dropped").increment(1);
            }
        }
    }

    /// The file was moved away: begins it anew under its name.
    pub fn reopen(&self) {
        if let Some(sender) = &self.0 {
            // Lines that wait for the disk are written first; who moved the file can wait as well.
            let _ = sender.send(Message::Reopen);
        }
    }
}

impl Scribe {
    /// Waits until all is written that was told until now; what is told later is dropped.
    pub fn finish(self) {
        if let Some((sender, thread)) = self.0 {
            // A panic of it was told where it happened.
            let _ = sender.send(Message::End);
            let _ = thread.join();
        }
    }
}

fn run(mut file: LogFile, names: &Names, now: &WallClock, receiver: &Receiver<Message>) {
    let mut complained: Option<Instant> = None;
    let mut ends = false;
    while !ends && let Ok(first) = receiver.recv() {
        let (mut lines, mut result) = (0, Ok(()));
        for message in std::iter::once(first).chain(receiver.try_iter().take(QUEUE)) {
            let done = match message {
                Message::Visit(visit) => {
                    lines += 1;
                    file.write(&line(&visit, names), now())
                }
                Message::Reopen => file.reopen(now()),
                Message::End => {
                    ends = true;
                    Ok(())
                }
            };
            result = result.and(done);
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
