//! How fast a viewer that joined in the past catches up with the live edge.

use std::time::{Duration, Instant};

/// The unit in which a burst is metered.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Packets of one tick to a UDP viewer: more overruns the buffers of the machines that still run these players.
const UDP_PACKETS_PER_TICK: u32 = 8;
/// Media time per real time of a UDP viewer that catches up.
const UDP_RATE: u64 = 3;
/// The same over TCP, where the network itself slows a sender down.
const TCP_RATE: u64 = 5;

/// The allowance of one viewer, from its start until it reaches the live edge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    since: Instant,
    first_send_time_ms: u32,
    tick: u64,
    left_in_tick: u32,
    udp: bool,
}

impl Pace {
    /// A viewer that begins at `now` with a packet of this send time.
    pub(super) fn new(now: Instant, first_send_time_ms: u32, udp: bool) -> Self {
        Self { since: now, first_send_time_ms, tick: 0, left_in_tick: Self::per_tick(udp), udp }
    }

    /// Media time per real time.
    pub(super) const fn rate(udp: bool) -> u64 {
        if udp { UDP_RATE } else { TCP_RATE }
    }

    const fn per_tick(udp: bool) -> u32 {
        if udp { UDP_PACKETS_PER_TICK } else { u32::MAX }
    }

    /// Packets that may go now, at most; the next tick brings more.
    pub(super) fn packets(&mut self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.since);
        let tick = u64::try_from(elapsed.as_micros() / TICK.as_micros()).unwrap_or(u64::MAX);
        if tick != self.tick {
            self.tick = tick;
            self.left_in_tick = Self::per_tick(self.udp);
        }
        self.left_in_tick
    }

    /// Whether a packet of this send time may go now.
    ///
    /// One tick is granted ahead, so that the first packets need not wait for one. Send times that run backwards may go.
    pub(super) fn is_due(&self, now: Instant, send_time_ms: u32) -> bool {
        let rate = Self::rate(self.udp);
        let elapsed = now.saturating_duration_since(self.since) + TICK;
        let granted = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(rate);
        let ahead = send_time_ms.wrapping_sub(self.first_send_time_ms);
        // More than half the circle ahead is behind.
        ahead > u32::MAX / 2 || u64::from(ahead) <= granted
    }

    /// Notes that packets went.
    pub(super) fn spend(&mut self, packets: u32) {
        self.left_in_tick = self.left_in_tick.saturating_sub(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Send time of the last packet that went, and packets sent, after `ticks` ticks of a source with a packet a millisecond.
    fn run(udp: bool, ticks: u32) -> (u32, u32) {
        #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000, udp);
        let mut next = 1000;
        for tick in 0..ticks {
            let now = start + TICK * tick;
            while pace.packets(now) > 0 && pace.is_due(now, next) {
                pace.spend(1);
                next += 1;
            }
        }
        (next - 1001, next - 1000)
    }

    #[test]
    fn udp_gets_eight_packets_a_tick() {
        assert_eq!(run(true, 100).1, 800);
    }

    #[test]
    fn tcp_gets_five_times_real_time() {
        let (media_ms, _) = run(false, 100);
        assert_eq!(media_ms, 5 * 1000);
    }

    #[test]
    fn udp_of_few_packets_gets_three_times_real_time() {
        #[expect(clippy::disallowed_methods, reason = "a base for a virtual clock")]
        let start = Instant::now();
        let pace = Pace::new(start, u32::MAX - 50, true);
        assert!(pace.is_due(start, u32::MAX - 50) && pace.is_due(start, u32::MAX - 20));
        assert!(!pace.is_due(start, 100), "send times may wrap");
        assert!(pace.is_due(start + Duration::from_millis(50), 100));
        assert!(pace.is_due(start, u32::MAX - 5000), "backwards may go");
    }
}
