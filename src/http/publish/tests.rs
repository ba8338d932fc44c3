use super::*;
use proptest::prelude::*;

#[expect(clippy::disallowed_methods, reason = "one base instant; all others are computed from it")]
fn start() -> Instant {
    Instant::now()
}

/// What a driver saw.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    sent: String,
    asked: Vec<(String, Option<String>)>,
    bodies: Vec<u8>,
    ends: usize,
    half_closed: bool,
    closed: Option<CloseReason>,
}

/// Feeds pieces to a connection and answers each question by `decide`.
struct Driver<F> {
    connection: Connection,
    now: Instant,
    seen: Seen,
    decide: F,
}

impl<F: FnMut(Option<&PublishRequest>) -> Answer> Driver<F> {
    fn new(decide: F) -> Self {
        let now = start();
        Self { connection: Connection::new(now, Timeouts::default()), now, seen: Seen::default(), decide }
    }

    fn input(&mut self, input: Input<'_>) {
        self.connection.handle(self.now, input);
        while let Some(output) = self.connection.poll_output() {
            assert_eq!(self.seen.closed, None, "nothing follows Close");
            match output {
                Output::Send(bytes) => {
                    assert!(!self.seen.half_closed, "sent after the half-close");
                    self.seen.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                Output::Ask(request) => {
                    self.seen.asked.push((request.name.clone(), request.authorization.clone()));
                    let answer = (self.decide)(Some(&request));
                    self.connection.handle(self.now, Input::Answer(answer));
                }
                Output::Body(bytes) => self.seen.bodies.extend_from_slice(&bytes),
                Output::BodyEnd { .. } => {
                    self.seen.ends += 1;
                    let answer = (self.decide)(None);
                    self.connection.handle(self.now, Input::Answer(answer));
                }
                Output::HalfClose => self.seen.half_closed = true,
                Output::Close(reason) => self.seen.closed = Some(reason),
            }
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input(Input::Bytes(bytes));
    }

    fn after(&mut self, wait: Duration) {
        self.now += wait;
        self.input(Input::Timeout);
    }

    fn status_lines(&self) -> Vec<&str> {
        self.seen.sent.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).collect()
    }
}

fn accepting() -> Driver<impl FnMut(Option<&PublishRequest>) -> Answer> {
    Driver::new(|_| Answer::Accept)
}

fn refusing(status: Status) -> Driver<impl FnMut(Option<&PublishRequest>) -> Answer> {
    Driver::new(move |_| Answer::Refuse(Refusal::new(status, "no")))
}

const FFMPEG: &[u8] =
    b"POST /publish/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUser-Agent: Lavf/59.27.100\r\nAccept: */*\r\n\
Connection: close\r\nHost: 127.0.0.1:8080\r\nIcy-MetaData: 1\r\n\r\n4\r\n$H12\r\n6\r\n$D3456\r\n2\r\n$E\r\n0\r\n\r\n";

const GSTREAMER: &[u8] = b"PUT /publish/live HTTP/1.1\r\nHost: h:8080\r\nContent-Length: 6\r\nConnection: Keep-Alive\r\n\
User-Agent: GStreamer souphttpclientsink 1.22 libsoup/3.2\r\n\r\nheader\
PUT /publish/live HTTP/1.1\r\nHost: h:8080\r\nContent-Length: 3\r\nConnection: Keep-Alive\r\n\r\none\
PUT /publish/live HTTP/1.1\r\nHost: h:8080\r\nContent-Length: 3\r\nConnection: Keep-Alive\r\n\r\ntwo";

#[test]
fn ffmpeg_split_at_every_byte() {
    for cut in 0..=FFMPEG.len() {
        let mut driver = accepting();
        driver.feed(&FFMPEG[..cut]);
        driver.feed(&FFMPEG[cut..]);
        assert_eq!(driver.seen.asked, [("live".to_owned(), None)]);
        assert_eq!((driver.seen.bodies.as_slice(), driver.seen.ends), (b"$H12$D3456$E".as_slice(), 1));
        assert_eq!(driver.status_lines(), ["200 OK"]);
        assert!(driver.seen.sent.contains("Content-Length: 0\r\n") && driver.seen.sent.contains("Connection: close\r\n"));
        assert!(driver.seen.half_closed);
        driver.input(Input::End);
        assert_eq!(driver.seen.closed, Some(CloseReason::Done));
    }
}

#[test]
fn gstreamer_sends_one_stream_as_many_puts() {
    for cut in 0..=GSTREAMER.len() {
        let mut driver = accepting();
        driver.feed(&GSTREAMER[..cut]);
        driver.feed(&GSTREAMER[cut..]);
        assert_eq!(
            (driver.seen.bodies.as_slice(), driver.seen.ends, driver.seen.asked.len()),
            (b"headeronetwo".as_slice(), 3, 3)
        );
        assert_eq!(driver.status_lines(), ["200 OK"; 3]);
        assert!(!driver.seen.half_closed);
        driver.input(Input::End);
        assert_eq!(driver.seen.closed, Some(CloseReason::Idle));
    }
}

#[test]
fn ffmpeg_without_chunks_sends_until_the_end() {
    let mut driver = accepting();
    driver.feed(b"POST /publish/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n$H12");
    driver.feed(b"3456");
    assert_eq!(driver.seen.ends, 0);
    driver.input(Input::End);
    assert_eq!((driver.seen.bodies.as_slice(), driver.seen.ends), (b"$H123456".as_slice(), 1));
    assert_eq!(driver.status_lines(), ["200 OK"]);
    assert_eq!(driver.seen.closed, Some(CloseReason::Done));
}

#[test]
fn curl_waits_for_100_continue() {
    let mut driver = accepting();
    driver.feed(b"PUT /publish/live HTTP/1.1\r\nHost: h:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(driver.seen.sent, "HTTP/1.1 100 Continue\r\n\r\n");
    driver.feed(b"data");
    assert_eq!(driver.status_lines(), ["100 Continue", "200 OK"]);
    assert_eq!(driver.seen.bodies, b"data");
    // curl keeps the connection and closes it when it exits.
    driver.input(Input::End);
    assert_eq!(driver.seen.closed, Some(CloseReason::Idle));
}

#[test]
fn ffmpeg_with_credentials_hears_401_before_it_sends() {
    let mut driver = Driver::new(|_| Answer::Refuse(Refusal::unauthorized("Log in.", vec!["Digest realm=\"r\"".into()])));
    driver.feed(b"POST /publish/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\nUser-Agent: Lavf/59\r\nConnection: close\r\nHost: h\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(driver.status_lines(), ["401 Unauthorized"]);
    assert!(
        driver.seen.sent.contains("WWW-Authenticate: Digest realm=\"r\"\r\n") && driver.seen.sent.ends_with("\r\n\r\nLog in.\n")
    );
    assert!(driver.seen.half_closed && driver.seen.closed.is_none());
    driver.input(Input::End);
    assert_eq!(driver.seen.closed, Some(CloseReason::Refused(Status::Unauthorized)));
}

#[test]
fn a_probe_for_a_challenge_keeps_the_connection() {
    let mut asked = 0;
    let mut driver = Driver::new(|_| {
        asked += 1;
        if asked == 1 { Answer::Refuse(Refusal::unauthorized("Log in.", vec!["Digest x".into()])) } else { Answer::Accept }
    });
    driver.feed(b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nPUT /publish/a HTTP/1.1\r\nHost: h\r\nAuthorization: Digest y\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(driver.status_lines(), ["401 Unauthorized", "200 OK"]);
    assert_eq!(driver.seen.asked, [("a".to_owned(), None), ("a".to_owned(), Some("Digest y".to_owned()))]);
    assert_eq!((driver.seen.bodies.as_slice(), driver.seen.half_closed), (b"hi".as_slice(), false));
}

#[test]
fn a_refused_sender_is_drained_up_to_a_bound() {
    let mut driver = refusing(Status::Conflict);
    driver.feed(FFMPEG);
    assert_eq!((driver.status_lines(), driver.seen.half_closed, driver.seen.closed), (vec!["409 Conflict"], true, None));
    driver.feed(&vec![0; DRAIN_BYTES - FFMPEG.len()]);
    assert_eq!((driver.seen.bodies.len(), driver.seen.closed), (0, None));
    driver.feed(&[0; 1000]);
    assert_eq!(driver.seen.closed, Some(CloseReason::Refused(Status::Conflict)));

    let mut driver = refusing(Status::Conflict);
    driver.feed(FFMPEG);
    driver.after(DRAIN_TIME - Duration::from_millis(1));
    assert_eq!(driver.seen.closed, None);
    driver.after(Duration::from_millis(1));
    assert_eq!(driver.seen.closed, Some(CloseReason::Refused(Status::Conflict)));
    assert_eq!(driver.connection.poll_timeout(), None);
}

#[test]
fn a_stream_can_be_refused_on_its_way() {
    let mut driver = accepting();
    driver.feed(b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nnot ASF");
    driver.input(Input::Answer(Answer::Refuse(Refusal::new(Status::UnsupportedMediaType, "That is not ASF."))));
    driver.input(Input::Answer(Answer::Refuse(Refusal::new(Status::Conflict, "twice"))));
    assert_eq!(driver.status_lines(), ["415 Unsupported Media Type"]);
    assert!(driver.seen.half_closed);
    let mut driver = accepting();
    driver.input(Input::Answer(Answer::Refuse(Refusal::new(Status::ServiceUnavailable, "stopping"))));
    assert_eq!((driver.seen.sent.as_str(), driver.seen.closed), ("", Some(CloseReason::Idle)));
}

#[test]
fn deadlines() {
    let timeouts = Timeouts::default();
    let mut silent = accepting();
    silent.after(timeouts.head);
    assert_eq!((silent.seen.sent.as_str(), silent.seen.closed), ("", Some(CloseReason::Idle)));

    let mut slow = accepting();
    slow.feed(b"POST /publish/a HT");
    slow.after(timeouts.head - Duration::from_secs(1));
    slow.feed(b"TP/1.1\r\n");
    assert!(slow.seen.sent.is_empty());
    slow.after(Duration::from_secs(1));
    assert_eq!(slow.status_lines(), ["408 Request Timeout"]);

    let mut stalled = accepting();
    stalled.feed(b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234");
    stalled.after(timeouts.idle - Duration::from_secs(1));
    stalled.connection.resume(stalled.now);
    stalled.after(timeouts.idle - Duration::from_secs(1));
    stalled.feed(b"5");
    stalled.after(timeouts.idle - Duration::from_secs(1));
    assert!(stalled.seen.sent.is_empty());
    stalled.after(Duration::from_secs(1));
    assert_eq!(stalled.status_lines(), ["408 Request Timeout"]);

    let mut kept = accepting();
    kept.feed(b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1");
    kept.after(timeouts.idle - Duration::from_secs(1));
    kept.feed(b"PUT");
    kept.after(Duration::from_secs(2));
    assert_eq!((kept.status_lines(), kept.seen.closed), (vec!["200 OK"], None));
}

#[test]
fn a_sender_that_breaks_off() {
    for (bytes, reason) in [
        (&b""[..], CloseReason::Idle),
        (b"POST /pub", CloseReason::Broken),
        (b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234", CloseReason::Broken),
        (b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", CloseReason::Broken),
    ] {
        let mut driver = accepting();
        driver.feed(bytes);
        driver.input(Input::End);
        assert_eq!((driver.seen.closed, driver.seen.ends), (Some(reason), 0));
    }
}

#[test]
fn refusals_of_the_engine_itself() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "404 Not Found"),
        ("HEAD /publish/a HTTP/1.1\r\nHost: h\r\n\r\n", "405 Method Not Allowed"),
        ("PUT /publish/a HTTP/1.1\r\nHost: h\r\n\r\n", "411 Length Required"),
        ("PUT /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", "404 Not Found"),
        ("PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Bad Request"),
        ("PUT /publish/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: wonders\r\n\r\n", "417 Expectation Failed"),
        ("PUT /publish/a HTTP/1.1\r\nHost: h\nContent-Length: 1\r\n\r\n", "400 Bad Request"),
        ("PUT /publish/a HTTP/2.0\r\nHost: h\r\n\r\n", "505 HTTP Version Not Supported"),
    ] {
        let mut driver = accepting();
        driver.feed(request.as_bytes());
        assert_eq!(
            (driver.status_lines(), driver.seen.asked.len(), driver.seen.half_closed),
            (vec![status], 0, true),
            "{request}"
        );
        assert_eq!(request.starts_with("HEAD"), driver.seen.sent.ends_with("\r\n\r\n"), "only HEAD gets no text");
    }
    let mut driver = accepting();
    driver.feed(b"PUT /publish/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(driver.status_lines(), ["400 Bad Request"]);
}

#[test]
fn http_1_0_gets_no_interim_response() {
    let mut driver = accepting();
    driver.feed(b"POST /publish/a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(driver.seen.sent, "");
    driver.feed(b"x");
    assert_eq!((driver.status_lines(), driver.seen.half_closed), (vec!["200 OK"], true));
}

proptest! {
    #[test]
    fn any_bytes_any_cut(bytes in proptest::collection::vec(any::<u8>(), 0..120), valid in any::<bool>(), cut in 0usize..400) {
        let mut whole = if valid { GSTREAMER[..300].to_vec() } else { Vec::new() };
        whole.extend(bytes);
        let cut = cut.min(whole.len());
        let run = |pieces: &[&[u8]]| {
            let mut driver = accepting();
            pieces.iter().for_each(|piece| driver.feed(piece));
            driver.input(Input::End);
            driver.seen
        };
        prop_assert_eq!(run(&[&whole]), run(&[&whole[..cut], &whole[cut..]]));
    }
}

/// An encoder's requests on a connection, answered with a session of the id 7 or the status.
fn encoder(answer: impl Fn(&PublishRequest) -> Result<(), Refusal>) -> Driver<impl FnMut(Option<&PublishRequest>) -> Answer> {
    Driver::new(move |request| match request.map_or(Ok(()), &answer) {
        Ok(()) => {
            let mut bits = [0; 16];
            bits[0] = 7;
            Answer::Session { push_id: PushId::random(bits), date: SystemTime::UNIX_EPOCH }
        }
        Err(refusal) => Answer::Refuse(refusal),
    })
}

fn push(kind: &str, fields: &str, length: u64) -> String {
    format!(
        "POST /live HTTP/1.1\r\nContent-Type: application/x-wms-push{kind}\r\nX-Accept-Authentication: Negotiate, NTLM, Digest\r\n\
         User-Agent: WMEncoder/11.0.5721.5145\r\nHost: server\r\nContent-Length: {length}\r\nCache-Control: no-cache\r\n{fields}\r\n"
    )
}

#[test]
fn an_encoder_sets_up_and_sends_one_body_after_the_other() {
    let setup = push("setup", "Cookie: push-id=0\r\n", 16) + "AutoDestroy: 1\r\n";
    let start = |body: &str| push("start", "Cookie: push-id=7\r\n", body.len() as u64) + body;
    let dialogue = [setup.clone(), start("abc"), start("defg")].concat();
    let whole = {
        let mut driver = encoder(|_| Ok(()));
        driver.feed(dialogue.as_bytes());
        driver
    };
    assert_eq!(whole.seen.sent.matches("HTTP/1.1 204 No Content\r\nServer: Cougar/9.5").count(), 3, "{}", whole.seen.sent);
    assert_eq!(whole.seen.sent.matches("\r\nSet-Cookie: push-id=7\r\n").count(), 3);
    assert!(!whole.seen.sent.contains("Connection"), "it is kept");
    assert_eq!((whole.seen.bodies.as_slice(), whole.seen.ends, whole.seen.asked.len()), (&b"abcdefg"[..], 2, 3));
    for cut in 0..dialogue.len() {
        let mut driver = encoder(|_| Ok(()));
        driver.feed(&dialogue.as_bytes()[..cut]);
        driver.feed(&dialogue.as_bytes()[cut..]);
        assert_eq!(driver.seen, whole.seen, "{cut}");
    }
    let mut driver = encoder(|request| {
        let Some(Push::Setup(setup)) = &request.push else { panic!("{request:?}") };
        assert!(setup.auto_destroy && request.name == "live" && request.push_id.is_none());
        Ok(())
    });
    driver.feed(setup.as_bytes());
    assert_eq!(driver.seen.asked.len(), 1);
}

#[test]
fn an_encoder_is_challenged_on_its_connection() {
    let mut driver = encoder(|request| match request.authorization {
        Some(_) => Ok(()),
        None => {
            let refusal = Refusal::unauthorized("who are you?", vec!["Digest x".into()]);
            Err(Refusal { push_id: Some(PushId::random([1; 16])), ..refusal })
        }
    });
    driver.feed((push("setup", "Cookie: push-id=0\r\n", 16) + "AutoDestroy: 1\r\n").as_bytes());
    assert!(driver.seen.sent.contains("WWW-Authenticate: Digest x\r\nSet-Cookie: push-id="), "{}", driver.seen.sent);
    driver.feed((push("setup", "Authorization: Digest y\r\n", 0)).as_bytes());
    assert!(driver.seen.sent.contains("HTTP/1.1 204 ") && driver.seen.closed.is_none());
}

#[test]
fn the_longest_body_is_a_label() {
    let mut driver = encoder(|_| Ok(()));
    driver.feed(push("start", "Cookie: push-id=7\r\n", MAX_START_LENGTH).as_bytes());
    driver.feed(&[b'x'; 1000]);
    assert_eq!((driver.seen.bodies.len(), driver.seen.ends), (1000, 0));
    // Nobody but the session's own timers ends it.
    assert_eq!(driver.connection.poll_timeout(), None);
    // The rest comes, though it is not sent here: the body is as many bytes as it said, and one after them is a request's.
    let mut body = Body::new(Framing::Length(MAX_START_LENGTH));
    let piece = vec![0; 1 << 20];
    let mut left = MAX_START_LENGTH;
    while left > 0 {
        assert!(!body.is_done());
        let mut input = piece.as_slice();
        left -= body.next(&mut input).unwrap().unwrap().len() as u64;
    }
    assert!(body.is_done());
}

#[test]
fn an_encoder_waits_longer_between_requests() {
    let mut driver = encoder(|_| Ok(()));
    driver.feed(push("setup", "", 0).as_bytes());
    let deadline = driver.connection.poll_timeout().unwrap();
    assert_eq!(deadline - driver.now, Duration::from_secs(120));
    driver.now = deadline;
    driver.input(Input::Timeout);
    assert_eq!(driver.seen.closed, Some(CloseReason::Idle));
    // A PushSetup whose body does not come is not waited for.
    let mut driver = encoder(|_| Ok(()));
    driver.feed(push("setup", "", 16).as_bytes());
    driver.now += Duration::from_secs(10);
    driver.input(Input::Timeout);
    assert!(driver.seen.sent.starts_with("HTTP/1.1 408 Request Timeout\r\nServer: Cougar/9"), "{}", driver.seen.sent);
}

#[test]
fn encoders_that_are_refused() {
    let good = push("start", "Cookie: push-id=7\r\n", 100);
    for (request, status) in [
        (push("start", "", MAX_START_LENGTH + 1), 413),
        (push("setup", "", 2049), 413),
        (good.replace("Content-Length: 100", "Transfer-Encoding: chunked"), 411),
        (good.replace("Content-Length: 100\r\n", ""), 411),
        (good.replace("Content-Length: 100", "Content-Length: 100\r\nContent-Length: 101"), 400),
        (good.replace("Content-Length: 100", "Content-Length: 100\r\nTransfer-Encoding: chunked"), 400),
        (good.replace("Content-Length: 100", "Content-Length: +100"), 400),
        (good.replace("WMEncoder/11.0.5721.5145", "curl/8"), 403),
        (good.replace("pushstart", "pushstop"), 415),
        (good.replace("/live", "/live%0d%0aX:%20y"), 400),
        (good.replace("POST", "GET"), 405),
        (push("setup", "", 3) + "abc", 400),
        (push("setup", "Cookie: push-id=a/b\r\n", 0), 400),
    ] {
        let mut driver = encoder(|request| panic!("{request:?} is to be refused unasked"));
        driver.feed(request.as_bytes());
        assert!(driver.seen.sent.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{}", driver.seen.sent);
        assert!(driver.seen.sent.contains("Server: Cougar/9") && driver.seen.sent.contains("Connection: close\r\n\r\n"));
    }
}
