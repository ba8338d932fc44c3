//! RTP as it comes, on the connection or in datagrams. Source: MS-RTSP 2.2.1; RFC 3550 5.1.

use std::time::Instant;

use bytes::Bytes;

use super::window::Place;
use super::{Client, ClientTransport, SILENCE, Step};
use crate::asf;
use crate::playing::{ClientEvent, ClientOutput, restored};
use crate::rtsp::media::RTP_HEAD_LEN;
use crate::rtsp::recovery::{MAX_NACKS, Nack};

/// Packets that are kept until PLAY is answered.
const MOST_EARLY: usize = 512;
/// So many packets in a row of another flow: the server has changed it.
const MOST_FOREIGN: u32 = 32;
/// Second bytes of RTCP packets. Source: RFC 5761 4.
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

/// What of an RTP head counts here.
#[derive(Clone, Copy)]
struct Rtp {
    sequence: u16,
    ssrc: u32,
}

impl Rtp {
    /// `None`: it is no RTP; RTCP, for one.
    fn parse(packet: &[u8]) -> Option<Self> {
        let [first, kind, n1, n0, _, _, _, _, s3, s2, s1, s0] = *packet.first_chunk::<RTP_HEAD_LEN>()?;
        let is_rtp = first >> 6 == 2 && !RTCP_TYPES.contains(&kind);
        let (sequence, ssrc) = (u16::from_be_bytes([n1, n0]), u32::from_be_bytes([s3, s2, s1, s0]));
        is_rtp.then_some(Self { sequence, ssrc })
    }
}

impl Client {
    /// An interleaved frame.
    pub(super) fn frame(&mut self, now: Instant, channel: u8, payload: &Bytes) {
        if self.session.as_ref().is_some_and(|session| session.channels.contains(&channel)) {
            self.packet_in(now, Some(channel), payload);
        }
    }

    pub(super) fn datagram(&mut self, now: Instant, datagram: &[u8]) {
        if self.session.is_some() {
            self.packet_in(now, None, datagram);
        }
    }

    /// A packet that may have come before the answer to PLAY, which says where it belongs.
    fn packet_in(&mut self, now: Instant, channel: Option<u8>, packet: &[u8]) {
        if self.step == Step::Starting {
            if self.early.len() < MOST_EARLY {
                self.early.push((channel, Bytes::copy_from_slice(packet)));
            }
            return;
        }
        self.packet_came(now, channel, packet);
    }

    pub(super) fn packet_came(&mut self, now: Instant, channel: Option<u8>, packet: &[u8]) {
        // Behind a pause and before its answer comes what is still of the play.
        let is_wanted = matches!(self.step, Step::Playing | Step::Changing | Step::Ending)
            || (self.step == Step::Halting && !self.is_seeking);
        let Some(rtp) = Rtp::parse(packet) else { return };
        if !is_wanted {
            self.stats.stale += 1;
            return;
        }
        if self.known.as_ref().is_some_and(|known| known.asf.is_none()) {
            return self.plain(now, channel, rtp, packet.len());
        }
        if channel.is_some() {
            return self.deliver(now, packet, false);
        }
        if !self.is_of_flow(rtp) {
            self.stats.stale += 1;
            return;
        }
        (self.silent_at, self.udp_due) = (now + SILENCE, None);
        let mut place = self.window.place(now, rtp.sequence);
        if place == Place::Jump {
            self.flush(now);
            self.window.start(rtp.sequence);
            self.depacketizer.restart();
            place = self.window.place(now, rtp.sequence);
        }
        match place {
            Place::Next(fit) => {
                self.count_fit(fit);
                self.deliver(now, packet, fit.is_resent());
                self.drain(now);
            }
            Place::Later { number, fit } => {
                self.count_fit(fit);
                self.window.hold(number, Bytes::copy_from_slice(packet), fit.is_resent());
                if self.window.is_full() {
                    self.request_missing(now);
                }
            }
            Place::Behind | Place::Jump => self.stats.duplicates += 1,
        }
        self.end_if_whole(now);
    }

