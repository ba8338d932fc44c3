//! The same path for Windows Media RTSP.
//!
//! The viewer's UDP ports, four where it takes repetitions, are bound at the forwarder's address before the daemon
//! hears of them, and the server's ports that the answers name are replaced by the forwarder's own. Each datagram leaves from the port that
//! stands for the one it came from: the daemon takes repetition requests from leased ports only.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Path, accept, connect_from, enlarge};

/// Payload type of all that Windows Media sends.
const ASF: u8 = 96;

/// A running forwarder; it stops when dropped.
pub struct RtspForwarder {
    /// Where the viewer connects to.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    daemon: SocketAddr,
    here: IpAddr,
    path: Path,
    /// What the viewer takes for the server's ports, and those that they stand for.
    server: [UdpSocket; 2],
    server_ports: Mutex<[u16; 2]>,
    /// What the daemon takes for the viewer's ports, by number.
    viewer: Mutex<HashMap<u16, Arc<UdpSocket>>>,
}

impl RtspForwarder {
    /// Stands at `here` in front of the daemon's RTSP port and loses that many of a thousand datagrams.
    pub fn start(here: IpAddr, daemon: SocketAddr, loss_per_mille: u64, seed: u64) -> Self {
        let listener = TcpListener::bind((here, 0)).unwrap();
        let server = [0; 2].map(|port| UdpSocket::bind((here, port)).unwrap());
        let shared = Arc::new(Shared {
            daemon,
            here,
            path: Path::new(loss_per_mille, seed),
            server,
            server_ports: Mutex::default(),
            viewer: Mutex::default(),
        });
        for index in 0..2 {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.forward_to_daemon(index));
        }
        let address = listener.local_addr().unwrap();
        let connections = Arc::clone(&shared);
        std::thread::spawn(move || {
            accept(&listener, &connections.path, |viewer, peer| {
                let shared = Arc::clone(&connections);
                std::thread::spawn(move || shared.forward_connection(&viewer, peer.ip()));
            });
        });
        Self { address, shared }
    }

    /// Datagrams towards the viewer: passed on and lost.
    pub fn to_viewer(&self) -> (u64, u64) {
        self.shared.path.to_viewer.read()
    }

    /// Datagrams towards the daemon: passed on and lost.
    pub fn to_daemon(&self) -> (u64, u64) {
        self.shared.path.to_daemon.read()
    }

    /// Distinct media packets: how many the daemon sent, and how many got through, the first time or a later one.
    pub fn media_numbers(&self) -> (u64, u64) {
        self.shared.path.media_numbers()
    }
}

impl Drop for RtspForwarder {
    fn drop(&mut self) {
        self.shared.path.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// What comes for a port of the server: from the same port of the viewer, to the daemon.
    fn forward_to_daemon(&self, index: usize) {
        let socket = &self.server[index];
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut datagram = [0; 64 << 10];
        while !self.path.stopped() {
            let Ok((count, from)) = socket.recv_from(&mut datagram) else { continue };
            let Some(port) = self.viewer.lock().unwrap().get(&from.port()).cloned() else { continue };
            if self.path.passes(&self.path.to_daemon) {
                let to = SocketAddr::new(self.daemon.ip(), self.server_ports.lock().unwrap()[index]);
                let _ = port.send_to(&datagram[..count], to);
            }
        }
    }

    /// What comes for a port of the viewer: from the port that stands for the daemon's, to the viewer.
    fn forward_to_viewer(&self, port: &UdpSocket, viewer: SocketAddr) {
        port.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut datagram = [0; 64 << 10];
        while !self.path.stopped() {
            let Ok((count, from)) = port.recv_from(&mut datagram) else { continue };
            let index = usize::from(self.server_ports.lock().unwrap()[0] != from.port());
            let passes = self.path.passes(&self.path.to_viewer);
            let is_media = |head: &[u8]| head[1] & 0x7F == ASF;
            if let Some(head) = datagram[..count].first_chunk::<12>().filter(|head| is_media(*head)) {
                self.path.note(u16::from_be_bytes([head[2], head[3]]).into(), passes);
            }
            if passes {
                let _ = self.server[index].send_to(&datagram[..count], viewer);
            }
        }
    }

    /// One connection, both ways by lines: no media is interleaved on it.
    fn forward_connection(self: Arc<Self>, viewer: &TcpStream, peer: IpAddr) {
        let Ok(daemon) = connect_from(self.here, self.daemon) else { return };
        let (answers, back) = (daemon.try_clone().unwrap(), viewer.try_clone().unwrap());
        let shared = Arc::clone(&self);
        std::thread::spawn(move || {
            pass_lines(&answers, &back, |line| shared.answer(line));
            let _ = back.shutdown(std::net::Shutdown::Both);
        });
        pass_lines(viewer, &daemon, |line| {
            for port in ports(&line, "client_port=") {
                self.bind(port, peer);
            }
            line
        });
        let _ = daemon.shutdown(std::net::Shutdown::Both);
    }

    fn bind(self: &Arc<Self>, port: u16, peer: IpAddr) {
        let mut bound = self.viewer.lock().unwrap();
        if bound.contains_key(&port) {
            return;
        }
        let socket = Arc::new(UdpSocket::bind((self.here, port)).expect("the announced port at the forwarder's address"));
        enlarge(&socket);
        bound.insert(port, Arc::clone(&socket));
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.forward_to_viewer(&socket, SocketAddr::new(peer, port)));
    }

    fn answer(&self, line: String) -> String {
        let [rtp, rtcp] = ports(&line, "server_port=")[..] else { return line };
        *self.server_ports.lock().unwrap() = [rtp, rtcp];
        let own = self.server.each_ref().map(|socket| socket.local_addr().unwrap().port());
        line.replace(&format!("server_port={rtp}-{rtcp}"), &format!("server_port={}-{}", own[0], own[1]))
    }
}

/// The pair of ports behind a parameter of a `Transport` header; none where it is not there.
fn ports(line: &str, parameter: &str) -> Vec<u16> {
    let Some((_, rest)) = line.split_once(parameter) else { return Vec::new() };
    let value = rest.split([';', ',', '\r']).next().unwrap();
    value.split('-').map(|port| port.parse().unwrap()).collect()
}

/// Passes on what is read until the end; whole lines go through `change`.
fn pass_lines(from: &TcpStream, mut to: &TcpStream, mut change: impl FnMut(String) -> String) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(64 << 10).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            _ => return,
        }
        let out = String::from_utf8(line.clone()).map_or_else(|_| line.clone(), |line| change(line).into_bytes());
        if to.write_all(&out).is_err() {
            return;
        }
    }
}
