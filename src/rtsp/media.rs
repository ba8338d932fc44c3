//! ASF packets in RTP, as they are sent: one ASF packet, or one fragment of one, in each RTP packet.
//!
//! All viewers of a generation share one flow, so that they share the very datagrams. Each ASF packet becomes the same number of
//! RTP packets, however short it is without its padding: the sequence number of any packet follows from its number.
//!
//! Source: MS-RTSP 2.2.1; RFC 3550 5.1. Receiving is in [`super::depacketize`].

use crate::asf::padding;

/// Bytes of an RTP head.
pub const RTP_HEAD_LEN: usize = 12;
/// Bytes of both heads of an RTP packet: RTP's, and the payload format's.
pub const HEAD_LEN: usize = RTP_HEAD_LEN + 4;
/// Bytes before an RTP packet on a TCP connection: `$`, the channel, the length.
pub const FRAME_HEAD_LEN: usize = 4;
/// Longest RTP packet that is a datagram, bytes: it fits Ethernet over IPv6 too, with its UDP head.
pub const MAX_DATAGRAM: usize = 1452;
/// The payload type of all flows of ASF.
pub const PAYLOAD_TYPE: u8 = 96;
/// Longest RTP packet: the length before it on a TCP connection has 16 bits.
const MAX_RTP: usize = 0xFFFF;

/// First byte of an RTP head: version 2, no padding, no extension, no contributing sources.
const VERSION: u8 = 0x80;
const MARKER: u8 = 0x80;
/// Flags of the payload head.
const KEY: u8 = 0x80;
const LENGTH: u8 = 0x40;

/// What the RTP packets of one flow have in common, and where their sequence numbers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Names the flow.
    pub ssrc: u32,
    /// Sequence number of the first RTP packet of ASF packet 0.
    pub sequence: u16,
}

impl Flow {
    /// Sequence number of the first RTP packet of an ASF packet, of which each becomes `fragments`.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^16")]
    pub const fn sequence_of(&self, packet: u32, fragments: u16) -> u16 {
        self.sequence.wrapping_add((packet as u16).wrapping_mul(fragments))
    }

    /// How many ASF packets before `next`, which was not sent yet, the RTP packet with a sequence number belongs to, and which
    /// of that packet's fragments it is. A number that was not sent yet seems to be nearly 2^16 RTP packets ago.
    pub fn before(&self, next: u32, fragments: u16, sequence: u16) -> (u32, u16) {
        let back = u32::from(self.sequence_of(next, fragments).wrapping_sub(sequence));
        let fragments = u32::from(fragments.max(1));
        let packets = back.div_ceil(fragments);
        (packets, u16::try_from(packets * fragments - back).unwrap_or_default())
    }
}

/// How RTP packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// Each is a datagram.
    Datagrams,
    /// Between the responses on the RTSP connection.
    Interleaved {
        /// The channel of the flow.
        channel: u8,
    },
}

impl Carriage {
    /// Bytes in front of each RTP packet.
    pub const fn prefix_len(self) -> usize {
        match self {
            Self::Datagrams => 0,
            Self::Interleaved { .. } => FRAME_HEAD_LEN,
        }
    }
}

/// RTP packets that an ASF packet becomes, where its size by the header is `packet_size` and RTP packets are to have at most
/// `max_datagram` bytes. At least 1, and never more than it has bytes.
pub fn fragments(packet_size: usize, max_datagram: usize) -> u16 {
    let room = max_datagram.min(MAX_RTP).saturating_sub(HEAD_LEN).max(1);
    u16::try_from(packet_size.div_ceil(room)).unwrap_or(u16::MAX).max(1)
}

/// Bytes of each fragment but the last, for which something must be left.
const fn fragment_len(len: usize, fragments: usize) -> usize {
    // Nearly always; a division for each packet and viewer is felt.
    if fragments == 1 {
        return len;
    }
    let even = len.div_ceil(fragments);
    if even * (fragments - 1) < len { even } else { len / fragments }
}

/// What the heads of an ASF packet's RTP packets say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its number in the flow.
    pub packet: u32,
    /// Its send time, milliseconds.
    pub send_time_ms: u32,
    /// Whether it has something of a key frame.
    pub key: bool,
}

/// All that stands before the ASF bytes of an RTP packet.
struct Head {
    carriage: Carriage,
    ssrc: u32,
    facts: Facts,
    sequence: u16,
    /// The ASF packet ends with it.
    last: bool,
    /// It is no fragment.
    whole: bool,
    /// Length or offset.
    field: usize,
}

/// Its bytes, of which those at the end count.
struct HeadBytes([u8; FRAME_HEAD_LEN + HEAD_LEN], usize);

impl HeadBytes {
    fn as_slice(&self) -> &[u8] {
        self.0.get(self.0.len() - self.1..).unwrap_or_default()
    }
}

impl Head {
    const fn len(&self) -> usize {
        self.carriage.prefix_len() + HEAD_LEN
    }

