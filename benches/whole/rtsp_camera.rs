//! A camera: numbered pictures in H.264 and a tone in AAC, in real time over RTSP, on the connection.
//!
//! It runs whether or not somebody watches, so who comes begins anywhere between two key frames. Each picture carries its number, as
//! [`numbers`] reads it off the decoded picture, whatever codec brought it; when a picture was sent is noted, for whoever has seen it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;

/// Pictures of a second, and of the clip that is sent over and over; a number has one bit for each eighth of a picture's width.
pub(crate) const FRAME_RATE: usize = 25;
pub(crate) const PICTURES: usize = 250;
const BITS: usize = 8;
const WIDTH: usize = 640;
const HEIGHT: usize = 360;
/// From one key frame to the next.
pub(crate) const KEY_FRAME_INTERVAL: Duration = Duration::from_secs(1);
const SAMPLE_RATE: usize = 44_100;
/// Samples of a block of AAC, and the AudioSpecificConfig of AAC-LC at this rate, one channel.
const BLOCK: usize = 1024;
const AAC_CONFIG: &str = "1208";
const VIDEO_CLOCK: usize = 90_000;
/// Most bytes of a NAL unit in one RTP packet.
const MTU: usize = 1400;
/// The second at which its clock begins, as NTP counts.
const NTP_BEGIN_S: u64 = 3_900_000_000;

#[expect(clippy::disallowed_methods, reason = "a bench keeps time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What it sends.
struct Clip {
    /// The NAL units of each picture.
    pictures: Vec<Vec<Vec<u8>>>,
    /// Blocks without their ADTS headers.
    sound: Vec<Vec<u8>>,
}

impl Clip {
    /// Encodes it in a folder.
    fn make(folder: &Path) -> Self {
        let (pictures, sound) = (folder.join("pictures.h264"), folder.join("sound.aac"));
        let seconds = (PICTURES / FRAME_RATE).to_string();
        let key_frames = FRAME_RATE * KEY_FRAME_INTERVAL.as_secs() as usize;
        let mut encoder = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "gray"])
            .args(["-video_size", &format!("{WIDTH}x{HEIGHT}"), "-framerate", &FRAME_RATE.to_string(), "-i", "-"])
            .args(["-f", "lavfi", "-i", &format!("sine=440:sample_rate={SAMPLE_RATE}")])
            .args(["-map", "0", "-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-profile:v", "main"])
            .args(["-pix_fmt", "yuv420p", "-bf", "0", "-sc_threshold", "0", "-g", &key_frames.to_string()])
            .args(["-b:v", "1500k", "-maxrate:v", "1500k", "-bufsize:v", "500k"])
            .arg(&pictures)
            .args(["-map", "1", "-c:a", "aac", "-b:a", "64k", "-ac", "1", "-t", &seconds])
            .arg(&sound)
            .stdin(Stdio::piped())
            .spawn()
            .expect("ffmpeg is there: tests/run installs it");
        let mut raw = encoder.stdin.take().expect("a pipe");
        for number in 0..PICTURES {
            raw.write_all(&picture(number)).expect("ffmpeg reads");
        }
        drop(raw);
        assert!(encoder.wait().is_ok_and(|status| status.success()), "ffmpeg makes the camera's clip");
        let read = |path| std::fs::read(path).expect("it was made");
        let clip = Self { pictures: access_units(&read(&pictures)), sound: adts(&read(&sound)) };
        assert_eq!(clip.pictures.len(), PICTURES);
        clip
    }

    /// The first parameter sets, and what they say of profile and level.
    fn description(&self) -> String {
        let encode = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
        let [sps, pps] = [7, 8].map(|kind| self.pictures[0].iter().find(|unit| unit[0] & 31 == kind).expect("a key frame"));
        let profile: String = sps[1..4].iter().map(|byte| format!("{byte:02x}")).collect();
        [
            "v=0",
            "o=- 1 1 IN IP4 127.0.0.1",
            "s=camera",
            "t=0 0",
            "a=control:*",
            "m=video 0 RTP/AVP 96",
            &format!("a=rtpmap:96 H264/{VIDEO_CLOCK}"),
            &format!(
                "a=fmtp:96 packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={},{}",
                encode(sps),
                encode(pps)
            ),
            "a=control:track0",
            "m=audio 0 RTP/AVP 97",
            &format!("a=rtpmap:97 MPEG4-GENERIC/{SAMPLE_RATE}/1"),
            &format!("a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={AAC_CONFIG}"),
            "a=control:track1\r\n",
        ]
        .join("\r\n")
    }
}

/// A picture of grey: its number along the upper edge, noise below for the encoder to work on.
fn picture(number: usize) -> Vec<u8> {
    let mut noise = number as u32 + 1;
    let pixel = |at: usize| {
        let (x, y) = (at % WIDTH, at / WIDTH);
        if y < HEIGHT / 4 {
            return if number >> (x * BITS / WIDTH) & 1 == 1 { 235 } else { 16 };
        }
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((x + y + number * 3) % 160 + (noise >> 27) as usize + 30) as u8
    };
    (0..WIDTH * HEIGHT).map(pixel).collect()
}

