//! ASF packets out of the RTP packets in which a server sends them.
//!
//! Servers disagree about the length field: by the document it counts ASF bytes, in practice the payload head too. Both are
//! understood.
//!
//! Source: MS-RTSP 2.2.1; RFC 3550 5.1.

use super::media::RTP_HEAD_LEN;
use crate::wire::DecodeError;

/// Begins every ASF packet that any server sends: two bytes of error correction.
const ASF_START: u8 = 0x82;
/// Sequence numbers that are so far ahead are rather late ones.
const LATE: u16 = 0x8000;

const LENGTH: u8 = 0x40;
/// Relative timestamp, duration, LocationId: four bytes each.
const EXTRA_FIELDS: [u8; 3] = [0x20, 0x10, 0x08];

/// Why an RTP packet was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("RTP packet: {0}")]
pub struct RtpError(#[from] pub DecodeError);

/// What became of RTP packets, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Sequence numbers that were left out; some may have come late.
    pub missing: u64,
    /// RTP packets that came after a later one, or twice; they are passed over.
    pub late: u64,
    /// ASF packets of which not all fragments came, and fragments without what is before them.
    pub incomplete: u64,
}

/// Puts ASF packets together again.
#[derive(Debug)]
pub struct Depacketizer {
    packet_size: usize,
    /// The fragments of the packet that comes; `None` while what comes belongs to nothing.
    partial: Option<Vec<u8>>,
    next_sequence: Option<u16>,
    losses: Losses,
}

/// A payload head.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Length, or offset of a fragment.
    field: usize,
    is_length: bool,
    /// Bytes of the head.
    len: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [flags, f2, f1, f0] = *bytes.first_chunk()?;
        let extra = EXTRA_FIELDS.iter().filter(|field| flags & **field != 0).count();
        let len = 4 + 4 * extra;
        let field = usize::try_from(u32::from_be_bytes([0, f2, f1, f0])).ok()?;
        (len < bytes.len()).then_some(Self { field, is_length: flags & LENGTH != 0, len })
    }

    /// Whether another packet, or the first piece of one, may begin here.
    fn is_plausible(bytes: &[u8]) -> bool {
        let begins = |head: Self| (head.is_length || head.field == 0) && bytes.get(head.len) == Some(&ASF_START);
        Self::parse(bytes).is_some_and(begins)
    }
}

impl Depacketizer {
    /// For a header with this packet size, bytes.
    pub const fn new(packet_size: usize) -> Self {
        Self { packet_size, partial: None, next_sequence: None, losses: Losses { missing: 0, late: 0, incomplete: 0 } }
    }

    /// What was lost up to now.
    pub const fn losses(&self) -> Losses {
        self.losses
    }

    /// A play begins: sequence numbers may begin anywhere.
    pub fn restart(&mut self) {
        self.next_sequence = None;
        self.partial = None;
    }

