//! Bits, the highest of each byte first.

use bytes::Bytes;

/// Reads bits. What lies behind the end is 0, and is told by [`Bits::is_over`].
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether more was read than there is.
    pub(super) const fn is_over(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    pub(super) fn bit(&mut self) -> bool {
        let byte = self.bytes.get(self.at / 8).copied().unwrap_or_default();
        let bit = byte << (self.at % 8) & 0x80 != 0;
        self.at = self.at.saturating_add(1);
        bit
    }

    /// A number of so many bits, 32 at most.
    pub(super) fn number(&mut self, bits: u32) -> u32 {
        (0..bits).fold(0, |number, _| number << 1 | u32::from(self.bit()))
    }

    /// What was read between here and `end`, as bytes; the last one is filled up with zeros. `None` where there is not so much.
    pub(super) fn bytes_up_to(&self, end: &Self) -> Option<Bytes> {
        let mut bits = self.clone();
        let mut bytes = Vec::new();
        while bits.at < end.at {
            let width = (end.at - bits.at).min(8);
            let byte = (0..width).fold(0_u8, |byte, at| byte | u8::from(bits.bit()) << (7 - at));
            bytes.push(byte);
        }
        (!bits.is_over()).then(|| bytes.into())
    }

    pub(super) const fn skip(&mut self, bits: usize) {
        self.at = self.at.saturating_add(bits);
    }

    /// An unsigned Exp-Golomb number (H.264 9.1); 0 where it is none.
    pub(super) fn unsigned(&mut self) -> u32 {
        let mut zeros = 0;
        while !self.bit() {
            zeros += 1;
            if zeros > 31 || self.is_over() {
                return 0;
            }
        }
        (1_u32 << zeros).wrapping_add(self.number(zeros)).wrapping_sub(1)
    }

    /// A signed one.
    pub(super) fn signed(&mut self) -> i32 {
        let number = self.unsigned();
        let half = i32::try_from(number.div_ceil(2)).unwrap_or(i32::MAX);
        if number % 2 == 1 { half } else { -half }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        // 1 | 010 | 011 | 00100 | 00101, then 1010.
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1101_0000]);
        let unsigned: Vec<u32> = (0..5).map(|_| bits.unsigned()).collect();
        assert_eq!(unsigned, [0, 1, 2, 3, 4]);
        assert_eq!((bits.number(4), bits.is_over()), (0b1010, false));
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1101_0000]);
        assert_eq!((0..5).map(|_| bits.signed()).collect::<Vec<i32>>(), [0, 1, -1, 2, -2]);
        let mut bits = Bits::new(&[0; 3]);
        assert_eq!((bits.unsigned(), bits.is_over()), (0, true));
    }
}
