//! Packets of UDP in their order again.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What waits at most for a gap to be filled, bytes; a missing packet is given up after a second.
const MOST_BYTES: usize = 4 << 20;

/// Holds packets back until all before them have come or are given up; 4 MiB at most, of what is more the oldest go.
#[derive(Debug, Default)]
pub struct Order {
    /// By numbers that do not wrap.
    waiting: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// Lower numbers come too late.
    next: u64,
}

impl Order {
    /// A packet came, and all numbers below `settled` have come or will not; `out` gets the packets whose turn it is.
    pub fn packet(&mut self, sequence: u32, packet: Bytes, settled: u32, out: &mut dyn FnMut(Bytes)) {
        let number = self.widened(sequence);
        if number >= self.next {
            self.bytes += packet.len();
            self.waiting.insert(number, packet);
        }
        self.settle(settled, out);
        while self.bytes > MOST_BYTES {
            self.release(out);
        }
    }

    /// All numbers below have come or will not.
    pub fn settle(&mut self, below: u32, out: &mut dyn FnMut(Bytes)) {
        let below = self.widened(below);
        while self.waiting.first_key_value().is_some_and(|(number, _)| *number < below) {
            self.release(out);
        }
        self.next = self.next.max(below);
    }

    /// Nothing that is missing will come.
    pub fn flush(&mut self, out: &mut dyn FnMut(Bytes)) {
        while !self.waiting.is_empty() {
            self.release(out);
        }
    }

    /// A sequence number, which wraps, among those about the next one.
    fn widened(&self, sequence: u32) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are the low half")]
        let ahead = sequence.wrapping_sub(self.next as u32).cast_signed();
        self.next.saturating_add_signed(ahead.into())
    }

    fn release(&mut self, out: &mut dyn FnMut(Bytes)) {
        if let Some((number, packet)) = self.waiting.pop_first() {
            self.bytes -= packet.len();
            self.next = self.next.max(number + 1);
            out(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(n: u8) -> Bytes {
        Bytes::from(vec![n; 10])
    }

    #[test]
    fn numbers_wrap() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        let mut take = |packet: Bytes| out.push(packet[0]);
        // As far as numbers go in half a turn, then over the end.
        order.settle(i32::MAX as u32, &mut take);
        order.settle(u32::MAX - 1, &mut take);
        order.packet(u32::MAX, packet(2), u32::MAX - 1, &mut take);
        order.packet(0, packet(3), u32::MAX - 1, &mut take);
        order.packet(u32::MAX - 1, packet(1), 1, &mut take);
        order.packet(u32::MAX, packet(2), 1, &mut take);
        order.packet(1, packet(4), 2, &mut take);
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn a_gap_holds_back_what_follows() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        let mut take = |packet: Bytes| out.push(packet[0]);
        order.packet(0, packet(0), 1, &mut take);
        order.packet(3, packet(3), 1, &mut take);
        order.packet(4, packet(4), 1, &mut take);
        order.packet(1, packet(1), 2, &mut take);
        assert_eq!(order.waiting.len(), 2);
        order.settle(5, &mut take);
        order.packet(2, packet(2), 5, &mut take);
        order.packet(6, packet(6), 5, &mut take);
        order.packet(7, packet(7), 5, &mut take);
        order.flush(&mut take);
        order.packet(5, packet(5), 8, &mut take);
        order.packet(8, packet(8), 9, &mut take);
        assert_eq!(out, [0, 1, 3, 4, 6, 7, 8], "2 and 5 came too late");
        assert_eq!(order.bytes, 0);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        let large = Bytes::from(vec![0; 1 << 20]);
        for n in 1..=6 {
            order.packet(n, large.clone(), 0, &mut |packet| out.push(packet));
            assert!(order.bytes <= MOST_BYTES);
        }
        assert_eq!((out.len(), order.waiting.len()), (2, 4));
        order.packet(0, large, 7, &mut |packet| out.push(packet));
        assert_eq!(out.len(), 6, "the one that all waited for is too late now");
    }
}
