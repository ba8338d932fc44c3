//! What the player asks for. Source: MS-MMSP 3.2.5.

use std::time::Instant;

use super::{CloseReason, Output, PeerError, Session, State, Transport, Waiting};
use crate::asf::Selection;
use crate::mms::block::{CancelReadBlock, ReadBlock};
use crate::mms::connect::Connect;
use crate::mms::end::{CloseFile, ReportEndOfStream, StopPlaying};
use crate::mms::frame::{Frame, Message};
use crate::mms::funnel::{ConnectFunnel, Funnel, FunnelInfo, ReportConnectedFunnel, ReportDisconnectedFunnel, ReportFunnelInfo};
use crate::mms::log::Logging;
use crate::mms::open::{OpenFile, ReportOpenFile};
use crate::mms::ping::Pong;
use crate::mms::play::{ReportStartStriding, ReportStartedPlaying, StartPlaying, StartStriding};
use crate::mms::security::SecurityResponse;
use crate::mms::select::{ReportStreamSwitch, StreamSwitch};
use crate::viewing::{Ask, Content};
use crate::wire::Hresult;

/// Messages that no player sends, before the session ends.
const MAX_UNKNOWN: u8 = 8;

fn parse<M: Message>(frame: &Frame) -> Result<M, PeerError> {
    M::parse(&frame.message).map_err(|error| PeerError::Message { mid: frame.mid, error })
}

