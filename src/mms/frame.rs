//! What carries messages on TCP: the 32-byte head, the message frame, and a decoder that takes bytes as they come.

use bytes::{Buf, Bytes, BytesMut};

use super::data::{DataHead, HEAD_LEN};
use crate::wire::{Cursor, DecodeError, Writer};

/// Bytes of the head of a control packet.
pub const TCP_HEAD_LEN: usize = 32;
/// Bytes of the frame in front of each message body.
pub const MESSAGE_HEAD_LEN: usize = 8;
/// The number that tells control packets from data packets: bytes 4 to 7.
pub const SESSION_ID: u32 = 0xB00B_FACE;
/// "MMS " as a number.
const SEAL: u32 = 0x2053_4D4D;
/// `messageLength`, bytes 8 to 11, counts from byte 16 on.
pub const LENGTH_BASE: usize = 16;
/// Players send at most some 1.5 KiB plus a name and a token.
const MAX_FROM_CLIENT: usize = 16 * 1024;
/// Servers send at most what FFmpeg can take.
const MAX_FROM_SERVER: usize = 64 * 1024;
/// Nobody is known to send more than one.
const MAX_MESSAGES: u8 = 8;

/// A message that knows its place in a control packet.
///
/// `message` in `parse` is the whole message, frame included, so that the offsets of errors are those of the specification.
pub trait Message: Sized {
    /// The message identifier: direction in the high half, command in the low one.
    const MID: u32;

    /// Reads the fields; bytes behind the known ones are passed over.
    ///
    /// # Errors
    /// [`DecodeError`] where the fixed part is cut short or a count contradicts the length.
    fn parse(message: &[u8]) -> Result<Self, DecodeError>;

    /// Appends the body, without frame and padding.
    fn write(&self, body: &mut Writer);
}

/// A cursor at the body of a message.
pub(super) fn body(message: &[u8]) -> Result<Cursor<'_>, DecodeError> {
    let mut cursor = Cursor::new(message);
    cursor.skip("message frame", MESSAGE_HEAD_LEN)?;
    Ok(cursor)
}

/// One control packet with one message: head, frame, body, padding to 8 bytes.
///
/// `seq` is the sender's own packet counter. Source: MS-MMSP 2.2.3, 2.2.4; `chunkCount` as every implementation writes it.
pub fn encode<M: Message>(seq: u16, message: &M) -> Bytes {
    let mut out = Writer::with_capacity(160);
    out.u8(1).zeros(3).u32(SESSION_ID).u32(0).u32(SEAL).u32(0).u16(seq).u16(0).u64(0);
    out.u32(0).u32(M::MID);
    message.write(&mut out);
    out.pad_to(8);
    let units = |bytes: usize| u32::try_from(bytes / 8).expect("a message we write is small");
    let length = out.len() - LENGTH_BASE;
    out.patch_u32(8, units(length) * 8).patch_u32(16, units(length));
    let chunk = units(out.len() - TCP_HEAD_LEN);
    out.patch_u32(32, chunk);
    Bytes::from(out.finish())
}

/// Why a byte stream is not MMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// `rep`, `sessionId` or `seal` is wrong.
    #[error("control packet head: {0} is wrong: this is not MMS")]
    Signature(&'static str),
    /// `messageLength` is no multiple of 8, too small or too large.
    #[error("messageLength {length}: must be a multiple of 8 from 16 to {limit}")]
    Length {
        /// What stands there.
        length: u32,
        /// What is allowed.
        limit: usize,
    },
    /// `chunkLen` of a message does not fit into its control packet.
    #[error("chunkLen {units} of message {index}: {left} bytes are left in the control packet")]
    Chunk {
        /// What stands there, 8-byte units.
        units: u32,
        /// Which message, 0 the first.
        index: u8,
        /// Bytes left in the packet.
        left: usize,
    },
    /// More than 8 messages in one packet.
    #[error("more than {MAX_MESSAGES} messages in one control packet")]
    TooMany,
    /// A data packet smaller than its own head.
    #[error("PacketSize {0} of a data packet: smaller than its head")]
    DataSize(u16),
}

/// A message as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its identifier.
    pub mid: u32,
    /// The whole message with frame and padding.
    pub message: Bytes,
}

/// What a TCP connection carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A control message.
    Message(Frame),
    /// A data packet; only servers send them.
    Data {
        /// Its head.
        head: DataHead,
        /// What follows the head.
        payload: Bytes,
    },
}

