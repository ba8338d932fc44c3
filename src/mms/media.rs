//! Media on the wire: the image that all viewers share, and the numbers that belong to one viewer.

pub use super::data::{DataHead, HEAD_LEN, MAX_PAYLOAD};

/// Sequence numbers that a viewer may ask for again, counted back from the newest: 2 s of 10 Mbit/s in packets of 1,400 bytes.
pub const RESEND_WINDOW: u32 = 2048;
/// Jumps that a track remembers; a viewer that jumps more often within the window loses resends, nothing else.
const JUMPS: usize = 32;

/// Appends `packets`, whole packets of `packet_size` bytes each, to `image`, with a head before each.
///
/// `locations` are their LocationIds, as many. Incarnation and AFFlags stay 0 for [`stamp`]. The stride of the image is
/// [`HEAD_LEN`]` + packet_size`, of which `packet_size` is at most [`MAX_PAYLOAD`]. A rest shorter than a packet is not taken.
pub fn wrap(packets: &[u8], packet_size: usize, locations: impl IntoIterator<Item = u32>, image: &mut Vec<u8>) {
    debug_assert!((1..=MAX_PAYLOAD).contains(&packet_size), "packet size {packet_size}");
    image.reserve(packets.len() / packet_size.max(1) * (HEAD_LEN + packet_size));
    for (packet, location) in packets.chunks_exact(packet_size.max(1)).zip(locations) {
        image.extend_from_slice(&DataHead::new(location, 0, 0, packet_size).bytes());
        image.extend_from_slice(packet);
    }
}

/// Writes one viewer's incarnation and sequence numbers into the heads of an image.
///
/// `image` begins with a head and has one every `stride` bytes.
pub fn stamp(image: &mut [u8], stride: usize, incarnation: u8, first_sequence: u32) {
    let mut sequence = first_sequence;
    for packet in image.chunks_mut(stride.max(1)) {
        let [flags, ..] = sequence.to_le_bytes();
        if let [_, _, _, _, own_incarnation, own_flags, ..] = packet {
            (*own_incarnation, *own_flags) = (incarnation, flags);
        }
        sequence = sequence.wrapping_add(1);
    }
}

/// A packet that was sent to a viewer, with all that its head needs to be the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Packet number in its variant.
    pub packet: u64,
    /// The variant, as [`Track::switch`] was told.
    pub variant: u16,
    /// Incarnation at that time.
    pub incarnation: u8,
    /// Sequence number; AFFlags is its low byte.
    pub sequence: u32,
}

impl Sent {
    /// The head as it was sent first, of a packet that has the same number in the source. Source: MS-MMSP 3.2.5.13.
    pub fn head(&self, packet_size: usize) -> DataHead {
        self.head_of(self.packet, packet_size)
    }

    /// The same where the source gives it another number: LocationId is the low half of that.
    #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the packet number")]
    pub fn head_of(&self, source_number: u64, packet_size: usize) -> DataHead {
        let [flags, ..] = self.sequence.to_le_bytes();
        DataHead::new(source_number as u32, self.incarnation, flags, packet_size)
    }
}

/// What a viewer gets next, and the numbers that it will carry: all that a pass over the viewers needs of them.
///
/// Source: MS-MMSP 3.2.1, 3.2.5.11.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Next {
    /// Packet number.
    pub packet: u64,
    /// Sequence number; one is used up by each packet handed to the network, none by packets that the viewer skips.
    pub sequence: u32,
    /// Incarnation of the play.
    pub incarnation: u8,
}

impl Next {
    /// `packets` went to the network.
    pub fn advance(&mut self, packets: u32) {
        self.packet += u64::from(packets);
        self.sequence = self.sequence.wrapping_add(packets);
    }
}

/// A run of packets with consecutive sequence numbers, packet numbers and one incarnation, seen from its end.
#[derive(Debug, Clone, Copy)]
struct Run {
    end: Next,
    count: u64,
    variant: u16,
}

impl Run {
    fn find(&self, sequence: u32) -> Option<Sent> {
        let back = u64::from(self.end.sequence.wrapping_sub(sequence));
        (1..=self.count).contains(&back).then(|| Sent {
            packet: self.end.packet - back,
            variant: self.variant,
            incarnation: self.end.incarnation,
            sequence,
        })
    }
}

/// Which packet each of a viewer's last sequence numbers was.
///
/// It is told of jumps only; between two of them packets and numbers go on together. Source: MS-MMSP 3.2.5.11, 3.2.5.13.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// Runs that are over, oldest first.
    runs: Vec<Run>,
    /// Number of the first packet of the run that goes on.
    begin: u64,
    /// The variant that packet numbers belong to.
    variant: u16,
}