impl Session {
    /// Handles one message.
    pub(super) fn request(&mut self, now: Instant, frame: &Frame) -> Result<(), PeerError> {
        self.report.messages += 1;
        if !self.control_rate.take(now) {
            return Err(PeerError::Flood(super::CONTROL_RATE.0));
        }
        self.heard(now, frame.mid);
        match (self.state, frame.mid) {
            (State::New, Connect::MID) => self.connect(&parse(frame)?),
            (State::New, mid) => return Err(PeerError::NotConnected(mid)),
            (_, Connect::MID) => return Err(PeerError::SecondConnect),
            (_, FunnelInfo::MID) => {
                parse::<FunnelInfo>(frame)?;
                // Harmless at any time; packet pair is never offered, since FFmpeg breaks on three answers.
                self.send(&ReportFunnelInfo { hr: Hresult::OK, client_id: self.client_id });
            }
            (_, ConnectFunnel::MID) => self.connect_funnel(&parse(frame)?),
            (_, OpenFile::MID) => self.open_file(now, &parse(frame)?),
            (_, SecurityResponse::MID) => {
                let SecurityResponse(response) = parse(frame)?;
                self.security_response(&response);
            }
            (_, ReadBlock::MID) => self.read_block(now, parse(frame)?),
            (_, CancelReadBlock::MID) => self.cancel_read_block(parse(frame)?),
            (_, StreamSwitch::MID) => self.stream_switch(&parse(frame)?),
            (_, StartPlaying::MID) => self.start_playing(now, &parse(frame)?),
            (_, StartStriding::MID) => {
                let StartStriding { incarnation, .. } = parse(frame)?;
                self.send(&ReportStartStriding { hr: Hresult::STRIDE_REFUSED, incarnation });
            }
            (_, StopPlaying::MID) => self.stop_playing(now, parse(frame)?),
            (_, Pong::MID) => {}
            (_, Logging::MID) => {
                // Claims of a player are no reason to end anything: what does not parse is passed over.
                if let Ok(log) = parse::<Logging>(frame) {
                    self.report.log = Some(Box::new(log));
                }
            }
            (_, CloseFile::MID) => self.close(CloseReason::Left),
            _ => {
                self.report.unknown_messages += 1;
                if self.report.unknown_messages > MAX_UNKNOWN {
                    return Err(PeerError::Unknown(MAX_UNKNOWN));
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, request: &Connect) {
        let player = request.player();
        self.report.player = Some(player.clone());
        self.ask(Waiting::Admitted, Ask::Admit(player));
    }

    fn connect_funnel(&mut self, request: &ConnectFunnel) {
        if self.state != State::Init {
            self.send(&ReportDisconnectedFunnel { hr: Hresult::INVALID_REQUEST });
            return self.wrong_state();
        }
        let funnel = request.funnel();
        if self.transport.take() == Some(Transport::Udp) {
            self.outputs.push_back(Output::Ask(Ask::ReleasePort));
        }
        match funnel {
            None => self.refuse_funnel(Hresult::BAD_CONTROL_DATA),
            Some(Funnel::Tcp) => self.grant_funnel(Transport::Tcp),
            Some(Funnel::Udp { .. }) if !self.config.udp => self.refuse_funnel(Hresult::UDP_DISABLED),
            Some(Funnel::Udp { announced, port }) => self.ask(Waiting::Funnel, Ask::ClaimPort { port, announced }),
        }
    }

    pub(super) fn grant_funnel(&mut self, transport: Transport) {
        self.transport = Some(transport);
        self.report.transport = Some(transport);
        self.send(&ReportConnectedFunnel);
    }

    pub(super) fn refuse_funnel(&mut self, hr: Hresult) {
        self.report.refused_funnels += 1;
        self.send(&ReportDisconnectedFunnel { hr });
    }

    /// Opens, or opens anew: what played before is over.
    fn open_file(&mut self, now: Instant, request: &OpenFile) {
        self.stop_media();
        self.cancel_read_block(CancelReadBlock { incarnation: 0 });
        self.timers.stop(super::Timer::Linger);
        self.opened = None;
        if self.state != State::Init {
            self.enter(now, State::Init);
        }
        self.opening = None;
        self.report.open_failure = None;
        match request.point() {
            Ok(name) => self.open_point(request.incarnation, name, &request.token),
            Err(hr) => self.report_open_failure(request.incarnation, hr),
        }
    }

    pub(super) fn report_open_failure(&mut self, incarnation: u32, hr: Hresult) {
        self.report.open_failure = Some(hr);
        self.send(&ReportOpenFile { hr, incarnation, ..ReportOpenFile::default() });
    }

    fn stream_switch(&mut self, request: &StreamSwitch) {
        let Some(opened) = self.opened.as_ref().filter(|_| matches!(self.state, State::Ready | State::Streaming)) else {
            self.send(&ReportStreamSwitch { hr: Hresult::INVALID_REQUEST });
            return self.wrong_state();
        };
        if !request.is_whole() {
            return self.send(&ReportStreamSwitch { hr: Hresult::INVALID_ARGUMENT });
        }
        // Before playing the list is the whole selection, while playing it names what changes (MS-MMSP 3.1.4.2, 3.1.4.3).
        let before = if self.state == State::Ready { Selection::default() } else { self.selected };
        let wish = request.apply(before, opened.description.streams);
        // A player that wants nothing at all would wait for ever: it gets what it gets without a word.
        self.selected = if wish.streams.is_empty() { Selection::all(opened.description.streams) } else { wish };
        self.send(&ReportStreamSwitch { hr: Hresult::OK });
        self.outputs.push_back(Output::Ask(Ask::Select(self.selected)));
    }

    /// Position and stop time of a broadcast are not looked at: players put counters and garbage there.
    fn start_playing(&mut self, now: Instant, request: &StartPlaying) {
        let incarnation = request.incarnation;
        let playable = self.transport.is_some() && matches!(self.state, State::Ready | State::Streaming);
        let Some(opened) = self.opened.as_ref().filter(|_| playable) else {
            self.send(&ReportStartedPlaying { hr: Hresult::INVALID_REQUEST, incarnation });
            return self.wrong_state();
        };
        if matches!(opened.description.content, Content::File { .. }) {
            return self.start_file(now, request);
        }
        let (ended, stale) = (opened.ended, opened.next.is_some());
        if ended && self.state == State::Ready {
            return self.send(&ReportStartedPlaying { hr: Hresult::NO_STREAM, incarnation });
        }
        self.incarnation = incarnation;
        self.send(&ReportStartedPlaying { hr: Hresult::OK, incarnation });
        let [low, ..] = incarnation.to_le_bytes();
        match self.state {
            State::Streaming if self.playing => self.outputs.push_back(Output::Ask(Ask::Incarnation { incarnation: low })),
            // The end of what played is on its way; it will carry the new incarnation.
            State::Streaming if self.timers.runs(super::Timer::Drain) => {}
            State::Streaming => {
                self.timers.stop(super::Timer::Hold);
                self.play(low);
            }
            _ => {
                self.enter(now, State::Streaming);
                if stale {
                    self.change_stream(now);
                } else {
                    self.play(low);
                }
            }
        }
    }

    /// Where a file begins to play, also while it plays: libmms seeks without a stop. Source: MS-MMSP 3.2.5.11.
    fn start_file(&mut self, now: Instant, request: &StartPlaying) {
        let incarnation = request.incarnation;
        if self.state == State::Streaming && self.playing && incarnation == self.incarnation {
            // By the specification the position is not looked at; a seek brings another incarnation.
            return self.send(&ReportStartedPlaying { hr: Hresult::OK, incarnation });
        }
        let from = match request.place() {
            Ok(from) => from,
            Err(hr) => return self.send(&ReportStartedPlaying { hr, incarnation }),
        };
        self.incarnation = incarnation;
        self.timers.stop(super::Timer::Drain);
        if let Some(opened) = &mut self.opened {
            opened.finished = false;
        }
        self.send(&ReportStartedPlaying { hr: Hresult::OK, incarnation });
        if self.state != State::Streaming {
            self.enter(now, State::Streaming);
        }
        let [low, ..] = incarnation.to_le_bytes();
        self.playing = true;
        let (until, acceleration) = (request.until(), request.acceleration);
        self.outputs.push_back(Output::Ask(Ask::PlayFile { incarnation: low, from, until, acceleration, speed: 1 }));
    }

    fn stop_playing(&mut self, now: Instant, request: StopPlaying) {
        let incarnation = request.incarnation;
        if self.opened.is_none() {
            self.send(&ReportEndOfStream { hr: Hresult::INVALID_REQUEST, incarnation });
            return self.wrong_state();
        }
        self.stop_media();
        // VLC stops twice around a pause and waits for an answer to each.
        self.send(&ReportEndOfStream { hr: Hresult::OK, incarnation });
        if self.state == State::Streaming {
            self.enter(now, State::Ready);
            self.close_if_ended(now);
        }
    }

    pub(super) fn ask(&mut self, waiting: Waiting, ask: Ask) {
        self.waiting = Some(waiting);
        self.outputs.push_back(Output::Ask(ask));
    }
}
