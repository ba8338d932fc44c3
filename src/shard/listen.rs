//! Binding the media ports: TCP, for MMS the UDP port of the same number, for RTSP a pair of UDP ports. Where a socket was inherited
//! that has the address, it is that one.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::inherited::{self, InTheWay};
use super::udp::UdpPort;
use crate::settings::{Listen, Udp};

/// Connections that the kernel holds until they are accepted.
pub(super) const BACKLOG: i32 = 4096;
/// Free TCP ports that are tried until UDP has the same number free.
const PORT_ATTEMPTS: usize = 32;
/// Pairs of UDP ports that are tried where that of the settings is taken.
const PAIR_ATTEMPTS: usize = 64;

/// A listener that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The setting that names the address, `mms.listen`.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub transport: &'static str,
    /// What the system said.
    pub error: String,
    /// The inherited socket that has the port.
    pub in_the_way: Option<Box<InTheWay>>,
}

impl BindError {
    fn tcp(key: &'static str, address: SocketAddr, error: &io::Error) -> Self {
        Self {
            key,
            address,
            transport: "TCP",
            error: error.to_string(),
            in_the_way: inherited::in_the_way_of_tcp(address).map(Box::new),
        }
    }

    fn udp(key: &'static str, address: SocketAddr, error: &io::Error) -> Self {
        Self {
            key,
            address,
            transport: "UDP",
            error: error.to_string(),
            in_the_way: inherited::in_the_way_of_udp(address).map(Box::new),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, address, transport, error, in_the_way } = self;
        write!(f, "{key} cannot listen on {address} ({transport}): ")?;
        match in_the_way {
            None => write!(f, "{error}. Is another server running, or does the port need a privilege?"),
            Some(inherited) if inherited.is_usable() => write!(f, "{inherited}; or let {key} say {}", inherited.address),
            Some(inherited) => write!(f, "{inherited}"),
        }
    }
}

impl std::error::Error for BindError {}

/// A bound MMS listener.
#[derive(Debug)]
pub struct MmsListener {
    /// Control connections, and media over TCP.
    pub tcp: TcpListener,
    /// Media out and resend requests in; `None` while UDP is switched off.
    pub udp: Option<Arc<UdpPort>>,
}

/// The UDP ports of RTSP at one address.
#[derive(Debug)]
pub struct RtpPorts {
    /// Media comes from here: an even number.
    pub media: Arc<UdpPort>,
    /// Requests for lost packets come here: the next number.
    pub requests: Arc<UdpPort>,
}

