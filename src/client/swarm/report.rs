//! What a swarm saw.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::SwarmOptions;
use super::counts::Counts;
use super::delays::DelayReport;
use super::ledger::Ledger;
use super::percentiles::Percentiles;
use super::process::ProcessUse;
use crate::mms::session::Transport;
use crate::playing::DataPath;

/// Causes of failures that are told to a person; JSON has all.
const TOLD_CAUSES: usize = 10;

/// Characters of a server's text that are told to a person.
const MAX_TEXT: usize = 200;

/// What was counted in the measured time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) time: Duration,
    pub(super) counts: Counts,
    pub(super) estimated: bool,
    /// What the server used, and its resident memory at the end, bytes.
    pub(super) server: Option<(ProcessUse, u64)>,
    pub(super) own: Option<ProcessUse>,
}

/// What a swarm saw.
///
/// `asked = playing + failed` unless it was interrupted while viewers joined. Times in milliseconds are as exact as the turns of the
/// loop, see [`crate::client::swarm`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SwarmReport {
    /// What was played.
    pub url: String,
    /// `udp`, `tcp` or `http`.
    pub transport: &'static str,
    /// The kernel handed over several datagrams as one: the server's sends were cheaper than to ordinary players.
    pub gro: bool,
    /// All viewers but a few did not look at their media.
    pub unread: bool,
    /// It was stopped before its end.
    pub interrupted: bool,
    /// Viewers asked for.
    pub viewers_asked: usize,
    /// Viewers that got a packet.
    pub viewers_joined: usize,
    /// Those of them that still played at the end.
    pub viewers_playing: usize,
    /// Viewers that ended before they were sent home.
    pub viewers_failed: u64,
    /// Why, and how many each.
    pub failures: BTreeMap<String, u64>,
    /// How often a viewer came to the end of a file and began once more.
    pub restarts: u64,
    /// From the first connection to the last join, seconds.
    pub joining_s: f64,
    /// Joins in this time, per second.
    pub joins_per_s: f64,
    /// From the begin of a connection to the first packet.
    pub join_ms: Option<Percentiles>,
    /// From StartPlaying to the first packet; over HTTP from the begin of the connection for Play.
    pub first_packet_ms: Option<Percentiles>,
    /// The time for which the figures below, up to `whole_run`, were counted; it begins when all have joined and join bursts are over.
    pub measured_s: f64,
    /// Packets and bytes of `measured` are the mean of the viewers that read, times those that played; losses are the readers' own.
    pub estimated: bool,
    /// What came in the measured time.
    pub measured: Counts,
    /// How much later than the earliest packets came; with `unread` those of the viewers that read.
    pub delay_ms: Option<DelayReport>,
    /// Processor time of this program as a share of one core. Near 1, all figures are about it rather than about the server.
    pub own_core_share: Option<f64>,
    /// The server's process, where it was named.
    #[serde(flatten)]
    pub server: Option<ServerReport>,
    /// What came from the first connection on, join bursts included; over UDP nothing of what was left unread.
    pub whole_run: Counts,
    /// Datagrams that this machine dropped at the viewers' full sockets, in the whole run: no fault of the server.
    pub dropped_here: Option<u64>,
}

/// What the server used in the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerReport {
    /// Processor time per packet that was received, ns; `None` where none was.
    pub server_cpu_ns_per_packet: Option<f64>,
    /// Part of it in user space.
    pub server_user_ns_per_packet: Option<f64>,
    /// Processor time as a share of one core.
    pub server_core_share: f64,
    /// Resident memory at the end of the measured time, bytes.
    pub server_resident_bytes: u64,
    /// What it grew since before the first connection, per viewer that joined, bytes.
    pub server_growth_per_viewer_bytes: f64,
}

impl SwarmReport {
    /// What is known of the joins.
    pub(super) fn new(options: &SwarmOptions, ledger: Ledger, begun: Instant) -> Self {
        let joined = ledger.joins.len();
        let joining_s = ledger.last_join.map_or(0.0, |last| (last - begun).as_secs_f64());
        Self {
            url: options.url.to_string(),
            transport: match options.transport {
                _ if options.url.scheme.is_http() => DataPath::Http,
                Transport::Udp => DataPath::Udp,
                Transport::Tcp => DataPath::Tcp,
            }
            .label(),
            gro: options.gro && options.transport == Transport::Udp,
            unread: options.unread,
            viewers_asked: options.viewers,
            viewers_joined: joined,
            viewers_failed: ledger.failed(),
            restarts: ledger.restarts,
            joining_s,
            joins_per_s: if joining_s > 0.0 { joined as f64 / joining_s } else { 0.0 },
            join_ms: Percentiles::of(ledger.joins),
            first_packet_ms: Percentiles::of(ledger.first_packets),
            delay_ms: ledger.delays.report(),
            failures: told(ledger.failures, ledger.redirected),
            ..Self::default()
        }
    }

    /// Adds what was measured; `before`: the server's resident memory before the first connection.
    pub(super) fn measure(&mut self, measured: Option<Measured>, before: Option<u64>) {
        let Some(Measured { time, counts, estimated, server, own }) = measured else { return };
        let ns = time.as_nanos().max(1) as f64;
        let per_packet = |ns: f64| (counts.packets > 0).then(|| ns / counts.packets as f64);
        self.measured_s = time.as_secs_f64();
        (self.measured, self.estimated) = (counts, estimated);
        self.own_core_share = own.map(|own| own.cpu_ns as f64 / ns);
        self.server = server.map(|(used, resident)| ServerReport {
            server_cpu_ns_per_packet: per_packet(used.cpu_ns as f64),
            server_user_ns_per_packet: per_packet(used.user_ns),
            server_core_share: used.cpu_ns as f64 / ns,
            server_resident_bytes: resident,
            server_growth_per_viewer_bytes: (resident as f64 - before.unwrap_or(resident) as f64)
                / self.viewers_joined.max(1) as f64,
        });
    }
}

