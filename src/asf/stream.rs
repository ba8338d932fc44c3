//! A source's bytes, however they come, as headers and packets.

use bytes::{Buf, BufMut, BytesMut};

use super::chunk::{ChunkHead, ChunkKind, PreHeader};
use super::header::{DATA_HEAD_LEN, Header, HeaderError};
use super::{guids, padding};
use crate::wire::{Cursor, DecodeError, Guid};

/// Packets of chunks are handed out once there are so many bytes of them. Chunks may be far shorter than the
/// packets they become, so this, not the input, bounds what one event takes.
const MAX_BATCH_LEN: usize = 256 * 1024;

/// Bytes of an object's GUID and size.
const OBJECT_HEAD_LEN: usize = 24;

/// First byte of what stands for a packet that could not be restored: no walk accepts it.
const INVALID_FILL: u8 = 0xFF;

/// Something that the input has brought.
#[derive(Debug)]
pub enum Event {
    /// A header; the packets that follow have its packet size.
    Header(Header),
    /// Whole packets of the header's size, one behind the other, at least one. They have not been walked.
    Packets(BytesMut),
    /// The source is at its end; nothing follows.
    End,
}

/// Why the input cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It begins with something else.
    #[error("neither ASF nor chunk-framed ASF, it begins with {0:02X?}; ffmpeg writes them with -f asf and -f asf_stream")]
    NotAsf([u8; 4]),
    /// The header is refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The chunks do not follow one another.
    #[error("chunk-framed ASF: {0}")]
    Chunk(DecodeError),
    /// A chunk that cannot stand where it does.
    #[error("chunk-framed ASF: {0}")]
    Order(&'static str),
    /// An object between header and data has an impossible size.
    #[error("ASF: object between header and data states {0} bytes")]
    Object(u64),
    /// The input ended too early.
    #[error("the source ended before its ASF header was whole")]
    NoHeader,
}

/// Reads an ASF source from bytes as they come: plain or in chunks, which it tells by the first bytes.
///
/// Feed it, then poll until `None`; [`Self::finish`] says that no more bytes come. What it holds between polls is
/// bounded by a header, 1 MiB, or by one packet. Packets that came without padding are restored to their fixed
/// size. One that cannot be restored is handed out all the same, as one that no walk accepts, so that it counts as
/// a packet and as an invalid one. Plain input ends at an index, at the Data Object's end where header and Data
/// Object agree about it, or with the bytes; less than a packet at the end is dropped.
///
/// Source: ASF 2; MS-WMSP 2.2.3.
#[derive(Debug, Default)]
pub struct Reader {
    input: BytesMut,
    finished: bool,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is known.
    #[default]
    Start,
    /// Plain: gathering the Header Object.
    PlainHeader,
    /// Plain: the Header Object is here; passing over what stands between it and the data.
    PlainData { header: BytesMut, skip: u64 },
    /// Plain: packets, as many as said or until something else comes.
    PlainPackets { size: usize, left: Option<u64> },
    /// Chunks.
    Chunks(Chunks),
    /// Ended or failed.
    Done,
}

#[derive(Debug, Default)]
struct Chunks {
    /// Packet size, once there was a header.
    size: Option<usize>,
    /// Headers and packets stand behind a pre-header; the first header tells.
    pre_headers: bool,
    /// A header of which pieces are missing.
    header: BytesMut,
}

/// What one step of reading brought.
enum Step {
    Event(Event),
    /// Another step may bring more.
    Again,
    /// Bytes are missing.
    Wait,
}

impl Reader {
    /// At the start of a source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the source. Poll until `None` before more.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.finished && !matches!(self.state, State::Done) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// No more bytes will come.
    pub const fn finish(&mut self) {
        self.finished = true;
    }

    /// What the bytes so far have brought, one thing a call. After [`Event::End`] or an error always `None`.
    pub fn poll(&mut self) -> Option<Result<Event, StreamError>> {
        loop {
            let step = match &mut self.state {
                State::Done => return None,
                _ => self.step(),
            };
            let event = match step {
                Ok(Step::Again) => continue,
                Ok(Step::Event(event)) => Ok(event),
                Ok(Step::Wait) if !self.finished => return None,
                Ok(Step::Wait) => self.at_end(),
                Err(error) => Err(error),
            };
            if matches!(event, Ok(Event::End) | Err(_)) {
                self.state = State::Done;
                self.input = BytesMut::new();
            }
            return Some(event);
        }
    }

    /// What it means that the bytes are at their end.
    fn at_end(&self) -> Result<Event, StreamError> {
        match &self.state {
            State::PlainPackets { .. } | State::Chunks(Chunks { size: Some(_), .. }) => Ok(Event::End),
            _ => Err(StreamError::NoHeader),
        }
    }

