//! From a source's bytes to the relay, no faster than real time, and with bounds on what a source can make of itself.

use std::borrow::Cow;

use bytes::BytesMut;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::warn;

use super::byte_rate::ByteRate;
use super::lead::Lead;
use super::{file_time, now};
use crate::asf::{self, Event, Header, Reader, StreamError};
use crate::relay::{PublishError, Publisher};

/// While a source is held back, the relay hears so often that it is alive; it takes 2 s of silence for a lost connection.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A publishing point's publisher, with what is between it and raw bytes, or headers and packets that come apart already.
pub(super) struct Feed {
    reader: Reader,
    publisher: Publisher,
    lead: Lead,
    byte_rate: ByteRate,
    is_paced: bool,
    header: Option<Header>,
    /// It was told that headers come too soon.
    told: bool,
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

/// How a publisher's stream ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reason: Cow<'static, str>,
    is_fault: bool,
}

impl Ended {
    /// As the publisher, or the daemon, wanted.
    pub(super) fn wanted(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), is_fault: false }
    }

    /// In another way.
    pub(super) fn failed(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), is_fault: true }
    }

    /// Lets the publishing point know of a fault, if nobody else feeds it by now.
    pub(super) fn note(&self, feed: &Feed) {
        if self.is_fault && feed.is_current() {
            feed.publisher.point().source_failed(now(), &self.reason);
        }
    }
}

impl Feed {
    pub(super) fn new(publisher: Publisher) -> Self {
        let (reader, lead, byte_rate) = (Reader::new(), Lead::default(), ByteRate::new());
        Self { reader, publisher, lead, byte_rate, is_paced: true, header: None, told: false, tally: Tally::default() }
    }

    /// Whether it still has the right to feed; asked, it counts as a sign of life.
    pub(super) fn is_current(&self) -> bool {
        self.publisher.alive(now()).is_ok()
    }

    /// The stream ends at once: nobody watches, or its encoder says so.
    pub(super) fn end(self) {
        self.publisher.end(now());
    }

    /// Whether the stream's header is still missing.
    pub(super) const fn lacks_header(&self) -> bool {
        self.header.is_none()
    }

