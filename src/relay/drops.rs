//! Packets of a source that are left out: counted by cause, and told in the log, but not each.

use std::time::{Duration, Instant};

/// So long after one line of the log the next of the same cause may come.
const QUIET: Duration = Duration::from_secs(10);

/// Why a packet is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropCause {
    /// It is no sound ASF packet.
    Invalid,
    /// It is sound, but cannot be cut anew.
    Uncut,
    /// What was made by cutting is not sound: a fault of ours.
    Unsound,
}

impl DropCause {
    /// All, in the order of their indices.
    pub(super) const ALL: [Self; 3] = [Self::Invalid, Self::Uncut, Self::Unsound];

    /// The label in metrics and log.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Uncut => "uncut",
            Self::Unsound => "unsound",
        }
    }
}

/// What of it is still to be told, for one publishing point.
#[derive(Debug, Default)]
pub(super) struct Drops([Untold; DropCause::ALL.len()]);

#[derive(Debug, Clone, Copy, Default)]
struct Untold {
    packets: u64,
    told: Option<Instant>,
}

impl Drops {
    /// Notes a packet that is left out. Returns how many are to be told now, this one and those since the last line: the first
    /// at once, then every ten seconds.
    pub(super) fn note(&mut self, now: Instant, cause: DropCause) -> Option<u64> {
        let untold = self.0.get_mut(cause as usize)?;
        untold.packets += 1;
        if untold.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return None;
        }
        untold.told = Some(now);
        Some(std::mem::take(&mut untold.packets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::{at, base};

    #[test]
    fn each_cause_is_told_every_ten_seconds_with_all_since() {
        let (mut drops, base) = (Drops::default(), base());
        let mut note = |ms, cause| drops.note(at(base, ms), cause);
        assert_eq!(note(0, DropCause::Invalid), Some(1));
        assert_eq!((note(1, DropCause::Invalid), note(9999, DropCause::Invalid)), (None, None));
        assert_eq!(note(9999, DropCause::Uncut), Some(1), "another cause");
        assert_eq!((note(10_000, DropCause::Invalid), note(10_001, DropCause::Invalid)), (Some(3), None));
        assert_eq!(note(60_000, DropCause::Unsound), Some(1));
    }

    #[test]
    fn causes_are_in_order() {
        assert!(DropCause::ALL.iter().enumerate().all(|(index, cause)| *cause as usize == index));
    }
}
