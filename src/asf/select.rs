//! Selection and thinning: packets without the payloads that a viewer does not want.
//!
//! Payloads are kept or dropped, and an object always with all of its payloads: one that was begun is sent to its end,
//! and one whose beginning was not sent is not sent at all. A packet that keeps some of its payloads is rewritten
//! with the payloads' own bytes, in the form of multiple payloads with a padding length of two bytes.

use super::StreamSet;
use super::layout::{Layout, RawPayload};
use super::packet::{PacketError, send_time_ms};
use crate::wire::DecodeError;

/// Length type flags that a rewritten packet keeps: the sequence type.
const SEQUENCE_TYPE: u8 = 0x06;
/// Multiple payloads, a padding length of two bytes.
const REWRITTEN: u8 = 0x11;
/// Bytes of send time and duration.
const TIMES_LEN: usize = 6;

/// A video stream of which no key frame came in so much send time has none to wait for, ms.
pub const KEYLESS_MS: u32 = 30_000;

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

/// Keeps of each packet what one viewer's selection wants. About 350 bytes.
///
/// Video streams begin with a key frame, at the start, after a seek, and when they are selected while playing; then
/// those that they replace go on until that key frame is sent. Other streams change with their next object. A
/// selection of everything passes everything, whatever it begins with.
///
/// Video that never marks a key frame, as encoders with a rolling refresh make it, begins with any object once it was waited
/// for [`KEYLESS_MS`]; of a thinned one nothing is sent. A stream that had a key frame is worth the wait for the next.
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
    /// Video streams of which a key frame was seen; those that need none, as long as none is.
    keyed: StreamSet,
    keyless: StreamSet,
    /// The lowest send time since a wait began, and the last one, ms.
    waits_since_ms: Option<(u32, u32)>,
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
            keyed: StreamSet::EMPTY,
            keyless: StreamSet::EMPTY,
            waits_since_ms: None,
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
        self.waits_since_ms = None;
    }

    /// Changes the selection while playing.
    ///
    /// Source: MS-MMSP 3.2.5.10.
    pub fn switch(&mut self, to: Selection) {
        let waited = self.waiting.union(self.widening);
        let wanted = to.streams.intersection(self.video);
        let sent = self.selection.streams.intersection(self.video).difference(self.waiting).union(self.outgoing);
        self.waiting = wanted.difference(sent);
        self.outgoing = if self.waiting.is_empty() { StreamSet::EMPTY } else { sent.difference(wanted) };
        let thinned = to.thinned.intersection(wanted);
        self.widening = self.thin.intersection(sent).intersection(wanted).difference(thinned);
        self.thin = thinned.union(self.widening).union(self.thin.intersection(self.outgoing));
        self.selection = to;
        if !waited.covers(self.waiting.union(self.widening)) {
            self.waits_since_ms = None;
        }
    }

    /// The next packet is one that stands in for a key frame: it is known that the video has none. Whatever video was seen to
    /// have some still begins with one.
    pub const fn stand_in(&mut self) {
        self.keyless = self.keyless.union(self.video.difference(self.keyed));
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
        self.wait(packet);
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

    /// Gives up those waits that are hopeless.
    fn wait(&mut self, packet: &[u8]) {
        let waited = self.waiting.union(self.widening);
        if waited.is_empty() {
            return;
        }
        let now_ms = send_time_ms(packet).unwrap_or_default();
        let (since_ms, last_ms) = self.waits_since_ms.unwrap_or((now_ms, now_ms));
        // A leap to another clock, as where recordings are joined, is no time that passes.
        let leap_ms = Some(now_ms.saturating_sub(last_ms)).filter(|step_ms| *step_ms >= KEYLESS_MS).unwrap_or_default();
        let since_ms = (since_ms + leap_ms).min(now_ms);
        self.waits_since_ms = Some((since_ms, now_ms));
        if now_ms - since_ms >= KEYLESS_MS {
            self.keyless = self.keyless.union(waited.difference(self.keyed));
        }
    }

    fn keeps(&mut self, payload: &RawPayload, everything: bool) -> bool {
        let stream = payload.stream;
        let [number, ..] = payload.object.to_le_bytes();
        let starts = payload.offset == 0 || payload.is_compressed();
        if starts && payload.key {
            self.keyed.insert(stream);
            self.keyless.remove(stream);
        }
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
        let full = !self.thin.contains(stream) || self.widening.contains(stream);
        let opens = key || full && self.keyless.contains(stream);
        if self.waiting.contains(stream) {
            if opens {
                self.waiting.remove(stream);
                self.outgoing = StreamSet::EMPTY;
            }
            return opens;
        }
        if opens && self.widening.contains(stream) {
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
mod tests;
