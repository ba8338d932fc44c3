//! `wmrelay swarm`: plays many times over and prints how it was.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use super::out::out;
use crate::args::{self, SwarmArgs, SwarmTransport};
use crate::client::StreamUrl;
use crate::client::swarm::{Progress, SwarmAddresses, SwarmOptions, SwarmStart, swarm as run_swarm};
use crate::mms::session::Transport;

/// What shells take for an end by SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs a swarm and prints the report to standard output, as JSON or for a person; on a terminal, its progress to standard error.
///
/// SIGINT ends the swarm, not the report; a second one ends the program.
///
/// # Errors
/// A URL or a list of addresses that is none, a swarm that cannot start, one of which nobody joined or nobody plays at the end, a standard output that is closed.
pub(super) fn swarm(args: SwarmArgs) -> anyhow::Result<()> {
    let url: StreamUrl = args.url.parse().context("the URL cannot be played")?;
    let addresses = args.addresses.map(|text| text.parse::<SwarmAddresses>()).transpose().context("--addresses")?;
    let transport = match args.transport {
        Some(SwarmTransport::Tcp) => Transport::Tcp,
        Some(SwarmTransport::Udp) => Transport::Udp,
        None if url.scheme.is_tcp_alone() => Transport::Tcp,
        None => Transport::Udp,
    };
    let options = SwarmOptions {
        url,
        viewers: usize::try_from(args.viewers).unwrap_or(usize::MAX),
        transport,
        ramp_per_s: args.ramp,
        measured: Duration::from_secs(args.seconds),
        start: args.start.map(|start| match start {
            args::SwarmStart::Random => SwarmStart::Random,
            args::SwarmStart::Time(s) => SwarmStart::Time { s },
        }),
        addresses: addresses.unwrap_or_default(),
        ports: args.ports,
        unread: args.unread,
        gro: args.gro,
        server: args.pid,
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_interrupt(Arc::clone(&stop))?;
    let shows = std::io::stderr().is_terminal();
    let report = run_swarm(options, &stop, |progress| {
        if shows {
            show(&line(progress));
        }
    });
    if shows {
        show("");
    }
    let report = report?;
    let text = if args.json { serde_json::to_string(&report)? } else { report.to_string() };
    writeln!(out(), "{text}").context("the report cannot be written")?;
    anyhow::ensure!(report.viewers_joined > 0 || report.interrupted, "no viewer got a packet");
    let is_played_out = args.seconds == 0 || report.interrupted || report.viewers_playing > 0;
    anyhow::ensure!(is_played_out, "no viewer played to the end");
    Ok(())
}

/// The loop of a swarm waits for nothing but its next turn: a thread beside it waits for the signal.
fn stop_at_interrupt(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("no runtime")?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    let wait = async move {
        let interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        // From here on the signal is ours. Nobody listens where the swarm has ended already.
        let _ = ready.send(());
        if let Ok(mut interrupt) = interrupt {
            interrupt.recv().await;
            stop.store(true, Ordering::Relaxed);
            // Names and addresses are resolved and tried without a look at `stop`: who asks twice means now.
            interrupt.recv().await;
            std::process::exit(INTERRUPTED);
        }
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(move || runtime.block_on(wait)).context("no thread")?;
    is_ready.recv().context("no thread")
}

/// Writes over the line that is there.
fn show(line: &str) {
    // A terminal that is gone is no reason to stop.
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}

fn line(progress: &Progress) -> String {
    let Progress { phase, asked, playing, failed, packets_per_s, readers, left } = progress;
    let left = left.map_or_else(String::new, |left| format!(", {} s left", left.as_secs_f64().ceil()));
    let failed = if *failed > 0 { format!(", {failed} failed") } else { String::new() };
    let readers = readers.map_or_else(String::new, |readers| format!(" of the {readers} viewers that read"));
    format!("{phase}{left}: {playing} of {asked} play{failed}, {packets_per_s} packets/s{readers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_progress() {
        let mut progress = Progress {
            phase: "joining",
            asked: 5000,
            playing: 1200,
            failed: 0,
            packets_per_s: 40_000,
            readers: None,
            left: None,
        };
        assert_eq!(line(&progress), "joining: 1200 of 5000 play, 40000 packets/s");
        (progress.phase, progress.failed, progress.left) = ("measuring", 3, Some(Duration::from_millis(4100)));
        assert_eq!(line(&progress), "measuring, 5 s left: 1200 of 5000 play, 3 failed, 40000 packets/s");
        progress.readers = Some(4);
        assert!(line(&progress).ends_with(", 40000 packets/s of the 4 viewers that read"), "{}", line(&progress));
    }
}
