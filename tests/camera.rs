//! Cameras without a child process: gst-rtsp-server at one end, ffmpeg and other players at the other, and peers that are no cameras.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic is a test's report; numbers of tests are small"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use support::camera::{A_LAW, AAC, CAMERA, Camera, H264, H264_B_FRAMES, MJPEG};
use support::daemon::Daemon;
use support::player::{self, Frame, frames, of_stream};
use support::process::Process;
use support::viewer::wait_for_source;
use support::{ready, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Settings of a daemon whose `cam` is a camera; `more` is added to its source.
fn settings(url: &str, more: &str) -> String {
    format!("[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"camera\", url = \"{url}\"{more} }}\n")
}

/// ffmpeg that reads all streams of a URL for some seconds; decoded, or the frames as they are.
fn read(url: &str, seconds: u32, is_copied: bool) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "warning"]);
    if url.starts_with("rtsp:") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.args(["-i", url, "-map", "0", "-t", &seconds.to_string()]);
    if is_copied {
        command.args(["-c", "copy"]);
    } else {
        command.args(["-fps_mode", "passthrough"]);
    }
    command.args(["-f", "framemd5", "-"]);
    Process::start(command)
}

/// How many frames in a row are the same in both, from the first that is in both on.
fn common(ours: &[Frame], theirs: &[Frame]) -> usize {
    // What is at the very begin may lack what it refers to.
    let start = ours.iter().enumerate().skip(1).find_map(|(at, frame)| {
        let there = theirs.iter().position(|other| other.md5 == frame.md5)?;
        Some((at, there))
    });
    let Some((at, there)) = start else { return 0 };
    ours[at..].iter().zip(&theirs[there..]).take_while(|(ours, theirs)| ours.md5 == theirs.md5).count()
}

/// Reads the camera at both ends at once, and expects so many frames of each stream to be the same.
#[track_caller]
fn assert_same(daemon: &Daemon, camera: &Camera, is_copied: bool, expected: [usize; 2]) {
    wait_for_source(daemon, "cam");
    let theirs = read(&camera.url(), 6, is_copied);
    let ours = read(&daemon.url("mmst", "cam"), 6, is_copied);
    let (theirs, ours) = (theirs.finish(LIMIT), ours.finish(LIMIT));
    for (stream, expected) in expected.into_iter().enumerate() {
        let [of_ours, of_theirs] = [&ours, &theirs].map(|done| of_stream(&frames(&done.stdout), stream));
        let common = common(&of_ours, &of_theirs);
        assert!(
            common >= expected,
            "stream {stream}: {common} of {} and {} frames\n{}\n{}\n{}\n{}",
            of_ours.len(),
            of_theirs.len(),
            ours.stderr,
            theirs.stderr,
            ours.stdout,
            theirs.stdout
        );
        // This server begins its clocks anew whenever somebody else comes; else steps of time are the camera's, to the millisecond.
        let mut steps: Vec<f64> = of_ours.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
        steps.sort_by(f64::total_cmp);
        assert!(steps.is_empty() || steps[steps.len() * 9 / 10] - steps[steps.len() / 10] < 0.003, "{steps:?}");
    }
}

#[test]
fn h264_and_g711_come_bit_by_bit() {
    let test = "h264_and_g711_come_bit_by_bit";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264, A_LAW], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ""));
    assert_same(&daemon, &camera, true, [30, 100]);
    assert_same(&daemon, &camera, false, [30, 0]);
}

