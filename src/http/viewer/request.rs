//! From a request's head to the wish in it. Source: MS-WMSP 2.2.2.

use super::agent::{Agent, Family};
use super::pragma::Pragmas;
use crate::http::head::Head;
use crate::http::request::check_name;
use crate::http::response::{Refusal, Status};
use crate::text::{path_of, percent_decode, profile_of, query_of, signed};
use crate::viewing::{Login, Pass};

/// Most bytes of a log or of an event.
const REPORT_BOUND: usize = 64 << 10;
/// Most bytes of a question about the content; it has one, without meaning.
const QUESTION_BOUND: usize = 64;
/// Where publishers send to: never to this engine.
const PUBLISH: &str = "/publish/";
/// Endings by which media of a broadcast may be asked for.
const MEDIA_ENDINGS: [&str; 3] = [".asf", ".wmv", ".wma"];

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// The header, to look at.
    Describe,
    /// Media in frames.
    Play,
    /// What comes next in a playlist; only between plays it begins one.
    PlayNextEntry,
    /// Other streams.
    SelectStream,
    /// One of the two tests whether the way to us lets requests overtake responses.
    PipelineTest,
    /// A sign of life by `POST`.
    KeepAlive,
    /// A sign of life by `OPTIONS *`.
    KeepAlivePipelined,
    /// What the player says about its playing.
    Log,
    /// Something happened at the player.
    SendEvent,
    /// What a cache may keep of this.
    GetContentInfo,
    /// The end of a play whose connection stays.
    Stop,
    /// The bytes of a file, or a broadcast as one.
    Download,
    /// A page for people.
    Page,
    /// A playlist.
    Asx(AsxKind),
    /// A playlist of another kind.
    M3u,
    /// A description for players of RTSP.
    Sdp,
    /// Which methods there are.
    Methods,
}

/// By which ending an ASX was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AsxKind {
    Asx,
    Wax,
    Wvx,
}

impl AsxKind {
    /// VLC knows the first two by their types, the last by the ending of the address.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Asx => "video/x-ms-asf",
            Self::Wax => "audio/x-ms-wax",
            Self::Wvx => "video/x-ms-wvx",
        }
    }
}

impl Wish {
    /// For the log line.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Play => "play",
            Self::PlayNextEntry => "next_entry",
            Self::SelectStream => "select",
            Self::PipelineTest => "pipeline_test",
            Self::KeepAlive | Self::KeepAlivePipelined => "keep_alive",
            Self::Log => "log",
            Self::SendEvent => "event",
            Self::GetContentInfo => "content_info",
            Self::Stop => "stop",
            Self::Download => "download",
            Self::Page => "page",
            Self::Asx(_) => "asx",
            Self::M3u => "m3u",
            Self::Sdp => "sdp",
            Self::Methods => "options",
        }
    }

    /// Most bytes of the body.
    pub(super) const fn body_bound(self) -> usize {
        match self {
            Self::Log | Self::SendEvent => REPORT_BOUND,
            Self::GetContentInfo => QUESTION_BOUND,
            _ => 0,
        }
    }

    /// Whether it means nothing without a session.
    pub(super) const fn needs_session(self) -> bool {
        matches!(self, Self::PlayNextEntry | Self::SelectStream | Self::PipelineTest | Self::KeepAlive | Self::Stop)
    }

    /// One that is answered from what is known here, and may be answered behind media.
    pub(super) const fn may_wait(self) -> bool {
        matches!(
            self,
            Self::KeepAlive | Self::KeepAlivePipelined | Self::Log | Self::SendEvent | Self::GetContentInfo | Self::Methods
        )
    }
}

/// A request that is understood.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) wish: Wish,
    /// Only the head of the response is wanted.
    pub(super) head_only: bool,
    pub(super) http_1_0: bool,
    pub(super) keeps_alive: bool,
    /// There is a proxy, which may keep one request waiting for another.
    pub(super) via: bool,
    pub(super) agent: Agent,
    pub(super) pragmas: Pragmas,
    /// Decoded once, without slashes at its ends; a broadcast or a file.
    pub(super) name: String,
    /// Without the question mark.
    pub(super) query: Option<String>,
    /// What the player shows so that it is let in.
    pub(super) pass: Pass,
    /// The schemes of credentials that it knows; nothing where it does not say.
    pub(super) schemes: Option<String>,
    pub(super) host: Option<String>,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    /// Tags of what the client has, and when what it has was changed last.
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
    /// The sender waits for leave to send the body.
    pub(super) expects: bool,
}

