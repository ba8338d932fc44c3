//! Packet pairs: bytes of no meaning, sent back to back. Their arrival shows the path's rate, over UDP that there is a path at all.

use crate::wire::Writer;

/// Length of the body over TCP, whatever the head in front of it.
pub const TCP_PAIR_BYTES: usize = 2080;
/// Random bytes in it.
pub const TCP_PAIR_RANDOM_BYTES: usize = 2056;
/// Random bytes in the three packets over UDP, at most.
pub const UDP_PAIR_RANDOM_BYTES: usize = 1454 + 1455 + 1456;

/// Bytes that the first packet and the head in front of it fill together, without the packet's own head.
const FIRST_BYTES: usize = 504;
const THIRD_BYTES: usize = 1048;
/// Version 2, and a marker bit with payload type 96.
const RTP_START: [u8; 2] = [0x80, 0xE0];

/// How long the packets over UDP are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairSizes {
    /// As a full datagram.
    Fixed,
    /// Shorter.
    Variable,
}

impl PairSizes {
    /// Reads the body that asks for packets: `type: high-entropy-packetpair`, then perhaps `variable-size`. `None` for another type.
    ///
    /// Source: MS-RTSP 2.2.7.14.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = str::from_utf8(body).ok()?;
        let (name, value) = text.trim_matches(['\0', '\r', '\n']).split_once(':')?;
        let mut words = value.split_ascii_whitespace();
        let known = name.trim().eq_ignore_ascii_case("type")
            && words.next().is_some_and(|word| word.eq_ignore_ascii_case("high-entropy-packetpair"));
        let variable = words.next().is_some_and(|word| word.eq_ignore_ascii_case("variable-size"));
        known.then_some(if variable { Self::Variable } else { Self::Fixed })
    }

    /// Random bytes of each packet. The rests by three tell a client how many packets there are, and which it has.
    const fn bytes(self) -> [usize; 3] {
        match self {
            Self::Fixed => [1454, 1455, 1456],
            Self::Variable => [1283, 1284, 1285],
        }
    }
}

/// The three packets for a UDP path, to be sent back to back from the port of media to that of retransmissions.
///
/// Source: MS-RTSP 2.2.3.2.
pub fn udp_packet_pair(sizes: PairSizes, first_sequence: u16, v_ssrc: u32, random: &[u8; UDP_PAIR_RANDOM_BYTES]) -> [Vec<u8>; 3] {
    let mut rest = random.as_slice();
    let mut sequence = first_sequence;
    let mut flags = 0xC0;
    sizes.bytes().map(|size| {
        let (payload, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        rest = after;
        let [_, length @ ..] = u32::try_from(size).unwrap_or(0).to_be_bytes();
        let mut packet = Vec::with_capacity(16 + size);
        packet.extend(RTP_START);
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(v_ssrc.to_be_bytes());
        packet.push(flags);
        packet.extend(length);
        packet.extend(payload);
        sequence = sequence.wrapping_add(1);
        // The key frame bit, on the first alone.
        flags = 0x40;
        packet
    })
}

/// The body of [`TCP_PAIR_BYTES`] for a response whose head is so many bytes long, `Content-Length` and empty line included.
///
/// Head and first packet go in one write and fill a segment of 512 bytes, the other two in one each. Source: MS-WMSP 2.2.3.7.
pub fn tcp_packet_pair(head_bytes: usize, random: &[u8; TCP_PAIR_RANDOM_BYTES]) -> [Vec<u8>; 3] {
    let head_bytes = head_bytes.min(FIRST_BYTES);
    let head_field = u32::try_from(head_bytes).unwrap_or(0);
    let mut rest = random.as_slice();
    // The length that is said leaves out what the head makes up for, on the first and on the third.
    let packets = [(FIRST_BYTES, FIRST_BYTES - head_bytes), (FIRST_BYTES, FIRST_BYTES), (THIRD_BYTES, THIRD_BYTES + head_bytes)];
    packets.map(|(said, size)| {
        let (payload, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        rest = after;
        let mut packet = Writer::with_capacity(8 + size);
        packet.bytes(b"$P").u16(u16::try_from(said).unwrap_or(0)).u32(head_field).bytes(payload);
        packet.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random<const N: usize>() -> [u8; N] {
        std::array::from_fn(|n| (n * 7 + n / 251).to_le_bytes()[0])
    }

    #[test]
    fn over_udp() {
        let random = random();
        for (sizes, heads, payloads) in [
            (PairSizes::Fixed, [[0xc0, 0, 0x05, 0xae], [0x40, 0, 0x05, 0xaf], [0x40, 0, 0x05, 0xb0]], [1454, 1455, 1456]),
            (PairSizes::Variable, [[0xc0, 0, 0x05, 0x03], [0x40, 0, 0x05, 0x04], [0x40, 0, 0x05, 0x05]], [1283, 1284, 1285]),
        ] {
            let packets = udp_packet_pair(sizes, 0x2000, 0x2f73_682b, &random);
            let mut at = 0;
            for ((n, packet), (head, size)) in packets.iter().enumerate().zip(heads.into_iter().zip(payloads)) {
                let sequence = u8::try_from(n).unwrap();
                assert_eq!(packet[..12], [0x80, 0xe0, 0x20, sequence, 0, 0, 0, 0, 0x2f, 0x73, 0x68, 0x2b]);
                assert_eq!(packet[12..16], head);
                assert_eq!(packet[16..], random[at..at + size]);
                at += size;
            }
        }
        let wrapped = udp_packet_pair(PairSizes::Fixed, u16::MAX, 0, &random);
        assert_eq!((&wrapped[0][2..4], &wrapped[1][2..4]), (&[0xFF, 0xFF][..], &[0, 0][..]));
    }

    #[test]
    fn over_tcp() {
        let random = random();
        for (head, said) in [(0, 0), (300, 300), (504, 504), (505, 504), (9999, 504)] {
            let [first, second, third] = tcp_packet_pair(head, &random);
            assert_eq!((first.len() + second.len() + third.len(), first.len() + said), (TCP_PAIR_BYTES, 512));
            let head_field = u32::try_from(said).unwrap().to_le_bytes();
            for (packet, length) in [(&first, [0xF8, 0x01]), (&second, [0xF8, 0x01]), (&third, [0x18, 0x04])] {
                assert_eq!(packet[..8], [&b"$P"[..], &length, &head_field].concat());
            }
            assert_eq!([&first[8..], &second[8..], &third[8..]].concat(), random, "all random bytes, each once");
        }
    }

    #[test]
    fn bodies() {
        for (body, sizes) in [
            (&b"type: high-entropy-packetpair"[..], Some(PairSizes::Fixed)),
            (b"type: high-entropy-packetpair variable-size\r\n", Some(PairSizes::Variable)),
            (b"Type:High-Entropy-Packetpair\tVariable-Size\r\n\0", Some(PairSizes::Variable)),
            (b"type: high-entropy-packetpair other", Some(PairSizes::Fixed)),
            (b"type: packetpair", None),
            (b"high-entropy-packetpair", None),
            (b"", None),
            (b"\xFF", None),
        ] {
            assert_eq!(PairSizes::parse(body), sizes, "{body:?}");
        }
    }
}
