//! The broadcasts of a shard by their numbers: those of publishing points, and the cuts of these, which have numbers of their own.

use super::broadcast::Broadcast;

/// Cuts are numbered from here: far above any publishing point.
const FIRST_CUT: usize = 1 << 31;

/// What a shard sends, by channel. Publishing points come while the daemon runs, and must not meet a cut under their number.
#[derive(Default)]
pub(super) struct Channels {
    points: Vec<Broadcast>,
    cuts: Vec<Broadcast>,
}

impl Channels {
    pub(super) fn get(&self, channel: usize) -> Option<&Broadcast> {
        match channel.checked_sub(FIRST_CUT) {
            None => self.points.get(channel),
            Some(cut) => self.cuts.get(cut),
        }
    }

    pub(super) fn get_mut(&mut self, channel: usize) -> Option<&mut Broadcast> {
        match channel.checked_sub(FIRST_CUT) {
            None => self.points.get_mut(channel),
            Some(cut) => self.cuts.get_mut(cut),
        }
    }

    /// All broadcasts.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Broadcast> {
        self.points.iter().chain(&self.cuts)
    }

    /// All broadcasts with their channels.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Broadcast)> {
        self.points.iter_mut().enumerate().chain((FIRST_CUT..).zip(&mut self.cuts))
    }

    /// Those of publishing points, by their numbers.
    pub(super) fn of_points(&self) -> impl Iterator<Item = (u32, &Broadcast)> {
        (0..).zip(&self.points)
    }

    /// The channels of all cuts.
    pub(super) fn cuts(&self) -> impl Iterator<Item = usize> + use<> {
        (FIRST_CUT..).take(self.cuts.len())
    }

    /// Makes those of publishing points up to this one, where there are none yet.
    pub(super) fn reach(&mut self, channel: usize, new: impl FnMut() -> Broadcast) {
        if channel < FIRST_CUT && channel >= self.points.len() {
            self.points.resize_with(channel + 1, new);
        }
    }

    /// The channel of a new cut: a place that is free, or one behind all.
    pub(super) fn add_cut(&mut self, cut: Broadcast) -> usize {
        let index = self.cuts.iter().position(|cut| cut.is_free).unwrap_or(self.cuts.len());
        match self.cuts.get_mut(index) {
            Some(place) => *place = cut,
            None => self.cuts.push(cut),
        }
        FIRST_CUT + index
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.points.len() + self.cuts.len()
    }
}

#[cfg(test)]
impl std::ops::Index<usize> for Channels {
    type Output = Broadcast;

    fn index(&self, channel: usize) -> &Broadcast {
        self.get(channel).unwrap()
    }
}

#[cfg(test)]
impl std::ops::IndexMut<usize> for Channels {
    fn index_mut(&mut self, channel: usize) -> &mut Broadcast {
        self.get_mut(channel).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn new() -> Broadcast {
        Broadcast::new(&Settings::default().window)
    }

    #[test]
    fn publishing_points_that_come_meet_no_cut() {
        let mut channels = Channels::default();
        channels.reach(0, new);
        let (one, two) = (channels.add_cut(new()), channels.add_cut(new()));
        channels.reach(2, new);
        channels.reach(1, new);
        channels.reach(one, new);
        assert_eq!((channels.len(), channels.of_points().count()), (5, 3));
        assert_eq!(channels.iter_mut().map(|(channel, _)| channel).collect::<Vec<_>>(), [0, 1, 2, one, two]);
        channels[one].is_free = true;
        assert_eq!((channels.add_cut(new()), channels.len()), (one, 5), "places are used again");
        assert!(channels.get(3).is_none() && channels.cuts().eq([one, two]));
    }
}
