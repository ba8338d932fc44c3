//! What the players of the last 25 years send, in their order and with their oddities, and the answers that each of them can bear.
//!
//! Open-source clients by their wire traffic and sources (VLC 3.0, FFmpeg 5.1, libmms 0.6, MPlayer 1.5, xine-lib 1.2), Microsoft's by
//! MS-MMSP and its notes on product behaviour.

use super::{Rig, raw, utf16};
use crate::mms::block::{CancelReadBlock, ReadBlock};
use crate::mms::connect::{Connect, NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::end::{CloseFile, ReportEndOfStream, StopPlaying};
use crate::mms::frame::{Message, encode};
use crate::mms::funnel::{ConnectFunnel, FunnelInfo, ReportFunnelInfo};
use crate::mms::log::Logging;
use crate::mms::open::{BROADCAST, OpenFile, ReportOpenFile, Token};
use crate::mms::ping::Pong;
use crate::mms::play::StartPlaying;
use crate::mms::resend::Request;
use crate::mms::select::StreamSwitch;
use crate::viewing::{Acceleration, Answer};
use crate::wire::Hresult;

const NAME: &str = "NSPlayer/7.0.0.1956; {33715801-BAB3-9D85-24E9-03B90328270A}; Host: 198.51.100.20";

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn connect(incarnation: u32, name: &str) -> Vec<u8> {
    [words(&[incarnation, 0x0004_000B, 0x0003_001C]), utf16(name), vec![0, 0]].concat()
}

fn funnel(name: &str, bit_rate: u32) -> Vec<u8> {
    [words(&[0, 0xFFFF_FFFF, 0, bit_rate, 2]), utf16(name)].concat()
}

fn open(incarnation: u32, name: &str) -> Vec<u8> {
    [words(&[incarnation, 0, 0, 0]), utf16(name), vec![0, 0]].concat()
}

fn read_block(length: u32, flags: u32, incarnation: u32) -> Vec<u8> {
    words(&[1, 0, 0, length, flags, 0, 0, 0, 0, 0x40AC_2000, incarnation, 0])
}

fn start(padding: u32, location: u32, frame_offset: u32, incarnation: u32) -> Vec<u8> {
    words(&[1, padding, 0, 0, 0xFFFF_FFFF, location, frame_offset, incarnation])
}

const HEADER_2: [&str; 4] = ["header 0 pi 2 04", "header 1 pi 2 04", "header 2 pi 2 04", "header 3 pi 2 0C"];

fn with_header(first: &str) -> Vec<String> {
    std::iter::once(first).chain(HEADER_2).map(ToOwned::to_owned).collect()
}

#[test]
fn vlc() {
    let mut rig = Rig::new();
    let name = "NSPlayer/7.0.0.1956; {0xbabac001-0x4bb9-0x1234-0x000000000000}; Host: 198.51.100.20";
    assert_eq!(rig.say_raw(Connect::MID, &connect(0, name)), ["admit", "Connected"]);
    // No FunnelInfo; a rest of an older string stands behind the NUL of the funnel's name.
    let udp = [funnel("\\\\192.0.2.10\\UDP\\7000\0", 0x000A_0000), utf16("0")].concat();
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &udp), ["claim 7000", "Funnel"]);
    assert_eq!(rig.say_raw(OpenFile::MID, &open(1, "live/cam1")), ["open live/cam1", "Opened"]);
    let opened: ReportOpenFile = rig.last(0);
    // It takes file ids 1 and 2 only, waits for exactly so many bytes of header, and calls live what has no other attribute.
    assert_eq!((opened.file_id, opened.header_size, opened.attributes), (1, 5000, BROADCAST));
    assert_eq!(opened.packet_count, 0);
    let first = rig.say_raw(ReadBlock::MID, &read_block(0x8000, 0xFFFF_FFFF, 2));
    assert_eq!(first, ["Block", "udp header 0 pi 2 04"]);
    let rest = rig.wait(500);
    assert_eq!(rest, ["udp header 1 pi 2 04", "udp header 2 pi 2 04", "udp header 3 pi 2 0C"]);
    // A packet under 48 bytes would stall it.
    assert!(rig.packets.last().unwrap().len() >= 48);
    let switch = [words(&[2]), vec![0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 2, 0, 0, 0]].concat();
    assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0, 0x00FF_FFFF, 4)), ["Started", "play 4"]);
    // Pause: two stops, each answered with its own garbage, and Pongs of its own accord.
    for _ in 0..2 {
        let stopped = rig.say_raw(StopPlaying::MID, &words(&[1, 0x001F_FFFF]));
        assert_eq!(stopped.last().map(String::as_str), Some("End"));
        assert_eq!(rig.last::<ReportEndOfStream>(0).incarnation, 0x001F_FFFF);
    }
    for _ in 0..30 {
        assert_eq!(rig.wait(10_000), [""; 0], "neither pinged nor closed while it sends Pongs");
        assert_eq!(rig.say_raw(Pong::MID, &words(&[0, 0])), [""; 0]);
    }
    // Resume: Stop and Start in one go, with the packets received so far as place.
    let mut both = raw(StopPlaying::MID, &words(&[1, 0x001F_FFFF]));
    both.extend(raw(StartPlaying::MID, &start(0x0001_FFFF, 812, 0x00FF_FFFF, 4)));
    assert_eq!(rig.hear(&both), ["End", "Started", "play 4"]);
    assert_eq!(rig.say_raw(CloseFile::MID, &words(&[1, 1])), ["close left"]);
}

