//! Whole streams of sound packets in every form that ASF allows, made for tests, and what their packets hold.

use proptest::prelude::*;

use super::fabricate::{Form, Piece, Plan, audio, extended_stream_with, file_properties, header, video};
use super::{Header, payloads};

/// A media object as a receiver joins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) stream: u8,
    /// The low byte of its number.
    pub(crate) number: u8,
    pub(crate) key: bool,
    pub(crate) size: u32,
    pub(crate) presentation_ms: u32,
    /// Shorter than `size` where the end never came.
    pub(crate) data: Vec<u8>,
}

/// Joins the objects of packets, in the order in which they begin.
///
/// # Panics
/// Where pieces do not join.
pub(crate) fn objects<P: AsRef<[u8]>>(packets: impl IntoIterator<Item = P>) -> Vec<Object> {
    let (mut objects, mut open) = (Vec::<Object>::new(), [None::<usize>; 128]);
    for packet in packets {
        for payload in payloads(packet.as_ref()).unwrap() {
            let [number, ..] = payload.object.to_le_bytes();
            let slot = &mut open[usize::from(payload.stream)];
            if payload.offset == 0 {
                *slot = Some(objects.len());
                objects.push(Object {
                    stream: payload.stream,
                    number,
                    key: payload.key,
                    size: payload.object_size,
                    presentation_ms: payload.presentation_ms,
                    data: Vec::new(),
                });
            }
            let object = &mut objects[slot.expect("a piece of an object that never began")];
            assert_eq!(usize::try_from(payload.offset).unwrap(), object.data.len(), "a gap");
            assert_eq!(
                (number, payload.key, payload.object_size, payload.presentation_ms),
                (object.number, object.key, object.size, object.presentation_ms),
                "pieces differ"
            );
            object.data.extend_from_slice(payload.data);
            assert!(object.data.len() <= usize::try_from(object.size).unwrap());
        }
    }
    objects
}

/// A stream of packets with its header: streams 1 and 2 are video, 3 and 4 audio.
#[derive(Clone)]
pub(crate) struct Fabricated {
    pub(crate) header: Header,
    pub(crate) packets: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Fabricated {
    /// The heads of the packets: a failing test is to be readable.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "packets of {} bytes", self.header.packet_size())?;
        for packet in &self.packets {
            writeln!(f, "  {:02X?}", &packet[..30])?;
            for payload in payloads(packet).unwrap() {
                let data = payload.data.len();
                writeln!(f, "    {:?} {data} bytes", super::Payload { data: &[], ..payload })?;
            }
        }
        Ok(())
    }
}

/// An object to be packed.
#[derive(Debug, Clone)]
struct Medium {
    stream: u8,
    len: usize,
    key: bool,
    step_ms: u32,
}

/// How one packet is made.
#[derive(Debug, Clone)]
struct PacketForm {
    correction: Option<u8>,
    multiple: bool,
    /// Codes of packet length, sequence, padding, offset, replicated data length, payload length.
    codes: [u8; 6],
    /// Which objects may do without replicated data, or be compressed.
    bare: bool,
    compressed: bool,
    no_object_numbers: bool,
    most: usize,
    /// Room that is left empty.
    empty: usize,
}

/// Objects still to be packed, each with the bytes of it that are packed already.
struct Queue {
    media: Vec<Medium>,
    numbers: [u32; 128],
    at: usize,
    packed: usize,
    now_ms: u32,
}

impl Queue {
    fn media(&self, number: usize, from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|at| u8::try_from((at * 7 + number * 31 + at / 256) & 0xFF).unwrap()).collect()
    }

    fn pass(&mut self) {
        let medium = &self.media[self.at];
        self.numbers[usize::from(medium.stream)] += 1;
        self.now_ms += medium.step_ms;
        (self.at, self.packed) = (self.at + 1, 0);
    }

    /// Takes a piece of at most `room` bytes, its head of `head` bytes and the replicated data's included.
    fn piece(&mut self, form: &PacketForm, extensions: u8, head: usize, room: usize) -> Option<Piece> {
        let medium = self.media.get(self.at)?.clone();
        let number = self.numbers[usize::from(medium.stream)];
        let presentation_ms = self.now_ms + 3_000;
        let piece = |offset: usize, form| Piece {
            stream: medium.stream,
            key: medium.key,
            object: number,
            offset: u32::try_from(offset).unwrap(),
            presentation_ms,
            object_size: Some(medium.len),
            form,
        };
        let mut run = Vec::new();
        let mut used = head + 1;
        while form.compressed && self.packed == 0 && run.len() < form.most {
            let Some(next) = self.media.get(self.at).filter(|next| next.stream == medium.stream && next.key == medium.key) else {
                break;
            };
            used += 1 + next.len;
            if next.len > 255 || used > room {
                break;
            }
            run.push(self.media(self.at, 0, next.len));
            self.pass();
        }
        if !run.is_empty() {
            return Some(piece(0, Form::Compressed(run, 11)));
        }
        if form.bare && self.packed == 0 && head + medium.len <= room {
            let data = self.media(self.at, 0, medium.len);
            self.pass();
            return Some(piece(0, Form::Bare(data)));
        }
        let from = self.packed;
        let len = room.checked_sub(head + 8 + usize::from(extensions)).filter(|len| *len > 0)?.min(medium.len - from);
        let data = self.media(self.at, from, len);
        self.packed += len;
        if self.packed == medium.len {
            self.pass();
        }
        Some(piece(from, Form::Replicated(data, extensions)))
    }
}