    /// Before so many bytes of ASF.
    fn bytes(&self, len: usize) -> HeadBytes {
        let channel = match self.carriage {
            Carriage::Datagrams => 0,
            Carriage::Interleaved { channel } => channel,
        };
        // RTP packets are no longer than 16 bits can say.
        let [l1, l0] = u16::try_from(len + HEAD_LEN).unwrap_or(u16::MAX).to_be_bytes();
        let [n1, n0] = self.sequence.to_be_bytes();
        let [t3, t2, t1, t0] = self.facts.send_time_ms.to_be_bytes();
        let [s3, s2, s1, s0] = self.ssrc.to_be_bytes();
        let [_, f2, f1, f0] = u32::try_from(self.field).unwrap_or_default().to_be_bytes();
        let kind = PAYLOAD_TYPE | if self.last { MARKER } else { 0 };
        let flags = if self.facts.key { KEY } else { 0 } | if self.whole { LENGTH } else { 0 };
        let bytes = [b'$', channel, l1, l0, VERSION, kind, n1, n0, t3, t2, t1, t0, s3, s2, s1, s0, flags, f2, f1, f0];
        HeadBytes(bytes, self.len())
    }
}

/// RTP packets of ASF packets that follow each other, in one buffer, with nothing between them.
///
/// ASF packets are stripped of their padding, so their lengths differ. A flow that numbers them otherwise by a constant, or has
/// another channel, is served from the same bytes after [`Self::stamp`].
#[derive(Debug, Clone)]
pub struct Packets {
    bytes: Vec<u8>,
    /// Where the RTP packets of each ASF packet end.
    ends: Vec<usize>,
    carriage: Carriage,
    fragments: u16,
    /// What sequence numbers are ahead of the flow's by now.
    ahead: u16,
    scratch: Vec<u8>,
}

impl Packets {
    /// None yet; each ASF packet becomes so many RTP packets, as [`fragments`] tells.
    pub const fn new(carriage: Carriage, fragments: u16) -> Self {
        let fragments = if fragments == 0 { 1 } else { fragments };
        Self { bytes: Vec::new(), ends: Vec::new(), carriage, fragments, ahead: 0, scratch: Vec::new() }
    }

    /// Lets go of all, for ASF packets of another size perhaps; memory stays, as long as that is no more than `most` bytes.
    pub fn clear(&mut self, fragments: u16, most: usize) {
        if self.bytes.capacity() > most {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
        (self.fragments, self.ahead) = (fragments.max(1), 0);
    }

    /// Lets go of all, for ASF packets that are carried and cut otherwise.
    pub fn begin(&mut self, carriage: Carriage, fragments: u16) {
        self.clear(fragments, usize::MAX);
        self.carriage = carriage;
    }

    /// Makes room for ASF packets of this size.
    pub fn reserve(&mut self, count: usize, packet_size: usize) {
        let heads = usize::from(self.fragments) * (HEAD_LEN + self.carriage.prefix_len());
        self.bytes.reserve(count * (packet_size + heads));
        self.ends.reserve(count);
    }

    /// Appends an ASF packet of a header with this packet size, without its padding. One that is no ASF packet is taken as it is.
    pub fn push(&mut self, packet: &[u8], packet_size: usize, flow: Flow, facts: Facts) {
        let fragments = usize::from(self.fragments);
        let sequence = flow.sequence_of(facts.packet, self.fragments).wrapping_add(self.ahead);
        let mut head = Head { carriage: self.carriage, ssrc: flow.ssrc, facts, sequence, last: true, whole: true, field: 0 };
        if fragments == 1 {
            let begin = self.bytes.len();
            self.bytes.resize(begin + head.len(), 0);
            let body = self.bytes.len();
            if padding::strip_all(packet, packet_size, &mut self.bytes).is_err() {
                self.bytes.extend_from_slice(packet);
            }
            let len = self.bytes.len() - body;
            // With the payload head's own bytes: so real servers count, and so most players.
            head.field = len + HEAD_LEN - RTP_HEAD_LEN;
            if let Some(place) = self.bytes.get_mut(begin..body) {
                place.copy_from_slice(head.bytes(len).as_slice());
            }
            self.ends.push(self.bytes.len());
            return;
        }
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        if padding::strip_all(packet, packet_size, &mut body).is_err() || body.len() < fragments {
            body.clear();
            body.extend_from_slice(packet);
        }
        let (len, mut rest) = (fragment_len(body.len(), fragments), body.as_slice());
        head.whole = false;
        for left in (0..fragments).rev() {
            let (fragment, behind) = rest.split_at(if left == 0 { rest.len() } else { len.min(rest.len()) });
            (head.last, head.field) = (left == 0, body.len() - rest.len());
            self.bytes.extend_from_slice(head.bytes(fragment.len()).as_slice());
            self.bytes.extend_from_slice(fragment);
            (rest, head.sequence) = (behind, head.sequence.wrapping_add(1));
        }
        self.ends.push(self.bytes.len());
        self.scratch = body;
    }

    /// The same without the first so many ASF packets.
    pub fn behind(&self, packets: usize) -> Self {
        let begin = packets.checked_sub(1).map_or(0, |last| self.ends.get(last).copied().unwrap_or(self.bytes.len()));
        Self {
            bytes: self.bytes.get(begin..).unwrap_or_default().to_vec(),
            ends: self.ends.iter().skip(packets).map(|end| end - begin).collect(),
            scratch: Vec::new(),
            ..*self
        }
    }

    /// Has sequence numbers be so far ahead of the flow's, and frames be of this channel. Nothing is done where they are.
    pub fn stamp(&mut self, ahead: u16, carriage: Carriage) {
        if (self.ahead, self.carriage) == (ahead, carriage) {
            return;
        }
        debug_assert_eq!(self.carriage.prefix_len(), carriage.prefix_len(), "another image");
        let change = ahead.wrapping_sub(self.ahead);
        let (fragments, prefix) = (usize::from(self.fragments), self.carriage.prefix_len());
        let mut begin = 0;
        for end in &self.ends {
            let mut rest = self.bytes.get_mut(begin..*end).unwrap_or_default();
            for len in lens(rest.len(), fragments, prefix) {
                let Some((packet, behind)) = rest.split_at_mut_checked(len) else { break };
                if let (Carriage::Interleaved { channel }, Some(place)) = (carriage, packet.get_mut(1)) {
                    *place = channel;
                }
                if let Some(place) = packet.get_mut(prefix..).and_then(|packet| packet.get_mut(2..4)?.first_chunk_mut()) {
                    *place = u16::from_be_bytes(*place).wrapping_add(change).to_be_bytes();
                }
                rest = behind;
            }
            begin = *end;
        }
        (self.ahead, self.carriage) = (ahead, carriage);
    }

    /// ASF packets in it.
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes in it.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes in front of each RTP packet.
    pub const fn prefix_len(&self) -> usize {
        self.carriage.prefix_len()
    }

    /// RTP packets of each ASF packet.
    pub const fn fragments(&self) -> u16 {
        self.fragments
    }

    /// The RTP packets of so many ASF packets from number `first` of these on, as far as they are there.
    pub fn stretch(&self, first: usize, count: usize) -> Stretch<'_> {
        let begin = first.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(self.bytes.len()));
        let ends = self.ends.get(first..).unwrap_or_default();
        let ends = ends.get(..count).unwrap_or(ends);
        let bytes = self.bytes.get(begin..ends.last().copied().unwrap_or(begin)).unwrap_or_default();
        Stretch { bytes, begin, ends, fragments: self.fragments.into(), prefix: self.carriage.prefix_len() }
    }
}

