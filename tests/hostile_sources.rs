//! Sources that are broken or up to something, in each way that streams come in: bounded, told of, and others play on.
//!
//! Cameras have theirs in `camera.rs`, and what ffmpeg itself makes of bad inputs is in `transcode.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a panic is a test's report; it runs on the real clock; numbers of tests are small"
)]

mod support;

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::asf::Synthetic;
use support::daemon::Daemon;
use support::publisher::Publisher;
use support::viewer::{Viewer, wait_for_source};
use support::web::WebServer;
use support::{Random, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
/// What the others watch: 1.1 Mbit/s.
const GOOD: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 100 };
/// Packets of the largest size that there is.
const LARGEST: Synthetic = Synthetic { packet_size: 65_527, packets_per_second: 5 };
/// Each publishing point keeps a window of that much.
const WINDOW_BYTES: u64 = 4 << 20;
/// What a daemon may take more for twenty such publishing points: their windows, and some. Floods alone bring as much in a few seconds.
const GROWTH_KIB: u64 = 128 << 10;

/// What a source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    /// Bytes that mean nothing, as fast as they are taken.
    Garbage,
    /// Nothing at all.
    Nothing,
    /// Packets without time between them, as fast as they are taken: 10 Gbit/s where that is what the line carries.
    Flood,
    /// Another header each second.
    Headers,
    /// Packets of 65,527 bytes, in time.
    Largest,
}

use Mischief::{Flood, Garbage, Headers, Largest, Nothing};

/// Does it until nobody reads any more; `written` counts bytes.
fn misbehave(mischief: Mischief, out: &mut dyn Write, written: &AtomicU64) -> io::Result<()> {
    let mut write = |bytes: &[u8]| {
        out.write_all(bytes)?;
        written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        io::Result::Ok(())
    };
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));
    match mischief {
        Garbage => {
            let noise = Random(3).bytes(64 << 10);
            loop {
                write(&noise)?;
            }
        }
        Nothing => loop {
            // Long beyond what any of them waits for.
            pause(600_000);
        },
        Flood => {
            write(&GOOD.header())?;
            // All of one moment.
            let packets: Vec<u8> = (0..40).flat_map(|_| GOOD.packet(0)).collect();
            loop {
                write(&packets)?;
            }
        }
        Headers => {
            for number in 0.. {
                let stream = Synthetic { packet_size: 1000 + number % 2 * 100, packets_per_second: 100 };
                write(&[chunk(b'H', &stream.header()), chunk(b'D', &stream.packet(0))].concat())?;
                pause(1000);
            }
            Ok(())
        }
        Largest => {
            write(&LARGEST.header())?;
            for number in 0.. {
                write(&LARGEST.packet(number))?;
                pause(200);
            }
            Ok(())
        }
    }
}

/// What encoders frame headers (`H`) and packets (`D`) with, so that another header may follow: `$H`, the length, number, flags and
/// the length again.
fn chunk(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len() + 8).unwrap().to_le_bytes();
    [&[b'$', kind][..], &len, &[0, 0, 0, 0, 0, 0x0C], &len, bytes].concat()
}

/// The body of a request, in chunks.
struct Chunked(TcpStream);

impl Write for Chunked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write!(self.0, "{:x}\r\n", bytes.len())?;
        self.0.write_all(bytes)?;
        self.0.write_all(b"\r\n")?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Pushes it, again and again as encoders do, for as long as the test runs. What the server answers is read, and dropped.
