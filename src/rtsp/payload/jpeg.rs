//! Motion JPEG out of RTP: images with the tables that RTP leaves out. Source: RFC 2435.

use super::jpeg_tables::{HUFFMAN, QUANTISATION};
use super::{MAX_UNIT_LEN, PayloadError, RtpPacket, Unit};
use crate::asf::compose::StreamFormat;

/// Qualities from here on bring tables of their own.
const OWN_TABLES: u8 = 128;
/// A quality whose tables come with every image; of others they may come once.
const CHANGING_TABLES: u8 = 255;
/// Types from here on have restart markers, and the type without them in the lower bits.
const RESTARTS: u8 = 64;
/// Most sets of tables that are kept.
const MOST_TABLES: usize = 8;

/// Puts images together.
#[derive(Debug, Default)]
pub(super) struct Jpeg {
    open: Option<Open>,
    /// Tables that came once, by quality.
    tables: Vec<(u8, Tables)>,
    /// Pixels of the last image.
    size: Option<(u16, u16)>,
}

/// Quantisation, as a DQT segment has it without its head: precision and number of each, then its values.
type Tables = Vec<Vec<u8>>;

#[derive(Debug)]
struct Open {
    timestamp: u32,
    bytes: Vec<u8>,
    /// Where the scan begins.
    scan_at: usize,
}

/// The head of each packet.
#[derive(Debug, Clone, Copy)]
struct Head {
    offset: usize,
    kind: u8,
    quality: u8,
    width: u16,
    height: u16,
    /// Blocks between restart markers.
    restarts: Option<u16>,
}

impl Jpeg {
    /// Known with the first image.
    pub(super) fn format(&self) -> Option<StreamFormat> {
        self.size.map(|(width, height)| StreamFormat::Mjpeg { width, height })
    }

    pub(super) fn push(&mut self, packet: &RtpPacket<'_>, lost: bool, out: &mut Vec<Unit>) -> Result<(), PayloadError> {
        let mut open = self.open.take().filter(|open| !lost && open.timestamp == packet.timestamp);
        let (head, mut scan) = Head::parse(packet.payload).ok_or(PayloadError::Malformed("JPEG without its head"))?;
        if head.offset == 0 {
            let (tables, rest) = self.tables_of(&head, scan)?;
            let bytes =
                head.image(&tables).ok_or(PayloadError::Malformed("JPEG of a type that is not known, or without a size"))?;
            self.size = Some((head.width, head.height));
            let scan_at = bytes.len();
            open = Some(Open { timestamp: packet.timestamp, bytes, scan_at });
            scan = rest;
        }
        // The begin is missing: it was told when that was lost.
        let Some(mut open) = open else { return Ok(()) };
        if open.bytes.len() - open.scan_at != head.offset {
            return Err(PayloadError::Malformed("JPEG of which a piece is missing"));
        }
        if open.bytes.len() + scan.len() + 2 > MAX_UNIT_LEN {
            return Err(PayloadError::TooLong);
        }
        open.bytes.extend_from_slice(scan);
        if !packet.marker {
            self.open = Some(open);
            return Ok(());
        }
        if !open.bytes.ends_with(&[0xFF, 0xD9]) {
            open.bytes.extend_from_slice(&[0xFF, 0xD9]);
        }
        out.push(Unit { timestamp: open.timestamp, key: true, bytes: open.bytes.into() });
        Ok(())
    }

    /// The tables of an image, and what follows them in its first packet.
    fn tables_of<'a>(&mut self, head: &Head, rest: &'a [u8]) -> Result<(Tables, &'a [u8]), PayloadError> {
        const MALFORMED: PayloadError = PayloadError::Malformed("JPEG whose tables do not fit its packet");
        if head.quality < OWN_TABLES {
            return Ok((scaled(head.quality), rest));
        }
        let ([_, precision, n1, n0], rest) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let len = usize::from(u16::from_be_bytes([*n1, *n0]));
        let (mut values, rest) = rest.split_at_checked(len).ok_or(MALFORMED)?;
        if values.is_empty() {
            let known = self.tables.iter().find(|(quality, _)| *quality == head.quality);
            let (_, tables) = known.ok_or(PayloadError::Malformed("JPEG whose tables never came"))?;
            return Ok((tables.clone(), rest));
        }
        let mut tables = Tables::new();
        for number in 0..4_u8 {
            let wide = precision >> number & 1;
            let Some((table, behind)) = values.split_at_checked(64 << wide) else { break };
            tables.push([&[wide << 4 | number], table].concat());
            values = behind;
        }
        if tables.is_empty() {
            return Err(MALFORMED);
        }
        if head.quality != CHANGING_TABLES {
            self.tables.retain(|(quality, _)| *quality != head.quality);
            if self.tables.len() == MOST_TABLES {
                self.tables.remove(0);
            }
            self.tables.push((head.quality, tables.clone()));
        }
        Ok((tables, rest))
    }
}

impl Head {
    fn parse(payload: &[u8]) -> Option<(Self, &[u8])> {
        let ([_, o2, o1, o0, kind, quality, width, height], mut rest) = payload.split_first_chunk::<8>()?;
        let mut restarts = None;
        if (RESTARTS..2 * RESTARTS).contains(kind) {
            let ([i1, i0, _, _], behind) = rest.split_first_chunk::<4>()?;
            restarts = Some(u16::from_be_bytes([*i1, *i0]));
            rest = behind;
        }
        let offset = usize::try_from(u32::from_be_bytes([0, *o2, *o1, *o0])).ok()?;
        let (width, height) = (u16::from(*width) * 8, u16::from(*height) * 8);
        Some((Self { offset, kind: *kind, quality: *quality, width, height, restarts }, rest))
    }

