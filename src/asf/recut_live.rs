//! Re-cutting the packets of a live stream, over the borders of the source's packets.

use super::lay::{HEAD_LEN, MIN_PIECE, OpenPacket, Rest, Widths};
use super::layout::Layout;
use super::packet::PacketError;
use super::{Header, StreamSet};
use crate::wire::DecodeError;

/// A packet that spans more send time would come too late.
const MAX_SPAN_MS: u32 = 300;

/// Lays a stream's payloads into packets of another size, one source packet after the other.
///
/// Packets are filled over source packet borders, so no number follows from a source packet's; the header that fits
/// is [`Header::with_packet_size`]. A packet is closed when it is full, before a key frame, and before it would span
/// more than 300 ms of send time. Sound that fits into a packet is not cut. All packets have object numbers of one byte
/// (the low one), and every object states its size and its time; send time is that of the first payload's source
/// packet, the duration reaches to the last one's.
#[derive(Debug, Clone)]
pub struct Recutter {
    size: usize,
    video: StreamSet,
    /// The open packet, if any: less than `size` bytes.
    buffer: Vec<u8>,
    open: Option<OpenPacket>,
    /// Send times of the first and the last source packet in it.
    first_ms: u32,
    last_ms: u32,
}

impl Recutter {
    /// For packets of the streams of `header`, to packets of `size` bytes, which is taken into 100 to 65527.
    pub fn new(header: &Header, size: usize) -> Self {
        Self { size: size.clamp(100, 65_527), video: header.video(), buffer: Vec::new(), open: None, first_ms: 0, last_ms: 0 }
    }

    /// Size of the packets it makes, bytes.
    pub const fn packet_size(&self) -> usize {
        self.size
    }

    /// Lays a packet's payloads and appends the packets that are finished by that; the last one mostly stays open.
    ///
    /// # Errors
    /// [`PacketError`] where the packet is invalid, or its replicated data too long to be repeated in each piece.
    /// Nothing of the packet is laid then.
    ///
    /// Source: ASF 5.2.
    pub fn push(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), PacketError> {
        let layout = Layout::parse(packet)?;
        let mut longest = 0;
        layout.each(packet, |payload| longest = longest.max(payload.replicated_len))?;
        if longest > usize::from(u8::MAX) || Widths::USUAL.head() + longest + MIN_PIECE > self.room() {
            return Err(PacketError(no_room()));
        }
        for payload in layout.heads(packet) {
            let rest = Rest::new(packet, &layout, &payload, false)?;
            self.lay(rest, layout.send_time_ms, out)?;
        }
        Ok(())
    }

    /// Appends the open packet, if there is one: at the end of the stream, or where it must wait no longer.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some(open) = self.open.take() {
            let duration_ms = u16::try_from(self.last_ms.wrapping_sub(self.first_ms)).unwrap_or(u16::MAX);
            open.finish(&mut self.buffer, duration_ms);
            out.append(&mut self.buffer);
        }
    }

    fn lay(&mut self, mut rest: Rest<'_>, send_time_ms: u32, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let video = self.video.contains(rest.stream());
        if send_time_ms.wrapping_sub(self.first_ms) > MAX_SPAN_MS {
            self.flush(out);
        }
        while !rest.is_empty() {
            let capacity = self.room();
            let Some(open) = self.open.as_mut() else {
                self.open = Some(OpenPacket::begin(&mut self.buffer, self.size, Widths::USUAL, send_time_ms, 0));
                self.first_ms = send_time_ms;
                continue;
            };
            let (room, size, fresh) = (open.room(&self.buffer), rest.size(Widths::USUAL), open.is_empty());
            let whole_behind = !video && !rest.is_run() && size > room && size <= capacity;
            if !fresh && (whole_behind || video && rest.begins_key()) {
                self.flush(out);
                continue;
            }
            let mut laid = open.put(&mut self.buffer, &mut rest, room, video);
            if laid == 0 && fresh {
                laid = open.put(&mut self.buffer, &mut rest, room, true);
            }
            if laid > 0 {
                self.last_ms = send_time_ms;
            } else if fresh {
                return Err(no_room());
            } else {
                self.flush(out);
            }
        }
        Ok(())
    }

    const fn room(&self) -> usize {
        self.size - HEAD_LEN
    }
}

