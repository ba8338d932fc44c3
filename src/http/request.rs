//! From a request's head to the wish in it: who wants to publish what.

use crate::text::{path_of, percent_decode};

use super::head::Head;
use super::push::{self, Push, PushId};
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
    /// `POST` or `PUT`; of who publishes by RTSP, `ANNOUNCE`.
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
    /// What an encoder asks for; `None` for a plain publisher.
    pub push: Option<Push>,
    /// The session that an encoder names.
    pub push_id: Option<PushId>,
    /// A challenge for Basic credentials is of use to the sender.
    pub takes_basic: bool,
}

impl PublishRequest {
    /// Reads the wish; `empty` tells that the body is.
    ///
    /// # Errors
    /// The response for a request that is none of ours.
    pub(super) fn of(head: &Head, empty: bool) -> Result<Self, Refusal> {
        let path = path_of(&head.target).ok_or_else(|| bad("the target is not a path"))?;
        let push = push::kind_of(head);
        // Encoders push to the URL that players open, and may say `publish` as others do.
        let otherwise = if push.is_some() { path.strip_prefix('/') } else { None };
        let encoded = path.strip_prefix(PREFIX).or(otherwise).unwrap_or_default();
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
        let push = match push {
            Some(Err(())) => {
                let text = "Of application/x-wms-push* there are pushsetup and pushstart; plain ASF needs no Content-Type.";
                return Err(Refusal::new(Status::UnsupportedMediaType, text));
            }
            Some(Ok(_)) if head.method != "POST" => {
                return Err(Refusal::new(Status::MethodNotAllowed, "Encoders push with POST."));
            }
            Some(Ok(_)) if !head.first("User-Agent").is_some_and(push::agent_is_encoder) => {
                let text =
                    "Only Windows Media Encoder, WMEncoder/9 to 12, pushes like this; others send plain ASF by POST or PUT.";
                return Err(Refusal::new(Status::Forbidden, text));
            }
            Some(Ok(push)) => Some(push),
            None => None,
        };
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
            push_id: if push.is_some() { PushId::of(head)? } else { None },
            push,
            takes_basic: head.first("X-Accept-Authentication").is_none() || head.has_token("X-Accept-Authentication", "Basic"),
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
            ("POST /publish/a", "Content-Type: application/x-wms-pushother\r\n", Status::UnsupportedMediaType),
            ("POST /publish/a", "Content-Encoding: gzip\r\n", Status::UnsupportedMediaType),
            ("POST /publish/a", "Authorization: a\r\nAuthorization: b\r\n", Status::BadRequest),
        ] {
            assert_eq!(request(line, fields).unwrap_err().status, status, "{line} {fields}");
        }
    }

    #[test]
    fn encoders() {
        let setup = "Content-Type: Application/X-WMS-PushSetup; charset=utf-8\r\nUser-Agent: WMEncoder/11.0.5721.5145\r\n";
        for (target, name) in [("/live", "live"), ("/publish/live", "live"), ("/a/b/", "a/b"), ("/K%C3%B6ln", "Köln")] {
            let request = request(&format!("POST {target}"), setup).unwrap();
            assert_eq!((request.name.as_str(), &request.push), (name, &Some(Push::Setup(push::Setup::default()))));
            assert!(request.push_id.is_none() && request.takes_basic);
        }
        let start = setup.replace("Setup", "Start") + "Cookie: push-id=5\r\nX-Accept-Authentication: Negotiate, NTLM, Digest\r\n";
        let request_of_start = request("POST /live", &start).unwrap();
        assert!(
            request_of_start.push == Some(Push::Start) && request_of_start.push_id.is_some() && !request_of_start.takes_basic
        );
        for (line, fields, status) in [
            ("POST /", setup, Status::NotFound),
            ("POST /publish/", setup, Status::NotFound),
            ("PUT /live", setup, Status::MethodNotAllowed),
            ("POST /a%0D%0Ab", setup, Status::BadRequest),
            ("POST /a/../b", setup, Status::BadRequest),
            ("POST //etc", setup, Status::BadRequest),
            ("POST /live", "Content-Type: application/x-wms-pushsetup\r\n", Status::Forbidden),
            ("POST /live", &setup.replace("WMEncoder/11", "WMEncoder/8"), Status::Forbidden),
            ("POST /live", &start.replace("=5", "=a.b"), Status::BadRequest),
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
