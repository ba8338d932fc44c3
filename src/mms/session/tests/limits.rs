//! Time-outs, wrong states, floods and names that do not open.

use std::time::Duration;

use proptest::prelude::*;

use super::{Rig, base, raw};
use crate::mms::block::{CancelReadBlock, ReadBlock};
use crate::mms::connect::{Connect, NO_PACKET_PAIR};
use crate::mms::end::{CloseFile, StopPlaying};
use crate::mms::frame::{FrameError, Message, encode};
use crate::mms::funnel::{ConnectFunnel, FunnelInfo};
use crate::mms::log::Logging;
use crate::mms::open::{OpenFile, ReportOpenFile, Token};
use crate::mms::ping::Pong;
use crate::mms::play::{StartPlaying, StartStriding};
use crate::mms::redirect::ReportRedirect;
use crate::mms::resend::Request;
use crate::mms::security::{SecurityResponse, SecurityToken};
use crate::mms::select::{StreamEntry, StreamSwitch};
use crate::mms::session::{CloseReason, Config, Input, PeerError, Session, Transport};
use crate::mms::testing::{asf_header, description};
use crate::viewing::{Answer, Ask, Description, OpenRefusal};
use crate::wire::Hresult;

const NOTHING: [&str; 0] = [];

fn connect() -> Connect {
    Connect { incarnation: NO_PACKET_PAIR, subscriber: vec!["NSPlayer/9.0.0.3250; {A}".into()] }
}

fn tcp() -> ConnectFunnel {
    ConnectFunnel::tcp("192.0.2.10".parse().unwrap(), 1)
}

fn udp(port: u16) -> ConnectFunnel {
    ConnectFunnel::udp("192.0.2.10".parse().unwrap(), port)
}

fn open(name: &str) -> OpenFile {
    OpenFile { incarnation: 9, name: name.into(), token: Token::None }
}

#[test]
fn every_step_has_its_time() {
    let mut rig = Rig::new();
    assert_eq!(rig.wait(9_999), NOTHING);
    assert_eq!(rig.wait(1), ["close handshake"]);
    assert_eq!(rig.wait(100_000), NOTHING, "a closed session has no timers");
    assert_eq!(rig.session.poll_timeout(), None);

    // A step restarts the ten seconds, but all of them together have thirty.
    let mut rig = Rig::new();
    rig.wait(9_000);
    rig.say(&connect());
    rig.wait(9_000);
    rig.say(&FunnelInfo { incarnation: 0 });
    rig.wait(9_000);
    rig.say(&Pong);
    assert_eq!(rig.wait(2_999), NOTHING);
    assert_eq!(rig.wait(1), ["close handshake"]);

    // Half a message is no step.
    let mut rig = Rig::new();
    for byte in &encode(0, &connect())[..9] {
        rig.hear(&[*byte]);
        rig.wait(1_000);
    }
    assert_eq!(rig.wait(1_000), ["close handshake"]);
}

#[test]
fn the_relay_has_its_time_too() {
    let mut rig = Rig::new();
    rig.say(&connect());
    rig.open = None;
    assert_eq!(rig.say(&open("slow")), ["open slow"]);
    assert_eq!(rig.say(&Pong), NOTHING, "waits behind the answer");
    assert_eq!(rig.wait(10_000), ["Opened C00D0033", "close handshake"]);
    assert_eq!(rig.tell(Answer::Opened(Ok(description()))), NOTHING);
}

#[test]
fn a_source_that_is_being_started_may_take_longer_than_a_step() {
    let slow = || {
        let mut rig = Rig::with(Config { source_wait: Duration::from_secs(35), ..Config::default() });
        rig.say(&connect());
        rig.open = None;
        rig.say(&open("slow"));
        rig
    };
    let mut rig = slow();
    assert_eq!(rig.wait(25_000), NOTHING);
    assert_eq!(rig.say(&Pong), NOTHING, "does not put it off");
    assert_eq!(rig.wait(19_999), NOTHING);
    assert_eq!(rig.wait(1), ["Opened C00D0033", "close handshake"]);
    // Then it is the player's turn again.
    let mut rig = slow();
    rig.wait(40_000);
    assert!(!rig.tell(Answer::Opened(Ok(description()))).is_empty());
    assert_eq!(rig.wait(9_999), NOTHING);
    assert_eq!(rig.wait(1), ["close handshake"]);
}