impl Request {
    /// # Errors
    /// The response to one that is not understood or not wanted.
    pub(super) fn of(head: &Head) -> Result<Self, Refusal> {
        let agent = Agent::of(head);
        let pragmas = Pragmas::of(head).map_err(bad)?;
        let head_only = head.method == "HEAD";
        let to_all = head.target == "*";
        let path = if to_all { "/" } else { path_of(&head.target).ok_or_else(|| bad("the target is not a path"))? };
        let mut name = name_of(path)?;
        let wish = match head.method.as_str() {
            "OPTIONS" if to_all => Wish::KeepAlivePipelined,
            _ if to_all => return Err(bad("the target * is for OPTIONS")),
            "OPTIONS" => Wish::Methods,
            "GET" | "HEAD" => get(&agent, &pragmas, &mut name)?,
            "POST" => post(head, &pragmas, path)?,
            "PUT" if path.starts_with(PUBLISH) => return Err(publish()),
            _ => {
                let text = "Players and browsers send GET, HEAD, POST and OPTIONS here. Publishers send to /publish/NAME.";
                return Err(Refusal::new(Status::MethodNotAllowed, text));
            }
        };
        if head.all("Expect").any(|expected| !expected.eq_ignore_ascii_case("100-continue")) {
            return Err(Refusal::new(Status::ExpectationFailed, "The only expectation that can be met is 100-continue."));
        }
        let field = |name| head.first(name).map(str::to_owned);
        let query = head.target.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default().to_owned());
        let login = |authorization| Login { method: head.method.clone(), target: head.target.clone(), authorization };
        let pass = Pass {
            key: query.as_deref().and_then(signed::key_of).map(str::to_owned),
            login: field("Authorization").map(login),
            profile: query.as_deref().and_then(profile_of).map(str::to_owned),
        };
        Ok(Self {
            wish,
            head_only,
            http_1_0: head.http_1_0,
            keeps_alive: head.keeps_alive(),
            via: head.first("Via").is_some(),
            agent,
            pragmas,
            name,
            query,
            pass,
            schemes: field("X-Accept-Authentication"),
            host: field("Host"),
            range: field("Range"),
            if_range: field("If-Range"),
            if_none_match: field("If-None-Match"),
            if_modified_since: field("If-Modified-Since"),
            expects: head.first("Expect").is_some(),
        })
    }

    /// The player may get a chunked response, and send requests behind it (MS-WMSP 2.2.1.4.30).
    pub(super) fn takes_chunks(&self) -> bool {
        !self.http_1_0 && !self.via && self.pragmas.is_set("version11-enabled")
    }

    /// The query by which what is asked for here is asked for elsewhere: its key and its profile.
    pub(super) fn onward_query(&self) -> String {
        query_of(self.pass.key.as_deref(), self.pass.profile.as_deref())
    }

    /// A `Cache-Control` value: what was answered to a key or a password is for nobody else.
    pub(super) fn cache_control(&self, value: &str) -> String {
        if self.pass.key.is_none() && self.pass.login.is_none() { value.to_owned() } else { format!("{value}, private") }
    }

    /// The address of a name elsewhere, with the ending by which a playlist or description of it was asked for.
    pub(super) fn with_ending(&self, location: &str) -> String {
        let ending = match self.wish {
            Wish::Asx(AsxKind::Asx) => ".asx",
            Wish::Asx(AsxKind::Wax) => ".wax",
            Wish::Asx(AsxKind::Wvx) => ".wvx",
            Wish::M3u => ".m3u",
            Wish::Sdp => ".sdp",
            _ => return location.to_owned(),
        };
        match location.split_once('?') {
            Some((path, query)) => format!("{path}{ending}?{query}"),
            None => format!("{location}{ending}"),
        }
    }

    /// The name without the ending by which media of a broadcast may be asked for.
    pub(super) fn bare_name(&self) -> Option<&str> {
        ending(&self.name, &MEDIA_ENDINGS).map(|(bare, _)| bare)
    }
}

/// # Errors
/// A name that is none; see [`check_name`].
fn name_of(path: &str) -> Result<String, Refusal> {
    let encoded = path.strip_prefix('/').unwrap_or(path);
    let encoded = encoded.strip_suffix('/').unwrap_or(encoded);
    let name = percent_decode(encoded).map_err(|error| bad(&error.to_string()))?;
    check_name(&name).map_err(bad)?;
    Ok(name)
}

