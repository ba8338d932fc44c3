//! What a request is for: the server, a stream of it, or one of that stream's parts.

use std::fmt;

use super::headers::decimal;
use crate::text::{percent_decode, percent_encode};

/// A target read: `rtsp://host:port/name?query`, `/name`, `rtsp://host` or `*`.
///
/// Two targets are for the same thing when their paths are, see [`Target::same_path`]: scheme, host and port do not count, nor does
/// one slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Inside TLS by its scheme.
    pub is_tls: bool,
    /// `host` or `host:port` as the client wrote it, without user and password; URLs for that client are built from it.
    pub authority: Option<String>,
    /// Segments of the path, percent-decoded once. A `/` in one came as `%2F` and separates nothing.
    pub segments: Vec<String>,
    /// What follows the question mark, not decoded; it carries the key of signed URLs.
    pub query: Option<String>,
}

/// The last part of a stream's URL: which of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamToken {
    /// `audio`: the first one.
    Audio,
    /// `video`: the first one.
    Video,
    /// `stream=N`, also taken as `audio=N` and `video=N`: by its number in ASF.
    Number(u16),
    /// `rtx`: where lost packets are sent again.
    Rtx,
}

/// Why a target has no meaning; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL is not taken: {0}")]
pub struct BadTarget(&'static str);

impl Target {
    /// Reads the target of a request, or a URL in a header.
    ///
    /// # Errors
    /// [`BadTarget`] for another scheme than rtsp, rtspt, rtspu and rtsps, for an authority with characters that no host has, and for
    /// a path that holds a broken escape, `.` or `..` as a segment, a backslash, or a control character.
    pub fn parse(text: &str) -> Result<Self, BadTarget> {
        let mut target = Self { is_tls: false, authority: None, segments: Vec::new(), query: None };
        if text == "*" {
            return Ok(target);
        }
        let mut rest = text;
        if !text.starts_with('/') {
            let (scheme, after) = text.split_once("://").ok_or(BadTarget("it is neither * nor rtsp://HOST/NAME"))?;
            if !["rtsp", "rtspt", "rtspu", "rtsps"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
                return Err(BadTarget("its scheme is not rtsp"));
            }
            target.is_tls = scheme.eq_ignore_ascii_case("rtsps");
            let (authority, path) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
            let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            if authority.is_empty() || !authority.chars().all(|c| c.is_alphanumeric() || "-._:[]%".contains(c)) {
                return Err(BadTarget("its host is none"));
            }
            target.authority = Some(authority.to_owned());
            rest = path;
        }
        rest = rest.split('#').next().unwrap_or_default();
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        // Clients that append "/" to the URL of a stream do it behind the query.
        target.query = query.map(|query| query.strip_suffix('/').unwrap_or(query).to_owned());
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() {
            target.segments = path.split('/').map(segment).collect::<Result<_, _>>()?;
        }
        Ok(target)
    }

    /// Host without port, and without the brackets of an IPv6 address.
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority.as_deref()?;
        if let Some(inner) = authority.strip_prefix('[') {
            return inner.split(']').next();
        }
        // More than one colon is an IPv6 address without its brackets.
        Some(authority.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(authority, |(host, _)| host))
    }

    /// It is for the server as a whole: `*`, or no path.
    pub fn is_server(&self) -> bool {
        self.segments.is_empty()
    }

    /// The name under which the relay knows it. `None` where no stream can have it: without a path, or with a segment that is empty
    /// or holds a slash.
    pub fn name(&self) -> Option<String> {
        let good = !self.segments.is_empty() && self.segments.iter().all(|segment| !segment.is_empty() && !segment.contains('/'));
        good.then(|| self.segments.join("/"))
    }

    /// The value of the first `key=value` of that key in the query, not decoded.
    pub fn query_value(&self, key: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Whether both are for the same thing on this server.
    pub fn same_path(&self, other: &Self) -> bool {
        self.segments == other.segments
    }

    /// The stream and the aggregate that it belongs to, where the last part is a [`StreamToken`].
    ///
    /// A publishing point may be named `audio` as well: compare the whole with the session's aggregate first.
    pub fn split_stream(&self) -> Option<(Self, StreamToken)> {
        let mut aggregate = self.clone();
        // Clients build the URL of a stream by appending "/token", behind a query if there is one.
        if let Some((query, last)) = self.query.as_deref().and_then(|query| query.rsplit_once('/'))
            && let Some(token) = StreamToken::of(last)
        {
            aggregate.query = Some(query.to_owned());
            return Some((aggregate, token));
        }
        let token = StreamToken::of(&aggregate.segments.pop()?)?;
        Some((aggregate, token))
    }

    /// The aggregate's URL for this client, in printable ASCII without `"`; `host` stands in for an authority that is not known.
    pub fn url(&self, host: &str) -> String {
        let scheme = if self.is_tls { "rtsps" } else { "rtsp" };
        let mut url = format!("{scheme}://");
        push_printable(&mut url, self.authority.as_deref().unwrap_or(host));
        for segment in &self.segments {
            url.push('/');
            url.push_str(&percent_encode(segment).replace('/', "%2F"));
        }
        if let Some(query) = &self.query {
            url.push('?');
            push_printable(&mut url, query);
        }
        url
    }

    /// The URL of one stream of this aggregate: the aggregate's, a slash and the token, as clients build it.
    pub fn stream_url(&self, host: &str, token: StreamToken) -> String {
        format!("{}/{token}", self.url(host))
    }
}

/// Appends what is not decoded: printable ASCII as it is, the rest escaped.
fn push_printable(url: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\') {
            url.push(c);
        } else {
            url.push_str(&percent_encode(c.encode_utf8(&mut [0; 4])));
        }
    }
}

