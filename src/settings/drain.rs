//! `[drain]`: what becomes of viewers when the daemon is told to end, and where those are sent who come then.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use super::check::Check;
use super::raw::RawDrain;

/// A day: longer than any film that is still to be watched.
pub const DRAIN_TIMEOUT_S_MAX: u32 = 24 * 3600;

/// What SIGTERM does before the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drain {
    /// So long those who watch may go on; zero: they get the end of the stream at once.
    pub timeout: Duration,
    /// Where those are sent who come in that time; `None`: they are refused.
    pub redirect: Option<Elsewhere>,
}

/// Another server, and the folder there below which it has the names that this one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Host, with the port where one was written.
    authority: String,
    /// `/` or `/folder/`.
    folder: String,
}

/// Why a text names no other server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElsewhereError {
    /// Its scheme is none by which viewers watch.
    #[error("{0}:// is nothing that viewers watch by; write mms://HOST, or HOST alone, for each gets the scheme that it speaks")]
    Scheme(String),
    /// A login, a query, a fragment, a blank.
    #[error("{0:?} has no place in it; write mms://HOST, mms://HOST:PORT or mms://HOST:PORT/FOLDER")]
    Sign(char),
    /// No host, or none that can be one.
    #[error("it names no host; write mms://HOST, mms://HOST:PORT or mms://HOST:PORT/FOLDER")]
    Host,
    /// No port.
    #[error("{0:?} is no port, which is a number from 1 to 65535")]
    Port(String),
}

/// By which viewers watch, here or elsewhere.
const SCHEMES: [&str; 9] = ["mms", "mmsu", "mmst", "mmsh", "http", "rtsp", "rtspu", "rtspt", "rtsps"];

/// The ports of those schemes in URLs that name none.
const PORTS: [u16; 4] = [1755, 80, 554, 322];

impl Elsewhere {
    /// Which of these listeners it leads to, where that is plain without looking up a name: then viewers would be sent around in a circle.
    /// `is_own`: whether an address is one of this machine.
    pub fn leads_to(
        &self,
        listeners: impl IntoIterator<Item = SocketAddr>,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> Option<SocketAddr> {
        let (host, port) = match self.authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => self.authority.split_once(':').map_or((self.authority.as_str(), None), |(host, port)| (host, Some(port))),
        };
        let ports = port.map_or(PORTS.to_vec(), |port| port.parse().into_iter().collect());
        let hosts = match host.parse::<IpAddr>() {
            Ok(address) => vec![address.to_canonical()],
            // RFC 6761 6.3.
            Err(_) if host.eq_ignore_ascii_case("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Err(_) => Vec::new(),
        };
        listeners.into_iter().find(|listener| {
            let ours = listener.ip();
            let is_here = |host: &IpAddr| {
                *host == ours
                    || ours.is_unspecified() && host.is_ipv4() == ours.is_ipv4() && (host.is_loopback() || is_own(*host))
            };
            ports.contains(&listener.port()) && hosts.iter().any(is_here)
        })
    }

    /// The address of a name there. `name` is as it goes into a URL of that scheme, with its query.
    pub fn url(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}{}{name}", self.authority, self.folder)
    }
}

impl FromStr for Elsewhere {
    type Err = ElsewhereError;

    fn from_str(text: &str) -> Result<Self, ElsewhereError> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) => rest,
            Some((scheme, _)) => return Err(ElsewhereError::Scheme(scheme.escape_debug().to_string())),
            None => text,
        };
        // It goes into heads and messages as it is.
        let has_place = |sign: &char| sign.is_ascii_graphic() && !"@?#\"<>\\^`{|}".contains(*sign);
        if let Some(sign) = rest.chars().find(|sign| !has_place(sign)) {
            return Err(ElsewhereError::Sign(sign));
        }
        let (authority, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((address, behind))) => {
                address.parse::<Ipv6Addr>().map_err(|_| ElsewhereError::Host)?;
                match behind.strip_prefix(':') {
                    None if !behind.is_empty() => return Err(ElsewhereError::Host),
                    port => (format!("[{address}]"), port),
                }
            }
            Some(None) => return Err(ElsewhereError::Host),
            None => {
                let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                (host.to_owned(), port)
            }
        };
        let can_be = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        if host.is_empty() || !host.bytes().all(can_be) {
            return Err(ElsewhereError::Host);
        }
        let is_port =
            |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
        let authority = match port {
            Some(port) if !is_port(port) => return Err(ElsewhereError::Port(port.to_owned())),
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let folder = folder.trim_matches('/');
        let folder = if folder.is_empty() { "/".to_owned() } else { format!("/{folder}/") };
        Ok(Self { authority, folder })
    }
}

