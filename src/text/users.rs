//! The users file: who may publish, as HA1 digests.

use std::collections::HashMap;
use std::fmt;

use md5::{Digest, Md5};

use super::target::hex_digit;

/// The realm of a users file that names none.
pub const DEFAULT_REALM: &str = "wmrelay";

/// Longest user name or realm, bytes.
const NAME_BOUND: usize = 128;

/// MD5 of `user:realm:password`: all that Digest needs, so the password itself is stored nowhere.
///
/// RFC 7616 3.4.2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ha1([u8; 16]);

impl Ha1 {
    /// Of a password.
    pub fn new(user: &str, realm: &str, password: &str) -> Self {
        Self(md5(&[user.as_bytes(), b":", realm.as_bytes(), b":", password.as_bytes()]))
    }

    /// The digest itself.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        if hex.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            *byte = hex_digit(high)? << 4 | hex_digit(low)?;
        }
        Some(Self(bytes))
    }
}

/// As in the users file: 32 hexadecimal digits.
impl fmt::Display for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whoever has an HA1 can log in, so it stays out of logs.
impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(…)")
    }
}

/// MD5 of parts laid end to end.
pub(super) fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut state = Md5::new();
    parts.iter().for_each(|part| state.update(part));
    state.finalize().into()
}

/// Why a users file, or a line for it, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line of the file.
    #[error("{file}:{line}: {reason}")]
    Line {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A name that no line can hold.
    #[error("{what} {name:?} {reason}")]
    Name {
        /// "user name" or "realm".
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The users of one realm.
///
/// The file has a line `user:realm:HA1` each, as `htdigest` writes it; empty lines and lines that begin with `#` are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    realm: String,
    digests: HashMap<String, Ha1>,
}

impl Users {
    /// Reads the text of a users file; `file` is its name for errors.
    ///
    /// # Errors
    /// A line that is not `user:realm:HA1`, a user named twice, a second realm: a challenge has room for one only.
    pub fn parse(text: &str, file: &str) -> Result<Self, UsersError> {
        let mut realm: Option<&str> = None;
        let mut digests = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |reason: String| UsersError::Line { file: file.to_owned(), line: index + 1, reason };
            let mut fields = line.split(':');
            let (Some(user), Some(named), Some(hex), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
                return Err(refuse("expected user:realm:digest; make such lines with `wmrelay passwd`".into()));
            };
            check_name("user name", user).and_then(|()| check_name("realm", named)).map_err(|error| refuse(error.to_string()))?;
            if hex.starts_with('$') {
                return Err(refuse(
                    "is of those who sign in at control port and console; `control.users_file` names such a file".into(),
                ));
            }
            let ha1 = Ha1::parse(hex).ok_or_else(|| {
                refuse(format!("the digest of user {user:?} is not 32 hexadecimal digits; write it again with `wmrelay passwd`"))
            })?;
            let first = *realm.get_or_insert(named);
            if first != named {
                return Err(refuse(format!("realm {named:?}, but the lines above have {first:?}; one file has one realm")));
            }
            if digests.insert(user.to_owned(), ha1).is_some() {
                return Err(refuse(format!("user {user:?} is already in a line above; keep one of the two")));
            }
        }
        Ok(Self { realm: realm.unwrap_or(DEFAULT_REALM).to_owned(), digests })
    }

    /// The line of one user, without a line end.
    ///
    /// # Errors
    /// A name that is empty, too long, or holds a colon or a control character.
    pub fn line(user: &str, realm: &str, password: &str) -> Result<String, UsersError> {
        check_name("user name", user)?;
        check_name("realm", realm)?;
        Ok(format!("{user}:{realm}:{}", Ha1::new(user, realm, password)))
    }

    /// The realm of all of them.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The digest of a user.
    pub fn ha1(&self, user: &str) -> Option<&Ha1> {
        self.digests.get(user)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether nobody may log in.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), UsersError> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_BOUND {
        "is longer than 128 bytes"
    } else if name.contains(':') {
        "holds a colon, which parts the fields"
    } else if name.starts_with('#') || name.trim() != name {
        "begins with # or has a blank at an end"
    } else if name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        "holds a quote, a backslash or a control character"
    } else {
        return Ok(());
    };
    Err(UsersError::Name { what, name: name.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let line = Users::line("cam", "wmrelay", "Circle of Life").unwrap();
        // md5sum of "cam:wmrelay:Circle of Life", which is what htdigest writes.
        assert_eq!(line, "cam:wmrelay:5bb3f3234c9676605e185ff056d91246");
        let users = Users::parse(&format!("# studio\n\n{line}\r\n"), "users").unwrap();
        assert_eq!((users.realm(), users.len()), ("wmrelay", 1));
        assert_eq!(users.ha1("cam"), Some(&Ha1::new("cam", "wmrelay", "Circle of Life")));
        assert_eq!(users.ha1("Cam"), None);
    }

    #[test]
    fn rfc_7616_example_digest() {
        // RFC 2617 3.5: user Mufasa, password "Circle Of Life".
        assert_eq!(Ha1::new("Mufasa", "testrealm@host.com", "Circle Of Life").to_string(), "939e7578ed9e3c518a452acee763bce9");
    }

    #[test]
    fn errors_name_file_and_line() {
        let ok = "a:r:939e7578ed9e3c518a452acee763bce9\n";
        for (text, line, word) in [
            ("nonsense", 1, "passwd"),
            ("a:r:1234", 1, "32 hexadecimal"),
            ("a:operator:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aa", 1, "`control.users_file`"),
            (":r:939e7578ed9e3c518a452acee763bce9", 1, "empty"),
            (&format!("{ok}{ok}"), 2, "already"),
            (&format!("{ok}\nb:other:939e7578ed9e3c518a452acee763bce9"), 3, "one realm"),
        ] {
            let error = Users::parse(text, "/etc/users").unwrap_err().to_string();
            assert!(error.starts_with(&format!("/etc/users:{line}: ")) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn refuses_names_that_break_the_file() {
        for name in ["", "a:b", "#a", " a", "a\nb", "a\"b", &"x".repeat(129)] {
            assert!(Users::line(name, "r", "p").is_err(), "{name:?}");
            assert!(Users::line("u", name, "p").is_err(), "{name:?}");
        }
    }

    #[test]
    fn stays_out_of_logs() {
        let users = Users::parse("a:r:939e7578ed9e3c518a452acee763bce9", "f").unwrap();
        assert!(!format!("{users:?}").contains("939e"));
    }
}
