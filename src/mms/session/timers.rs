//! The deadlines of a session.

use std::time::Instant;

/// A deadline, by what its expiry means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Timer {
    /// The player, or the relay, did not take the next step up to ReadBlock.
    Step,
    /// All steps up to ReadBlock took too long together.
    Handshake,
    /// A session that does not play said nothing, other than that it answered Pings.
    Idle,
    /// Time for a Ping.
    KeepAlive,
    /// The next header datagram is due.
    Fragment,
    /// Media has waited long enough for a StartPlaying after a StreamChange.
    Hold,
    /// Time to tell the end of a stream that went over UDP.
    Drain,
    /// The time after the end of a broadcast is over.
    Linger,
}

const ALL: [Timer; 8] =
    [Timer::Step, Timer::Handshake, Timer::Idle, Timer::KeepAlive, Timer::Fragment, Timer::Hold, Timer::Drain, Timer::Linger];

/// The deadlines that run.
#[derive(Debug, Default)]
pub(super) struct Timers([Option<Instant>; ALL.len()]);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.slot(timer, Some(at));
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.slot(timer, None);
    }

    pub(super) fn stop_all(&mut self) {
        *self = Self::default();
    }

    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.0.get(timer as usize).is_some_and(Option::is_some)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Stops and returns the earliest deadline that has come.
    pub(super) fn expired(&mut self, now: Instant) -> Option<(Timer, Instant)> {
        let due = ALL.into_iter().zip(self.0).filter_map(|(timer, at)| at.map(|at| (timer, at)));
        let (timer, at) = due.min_by_key(|(_, at)| *at).filter(|(_, at)| *at <= now)?;
        self.stop(timer);
        Some((timer, at))
    }

    fn slot(&mut self, timer: Timer, at: Option<Instant>) {
        if let Some(slot) = self.0.get_mut(timer as usize) {
            *slot = at;
        }
    }
}
