//! The payloads of a packet, one media object or piece of one each.

use super::layout::{Layout, RawPayload};
use super::packet::{PacketError, walk_by};

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
    walk_by(&layout, packet)?;
    Ok(Payloads { packet, layout, left: layout.payloads, current: None, objects: None })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::{Form, plans};
    use crate::asf::samples;

    /// The file holds packet forms that common writers never use; its objects joined are a known tone.
    #[test]
    fn edge_packets_hold_the_tone() {
        let (header, packets) = samples::stream("edge-packets-pcmu.asf");
        let (mut tone, mut next) = (Vec::new(), 0);
        for payload in packets.iter().flat_map(|packet| payloads(packet).unwrap()) {
            assert_eq!((payload.stream, payload.offset, payload.object_size), (1, 0, 160));
            assert_eq!(payload.object, next & 0xFF);
            assert_eq!(payload.presentation_ms, header.preroll_ms() + next * 20);
            tone.extend_from_slice(payload.data);
            next += 1;
        }
        assert_eq!(next, 300);
        assert!(tone == samples::bytes("edge-packets-pcmu.expected.ul"), "the joined objects differ from the tone");
    }

    /// Every media object of every sample is complete: pieces join without gap up to the stated size.
    #[test]
    fn objects_of_the_samples_are_whole() {
        for (name, ..) in samples::STREAMS {
            let mut open: [Option<(u32, u32, u32)>; 128] = [None; 128];
            let (_, packets) = samples::stream(name);
            for payload in packets.iter().flat_map(|packet| payloads(packet).unwrap()) {
                let slot = &mut open[usize::from(payload.stream)];
                let (object, got, size) = *slot.get_or_insert((payload.object, 0, payload.object_size));
                assert_eq!((payload.object, payload.offset, payload.object_size), (object, got, size), "{name}");
                let got = got + u32::try_from(payload.data.len()).unwrap();
                *slot = (got < size).then_some((object, got, size));
            }
            assert_eq!(open, [None; 128], "{name}: an object lacks its end");
        }
    }

    proptest! {
        #[test]
        fn payloads_are_what_was_put_in(plan in plans()) {
            let mut expected = Vec::new();
            for piece in &plan.pieces {
                let mask = [0, 0xFF, 0xFFFF, u32::MAX][usize::from(plan.object)];
                match &piece.form {
                    Form::Bare(data) => expected.push((piece.stream, piece.object & mask, piece.offset, plan.send_time_ms, data.clone())),
                    Form::Replicated(data, _) => expected.push((piece.stream, piece.object & mask, piece.offset, piece.presentation_ms, data.clone())),
                    Form::Compressed(objects, delta) => {
                        for (n, data) in (0_u32..).zip(objects).filter(|(_, data)| !data.is_empty()) {
                            let time = piece.presentation_ms.wrapping_add(n * u32::from(*delta));
                            expected.push((piece.stream, (piece.object + n) & mask, 0, time, data.clone()));
                        }
                    }
                }
            }
            let packet = plan.build();
            let found: Vec<_> =
                payloads(&packet).unwrap().map(|p| (p.stream, p.object, p.offset, p.presentation_ms, p.data.to_vec())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
