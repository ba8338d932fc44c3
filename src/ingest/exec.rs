//! A child process that writes ASF to its standard output: ffmpeg with a camera, mostly.

use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout};
use tokio::time::{Duration, Instant, sleep, timeout};
use tracing::{Instrument as _, Span, info, info_span, warn};

use super::back_off::BackOff;
use super::feed::{Feed, Flow};
use super::lent::{Failed, Tenure};
use super::stop::Stop;
use super::{now, stderr};
use crate::relay::{Loan, Point, PublisherId};
use crate::settings::Start;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// A child that writes nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(30);
/// A child that was asked to end has so long to do it.
const GRACE: Duration = Duration::from_secs(3);
/// So often it is looked whether all have ended.
const POLL: Duration = Duration::from_millis(20);
/// What its own children still write to stderr after its end is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What to run, and when.
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) start: Start,
    pub(super) linger: Duration,
}

/// Why a run ended.
#[derive(Debug)]
enum End {
    /// Nobody watches any more.
    Unwatched,
    /// The daemon stops.
    Stopped,
    /// It ended, failed or hung.
    Failed(String),
}

/// Runs the child, again and again, until the daemon stops.
pub(super) async fn run(point: Arc<Point>, command: Command, stop: Stop) {
    let span = info_span!("exec", point = point.name());
    let tenure = Tenure::new(Arc::clone(&point), command.start, None);
    let source = Exec { point, command, tenure, failed: None };
    source.run(stop).instrument(span).await;
}

/// Runs the child for a publishing point that is lent, and gives it back once nobody has watched for the linger. A child that
/// brings nothing at all is told of by `failed`, and viewers are told that there is nothing.
pub(super) async fn run_lent(loan: Loan, command: Command, stop: Stop, failed: Failed) {
    let span = info_span!("exec", point = loan.point().name(), name = loan.name());
    let point = Arc::clone(loan.point());
    let tenure = Tenure::new(Arc::clone(&point), Start::Watched, Some(loan));
    let source = Exec { point, command, tenure, failed: Some(failed) };
    source.run(stop).instrument(span).await;
}

struct Exec {
    point: Arc<Point>,
    command: Command,
    tenure: Tenure,
    /// Of a publishing point that is lent.
    failed: Option<Failed>,
}

impl Exec {
    async fn run(mut self, mut stop: Stop) {
        let mut back_off = BackOff::new();
        loop {
            tokio::select! {
                runs = self.tenure.begins() => if !runs { return },
                () = stop.requested() => return,
            }
            let begin = Instant::now();
            let reason = match self.run_once(&mut stop).await {
                End::Stopped => return,
                End::Unwatched => {
                    info!("stopped, nobody watches");
                    back_off = BackOff::new();
                    continue;
                }
                End::Failed(reason) => reason,
            };
            let wait = back_off.after(begin.elapsed());
            warn!(reason, retry_s = wait.as_secs_f32(), "ended");
            // A viewer named it, and may have named what is not: nobody is to wait for it.
            if let Some(failed) = self.failed.as_ref().filter(|_| self.point.generation().is_none()) {
                failed(&reason);
                self.point.end();
            }
            tokio::select! {
                again = self.tenure.rests(wait) => if !again { return },
                () = stop.requested() => return,
            }
        }
    }

    /// One life of the child. It has ended and is reaped when this returns.
    async fn run_once(&mut self, stop: &mut Stop) -> End {
        let [program, arguments @ ..] = self.command.argv.as_slice() else { return End::Failed("no program is named".into()) };
        let publisher = match self.point.publish(now(), PublisherId::BuiltIn) {
            Ok(publisher) => publisher,
            Err(refusal) => return End::Failed(refusal.to_string()),
        };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that its children end with it and a terminal's Ctrl-C leaves the ending to us.
        command.process_group(0).kill_on_drop(true);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return End::Failed(format!("cannot run {program}: {error}")),
        };
        info!(program, pid = child.id(), "started");
        let words = child
            .stderr
            .take()
            .map(|words| tokio::spawn(stderr::lines(words, |line| info!(line, "says")).instrument(Span::current())));
        let stdout = child.stdout.take();
        let mut feed = Feed::new(publisher);
        let mut watched = self.tenure.watched();
        let end = tokio::select! {
            reason = pump(&mut feed, stdout) => Some(End::Failed(reason)),
            () = watched.end(self.command.linger) => Some(End::Unwatched),
            () = stop.requested() => Some(End::Stopped),
        };
        match end {
            Some(End::Unwatched) => feed.end(),
            _ => drop(feed),
        }
        let status = terminate(&mut child, matches!(end, Some(End::Failed(_)))).await;
        if let Some(mut words) = words
            && timeout(LAST_WORDS, &mut words).await.is_err()
        {
            words.abort();
        }
        match end {
            Some(End::Failed(reason)) => End::Failed(format!("{reason}; {status}")),
            other => other.unwrap_or(End::Stopped),
        }
    }
}

