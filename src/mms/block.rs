//! ReadBlock: the player fetches the ASF header.

use super::frame::{Message, body};
use super::open::FILE_ID;
use crate::wire::{DecodeError, Hresult, Writer};

/// `LinkViewerToMacReadBlock`. Source: MS-MMSP 2.2.4.23.
///
/// Offset, length and deadlines are no business of ours: the whole header is always sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBlock {
    /// Echoed in the report; its low byte stands in each header packet.
    pub incarnation: u32,
}

impl Message for ReadBlock {
    const MID: u32 = 0x0003_0015;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        cursor.skip("openFileId to tDeadline", 40)?;
        Ok(Self { incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(FILE_ID).u32(0).u32(0).u32(0x8000).u32(u32::MAX).u32(0).f64(0.0).f64(3600.0).u32(self.incarnation).u32(0);
    }
}

/// `LinkMacToViewerReportReadBlock`; the header packets follow it. Source: MS-MMSP 2.2.4.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportReadBlock {
    /// Success or why not.
    pub hr: Hresult,
    /// Echo of the request.
    pub incarnation: u32,
}

impl Message for ReportReadBlock {
    const MID: u32 = 0x0004_0011;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = body(message)?;
        Ok(Self { hr: Hresult(cursor.u32("hr")?), incarnation: cursor.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.hr.0).u32(self.incarnation).u32(0);
    }
}

/// `LinkViewerToMacCancelReadBlock`: header packets not yet sent are dropped. Source: MS-MMSP 2.2.4.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CancelReadBlock {
    /// That of the ReadBlock.
    pub incarnation: u32,
}

impl Message for CancelReadBlock {
    const MID: u32 = 0x0003_0025;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { incarnation: body(message)?.u32("playIncarnation")? })
    }

    fn write(&self, body: &mut Writer) {
        body.u32(self.incarnation);
    }
}
