//! Windows Media Encoder as it pushes, played by the test over a socket: what viewers see of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a panic is a test's report")]
#![allow(clippy::disallowed_methods, reason = "the encoder sends in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::Need::{self, Program};
use support::asf::{Synthetic, send_time_in};
use support::daemon::Daemon;
use support::media::{data, data_start};
use support::player::{self, frames, of_stream};
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const PUSH: &str = "[[publishing_point]]\nname = \"live\"\nsource = { type = \"push\" }\n";
const CREATE: &str = "[publish]\ncreate = true\n";
const MINUTE: Duration = Duration::from_secs(60);
/// What encoders write as the length of a body that has no end.
const FOR_EVER: usize = 2_147_483_647;
const ENTRY_END: &[u8] = b"$E\x04\0\x01\0\0\0";
const END: &[u8] = b"$E\x04\0\0\0\0\0";
/// Ten seconds of pictures and sound in 217 packets.
const SAMPLE: &str = "live-asf-pipe.asf";
const SOUND: Synthetic = Synthetic { packet_size: 600, packets_per_second: 50 };
const OTHER_SOUND: Synthetic = Synthetic { packet_size: 500, packets_per_second: 50 };

fn frame(letter: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let len = u16::try_from(body.len()).unwrap().to_le_bytes();
    [&[b'$', letter][..], &len, &body].concat()
}

fn request(kind: &str, path: &str, id: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nContent-Type: application/x-wms-push{kind}\r\nX-Accept-Authentication: Negotiate, NTLM, Digest\r\n\
         User-Agent: WMEncoder/11.0.5721.5145\r\nHost: server\r\nContent-Length: {length}\r\nCache-Control: no-cache\r\n\
         Cookie: push-id={id}\r\n\r\n"
    )
}

/// The encoder's end of a connection.
struct Encoder {
    connection: TcpStream,
    path: String,
    id: String,
}

impl Encoder {
    fn connect(daemon: &Daemon) -> TcpStream {
        let connection = TcpStream::connect(daemon.http).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        connection
    }

    /// Sets up a session.
    #[track_caller]
    fn set_up(daemon: &Daemon, path: &str, body: &str) -> Self {
        let mut encoder = Self { connection: Self::connect(daemon), path: path.to_owned(), id: "0".to_owned() };
        encoder.send(format!("{}{body}", request("setup", path, "0", body.len())).as_bytes());
        let response = encoder.response();
        assert!(response.starts_with("HTTP/1.1 204 No Content\r\nServer: Cougar/9.5"), "{response}");
        for field in ["Content-Length: 0", "Pragma: no-cache, timeout=60000", "Cache-Control: no-cache", "Date: "] {
            assert!(response.contains(&format!("\r\n{field}")), "{field}: {response}");
        }
        encoder.id = response.split("Set-Cookie: push-id=").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        encoder
    }

    /// Begins a body.
    fn start(&mut self, length: usize) {
        self.send(request("start", &self.path, &self.id, length).as_bytes());
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.connection.write_all(bytes).unwrap();
    }

    #[track_caller]
    fn response(&mut self) -> String {
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.connection.read_exact(&mut byte).unwrap();
            response.push(byte[0]);
        }
        String::from_utf8(response).unwrap()
    }

    /// The connection breaks, and the session goes on over another one.
    fn reconnect(&mut self, daemon: &Daemon) {
        self.connection.shutdown(Shutdown::Both).unwrap();
        self.connection = Self::connect(daemon);
    }
}

/// Header and packets of a sample.
fn sample(name: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (start, size) = data_start(&data(name));
    let bytes = std::fs::read(data(name)).unwrap();
    let (header, packets) = bytes.split_at(start as usize);
    let index = [0x90, 0x08, 0x00, 0x33];
    let packets = packets.chunks_exact(size as usize).take_while(|packet| packet[..4] != index);
    (header.to_vec(), packets.map(<[u8]>::to_vec).collect())
}

