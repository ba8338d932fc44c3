//! Logging in at another server: what answers its challenge.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::digest::{hex, parameters};
use super::users::{Ha1, md5};

/// Longest challenge that is looked at, bytes.
const CHALLENGE_BOUND: usize = 4 << 10;

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; no colon where the server wants Basic.
    pub user: String,
    /// The password, in the clear.
    pub password: String,
}

/// It stays out of logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What a server wants for a login: the best of what it offers that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password as they are (RFC 7617).
    Basic,
    /// A proof of the password (RFC 7616), by MD5.
    Digest {
        /// What the password is for.
        realm: String,
        /// The server's number.
        nonce: String,
        /// What the server wants back as it is.
        opaque: Option<String>,
        /// `qop=auth`; without it, the form of RFC 2069.
        auth: bool,
        /// The nonce before this one was too old; the password was right.
        stale: bool,
    },
}

impl Challenge {
    /// The best one of the values of all `WWW-Authenticate` fields: Digest, else Basic. `None` where there is neither.
    ///
    /// A field may hold several challenges; those that cannot be read are passed over.
    pub fn best<'a>(fields: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let digest = fields.clone().filter(|field| field.len() <= CHALLENGE_BOUND).find_map(Self::digest_in);
        digest.or_else(|| fields.clone().any(|field| scheme_at(field, "basic").is_some()).then_some(Self::Basic))
    }

    fn digest_in(field: &str) -> Option<Self> {
        let mut rest = field;
        while let Some(at) = scheme_at(rest, "digest") {
            let own = rest.get(at + "digest".len()..).unwrap_or_default();
            // Another challenge may stand behind it.
            let end = ["basic", "ntlm", "negotiate", "digest", "bearer"].iter().filter_map(|scheme| scheme_at(own, scheme)).min();
            let (own, behind) = own.split_at(end.unwrap_or(own.len()));
            if let Some(challenge) = Self::digest_of(own) {
                return Some(challenge);
            }
            rest = behind;
        }
        None
    }

    fn digest_of(text: &str) -> Option<Self> {
        let parameters = parameters(text).ok()?;
        let find =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        if find("algorithm").is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("MD5")) {
            return None;
        }
        let auth = match find("qop") {
            None => false,
            Some(list) if list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case("auth")) => true,
            Some(_) => return None,
        };
        Some(Self::Digest {
            realm: find("realm")?.to_owned(),
            nonce: find("nonce")?.to_owned(),
            opaque: find("opaque").map(str::to_owned),
            auth,
            stale: find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// Whether another try makes sense though the last one was refused.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Digest { stale: true, .. })
    }

    /// The value of an `Authorization` field for a request with this method and target. `count`: how often this challenge was
    /// answered, this time included; `cnonce`: a word that nobody can foresee, of letters and digits.
    ///
    /// RFC 7616 3.4, RFC 2069 2.1.2, RFC 7617 2.
    pub fn answer(&self, login: &Login, method: &str, target: &str, count: u32, cnonce: &str) -> String {
        let Self::Digest { realm, nonce, opaque, auth, .. } = self else {
            return format!("Basic {}", STANDARD.encode(format!("{}:{}", login.user, login.password)));
        };
        let ha1 = Ha1::new(&login.user, realm, &login.password);
        let ha2 = hex(md5(&[method.as_bytes(), b":", target.as_bytes()]));
        let proof = |text: String| hex(md5(&[text.as_bytes()]));
        let (response, qop) = if *auth {
            let response = proof(format!("{ha1}:{nonce}:{count:08x}:{cnonce}:auth:{ha2}"));
            (response, format!(", qop=auth, nc={count:08x}, cnonce=\"{cnonce}\""))
        } else {
            (proof(format!("{ha1}:{nonce}:{ha2}")), String::new())
        };
        let opaque = opaque.as_ref().map_or_else(String::new, |opaque| format!(", opaque={}", quoted(opaque)));
        let [user, realm, nonce, target] = [&login.user, realm, nonce, target].map(quoted);
        format!(
            "Digest username={user}, realm={realm}, nonce={nonce}, uri={target}, algorithm=MD5, response=\"{response}\"{qop}{opaque}"
        )
    }
}

