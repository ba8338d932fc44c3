//! Why a source ended or could not begin, kept for those who look after it.

use std::time::Instant;

use crate::settings::line_without_secrets;

/// Characters of a reason at most: what is longer says no more.
const REASON_MAX: usize = 300;
/// Characters that a reason is made of.
const LOOKED_AT: usize = 4 * REASON_MAX;

/// Why a source ended, or could not begin, though nobody had told it to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For a person: one line of 300 characters at most, without what may be secret in URLs.
    pub reason: String,
    /// When that was.
    pub at: Instant,
    /// How often it failed without a packet in between; 0: packets have come since.
    pub in_a_row: u32,
}

/// The last fault of one source.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last: Option<Fault>,
    /// Who fed it last was told to go, so that the end of that is none.
    told_to_go: bool,
}

impl Faults {
    /// Notes a fault; false where it was told to go, and none is noted.
    pub(super) fn note(&mut self, now: Instant, reason: &str) -> bool {
        if std::mem::take(&mut self.told_to_go) {
            return false;
        }
        let in_a_row = self.last.as_ref().map_or(0, |fault| fault.in_a_row).saturating_add(1);
        self.last = Some(Fault { reason: bounded(reason), at: now, in_a_row });
        true
    }

    /// Somebody begins to feed it.
    pub(super) const fn begins(&mut self) {
        self.told_to_go = false;
    }

    /// Who feeds it is told to go.
    pub(super) const fn tell_to_go(&mut self) {
        self.told_to_go = true;
    }

    /// Packets come.
    pub(super) const fn came(&mut self) {
        if let Some(fault) = &mut self.last {
            fault.in_a_row = 0;
        }
    }

    pub(super) const fn last(&self) -> Option<&Fault> {
        self.last.as_ref()
    }
}

/// What may be shown of a reason: what others send may be in it.
fn bounded(reason: &str) -> String {
    // Cut before it is looked at, with room for what is left out of URLs.
    let mut line: String = reason.chars().take(LOOKED_AT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let is_cut = reason.chars().nth(LOOKED_AT).is_some();
    if is_cut {
        // The begin of a URL alone does not show what in it is a password.
        line.truncate(line.rfind(' ').unwrap_or_default());
    }
    let shown = line_without_secrets(line.trim());
    if is_cut || shown.chars().count() > REASON_MAX {
        return shown.chars().take(REASON_MAX - 1).chain(['…']).collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relay::testing::base;

    #[test]
    fn the_last_reason_is_kept_and_counted() {
        let (mut faults, start) = (Faults::default(), base());
        assert_eq!(faults.last(), None);
        for second in 1..4 {
            assert!(faults.note(start + Duration::from_secs(second), "no connection"));
        }
        let last = Fault { reason: "no connection".into(), at: start + Duration::from_secs(3), in_a_row: 3 };
        assert_eq!(faults.last(), Some(&last));
        faults.came();
        assert_eq!(faults.last(), Some(&Fault { in_a_row: 0, ..last }));
        assert!(faults.note(start, "it hung"));
        assert_eq!(faults.last(), Some(&Fault { reason: "it hung".into(), at: start, in_a_row: 1 }));
    }

    #[test]
    fn an_end_that_was_told_is_no_fault() {
        let mut faults = Faults::default();
        faults.tell_to_go();
        assert!(!faults.note(base(), "dismissed") && faults.last().is_none());
        assert!(faults.note(base(), "the next one"));
        faults.tell_to_go();
        faults.begins();
        assert!(faults.note(base(), "another feeds it by now"));
    }

    #[test]
    fn reasons_are_short_and_keep_no_secrets() {
        for (reason, shown) in [
            ("  rtsp://u:p@cam/1: Connection\nrefused", "rtsp://…@cam/1: Connection refused"),
            ("'http://h/a?token=x' is gone", "'http://h/a?…' is gone"),
            ("\u{1b}[2Jx", "[2Jx"),
        ] {
            assert_eq!(bounded(reason), shown);
        }
        let long = bounded(&"word ".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (REASON_MAX, true));
        // The begin of a password is cut off with it.
        let url = format!("rtsp://{}:{}@cam/1", "u".repeat(10), "secret".repeat(300));
        assert!(!bounded(&url).contains("secret"), "{}", bounded(&url));
    }
}