fn ending<'a>(name: &'a str, endings: &[&'static str]) -> Option<(&'a str, &'static str)> {
    endings.iter().find_map(|ending| {
        let at = name.len().checked_sub(ending.len())?;
        let (bare, behind) = name.split_at_checked(at)?;
        behind.eq_ignore_ascii_case(ending).then_some((bare, *ending))
    })
}

fn get(agent: &Agent, pragmas: &Pragmas, name: &mut String) -> Result<Wish, Refusal> {
    let metafiles = [
        (".asx", Wish::Asx(AsxKind::Asx)),
        (".wax", Wish::Asx(AsxKind::Wax)),
        (".wvx", Wish::Asx(AsxKind::Wvx)),
        (".m3u", Wish::M3u),
        (".sdp", Wish::Sdp),
    ];
    if let Some((bare, found)) = ending(name, &metafiles.map(|(ending, _)| ending)) {
        let wish = metafiles.iter().find(|(ending, _)| *ending == found).map_or(Wish::M3u, |(_, wish)| *wish);
        *name = bare.to_owned();
        return Ok(wish);
    }
    if let Some((_, ending)) = ending(name, &[".nsc"]) {
        return Err(no_descriptions(ending));
    }
    let streaming = pragmas.are_streaming();
    if agent.streams() && (streaming || !agent.is_sdk) {
        return Ok(if pragmas.is_set("pipeline-request") {
            Wish::PipelineTest
        } else if pragmas.is_set("xplaystrm") {
            Wish::Play
        } else if pragmas.is_set("xplaynextentry") {
            Wish::PlayNextEntry
        } else if pragmas.text("stream-switch-entry").is_some() {
            Wish::SelectStream
        } else if agent.family == Family::Server && !streaming {
            // Encoders pull like that.
            Wish::Play
        } else {
            Wish::Describe
        });
    }
    Ok(match agent.family {
        Family::Browser => Wish::Page,
        Family::Shell => Wish::Asx(AsxKind::Asx),
        _ => Wish::Download,
    })
}

fn post(head: &Head, pragmas: &Pragmas, path: &str) -> Result<Wish, Refusal> {
    let kind = head.first("Content-Type").unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.starts_with("application/x-wms-push") {
        let text = "Encoders push to the port of http.listen, on a connection of their own.";
        return Err(Refusal::new(Status::UnsupportedMediaType, text));
    }
    if path.starts_with(PUBLISH) {
        return Err(publish());
    }
    Ok(match kind.as_str() {
        "application/x-wms-logstats" => Wish::Log,
        _ if pragmas.text("log-line").is_some() => Wish::Log,
        "application/x-wms-sendevent" => Wish::SendEvent,
        "application/x-wms-getcontentinfo" => Wish::GetContentInfo,
        _ if pragmas.is_set("xstopstrm") => Wish::Stop,
        _ if pragmas.text("stream-switch-entry").is_some() => Wish::SelectStream,
        _ if pragmas.is_set("xkeepaliveinpause") => Wish::KeepAlive,
        _ => return Err(bad("this POST is none that players send; streams are published to /publish/NAME")),
    })
}

fn publish() -> Refusal {
    bad("streams are published on a connection of their own")
}

/// There is nothing of this ending.
pub(super) fn no_descriptions(ending: &str) -> Refusal {
    Refusal::new(Status::NotFound, format!("There are no {ending} descriptions here. Players open mms://HOST/NAME."))
}

