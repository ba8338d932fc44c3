//! The life of a push session, which connections come and go in.
//!
//! ```text
//! PushSetup ─→ Ready ── PushStart ─→ Streaming ── all of the body ─→ Ready
//!                └ inactive: over        ├─ the connection is lost ─→ Stalled ── PushStart ─→ Streaming
//!                                        └ idle: over                  └ idle: over
//! ```

use std::time::{Duration, Instant};

/// A connection that was silent for so long most likely is dead: another one of the same encoder may have its session.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a session waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Within a body for the next header or packet, with the connection or without: 10 s at least by the specification.
    pub idle: Duration,
    /// Between bodies for the next request.
    pub inactivity: Duration,
}

impl Default for Timers {
    /// Source: MS-WMHTTP 3.2.2.
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), inactivity: Duration::from_secs(120) }
    }
}

/// Why a session is over by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// No header or packet came in a body: 408 (MS-WMHTTP 3.2.6.1).
    Idle,
    /// No request came (MS-WMHTTP 3.2.6.2).
    Inactive,
}

/// Another connection sends in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    /// It was silent for 2 s, and is to give way.
    pub is_silent: bool,
}

/// The state of a session.
///
/// Source: MS-WMHTTP 3.2.1.
#[derive(Debug)]
pub struct Session {
    timers: Timers,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Ready {
        since: Instant,
    },
    Streaming {
        /// When media came last.
        media: Instant,
        /// When anything came last.
        heard: Instant,
        /// What came is being dealt with, which takes long while a source runs ahead: nobody listens so long.
        is_busy: bool,
    },
    Stalled {
        media: Instant,
    },
}

impl Session {
    /// A session that was just set up.
    pub const fn new(now: Instant, timers: Timers) -> Self {
        Self { timers, phase: Phase::Ready { since: now } }
    }

    /// Whether a connection sends in it.
    pub const fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    /// Another PushSetup names it.
    ///
    /// # Errors
    /// [`Occupied`].
    pub fn set_up(&mut self, now: Instant) -> Result<(), Occupied> {
        self.vacant(now)?;
        self.phase = Phase::Ready { since: now };
        Ok(())
    }

    /// A PushStart names it.
    ///
    /// # Errors
    /// [`Occupied`].
    pub fn start(&mut self, now: Instant) -> Result<(), Occupied> {
        self.vacant(now)?;
        self.phase = Phase::Streaming { media: now, heard: now, is_busy: false };
        Ok(())
    }

    fn vacant(&self, now: Instant) -> Result<(), Occupied> {
        match self.phase {
            Phase::Streaming { heard, is_busy, .. } => {
                Err(Occupied { is_silent: !is_busy && now.saturating_duration_since(heard) >= SILENCE })
            }
            Phase::Ready { .. } | Phase::Stalled { .. } => Ok(()),
        }
    }

    /// Bytes of the body came; until [`Session::taken`] they are being dealt with.
    pub const fn came(&mut self, now: Instant) {
        if let Phase::Streaming { heard, is_busy, .. } = &mut self.phase {
            (*heard, *is_busy) = (now, true);
        }
    }

    /// They have been dealt with; `is_media` if a header or a packet was among them. End marks and filler do not count.
    pub const fn taken(&mut self, now: Instant, is_media: bool) {
        if let Phase::Streaming { media, heard, is_busy } = &mut self.phase {
            (*heard, *is_busy) = (now, false);
            if is_media {
                *media = now;
            }
        }
    }

    /// The body is complete: the next request may come.
    pub const fn body_end(&mut self, now: Instant) {
        self.phase = Phase::Ready { since: now };
    }

    /// The connection was lost: within a body the idle timer runs on.
    pub const fn lost(&mut self) {
        if let Phase::Streaming { media, .. } = self.phase {
            self.phase = Phase::Stalled { media };
        }
    }

    /// When the session is over unless something comes; `None` while what came is being dealt with.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ready { since } => Some(since + self.timers.inactivity),
            Phase::Streaming { is_busy: true, .. } => None,
            Phase::Streaming { media, .. } | Phase::Stalled { media } => Some(media + self.timers.idle),
        }
    }

    /// Whether it is over by now, and why.
    pub fn expired(&self, now: Instant) -> Option<Expiry> {
        let is_over = self.poll_timeout().is_some_and(|deadline| deadline <= now);
        is_over.then_some(if matches!(self.phase, Phase::Ready { .. }) { Expiry::Inactive } else { Expiry::Idle })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn session() -> (Session, impl Fn(u64) -> Instant) {
        let base = Instant::now();
        (Session::new(base, Timers::default()), move |seconds| base + Duration::from_secs(seconds))
    }

    #[test]
    fn the_idle_timer_hears_media_alone() {
        let (mut session, at) = session();
        session.start(at(10)).unwrap();
        assert_eq!(session.poll_timeout(), Some(at(70)));
        session.came(at(30));
        assert_eq!((session.poll_timeout(), session.expired(at(500))), (None, None), "held back by ourselves");
        session.taken(at(31), true);
        session.came(at(60));
        session.taken(at(60), false);
        assert_eq!((session.expired(at(90)), session.expired(at(91))), (None, Some(Expiry::Idle)), "filler is no media");
        // A lost connection changes nothing about it.
        session.lost();
        assert!(!session.is_streaming());
        assert_eq!((session.expired(at(90)), session.expired(at(91))), (None, Some(Expiry::Idle)));
        session.start(at(80)).unwrap();
        assert_eq!(session.poll_timeout(), Some(at(140)));
    }

    #[test]
    fn the_inactivity_timer_runs_between_requests() {
        let (mut session, at) = session();
        assert_eq!((session.expired(at(119)), session.expired(at(120))), (None, Some(Expiry::Inactive)));
        session.start(at(50)).unwrap();
        session.body_end(at(100));
        session.lost();
        assert_eq!((session.expired(at(219)), session.expired(at(220))), (None, Some(Expiry::Inactive)));
        session.set_up(at(200)).unwrap();
        assert_eq!(session.poll_timeout(), Some(at(320)));
    }

    #[test]
    fn a_second_connection_waits_for_two_seconds_of_silence() {
        let (mut session, at) = session();
        session.start(at(0)).unwrap();
        session.came(at(3));
        for begin in [Session::start, Session::set_up] {
            assert_eq!(begin(&mut session, at(9)), Err(Occupied { is_silent: false }), "it is busy");
        }
        session.taken(at(9), false);
        assert_eq!(session.start(at(10)), Err(Occupied { is_silent: false }));
        assert_eq!(session.start(at(11)), Err(Occupied { is_silent: true }));
        session.lost();
        assert_eq!(session.start(at(11)), Ok(()));
    }
}
