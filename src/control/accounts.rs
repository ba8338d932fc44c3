//! Who may sign in at the control port and the console, and as what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Characters of a name.
const NAME_MAX: usize = 64;
/// Bytes of a password that are looked at: longer ones only cost time.
pub const PASSWORD_MAX: usize = 256;
/// Memory that one hash may ask for, KiB: a file that was tampered with must not take the machine's.
const HASH_KIB_MAX: u32 = 256 << 10;
/// The same for its passes over it.
const HASH_PASSES_MAX: u32 = 16;

/// What somebody may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See what there is to watch, and watch it.
    Viewer,
    /// See how sources are.
    Publisher,
    /// See and change everything.
    Operator,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Publisher, Self::Operator];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| format!("{text:?} is no role; there are viewer, publisher and operator"))
    }
}

/// Why a file of accounts, or a line for one, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {why}")]
    File {
        /// Which.
        file: String,
        /// What the system says.
        why: String,
    },
    /// A line that says no account.
    #[error("{file}:{line}: {why}")]
    Line {
        /// Of which file.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A name that no line can hold.
    #[error("the name {0:?} has to be 1 to {NAME_MAX} letters, digits, or any of . _ - @")]
    Name(String),
    /// A password that is none.
    #[error("the password has to be 1 to {PASSWORD_MAX} bytes long")]
    Password,
}

/// One who may sign in.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// What this account may do.
    pub role: Role,
    /// As PHC string: `$argon2id$…`.
    hash: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("role", &self.role).finish_non_exhaustive()
    }
}

/// All who may sign in, by name.
///
/// A file has a line `NAME:ROLE:HASH` for each; empty lines and those that begin with # are comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, Account>);

impl Accounts {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is neither an account nor a comment, or that says a name again.
    pub fn parse(text: &str, file: &str) -> Result<Self, AccountsError> {
        let mut accounts = BTreeMap::new();
        for (line, content) in text.lines().enumerate().map(|(i, content)| (i + 1, content.trim())) {
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let wrong = |why: String| AccountsError::Line { file: file.to_owned(), line, why };
            let mut parts = content.splitn(3, ':');
            let (Some(name), Some(role), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(wrong("is not NAME:ROLE:HASH; lines are written by wmrelay passwd --role ROLE FILE NAME".into()));
            };
            check_name(name).map_err(|error| wrong(error.to_string()))?;
            let role = role.parse().map_err(wrong)?;
            check_hash(hash).map_err(wrong)?;
            if accounts.insert(name.to_owned(), Account { role, hash: hash.to_owned() }).is_some() {
                return Err(wrong(format!("names {name:?} again")));
            }
        }
        Ok(Self(accounts))
    }

    /// Whether a text is that of such a file, sound or not, and not a users file with its digests: a line has a hash as accounts have.
    pub fn are_in(text: &str) -> bool {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.splitn(3, ':').nth(2)).any(|hash| hash.starts_with('$'))
    }

    /// A line of a file, without its end.
    ///
    /// # Errors
    /// [`AccountsError::Name`] and [`AccountsError::Password`].
    pub fn line(name: &str, role: Role, password: &str) -> Result<String, AccountsError> {
        check_name(name)?;
        if password.is_empty() || password.len() > PASSWORD_MAX {
            return Err(AccountsError::Password);
        }
        let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| AccountsError::Password)?;
        Ok(format!("{name}:{role}:{hash}"))
    }

    /// The account of a name.
    pub fn get(&self, name: &str) -> Option<&Account> {
        self.0.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody may sign in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and accounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.0.iter().map(|(name, account)| (name.as_str(), account))
    }

    /// The account that a name and a password open. Takes as long for a name that is not there: some tens of milliseconds and
    /// 19 MiB, so it is not for a thread that others wait for.
    pub fn verify(&self, name: &str, password: &str) -> Option<&Account> {
        if password.len() > PASSWORD_MAX {
            return None;
        }
        let account = self.0.get(name);
        // Somebody's, so that it costs as much as a name that is there.
        let hash = account.or_else(|| self.0.values().next())?.hash.as_str();
        let is_right =
            PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        account.filter(|_| is_right)
    }
}

/// Whether a line can hold this name.
///
/// # Errors
/// [`AccountsError::Name`].
pub fn check_name(name: &str) -> Result<(), AccountsError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_good) {
        return Err(AccountsError::Name(name.to_owned()));
    }
    Ok(())
}

fn check_hash(hash: &str) -> Result<(), String> {
    let how = "lines are written by wmrelay passwd --role ROLE FILE NAME";
    let parsed = PasswordHash::new(hash).map_err(|error| format!("holds no hash of a password ({error}); {how}"))?;
    let params = argon2::Params::try_from(&parsed).map_err(|error| format!("holds no Argon2 hash ({error}); {how}"))?;
    if !parsed.algorithm.as_str().starts_with("argon2") {
        return Err(format!("holds no Argon2 hash; {how}"));
    }
    if params.m_cost() > HASH_KIB_MAX || params.t_cost() > HASH_PASSES_MAX {
        return Err(format!("has a hash that takes more than {HASH_KIB_MAX} KiB or {HASH_PASSES_MAX} passes"));
    }
    Ok(())
}

/// A file of accounts, read again when it changes.
#[derive(Debug)]
pub struct AccountsFile {
    path: PathBuf,
    held: Mutex<(Option<Look>, Arc<Accounts>)>,
}

/// What tells that a file has changed.
type Look = (SystemTime, u64, u64, (i64, i64));

impl AccountsFile {
    /// Reads it.
    ///
    /// # Errors
    /// Any [`AccountsError`] of a file.
    pub fn open(path: &Path) -> Result<Self, AccountsError> {
        // Looked at first: what changes while it is read is read once more.
        let seen = look(path);
        let accounts = read(path)?;
        Ok(Self { path: path.to_owned(), held: Mutex::new((seen, Arc::new(accounts))) })
    }

