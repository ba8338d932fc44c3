//! The `Range` header.

use std::fmt;

use super::super::message::decimal;

/// Which part is to be played, or is. Source: RFC 2326 12.29; MS-RTSP 2.2.6.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Of time: `npt=` and `smpte=`. Written as `npt=`.
    Time {
        /// Where it begins.
        from: RangeStart,
        /// Where it ends, milliseconds; may lie before the beginning.
        to_ms: Option<u64>,
    },
    /// Bytes of the ASF file, header included.
    Byte {
        /// The first.
        from: u64,
        /// The last.
        to: Option<u64>,
    },
    /// Packets of the ASF file.
    Packet {
        /// The first.
        from: u64,
        /// The last.
        to: Option<u64>,
    },
}

/// Where a range of time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeStart {
    /// The live edge.
    Now,
    /// So many milliseconds.
    Ms(u64),
    /// Nothing is said: only the end.
    Unsaid,
}

/// Why a range is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It is not written as its unit wants it: 400.
    #[error("the Range header is not UNIT=FROM-TO")]
    Syntax,
    /// It is of another unit, `clock=` for one: 457.
    #[error("of ranges there are npt, smpte, x-asf-byte and x-asf-packet here")]
    Unit,
}

impl Range {
    /// Reads the value of a header. A `;time=` behind it is passed over.
    ///
    /// # Errors
    /// [`BadRange`].
    pub fn parse(value: &str) -> Result<Self, BadRange> {
        let value = value.split(';').next().unwrap_or_default();
        let (unit, rest) = value.split_once('=').ok_or(BadRange::Syntax)?;
        let unit = unit.trim().to_ascii_lowercase();
        let parts = rest.split_once('-').map(|(from, to)| (from.trim(), to.trim())).ok_or(BadRange::Syntax);
        let time = |clock: fn(&str) -> Option<u64>| {
            let (from, to) = parts?;
            let from = match from {
                "" if to.is_empty() => return Err(BadRange::Syntax),
                "" => RangeStart::Unsaid,
                now if now.eq_ignore_ascii_case("now") => RangeStart::Now,
                time => RangeStart::Ms(clock(time).ok_or(BadRange::Syntax)?),
            };
            Ok(Self::Time { from, to_ms: optional(to, clock)? })
        };
        let numbers = || {
            let (from, to) = parts?;
            let number = |text: &str| decimal(text).filter(|number| *number != u64::MAX);
            Ok((number(from).ok_or(BadRange::Syntax)?, optional(to, number)?))
        };
        match unit.as_str() {
            "npt" => time(npt_ms),
            "smpte" | "smpte-30-drop" => time(smpte_30_drop_ms),
            "smpte-25" => time(smpte_25_ms),
            "x-asf-byte" => numbers().map(|(from, to)| Self::Byte { from, to }),
            "x-asf-packet" => numbers().map(|(from, to)| Self::Packet { from, to }),
            _ => Err(BadRange::Unit),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |f: &mut fmt::Formatter<'_>, ms: u64| write!(f, "{}.{:03}", ms / 1000, ms % 1000);
        let (name, from, to) = match *self {
            Self::Time { from, to_ms } => {
                f.write_str("npt=")?;
                match from {
                    RangeStart::Now => f.write_str("now")?,
                    RangeStart::Ms(ms) => seconds(f, ms)?,
                    RangeStart::Unsaid => {}
                }
                f.write_str("-")?;
                return to_ms.map_or(Ok(()), |ms| seconds(f, ms));
            }
            Self::Byte { from, to } => ("x-asf-byte", from, to),
            Self::Packet { from, to } => ("x-asf-packet", from, to),
        };
        write!(f, "{name}={from}-")?;
        to.map_or(Ok(()), |to| write!(f, "{to}"))
    }
}

/// Empty text is nothing.
fn optional(text: &str, read: impl Fn(&str) -> Option<u64>) -> Result<Option<u64>, BadRange> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some).ok_or(BadRange::Syntax) }
}

/// `s`, `s.f` or `h:m:s.f`; digits past milliseconds are cut off. Source: RFC 2326 3.6.
fn npt_ms(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = if whole.contains(':') { clock_seconds(whole)? } else { decimal::<u64>(whole)? };
    let thousandths = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let ms = thousandths.fold(0, |ms, digit| ms * 10 + u64::from(digit - b'0'));
    seconds.checked_mul(1000)?.checked_add(ms)
}

/// `h:m:s`, minutes and seconds below 60.
fn clock_seconds(text: &str) -> Option<u64> {
    let mut numbers = text.split(':').map(decimal::<u64>);
    let (hours, minutes, seconds) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if numbers.next().is_some() || minutes >= 60 || seconds >= 60 {
        return None;
    }
    hours.checked_mul(3600)?.checked_add(minutes * 60 + seconds)
}

