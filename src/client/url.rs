//! URLs of streams: `mms://`, `mmst://`, `mmsu://`, `rtsp://`, `rtspt://`, `rtspu://`, `http://` and `mmsh://`.

use std::fmt;
use std::str::FromStr;

use crate::text::{Login, percent_decode};

/// The port of MMS.
pub const DEFAULT_PORT: u16 = 1755;
/// The port of HTTP.
pub const DEFAULT_HTTP_PORT: u16 = 80;
/// The port of RTSP.
pub const DEFAULT_RTSP_PORT: u16 = 554;

/// What to play, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUrl {
    /// The protocol, and what it says of the data path.
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port; by default 1755 for MMS, 554 for RTSP and 80 for HTTP.
    pub port: u16,
    /// Path without leading slash, percent-decoded once; of MMS with what stands behind a question mark.
    pub name: String,
    /// For HTTP and RTSP: path and query as they go into a request line. The query may hold an access key: it does not go into logs.
    pub target: String,
    /// For HTTP and RTSP: user name and password.
    pub login: Option<Login>,
}

/// What a scheme says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `mms`: UDP, and TCP where that does not work.
    Mms,
    /// `mmsu`: UDP alone.
    Mmsu,
    /// `mmst`: TCP alone.
    Mmst,
    /// `http`: Windows Media's streaming protocol, or ASF as it is, whichever the server has.
    Http,
    /// `mmsh`: the same.
    Mmsh,
    /// `rtsp`: UDP, and TCP where that does not work.
    Rtsp,
    /// `rtspu`: UDP alone.
    Rtspu,
    /// `rtspt`: TCP alone.
    Rtspt,
}

impl Scheme {
    const ALL: [Self; 8] = [Self::Mms, Self::Mmsu, Self::Mmst, Self::Http, Self::Mmsh, Self::Rtsp, Self::Rtspu, Self::Rtspt];

    /// Whether the protocol is HTTP.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Mmsh)
    }

    /// Whether the protocol is RTSP.
    pub const fn is_rtsp(self) -> bool {
        matches!(self, Self::Rtsp | Self::Rtspu | Self::Rtspt)
    }

    /// Whether the protocol is MMS.
    pub const fn is_mms(self) -> bool {
        !self.is_http() && !self.is_rtsp()
    }

    /// Whether media comes over TCP, whatever the server can do.
    pub const fn is_tcp_alone(self) -> bool {
        self.is_http() || matches!(self, Self::Mmst | Self::Rtspt)
    }

    /// Whether TCP is tried where UDP does not work.
    pub const fn falls_back(self) -> bool {
        matches!(self, Self::Mms | Self::Rtsp)
    }

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mms => "mms",
            Self::Mmsu => "mmsu",
            Self::Mmst => "mmst",
            Self::Http => "http",
            Self::Mmsh => "mmsh",
            Self::Rtsp => "rtsp",
            Self::Rtspu => "rtspu",
            Self::Rtspt => "rtspt",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Mmsh => DEFAULT_HTTP_PORT,
            Self::Rtsp | Self::Rtspu | Self::Rtspt => DEFAULT_RTSP_PORT,
            Self::Mms | Self::Mmsu | Self::Mmst => DEFAULT_PORT,
        }
    }
}

/// Why a URL cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("{0:?}: a URL to play begins with mms://, mmst://, mmsu://, rtsp://, rtspt://, rtspu://, http:// or mmsh://")]
    Scheme(String),
    /// No host.
    #[error("{0:?}: the host is missing")]
    Host(String),
    /// A port that is none.
    #[error("{0:?}: the port is not a number from 1 to 65535")]
    Port(String),
    /// A path that is not there, or not text.
    #[error("{0:?}: the name of the publishing point is missing, or its percent-encoding is broken")]
    Name(String),
    /// User names have no place in MMS.
    #[error("{0:?}: user name and password can be given in the URL with http://, mmsh:// and rtsp:// only")]
    Credentials(String),
    /// A user name or password that is no text.
    #[error("{0:?}: the percent-encoding of user name or password is broken")]
    Login(String),
}

impl StreamUrl {
    /// The value of the `Host` field.
    pub fn host_field(&self) -> String {
        let (open, close) = self.brackets();
        let port = if self.port == self.scheme.default_port() { String::new() } else { format!(":{}", self.port) };
        format!("{open}{}{close}{port}", self.host)
    }

    /// The URL as requests of RTSP have it, whatever its scheme says of the data path.
    pub fn rtsp_url(&self) -> String {
        format!("rtsp://{}{}", self.host_field(), self.target)
    }