#[cold]
const fn no_room() -> DecodeError {
    DecodeError::Invalid { field: "replicated data length", offset: 0, reason: "too long for the packets to re-cut to" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::plans;
    use crate::asf::fabricate_stream::{Fabricated, fabricated_header, objects, packet_streams};
    use crate::asf::{payloads, samples, send_time_ms, walk};

    fn recut(recutter: &mut Recutter, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for packet in packets {
            recutter.push(packet, &mut out).unwrap();
        }
        recutter.flush(&mut out);
        let before = out.len();
        recutter.flush(&mut out);
        assert_eq!((out.len(), out.len() % recutter.packet_size()), (before, 0));
        out.chunks(recutter.packet_size()).map(<[u8]>::to_vec).collect()
    }

    /// Stream, object, offset and length of each piece of sound.
    fn sound(video: StreamSet, packets: &[Vec<u8>]) -> Vec<(u8, u32, u32, usize)> {
        let all = packets.iter().flat_map(|packet| payloads(packet).unwrap());
        let sound = all.filter(|payload| !video.contains(payload.stream));
        sound.map(|payload| (payload.stream, payload.object & 0xFF, payload.offset, payload.data.len())).collect()
    }

    fn check(recutter: &mut Recutter, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let video = recutter.video;
        let found = recut(recutter, packets);
        assert_eq!(objects(&found), objects(packets));
        // Of several key frames in one compressed payload only the first begins a packet.
        let is_run = |packet: &Vec<u8>| Layout::parse(packet).unwrap().heads(packet).any(|payload| payload.is_compressed());
        let runs = packets.iter().any(is_run);
        for packet in &found {
            assert!(u32::from(walk(packet).unwrap().duration_ms) <= MAX_SPAN_MS);
            let starts = |payload: &crate::asf::Payload<'_>| video.contains(payload.stream) && payload.key && payload.offset == 0;
            assert!(runs || payloads(packet).unwrap().skip(1).all(|payload| !starts(&payload)), "a key frame inside");
        }
        // 17 bytes of head, and what payload extensions the generator makes.
        let fits = recutter.room() - 17 - 40;
        let after: std::collections::HashSet<_> = sound(video, &found).into_iter().collect();
        assert!(sound(video, packets).iter().all(|piece| piece.3 > fits || after.contains(piece)), "sound that fits was cut");
        let (Some(first), Some(last)) = (packets.first(), packets.last()) else { return found };
        let (first, last) = (send_time_ms(first).unwrap(), send_time_ms(last).unwrap());
        let sent: Vec<_> = found.iter().map(|packet| send_time_ms(packet).unwrap()).collect();
        assert!(sent.is_sorted() && sent.iter().all(|ms| (first..=last).contains(ms)));
        found
    }

    #[test]
    fn samples_re_cut() {
        for (name, count, size) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            check(&mut Recutter::new(&header, 700), &packets);
            let found = check(&mut Recutter::new(&header, 1400), &packets).len();
            assert!(found <= count * size.div_ceil(1_400 - 17), "{name}: {count} packets of {size} became {found}");
        }
    }

    #[test]
    fn packets_are_filled_over_borders() {
        let (header, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        let found = check(&mut Recutter::new(&header, 1400), &packets);
        let ratio = found.len() * 100 / packets.len();
        assert!((220..270).contains(&ratio), "{} packets of 3200 became {} of 1400", packets.len(), found.len());
    }

    #[test]
    fn a_source_that_starts_over_closes_the_packet() {
        let (header, packets) = samples::stream("edge-packets-pcmu.asf");
        let mut recutter = Recutter::new(&header, 1400);
        let mut out = Vec::new();
        recutter.push(&packets[60], &mut out).unwrap();
        assert!(out.is_empty());
        recutter.push(&packets[0], &mut out).unwrap();
        assert_eq!(out.len(), 1400);
        recutter.flush(&mut out);
        let sent: Vec<_> = out.chunks(1400).map(|packet| send_time_ms(packet).unwrap()).collect();
        assert_eq!(sent, [send_time_ms(&packets[60]).unwrap(), send_time_ms(&packets[0]).unwrap()]);
    }

    #[test]
    fn an_invalid_packet_changes_nothing() {
        let (header, packets) = samples::stream("h264-aac-nobframes.asf");
        let (mut recutter, mut out) = (Recutter::new(&header, 1400), Vec::new());
        recutter.push(&packets[0], &mut out).unwrap();
        let (before, len) = (recutter.buffer.clone(), out.len());
        assert!(recutter.push(&packets[1][..500], &mut out).is_err());
        // Replicated data of 300 bytes, which a length of two bytes can say.
        let mut long = vec![0x82, 0, 0, 0x08, 0x5E, 0, 7, 0, 0, 0, 0, 0, 0x81, 1, 0, 0, 0, 0, 0x2C, 1];
        long.resize(3200, 1);
        assert!(walk(&long).is_ok() && recutter.push(&long, &mut out).is_err());
        assert_eq!((recutter.buffer, out.len()), (before, len));
    }

    proptest! {
        #[test]
        fn objects_survive(Fabricated { header, packets } in packet_streams(), size in prop_oneof![Just(1400_usize), 100..3_000_usize]) {
            check(&mut Recutter::new(&header, size), &packets);
        }

        #[test]
        fn any_packet_never_panics(plans in proptest::collection::vec((plans(), any::<u16>(), any::<u8>()), 1..4), size in 0..700_usize) {
            let mut recutter = Recutter::new(&fabricated_header(400, 0), size);
            let mut out = Vec::new();
            for (plan, at, value) in plans {
                let mut packet = plan.build();
                let at = usize::from(at) % packet.len();
                packet[at] = value;
                let _ = recutter.push(&packet, &mut out);
            }
            recutter.flush(&mut out);
            for packet in out.chunks(recutter.packet_size()) {
                prop_assert!(packet.len() == recutter.packet_size() && walk(packet).is_ok());
            }
        }

        #[test]
        fn any_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut out = Vec::new();
            let _ = Recutter::new(&fabricated_header(400, 0), 150).push(&packet, &mut out);
        }
    }
}
