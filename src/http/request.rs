//! From a request's head to the wish in it: who wants to publish what.

use crate::text::{path_of, percent_decode};

use super::head::Head;
use super::response::{Refusal, Status};

/// Where publishers send to; the name follows.
const PREFIX: &str = "/publish/";
/// Longest name, bytes after decoding.
const NAME_BOUND: usize = 255;
/// Fields that browsers and proxies add. One of them says that the sender is not simply a program on the machine that connects.
const THIRD_PARTY_FIELDS: [&str; 5] = ["Origin", "Referer", "Forwarded", "X-Forwarded-For", "Via"];

/// A request to publish, for the one who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    /// `POST` or `PUT`.
    pub method: String,
    /// The target, byte for byte as in the request line; Digest signs it.
    pub target: String,
    /// The publishing point, decoded once.
    pub name: String,
    /// The `Authorization` field.
    pub authorization: Option<String>,
    /// The first of `Origin`, `Referer`, `Forwarded`, `X-Forwarded-For`, `Via` that is there.
    pub third_party: Option<&'static str>,
    /// What the sender calls itself, at most 256 bytes.
    pub user_agent: Option<String>,
    /// The body is empty: clients probe like that for a Digest challenge.
    pub empty: bool,
}

impl PublishRequest {
    /// Reads the wish; `empty` tells that the body is.
    ///
    /// # Errors
    /// The response for a request that is none of ours.
    pub(super) fn of(head: &Head, empty: bool) -> Result<Self, Refusal> {
        let path = path_of(&head.target).ok_or_else(|| bad("the target is not a path"))?;
        let encoded = path.strip_prefix(PREFIX).unwrap_or_default();
        let encoded = encoded.strip_suffix('/').unwrap_or(encoded);
        if encoded.is_empty() {
            let text = "Nothing is served under this path. Players open mms://HOST/NAME; publishers send to /publish/NAME.";
            return Err(Refusal::new(Status::NotFound, text));
        }
        if !matches!(head.method.as_str(), "POST" | "PUT") {
            return Err(Refusal::new(
                Status::MethodNotAllowed,
                "Streams are published with POST or PUT. Players open mms://HOST/NAME.",
            ));
        }
        let name = percent_decode(encoded).map_err(|error| bad(&error.to_string()))?;
        check_name(&name).map_err(bad)?;
        if head.first("Content-Type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/x-wms-push")) {
            let text = "The push protocol of Windows Media Encoder is not spoken here; send plain ASF by POST or PUT.";
            return Err(Refusal::new(Status::UnsupportedMediaType, text));
        }
        if head.all("Content-Encoding").any(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(Refusal::new(Status::UnsupportedMediaType, "The body must be ASF as it is, without Content-Encoding."));
        }
        if head.all("Authorization").count() > 1 {
            return Err(bad("there are several Authorization fields"));
        }
        Ok(Self {
            method: head.method.clone(),
            target: head.target.clone(),
            name,
            authorization: head.first("Authorization").map(str::to_owned),
            third_party: THIRD_PARTY_FIELDS.into_iter().find(|field| head.first(field).is_some()),
            user_agent: head.first("User-Agent").map(|agent| agent.chars().take(64).collect()),
            empty,
        })
    }
}

fn bad(reason: &str) -> Refusal {
    Refusal::new(Status::BadRequest, format!("Bad request: {reason}."))
}

/// Names stay names whoever uses them later: nothing that walks in a file system or breaks a log line.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > NAME_BOUND {
        Err("the name is longer than 255 bytes")
    } else if name.starts_with('/') || name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':')) {
        Err("the name begins with / or holds a colon, a backslash or a control character")
    } else if name.split('/').any(|segment| matches!(segment, "." | "..")) {
        Err("the name holds . or .. as a segment")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn request(line: &str, fields: &str) -> Result<PublishRequest, Refusal> {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        PublishRequest::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap(), false)
    }

    #[test]
    fn names() {
        for (target, name) in [
            ("/publish/cam1", "cam1"),
            ("/publish/cam1/?k=v", "cam1"),
            ("/publish/K%C3%B6ln%20live", "Köln live"),
            ("/publish/a/b", "a/b"),
            ("/publish/%2541", "%41"),
            ("http://h:8080/publish/a", "a"),
        ] {
            let request = request(&format!("POST {target}"), "").unwrap();
            assert_eq!((request.name.as_str(), request.target.as_str()), (name, target));
        }
    }

    #[test]
    fn refusals() {
        let long = format!("PUT /publish/{}", "x".repeat(256));
        for (line, fields, status) in [
            ("GET /", "", Status::NotFound),
            ("GET /demo", "", Status::NotFound),
            ("POST /publish/", "", Status::NotFound),
            ("POST /Publish/a", "", Status::NotFound),
            ("GET /publish/a", "", Status::MethodNotAllowed),
            ("post /publish/a", "", Status::MethodNotAllowed),
            ("POST *", "", Status::BadRequest),
            ("POST /publish/%", "", Status::BadRequest),
            ("POST /publish/%00", "", Status::BadRequest),
            ("POST /publish/a%5Cb", "", Status::BadRequest),
            ("POST /publish/%2e%2E/a", "", Status::BadRequest),
            ("POST /publish//a", "", Status::BadRequest),
            ("POST /publish/c:", "", Status::BadRequest),
            (&long, "", Status::BadRequest),
            ("POST /publish/a", "Content-Type: application/x-wms-pushsetup\r\n", Status::UnsupportedMediaType),
            ("POST /publish/a", "Content-Encoding: gzip\r\n", Status::UnsupportedMediaType),
            ("POST /publish/a", "Authorization: a\r\nAuthorization: b\r\n", Status::BadRequest),
        ] {
            assert_eq!(request(line, fields).unwrap_err().status, status, "{line} {fields}");
        }
    }

    #[test]
    fn third_parties_show() {
        for field in THIRD_PARTY_FIELDS {
            let request = request("POST /publish/a", &format!("{}: x\r\n", field.to_lowercase())).unwrap();
            assert_eq!(request.third_party, Some(field));
        }
        assert_eq!(request("POST /publish/a", "").unwrap().third_party, None);
    }
}
