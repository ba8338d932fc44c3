//! Sockets of viewers: never waiting, and bound where they are wanted.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpStream, UdpSocket};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Room for a join burst that arrives while others are read, bytes.
const RECEIVE_BUFFER: usize = 256 << 10;

/// Begins to connect from a local address, or from one that the system chooses.
pub(super) fn connect(server: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(address) = from {
        // The port is chosen when the server's address is known: so viewers and those who have just left may share ports.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// A UDP socket on exactly this address and port.
pub(super) fn bind_udp(local: SocketAddr, gro: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    // A smaller buffer loses a packet now and then, which is no reason to give up.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    if gro {
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    }
    socket.bind(&local.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// Makes a socket that nobody reads any more keep as little as it can: thousands of full buffers would be gigabytes.
pub(super) fn shrink(socket: &UdpSocket) {
    // The kernel takes its own least size for it; where it would not, memory is used and nothing else happens.
    let _ = SockRef::from(socket).set_recv_buffer_size(1);
}
