//! The UDP socket of one MMS listener: shared by all shards for sending, read by one task.
//!
//! quinn-udp finds out what the kernel can do and receives. Sending and the error queue are our own calls beside it, for two
//! reasons that a relay has and a QUIC endpoint has not: one viewer behind a narrow link (EINVAL, EIO on a segmented send) must
//! not switch segmentation off for everybody, and an ICMP error must name the *port* it was about, since many viewers share an
//! address.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::inherited;
use super::origins::OriginId;

/// Most bytes that one segmented send can carry over IPv4: 65,535 less the IP and UDP heads.
const SEGMENTED_BYTES: usize = 65_507;
/// Tries of one send. The socket is shared: what a send reports may be an ICMP error that somebody else's datagram met, and
/// reporting it clears it. Only what the last try reports is this datagram's own fault.
const TRIES: usize = 4;
/// What we ask for; the system may grant less.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A bound UDP socket with the number of an MMS listener's TCP port.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    /// Without don't-fragment, for packets that exceed a datagram; its port is the system's choice.
    fragments: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    max_datagram: usize,
    /// Bound to no address of its own: each datagram says from where it comes.
    wildcard: bool,
}

/// Where a viewer's datagrams go, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The viewer's address and leased port.
    pub destination: Destination,
    /// Our UDP port, and the address that the viewer connected to by TCP.
    pub origin: OriginId,
    /// False once the path refused a segmented send; then every datagram is a send of its own.
    pub segmented: bool,
    /// True once a router said that our datagrams are too big for it: IP fragments from then on.
    pub fragmented: bool,
}

/// An address and a port in 24 bytes; `SocketAddr` takes 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// IPv4 in its mapped form.
    address: [u8; 16],
    scope: u32,
    port: u16,
}

impl From<SocketAddr> for Destination {
    fn from(socket: SocketAddr) -> Self {
        let (address, scope) = match socket {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { address: address.octets(), scope, port: socket.port() }
    }
}

impl From<Destination> for SocketAddr {
    fn from(Destination { address, scope, port }: Destination) -> Self {
        match IpAddr::from(address).to_canonical() {
            IpAddr::V4(address) => (address, port).into(),
            IpAddr::V6(address) => std::net::SocketAddrV6::new(address, port, 0, scope).into(),
        }
    }
}

/// What ICMP said about a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Nobody listens on the port.
    Unreachable,
    /// It is too big for a network on the way.
    TooBig,
}

/// What a send came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that are done with: sent, or given up on.
    pub bytes: usize,
    /// System calls made.
    pub calls: u32,
    /// Datagrams that the system refused.
    pub failed: u32,
    /// The system refused a segmented send on this path.
    pub unsegmentable: bool,
    /// The interface towards this viewer takes no datagram of this size: it goes as IP fragments.
    pub too_big: bool,
    /// The socket's send buffer is full: the rest waits.
    pub blocked: bool,
    /// The queue of the device on this path is full: the rest waits. Other paths may have room.
    pub queue_full: bool,
    /// ICMP errors are waiting in the error queue.
    pub errors_pending: bool,
}

impl Sent {
    /// Notes that there is no room where there is none.
    fn must_wait(&mut self, error: &io::Error) -> bool {
        self.blocked = error.kind() == io::ErrorKind::WouldBlock;
        self.queue_full = is_queue_full(error);
        self.blocked || self.queue_full
    }
}