/// A quoted string; what would break out of its line is left out.
fn quoted(text: impl AsRef<str>) -> String {
    let mut out = String::from("\"");
    for c in text.as_ref().chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Where the name of a scheme stands: at the begin, or behind a comma, followed by a space or the end. Not within quotes.
fn scheme_at(text: &str, scheme: &str) -> Option<usize> {
    let (mut quoted, mut begins) = (false, true);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => (quoted, begins) = (!quoted, false),
            _ if quoted => {}
            b',' => begins = true,
            b' ' | b'\t' => {}
            _ if begins => {
                let rest = text.get(at..).unwrap_or_default();
                let is_it = rest.get(..scheme.len()).is_some_and(|word| word.eq_ignore_ascii_case(scheme));
                if is_it && rest.as_bytes().get(scheme.len()).is_none_or(|next| matches!(next, b' ' | b'\t' | b',')) {
                    return Some(at);
                }
                begins = false;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn login(user: &str, password: &str) -> Login {
        Login { user: user.into(), password: password.into() }
    }

    fn best(fields: &[&str]) -> Option<Challenge> {
        Challenge::best(fields.iter().copied())
    }

    #[test]
    fn rfc_2617_3_5() {
        let field = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
                     opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"";
        let answer = best(&[field]).unwrap().answer(&login("Mufasa", "Circle Of Life"), "GET", "/dir/index.html", 1, "0a4f113b");
        assert!(answer.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{answer}");
        assert!(answer.ends_with("qop=auth, nc=00000001, cnonce=\"0a4f113b\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""));
    }

    #[test]
    fn rfc_7616_3_9_1_offers_a_digest_that_is_passed_over() {
        let common = "realm=\"http-auth@example.org\", qop=\"auth, auth-int\", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                      opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let offers = [format!("Digest {common}, algorithm=SHA-256"), format!("Digest {common}, algorithm=MD5")];
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for fields in [vec![offers[0].as_str(), &offers[1]], vec![&offers.join(", ")]] {
            let answer = best(&fields).unwrap().answer(&login("Mufasa", "Circle of Life"), "GET", "/dir/index.html", 1, cnonce);
            assert!(answer.contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""), "{answer}");
        }
    }

    #[test]
    fn rfc_7617_2_and_what_is_better() {
        let answer = |fields: &[&str]| best(fields).map(|best| best.answer(&login("Aladdin", "open sesame"), "GET", "/", 1, "c"));
        assert_eq!(answer(&["Basic realm=\"WallyWorld\""]).as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        for fields in [
            &["NTLM", "Basic realm=\"a, Digest x\", Digest realm=\"r\", nonce=\"n\""][..],
            &["basic realm=a", "digest realm=r, nonce=n"],
        ] {
            assert!(answer(fields).unwrap().starts_with("Digest username=\"Aladdin\", realm=\"r\", nonce=\"n\""), "{fields:?}");
        }
        for fields in
            [&["NTLM"][..], &["Negotiate abc="], &[], &["Digest realm=\"r\""], &["Digest realm=r, nonce=n, qop=auth-int"]]
        {
            assert_eq!(answer(fields), None, "{fields:?}");
        }
        assert!(best(&["Digest realm=r, nonce=n, stale=TRUE"]).unwrap().is_stale());
        // RFC 2069, its example by the errata.
        let old = best(&["Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\""]).unwrap();
        let answer = old.answer(&login("Mufasa", "CircleOfLife"), "GET", "/dir/index.html", 1, "");
        assert!(answer.contains("response=\"1949323746fe6a43ef61f9606e7febea\"") && !answer.contains("qop"), "{answer}");
    }

    #[test]
    fn our_own_server_is_content() {
        let challenge = best(&["Digest realm=\"studio\", nonce=\"n\", qop=\"auth\", algorithm=MD5"]).unwrap();
        let answer = challenge.answer(&login("ca\"m", "secret"), "GET", "/a?k=v", 7, "c0");
        let crate::text::Credentials::Digest(read) = crate::text::Credentials::parse(&answer).unwrap() else { panic!() };
        assert!(read.proves(&Ha1::new("ca\"m", "studio", "secret"), "GET") && read.uri == "/a?k=v" && read.user == "ca\"m");
        assert!(!format!("{:?}", login("u", "secret")).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_text(text in "((Digest|Basic|NTLM),? ?|realm=|nonce=|[ -~é,=\"\\\\]){0,20}") {
            if let Some(challenge) = best(&[&text]) {
                let answer = challenge.answer(&login("u", "p"), "GET", "/", 1, "c");
                prop_assert!(!answer.contains(['\r', '\n']));
            }
        }
    }
}
