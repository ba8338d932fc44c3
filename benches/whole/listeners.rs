//! A thousand listeners of one stream over plain HTTP: the daemon beside Icecast, which relays the same bytes.
//!
//! Both get the stream from one thread here, in real time, as encoders send it: a POST to the daemon, a PUT to Icecast. Both serve
//! it as the body of a GET, to connections that one thread drains as the swarm does. What is compared is the processor time of
//! each process by the bytes that its listeners took, one server after the other within each round.
//!
//! Measured on a virtual machine with 2 processors: 0.23 x with video of 2 Mbit/s (1.5 us beside 6.2 us for 1400 bytes; Icecast then
//! delivered nine tenths of the stream), 0.37 x with 1 Mbit/s (2.9 us beside 8.0 us, the whole stream each). With 32 kbit/s both send
//! each packet by itself as it comes: 1.05 x and 1.10 x in two rounds beside other work.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{MsgFlags, recv};

use wmrelay::asf::{Header, Shift, shift};
use wmrelay::wire::Guid;

use crate::media::{self, Medium, PACKET_SIZE, SMOOTH, VIDEO};
use crate::{ROUNDS, SPAN, TICK, median};

const LISTENERS: usize = 1000;
/// Connections made at once: Icecast's backlog is five, and the kernel tries again after a second.
const TOGETHER: usize = 4;
/// From the last join until all have what was sent before they came.
const SETTLED: Duration = Duration::from_secs(8);
/// What encoders and Icecast know each other by here.
const PASSWORD: &str = "hackme";
/// Bytes by which the costs are told: a packet's.
const UNIT_BYTES: f64 = PACKET_SIZE as f64;

#[expect(clippy::disallowed_methods, reason = "a bench keeps time")]
fn now() -> Instant {
    Instant::now()
}

