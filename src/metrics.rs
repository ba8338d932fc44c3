//! Names and help of all metrics, in one place.
//!
//! Base units; labels are bounded: no ids, no addresses. Counters end in `_total`, times are seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{SharedString, Unit, describe_counter, describe_gauge, describe_histogram, gauge};

/// Viewers that play now. Labels: `protocol`, `transport`.
pub const VIEWERS: &str = "wmrelay_viewers";
/// Sessions begun. Label: `protocol`.
pub const SESSIONS: &str = "wmrelay_sessions_total";
/// Sessions ended. Label: `reason`.
pub const SESSION_ENDS: &str = "wmrelay_session_ends_total";
/// Viewers that began to play. Labels: `protocol`, `transport`, `point`.
pub const JOINS: &str = "wmrelay_joins_total";
/// From the connection's accept to the first media packet, seconds (histogram).
pub const JOIN_SECONDS: &str = "wmrelay_join_seconds";
/// ASF packets sent to viewers. Label: `transport`.
pub const SENT_PACKETS: &str = "wmrelay_sent_packets_total";
/// Bytes sent to viewers, framing included. Label: `transport`.
pub const SENT_BYTES: &str = "wmrelay_sent_bytes_total";
/// System calls that sent media. Label: `transport`.
pub const SEND_CALLS: &str = "wmrelay_send_calls_total";
/// From when a batch came until the last viewer had it, its wait for the tick included, seconds (histogram).
pub const SEND_DELAY_SECONDS: &str = "wmrelay_send_delay_seconds";
/// Packets times viewers of those passes over the viewers that ended more than 100 ms after their tick; packets of files
/// that went so much later than they were due, less the time for which the viewer took nothing.
pub const LATE_SENDS: &str = "wmrelay_late_sends_total";
/// Times that a viewer of a broadcast was too slow and got key frames and sound from then on.
pub const THINNED: &str = "wmrelay_thinned_total";
/// Times that a packet of a file was due for a viewer and was not in memory.
pub const LATE_READS: &str = "wmrelay_late_reads_total";
/// Datagrams that the system did not take. Label: `cause`.
pub const UDP_SEND_ERRORS: &str = "wmrelay_udp_send_errors_total";
/// Packets that slow viewers skipped.
pub const SKIPPED_PACKETS: &str = "wmrelay_skipped_packets_total";
/// Requests of viewers for packets that they lost.
pub const RESEND_REQUESTS: &str = "wmrelay_resend_requests_total";
/// Packets asked for again, by what came of it; requests of strangers count as one. Label: `result`.
pub const RESENDS: &str = "wmrelay_resends_total";
/// Leases of client ports. Label: `state` (`leased`, `resting`, `held` for a ticket whose player has not come yet).
pub const PORT_LEASES: &str = "wmrelay_port_leases";
/// UDP funnels refused, so that the player takes TCP. Label: `cause`.
pub const TRANSPORT_FALLBACKS: &str = "wmrelay_transport_fallbacks_total";
/// Viewers and publishers turned away. Label: `cause`; what opens protected publishing points failed by `no_key`, `wrong_key`,
/// `expired_key`, `wrong_password`, `bad_login`, and `guesses` (too many wrong passwords before, this one was not looked at).
pub const REFUSALS: &str = "wmrelay_refusals_total";
/// Viewers that were sent to another server, since this one drains.
pub const REDIRECTS: &str = "wmrelay_redirects_total";
/// Lines of the access log, by what came of them. Label: `result` (`written`, `failed`, `dropped`).
pub const ACCESS_LOG_LINES: &str = "wmrelay_access_log_lines_total";
/// 1 while a source sends. Label: `point`.
pub const SOURCE_UP: &str = "wmrelay_source_up";
/// Times that a source ended or could not be had, ends that were wanted left out. Label: `point`.
pub const SOURCE_RESTARTS: &str = "wmrelay_source_restarts_total";
/// 1 while something stands in for the source. Label: `point`.
pub const SOURCE_FALLBACK: &str = "wmrelay_source_fallback";
/// Times that something stood in for a source that was gone or silent. Label: `point`.
pub const SOURCE_FALLBACKS: &str = "wmrelay_source_fallbacks_total";
/// Packets taken from sources. Label: `point`.
pub const SOURCE_PACKETS: &str = "wmrelay_source_packets_total";
/// Packets of sources that could not be used. Label: `point`.
pub const SOURCE_INVALID_PACKETS: &str = "wmrelay_source_invalid_packets_total";
/// Packets that were left out on the way from a source to the viewers. Labels: `point`, `cause`: `invalid` (no sound ASF packet),
/// `uncut` (sound, but cannot be cut to the size of a datagram), `unsound` (what cutting made is no sound packet).
pub const DROPPED_PACKETS: &str = "wmrelay_dropped_packets_total";
/// Connections to other servers, by what came of them. Labels: `point`, `result`.
pub const PULL_CONNECTS: &str = "wmrelay_pull_connects_total";
/// Events told to programs (`command`) and to the web server (`webhook`), by what came of it. Labels: `kind`, `result`: `ok`,
/// `failed`, `timeout`, `retried`, `dropped` (too many waited).
pub const HOOKS: &str = "wmrelay_hooks_total";
/// Children that transcode now. Labels: `point` (the one that wanted the input first), `profile`.
pub const TRANSCODE_CHILDREN: &str = "wmrelay_transcode_children";
/// Times that such a child ended and another one was started. Labels: as of [`TRANSCODE_CHILDREN`].
pub const TRANSCODE_RESTARTS: &str = "wmrelay_transcode_restarts_total";
/// Media time per real time of such children, by their own word: 1 is as fast as it plays. Labels: as of [`TRANSCODE_CHILDREN`].
pub const TRANSCODE_SPEED: &str = "wmrelay_transcode_speed";
/// Frames that such children left out to keep the rate. Labels: as of [`TRANSCODE_CHILDREN`].
pub const TRANSCODE_DROPPED_FRAMES: &str = "wmrelay_transcode_dropped_frames_total";
/// Sessions with cameras, by what came of them. Labels: `point`, `result`.
pub const CAMERA_CONNECTS: &str = "wmrelay_camera_connects_total";
/// RTP packets of cameras that never came. Label: `point`.
pub const CAMERA_LOST_PACKETS: &str = "wmrelay_camera_lost_packets_total";
/// Bytes in the window. Label: `point`.
pub const WINDOW_BYTES: &str = "wmrelay_window_bytes";
/// Bytes of file blocks in memory, over all files played on demand.
pub const CACHE_BYTES: &str = "wmrelay_cache_bytes";
/// File blocks that were in memory when they were wanted.
pub const CACHE_HITS: &str = "wmrelay_cache_hits_total";
/// File blocks read from disks.
pub const DISK_READS: &str = "wmrelay_disk_reads_total";
/// Bytes of file blocks read from disks.
pub const DISK_READ_BYTES: &str = "wmrelay_disk_read_bytes_total";
/// Connections of viewers that are open, playing or not.
pub const CONNECTIONS: &str = "wmrelay_connections";
/// Of them and of connections that have not said what they want, those inside TLS.
pub const TLS_CONNECTIONS: &str = "wmrelay_tls_connections";
/// Always 1. Label: `version`.
pub const BUILD_INFO: &str = "wmrelay_build_info";

