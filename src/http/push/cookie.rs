//! The id of a push session, which encoders carry in a cookie.

use std::fmt;

use crate::http::head::Head;
use crate::http::response::{Refusal, Status};

/// The cookie's name.
const NAME: &str = "push-id";
/// Longest id, characters (MS-WMHTTP 3.2.3).
const BOUND: usize = 255;

/// The id of a push session: letters and digits, at most 255, not `0`.
///
/// It is the capability to feed a publishing point, so it is not shown in logs.
///
/// Source: MS-WMHTTP 2.2.1, 3.2.3.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PushId(String);

impl PushId {
    /// An id of 128 random bits, as the decimal number that media servers make of theirs.
    pub fn random(bits: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bits).max(1).to_string())
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that a request names; `None` for a new session. Of several, which encoders do send, the last that is not 0.
    ///
    /// # Errors
    /// 400 for an id that none can be.
    pub(in crate::http) fn of(head: &Head) -> Result<Option<Self>, Refusal> {
        let cookies = head.all("Cookie").flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let ids = cookies.filter(|(name, _)| name.trim().eq_ignore_ascii_case(NAME)).map(|(_, id)| id.trim());
        let Some(id) = ids.filter(|id| !id.bytes().all(|byte| byte == b'0')).last() else { return Ok(None) };
        if id.len() > BOUND || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Refusal::new(Status::BadRequest, "Bad request: the push-id is not of at most 255 letters and digits."));
        }
        Ok(Some(Self(id.to_owned())))
    }
}

impl fmt::Debug for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn id(fields: &str) -> Result<Option<String>, Status> {
        let head = format!("POST /live HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let head = HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap();
        PushId::of(&head).map(|id| id.map(|PushId(id)| id)).map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_last_that_is_not_zero_counts() {
        for (fields, expected) in [
            ("", None),
            ("Cookie: push-id=0\r\n", None),
            ("Cookie: push-id=\r\n", None),
            ("Cookie: other=5\r\n", None),
            ("Cookie: push-id=77\r\n", Some("77")),
            ("Cookie: push-id=77; push-id=0\r\n", Some("77")),
            ("Cookie: push-id=77; x=1;push-id=78\r\nCookie: push-id=0\r\n", Some("78")),
            ("Cookie: push-id=0\r\nCookie: Push-ID=aZ9\r\n", Some("aZ9")),
        ] {
            assert_eq!(id(fields), Ok(expected.map(str::to_owned)), "{fields}");
        }
        let long = format!("Cookie: push-id={}\r\n", "1".repeat(256));
        for fields in ["Cookie: push-id=../x\r\n", "Cookie: push-id=1,2\r\n", "Cookie: push-id=\u{e9}\r\n", &long] {
            assert_eq!(id(fields), Err(Status::BadRequest), "{fields}");
        }
    }

    #[test]
    fn random_ones_are_numbers_and_not_zero() {
        assert_eq!(PushId::random([0; 16]).as_str(), "1");
        let id = PushId::random([0xFF; 16]);
        assert!(id.as_str().len() == 39 && id.as_str().bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(format!("{id:?}"), "PushId(..)", "a capability is not for logs");
    }
}
