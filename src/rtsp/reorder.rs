//! RTP packets put into the order in which they were sent, for those that come as datagrams.

use std::time::{Duration, Instant};

/// Most packets that wait for one before them.
const MOST: usize = 32;
/// Longest time that one waits; it is looked at when the next comes.
const LONGEST: Duration = Duration::from_millis(100);
/// Sequence numbers that are so far ahead are rather late ones.
const LATE: u16 = 0x8000;

/// What waits of one flow.
#[derive(Debug, Default)]
pub struct Reorder {
    next: Option<u16>,
    held: Vec<(u16, Instant, Vec<u8>)>,
}

impl Reorder {
    /// Takes a packet and hands over, in order, those that wait for nothing any more. What is no RTP packet, or comes too late, is
    /// handed over at once: whoever reads it counts it.
    pub fn push(&mut self, now: Instant, rtp: &[u8], mut give: impl FnMut(&[u8])) {
        let Some(&[n1, n0]) = rtp.get(2..4).and_then(|bytes| bytes.first_chunk()) else { return give(rtp) };
        let sequence = u16::from_be_bytes([n1, n0]);
        let next = *self.next.get_or_insert(sequence);
        match sequence.wrapping_sub(next) {
            0 => {
                give(rtp);
                self.next = Some(next.wrapping_add(1));
            }
            LATE.. => give(rtp),
            _ if self.held.iter().any(|(held, ..)| *held == sequence) => {}
            _ => self.held.push((sequence, now, rtp.to_vec())),
        }
        while let Some((at, sequence)) = self.first() {
            let waits_too_long = self.held.iter().any(|(_, since, _)| now.saturating_duration_since(*since) > LONGEST);
            if self.next != Some(sequence) && self.held.len() <= MOST && !waits_too_long {
                return;
            }
            let (_, _, rtp) = self.held.swap_remove(at);
            give(&rtp);
            self.next = Some(sequence.wrapping_add(1));
        }
    }

    /// Another flow begins: nothing of this one is of use.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// The one to come next of those that wait.
    fn first(&self) -> Option<(usize, u16)> {
        let next = self.next?;
        let places = self.held.iter().enumerate().map(|(at, (sequence, ..))| (at, *sequence));
        places.min_by_key(|(_, sequence)| sequence.wrapping_sub(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rtp(sequence: u16) -> Vec<u8> {
        let [n1, n0] = sequence.to_be_bytes();
        vec![0x80, 96, n1, n0]
    }

    fn order(reorder: &mut Reorder, now: Instant, sequences: &[u16]) -> Vec<u16> {
        let mut out = Vec::new();
        for sequence in sequences {
            reorder.push(now, &rtp(*sequence), |rtp| out.push(u16::from_be_bytes([rtp[2], rtp[3]])));
        }
        out
    }

    #[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn neighbours_are_exchanged_back() {
        let now = base();
        let mut reorder = Reorder::default();
        assert_eq!(
            order(&mut reorder, now, &[0xFFFE, 0, 0xFFFF, 1, 3, 3, 2, 4]),
            [0xFFFE, 0xFFFF, 0, 1, 2, 3, 4],
            "over the wrap, and twins once"
        );
        assert_eq!(order(&mut reorder, now, &[2]), [2], "who is late is told of");
    }

    #[test]
    fn what_never_comes_is_not_waited_for_long() {
        let now = base();
        let mut reorder = Reorder::default();
        assert_eq!(order(&mut reorder, now, &[1, 3, 4]), [1]);
        assert_eq!(order(&mut reorder, now + LONGEST * 2, &[5]), [3, 4, 5]);
        let many: Vec<u16> = (7..7 + 33).collect();
        assert_eq!(order(&mut reorder, now + LONGEST * 2, &many), many);
        reorder.restart();
        assert_eq!(order(&mut reorder, now, &[9]), [9]);
    }

    proptest! {
        #[test]
        fn any_order_loses_nothing_but_twins(sequences in prop::collection::vec(any::<u16>(), 0..80), bytes in prop::collection::vec(any::<u8>(), 0..6)) {
            let now = base();
            let mut reorder = Reorder::default();
            let mut out = order(&mut reorder, now, &sequences);
            out.extend(reorder.held.iter().map(|(sequence, ..)| *sequence));
            prop_assert!(reorder.held.len() <= MOST);
            prop_assert!(out.len() <= sequences.len());
            for sequence in &sequences {
                prop_assert!(out.contains(sequence));
            }
            reorder.push(now, &bytes, |_| {});
        }
    }
}