    /// Whether another URL is of the same server, which may be told the same secrets.
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    fn brackets(&self) -> (&'static str, &'static str) {
        if self.host.contains(':') { ("[", "]") } else { ("", "") }
    }
}

/// A URL in the words of a message: without what may be secret.
pub(super) fn masked(text: &str) -> String {
    if let Some((_, behind)) = text.split_once('?')
        && behind.contains('@')
    {
        // Of a password with a question mark in it this would be the begin.
        return text.split_once("://").map_or_else(|| "…".to_owned(), |(scheme, _)| format!("{scheme}://…"));
    }
    let (text, query) = text.split_once('?').map_or((text, ""), |(text, _)| (text, "?…"));
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("…@{host}"));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    format!("{scheme}{rest}{query}")
}

impl FromStr for StreamUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // A password may hold what ends an authority elsewhere: where there is an @ at all, little of the text is repeated.
        let error = |kind: fn(String) -> UrlError| kind(masked(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| error(UrlError::Scheme))?;
        let known = Scheme::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(scheme));
        let scheme = known.ok_or_else(|| error(UrlError::Scheme))?;
        let end = if !scheme.is_mms() { rest.find(['/', '?', '#']) } else { rest.find('/') };
        let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
        let (login, authority) = match authority.rsplit_once('@') {
            Some(_) if scheme.is_mms() => return Err(UrlError::Credentials(format!("{}://…@…", scheme.name()))),
            Some((login, authority)) => (Some(login), authority),
            None => (None, authority),
        };
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = percent_decode(user).ok().zip(percent_decode(password).ok());
            decoded.map(|(user, password)| Login { user, password }).ok_or_else(|| error(UrlError::Login))
        });
        let login = login.transpose()?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| error(UrlError::Host))?;
                match port {
                    "" => (host, None),
                    _ => (host, Some(port.strip_prefix(':').ok_or_else(|| error(UrlError::Port))?)),
                }
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        // It goes into a field of requests.
        if host.is_empty() || host.contains(|c: char| c.is_control() || c == ' ') {
            return Err(error(UrlError::Host));
        }
        let port = match port {
            None | Some("") => scheme.default_port(),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or_else(|| error(UrlError::Port))?
            }
            Some(_) => return Err(error(UrlError::Port)),
        };
        let (name, target) = if !scheme.is_mms() {
            let path = path.split('#').next().unwrap_or_default();
            let target = if path.starts_with('/') { sendable(path) } else { format!("/{}", sendable(path)) };
            let name = path.split('?').next().unwrap_or_default();
            (name.strip_prefix('/').unwrap_or(name), target)
        } else {
            (path.strip_prefix('/').unwrap_or(path), String::new())
        };
        let name = percent_decode(name).ok().filter(|name| !scheme.is_mms() || !name.is_empty());
        let name = name.ok_or_else(|| error(UrlError::Name))?;
        Ok(Self { scheme, host: host.to_owned(), port, name, target, login })
    }
}