/// `h:m:s[:frame[.hundredths]]` as seconds of the clock and hundredths of frames. Source: RFC 2326 3.5.
fn smpte(text: &str, frames_per_second: u64) -> Option<(u64, u64)> {
    let (clock, frame) = match text.match_indices(':').nth(2) {
        Some((at, _)) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, "0"),
    };
    let (frame, hundredths) = frame.split_once('.').unwrap_or((frame, "0"));
    let (frame, hundredths): (u64, u64) = (decimal(frame)?, decimal(hundredths)?);
    // Two digits each, as RFC 2326 has them: nothing below can overflow.
    let seconds = clock_seconds(clock).filter(|seconds| *seconds < 100 * 3600)?;
    (frame < frames_per_second && hundredths < 100).then_some((seconds, frame * 100 + hundredths))
}

fn smpte_25_ms(text: &str) -> Option<u64> {
    let (seconds, frame_hundredths) = smpte(text, 25)?;
    Some(seconds * 1000 + frame_hundredths * 10 / 25)
}

/// At 30000/1001 frames a second: the first two frame numbers of each minute are not counted, but for every tenth.
fn smpte_30_drop_ms(text: &str) -> Option<u64> {
    let (seconds, frame_hundredths) = smpte(text, 30)?;
    let minutes = seconds / 60;
    let frames = (seconds * 30).checked_sub(2 * (minutes - minutes / 10))?;
    Some((frames * 100 + frame_hundredths) * 1001 / 3000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn time(from: RangeStart, to_ms: Option<u64>) -> Result<Range, BadRange> {
        Ok(Range::Time { from, to_ms })
    }

    #[test]
    fn read() {
        for (value, range) in [
            ("npt=0.000-", time(RangeStart::Ms(0), None)),
            ("npt=0-12", time(RangeStart::Ms(0), Some(12_000))),
            ("NPT = 3.1 - 173.9039", time(RangeStart::Ms(3100), Some(173_903))),
            ("npt=1:02:03.5-", time(RangeStart::Ms(3_723_500), None)),
            ("npt=now-", time(RangeStart::Now, None)),
            ("npt=-7", time(RangeStart::Unsaid, Some(7000))),
            ("npt=5-4;time=19970123T153600Z", time(RangeStart::Ms(5000), Some(4000))),
            ("npt=5.-", time(RangeStart::Ms(5000), None)),
            ("npt=-", Err(BadRange::Syntax)),
            ("npt=5", Err(BadRange::Syntax)),
            ("npt=+5-", Err(BadRange::Syntax)),
            ("npt=5.x-", Err(BadRange::Syntax)),
            ("npt=.5-", Err(BadRange::Syntax)),
            ("npt=1:2-", Err(BadRange::Syntax)),
            ("npt=1:60:00-", Err(BadRange::Syntax)),
            ("npt=0-1,npt=2-3", Err(BadRange::Syntax)),
            ("npt=18446744073709551615-", Err(BadRange::Syntax)),
            ("npt", Err(BadRange::Syntax)),
            ("", Err(BadRange::Syntax)),
            ("clock=19961108T142300Z-", Err(BadRange::Unit)),
            ("bytes=0-", Err(BadRange::Unit)),
            ("smpte=0:00:00-0:01:00:02", time(RangeStart::Ms(0), Some(60_060))),
            ("smpte=10:00:00-", time(RangeStart::Ms(35_999_964), None)),
            ("smpte-25=10:07:33:05.01-", time(RangeStart::Ms(36_453_200), None)),
            ("smpte-25=0:0:0:25-", Err(BadRange::Syntax)),
            ("smpte=100:0:0-", Err(BadRange::Syntax)),
            ("smpte=1-", Err(BadRange::Syntax)),
            ("x-asf-byte=0-", Ok(Range::Byte { from: 0, to: None })),
            ("x-asf-byte=5000-18446744073709551614", Ok(Range::Byte { from: 5000, to: Some(u64::MAX - 1) })),
            ("x-asf-byte=18446744073709551615-", Err(BadRange::Syntax)),
            ("X-ASF-Packet=7-9", Ok(Range::Packet { from: 7, to: Some(9) })),
            ("x-asf-packet=-9", Err(BadRange::Syntax)),
        ] {
            assert_eq!(Range::parse(value), range, "{value}");
        }
    }

    #[test]
    fn written() {
        for text in ["npt=3.100-173.903", "npt=now-", "npt=-0.007", "x-asf-byte=5-", "x-asf-packet=0-6"] {
            assert_eq!(Range::parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(npt|smpte|smpte-25|x-asf-byte)=[0-9:.nowx-]{0,30}|\\PC{0,20}") {
            if let Ok(range) = Range::parse(&text) {
                prop_assert_eq!(Range::parse(&range.to_string()), Ok(range));
            }
        }
    }
}
