//! A child process: how it is started, heard and ended, with all that it started itself.

use std::process::Stdio;

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use rustix::process::{kill_process_group, prlimit, setpriority_pgrp, waitid};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::ChildStdout;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep, timeout};
use tracing::{Instrument as _, Span, warn};

use super::stderr;

/// A child that writes nothing for so long hangs.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// A child that was asked to end has so long to do it.
const GRACE: Duration = Duration::from_secs(3);
/// So often it is looked whether all have ended.
const POLL: Duration = Duration::from_millis(20);
/// What its own children still write to stderr after its end is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a child may take; nothing is bounded by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    /// Niceness, 0 to 19.
    pub(super) nice: i32,
    /// Memory that it may write to, bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// A child that runs, in a process group of its own.
pub(super) struct Running {
    child: tokio::process::Child,
    /// What it writes, until it is taken.
    pub(super) stdout: Option<ChildStdout>,
    words: Option<JoinHandle<()>>,
}

/// What a child says on standard error.
pub(super) struct Words<H, L> {
    /// Takes a line; what it returns `true` for is not logged.
    pub(super) heard: H,
    /// Logs a line.
    pub(super) log: L,
}

impl Running {
    /// Starts a program with its arguments: no shell, nothing on its standard input.
    ///
    /// # Errors
    /// There is no program, or it cannot be run: words for a person.
    pub(super) fn start<H, L>(argv: &[String], bounds: Bounds, words: Words<H, L>) -> Result<Self, String>
    where
        H: FnMut(&str) -> bool + Send + 'static,
        L: FnMut(&str) + Send + 'static,
    {
        let [program, arguments @ ..] = argv else { return Err("no program is named".into()) };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that its children end with it and a terminal's Ctrl-C leaves the ending to us.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
        if let Some(group) = group_of(&child) {
            bound(group, bounds);
        }
        let Words { heard, log } = words;
        let words = child.stderr.take().map(|words| tokio::spawn(stderr::lines(words, heard, log).instrument(Span::current())));
        Ok(Self { stdout: child.stdout.take(), child, words })
    }

    /// Its process id, until it is reaped.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends the child and its group: by itself if it is about to (`ending`), by SIGTERM, by SIGKILL. Says how it ended.
    pub(super) async fn end(mut self, ending: bool) -> String {
        drop(self.stdout.take());
        // Not reaped before the end: until then its number, which is the group's, goes to no stranger.
        if let Some(group) = group_of(&self.child) {
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
        let status = match timeout(LAST_WORDS, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => format!("its end is unknown: {error}"),
            // Uninterruptible in the kernel; tokio reaps it when it ends after all.
            Err(_) => "it does not die".into(),
        };
        if let Some(mut words) = self.words.take()
            && timeout(LAST_WORDS, &mut words).await.is_err()
        {
            words.abort();
        }
        status
    }
}

/// Reads what a child writes, at most for `patience`; 0 bytes are the end of it.
///
/// # Errors
/// It writes nothing, or cannot be read: words for a person.
pub(super) async fn read(stdout: &mut ChildStdout, buffer: &mut [u8], patience: Duration) -> Result<usize, String> {
    match timeout(patience, stdout.read(buffer)).await {
        Err(_) => Err(format!("it wrote nothing for {} s", patience.as_secs())),
        Ok(Err(error)) => Err(format!("its output cannot be read: {error}")),
        Ok(Ok(count)) => Ok(count),
    }
}

/// Reads to the end, or as much as there may be; what is beyond is left, and its writer ends by that.
pub(super) async fn read_up_to(stream: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is judged by its end.
        let _ = stream.take(most).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Puts bounds to a child that has just been started. It may be through its first instructions, but hardly out of the loader.
pub(super) fn bound(group: Pid, bounds: Bounds) {
    let Bounds { nice, memory_bytes } = bounds;
    // The group, not the process: that reaches threads too which are there already.
    if nice > 0
        && let Err(error) = setpriority_pgrp(Some(group), nice)
    {
        warn!(%error, nice, "its priority cannot be lowered");
    }
    // Data, not addresses: the allocator and the stacks of threads reserve far more of these than they ever fill.
    if memory_bytes.is_some()
        && let Err(error) = prlimit(Some(group), Resource::Data, Rlimit { current: memory_bytes, maximum: memory_bytes })
    {
        warn!(%error, memory_bytes, "its memory cannot be bounded");
    }
}

/// The group that a child leads, until it is reaped.
pub(super) fn group_of(child: &tokio::process::Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
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
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn lines_of_proc() {
        assert_eq!(group_and_state("12 (a) b) S 1 34 12 0 -1"), Some((34, true)));
        assert_eq!(group_and_state("12 (sh) Z 1 34 12 0 -1"), Some((34, false)));
        assert_eq!(group_and_state(""), None);
        assert!(processes().any(|(group, runs)| runs && group == rustix::process::getpgrp().as_raw_nonzero().get()));
    }

    /// What a script says on standard error, once it has ended by itself.
    async fn said(script: &str, bounds: Bounds) -> Vec<String> {
        let (heard, lines) = mpsc::channel();
        let words = Words { heard: move |line: &str| heard.send(line.to_owned()).is_ok(), log: |_: &str| {} };
        let argv = ["sh", "-c", script].map(str::to_owned);
        let mut running = Running::start(&argv, bounds, words).unwrap();
        let mut stdout = running.stdout.take().unwrap();
        assert_eq!(read(&mut stdout, &mut [0; 1], SILENCE).await, Ok(0));
        running.end(true).await;
        lines.try_iter().collect()
    }

    #[tokio::test]
    async fn bounds_hold_for_the_child_and_its_children() {
        // The shell asks again until the bounds are there, for it may be quicker than they.
        let script = "until [ $(ulimit -d) = 65536 ] && [ $(nice) = 19 ]; do :; done; sh -c 'ulimit -d; nice' >&2";
        let bounds = Bounds { nice: 19, memory_bytes: Some(64 << 20) };
        assert_eq!(said(script, bounds).await, ["65536", "19"]);
        assert_eq!(said("ulimit -d >&2", Bounds::default()).await, ["unlimited"]);
    }
}
