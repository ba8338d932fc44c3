//! Publishers as they could be, over a virtual clock.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is a test's report")]

use proptest::prelude::*;

use super::*;
use crate::asf::{samples, walk};
use crate::rtsp::media::{self, Carriage, Facts, Packets};
use crate::rtsp::message::interleaved;
use crate::rtsp::sdp;
use crate::rtsp::tracks::Frame;
use crate::viewing::{Content, Description};

const STREAM: &str = "live-asf-pipe.asf";
const OTHER: &str = "audio-wmav2.wma";
const U: &str = "rtsp://192.0.2.1/cam1";

#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
fn base() -> Instant {
    Instant::now()
}

/// A description as we write them for players.
fn sdp_of(name: &str) -> String {
    let (header, _) = samples::stream(name);
    let blob = [header.bytes(), header.data_head().as_slice()].concat();
    let description = Description {
        header: blob.into(),
        packet_size: u32::try_from(header.packet_size()).unwrap(),
        bit_rate: 300_000,
        streams: header.streams().iter().map(|stream| stream.number).collect(),
        content: Content::Live,
        ssrc: 5,
    };
    sdp::describe(&description, &sdp::Facts::of(&description, U.into(), false))
}

/// The RTP packets of a stream's first packets.
fn rtp_of(name: &str, count: usize, ssrc: u32) -> Vec<Vec<u8>> {
    let (header, packets) = samples::stream(name);
    let size = header.packet_size();
    let fragments = media::fragments(size, media::MAX_DATAGRAM);
    let flow = media::Flow { ssrc, sequence: 0xFFF8 };
    let mut out = Vec::new();
    for (number, packet) in (0..).zip(packets.iter().take(count)) {
        let info = walk(packet).unwrap();
        let mut one = Packets::new(Carriage::Datagrams, fragments);
        one.push(packet, size, flow, Facts { packet: number, send_time_ms: info.send_time_ms, key: info.key });
        out.extend((0..fragments).map(|index| one.stretch(0, 1).fragment(index).unwrap().to_vec()));
    }
    out
}

/// To the port of ASF.
fn datagram(bytes: &[u8]) -> Input<'_> {
    Input::Datagram { pair: 0, is_rtcp: false, bytes }
}

/// A connection, and somebody behind it who decides.
struct Rig {
    connection: Connection,
    now: Instant,
    answer: Answer,
    /// Whether whoever asks may publish.
    authority: Answer,
    asked: Vec<Publication>,
    published: Vec<Result<Announcement, NotAsf>>,
    packets: Vec<u8>,
    frames: Vec<Frame>,
    reports: Vec<(usize, u16, Bytes)>,
    closed: Option<CloseReason>,
    cseq: u32,
}

impl Rig {
    fn new(is_tls: bool) -> Self {
        let now = base();
        Self {
            connection: Connection::new(now, 77, is_tls),
            now,
            answer: Answer::Accept,
            authority: Answer::Accept,
            asked: Vec::new(),
            published: Vec::new(),
            packets: Vec::new(),
            frames: Vec::new(),
            reports: Vec::new(),
            closed: None,
            cseq: 0,
        }
    }

