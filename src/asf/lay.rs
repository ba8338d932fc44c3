//! Laying payloads into packets of another size, cut where they do not fit.

use super::layout::{Layout, RawPayload};
use crate::wire::DecodeError;

/// Bytes of a laid packet in front of its first payload: error correction, flags, padding length, times, payload flags.
pub(super) const HEAD_LEN: usize = 14;

/// Fewer bytes of media are not worth a payload head of their own.
pub(super) const MIN_PIECE: usize = 8;

/// Payloads of one packet.
const MAX_PAYLOADS: u8 = 63;

/// Replicated data that every piece has: size and presentation time of its object.
const SIZE_AND_TIME_LEN: usize = 8;

/// Where the fields stand in the head of a laid packet.
const PADDING_AT: usize = 5;
const DURATION_AT: usize = 11;
const PAYLOAD_FLAGS_AT: usize = 13;

/// Bytes of the fields in a payload's head; stream number and replicated data length always have one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    object: usize,
    offset: usize,
    length: usize,
}

/// The two-bit type of a width.
const fn code(width: usize) -> u8 {
    match width {
        0 => 0,
        1 => 1,
        2 => 2,
        _ => 3,
    }
}

impl Widths {
    /// What nearly every writer uses.
    pub(super) const USUAL: Self = Self { object: 1, offset: 4, length: 2 };

    /// The widths of a packet, or what is just wide enough for every place in its objects up to `extent`.
    pub(super) fn of(layout: &Layout, extent: u64) -> Self {
        let needed = match extent {
            0..=0xFF => layout.offset_width.max(1),
            0x100..=0xFFFF => layout.offset_width.max(2),
            _ => 4,
        };
        Self {
            object: layout.object_width.min(1),
            offset: needed,
            length: match layout.payload_length_width {
                1 => 1,
                _ => 2,
            },
        }
    }

    /// A payload's head without its replicated data.
    pub(super) const fn head(self) -> usize {
        2 + self.object + self.offset + self.length
    }

    const fn property_flags(self) -> u8 {
        0x40 | code(self.object) << 4 | code(self.offset) << 2 | 1
    }
}

/// What is left of a payload to lay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    /// With the key bit.
    stream: u8,
    object: u32,
    form: Form<'a>,
    data: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    /// An object or a piece of one.
    Plain {
        offset: u32,
        /// Without replicated data as long as it is not cut.
        bare: bool,
        size_and_time: [u8; SIZE_AND_TIME_LEN],
        extensions: &'a [u8],
    },
    /// Several whole objects, each behind a length byte: a compressed payload.
    Run {
        presentation_ms: u32,
        delta_ms: u8,
        /// Bytes of the first object that are laid already.
        laid: usize,
    },
}

impl<'a> Rest<'a> {
    /// All of a payload of a packet that was found sound. `bare` lets one without replicated data stay so, which says
    /// that its time is the packet's send time.
    ///
    /// # Errors
    /// Where the replicated data is longer than 255 bytes.
    pub(super) fn new(packet: &'a [u8], layout: &Layout, payload: &RawPayload, bare: bool) -> Result<Self, DecodeError> {
        if payload.replicated_len > 255 {
            return Err(DecodeError::Invalid {
                field: "replicated data length",
                offset: payload.replicated_at,
                reason: "over 255 bytes cannot be repeated in smaller packets",
            });
        }
        let part = |at: usize, len: usize| packet.get(at..at + len).unwrap_or_default();
        let data = part(payload.data_at, payload.data_len);
        let replicated = part(payload.replicated_at, payload.replicated_len);
        let presentation_ms = layout.presentation_ms(packet, payload);
        let form = if payload.is_compressed() {
            Form::Run { presentation_ms, delta_ms: replicated.first().copied().unwrap_or_default(), laid: 0 }
        } else {
            let (stated, extensions) =
                replicated.split_first_chunk().map_or((None, &[][..]), |(stated, more)| (Some(*stated), more));
            let size_and_time = stated.unwrap_or_else(|| {
                let size = payload.offset.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
                two(size, presentation_ms)
            });
            Form::Plain { offset: payload.offset, bare: bare && stated.is_none(), size_and_time, extensions }
        };
        let stream = payload.stream | u8::from(payload.key) << 7;
        let mut rest = Self { stream, object: payload.object, form, data };
        rest.pass_empty_objects();
        Ok(rest)
    }

