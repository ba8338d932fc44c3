use super::*;
use proptest::prelude::*;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=Cam\r\nt=0 0\r\na=control:*\r\n\
    m=video 0 RTP/AVP 98\r\na=rtpmap:98 H265/90000\r\na=control:trackID=9\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:trackID=1\r\n\
    m=audio 0 RTP/AVP 8\r\na=control:trackID=2\r\n\
    m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:trackID=3\r\n";

#[expect(clippy::disallowed_methods, reason = "the base of the virtual clock")]
fn base() -> Instant {
    Instant::now()
}

fn config() -> CameraConfig {
    CameraConfig { url: "rtsp://cam/live?key=1".into(), login: None, user_agent: "test".into(), ports: None, salt: [7; 8] }
}

fn with_login() -> CameraConfig {
    CameraConfig { login: Some(Login { user: "u".into(), password: "p".into() }), ..config() }
}

/// What the engine sends, as text.
fn sent(camera: &mut Camera) -> String {
    let mut text = String::new();
    while let Some(output) = camera.poll_output() {
        if let CameraOutput::Send(bytes) = output {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    text
}

fn answer(camera: &mut Camera, now: Instant, status: &str, headers: &str, body: &str) -> Result<(), CameraError> {
    let cseq = camera.cseq;
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", body.len())
    };
    camera.bytes(now, format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}{length}\r\n{body}").as_bytes())
}

fn rtp(sequence: u16, timestamp: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, kind];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend([0, 0, 0, 9]);
    packet.extend(payload);
    packet
}