/// Upper bounds of the histograms' buckets, seconds.
///
/// Joins: a LAN's few milliseconds to a modem's ten seconds. Send delay: up to a tick of 40 ms, and the pass over the viewers.
pub const BUCKETS: [(&str, &[f64]); 2] = [
    (JOIN_SECONDS, &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
    (SEND_DELAY_SECONDS, &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.25, 1.0]),
];

/// So many publishing points have a label of their own; see [`point_label`].
pub const POINT_LABELS_MAX: usize = 100;

/// The label of all publishing points beyond. A publishing point may have that name too, so what carries a `point` label
/// is counted up and down; a value that is set would hide the others'.
pub const OTHER: &str = "other";

/// The `point` label of a publishing point: its name for the first hundred that are asked for, then [`OTHER`].
///
/// Ask once a session or source and keep the answer, which is cheap to clone: there is a lock inside.
// Every label value is a set of time series that lives as long as the process and as its scrapers' history.
pub fn point_label(name: &str) -> SharedString {
    static SEEN: Mutex<BTreeMap<String, SharedString>> = Mutex::new(BTreeMap::new());
    bounded_label(&mut SEEN.lock().unwrap_or_else(PoisonError::into_inner), name)
}

fn bounded_label(seen: &mut BTreeMap<String, SharedString>, name: &str) -> SharedString {
    if let Some(label) = seen.get(name) {
        return label.clone();
    }
    if seen.len() >= POINT_LABELS_MAX {
        return SharedString::const_str(OTHER);
    }
    let label = SharedString::from_shared(Arc::from(name));
    seen.insert(name.to_owned(), label.clone());
    label
}

