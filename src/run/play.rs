//! `wmrelay play`: plays without decoding and prints what came.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;

use crate::args::{PlayArgs, PlayTransport};
use crate::client::{self, MmsUrl, PlayOptions, PlayReport};
use crate::mms::session::Transport;

/// Plays a stream and prints the report to standard output, as JSON or for a person.
///
/// SIGINT ends the play, not the report.
///
/// # Errors
/// A URL that is none, a stream that cannot be played, a standard output that is closed.
pub(super) fn play(args: PlayArgs) -> anyhow::Result<()> {
    let url: MmsUrl = args.url.parse().with_context(|| format!("`{}` cannot be played", args.url))?;
    let transport = args.transport.map(|transport| match transport {
        PlayTransport::Udp => Transport::Udp,
        PlayTransport::Tcp => Transport::Tcp,
    });
    let options = PlayOptions { url, transport, ports: args.ports, duration: args.seconds.map(Duration::from_secs) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = runtime.block_on(client::play_observed(options, interrupted, |_, _| {}))?;
    let text = if args.json { serde_json::to_string(&report)? } else { for_a_person(&report) };
    writeln!(std::io::stdout(), "{text}").context("the report cannot be written")
}

fn for_a_person(report: &PlayReport) -> String {
    let port = report.port.map_or_else(String::new, |port| format!(" on port {port}"));
    let first = report.first_packet_ms.map_or_else(|| "never".into(), |ms| format!("after {ms:.1} ms"));
    let refused = report.udp_refused.as_ref().map_or_else(String::new, |why| format!("\nUDP was refused: {why}"));
    format!(
        "{} over {}{port}\n{} packets, {} bytes in {:.1} s; the first {first}\n\
         {} missing: {} came after all ({} only late), {} lost; {} requests, {} duplicates\nended: {}{refused}",
        report.url,
        if report.transport.is_empty() { "nothing" } else { report.transport },
        report.packets,
        report.bytes,
        report.played_s,
        report.gaps,
        report.recovered,
        report.reordered,
        report.lost,
        report.resend_requests,
        report.duplicates,
        report.ended_by
    )
}
