//! Reads that notice when the file is no longer the one that was opened.

use std::fs::{File, Metadata};
use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::LazyLock;

use super::beneath::Place;
use super::{OpenError, ReadError};

/// What tells one state of a file from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    /// When it was last written: seconds and nanoseconds.
    written: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// A number for a file at its place in its state, for tables: equal for equal ones, in this process only.
///
/// Two rounds of a keyed hash: nobody can make two files share one.
pub(super) type FileId = u128;

/// A file that is open, its place and its state.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    place: Place,
    identity: Identity,
}

impl Disk {
    /// Opens what is at the place now.
    ///
    /// # Errors
    /// [`OpenError`], all but `NotAsf`.
    pub(super) fn open(place: Place) -> Result<Self, OpenError> {
        let (file, metadata) = place.open()?;
        Ok(Self { file, place, identity: Identity::of(&metadata) })
    }

    pub(super) const fn len(&self) -> u64 {
        self.identity.len
    }

    pub(super) const fn modified_s(&self) -> i64 {
        self.identity.written.0
    }

    /// A number for the file in its state, which anybody may know.
    pub(super) fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.identity.hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn id(&self) -> FileId {
        static HASHERS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let [high, low] = HASHERS.each_ref().map(|hasher| u128::from(hasher.hash_one((&self.place, self.identity))));
        high << 64 | low
    }

    /// Fills the buffer with the bytes from `at` on, and makes sure that the file was the same before and after.
    ///
    /// # Errors
    /// [`ReadError`], all but `PastTheEnd` and `Closed`.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.read_by(|file| file.read_exact_at(buffer, at))
    }

    fn read_by(&self, read: impl FnOnce(&File) -> io::Result<()>) -> Result<(), ReadError> {
        self.check_open()?;
        let read = read(&self.file);
        self.check_open()?;
        match read {
            // Cut meanwhile, and grown again to the nanosecond: improbable, but then it has changed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::Changed),
            other => Ok(other?),
        }
    }

    /// Whether the open file is as it was, and still the one at its place.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn check(&self) -> Result<(), ReadError> {
        self.check_open()?;
        match self.place.look() {
            Ok(now) if Identity::of(&now) == self.identity => Ok(()),
            // Between the two looks it can have been written to.
            Ok(_) => Err(ReadError::Changed),
            Err(OpenError::NotFound | OpenError::NotAFile) => Err(ReadError::Vanished),
            // A lack of descriptors here, a folder closed to the daemon: the file itself is as it was.
            Err(_) => Ok(()),
        }
    }

    /// Whether the open file is as it was, and has a name.
    fn check_open(&self) -> Result<(), ReadError> {
        let now = self.file.metadata()?;
        if now.nlink() == 0 {
            return Err(if self.place.look().is_ok() { ReadError::Changed } else { ReadError::Vanished });
        }
        if Identity::of(&now) == self.identity { Ok(()) } else { Err(ReadError::Changed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::testing::Root;

    /// What a read brought while the file changed is not handed on.
    #[test]
    fn a_change_during_a_read_is_seen() {
        let root = Root::new();
        let path = root.write("a", b"before");
        let open = || Disk::open(Place::new(root.path(), "a")).unwrap();
        let mut buffer = [0; 6];
        assert_eq!((open().read(0, &mut buffer), &buffer), (Ok(()), b"before"));
        assert_eq!(open().read(1, &mut buffer), Err(ReadError::Changed), "there is less than was there");
        let disk = open();
        assert_eq!(disk.read_by(|_| std::fs::write(&path, b"written to")), Err(ReadError::Changed));
        let disk = open();
        let replace = || std::fs::rename(root.write("b", b"replaced"), &path);
        assert_eq!((disk.read_by(|_| replace()), open().read_by(|_| Ok(()))), (Err(ReadError::Changed), Ok(())));
        let disk = open();
        assert_eq!(disk.read_by(|_| std::fs::remove_file(&path)), Err(ReadError::Vanished));
        assert_eq!(disk.read(0, &mut buffer), Err(ReadError::Vanished));
    }

    #[test]
    fn a_file_has_one_id_while_it_is_the_same() {
        let root = Root::new();
        root.write("a", b"a");
        std::fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
        let id = |name: &str| Disk::open(Place::new(root.path(), name)).unwrap().id();
        let before = id("a");
        assert!(before == id("a") && before != id("b"), "another name may vanish alone");
        root.write("a", b"longer");
        assert_ne!(before, id("a"));
    }
}
