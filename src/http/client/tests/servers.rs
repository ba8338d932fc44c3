//! Servers of all kinds, told line by line.

use super::*;
use crate::asf::{StreamSet, payloads};
use crate::http::wrap::{chunk, metadata_frames};
use crate::playing::StartAt;
use crate::text::{Credentials, Ha1};

/// The packet of the reference's vectors, its padding cut off: 47 bytes.
const STRIPPED: [u8; 47] = [
    0x82, 0x00, 0x00, 0x08, 0x5D, 0x00, 0xD2, 0x04, 0x00, 0x00, 0x2E, 0x00, 0x81, 0x07, 0x00, 0x00, 0x00, 0x00, 0x08, 0x14, 0x00,
    0x00, 0x00, 0xEE, 0x10, 0x00, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
];

#[test]
fn a_broadcast_of_version_9_to_its_end() {
    let header = asf(100, LIVE);
    let mut rig = Rig::new(|_| {});
    assert_eq!(rig.drain(), ["describe"]);
    assert!(rig.last_request().starts_with("GET /live?k=v HTTP/1.0\r\n"));
    let log = rig.hear(
        &[ok("Content-Type: application/vnd.ms.wms-hdr.asfv1\r\n"), metadata_frames(b"playlist-gen-id=1\0"), head(&header)]
            .concat(),
    );
    assert_eq!(log, ["opened live 0 s 0", "header", "disconnect", "starting", "connect", "play"]);
    let request = rig.last_request();
    for token in [
        "Pragma: client-id=77\r\n",
        "stream-time=0,stream-offset=4294967295:4294967295,packet-num=4294967295",
        "LinkBW=2147483647",
        "stream-switch-count=2\r\nPragma: stream-switch-entry=ffff:1:0 ffff:2:0\r\n",
        "Pragma: xClientGUID={07070707-0707-0707-0707-070707070707}",
    ] {
        assert!(request.contains(token), "{token}\n{request}");
    }
    for token in ["pipeline-experiment", "packet-pair", "version11", "Authorization"] {
        assert!(!request.contains(token), "{token}");
    }
    assert_eq!(rig.hear(&[ok(""), head(&header)].concat()), ["playing"]);
    // The B bit means nothing.
    let mut marked = data(5001, &packet(100, 2));
    marked[0] = 0xA4;
    assert_eq!(rig.hear(&[data(5000, &packet(100, 1)), marked].concat()), ["packet 5000", "packet 5001"]);
    assert_eq!(rig.wait(10_000).len(), 0);
    assert_eq!(rig.hear(&end(0)), ["end 0", "disconnect", "connect", "log"]);
    assert!(
        rig.last_request().contains("Content-Type: application/x-wms-LogStats") && rig.last_request().contains("client-id=77")
    );
    let summary = rig.last_request().split("<Summary>").nth(1).unwrap().split('<').next().unwrap();
    let fields: Vec<&str> = summary.split(' ').collect();
    assert_eq!((fields.len(), fields[4], fields[6], fields[28], fields[30]), (47, "http://h:8080/live", "10", "200", "2"));
    assert!(!summary.contains("k=v"), "no access key in a log");
    assert_eq!(rig.hear(b"HTTP/1.0 204 No Content\r\n\r\n"), ["disconnect", "close: the stream ended"]);
    assert_eq!((rig.client.stats().packets, rig.client.stats().bytes), (2, 200));
}

