//! The packets of an RTCP compound.

use crate::wire::{Cursor, DecodeError};

const PADDED: u8 = 0x20;

/// A packet of a compound.
pub(super) struct RtcpPacket<'a> {
    /// The five bits behind version and padding: a count, or the format of feedback.
    pub(super) count: u8,
    /// The packet type.
    pub(super) kind: u8,
    /// What is behind the head, without padding.
    pub(super) body: &'a [u8],
}

/// The packets of a datagram, in their order: at least one of them, or an error, behind which there is no more.
///
/// Source: RFC 3550 6.1, 6.4.1.
pub(super) struct Compound<'a> {
    cursor: Cursor<'a>,
    over: bool,
}

impl<'a> Compound<'a> {
    pub(super) const fn new(datagram: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(datagram), over: false }
    }

    fn packet(&mut self) -> Result<RtcpPacket<'a>, DecodeError> {
        let cursor = &mut self.cursor;
        let [first, kind, high, low] = cursor.array("RTCP header")?;
        if first >> 6 != 2 {
            return Err(cursor.invalid("RTCP header", 4, "the version is not 2"));
        }
        let length = usize::from(u16::from_be_bytes([high, low])) * 4;
        let mut body = cursor.take("RTCP packet", length)?;
        if first & PADDED != 0 {
            let padding = body.last().map_or(0, |last| usize::from(*last));
            let rest = body.len().checked_sub(padding).filter(|_| padding != 0);
            body =
                rest.and_then(|rest| body.get(..rest)).ok_or_else(|| cursor.invalid("padding", 1, "longer than the packet"))?;
        }
        Ok(RtcpPacket { count: first & 0x1F, kind, body })
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<RtcpPacket<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let packet = self.packet();
        self.over = packet.is_err() || self.cursor.remaining() == 0;
        Some(packet)
    }
}
