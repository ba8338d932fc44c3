//! Request targets: the path in them, and its percent escapes.

use std::fmt::Write as _;

/// Why a percent-encoded text has no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a % is not followed by two hexadecimal digits")]
    Escape,
    /// The decoded bytes are no text.
    #[error("the decoded bytes are not UTF-8")]
    NotUtf8,
}

/// Replaces each `%XX` by its byte, once: `%2541` becomes `%41`, not `A`.
///
/// `+` stays a plus; that rule belongs to forms, not to paths.
///
/// # Errors
/// [`TargetError`] where an escape is broken or the result is not UTF-8.
///
/// RFC 3986 2.1.
pub fn percent_decode(encoded: &str) -> Result<String, TargetError> {
    let mut bytes = encoded.bytes();
    let mut decoded = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = bytes.next().and_then(hex_digit).zip(bytes.next().and_then(hex_digit));
            let (high, low) = digits.ok_or(TargetError::Escape)?;
            decoded.push(high << 4 | low);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map_err(|_| TargetError::NotUtf8)
}

/// A path as it is written in a URL: all but letters, digits, `-._~` and slashes as `%XX`.
///
/// RFC 3986 2.
pub fn percent_encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The value of one hexadecimal digit.
pub(super) const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The path of a request target, still encoded, without query and fragment.
///
/// Takes the origin form (`/a?b`) and the absolute form that proxies and RTSP clients send (`http://host/a?b`);
/// `None` for the rest (`*`, `host:port`).
///
/// RFC 9112 3.2.
pub fn path_of(target: &str) -> Option<&str> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or("/")
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Some(if path.is_empty() { "/" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes_once() {
        for (encoded, decoded) in [
            ("cam1", Ok("cam1")),
            ("K%C3%B6ln", Ok("Köln")),
            ("%2541", Ok("%41")),
            ("a+b", Ok("a+b")),
            ("%", Err(TargetError::Escape)),
            ("%4", Err(TargetError::Escape)),
            ("%4g", Err(TargetError::Escape)),
            ("%+1", Err(TargetError::Escape)),
            ("%ff", Err(TargetError::NotUtf8)),
        ] {
            assert_eq!(percent_decode(encoded), decoded.map(str::to_owned), "{encoded}");
        }
    }

    #[test]
    fn path_of_both_forms() {
        for (target, path) in [
            ("/publish/cam1?k=v", Some("/publish/cam1")),
            ("/", Some("/")),
            ("http://host:8080/publish/a#b", Some("/publish/a")),
            ("http://host", Some("/")),
            ("http://host?x", Some("/")),
            ("*", None),
            ("host:80", None),
            ("://x/y", None),
            ("", None),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(text in ".{0,40}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decode(&encoded), Ok(text.clone()));
            let encoded = percent_encode(&text);
            prop_assert!(!encoded.contains(['?', '#', ' ', '@', ':']));
            prop_assert_eq!(percent_decode(&encoded), Ok(text));
        }

        #[test]
        fn any_text(text in ".{0,60}") {
            let _ = percent_decode(&text);
            let _ = path_of(&text);
        }
    }
}
