//! What the tests of both engines share: a base instant, ASF headers, names of messages.

use std::time::Instant;

use bytes::Bytes;

use super::block::{CancelReadBlock, ReadBlock, ReportReadBlock};
use super::connect::{Connect, ReportConnectedEx};
use super::data::DataHead;
use super::end::{CloseFile, ReportEndOfStream, ReportStreamChange, StopPlaying};
use super::frame::{Message, TCP_HEAD_LEN};
use super::funnel::{ConnectFunnel, FunnelInfo, ReportConnectedFunnel, ReportDisconnectedFunnel, ReportFunnelInfo};
use super::log::Logging;
use super::open::{OpenFile, ReportOpenFile};
use super::ping::{Ping, Pong};
use super::play::{ReportStartStriding, ReportStartedPlaying, StartPlaying};
use super::redirect::ReportRedirect;
use super::security::SecurityChallenge;
use super::select::{ReportStreamSwitch, StreamSwitch};
use crate::asf::guids;
use crate::viewing::{Content, Description};
use crate::wire::{Guid, Writer};

/// The one instant that the virtual clock counts from.
#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
pub(crate) fn base() -> Instant {
    Instant::now()
}

/// A live header of audio streams, padded to `len` bytes with the 50 of the Data Object.
pub(crate) fn asf_header(packet_size: u32, streams: &[u16], len: usize) -> Bytes {
    fn object(guid: Guid, body: Writer) -> Vec<u8> {
        let body = body.finish();
        let mut out = Writer::default();
        out.guid(guid).u64(24 + body.len() as u64).bytes(&body);
        out.finish()
    }
    let mut children = Writer::default();
    let mut file = Writer::default();
    file.zeros(16).zeros(40).u64(3000).u32(1).u32(packet_size).u32(packet_size).u32(64_000);
    children.bytes(&object(guids::FILE_PROPERTIES, file));
    for number in streams {
        let mut stream = Writer::default();
        stream.guid(guids::AUDIO).zeros(16).u64(0).u32(18).u32(0).u16(*number).u32(0);
        stream.u16(7).u16(1).u32(8000).u32(8000).u16(1).u16(8).u16(0);
        children.bytes(&object(guids::STREAM_PROPERTIES, stream));
    }
    let rest = len - 30 - children.len() - 24 - 50;
    let mut padding = Writer::default();
    padding.zeros(rest);
    children.bytes(&object(guids::PADDING, padding));
    let children = children.finish();
    let children_count = u32::try_from(streams.len()).unwrap() + 2;
    let mut out = Writer::default();
    out.guid(guids::HEADER).u64(30 + children.len() as u64).u32(children_count).u8(1).u8(2).bytes(&children);
    out.guid(guids::DATA).u64(50).zeros(16).u64(0).u8(1).u8(1);
    assert_eq!(out.len(), len);
    out.finish().into()
}

/// Packets of 1,400 bytes at 1 Mbit/s, two streams, a header of 5,000 bytes.
pub(crate) fn description() -> Description {
    Description {
        header: asf_header(1400, &[1, 2], 5000),
        packet_size: 1400,
        bit_rate: 1_000_000,
        streams: [1, 2].into_iter().collect(),
        content: Content::Live,
        ssrc: 0,
    }
}

/// The message in a control packet, by name, with its result where it is not 0.
pub(crate) fn name_of(packet: &[u8]) -> String {
    let word = |at: usize| u32::from_le_bytes(packet[TCP_HEAD_LEN + at..TCP_HEAD_LEN + at + 4].try_into().unwrap());
    let name = match word(4) {
        Connect::MID => "Connect",
        FunnelInfo::MID => "FunnelInfo",
        ConnectFunnel::MID => "ConnectFunnel",
        OpenFile::MID => "OpenFile",
        ReadBlock::MID => "ReadBlock",
        CancelReadBlock::MID => "CancelReadBlock",
        StreamSwitch::MID => "StreamSwitch",
        StartPlaying::MID => "StartPlaying",
        StopPlaying::MID => "StopPlaying",
        Logging::MID => "Logging",
        Pong::MID => "Pong",
        CloseFile::MID => "CloseFile",
        ReportConnectedEx::MID => "Connected",
        ReportFunnelInfo::MID => "FunnelInfo",
        ReportConnectedFunnel::MID => "Funnel",
        ReportDisconnectedFunnel::MID => "NoFunnel",
        ReportOpenFile::MID => "Opened",
        ReportReadBlock::MID => "Block",
        ReportStreamSwitch::MID => "Switched",
        ReportStartedPlaying::MID => "Started",
        ReportStartStriding::MID => "Striding",
        ReportEndOfStream::MID => "End",
        ReportStreamChange::MID => "Change",
        ReportRedirect::MID => "Redirect",
        SecurityChallenge::MID => return "Challenge".into(),
        Ping::MID => "Ping",
        mid => panic!("message 0x{mid:08X}"),
    };
    let reports = word(4) >> 16 == 4 && !matches!(name, "Ping");
    match word(8) {
        hr if reports && hr != 0 => format!("{name} {hr:08X}"),
        _ => name.to_owned(),
    }
}

/// A data packet of the header, by its head.
pub(crate) fn data_name(packet: &[u8]) -> String {
    let head = DataHead::parse(packet).unwrap();
    assert_eq!(usize::from(head.size), packet.len());
    format!("header {} pi {} {:02X}", head.location, head.incarnation, head.flags)
}
