//! From the description to the end: starting, and what a player does after that. Source: MS-RTSP 3.1.4.

use std::time::Instant;

use super::{Client, END_TIME, Errand, STRAGGLER_TIME, Step, UDP_TIME};
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, DataPath, StartAt};
use crate::rtsp::message::Response;
use crate::rtsp::transport::RtpInfo;
use crate::wire::Hresult;

impl Client {
    /// All is set up, and nothing plays: begins, or rests.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.reselect(now);
        if let Some(session) = &self.session {
            self.keep_alive_due.get_or_insert(now + session.keep_alive);
        }
        if self.is_paused {
            self.step = Step::Resting;
            return;
        }
        self.play(now);
    }

    fn play(&mut self, now: Instant) {
        self.flush(now);
        self.step = Step::Starting;
        self.is_seeking = false;
        self.window.reset();
        self.depacketizer.restart();
        self.flows.restart();
        (self.media_ssrc, self.foreign) = (None, 0);
        self.early = Vec::new();
        self.started_at = self.start_at.take();
        match self.started_at {
            Some(StartAt::Packet(packet)) => self.location = packet,
            Some(_) => self.location = 0,
            None => {}
        }
        self.event(ClientEvent::Starting);
        self.ask(now, Errand::Play);
    }

    /// Our PLAY was taken.
    pub(super) fn plays(&mut self, now: Instant, response: &Response) {
        if self.step != Step::Starting {
            return;
        }
        self.step = Step::Playing;
        self.media_at = now;
        let path = if self.is_udp() { DataPath::Udp } else { DataPath::Tcp };
        self.event(ClientEvent::Playing { path });
        if self.is_udp() {
            let info = response.headers.get("RTP-Info").and_then(|info| RtpInfo::parse_all(info).ok());
            if let Some(sequence) = info.and_then(|info| info.first()?.seq) {
                self.window.start(sequence);
            }
            if self.stats.packets == 0 && self.config.fall_back {
                self.udp_due = Some(now + UDP_TIME);
            }
        }
        for (channel, packet) in std::mem::take(&mut self.early) {
            self.packet_came(now, channel, &packet);
        }
        if self.is_paused || self.is_seeking {
            self.halt(now);
        }
    }

    fn halt(&mut self, now: Instant) {
        self.step = Step::Halting;
        self.udp_due = None;
        self.ask(now, Errand::Pause);
    }

    /// Our PAUSE was answered.
    pub(super) fn halted(&mut self, now: Instant) {
        if self.step == Step::Halting {
            self.flush(now);
            self.go_on(now);
        }
    }

    pub(super) fn seek(&mut self, now: Instant, at: StartAt) {
        self.start_at = Some(at);
        match self.step {
            Step::Playing | Step::Changing => {
                self.is_seeking = true;
                self.halt(now);
            }
            Step::Starting | Step::Halting => self.is_seeking = true,
            // For who goes on elsewhere the end is none.
            Step::Ending => {
                self.end_due = None;
                self.is_seeking = true;
                self.go_on(now);
            }
            Step::Resting if !self.is_paused => self.go_on(now),
            _ => {}
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        match self.step {
            Step::Playing => {
                self.is_paused = true;
                self.halt(now);
            }
            Step::Ending | Step::Leaving(_) | Step::Done => {}
            _ => self.is_paused = true,
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        if self.step == Step::Resting {
            self.go_on(now);
        }
    }

    pub(super) fn select(&mut self, now: Instant, streams: StreamSet) {
        self.config.streams = Some(streams);
        if matches!(self.step, Step::Starting | Step::Playing | Step::Halting | Step::Resting) {
            self.reselect(now);
        }
    }

    /// Sets up what is wanted and lacks, then takes out the rest: a session ends with its last stream.
    fn reselect(&mut self, now: Instant) {
        let is_asf = self.known.as_ref().is_some_and(|known| known.asf.is_some());
        let Some(session) = self.session.as_ref().filter(|_| is_asf) else { return };
        let (wanted, set_up) = (self.wanted(), session.streams);
        let wanted: StreamSet = wanted.iter().filter(|stream| self.has_url(*stream)).collect();
        if wanted.is_empty() {
            return;
        }
        for stream in wanted.iter().filter(|stream| !set_up.contains(*stream)) {
            self.ask(now, Errand::Add(stream));
        }
        for stream in set_up.iter().filter(|stream| !wanted.contains(*stream)) {
            self.ask(now, Errand::Drop(stream));
        }
        if let Some(session) = &mut self.session {
            session.streams = wanted;
        }
    }

    fn has_url(&self, stream: u8) -> bool {
        let asf = self.known.as_ref().and_then(|known| known.asf.as_ref());
        asf.is_some_and(|asf| asf.urls.iter().any(|(number, _)| *number == stream))
    }

    /// The streams that are wished for and there; all, where that leaves nothing.
    pub(super) fn wanted(&self) -> StreamSet {
        let asf = self.known.as_ref().and_then(|known| known.asf.as_ref());
        let streams = asf.map_or(StreamSet::EMPTY, |asf| asf.streams);
        let wish = self.config.streams.map(|wish| wish.intersection(streams));
        wish.filter(|wish| !wish.is_empty()).unwrap_or(streams)
    }

    /// The stream is over, but for what is still on its way.
    pub(super) fn begin_end(&mut self, now: Instant) {
        self.step = Step::Ending;
        (self.change_due, self.udp_due) = (None, None);
        let least = if self.is_udp() { now + STRAGGLER_TIME } else { now };
        self.end_due = Some((least, now + END_TIME));
        self.end_if_whole(now);
    }

    pub(super) fn end_if_whole(&mut self, now: Instant) {
        let Some((least, most)) = self.end_due.filter(|_| self.step == Step::Ending) else { return };
        if now < least || (now < most && !self.window.is_whole()) {
            return;
        }
        self.end_due = None;
        self.flush(now);
        if self.is_udp() && self.stats.packets == 0 && self.config.fall_back {
            // It was over before that could show.
            return self.leave_udp(now, "no datagram came");
        }
        self.end();
        if self.config.stays {
            self.step = Step::Resting;
        } else {
            self.leave(now, ClientEnd::Ended);
        }
    }

    pub(super) fn end(&mut self) {
        self.event(ClientEvent::End { hr: Hresult::OK });
    }

    /// Says goodbye, where there is a session, and closes.
    pub(super) fn leave(&mut self, now: Instant, end: ClientEnd) {
        if matches!(self.step, Step::Leaving(_)) {
            return;
        }
        self.flush(now);
        (self.udp_due, self.change_due, self.end_due) = (None, None, None);
        if self.session.is_none() || self.connecting {
            return self.close(end);
        }
        self.pending.clear();
        self.step = Step::Leaving(end);
        self.ask(now, Errand::Teardown);
        self.keep_alive_due = None;
    }
}
