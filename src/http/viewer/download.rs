//! The response to a download of a file: the whole, or one range of it. Source: RFC 9110 13, 14.

use std::time::{Duration, SystemTime};

use super::reply::Reply;
use super::request::Request;
use crate::http::response::Status;
use crate::viewing::FileFacts;

/// What of a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Range { first: u64, len: u64 },
    Unsatisfiable,
}

/// The head of the response, with the body where that is words; and which bytes of the file follow.
pub(super) fn response(server: &str, request: &Request, file: &FileFacts, keeps: bool) -> (Vec<u8>, Option<(u64, u64)>) {
    let etag = etag(file);
    let modified = file.modified.and_then(date);
    if is_known(request, &etag, modified.as_deref()) {
        let mut reply = Reply::new(server, request.http_1_0, Status::NotModified).field("ETag", &etag);
        if let Some(date) = &modified {
            reply = reply.field("Last-Modified", date);
        }
        let reply = reply.field("Cache-Control", &request.cache_control("no-cache"));
        return (reply.connection(keeps).open(), None);
    }
    let may_have_part = request.if_range.as_ref().is_none_or(|tag| *tag == etag);
    let range = request.range.as_deref().filter(|_| may_have_part && !request.head_only);
    let part = range.map_or(Part::Whole, |range| part(range, file.len));
    let (status, first, len) = match part {
        Part::Whole => (Status::Ok, 0, file.len),
        Part::Range { first, len } => (Status::PartialContent, first, len),
        Part::Unsatisfiable => {
            let reply = Reply::new(server, request.http_1_0, Status::RangeNotSatisfiable);
            let reply = reply.field("Content-Range", &format!("bytes */{}", file.len)).field("Accept-Ranges", "bytes");
            let reply = reply.field("Content-Type", "text/plain; charset=utf-8").connection(false);
            return (reply.body(format!("The file has {} bytes.\n", file.len).as_bytes(), false), None);
        }
    };
    let mut reply = Reply::new(server, request.http_1_0, status)
        .field("Content-Type", file.content_type)
        .field("Content-Length", &len.to_string())
        .field("Accept-Ranges", "bytes")
        .field("ETag", &etag)
        .field("Cache-Control", &request.cache_control("no-cache"));
    if status == Status::PartialContent {
        reply = reply.field("Content-Range", &format!("bytes {first}-{}/{}", first + len - 1, file.len));
    }
    if let Some(date) = &modified {
        reply = reply.field("Last-Modified", date);
    }
    let wanted = !request.head_only && len > 0;
    (reply.connection(keeps).open(), wanted.then_some((first, len)))
}

/// Whether the client has it already. A tag says more than a date, which is compared by its letters: it is ours. RFC 9110 13.2.2.
fn is_known(request: &Request, etag: &str, modified: Option<&str>) -> bool {
    match &request.if_none_match {
        Some(tags) => tags.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
        }),
        None => request.if_modified_since.as_deref().is_some_and(|since| Some(since.trim()) == modified),
    }
}

fn etag(file: &FileFacts) -> String {
    format!("\"{:x}-{:x}-{:x}\"", file.len, file.modified.unwrap_or_default(), file.identity)
}

/// One range is served; of several, or of what is no range, the whole file, as the specification allows.
fn part(range: &str, len: u64) -> Part {
    let Some((unit, range)) = range.split_once('=') else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes")) else {
        return Part::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number too large for a file is still one.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (first, last, number(first), number(last)) {
        ("", _, None, Some(suffix)) => (len.saturating_sub(suffix), if suffix == 0 { None } else { len.checked_sub(1) }),
        (_, "", Some(first), None) => (first, len.checked_sub(1)),
        (_, _, Some(first), Some(last)) if first <= last => (first, len.checked_sub(1).map(|end| end.min(last))),
        _ => return Part::Whole,
    };
    match last.and_then(|last| last.checked_sub(first)) {
        Some(more) => Part::Range { first, len: more + 1 },
        None => Part::Unsatisfiable,
    }
}

/// A date as in `Sun, 06 Nov 1994 08:49:37 GMT`, for the years 1970 to 9999. Source: RFC 9110 5.6.7.
fn date(unix_s: i64) -> Option<String> {
    /// The begin of the year 10000, which the form has no room for.
    const END_S: u64 = 253_402_300_800;
    let unix_s = u64::try_from(unix_s).ok().filter(|unix_s| *unix_s < END_S)?;
    Some(httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, len, expected) in [
            ("bytes=0-", 10, Part::Range { first: 0, len: 10 }),
            ("bytes=3-5", 10, Part::Range { first: 3, len: 3 }),
            ("Bytes=3-99999999999999999999", 10, Part::Range { first: 3, len: 7 }),
            ("bytes=-4", 10, Part::Range { first: 6, len: 4 }),
            ("bytes=-40", 10, Part::Range { first: 0, len: 10 }),
            ("bytes=9-9", 10, Part::Range { first: 9, len: 1 }),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=-1", 0, Part::Unsatisfiable),
            ("bytes=5-3", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes", 10, Part::Whole),
            ("seconds=1-2", 10, Part::Whole),
        ] {
            assert_eq!(part(range, len), expected, "{range} of {len}");
        }
    }

    #[test]
    fn dates() {
        for (unix_s, expected) in [
            (784_111_777, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (0, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            (-1, None),
            (951_782_400, Some("Tue, 29 Feb 2000 00:00:00 GMT")),
            (4_107_542_400, Some("Mon, 01 Mar 2100 00:00:00 GMT")),
            (253_402_300_799, Some("Fri, 31 Dec 9999 23:59:59 GMT")),
            (253_402_300_800, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(date(unix_s).as_deref(), expected);
        }
    }
}