/// A server to be measured; ended when dropped.
struct Server {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    /// Target of listeners.
    target: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn ours() -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let config = folder.path().join("wmrelay.toml");
        std::fs::write(&config, "[[publishing_point]]\nname = \"stream\"\nsource = { type = \"push\" }\n")
            .expect("a settings file");
        let address = free_address();
        let child = Command::new(env!("CARGO_BIN_EXE_wmrelay"))
            .args([
                "serve",
                "--rtsp-listen",
                "",
                "--mms-listen",
                "127.0.0.1:0",
                "--admin-listen",
                "",
                "--control-listen",
                "",
                "--http-listen",
                &address.to_string(),
                "--config",
            ])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let server = Self { name: "wmrelay", child, address, target: "/stream".into(), _folder: folder };
        server.wait();
        server
    }

    /// `None` where it is not installed.
    fn icecast() -> Option<Self> {
        let program = ["/usr/bin/icecast2", "/usr/bin/icecast"].into_iter().find(|program| Path::new(program).exists())?;
        let folder = tempfile::tempdir().expect("a scratch folder");
        let address = free_address();
        let home = folder.path();
        std::fs::set_permissions(home, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a scratch folder");
        // It does not run as root.
        let owner = if rustix::process::getuid().is_root() {
            "<security><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>"
        } else {
            ""
        };
        let config = format!(
            "<icecast><limits><clients>{}</clients><sources>2</sources><queue-size>2097152</queue-size>\
             <burst-size>65535</burst-size></limits><authentication><source-password>{PASSWORD}</source-password>\
             <admin-user>admin</admin-user><admin-password>{PASSWORD}</admin-password></authentication><hostname>localhost</hostname>\
             <listen-socket><port>{}</port><bind-address>127.0.0.1</bind-address></listen-socket><fileserve>0</fileserve>\
             <paths><basedir>/usr/share/icecast2</basedir><logdir>{log}</logdir><webroot>/usr/share/icecast2/web</webroot>\
             <adminroot>/usr/share/icecast2/admin</adminroot></paths>\
             <logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>2</loglevel></logging>{owner}</icecast>",
            LISTENERS * 2,
            address.port(),
            log = home.display(),
        );
        let path = home.join("icecast.xml");
        std::fs::write(&path, config).expect("a settings file");
        let child = Command::new(program)
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Icecast starts");
        let server = Self { name: "Icecast", child, address, target: "/stream.asf".into(), _folder: folder };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        for _ in 0..500 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not listen after 5 s", self.name);
    }

    /// Where an encoder sends to: head of its request.
    fn request(&self) -> String {
        let Self { address, target, .. } = self;
        match self.name {
            "wmrelay" => format!("POST /publish{target} HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n"),
            _ => {
                let credentials = base64::engine::general_purpose::STANDARD.encode(format!("source:{PASSWORD}"));
                format!(
                    "PUT {target} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Basic {credentials}\r\nContent-Type: video/x-ms-asf\r\n\r\n"
                )
            }
        }
    }

    /// User and system time until now, in nanoseconds.
    fn cpu_ns(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum();
        // As Linux counts: a hundred a second.
        ticks * 1e7
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// Sends a file's stream to servers in real time, over and over, until dropped.
pub(crate) struct Encoder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Encoder {
    /// To one that takes it as it is.
    pub(crate) fn to(outlet: TcpStream, file: &Path) -> Self {
        Self::send_to(vec![(outlet, false)], file)
    }

    /// Until nobody takes it any more.
    pub(crate) fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn start(servers: &[&Server], file: &Path) -> Self {
        let connect = |server: &&Server| {
            let mut stream = TcpStream::connect(server.address).expect("it listens");
            stream.write_all(server.request().as_bytes()).expect("it reads");
            (stream, server.name == "wmrelay")
        };
        Self::send_to(servers.iter().map(connect).collect(), file)
    }

    /// To connections, in chunks or as it is; it ends when one takes no more.
    fn send_to(mut outlets: Vec<(TcpStream, bool)>, file: &Path) -> Self {
        let bytes = std::fs::read(file).expect("the stream");
        let ticks = media::ticks(file, TICK);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // Header Object, and the 50 bytes with which the Data Object begins.
            let header_len = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")) as usize + 50;
            // Without the number of its packets, behind which nothing would be expected.
            let header = Header::parse(&bytes[..header_len]).expect("a header").broadcast(Guid::default(), 0);
            let mut laps = Laps { packets: bytes[header_len..].chunks_exact(PACKET_SIZE).map(<[u8]>::to_vec).collect(), next: 0 };
            laps.packets.truncate(ticks.iter().sum());
            let lap = TICK * ticks.len() as u32;
            if !send_all(&mut outlets, &header) {
                return;
            }
            let begin = now();
            for (n, count) in (0..).zip(ticks.iter().cycle()) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep((begin + TICK * n).saturating_duration_since(now()));
                let packets = laps.take(*count, lap);
                if !send_all(&mut outlets, &packets) {
                    return;
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

/// The packets of a file over and over, their times and object numbers running on.
struct Laps {
    packets: Vec<Vec<u8>>,
    next: usize,
}

impl Laps {
    fn take(&mut self, count: usize, lap: Duration) -> Vec<u8> {
        let mut taken = Vec::new();
        for _ in 0..count {
            let laps = (self.next / self.packets.len()) as u32;
            let mut packet = self.packets[self.next % self.packets.len()].clone();
            shift(&mut packet, &Shift::times(lap.as_millis() as u32 * laps)).expect("a packet");
            taken.append(&mut packet);
            self.next += 1;
        }
        taken
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether all took it.
fn send_all(outlets: &mut [(TcpStream, bool)], bytes: &[u8]) -> bool {
    outlets.iter_mut().all(|(outlet, chunked)| send(outlet, *chunked, bytes))
}

fn send(outlet: &mut TcpStream, chunked: bool, bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let sent = if chunked {
        outlet.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
    } else {
        outlet.write_all(bytes)
    };
    sent.is_ok()
}

/// Listeners of one server, which a thread drains.
struct Listeners {
    taken: Arc<AtomicU64>,
    /// Connections that the server has closed.
    gone: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listeners {
    /// Those who have come are drained while others join: unread, they would have megabytes before them when the span begins.
    fn of(server: &Server) -> Self {
        let [taken, gone] = [(), ()].map(|()| Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, joined) = mpsc::channel();
        let (count, closed, stopped) = (Arc::clone(&taken), Arc::clone(&gone), Arc::clone(&stop));
        let thread = std::thread::spawn(move || drain(&joined, &count, &closed, &stopped));
        for _ in 0..LISTENERS / TOGETHER {
            // The requests of some first: each answer may wait for the next packet.
            let mut streams: Vec<TcpStream> = (0..TOGETHER)
                .map(|_| {
                    let mut stream = TcpStream::connect(server.address).expect("descriptors");
                    write!(stream, "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: bench\r\n\r\n", server.target, server.address)
                        .expect("a request");
                    stream
                })
                .collect();
            for stream in &mut streams {
                stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
                let mut status = [0; 12];
                stream.read_exact(&mut status).unwrap_or_else(|error| panic!("{} answers nothing: {error}", server.name));
                assert_eq!(&status[8..], b" 200", "{}: {}", server.name, String::from_utf8_lossy(&status));
            }
            streams.into_iter().for_each(|stream| sender.send(stream).expect("the thread runs"));
        }
        Self { taken, gone, stop, thread: Some(thread) }
    }
}

/// Takes what comes for listeners, and throws it away, until stopped.
fn drain(joined: &mpsc::Receiver<TcpStream>, taken: &AtomicU64, gone: &AtomicU64, stop: &AtomicBool) {
    let mut poll = Poll::new().expect("epoll");
    let mut streams: Vec<TcpStream> = Vec::new();
    let (mut nowhere, mut events) = (vec![0; 256 << 10], Events::with_capacity(8192));
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
        for stream in joined.try_iter() {
            let source = &mut SourceFd(&stream.as_raw_fd());
            poll.registry().register(source, Token(streams.len()), Interest::READABLE).expect("epoll");
            streams.push(stream);
        }
        poll.poll(&mut events, Some(Duration::ZERO)).expect("epoll");
        for event in &events {
            let stream = streams[event.token().0].as_raw_fd();
            loop {
                match recv(stream, &mut nowhere, flags) {
                    Ok(0) => {
                        gone.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Ok(bytes) => taken.fetch_add(bytes as u64, Ordering::Relaxed),
                    Err(_) => break,
                };
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Processor time of a server for each 1400 bytes that its listeners took within a span, nanoseconds; and how much each took, kbit/s.
fn cost(server: &Server, span: Duration) -> (f64, f64) {
    let listeners = Listeners::of(server);
    // Bursts of the joins.
    std::thread::sleep(SETTLED);
    let (cpu, taken, begin) = (server.cpu_ns(), listeners.taken.load(Ordering::Relaxed), now());
    std::thread::sleep(span);
    let bytes = (listeners.taken.load(Ordering::Relaxed) - taken) as f64;
    let gone = listeners.gone.load(Ordering::Relaxed);
    if gone > 0 {
        println!("{} has closed the connections of {gone} listeners", server.name);
    }
    let kbps = bytes * 8.0 / begin.elapsed().as_secs_f64() / 1000.0 / LISTENERS as f64;
    ((server.cpu_ns() - cpu) / (bytes / UNIT_BYTES), kbps)
}

/// Ours beside Icecast's.
pub(crate) fn listeners() {
    let Some(_) = Server::icecast() else {
        return println!("Icecast is not installed (apt-get install icecast2): nothing to compare with");
    };
    for medium in [&VIDEO, &SMOOTH] {
        compare(medium);
    }
}

fn compare(medium: &Medium) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file: PathBuf = medium.make(folder.path());
    let (ours, icecast) = (Server::ours(), Server::icecast().expect("it is installed"));
    let _encoder = Encoder::start(&[&ours, &icecast], &file);
    std::thread::sleep(Duration::from_secs(3));
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        // Who goes first changes.
        let order = if round % 2 == 0 { [&icecast, &ours] } else { [&ours, &icecast] };
        let mut costs = order.map(|server| (server.name, cost(server, SPAN)));
        costs.sort_by_key(|(name, _)| *name == "Icecast");
        let [(_, (our_ns, our_kbps)), (_, (its_ns, its_kbps))] = costs;
        println!(
            "{}, round {round}: ours {our_ns:.0} ns for 1400 bytes at {our_kbps:.0} kbit/s a listener, Icecast {its_ns:.0} ns at {its_kbps:.0}",
            medium.name
        );
        ratios.push(our_ns / its_ns);
    }
    println!("{LISTENERS} listeners of {} over HTTP: {:.2} x Icecast (median)", medium.name, median(ratios));
}
