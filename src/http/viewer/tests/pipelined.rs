//! Windows Media Player from version 9 on, which keeps to one connection (MS-WMSP 4.4, 4.5).

use super::{Link, Rig};
use crate::http::viewer::Config;
use crate::http::viewer::metadata;
use crate::http::viewer::testing;
use crate::http::wrap::{Wrap, chunk, header_frames, metadata_frames};
use crate::viewing::{Answer, Content};

const AGENT: &str = "User-Agent: NSPlayer/12.00.7601.17514\r\nHost: media.example\r\n";
const HEAD: &str = "Server: Cougar/9.5.6001.18281 wmrelay/0\r\n";
const SUPPORTED: &str = "Supported: com.microsoft.wm.sswitch, com.microsoft.wm.predstrm\r\n";

fn get(pragma: &str) -> String {
    format!("GET /live HTTP/1.1\r\n{AGENT}Pragma: no-cache,rate=1.000,stream-time=0\r\nPragma: {pragma}\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /live HTTP/1.1\r\n{AGENT}Pragma: client-id=77\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn metadata() -> Vec<u8> {
    metadata_frames(&metadata::text(1, "live", Content::Live, &testing::live().header))
}

fn answer_in_session(status: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\n{HEAD}Pragma: no-cache, client-id=77, timeout=60000\r\nCache-Control: no-cache\r\n{SUPPORTED}\
         Connection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"
    )
}

fn new_body() -> String {
    let head = answer_in_session("200 OK")
        .replace("Connection", "Content-Type: application/x-mms-framed\r\nTransfer-Encoding: chunked\r\nConnection");
    head.replace("Content-Length: 0\r\n", "")
}

/// A connection that plays; what was sent up to there is dropped.
fn playing(rig: &mut Rig) -> Link {
    let mut link = rig.connect();
    rig.hear(&mut link, get("version11-enabled=1,pipeline-experiment=1"));
    rig.hear(&mut link, get("xPlayStrm=1,version11-enabled=1,client-id=77"));
    assert_eq!(link.connection.wrap(), Some(Wrap::Chunked));
    link.take();
    link
}

#[test]
fn the_whole_exchange() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let describe = get("version11-enabled=1,pipeline-experiment=1,packet-pair-experiment=1");
    assert_eq!(rig.hear(&mut link, describe), ["admit Some((12, 0))", "open live"]);
    let body = [metadata(), header_frames(&testing::live().header)].concat();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{HEAD}Content-Type: application/vnd.ms.wms-hdr.asfv1\r\nPragma: no-cache, client-id=77, \
         features=\"broadcast,playlist\", timeout=60000, pipeline-experiment=1\r\n\
         Cache-Control: no-cache, x-wms-stream-type=\"broadcast\"\r\n{SUPPORTED}Connection: Keep-Alive\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(link.take(), [head.as_bytes(), &body].concat());

    let test = get("pipeline-request=1,client-id=77");
    assert!(rig.hear(&mut link, test.repeat(2)).is_empty());
    let passed = format!(
        "HTTP/1.1 204 No Content\r\n{HEAD}Pragma: no-cache, pipeline-result=1, client-id=77, timeout=60000\r\n\
         Cache-Control: no-cache\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(link.text(), format!("{}4\r\n$T\0\0\r\n0\r\n\r\n{passed}", new_body()));

    let play = get("xPlayStrm=1,version11-enabled=1,client-id=77,LinkBW=2147483647,AccelBW=2147483647,AccelDuration=18000");
    assert_eq!(rig.hear(&mut link, &play), ["open live", "play 1"]);
    let head = format!(
        "HTTP/1.1 200 OK\r\n{HEAD}Content-Type: application/x-mms-framed\r\nTransfer-Encoding: chunked\r\n\
         Pragma: no-cache, client-id=77, features=\"broadcast,playlist\", timeout=60000\r\n\
         Cache-Control: no-cache, x-wms-stream-type=\"broadcast\"\r\n{SUPPORTED}Connection: Keep-Alive\r\n\r\n"
    );
    assert_eq!(link.take(), [head.into_bytes(), chunk(&metadata()), chunk(&header_frames(&testing::live().header))].concat());
    assert_eq!(link.connection.wrap(), Some(Wrap::Chunked));

    // A log behind media waits; a stop ends the body and lets it out.
    let log = post("Content-Type: application/x-wms-LogStats;charset=UTF-8\r\n", "<XML><Summary>x</Summary></XML>");
    assert!(rig.hear(&mut link, log).is_empty());
    assert!(link.take().is_empty());
    assert_eq!(rig.hear(&mut link, post("Pragma: xStopStrm=1\r\n", "")), ["stop"]);
    let expected = format!("0\r\n\r\n{}{}", answer_in_session("204 No Content"), answer_in_session("200 OK"));
    assert_eq!(link.text(), expected);
    assert_eq!(link.connection.wrap(), None);
    assert_eq!(link.connection.report().log.as_deref(), Some("<XML><Summary>x</Summary></XML>"));

    let options = format!("OPTIONS * HTTP/1.1\r\n{AGENT}Pragma: client-id=77\r\n\r\n");
    for _ in 0..5 {
        assert!(rig.wait(&mut link, 60_000).is_empty());
        assert!(rig.hear(&mut link, &options).is_empty());
        let answer = link.text();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\nPublic: GET, POST, OPTIONS\r\nAllow: OPTIONS\r\n")
        );
    }
    assert!(rig.sessions.borrow_mut().expire(rig.now).is_empty(), "signs of life keep it");
    assert_eq!(rig.hear(&mut link, &play), ["open live", "play 2"]);
    // The end leaves the connection; silence ends it with the session.
    link.take();
    assert_eq!(rig.tell(&mut link, Answer::Ended), ["stop"]);
    assert_eq!(link.take(), [b"8\r\n$E\x04\0\0\0\0\0\r\n".as_slice(), b"0\r\n\r\n"].concat());
    assert_eq!(rig.wait(&mut link, 65_000), ["close idle"]);
}

