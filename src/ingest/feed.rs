//! From a source's bytes to the relay, no faster than real time.

use bytes::BytesMut;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::lead::Lead;
use super::{file_time, now};
use crate::asf::{self, Event, Reader, StreamError};
use crate::relay::{PublishError, Publisher};

/// While a source is held back, the relay hears so often that it is alive; it takes 2 s of silence for a lost connection.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A publishing point's publisher, with what is between it and raw bytes.
pub(super) struct Feed {
    reader: Reader,
    publisher: Publisher,
    lead: Lead,
    packet_size: Option<usize>,
    pub(super) tally: Tally,
}

/// What a source has brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) invalid: u64,
}

/// Whether more bytes are of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    More,
    /// The source said that it is at its end.
    Ended,
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl Feed {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self { reader: Reader::new(), publisher, lead: Lead::default(), packet_size: None, tally: Tally::default() }
    }

    /// Whether the stream's header is still missing.
    pub(super) const fn lacks_header(&self) -> bool {
        self.packet_size.is_none()
    }

    /// Takes bytes in; returns when they may be followed by more, which takes a while if the source runs ahead.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Result<Flow, FeedError> {
        self.tally.bytes += bytes.len() as u64;
        self.publisher.alive(now())?;
        self.reader.feed(bytes);
        self.pump().await
    }

    /// No more bytes come.
    pub(super) async fn finish(&mut self) -> Result<Flow, FeedError> {
        self.reader.finish();
        self.pump().await
    }

    async fn pump(&mut self) -> Result<Flow, FeedError> {
        while let Some(event) = self.reader.poll() {
            match event? {
                Event::Header(header) => {
                    self.publisher.header(now(), file_time(), &header)?;
                    self.packet_size = Some(header.packet_size());
                    self.lead = Lead::default();
                }
                Event::Packets(packets) => self.packets(packets).await?,
                Event::End => return Ok(Flow::Ended),
            }
        }
        Ok(Flow::More)
    }

    async fn packets(&mut self, mut packets: BytesMut) -> Result<(), FeedError> {
        let Some(size) = self.packet_size else { return Ok(()) };
        loop {
            let now = now();
            let (mut count, mut wait) = (0, None);
            for packet in packets.chunks_exact(size) {
                // What no walk accepts is counted and dropped by the publisher; it has no time to wait for.
                let held = asf::walk(packet).ok().and_then(|info| self.lead.check(now, info.send_time_ms).err());
                if held.is_some() {
                    wait = held;
                    break;
                }
                count += 1;
            }
            if count > 0 {
                let accepted = self.publisher.packets(now, packets.split_to(count * size))?;
                self.tally.packets += accepted.packets;
                self.tally.invalid += accepted.invalid;
            }
            let Some(wait) = wait else { return Ok(()) };
            let until = Instant::now() + wait;
            while timeout(SIGN_OF_LIFE, sleep_until(until)).await.is_err() {
                self.publisher.alive(super::now())?;
            }
        }
    }
}
