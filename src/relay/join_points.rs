//! Where viewers may begin.

use crate::asf::{KEYLESS_MS, PacketInfo, StreamSet};

/// A video stream whose key frames stay away for so long lets another one tell the join points.
const LEADER_GONE_MS: u32 = 20_000;

/// Without key frames, how often a packet stands in for one.
const STAND_IN_MS: u32 = 1000;

/// Tells the join points of one generation.
///
/// With video, these are the packets in which a key frame of the leading stream starts: of several video streams
/// the lowest that has key frames, as viewers then see all of them from somewhere near. Without video, every packet.
/// Video that never marks a key frame, as encoders with a rolling refresh make it, gets a stand-in a second.
#[derive(Debug)]
pub struct JoinPoints {
    video: StreamSet,
    leader: Option<u8>,
    /// The last key frame of the leader; the last stand-in without one; the first packet before either. `None` where a
    /// stand-in is due.
    last_ms: Option<u32>,
    keyless: bool,
}

impl JoinPoints {
    /// For a generation with these video streams.
    pub fn new(video: StreamSet) -> Self {
        Self { video, leader: None, last_ms: None, keyless: false }
    }

    /// The next packet with video stands in for a key frame, unless there was one: it is known of the stream that this one is
    /// cut from that it has none.
    pub const fn stand_in(&mut self) {
        if self.leader.is_none() {
            self.keyless = true;
            self.last_ms = None;
        }
    }

    /// Whether a viewer may begin with this packet.
    pub fn notes(&mut self, packet: &PacketInfo) -> bool {
        if self.video.is_empty() {
            return true;
        }
        let now_ms = packet.send_time_ms;
        let since_ms = match self.last_ms {
            None if self.keyless => STAND_IN_MS,
            last_ms => now_ms.saturating_sub(last_ms.unwrap_or(now_ms)),
        };
        if !self.keyless {
            self.last_ms.get_or_insert(now_ms);
        }
        let starts = packet.key_starts.intersects(self.video);
        let key = starts.then(|| packet.key_starts.iter().find(|stream| self.video.contains(*stream))).flatten();
        if let Some(stream) = key {
            let leads = self.leader.is_none_or(|leader| stream <= leader || since_ms > LEADER_GONE_MS);
            if leads {
                self.leader = Some(stream);
                self.last_ms = Some(now_ms);
            }
            return leads;
        }
        let patience_ms = if self.keyless { STAND_IN_MS } else { KEYLESS_MS };
        if self.leader.is_none() && since_ms >= patience_ms && packet.streams.intersects(self.video) {
            self.keyless = true;
            self.last_ms = Some(now_ms);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(streams: &[u8]) -> StreamSet {
        streams.iter().copied().collect()
    }

    fn packet(send_time_ms: u32, streams: &[u8], key_starts: &[u8]) -> PacketInfo {
        let (streams, key_starts) = (set(streams), set(key_starts));
        let first_presentation_ms = send_time_ms;
        PacketInfo {
            send_time_ms,
            duration_ms: 0,
            used_len: 30,
            streams,
            key_starts,
            key: false,
            first_presentation_ms,
            payloads: 1,
        }
    }

    #[test]
    fn audio_begins_anywhere() {
        let mut joins = JoinPoints::new(StreamSet::EMPTY);
        assert!(joins.notes(&packet(0, &[1], &[])) && joins.notes(&packet(1, &[1], &[])));
    }

    #[test]
    fn video_begins_at_its_key_frames() {
        let mut joins = JoinPoints::new(set(&[2]));
        let noted = [packet(0, &[1, 2], &[]), packet(10, &[1], &[1]), packet(20, &[2], &[2]), packet(30, &[2], &[])];
        assert_eq!(noted.map(|packet| joins.notes(&packet)), [false, false, true, false]);
    }

    #[test]
    fn the_lowest_video_stream_leads_while_it_has_key_frames() {
        let mut joins = JoinPoints::new(set(&[1, 2]));
        let mut joined = |ms, keys: &[u8]| joins.notes(&packet(ms, &[1, 2], keys));
        assert!(joined(0, &[2]), "nothing better so far");
        assert!(joined(10, &[2]) && joined(20, &[1]));
        assert!(!joined(30, &[2]) && joined(1000, &[1, 2]));
        assert!(!joined(21_000, &[2]));
        assert!(joined(21_001, &[2]), "stream 1 is gone");
        assert!(joined(22_000, &[2]) && joined(23_000, &[1]) && !joined(24_000, &[2]));
    }

    #[test]
    fn video_without_key_frames_gets_stand_ins() {
        let mut joins = JoinPoints::new(set(&[1]));
        let joined: Vec<u32> = (0..400).map(|i| 5000 + i * 100).filter(|ms| joins.notes(&packet(*ms, &[1], &[]))).collect();
        assert_eq!(joined, (35..45).map(|s| s * 1000).collect::<Vec<_>>());
        assert!(joins.notes(&packet(45_050, &[1], &[1])));
        assert!(!joins.notes(&packet(90_000, &[1], &[])), "a stream that has key frames is worth the wait");
    }

    #[test]
    fn a_cut_of_video_without_key_frames_gets_its_stand_ins() {
        let mut joins = JoinPoints::new(set(&[2]));
        assert!(!joins.notes(&packet(5000, &[2, 3], &[])), "nobody knows yet");
        joins.stand_in();
        let noted = [(5010, 3), (5020, 2), (5030, 2), (6010, 2), (6020, 2)];
        let noted = noted.map(|(ms, stream)| joins.notes(&packet(ms, &[stream], &[])));
        assert_eq!(noted, [false, true, false, false, true], "the next with video, then one a second");
        joins.stand_in();
        assert!(joins.notes(&packet(6030, &[2], &[])) && joins.notes(&packet(6040, &[2], &[2])));
        joins.stand_in();
        assert!(!joins.notes(&packet(9000, &[2], &[])), "a stream that has key frames is worth the wait");
    }
}