#[test]
fn vlc_closes_when_its_port_is_refused() {
    let mut rig = Rig::new();
    rig.funnel = Err(Hresult::INVALID_PORT);
    rig.say_raw(Connect::MID, &connect(0, NAME));
    let refused = rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.0.2.10\\UDP\\7000\0", 0x000A_0000));
    assert_eq!(refused, ["claim 7000", "NoFunnel C00D0043"]);
    assert_eq!(rig.say_raw(CloseFile::MID, &words(&[1, 1])), ["close left"]);
    assert_eq!(rig.session.report().refused_funnels, 1);
}

#[test]
fn ffmpeg() {
    let mut rig = Rig::new();
    assert_eq!(rig.say_raw(Connect::MID, &connect(0, NAME)), ["admit", "Connected"]);
    // Takes any non-zero word at offset 8 for an error, in messages of 24 bytes and more.
    assert_eq!(rig.last::<ReportConnectedEx>(0).hr, Hresult::OK);
    // An unknown incarnation and a word too many; exactly one answer.
    assert_eq!(rig.say_raw(FunnelInfo::MID, &words(&[0x00F0_F0F0, 0, 7])), ["FunnelInfo"]);
    assert_eq!(rig.last::<ReportFunnelInfo>(0).client_id, super::CLIENT_ID);
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.168.0.129\\TCP\\1037\0", 0x0098_9680)), ["Funnel"]);
    assert_eq!(rig.say_raw(OpenFile::MID, &open(1, "/live/cam1")), ["open live/cam1", "Opened"]);
    // Reads the header strictly behind the report, and media strictly behind the other.
    assert_eq!(rig.say_raw(ReadBlock::MID, &read_block(0x0080_0000, 0xFFFF_FFFF, 2)), with_header("Block"));
    let switch = [words(&[2]), vec![0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 2, 0, 0, 0]].concat();
    assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0xFFFF_FFFF, 0x00FF_FFFF, 4)), ["Started", "play 4"]);
    assert_eq!(rig.wait(30_000), ["Ping"]);
    assert_eq!(rig.say_raw(Pong::MID, &words(&[1, 0x0100_FFFF])), [""; 0]);
    assert_eq!(rig.say_raw(CloseFile::MID, &words(&[1, 1])), ["close left"]);
}

#[test]
fn libmms() {
    let mut rig = Rig::new();
    rig.say_raw(Connect::MID, &connect(0, NAME));
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.168.0.129\\TCP\\1037\0", 0x0098_9680)), ["Funnel"]);
    assert_eq!(rig.say_raw(OpenFile::MID, &open(1, "live/cam1")), ["open live/cam1", "Opened"]);
    assert_eq!(rig.say_raw(ReadBlock::MID, &read_block(0x8000, 0xFFFF_FFFF, 2)), with_header("Block"));
    let switch = [words(&[2]), vec![0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 2, 0, 2, 0]].concat();
    assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
    assert_eq!(rig.session.selected().streams.iter().collect::<Vec<_>>(), [1], "level 2 is off");
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0xFFFF_FFFF, 0x00FF_FFFF, 4)), ["Started", "play 4"]);
    // Seeks without a stop: live, so only the incarnation changes.
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 70_000, 0x00FF_FFFF, 5)), ["Started", "incarnation 5"]);
    // A new source: it plays on only if media waits for its StartPlaying.
    let changed = rig.tell(Answer::NewGeneration(super::description()));
    assert_eq!(changed[..3], ["stop", "End 00000001", "Change"]);
    assert_eq!(changed[3..], ["header 0 pi 255 04", "header 1 pi 255 04", "header 2 pi 255 04", "header 3 pi 255 0C"]);
    assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0xFFFF_FFFF, 0x00FF_FFFF, 6)), ["Started", "play 6"]);
    // The end must be hr 0, or it waits for ever. It leaves without a word.
    assert_eq!(rig.tell(Answer::Ended), ["stop", "End"]);
}

