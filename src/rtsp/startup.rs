//! What a player is told of the begin of a stream that is sent faster than it plays, so that it knows how much to buffer.

use std::fmt::Write as _;

use crate::asf::{StreamSet, payloads};

/// Speeds of the path that the profile is for, in tenths of the stream's rate. Source: MS-WMSP 2.2.1.12.
const TENTHS: [u64; 5] = [10, 12, 15, 20, 30];

/// The begin of a broadcast, packet by packet.
///
/// Source: MS-RTSP 3.2.7.7.
#[derive(Debug)]
pub struct StartupProfile {
    streams: StreamSet,
    video: StreamSet,
    /// Bytes a second of the streams together.
    rate: u64,
    limit_ms: u64,
    /// Send time of the packet with which it begins.
    first_ms: Option<u64>,
    last_send_ms: u64,
    /// Presentation times: the earliest, and the latest so far.
    presented: Option<(u64, u64)>,
    bytes: u64,
    points: [Point; TENTHS.len()],
    /// Where sound is furthest behind the pictures before it, and by how much.
    furthest: (u64, i64),
}

/// What has to be buffered at most on a path of one speed.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    bytes: u64,
    time_ms: u64,
    byte_rate: u64,
}

impl StartupProfile {
    /// Of these streams, some of which may be `video`, with a rate in bit/s. Packets behind `limit_ms` of send time do not count.
    pub fn new(streams: StreamSet, video: StreamSet, bit_rate: u32, limit_ms: u32) -> Self {
        Self {
            streams,
            video: video.intersection(streams),
            rate: u64::from(bit_rate) / 8,
            limit_ms: limit_ms.into(),
            first_ms: None,
            last_send_ms: 0,
            presented: None,
            bytes: 0,
            points: Default::default(),
            furthest: (0, 0),
        }
    }

    /// Takes the next packet in; false where it is too late for the profile. What is no ASF packet counts for nothing.
    pub fn push(&mut self, packet: &[u8], send_time_ms: u32) -> bool {
        let sent_ms = u64::from(send_time_ms);
        if self.first_ms.is_some_and(|first| sent_ms > first + self.limit_ms) {
            return false;
        }
        let Ok(payloads) = payloads(packet) else { return true };
        for payload in payloads.filter(|payload| payload.offset == 0) {
            if !self.streams.contains(payload.stream) {
                continue;
            }
            let is_video = self.video.contains(payload.stream);
            if self.first_ms.is_none() && !(self.video.is_empty() || is_video && payload.key) {
                continue;
            }
            let size = u64::from(payload.object_size).max(payload.data.len() as u64);
            self.object(is_video, size, payload.presentation_ms.into(), sent_ms);
        }
        true
    }

    fn object(&mut self, is_video: bool, size: u64, presented_ms: u64, sent_ms: u64) {
        let first_ms = *self.first_ms.get_or_insert(sent_ms);
        let (earliest, latest) =
            self.presented.map_or((presented_ms, presented_ms), |(earliest, latest)| (earliest.min(presented_ms), latest));
        let mut latest = latest;
        if !is_video && !self.video.is_empty() && self.last_send_ms != 0 {
            let behind = signed(latest) - signed(presented_ms);
            if behind > 0 && behind > self.furthest.1 {
                self.furthest = (presented_ms, behind + signed(self.last_send_ms) - signed(sent_ms));
            }
        }
        self.last_send_ms = sent_ms;
        if is_video || self.video.is_empty() {
            let took_ms = sent_ms.saturating_sub(first_ms);
            let seen = ((self.bytes + size) * 1000).checked_div(took_ms).unwrap_or(0);
            let rate = if (1..=self.rate).contains(&seen) { seen } else { self.rate };
            if presented_ms > latest {
                let played_ms = latest - earliest;
                let played = played_ms * rate / 1000;
                for (point, tenths) in self.points.iter_mut().zip(TENTHS) {
                    let under = self.bytes.saturating_sub(played * tenths / 10);
                    if under > point.bytes {
                        *point = Point { bytes: under, time_ms: played_ms, byte_rate: rate };
                    }
                }
                latest = presented_ms;
            }
        }
        let since_ms = presented_ms - earliest;
        if self.points.first().is_some_and(|point| point.time_ms == since_ms) {
            self.points.iter_mut().filter(|point| point.time_ms == since_ms).for_each(|point| point.bytes += size);
        }
        self.bytes += size;
        self.presented = Some((earliest, latest));
    }

