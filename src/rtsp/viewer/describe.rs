//! Names opened and described.

use std::time::Instant;

use super::reply::{METHODS, status_of};
use super::{
    Agent, Ask, CloseReason, Connection, Description, Login, Method, OpenRefusal, Opened, Pass, Play, Request, Step, Target,
    Tracks, key_of, player_of, profile_of,
};
use crate::rtsp::message::StreamToken;
use crate::rtsp::sdp::{self, Facts};
use crate::viewing::Content;

impl Connection {
    /// Source: MS-RTSP 2.2.7.2.
    pub(super) fn describe(&mut self, now: Instant, request: Box<Request>) {
        if self.is_plain && self.session.is_none() {
            return self.send_again(now, &request);
        }
        let target = match aggregate(&request) {
            Ok(target) => target,
            Err(status) => return self.refuse(now, &request, status),
        };
        let plays = self.session.as_ref().is_some_and(|session| session.state != Play::Ready);
        match &self.opened {
            Some(opened) if opened.target.same_path(&target) && self.session.is_some() => self.described(now, &request),
            // A session is of one name; the player ends it first.
            _ if plays => self.refuse_with(now, &request, 455, &[("Allow", METHODS)]),
            _ => {
                self.end_session(now);
                self.seek_entry(now, request);
            }
        }
    }

    /// Asks the relay for what a request is about; who has not been admitted is introduced first.
    pub(super) fn seek_entry(&mut self, now: Instant, request: Box<Request>) {
        if self.admitted {
            return self.open(now, request);
        }
        let host = Target::parse(&request.target).ok().and_then(|target| target.host().map(str::to_owned));
        let player = player_of(request.headers.get("User-Agent"), host.as_deref());
        self.report.player = Some(player.clone());
        self.wait(now, request, Step::Admitted, Ask::Admit(player));
    }

    pub(super) fn open(&mut self, now: Instant, request: Box<Request>) {
        // It was read before.
        let target = aggregate(&request).ok();
        let name = target.as_ref().and_then(Target::name).unwrap_or_default();
        let pass = Pass {
            key: target.as_ref().and_then(|target| key_of(target.query.as_deref()?)).map(str::to_owned),
            login: request.headers.get("Authorization").map(|authorization| Login {
                method: request.method.as_str().to_owned(),
                target: proven_target(authorization, request.target.as_str()).to_owned(),
                authorization: authorization.to_owned(),
            }),
            profile: target.as_ref().and_then(|target| profile_of(target.query.as_deref()?)).map(str::to_owned),
        };
        self.wait(now, request, Step::Opened, Ask::Open { name, pass });
    }

    pub(super) fn opened(&mut self, now: Instant, request: Box<Request>, description: Description) {
        let Ok(target) = aggregate(&request) else { return self.refuse(now, &request, 400) };
        if self.report.name.is_none() {
            self.unsettled = now;
        }
        let entry = self.opened.as_ref().map_or(1, |opened| opened.entry.wrapping_add(1).max(1));
        let name = target.name().unwrap_or_default();
        let tracks = Tracks::of(&description);
        self.report.name = Some(name.clone());
        self.opened = Some(Opened { target, name, description, tracks, entry });
        match request.method {
            Method::Describe => self.described(now, &request),
            Method::Setup => self.setup(now, request),
            // Of a session that came again.
            _ => self.act(now, request),
        }
    }

    /// Source: MS-RTSP 3.2.5.4.
    fn described(&mut self, now: Instant, request: &Request) {
        let Some((body, content)) = self.description_for(request) else { return self.refuse(now, request, 404) };
        let mut response = self.reply(request, 200);
        response.header("Content-Type", "application/sdp").header("Vary", "Accept");
        match content {
            Content::Live => response.header("X-Broadcast-Id", self.broadcast_id()),
            Content::File { .. } => response.header("X-Broadcast-Id", 0),
        };
        response.header("Cache-Control", cache_control(content));
        self.send(response.body(body.as_bytes()));
        self.heard(now);
    }

