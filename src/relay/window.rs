//! The last seconds of a stream, from which join bursts, slow viewers and resends are served.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use crate::settings::WindowBounds;

/// What a window may hold where the settings name no bound: memory is never without one.
const CEILING_BYTES: usize = 256 << 20;

/// The newest batches of one publishing point, as one shard keeps them.
///
/// `F` is what the shard caches beside each batch: packets wrapped in the framings that its viewers use.
/// Packet numbers from [`begin`](Self::begin) to [`end`](Self::end) are all there; a viewer is a cursor
/// between the two.
///
/// Bounds: older batches go when they are further back than `seconds` of send time, except that the window
/// reaches back to the newest join point as long as `bytes` allows. The bytes of packets and what is kept
/// beside them never exceed `bytes`; framings come on top. A bound of 0 is none, but for a ceiling of 256 MiB.
#[derive(Debug)]
pub struct Window<F> {
    entries: VecDeque<Entry<F>>,
    /// Numbers of the packets that start a key frame, oldest first.
    join_points: VecDeque<u64>,
    span_ms: Option<i64>,
    limit: usize,
    bytes: usize,
    end: u64,
    /// Number of the first packet of the newest generation.
    generation_begin: u64,
    /// What turns send times of the newest generation into clock times.
    clock_offset_ms: i64,
}

#[derive(Debug)]
struct Entry<F> {
    batch: Arc<Batch>,
    framing: F,
    /// Send time of the last packet on a clock that runs on over generations.
    clock_ms: i64,
    footprint: usize,
}

/// A place in a window: a batch, and where in it. It holds until the next [`Window::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Which batch, counted from the oldest; the batch after it is one more.
    pub batch: usize,
    /// Index of the packet in the batch.
    pub packet: usize,
}

impl<F: Default> Window<F> {
    /// An empty window.
    pub fn new(bounds: &WindowBounds) -> Self {
        Self {
            entries: VecDeque::new(),
            join_points: VecDeque::new(),
            span_ms: (bounds.seconds != 0).then(|| i64::from(bounds.seconds) * 1000),
            limit: if bounds.bytes == 0 { CEILING_BYTES } else { bounds.bytes },
            bytes: 0,
            end: 0,
            generation_begin: 0,
            clock_offset_ms: 0,
        }
    }

    /// Appends a batch and lets go of what is out of bounds.
    ///
    /// A batch that does not follow the last one empties the window first; one that overlaps it is passed over.
    /// A batch that is larger than the byte bound by itself is not kept: the window is then empty behind it.
    pub fn push(&mut self, batch: Arc<Batch>) {
        if batch.packets.is_empty() || batch.first < self.end {
            return;
        }
        if batch.first != self.end {
            self.clear();
        }
        let clock_ms = self.clock(&batch);
        if self.entries.back().is_none_or(|last| last.batch.generation.number != batch.generation.number) {
            self.generation_begin = batch.first;
        }
        self.end = batch.end();
        let footprint = batch.footprint() + size_of::<Entry<F>>() + size_of::<u64>() * batch.packets.len();
        if footprint > self.limit {
            self.clear();
            return;
        }
        while self.bytes > self.limit - footprint {
            self.drop_oldest();
        }
        let joins = batch.numbers().zip(&batch.packets).filter(|(_, packet)| packet.join_point);
        self.join_points.extend(joins.map(|(number, _)| number));
        self.bytes += footprint;
        self.entries.push_back(Entry { batch, framing: F::default(), clock_ms, footprint });
        self.drop_aged(clock_ms);
    }

