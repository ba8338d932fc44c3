//! The response to a download of a file: the whole, or one range of it. Source: RFC 9110 13, 14.

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
    if let Some(date) = file.modified.and_then(date) {
        reply = reply.field("Last-Modified", &date);
    }
    let wanted = !request.head_only && len > 0;
    (reply.connection(keeps).open(), wanted.then_some((first, len)))
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

/// A date as in `Sun, 06 Nov 1994 08:49:37 GMT`, for the years 1 to 9999.
///
/// Source: RFC 9110 5.6.7; the days of the proleptic Gregorian calendar, counted in years that begin in March.
fn date(unix_s: i64) -> Option<String> {
    const DAY_S: i64 = 86_400;
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (days, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
    // Days since 0000-03-01; 400 years are 146,097 of them.
    let since = days.checked_add(719_468)?;
    let (era, day) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in fives.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let month = MONTHS.get(usize::try_from(month).ok()?)?;
    let week_day = DAYS.get(usize::try_from(days.rem_euclid(7)).ok()?)?;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (1..=9999)
        .contains(&year)
        .then(|| format!("{week_day}, {day_of_month:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"))
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
            (-1, Some("Wed, 31 Dec 1969 23:59:59 GMT")),
            (951_782_400, Some("Tue, 29 Feb 2000 00:00:00 GMT")),
            (4_107_542_400, Some("Mon, 01 Mar 2100 00:00:00 GMT")),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(date(unix_s).as_deref(), expected);
        }
    }
}
