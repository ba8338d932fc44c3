//! Ranges of normal play time.

/// Where a range begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Npt {
    /// At the live edge.
    Now,
    /// So many milliseconds from the begin.
    Ms(u64),
}

/// A range of normal play time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NptRange {
    /// Begin.
    pub start: Npt,
    /// End in milliseconds, not before the begin; `None` where it is open.
    pub end_ms: Option<u64>,
}

impl NptRange {
    /// Reads `npt=3.100-173.903`, `npt=0:00:03.1-`, `npt=now-`; what stands behind a semicolon is passed over.
    ///
    /// `None` for anything else, other units of time among it.
    ///
    /// Source: RFC 2326 3.6.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, range) = text.split(';').next()?.split_once('=')?;
        let (start, end) = range.trim().split_once('-')?;
        let start = match start.trim() {
            now if now.eq_ignore_ascii_case("now") => Npt::Now,
            "" => Npt::Ms(0),
            time => Npt::Ms(milliseconds(time)?),
        };
        let end_ms = match end.trim() {
            "" => None,
            time => Some(milliseconds(time)?),
        };
        let is_forward = match (start, end_ms) {
            (Npt::Ms(start), Some(end)) => start <= end,
            _ => true,
        };
        (unit.trim().eq_ignore_ascii_case("npt") && is_forward).then_some(Self { start, end_ms })
    }
}

/// `12.05` or `1:02:03.5` as milliseconds; what is finer is cut off.
fn milliseconds(time: &str) -> Option<u64> {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut seconds = 0_u64;
    let parts: Vec<_> = whole.split(':').collect();
    if parts.len() != 1 && parts.len() != 3 {
        return None;
    }
    for part in parts {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let ms = fraction.bytes().chain(*b"000").take(3).fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
    seconds.checked_mul(1000)?.checked_add(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range = |start, end_ms| Some(NptRange { start, end_ms });
        for (text, expected) in [
            ("npt=3.100-173.903", range(Npt::Ms(3100), Some(173_903))),
            ("NPT= 0 - ", range(Npt::Ms(0), None)),
            ("npt=now-", range(Npt::Now, None)),
            ("npt=1:02:03.0459-", range(Npt::Ms(3_723_045), None)),
            ("npt=-5;time=x", range(Npt::Ms(0), Some(5000))),
            ("npt=5-5.", range(Npt::Ms(5000), Some(5000))),
            ("npt=5-4", None),
            ("npt=5", None),
            ("npt=1:2-", None),
            ("npt=+1-", None),
            ("npt=1e3-", None),
            ("npt=1.x-", None),
            ("npt=.5-", None),
            ("npt=99999999999999999999-", None),
            ("npt=18446744073709551615-", None),
            ("smpte=0-1", None),
            ("clock=19961108T142300Z-", None),
            ("", None),
        ] {
            assert_eq!(NptRange::parse(text), expected, "{text}");
        }
    }
}
