//! Publishing by RTSP: Windows Media streams are taken, all others are told the way.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::Need::{self, Element, Program};
use support::asf::Synthetic;
use support::daemon::{Daemon, Launch};
use support::media::data;
use support::player::{self, frames, of_stream};
use support::process::Process;
use support::publisher::Publisher;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, tls, wait_until};
use wmrelay::asf::{Event, Header, Reader, walk};
use wmrelay::rtsp::media::{Carriage, Facts, Flow, MAX_DATAGRAM, Packets, fragments};
use wmrelay::rtsp::sdp;
use wmrelay::text::{Challenge, Login};
use wmrelay::viewing::{Content, Description};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);
/// Pictures and sound for ten seconds.
const FILM: &str = "vod-wmv2-wmav2-indexed.wmv";
const POINTS: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n\
                      [[publishing_point]]\nname = \"other\"\nsource = { type = \"push\" }\n";

/// The header and the packets of a file.
fn film() -> (Header, Vec<Vec<u8>>) {
    let mut reader = Reader::new();
    reader.feed(&std::fs::read(data(FILM)).unwrap());
    reader.finish();
    let (mut header, mut packets) = (None, Vec::new());
    while let Some(event) = reader.poll() {
        match event.unwrap() {
            Event::Header(found) => header = Some(found),
            Event::Packets(bytes) => {
                let size = header.as_ref().map(Header::packet_size).unwrap();
                packets.extend(bytes.chunks(size).map(<[u8]>::to_vec));
            }
            Event::End => break,
        }
    }
    (header.unwrap(), packets)
}

/// The description of the film.
fn description() -> String {
    describe(&film().0)
}

/// As we describe streams to players.
fn describe(header: &Header) -> String {
    let description = Description {
        header: [header.bytes(), header.data_head().as_slice()].concat().into(),
        packet_size: u32::try_from(header.packet_size()).unwrap(),
        bit_rate: 300_000,
        streams: header.streams().iter().map(|stream| stream.number).collect(),
        content: Content::Live,
        ssrc: 5,
    };
    sdp::describe(&description, &sdp::Facts::of(&description, "rtsp://publisher/film".into(), false))
}

fn request(line: &str, cseq: u32, headers: &str) -> String {
    format!("{line} RTSP/1.0\r\nCSeq: {cseq}\r\n{headers}\r\n")
}

fn announce(url: &str, cseq: u32, headers: &str, sdp: &str) -> String {
    let length = sdp.len();
    let headers = format!("{headers}Content-Type: application/sdp\r\nContent-Length: {length}\r\n");
    request(&format!("ANNOUNCE {url}"), cseq, &headers) + sdp
}

