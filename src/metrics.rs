//! Names and help of all metrics, in one place.
//!
//! Base units; labels are bounded: no ids, no addresses.

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
/// Sent minus due of each batch, seconds (histogram).
pub const SEND_DELAY_SECONDS: &str = "wmrelay_send_delay_seconds";
/// Packets sent more than 100 ms after they were due.
pub const LATE_SENDS: &str = "wmrelay_late_sends_total";
/// Datagrams that the system did not take. Label: `cause`.
pub const UDP_SEND_ERRORS: &str = "wmrelay_udp_send_errors_total";
/// Packets that slow viewers skipped.
pub const SKIPPED_PACKETS: &str = "wmrelay_skipped_packets_total";
/// Packets asked for again, by what came of it. Label: `result`.
pub const RESENDS: &str = "wmrelay_resends_total";
/// Leases of client ports. Label: `state` (`leased`, `resting`).
pub const PORT_LEASES: &str = "wmrelay_port_leases";
/// UDP funnels refused, so that the player takes TCP. Label: `cause`.
pub const TRANSPORT_FALLBACKS: &str = "wmrelay_transport_fallbacks_total";
/// Viewers and publishers turned away. Label: `cause`.
pub const REFUSALS: &str = "wmrelay_refusals_total";
/// 1 while a source sends. Label: `point`.
pub const SOURCE_UP: &str = "wmrelay_source_up";
/// Times that a source came back. Label: `point`.
pub const SOURCE_RESTARTS: &str = "wmrelay_source_restarts_total";
/// Packets taken from sources. Label: `point`.
pub const SOURCE_PACKETS: &str = "wmrelay_source_packets_total";
/// Packets of sources that could not be used. Label: `point`.
pub const SOURCE_INVALID_PACKETS: &str = "wmrelay_source_invalid_packets_total";
/// Bytes in the window. Label: `point`.
pub const WINDOW_BYTES: &str = "wmrelay_window_bytes";
/// Connections that are open, whatever they speak.
pub const CONNECTIONS: &str = "wmrelay_connections";
/// Always 1. Label: `version`.
pub const BUILD_INFO: &str = "wmrelay_build_info";
