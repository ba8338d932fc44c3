//! Windows Media Encoder as it pushes: sessions over connections that come and go.

use md5::{Digest as _, Md5};

use super::*;
use crate::asf::chunk::{ChunkHead, ChunkKind};
use crate::asf::{Header, samples};
use crate::settings::{Publish, PublishingPoint, Settings};

/// Two streams that no player takes for one; the first has 217 packets of 1400 bytes.
const ONE: &str = "live-asf-pipe.asf";
const OTHER: &str = "camera-mjpeg-pcmu.asf";
/// For bodies that end with their connection.
const FOR_EVER: usize = 2_147_483_647;
const FILLER: &[u8] = b"$F\x04\0\0\0\0\0";
const END: &[u8] = b"$E\x04\0\0\0\0\0";
const ENTRY_END: &[u8] = b"$E\x04\0\x01\0\0\0";
const FAILURE: &[u8] = b"$E\x04\0\x05\x40\0\x80";

fn frame(kind: ChunkKind, bytes: &[u8]) -> Vec<u8> {
    let head = ChunkHead { kind, more: false, len: u16::try_from(bytes.len()).unwrap() };
    [head.write().as_slice(), bytes].concat()
}

/// Header Object and the head of the Data Object.
fn header_of(name: &str) -> Vec<u8> {
    let (header, _): (Header, _) = samples::stream(name);
    samples::bytes(name)[..header.bytes().len() + 50].to_vec()
}

fn header() -> Vec<u8> {
    frame(ChunkKind::Header, &header_of(ONE))
}

/// Packets as encoders send them, without their padding.
fn packets(range: std::ops::Range<usize>) -> Vec<u8> {
    let packets = samples::stream(ONE).1;
    let mut frames = Vec::new();
    for packet in &packets[range] {
        let mut stripped = Vec::new();
        crate::asf::strip(packet, &mut stripped).unwrap();
        frames.extend(frame(ChunkKind::Data, &stripped));
    }
    frames
}

fn request(kind: &str, path: &str, fields: &str, length: usize) -> Vec<u8> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nContent-Type: application/x-wms-push{kind}\r\nX-Accept-Authentication: Negotiate, NTLM, Digest\r\n\
         User-Agent: WMEncoder/11.0.5721.5145\r\nHost: server\r\nContent-Length: {length}\r\nCache-Control: no-cache\r\n{fields}\r\n"
    );
    request.into_bytes()
}

fn setup(path: &str, fields: &str, body: &str) -> Vec<u8> {
    [request("setup", path, fields, body.len()), body.as_bytes().to_vec()].concat()
}

fn start(id: &str, length: usize) -> Vec<u8> {
    request("start", "/cam", &format!("Cookie: push-id={id}\r\n"), length)
}

fn whole(id: &str, body: &[u8]) -> Vec<u8> {
    [start(id, body.len()), body.to_vec()].concat()
}

/// Lets the other tasks go on until something is so, without time passing on a paused clock.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not come about");
}

/// Reads one response, which has no body.
async fn response(client: &mut TcpStream) -> String {
    timeout(Duration::from_secs(70), read_head(client)).await.expect("a response")
}

async fn read_head(client: &mut TcpStream) -> String {
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).await.unwrap(), 1, "closed behind {:?}", String::from_utf8_lossy(&response));
        response.push(byte[0]);
    }
    String::from_utf8(response).unwrap()
}

fn id_in(response: &str) -> String {
    response.split("Set-Cookie: push-id=").nth(1).unwrap().split("\r\n").next().unwrap().to_owned()
}