/// Lengths of RTP packets of an ASF packet, what stands before each included, where all of them have `len` bytes.
fn lens(len: usize, fragments: usize, prefix: usize) -> impl Iterator<Item = usize> {
    let body = len.saturating_sub(fragments * (prefix + HEAD_LEN));
    let each = prefix + HEAD_LEN + fragment_len(body, fragments);
    let last = len.saturating_sub(each * (fragments - 1));
    std::iter::repeat_n(each, fragments - 1).chain([last])
}

/// Some ASF packets of [`Packets`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Stretch<'a> {
    /// Their RTP packets.
    pub bytes: &'a [u8],
    begin: usize,
    ends: &'a [usize],
    fragments: usize,
    prefix: usize,
}

impl<'a> Stretch<'a> {
    /// ASF packets.
    pub const fn packets(&self) -> usize {
        self.ends.len()
    }

    /// RTP packets of each; at least 1.
    pub const fn fragments(&self) -> usize {
        if self.fragments == 0 { 1 } else { self.fragments }
    }

    /// Lengths of all RTP packets, what stands before each included.
    pub fn lens(self) -> impl Iterator<Item = usize> + 'a {
        let begins = std::iter::once(self.begin).chain(self.ends.iter().copied());
        begins.zip(self.ends).flat_map(move |(begin, end)| lens(end - begin, self.fragments, self.prefix))
    }

    /// How many ASF packets lie at least in part in the first so many bytes, and where the last of these ends.
    pub fn begun(&self, bytes: usize) -> (usize, usize) {
        let before = self.ends.partition_point(|end| end - self.begin < bytes);
        let packets = (before + usize::from(bytes > 0)).min(self.ends.len());
        (packets, packets.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| end - self.begin))
    }

    /// Bytes of the first so many ASF packets.
    pub fn bytes_of(&self, packets: usize) -> usize {
        packets.checked_sub(1).and_then(|last| self.ends.get(last).or(self.ends.last())).map_or(0, |end| end - self.begin)
    }

    /// One RTP packet of the first ASF packet, what stands before it included.
    pub fn fragment(&self, index: u16) -> Option<&'a [u8]> {
        let len = self.bytes_of(1);
        let mut rest = self.bytes.get(..len)?;
        for (at, len) in lens(len, self.fragments, self.prefix).enumerate() {
            let (packet, behind) = rest.split_at_checked(len)?;
            if at == usize::from(index) {
                return Some(packet);
            }
            rest = behind;
        }
        None
    }
}

#[cfg(test)]
mod tests;
