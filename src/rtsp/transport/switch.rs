//! Bodies of `application/x-wms-streamswitch`: which stream to send instead of which.

use std::fmt;

use super::super::message::decimal;

/// Stands for no stream.
const NONE: u32 = u32::MAX;
/// Most entries of one body: there are 127 streams in ASF.
const ENTRIES_BOUND: usize = 127;

/// One entry: what becomes of a stream. Source: MS-RTSP 2.2.7.10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The stream that was, and its URL where one is given.
    pub old: Option<(u32, Option<String>)>,
    /// The stream that is to be, and its URL where one is given.
    pub new: Option<(u32, Option<String>)>,
    /// How much of the new one.
    pub thinning: Thinning,
}

/// How much of a stream is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thinning {
    /// All of it.
    Everything,
    /// Key frames.
    KeyFrames,
    /// Nothing; with the same stream on both sides it is dropped.
    Nothing,
}

/// Why a body is no stream switch; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSwitch {
    /// It is not ASCII text.
    #[error("the body is not ASCII text")]
    Text,
    /// Not three numbers, or more behind them than the URLs of the streams named.
    #[error("an entry is not SSEntry: OLD NEW THINNING [URL] [URL]")]
    Entry,
    /// The third number is not 0 to 2.
    #[error("the thinning of an entry is not 0, 1 or 2")]
    Thinning,
    /// There is none, or over 127.
    #[error("there is no entry in the body, or more than 127")]
    Count,
}

impl Switch {
    /// The entries of a body. `SSEntry:` in front of one may be missing, as in the specification's own example, and so may URLs:
    /// numbers name the streams as well.
    ///
    /// # Errors
    /// [`BadSwitch`].
    pub fn parse_all(body: &[u8]) -> Result<Vec<Self>, BadSwitch> {
        let text = str::from_utf8(body).ok().filter(|text| text.is_ascii()).ok_or(BadSwitch::Text)?;
        // A line that begins with a blank goes on with the one before.
        let text = text.replace("\r\n", "\n").replace("\n ", " ").replace("\n\t", " ");
        let lines = text.split('\n').map(str::trim).filter(|line| !line.is_empty());
        let entries = lines.take(ENTRIES_BOUND + 1).map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        if (1..=ENTRIES_BOUND).contains(&entries.len()) { Ok(entries) } else { Err(BadSwitch::Count) }
    }

    fn parse(line: &str) -> Result<Self, BadSwitch> {
        let (prefix, rest) = line.split_at_checked(8).unwrap_or(("", line));
        let line = if prefix.eq_ignore_ascii_case("SSEntry:") { rest } else { line };
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next().and_then(decimal::<u32>).ok_or(BadSwitch::Entry);
        let (old, new, thinning) = (number()?, number()?, number()?);
        let thinning = match thinning {
            0 => Thinning::Everything,
            1 => Thinning::KeyFrames,
            2 => Thinning::Nothing,
            _ => return Err(BadSwitch::Thinning),
        };
        let mut stream = |number| (number != NONE).then(|| (number, words.next().map(str::to_owned)));
        let entry = Self { old: stream(old), new: stream(new), thinning };
        let sound = words.next().is_none() && (entry.old.is_some() || entry.new.is_some());
        if sound { Ok(entry) } else { Err(BadSwitch::Entry) }
    }
}

/// An entry as a line of the body, with its end.
impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |stream: &Option<(u32, _)>| stream.as_ref().map_or(NONE, |(number, _)| *number);
        let thinning = match self.thinning {
            Thinning::Everything => 0,
            Thinning::KeyFrames => 1,
            Thinning::Nothing => 2,
        };
        write!(f, "SSEntry: {} {} {thinning}", number(&self.old), number(&self.new))?;
        for (_, url) in [&self.old, &self.new].into_iter().flatten() {
            if let Some(url) = url {
                write!(f, " {url}")?;
            }
        }
        f.write_str("\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(number: u32, url: &str) -> Option<(u32, Option<String>)> {
        Some((number, Some(url.to_owned()).filter(|url| !url.is_empty())))
    }

    #[test]
    fn both_ways() {
        for (text, entry) in [
            (
                "SSEntry: 4294967295 2 1 rtsp://h/a/video\r\n",
                Switch { old: None, new: stream(2, "rtsp://h/a/video"), thinning: Thinning::KeyFrames },
            ),
            (
                "SSEntry: 5 6 0 rtsp://h/a/stream=5 rtsp://h/a/stream=6\r\n",
                Switch {
                    old: stream(5, "rtsp://h/a/stream=5"),
                    new: stream(6, "rtsp://h/a/stream=6"),
                    thinning: Thinning::Everything,
                },
            ),
            ("SSEntry: 5 4294967295 2 u\r\n", Switch { old: stream(5, "u"), new: None, thinning: Thinning::Nothing }),
        ] {
            assert_eq!(entry.to_string(), text);
            assert_eq!(Switch::parse_all(text.as_bytes()), Ok(vec![entry]), "{text}");
        }
    }

    #[test]
    fn tolerated() {
        let dropped = Switch { old: stream(5, "a"), new: stream(5, "b"), thinning: Thinning::Nothing };
        for text in ["5 5 2 a b", "ssentry:5 5 2 a b\n\n", "SSEntry: 5 5 2 a\r\n b\r\n", "\r\nSSEntry:  5\t5 2\n\ta b"] {
            assert_eq!(Switch::parse_all(text.as_bytes()), Ok(vec![dropped.clone()]), "{text:?}");
        }
        let bare = Switch { old: stream(1, ""), new: stream(2, ""), thinning: Thinning::Everything };
        assert_eq!(Switch::parse_all(b"1 2 0\r\nSSEntry: 5 5 2 a b\r\n"), Ok(vec![bare, dropped]));
    }

    #[test]
    fn refused() {
        for (text, error) in [
            ("", BadSwitch::Count),
            ("\r\n", BadSwitch::Count),
            (&"1 2 0\n".repeat(128), BadSwitch::Count),
            ("SSEntry:", BadSwitch::Entry),
            ("1 2", BadSwitch::Entry),
            ("1 +2 0", BadSwitch::Entry),
            ("4294967296 2 0", BadSwitch::Entry),
            ("4294967295 4294967295 0", BadSwitch::Entry),
            ("4294967295 2 0 a b", BadSwitch::Entry),
            ("1 2 0 a b c", BadSwitch::Entry),
            ("1 2 3", BadSwitch::Thinning),
            ("1 2 0 \u{e9}", BadSwitch::Text),
        ] {
            assert_eq!(Switch::parse_all(text.as_bytes()), Err(error), "{text:?}");
        }
        assert_eq!(Switch::parse_all(&[0xFF]), Err(BadSwitch::Text));
    }

    proptest! {
        #[test]
        fn any_bytes(text in "[0-9 SEntry:\r\n\tax]{0,80}") {
            if let Ok(entries) = Switch::parse_all(text.as_bytes()) {
                let written: String = entries.iter().map(ToString::to_string).collect();
                prop_assert_eq!(Switch::parse_all(written.as_bytes()), Ok(entries));
            }
        }
    }
}
