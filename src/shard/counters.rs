//! Metric handles of a shard, fetched once.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::broadcast::{Framing, Hot, Link, Tally};
use super::sniff::Protocol;
use crate::metrics as names;

/// Metric handles of a shard.
pub(super) struct Counters {
    pub(super) connections: Gauge,
    mms_sessions: Counter,
    http_sessions: Counter,
    rtsp_sessions: Counter,
    pub(super) join_seconds: Histogram,
    pub(super) send_delay_seconds: Histogram,
    pub(super) late_sends: Counter,
    mms_viewers_tcp: Gauge,
    mms_viewers_udp: Gauge,
    http_viewers: Gauge,
    rtsp_viewers_tcp: Gauge,
    rtsp_viewers_udp: Gauge,
    sent: [[Counter; 3]; 2],
    udp_failed: Counter,
    skipped: Counter,
    late_reads: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        let sent = ["tcp", "udp"].map(|transport| {
            [names::SENT_PACKETS, names::SENT_BYTES, names::SEND_CALLS].map(|name| counter!(name, "transport" => transport))
        });
        Self {
            connections: gauge!(names::CONNECTIONS),
            mms_sessions: counter!(names::SESSIONS, "protocol" => "mms"),
            http_sessions: counter!(names::SESSIONS, "protocol" => "http"),
            rtsp_sessions: counter!(names::SESSIONS, "protocol" => "rtsp"),
            join_seconds: histogram!(names::JOIN_SECONDS),
            send_delay_seconds: histogram!(names::SEND_DELAY_SECONDS),
            late_sends: counter!(names::LATE_SENDS),
            mms_viewers_tcp: gauge!(names::VIEWERS, "protocol" => "mms", "transport" => "tcp"),
            mms_viewers_udp: gauge!(names::VIEWERS, "protocol" => "mms", "transport" => "udp"),
            http_viewers: gauge!(names::VIEWERS, "protocol" => "http", "transport" => "tcp"),
            rtsp_viewers_tcp: gauge!(names::VIEWERS, "protocol" => "rtsp", "transport" => "tcp"),
            rtsp_viewers_udp: gauge!(names::VIEWERS, "protocol" => "rtsp", "transport" => "udp"),
            sent,
            udp_failed: counter!(names::UDP_SEND_ERRORS, "cause" => "refused"),
            skipped: counter!(names::SKIPPED_PACKETS),
            late_reads: counter!(names::LATE_READS),
        }
    }

    /// Connections that speak a protocol.
    pub(super) const fn sessions(&self, protocol: Protocol) -> &Counter {
        match protocol {
            Protocol::Mms => &self.mms_sessions,
            Protocol::Http => &self.http_sessions,
            Protocol::Rtsp => &self.rtsp_sessions,
        }
    }

    /// Playing viewers of the protocol and transport of this one.
    pub(super) const fn viewers(&self, viewer: &Hot) -> &Gauge {
        match (viewer.framing, &viewer.link) {
            (Framing::Mms, Link::Udp(_)) => &self.mms_viewers_udp,
            (Framing::Mms, Link::Tcp(_)) => &self.mms_viewers_tcp,
            (Framing::Http(_), _) => &self.http_viewers,
            (Framing::Rtp(_), Link::Udp(_)) => &self.rtsp_viewers_udp,
            (Framing::Rtp(_), Link::Tcp(_)) => &self.rtsp_viewers_tcp,
        }
    }

    /// A viewer got its first media packet.
    pub(super) fn joined(&self, viewer: &Hot, point: &str) {
        let protocol = match viewer.framing {
            Framing::Mms => "mms",
            Framing::Http(_) => "http",
            Framing::Rtp(_) => "rtsp",
        };
        let labels =
            [("protocol", protocol.into()), ("transport", viewer.link.label().into()), ("point", names::point_label(point))];
        counter!(names::JOINS, &labels).increment(1);
    }

    /// A session ended.
    pub(super) fn ended(&self, reason: &'static str) {
        counter!(names::SESSION_ENDS, "reason" => reason).increment(1);
    }

    /// Packets were asked for again.
    pub(super) fn resent(&self, result: &'static str, packets: u64) {
        if packets > 0 {
            counter!(names::RESENDS, "result" => result).increment(packets);
        }
    }

    /// Adds what a pass sent.
    pub(super) fn add(&self, tally: &Tally) {
        let [[tcp_packets, tcp_bytes, tcp_calls], [udp_packets, udp_bytes, udp_calls]] = &self.sent;
        for (counter, value) in [
            (tcp_packets, tally.tcp_packets),
            (tcp_bytes, tally.tcp_bytes),
            (tcp_calls, tally.tcp_calls),
            (udp_packets, tally.udp_packets),
            (udp_bytes, tally.udp_bytes),
            (udp_calls, tally.udp_calls),
            (&self.udp_failed, tally.udp_failed),
            (&self.skipped, tally.skipped),
            (&self.late_sends, tally.late),
            (&self.late_reads, tally.late_reads),
        ] {
            if value > 0 {
                counter.increment(value);
            }
        }
    }
}
