//! What nobody should send.

use proptest::prelude::*;

use super::*;

const U: &str = "rtsp://media.example:8554/cam1";

#[test]
fn wrong_requests_are_told_so_and_the_session_goes_on() {
    let mut rig = Rig::new(live());
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    let session = format!("Session: {SESSION}\r\n");
    for (line, headers, expected) in [
        (format!("PLAY {U}/"), "Session: 1\r\n", 454),
        (format!("PLAY {U}/"), "Session: 123456789012345678901\r\n", 454),
        (format!("PLAY {U}/video"), &session, 460),
        ("PLAY rtsp://media.example/other/".to_owned(), &session, 404),
        (format!("SETUP {U}/"), &*format!("{session}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"), 459),
        (format!("SETUP {U}/stream=9"), &*format!("{session}Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"), 400),
        (format!("SETUP {U}/audio"), &*format!("{session}Transport: RTP/AVP/TCP;unicast;interleaved=0-0\r\n"), 400),
        (format!("SETUP {U}/audio"), &*format!("{session}Transport: RTP/AVP;multicast\r\n"), 461),
        (format!("SETUP {U}/audio"), &session, 400),
        (format!("ANNOUNCE {U}"), &session, 405),
        (format!("DANCE {U}"), &session, 501),
        (format!("PLAY {U}/../x"), &session, 400),
    ] {
        assert_eq!(status(&rig.ask(&line, headers)), expected, "{line} {headers}");
        assert_eq!(rig.closed, None, "{line}");
    }
    assert_eq!(status(&rig.bytes(format!("PLAY {U}/ RTSP/1.0\r\n{session}\r\n").as_bytes())), 400, "no CSeq");
    assert_eq!(status(&rig.bytes(format!("PLAY {U}/ RTSP/2.0\r\nCSeq: 3\r\n\r\n").as_bytes())), 505);
    assert_eq!(status(&rig.ask(&format!("PLAY {U}/"), &session)), 200);
}

#[test]
fn what_cannot_be_read_closes_with_an_answer() {
    for (bytes, expected) in [
        (format!("PLAY {}", "x".repeat(5000)), 414),
        (format!("PLAY {U} RTSP/1.0\r\nCSeq: 7\r\nX: {}\r\n", "y".repeat(64 << 10)), 400),
        (format!("SET_PARAMETER {U} RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 999999\r\n\r\n"), 413),
        (format!("PLAY {U} RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 400),
    ] {
        let mut rig = Rig::new(live());
        assert_eq!(status(&rig.bytes(bytes.as_bytes())), expected, "{}", bytes.get(..60).unwrap());
        assert_eq!(rig.closed, Some(CloseReason::Protocol));
    }
}

#[test]
fn requests_of_a_flood_are_put_off_and_bytes_of_one_end_it() {
    let mut rig = Rig::new(live());
    let statuses: Vec<u16> = (0..300).map(|_| status(&rig.ask(&format!("OPTIONS {U}"), ""))).collect();
    assert_eq!((statuses[239], statuses[240], rig.closed), (200, 503, None));
    let mut rig = Rig::new(live());
    rig.cues = false;
    rig.ask(&format!("SETUP {U}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
    rig.ask(&format!("PLAY {U}/"), &format!("Session: {SESSION}\r\n"));
    for _ in 0..100 {
        rig.bytes(&[b'x'; 1024]);
    }
    assert_eq!(rig.closed, Some(CloseReason::Flood), "the relay owes an answer all the while");
}

#[test]
fn who_says_nothing_is_let_go() {
    let mut rig = Rig::new(live());
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.closed, Some(CloseReason::Idle));
    // Nor does it help to say something that sets nothing up: it holds a place.
    let mut rig = Rig::new(live());
    for _ in 0..2 {
        assert_eq!(status(&rig.ask(&format!("DESCRIBE {U}"), "")), 200);
        rig.wait(Duration::from_secs(14));
        rig.ask(&format!("OPTIONS {U}"), "");
    }
    assert_eq!(rig.closed, None);
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.closed, Some(CloseReason::Idle));
}

#[test]
fn frames_of_a_flood_end_it() {
    let mut rig = Rig::new(live());
    let frame = [&b"$\x01\x40\0"[..], &[0; 0x4000]].concat();
    for _ in 0..5 {
        rig.bytes(&frame);
    }
    assert_eq!(rig.closed, Some(CloseReason::Flood));
}

#[test]
fn frames_between_requests_and_requests_in_pieces() {
    let dialogue = format!(
        "OPTIONS {U} RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\0\x04abcdDESCRIBE {U} RTSP/1.0\r\nCSeq: 2\r\n\r\n\
         SETUP {U}/video RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n$\x01\0\0\
         PLAY {U}/ RTSP/1.0\r\nCSeq: 4\r\nSession: {SESSION}\r\n\r\n"
    );
    let whole = Rig::new(live()).bytes(dialogue.as_bytes());
    assert_eq!(whole.matches("RTSP/1.0 200 OK").count(), 4, "{whole}");
    for at in 0..dialogue.len() {
        let mut rig = Rig::new(live());
        let (one, two) = dialogue.as_bytes().split_at(at);
        assert_eq!(rig.bytes(one) + &rig.bytes(two), whole, "split at {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_nothing_but_the_connection(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                Just(format!("SETUP {U}/video RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;client_port=2000-2001\r\n\r\n").into_bytes()),
                Just(format!("PLAY {U}/ RTSP/1.0\r\nCSeq: 2\r\nSession: {SESSION}\r\n\r\n").into_bytes()),
                Just(format!("SET_PARAMETER {U} RTSP/1.0\r\nCSeq: 2\r\nSession: {SESSION}\r\nContent-Type: application/x-wms-streamswitch\r\nContent-Length: 10\r\n\r\nSSEntry: 1").into_bytes()),
                Just(b"$\0\0\x10".to_vec()),
            ],
            0..12,
        ),
        datagram in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut rig = Rig::new(file());
        for piece in pieces {
            rig.bytes(&piece);
            rig.input(Input::Datagram(&datagram));
        }
        rig.input(Input::Answer(Answer::Ended));
        rig.wait(Duration::from_secs(100));
        prop_assert!(rig.closed.is_some());
    }
}