#[test]
fn h264_and_aac_over_udp() {
    let test = "h264_and_aac_over_udp";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264, AAC], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ", transport = \"udp\""));
    assert_same(&daemon, &camera, true, [30, 80]);
    assert!(daemon.log().contains("transport=\"udp\""), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn an_ffmpeg_that_copies_brings_the_same_pictures() {
    let test = "an_ffmpeg_that_copies_brings_the_same_pictures";
    if !ready(test, &[CAMERA, &[support::Need::Program("ffprobe")]].concat()) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264, AAC], None) else { return };
    let url = camera.url();
    let copy = format!(
        "[[publishing_point]]\nname = \"copy\"\nsource = {{ type = \"ffmpeg\", input = \"{url}\", profile = \"wmp12\" }}\n"
    );
    let daemon = Daemon::start(settings(&url, "") + &copy);
    for name in ["cam", "copy"] {
        wait_for_source(&daemon, name);
    }
    assert!(daemon.log().contains("copies_video=true copies_audio=true"), "{}", daemon.log());
    // What one has later than the other is no matter: each begins with a key frame of its own.
    let both = ["cam", "copy"].map(|name| read(&daemon.url("mmst", name), 8, false)).map(|process| process.finish(LIMIT));
    let [by_us, by_ffmpeg] =
        [&both[0], &both[1]].map(|done| of_stream(&frames(&done.stdout), player::video_stream(&done.stdout)));
    let common = common(&by_us, &by_ffmpeg);
    assert!(common >= 45, "{common} of {} and {} pictures\n{}{}", by_us.len(), by_ffmpeg.len(), both[0].stderr, both[1].stderr);
}

#[test]
fn motion_jpeg_shows_the_same_pictures() {
    let test = "motion_jpeg_shows_the_same_pictures";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[MJPEG, A_LAW], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ""));
    // Tables may be written in another way than ffmpeg writes them: it is pictures that count.
    assert_same(&daemon, &camera, false, [20, 0]);
}

#[test]
fn other_players_play_it() {
    let test = "other_players_play_it";
    let needs = [CAMERA, &[support::Need::Program("cvlc"), support::Need::Program("mplayer")]].concat();
    if !ready(test, &needs) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264, AAC], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ""));
    wait_for_source(&daemon, "cam");
    let mut vlc = player::Vlc::play(&daemon.url("mmsh", "cam").replace(&daemon.mms.to_string(), &daemon.http.to_string()));
    let pictures = player::mplayer(&daemon.url("mmst", "cam"), 30);
    assert_eq!(pictures.len(), 30, "MPlayer");
    vlc.wait_for_pictures(30, LIMIT);
    let file = daemon.folder().join("pictures");
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "playbin", &format!("uri={}", daemon.rtsp_url("rtspt", "cam")), "audio-sink=fakesink"]);
    command.arg(format!(
        "video-sink=videoconvert ! video/x-raw,format=I420 ! filesink buffer-mode=unbuffered location={}",
        file.display()
    ));
    let mut gstreamer = Process::start(command);
    let len = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    wait_until("30 pictures of GStreamer's", LIMIT, || {
        assert!(gstreamer.runs(), "{}", gstreamer.stderr());
        len() >= 30 * 176 * 144 * 3 / 2
    });
}

#[test]
fn a_password_is_asked_for_and_not_told() {
    let test = "a_password_is_asked_for_and_not_told";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264], Some(("viewer", "s3cret"))) else { return };
    for (more, words) in [
        ("", "it wants a user and a password"),
        (", user = \"viewer\", password = \"wr0ng\"", "it refuses the user or the password"),
    ] {
        let daemon = Daemon::start(settings(&camera.url(), more));
        wait_until(words, LIMIT, || daemon.log().contains(words));
        assert!(!daemon.log().contains("wr0ng"), "{}", daemon.log());
        assert!(daemon.metric("wmrelay_camera_connects_total", &[("point", "cam"), ("result", "failed")]) >= 1.0);
    }
    let in_url = camera.url().replace("rtsp://", "rtsp://viewer:s3cret@");
    for (url, more) in [(camera.url(), ", user = \"viewer\", password = \"s3cret\""), (in_url, "")] {
        let daemon = Daemon::start(settings(&url, more));
        wait_for_source(&daemon, "cam");
        assert!(!daemon.log().contains("s3cret"), "{}", daemon.log());
    }
}

