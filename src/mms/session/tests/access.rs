//! Keys in names, and credentials.

use super::Rig;
use crate::mms::open::{OpenFile, Token};
use crate::mms::security::{SecurityChallenge, SecurityResponse, SecurityToken};
use crate::mms::session::Config;
use crate::mms::{connect, funnel};
use crate::viewing::{Challenge, Denial, OpenRefusal};
use crate::wire::Hresult;

const PASSWORD: &[u8] = b"eDp5\0";

fn open(name: &str, token: Token) -> OpenFile {
    OpenFile { incarnation: 9, name: name.into(), token }
}

/// One that asks for credentials, and a player of this name at its door.
fn locked(player: &str) -> Rig {
    let mut rig = Rig::new();
    let challenge = Challenge { values: vec!["Basic realm=\"r\"".into()], realm: "r".into() };
    rig.open = Some(Err(OpenRefusal::Login(challenge)));
    rig.say(&connect::Connect { incarnation: connect::NO_PACKET_PAIR, subscriber: vec![format!("{player}; {{A}}")] });
    rig.say(&funnel::ConnectFunnel::tcp("192.0.2.10".parse().unwrap(), 2048));
    rig
}

fn respond(cookie: u32, token: &[u8]) -> SecurityResponse {
    SecurityResponse(SecurityToken { incarnation: 9, cookie, token: token.into() })
}

#[test]
fn the_key_is_no_part_of_the_name() {
    let mut rig = Rig::new();
    rig.connect(false);
    for (name, asked) in [
        ("live/cam1?k=01ab", "open live/cam1 Some(\"01ab\") None"),
        ("/what?.wmv?k=01ab", "open what?.wmv Some(\"01ab\") None"),
        ("what?.wmv", "open what?.wmv"),
    ] {
        assert_eq!(rig.say(&open(name, Token::None)), [asked, "Opened"]);
        let point = rig.session.report().point.clone().unwrap();
        assert!(!point.contains("01ab"), "{point}");
    }
    rig.open = Some(Err(OpenRefusal::Denied(Denial::WrongKey)));
    let log = rig.say(&open("live/cam1?k=1", Token::None));
    assert_eq!(log, ["open live/cam1 Some(\"1\") None", "Opened 80070005"]);
    // It may try again.
    rig.open = Rig::new().open;
    assert_eq!(rig.say(&open("live/cam1?k=2", Token::None)).last().unwrap(), "Opened");
}

#[test]
fn windows_media_player_is_asked_for_a_password() {
    let mut rig = locked("NSPlayer/9.0.0.3250");
    assert_eq!(rig.say(&open("a?k=7", Token::None)), ["open a Some(\"7\") None", "Challenge"]);
    let SecurityChallenge(challenge) = rig.last(0);
    let realm: Vec<u8> = "realm=\"r\"\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!((challenge.incarnation, challenge.cookie, challenge.token), (9, 1, realm));
    // A person types.
    assert!(rig.wait(100_000).is_empty());
    let asked = "open a Some(\"7\") Some(\"Basic eDp5\")";
    assert_eq!(rig.say(&respond(1, PASSWORD)), [asked, "Challenge"], "the password was wrong");
    rig.open = Rig::new().open;
    assert_eq!(rig.say(&respond(2, b"eDp5")), [asked, "Opened"]);
    assert_eq!(rig.say(&respond(2, PASSWORD)), ["Opened C00D002B"], "once");
}

#[test]
fn it_is_asked_three_times() {
    let mut rig = locked("NSPlayer/9.0.0.3250");
    rig.say(&open("a", Token::None));
    for cookie in 1..3 {
        assert_eq!(rig.say(&respond(cookie, PASSWORD)).last().unwrap(), "Challenge");
    }
    assert_eq!(rig.say(&respond(3, PASSWORD)).last().unwrap(), "Opened 80070005");
    assert_eq!(rig.say(&respond(3, PASSWORD)), ["Opened C00D002B"]);
}

#[test]
fn credentials_may_come_unasked() {
    let mut rig = locked("NSPlayer/9.0.0.3250");
    rig.open = Rig::new().open;
    let token = Token::Bytes(PASSWORD.into());
    assert_eq!(rig.say(&open("a", token)), ["open a None Some(\"Basic eDp5\")", "Opened"]);
}

#[test]
fn ntlm_is_not_spoken() {
    for token in [&[0, 0, b'N'][..], b"", b"a b"] {
        let mut rig = locked("NSPlayer/9.0.0.3250");
        rig.say(&open("a", Token::None));
        assert_eq!(rig.say(&respond(1, token)), ["Opened 80070005"]);
    }
    let mut rig = locked("NSPlayer/9.0.0.3250");
    rig.say(&open("a", Token::None));
    assert_eq!(rig.say(&respond(7, PASSWORD)), ["Opened C00D002B"], "an answer to something else");
}

#[test]
fn players_that_know_no_challenge_get_none() {
    let mut rig = locked("NSPlayer/7.0.0.1956");
    assert_eq!(rig.say(&open("a", Token::None)), ["open a", "Opened 80070005"]);
    assert_eq!(Hresult::ACCESS_DENIED.0, 0x8007_0005);
}

#[test]
fn players_are_told_of_passwords_beforehand() {
    let mut rig = Rig::with(Config { authentication: "BASIC".into(), ..Config::default() });
    rig.say(&connect::Connect { incarnation: connect::NO_PACKET_PAIR, subscriber: vec!["NSPlayer/7.1; {A}".into()] });
    assert_eq!(rig.last::<connect::ReportConnectedEx>(0).authentication, "BASIC");
}
