//! RTP packets of a flow of datagrams in their order again. Source: MS-RTSP 3.1.4.4; RFC 3550 A.1.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Datagrams may overtake each other by so much before we ask.
const REORDER_DELAY: Duration = Duration::from_millis(30);
/// From one request for a packet to the next.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// Requests for one packet; servers heed no more.
const MAX_REQUESTS: u8 = 3;
/// How long a missing packet is waited for where nobody can be asked.
const HOLD_TIME: Duration = Duration::from_millis(100);
/// Numbers that are missing at once; beyond them nobody sends in earnest.
const MOST_MISSING: usize = 4096;
/// Numbers that are skipped at once beyond which it is another count, and nothing is missing.
const MAX_AHEAD: u64 = 1024;
/// What waits at most for a gap to be filled, bytes.
const MOST_BYTES: usize = 4 << 20;
/// So many packets in a row from before the window: the server counts anew.
const MOST_BEHIND: u32 = 64;
/// Half a turn of sequence numbers.
const HALF: u16 = 0x8000;

#[derive(Debug)]
struct Missing {
    requests: u8,
    due: Instant,
}

/// How a packet fits into what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its turn is now; then those that are [`Window::ready`]. `missing` numbers before it were skipped, as far as they are new.
    Next(Fit),
    /// [`Window::hold`] it.
    Later {
        /// For that.
        number: u64,
        /// As of the next one.
        fit: Fit,
    },
    /// It came before, was given up, or belongs to an earlier play.
    Behind,
    /// Another count: [`Window::flush`], then [`Window::start`] with it.
    Jump,
}

/// What a packet that fits says about others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is the newest; so many numbers before it did not come yet.
    Newest { missing: u32 },
    /// It was missing; `requested`: we had asked for it.
    Filled { requested: bool },
}

impl Fit {
    /// Whether it came because we asked.
    pub(super) const fn is_resent(self) -> bool {
        matches!(self, Self::Filled { requested: true })
    }
}

/// Holds packets back until all before them have come or are given up; 4 MiB at most.
#[derive(Debug, Default)]
pub(super) struct Window {
    started: bool,
    /// Whose turn it is, in numbers that do not wrap.
    next: u64,
    /// Behind the newest that came.
    end: u64,
    held: BTreeMap<u64, (Bytes, bool)>,
    bytes: usize,
    missing: BTreeMap<u64, Missing>,
    /// Somebody can be asked for what is missing.
    asks: bool,
    behind: u32,
}

impl Window {
    /// Whether lost packets can be asked for.
    pub(super) fn set_asks(&mut self, asks: bool) {
        self.asks = asks;
    }

    /// The next packet has this number; nothing is held, see [`Self::flush`].
    pub(super) fn start(&mut self, sequence: u16) {
        // Far from 0, so that the numbers before it are numbers too.
        let number = (1 << 32) + u64::from(sequence);
        let asks = self.asks;
        *self = Self { started: true, next: number, end: number, asks, ..Self::default() };
    }

    /// The next packet may have any number.
    pub(super) fn reset(&mut self) {
        *self = Self { asks: self.asks, ..Self::default() };
    }

    /// Where a packet belongs.
    pub(super) fn place(&mut self, now: Instant, sequence: u16) -> Place {
        if !self.started {
            self.start(sequence);
        }
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are the low 16 bits")]
        let ahead = sequence.wrapping_sub(self.end as u16);
        let number =
            if ahead < HALF { self.end + u64::from(ahead) } else { self.end - (u64::from(u16::MAX) + 1 - u64::from(ahead)) };
        if number >= self.end {
            let missing = number - self.end;
            if missing > MAX_AHEAD || self.missing.len() > MOST_MISSING {
                return Place::Jump;
            }
            let due = now + if self.asks { REORDER_DELAY } else { HOLD_TIME };
            self.missing.extend((self.end..number).map(|number| (number, Missing { requests: 0, due })));
            (self.end, self.behind) = (number + 1, 0);
            return self.fits(number, Fit::Newest { missing: u32::try_from(missing).unwrap_or(u32::MAX) });
        }
        match self.missing.remove(&number) {
            Some(missing) => {
                self.behind = 0;
                self.fits(number, Fit::Filled { requested: missing.requests > 0 })
            }
            None => {
                self.behind += 1;
                if self.behind > MOST_BEHIND { Place::Jump } else { Place::Behind }
            }
        }
    }