/// Feeds what the child writes; returns why that is over. The pipe is closed then, so a child that still writes ends too.
async fn pump(feed: &mut Feed, stdout: Option<ChildStdout>) -> String {
    let Some(mut stdout) = stdout else { return "it has no standard output".into() };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let flow = match timeout(SILENCE, stdout.read(&mut buffer)).await {
            Err(_) => return format!("it wrote nothing for {} s", SILENCE.as_secs()),
            Ok(Err(error)) => return format!("its output cannot be read: {error}"),
            Ok(Ok(0)) => match feed.finish().await {
                Ok(_) => return "its output ended".into(),
                Err(error) => return format!("its output is of no use: {error}"),
            },
            Ok(Ok(count)) => feed.bytes(buffer.get(..count).unwrap_or_default()).await,
        };
        match flow {
            Ok(Flow::More) => {}
            Ok(Flow::Ended) => return "its stream ended".into(),
            Err(error) => return format!("its output is of no use: {error}"),
        }
    }
}

/// Ends the child and its group: by itself if it is about to, by SIGTERM, by SIGKILL. Says how it ended.
async fn terminate(child: &mut Child, ending: bool) -> String {
    // Not reaped before the end: until then its number, which is the group's, goes to no stranger.
    if let Some(group) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // The end of its output mostly is its end: then its own exit status is worth more than our signal.
        if ending {
            let _ = timeout(LAST_WORDS, until(|| has_exited(group))).await;
        }
        for signal in [Signal::TERM, Signal::KILL] {
            // Also where the child itself is gone: its own children may not be.
            if is_gone(group) {
                break;
            }
            let _ = kill_process_group(group, signal);
            let _ = timeout(GRACE, until(|| is_gone(group))).await;
        }
    }
    match timeout(LAST_WORDS, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => format!("its end is unknown: {error}"),
        // Uninterruptible in the kernel; tokio reaps it when it ends after all.
        Err(_) => "it does not die".into(),
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(POLL).await;
    }
}

/// Whether a child has ended; it stays to be reaped.
fn has_exited(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    // An error: there is no such child, which is as good.
    !matches!(waitid(WaitId::Pid(child), options), Ok(None))
}

/// Whether nobody of a child's group runs any more.
fn is_gone(group: Pid) -> bool {
    // The dead leader counts as a member for kill(), so who else there is can be learnt from /proc alone.
    has_exited(group) && !processes().any(|(member_of, runs)| runs && member_of == group.as_raw_nonzero().get())
}

/// The group of each process that we can see, and whether it runs.
fn processes() -> impl Iterator<Item = (i32, bool)> {
    let stats = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().as_encoded_bytes().first().filter(|first| first.is_ascii_digit())?;
        // The name in it may be anything, UTF-8 or not.
        std::fs::read(entry.path().join("stat")).ok()
    });
    stats.filter_map(|stat| group_and_state(&String::from_utf8_lossy(&stat)))
}

/// From a line of /proc/PID/stat: `PID (NAME) STATE PARENT GROUP …`, where the name may hold anything.
fn group_and_state(stat: &str) -> Option<(i32, bool)> {
    let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace();
    let runs = !matches!(fields.next()?, "Z" | "X");
    Some((fields.nth(1)?.parse().ok()?, runs))
}

#[cfg(test)]
mod tests;