/// The numbers of the pictures in a file, by what ffmpeg decodes of it.
pub(crate) fn numbers(file: &Path) -> Vec<usize> {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-map", "0:v", "-fps_mode", "passthrough", "-vf", &format!("scale={BITS}:4:flags=area,format=gray")])
        .args(["-f", "rawvideo", "-"])
        .stderr(Stdio::inherit())
        .output()
        .expect("ffmpeg runs");
    let number = |picture: &[u8]| (0..BITS).map(|bit| usize::from(picture[bit] > 128) << bit).sum();
    decoded.stdout.chunks_exact(BITS * 4).map(number).collect()
}

/// The NAL units of each picture of a stream with start codes.
fn access_units(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let begins: Vec<usize> = (3..stream.len()).filter(|at| stream[at - 3..*at] == [0, 0, 1]).collect();
    let ends = begins.iter().skip(1).map(|next| next - 3).chain([stream.len()]);
    let mut pictures: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    let mut is_begun = false;
    for (begin, end) in begins.iter().zip(ends) {
        let len = stream[*begin..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let unit = stream[*begin..begin + len].to_vec();
        let is_slice = matches!(unit[0] & 31, 1..=5);
        // A slice that begins with the first macroblock, or what stands before one.
        if is_begun && (!is_slice || unit[1] & 0x80 != 0) {
            pictures.push(Vec::new());
            is_begun = false;
        }
        is_begun |= is_slice;
        pictures.last_mut().expect("at least one").push(unit);
    }
    pictures
}

/// The blocks of AAC in ADTS.
fn adts(mut stream: &[u8]) -> Vec<Vec<u8>> {
    const HEAD: usize = 7;
    let mut blocks = Vec::new();
    while stream.len() > HEAD {
        let len = usize::from(stream[3] & 3) << 11 | usize::from(stream[4]) << 3 | usize::from(stream[5]) >> 5;
        blocks.push(stream[HEAD..len].to_vec());
        stream = &stream[len..];
    }
    blocks
}

/// What all connections share.
struct Shared {
    clip: Clip,
    begin: Instant,
    /// When each picture was sent last, by its number since the beginning.
    sent: Mutex<Vec<Option<Instant>>>,
}

impl Shared {
    fn picture_due(&self, n: usize) -> Instant {
        self.begin + Duration::from_secs(1) * n as u32 / FRAME_RATE as u32
    }

    fn block_due(&self, n: usize) -> Instant {
        self.begin + Duration::from_micros((n * BLOCK * 1_000_000 / SAMPLE_RATE) as u64)
    }

    fn note(&self, n: usize) {
        let mut sent = self.sent.lock().expect("no panics");
        let len = sent.len().max(n + 1);
        sent.resize(len, None);
        sent[n] = Some(now());
    }
}

/// It serves for as long as the program runs.
pub(crate) struct Camera {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Camera {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let shared = Arc::new(Shared { clip: Clip::make(folder.path()), begin: now(), sent: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("rtsp://{}/camera", self.address)
    }

    /// How long before `seen` the picture of this number was sent last.
    pub(crate) fn age(&self, number: usize, seen: Instant) -> Option<Duration> {
        let sent = self.shared.sent.lock().expect("no panics");
        let times = sent.iter().skip(number).step_by(PICTURES).rev().flatten();
        times.filter_map(|sent| seen.checked_duration_since(*sent)).next()
    }
}

/// Answers until the peer leaves, and plays when it is asked to.
fn serve(stream: TcpStream, shared: &Arc<Shared>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let writer = Arc::new(Mutex::new(stream.try_clone().ok()?));
    let gone = Arc::new(AtomicBool::new(false));
    let result = converse(stream, shared, &writer, &gone);
    gone.store(true, Ordering::Relaxed);
    result
}

fn converse(mut stream: TcpStream, shared: &Arc<Shared>, writer: &Arc<Mutex<TcpStream>>, gone: &Arc<AtomicBool>) -> Option<()> {
    let (mut received, mut bytes, mut channels) = (Vec::new(), [0; 4096], [0, 2]);
    loop {
        while let Some(request) = next_request(&mut received) {
            let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let mut words = request.split(' ');
            let (method, url) = (words.next()?, words.next()?);
            let mut status = "200 OK";
            let (more, body) = match method {
                "OPTIONS" => ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n".to_owned(), String::new()),
                "DESCRIBE" => {
                    let body = shared.clip.description();
                    (format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", body.len()), body)
                }
                "SETUP" => {
                    match field("Transport: ").split("interleaved=").nth(1).and_then(|to| to.split('-').next()?.parse().ok()) {
                        Some(channel) => {
                            channels[usize::from(url.ends_with('1'))] = channel;
                            let spec = format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1);
                            (format!("Session: 1;timeout=60\r\nTransport: {spec}\r\n"), String::new())
                        }
                        None => {
                            status = "461 Unsupported Transport";
                            Default::default()
                        }
                    }
                }
                _ => Default::default(),
            };
            let answer = format!("RTSP/1.0 {status}\r\nCSeq: {}\r\n{more}\r\n{body}", field("CSeq: "));
            writer.lock().ok()?.write_all(answer.as_bytes()).ok()?;
            if method == "PLAY" {
                let (shared, writer, gone) = (Arc::clone(shared), Arc::clone(writer), Arc::clone(gone));
                std::thread::spawn(move || play(&shared, &writer, channels, &gone));
            }
        }
        let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
        received.extend_from_slice(&bytes[..count]);
    }
}

/// Takes a request that is whole; receiver reports in between are left out.
fn next_request(received: &mut Vec<u8>) -> Option<String> {
    loop {
        if received.first() == Some(&b'$') {
            let len = 4 + usize::from(u16::from_be_bytes([*received.get(2)?, *received.get(3)?]));
            received.get(..len)?;
            received.drain(..len);
        } else {
            let len = received.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
            return Some(String::from_utf8_lossy(&received.drain(..len).collect::<Vec<_>>()).into_owned());
        }
    }
}

/// Sends what falls due from now on, until the peer is gone.
fn play(shared: &Shared, writer: &Mutex<TcpStream>, [video, audio]: [u8; 2], gone: &AtomicBool) -> Option<()> {
    let since = now().duration_since(shared.begin);
    let mut next_picture = (since.as_secs_f64() * FRAME_RATE as f64) as usize + 1;
    let mut next_block = (since.as_secs_f64() * SAMPLE_RATE as f64 / BLOCK as f64) as usize + 1;
    let (mut video, mut audio) = (Track::new(video, 96), Track::new(audio, 97));
    let reports = [video.report(since, VIDEO_CLOCK), audio.report(since, SAMPLE_RATE)].concat();
    writer.lock().ok()?.write_all(&reports).ok()?;
    while !gone.load(Ordering::Relaxed) {
        let (picture_due, block_due) = (shared.picture_due(next_picture), shared.block_due(next_block));
        std::thread::sleep(picture_due.min(block_due).saturating_duration_since(now()));
        if picture_due <= block_due {
            let timestamp = (next_picture * (VIDEO_CLOCK / FRAME_RATE)) as u32;
            let packets = video.picture(&shared.clip.pictures[next_picture % PICTURES], timestamp);
            let mut writer = writer.lock().ok()?;
            shared.note(next_picture);
            writer.write_all(&packets).ok()?;
            next_picture += 1;
        } else {
            let block = &shared.clip.sound[next_block % shared.clip.sound.len()];
            // One access unit: 16 bits of headers, which are its size in 13 of them and an index.
            let payload = [&[0, 16][..], &((block.len() as u16) << 3).to_be_bytes(), block].concat();
            let packet = audio.packet(&payload, (next_block * BLOCK) as u32, true);
            writer.lock().ok()?.write_all(&packet).ok()?;
            next_block += 1;
        }
    }
    None
}

/// RTP of one track, on its channel of the connection.
struct Track {
    channel: u8,
    payload_type: u8,
    sequence: u16,
}

impl Track {
    const fn new(channel: u8, payload_type: u8) -> Self {
        Self { channel, payload_type, sequence: 0 }
    }

    fn picture(&mut self, units: &[Vec<u8>], timestamp: u32) -> Vec<u8> {
        let mut packets = Vec::new();
        for (at, unit) in units.iter().enumerate() {
            let is_last = at + 1 == units.len();
            if unit.len() <= MTU {
                packets.append(&mut self.packet(unit, timestamp, is_last));
                continue;
            }
            // FU-A: the unit's first byte in two. RFC 6184 5.8.
            let (head, pieces) = (unit[0], unit[1..].chunks(MTU).collect::<Vec<_>>());
            for (piece_at, piece) in pieces.iter().enumerate() {
                let ends = piece_at + 1 == pieces.len();
                let indicator = [head & 0x60 | 28, head & 31 | u8::from(piece_at == 0) << 7 | u8::from(ends) << 6];
                packets.append(&mut self.packet(&[&indicator, *piece].concat(), timestamp, ends && is_last));
            }
        }
        packets
    }

    fn packet(&mut self, payload: &[u8], timestamp: u32, marker: bool) -> Vec<u8> {
        let mut packet = vec![b'$', self.channel];
        packet.extend((payload.len() as u16 + 12).to_be_bytes());
        packet.extend([0x80, self.payload_type | u8::from(marker) << 7]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, self.payload_type]);
        packet.extend(payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// A sender report: its clock so long after the beginning.
    fn report(&self, since: Duration, clock: usize) -> Vec<u8> {
        let mut packet = vec![b'$', self.channel + 1, 0, 28, 0x80, 200, 0, 6, 0, 0, 0, self.payload_type];
        packet.extend(((NTP_BEGIN_S + since.as_secs()) as u32).to_be_bytes());
        packet.extend(((f64::from(since.subsec_nanos()) * 4.294_967_296) as u32).to_be_bytes());
        packet.extend(((since.as_secs_f64() * clock as f64) as u32).to_be_bytes());
        packet.extend([0; 8]);
        packet
    }
}
