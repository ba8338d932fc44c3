//! The requests of open-source players, byte for byte as they were captured (ffmpeg 5.1, libmms 0.6.4, MPlayer r38408, VLC
//! 3.0.24); host and name are made up.

use super::{Rig, frames};
use crate::http::viewer::testing;
use crate::http::wrap::{Wrap, header_frames};
use crate::viewing::Answer;

const FFMPEG_DESCRIBE: &str = "GET /live HTTP/1.1\r\nRange: bytes=0-\r\nIcy-MetaData: 1\r\nAccept: */*\r\n\
    User-Agent: NSPlayer/4.1.0.3856\r\nHost: media.example:8080\r\n\
    Pragma: no-cache,rate=1.000000,stream-time=0,stream-offset=0:0,request-context=1,max-duration=0\r\n\
    Pragma: xClientGUID={c77e7400-738a-11d2-9add-0020af0a3278}\r\nConnection: Close\r\n\r\n";
/// The last field of it lacks a line end, so that two are one.
const FFMPEG_PLAY: &str = "GET /live HTTP/1.1\r\nRange: bytes=0-\r\nConnection: close\r\nIcy-MetaData: 1\r\nAccept: */*\r\n\
    User-Agent: NSPlayer/4.1.0.3856\r\nHost: media.example:8080\r\nPragma: no-cache,rate=1.000000,request-context=2\r\n\
    Pragma: xPlayStrm=1\r\nPragma: xClientGUID={c77e7400-738a-11d2-9add-0020af0a3278}\r\nPragma: stream-switch-count=2\r\n\
    Pragma: stream-switch-entry=ffff:1:0 ffff:2:0 \r\nPragma: no-cache,rate=1.000000,stream-time=0Connection: Close\r\n\r\n";
const LIBMMS: &str = "GET /live HTTP/1.0\r\nAccept: */*\r\nUser-Agent: NSPlayer/4.1.0.3856\r\nHost: media.example:8080\r\n";
const LIBMMS_GUID: &str = "Pragma: xClientGUID={c77e7400-738a-11d2-9add-0020af0a3278}\r\n";
const VLC: &str = "GET /live HTTP/1.0\r\nHost: media.example:8080\r\nAccept: */*\r\nUser-Agent: NSPlayer/7.10.0.3059\r\n";
const VLC_GUID: &str = "Pragma: xClientGUID={0xbabac001-0x5e8b-0x1397-0xab18d8205ccb9ef4}\r\n";
const SWITCH: &str = "Pragma: stream-switch-count=2\r\nPragma: stream-switch-entry=ffff:1:0 ffff:2:0 \r\n";

fn libmms_play(position: &str) -> String {
    format!("{LIBMMS}Pragma: {position}\r\n{LIBMMS_GUID}Pragma: xPlayStrm=1\r\n{SWITCH}Connection: Close\r\n\r\n")
}

fn vlc(position: &str, play: bool) -> String {
    let rest = if play { format!("Pragma: xPlayStrm=1\r\n{SWITCH}") } else { String::new() };
    format!("{VLC}Pragma: {position}\r\n{VLC_GUID}{rest}Connection: Close\r\n\r\n")
}

fn mplayer_play() -> String {
    format!(
        "{LIBMMS}{LIBMMS_GUID}Pragma: no-cache,rate=1.000000,stream-time=0,stream-offset=0:0,request-context=2,max-duration=0\r\n\
         Pragma: xPlayStrm=1\r\nPragma: stream-switch-entry=ffff:2:0 ffff:1:0 \r\nPragma: stream-switch-count=2\r\n\
         Connection: Close\r\n\r\n"
    )
}

/// What a player of old is answered, header and all.
fn expected(version: &str, kind: &str, client_id: u32, length: bool) -> Vec<u8> {
    let length = if length { "Content-Length: 921\r\n" } else { "" };
    let head = format!(
        "HTTP/{version} 200 OK\r\nServer: Cougar/9.5.6001.18281 wmrelay/0\r\nContent-Type: {kind}\r\n\
         Pragma: no-cache, client-id={client_id}, features=\"broadcast,playlist\", timeout=60000\r\n\
         Cache-Control: no-cache\r\nConnection: close\r\n{length}\r\n"
    );
    [head.into_bytes(), header_frames(&testing::live().header)].concat()
}

#[test]
fn ffmpeg() {
    let mut rig = Rig::new();
    let mut first = rig.connect();
    assert_eq!(rig.hear(&mut first, FFMPEG_DESCRIBE), ["admit Some((4, 1))", "open live", "close answered"]);
    assert_eq!(first.take(), expected("1.1", "application/vnd.ms.wms-hdr.asfv1", 77, true));
    let mut second = rig.connect();
    assert_eq!(rig.hear(&mut second, FFMPEG_PLAY), ["admit Some((4, 1))", "open live", "play 1"]);
    assert_eq!(second.take(), expected("1.1", "application/x-mms-framed", 78, false));
    assert_eq!(second.connection.wrap(), Some(Wrap::Framed));
    assert_eq!(second.connection.poll_timeout(), None);
    // Whatever else comes on it is not looked at.
    assert!(rig.hear(&mut second, "GET / nonsense\0").is_empty());
    assert_eq!(rig.tell(&mut second, Answer::Ended), ["stop", "close ended"]);
    assert_eq!(second.take(), [0x24, 0x45, 4, 0, 0, 0, 0, 0]);
}