#[test]
fn vlc_has_no_length_and_begins_anywhere() {
    let vlc = "HTTP/1.0 200 OK\r\nContent-type: application/octet-stream\r\nServer: Cougar 4.1.0.3921\r\nPragma: no-cache\r\n\
               Pragma: client-id=30215\r\nPragma: features=\"broadcast\"\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n";
    // VLC's header does not say that it is live.
    let header = asf(400, FILE);
    let mut rig = Rig::new(|_| {});
    rig.drain();
    let log = rig.hear(&[vlc.as_bytes(), &head(&header)].concat());
    assert_eq!(log, ["opened live 0 s 0", "header", "disconnect", "starting", "connect", "play"]);
    assert!(rig.last_request().contains("client-id=30215") && !rig.last_request().contains("LinkBW"));
    let log = rig.hear(&[vlc.as_bytes(), &head(&header), &data(0x33, &packet(400, 1)), &data(0x34, &packet(400, 2))].concat());
    assert_eq!(log, ["playing", "packet 51", "packet 52"]);
    // Its end has a pre-header in place of the reason.
    let ended = [0x24, 0x45, 8, 0, 0x26, 0, 0, 0, 0, 0, 8, 0];
    assert_eq!(rig.hear(&ended), ["end 0", "disconnect", "connect", "log"]);
    let line = rig.last_request().split("log-line=").nth(1).unwrap().split("\r\n").next().unwrap();
    assert_eq!(line.split(' ').count(), 44);
    assert_eq!(rig.handle(ClientInput::Closed), ["close: the stream ended"]);
}

#[test]
fn a_header_in_pieces_and_one_that_ends_with_the_connection() {
    let header = asf(100, LIVE);
    let pieces: Vec<u8> = header
        .chunks(90)
        .enumerate()
        .flat_map(|(n, piece)| {
            let flags = u8::from(n == 0) * 4;
            let size = u16::try_from(piece.len() + 8).unwrap().to_le_bytes();
            bare(b'H', &[&u32::try_from(n).unwrap().to_le_bytes()[..], &[0, flags], &size, piece].concat())
        })
        .collect();
    let mut rig = Rig::new(|_| {});
    rig.drain();
    assert_eq!(rig.hear(&[ok(""), pieces].concat())[..2], ["opened live 0 s 0", "header"]);
    assert_eq!(rig.headers[0], header);
    // Not whole.
    let mut rig = Rig::new(|_| {});
    rig.drain();
    assert!(rig.hear(&[ok(""), bare(b'H', &[&[0; 8], &header[..90]].concat())].concat()).is_empty());
    let log = rig.handle(ClientInput::Closed);
    assert_eq!(log, ["close: the server broke the protocol: its description ends before the ASF header does"]);
}

#[test]
fn packets_without_padding_are_padded_again() {
    let mut rig = Rig::playing(&asf(100, LIVE), |_| {});
    let explicit = [&[0x82, 0, 0, 0x40, 0x5D, 0x30, 0], &STRIPPED[6..], &[0]].concat();
    let bare_payload = packet(60, 9);
    let frames =
        [data(1, &STRIPPED), data(2, &explicit), data(3, &bare_payload), data(4, &packet(101, 0)), data(5, &[])].concat();
    assert_eq!(rig.hear(&frames), ["packet 1", "packet 2", "packet 3"]);
    assert!(rig.packets.iter().all(|(_, packet)| packet.len() == 100));
    let payload = |at: usize| payloads(&rig.packets[at].1).unwrap().next().unwrap();
    let twenty: Vec<u8> = (1..=20).collect();
    assert_eq!((payload(0).data, payload(0).stream, payload(0).presentation_ms), (&twenty[..], 1, 4334));
    assert_eq!(payload(1).data, twenty);
    // What has no padding field of its own would have the padding for a part of its payload.
    assert_eq!(payload(2).data, vec![9; 60 - 18]);
    assert_eq!(rig.client.stats().stale, 2);
}

#[test]
fn another_stream_follows() {
    let (first, second) = (asf(100, LIVE), asf(120, LIVE));
    let change = |entry_ended: bool| {
        let ended = if entry_ended { end(1) } else { Vec::new() };
        [ended, bare(b'C', &[0; 4]), metadata_frames(b"playlist-gen-id=2\0"), head(&second)].concat()
    };
    for entry_ended in [true, false] {
        let mut rig = Rig::playing(&first, |_| {});
        rig.hear(&data(1, &packet(100, 1)));
        assert_eq!(rig.hear(&change(entry_ended)), ["new header"]);
        assert_eq!(rig.hear(&data(2, &packet(120, 2))), ["packet 2"]);
        assert_eq!((rig.headers[1].as_ref(), rig.packets[1].1.len()), (&second[..], 120));
        assert_eq!(rig.client.stats().stale, 0);
    }
    // Another one that does not come.
    let mut rig = Rig::playing(&first, |_| {});
    assert!(rig.hear(&end(1)).is_empty());
    assert_eq!(rig.wait(20_000), ["close: no answer to the end of a stream that goes on within 20 s"]);
    // A server that waits to be told which streams to send.
    let mut rig = Rig::described(&first, |_| {});
    let waits = String::from_utf8(ok("")).unwrap().replace(", com.microsoft.wm.predstrm", "");
    rig.hear(&[waits.as_bytes(), &head(&first), &data(1, &packet(100, 1)), &change(true)].concat());
    assert_eq!(rig.wait(1_999).len(), 0);
    assert_eq!(rig.wait(1), ["starting", "connect", "play"]);
}

