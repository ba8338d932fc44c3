//! Re-cutting the packets of a file: each into the same number of smaller ones, so that all numbers follow.
//!
//! Packet `n` of the re-cut file is part `n % parts` of source packet `n / parts`. That needs a number of parts that
//! is enough for every packet the source can have. A packet of B bytes holds at most B - 6 bytes of payloads, heads
//! included, as they are laid anew (a single payload gets a length of two bytes). A packet of T bytes takes T - 14.
//! Each border between two parts costs at most
//!
//! - 25 bytes where an ordinary payload is cut: its head again (17), and size and time in the first piece of one that
//!   has no replicated data (8), or up to 24 bytes left empty; payload extensions that the header declares come on top;
//! - 43 bytes where a compressed payload is cut: two pieces of an object (34) and a compressed head for the objects
//!   behind it (10) less a length byte, or what of that is left empty.
//!
//! A packet whose heads have no room for the offsets of pieces gets up to 3 bytes a payload (4 where offsets pass
//! 65535) for at most 63 payloads; it cannot hold compressed ones.

use super::lay::{HEAD_LEN, OpenPacket, Rest, Widths};
use super::layout::Layout;
use super::packet::PacketError;
use super::{Header, StreamSet};
use crate::wire::DecodeError;

/// What a border between parts costs at most where compressed payloads are cut.
const RUN_BORDER: usize = 43;
/// The same for ordinary payloads without payload extensions.
const PLAIN_BORDER: usize = 25;
/// Replicated data without payload extensions.
const SIZE_AND_TIME_LEN: usize = 8;
const MAX_PAYLOADS: usize = 63;

/// Cuts each packet of a file into the same number of smaller ones.
///
/// A pure function of header and packet: packet `n` of the re-cut file is part `n % parts` of source packet
/// `n / parts`, source packet `m` becomes packets `m * parts` and on, and an index follows by multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recut {
    size: usize,
    parts: usize,
    /// What a border between parts costs at most.
    border: usize,
    video: StreamSet,
}

impl Recut {
    /// For the packets of `header`, to packets of `size` bytes.
    ///
    /// A `size` too small for the heads of pieces is raised to what they need: 100 bytes, or up to 558 where the header
    /// declares payload extensions. `None` if the packets fit as they are.
    pub fn new(header: &Header, size: usize) -> Option<Self> {
        let extensions = header.replicated_len().saturating_sub(SIZE_AND_TIME_LEN);
        let plain = PLAIN_BORDER + extensions;
        let border = plain.max(RUN_BORDER);
        let size = size.max(HEAD_LEN + 2 * border);
        let source = header.packet_size();
        if source <= size {
            return None;
        }
        let room = size - HEAD_LEN;
        // So many parts hold `len` bytes and the borders between them.
        let parts = |len: usize, border: usize| len.saturating_sub(border).div_ceil(room - border);
        let wider = if source + 255 > 0xFFFF { 4 } else { 3 };
        let narrow = source - 9 + MAX_PAYLOADS * wider;
        let parts = parts(source - 6, border).max(parts(narrow, plain)).max(2);
        Some(Self { size, parts, border, video: header.video() })
    }

    /// Size of the packets it makes, bytes.
    pub const fn packet_size(&self) -> usize {
        self.size
    }

    /// Packet numbers that each source packet becomes; at least 2.
    pub const fn parts(&self) -> usize {
        self.parts
    }

    /// Appends a packet's parts, each of [`Self::packet_size`] bytes, and returns how many there are: numbers 0 up to
    /// that, less than [`Self::parts`] where the packet holds too little media for all, 0 where it holds none.
    ///
    /// Payloads are cut between objects rather than inside them, and inside sound only where there is no other way.
    /// Key frames begin a part where the room allows. Objects keep their numbers (the low byte, where a packet has wider
    /// ones), sizes, times and flags; each piece repeats the replicated data. Send time and duration are the packet's.
    ///
    /// # Errors
    /// [`PacketError`] where the packet is invalid, has over 255 bytes of replicated data, or does not fit: with payload
    /// extensions longer than the header declares, or over 61 payloads and compressed ones among them. Nothing is
    /// appended then.
    ///
    /// Source: ASF 5.2.
    pub fn recut(&self, packet: &[u8], out: &mut Vec<u8>) -> Result<usize, PacketError> {
        let start = out.len();
        let parts = self.lay(packet, out);
        if parts.is_err() {
            out.truncate(start);
        }
        Ok(parts?)
    }

