//! What the server asks by itself: the end of a stream, another stream. Source: MS-RTSP 2.2.7.1, 2.2.7.3.

use std::time::Instant;

use super::{ANSWER_TIME, Client, Step};
use crate::playing::{ClientEnd, ClientOutput};
use crate::rtsp::message::{Method, Request, ResponseWriter};
use crate::rtsp::transport::RtpInfo;

impl Client {
    pub(super) fn asked(&mut self, now: Instant, request: &Request) {
        let is_end = request.method == Method::SetParameter && request.headers.is_type("application/x-wms-extension-cmd");
        let is_known =
            is_end || matches!(request.method, Method::Announce | Method::Options | Method::GetParameter | Method::SetParameter);
        let mut response = ResponseWriter::new(if is_known { 200 } else { 501 });
        if let Some(cseq) = request.headers.number::<u64>("CSeq") {
            response.header("CSeq", cseq);
        }
        if let Some(session) = self.session.as_ref().filter(|session| !session.id.is_empty()) {
            response.header("Session", &session.id);
        }
        self.outputs.push_back(ClientOutput::Send(response.finish()));
        let plays = matches!(self.step, Step::Starting | Step::Playing | Step::Changing | Step::Halting | Step::Ending);
        match request.method {
            _ if is_end && plays => self.stream_ended(now, request),
            Method::Announce if self.session.is_some() && !matches!(self.step, Step::Leaving(_)) => self.announced(now, request),
            // Of RFC 2326; Windows Media servers do without. Source: RFC 2326 10.10.
            Method::Redirect => {
                if let Some(place) = request.headers.get("Location").and_then(|place| self.place(place)) {
                    self.leave(now, ClientEnd::Redirected(place));
                }
            }
            _ => {}
        }
    }

    fn stream_ended(&mut self, now: Instant, request: &Request) {
        let body = String::from_utf8_lossy(&request.body);
        let says = |name: &str| {
            let fields = body.lines().filter_map(|line| line.split_once(':'));
            let mut fields = fields.filter(|(field, _)| field.trim().eq_ignore_ascii_case(name));
            fields.any(|(_, value)| value.trim().eq_ignore_ascii_case("true"))
        };
        if self.is_seeking {
            // It goes on elsewhere.
            return;
        }
        if self.is_udp() {
            let info = request.headers.get("RTP-Info").and_then(|info| RtpInfo::parse_all(info).ok());
            if let Some(sequence) = info.and_then(|info| info.first()?.seq) {
                self.stats.gaps += u64::from(self.window.sent_to(now, sequence));
            }
        }
        match self.step {
            // Said once, it is under way: a server that says it again and again puts nothing off.
            Step::Ending | Step::Changing => {}
            _ if says("End-Of-Playlist-Entry") => {
                self.step = Step::Changing;
                self.change_due = Some(now + ANSWER_TIME);
            }
            _ => self.begin_end(now),
        }
    }
}