fn pack(media: Vec<Medium>, forms: &[PacketForm], size: usize, object_code: u8, extensions: u8) -> Vec<Vec<u8>> {
    let mut queue = Queue { media, numbers: [250; 128], at: 0, packed: 0, now_ms: 0 };
    let mut packets = Vec::new();
    for form in forms.iter().cycle() {
        if queue.at == queue.media.len() {
            break;
        }
        let [packet_length, sequence, padding, offset, replicated, payload_length] = form.codes;
        let mut plan = Plan {
            correction: form.correction,
            multiple: form.multiple,
            packet_length: if packet_length == 1 { 2 } else { packet_length },
            sequence,
            padding,
            object: object_code,
            offset: 3,
            replicated: 3,
            payload_length: 3,
            send_time_ms: queue.now_ms,
            pieces: Vec::new(),
            spare: 0,
        };
        // The widest heads there can be; what narrower ones save is given to the last piece.
        let mut room = size - 16 - 2 - 12 - 6 - 1;
        let most = if form.multiple { form.most } else { 1 };
        while plan.pieces.len() < most {
            let head = 1 + 4 + 4 + 4 + 4;
            let Some(piece) = queue.piece(form, extensions, head, room) else { break };
            room -= head
                + match &piece.form {
                    Form::Bare(data) => data.len(),
                    Form::Replicated(data, more) => 8 + usize::from(*more) + data.len(),
                    Form::Compressed(run, _) => 1 + run.iter().map(|object| 1 + object.len()).sum::<usize>(),
                };
            plan.pieces.push(piece);
        }
        narrow(&mut plan, form, offset, replicated, payload_length);
        fill(&mut plan, &mut queue, form, size);
        let packet = plan.build();
        assert_eq!(packet.len(), size);
        packets.push(packet);
    }
    packets
}

/// Gives the fields the widths that the form asks for, or wider ones where what they hold needs it.
fn narrow(plan: &mut Plan, form: &PacketForm, offset: u8, replicated: u8, payload_length: u8) {
    let whole = |piece: &Piece| match &piece.form {
        Form::Replicated(data, _) => piece.object_size == Some(data.len()),
        _ => true,
    };
    let extent = plan.pieces.iter().map(|piece| piece.offset).max().unwrap_or(0);
    let compressed = plan.pieces.iter().any(|piece| matches!(piece.form, Form::Compressed(..)));
    let bare = plan.pieces.iter().all(|piece| matches!(piece.form, Form::Bare(_)));
    plan.offset = offset.max(match extent {
        _ if compressed => 3,
        0 => 0,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        _ => 3,
    });
    plan.replicated = if bare { replicated } else { replicated.max(1) };
    let longest = plan.pieces.iter().map(data_len).max().unwrap_or(0);
    plan.payload_length = payload_length.max(if longest > 255 { 2 } else { 1 });
    // The objects of a compressed payload would all have number 0.
    if form.no_object_numbers && !compressed && plan.pieces.iter().all(whole) {
        plan.object = 0;
    }
}

fn data_len(piece: &Piece) -> usize {
    match &piece.form {
        Form::Bare(data) | Form::Replicated(data, _) => data.len(),
        Form::Compressed(run, _) => run.iter().map(|object| 1 + object.len()).sum(),
    }
}

