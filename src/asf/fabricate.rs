//! Packets of every form that ASF allows, and small headers, made for tests.

use proptest::prelude::*;

use super::guids;
use crate::wire::{Guid, Writer};

/// An object.
pub(crate) fn object(guid: Guid, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.guid(guid).u64(24 + body.len() as u64).bytes(body);
    out.finish()
}

/// A Header Object of these children.
pub(crate) fn header(children: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Writer::default();
    body.u32(u32::try_from(children.len()).unwrap()).u8(1).u8(2).bytes(&children.concat());
    object(guids::HEADER, &body.finish())
}

/// A Header Extension Object of these children.
pub(crate) fn extension(children: &[Vec<u8>]) -> Vec<u8> {
    let children = children.concat();
    let mut body = Writer::default();
    body.bytes(&[0xAB; 16]).u16(6).u32(u32::try_from(children.len()).unwrap()).bytes(&children);
    object(guids::HEADER_EXTENSION, &body.finish())
}

/// File Properties of a file: 7 packets, 10 s with its preroll of 3 s, seekable.
pub(crate) fn file_properties(packet_size: u32, flags: u32) -> Vec<u8> {
    let mut body = Writer::default();
    body.guid(Guid([1; 16])).u64(5_000).u64(9).u64(7).u64(100_000_000).u64(70_000_000).u64(3_000);
    body.u32(flags).u32(packet_size).u32(packet_size).u32(500_000);
    object(guids::FILE_PROPERTIES, &body.finish())
}

/// An audio stream of 8000 bytes a second.
pub(crate) fn audio(number: u16) -> Vec<u8> {
    let mut body = Writer::default();
    body.guid(guids::AUDIO).zeros(24).u32(18).u32(0).u16(number).u32(0xDEAD);
    body.u16(7).u16(1).u32(8_000).u32(8_000).u16(1).u16(8).u16(0);
    object(guids::STREAM_PROPERTIES, &body.finish())
}

/// A video stream.
pub(crate) fn video(number: u16) -> Vec<u8> {
    let mut body = Writer::default();
    body.guid(guids::VIDEO).zeros(24).u32(51).u32(0).u16(number).u32(0);
    body.u32(320).u32(240).u8(2).u16(40).u32(40).zeros(12).bytes(b"WMV2").zeros(20);
    object(guids::STREAM_PROPERTIES, &body.finish())
}

/// A stream of script commands.
pub(crate) fn commands(number: u16) -> Vec<u8> {
    let mut body = Writer::default();
    body.guid(guids::COMMAND).zeros(32).u16(number).u32(0);
    object(guids::STREAM_PROPERTIES, &body.finish())
}

/// One command of stream `stream` in a packet of 200 bytes, or a piece of one: where it belongs in its object, and that one's size.
pub(crate) fn command_packet(stream: u8, offset: u32, size: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(200);
    let padding = 200 - 12 - 15 - data.len();
    // A padding length of one byte; numbers and replicated lengths of one, offsets of four.
    out.u8(0x82).u16(0).u8(0x08).u8(0x5D).u8(u8::try_from(padding).unwrap()).u32(5).u16(0);
    out.u8(stream).u8(9).u32(offset).u8(8).u32(size).u32(3000).bytes(data);
    let mut packet = out.finish();
    packet.resize(200, 0);
    packet
}

