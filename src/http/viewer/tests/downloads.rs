//! Plain requests: broadcasts as files, files, pages, playlists.

use super::{Link, Rig, SERVER};
use crate::http::viewer::{Config, testing};
use crate::http::wrap::Wrap;
use crate::viewing::Answer;

const BROWSER: &str = "User-Agent: Mozilla/5.0\r\nAccept: text/html,*/*\r\n";
const CURL: &str = "User-Agent: curl/8.14.1\r\nAccept: */*\r\n";

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: media.example:8080\r\n{fields}\r\n")
}

fn ask(line: &str, fields: &str) -> (Vec<String>, Link) {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    (rig.hear(&mut link, request(line, fields)), link)
}

#[test]
fn a_broadcast_as_a_file() {
    for (line, fields) in [
        ("GET /live", CURL.to_owned()),
        ("GET /live/", format!("{CURL}Range: bytes=0-\r\nIcy-MetaData: 1\r\n")),
        ("GET /live?MSWMExt=.asf", "User-Agent: NSPlayer/12.0 WMFSDK/12.0\r\n".into()),
    ] {
        let (log, mut link) = ask(line, &fields);
        assert_eq!(log[1..], ["facts live", "open live", "play 1"]);
        assert_eq!(link.connection.wrap(), Some(Wrap::Raw));
        let (head, body) = link.response();
        let expected = "HTTP/1.1 200 OK\r\nServer: Cougar/9.5.6001.18281 wmrelay/0\r\nContent-Type: video/x-ms-asf\r\n\
                        Cache-Control: no-cache, no-store\r\nAccept-Ranges: none\r\nConnection: close\r\n\r\n";
        assert_eq!(head, expected);
        assert_eq!(body, testing::live().header);
        let mut rig = Rig::new();
        let answer = Answer::NewGeneration(testing::live());
        assert_eq!(rig.tell(&mut link, answer), ["stop", "close stream_changed"]);
    }
    let (log, mut link) = ask("GET /live.WMV", CURL);
    assert_eq!(log, ["admit None", "facts live.WMV", "facts live", "open live", "play 1"]);
    let mut rig = Rig::new();
    assert_eq!(rig.tell(&mut link, Answer::Ended), ["stop", "close ended"]);
    let (log, mut link) = ask("HEAD /live", CURL);
    assert_eq!(log, ["admit None", "facts live", "open live", "close answered"]);
    assert!(link.response().1.is_empty());
}

#[test]
fn a_file() {
    let etag = "\"30d78d-2ebc98a1-beef\"";
    let whole = format!(
        "HTTP/1.1 200 OK\r\nServer: Cougar/9.5.6001.18281 wmrelay/0\r\nContent-Type: video/x-ms-wmv\r\nContent-Length: 3200909\r\n\
         Accept-Ranges: bytes\r\nETag: {etag}\r\nCache-Control: no-cache\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Connection: Keep-Alive\r\n\r\n"
    );
    for (fields, bytes, status, range) in [
        (String::new(), "bytes 0 3200909", "200 OK", None),
        ("Range: bytes=100-199\r\n".into(), "bytes 100 100", "206 Partial Content", Some("bytes 100-199/3200909")),
        (
            format!("Range: bytes=-9\r\nIf-Range: {etag}\r\n"),
            "bytes 3200900 9",
            "206 Partial Content",
            Some("bytes 3200900-3200908/3200909"),
        ),
        ("Range: bytes=1-\r\nIf-Range: \"x\"\r\n".into(), "bytes 0 3200909", "200 OK", None),
        ("Range: bytes=0-1,5-6\r\n".into(), "bytes 0 3200909", "200 OK", None),
    ] {
        let (log, mut link) = ask("GET /film.wmv", &fields);
        assert_eq!(log, ["admit None", "facts film.wmv", bytes], "{fields}");
        let head = link.text();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        assert!(range.is_none_or(|range| head.contains(&format!("\r\nContent-Range: {range}\r\n"))), "{head}");
        assert!(status != "200 OK" || head == whole, "{head}");
        assert_eq!(link.connection.wrap(), None);
    }
    let (log, mut link) = ask("GET /film.wmv", "Range: bytes=3200909-\r\n");
    assert_eq!(log, ["admit None", "facts film.wmv"]);
    let head = link.text();
    assert!(head.starts_with("HTTP/1.1 416 ") && head.contains("\r\nContent-Range: bytes */3200909\r\n"), "{head}");
    let (log, mut link) = ask("HEAD /film.wmv", "Range: bytes=0-1\r\n");
    assert_eq!(log, ["admit None", "facts film.wmv"]);
    assert_eq!(link.text(), whole);
}

