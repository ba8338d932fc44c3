//! What the server says by itself: the end of a stream, another header.

use std::time::Instant;

use super::{Ask, CloseReason, Connection, Description, Method, Play, Tracks};
use crate::asf::StreamSet;
use crate::rtsp::message::RequestWriter;
use crate::rtsp::sdp::{self, Facts};
use crate::rtsp::transport::RtpInfo;

impl Connection {
    /// Everything was sent that the player asked for. It may go on to another place of the file.
    pub(super) fn finished(&mut self, now: Instant, incarnation: u8) {
        if incarnation == self.incarnation {
            self.ended(now, false);
        }
    }

    /// Source: MS-RTSP 3.2.7.1.
    pub(super) fn ended(&mut self, now: Instant, is_final: bool) {
        let Some(session) = &mut self.session else {
            if is_final {
                self.close(CloseReason::Ended);
            }
            return;
        };
        let played = session.state == Play::Playing;
        session.state = Play::Ready;
        let waits = session.is_windows_media;
        session.ended = true;
        if played {
            self.ask(Ask::Stop);
            self.tell_end(None);
        }
        // Players outside the dialect take note, and wait for the connection to close.
        self.deadline = Some(now + if waits { self.config.idle } else { self.config.farewell });
    }

    /// The request by which a player learns that nothing follows; `more`: one line on what comes instead.
    fn tell_end(&mut self, more: Option<&str>) {
        let Some((session, opened)) = self.session.as_ref().zip(self.opened.as_ref()) else { return };
        let mut request = RequestWriter::new(&Method::SetParameter, &opened.target.url(&self.host()));
        request.header("Content-Type", "application/x-wms-extension-cmd");
        request.header("X-Notice", "2101 \"End-of-Stream Reached\"");
        if self.next_sequence.is_some() {
            let of = |token| RtpInfo { url: self.stream_url(opened, token), seq: self.next_sequence, rtptime: None };
            let infos: Vec<RtpInfo> = session.streams.iter().map(|(token, _)| of(*token)).collect();
            request.header("RTP-Info", RtpInfo::list(&infos));
        }
        request.header("X-Playlist-Gen-Id", opened.entry);
        let mut body = format!("Session: {}\r\nEOF: true\r\n", session.id);
        if let Some(line) = more {
            body.push_str(line);
            body.push_str("\r\n");
        }
        self.cseq += 1;
        request.header("CSeq", self.cseq).header("User-Agent", &self.config.server);
        let bytes = request.body(body.as_bytes());
        self.reader.expects_echo(true);
        self.send(bytes);
    }

    /// Another header from the next packet on: who knows the dialect is told, and sets up anew.
    ///
    /// Source: MS-RTSP 3.2.4.2.
    pub(super) fn new_generation(&mut self, now: Instant, description: Description) {
        // It was to be played, and nothing of it was said: what follows is of the new one.
        self.cue_nothing(now);
        let tells = self.session.as_ref().is_some_and(|session| session.is_windows_media && session.state == Play::Playing);
        let plays = self.session.as_ref().is_some_and(|session| session.state == Play::Playing);
        if plays && !tells {
            return self.close(CloseReason::Changed);
        }
        if tells {
            self.ask(Ask::Stop);
            self.tell_end(Some("End-Of-Playlist-Entry: true"));
        }
        let Some(opened) = &mut self.opened else { return };
        opened.entry = opened.entry.wrapping_add(1).max(1);
        opened.tracks = Tracks::of(&description);
        opened.description = description;
        if !tells {
            return;
        }
        if let Some(session) = &mut self.session {
            session.state = Play::Ready;
            session.streams.clear();
            session.thinned = StreamSet::EMPTY;
        }
        let Some((session, opened)) = self.session.as_ref().zip(self.opened.as_ref()) else { return };
        let facts = Facts::of(&opened.description, self.aggregate_url(opened), self.local.ip().to_canonical().is_ipv6());
        let mut request = RequestWriter::new(&Method::Announce, &opened.target.url(&self.host()));
        request.header("Content-Type", "application/sdp").header("Session", session.id);
        request.header("X-Playlist-Gen-Id", opened.entry);
        self.cseq += 1;
        request.header("CSeq", self.cseq).header("User-Agent", &self.config.server);
        let bytes = request.body(sdp::describe(&opened.description, &facts).as_bytes());
        self.send(bytes);
        self.deadline = Some(now + self.config.idle);
    }
}