    /// Takes bytes in; returns when they may be followed by more, which takes a while if the source runs ahead.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) -> Result<Flow, FeedError> {
        self.tally.bytes += bytes.len() as u64;
        self.publisher.alive(now())?;
        self.reader.feed(bytes);
        let flow = self.pump().await?;
        let wait = self.byte_rate.take(now(), bytes.len());
        self.hold(wait).await?;
        Ok(flow)
    }

    /// No more bytes come.
    pub(super) async fn finish(&mut self) -> Result<Flow, FeedError> {
        self.reader.finish();
        self.pump().await
    }

    /// Whether packets are held to real time; without that, only a flood of bytes is.
    pub(super) const fn pace(&mut self, is_paced: bool) {
        self.is_paced = is_paced;
    }

    /// Whether a header goes on with the stream that is there.
    pub(super) fn is_continued_by(&self, header: &Header) -> bool {
        self.header.as_ref().is_some_and(|last| header.continues(last))
    }

    /// Takes a header in; returns when packets of it may follow.
    pub(super) async fn header(&mut self, header: Header) -> Result<(), FeedError> {
        let wait = self.publisher.header_wait(now(), &header)?;
        if !wait.is_zero() && !std::mem::replace(&mut self.told, true) {
            warn!(wait_s = wait.as_secs_f32(), "another header comes so soon that it is held back, and so is the stream");
        }
        self.hold(wait).await?;
        self.publisher.header(now(), file_time(), &header)?;
        // The same header again gives nobody another lead.
        if self.is_continued_by(&header) {
            self.lead.restart();
        } else {
            self.lead = Lead::default();
        }
        self.byte_rate.set_bit_rate(header.bit_rate());
        self.header = Some(header);
        Ok(())
    }

    /// Takes whole packets in that belong to the last header; returns when more may follow, as [`Feed::bytes`] does.
    pub(super) async fn whole_packets(&mut self, packets: BytesMut) -> Result<(), FeedError> {
        let len = packets.len();
        self.tally.bytes += len as u64;
        self.packets(packets).await?;
        let wait = self.byte_rate.take(now(), len);
        self.hold(wait).await
    }

    async fn pump(&mut self) -> Result<Flow, FeedError> {
        while let Some(event) = self.reader.poll() {
            match event? {
                Event::Header(header) => self.header(header).await?,
                Event::Packets(packets) => self.packets(packets).await?,
                Event::End => return Ok(Flow::Ended),
            }
        }
        Ok(Flow::More)
    }

    async fn packets(&mut self, mut packets: BytesMut) -> Result<(), FeedError> {
        let Some(size) = self.header.as_ref().map(Header::packet_size) else { return Ok(()) };
        loop {
            let now = now();
            let (mut count, mut wait) = (0, None);
            for packet in packets.chunks_exact(size) {
                // What no walk accepts is counted and dropped by the publisher; it has no time to wait for.
                let walked = if self.is_paced { asf::walk(packet).ok() } else { None };
                let held = walked.and_then(|info| self.lead.check(now, info.send_time_ms).err());
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
            self.hold(wait).await?;
        }
    }

    /// Lets the source wait.
    async fn hold(&self, wait: Duration) -> Result<(), FeedError> {
        if wait.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + wait;
        while timeout(SIGN_OF_LIFE, sleep_until(until)).await.is_err() {
            self.publisher.alive(now())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::chunk::{ChunkHead, ChunkKind};
    use crate::asf::samples;
    use crate::ingest::testing;
    use crate::relay::{PublisherId, Relay};
    use crate::settings::Source;
    use std::sync::Arc;

    /// Two streams that no player takes for one.
    const ONE: &str = "live-asf-pipe.asf";
    const OTHER: &str = "audio-wmav2.wma";

    fn feed(relay: &Arc<Relay>) -> Feed {
        Feed::new(relay.publish(now(), "cam", PublisherId::Local).unwrap())
    }

    fn relay() -> (Arc<Relay>, Arc<testing::Collector>) {
        testing::collecting(&[("cam", Source::Push)])
    }

    fn chunk(kind: ChunkKind, bytes: &[u8]) -> Vec<u8> {
        let head = ChunkHead { kind, more: false, len: u16::try_from(bytes.len()).unwrap() };
        [head.write().as_slice(), bytes].concat()
    }

    /// A header in a chunk, as encoders send it.
    fn header(name: &str) -> Vec<u8> {
        let (header, _) = samples::stream(name);
        let len = header.bytes().len() + 50;
        chunk(ChunkKind::Header, &samples::bytes(name)[..len])
    }

    async fn seconds(work: impl Future<Output = ()>) -> f64 {
        let start = Instant::now();
        work.await;
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_packets_without_time_is_held_back() {
        let (relay, collector) = relay();
        let mut feed = feed(&relay);
        feed.bytes(&header(ONE)).await.unwrap();
        // The same packet over and over: no time passes in it, so the lead does not hold it.
        let packet = chunk(ChunkKind::Data, &samples::stream(ONE).1[0]);
        let took = seconds(async {
            for _ in 0..8_000_000 / packet.len() {
                assert_eq!(feed.bytes(&packet).await.unwrap(), Flow::More);
            }
        });
        let took = took.await;
        assert!((1.9..2.1).contains(&took), "8 MB at 2 MB/s, of which 4 MB at once: {took}");
        assert_eq!(collector.packets().len(), 8_000_000 / packet.len(), "held back, not refused");
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_differ_come_five_seconds_apart() {
        let (relay, collector) = relay();
        let (one, other) = (header(ONE), header(OTHER));
        let mut first = feed(&relay);
        let took = seconds(async {
            first.bytes(&one).await.unwrap();
            first.bytes(&one).await.unwrap();
        });
        assert!(took.await < 0.1, "the same header is no change");
        let took = seconds(async {
            first.bytes(&other).await.unwrap();
        });
        assert!((4.9..5.1).contains(&took.await));
        // A new connection does not begin anew.
        drop(first);
        let mut second = feed(&relay);
        let took = seconds(async {
            second.bytes(&one).await.unwrap();
        });
        assert!((4.9..5.1).contains(&took.await));
        assert_eq!(collector.generations(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn short_clips_with_a_header_each_are_held_to_real_time() {
        let (relay, _) = relay();
        let (header, packets) = (header(ONE), samples::stream(ONE).1);
        // A second of media, thirty times.
        let send_time_ms = |packet: &Vec<u8>| asf::send_time_ms(packet).unwrap();
        let end = packets.iter().position(|packet| send_time_ms(packet) > send_time_ms(&packets[0]) + 1000).unwrap();
        let mut feed = feed(&relay);
        let took = seconds(async {
            for _ in 0..30 {
                feed.bytes(&header).await.unwrap();
                for packet in &packets[..end] {
                    feed.bytes(&chunk(ChunkKind::Data, packet)).await.unwrap();
                }
            }
        });
        let took = took.await;
        assert!((26.0..29.0).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_continues_gives_no_new_lead() {
        let (relay, _) = relay();
        let (header, packets) = (header(ONE), samples::stream(ONE).1);
        let mut feed = feed(&relay);
        let took = seconds(async {
            for packet in &packets {
                feed.bytes(&header).await.unwrap();
                feed.bytes(&chunk(ChunkKind::Data, packet)).await.unwrap();
            }
        });
        let took = took.await;
        // Ten seconds, of which two are the lead.
        assert!((7.0..9.0).contains(&took), "{took}");
    }
}
