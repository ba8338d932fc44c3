//! The payloads of a packet, one media object or piece of one each.

use super::packet::{Layout, PacketError, RawPayload};

/// A media object, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Stream number, 1 to 127.
    pub stream: u8,
    /// Number of the media object in its stream; it wraps at the width that the packet gives it, one byte mostly.
    pub object: u32,
    /// The object is a key frame by its flag. Audio rarely sets it.
    pub key: bool,
    /// Where the piece belongs in its object, bytes.
    pub offset: u32,
    /// Size of the whole object as stated, bytes; some writers put 0 into later pieces.
    pub object_size: u32,
    /// When to show the object, preroll included.
    pub presentation_ms: u32,
    /// The media, never empty.
    pub data: &'a [u8],
}

/// The payloads of a packet, in order. Compressed payloads come apart into their objects; empty ones are passed over.
///
/// # Errors
/// [`PacketError`] as [`super::packet::walk`]; the iteration itself cannot fail.
///
/// Source: ASF 5.2.3.
pub fn payloads(packet: &[u8]) -> Result<Payloads<'_>, PacketError> {
    let layout = Layout::parse(packet)?;
    layout.walk(packet)?;
    Ok(Payloads { packet, layout, left: layout.payload_count(), current: None, objects: None })
}

/// Iterator over the payloads of one packet.
#[derive(Debug, Clone)]
pub struct Payloads<'a> {
    packet: &'a [u8],
    layout: Layout,
    left: u8,
    current: Option<RawPayload>,
    /// What is left of a compressed payload, and the next object of it.
    objects: Option<Objects<'a>>,
}

/// The objects of a compressed payload: a length byte, then so many bytes, again and again.
#[derive(Debug, Clone, Copy)]
struct Objects<'a> {
    rest: &'a [u8],
    object: u32,
    presentation_ms: u32,
    /// From one object to the next.
    delta_ms: u32,
}

impl<'a> Payloads<'a> {
    /// Numbers wrap at their own width.
    fn wrap(&self, object: u32) -> u32 {
        match self.layout.object_width {
            0 => 0,
            1 => object & 0xFF,
            2 => object & 0xFFFF,
            _ => object,
        }
    }

    fn next_object(&mut self) -> Option<Payload<'a>> {
        let (payload, mut objects) = (self.current?, self.objects?);
        loop {
            let found = objects.rest.split_first().and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)));
            let Some((data, rest)) = found else {
                self.objects = None;
                return None;
            };
            let object = self.wrap(objects.object);
            let presentation_ms = objects.presentation_ms;
            objects.rest = rest;
            objects.object = objects.object.wrapping_add(1);
            objects.presentation_ms = presentation_ms.wrapping_add(objects.delta_ms);
            if data.is_empty() {
                continue;
            }
            self.objects = Some(objects);
            return Some(Payload {
                stream: payload.stream,
                object,
                key: payload.key,
                offset: 0,
                object_size: u32::try_from(data.len()).unwrap_or(u32::MAX),
                presentation_ms,
                data,
            });
        }
    }
}

impl<'a> Iterator for Payloads<'a> {
    type Item = Payload<'a>;

    fn next(&mut self) -> Option<Payload<'a>> {
        loop {
            if let Some(object) = self.next_object() {
                return Some(object);
            }
            self.left = self.left.checked_sub(1)?;
            // The walk in `payloads` has found every one of them sound.
            let payload = self.layout.nth_from(self.packet, self.current.as_ref())?;
            self.current = Some(payload);
            let data = self.packet.get(payload.data_at..)?.get(..payload.data_len)?;
            let replicated = self.packet.get(payload.replicated_at..)?;
            let presentation_ms = self.layout.presentation_ms(self.packet, &payload);
            if payload.is_compressed() {
                let delta_ms = u32::from(*replicated.first()?);
                self.objects = Some(Objects { rest: data, object: payload.object, presentation_ms, delta_ms });
            } else if !data.is_empty() {
                let stated = replicated.first_chunk().filter(|_| payload.replicated_len >= 8);
                return Some(Payload {
                    stream: payload.stream,
                    object: payload.object,
                    key: payload.key,
                    offset: payload.offset,
                    object_size: stated
                        .map_or_else(|| u32::try_from(data.len()).unwrap_or(u32::MAX), |size| u32::from_le_bytes(*size)),
                    presentation_ms,
                    data,
                });
            }
        }
    }
}