/// Makes the packet as long as the others: more of the last object where there is more of it, padding otherwise.
fn fill(plan: &mut Plan, queue: &mut Queue, form: &PacketForm, size: usize) {
    let free = size - plan.build().len();
    let narrow_length = plan.multiple && plan.payload_length == 1;
    let last = plan.pieces.last_mut().filter(|_| !narrow_length && queue.packed > 0 && form.empty == 0);
    if let Some(Piece { form: Form::Replicated(data, _), offset, .. }) = last {
        // One byte stays for the next packet, so that the object does not end here.
        let more = free.min(queue.media[queue.at].len - queue.packed - 1);
        let from = usize::try_from(*offset).unwrap();
        let len = data.len();
        *data = queue.media(queue.at, from, len + more);
        queue.packed += more;
    }
    let mut free = size - plan.build().len();
    let holds = |plan: &Plan| plan.padding > 0 || plan.packet_length > 0 || plan.multiple;
    if free > 0 && (!holds(plan) || plan.padding == 1 && free > 255) {
        plan.padding = 3;
        while size < plan.build().len() {
            shorten(plan, queue);
        }
        free = size - plan.build().len();
    }
    plan.spare = free;
}

/// Takes a byte off the last piece, which is one of an object that is not packed whole.
fn shorten(plan: &mut Plan, queue: &mut Queue) {
    if let Some(Piece { form: Form::Replicated(data, _), .. }) = plan.pieces.last_mut() {
        data.pop().unwrap();
        queue.packed -= 1;
    }
}

fn forms() -> impl Strategy<Value = Vec<PacketForm>> {
    let codes = [0..4_u8, 0..4, 0..4, 0..4, 0..4, 1..4].map(|codes| codes);
    let correction = prop_oneof![Just(None), Just(Some(2)), (0..16_u8).prop_map(Some)];
    let most = prop_oneof![1..4_usize, 1..63_usize, Just(63)];
    let empty = prop_oneof![Just(0_usize), Just(1)];
    let switches = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let form = (correction, codes, switches, most, empty).prop_map(
        |(correction, codes, (multiple, bare, compressed, no_object_numbers), most, empty)| PacketForm {
            correction,
            multiple,
            codes,
            bare,
            compressed,
            no_object_numbers,
            most,
            empty,
        },
    );
    proptest::collection::vec(form, 1..8)
}

/// Streams of sound packets of every form; packet sizes of 300 to 9000 bytes, and the largest.
pub(crate) fn packet_streams() -> impl Strategy<Value = Fabricated> {
    streams_of(60, &[])
}

/// The same over minutes, where stream 2 never marks a key frame.
pub(crate) fn slow_streams() -> impl Strategy<Value = Fabricated> {
    streams_of(4_000, &[2])
}

fn streams_of(longest_step_ms: u32, keyless: &'static [u8]) -> impl Strategy<Value = Fabricated> {
    let len = prop_oneof![0..40_usize, 1..300_usize, 300..2_000_usize, 2_000..12_000_usize];
    let medium = (1..=4_u8, len, prop::bool::weighted(0.3), 0..longest_step_ms);
    let medium = medium.prop_map(|(stream, len, key, step_ms)| Medium {
        stream,
        len: len.max(1),
        key: key && !keyless.contains(&stream),
        step_ms,
    });
    let size = prop_oneof![4 => 300..2_000_usize, 4 => 2_000..9_000_usize, 1 => Just(65_527_usize)];
    let extensions = prop_oneof![3 => Just(0_u8), 1 => 1..40_u8];
    let media = proptest::collection::vec((medium, 1..4_usize), 1..40);
    (media, forms(), size, 1..4_u8, extensions).prop_map(|(media, forms, size, object_code, extensions)| {
        // Some of one stream in a row, so that there is something to compress.
        let media = media.into_iter().flat_map(|(medium, times)| vec![medium; times]).collect();
        let packets = pack(media, &forms, size, object_code, extensions);
        Fabricated { header: fabricated_header(size, extensions), packets }
    })
}

/// The header of such a stream.
pub(crate) fn fabricated_header(packet_size: usize, extensions: u8) -> Header {
    let file = file_properties(u32::try_from(packet_size).unwrap(), 2);
    let mut children = vec![file, video(1), video(2), audio(3), audio(4)];
    if extensions > 0 {
        children.push(extended_stream_with(1, u16::from(extensions)));
    }
    Header::parse(&header(&children)).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn streams_are_sound(stream in packet_streams()) {
            prop_assert!(!stream.packets.is_empty());
            let objects = objects(&stream.packets);
            prop_assert!(objects.iter().all(|object| object.data.len() == usize::try_from(object.size).unwrap()));
            let sent: Vec<_> = stream.packets.iter().map(|packet| super::super::send_time_ms(packet).unwrap()).collect();
            prop_assert!(sent.is_sorted());
        }
    }
}