/// A command as streams have it: its type and its text.
pub(crate) fn command(kind: &str, text: &str) -> Vec<u8> {
    format!("{kind}\0{text}\0").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Extended Stream Properties; `hidden` is a Stream Properties Object inside, or nothing.
pub(crate) fn extended_stream(number: u16, bit_rate: u32, flags: u32, hidden: &[u8]) -> Vec<u8> {
    let mut body = Writer::default();
    body.u64(5).u64(6).u32(bit_rate).zeros(24).u32(flags).u16(number).u16(0).u64(0).u16(0).u16(0).bytes(hidden);
    object(guids::EXTENDED_STREAM_PROPERTIES, &body.finish())
}

/// Extended Stream Properties with one payload extension system of so many bytes.
pub(crate) fn extended_stream_with(number: u16, extension: u16) -> Vec<u8> {
    let mut object = extended_stream(number, 1, 0, &[]);
    object[86..88].copy_from_slice(&[1, 0]);
    let mut system = Writer::default();
    system.guid(Guid([7; 16])).u16(extension).u32(0);
    object.extend_from_slice(&system.finish());
    let size = u64::try_from(object.len()).unwrap();
    object[16..24].copy_from_slice(&size.to_le_bytes());
    object
}

/// Average bit rates by stream.
pub(crate) fn bit_rates(rates: &[(u16, u32)]) -> Vec<u8> {
    let mut body = Writer::default();
    body.u16(u16::try_from(rates.len()).unwrap());
    rates.iter().for_each(|(number, rate)| {
        body.u16(*number).u32(*rate);
    });
    object(guids::STREAM_BITRATE_PROPERTIES, &body.finish())
}

/// The head of a Data Object of so many packets.
pub(crate) fn data_head(packets: u64, packet_size: u64) -> Vec<u8> {
    let mut out = Writer::default();
    out.guid(guids::DATA).u64(50 + packets * packet_size).guid(Guid([1; 16])).u64(packets).u16(0x0101);
    out.finish()
}

/// One payload of a packet to be made.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) stream: u8,
    pub(crate) key: bool,
    pub(crate) object: u32,
    pub(crate) offset: u32,
    pub(crate) presentation_ms: u32,
    /// What the piece says its object's size is, where that is not its own end.
    pub(crate) object_size: Option<usize>,
    pub(crate) form: Form,
}

/// What stands behind a payload's offset.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// No replicated data: neither size nor time.
    Bare(Vec<u8>),
    /// Size, time and so many bytes of payload extensions.
    Replicated(Vec<u8>, u8),
    /// Several objects, so many milliseconds apart.
    Compressed(Vec<Vec<u8>>, u8),
}

/// A packet to be made. The type fields are ASF's two-bit codes: none, u8, u16, u32.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Bytes of error correction data, if there is error correction.
    pub(crate) correction: Option<u8>,
    pub(crate) multiple: bool,
    pub(crate) packet_length: u8,
    pub(crate) sequence: u8,
    pub(crate) padding: u8,
    pub(crate) object: u8,
    pub(crate) offset: u8,
    pub(crate) replicated: u8,
    pub(crate) payload_length: u8,
    pub(crate) send_time_ms: u32,
    /// One where `multiple` is false.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes behind the last payload, where the form can have them.
    pub(crate) spare: usize,
}

fn put(out: &mut Vec<u8>, code: u8, value: usize) {
    let bytes = u32::try_from(value).unwrap().to_le_bytes();
    out.extend_from_slice(&bytes[..[0, 1, 2, 4][usize::from(code & 3)]]);
}