#[test]
fn a_file_that_is_known() {
    let etag = "\"30d78d-2ebc98a1-beef\"";
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, known) in [
        (format!("If-None-Match: {etag}\r\n"), true),
        (format!("If-None-Match: \"x\", W/{etag}\r\n"), true),
        ("If-None-Match: *\r\n".into(), true),
        ("If-None-Match: \"x\"\r\n".into(), false),
        (format!("If-Modified-Since: {date}\r\n"), true),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".into(), false),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}\r\n"), false),
        (format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"), true),
    ] {
        let (log, mut link) = ask("GET /film.wmv", &fields);
        let head = link.text();
        if known {
            assert_eq!(log, ["admit None", "facts film.wmv"], "{fields}");
            let expected =
                format!("ETag: {etag}\r\nLast-Modified: {date}\r\nCache-Control: no-cache\r\nConnection: Keep-Alive\r\n\r\n");
            assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n") && head.ends_with(&expected), "{head}");
        } else {
            assert_eq!(log.len(), 3, "{fields}");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        }
    }
}

#[test]
fn requests_behind_a_file_wait_for_its_end() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let get = request("GET /film.wmv", "");
    assert_eq!(rig.hear(&mut link, get.repeat(2)), ["admit None", "facts film.wmv", "bytes 0 3200909"]);
    assert_eq!(link.connection.poll_timeout(), None);
    link.take();
    assert_eq!(rig.tell(&mut link, Answer::BytesSent), ["facts film.wmv", "bytes 0 3200909"]);
    assert!(link.text().starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(rig.tell(&mut link, Answer::BytesSent).is_empty());
    assert_eq!(rig.wait(&mut link, 15_000), ["close idle"]);

    let mut link = rig.connect();
    rig.hear(&mut link, request("GET /film.wmv", "Connection: close\r\n"));
    assert_eq!(rig.tell(&mut link, Answer::BytesSent), ["close answered"]);
    let mut link = rig.connect();
    rig.hear(&mut link, &get);
    assert_eq!(rig.tell(&mut link, Answer::Broken), ["close content_broken"]);
    // Many requests wait their turn, with others that come meanwhile.
    let mut link = rig.connect();
    rig.hear(&mut link, get.repeat(3));
    for left in (0..3).rev() {
        assert!(rig.hear(&mut link, request("GET /film.wmv", "")).is_empty());
        assert_eq!(rig.tell(&mut link, Answer::BytesSent).len(), 2, "{left}");
    }
    let served = (0..9).filter(|_| !rig.tell(&mut link, Answer::BytesSent).is_empty()).count();
    assert_eq!(served, 2, "of six, one and three were before");
    // What is sent ahead is bounded.
    let mut link = rig.connect();
    rig.hear(&mut link, &get);
    assert!(rig.hear(&mut link, vec![b'x'; 96 << 10]).is_empty());
    assert_eq!(rig.hear(&mut link, "x"), ["close protocol"]);
}

