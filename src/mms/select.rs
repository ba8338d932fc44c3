//! StreamSwitch: which streams the player wants.

use super::frame::{Message, body};
use crate::asf::{Selection, StreamSet};
use crate::wire::{DecodeError, Hresult, Writer};

/// No stream, as source or destination.
const NONE: u16 = 0xFFFF;
/// Thinning levels of a stream that is on.
const ALL: u16 = 0;
const KEY_FRAMES: u16 = 1;
/// Thinning level by which open-source clients switch a stream off.
const OFF: u16 = 2;
/// Stream numbers end at 127, so more entries say nothing.
const MAX_ENTRIES: usize = 127;

/// One entry of a StreamSwitch. Source: MS-MMSP 2.2.4.28.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEntry {
    /// The stream that it replaces; 0xFFFF: none.
    pub source: u16,
    /// The stream it selects; 0xFFFF: none.
    pub destination: u16,
    /// 0: everything; 1: key frames; 2: off.
    pub thinning: u16,
}

impl StreamEntry {
    /// Selects a stream, everything of it.
    pub fn on(stream: u8) -> Self {
        Self { source: NONE, destination: stream.into(), thinning: 0 }
    }
}

/// `LinkViewerToMacStreamSwitch`. Source: MS-MMSP 2.2.4.28.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSwitch {
    /// How many entries the message claims.
    pub claimed: u32,
    /// Those that are there.
    pub entries: Vec<StreamEntry>,
}

impl StreamSwitch {
    /// Selects every stream of a set, in full.
    pub fn all(streams: StreamSet) -> Self {
        let entries: Vec<_> = streams.iter().map(StreamEntry::on).collect();
        Self { claimed: streams.len(), entries }
    }

    /// Whether all claimed entries are there and no more than 127 are claimed.
    pub fn is_whole(&self) -> bool {
        usize::try_from(self.claimed) == Ok(self.entries.len())
    }

    /// Applies the entries to a selection; streams that `existing` does not have are passed over.
    pub fn apply(&self, before: Selection, existing: StreamSet) -> Selection {
        let mut levels: [Option<u16>; 128] = std::array::from_fn(|n| {
            let stream = u8::try_from(n).ok().filter(|stream| before.streams.contains(*stream))?;
            Some(if before.thinned.contains(stream) { KEY_FRAMES } else { ALL })
        });
        let mut set = |stream: u16, level: Option<u16>| {
            let known = u8::try_from(stream).is_ok_and(|stream| existing.contains(stream));
            if let Some(of_stream) = levels.get_mut(usize::from(stream)).filter(|_| known) {
                *of_stream = level;
            }
        };
        for entry in &self.entries {
            if entry.source != NONE {
                set(entry.source, None);
            }
            if entry.destination != NONE {
                set(entry.destination, Some(entry.thinning).filter(|level| *level != OFF));
            }
        }
        let streams = || (0..=127).zip(levels);
        Selection {
            streams: streams().filter_map(|(stream, level)| level.map(|_| stream)).collect(),
            thinned: streams().filter_map(|(stream, level)| (level == Some(KEY_FRAMES)).then_some(stream)).collect(),
        }
    }
}

impl Message for StreamSwitch {
    const MID: u32 = 0x0003_0033;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        let claimed = cursor.u32("cStreamEntries")?;
        let count = usize::try_from(claimed).unwrap_or(usize::MAX).min(MAX_ENTRIES).min(cursor.remaining() / 6);
        let entries = (0..count)
            .map(|_| {
                Ok(StreamEntry {
                    source: cursor.u16("wSrcStreamNumber")?,
                    destination: cursor.u16("wDstStreamNumber")?,
                    thinning: cursor.u16("wThinningLevel")?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { claimed, entries })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.claimed);
        for entry in &self.entries {
            body.u16(entry.source).u16(entry.destination).u16(entry.thinning);
        }
    }
}

/// `LinkMacToViewerReportStreamSwitch`. Source: MS-MMSP 2.2.4.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportStreamSwitch {
    /// Success or why not.
    pub hr: Hresult,
}

impl Message for ReportStreamSwitch {
    const MID: u32 = 0x0004_0021;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { hr: Hresult(body(message)?.u32("hr")?) })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(streams: &[u8]) -> StreamSet {
        streams.iter().copied().collect()
    }

    fn switch(entries: &[(u16, u16, u16)]) -> StreamSwitch {
        let entries: Vec<_> = entries
            .iter()
            .map(|(source, destination, thinning)| StreamEntry {
                source: *source,
                destination: *destination,
                thinning: *thinning,
            })
            .collect();
        StreamSwitch { claimed: u32::try_from(entries.len()).unwrap(), entries }
    }

    #[test]
    fn entries_switch_on_off_and_over() {
        let all = set(&[1, 2, 3]);
        let on = switch(&[(0xFFFF, 1, 0), (0xFFFF, 2, 2), (0xFFFF, 3, 1), (0xFFFF, 9, 0), (0xFFFF, 300, 0), (0xFFFF, 0, 0)]);
        assert_eq!(on.apply(Selection::default(), all), Selection { streams: set(&[1, 3]), thinned: set(&[3]) });
        assert_eq!(switch(&[(1, 2, 0)]).apply(Selection::all(set(&[1, 3])), all), Selection::all(set(&[2, 3])));
        assert_eq!(
            switch(&[(3, 0xFFFF, 0)]).apply(Selection { streams: set(&[1, 3]), thinned: set(&[1]) }, all),
            Selection { streams: set(&[1]), thinned: set(&[1]) }
        );
        assert_eq!(
            switch(&[(0xFFFF, 3, 0)]).apply(Selection { streams: set(&[3]), thinned: set(&[3]) }, all),
            Selection::all(set(&[3]))
        );
    }

    #[test]
    fn claims_are_checked() {
        let mut message = vec![0; 8];
        message.extend(500u32.to_le_bytes());
        message.extend([0xFF, 0xFF, 1, 0, 0, 0].repeat(500));
        let read = StreamSwitch::parse(&message).unwrap();
        assert!(read.entries.len() == MAX_ENTRIES && !read.is_whole());
        message.truncate(12 + 6);
        message[8..12].copy_from_slice(&2u32.to_le_bytes());
        assert!(!StreamSwitch::parse(&message).unwrap().is_whole());
    }
}