#[test]
fn mplayer() {
    let mut rig = Rig::new();
    rig.say_raw(Connect::MID, &connect(0, NAME));
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.168.0.1\\TCP\\1037\0", 0)), ["Funnel"]);
    // Incarnation 0 is reserved, but here it is.
    assert_eq!(rig.say_raw(OpenFile::MID, &open(0, "live/cam1")), ["open live/cam1", "Opened"]);
    assert_eq!(rig.last::<ReportOpenFile>(0).incarnation, 0);
    // Length, flags and deadline 0.
    let block = words(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(rig.say_raw(ReadBlock::MID, &block), with_header("Block"));
    // It knows the end of the header by its last bytes.
    let fragments: Vec<_> = rig.packets.iter().rev().take(4).collect();
    assert!(fragments[0].ends_with(&[1, 1]) && fragments[1..].iter().all(|packet| !packet.ends_with(&[1, 1])));
    let switch = [words(&[1]), vec![0xFF, 0xFF, 1, 0, 0, 0]].concat();
    assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0xFFFF_FFFF, 0, 4)), ["Started", "play 4"]);
    // One answer is one `recv`: none is longer than a segment.
    assert!(rig.packets.iter().filter(|packet| packet[4..8] == [0xCE, 0xFA, 0x0B, 0xB0]).all(|packet| packet.len() <= 1400));
}

#[test]
fn xine() {
    // It connects twice; the first connection is dropped right after StreamSwitch.
    for plays in [false, true] {
        let mut rig = Rig::new();
        rig.say_raw(Connect::MID, &connect(0, NAME));
        assert_eq!(rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.168.0.129\\TCP\\1037\0", 0)), ["Funnel"]);
        assert_eq!(rig.say_raw(OpenFile::MID, &open(1, "live/cam1")), ["open live/cam1", "Opened"]);
        assert_eq!(rig.say_raw(ReadBlock::MID, &read_block(0x0080_0000, 0xFFFF_FFFF, 2)), with_header("Block"));
        // The message is six bytes too long.
        let switch = [words(&[2]), vec![0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0xFF, 2, 0, 0, 0], vec![9; 6]].concat();
        assert_eq!(rig.say_raw(StreamSwitch::MID, &switch), ["Switched"]);
        assert_eq!(rig.session.selected().streams.len(), 2);
        if plays {
            let started = rig.say_raw(StartPlaying::MID, &start(0x0001_FFFF, 0xFFFF_FFFF, 0x00FF_FFFF, 4));
            assert_eq!(started, ["Started", "play 4"]);
        }
    }
}

#[test]
fn windows_media_player_6_4() {
    let mut rig = Rig::new();
    rig.funnel = Err(Hresult::DUPLICATE_ADDRESS);
    let name = "NSPlayer/4.1.0.3925; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}";
    // Wants packet pair; is not offered it.
    assert_eq!(rig.say_raw(Connect::MID, &connect(0xF0F0_F0F0, name)), ["admit", "Connected"]);
    assert_eq!(rig.last::<ReportConnectedEx>(0).incarnation, NO_PACKET_PAIR);
    assert_eq!(rig.session.report().player.as_ref().unwrap().version, Some((4, 1)));
    assert_eq!(rig.say_raw(FunnelInfo::MID, &words(&[0xF0F0_F901])), ["FunnelInfo"]);
    // A second ConnectFunnel on the same connection after UDP was refused, without NUL.
    let udp = funnel("\\\\192.0.2.10\\UDP\\1733", 0x0098_9680);
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &udp), ["claim 1733", "NoFunnel C00D0037"]);
    assert_eq!(rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.0.2.10\\TCP\\1734", 0x0098_9680)), ["Funnel"]);
    // One counter for all incarnations: 1 open, 2 header, 3 play. Spare fields hold garbage.
    let garbage = [words(&[1, 0xDEAD_BEEF, 0, 0]), utf16("live/cam1"), vec![0, 0]].concat();
    assert_eq!(rig.say_raw(OpenFile::MID, &garbage), ["open live/cam1", "Opened"]);
    assert_eq!(rig.say_raw(ReadBlock::MID, &read_block(0x8000, 0xFFFF_FFFF, 2)), with_header("Block"));
    let mut both = encode(4, &StreamSwitch::all([1, 2].into_iter().collect())).to_vec();
    both.extend(raw(StartPlaying::MID, &start(0xDEAD_BEEF, 0xFFFF_FFFF, 0, 3)));
    assert_eq!(rig.hear(&both), ["Switched", "Started", "play 3"]);
    // Its Stop names garbage; it logs behind it.
    let mut stop = raw(StopPlaying::MID, &words(&[0xDEAD_BEEF, 0xDEAD_BEEF]));
    stop.extend_from_slice(&encode(7, &Logging { played_ms: 5000, ..Logging::default() }));
    assert_eq!(rig.hear(&stop), ["stop", "End"]);
    assert_eq!(rig.session.report().log.as_ref().unwrap().played_ms, 5000);
    assert_eq!(rig.say(&CloseFile), ["close left"]);
}

