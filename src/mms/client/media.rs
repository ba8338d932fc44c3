//! Media packets and their gaps.

use std::time::Instant;

use bytes::Bytes;

use super::gaps::Place;
use super::{Client, Step, Transport};
use crate::asf;
use crate::mms::data::{CHANGED_INCARNATION, DataHead};
use crate::mms::resend::Request;
use crate::playing::{ClientEvent, ClientOutput, restored};

/// What follows the head of a data packet; copied only where somebody keeps it.
pub(super) enum Payload<'a> {
    /// Cut out of the connection's bytes.
    Owned(Bytes),
    /// In the caller's datagram.
    Borrowed(&'a [u8]),
}

impl Payload<'_> {
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

impl std::ops::Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Borrowed(bytes) => bytes,
        }
    }
}

impl Client {
    pub(super) fn data(&mut self, now: Instant, head: DataHead, payload: Payload<'_>) {
        if self.is_fragment(head) {
            self.fragment(now, head, payload);
        } else if self.is_media(head) && (1..=self.packet_size).contains(&payload.len()) {
            self.media_at = now;
            self.packet(now, head, payload);
        } else {
            self.stats.stale += 1;
            if self.late_incarnation == Some(head.incarnation)
                && let Some(requested) = self.gaps.pass(head.flags)
            {
                // Nobody wants it any more, but it is not lost.
                self.stats.recovered += 1;
                self.stats.reordered += u64::from(!requested);
                self.leave_if_whole();
            }
        }
    }

    /// Media counts as soon as it was asked for: over UDP it may overtake the answer (MS-MMSP 3.1.5.9.1).
    fn is_media(&self, head: DataHead) -> bool {
        // While the next header is on its way, late packets still belong to the one before.
        let asked = matches!(self.step, Step::Started | Step::Playing | Step::Changing | Step::Ending | Step::Header);
        let is_late = self.late_incarnation == Some(head.incarnation);
        (asked && head.incarnation == self.play_incarnation && !is_late)
            || (self.changed && head.incarnation == CHANGED_INCARNATION && self.step != Step::Header)
    }

    fn packet(&mut self, now: Instant, head: DataHead, payload: Payload<'_>) {
        let lossy = self.transport == Transport::Udp;
        let (sequence, resent) = match self.gaps.place(now, head.flags, head.location, lossy) {
            Place::Newest { sequence, missing } => {
                self.stats.gaps += u64::from(missing);
                self.newest_ms = asf::send_time_ms(&payload).or(self.newest_ms);
                (sequence, false)
            }
            Place::Filled { sequence, requested } => {
                self.stats.recovered += 1;
                self.stats.reordered += u64::from(!requested);
                (sequence, requested)
            }
            Place::Duplicate => {
                self.stats.duplicates += 1;
                return;
            }
        };
        self.stats.packets += 1;
        self.stats.bytes += payload.len() as u64;
        let location = head.location;
        self.event(if self.config.count_only {
            ClientEvent::Counted { location, send_time_ms: asf::send_time_ms(&payload) }
        } else {
            ClientEvent::Packet {
                location,
                sequence,
                bytes: restored(payload.into_bytes(), self.packet_size),
                resent,
                settled: self.gaps.settled(),
            }
        });
        self.leave_if_whole();
    }

    /// Asks for what is missing, and gives up what was asked for often enough.
    pub(super) fn request_missing(&mut self, now: Instant) {
        let (requests, lost) = self.gaps.due(now);
        self.stats.lost += lost;
        if lost > 0 {
            self.event(ClientEvent::GivenUp { settled: self.gaps.settled() });
        }
        let [low, high, ..] = self.file_id.to_le_bytes();
        for sequences in requests {
            self.stats.resend_requests += 1;
            let request = Request { client_id: self.client_id, source_id: u16::from_le_bytes([low, high]), sequences };
            self.outputs.push_back(ClientOutput::Datagram(request.bytes().into()));
        }
        self.leave_if_whole();
    }
}
