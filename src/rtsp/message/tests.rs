//! The reader: whole, cut, split, folded, doubled, too long.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// In the form of what GStreamer 1.22 makes of our end-of-stream: headers of its own before and behind ours, a NUL behind the body.
const ECHO: &[u8] = b"SET_PARAMETER rtsp://h/a RTSP/1.0\r\nCSeq: 7\r\nUser-Agent: GStreamer/1.22.0\r\n\
Content-Type: application/x-wms-extension-cmd\r\nX-Notice: 2101 \"End-of-Stream Reached\"\r\n\
RTP-Info: url=rtsp://h/a/audio;seq=1\r\nRTP-Info: url=rtsp://h/a/video;seq=1\r\n\
Content-Length: 11\r\nCSeq: 2\r\nContent-Length: 12\r\n\r\nEOF: true\r\n\0";

/// A connection as it may be: strays, a bare LF, folding, a frame between requests, bodies, a response, `$` inside a head.
const SESSION: &[u8] = b"\r\n\0OPTIONS * RTSP/1.0\nCSeq: 0\n\n\
$\x01\x00\x05$\r\n\r\n\
DESCRIBE rtsp://h:554/a?k=$x RTSP/1.0\r\nCSeq: 1\r\nSupported: com.microsoft.wm.srvppair,\r\n\tcom.microsoft.wm.eosmsg\r\n \r\n\
$Odd: $\x20\r\nX-Empty:\r\n\r\n\r\n\
SET_PARAMETER rtsp://h/a RTSP/1.0\r\nCSeq: 2\r\nContent-Type: APPLICATION/x-wms-Logplaystats;charset=UTF-8\r\n\
Content-Length: 7\r\nContent-Length: 7\r\n\r\n<XML/>$\0\
$\x00\x00\x00RTSP/1.0 200 OK\r\nCSeq: 3\r\n\r\nRTSP/1.0 501 \r\nCSeq: 4\r\nContent-Length: 2\r\n\r\nno\
RECORD rtsp://h/a RTSP/1.0\r\nCSeq: 5\r\n\r\n";

fn drain(reader: &mut Reader, units: &mut Vec<Result<Unit, MessageError>>) {
    loop {
        match reader.next() {
            Ok(None) => return,
            Ok(Some(unit)) => units.push(Ok(unit)),
            Err(error) => units.push(Err(error)),
        }
    }
}

fn read_with(mut reader: Reader, pieces: &[&[u8]]) -> Vec<Result<Unit, MessageError>> {
    let mut units = Vec::new();
    for piece in pieces {
        reader.push(piece);
        drain(&mut reader, &mut units);
    }
    units
}

fn read(bytes: &[u8]) -> Vec<Result<Unit, MessageError>> {
    read_with(Reader::new(Bounds::PUBLISHER), &[bytes])
}

