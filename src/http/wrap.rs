//! Media on the wire: one slab a packet, of which each kind of viewer is sent a part.
//!
//! ```text
//! c8c CRLF | 24 44 LL LL | LocationId, Incarnation, AFFlags, PacketSize | ASF packet | CRLF
//! \_ chunked ________________________________________________________________________/
//!          \_ framed ___________________________________________________________/
//!                                                                       \_ raw __/
//! ```
//!
//! All of it is the same for all viewers: Incarnation and AFFlags are 0, which every player takes. Source: MS-WMSP 2.2.3.1,
//! 2.2.3.3; RFC 9112 7.1.

use std::io::Write as _;
use std::ops::Range;

use crate::wire::Writer;

/// Bytes before the packet in a `$D` frame: the frame's own four, and the MMS data packet's eight.
pub const FRAME_HEAD_LEN: usize = 4 + PACKET_HEAD_LEN;
const PACKET_HEAD_LEN: usize = 8;
const CRLF: &[u8] = b"\r\n";
/// Largest ASF packet that fits a frame, bytes.
pub const MAX_PACKET: usize = u16::MAX as usize - PACKET_HEAD_LEN;

/// How packets reach a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrap {
    /// Frames, each a chunk of an HTTP/1.1 response: one that asked for `version11-enabled=1`.
    Chunked,
    /// Frames one after the other.
    Framed,
    /// Packets one after the other, as in a file.
    Raw,
}

/// The slabs of packets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slab {
    packet_size: usize,
    /// Bytes of the line that tells the size of the chunk.
    line: usize,
}

impl Slab {
    /// For packets of this size, 1 to [`MAX_PACKET`] bytes.
    pub fn new(packet_size: usize) -> Self {
        debug_assert!((1..=MAX_PACKET).contains(&packet_size), "packet size {packet_size}");
        let digits = (usize::BITS - (packet_size + FRAME_HEAD_LEN).leading_zeros()).div_ceil(4) as usize;
        Self { packet_size, line: digits + CRLF.len() }
    }

    /// Bytes of a slab.
    pub const fn stride(&self) -> usize {
        self.line + FRAME_HEAD_LEN + self.packet_size + CRLF.len()
    }

    /// The part of a slab that such a viewer is sent.
    pub const fn part(&self, wrap: Wrap) -> Range<usize> {
        let packet = self.line + FRAME_HEAD_LEN;
        match wrap {
            Wrap::Chunked => 0..self.stride(),
            Wrap::Framed => self.line..packet + self.packet_size,
            Wrap::Raw => packet..packet + self.packet_size,
        }
    }

    /// Bytes of that part.
    pub fn len(&self, wrap: Wrap) -> usize {
        self.part(wrap).len()
    }

    /// Appends the slabs of `packets`, whole packets of the size, to `image`. `locations` are their LocationIds, as many. A rest
    /// shorter than a packet is not taken.
    pub fn wrap(&self, packets: &[u8], locations: impl IntoIterator<Item = u32>, image: &mut Vec<u8>) {
        image.reserve(packets.len() / self.packet_size.max(1) * self.stride());
        for (packet, location) in packets.chunks_exact(self.packet_size.max(1)).zip(locations) {
            self.push(packet, location, image);
        }
    }

    /// Appends the slab of one packet.
    pub fn push(&self, packet: &[u8], location: u32, image: &mut Vec<u8>) {
        self.push_part(Wrap::Chunked, packet, location, image);
    }

    /// Appends that part of the slab of one packet that such a viewer is sent; where in `image` the packet itself is.
    pub fn push_part(&self, wrap: Wrap, packet: &[u8], location: u32, image: &mut Vec<u8>) -> Range<usize> {
        if wrap == Wrap::Chunked {
            // Writing to memory does not fail.
            let _ = write!(image, "{:x}\r\n", FRAME_HEAD_LEN + packet.len());
        }
        if wrap != Wrap::Raw {
            image.extend_from_slice(&frame_head(packet.len(), location));
        }
        image.extend_from_slice(packet);
        let end = image.len();
        if wrap == Wrap::Chunked {
            image.extend_from_slice(CRLF);
        }
        end - packet.len()..end
    }
}

/// What stands before a packet in a `$D` frame. Source: MS-WMSP 2.2.3.3.
fn frame_head(packet_size: usize, location: u32) -> [u8; FRAME_HEAD_LEN] {
    let size = u16::try_from(packet_size + PACKET_HEAD_LEN).unwrap_or(u16::MAX).to_le_bytes();
    let [a, b, c, d] = location.to_le_bytes();
    [b'$', b'D', size[0], size[1], a, b, c, d, 0, 0, size[0], size[1]]
}

/// The kind of a frame that is not media. Source: MS-WMSP 2.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `$C`: another stream begins.
    Change,
    /// `$E`: the stream has ended; the reason.
    End(u32),
}

