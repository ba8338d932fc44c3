//! What a sequence parameter set of H.264 says of pictures. Source: ITU-T H.264 7.3.2.1.1, E.1.1.

use super::bits::Bits;

/// Profiles whose parameter sets tell of chroma and scaling.
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];
/// Pixel shapes by their number. Source: H.264 Table E-1.
const ASPECTS: [(u16, u16); 17] = [
    (1, 1),
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];
const EXTENDED_ASPECT: u32 = 255;
/// Longest parameter set that is read, bytes.
const BOUND: usize = 1024;

/// A sequence parameter set, as far as a relay needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) id: u32,
    /// Pixels, cropped.
    pub(super) width: u16,
    pub(super) height: u16,
    /// Shape of a pixel.
    pub(super) aspect: (u16, u16),
    /// Pictures may come in another order than they are shown; `None` where it does not say.
    pub(super) reorders: Option<bool>,
}

impl Sps {
    /// Of a NAL unit with its first byte; `None` where it is none that makes sense.
    pub(super) fn parse(nal: &[u8]) -> Option<Self> {
        let payload = without_emulation(nal.get(1..)?.get(..BOUND.min(nal.len() - 1))?);
        let mut bits = Bits::new(&payload);
        let profile = bits.number(8);
        bits.skip(16);
        let id = bits.unsigned();
        let (mut chroma, mut separate) = (1, false);
        if HIGH_PROFILES.contains(&profile) {
            chroma = bits.unsigned();
            separate = chroma == 3 && bits.bit();
            // Depths of luma and chroma, the bypass.
            bits.unsigned();
            bits.unsigned();
            bits.skip(1);
            if bits.bit() {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.bit() {
                        skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 });
                    }
                }
            }
        }
        bits.unsigned();
        let order_type = bits.unsigned();
        match order_type {
            0 => {
                bits.unsigned();
            }
            1 => {
                bits.skip(1);
                bits.signed();
                bits.signed();
                for _ in 0..bits.unsigned().min(255) {
                    bits.signed();
                }
            }
            _ => {}
        }
        // Reference frames, gaps.
        bits.unsigned();
        bits.skip(1);
        let (columns, rows) = (bits.unsigned().checked_add(1)?, bits.unsigned().checked_add(1)?);
        let whole_frames = bits.bit();
        if !whole_frames {
            bits.skip(1);
        }
        bits.skip(1);
        let crop = if bits.bit() { [(); 4].map(|()| bits.unsigned()) } else { [0; 4] };
        let [left, right, top, bottom] = crop;
        let fields = if whole_frames { 1 } else { 2 };
        let (unit_x, unit_y) = match chroma {
            1 if !separate => (2, 2),
            2 if !separate => (2, 1),
            _ => (1, 1),
        };
        let side = |blocks: u32, fields: u32, unit: u32, first: u32, last: u32| {
            let whole = blocks.checked_mul(16)?.checked_mul(fields)?;
            let cut = first.checked_add(last)?.checked_mul(unit)?;
            u16::try_from(whole.checked_sub(cut)?).ok().filter(|side| *side > 0)
        };
        let width = side(columns, 1, unit_x, left, right)?;
        let height = side(rows, fields, unit_y * fields, top, bottom)?;
        if bits.is_over() {
            return None;
        }
        let mut sps = Self { id, width, height, aspect: (1, 1), reorders: None };
        if bits.bit() {
            sps.read_usability(&mut bits);
        }
        // Baseline has no B slices, and this order none that could be reordered.
        if profile == 66 || order_type == 2 {
            sps.reorders = Some(false);
        }
        Some(sps)
    }

    /// Reads the video usability information.
    fn read_usability(&mut self, bits: &mut Bits<'_>) {
        let mut aspect = (1, 1);
        if bits.bit() {
            let number = bits.number(8);
            aspect = if number == EXTENDED_ASPECT {
                let [x, y] = [bits.number(16), bits.number(16)].map(|side| u16::try_from(side).unwrap_or_default());
                (x, y)
            } else {
                usize::try_from(number).ok().and_then(|number| ASPECTS.get(number).copied()).unwrap_or((1, 1))
            };
        }
        if bits.bit() {
            bits.skip(1);
        }
        if bits.bit() {
            bits.skip(4);
            if bits.bit() {
                bits.skip(24);
            }
        }
        if bits.bit() {
            bits.unsigned();
            bits.unsigned();
        }
        if bits.bit() {
            bits.skip(65);
        }
        let nal_rates = bits.bit();
        if nal_rates {
            skip_rates(bits);
        }
        let video_rates = bits.bit();
        if video_rates {
            skip_rates(bits);
        }
        if nal_rates || video_rates {
            bits.skip(1);
        }
        bits.skip(1);
        let restricted = bits.bit();
        let mut reordered = None;
        if restricted {
            bits.skip(1);
            for _ in 0..4 {
                bits.unsigned();
            }
            reordered = Some(bits.unsigned() > 0);
        }
        if !bits.is_over() {
            (self.aspect, self.reorders) = (aspect, reordered);
        }
    }
}

fn skip_scaling_list(bits: &mut Bits<'_>, len: usize) {
    let (mut last, mut next) = (8_i32, 8_i32);
    for _ in 0..len {
        if next != 0 {
            next = last.wrapping_add(bits.signed()).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
}

/// Skips the parameters of a hypothetical decoder.
fn skip_rates(bits: &mut Bits<'_>) {
    let count = bits.unsigned().min(31) + 1;
    bits.skip(8);
    for _ in 0..count {
        bits.unsigned();
        bits.unsigned();
        bits.skip(1);
    }
    bits.skip(20);
}

/// Without the bytes that keep start codes out of NAL units. Source: H.264 7.4.1.
fn without_emulation(nal: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut out = Vec::with_capacity(nal.len());
    for byte in nal {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    out
}

/// The number of a picture parameter set.
pub(super) fn pps_id(nal: &[u8]) -> Option<u32> {
    let payload = without_emulation(nal.get(1..)?.get(..BOUND.min(nal.len() - 1))?);
    let mut bits = Bits::new(&payload);
    let id = bits.unsigned();
    (!bits.is_over()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            Sps::parse(&bytes);
            pps_id(&bytes);
        }
    }

    #[test]
    fn nothing_is_no_set() {
        assert_eq!(Sps::parse(&[]), None);
        assert_eq!(Sps::parse(&[0x67]), None);
        assert_eq!(Sps::parse(&unhex("6742")), None);
    }
}