    /// Takes an RTP packet and hands each ASF packet that is complete with it to `take`: at most as long as the header says, and
    /// shorter where the sender stripped its padding, for [`crate::asf::padding::restore`]. What was left out before is counted.
    ///
    /// # Errors
    /// [`RtpError`] where the heads of an RTP packet are not sound; what was complete before has been handed over.
    ///
    /// Source: MS-RTSP 2.2.1.2; RFC 3550 5.1, 5.3.1.
    pub fn push(&mut self, rtp: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), RtpError> {
        let (sequence, mut payload) = rtp_payload(rtp)?;
        let ahead = self.next_sequence.map_or(0, |next| sequence.wrapping_sub(next));
        if ahead >= LATE {
            self.losses.late += 1;
            return Ok(());
        }
        if ahead > 0 {
            self.losses.missing += u64::from(ahead);
            self.give_up();
        }
        self.next_sequence = Some(sequence.wrapping_add(1));
        // Bit 7 of the second byte.
        let ends = rtp.get(1).is_some_and(|kind| kind & 0x80 != 0);
        while !payload.is_empty() {
            let Some(head) = Head::parse(payload) else { return Err(invalid("payload head", rtp.len() - payload.len())) };
            let body = payload.get(head.len..).unwrap_or_default();
            if !head.is_length {
                return self.fragment(head.field, body, ends, take);
            }
            self.give_up();
            // Whichever way the length counts, another packet behind this one shows it.
            let by_either = [head.field, head.field.saturating_add(head.len)];
            let next = by_either.into_iter().find(|at| *at > head.len && payload.get(*at..).is_some_and(Head::is_plausible));
            let packet = match next {
                Some(at) => payload.get(head.len..at).unwrap_or_default(),
                None if ends => body,
                None => body.get(..head.field).unwrap_or(body),
            };
            if packet.len() > self.packet_size {
                return Err(invalid("length", rtp.len() - payload.len()));
            }
            take(packet);
            payload = next.and_then(|at| payload.get(at..)).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes a fragment: the rest of its RTP packet.
    fn fragment(&mut self, offset: usize, body: &[u8], ends: bool, mut take: impl FnMut(&[u8])) -> Result<(), RtpError> {
        if offset == 0 {
            self.give_up();
            self.partial = Some(Vec::new());
        }
        let Some(partial) = self.partial.as_mut().filter(|partial| partial.len() == offset) else {
            // What is before it did not come. The whole packet counts once, with its last piece.
            self.partial = None;
            self.losses.incomplete += u64::from(ends);
            return Ok(());
        };
        if partial.len() + body.len() > self.packet_size {
            self.partial = None;
            return Err(invalid("fragment", RTP_HEAD_LEN));
        }
        partial.extend_from_slice(body);
        if ends && let Some(packet) = self.partial.take() {
            take(&packet);
        }
        Ok(())
    }

    /// The rest of a packet that has begun will not come.
    fn give_up(&mut self) {
        if self.partial.take().is_some() {
            self.losses.incomplete += 1;
        }
    }
}

const fn invalid(field: &'static str, offset: usize) -> RtpError {
    RtpError(DecodeError::Invalid { field, offset, reason: "leads out of the packet" })
}

/// The sequence number and the payload of an RTP packet.
fn rtp_payload(rtp: &[u8]) -> Result<(u16, &[u8]), RtpError> {
    let missing = RTP_HEAD_LEN.saturating_sub(rtp.len());
    let Some([first, _, n1, n0, ..]) = rtp.first_chunk::<RTP_HEAD_LEN>() else {
        return Err(DecodeError::Short { field: "RTP head", offset: 0, missing }.into());
    };
    if first >> 6 != 2 {
        return Err(RtpError(DecodeError::Invalid { field: "RTP version", offset: 0, reason: "is not 2" }));
    }
    let mut at = RTP_HEAD_LEN + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        let words = rtp.get(at + 2..).and_then(|rest| rest.first_chunk());
        let Some(words) = words else { return Err(invalid("RTP head extension", at)) };
        at += 4 + 4 * usize::from(u16::from_be_bytes(*words));
    }
    let mut end = rtp.len();
    if first & 0x20 != 0 {
        end = end.saturating_sub(rtp.last().copied().unwrap_or_default().into());
    }
    let payload = rtp.get(at..end).ok_or_else(|| invalid("RTP head", at))?;
    Ok((u16::from_be_bytes([*n1, *n0]), payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::{padding, samples, walk};
    use crate::rtsp::media::{Carriage, Facts, Flow, Packets};

    fn asf(len: usize, fill: u8) -> Vec<u8> {
        let mut packet = vec![fill; len];
        packet[..3].copy_from_slice(&[ASF_START, 0, 0]);
        packet
    }

    fn rtp(sequence: u16, marker: bool, payload: &[&[u8]]) -> Vec<u8> {
        let [n1, n0] = sequence.to_be_bytes();
        let mut rtp = vec![0x80, if marker { 0xE0 } else { 0x60 }, n1, n0, 0, 0, 7, 0xD0, 0x90, 0xCB, 0xCA, 0xAC];
        rtp.extend(payload.concat());
        rtp
    }

    fn all(depacketizer: &mut Depacketizer, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        packets.iter().for_each(|rtp| depacketizer.push(rtp, |packet| out.push(packet.to_vec())).unwrap());
        out
    }

    fn one(packet_size: usize, rtp: Vec<u8>) -> Vec<Vec<u8>> {
        all(&mut Depacketizer::new(packet_size), &[rtp])
    }

    #[test]
    fn golden_heads_of_one_packet() {
        let packet = asf(46, 7);
        for (what, head) in [
            ("with the head's bytes", &[0xC0, 0, 0, 0x32][..]),
            ("by the document", &[0xC0, 0, 0, 0x2E]),
            ("duration and LocationId", &[0xD8, 0, 0, 0x3A, 0, 0, 0, 0x28, 0, 0, 0, 5]),
            ("all fields, by the document", &[0xF8, 0, 0, 0x2E, 0, 0, 0, 1, 0, 0, 0, 0x28, 0, 0, 0, 5]),
            ("one single fragment", &[0x80, 0, 0, 0]),
            ("a length that says nothing", &[0x40, 0xFF, 0xFF, 0xFF]),
            ("reserved bits", &[0xC7, 0, 0, 0x32]),
        ] {
            assert_eq!(one(64, rtp(9, true, &[head, &packet])), std::slice::from_ref(&packet), "{what}");
        }
        assert_eq!(one(64, rtp(9, false, &[&[0xC0, 0, 0, 44], &packet])), [packet[..44].to_vec()], "it may end before the rest");
    }

    #[test]
    fn golden_fragments() {
        let packet: Vec<u8> = (0..3200_u32).map(|n| n.to_le_bytes()[0]).collect();
        let fragments = [
            rtp(0x1235, false, &[&[0x80, 0, 0, 0], &packet[..1436]]),
            rtp(0x1236, false, &[&[0x80, 0, 5, 0x9C], &packet[1436..2872]]),
            rtp(0x1237, true, &[&[0x80, 0, 0x0B, 0x38], &packet[2872..]]),
        ];
        assert_eq!(all(&mut Depacketizer::new(3200), &fragments), std::slice::from_ref(&packet));
        let mut short = Depacketizer::new(3199);
        assert!(fragments.iter().any(|rtp| short.push(rtp, |_| panic!("longer than the header says")).is_err()));
        for missing in 0..3 {
            let mut some = fragments.to_vec();
            some.remove(missing);
            some.push(rtp(0x1238, true, &[&[0xC0, 0, 0, 34], &packet[..30]]));
            let mut depacketizer = Depacketizer::new(3200);
            assert_eq!(all(&mut depacketizer, &some), [packet[..30].to_vec()], "without fragment {missing}");
            assert_eq!(
                depacketizer.losses(),
                Losses { missing: u64::from(missing > 0), late: 0, incomplete: if missing == 1 { 2 } else { 1 } }
            );
        }
    }

    #[test]
    fn two_packets_in_one() {
        let (first, second) = (asf(46, 7), asf(46, 9));
        let second_head = [0x60, 0, 0, 0x2E, 0, 0, 0, 0x28];
        for length in [0x2E, 0x32] {
            let both = rtp(1, true, &[&[0xC0, 0, 0, length], &first, &second_head, &second]);
            assert_eq!(one(46, both), [first.clone(), second.clone()], "{length:02X}");
        }
        let then_a_piece = rtp(1, false, &[&[0xC0, 0, 0, 0x2E], &first, &[0, 0, 0, 0], &second[..20]]);
        let rest = rtp(2, true, &[&[0, 0, 0, 20], &second[20..]]);
        assert_eq!(all(&mut Depacketizer::new(46), &[then_a_piece, rest]), [first, second]);
    }

    #[test]
    fn gaps_late_ones_and_wraps_are_counted() {
        let packet = |sequence| rtp(sequence, true, &[&[0xC0, 0, 0, 34], &asf(30, 1)]);
        let mut depacketizer = Depacketizer::new(30);
        let came = all(&mut depacketizer, &[packet(0xFFFE), packet(0xFFFF), packet(2), packet(1), packet(2), packet(3)]);
        assert_eq!((came.len(), depacketizer.losses()), (4, Losses { missing: 2, late: 2, incomplete: 0 }));
        depacketizer.restart();
        assert_eq!(all(&mut depacketizer, &[packet(0x9000)]).len(), 1);
        assert_eq!(depacketizer.losses().missing, 2);
    }

    #[test]
    fn rtp_heads_of_every_form() {
        let packet = asf(30, 1);
        let body = [&[0xC0, 0, 0, 34][..], &packet].concat();
        let with = |first: u8, between: &[u8], behind: &[u8]| {
            let mut all = rtp(1, true, &[between, &body, behind]);
            all[0] = first;
            all
        };
        assert_eq!(one(30, with(0x82, &[9; 8], &[])), std::slice::from_ref(&packet), "contributing sources");
        assert_eq!(
            one(30, with(0x91, &[9, 9, 9, 9, 0, 0, 0, 1, 9, 9, 9, 9], &[])),
            std::slice::from_ref(&packet),
            "and an extension"
        );
        assert_eq!(one(30, with(0xA0, &[], &[0, 0, 3])), std::slice::from_ref(&packet), "padding");
    }

    #[test]
    fn unsound_packets_are_told() {
        let packet = asf(30, 1);
        let good = rtp(1, true, &[&[0xC0, 0, 0, 34], &packet]);
        for (what, bad) in [
            ("nothing", Vec::new()),
            ("half a head", good[..11].to_vec()),
            ("version 1", [&[0x40], &good[1..]].concat()),
            ("contributing sources past the end", [&[0x8F], &good[1..40]].concat()),
            ("an extension past the end", [&[0x90], &good[1..12], &[0, 0, 0xFF, 0xFF]].concat()),
            ("padding of more than all", [&[0xA0], &good[1..], &[200]].concat()),
            ("half a payload head", good[..14].to_vec()),
            ("a payload head and nothing", good[..16].to_vec()),
            ("fields past the end", rtp(1, true, &[&[0xF8, 0, 0, 4, 0, 0]])),
            ("longer than the header says", rtp(1, true, &[&[0xC0, 0, 0, 44], &asf(40, 1)])),
        ] {
            assert!(Depacketizer::new(30).push(&bad, |_| panic!("{what}")).is_err(), "{what}");
        }
    }

    fn check_round_trip(name: &str, fragments: u16) {
        let (header, packets) = samples::stream(name);
        let (size, flow) = (header.packet_size(), Flow { ssrc: 1, sequence: 0xFFF0 });
        let mut sent = Packets::new(Carriage::Datagrams, fragments);
        let mut depacketizer = Depacketizer::new(size);
        let mut received = Vec::new();
        for (number, packet) in (0..).zip(packets.iter().take(60)) {
            let info = walk(packet).unwrap();
            sent.clear(fragments, usize::MAX);
            sent.push(packet, size, flow, Facts { packet: number, send_time_ms: info.send_time_ms, key: info.key });
            for index in 0..fragments {
                let rtp = sent.stretch(0, 1).fragment(index).unwrap();
                depacketizer.push(rtp, |packet| padding::restore(packet, size, &mut received).unwrap()).unwrap();
            }
        }
        for (packet, received) in packets.iter().zip(received.chunks(size)) {
            let meaning = |packet: &[u8]| {
                (
                    walk(packet).unwrap().streams,
                    walk(packet).unwrap().key,
                    crate::asf::payloads(packet).unwrap().map(|payload| payload.data.to_vec()).collect::<Vec<_>>(),
                )
            };
            assert_eq!(meaning(packet), meaning(received), "{name} in {fragments}");
        }
        assert_eq!((received.len(), depacketizer.losses()), (packets.len().min(60) * size, Losses::default()));
    }

    #[test]
    fn what_is_sent_is_received() {
        for (name, ..) in samples::STREAMS {
            for fragments in [1, 2, 3, 5, 8] {
                check_round_trip(name, fragments);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20), sound in any::<bool>()) {
            let mut depacketizer = Depacketizer::new(60);
            for mut rtp in packets {
                if sound && let [first, ..] = &mut rtp[..] {
                    *first = 0x80;
                }
                let _ = depacketizer.push(&rtp, |packet| assert!(packet.len() <= 60));
            }
        }
    }
}
