//! By which name and port the server is reached: for addresses in what people and players are given.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::text::percent_encode;

/// Longest host name, bytes (RFC 1035).
const NAME_BOUND: usize = 253;
/// The port that `http` URLs need not name.
const HTTP_PORT: u16 = 80;

/// The port that `mms` URLs need not name.
const MMS_PORT: u16 = 1755;
/// The port that `rtsp` URLs need not name.
const RTSP_PORT: u16 = 554;

/// Host and port of our URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The authority without its port.
    host: String,
    /// As in a URL: a name, an IPv4 address or an IPv6 address in brackets; with a colon and the port where it has to be named.
    authority: String,
    /// The same for URLs of MMS, where that has a port of its own.
    mms: Option<String>,
}

impl Origin {
    /// The configured name, else the one by which the player came if it is one, else the local address; the port is the one by
    /// which it came.
    pub(super) fn new(public_name: Option<&str>, field: Option<&str>, local: SocketAddr) -> Self {
        let asked = field.and_then(parse);
        let local_port = Some(local.port()).filter(|port| *port != HTTP_PORT);
        let (host, port) = match (public_name, asked) {
            (Some(name), Some((_, port))) => (bracketed(name), port),
            (Some(name), None) => (bracketed(name), local_port),
            (None, Some((host, port))) => (host.to_owned(), port),
            (None, None) => (bracketed(&local.ip().to_canonical().to_string()), local_port),
        };
        Self { authority: port.map_or_else(|| host.clone(), |port| format!("{host}:{port}")), host, mms: None }
    }

    /// The same, with the port that MMS has of its own: there alone it offers UDP.
    pub(super) fn with_mms(self, port: Option<u16>) -> Self {
        let mms = port.map(|port| if port == MMS_PORT { self.host.clone() } else { format!("{}:{port}", self.host) });
        Self { mms, ..self }
    }

    /// The URL of a publishing point on the port of RTSP, to which players append names of streams: a slash ends its path, and
    /// what follows in a query is not part of that.
    pub(super) fn rtsp_url(&self, port: u16, name: &str, query: &str) -> String {
        let port = if port == RTSP_PORT { String::new() } else { format!(":{port}") };
        Self { authority: format!("{}{port}", self.host), ..self.clone() }.url("rtsp", name, "/", query)
    }

    /// A URL of a publishing point: with an ending of the name, and with a query, question mark included.
    pub(super) fn url(&self, scheme: &str, name: &str, ending: &str, query: &str) -> String {
        let authority = self.mms.as_ref().filter(|_| scheme == "mms").unwrap_or(&self.authority);
        format!("{scheme}://{authority}/{}{ending}{query}", percent_encode(name))
    }
}

fn bracketed(host: &str) -> String {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

/// The host in a `Host` field, if it is one, as it stands in a URL: IPv6 addresses in brackets.
pub fn name_of(field: &str) -> Option<&str> {
    parse(field).map(|(host, _)| host)
}

/// Host and port of a `Host` field; `None` for anything that is not plainly a name or an address.
fn parse(field: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match field.strip_prefix('[') {
        Some(rest) => {
            let (inner, behind) = rest.split_once(']')?;
            inner.parse::<Ipv6Addr>().ok()?;
            (field.get(..inner.len() + 2)?, behind)
        }
        None => {
            let end = field.find(':').unwrap_or(field.len());
            let (host, port) = field.split_at(end);
            let is_name = (1..=NAME_BOUND).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
                && !host.starts_with(['.', '-'])
                && !host.contains("..");
            // Digits and dots alone are an address or nothing.
            let is_address = !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || host.parse::<IpAddr>().is_ok();
            if !is_name || !is_address {
                return None;
            }
            (host, port)
        }
    };
    if port.is_empty() {
        return Some((host, None));
    }
    let digits = port.strip_prefix(':').filter(|digits| (1..=5).contains(&digits.len()))?;
    let port = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (port != 0).then_some((host, Some(port).filter(|port| *port != HTTP_PORT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let local = "198.51.100.20:8080".parse().unwrap();
        for (public, field, expected) in [
            (None, Some("media.example"), "mms://media.example/a%20b"),
            (None, Some("media.example:80"), "mms://media.example/a%20b"),
            (None, Some("media.example:8080"), "mms://media.example:8080/a%20b"),
            (None, Some("[2001:db8::1]:81"), "mms://[2001:db8::1]:81/a%20b"),
            (None, Some("192.0.2.1"), "mms://192.0.2.1/a%20b"),
            (None, Some("a\"><script>"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("h/x"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("h:"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("h:70000"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("h:+1"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("1.2.3"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("[::1"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("[::g]"), "mms://198.51.100.20:8080/a%20b"),
            (None, Some(""), "mms://198.51.100.20:8080/a%20b"),
            (None, Some("user@h"), "mms://198.51.100.20:8080/a%20b"),
            (None, None, "mms://198.51.100.20:8080/a%20b"),
            (Some("tv.example"), Some("evil.example"), "mms://tv.example/a%20b"),
            (Some("tv.example"), None, "mms://tv.example:8080/a%20b"),
            (Some("2001:db8::2"), Some("x:81"), "mms://[2001:db8::2]:81/a%20b"),
        ] {
            assert_eq!(Origin::new(public, field, local).url("mms", "a b", "", ""), expected, "{public:?} {field:?}");
        }
        let mapped = Origin::new(None, None, "[::ffff:192.0.2.7]:80".parse().unwrap());
        assert_eq!(mapped.url("http", "a", "", ""), "http://192.0.2.7/a");
        assert_eq!(mapped.url("http", "a", ".asx", "?k=01"), "http://192.0.2.7/a.asx?k=01");
        assert_eq!(mapped.rtsp_url(554, "a b", "?k=01"), "rtsp://192.0.2.7/a%20b/?k=01");
        let v6 = Origin::new(None, Some("[2001:db8::1]:81"), local);
        assert_eq!(v6.rtsp_url(8554, "a", ""), "rtsp://[2001:db8::1]:8554/a/");
        for (port, mms) in [(Some(1755), "[2001:db8::1]"), (Some(80), "[2001:db8::1]:80"), (None, "[2001:db8::1]:81")] {
            let origin = v6.clone().with_mms(port);
            assert_eq!(origin.url("mms", "a", "", "?k=01"), format!("mms://{mms}/a?k=01"));
            assert_eq!(origin.url("http", "a", ".asx", ""), "http://[2001:db8::1]:81/a.asx", "of MMS alone");
        }
    }
}
