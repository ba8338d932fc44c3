//! Headers of a message, in the order in which they came.

use std::str::FromStr;

/// Names and values. Names are compared without case; what came folded is one line; blanks around values are gone.
///
/// A value holds no control character but the tab. What was not UTF-8 shows as replacement characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All values under a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.0.iter().filter(move |(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The first value as an unsigned decimal: digits alone, no sign. `None` where it is missing, anything else, or too large for `T`.
    pub fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        decimal(self.get(name)?)
    }

    /// The media type of the body without its parameters; compare it without case.
    pub fn content_type(&self) -> Option<&str> {
        self.get("Content-Type").and_then(|value| value.split(';').next()).map(str::trim)
    }

    /// Whether the body is of this media type.
    pub fn is_type(&self, media_type: &str) -> bool {
        self.content_type().is_some_and(|value| value.eq_ignore_ascii_case(media_type))
    }

    /// Whether a header that lists tokens has this one, in any of its lines; case does not count.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Names as sent, and values.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    /// Joins a folded line to the last value with one blank; `false` where there is none.
    pub(super) fn fold(&mut self, more: &str) -> bool {
        let Some((_, value)) = self.0.last_mut() else { return false };
        if !value.is_empty() && !more.is_empty() {
            value.push(' ');
        }
        value.push_str(more);
        true
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Digits alone as a number. `from_str` of the integers would take a plus as well.
pub(in crate::rtsp) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_by_name() {
        let headers: Headers = [
            ("CSeq", "7"),
            ("Supported", "a, com.microsoft.wm.eosmsg"),
            ("content-TYPE", "Application/SDP ; charset=UTF-8"),
            ("supported", "B"),
            ("X-Plus", "+1"),
            ("X-Big", "256"),
        ]
        .into_iter()
        .collect();
        assert_eq!((headers.get("cseq"), headers.number::<u64>("CSEQ")), (Some("7"), Some(7)));
        assert_eq!(headers.all("SUPPORTED").collect::<Vec<_>>(), ["a, com.microsoft.wm.eosmsg", "B"]);
        assert!(headers.has_token("Supported", "com.microsoft.wm.EOSMSG") && headers.has_token("Supported", "b"));
        assert!(!headers.has_token("Supported", "eosmsg"));
        assert!(headers.is_type("application/sdp") && !headers.is_type("application/sd"));
        assert_eq!(
            (headers.number::<u8>("X-Plus"), headers.number::<u8>("X-Big"), headers.number::<u8>("X-No")),
            (None, None, None)
        );
        assert_eq!(headers.number::<u16>("X-Big"), Some(256));
    }
}
