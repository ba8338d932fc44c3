//! How many open files the system allows, and whom they are for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::Settings;
use crate::shard::MOST_UNDECIDED;

/// Descriptors of our own: standard streams, the runtimes of the threads at the door and beside it, listeners, a look at the metrics.
const OWN: u64 = 64;
/// Of each shard: its runtime's, with some to spare.
const PER_SHARD: u64 = 6;
/// Of each publishing point: a publisher and the one that takes its place, or a file, or the pipes of a child and their
/// other ends while it starts.
const PER_POINT: u64 = 8;

/// The limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    limit: u64,
}

impl Descriptors {
    /// Asks for all that the system allows: each viewer takes one.
    pub(super) fn raise() -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let highest = Rlimit { current: limit.maximum, ..limit };
            match setrlimit(Resource::Nofile, highest) {
                Ok(()) => limit = highest,
                Err(error) => tracing::warn!(%error, "the limit on open files stays low"),
            }
        }
        Self { limit: limit.current.unwrap_or(u64::MAX) }
    }

    /// Connections that may wait at the door without a word: a quarter, so that they cannot keep viewers out.
    pub(super) fn at_door(self) -> usize {
        usize::try_from(self.limit / 4).unwrap_or(usize::MAX).clamp(1, MOST_UNDECIDED)
    }

    /// Viewers that find a descriptor whatever waits at the door.
    fn viewers(self, reserve: u64) -> u64 {
        let at_door = u64::try_from(self.at_door()).unwrap_or(u64::MAX);
        self.limit.saturating_sub(at_door).saturating_sub(reserve)
    }

    /// What to tell at the start: the settings promise more than the limit holds.
    pub(super) fn shortage(self, settings: &Settings) -> Option<String> {
        let points = u64::try_from(settings.publishing_points_or_demo().len()).unwrap_or(u64::MAX);
        let shards = u64::try_from(settings.shards).unwrap_or(u64::MAX);
        let reserve = OWN.saturating_add(PER_POINT.saturating_mul(points)).saturating_add(PER_SHARD.saturating_mul(shards));
        // Without a limit on viewers one at least must fit.
        let wanted = u64::from(settings.limits.viewers).max(1);
        let room = self.viewers(reserve);
        if room >= wanted {
            return None;
        }
        let enough = wanted.saturating_add(reserve).saturating_mul(4).div_ceil(3);
        let promised = match settings.limits.viewers {
            0 => String::new(),
            viewers => format!(" where limits.viewers promises {viewers}"),
        };
        Some(format!(
            "{} open files are too few: {room} viewers fit{promised}; set LimitNOFILE={enough} in the systemd unit, or raise ulimit -Hn",
            self.limit
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(viewers: u32) -> Settings {
        let mut settings = Settings::default();
        settings.limits.viewers = viewers;
        settings.shards = 2;
        settings
    }

    #[test]
    fn viewers_that_do_not_fit_are_told_with_a_limit_that_is_enough() {
        let descriptors = Descriptors { limit: 1024 };
        assert_eq!(descriptors.at_door(), 256);
        // 1024 less a quarter, less 64, 8 for the one publishing point and 6 for each of 2 shards.
        assert_eq!(descriptors.shortage(&settings(684)), None);
        let told = descriptors.shortage(&settings(685)).unwrap();
        assert!(
            told.starts_with("1024 open files") && told.contains("684 viewers fit") && told.contains("promises 685"),
            "{told}"
        );

        for viewers in [685, 686, 687, 15_000, 110_000, u32::MAX] {
            let told = descriptors.shortage(&settings(viewers)).unwrap();
            let digits = told.split_once("LimitNOFILE=").unwrap().1.split_once(' ').unwrap().0;
            let enough = Descriptors { limit: digits.parse().unwrap() };
            assert_eq!(enough.shortage(&settings(viewers)), None, "{told}");
        }
    }

    #[test]
    fn without_a_limit_on_viewers_only_a_hopeless_limit_is_told() {
        assert_eq!(Descriptors { limit: 256 }.shortage(&settings(0)), None);
        let told = Descriptors { limit: 64 }.shortage(&settings(0)).unwrap();
        assert!(told.contains("0 viewers fit;"), "{told}");
        assert_eq!(Descriptors { limit: u64::MAX }.shortage(&settings(u32::MAX)), None);
        assert_eq!(Descriptors { limit: 0 }.at_door(), 1);
    }
}
