//! How often passwords may be tried at control port and console: by address and by name.
//!
//! Counted by address alone, a password withstands one guesser, but not one with a thousand addresses. So wrong ones are counted by
//! the name that they were meant for as well, wherever they come from. That must give no stranger who knows a name the power to keep
//! its owner out, and three rules see to it:
//!
//! - From where a name was signed in before, its count neither holds back nor grows; the limit of the address remains. Owners come from
//!   the same places mostly, and a guesser does not get to be there.
//! - From elsewhere a name that was guessed at too often is not shut: it has one wrong guess every few seconds, for all together, and
//!   what is right takes nothing away.
//! - Who comes between pays for it with a guess of their address. To be ahead of the owner at every turn takes ever more addresses.
//!
//! Whether there is such a name makes no difference, so that nobody learns it here. All of it is in memory: a restart forgets it. The
//! Unix socket asks for no password, and is open to operators whatever goes on.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::relay::admission::{Guesses, limit_key};

/// Wrong guesses that a name has at once, from where it was never signed in: those of five addresses. Of a name that many share some
/// mistype.
const BURST: u32 = 50;
/// After each such time it has one more, which is 17 000 a day: no password that is one is found that way.
const REGAIN: Duration = Duration::from_secs(5);
/// Names that are counted; of more the least guessed at are forgotten.
const NAMES_MAX: usize = 4096;
/// Addresses from which a name was signed in: the latest.
const PLACES_MAX: usize = 16;
/// Names whose addresses are known: those that were signed in last.
const OWNERS_MAX: usize = 1024;

/// By its hash: a guesser's names may be long.
type Name = [u8; 32];

/// Counts those who try passwords.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    by_address: Guesses,
    /// When all wrong guesses at a name are forgotten: each puts it off by [`REGAIN`].
    by_name: HashMap<Name, Instant>,
    owners: HashMap<Name, Owner>,
}

/// Where a name was signed in.
#[derive(Debug)]
struct Owner {
    last: Instant,
    /// As limits count addresses, the latest first.
    places: VecDeque<IpAddr>,
}

/// Why a password is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooMany {
    /// Wrong ones from this address.
    OfAddress,
    /// Wrong ones for this name, from where it was never signed in.
    OfName,
}

/// A password that is looked at; it counts as wrong before it is known to be right.
#[derive(Debug)]
pub(super) struct Attempt {
    address: IpAddr,
    name: Name,
    /// Whether it counts by its name.
    is_counted: bool,
}

impl Throttle {
    /// Whether this address may try a password for this name now. Where the name is what forbids it, the address has one try less.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn check(&mut self, now: Instant, address: IpAddr, user: &str) -> Result<(), TooMany> {
        if !self.by_address.may_guess(now, address) {
            return Err(TooMany::OfAddress);
        }
        let name = hash(user);
        let is_open = self.by_name.get(&name).is_none_or(|at| at.saturating_duration_since(now) <= REGAIN * (BURST - 1));
        if is_open || self.is_place_of(name, address) {
            return Ok(());
        }
        self.by_address.wrong(now, address);
        Err(TooMany::OfName)
    }

    /// The same, and counts the attempt as wrong until [`Throttle::right`]: many at once are not one.
    ///
    /// # Errors
    /// As [`Throttle::check`].
    pub(super) fn begin(&mut self, now: Instant, address: IpAddr, user: &str) -> Result<Attempt, TooMany> {
        self.check(now, address, user)?;
        let name = hash(user);
        let is_counted = !self.is_place_of(name, address);
        self.by_address.wrong(now, address);
        if is_counted {
            self.wrong(now, name);
        }
        Ok(Attempt { address, name, is_counted })
    }

    /// The password was right: this name is signed in from there.
    pub(super) fn right(&mut self, now: Instant, attempt: &Attempt) {
        let Attempt { address, name, is_counted } = *attempt;
        self.by_address.right(now, address);
        if is_counted && let Some(at) = self.by_name.get_mut(&name) {
            match at.checked_sub(REGAIN).filter(|at| *at > now) {
                Some(earlier) => *at = earlier,
                None => drop(self.by_name.remove(&name)),
            }
        }
        if self.owners.len() >= OWNERS_MAX && !self.owners.contains_key(&name) {
            forget_least(&mut self.owners, |owner| owner.last);
        }
        let place = limit_key(address);
        let owner = self.owners.entry(name).or_insert_with(|| Owner { last: now, places: VecDeque::new() });
        owner.last = now;
        owner.places.retain(|known| *known != place);
        owner.places.push_front(place);
        owner.places.truncate(PLACES_MAX);
    }

    fn is_place_of(&self, name: Name, address: IpAddr) -> bool {
        self.owners.get(&name).is_some_and(|owner| owner.places.contains(&limit_key(address)))
    }

    fn wrong(&mut self, now: Instant, name: Name) {
        if self.by_name.len() >= NAMES_MAX && !self.by_name.contains_key(&name) {
            self.by_name.retain(|_, at| *at > now);
            if self.by_name.len() >= NAMES_MAX {
                forget_least(&mut self.by_name, |at| *at);
            }
        }
        let at = self.by_name.entry(name).or_insert(now);
        *at = ((*at).max(now) + REGAIN).min(now + REGAIN * BURST);
    }
}