/// Sends a sample in real time over and over, as one body after the other, and breaks the connection within one now and then.
struct Loop {
    stop: Arc<AtomicBool>,
    breaks: Arc<Mutex<u32>>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    fn start(daemon: Arc<Daemon>, path: &str, name: &str) -> Self {
        let (header, packets) = sample(name);
        let mut encoder = Encoder::set_up(&daemon, path, "AutoDestroy: 1\r\n");
        let (stop, breaks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (told, broken) = (Arc::clone(&stop), Arc::clone(&breaks));
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            let mut lap = Duration::ZERO;
            let mut unsent = frame(b'H', &[&header]);
            encoder.start(FOR_EVER);
            loop {
                let mut last = Duration::ZERO;
                for (number, packet) in packets.iter().enumerate() {
                    if told.load(Ordering::SeqCst) {
                        encoder.send(&[&unsent[..], END].concat());
                        return;
                    }
                    let time = Duration::from_millis(send_time_in(packet).unwrap().into());
                    last = last.max(time);
                    // The encoder's own clock: a packet goes when its send time is there.
                    std::thread::sleep((lap + time).saturating_sub(begin.elapsed()));
                    unsent.extend(frame(b'D', &[packet]));
                    if number % 50 == 49 {
                        // The cable is pulled within the packet: it goes again, over another connection.
                        encoder.send(&unsent[..unsent.len() - 700]);
                        let sent = unsent.len() - 4 - packet.len();
                        unsent.drain(..sent);
                        encoder.reconnect(&daemon);
                        encoder.start(FOR_EVER);
                        *broken.lock().unwrap() += 1;
                    }
                    encoder.send(&std::mem::take(&mut unsent));
                }
                lap += last + Duration::from_millis(50);
                unsent = [ENTRY_END, &frame(b'C', &[&[0; 4], &header])].concat();
            }
        });
        Self { stop, breaks, thread: Some(thread) }
    }

    fn breaks(&self) -> u32 {
        *self.breaks.lock().unwrap()
    }

    #[track_caller]
    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn ffmpeg_decodes_an_encoder_that_reconnects() {
    if !ready("ffmpeg_decodes_an_encoder_that_reconnects", FFMPEG) {
        return;
    }
    let daemon = Arc::new(Daemon::start(PUSH));
    let source = Loop::start(Arc::clone(&daemon), "/live", SAMPLE);
    wait_for_source(&daemon, "live");
    let viewer = Viewer::tcp(daemon.mms, "live");
    for scheme in ["mmsh", "mmst"] {
        let before = source.breaks();
        let url = daemon.url(scheme, "live");
        let decoded = player::ffmpeg(&url, 6).finish(MINUTE);
        let frames = frames(&decoded.stdout);
        let pictures = of_stream(&frames, 0);
        assert!(decoded.status.success(), "{url}: {}", decoded.stderr);
        // 15 a second; where the sample begins again there is a gap of one.
        assert!(pictures.len() >= 80, "{url}: {} pictures\n{}", pictures.len(), decoded.stderr);
        assert!(frames.iter().any(|frame| frame.stream == 1), "{url}: no sound");
        assert!(!decoded.stderr.contains("concealing"), "{url}: {}", decoded.stderr);
        assert!(source.breaks() > before, "the connection was not broken meanwhile");
    }
    viewer.assert_undisturbed();
    source.end();
    wait_until("the end of the stream", MINUTE, || viewer.ended().is_some());
    assert!(viewer.ended().unwrap().contains("end of stream, 0x0"), "{:?}", viewer.ended());
    assert_eq!(daemon.metric("wmrelay_source_invalid_packets_total", &[("point", "live")]), 0.0);
}

