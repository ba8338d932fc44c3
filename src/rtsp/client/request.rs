//! The requests of a client. Source: MS-RTSP 2.2.6, 2.2.7.

use std::fmt::Write as _;
use std::time::Instant;

use super::{ANSWER_TIME, Client, Errand, STOP_TIME, Step};
use crate::playing::{ClientOutput, StartAt};
use crate::rtsp::message::{Method, RequestWriter};
use crate::rtsp::transport::{Range, RangeStart};

/// What we understand of what may be left out: the end of a stream. Switches and packet pairs we might ask for, and do not.
const SUPPORTED: &str = "com.microsoft.wm.srvppair, com.microsoft.wm.sswitch, com.microsoft.wm.eosmsg";
/// No limit. Source: MS-RTSP 2.2.6.1.
const ANY_BANDWIDTH: u32 = 0x7FFF_FFFF;

impl Client {
    /// Sends the request for an errand.
    pub(super) fn ask(&mut self, now: Instant, errand: Errand) {
        let target = self.target(&errand);
        let method = match &errand {
            Errand::Options => Method::Options,
            Errand::Describe => Method::Describe,
            Errand::Setup | Errand::Add(_) => Method::Setup,
            Errand::Play => Method::Play,
            Errand::Pause => Method::Pause,
            Errand::KeepAlive if self.lacks_get_parameter => Method::Options,
            Errand::KeepAlive => Method::GetParameter,
            Errand::Drop(_) | Errand::Teardown => Method::Teardown,
        };
        self.cseq += 1;
        let mut request = RequestWriter::new(&method, &target);
        request.header("CSeq", self.cseq).header("User-Agent", &self.config.player);
        if self.config.login.is_some() {
            request.header("X-Accept-Authentication", "Digest, Basic");
        }
        if let Some(authorization) = self.authorization(&method, &target) {
            request.header("Authorization", authorization);
        }
        if let Some(session) = self.session.as_ref().filter(|session| !session.id.is_empty()) {
            request.header("Session", &session.id);
        }
        if let Some(entry) = self.entry {
            request.header("X-Playlist-Gen-Id", entry);
        }
        match &errand {
            Errand::Describe => {
                request.header("Accept", "application/sdp").header("Supported", SUPPORTED);
            }
            Errand::Setup => {
                if let Some(setup) = self.setups.front() {
                    request.header("Transport", &setup.spec);
                }
            }
            Errand::Add(_) => {
                request.header("Transport", self.media_spec(0));
            }
            Errand::Play => {
                if let Some(at) = self.started_at {
                    request.header("Range", range(at));
                }
                request.header("Bandwidth", ANY_BANDWIDTH).header("Supported", SUPPORTED);
            }
            Errand::Options | Errand::Drop(_) | Errand::Pause | Errand::KeepAlive | Errand::Teardown => {}
        }
        self.outputs.push_back(ClientOutput::Send(request.finish()));
        let time = if matches!(self.step, Step::Leaving(_)) { STOP_TIME } else { ANSWER_TIME };
        self.pending.push_back(super::Pending { cseq: self.cseq, errand, due: now + time });
        // Any request is a sign of life.
        self.keep_alive_due = self.session.as_ref().map(|session| now + session.keep_alive);
    }

    fn target(&self, errand: &Errand) -> String {
        let known = self.known.as_ref();
        let stream = |number: u8| {
            let urls = known.and_then(|known| known.asf.as_ref()).map(|asf| asf.urls.as_slice());
            urls.and_then(|urls| urls.iter().find(|(stream, _)| *stream == number)).map(|(_, url)| url.clone())
        };
        let url = match errand {
            Errand::Options | Errand::Describe => None,
            Errand::Setup => self.setups.front().map(|setup| setup.url.clone()),
            Errand::Add(number) | Errand::Drop(number) => stream(*number),
            Errand::Play | Errand::Pause | Errand::KeepAlive | Errand::Teardown => known.map(|known| known.url.clone()),
        };
        url.unwrap_or_else(|| self.config.url.clone())
    }

    fn authorization(&mut self, method: &Method, target: &str) -> Option<String> {
        let (login, challenge) = self.config.login.as_ref().zip(self.challenge.as_ref())?;
        self.answers += 1;
        let mut cnonce = String::new();
        for byte in self.config.salt {
            // Writing to a String cannot fail.
            let _ = write!(cnonce, "{byte:02x}");
        }
        let _ = write!(cnonce, "{:08x}", self.answers);
        Some(challenge.answer(login, method.as_str(), target, self.answers, &cnonce))
    }
}

/// Where to begin. Times count from the beginning of the content; servers that count the preroll too begin so much earlier.
fn range(at: StartAt) -> Range {
    match at {
        StartAt::Beginning => Range::Time { from: RangeStart::Ms(0), to_ms: None },
        StartAt::Time { s } => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut to what milliseconds can be")]
            let ms = (s.max(0.0) * 1000.0).round() as u64;
            Range::Time { from: RangeStart::Ms(ms), to_ms: None }
        }
        StartAt::Packet(packet) => Range::Packet { from: packet.into(), to: None },
        StartAt::Offset(byte) => Range::Byte { from: byte.into(), to: None },
    }
}
