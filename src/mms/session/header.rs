//! Delivery of the ASF header. Source: MS-MMSP 3.2.5.8.1.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::timers::Timer;
use super::{Session, State, Transport};
use crate::mms::block::{CancelReadBlock, ReadBlock, ReportReadBlock};
use crate::mms::data::{DataHead, FRAGMENT, HEAD_LEN, LAST_FRAGMENT, fragment_ends};
use crate::wire::Hresult;

/// Headers that one description is good for.
const MAX_HEADERS: u8 = 10;
/// Largest piece over UDP: a header must not depend on IP fragments, whatever the size of media packets.
const MAX_UDP_FRAGMENT: usize = 1400;
/// Slowest pace of header datagrams, bits per second, for bit rates that are hardly any.
const MIN_PACE: u64 = 8_000;

/// Header datagrams not yet sent.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    queue: VecDeque<Bytes>,
    /// Pace, bits per second.
    bit_rate: u64,
}

impl Session {
    pub(super) fn read_block(&mut self, now: Instant, request: ReadBlock) {
        let incarnation = request.incarnation;
        let (Some(opened), Some(transport)) = (self.opened.as_mut(), self.transport) else {
            self.send(&ReportReadBlock { hr: Hresult::INVALID_REQUEST, incarnation });
            return self.wrong_state();
        };
        if opened.headers == MAX_HEADERS || (transport == Transport::Udp && !self.header_rate.take(now)) {
            // One small request yields kilobytes: whoever repeats it too often gets no answer.
            return;
        }
        opened.headers += 1;
        self.send(&ReportReadBlock { hr: Hresult::OK, incarnation });
        self.handshake_over();
        if self.state == State::Init && !self.timers.runs(Timer::Idle) {
            self.timers.set(Timer::Idle, now + self.config.idle);
        }
        let [incarnation, ..] = incarnation.to_le_bytes();
        self.send_header(now, incarnation);
    }

    pub(super) fn cancel_read_block(&mut self, _request: CancelReadBlock) {
        self.fragments = Fragments::default();
        self.timers.stop(Timer::Fragment);
    }

    /// Sends the header; over TCP at once, over UDP no faster than the content plays.
    pub(super) fn send_header(&mut self, now: Instant, incarnation: u8) {
        let Some(opened) = &self.opened else { return };
        let limit = usize::try_from(opened.description.packet_size).unwrap_or(usize::MAX);
        let udp = self.transport == Some(Transport::Udp);
        let limit = if udp { limit.min(MAX_UDP_FRAGMENT) } else { limit };
        let queue = fragments(&opened.description.header, limit, incarnation);
        self.fragments = Fragments { queue, bit_rate: u64::from(opened.description.bit_rate).max(MIN_PACE) };
        if udp {
            self.next_fragment(now);
        } else {
            while let Some(packet) = self.fragments.queue.pop_front() {
                self.send_media(packet);
            }
            self.header_sent(now);
        }
    }

    /// Sends the header datagram that is due.
    pub(super) fn next_fragment(&mut self, due: Instant) {
        let Some(packet) = self.fragments.queue.pop_front() else { return };
        let bits = packet.len() as u64 * 8;
        self.send_media(packet);
        if self.fragments.queue.is_empty() {
            self.header_sent(due);
        } else {
            let gap = Duration::from_micros(bits * 1_000_000 / self.fragments.bit_rate);
            self.timers.set(Timer::Fragment, due + gap);
        }
    }

    fn header_sent(&mut self, now: Instant) {
        self.fragments = Fragments::default();
        if self.state == State::Init {
            self.enter(now, State::Ready);
        }
    }
}

/// The data packets of a header.
fn fragments(header: &[u8], limit: usize, incarnation: u8) -> VecDeque<Bytes> {
    let ends = fragment_ends(header, limit);
    let mut start = 0;
    let mut packets = VecDeque::with_capacity(ends.len());
    for (location, end) in (0..).zip(ends) {
        let piece = header.get(start..end).unwrap_or_default();
        let flags = if end == header.len() { LAST_FRAGMENT } else { FRAGMENT };
        let mut packet = BytesMut::with_capacity(HEAD_LEN + piece.len());
        packet.put_slice(&DataHead::new(location, incarnation, flags, piece.len()).bytes());
        packet.put_slice(piece);
        packets.push_back(packet.freeze());
        start = end;
    }
    packets
}
