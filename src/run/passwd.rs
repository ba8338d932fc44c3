//! `wmrelay passwd`: writes one user's line of a users file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::PasswdArgs;
use crate::control::accounts::{Accounts, Role, check_name};
use crate::text::{DEFAULT_REALM, Users};

/// Asks for the password and writes the line.
///
/// # Errors
/// A password that is empty or was not typed twice alike, names that no line can hold, a file that cannot be read or
/// replaced.
pub(super) fn passwd(args: &PasswdArgs) -> anyhow::Result<()> {
    let file = args.file.display().to_string();
    let old = match fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {file}")),
    };
    let role = args.role.as_deref().map(str::parse).transpose().map_err(anyhow::Error::msg)?;
    if role.is_some() || Accounts::are_in(&old) {
        return account(args, role, &old);
    }
    let users = Users::parse(&old, &file)?;
    let realm = args.realm.as_deref().unwrap_or(if users.is_empty() { DEFAULT_REALM } else { users.realm() });
    // The names are checked before anybody is asked for a password.
    Users::line(&args.user, realm, "")?;
    let others = users.len() - usize::from(users.ha1(&args.user).is_some());
    ensure!(
        others == 0 || realm == users.realm(),
        "{file} is for the realm {:?}, and one file has one realm; leave --realm out, or write another file",
        users.realm()
    );

    let password = password_of(&args.user)?;
    let new = with_line(&old, &args.user, &Users::line(&args.user, realm, &password)?);
    Users::parse(&new, &file)?;
    replace(&args.file, &new).with_context(|| format!("cannot write {file}"))?;
    let what = if users.ha1(&args.user).is_some() { "changed" } else { "added" };
    writeln!(io::stderr(), "{file}: user {:?} {what}", args.user)?;
    Ok(())
}

/// The same for the file of those who sign in at the control port. `role`: none said, that which somebody has.
fn account(args: &PasswdArgs, role: Option<Role>, old: &str) -> anyhow::Result<()> {
    let file = args.file.display().to_string();
    ensure!(
        args.realm.is_none(),
        "{file} is of those who sign in at control port and console, and has no realm; leave --realm out"
    );
    ensure!(
        !Users::parse(old, &file).is_ok_and(|users| !users.is_empty()),
        "{file} is of those who publish or watch, who have no role; leave --role out, or write another file"
    );
    let accounts = Accounts::parse(old, &file)?;
    check_name(&args.user)?;
    let before = accounts.get(&args.user).map(|account| account.role);
    let role = role.or(before).with_context(|| {
        format!("{file} has no {:?} yet; say by --role what that one may do: viewer, publisher or operator", args.user)
    })?;
    let password = password_of(&args.user)?;
    let new = with_line(old, &args.user, &Accounts::line(&args.user, role, &password)?);
    Accounts::parse(&new, &file)?;
    replace(&args.file, &new).with_context(|| format!("cannot write {file}"))?;
    let what = match before {
        None => "added".to_owned(),
        Some(before) if before == role => "changed".to_owned(),
        Some(before) => format!("changed, who was {before}"),
    };
    writeln!(io::stderr(), "{file}: {role} {:?} {what}", args.user)?;
    Ok(())
}

/// Typed twice, or the first line of what is no terminal.
fn password_of(user: &str) -> anyhow::Result<String> {
    let password = if io::stdin().is_terminal() { ask_twice(user)? } else { line_of(io::stdin().lock())? };
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password)
}

/// The file's text with this user's line exchanged, or one more; comments and order stay.
fn with_line(old: &str, user: &str, line: &str) -> String {
    let mut lines: Vec<&str> = old.lines().collect();
    match lines.iter_mut().find(|line| line.trim_start().split(':').next() == Some(user)) {
        Some(place) => *place = line,
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

/// Replaces a file whole: readers see the old text or the new one, also after a crash. A new file is its owner's alone
/// (0600); an old one keeps its owner and group, and at most what the group may read.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    // A symbolic link stays one: what it points to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().context("that is no file's name")?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Unfinished(path.with_file_name(name));

    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new.0)?;
    if let Ok(old) = fs::metadata(&path) {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (old.uid(), old.gid()) {
            // Else the service could no longer read what root has changed.
            fchown(&file, Some(old.uid()), Some(old.gid()))
                .context("its owner cannot be kept; run this as root or as its owner")?;
        }
        file.set_permissions(fs::Permissions::from_mode(0o600 | old.mode() & 0o040))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new.0, &path)?;
    // The new name is in the folder, which has to reach the disk too.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes what was not renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // after the rename there is nothing of that name
    }
}

