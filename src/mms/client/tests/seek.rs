//! Files: where to begin, seek, pause, other streams, the end.

use super::servers::{NOTHING, Rig, connected, ended, opened};
use crate::asf::StreamSet;
use crate::mms::client::{ClientConfig, ClientTransport};
use crate::mms::data::{DataHead, LAST_FRAGMENT};
use crate::mms::end::{ReportEndOfStream, ReportStreamChange};
use crate::mms::frame::encode;
use crate::mms::funnel::{ReportConnectedFunnel, ReportFunnelInfo};
use crate::mms::log::Logging;
use crate::mms::open::ReportOpenFile;
use crate::mms::ping::Ping;
use crate::mms::play::{NO_PLACE, ReportStartedPlaying, StartPlaying};
use crate::mms::select::{ReportStreamSwitch, StreamSwitch};
use crate::mms::testing::asf_header;
use crate::playing::{ClientEnd, ClientEvent, ClientInput, ClientOutput, StartAt};
use crate::viewing::Acceleration;
use crate::wire::Hresult;

const CAN_SEEK: u32 = 0x0180_0000;
const SWITCHED: ReportStreamSwitch = ReportStreamSwitch { hr: Hresult::OK };

fn config(udp: bool) -> ClientConfig {
    let transport = match udp {
        true => ClientTransport::Udp { address: "192.0.2.10".parse().unwrap(), port: 1024 },
        false => ClientTransport::Tcp,
    };
    ClientConfig::new("media.example".into(), "talk.wmv".into(), transport, "NSPlayer/7.1.0.3055; {A}".into())
}

fn file() -> ReportOpenFile {
    ReportOpenFile { attributes: CAN_SEEK, duration_s: 12.5, blocks: 13, packet_count: 4000, ..opened() }
}

/// Up to the header, which brings streams 1 to 3.
fn with_header(config: ClientConfig, version: &str, udp: bool) -> Rig {
    let mut rig = Rig::with(config);
    rig.say(&connected(version));
    rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    rig.say(&ReportConnectedFunnel);
    rig.say(&file());
    rig.header(udp, 1, 0, LAST_FRAGMENT, &asf_header(800, &[1, 2, 3], 900));
    rig
}

fn playing(config: ClientConfig, udp: bool) -> Rig {
    let mut rig = with_header(config, "9.1.1.3841", udp);
    assert_eq!(rig.say(&SWITCHED), ["StartPlaying"]);
    assert_eq!(rig.say(&started(10)), ["playing"]);
    rig
}

fn started(incarnation: u32) -> ReportStartedPlaying {
    ReportStartedPlaying { hr: Hresult::OK, incarnation }
}

fn ended_of(incarnation: u32) -> ReportEndOfStream {
    ReportEndOfStream { hr: Hresult::OK, incarnation }
}

fn packet(rig: &mut Rig, udp: bool, location: u32, incarnation: u8, sequence: u8) -> Vec<String> {
    rig.data(udp, DataHead::new(location, incarnation, sequence, 800), &[9; 800])
}

/// A packet that says when it is to be sent.
fn timed(rig: &mut Rig, location: u32, incarnation: u8, sequence: u8, send_time_ms: u32) {
    let mut packet = vec![0x82, 0, 0, 0, 0x5D];
    packet.extend_from_slice(&send_time_ms.to_le_bytes());
    packet.resize(800, 1);
    rig.data(false, DataHead::new(location, incarnation, sequence, 800), &packet);
}

fn at(s: f64) -> StartAt {
    StartAt::Time { s }
}

#[test]
fn what_is_opened_is_told() {
    for (stated, told) in [(12.5, 12.5), (f64::NAN, 0.0), (-3.0, 0.0)] {
        let mut client = Rig::with(config(false));
        client.say(&connected("9.1"));
        client.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
        client.say(&ReportConnectedFunnel);
        client.client.handle(client.now, ClientInput::Bytes(&encode(0, &ReportOpenFile { duration_s: stated, ..file() })));
        let Some(ClientOutput::Event(event)) = client.client.poll_output() else { panic!() };
        let expected =
            ClientEvent::Opened { live: false, duration_s: told, packet_count: 4000, packet_size: 800, bit_rate: 64_000 };
        assert_eq!(event, expected);
    }
}

