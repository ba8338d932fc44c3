//! What waits to be written to one TCP connection.
//!
//! Order on the wire: the rest of a media packet that a short write cut, then control messages, one write each, then media.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::mms::media::HEAD_LEN;
use crate::relay::Batch;

/// A media packet of which the system took only the first bytes.
///
/// It keeps the batch, not a copy of the bytes; the head was the viewer's own.
#[derive(Debug, PartialEq, Eq)]
pub struct Partial {
    head: [u8; HEAD_LEN],
    batch: Arc<Batch>,
    packet: usize,
    offset: usize,
}

impl Partial {
    /// A packet of which `offset` bytes, head included, were written.
    pub(super) const fn new(head: [u8; HEAD_LEN], batch: Arc<Batch>, packet: usize, offset: usize) -> Self {
        Self { head, batch, packet, offset }
    }
}

/// Control messages and the cut packet of one connection.
#[derive(Debug, Default)]
pub(super) struct OutQueue {
    control: VecDeque<Bytes>,
    control_offset: usize,
    partial: Option<Partial>,
    written_bytes: u64,
}

/// Whether everything was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing waits any more.
    All,
    /// The system's buffer is full.
    Blocked,
}

impl OutQueue {
    /// Appends a control message, or a header packet.
    pub(super) fn push(&mut self, message: Bytes) {
        self.control.push_back(message);
    }

    /// Bytes of control messages that wait.
    pub(super) fn control_bytes(&self) -> usize {
        self.control.iter().map(Bytes::len).sum()
    }

    /// Bytes of all that waited here: a sign of life of a reader.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.partial.is_none()
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn flush(&mut self, stream: &TcpStream) -> io::Result<Flushed> {
        while let Some(partial) = &mut self.partial {
            let body = partial.batch.packet(partial.packet).unwrap_or_default();
            let head = partial.head.get(partial.offset..).unwrap_or_default();
            let rest = body.get(partial.offset.saturating_sub(HEAD_LEN)..).unwrap_or_default();
            let Some(written) = written(stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(rest)]))? else {
                return Ok(Flushed::Blocked);
            };
            self.written_bytes += written as u64;
            partial.offset += written;
            if partial.offset >= HEAD_LEN + body.len() {
                self.partial = None;
            }
        }
        while let Some(message) = self.control.front() {
            let rest = message.get(self.control_offset..).unwrap_or_default();
            let Some(written) = written(stream.try_write(rest))? else { return Ok(Flushed::Blocked) };
            self.written_bytes += written as u64;
            self.control_offset += written;
            if self.control_offset >= message.len() {
                self.control_offset = 0;
                self.control.pop_front();
            }
        }
        // A viewer is told something now and then: between two messages nothing is kept for them.
        self.control = VecDeque::new();
        Ok(Flushed::All)
    }

    /// Keeps the rest of a packet that a short write cut.
    pub(super) fn keep(&mut self, partial: Option<Partial>) {
        self.partial = partial;
    }
}

/// Bytes that one write took; `None` where the system is full.
fn written(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
