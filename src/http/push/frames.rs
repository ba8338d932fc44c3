//! The frames of an encoder's bodies: what may come after what, and how long each may be.

use crate::asf::chunk::{ChunkHead, ChunkKind};
use crate::asf::{Header, HeaderError};
use crate::http::response::{Refusal, Status};
use crate::wire::DecodeError;

/// Longest header in a `$H`, bytes (MS-WMHTTP 2.2.3.5).
const MAX_HEADER: usize = 65_531;
/// Longest header in a `$C`, bytes (MS-WMHTTP 2.2.3.1).
const MAX_CHANGED_HEADER: usize = 65_527;
/// Longest filler, bytes (MS-WMHTTP 2.2.3.4).
const MAX_FILLER: usize = 65_531;
/// Bytes of the reason in `$C` and `$E`.
const REASON_LEN: usize = 4;
/// The reason of an `$E` behind which a new header comes.
const CHANGES: u32 = 1;

/// Why a body cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is no frame.
    #[error("a frame is broken: {0}")]
    Head(DecodeError),
    /// A frame that cannot stand where it does.
    #[error("a {0:?} frame comes where {1} belongs")]
    Order(ChunkKind, &'static str),
    /// A length that the kind of frame cannot have.
    #[error("a {kind:?} frame of {len} bytes; {expected}")]
    Length {
        /// Of which kind.
        kind: ChunkKind,
        /// Bytes behind the frame's head.
        len: usize,
        /// What would be right.
        expected: String,
    },
    /// A header that is refused.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The body ends within a frame.
    #[error("Content-Length ends within a frame, {0} bytes behind its beginning; encoders fill up with $F")]
    Straddles(usize),
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::new(Status::BadRequest, format!("The push cannot be read on: {error}."))
    }
}

/// What bytes of a body have brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// A header or a packet was among them, which is what keeps a session alive.
    pub media: bool,
    /// The session is over, with this reason, an HRESULT; 0 is a proper end. What comes behind is passed over.
    pub ended: Option<u32>,
}

/// Takes the frames of a session apart, over the bodies and connections that they come in.
///
/// Frames are let through whole, as [`crate::asf::Reader`] takes them. What it holds is less than one frame, 64 KiB.
///
/// Source: MS-WMHTTP 2.2.3, 3.2.5.2.
#[derive(Debug)]
pub struct Frames {
    partial: Vec<u8>,
    next: Next,
    /// No frame but filler came in this body.
    at_start: bool,
    /// Packet size, once there was a header.
    packet_size: usize,
}

/// What belongs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The session's first header.
    Header,
    /// Packets of a new header.
    Packet,
    /// More packets, or another header.
    Any,
    /// The header that an `$E` has announced.
    Change,
    /// Nothing.
    Over,
}

impl Default for Frames {
    fn default() -> Self {
        Self { partial: Vec::new(), next: Next::Header, at_start: true, packet_size: 0 }
    }
}

impl Frames {
    /// A body begins: frames go on where the last whole one ended, whatever became of the body before.
    pub fn begin(&mut self) {
        self.partial.clear();
        self.at_start = true;
        if self.next == Next::Packet {
            self.next = Next::Any;
        }
    }

    /// Takes bytes of the body; whole frames are appended to `out`.
    ///
    /// # Errors
    /// [`FrameError`]; the session is over then.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Progress, FrameError> {
        let mut progress = Progress::default();
        if self.next == Next::Over {
            return Ok(progress);
        }
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let mut rest = partial.as_slice();
        while rest.len() >= ChunkHead::LEN {
            let head = ChunkHead::parse(rest).map_err(FrameError::Head)?;
            self.check(head)?;
            let Some((frame, behind)) = rest.split_at_checked(ChunkHead::LEN + usize::from(head.len)) else { break };
            self.take(head.kind, frame.get(ChunkHead::LEN..).unwrap_or_default(), &mut progress)?;
            out.extend_from_slice(frame);
            rest = behind;
            if self.next == Next::Over {
                return Ok(progress);
            }
        }
        self.partial = rest.to_vec();
        Ok(progress)
    }

    /// The body is complete.
    ///
    /// # Errors
    /// [`FrameError::Straddles`].
    pub const fn end(&self) -> Result<(), FrameError> {
        match self.partial.len() {
            0 => Ok(()),
            begun => Err(FrameError::Straddles(begun)),
        }
    }

    /// Whether a frame may come, by its head alone.
    fn check(&self, head: ChunkHead) -> Result<(), FrameError> {
        let (kind, len) = (head.kind, usize::from(head.len));
        let expected = match self.next {
            Next::Header => "the stream's header",
            Next::Packet => "a packet",
            Next::Any => "a packet or a change of the header",
            Next::Change => "the announced header",
            Next::Over => "nothing",
        };
        let fits = match kind {
            // Encoders that begin anew may do so at the start of a body.
            ChunkKind::Header => self.next == Next::Header || self.at_start,
            ChunkKind::Data => matches!(self.next, Next::Packet | Next::Any),
            ChunkKind::Change => matches!(self.next, Next::Any | Next::Change),
            ChunkKind::End | ChunkKind::Filler => self.next != Next::Header,
            ChunkKind::Metadata | ChunkKind::PacketPair | ChunkKind::Test => false,
        };
        if !fits {
            return Err(FrameError::Order(kind, expected));
        }
        let (most, what) = match kind {
            ChunkKind::Header => (MAX_HEADER, "a header has"),
            ChunkKind::Data => (self.packet_size, "packets of this stream have"),
            ChunkKind::Change => (REASON_LEN + MAX_CHANGED_HEADER, "a header with its reason has"),
            ChunkKind::End => (REASON_LEN, "a reason has"),
            _ => (MAX_FILLER, "filler has"),
        };
        if len > most || (kind == ChunkKind::End && len < most) {
            return Err(FrameError::Length { kind, len, expected: format!("{what} {most} at most") });
        }
        Ok(())
    }

    /// Takes a whole frame in.
    fn take(&mut self, kind: ChunkKind, body: &[u8], progress: &mut Progress) -> Result<(), FrameError> {
        match kind {
            ChunkKind::Header | ChunkKind::Change => {
                let header = if kind == ChunkKind::Change { body.get(REASON_LEN..).unwrap_or_default() } else { body };
                self.packet_size = Header::parse(header)?.packet_size();
                self.next = Next::Packet;
                progress.media = true;
            }
            ChunkKind::Data => {
                self.next = Next::Any;
                progress.media = true;
            }
            ChunkKind::End => {
                let reason = body.first_chunk().map_or(0, |reason| u32::from_le_bytes(*reason));
                if reason == CHANGES {
                    self.next = Next::Change;
                } else {
                    self.next = Next::Over;
                    progress.ended = Some(reason);
                }
            }
            _ => {
                if self.next == Next::Packet {
                    self.next = Next::Any;
                }
                return Ok(());
            }
        }
        self.at_start = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
