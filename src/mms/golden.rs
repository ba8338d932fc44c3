//! Whole control packets, byte for byte, both ways; each of them cut and fed in pieces.
//!
//! The vectors were computed from the layouts of MS-MMSP by hand and checked with Wireshark's dissector; client 192.0.2.10,
//! server 198.51.100.20.

use super::block::{CancelReadBlock, ReadBlock, ReportReadBlock};
use super::connect::{Connect, NO_PACKET_PAIR, ReportConnectedEx};
use super::end::{CloseFile, ReportEndOfStream, ReportStreamChange, StopPlaying};
use super::frame::{Decoder, Frame, FrameError, Item, Message, TCP_HEAD_LEN, encode};
use super::funnel::{ConnectFunnel, FunnelInfo, ReportConnectedFunnel, ReportDisconnectedFunnel, ReportFunnelInfo};
use super::log::Logging;
use super::open::{BROADCAST, OpenFile, ReportOpenFile, Token};
use super::ping::{Ping, Pong};
use super::play::{ReportStartStriding, ReportStartedPlaying, StartPlaying, StartStriding};
use super::redirect::{RedirectKind, ReportRedirect};
use super::security::{SecurityChallenge, SecurityResponse, SecurityToken};
use super::select::{ReportStreamSwitch, StreamEntry, StreamSwitch};
use crate::viewing::Acceleration;
use crate::wire::{DecodeError, Hresult};
use bytes::Bytes;
use proptest::prelude::*;
use std::fmt::Debug;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn head(length: &str, chunks: &str, seq: &str) -> String {
    format!("01000000cefa0bb0 {length}000000 4d4d5320 {chunks}000000 {seq}000000 0000000000000000")
}

/// The packet encodes and decodes to exactly these bytes.
fn golden<M: Message + PartialEq + Debug>(message: &M, seq: u16, hex: &str) {
    let bytes = unhex(hex);
    assert_eq!(encode(seq, message), bytes, "{message:?}");
    assert_eq!(M::parse(&bytes[TCP_HEAD_LEN..]).as_ref(), Ok(message));
}

