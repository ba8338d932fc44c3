//! What the relay answers, and what becomes of a broadcast while it is watched.

use std::time::{Duration, Instant};

use super::timers::Timer;
use super::{CloseReason, Opened, Session, State, Transport, Waiting};
use crate::asf::Selection;
use crate::mms::connect::{NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::data::{CHANGED_INCARNATION, HEAD_LEN, MAX_PAYLOAD};
use crate::mms::end::{ReportEndOfStream, ReportStreamChange};
use crate::mms::open::{BROADCAST, CAN_SEEK, FILE_ID, ReportOpenFile};
use crate::mms::redirect::{RedirectKind, ReportRedirect};
use crate::viewing::{Answer, Content, Description, OpenRefusal};
use crate::wire::Hresult;

/// A data packet of this size could be taken for a control packet on TCP: its size is half of their mark.
const AMBIGUOUS_SIZE: usize = 0xB00B;

impl Session {
    pub(super) fn answer(&mut self, now: Instant, answer: Answer) {
        match (self.waiting, answer) {
            (_, Answer::NewGeneration(description)) => self.new_generation(now, description),
            (_, Answer::Ended) => self.ended(now),
            (_, Answer::Finished { incarnation }) => self.finished(now, incarnation),
            (_, Answer::Broken) => self.broken(),
            (Some(Waiting::Admitted), Answer::Admitted(result)) => self.admitted(now, result),
            (Some(Waiting::Funnel), Answer::Funnel(result)) => {
                self.go_on(now);
                match result {
                    Ok(()) => self.grant_funnel(Transport::Udp),
                    Err(hr) => self.refuse_funnel(hr),
                }
            }
            (Some(Waiting::Opened { incarnation }), Answer::Opened(result)) => {
                self.go_on(now);
                if let Err(OpenRefusal::Login(challenge)) = &result {
                    return self.challenge(now, incarnation, challenge);
                }
                self.opening = None;
                match result {
                    Ok(description) => self.opened(now, incarnation, description),
                    Err(OpenRefusal::Status(hr)) => self.report_open_failure(incarnation, hr),
                    Err(OpenRefusal::Denied(_) | OpenRefusal::Login(_)) => {
                        self.report_open_failure(incarnation, Hresult::ACCESS_DENIED);
                    }
                    Err(OpenRefusal::NotAFile) => self.report_open_failure(incarnation, Hresult::FILE_NOT_FOUND),
                    Err(OpenRefusal::Redirect(location)) => {
                        self.send(&ReportRedirect { kind: RedirectKind::Url, location });
                        self.close(CloseReason::Redirected);
                    }
                }
            }
            // An answer to nothing: the session it was meant for has moved on.
            (_, Answer::Admitted(_) | Answer::Funnel(_) | Answer::Opened(_)) => {}
            // Of downloads, which MMS does not have.
            (
                _,
                Answer::AwaitsPublisher(_)
                | Answer::Bytes(_)
                | Answer::BytesSent
                | Answer::Leased(_)
                | Answer::Cued(_)
                | Answer::NextSequence(_),
            ) => {}
        }
    }

    /// The answer has come; the player's next step gets its full time.
    fn go_on(&mut self, now: Instant) {
        self.waiting = None;
        if self.timers.runs(Timer::Step) {
            self.timers.set(Timer::Step, now + self.config.handshake);
            if std::mem::take(&mut self.was_patient) {
                self.timers.set(Timer::Handshake, now + self.config.handshake * 3);
            }
        }
    }

    fn admitted(&mut self, now: Instant, result: Result<(), Hresult>) {
        self.go_on(now);
        self.send(&ReportConnectedEx {
            hr: result.err().unwrap_or(Hresult::OK),
            incarnation: NO_PACKET_PAIR,
            server_version: self.config.server_version.clone(),
            authentication: self.config.authentication.clone(),
        });
        match result {
            Ok(()) => self.state = State::Init,
            Err(_) => self.close(CloseReason::Refused),
        }
    }

    fn opened(&mut self, now: Instant, incarnation: u32, description: Description) {
        if !self.carries(&description) {
            return self.report_open_failure(incarnation, Hresult::PROTOCOL_MISMATCH);
        }
        let (attributes, duration_ms, packet_count) = match description.content {
            Content::Live => (BROADCAST, 0, 0),
            Content::File { duration_ms, packets } => (CAN_SEEK, duration_ms, packets),
        };
        self.send(&ReportOpenFile {
            hr: Hresult::OK,
            incarnation,
            file_id: FILE_ID,
            attributes,
            duration_s: Duration::from_millis(duration_ms).as_secs_f64(),
            blocks: u32::try_from(duration_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            packet_count,
            packet_size: description.packet_size,
            bit_rate: description.bit_rate.max(1),
            header_size: header_size(&description),
        });
        self.describe(now, description);
    }

    /// Whether packets of this size can be told from control packets and have room in their heads.
    fn carries(&self, description: &Description) -> bool {
        usize::try_from(description.packet_size).is_ok_and(|size| {
            (1..=MAX_PAYLOAD).contains(&size) && (size + HEAD_LEN != AMBIGUOUS_SIZE || self.transport == Some(Transport::Udp))
        })
    }

    fn describe(&mut self, now: Instant, description: Description) {
        self.resends.set_rate(now, description.bit_rate, description.packet_size);
        self.selected = Selection::all(description.streams);
        self.opened = Some(Opened { description, next: None, ended: false, finished: false, headers: 0 });
    }

    /// The header of a live broadcast changed. Who plays is told at once, who does not with the next StartPlaying: a
    /// StreamChange has meaning only in STREAMING (MS-MMSP 3.2.4.2).
    fn new_generation(&mut self, now: Instant, description: Description) {
        let Some(opened) = self.opened.as_mut().filter(|opened| !opened.ended) else { return };
        opened.next = Some(description);
        if self.state != State::Streaming {
            return;
        }
        if self.transport == Some(Transport::Udp) {
            self.begin_drain(now);
        } else {
            self.change_stream(now);
        }
    }

    fn ended(&mut self, now: Instant) {
        let Some(opened) = &mut self.opened else { return };
        opened.ended = true;
        match (self.state, self.transport) {
            (State::Streaming, Some(Transport::Udp)) => self.begin_drain(now),
            (State::Streaming, _) => self.end_stream(now),
            _ => self.close_if_ended(now),
        }
    }

    /// The file's end, or the stop time that the player gave.
    fn finished(&mut self, now: Instant, incarnation: u8) {
        // It may be the end of a play that another one has replaced by now.
        if !self.playing || !self.incarnation.to_le_bytes().starts_with(&[incarnation]) {
            return;
        }
        if let Some(opened) = &mut self.opened {
            opened.finished = true;
        }
        match self.transport {
            Some(Transport::Udp) => self.begin_drain(now),
            _ => self.end_stream(now),
        }
    }

    fn broken(&mut self) {
        if self.playing {
            self.stop_media();
            self.send(&ReportEndOfStream { hr: Hresult::NO_STREAM, incarnation: self.incarnation });
        }
        self.close(CloseReason::Broken);
    }

    /// Packets on their way, and their resends, get a moment before the end is told.
    fn begin_drain(&mut self, now: Instant) {
        let runs = self.timers.runs(Timer::Drain);
        if !runs {
            self.stop_media();
            self.timers.set(Timer::Drain, now + self.config.drain);
        }
    }

    pub(super) fn drained(&mut self, now: Instant) {
        if self.opened.as_ref().is_some_and(|opened| opened.ended || opened.finished) {
            self.end_stream(now);
        } else {
            self.change_stream(now);
        }
    }

    fn end_stream(&mut self, now: Instant) {
        self.stop_media();
        self.send(&ReportEndOfStream { hr: Hresult::OK, incarnation: self.incarnation });
        self.enter(now, State::Ready);
        self.close_if_ended(now);
    }

    pub(super) fn close_if_ended(&mut self, now: Instant) {
        if self.opened.as_ref().is_some_and(|opened| opened.ended) && !self.timers.runs(Timer::Linger) {
            self.timers.set(Timer::Linger, now + self.config.linger);
            self.timers.stop(Timer::KeepAlive);
        }
    }

    /// Ends what played and announces the next header. On TCP the header follows at once and media waits for StartPlaying:
    /// libmms and xine fail otherwise. On UDP the player fetches the header. Source: MS-MMSP 3.2.4.2.
    pub(super) fn change_stream(&mut self, now: Instant) {
        let Some(next) = self.opened.as_mut().and_then(|opened| opened.next.take()) else { return };
        self.stop_media();
        if !self.carries(&next) {
            if let Some(opened) = &mut self.opened {
                opened.ended = true;
            }
            return self.end_stream(now);
        }
        self.send(&ReportEndOfStream { hr: Hresult::MORE, incarnation: self.incarnation });
        self.send(&ReportStreamChange {
            packet_size: next.packet_size,
            header_size: header_size(&next),
            bit_rate: next.bit_rate.max(1),
        });
        self.describe(now, next);
        if self.transport == Some(Transport::Udp) {
            self.enter(now, State::Ready);
            // READY by the specification, but without a header there is nothing to start.
            self.state = State::Init;
        } else {
            self.send_header(now, CHANGED_INCARNATION);
            self.timers.set(Timer::Hold, now + self.config.hold);
        }
    }
}

fn header_size(description: &Description) -> u32 {
    u32::try_from(description.header.len()).unwrap_or(u32::MAX)
}
