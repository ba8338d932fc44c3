//! Digest nonces that the server recognises without having stored them, and whose replays it refuses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::target::hex_digit;
use super::users::md5;

/// How long a nonce may wait for its first use.
const UNUSED: Duration = Duration::from_secs(5 * 60);
/// How long a nonce in use may wait for the next one: several requests on a long-lived connection share it.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Nonces whose counts are remembered; only a right password makes one remembered, so this bounds our own users.
const REMEMBERED: usize = 1024;
/// Bytes of a nonce: age in ms, serial number, keyed hash.
const LEN: usize = 8 + 8 + 16;

/// What a nonce that a client used is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceState {
    /// Ours, and not used before in this way.
    Fresh {
        /// Its place among the nonces, for [`Nonces::used`].
        serial: u64,
    },
    /// Not ours, too old, or a replay: the client gets a new one (`stale=true`) and tries again.
    Stale,
}

/// Issues nonces (time, serial number, keyed hash over both) and counts the uses of those that served a login.
#[derive(Debug)]
pub struct Nonces {
    key: [u8; 32],
    epoch: Instant,
    next: u64,
    used: BTreeMap<u64, Use>,
    /// Nonces below are no longer remembered and therefore stale.
    floor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    count: u32,
    last: Instant,
}

impl Nonces {
    /// With a random key; nonces of an earlier key are stale.
    pub const fn new(now: Instant, key: [u8; 32]) -> Self {
        Self { key, epoch: now, next: 0, used: BTreeMap::new(), floor: 0 }
    }

    /// A new nonce: 64 hexadecimal digits.
    pub fn issue(&mut self, now: Instant) -> String {
        let age = u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX);
        let serial = self.next;
        self.next += 1;
        let mut nonce = Vec::with_capacity(LEN);
        nonce.extend(age.to_be_bytes());
        nonce.extend(serial.to_be_bytes());
        nonce.extend(self.seal(age, serial));
        nonce.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Looks a nonce up. `count` is the client's `nc`; without one (RFC 2069) a nonce serves once.
    pub fn look_up(&self, now: Instant, nonce: &str, count: Option<u32>) -> NonceState {
        let Some((age, serial)) = self.open(nonce) else { return NonceState::Stale };
        if serial < self.floor {
            return NonceState::Stale;
        }
        let fresh = match self.used.get(&serial) {
            // Counts must rise: a recorded request that is sent again carries an old one.
            Some(earlier) => {
                count.is_some_and(|count| count > earlier.count) && now.saturating_duration_since(earlier.last) < IDLE
            }
            None => {
                let issued = self.epoch.checked_add(Duration::from_millis(age));
                count != Some(0) && issued.is_some_and(|issued| now.saturating_duration_since(issued) < UNUSED)
            }
        };
        if fresh { NonceState::Fresh { serial } } else { NonceState::Stale }
    }

    /// Notes that a nonce served a login.
    pub fn used(&mut self, now: Instant, serial: u64, count: Option<u32>) {
        self.used.insert(serial, Use { count: count.unwrap_or(u32::MAX), last: now });
        while self.used.len() > REMEMBERED {
            if let Some((oldest, _)) = self.used.pop_first() {
                self.floor = oldest + 1;
            }
        }
    }

    fn open(&self, nonce: &str) -> Option<(u64, u64)> {
        let mut bytes = [0; LEN];
        if nonce.len() != 2 * LEN {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(nonce.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = hex_digit(high)? << 4 | hex_digit(low)?;
        }
        let (age, rest) = bytes.split_first_chunk::<8>()?;
        let (serial, hash) = rest.split_first_chunk::<8>()?;
        let (age, serial) = (u64::from_be_bytes(*age), u64::from_be_bytes(*serial));
        constant_time_eq(&self.seal(age, serial), hash).then_some((age, serial))
    }

    /// HMAC-MD5 (RFC 2104); the key is shorter than MD5's block of 64 bytes.
    fn seal(&self, age: u64, serial: u64) -> [u8; 16] {
        let mut inner = [0x36; 64];
        let mut outer = [0x5C; 64];
        for (pad, key) in inner.iter_mut().zip(self.key) {
            *pad ^= key;
        }
        for (pad, key) in outer.iter_mut().zip(self.key) {
            *pad ^= key;
        }
        let hash = md5(&[&inner, &age.to_be_bytes(), &serial.to_be_bytes()]);
        md5(&[&outer, &hash])
    }
}

/// Compares without a hint, by the time it takes, at where two texts differ. Their lengths are no secret.
pub(super) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    a.len() == b.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn serial(state: NonceState) -> u64 {
        let NonceState::Fresh { serial } = state else { panic!("stale") };
        serial
    }

