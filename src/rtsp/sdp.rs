//! Descriptions of Windows Media streams: ours, and those of other servers.
//!
//! Source: MS-RTSP 2.2.5; RFC 4566; RFC 2326 C.

mod describe;
mod npt;
mod remote;
#[cfg(test)]
mod tests;
mod tracks;
mod url;

pub use describe::{Facts, describe};
pub use npt::{Npt, NptRange};
pub use remote::{Media, MediaKind, Remote, Role, RtpMap, SDP_BOUND, SdpError, WindowsMedia};
pub use tracks::{Control, RTX, RTX_STREAM, Track, Tracks};
pub use url::base_url;

/// The attribute that holds the header, up to its base64 text.
const HEADER_PREFIX: &str = "data:application/vnd.ms.wms-hdr.asfv1;base64,";
/// The RTP payload format of ASF, and that of its repetitions.
const ASF_ENCODING: &str = "x-asf-pf";
const RTX_ENCODING: &str = "x-wms-rtx";
