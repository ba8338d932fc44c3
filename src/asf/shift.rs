//! Moving a packet in time, and numbering its objects on, without laying it out anew.

use super::StreamSet;
use super::layout::{Layout, RawPayload};
use super::packet::{PacketError, PacketInfo, walk_by};

/// What to add to the times and object numbers of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// Milliseconds on send and presentation times; wraps, so that it can also mean earlier.
    pub delta_ms: u32,
    /// On the media object numbers of each stream; wraps at the width that the packet gives them.
    pub objects: [u8; 128],
}

impl Shift {
    /// Times only.
    pub const fn times(delta_ms: u32) -> Self {
        Self { delta_ms, objects: [0; 128] }
    }
}

/// Walks a packet and shifts its send time, every presentation time and every object number in place.
///
/// What is returned describes the packet as it is afterwards.
///
/// # Errors
/// [`PacketError`] as [`super::packet::walk`]; the packet is then untouched.
pub fn shift(packet: &mut [u8], shift: &Shift) -> Result<PacketInfo, PacketError> {
    apply(packet, Deltas::both(shift.delta_ms), |payload, _| add_u8(payload.object, &shift.objects, payload.stream))
}

/// Adds `delta_ms`, which wraps, to every presentation time of a packet and to nothing else, in place.
///
/// # Errors
/// [`PacketError`] as [`super::packet::walk`]; the packet is then untouched.
pub(super) fn shift_presentation(packet: &mut [u8], delta_ms: u32) -> Result<(), PacketError> {
    apply(packet, Deltas { send_ms: 0, presentation_ms: delta_ms }, |payload, _| payload.object).map(drop)
}

/// Added to the times of a packet, milliseconds; they wrap.
#[derive(Clone, Copy)]
struct Deltas {
    send_ms: u32,
    presentation_ms: u32,
}

impl Deltas {
    const fn both(ms: u32) -> Self {
        Self { send_ms: ms, presentation_ms: ms }
    }
}

fn add_u8(object: u32, deltas: &[u8; 128], stream: u8) -> u32 {
    object.wrapping_add(u32::from(deltas.get(usize::from(stream)).copied().unwrap_or_default()))
}

/// The shared pass: `renumber` is told each payload and how many objects it holds, and says its new number.
fn apply(
    packet: &mut [u8],
    deltas: Deltas,
    mut renumber: impl FnMut(&RawPayload, u32) -> u32,
) -> Result<PacketInfo, PacketError> {
    let layout = Layout::parse(packet)?;
    // A first pass for the errors: a packet is shifted whole or not at all.
    let info = walk_by(&layout, packet)?;
    put(packet, layout.send_time_at, 4, layout.send_time_ms.wrapping_add(deltas.send_ms));
    let mut last = None;
    for _ in 0..info.payloads {
        let Some(payload) = layout.nth_from(packet, last.as_ref()) else { break };
        if let Some(at) = payload.presentation_at() {
            let time = packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes));
            put(packet, at, 4, time.wrapping_add(deltas.presentation_ms));
        }
        if payload.data_len > 0 {
            let object = renumber(&payload, objects_of(packet, &payload));
            put(packet, payload.object_at, layout.object_width, object);
        }
        last = Some(payload);
    }
    Ok(PacketInfo {
        send_time_ms: info.send_time_ms.wrapping_add(deltas.send_ms),
        first_presentation_ms: info.first_presentation_ms.wrapping_add(deltas.presentation_ms),
        ..info
    })
}

/// How many object numbers a payload uses up.
fn objects_of(packet: &[u8], payload: &RawPayload) -> u32 {
    if !payload.is_compressed() {
        return 1;
    }
    let mut rest = packet.get(payload.data_at..).and_then(|rest| rest.get(..payload.data_len)).unwrap_or_default();
    let mut objects = 0;
    while let Some((len, behind)) = rest.split_first() {
        objects += 1;
        rest = behind.get(usize::from(*len)..).unwrap_or_default();
    }
    objects
}

/// Writes the low `width` bytes of `value`.
fn put(packet: &mut [u8], at: usize, width: usize, value: u32) {
    if let (Some(field), Some(bytes)) = (packet.get_mut(at..at + width), value.to_le_bytes().get(..width)) {
        field.copy_from_slice(bytes);
    }
}

/// Keeps each stream's media object numbers running on while its source starts over.
///
/// Receivers tell objects apart by number alone. If a new source's first object had the number of the old one's
/// last, a player would join the two into one broken object.
#[derive(Debug, Clone)]
pub struct ObjectNumbers {
    /// The last number that went out, by stream.
    last: [u8; 128],
    delta: [u8; 128],
    /// Streams that have ever had an object.
    known: StreamSet,
    /// Streams that have had one since the last restart.
    settled: StreamSet,
}

impl Default for ObjectNumbers {
    fn default() -> Self {
        Self { last: [0; 128], delta: [0; 128], known: StreamSet::EMPTY, settled: StreamSet::EMPTY }
    }
}

