//! Servers of other makes and ages, broken ones and silent ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use crate::asf;
use crate::mms::block::ReportReadBlock;
use crate::mms::client::{Client, ClientConfig, ClientTransport};
use crate::mms::connect::{NO_PACKET_PAIR, ReportConnectedEx};
use crate::mms::data::{DataHead, FRAGMENT, LAST_FRAGMENT};
use crate::mms::end::{ReportEndOfStream, ReportStreamChange};
use crate::mms::frame::{Message, TCP_HEAD_LEN, encode};
use crate::mms::funnel::{ReportConnectedFunnel, ReportDisconnectedFunnel, ReportFunnelInfo};
use crate::mms::open::{BROADCAST, ReportOpenFile};
use crate::mms::ping::Ping;
use crate::mms::play::ReportStartedPlaying;
use crate::mms::redirect::{RedirectKind, ReportRedirect};
use crate::mms::resend::Request;
use crate::mms::security::{SecurityChallenge, SecurityToken};
use crate::mms::select::ReportStreamSwitch;
use crate::mms::testing::{asf_header, base, name_of};
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, StartAt};
use crate::wire::{Hresult, Writer};

pub(super) const NOTHING: [&str; 0] = [];

pub(super) fn connected(version: &str) -> ReportConnectedEx {
    ReportConnectedEx {
        hr: Hresult::OK,
        incarnation: NO_PACKET_PAIR,
        server_version: version.into(),
        authentication: String::new(),
    }
}

pub(super) fn opened() -> ReportOpenFile {
    ReportOpenFile {
        incarnation: 9,
        file_id: 1,
        attributes: BROADCAST,
        packet_size: 800,
        bit_rate: 64_000,
        header_size: 900,
        ..ReportOpenFile::default()
    }
}

pub(super) fn ended(hr: Hresult) -> ReportEndOfStream {
    ReportEndOfStream { hr, incarnation: 10 }
}

/// A client and the hand of a server.
pub(super) struct Rig {
    pub(super) client: Client,
    pub(super) now: Instant,
    pub(super) packets: Vec<Bytes>,
    pub(super) requests: Vec<Request>,
    pub(super) end: Option<ClientEnd>,
    /// The last control packet.
    pub(super) sent: Bytes,
}

impl Rig {
    pub(super) fn new(udp: bool) -> Self {
        let transport = match udp {
            true => ClientTransport::Udp { address: "192.0.2.10".parse().unwrap(), port: 1024 },
            false => ClientTransport::Tcp,
        };
        let player = "NSPlayer/7.1.0.3055; {A}".into();
        let config = ClientConfig { fall_back: true, ..ClientConfig::new("media.example".into(), "a".into(), transport, player) };
        Self::with(config)
    }

    pub(super) fn with(config: ClientConfig) -> Self {
        let now = base();
        let mut rig = Self {
            client: Client::new(now, config),
            now,
            packets: Vec::new(),
            requests: Vec::new(),
            end: None,
            sent: Bytes::new(),
        };
        assert_eq!(rig.drain(), ["Connect"]);
        rig
    }

