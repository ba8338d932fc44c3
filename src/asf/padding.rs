//! Taking the padding off a packet for the wire, and putting it back.
//!
//! Both rewrite the packet's head, because players disagree about short packets. A single payload has no length
//! of its own: whoever fills a stripped packet up with zeros before reading it takes them for media. An explicit
//! packet length is the one form that all of them read. And an explicit length beside a padding length that is
//! not zero is read two ways, so the relay never sends that.

use bytes::BufMut;

use super::packet::{Layout, PacketError};
use crate::wire::DecodeError;

/// Padding below this is not worth a new head.
const MIN_STRIP: usize = 16;

/// Length type flags that say where the packet ends: packet length type and padding length type.
const END_TYPES: u8 = 0x78;
const PACKET_LENGTH_U16: u8 = 0x40;
const PADDING_U16: u8 = 0x10;
const PADDING_U8: u8 = 0x08;

/// Bytes of send time and duration.
const TIMES_LEN: usize = 6;

/// How a rewritten head tells where the packet ends.
#[derive(Clone, Copy)]
enum End {
    PacketLength(u16),
    Padding(u16),
    /// For want of a second byte.
    NoPadding,
}

impl End {
    const fn width(self) -> usize {
        match self {
            Self::PacketLength(_) | Self::Padding(_) => 2,
            Self::NoPadding => 1,
        }
    }
}

/// What `packet` takes without padding and with another field for its end.
const fn rewritten_len(layout: &Layout, used: usize, end: End) -> usize {
    used + end.width() - layout.packet_length_width - layout.padding_width
}

/// Appends `packet` up to `used` with another field for its end.
fn rewrite(packet: &[u8], layout: &Layout, used: usize, end: End, out: &mut impl BufMut) {
    let part = |from: usize, to: usize| packet.get(from..to).unwrap_or_default();
    let (flags_at, times_at) = (layout.flags_at, layout.send_time_at);
    out.put_slice(part(0, flags_at));
    let flags = part(flags_at, flags_at + 1).first().copied().unwrap_or_default() & !END_TYPES;
    out.put_u8(match end {
        End::PacketLength(_) => flags | PACKET_LENGTH_U16,
        End::Padding(_) => flags | PADDING_U16,
        End::NoPadding => flags | PADDING_U8,
    });
    out.put_slice(part(flags_at + 1, flags_at + 2));
    if let End::PacketLength(len) = end {
        out.put_u16_le(len);
    }
    out.put_slice(part(layout.sequence_at, layout.padding_at));
    match end {
        End::PacketLength(_) => (),
        End::Padding(len) => out.put_u16_le(len),
        End::NoPadding => out.put_u8(0),
    }
    out.put_slice(part(times_at, times_at + TIMES_LEN));
    out.put_slice(part(times_at + TIMES_LEN, used));
}

/// Appends a packet without its padding, its length stated in its head.
///
/// A packet with under 16 bytes of padding is appended as it is.
///
/// # Errors
/// [`PacketError`] where the packet is invalid; nothing is appended then.
///
/// Source: ASF 5.2.2; MS-MMSP 2.2.2.
pub fn strip(packet: &[u8], out: &mut impl BufMut) -> Result<(), PacketError> {
    let layout = Layout::parse(packet)?;
    let used = layout.used(packet)?;
    let len = rewritten_len(&layout, used, End::PacketLength(0));
    match u16::try_from(len) {
        Ok(stated) if len + MIN_STRIP <= packet.len() => rewrite(packet, &layout, used, End::PacketLength(stated), out),
        _ => out.put_slice(packet),
    }
    Ok(())
}

/// Appends a packet of exactly `fixed` bytes that reads the same as a shorter one that came without padding.
///
/// A packet that already has the fixed size is appended as it is, and is not looked at.
///
/// # Errors
/// [`PacketError`] where the packet is invalid or longer than `fixed`; nothing is appended then.
///
/// Source: ASF 5.2.2.
pub fn restore(stripped: &[u8], fixed: usize, out: &mut impl BufMut) -> Result<(), PacketError> {
    if stripped.len() == fixed {
        out.put_slice(stripped);
        return Ok(());
    }
    let layout = Layout::parse(stripped)?;
    let used = layout.used(stripped)?;
    let free = |end| fixed.checked_sub(rewritten_len(&layout, used, end)).and_then(|free| u16::try_from(free).ok());
    if let Some(padding) = free(End::Padding(0)) {
        rewrite(stripped, &layout, used, End::Padding(padding), out);
        out.put_bytes(0, usize::from(padding));
    } else if free(End::NoPadding) == Some(0) {
        rewrite(stripped, &layout, used, End::NoPadding, out);
    } else {
        return Err(PacketError(DecodeError::Invalid {
            field: "packet",
            offset: fixed,
            reason: "longer than the header's packet size",
        }));
    }
    Ok(())
}

/// Rewrites in place a packet that states both its length and a padding length, so that all players read the
/// same end: the length then covers the payloads alone and the padding length is 0. Other packets, and invalid
/// ones, stay as they are.
pub fn settle(packet: &mut [u8]) {
    let Ok(layout) = Layout::parse(packet) else { return };
    if !layout.pads_inside_length() {
        return;
    }
    let Ok(info) = layout.walk(packet) else { return };
    let mut put = |at: usize, width: usize, value: u32| {
        if let Some(field) = packet.get_mut(at..at + width) {
            field.copy_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
        }
    };
    // Narrowing cannot lose anything: the field held a length at least as large before.
    put(layout.flags_at + 2, layout.packet_length_width, info.used_len);
    put(layout.padding_at, layout.padding_width, 0);
}