fn segment(encoded: &str) -> Result<String, BadTarget> {
    let segment = percent_decode(encoded).map_err(|_| BadTarget("a percent escape in it is broken, or not of UTF-8"))?;
    if matches!(segment.as_str(), "." | "..") {
        return Err(BadTarget("it holds . or .. as a segment"));
    }
    // An escaped slash is data, yet nobody shall walk by it who takes it for more.
    if segment.split('/').any(|part| part == "..") {
        return Err(BadTarget("it holds . or .. as a segment"));
    }
    if segment.chars().any(|c| c.is_control() || c == '\\') {
        return Err(BadTarget("it holds a backslash or a control character"));
    }
    Ok(segment)
}

impl StreamToken {
    /// The token that a URL ends in.
    pub fn of(text: &str) -> Option<Self> {
        match text {
            "audio" => Some(Self::Audio),
            "video" => Some(Self::Video),
            "rtx" => Some(Self::Rtx),
            _ => {
                let (kind, number) = text.split_once('=')?;
                let number = decimal(number).filter(|number| *number != 0)?;
                matches!(kind, "stream" | "audio" | "video").then_some(Self::Number(number))
            }
        }
    }
}

impl fmt::Display for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audio => f.write_str("audio"),
            Self::Video => f.write_str("video"),
            Self::Number(number) => write!(f, "stream={number}"),
            Self::Rtx => f.write_str("rtx"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn parts() {
        for (text, authority, name, query) in [
            ("rtsp://h:554/live.asf/", Some("h:554"), Some("live.asf"), None),
            ("RTSPU://h/K%C3%B6ln%20live/a?k=1&x=y", Some("h"), Some("Köln live/a"), Some("k=1&x=y")),
            ("rtsp://u:p@h@[::1]:8554/a?k=v/", Some("[::1]:8554"), Some("a"), Some("k=v")),
            ("rtspt://h/%2541#f?g", Some("h"), Some("%41"), None),
            ("/a b", None, Some("a b"), None),
            ("rtsp://h/a%2fb", Some("h"), None, None),
            ("rtsp://h/a//b", Some("h"), None, None),
            ("rtsp://h//", Some("h"), None, None),
            ("rtsp://h/", Some("h"), None, None),
            ("rtsp://h", Some("h"), None, None),
            ("rtsp://h?x", Some("h"), None, Some("x")),
            ("*", None, None, None),
        ] {
            let target = parse(text);
            assert_eq!(
                (target.authority.as_deref(), target.name().as_deref(), target.query.as_deref()),
                (authority, name, query),
                "{text}"
            );
            assert_eq!(
                target.is_server(),
                matches!(text, "*" | "rtsp://h" | "rtsp://h/" | "rtsp://h//" | "rtsp://h?x"),
                "{text}"
            );
        }
        assert_eq!(parse("rtsp://h/a%2fb").segments, ["a/b"]);
        assert!(parse("rtsps://h/a").is_tls && !parse("rtsp://h/a").is_tls);
        assert_eq!(parse("rtsp://h/a?x&k=1=2&k=3").query_value("k"), Some("1=2"));
        assert_eq!((parse("rtsp://h/a?kk=1").query_value("k"), parse("rtsp://h/a").query_value("k")), (None, None));
        for (authority, host) in [("h:1", "h"), ("h", "h"), ("[::1]:5", "::1"), ("[::1]", "::1"), ("fe80::1", "fe80::1")] {
            assert_eq!(parse(&format!("rtsp://{authority}/a")).host(), Some(host));
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "a",
            "h:554",
            "http://h/a",
            "rtsp:/h/a",
            "rtsp:///a",
            "rtsp://h\"/a",
            "rtsp://h,i/a",
            "rtsp://h;a/a",
            "rtsp://h/a/../b",
            "rtsp://h/./b",
            "rtsp://h/%2e%2E/b",
            "rtsp://h/a%2f..%2fb",
            "rtsp://h/..",
            "rtsp://h/a%00",
            "rtsp://h/a%0d%0aX:",
            "rtsp://h/a%5cb",
            "rtsp://h/a\\b",
            "rtsp://h/a\tb",
            "rtsp://h/a%",
            "rtsp://h/%ff",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn compared_by_path() {
        let a = parse("rtsp://h:554/live/a");
        for (other, same) in [
            ("rtsp://10.0.0.1/live/a/", true),
            ("rtspu://h/l%69ve/a", true),
            ("/live/a?k=1", true),
            ("rtsp://h/live%2Fa", false),
            ("rtsp://h/live/A", false),
            ("rtsp://h/live/a//", false),
            ("rtsp://h/live", false),
        ] {
            assert_eq!(a.same_path(&parse(other)), same, "{other}");
        }
    }

    #[test]
    fn streams() {
        for (text, aggregate, token) in [
            ("rtsp://h/a/audio", "rtsp://h/a", StreamToken::Audio),
            ("rtsp://h/a/video/", "rtsp://h/a", StreamToken::Video),
            ("rtsp://h/a/rtx?k=v", "rtsp://h/a?k=v", StreamToken::Rtx),
            ("rtsp://h/a?k=v/audio", "rtsp://h/a?k=v", StreamToken::Audio),
            ("rtsp://h/a?k=v/rtx/", "rtsp://h/a?k=v", StreamToken::Rtx),
            ("rtsp://h/a/stream=2", "rtsp://h/a", StreamToken::Number(2)),
            ("rtsp://h/a/audio=127", "rtsp://h/a", StreamToken::Number(127)),
            ("rtsp://h/a/video%3D1", "rtsp://h/a", StreamToken::Number(1)),
        ] {
            assert_eq!(parse(text).split_stream(), Some((parse(aggregate), token)), "{text}");
        }
        for text in
            ["*", "rtsp://h", "rtsp://h/a", "rtsp://h/a/Audio", "rtsp://h/a/stream=+1", "rtsp://h/a/stream=0", "rtsp://h/a/x=1"]
        {
            assert_eq!(parse(text).split_stream(), None, "{text}");
        }
        // One that is named like a token is split too; who asks knows better.
        assert!(parse("rtsp://h/audio").split_stream().is_some_and(|(aggregate, _)| aggregate.is_server()));
    }

    #[test]
    fn urls_for_clients() {
        let target = parse("rtspt://u@media.example:8554/K%C3%B6ln/a%2fb?k=1,2 \"ü");
        assert_eq!(target.url("x"), "rtsp://media.example:8554/K%C3%B6ln/a%2Fb?k=1,2%20%22%C3%BC");
        assert_eq!(parse("rtsp://Köln.example/a").url("x"), "rtsp://K%C3%B6ln.example/a");
        assert_eq!(parse("/a").stream_url("h:1", StreamToken::Number(2)), "rtsp://h:1/a/stream=2");
        let url = parse("rtsps://h/a?k=v").stream_url("x", StreamToken::Rtx);
        assert_eq!(url, "rtsps://h/a?k=v/rtx");
        assert_eq!(parse(&url).split_stream(), Some((parse("rtsps://h/a?k=v"), StreamToken::Rtx)));
    }

    proptest! {
        #[test]
        fn any_text(text in "((rtsp://|/)[a-z%0-9./?=&\\PC]{0,40})|\\PC{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                let url = target.url("h");
                prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('"'));
                let again = Target::parse(&url).unwrap();
                prop_assert!(again.same_path(&target) || target.segments.last().is_some_and(String::is_empty));
                let _ = (target.split_stream(), target.name(), target.host());
            }
        }
    }
}
