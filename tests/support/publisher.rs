//! Publishers: a real ffmpeg, and one of our own that keeps exact rates.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::asf::Synthetic;
use super::process::Process;

/// What [`clip`] holds.
pub const CLIP_SECONDS: u32 = 2;
/// Video frames for each second of [`clip`].
pub const CLIP_FRAME_RATE: u32 = 15;

/// A short ASF file with picture and sound, made once by ffmpeg: [`CLIP_SECONDS`] long, a key frame each second.
#[track_caller]
pub fn clip() -> &'static Path {
    static CLIP: OnceLock<PathBuf> = OnceLock::new();
    CLIP.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mine = folder.join(format!("clip-{}.asf", std::process::id()));
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]);
        command.args(["-f", "lavfi", "-i", &format!("testsrc2=size=320x240:rate={CLIP_FRAME_RATE}")]);
        command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"]);
        command.args(["-t", &CLIP_SECONDS.to_string(), "-c:v", "wmv2", "-b:v", "200k", "-g", &CLIP_FRAME_RATE.to_string()]);
        command.args(["-c:a", "wmav2", "-b:a", "48k", "-packet_size", "1400", "-f", "asf"]).arg(&mine);
        let made = Process::start(command).finish(Duration::from_secs(60));
        assert!(made.status.success(), "ffmpeg makes no clip: {}", made.stderr);
        // Renamed at the end, so that a test binary beside this one finds a whole file or none.
        let clip = folder.join("clip.asf");
        std::fs::rename(&mine, &clip).unwrap();
        clip
    })
}

/// The arguments of an ffmpeg that plays [`clip`] for ever in real time, to be followed by the output.
pub fn clip_for_ever() -> Vec<String> {
    let clip = clip().display().to_string();
    let words = ["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-stream_loop", "-1", "-i", &clip];
    let output = ["-c", "copy", "-packet_size", "1400"];
    words.iter().chain(&output).map(|word| (*word).to_owned()).collect()
}

/// ffmpeg as a publisher: `format` is `asf` or `asf_stream`.
#[track_caller]
pub fn ffmpeg_push(format: &str, method: &str, url: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(push_arguments(format, method, url));
    Process::start(command)
}

/// The arguments of [`ffmpeg_push`], for an ffmpeg elsewhere.
pub fn push_arguments(format: &str, method: &str, url: &str) -> Vec<String> {
    let mut arguments = clip_for_ever();
    arguments.extend(["-f", format, "-method", method, url].map(str::to_owned));
    arguments
}

/// A publisher of a [`Synthetic`] stream at its own rate, on a thread.
pub struct Publisher {
    stop: Arc<AtomicBool>,
    /// Leave without a word: no last chunk, no answer read.
    cut: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<Result<String, String>>>,
}

impl Publisher {
    /// Publishes packets from number 0 on, `limit` of them or until stopped.
    pub fn start(http: SocketAddr, name: &str, stream: Synthetic, limit: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cut = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU32::new(0));
        let path = format!("/publish/{name}");
        let task = Task { http, path, stream, limit, stop: Arc::clone(&stop), cut: Arc::clone(&cut), sent: Arc::clone(&sent) };
        let thread = std::thread::spawn(move || task.run().map_err(|error| error.to_string()));
        Self { stop, cut, sent, thread: Some(thread) }
    }

    /// Packets handed to the connection so far.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Whether it is still at work.
    pub fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the body properly; the daemon's answer, or the error that ended the connection.
    pub fn end(mut self) -> Result<String, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Lets the connection go as a machine does whose cable was cut, but for the FIN.
    pub fn vanish(self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Task {
    http: SocketAddr,
    path: String,
    stream: Synthetic,
    limit: u32,
    stop: Arc<AtomicBool>,
    cut: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
}

impl Task {
    fn run(&self) -> std::io::Result<String> {
        let mut connection = TcpStream::connect_timeout(&self.http, Duration::from_secs(5))?;
        connection.set_nodelay(true)?;
        connection.set_write_timeout(Some(Duration::from_secs(10)))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            connection,
            "POST {} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            self.path, self.http
        )?;
        connection.write_all(&chunk(&self.stream.header()))?;
        let begin = Instant::now();
        let mut number = 0;
        while number < self.limit && !self.stop.load(Ordering::SeqCst) {
            let due_ms = begin.elapsed().as_millis();
            let mut batch = Vec::new();
            while number < self.limit && u128::from(self.stream.send_time_ms(number)) <= due_ms {
                batch.extend(self.stream.packet(number));
                number += 1;
            }
            if !batch.is_empty() {
                connection.write_all(&chunk(&batch))?;
                self.sent.store(number, Ordering::SeqCst);
            }
            // The encoder's own clock: packets come in real time, ten milliseconds at once.
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.cut.load(Ordering::SeqCst) {
            return Ok(String::new());
        }
        connection.write_all(b"0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