fn forget_least<V>(of: &mut HashMap<Name, V>, by: impl Fn(&V) -> Instant) {
    let least = of.iter().min_by_key(|(_, value)| by(value)).map(|(name, _)| *name);
    if let Some(name) = least {
        of.remove(&name);
    }
}

fn hash(user: &str) -> Name {
    Sha256::digest(user.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::from((0x0A00_0000 + number).to_be_bytes())
    }

    /// Wrong guesses at a name that get through now, each from an address of its own from `first` on.
    fn got_through(throttle: &mut Throttle, now: Instant, user: &str, first: u32) -> u32 {
        (0..BURST + 10).take_while(|n| throttle.begin(now, ip(first + n), user).is_ok()).count().try_into().unwrap()
    }

    fn sign_in(throttle: &mut Throttle, now: Instant, address: IpAddr, user: &str) -> Result<(), TooMany> {
        let attempt = throttle.begin(now, address, user)?;
        throttle.right(now, &attempt);
        Ok(())
    }

    #[test]
    fn a_name_is_slowed_down_wherever_guesses_come_from() {
        let (mut throttle, now) = (Throttle::default(), start());
        assert_eq!(got_through(&mut throttle, now, "anna", 0), BURST);
        assert_eq!(throttle.begin(now, ip(500), "anna").unwrap_err(), TooMany::OfName);
        assert!(throttle.begin(now, ip(501), "bert").is_ok(), "others do not notice");
        assert_eq!(got_through(&mut throttle, now + REGAIN, "anna", 1000), 1);
        assert_eq!(got_through(&mut throttle, now + HOUR, "anna", 2000), BURST);
    }

    #[test]
    fn a_name_that_is_nobodys_is_slowed_down_alike() {
        let (mut throttle, now) = (Throttle::default(), start());
        for (first, user) in [(0, ""), (100, "none"), (200, "\u{e9}"), (300, &"x".repeat(60_000))] {
            assert_eq!(got_through(&mut throttle, now, user, first), BURST, "{} bytes", user.len());
        }
    }

    #[test]
    fn an_owner_comes_in_from_where_they_were_before() {
        let (mut throttle, now) = (Throttle::default(), start());
        let home = ip(9999);
        sign_in(&mut throttle, now, home, "anna").unwrap();
        let mistype = |throttle: &mut Throttle| {
            for _ in 0..5 {
                throttle.begin(now, home, "anna").unwrap();
            }
        };
        mistype(&mut throttle);
        assert_eq!(got_through(&mut throttle, now, "anna", 0), BURST, "what is mistyped there is the address's alone");
        assert_eq!(sign_in(&mut throttle, now, ip(500), "anna"), Err(TooMany::OfName));
        for _ in 0..100 {
            sign_in(&mut throttle, now, home, "anna").unwrap();
        }
        mistype(&mut throttle);
        assert_eq!(throttle.check(now, home, "anna"), Err(TooMany::OfAddress));
    }

    #[test]
    fn what_is_right_takes_nothing_from_a_name_that_many_share() {
        let (mut throttle, now) = (Throttle::default(), start());
        got_through(&mut throttle, now, "viewers", 0);
        for n in 0..200 {
            sign_in(&mut throttle, now + REGAIN, ip(1000 + n), "viewers").unwrap();
        }
        let owner = &throttle.owners[&hash("viewers")];
        assert_eq!((owner.places.len(), owner.places[0]), (PLACES_MAX, ip(1199)));
    }

    #[test]
    fn to_keep_a_name_shut_costs_addresses() {
        let (mut throttle, now) = (Throttle::default(), start());
        got_through(&mut throttle, now, "anna", 0);
        let stranger = ip(500);
        let refusals: Vec<_> = (0..12).map(|_| throttle.check(now, stranger, "anna").unwrap_err()).collect();
        assert_eq!(refusals.iter().filter(|why| **why == TooMany::OfName).count(), 10, "{refusals:?}");
        // At the name's next turn that address has none.
        assert_eq!(throttle.check(now + REGAIN, stranger, "anna"), Err(TooMany::OfAddress));
        assert_eq!(sign_in(&mut throttle, now + REGAIN, ip(501), "anna"), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_worst() {
        let (mut throttle, now) = (Throttle::default(), start());
        got_through(&mut throttle, now, "anna", 0);
        for n in 0..u32::try_from(NAMES_MAX).unwrap() + 10 {
            let user = format!("user{n}");
            assert_eq!(sign_in(&mut throttle, now + Duration::from_millis(n.into()), ip(1000 + n), &user), Ok(()));
            throttle.begin(now, ip(100_000 + n), &user).unwrap();
        }
        assert_eq!((throttle.by_name.len(), throttle.owners.len()), (NAMES_MAX, OWNERS_MAX));
        assert!(throttle.owners.contains_key(&hash(&format!("user{}", NAMES_MAX + 9))), "the latest");
        assert_eq!(throttle.check(now, ip(500), "anna"), Err(TooMany::OfName));
    }
}
