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
    span_ms: Option<u64>,
    limit: usize,
    bytes: usize,
    end: u64,
    /// Number of the first packet of the newest generation.
    generation_begin: u64,
}

#[derive(Debug)]
struct Entry<F> {
    batch: Arc<Batch>,
    framing: F,
    /// Send time of the last packet on a clock that runs on over generations.
    clock_ms: u64,
    footprint: usize,
}

/// A place in a window: a batch, where in it, and what is cached beside it.
#[derive(Debug)]
pub struct Run<'w, F> {
    /// The batch that holds the packet.
    pub batch: &'w Arc<Batch>,
    /// Index of the packet in the batch.
    pub index: usize,
    /// The cache of framings of this batch.
    pub framing: &'w mut F,
}

impl<F: Default> Window<F> {
    /// An empty window.
    pub fn new(bounds: &WindowBounds) -> Self {
        Self {
            entries: VecDeque::new(),
            join_points: VecDeque::new(),
            span_ms: (bounds.seconds != 0).then(|| u64::from(bounds.seconds) * 1000),
            limit: if bounds.bytes == 0 { CEILING_BYTES } else { bounds.bytes },
            bytes: 0,
            end: 0,
            generation_begin: 0,
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
        let clock_ms = self.entries.back().map_or(0, |last| last.clock_ms.saturating_add(advance_ms(&last.batch, &batch)));
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

    /// The batch that holds packet `from`, with its cache; `None` outside of the window.
    pub fn run(&mut self, from: u64) -> Option<Run<'_, F>> {
        let (position, index) = self.locate(from)?;
        let entry = self.entries.get_mut(position)?;
        Some(Run { batch: &entry.batch, index, framing: &mut entry.framing })
    }

    /// The batch that holds a packet and the packet's index in it; `None` outside of the window.
    pub fn packet(&self, number: u64) -> Option<(&Arc<Batch>, usize)> {
        let (position, index) = self.locate(number)?;
        Some((&self.entries.get(position)?.batch, index))
    }

    fn locate(&self, number: u64) -> Option<(usize, usize)> {
        let position = self.entries.partition_point(|entry| entry.batch.end() <= number);
        let index = usize::try_from(number.checked_sub(self.entries.get(position)?.batch.first)?).ok()?;
        Some((position, index))
    }

    /// Drops what is older than the seconds, but nothing that a joining viewer would begin with.
    fn drop_aged(&mut self, now_ms: u64) {
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

/// Send time between the last packets of two batches, milliseconds; never negative.
// Send times of two generations do not compare, arrival times do.
fn advance_ms(earlier: &Batch, later: &Batch) -> u64 {
    if earlier.generation.number != later.generation.number {
        let elapsed = later.due.saturating_duration_since(earlier.due);
        return u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    }
    let last = |batch: &Batch| batch.packets.last().map_or(0, |packet| packet.send_time_ms);
    u64::from(last(later).saturating_sub(last(earlier)))
}