impl RtpPorts {
    /// Binds a pair at an address: `port` and the next, or, where those are taken or `port` is 0, a pair of the system's choice.
    fn bind(address: IpAddr, port: u16, max_datagram: usize) -> io::Result<Self> {
        let pair = |port: u16| -> io::Result<Self> {
            let media = UdpPort::bind(SocketAddr::new(address, port), max_datagram)?;
            let even = media.local().port();
            if even % 2 == 1 {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let requests = UdpPort::bind(SocketAddr::new(address, even + 1), max_datagram)?;
            Ok(Self { media: Arc::new(media), requests: Arc::new(requests) })
        };
        let mut result = pair(port);
        for _ in 0..PAIR_ATTEMPTS {
            if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            result = pair(0);
        }
        result
    }

    /// Whether media for somebody who connected to `local` can come from here.
    pub fn serves(&self, local: IpAddr) -> bool {
        let (ours, local) = (self.media.local().ip(), local.to_canonical());
        ours == local || ours.is_unspecified() && ours.is_ipv4() == local.is_ipv4()
    }
}

/// A bound RTSP listener.
#[derive(Debug)]
pub struct RtspListener {
    /// Control connections, and media over TCP.
    pub tcp: TcpListener,
    /// For media over UDP; `None` while that is switched off.
    pub udp: Option<Arc<RtpPorts>>,
}

/// Binds the RTSP addresses for TCP, and a pair of UDP ports at each.
///
/// Where `port` is taken, another pair stands in for it, since players are told the numbers; that is logged.
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_rtsp(listen: &Listen, port: u16, settings: &Udp) -> Result<Vec<RtspListener>, BindError> {
    let key = "rtsp.listen";
    let mut bound = Vec::new();
    for tcp in bind_tcp(key, listen)? {
        let Ok(local) = tcp.local_addr() else { continue };
        let max_datagram = if local.is_ipv4() { settings.max_datagram_v4 } else { settings.max_datagram_v6 };
        let udp = if settings.enabled {
            let ports = RtpPorts::bind(local.ip(), port, max_datagram)
                .map_err(|error| BindError::udp("rtsp.server_port", SocketAddr::new(local.ip(), port), &error))?;
            let media = ports.media.local();
            if port != 0 && media.port() != port {
                let wanted = [port, port.saturating_add(1)].map(|port| SocketAddr::new(local.ip(), port));
                let in_the_way = wanted.into_iter().find_map(inherited::in_the_way_of_udp).map(|inherited| inherited.to_string());
                tracing::warn!(
                    wanted = port,
                    bound = %media,
                    in_the_way,
                    "rtsp.server_port is taken: media over RTSP comes from another UDP port, which firewalls may not expect"
                );
            }
            Some(Arc::new(ports))
        } else {
            None
        };
        bound.push(RtspListener { tcp, udp });
    }
    Ok(bound)
}

/// Binds all addresses of a listener for TCP.
///
/// # Errors
/// [`BindError`] for the first address that cannot be had; a built-in IPv6 address on a machine without IPv6 is passed over.
pub fn bind_tcp(key: &'static str, listen: &Listen) -> Result<Vec<TcpListener>, BindError> {
    let mut bound = Vec::new();
    for &address in &listen.addresses {
        match listener(address) {
            Ok(tcp) => bound.push(tcp),
            Err(error) if passed_over(listen, address, &error) => {}
            Err(error) => return Err(BindError::tcp(key, address, &error)),
        }
    }
    Ok(bound)
}

/// Binds what is no way to media, as [`bind_tcp`], but an inherited socket in the way of it does not keep the daemon from its viewers:
/// where that one is a part of the address ("127.0.0.1" of "0.0.0.0"), there alone is listened, and else nowhere. Never on more than
/// was asked for, since that may be what keeps strangers out. With it what to tell about that, a sentence each.
///
/// # Errors
/// As [`bind_tcp`] where anything else is in the way.
pub fn bind_command_port(key: &'static str, listen: &Listen) -> Result<(Vec<TcpListener>, Vec<String>), BindError> {
    let (mut bound, mut told) = (Vec::new(), Vec::new());
    for &address in &listen.addresses {
        let error = match listener(address) {
            Ok(tcp) => {
                bound.push(tcp);
                continue;
            }
            Err(error) if passed_over(listen, address, &error) => continue,
            Err(error) => BindError::tcp(key, address, &error),
        };
        let Some(in_the_way) = &error.in_the_way else { return Err(error) };
        let within = inherited::tcp_within(address);
        let at: Vec<_> = within.iter().filter_map(|tcp| Some(tcp.local_addr().ok()?.to_string())).collect();
        let until = if at.is_empty() { "nowhere".to_owned() } else { format!("on {} alone", at.join(", ")) };
        told.push(format!("{key} cannot listen on {address} (TCP), and until that is mended listens {until}: {in_the_way}"));
        bound.extend(within);
    }
    Ok((bound, told))
}

/// Binds the MMS addresses, TCP and UDP with one number; port 0 takes a number that both have free.
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_mms(listen: &Listen, settings: &Udp) -> Result<Vec<MmsListener>, BindError> {
    let key = "mms.listen";
    let mut bound = Vec::new();
    for &address in &listen.addresses {
        let max_datagram = if address.is_ipv4() { settings.max_datagram_v4 } else { settings.max_datagram_v6 };
        let mut attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let tcp = match listener(address) {
                Ok(tcp) => tcp,
                Err(error) if passed_over(listen, address, &error) => break,
                Err(error) => return Err(BindError::tcp(key, address, &error)),
            };
            if !settings.enabled {
                bound.push(MmsListener { tcp, udp: None });
                break;
            }
            let local = tcp.local_addr().unwrap_or(address);
            match UdpPort::bind(local, max_datagram) {
                Ok(udp) => {
                    bound.push(MmsListener { tcp, udp: Some(Arc::new(udp)) });
                    break;
                }
                Err(_) if attempts > 0 => {}
                Err(error) => return Err(BindError::udp(key, local, &error)),
            }
        }
    }
    Ok(bound)
}

fn passed_over(listen: &Listen, address: SocketAddr, error: &io::Error) -> bool {
    listen.built_in
        && address.is_ipv6()
        && matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    if let Some(inherited) = inherited::tcp(address)? {
        return Ok(inherited);
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has its own socket; a mapped address would hide the viewer's real one.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use std::net::Ipv4Addr;

    #[test]
    fn tcp_and_udp_share_a_number() {
        let listen = Listen { addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], built_in: false };
        let bound = bind_mms(&listen, &Settings::default().udp).unwrap();
        let [pair] = bound.as_slice() else { panic!("one address, one listener") };
        assert_eq!(pair.tcp.local_addr().unwrap(), pair.udp.as_ref().unwrap().local());
    }

    #[test]
    fn media_comes_from_an_even_port_and_requests_come_to_the_next() {
        let listen = Listen { addresses: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], built_in: false };
        let bind = |port| bind_rtsp(&listen, port, &Settings::default().udp).unwrap().remove(0).udp.unwrap();
        let first = bind(0);
        let port = first.media.local().port();
        assert_eq!((port % 2, first.requests.local().port()), (0, port + 1));
        let second = bind(port);
        assert!(second.media.local().port() != port && second.media.local().port() % 2 == 0, "{second:?}");
        assert!(first.serves(Ipv4Addr::LOCALHOST.into()) && !first.serves(std::net::Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let listen = Listen { addresses: vec![taken.local_addr().unwrap()], built_in: false };
        let error = bind_tcp("http.listen", &listen).unwrap_err().to_string();
        assert!(error.contains("http.listen") && error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    }
}
