//! Sequence numbers of the packets received, and which are missing. Source: MS-MMSP 3.1.4.7.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::mms::resend::MAX_PACKETS;

/// Datagrams may overtake each other by so much before we ask.
const REORDER_DELAY: Duration = Duration::from_millis(30);
/// From one request for a packet to the next.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Requests for one packet.
const MAX_REQUESTS: u8 = 3;
/// Missing numbers that are waited for; of a longer gap only the newest.
const MAX_MISSING: usize = 1024;
/// LocationIds that jump by more than this tell nothing about sequence numbers.
const MAX_JUMP: u32 = 4096;

#[derive(Debug)]
struct Missing {
    requests: u8,
    due: Instant,
}

/// How a packet fits into what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the newest; `missing` numbers before it did not come.
    Newest { sequence: u32, missing: u32 },
    /// It was missing; `requested`: we had asked for it.
    Filled { sequence: u32, requested: bool },
    /// It came before, or was given up.
    Duplicate,
}

/// Extends AFFlags to full sequence numbers and keeps the gaps.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The number expected next.
    next: u32,
    newest_location: Option<u32>,
    missing: BTreeMap<u32, Missing>,
}

impl Gaps {
    /// A StartPlaying was sent: the server may go elsewhere, and skips the number before a wrap (MS-MMSP 3.2.5.11).
    pub(super) fn restart(&mut self) {
        if self.next & 0xFF == 0xFF {
            self.next = self.next.wrapping_add(1);
        }
        self.newest_location = None;
    }

    /// A StopPlaying was sent: nobody wants what is missing any more. Returns how much that was.
    pub(super) fn halt(&mut self) -> u64 {
        self.newest_location = None;
        self.give_up()
    }

    /// A packet of the play before came. Its number is used up, or was missing: then whether we had asked for it.
    pub(super) fn pass(&mut self, flags: u8) -> Option<bool> {
        let [expected, ..] = self.next.to_le_bytes();
        let ahead = flags.wrapping_sub(expected);
        if ahead >= 0x80 {
            return self.missing.remove(&self.next.wrapping_sub(256 - u32::from(ahead))).map(|missing| missing.requests > 0);
        }
        // Behind a packet of the new play there is none of the old one.
        if self.newest_location.is_none() {
            self.next = self.next.wrapping_add(u32::from(ahead) + 1);
        }
        None
    }

    /// Where a packet belongs. With `lossy` the numbers that it skips are missing from now on.
    pub(super) fn place(&mut self, now: Instant, flags: u8, location: u32, lossy: bool) -> Place {
        let [expected, ..] = self.next.to_le_bytes();
        let ahead = flags.wrapping_sub(expected);
        let jump = self.newest_location.map(|newest| location.wrapping_sub(newest).wrapping_sub(1));
        // The packet number tells old from new where more than half a round of AFFlags was lost. The first packet of a play is new
        // whatever was lost before it: nothing of this play came yet, and nothing of the one before is waited for.
        let is_new = jump.map_or(lossy || ahead < 0x80, |jump| jump < u32::MAX / 2);
        if !is_new && !lossy {
            // TCP brings nothing late and nothing twice: the server does not count there as we think.
            let sequence = self.next;
            self.next = sequence.wrapping_add(1);
            self.newest_location = Some(location);
            return Place::Newest { sequence, missing: 0 };
        }
        if !is_new {
            // By the packet number, which tells rounds of AFFlags apart; by AFFlags alone where the server skipped in between.
            let by_location = self.next.wrapping_add(jump.unwrap_or_default());
            let fits = jump.is_some() && by_location.wrapping_sub(self.next) & 0xFF == u32::from(ahead);
            let sequence = if fits { by_location } else { self.next.wrapping_sub(256 - u32::from(ahead)) };
            return match self.missing.remove(&sequence) {
                Some(missing) => Place::Filled { sequence, requested: missing.requests > 0 },
                None => Place::Duplicate,
            };
        }
        let missing = match jump {
            Some(jump) if jump <= MAX_JUMP && jump & 0xFF == u32::from(ahead) => jump,
            _ => u32::from(ahead),
        };
        let sequence = self.next.wrapping_add(missing);
        if lossy {
            for back in (1..=missing).rev() {
                self.missing.insert(sequence.wrapping_sub(back), Missing { requests: 0, due: now + REORDER_DELAY });
            }
        }
        self.next = sequence.wrapping_add(1);
        self.newest_location = Some(location);
        Place::Newest { sequence, missing: if lossy { missing } else { 0 } }
    }