fn framed(channel: u8, packet: &[u8]) -> Vec<u8> {
    [&[b'$', channel][..], &u16::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()
}

/// A camera that plays pictures on channel 0 and sound on channel 2.
fn playing(now: Instant) -> Camera {
    let mut camera = Camera::new(now, config());
    answer(&mut camera, now, "200 OK", "Content-Base: rtsp://cam/live/\r\n", SDP).unwrap();
    answer(&mut camera, now, "200 OK", "Session: 12;timeout=20\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", "")
        .unwrap();
    answer(&mut camera, now, "200 OK", "Session: 12;timeout=20\r\n", "").unwrap();
    answer(&mut camera, now, "200 OK", "", "").unwrap();
    assert_eq!(std::iter::from_fn(|| camera.poll_output()).last(), Some(CameraOutput::Playing));
    camera
}

fn frames(camera: &mut Camera) -> Vec<(usize, u64, bool, usize)> {
    let outputs = std::iter::from_fn(|| camera.poll_output());
    let frames = outputs.filter_map(|output| match output {
        CameraOutput::Frame(Frame { track, ms, key, bytes }) => Some((track, ms, key, bytes.len())),
        _ => None,
    });
    frames.collect()
}

#[test]
fn a_session_from_begin_to_end() {
    let now = base();
    let mut camera = Camera::new(now, config());
    assert!(sent(&mut camera).starts_with("DESCRIBE rtsp://cam/live?key=1 RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: test\r\n"));
    answer(&mut camera, now, "200 OK", "Content-Base: rtsp://cam/live/\r\n", SDP).unwrap();
    assert_eq!(
        camera.poll_output(),
        Some(CameraOutput::LeftOut { media: 1, why: Unusable::Codec("H265".into()) }),
        "what cannot be sent on is told"
    );
    assert_eq!(camera.poll_output(), Some(CameraOutput::LeftOut { media: 4, why: Unusable::Other }));
    let setup = sent(&mut camera);
    assert!(setup.starts_with("SETUP rtsp://cam/live/trackID=1 RTSP/1.0\r\n"), "{setup}");
    assert!(setup.contains("Transport: RTP/AVP/TCP;unicast;interleaved=0-1"), "{setup}");
    answer(&mut camera, now, "200 OK", "Session: 12 ; timeout=20\r\nTransport: RTP/AVP/TCP;interleaved=4-5\r\n", "").unwrap();
    let setup = sent(&mut camera);
    assert!(setup.contains("trackID=2") && setup.contains("Session: 12\r\n") && setup.contains("interleaved=2-3"), "{setup}");
    answer(&mut camera, now, "200 OK", "Session: 12\r\n", "").unwrap();
    let play = sent(&mut camera);
    assert!(play.starts_with("PLAY rtsp://cam/live/ RTSP/1.0\r\n") && play.contains("Range: npt=0.000-"), "{play}");
    answer(&mut camera, now, "200 OK", "", "").unwrap();
    assert_eq!((camera.poll_output(), camera.tracks().len()), (Some(CameraOutput::Playing), 2));
    // On the channel that the camera chose.
    camera.bytes(now, &framed(4, &rtp(1, 0, 0x80 | 96, &[0x65, 0x88, 1, 2]))).unwrap();
    camera.bytes(now, &framed(2, &rtp(1, 0, 8, &[5; 160]))).unwrap();
    camera.bytes(now, &framed(0, &rtp(2, 0, 8, &[5; 160]))).unwrap();
    assert_eq!(frames(&mut camera), [(0, 0, true, 8), (1, 0, true, 160)]);
    // Signs of life, and another way to say so.
    let later = now + Duration::from_secs(30);
    assert_eq!(camera.poll_timeout(), now + Duration::from_secs(10), "half of what it said");
    camera.handle_timeout(now + Duration::from_secs(10)).unwrap();
    let life = sent(&mut camera);
    assert!(life.starts_with("GET_PARAMETER rtsp://cam/live/ RTSP/1.0\r\n") && life.contains("Session: 12\r\n"), "{life}");
    answer(&mut camera, now, "501 Not Implemented", "", "").unwrap();
    assert_eq!(camera.poll_timeout(), now + SILENCE);
    camera.bytes(later, &framed(2, &rtp(3, 320, 8, &[5; 160]))).unwrap();
    camera.handle_timeout(later + Duration::from_secs(14)).unwrap();
    camera.poll_output();
    assert!(sent(&mut camera).starts_with("OPTIONS "));
    let goodbye = camera.leave().unwrap();
    assert!(goodbye.starts_with(b"TEARDOWN rtsp://cam/live/ RTSP/1.0\r\n"));
}

#[test]
fn logins() {
    let now = base();
    const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"cam\", nonce=\"abc\"\r\n";
    let mut camera = Camera::new(now, config());
    assert_eq!(answer(&mut camera, now, "401 Unauthorized", CHALLENGE, ""), Err(CameraError::LoginWanted));
    let mut camera = Camera::new(now, with_login());
    sent(&mut camera);
    answer(&mut camera, now, "401 Unauthorized", CHALLENGE, "").unwrap();
    let again = sent(&mut camera);
    assert!(again.starts_with("DESCRIBE") && again.contains("Authorization: Digest username=\"u\", realm=\"cam\""), "{again}");
    assert_eq!(answer(&mut camera, now, "401 Unauthorized", CHALLENGE, ""), Err(CameraError::LoginRefused));
}

#[test]
fn what_cannot_be_had_is_told() {
    let now = base();
    let described = |body: &str| {
        let mut camera = Camera::new(now, config());
        answer(&mut camera, now, "200 OK", "", body)
    };
    let error = described("v=0\r\ns=-\r\nm=video 0 RTP/AVP 98\r\na=rtpmap:98 H265/90000\r\n").unwrap_err().to_string();
    assert!(error.starts_with("H265 is no codec") && error.contains("type \"ffmpeg\""), "{error}");
    assert!(matches!(described("nonsense"), Err(CameraError::Description(_))));
    let mut camera = Camera::new(now, config());
    let error = answer(&mut camera, now, "404 Not Found", "", "").unwrap_err();
    assert_eq!(error.to_string(), "DESCRIBE refused: 404 Not Found");
    let mut camera = Camera::new(now, config());
    assert_eq!(answer(&mut camera, now, "302 Found", "Location: rtsp://elsewhere/\r\n", ""), Err(CameraError::Moved));
    let mut camera = Camera::new(now, config());
    assert_eq!(camera.poll_timeout(), now + ANSWER_TIME);
    assert_eq!(camera.handle_timeout(now + ANSWER_TIME), Err(CameraError::NoAnswer("DESCRIBE")));
}

#[test]
fn pictures_out_of_order_are_refused() {
    let now = base();
    let show = |camera: &mut Camera, timestamps: &[u32]| {
        let mut sequence = 0;
        timestamps.iter().try_for_each(|timestamp| {
            sequence += 1;
            camera.bytes(now, &framed(0, &rtp(sequence, *timestamp, 0x80 | 96, &[0x61, 0x88, 1, 2])))
        })
    };
    // Three and two between others, each time shown earlier than the one before them.
    let order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12].map(|frame| frame * 3600);
    assert_eq!(show(&mut playing(now), &order[..7]), Ok(()), "twice may be an accident");
    assert_eq!(show(&mut playing(now), &order), Err(CameraError::Tracks(TracksError::Reordered)));
    assert!(TracksError::Reordered.to_string().contains("type \"ffmpeg\""));
    // A clock that begins anew, a second or a few pictures earlier, is none.
    let mut camera = playing(now);
    let restarts: Vec<u32> = (0..40).chain(10..40).chain(36..60).chain(0..40).map(|frame| frame * 3600).collect();
    assert_eq!(show(&mut camera, &restarts), Ok(()));
    let times: Vec<u64> = frames(&mut camera).into_iter().map(|(_, ms, ..)| ms).collect();
    assert_eq!((times[39], times[40], times[41]), (39 * 40, 1000, 1040), "as far ahead as it was, up to a second");
}