impl Plan {
    /// The packet's bytes.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.multiple {
            body.push(u8::try_from(self.pieces.len()).unwrap() | self.payload_length << 6);
        }
        for piece in &self.pieces {
            self.piece(piece, &mut body);
        }
        let mut plan = self.clone();
        if plan.padding == 1 {
            plan.spare = plan.spare.min(255);
        }
        if plan.padding == 0 && plan.packet_length == 0 && !plan.multiple {
            plan.spare = 0;
        }
        let total = plan.head(0).len() + body.len() + plan.spare;
        if plan.packet_length == 1 && total > 255 {
            plan.packet_length = 2;
        }
        let mut packet = plan.head(body.len());
        packet.extend_from_slice(&body);
        packet.resize(packet.len() + plan.spare, 0);
        packet
    }

    fn head(&self, body: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(len) = self.correction {
            out.push(0x80 | len);
            out.resize(1 + usize::from(len), 0);
        }
        out.push(u8::from(self.multiple) | self.sequence << 1 | self.padding << 3 | self.packet_length << 5);
        out.push(0x40 | self.object << 4 | self.offset << 2 | self.replicated);
        let width = |code: u8| [0, 1, 2, 4][usize::from(code & 3)];
        let rest = width(self.packet_length) + width(self.sequence) + width(self.padding) + 6 + body;
        // With a padding field the length covers the padding, without one it ends where the payloads do.
        let spare = if self.padding > 0 { self.spare } else { 0 };
        let stated = out.len() + rest + spare;
        put(&mut out, self.packet_length, if self.packet_length == 1 { stated.min(255) } else { stated });
        put(&mut out, self.sequence, 0xA5);
        put(&mut out, self.padding, self.spare);
        out.extend_from_slice(&self.send_time_ms.to_le_bytes());
        out.extend_from_slice(&[40, 0]);
        out
    }

    fn piece(&self, piece: &Piece, out: &mut Vec<u8>) {
        out.push(piece.stream | u8::from(piece.key) << 7);
        put(out, self.object, usize::try_from(piece.object).unwrap());
        let offset = if matches!(piece.form, Form::Compressed(..)) { piece.presentation_ms } else { piece.offset };
        put(out, self.offset, usize::try_from(offset).unwrap());
        let data = match &piece.form {
            Form::Bare(data) => {
                put(out, self.replicated, 0);
                data.clone()
            }
            Form::Replicated(data, extensions) => {
                put(out, self.replicated, 8 + usize::from(*extensions));
                let size = data.len() + usize::try_from(piece.offset).unwrap();
                put(out, 3, piece.object_size.unwrap_or(size));
                put(out, 3, usize::try_from(piece.presentation_ms).unwrap());
                out.resize(out.len() + usize::from(*extensions), 0xEE);
                data.clone()
            }
            Form::Compressed(objects, delta_ms) => {
                put(out, self.replicated, 1);
                out.push(*delta_ms);
                objects.iter().flat_map(|object| [vec![u8::try_from(object.len()).unwrap()], object.clone()].concat()).collect()
            }
        };
        if self.multiple {
            put(out, self.payload_length, data.len());
        }
        out.extend_from_slice(&data);
    }
}

fn media(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), len)
}

fn piece() -> impl Strategy<Value = Piece> {
    // Short enough for a payload length of one byte.
    let form = prop_oneof![
        1 => media(1..60).prop_map(Form::Bare),
        4 => (media(1..60), prop_oneof![Just(0_u8), 0..=247_u8]).prop_map(|(data, more)| Form::Replicated(data, more)),
        2 => (proptest::collection::vec(media(0..30), 1..5), any::<u8>()).prop_map(|(objects, delta)| Form::Compressed(objects, delta)),
    ];
    (1..=127_u8, any::<bool>(), any::<u8>(), prop_oneof![Just(0_u32), 0..0xFFFF_u32], any::<u32>(), form).prop_map(
        |(stream, key, object, offset, presentation_ms, form)| Piece {
            stream,
            key,
            object: u32::from(object),
            offset,
            presentation_ms,
            object_size: None,
            form,
        },
    )
}

/// Sound packets of every form.
pub(crate) fn plans() -> impl Strategy<Value = Plan> {
    let types = (any::<bool>(), 0..4_u8, 0..4_u8, 0..4_u8, 0..4_u8, 1..4_u8);
    let correction = prop_oneof![Just(None), Just(Some(2)), (0..16_u8).prop_map(Some)];
    (types, correction, any::<u32>(), proptest::collection::vec(piece(), 1..6), 0..400_usize).prop_map(
        |((multiple, packet_length, sequence, padding, object, payload_length), correction, send_time_ms, mut pieces, spare)| {
            if !multiple {
                pieces.truncate(1);
            }
            for piece in &mut pieces {
                if object == 0 {
                    piece.object = 0;
                }
            }
            Plan {
                correction,
                multiple,
                packet_length,
                sequence,
                padding,
                object,
                offset: 3,
                replicated: 1,
                payload_length,
                send_time_ms,
                pieces,
                spare,
            }
        },
    )
}
