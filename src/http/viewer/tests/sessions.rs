//! A session over several connections: signs of life, logs, selections, hijacks.

use std::time::Duration;

use super::{Link, Rig};
use crate::http::viewer::{Input, Told};
use crate::wire::Hresult;

const AGENT: &str = "User-Agent: NSPlayer/9.0.0.2980\r\nHost: media.example\r\n";

fn get(pragma: &str) -> String {
    format!("GET /live HTTP/1.0\r\n{AGENT}Pragma: no-cache,rate=1.000,stream-time=0\r\nPragma: {pragma}\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /live HTTP/1.1\r\n{AGENT}{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A connection that plays for the session that a Describe founded: 77, key 1.
fn playing(rig: &mut Rig) -> Link {
    let mut first = rig.connect();
    assert_eq!(rig.hear(&mut first, get("xClientGUID={A}")).last().unwrap(), "close answered");
    let mut second = rig.connect();
    let play = get("xPlayStrm=1,client-id=77,xClientGUID={A}");
    assert_eq!(rig.hear(&mut second, play).last().unwrap(), "play 1");
    assert!(second.response().0.contains("client-id=77, "));
    second
}

fn status(link: &mut Link) -> u16 {
    let text = link.text();
    assert!(text.contains("\r\nServer: Cougar/9.5.6001.18281 wmrelay/0\r\n"), "{text}");
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn statuses() {
    let session = "Pragma: client-id=77\r\n";
    for (fields, body, expected, log) in [
        (format!("{session}Pragma: xKeepAliveInPause=1\r\n"), "", 200, "close answered"),
        ("Pragma: xKeepAliveInPause=1\r\n".into(), "", 400, "close refused"),
        ("Pragma: client-id=5,xKeepAliveInPause=1\r\n".into(), "", 400, "close refused"),
        ("Pragma: client-id=5,xStopStrm=1\r\n".into(), "", 400, "close refused"),
        (format!("{session}Pragma: log-line=a b c\r\n"), "", 204, ""),
        // Logs are taken from everybody, whatever is in them.
        ("Pragma: log-line=\r\n".into(), "", 204, ""),
        ("Content-Type: application/x-wms-LogStats\r\n".into(), "\u{0}\u{1}nonsense", 204, ""),
        ("Content-Type: application/x-wms-sendevent\r\n".into(), "1\r\n1,28,0\r\n", 200, ""),
        ("Content-Type: application/x-wms-getcontentinfo\r\n".into(), "x", 200, "close answered"),
        ("Content-Type: application/x-wms-pushstart\r\n".into(), "x", 415, "close refused"),
        ("Content-Type: text/plain\r\n".into(), "x", 400, "close refused"),
    ] {
        let mut rig = Rig::new();
        let _playing = playing(&mut rig);
        let mut link = rig.connect();
        let told = rig.hear(&mut link, post(&fields, body));
        assert_eq!(told.last().map_or("", String::as_str), log, "{fields}");
        assert_eq!(status(&mut link), expected, "{fields}");
    }
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.hear(&mut link, format!("OPTIONS /live HTTP/1.1\r\n{AGENT}\r\n"));
    assert!(link.text().contains("\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"));
    rig.hear(&mut link, format!("OPTIONS * HTTP/1.1\r\n{AGENT}Pragma: client-id=5\r\n\r\n"));
    assert_eq!(status(&mut link), 200);
}

#[test]
fn a_body_over_its_bound_is_refused() {
    let log = "Content-Type: application/x-wms-LogStats\r\n";
    for (fields, len, expected) in [
        (log, 64 << 10, 204),
        (log, (64 << 10) + 1, 413),
        ("Content-Type: application/x-wms-sendevent\r\n", 64 << 10, 200),
        ("Content-Type: application/x-wms-getcontentinfo\r\n", 64, 200),
        ("Content-Type: application/x-wms-getcontentinfo\r\n", 65, 413),
        ("Pragma: xKeepAliveInPause=1\r\n", 1, 413),
    ] {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        rig.hear(&mut link, post(fields, &"x".repeat(len)));
        assert_eq!(status(&mut link), expected, "{fields} {len}");
        assert!(link.connection.report().log.as_ref().is_none_or(|log| log.len() == 8 << 10));
        // The same in chunks, which tell no length at their begin.
        let mut link = rig.connect();
        let head = format!("POST /live HTTP/1.1\r\n{AGENT}{fields}Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n");
        rig.hear(&mut link, head);
        rig.hear(&mut link, "x".repeat(len));
        rig.hear(&mut link, "\r\n0\r\n\r\n");
        assert_eq!(status(&mut link), expected, "{fields} {len}");
    }
}

#[test]
fn leave_to_send_a_body_is_given() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let log = post("Content-Type: application/x-wms-LogStats\r\nExpect: 100-continue\r\n", "abc");
    let (head, body) = log.split_at(log.len() - 3);
    rig.hear(&mut link, head);
    assert_eq!(link.text(), "HTTP/1.1 100 Continue\r\n\r\n");
    rig.hear(&mut link, body);
    assert_eq!(status(&mut link), 204);
}

#[test]
fn streams_are_selected_on_another_connection() {
    let mut rig = Rig::new();
    let mut media = playing(&mut rig);
    let mut link = rig.connect();
    let switch = |entry: &str| post(&format!("Pragma: client-id=77\r\nPragma: stream-switch-entry={entry}\r\n"), "");
    let told = rig.hear(&mut link, switch("2:ffff:0"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("tell 1 Select("), "{told:?}");
    assert_eq!(status(&mut link), 200);
    assert!(rig.hear(&mut link, switch("ffff:9:0")).is_empty(), "nothing that exists was named");
    assert_eq!(rig.hear(&mut link, switch("ffff:2:0 ffff:2:2")).len(), 1);
    let (_, selection) = rig.sessions.borrow().selection(77).unwrap();
    assert_eq!(selection.streams.iter().collect::<Vec<_>>(), [1]);
    media.connection.handle(rig.now, Input::Told(Told::Select(selection)));
    assert_eq!(rig.drain(&mut media), ["select [1] thinned []"]);
    assert!(media.take().is_empty());
}

#[test]
fn a_second_play_takes_over_and_a_foreign_one_does_not() {
    let mut rig = Rig::new();
    let mut media = playing(&mut rig);
    for (peer, guid) in [([192, 0, 2, 10], "B"), ([192, 0, 2, 10], "")] {
        let mut link = rig.connect_from(peer.into());
        let told = rig.hear(&mut link, get(&format!("xPlayStrm=1,client-id=77,xClientGUID={{{guid}}}")));
        assert_eq!(told.last().unwrap(), "close refused");
        assert_eq!(status(&mut link), 400);
    }
    // From elsewhere the session is not even known.
    let mut link = rig.connect_from([192, 0, 2, 11].into());
    assert_eq!(rig.hear(&mut link, get("xPlayStrm=1,client-id=77,xClientGUID={A}")).last().unwrap(), "play 1");
    let head = link.response().0;
    assert!(!head.contains("client-id=77,") && head.contains("xResetStrm=1"), "{head}");
    let mut link = rig.connect_from([192, 0, 2, 11].into());
    rig.hear(&mut link, post("Pragma: client-id=77,xStopStrm=1\r\n", ""));
    assert_eq!(status(&mut link), 400);

    let mut link = rig.connect();
    let told = rig.hear(&mut link, get("xPlayStrm=1,client-id=77,xClientGUID={A}"));
    assert_eq!(told[2..], ["tell 1 Leave", "play 1"]);
    media.connection.handle(rig.now, Input::Told(Told::Leave));
    assert_eq!(rig.drain(&mut media), ["stop", "close taken_over"]);
    assert_eq!(rig.sessions.borrow().player(77), Some(6), "the old connection's end is not the session's");
    link.connection.handle(rig.now, Input::Told(Told::Leave));
    assert_eq!(rig.sessions.borrow().player(77), None);
}

#[test]
fn a_stop_on_another_connection_ends_the_play() {
    let mut rig = Rig::new();
    let _media = playing(&mut rig);
    let mut link = rig.connect();
    assert_eq!(rig.hear(&mut link, post("Pragma: client-id=77,xStopStrm=1\r\n", "")), ["tell 1 Leave"]);
    assert_eq!(status(&mut link), 200);
}

#[test]
fn sessions_end_by_time_unless_they_play() {
    let mut rig = Rig::new();
    let mut media = playing(&mut rig);
    rig.now += Duration::from_secs(600);
    assert!(rig.sessions.borrow_mut().expire(rig.now).is_empty());
    media.connection.handle(rig.now, Input::End);
    assert_eq!(rig.drain(&mut media), ["stop", "close left"]);
    drop(media);
    for _ in 0..3 {
        rig.now += Duration::from_secs(60);
        let mut link = rig.connect();
        rig.hear(&mut link, post("Pragma: client-id=77,xKeepAliveInPause=1\r\n", ""));
        let text = link.text();
        assert!(text.contains("\r\nPragma: no-cache, client-id=77, timeout=60000\r\n"), "{text}");
        assert!(rig.sessions.borrow_mut().expire(rig.now).is_empty());
    }
    let mut link = rig.connect();
    rig.hear(&mut link, post("Pragma: client-id=77,log-line=the end\r\n", ""));
    rig.now += Duration::from_secs(65);
    let expired = rig.sessions.borrow_mut().expire(rig.now);
    let told: Vec<_> = expired.iter().map(|e| (e.client_id, e.name.as_str(), e.log.as_deref())).collect();
    assert_eq!(told, [(77, "live", Some("the end"))]);
    assert!(!rig.sessions.borrow().holds(77));
    let mut link = rig.connect();
    rig.hear(&mut link, post("Pragma: client-id=77,xKeepAliveInPause=1\r\n", ""));
    assert_eq!(status(&mut link), 400);
}

#[test]
fn a_connection_that_is_dropped_without_a_word_plays_no_more() {
    let mut rig = Rig::new();
    drop(playing(&mut rig));
    assert_eq!(rig.sessions.borrow().player(77), None);
    assert_eq!(rig.sessions.borrow().next_expiry(), Some(rig.now + Duration::from_secs(65)));
}

#[test]
fn why_a_name_does_not_open() {
    for (hr, expected) in [
        (Hresult::FILE_NOT_FOUND, 404),
        (Hresult::ACCESS_DENIED, 403),
        (Hresult::TOO_MANY_SESSIONS, 503),
        (Hresult::NO_STREAM, 503),
        (Hresult::INSUFFICIENT_BANDWIDTH, 503),
        (Hresult::PROTOCOL_MISMATCH, 503),
    ] {
        let mut rig = Rig::new();
        rig.live = Some(Err(crate::viewing::OpenRefusal::Status(hr)));
        let mut link = rig.connect();
        assert_eq!(rig.hear(&mut link, get("xPlayStrm=1")).last().unwrap(), "close refused");
        let (head, body) = link.response();
        assert!(head.starts_with(&format!("HTTP/1.0 {expected} ")), "{head}");
        assert_eq!(head.contains("\r\nRetry-After: 10\r\n"), expected == 503);
        assert!(head.contains("\r\nConnection: close\r\n"));
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        let mut rig = Rig::new();
        rig.admit = Err(hr);
        let mut link = rig.connect();
        assert_eq!(rig.hear(&mut link, get("xPlayStrm=1")), ["admit Some((9, 0))", "close refused"]);
        assert_eq!(status(&mut link), expected);
    }
}

#[test]
fn a_source_that_is_late() {
    let mut rig = Rig::new();
    rig.live = None;
    let mut link = rig.connect();
    rig.hear(&mut link, get("xPlayStrm=1"));
    assert_eq!(link.connection.poll_timeout(), None);
    assert!(link.take().is_empty());
    let answer = crate::viewing::Answer::Opened(Ok(crate::http::viewer::testing::live()));
    assert_eq!(rig.tell(&mut link, answer), ["play 1"]);
    // Or a player that does not wait.
    let mut link = rig.connect();
    rig.hear(&mut link, get("xPlayStrm=1"));
    link.connection.handle(rig.now, Input::End);
    assert_eq!(rig.drain(&mut link), ["close left"]);
}

#[test]
fn a_word_about_another_session_leaves_what_plays_its_own() {
    let mut rig = Rig::new();
    let mut playing = playing(&mut rig);
    let mut other = rig.connect();
    assert_eq!(rig.hear(&mut other, get("xClientGUID={A}")).last().unwrap(), "close answered");
    assert!(rig.sessions.borrow().holds(79), "its own");
    rig.hear(&mut playing, post("Pragma: client-id=79\r\nPragma: log-line=x\r\n", ""));
    assert_eq!(rig.sessions.borrow().player(77), Some(1));
    playing.connection.handle(rig.now, Input::End);
    assert_eq!((rig.sessions.borrow().player(77), rig.sessions.borrow().player(79)), (None, None));
}

#[test]
fn whoever_rests_gives_its_place_back() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let describe = get("xClientGUID={A}").replace("HTTP/1.0\r\n", "HTTP/1.0\r\nConnection: Keep-Alive\r\n");
    rig.hear(&mut link, &describe);
    assert_eq!((link.rests, link.admitted_again), (1, 0));
    rig.hear(&mut link, &describe);
    assert_eq!((link.rests, link.admitted_again), (2, 1));
}

#[test]
fn floods_and_loiterers_are_sent_away() {
    let mut rig = Rig::new();
    let methods = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut link = rig.connect();
    assert_eq!(rig.hear(&mut link, methods.repeat(7)), [""; 0]);
    assert_eq!(rig.hear(&mut link, methods), ["close answered"], "it never wanted anything");
    let mut link = rig.connect();
    let describe = get("xClientGUID={A}").replace("HTTP/1.0\r\n", "HTTP/1.0\r\nConnection: Keep-Alive\r\n");
    rig.hear(&mut link, &describe);
    assert_eq!(rig.hear(&mut link, methods.repeat(49)), [""; 0]);
    assert_eq!(rig.hear(&mut link, methods), ["close flood"]);
}
