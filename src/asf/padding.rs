//! Taking the padding off a packet for the wire, and putting it back.
//!
//! Both rewrite the packet's head, because players disagree about short packets. A single payload has no length
//! of its own: whoever fills a stripped packet up with zeros before reading it takes them for media. An explicit
//! packet length is the one form that all of them read. And an explicit length beside a padding length that is
//! not zero is read two ways, so the relay never sends that.

use bytes::BufMut;

use super::layout::Layout;
use super::packet::{PacketError, walk_by};
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
    if !state_length(packet, &layout, used, packet.len().saturating_sub(MIN_STRIP), out) {
        out.put_slice(packet);
    }
    Ok(())
}

/// Appends a packet without any padding, its length stated in its head where that is not `fixed`, the header's packet size.
///
/// A packet that fills `fixed` bytes is appended as it is. Where the padding length has two bytes, they become the packet length
/// and nothing moves. One that came short without a stated length is given one. A byte or two behind the payloads that no
/// padding length speaks of stay where a stated length would take more.
///
/// # Errors
/// [`PacketError`] where the packet is invalid or longer than `fixed`; nothing is appended then.
///
/// Source: ASF 5.2.2; MS-RTSP 2.2.1.4.
pub fn strip_all(packet: &[u8], fixed: usize, out: &mut impl BufMut) -> Result<(), PacketError> {
    let layout = Layout::parse(packet)?;
    let used = layout.used(packet)?;
    if used < fixed && state_length(packet, &layout, used, fixed, out) {
        return Ok(());
    }
    // It is full, or has no room for the two bytes of a length.
    restore(packet, fixed, out)
}

