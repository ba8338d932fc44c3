//! Datagrams of probes: challenges go out from the very sockets that media comes from, so that firewalls judge both alike; echoes come
//! in where requests for lost packets do. Nothing is ever answered.

use std::collections::HashMap;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shards;
use super::listen::RtpPorts;
use super::origins::OriginId;
use super::udp::{Route, UdpPort};
use crate::probe::{Datagram, Kind, Protocol, Token};

/// Echoes that are kept of one probe.
const ECHOES_MAX: usize = 64;
/// Probes that are listened for at once.
const PROBES_MAX: usize = 64;

/// An echo that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// At which of our ports.
    pub server_port: u16,
    /// From which port, as the probe knows it.
    pub client_port: u16,
    /// From where, as we saw it.
    pub from: SocketAddr,
}

/// The echoes of those probes that are listened for.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    /// How many probes there are, so that nobody waits for the lock while there is none.
    count: AtomicUsize,
    heard: Mutex<HashMap<Token, Vec<Heard>>>,
}

impl Echoes {
    fn heard(&self) -> MutexGuard<'_, HashMap<Token, Vec<Heard>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a datagram if it is an echo of a probe that is listened for; false where it is not.
    pub(super) fn take(&self, bytes: &[u8], server_port: u16, from: SocketAddr) -> bool {
        // Relaxed: who begins to listen is asked for echoes later, by way of the lock.
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(Datagram { kind: Kind::Echo, token, client_port, .. }) = Datagram::parse(bytes) else { return false };
        let mut heard = self.heard();
        let Some(of_probe) = heard.get_mut(&token) else { return false };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let echo = Heard { server_port, client_port, from };
        if of_probe.len() < ECHOES_MAX && !of_probe.contains(&echo) {
            of_probe.push(echo);
        }
        true
    }
}

/// Sends challenges and hears echoes.
#[derive(Debug, Clone, Default)]
pub struct Prober {
    mms: Vec<Arc<UdpPort>>,
    rtp: Vec<Arc<RtpPorts>>,
    echoes: Arc<Echoes>,
}

impl Shards {
    /// What probes the paths of datagrams.
    pub fn prober(&self) -> Prober {
        let context = &self.context;
        // Behind those of MMS come those of RTSP.
        let mms = context.udp_ports.len().saturating_sub(context.rtp_ports.len());
        Prober {
            mms: context.udp_ports.iter().take(mms).cloned().collect(),
            rtp: context.rtp_ports.clone(),
            echoes: Arc::clone(&context.echoes),
        }
    }
}

impl Prober {
    /// UDP ports that media over RTSP comes from; requests for lost packets come to the next ones.
    pub fn rtp_ports(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.rtp.iter().map(|ports| ports.media.local())
    }

    /// Listens for the echoes of a probe; false where there are too many already.
    pub fn listen(&self, token: Token) -> bool {
        let mut heard = self.echoes.heard();
        if heard.len() >= PROBES_MAX {
            return false;
        }
        heard.entry(token).or_default();
        self.echoes.count.store(heard.len(), Ordering::Relaxed);
        true
    }

    /// Listens no more.
    pub fn forget(&self, token: &Token) {
        let mut heard = self.echoes.heard();
        heard.remove(token);
        self.echoes.count.store(heard.len(), Ordering::Relaxed);
    }

    /// What came of a probe until now.
    pub fn heard(&self, token: &Token) -> Vec<Heard> {
        self.echoes.heard().get(token).cloned().unwrap_or_default()
    }

