//! What the server answers and reports. Source: MS-MMSP 3.1.5.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::{Client, ClientTransport, PLAIN_VERSION, Step, Transport};
use crate::mms::block::ReportReadBlock;
use crate::mms::connect::{NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::end::{ReportEndOfStream, ReportStreamChange};
use crate::mms::frame::{Frame, Message};
use crate::mms::funnel::{ConnectFunnel, FunnelInfo, ReportConnectedFunnel, ReportDisconnectedFunnel, ReportFunnelInfo};
use crate::mms::open::{BROADCAST, OpenFile, ReportOpenFile, Token};
use crate::mms::ping::{Ping, Pong};
use crate::mms::play::ReportStartedPlaying;
use crate::mms::redirect::ReportRedirect;
use crate::mms::security::SecurityChallenge;
use crate::mms::select::ReportStreamSwitch;
use crate::playing::{ClientEnd, ClientEvent};
use crate::wire::Hresult;

/// The number that servers expect in a TCP funnel's name; they do not look at it.
const TCP_FUNNEL_PORT: u16 = 1755;

impl Client {
    pub(super) fn answer(&mut self, now: Instant, frame: &Frame) {
        if let Err(end) = self.try_answer(now, frame) {
            self.close(end);
        }
    }

    fn try_answer(&mut self, now: Instant, frame: &Frame) -> Result<(), ClientEnd> {
        match (frame.mid, self.step) {
            (Ping::MID, _) => self.send(&Pong),
            (ReportConnectedEx::MID, Step::Connected) => {
                let report: ReportConnectedEx = parse(frame)?;
                accepted("the session", report.hr)?;
                self.server_major = report.server_major();
                self.send(&FunnelInfo { incarnation: NO_PACKET_PAIR });
                self.await_answer(now, Step::FunnelInfo, "FunnelInfo");
            }
            (ReportFunnelInfo::MID, Step::FunnelInfo) => {
                let report: ReportFunnelInfo = parse(frame)?;
                accepted("a client id", report.hr)?;
                self.client_id = report.client_id;
                self.ask_funnel(now);
            }
            (ReportConnectedFunnel::MID, Step::Funnel) => {
                let open =
                    OpenFile { incarnation: self.play_incarnation.into(), name: self.config.name.clone(), token: Token::None };
                self.send(&open);
                self.await_answer(now, Step::Opened, "OpenFile");
            }
            (ReportDisconnectedFunnel::MID, Step::Funnel) => {
                let ReportDisconnectedFunnel { hr } = parse(frame)?;
                self.event(ClientEvent::FunnelRefused(hr));
                if self.transport == Transport::Tcp || !self.config.fall_back {
                    return Err(ClientEnd::Refused { what: "the data path", hr });
                }
                // After UDP a client may ask once more on the same connection, and then for TCP (MS-MMSP 3.1.5.5).
                self.transport = Transport::Tcp;
                self.ask_funnel(now);
            }
            (ReportDisconnectedFunnel::MID, _) => {
                let ReportDisconnectedFunnel { hr } = parse(frame)?;
                return Err(ClientEnd::Refused { what: "the data path", hr });
            }
            (ReportOpenFile::MID, Step::Opened) => {
                let report: ReportOpenFile = parse(frame)?;
                accepted("the publishing point", report.hr)?;
                self.file_id = report.file_id;
                self.broadcast = report.attributes & BROADCAST != 0;
                self.event(ClientEvent::Opened {
                    live: self.broadcast,
                    duration_s: if report.duration_s.is_finite() { report.duration_s.max(0.0) } else { 0.0 },
                    packet_count: report.packet_count,
                    packet_size: report.packet_size,
                    bit_rate: report.bit_rate,
                });
                self.fetch_header(now, report.header_size, report.bit_rate);
            }
            (ReportRedirect::MID, _) => return Err(ClientEnd::Redirected(parse::<ReportRedirect>(frame)?.location)),
            (SecurityChallenge::MID, _) => return Err(ClientEnd::CredentialsWanted),
            (ReportReadBlock::MID, _) => accepted("the ASF header", parse::<ReportReadBlock>(frame)?.hr)?,
            (ReportStreamSwitch::MID, Step::Switched) => {
                accepted("the streams", parse::<ReportStreamSwitch>(frame)?.hr)?;
                self.selected(now);
            }
            (ReportStreamSwitch::MID, Step::Started | Step::Playing) => {
                accepted("the streams", parse::<ReportStreamSwitch>(frame)?.hr)?;
            }
            (ReportStartedPlaying::MID, Step::Started) => {
                accepted("playing", parse::<ReportStartedPlaying>(frame)?.hr)?;
                self.answer_due = None;
                self.step = Step::Playing;
                self.media_at = now;
                self.event(ClientEvent::Playing { path: self.transport.into() });
            }
            (ReportEndOfStream::MID, _) => self.end_of_stream(now, parse(frame)?),
            (ReportStreamChange::MID, _) => self.stream_change(now, parse(frame)?),
            // Answers to nothing and messages unknown to us: servers of all ages are out there.
            _ => {}
        }
        Ok(())
    }

    fn ask_funnel(&mut self, now: Instant) {
        let message = match (self.transport, self.config.transport) {
            (Transport::Udp, ClientTransport::Udp { address, port }) => ConnectFunnel::udp(address, port),
            (_, ClientTransport::Udp { address, .. }) => ConnectFunnel::tcp(address, TCP_FUNNEL_PORT),
            (_, ClientTransport::Tcp) => ConnectFunnel::tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), TCP_FUNNEL_PORT),
        };
        self.send(&message);
        self.await_answer(now, Step::Funnel, "ConnectFunnel");
    }

    fn end_of_stream(&mut self, now: Instant, report: ReportEndOfStream) {
        if self.step == Step::Stopping {
            return self.leave(ClientEnd::Stopped);
        }
        // A play that ended by itself while our StopPlaying was on its way has two ends.
        if self.halted_incarnation.is_some_and(|halted| u32::from(halted) == report.incarnation) {
            return;
        }
        if self.step == Step::Halting {
            // No answer, but the beginning of a StreamChange that crossed our StopPlaying; its answer follows.
            if report.hr != Hresult::MORE {
                self.halted(now);
            }
            return;
        }
        // Older servers do not say whether more follows: of a broadcast it is to be expected (MS-MMSP 3.1.5.18).
        let more =
            report.hr == Hresult::MORE || (report.hr == Hresult::OK && self.server_major < PLAIN_VERSION && self.broadcast);
        if more {
            self.await_answer(now, Step::Changing, "the end of a stream that goes on");
        } else {
            self.event(ClientEvent::End { hr: report.hr });
            self.step = Step::Ending;
            self.answer_due = None;
            self.leave_if_whole();
        }
    }

    /// After the end of the stream: leaves when nothing is missing any more, and nobody wants to go on.
    pub(super) fn leave_if_whole(&mut self) {
        let stays = self.config.stays && !self.broadcast;
        if self.step == Step::Ending && !stays && self.gaps.is_whole() {
            self.leave(ClientEnd::Ended);
        }
    }

    fn stream_change(&mut self, now: Instant, report: ReportStreamChange) {
        match self.step {
            Step::Changing | Step::Playing | Step::Started => {}
            Step::Halting => self.halted_incarnation = Some(self.play_incarnation),
            _ => return,
        }
        if self.transport == Transport::Tcp {
            self.changed = true;
            self.expect_changed_header(now);
        } else {
            self.fetch_header(now, report.header_size, report.bit_rate);
        }
    }
}

fn parse<M: Message>(frame: &Frame) -> Result<M, ClientEnd> {
    M::parse(&frame.message).map_err(|error| ClientEnd::Protocol(format!("message 0x{:08X}: {error}", frame.mid)))
}

fn accepted(what: &'static str, hr: Hresult) -> Result<(), ClientEnd> {
    if hr.is_failure() { Err(ClientEnd::Refused { what, hr }) } else { Ok(()) }
}
