//! A lossy path between one viewer over UDP and the daemon, in user space.
//!
//! The forwarder stands at an address of its own. The viewer takes it for the server: it connects to its TCP port
//! and sends resend requests to the UDP port of the same number. The daemon takes it for the viewer: the TCP
//! connection and the resend requests come from the forwarder's address, and the announced UDP port is bound there.
//! Datagrams are lost in both directions, TCP is passed on whole. This is MMS; [`rtsp`] has its own ports.

pub mod rtsp;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Random;
use super::mms::Data;

/// Clients of our kind count headers from 1 to 8, and plays from 9 on.
const FIRST_MEDIA_INCARNATION: u8 = 9;

/// A running forwarder; it stops when dropped.
pub struct Forwarder {
    /// Where the viewer connects to.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// Datagrams of one direction.
#[derive(Debug, Default)]
pub struct Count {
    pub passed: AtomicU64,
    pub lost: AtomicU64,
}

struct Shared {
    daemon: SocketAddr,
    here: IpAddr,
    udp: UdpSocket,
    path: Path,
}

/// What a path loses, and what it counts.
struct Path {
    loss_per_mille: u64,
    random: Mutex<Random>,
    to_viewer: Count,
    to_daemon: Count,
    /// Numbers of media packets: those that came, and those passed on at least once.
    media: Mutex<(HashSet<u32>, HashSet<u32>)>,
    stop: AtomicBool,
}

impl Forwarder {
    /// Stands at `here` in front of the daemon and loses that many of a thousand datagrams, the same ones for the
    /// same seed and order.
    pub fn start(here: IpAddr, daemon: SocketAddr, loss_per_mille: u64, seed: u64) -> Self {
        let (listener, udp) = bind_pair(here);
        let address = listener.local_addr().unwrap();
        enlarge(&udp);
        let shared = Arc::new(Shared { daemon, here, udp, path: Path::new(loss_per_mille, seed) });
        let requests = Arc::clone(&shared);
        std::thread::spawn(move || requests.forward_requests());
        let connections = Arc::clone(&shared);
        std::thread::spawn(move || {
            accept(&listener, &connections.path, |viewer, peer| {
                let shared = Arc::clone(&connections);
                std::thread::spawn(move || shared.forward_connection(viewer, peer.ip()));
            });
        });
        Self { address, shared }
    }

    /// Datagrams towards the viewer: passed on and lost.
    pub fn to_viewer(&self) -> (u64, u64) {
        self.shared.path.to_viewer.read()
    }

    /// Distinct media packets: how many the daemon sent, and how many got through, the first time or a later one.
    pub fn media_numbers(&self) -> (u64, u64) {
        self.shared.path.media_numbers()
    }

    /// Datagrams towards the daemon: passed on and lost.
    pub fn to_daemon(&self) -> (u64, u64) {
        self.shared.path.to_daemon.read()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.path.stop.store(true, Ordering::Relaxed);
    }
}

impl Count {
    fn read(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

impl Path {
    fn new(loss_per_mille: u64, seed: u64) -> Self {
        Self {
            loss_per_mille,
            random: Mutex::new(Random(seed)),
            to_viewer: Count::default(),
            to_daemon: Count::default(),
            media: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn passes(&self, count: &Count) -> bool {
        let lost = self.random.lock().unwrap().chance(self.loss_per_mille);
        let counter = if lost { &count.lost } else { &count.passed };
        counter.fetch_add(1, Ordering::Relaxed);
        !lost
    }

    fn note(&self, number: u32, passes: bool) {
        let mut media = self.media.lock().unwrap();
        media.0.insert(number);
        if passes {
            media.1.insert(number);
        }
    }

    fn media_numbers(&self) -> (u64, u64) {
        let media = self.media.lock().unwrap();
        (media.0.len() as u64, media.1.len() as u64)
    }
}

impl Shared {
    /// Resend requests: viewer → daemon.
    fn forward_requests(&self) {
        self.udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut datagram = [0; 64 << 10];
        while !self.path.stopped() {
            let Ok((count, _)) = self.udp.recv_from(&mut datagram) else { continue };
            if self.path.passes(&self.path.to_daemon) {
                let _ = self.udp.send_to(&datagram[..count], self.daemon);
            }
        }
    }

    /// Media: daemon → the port that the viewer announced, bound here → viewer.
    fn forward_media(&self, port: UdpSocket, viewer: SocketAddr) {
        port.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut datagram = [0; 64 << 10];
        while !self.path.stopped() {
            let Ok((count, _)) = port.recv_from(&mut datagram) else { continue };
            let passes = self.path.passes(&self.path.to_viewer);
            if let Some(data) = Data::parse(&datagram[..count]).filter(|data| data.incarnation >= FIRST_MEDIA_INCARNATION) {
                self.path.note(data.location, passes);
            }
            if passes {
                let _ = self.udp.send_to(&datagram[..count], viewer);
            }
        }
    }

    /// One control connection. The announced port is bound before the daemon hears of it.
    fn forward_connection(self: Arc<Self>, mut viewer: TcpStream, peer: IpAddr) {
        let Ok(mut daemon) = connect_from(self.here, self.daemon) else { return };
        let (mut answers, mut back) = (daemon.try_clone().unwrap(), viewer.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut answers, &mut back);
            let _ = back.shutdown(std::net::Shutdown::Both);
        });
        let mut seen = Vec::new();
        let mut buffer = [0; 4 << 10];
        let mut bound = false;
        while let Ok(count) = viewer.read(&mut buffer) {
            if count == 0 {
                break;
            }
            if !bound {
                seen.extend_from_slice(&buffer[..count]);
                if let Some(port) = announced_port(&seen) {
                    let socket = UdpSocket::bind((self.here, port)).expect("the announced port at the forwarder's address");
                    enlarge(&socket);
                    let shared = Arc::clone(&self);
                    std::thread::spawn(move || shared.forward_media(socket, SocketAddr::new(peer, port)));
                    bound = true;
                }
            }
            if daemon.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = daemon.shutdown(std::net::Shutdown::Both);
    }
}

/// The UDP port of a ConnectFunnel somewhere in these bytes: `\UDP\` in UTF-16, then digits, then a NUL.
fn announced_port(bytes: &[u8]) -> Option<u16> {
    let word: Vec<u8> = "\\UDP\\".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = bytes.windows(word.len()).position(|window| window == word)? + word.len();
    let units = bytes[at..].as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let digits: String = units.map_while(|unit| char::from_u32(unit.into()).filter(char::is_ascii_digit)).collect();
    digits.parse().ok()
}

/// A TCP and a UDP port of the same number.
fn bind_pair(address: IpAddr) -> (TcpListener, UdpSocket) {
    for _ in 0..50 {
        let listener = TcpListener::bind((address, 0)).unwrap();
        if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()) {
            return (listener, udp);
        }
    }
    panic!("no port number is free for TCP and UDP at {address}");
}

/// Hands on connections until the forwarder stops.
fn accept(listener: &TcpListener, path: &Path, mut serve: impl FnMut(TcpStream, SocketAddr)) {
    listener.set_nonblocking(true).unwrap();
    while !path.stopped() {
        match listener.accept() {
            Ok((viewer, peer)) => {
                viewer.set_nonblocking(false).unwrap();
                serve(viewer, peer);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn connect_from(here: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(here, 0).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A deeper receive buffer, so that the losses are the forwarder's own and not the test machine's.
fn enlarge(socket: &UdpSocket) {
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(4 << 20);
}
