//! Sets of stream numbers.

/// A set of ASF stream numbers, 1 to 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct StreamSet(u128);

impl StreamSet {
    /// The set without a stream.
    pub const EMPTY: Self = Self(0);

    /// Adds a stream; numbers over 127 and 0 are passed over.
    pub const fn insert(&mut self, stream: u8) {
        if stream >= 1 && stream <= 127 {
            self.0 |= 1 << stream;
        }
    }

    /// Takes a stream out.
    pub const fn remove(&mut self, stream: u8) {
        if stream <= 127 {
            self.0 &= !(1 << stream);
        }
    }

    /// The streams of both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The streams that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The streams that are not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every stream of the other is in this one too.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether a stream is in the set.
    pub const fn contains(self, stream: u8) -> bool {
        stream <= 127 && self.0 & (1 << stream) != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a stream is in both sets.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// How many streams there are.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The numbers, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=127).filter(move |stream| self.contains(*stream))
    }
}

impl FromIterator<u8> for StreamSet {
    fn from_iter<I: IntoIterator<Item = u8>>(streams: I) -> Self {
        let mut set = Self::EMPTY;
        streams.into_iter().for_each(|stream| set.insert(stream));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_one_to_127() {
        let set: StreamSet = [0, 1, 127, 128, 255].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [1, 127]);
        let mut less = set;
        less.remove(127);
        less.remove(200);
        assert_eq!(less.iter().collect::<Vec<_>>(), [1]);
        assert_eq!((set.difference(less), set.intersection(less)), ([127].into_iter().collect(), less));
        assert!(less.union(set.difference(less)) == set && set.covers(less) && !less.covers(set));
        assert!(!set.contains(0) && !set.contains(128) && set.intersects([127].into_iter().collect()));
    }
}
