//! A child process that writes ASF to its standard output: ffmpeg with a camera, mostly.

use std::sync::Arc;

use tokio::process::ChildStdout;
use tokio::time::{Duration, Instant};
use tracing::{Instrument as _, info, info_span, warn};

use super::back_off::BackOff;
use super::child::{self, Bounds, Running, SILENCE, Words};
use super::feed::{Feed, Flow};
use super::last_words::LastWords;
use super::lent::{Failed, Tenure};
use super::now;
use super::stop::Stop;
use crate::relay::{Loan, Point, PublisherId};
use crate::settings::{Start, url_without_secrets};

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

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
    let said = LastWords::default();
    let source = Exec { point, command, tenure, said, failed: None };
    source.run(stop).instrument(span).await;
}

/// Runs the child for a publishing point that is lent, and gives it back once nobody has watched for the linger. A child that
/// brings nothing at all is told of by `failed`, and viewers are told that there is nothing.
pub(super) async fn run_lent(loan: Loan, command: Command, stop: Stop, failed: Failed) {
    let span = info_span!("exec", point = loan.point().name(), name = loan.name());
    let point = Arc::clone(loan.point());
    let tenure = Tenure::new(Arc::clone(&point), Start::Watched, Some(loan));
    let said = LastWords::default();
    let source = Exec { point, command, tenure, said, failed: Some(failed) };
    source.run(stop).instrument(span).await;
}

struct Exec {
    point: Arc<Point>,
    command: Command,
    tenure: Tenure,
    /// What the child said last.
    said: LastWords,
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
            self.point.source_failed(now(), &self.said.instead_of(&reason));
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
        let publisher = match self.point.publish(now(), PublisherId::BuiltIn) {
            Ok(publisher) => publisher,
            Err(refusal) => return End::Failed(refusal.to_string()),
        };
        self.said.forget();
        let (said, arguments) = (self.said.clone(), self.command.argv.clone());
        let log = move |line: &str| {
            info!(line, "says");
            said.say(&without_arguments(line, &arguments));
        };
        let words = Words { heard: |_: &str| false, log };
        let mut running = match Running::start(&self.command.argv, Bounds::default(), words) {
            Ok(running) => running,
            Err(reason) => return End::Failed(reason),
        };
        info!(program = self.command.argv.first(), pid = running.id(), "started");
        let stdout = running.stdout.take();
        let mut feed = Feed::new(publisher);
        let mut watched = self.tenure.watched();
        let end = tokio::select! {
            reason = pump(&mut feed, stdout) => End::Failed(reason),
            () = watched.end(self.command.linger) => End::Unwatched,
            () = stop.requested() => End::Stopped,
        };
        match end {
            End::Unwatched => feed.end(),
            _ => drop(feed),
        }
        let status = running.end(matches!(end, End::Failed(_))).await;
        match end {
            End::Failed(reason) => End::Failed(format!("{reason}; {status}")),
            other => other,
        }
    }
}

/// What a child says, without what it was told and may be secret: arguments other than options, paths and short words.
fn without_arguments(line: &str, argv: &[String]) -> String {
    let is_secret = |argument: &&String| argument.len() > 3 && !argument.starts_with(['/', '-', '.']);
    argv.iter().skip(1).filter(is_secret).fold(line.to_owned(), |line, argument| {
        let shown = if argument.contains("://") { url_without_secrets(argument) } else { "…".to_owned() };
        line.replace(argument.as_str(), &shown)
    })
}

/// Feeds what the child writes; returns why that is over. The pipe is closed then, so a child that still writes ends too.
async fn pump(feed: &mut Feed, stdout: Option<ChildStdout>) -> String {
    let Some(mut stdout) = stdout else { return "it has no standard output".into() };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let flow = match child::read(&mut stdout, &mut buffer, SILENCE).await {
            Err(reason) => return reason,
            Ok(0) => match feed.finish().await {
                Ok(_) => return "its output ended".into(),
                Err(error) => return format!("its output is of no use: {error}"),
            },
            Ok(count) => feed.bytes(buffer.get(..count).unwrap_or_default()).await,
        };
        match flow {
            Ok(Flow::More) => {}
            Ok(Flow::Ended) => return "its stream ended".into(),
            Err(error) => return format!("its output is of no use: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
