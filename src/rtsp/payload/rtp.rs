//! The head of an RTP packet. Source: RFC 3550 5.1.

/// An RTP packet that was taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// What the payload format makes of it: the end of a picture, mostly.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// Counts packets, modulo 2^16.
    pub sequence: u16,
    /// On the clock of the media, from an arbitrary beginning, modulo 2^32.
    pub timestamp: u32,
    /// Names the sender.
    pub ssrc: u32,
    /// Without padding and extension.
    pub payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// `None` where the bytes are no RTP packet of version 2, or its lengths lead out of it.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_first_chunk::<12>()?;
        let [flags, kind, s1, s0, t3, t2, t1, t0, i3, i2, i1, i0] = *head;
        if flags >> 6 != 2 {
            return None;
        }
        rest = rest.get(usize::from(flags & 0x0F) * 4..)?;
        if flags & 0x10 != 0 {
            let ([_, _, n1, n0], behind) = rest.split_first_chunk::<4>()?;
            rest = behind.get(usize::from(u16::from_be_bytes([*n1, *n0])) * 4..)?;
        }
        if flags & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            rest = rest.get(..rest.len().checked_sub(padding)?)?;
        }
        Some(Self {
            marker: kind & 0x80 != 0,
            payload_type: kind & 0x7F,
            sequence: u16::from_be_bytes([s1, s0]),
            timestamp: u32::from_be_bytes([t3, t2, t1, t0]),
            ssrc: u32::from_be_bytes([i3, i2, i1, i0]),
            payload: rest,
        })
    }
}

/// What a sender report says: which RTP timestamp belongs to which time of the sender's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Names the sender.
    pub ssrc: u32,
    /// NTP: seconds since 1900 in the upper half, their fraction in the lower.
    pub ntp: u64,
    /// On the clock of the media.
    pub timestamp: u32,
}

impl SenderReport {
    /// The first one in a compound RTCP packet. Source: RFC 3550 6.4.1.
    pub fn find(mut rtcp: &[u8]) -> Option<Self> {
        loop {
            let ([flags, kind, n1, n0], body) = rtcp.split_first_chunk::<4>()?;
            let len = usize::from(u16::from_be_bytes([*n1, *n0])) * 4;
            if flags >> 6 != 2 {
                return None;
            }
            if *kind == 200 {
                let (ssrc, rest) = body.get(..len)?.split_first_chunk()?;
                let (ntp, rest) = rest.split_first_chunk()?;
                let (timestamp, _) = rest.split_first_chunk()?;
                return Some(Self {
                    ssrc: u32::from_be_bytes(*ssrc),
                    ntp: u64::from_be_bytes(*ntp),
                    timestamp: u32::from_be_bytes(*timestamp),
                });
            }
            rtcp = body.get(len..)?;
        }
    }

    /// The time as milliseconds since 1900, rounded down.
    pub const fn ntp_ms(&self) -> i64 {
        let (seconds, fraction) = (self.ntp >> 32, self.ntp & 0xFFFF_FFFF);
        (seconds * 1000 + ((fraction * 1000) >> 32)).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_of_every_form() {
        let plain = [0x80, 0xE0, 0, 7, 0, 0, 1, 0, 9, 8, 7, 6, 1, 2, 3];
        let packet = RtpPacket::parse(&plain).unwrap();
        let expected =
            RtpPacket { marker: true, payload_type: 96, sequence: 7, timestamp: 256, ssrc: 0x0908_0706, payload: &[1, 2, 3] };
        assert_eq!(packet, expected);
        let mut full = plain.to_vec();
        full[0] = 0xB1;
        full.splice(12..12, [5, 5, 5, 5, 0xBE, 0xDE, 0, 1, 4, 4, 4, 4]);
        full.extend([0, 2]);
        assert_eq!(RtpPacket::parse(&full).unwrap().payload, [1, 2, 3]);
        *full.last_mut().unwrap() = 200;
        assert_eq!(RtpPacket::parse(&full), None, "padding before the payload");
        assert_eq!(RtpPacket::parse(&[0x40; 20]), None, "another version");
    }

    #[test]
    fn sender_reports() {
        let mut report = vec![0x80, 201, 0, 1, 1, 1, 1, 1];
        report.extend([0x80, 200, 0, 6, 0, 0, 0, 9]);
        report.extend([0, 0, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 90]);
        report.extend([0; 8]);
        let found = SenderReport::find(&report).unwrap();
        assert_eq!((found.ssrc, found.ntp_ms(), found.timestamp), (9, 10_500, 90));
        assert_eq!(SenderReport::find(&report[..20]), None);
        assert_eq!(SenderReport::find(&[]), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            RtpPacket::parse(&bytes);
            SenderReport::find(&bytes);
        }
    }
}