impl Control {
    /// The frame.
    pub fn bytes(self) -> [u8; 8] {
        let (kind, reason) = match self {
            Self::Change => (b'C', 0_u32),
            Self::End(reason) => (b'E', reason),
        };
        let [a, b, c, d] = reason.to_le_bytes();
        [b'$', kind, 4, 0, a, b, c, d]
    }
}

/// The `$H` frames of a header, which is Header Object and first 50 bytes of the Data Object: one, where it fits. Source: MS-WMSP
/// 2.2.3.5.
pub fn header_frames(header: &[u8]) -> Vec<u8> {
    pieces(b'H', header)
}

/// The `$M` frames of a description. Source: MS-WMSP 2.2.3.6.
pub fn metadata_frames(text: &[u8]) -> Vec<u8> {
    pieces(b'M', text)
}

fn pieces(kind: u8, bytes: &[u8]) -> Vec<u8> {
    const FIRST: u8 = 0x04;
    const LAST: u8 = 0x08;
    let count = bytes.len().div_ceil(MAX_PACKET);
    let mut frames = Writer::with_capacity(bytes.len() + count * FRAME_HEAD_LEN);
    for (index, piece) in (0_u32..).zip(bytes.chunks(MAX_PACKET)) {
        let first = if index == 0 { FIRST } else { 0 };
        let last = if index as usize + 1 == count { LAST } else { 0 };
        let size = u16::try_from(piece.len() + PACKET_HEAD_LEN).unwrap_or(u16::MAX);
        frames.u8(b'$').u8(kind).u16(size).u32(index).u8(0).u8(first | last).u16(size).bytes(piece);
    }
    frames.finish()
}

/// A piece of a chunked body: each frame is one.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(CRLF);
    chunk
}

/// What ends a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_holds_all_three_forms() {
        let packet = [7_u8; 3200];
        let slab = Slab::new(packet.len());
        let mut image = Vec::new();
        slab.wrap(&[packet, packet].concat(), [5000, 5001], &mut image);
        assert_eq!((image.len(), slab.stride()), (2 * slab.stride(), 3200 + 12 + 5 + 2));
        let second = &image[slab.stride()..];
        assert_eq!(&second[..5], b"c8c\r\n");
        let framed = &second[slab.part(Wrap::Framed)];
        assert_eq!(framed[..12], [0x24, 0x44, 0x88, 0x0C, 0x89, 0x13, 0, 0, 0, 0, 0x88, 0x0C]);
        assert_eq!(second[slab.part(Wrap::Raw)], packet);
        assert_eq!(second[slab.part(Wrap::Chunked)][slab.stride() - 2..], *b"\r\n");
        assert_eq!([Wrap::Chunked, Wrap::Framed, Wrap::Raw].map(|wrap| slab.len(wrap)), [3219, 3212, 3200]);
    }

    #[test]
    fn the_line_is_as_long_as_the_size_has_digits() {
        for packet_size in [1, 3, 4, 243, 244, 1400, 4083, 4084, MAX_PACKET] {
            let mut image = Vec::new();
            Slab::new(packet_size).push(&vec![0; packet_size], 0, &mut image);
            assert_eq!(image.len(), Slab::new(packet_size).stride(), "{packet_size}");
        }
    }

    #[test]
    fn long_headers_are_cut() {
        let heads = |header: &[u8]| {
            let frames = header_frames(header);
            let mut rest = &frames[..];
            let mut heads = Vec::new();
            while !rest.is_empty() {
                let size = usize::from(u16::from_le_bytes([rest[2], rest[3]])) + 4;
                heads.push(rest[..12].to_vec());
                rest = &rest[size..];
            }
            heads
        };
        assert_eq!(heads(&[0; 336]), [[0x24, 0x48, 0x58, 1, 0, 0, 0, 0, 0, 0x0C, 0x58, 1]]);
        assert_eq!(
            heads(&vec![0; 150_000]),
            [
                [0x24, 0x48, 0xFF, 0xFF, 0, 0, 0, 0, 0, 4, 0xFF, 0xFF],
                [0x24, 0x48, 0xFF, 0xFF, 1, 0, 0, 0, 0, 0, 0xFF, 0xFF],
                [0x24, 0x48, 0x0A, 0x4A, 2, 0, 0, 0, 0, 8, 0x0A, 0x4A],
            ]
        );
        assert!(header_frames(&[]).is_empty());
    }

    #[test]
    fn control_frames() {
        assert_eq!(Control::Change.bytes(), [0x24, 0x43, 4, 0, 0, 0, 0, 0]);
        assert_eq!(Control::End(0xC00D_145E).bytes(), [0x24, 0x45, 4, 0, 0x5E, 0x14, 0x0D, 0xC0]);
        assert_eq!(chunk(b"$T\0\0"), b"4\r\n$T\0\0\r\n");
    }
}
