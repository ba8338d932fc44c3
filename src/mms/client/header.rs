//! Fetching the ASF header. Source: MS-MMSP 3.1.2, 3.1.5.9, 3.1.5.12, 3.1.6.1.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::media::Payload;
use super::{Client, Step, Transport};
use crate::asf;
use crate::mms::block::{CancelReadBlock, ReadBlock};
use crate::mms::data::{CHANGED_INCARNATION, DataHead, FRAGMENT, LAST_FRAGMENT};
use crate::playing::{ClientEnd, ClientEvent};

/// ReadBlocks after the first.
const MAX_RETRIES: u8 = 4;
/// The other mark of a last fragment.
const LAST_FRAGMENT_TOO: u8 = 0x08;
const MAX_HEADER: usize = 1 << 20;
const MAX_FRAGMENTS: usize = 4096;

/// A header on its way.
#[derive(Debug, Default)]
pub(super) struct HeaderFetch {
    fragments: BTreeMap<u32, Bytes>,
    bytes: usize,
    last: Option<u32>,
    retries: u8,
    /// How long the whole header may take over UDP.
    time: Duration,
    due: Option<Instant>,
}

impl HeaderFetch {
    /// When to ask again.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    fn forget(&mut self) {
        self.fragments.clear();
        self.bytes = 0;
        self.last = None;
    }

    /// The header, where all of it is there.
    fn take(&mut self) -> Option<Bytes> {
        let last = self.last?;
        if self.fragments.len() as u64 != u64::from(last) + 1 {
            return None;
        }
        let mut header = BytesMut::with_capacity(self.bytes);
        self.fragments.values().for_each(|fragment| header.extend_from_slice(fragment));
        *self = Self::default();
        Some(header.freeze())
    }
}

impl Client {
    /// Asks for the header; over UDP the header timer runs.
    pub(super) fn fetch_header(&mut self, now: Instant, size: u32, bit_rate: u32) {
        let seconds = 1.0 + 8.0 * f64::from(size) / f64::from(bit_rate.max(1));
        self.header = HeaderFetch { time: Duration::from_secs_f64(seconds.clamp(1.0, 30.0)), ..HeaderFetch::default() };
        self.read_block(now);
    }

    fn read_block(&mut self, now: Instant) {
        self.header_incarnation = self.header_incarnation % 8 + 1;
        self.send(&ReadBlock { incarnation: self.header_incarnation.into() });
        self.await_answer(now, Step::Header, "ReadBlock");
        if self.transport == Transport::Udp {
            self.answer_due = None;
            self.header.due = Some(now + self.header.time);
        }
    }

    pub(super) fn retry_header(&mut self, now: Instant) {
        if self.header.retries == MAX_RETRIES {
            return self.close(ClientEnd::HeaderLost);
        }
        self.header.retries += 1;
        self.header.forget();
        self.send(&CancelReadBlock { incarnation: self.header_incarnation.into() });
        self.read_block(now);
    }

    /// On TCP the header of a changed stream comes unasked.
    pub(super) fn expect_changed_header(&mut self, now: Instant) {
        self.header = HeaderFetch::default();
        self.header_incarnation = CHANGED_INCARNATION;
        self.await_answer(now, Step::Header, "a StreamChange");
    }

    /// Whether a data packet is a piece of the header that is awaited.
    pub(super) fn is_fragment(&self, head: DataHead) -> bool {
        self.step == Step::Header
            && head.incarnation == self.header_incarnation
            && matches!(head.flags, FRAGMENT | LAST_FRAGMENT | LAST_FRAGMENT_TOO)
    }

    pub(super) fn fragment(&mut self, now: Instant, head: DataHead, payload: Payload<'_>) {
        let fetch = &mut self.header;
        if head.flags != FRAGMENT {
            fetch.last = Some(head.location);
        }
        fetch.bytes += payload.len();
        if let Some(before) = fetch.fragments.insert(head.location, payload.into_bytes()) {
            fetch.bytes -= before.len();
        }
        if fetch.bytes > MAX_HEADER || fetch.fragments.len() > MAX_FRAGMENTS {
            return self.close(ClientEnd::Protocol(format!("an ASF header of more than {MAX_HEADER} bytes")));
        }
        let Some(header) = fetch.take() else { return };
        if self.header_incarnation == CHANGED_INCARNATION {
            self.header_incarnation = 0;
        }
        let parsed = match asf::Header::parse(&header) {
            Ok(parsed) => parsed,
            Err(error) => return self.close(ClientEnd::Protocol(error.to_string())),
        };
        self.packet_size = parsed.packet_size();
        self.streams = parsed.streams().iter().map(|stream| stream.number).collect();
        self.video = parsed.video();
        let first = !std::mem::replace(&mut self.has_header, true);
        self.event(if first { ClientEvent::Header(header) } else { ClientEvent::NewHeader(header) });
        if let Some(wished) = self.config.streams.filter(|wished| first && !wished.intersects(self.streams)) {
            return self.leave(ClientEnd::NoSuchStream { wished, existing: self.streams });
        }
        self.go_on(now);
    }
}
