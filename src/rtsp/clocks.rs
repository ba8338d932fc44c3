//! One axis of time for the tracks of a sender, such as a camera: their own timestamps, put side by side, held to our clock.
//!
//! Each track counts on a clock of its own from an arbitrary beginning. Until sender reports come, a track begins when its first frame
//! arrives; from then on the tracks lie as the reports say, which name one instant on both. Within a track times are the camera's, never
//! those of arrival, so that the network's unrest is none of the pictures'.
//!
//! No two clocks run alike. How late the earliest frames of a while come tells how far the camera's has run away: over 20 ms, all
//! tracks together are moved by up to 0.5 % of real time until it is made up for.
//!
//! Source: RFC 3550 5.1, 6.4.1.

use std::time::{Duration, Instant};

use super::payload::SenderReport;

/// A step of a camera's clock against ours beyond which it is another clock.
const LEAP_MS: i64 = 5000;
/// Where a clock began anew, frames may be so far ahead of their arrival, or behind, as they were before.
const RESTART_MS: i64 = 1000;
/// How long the earliest frame is looked for.
const SPAN: Duration = Duration::from_secs(10);
/// The camera's clock may be off by so much.
const SLACK_MS: i64 = 20;
/// A millisecond is made up for in so much time.
const STEP: Duration = Duration::from_millis(200);

/// The tracks of a session.
#[derive(Debug)]
pub(super) struct Clocks {
    began: Option<Instant>,
    tracks: Vec<Track>,
    drift: Drift,
}

#[derive(Debug)]
struct Track {
    clock_hz: u32,
    /// The last timestamp, and what that is without its wrap.
    last: Option<(u32, i64)>,
    /// From its own milliseconds to those of all.
    offset_ms: Option<i64>,
    /// What the offset is on its way to, by the reports.
    wanted_ms: Option<i64>,
    /// How long before its time the last frame came, milliseconds.
    ahead_ms: i64,
    /// Its last report: when that was on its own clock, and on the camera's, milliseconds.
    report: Option<(i64, i64)>,
}

/// How far the camera's clock has run away from ours.
#[derive(Debug, Default)]
struct Drift {
    /// The first span is over: what a camera had stored comes at once, and says nothing.
    is_settled: bool,
    /// How late the earliest frame of the second span came, milliseconds.
    usual_ms: Option<i64>,
    /// The present span: when it began, and how late its earliest frame came.
    span: Option<(Instant, i64)>,
    correction_ms: i64,
    goal_ms: i64,
    stepped: Option<Instant>,
}

impl Clocks {
    pub(super) fn new(clocks_hz: impl Iterator<Item = u32>) -> Self {
        let track = |clock_hz: u32| Track {
            clock_hz: clock_hz.max(1),
            last: None,
            offset_ms: None,
            wanted_ms: None,
            ahead_ms: 0,
            report: None,
        };
        Self { began: None, tracks: clocks_hz.map(track).collect(), drift: Drift::default() }
    }

    /// Where a frame belongs, milliseconds from the session's beginning. `restarts`: its track's clock began anew with it.
    pub(super) fn place(&mut self, now: Instant, track: usize, timestamp: u32, restarts: bool) -> u64 {
        let began = *self.began.get_or_insert(now);
        let arrived_ms = milliseconds(now.saturating_duration_since(began));
        let Some(placed) = self.tracks.get_mut(track) else { return 0 };
        let own_ms = placed.own_ms(timestamp);
        let mut at_ms = own_ms + placed.offset(arrived_ms - own_ms);
        let before_ms = placed.ahead_ms.clamp(-RESTART_MS, RESTART_MS);
        let leaps = (at_ms + self.drift.correction_ms - arrived_ms).abs() > LEAP_MS;
        if restarts || leaps {
            // Frames go on as far ahead of their arrival as they were, where that is known to be the same camera.
            at_ms = arrived_ms + if leaps { 0 } else { before_ms };
            self.begin_anew(track, at_ms - own_ms);
        }
        if let Some(placed) = self.tracks.get_mut(track) {
            placed.ahead_ms = at_ms + self.drift.correction_ms - arrived_ms;
        }
        self.drift.note(now, arrived_ms - at_ms);
        u64::try_from(at_ms + self.drift.correction(now)).unwrap_or_default()
    }

    /// The clock of a track leapt: it begins anew at this offset, and the others stay where they are.
    fn begin_anew(&mut self, leapt: usize, leapt_ms: i64) {
        let correction_ms = std::mem::take(&mut self.drift).correction_ms;
        for (at, track) in self.tracks.iter_mut().enumerate() {
            (track.wanted_ms, track.report) = (None, None);
            track.offset_ms =
                if at == leapt { Some(leapt_ms) } else { track.offset_ms.map(|offset_ms| offset_ms + correction_ms) };
        }
    }

