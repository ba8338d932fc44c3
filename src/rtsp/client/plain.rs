//! RTP that is counted, not understood: of servers whose streams are no ASF.

use std::collections::BTreeMap;

/// Most flows that are told apart; a session has 16 streams at most.
const MOST_FLOWS: usize = 32;
/// Numbers that are skipped at once beyond which it is another count.
const MAX_AHEAD: u16 = 1024;

/// What a packet says about those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// So many were skipped.
    pub(super) missing: u16,
    /// It had been skipped.
    pub(super) is_late: bool,
}

/// The flows of a session: by channel, or by SSRC, and the number expected next.
#[derive(Debug, Default)]
pub(super) struct Flows {
    next: BTreeMap<u64, u16>,
    missing: u64,
}

impl Flows {
    /// Numbers may begin anywhere.
    pub(super) fn restart(&mut self) {
        self.next.clear();
    }

    /// Packets that were skipped and did not come late; they are forgotten.
    pub(super) fn missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }

    /// Counts a packet; `None`: it belongs to no flow that there is room for.
    pub(super) fn count(&mut self, channel: Option<u8>, ssrc: u32, sequence: u16) -> Option<Counted> {
        let key = channel.map_or(u64::from(ssrc), |channel| u64::from(channel) | 1 << 32);
        if self.next.len() >= MOST_FLOWS && !self.next.contains_key(&key) {
            return None;
        }
        let next = self.next.entry(key).or_insert(sequence);
        let (ahead, behind) = (sequence.wrapping_sub(*next), next.wrapping_sub(sequence));
        if ahead <= MAX_AHEAD {
            *next = sequence.wrapping_add(1);
            self.missing += u64::from(ahead);
            return Some(Counted { missing: ahead, is_late: false });
        }
        if behind <= MAX_AHEAD {
            let is_late = self.missing > 0;
            self.missing -= u64::from(is_late);
            return Some(Counted { missing: 0, is_late });
        }
        *next = sequence.wrapping_add(1);
        Some(Counted { missing: 0, is_late: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_each_flow() {
        let mut flows = Flows::default();
        let mut count =
            |channel, ssrc, sequence| flows.count(channel, ssrc, sequence).map(|counted| (counted.missing, counted.is_late));
        assert_eq!(count(Some(0), 7, 0xFFFF), Some((0, false)));
        assert_eq!(count(Some(2), 7, 500), Some((0, false)), "another channel");
        assert_eq!(count(Some(0), 7, 2), Some((2, false)));
        assert_eq!(count(Some(0), 7, 1), Some((0, true)));
        assert_eq!(count(None, 7, 90), Some((0, false)), "a datagram");
        assert_eq!(count(None, 8, 5), Some((0, false)));
        assert_eq!(count(Some(0), 7, 30_000), Some((0, false)), "another count");
        assert_eq!(count(Some(0), 7, 30_001), Some((0, false)));
        for ssrc in 100..200 {
            count(None, ssrc, 1);
        }
        assert_eq!(count(None, 201, 1), None);
        assert_eq!((flows.missing(), flows.missing()), (1, 0));
    }
}
