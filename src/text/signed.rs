//! Signed URLs: a key in the query (`?k=…`) opens one name, or all names below one, until a time, for anybody or one address.
//!
//! The key is 48 hexadecimal digits: no player, shell, proxy or path can hurt them, not even by changing their case. In bytes:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 1 | depth: 0 for the name itself, else so many parts of the name, and all that is below them |
//! | 1 | bytes of the address that it is bound to: 0, 4 or 16; the address itself is the viewer's |
//! | 5 | the time it ends, seconds of Unix time, big-endian |
//! | 16 | the first half of HMAC-SHA-256 over all that |
//!
//! What is hashed is the first two bytes and then, each behind its length in 4 bytes: the name that was signed, the time in 8
//! bytes, the address. So no two claims give the same bytes.

use std::fmt;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::nonce::constant_time_eq;
use super::target::hex_digit;

const VERSION: u8 = 1;
/// Bytes of a secret.
const SECRET_LEN: usize = 32;
/// Bytes of the hash that a key carries.
const MAC_LEN: usize = 16;
/// Bytes of a key.
const KEY_LEN: usize = 8 + MAC_LEN;
/// Secrets of one file: each costs a hash for a wrong key.
const SECRETS_BOUND: usize = 16;
/// Times beyond do not fit a key; it is the year 36,812.
const TIME_BOUND: u64 = 1 << 40;

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// A name, without leading slash; with a slash at its end all names below it, and not the name itself.
    pub name: &'a str,
    /// When it ends, seconds of Unix time.
    pub ends_unix_s: u64,
    /// The only address that it is good for.
    pub address: Option<IpAddr>,
}

/// Why nothing can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// There is no name, or nothing before its slash.
    #[error("the name is empty")]
    NoName,
    /// More folders than a key can count.
    #[error("the name has more than 255 parts")]
    Deep,
    /// A time that has no room.
    #[error("the time is too far away")]
    Late,
}

/// Why a key does not open a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// It is no key, or one for something or somebody else.
    Wrong,
    /// It was right.
    Expired,
}

/// Why a file of secrets is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// A line of the file. What stands there is not repeated.
    #[error("{file}:{line}: {reason}")]
    Line {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: &'static str,
    },
    /// There is no secret in it.
    #[error("{file}: there is no key in it; `wmrelay sign --new-key FILE` writes a file with one")]
    Empty {
        /// The file, as it was named.
        file: String,
    },
}

/// The secrets that sign: the first makes keys, all are good for checking them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    secrets: Vec<[u8; SECRET_LEN]>,
}

/// Whoever has a secret can sign, so it stays out of logs.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.secrets.len())
    }
}

