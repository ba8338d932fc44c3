//! Windows Media RTSP, sans-IO: messages, descriptions, RTP for ASF; and what cameras speak.
//!
//! Source: MS-RTSP; RFC 2326.

pub mod camera;
pub mod client;
mod clocks;
pub mod depacketize;
pub mod media;
pub mod message;
pub mod payload;
pub mod publish;
pub mod recovery;
pub mod reorder;
pub mod sdp;
pub mod startup;
pub mod tracks;
pub mod transport;
pub mod viewer;