#[test]
fn connect_and_its_report() {
    let name = "NSPlayer/9.0.0.3250; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}; Host: media.example";
    let connect = Connect { incarnation: NO_PACKET_PAIR, subscriber: vec![name.into()] };
    golden(
        &connect,
        0,
        "01000000cefa0bb0c80000004d4d5320190000000000000000000000000000001700000001000300eff0f0f00b0004001c000300
         4e00530050006c0061007900650072002f0039002e0030002e0030002e0033003200350030003b0020007b003300460032003500
         30003400450030002d0034004600380039002d0034003100440033002d0039004100300043002d00300033003000350045003800
         3200430033003300300031007d003b00200048006f00730074003a0020006d0065006400690061002e006500780061006d007000
         6c00650000000000",
    );
    golden(
        &ReportConnectedEx {
            hr: Hresult::OK,
            incarnation: NO_PACKET_PAIR,
            server_version: "9.1.1.3841".into(),
            authentication: String::new(),
        },
        0,
        &(head("68", "0d", "00")
            + "0b000000 01000400 00000000 eff0f0f0 0b000400 1c000300 000000000000f03f 01000000 01000000 00800000 80969800
               0b000000 00000000 00000000 00000000 39002e0031002e0031002e0033003800340031000000 0000"),
    );
}

#[test]
fn funnel() {
    golden(&FunnelInfo { incarnation: NO_PACKET_PAIR }, 1, &(head("20", "04", "01") + "02000000 18000300 eff0f0f0 00000000"));
    golden(
        &ReportFunnelInfo { hr: Hresult::OK, client_id: 0x5EED_1234 },
        1,
        &(head("40", "08", "01")
            + "06000000 15000400 00000000 eff0f0f0 08000000 01000000 00000100 3412ed5e 00000000 01000000 00000000 00000000"),
    );
    golden(
        &ConnectFunnel::udp("192.0.2.10".parse().unwrap(), 2048),
        2,
        &(head("58", "0b", "02")
            + "09000000 02000300 00000000 ffffffff 00000000 80969800 02000000
               5c005c003100390032002e0030002e0032002e0031003000 5c005500440050005c0032003000340038000000"),
    );
    golden(
        &ReportConnectedFunnel,
        2,
        &(head("50", "0a", "02")
            + "08000000 02000400 00000000 00000000 00000000
               460075006e006e0065006c0020004f0066002000 54006800650020 0047006f00640073000000 000000000000"),
    );
    golden(
        &ReportDisconnectedFunnel { hr: Hresult::INVALID_PORT },
        2,
        &(head("20", "04", "02") + "02000000 03000400 43000dc0 00000000"),
    );
}

#[test]
fn open_and_read() {
    golden(
        &OpenFile { incarnation: 9, name: "live/cam1".into(), token: Token::None },
        3,
        "01000000cefa0bb0400000004d4d5320080000000300000000000000000000000600000005000300090000000000000000000000
         000000006c006900760065002f00630061006d003100000000000000",
    );
    golden(
        &ReportOpenFile {
            incarnation: 9,
            file_id: 1,
            attributes: BROADCAST,
            packet_size: 1400,
            bit_rate: 152_000,
            header_size: 809,
            ..ReportOpenFile::default()
        },
        3,
        "01000000cefa0bb0880000004d4d5320110000000300000000000000000000000f00000006000400000000000900000001000000
         00000000000000000000000200000000000000000000000000000000000000000000000000000000780500000000000000000000
         c05102002903000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
    );
    golden(
        &ReadBlock { incarnation: 1 },
        4,
        "01000000cefa0bb0480000004d4d5320090000000400000000000000000000000700000015000300010000000000000000000000
         00800000ffffffff000000000000000000000000000000000020ac400100000000000000",
    );
    golden(
        &ReportReadBlock { hr: Hresult::OK, incarnation: 1 },
        4,
        "01000000cefa0bb0280000004d4d5320050000000400000000000000000000000300000011000400000000000100000000000000
         00000000",
    );
    golden(&CancelReadBlock { incarnation: 1 }, 4, &(head("20", "04", "04") + "02000000 25000300 01000000 00000000"));
}

#[test]
fn select_and_play() {
    golden(
        &StreamSwitch::all([1, 2].into_iter().collect()),
        5,
        "01000000cefa0bb0280000004d4d532005000000050000000000000000000000030000003300030002000000ffff01000000ffff
         02000000",
    );
    golden(
        &ReportStreamSwitch { hr: Hresult::OK },
        5,
        "01000000cefa0bb0200000004d4d53200400000005000000000000000000000002000000210004000000000000000000",
    );
    golden(
        &StartPlaying {
            acceleration: Some(Acceleration { bandwidth: 700_000, duration_ms: 5000 }),
            link_bandwidth: Some(1_500_000),
            ..StartPlaying::live(10)
        },
        6,
        "01000000cefa0bb0480000004d4d5320090000000600000000000000000000000700000007000300010000000000000000000000
         00000000ffffffffffffffff000000000a00000060ae0a008813000060e3160000000000",
    );
    golden(
        &ReportStartedPlaying { hr: Hresult::OK, incarnation: 10 },
        6,
        "01000000cefa0bb0380000004d4d5320070000000600000000000000000000000500000005000400000000000a00000001000000
         0000000000000000000000000000000000000000",
    );
}

#[test]
fn pings_and_ends() {
    let ping = "01000000cefa0bb0200000004d4d532004000000070000000000000000000000020000001b0004000000000000000000";
    golden(&Ping, 7, ping);
    golden(&Pong, 7, "01000000cefa0bb0200000004d4d532004000000070000000000000000000000020000001b0003000000000000000000");
    golden(
        &StopPlaying { incarnation: 10 },
        8,
        "01000000cefa0bb0200000004d4d5320040000000800000000000000000000000200000009000300010000000a000000",
    );
    golden(
        &ReportEndOfStream { hr: Hresult::OK, incarnation: 10 },
        8,
        "01000000cefa0bb0200000004d4d532004000000080000000000000000000000020000001e000400000000000a000000",
    );
    golden(&CloseFile, 9, "01000000cefa0bb0200000004d4d532004000000090000000000000000000000020000000d0003000000000001000000");
    golden(
        &ReportStreamChange { packet_size: 1400, header_size: 809, bit_rate: 152_000 },
        9,
        "01000000cefa0bb0300000004d4d532006000000090000000000000000000000040000002000040000000000ff00000078050000
         29030000c051020000000000",
    );
}

/// Identifier, packet and parser of a message.
type Case = (u32, Bytes, fn(&[u8]) -> Result<(), DecodeError>);

/// One packet of every message.
fn every_message() -> Vec<Case> {
    fn case<M: Message + PartialEq + Debug>(message: M) -> Case {
        let packet = encode(3, &message);
        assert_eq!(M::parse(&packet[TCP_HEAD_LEN..]), Ok(message));
        (M::MID, packet, |bytes| M::parse(bytes).map(|_| ()))
    }
    let token = SecurityToken { incarnation: 9, cookie: 7, token: b"dXNlcjpwYXNz\0".to_vec() };
    vec![
        case(Connect { incarnation: 0, subscriber: vec!["NSPlayer/7.0.0.1956; {A}".into(), "HOST: a".into(), "VIA: b".into()] }),
        case(ReportConnectedEx { hr: Hresult(1), incarnation: 2, server_version: "4.1".into(), authentication: "BASIC".into() }),
        case(FunnelInfo { incarnation: 1 }),
        case(ReportFunnelInfo { hr: Hresult::OK, client_id: 5 }),
        case(ConnectFunnel::tcp("2001:db8::1".parse().unwrap(), 9)),
        case(ReportConnectedFunnel),
        case(ReportDisconnectedFunnel { hr: Hresult::UDP_DISABLED }),
        case(OpenFile { incarnation: 9, name: "Köln 🎥".into(), token: Token::Bytes(vec![1, 2, 3]) }),
        case(ReportOpenFile { duration_s: 12.5, blocks: 13, packet_count: 99, ..ReportOpenFile::default() }),
        case(SecurityChallenge(token.clone())),
        case(SecurityResponse(token)),
        case(ReportRedirect { kind: RedirectKind::Url, location: "mmst://other.example/live".into() }),
        case(ReadBlock { incarnation: 8 }),
        case(ReportReadBlock { hr: Hresult::INVALID_REQUEST, incarnation: 8 }),
        case(CancelReadBlock { incarnation: 8 }),
        case(StreamSwitch { claimed: 1, entries: vec![StreamEntry { source: 2, destination: 3, thinning: 1 }] }),
        case(ReportStreamSwitch { hr: Hresult::INVALID_ARGUMENT }),
        case(StartPlaying { position_s: f64::MAX, ..StartPlaying::live(254) }),
        case(ReportStartedPlaying { hr: Hresult::NO_STREAM, incarnation: 254 }),
        case(StartStriding { position_s: 1.0, incarnation: 12, rate: -5.0 }),
        case(ReportStartStriding { hr: Hresult::STRIDE_REFUSED, incarnation: 12 }),
        case(StopPlaying { incarnation: 0x001F_FFFF }),
        case(ReportEndOfStream { hr: Hresult::MORE, incarnation: 4 }),
        case(ReportStreamChange { packet_size: 1, header_size: 2, bit_rate: 3 }),
        case(Logging { url: "mms://a/b".into(), hr: Hresult(7), ..Logging::default() }),
        case(Ping),
        case(Pong),
        case(CloseFile),
    ]
}

#[test]
fn every_message_cut_at_every_length() {
    for (mid, packet, parse) in every_message() {
        let message = &packet[TCP_HEAD_LEN..];
        // What is missing is told as such, up to where only optional or string bytes are left.
        let needed = (0..=message.len()).find(|n| parse(&message[..*n]).is_ok()).unwrap();
        assert!(needed >= 8, "0x{mid:08X}");
        for n in 0..needed {
            assert!(matches!(parse(&message[..n]), Err(DecodeError::Short { .. } | DecodeError::Invalid { .. })));
        }
        // Cutting in the string part never panics and never asks for more.
        for n in needed..message.len() {
            let _ = parse(&message[..n]);
        }
    }
}

#[test]
fn every_packet_split_at_every_byte() {
    for (mid, packet, _) in every_message() {
        let whole = Item::Message(Frame { mid, message: packet.slice(TCP_HEAD_LEN..) });
        for at in 0..packet.len() {
            for mut decoder in [Decoder::from_client(), Decoder::from_server()] {
                decoder.feed(&packet[..at]);
                assert_eq!(decoder.poll(), Ok(None), "0x{mid:08X} at {at}");
                decoder.feed(&packet[at..]);
                assert_eq!(decoder.poll().as_ref(), Ok(&Some(whole.clone())));
                assert_eq!((decoder.poll(), decoder.buffered()), (Ok(None), 0));
            }
        }
    }
}

#[test]
fn several_messages_in_one_packet() {
    let pong = &encode(0, &Pong)[TCP_HEAD_LEN..];
    let many = |count: usize| {
        let mut packet = encode(0, &Pong)[..TCP_HEAD_LEN].to_vec();
        packet.extend(pong.repeat(count));
        let length = u32::try_from(packet.len() - 16).unwrap();
        packet[8..12].copy_from_slice(&length.to_le_bytes());
        packet
    };
    let mut decoder = Decoder::from_client();
    decoder.feed(&many(8));
    for _ in 0..8 {
        assert!(matches!(decoder.poll(), Ok(Some(Item::Message(frame))) if frame.mid == Pong::MID));
    }
    assert_eq!(decoder.poll(), Ok(None));
    decoder.feed(&many(0));
    assert_eq!(decoder.poll(), Ok(None), "a packet without a message is legal");
    decoder.feed(&many(9));
    assert_eq!((0..9).map(|_| decoder.poll()).last(), Some(Err(FrameError::TooMany)));
}

#[test]
fn heads_that_are_refused_before_anything_is_buffered() {
    let good = encode(0, &Pong);
    let refused = |at: usize, bytes: &[u8], cut: usize| {
        let mut bad = good[..cut].to_vec();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let mut decoder = Decoder::from_client();
        decoder.feed(&bad);
        decoder.poll().unwrap_err()
    };
    assert_eq!(refused(0, &[2], 1), FrameError::Signature("rep"));
    assert_eq!(refused(4, &[0], 8), FrameError::Signature("sessionId"));
    assert_eq!(refused(12, &[0], 16), FrameError::Signature("seal"));
    for length in [0u32, 8, 15, 33, 16 * 1024 + 8, u32::MAX, u32::MAX - 7] {
        assert_eq!(refused(8, &length.to_le_bytes(), 12), FrameError::Length { length, limit: 16 * 1024 });
    }
    for units in [0u32, 1, 3, u32::MAX] {
        assert_eq!(refused(32, &units.to_le_bytes(), 48), FrameError::Chunk { units, index: 0, left: 16 });
    }
    let mut decoder = Decoder::from_server();
    decoder.feed(&[0, 0, 0, 0, 4, 0, 7, 0]);
    assert_eq!(decoder.poll(), Err(FrameError::DataSize(7)));
}

#[test]
fn control_and_data_interleave() {
    let mut wire = Vec::new();
    super::media::wrap(&[7; 300], 100, 50.., &mut wire);
    wire.extend_from_slice(&encode(0, &Ping));
    wire.extend_from_slice(&wire.clone()[..108]);
    for step in [1, 7, 8, 9, 50, 1000] {
        let mut decoder = Decoder::from_server();
        let mut seen = Vec::new();
        for piece in wire.chunks(step) {
            decoder.feed(piece);
            while let Some(item) = decoder.poll().unwrap() {
                seen.push(match item {
                    Item::Data { head, payload } => (head.location, payload.len()),
                    Item::Message(frame) => (frame.mid, frame.message.len()),
                });
            }
        }
        assert_eq!(seen, [(50, 100), (51, 100), (52, 100), (Ping::MID, 16), (50, 100)]);
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 1usize..64, server: bool) {
        let mut decoder = if server { Decoder::from_server() } else { Decoder::from_client() };
        for piece in bytes.chunks(cut) {
            decoder.feed(piece);
            while let Ok(Some(_)) = decoder.poll() {}
        }
        for (_, _, parse) in every_message() {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn any_message_body_parses_or_fails(index in 0usize..28, at in 0usize..200, value: u8, length in 0usize..300) {
        let messages = every_message();
        let (_, packet, parse) = &messages[index % messages.len()];
        let mut message = packet[TCP_HEAD_LEN..].to_vec();
        message.resize(length.max(8), 0xFF);
        if let Some(byte) = message.get_mut(at) {
            *byte = value;
        }
        let _ = parse(&message);
    }
}