impl Track {
    /// A track of a session that has sent nothing.
    pub const fn new() -> Self {
        Self { runs: Vec::new(), begin: 0, variant: 0 }
    }

    fn current(&self, next: &Next) -> Run {
        Run { end: *next, count: next.packet.saturating_sub(self.begin), variant: self.variant }
    }

    fn end_run(&mut self, next: &Next) {
        let run = self.current(next);
        if run.count > 0 {
            if self.runs.len() == JUMPS {
                self.runs.remove(0);
            }
            self.runs.push(run);
        }
        self.begin = next.packet;
    }

    /// A StartPlaying was answered: packets carry this incarnation from now on.
    pub fn start(&mut self, next: &mut Next, incarnation: u8) {
        self.end_run(next);
        // After a last AFFlags of 0xFE the number …FF is skipped (MS-MMSP 3.2.5.11).
        if next.sequence & 0xFF == 0xFF {
            next.sequence = next.sequence.wrapping_add(1);
        }
        next.incarnation = incarnation;
    }

    /// The viewer goes on with packet number `packet`; numbers run on.
    pub fn jump(&mut self, next: &mut Next, packet: u64) {
        if next.packet != packet {
            self.end_run(next);
            next.packet = packet;
            self.begin = packet;
        }
    }

    /// The viewer goes on with packet number `packet` of another variant of the stream; sequence numbers run on.
    pub fn switch(&mut self, next: &mut Next, variant: u16, packet: u64) {
        self.end_run(next);
        self.variant = variant;
        next.packet = packet;
        self.begin = packet;
    }

    /// What was sent belongs to another stream: it can no longer be asked for. Numbers run on.
    pub fn forget(&mut self, next: &Next) {
        self.runs = Vec::new();
        self.begin = next.packet;
    }