/// A path with its query as a request line can hold it: what was escaped stays so, what has no place there is escaped.
fn sendable(path: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// For people and logs: without login, and without what stands behind a question mark, which may be an access key.
impl fmt::Display for StreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = self.brackets();
        write!(f, "{}://{open}{}{close}", self.scheme.name(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str("/")?;
        let (name, has_query) = match self.name.split_once('?') {
            Some((name, _)) if self.scheme.is_mms() => (name, true),
            _ => (self.name.as_str(), self.target.contains('?')),
        };
        // As people read it; but a name from elsewhere must not break out of its line, nor be read as another one.
        for c in name.chars() {
            if c.is_control() || c == '%' || c == '?' {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if has_query { f.write_str("?…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(Scheme, String, u16, String)> {
        text.parse::<StreamUrl>().ok().map(|url| (url.scheme, url.host, url.port, url.name))
    }

    #[test]
    fn schemes_hosts_ports_and_names() {
        let good = [
            ("mms://localhost/demo", Scheme::Mms, "localhost", 1755, "demo"),
            ("MMSU://192.0.2.1:7000/live/cam1", Scheme::Mmsu, "192.0.2.1", 7000, "live/cam1"),
            ("mmst://[2001:db8::1]:1756/a%20b?c", Scheme::Mmst, "2001:db8::1", 1756, "a b?c"),
            ("mms://[::1]/K%C3%B6ln", Scheme::Mms, "::1", 1755, "Köln"),
            ("mms://host:/x", Scheme::Mms, "host", 1755, "x"),
            ("http://host", Scheme::Http, "host", 80, ""),
            ("mmsh://[::1]:8080/a%20b?k=v", Scheme::Mmsh, "::1", 8080, "a b"),
            ("http://u:p@host:81/x", Scheme::Http, "host", 81, "x"),
        ];
        for (text, transport, host, port, name) in good {
            assert_eq!(parts(text), Some((transport, host.into(), port, name.into())), "{text}");
        }
        let bad = [
            "https://a/b",
            "mms:/a/b",
            "a/b",
            "mms:///b",
            "http:///b",
            "mms://[::1/b",
            "mms://a",
            "mms://a/",
            "mms://a:0/b",
            "http://a:0/b",
            "mms://a:65536/b",
            "mms://a:+5/b",
            "mms://a:x/b",
            "mms://[::1]x/b",
            "mms://a/%",
            "mms://a/%4",
            "mms://a/%zz",
            "http://a/%zz",
            "mms://a/%ff",
            "mms://u:p@a/b",
            "http://a\r\nX: y/b",
            "http://%zz@a/b",
        ];
        for text in bad {
            assert_eq!(parts(text), None, "{text}");
        }
    }

    #[test]
    fn targets_and_hosts_of_requests() {
        for (text, target, host) in [
            ("http://h", "/", "h"),
            ("http://h?k=v", "/?k=v", "h"),
            ("http://h:8080/a%2fb/K\u{f6}ln x?k=a%20b&c=/d#frag", "/a%2fb/K%C3%B6ln%20x?k=a%20b&c=/d", "h:8080"),
            ("mmsh://[::1]:81/a\"b", "/a%22b", "[::1]:81"),
            ("rtsp://h:554/a b?k=v", "/a%20b?k=v", "h"),
            ("rtspu://[::1]:8554", "/", "[::1]:8554"),
        ] {
            let url: StreamUrl = text.parse().unwrap();
            assert_eq!((url.target.as_str(), url.host_field().as_str()), (target, host), "{text}");
        }
        let url: StreamUrl = "http://us%40er:p%3Aw:x@h/".parse().unwrap();
        assert_eq!(url.login, Some(Login { user: "us@er".into(), password: "p:w:x".into() }));
        let url: StreamUrl = "RTSPT://cam:pw@h:8554/live/K\u{f6}ln?k=v".parse().unwrap();
        assert_eq!((url.scheme, url.port, url.name.as_str()), (Scheme::Rtspt, 8554, "live/K\u{f6}ln"));
        assert_eq!(url.rtsp_url(), "rtsp://h:8554/live/K%C3%B6ln?k=v");
        assert!(url.login.is_some() && url.to_string() == "rtspt://h:8554/live/K\u{f6}ln?…", "{url}");
    }

    #[test]
    fn what_schemes_say_of_the_data_path() {
        for scheme in Scheme::ALL {
            let (tcp, falls_back) = (scheme.is_tcp_alone(), scheme.falls_back());
            let expected = match scheme.name() {
                "mms" | "rtsp" => (false, true),
                "mmsu" | "rtspu" => (false, false),
                _ => (true, false),
            };
            assert_eq!((tcp, falls_back), expected, "{}", scheme.name());
            let kinds = [scheme.is_mms(), scheme.is_rtsp(), scheme.is_http()];
            assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "{}", scheme.name());
        }
    }

    #[test]
    fn text_of_a_url() {
        for text in [
            "mms://localhost/demo",
            "mmsu://192.0.2.1:7000/live/cam1",
            "mmst://[2001:db8::1]/a b",
            "mms://h/100%25%0A%1B[K\u{f6}ln%C2%85",
            "http://h:8080/live/cam1",
            "mmsh://h/",
        ] {
            assert_eq!(text.parse::<StreamUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for text in ["http://user:secret@h/live?k=secret", "mms://h/live?k=secret", "mmsh://h:80/live?secret"] {
            let shown = text.parse::<StreamUrl>().unwrap();
            assert!(!shown.to_string().contains("secret") && shown.to_string().ends_with("/live?…"), "{shown}");
            assert!(!format!("{:?}", shown.login).contains("secret"));
        }
        for text in [
            "mms://user:secret@a/b",
            "http://user:secret@a:x/b?k=secret",
            "ftp://user:secret@a/b",
            "http://u:secret@/b",
            "http://h:0/?k=secret",
            "user:secret@h/x",
            "ftp://user:pa?secret@h/",
            "http://user:secret?x@h:0/",
        ] {
            let error = text.parse::<StreamUrl>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        // A slash in a password has to be escaped: what is behind it is a path.
        assert!(!"http://user:a/secret@h/b".parse::<StreamUrl>().unwrap_err().to_string().contains("user"));
    }
}
