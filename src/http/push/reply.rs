//! Responses as encoders expect them: letters of field names large and small exactly so, and a server they know.
//!
//! Encoders go away where `Server` does not begin with `Cougar/9` (MS-WMHTTP 3.1.5.1), and some read field names by case.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;

use super::cookie::PushId;
use crate::http::response::{After, Refusal, Status};

const SERVER: &str = concat!("Cougar/9.5.6001.18281 wmrelay/", env!("CARGO_PKG_VERSION"));
/// Of no meaning to encoders, but real servers say it.
const SUPPORTED: &str = "com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.predstrm, \
                         com.microsoft.wm.fastcache, com.microsoft.wm.startupprofile";

/// The answer to a PushSetup, and to a PushStart whose body is complete.
///
/// Source: MS-WMHTTP 3.2.5.1, 3.2.5.2.
pub(in crate::http) fn no_content(push_id: &PushId, date: SystemTime, after: After) -> Bytes {
    let date = httpdate::fmt_http_date(date);
    let push_id = push_id.as_str();
    let mut text = start(Status::NoContent);
    let _ = write!(
        text,
        "Content-Length: 0\r\nDate: {date}\r\nPragma: no-cache, timeout=60000\r\nCache-Control: no-cache\r\n\
         Set-Cookie: push-id={push_id}\r\nSupported: {SUPPORTED}\r\n"
    );
    end(text, after)
}

/// A refusal. Encoders show the status alone, so there is no body; the sentence is for our log.
pub(in crate::http) fn refusal(refusal: &Refusal, after: After) -> Bytes {
    let mut text = start(refusal.status);
    text.push_str("Content-Length: 0\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n");
    for challenge in &refusal.challenges {
        let _ = write!(text, "WWW-Authenticate: {challenge}\r\n");
    }
    if let Some(push_id) = &refusal.push_id {
        let _ = write!(text, "Set-Cookie: push-id={}\r\n", push_id.as_str());
    }
    if let Some(wait) = refusal.retry_after {
        let _ = write!(text, "Retry-After: {}\r\n", wait.as_secs().max(1));
    }
    if refusal.status == Status::MethodNotAllowed {
        text.push_str("Allow: POST\r\n");
    }
    end(text, after)
}

fn start(status: Status) -> String {
    format!("HTTP/1.1 {} {}\r\nServer: {SERVER}\r\n", status.code(), status.reason())
}

/// A connection that stays is not mentioned, as HTTP/1.1 keeps it.
fn end(mut text: String, after: After) -> Bytes {
    if after == After::Close {
        text.push_str("Connection: close\r\n");
    }
    text.push_str("\r\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn word_for_word() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut bits = [0; 16];
        bits[0] = 77;
        let text = no_content(&PushId::random(bits), date, After::KeepAlive);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "HTTP/1.1 204 No Content\r\nServer: Cougar/9.5.6001.18281 wmrelay/{version}\r\nContent-Length: 0\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nPragma: no-cache, timeout=60000\r\nCache-Control: no-cache\r\n\
             Set-Cookie: push-id=77\r\nSupported: com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, \
             com.microsoft.wm.predstrm, com.microsoft.wm.fastcache, com.microsoft.wm.startupprofile\r\n\r\n"
        );
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    }

    #[test]
    fn a_challenge_carries_the_session() {
        let mut denied = Refusal::unauthorized("no", vec!["Digest a".into()]);
        denied.push_id = Some(PushId::random([1; 16]));
        let text = String::from_utf8(refusal(&denied, After::KeepAlive).to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\nServer: Cougar/9.5"), "{text}");
        assert!(
            text.contains("\r\nContent-Length: 0\r\n") && text.contains("\r\nWWW-Authenticate: Digest a\r\nSet-Cookie: push-id=")
        );
        assert!(!text.contains("Connection"), "{text}");
        assert!(refusal(&denied, After::Close).ends_with(b"\r\nConnection: close\r\n\r\n"));
    }
}
