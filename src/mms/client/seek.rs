//! Starting, and what a player does after that: seek, pause, resume, choose streams. Source: MS-MMSP 3.1.4.2, 3.1.4.3, 4.5.1.
//!
//! All but the choice goes the way of Microsoft's own players: StopPlaying, its EndOfStream, StreamSwitch, StartPlaying.

use std::time::Instant;

use super::{Client, PLAIN_VERSION, Step};
use crate::asf::StreamSet;
use crate::mms::end::StopPlaying;
use crate::mms::play::StartPlaying;
use crate::mms::select::{StreamEntry, StreamSwitch};
use crate::playing::{ClientEvent, StartAt};

/// Plays count from the one behind OpenFile's to here, and over again.
const FIRST_INCARNATION: u8 = 9;
const LAST_INCARNATION: u8 = 254;
/// No stream, as source or destination of a switch.
const NO_STREAM: u16 = 0xFFFF;

impl Client {
    pub(super) fn seek(&mut self, now: Instant, at: StartAt) {
        self.start_at = at;
        match self.step {
            Step::Started | Step::Playing => self.halt(now),
            // For who goes on elsewhere the end is none.
            Step::Ending => {
                self.stats.lost += self.gaps.halt();
                self.go_on(now);
            }
            // The next StartPlaying is still to come.
            _ => {}
        }
    }

    pub(super) fn pause(&mut self, now: Instant) {
        match self.step {
            Step::Started | Step::Playing => {
                self.start_at = match self.newest_ms {
                    _ if self.broadcast => StartAt::Beginning,
                    // Files count their send times from the content's beginning.
                    Some(ms) => StartAt::Time { s: f64::from(ms) / 1000.0 },
                    None => self.started_at,
                };
                self.is_paused = true;
                self.halt(now);
            }
            Step::Ending | Step::Stopping | Step::Done => {}
            _ => self.is_paused = true,
        }
    }

    pub(super) fn resume(&mut self, now: Instant) {
        self.is_paused = false;
        if self.step == Step::Paused {
            self.go_on(now);
        }
    }

    /// Asks for other streams; a video stream in place of another one lasts until the new one's key frame has come.
    pub(super) fn reselect(&mut self, wish: StreamSet) {
        self.config.streams = Some(wish);
        if !matches!(self.step, Step::Started | Step::Playing) {
            return;
        }
        let wanted = self.wanted();
        let (mut on, mut entries) = (minus(wanted, self.selected), Vec::new());
        for old in minus(self.selected, wanted) {
            let twin = on.iter().position(|new| self.video.contains(old) == self.video.contains(*new));
            let new = twin.map_or(NO_STREAM, |at| u16::from(on.remove(at)));
            entries.push(StreamEntry { source: u16::from(old), destination: new, thinning: 0 });
        }
        entries.extend(on.into_iter().map(StreamEntry::on));
        self.selected = wanted;
        if !entries.is_empty() {
            self.send(&StreamSwitch { claimed: u32::try_from(entries.len()).unwrap_or(u32::MAX), entries });
        }
    }

    fn halt(&mut self, now: Instant) {
        self.send(&StopPlaying { incarnation: self.play_incarnation.into() });
        self.send(&self.log());
        self.late_incarnation = Some(self.play_incarnation);
        self.changed = false;
        self.stats.lost += self.gaps.halt();
        self.await_answer(now, Step::Halting, "StopPlaying");
    }

    /// Our StopPlaying was answered.
    pub(super) fn halted(&mut self, now: Instant) {
        self.halted_incarnation = Some(self.play_incarnation);
        self.go_on(now);
    }

    /// The header is there and nothing plays: select, then start; or rest.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.is_paused {
            return self.rest();
        }
        self.selected = self.wanted();
        self.send(&StreamSwitch::all(self.selected));
        self.await_answer(now, Step::Switched, "StreamSwitch");
    }

    fn rest(&mut self) {
        self.step = Step::Paused;
        self.answer_due = None;
    }

    /// The streams that are wished for and there; all, where that leaves nothing.
    fn wanted(&self) -> StreamSet {
        let wish = self.config.streams.filter(|wish| wish.intersects(self.streams)).unwrap_or(self.streams);
        self.streams.iter().filter(|stream| wish.contains(*stream)).collect()
    }

    /// The server knows which streams it is to send.
    pub(super) fn selected(&mut self, now: Instant) {
        if self.is_paused {
            return self.rest();
        }
        self.late_incarnation = Some(self.play_incarnation);
        self.play_incarnation =
            if self.play_incarnation >= LAST_INCARNATION { FIRST_INCARNATION } else { self.play_incarnation + 1 };
        if self.halted_incarnation == Some(self.play_incarnation) {
            self.halted_incarnation = None;
        }
        // What is sent again keeps the incarnation of its play, which nobody wants any more.
        self.stats.lost += self.gaps.halt();
        self.gaps.restart();
        self.newest_ms = None;
        self.started_at = std::mem::take(&mut self.start_at);
        self.event(ClientEvent::Starting);
        self.send(&self.start_playing());
        self.await_answer(now, Step::Started, "StartPlaying");
    }

    fn start_playing(&self) -> StartPlaying {
        let live = StartPlaying::live(self.play_incarnation.into());
        // A position of 0 is a place too: the one to be overlooked is the largest number (MS-MMSP 2.2.4.25).
        let elsewhere = StartPlaying { position_s: f64::MAX, ..live };
        let start = match self.started_at {
            // 0 names no place, and is the beginning anyway.
            StartAt::Beginning | StartAt::Packet(0) | StartAt::Offset(0) => live,
            StartAt::Time { s } => StartPlaying { position_s: s, ..live },
            StartAt::Packet(location) => StartPlaying { location, ..elsewhere },
            StartAt::Offset(asf_offset) => StartPlaying { asf_offset, ..elsewhere },
        };
        let acceleration = self.config.acceleration.filter(|_| self.server_major >= PLAIN_VERSION);
        StartPlaying { frame_offset: self.config.frame_offset, acceleration, ..start }
    }
}

/// The streams of one set that another one lacks.
fn minus(set: StreamSet, other: StreamSet) -> Vec<u8> {
    set.iter().filter(|stream| !other.contains(*stream)).collect()
}