impl ObjectNumbers {
    /// No stream known yet: numbers pass as they are until the first [`Self::restart`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The source starts over: in each stream the next object, whatever its number, follows the last one sent.
    pub const fn restart(&mut self) {
        self.settled = StreamSet::EMPTY;
    }

    /// Walks a packet, shifts its times by `delta_ms` (wrapping) and numbers its objects on, all in place.
    ///
    /// What is returned describes the packet as it is afterwards.
    ///
    /// # Errors
    /// [`PacketError`] as [`super::packet::walk`]; the packet is then untouched and no number is used up.
    pub fn shift(&mut self, packet: &mut [u8], delta_ms: u32) -> Result<PacketInfo, PacketError> {
        apply(packet, Deltas::both(delta_ms), |payload, objects| self.renumber(payload, objects))
    }

    fn renumber(&mut self, payload: &RawPayload, objects: u32) -> u32 {
        let stream = payload.stream;
        let [object, ..] = payload.object.to_le_bytes();
        let [objects, ..] = objects.wrapping_sub(1).to_le_bytes();
        let (Some(last), Some(delta)) = (self.last.get_mut(usize::from(stream)), self.delta.get_mut(usize::from(stream))) else {
            return payload.object;
        };
        if !self.settled.contains(stream) {
            *delta = if self.known.contains(stream) { last.wrapping_add(1).wrapping_sub(object) } else { 0 };
            self.settled.insert(stream);
            self.known.insert(stream);
        }
        *last = object.wrapping_add(*delta).wrapping_add(objects);
        add_u8(payload.object, &self.delta, stream)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::plans;
    use crate::asf::{payloads, samples, walk};

    fn objects(packets: &[Vec<u8>], stream: u8) -> Vec<u32> {
        let mut numbers: Vec<_> = packets
            .iter()
            .flat_map(|packet| payloads(packet).unwrap())
            .filter(|p| p.stream == stream)
            .map(|p| p.object)
            .collect();
        numbers.dedup();
        numbers
    }

    #[test]
    fn numbers_run_on_over_restarts() {
        for (name, ..) in samples::STREAMS {
            let (header, lap) = samples::stream(name);
            let mut numbers = ObjectNumbers::new();
            let mut out = Vec::new();
            for n in 0..3 {
                for packet in &lap {
                    let mut packet = packet.clone();
                    let info = numbers.shift(&mut packet, n * 100_000).unwrap();
                    assert_eq!(info, walk(&packet).unwrap(), "{name}");
                    out.push(packet);
                }
                numbers.restart();
            }
            assert!(out[..lap.len()] == lap[..], "{name}: the first lap passes as it is");
            for stream in header.streams() {
                let found = objects(&out, stream.number);
                assert_eq!(found.len(), 3 * objects(&lap, stream.number).len(), "{name}: no two objects become one");
                assert!(found.windows(2).all(|pair| pair[1] == (pair[0] + 1) & 0xFF), "{name}, stream {}", stream.number);
            }
        }
    }

    #[test]
    fn an_invalid_packet_uses_no_number_and_stays_as_it_is() {
        let (_, packets) = samples::stream("h264-aac-nobframes.asf");
        let mut numbers = ObjectNumbers::new();
        let mut good = packets[0].clone();
        numbers.shift(&mut good, 0).unwrap();
        let before = numbers.clone();
        let mut bad = packets[1].clone();
        bad.truncate(20);
        let copy = bad.clone();
        assert!(numbers.shift(&mut bad, 5).is_err() && shift(&mut bad, &Shift::times(5)).is_err());
        assert_eq!((bad, numbers.last, numbers.delta), (copy, before.last, before.delta));
    }

    proptest! {
        #[test]
        fn shifts_times_and_numbers_and_back(plan in plans(), delta_ms in any::<u32>(), by in any::<u8>()) {
            let packet = plan.build();
            let mut moved = packet.clone();
            let info = shift(&mut moved, &Shift { delta_ms, objects: [by; 128] }).unwrap();
            prop_assert_eq!(info, walk(&moved).unwrap());
            prop_assert_eq!(info.send_time_ms, plan.send_time_ms.wrapping_add(delta_ms));
            let mask = [0, 0xFF, 0xFFFF, u32::MAX][usize::from(plan.object)];
            for (before, after) in payloads(&packet).unwrap().zip(payloads(&moved).unwrap()) {
                prop_assert_eq!(after.presentation_ms, before.presentation_ms.wrapping_add(delta_ms));
                prop_assert_eq!(after.object, before.object.wrapping_add(u32::from(by)) & mask);
                prop_assert_eq!((after.stream, after.key, after.offset, after.data), (before.stream, before.key, before.offset, before.data));
            }
            if plan.object <= 1 {
                shift(&mut moved, &Shift { delta_ms: delta_ms.wrapping_neg(), objects: [by.wrapping_neg(); 128] }).unwrap();
                prop_assert_eq!(moved, packet);
            }
        }

        #[test]
        fn any_bytes_never_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..200), delta_ms in any::<u32>()) {
            let copy = packet.clone();
            let sound = ObjectNumbers::new().shift(&mut packet, delta_ms).is_ok();
            prop_assert!(sound || packet == copy);
        }
    }
}
