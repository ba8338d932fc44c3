//! Media on the wire: the image that all viewers share, and the numbers that belong to one viewer.

pub use super::data::{DataHead, HEAD_LEN, MAX_PAYLOAD};

/// Sequence numbers that a viewer may ask for again, counted back from the newest: 2 s of 10 Mbit/s in packets of 1,400 bytes.
pub const RESEND_WINDOW: u32 = 2048;
/// Jumps that a track remembers; a viewer that jumps more often within the window loses resends, nothing else.
const JUMPS: u8 = 8;

/// Appends `packets`, whole packets of `packet_size` bytes each, to `image`, with a head before each.
///
/// LocationIds run from `first_location` and wrap. Incarnation and AFFlags stay 0 for [`stamp`]. The stride of the image is
/// [`HEAD_LEN`]` + packet_size`, of which `packet_size` is at most [`MAX_PAYLOAD`]. A rest shorter than a packet is not taken.
pub fn wrap(packets: &[u8], packet_size: usize, first_location: u32, image: &mut Vec<u8>) {
    debug_assert!((1..=MAX_PAYLOAD).contains(&packet_size), "packet size {packet_size}");
    image.reserve(packets.len() / packet_size.max(1) * (HEAD_LEN + packet_size));
    let mut location = first_location;
    for packet in packets.chunks_exact(packet_size.max(1)) {
        image.extend_from_slice(&DataHead::new(location, 0, 0, packet_size).bytes());
        image.extend_from_slice(packet);
        location = location.wrapping_add(1);
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
    /// Packet number; LocationId is its low half.
    pub packet: u64,
    /// Incarnation at that time.
    pub incarnation: u8,
    /// Sequence number; AFFlags is its low byte.
    pub sequence: u32,
}

impl Sent {
    /// The head as it was sent first. Source: MS-MMSP 3.2.5.13.
    #[expect(clippy::cast_possible_truncation, reason = "LocationId is the low half of the packet number")]
    pub fn head(&self, packet_size: usize) -> DataHead {
        let [flags, ..] = self.sequence.to_le_bytes();
        DataHead::new(self.packet as u32, self.incarnation, flags, packet_size)
    }
}

/// A run of packets with consecutive sequence numbers, packet numbers and one incarnation.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    sequence: u32,
    count: u32,
    packet: u64,
    incarnation: u8,
}

/// One viewer's sequence numbers, and which packet each of the last ones was.
///
/// A number is used up by each packet handed to the network; packets that the viewer skips use none. Source: MS-MMSP 3.2.1,
/// 3.2.5.11.1, 3.2.5.13.
#[derive(Debug, Clone, Default)]
pub struct Track {
    sequence: u32,
    incarnation: u8,
    /// Newest run, as an index into `runs`.
    newest: u8,
    runs: [Run; JUMPS as usize],
}

