//! Holds back sources that run ahead of real time.

use std::time::{Duration, Instant};

/// So far a source may be ahead of the clock.
const LEAD_US: i64 = 2_000_000;
/// A source that fell behind may make up for so much at once.
const CREDIT_US: i64 = 10_000_000;
/// Our clock against the source's, in thousandths: a little fast, so that the drift between two crystals never adds up to a wait.
const RATE: i64 = 1005;
/// A step of the send time over this is another timeline, not media.
const LEAP_MS: i32 = 5000;
/// Shorter waits are not worth waking up for.
const SHORTEST_WAIT: Duration = Duration::from_millis(20);

/// Compares a source's send times with the clock, packet by packet.
///
/// A live encoder is never held; a file sent as fast as the network takes it is held to 1.005 × real time, 2 s ahead.
#[derive(Debug, Default)]
pub(super) struct Lead {
    clock: Option<Clock>,
}

#[derive(Debug)]
struct Clock {
    checked: Instant,
    /// How far our clock is, µs of media time since the first packet.
    ours_us: i64,
    /// How far the source is.
    source_us: i64,
    /// Of the last packet.
    send_time_ms: Option<u32>,
    /// The next packet may begin a clip of its own.
    anew: bool,
}

impl Lead {
    /// The next packet may begin anew, on a clock that is behind this one: it goes on from here.
    ///
    /// Without that a short clip, over and over, would be a source that steps back each time, and never be held.
    pub(super) const fn restart(&mut self) {
        if let Some(clock) = &mut self.clock {
            clock.anew = true;
        }
    }

    /// Whether a packet with this send time may go now; else how long to wait before asking again.
    pub(super) fn check(&mut self, now: Instant, send_time_ms: u32) -> Result<(), Duration> {
        let clock = self.clock.get_or_insert(Clock { checked: now, ours_us: 0, source_us: 0, send_time_ms: None, anew: false });
        let passed = i64::try_from(now.saturating_duration_since(clock.checked).as_micros()).unwrap_or(i64::MAX);
        clock.checked = now;
        clock.ours_us = clock.ours_us.saturating_add(passed.saturating_mul(RATE) / 1000).min(clock.source_us + CREDIT_US);

        // Send times wrap; the nearer way round is meant.
        let step_ms = clock.send_time_ms.map_or(0, |last| send_time_ms.wrapping_sub(last).cast_signed());
        let step_ms = if step_ms.saturating_abs() > LEAP_MS { 0 } else { step_ms };
        let step_ms = if clock.anew { step_ms.max(0) } else { step_ms };
        let source_us = clock.source_us + i64::from(step_ms) * 1000;
        let ahead_us = source_us - clock.ours_us - LEAD_US;
        match u64::try_from(ahead_us) {
            Ok(ahead_us) if ahead_us > 0 => Err(Duration::from_micros(ahead_us).max(SHORTEST_WAIT)),
            _ => {
                (clock.source_us, clock.send_time_ms, clock.anew) = (source_us, Some(send_time_ms), false);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Sends packets 40 ms apart as fast as they may go; returns how long it took.
    fn send(lead: &mut Lead, mut now: Instant, first_ms: u32, packets: u32) -> Duration {
        let start = now;
        for index in 0..packets {
            while let Err(wait) = lead.check(now, first_ms.wrapping_add(index * 40)) {
                assert!(wait <= Duration::from_secs(5), "{wait:?}");
                now += wait;
            }
        }
        now - start
    }

    #[test]
    fn a_file_is_held_to_real_time() {
        let took = send(&mut Lead::default(), start(), 0xFFFF_F000, 2501);
        // 100 s of media, of which 2 s are the lead.
        assert!((97.0..=98.1).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn a_live_source_is_never_held() {
        let (mut lead, start) = (Lead::default(), start());
        for index in 0..1_000_000_u32 {
            // Its clock is 0.1 % fast, and its packets come in bursts of ten.
            let sent = start + Duration::from_micros(u64::from(index / 10) * 10 * 39_960);
            assert_eq!(lead.check(sent, index * 40), Ok(()), "{index}");
        }
    }

    #[test]
    fn a_stall_is_made_up_for_at_once() {
        let (mut lead, start) = (Lead::default(), start());
        assert_eq!(lead.check(start, 0), Ok(()));
        assert_eq!(send(&mut lead, start + Duration::from_secs(8), 40, 240), Duration::ZERO);
        // But not for hours of silence.
        let later = start + Duration::from_secs(3600);
        assert!(send(&mut lead, later, 9680, 1000) > Duration::from_secs(25));
    }

    #[test]
    fn a_short_file_over_and_over_is_held_to_real_time() {
        let (mut lead, mut now) = (Lead::default(), start());
        let begin = now;
        for _ in 0..25 {
            lead.restart();
            now += send(&mut lead, now, 0, 101);
        }
        let took = now - begin;
        assert!((97.0..=98.1).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[test]
    fn leaps_do_not_hold() {
        let (mut lead, start) = (Lead::default(), start());
        for time in [0, 3_600_000, 5, 0x8000_0005] {
            assert_eq!(lead.check(start, time), Ok(()), "{time}");
        }
    }
}
