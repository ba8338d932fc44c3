//! The ends: StopPlaying, end of stream, change of stream, CloseFile.

use super::data::CHANGED_INCARNATION;
use super::frame::{Message, body};
use super::open::FILE_ID;
use crate::wire::{DecodeError, Hresult, Writer};

/// `LinkViewerToMacStopPlaying`. Source: MS-MMSP 2.2.4.27.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPlaying {
    /// Echoed in the EndOfStream; often garbage.
    pub incarnation: u32,
}

impl Message for StopPlaying {
    const MID: u32 = 0x0003_0009;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("openFileId", 4)?;
        Ok(Self { incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(FILE_ID).u32(self.incarnation);
    }
}

/// `LinkMacToViewerReportEndOfStream`. Source: MS-MMSP 2.2.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportEndOfStream {
    /// [`Hresult::OK`]: it is over; [`Hresult::MORE`]: a StreamChange follows.
    pub hr: Hresult,
    /// That of the StopPlaying, else of the last StartPlaying.
    pub incarnation: u32,
}

impl Message for ReportEndOfStream {
    const MID: u32 = 0x0004_001E;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        Ok(Self { hr: Hresult(cursor.u32("hr")?), incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(self.incarnation);
    }
}

/// `LinkMacToViewerReportStreamChange`: another header from here on. Source: MS-MMSP 2.2.4.12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportStreamChange {
    /// Size of ASF packets from now on, bytes.
    pub packet_size: u32,
    /// Bytes of the new header.
    pub header_size: u32,
    /// Bits per second.
    pub bit_rate: u32,
}

impl Message for ReportStreamChange {
    const MID: u32 = 0x0004_0020;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("hr and dwTcpHdrIncarnation", 8)?;
        Ok(Self {
            packet_size: cursor.u32("cbPacketSize")?,
            header_size: cursor.u32("cbHeaderSize")?,
            bit_rate: cursor.u32("dwBitRate")?,
        })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(CHANGED_INCARNATION.into()).u32(self.packet_size).u32(self.header_size).u32(self.bit_rate).u32(0);
    }
}

/// `LinkViewerToMacCloseFile`: the player leaves. Source: MS-MMSP 2.2.4.16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFile;

impl Message for CloseFile {
    const MID: u32 = 0x0003_000D;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        body(message).map(|_| Self)
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(FILE_ID);
    }
}
