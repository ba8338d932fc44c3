//! A child process that writes ASF to its standard output: ffmpeg with a camera, mostly.

use std::sync::Arc;

use tokio::process::ChildStdout;
use tokio::time::{Duration, Instant, sleep};
use tracing::{Instrument as _, info, info_span, warn};

use super::back_off::BackOff;
use super::child::{self, Bounds, Running, SILENCE, Words};
use super::feed::{Feed, Flow};
use super::now;
use super::stop::Stop;
use super::watched::Watched;
use crate::relay::{Point, PublisherId, Relay};
use crate::settings::Start;

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
pub(super) async fn run(relay: Arc<Relay>, point: Arc<Point>, command: Command, stop: Stop) {
    let span = info_span!("exec", point = point.name());
    let watched = Watched::new(&point, command.start);
    let source = Exec { relay, point, command, watched };
    source.run(stop).instrument(span).await;
}

struct Exec {
    relay: Arc<Relay>,
    point: Arc<Point>,
    command: Command,
    watched: Watched,
}

impl Exec {
    async fn run(mut self, mut stop: Stop) {
        let mut back_off = BackOff::new();
        loop {
            tokio::select! {
                () = self.watched.begin() => {}
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
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.requested() => return,
            }
        }
    }

    /// One life of the child. It has ended and is reaped when this returns.
    async fn run_once(&mut self, stop: &mut Stop) -> End {
        let publisher = match self.relay.publish(now(), self.point.name(), PublisherId::BuiltIn) {
            Ok(publisher) => publisher,
            Err(refusal) => return End::Failed(refusal.to_string()),
        };
        let words = Words { heard: |_: &str| false, log: |line: &str| info!(line, "says") };
        let mut running = match Running::start(&self.command.argv, Bounds::default(), words) {
            Ok(running) => running,
            Err(reason) => return End::Failed(reason),
        };
        info!(program = self.command.argv.first(), pid = running.id(), "started");
        let stdout = running.stdout.take();
        let mut feed = Feed::new(publisher);
        let mut watched = self.watched.clone();
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