/// Every packet of every body, over rollovers and a broken connection, and another header.
#[test]
fn no_packet_is_lost_over_bodies_and_connections() {
    let daemon = Daemon::start(PUSH);
    let mut encoder = Encoder::set_up(&daemon, "/publish/live", "");
    let packets =
        |range: std::ops::Range<u32>| -> Vec<u8> { range.flat_map(|number| frame(b'D', &[&SOUND.packet(number)])).collect() };
    encoder.start(FOR_EVER);
    encoder.send(&frame(b'H', &[&SOUND.header()]));
    encoder.send(&packets(0..5));
    wait_for_source(&daemon, "live");
    let viewer = Viewer::tcp(daemon.mms, "live");
    let mut sent = 5;
    let mut more = |encoder: &mut Encoder, count: u32, cut: usize| {
        let body = packets(sent..sent + count);
        encoder.send(&body[..body.len() - cut]);
        sent += count - u32::from(cut > 0);
        let limit = Duration::from_secs(20);
        wait_until("the packets", limit, || viewer.seen().number == Some(sent - 1));
    };
    more(&mut encoder, 20, 0);
    // Cut within a packet; then bodies of a small length, each continued by the next.
    more(&mut encoder, 10, 100);
    encoder.reconnect(&daemon);
    for _ in 0..5 {
        encoder.start(packets(0..4).len() + 12);
        more(&mut encoder, 4, 0);
        encoder.send(&frame(b'F', &[&[0; 8]]));
        assert!(encoder.response().starts_with("HTTP/1.1 204 "));
    }
    let seen = viewer.seen();
    assert_eq!((seen.missing, seen.backward, seen.time_backward, &seen.ended), (0, 0, 0, &None), "{seen:?}");
    assert_eq!(seen.packets, u64::from(seen.last.unwrap() - seen.first.unwrap()) + 1);

    // The same header again is no change, another one is: the viewer is told.
    encoder.start(FOR_EVER);
    encoder.send(&[ENTRY_END, &frame(b'C', &[&[0; 4], &SOUND.header()])].concat());
    more(&mut encoder, 5, 0);
    encoder.send(&[ENTRY_END, &frame(b'C', &[&[0; 4], &OTHER_SOUND.header()])].concat());
    assert_eq!(viewer.ended(), None, "the same header is no change");
    for number in 0..5 {
        encoder.send(&frame(b'D', &[&OTHER_SOUND.packet(number)]));
    }
    wait_until("word of the other header", MINUTE, || viewer.ended().is_some());
    assert_eq!(viewer.ended().as_deref(), Some("end of stream, 0x1"), "the entry ends and another follows");
    // Whoever comes now has the new one.
    wait_until("packets of the new header", MINUTE, || daemon.metric("wmrelay_source_packets_total", &[]) >= 60.0);
    let newcomer = Viewer::tcp(daemon.mms, "live");
    wait_until("a packet for the newcomer", MINUTE, || newcomer.seen().number == Some(4));
    encoder.send(END);
    wait_until("the end of the source", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "live")]) == 0.0);
    // The session is over.
    let mut late = Encoder { connection: Encoder::connect(&daemon), path: "/live".into(), id: encoder.id.clone() };
    late.start(100);
    assert!(late.response().starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_publishing_point_is_made_and_goes() {
    let daemon = Daemon::start(CREATE.to_owned() + PUSH + "source_timeout_s = 5\n");
    let body = "Template-URL: \"/live\"\r\nAutoDestroy: 1\r\n";
    let mut encoder = Encoder::set_up(&daemon, "/made/for%20this", body);
    encoder.start(FOR_EVER);
    encoder.send(&frame(b'H', &[&SOUND.header()]));
    for number in 0..10 {
        encoder.send(&frame(b'D', &[&SOUND.packet(number)]));
    }
    wait_for_source(&daemon, "made/for this");
    let viewer = Viewer::tcp(daemon.mms, "made/for this");
    for number in 10..30 {
        encoder.send(&frame(b'D', &[&SOUND.packet(number)]));
    }
    wait_until("all packets", MINUTE, || viewer.seen().number == Some(29));
    encoder.send(END);
    wait_until("the end of the stream", MINUTE, || viewer.ended().is_some());
    drop(viewer);
    // Gone, for publishers that may not make it and for viewers; and it can be made again.
    let (status, _) = support::daemon::http_get(daemon.http, "/made/for%20this");
    assert_eq!(status, 404);
    let mut again = Encoder::set_up(&daemon, "/made/for%20this", "");
    again.start(FOR_EVER);
    again.send(&[frame(b'H', &[&SOUND.header()]), frame(b'D', &[&SOUND.packet(0)])].concat());
    wait_for_source(&daemon, "made/for this");
    drop(Viewer::tcp(daemon.mms, "made/for this"));
    // What is configured stays.
    let mut encoder = Encoder::set_up(&daemon, "/live", "AutoDestroy: 1\r\n");
    let body = [frame(b'H', &[&SOUND.header()]), frame(b'D', &[&SOUND.packet(0)]), END.to_vec()].concat();
    encoder.start(body.len());
    encoder.send(&body);
    assert!(encoder.response().starts_with("HTTP/1.1 204 "));
    drop(Encoder::set_up(&daemon, "/LIVE", ""));
}

#[test]
fn without_the_setting_nothing_is_made() {
    let daemon = Daemon::start(PUSH);
    let mut encoder = Encoder { connection: Encoder::connect(&daemon), path: "/new".into(), id: "0".into() };
    encoder.send(request("setup", "/new", "0", 0).as_bytes());
    let response = encoder.response();
    assert!(response.starts_with("HTTP/1.1 404 Not Found\r\nServer: Cougar/9.5"), "{response}");
}