pub(super) fn bad(reason: &str) -> Refusal {
    Refusal::new(Status::BadRequest, format!("Bad request: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn request(line: &str, fields: &str) -> Result<Request, Refusal> {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        Request::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap())
    }

    const WMP: &str = "User-Agent: NSPlayer/9.0.0.2980\r\n";

    #[test]
    fn wishes() {
        for (line, pragma, wish) in [
            ("GET /a", "rate=1,xPlayStrm=1", Wish::Play),
            ("GET /a", "rate=1,xPlayStrm=0", Wish::Describe),
            ("GET /a", "no-cache", Wish::Describe),
            ("GET /a", "xPlayNextEntry=1", Wish::PlayNextEntry),
            ("GET /a", "xPlayNextEntry=1,xPlayStrm=1", Wish::Play),
            ("GET /a", "pipeline-request=1", Wish::PipelineTest),
            ("GET /a", "stream-switch-entry=ffff:1:0", Wish::SelectStream),
            ("POST /a", "stream-switch-entry=ffff:1:0", Wish::SelectStream),
            ("POST /a", "xStopStrm=1", Wish::Stop),
            ("POST /a", "xKeepAliveInPause=1", Wish::KeepAlive),
            ("POST /a", "log-line=1, 2", Wish::Log),
            ("OPTIONS *", "client-id=1", Wish::KeepAlivePipelined),
            ("OPTIONS /a", "client-id=1", Wish::Methods),
            ("GET /a.asx", "xPlayStrm=1", Wish::Asx(AsxKind::Asx)),
        ] {
            let read = request(line, &format!("{WMP}Pragma: {pragma}\r\n")).unwrap();
            assert_eq!(read.wish, wish, "{line} {pragma}");
        }
        for (kind, wish) in [
            ("application/x-wms-LogStats;charset=UTF-8", Wish::Log),
            ("application/x-wms-sendevent", Wish::SendEvent),
            ("application/x-wms-getcontentinfo", Wish::GetContentInfo),
        ] {
            assert_eq!(request("POST /a", &format!("Content-Type: {kind}\r\n")).unwrap().wish, wish);
        }
    }

    #[test]
    fn gets_by_agent() {
        let browser = "User-Agent: Mozilla/5.0\r\nAccept: text/html\r\n";
        for (fields, wish) in [
            ("", Wish::Download),
            ("User-Agent: curl/8\r\n", Wish::Download),
            ("User-Agent: VLC/3.0.24 LibVLC/3.0.24\r\nPragma: no-cache\r\n", Wish::Download),
            ("User-Agent: NSPlayer/12.0 WMFSDK/12.0\r\nPragma: getIfoFileURI.dlna.org\r\n", Wish::Download),
            ("User-Agent: NSPlayer/12.0 WMFSDK/12.0\r\nPragma: rate=1\r\n", Wish::Describe),
            ("User-Agent: NSServer/9.0\r\n", Wish::Play),
            ("User-Agent: NSServer/9.0\r\nPragma: rate=1\r\n", Wish::Describe),
            ("User-Agent: Windows-Media-Player/12.0\r\n", Wish::Asx(AsxKind::Asx)),
            (browser, Wish::Page),
        ] {
            assert_eq!(request("GET /a", fields).unwrap().wish, wish, "{fields}");
        }
        for (path, name, wish) in [
            ("/a.asx", "a", Wish::Asx(AsxKind::Asx)),
            ("/a/b.WVX/", "a/b", Wish::Asx(AsxKind::Wvx)),
            ("/a.m3u?x", "a", Wish::M3u),
            ("/a.wmv.sdp", "a.wmv", Wish::Sdp),
            ("/a.wmv", "a.wmv", Wish::Page),
        ] {
            let read = request(&format!("GET {path}"), browser).unwrap();
            assert_eq!((read.name.as_str(), read.wish), (name, wish));
        }
    }

    #[test]
    fn names() {
        for (target, name, query) in [
            ("/cam1", "cam1", None),
            ("/cam1/?k=v#x", "cam1", Some("k=v")),
            ("http://h:80/K%C3%B6ln%20live?", "K\u{f6}ln live", Some("")),
            ("/", "", None),
            ("/%2541", "%41", None),
        ] {
            let read = request(&format!("GET {target}"), "").unwrap();
            assert_eq!((read.name.as_str(), read.query.as_deref()), (name, query), "{target}");
        }
        assert_eq!(request("GET /a.WMV", "").unwrap().bare_name(), Some("a"));
        assert_eq!(request("GET /%C3%B6", "").unwrap().bare_name(), None);
    }

    #[test]
    fn refusals() {
        for (line, fields, status) in [
            ("GET *", "", Status::BadRequest),
            ("GET /%", "", Status::BadRequest),
            ("GET /a%0d%0ab", "", Status::BadRequest),
            ("GET /%2e%2e/a", "", Status::BadRequest),
            ("GET //a", "", Status::BadRequest),
            ("GET /a%5cb", "", Status::BadRequest),
            ("GET /a:b", "", Status::BadRequest),
            ("GET /a.nsc", "", Status::NotFound),
            ("DELETE /a", "", Status::MethodNotAllowed),
            ("PUT /a", "", Status::MethodNotAllowed),
            ("PUT /publish/a", "", Status::BadRequest),
            ("POST /publish/a", "", Status::BadRequest),
            ("POST /a", "", Status::BadRequest),
            ("POST /a", "Content-Type: application/x-wms-pushsetup\r\n", Status::UnsupportedMediaType),
            ("get /a", "", Status::MethodNotAllowed),
            ("GET /a", "Expect: x\r\n", Status::ExpectationFailed),
        ] {
            assert_eq!(request(line, fields).unwrap_err().status, status, "{line} {fields}");
        }
    }
}