    fn fits(&mut self, number: u64, fit: Fit) -> Place {
        if number == self.next {
            self.next += 1;
            return Place::Next(fit);
        }
        Place::Later { number, fit }
    }

    /// Keeps a packet until its turn.
    pub(super) fn hold(&mut self, number: u64, packet: Bytes, resent: bool) {
        self.bytes += packet.len();
        self.held.insert(number, (packet, resent));
    }

    /// The next packet whose turn it is, and whether it came because we asked. `None`: something before it is still waited for.
    pub(super) fn ready(&mut self) -> Option<(Bytes, bool)> {
        while self.next < self.end {
            if let Some((packet, resent)) = self.held.remove(&self.next) {
                self.next += 1;
                self.bytes -= packet.len();
                return Some((packet, resent));
            }
            if self.missing.contains_key(&self.next) {
                return None;
            }
            // It was given up.
            self.next += 1;
        }
        None
    }

    /// Gives up what is hopeless, and says for which packets to ask now, and how many were given up; see [`Self::ready`] then.
    pub(super) fn due(&mut self, now: Instant) -> (Vec<u16>, u64) {
        let before = self.missing.len();
        if self.bytes > MOST_BYTES
            && let Some((first, _)) = self.held.first_key_value()
        {
            self.missing = self.missing.split_off(first);
        }
        let asks = self.asks;
        self.missing.retain(|_, missing| missing.due > now || (asks && missing.requests < MAX_REQUESTS));
        let mut wanted = Vec::new();
        for (number, missing) in self.missing.iter_mut().filter(|(_, missing)| missing.due <= now) {
            missing.requests += 1;
            missing.due = now + RETRY_DELAY;
            #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are the low 16 bits")]
            wanted.push(*number as u16);
        }
        (wanted, (before - self.missing.len()) as u64)
    }

