use proptest::prelude::*;

use super::*;
use crate::asf::{self, samples};

const FLOW: Flow = Flow { ssrc: 0x90CB_CAAC, sequence: 0x1234 };
const CHANNEL_0: Carriage = Carriage::Interleaved { channel: 0 };

/// The example of a packet of 64 bytes with 18 bytes of padding, a key frame at 2000 ms.
fn packet() -> Vec<u8> {
    let mut packet = vec![0x82, 0, 0, 0x10, 0x5D, 0x12, 0, 0xD0, 7, 0, 0, 0x28, 0, 0x81, 7, 0, 0, 0, 0, 8];
    packet.extend_from_slice(&[18, 0, 0, 0, 0xEC, 0x13, 0, 0]);
    packet.extend(0xA0..=0xB1);
    packet.resize(64, 0);
    packet
}

fn facts(packet: u32) -> Facts {
    Facts { packet, send_time_ms: 2000, key: true }
}

fn packets(carriage: Carriage, fragments: u16, numbers: std::ops::Range<u32>) -> Packets {
    let mut packets = Packets::new(carriage, fragments);
    numbers.for_each(|number| packets.push(&packet(), 64, FLOW, facts(number)));
    packets
}

#[test]
fn golden_packet() {
    let mut expected = vec![0x80, 0xE0, 0x12, 0x34, 0, 0, 7, 0xD0, 0x90, 0xCB, 0xCA, 0xAC, 0xC0, 0, 0, 0x32];
    expected.extend_from_slice(&[0x82, 0, 0, 0x40, 0x5D, 0x2E, 0, 0xD0, 7, 0, 0, 0x28, 0, 0x81, 7, 0, 0, 0, 0, 8]);
    expected.extend_from_slice(&[18, 0, 0, 0, 0xEC, 0x13, 0, 0]);
    expected.extend(0xA0..=0xB1);
    assert_eq!(packets(Carriage::Datagrams, 1, 0..1).stretch(0, 1).bytes, expected);
    let framed = [&[b'$', 0, 0, 0x3E], &expected[..]].concat();
    assert_eq!(packets(CHANNEL_0, 1, 0..1).stretch(0, 9).bytes, framed);
}

#[test]
fn golden_fragments() {
    // Three of 3200 bytes by the room of a datagram; heads as in the example, cut evenly.
    assert_eq!(fragments(3200, 1452), 3);
    let mut packets = Packets::new(Carriage::Datagrams, 3);
    let body = vec![0xFF; 3200];
    packets.push(&body, 3200, Flow { sequence: 0x1235, ..FLOW }, Facts { packet: 0, send_time_ms: 2040, key: true });
    let stretch = packets.stretch(0, 1);
    let heads: Vec<_> = (0..3).map(|index| stretch.fragment(index).unwrap()).collect();
    assert_eq!(heads[0][..HEAD_LEN], [0x80, 0x60, 0x12, 0x35, 0, 0, 7, 0xF8, 0x90, 0xCB, 0xCA, 0xAC, 0x80, 0, 0, 0]);
    assert_eq!(heads[1][..HEAD_LEN], [0x80, 0x60, 0x12, 0x36, 0, 0, 7, 0xF8, 0x90, 0xCB, 0xCA, 0xAC, 0x80, 0, 0x04, 0x2B]);
    assert_eq!(heads[2][..HEAD_LEN], [0x80, 0xE0, 0x12, 0x37, 0, 0, 7, 0xF8, 0x90, 0xCB, 0xCA, 0xAC, 0x80, 0, 0x08, 0x56]);
    assert_eq!(stretch.lens().collect::<Vec<_>>(), [1083, 1083, 1082]);
    assert!(stretch.fragment(3).is_none());
}

#[test]
fn as_many_fragments_as_the_room_asks_for() {
    for (packet_size, max_datagram, expected) in [
        (1, 1452, 1),
        (1436, 1452, 1),
        (1437, 1452, 2),
        (2872, 1452, 2),
        (2873, 1452, 3),
        (65_535, 512, 133),
        (9, 0, 9),
        (0, 9, 1),
    ] {
        assert_eq!(fragments(packet_size, max_datagram), expected, "{packet_size} in {max_datagram}");
    }
    assert_eq!(fragments(65_535, usize::MAX), 2, "the length of a frame has 16 bits");
    for (len, fragments) in [(46, 7), (21, 8), (133, 133), (134, 133), (20, 19), (3200, 3)] {
        let each = fragment_len(len, fragments);
        assert!(each > 0 && each * (fragments - 1) < len, "{len} in {fragments}: something is left for the last one");
    }
}