impl Secrets {
    /// Reads a file of secrets: 64 hexadecimal digits a line; empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// A line that is no secret, or one that is there already; none at all, or more than 16.
    pub fn parse(text: &str, file: &str) -> Result<Self, SecretsError> {
        let mut secrets = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |reason| SecretsError::Line { file: file.to_owned(), line: index + 1, reason };
            let secret = from_hex::<SECRET_LEN>(line.as_bytes());
            let secret =
                secret.ok_or_else(|| refuse("expected 64 hexadecimal digits; `wmrelay sign --new-key FILE` makes them"))?;
            if secrets.contains(&secret) {
                return Err(refuse("this key is in a line above; keep one of the two"));
            }
            if secrets.len() == SECRETS_BOUND {
                return Err(refuse("there are more than 16 keys; take out those that no address is signed by any more"));
            }
            secrets.push(secret);
        }
        if secrets.is_empty() { Err(SecretsError::Empty { file: file.to_owned() }) } else { Ok(Self { secrets }) }
    }

    /// The text of a file with this one secret, which is to be random.
    pub fn file_of(secret: [u8; 32]) -> String {
        format!("# Keys of signed addresses, one a line. The first signs, all are good. Keep them secret.\n{}\n", hex(&secret))
    }

    /// The key of a claim.
    ///
    /// # Errors
    /// [`ClaimError`]: there is no such claim.
    pub fn sign(&self, claim: &Claim<'_>) -> Result<String, ClaimError> {
        if claim.name.is_empty() || claim.name.starts_with('/') {
            return Err(ClaimError::NoName);
        }
        let parts = if claim.name.ends_with('/') { claim.name.matches('/').count() } else { 0 };
        let depth = u8::try_from(parts).map_err(|_| ClaimError::Deep)?;
        if claim.ends_unix_s >= TIME_BOUND {
            return Err(ClaimError::Late);
        }
        let address = octets(claim.address);
        let [_, _, _, time @ ..] = claim.ends_unix_s.to_be_bytes();
        let mut key = vec![VERSION, depth, u8::try_from(address.len()).unwrap_or_default()];
        key.extend(time);
        // There is one: it was counted when they were read.
        let secret = self.secrets.first().unwrap_or(&[0; SECRET_LEN]);
        key.extend(mac(secret, depth, claim.name, claim.ends_unix_s, &address));
        Ok(hex(&key))
    }

    /// Whether a key opens a name for a viewer at an address, at a time in seconds of Unix time.
    ///
    /// How long it takes tells nothing about what the right key would be.
    ///
    /// # Errors
    /// [`KeyRefusal`].
    pub fn check(&self, key: &str, name: &str, address: IpAddr, unix_s: u64) -> Result<(), KeyRefusal> {
        let key = from_hex::<KEY_LEN>(key.as_bytes()).ok_or(KeyRefusal::Wrong)?;
        let [VERSION, depth, bound, time @ ..] = key else { return Err(KeyRefusal::Wrong) };
        let (time, given) = time.split_first_chunk::<5>().ok_or(KeyRefusal::Wrong)?;
        let [a, b, c, d, e] = *time;
        let ends_unix_s = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        let address = if bound == 0 { Vec::new() } else { octets(Some(address)) };
        if address.len() != usize::from(bound) {
            return Err(KeyRefusal::Wrong);
        }
        let scope = scope(name, depth).ok_or(KeyRefusal::Wrong)?;
        let is_good = |secret| constant_time_eq(&mac(secret, depth, scope, ends_unix_s, &address), given);
        // All of them, so that time does not tell which one signed.
        let good = self.secrets.iter().filter(|secret| is_good(secret)).count() > 0;
        match (good, unix_s < ends_unix_s) {
            (true, true) => Ok(()),
            (true, false) => Err(KeyRefusal::Expired),
            (false, _) => Err(KeyRefusal::Wrong),
        }
    }
}

/// What must have been signed so that a key of this depth opens a name: the name, or so many parts of it with the slash behind
/// them, if something follows.
fn scope(name: &str, depth: u8) -> Option<&str> {
    let Some(last) = usize::from(depth).checked_sub(1) else { return Some(name) };
    let (slash, _) = name.match_indices('/').nth(last)?;
    let (scope, below) = name.split_at_checked(slash + 1)?;
    (!below.is_empty()).then_some(scope)
}

fn mac(secret: &[u8; SECRET_LEN], depth: u8, name: &str, ends_unix_s: u64, address: &[u8]) -> [u8; MAC_LEN] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&[VERSION, depth]);
    for field in [name.as_bytes(), &ends_unix_s.to_be_bytes(), address] {
        mac.update(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        mac.update(field);
    }
    let hash: [u8; 32] = mac.finalize().into_bytes().into();
    let mut half = [0; MAC_LEN];
    half.copy_from_slice(hash.split_at(MAC_LEN).0);
    half
}

/// IPv4 in IPv6 clothes is IPv4.
fn octets(address: Option<IpAddr>) -> Vec<u8> {
    match address.map(|address| address.to_canonical()) {
        None => Vec::new(),
        Some(IpAddr::V4(v4)) => v4.octets().to_vec(),
        Some(IpAddr::V6(v6)) => v6.octets().to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = hex_digit(high)? << 4 | hex_digit(low)?;
    }
    Some(bytes)
}

/// The key in the query of a URL: the letters and digits of its first `k`. Players and proxies append what they like to it.
pub fn key_of(query: &str) -> Option<&str> {
    let value = query.split(['&', ';']).find_map(|parameter| parameter.strip_prefix("k="))?;
    let end = value.bytes().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(value.len());
    value.get(..end).filter(|key| !key.is_empty())
}