    /// All of an object that was never in a packet; at most 4 GiB. `stream` has the key bit.
    pub(super) fn of_object(stream: u8, object: u8, presentation_ms: u32, data: &'a [u8]) -> Self {
        let size_and_time = two(u32::try_from(data.len()).unwrap_or(u32::MAX), presentation_ms);
        let form = Form::Plain { offset: 0, bare: false, size_and_time, extensions: &[] };
        Self { stream, object: object.into(), form, data }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub(super) const fn stream(&self) -> u8 {
        self.stream & 0x7F
    }

    /// Whether several objects stand in it, between which it may be cut.
    pub(super) const fn is_run(&self) -> bool {
        matches!(self.form, Form::Run { .. })
    }

    /// Whether it begins with the first byte of an object that is a key frame by its flag.
    pub(super) const fn begins_key(&self) -> bool {
        self.stream & 0x80 != 0 && matches!(self.form, Form::Plain { offset: 0, .. } | Form::Run { laid: 0, .. })
    }

    /// What it takes if it is not cut again, payload heads included.
    pub(super) fn size(&self, widths: Widths) -> usize {
        let head = widths.head();
        match self.form {
            _ if self.is_empty() => 0,
            Form::Plain { .. } => head + self.replicated_len() + self.data.len(),
            Form::Run { laid: 0, .. } => head + 1 + self.data.len(),
            Form::Run { laid, .. } => {
                let object = self.first_object().len();
                let behind = self.data.len().saturating_sub(1 + object);
                head + SIZE_AND_TIME_LEN + object.saturating_sub(laid) + if behind > 0 { head + 1 + behind } else { 0 }
            }
        }
    }

    /// Replicated data of a plain payload.
    const fn replicated_len(&self) -> usize {
        match self.form {
            Form::Plain { bare: false, extensions, .. } => SIZE_AND_TIME_LEN + extensions.len(),
            Form::Plain { .. } => 0,
            Form::Run { .. } => 1,
        }
    }

    /// The first object of a run.
    fn first_object(&self) -> &'a [u8] {
        let Some((len, rest)) = self.data.split_first() else { return &[] };
        rest.get(..usize::from(*len)).unwrap_or(rest)
    }

    /// Bytes of the whole objects at the start of a run that fit into `space`, their length bytes included.
    fn run_within(&self, space: usize) -> usize {
        let mut len = 0;
        while let Some(object) = self.data.get(len) {
            let end = len + 1 + usize::from(*object);
            if end > space.min(self.data.len()) {
                break;
            }
            len = end;
        }
        len
    }

    /// Leaves the first object of a run behind.
    fn pass_object(&mut self) {
        let len = 1 + self.first_object().len();
        if let Form::Run { presentation_ms, delta_ms, laid } = &mut self.form {
            *presentation_ms = presentation_ms.wrapping_add(u32::from(*delta_ms));
            *laid = 0;
        }
        self.object = self.object.wrapping_add(1);
        self.data = self.data.get(len..).unwrap_or_default();
    }

    /// Objects without a byte only count: the next one's number and time are further by one.
    fn pass_empty_objects(&mut self) {
        while self.is_run() && self.data.first() == Some(&0) {
            self.pass_object();
        }
    }
}

/// Two numbers as replicated data holds them.
fn two(first: u32, second: u32) -> [u8; 8] {
    (u64::from(second) << 32 | u64::from(first)).to_le_bytes()
}

/// A packet that payloads are laid into, at the end of a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenPacket {
    /// Where it begins in the buffer.
    start: usize,
    size: usize,
    widths: Widths,
    payloads: u8,
}

impl OpenPacket {
    /// Begins a packet of `size` bytes at the end of `out`; size and what is laid fit into the 16 bits of lengths.
    pub(super) fn begin(out: &mut Vec<u8>, size: usize, widths: Widths, send_time_ms: u32, duration_ms: u16) -> Self {
        let start = out.len();
        out.reserve(size);
        // Multiple payloads, a padding length of two bytes.
        out.extend_from_slice(&[0x82, 0, 0, 0x11, widths.property_flags(), 0, 0]);
        out.extend_from_slice(&send_time_ms.to_le_bytes());
        out.extend_from_slice(&duration_ms.to_le_bytes());
        out.push(code(widths.length) << 6);
        Self { start, size, widths, payloads: 0 }
    }

    /// Bytes left.
    pub(super) fn room(&self, out: &[u8]) -> usize {
        (self.start + self.size).saturating_sub(out.len())
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.payloads == 0
    }