/// Redirects are one cause, however many places there are.
fn told(mut failures: BTreeMap<String, u64>, redirected: Option<String>) -> BTreeMap<String, u64> {
    if let (Some(url), Some(count)) = (redirected, failures.remove("redirected")) {
        failures.insert(format!("redirected; play that URL: {url}"), count);
    }
    failures
}

/// A server's text as a terminal may show it: without control characters, and not too long.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == MAX_TEXT {
            plain.push('…');
            break;
        }
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

/// For a person, several lines without the last line feed.
impl fmt::Display for SwarmReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = [(self.gro, ", UDP_GRO on: sends cost the server less than to ordinary players"), (self.unread, ", unread")];
        let how: String = how.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect();
        write!(f, "{} over {}{how}", plain(&self.url), self.transport)?;
        if self.interrupted {
            write!(f, "\ninterrupted")?;
        }
        write!(
            f,
            "\nviewers      {} asked, {} joined, {} playing at the end, {} failed",
            self.viewers_asked, self.viewers_joined, self.viewers_playing, self.viewers_failed
        )?;
        let mut causes: Vec<_> = self.failures.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (cause, count) in causes.iter().take(TOLD_CAUSES) {
            write!(f, "\n  {count} × {}", plain(cause))?;
        }
        if causes.len() > TOLD_CAUSES {
            write!(f, "\n  and {} causes more", causes.len() - TOLD_CAUSES)?;
        }
        write!(f, "\njoining      {:.2} s, {:.0} joins/s", self.joining_s, self.joins_per_s)?;
        for (name, percentiles) in [("join", self.join_ms), ("first packet", self.first_packet_ms)] {
            if let Some(Percentiles { p50, p95, p99, max }) = percentiles {
                write!(f, "\n{name:<12} p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")?;
            }
        }
        if self.measured_s > 0.0 {
            self.tell_measured(f)?;
        }
        let Counts { packets, gaps, recovered, lost, .. } = self.whole_run;
        let readers = self.readers();
        write!(f, "\nwhole run    {packets} packets{readers}; {gaps} missing: {recovered} came after all, {lost} lost")?;
        if self.restarts > 0 {
            write!(f, "; {} times to the end of the file", self.restarts)?;
        }
        if let Some(dropped) = self.dropped_here {
            write!(f, "; {dropped} dropped on this machine")?;
        }
        Ok(())
    }
}

impl SwarmReport {
    /// Whose figures these are, where not of all.
    fn readers(&self) -> &'static str {
        if self.unread && self.transport == "udp" { " of the viewers that read" } else { "" }
    }

    fn tell_measured(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.measured;
        let readers = self.readers();
        let estimated = if self.estimated { ", estimated from the viewers that read" } else { "" };
        write!(
            f,
            "\nmeasured     {:.1} s: {} packets ({:.0}/s), {} bytes ({:.1} Mbit/s){estimated}",
            self.measured_s,
            counts.packets,
            counts.packets as f64 / self.measured_s,
            counts.bytes,
            counts.bytes as f64 * 8e-6 / self.measured_s
        )?;
        write!(
            f,
            "\nloss         {} missing: {} came after all ({} only late), {} lost; {} requests, {} duplicates{readers}",
            counts.gaps, counts.recovered, counts.reordered, counts.lost, counts.resend_requests, counts.duplicates
        )?;
        if let Some(DelayReport { p50, p99, max, late_packets, packets }) = self.delay_ms {
            let late = super::LATE.as_millis();
            write!(
                f,
                "\ndelay        p50 {p50:.0} ms, p99 {p99:.0} ms, max {max:.0} ms after the earliest; \
                 {late_packets} of {packets} packets later than {late} ms"
            )?;
        }
        let whole = |ns: Option<f64>| ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"));
        if let Some(server) = &self.server {
            write!(
                f,
                "\nserver       {} ns of processor per packet ({} in user space), {:.0} % of a core; {:.1} MiB, {:.1} KiB a viewer",
                whole(server.server_cpu_ns_per_packet),
                whole(server.server_user_ns_per_packet),
                server.server_core_share * 100.0,
                server.server_resident_bytes as f64 / 1_048_576.0,
                server.server_growth_per_viewer_bytes / 1024.0
            )?;
        }
        if let Some(share) = self.own_core_share {
            let limit = if share > 0.9 { ": the limit of this tool, not of the server" } else { "" };
            write!(f, "\nthis tool    {:.0} % of a core{limit}", share * 100.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_harmless_on_a_terminal() {
        let failures = BTreeMap::from([("redirected".into(), 3), ("no\x1b[2J".into(), 1)]);
        let failures = told(failures, Some("mms://b/n\n".into()));
        let report = SwarmReport { failures, ..SwarmReport::default() }.to_string();
        assert!(report.contains("\n  3 × redirected; play that URL: mms://b/n\\n\n  1 × no\\u{1b}[2J\n"), "{report}");
        assert_eq!(plain(&"ü".repeat(300)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn no_packet_has_no_cost() {
        let mut report = SwarmReport::default();
        let used = ProcessUse { cpu_ns: 5_000, user_ns: 1.0 };
        let time = Duration::from_secs(1);
        let none = Measured { time, counts: Counts::default(), estimated: true, server: Some((used, 0)), own: None };
        report.measure(Some(none), None);
        assert!(report.to_string().contains("\nserver       - ns of processor per packet (- in user space)"), "{report}");
        assert_eq!(report.server.and_then(|server| server.server_cpu_ns_per_packet), None);
    }
}