    pub(super) fn playing(udp: bool, version: &str) -> Self {
        let mut rig = Self::new(udp);
        assert_eq!(rig.say(&connected(version)), ["FunnelInfo"]);
        assert_eq!(rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 }), ["ConnectFunnel"]);
        assert_eq!(rig.say(&ReportConnectedFunnel), ["OpenFile"]);
        assert_eq!(rig.say(&opened()), ["ReadBlock"]);
        assert_eq!(rig.say(&ReportReadBlock { hr: Hresult::OK, incarnation: 1 }), NOTHING);
        assert_eq!(rig.header(udp, 1, 0, LAST_FRAGMENT, &asf_header(800, &[1], 900)), ["header", "StreamSwitch"]);
        assert_eq!(rig.say(&ReportStreamSwitch { hr: Hresult::OK }), ["StartPlaying"]);
        assert_eq!(rig.say(&ReportStartedPlaying { hr: Hresult::OK, incarnation: 10 }), ["playing"]);
        rig
    }

    pub(super) fn say<M: Message>(&mut self, message: &M) -> Vec<String> {
        self.bytes(&encode(0, message))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.client.handle(self.now, ClientInput::Bytes(bytes));
        self.drain()
    }

    pub(super) fn data(&mut self, udp: bool, head: DataHead, payload: &[u8]) -> Vec<String> {
        let packet = [&head.bytes(), payload].concat();
        let input = if udp { ClientInput::Datagram(&packet) } else { ClientInput::Bytes(&packet) };
        self.client.handle(self.now, input);
        self.drain()
    }

    pub(super) fn header(&mut self, udp: bool, incarnation: u8, location: u32, flags: u8, piece: &[u8]) -> Vec<String> {
        self.data(udp, DataHead::new(location, incarnation, flags, piece.len()), piece)
    }

    pub(super) fn media(&mut self, udp: bool, number: u8, incarnation: u8) -> Vec<String> {
        self.data(udp, DataHead::new(500 + u32::from(number), incarnation, number, 800), &[number; 800])
    }

    pub(super) fn wait(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut log = Vec::new();
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.client.handle(self.now, ClientInput::Timeout);
            log.append(&mut self.drain());
        }
        self.now = end;
        log
    }

    pub(super) fn tell(&mut self, input: ClientInput<'_>) -> Vec<String> {
        self.client.handle(self.now, input);
        self.drain()
    }

    /// The last message that was sent.
    pub(super) fn sent<M: Message>(&self) -> M {
        M::parse(&self.sent[TCP_HEAD_LEN..]).unwrap()
    }

    pub(super) fn drain(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(output) = self.client.poll_output() {
            assert_eq!(self.end, None, "output behind the close");
            log.push(match output {
                ClientOutput::Send(packet) => {
                    let name = name_of(&packet);
                    self.sent = packet;
                    name
                }
                ClientOutput::Datagram(datagram) => {
                    let request = Request::parse(&datagram).unwrap();
                    let name = format!("resend {:?}", request.sequences);
                    self.requests.push(request);
                    name
                }
                output @ (ClientOutput::Connect | ClientOutput::Disconnect) => unreachable!("{output:?}"),
                ClientOutput::Event(ClientEvent::FunnelRefused(_)) => "refused".into(),
                ClientOutput::Event(ClientEvent::Header(_)) => "header".into(),
                ClientOutput::Event(ClientEvent::NewHeader(_)) => "new header".into(),
                // Always between OpenFile's answer and ReadBlock.
                ClientOutput::Event(ClientEvent::Opened { .. }) => continue,
                // Always right before the message.
                ClientOutput::Event(ClientEvent::Starting) => continue,
                ClientOutput::Event(ClientEvent::Playing { .. }) => "playing".into(),
                ClientOutput::Event(ClientEvent::Counted { location, send_time_ms }) => format!("{location} {send_time_ms:?}"),
                ClientOutput::Event(ClientEvent::Packet { sequence, bytes, resent, .. }) => {
                    self.packets.push(bytes);
                    format!("packet {sequence}{}", if resent { " again" } else { "" })
                }
                ClientOutput::Event(ClientEvent::GivenUp { settled }) => format!("given up below {settled}"),
                output @ (ClientOutput::DatagramTo { .. } | ClientOutput::Event(ClientEvent::UdpRefused { .. })) => {
                    unreachable!("{output:?}")
                }
                ClientOutput::Event(ClientEvent::End { hr }) => format!("end {}", hr.0),
                ClientOutput::Close(end) => {
                    self.end = Some(end);
                    "close".into()
                }
            });
        }
        log
    }
}

#[test]
fn header_in_any_order_and_form() {
    // Over UDP: report behind the data, pieces swapped and twice, an older incarnation amid them, 08 as last mark.
    let mut rig = Rig::new(true);
    rig.say(&connected("9.1.1.3841"));
    rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    rig.say(&ReportConnectedFunnel);
    rig.say(&opened());
    let header = asf_header(800, &[1], 900);
    assert_eq!(rig.header(true, 1, 2, 0x08, &header[600..]), NOTHING);
    assert_eq!(rig.header(true, 1, 0, FRAGMENT, &header[..300]), NOTHING);
    assert_eq!(rig.header(true, 1, 0, FRAGMENT, &header[..300]), NOTHING);
    assert_eq!(rig.header(true, 8, 1, FRAGMENT, &header[..300]), NOTHING);
    assert_eq!(rig.header(true, 1, 1, FRAGMENT, &header[300..600]), ["header", "StreamSwitch"]);
    assert_eq!(rig.say(&ReportReadBlock { hr: Hresult::OK, incarnation: 1 }), NOTHING);
    assert_eq!(rig.wait(5_000), NOTHING, "the header timer is off");
}

