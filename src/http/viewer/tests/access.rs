//! Keys and passwords: every way to the content asks for them, and every address that is given out has them.

use super::{Rig, SERVER};
use crate::http::viewer::CloseReason;

const PLAYER: &str = "User-Agent: NSPlayer/9.0.0.2980\r\n";
const BROWSER: &str = "User-Agent: Mozilla/5.0\r\nAccept: text/html\r\n";

/// A request, and what kind of answer a right one has.
const WAYS: [(&str, &str, &str, &str); 10] = [
    ("GET /NAME", "", "Pragma: rate=1\r\nUser-Agent: NSPlayer/9.0.0.2980\r\n", "vnd.ms.wms-hdr.asfv1"),
    ("GET /NAME", "", "Pragma: xPlayStrm=1\r\nUser-Agent: NSPlayer/4.1.0.3856\r\n", "x-mms-framed"),
    ("GET /NAME", "", "", "video/x-ms-asf"),
    ("GET /NAME.wmv", "", "", "video/x-ms-asf"),
    ("HEAD /NAME", "", "", "video/x-ms-asf"),
    ("GET /NAME", "", BROWSER, "text/html"),
    ("GET /NAME.asx", "", "", "video/x-ms-asf"),
    ("GET /NAME.m3u", "", "", "audio/x-mpegurl"),
    ("GET /NAME.sdp", "", "", "application/sdp"),
    ("POST /NAME", "", "Content-Type: application/x-wms-getcontentinfo\r\nContent-Length: 0\r\n", "client-id"),
];

/// The head of the answer to one way, with a query and more fields; and whether the connection stays.
fn ask(way: usize, name: &str, query: &str, fields: &str) -> (String, String) {
    let (line, _, own, _) = WAYS[way];
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let line = line.replace("NAME", name);
    rig.hear(&mut link, format!("{line}{query} HTTP/1.1\r\nHost: h\r\n{own}{fields}\r\n"));
    let (head, body) = link.response();
    (head, String::from_utf8_lossy(&body).into_owned())
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[test]
fn every_way_asks_for_a_key() {
    for (way, (line, _, _, kind)) in WAYS.iter().enumerate() {
        for (query, words) in
            [("", "signed address"), ("?k=", "signed address"), ("?k=01ac", "not for this"), ("?k=0100", "is over")]
        {
            let (head, body) = ask(way, "signed", query, "");
            assert_eq!(status(&head), "403", "{line}{query}");
            assert!(
                head.contains("\r\nCache-Control: no-cache\r\n") && (body.contains(words) || line.starts_with("HEAD")),
                "{head}{body}"
            );
        }
        let (head, body) = ask(way, "signed", "?x=y&k=01ab", "");
        assert_eq!(status(&head), "200", "{line}: {head}{body}");
        if *kind != "client-id" {
            assert!(head.contains(kind) && head.contains(", private\r\n"), "{line}: {head}");
        }
    }
}

#[test]
fn every_way_asks_for_a_password() {
    for (way, (line, ..)) in WAYS.iter().enumerate() {
        let (head, _) = ask(way, "secret", "", "");
        assert_eq!(status(&head), "401", "{line}");
        let challenges = "\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\"\r\nWWW-Authenticate: Basic realm=\"r\"\r\n";
        assert!(head.contains(challenges) && head.contains(SERVER) && head.contains("Connection: Keep-Alive"), "{head}");
        assert_eq!(status(&ask(way, "secret", "", "Authorization: Basic eDp6\r\n").0), "401", "{line}");
        let (head, _) = ask(way, "secret", "", "Authorization: Basic eDp5\r\n");
        assert_eq!(status(&head), "200", "{line}: {head}");
    }
}

#[test]
fn a_player_answers_on_the_same_connection() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let describe = |fields: &str| format!("GET /secret HTTP/1.1\r\nHost: h\r\n{PLAYER}Pragma: rate=1\r\n{fields}\r\n");
    rig.hear(&mut link, describe(""));
    assert!(link.text().starts_with("HTTP/1.1 401 "));
    assert!(!link.connection.is_closed());
    let login = "Authorization: Basic eDp5\r\n";
    assert_eq!(rig.hear(&mut link, describe(login)), ["open secret"], "what it shows is in no log");
    assert!(link.text().starts_with("HTTP/1.1 200 "));
    // HTTP/1.0 stays where the player wants it.
    for (wish, reason) in [("Connection: Keep-Alive\r\n", None), ("", Some(CloseReason::Done))] {
        let mut link = rig.connect();
        let log = rig.hear(&mut link, format!("GET /secret HTTP/1.0\r\n{wish}\r\n"));
        assert_eq!(link.connection.is_closed(), reason.is_some(), "{log:?}");
        assert!(link.text().contains(if reason.is_some() { "Connection: close" } else { "Connection: Keep-Alive" }));
    }
}

/// Source: MS-WMSP 2.2.1.5.
#[test]
fn only_schemes_that_a_player_knows_are_offered() {
    for (known, basic) in
        [("Negotiate, NTLM, Digest, Basic", true), ("Negotiate, NTLM, Digest", false), ("NTLM", false), ("basic", true)]
    {
        let (head, _) = ask(0, "secret", "", &format!("X-Accept-Authentication: {known}\r\n"));
        assert!(head.contains("WWW-Authenticate: Digest"), "{known}: {head}");
        assert_eq!(head.contains("WWW-Authenticate: Basic"), basic, "{known}: {head}");
    }
}

#[test]
fn who_guesses_is_told_to_wait() {
    let (head, _) = ask(2, "guessed", "", "");
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nRetry-After: 60\r\n"), "{head}");
}

#[test]
fn the_key_is_passed_on_and_kept_out_of_logs() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let log = rig.hear(&mut link, "GET /signed.asx?a=b&k=01ab HTTP/1.1\r\nHost: h:81\r\n\r\n");
    assert_eq!(log, ["admit None", "facts signed"]);
    let (head, body) = link.response();
    let body = String::from_utf8(body).unwrap();
    assert!(
        body.contains("HREF=\"mms://h:81/signed?k=01ab\"") && body.contains("HREF=\"http://h:81/signed?k=01ab\""),
        "{head}{body}"
    );
    assert_eq!(link.connection.report().query.as_deref(), Some("a=b&k=***"));
    // A key that is none cannot break out of the page.
    let (_, body) = ask(5, "live", "?k=01\"><script>", "");
    assert!(body.contains("live?k=01\"") && !body.contains("script"), "{body}");
}