impl Bench {
    /// A connection with a session.
    async fn session(&self) -> (TcpStream, String) {
        let mut client = self.connect(&setup("/cam", "Cookie: push-id=0\r\n", "AutoDestroy: 1\r\n")).await;
        let response = response(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 204 No Content\r\nServer: Cougar/9.5"), "{response}");
        let id = id_in(&response);
        (client, id)
    }

    /// The status of a PushStart on a connection of its own.
    async fn status(&self, request: &[u8]) -> String {
        let mut client = self.connect(request).await;
        response(&mut client).await[9..12].to_owned()
    }

    async fn until_packets(&self, count: usize) {
        until(|| self.collector.packets().len() >= count).await;
    }

    async fn until_parked(&self) {
        until(|| self.encoders.leased() == 0).await;
    }

    /// All packets so far are these of the sample, each once and in order, whole again.
    fn assert_packets(&self, count: usize) {
        let got: Vec<_> = self.collector.packets().into_iter().map(|(.., bytes)| bytes).collect();
        assert_eq!(got.len(), count);
        assert_eq!(self.collector.numbers(), (0..count as u64).collect::<Vec<_>>());
        let sent = samples::stream(ONE).1;
        for (number, (got, sent)) in got.iter().zip(&sent).enumerate() {
            let streams = |packet: &[u8]| crate::asf::walk(packet).unwrap().streams;
            assert_eq!((got.len(), streams(got)), (sent.len(), streams(sent)), "{number}");
        }
    }
}

#[tokio::test]
async fn one_body_after_the_other_is_one_stream() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    let mut sent = 0;
    for turn in 0..10 {
        let mut body = if turn == 0 { header() } else { Vec::new() };
        body.extend(packets(sent..sent + 3));
        body.extend_from_slice(FILLER);
        sent += 3;
        client.write_all(&whole(&id, &body)).await.unwrap();
        let response = response(&mut client).await;
        assert!(response.starts_with("HTTP/1.1 204 ") && id_in(&response) == id, "{response}");
    }
    bench.assert_packets(30);
    assert_eq!((bench.collector.generations(), bench.collector.losses(), bench.collector.ends()), (1, 0, 0));
    client.write_all(&whole(&id, END)).await.unwrap();
    assert!(response(&mut client).await.starts_with("HTTP/1.1 204 "));
    assert_eq!((bench.collector.ends(), bench.collector.losses()), (1, 1), "viewers hear of it at once");
    assert!(bench.relay.point("cam").is_some(), "AutoDestroy is for publishing points that were made for the push");
    assert_eq!(bench.status(&start(&id, 100)).await, "404");
}

#[tokio::test]
async fn a_dropped_connection_loses_no_packet() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    let all = packets(0..12);
    let frame_ends: Vec<usize> = (0..=12).map(|count| packets(0..count).len()).collect();
    client.write_all(&[start(&id, FOR_EVER), header(), all[..frame_ends[4] + 700].to_vec()].concat()).await.unwrap();
    bench.until_packets(4).await;
    drop(client);
    bench.until_parked().await;
    assert!(bench.relay.publish(now(), "cam", PublisherId::User("eve".into())).is_err(), "the session has the name");
    // Again on a new connection, from the packet that was cut; then a third, by a PushSetup and with the header.
    let mut client = bench.connect(&[start(&id, FOR_EVER), all[frame_ends[4]..frame_ends[8]].to_vec()].concat()).await;
    bench.until_packets(8).await;
    client.shutdown().await.unwrap();
    bench.until_parked().await;
    let mut client = bench.connect(&setup("/publish/cam", &format!("Cookie: push-id={id}; push-id=0\r\n"), "")).await;
    assert_eq!(id_in(&response(&mut client).await), id);
    client.write_all(&whole(&id, &[header(), all[frame_ends[8]..].to_vec()].concat())).await.unwrap();
    assert!(response(&mut client).await.starts_with("HTTP/1.1 204 "));
    bench.assert_packets(12);
    assert_eq!((bench.collector.generations(), bench.collector.losses()), (1, 0), "viewers notice nothing");
}

#[tokio::test(start_paused = true)]
async fn without_packets_a_session_ends_after_a_minute() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    client.write_all(&[start(&id, FOR_EVER), header(), packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    let begin = Instant::now();
    // Filler is no sign of life.
    for _ in 0..5 {
        sleep(Duration::from_secs(11)).await;
        client.write_all(FILLER).await.unwrap();
    }
    let refused = response(&mut client).await;
    assert!(refused.starts_with("HTTP/1.1 408 ") && refused.contains("Server: Cougar/9"), "{refused}");
    assert_eq!((begin.elapsed().as_secs(), bench.collector.losses()), (60, 1));
    assert_eq!(bench.status(&start(&id, 100)).await, "404");
}

#[tokio::test(start_paused = true)]
async fn timers_run_without_a_connection() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    client.write_all(&[start(&id, FOR_EVER), header(), packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    drop(client);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(bench.collector.losses(), 0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.collector.losses(), bench.encoders.count()), (1, 0), "idle");

    let (mut client, id) = bench.session().await;
    client.write_all(&whole(&id, &header())).await.unwrap();
    response(&mut client).await;
    drop(client);
    sleep(Duration::from_secs(119)).await;
    assert_eq!((bench.collector.losses(), bench.encoders.count()), (1, 1));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.collector.losses(), bench.encoders.count()), (2, 0), "inactive");
}