/// A text for a log: what stands behind `k=` in it, wherever that is, is left out. Takes time in proportion to the text.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = key_begin(rest) {
        let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, ""));
        let end = behind.bytes().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(behind.len());
        out.push_str(before);
        out.push_str(if end > 0 { "***" } else { "" });
        rest = behind.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Where the first key of a text begins. Looks at nothing behind that.
fn key_begin(text: &str) -> Option<usize> {
    // With the equals sign as it is, and escaped once and twice, as in a URL within a log within a URL.
    const MARKS: [&[u8]; 3] = [b"k=", b"k%3d", b"k%253d"];
    // These end with a letter or a digit, and a parameter begins behind them all the same.
    const BEFORE: [&[u8]; 4] = [b"%3f", b"%26", b"%253f", b"%2526"];
    let bytes = text.as_bytes();
    let is_mark = |at: usize, mark: &[u8]| bytes.get(at..at + mark.len()).is_some_and(|part| part.eq_ignore_ascii_case(mark));
    let begins_parameter = |at: usize| {
        let before = bytes.get(..at).unwrap_or_default();
        let escaped = |escape: &&[u8]| {
            let part = before.len().checked_sub(escape.len()).and_then(|from| before.get(from..));
            part.is_some_and(|part| part.eq_ignore_ascii_case(escape))
        };
        !before.last().is_some_and(u8::is_ascii_alphanumeric) || BEFORE.iter().any(escaped)
    };
    (0..bytes.len()).find_map(|at| {
        let mark = MARKS.iter().find(|mark| is_mark(at, mark))?;
        begins_parameter(at).then_some(at + mark.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::split_query;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;
    const VIEWER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn secrets(seeds: &[u8]) -> Secrets {
        let text: String = seeds.iter().map(|seed| hex(&[*seed; 32]) + "\n").collect();
        Secrets::parse(&text, "keys").unwrap()
    }

    fn sign(name: &str, ends_unix_s: u64, address: Option<IpAddr>) -> String {
        secrets(&[7]).sign(&Claim { name, ends_unix_s, address }).unwrap()
    }

    fn check(key: &str, name: &str) -> Result<(), KeyRefusal> {
        secrets(&[7]).check(key, name, VIEWER, NOW)
    }

    /// Reckoned with Python's `hmac` from the table at the head of this file.
    #[test]
    fn golden() {
        assert_eq!(sign("cam1", NOW, None), "010000006553f10000c5501b495b2eb7c440886cc37bec8c");
        assert_eq!(sign("archive/", NOW, Some(VIEWER)), "010104006553f100b7af9e4504b24ee26c484f3c287b5af6");
        let v6 = "2001:db8::1".parse().unwrap();
        assert_eq!(sign("K\u{f6}ln", NOW, Some(v6)), "010010006553f1008a285c709e03ca5dbc0cf1c1697411a8");
    }

    #[test]
    fn one_name_or_all_below() {
        let (exact, below) = (sign("a/b", NOW + 1, None), sign("a/", NOW + 1, None));
        let wrong = Err(KeyRefusal::Wrong);
        for (key, name, expected) in [
            (&exact, "a/b", Ok(())),
            (&exact, "a/B", wrong),
            (&exact, "a/b/c", wrong),
            (&exact, "a/b/", wrong),
            (&exact, "a", wrong),
            (&exact, "", wrong),
            (&below, "a/b", Ok(())),
            (&below, "a/b/c", Ok(())),
            (&below, "a", wrong),
            (&below, "a/", wrong),
            (&below, "ab/c", wrong),
            (&below, "b/a/b", wrong),
        ] {
            assert_eq!(check(key, name), expected, "{name:?}");
        }
        assert_eq!(check(&sign("a/b/", NOW + 1, None), "a/c"), wrong);
        // A key for all below is none for a name of that form, and the other way round.
        assert_eq!(check(&format!("0100{}", &below[4..]), "a/"), wrong);
        assert_eq!(check(&format!("0101{}", &exact[4..]), "a/b"), wrong);
        assert_eq!(check(&exact.to_ascii_uppercase(), "a/b"), Ok(()), "players may change the case");
    }

    #[test]
    fn times_and_addresses() {
        let key = sign("a", NOW, None);
        assert_eq!(secrets(&[7]).check(&key, "a", VIEWER, NOW - 1), Ok(()));
        assert_eq!(secrets(&[7]).check(&key, "a", VIEWER, NOW), Err(KeyRefusal::Expired));
        assert_eq!(
            secrets(&[7]).check(&key, "b", VIEWER, NOW),
            Err(KeyRefusal::Wrong),
            "who expired is told of right keys alone"
        );
        for (bound, viewer, expected) in [
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.7", "::c000:207", false),
            ("2001:db8::1", "2001:db8::1", true),
            ("2001:db8::1", "2001:db8::2", false),
        ] {
            let key = sign("a", NOW + 9, Some(bound.parse().unwrap()));
            assert_eq!(secrets(&[7]).check(&key, "a", viewer.parse().unwrap(), NOW).is_ok(), expected, "{bound} {viewer}");
            // Taking the address off does not help.
            assert!(check(&format!("010000{}", &key[6..]), "a").is_err());
        }
        let far = Claim { name: "a", ends_unix_s: TIME_BOUND, address: None };
        assert_eq!(secrets(&[7]).sign(&far), Err(ClaimError::Late));
        for name in ["", "/", "/a"] {
            assert_eq!(secrets(&[7]).sign(&Claim { name, ends_unix_s: NOW, address: None }), Err(ClaimError::NoName));
        }
        let deep = "a/".repeat(256);
        assert_eq!(secrets(&[7]).sign(&Claim { name: &deep, ends_unix_s: NOW, address: None }), Err(ClaimError::Deep));
    }

    #[test]
    fn the_first_secret_signs_and_all_check() {
        let key = sign("a", NOW + 9, None);
        assert_eq!(secrets(&[8, 7]).check(&key, "a", VIEWER, NOW), Ok(()));
        assert_eq!(secrets(&[8]).check(&key, "a", VIEWER, NOW), Err(KeyRefusal::Wrong));
        let newer = secrets(&[8, 7]).sign(&Claim { name: "a", ends_unix_s: NOW + 9, address: None }).unwrap();
        assert_eq!(check(&newer, "a"), Err(KeyRefusal::Wrong));
    }

    #[test]
    fn files_of_secrets() {
        let good = hex(&[9; 32]);
        let read = Secrets::parse(&format!("# old\n\n {good} \n"), "f").unwrap();
        assert_eq!((read.secrets.as_slice(), format!("{read:?}")), ([[9; 32]].as_slice(), "Secrets(1)".to_owned()));
        assert_eq!(Secrets::parse(&Secrets::file_of([9; 32]), "f").unwrap().secrets, [[9; 32]]);
        let told = |text: &str| Secrets::parse(text, "f").unwrap_err().to_string();
        assert!(told("").starts_with("f: there is no key"));
        let short = told(&format!("{good}\n{}", &good[2..]));
        assert!(short.starts_with("f:2: expected 64") && !short.contains("0909"), "{short}");
        assert!(told(&format!("{good}\n{}", good.to_uppercase())).starts_with("f:2: this key"));
        let many: String = (0..=16).map(|seed| hex(&[seed; 32]) + "\n").collect();
        assert!(told(&many).starts_with("f:17: there are more"));
    }

    /// Laid end to end without their lengths, these are the same bytes.
    #[test]
    fn claims_do_not_run_into_one_another() {
        let one = mac(&[7; 32], 0, "a", 1, &[192, 0, 2, 7]);
        let other = mac(&[7; 32], 0, "a\0\0\0\0", u64::from_be_bytes([0, 0, 0, 1, 192, 0, 2, 7]), &[]);
        assert_ne!(one, other);
    }

    #[test]
    fn keys_in_queries_and_names() {
        for (query, key) in [
            ("k=ab", Some("ab")),
            ("WMCache=0&k=ab&x=y", Some("ab")),
            ("k=ab.asx", Some("ab")),
            ("k=ab?MSWMExt=.asf", Some("ab")),
            ("x=k=ab", None),
            ("xk=ab", None),
            ("k=", None),
            ("k", None),
            ("", None),
        ] {
            assert_eq!(key_of(query), key, "{query}");
        }
        for (name, split) in [
            ("a?k=1", ("a", Some("1"))),
            ("what?.wmv?k=1", ("what?.wmv", Some("1"))),
            ("a?k=1?MSWMExt=.asf", ("a", Some("1"))),
            ("a?b&k=1", ("a", Some("1"))),
            ("what?.wmv", ("what?.wmv", None)),
            ("a?k=", ("a?k=", None)),
            ("ak=1", ("ak=1", None)),
            ("\u{e4}?", ("\u{e4}?", None)),
        ] {
            let (bare, key, _) = split_query(name);
            assert_eq!((bare, key), split, "{name}");
        }
    }

    #[test]
    fn keys_stay_out_of_logs() {
        for (text, told) in [
            ("k=ab12", "k=***"),
            ("mms://h/a?k=ab12&x=1", "mms://h/a?k=***&x=1"),
            ("/a?x&K=ab12 200", "/a?x&K=*** 200"),
            ("http%3A%2F%2Fh%2Fa%3Fk%3Dab12%26x", "http%3A%2F%2Fh%2Fa%3Fk%3D***%26x"),
            ("a%253Fk%253Dab12", "a%253Fk%253D***"),
            ("k=1 k=2", "k=*** k=***"),
            ("network=fast", "network=fast"),
            ("k=", "k="),
            ("k=a%26K%3Db%2526k%253Dc", "k=***%26K%3D***%2526k%253D***"),
            ("xk=1 %3fk=2 a%20k=3", "xk=1 %3fk=*** a%20k=3"),
            ("k=k=k=", "k=***=k="),
            ("K\u{f6}ln?k=\u{f6}", "K\u{f6}ln?k=\u{f6}"),
        ] {
            assert_eq!(masked(text), told, "{text}");
        }
    }

    /// A text that is all marks is looked at once; to look at the rest again for each would take minutes.
    #[test]
    fn marks_without_end_take_no_time() {
        let text = "&k=".repeat(1 << 19);
        assert_eq!(masked(&text), text);
    }

    proptest! {
        #[test]
        fn a_key_opens_what_it_was_signed_for_and_nothing_else(
            name in "[a-z]{1,3}(/[a-z]{1,3}){0,2}/?",
            other in "[a-z]{1,3}(/[a-z]{1,3}){0,3}",
            ends in 1..TIME_BOUND,
            now in 0..TIME_BOUND,
            bound in proptest::option::of(0..3u8),
            viewer in 0..3u8,
        ) {
            let address = |last| IpAddr::from([192, 0, 2, last]);
            let key = sign(&name, ends, bound.map(address));
            let named = if name.ends_with('/') { other.starts_with(&name) } else { other == name };
            let opens = named && now < ends && bound.is_none_or(|bound| bound == viewer);
            prop_assert_eq!(secrets(&[7]).check(&key, &other, address(viewer), now).is_ok(), opens);
            let own = if name.ends_with('/') { format!("{name}x") } else { name };
            prop_assert!(secrets(&[7]).check(&key, &own, address(bound.unwrap_or(viewer)), ends - 1).is_ok());
        }

        #[test]
        fn a_changed_key_opens_nothing(at in 0..48usize, digit in 0..16u32) {
            let key = sign("a/b", NOW + 100, None);
            let mut changed = key.clone().into_bytes();
            changed[at] = u8::try_from(char::from_digit(digit, 16).unwrap()).unwrap();
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(check(&changed, "a/b").is_ok(), changed == key);
        }

        #[test]
        fn any_text_is_a_key_or_none(key in ".{0,60}", hex in "[0-9a-fA-F]{48}", name in ".{0,20}") {
            prop_assert!(check(&key, &name).is_err());
            prop_assert!(check(&hex, &name).is_err());
            let _ = key_of(&key);
            let (bare, found, _) = split_query(&key);
            prop_assert!(key.starts_with(bare) && (found.is_some() || bare == key));
            prop_assert!(key_begin(&masked(&key)).is_none_or(|_| masked(&masked(&key)) == masked(&key)));
        }
    }
}