    #[test]
    fn counts_must_rise() {
        let now = start();
        let mut nonces = Nonces::new(now, [7; 32]);
        let nonce = nonces.issue(now);
        assert_ne!(nonce, nonces.issue(now));
        let first = serial(nonces.look_up(now, &nonce, Some(1)));
        nonces.used(now, first, Some(1));
        assert_eq!(nonces.look_up(now, &nonce, Some(1)), NonceState::Stale);
        assert_eq!(nonces.look_up(now, &nonce, None), NonceState::Stale);
        assert_eq!(nonces.look_up(now, &nonce, Some(2)), NonceState::Fresh { serial: first });
    }

    #[test]
    fn without_a_count_it_serves_once() {
        let now = start();
        let mut nonces = Nonces::new(now, [7; 32]);
        let nonce = nonces.issue(now);
        let first = serial(nonces.look_up(now, &nonce, None));
        nonces.used(now, first, None);
        assert_eq!(nonces.look_up(now, &nonce, None), NonceState::Stale);
        assert_eq!(nonces.look_up(now, &nonce, Some(9)), NonceState::Stale);
    }

    #[test]
    fn ages() {
        let now = start();
        let mut nonces = Nonces::new(now, [7; 32]);
        let nonce = nonces.issue(now + Duration::from_secs(9));
        let late = now + Duration::from_secs(9) + UNUSED;
        assert_eq!(nonces.look_up(late, &nonce, Some(1)), NonceState::Stale);
        let first = serial(nonces.look_up(late - Duration::from_secs(1), &nonce, Some(1)));
        nonces.used(late, first, Some(1));
        assert_eq!(nonces.look_up(late + IDLE - Duration::from_secs(1), &nonce, Some(2)), NonceState::Fresh { serial: first });
        assert_eq!(nonces.look_up(late + IDLE, &nonce, Some(2)), NonceState::Stale);
    }

    #[test]
    fn foreign_and_altered_nonces_are_stale() {
        let now = start();
        let mut nonces = Nonces::new(now, [7; 32]);
        let nonce = nonces.issue(now);
        assert_eq!(Nonces::new(now, [8; 32]).look_up(now, &nonce, Some(1)), NonceState::Stale);
        for at in 0..nonce.len() {
            let mut altered = nonce.clone().into_bytes();
            altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(nonces.look_up(now, &String::from_utf8(altered).unwrap(), Some(1)), NonceState::Stale);
            assert_eq!(nonces.look_up(now, &nonce[..at], Some(1)), NonceState::Stale);
        }
    }

    #[test]
    fn forgotten_nonces_are_stale_and_memory_is_bounded() {
        let now = start();
        let mut nonces = Nonces::new(now, [7; 32]);
        let first = nonces.issue(now);
        let of_first = serial(nonces.look_up(now, &first, Some(1)));
        nonces.used(now, of_first, Some(1));
        for _ in 0..REMEMBERED {
            let nonce = nonces.issue(now);
            let of_nonce = serial(nonces.look_up(now, &nonce, Some(1)));
            nonces.used(now, of_nonce, Some(1));
        }
        assert_eq!(nonces.used.len(), REMEMBERED);
        assert_eq!(nonces.look_up(now, &first, Some(2)), NonceState::Stale);
    }

    #[test]
    fn hmac_vector_of_rfc_2104() {
        // Its first vector: key 16 × 0x0B, data "Hi There". The seal hashes 16 bytes, so the construction is checked on its parts.
        let mut inner = [0x36; 64];
        let mut outer = [0x5C; 64];
        for at in 0..16 {
            inner[at] ^= 0x0B;
            outer[at] ^= 0x0B;
        }
        let hash = md5(&[&outer, &md5(&[&inner, b"Hi There"])]);
        assert_eq!(hash, *b"\x92\x94\x72\x7a\x36\x38\xbb\x1c\x13\xf4\x8e\xf8\x15\x8b\xfc\x9d");
    }
}