    /// Whether a datagram is of the flow that is played: the one that came first, until another one has taken its place.
    fn is_of_flow(&mut self, rtp: Rtp) -> bool {
        let is_test = self.session.as_ref().is_some_and(|session| session.resend_ssrc == Some(rtp.ssrc));
        if is_test && self.media_ssrc != Some(rtp.ssrc) {
            return false;
        }
        if self.media_ssrc.is_none_or(|ssrc| ssrc == rtp.ssrc) {
            (self.media_ssrc, self.foreign) = (Some(rtp.ssrc), 0);
            return true;
        }
        self.foreign += 1;
        let changed = self.foreign > MOST_FOREIGN;
        if changed {
            (self.media_ssrc, self.foreign) = (Some(rtp.ssrc), 0);
            self.stats.lost += self.window.flush();
            self.window.reset();
            self.depacketizer.restart();
        }
        changed
    }

    fn count_fit(&mut self, fit: super::window::Fit) {
        match fit {
            super::window::Fit::Newest { missing } => self.stats.gaps += u64::from(missing),
            super::window::Fit::Filled { requested } => {
                self.stats.recovered += 1;
                self.stats.reordered += u64::from(!requested);
            }
        }
    }

    /// Hands on what waited for its turn.
    fn drain(&mut self, now: Instant) {
        while let Some((packet, resent)) = self.window.ready() {
            self.deliver(now, &packet, resent);
        }
    }

    /// Nothing that is missing is waited for any more.
    pub(super) fn flush(&mut self, now: Instant) {
        self.stats.lost += self.window.flush();
        if self.is_seeking {
            self.window.reset();
        }
        self.drain(now);
    }

    /// Asks for what is missing, and gives up what was asked for often enough.
    pub(super) fn request_missing(&mut self, now: Instant) {
        let (wanted, lost) = self.window.due(now);
        self.stats.lost += lost;
        if lost > 0 {
            self.drain(now);
        }
        let ClientTransport::Udp { resends, .. } = self.transport else { return };
        let named = self.session.as_ref().and_then(|session| session.resend_ports.zip(session.resend_ssrc));
        let (Some(((_, to), v_ssrc)), Some(media_ssrc)) = (named, self.media_ssrc) else { return };
        let [s3, s2, s1, s0, ..] = self.config.salt;
        // As many as surely fit into one datagram.
        for sequences in wanted.chunks(MAX_NACKS) {
            self.stats.resend_requests += 1;
            let nack = Nack { v_ssrc, media_ssrc, sequences: sequences.to_vec() };
            let bytes = nack.bytes(u32::from_be_bytes([s3, s2, s1, s0])).into();
            self.outputs.push_back(ClientOutput::DatagramTo { from: resends.1.unwrap_or(resends.0), to, bytes });
        }
    }

    /// A packet whose turn it is.
    fn deliver(&mut self, now: Instant, rtp: &[u8], resent: bool) {
        let Some(asf) = self.known.as_ref().and_then(|known| known.asf.as_ref()) else { return };
        let (size, count_only) = (asf.packet_size, self.config.count_only);
        let Self { depacketizer, outputs, stats, location, sequence, media_at, .. } = self;
        let taken = depacketizer.push(rtp, |packet| {
            if !(1..=size).contains(&packet.len()) {
                stats.stale += 1;
                return;
            }
            *media_at = now;
            stats.packets += 1;
            stats.bytes += packet.len() as u64;
            let (number, at) = (*sequence, *location);
            (*sequence, *location) = (number.wrapping_add(1), at.wrapping_add(1));
            outputs.push_back(ClientOutput::Event(if count_only {
                ClientEvent::Counted { location: at, send_time_ms: asf::send_time_ms(packet) }
            } else {
                let bytes = restored(Bytes::copy_from_slice(packet), size);
                ClientEvent::Packet { location: at, sequence: number, bytes, resent, settled: number.wrapping_add(1) }
            }));
        });
        self.stats.stale += u64::from(taken.is_err());
    }

    fn plain(&mut self, now: Instant, channel: Option<u8>, rtp: Rtp, len: usize) {
        let Some(counted) = self.flows.count(channel, rtp.ssrc, rtp.sequence) else {
            self.stats.stale += 1;
            return;
        };
        (self.silent_at, self.media_at, self.udp_due) = (now + SILENCE, now, None);
        self.stats.packets += 1;
        self.stats.bytes += len as u64;
        self.stats.gaps += u64::from(counted.missing);
        self.stats.recovered += u64::from(counted.is_late);
        self.stats.reordered += u64::from(counted.is_late);
        let location = self.location;
        self.location = location.wrapping_add(1);
        self.event(ClientEvent::Counted { location, send_time_ms: None });
    }
}