#[test]
fn a_camera_that_is_switched_off_and_on() {
    let test = "a_camera_that_is_switched_off_and_on";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(mut camera) = Camera::start(test, &[H264, A_LAW], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ""));
    wait_for_source(&daemon, "cam");
    let mut viewer = player::ffmpeg(&daemon.url("mmst", "cam"), 0);
    player::wait_for_frames(&mut viewer, 15, LIMIT);
    for _ in 0..2 {
        camera.switch_off();
        wait_until("the loss is noticed", LIMIT, || daemon.metric("wmrelay_source_up", &[("point", "cam")]) == 0.0);
        let before = of_stream(&frames(&viewer.stdout()), 0).len();
        camera.switch_on();
        player::wait_for_frames(&mut viewer, before + 30, LIMIT);
        assert!(viewer.runs(), "the viewer stays connected\n{}", viewer.stderr());
    }
}

#[test]
fn pictures_out_of_order_are_refused_in_words() {
    let test = "pictures_out_of_order_are_refused_in_words";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264_B_FRAMES], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ""));
    wait_until("it is told", LIMIT, || daemon.log().contains("in another order than they are shown in (B-frames), which"));
    assert!(daemon.log().contains("use a source of type"), "{}", daemon.log());
}

#[test]
fn it_runs_while_somebody_watches() {
    let test = "it_runs_while_somebody_watches";
    if !ready(test, CAMERA) {
        return;
    }
    let Some(camera) = Camera::start(test, &[H264, A_LAW], None) else { return };
    let daemon = Daemon::start(settings(&camera.url(), ", start = \"watched\", linger_s = 0"));
    let done = read(&daemon.url("mmst", "cam"), 2, false).finish(LIMIT);
    assert!(of_stream(&frames(&done.stdout), 0).len() >= 15, "{}{}", done.stdout, done.stderr);
    wait_until("nobody watches", LIMIT, || daemon.log().contains("left, nobody watches"));
}

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0LADdkBQfsBEAAAAwAQAAADAyDxQqSA,aMuDyyA=\r\na=control:t\r\n";

/// What a hostile camera does once it plays.
#[derive(Debug, Clone, Copy)]
enum Mischief {
    /// Answers nothing.
    Nothing,
    /// Bytes that are no RTSP, at once.
    Garbage,
    /// A message whose body never ends.
    EndlessBody,
    /// One picture in packets of 65,527 bytes, without end.
    EndlessPicture,
    /// Small pictures without a key frame, as fast as they are taken.
    Flood,
    /// Key frames, each with another size of pictures, as fast as they are taken.
    Headers,
}