#[test]
fn ffmpeg_seeks_in_a_file() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let request = FFMPEG_PLAY.replace("/live", "/film.wmv").replace("stream-time=0", "stream-time=8000");
    let log = rig.hear(&mut link, request);
    assert_eq!(log, ["admit Some((4, 1))", "open film.wmv", "play file 1 Time(8000) None None"]);
    assert!(link.response().0.contains("features=\"seekable\""));
    assert!(rig.tell(&mut link, Answer::Finished { incarnation: 9 }).is_empty());
    assert_eq!(rig.tell(&mut link, Answer::Finished { incarnation: 1 }), ["stop", "close ended"]);
}

#[test]
fn libmms() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let position = "no-cache,rate=1.000000,stream-time=0,stream-offset=0:0,request-context=1,max-duration=0";
    let describe = format!("{LIBMMS}Pragma: {position}\r\n{LIBMMS_GUID}Connection: Close\r\n\r\n");
    assert_eq!(rig.hear(&mut link, describe).last().map(String::as_str), Some("close answered"));
    assert_eq!(link.take(), expected("1.0", "application/vnd.ms.wms-hdr.asfv1", 77, true));
    let mut link = rig.connect();
    rig.hear(&mut link, libmms_play("no-cache,rate=1.000000,request-context=2"));
    assert_eq!(link.take(), expected("1.0", "application/x-mms-framed", 78, false));
    // A time with the preroll of 3 s in it; a byte of the file, packet 93 behind a header of 909 bytes.
    for (position, place) in [
        ("stream-time=11000,stream-offset=4294967295:4294967295,request-context=4", "Time(8000)"),
        ("stream-time=0,stream-offset=0:298509,request-context=5", "Packet(93)"),
    ] {
        let mut link = rig.connect();
        let request = libmms_play(&format!("no-cache,rate=1.000000,{position},max-duration=0")).replace("/live", "/film.wmv");
        let log = rig.hear(&mut link, request);
        assert_eq!(log.last(), Some(&format!("play file 1 {place} None None")));
    }
}

#[test]
fn vlc_plays_and_seeks() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.hear(&mut link, vlc("no-cache,rate=1.000000,stream-time=0,stream-offset=0:0,request-context=1,max-duration=0", false));
    assert_eq!(link.take(), expected("1.0", "application/vnd.ms.wms-hdr.asfv1", 77, true));
    let mut link = rig.connect();
    assert_eq!(rig.hear(&mut link, vlc("no-cache,rate=1.000000,request-context=2", true)).last().unwrap(), "play 1");
    assert_eq!(link.take(), expected("1.0", "application/x-mms-framed", 78, false));
    // Packet 95, without the header.
    let seek = vlc("no-cache,rate=1.000000,stream-time=0,stream-offset=0:304000,request-context=3,max-duration=0", true);
    let mut link = rig.connect();
    let log = rig.hear(&mut link, seek.replace("/live", "/film.wmv"));
    assert_eq!(log.last().unwrap(), "play file 1 Packet(95) None None");
}

#[test]
fn a_describe_that_is_kept_alive_is_followed_by_play() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let describe = vlc("no-cache,rate=1.000000,stream-time=0", false).replace("Connection: Close", "Connection: Keep-Alive");
    assert_eq!(rig.hear(&mut link, describe), ["admit Some((7, 10))", "open live"]);
    assert!(link.response().0.contains("Connection: Keep-Alive\r\n"));
    assert_eq!(rig.hear(&mut link, vlc("no-cache,rate=1.000000,request-context=2", true)), ["open live", "play 1"]);
    assert!(link.response().0.contains("client-id=77,"), "the session of its Describe");
    assert_eq!(rig.sessions.borrow().len(), 1);
}