#[test]
fn a_proxy_that_keeps_requests_back_fails_the_test() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.hear(&mut link, get("version11-enabled=1,pipeline-experiment=1"));
    link.take();
    rig.hear(&mut link, get("pipeline-request=1,client-id=77"));
    assert!(link.text().ends_with("\r\n\r\n4\r\n$T\0\0\r\n"));
    assert!(rig.wait(&mut link, 999).is_empty() && link.take().is_empty());
    rig.wait(&mut link, 1);
    assert_eq!(link.text(), "0\r\n\r\n");
    rig.hear(&mut link, get("pipeline-request=1,client-id=77"));
    assert!(link.text().contains("pipeline-result=0, "));
    // Another request in between ends the body of the test first.
    rig.hear(&mut link, get("pipeline-request=1,client-id=77"));
    link.take();
    rig.hear(&mut link, get("rate=1"));
    assert!(link.text().starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"));
}

#[test]
fn pipelining_is_not_offered_through_proxies_nor_to_old_ones() {
    for (from, to) in
        [("Host:", "Via: 1.0 proxy\r\nHost:"), ("NSPlayer/12.00.7601.17514", "NSPlayer/8.0"), ("HTTP/1.1", "HTTP/1.0")]
    {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        rig.hear(&mut link, get("version11-enabled=1,pipeline-experiment=1").replace(from, to));
        assert!(!link.text().contains("pipeline-experiment"), "{to}");
    }
}

#[test]
fn streams_are_selected_in_a_new_body() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    assert!(rig.hear(&mut link, post("Pragma: log-line=a b\r\n", "")).is_empty());
    let switch = get("client-id=77").replace("\r\n\r\n", "\r\nPragma: stream-switch-entry=ffff:2:1 \r\n\r\n");
    assert_eq!(rig.hear(&mut link, switch), ["select [1, 2] thinned [2]"]);
    assert_eq!(link.text(), format!("0\r\n\r\n{}{}", answer_in_session("204 No Content"), new_body()));
    assert_eq!(link.connection.wrap(), Some(Wrap::Chunked));
    assert!(rig.hear(&mut link, get("xPlayNextEntry=1,client-id=77")).is_empty());
    assert_eq!(link.text(), format!("0\r\n\r\n{}", new_body()));
    assert_eq!(link.connection.wrap(), Some(Wrap::Chunked));
}