#[test]
fn datagrams_come_in_order_and_are_answered() {
    let now = base();
    let mut camera = Camera::new(now, CameraConfig { ports: Some([(5000, 5001), (5002, 5003)]), ..config() });
    answer(&mut camera, now, "200 OK", "", SDP).unwrap();
    let setup = sent(&mut camera);
    assert!(setup.contains("Transport: RTP/AVP/UDP;unicast;client_port=5000-5001"), "{setup}");
    answer(&mut camera, now, "200 OK", "Session: 1\r\nTransport: RTP/AVP;unicast;server_port=6000-6001\r\n", "").unwrap();
    answer(&mut camera, now, "200 OK", "Session: 1\r\n", "").unwrap();
    answer(&mut camera, now, "200 OK", "", "").unwrap();
    let datagrams: Vec<_> = std::iter::from_fn(|| camera.poll_output())
        .filter_map(|output| match output {
            CameraOutput::Datagram { track, is_rtcp, to, .. } => Some((track, is_rtcp, to)),
            _ => None,
        })
        .collect();
    assert_eq!(datagrams, [(0, true, 6001)], "an empty report to where reports are taken");
    for (sequence, timestamp) in [(1, 0), (3, 320), (2, 160)] {
        camera.datagram(now, 1, false, &rtp(sequence, timestamp, 8, &[5; 160])).unwrap();
    }
    let times: Vec<u64> = frames(&mut camera).into_iter().map(|(_, ms, ..)| ms).collect();
    assert_eq!((times, camera.tracks().lost()), (vec![0, 20, 40], 0));
    camera.handle_timeout(now + REPORT_TIME).unwrap();
    assert!(matches!(camera.poll_output(), Some(CameraOutput::Datagram { .. })));
}

#[test]
fn hostile_cameras_are_bounded() {
    let now = base();
    // Garbage.
    assert!(matches!(Camera::new(now, config()).bytes(now, &[0xFF; 100]), Err(CameraError::Message(_))));
    // A message without end.
    let mut camera = Camera::new(now, config());
    camera.bytes(now, b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n").unwrap();
    let line = [b"X: ", &[b'a'; 1000][..], b"\r\n"].concat();
    let result = (0..100).try_for_each(|_| camera.bytes(now, &line));
    assert!(matches!(result, Err(CameraError::Message(_))), "{result:?}");
    // A body that would fill the memory.
    let mut camera = Camera::new(now, config());
    let head = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: 4294967296000\r\n\r\n";
    assert!(camera.bytes(now, head).is_err());
    // The longest packets there are, all of one picture.
    let mut camera = playing(now);
    camera.bytes(now, &framed(0, &rtp(0, 0, 96, &[&[0x7C, 0x85, 0x88][..], &[1; 65_000]].concat()))).unwrap();
    let piece = [&[0x7C, 0x05][..], &[1; 65_500]].concat();
    let result = (1..=u16::MAX).try_for_each(|sequence| camera.bytes(now, &framed(0, &rtp(sequence, 0, 96, &piece))));
    assert_eq!(result, Err(CameraError::Tracks(TracksError::LongFrame)));
    // Packets that make no sense.
    let mut camera = playing(now);
    let result = (0..=u16::MAX).try_for_each(|sequence| camera.bytes(now, &framed(0, &rtp(sequence, 0, 96, &[0x7F, 1]))));
    assert!(matches!(result, Err(CameraError::Tracks(TracksError::Malformed(_)))), "{result:?}");
    // Packets that never become a frame.
    let mut camera = playing(now);
    for sequence in 0..1000 {
        camera
            .bytes(
                now + Duration::from_millis(u64::from(sequence) * 10),
                &framed(0, &rtp(sequence, u32::from(sequence), 96, &[9, 0x10])),
            )
            .unwrap();
    }
    assert_eq!(camera.handle_timeout(now + SILENCE), Err(CameraError::Silent));
    // Challenges without end.
    let mut camera = Camera::new(now, with_login());
    let stale = "WWW-Authenticate: Digest realm=\"c\", nonce=\"a\", stale=true\r\n";
    let results: Vec<_> =
        (0..5).map(|_| answer(&mut camera, now, "401 Unauthorized", stale, "")).take_while(Result::is_ok).collect();
    assert_eq!(results.len(), 2);
}

proptest! {
    #[test]
    fn any_bytes(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..10), plays in any::<bool>()) {
        let now = base();
        let mut camera = if plays { playing(now) } else { Camera::new(now, config()) };
        for (at, chunk) in chunks.iter().enumerate() {
            let _ = camera.bytes(now, chunk);
            let _ = camera.bytes(now, &framed(u8::try_from(at % 4).unwrap(), chunk));
            let _ = camera.datagram(now, at % 3, at % 2 == 0, chunk);
            while camera.poll_output().is_some() {}
        }
    }
}