/// The head of an answer, and its body.
fn ask(stream: &mut (impl Read + Write), request: &str) -> (String, String) {
    let head = tls::ask(stream, request).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn is_up(daemon: &Daemon) -> bool {
    daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 1.0
}

/// Sends the film to `cam1`, in real time, once.
struct RtspPublisher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RtspPublisher {
    /// Begins to record; the film then comes.
    fn start(address: SocketAddr, over_udp: bool, teardown: bool) -> Self {
        let url = format!("rtsp://{address}/cam1");
        let mut stream = connect(address);
        let (options, _) = ask(&mut stream, &request(&format!("OPTIONS {url}"), 1, ""));
        assert!(options.contains("ANNOUNCE, RECORD"), "{options}");
        let (announced, _) = ask(&mut stream, &announce(&url, 2, "", &description()));
        assert!(announced.starts_with("RTSP/1.0 200"), "{announced}");
        let session = announced.lines().find_map(|line| line.strip_prefix("Session: ")).unwrap();
        let session = session.split(';').next().unwrap().to_owned();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        for (cseq, token) in [(3, "audio"), (4, "video")] {
            let transport = if over_udp {
                format!("RTP/AVP/UDP;unicast;client_port={port};mode=record")
            } else {
                "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record".to_owned()
            };
            let headers = format!("Session: {session}\r\nTransport: {transport}\r\n");
            let (setup, _) = ask(&mut stream, &request(&format!("SETUP {url}/{token}"), cseq, &headers));
            assert!(setup.starts_with("RTSP/1.0 200"), "{setup}");
            if over_udp {
                let (_, ports) = setup.split_once("server_port=").unwrap();
                let port: u16 = ports.split('-').next().unwrap().parse().unwrap();
                // From elsewhere nothing is taken.
                let stranger = UdpSocket::bind("127.0.0.5:0").unwrap();
                stranger.send_to(&[0x80; 40], (address.ip(), port)).unwrap();
                socket.connect((address.ip(), port)).unwrap();
            }
        }
        let (recording, _) = ask(&mut stream, &request(&format!("RECORD {url}"), 5, &format!("Session: {session}\r\n")));
        assert!(recording.starts_with("RTSP/1.0 200"), "{recording}");
        let stop = Arc::new(AtomicBool::new(false));
        let ear = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            send_film(&mut stream, over_udp.then_some(&socket), &ear);
            if teardown {
                let _ = tls::ask(&mut stream, &request(&format!("TEARDOWN {url}"), 6, &format!("Session: {session}\r\n")));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for RtspPublisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn send_film(stream: &mut TcpStream, socket: Option<&UdpSocket>, stop: &AtomicBool) {
    let (header, packets) = film();
    let size = header.packet_size();
    let fragments = fragments(size, MAX_DATAGRAM);
    let begin = Instant::now();
    for (number, packet) in (0..).zip(&packets) {
        let info = walk(packet).unwrap();
        let due = begin + Duration::from_millis(info.send_time_ms.into());
        while Instant::now() < due && !stop.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let mut one = Packets::new(Carriage::Datagrams, fragments);
        let facts = Facts { packet: number, send_time_ms: info.send_time_ms, key: info.key };
        one.push(packet, size, Flow { ssrc: 0x1234_5678, sequence: 0xFFF0 }, facts);
        for index in 0..fragments {
            let rtp = one.stretch(0, 1).fragment(index).unwrap();
            let sent = match socket {
                Some(socket) => socket.send(rtp).map(drop),
                None => {
                    let [high, low] = u16::try_from(rtp.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&[b'$', 0, high, low], rtp].concat())
                }
            };
            sent.unwrap();
        }
    }
}

/// A viewer sees the pictures of the film, and no others.
#[track_caller]
fn assert_film(daemon: &Daemon) {
    let decoded = player::ffmpeg(&daemon.url("mmst", "cam1"), 3).finish(MINUTE);
    let pictures = of_stream(&frames(&decoded.stdout), 0);
    let whole = player::ffmpeg(&data(FILM).display().to_string(), 0).finish(MINUTE);
    let known: HashSet<String> = of_stream(&frames(&whole.stdout), 0).into_iter().map(|frame| frame.md5).collect();
    assert!(pictures.len() >= 20, "{} pictures\n{}", pictures.len(), decoded.stderr);
    let strange = pictures.iter().filter(|frame| !known.contains(&frame.md5)).count();
    assert_eq!(strange, 0, "of {}", pictures.len());
    assert!(!decoded.stderr.contains("concealing"), "{}", decoded.stderr);
}

#[test]
fn what_is_published_over_tcp_is_played() {
    if !ready("what_is_published_over_tcp_is_played", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(POINTS);
    let mut publisher = RtspPublisher::start(daemon.rtsp, false, true);
    wait_for_source(&daemon, "cam1");
    assert_film(&daemon);
    assert_eq!(daemon.metric("wmrelay_source_invalid_packets_total", &[("point", "cam1")]), 0.0);
    publisher.end();
    wait_until("the end of the source", MINUTE, || !is_up(&daemon));
    assert!(daemon.log().contains("reason=\"end of stream\""), "a goodbye is told as one");
}

#[test]
fn what_is_published_over_udp_is_played() {
    if !ready("what_is_published_over_udp_is_played", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(POINTS);
    // By the port of HTTP, where publishers come in too.
    let mut publisher = RtspPublisher::start(daemon.http, true, false);
    wait_for_source(&daemon, "cam1");
    assert_film(&daemon);
    publisher.end();
    wait_until("the end of the source", MINUTE, || !is_up(&daemon));
    assert!(daemon.log().contains("reason=\"connection closed\""));
}

#[test]
fn one_publishes_at_a_time() {
    let daemon = Daemon::start(POINTS);
    let _publisher = RtspPublisher::start(daemon.rtsp, false, true);
    wait_for_source(&daemon, "cam1");
    let mut second = connect(daemon.rtsp);
    let url = format!("rtsp://{}/cam1", daemon.rtsp);
    let (refused, text) = ask(&mut second, &announce(&url, 1, "", &description()));
    assert!(refused.starts_with("RTSP/1.0 455") && refused.contains("Retry-After: 2"), "{refused}{text}");
    // The connection stays: another name may be free, or unknown.
    let (unknown, _) = ask(&mut second, &announce(&format!("rtsp://{}/nothing", daemon.rtsp), 2, "", &description()));
    assert!(unknown.starts_with("RTSP/1.0 404"), "{unknown}");
    let (free, _) = ask(&mut second, &announce(&format!("rtsp://{}/publish/other", daemon.rtsp), 3, "", &description()));
    assert!(free.starts_with("RTSP/1.0 200"), "{free}");
}

#[test]
fn a_name_that_there_is_not_may_be_made_and_its_header_changed() {
    let daemon = Daemon::start(format!("{POINTS}[publish]\ncreate = true\n"));
    let url = format!("rtsp://{}/made", daemon.rtsp);
    let mut stream = connect(daemon.rtsp);
    let (made, _) = ask(&mut stream, &announce(&url, 1, "", &description()));
    assert!(made.starts_with("RTSP/1.0 200"), "{made}");
    let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=record\r\n";
    ask(&mut stream, &request(&format!("SETUP {url}/audio"), 2, transport));
    ask(&mut stream, &request(&format!("RECORD {url}"), 3, ""));
    let other = Synthetic { packet_size: 800, packets_per_second: 10 };
    let (changed, text) = ask(&mut stream, &announce(&url, 4, "", &describe(&Header::parse(&other.header()).unwrap())));
    assert!(changed.starts_with("RTSP/1.0 200"), "{changed}{text}");
    for number in 0..5 {
        let mut one = Packets::new(Carriage::Datagrams, 1);
        one.push(&other.packet(number), 800, Flow { ssrc: 1, sequence: 1 }, Facts { packet: number, send_time_ms: 0, key: true });
        let rtp = one.stretch(0, 1).fragment(0).unwrap();
        let [high, low] = u16::try_from(rtp.len()).unwrap().to_be_bytes();
        stream.write_all(&[&[b'$', 0, high, low], rtp].concat()).unwrap();
    }
    wait_until("five packets", MINUTE, || daemon.metric("wmrelay_source_packets_total", &[("point", "made")]) == 5.0);
}

#[test]
fn publishers_of_other_codecs_are_told_the_way_and_disturb_nobody() {
    let daemon = Daemon::start(POINTS);
    let _bystander = Publisher::start(daemon.http, "other", Synthetic { packet_size: 1400, packets_per_second: 50 }, u32::MAX);
    wait_for_source(&daemon, "other");
    let viewer = Viewer::tcp(daemon.mms, "other");
    viewer.wait_for_packets(20, MINUTE);
    let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n";
    let (refused, text) = ask(&mut connect(daemon.rtsp), &announce(&format!("rtsp://{}/cam1", daemon.rtsp), 1, "", sdp));
    assert!(refused.starts_with("RTSP/1.0 415"), "{refused}");
    assert!(text.contains("this is VP8") && text.contains("-f asf_stream -method POST http://127.0.0.1:"), "{text}");
    assert!(text.contains("/publish/cam1"), "{text}");
    // Most programs show the status line alone, which has an end.
    let many: String = (96..104).map(|t| format!("m=video 0 RTP/AVP {t}\r\na=rtpmap:{t} {}/90000\r\n", "X".repeat(60))).collect();
    let sdp = format!("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{many}");
    let (refused, _) = ask(&mut connect(daemon.rtsp), &announce(&format!("rtsp://{}/cam1", daemon.rtsp), 1, "", &sdp));
    let line = refused.lines().next().unwrap();
    assert!(line.starts_with("RTSP/1.0 415 Publish by HTTP: ffmpeg "), "{refused}");
    assert!(line.contains(" -f asf_stream -method POST http://127.0.0.1:") && line.ends_with("/publish/cam1"), "{refused}");
    if ready("publishers_of_other_codecs_are_told_the_way_and_disturb_nobody", FFMPEG) {
        for transport in ["udp", "tcp"] {
            let mut command = Command::new("ffmpeg");
            command.args([
                "-nostdin",
                "-hide_banner",
                "-loglevel",
                "warning",
                "-f",
                "lavfi",
                "-i",
                "testsrc2=rate=15",
                "-t",
                "5",
            ]);
            command.args(["-c:v", "libvpx", "-deadline", "realtime", "-f", "rtsp", "-rtsp_transport", transport]);
            command.arg(format!("rtsp://{}/cam1", daemon.rtsp));
            let ended = Process::start(command).finish(MINUTE);
            assert!(!ended.status.success() && ended.stderr.contains("415"), "{}", ended.stderr);
        }
    }
    viewer.wait_for_packets(50, MINUTE);
    viewer.assert_undisturbed();
    assert!(!is_up(&daemon));
}

/// Twenty seconds of H.264 without B-frames, a key frame a second, and AAC.
#[track_caller]
fn modern(folder: &std::path::Path) -> std::path::PathBuf {
    let file = folder.join("modern.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=176x144:rate=15,noise=alls=20:allf=t"]);
    command.args(["-f", "lavfi", "-i", "sine", "-t", "20", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "15"]);
    command.args(["-c:a", "aac"]).arg(&file);
    assert!(Process::start(command).finish(MINUTE).status.success());
    file
}

/// The pictures of `cam1`, by their MD5, as an FFmpeg decodes them that comes while they are published.
#[track_caller]
fn pictures(daemon: &Daemon, seconds: u32) -> Vec<String> {
    pictures_at(&daemon.url("mmst", "cam1"), &[], seconds)
}

/// The same by another URL, with options for the player's input.
#[track_caller]
fn pictures_at(url: &str, options: &[&str], seconds: u32) -> Vec<String> {
    let played = player::ffmpeg_with(options, url, seconds).finish(MINUTE);
    assert!(played.status.success(), "{url} {options:?}: {}", played.stderr);
    let all = frames(&played.stdout);
    let pictures = of_stream(&all, player::video_stream(&played.stdout));
    assert!(all.len() > pictures.len(), "sound too: {}", played.stderr);
    pictures.into_iter().map(|frame| frame.md5).collect()
}

/// All pictures of a file, by their MD5.
#[track_caller]
fn pictures_of(clip: &std::path::Path) -> Vec<String> {
    let whole = player::ffmpeg(clip.to_str().unwrap(), 0).finish(MINUTE);
    of_stream(&frames(&whole.stdout), player::video_stream(&whole.stdout)).into_iter().map(|frame| frame.md5).collect()
}

/// Checks that pictures are those of a clip from some place on, none missing.
#[track_caller]
fn assert_in_a_row(seen: &[String], whole: &[String], least: usize) {
    assert!(seen.len() >= least, "{} pictures", seen.len());
    let place = whole.iter().position(|picture| *picture == seen[0]).expect("the first is not of the clip");
    for (at, picture) in seen.iter().enumerate() {
        assert_eq!(*picture, whole[place + at], "picture {at} behind {place}");
    }
}

/// An ffmpeg that publishes a file to `cam1` as it is, in real time; over any transport if none is named.
#[track_caller]
fn ffmpeg_publishes(daemon: &Daemon, clip: &std::path::Path, transport: Option<&str>) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "warning", "-re", "-i"]).arg(clip).args(["-c", "copy", "-f", "rtsp"]);
    command.args(transport.iter().flat_map(|transport| ["-rtsp_transport", transport]));
    command.arg(format!("rtsp://{}/cam1", daemon.rtsp));
    Process::start(command)
}

#[track_caller]
fn wait_for_publisher(daemon: &Daemon, publisher: &mut Process) {
    wait_until("the source", MINUTE, || {
        assert!(publisher.runs(), "{}\n{}", publisher.stderr(), daemon.log());
        is_up(daemon)
    });
}

#[test]
fn ffmpeg_publishes_h264_and_aac() {
    if !ready("ffmpeg_publishes_h264_and_aac", FFMPEG) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clip = modern(folder.path());
    let whole = pictures_of(&clip);
    for transport in [Some("tcp"), Some("udp"), None] {
        let daemon = Daemon::start(POINTS);
        let mut publisher = ffmpeg_publishes(&daemon, &clip, transport);
        wait_for_publisher(&daemon, &mut publisher);
        assert_in_a_row(&pictures(&daemon, 4), &whole, 41);
        drop(publisher);
        wait_until("the end of the source", MINUTE, || !is_up(&daemon));
    }
}

/// It asks about the name before it says that it publishes, as players do who need another answer.
#[test]
fn ffmpeg_comes_back_over_udp_while_players_watch_the_slate() {
    if !ready("ffmpeg_comes_back_over_udp_while_players_watch_the_slate", FFMPEG) {
        return;
    }
    let over_tcp = || ["-rtsp_transport", "tcp"].map(String::from).to_vec();
    // Ports of their own for each player: those of the one before rest.
    let mut first = 1200;
    let mut over_udp = || {
        first += 100;
        let (first, last) = (first.to_string(), (first + 98).to_string());
        ["-rtsp_transport", "udp", "-min_port", &first, "-max_port", &last].map(String::from).to_vec()
    };
    let seen_by = |options: &[String], url: &str| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        pictures_at(url, &options, 2)
    };
    let folder = tempfile::tempdir().unwrap();
    let clip = modern(folder.path());
    let whole = pictures_of(&clip);
    let daemon = Daemon::start(
        "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n\
         fallback = { slate = \"Camera 1 is not there\" }\nfallback_after_s = 1\n",
    );
    let url = daemon.rtsp_url("rtsp", "cam1");
    for round in 0..2 {
        wait_until("the slate", MINUTE, || daemon.metric("wmrelay_source_fallback", &[("point", "cam1")]) == 1.0);
        for options in [over_tcp(), over_udp()] {
            let seen = seen_by(&options, &url);
            assert!(seen.len() >= 10 && !seen.iter().any(|picture| whole.contains(picture)), "{round}: {} pictures", seen.len());
        }
        let mut publisher = ffmpeg_publishes(&daemon, &clip, Some("udp"));
        wait_for_publisher(&daemon, &mut publisher);
        wait_until("the source on the air", MINUTE, || daemon.metric("wmrelay_source_fallback", &[("point", "cam1")]) == 0.0);
        for options in [over_tcp(), over_udp()] {
            assert_in_a_row(&seen_by(&options, &url), &whole, 20);
        }
        publisher.signal("KILL");
    }
    let joins = |transport| daemon.metric("wmrelay_joins_total", &[("protocol", "rtsp"), ("transport", transport)]);
    assert_eq!((joins("tcp"), joins("udp")), (4.0, 4.0));
}