    fn lay(&self, packet: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let layout = Layout::parse(packet)?;
        let mut extent = 0;
        layout.each(packet, |payload| {
            if !payload.is_compressed() {
                extent = extent.max(u64::from(payload.offset) + payload.data_len as u64);
            }
        })?;
        let mut parts = Parts::new(self, &layout, Widths::of(&layout, extent));
        for payload in layout.heads(packet) {
            parts.left += Rest::new(packet, &layout, &payload, true)?.size(parts.widths);
        }
        for payload in layout.heads(packet) {
            parts.lay(Rest::new(packet, &layout, &payload, true)?, out)?;
        }
        parts.close(out);
        Ok(parts.closed)
    }

    /// Whether `left` bytes surely fit into so many parts.
    const fn fits(&self, left: usize, parts: usize) -> bool {
        parts > 0 && left + (parts - 1) * self.border <= parts * self.room()
    }

    const fn room(&self) -> usize {
        self.size - HEAD_LEN
    }
}

/// The parts of one packet in the making.
struct Parts<'a> {
    recut: &'a Recut,
    layout: &'a Layout,
    widths: Widths,
    open: Option<OpenPacket>,
    closed: usize,
    /// Bytes still to lay, heads included.
    left: usize,
    /// What the open part is to hold, so that all parts get about the same.
    target: usize,
}

impl<'a> Parts<'a> {
    const fn new(recut: &'a Recut, layout: &'a Layout, widths: Widths) -> Self {
        Self { recut, layout, widths, open: None, closed: 0, left: 0, target: 0 }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(open) = self.open.take() {
            open.finish(out, self.layout.duration_ms);
            self.closed += 1;
        }
    }

    /// Lays one payload, in as many parts as it takes.
    fn lay(&mut self, mut rest: Rest<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let recut = self.recut;
        let capacity = recut.room();
        let video = recut.video.contains(rest.stream());
        let divisible = video || rest.is_run();
        while !rest.is_empty() {
            // Parts behind the open one.
            let Some(spare) = recut.parts.checked_sub(self.closed + 1) else { return Err(no_room()) };
            let mut open = self.open.take().unwrap_or_else(|| {
                // Parts far from full are not worth their heads.
                self.target = self.left.div_ceil(spare + 1).max(capacity / 4).min(capacity);
                OpenPacket::begin(out, recut.size, self.widths, self.layout.send_time_ms, self.layout.duration_ms)
            });
            let (room, size) = (open.room(out), rest.size(self.widths));
            let used = capacity - room;
            let closable = used > 0 && recut.fits(self.left, spare);
            let better_behind = size > room && size <= capacity && (!divisible || video && 2 * used >= self.target);
            if closable && (used >= self.target || video && rest.begins_key() || better_behind && !rest.is_run()) {
                self.open = Some(open);
                self.close(out);
                continue;
            }
            // What may be laid so that, with another border behind it, the other parts still take the rest.
            let least = (self.left + spare * recut.border).saturating_sub(spare * capacity);
            let soft = self.target.saturating_sub(used);
            let whole = size <= room && (!divisible || used + size <= self.target + self.target / 4);
            let want = if !whole && divisible && spare > 0 && least <= soft { soft } else { room };
            // An object of a run is up to 256 bytes.
            let cut_objects = want == room && (spare == 0 || least + 256 > room);
            let mut laid = open.put(out, &mut rest, want, cut_objects);
            if laid == 0 && !closable {
                laid = open.put(out, &mut rest, room, true);
            }
            self.left = self.left - size + rest.size(self.widths);
            self.open = Some(open);
            if laid == 0 {
                if used == 0 || spare == 0 {
                    return Err(no_room());
                }
                self.close(out);
            }
        }
        Ok(())
    }
}