    /// A sender report came: the tracks are put side by side by it.
    pub(super) fn report(&mut self, track: usize, report: &SenderReport) {
        let Some(reported) = self.tracks.get_mut(track) else { return };
        // Of a track without a frame nobody knows where it is.
        if reported.last.is_none() {
            return;
        }
        reported.report = Some((reported.ms_of(report.timestamp), report.ntp_ms()));
        let placed = |track: &Track| Some((track.report?, track.offset_ms?));
        // The first one leads, the others follow.
        let Some(((own_ms, ntp_ms), offset_ms)) = self.tracks.iter().find_map(placed) else { return };
        let ahead_ms = own_ms + offset_ms - ntp_ms;
        let leader = self.tracks.iter().position(|track| placed(track).is_some());
        for (_, track) in self.tracks.iter_mut().enumerate().filter(|(at, _)| Some(*at) != leader) {
            let Some(((own_ms, ntp_ms), offset_ms)) = placed(track) else { continue };
            let wanted_ms = ntp_ms.saturating_add(ahead_ms).saturating_sub(own_ms);
            // Cameras whose reports make no sense are better taken by when things arrive.
            track.wanted_ms = Some(wanted_ms).filter(|wanted_ms| wanted_ms.saturating_sub(offset_ms).saturating_abs() < LEAP_MS);
        }
    }
}

impl Track {
    /// A timestamp of its clock as milliseconds, rounded down, without taking note of it.
    fn ms_of(&self, timestamp: u32) -> i64 {
        let ticks = self.last.map_or(0, |(last, ticks)| ticks.saturating_add(timestamp.wrapping_sub(last).cast_signed().into()));
        ticks.saturating_mul(1000).div_euclid(self.clock_hz.into())
    }

    /// The same of the latest frame.
    fn own_ms(&mut self, timestamp: u32) -> i64 {
        let (last, ticks) = self.last.unwrap_or((timestamp, 0));
        let ticks = ticks.saturating_add(timestamp.wrapping_sub(last).cast_signed().into());
        self.last = Some((timestamp, ticks));
        ticks.saturating_mul(1000).div_euclid(self.clock_hz.into())
    }

    /// Its offset. The first word of the reports counts at once, later ones by a millisecond for each frame.
    fn offset(&mut self, arrival_ms: i64) -> i64 {
        let is_first = self.offset_ms.is_none();
        let offset_ms = self.offset_ms.get_or_insert(arrival_ms);
        if let Some(wanted_ms) = self.wanted_ms {
            let missing_ms = wanted_ms - *offset_ms;
            *offset_ms += if is_first || missing_ms.abs() > SLACK_MS { missing_ms } else { missing_ms.signum() };
        }
        *offset_ms
    }
}

impl Drift {
    /// A frame came so many milliseconds later than its own time.
    fn note(&mut self, now: Instant, late_ms: i64) {
        let (begin, earliest_ms) = self.span.get_or_insert((now, late_ms));
        *earliest_ms = late_ms.min(*earliest_ms);
        if now.saturating_duration_since(*begin) < SPAN {
            return;
        }
        if !std::mem::replace(&mut self.is_settled, true) {
            self.span = None;
            return;
        }
        let away_ms = *earliest_ms - *self.usual_ms.get_or_insert(*earliest_ms);
        self.span = None;
        if (away_ms - self.goal_ms).abs() > SLACK_MS {
            self.goal_ms = away_ms;
        }
    }

