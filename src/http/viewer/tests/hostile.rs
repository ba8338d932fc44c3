//! What no player sends, and what comes in pieces.

use proptest::prelude::*;

use super::{Link, Rig};
use crate::http::viewer::Input;
use crate::http::viewer::testing;
use crate::viewing::Answer;

const AGENT: &str = "User-Agent: NSPlayer/12.0\r\nHost: h\r\n";

#[test]
fn refusals_have_words_and_close() {
    let long = "x".repeat(9000);
    for (request, status) in [
        ("GET /live HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n".to_owned(), 400),
        ("GET /live HTTP/1.1\nHost: h\n\n".into(), 400),
        ("GET /live HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n".into(), 400),
        ("GET /a%0d%0aX:%20y HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400),
        ("GET /..%2f..%2fetc HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400),
        ("GET /a%00 HTTP/1.1\r\nHost: h\r\n\r\n".into(), 400),
        (format!("GET /{long} HTTP/1.1\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nX: {long}\r\n"), 431),
        ("GET / HTTP/2.0\r\n\r\n".into(), 505),
        ("BREW /live HTTP/1.1\r\nHost: h\r\n\r\n".into(), 405),
        ("PUT /live HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".into(), 405),
        ("POST /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n".into(), 400),
        ("GET /live HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".into(), 413),
        ("GET /live HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), 400),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nContent-Length: +1\r\n\r\n".into(), 400),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".into(), 400),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nTransfer-Encoding: chunked\r\n\r\nz".into(), 400),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\n\r\n".into(), 411),
        ("POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nConnection: close\r\n\r\n".into(), 411),
        (format!("GET /live HTTP/1.1\r\n{AGENT}Pragma: {}\r\n\r\n", "a,".repeat(65)), 400),
        (format!("GET /live HTTP/1.1\r\n{AGENT}Expect: miracles\r\n\r\n"), 417),
    ] {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        let log = rig.hear(&mut link, &request);
        assert!(matches!(log.as_slice(), [close] if close.starts_with("close ")), "{request} {log:?}");
        let (head, body) = link.response();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {head}");
        assert!(head.contains("\r\nServer: Cougar/") && head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())) && body.len() > 10, "{head}");
        assert_eq!(head.contains("\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"), status == 405);
        assert!(rig.hear(&mut link, "GET / HTTP/1.1\r\n").is_empty() && link.take().is_empty());
    }
}

#[test]
fn slow_ones_are_sent_away() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    assert_eq!(rig.wait(&mut link, 10_000), ["close idle"]);
    assert!(link.take().is_empty(), "no request, no response");
    let mut link = rig.connect();
    for byte in b"GET /live" {
        rig.hear(&mut link, [*byte]);
        if rig.wait(&mut link, 1_200).last().is_some() {
            break;
        }
    }
    assert!(link.connection.is_closed());
    assert!(link.text().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    let mut link = rig.connect();
    rig.hear(&mut link, "POST /live HTTP/1.1\r\nHost: h\r\nPragma: log-line=x\r\nContent-Length: 9\r\n\r\nx");
    assert_eq!(rig.wait(&mut link, 10_000), ["close idle"]);
    assert!(link.text().starts_with("HTTP/1.1 408 "));
}

/// A conversation with everything in it.
fn conversation() -> Vec<u8> {
    let get = |pragma: &str| format!("GET /live HTTP/1.1\r\n{AGENT}Pragma: rate=1.000\r\nPragma: {pragma}\r\n\r\n");
    let mut all = get("pipeline-experiment=1,version11-enabled=1");
    all += &get("pipeline-request=1").repeat(2);
    all += &get("xPlayStrm=1,version11-enabled=1,client-id=77");
    all += &format!("POST /live HTTP/1.1\r\n{AGENT}Content-Type: application/x-wms-LogStats\r\nContent-Length: 5\r\n\r\n<XML>");
    all +=
        &format!("POST /live HTTP/1.1\r\n{AGENT}Pragma: log-line=x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    all += &get("client-id=77,stream-switch-entry=ffff:2:1");
    all += &format!("POST /live HTTP/1.1\r\n{AGENT}Pragma: client-id=77,xStopStrm=1\r\nContent-Length: 0\r\n\r\n");
    all += "GET /live.asx HTTP/1.1\r\nHost: h\r\n\r\nGET /film.wmv HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    all.into_bytes()
}

#[test]
fn pieces_make_no_difference() {
    let requests = conversation();
    let run = |cut: usize| {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        let mut log = rig.hear(&mut link, &requests[..cut]);
        log.append(&mut rig.hear(&mut link, &requests[cut..]));
        log.append(&mut rig.tell(&mut link, Answer::BytesSent));
        (log, link.take())
    };
    let whole = run(0);
    assert_eq!(whole.0.last().unwrap(), "close answered", "{:?}", whole.0);
    for cut in 1..requests.len() {
        assert_eq!(run(cut), whole, "{cut}");
    }
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let mut log: Vec<_> = requests.iter().flat_map(|byte| rig.hear(&mut link, [*byte])).collect();
    log.append(&mut rig.tell(&mut link, Answer::BytesSent));
    assert_eq!((log, link.take()), whole);
}

fn answers(which: u8) -> Answer {
    match which % 7 {
        0 => Answer::Ended,
        1 => Answer::Finished { incarnation: 1 },
        2 => Answer::Broken,
        3 => Answer::BytesSent,
        4 => Answer::NewGeneration(testing::live()),
        5 => Answer::Opened(Ok(testing::file())),
        _ => Answer::Admitted(Ok(())),
    }
}

/// What comes out of one input stays within what it may be answered with.
fn check(link: &Link, before: usize, input: usize) -> Result<(), TestCaseError> {
    prop_assert!(link.sent.len() - before <= 40_000 + input * 40, "{} for {input}", link.sent.len() - before);
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        for bytes in &chunks {
            let before = link.sent.len();
            rig.hear(&mut link, bytes);
            check(&link, before, bytes.len())?;
        }
    }

    /// Pieces of true requests with faults in them, answers at any time, and time that passes.
    #[test]
    fn any_order(steps in proptest::collection::vec((0usize..1600, 0usize..400, any::<u8>(), any::<u8>()), 1..24)) {
        let requests = conversation();
        let mut rig = Rig::new();
        let mut link = rig.connect();
        for (start, len, what, fault) in steps {
            let before = link.sent.len();
            let start = start.min(requests.len());
            // Most begin where a request does.
            let line = requests[start..].windows(4).position(|four| four == b"\r\n\r\n").map_or(start, |at| start + at + 4);
            let start = if fault < 200 { line } else { start };
            let mut piece = requests[start..(start + len).min(requests.len())].to_vec();
            if fault % 8 == 0 && let Some(byte) = piece.get_mut(usize::from(fault)) {
                *byte = what;
            }
            match what % 4 {
                0 => { rig.tell(&mut link, answers(fault)); }
                1 => { rig.wait(&mut link, u64::from(fault) * 50); }
                _ => { rig.hear(&mut link, &piece); }
            }
            check(&link, before, len)?;
            prop_assert_eq!(link.connection.is_closed() && link.connection.poll_timeout().is_some(), false);
        }
        link.connection.handle(rig.now, Input::End);
        rig.drain(&mut link);
        prop_assert!(link.connection.is_closed());
        prop_assert_eq!(rig.sessions.borrow().player(77), None);
    }
}
