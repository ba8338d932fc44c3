//! Selection and thinning: packets without the payloads that a viewer does not want.
//!
//! Payloads are kept or dropped, and an object always with all of its payloads: one that was begun is sent to its end,
//! and one whose beginning was not sent is not sent at all. A packet that keeps some of its payloads is rewritten
//! with the payloads' own bytes, in the form of multiple payloads with a padding length of two bytes.

use super::StreamSet;
use super::layout::{Layout, RawPayload};
use super::packet::PacketError;
use crate::wire::DecodeError;

/// Length type flags that a rewritten packet keeps: the sequence type.
const SEQUENCE_TYPE: u8 = 0x06;
/// Multiple payloads, a padding length of two bytes.
const REWRITTEN: u8 = 0x11;
/// Bytes of send time and duration.
const TIMES_LEN: usize = 6;

/// Which streams a viewer wants, and how much of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// Streams that are sent.
    pub streams: StreamSet,
    /// Video streams of which key frames alone are sent. On other streams it has no effect: of them all is key.
    pub thinned: StreamSet,
}

impl Selection {
    /// All of these streams.
    pub const fn all(streams: StreamSet) -> Self {
        Self { streams, thinned: StreamSet::EMPTY }
    }
}

/// What is left of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// No media: the packet is not sent.
    Nothing,
    /// All its media: it is sent as it is.
    Whole,
    /// Some of it: a packet of the same size was appended.
    Rewritten,
}

/// Keeps of each packet what one viewer's selection wants. About 250 bytes.
///
/// Video streams begin with a key frame, at the start, after a seek, and when they are selected while playing; then
/// those that they replace go on until that key frame is sent. Other streams change with their next object. A
/// selection of everything passes everything, whatever it begins with.
#[derive(Debug, Clone)]
pub struct Selector {
    /// All streams of the header, and those with key frames.
    streams: StreamSet,
    video: StreamSet,
    selection: Selection,
    /// Selected video streams that wait for a key frame.
    waiting: StreamSet,
    /// Video streams that are selected no more, but go on until one that waits has begun.
    outgoing: StreamSet,
    /// Streams thinned at the moment, and those of them that are full again from the next key frame on.
    thin: StreamSet,
    widening: StreamSet,
    /// Streams whose last payload was kept, and the low byte of its object's number.
    begun: StreamSet,
    objects: [u8; 128],
    /// Streams of which nothing was seen yet, and of which what comes first is taken for the rest of an object that was sent.
    amid: StreamSet,
}

impl Selector {
    /// At the start of a stream. `streams` are all of its header, `video` those with key frames
    /// ([`super::Header::video`]).
    pub fn new(streams: StreamSet, video: StreamSet, selection: Selection) -> Self {
        let mut selector = Self {
            streams,
            video,
            selection,
            waiting: StreamSet::EMPTY,
            outgoing: StreamSet::EMPTY,
            thin: StreamSet::EMPTY,
            widening: StreamSet::EMPTY,
            begun: StreamSet::EMPTY,
            objects: [0; 128],
            amid: StreamSet::EMPTY,
        };
        selector.restart();
        selector
    }

    /// In the middle of a stream: every selected stream has begun long ago. For packets that are to be what they were when
    /// they were sent first.
    pub fn amid(streams: StreamSet, video: StreamSet, selection: Selection) -> Self {
        let mut selector = Self::new(streams, video, selection);
        selector.waiting = StreamSet::EMPTY;
        selector.amid = selection.streams;
        selector
    }

    /// What is selected; while playing it takes effect stream by stream.
    pub const fn selection(&self) -> Selection {
        self.selection
    }

    /// Packets go on from another place: every selected video stream begins with a key frame again, unless everything
    /// is selected.
    pub fn restart(&mut self) {
        let video = self.selection.streams.intersection(self.video);
        self.thin = video.intersection(self.selection.thinned);
        let everything = self.selection.streams.covers(self.streams) && self.thin.is_empty();
        self.waiting = if everything { StreamSet::EMPTY } else { video };
        self.outgoing = StreamSet::EMPTY;
        self.widening = StreamSet::EMPTY;
        self.begun = StreamSet::EMPTY;
        self.amid = StreamSet::EMPTY;
    }