    /// Lays as much of `rest` as `room` bytes take, and says how many it took; 0 where none of it fits.
    ///
    /// Objects of a run are cut only with `cut_objects`.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, rest: &mut Rest<'_>, room: usize, cut_objects: bool) -> usize {
        let before = out.len();
        match rest.form {
            Form::Plain { .. } => self.put_plain(out, rest, room),
            Form::Run { laid, .. } => {
                if laid > 0 {
                    self.put_object(out, rest, room);
                }
                if !rest.is_empty() && matches!(rest.form, Form::Run { laid: 0, .. }) {
                    let used = out.len() - before;
                    self.put_run(out, rest, room.saturating_sub(used), cut_objects);
                }
            }
        }
        out.len() - before
    }

    fn put_plain(&mut self, out: &mut Vec<u8>, rest: &mut Rest<'_>, room: usize) {
        let whole = rest.size(self.widths) <= room;
        let Form::Plain { offset, bare, size_and_time, extensions } = &mut rest.form else { return };
        let head = self.widths.head() + SIZE_AND_TIME_LEN + extensions.len();
        let len = if whole { rest.data.len() } else { room.saturating_sub(head).min(rest.data.len()) };
        if self.payloads == MAX_PAYLOADS || !whole && len < MIN_PIECE {
            return;
        }
        *bare &= whole;
        let (data, behind) = rest.data.split_at(len);
        let stated: &[u8] = if *bare { &[] } else { size_and_time };
        self.put_payload(out, (rest.stream, rest.object, *offset), &[stated, extensions], data);
        *offset = offset.wrapping_add(u32::try_from(len).unwrap_or_default());
        rest.data = behind;
    }

    /// Lays the first object of a run, or what is left of it, as a payload of its own.
    fn put_object(&mut self, out: &mut Vec<u8>, rest: &mut Rest<'_>, room: usize) {
        let object = rest.first_object();
        let Form::Run { presentation_ms, laid, .. } = &mut rest.form else { return };
        let left = object.get(*laid..).unwrap_or_default();
        let space = room.saturating_sub(self.widths.head() + SIZE_AND_TIME_LEN);
        let Some(data) = left.get(..space.min(left.len())) else { return };
        if self.payloads == MAX_PAYLOADS || data.len() < MIN_PIECE.min(left.len()) {
            return;
        }
        let number = |len: usize| u32::try_from(len).unwrap_or_default();
        let replicated = two(number(object.len()), *presentation_ms);
        self.put_payload(out, (rest.stream, rest.object, number(*laid)), &[&replicated], data);
        *laid += data.len();
        if *laid == object.len() {
            rest.pass_object();
            rest.pass_empty_objects();
        }
    }

    fn put_run(&mut self, out: &mut Vec<u8>, rest: &mut Rest<'_>, room: usize, cut_objects: bool) {
        let head = self.widths.head() + 1;
        let len = rest.run_within(room.saturating_sub(head));
        let mut spare = room;
        if len > 0 && self.payloads < MAX_PAYLOADS {
            let Form::Run { presentation_ms, delta_ms, .. } = rest.form else { return };
            let data = rest.data.get(..len).unwrap_or_default();
            self.put_payload(out, (rest.stream, rest.object, presentation_ms), &[&[delta_ms]], data);
            spare = room.saturating_sub(head + len);
            let behind = rest.data.len() - len;
            while rest.data.len() > behind {
                rest.pass_object();
            }
            rest.pass_empty_objects();
        }
        // Cutting an object costs two heads more; less than that is better left empty.
        let worth = if len > 0 { 2 * (self.widths.head() + SIZE_AND_TIME_LEN) } else { 0 };
        if cut_objects && !rest.is_empty() && spare >= worth {
            self.put_object(out, rest, spare);
        }
    }

    fn put_payload(&mut self, out: &mut Vec<u8>, (stream, object, offset): (u8, u32, u32), replicated: &[&[u8]], data: &[u8]) {
        let len = replicated.iter().map(|part| part.len()).sum::<usize>();
        out.push(stream);
        put_number(out, self.widths.object, object);
        put_number(out, self.widths.offset, offset);
        out.push(u8::try_from(len).unwrap_or(u8::MAX));
        replicated.iter().for_each(|part| out.extend_from_slice(part));
        put_number(out, self.widths.length, u32::try_from(data.len()).unwrap_or_default());
        out.extend_from_slice(data);
        self.payloads += 1;
    }

    /// Fills the packet up and closes it; another duration than it began with may be known now.
    pub(super) fn finish(self, out: &mut Vec<u8>, duration_ms: u16) {
        let padding = u16::try_from(self.room(out)).unwrap_or_default();
        out.resize(self.start + self.size, 0);
        let mut patch = |at: usize, bytes: &[u8]| {
            if let Some(field) = out.get_mut(self.start + at..self.start + at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        patch(PADDING_AT, &padding.to_le_bytes());
        patch(DURATION_AT, &duration_ms.to_le_bytes());
        patch(PAYLOAD_FLAGS_AT, &[code(self.widths.length) << 6 | self.payloads]);
    }
}

/// The low `width` bytes of a number.
fn put_number(out: &mut Vec<u8>, width: usize, value: u32) {
    out.extend_from_slice(value.to_le_bytes().get(..width).unwrap_or_default());
}
