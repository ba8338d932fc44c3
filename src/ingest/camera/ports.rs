//! UDP ports for a camera's datagrams: pairs of RTP and RTCP, as old cameras want them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use crate::rtsp::camera::MOST_TRACKS;

/// Tries to find an even port whose neighbour is free too.
const TRIES: usize = 64;
/// Datagrams taken in at once.
const BATCH: usize = 64;
/// Longest datagram.
const DATAGRAM_BYTES: usize = 65_535;
/// Room for the bursts that key frames are, bytes.
const RECEIVE_BYTES: usize = 1 << 20;

/// Pairs of sockets, one for each track.
pub(super) struct Ports {
    pairs: [[UdpSocket; 2]; MOST_TRACKS],
    numbers: [(u16, u16); MOST_TRACKS],
    /// Datagrams from elsewhere are nobody's.
    camera: IpAddr,
    buffer: Vec<u8>,
}

impl Ports {
    /// On the address that the camera is reached from.
    pub(super) async fn bind(local: IpAddr, camera: IpAddr) -> io::Result<Self> {
        let ((first, first_numbers), (second, second_numbers)) = (pair(local).await?, pair(local).await?);
        Ok(Self { pairs: [first, second], numbers: [first_numbers, second_numbers], camera, buffer: vec![0; DATAGRAM_BYTES] })
    }

    /// Port numbers by track.
    pub(super) const fn numbers(&self) -> [(u16, u16); MOST_TRACKS] {
        self.numbers
    }

    /// Hands over what waits in the sockets: track, whether it is RTCP, bytes.
    pub(super) fn receive(&mut self, mut take: impl FnMut(usize, bool, &[u8])) {
        let Self { pairs, camera, buffer, .. } = self;
        for (track, pair) in pairs.iter().enumerate() {
            for (socket, is_rtcp) in pair.iter().zip([false, true]) {
                for _ in 0..BATCH {
                    // An error is the camera's closed port, told by ICMP.
                    let Ok((count, from)) = socket.try_recv_from(buffer) else { break };
                    if from.ip() == *camera {
                        take(track, is_rtcp, buffer.get(..count).unwrap_or_default());
                    }
                }
            }
        }
    }

    /// Sends without waiting; what does not fit is lost, as datagrams are.
    pub(super) fn send(&self, track: usize, is_rtcp: bool, to: u16, bytes: &[u8]) {
        if let Some(socket) = self.pairs.get(track).and_then(|pair| pair.get(usize::from(is_rtcp))) {
            let _ = socket.try_send_to(bytes, SocketAddr::new(self.camera, to));
        }
    }
}

/// Returns when a datagram is there; never without ports.
pub(super) async fn readable(ports: Option<&Ports>) {
    let Some(Ports { pairs: [[a, b], [c, d]], .. }) = ports else { return std::future::pending().await };
    // Errors show when they are read.
    tokio::select! {
        _ = a.readable() => {}
        _ = b.readable() => {}
        _ = c.readable() => {}
        _ = d.readable() => {}
    }
}

async fn pair(local: IpAddr) -> io::Result<([UdpSocket; 2], (u16, u16))> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    // Kept until the end, so that the system does not offer them again.
    let mut odd = Vec::new();
    for _ in 0..TRIES {
        let first = UdpSocket::bind((local, 0)).await?;
        let port = first.local_addr()?.port();
        if !port.is_multiple_of(2) {
            odd.push(first);
            continue;
        }
        match UdpSocket::bind((local, port + 1)).await {
            Ok(second) => {
                let _ = socket2::SockRef::from(&first).set_recv_buffer_size(RECEIVE_BYTES);
                return Ok(([first, second], (port, port + 1)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