#[test]
fn pages_and_playlists() {
    for (line, fields, kind, words) in [
        ("GET /live", BROWSER, "text/html; charset=utf-8", "href=\"mms://media.example:8080/live\""),
        ("GET /film.wmv", BROWSER, "text/html; charset=utf-8", "http://media.example:8080/film.wmv.asx"),
        ("GET /live.asx", CURL, "video/x-ms-asf", "<REF HREF=\"mms://media.example:8080/live\" />"),
        ("GET /live.wax", CURL, "audio/x-ms-wax", "<REF HREF=\"http://media.example:8080/live\" />"),
        ("GET /live.wvx", CURL, "video/x-ms-wvx", "<REF HREF"),
        ("GET /live", "User-Agent: Windows-Media-Player/12.0\r\n", "video/x-ms-asf", "<ASX VERSION=\"3.0\">"),
        ("GET /live.m3u", BROWSER, "audio/x-mpegurl", "http://media.example:8080/live\r\n"),
    ] {
        let (log, mut link) = ask(line, fields);
        assert_eq!(log.len(), 2, "{log:?}");
        let (head, body) = link.response();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains(&format!("\r\nContent-Type: {kind}\r\n")), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert!(String::from_utf8(body).unwrap().contains(words), "{line}");
    }
    let (log, mut link) = ask("GET /", BROWSER);
    assert!(log.is_empty() && link.response().0.contains("text/html"));
    for (line, fields) in [
        ("GET /gone", BROWSER),
        ("GET /gone.asx", CURL),
        ("GET /gone", CURL),
        ("GET /gone.asf", CURL),
        ("GET /gone.sdp", CURL),
        ("GET /live.nsc", CURL),
        ("GET /.sdp", CURL),
        ("GET /", CURL),
        ("GET /.asx", CURL),
        ("HEAD /gone", CURL),
    ] {
        let (log, mut link) = ask(line, fields);
        assert_eq!(log.last().unwrap(), "close refused", "{line}");
        let (head, body) = link.response();
        assert!(head.starts_with("HTTP/1.1 404 "), "{line} {head}");
        assert_eq!(body.is_empty(), line.starts_with("HEAD"));
    }
}

#[test]
fn descriptions_for_rtsp() {
    let control = |text: &str| text.lines().find_map(|line| line.strip_prefix("a=control:").map(str::to_owned)).unwrap();
    for (line, log, url, words) in [
        ("GET /live.sdp", "open live", "rtsp://media.example:8554/live/", "a=type:broadcast"),
        ("GET /film.wmv.SDP", "open film.wmv", "rtsp://media.example:8554/film.wmv/", "a=range:npt=3.000-63.000\r\n"),
        ("GET /signed.sdp?x=y&k=01ab", "open signed", "rtsp://media.example:8554/signed/?k=01ab", "m=video"),
    ] {
        let (asked, mut link) = ask(line, CURL);
        assert_eq!(asked[1..], [log], "{line}");
        let (head, body) = link.response();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Type: application/sdp\r\n"), "{head}");
        let text = String::from_utf8(body).unwrap();
        assert_eq!(control(&text), url, "{line}");
        assert!(text.starts_with("v=0\r\n") && text.contains(words) && text.matches("\r\nm=").count() == 3, "{text}");
        let (_, mut link) = ask(&line.replace("GET", "HEAD"), CURL);
        let (bare, body) = link.response();
        assert!(bare.contains(&format!("\r\nContent-Length: {}\r\n", text.len())) && body.is_empty(), "{bare}");
    }
    let (_, mut link) = ask("GET /live.sdp", "User-Agent: GStreamer souphttpsrc 1.22.0 libsoup/2.74.3\r\n");
    assert_eq!(String::from_utf8(link.response().1).unwrap().matches("\r\nm=").count(), 2);
    // Without RTSP there is nothing to describe, and nobody is asked.
    let mut rig = Rig::new();
    rig.config = std::sync::Arc::new(Config { server: SERVER.into(), ..Config::default() });
    let mut link = rig.connect();
    assert_eq!(rig.hear(&mut link, request("GET /live.sdp", CURL)), ["close refused"]);
    assert!(link.text().starts_with("HTTP/1.1 404 "));
    let named =
        Config { server: SERVER.into(), rtsp_port: Some(554), public_name: Some("tv.example".into()), ..Config::default() };
    rig.config = std::sync::Arc::new(named);
    let mut link = rig.connect();
    rig.hear(&mut link, request("GET /live.sdp", CURL));
    assert_eq!(control(&link.text()), "rtsp://tv.example/live/");
}

#[test]
fn a_host_that_is_none_is_not_repeated() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let get = request("GET /live.asx", CURL).replace("media.example:8080", "a\"onload=\"x");
    rig.hear(&mut link, get);
    let text = link.text();
    assert!(text.contains("mms://198.51.100.20:8080/live") && !text.contains("onload"), "{text}");
}
