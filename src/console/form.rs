//! What a browser sends of a form: pairs of names and values, in the query or in the body.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::timeout;

use super::layout::Refused;
use crate::text::percent_decode;

/// Bytes of a form's body: a name, a password, a token.
const BODY_MAX: usize = 8 << 10;
/// It has to be whole by then.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Fields of a form; further ones are nobody's.
const FIELDS_MAX: usize = 32;

/// Names and values of a form; what cannot be decoded is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `a=1&b=2`, percent-encoded, with `+` for blanks (the URL standard's application/x-www-form-urlencoded).
    pub(super) fn parse(text: &str) -> Self {
        let decoded = |text: &str| percent_decode(&text.replace('+', " ")).ok();
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(FIELDS_MAX);
        let fields = pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        });
        Self(fields.collect())
    }

    /// The first value of this name without blanks around it; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The same with its blanks, which may be part of a password.
    pub(super) fn raw(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Whether nothing was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the body of a request.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Refused> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This is not what a form of these pages sends."));
        }
        match timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await {
            Ok(Ok(bytes)) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Ok(Err(_)) => Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "The form is too long, or was cut off on its way.")),
            Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "The form did not come within ten seconds. Send it again.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded() {
        let form = Form::parse("a=1+2&b=%26%3D%2B&c&&=x&d=%zz&a=3&e=+f+");
        let values = ["a", "b", "c", "d", "e", "none"].map(|name| form.get(name));
        assert_eq!(values, ["1 2", "&=+", "", "", "f", ""]);
        assert_eq!(form.raw("e"), " f ");
        assert!(Form::parse("").is_empty());
        assert_eq!(Form::parse(&"a=1&".repeat(1000)).0.len(), FIELDS_MAX);
    }
}