#[test]
fn bodies_in_chunks_though_nobody_asked() {
    let header = asf(100, LIVE);
    let mut rig = Rig::described(&header, |_| {});
    let body = [chunk(&head(&header)), chunk(&data(1, &packet(100, 1))), chunk(&end(0)), b"0\r\n\r\n".to_vec()].concat();
    let response = [ok("Transfer-Encoding: chunked\r\n"), body].concat();
    // At every byte.
    let log = rig.hear_one(response.chunks(1));
    assert_eq!(log, ["playing", "packet 1", "end 0", "disconnect", "connect", "log"]);
}

#[test]
fn an_encoder_plays_at_once() {
    let header = asf(100, LIVE);
    let framed = "HTTP/1.0 200 OK\r\nServer: Rex/9.0.2980\r\nContent-Type: application/x-mms-framed\r\n\r\n";
    let mut rig = Rig::new(|_| {});
    rig.drain();
    let log = rig.hear(&[framed.as_bytes(), &head(&header), &data(9, &packet(100, 1))].concat());
    assert_eq!(log, ["opened live 0 s 0", "header", "starting", "playing", "packet 9"]);
    // One that only describes.
    let mut rig = Rig::new(|_| {});
    rig.drain();
    assert_eq!(rig.hear(&[framed.as_bytes(), &head(&header)].concat()).len(), 2);
    assert_eq!(rig.handle(ClientInput::Closed), ["starting", "connect", "play"]);
}

#[test]
fn a_file_sought_paused_and_thinned() {
    let header = asf(100, FILE);
    let features = String::from_utf8(ok("")).unwrap().replace("broadcast,playlist", "seekable");
    let mut rig = Rig::new(|config| config.start = StartAt::Time { s: 3.5 });
    rig.drain();
    let log = rig.hear(&[features.as_bytes(), &head(&header)].concat());
    assert_eq!(log[0], "opened file 7 s 7");
    let has = |rig: &Rig, token: &str| assert!(rig.last_request().contains(token), "{token}\n{}", rig.last_request());
    has(&rig, "stream-time=3500,");
    let response = [features.as_bytes(), &head(&header)].concat();
    rig.hear(&response);
    rig.hear(&data(3, &packet(100, 1)));
    assert_eq!(rig.handle(ClientInput::Seek(StartAt::Packet(5))), ["starting", "connect", "play"]);
    has(&rig, "stream-time=4294967295,stream-offset=4294967295:4294967295,packet-num=5,");
    // What is left of the answer before cannot come any more, the connection is another.
    assert_eq!(rig.hear(&[&response, &data(5, &packet(100, 1))[..]].concat()), ["playing", "packet 5"]);
    assert_eq!(rig.handle(ClientInput::Pause), ["disconnect"]);
    assert_eq!(rig.wait(59_499).len(), 0);
    assert_eq!(rig.wait(1), ["connect", "keep alive"]);
    has(&rig, "client-id=77");
    assert_eq!(rig.hear(&ok("Content-Length: 0\r\n")), ["disconnect"]);
    assert_eq!(rig.wait(59_500), ["connect", "keep alive"]);
    // Nobody answers, which is no reason to give up.
    assert_eq!(rig.wait(20_000), ["disconnect"]);
    assert_eq!(rig.handle(ClientInput::Resume), ["starting", "connect", "play"]);
    has(&rig, "packet-num=6,");
    rig.hear(&response);
    let sound: StreamSet = [1].into_iter().collect();
    assert_eq!(rig.handle(ClientInput::Select(sound)), ["starting", "connect", "play"]);
    has(&rig, "stream-switch-entry=ffff:1:0 ffff:2:2");
    rig.hear(&[&response, &data(6, &packet(100, 1))[..]].concat());
    assert_eq!(rig.handle(ClientInput::Stop), ["connect", "log"]);
    assert_eq!(rig.wait(2_000), ["close: stopped"]);
    // A stream that is not there.
    let rig = Rig::described(&header, |config| config.streams = Some([9].into_iter().collect()));
    assert_eq!(rig.ended.unwrap().to_string(), "the stream has no stream 9; it has 1, 2");
}