#[test]
fn numbers_follow_from_the_packet() {
    for fragments in [1, 2, 3, 7] {
        let packets = packets(Carriage::Datagrams, fragments, 70_000..70_005);
        for index in 0..5_u16 {
            let stretch = packets.stretch(index.into(), 1);
            for fragment in 0..fragments {
                let head = stretch.fragment(fragment).unwrap();
                let sequence = u16::from_be_bytes([head[2], head[3]]);
                let number = 70_000 + u32::from(index);
                assert_eq!(sequence, FLOW.sequence_of(number, fragments).wrapping_add(fragment));
                assert_eq!(FLOW.before(70_005, fragments, sequence), (u32::from(5 - index), fragment));
            }
        }
        let unsent = FLOW.sequence_of(70_005, fragments);
        assert_eq!(FLOW.before(70_005, fragments, unsent), (0, 0));
        assert!(FLOW.before(70_005, fragments, unsent.wrapping_add(1)).0 > 9_000);
    }
}

#[test]
fn a_stamp_is_as_if_made_so() {
    let channel_6 = Carriage::Interleaved { channel: 6 };
    for (fragments, before, after) in
        [(1, CHANNEL_0, channel_6), (3, CHANNEL_0, channel_6), (2, Carriage::Datagrams, Carriage::Datagrams)]
    {
        let mut stamped = packets(before, fragments, 0..4);
        let original = stamped.clone();
        stamped.stamp(5 * fragments, after);
        assert_eq!(stamped.stretch(0, 4).bytes, packets(after, fragments, 5..9).stretch(0, 4).bytes);
        // What is added later is numbered likewise.
        stamped.push(&packet(), 64, FLOW, facts(4));
        assert_eq!(stamped.stretch(4, 1).bytes, packets(after, fragments, 9..10).stretch(0, 1).bytes);
        assert_eq!(stamped.behind(3).stretch(0, 9).bytes, packets(after, fragments, 8..10).stretch(0, 9).bytes);
        stamped.stamp(0, before);
        assert_eq!(stamped.stretch(0, 4).bytes, original.stretch(0, 4).bytes);
    }
}

#[test]
fn stretches_tell_where_packets_end() {
    let packets = packets(CHANNEL_0, 2, 0..5);
    let each = packets.stretch(0, 1).bytes.len();
    assert_eq!(each, 46 + 2 * 20);
    let middle = packets.stretch(1, 3);
    assert_eq!((middle.packets(), middle.bytes.len(), middle.bytes_of(2)), (3, 3 * each, 2 * each));
    assert_eq!(middle.bytes, &packets.stretch(0, 5).bytes[each..4 * each]);
    assert_eq!([0, 1, each, each + 1, 3 * each].map(|bytes| middle.begun(bytes).0), [0, 1, 1, 2, 3]);
    assert_eq!(middle.begun(each + 1), (2, 2 * each));
    assert_eq!((packets.stretch(5, 1).bytes.len(), packets.stretch(9, 1).packets(), packets.stretch(4, 9).packets()), (0, 0, 1));
}

#[test]
fn a_packet_shorter_than_its_fragments_keeps_its_padding() {
    let mut packets = Packets::new(Carriage::Datagrams, 50);
    packets.push(&packet(), 64, FLOW, facts(0));
    assert_eq!(packets.stretch(0, 1).bytes.len(), 64 + 50 * HEAD_LEN);
    assert!(packets.stretch(0, 1).lens().all(|len| len > HEAD_LEN));
}

#[test]
fn samples_fit_their_datagrams() {
    for (name, ..) in samples::STREAMS {
        let (header, all) = samples::stream(name);
        let size = header.packet_size();
        for max_datagram in [548, 1452] {
            let mut packets = Packets::new(Carriage::Datagrams, fragments(size, max_datagram));
            for (number, packet) in (0..).zip(&all) {
                let info = asf::walk(packet).unwrap();
                packets.push(packet, size, FLOW, Facts { packet: number, send_time_ms: info.send_time_ms, key: info.key });
            }
            let stretch = packets.stretch(0, all.len());
            assert!(stretch.lens().all(|len| len > HEAD_LEN && len <= max_datagram), "{name}");
            assert_eq!(stretch.lens().sum::<usize>(), stretch.bytes.len());
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_cut_as_is_told(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..6), fragments in 1_u16..20, size in 0_usize..100,
    ) {
        let mut packets = Packets::new(CHANNEL_0, fragments);
        bodies.iter().for_each(|body| packets.push(body, size, FLOW, facts(3)));
        let stretch = packets.stretch(0, bodies.len());
        prop_assert_eq!(stretch.lens().count(), bodies.len() * usize::from(fragments));
        let mut rest = stretch.bytes;
        for len in stretch.lens() {
            let (frame, behind) = rest.split_at(len);
            prop_assert_eq!(usize::from(u16::from_be_bytes([frame[2], frame[3]])) + FRAME_HEAD_LEN, len);
            rest = behind;
        }
        prop_assert!(rest.is_empty());
        packets.stamp(9, Carriage::Interleaved { channel: 200 });
    }
}
