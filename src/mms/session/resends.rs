//! Which resend requests are passed on. Source: MS-MMSP 3.2.5.13; the limits are ours.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Output, Session, Transport};
use crate::mms::open::FILE_ID;
use crate::mms::resend::Request;
use crate::viewing::Ask;
use crate::wire::TokenBucket;

/// Packets a second that every session may have again.
const MIN_RATE: u32 = 64;
/// How often one packet is sent again.
const MAX_REPEATS: u8 = 3;
/// Numbers whose repeats are counted.
const REMEMBERED: usize = 128;

/// What a session has sent again lately.
#[derive(Debug, Default)]
pub(super) struct Resends {
    bucket: Option<TokenBucket>,
    repeats: VecDeque<(u32, u8)>,
}

impl Resends {
    /// Packets a second: a quarter of the stream, or 64.
    pub(super) fn set_rate(&mut self, now: Instant, bit_rate: u32, packet_size: u32) {
        let rate = (bit_rate / 8 / packet_size.max(1) / 4).max(MIN_RATE);
        self.bucket = Some(TokenBucket::new(now, rate, rate));
    }

    fn grant(&mut self, now: Instant, sequence: u32) -> bool {
        let known = self.repeats.iter_mut().find(|(known, _)| *known == sequence);
        if known.as_ref().is_some_and(|(_, times)| *times >= MAX_REPEATS) {
            return false;
        }
        if !self.bucket.as_mut().is_some_and(|bucket| bucket.take(now)) {
            return false;
        }
        match known {
            Some((_, times)) => *times += 1,
            None => {
                if self.repeats.len() == REMEMBERED {
                    self.repeats.pop_front();
                }
                self.repeats.push_back((sequence, 1));
            }
        }
        true
    }
}

impl Session {
    /// Passes a resend request on as far as it is in order; there is no negative answer.
    pub(super) fn resend_request(&mut self, now: Instant, datagram: &[u8]) {
        let Ok(request) = Request::parse(datagram) else { return };
        let ours = request.client_id == self.client_id && u32::from(request.source_id) == FILE_ID;
        if !ours || self.transport != Some(Transport::Udp) {
            return;
        }
        self.report.resends_asked += request.sequences.len() as u64;
        let mut sequences = request.sequences;
        sequences.retain(|sequence| self.resends.grant(now, *sequence));
        self.report.resends_granted += sequences.len() as u64;
        if !sequences.is_empty() {
            self.outputs.push_back(Output::Ask(Ask::Resend { sequences }));
        }
    }
}