#[test]
fn another_play_is_a_seek() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    let play = get("xPlayStrm=1,version11-enabled=1,client-id=77,packet-num=5").replace("/live", "/film.wmv");
    assert_eq!(rig.hear(&mut link, play), ["stop", "open film.wmv", "play file 2 Packet(5) None None"]);
    assert!(link.text().starts_with("0\r\n\r\nHTTP/1.1 200 OK\r\n"));
    assert!(rig.tell(&mut link, Answer::Finished { incarnation: 1 }).is_empty());
}

#[test]
fn the_header_changes_within_the_body() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    assert_eq!(rig.tell(&mut link, Answer::NewGeneration(testing::live())), ["stop", "play 2"]);
    let bytes = link.take();
    assert!(bytes.starts_with(b"8\r\n$E\x04\0\x01\0\0\0\r\n8\r\n$C\x04\0\0\0\0\0\r\n"));
    assert!(bytes.ends_with(&chunk(&header_frames(&testing::live().header))));
    assert_eq!(rig.tell(&mut link, Answer::Broken), ["stop", "close content_broken"]);
    assert_eq!(link.take(), b"8\r\n$E\x04\0\x05\x40\0\x80\r\n0\r\n\r\n");
}

#[test]
fn an_encoder_tells_no_metadata() {
    let mut rig = Rig::new();
    rig.config = std::sync::Arc::new(Config { server: "Rex/9.0.0.2980".into(), ..Config::default() });
    let mut link = rig.connect();
    rig.hear(&mut link, get("rate=1"));
    let (head, body) = link.response();
    assert!(head.contains("\r\nServer: Rex/9.0.0.2980\r\n"));
    assert_eq!(body, header_frames(&testing::live().header));
}

#[test]
fn a_question_about_methods_does_not_end_what_plays() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    assert!(rig.hear(&mut link, format!("OPTIONS /live HTTP/1.1\r\n{AGENT}Connection: close\r\n\r\n")).is_empty());
    assert!(link.take().is_empty());
    rig.tell(&mut link, Answer::Ended);
    let text = link.text();
    assert!(text.contains("\r\nAllow: GET, ") && text.contains("\r\nConnection: Keep-Alive\r\n"), "{text}");
    assert_eq!(link.connection.report().name.as_deref(), Some("live"));
}

#[test]
fn what_players_say_is_safe_to_log() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let agent = "NSPlayer/9.0 \u{e9}".to_owned() + &"x".repeat(500);
    rig.hear(&mut link, get("rate=1").replace("NSPlayer/12.00.7601.17514", &agent));
    let log = "Content-Type: application/x-wms-LogStats\r\n";
    rig.hear(&mut link, post(log, "a\r\nb\u{1b}[31m"));
    let report = link.connection.report();
    assert_eq!(report.log_text().as_deref(), Some("a\\r\\nb\\u{1b}[31m"));
    assert!(report.player_text().starts_with("NSPlayer/9.0 \\u{e9}x") && report.player_text().len() < 150);
    assert_eq!((report.requests, report.asked, report.client_id), (2, Some("log"), Some(77)));
}

#[test]
fn responses_that_wait_are_bounded() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    let alive = post("Pragma: xKeepAliveInPause=1\r\n", "");
    assert!(rig.hear(&mut link, alive.repeat(32)).is_empty());
    assert_eq!(rig.hear(&mut link, alive), ["stop", "close protocol"]);
}

#[test]
fn a_refusal_ends_the_body_first() {
    let mut rig = Rig::new();
    let mut link = playing(&mut rig);
    assert_eq!(rig.hear(&mut link, "BAD\r\n\r\n"), ["stop", "close protocol"]);
    assert!(link.text().starts_with("0\r\n\r\nHTTP/1.1 400 Bad Request\r\n"));
    // Nor does an empty line behind a body start the time of a request.
    let mut link = playing(&mut rig);
    assert!(rig.hear(&mut link, "\r\n").is_empty());
    assert_eq!(link.connection.poll_timeout(), None);
    rig.hear(&mut link, "G");
    assert_eq!(rig.wait(&mut link, 10_000), ["stop", "close idle"]);
    assert!(link.text().starts_with("0\r\n\r\nHTTP/1.1 408 "));
}
