//! Receiving datagrams: one set of buffers for the sockets of all viewers.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, recvmsg};

/// Datagrams of one call.
const BATCH: usize = 16;
/// The largest there is, and what the kernel joins at most. Odd on purpose: buffers a power of two apart would share cache sets.
const BUFFER_LEN: usize = 65_536 + 320;

/// Buffers for one batch of datagrams.
pub(super) struct Inbox {
    buffers: [Box<[u8]>; BATCH],
    headers: MultiHeaders<SockaddrStorage>,
    /// Room for what the kernel says about joined datagrams; `None`: it is not to join any.
    control: Option<Vec<u8>>,
}

impl Inbox {
    /// `gro`: the sockets have UDP_GRO set.
    pub(super) fn new(gro: bool) -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; BUFFER_LEN].into_boxed_slice()),
            headers: MultiHeaders::preallocate(BATCH, None),
            control: gro.then(|| nix::cmsg_space!(i32)),
        }
    }

    /// Reads one batch; `on_datagram` gets what came from `server`. Says whether more may be waiting.
    ///
    /// # Errors
    /// Those of the system call, save that nothing is there, and ICMP errors of datagrams we sent: neither says anything about
    /// what is received.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd, server: IpAddr, on_datagram: impl FnMut(&[u8])) -> io::Result<bool> {
        let received = match self.control {
            Some(_) => self.joined(socket, server, on_datagram),
            None => self.batch(socket, server, on_datagram),
        };
        match received {
            Ok(more) => Ok(more),
            Err(Errno::EAGAIN) => Ok(false),
            Err(Errno::ECONNREFUSED | Errno::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn batch(&mut self, socket: &impl AsRawFd, server: IpAddr, mut on_datagram: impl FnMut(&[u8])) -> Result<bool, Errno> {
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let messages = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        for message in messages {
            count += 1;
            if let Some(datagram) = message.iovs().next().filter(|_| ip(message.address) == Some(server)) {
                on_datagram(datagram);
            }
        }
        // Fewer than asked for: the socket was read dry.
        Ok(count == BATCH)
    }

    /// One call a datagram, each of which may be several that the kernel joined.
    fn joined(&mut self, socket: &impl AsRawFd, server: IpAddr, mut on_datagram: impl FnMut(&[u8])) -> Result<bool, Errno> {
        let [buffer, ..] = &mut self.buffers;
        let (len, address, segment) = {
            let mut slices = [IoSliceMut::new(buffer)];
            let control = self.control.as_deref_mut();
            let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, control, MsgFlags::MSG_DONTWAIT)?;
            let segment = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok().filter(|size| *size > 0),
                _ => None,
            });
            (message.bytes, message.address, segment)
        };
        if ip(address) == Some(server) {
            let received = buffer.get(..len).unwrap_or_default();
            received.chunks(segment.unwrap_or(len).max(1)).for_each(&mut on_datagram);
        }
        Ok(true)
    }
}

fn ip(address: Option<SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn batches_are_read_dry_and_strangers_left_out() {
        let local = |address: &str| UdpSocket::bind((address, 0)).unwrap();
        let (receiver, server, stranger) = (local("127.0.0.1"), local("127.0.0.1"), local("127.0.0.2"));
        let to = receiver.local_addr().unwrap();
        for gro in [false, true] {
            let mut inbox = Inbox::new(gro);
            for n in 0..20u8 {
                server.send_to(&vec![n; 100 + usize::from(n)], to).unwrap();
            }
            stranger.send_to(b"stranger", to).unwrap();
            let (mut got, mut calls) = (Vec::new(), 0);
            while inbox.receive(&receiver, [127, 0, 0, 1].into(), |datagram| got.push((datagram[0], datagram.len()))).unwrap() {
                calls += 1;
            }
            assert_eq!(got, (0..20u8).map(|n| (n, 100 + usize::from(n))).collect::<Vec<_>>(), "gro {gro}");
            assert_eq!(calls, if gro { 21 } else { 1 });
        }
    }
}
