//! The `$` chunks that frame ASF in Windows Media HTTP, and in what FFmpeg's `asf_stream` writes.

use crate::wire::{Cursor, DecodeError};

/// What a chunk carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// `$C`: the stream changes, a header follows or is in it.
    Change,
    /// `$D`: one data packet.
    Data,
    /// `$E`: the end.
    End,
    /// `$F`: filler of encoders behind proxies.
    Filler,
    /// `$H`: the header, or a piece of it.
    Header,
    /// `$M`: metadata.
    Metadata,
    /// `$P`: packet pair; more bytes follow than its length says.
    PacketPair,
    /// `$T`: a pipeline test, empty.
    Test,
}

impl ChunkKind {
    const fn of(letter: u8) -> Option<Self> {
        Some(match letter {
            b'C' => Self::Change,
            b'D' => Self::Data,
            b'E' => Self::End,
            b'F' => Self::Filler,
            b'H' => Self::Header,
            b'M' => Self::Metadata,
            b'P' => Self::PacketPair,
            b'T' => Self::Test,
            _ => return None,
        })
    }

    const fn letter(self) -> u8 {
        match self {
            Self::Change => b'C',
            Self::Data => b'D',
            Self::End => b'E',
            Self::Filler => b'F',
            Self::Header => b'H',
            Self::Metadata => b'M',
            Self::PacketPair => b'P',
            Self::Test => b'T',
        }
    }
}

/// The four bytes in front of every chunk.
///
/// Source: MS-WMSP 2.2.3.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    /// What follows.
    pub kind: ChunkKind,
    /// Another chunk follows in the same write; a hint only.
    pub more: bool,
    /// Bytes behind these four.
    pub len: u16,
}

impl ChunkHead {
    /// Bytes of a chunk head.
    pub const LEN: usize = 4;

    /// Reads a chunk head.
    ///
    /// # Errors
    /// [`DecodeError`] under four bytes, without the `$`, or with an unknown letter.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let mark = cursor.u8("chunk mark")?;
        if mark & 0x7F != b'$' {
            return Err(cursor.invalid("chunk mark", 1, "not a $"));
        }
        let letter = cursor.u8("chunk type")?;
        let kind = ChunkKind::of(letter).ok_or_else(|| cursor.invalid("chunk type", 1, "none of C D E F H M P T"))?;
        Ok(Self { kind, more: mark & 0x80 != 0, len: cursor.u16("chunk length")? })
    }

    /// The bytes of this head.
    pub const fn write(&self) -> [u8; Self::LEN] {
        let [low, high] = self.len.to_le_bytes();
        [if self.more { 0xA4 } else { b'$' }, self.kind.letter(), low, high]
    }
}

/// The eight bytes in front of a header or a packet, in a chunk towards a viewer and in an MMS data packet.
///
/// Encoders that push by Microsoft's own protocol leave them out; FFmpeg writes them.
///
/// Source: MS-WMSP 2.2.3.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreHeader {
    /// Number of the packet in its file, or of the header's piece.
    pub location: u32,
    /// Which play request this answers.
    pub incarnation: u8,
    /// For a header which piece it is; for a packet a sequence number.
    pub flags: u8,
    /// Bytes of these eight and what follows.
    pub len: u16,
}

impl PreHeader {
    /// Bytes of a pre-header.
    pub const LEN: usize = 8;
    /// Flag of a header's first piece.
    pub const FIRST: u8 = 0x04;
    /// Flag of a header's last piece.
    pub const LAST: u8 = 0x08;

    /// Reads a pre-header.
    ///
    /// # Errors
    /// [`DecodeError::Short`] under eight bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        Ok(Self {
            location: cursor.u32("location id")?,
            incarnation: cursor.u8("incarnation")?,
            flags: cursor.u8("flags")?,
            len: cursor.u16("packet size")?,
        })
    }

    /// The bytes of this pre-header.
    pub const fn write(&self) -> [u8; Self::LEN] {
        let ([a, b, c, d], [low, high]) = (self.location.to_le_bytes(), self.len.to_le_bytes());
        [a, b, c, d, self.incarnation, self.flags, low, high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_ffmpeg() {
        // The first 12 bytes of what `-f asf_stream` writes, and of its first packet.
        let header = [0x24, 0x48, 0xCD, 0x02, 0, 0, 0, 0, 0, 0x0C, 0xCD, 0x02];
        let head = ChunkHead::parse(&header).unwrap();
        assert_eq!(head, ChunkHead { kind: ChunkKind::Header, more: false, len: 717 });
        let pre = PreHeader::parse(&header[4..]).unwrap();
        assert_eq!(pre, PreHeader { location: 0, incarnation: 0, flags: PreHeader::FIRST | PreHeader::LAST, len: 717 });
        assert_eq!([&head.write()[..], &pre.write()].concat(), header);

        let data = [0xA4, 0x44, 0x80, 0x05, 1, 0, 0, 0, 0, 0, 0x80, 0x05];
        let head = ChunkHead::parse(&data).unwrap();
        assert_eq!(head, ChunkHead { kind: ChunkKind::Data, more: true, len: 1408 });
        assert_eq!([&head.write()[..], &PreHeader::parse(&data[4..]).unwrap().write()].concat(), data);
    }

    #[test]
    fn every_kind_round_trips_and_nothing_else_parses() {
        for letter in 0..=255 {
            let bytes = [b'$', letter, 3, 0];
            match ChunkHead::parse(&bytes) {
                Ok(head) => assert_eq!(head.write(), bytes),
                Err(_) => assert!(!b"CDEFHMPT".contains(&letter)),
            }
        }
        assert!(ChunkHead::parse(b"#D\0\0").is_err());
        for cut in 0..4 {
            assert!(ChunkHead::parse(&b"$D\0\0"[..cut]).is_err());
        }
        for cut in 0..8 {
            assert!(PreHeader::parse(&[0; 8][..cut]).is_err());
        }
    }
}
