//! When the packets of a file are to go to one viewer.

use std::time::{Duration, Instant};

use super::pace::TICK;
use crate::settings::Settings;
use crate::viewing::Acceleration;

/// Send times that step on or back by more than this may be another clock: longer than this nobody waits for a packet, or it
/// might be for days.
const LEAP_MS: u32 = 5000;
/// What is due waits no longer than this for what is due with it.
const LONGEST_PORTION: Duration = Duration::from_millis(50);
/// Media time per real time of a burst over UDP, at most: more overruns the buffers of old machines.
const UDP_RATE: u32 = 3;
/// Packets to a UDP viewer in a hundredth of a second, at least as many as twice real time takes.
const UDP_PACKETS_PER_TICK: u32 = 8;

/// How fast a player wants a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) acceleration: Option<Acceleration>,
    /// Times real time for all of it.
    pub(super) speed: u8,
}

impl Default for Wish {
    fn default() -> Self {
        Self { acceleration: None, speed: 1 }
    }
}

/// How fast a file goes to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speed {
    /// Media time that goes faster than it plays.
    burst: Duration,
    /// Media time per real time until then, at least 1.
    burst_rate: u32,
    /// The same behind it.
    steady_rate: u32,
    /// Bytes a second, at most; 0: no cap.
    bytes_per_s: u64,
    /// Packets in a [`TICK`], at most.
    packets_per_tick: u32,
}

impl Speed {
    /// By the settings and what the player asked for, for a file of this bit rate in packets of this size.
    pub(super) fn new(settings: &Settings, wish: Wish, udp: bool, bit_rate: u32, packet_size: usize) -> Self {
        let (delivery, cap_kbps) = (&settings.delivery, settings.limits.viewer_kbps);
        let wished = wish.acceleration.map_or((delivery.burst, delivery.burst_rate), |wish| {
            let rate = (wish.bandwidth / bit_rate.max(1)).clamp(1, delivery.burst_rate);
            (delivery.burst.min(Duration::from_millis(wish.duration_ms.into())), rate)
        });
        // No faster than a begin may be: others have a disk and a network too.
        let most = if udp { delivery.burst_rate.min(UDP_RATE) } else { delivery.burst_rate };
        let steady_rate = u32::from(wish.speed).clamp(1, most.max(1));
        let per_tick = u64::from(bit_rate) / 4 / (packet_size.max(1) as u64) / 100;
        let per_tick = u32::try_from(per_tick).unwrap_or(u32::MAX).saturating_add(1).max(UDP_PACKETS_PER_TICK);
        Self {
            burst: wished.0,
            burst_rate: if udp { wished.1.min(UDP_RATE) } else { wished.1 },
            steady_rate,
            bytes_per_s: u64::from(cap_kbps) * 1000 / 8,
            packets_per_tick: if udp { per_tick } else { u32::MAX },
        }
    }

    /// When media of this time is due after the begin.
    fn due(&self, media: Duration) -> Duration {
        let behind = media.saturating_sub(self.burst) / self.steady_rate;
        media.min(self.burst) / self.burst_rate.max(self.steady_rate) + behind
    }
}

/// When what is due in one play of a file.
#[derive(Debug)]
pub(super) struct FilePace {
    speed: Speed,
    begin: Instant,
    /// Media time up to the packet that went last.
    media: Duration,
    /// Its send time; `None` before the first.
    last_ms: Option<u32>,
    sent_bytes: u64,
    tick: u64,
    left_in_tick: u32,
}

impl FilePace {
    /// A play that begins now.
    pub(super) fn new(now: Instant, speed: Speed) -> Self {
        let left_in_tick = speed.packets_per_tick;
        Self { speed, begin: now, media: Duration::ZERO, last_ms: None, sent_bytes: 0, tick: 0, left_in_tick }
    }

    /// When the packet that comes next is due, by its send time, behind so many bytes that are about to go.
    pub(super) fn due(&self, send_time_ms: u32, behind_bytes: usize) -> Instant {
        let by_time = self.speed.due(self.media_at(send_time_ms));
        let by_bytes = match self.speed.bytes_per_s {
            0 => Duration::ZERO,
            rate => Duration::from_micros((self.sent_bytes + behind_bytes as u64).saturating_mul(1_000_000) / rate),
        };
        self.begin + by_time.max(by_bytes)
    }

    /// Notes that it was its turn.
    pub(super) fn passed(&mut self, send_time_ms: u32) {
        self.media = self.media_at(send_time_ms);
        self.last_ms = Some(send_time_ms);
    }

    /// Notes what went.
    pub(super) fn sent(&mut self, packets: u32, bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.left_in_tick = self.left_in_tick.saturating_sub(packets);
    }

    /// Whether a packet has gone before: the first one waits for the disk as a matter of course.
    pub(super) const fn is_under_way(&self) -> bool {
        self.last_ms.is_some()
    }

