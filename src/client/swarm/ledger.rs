//! What the viewers have in common: who joined, who failed and why, and how late packets came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::delays::Delays;

/// The books of a swarm.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Zero of arrival times.
    epoch: Instant,
    /// The newest packet number that any viewer has had.
    pub(super) newest: Option<u32>,
    /// Delays count, because the measured time runs.
    pub(super) measuring: bool,
    /// Viewers are sent home: an end is no failure any more.
    pub(super) closing: bool,
    pub(super) delays: Delays,
    /// Begin of the connection to the first packet, a join each.
    pub(super) joins: Vec<Duration>,
    /// StartPlaying to the first packet.
    pub(super) first_packets: Vec<Duration>,
    pub(super) last_join: Option<Instant>,
    /// Viewers on their way to their first packet.
    pub(super) joining: usize,
    /// Viewers between their first packet and their end.
    pub(super) playing: usize,
    /// Viewers that ended before they were sent home, by cause.
    pub(super) failures: BTreeMap<String, u64>,
    /// Files that viewers came to the end of, and began once more.
    pub(super) restarts: u64,
    /// Where the first of those was sent that were sent elsewhere.
    pub(super) redirected: Option<String>,
    /// What viewers counted that are no more.
    pub(super) gone: Counts,
    /// The viewers that read on where the others do not, those that ended left out.
    pub(super) readers: Vec<usize>,
}

impl Ledger {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            newest: None,
            measuring: false,
            closing: false,
            delays: Delays::new(),
            joins: Vec::new(),
            first_packets: Vec::new(),
            last_join: None,
            joining: 0,
            playing: 0,
            failures: BTreeMap::new(),
            restarts: 0,
            redirected: None,
            gone: Counts::default(),
            readers: Vec::new(),
        }
    }

    /// A viewer's first packet.
    pub(super) fn joined(&mut self, now: Instant, begun: Instant, started: Option<Instant>) {
        self.joining -= 1;
        self.playing += 1;
        self.joins.push(now - begun);
        self.first_packets.extend(started.map(|started| now - started));
        self.last_join = Some(now);
    }

    /// A viewer's end.
    pub(super) fn ended(&mut self, had_joined: bool, counts: Counts, cause: String) {
        *(if had_joined { &mut self.playing } else { &mut self.joining }) -= 1;
        self.gone += counts;
        if !self.closing {
            *self.failures.entry(cause).or_default() += 1;
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// A packet of a viewer that asked for media when `floor` was the newest packet that anybody had.
    ///
    /// What a viewer is sent of the time before it came is late by design, and says nothing.
    pub(super) fn packet(&mut self, now: Instant, location: u32, send_time_ms: Option<u32>, floor: Option<u32>) {
        if self.newest.is_none_or(|newest| is_newer(location, newest)) {
            self.newest = Some(location);
        }
        if !self.measuring || floor.is_some_and(|floor| !is_newer(location, floor)) {
            return;
        }
        if let Some(send_time_ms) = send_time_ms {
            let arrival_us = i64::try_from((now - self.epoch).as_micros()).unwrap_or(i64::MAX);
            self.delays.add(arrival_us, send_time_ms);
        }
    }
}

/// Packet numbers wrap.
const fn is_newer(location: u32, than: u32) -> bool {
    matches!(location.wrapping_sub(than), 1..=0x7FFF_FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant")]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn packets_from_before_a_viewer_came_have_no_delay() {
        let now = base();
        let mut ledger = Ledger::new(now);
        ledger.packet(now, 100, Some(0), None);
        assert_eq!((ledger.newest, ledger.delays.report()), (Some(100), None), "not yet measuring");
        ledger.measuring = true;
        for (location, floor) in [(99, Some(100)), (100, Some(100)), (101, Some(100)), (102, None)] {
            ledger.packet(now + Duration::from_secs(1), location, Some(0), floor);
        }
        assert_eq!(ledger.delays.report().unwrap().packets, 2);
        ledger.packet(now, 103, None, None);
        assert_eq!((ledger.newest, ledger.delays.report().unwrap().packets), (Some(103), 2), "no ASF packet, no send time");
        assert!(is_newer(1, u32::MAX) && !is_newer(u32::MAX, 1) && !is_newer(5, 5));
    }

    #[test]
    fn ends_count_by_cause_until_viewers_are_sent_home() {
        let now = base();
        let mut ledger = Ledger::new(now);
        ledger.joining = 4;
        ledger.joined(now + Duration::from_millis(9), now, Some(now + Duration::from_millis(5)));
        ledger.ended(false, Counts::default(), "no".into());
        ledger.ended(false, Counts::default(), "no".into());
        ledger.ended(true, Counts { packets: 3, ..Counts::default() }, "gone".into());
        ledger.closing = true;
        ledger.ended(false, Counts { packets: 1, ..Counts::default() }, "stopped".into());
        assert_eq!(ledger.failures, BTreeMap::from([("gone".into(), 1), ("no".into(), 2)]));
        assert_eq!((ledger.failed(), ledger.gone.packets, ledger.joining, ledger.playing), (3, 4, 0, 0));
        assert_eq!((ledger.joins[0].as_millis(), ledger.first_packets[0].as_millis()), (9, 4));
    }
}
