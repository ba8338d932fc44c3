//! Datagrams that name lost packets.

use super::compound::{Compound, RtcpPacket};
use crate::wire::{Cursor, DecodeError};

/// Most generic NACKs of one datagram that are read or written. Source: MS-RTSP 2.2.4.
pub const MAX_NACKS: usize = 32;
/// Most sequence numbers that one datagram can ask for. Source: MS-RTSP 3.2.5.10.
pub const MAX_SEQUENCES: usize = 128;

const SDES: u8 = 202;
const TRANSPORT_FEEDBACK: u8 = 205;
const GENERIC_NACK: u8 = 1;
/// The bit of the format that Windows Media clients set for a reason of their own; the rest of it is the format.
const E_BIT: u8 = 0x10;
const CNAME: u8 = 1;
const CNAME_TAIL: &str = "@WMS:7ff42e07-3c7c-4eb5-9c17-6bdd11ad90de";

/// A request for lost packets: an RTCP compound with a CNAME and generic NACKs.
///
/// Source: MS-RTSP 2.2.4; RFC 4585 6.2.1; RFC 3550 6.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// The SSRC that the client was told for its retransmissions: it names the session, and is a secret of the two.
    pub v_ssrc: u32,
    /// SSRC of the packets that are missed.
    pub media_ssrc: u32,
    /// Sequence numbers, 1 to 128 of them, in the order asked.
    pub sequences: Vec<u16>,
}