    /// Lets go of everything; numbers run on.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.join_points.clear();
        self.bytes = 0;
    }

    /// Number of the oldest packet; equal to [`end`](Self::end) when the window is empty.
    pub fn begin(&self) -> u64 {
        self.entries.front().map_or(self.end, |entry| entry.batch.first)
    }

    /// Number of the packet that comes next.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory held, bytes: packets and what is kept beside them, without framings.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a new viewer begins: the newest join point of the newest generation.
    pub fn join_point(&self) -> Option<u64> {
        self.join_points.back().copied().filter(|number| *number >= self.generation_begin)
    }

    /// The first join point at `from` or after it: where a viewer goes on that fell out of the window or skips.
    pub fn next_join_point(&self, from: u64) -> Option<u64> {
        self.join_points.get(self.join_points.partition_point(|number| *number < from)).copied()
    }

    /// The first packet whose number in the source is this or a higher one; the end where all are lower.
    pub fn at_source(&self, source: u64) -> u64 {
        let before = |entry: &Entry<F>| entry.batch.packets.last().is_none_or(|last| last.number < source);
        let Some(entry) = self.entries.get(self.entries.partition_point(before)) else { return self.end };
        entry.batch.first + entry.batch.packets.partition_point(|packet| packet.number < source) as u64
    }

    /// Where a packet is; `None` outside of the window.
    pub fn locate(&self, number: u64) -> Option<Spot> {
        // Nearly everybody asks for what came last.
        let last = self.entries.len().checked_sub(1)?;
        let batch = match self.entries.get(last) {
            Some(entry) if entry.batch.first <= number && number < entry.batch.end() => last,
            _ => self.entries.partition_point(|entry| entry.batch.end() <= number),
        };
        let packet = usize::try_from(number.checked_sub(self.entries.get(batch)?.batch.first)?).ok()?;
        Some(Spot { batch, packet })
    }

    /// A batch and what is cached beside it, by [`Spot::batch`].
    pub fn batch(&self, index: usize) -> Option<(&Arc<Batch>, &F)> {
        self.entries.get(index).map(|entry| (&entry.batch, &entry.framing))
    }

    /// The same, to change what is cached.
    pub fn batch_mut(&mut self, index: usize) -> Option<(&Arc<Batch>, &mut F)> {
        self.entries.get_mut(index).map(|entry| (&entry.batch, &mut entry.framing))
    }

    /// The batch that holds a packet and the packet's index in it; `None` outside of the window.
    pub fn packet(&self, number: u64) -> Option<(&Arc<Batch>, usize)> {
        let spot = self.locate(number)?;
        Some((&self.entries.get(spot.batch)?.batch, spot.packet))
    }

    /// The time of a batch's last packet on a clock that never steps back.
    fn clock(&mut self, batch: &Batch) -> i64 {
        let send_time_ms = batch.packets.last().map_or(0, |packet| i64::from(packet.send_time_ms));
        let Some(last) = self.entries.back() else {
            self.clock_offset_ms = 0;
            return send_time_ms;
        };
        if last.batch.generation.number != batch.generation.number {
            // Send times of two generations do not compare, arrival times do.
            let elapsed = batch.due.saturating_duration_since(last.batch.due);
            let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::from(u32::MAX));
            self.clock_offset_ms = last.clock_ms + elapsed_ms - send_time_ms;
        }
        last.clock_ms.max(self.clock_offset_ms + send_time_ms)
    }

    /// Drops what is older than the seconds, but nothing that a joining viewer would begin with.
    fn drop_aged(&mut self, now_ms: i64) {
        let (Some(span_ms), join) = (self.span_ms, self.join_point()) else { return };
        while let Some(oldest) = self.entries.front() {
            let needed = join.is_some_and(|join| join < oldest.batch.end());
            if needed || now_ms - oldest.clock_ms <= span_ms {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= entry.footprint;
        while self.join_points.front().is_some_and(|number| *number < entry.batch.end()) {
            self.join_points.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::testing::{at, base, batch, generation};
    use proptest::prelude::*;
    use std::ops::Range;
    use std::time::Instant;

    fn window(seconds: u32, bytes: usize) -> Window<u32> {
        Window::new(&WindowBounds { seconds, bytes })
    }

    /// What one packet in a batch of its own costs.
    fn cost() -> usize {
        let mut window = window(0, 0);
        window.push(batch(&generation(0), 0, base(), &[(0, false)]));
        window.bytes()
    }

    /// Packets of 100 ms each, one a batch; numbers and join points as given.
    fn push(window: &mut Window<u32>, numbers: Range<u64>, joins: &[u64]) {
        push_from(base(), window, numbers, joins);
    }

    fn push_from(base: Instant, window: &mut Window<u32>, numbers: Range<u64>, joins: &[u64]) {
        let generation = generation(0);
        for number in numbers {
            let send_time_ms = u32::try_from(number * 100).unwrap();
            window.push(batch(&generation, number, at(base, number * 100), &[(send_time_ms, joins.contains(&number))]));
        }
    }

    #[test]
    fn finds_packets_in_their_batches() {
        let mut window = window(0, 0);
        assert!(window.is_empty() && window.locate(0).is_none() && window.join_point().is_none());
        window.push(batch(&generation(0), 5, base(), &[(0, true), (0, false), (0, false)]));
        window.push(batch(&generation(0), 8, base(), &[(10, false), (10, true)]));
        assert_eq!((window.begin(), window.end()), (5, 10));
        for number in 5..10 {
            let (batch, index) = window.packet(number).unwrap();
            assert_eq!(batch.first + index as u64, number);
            assert_eq!(batch.packet(index).unwrap()[0], number.to_le_bytes()[0]);
        }
        assert!(window.packet(4).is_none() && window.packet(10).is_none() && window.packet(u64::MAX).is_none());
        let batch_of = |number| window.locate(number).unwrap().batch;
        let (eight, nine, seven) = (batch_of(8), batch_of(9), batch_of(7));
        *window.batch_mut(nine).unwrap().1 = 77;
        assert_eq!(*window.batch(eight).unwrap().1, 77, "one cache a batch");
        assert_eq!(*window.batch(seven).unwrap().1, 0);
    }

    #[test]
    fn viewers_join_at_the_newest_key_frame_and_go_on_at_the_next() {
        let mut window = window(0, 0);
        push(&mut window, 0..30, &[3, 12, 21]);
        assert_eq!(window.join_point(), Some(21));
        let next = [0, 3, 4, 12, 13, 21, 22].map(|from| window.next_join_point(from));
        assert_eq!(next, [Some(3), Some(3), Some(12), Some(12), Some(21), Some(21), None]);
    }

    #[test]
    fn keeps_the_seconds() {
        let mut window = window(2, 0);
        push(&mut window, 0..100, &(0..100).collect::<Vec<_>>());
        assert_eq!((window.begin(), window.end()), (79, 100));
        assert_eq!(window.next_join_point(0), Some(79), "join points leave with their packets");
    }

    #[test]
    fn keeps_the_newest_join_point_longer_than_the_seconds() {
        let mut window = window(2, 0);
        push(&mut window, 0..100, &[10]);
        assert_eq!((window.begin(), window.join_point()), (10, Some(10)));
        push(&mut window, 100..101, &[100]);
        assert_eq!(window.begin(), 80);
    }

    #[test]
    fn bytes_win_over_the_join_point() {
        let mut window = window(20, cost() * 10);
        push(&mut window, 0..10, &[2]);
        assert_eq!((window.begin(), window.bytes()), (0, cost() * 10));
        push(&mut window, 10..50, &[]);
        assert_eq!((window.begin(), window.bytes()), (40, cost() * 10));
        assert_eq!((window.join_point(), window.next_join_point(0)), (None, None));
    }

    #[test]
    fn a_batch_beyond_the_bound_is_not_kept() {
        let mut window = window(20, cost() * 2);
        push(&mut window, 0..2, &[0]);
        let huge: Vec<_> = (0..50).map(|ms| (ms, true)).collect();
        window.push(batch(&generation(0), 2, base(), &huge));
        assert_eq!((window.begin(), window.end(), window.bytes()), (52, 52, 0));
        assert!(window.packet(10).is_none() && window.join_point().is_none());
        push(&mut window, 52..53, &[52]);
        assert_eq!((window.begin(), window.end(), window.join_point()), (52, 53, Some(52)));
    }

    #[test]
    fn a_gap_in_the_numbers_empties_and_an_overlap_is_passed_over() {
        let mut window = window(20, 0);
        push(&mut window, 0..10, &[0]);
        push(&mut window, 5..8, &[5, 6, 7]);
        assert_eq!((window.begin(), window.end(), window.join_point()), (0, 10, Some(0)));
        push(&mut window, 12..14, &[]);
        assert_eq!((window.begin(), window.end(), window.join_point()), (12, 14, None));
        assert!(window.packet(10).is_none() && window.packet(11).is_none());
    }

    #[test]
    fn a_new_generation_starts_over_with_join_points_and_times() {
        let (base, mut window) = (base(), window(2, 0));
        push_from(base, &mut window, 0..30, &[25]);
        let next = generation(1);
        window.push(batch(&next, 30, at(base, 3000), &[(0, false)]));
        assert_eq!(window.join_point(), None, "a new viewer has the new header");
        assert_eq!(window.next_join_point(0), Some(25), "an old one may still go on");
        window.push(batch(&next, 31, at(base, 3100), &[(100, true)]));
        assert_eq!((window.begin(), window.join_point()), (11, Some(31)));
        window.push(batch(&next, 32, at(base, 5200), &[(2200, false)]));
        assert_eq!(window.begin(), 31, "the join point is 2.1 s old, what is before it older still");
        assert_eq!(window.packet(31).unwrap().0.generation.number, 1);
    }

    #[test]
    fn send_times_that_step_back_drop_nothing() {
        let (base, generation, mut window) = (base(), generation(0), window(1, 0));
        for (number, send_time_ms) in (0..).zip([1000, 400, 1000, 1500]) {
            window.push(batch(&generation, number, base, &[(send_time_ms, true)]));
        }
        assert_eq!((window.begin(), window.end()), (0, 4));
    }

    proptest! {
        #[test]
        fn never_over_the_bytes_and_never_a_hole(
            seconds in 0_u32..5, packets_of_bytes in 1_usize..60,
            pushes in prop::collection::vec((prop::collection::vec((0_u32..700, prop::bool::weighted(0.1)), 0..40), 0_u64..20), 0..80),
        ) {
            let (base, limit, mut window) = (base(), packets_of_bytes * cost(), window(seconds, packets_of_bytes * cost()));
            let (mut number, mut send_time, mut joins) = (0, 0, Vec::new());
            let mut newest = 0;
            for (packets, step) in pushes {
                let number_of_generation = u32::try_from(step / 18).unwrap();
                if number_of_generation == 1 && !packets.is_empty() {
                    newest += 1;
                    joins.clear();
                }
                let packets: Vec<_> = packets.into_iter().map(|(ms, join)| { send_time += ms; (send_time, join) }).collect();
                let batch = batch(&generation(newest), number, at(base, send_time.into()), &packets);
                joins.extend(batch.numbers().zip(&packets).filter(|(_, packet)| packet.1).map(|(number, _)| number));
                number = batch.end();
                window.push(batch);
                prop_assert!(window.bytes() <= limit);
                prop_assert_eq!(window.end(), number);
                for inside in window.begin()..window.end() {
                    let (batch, index) = window.packet(inside).unwrap();
                    prop_assert_eq!(batch.first + index as u64, inside);
                }
                if window.generation_begin < number && !window.is_empty() {
                    let inside: Vec<u64> = joins.iter().copied().filter(|join| *join >= window.begin()).collect();
                    prop_assert_eq!(window.join_point(), inside.last().copied());
                }
            }
        }
    }
}
