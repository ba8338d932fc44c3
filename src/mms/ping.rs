//! Ping and Pong.

use super::frame::{Message, body};
use crate::wire::{DecodeError, Writer};

/// `LinkMacToViewerPing`. Source: MS-MMSP 2.2.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping;

impl Message for Ping {
    const MID: u32 = 0x0004_001B;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        body(message).map(|_| Self)
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(0);
    }
}

/// `LinkViewerToMacPong`: answers a Ping, or comes by itself (VLC while it is paused). Source: MS-MMSP 2.2.4.22.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong;

impl Message for Pong {
    const MID: u32 = 0x0003_001B;

    fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        body(message).map(|_| Self)
    }

    fn write(&self, body: &mut Writer) {
        body.u32(0).u32(0);
    }
}