impl UdpPort {
    /// Binds to `address`; `max_datagram` is the largest payload that is sent unfragmented.
    ///
    /// # Errors
    /// What the system says to socket, options or bind.
    pub fn bind(address: SocketAddr, max_datagram: usize) -> io::Result<Self> {
        let socket = match inherited::udp(address)? {
            Some(inherited) => inherited,
            None => open(address)?,
        };
        let state = UdpSocketState::new((&socket).into())?;
        state.enable_transport_errors((&socket).into())?;
        // A smaller buffer only means that a full one is waited for more often.
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES);
        let fragments = open(SocketAddr::new(address.ip(), 0))?;
        for (level, option) in [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)] {
            if (level == libc::IPPROTO_IPV6) == address.is_ipv6() {
                report_errors(fragments.as_raw_fd(), level, option)?;
            }
        }
        let local = socket.local_addr()?;
        Ok(Self { socket, fragments, state, local, max_datagram, wildcard: local.ip().is_unspecified() })
    }

    /// The address it is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether packets of this size, head included, fit into one unfragmented datagram.
    pub fn fits(&self, datagram: usize) -> bool {
        datagram <= self.max_datagram
    }

    /// Datagrams that one segmented send of this size can carry; 1 where the kernel cannot segment.
    pub fn segments(&self, datagram: usize) -> usize {
        self.state.max_gso_segments().min(SEGMENTED_BYTES / datagram.max(1)).max(1)
    }

    /// A handle of the same socket for a runtime to wait on.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn another_handle(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Sends to one viewer what `parts` hold: datagrams of `len` bytes each, a whole number of them in every part. They come from
    /// the address `source`.
    ///
    /// At most [`Self::segments`] datagrams in all, so that one system call can carry them. Nothing here fails as a whole: a full
    /// buffer stops with [`Sent::blocked`], a datagram that the system does not take is counted and passed over.
    pub fn send(&self, source: IpAddr, route: &Route, parts: &[IoSlice<'_>], len: usize) -> Sent {
        let mut sent = Sent::default();
        let source = self.wildcard.then_some(source);
        let to = Name::from(route.destination);
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let whole = self.fits(len) && !route.fragmented;
        if whole && total > len && route.segmented && self.state.max_gso_segments() > 1 {
            match send_past_errors(&self.socket, &to, source, parts, u16::try_from(len).ok(), &mut sent) {
                Ok(()) => {
                    sent.bytes = total;
                    return sent;
                }
                Err(error) if sent.must_wait(&error) => return sent,
                Err(error) if is_segmentation(&error) => sent.unsegmentable = true,
                Err(_) => {
                    sent.bytes = total;
                    sent.failed = u32::try_from(total.div_ceil(len.max(1))).unwrap_or(u32::MAX);
                    return sent;
                }
            }
        }
        for single in parts.iter().flat_map(|part| part.chunks(len.max(1))) {
            let single_part = [IoSlice::new(single)];
            let mut result = if whole {
                send_past_errors(&self.socket, &to, source, &single_part, None, &mut sent)
            } else {
                send_past_errors(&self.fragments, &to, source, &single_part, None, &mut sent)
            };
            if whole && result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
                sent.too_big = true;
                result = send_past_errors(&self.fragments, &to, source, &single_part, None, &mut sent);
            }
            match result {
                Ok(()) => {}
                Err(error) if sent.must_wait(&error) => return sent,
                Err(_) => sent.failed += 1,
            }
            sent.bytes += single.len();
        }
        sent
    }

    /// The next thing that ICMP said about one of our datagrams: its destination, and what became of it.
    ///
    /// Other errors in the queue are passed over: a path that is down for a moment ends no session.
    pub fn next_error(&self) -> Option<(SocketAddr, PathError)> {
        [&self.socket, &self.fragments].into_iter().find_map(|socket| {
            loop {
                match receive_error(socket.as_raw_fd()) {
                    Ok(Some((destination, libc::ECONNREFUSED))) => return Some((destination, PathError::Unreachable)),
                    Ok(Some((destination, libc::EMSGSIZE))) => return Some((destination, PathError::TooBig)),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
        })
    }

    /// Receives what is there into `buffers`; `metas` tell where from, how much, and the stride of merged datagrams.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there.
    pub fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv((&self.socket).into(), buffers, metas)
    }
}