#[test]
fn plain_asf_is_played_as_it_is() {
    let fields = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/octet-stream\r\n";
    let body = [asf(100, FILE), (0..7).flat_map(|fill| packet(100, fill)).collect(), b"an index".to_vec()].concat();
    let whole = [format!("{fields}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let mut expected: Vec<String> = ["opened file 7 s 7", "header", "starting", "playing"].map(str::to_owned).to_vec();
    expected.extend((0..7).map(|n| format!("packet {n}")));
    expected.extend(["end 0", "disconnect", "close: the stream ended"].map(str::to_owned));
    let mut rig = Rig::new(|_| {});
    rig.drain();
    let log = rig.hear_one(whole.chunks(1));
    assert_eq!(log, expected);
    assert_eq!(rig.headers[0], asf(100, FILE), "with the Data Object's head as it came");
    assert!(rig.packets.iter().zip(0..).all(|((_, bytes), fill)| *bytes == packet(100, fill)[..]));
    // Cut off.
    let mut rig = Rig::new(|_| {});
    rig.drain();
    rig.hear(&whole[..whole.len() - 300]);
    assert_eq!(rig.handle(ClientInput::Closed), ["close: the server closed the connection"]);
    // Live: it ends when the connection does, and a pause is another request.
    let live = [format!("{fields}\r\n").as_bytes(), &asf(100, LIVE), &packet(100, 1)].concat();
    let mut rig = Rig::new(|_| {});
    rig.drain();
    assert_eq!(rig.hear(&live)[0], "opened live 0 s 0");
    assert_eq!(rig.handle(ClientInput::Pause), ["disconnect"]);
    assert_eq!(rig.wait(200_000).len(), 0, "no session to be kept");
    assert_eq!(rig.handle(ClientInput::Resume), ["connect", "describe"]);
    assert_eq!(rig.hear(&live), ["starting", "playing", "packet 0"]);
    assert_eq!(rig.handle(ClientInput::Closed), ["close: the server closed the connection"]);
}

/// What a download of a broadcast leaves behind: its header says live, its length says file.
#[test]
fn a_recorded_broadcast_is_a_file_and_begins_where_it_is_to() {
    let packets: Vec<u8> = (0..7u8).flat_map(|fill| timed_packet(u32::from(fill) * 1000, fill)).collect();
    let body = [asf(100, LIVE), packets].concat();
    let whole = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let header_len = u32::try_from(asf(100, LIVE).len()).unwrap();
    for (start, first) in [
        (StartAt::Beginning, 0),
        (StartAt::Packet(3), 3),
        (StartAt::Offset(header_len + 250), 2),
        (StartAt::Offset(header_len + 300), 3),
        (StartAt::Time { s: 4.5 }, 5),
    ] {
        let mut rig = Rig::new(|config| config.start = start);
        rig.drain();
        let log = rig.hear_one(whole.chunks(7));
        assert_eq!(log[0], "opened file 0 s 0");
        let places: Vec<u32> = rig.packets.iter().map(|(location, _)| *location).collect();
        assert_eq!(places, (first..7).collect::<Vec<u32>>(), "{start:?}");
        assert_eq!(log.last().unwrap(), "close: the stream ended", "{start:?}");
    }
}

/// A packet with this send time.
fn timed_packet(send_time_ms: u32, fill: u8) -> Vec<u8> {
    let mut packet = packet(100, fill);
    packet[5..9].copy_from_slice(&send_time_ms.to_le_bytes());
    packet
}

#[test]
fn headers_alone_are_no_media() {
    let mut rig = Rig::playing(&asf(100, LIVE), |config| config.media_time = Some(Duration::from_secs(10)));
    rig.hear(&data(1, &packet(100, 1)));
    for n in 0..9 {
        assert!(rig.wait(1000).is_empty());
        rig.hear(&[end(1), bare(b'C', &[0; 4]), head(&asf(100 + n, LIVE))].concat());
    }
    assert!(rig.wait(2000).iter().any(|event| event == "connect"), "it leaves");
    assert!(matches!(rig.client.step, crate::http::client::Step::Leaving(ClientEnd::NoMedia(_))), "{:?}", rig.client.step);
}

#[test]
fn what_lies_unread_is_not_late() {
    let mut rig = Rig::playing(&asf(100, LIVE), |_| {});
    rig.hear(&[data(1, &packet(100, 1)), end(1)].concat());
    rig.handle(ClientInput::Room(false));
    assert_eq!(rig.wait(60_000).len(), 0, "the header may be there and unread");
    rig.handle(ClientInput::Room(true));
    assert_eq!(rig.wait(19_000).len(), 0);
    assert_eq!(rig.wait(2_000).len(), 1, "now it is late");
}

#[test]
fn who_counts_and_stays_begins_again_at_the_end() {
    let header = asf(200, FILE);
    let counts = |config: &mut ClientConfig| (config.count_only, config.stays) = (true, true);
    let mut rig = Rig::playing(&header, counts);
    assert_eq!(
        rig.hear(&[data(5, &packet(200, 1)), data(6, &[1; 3]), end(0)].concat()),
        ["counted 5 7", "counted 6 ?", "end 0", "disconnect"]
    );
    assert_eq!((rig.client.stats().packets, rig.client.stats().bytes, rig.packets.len()), (2, 203, 0));
    assert_eq!(rig.handle(ClientInput::Seek(StartAt::Time { s: 2.0 })), ["starting", "connect", "play"]);
    assert!(rig.last_request().contains("stream-time=2000,"), "{}", rig.last_request());
    assert_eq!(rig.hear(&[ok(""), head(&header), data(9, &packet(200, 1))].concat()), ["playing", "counted 9 7"]);
    // A failure is no end to stay at.
    assert_eq!(rig.hear(&end(0x8000_4005)).last().unwrap(), "log");
    // Who rests for a pause begins when it is over.
    let mut rig = Rig::playing(&header, counts);
    assert_eq!(rig.handle(ClientInput::Pause), ["disconnect"]);
    assert!(rig.handle(ClientInput::Seek(StartAt::Beginning)).is_empty());
}

#[test]
fn other_places() {
    let gone = |response: &str| {
        let mut rig = Rig::new(|_| {});
        rig.drain();
        rig.hear(response.as_bytes());
        rig.handle(ClientInput::Closed);
        match rig.ended {
            Some(ClientEnd::Redirected(place)) => place,
            end => panic!("{response}: {end:?}"),
        }
    };
    for code in [301, 302, 303, 307, 308] {
        assert_eq!(gone(&format!("HTTP/1.0 {code} x\r\nLocation: mmsh://other/x?k=w\r\n\r\n")), "mmsh://other/x?k=w");
    }
    assert_eq!(gone("HTTP/1.0 302 x\r\nLocation: /there\r\n\r\n"), "http://h:8080/there");
    let asx = "HTTP/1.0 200 OK\r\nContent-Type: video/x-ms-asf\r\n\r\n<ASX VERSION=\"3.0\"><ENTRY><REF HREF=\"mms://o/x\"/></ENTRY></ASX>";
    assert_eq!(gone(asx), "mms://o/x");
    let list = "[Reference]\r\nRef1=http://o/x?MSWMExt=.asf\r\n";
    assert_eq!(gone(&format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len())), "http://o/x?MSWMExt=.asf");
}

#[test]
fn a_login_where_it_is_asked_for() {
    let challenge = |nonce: &str, more: &str| {
        format!(
            "HTTP/1.0 401 No\r\nWWW-Authenticate: Digest realm=\"studio\", nonce=\"{nonce}\", qop=\"auth\"{more}\r\n\
             WWW-Authenticate: Basic realm=\"studio\"\r\n\r\n"
        )
    };
    let proves = |rig: &Rig, nonce: &str, count: u32| {
        let field = rig.last_request().split("Authorization: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let Ok(Credentials::Digest(response)) = Credentials::parse(field) else { panic!("{field}") };
        assert!(response.proves(&Ha1::new("cam", "studio", "secret"), "GET") && response.uri == "/live?k=v");
        assert_eq!((response.nonce.as_str(), response.auth.unwrap().count), (nonce, count));
    };
    let mut rig = Rig::new(login);
    assert_eq!(rig.drain(), ["describe"], "without a login, as long as nobody asks");
    assert_eq!(rig.hear(challenge("a", "").as_bytes()), ["connect", "describe with login"]);
    proves(&rig, "a", 1);
    let log = rig.hear(&[ok(""), head(&asf(100, LIVE))].concat());
    assert_eq!(log.last().unwrap(), "play with login");
    proves(&rig, "a", 2);
    // By now it is too old; and once more, which may happen.
    assert_eq!(rig.hear(challenge("b", "").as_bytes()), ["connect", "play with login"]);
    proves(&rig, "b", 1);
    assert_eq!(rig.hear(challenge("c", ", stale=true").as_bytes()), ["connect", "play with login"]);
    assert_eq!(
        rig.hear(challenge("d", ", stale=true").as_bytes()),
        ["close: the server does not accept the user name and the password"]
    );
    // A wrong password is told once.
    let mut rig = Rig::new(login);
    rig.drain();
    rig.hear(challenge("a", "").as_bytes());
    assert_eq!(rig.hear(challenge("b", "").as_bytes()).len(), 1);
    assert_eq!(rig.ended, Some(ClientEnd::CredentialsRefused));
    let mut rig = Rig::new(|_| {});
    rig.drain();
    rig.hear(challenge("a", "").as_bytes());
    assert_eq!(rig.ended, Some(ClientEnd::CredentialsWanted));
    let mut rig = Rig::new(login);
    rig.drain();
    rig.hear(b"HTTP/1.0 401 No\r\nWWW-Authenticate: NTLM\r\n\r\n");
    assert_eq!(rig.ended, Some(ClientEnd::CredentialsRefused));
}

#[test]
fn servers_that_say_nothing() {
    let mut rig = Rig::new(|_| {});
    rig.drain();
    assert_eq!(rig.wait(20_000), ["close: no answer to the stream's description within 20 s"]);
    let mut rig = Rig::described(&asf(100, LIVE), |_| {});
    assert_eq!(rig.wait(20_000), ["close: no answer to playing within 20 s"]);
    let mut rig = Rig::playing(&asf(100, LIVE), |_| {});
    assert_eq!(rig.wait(29_999).len(), 0);
    rig.hear(&data(1, &packet(100, 1))[..5]);
    assert_eq!(rig.wait(29_999).len(), 0);
    assert_eq!(rig.wait(1), ["close: nothing heard of the server for 30 s"]);
    // Nothing is missed while nobody reads.
    let mut rig = Rig::playing(&asf(100, LIVE), |config| config.media_time = Some(Duration::from_secs(10)));
    rig.handle(ClientInput::Room(false));
    assert_eq!(rig.wait(60_000).len(), 0);
    rig.handle(ClientInput::Room(true));
    assert_eq!(rig.wait(9_999).len(), 0);
    assert_eq!(rig.wait(1), ["close: no media for 10 s, though the server still holds the connection"]);
    // A connection that does not come about.
    let mut rig = Rig::new(|_| {});
    rig.drain();
    rig.connects = false;
    rig.hear(&[ok(""), head(&asf(100, LIVE))].concat());
    assert_eq!(rig.handle(ClientInput::Closed), ["close: the server closed the connection"]);
}
