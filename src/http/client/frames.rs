//! The frames of a response's body. Source: MS-WMSP 2.2.3.

use bytes::{Buf, Bytes, BytesMut};

use crate::asf::Header;
use crate::asf::chunk::{ChunkHead, ChunkKind, PreHeader};

/// What a frame brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// `$H`, the last piece of it: Header Object and 50 bytes of the Data Object.
    Header(Bytes),
    /// `$D`.
    Data {
        /// The server's number of the packet.
        location: u32,
        /// As it came; its padding may be cut off.
        packet: Bytes,
    },
    /// `$C`: a header follows.
    Change,
    /// `$E` and its reason.
    End(u32),
}

/// Cuts frames out of bytes. It holds one frame, at most 64 KiB, and the pieces of a header, at most 1 MiB.
#[derive(Debug, Default)]
pub(super) struct Frames {
    input: BytesMut,
    header: BytesMut,
}

impl Frames {
    /// Whether this begins a frame.
    pub(super) fn sniff(first: &[u8]) -> bool {
        ChunkHead::parse(first).is_ok()
    }

    /// Takes bytes; poll until `None` before more.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next frame that matters.
    ///
    /// # Errors
    /// What is wrong with it; nothing can be read on then.
    pub(super) fn poll(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if self.input.len() < ChunkHead::LEN {
                return Ok(None);
            }
            // The B bit is the head's own business.
            let head = ChunkHead::parse(&self.input).map_err(|error| format!("not a frame: {error}"))?;
            let whole = ChunkHead::LEN + usize::from(head.len);
            if self.input.len() < whole {
                return Ok(None);
            }
            let mut body = self.input.split_to(whole).freeze();
            body.advance(ChunkHead::LEN);
            let frame = match head.kind {
                ChunkKind::Data => match PreHeader::parse(&body) {
                    Ok(pre) => Some(Frame::Data { location: pre.location, packet: body.slice(PreHeader::LEN..) }),
                    Err(error) => return Err(format!("a $D frame of {} bytes: {error}", body.len())),
                },
                ChunkKind::Header => self.piece(&body)?,
                ChunkKind::Change => Some(Frame::Change),
                // Eight bytes are a pre-header in place of the reason, as VLC and ffmpeg write it.
                ChunkKind::End => Some(Frame::End(match *body {
                    [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                    _ => 0,
                })),
                ChunkKind::Metadata | ChunkKind::Filler | ChunkKind::Test => None,
                // Its length is not that of what follows (MS-WMSP 2.2.3.7); we never ask for one.
                ChunkKind::PacketPair => return Err("it sends a $P frame, which nobody asked for".into()),
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// Takes a piece of a header; the header where it is the last one.
    fn piece(&mut self, body: &[u8]) -> Result<Option<Frame>, String> {
        let pre = PreHeader::parse(body).map_err(|error| format!("a $H frame of {} bytes: {error}", body.len()))?;
        if pre.flags & PreHeader::FIRST != 0 {
            self.header.clear();
        }
        self.header.extend_from_slice(body.get(PreHeader::LEN..).unwrap_or_default());
        let whole = Header::gather_len(&self.header).map_err(|error| error.to_string())?;
        let is_whole = whole.is_some_and(|whole| self.header.len() >= whole);
        let is_last = pre.flags & PreHeader::LAST != 0;
        Ok((is_whole || is_last).then(|| Frame::Header(std::mem::take(&mut self.header).freeze())))
    }
}
