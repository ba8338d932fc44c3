//! From live frames to packets: when there is enough for a header, and when another one is needed.

use std::time::Instant;

use bytes::BytesMut;
use tracing::{info, warn};

use super::file_time;
use crate::asf::Header;
use crate::asf::compose::{Composition, CompositionError, Frame, Latency, StreamFormat, Writer};
use crate::rtsp::tracks::{Frame as Received, Tracks};
use crate::wire::Guid;

/// What players buffer of a live picture, milliseconds.
const PREROLL_MS: u32 = 500;

/// What goes to viewers, once there is something.
pub(super) struct OnAir {
    open: Option<(Vec<StreamFormat>, Writer)>,
}

impl OnAir {
    pub(super) const fn new() -> Self {
        Self { open: None }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.open.is_some()
    }

    /// Whether a frame is of use: everything from the first key frame of pictures on; of sound alone, everything.
    pub(super) fn wants(&self, tracks: &Tracks, frame: &Received) -> bool {
        let (track, key) = (frame.track, frame.key);
        let formats_are_known = || (0..tracks.len()).all(|track| tracks.format(track).is_some());
        let begins = || key && (tracks.is_video(track) || (0..tracks.len()).all(|track| !tracks.is_video(track)));
        self.is_on() || (begins() && formats_are_known())
    }

    /// Opens a stream with a frame that is wanted, where there is none or it is another one now; returns its header, and the packets
    /// that are left of the one before.
    pub(super) fn begin(&mut self, tracks: &Tracks, frame: &Received) -> Result<Option<(BytesMut, Header)>, CompositionError> {
        let may_change = frame.key && tracks.is_video(frame.track);
        if self.is_on() && !may_change {
            return Ok(None);
        }
        let streams: Vec<StreamFormat> = (0..tracks.len()).filter_map(|track| tracks.format(track)).collect();
        if self.open.as_ref().is_some_and(|(open, _)| *open == streams) {
            return Ok(None);
        }
        // Larger ones would be cut anew for viewers over UDP, and what is cut waits for what follows.
        let packet_size = Composition::usual_packet_size(&streams, true);
        let composition = Composition { streams, packet_size, preroll_ms: PREROLL_MS };
        // File ID and date are the relay's to give.
        let header = composition.header(Guid([0; 16]), file_time())?;
        let codecs: Vec<&str> = composition.streams.iter().map(StreamFormat::name).collect();
        info!(codecs = codecs.join(", "), packet_size, "begins");
        if (0..tracks.len()).any(|track| tracks.reorders(track)) {
            warn!(
                "its pictures may come in another order than they are shown in (B-frames), by what it says; as soon as they do it ends: \
                 switch them off there, or use a source of type \"ffmpeg\", or \"exec\" with ffmpeg"
            );
        }
        let writer = Writer::new(&composition, Latency::Low);
        let mut before = BytesMut::new();
        if let Some((_, mut writer)) = self.open.replace((composition.streams, writer)) {
            writer.flush();
            before = writer.take();
        }
        Ok(Some((before, header)))
    }

    pub(super) fn push(&mut self, now: Instant, frame: &Received) {
        let Some((_, writer)) = &mut self.open else { return };
        let Received { track, ms, key, ref bytes } = *frame;
        let frame = Frame { stream: track, presentation_ms: ms, decode_ms: ms, key, bytes };
        if let Err(error) = writer.push(now, &frame) {
            warn!(%error, "left out");
        }
    }

    /// When [`OnAir::handle_timeout`] is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.as_ref().and_then(|(_, writer)| writer.poll_timeout())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, writer)) = &mut self.open {
            writer.handle_timeout(now);
        }
    }

    /// Packets that are full.
    pub(super) fn take(&mut self) -> BytesMut {
        self.open.as_mut().map(|(_, writer)| writer.take()).unwrap_or_default()
    }
}
