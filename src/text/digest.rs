//! What a client puts into its `Authorization` field: Basic or Digest credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::nonce::constant_time_eq;
use super::target::hex_digit;
use super::users::{Ha1, md5};

/// Most parameters of one field; Digest defines eleven.
const PARAMETERS_BOUND: usize = 32;

/// Credentials as a client sent them; nothing is checked yet.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password as they are (RFC 7617).
    Basic {
        /// Up to the first colon.
        user: String,
        /// The rest.
        password: String,
    },
    /// The proof of a password (RFC 7616).
    Digest(DigestResponse),
    /// A scheme that is not offered (NTLM, Negotiate, Bearer).
    Other,
}

/// The fields of a Digest response that its check needs. MD5; `qop=auth` or, as RFC 2069 had it, none.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestResponse {
    /// User name.
    pub user: String,
    /// Realm, as the challenge named it.
    pub realm: String,
    /// Nonce, as the challenge gave it.
    pub nonce: String,
    /// The target that the client signed; it has to be that of the request line.
    pub uri: String,
    /// Count and client nonce, with `qop=auth`.
    pub auth: Option<ClientNonce>,
    response: [u8; 32],
}

/// What `qop=auth` adds.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientNonce {
    /// How often the nonce was used, this time included.
    pub count: u32,
    count_text: String,
    cnonce: String,
}

/// Why an `Authorization` field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Authorization field cannot be read: {0}")]
pub struct CredentialsError(&'static str);

impl Credentials {
    /// Reads the value of an `Authorization` field.
    ///
    /// # Errors
    /// Syntax, a parameter twice or missing, an algorithm or qop that was not offered.
    pub fn parse(value: &str) -> Result<Self, CredentialsError> {
        let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let bytes = STANDARD.decode(rest.trim()).map_err(|_| CredentialsError("no base64 after Basic"))?;
            let text = String::from_utf8(bytes).map_err(|_| CredentialsError("user or password is not UTF-8"))?;
            let (user, password) = text.split_once(':').ok_or(CredentialsError("no colon between user and password"))?;
            Ok(Self::Basic { user: user.to_owned(), password: password.to_owned() })
        } else if scheme.eq_ignore_ascii_case("digest") {
            DigestResponse::from_parameters(&parameters(rest)?).map(Self::Digest)
        } else {
            Ok(Self::Other)
        }
    }
}

impl DigestResponse {
    fn from_parameters(parameters: &[(&str, String)]) -> Result<Self, CredentialsError> {
        let find =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        let need = |name, missing| find(name).map(str::to_owned).ok_or(CredentialsError(missing));
        if find("algorithm").is_some_and(|name| !name.eq_ignore_ascii_case("MD5")) {
            return Err(CredentialsError("the algorithm is not MD5"));
        }
        let auth = match find("qop") {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                let count_text = need("nc", "nc is missing")?;
                let digits = count_text.bytes().all(|byte| hex_digit(byte).is_some());
                let count = u32::from_str_radix(&count_text, 16).ok().filter(|_| digits);
                let count = count.ok_or(CredentialsError("nc is not a hexadecimal number of 32 bits"))?;
                Some(ClientNonce { count, count_text, cnonce: need("cnonce", "cnonce is missing")? })
            }
            Some(_) => return Err(CredentialsError("qop is not auth")),
        };
        // Compared as text: hexadecimal in small letters is the only form the RFC knows.
        let response = need("response", "response is missing")?.to_ascii_lowercase();
        let response = response.as_bytes().try_into().map_err(|_| CredentialsError("response is not of 32 digits"))?;
        Ok(Self {
            user: need("username", "username is missing")?,
            realm: need("realm", "realm is missing")?,
            nonce: need("nonce", "nonce is missing")?,
            uri: need("uri", "uri is missing")?,
            auth,
            response,
        })
    }

    /// Whether the response proves the password behind `ha1` for this method and the [`DigestResponse::uri`].
    ///
    /// RFC 7616 3.4.1, RFC 2069 2.1.2.
    pub fn proves(&self, ha1: &Ha1, method: &str) -> bool {
        let ha1 = ha1.to_string();
        let ha2 = hex(md5(&[method.as_bytes(), b":", self.uri.as_bytes()]));
        let (ha1, nonce, ha2) = (ha1.as_bytes(), self.nonce.as_bytes(), ha2.as_bytes());
        let expected = match &self.auth {
            Some(ClientNonce { count_text, cnonce, .. }) => {
                md5(&[ha1, b":", nonce, b":", count_text.as_bytes(), b":", cnonce.as_bytes(), b":auth:", ha2])
            }
            None => md5(&[ha1, b":", nonce, b":", ha2]),
        };
        constant_time_eq(hex(expected).as_bytes(), &self.response)
    }
}