#[cold]
const fn no_room() -> DecodeError {
    DecodeError::Invalid {
        field: "payload",
        offset: 0,
        reason: "does not fit into smaller packets: its payload extensions are longer than the header says, or there are too many payloads",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::{Form, Piece, Plan, plans};
    use crate::asf::fabricate_stream::{Fabricated, fabricated_header, objects, packet_streams};
    use crate::asf::{payloads, samples, walk};

    fn parts_of(packet_size: usize, extensions: u8) -> usize {
        Recut::new(&fabricated_header(packet_size, extensions), 1400).unwrap().parts()
    }

    #[test]
    fn parts_by_packet_size() {
        let sizes = [1401, 1500, 2048, 3200, 4096, 4800, 8000, 16_384, 65_527];
        assert_eq!(sizes.map(|size| parts_of(size, 0)), [2, 2, 2, 3, 4, 4, 6, 13, 49]);
        assert_eq!(sizes.map(|size| parts_of(size, 247)), [2, 2, 2, 3, 4, 5, 8, 15, 59]);
        assert!(Recut::new(&fabricated_header(1400, 0), 1400).is_none());
        let tiny = Recut::new(&fabricated_header(1400, 0), 0).unwrap();
        assert_eq!((tiny.packet_size(), tiny.parts()), (100, 32));
    }

    /// Re-cuts all packets, checks what holds of every part, and returns the parts with how many each packet gave.
    fn recut_all(recut: &Recut, packets: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<usize>) {
        let (mut parts, mut counts) = (Vec::new(), Vec::new());
        for packet in packets {
            let mut out = vec![0xAA];
            let count = recut.recut(packet, &mut out).unwrap();
            assert_eq!((out.len(), out[0]), (1 + count * recut.packet_size(), 0xAA));
            let source = walk(packet).unwrap();
            assert!(count <= recut.parts());
            for part in out[1..].chunks_exact(recut.packet_size()) {
                let info = walk(part).unwrap();
                assert_eq!((info.send_time_ms, info.duration_ms), (source.send_time_ms, source.duration_ms));
                assert!(payloads(part).unwrap().count() > 0, "a part without media");
                parts.push(part.to_vec());
            }
            counts.push(count);
        }
        (parts, counts)
    }

    #[test]
    fn samples_re_cut() {
        for (name, _, size) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            let recut =
                Recut::new(&header, if size > 1400 { 1400 } else { 700 }).unwrap_or_else(|| Recut::new(&header, 400).unwrap());
            let (parts, counts) = recut_all(&recut, &packets);
            assert_eq!(objects(&parts), objects(&packets), "{name}");
            // Numbers without a packet are the exception: whoever counts numbers would take them for losses.
            let whole = counts.iter().filter(|count| **count == recut.parts()).count();
            assert!(whole * 2 > packets.len(), "{name}: {whole} of {} packets have all parts", packets.len());
        }
    }

    /// Packets of `size` bytes, filled to the last, of one long payload that is cut at every border.
    fn full(
        size: usize,
        correction: Option<u8>,
        multiple: bool,
        offset: u8,
        replicated: u8,
        form: impl Fn(usize) -> Form,
    ) -> Vec<u8> {
        let small = Piece {
            stream: 3,
            key: true,
            object: 1,
            offset: 0,
            presentation_ms: 9,
            object_size: None,
            form: Form::Bare(vec![1]),
        };
        let mut plan = Plan {
            correction,
            multiple,
            packet_length: 0,
            sequence: 0,
            padding: 0,
            object: 1,
            offset,
            replicated,
            payload_length: 2,
            send_time_ms: 5,
            pieces: vec![Piece { stream: 1, form: form(300), ..small.clone() }],
            spare: 0,
        };
        if multiple {
            plan.pieces.resize(63, small);
        }
        let free = size - plan.build().len();
        plan.pieces[0].form = form(300 + free);
        let packet = plan.build();
        assert_eq!(packet.len(), size);
        packet
    }

    /// A run of objects of `each` bytes that takes `len` bytes in all.
    fn run(len: usize, each: usize) -> Form {
        let mut objects = vec![vec![7; each]; len / (each + 1)];
        match len % (each + 1) {
            0 => (),
            1 => objects.push(Vec::new()),
            rest => objects.push(vec![8; rest - 1]),
        }
        Form::Compressed(objects, 3)
    }

    /// The bound behind the number of parts, against the packets that need most.
    #[test]
    fn the_fullest_packets_fit() {
        for size in [1401, 1500, 1700, 2048, 2756, 3200, 4096, 4139, 4800, 8000, 16_384, 65_527] {
            let header = fabricated_header(size, 0);
            for target in [1400, 576] {
                let recut = Recut::new(&header, target).unwrap();
                let check = |packet: &[u8]| {
                    let (parts, _) = recut_all(&recut, &[packet.to_vec()]);
                    assert_eq!(objects(&parts), objects([packet]));
                };
                for correction in [None, Some(2)] {
                    for multiple in [false, true] {
                        check(&full(size, correction, multiple, 3, 1, |len| Form::Replicated(vec![1; len], 0)));
                        for (offset, replicated) in [(3, 1), (0, 0), (0, 1), (1, 0), (2, 0)] {
                            check(&full(size, correction, multiple, offset, replicated, |len| Form::Bare(vec![1; len])));
                        }
                    }
                    for each in (1..=255).rev().step_by(if size > 8_000 { 37 } else { 1 }) {
                        check(&full(size, correction, false, 3, 1, |len| run(len, each)));
                    }
                }
            }
        }
    }

    #[test]
    fn key_frames_begin_a_part_and_sound_stays_whole() {
        let recut = Recut::new(&fabricated_header(3200, 0), 1400).unwrap();
        let piece = |stream, key, object, len| Piece {
            stream,
            key,
            object,
            offset: 0,
            presentation_ms: 9,
            object_size: None,
            form: Form::Replicated(vec![1; len], 0),
        };
        let plan = Plan {
            correction: Some(2),
            multiple: true,
            packet_length: 0,
            sequence: 0,
            padding: 2,
            object: 1,
            offset: 3,
            replicated: 1,
            payload_length: 2,
            send_time_ms: 5,
            pieces: vec![piece(1, false, 1, 90), piece(1, true, 2, 400), piece(3, true, 1, 900), piece(3, true, 2, 900)],
            spare: 300,
        };
        let (parts, _) = recut_all(&recut, &[plan.build()]);
        let found: Vec<Vec<_>> =
            parts.iter().map(|part| payloads(part).unwrap().map(|p| (p.stream, p.object, p.data.len())).collect()).collect();
        assert_eq!(found, [vec![(1, 1, 90)], vec![(1, 2, 400), (3, 1, 900)], vec![(3, 2, 900)]]);
    }

    #[test]
    fn too_long_replicated_data_is_refused() {
        let recut = Recut::new(&fabricated_header(3200, 0), 1400).unwrap();
        let mut packet = vec![0x82, 0, 0, 0x08, 0x5E, 0, 7, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 0, 1];
        packet.resize(3200, 1);
        assert!(walk(&packet).is_ok());
        let mut out = Vec::new();
        assert!(recut.recut(&packet, &mut out).is_err() && out.is_empty());
    }

    proptest! {
        #[test]
        fn objects_survive(Fabricated { header, packets } in packet_streams(), size in prop_oneof![Just(1400_usize), 100..3_000_usize]) {
            if let Some(recut) = Recut::new(&header, size) {
                let (parts, _) = recut_all(&recut, &packets);
                prop_assert_eq!(objects(&parts), objects(&packets));
            }
        }

        #[test]
        fn any_packet_never_panics(plan in plans(), hits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4)) {
            let mut packet = plan.build();
            for (at, value) in hits {
                let at = usize::from(at) % packet.len();
                packet[at] = value;
            }
            let recut = Recut::new(&fabricated_header(packet.len().max(300), 0), 150).unwrap();
            let mut out = Vec::new();
            match recut.recut(&packet, &mut out) {
                Ok(parts) => prop_assert!(out.len() == parts * recut.packet_size() && parts <= recut.parts()),
                Err(_) => prop_assert!(out.is_empty()),
            }
        }

        #[test]
        fn any_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..400)) {
            let recut = Recut::new(&fabricated_header(400, 0), 150).unwrap();
            let mut out = Vec::new();
            prop_assert!(recut.recut(&packet, &mut out).is_ok() || out.is_empty());
        }
    }
}
