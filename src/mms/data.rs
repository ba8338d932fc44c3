//! The 8-byte head of data packets, and the pieces in which the ASF header is sent.

use crate::wire::{Cursor, DecodeError};

/// Bytes of the head of a data packet.
pub const HEAD_LEN: usize = 8;
/// Largest payload of a data packet.
pub const MAX_PAYLOAD: usize = u16::MAX as usize - HEAD_LEN;
/// `AFFlags` of a header fragment that others follow.
pub const FRAGMENT: u8 = 0x04;
/// `AFFlags` of the last header fragment.
pub const LAST_FRAGMENT: u8 = 0x0C;
/// Incarnation of what follows a StreamChange on TCP until the next StartPlaying.
pub const CHANGED_INCARNATION: u8 = 0xFF;
/// VLC looks at a packet only when 48 bytes of it are there: 8 of head, 40 of payload.
const MIN_LAST_FRAGMENT: usize = 40;

/// The head of a data packet. Source: MS-MMSP 2.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHead {
    /// Packet number for media, fragment number for the header.
    pub location: u32,
    /// Low byte of the incarnation of the request that caused the packet.
    pub incarnation: u8,
    /// `AFFlags`: low byte of the sequence number for media; [`FRAGMENT`] or [`LAST_FRAGMENT`] for the header.
    pub flags: u8,
    /// Bytes of the packet, head included.
    pub size: u16,
}

impl DataHead {
    /// The head of a payload of `payload` bytes, at most [`MAX_PAYLOAD`].
    pub fn new(location: u32, incarnation: u8, flags: u8, payload: usize) -> Self {
        Self { location, incarnation, flags, size: u16::try_from(payload + HEAD_LEN).unwrap_or(u16::MAX) }
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`DecodeError::Short`] where fewer than 8 bytes are there.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        Ok(Self {
            location: cursor.u32("LocationId")?,
            incarnation: cursor.u8("playIncarnation")?,
            flags: cursor.u8("AFFlags")?,
            size: cursor.u16("PacketSize")?,
        })
    }

    /// The bytes of the head.
    pub const fn bytes(self) -> [u8; HEAD_LEN] {
        let ([l0, l1, l2, l3], [s0, s1]) = (self.location.to_le_bytes(), self.size.to_le_bytes());
        [l0, l1, l2, l3, self.incarnation, self.flags, s0, s1]
    }
}

/// Where the pieces of an ASF header end; no piece is longer than `limit` bytes.
///
/// The pieces are about equal, so that the last is never too short for VLC; none but the last ends in `01 01`, by which MPlayer
/// knows the end of the header.
pub fn fragment_ends(header: &[u8], limit: usize) -> Vec<usize> {
    let limit = limit.clamp(MIN_LAST_FRAGMENT * 2, MAX_PAYLOAD);
    let least = header.len().div_ceil(limit).max(1);
    // A cut that had to move may make its neighbour too long: then one piece more.
    for pieces in least..least + 8 {
        if let Some(ends) = cut(header, pieces, limit) {
            return ends;
        }
    }
    // A header full of 01: no such exists; MPlayer would stop early on it.
    (1..=least).map(|piece| header.len() * piece / least).collect()
}

fn cut(header: &[u8], pieces: usize, limit: usize) -> Option<Vec<usize>> {
    let mut ends = Vec::with_capacity(pieces);
    let mut start = 0;
    for piece in 1..pieces {
        let mut end = header.len() * piece / pieces;
        while header.get(end.checked_sub(2)?..end)? == [1, 1] {
            end -= 1;
        }
        if end <= start || end - start > limit {
            return None;
        }
        ends.push(end);
        start = end;
    }
    let last = header.len() - start;
    (last <= limit && (pieces == 1 || last >= MIN_LAST_FRAGMENT)).then(|| {
        ends.push(header.len());
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_eight_bytes_both_ways() {
        let bytes = [0x45, 0x23, 0x01, 0x00, 0x04, 0x00, 0x48, 0x00];
        let head = DataHead::new(0x12345, 4, 0, 64);
        assert_eq!(head.bytes(), bytes);
        assert_eq!(DataHead::parse(&bytes), Ok(head));
        for n in 0..8 {
            assert!(DataHead::parse(&bytes[..n]).is_err());
        }
    }

    #[test]
    fn fragments_are_balanced_and_bounded() {
        for (len, limit) in [(809, 1400), (1401, 1400), (5000, 1400), (2801, 1400), (8192, 100), (60_000, 3200)] {
            let header = vec![7; len];
            let ends = fragment_ends(&header, limit);
            let mut start = 0;
            let sizes: Vec<usize> = ends.iter().map(|end| end - std::mem::replace(&mut start, *end)).collect();
            assert_eq!(sizes.iter().sum::<usize>(), len);
            assert!(sizes.iter().all(|size| (1..=limit).contains(size)), "{sizes:?}");
            assert!(*sizes.last().unwrap() >= 40);
            assert_eq!(sizes.len(), len.div_ceil(limit));
        }
    }

    #[test]
    fn no_earlier_fragment_ends_like_the_header() {
        let mut header = vec![7; 2800];
        header[1396..1400].fill(1);
        header[2798..].fill(1);
        let ends = fragment_ends(&header, 1400);
        for end in &ends[..ends.len() - 1] {
            assert_ne!(header[end - 2..*end], [1, 1]);
        }
        assert_eq!(ends.last(), Some(&2800));
        assert_eq!(fragment_ends(&[1; 300], 100), [100, 200, 300], "no cut is good: the plain ones");
    }
}