/// Has ICMP errors put into the socket's error queue.
#[allow(unsafe_code, reason = "no library at hand sets this option by itself")]
fn report_errors(fd: RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: the pointer is to a live int of the stated length, which setsockopt only reads.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// One system call, repeated while it only reports the ICMP error of some earlier datagram.
fn send_past_errors(
    socket: &UdpSocket,
    to: &Name,
    source: Option<IpAddr>,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
    sent: &mut Sent,
) -> io::Result<()> {
    let mut tries = 0;
    loop {
        sent.calls += 1;
        tries += 1;
        let result = send_message(socket.as_raw_fd(), to, source, parts, segment);
        match &result {
            Err(error) if is_queue_full(error) => return result,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                sent.errors_pending = true;
                if tries == TRIES {
                    return result;
                }
            }
            _ => return result,
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What the kernel says where the device of a path has no room, while the socket has.
fn is_queue_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

/// What the kernel says where a path cannot take a segmented send.
fn is_segmentation(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// A destination as the kernel reads it.
enum Name {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl From<Destination> for Name {
    fn from(Destination { address, scope, port }: Destination) -> Self {
        let port = port.to_be();
        match address {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, v4 @ ..] => Self::V4(libc::sockaddr_in {
                sin_family: FAMILY_V4,
                sin_port: port,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4) },
                sin_zero: [0; 8],
            }),
            v6 => Self::V6(libc::sockaddr_in6 {
                sin6_family: FAMILY_V6,
                sin6_port: port,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6 },
                sin6_scope_id: scope,
            }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "families are small numbers")]
const FAMILY_V4: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;
#[expect(clippy::cast_possible_truncation, reason = "families are small numbers")]
const FAMILY_V6: libc::sa_family_t = libc::AF_INET6 as libc::sa_family_t;

impl Name {
    fn parts(&self) -> (*const libc::c_void, libc::socklen_t) {
        #[expect(clippy::cast_possible_truncation, reason = "16 and 28")]
        match self {
            Self::V4(name) => ((&raw const *name).cast(), size_of_val(name) as libc::socklen_t),
            Self::V6(name) => ((&raw const *name).cast(), size_of_val(name) as libc::socklen_t),
        }
    }
}

/// Room for the two control messages that a send can carry, aligned as the kernel reads them.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// `sendmsg` of gathered buffers, cut by the kernel into datagrams of `segment` bytes where that is given.
#[allow(unsafe_code, reason = "sendmsg with control messages has no safe form in the libraries at hand")]
fn send_message(fd: RawFd, to: &Name, source: Option<IpAddr>, parts: &[IoSlice<'_>], segment: Option<u16>) -> io::Result<()> {
    let mut control = Control([0; 64]);
    // SAFETY: msghdr is plain data for which all zeros is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    let (name, name_len) = to.parts();
    message.msg_name = name.cast_mut();
    message.msg_namelen = name_len;
    // std promises that an IoSlice has the layout of an iovec.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    if segment.is_some() || source.is_some() {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let mut used = 0;
        // SAFETY: `msg_control` points to `control`, which outlives the call, and `msg_controllen` is its size, so the first
        // header lies inside it.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        if let Some(segment) = segment {
            // SAFETY: `header` is the first header of a buffer of 64 bytes, which both messages fill at most.
            unsafe { put(header, libc::SOL_UDP, libc::UDP_SEGMENT, segment, &mut used) };
            // SAFETY: as above; the next header is within the 64 bytes or null, which `put` refuses.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        match source {
            Some(IpAddr::V4(address)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                // SAFETY: as above.
                unsafe { put(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info, &mut used) };
            }
            Some(IpAddr::V6(address)) => {
                let info = libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: libc::in6_addr { s6_addr: address.octets() } };
                // SAFETY: as above.
                unsafe { put(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info, &mut used) };
            }
            None => {}
        }
        message.msg_controllen = used;
    }
    // SAFETY: every pointer in `message` refers to a live local or argument, with its true length; sendmsg only reads them.
    let result = unsafe { libc::sendmsg(fd, &raw const message, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes one control message and adds its padded size to `used`.
///
/// # Safety
/// `header` must point into a control buffer with room for a `T` behind it.
#[allow(unsafe_code, reason = "control messages are laid out by pointer")]
unsafe fn put<T: Copy>(header: *mut libc::cmsghdr, level: libc::c_int, kind: libc::c_int, value: T, used: &mut usize) {
    assert!(!header.is_null(), "the control buffer has room for both messages");
    let size = libc::c_uint::try_from(size_of::<T>()).expect("control values are a few bytes");
    // SAFETY: the caller vouches for `header`; CMSG_DATA lies behind it, and write_unaligned asks for no alignment.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        *used += libc::CMSG_SPACE(size) as usize;
    }
}

/// Takes one entry of the error queue: the datagram's destination and the error number.
#[allow(unsafe_code, reason = "the error queue is read by recvmsg only")]
fn receive_error(fd: RawFd) -> io::Result<Option<(SocketAddr, i32)>> {
    #[repr(C, align(8))]
    struct Queue([u8; 256]);
    let mut control = Queue([0; 256]);
    let mut payload = [0_u8; 1];
    let mut part = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    let mut name = SockAddrStorage::zeroed();
    // SAFETY: msghdr is plain data for which all zeros is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = name.size_of();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: every pointer in `message` refers to a live local of the stated length.
    let result = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    // SAFETY: the kernel filled `name` with an address of `msg_namelen` bytes, at most the storage's size.
    let destination = unsafe { SockAddr::new(name, message.msg_namelen) }.as_socket();
    // SAFETY: the kernel set `msg_controllen` to the bytes that it wrote into `control`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: `header` points to a whole header inside `control`.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR) || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) {
            // SAFETY: the data of this kind begins with a sock_extended_err.
            let error = unsafe { libc::CMSG_DATA(header).cast::<libc::sock_extended_err>().read_unaligned() };
            let errno = i32::try_from(error.ee_errno).unwrap_or(0);
            // An entry without a destination tells nothing; errno 0 is passed over by the caller.
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            return Ok(Some(destination.map_or((nowhere, 0), |destination| (destination, errno))));
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(Some((SocketAddr::from(([0, 0, 0, 0], 0)), 0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn port() -> UdpPort {
        UdpPort::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1472).unwrap()
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn route(to: &UdpSocket) -> Route {
        let destination = to.local_addr().unwrap().into();
        Route { destination, origin: OriginId::default(), segmented: true, fragmented: false }
    }

    fn receiver() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn numbered(datagrams: u8, len: usize) -> Vec<u8> {
        (0..datagrams).flat_map(|number| vec![number; len]).collect()
    }

    #[test]
    fn gathered_parts_arrive_as_single_datagrams_in_order() {
        let (port, viewer) = (port(), receiver());
        let bytes = numbered(40, 100);
        let (first, second) = bytes.split_at(700);
        for segmented in [true, false] {
            let route = Route { segmented, ..route(&viewer) };
            let sent = port.send(HERE, &route, &[IoSlice::new(first), IoSlice::new(second)], 100);
            assert_eq!((sent.bytes, sent.failed, sent.blocked), (bytes.len(), 0, false));
            assert_eq!(sent.calls, if segmented { 1 } else { 40 });
            let mut buffer = [0; 2048];
            for expected in bytes.chunks(100) {
                let (len, from) = viewer.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (expected, port.local()));
            }
        }
    }

    #[test]
    fn oversize_packets_go_as_fragments() {
        let (port, viewer) = (port(), receiver());
        let packet = vec![7; 60_000];
        assert_eq!(port.send(HERE, &route(&viewer), &[IoSlice::new(&packet)], packet.len()).bytes, packet.len());
        let mut buffer = vec![0; 65_536];
        assert_eq!(viewer.recv(&mut buffer).unwrap(), packet.len());
    }

    /// Has the system believe that a router answered a datagram of `from` to `to` with "destination unreachable".
    ///
    /// False where the right to do so is missing.
    fn inject_icmp(from: SocketAddr, to: SocketAddr, code: u8) -> bool {
        let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) else { return false };
        let mut message = vec![3, code, 0, 0, 0, 0, 5, 0];
        message.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        for address in [from, to] {
            let IpAddr::V4(address) = address.ip() else { panic!("IPv4") };
            message.extend(address.octets());
        }
        message.extend(from.port().to_be_bytes());
        message.extend(to.port().to_be_bytes());
        message.extend([0, 8, 0, 0]);
        let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let checksum = !u16::try_from((sum & 0xFFFF) + (sum >> 16)).unwrap_or(u16::MAX);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        raw.send_to(&message, &from.into()).is_ok()
    }

    #[test]
    fn icmp_about_a_stranger_costs_a_viewer_neither_a_packet_nor_segmentation() {
        let (port, viewer) = (port(), receiver());
        let stranger = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 4000));
        let bytes = numbered(5, 100);
        let mut buffer = [0; 256];
        for code in 0..=15 {
            for whole in [&bytes[..], &bytes[..100]] {
                if !inject_icmp(port.local(), stranger, code) {
                    eprintln!("SKIPPED: icmp_about_a_stranger…: raw sockets need root");
                    return;
                }
                let sent = port.send(HERE, &route(&viewer), &[IoSlice::new(whole)], 100);
                assert_eq!((sent.bytes, sent.failed, sent.unsegmentable), (whole.len(), 0, false), "code {code}");
                for _ in whole.chunks(100) {
                    assert_eq!(viewer.recv(&mut buffer).unwrap(), 100, "code {code}");
                }
                let error = port.next_error();
                match code {
                    3 => assert_eq!(error, Some((stranger, PathError::Unreachable))),
                    4 => assert_eq!(error, Some((stranger, PathError::TooBig))),
                    _ => assert_eq!(error, None, "code {code}"),
                }
            }
        }
    }

    #[test]
    fn a_closed_port_is_named_for_fragments_too() {
        let (port, dead) = (port(), receiver());
        let gone = route(&dead);
        drop(dead);
        let packet = vec![7; 3208];
        let named = (0..100).find_map(|_| {
            port.send(HERE, &gone, &[IoSlice::new(&packet)], packet.len());
            port.next_error()
        });
        assert_eq!(named, Some((gone.destination.into(), PathError::Unreachable)));
    }

    #[test]
    fn a_closed_port_is_named_and_costs_nobody_else_a_packet() {
        let (port, alive, dead) = (port(), receiver(), receiver());
        let gone = route(&dead);
        drop(dead);
        for _ in 0..3 {
            assert_eq!(port.send(HERE, &gone, &[IoSlice::new(b"to nobody")], 9).failed, 0);
            assert_eq!(port.send(HERE, &route(&alive), &[IoSlice::new(b"to a viewer")], 11).failed, 0);
            let mut buffer = [0; 64];
            assert_eq!(alive.recv(&mut buffer).unwrap(), 11);
        }
        assert_eq!(port.next_error(), Some((gone.destination.into(), PathError::Unreachable)));
    }

    #[test]
    fn a_refused_segmented_send_goes_datagram_by_datagram_and_changes_nothing_for_others() {
        let (port, viewer) = (port(), receiver());
        let before = port.segments(10);
        // More segments than the kernel cuts: EINVAL, as a path with a smaller MTU gives.
        let bytes = numbered(200, 10);
        let sent = port.send(HERE, &route(&viewer), &[IoSlice::new(&bytes)], 10);
        assert!(sent.unsegmentable);
        assert_eq!((sent.bytes, sent.failed), (bytes.len(), 0));
        let mut buffer = [0; 64];
        for number in 0..200 {
            assert_eq!((viewer.recv(&mut buffer).unwrap(), buffer[0]), (10, number));
        }
        assert_eq!(port.segments(10), before);
    }
}
