//! How many open files the system allows, and whom they are for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::{Settings, Source};
use crate::shard::MOST_UNDECIDED;

/// Descriptors of our own: standard streams, the runtimes of the threads at the door and beside it, listeners, a look at the metrics.
const OWN: u64 = 64;
/// Of each shard: its runtime's, with some to spare.
const PER_SHARD: u64 = 6;
/// Of each publishing point: a publisher and the one that takes its place, or a file, or the pipes of a child and their
/// other ends while it starts.
const PER_POINT: u64 = 8;
/// Of each thread that reads files, while it looks for one: the root, two folders below it, the file.
const PER_READER: u64 = 4;
/// A file on demand is opened once for all its viewers, but each may play another one.
const PER_FILE: u64 = 1;
/// What is relayed from another server's folder goes to each viewer by itself: a connection there, and a port for datagrams.
const PER_RELAYED: u64 = 2;
/// What TLS is around goes to its viewer by way of a local connection.
const PER_TLS: u64 = 2;

/// The limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    limit: u64,
}

impl Descriptors {
    /// Asks for all that the system allows: each viewer takes one, and often another for what it plays.
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

    /// Viewers that find their descriptors whatever waits at the door.
    fn viewers(self, reserve: u64, per_viewer: u64) -> u64 {
        let at_door = u64::try_from(self.at_door()).unwrap_or(u64::MAX);
        self.limit.saturating_sub(at_door).saturating_sub(reserve) / per_viewer
    }

    /// What to tell at the start: the settings promise more than the limit holds.
    pub(super) fn shortage(self, settings: &Settings) -> Option<String> {
        let all = |count: usize, each: u64| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(each);
        let points = settings.publishing_points_or_demo();
        let files = points.iter().any(|point| matches!(point.source, Source::Files { .. }));
        let relayed = points.iter().any(|point| matches!(point.source, Source::Pull { .. }) && point.source.is_folder());
        let readers = if files { settings.on_demand.readers } else { 0 };
        let of_tls = match settings.limits.tls_connections {
            _ if settings.rtsp_tls.listen.addresses.is_empty() => 0,
            0 => u64::from(settings.limits.viewers),
            most => u64::from(most),
        };
        let reserve = OWN
            .saturating_add(of_tls.saturating_mul(PER_TLS))
            .saturating_add(all(points.len(), PER_POINT))
            .saturating_add(all(settings.shards, PER_SHARD))
            .saturating_add(all(readers, PER_READER));
        let per_viewer = match (relayed, files) {
            (true, _) => 1 + PER_RELAYED,
            (false, true) => 1 + PER_FILE,
            (false, false) => 1,
        };
        // Without a limit on viewers one at least must fit.
        let wanted = u64::from(settings.limits.viewers).max(1);
        let room = self.viewers(reserve, per_viewer);
        if room >= wanted {
            return None;
        }
        let enough = wanted.saturating_mul(per_viewer).saturating_add(reserve).saturating_mul(4).div_ceil(3);
        let promised = match settings.limits.viewers {
            0 => String::new(),
            viewers => format!(" where limits.viewers promises {viewers}"),
        };
        let each = match (relayed, files) {
            (true, _) => " if each plays another name of another server",
            (false, true) => " if each plays another file",
            (false, false) => "",
        };
        Some(format!(
            "{} open files are too few: {room} viewers fit{each}{promised}; set LimitNOFILE={enough} in the systemd unit, or raise ulimit -Hn",
            self.limit
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{PublishingPoint, Start};

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
    fn what_viewers_play_takes_descriptors_too() {
        let with = |viewers: u32, source: Source| {
            let mut settings = settings(viewers);
            settings.on_demand.readers = 3;
            settings.publishing_points = vec![PublishingPoint::new("a", source)];
            settings
        };
        let files = |viewers| with(viewers, Source::Files { root: "/srv".into() });
        let pull =
            |viewers, url: &str| with(viewers, Source::Pull { url: url.into(), start: Start::Watched, linger: Duration::ZERO });
        let descriptors = Descriptors { limit: 1024 };
        // 684 as above, less 4 for each of 3 readers; two for each viewer.
        assert_eq!(descriptors.shortage(&files(336)), None);
        let told = descriptors.shortage(&files(337)).unwrap();
        assert!(told.contains("336 viewers fit if each plays another file where limits.viewers promises 337"), "{told}");
        // Three for each viewer, no reader.
        assert_eq!(descriptors.shortage(&pull(228, "mms://upstream/")), None);
        assert!(descriptors.shortage(&pull(229, "mms://upstream/")).is_some());
        assert_eq!(descriptors.shortage(&pull(684, "mms://upstream/one")), None, "one for all");
        for settings in [files(15_000), pull(15_000, "mms://upstream/")] {
            let told = descriptors.shortage(&settings).unwrap();
            let digits = told.split_once("LimitNOFILE=").unwrap().1.split_once(' ').unwrap().0;
            assert_eq!(Descriptors { limit: digits.parse().unwrap() }.shortage(&settings), None, "{told}");
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