fn rtp(sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![b'$', 0];
    packet.extend((payload.len() as u16 + 12).to_be_bytes());
    packet.extend([0x80, 96 | if marker { 0x80 } else { 0 }]);
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

/// Answers requests until PLAY; `None` when the peer is gone.
fn plays(stream: &mut TcpStream) -> Option<()> {
    let (mut text, mut bytes) = (String::new(), [0; 4096]);
    loop {
        while let Some(end) = text.find("\r\n\r\n") {
            let request: String = text.drain(..end + 4).collect();
            let cseq = request.lines().find_map(|line| line.strip_prefix("CSeq: "))?.to_owned();
            let (more, body) = match request.split(' ').next()? {
                "DESCRIBE" => (format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", SDP.len()), SDP),
                "SETUP" => ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n".to_owned(), ""),
                _ => (String::new(), ""),
            };
            write!(stream, "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{more}\r\n{body}").ok()?;
            if request.starts_with("PLAY") {
                return Some(());
            }
        }
        let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

/// Until the peer closes.
fn misbehave(stream: &mut TcpStream, mischief: Mischief) -> Option<()> {
    match mischief {
        Mischief::Nothing => {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).ok()? > 0 {}
        }
        Mischief::Garbage => loop {
            stream.write_all(&[0xFF; 4096]).ok()?;
        },
        Mischief::EndlessBody => {
            stream.write_all(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 99999999999999\r\n\r\n").ok()?;
            loop {
                stream.write_all(&[b'x'; 65_536]).ok()?;
            }
        }
        Mischief::EndlessPicture => {
            plays(stream)?;
            stream.write_all(&rtp(0, 0, false, &[0x7C, 0x85, 0x88, 1])).ok()?;
            let piece = [&[0x7C, 0x05][..], &[7; 65_513]].concat();
            for sequence in (0..=u16::MAX).cycle().skip(1) {
                stream.write_all(&rtp(sequence, 0, false, &piece)).ok()?;
            }
        }
        Mischief::Flood => {
            plays(stream)?;
            for number in 0_u32.. {
                stream.write_all(&rtp(number as u16, number * 3000, true, &[&[0x61, 0x88][..], &[7; 1000]].concat())).ok()?;
            }
        }
        Mischief::Headers => {
            plays(stream)?;
            for number in 0_u32.. {
                // Baseline, level 1; sizes of one to eight blocks by Exp-Golomb codes: each other one is another stream.
                let sps: &[u8] = if number % 2 == 0 { SPS[0] } else { SPS[1] };
                for (index, nal) in [sps, &[0x68, 0xCB, 0x83, 0xCB, 0x20], &[0x65, 0x88, 1, 2, 3]].into_iter().enumerate() {
                    stream.write_all(&rtp((number * 3) as u16 + index as u16, number * 90_000, index == 2, nal)).ok()?;
                }
            }
        }
    }
    None
}

/// Of x264: 320 by 240, and 640 by 360.
const SPS: [&[u8]; 2] = [
    &[0x67, 0x42, 0xC0, 0x0D, 0xD9, 0x01, 0x41, 0xFB, 0x01, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0x20, 0xF1, 0x42, 0xA4, 0x80],
    &[
        0x67, 0x4D, 0x40, 0x1E, 0xEC, 0xA0, 0x50, 0x17, 0xFC, 0xB8, 0x08, 0x80, 0, 0, 3, 0, 0x80, 0, 0, 0x19, 0x07, 0x8B, 0x16,
        0xCB,
    ],
];

/// Serves mischief to whoever connects, for as long as the test runs.
fn hostile(mischief: Mischief) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || misbehave(&mut stream, mischief));
        }
    });
    address
}

#[test]
fn hostile_cameras_are_bounded_and_told_of_and_others_play_on() {
    let all = [
        (Mischief::Nothing, "DESCRIBE without answer for 10 s"),
        (Mischief::Garbage, "what it sends is no RTSP"),
        (Mischief::EndlessBody, "what it sends is no RTSP"),
        (Mischief::EndlessPicture, "a frame of over 8 MiB"),
        (Mischief::Flood, "no key frame within 30 s"),
    ];
    let mut text = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n".to_owned();
    for (index, (mischief, _)) in all.iter().chain(&[(Mischief::Headers, "")]).enumerate() {
        let source = format!("{{ type = \"camera\", url = \"rtsp://{}/x\" }}", hostile(*mischief));
        text.push_str(&format!("[[publishing_point]]\nname = \"bad{index}\"\nsource = {source}\n"));
    }
    let daemon = Daemon::start(text);
    wait_for_source(&daemon, "demo");
    let viewer = support::viewer::Viewer::tcp(daemon.mms, "demo");
    let mut most_kib = 0;
    for (index, (mischief, words)) in all.iter().enumerate() {
        wait_until(&format!("{mischief:?} is told"), LIMIT, || {
            most_kib = most_kib.max(daemon.resident_kib());
            let name = format!("bad{index}");
            daemon.log().lines().any(|line| line.contains(&name) && line.contains(words))
        });
    }
    wait_for_source(&daemon, "bad5");
    assert!(most_kib < 200_000, "{most_kib} KiB");
    let generations = daemon.log().lines().filter(|line| line.contains("bad5") && line.contains("begins")).count();
    assert!((1..=20).contains(&generations), "headers come 5 s apart: {generations}");
    viewer.wait_for_packets(20, LIMIT);
    viewer.assert_undisturbed();
}