pub(super) fn hex(digest: [u8; 16]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `name=token` and `name="quoted"` between commas.
///
/// RFC 9110 11.2 and 5.6.
pub(super) fn parameters(text: &str) -> Result<Vec<(&str, String)>, CredentialsError> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // Lists may hold empty elements.
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
            continue;
        }
        let (name, after) = rest.split_once('=').ok_or(CredentialsError("a parameter has no ="))?;
        let name = name.trim_end();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte)) {
            return Err(CredentialsError("a parameter's name is not a token"));
        }
        let (value, after) = value(after.trim_start())?;
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(CredentialsError("no comma between two parameters"));
        }
        if found.iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(CredentialsError("a parameter is there twice"));
        }
        if found.len() == PARAMETERS_BOUND {
            return Err(CredentialsError("too many parameters"));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// A token or quoted string, and what follows it.
fn value(text: &str) -> Result<(String, &str), CredentialsError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        return if token.is_empty() || token.contains('"') {
            Err(CredentialsError("a parameter's value is neither token nor quoted"))
        } else {
            Ok((token.to_owned(), rest))
        };
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    Err(CredentialsError("a quoted value has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(value: &str) -> DigestResponse {
        let Ok(Credentials::Digest(response)) = Credentials::parse(value) else { panic!("{value}") };
        response
    }

    #[test]
    fn rfc_2617_vector() {
        let response = digest(
            "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             uri=\"/dir/index.html\", qop=auth, nc=00000001, cnonce=\"0a4f113b\", \
             response=\"6629fae49393a05397450978507c4ef1\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        );
        let ha1 = Ha1::new("Mufasa", "testrealm@host.com", "Circle Of Life");
        assert!(response.proves(&ha1, "GET"));
        assert!(!response.proves(&ha1, "POST"));
        assert!(!response.proves(&Ha1::new("Mufasa", "testrealm@host.com", "circle of life"), "GET"));
    }

    #[test]
    fn rfc_7616_vector() {
        let response = digest(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm=MD5, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
             cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
             response=\"8ca523f5e9506fed4657c9700eebdbec\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        );
        assert!(response.proves(&Ha1::new("Mufasa", "http-auth@example.org", "Circle of Life"), "GET"));
    }

    #[test]
    fn rfc_2069_form_without_qop() {
        // The example of RFC 2069 2.4 with the response of its erratum.
        let response = digest(
            "Digest username=\"Mufasa\",realm=\"testrealm@host.com\",nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\",\
             uri=\"/dir/index.html\",response=\"1949323746fe6a43ef61f9606e7febea\",opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
        );
        assert!(response.auth.is_none());
        assert!(response.proves(&Ha1::new("Mufasa", "testrealm@host.com", "CircleOfLife"), "GET"));
    }

    #[test]
    fn basic() {
        // RFC 7617 2, and a password with a colon.
        for (value, user, password) in
            [("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin", "open sesame"), ("bASIC  YTpiOmM=", "a", "b:c")]
        {
            assert!(Credentials::parse(value).unwrap() == Credentials::Basic { user: user.into(), password: password.into() });
        }
        for value in ["Basic", "Basic !", "Basic YQ==", "Basic /////w=="] {
            assert!(Credentials::parse(value).is_err(), "{value}");
        }
        assert!(Credentials::parse("NTLM TlRMTVNTUAAB").unwrap() == Credentials::Other);
    }

    #[test]
    fn loose_and_broken_parameters() {
        let good = "username=\"a\\\"b\" ,, realm = r, nonce=n, uri=/, qop=\"auth\", nc=000000ff, cnonce=\"\", response=";
        let response = digest(&format!("Digest {good}{}", "A".repeat(32)));
        assert_eq!((response.user.as_str(), response.auth.unwrap().count), ("a\"b", 255));
        for (from, to) in [
            ("nc=000000ff", "nc=+00000ff"),
            ("nc=000000ff", "nc=1ffffffff"),
            ("nc=000000ff,", ""),
            ("qop=\"auth\"", "qop=auth-int"),
            ("realm = r", "realm = r x"),
            ("realm = r", "Nonce = r"),
            ("uri=/", "uri=\"/"),
            ("uri=/", "uri"),
            ("uri=/", "algorithm=MD5-sess, uri=/"),
            ("cnonce=\"\",", ""),
        ] {
            assert!(Credentials::parse(&format!("Digest {}{}", good.replace(from, to), "A".repeat(32))).is_err(), "{to}");
        }
        assert!(Credentials::parse(&format!("Digest {good}{}", "A".repeat(31))).is_err());
    }

    proptest! {
        #[test]
        fn any_text(text in "(Digest |Basic )?[ -~é,=\"\\\\]{0,80}") {
            let _ = Credentials::parse(&text);
        }
    }
}