fn error(bytes: &[u8]) -> MessageError {
    match read(bytes).as_slice() {
        [Err(error)] => error.clone(),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn request(bytes: &[u8]) -> Request {
    match read(bytes).as_slice() {
        [Ok(Unit::Request(request))] => request.clone(),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn a_whole_session() {
    let units: Vec<Unit> = read(SESSION).into_iter().map(Result::unwrap).collect();
    let [
        Unit::Request(options),
        Unit::Frame { channel: 1, payload },
        Unit::Request(describe),
        Unit::Request(log),
        Unit::Frame { channel: 0, payload: empty },
        Unit::Response(ok),
        Unit::Response(no),
        Unit::Request(record),
    ] = units.as_slice()
    else {
        panic!("{units:?}")
    };
    assert_eq!((&options.method, options.target.as_str()), (&Method::Options, "*"));
    assert_eq!((&payload[..], empty.len()), (&b"$\r\n\r\n"[..], 0));
    assert_eq!((&describe.method, describe.target.as_str()), (&Method::Describe, "rtsp://h:554/a?k=$x"));
    let headers: Vec<_> = describe.headers.iter().collect();
    assert_eq!(
        headers,
        [("CSeq", "1"), ("Supported", "com.microsoft.wm.srvppair, com.microsoft.wm.eosmsg"), ("$Odd", "$"), ("X-Empty", "")]
    );
    assert_eq!((&log.method, &log.body[..]), (&Method::SetParameter, &b"<XML/>$"[..]));
    assert_eq!((ok.status, ok.reason.as_str(), ok.body.len()), (200, "OK", 0));
    assert_eq!((no.status, no.reason.as_str(), no.body.clone()), (501, "", Bytes::from_static(b"no")));
    assert_eq!((&record.method, record.headers.number("cseq")), (&Method::Record, Some(5u32)));
}

#[test]
fn split_at_every_byte_and_cut_at_every_length() {
    let whole = read(SESSION);
    let bytewise: Vec<&[u8]> = SESSION.chunks(1).collect();
    assert_eq!(read_with(Reader::new(Bounds::PUBLISHER), &bytewise), whole);
    for cut in 0..SESSION.len() {
        let (front, back) = SESSION.split_at(cut);
        assert_eq!(read_with(Reader::new(Bounds::PUBLISHER), &[front, back]), whole, "{cut}");
        let before = read(front);
        assert!(before.len() < whole.len() && whole.starts_with(&before), "{cut}: a cut message is none");
    }
}

#[test]
fn frames_of_viewers_are_passed_over() {
    let requests: Vec<_> = read(SESSION).into_iter().filter(|unit| !matches!(unit, Ok(Unit::Frame { .. }))).collect();
    for size in [1, 3, SESSION.len()] {
        let mut reader = Reader::new(Bounds::VIEWER);
        let mut units = Vec::new();
        for piece in SESSION.chunks(size) {
            reader.push(piece);
            drain(&mut reader, &mut units);
        }
        assert_eq!((&units, reader.skipped()), (&requests, Skipped { frames: 2, bytes: 13 }), "{size}");
    }
    // A frame of full length is never held.
    let mut reader = Reader::new(Bounds::VIEWER);
    reader.push(&[b'$', 0, 0xFF, 0xFF]);
    for _ in 0..65_535 / 5 {
        assert_eq!((reader.next(), reader.held()), (Ok(None), 0));
        reader.push(b"OPTIO");
    }
    reader.push(b"OPTIONS * RTSP/1.0\r\n\r\n");
    assert!(matches!(reader.next(), Ok(Some(Unit::Request(_)))));
}

#[test]
fn frames_can_be_asked_for_later() {
    let mut reader = Reader::new(Bounds::VIEWER);
    reader.push(b"$\0\0\x02ab$\0\0\x02cd");
    assert_eq!(reader.next(), Ok(None));
    reader.set_frames(Frames::Give);
    reader.push(b"$\x02\0\x02ef");
    assert_eq!(reader.next(), Ok(Some(Unit::Frame { channel: 2, payload: Bytes::from_static(b"ef") })));
}

#[test]
fn the_echo_of_an_end_of_stream() {
    let refused = MessageError { status: 400, cseq: Some(7), text: "there are two Content-Length that differ", goes_on: false };
    assert_eq!(error(ECHO), refused);
    for size in [1, ECHO.len()] {
        let mut reader = Reader::new(Bounds::VIEWER);
        reader.expects_echo(true);
        let mut pieces: Vec<&[u8]> = ECHO.chunks(size).collect();
        pieces.push(b"\0OPTIONS * RTSP/1.0\r\n\r\n");
        let units = read_with(reader, &pieces);
        let [Ok(Unit::Request(echo)), Ok(Unit::Request(_))] = units.as_slice() else { panic!("{units:?}") };
        assert_eq!(echo.headers.all("CSeq").collect::<Vec<_>>(), ["7", "2"]);
        assert_eq!(&echo.body[..], b"EOF: true\r\n\0");
    }
    let mut reader = Reader::new(Bounds::VIEWER);
    reader.expects_echo(true);
    let other = b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12";
    assert_eq!(read_with(reader, &[other]).len(), 1);
    assert_eq!(error(other).status, 400, "no other request is an echo");
}

#[test]
fn lines_over_their_bounds() {
    let line = |url: usize| format!("PLAY {} RTSP/1.0", "x".repeat(url - 14));
    assert_eq!(line(4096).len(), 4096);
    assert_eq!(request(format!("{}\r\n\r\n", line(4096)).as_bytes()).target.len(), 4082);
    for long in [format!("{}\r\n\r\n", line(4097)), line(65_536), "P".repeat(4098)] {
        assert_eq!((error(long.as_bytes()).status, error(long.as_bytes()).goes_on), (414, false));
    }
    // Known before the line ends, whatever the pieces.
    let long = line(65_536);
    let pieces: Vec<&[u8]> = long.as_bytes().chunks(100).collect();
    let mut reader = Reader::new(Bounds::VIEWER);
    for (n, piece) in pieces.iter().enumerate() {
        reader.push(piece);
        match reader.next() {
            Ok(None) => assert!(n < 40 && reader.held() <= 4200 || n > 40 && reader.held() == 0, "{n}"),
            Err(error) => assert_eq!((n, error.status), (40, 414)),
            unit => panic!("{unit:?}"),
        }
    }
    let status = format!("RTSP/1.0 200 {}", "x".repeat(4096));
    assert_eq!(error(status.as_bytes()).status, 400);
}

#[test]
fn header_blocks_over_their_bounds() {
    let block = |bytes: usize| format!("PLAY a RTSP/1.0\r\nCSeq: 9\r\nX: {}\r\n\r\n", "x".repeat(bytes - 9 - 5 - 2));
    assert_eq!(request(block(16_384).as_bytes()).headers.iter().count(), 2);
    let over = format!("PLAY a RTSP/1.0\r\nCSeq: 9\r\nX: {}", "x".repeat(65_536));
    for over in [block(16_385), over] {
        assert_eq!((error(over.as_bytes()).status, error(over.as_bytes()).cseq), (400, Some(9)));
    }
    let folded = format!("PLAY a RTSP/1.0\r\nCSeq: 9\r\n{}", " x\r\n".repeat(5000));
    assert_eq!(error(folded.as_bytes()).status, 400);
    let many = |n: usize| format!("PLAY a RTSP/1.0\r\n{}\r\n", "X: y\r\n".repeat(n));
    assert_eq!(request(many(64).as_bytes()).headers.iter().count(), 64);
    assert_eq!(error(many(65).as_bytes()).status, 400);
}

#[test]
fn bodies_over_their_bounds() {
    for (method, media_type, bound) in [
        ("ANNOUNCE", "application/sdp", 65_536),
        ("ANNOUNCE", "", 65_536),
        ("SET_PARAMETER", "application/x-wms-Logconnectstats", 65_536),
        ("SET_PARAMETER", "application/x-wms-logplaystats; charset=UTF-8", 65_536),
        ("SET_PARAMETER", "Application/X-WMS-SendEvent", 65_536),
        ("SETUP", "application/x-wms-streamswitch", 8192),
        ("SET_PARAMETER", "application/x-wms-streamswitch", 8192),
        ("TEARDOWN", "application/x-wms-streamswitch", 8192),
        ("SET_PARAMETER", "application/x-rtsp-udp-packetpair", 128),
        ("GET_PARAMETER", "application/x-rtsp-packetpair", 128),
        ("GET_PARAMETER", "application/x-wms-getcontentinfo", 1),
        ("SET_PARAMETER", "application/x-wms-extension-cmd", 4096),
        ("DESCRIBE", "application/sdp", 4096),
        ("PLAY", "application/x-wms-Logplaystats", 4096),
        ("OPTIONS", "", 4096),
        ("X-GO", "", 4096),
    ] {
        let head = |bytes: u64| {
            format!("{method} rtsp://h/a RTSP/1.0\r\nCSeq: 8\r\nContent-Type: {media_type}\r\nContent-Length: {bytes}\r\n\r\n")
        };
        let body = request(&[head(bound).into_bytes(), vec![0; usize::try_from(bound).unwrap()]].concat()).body;
        assert_eq!(body.len() as u64, bound);
        for over in [bound + 1, u64::MAX] {
            let error = error(head(over).as_bytes());
            assert_eq!((error.status, error.cseq, error.goes_on), (413, Some(8), false), "{method} {media_type}");
        }
    }
    let sdp = b"RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(error(sdp).status, 413);
    assert_eq!(read_with(Reader::new(Bounds::CLIENT), &[sdp, &[b'v'; 100_000]]).len(), 1);
}

#[test]
fn lengths_that_are_none() {
    for value in ["", "+1", "-1", "1 1", "0x1", "1,1", "18446744073709551616", "1e3", "\u{661}"] {
        let head = format!("PLAY a RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {value}\r\n\r\n");
        assert_eq!((error(head.as_bytes()).status, error(head.as_bytes()).cseq), (400, Some(1)), "{value:?}");
    }
    assert_eq!(request(b"PLAY a RTSP/1.0\r\ncontent-length:  01 \r\n\r\nx").body.len(), 1);
}

#[test]
fn no_messages() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b" OPTIONS * RTSP/1.0\r\n",
        b"OPTIONS *\r\n",
        b"OPTIONS RTSP/1.0\r\n",
        b"OPTIONS  RTSP/1.0\r\n",
        b"OPTIONS * RTSP/1.0 x\r\n",
        b"OPTIONS * rtsp/1.0\r\n",
        b"OPTIONS * RTSP/1\r\n",
        b"OPT/IONS * RTSP/1.0\r\n",
        b"GET /a HTTP/1.1\r\n",
        b"PLAY a\0b RTSP/1.0\r\n",
        b"PLAY a\rb RTSP/1.0\r\n",
        b"PLAY a\tb RTSP/1.0\r\n",
        b"PLAY a\xFF RTSP/1.0\r\n",
        b"RTSP/1.0 20 OK\r\n",
        b"RTSP/1.0 1000 OK\r\n",
        b"RTSP/1.0 OK\r\n",
        b"RTSP/1.0\r\n",
        b"PLAY a RTSP/1.0\r\n folded: x\r\n",
        b"PLAY a RTSP/1.0\r\nno colon\r\n",
        b"PLAY a RTSP/1.0\r\nX : y\r\n",
        b"PLAY a RTSP/1.0\r\n: y\r\n",
        b"PLAY a RTSP/1.0\r\nX: a\0b\r\n",
        b"PLAY a RTSP/1.0\r\nX: a\rY: b\r\n",
        b"PLAY a RTSP/1.0\r\nX: a\x1bb\r\n",
    ] {
        let error = error(bytes);
        assert_eq!((error.status, error.goes_on), (400, false), "{bytes:?}: {error}");
    }
    let nul = error(b"PLAY a RTSP/1.0\r\nCSeq: 77\r\nX: a\0b\r\nOPTIONS * RTSP/1.0\r\n\r\n");
    assert_eq!(nul.cseq, Some(77));
}

#[test]
fn other_versions_are_passed_over() {
    let both = b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nxyzOPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n";
    let error = MessageError { status: 505, cseq: Some(1), text: "only RTSP/1.0 is spoken here", goes_on: true };
    for size in [1, both.len()] {
        let pieces: Vec<&[u8]> = both.chunks(size).collect();
        let units = read_with(Reader::new(Bounds::VIEWER), &pieces);
        let [Err(first), Ok(Unit::Request(second))] = units.as_slice() else { panic!("{units:?}") };
        assert_eq!((first, second.headers.get("cseq")), (&error, Some("2")));
    }
}

#[test]
fn raw_blanks_and_letters_in_urls_stay() {
    assert_eq!(request("PLAY rtsp://h/a b/ü RTSP/1.0\r\n\r\n".as_bytes()).target, "rtsp://h/a b/ü");
    assert_eq!(request(b"PLAY  rtsp://h/a  RTSP/1.0 \r\n\r\n").target, "rtsp://h/a");
    assert_eq!(request(b"PLAY a RTSP/1.0\r\nX: \xE9t\xE9\r\n\r\n").headers.get("X"), Some("\u{FFFD}t\u{FFFD}"));
}

#[test]
fn what_was_written_is_read() {
    let mut out = RequestWriter::new(&Method::GetParameter, "rtsp://h/a/");
    out.header("CSeq", 4).header("Session", "1");
    let mut bytes = out.finish().to_vec();
    interleaved(3, b"rtcp", &mut bytes);
    bytes.extend(ResponseWriter::new(454).body(b"body"));
    let units: Vec<Unit> = read(&bytes).into_iter().map(Result::unwrap).collect();
    let headers: Headers = [("CSeq", "4"), ("Session", "1")].into_iter().collect();
    let request = Request { method: Method::GetParameter, target: "rtsp://h/a/".to_owned(), headers, body: Bytes::new() };
    let headers: Headers = [("Content-Length", "4")].into_iter().collect();
    let response = Response { status: 454, reason: "Session Not Found".to_owned(), headers, body: Bytes::from_static(b"body") };
    let frame = Unit::Frame { channel: 3, payload: Bytes::from_static(b"rtcp") };
    assert_eq!(units, [Unit::Request(request), frame, Unit::Response(response)]);
}

/// Bytes that are more likely to get somewhere than random ones.
fn likely_bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"SET_PARAMETER rtsp://h/a RTSP/1.0\r\n".to_vec()),
        Just(b"RTSP/1.0 200 OK\n".to_vec()),
        Just(b"OPTIONS * RTSP/2.0\r\n".to_vec()),
        Just(b"CSeq: 1\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Content-Length: 6\r\n".to_vec()),
        Just(b" folded\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"$\0\0\x04".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes(bytes in likely_bytes(), size in 1usize..40, echo: bool, give: bool) {
        let bounds = if give { Bounds::PUBLISHER } else { Bounds::VIEWER };
        let new = || {
            let mut reader = Reader::new(bounds);
            reader.expects_echo(echo);
            reader
        };
        let whole = read_with(new(), &[&bytes]);
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(read_with(new(), &pieces), whole);
    }

    #[test]
    fn what_is_held_is_bounded(part in likely_bytes(), filler: u8) {
        let mut reader = Reader::new(Bounds::PUBLISHER);
        let mut units = Vec::new();
        let piece = vec![filler; 4096];
        reader.push(&part);
        drain(&mut reader, &mut units);
        for _ in 0..64 {
            reader.push(&piece);
            drain(&mut reader, &mut units);
            prop_assert!(reader.held() <= 65_535 + 4, "{} bytes", reader.held());
        }
    }
}
