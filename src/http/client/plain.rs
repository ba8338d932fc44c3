//! A file, or a stream like one: ASF as it is, without frames.

use bytes::{Bytes, BytesMut};

use crate::asf::{Event, Header, Reader, guids};
use crate::wire::{Guid, Writer};

/// Bytes of the Data Object in front of its packets.
const DATA_HEAD_LEN: usize = 50;

/// What came.
#[derive(Debug)]
pub(super) enum Piece {
    /// Header Object and the first 50 bytes of the Data Object.
    Header(Bytes),
    /// Packets of the header's size, one behind the other.
    Packets(Bytes),
    /// All of it has come.
    End,
}

/// Reads it; holds a header, at most 1 MiB, or a packet.
#[derive(Debug, Default)]
pub(super) struct Plain {
    reader: Reader,
    /// The first bytes as they came, until the header is known.
    head: BytesMut,
    packet_size: usize,
}

impl Plain {
    /// Whether this begins an ASF file; the first four bytes tell.
    pub(super) fn sniff(first: &[u8]) -> bool {
        first.get(..4).is_some_and(|first| guids::HEADER.0.starts_with(first))
    }

    /// Takes bytes; poll until `None` before more.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.packet_size == 0 {
            let wanted = Header::gather_len(&self.head).ok().flatten().unwrap_or(usize::MAX);
            if self.head.len() < wanted {
                self.head.extend_from_slice(bytes);
            }
        }
        self.reader.feed(bytes);
    }

    /// No more bytes come.
    pub(super) const fn finish(&mut self) {
        self.reader.finish();
    }

    /// Bytes of each packet; 0 before the header has come.
    pub(super) const fn packet_size(&self) -> usize {
        self.packet_size
    }

    /// The next piece.
    ///
    /// # Errors
    /// What is wrong with it; nothing can be read on then.
    pub(super) fn poll(&mut self) -> Result<Option<Piece>, String> {
        Ok(match self.reader.poll() {
            None => None,
            Some(Ok(Event::Header(header))) => {
                self.packet_size = header.packet_size();
                let head = std::mem::take(&mut self.head);
                Some(Piece::Header(with_data_head(&header, &head)))
            }
            Some(Ok(Event::Packets(packets))) => Some(Piece::Packets(packets.freeze())),
            Some(Ok(Event::End)) => Some(Piece::End),
            Some(Err(error)) => return Err(error.to_string()),
        })
    }
}

/// The header with the head of the Data Object behind it: the one that came, or, where another object stood between, an empty one.
fn with_data_head(header: &Header, came: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(header.bytes().as_ref());
    let data = came.get(bytes.len()..bytes.len() + DATA_HEAD_LEN);
    match data.filter(|data| data.first_chunk().is_some_and(|guid| Guid(*guid) == guids::DATA)) {
        Some(data) => bytes.extend_from_slice(data),
        None => {
            let mut data = Writer::default();
            data.guid(guids::DATA).u64(50).zeros(16).u64(0).u8(1).u8(1);
            bytes.extend_from_slice(&data.finish());
        }
    }
    bytes.freeze()
}
