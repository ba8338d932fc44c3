//! Who is it? Checks credentials against the users file and writes the challenges.

use std::time::Instant;

use super::digest::{Credentials, CredentialsError};
use super::nonce::{NonceState, Nonces, constant_time_eq};
use super::users::{Ha1, Users};

/// The users, and the nonces they log in with.
#[derive(Debug)]
pub struct Authenticator {
    users: Users,
    nonces: Nonces,
    /// Stands in for a user that does not exist, so that the answer takes as long.
    nobody: Ha1,
}

/// What credentials are worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are right.
    Granted {
        /// The user's name.
        user: String,
    },
    /// They are wrong, or of a scheme that was not offered.
    Denied,
    /// Right, but the nonce was used up: a challenge with `stale=true` lets the client try again without asking a person.
    Stale,
}

impl Authenticator {
    /// `key` is random; it seals the nonces.
    pub fn new(now: Instant, users: Users, key: [u8; 32]) -> Self {
        Self { users, nonces: Nonces::new(now, key), nobody: Ha1::new("", "", "") }
    }

    /// The realm of the users.
    pub fn realm(&self) -> &str {
        self.users.realm()
    }

    /// The values of the `WWW-Authenticate` fields, the better scheme first.
    ///
    /// RFC 7616 3.3, RFC 7617 2.
    pub fn challenges(&mut self, now: Instant, stale: bool) -> Vec<String> {
        let realm = self.users.realm().to_owned();
        let stale = if stale { ", stale=true" } else { "" };
        let nonce = self.nonces.issue(now);
        vec![
            format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", qop=\"auth\", algorithm=MD5{stale}"),
            format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
        ]
    }

    /// Checks the value of an `Authorization` field of a request with this method and target.
    ///
    /// The target is that of the request line, byte for byte: a proof for one name opens no other.
    ///
    /// # Errors
    /// The field cannot be read.
    pub fn check(&mut self, now: Instant, method: &str, target: &str, authorization: &str) -> Result<Verdict, CredentialsError> {
        match Credentials::parse(authorization)? {
            Credentials::Other => Ok(Verdict::Denied),
            Credentials::Basic { user, password } => {
                let known = self.users.ha1(&user);
                let offered = Ha1::new(&user, self.users.realm(), &password);
                let equal = constant_time_eq(known.unwrap_or(&self.nobody).bytes(), offered.bytes());
                Ok(if equal && known.is_some() { Verdict::Granted { user } } else { Verdict::Denied })
            }
            Credentials::Digest(response) => {
                let known = self.users.ha1(&response.user);
                let proven = response.proves(known.unwrap_or(&self.nobody), method);
                if !proven || known.is_none() || response.realm != self.users.realm() || response.uri != target {
                    return Ok(Verdict::Denied);
                }
                let count = response.auth.as_ref().map(|auth| auth.count);
                Ok(match self.nonces.look_up(now, &response.nonce, count) {
                    NonceState::Fresh { serial } => {
                        self.nonces.used(now, serial, count);
                        Verdict::Granted { user: response.user }
                    }
                    NonceState::Stale => Verdict::Stale,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::users::md5;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
    fn start() -> Instant {
        Instant::now()
    }

    fn authenticator(now: Instant) -> Authenticator {
        let file = Users::line("cam", "studio", "secret").unwrap();
        Authenticator::new(now, Users::parse(&file, "users").unwrap(), [3; 32])
    }

    fn hex(bytes: [u8; 16]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a client with this password answers.
    fn answer(challenge: &str, password: &str, uri: &str, count: u32) -> String {
        let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
        let ha2 = hex(md5(&[b"POST:", uri.as_bytes()]));
        let text = format!("{}:{nonce}:{count:08x}:c0:auth:{ha2}", Ha1::new("cam", "studio", password));
        let response = hex(md5(&[text.as_bytes()]));
        format!(
            "Digest username=\"cam\", realm=\"studio\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", \
             qop=auth, nc={count:08x}, cnonce=\"c0\""
        )
    }

    #[test]
    fn digest_from_challenge_to_grant() {
        let now = start();
        let mut authenticator = authenticator(now);
        let challenges = authenticator.challenges(now, false);
        assert!(challenges[0].starts_with("Digest realm=\"studio\", nonce=\"") && !challenges[0].contains("stale"));
        assert_eq!(challenges[1], "Basic realm=\"studio\", charset=\"UTF-8\"");
        let mut check = |target: &str, field: &str| authenticator.check(now, "POST", target, field).unwrap();
        let right = answer(&challenges[0], "secret", "/publish/a", 1);
        assert_eq!(check("/publish/a", &answer(&challenges[0], "wrong", "/publish/a", 1)), Verdict::Denied);
        assert_eq!(check("/publish/b", &right), Verdict::Denied);
        assert_eq!(check("/publish/%61", &right), Verdict::Denied);
        assert_eq!(check("/publish/a", &right), Verdict::Granted { user: "cam".into() });
        assert_eq!(check("/publish/a", &right), Verdict::Stale);
        assert_eq!(
            check("/publish/a", &answer(&challenges[0], "secret", "/publish/a", 2)),
            Verdict::Granted { user: "cam".into() }
        );
    }

    #[test]
    fn a_wrong_password_does_not_use_up_the_nonce() {
        let now = start();
        let mut authenticator = authenticator(now);
        let challenges = authenticator.challenges(now, true);
        assert!(challenges[0].ends_with("stale=true"));
        let wrong = answer(&challenges[0], "wrong", "/", 7);
        assert_eq!(authenticator.check(now, "POST", "/", &wrong), Ok(Verdict::Denied));
        let right = answer(&challenges[0], "secret", "/", 1);
        assert_eq!(authenticator.check(now, "POST", "/", &right), Ok(Verdict::Granted { user: "cam".into() }));
    }

    #[test]
    fn basic() {
        let now = start();
        let mut authenticator = authenticator(now);
        for (pair, verdict) in [
            ("cam:secret", Verdict::Granted { user: "cam".into() }),
            ("cam:secre", Verdict::Denied),
            ("can:secret", Verdict::Denied),
            (":", Verdict::Denied),
        ] {
            let field = format!("Basic {}", STANDARD.encode(pair));
            assert_eq!(authenticator.check(now, "PUT", "/", &field), Ok(verdict), "{pair}");
        }
        assert_eq!(authenticator.check(now, "PUT", "/", "Negotiate abc"), Ok(Verdict::Denied));
        assert!(authenticator.check(now, "PUT", "/", "Digest").is_err());
    }
}