    fn input(&mut self, input: Input<'_>) -> String {
        self.connection.handle(self.now, input);
        let mut sent = Vec::new();
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Send(bytes) => sent.extend_from_slice(&bytes),
                Output::Packets(packets) => self.packets.extend_from_slice(&packets),
                Output::Close(reason) => self.closed = Some(reason),
                Output::Ask(Ask::Ports { pair }) => {
                    let port = 6000 + 2 * u16::try_from(pair).unwrap();
                    self.connection.handle(self.now, Input::Answer(Answer::Port(Some(port))));
                }
                Output::Frame(frame) => self.frames.push(frame),
                Output::Report { pair, port, bytes } => self.reports.push((pair, port, bytes)),
                Output::Ask(Ask::Authorise(publication)) => {
                    self.asked.push(*publication);
                    self.connection.handle(self.now, Input::Answer(self.authority.clone()));
                }
                Output::Ask(Ask::Publish(announced)) => {
                    self.published.push(*announced);
                    self.connection.handle(self.now, Input::Answer(self.answer.clone()));
                }
            }
        }
        String::from_utf8(sent).unwrap()
    }

    fn ask(&mut self, line: &str, headers: &str, body: &str) -> String {
        self.cseq += 1;
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{line} RTSP/1.0\r\nCSeq: {}\r\n{headers}{length}\r\n{body}", self.cseq);
        self.input(Input::Bytes(text.as_bytes()))
    }

    fn announce(&mut self, name: &str) -> String {
        self.ask(&format!("ANNOUNCE {U}"), "Content-Type: application/sdp\r\n", &sdp_of(name))
    }

    fn setup(&mut self, token: &str, transport: &str) -> String {
        self.ask(&format!("SETUP {U}/{token}"), &format!("Session: 77\r\nTransport: {transport}\r\n"), "")
    }

    fn frame(&mut self, channel: u8, rtp: &[u8]) {
        let mut bytes = Vec::new();
        interleaved(channel, rtp, &mut bytes);
        assert_eq!(self.input(Input::Bytes(&bytes)), "");
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn assert_media(name: &str, packets: &[u8], count: usize) {
    let (header, sent) = samples::stream(name);
    let size = header.packet_size();
    let data = |packet: &[u8]| crate::asf::payloads(packet).unwrap().map(|payload| payload.data.to_vec()).collect::<Vec<_>>();
    assert_eq!(packets.len(), count * size);
    for (packet, sent) in packets.chunks(size).zip(&sent) {
        assert_eq!(data(packet), data(sent));
    }
}

#[test]
fn a_stream_is_published_on_the_connection() {
    let mut rig = Rig::new(true);
    assert!(rig.ask(&format!("OPTIONS {U}"), "", "").contains("Public: OPTIONS, ANNOUNCE, SETUP, RECORD"));
    let announced = rig.announce(STREAM);
    assert!(announced.contains("\r\nSession: 77;timeout=30\r\n"), "{announced}");
    let asked = &rig.asked[0];
    assert_eq!((asked.name.as_str(), asked.method.as_str(), asked.target.as_str()), ("cam1", "ANNOUNCE", U));
    assert!(rig.published[0].is_ok());
    // In the clear beside TLS nothing is taken.
    assert_eq!(status(&rig.setup("audio", "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=record")), 461);
    let setup = rig.setup("audio", "RTP/AVP/TCP;unicast;interleaved=4-5;mode=record");
    assert!(setup.contains("Transport: RTP/AVP/TCP;unicast;interleaved=4-5;mode=RECORD\r\n"), "{setup}");
    assert_eq!(status(&rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=4-5;mode=record")), 200);
    assert_eq!(status(&rig.setup("rtx", "RTP/AVP/TCP;unicast;interleaved=6-7;mode=record")), 461);
    assert_eq!(status(&rig.setup("nothing", "RTP/AVP/TCP;unicast;interleaved=6-7;mode=record")), 400);
    // A flow for each stream at most.
    let others = [6, 8, 10, 12].map(|channel| status(&rig.setup("video", &format!("RTP/AVP/TCP;unicast;interleaved={channel}"))));
    assert_eq!(others.last(), Some(&461), "{others:?}");
    let rtp = rtp_of(STREAM, 8, 9);
    rig.frame(4, &rtp[0]);
    assert!(rig.packets.is_empty(), "not before RECORD");
    assert_eq!(status(&rig.ask(&format!("RECORD {U}"), "Session: 77\r\nRange: npt=0.000-\r\n", "")), 200);
    for rtp in &rtp {
        rig.frame(4, rtp);
        rig.frame(5, b"a report");
    }
    assert_media(STREAM, &rig.packets, 8);
    assert_eq!(rig.connection.losses(), Losses::default());
    assert_eq!(status(&rig.ask(&format!("TEARDOWN {U}"), "Session: 77\r\n", "")), 200);
    assert_eq!(rig.closed, Some(CloseReason::Left));
}

#[test]
fn datagrams_may_come_out_of_order() {
    let mut rig = Rig::new(false);
    rig.announce(STREAM);
    let setup = rig.setup("video", "RTP/AVP/UDP;unicast;client_port=5000-5001;mode=record");
    assert!(setup.contains("server_port=6000-6001") && setup.contains("mode=RECORD"), "{setup}");
    assert_eq!(status(&rig.setup("audio", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record")), 461, "one transport");
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    let mut rtp = rtp_of(STREAM, 10, 9);
    rtp.swap(3, 5);
    rtp.swap(8, 9);
    rtp.iter().for_each(|rtp| assert_eq!(rig.input(datagram(rtp)), ""));
    assert_media(STREAM, &rig.packets, 10);
    // A stray packet or a report tears nothing; three in a row are another sender, at the same place.
    let (size, others) = (rig.packets.len() / 10, rtp_of(STREAM, 4, 10));
    rig.packets.clear();
    for rtp in [&others[0], &others[1], &rtp_of(STREAM, 11, 9)[10], &vec![0x80, 200, 0, 6, 0, 0, 0, 9, 1, 2, 3, 4], &vec![0x80]] {
        assert_eq!(rig.input(datagram(rtp)), "");
    }
    assert_eq!(rig.packets.len(), size, "the flow goes on");
    rig.packets.clear();
    others.iter().for_each(|rtp| assert_eq!(rig.input(datagram(rtp)), ""));
    assert_eq!(rig.packets.len(), 2 * size);
}

/// As FFmpeg announces a file with pictures, sound, and subtitles that nobody can have.
const TRACKS: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LADdoFB+hAAAADAEAAAAPI8UKq,aM4PyA==\r\na=control:streamid=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 PCMA/8000/1\r\na=control:streamid=1\r\n\
    m=audio 0 RTP/AVP 98\r\na=rtpmap:98 opus/48000/2\r\na=control:streamid=2\r\n";

/// An RTP packet.
fn rtp(kind: u8, sequence: u16, timestamp: u32, ssrc: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x80, kind][..], &sequence.to_be_bytes(), &timestamp.to_be_bytes(), &[0, 0, 0, ssrc], payload].concat()
}

/// A sender report: this timestamp belongs to that second.
fn sender_report(timestamp: u32, second: u32) -> Vec<u8> {
    [&[0x80, 200, 0, 6, 0, 0, 0, 1][..], &second.to_be_bytes(), &[0; 4], &timestamp.to_be_bytes(), &[0; 8]].concat()
}

fn announce_tracks(rig: &mut Rig) {
    let answer = rig.ask(&format!("ANNOUNCE {U}"), "Content-Type: application/sdp\r\n", TRACKS);
    assert_eq!(status(&answer), 200);
    let Ok(Announcement::Tracks { left_out, parameters }) = &rig.published[0] else { panic!("{:?}", rig.published) };
    assert!(left_out.contains("opus"), "{left_out}");
    let lines: Vec<&str> = parameters.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "a=rtpmap:96 H264/90000"), "{parameters}");
    assert!(lines[1].contains("sprop-parameter-sets=Z0LA"), "{parameters}");
}

#[test]
fn tracks_over_tcp() {
    let mut rig = Rig::new(false);
    announce_tracks(&mut rig);
    for (at, channels) in ["0-1", "2-3", "4-5"].into_iter().enumerate() {
        let setup = rig.setup(&format!("streamid={at}"), &format!("RTP/AVP/TCP;unicast;interleaved={channels};mode=record"));
        assert!(setup.contains(&format!("interleaved={channels}")), "{setup}");
    }
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    let mut bytes = Vec::new();
    // Reports come first, but of tracks without a frame nobody knows where they are; then the two tracks begin, sound 20 ms late.
    interleaved(1, &sender_report(90_000, 10), &mut bytes);
    interleaved(0, &rtp(0xE0, 1, 90_000, 1, &[0x65, 0x88, 1, 2]), &mut bytes);
    interleaved(2, &rtp(97, 7, 0, 2, &[1; 160]), &mut bytes);
    interleaved(4, &rtp(98, 9, 0, 3, &[5; 50]), &mut bytes);
    interleaved(0, &rtp(0xE0, 2, 93_600, 1, &[0x41, 0x88, 3]), &mut bytes);
    assert_eq!(rig.input(Input::Bytes(&bytes)), "");
    let seen: Vec<_> = rig.frames.iter().map(|frame| (frame.track, frame.ms, frame.key)).collect();
    assert_eq!(seen, [(0, 0, true), (1, 0, true), (0, 40, false)]);
    assert!(rig.frames[0].bytes.starts_with(&[0, 0, 0, 1, 0x67]), "parameter sets first: {:?}", rig.frames[0].bytes);
    assert_eq!(&*rig.frames[1].bytes, [1; 160]);
    // Every five seconds it hears that somebody is there, on the channels of reports.
    let due = rig.connection.poll_timeout().unwrap();
    assert_eq!(due, rig.now + REPORT_TIME);
    rig.now = due;
    rig.connection.handle(due, Input::Timeout);
    let sent: Vec<Output> = std::iter::from_fn(|| rig.connection.poll_output()).collect();
    let channels: Vec<u8> =
        sent.iter().filter_map(|output| if let Output::Send(bytes) = output { Some(bytes[1]) } else { None }).collect();
    assert_eq!(channels, [1, 3, 5]);
    assert_eq!(rig.connection.poll_timeout().unwrap(), due + REPORT_TIME);
}

#[test]
fn tracks_over_udp_have_a_pair_of_ports_each() {
    let mut rig = Rig::new(false);
    announce_tracks(&mut rig);
    for (at, port) in [(0, 6000), (1, 6002)] {
        let client = 5000 + at * 2;
        let transport = format!("RTP/AVP/UDP;unicast;client_port={client}-{};mode=record", client + 1);
        let setup = rig.setup(&format!("streamid={at}"), &transport);
        assert!(setup.contains(&format!("server_port={port}-{}", port + 1)), "{setup}");
    }
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    let mut send = |pair, is_rtcp, bytes: &[u8]| assert_eq!(rig.input(Input::Datagram { pair, is_rtcp, bytes }), "");
    send(0, false, &rtp(0xE0, 1, 0, 1, &[0x65, 0x88, 1]));
    // One overtakes the other.
    send(1, false, &rtp(97, 7, 0, 2, &[1; 80]));
    send(1, false, &rtp(97, 9, 160, 2, &[3; 80]));
    send(1, false, &rtp(97, 8, 80, 2, &[2; 80]));
    send(1, true, &sender_report(0, 10));
    send(9, false, &rtp(97, 10, 240, 2, &[4; 80]));
    assert_eq!(
        rig.frames.iter().map(|frame| (frame.track, frame.bytes[0])).collect::<Vec<_>>(),
        [(0, 0), (1, 1), (1, 2), (1, 3)]
    );
    rig.now = rig.connection.poll_timeout().unwrap();
    rig.input(Input::Timeout);
    let empty = Bytes::from_static(&EMPTY_REPORT);
    assert_eq!(rig.reports, [(0, 5001, empty.clone()), (1, 5003, empty)]);
}

#[test]
fn pictures_in_another_order_end_it() {
    let mut rig = Rig::new(false);
    announce_tracks(&mut rig);
    rig.setup("streamid=0", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    let mut bytes = Vec::new();
    for (sequence, frame) in (1..).zip([0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12]) {
        interleaved(0, &rtp(0xE0, sequence, frame * 3600, 1, &[0x41, 0x88, 3]), &mut bytes);
    }
    rig.input(Input::Bytes(&bytes));
    assert_eq!(rig.closed, Some(CloseReason::Frames(crate::rtsp::tracks::TracksError::Reordered)));
}

#[test]
fn who_does_not_publish_does_not_stay() {
    let mut rig = Rig::new(true);
    let statuses: Vec<u16> = (0..33).map(|_| status(&rig.ask(&format!("OPTIONS {U}"), "", ""))).collect();
    assert_eq!((statuses[31], statuses[32]), (200, 503));
    let echoed = Rig::new(true).ask(&format!("OPTIONS {U}"), "Require: a-tag\u{85}, <b>\r\n", "");
    assert!(echoed.contains("\r\nUnsupported: a-tag\r\n"), "{echoed}");
}

#[test]
fn another_header_goes_on_over_what_is_set_up() {
    let mut rig = Rig::new(false);
    rig.announce(STREAM);
    rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    assert_eq!(status(&rig.announce(OTHER)), 200);
    rtp_of(OTHER, 3, 12).iter().for_each(|rtp| rig.frame(0, rtp));
    assert_media(OTHER, &rig.packets, 3);
    assert_eq!(rig.published.len(), 2);
}

#[test]
fn what_is_not_asf_is_told_to_who_decides() {
    let vp8 = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n\
                a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";
    let mut rig = Rig::new(false);
    let refusal = Refusal {
        status: 401,
        text: "Who are you?".into(),
        challenges: vec!["Digest realm=\"r\"".into(), "Basic realm=\"r\"".into()],
        retry_after_s: Some(2),
        last: false,
    };
    rig.answer = Answer::Refuse(refusal.clone());
    let answer = rig.ask(&format!("ANNOUNCE {U}"), "Content-Type: application/sdp\r\n", vp8);
    assert!(answer.starts_with("RTSP/1.0 401 Who are you?\r\n"), "{answer}");
    assert!(answer.contains("WWW-Authenticate: Digest realm=\"r\"\r\nWWW-Authenticate: Basic realm=\"r\"\r\nRetry-After: 2\r\n"));
    assert!(answer.ends_with("\r\n\r\nWho are you?\r\n") && !answer.contains("Session"), "{answer}");
    assert_eq!(rig.published[0].as_ref().unwrap_err(), &NotAsf::Other("VP8, opus".into()));
    rig.ask(&format!("ANNOUNCE {U}"), "Content-Type: application/sdp\r\n", "nonsense");
    assert!(matches!(rig.published[1], Err(NotAsf::Unsound(_))));
    assert_eq!(rig.closed, None, "it may try again");
    // Nothing can be set up, nothing comes.
    assert_eq!(status(&rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=0-1")), 455);
    rig.answer = Answer::Refuse(Refusal { last: true, ..refusal });
    rig.announce(STREAM);
    assert_eq!(rig.closed, Some(CloseReason::Refused));
}

#[test]
fn what_is_announced_is_read_of_who_may_publish_only() {
    let mut rig = Rig::new(false);
    rig.authority = Answer::Refuse(Refusal { status: 401, text: "Who are you?".into(), ..Refusal::default() });
    for body in ["nonsense", &sdp_of(STREAM)] {
        assert_eq!(status(&rig.ask(&format!("ANNOUNCE {U}"), "Content-Type: application/sdp\r\n", body)), 401);
    }
    assert_eq!((rig.asked.len(), rig.published.len(), rig.closed.as_ref()), (2, 0, None));
    assert_eq!(status(&rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=0-1")), 455);
    rig.authority = Answer::Accept;
    assert_eq!((status(&rig.announce(STREAM)), rig.published.len()), (200, 1));
}

#[test]
fn requests_that_do_not_fit_have_their_answers() {
    let mut rig = Rig::new(false);
    assert_eq!(status(&rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;interleaved=0-1\r\n", "")), 455);
    assert_eq!(status(&rig.ask(&format!("RECORD {U}"), "", "")), 455);
    assert_eq!(status(&rig.ask(&format!("DESCRIBE {U}"), "", "")), 455);
    assert_eq!(status(&rig.ask(&format!("ANNOUNCE {U}"), "Content-Type: text/plain\r\n", "v=0")), 415);
    assert_eq!(status(&rig.ask("ANNOUNCE rtsp://192.0.2.1/", "Content-Type: application/sdp\r\n", &sdp_of(STREAM))), 400);
    assert_eq!(status(&rig.ask(&format!("BREW {U}"), "", "")), 501);
    assert!(rig.asked.is_empty());
    rig.ask("ANNOUNCE rtsp://192.0.2.1/publish/a%20b/c", "Content-Type: application/sdp\r\n", &sdp_of(STREAM));
    assert_eq!(rig.asked[0].name, "a b/c", "as HTTP publishers write it, too");
    assert_eq!(status(&rig.ask(&format!("RECORD {U}"), "Session: 78\r\n", "")), 454);
}

#[test]
fn silence_ends_it() {
    let mut rig = Rig::new(false);
    rig.announce(STREAM);
    rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
    for rtp in rtp_of(STREAM, 4, 9) {
        rig.now += Duration::from_secs(30);
        rig.frame(0, &rtp);
        rig.input(Input::Timeout);
    }
    assert_eq!(rig.closed, None);
    rig.now += IDLE;
    rig.input(Input::Timeout);
    assert_eq!(rig.closed, Some(CloseReason::Idle));
    assert_eq!(rig.ask(&format!("OPTIONS {U}"), "", ""), "", "nothing follows");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..12), recording in any::<bool>()) {
        let mut rig = Rig::new(false);
        if recording {
            rig.announce(STREAM);
            rig.setup("video", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
            rig.ask(&format!("RECORD {U}"), "Session: 77\r\n", "");
        }
        for part in &parts {
            let mut framed = Vec::new();
            interleaved(0, part, &mut framed);
            rig.input(Input::Bytes(if recording { &framed } else { part }));
            rig.input(datagram(part));
        }
        // Once in a great while such bytes are a packet; then it is a whole one.
        let size = samples::stream(STREAM).0.packet_size();
        let is_whole = if recording { rig.packets.len().is_multiple_of(size) } else { rig.packets.is_empty() };
        prop_assert!(is_whole);
    }

    #[test]
    fn requests_may_be_cut_anywhere(cuts in prop::collection::vec(1..200_usize, 1..40)) {
        let mut bytes = Vec::new();
        let sdp = sdp_of(STREAM);
        bytes.extend_from_slice(format!("ANNOUNCE {U} RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()).as_bytes());
        bytes.extend_from_slice(format!("SETUP {U}/video RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n\r\n").as_bytes());
        bytes.extend_from_slice(format!("RECORD {U} RTSP/1.0\r\nCSeq: 3\r\n\r\n").as_bytes());
        rtp_of(STREAM, 3, 9).iter().for_each(|rtp| interleaved(0, rtp, &mut bytes));
        let (mut rig, mut rest) = (Rig::new(false), bytes.as_slice());
        for cut in cuts.iter().cycle() {
            let (part, behind) = rest.split_at((*cut).min(rest.len()));
            rig.input(Input::Bytes(part));
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        assert_media(STREAM, &rig.packets, 3);
    }
}