#[test]
fn where_to_begin() {
    let live = StartPlaying::live(10);
    let elsewhere = StartPlaying { position_s: f64::MAX, ..live };
    let cases = [
        (StartAt::Beginning, live),
        (at(30.5), StartPlaying { position_s: 30.5, ..live }),
        (StartAt::Packet(77), StartPlaying { location: 77, ..elsewhere }),
        (StartAt::Offset(5000), StartPlaying { asf_offset: 5000, ..elsewhere }),
        // These two name no place to a server.
        (StartAt::Packet(0), live),
        (StartAt::Offset(0), live),
    ];
    for (start, expected) in cases {
        let mut rig = with_header(ClientConfig { start, ..config(false) }, "9.1", false);
        rig.say(&SWITCHED);
        assert_eq!(rig.sent::<StartPlaying>(), expected, "{start:?}");
    }
    assert_eq!(live.location, NO_PLACE);
}

#[test]
fn a_stop_time_and_a_fast_start() {
    let acceleration = Some(Acceleration { bandwidth: 700_000, duration_ms: 5000 });
    for (version, told) in [("9.1.1.3841", acceleration), ("4.1.0.3928", None)] {
        let config = ClientConfig { acceleration, frame_offset: 8000, ..config(false) };
        let mut rig = with_header(config, version, false);
        rig.say(&SWITCHED);
        let play: StartPlaying = rig.sent();
        assert_eq!((play.frame_offset, play.acceleration), (8000, told), "{version}");
    }
}

#[test]
fn a_seek_stops_and_starts_elsewhere() {
    for udp in [true, false] {
        let mut rig = playing(config(udp), udp);
        assert_eq!(packet(&mut rig, udp, 0, 10, 0), ["packet 0"]);
        assert_eq!(rig.tell(ClientInput::Seek(at(9.0))), ["StopPlaying", "Logging"]);
        // What was on its way is dropped, but its number is used up.
        assert_eq!(packet(&mut rig, udp, 1, 10, 1), NOTHING);
        assert_eq!(rig.say(&ended_of(10)), ["StreamSwitch"]);
        assert_eq!(packet(&mut rig, udp, 2, 10, 2), NOTHING);
        assert_eq!(rig.say(&SWITCHED), ["StartPlaying"]);
        assert_eq!(rig.sent::<StartPlaying>(), StartPlaying { position_s: 9.0, ..StartPlaying::live(11) });
        assert_eq!(packet(&mut rig, udp, 3, 10, 3), NOTHING);
        // The new play may overtake its answer, and go back in the file; the old one may still be late.
        assert_eq!(packet(&mut rig, udp, 900, 11, 4), ["packet 4"]);
        assert_eq!(packet(&mut rig, udp, 4, 10, 5), NOTHING);
        assert_eq!(rig.say(&started(11)), ["playing"]);
        assert_eq!(packet(&mut rig, udp, 901, 11, 5), ["packet 5"]);
        let stats = rig.client.stats();
        assert_eq!((stats.packets, stats.stale, stats.gaps, stats.duplicates), (3, 4, 0, 0), "{stats:?}");
        assert_eq!(rig.wait(1_000), NOTHING, "nothing is missing");
        // Backwards, to a packet.
        rig.tell(ClientInput::Seek(StartAt::Packet(7)));
        rig.say(&ended_of(11));
        rig.say(&SWITCHED);
        assert_eq!(rig.sent::<StartPlaying>().location, 7);
        rig.say(&started(12));
        assert_eq!(packet(&mut rig, udp, 7, 12, 6), ["packet 6"]);
        assert_eq!((rig.end.take(), rig.client.stats().gaps), (None, 0));
    }
}

