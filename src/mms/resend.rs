//! The resend request: the one datagram that players send.

use crate::wire::{Cursor, DecodeError, Writer};

/// Packets that one request can name.
pub const MAX_PACKETS: usize = 32;
const SIGNATURE: u32 = 0xBEEF_F00D;

/// `RequestPacketListResend`. Source: MS-MMSP 2.2.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The session: the client id of its ReportFunnelInfo.
    pub client_id: u32,
    /// Low half of the file id.
    pub source_id: u16,
    /// Sequence numbers, 1 to 32 of them.
    pub sequences: Vec<u32>,
}

impl Request {
    /// Reads a datagram; bytes behind the list are passed over.
    ///
    /// # Errors
    /// [`DecodeError`] for a wrong signature, a count that is not 1 to 32, or a list that is cut short.
    pub fn parse(datagram: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(datagram);
        if cursor.u32("Signature")? != SIGNATURE {
            return Err(cursor.invalid("Signature", 4, "not that of a resend request"));
        }
        let client_id = cursor.u32("dwClientId")?;
        let source_id = cursor.u16("wSourceId")?;
        let count = usize::from(cursor.u16("wNumPackets")?);
        if !(1..=MAX_PACKETS).contains(&count) {
            return Err(cursor.invalid("wNumPackets", 2, "not 1 to 32"));
        }
        let list = cursor.take("dwBeginPacketList", count * 4)?;
        let sequences = list.as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
        Ok(Self { client_id, source_id, sequences })
    }

    /// The datagram; of more than 32 numbers the first 32.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(12 + 4 * MAX_PACKETS);
        let count = self.sequences.len().min(MAX_PACKETS);
        out.u32(SIGNATURE).u32(self.client_id).u16(self.source_id).u16(u16::try_from(count).unwrap_or(0));
        self.sequences.iter().take(MAX_PACKETS).for_each(|number| {
            out.u32(*number);
        });
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: [u8; 20] =
        [0x0D, 0xF0, 0xEF, 0xBE, 0x34, 0x12, 0xED, 0x5E, 0x01, 0x00, 0x02, 0x00, 0x01, 0x01, 0x00, 0x00, 0x02, 0x01, 0x00, 0x00];

    #[test]
    fn golden_both_ways_and_cut() {
        let request = Request { client_id: 0x5EED_1234, source_id: 1, sequences: vec![0x101, 0x102] };
        assert_eq!(Request::parse(&GOLDEN), Ok(request.clone()));
        assert_eq!(request.bytes(), GOLDEN);
        for n in 0..GOLDEN.len() {
            assert!(Request::parse(&GOLDEN[..n]).is_err(), "{n} bytes");
        }
        let mut longer = GOLDEN.to_vec();
        longer.extend([1, 2, 3]);
        assert_eq!(Request::parse(&longer), Ok(request));
    }

    #[test]
    fn counts() {
        for (count, good) in [(0u16, false), (1, true), (32, true), (33, false), (u16::MAX, false)] {
            let mut datagram = GOLDEN[..10].to_vec();
            datagram.extend(count.to_le_bytes());
            datagram.resize(12 + 4 * usize::from(count), 0);
            assert_eq!(Request::parse(&datagram).is_ok(), good, "{count}");
        }
        let many = Request { client_id: 1, source_id: 1, sequences: (0..40).collect() };
        assert_eq!(Request::parse(&many.bytes()).unwrap().sequences.len(), 32);
    }
}