#[test]
fn media_may_overtake_the_answer_to_start() {
    let mut rig = Rig::playing(true, "9.1.1.3841");
    let mut early = Rig::new(true);
    early.say(&connected("9.1.1.3841"));
    early.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    early.say(&ReportConnectedFunnel);
    early.say(&opened());
    early.header(true, 1, 0, LAST_FRAGMENT, &asf_header(800, &[1], 900));
    early.say(&ReportStreamSwitch { hr: Hresult::OK });
    for rig in [&mut rig, &mut early] {
        assert_eq!(rig.media(true, 0, 10), ["packet 0"]);
        assert_eq!(rig.media(true, 1, 9), NOTHING, "an older play");
        assert_eq!(rig.client.stats().stale, 1);
    }
}

#[test]
fn requests_name_the_session_and_stop_after_three() {
    let mut rig = Rig::playing(true, "9.1.1.3841");
    rig.media(true, 0, 10);
    assert_eq!(rig.media(true, 3, 10), ["packet 3"]);
    assert_eq!(rig.wait(29), NOTHING);
    assert_eq!(rig.wait(1), ["resend [1, 2]"]);
    assert_eq!((rig.requests[0].client_id, rig.requests[0].source_id), (77, 1));
    assert_eq!(rig.media(true, 2, 10), ["packet 2 again"]);
    assert_eq!(rig.wait(1_000), ["resend [1]", "resend [1]", "given up below 4"]);
    let stats = rig.client.stats();
    assert_eq!((stats.gaps, stats.recovered, stats.lost, stats.resend_requests), (2, 1, 1, 3));
    assert_eq!(rig.media(true, 1, 10), NOTHING, "given up");
}

#[test]
fn the_end_waits_for_what_is_missing() {
    let mut rig = Rig::playing(true, "9.1.1.3841");
    rig.media(true, 1, 10);
    assert_eq!(rig.say(&ended(Hresult::OK)), ["end 0"]);
    assert_eq!(rig.wait(30), ["resend [0]"]);
    assert_eq!(rig.media(true, 0, 10), ["packet 0 again", "CloseFile", "close"]);
    assert_eq!(rig.end, Some(ClientEnd::Ended));
    assert_eq!(rig.client.poll_timeout(), None);
}

#[test]
fn ends_of_older_servers() {
    // Before version 9 the end of a broadcast means that more follows (MS-MMSP 3.1.5.18).
    let mut rig = Rig::playing(false, "4.1.0.3928");
    assert_eq!(rig.say(&ended(Hresult::OK)), NOTHING);
    let change = ReportStreamChange { packet_size: 800, header_size: 900, bit_rate: 64_000 };
    assert_eq!(rig.say(&change), NOTHING);
    assert_eq!(rig.header(false, 0xFF, 0, LAST_FRAGMENT, &asf_header(800, &[2], 900)), ["new header", "StreamSwitch"]);
    // It sends media at once, as the specification says.
    assert_eq!(rig.media(false, 0, 0xFF), ["packet 0"]);
    assert_eq!(rig.say(&ReportStreamSwitch { hr: Hresult::OK }), ["StartPlaying"]);
    assert_eq!(rig.say(&ReportStartedPlaying { hr: Hresult::OK, incarnation: 11 }), ["playing"]);
    assert_eq!(rig.media(false, 1, 11), ["packet 1"]);
    assert_eq!(rig.say(&ended(Hresult::OK)), NOTHING);
    assert_eq!(rig.wait(15_000), ["close"]);
    assert!(matches!(rig.end, Some(ClientEnd::NoAnswer { .. })));

    let mut rig = Rig::playing(false, "9.1.1.3841");
    assert_eq!(rig.say(&ended(Hresult::OK)), ["end 0", "CloseFile", "close"]);
}