/// AAC as LATM, which is GStreamer's own wish.
#[test]
fn gstreamer_publishes_h264_and_aac() {
    let needs =
        [Program("gst-launch-1.0"), Element("rtspclientsink"), Element("x264enc"), Element("voaacenc"), Program("ffmpeg")];
    if !ready("gstreamer_publishes_h264_and_aac", &needs) {
        return;
    }
    for transport in ["tcp", "udp"] {
        let daemon = Daemon::start(POINTS);
        let mut command = Command::new("gst-launch-1.0");
        command.args([
            "-q",
            "videotestsrc",
            "is-live=true",
            "!",
            "video/x-raw,width=176,height=144,framerate=15/1",
            "!",
            "x264enc",
        ]);
        command.args([
            "tune=zerolatency",
            "bframes=0",
            "key-int-max=15",
            "!",
            "video/x-h264,profile=constrained-baseline",
            "!",
            "h264parse",
            "!",
            "sink.sink_0",
        ]);
        command.args([
            "audiotestsrc",
            "is-live=true",
            "!",
            "audio/x-raw,rate=44100,channels=2",
            "!",
            "voaacenc",
            "!",
            "aacparse",
        ]);
        command.args(["!", "sink.sink_1", "rtspclientsink", "name=sink", &format!("protocols={transport}")]);
        command.arg(format!("location=rtsp://{}/cam1", daemon.rtsp));
        let mut publisher = Process::start(command);
        wait_until("the source", MINUTE, || {
            assert!(publisher.runs(), "{}\n{}", publisher.stderr(), daemon.log());
            is_up(&daemon)
        });
        let seen = pictures(&daemon, 3);
        assert!(seen.len() >= 30, "{transport}: {} pictures\n{}", seen.len(), daemon.log());
    }
}