#[test]
fn messages_wait_for_the_answer_but_not_without_bound() {
    let mut rig = Rig::new();
    rig.say(&connect());
    rig.open = None;
    let mut ahead = encode(0, &open("a")).to_vec();
    ahead.extend_from_slice(&encode(1, &tcp()));
    assert_eq!(rig.hear(&ahead), ["open a"]);
    assert_eq!(rig.tell(Answer::Opened(Ok(description()))), ["Opened", "Funnel"]);
    rig.say(&open("a"));
    let flood = encode(0, &Logging::default()).repeat(30);
    assert_eq!(rig.try_hear(&flood).map_err(|error| error.reason()), Err(CloseReason::Flood));
}

#[test]
fn ready_sessions_are_pinged_and_end_when_idle() {
    let mut rig = Rig::playing(false);
    rig.say(&StopPlaying { incarnation: 10 });
    assert_eq!(rig.wait(59_999), ["Ping"]);
    assert_eq!(rig.wait(1), ["close idle"]);
}

#[test]
fn answers_to_pings_do_not_keep_an_idle_session() {
    let mut rig = Rig::playing(false);
    rig.say(&StopPlaying { incarnation: 10 });
    assert_eq!(rig.wait(30_000), ["Ping"]);
    assert_eq!(rig.say(&Pong), NOTHING);
    assert_eq!(rig.wait(29_999), NOTHING);
    assert_eq!(rig.wait(1), ["close idle"]);

    // VLC says by itself that it is paused, also while a Ping is on its way.
    let mut rig = Rig::playing(false);
    rig.say(&StopPlaying { incarnation: 10 });
    for _ in 0..10 {
        rig.wait(20_000);
        rig.say(&Pong);
    }
    assert_eq!(rig.wait(30_000), ["Ping"]);
    rig.say(&Pong);
    rig.say(&Pong);
    assert_eq!(rig.wait(59_999), ["Ping"]);
    assert_eq!(rig.wait(1), ["close idle"]);
}

#[test]
fn streaming_sessions_end_after_three_unanswered_pings() {
    let mut rig = Rig::playing(true);
    assert_eq!(rig.wait(119_999), ["Ping", "Ping", "Ping"]);
    assert_eq!(rig.wait(1), ["close unanswered"]);
    let mut rig = Rig::playing(true);
    for _ in 0..100 {
        assert_eq!(rig.wait(30_000), ["Ping"]);
        assert_eq!(rig.say(&Pong), NOTHING);
    }
}

#[test]
fn refusals_of_admission() {
    let mut rig = Rig::new();
    rig.admit = Err(Hresult::TOO_MANY_SESSIONS);
    assert_eq!(rig.say(&connect()), ["admit", "Connected C00D000F", "close refused"]);
}