#[test]
fn short_packets_are_restored() {
    let mut padded = Writer::default();
    padded.bytes(&[0x82, 0, 0, 0x10, 0x5D]).u16(0).u32(5000).u16(100);
    padded.u8(0x81).u8(7).u32(0).u8(8).u32(16).u32(8000).bytes(&[7; 16]);
    let used = padded.len();
    let mut packet = padded.finish();
    let padding = u16::try_from(800 - used).unwrap();
    packet[5..7].copy_from_slice(&padding.to_le_bytes());
    packet.resize(800, 0);
    let mut short = Vec::new();
    asf::strip(&packet, &mut short).unwrap();
    assert!(short.len() < 100);
    let mut rig = Rig::playing(false, "9.1.1.3841");
    assert_eq!(rig.data(false, DataHead::new(5, 10, 0, short.len()), &short), ["packet 0"]);
    assert_eq!(rig.packets[0], packet);
    // What is no packet at all is the player's to judge; what is too long is not handed on.
    assert_eq!(rig.data(false, DataHead::new(6, 10, 1, 3), &[1, 2, 3]), ["packet 1"]);
    assert_eq!(rig.data(false, DataHead::new(7, 10, 2, 801), &[0; 801]), NOTHING);
}

#[test]
fn refusals_have_their_reason() {
    let refused = |what, hr| Some(ClientEnd::Refused { what, hr });
    let mut rig = Rig::new(false);
    rig.say(&ReportConnectedEx { hr: Hresult::TOO_MANY_SESSIONS, ..connected("9.1") });
    assert_eq!(rig.end, refused("the session", Hresult::TOO_MANY_SESSIONS));

    let mut rig = Rig::new(true);
    rig.say(&connected("9.1"));
    rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    assert_eq!(rig.say(&ReportDisconnectedFunnel { hr: Hresult::UDP_DISABLED }), ["refused", "ConnectFunnel"]);
    assert_eq!(rig.say(&ReportDisconnectedFunnel { hr: Hresult::PROTOCOL_MISMATCH }), ["refused", "close"]);
    assert_eq!(rig.end, refused("the data path", Hresult::PROTOCOL_MISMATCH));

    let mut rig = Rig::new(false);
    rig.say(&connected("9.1"));
    rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    rig.say(&ReportConnectedFunnel);
    rig.say(&ReportOpenFile { hr: Hresult::FILE_NOT_FOUND, ..ReportOpenFile::default() });
    assert_eq!(rig.end, refused("the publishing point", Hresult::FILE_NOT_FOUND));
    assert!(rig.end.unwrap().to_string().contains("no such publishing point"));
}

#[test]
fn redirects_and_challenges() {
    let mut rig = Rig::new(false);
    rig.say(&ReportRedirect { kind: RedirectKind::Url, location: "mmst://b.example/x".into() });
    assert_eq!(rig.end, Some(ClientEnd::Redirected("mmst://b.example/x".into())));
    let mut rig = Rig::new(false);
    rig.say(&SecurityChallenge(SecurityToken::default()));
    assert_eq!(rig.end, Some(ClientEnd::CredentialsWanted));
}

#[test]
fn silence_at_every_step() {
    let reports = [
        encode(0, &connected("9.1")),
        encode(0, &ReportFunnelInfo { hr: Hresult::OK, client_id: 77 }),
        encode(0, &ReportConnectedFunnel),
        encode(0, &opened()),
        Bytes::from([DataHead::new(0, 1, LAST_FRAGMENT, 900).bytes().as_slice(), &asf_header(800, &[1], 900)].concat()),
        encode(0, &ReportStreamSwitch { hr: Hresult::OK }),
    ];
    let steps = ["Connect", "FunnelInfo", "ConnectFunnel", "OpenFile", "ReadBlock", "StreamSwitch", "StartPlaying"];
    for (answers, what) in steps.into_iter().enumerate() {
        let mut rig = Rig::new(false);
        for report in &reports[..answers] {
            rig.bytes(report);
        }
        assert_eq!(rig.wait(14_999), NOTHING);
        assert_eq!(rig.wait(1), ["close"]);
        assert_eq!(rig.end, Some(ClientEnd::NoAnswer { what, limit: Duration::from_secs(15) }));
    }
    let mut rig = Rig::playing(false, "9.1");
    assert_eq!(rig.wait(60_000), NOTHING);
    assert_eq!(rig.say(&Ping), ["Pong"]);
    assert_eq!(rig.wait(89_999), NOTHING);
    assert_eq!(rig.wait(1), ["close"]);
    assert_eq!(rig.end, Some(ClientEnd::Silent(Duration::from_secs(90))));
}

