//! Where the parts of a packet are: every length in it, checked against the packet's own slice.
//!
//! Nearly every length has a type of its own, 0 to 4 bytes, and all of them are the writer's word.

use crate::wire::DecodeError;

/// A packet longer than this fits no wire that the relay speaks.
pub(super) const MAX_PACKET_LEN: usize = 65_535;

/// Bytes of a field by its two-bit type: none, u8, u16, u32.
const fn width(code: u8) -> usize {
    match code & 3 {
        0 => 0,
        1 => 1,
        2 => 2,
        _ => 4,
    }
}

#[cold]
const fn short(field: &'static str, offset: usize, needed: usize, len: usize) -> DecodeError {
    DecodeError::Short { field, offset, missing: (offset + needed).saturating_sub(len) }
}

#[cold]
const fn invalid(field: &'static str, offset: usize, reason: &'static str) -> DecodeError {
    DecodeError::Invalid { field, offset, reason }
}

#[inline]
fn byte(bytes: &[u8], at: usize, field: &'static str) -> Result<u8, DecodeError> {
    bytes.get(at).copied().ok_or_else(|| short(field, at, 1, bytes.len()))
}

/// A little-endian number of 0, 1, 2 or 4 bytes; 0 where it is absent.
#[inline(always)]
fn number(bytes: &[u8], at: usize, width: usize, field: &'static str) -> Result<u32, DecodeError> {
    let rest = bytes.get(at..).unwrap_or_default();
    let value = match width {
        0 => Some(0),
        1 => rest.first().map(|byte| u32::from(*byte)),
        2 => rest.first_chunk().map(|bytes| u32::from(u16::from_le_bytes(*bytes))),
        _ => rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)),
    };
    value.ok_or_else(|| short(field, at, width, bytes.len()))
}

fn length(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Where the parts of one packet are. Offsets are bytes from its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// The length type flags; error correction stands before them.
    pub(super) flags_at: usize,
    /// The sequence field, behind the packet length.
    pub(super) sequence_at: usize,
    pub(super) padding_at: usize,
    pub(super) send_time_at: usize,
    /// Where the payloads must end: the explicit packet length, or the bytes there are.
    limit: usize,
    /// The limit less the padding.
    end: usize,
    padding: usize,
    first_payload_at: usize,
    multiple: bool,
    /// Widths of fields in bytes.
    pub(super) packet_length_width: usize,
    pub(super) padding_width: usize,
    pub(super) payload_length_width: usize,
    replicated_width: usize,
    pub(super) offset_width: usize,
    pub(super) object_width: usize,
    pub(super) send_time_ms: u32,
    pub(super) duration_ms: u16,
    pub(super) payloads: u8,
}

/// One payload's head, checked against its packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawPayload {
    pub(super) stream: u8,
    pub(super) key: bool,
    pub(super) object_at: usize,
    pub(super) object: u32,
    pub(super) offset_at: usize,
    /// Offset into the media object; the presentation time of a compressed payload.
    pub(super) offset: u32,
    pub(super) replicated_at: usize,
    pub(super) replicated_len: usize,
    pub(super) data_at: usize,
    pub(super) data_len: usize,
}

impl RawPayload {
    /// Several whole objects in one payload.
    pub(super) const fn is_compressed(&self) -> bool {
        self.replicated_len == 1
    }

    /// Where the presentation time stands, if the payload has one of its own.
    pub(super) const fn presentation_at(&self) -> Option<usize> {
        match self.replicated_len {
            0 => None,
            1 => Some(self.offset_at),
            _ => Some(self.replicated_at + 4),
        }
    }

    const fn next(&self) -> usize {
        self.data_at + self.data_len
    }
}

impl Layout {
    /// Reads everything in front of the first payload.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, DecodeError> {
        if packet.len() > MAX_PACKET_LEN {
            return Err(invalid("packet", 0, "over 65535 bytes"));
        }
        let first = byte(packet, 0, "error correction flags")?;
        let flags_at = if first & 0x80 == 0 {
            0
        } else if first & 0x70 == 0 {
            1 + usize::from(first & 0x0F)
        } else {
            return Err(invalid("error correction flags", 0, "opaque data or a length type other than 0"));
        };
        let flags = byte(packet, flags_at, "length type flags")?;
        let properties = byte(packet, flags_at + 1, "property flags")?;
        if flags & 0x80 != 0 {
            return Err(invalid("length type flags", flags_at, "error correction bit where none can be"));
        }
        if properties >> 6 != 1 {
            return Err(invalid("property flags", flags_at + 1, "stream numbers are not one byte"));
        }
        let (packet_length_width, padding_width) = (width(flags >> 5), width(flags >> 3));
        let sequence_at = flags_at + 2 + packet_length_width;
        let padding_at = sequence_at + width(flags >> 1);
        let send_time_at = padding_at + padding_width;
        let packet_length = number(packet, flags_at + 2, packet_length_width, "packet length")?;
        let padding = length(number(packet, padding_at, padding_width, "padding length")?);
        let send_time_ms = number(packet, send_time_at, 4, "send time")?;
        let duration = number(packet, send_time_at + 4, 2, "duration")?;