#[test]
fn refused_funnels_and_a_second_try() {
    let mut rig = Rig::with(Config { udp: false, ..Config::default() });
    rig.say(&connect());
    assert_eq!(rig.say(&udp(2048)), ["NoFunnel C00D00D1"], "nobody is asked while UDP is off");
    assert_eq!(rig.say(&tcp()), ["Funnel"]);
    assert_eq!(rig.session.transport(), Some(Transport::Tcp));

    let mut rig = Rig::new();
    rig.say(&connect());
    for name in ["", r"\\1.2.3.4\UDP\0", r"\\1.2.3.4\UDP\99999"] {
        assert_eq!(rig.say(&ConnectFunnel { name: name.into() }), ["NoFunnel C00D0032"]);
    }
    assert_eq!(rig.say(&udp(2048)), ["claim 2048", "Funnel"]);
    assert_eq!(rig.say(&udp(2049)), ["release", "claim 2049", "Funnel"]);
    assert_eq!(rig.say(&tcp()), ["release", "Funnel"]);
    assert_eq!(rig.say(&tcp()), ["Funnel"]);
    // Ten seconds for the next try.
    rig.funnel = Err(Hresult::INVALID_PORT);
    assert_eq!(rig.say(&udp(7000)), ["claim 7000", "NoFunnel C00D0043"]);
    assert_eq!(rig.session.transport(), None);
    assert_eq!(rig.wait(9_999), NOTHING);
    assert_eq!(rig.wait(1), ["close handshake"]);
}

#[test]
fn names_that_do_not_open_and_a_second_try() {
    let mut rig = Rig::new();
    rig.say(&connect());
    rig.say(&tcp());
    assert_eq!(rig.say(&open("../etc")), ["Opened C00D001C"]);
    rig.open = Some(Err(OpenRefusal::Status(Hresult::FILE_NOT_FOUND)));
    assert_eq!(rig.say(&open("nothing")), ["open nothing", "Opened C00D001A"]);
    assert_eq!(rig.last::<ReportOpenFile>(0).file_id, 0);
    let bad_token = [9u32, 0, 3, 4].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    assert_eq!(rig.say_raw(OpenFile::MID, &bad_token), ["Opened 80070057"]);
    rig.open = Some(Ok(description()));
    assert_eq!(rig.say(&open("live/cam1")), ["open live/cam1", "Opened"]);
    assert_eq!(rig.session.report().point.as_deref(), Some("live/cam1"));
    rig.open = Some(Err(OpenRefusal::Redirect("mmst://other.example/live".into())));
    assert_eq!(rig.say(&open("moved")), ["open moved", "Redirect", "close redirected"]);
    assert_eq!(rig.last::<ReportRedirect>(0).location, "mmst://other.example/live");
}

#[test]
fn packets_that_tcp_cannot_carry() {
    let mut rig = Rig::new();
    rig.say(&connect());
    rig.say(&tcp());
    for (size, answer) in
        [(0xB00B - 8, "Opened C00D0012"), (0xB00B - 9, "Opened"), (65_528, "Opened C00D0012"), (65_527, "Opened")]
    {
        rig.open = Some(Ok(Description { packet_size: size, ..description() }));
        assert_eq!(rig.say(&open("big")), ["open big", answer], "{size}");
    }
}

