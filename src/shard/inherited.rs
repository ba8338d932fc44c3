//! Sockets that whoever started the daemon has bound for it: systemd, by a socket unit (sd_listen_fds(3)).
//!
//! They outlive the daemon, so while it is started anew connections wait in their queues instead of being refused. They are the
//! process's own, as its environment is, and so is the list of them here: whoever binds an address gets the socket that is there
//! for it. The crate sd-notify, which tells systemd what it wants to know, reads the variables; listenfd, made for nothing else, does
//! no more.

use std::fmt;
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
    take(&Kind::Tcp(address)).map(listen).transpose()
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

/// An inherited socket that nobody has asked for, and that has the port that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTheWay {
    /// Where it is bound.
    pub(super) address: SocketAddr,
    /// The address that is wanted.
    wanted: SocketAddr,
    /// The line of a socket unit that makes such a socket.
    directive: &'static str,
    /// What is wrong with it beside its address, and what to do.
    unusable: Option<String>,
}

/// Which it is, and what to write into the socket unit.
impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, wanted, directive, unusable } = self;
        match unusable {
            Some(unusable) => write!(f, "{unusable}")?,
            None => write!(
                f,
                "the inherited socket {address} has that port; in the socket unit write {directive}={wanted} in place of \
                 {directive}={address}"
            )?,
        }
        // systemd starts no socket unit while its service runs.
        f.write_str(" (systemctl edit --full wmrelay.socket), then systemctl stop wmrelay.socket wmrelay, and start both")
    }
}

impl InTheWay {
    /// It could be used, only its address is another one.
    pub(super) fn is_usable(&self) -> bool {
        self.unusable.is_none()
    }
}

/// What keeps TCP from being listened on there, of what nobody has asked for.
pub(super) fn in_the_way_of_tcp(wanted: SocketAddr) -> Option<InTheWay> {
    in_the_way(&LEFT.lock().unwrap_or_else(PoisonError::into_inner), Type::STREAM, wanted)
}

/// The same for UDP.
pub(super) fn in_the_way_of_udp(wanted: SocketAddr) -> Option<InTheWay> {
    in_the_way(&LEFT.lock().unwrap_or_else(PoisonError::into_inner), Type::DGRAM, wanted)
}

fn in_the_way(left: &[Inherited], transport: Type, wanted: SocketAddr) -> Option<InTheWay> {
    left.iter().find_map(|Inherited { socket, kind }| {
        let address = socket.local_addr().ok()?.as_socket()?;
        let overlaps = wanted.is_ipv4() == address.is_ipv4()
            && (wanted.ip() == address.ip() || wanted.ip().is_unspecified() || address.ip().is_unspecified());
        let has_port = wanted.port() != 0 && wanted.port() == address.port();
        if !(has_port && socket.r#type().ok()? == transport && (overlaps || is_both(socket, address))) {
            return None;
        }
        let directive = if transport == Type::DGRAM { "ListenDatagram" } else { "ListenStream" };
        let unusable = match kind {
            Kind::Other(why) => Some(why.clone()),
            Kind::Tcp(_) | Kind::Udp(_) => None,
        };
        Some(InTheWay { address, wanted, directive, unusable })
    })
}

/// The inherited sockets that listen by TCP on a part of what this address of all addresses would be.
pub(super) fn tcp_within(all: SocketAddr) -> Vec<TcpListener> {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let is_within = |address: SocketAddr| address.port() == all.port() && address.is_ipv4() == all.is_ipv4();
    let within: Vec<_> = left
        .extract_if(
            ..,
            |inherited| matches!(inherited.kind, Kind::Tcp(address) if all.ip().is_unspecified() && is_within(address)),
        )
        .collect();
    drop(left);
    within.into_iter().filter_map(|inherited| listen(inherited.socket).ok()).collect()
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    // As many wait as with one of our own.
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn take(wanted: &Kind) -> Option<Socket> {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = left.iter().position(|inherited| inherited.kind == *wanted)?;
    Some(left.swap_remove(at).socket)
}

/// It takes IPv4 too.
fn is_both(socket: &Socket, address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6().unwrap_or(true)
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
    let port = address.port();
    match kind {
        _ if is_both(socket, address) => Kind::Other(format!(
            "the inherited socket {address} is for IPv6 and IPv4 at once, and is not used; in the socket unit write \
             BindIPv6Only=ipv6-only and both 0.0.0.0:{port} and [::]:{port}"
        )),
        // One that is only bound is told to listen by who takes it.
        Type::STREAM if socket.domain().is_ok_and(is_ip) && port != 0 && socket.peer_addr().is_err() => Kind::Tcp(address),
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
        // It stays open: without it the connection is none.
        let listener = Socket::from(listener);
        assert_eq!(kind_of(&listener), Kind::Tcp(address));
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
    fn what_is_only_bound_can_be_listened_on() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(kind_of(&bound), Kind::Other(_)), "it has no port");
        bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(kind_of(&bound), Kind::Tcp(address));
        assert_eq!(listen(bound).unwrap().local_addr().unwrap(), address);
    }

    #[test]
    fn a_socket_in_the_way_is_told_with_the_line_that_would_fit() {
        let inherited = |socket: Socket| {
            let kind = kind_of(&socket);
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            (vec![Inherited { socket, kind }], port)
        };
        let any_v4 = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let any_v6 = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));

        let (left, port) = inherited(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into());
        let told = in_the_way(&left, Type::STREAM, any_v4(port)).unwrap().to_string();
        let expected = format!(
            "the inherited socket 127.0.0.1:{port} has that port; in the socket unit write ListenStream=0.0.0.0:{port} in place of \
             ListenStream=127.0.0.1:{port} ("
        );
        assert!(told.starts_with(&expected), "{told}");
        assert_eq!(in_the_way(&left, Type::DGRAM, any_v4(port)), None);
        assert_eq!(in_the_way(&left, Type::STREAM, any_v6(port)), None);
        assert_eq!(in_the_way(&left, Type::STREAM, any_v4(port - 1)), None);
        assert_eq!(in_the_way(&left, Type::STREAM, (Ipv4Addr::new(127, 0, 0, 2), port).into()), None);

        let (left, port) = inherited(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().into());
        let told = in_the_way(&left, Type::DGRAM, (Ipv4Addr::LOCALHOST, port).into()).unwrap().to_string();
        assert!(
            told.contains(&format!("write ListenDatagram=127.0.0.1:{port} in place of ListenDatagram=0.0.0.0:{port}")),
            "{told}"
        );

        let both = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&any_v6(0).into()).unwrap();
        let (left, port) = inherited(both);
        for wanted in [any_v4(port), any_v6(port), (Ipv4Addr::LOCALHOST, port).into()] {
            let found = in_the_way(&left, Type::STREAM, wanted).unwrap();
            assert!(!found.is_usable() && found.to_string().contains("BindIPv6Only=ipv6-only and both"), "{found}");
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
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        let listen = crate::settings::Listen { addresses: vec![everywhere], built_in: false };
        let error = crate::shard::listen::bind_tcp("http.listen", &listen).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("http.listen cannot listen on {everywhere} (TCP): the inherited socket {address}")),
            "{error}"
        );
        assert!(error.ends_with(&format!("; or let http.listen say {address}")), "{error}");
        let found = tcp(address).unwrap().unwrap();
        assert_eq!(found.local_addr().unwrap(), address);
        assert!(tcp(address).unwrap().is_none(), "once");
        let rest = close_rest();
        assert!(rest.len() == 1 && rest[0].contains(&format!("{address} (UDP)")), "{rest:?}");
        assert!(udp(address).unwrap().is_none());
    }
}