/// One line without its end.
pub(super) fn line_of(mut input: impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line).context("cannot read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask_twice(user: &str) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let typed = runtime.block_on(async {
        // Before the terminal is changed: from here on Ctrl-C comes to us, and the terminal is restored.
        let mut interrupts = signal(SignalKind::interrupt())?;
        let _hidden = Hidden::new()?;
        let first = ask(&format!("Password of {user}: "), &mut interrupts).await?;
        let second = ask("Once more: ", &mut interrupts).await?;
        ensure!(first == second, "the two passwords differ; nothing was written");
        Ok(first)
    });
    // After Ctrl-C a thread still waits for a line that nobody needs.
    runtime.shutdown_background();
    typed
}

/// One line that is typed and not shown.
pub(super) fn ask_hidden(prompt: &str) -> anyhow::Result<String> {
    ask_once(prompt, true)
}

/// One line that is typed.
pub(super) fn ask_shown(prompt: &str) -> anyhow::Result<String> {
    ask_once(prompt, false)
}

fn ask_once(prompt: &str, is_secret: bool) -> anyhow::Result<String> {
    // A thread of its own: this may be asked in the midst of another runtime.
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let typed = runtime.block_on(async {
            let mut interrupts = signal(SignalKind::interrupt())?;
            let _hidden = if is_secret { Some(Hidden::new()?) } else { None };
            ask(prompt, &mut interrupts).await
        });
        runtime.shutdown_background();
        typed
    };
    std::thread::scope(|scope| scope.spawn(ask).join()).map_err(|_| anyhow!("nothing can be asked"))?
}

async fn ask(prompt: &str, interrupts: &mut Signal) -> anyhow::Result<String> {
    let mut out = io::stderr();
    write!(out, "{prompt}")?;
    out.flush()?;
    let typed = tokio::select! {
        line = tokio::task::spawn_blocking(|| line_of(io::stdin().lock())) => line?,
        _ = interrupts.recv() => Err(anyhow!("interrupted; nothing was written")),
    };
    // The line's end was not shown either.
    writeln!(out)?;
    typed
}

/// While it lives, the terminal shows nothing of what is typed.
// rustix is in the tree anyway and does this without unsafe; a crate for passwords would do the same with more code,
// and `stty` would be a child process that may not be installed.
struct Hidden(Termios);

impl Hidden {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // What was typed before the prompt is dropped: it was not meant as a password.
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0); // nobody left to tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_exchanged_in_place() {
        let old = "# studio\na:wmrelay:1\nb:wmrelay:2\n";
        assert_eq!(with_line(old, "a", "a:wmrelay:3"), "# studio\na:wmrelay:3\nb:wmrelay:2\n");
        assert_eq!(with_line(old, "c", "c:wmrelay:3"), format!("{old}c:wmrelay:3\n"));
        assert_eq!(with_line("", "c", "c:wmrelay:3"), "c:wmrelay:3\n");
        assert_eq!(with_line("a:x", "aa", "aa:y"), "a:x\naa:y\n");
    }

    #[test]
    fn one_line_is_the_password() {
        assert_eq!(line_of(&b"geheim \r\nmore\n"[..]).unwrap(), "geheim ");
        assert_eq!(line_of(&b"geheim"[..]).unwrap(), "geheim");
        assert_eq!(line_of(&b""[..]).unwrap(), "");
    }

    #[test]
    fn a_file_is_replaced_whole_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
        replace(&path, "one").unwrap();
        assert_eq!(mode(), 0o600);
        for (old, new) in [(0o666, 0o640), (0o640, 0o640), (0o604, 0o600), (0o400, 0o600)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(old)).unwrap();
            replace(&path, "two").unwrap();
            assert_eq!(mode(), new, "{old:o}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "three").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
    }
}
