//! Methods of requests.

use std::fmt;

/// What a request wants. Case counts. Source: RFC 2326 10.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of RFC 2326")]
pub enum Method {
    Options,
    Describe,
    Announce,
    Setup,
    Play,
    Pause,
    Teardown,
    GetParameter,
    SetParameter,
    Redirect,
    Record,
    /// None of them; a token.
    Other(String),
}

const KNOWN: [(&str, Method); 11] = [
    ("OPTIONS", Method::Options),
    ("DESCRIBE", Method::Describe),
    ("ANNOUNCE", Method::Announce),
    ("SETUP", Method::Setup),
    ("PLAY", Method::Play),
    ("PAUSE", Method::Pause),
    ("TEARDOWN", Method::Teardown),
    ("GET_PARAMETER", Method::GetParameter),
    ("SET_PARAMETER", Method::SetParameter),
    ("REDIRECT", Method::Redirect),
    ("RECORD", Method::Record),
];

impl Method {
    /// The method of a request line; `None` for what is no token.
    pub fn of(text: &str) -> Option<Self> {
        let known = KNOWN.into_iter().find(|(name, _)| *name == text).map(|(_, method)| method);
        known.or_else(|| is_token(text).then(|| Self::Other(text.to_owned())))
    }

    /// As it is written in a request line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => KNOWN.iter().find(|(_, method)| method == known).map_or("", |(name, _)| name),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Source: RFC 2326 15.1.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// A character that methods and header names are made of.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        for (name, method) in KNOWN {
            assert_eq!((Method::of(name), method.to_string()), (Some(method.clone()), name.to_owned()));
        }
        assert_eq!(Method::of("Options"), Some(Method::Other("Options".to_owned())));
        assert_eq!(Method::of("X-GO").unwrap().as_str(), "X-GO");
        for text in ["", "A B", "A/B", "Ä", "A:", "A\0"] {
            assert_eq!(Method::of(text), None, "{text:?}");
        }
    }
}
