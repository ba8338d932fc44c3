//! What those who have signed in show from then on.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::accounts::{Account, Accounts, Role};

/// Bytes of a token before it is written as text: nobody guesses that.
const TOKEN_BYTES: usize = 32;
/// Tokens of one account at once; a further one ends the oldest.
const OF_ACCOUNT_MAX: usize = 64;
/// Tokens of all.
const TOKENS_MAX: usize = 4096;

/// Tokens that are good, by their hashes: what is in memory opens nothing.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: HashMap<[u8; 32], Issued>,
}

#[derive(Debug)]
struct Issued {
    user: String,
    /// As it was when they signed in: another password or role ends it.
    account: Account,
    at: Instant,
    until: Instant,
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account's name.
    pub user: String,
    /// What it may do.
    pub role: Role,
}

impl Tokens {
    /// A new token: letters, digits, `-` and `_`.
    pub(super) fn issue(
        &mut self,
        now: Instant,
        user: &str,
        account: &Account,
        life: Duration,
        random: [u8; TOKEN_BYTES],
    ) -> String {
        self.issued.retain(|_, issued| issued.until > now);
        let of_user = self.issued.values().filter(|issued| issued.user == user).count();
        if of_user >= OF_ACCOUNT_MAX {
            self.drop_oldest(|issued| issued.user == user);
        } else if self.issued.len() >= TOKENS_MAX {
            self.drop_oldest(|_| true);
        }
        let token = BASE64_URL_SAFE_NO_PAD.encode(random);
        let issued = Issued { user: user.to_owned(), account: account.clone(), at: now, until: now + life };
        self.issued.insert(hash(&token), issued);
        token
    }

    /// Whose token this is, if it is still good and the account is as it was.
    pub(super) fn caller(&mut self, now: Instant, token: &str, accounts: &Accounts) -> Option<Caller> {
        let key = hash(token);
        let issued = self.issued.get(&key)?;
        if issued.until <= now || accounts.get(&issued.user) != Some(&issued.account) {
            self.issued.remove(&key);
            return None;
        }
        Some(Caller { user: issued.user.clone(), role: issued.account.role })
    }

    /// Ends a token; nothing happens where it is none.
    pub(super) fn revoke(&mut self, token: &str) {
        self.issued.remove(&hash(token));
    }

    /// Ends all tokens of a user.
    pub(super) fn revoke_user(&mut self, user: &str) {
        self.issued.retain(|_, issued| issued.user != user);
    }

    /// How many tokens each user has.
    pub(super) fn by_user(&self, now: Instant) -> BTreeMap<String, usize> {
        let mut users = BTreeMap::new();
        for issued in self.issued.values().filter(|issued| issued.until > now) {
            *users.entry(issued.user.clone()).or_default() += 1;
        }
        users
    }

    fn drop_oldest(&mut self, of: impl Fn(&Issued) -> bool) {
        let oldest = self.issued.iter().filter(|(_, issued)| of(issued)).min_by_key(|(_, issued)| issued.at).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.issued.remove(&key);
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";
    const HOUR: Duration = Duration::from_secs(3600);

    #[expect(clippy::disallowed_methods, reason = "one base for the virtual clock")]
    fn start() -> Instant {
        Instant::now()
    }

    fn accounts(text: &str) -> Accounts {
        Accounts::parse(text, "f").unwrap()
    }

    fn issue(tokens: &mut Tokens, now: Instant, accounts: &Accounts, number: u16) -> String {
        let mut random = [7; TOKEN_BYTES];
        random[..2].copy_from_slice(&number.to_be_bytes());
        tokens.issue(now, "anna", accounts.get("anna").unwrap(), HOUR, random)
    }

    #[test]
    fn a_token_is_good_for_its_time_and_account() {
        let (mut tokens, now) = (Tokens::default(), start());
        let accounts = accounts(&format!("anna:operator:{HASH}"));
        let token = issue(&mut tokens, now, &accounts, 1);
        let caller = Caller { user: "anna".into(), role: Role::Operator };
        assert_eq!(tokens.caller(now, &token, &accounts), Some(caller));
        assert_eq!(tokens.caller(now, &token[1..], &accounts), None);
        assert_eq!(tokens.caller(now + HOUR, &token, &accounts), None);
        assert_eq!(tokens.caller(now, &token, &accounts), None, "it is gone");

        let token = issue(&mut tokens, now, &accounts, 2);
        tokens.revoke(&token);
        assert_eq!(tokens.caller(now, &token, &accounts), None);

        let token = issue(&mut tokens, now, &accounts, 3);
        assert_eq!(tokens.by_user(now), [("anna".to_owned(), 1)].into());
        tokens.revoke_user("berta");
        assert!(tokens.caller(now, &token, &accounts).is_some());
        tokens.revoke_user("anna");
        assert_eq!(tokens.caller(now, &token, &accounts), None);
        assert!(tokens.by_user(now).is_empty());
    }

    #[test]
    fn another_role_or_password_ends_it() {
        for changed in [format!("anna:viewer:{HASH}"), format!("anna:operator:{}", HASH.replace("c2Fs", "c3Fs")), String::new()] {
            let (mut tokens, now) = (Tokens::default(), start());
            let token = issue(&mut tokens, now, &accounts(&format!("anna:operator:{HASH}")), 1);
            assert_eq!(tokens.caller(now, &token, &accounts(&changed)), None, "{changed}");
        }
    }

    #[test]
    fn the_oldest_of_many_goes() {
        let (mut tokens, now) = (Tokens::default(), start());
        let accounts = accounts(&format!("anna:operator:{HASH}"));
        let issued: Vec<_> =
            (0..65u16).map(|n| issue(&mut tokens, now + Duration::from_millis(n.into()), &accounts, n)).collect();
        assert_eq!(tokens.caller(now, &issued[0], &accounts), None);
        assert!(tokens.caller(now, &issued[1], &accounts).is_some() && tokens.caller(now, &issued[64], &accounts).is_some());
    }
}
