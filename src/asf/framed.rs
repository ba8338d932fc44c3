//! The chunk-framed half of the source reader.

use bytes::{Buf, BufMut, BytesMut};

use super::chunk::{ChunkHead, ChunkKind, PreHeader};
use super::header::Header;
use super::stream::{Event, Step, StreamError};
use super::{guids, padding};

/// Packets of chunks are handed out once there are so many bytes of them. Chunks may be far shorter than the
/// packets they become, so this, not the input, bounds what one event takes.
pub(super) const MAX_BATCH_LEN: usize = 256 * 1024;

/// First byte of what stands for a packet that could not be restored: no walk accepts it.
const INVALID_FILL: u8 = 0xFF;

/// Where the reading of chunks stands.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Packet size, once there was a header.
    size: Option<usize>,
    /// Headers and packets stand behind a pre-header; the first header tells.
    pre_headers: bool,
    /// A header of which pieces are missing.
    header: BytesMut,
}

impl Chunks {
    /// Whether a header has come, so that an end of the input is no surprise.
    pub(super) const fn had_header(&self) -> bool {
        self.size.is_some()
    }

    pub(super) fn step(&mut self, input: &mut BytesMut) -> Result<Step, StreamError> {
        let mut packets = BytesMut::new();
        loop {
            let (head, body) = match whole_chunk(input) {
                Ok(Some(chunk)) => chunk,
                // What came before the fault goes out first.
                Err(error) if packets.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            };
            if head.kind != ChunkKind::Data && !packets.is_empty() {
                break;
            }
            let whole = ChunkHead::LEN + usize::from(head.len);
            match head.kind {
                ChunkKind::Data => {
                    let size = self.size.filter(|_| self.header.is_empty());
                    let size = size.ok_or(StreamError::Order("a packet comes before the header is whole"))?;
                    if packets.is_empty() {
                        packets.reserve(size.max(input.len() / size * size).min(MAX_BATCH_LEN + size));
                    }
                    let start = packets.len();
                    self.packet(body, size, &mut packets);
                    if let Some(packet) = packets.get_mut(start..) {
                        padding::settle(packet);
                    }
                    input.advance(whole);
                    if packets.len() >= MAX_BATCH_LEN {
                        break;
                    }
                }
                ChunkKind::Header | ChunkKind::Change => {
                    let header = self.header_piece(head.kind, body)?;
                    input.advance(whole);
                    return Ok(header.map_or(Step::Again, |header| Step::Event(Event::Header(header))));
                }
                ChunkKind::End => {
                    // 1 announces a new header. FFmpeg writes a pre-header where the reason should stand.
                    let reason = (head.len == 4).then(|| body.first_chunk().map(|reason| u32::from_le_bytes(*reason))).flatten();
                    input.advance(whole);
                    return Ok(if reason == Some(1) { Step::Again } else { Step::Event(Event::End) });
                }
                ChunkKind::Filler | ChunkKind::Metadata | ChunkKind::Test => {
                    input.advance(whole);
                }
                ChunkKind::PacketPair => return Err(StreamError::Order("a packet pair comes from a source")),
            }
        }
        Ok(if packets.is_empty() { Step::Wait } else { Step::Event(Event::Packets(packets)) })
    }

    /// Appends one packet of `size` bytes, whatever came.
    fn packet(&self, body: &[u8], size: usize, out: &mut BytesMut) {
        let packet = if self.pre_headers { body.get(PreHeader::LEN..).unwrap_or_default() } else { body };
        if padding::restore(packet, size, out).is_err() {
            out.put_bytes(INVALID_FILL, size);
        }
    }

    /// Takes a header, or a piece of one; returns it when it is whole.
    fn header_piece(&mut self, kind: ChunkKind, body: &[u8]) -> Result<Option<Header>, StreamError> {
        let (piece, last) = if kind == ChunkKind::Change {
            // A reason, then perhaps the header; without it a `$H` follows.
            let Some(piece) = body.get(4..).filter(|piece| !piece.is_empty()) else { return Ok(None) };
            self.header.clear();
            self.pre_headers = false;
            (piece, true)
        } else {
            if self.header.is_empty() {
                self.pre_headers = !body.starts_with(&guids::HEADER.0);
            }
            match PreHeader::parse(body) {
                Ok(pre) if self.pre_headers => (body.get(PreHeader::LEN..).unwrap_or_default(), pre.flags & PreHeader::LAST != 0),
                _ => (body, true),
            }
        };
        self.header.extend_from_slice(piece);
        let whole = Header::gather_len(&self.header)?.is_some_and(|whole| self.header.len() >= whole);
        if !whole && !last {
            return Ok(None);
        }
        let header = Header::parse(&std::mem::take(&mut self.header))?;
        self.size = Some(header.packet_size());
        Ok(Some(header))
    }
}

/// The chunk at the start of the input, if all of it is there.
fn whole_chunk(input: &[u8]) -> Result<Option<(ChunkHead, &[u8])>, StreamError> {
    if input.len() < ChunkHead::LEN {
        return Ok(None);
    }
    let head = ChunkHead::parse(input).map_err(StreamError::Chunk)?;
    Ok(input.get(ChunkHead::LEN..).and_then(|body| body.get(..usize::from(head.len))).map(|body| (head, body)))
}