impl Nack {
    /// Reads a datagram. `None` for RTCP that asks for nothing, or does not say for which session.
    ///
    /// The packets of the compound may come in any order. NACKs past the 32nd, numbers past the 128th and those of a second media
    /// SSRC are passed over.
    ///
    /// # Errors
    /// [`DecodeError`] where the datagram is no RTCP compound, or one that is cut short.
    pub fn parse(datagram: &[u8]) -> Result<Option<Self>, DecodeError> {
        let (mut v_ssrc, mut media, mut nacks) = (None, None, 0);
        let mut sequences = Vec::new();
        for packet in Compound::new(datagram) {
            let RtcpPacket { count, kind, body } = packet?;
            match kind {
                SDES => v_ssrc = v_ssrc.or(session_of(body, count)),
                TRANSPORT_FEEDBACK if count & !E_BIT == GENERIC_NACK => {
                    let mut body = Cursor::new(body);
                    body.skip("sender SSRC", 4)?;
                    let ssrc = u32::from_be_bytes(body.array("media SSRC")?);
                    if *media.get_or_insert(ssrc) == ssrc {
                        for nack in body.rest().as_chunks::<4>().0.iter().take(MAX_NACKS - nacks) {
                            add(*nack, &mut sequences);
                            nacks += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        sequences.truncate(MAX_SEQUENCES);
        let named = v_ssrc.zip(media).filter(|_| !sequences.is_empty());
        Ok(named.map(|(v_ssrc, media_ssrc)| Self { v_ssrc, media_ssrc, sequences }))
    }

    /// The datagram from the client with this SSRC: an empty receiver report, the CNAME, the NACKs.
    ///
    /// It holds as many of the numbers as fit: at most 128, at most 32 groups of those that lie within 17 of each other.
    pub fn bytes(&self, sender_ssrc: u32) -> Vec<u8> {
        let sender = sender_ssrc.to_be_bytes();
        let mut out = Vec::with_capacity(256);
        out.extend([0x80, 201, 0, 1]);
        out.extend(sender);

        let cname = format!("{}{CNAME_TAIL}", self.v_ssrc);
        // At least one zero byte ends the chunk, and fills it up to four bytes.
        let chunk = (4 + 2 + cname.len()) / 4 + 1;
        push_head(&mut out, 0x81, SDES, chunk);
        let end = out.len() + chunk * 4;
        out.extend(sender);
        out.extend([CNAME, u8::try_from(cname.len()).unwrap_or(0)]);
        out.extend(cname.as_bytes());
        out.resize(end, 0);

        let mut nacks: Vec<(u16, u16)> = Vec::new();
        for sequence in self.sequences.iter().take(MAX_SEQUENCES) {
            let full = nacks.len() == MAX_NACKS;
            match nacks.last_mut().map(|(first, mask)| (sequence.wrapping_sub(*first), mask)) {
                Some((0, _)) => {}
                Some((distance @ 1..=16, mask)) => *mask |= 1 << (distance - 1),
                _ if full => break,
                _ => nacks.push((*sequence, 0)),
            }
        }
        push_head(&mut out, 0x80 | E_BIT | GENERIC_NACK, TRANSPORT_FEEDBACK, 2 + nacks.len());
        out.extend(sender);
        out.extend(self.media_ssrc.to_be_bytes());
        for (first, mask) in nacks {
            out.extend(first.to_be_bytes());
            out.extend(mask.to_be_bytes());
        }
        out
    }
}

fn push_head(out: &mut Vec<u8>, first: u8, kind: u8, words: usize) {
    let [high, low] = u16::try_from(words).unwrap_or(u16::MAX).to_be_bytes();
    out.extend([first, kind, high, low]);
}

/// The first number and those whose bits are set: bit i is i + 1 further.
fn add([first_high, first_low, mask_high, mask_low]: [u8; 4], sequences: &mut Vec<u16>) {
    let first = u16::from_be_bytes([first_high, first_low]);
    let mask = u16::from_be_bytes([mask_high, mask_low]);
    sequences.push(first);
    sequences.extend((0..16u16).filter(|bit| mask >> bit & 1 == 1).map(|bit| first.wrapping_add(bit + 1)));
}

/// The session in a CNAME of Windows Media's form; what is cut short has none.
fn session_of(body: &[u8], chunks: u8) -> Option<u32> {
    let mut cursor = Cursor::new(body);
    for _ in 0..chunks {
        cursor.skip("SSRC", 4).ok()?;
        loop {
            let kind = cursor.u8("item").ok()?;
            if kind == 0 {
                // The rest of the four bytes.
                let rest = cursor.position().next_multiple_of(4) - cursor.position();
                cursor.skip("padding", rest).ok()?;
                break;
            }
            let length = usize::from(cursor.u8("length").ok()?);
            let text = cursor.take("text", length).ok()?;
            let session = str::from_utf8(text).ok().filter(|_| kind == CNAME).and_then(|text| {
                let (number, tail) = text.split_at_checked(text.len().checked_sub(CNAME_TAIL.len())?)?;
                tail.eq_ignore_ascii_case(CNAME_TAIL).then(|| crate::rtsp::message::decimal(number))?
            });
            if session.is_some() {
                return session;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Asks for 4662, 4663 and 4665 in session 796092459.
    const GOLDEN: [u8; 88] = [
        0x80, 0xc9, 0x00, 0x01, 0x11, 0x22, 0x33, 0x44, 0x81, 0xca, 0x00, 0x0f, 0x11, 0x22, 0x33, 0x44, 0x01, 0x32, 0x37, 0x39,
        0x36, 0x30, 0x39, 0x32, 0x34, 0x35, 0x39, 0x40, 0x57, 0x4d, 0x53, 0x3a, 0x37, 0x66, 0x66, 0x34, 0x32, 0x65, 0x30, 0x37,
        0x2d, 0x33, 0x63, 0x37, 0x63, 0x2d, 0x34, 0x65, 0x62, 0x35, 0x2d, 0x39, 0x63, 0x31, 0x37, 0x2d, 0x36, 0x62, 0x64, 0x64,
        0x31, 0x31, 0x61, 0x64, 0x39, 0x30, 0x64, 0x65, 0x00, 0x00, 0x00, 0x00, 0x91, 0xcd, 0x00, 0x03, 0x11, 0x22, 0x33, 0x44,
        0x90, 0xcb, 0xca, 0xac, 0x12, 0x36, 0x00, 0x05,
    ];

    fn golden() -> Nack {
        Nack { v_ssrc: 796_092_459, media_ssrc: 0x90cb_caac, sequences: vec![4662, 4663, 4665] }
    }

    #[test]
    fn golden_both_ways_and_cut() {
        assert_eq!(golden().bytes(0x1122_3344), GOLDEN);
        assert_eq!(Nack::parse(&GOLDEN), Ok(Some(golden())));
        for n in 0..GOLDEN.len() {
            let whole_packets = matches!(n, 8 | 72);
            assert_eq!(Nack::parse(&GOLDEN[..n]).is_ok(), whole_packets, "{n} bytes");
            assert!(!matches!(Nack::parse(&GOLDEN[..n]), Ok(Some(_))), "{n} bytes");
        }
        let mut longer = GOLDEN.to_vec();
        longer.push(0);
        assert!(Nack::parse(&longer).is_err());
    }

    #[test]
    fn without_the_e_bit_in_another_order_padded() {
        let mut plain = GOLDEN;
        plain[72] = 0x81;
        assert_eq!(Nack::parse(&plain), Ok(Some(golden())));
        let turned = [&GOLDEN[72..], &GOLDEN[8..72]].concat();
        assert_eq!(Nack::parse(&turned), Ok(Some(golden())));
        let mut padded = GOLDEN.to_vec();
        padded.extend([0, 0, 0, 4]);
        (padded[72], padded[75]) = (0xB1, 4);
        assert_eq!(Nack::parse(&padded), Ok(Some(golden())));
        for padding in [0, 17] {
            *padded.last_mut().unwrap() = padding;
            assert!(Nack::parse(&padded).is_err(), "{padding}");
        }
    }

    #[test]
    fn no_request() {
        for (at, byte) in [(72, 0x82), (73, 206), (9, 203), (16, 2), (18, b'+'), (18, b'x'), (28, b'X'), (8, 0x80)] {
            let mut other = GOLDEN;
            other[at] = byte;
            assert_eq!(Nack::parse(&other), Ok(None), "{byte:#x} at {at}");
        }
        // What FFmpeg sends to open a path.
        assert_eq!(Nack::parse(&[0x80, 0xc9, 0, 1, 0, 0, 0, 0]), Ok(None));
        assert!(Nack::parse(&[0x40, 0xc9, 0, 1, 0, 0, 0, 0]).is_err());
        assert!(Nack::parse(&[]).is_err());
        // A feedback packet without room for its two SSRCs.
        assert!(Nack::parse(&[0x81, 0xcd, 0, 1, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn bounds() {
        let dense = Nack { sequences: (65_500..=u16::MAX).chain(0..300).collect(), ..golden() };
        let read = Nack::parse(&dense.bytes(1)).unwrap().unwrap();
        assert_eq!(read.sequences, dense.sequences[..MAX_SEQUENCES]);
        let sparse = Nack { sequences: (0..100).map(|n| n * 17).collect(), ..golden() };
        let read = Nack::parse(&sparse.bytes(1)).unwrap().unwrap();
        assert_eq!(read.sequences, sparse.sequences[..MAX_NACKS]);
        // 40 NACKs of 17 numbers each, in two packets.
        let mut many = GOLDEN[..72].to_vec();
        for _ in 0..2 {
            many.extend([0x81, 205, 0, 22, 0, 0, 0, 0, 0, 0, 0, 7]);
            many.extend([0, 1, 0xFF, 0xFF].repeat(20));
        }
        assert_eq!(Nack::parse(&many).unwrap().unwrap().sequences.len(), MAX_SEQUENCES);
        // Bits that are not set: 32 of the 40 count, and those of another flow do not.
        many[84..].chunks_mut(4).for_each(|nack| nack.copy_from_slice(&[0, 1, 0, 0]));
        many[72..84].copy_from_slice(&[0x81, 205, 0, 22, 0, 0, 0, 0, 0, 0, 0, 7]);
        many[164..176].copy_from_slice(&[0x81, 205, 0, 22, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(Nack::parse(&many).unwrap().unwrap().sequences.len(), MAX_NACKS);
        many[175] = 8;
        assert_eq!(Nack::parse(&many).unwrap().unwrap().sequences.len(), 20);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Nack::parse(&bytes);
        }

        #[test]
        fn almost_one(at in 0usize..88, byte: u8) {
            let mut bytes = GOLDEN;
            bytes[at] = byte;
            if let Ok(Some(nack)) = Nack::parse(&bytes) {
                prop_assert!((1..=MAX_SEQUENCES).contains(&nack.sequences.len()));
            }
        }

        #[test]
        fn what_is_asked_is_read(start: u16, steps in proptest::collection::vec(1u16..40, 1..32), v_ssrc: u32) {
            let sequences = steps.iter().scan(start, |at, step| { *at = at.wrapping_add(*step); Some(*at) }).collect();
            let nack = Nack { v_ssrc, media_ssrc: 5, sequences };
            prop_assert_eq!(Nack::parse(&nack.bytes(9)), Ok(Some(nack)));
        }
    }
}