    /// What is added to all times.
    fn correction(&mut self, now: Instant) -> i64 {
        let stepped = self.stepped.get_or_insert(now);
        if now.saturating_duration_since(*stepped) >= STEP {
            *stepped = now;
            self.correction_ms += (self.goal_ms - self.correction_ms).signum();
        }
        self.correction_ms
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    fn clocks() -> Clocks {
        Clocks::new([90_000, 8000].into_iter())
    }

    fn report(timestamp: u32, ms: u64) -> SenderReport {
        SenderReport { ssrc: 0, ntp: (ms / 1000) << 32 | ((ms % 1000) << 32).div_ceil(1000), timestamp }
    }

    #[test]
    fn arrival_places_the_first_frames_and_the_cameras_clock_all_others() {
        let (base, mut clocks) = (base(), clocks());
        assert_eq!(clocks.place(at(base, 0), 0, u32::MAX - 1799, false), 0);
        assert_eq!(clocks.place(at(base, 10), 1, 77, false), 10);
        // 40 ms later on its own clock, over the wrap, however late it comes.
        assert_eq!(clocks.place(at(base, 95), 0, 1800, false), 40);
        assert_eq!(clocks.place(at(base, 96), 1, 77 + 160, false), 30);
        // 1/30 s, again and again, adds up without an error.
        let last = (1..=3000)
            .map(|frame| clocks.place(at(base, 95 + frame * 100 / 3), 0, 1800 + u32::try_from(frame).unwrap() * 3000, false))
            .last();
        assert_eq!(last, Some(40 + 100_000));
    }

    #[test]
    fn reports_put_tracks_side_by_side() {
        let (base, mut clocks) = (base(), clocks());
        clocks.place(at(base, 0), 0, 0, false);
        // Sound of the same instant comes 300 ms later.
        assert_eq!(clocks.place(at(base, 300), 1, 0, false), 300);
        clocks.report(0, &report(90_000, 50_000));
        assert_eq!(clocks.place(at(base, 320), 1, 160, false), 320, "one report says nothing");
        clocks.report(1, &report(8000, 50_000));
        assert_eq!(clocks.place(at(base, 340), 1, 320, false), 40);
        assert_eq!(clocks.place(at(base, 340), 0, 3600, false), 40, "pictures stay where they are");
        // The clocks of the tracks themselves differ a little: that is made up for step by step.
        clocks.report(1, &report(8000, 50_003));
        let times: Vec<u64> =
            (3..8).map(|frame| clocks.place(at(base, 300 + frame * 20), 1, u32::try_from(frame).unwrap() * 160, false)).collect();
        assert_eq!(times, [61, 82, 103, 123, 143]);
        // A report from another world is none.
        clocks.report(1, &report(8000, 99_999_999));
        assert_eq!(clocks.place(at(base, 460), 1, 8 * 160, false), 163);
    }

    #[test]
    fn a_leap_begins_anew() {
        let (base, mut clocks) = (base(), clocks());
        clocks.place(at(base, 0), 0, 0, false);
        assert_eq!(clocks.place(at(base, 40), 0, 90_000 * 3600, false), 40);
        assert_eq!(clocks.place(at(base, 80), 0, 90_000 * 3600 + 3600, false), 80);
        assert_eq!(clocks.place(at(base, 10_000), 0, 90_000 * 3600 + 7200, false), 10_000, "it stood still");
        assert_eq!(clocks.place(at(base, 10_000), 1, 0, false), 10_000);
        // Where a track is known to begin anew, no leap is too small; the other one goes on.
        assert_eq!(clocks.place(at(base, 10_040), 0, 90_000 * 3600, true), 10_040);
        assert_eq!(clocks.place(at(base, 10_050), 1, 160, false), 10_020);
        // It came 60 ms before its time, and goes on so.
        assert_eq!(clocks.place(at(base, 10_060), 0, 90_000 * 3600 + 7200, false), 10_120);
        assert_eq!(clocks.place(at(base, 10_100), 0, 90_000 * 3600, true), 10_160);
    }

    /// A camera whose clock is off by so many parts in a million, for ten hours; how far its times get away from ours, and the
    /// shortest and longest step between two frames.
    fn run(ppm: i64, jitter_ms: u64) -> (i64, i64, i64) {
        let (base, mut clocks) = (base(), clocks());
        let (mut away, mut shortest, mut longest, mut last) = (0, i64::MAX, 0, None);
        for frame in 0..36_000 * 5_i64 {
            let ours_ms = frame * 200;
            let ticks = ours_ms * 90 * (1_000_000 + ppm) / 1_000_000;
            let arrival = ours_ms as u64 + (frame as u64 * 7919) % (jitter_ms + 1);
            let placed = clocks.place(at(base, arrival), 0, u32::try_from(ticks & 0xFFFF_FFFF).unwrap(), false) as i64;
            away = away.max((placed - ours_ms).abs());
            if let Some(last) = last {
                (shortest, longest) = (shortest.min(placed - last), longest.max(placed - last));
            }
            last = Some(placed);
        }
        (away, shortest, longest)
    }

    #[test]
    fn drift_is_held_for_hours() {
        for (ppm, jitter_ms) in [(0, 0), (100, 0), (-100, 0), (200, 60), (-200, 60)] {
            let (away, shortest, longest) = run(ppm, jitter_ms);
            assert!(away <= 60 + jitter_ms as i64, "{ppm} ppm: {away} ms");
            assert!(shortest >= 198 && longest <= 202, "{ppm} ppm: steps of {shortest} to {longest} ms");
        }
        assert_eq!(run(0, 60), (0, 200, 200), "unrest of the network alone moves nothing");
    }

    proptest! {
        #[test]
        fn any_timestamps(steps in prop::collection::vec((0..2_usize, any::<u32>(), 0..100_u64, any::<u64>(), any::<bool>()), 0..60)) {
            let (base, mut clocks, mut ms) = (base(), clocks(), 0);
            for (track, timestamp, step, ntp, is_report) in steps {
                ms += step;
                if is_report {
                    clocks.report(track, &SenderReport { ssrc: 0, ntp, timestamp });
                } else {
                    let placed = clocks.place(at(base, ms), track, timestamp, false) as i64;
                    prop_assert!((placed - ms as i64).abs() <= 2 * LEAP_MS);
                }
            }
        }
    }
}
