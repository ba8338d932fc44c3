//! StartPlaying and StartStriding.

use std::time::Duration;

use super::frame::{Message, body};
use super::open::FILE_ID;
use crate::viewing::{Acceleration, Position, Until};
use crate::wire::{DecodeError, Hresult, Writer};

/// `asfOffset` or `locationId` that names no place.
pub const NO_PLACE: u32 = u32::MAX;

const LAST_PLACE: u32 = NO_PLACE - 1;

/// `LinkViewerToMacStartPlaying`. Source: MS-MMSP 2.2.4.25.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartPlaying {
    /// Start, seconds of content; anything, also NaN, may stand here.
    pub position_s: f64,
    /// Start as byte of the file; 0 and [`NO_PLACE`]: unused.
    pub asf_offset: u32,
    /// Start as packet number; 0 and [`NO_PLACE`]: unused.
    pub location: u32,
    /// End, milliseconds; 0: play to the end.
    pub frame_offset: u32,
    /// Echoed in the report; its low byte stands in each media packet.
    pub incarnation: u32,
    /// A first stretch faster than real time.
    pub acceleration: Option<Acceleration>,
    /// Speed of the player's link, bits per second.
    pub link_bandwidth: Option<u32>,
}

/// `frameOffset` by which open-source clients mean the end, though read literally it is 4 h 39 min.
const NO_END: u32 = 0x00FF_FFFF;
/// Bit of `frameOffset` that makes it relative.
const RELATIVE: u32 = 1 << 31;

impl StartPlaying {
    /// Where to begin. Open-source clients give the position 0 beside a packet number that they mean, so the other fields come
    /// first. A position that is unused (the largest finite number) means the begin.
    ///
    /// # Errors
    /// [`Hresult::INVALID_ARGUMENT`] where only a position is given and it is negative, infinite or no number.
    ///
    /// Source: MS-MMSP 2.2.4.25, 3.2.5.11.
    pub fn place(&self) -> Result<Position, Hresult> {
        match (self.location, self.asf_offset) {
            (location @ 1..=LAST_PLACE, _) => Ok(Position::Packet(location)),
            (_, offset @ 1..=LAST_PLACE) => Ok(Position::Offset(offset)),
            _ if self.position_s == f64::MAX => Ok(Position::Time(0)),
            _ if self.position_s.is_finite() && self.position_s >= 0.0 => Ok(Position::Time(
                u64::try_from(Duration::try_from_secs_f64(self.position_s).map_or(u128::MAX, |time| time.as_millis()))
                    .unwrap_or(u64::MAX),
            )),
            _ => Err(Hresult::INVALID_ARGUMENT),
        }
    }

    /// Where to end; `None`: at the end of the file. Source: MS-MMSP 2.2.4.25.
    pub const fn until(&self) -> Option<Until> {
        match self.frame_offset {
            0 | NO_END => None,
            relative if relative & RELATIVE != 0 => Some(Until::After(relative & !RELATIVE)),
            absolute => Some(Until::Time(absolute)),
        }
    }

    /// Plays from where the server likes, as one asks for live content.
    pub fn live(incarnation: u32) -> Self {
        Self {
            position_s: 0.0,
            asf_offset: NO_PLACE,
            location: NO_PLACE,
            frame_offset: 0,
            incarnation,
            acceleration: None,
            link_bandwidth: None,
        }
    }
}

impl Message for StartPlaying {
    const MID: u32 = 0x0003_0007;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("openFileId and padding", 8)?;
        let position_s = cursor.f64("position")?;
        let asf_offset = cursor.u32("asfOffset")?;
        let location = cursor.u32("locationId")?;
        let frame_offset = cursor.u32("frameOffset")?;
        let incarnation = cursor.u32("playIncarnation")?;
        // Length alone tells which of the optional fields are there.
        let acceleration = if cursor.remaining() >= 8 {
            Some(Acceleration { bandwidth: cursor.u32("dwAccelBandwidth")?, duration_ms: cursor.u32("dwAccelDuration")? })
        } else {
            None
        };
        let link_bandwidth = if cursor.remaining() >= 4 { Some(cursor.u32("dwLinkBandwidth")?) } else { None };
        Ok(Self { position_s, asf_offset, location, frame_offset, incarnation, acceleration, link_bandwidth })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(FILE_ID).u32(0).f64(self.position_s).u32(self.asf_offset).u32(self.location).u32(self.frame_offset);
        body.u32(self.incarnation);
        if let Some(acceleration) = self.acceleration {
            body.u32(acceleration.bandwidth).u32(acceleration.duration_ms);
            if let Some(link) = self.link_bandwidth {
                body.u32(link);
            }
        }
    }
}

/// `LinkMacToViewerReportStartedPlaying`; media follows it. Source: MS-MMSP 2.2.4.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportStartedPlaying {
    /// Success or why not.
    pub hr: Hresult,
    /// Echo of the request.
    pub incarnation: u32,
}

impl Message for ReportStartedPlaying {
    const MID: u32 = 0x0004_0005;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        Ok(Self { hr: Hresult(cursor.u32("hr")?), incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(self.incarnation).u32(FILE_ID).u32(0).zeros(12);
    }
}

/// `LinkViewerToMacStartStriding`: fast forward or rewind. Source: MS-MMSP 2.2.4.26.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartStriding {
    /// Start, seconds of content.
    pub position_s: f64,
    /// Echoed in the report.
    pub incarnation: u32,
    /// Speed, −5 to +5, not 0.
    pub rate: f64,
}

impl Message for StartStriding {
    const MID: u32 = 0x0003_0028;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("openFileId and padding", 8)?;
        let position_s = cursor.f64("position")?;
        cursor.skip("asfOffset to frameOffset", 12)?;
        Ok(Self { position_s, incarnation: cursor.u32("playIncarnation")?, rate: cursor.f64("rate")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(FILE_ID).u32(0).f64(self.position_s).u32(NO_PLACE).u32(NO_PLACE).u32(0).u32(self.incarnation).f64(self.rate);
    }
}

/// `LinkMacToViewerReportStartStriding`. Source: MS-MMSP 2.2.4.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportStartStriding {
    /// Success or why not.
    pub hr: Hresult,
    /// Echo of the request.
    pub incarnation: u32,
}

impl Message for ReportStartStriding {
    const MID: u32 = 0x0004_000A;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        Ok(Self { hr: Hresult(cursor.u32("hr")?), incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(self.incarnation).u32(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mms::frame::encode;

    #[test]
    fn length_tells_the_options() {
        let mut play = StartPlaying::live(4);
        for (acceleration, link, bytes) in [
            (None, None, 72),
            (Some(Acceleration { bandwidth: 9, duration_ms: 8 }), None, 80),
            (Some(Acceleration { bandwidth: 9, duration_ms: 8 }), Some(7), 88),
        ] {
            (play.acceleration, play.link_bandwidth) = (acceleration, link);
            let packet = encode(0, &play);
            assert_eq!(packet.len(), bytes);
            assert_eq!(StartPlaying::parse(&packet[32..]), Ok(play));
        }
    }
}