    /// Sends a challenge from the socket of this port that media for somebody who connected to `local` comes from; false where there is none, or
    /// the system does not let it out. What ICMP says about it is nobody's.
    pub fn challenge(&self, protocol: Protocol, server_port: u16, local: IpAddr, to: SocketAddr, token: Token) -> bool {
        let Some(port) = self.port_of(protocol, server_port, local) else { return false };
        let datagram =
            Datagram { kind: Kind::Challenge, token, server_port: port.local().port(), client_port: to.port() }.bytes();
        let route = Route { destination: to.into(), origin: OriginId::default(), segmented: false, fragmented: false };
        let sent = port.send(local, &route, &[IoSlice::new(&datagram)], datagram.len());
        sent.bytes == datagram.len() && sent.failed == 0
    }

    fn port_of(&self, protocol: Protocol, server_port: u16, local: IpAddr) -> Option<&Arc<UdpPort>> {
        let local = local.to_canonical();
        match protocol {
            Protocol::Mms => self.mms.iter().find(|port| {
                let ours = port.local().ip();
                port.local().port() == server_port
                    && (ours == local || ours.is_unspecified() && ours.is_ipv4() == local.is_ipv4())
            }),
            Protocol::Rtsp => {
                let of_port =
                    self.rtp.iter().map(|ports| (ports, &ports.media)).filter(|(_, media)| media.local().port() == server_port);
                of_port.filter(|(ports, _)| ports.serves(local)).map(|(_, media)| media).next()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn echo(token: Token, client_port: u16) -> Vec<u8> {
        Datagram { kind: Kind::Echo, token, server_port: 1755, client_port }.bytes()
    }

    #[test]
    fn a_challenge_comes_from_the_socket_of_media() {
        let other = Arc::new(UdpPort::bind((HERE, 0).into(), 1472).unwrap());
        let port = Arc::new(UdpPort::bind((HERE, 0).into(), 1472).unwrap());
        let from = port.local();
        let prober = Prober { mms: vec![other, port], ..Prober::default() };
        let client = UdpSocket::bind((HERE, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = client.local_addr().unwrap();
        assert!(prober.challenge(Protocol::Mms, from.port(), HERE, to, [9; 16]));
        let mut buffer = [0; 128];
        let (len, source) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(source, from);
        let wanted = Datagram { kind: Kind::Challenge, token: [9; 16], server_port: from.port(), client_port: to.port() };
        assert_eq!(Datagram::parse(&buffer[..len]), Some(wanted));
        // Where there is no such socket nothing leaves.
        assert!(!prober.challenge(Protocol::Rtsp, from.port(), HERE, to, [9; 16]));
        assert!(!prober.challenge(Protocol::Mms, to.port(), HERE, to, [9; 16]));
        assert!(!prober.challenge(Protocol::Mms, from.port(), "127.0.0.9".parse().unwrap(), to, [9; 16]));
    }

    #[test]
    fn echoes_of_strangers_are_nothing_and_those_of_one_probe_are_bounded() {
        let (prober, from) = (Prober::default(), SocketAddr::from((HERE, 4000)));
        let take = |bytes: &[u8]| prober.echoes.take(bytes, 1755, from);
        assert!(!take(&echo([1; 16], 1)), "nobody listens");
        assert!(prober.listen([1; 16]));
        assert!(!take(&echo([2; 16], 1)));
        assert!(!take(b"nonsense"));
        let challenge = Datagram { kind: Kind::Challenge, token: [1; 16], server_port: 1, client_port: 1 };
        assert!(!take(&challenge.bytes()));
        for _ in 0..3 {
            assert!(take(&echo([1; 16], 7)));
        }
        assert_eq!(prober.heard(&[1; 16]), [Heard { server_port: 1755, client_port: 7, from }]);
        for port in 0..1000 {
            take(&echo([1; 16], port));
        }
        assert_eq!(prober.heard(&[1; 16]).len(), ECHOES_MAX);
        for number in 0..200 {
            prober.listen([number; 16]);
        }
        assert_eq!(prober.echoes.heard().len(), PROBES_MAX);
        prober.forget(&[1; 16]);
        assert!(prober.heard(&[1; 16]).is_empty() && !take(&echo([1; 16], 7)));
    }
}