/// As it can be written again.
impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mms://{}{}", self.authority, self.folder.trim_end_matches('/'))
    }
}

/// Checks `[drain]`.
pub(super) fn drain(check: &mut Check<'_>, raw: &RawDrain) -> Drain {
    let built_in = Drain::default();
    if let Some(seconds) = raw.timeout_s.filter(|seconds| *seconds > DRAIN_TIMEOUT_S_MAX) {
        check.problem("drain.timeout_s", format!("{seconds} is not between 0 and {DRAIN_TIMEOUT_S_MAX} seconds"));
    }
    // "" takes back what another layer says.
    let redirect = match raw.redirect.as_deref().filter(|text| !text.is_empty()).map(str::parse) {
        None => None,
        Some(Ok(elsewhere)) => Some(elsewhere),
        Some(Err(error)) => {
            let error: ElsewhereError = error;
            check.problem("drain.redirect", error.to_string());
            None
        }
    };
    Drain { timeout: raw.timeout_s.map_or(built_in.timeout, |seconds| Duration::from_secs(seconds.into())), redirect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_appended_with_the_viewers_own_scheme() {
        for (text, url) in [
            ("mms://b.example", "rtsp://b.example/cam1"),
            ("b.example", "rtsp://b.example/cam1"),
            ("HTTP://b.example:8080/", "rtsp://b.example:8080/cam1"),
            ("rtsp://192.0.2.7:8554/old//", "rtsp://192.0.2.7:8554/old/cam1"),
            ("mms://[2001:db8::1]:1756", "rtsp://[2001:db8::1]:1756/cam1"),
            ("[2001:db8::1]", "rtsp://[2001:db8::1]/cam1"),
        ] {
            let elsewhere: Elsewhere = text.parse().unwrap();
            assert_eq!(elsewhere.url("rtsp", "cam1"), url, "{text}");
            assert_eq!(elsewhere.to_string().parse(), Ok(elsewhere), "{text}");
        }
    }

    #[test]
    fn what_leads_back_is_found_where_that_is_plain() {
        let listeners: Vec<SocketAddr> =
            ["0.0.0.0:1755", "[::]:1755", "0.0.0.0:8080", "192.0.2.7:8554"].iter().map(|text| text.parse().unwrap()).collect();
        let is_own = |ip: IpAddr| ip == IpAddr::from([192, 0, 2, 7]);
        let back = |text: &str| {
            let elsewhere: Elsewhere = text.parse().unwrap();
            elsewhere.leads_to(listeners.iter().copied(), is_own).map(|listener| listener.to_string())
        };
        for (text, listener) in [
            ("mms://127.0.0.1:8080", "0.0.0.0:8080"),
            ("127.0.0.9:1755/old", "0.0.0.0:1755"),
            ("mms://192.0.2.7:8080", "0.0.0.0:8080"),
            ("192.0.2.7:8554", "192.0.2.7:8554"),
            ("LocalHost:8080", "0.0.0.0:8080"),
            ("[::1]:1755", "[::]:1755"),
            ("[::ffff:127.0.0.1]:8080", "0.0.0.0:8080"),
            // Over MMS at least.
            ("mms://192.0.2.7", "0.0.0.0:1755"),
        ] {
            assert_eq!(back(text).as_deref(), Some(listener), "{text}");
        }
        for text in
            ["127.0.0.1:8554", "192.0.2.8:8080", "192.0.2.8", "[::1]:8080", "b.example:8080", "127.1:8080", "localhost.b:1755"]
        {
            assert_eq!(back(text), None, "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        for (text, error) in [
            ("ftp://b", ElsewhereError::Scheme("ftp".into())),
            ("", ElsewhereError::Host),
            ("mms://", ElsewhereError::Host),
            ("mms:///cam1", ElsewhereError::Host),
            ("mms://:1755", ElsewhereError::Host),
            ("mms://[::1", ElsewhereError::Host),
            ("mms://[nonsense]", ElsewhereError::Host),
            ("mms://[::1]8", ElsewhereError::Host),
            ("mms://b:0", ElsewhereError::Port("0".into())),
            ("mms://b:", ElsewhereError::Port(String::new())),
            ("mms://b:65536", ElsewhereError::Port("65536".into())),
            ("2001:db8::1", ElsewhereError::Port("db8::1".into())),
            ("mms://user@b", ElsewhereError::Sign('@')),
            ("mms://b/x?k=1", ElsewhereError::Sign('?')),
            ("mms://b/\r\nX: y", ElsewhereError::Sign('\r')),
            ("mms://bücher.example", ElsewhereError::Sign('ü')),
        ] {
            assert_eq!(text.parse::<Elsewhere>(), Err(error), "{text}");
        }
    }
}
