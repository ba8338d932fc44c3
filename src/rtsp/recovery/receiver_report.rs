//! Datagrams in which a player says what it has received.

use super::compound::Compound;

/// Most report blocks of one datagram that are read: what one packet can hold. Source: RFC 3550 6.4.2.
pub const MAX_REPORT_BLOCKS: usize = 31;

const RECEIVER_REPORT: u8 = 201;
const BLOCK_LEN: usize = 24;

/// The report blocks of an RTCP compound.
///
/// Source: RFC 3550 6.4.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverReport {
    /// 1 to 31 of them, in their order.
    pub blocks: Vec<ReportBlock>,
}

/// What was received of one flow, in so far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportBlock {
    /// SSRC of the packets.
    pub ssrc: u32,
    /// Highest sequence number that was received; how often it has wrapped is left out.
    pub highest: u16,
}

impl ReceiverReport {
    /// Reads a datagram. `None` for what is no RTCP compound or is cut short, and for one that says nothing of any flow.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut blocks = Vec::new();
        for packet in Compound::new(datagram) {
            let packet = packet.ok()?;
            if packet.kind != RECEIVER_REPORT {
                continue;
            }
            let (_sender, rest) = packet.body.split_first_chunk::<4>()?;
            let told = rest.get(..usize::from(packet.count) * BLOCK_LEN)?;
            let room = MAX_REPORT_BLOCKS - blocks.len();
            blocks.extend(told.as_chunks::<BLOCK_LEN>().0.iter().take(room).map(ReportBlock::new));
        }
        (!blocks.is_empty()).then_some(Self { blocks })
    }
}

impl ReportBlock {
    /// SSRC, share and number of lost packets, wraps and highest sequence number; then times.
    fn new(bytes: &[u8; BLOCK_LEN]) -> Self {
        let [s3, s2, s1, s0, _, _, _, _, _, _, n1, n0, ..] = *bytes;
        Self { ssrc: u32::from_be_bytes([s3, s2, s1, s0]), highest: u16::from_be_bytes([n1, n0]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As FFmpeg sends it: a report of one flow, and a name.
    const GOLDEN: [u8; 52] = [
        0x81, 0xC9, 0x00, 0x07, 0x90, 0xCB, 0xCA, 0xAD, 0x90, 0xCB, 0xCA, 0xAC, 0x00, 0x00, 0x00, 0x02, 0x00, 0x01, 0x12, 0x36,
        0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x81, 0xCA, 0x00, 0x04, 0x90, 0xCB, 0xCA, 0xAD,
        0x01, 0x07, b'm', b'a', b'c', b'h', b'i', b'n', b'e', 0x00, 0x00, 0x00,
    ];
    const BLOCK: ReportBlock = ReportBlock { ssrc: 0x90CB_CAAC, highest: 0x1236 };

    fn blocks(datagram: &[u8]) -> Vec<ReportBlock> {
        ReceiverReport::parse(datagram).map(|report| report.blocks).unwrap_or_default()
    }

    #[test]
    fn golden_and_cut() {
        assert_eq!(blocks(&GOLDEN), [BLOCK]);
        for n in 0..GOLDEN.len() {
            assert_eq!(blocks(&GOLDEN[..n]).len(), usize::from(n == 32), "{n} bytes");
        }
        // Behind a name, with profile's words behind the block, and padded.
        let turned = [&GOLDEN[32..], &GOLDEN[..32]].concat();
        assert_eq!(blocks(&turned), [BLOCK]);
        let mut longer = GOLDEN[..32].to_vec();
        longer.extend([0, 0, 0, 4]);
        longer[3] = 8;
        assert_eq!(blocks(&longer), [BLOCK]);
        longer[0] = 0xA1;
        assert_eq!(blocks(&longer), [BLOCK]);
    }

    #[test]
    fn no_report() {
        // Of nothing, as FFmpeg sends it to open a path; of less than it says; a sender's; another version.
        assert!(blocks(&[0x80, 0xC9, 0, 1, 0, 0, 0, 0]).is_empty());
        for (at, byte) in [(0, 0x82), (0, 0x41), (0, 0xA1), (1, 200), (3, 6), (3, 8)] {
            let mut other = GOLDEN[..32].to_vec();
            other[at] = byte;
            assert!(blocks(&other).is_empty(), "{byte:#x} at {at}");
        }
        assert!(blocks(&[0x81, 0xC9, 0, 0]).is_empty());
    }

    #[test]
    fn bounds() {
        let mut full = vec![0x80 | 31, 0xC9, 0, 187, 1, 1, 1, 1];
        full.extend(GOLDEN[8..32].repeat(31));
        assert_eq!(blocks(&full), [BLOCK; 31]);
        full.extend_from_within(..);
        assert_eq!(blocks(&full).len(), MAX_REPORT_BLOCKS);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReceiverReport::parse(&bytes);
        }

        #[test]
        fn almost_one(at in 0usize..52, byte: u8) {
            let mut bytes = GOLDEN;
            bytes[at] = byte;
            prop_assert!(blocks(&bytes).len() <= 1);
        }

        #[test]
        fn many_of_any(head in proptest::collection::vec((any::<u8>(), 195u8..206, 0u8..60), 0..6), fill: u8) {
            let datagram: Vec<u8> = head.iter().flat_map(|(first, kind, words)| {
                let mut packet = vec![0x80 | (first & 0x3F), *kind, 0, *words];
                packet.resize(4 + usize::from(*words) * 4, fill);
                packet
            }).collect();
            prop_assert!(blocks(&datagram).len() <= MAX_REPORT_BLOCKS);
        }
    }
}
