//! Data packets: finding times, streams and key frames without touching the media.
//!
//! A packet is: error correction, flags, optional lengths, send time, payloads, padding.

use super::StreamSet;
use super::layout::Layout;
use crate::wire::DecodeError;

/// Why a packet is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ASF packet: {0}")]
pub struct PacketError(#[from] pub DecodeError);

/// What one walk over a packet's heads tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// When the packet is to be sent, on the source's clock.
    pub send_time_ms: u32,
    /// How long it lasts.
    pub duration_ms: u16,
    /// Where the last payload ends; what follows is padding.
    pub used_len: u32,
    /// Streams with media in the packet.
    pub streams: StreamSet,
    /// Streams of which an object begins in the packet that is a key frame by its flag. Audio rarely sets it.
    pub key_starts: StreamSet,
    /// Some payload is of a key frame by its flag, if only a later piece of one.
    pub key: bool,
    /// Presentation time of the first payload, preroll included; the send time where there is none.
    pub first_presentation_ms: u32,
    /// Payloads, 1 to 63; empty ones count.
    pub payloads: u8,
}

/// Walks the heads of a packet: all of its fixed size, or, where its padding was stripped, all bytes that came.
///
/// Nothing is copied or allocated; media bytes are not read, except the length bytes of compressed payloads.
///
/// # Errors
/// [`PacketError`] where a length leads out of the packet, or a field has a value that ASF forbids.
///
/// Source: ASF 5.2.
pub fn walk(packet: &[u8]) -> Result<PacketInfo, PacketError> {
    Ok(walk_by(&Layout::parse(packet)?, packet)?)
}

/// When a packet is to be sent, on the source's clock, ms; its payloads are not looked at.
///
/// `None` where the bytes in front of the payloads are no ASF packet's. Source: ASF 5.2.2.
pub fn send_time_ms(packet: &[u8]) -> Option<u32> {
    Layout::parse(packet).ok().map(|layout| layout.send_time_ms)
}

