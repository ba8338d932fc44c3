//! Descriptions of Windows Media streams: ours, and those of other servers.
//!
//! Source: MS-RTSP 2.2.5; RFC 4566; RFC 2326 C.

mod describe;
mod tracks;

pub use describe::{Facts, describe};
pub use tracks::{Control, RTX, RTX_STREAM, Track, Tracks};

/// The attribute that holds the header, up to its base64 text.
const HEADER_PREFIX: &str = "data:application/vnd.ms.wms-hdr.asfv1;base64,";
/// The RTP payload format of ASF, and that of its repetitions.
const ASF_ENCODING: &str = "x-asf-pf";
const RTX_ENCODING: &str = "x-wms-rtx";
