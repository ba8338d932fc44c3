//! What is sent: framed packets, the numbers that belong to one viewer, and the runs that one segmented send can carry.

use std::ops::Range;

use wmrelay::mms::media::{DataHead, HEAD_LEN};

/// Bytes of a packet without its head.
pub(crate) const PACKET_SIZE: usize = 1400;
/// Bytes from one head of an image to the next.
pub(crate) const STRIDE: usize = HEAD_LEN + PACKET_SIZE;

/// A small random generator with a fixed seed: the same numbers in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number of 31 bits.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).expect("31 bits")
    }
}

/// What the heads of one viewer's packets say that another's do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// 4 as open-source players use, 10 as Windows Media Format 9.
    pub(crate) incarnation: u8,
    /// Low byte of the sequence number of the first packet.
    pub(crate) phase: u32,
}

/// Numbers drawn at random, so that viewers share them as little as in real life.
pub(crate) fn numbers(viewers: usize) -> Vec<Numbers> {
    let mut random = Random(20);
    let draw = |_| Numbers { incarnation: if random.next().is_multiple_of(2) { 4 } else { 10 }, phase: random.next() % 256 };
    (0..viewers).map(draw).collect()
}

/// Framed packets of these sizes one after the other; a size is without the head.
pub(crate) fn image(sizes: &[usize]) -> Vec<u8> {
    let mut image = Vec::new();
    for (location, size) in sizes.iter().enumerate() {
        image.extend_from_slice(&DataHead::new(location as u32, 4, 0, *size).bytes());
        image.resize(image.len() + size, 7);
    }
    image
}

/// Bytes that one segmented send can carry, and the size at which it is cut.
pub(crate) struct Run {
    /// Where they are in the image.
    pub(crate) bytes: Range<usize>,
    /// Bytes of every datagram but the last, which may be shorter.
    pub(crate) stride: usize,
}

/// Cuts an image of packets of these sizes into as few segmented sends as possible.
pub(crate) fn runs(sizes: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut begin, mut open) = (0, false);
    for framed in sizes.iter().map(|size| size + HEAD_LEN) {
        match runs.last_mut() {
            Some(run) if open && framed <= run.stride => {
                run.bytes.end += framed;
                open = framed == run.stride;
            }
            _ => {
                runs.push(Run { bytes: begin..begin + framed, stride: framed });
                open = true;
            }
        }
        begin += framed;
    }
    runs
}