impl Track {
    /// A track of a session that has sent nothing: the next number is 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// A StartPlaying was answered: packets carry this incarnation from now on.
    pub fn start(&mut self, incarnation: u8) {
        // After a last AFFlags of 0xFE the number …FF is skipped (MS-MMSP 3.2.5.11).
        if self.sequence & 0xFF == 0xFF {
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.incarnation = incarnation;
    }

    /// Incarnation and sequence number of the next packet.
    pub const fn next(&self) -> (u8, u32) {
        (self.incarnation, self.sequence)
    }

    /// `count` packets from number `first_packet` on went to the network.
    pub fn sent(&mut self, first_packet: u64, count: u32) {
        if count == 0 {
            return;
        }
        let (sequence, incarnation) = (self.sequence, self.incarnation);
        self.sequence = sequence.wrapping_add(count);
        let newest = usize::from(self.newest);
        if let Some(run) = self.runs.get_mut(newest) {
            let goes_on = run.count > 0
                && run.incarnation == incarnation
                && run.sequence.wrapping_add(run.count) == sequence
                && run.packet + u64::from(run.count) == first_packet;
            if goes_on {
                run.count = run.count.saturating_add(count);
                // Keeps the count far from its end in sessions of months.
                if let Some(surplus) = run.count.checked_sub(RESEND_WINDOW * 2) {
                    run.sequence = run.sequence.wrapping_add(surplus);
                    run.packet += u64::from(surplus);
                    run.count -= surplus;
                }
                return;
            }
        }
        self.newest = (self.newest + 1) % JUMPS;
        if let Some(run) = self.runs.get_mut(usize::from(self.newest)) {
            *run = Run { sequence, count, packet: first_packet, incarnation };
        }
    }

    /// What was sent belongs to another stream: it can no longer be asked for. Numbers run on.
    pub fn forget(&mut self) {
        self.runs = Default::default();
    }

    /// The packet that a requested number stands for, `None` where it was never sent or is too old.
    ///
    /// A client counts the wraps of AFFlags itself and may be off by a multiple of 256: a number outside of the window stands for
    /// the one of the last 256 with the same low byte.
    pub fn lookup(&self, sequence: u32) -> Option<Sent> {
        let newest = self.sequence.wrapping_sub(1);
        let age = newest.wrapping_sub(sequence);
        if age < RESEND_WINDOW { self.find(sequence) } else { self.find(newest.wrapping_sub(age & 0xFF)) }
    }

    fn find(&self, sequence: u32) -> Option<Sent> {
        self.runs.iter().find_map(|run| {
            let into = sequence.wrapping_sub(run.sequence);
            (into < run.count).then(|| Sent { packet: run.packet + u64::from(into), incarnation: run.incarnation, sequence })
        })
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
        wrap(&packet, 64, 0x0001_2345, &mut image);
        stamp(&mut image, 72, 4, 0);
        assert_eq!(image[..8], [0x45, 0x23, 1, 0, 4, 0, 0x48, 0]);
        assert_eq!(image[8..], packet);
        let next = Sent { packet: 0x9_0001_2346, incarnation: 10, sequence: 1 }.head(43);
        assert_eq!(next.bytes(), [0x46, 0x23, 1, 0, 10, 1, 0x33, 0]);
    }

    #[test]
    fn an_image_of_many_is_wrapped_once_and_stamped_per_viewer() {
        let packets: Vec<u8> = (0..5u8).flat_map(|n| [n; 100]).collect();
        let mut image = vec![9];
        wrap(&packets, 100, u32::MAX - 1, &mut image);
        assert_eq!(image.len(), 1 + 5 * 108);
        let mut mine = image[1 + 108..].to_vec();
        stamp(&mut mine, 108, 10, 0xFE);
        let heads: Vec<_> = mine.chunks(108).map(|packet| DataHead::parse(packet).unwrap()).collect();
        assert_eq!(heads.iter().map(|head| head.location).collect::<Vec<_>>(), [u32::MAX, 0, 1, 2]);
        assert_eq!(heads.iter().map(|head| head.flags).collect::<Vec<_>>(), [0xFE, 0xFF, 0, 1]);
        assert!(heads.iter().all(|head| head.incarnation == 10 && head.size == 108));
    }

    #[test]
    fn numbers_run_on_over_stops_and_jumps() {
        let mut track = Track::new();
        track.start(4);
        assert_eq!(track.next(), (4, 0));
        track.sent(70_000, 10);
        track.sent(70_010, 5);
        track.start(5);
        track.sent(70_015, 5);
        track.sent(70_100, 5); // skipped 80
        assert_eq!(track.next(), (5, 25));
        assert_eq!(track.lookup(0), Some(Sent { packet: 70_000, incarnation: 4, sequence: 0 }));
        assert_eq!(track.lookup(14), Some(Sent { packet: 70_014, incarnation: 4, sequence: 14 }));
        assert_eq!(track.lookup(19), Some(Sent { packet: 70_019, incarnation: 5, sequence: 19 }));
        assert_eq!(track.lookup(20), Some(Sent { packet: 70_100, incarnation: 5, sequence: 20 }));
        assert_eq!(track.lookup(25), None, "not yet sent, and nothing else ends in 25");
        assert_eq!(Track::new().lookup(0), None);
    }

    #[test]
    fn the_number_before_a_wrap_is_skipped_at_a_start() {
        let mut track = Track::new();
        track.start(4);
        track.sent(0, 0xFF); // the last AFFlags is 0xFE
        track.start(5);
        assert_eq!(track.next(), (5, 0x100));
        track.sent(0xFF, 1);
        assert_eq!(track.lookup(0xFF), None, "never used");
        assert_eq!(track.lookup(0x100).map(|sent| sent.packet), Some(0xFF));
        assert_eq!(track.lookup(0xFE).map(|sent| sent.packet), Some(0xFE));
    }

    #[test]
    fn a_miscounted_wrap_is_repaired() {
        let mut track = Track::new();
        track.start(10);
        track.sent(1_000, 10_000);
        for wrong in [9_990 + 256, 9_990 + 256 * 40, (9_990u32 - 256 * 9)] {
            assert_eq!(track.lookup(wrong).map(|sent| sent.sequence & 0xFF), Some(9_990 & 0xFF), "{wrong}");
            assert!(track.lookup(wrong).unwrap().sequence > 10_000 - 257);
        }
        assert_eq!(track.lookup(9_990 - 256).map(|sent| sent.packet), Some(1_000 + 9_990 - 256), "in the window: taken as it is");
        assert_eq!(track.lookup(10_000 - 256).map(|sent| sent.packet), Some(11_000 - 256));
    }

    #[test]
    fn another_stream_makes_the_old_packets_unknown() {
        let mut track = Track::new();
        track.start(4);
        track.sent(10, 3);
        track.forget();
        assert_eq!((track.next(), track.lookup(1)), ((4, 3), None));
        track.sent(90, 1);
        assert_eq!(track.lookup(3).map(|sent| sent.packet), Some(90));
    }

    #[test]
    fn the_counter_wraps() {
        let mut track = Track { sequence: u32::MAX - 5, incarnation: 4, ..Track::new() };
        for n in 0..100 {
            track.sent(n * 10, 10);
        }
        let (_, next) = track.next();
        assert_eq!(next, 994);
        assert_eq!(track.lookup(u32::MAX).map(|sent| sent.packet), Some(5));
        assert_eq!(track.lookup(993).map(|sent| sent.packet), Some(999));
    }
}
