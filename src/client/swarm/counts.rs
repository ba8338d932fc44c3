//! What all viewers counted together.

use std::ops::{AddAssign, Sub};

use serde::Serialize;

use crate::playing::ClientStats;

/// Sums over viewers of [`ClientStats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Media packets, those that were resent included.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets that were missing when later ones came.
    pub gaps: u64,
    /// Gaps that were filled after all.
    pub recovered: u64,
    /// Those of them that came unasked, only late.
    pub reordered: u64,
    /// Gaps given up.
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Requests for missing packets.
    pub resend_requests: u64,
    /// Data packets of an earlier play, or of a size that cannot be.
    pub stale: u64,
}

impl From<ClientStats> for Counts {
    fn from(stats: ClientStats) -> Self {
        let ClientStats { packets, bytes, gaps, resend_requests, recovered, reordered, lost, duplicates, stale } = stats;
        Self { packets, bytes, gaps, recovered, reordered, lost, duplicates, resend_requests, stale }
    }
}

impl Counts {
    /// Packets and bytes of `viewers` that got as much as `readers` that counted this; losses stay those of the readers, because
    /// one machine's sockets lose together and so tell nothing about others.
    pub(super) fn spread(self, readers: usize, viewers: usize) -> Self {
        let spread = |count: u64| {
            let all = u128::from(count) * viewers as u128 / readers.max(1) as u128;
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        Self { packets: spread(self.packets), bytes: spread(self.bytes), ..self }
    }

    /// Each figure of two, joined by `f`.
    fn join(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            packets: f(self.packets, other.packets),
            bytes: f(self.bytes, other.bytes),
            gaps: f(self.gaps, other.gaps),
            recovered: f(self.recovered, other.recovered),
            reordered: f(self.reordered, other.reordered),
            lost: f(self.lost, other.lost),
            duplicates: f(self.duplicates, other.duplicates),
            resend_requests: f(self.resend_requests, other.resend_requests),
            stale: f(self.stale, other.stale),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = self.join(other, u64::saturating_add);
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        self.join(earlier, u64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_get_alike_is_spread() {
        let counted = Counts { packets: 10, bytes: 1001, gaps: 3, lost: 2, ..Counts::default() };
        assert_eq!(counted.spread(4, 30), Counts { packets: 75, bytes: 7507, ..counted });
        assert_eq!(Counts::default().spread(0, 30), Counts::default());
    }
}