/// The log tells it at once, the encoder when it comes again: what it is answered while it sends, it does not read.
#[test]
fn who_sends_pictures_in_another_order_is_told_so() {
    if !ready("who_sends_pictures_in_another_order_is_told_so", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(POINTS);
    let with_b_frames = |b_frames| reordering(&daemon, b_frames).finish(MINUTE);
    let ended = with_b_frames("2");
    assert!(!ended.status.success() && !ended.stderr.contains("415"), "{}", ended.stderr);
    assert!(daemon.log().contains("B-frames"), "{}", daemon.log());
    let ended = with_b_frames("2");
    assert!(ended.stderr.contains("415 Its pictures come in another order"), "{}", ended.stderr);
    assert!(ended.stderr.contains("-bf 0"), "{}", ended.stderr);
    let mut publisher = reordering(&daemon, "0");
    wait_for_publisher(&daemon, &mut publisher);
}

/// An ffmpeg that publishes H.264 with so many B-frames.
#[track_caller]
fn reordering(daemon: &Daemon, b_frames: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "warning", "-re", "-f", "lavfi", "-i", "testsrc2=rate=15:size=176x144", "-t", "20"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-bf", b_frames, "-b_strategy", "0", "-g", "15", "-f", "rtsp"]);
    command.args(["-rtsp_transport", "tcp"]).arg(format!("rtsp://{}/cam1", daemon.rtsp));
    Process::start(command)
}

#[test]
fn the_port_of_mms_takes_no_publishers() {
    let daemon = Daemon::start(POINTS);
    let mut stream = connect(daemon.mms);
    let url = format!("rtsp://{}/cam1", daemon.mms);
    let (options, _) = ask(&mut stream, &request(&format!("OPTIONS {url}"), 1, ""));
    assert!(options.starts_with("RTSP/1.0 200") && !options.contains("ANNOUNCE"), "{options}");
    let (refused, _) = ask(&mut stream, &announce(&url, 2, "", &description()));
    assert!(refused.starts_with("RTSP/1.0 405"), "{refused}");
}

#[test]
fn who_may_publish_is_as_by_http() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    passwd.arg("passwd").arg(&users).arg("anna").stdin(Stdio::piped()).stderr(Stdio::null());
    let mut passwd = passwd.spawn().unwrap();
    passwd.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    assert!(passwd.wait().unwrap().success());
    let daemon = Daemon::start(format!("{POINTS}[users]\nfile = {users:?}\n[access]\npublishers_deny = [\"127.0.0.9\"]\n"));
    let url = format!("rtsp://{}/cam1", daemon.rtsp);
    let mut stream = connect(daemon.rtsp);
    let (refused, _) = ask(&mut stream, &announce(&url, 1, "Authorization: Basic YW5uYTp3cm9uZw==\r\n", &description()));
    assert!(refused.starts_with("RTSP/1.0 401"), "{refused}");
    let challenge = Challenge::best(refused.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: "))).unwrap();
    let login = Login { user: "anna".into(), password: "s3cret".into() };
    let answer = challenge.answer(&login, "ANNOUNCE", &url, 1, "0123456789abcdef");
    assert!(answer.starts_with("Digest"), "{answer}");
    let (accepted, text) = ask(&mut stream, &announce(&url, 2, &format!("Authorization: {answer}\r\n"), &description()));
    assert!(accepted.starts_with("RTSP/1.0 200"), "{accepted}{text}");

    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.9:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&daemon.rtsp.into()).unwrap();
    let (denied, text) = ask(&mut TcpStream::from(socket), &announce(&url, 1, "", &description()));
    assert!(denied.starts_with("RTSP/1.0 403") && text.contains("127.0.0.9"), "{denied}{text}");
}