fn push(http: SocketAddr, name: &str, mischief: Mischief, written: &Arc<AtomicU64>) {
    let (head, written) = (
        format!("POST /publish/{name} HTTP/1.1\r\nHost: {http}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"),
        Arc::clone(written),
    );
    std::thread::spawn(move || {
        while let Ok(mut stream) = TcpStream::connect(http) {
            let mut answers = stream.try_clone().unwrap();
            std::thread::spawn(move || while answers.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {});
            if stream.write_all(head.as_bytes()).is_ok() {
                let _ = misbehave(mischief, &mut Chunked(stream), &written);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

/// Writes it into a pipe with a name, again and again, for who opens that; a child then copies it to its own output.
fn pipe(folder: &Path, name: &str, mischief: Mischief, written: &Arc<AtomicU64>) -> PathBuf {
    let path = folder.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (fifo, written) = (path.clone(), Arc::clone(written));
    std::thread::spawn(move || {
        // Waits until somebody reads; fails when the test is over and the folder gone.
        while let Ok(mut file) = OpenOptions::new().write(true).open(&fifo) {
            let _ = misbehave(mischief, &mut file, &written);
        }
    });
    path
}

fn serve(mischief: Mischief, written: &Arc<AtomicU64>) -> WebServer {
    let written = Arc::clone(written);
    WebServer::start(move |_, stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-ms-asf\r\n\r\n")?;
        misbehave(mischief, stream, &written)
    })
}

fn point(name: &str, source: &str) -> String {
    format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ {source} }}\n")
}

#[test]
fn hostile_sources_are_bounded_and_told_of_and_others_play_on() {
    let folder = tempfile::tempdir().unwrap();
    // In ffmpeg's place: it copies its input.
    let ffmpeg = folder.path().join("ffmpeg");
    std::fs::write(&ffmpeg, "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -i ] && exec cat \"${2#file:}\"; shift; done\n")
        .unwrap();
    std::fs::set_permissions(&ffmpeg, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings = format!(
        "[window]\nseconds = 4\nbytes = {WINDOW_BYTES}\n[transcode]\nffmpeg = {ffmpeg:?}\nffprobe = \"false\"\n\
         [[profile]]\nname = \"as-is\"\nvideo = {{ codec = \"wmv2\" }}\ncopy = false\n"
    );
    settings.push_str(&point("good", "type = \"push\""));
    let written = Arc::new(AtomicU64::new(0));
    let flooded = Arc::new(AtomicU64::new(0));
    let all = [Garbage, Nothing, Flood, Headers, Largest];
    let name = |way: &str, mischief: Mischief| format!("{way}-{mischief:?}").to_lowercase();
    let ways = ["push", "exec", "ffmpeg", "pull"];
    let mut servers = Vec::new();
    for mischief in all {
        let count = if mischief == Flood { &flooded } else { &written };
        settings.push_str(&point(&name("push", mischief), "type = \"push\""));
        let path = pipe(folder.path(), &name("exec", mischief), mischief, count);
        settings.push_str(&point(&name("exec", mischief), &format!("type = \"exec\", argv = [\"cat\", {path:?}]")));
        let path = pipe(folder.path(), &name("ffmpeg", mischief), mischief, count);
        settings.push_str(&point(
            &name("ffmpeg", mischief),
            &format!("type = \"ffmpeg\", input = {path:?}, profile = \"as-is\", input_arguments = [\"-re\"]"),
        ));
        let server = serve(mischief, count);
        let source = format!("type = \"pull\", url = \"{}\", start = \"always\"", server.url("http", "x.asf"));
        settings.push_str(&point(&name("pull", mischief), &source));
        servers.push(server);
    }
    let daemon = Daemon::start(settings);
    let publisher = Publisher::start(daemon.http, "good", GOOD, u32::MAX);
    wait_for_source(&daemon, "good");
    let others = [Viewer::tcp(daemon.mms, "good"), Viewer::udp(daemon.mms, "good", 4860, None)];
    let (before_kib, began) = (daemon.resident_kib(), Instant::now());
    for mischief in all {
        push(daemon.http, &name("push", mischief), mischief, if mischief == Flood { &flooded } else { &written });
    }

    // What viewers get of the largest packets is cut to what fits a datagram, and nothing is missing.
    ways.iter().for_each(|way| wait_for_source(&daemon, &name(way, Largest)));
    let largest: Vec<Viewer> = ways.iter().map(|way| Viewer::tcp(daemon.mms, &name(way, Largest))).collect();

    let mut most_kib = 0;
    for way in ways {
        let at = |point: &str| if way == "push" { "publisher{".to_owned() } else { format!("point=\"{point}\"") };
        for (mischief, words) in [
            (Garbage, "it begins with ["),
            (Flood, "sends more than its header states by far, and is held back"),
            (Headers, "another header comes so soon that it is held back"),
            (Largest, "packets of this source do not fit a datagram and are cut anew"),
            // Comes last: each waits for a while.
            (Nothing, ""),
        ] {
            let words = match (way, mischief) {
                ("push", Nothing) => "publisher ended point=\"push-nothing\"",
                ("pull", Nothing) => "no answer to the stream's description within 20 s",
                ("pull", Garbage) => "its answer is neither ASF nor a metafile",
                (_, Nothing) => "it wrote nothing for 30 s",
                _ => words,
            };
            let at = at(&name(way, mischief));
            wait_until(&format!("{mischief:?} by {way} is told"), LIMIT, || {
                most_kib = most_kib.max(daemon.resident_kib());
                daemon.log().lines().any(|line| line.contains(words) && (mischief == Largest || line.contains(&at)))
            });
        }
    }
    let seconds = began.elapsed().as_secs();

    // Bounded: memory, what is read, and what viewers are made to begin anew for.
    let (points, growth_kib) = (all.len() * ways.len(), most_kib.saturating_sub(before_kib));
    eprintln!("{growth_kib} KiB for {points} sources; {} bytes of floods in {seconds} s", flooded.load(Ordering::Relaxed));
    assert!(growth_kib < GROWTH_KIB, "{before_kib} KiB, then {most_kib}");
    // 16 Mbit/s each, two seconds of that at once, and what is on the way.
    let most_bytes = 4 * 2_000_000 * (seconds + 3) + (32 << 20);
    let taken = flooded.load(Ordering::Relaxed);
    assert!(taken < most_bytes, "{taken} bytes of floods in {seconds} s, of which {most_bytes} may be");
    for way in ways {
        // One packet for each header, and these are 5 s apart.
        let headers = daemon.metric("wmrelay_source_packets_total", &[("point", &name(way, Headers))]);
        assert!((1.0..seconds as f64 / 5.0 + 3.0).contains(&headers), "{way}: {headers} headers in {seconds} s");
        for nothing in [Garbage, Nothing] {
            assert_eq!(daemon.metric("wmrelay_source_packets_total", &[("point", &name(way, nothing))]), 0.0);
        }
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());

    // Others play on, without a packet less.
    largest.iter().for_each(|viewer| viewer.assert_unbroken(LIMIT));
    others.iter().for_each(|viewer| viewer.assert_unbroken(LIMIT));
    let sent = publisher.sent();
    for viewer in &others {
        wait_until("a viewer is up to date", Duration::from_secs(5), || viewer.seen().number >= Some(sent - 1));
        let seen = viewer.seen();
        assert!(seen.longest_pause < Duration::from_millis(1500), "{seen:?}");
    }
    assert!(publisher.runs(), "{:?}", publisher.end());
    drop((servers, largest, others));
    assert!(daemon.stop().success(), "it ends in time, whatever its sources do");
}