    /// Gives up what is hopeless, and says for which packets to ask now: requests of up to 32, and how many were given up.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<Vec<u32>>, u64) {
        let before = self.missing.len();
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
        }
        self.missing.retain(|_, missing| missing.requests < MAX_REQUESTS || missing.due > now);
        let lost = before - self.missing.len();
        let mut wanted = Vec::new();
        for (sequence, missing) in &mut self.missing {
            if missing.due <= now {
                missing.requests += 1;
                missing.due = now + RETRY_DELAY;
                wanted.push(*sequence);
            }
        }
        (wanted.chunks(MAX_PACKETS).map(<[u32]>::to_vec).collect(), lost as u64)
    }

    /// When [`Gaps::due`] has something to say.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// Gives up everything that is missing; returns how much that was.
    pub(super) fn give_up(&mut self) -> u64 {
        std::mem::take(&mut self.missing).len() as u64
    }

    /// All numbers below have come, or were given up.
    pub(super) fn settled(&self) -> u32 {
        self.missing.first_key_value().map_or(self.next, |(sequence, _)| *sequence)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant for the virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    fn newest(sequence: u32, missing: u32) -> Place {
        Place::Newest { sequence, missing }
    }

    #[test]
    fn gaps_are_noticed_requested_and_given_up() {
        let (now, mut gaps) = (base(), Gaps::default());
        assert_eq!(gaps.place(now, 0, 500, true), newest(0, 0));
        assert_eq!(gaps.place(now, 3, 503, true), newest(3, 2));
        assert_eq!(gaps.due(now), (vec![], 0), "not before the reorder delay");
        assert_eq!(gaps.settled(), 1);
        assert_eq!(gaps.place(now, 1, 501, true), Place::Filled { sequence: 1, requested: false });
        let mut at = now + REORDER_DELAY;
        for _ in 0..MAX_REQUESTS {
            assert_eq!(gaps.next_due(), Some(at));
            assert_eq!(gaps.due(at), (vec![vec![2]], 0));
            at += RETRY_DELAY;
        }
        assert_eq!(gaps.settled(), 2);
        assert_eq!(gaps.due(at), (vec![], 1));
        assert_eq!(gaps.settled(), 4);
        assert_eq!(gaps.place(at, 2, 502, true), Place::Duplicate, "too late");
        assert!(gaps.is_whole() && gaps.next_due().is_none());
    }

    #[test]
    fn requests_name_at_most_32() {
        let (now, mut gaps) = (base(), Gaps::default());
        assert_eq!(gaps.place(now, 100, 100, true), newest(100, 100));
        let (requests, _) = gaps.due(now + REORDER_DELAY);
        assert_eq!(requests.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 32, 4]);
    }

    #[test]
    fn long_losses_are_told_by_the_packet_number() {
        let (now, mut gaps) = (base(), Gaps::default());
        gaps.place(now, 0, 7, true);
        assert_eq!(gaps.place(now, 200, 207, true), newest(200, 199));
        assert_eq!(gaps.place(now, 144, 7 + 400, true), newest(400, 199));
        // The low bytes do not fit the packet numbers: the server skipped.
        assert_eq!(gaps.place(now, 146, 9_000, true), newest(402, 1));
        assert_eq!(gaps.place(now, 144, 8_000, true), Place::Duplicate);
    }

    #[test]
    fn a_play_begins_behind_a_long_loss() {
        let (now, mut gaps) = (base(), Gaps::default());
        for n in 0..10 {
            gaps.place(now, n, u32::from(n) + 500, true);
        }
        // More than half a round of AFFlags is lost before the server hears of the seek.
        assert_eq!(gaps.halt(), 0);
        gaps.restart();
        assert_eq!(gaps.place(now, 210, 20, true), newest(210, 200));
        assert_eq!(gaps.place(now, 211, 21, true), newest(211, 0));
        assert_eq!(gaps.place(now, 210, 20, true), Place::Duplicate);
        assert_eq!(gaps.place(now, 209, 19, true), Place::Filled { sequence: 209, requested: false });
        // Of a whole round and more nothing is known but the rest.
        gaps.give_up();
        gaps.restart();
        assert_eq!(gaps.place(now, 215, 7, true), newest(215, 3));
    }

    #[test]
    fn old_packets_are_told_by_the_packet_number_too() {
        let (now, mut gaps) = (base(), Gaps::default());
        gaps.place(now, 0, 1_000, true);
        assert_eq!(gaps.place(now, 0x90, 1_400, true), newest(400, 399));
        assert_eq!(gaps.place(now, 5, 1_005, true), Place::Filled { sequence: 5, requested: false });
        assert_eq!(gaps.place(now, 5, 1_005, true), Place::Duplicate);
        assert_eq!(gaps.place(now, 5, 1_261, true), Place::Filled { sequence: 261, requested: false });
    }

    #[test]
    fn memory_is_bounded() {
        let (now, mut gaps) = (base(), Gaps::default());
        let mut lost = 0;
        gaps.place(now, 0, 0, true);
        for n in 1..100u32 {
            gaps.place(now, u8::try_from(n * 200 % 256).unwrap(), n * 200, true);
            lost += gaps.due(now).1;
            assert!(gaps.missing.len() <= MAX_MISSING);
        }
        assert_eq!(lost + gaps.give_up(), 99 * 199);
    }

    #[test]
    fn over_tcp_nothing_is_missing() {
        let (now, mut gaps) = (base(), Gaps::default());
        assert_eq!(gaps.place(now, 8, 0, false), newest(8, 0));
        assert_eq!(gaps.place(now, 0, 1, false), newest(256, 0));
        assert!(gaps.is_whole());
        // Packet numbers that begin anew, and flags that stand still: after a start, too.
        assert_eq!(gaps.place(now, 0, 0, false), newest(257, 0));
        gaps.restart();
        assert_eq!(gaps.place(now, 0, 7, false), newest(258, 0));
        assert_eq!(gaps.place(now, 0, 8, false), newest(512, 0));
        assert!(gaps.is_whole());
    }

    #[test]
    fn the_number_before_a_wrap_is_not_expected_after_a_start() {
        let (now, mut gaps) = (base(), Gaps::default());
        for n in 0..=0xFEu8 {
            gaps.place(now, n, n.into(), true);
        }
        gaps.restart();
        assert_eq!(gaps.place(now, 0, 9, true), newest(0x100, 0));
    }

    #[test]
    fn packets_of_the_play_before_use_up_their_numbers() {
        let (now, mut gaps) = (base(), Gaps::default());
        gaps.place(now, 0, 500, true);
        gaps.place(now, 3, 503, true);
        assert_eq!(gaps.halt(), 2);
        assert_eq!((gaps.pass(4), gaps.pass(1)), (None, None), "given up");
        gaps.restart();
        assert_eq!(gaps.pass(6), None);
        // 7 was lost, of whichever play; the number of the packet says nothing here, since it may be anywhere.
        assert_eq!(gaps.place(now, 8, 20, true), newest(8, 1));
        assert_eq!(gaps.pass(9), None, "of a play before that");
        assert_eq!(gaps.place(now, 9, 21, true), newest(9, 0));
        assert_eq!(gaps.pass(7), Some(false));
        assert!(gaps.is_whole());
    }
}