/// Media that stops while the control connection lives.
#[test]
fn media_that_stops() {
    let transport = ClientTransport::Udp { address: "192.0.2.10".parse().unwrap(), port: 1024 };
    let limit = Duration::from_secs(40);
    let patient = ClientConfig::new("media.example".into(), "a".into(), transport, "NSPlayer/7.1.0.3055; {A}".into());
    let playing = |media_time| {
        let mut rig = Rig::with(ClientConfig { media_time, ..patient.clone() });
        rig.say(&connected("9.1"));
        rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
        rig.say(&ReportConnectedFunnel);
        rig.say(&opened());
        rig.header(true, 1, 0, LAST_FRAGMENT, &asf_header(800, &[1], 900));
        rig.say(&ReportStreamSwitch { hr: Hresult::OK });
        assert_eq!(rig.say(&ReportStartedPlaying { hr: Hresult::OK, incarnation: 10 }), ["playing"]);
        rig
    };
    // Pings are no media, and a first packet may be late too.
    let mut rig = playing(Some(limit));
    assert_eq!(rig.wait(39_000), NOTHING);
    assert_eq!(rig.media(true, 0, 10), ["packet 0"]);
    assert_eq!(rig.wait(30_000), NOTHING);
    assert_eq!(rig.say(&Ping), ["Pong"]);
    assert_eq!(rig.wait(9_999), NOTHING);
    assert_eq!(rig.wait(1), ["CloseFile", "close"]);
    assert_eq!(rig.end, Some(ClientEnd::NoMedia(limit)));
    // Without room it may lie unread, as may the server's pings; the time begins when there is some again.
    let mut rig = playing(Some(limit));
    rig.tell(ClientInput::Room(false));
    assert_eq!(rig.wait(100_000), NOTHING);
    rig.tell(ClientInput::Room(true));
    assert_eq!(rig.wait(39_999), NOTHING);
    assert_eq!(rig.wait(1), ["CloseFile", "close"]);
    // Who rests wants none, and has all the time anew when it goes on.
    let mut rig = playing(Some(limit));
    rig.tell(ClientInput::Pause);
    rig.say(&ended(Hresult::OK));
    for _ in 0..3 {
        assert_eq!(rig.wait(60_000), NOTHING);
        assert_eq!(rig.say(&Ping), ["Pong"]);
    }
    assert_eq!(rig.tell(ClientInput::Resume), ["StreamSwitch"]);
    rig.say(&ReportStreamSwitch { hr: Hresult::OK });
    assert_eq!(rig.say(&ReportStartedPlaying { hr: Hresult::OK, incarnation: 11 }), ["playing"]);
    assert_eq!(rig.wait(39_999), NOTHING);
    assert_eq!(rig.wait(1), ["CloseFile", "close"]);
    // Nobody said how long: as long as the server shows life.
    let mut rig = playing(None);
    for _ in 0..3 {
        assert_eq!(rig.wait(60_000), NOTHING);
        assert_eq!(rig.say(&Ping), ["Pong"]);
    }
}

#[test]
fn stopping_without_an_answer() {
    let mut rig = Rig::playing(true, "9.1");
    rig.client.handle(rig.now, ClientInput::Stop);
    assert_eq!(rig.drain(), ["StopPlaying", "Logging"]);
    assert_eq!(rig.wait(2_000), ["CloseFile", "close"]);
    assert_eq!(rig.end, Some(ClientEnd::Stopped));
    let mut rig = Rig::new(true);
    rig.client.handle(rig.now, ClientInput::Stop);
    assert_eq!(rig.drain(), ["CloseFile", "close"]);
}

