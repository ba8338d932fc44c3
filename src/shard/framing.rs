//! How packets are framed for a viewer.

use std::ops::Range;

use crate::http::wrap::{Slab, Wrap};
use crate::mms::media::{DataHead, HEAD_LEN};
use crate::rtsp::media::Carriage;

/// How packets are framed for a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// As MMS has it, with numbers that are each viewer's own.
    #[default]
    Mms,
    /// As a part of the slab that all viewers over HTTP share.
    Http(Wrap),
    /// Without padding in RTP, in a flow that all viewers of a header share.
    Rtp(Carriage),
}

impl Framing {
    /// Bytes on the wire of a packet of this size; 0 in RTP, where they differ from packet to packet.
    pub(super) fn stride(self, packet_size: usize) -> usize {
        match self {
            Self::Mms => packet_size + HEAD_LEN,
            Self::Http(wrap) => Slab::new(packet_size).len(wrap),
            Self::Rtp(_) => 0,
        }
    }

    /// Appends a packet that only one viewer is sent; a viewer's own numbers are still missing. Where the packet itself is.
    /// Nothing in RTP, which keeps account of where packets end: [`crate::rtsp::media::Packets`].
    pub(super) fn push(self, packet: &[u8], number: u64, image: &mut Vec<u8>) -> Range<usize> {
        #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the number")]
        let location = number as u32;
        match self {
            Self::Mms => {
                image.extend_from_slice(&DataHead::new(location, 0, 0, packet.len()).bytes());
                image.extend_from_slice(packet);
                image.len() - packet.len()..image.len()
            }
            Self::Http(wrap) => Slab::new(packet.len()).push_part(wrap, packet, location, image),
            Self::Rtp(_) => image.len()..image.len(),
        }
    }
}