#[test]
fn resends_go_on_across_a_seek() {
    let mut rig = playing(config(true), true);
    packet(&mut rig, true, 0, 10, 0);
    assert_eq!(packet(&mut rig, true, 3, 10, 3), ["packet 3"]);
    rig.tell(ClientInput::Seek(at(9.0)));
    assert_eq!(rig.wait(500), NOTHING, "what is missing is of no use any more");
    rig.say(&ended_of(10));
    rig.say(&SWITCHED);
    rig.say(&started(11));
    // 4 of the old play did not come, 5 of the new one neither.
    assert_eq!(packet(&mut rig, true, 52, 11, 6), ["packet 6"]);
    assert_eq!(rig.wait(30), ["resend [4, 5]"]);
    assert_eq!(packet(&mut rig, true, 4, 10, 4), NOTHING);
    assert_eq!(packet(&mut rig, true, 51, 11, 5), ["packet 5 again"]);
    let stats = rig.client.stats();
    assert_eq!((stats.gaps, stats.recovered, stats.lost, stats.packets), (4, 2, 2, 4), "{stats:?}");
    assert_eq!(stats.reordered, 0);
}

#[test]
fn the_end_that_crosses_a_stop_is_no_end() {
    let mut rig = playing(config(false), false);
    rig.tell(ClientInput::Seek(at(1.0)));
    // The file ended by itself; its end stands for the answer, and the answer for nothing.
    assert_eq!(rig.say(&ended_of(10)), ["StreamSwitch"]);
    assert_eq!(rig.say(&ended_of(10)), NOTHING);
    rig.say(&SWITCHED);
    rig.say(&started(11));
    assert_eq!(rig.say(&ended_of(10)), NOTHING);
    assert_eq!(packet(&mut rig, false, 1, 11, 0), ["packet 0"]);
    assert_eq!(rig.say(&ended_of(11)), ["end 0", "CloseFile", "close"]);
    assert_eq!(rig.end, Some(ClientEnd::Ended));
}

#[test]
fn a_change_of_stream_that_crosses_a_stop() {
    for udp in [true, false] {
        let mut rig = playing(config(udp), udp);
        rig.tell(ClientInput::Seek(at(1.0)));
        assert_eq!(rig.say(&ReportEndOfStream { hr: Hresult::MORE, incarnation: 10 }), NOTHING);
        let change = ReportStreamChange { packet_size: 800, header_size: 900, bit_rate: 64_000 };
        let asked = rig.say(&change);
        assert_eq!(asked.len(), usize::from(udp), "{asked:?}");
        assert_eq!(rig.say(&ended_of(10)), NOTHING, "the answer to StopPlaying");
        assert_eq!(packet(&mut rig, udp, 0, 10, 0), NOTHING, "stopped, whatever the header that is awaited");
        let incarnation = if udp { 2 } else { 0xFF };
        let header = asf_header(800, &[2], 900);
        assert_eq!(rig.header(udp, incarnation, 0, LAST_FRAGMENT, &header), ["new header", "StreamSwitch"]);
        assert_eq!(rig.say(&SWITCHED), ["StartPlaying"]);
        rig.say(&started(11));
        assert_eq!(packet(&mut rig, udp, 1, 11, 1), ["packet 1"]);
    }
}

