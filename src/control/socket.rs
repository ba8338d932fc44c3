//! The Unix socket of the local command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, anyhow};
use rustix::fs::{FlockOperation, flock};

use crate::settings::ControlSocket;

/// Its name in a folder for such things.
const NAME: &str = "control.sock";
/// Where services of the system have it.
const OF_SYSTEM: &str = "/run/wmrelay";

/// Where the daemon has its socket; `None`: nowhere.
///
/// Not said, that is the folder that systemd gives the service, else that of the user, else the system's.
pub fn path_of(socket: &ControlSocket) -> Option<PathBuf> {
    match socket {
        ControlSocket::Off => None,
        ControlSocket::At(path) => Some(path.clone()),
        ControlSocket::Automatic => Some(own_folder().join(NAME)),
    }
}

/// Where a command looks for the daemon, in this order, where nobody says.
pub fn candidates() -> Vec<PathBuf> {
    let mut folders = vec![own_folder()];
    if let Some(of_user) = of_user() {
        folders.push(of_user);
    }
    folders.push(OF_SYSTEM.into());
    folders.dedup();
    folders.into_iter().map(|folder| folder.join(NAME)).collect()
}

fn own_folder() -> PathBuf {
    // Of several folders, which colons part, the first is the service's own.
    let given = env::var_os("RUNTIME_DIRECTORY").filter(|folder| !folder.is_empty());
    let first = |folders: OsString| folders.to_string_lossy().split(':').next().map(PathBuf::from);
    given.and_then(first).or_else(of_user).unwrap_or_else(|| OF_SYSTEM.into())
}

fn of_user() -> Option<PathBuf> {
    let folder = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?;
    Some(Path::new(&folder).join("wmrelay"))
}

/// Binds it, for its owner and root alone. What a daemon that is gone left behind is replaced; `None` where another daemon serves
/// there, which keeps it.
///
/// # Errors
/// It cannot be made there; the text says what to do.
pub fn bind(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    let fails = || {
        format!("the control socket {} cannot be made; name another place by `control.socket`, or \"\" for none", path.display())
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(fails)?;
    }
    // Of two that begin at once one waits for the other.
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.with_extension("lock"));
    let lock = lock.with_context(fails)?;
    flock(&lock, FlockOperation::LockExclusive).with_context(fails)?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => match UnixStream::connect(path) {
            Ok(_) => return Ok(None),
            // Nobody listens: what lies there is old.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).with_context(fails),
        },
        Ok(_) => return Err(anyhow!("something else is there")).with_context(fails),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(fails),
    }
    // Bound under another name and shown when only its owner may open it.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).with_context(fails)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600)).with_context(fails)?;
    fs::rename(&hidden, path).with_context(fails)?;
    listener.set_nonblocking(true).with_context(fails)?;
    Ok(Some(listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_replaced_and_what_serves_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run").join(NAME);
        let first = bind(&path).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind(&path).unwrap().is_none(), "another daemon serves there");
        drop(first);
        assert!(bind(&path).unwrap().is_some());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "the socket and its lock");

        let file = folder.path().join("operators");
        fs::write(&file, "anna").unwrap();
        assert!(format!("{:#}", bind(&file).unwrap_err()).contains("something else is there"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "anna");

        fs::write(folder.path().join("file"), "").unwrap();
        let error = format!("{:#}", bind(&folder.path().join("file").join(NAME)).unwrap_err());
        assert!(error.contains("control.socket"), "{error}");
        assert!(path_of(&ControlSocket::Off).is_none());
        assert_eq!(path_of(&ControlSocket::At("/x/y".into())), Some("/x/y".into()));
    }
}
