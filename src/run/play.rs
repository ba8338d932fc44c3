//! `wmrelay play`: plays without decoding and prints what came.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::out::out;
use crate::args::{PlayArgs, PlayTransport, Seek};
use crate::client::{self, AsfFile, PlayOptions, PlayReport, StreamUrl};
use crate::mms::session::Transport;
use crate::playing::StartAt;

/// Plays a stream and prints the report to standard output, as JSON or for a person.
///
/// SIGINT ends the play, not the report.
///
/// # Errors
/// A URL that is none, a stream that cannot be played, a file that cannot be written, a standard output that is closed.
pub(super) fn play(args: PlayArgs) -> anyhow::Result<()> {
    let url: StreamUrl = args.url.parse().context("the URL cannot be played")?;
    anyhow::ensure!(
        args.transport.is_none() || !url.scheme.is_http(),
        "{url} comes by HTTP: --transport is for mms:// and rtsp://, and their kin"
    );
    let transport = args.transport.map(|transport| match transport {
        PlayTransport::Udp => Transport::Udp,
        PlayTransport::Tcp => Transport::Tcp,
    });
    let start = match args {
        PlayArgs { start: Some(s), .. } => StartAt::Time { s },
        PlayArgs { packet: Some(number), .. } => StartAt::Packet(number),
        PlayArgs { offset: Some(bytes), .. } => StartAt::Offset(bytes),
        _ => StartAt::Beginning,
    };
    let seek = |Seek { after_s, to_s }| (Duration::from_secs_f64(after_s), StartAt::Time { s: to_s });
    let options = PlayOptions {
        transport,
        ports: args.ports,
        duration: args.seconds.map(Duration::from_secs),
        start,
        streams: (!args.streams.is_empty()).then(|| args.streams.into_iter().collect()),
        seek_after: args.seek_after.map(seek),
        counts_plain: true,
        ..PlayOptions::new(url)
    };
    let cannot_be_written = |path: &Path| format!("{} cannot be written", path.display());
    let path = args.write.as_deref();
    let mut file = path.map(|path| AsfFile::create(path).with_context(|| cannot_be_written(path))).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let no_room = tokio::sync::Notify::new();
    let interrupted = async {
        tokio::select! {
            Ok(()) = tokio::signal::ctrl_c() => {}
            () = no_room.notified() => {}
        }
    };
    let played = runtime.block_on(client::play_observed(options, interrupted, |event, _| {
        if !file.as_mut().is_none_or(|file| file.event(event)) {
            no_room.notify_one();
        }
    }));
    if let (Some(file), Some(path)) = (file, path) {
        file.finish().with_context(|| cannot_be_written(path))?;
    }
    let report = played?;
    let text = if args.json { serde_json::to_string(&report)? } else { for_a_person(&report) };
    writeln!(out(), "{text}").context("the report cannot be written")
}

fn for_a_person(report: &PlayReport) -> String {
    let port = report.port.map_or_else(String::new, |port| format!(" on port {port}"));
    let first = report.first_packet_ms.map_or_else(|| "never".into(), |ms| format!("after {ms:.1} ms"));
    let content = match report {
        PlayReport { live: true, .. } => "live".to_owned(),
        PlayReport { duration_s, packet_count, .. } => format!("{duration_s:.1} s, {packet_count} packets"),
    };
    let begins = report.first_key_presentation_ms.map_or_else(String::new, |ms| format!(" from {:.3} s on", ms as f64 / 1000.0));
    let refused = report.udp_refused.as_ref().map_or_else(String::new, |why| format!("\nUDP was refused: {why}"));
    format!(
        "{} ({content}) over {}{port}{begins}\n{} packets, {} bytes in {:.1} s; the first {first}\n\
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