/// Appends `packet` up to `used` with its length stated, if it then has `most` bytes at most; whether it was appended.
fn state_length(packet: &[u8], layout: &Layout, used: usize, most: usize, out: &mut impl BufMut) -> bool {
    let len = rewritten_len(layout, used, End::PacketLength(0));
    let Some(stated) = u16::try_from(len).ok().filter(|_| len <= most) else { return false };
    rewrite(packet, layout, used, End::PacketLength(stated), out);
    true
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
    let Ok(info) = walk_by(&layout, packet) else { return };
    let mut put = |at: usize, width: usize, value: u32| {
        if let Some(field) = packet.get_mut(at..at + width) {
            field.copy_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
        }
    };
    // Narrowing cannot lose anything: the field held a length at least as large before.
    put(layout.flags_at + 2, layout.packet_length_width, info.used_len);
    put(layout.padding_at, layout.padding_width, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::plans;
    use crate::asf::{PacketInfo, Payload, payloads, samples, walk};

    /// What must survive: everything but where the payloads end.
    fn meaning(packet: &[u8]) -> (PacketInfo, Vec<Payload<'_>>) {
        (PacketInfo { used_len: 0, ..walk(packet).unwrap() }, payloads(packet).unwrap().collect())
    }

    fn stripped(packet: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        strip(packet, &mut out).unwrap();
        out
    }

    fn restored(packet: &[u8], fixed: usize) -> Vec<u8> {
        let mut out = Vec::new();
        restore(packet, fixed, &mut out).unwrap();
        out
    }

    fn check_round_trip(packet: &[u8]) {
        let short = stripped(packet);
        assert!(short.len() <= packet.len());
        assert_eq!(meaning(&short), meaning(packet));
        if short.len() < packet.len() {
            let layout = Layout::parse(&short).unwrap();
            assert_eq!((layout.packet_length_width, layout.padding_width), (2, 0));
            assert_eq!(layout.used(&short), Ok(short.len()), "nothing is left behind the payloads");
            // What a careless player does: fill up first, then read.
            let mut filled = short.clone();
            filled.resize(packet.len(), 0);
            assert_eq!(meaning(&filled), meaning(packet));
        }
        let whole = restored(&short, packet.len());
        assert_eq!(whole.len(), packet.len());
        assert_eq!(meaning(&whole), meaning(packet));
    }

    #[test]
    fn samples_survive() {
        samples::packets().iter().for_each(|packet| check_round_trip(packet));
    }

    #[test]
    fn a_padding_length_of_two_bytes_is_swapped_for_the_packet_length() {
        let (_, packets) = samples::stream("edge-packets-pcmu.asf");
        let short = stripped(&packets[0]);
        assert_eq!(short[..13], [0x82, 0, 0, 0x40, 0x5D, 188, 0, 0, 0, 0, 0, 20, 0]);
        assert_eq!((short.len(), &short[13..]), (188, &packets[0][13..188]), "the rest stays where it was");
        assert!(restored(&short, 800) == packets[0], "restored to the very bytes");
    }

    #[test]
    fn little_padding_stays() {
        let (_, packets) = samples::stream("edge-packets-pcmu.asf");
        for (spare, kept) in [(0, true), (15, true), (16, false)] {
            let mut packet = packets[0][..188 + spare].to_vec();
            packet[5..7].copy_from_slice(&u16::try_from(spare).unwrap().to_le_bytes());
            assert_eq!(stripped(&packet) == packet, kept, "{spare}");
        }
    }

    /// Single payload, neither packet length nor padding length: a field has to be inserted.
    #[test]
    fn restores_into_one_two_and_three_free_bytes() {
        let mut packet = vec![0x82, 0, 0, 0, 0x5D, 7, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 0];
        packet.resize(120, 9);
        for (fixed, flags, field) in [(121, 0x08, &[0][..]), (122, 0x10, &[0, 0]), (123, 0x10, &[1, 0]), (500, 0x10, &[122, 1])] {
            let whole = restored(&packet, fixed);
            assert_eq!((whole[3], &whole[5..5 + field.len()]), (flags, field), "{fixed}");
            assert_eq!(meaning(&whole), meaning(&packet), "{fixed}");
        }
        let mut out = Vec::new();
        assert!(restore(&packet, 119, &mut out).is_err() && restore(&packet[..10], 119, &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn both_lengths_are_settled_into_one() {
        let (_, packets) = samples::stream("edge-packets-pcmu.asf");
        let file = samples::bytes("edge-packets-pcmu.asf");
        let first = file.len() - packets.len() * 800;
        let original = &file[first + 6 * 800..first + 7 * 800];
        assert_eq!(original[5..7], [0x20, 3], "the seventh form states all 800 bytes, and padding");
        let settled = &packets[6];
        assert_eq!((&settled[5..10], settled.len()), (&[191, 0, 6, 0, 0][..], 800));
        assert_eq!(meaning(settled), meaning(original));
        let mut again = settled.clone();
        settle(&mut again);
        assert!(again == *settled);
    }

    fn stripped_all(packet: &[u8], fixed: usize) -> Vec<u8> {
        let mut out = Vec::new();
        strip_all(packet, fixed, &mut out).unwrap();
        out
    }

    fn check_strip_all(packet: &[u8]) {
        let short = stripped_all(packet, packet.len());
        assert_eq!(meaning(&short), meaning(packet));
        let layout = Layout::parse(&short).unwrap();
        if short.len() < packet.len() {
            assert_eq!((layout.packet_length_width, layout.padding_width), (2, 0));
            assert_eq!(layout.used(&short), Ok(short.len()), "nothing is left behind the payloads");
            assert_eq!(stripped_all(&short, packet.len()), short, "once is enough");
        } else {
            // At the most what a stated length would take.
            assert!(layout.used(&short).unwrap() + 2 >= packet.len());
        }
        let whole = restored(&short, packet.len());
        assert_eq!((whole.len(), meaning(&whole)), (packet.len(), meaning(packet)));
    }

    /// Single payload of 18 bytes, a key frame; the length type flags and what stands between them and the send time as given.
    fn packet(flags: u8, fields: &[u8], size: usize) -> Vec<u8> {
        let mut packet = vec![0x82, 0, 0, flags, 0x5D];
        packet.extend_from_slice(fields);
        packet.extend_from_slice(&[0xD0, 7, 0, 0, 0x28, 0, 0x81, 7, 0, 0, 0, 0, 8, 18, 0, 0, 0, 0xEC, 0x13, 0, 0]);
        packet.extend(0xA0..=0xB1);
        packet.resize(size, 0);
        packet
    }

    #[test]
    fn golden_padding_is_swapped_for_the_packet_length() {
        let short = stripped_all(&packet(0x10, &[18, 0], 64), 64);
        assert_eq!(short, packet(0x40, &[46, 0], 46));
        assert!(restored(&short, 64) == packet(0x10, &[18, 0], 64), "restored to the very bytes");
    }

    #[test]
    fn every_way_to_say_where_a_packet_ends() {
        for (what, before, after) in [
            ("nothing to strip", packet(0x10, &[0, 0], 46), packet(0x10, &[0, 0], 46)),
            ("one byte, in place", packet(0x10, &[1, 0], 47), packet(0x40, &[46, 0], 46)),
            ("four bytes", packet(0x18, &[12, 0, 0, 0], 60), packet(0x40, &[46, 0], 46)),
            ("a sequence in between", packet(0x14, &[9, 9, 5, 0], 53), packet(0x44, &[48, 0, 9, 9], 48)),
            ("a padding length of one byte", packet(0x08, &[19], 64), packet(0x40, &[46, 0], 46)),
            ("the same, and no more than the byte that a length needs", packet(0x08, &[1], 46), packet(0x40, &[46, 0], 46)),
            ("a stated length", packet(0x40, &[46, 0], 64), packet(0x40, &[46, 0], 46)),
            ("a stated length of one byte", packet(0x20, &[45], 64), packet(0x40, &[46, 0], 46)),
            ("both lengths", packet(0x50, &[64, 0, 16, 0], 64), packet(0x40, &[46, 0], 46)),
        ] {
            assert_eq!(stripped_all(&before, before.len()), after, "{what}");
            assert_eq!(meaning(&after), meaning(&before), "{what}");
        }
        let came_short = packet(0, &[], 44);
        assert_eq!(stripped_all(&came_short, 64), packet(0x40, &[46, 0], 46));
        assert_eq!(stripped_all(&came_short, 46), packet(0x40, &[46, 0], 46));
        assert_eq!(stripped_all(&came_short, 45), packet(0x08, &[0], 45), "no room for a length");
        let mut out = Vec::new();
        assert!(strip_all(&came_short, 43, &mut out).is_err() && strip_all(&came_short[..9], 64, &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn samples_survive_without_any_padding() {
        samples::packets().iter().for_each(|packet| check_strip_all(packet));
    }

    proptest! {
        #[test]
        fn every_form_survives(plan in plans()) {
            check_round_trip(&plan.build());
            check_strip_all(&plan.build());
        }

        #[test]
        fn every_form_settles(plan in plans()) {
            let packet = plan.build();
            let mut settled = packet.clone();
            settle(&mut settled);
            prop_assert_eq!(meaning(&settled), meaning(&packet));
            prop_assert!(!Layout::parse(&settled).unwrap().pads_inside_length());
        }

        #[test]
        fn any_bytes_never_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..200), fixed in 0..400_usize) {
            let mut out = Vec::new();
            let short = strip(&packet, &mut out).is_ok();
            prop_assert!(short || out.is_empty());
            out.clear();
            let short = strip_all(&packet, fixed, &mut out).is_ok();
            let most = if short { fixed } else { 0 };
            prop_assert!(out.len() <= most);
            out.clear();
            let restored = restore(&packet, fixed, &mut out).is_ok();
            prop_assert_eq!(out.len(), if restored { fixed } else { 0 });
            settle(&mut packet);
        }
    }
}