    fn step(&mut self) -> Result<Step, StreamError> {
        match &mut self.state {
            State::Start => {
                let Some(next) = sniff(&self.input)? else { return Ok(Step::Wait) };
                self.state = next;
                Ok(Step::Again)
            }
            State::PlainHeader => {
                let Some(whole) = Header::gather_len(&self.input)? else { return Ok(Step::Wait) };
                let len = whole - DATA_HEAD_LEN;
                if self.input.len() < len {
                    return Ok(Step::Wait);
                }
                self.state = State::PlainData { header: self.input.split_to(len), skip: 0 };
                Ok(Step::Again)
            }
            State::PlainData { header, skip } => {
                let now = usize::try_from(*skip).unwrap_or(usize::MAX).min(self.input.len());
                self.input.advance(now);
                *skip -= now as u64;
                if *skip > 0 || self.input.len() < OBJECT_HEAD_LEN {
                    return Ok(Step::Wait);
                }
                let Some((guid, size)) = object_head(&self.input) else { return Ok(Step::Wait) };
                if guid != guids::DATA {
                    if size < OBJECT_HEAD_LEN as u64 {
                        return Err(StreamError::Object(size));
                    }
                    *skip = size;
                    return Ok(Step::Again);
                }
                if self.input.len() < DATA_HEAD_LEN {
                    return Ok(Step::Wait);
                }
                header.extend_from_slice(&self.input.split_to(DATA_HEAD_LEN));
                let header = Header::parse(header)?;
                self.state = State::PlainPackets { size: header.packet_size(), left: header.data_packet_count() };
                Ok(Step::Event(Event::Header(header)))
            }
            State::PlainPackets { size, left } => Ok(plain_packets(&mut self.input, *size, left)),
            State::Chunks(chunks) => chunks.step(&mut self.input),
            State::Done => Ok(Step::Wait),
        }
    }
}

/// Plain or chunks, told from up to four bytes; `None` where fewer leave it open.
fn sniff(input: &[u8]) -> Result<Option<State>, StreamError> {
    let begins = |with: &[u8]| input.iter().zip(with).all(|(a, b)| a == b);
    let [a, b, c, d, ..] = guids::HEADER.0;
    let framed = input.first().is_none_or(|mark| mark & 0x7F == b'$') && input.get(1).is_none_or(|kind| b"HMCF".contains(kind));
    let plain = begins(&[a, b, c, d]);
    match input.first_chunk() {
        _ if !plain && !framed => {
            let mut first = [0; 4];
            first.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
            Err(StreamError::NotAsf(first))
        }
        None::<&[u8; 4]> => Ok(None),
        Some(_) if plain => Ok(Some(State::PlainHeader)),
        Some(_) => Ok(Some(State::Chunks(Chunks::default()))),
    }
}

fn object_head(bytes: &[u8]) -> Option<(Guid, u64)> {
    let mut cursor = Cursor::new(bytes);
    Some((cursor.guid("object id").ok()?, cursor.u64("object size").ok()?))
}

/// Whether what stands at a packet's place is one of the objects that follow the data.
fn is_index(bytes: &[u8]) -> bool {
    bytes.first_chunk().is_some_and(|guid| {
        matches!(Guid(*guid), guids::SIMPLE_INDEX | guids::INDEX | guids::MEDIA_OBJECT_INDEX | guids::TIMECODE_INDEX)
    })
}

fn plain_packets(input: &mut BytesMut, size: usize, left: &mut Option<u64>) -> Step {
    let room = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
    if room == 0 {
        return Step::Event(Event::End);
    }
    let whole = input.chunks_exact(size).take(room).take_while(|packet| !is_index(packet)).count();
    if whole == 0 {
        return if input.len() < size { Step::Wait } else { Step::Event(Event::End) };
    }
    *left = left.map(|left| left.saturating_sub(whole as u64));
    let mut packets = input.split_to(whole * size);
    packets.chunks_exact_mut(size).for_each(padding::settle);
    Step::Event(Event::Packets(packets))
}

impl Chunks {
    fn step(&mut self, input: &mut BytesMut) -> Result<Step, StreamError> {
        let mut packets = BytesMut::new();
        while let Some((head, body)) = whole_chunk(input)? {
            if head.kind != ChunkKind::Data && !packets.is_empty() {
                break;
            }
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
                    input.advance(ChunkHead::LEN + usize::from(head.len));
                    if packets.len() >= MAX_BATCH_LEN {
                        break;
                    }
                }
                ChunkKind::Header | ChunkKind::Change => {
                    let header = self.header_piece(head.kind, body)?;
                    input.advance(ChunkHead::LEN + usize::from(head.len));
                    return Ok(header.map_or(Step::Again, |header| Step::Event(Event::Header(header))));
                }
                ChunkKind::End => {
                    // 1 announces a new header. FFmpeg writes a pre-header where the reason should stand.
                    let reason = (head.len == 4).then(|| body.first_chunk().map(|reason| u32::from_le_bytes(*reason))).flatten();
                    input.advance(ChunkHead::LEN + usize::from(head.len));
                    return Ok(if reason == Some(1) { Step::Again } else { Step::Event(Event::End) });
                }
                ChunkKind::Filler | ChunkKind::Metadata | ChunkKind::Test => {
                    input.advance(ChunkHead::LEN + usize::from(head.len));
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