#[test]
fn opening_anew_stops_what_plays() {
    let mut rig = Rig::playing(true);
    assert_eq!(rig.say(&open("other")), ["stop", "open other", "Opened"]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started C00D002B"], "the header is not fetched");
    assert_eq!(rig.say(&ReadBlock { incarnation: 2 })[0], "Block");
    rig.wait(500);
    assert_eq!(rig.say(&StartPlaying::live(12)), ["Started", "play 12"]);
}

#[test]
fn three_messages_out_of_place() {
    let mut rig = Rig::new();
    rig.say(&connect());
    assert_eq!(rig.say(&ReadBlock { incarnation: 1 }), ["Block C00D002B"]);
    assert_eq!(rig.say(&StreamSwitch { claimed: 0, entries: vec![] }), ["Switched C00D002B"]);
    assert_eq!(rig.say(&StartPlaying::live(4)), ["Started C00D002B", "close wrong_state"]);

    let mut rig = Rig::playing(false);
    assert_eq!(rig.say(&tcp()), ["NoFunnel C00D002B"]);
    let response = SecurityResponse(SecurityToken { incarnation: 9, ..SecurityToken::default() });
    assert_eq!(rig.say(&response), ["Opened C00D002B"]);
    // Harmless at any time.
    assert_eq!(rig.say(&FunnelInfo { incarnation: 0 }), ["FunnelInfo"]);
    assert_eq!(rig.say(&Logging::default()), NOTHING);
    assert_eq!(rig.say(&StartStriding { position_s: 0.0, incarnation: 12, rate: 5.0 }), ["Striding C00D0045"]);

    let mut rig = Rig::new();
    rig.say(&connect());
    assert_eq!(rig.say(&StopPlaying { incarnation: 1 }), ["End C00D002B"]);
}

#[test]
fn arguments_are_checked() {
    let mut rig = Rig::playing(false);
    let short = StreamSwitch { claimed: 3, entries: vec![StreamEntry::on(1)] };
    assert_eq!(rig.say(&short), ["Switched 80070057"]);
    let many = StreamSwitch { claimed: 128, entries: vec![StreamEntry::on(1); 128] };
    assert_eq!(rig.say(&many), ["Switched 80070057"]);
    // While playing only the streams affected are listed.
    let off = StreamSwitch { claimed: 1, entries: vec![StreamEntry { source: 2, destination: 0xFFFF, thinning: 0 }] };
    assert_eq!(rig.say(&off), ["Switched"]);
    assert_eq!(rig.session.selected().streams.iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn broken_messages_end_the_session() {
    let failures: [(&[u8], CloseReason); 3] = [
        (b"GET / HTTP/1.0\r\n\r\n", CloseReason::Protocol),
        (&raw(Pong::MID, &[0; 8]), CloseReason::Protocol),
        (&raw(Connect::MID, &[0; 4]), CloseReason::Protocol),
    ];
    for (bytes, reason) in failures {
        let mut rig = Rig::new();
        assert_eq!(rig.try_hear(bytes).map_err(|error| error.reason()), Err(reason));
        assert_eq!(rig.hear(&encode(0, &connect())), NOTHING, "deaf afterwards");
        assert_eq!(rig.session.poll_timeout(), None);
    }
    let mut rig = Rig::new();
    rig.say(&connect());
    assert_eq!(rig.try_hear(&encode(0, &connect())), Err(PeerError::SecondConnect));
    let mut rig = Rig::new();
    assert_eq!(rig.try_hear(&[2]), Err(PeerError::Frame(FrameError::Signature("rep"))));
}

#[test]
fn unknown_messages_are_counted() {
    let mut rig = Rig::new();
    rig.say(&connect());
    for _ in 0..8 {
        assert_eq!(rig.say_raw(0x0003_0030, &[0; 8]), NOTHING);
    }
    let reply = raw(0x0004_0001, &[0; 8]);
    assert_eq!(rig.try_hear(&reply), Err(PeerError::Unknown(8)));
    assert_eq!(rig.session.report().unknown_messages, 9);
}

#[test]
fn floods_end_the_session() {
    let mut rig = Rig::new();
    rig.say(&connect());
    let pongs = encode(0, &Pong).repeat(99);
    assert_eq!(rig.hear(&pongs), NOTHING);
    rig.wait(1_000);
    assert_eq!(rig.hear(&encode(0, &Pong).repeat(50)), NOTHING);
    assert_eq!(rig.try_hear(&encode(0, &Pong)), Err(PeerError::Flood(50)));
}

#[test]
fn headers_are_not_given_out_without_end() {
    // Over UDP two at once, then one in half a second; ten in all.
    let mut rig = Rig::playing(true);
    let mut answered = 0;
    for n in 0..60 {
        let log = rig.say(&ReadBlock { incarnation: 2 + n });
        answered += usize::from(log.first().is_some_and(|first| first == "Block"));
        rig.say(&CancelReadBlock { incarnation: 2 + n });
        assert!(answered <= 2 + usize::try_from(n / 5).unwrap());
        rig.wait(100);
    }
    assert_eq!(answered, 9, "one was fetched before");
    let mut rig = Rig::playing(false);
    let blocks = (0..20).filter(|n| !rig.say(&ReadBlock { incarnation: *n }).is_empty()).count();
    assert_eq!(blocks, 9);
}

#[test]
fn header_datagrams_are_paced_and_fit_the_path() {
    let mut rig = Rig::new();
    let header = asf_header(3200, &[1], 5_000);
    rig.open = Some(Ok(Description { header, packet_size: 3200, bit_rate: 100_000, ..description() }));
    rig.say(&connect());
    rig.say(&udp(2048));
    rig.say(&open("slow"));
    assert_eq!(rig.say(&ReadBlock { incarnation: 1 }), ["Block", "udp header 0 pi 1 04"]);
    // 1,258 bytes at 100 kbit/s are 100 ms.
    assert_eq!(rig.wait(100), NOTHING);
    assert_eq!(rig.wait(2), ["udp header 1 pi 1 04"]);
    assert_eq!(rig.say(&StartPlaying::live(4)), ["Started C00D002B"], "the header is still on its way");
    assert_eq!(rig.wait(400), ["udp header 2 pi 1 04", "udp header 3 pi 1 0C"]);
    assert!(rig.packets.iter().all(|packet| packet.len() <= 1408));
    assert_eq!(rig.say(&StartPlaying::live(4)), ["Started", "play 4"]);
}

#[test]
fn resend_requests_are_checked_and_limited() {
    let request =
        |client_id, source_id, sequences: &[u32]| Request { client_id, source_id, sequences: sequences.to_vec() }.bytes();
    let mut rig = Rig::playing(true);
    let ours = super::CLIENT_ID;
    assert_eq!(rig.datagram(&request(ours, 1, &[5, 6])), ["resend [5, 6]"]);
    assert_eq!(rig.datagram(&request(ours + 1, 1, &[5])), NOTHING);
    assert_eq!(rig.datagram(&request(ours, 2, &[5])), NOTHING);
    assert_eq!(rig.datagram(b"garbage"), NOTHING);
    // The same packet three times, not four.
    assert_eq!(rig.datagram(&request(ours, 1, &[5])), ["resend [5]"]);
    assert_eq!(rig.datagram(&request(ours, 1, &[5, 6, 7])), ["resend [5, 6, 7]"]);
    assert_eq!(rig.datagram(&request(ours, 1, &[5, 6, 7])), ["resend [6, 7]"]);
    // 64 a second, whatever is asked.
    let granted: u64 = rig.session.report().resends_granted;
    for n in 0..20u32 {
        let wanted: Vec<u32> = (0..32).map(|m| 1000 + n * 32 + m).collect();
        rig.datagram(&request(ours, 1, &wanted));
    }
    assert_eq!(rig.session.report().resends_granted - granted, 64 - granted);
    rig.wait(1_000);
    let wanted: Vec<u32> = (5000..5032).collect();
    rig.datagram(&request(ours, 1, &wanted));
    assert_eq!(rig.session.report().resends_granted, 64 + 32);
    // Nobody on TCP needs any.
    let mut rig = Rig::playing(false);
    assert_eq!(rig.datagram(&request(ours, 1, &[5])), NOTHING);
}

#[test]
fn goodbye_is_possible_at_any_time() {
    let mut rig = Rig::new();
    rig.say(&connect());
    assert_eq!(rig.say(&CloseFile), ["close left"]);
    let mut rig = Rig::playing(true);
    assert_eq!(rig.say(&CloseFile), ["close left"]);
}

#[test]
fn the_report_is_safe_to_log() {
    let mut rig = Rig::new();
    rig.say(&Connect { incarnation: 0, subscriber: vec!["evil\n\u{1b}[2J".into()] });
    rig.say(&Logging { user_agent: "a\r\nb".into(), ..Logging::default() });
    let report = rig.session.report();
    assert_eq!(report.player_text(), r"evil\n\u{1b}[2J");
    assert!(report.log_text().unwrap().contains(r"agent a\r\nb,"));
    assert_eq!(report.messages, 2);
}

#[derive(Debug, Clone)]
enum Event {
    Message(usize),
    Bytes(Vec<u8>),
    Datagram(Vec<u8>),
    Answer(usize),
    Wait(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        8 => (0usize..14).prop_map(Event::Message),
        1 => bytes.clone().prop_map(Event::Bytes),
        1 => bytes.prop_map(Event::Datagram),
        4 => (0usize..8).prop_map(Event::Answer),
        2 => any::<u16>().prop_map(Event::Wait),
    ]
}

fn message(index: usize) -> Vec<u8> {
    let packet = match index {
        0 => encode(0, &connect()),
        1 => encode(0, &tcp()),
        2 => encode(0, &udp(2048)),
        3 => encode(0, &open("a")),
        4 => encode(0, &ReadBlock { incarnation: 1 }),
        5 => encode(0, &CancelReadBlock { incarnation: 1 }),
        6 => encode(0, &StreamSwitch::all([1].into_iter().collect())),
        7 => encode(0, &StartPlaying::live(4)),
        8 => encode(0, &StopPlaying { incarnation: 4 }),
        9 => encode(0, &Logging::default()),
        10 => encode(0, &Pong),
        11 => encode(0, &FunnelInfo { incarnation: 0 }),
        12 => raw(0x0003_0003, &[0; 8]).into(),
        _ => encode(0, &StartStriding { position_s: f64::NAN, incarnation: 1, rate: f64::NAN }),
    };
    packet.to_vec()
}

fn answer(index: usize) -> Answer {
    match index {
        0 => Answer::Admitted(Ok(())),
        1 => Answer::Admitted(Err(Hresult::TOO_MANY_SESSIONS)),
        2 => Answer::Funnel(Ok(())),
        3 => Answer::Funnel(Err(Hresult::INVALID_PORT)),
        4 => Answer::Opened(Ok(description())),
        5 => Answer::Opened(Err(OpenRefusal::Status(Hresult::NO_STREAM))),
        6 => Answer::NewGeneration(description()),
        _ => Answer::Ended,
    }
}

proptest! {
    /// In any order of anything: no panic, timers that end, media only between Play and Stop, nothing behind Close.
    #[test]
    fn any_history(events in proptest::collection::vec(event(), 0..60)) {
        let mut now = base();
        let mut session = Session::new(now, std::sync::Arc::new(Config::default()), 7);
        let (mut playing, mut closed) = (false, false);
        // Without a beginning most histories would end at their first message.
        for event in [Event::Message(0), Event::Answer(0)].into_iter().chain(events) {
            let result = match &event {
                Event::Message(index) => session.handle(now, Input::Bytes(&message(*index))),
                Event::Bytes(bytes) => session.handle(now, Input::Bytes(bytes)),
                Event::Datagram(bytes) => session.handle(now, Input::Datagram(bytes)),
                Event::Answer(index) => session.handle(now, Input::Answer(answer(*index))),
                Event::Wait(ms) => {
                    now += Duration::from_millis(u64::from(*ms));
                    let result = session.handle(now, Input::Timeout);
                    prop_assert!(session.poll_timeout().is_none_or(|at| at > now));
                    result
                }
            };
            closed |= result.is_err();
            while let Some(output) = session.poll_output() {
                use crate::mms::session::Output;
                prop_assert!(!closed || result.is_err(), "output behind the end: {output:?}");
                match output {
                    Output::Ask(Ask::Play { .. }) => {
                        prop_assert!(!playing);
                        playing = true;
                    }
                    Output::Ask(Ask::PlayFile { .. }) => playing = true,
                    Output::Ask(Ask::Stop) => {
                        prop_assert!(playing);
                        playing = false;
                    }
                    Output::Ask(Ask::Incarnation { .. }) => prop_assert!(playing),
                    Output::Close(_) => closed = true,
                    _ => {}
                }
            }
        }
    }
}