    /// Changes the selection while playing.
    ///
    /// Source: MS-MMSP 3.2.5.10.
    pub fn switch(&mut self, to: Selection) {
        let wanted = to.streams.intersection(self.video);
        let sent = self.selection.streams.intersection(self.video).difference(self.waiting).union(self.outgoing);
        self.waiting = wanted.difference(sent);
        self.outgoing = if self.waiting.is_empty() { StreamSet::EMPTY } else { sent.difference(wanted) };
        let thinned = to.thinned.intersection(wanted);
        self.widening = self.thin.intersection(sent).intersection(wanted).difference(thinned);
        self.thin = thinned.union(self.widening).union(self.thin.intersection(self.outgoing));
        self.selection = to;
    }

    /// Looks at the next packet, and appends what replaces it where that is another: one packet of the same size.
    ///
    /// One packet always is enough: a rewritten head is at most two bytes longer, and each payload that goes had at
    /// least three. Error correction data, sequence, property flags, send time and duration stay the packet's.
    ///
    /// # Errors
    /// [`PacketError`] as [`super::packet::walk`]; nothing is appended then, and the state stays as it was.
    ///
    /// Source: MS-MMSP 3.2.5.10; ASF 5.2.
    pub fn packet(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<Kept, PacketError> {
        let layout = Layout::parse(packet)?;
        // A first pass for the errors.
        layout.used(packet)?;
        let everything = self.passes_everything();
        // A bit for each payload; there are at most 63.
        let (mut media, mut kept) = (0_u64, 0_u64);
        for (at, payload) in layout.heads(packet).enumerate() {
            if payload.data_len > 0 {
                media |= 1 << at;
                kept |= u64::from(self.keeps(&payload, everything)) << at;
            }
        }
        if kept == 0 {
            return Ok(Kept::Nothing);
        }
        if kept == media {
            return Ok(Kept::Whole);
        }
        rewrite(packet, &layout, kept, out)?;
        Ok(Kept::Rewritten)
    }

    /// Whether all packets are kept whole, whatever comes.
    pub const fn passes_everything(&self) -> bool {
        self.selection.streams.covers(self.streams) && self.thin.is_empty() && self.waiting.is_empty()
    }

    fn keeps(&mut self, payload: &RawPayload, everything: bool) -> bool {
        let stream = payload.stream;
        let [number, ..] = payload.object.to_le_bytes();
        let starts = payload.offset == 0 || payload.is_compressed();
        let last = self.objects.get_mut(usize::from(stream));
        let sent_before = self.amid.contains(stream) && (payload.key || !self.thin.contains(stream));
        let goes_on = !starts && (sent_before || self.begun.contains(stream) && last.as_deref() == Some(&number));
        self.amid.remove(stream);
        if let Some(last) = last {
            *last = number;
        }
        let keeps = everything || goes_on || starts && self.begins(stream, payload.key);
        if keeps {
            self.begun.insert(stream);
        } else {
            self.begun.remove(stream);
        }
        keeps
    }

    /// Whether an object is sent that begins now.
    fn begins(&mut self, stream: u8, key: bool) -> bool {
        if !self.video.contains(stream) {
            return self.selection.streams.contains(stream);
        }
        if self.waiting.contains(stream) {
            if key {
                self.waiting.remove(stream);
                self.outgoing = StreamSet::EMPTY;
            }
            return key;
        }
        if key && self.widening.contains(stream) {
            self.widening.remove(stream);
            self.thin.remove(stream);
        }
        let sent = self.selection.streams.contains(stream) || self.outgoing.contains(stream);
        sent && (key || !self.thin.contains(stream))
    }
}

/// Appends a packet of the kept payloads alone, as long as the packet was.
fn rewrite(packet: &[u8], layout: &Layout, kept: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let part = |from: usize, to: usize| packet.get(from..to).unwrap_or_default();
    let start = out.len();
    out.extend_from_slice(part(0, layout.flags_at));
    let flags = part(layout.flags_at, layout.flags_at + 1).first().copied().unwrap_or_default();
    out.push(flags & SEQUENCE_TYPE | REWRITTEN);
    out.extend_from_slice(part(layout.flags_at + 1, layout.flags_at + 2));
    out.extend_from_slice(part(layout.sequence_at, layout.padding_at));
    let padding_at = out.len();
    out.extend_from_slice(&[0, 0]);
    // Only a packet of several payloads is ever kept in part, so the payload flags follow.
    let times_end = layout.send_time_at + TIMES_LEN;
    out.extend_from_slice(part(layout.send_time_at, times_end));
    let lengths = part(times_end, times_end + 1).first().copied().unwrap_or_default() & 0xC0;
    out.push(lengths | u8::try_from(kept.count_ones()).unwrap_or_default());
    for (at, payload) in layout.heads(packet).enumerate() {
        if kept >> at & 1 == 1 {
            out.extend_from_slice(part(payload.object_at - 1, payload.data_at + payload.data_len));
        }
    }
    let Some(padding) = packet.len().checked_sub(out.len() - start) else {
        out.truncate(start);
        return Err(DecodeError::Invalid { field: "packet", offset: 0, reason: "longer without a payload than with it" });
    };
    if let Some(field) = out.get_mut(padding_at..padding_at + 2) {
        field.copy_from_slice(&u16::try_from(padding).unwrap_or_default().to_le_bytes());
    }
    out.resize(start + packet.len(), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::asf::fabricate::plans;
    use crate::asf::fabricate_stream::{Fabricated, Object, objects, packet_streams};
    use crate::asf::{Header, Recut, payloads, samples, walk};

    fn set(streams: &[u8]) -> StreamSet {
        streams.iter().copied().collect()
    }

    fn all(header: &Header) -> StreamSet {
        header.streams().iter().map(|stream| stream.number).collect()
    }

    fn selector(header: &Header, streams: &[u8], thinned: &[u8]) -> Selector {
        Selector::new(all(header), header.video(), Selection { streams: set(streams), thinned: set(thinned) })
    }

    /// The packets that are sent, checked as to form.
    fn select(selector: &mut Selector, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for packet in packets {
            let mut out = vec![0xAA];
            match selector.packet(packet, &mut out).unwrap() {
                Kept::Nothing => assert_eq!(out.len(), 1),
                Kept::Whole => {
                    assert_eq!(out.len(), 1);
                    sent.push(packet.clone());
                }
                Kept::Rewritten => {
                    assert_eq!((out.len(), out[0]), (1 + packet.len(), 0xAA));
                    let (before, after) = (walk(packet).unwrap(), walk(&out[1..]).unwrap());
                    assert_eq!((after.send_time_ms, after.duration_ms), (before.send_time_ms, before.duration_ms));
                    assert!(after.payloads < before.payloads && before.streams.covers(after.streams));
                    sent.push(out[1..].to_vec());
                }
            }
        }
        sent
    }

    /// What is to be sent of these objects from the start on.
    fn wanted(objects: Vec<Object>, header: &Header, selection: Selection) -> Vec<Object> {
        let thinned = selection.thinned.intersection(header.video());
        if selection.streams.covers(all(header)) && thinned.is_empty() {
            return objects;
        }
        let mut begun = StreamSet::EMPTY;
        let wants = |object: &Object| {
            if !header.video().contains(object.stream) {
                return selection.streams.contains(object.stream);
            }
            if object.key {
                begun.insert(object.stream);
            }
            selection.streams.contains(object.stream)
                && begun.contains(object.stream)
                && (object.key || !selection.thinned.contains(object.stream))
        };
        objects.into_iter().filter(wants).collect()
    }

    #[test]
    fn samples_by_every_selection() {
        for (name, ..) in samples::STREAMS {
            let (header, packets) = samples::stream(name);
            for bits in 0..8_u8 {
                for thin in [&[][..], &[1], &[1, 2, 3]] {
                    let streams: Vec<u8> = (1..=3).filter(|stream| bits >> (stream - 1) & 1 == 1).collect();
                    let mut selector = selector(&header, &streams, thin);
                    let found = objects(select(&mut selector, &packets));
                    assert_eq!(found, wanted(objects(&packets), &header, selector.selection()), "{name} {streams:?} {thin:?}");
                }
            }
        }
    }

    /// Objects that begin in these packets, by stream: number and whether it is a key frame.
    fn begun(packets: &[Vec<u8>], stream: u8) -> Vec<(u8, bool)> {
        let found = packets.iter().flat_map(|packet| payloads(packet).unwrap());
        let starts = found.filter(|payload| payload.stream == stream && payload.offset == 0);
        starts.map(|payload| (payload.object.to_le_bytes()[0], payload.key)).collect()
    }

    #[test]
    fn a_rate_switches_at_a_key_frame_of_the_new_one() {
        let (header, packets) = samples::stream("mbr-2video-1audio.asf");
        let key_of_two =
            packets.iter().enumerate().skip(50).find(|(_, packet)| walk(packet).unwrap().key_starts.contains(2)).unwrap().0;
        let mut selector = selector(&header, &[1, 3], &[]);
        let mut sent = select(&mut selector, &packets[..50]);
        assert!(begun(&sent, 2).is_empty());
        selector.switch(Selection { streams: set(&[2, 3]), thinned: StreamSet::EMPTY });
        sent.extend(select(&mut selector, &packets[50..key_of_two]));
        assert_eq!(begun(&sent, 2), [], "not yet");
        assert_eq!(begun(&sent, 1), begun(&packets[..key_of_two], 1), "goes on");
        sent.extend(select(&mut selector, &packets[key_of_two..]));
        assert_eq!(begun(&sent, 2), begun(&packets[key_of_two..], 2));
        assert!(begun(&sent, 1).len() <= begun(&packets[..=key_of_two], 1).len(), "the first rate has ended");
        let sent = objects(&sent);
        assert!(sent.iter().all(|object| object.data.len() == usize::try_from(object.size).unwrap()), "an object lacks its end");
        assert_eq!(sent.iter().filter(|object| object.stream == 3).count(), begun(&packets, 3).len(), "sound all along");
    }

    #[test]
    fn a_switch_taken_back_never_stops() {
        let (header, packets) = samples::stream("mbr-2video-1audio.asf");
        let mut selector = selector(&header, &[1, 3], &[]);
        let mut sent = select(&mut selector, &packets[..50]);
        selector.switch(Selection { streams: set(&[2, 3]), thinned: StreamSet::EMPTY });
        sent.extend(select(&mut selector, &packets[50..52]));
        selector.switch(Selection { streams: set(&[1, 3]), thinned: StreamSet::EMPTY });
        sent.extend(select(&mut selector, &packets[52..]));
        let wanted: Vec<_> = objects(&packets).into_iter().filter(|object| object.stream != 2).collect();
        assert_eq!(objects(&sent), wanted);
    }

    #[test]
    fn thinning_ends_with_a_key_frame() {
        let (header, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        let mut selector = selector(&header, &[1, 2], &[]);
        let mut sent = select(&mut selector, &packets[..20]);
        selector.switch(Selection { streams: set(&[1, 2]), thinned: set(&[1]) });
        sent.extend(select(&mut selector, &packets[20..50]));
        selector.switch(Selection { streams: set(&[1, 2]), thinned: StreamSet::EMPTY });
        sent.extend(select(&mut selector, &packets[50..]));
        let video = begun(&sent, 1);
        assert!(video.len() < begun(&packets, 1).len());
        let gaps: Vec<_> = video.windows(2).filter(|pair| pair[1].0 != pair[0].0.wrapping_add(1)).collect();
        assert!(!gaps.is_empty() && gaps.iter().all(|pair| pair[1].1), "each gap ends with a key frame: {gaps:?}");
        assert_eq!(begun(&sent, 2), begun(&packets, 2), "sound all along");
    }

    #[test]
    fn a_seek_begins_with_a_key_frame() {
        let (header, packets) = samples::stream("vod-wmv2-wmav2-indexed.wmv");
        let mut video = selector(&header, &[1], &[]);
        let mut everything = selector(&header, &[1, 2], &[]);
        for selector in [&mut video, &mut everything] {
            select(selector, &packets[..10]);
            selector.restart();
        }
        assert!(select(&mut everything, &packets[31..]) == packets[31..], "everything passes whole");
        let sent = select(&mut video, &packets[31..]);
        let first = begun(&sent, 1)[0];
        assert!(first.1 && begun(&packets, 1).contains(&first));
    }

    #[test]
    fn an_invalid_packet_changes_nothing() {
        let (header, packets) = samples::stream("mbr-2video-1audio.asf");
        let mut selector = selector(&header, &[1], &[]);
        let before = format!("{selector:?}");
        let mut out = Vec::new();
        assert!(selector.packet(&packets[0][..200], &mut out).is_err() && out.is_empty());
        assert_eq!(format!("{selector:?}"), before);
    }

    fn selections() -> impl Strategy<Value = Selection> {
        (0..16_u8, 0..16_u8).prop_map(|(streams, thinned)| {
            let set = |bits: u8| (1..=4).filter(|stream| bits >> (stream - 1) & 1 == 1).collect();
            Selection { streams: set(streams), thinned: set(thinned) }
        })
    }

    proptest! {
        #[test]
        fn keeps_what_is_selected(Fabricated { header, packets } in packet_streams(), selection in selections()) {
            let mut selector = Selector::new(all(&header), header.video(), selection);
            prop_assert_eq!(objects(select(&mut selector, &packets)), wanted(objects(&packets), &header, selection));
        }

        #[test]
        fn keeps_the_same_of_re_cut_packets(Fabricated { header, packets } in packet_streams(), selection in selections()) {
            let Some(recut) = Recut::new(&header, 250) else { return Ok(()) };
            let mut out = Vec::new();
            packets.iter().for_each(|packet| assert!(recut.recut(packet, &mut out).is_ok()));
            let parts: Vec<_> = out.chunks(recut.packet_size()).map(<[u8]>::to_vec).collect();
            let mut selector = Selector::new(all(&header), header.video(), selection);
            prop_assert_eq!(objects(select(&mut selector, &parts)), wanted(objects(&packets), &header, selection));
        }

        /// Whatever is switched when: objects are sent whole or not at all, and only selected or replaced streams' ones.
        #[test]
        fn switches_never_cut_an_object(
            Fabricated { header, packets } in packet_streams(),
            switches in proptest::collection::vec((0..12_usize, selections()), 1..5),
        ) {
            let mut selector = Selector::new(all(&header), header.video(), switches[0].1);
            let (mut sent, mut at, mut ever) = (Vec::new(), 0, switches[0].1.streams);
            for (packets_between, selection) in switches {
                let end = (at + packets_between).min(packets.len());
                sent.extend(select(&mut selector, &packets[at..end]));
                at = end;
                selector.switch(selection);
                ever = ever.union(selection.streams);
            }
            sent.extend(select(&mut selector, &packets[at..]));
            let (found, source) = (objects(&sent), objects(&packets));
            prop_assert!(found.iter().all(|object| ever.contains(object.stream) && source.contains(object)));
            for stream in header.video().iter().filter(|stream| !ever.covers(all(&header)) && ever.contains(*stream)) {
                prop_assert!(found.iter().find(|object| object.stream == stream).is_none_or(|first| first.key));
            }
        }

        #[test]
        fn any_packet_never_panics(plan in plans(), at in any::<u16>(), value in any::<u8>(), streams in any::<u64>()) {
            let mut packet = plan.build();
            let at = usize::from(at) % packet.len();
            packet[at] = value;
            let streams = (1..64).filter(|stream| streams >> stream & 1 == 1).collect();
            let mut selector = Selector::new((1..=127).collect(), set(&[1, 2, 3]), Selection { streams, thinned: StreamSet::EMPTY });
            let mut out = Vec::new();
            match selector.packet(&packet, &mut out) {
                Ok(Kept::Rewritten) => prop_assert!(out.len() == packet.len() && walk(&out).is_ok()),
                _ => prop_assert!(out.is_empty()),
            }
        }

        #[test]
        fn any_bytes_never_panic(packet in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut selector = Selector::new(set(&[1, 2]), set(&[1]), Selection::default());
            let _ = selector.packet(&packet, &mut Vec::new());
        }
    }

    /// What is sent again must be what was sent first, though nothing of what came before is known any more.
    #[test]
    fn cuts_from_the_middle_equal_those_from_the_start() {
        for (streams, thinned) in [(&[1, 3][..], &[][..]), (&[2], &[]), (&[1, 2, 3], &[1]), (&[1, 2, 3], &[1, 2]), (&[3], &[])] {
            let (header, packets) = samples::stream("mbr-2video-1audio.asf");
            let mut from_start = selector(&header, streams, thinned);
            let selection = from_start.selection();
            let mut compared = 0;
            for packet in &packets {
                let (mut first, mut again) = (Vec::new(), Vec::new());
                let kept = from_start.packet(packet, &mut first).unwrap();
                if from_start.waiting.is_empty() {
                    let mut amid = Selector::amid(all(&header), header.video(), selection);
                    // The packet with which the last stream begins may hold what came before its key frame.
                    let starts = walk(packet).unwrap().key_starts.intersects(header.video());
                    assert!(amid.packet(packet, &mut again).unwrap() == kept && again == first || starts && compared == 0);
                    compared += 1;
                }
            }
            assert!(compared > 100, "{compared}");
        }
    }
}
