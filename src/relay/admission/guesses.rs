//! Who tries passwords: so many wrong ones in a row, then few.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address::limit_key;

/// Wrong ones that an address has at once: a household that mistypes, and a player that asks twice for each.
const BURST: u32 = 10;
/// After each such time it has one more.
const REGAIN: Duration = Duration::from_secs(30);
/// Addresses that are remembered. Who has more of them than that is not stopped by counting.
const ADDRESSES_BOUND: usize = 4096;

/// Wrong guesses by address (IPv6: by /64).
#[derive(Debug, Default)]
pub struct Guesses {
    /// When all are forgotten: each wrong one puts it off by [`REGAIN`].
    forgotten: HashMap<IpAddr, Instant>,
}

impl Guesses {
    /// Whether an address may guess once more.
    pub fn may_guess(&self, now: Instant, address: IpAddr) -> bool {
        let forgotten = self.forgotten.get(&limit_key(address));
        forgotten.is_none_or(|at| at.saturating_duration_since(now) <= REGAIN * (BURST - 1))
    }

    /// A guess that was counted as wrong beforehand was right.
    pub fn right(&mut self, now: Instant, address: IpAddr) {
        let key = limit_key(address);
        let Some(at) = self.forgotten.get_mut(&key) else { return };
        match at.checked_sub(REGAIN).filter(|at| *at > now) {
            Some(earlier) => *at = earlier,
            None => drop(self.forgotten.remove(&key)),
        }
    }

    /// A guess was wrong.
    pub fn wrong(&mut self, now: Instant, address: IpAddr) {
        let key = limit_key(address);
        if self.forgotten.len() >= ADDRESSES_BOUND && !self.forgotten.contains_key(&key) {
            self.forgotten.retain(|_, at| *at > now);
            // The one with the fewest is missed the least.
            let fewest = self.forgotten.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            if let Some(fewest) = fewest.filter(|_| self.forgotten.len() >= ADDRESSES_BOUND) {
                self.forgotten.remove(&fewest);
            }
        }
        let at = self.forgotten.entry(key).or_insert(now);
        *at = ((*at).max(now) + REGAIN).min(now + REGAIN * BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Guesses that an address gets through now.
    fn got_through(guesses: &mut Guesses, now: Instant, address: IpAddr) -> u32 {
        let mut through = 0;
        while guesses.may_guess(now, address) && through < 100 {
            guesses.wrong(now, address);
            through += 1;
        }
        through
    }

    #[test]
    fn a_burst_and_then_few() {
        let (mut guesses, now) = (Guesses::default(), start());
        let (guesser, other) = (ip("192.0.2.7"), ip("192.0.2.8"));
        assert_eq!(got_through(&mut guesses, now, guesser), BURST);
        assert!(guesses.may_guess(now, other) && !guesses.may_guess(now, ip("::ffff:192.0.2.7")));
        assert!(!guesses.may_guess(now + REGAIN - Duration::from_millis(1), guesser));
        assert_eq!(got_through(&mut guesses, now + REGAIN, guesser), 1);
        assert_eq!(got_through(&mut guesses, now + REGAIN * (BURST + 1), guesser), BURST);
    }

    #[test]
    fn what_was_right_is_given_back() {
        let (mut guesses, now) = (Guesses::default(), start());
        let address = ip("192.0.2.7");
        for _ in 0..100 {
            assert!(guesses.may_guess(now, address));
            guesses.wrong(now, address);
            guesses.right(now, address);
        }
        assert_eq!(got_through(&mut guesses, now, address), BURST);
    }

    #[test]
    fn ipv6_counts_per_64() {
        let (mut guesses, now) = (Guesses::default(), start());
        assert_eq!(got_through(&mut guesses, now, ip("2001:db8::1")), BURST);
        assert!(!guesses.may_guess(now, ip("2001:db8::2")) && guesses.may_guess(now, ip("2001:db8:0:1::1")));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let (mut guesses, now) = (Guesses::default(), start());
        let worst = ip("192.0.2.7");
        got_through(&mut guesses, now, worst);
        for n in 0..u32::try_from(ADDRESSES_BOUND).unwrap() + 10 {
            guesses.wrong(now, IpAddr::from((0x0A00_0000 + n).to_be_bytes()));
        }
        assert_eq!(guesses.forgotten.len(), ADDRESSES_BOUND);
        assert!(!guesses.may_guess(now, worst));
    }
}