    /// The packet that a requested number stands for, `None` where it was never sent or is too old.
    ///
    /// A client counts the wraps of AFFlags itself and may be off by a multiple of 256: a number outside of the window stands for
    /// the one of the last 256 with the same low byte.
    pub fn lookup(&self, next: &Next, sequence: u32) -> Option<Sent> {
        let newest = next.sequence.wrapping_sub(1);
        let age = newest.wrapping_sub(sequence);
        let sequence = if age < RESEND_WINDOW { sequence } else { newest.wrapping_sub(age & 0xFF) };
        self.current(next).find(sequence).or_else(|| self.runs.iter().rev().find_map(|run| run.find(sequence)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_packet() {
        let mut packet =
            vec![0x82, 0, 0, 8, 0x5D, 0x15, 0x88, 0x13, 0, 0, 0x64, 0, 0x81, 7, 0, 0, 0, 0, 8, 0x10, 0, 0, 0, 0x40, 0x1F, 0, 0];
        packet.extend(0x10..=0x1F);
        packet.resize(64, 0);
        let mut image = Vec::new();
        wrap(&packet, 64, [0x0001_2345], &mut image);
        stamp(&mut image, 72, 4, 0);
        assert_eq!(image[..8], [0x45, 0x23, 1, 0, 4, 0, 0x48, 0]);
        assert_eq!(image[8..], packet);
        let next = Sent { packet: 0x9_0001_2346, variant: 0, incarnation: 10, sequence: 1 }.head(43);
        assert_eq!(next.bytes(), [0x46, 0x23, 1, 0, 10, 1, 0x33, 0]);
    }

    #[test]
    fn an_image_of_many_is_wrapped_once_and_stamped_per_viewer() {
        let packets: Vec<u8> = (0..5u8).flat_map(|n| [n; 100]).collect();
        let mut image = vec![9];
        wrap(&packets, 100, [u32::MAX - 1, u32::MAX, 0, 1, 7], &mut image);
        assert_eq!(image.len(), 1 + 5 * 108);
        let mut mine = image[1 + 108..].to_vec();
        stamp(&mut mine, 108, 10, 0xFE);
        let heads: Vec<_> = mine.chunks(108).map(|packet| DataHead::parse(packet).unwrap()).collect();
        assert_eq!(heads.iter().map(|head| head.location).collect::<Vec<_>>(), [u32::MAX, 0, 1, 7]);
        assert_eq!(heads.iter().map(|head| head.flags).collect::<Vec<_>>(), [0xFE, 0xFF, 0, 1]);
        assert!(heads.iter().all(|head| head.incarnation == 10 && head.size == 108));
    }

    #[test]
    fn numbers_run_on_over_stops_and_jumps() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 4);
        track.jump(&mut next, 70_000);
        next.advance(10);
        next.advance(5);
        track.start(&mut next, 5);
        next.advance(5);
        track.jump(&mut next, 70_100); // skipped 80
        next.advance(5);
        assert_eq!(next, Next { packet: 70_105, sequence: 25, incarnation: 5 });
        assert_eq!(track.lookup(&next, 0), Some(Sent { packet: 70_000, variant: 0, incarnation: 4, sequence: 0 }));
        assert_eq!(track.lookup(&next, 14), Some(Sent { packet: 70_014, variant: 0, incarnation: 4, sequence: 14 }));
        assert_eq!(track.lookup(&next, 19), Some(Sent { packet: 70_019, variant: 0, incarnation: 5, sequence: 19 }));
        assert_eq!(track.lookup(&next, 20), Some(Sent { packet: 70_100, variant: 0, incarnation: 5, sequence: 20 }));
        assert_eq!(track.lookup(&next, 24), Some(Sent { packet: 70_104, variant: 0, incarnation: 5, sequence: 24 }));
        assert_eq!(track.lookup(&next, 25), None, "not yet sent, and nothing else ends in 25");
        assert_eq!(Track::new().lookup(&Next::default(), 0), None);
    }

    #[test]
    fn the_number_before_a_wrap_is_skipped_at_a_start() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 4);
        next.advance(0xFF); // the last AFFlags is 0xFE
        track.start(&mut next, 5);
        assert_eq!((next.incarnation, next.sequence), (5, 0x100));
        next.advance(1);
        assert_eq!(track.lookup(&next, 0xFF), None, "never used");
        assert_eq!(track.lookup(&next, 0x100).map(|sent| sent.packet), Some(0xFF));
        assert_eq!(track.lookup(&next, 0xFE).map(|sent| sent.packet), Some(0xFE));
    }

    #[test]
    fn a_miscounted_wrap_is_repaired() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 10);
        track.jump(&mut next, 1_000);
        next.advance(10_000);
        for wrong in [9_990 + 256, 9_990 + 256 * 40, (9_990u32 - 256 * 9)] {
            let sent = track.lookup(&next, wrong).unwrap();
            assert_eq!(sent.sequence & 0xFF, 9_990 & 0xFF, "{wrong}");
            assert!(sent.sequence > 10_000 - 257);
        }
        let in_window = track.lookup(&next, 9_990 - 256).map(|sent| sent.packet);
        assert_eq!(in_window, Some(1_000 + 9_990 - 256), "in the window: taken as it is");
        assert_eq!(track.lookup(&next, 10_000 - 256).map(|sent| sent.packet), Some(11_000 - 256));
    }

    #[test]
    fn another_stream_makes_the_old_packets_unknown() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 4);
        track.jump(&mut next, 10);
        next.advance(3);
        track.forget(&next);
        assert_eq!((next.sequence, track.lookup(&next, 1)), (3, None));
        track.jump(&mut next, 90);
        next.advance(1);
        assert_eq!(track.lookup(&next, 3).map(|sent| sent.packet), Some(90));
        assert_eq!(track.lookup(&next, 2), None);
    }

    #[test]
    fn each_run_knows_its_variant() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 4);
        track.jump(&mut next, 100);
        next.advance(5);
        track.switch(&mut next, 3, 7);
        next.advance(2);
        track.switch(&mut next, 0, 107);
        next.advance(1);
        let found = |sequence| track.lookup(&next, sequence).map(|sent| (sent.variant, sent.packet));
        assert_eq!([4, 5, 6, 7].map(found), [Some((0, 104)), Some((3, 7)), Some((3, 8)), Some((0, 107))]);
    }

    #[test]
    fn the_counter_wraps() {
        let (mut track, mut next) = (Track::new(), Next { packet: 0, sequence: u32::MAX - 5, incarnation: 4 });
        track.start(&mut next, 4);
        next.advance(1000);
        assert_eq!(next.sequence, 994);
        assert_eq!(track.lookup(&next, u32::MAX).map(|sent| sent.packet), Some(5));
        assert_eq!(track.lookup(&next, 993).map(|sent| sent.packet), Some(999));
        // A viewer of half a year: the numbers of one run have gone round.
        next.packet += 1 << 32;
        assert_eq!(track.lookup(&next, 993).map(|sent| sent.packet), Some((1 << 32) + 999));
    }

    #[test]
    fn jumps_that_are_remembered_are_bounded() {
        let (mut track, mut next) = (Track::new(), Next::default());
        track.start(&mut next, 4);
        for n in 1..=45 {
            next.advance(1);
            track.jump(&mut next, n * 100);
        }
        assert_eq!(track.runs.len(), JUMPS);
        assert_eq!(track.lookup(&next, 12), None, "forgotten");
        assert_eq!(track.lookup(&next, 13).map(|sent| sent.packet), Some(1300));
        track.jump(&mut next, 4500);
        assert_eq!(track.runs.len(), JUMPS, "no jump at all");
    }
}