#[test]
fn a_pause_keeps_the_place() {
    let mut rig = playing(config(false), false);
    timed(&mut rig, 0, 10, 0, 4_000);
    timed(&mut rig, 1, 10, 1, 4_250);
    assert_eq!(rig.tell(ClientInput::Pause), ["StopPlaying", "Logging"]);
    assert_eq!(rig.say(&ended_of(10)), NOTHING);
    assert_eq!(rig.wait(80_000), NOTHING, "no answer is due");
    assert_eq!(rig.say(&Ping), ["Pong"]);
    assert_eq!(rig.tell(ClientInput::Resume), ["StreamSwitch"]);
    rig.say(&SWITCHED);
    assert_eq!(rig.sent::<StartPlaying>(), StartPlaying { position_s: 4.25, ..StartPlaying::live(11) });
    // Again before a packet came, with a second thought before the answer.
    assert_eq!(rig.tell(ClientInput::Pause), ["StopPlaying", "Logging"]);
    assert_eq!(rig.tell(ClientInput::Resume), NOTHING);
    assert_eq!(rig.say(&ended_of(11)), ["StreamSwitch"]);
    // And between the two questions.
    assert_eq!(rig.tell(ClientInput::Pause), NOTHING);
    assert_eq!(rig.say(&SWITCHED), NOTHING);
    assert_eq!(rig.tell(ClientInput::Resume), ["StreamSwitch"]);
    rig.say(&SWITCHED);
    assert_eq!(rig.sent::<StartPlaying>().position_s, 4.25);
    // A seek while it rests.
    rig.say(&started(12));
    rig.tell(ClientInput::Pause);
    rig.say(&ended_of(12));
    assert_eq!(rig.tell(ClientInput::Seek(at(1.5))), NOTHING);
    rig.tell(ClientInput::Resume);
    rig.say(&SWITCHED);
    assert_eq!(rig.sent::<StartPlaying>(), StartPlaying { position_s: 1.5, ..StartPlaying::live(13) });
    rig.tell(ClientInput::Pause);
    rig.say(&ended_of(13));
    assert_eq!(rig.tell(ClientInput::Stop), ["CloseFile", "close"]);
}

#[test]
fn a_broadcast_resumes_where_it_is() {
    let mut rig = Rig::playing(false, "9.1.1.3841");
    timed(&mut rig, 5000, 10, 0, 77_000);
    rig.tell(ClientInput::Pause);
    rig.say(&ended_of(10));
    rig.tell(ClientInput::Resume);
    rig.say(&SWITCHED);
    assert_eq!(rig.sent::<StartPlaying>(), StartPlaying::live(11));
}

#[test]
fn incarnations_go_round() {
    let mut rig = playing(config(false), false);
    for incarnation in (10..=254u32).chain(9..=30) {
        rig.tell(ClientInput::Seek(at(1.0)));
        assert_eq!(rig.sent::<Logging>().packets_received, 0);
        assert_eq!(rig.say(&ended_of(incarnation)), ["StreamSwitch"], "{incarnation}");
        rig.say(&SWITCHED);
        let next = if incarnation == 254 { 9 } else { incarnation + 1 };
        assert_eq!(rig.sent::<StartPlaying>().incarnation, next);
        rig.say(&started(next));
    }
}

#[test]
fn some_streams_alone() {
    let set = |streams: &[u8]| streams.iter().copied().collect::<StreamSet>();
    let entries = |rig: &Rig| {
        let switch: StreamSwitch = rig.sent();
        assert!(switch.is_whole());
        switch.entries.iter().map(|entry| (entry.source, entry.destination, entry.thinning)).collect::<Vec<_>>()
    };
    let rig = with_header(ClientConfig { streams: Some(set(&[2, 3, 9])), ..config(false) }, "9.1", false);
    assert_eq!(entries(&rig), [(0xFFFF, 2, 0), (0xFFFF, 3, 0)]);
    let rig = with_header(ClientConfig { streams: Some(set(&[8, 9])), ..config(false) }, "9.1", false);
    assert_eq!(rig.end.unwrap().to_string(), "the stream has no stream 8, 9; it has 1, 2, 3");

    let mut rig = playing(ClientConfig { streams: Some(set(&[1, 2])), ..config(false) }, false);
    assert_eq!(rig.tell(ClientInput::Select(set(&[1, 2]))), NOTHING, "nothing changes");
    assert_eq!(rig.tell(ClientInput::Select(set(&[1, 3]))), ["StreamSwitch"]);
    assert_eq!(entries(&rig), [(2, 3, 0)]);
    assert_eq!(rig.say(&SWITCHED), NOTHING);
    rig.tell(ClientInput::Select(set(&[3])));
    assert_eq!(entries(&rig), [(1, 0xFFFF, 0)]);
    // The choice outlasts a seek.
    rig.tell(ClientInput::Seek(at(1.0)));
    rig.say(&ended_of(10));
    assert_eq!(entries(&rig), [(0xFFFF, 3, 0)]);
    rig.say(&SWITCHED);
    rig.tell(ClientInput::Select(set(&[1, 2, 3])));
    assert_eq!(entries(&rig), [(0xFFFF, 1, 0), (0xFFFF, 2, 0)]);
    assert_eq!(rig.say(&ReportStreamSwitch { hr: Hresult::INVALID_ARGUMENT }), ["close"]);
}

