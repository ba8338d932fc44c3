//! Sockets that whoever started the daemon has bound for it: systemd, by a socket unit (sd_listen_fds(3)).
//!
//! They outlive the daemon, so while it is started anew connections wait in their queues instead of being refused. They are the
//! process's own, as its environment is, and so is the list of them here: whoever binds an address gets the socket that is there
//! for it. The crate sd-notify, which tells systemd what it wants to know, reads the variables; listenfd, made for nothing else, does
//! no more.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::listen::BACKLOG;

/// Those that nobody has asked for yet.
static LEFT: Mutex<Vec<Inherited>> = Mutex::new(Vec::new());

/// A socket, and what it is.
#[derive(Debug)]
struct Inherited {
    socket: Socket,
    kind: Kind,
}

/// What an inherited socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// Nothing that can be used; why, and what to do.
    Other(String),
}

/// Takes over what was handed to this process, and removes the variables that say so. How many there were.
///
/// To be called once, before there is a second thread.
///
/// # Errors
/// The variables make no sense, or a descriptor that they name is none.
#[allow(unsafe_code, reason = "the environment is changed, and descriptors become ours, by their numbers")]
pub fn take_over() -> io::Result<usize> {
    // SAFETY: by this function's contract no other thread runs that could read the environment meanwhile.
    let descriptors = unsafe { sd_notify::listen_fds_with_names_and_unset_env() }?;
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    for (descriptor, name) in descriptors {
        // SAFETY: sd_listen_fds(3): it was opened for this process, which has just been told so for the only time, so nobody else owns
        // it; that it is open was seen when it was set to close on exec.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let kind = kind_of(&socket);
        tracing::debug!(descriptor, name, ?kind, "a socket was inherited");
        left.push(Inherited { socket, kind });
    }
    Ok(left.len())
}

/// The inherited socket that listens on exactly this address by TCP.
///
/// # Errors
/// As of listen(2).
pub(super) fn tcp(address: SocketAddr) -> io::Result<Option<TcpListener>> {
    let Some(socket) = take(&Kind::Tcp(address)) else { return Ok(None) };
    socket.set_nonblocking(true)?;
    // As many wait as with one of our own.
    socket.listen(BACKLOG)?;
    Ok(Some(socket.into()))
}

/// The inherited socket that is bound to exactly this address for UDP.
///
/// # Errors
/// As of fcntl(2).
pub(super) fn udp(address: SocketAddr) -> io::Result<Option<UdpSocket>> {
    let Some(socket) = take(&Kind::Udp(address)) else { return Ok(None) };
    socket.set_nonblocking(true)?;
    Ok(Some(socket.into()))
}

/// Closes what nobody has asked for; what each was, and what to do about it.
pub fn close_rest() -> Vec<String> {
    let rest = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    let told = |(address, transport): (SocketAddr, &str)| {
        format!(
            "the inherited socket {address} ({transport}) belongs to no listener of the settings, so nobody is served there; write the \
             address there as it is here, or take it out of the socket unit"
        )
    };
    rest.into_iter()
        .map(|inherited| match inherited.kind {
            Kind::Tcp(address) => told((address, "TCP")),
            Kind::Udp(address) => told((address, "UDP")),
            Kind::Other(why) => why,
        })
        .collect()
}

fn take(wanted: &Kind) -> Option<Socket> {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = left.iter().position(|inherited| inherited.kind == *wanted)?;
    Some(left.swap_remove(at).socket)
}

fn kind_of(socket: &Socket) -> Kind {
    let facts = || io::Result::Ok((socket.local_addr()?, socket.r#type()?));
    let (address, kind) = match facts() {
        Ok(facts) => facts,
        Err(error) => return Kind::Other(format!("an inherited descriptor is no socket that can be used: {error}")),
    };
    let Some(address) = address.as_socket() else {
        return Kind::Other(
            "an inherited socket is bound to no IP address, and is not used: of a socket unit only ListenStream= and \
             ListenDatagram= with an address and a port are"
                .into(),
        );
    };
    // It would have to be served as two: IPv4 addresses come out of it in the clothes of IPv6, and IPv4 datagrams want other options.
    let is_both = address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6().unwrap_or(true);
    let port = address.port();
    match kind {
        _ if is_both => Kind::Other(format!(
            "the inherited socket {address} is for IPv6 and IPv4 at once, and is not used; in the socket unit write \
             BindIPv6Only=ipv6-only and both 0.0.0.0:{port} and [::]:{port}"
        )),
        Type::STREAM if socket.domain().is_ok_and(is_ip) && socket.is_listener().unwrap_or(false) => Kind::Tcp(address),
        Type::STREAM => Kind::Other(format!(
            "the inherited socket {address} is a connection, and is not used; the socket unit must not say Accept=yes"
        )),
        Type::DGRAM => Kind::Udp(address),
        _ => Kind::Other(format!("the inherited socket {address} is neither TCP nor UDP, and is not used")),
    }
}

fn is_ip(domain: Domain) -> bool {
    matches!(domain, Domain::IPV4 | Domain::IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn what_a_socket_is_it_says_itself() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connection = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(kind_of(&listener.into()), Kind::Tcp(address));
        let told = |socket: Socket| match kind_of(&socket) {
            Kind::Other(why) => why,
            kind => panic!("{kind:?}"),
        };
        assert!(told(connection.into()).contains("Accept=yes"));
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = datagrams.local_addr().unwrap();
        assert_eq!(kind_of(&datagrams.into()), Kind::Udp(address));
        let (local, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        assert!(told(Socket::from(OwnedFd::from(local))).contains("no IP address"));

        for only_v6 in [true, false] {
            let both = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
            both.set_only_v6(only_v6).unwrap();
            both.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
            let address = both.local_addr().unwrap().as_socket().unwrap();
            match kind_of(&both) {
                Kind::Udp(found) => assert!(only_v6 && found == address),
                Kind::Other(why) => assert!(!only_v6 && why.contains("BindIPv6Only=ipv6-only"), "{why}"),
                kind @ Kind::Tcp(_) => panic!("{kind:?}"),
            }
        }
    }

    #[test]
    fn an_address_gets_its_socket_once_and_the_rest_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let datagrams = UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        for socket in [Socket::from(listener), Socket::from(datagrams)] {
            let kind = kind_of(&socket);
            LEFT.lock().unwrap().push(Inherited { socket, kind });
        }
        let found = tcp(address).unwrap().unwrap();
        assert_eq!(found.local_addr().unwrap(), address);
        assert!(tcp(address).unwrap().is_none(), "once");
        let rest = close_rest();
        assert!(rest.len() == 1 && rest[0].contains(&format!("{address} (UDP)")), "{rest:?}");
        assert!(udp(address).unwrap().is_none());
    }
}
