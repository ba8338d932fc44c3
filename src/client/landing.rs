//! Where in the content a StartPlaying led.

use std::collections::BTreeMap;

use crate::asf::{Header, StreamSet, payloads};

/// The key frame is among the first packets, or the server does not know better.
const PACKETS_LOOKED_AT: u32 = 4096;

/// The first packet of a play and what it shows first; packets may come in any order.
#[derive(Debug, Default)]
pub(super) struct Landing {
    preroll_ms: u32,
    video: StreamSet,
    seen: u32,
    first: Option<First>,
    /// First payload of all, and the first key frame of each video stream: sequence number and presentation time.
    payload: Option<(u32, u32)>,
    keys: BTreeMap<u8, (u32, u32)>,
    has_video: bool,
}

/// The first packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    sequence: u32,
    pub(super) location: u32,
    pub(super) send_time_ms: Option<u32>,
}

impl Landing {
    /// The packets from here on belong to this header.
    pub(super) fn header(&mut self, header: &[u8]) {
        // The engine hands on no header that does not parse.
        let Ok(header) = Header::parse(header) else { return };
        *self = Self { preroll_ms: header.preroll_ms(), video: header.video(), ..Self::default() };
    }

    /// The packets from here on are of another play.
    pub(super) fn restart(&mut self) {
        *self = Self { preroll_ms: self.preroll_ms, video: self.video, ..Self::default() };
    }

    pub(super) fn packet(&mut self, location: u32, sequence: u32, packet: &[u8]) {
        if self.seen == PACKETS_LOOKED_AT {
            return;
        }
        self.seen += 1;
        if self.first.is_none_or(|first| sequence < first.sequence) {
            self.first = Some(First { sequence, location, send_time_ms: crate::asf::send_time_ms(packet) });
        }
        let earliest = |place: &mut (u32, u32), ms: u32| {
            if sequence < place.0 {
                *place = (sequence, ms);
            }
        };
        for payload in payloads(packet).into_iter().flatten() {
            let ms = payload.presentation_ms;
            earliest(self.payload.get_or_insert((sequence, ms)), ms);
            if self.video.contains(payload.stream) {
                self.has_video = true;
                if payload.key && payload.offset == 0 {
                    earliest(self.keys.entry(payload.stream).or_insert((sequence, ms)), ms);
                }
            }
        }
    }

    pub(super) const fn first(&self) -> Option<First> {
        self.first
    }

    /// When the first key frame of the lowest video stream that came is shown, or the first payload where there came no video;
    /// milliseconds of content.
    pub(super) fn presentation_ms(&self) -> Option<i64> {
        let place = if self.has_video { self.keys.values().next().copied() } else { self.payload };
        place.map(|(_, ms)| i64::from(ms) - i64::from(self.preroll_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::samples;

    #[test]
    fn the_first_key_frame_in_any_order() {
        let (header, packets) = samples::stream("live-asf-pipe.asf");
        let mut landing = Landing::default();
        landing.header(header.bytes());
        assert!(landing.first().is_none() && landing.presentation_ms().is_none());
        let numbered: Vec<(u32, &Vec<u8>)> = (100..).zip(&packets).collect();
        numbered.iter().for_each(|(n, packet)| landing.packet(*n, *n, packet));
        let (first, ms) = (landing.first().unwrap(), landing.presentation_ms().unwrap());
        assert_eq!((first.location, first.send_time_ms), (100, crate::asf::send_time_ms(&packets[0])));
        assert!((0..2000).contains(&ms), "{ms}");
        landing.restart();
        numbered.iter().rev().for_each(|(n, packet)| landing.packet(*n, *n, packet));
        assert_eq!((landing.first().unwrap().location, landing.presentation_ms()), (100, Some(ms)));
        // Later than the first key frame: the next one counts.
        landing.restart();
        let half = numbered.len() / 2;
        numbered[half..].iter().for_each(|(n, packet)| landing.packet(*n, *n, packet));
        assert!(landing.presentation_ms().unwrap() > ms + 1000);
    }

    #[test]
    fn sound_alone_begins_with_its_first_payload() {
        let (header, packets) = samples::stream("audio-wmav2.wma");
        let mut landing = Landing::default();
        landing.header(header.bytes());
        packets.iter().zip(0..).for_each(|(packet, n)| landing.packet(n, n, packet));
        assert_eq!(landing.presentation_ms(), Some(0));
    }
}