/// [`walk`] for a caller that has the layout.
pub(super) fn walk_by(layout: &Layout, packet: &[u8]) -> Result<PacketInfo, DecodeError> {
    let (mut streams, mut key_starts) = (StreamSet::EMPTY, StreamSet::EMPTY);
    let (mut key, mut first_presentation_ms) = (false, None);
    let used = layout.each(packet, |payload| {
        if payload.data_len == 0 {
            return;
        }
        streams.insert(payload.stream);
        key |= payload.key;
        if payload.key && (payload.offset == 0 || payload.is_compressed()) {
            key_starts.insert(payload.stream);
        }
        if first_presentation_ms.is_none() {
            first_presentation_ms = Some(layout.presentation_ms(packet, payload));
        }
    })?;
    Ok(PacketInfo {
        send_time_ms: layout.send_time_ms,
        duration_ms: layout.duration_ms,
        used_len: u32::try_from(used).unwrap_or(u32::MAX),
        streams,
        key_starts,
        key,
        first_presentation_ms: first_presentation_ms.unwrap_or(layout.send_time_ms),
        payloads: layout.payloads,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::{Form, Piece, Plan, plans};
    use crate::asf::layout::MAX_PACKET_LEN;
    use crate::asf::{payloads, samples};

    fn plan(multiple: bool) -> Plan {
        let piece = |stream| Piece {
            stream,
            key: true,
            object: 5,
            offset: 0,
            presentation_ms: 3100,
            object_size: None,
            form: Form::Replicated(vec![9; 20], 0),
        };
        Plan {
            correction: Some(2),
            multiple,
            packet_length: 0,
            sequence: 0,
            padding: 2,
            object: 1,
            offset: 3,
            replicated: 1,
            payload_length: 2,
            send_time_ms: 70,
            pieces: if multiple { vec![piece(1), piece(2)] } else { vec![piece(1)] },
            spare: 30,
        }
    }

    fn streams(info: StreamSet) -> Vec<u8> {
        info.iter().collect()
    }

    /// The start of a packet that FFmpeg wrote: two payloads, the end of a key frame and a whole audio object.
    #[test]
    fn several_payloads_with_padding() {
        let mut packet = vec![0x82, 0, 0, 0x09, 0x5D, 44, 0x2E, 0, 0, 0, 0, 0, 0x82];
        packet.extend_from_slice(&[0x81, 1, 0x08, 0x24, 0, 0, 8, 0x17, 0x2F, 0, 0, 0x4A, 0x0C, 0, 0, 0x0F, 0x0B]);
        packet.resize(packet.len() + 2831, 1);
        packet.extend_from_slice(&[2, 2, 0, 0, 0, 0, 8, 0x16, 1, 0, 0, 0x4A, 0x0C, 0, 0, 0x16, 1]);
        packet.resize(packet.len() + 278, 2);
        packet.resize(3200, 0);
        let info = walk(&packet).unwrap();
        assert_eq!((info.send_time_ms, info.duration_ms, info.used_len, info.payloads), (46, 0, 3156, 2));
        assert_eq!((streams(info.streams), streams(info.key_starts)), (vec![1, 2], vec![]), "a piece of a key frame is no start");
        assert_eq!(info.first_presentation_ms, 3146);
    }

    #[test]
    fn one_payload_without_padding() {
        let mut packet =
            vec![0x82, 0, 0, 0, 0x5D, 0x2E, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 8, 0x17, 0x2F, 0, 0, 0x4A, 0x0C, 0, 0];
        packet.resize(3200, 7);
        let info = walk(&packet).unwrap();
        assert_eq!((info.used_len, info.payloads, streams(info.key_starts)), (3200, 1, vec![1]));
        for cut in 0..27 {
            assert!(walk(&packet[..cut]).is_err(), "{cut}");
        }
        assert_eq!(walk(&packet[..27]).map(|info| info.used_len), Ok(27), "a byte of media is enough");
    }

    #[test]
    fn compressed_payload() {
        let mut packet = vec![0x82, 0, 0, 0x10, 0x5D, 0x87, 0, 0x50, 0, 0, 0, 0x50, 0, 0x81, 4, 0x38, 4, 0, 0, 1, 0x14];
        for _ in 0..4 {
            packet.push(0xA0);
            packet.resize(packet.len() + 160, 0xFE);
        }
        packet.resize(packet.len() + 135, 0);
        let info = walk(&packet).unwrap();
        assert_eq!((info.send_time_ms, info.duration_ms, info.first_presentation_ms), (80, 80, 1080));
        assert_eq!((info.used_len, info.payloads, streams(info.key_starts)), (665, 1, vec![1]));
        packet[21] = 0xA1;
        assert!(walk(&packet).is_err(), "the last object would run past the payload");
    }

    #[test]
    fn samples_walk_to_the_end() {
        for (name, count, size) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            assert_eq!((packets.len(), header.packet_size()), (count, size), "{name}");
            let infos: Vec<_> = packets.iter().map(|packet| walk(packet).unwrap()).collect();
            assert!(infos.is_sorted_by_key(|info| info.send_time_ms), "{name}");
            let seen: Vec<u8> = streams(infos.iter().flat_map(|info| info.streams.iter()).collect());
            assert_eq!(seen, header.streams().iter().map(|stream| stream.number).collect::<Vec<_>>(), "{name}");
            for video in header.video().iter() {
                let starts = infos.iter().filter(|info| info.key_starts.contains(video)).count();
                assert!(starts >= 3 && infos[0].key_starts.contains(video) || video > 1, "{name}: {starts}");
            }
        }
    }

    /// Cutting a packet never gives one with more in it, and never reads what is not there.
    #[test]
    fn packets_cut_at_every_length() {
        for (name, ..) in samples::STREAMS {
            for packet in samples::stream(name).1.iter().step_by(13) {
                let whole = walk(packet).unwrap();
                for cut in 0..packet.len() {
                    if let Ok(info) = walk(&packet[..cut]) {
                        assert!(usize::try_from(info.used_len).unwrap() <= cut && info.payloads == whole.payloads, "{name}");
                        assert!(payloads(&packet[..cut]).unwrap().count() > 0);
                    }
                }
            }
        }
    }

    #[test]
    fn send_time_by_every_length_type() {
        for flags in (0..0x80_u8).step_by(2) {
            let mut packet = vec![flags, 0x5D];
            for (shift, value) in [(5, 100), (1, 0xFFFF_FFFF), (3, 3_u32)] {
                packet.extend_from_slice(&value.to_le_bytes()[..[0, 1, 2, 4][usize::from(flags >> shift & 3)]]);
            }
            packet.extend_from_slice(&[0xEF, 0xBE, 0xAD, 0xDE, 0x34, 0x12]);
            packet.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0]);
            packet.resize(100, 1);
            let info = walk(&packet).unwrap();
            assert_eq!((info.send_time_ms, info.duration_ms), (0xDEAD_BEEF, 0x1234), "{flags:02X}");
            assert_eq!((send_time_ms(&packet), send_time_ms(&packet[..4])), (Some(0xDEAD_BEEF), None));
            assert_eq!(info.used_len, if flags & 0x18 == 0 { 100 } else { 97 });
            assert_eq!(info.first_presentation_ms, 0xDEAD_BEEF, "no replicated data, so the send time");
        }
    }

    #[test]
    fn hostile_fields_are_refused() {
        let patched = |multiple: bool, at: usize, bytes: &[u8]| {
            let mut packet = plan(multiple).build();
            assert!(walk(&packet).is_ok());
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            walk(&packet)
        };
        for (what, multiple, at, bytes) in [
            ("opaque data", false, 0, &[0x92][..]),
            ("error correction length type", false, 0, &[0xA2]),
            ("no error correction, but its bit", false, 3, &[0x90]),
            ("stream numbers of no bytes", false, 4, &[0x1D]),
            ("stream numbers of two bytes", false, 4, &[0x9D]),
            ("padding beyond the packet", false, 5, &[0xFF, 0xFF]),
            ("padding leaves nothing", false, 5, &[50, 0]),
            ("padding beyond the packet, several payloads", true, 5, &[0xFF, 0xFF]),
            ("no payloads", true, 13, &[0x80]),
            ("63 payloads in a short packet", true, 13, &[0xBF]),
            ("payloads without lengths", true, 13, &[0x02]),
            ("stream 0", true, 14, &[0x80]),
            ("replicated data of 2", true, 20, &[2]),
            ("replicated data of 7", true, 20, &[7]),
            ("replicated data past the end", true, 20, &[0xFF]),
            ("payload past the end", true, 29, &[0xFF, 0xFF]),
        ] {
            assert!(patched(multiple, at, bytes).is_err(), "{what}");
        }
        assert!(patched(true, 29, &[0, 0]).is_err(), "what follows a payload made empty is no payload");
        assert!(walk(&vec![0; MAX_PACKET_LEN + 1]).is_err());
    }

    #[test]
    fn an_empty_payload_is_counted_and_nothing_more() {
        let mut plan = plan(true);
        plan.pieces[0].form = Form::Replicated(Vec::new(), 0);
        let info = walk(&plan.build()).unwrap();
        assert_eq!((info.payloads, streams(info.streams), streams(info.key_starts)), (2, vec![2], vec![2]));
    }

    #[test]
    fn explicit_packet_length_bounds() {
        let mut explicit = plan(false);
        (explicit.packet_length, explicit.padding) = (2, 0);
        let packet = explicit.build();
        let used = packet.len() - 30;
        let with = |len: usize| {
            let mut packet = packet.clone();
            packet[5..7].copy_from_slice(&u16::try_from(len).unwrap().to_le_bytes());
            walk(&packet).map(|info| usize::try_from(info.used_len).unwrap())
        };
        assert_eq!(with(used), Ok(used));
        assert_eq!(with(used - 5), Ok(used - 5));
        assert_eq!(with(65_535), Ok(packet.len()), "more than there is means all there is");
        assert!(with(0).is_err() && with(12).is_err() && with(used - 20).is_err());
    }

    /// GStreamer's muxer states a packet length that leaves the padding out, and the padding too.
    #[test]
    fn padding_outside_the_packet_length() {
        for (media, size) in [(4000, 4800), (200, 4800)] {
            let mut quirk = plan(true);
            (quirk.packet_length, quirk.spare) = (2, 0);
            quirk.pieces[1].form = Form::Replicated(vec![3; media], 0);
            let mut packet = quirk.build();
            let used = packet.len();
            let padding = u16::try_from(size - used).unwrap();
            packet[7..9].copy_from_slice(&padding.to_le_bytes());
            packet.resize(size, 0);
            assert_eq!(walk(&packet).map(|info| usize::try_from(info.used_len).unwrap()), Ok(used), "{size}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(info) = walk(&packet) {
                prop_assert!(usize::try_from(info.used_len).unwrap() <= packet.len());
            }
        }

        #[test]
        fn damaged_packets_never_panic(plan in plans(), hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4), cut in any::<u16>()) {
            let mut packet = plan.build();
            for (at, value) in hits {
                let at = usize::from(at) % packet.len();
                packet[at] = value;
            }
            packet.truncate(usize::from(cut).max(40));
            if let Ok(info) = walk(&packet) {
                prop_assert!(usize::try_from(info.used_len).unwrap() <= packet.len());
                prop_assert!(payloads(&packet).unwrap().map(|payload| payload.data.len()).sum::<usize>() <= packet.len());
            } else {
                prop_assert!(payloads(&packet).is_err());
            }
        }

        #[test]
        fn sound_packets_of_every_form_walk(plan in plans()) {
            let packet = plan.build();
            let info = walk(&packet).unwrap();
            prop_assert_eq!(info.send_time_ms, plan.send_time_ms);
            prop_assert_eq!(usize::from(info.payloads), plan.pieces.len());
            let starts = plan.pieces.iter().filter(|piece| {
                piece.key && match &piece.form {
                    Form::Compressed(..) => true,
                    Form::Bare(_) | Form::Replicated(..) => piece.offset == 0,
                }
            });
            prop_assert_eq!(info.key_starts, starts.map(|piece| piece.stream).collect());
            prop_assert_eq!(info.streams, plan.pieces.iter().map(|piece| piece.stream).collect());
        }
    }
}