#[test]
fn windows_media_format_9() {
    let mut rig = Rig::new();
    let name = "NSPlayer/9.0.0.3250; {3F2504E0-4F89-41D3-9A0C-0305E82C3301}; Host: media.example";
    let subscriber = vec![name.into()];
    assert_eq!(rig.say(&Connect { incarnation: NO_PACKET_PAIR, subscriber }), ["admit", "Connected"]);
    assert_eq!(rig.say(&FunnelInfo { incarnation: NO_PACKET_PAIR }), ["FunnelInfo"]);
    assert_eq!(rig.say(&ConnectFunnel::udp("192.0.2.10".parse().unwrap(), 2048)), ["claim 2048", "Funnel"]);
    let open = OpenFile { incarnation: 9, name: "live/cam1".into(), token: Token::None };
    assert_eq!(rig.say(&open), ["open live/cam1", "Opened"]);
    assert_eq!(rig.say(&ReadBlock { incarnation: 1 }), ["Block", "udp header 0 pi 1 04"]);
    // Its header timer ran out: cancel, and again with the next incarnation. What was not sent is dropped.
    assert_eq!(rig.say(&CancelReadBlock { incarnation: 1 }), [""; 0]);
    assert_eq!(rig.say(&ReadBlock { incarnation: 2 }), ["Block", "udp header 0 pi 2 04"]);
    assert_eq!(rig.wait(500), ["udp header 1 pi 2 04", "udp header 2 pi 2 04", "udp header 3 pi 2 0C"]);
    let mut both = encode(4, &StreamSwitch::all([1, 2].into_iter().collect())).to_vec();
    let play = StartPlaying {
        position_s: f64::MAX,
        acceleration: Some(Acceleration { bandwidth: 700_000, duration_ms: 5000 }),
        link_bandwidth: Some(1_500_000),
        ..StartPlaying::live(10)
    };
    both.extend_from_slice(&encode(5, &play));
    assert_eq!(rig.hear(&both), ["Switched", "Started", "play 10"]);
    let request = Request { client_id: super::CLIENT_ID, source_id: 1, sequences: vec![0x157, 0x158] };
    assert_eq!(rig.datagram(&request.bytes()), ["resend [343, 344]"]);
    // The broadcast ends: resends are served on, it logs and leaves.
    assert_eq!(rig.tell(Answer::Ended), ["stop"]);
    assert_eq!(rig.wait(100), ["End"]);
    assert_eq!(rig.datagram(&request.bytes()), ["resend [343, 344]"]);
    assert_eq!(rig.say(&Logging::default()), [""; 0]);
    assert_eq!(rig.say(&CloseFile), ["close left"]);
}

#[test]
fn a_windows_media_services_4_server_that_pulls() {
    let mut rig = Rig::new();
    rig.say_raw(Connect::MID, &connect(0xCDCD_CDCD, "Spooooon!"));
    assert!(rig.session.report().player.as_ref().unwrap().is_wms4);
    rig.say_raw(ConnectFunnel::MID, &funnel("\\\\192.0.2.10\\TCP\\1755\0", 0));
    rig.say_raw(OpenFile::MID, &open(1, "live/cam1"));
    rig.say_raw(ReadBlock::MID, &read_block(0xFFFF, 0xFFFF_FFFF, 2));
    // It never selects: all streams are.
    assert_eq!(rig.say_raw(StartPlaying::MID, &start(0, 0, 0, 3)), ["Started", "play 3"]);
    assert_eq!(rig.session.selected().streams.len(), 2);
}