    /// Those of the last look.
    pub fn current(&self) -> Arc<Accounts> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Reads the file again if it has changed. Where it is not sound, those of before stay, which is logged; where it is gone, there is
    /// nobody, for that is how somebody in a hurry locks all out.
    ///
    /// Waits for the disk.
    pub fn refresh(&self) {
        let seen = look(&self.path);
        if self.held.lock().unwrap_or_else(PoisonError::into_inner).0 == seen {
            return;
        }
        let result = read(&self.path);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 = seen;
        match result {
            Ok(accounts) => {
                let (file, count) = (self.path.display(), accounts.len());
                tracing::info!(%file, accounts = count, "the file of those who may sign in was read anew");
                held.1 = Arc::new(accounts);
            }
            Err(error) if seen.is_none() && !self.path.exists() => {
                tracing::warn!(%error, "nobody may sign in before the file is there again");
                held.1 = Arc::default();
            }
            Err(error) => tracing::warn!(%error, "who may sign in stays as it was"),
        }
    }
}

fn look(path: &Path) -> Option<Look> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    // Who may read it counts as well.
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino(), (metadata.ctime(), metadata.ctime_nsec())))
}

fn read(path: &Path) -> Result<Accounts, AccountsError> {
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| AccountsError::File { file: file.clone(), why: error.to_string() })?;
    Accounts::parse(&text, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cheapest hash there is of "geheim"; real ones take a while.
    const CHEAP: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$";

    fn cheap(password: &str) -> String {
        let argon = Argon2::from(argon2::Params::new(8, 1, 1, None).unwrap());
        let hash: PasswordHash = argon.hash_password(password.as_bytes()).unwrap();
        hash.to_string()
    }

    #[test]
    fn the_right_password_opens() {
        let text = format!("# who\n\nanna:operator:{}\nbert:viewer:{}\n", cheap("geheim"), cheap("offen"));
        let accounts = Accounts::parse(&text, "f").unwrap();
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts.verify("anna", "geheim").map(|account| account.role), Some(Role::Operator));
        assert_eq!(accounts.verify("bert", "offen").map(|account| account.role), Some(Role::Viewer));
        for (name, password) in [("anna", "offen"), ("anna", ""), ("carl", "geheim"), ("", "geheim"), ("Anna", "geheim")] {
            assert!(accounts.verify(name, password).is_none(), "{name} {password}");
        }
        assert!(accounts.verify("anna", &"x".repeat(PASSWORD_MAX + 1)).is_none());
        assert!(Accounts::default().verify("anna", "geheim").is_none());
    }

    #[test]
    fn a_written_line_is_read() {
        let line = Accounts::line("anna", Role::Publisher, "geheim").unwrap();
        let accounts = Accounts::parse(&line, "f").unwrap();
        assert_eq!(accounts.get("anna").map(|account| account.role), Some(Role::Publisher));
        assert!(line.starts_with("anna:publisher:$argon2id$v=19$m=19456,t=2,p=1$"), "{line}");
        assert!(accounts.verify("anna", "geheim").is_some() && accounts.verify("anna", "Geheim").is_none());
        assert_eq!(Accounts::line("a:b", Role::Viewer, "x"), Err(AccountsError::Name("a:b".into())));
        assert_eq!(Accounts::line("a", Role::Viewer, ""), Err(AccountsError::Password));
    }

    #[test]
    fn a_users_file_is_another_one() {
        assert!(Accounts::are_in(&format!("# who\nanna:boss:{CHEAP}\n")));
        for other in ["", "# a:b:$c\n", "cam:wmrelay:5bb3f3234c9676605e185ff056d91246\n", "nonsense\n"] {
            assert!(!Accounts::are_in(other), "{other}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let good = cheap("x");
        for (text, expected) in [
            ("anna".to_owned(), "f:1: is not NAME:ROLE:HASH"),
            (format!("#\nanna:boss:{good}"), "f:2: \"boss\" is no role; there are viewer, publisher and operator"),
            (format!("an na:viewer:{good}"), "f:1: the name \"an na\" has to be"),
            ("anna:viewer:geheim".to_owned(), "f:1: holds no hash of a password"),
            (format!("anna:viewer:{CHEAP}"), "f:1: holds no hash of a password"),
            (format!("a:viewer:{good}\na:viewer:{good}"), "f:2: names \"a\" again"),
            (format!("a:viewer:{}", good.replace("m=8", "m=4194304")), "f:1: has a hash that takes more than 262144 KiB"),
        ] {
            let error = Accounts::parse(&text, "f").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_changed_file_counts_where_it_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators");
        std::fs::write(&path, format!("anna:viewer:{}\n", cheap("x"))).unwrap();
        let file = AccountsFile::open(&path).unwrap();
        assert_eq!(file.current().len(), 1);
        std::fs::write(&path, format!("anna:viewer:{}\nbert:viewer:{}\n", cheap("x"), cheap("y"))).unwrap();
        file.refresh();
        assert_eq!(file.current().len(), 2);
        std::fs::write(&path, "nonsense").unwrap();
        file.refresh();
        assert_eq!(file.current().len(), 2);
        std::fs::remove_file(&path).unwrap();
        file.refresh();
        assert_eq!(file.current().len(), 0);
        std::fs::write(&path, format!("anna:viewer:{}\n", cheap("x"))).unwrap();
        file.refresh();
        assert_eq!(file.current().len(), 1);
        std::fs::write(&path, "nonsense").unwrap();
        assert!(AccountsFile::open(&path).is_err() && AccountsFile::open(&folder.path().join("none")).is_err());
    }
}
