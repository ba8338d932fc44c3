//! Joins files, and a file with itself, into one timeline without a seam.

use std::collections::BTreeMap;

use crate::asf::{Header, ObjectNumbers, PacketError, PacketInfo, payloads};

/// A step of the send time over this, inside a file, is a fault of the file: the gap is closed.
const LEAP_MS: i32 = 5000;
/// A header's duration that is so near to the one measured is the same, with the muxer's delays and rounding in it.
const SAME_MS: u32 = 250;
/// So far it may be over the one measured and still be believed: the last picture stays.
const TRUST_MS: u32 = 2000;
/// What a file lasts of which no stream has two objects.
const STILL_MS: u32 = 1000;

/// Moves the times and object numbers of one file after the other so that each begins where the one before ends.
///
/// Where it ends is the content's true duration, not the last time stamp: the last frame is shown for a frame's time too.
#[derive(Debug, Default)]
pub(super) struct Laps {
    numbers: ObjectNumbers,
    delta_ms: u32,
    /// The file being played.
    extent: Option<Extent>,
    /// Where the next file begins, on the presentation axis; `None` lets it keep its times.
    next_ms: Option<u32>,
    /// The latest send time that went out, and how far it is from the first one in all.
    latest: Option<(u32, u64)>,
    stated_ms: Option<u64>,
}

/// What a file has covered, in times as they went out.
#[derive(Debug)]
struct Extent {
    first_send_ms: u32,
    /// First presentation time of the first packet, from which the others are told.
    first_ms: u32,
    streams: BTreeMap<u8, Span>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    /// From the extent's `first_ms`.
    first: i32,
    last: i32,
    objects: u32,
}

impl Laps {
    /// A file begins. `joined`: it continues what was played before; else its times are its own again.
    pub(super) fn begin(&mut self, header: &Header, joined: bool) {
        self.next_ms = self.extent.take().and_then(|extent| {
            let played_ms = extent.played_ms(self.stated_ms, self.latest.map_or(extent.first_send_ms, |(send, _)| send));
            // A new generation has its own axis, but its first packet is due when the old one is over.
            self.latest = self.latest.map(|(send, position)| {
                let sent_ms = send.wrapping_sub(extent.first_send_ms);
                (send, if joined { position } else { position + u64::from(played_ms.saturating_sub(sent_ms)) })
            });
            joined.then(|| extent.first_ms.wrapping_add(played_ms))
        });
        if joined {
            self.numbers.restart();
        } else {
            self.numbers = ObjectNumbers::new();
            self.delta_ms = 0;
        }
        self.stated_ms = header.play_duration_ms();
    }

    /// How long the file lasts by what came of it, ms; 0 before its first packet.
    pub(super) fn lasts_ms(&self) -> u32 {
        let latest_ms = |extent: &Extent| self.latest.map_or(extent.first_send_ms, |(send, _)| send);
        self.extent.as_ref().map_or(0, |extent| extent.played_ms(self.stated_ms, latest_ms(extent)))
    }

    /// Shifts a packet to its place. Returns when it is due, ms from the first packet of all.
    ///
    /// # Errors
    /// The packet is invalid; leave it out.
    pub(super) fn place(&mut self, packet: &mut [u8]) -> Result<u64, PacketError> {
        let info = crate::asf::walk(packet)?;
        self.settle(&info);
        let info = self.numbers.shift(packet, self.delta_ms)?;
        let position = match self.latest {
            Some((latest, position)) => {
                let step = info.send_time_ms.wrapping_sub(latest).cast_signed();
                position + u64::try_from(step).unwrap_or(0)
            }
            None => 0,
        };
        let is_later = self.latest.is_none_or(|(latest, _)| info.send_time_ms.wrapping_sub(latest).cast_signed() > 0);
        if is_later || self.extent.is_none() {
            self.latest = Some((info.send_time_ms, position));
        }
        let extent = self.extent.get_or_insert_with(|| Extent::new(&info));
        payloads(packet)?
            .filter(|payload| payload.offset == 0)
            .for_each(|payload| extent.note(payload.stream, payload.presentation_ms));
        Ok(position)
    }

    /// Chooses the shift: at the start of a file, and where its clock leaps.
    fn settle(&mut self, info: &PacketInfo) {
        if self.extent.is_none() {
            let Some(next_ms) = self.next_ms.take() else {
                // The first file, or another generation: it keeps its times, only the clock of what is due runs on.
                self.latest = self.latest.map(|(_, position)| (info.send_time_ms, position));
                return;
            };
            self.delta_ms = next_ms.wrapping_sub(info.first_presentation_ms);
            if let Some((latest, _)) = self.latest {
                // Send times never go back, even where the files' leads differ.
                let back = latest.wrapping_sub(info.send_time_ms.wrapping_add(self.delta_ms)).cast_signed();
                self.delta_ms = self.delta_ms.wrapping_add(u32::try_from(back).unwrap_or(0));
            }
        } else if let Some((latest, _)) = self.latest {
            let step = info.send_time_ms.wrapping_add(self.delta_ms).wrapping_sub(latest).cast_signed();
            if step.saturating_abs() > LEAP_MS {
                self.delta_ms = self.delta_ms.wrapping_sub(step.cast_unsigned());
            }
        }
    }
}

impl Extent {
    const fn new(info: &PacketInfo) -> Self {
        Self { first_send_ms: info.send_time_ms, first_ms: info.first_presentation_ms, streams: BTreeMap::new() }
    }

    fn note(&mut self, stream: u8, presentation_ms: u32) {
        let at = presentation_ms.wrapping_sub(self.first_ms).cast_signed();
        let span = self.streams.entry(stream).or_insert(Span { first: at, last: at, objects: 0 });
        span.first = span.first.min(at);
        span.last = span.last.max(at);
        span.objects += 1;
    }

    /// How long the content lasts: what was seen and the time of one more frame, unless the header states something else that
    /// can be. Never less than what it took to send.
    ///
    /// That is the longest stream's own duration: streams that begin late end late, each joins its own beginning.
    fn played_ms(&self, stated_ms: Option<u64>, last_send_ms: u32) -> u32 {
        let seen_ms = self.streams.values().map(Span::seen_ms).max().unwrap_or_default();
        let measured_ms = self.streams.values().filter_map(Span::lasts_ms).max().unwrap_or(seen_ms.saturating_add(STILL_MS));
        let stated_ms = stated_ms.and_then(|stated| u32::try_from(stated).ok());
        let can_be = |stated: &u32| *stated > seen_ms && *stated <= measured_ms.saturating_add(TRUST_MS);
        let believed = stated_ms.filter(|stated| stated.abs_diff(measured_ms) > SAME_MS && can_be(stated));
        believed.unwrap_or(measured_ms).max(last_send_ms.wrapping_sub(self.first_send_ms)).max(1)
    }
}

impl Span {
    /// From the first object's beginning to the last one's.
    const fn seen_ms(&self) -> u32 {
        self.first.abs_diff(self.last)
    }

    /// To the last one's end: it lasts as long as the others do on average.
    fn lasts_ms(&self) -> Option<u32> {
        let steps = self.objects.checked_sub(1).filter(|steps| *steps > 0)?;
        Some(self.seen_ms().saturating_add(self.seen_ms().div_ceil(steps)))
    }
}

#[cfg(test)]
mod tests;
