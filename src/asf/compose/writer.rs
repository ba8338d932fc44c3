//! Frames laid into packets, soon enough for live pictures.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::Composition;
use crate::asf::lay::{OpenPacket, Rest, Widths};

/// Longest object that is written, bytes: FFmpeg's players refuse one of 16 MiB.
pub const MAX_OBJECT_LEN: usize = 8 << 20;

/// Less room is not worth a payload head.
const SPARE: usize = 32;
/// The longest time that a packet waits to be filled.
const MAX_AGE: Duration = Duration::from_millis(100);
/// The longest time that it waits where each frame counts, and after which the end of a picture ends it.
const PICTURE_AGE: Duration = Duration::from_millis(40);
/// The longest span of send times that the duration of a packet can tell, milliseconds.
const MAX_SPAN_MS: u64 = 0xFFFF;

/// When packets that are not full go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// With the end of each picture: a frame leaves in its own packets. Sound alone waits for 40 ms.
    Low,
    /// 40 ms after they began, with the end of a picture, and 100 ms after they began in any case.
    Usual,
}

/// One object to be written.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Which stream of the [`Composition`] it belongs to, from 0.
    pub stream: usize,
    /// When it is shown, milliseconds from the stream's beginning, without preroll; on an absolute clock.
    pub presentation_ms: u64,
    /// When it is decoded: not after it is shown. Without reordering, the same.
    pub decode_ms: u64,
    /// Nothing before it is needed to decode it. Of sound, always.
    pub key: bool,
    /// Its bytes, 1 to 8 MiB.
    pub bytes: &'a [u8],
}

/// Why a frame is not written. Nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is nothing in it.
    #[error("a frame without a byte")]
    Empty,
    /// It is over the bound.
    #[error("a frame of {0} bytes: at most 8 MiB are taken")]
    TooLong(usize),
    /// The composition has no such stream.
    #[error("stream {0} was not announced in the header")]
    NoStream(usize),
}

/// Makes packets of frames.
///
/// Send times are the decode times of frames, and never step back. Objects of sound are cut only where they are longer than a
/// packet; a key frame of pictures begins a packet, so that a player can begin with it. Times are written modulo 2^32; whoever sends
/// packets on for weeks has to watch for the wrap.
///
/// Source: ASF 5.2; filling is by our own rules.
#[derive(Debug)]
pub struct Writer {
    packet_size: usize,
    preroll_ms: u64,
    latency: Latency,
    streams: Vec<Stream>,
    /// The send time of the last frame.
    send_time_ms: u64,
    open: Option<Open>,
    /// The packet that is being filled; it begins at 0.
    filling: Vec<u8>,
    packets: BytesMut,
}

#[derive(Debug)]
struct Stream {
    is_video: bool,
    /// Number of the next object.
    object: u8,
}

#[derive(Debug)]
struct Open {
    packet: OpenPacket,
    since: Instant,
    first_send_time_ms: u64,
    last_send_time_ms: u64,
}

impl Writer {
    /// For packets that belong to the header of `composition`.
    pub fn new(composition: &Composition, latency: Latency) -> Self {
        let streams = composition.streams.iter().map(|format| Stream { is_video: format.is_video(), object: 0 });
        Self {
            packet_size: composition.packet_size.into(),
            preroll_ms: composition.preroll_ms.into(),
            latency,
            streams: streams.collect(),
            send_time_ms: 0,
            open: None,
            filling: Vec::new(),
            packets: BytesMut::new(),
        }
    }

    /// Takes a frame; packets that are full by it can be taken then.
    ///
    /// # Errors
    /// [`FrameError`]; the writer goes on without the frame.
    pub fn push(&mut self, now: Instant, frame: &Frame<'_>) -> Result<(), FrameError> {
        let len = frame.bytes.len();
        match len {
            0 => return Err(FrameError::Empty),
            len if len > MAX_OBJECT_LEN => return Err(FrameError::TooLong(len)),
            _ => {}
        }
        let number = u8::try_from(frame.stream + 1).map_err(|_| FrameError::NoStream(frame.stream))?;
        let stream = self.streams.get_mut(frame.stream).ok_or(FrameError::NoStream(frame.stream))?;
        let (object, is_video) = (stream.object, stream.is_video);
        stream.object = object.wrapping_add(1);
        self.send_time_ms = self.send_time_ms.max(frame.decode_ms);
        // Nothing is to be shown before it is sent.
        let presentation_ms = (frame.presentation_ms + self.preroll_ms).max(self.send_time_ms);
        if self.open.as_ref().is_some_and(|open| {
            is_video && frame.key
                || self.send_time_ms - open.first_send_time_ms > MAX_SPAN_MS
                || now.saturating_duration_since(open.since) >= self.max_age()
        }) {
            self.close();
        }
        let key = u8::from(frame.key || !is_video) << 7;
        let rest = Rest::of_object(number | key, object, modulo(presentation_ms), frame.bytes);
        self.lay(now, rest, is_video);
        let picture_age = if self.latency == Latency::Low { Duration::ZERO } else { PICTURE_AGE };
        let is_due = |open: &Open| is_video && now.saturating_duration_since(open.since) >= picture_age;
        if self.open.as_ref().is_some_and(is_due) {
            self.close();
        }
        Ok(())
    }

    fn lay(&mut self, now: Instant, mut rest: Rest<'_>, may_cut: bool) {
        while !rest.is_empty() {
            let Self { packet_size, send_time_ms, open, filling, .. } = self;
            let open = open.get_or_insert_with(|| {
                let packet = OpenPacket::begin(filling, *packet_size, Widths::USUAL, modulo(*send_time_ms), 0);
                Open { packet, since: now, first_send_time_ms: *send_time_ms, last_send_time_ms: *send_time_ms }
            });
            let room = open.packet.room(filling);
            // An object that fits an empty packet only waits for that one.
            let waits = !may_cut && !open.packet.is_empty() && rest.size(Widths::USUAL) > room;
            let laid = if waits { 0 } else { open.packet.put(filling, &mut rest, room, true) };
            if laid > 0 {
                open.last_send_time_ms = *send_time_ms;
            }
            let is_stuck = laid == 0 && open.packet.is_empty();
            if !rest.is_empty() || open.packet.room(filling) < SPARE {
                self.close();
            }
            if is_stuck {
                // Packets of 100 bytes have room for a piece; this is here for what never is.
                return;
            }
        }
    }

    const fn max_age(&self) -> Duration {
        match self.latency {
            Latency::Low => PICTURE_AGE,
            Latency::Usual => MAX_AGE,
        }
    }

    /// When [`Writer::handle_timeout`] is to be called: a packet has waited long enough then.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since + self.max_age())
    }

    /// Closes the packet that is being filled if its time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.close();
        }
    }

    /// Closes the packet that is being filled.
    pub fn flush(&mut self) {
        self.close();
    }

    /// The packets that are full, one behind the other, each of the packet size.
    pub fn take(&mut self) -> BytesMut {
        self.packets.split()
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        if !open.packet.is_empty() {
            let span_ms = open.last_send_time_ms - open.first_send_time_ms;
            open.packet.finish(&mut self.filling, u16::try_from(span_ms).unwrap_or(u16::MAX));
            self.packets.extend_from_slice(&self.filling);
        }
        self.filling.clear();
    }
}

/// The low 32 bits, as times are written.
#[expect(clippy::cast_possible_truncation, reason = "that is what modulo 2^32 means")]
const fn modulo(ms: u64) -> u32 {
    ms as u32
}

#[cfg(test)]
mod tests;