#[test]
fn inside_tls_only_the_connection_carries_what_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = Launch::new(POINTS).tls(tls::make_certificate(folder.path()).files).start();
    let mut stream = tls::connect(daemon.rtsps).unwrap();
    let url = format!("rtsps://{}/cam1", daemon.rtsps);
    let (announced, _) = ask(&mut stream, &announce(&url, 1, "", &description()));
    assert!(announced.starts_with("RTSP/1.0 200"), "{announced}");
    let setup = |transport: &str| request(&format!("SETUP {url}/video"), 2, &format!("Transport: {transport};mode=record\r\n"));
    let (udp, _) = ask(&mut stream, &setup("RTP/AVP/UDP;unicast;client_port=5000-5001"));
    assert!(udp.starts_with("RTSP/1.0 461"), "{udp}");
    let (tcp, _) = ask(&mut stream, &setup("RTP/AVP/TCP;unicast;interleaved=0-1"));
    assert!(tcp.starts_with("RTSP/1.0 200"), "{tcp}");
    let (recording, _) = ask(&mut stream, &request(&format!("RECORD {url}"), 3, ""));
    assert!(recording.starts_with("RTSP/1.0 200"), "{recording}");
    let (header, packets) = film();
    let mut all = Packets::new(Carriage::Datagrams, fragments(header.packet_size(), 60_000));
    for (number, packet) in (0..).zip(packets.iter().take(5)) {
        let info = walk(packet).unwrap();
        let facts = Facts { packet: number, send_time_ms: info.send_time_ms, key: info.key };
        all.push(packet, header.packet_size(), Flow { ssrc: 1, sequence: 1 }, facts);
    }
    for at in 0..5 {
        let rtp = all.stretch(at, 1).fragment(0).unwrap();
        let [high, low] = u16::try_from(rtp.len()).unwrap().to_be_bytes();
        stream.write_all(&[&[b'$', 0, high, low], rtp].concat()).unwrap();
    }
    wait_until("five packets", MINUTE, || daemon.metric("wmrelay_source_packets_total", &[("point", "cam1")]) == 5.0);
    drop(stream);
    wait_until("the end of the source", MINUTE, || !is_up(&daemon));
    wait_until("the end of its connection", MINUTE, || daemon.metric("wmrelay_tls_connections", &[]) == 0.0);
}