        let explicit = packet_length_width > 0;
        let limit = if explicit { length(packet_length).min(packet.len()) } else { packet.len() };
        let multiple = flags & 1 != 0;
        let mut first_payload_at = send_time_at + 6;
        let (payloads, payload_length_width) = if multiple {
            let payload_flags = byte(packet, first_payload_at, "payload flags")?;
            if payload_flags & 0x3F == 0 {
                return Err(invalid("payload flags", first_payload_at, "no payloads"));
            }
            if payload_flags >> 6 == 0 {
                return Err(invalid("payload flags", first_payload_at, "payloads without lengths"));
            }
            first_payload_at += 1;
            (payload_flags & 0x3F, width(payload_flags >> 6))
        } else {
            (1, 0)
        };
        if limit < first_payload_at {
            return Err(invalid("packet length", flags_at + 2, "less than the packet's own head"));
        }
        let end = match limit.checked_sub(padding) {
            Some(end) => end,
            // GStreamer counts padding outside an explicit length. Payloads with lengths of their own need neither.
            None if multiple && explicit => limit,
            None => return Err(invalid("padding length", padding_at, "more than the packet")),
        };
        Ok(Self {
            flags_at,
            sequence_at,
            padding_at,
            send_time_at,
            limit,
            end,
            padding,
            first_payload_at,
            payloads,
            multiple,
            packet_length_width,
            padding_width,
            payload_length_width,
            replicated_width: width(properties),
            offset_width: width(properties >> 2),
            object_width: width(properties >> 4),
            send_time_ms,
            duration_ms: u16::try_from(duration).unwrap_or(u16::MAX),
        })
    }

    /// Whether a padding length stands that is not zero, beside an explicit packet length.
    pub(super) const fn pads_inside_length(&self) -> bool {
        self.packet_length_width > 0 && self.padding > 0
    }

    /// The head of the payload that begins at `at`.
    #[inline(always)]
    fn payload(&self, packet: &[u8], at: usize) -> Result<RawPayload, DecodeError> {
        // `limit` is at most the packet's length.
        let bytes = packet.get(..self.limit).unwrap_or_default();
        let stream = byte(bytes, at, "stream number")?;
        if stream & 0x7F == 0 {
            return Err(invalid("stream number", at, "0 is not a stream"));
        }
        let object_at = at + 1;
        let object = number(bytes, object_at, self.object_width, "media object number")?;
        let offset_at = object_at + self.object_width;
        let offset = number(bytes, offset_at, self.offset_width, "offset into media object")?;
        let replicated_len_at = offset_at + self.offset_width;
        let replicated_len = length(number(bytes, replicated_len_at, self.replicated_width, "replicated data length")?);
        let replicated_at = replicated_len_at + self.replicated_width;
        if matches!(replicated_len, 2..=7) {
            return Err(invalid("replicated data length", replicated_len_at, "2 to 7 has no meaning"));
        }
        if replicated_len == 1 && self.offset_width != 4 {
            return Err(invalid("offset into media object", offset_at, "too narrow for a compressed payload's time"));
        }
        if replicated_len > bytes.len().saturating_sub(replicated_at) {
            return Err(short("replicated data", replicated_at, replicated_len, bytes.len()));
        }
        let mut data_at = replicated_at + replicated_len;
        let data_len = if self.multiple {
            let data_len = length(number(bytes, data_at, self.payload_length_width, "payload length")?);
            data_at += self.payload_length_width;
            if data_len > bytes.len() - data_at {
                return Err(short("payload", data_at, data_len, bytes.len()));
            }
            data_len
        } else {
            match self.end.checked_sub(data_at) {
                Some(data_len @ 1..) => data_len,
                _ => return Err(invalid("padding length", self.padding_at, "leaves nothing for the payload")),
            }
        };
        let payload = RawPayload {
            stream: stream & 0x7F,
            key: stream & 0x80 != 0,
            object_at,
            object,
            offset_at,
            offset,
            replicated_at,
            replicated_len,
            data_at,
            data_len,
        };
        if payload.is_compressed() {
            check_compressed(bytes, &payload)?;
        }
        Ok(payload)
    }

    /// Hands every payload to `visit`, empty ones too, and returns where the last one ends.
    pub(super) fn each(&self, packet: &[u8], mut visit: impl FnMut(&RawPayload)) -> Result<usize, DecodeError> {
        let mut at = self.first_payload_at;
        for _ in 0..self.payloads {
            let payload = self.payload(packet, at)?;
            visit(&payload);
            at = payload.next();
        }
        Ok(at)
    }

    /// Presentation time of a payload's (first) object; without replicated data that is the send time.
    pub(super) fn presentation_ms(&self, packet: &[u8], payload: &RawPayload) -> u32 {
        payload.presentation_at().and_then(|at| number(packet, at, 4, "presentation time").ok()).unwrap_or(self.send_time_ms)
    }

    /// Payload heads one after the other, for a caller that keeps its own place; `None` after the last.
    pub(super) fn nth_from(&self, packet: &[u8], previous: Option<&RawPayload>) -> Option<RawPayload> {
        self.payload(packet, previous.map_or(self.first_payload_at, RawPayload::next)).ok()
    }

    /// All payload heads of a packet that is sound.
    pub(super) fn heads(self, packet: &[u8]) -> impl Iterator<Item = RawPayload> {
        let first = self.nth_from(packet, None);
        std::iter::successors(first, move |last| self.nth_from(packet, Some(last))).take(usize::from(self.payloads))
    }

    /// Where the last payload ends, of a packet that is sound.
    pub(super) fn used(&self, packet: &[u8]) -> Result<usize, DecodeError> {
        self.each(packet, |_| ())
    }
}

/// Checks that the lengths inside a compressed payload end where it ends.
fn check_compressed(bytes: &[u8], payload: &RawPayload) -> Result<(), DecodeError> {
    let end = payload.next();
    let mut at = payload.data_at;
    while at < end {
        at += 1 + usize::from(byte(bytes, at, "compressed payload length")?);
    }
    if at > end {
        return Err(invalid("compressed payload length", payload.data_at, "an object runs past the payload's end"));
    }
    Ok(())
}
