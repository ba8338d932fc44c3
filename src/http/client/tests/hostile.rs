//! Servers that lie, break off, or never stop.

use super::*;
use crate::http::wrap::chunk;
use proptest::prelude::*;

fn after(response: &[u8]) -> (Vec<String>, Option<ClientEnd>) {
    let mut rig = Rig::new(|_| {});
    rig.drain();
    (rig.hear(response), rig.ended)
}

/// What a protocol error says.
#[track_caller]
fn fault(response: &[u8]) -> String {
    match after(response) {
        (_, Some(ClientEnd::Protocol(why))) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_that_are_none() {
    assert!(fault(b"SSH-2.0-OpenSSH\r\n").contains("HTTP"));
    assert!(fault(&[b"HTTP/1.0 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(10_000)].concat()).contains("32 KiB"));
    assert!(fault(&[b"HTTP/1.0 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat()).contains("32 KiB"));
    assert!(fault(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n").contains("Content-Length"));
    assert!(fault(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n").contains("Transfer-Encoding"));
    assert!(fault(&[ok("Transfer-Encoding: chunked\r\n"), b"zz\r\n".to_vec()].concat()).contains("chunk"));
    assert!(fault(&ok("Content-Length: 0\r\n")).contains("empty"));
    let page = [ok(""), b"<html><head><title>Welcome to this server".to_vec()].concat();
    assert!(fault(&page).contains("it begins with \"<html><head>"));
    assert!(fault(&[ok(""), vec![0xFF; 100]].concat()).contains("neither ASF nor a metafile"));
    let endless = [ok(""), b"<asx>".to_vec(), b"<!-- nothing -->".repeat(10_000)].concat();
    assert!(fault(&endless).contains("names no place"));
    for status in ["404 Not Found", "503 Later", "500", "304 Not Modified"] {
        let (_, end) = after(format!("HTTP/1.0 {status}\r\n\r\n").as_bytes());
        let Some(ClientEnd::Status { code, reason, .. }) = end else { panic!("{status}") };
        assert!(status.starts_with(&code.to_string()) && status.ends_with(&reason));
    }
    for place in ["/a\u{1}b".to_owned(), format!("/{}", "x".repeat(5000))] {
        let (_, end) = after(format!("HTTP/1.0 302 x\r\nLocation: {place}\r\n\r\n").as_bytes());
        assert!(matches!(end, Some(ClientEnd::Protocol(_))), "{end:?}");
    }
}

#[test]
fn frames_that_are_none() {
    let body = |frames: &[u8]| [&ok("")[..], frames].concat();
    let header = asf(100, LIVE);
    assert!(fault(&body(&bare(b'P', &[0; 504]))).contains("$P"));
    assert!(fault(&body(&bare(b'H', &[0; 7]))).contains("$H"));
    assert!(fault(&body(&[bare(b'H', &[&[0; 8], &[7; 40][..]].concat())].concat())).contains("ASF"));
    // A header that says it is as long as a film.
    let mut long = header.clone();
    long[16..24].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(fault(&body(&head(&long))).contains("header"));
    let mut broken = header.clone();
    broken[46..54].fill(0xFF);
    fault(&body(&head(&broken)));
    let mut rig = Rig::playing(&header, |_| {});
    assert_eq!(rig.hear(b"$Xab").len(), 1);
    assert!(matches!(rig.ended, Some(ClientEnd::Protocol(_))));
    let mut rig = Rig::playing(&header, |_| {});
    rig.hear(&bare(b'D', &[0; 7]));
    assert!(matches!(rig.ended, Some(ClientEnd::Protocol(_))));
    // The end before anything.
    let (_, ended) = after(&body(&end(0xC00D_001A)));
    assert_eq!(ended.unwrap().to_string(), "playing refused: 0xC00D001A (no such publishing point)");
    // A new header with every packet costs no memory.
    let mut rig = Rig::playing(&header, |_| {});
    for n in 0..1000 {
        rig.hear(&[data(n, &packet(100, 1)), bare(b'C', &[0; 4]), head(&header)].concat());
    }
    assert_eq!((rig.packets.len(), rig.ended.clone()), (1000, None));
}

/// A whole conversation in one body, cut at every length and split at every byte.
#[test]
fn cut_and_split_anywhere() {
    let header = asf(100, LIVE);
    let frames = [
        head(&header),
        data(1, &packet(60, 1)),
        bare(b'M', &[0; 20]),
        end(1),
        bare(b'C', &[0; 4]),
        head(&asf(120, LIVE)),
        data(2, &packet(120, 2)),
        end(0),
    ];
    let plain = [ok(""), frames.concat()].concat();
    let chunked =
        [ok("Transfer-Encoding: chunked\r\n"), frames.iter().flat_map(|frame| chunk(frame)).collect(), b"0\r\n\r\n".to_vec()]
            .concat();
    let file = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", asf(100, FILE).len() + 700).into_bytes(),
        asf(100, FILE),
        packet(100, 3).repeat(7),
    ]
    .concat();
    for (response, describes) in [(&plain, false), (&chunked, false), (&file, true)] {
        let rig = || {
            let mut rig = if describes { Rig::new(|_| {}) } else { Rig::described(&header, |_| {}) };
            rig.drain();
            rig
        };
        let mut whole = rig();
        let expected = whole.hear(response);
        assert!(expected.iter().any(|event| event == "end 0"), "{expected:?}");
        for cut in 0..response.len() {
            let mut split = rig();
            let log = split.hear_one([&response[..cut], &response[cut..]]);
            assert_eq!(log, expected, "split at {cut}");
            let mut short = rig();
            short.hear(&response[..cut]);
            short.handle(ClientInput::Closed);
            assert!(whole.packets.starts_with(&short.packets) && whole.headers.starts_with(&short.headers), "cut at {cut}");
            // Either that was an end in words, or all that matters had come.
            assert!(short.ended.is_some() || short.last_request().starts_with("POST"), "cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in prop_oneof![Just(b'H'), Just(b'D'), Just(b'C'), Just(b'E'), Just(b'M'), any::<u8>()],
        playing in any::<bool>(), place in 0..5, split in 0..400_usize,
    ) {
        let mut rig = if playing { Rig::playing(&asf(100, LIVE), |_| {}) } else { Rig::new(login) };
        rig.drain();
        let bytes = match place {
            0 => bytes,
            1 => bare(kind, &bytes),
            2 => [ok(""), bare(kind, &bytes)].concat(),
            3 => [ok(""), asf(100, FILE), bytes].concat(),
            _ => [b"HTTP/1.0 401 x\r\nWWW-Authenticate: Digest ", &bytes[..], b"\r\n\r\n"].concat(),
        };
        let (first, second) = bytes.split_at(split.min(bytes.len()));
        rig.hear(first);
        rig.hear(second);
        rig.handle(ClientInput::Closed);
        rig.wait(100_000);
        rig.handle(ClientInput::Stop);
    }
}