    /// The description as this player can take it.
    pub(super) fn description_for(&self, request: &Request) -> Option<(String, Content)> {
        let opened = self.opened.as_ref()?;
        let mut facts = Facts::of(&opened.description, self.aggregate_url(opened), self.local.ip().to_canonical().is_ipv6());
        facts.version = facts.version.wrapping_add(u64::from(opened.entry));
        facts.title = self.config.titles.of(&opened.name);
        let agent = Agent::of(request.headers.get("User-Agent"));
        facts.reduced = agent == Agent::GStreamer;
        facts.outside_dialect = !agent.is_windows_media();
        Some((sdp::describe(&opened.description, &facts), opened.description.content))
    }

    /// The name's own number; never that of a file.
    fn broadcast_id(&self) -> u32 {
        let name = self.opened.as_ref().map_or("", |opened| &opened.name);
        name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)).max(1)
    }

    /// The URL of what is opened, as the player wrote it; a slash at the end.
    pub(super) fn aggregate_url(&self, opened: &Opened) -> String {
        let url = opened.target.url(&self.host());
        match url.split_once('?') {
            Some((path, query)) => format!("{path}/?{query}"),
            None => format!("{url}/"),
        }
    }

    /// The URL of one stream as players make it of the description.
    pub(super) fn stream_url(&self, opened: &Opened, token: StreamToken) -> String {
        let whole = self.aggregate_url(opened);
        format!("{}/{token}", whole.strip_suffix('/').unwrap_or(&whole))
    }

    /// For those who have not said by which name they came.
    pub(super) fn host(&self) -> String {
        self.config.public_name.clone().unwrap_or_else(|| self.local.to_string())
    }

    pub(super) fn not_opened(&mut self, now: Instant, request: &Request, refusal: &OpenRefusal) {
        self.opened = None;
        let status = status_of(refusal);
        match refusal {
            OpenRefusal::Redirect(location) => {
                // Who came inside TLS stays there.
                let location = location.split_once("://").map(|(scheme, rest)| {
                    let scheme = if scheme == "rtsps" { scheme } else { "rtsp" };
                    format!("{scheme}://{rest}")
                });
                let clean = location.filter(|url| url.bytes().all(|byte| byte.is_ascii_graphic()));
                let Some(location) = clean else { return self.refuse(now, request, 503) };
                self.refuse_with(now, request, status, &[("Location", &location)]);
                self.close(CloseReason::Redirected);
            }
            OpenRefusal::Login(challenge) => {
                // The connection stays: the same request with credentials follows on it.
                let headers: Vec<_> = challenge.values.iter().map(|value| ("WWW-Authenticate", value.as_str())).collect();
                self.refuse_with(now, request, status, &headers);
            }
            _ => self.refuse(now, request, status),
        }
    }
}

/// What the proof of a Digest is to be for: the request's target, in the form that the client had in mind if that differs by nothing
/// but what does not count.
fn proven_target<'a>(authorization: &'a str, target: &'a str) -> &'a str {
    let named = authorization.split_once("uri=\"").and_then(|(_, rest)| rest.split('"').next());
    let parsed = named.and_then(|named| Target::parse(named).ok()).zip(Target::parse(target).ok());
    let same = parsed.is_some_and(|(named, asked)| named.same_path(&asked) && named.query == asked.query);
    named.filter(|_| same).unwrap_or(target)
}

/// What may be kept of a description, and what kind it is of. Source: MS-RTSP 2.2.6.2.
pub(super) const fn cache_control(content: Content) -> &'static str {
    match content {
        Content::Live => "no-cache, x-wms-stream-type=\"broadcast\"",
        Content::File { .. } => "no-cache",
    }
}

/// The whole that a request is about; what names one of its streams stands for the whole here.
///
/// # Errors
/// The status to refuse it with.
pub(super) fn aggregate(request: &Request) -> Result<Target, u16> {
    let target = Target::parse(&request.target).map_err(|_| 400_u16)?;
    let whole = match target.split_stream() {
        Some((whole, _)) if request.method == Method::Setup => whole,
        _ => target,
    };
    if whole.name().is_some() { Ok(whole) } else { Err(404) }
}
