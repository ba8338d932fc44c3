//! Responses: a status and one sentence for the person who reads it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::push::PushId;

/// Status codes that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of RFC 9110")]
pub enum Status {
    Ok,
    NoContent,
    PartialContent,
    Found,
    NotModified,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    LengthRequired,
    ContentTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    ExpectationFailed,
    TooManyRequests,
    FieldsTooLarge,
    InternalServerError,
    ServiceUnavailable,
    VersionNotSupported,
}

impl Status {
    /// The number.
    pub const fn code(self) -> u16 {
        self.line().0
    }

    /// The words beside it.
    pub const fn reason(self) -> &'static str {
        self.line().1
    }

    const fn line(self) -> (u16, &'static str) {
        match self {
            Self::Ok => (200, "OK"),
            Self::NoContent => (204, "No Content"),
            Self::PartialContent => (206, "Partial Content"),
            Self::Found => (302, "Found"),
            Self::NotModified => (304, "Not Modified"),
            Self::BadRequest => (400, "Bad Request"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "Not Found"),
            Self::MethodNotAllowed => (405, "Method Not Allowed"),
            Self::RequestTimeout => (408, "Request Timeout"),
            Self::Conflict => (409, "Conflict"),
            Self::LengthRequired => (411, "Length Required"),
            Self::ContentTooLarge => (413, "Content Too Large"),
            Self::UriTooLong => (414, "URI Too Long"),
            Self::UnsupportedMediaType => (415, "Unsupported Media Type"),
            Self::RangeNotSatisfiable => (416, "Range Not Satisfiable"),
            Self::ExpectationFailed => (417, "Expectation Failed"),
            Self::TooManyRequests => (429, "Too Many Requests"),
            Self::FieldsTooLarge => (431, "Request Header Fields Too Large"),
            Self::InternalServerError => (500, "Internal Server Error"),
            Self::ServiceUnavailable => (503, "Service Unavailable"),
            Self::VersionNotSupported => (505, "HTTP Version Not Supported"),
        }
    }
}

/// A request is turned down: why, in words for the sender's operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// One sentence; it becomes the body.
    pub text: String,
    /// Values of `WWW-Authenticate` fields, with [`Status::Unauthorized`].
    pub challenges: Vec<String>,
    /// When another attempt may do better.
    pub retry_after: Option<Duration>,
    /// The connection closes, also where a request with credentials could follow on it.
    pub last: bool,
    /// The session that an encoder's next request is to name, with [`Status::Unauthorized`].
    pub push_id: Option<PushId>,
}

impl Refusal {
    /// Without challenges or a time for the next attempt.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), challenges: Vec::new(), retry_after: None, last: false, push_id: None }
    }

    /// 401 with these challenges.
    pub fn unauthorized(text: impl Into<String>, challenges: Vec<String>) -> Self {
        Self { challenges, ..Self::new(Status::Unauthorized, text) }
    }

    /// 503 until then.
    pub fn unavailable(text: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Status::ServiceUnavailable, text) }
    }
}

/// What becomes of the connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
}

/// The bytes of a response without body.
pub(super) fn ok(after: After) -> Bytes {
    let mut text = start(Status::Ok, after);
    text.push_str("Content-Length: 0\r\n\r\n");
    text.into()
}

/// The interim response that lets a sender with `Expect: 100-continue` begin (RFC 9110 10.1.1).
pub(super) fn continue_() -> Bytes {
    Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// The bytes of a refusal; the body stays away from `HEAD`.
pub(super) fn refusal(refusal: &Refusal, after: After, to_head: bool) -> Bytes {
    let mut text = start(refusal.status, after);
    if refusal.status == Status::MethodNotAllowed {
        text.push_str("Allow: POST, PUT\r\n");
    }
    for challenge in &refusal.challenges {
        let _ = write!(text, "WWW-Authenticate: {challenge}\r\n");
    }
    if let Some(wait) = refusal.retry_after {
        let _ = write!(text, "Retry-After: {}\r\n", wait.as_secs().max(1));
    }
    let length = refusal.text.len() + 1;
    let _ = write!(text, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n");
    if !to_head {
        text.push_str(&refusal.text);
        text.push('\n');
    }
    text.into()
}

fn start(status: Status, after: After) -> String {
    let connection = if after == After::Close { "close" } else { "keep-alive" };
    format!(
        "HTTP/1.1 {} {}\r\nServer: wmrelay/{}\r\nConnection: {connection}\r\nCache-Control: no-cache\r\n",
        status.code(),
        status.reason(),
        env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_what_the_refusal_says() {
        let mut denied = Refusal::unauthorized("no", vec!["Digest a".into(), "Basic b".into()]);
        denied.retry_after = Some(Duration::from_millis(10));
        let text = String::from_utf8(refusal(&denied, After::KeepAlive, false).to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\nServer: wmrelay/"), "{text}");
        assert!(text.contains("WWW-Authenticate: Digest a\r\nWWW-Authenticate: Basic b\r\nRetry-After: 1\r\n"), "{text}");
        assert!(text.contains("Connection: keep-alive\r\n") && text.ends_with("Content-Length: 3\r\n\r\nno\n"), "{text}");
        let to_head = refusal(&Refusal::new(Status::MethodNotAllowed, "no"), After::Close, true);
        assert!(to_head.ends_with(b"Content-Length: 3\r\n\r\n"));
        assert!(String::from_utf8_lossy(&to_head).contains("Allow: POST, PUT\r\n"));
    }
}