#[test]
fn the_header_changes() {
    let next = || {
        let mut next = testing::live();
        next.header = testing::asf_header(3200, 1000, None);
        Answer::NewGeneration(next)
    };
    for request in [FFMPEG_PLAY.to_owned(), libmms_play("no-cache,rate=1.0"), vlc("no-cache,rate=1.0", true)] {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        rig.hear(&mut link, request);
        link.take();
        assert_eq!(rig.tell(&mut link, next()), ["stop", "play 2"]);
        assert_eq!(frames(&link.take()), ["C 8 0", "H 1012"]);
    }
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.hear(&mut link, mplayer_play());
    link.take();
    assert_eq!(rig.tell(&mut link, next()), ["stop", "close stream_changed"]);
    assert!(link.take().is_empty());
    // From version 9 on, where metadata is expected.
    let mut link = rig.connect();
    rig.hear(&mut link, FFMPEG_PLAY.replace("NSPlayer/4.1.0.3856", "NSPlayer/9.0.0.2980"));
    let (head, body) = link.response();
    assert!(head.contains("Supported: com.microsoft.wm.sswitch, com.microsoft.wm.predstrm\r\n"), "{head}");
    assert_eq!(frames(&body)[1..], ["H 921"]);
    assert_eq!(rig.tell(&mut link, next()), ["stop", "play 2"]);
    let bytes = link.take();
    assert_eq!(frames(&bytes)[..2], ["E 8 1", "C 8 0"]);
    assert!(frames(&bytes)[2].starts_with('M') && frames(&bytes)[3] == "H 1012");
    assert!(String::from_utf8_lossy(&bytes).contains("playlist-gen-id=2, "));
}

#[test]
fn a_selection_outlives_a_change_of_header() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let request = FFMPEG_PLAY.replace("ffff:1:0 ffff:2:0", "ffff:1:0 ffff:2:2");
    assert_eq!(rig.hear(&mut link, request)[2..], ["select [1] thinned []", "play 1"]);
    let told = rig.tell(&mut link, Answer::NewGeneration(testing::live()));
    assert_eq!(told, ["stop", "select [1] thinned []", "play 2"]);
    let other = crate::viewing::Description { streams: [1].into_iter().collect(), ..testing::live() };
    assert_eq!(rig.tell(&mut link, Answer::NewGeneration(other)), ["stop", "play 3"]);
}

#[test]
fn what_breaks_off_is_told() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    rig.hear(&mut link, FFMPEG_PLAY.replace("/live", "/film.wmv"));
    link.take();
    assert_eq!(rig.tell(&mut link, Answer::Broken), ["stop", "close content_broken"]);
    assert_eq!(link.take(), [0x24, 0x45, 4, 0, 5, 0x40, 0, 0x80]);
}

#[test]
fn a_fast_start_is_told_for_files_only() {
    let wish = "Pragma: AccelBW=2147483647, AccelDuration=18000\r\nConnection: close";
    for (agent, name, expected) in [
        ("NSPlayer/12.0", "film.wmv", Some("AccelBW=5000000, AccelDuration=5000")),
        ("NSPlayer/4.1", "film.wmv", None),
        ("NSPlayer/12.0", "live", None),
    ] {
        let mut rig = Rig::new();
        let mut link = rig.connect();
        let request = FFMPEG_PLAY.replace("/live", &format!("/{name}")).replace("NSPlayer/4.1.0.3856", agent);
        let log = rig.hear(&mut link, request.replacen("Connection: close", wish, 1));
        let head = link.response().0;
        assert_eq!(head.contains("Accel"), expected.is_some(), "{head}");
        assert!(expected.is_none_or(|tokens| head.contains(tokens)), "{head}");
        assert_eq!(log.last().unwrap().ends_with("Some((5000000, 5000))"), expected.is_some());
    }
}

#[test]
fn an_old_player_with_a_dead_session_gets_the_header_twice() {
    let mut rig = Rig::new();
    let mut link = rig.connect();
    let request = "GET /live HTTP/1.0\r\nUser-Agent: NSPlayer/6.4\r\nPragma: xPlayStrm=1, client-id=5, request-context=2\r\n\r\n";
    rig.hear(&mut link, request);
    let (head, body) = link.response();
    assert!(head.contains("client-id=77, ") && head.contains(", xResetStrm=1\r\n"), "{head}");
    assert_eq!(frames(&body), ["H 921", "E 8 1", "C 8 0", "H 921"]);
}

#[test]
fn elsewhere_by_scheme_of_the_player() {
    for (agent, scheme) in [("NSPlayer/4.1.0.3856", "http"), ("NSPlayer/7.10.0.3059", "mmsh"), ("NSPlayer/12.0", "http")] {
        let mut rig = Rig::new();
        rig.live = Some(Err(crate::viewing::OpenRefusal::Redirect("mms://b.example/live".into())));
        let mut link = rig.connect();
        let request = FFMPEG_DESCRIBE.replace("NSPlayer/4.1.0.3856", agent);
        assert_eq!(rig.hear(&mut link, request).last().unwrap(), "close redirected");
        let head = link.response().0;
        assert!(head.starts_with("HTTP/1.1 302 Found\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nLocation: {scheme}://b.example/live\r\n")), "{head}");
    }
    let mut rig = Rig::new();
    rig.live = Some(Err(crate::viewing::OpenRefusal::Redirect("mms://b.example/a\r\nX: y".into())));
    let mut link = rig.connect();
    rig.hear(&mut link, FFMPEG_DESCRIBE);
    assert!(link.response().0.starts_with("HTTP/1.1 503 "));
}