#[tokio::test]
async fn only_the_right_cookie_opens_a_session() {
    let bench = Bench::new();
    let (_client, id) = bench.session().await;
    for (request, status) in [
        (start("0", 100), "400"),
        (request("start", "/cam", "", 100), "400"),
        (start("1", 100), "404"),
        (start(&format!("{id}0"), 100), "404"),
        (request("start", "/demo", &format!("Cookie: push-id={id}\r\n"), 100), "404"),
        (setup("/cam", "Cookie: push-id=12345\r\n", ""), "404"),
        (setup("/demo", "", ""), "403"),
        (setup("/nobody", "", ""), "404"),
        (setup("/cam", "Origin: http://evil.example\r\n", ""), "403"),
    ] {
        assert_eq!(bench.status(&request).await, status, "{}", String::from_utf8_lossy(&request));
    }
    // From elsewhere the id alone is not enough, and other credentials are not the encoder's.
    for (fields, status) in [("", "401"), ("Authorization: Basic Y2FtOnNlY3JldA==\r\n", "404")] {
        let request = request("start", "/cam", &format!("Cookie: push-id={id}\r\n{fields}"), 100);
        let mut client = bench.connect_from(Some("192.0.2.1:5000"), &request).await;
        let response = response(&mut client).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_push_start_waits_for_silence() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    client.write_all(&[start(&id, FOR_EVER), header(), packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    let refused = bench.connect(&start(&id, FOR_EVER)).await;
    let refused = response(&mut { refused }).await;
    assert!(refused.starts_with("HTTP/1.1 409 ") && refused.contains("Retry-After: 2\r\n"), "{refused}");
    client.write_all(&packets(2..3)).await.unwrap();
    bench.until_packets(3).await;
    sleep(Duration::from_secs(3)).await;
    let mut second = bench.connect(&[start(&id, FOR_EVER), packets(3..6)].concat()).await;
    bench.until_packets(6).await;
    assert!(response(&mut client).await.starts_with("HTTP/1.1 409 "), "the old one hears of it");
    second.write_all(&packets(6..7)).await.unwrap();
    bench.until_packets(7).await;
    bench.assert_packets(7);
    assert_eq!(bench.collector.losses(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_of_the_same_encoder_takes_over() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    client.write_all(&[start(&id, FOR_EVER), header(), packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    assert_eq!(bench.status(&setup("/cam", "", "")).await, "409");
    sleep(Duration::from_secs(3)).await;
    let (_second, other) = bench.session().await;
    assert_ne!(id, other);
    assert!(response(&mut client).await.starts_with("HTTP/1.1 409 "));
    assert_eq!((bench.encoders.count(), bench.status(&start(&id, 100)).await.as_str()), (1, "404"));
}

/// Each time another publisher had the name in between.
#[tokio::test(start_paused = true)]
async fn a_session_begun_anew_is_watched_once() {
    let bench = creating();
    let mut client = bench.connect(&setup("/new", "", "")).await;
    let id = id_in(&response(&mut client).await);
    let put = format!("PUT /publish/new HTTP/1.1\r\nHost: h\r\nContent-Length: {FOR_EVER}\r\n\r\n");
    for round in 1..4 {
        // Who is silent for so long may be superseded by the same user.
        sleep(Duration::from_secs(3)).await;
        let plain = bench.connect(&[put.as_bytes(), &header(), &packets(0..2)].concat()).await;
        bench.until_packets(2 * round).await;
        sleep(Duration::from_secs(3)).await;
        let again = bench.status(&setup("/new", &format!("Cookie: push-id={id}\r\n"), "")).await;
        assert_eq!((again.as_str(), bench.encoders.count()), ("204", 1), "round {round}");
        drop(plain);
    }
    drop(client);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(Arc::weak_count(&bench.encoders), 1);
}

/// The same credentials by another way: the session is over, and what took its place is not disturbed.
#[tokio::test(start_paused = true)]
async fn a_plain_publisher_takes_over() {
    let bench = creating();
    let mut client = bench.connect(&setup("/new", "", "AutoDestroy: 1\r\n")).await;
    let id = id_in(&response(&mut client).await);
    let start = request("start", "/new", &format!("Cookie: push-id={id}\r\n"), FOR_EVER);
    client.write_all(&[&start[..], &header(), &packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    drop(client);
    sleep(Duration::from_secs(3)).await;
    let put = format!("PUT /publish/new HTTP/1.1\r\nHost: h\r\nContent-Length: {FOR_EVER}\r\n\r\n");
    let mut plain = bench.connect(&[put.as_bytes(), &header(), &packets(2..4)].concat()).await;
    bench.until_packets(4).await;
    assert_eq!((bench.status(&start).await.as_str(), bench.encoders.count()), ("409", 0));
    plain.write_all(&packets(4..5)).await.unwrap();
    bench.until_packets(5).await;
    assert!(bench.relay.point("new").is_some(), "it does not go with a session that has it no more");
    assert_eq!((bench.collector.generations(), bench.collector.losses(), bench.collector.ends()), (1, 0, 0));
}

/// `Authorization` for a challenge in a response.
fn digest(response: &str, uri: &str, count: u32) -> String {
    let hex = |text: &str| Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let nonce = response.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let (ha1, ha2) = (hex("cam:studio:secret"), hex(&format!("POST:{uri}")));
    let proof = hex(&format!("{ha1}:{nonce}:{count:08x}:c0:auth:{ha2}"));
    format!(
        "Authorization: Digest username=\"cam\", realm=\"studio\", nonce=\"{nonce}\", uri=\"{uri}\", algorithm=MD5, qop=auth, \
         nc={count:08x}, cnonce=\"c0\", response=\"{proof}\"\r\n"
    )
}

#[tokio::test]
async fn a_challenge_ties_connections_together() {
    let bench = Bench::new();
    let from = Some("192.0.2.1:5000");
    for on_new_connection in [false, true] {
        let mut client = bench.connect_from(from, &setup("/cam", "Cookie: push-id=0\r\n", "AutoDestroy: 1\r\n")).await;
        let challenge = response(&mut client).await;
        assert!(challenge.starts_with("HTTP/1.1 401 Unauthorized\r\nServer: Cougar/9"), "{challenge}");
        assert!(
            challenge.contains("WWW-Authenticate: Digest ") && !challenge.contains("Basic"),
            "as the encoder asks: {challenge}"
        );
        let id = id_in(&challenge);
        let answer = |count| {
            let fields = format!("{}Cookie: push-id={id}\r\n", digest(&challenge, "/cam", count));
            setup("/cam", &fields, "AutoDestroy: 1\r\n")
        };
        if on_new_connection {
            assert_eq!(bench.status(&answer(1)).await, "404", "not of somebody else");
            client = bench.connect_from(from, &answer(2)).await;
        } else {
            client.write_all(&answer(1)).await.unwrap();
        }
        let accepted = response(&mut client).await;
        assert!(accepted.starts_with("HTTP/1.1 204 ") && id_in(&accepted) == id, "{accepted}");
        // Without credentials: the id is the right to it.
        client.write_all(&whole(&id, &[header(), packets(0..1), FAILURE.to_vec()].concat())).await.unwrap();
        assert!(response(&mut client).await.starts_with("HTTP/1.1 204 "));
    }
    assert_eq!((bench.collector.packets().len(), bench.collector.losses(), bench.collector.ends()), (2, 2, 0));
}

#[tokio::test]
async fn faults_end_the_session() {
    let good = header_of(ONE);
    let three = [header(), packets(0..3)].concat();
    let straddles = three.len() - 1;
    for (body, length, packets) in [
        (three[..straddles].to_vec(), straddles, 2),
        (packets(0..2), FOR_EVER, 0),
        (FILLER.to_vec(), FOR_EVER, 0),
        ([header(), b"$D\xFF\xFF".to_vec()].concat(), FOR_EVER, 0),
        ([header(), packets(0..1), header()].concat(), FOR_EVER, 1),
        (frame(ChunkKind::Header, &[&good[..24], &[0xFF; 6], &good[30..]].concat()), FOR_EVER, 0),
        (b"GIF89a".to_vec(), FOR_EVER, 0),
    ] {
        let bench = Bench::new();
        let (mut client, id) = bench.session().await;
        client.write_all(&[start(&id, length), body].concat()).await.unwrap();
        let refused = response(&mut client).await;
        assert!(refused.starts_with("HTTP/1.1 400 ") && refused.contains("Connection: close\r\n"), "{refused}");
        assert_eq!((bench.encoders.count(), bench.collector.packets().len()), (0, packets));
        assert_eq!(bench.status(&start(&id, 100)).await, "404");
    }
}

#[tokio::test(start_paused = true)]
async fn another_header_is_another_generation() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    let change = |name| frame(ChunkKind::Change, &[&[0; 4], &header_of(name)[..]].concat());
    let body = [header(), packets(0..2), ENTRY_END.to_vec(), change(ONE), packets(2..3)].concat();
    client.write_all(&whole(&id, &body)).await.unwrap();
    response(&mut client).await;
    assert_eq!((bench.collector.generations(), bench.collector.packets().len()), (1, 3), "the same header is no change");
    let other = frame(ChunkKind::Data, &samples::stream(OTHER).1[0]);
    client.write_all(&whole(&id, &[ENTRY_END.to_vec(), FILLER.to_vec(), change(OTHER), other].concat())).await.unwrap();
    response(&mut client).await;
    assert_eq!((bench.collector.generations(), bench.collector.numbers()), (2, vec![0, 1, 2, 3]), "numbers run on");
    assert_eq!(bench.collector.losses(), 0);
}

/// What an encoder would send in a session, without one: a plain publisher.
#[tokio::test]
async fn frames_without_a_push_setup() {
    let bench = Bench::new();
    let response = bench.exchange(&put("Connection: close\r\n", &[header(), packets(0..5), END.to_vec()].concat())).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    bench.assert_packets(5);
}

#[tokio::test]
async fn a_stop_is_told_to_encoders() {
    let bench = Bench::new();
    let (mut client, id) = bench.session().await;
    client.write_all(&[start(&id, FOR_EVER), header(), packets(0..2)].concat()).await.unwrap();
    bench.until_packets(2).await;
    let Bench { stopper, stop, .. } = bench;
    drop(stop);
    let (told, ()) = tokio::join!(response(&mut client), stopper.stop());
    assert!(told.starts_with("HTTP/1.1 503 Service Unavailable\r\nServer: Cougar/9"), "{told}");
}

fn creating() -> Bench {
    let push = |name: &str, seconds| PublishingPoint::push(name.into(), Some(Duration::from_secs(seconds)));
    // The collector keeps what the relay tells, and with it the places of those that went.
    let publish = Publish { create: true, create_limit: 4 };
    let settings = Settings { publishing_points: vec![push("cam", 7)], publish, ..Settings::default() };
    Bench::over(testing::with_settings(&settings))
}

#[tokio::test(start_paused = true)]
async fn publishing_points_are_made_and_go() {
    let bench = creating();
    let body = "Template-URL: \"/cam\"\r\nAutoDestroy: 1\r\n";
    let mut client = bench.connect(&setup("/new/one", "", body)).await;
    let id = id_in(&response(&mut client).await);
    let made = bench.relay.point("new/one").unwrap();
    assert_eq!(made.settings().source_timeout, Some(Duration::from_secs(7)), "as the template");
    drop(made);
    let frames = [header(), packets(0..2), END.to_vec()].concat();
    let mut start = request("start", "/new/one", &format!("Cookie: push-id={id}\r\n"), frames.len());
    start.extend(frames);
    client.write_all(&start).await.unwrap();
    assert!(response(&mut client).await.starts_with("HTTP/1.1 204 "));
    assert!(bench.relay.point("new/one").is_none() && bench.collector.ends() == 1);

    // Idle for too long ends it as well; without AutoDestroy it stays.
    for (auto_destroy, stays) in [("AutoDestroy: 1\r\n", false), ("", true)] {
        assert_eq!(bench.status(&setup("/two", "", auto_destroy)).await, "204");
        sleep(Duration::from_secs(122)).await;
        assert_eq!((bench.encoders.count(), bench.relay.point("two").is_some()), (0, stays));
    }
    for (request, status) in [
        (setup("/x", "", "Template-URL: \"/nobody\"\r\n"), "404"),
        (setup("/x.asx", "", ""), "400"),
        (setup("/publish/publish", "", ""), "400"),
        (setup("/a%3Fb", "", ""), "400"),
        (setup("/x", "Origin: o\r\n", ""), "403"),
    ] {
        assert_eq!(bench.status(&request).await, status, "{}", String::from_utf8_lossy(&request));
    }
    // A plain publisher makes them too, as many as there may be.
    let put = |name: &str| {
        let put = String::from_utf8_lossy(&put("Connection: close\r\n", b"")).replace("/cam", &format!("/{name}"));
        [put.replace("Content-Length: 0", "Content-Length: 5000").as_bytes(), &asf(1)].concat()
    };
    let plain = bench.connect(&put("three")).await;
    until(|| bench.relay.point("three").is_some()).await;
    assert_eq!(bench.status(&put("four")).await, "503");
    drop(plain);
}
