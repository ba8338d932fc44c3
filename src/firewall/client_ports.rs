//! Which UDP ports of the pool so many viewers need.

use crate::settings::PortRanges;

/// Lower ones are refused to players, whatever the pool says.
pub(super) const LOWEST: u16 = 1024;

/// The lowest ports of the pool in which `viewers` players find `each` ports; `None` where it has too few.
///
/// Players that take more than one port want a pair that follows each other for every two of them.
pub(super) fn lowest(pool: &PortRanges, viewers: usize, each: usize) -> Option<PortRanges> {
    let mut room = Room::default();
    let mut taken = Vec::new();
    for port in pool.iter().filter(|port| *port >= LOWEST) {
        taken.push(port..=port);
        room.add(port);
        if room.viewers(each) >= viewers {
            return PortRanges::new(taken).ok();
        }
    }
    None
}

/// How many players with `each` ports the whole pool has room for.
pub(super) fn capacity(pool: &PortRanges, each: usize) -> usize {
    let mut room = Room::default();
    pool.iter().filter(|port| *port >= LOWEST).for_each(|port| room.add(port));
    room.viewers(each)
}

/// Ports, added lowest first.
#[derive(Default)]
struct Room {
    ports: usize,
    pairs: usize,
    last: u16,
    /// Ports that followed each other up to the last one.
    run: usize,
}

impl Room {
    fn add(&mut self, port: u16) {
        self.run = if self.last.checked_add(1) == Some(port) { self.run + 1 } else { 1 };
        self.pairs += usize::from(self.run.is_multiple_of(2));
        self.ports += 1;
        self.last = port;
    }

    fn viewers(&self, each: usize) -> usize {
        let by_ports = self.ports / each.max(1);
        if each < 2 { by_ports } else { by_ports.min(self.pairs / (each / 2)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_ports_that_are_enough() {
        let lowest = |pool: &str, viewers, each| {
            lowest(&pool.parse().unwrap(), viewers, each).map(|ports| ports.to_string()).unwrap_or_default()
        };
        assert_eq!(lowest("1024-5000", 10, 1), "1024-1033");
        assert_eq!(lowest("1024-5000", 10, 3), "1024-1053");
        assert_eq!(lowest("1024-1026,7000", 4, 1), "1024-1026,7000");
        assert_eq!(lowest("1024-1026,7000", 5, 1), "");
        assert_eq!(lowest("1000-1030", 2, 1), "1024-1025", "below 1024 nothing is granted");
        // Two lone ports are no pair.
        assert_eq!(lowest("1024,1026,1028-1029", 1, 3), "1024,1026,1028-1029");
        assert_eq!(lowest("1024,1026,1028", 1, 3), "");
        assert_eq!(lowest("65533-65535", 1, 3), "65533-65535");
    }

    #[test]
    fn capacity_is_what_lowest_can_serve() {
        for pool in ["1024-1033", "1024,1026,1028-1031", "7000", "1-1023"] {
            let pool: PortRanges = pool.parse().unwrap();
            for each in 1..=4 {
                let capacity = capacity(&pool, each);
                assert!(capacity == 0 || lowest(&pool, capacity, each).is_some(), "{pool} {each}");
                assert!(lowest(&pool, capacity + 1, each).is_none(), "{pool} {each}");
            }
        }
    }
}