#[test]
fn several_messages_in_one_packet_and_broken_ones() {
    let mut rig = Rig::new(false);
    rig.say(&connected("9.1"));
    // ReportFunnelInfo and ReportConnectedFunnel under one head.
    let (first, second) = (encode(0, &ReportFunnelInfo { hr: Hresult::OK, client_id: 7 }), encode(0, &ReportConnectedFunnel));
    let mut both = first.to_vec();
    both.extend_from_slice(&second[TCP_HEAD_LEN..]);
    let length = u32::try_from(both.len() - 16).unwrap();
    both[8..12].copy_from_slice(&length.to_le_bytes());
    assert_eq!(rig.bytes(&both), ["ConnectFunnel", "OpenFile"]);
    // A header that is no ASF.
    rig.say(&opened());
    assert_eq!(rig.header(false, 1, 0, LAST_FRAGMENT, &[7; 900]), ["close"]);
    assert!(matches!(rig.end, Some(ClientEnd::Protocol(_))));
    let mut rig = Rig::new(false);
    assert_eq!(rig.bytes(b"HTTP/1.0 400 Bad Request\r\n"), NOTHING, "could be a data packet of 20 KB");
    assert_eq!(rig.bytes(&[0xCE, 0xFA, 0x0B, 0xB0].repeat(8_000)), ["close"]);
}

proptest! {
    #[test]
    fn any_bytes(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20), playing: bool) {
        let mut rig = if playing { Rig::playing(true, "9.1") } else { Rig::new(true) };
        for (n, piece) in pieces.iter().enumerate() {
            let input = if n % 2 == 0 { ClientInput::Bytes(piece) } else { ClientInput::Datagram(piece) };
            rig.client.handle(rig.now, input);
            rig.wait(50);
        }
    }

    /// Answers in any order, cut anywhere, with media amid them: no panic, and nothing behind the close.
    #[test]
    fn any_history(events in proptest::collection::vec((0usize..20, any::<u8>()), 0..80), cut in 1usize..100, udp: bool) {
        let mut rig = Rig::new(udp);
        let header = asf_header(800, &[1], 900);
        for (index, number) in [(0, 0), (1, 0), (2, 0), (3, 0)].into_iter().chain(events) {
            let hr = if number < 230 { Hresult::OK } else { Hresult::NO_STREAM };
            let message = match index {
                0 => encode(0, &connected("9.1")),
                1 => encode(0, &ReportFunnelInfo { hr, client_id: 7 }),
                2 => encode(0, &ReportConnectedFunnel),
                3 => encode(0, &ReportOpenFile { hr, ..opened() }),
                4 => encode(0, &ReportReadBlock { hr, incarnation: 1 }),
                5 => encode(0, &ReportStreamSwitch { hr }),
                6 => encode(0, &ReportStartedPlaying { hr, incarnation: 10 }),
                7 => encode(0, &ReportEndOfStream { hr: Hresult(u32::from(number) % 3), incarnation: 10 + u32::from(number) % 4 }),
                8 => encode(0, &ReportStreamChange { packet_size: 800, header_size: 900, bit_rate: 1 }),
                9 => encode(0, &Ping),
                _ => Bytes::new(),
            };
            for piece in message.chunks(cut) {
                rig.bytes(piece);
            }
            match index {
                10..=12 => drop(rig.header(udp, [1, 2, 0xFF][index - 10], 0, LAST_FRAGMENT, &header)),
                13..=14 => drop(rig.media(udp, number, 10 + number % 3)),
                15 => drop(rig.wait(u64::from(number) * 20)),
                16 => drop(rig.tell(ClientInput::Seek(StartAt::Packet(number.into())))),
                17 => drop(rig.tell(ClientInput::Pause)),
                18 => drop(rig.tell(ClientInput::Resume)),
                19 => drop(rig.tell(ClientInput::Select([number & 127].into_iter().collect()))),
                _ => {}
            }
        }
        let stats = rig.client.stats();
        prop_assert!(stats.recovered + stats.lost <= stats.gaps);
    }
}

#[test]
fn counted_packets_come_without_their_bytes() {
    for udp in [true, false] {
        let mut rig = Rig::playing(udp, "9.1.1.3841");
        rig.client.config.count_only = true;
        assert_eq!(rig.media(udp, 0, 10), ["500 None"], "no ASF packet");
        let mut packet = vec![0x82, 0, 0, 0, 0x5D];
        packet.extend_from_slice(&5000u32.to_le_bytes());
        packet.resize(800, 1);
        assert_eq!(rig.data(udp, DataHead::new(501, 10, 1, 800), &packet), ["501 Some(5000)"]);
        let stats = rig.client.stats();
        assert_eq!((stats.packets, stats.bytes, stats.gaps), (2, 1600, 0));
    }
}