    /// All of an image before its scan; `None` for types that RFC 2435 does not define.
    fn image(&self, tables: &Tables) -> Option<Vec<u8>> {
        let brightness = match self.kind % RESTARTS {
            0 => 0x21,
            1 => 0x22,
            _ => return None,
        };
        if self.kind >= 2 * RESTARTS || self.width == 0 || self.height == 0 {
            return None;
        }
        let mut out = vec![0xFF, 0xD8];
        // JFIF 1.1, pixels without a size.
        segment(&mut out, 0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
        tables.iter().for_each(|table| segment(&mut out, 0xDB, table));
        if let Some(restarts) = self.restarts {
            segment(&mut out, 0xDD, &restarts.to_be_bytes());
        }
        let colour_table = u8::from(tables.len() > 1);
        let ([h1, h0], [w1, w0]) = (self.height.to_be_bytes(), self.width.to_be_bytes());
        let frame = [8, h1, h0, w1, w0, 3, 1, brightness, 0, 2, 0x11, colour_table, 3, 0x11, colour_table];
        segment(&mut out, 0xC0, &frame);
        for table in &HUFFMAN {
            segment(&mut out, 0xC4, &[&[table.class_and_id], &table.lengths[..], table.values].concat());
        }
        segment(&mut out, 0xDA, &[3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]);
        Some(out)
    }
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend_from_slice(&[0xFF, marker]);
    out.extend_from_slice(&u16::try_from(body.len() + 2).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(body);
}

/// The tables of a quality from 1 to 99. Source: RFC 2435 4.2.
fn scaled(quality: u8) -> Tables {
    let quality = u32::from(quality.clamp(1, 99));
    let factor = if quality < 50 { 5000 / quality } else { 200 - quality * 2 };
    let table = |(number, values): (u8, &[u8; 64])| {
        let scaled = values.iter().map(|value| {
            let value = (u32::from(*value) * factor + 50) / 100;
            u8::try_from(value.clamp(1, 255)).unwrap_or(u8::MAX)
        });
        std::iter::once(number).chain(scaled).collect()
    };
    (0..).zip(&QUANTISATION).map(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(timestamp: u32, marker: bool, payload: &[u8]) -> RtpPacket<'_> {
        RtpPacket { marker, payload_type: 26, sequence: 1, timestamp, ssrc: 0, payload }
    }

    #[test]
    fn an_image_in_two_packets() {
        let (mut jpeg, mut out) = (Jpeg::default(), Vec::new());
        jpeg.push(&packet(9, false, &[0, 0, 0, 0, 1, 50, 40, 30, 1, 2, 3]), false, &mut out).unwrap();
        jpeg.push(&packet(9, true, &[0, 0, 0, 3, 1, 50, 40, 30, 4, 5]), false, &mut out).unwrap();
        let [unit] = &out[..] else { panic!("{out:?}") };
        assert!(unit.bytes.starts_with(&[0xFF, 0xD8, 0xFF, 0xE0]) && unit.bytes.ends_with(&[1, 2, 3, 4, 5, 0xFF, 0xD9]));
        assert_eq!(jpeg.format(), Some(StreamFormat::Mjpeg { width: 320, height: 240 }));
        let tables = unit.bytes.windows(69).find(|window| window.starts_with(&[0xFF, 0xDB, 0, 67, 0])).unwrap();
        assert_eq!(tables[5..], QUANTISATION[0], "quality 50 is the table itself");
    }

    #[test]
    fn tables_that_come_once() {
        let (mut jpeg, mut out) = (Jpeg::default(), Vec::new());
        let without = [0, 0, 0, 0, 0, 200, 1, 1, 0, 0, 0, 0, 7];
        assert!(jpeg.push(&packet(1, true, &without), false, &mut out).is_err());
        let mut with = vec![0, 0, 0, 0, 64, 200, 1, 1, 0, 9, 0, 0, 0, 0, 0, 128];
        with.extend([3; 128]);
        with.push(7);
        jpeg.push(&packet(2, true, &with), false, &mut out).unwrap();
        jpeg.push(&packet(3, true, &without), false, &mut out).unwrap();
        assert_eq!(out.len(), 2);
        assert!(out[0].bytes.windows(6).any(|window| window == [0xFF, 0xDD, 0, 4, 0, 9]), "restart markers are told");
        assert_eq!(out[1].bytes.windows(5).filter(|window| window.starts_with(&[0xFF, 0xDB, 0, 67])).count(), 2);
    }

    #[test]
    fn what_lost_a_piece_is_left_out() {
        let (mut jpeg, mut out) = (Jpeg::default(), Vec::new());
        jpeg.push(&packet(1, false, &[0, 0, 0, 0, 1, 50, 1, 1, 1, 2, 3]), false, &mut out).unwrap();
        jpeg.push(&packet(1, true, &[0, 0, 0, 9, 1, 50, 1, 1, 4]), true, &mut out).unwrap();
        jpeg.push(&packet(2, false, &[0, 0, 0, 0, 1, 50, 1, 1, 1, 2, 3]), false, &mut out).unwrap();
        assert!(jpeg.push(&packet(2, true, &[0, 0, 0, 9, 1, 50, 1, 1, 4]), false, &mut out).is_err());
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_packets(packets in prop::collection::vec((any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let (mut jpeg, mut out) = (Jpeg::default(), Vec::new());
            for (lost, marker, payload) in &packets {
                let _ = jpeg.push(&packet(1, *marker, payload), *lost, &mut out);
            }
        }
    }
}