    /// The value of `X-StartupProfile`; nothing where no packet counted.
    pub fn header(&self) -> Option<String> {
        let (earliest, latest) = self.presented?;
        let list = |of: fn(&Point) -> u64| self.points.iter().map(|point| of(point).to_string()).collect::<Vec<_>>().join(",");
        let mut text = format!("Rate={};", TENTHS.map(|tenths| tenths.to_string()).join(","));
        let (at, furthest_ms) = self.furthest;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "MaxBytes={};Time={};StartTime={earliest};LastTime={};MaxDiffTime={};MaxDiffSndTime={furthest_ms};ByteRate={};",
            list(|point| point.bytes),
            list(|point| point.time_ms),
            latest - earliest,
            at.saturating_sub(earliest),
            list(|point| point.byte_rate),
        );
        Some(text)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::{StreamKind, samples, walk};

    #[test]
    fn objects_by_hand() {
        // Pictures of 1000 bytes every 100 ms at 10,000 bytes a second, the first of 5000; sound that lags by 300 ms.
        let mut profile = StartupProfile::new([1, 2].into_iter().collect(), [1].into_iter().collect(), 80_000, 5000);
        profile.object(true, 5000, 3000, 1000);
        profile.object(true, 1000, 3100, 1500);
        profile.object(false, 100, 2950, 1550);
        profile.object(true, 1000, 3200, 1600);
        // The first picture and the sound of its time: no later moment needs more.
        assert_eq!(
            profile.header().as_deref(),
            Some(
                "Rate=10,12,15,20,30;MaxBytes=5100,5100,5100,5100,5100;Time=0,0,0,0,0;StartTime=2950;LastTime=250;MaxDiffTime=0;\
                 MaxDiffSndTime=100;ByteRate=0,0,0,0,0;"
            )
        );
        // A large picture: 16,100 bytes are in when the next one comes, and 350 ms are played.
        profile.object(true, 9000, 3300, 1700);
        profile.object(true, 1000, 3400, 1800);
        assert_eq!(
            profile.header().as_deref(),
            Some(
                "Rate=10,12,15,20,30;MaxBytes=12600,11900,10850,9100,5600;Time=350,350,350,350,350;StartTime=2950;LastTime=450;\
                 MaxDiffTime=0;MaxDiffSndTime=100;ByteRate=10000,10000,10000,10000,10000;"
            )
        );
    }

    #[test]
    fn a_broadcast_begins_with_a_key_frame_and_ends_with_the_limit() {
        let (header, packets) = samples::stream("h264-aac-nobframes.asf");
        let streams: Vec<_> = header.streams().iter().map(|stream| (stream.number, stream.kind == StreamKind::Video)).collect();
        let of = |wanted: bool| streams.iter().filter(|(_, video)| *video || !wanted).map(|(number, _)| *number).collect();
        let mut whole = StartupProfile::new(of(false), of(true), header.bit_rate(), u32::MAX);
        assert!(packets.iter().all(|packet| whole.push(packet, walk(packet).unwrap().send_time_ms)));
        assert!(whole.header().unwrap().contains(";Time=") && whole.bytes > 0);
        let mut profile = StartupProfile::new([1].into_iter().collect(), [1].into_iter().collect(), 80_000, 100);
        assert!(profile.push(b"no packet", 0) && profile.header().is_none());
        profile.object(true, 10, 0, 500);
        assert!(profile.push(b"still", 600) && !profile.push(b"late", 601));
    }
}