    /// Packets that may go now, whatever is due.
    pub(super) fn packets(&mut self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.begin);
        let tick = u64::try_from(elapsed.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX);
        if tick != self.tick {
            (self.tick, self.left_in_tick) = (tick, self.speed.packets_per_tick);
        }
        self.left_in_tick
    }

    /// How long to gather what is due: while the burst lasts it goes in small portions.
    pub(super) fn portion(&self, tick: Duration) -> Duration {
        if self.media < self.speed.burst { TICK } else { tick.clamp(TICK, LONGEST_PORTION) }
    }

    fn media_at(&self, send_time_ms: u32) -> Duration {
        let (media, Some(last_ms)) = (self.media, self.last_ms) else { return Duration::ZERO };
        let step = send_time_ms.wrapping_sub(last_ms).cast_signed();
        match (step.unsigned_abs(), step >= 0) {
            (LEAP_MS.., true) => media + Duration::from_millis(LEAP_MS.into()),
            (LEAP_MS.., false) => media,
            (step, true) => media + Duration::from_millis(step.into()),
            (step, false) => media.saturating_sub(Duration::from_millis(step.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    fn speed(udp: bool, wish: Option<Acceleration>, viewer_kbps: u32) -> Speed {
        let mut settings = Settings::default();
        settings.limits.viewer_kbps = viewer_kbps;
        Speed::new(&settings, Wish { acceleration: wish, speed: 1 }, udp, 800_000, 1400)
    }

    /// When each packet of a file goes that has one every 100 ms from `first_ms` on; milliseconds after the begin.
    fn run(speed: Speed, first_ms: u32, packets: u32) -> Vec<u128> {
        let now = base();
        let mut pace = FilePace::new(now, speed);
        let times = (0..packets).map(|n| first_ms.wrapping_add(n * 100));
        times
            .map(|send_time_ms| {
                let due = pace.due(send_time_ms, 0);
                pace.passed(send_time_ms);
                pace.sent(1, 1400);
                (due - now).as_millis()
            })
            .collect()
    }

    #[test]
    fn five_seconds_go_in_one_and_the_lead_stays() {
        for first_ms in [0, 600_000, u32::MAX - 1000] {
            let due = run(speed(false, None, 0), first_ms, 200);
            assert_eq!((due[0], due[10], due[50]), (0, 200, 1000), "{first_ms}");
            assert_eq!((due[60], due[199]), (2000, 15_900));
        }
        let due = run(speed(true, None, 0), 0, 100);
        assert_eq!((due[30], due[60]), (1000, 1666 + 1000));
    }

    #[test]
    fn a_player_may_ask_for_all_of_it_faster() {
        let speed = |speed, udp| Speed::new(&Settings::default(), Wish { acceleration: None, speed }, udp, 800_000, 1400);
        let due = run(speed(2, false), 0, 200);
        assert_eq!((due[50], due[60], due[150]), (1000, 1500, 6000));
        assert_eq!(run(speed(100, false), 0, 200)[150], 3000, "no faster than it begins");
        assert_eq!(run(speed(100, true), 0, 200)[150], 4999);
    }

    #[test]
    fn a_player_may_ask_for_less() {
        let wish = |bandwidth, duration_ms| Some(Acceleration { bandwidth, duration_ms });
        let due = run(speed(false, wish(1_600_000, 2000), 0), 0, 50);
        assert_eq!((due[20], due[30]), (1000, 2000));
        let greedy = run(speed(false, wish(u32::MAX, u32::MAX), 0), 0, 100);
        assert_eq!(greedy, run(speed(false, None, 0), 0, 100));
        // What real players send that do not want any.
        assert_eq!(run(speed(false, wish(0x7FFF_FFFF, 0), 0), 0, 50)[49], 4900);
        assert_eq!(run(speed(false, wish(0, 5000), 0), 0, 50)[49], 4900);
    }

    #[test]
    fn the_cap_holds() {
        // 112 kbit/s of media.
        let due = run(speed(false, None, 56), 0, 100);
        assert_eq!(due[70], 70 * 200);
    }

    #[test]
    fn nobody_waits_for_a_leap() {
        let now = base();
        let mut pace = FilePace::new(now, speed(false, Some(Acceleration { bandwidth: 0, duration_ms: 0 }), 0));
        for (send_time_ms, due_ms) in
            [(0, 0), (1000, 1000), (500, 500), (1500, 1500), (9_000_000, 6500), (9_001_000, 7500), (10, 7500)]
        {
            assert_eq!((pace.due(send_time_ms, 0) - now).as_millis(), due_ms, "{send_time_ms}");
            pace.passed(send_time_ms);
        }
    }

    #[test]
    fn udp_goes_in_small_portions() {
        let now = base();
        let mut pace = FilePace::new(now, speed(true, None, 0));
        assert_eq!(pace.packets(now), 8);
        pace.sent(5, 7000);
        assert_eq!((pace.packets(now), pace.packets(now + TICK)), (3, 8));
        let fast = Speed::new(&Settings::default(), Wish::default(), true, 40_000_000, 1400);
        assert_eq!(FilePace::new(now, fast).packets(now), 72, "twice real time of 3571 packets a second");
        assert_eq!(FilePace::new(now, speed(false, None, 0)).packets(now), u32::MAX);
    }
}
