//! Why a file cannot be opened, and why it cannot be read on.

use std::io;
use std::sync::Arc;

use crate::asf::HeaderError;

/// Why a file cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing of that name is inside the root; what lies outside of it is not there either.
    #[error("there is no such file")]
    NotFound,
    /// A folder, a fifo, a socket or a device.
    #[error("it is no regular file: only files are played, no folders, pipes or devices")]
    NotAFile,
    /// The file's mode or that of a folder above it keeps the daemon out.
    #[error("the daemon may not read it: check the owner and the mode of the file and of the folders above it")]
    Denied,
    /// It is something else, or damaged.
    #[error("it cannot be played: {0}")]
    NotAsf(#[from] NotAsf),
    /// The system failed, or the file changed under the reader's hands.
    #[error("it cannot be read: {0}")]
    Io(Arc<str>),
}

/// What is wrong with a file that is no ASF file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAsf {
    /// The header is none, or damaged.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A stream as it goes over HTTP.
    #[error("chunk-framed ASF ($H), as `ffmpeg -f asf_stream` writes it, is for pipes: write the file with `-f asf` instead")]
    ChunkFramed,
    /// Nothing behind the header is a Data Object.
    #[error("ASF header without a Data Object behind it")]
    NoData,
    /// The file ends before the first packet does, or none can be read.
    #[error("ASF file without a packet")]
    NoPackets,
}

/// Why a file that is open cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It was written to, cut, or another file has its place.
    #[error("the file was changed or replaced while it was open")]
    Changed,
    /// It was removed.
    #[error("the file was removed while it was open")]
    Vanished,
    /// The system failed.
    #[error("the file cannot be read: {0}")]
    Io(Arc<str>),
    /// The file has no such block.
    #[error("there is nothing behind the file's last packet")]
    PastTheEnd,
    /// The archive was dropped.
    #[error("the daemon has stopped reading files")]
    Closed,
    /// Nobody waits for the answer any more.
    #[error("the search was given up: nobody waits for it any more")]
    Unwanted,
    /// The reader panicked; the panic is in the log.
    #[error("a fault of the relay itself when it read the file: its log has the panic, please report it")]
    Internal,
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string().into())
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string().into())
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(text) => Self::Io(text),
            other => Self::Io(other.to_string().into()),
        }
    }
}