/// Cuts a byte stream into messages and data packets.
///
/// Holds at most one unfinished packet (16 KiB from clients, 64 KiB from servers) beyond what was fed and not polled, and no memory
/// at all while there is nothing unfinished.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// Rest of the control packet whose messages are being handed out.
    packet: Bytes,
    handed: u8,
    from_server: bool,
}

impl Decoder {
    /// A decoder of what clients send: control only.
    pub fn from_client() -> Self {
        Self { buffer: BytesMut::new(), packet: Bytes::new(), handed: 0, from_server: false }
    }

    /// A decoder of what servers send: control and data.
    pub fn from_server() -> Self {
        Self { from_server: true, ..Self::from_client() }
    }

    /// Takes bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that were fed and not yet handed out.
    pub fn buffered(&self) -> usize {
        self.buffer.len() + self.packet.len()
    }

    /// The next item, `None` where more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] where the stream is not MMS; the same again at every later call.
    pub fn poll(&mut self) -> Result<Option<Item>, FrameError> {
        loop {
            if !self.packet.is_empty() {
                return self.next_message().map(|frame| Some(Item::Message(frame)));
            }
            if self.buffer.is_empty() {
                // A session waits most of its life: it must not keep the memory of its longest message.
                self.buffer = BytesMut::new();
                return Ok(None);
            }
            // Bytes 4 to 7 tell control from data (MS-MMSP 3.1.5.2); clients send no data.
            match self.buffer.get(4..8).map(|id| id == SESSION_ID.to_le_bytes()) {
                None if self.from_server => return Ok(None),
                Some(false) if self.from_server => return self.next_data(),
                _ if self.take_packet()? => {}
                _ => return Ok(None),
            }
        }
    }

    fn next_data(&mut self) -> Result<Option<Item>, FrameError> {
        let Ok(head) = DataHead::parse(&self.buffer) else { return Ok(None) };
        let size = usize::from(head.size);
        if size < HEAD_LEN {
            return Err(FrameError::DataSize(head.size));
        }
        if self.buffer.len() < size {
            return Ok(None);
        }
        let mut payload = self.buffer.split_to(size).freeze();
        payload.advance(HEAD_LEN);
        Ok(Some(Item::Data { head, payload }))
    }

    /// Checks the head as far as it is there; moves a whole packet to `self.packet`.
    fn take_packet(&mut self) -> Result<bool, FrameError> {
        let expect = |at: usize, value: u32, field| match self.buffer.get(at..at + 4) {
            Some(bytes) if bytes != value.to_le_bytes() => Err(FrameError::Signature(field)),
            _ => Ok(()),
        };
        if self.buffer.first().is_some_and(|rep| *rep != 1) {
            return Err(FrameError::Signature("rep"));
        }
        expect(4, SESSION_ID, "sessionId")?;
        let limit = if self.from_server { MAX_FROM_SERVER } else { MAX_FROM_CLIENT };
        let Some(&[a, b, c, d]) = self.buffer.get(8..12) else { return Ok(false) };
        let length = u32::from_le_bytes([a, b, c, d]);
        let total = match usize::try_from(length) {
            Ok(bytes) if bytes % 8 == 0 && (LENGTH_BASE..=limit).contains(&bytes) => bytes + LENGTH_BASE,
            _ => return Err(FrameError::Length { length, limit }),
        };
        expect(12, SEAL, "seal")?;
        if self.buffer.len() < total {
            return Ok(false);
        }
        self.packet = self.buffer.split_to(total).freeze();
        self.packet.advance(TCP_HEAD_LEN);
        self.handed = 0;
        Ok(true)
    }

    fn next_message(&mut self) -> Result<Frame, FrameError> {
        let left = self.packet.len();
        if self.handed == MAX_MESSAGES {
            return Err(FrameError::TooMany);
        }
        let mut cursor = Cursor::new(&self.packet);
        // The packet is a multiple of 8 bytes and not empty, so both numbers are there.
        let (Ok(units), Ok(mid)) = (cursor.u32("chunkLen"), cursor.u32("MID")) else { return Err(FrameError::TooMany) };
        let size = usize::try_from(units).unwrap_or(usize::MAX).saturating_mul(8);
        if units < 2 || size > left {
            return Err(FrameError::Chunk { units, index: self.handed, left });
        }
        self.handed += 1;
        Ok(Frame { mid, message: self.packet.split_to(size) })
    }
}
