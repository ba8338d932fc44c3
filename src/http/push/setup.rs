//! The body of a PushSetup: what is to be done about the publishing point.

use crate::http::request::check_name;
use crate::http::response::{Refusal, Status};
use crate::text::{path_of, percent_decode};

/// What a PushSetup says of its publishing point.
///
/// Source: MS-WMHTTP 2.2.2.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// The publishing point, decoded, whose settings a new one takes over; of no meaning where the pushed one exists.
    pub template: Option<String>,
    /// A publishing point that is made for the session goes when it ends.
    pub auto_destroy: bool,
}

impl Setup {
    /// Reads a body, which may be empty. Lines of other names are passed over.
    ///
    /// # Errors
    /// 400 where it is no text of `Name: value` lines, or a value means nothing.
    pub(in crate::http) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| bad("it is not text"))?;
        let mut setup = Self::default();
        for line in text.split("\r\n").filter(|line| !line.is_empty()) {
            if line.chars().any(char::is_control) {
                return Err(bad("a line holds a control character"));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("a line is not NAME: VALUE"))?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("AutoDestroy") {
                setup.auto_destroy = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(bad("AutoDestroy is neither 0 nor 1")),
                };
            } else if name.eq_ignore_ascii_case("Template-URL") {
                setup.template = template(value.trim_matches('"'))?;
            }
        }
        Ok(setup)
    }
}

fn template(url: &str) -> Result<Option<String>, Refusal> {
    if url.is_empty() {
        return Ok(None);
    }
    let path = path_of(url).ok_or_else(|| bad("Template-URL is not a path"))?;
    let name = percent_decode(path.trim_matches('/')).map_err(|error| bad(&error.to_string()))?;
    check_name(&name).map_err(bad)?;
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn bad(reason: &str) -> Refusal {
    Refusal::new(Status::BadRequest, format!("The body of the PushSetup cannot be used: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_encoders() {
        let setup = |template: Option<&str>, auto_destroy| Setup { template: template.map(str::to_owned), auto_destroy };
        for (body, expected) in [
            ("", setup(None, false)),
            ("AutoDestroy: 1\r\n", setup(None, true)),
            ("AutoDestroy:0\r\n", setup(None, false)),
            ("Template-URL: \"/existing\"\r\nAutoDestroy: 1\r\n", setup(Some("existing"), true)),
            ("Template-URL:\"/K%C3%B6ln%20live\"\r\n", setup(Some("Köln live"), false)),
            ("Template-URL: \"http://server/a/b\"\r\nOther: x\r\n", setup(Some("a/b"), false)),
            ("template-url: \"\"\r\nautodestroy: 1", setup(None, true)),
        ] {
            assert_eq!(Setup::parse(body.as_bytes()), Ok(expected), "{body:?}");
        }
    }

    #[test]
    fn refused() {
        for body in [
            &b"AutoDestroy: 2\r\n"[..],
            b"AutoDestroy\r\n",
            b"AutoDestroy: 1\nTemplate-URL: \"/a\"\r\n",
            b"\xFF\xFE",
            b"Template-URL: \"/../etc\"\r\n",
            b"Template-URL: \"/a%0D%0Ab\"\r\n",
            b"Template-URL: \"/a%\"\r\n",
            b"Template-URL: \"*\"\r\n",
            b"\0\r\n",
        ] {
            assert_eq!(Setup::parse(body).unwrap_err().status, Status::BadRequest, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in "(Template-URL:|AutoDestroy:|[ -~\r\n]){0,20}") {
            let _ = Setup::parse(&bytes);
            let _ = Setup::parse(text.as_bytes());
        }
    }
}