#[test]
fn a_seek_before_and_after_everything() {
    // Before the first StartPlaying: that one goes there.
    let mut rig = Rig::with(config(false));
    assert_eq!(rig.tell(ClientInput::Seek(at(3.0))), NOTHING);
    rig.say(&connected("9.1"));
    rig.say(&ReportFunnelInfo { hr: Hresult::OK, client_id: 77 });
    rig.say(&ReportConnectedFunnel);
    rig.say(&file());
    rig.header(false, 1, 0, LAST_FRAGMENT, &asf_header(800, &[1], 900));
    rig.say(&SWITCHED);
    assert_eq!(rig.sent::<StartPlaying>().position_s, 3.0);
    // While the last packets are still asked for.
    let mut rig = playing(config(true), true);
    packet(&mut rig, true, 1, 10, 1);
    assert_eq!(rig.say(&ended(Hresult::OK)), ["end 0"]);
    assert_eq!(rig.tell(ClientInput::Seek(at(2.0))), ["StreamSwitch"]);
    rig.say(&SWITCHED);
    assert_eq!(rig.say(&started(11)), ["playing"]);
    // Behind the end there is nothing.
    rig.say(&ended_of(11));
    assert_eq!(rig.end, Some(ClientEnd::Ended));
    assert_eq!(rig.tell(ClientInput::Seek(at(2.0))), NOTHING);
    assert_eq!(rig.tell(ClientInput::Pause), NOTHING);
}

#[test]
fn no_answer_to_a_stop() {
    let mut rig = playing(config(false), false);
    rig.tell(ClientInput::Seek(at(1.0)));
    assert_eq!(rig.wait(14_999), NOTHING);
    assert_eq!(rig.wait(1), ["close"]);
    assert_eq!(rig.end.unwrap().to_string(), "no answer to StopPlaying within 15 s");
}

/// The answers of a seek with media between them, cut at every byte.
#[test]
fn a_seek_cut_at_every_byte() {
    let media = |location: u32, incarnation: u8, sequence: u8| {
        [DataHead::new(location, incarnation, sequence, 800).bytes().as_slice(), &[7; 800]].concat()
    };
    let answers = [
        media(1, 10, 1),
        encode(0, &ended_of(10)).to_vec(),
        encode(0, &SWITCHED).to_vec(),
        encode(0, &started(11)).to_vec(),
        media(600, 11, 2),
    ]
    .concat();
    for cut in 0..=answers.len() {
        let mut rig = playing(config(false), false);
        packet(&mut rig, false, 0, 10, 0);
        assert_eq!(rig.tell(ClientInput::Seek(at(1.0))), ["StopPlaying", "Logging"]);
        assert_eq!(rig.sent.len(), 1536);
        let (front, back) = answers.split_at(cut);
        let log = [rig.bytes(front), rig.bytes(back)].concat();
        assert_eq!(log, ["StreamSwitch", "StartPlaying", "playing", "packet 2"], "{cut}");
        assert_eq!(rig.client.stats().stale, 1);
    }
}

#[test]
fn who_stays_goes_on_from_the_end() {
    for udp in [false, true] {
        let mut rig = playing(ClientConfig { stays: true, ..config(udp) }, udp);
        assert_eq!(packet(&mut rig, udp, 0, 10, 0), ["packet 0"]);
        assert_eq!(rig.say(&ended_of(10)), ["end 0"]);
        // As long as it says nothing: no goodbye.
        assert_eq!(rig.say(&Ping), ["Pong"]);
        assert_eq!(rig.tell(ClientInput::Seek(at(3.0))), ["StreamSwitch"]);
        assert_eq!(rig.say(&SWITCHED), ["StartPlaying"]);
        assert_eq!(rig.say(&started(11)), ["playing"]);
        assert_eq!(packet(&mut rig, udp, 40, 11, 1), ["packet 1"]);
    }
}