    /// When [`Window::due`] has something to say.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// Whether it holds more than it should, so that [`Window::due`] is due at once.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES
    }

    /// Packets up to this number, without it, were sent: those that did not come are missing.
    pub(super) fn sent_to(&mut self, now: Instant, sequence: u16) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are the low 16 bits")]
        let ahead = u64::from(sequence.wrapping_sub(self.end as u16));
        if !self.started || ahead == 0 || ahead > MAX_AHEAD {
            return 0;
        }
        let due = now + if self.asks { REORDER_DELAY } else { HOLD_TIME };
        let numbers = self.end..self.end + ahead;
        self.end = numbers.end;
        self.missing.extend(numbers.map(|number| (number, Missing { requests: 0, due })));
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// Gives up all that is missing, and returns how much that was; see [`Self::ready`] then.
    pub(super) fn flush(&mut self) -> u64 {
        std::mem::take(&mut self.missing).len() as u64
    }

    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant for the virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    /// Numbers as they come out.
    #[derive(Default)]
    struct Rig {
        window: Window,
        out: Vec<(u16, bool)>,
    }

    impl Rig {
        fn asking() -> Self {
            let mut rig = Self::default();
            rig.window.set_asks(true);
            rig
        }

        fn push(&mut self, now: Instant, sequence: u16) -> Place {
            let place = self.window.place(now, sequence);
            match place {
                Place::Next(fit) => self.out.push((sequence, fit.is_resent())),
                Place::Later { number, fit } => {
                    self.window.hold(number, Bytes::copy_from_slice(&sequence.to_be_bytes()), fit.is_resent());
                }
                Place::Behind => {}
                Place::Jump => {
                    self.window.flush();
                    self.drain();
                    self.window.start(sequence);
                    return self.push(now, sequence);
                }
            }
            self.drain();
            place
        }

        fn drain(&mut self) {
            while let Some((packet, resent)) = self.window.ready() {
                self.out.push((u16::from_be_bytes([packet[0], packet[1]]), resent));
            }
        }

        fn numbers(&self) -> Vec<u16> {
            self.out.iter().map(|(number, _)| *number).collect()
        }
    }

    #[test]
    fn gaps_are_asked_for_filled_and_given_up() {
        let (now, mut rig) = (base(), Rig::asking());
        assert_eq!(rig.push(now, 0xFFFE), Place::Next(Fit::Newest { missing: 0 }));
        assert!(matches!(rig.push(now, 2), Place::Later { fit: Fit::Newest { missing: 3 }, .. }));
        assert!(matches!(rig.push(now, 1), Place::Later { fit: Fit::Filled { requested: false }, .. }));
        assert_eq!(rig.window.due(now), (vec![], 0), "not before the reorder delay");
        let mut at = now + REORDER_DELAY;
        assert_eq!(rig.window.due(at), (vec![0xFFFF, 0], 0));
        assert_eq!(rig.push(at, 0xFFFF), Place::Next(Fit::Filled { requested: true }));
        assert_eq!(rig.out, [(0xFFFE, false), (0xFFFF, true)]);
        for _ in 1..MAX_REQUESTS {
            at = rig.window.next_due().unwrap();
            assert_eq!(rig.window.due(at), (vec![0], 0));
        }
        at = rig.window.next_due().unwrap();
        assert_eq!(rig.window.due(at), (vec![], 1));
        rig.drain();
        assert_eq!(rig.numbers(), [0xFFFE, 0xFFFF, 1, 2]);
        assert_eq!(rig.push(at, 0), Place::Behind, "too late");
        assert!(rig.window.is_whole() && rig.window.next_due().is_none());
    }

    #[test]
    fn without_resends_it_waits_a_little() {
        let (now, mut rig) = (base(), Rig::default());
        for sequence in [10, 12, 13] {
            rig.push(now, sequence);
        }
        assert_eq!(rig.numbers(), [10]);
        assert_eq!(rig.window.next_due(), Some(now + HOLD_TIME));
        assert_eq!(rig.window.due(now + HOLD_TIME), (vec![], 1));
        rig.drain();
        assert_eq!(rig.numbers(), [10, 12, 13]);
    }

    #[test]
    fn another_count_is_followed() {
        let (now, mut rig) = (base(), Rig::asking());
        rig.window.start(100);
        assert!(matches!(rig.push(now, 102), Place::Later { fit: Fit::Newest { missing: 2 }, .. }), "the first two are missed");
        rig.push(now, 5000);
        assert_eq!(rig.numbers(), [102, 5000]);
        // Behind for a while, then taken.
        for sequence in 4000..4000 + 2 * u16::try_from(MOST_BEHIND).unwrap() {
            rig.push(now, sequence);
        }
        assert_eq!(rig.numbers()[2..].len(), MOST_BEHIND as usize);
        assert!(rig.window.is_whole());
    }

    #[test]
    fn what_is_sent_to_the_end_is_missed() {
        let (now, mut rig) = (base(), Rig::asking());
        rig.push(now, 0xFFFF);
        assert_eq!(rig.window.sent_to(now, 0), 0);
        assert_eq!(rig.window.sent_to(now, 2), 2);
        assert_eq!(rig.window.due(now + REORDER_DELAY), (vec![0, 1], 0));
        assert_eq!(rig.window.sent_to(now, 9000), 0, "that is no end of this");
        assert_eq!(rig.window.flush(), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let (now, mut window) = (base(), Window::default());
        window.set_asks(true);
        window.place(now, 0);
        for sequence in 2..200 {
            let Place::Later { number, .. } = window.place(now, sequence) else { panic!("{sequence}") };
            window.hold(number, vec![0; 60_000].into(), false);
            if window.is_full() {
                assert_eq!(window.due(now).1, 1);
                let mut count = 0;
                while window.ready().is_some() {
                    count += 1;
                }
                assert_eq!((count, window.bytes), (usize::from(sequence) - 1, 0));
                return;
            }
        }
        panic!("all was held");
    }

    proptest! {
        #[test]
        fn order_is_kept_whatever_comes(steps in prop::collection::vec((0u16..40, 0u64..80), 1..200), asks: bool, first: u16) {
            let mut now = base();
            let mut rig = Rig::default();
            rig.window.set_asks(asks);
            for (ahead, ms) in steps {
                now += Duration::from_millis(ms);
                rig.push(now, first.wrapping_add(ahead));
                rig.window.due(now);
                rig.drain();
            }
            rig.window.flush();
            rig.drain();
            let numbers: Vec<u16> = rig.numbers().iter().map(|number| number.wrapping_sub(first)).collect();
            // A number comes again only where the count began anew.
            let falls = numbers.windows(2).filter(|pair| pair[1] <= pair[0]).count();
            prop_assert!(falls <= 200 / MOST_BEHIND as usize, "{numbers:?}");
            prop_assert_eq!(rig.window.bytes, 0);
        }
    }
}
