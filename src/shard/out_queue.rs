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
#[derive(Debug, PartialEq, Eq)]
pub struct Partial {
    packet: Packet,
    /// Bytes that were written, the head's included.
    offset: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Packet {
    /// Of a broadcast: it keeps the batch, not a copy of the bytes; the head was the viewer's own.
    Shared { head: [u8; HEAD_LEN], batch: Arc<Batch>, index: usize },
    /// Of a file: nobody else has it.
    Own(Bytes),
}

impl Partial {
    /// A packet of which `offset` bytes, head included, were written.
    pub(super) const fn new(head: [u8; HEAD_LEN], batch: Arc<Batch>, index: usize, offset: usize) -> Self {
        Self { packet: Packet::Shared { head, batch, index }, offset }
    }

    /// What is left of a packet.
    pub(super) const fn own(rest: Bytes) -> Self {
        Self { packet: Packet::Own(rest), offset: 0 }
    }

    /// What is still to be written.
    fn rest(&self) -> [&[u8]; 2] {
        let (head, body): (&[u8], &[u8]) = match &self.packet {
            Packet::Shared { head, batch, index } => (head, batch.packet(*index).unwrap_or_default()),
            Packet::Own(bytes) => (&[], bytes),
        };
        [head.get(self.offset..).unwrap_or_default(), body.get(self.offset.saturating_sub(head.len())..).unwrap_or_default()]
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
            let rest = partial.rest();
            if rest.iter().all(|part| part.is_empty()) {
                self.partial = None;
                break;
            }
            let Some(written) = written(stream.try_write_vectored(&rest.map(IoSlice::new)))? else {
                return Ok(Flushed::Blocked);
            };
            self.written_bytes += written as u64;
            partial.offset += written;
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