/// Tells the recorder what all metrics mean, and which version this is.
pub fn describe_all() {
    describe_gauge!(VIEWERS, "Viewers that play now");
    describe_counter!(SESSIONS, "Sessions begun");
    describe_counter!(SESSION_ENDS, "Sessions ended, by reason");
    describe_counter!(JOINS, "Viewers that began to play");
    describe_histogram!(JOIN_SECONDS, Unit::Seconds, "From the accept of the connection to the first media packet");
    describe_counter!(SENT_PACKETS, "ASF packets sent to viewers");
    describe_counter!(SENT_BYTES, Unit::Bytes, "Bytes sent to viewers, framing included");
    describe_counter!(SEND_CALLS, "System calls that sent media");
    describe_histogram!(
        SEND_DELAY_SECONDS,
        Unit::Seconds,
        "From when a batch came until the last viewer had it, its wait for the tick included"
    );
    describe_counter!(
        LATE_SENDS,
        "Packets times viewers that went more than 100 ms after their tick, or, of files, after they were due"
    );
    describe_counter!(THINNED, "Times that a viewer was too slow and got key frames and sound from then on");
    describe_counter!(LATE_READS, "Times that a packet of a file was due for a viewer and was still on the disk");
    describe_counter!(UDP_SEND_ERRORS, "Datagrams that the system did not take, by cause");
    describe_counter!(SKIPPED_PACKETS, "Packets that slow viewers skipped");
    describe_counter!(RESEND_REQUESTS, "Requests of viewers for packets that they lost");
    describe_counter!(RESENDS, "Packets that viewers asked for again, by what came of it");
    describe_gauge!(PORT_LEASES, "Client UDP ports by state");
    describe_counter!(TRANSPORT_FALLBACKS, "UDP funnels refused so that the player takes TCP, by cause");
    describe_counter!(REFUSALS, "Viewers and publishers turned away, by cause");
    describe_counter!(REDIRECTS, "Viewers that were sent to another server, since this one drains");
    describe_gauge!(SOURCE_UP, "1 while the source of a publishing point sends, else 0");
    describe_counter!(SOURCE_RESTARTS, "Times that a source ended or could not be had, ends that were wanted left out");
    describe_gauge!(SOURCE_FALLBACK, "1 while the fallback of a publishing point stands in for its source, else 0");
    describe_counter!(SOURCE_FALLBACKS, "Times that the fallback of a publishing point stood in for its source");
    describe_counter!(SOURCE_PACKETS, "Packets taken from sources");
    describe_counter!(SOURCE_INVALID_PACKETS, "Packets of sources that could not be used");
    describe_counter!(
        DROPPED_PACKETS,
        "Packets left out between source and viewers: invalid ones, sound ones that cannot be cut to fit a datagram (uncut), and what cutting broke (unsound)"
    );
    describe_counter!(PULL_CONNECTS, "Connections to other servers that publishing points are pulled from, by what came of them");
    describe_counter!(HOOKS, "Events told to programs and to the web server of the hooks, by what came of it");
    describe_gauge!(TRANSCODE_CHILDREN, "Children that transcode now");
    describe_counter!(TRANSCODE_RESTARTS, "Times that a child that transcodes ended and was started again");
    describe_gauge!(TRANSCODE_SPEED, "Media time per real time of children that transcode, 1 where they keep up");
    describe_counter!(TRANSCODE_DROPPED_FRAMES, "Frames that children which transcode left out to keep the rate");
    describe_counter!(CAMERA_CONNECTS, "Sessions with cameras that publishing points are fed from, by what came of them");
    describe_counter!(CAMERA_LOST_PACKETS, "RTP packets of cameras that never came");
    describe_gauge!(
        WINDOW_BYTES,
        Unit::Bytes,
        "Bytes of packets kept for joins, slow viewers and resends, without what each shard frames of them"
    );
    describe_counter!(ACCESS_LOG_LINES, "Lines of the access log, by what came of them");
    describe_gauge!(CACHE_BYTES, Unit::Bytes, "Blocks of files in memory, over all files played on demand");
    describe_counter!(CACHE_HITS, "Blocks of files that were in memory when they were wanted");
    describe_counter!(DISK_READS, "Blocks of files read from disks");
    describe_counter!(DISK_READ_BYTES, Unit::Bytes, "Bytes of the blocks of files read from disks");
    describe_gauge!(CONNECTIONS, "Open connections of viewers, playing or not");
    describe_gauge!(TLS_CONNECTIONS, "Open connections inside TLS whose handshake is done");
    describe_gauge!(BUILD_INFO, "Always 1; the label tells the version");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let mut seen = BTreeMap::new();
        for i in 0..POINT_LABELS_MAX {
            let name = format!("point{i}");
            assert_eq!(&*bounded_label(&mut seen, &name), name.as_str());
        }
        assert_eq!(&*bounded_label(&mut seen, "one more"), OTHER);
        assert_eq!(&*bounded_label(&mut seen, "point7"), "point7", "those seen before keep theirs");
        assert_eq!(seen.len(), POINT_LABELS_MAX);
    }

    #[test]
    fn every_metric_is_described() {
        // The names are read from this file, so that a new constant cannot be forgotten here.
        let names: Vec<&str> = include_str!("metrics.rs").lines().filter_map(|line| line.split('"').nth(1)).collect();
        let declared: Vec<&&str> = names.iter().filter(|name| name.len() > 8 && name.starts_with("wmrelay_")).collect();
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe_all();
            for name in &declared {
                if name.ends_with("_total") {
                    metrics::counter!(name.to_string()).increment(1);
                } else if name.ends_with("_seconds") {
                    metrics::histogram!(name.to_string()).record(1.0);
                } else {
                    gauge!(name.to_string()).set(1.0);
                }
            }
        });
        let page = recorder.handle().render();
        assert!(declared.len() > 20);
        for name in declared {
            assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help text");
        }
    }
}
