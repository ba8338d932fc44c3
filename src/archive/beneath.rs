//! Opening a file by its name inside a root, and nothing outside of it.
//!
//! The kernel resolves the name (`openat2`), so that nobody who swaps a folder for a link in between leads it out.

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::OpenError;

/// How often a name is resolved anew where something on its way is renamed meanwhile.
const RACES: usize = 16;

/// For looking at a file without opening it: no device notices.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// For reading. A fifo does not block, a terminal does not become ours, should one appear behind the look.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Where a file is: a name inside a root, or a root that is the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    root: PathBuf,
    name: String,
}

/// How a name is opened beneath a folder.
type Resolve = fn(BorrowedFd<'_>, &str, OFlags) -> rustix::io::Result<OwnedFd>;

impl Place {
    /// `name` is split at `/`; an empty one means the root itself, which is then a file.
    pub(super) fn new(root: &Path, name: &str) -> Self {
        Self { root: root.to_owned(), name: name.to_owned() }
    }

    /// Opens the file for reading.
    ///
    /// # Errors
    /// [`OpenError`], all but `NotAsf`.
    pub(super) fn open(&self) -> Result<(File, Metadata), OpenError> {
        self.open_by(by_kernel)
    }

    /// What is at the place now. Nothing is opened.
    ///
    /// # Errors
    /// [`OpenError`], all but `NotAsf`.
    pub(super) fn look(&self) -> Result<Metadata, OpenError> {
        self.look_by(by_kernel)
    }

    fn open_by(&self, resolve: Resolve) -> Result<(File, Metadata), OpenError> {
        self.look_by(resolve)?;
        let file = File::from(self.resolve(READ, resolve)?);
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(OpenError::NotAFile) }
    }

    fn look_by(&self, resolve: Resolve) -> Result<Metadata, OpenError> {
        let metadata = File::from(self.resolve(LOOK, resolve)?).metadata()?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok(metadata),
            kind if kind.is_symlink() => Err(OpenError::NotFound),
            _ => Err(OpenError::NotAFile),
        }
    }

    fn resolve(&self, flags: OFlags, resolve: Resolve) -> Result<OwnedFd, OpenError> {
        let opened = if self.name.is_empty() {
            openat(CWD, &self.root, flags, Mode::empty())
        } else if self.name.split('/').any(|segment| matches!(segment, "" | "." | "..")) || self.name.contains('\0') {
            Err(Errno::NOENT)
        } else {
            openat(CWD, &self.root, LOOK.union(OFlags::DIRECTORY), Mode::empty())
                .and_then(|root| resolve(root.as_fd(), &self.name, flags))
        };
        opened.map_err(|errno| match errno {
            // XDEV: it leads out of the root. LOOP: links in a circle, or one where none may be.
            Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => OpenError::NotFound,
            Errno::ACCESS | Errno::PERM => OpenError::Denied,
            // A socket.
            Errno::NXIO | Errno::NODEV => OpenError::NotAFile,
            other => std::io::Error::from(other).into(),
        })
    }
}

/// By `openat2`: links are followed as long as they stay inside.
fn by_kernel(root: BorrowedFd<'_>, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES {
        match openat2(root, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(Errno::NOSYS | Errno::PERM) => return by_walk(root, name, flags),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Segment by segment, where the kernel is older than 5.6 or a sandbox forbids the call; no link is followed.
fn by_walk(root: BorrowedFd<'_>, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut folder: Option<OwnedFd> = None;
    let mut rest = name;
    while let Some((segment, behind)) = rest.split_once('/') {
        let at = folder.as_ref().map_or(root, AsFd::as_fd);
        // With DIRECTORY a link is refused as what it is: no folder.
        let next = openat(at, segment, LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        (folder, rest) = (Some(next), behind);
    }
    openat(folder.as_ref().map_or(root, AsFd::as_fd), rest, flags | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests;
