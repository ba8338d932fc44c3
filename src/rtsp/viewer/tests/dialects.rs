//! As which server clients find us.

use super::*;

const U: &str = "rtsp://media.example:8554/cam1";
const FFMPEG: &str = "Lavf59.27.100";

/// A connection where publishers are taken, and whether one is awaited.
fn rig(awaits: bool) -> Rig {
    let mut rig = Rig::new(live());
    rig.connection.config = Arc::new(Config { publishers: true, ..Config::default() });
    rig.awaits = awaits;
    rig
}

fn is_plain(answer: &str) -> bool {
    assert_eq!(status(answer), 200, "{answer}");
    let server = field(answer, "Server");
    assert_eq!(server.starts_with("WMServer/"), answer.contains("\r\nSupported: com.microsoft.wm."), "{answer}");
    assert!(server.starts_with("WMServer/") || server.starts_with("wmrelay/"), "{answer}");
    server.starts_with("wmrelay/")
}

#[test]
fn ffmpeg_finds_a_plain_server_where_it_may_publish() {
    for (awaits, agent, target, plain, asked) in [
        (true, FFMPEG, U, true, Some("cam1")),
        (true, "lavf62.1.100", "/a/b", true, Some("a/b")),
        (true, FFMPEG, "rtsp://h/publish/cam1?k=x", true, Some("cam1")),
        (false, FFMPEG, U, false, Some("cam1")),
        // Inside TLS it takes TCP.
        (true, FFMPEG, "rtsps://h/cam1", false, None),
        (true, FFMPEG, "rtsp://h/cam1?dialect=wm", false, None),
        // Whatever the key says, nobody is sent on twice.
        (true, FFMPEG, "rtsp://h/cam1?dialect=x", false, None),
        (true, FFMPEG, "rtsp://h/cam1?k=1&dialect", false, None),
        (true, FFMPEG, "rtsp://h/cam1?dialect=x&dialect=wm", false, None),
        (true, FFMPEG, "rtsp://h/cam1?dialects=wm", true, Some("cam1")),
        (true, FFMPEG, "*", false, None),
        (true, FFMPEG, "rtsp://h", false, None),
        (true, "libmpv", U, false, None),
        (true, "WMPlayer/9.0.0.2833", U, false, None),
        (true, "GStreamer/1.22.0", U, false, None),
        (true, "LibVLC/3.0.24", U, false, None),
        (true, "Lav", U, false, None),
        (true, "\u{fc}\u{fc}\u{fc}", U, false, None),
    ] {
        let mut rig = rig(awaits);
        let options = rig.ask_as(agent, &format!("OPTIONS {target}"), "");
        assert_eq!(is_plain(&options), plain, "{agent} {target} {awaits}");
        assert!(field(&options, "Public").ends_with("ANNOUNCE, RECORD"), "{options}");
        let asks = asked.map(|name| Ask::AwaitsPublisher { name: name.into() });
        assert_eq!(rig.asks, Vec::from_iter(asks), "{agent} {target}");
    }
    let mut rig = Rig::new(live());
    rig.awaits = true;
    assert!(!is_plain(&rig.ask(&format!("OPTIONS {U}"), "")) && rig.asks.is_empty(), "where nobody publishes");
}

#[test]
fn what_ffmpeg_announces_there_is_handed_over() {
    let mut rig = rig(true);
    assert!(is_plain(&rig.ask(&format!("OPTIONS {U}"), "")));
    let announce =
        format!("ANNOUNCE {U} RTSP/1.0\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n");
    assert_eq!(rig.bytes(announce.as_bytes()), "");
    assert_eq!(String::from_utf8_lossy(&rig.handed), announce);
}

#[test]
fn who_plays_there_is_sent_to_the_same_name_again() {
    for (target, location) in [
        (U.to_owned(), format!("{U}?dialect=wm")),
        (format!("{U}/"), format!("{U}?dialect=wm")),
        (format!("{U}?k=abc"), format!("{U}?k=abc&dialect=wm")),
        (format!("{U}?"), format!("{U}?dialect=wm")),
        ("/cam1".into(), "rtsp://192.0.2.1:554/cam1?dialect=wm".into()),
    ] {
        let mut first = rig(true);
        assert!(is_plain(&first.ask(&format!("OPTIONS {target}"), "")));
        let moved = first.ask(&format!("DESCRIBE {target}"), "Accept: application/sdp\r\n");
        assert_eq!((status(&moved), field(&moved, "Location")), (302, location.as_str()), "{target}");
        assert_eq!(first.closed, Some(CloseReason::SentAgain));
        assert!(!first.asks.iter().any(|ask| matches!(ask, Ask::Admit(_) | Ask::Open { .. })), "{:?}", first.asks);

        let mut again = rig(true);
        assert!(!is_plain(&again.ask(&format!("OPTIONS {location}"), "")));
        let described = again.ask(&format!("DESCRIBE {location}"), "");
        assert_eq!(status(&described), 200, "{described}");
        assert!(described.contains("\r\na=pgmpu:"), "{described}");
        let asked = again.asks.iter().find_map(|ask| match ask {
            Ask::Open { name, pass } => Some((name.as_str(), pass.key.as_deref())),
            _ => None,
        });
        assert_eq!(asked, Some(("cam1", target.contains("k=abc").then_some("abc"))));
        let setup = again.ask(&format!("SETUP {location}/video"), "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
        assert_eq!(status(&setup), 200, "{setup}");
        // What keeps a session alive asks nothing.
        let asks = again.asks.len();
        assert!(!is_plain(&again.ask(&format!("OPTIONS {U}"), "")));
        assert_eq!(again.asks.len(), asks);
    }
}

#[test]
fn a_mark_that_is_there_gives_way() {
    let mut rig = rig(true);
    assert!(is_plain(&rig.ask(&format!("OPTIONS {U}"), "")));
    let moved = rig.ask(&format!("DESCRIBE {U}?dialect=x&k=abc&dialect"), "Accept: application/sdp\r\n");
    assert_eq!((status(&moved), field(&moved, "Location")), (302, format!("{U}?k=abc&dialect=wm").as_str()));
}

#[test]
fn whoever_is_no_player_by_then_is_told_so() {
    // The source came between the two requests, or the client asks twice: the last answer counts.
    let mut rig = rig(true);
    assert!(is_plain(&rig.ask(&format!("OPTIONS {U}"), "")));
    rig.awaits = false;
    assert!(!is_plain(&rig.ask(&format!("OPTIONS {U}"), "")));
    assert_eq!(status(&rig.ask(&format!("DESCRIBE {U}"), "")), 200);
}
