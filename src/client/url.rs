//! `mms://`, `mmst://` and `mmsu://` URLs.

use std::fmt;
use std::str::FromStr;

use crate::text::percent_decode;

/// The port of MMS.
pub const DEFAULT_PORT: u16 = 1755;

/// What to play, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MmsUrl {
    /// The data path that the scheme names.
    pub transport: UrlTransport,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port, 1755 by default.
    pub port: u16,
    /// Path without leading slash, percent-decoded once.
    pub name: String,
}

/// The data path that a scheme names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlTransport {
    /// `mms`: UDP, and TCP where that does not work.
    Any,
    /// `mmsu`: UDP alone.
    Udp,
    /// `mmst`: TCP alone.
    Tcp,
}

/// Why a URL cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("{0:?}: a URL to play begins with mms://, mmst:// or mmsu://")]
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
    /// User names have no place in it.
    #[error("{0:?}: user name and password cannot be given in the URL")]
    Credentials(String),
}

impl FromStr for MmsUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let error = |kind: fn(String) -> UrlError| kind(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| error(UrlError::Scheme))?;
        let transport = match scheme.to_ascii_lowercase().as_str() {
            "mms" => UrlTransport::Any,
            "mmsu" => UrlTransport::Udp,
            "mmst" => UrlTransport::Tcp,
            _ => return Err(error(UrlError::Scheme)),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            // The text would show the password: it is not repeated.
            return Err(UrlError::Credentials(format!("{scheme}://…@…")));
        }
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
        if host.is_empty() {
            return Err(error(UrlError::Host));
        }
        let port = match port {
            None | Some("") => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or_else(|| error(UrlError::Port))?
            }
            Some(_) => return Err(error(UrlError::Port)),
        };
        let name = percent_decode(path).ok().filter(|name| !name.is_empty()).ok_or_else(|| error(UrlError::Name))?;
        Ok(Self { transport, host: host.to_owned(), port, name })
    }
}

impl fmt::Display for MmsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            UrlTransport::Any => "mms",
            UrlTransport::Udp => "mmsu",
            UrlTransport::Tcp => "mmst",
        };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}", self.host)?;
        if self.port != DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        f.write_str("/")?;
        // As people read it; but a name from elsewhere must not break out of its line, nor be read as another one.
        for c in self.name.chars() {
            if c.is_control() || c == '%' {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(UrlTransport, String, u16, String)> {
        text.parse::<MmsUrl>().ok().map(|url| (url.transport, url.host, url.port, url.name))
    }

    #[test]
    fn schemes_hosts_ports_and_names() {
        let good = [
            ("mms://localhost/demo", UrlTransport::Any, "localhost", 1755, "demo"),
            ("MMSU://192.0.2.1:7000/live/cam1", UrlTransport::Udp, "192.0.2.1", 7000, "live/cam1"),
            ("mmst://[2001:db8::1]:1756/a%20b?c", UrlTransport::Tcp, "2001:db8::1", 1756, "a b?c"),
            ("mms://[::1]/K%C3%B6ln", UrlTransport::Any, "::1", 1755, "Köln"),
            ("mms://host:/x", UrlTransport::Any, "host", 1755, "x"),
        ];
        for (text, transport, host, port, name) in good {
            assert_eq!(parts(text), Some((transport, host.into(), port, name.into())), "{text}");
        }
        let bad = [
            "http://a/b",
            "mms:/a/b",
            "a/b",
            "mms:///b",
            "mms://[::1/b",
            "mms://a",
            "mms://a/",
            "mms://a:0/b",
            "mms://a:65536/b",
            "mms://a:+5/b",
            "mms://a:x/b",
            "mms://[::1]x/b",
            "mms://a/%",
            "mms://a/%4",
            "mms://a/%zz",
            "mms://a/%ff",
            "mms://u:p@a/b",
        ];
        for text in bad {
            assert_eq!(parts(text), None, "{text}");
        }
        let error = "mms://user:secret@a/b".parse::<MmsUrl>().unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn text_of_a_url() {
        for text in [
            "mms://localhost/demo",
            "mmsu://192.0.2.1:7000/live/cam1",
            "mmst://[2001:db8::1]/a b",
            "mms://h/100%25%0A%1B[K\u{f6}ln%C2%85",
        ] {
            assert_eq!(text.parse::<MmsUrl>().unwrap().to_string(), text);
        }
    }
}
