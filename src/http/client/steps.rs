//! From the header to the end: starting, and what a player does after that. Source: MS-WMSP 3.1.4, 4.
//!
//! A play that is to go on elsewhere, or with other streams, is another Play on another connection.

use std::time::Instant;

use super::{Client, Errand, KEEP_ALIVE_LEAD, LOG_TIME, Step};
use crate::asf::StreamSet;
use crate::playing::{ClientEnd, ClientEvent, StartAt};

impl Client {
    /// The stream is described, and nothing plays: begins, or rests.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.is_paused {
            return self.rest(now);
        }
        if self.is_plain {
            // It has one place to begin.
            self.step = Step::Describing;
            return self.connect(now, Errand::Describe);
        }
        self.play(now);
    }

    pub(super) fn play(&mut self, now: Instant) {
        self.started_at = std::mem::take(&mut self.start_at);
        self.selected = self.wanted();
        self.step = Step::Starting;
        (self.next_location, self.change_due, self.keep_alive_due) = (None, None, None);
        self.pass(now);
        self.event(ClientEvent::Starting);
        self.connect(now, Errand::Play);
    }

    /// Rests; a session of the server's is kept by a sign of life now and then.
    pub(super) fn rest(&mut self, now: Instant) {
        self.disconnect();
        self.step = Step::Resting;
        (self.answer_due, self.change_due) = (None, None);
        self.pass(now);
        self.keep_alive_due = self.client_id.filter(|_| !self.is_plain).map(|_| now + (self.session_time - KEEP_ALIVE_LEAD));
    }

    /// The time until now was played.
    fn pass(&mut self, now: Instant) {
        if let Some(since) = self.playing_since.take() {
            self.played += now.saturating_duration_since(since);
        }
    }

    pub(super) fn seek(&mut self, now: Instant, at: StartAt) {
        self.start_at = at;
        // Who rests without a pause has come to the end, and stayed.
        let is_at_end = self.step == Step::Resting && !self.is_paused;
        if is_at_end || matches!(self.step, Step::Starting | Step::Playing | Step::Changing) {
            self.go_on(now);
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        match self.step {
            Step::Starting | Step::Playing | Step::Changing => {
                self.start_at = self.place();
                self.is_paused = true;
                self.rest(now);
            }
            Step::Describing | Step::Resting => self.is_paused = true,
            Step::Leaving(_) | Step::Done => {}
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        if self.step == Step::Resting {
            self.keep_alive_due = None;
            self.go_on(now);
        }
    }

    /// Asks for other streams, from where it is.
    pub(super) fn select(&mut self, now: Instant, streams: StreamSet) {
        self.config.streams = Some(streams);
        let plays = matches!(self.step, Step::Starting | Step::Playing | Step::Changing);
        if plays && !self.is_plain && self.wanted() != self.selected {
            self.start_at = self.place();
            self.play(now);
        }
    }

    /// Where to go on: behind the last packet that came.
    fn place(&self) -> StartAt {
        match self.next_location {
            _ if self.known.as_ref().is_some_and(|known| known.live) => StartAt::Beginning,
            Some(next) => StartAt::Packet(next),
            None => self.started_at,
        }
    }

    /// The streams that are wished for and there; all, where that leaves nothing.
    fn wanted(&self) -> StreamSet {
        let streams = self.known.as_ref().map_or(StreamSet::EMPTY, |known| known.streams);
        let wish = self.config.streams.map(|wish| wish.intersection(streams));
        wish.filter(|wish| !wish.is_empty()).unwrap_or(streams)
    }

    /// Tells the server how it was, where something was played of a session, and closes.
    pub(super) fn leave(&mut self, now: Instant, end: ClientEnd) {
        if matches!(self.step, Step::Leaving(_)) {
            return;
        }
        self.pass(now);
        if self.is_plain || self.client_id.is_none() || self.stats.packets == 0 {
            return self.close(end);
        }
        (self.change_due, self.keep_alive_due) = (None, None);
        self.step = Step::Leaving(end);
        self.connect(now, Errand::Log);
        self.answer_due = Some((now + LOG_TIME, Errand::Log.name()));
    }
}
