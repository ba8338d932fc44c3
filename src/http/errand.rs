//! What the first request of a connection is about: who is to have it is decided before it is answered.

use super::head::Head;
use super::viewer::client_id;
use crate::text::path_of;

/// Where publishers send to.
const PUBLISH: &str = "/publish/";
/// What Windows Media Encoder sends begins with this type, whatever the path.
const PUSH: &str = "application/x-wms-push";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// It brings a stream.
    Publish,
    /// It wants to watch, or to say something about that.
    Watch {
        /// The session that it names.
        client_id: Option<u32>,
    },
}

impl Errand {
    /// Reads it from the head.
    pub fn of(head: &Head) -> Self {
        let pushes = head.first("Content-Type").and_then(|kind| kind.get(..PUSH.len()));
        let is_push = pushes.is_some_and(|kind| kind.eq_ignore_ascii_case(PUSH));
        let is_path = path_of(&head.target).is_some_and(|path| path.starts_with(PUBLISH));
        if is_push || is_path || head.method == "PUT" { Self::Publish } else { Self::Watch { client_id: client_id(head) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    #[test]
    fn publishers_viewers_and_those_of_a_session() {
        let errand = |request: &str| {
            let (_, head) = HeadReader::default().push(format!("{request}\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            Errand::of(&head.unwrap())
        };
        for request in [
            "POST /publish/cam1 HTTP/1.1",
            "PUT /cam1 HTTP/1.1",
            "GET /publish/cam1 HTTP/1.1",
            "POST /cam1 HTTP/1.1\r\nContent-Type: Application/x-wms-pushsetup; charset=utf-8",
        ] {
            assert_eq!(errand(request), Errand::Publish, "{request}");
        }
        for (request, client_id) in [
            ("GET /cam1 HTTP/1.0\r\nPragma: no-cache,xPlayStrm=1\r\nPragma: client-id=77", Some(77)),
            ("POST /cam1 HTTP/1.1\r\nContent-Type: application/x-wms-LogStats\r\nPragma: client-id=78", Some(78)),
            ("GET /published HTTP/1.1", None),
            ("OPTIONS * HTTP/1.1\r\nPragma: client-id=0", None),
        ] {
            assert_eq!(errand(request), Errand::Watch { client_id }, "{request}");
        }
    }
}
