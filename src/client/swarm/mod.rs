//! `wmrelay swarm`: plays one stream many times over, and tells how the server bore it.
//!
//! Each viewer is a [`crate::mms::client::Client`] that counts, or a [`crate::http::client::Client`] which has one connection for
//! each request, one at a time; one thread and one epoll instance drive them all. The loop takes
//! turns of a fixed length rather than waking for each packet: 1 ms while viewers join, 5 ms when all play, so that a turn finds
//! many packets. Times are therefore no finer than that, and each step of a join may take up to a turn longer than the server took.
//!
//! At most 1000 handshakes are under way at once, whatever the ramp says: beyond that a slow server would be measured by the
//! length of its accept queue alone.
//!
//! With [`SwarmOptions::start`] viewers of a file begin where they are told, and at its end begin once more. Their packets have no
//! delay, since nothing tells one viewer's clock from another's: the server knows what was late.
//!
//! With [`SwarmOptions::unread`] a viewer leaves its media after its first packet. Over UDP its socket is made small and no longer
//! polled: the kernel drops what comes, the control connection goes on. Over TCP, where the server would stand still, bytes are
//! read and cut at their packets: control messages reach the engine, which answers pings, and media is counted by its heads. So it
//! is over HTTP, where frames take the place of packets; plain ASF has none, and is parsed whatever was asked for.
//!
//! Plain ASF does not number its packets, so each viewer counts its own, and packets of late viewers seem old: they have no delay.

mod addresses;
mod counts;
mod crowd;
mod delays;
mod drops;
mod engines;
mod inbox;
mod ledger;
mod percentiles;
mod ports;
mod process;
mod report;
mod skim;
mod skim_http;
mod sockets;
mod start;
mod viewer;

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use addresses::{AddressesError, SwarmAddresses};
pub use counts::Counts;
pub use crowd::Progress;
pub use delays::{DelayReport, LATE};
pub use percentiles::Percentiles;
pub use report::{ServerReport, SwarmReport};
pub use start::SwarmStart;

use super::url::StreamUrl;
use crate::mms::session::Transport;
use crate::settings::PortRanges;

/// Time for one of several addresses of a host to answer.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Descriptors beside those of the viewers.
const OTHER_DESCRIPTORS: u64 = 32;

/// What a swarm is to do.
#[derive(Debug, Clone)]
pub struct SwarmOptions {
    /// What to play.
    pub url: StreamUrl,
    /// How many viewers.
    pub viewers: usize,
    /// The data path; there is no other where the server refuses it. HTTP has TCP alone.
    pub transport: Transport,
    /// Connections begun per second.
    pub ramp_per_s: u32,
    /// How long to measure once all have joined; zero: not at all.
    pub measured: Duration,
    /// Where in a file to begin; `None`: where the server does, and to leave at its end.
    pub start: Option<SwarmStart>,
    /// Local addresses, which viewers take in turn; none: the system chooses.
    pub addresses: SwarmAddresses,
    /// UDP ports that each address may take.
    pub ports: PortRanges,
    /// All viewers but the first take their media and do not look at it.
    pub unread: bool,
    /// Let the kernel hand over several datagrams as one, which no ordinary player asks for.
    pub gro: bool,
    /// Process id of a server on this machine whose use is to be told.
    pub server: Option<u32>,
}

/// Why a swarm does not start.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// HTTP with UDP.
    #[error("{url}: HTTP has no UDP: leave --transport out, or play by MMS: mms:// or mmsu://")]
    UdpOverHttp {
        /// What was to be played.
        url: String,
    },
    /// The host has no address, or none of the family of ours.
    #[error("{host}: {error}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// None of the host's addresses takes connections.
    #[error("connecting to {host} port {port}: {error}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Why the last did not.
        error: io::Error,
    },
    /// More viewers than UDP ports.
    #[error(
        "{viewers} viewers over UDP need {wanted} local addresses with ports for {per_address} each, and there {}: \
         give more by --addresses, such as 127.0.0.2-127.0.0.9 for a server on this machine, or widen --ports",
        if *.given == 1 { "is 1".to_owned() } else { format!("are {given}") }
    )]
    Ports {
        /// Viewers asked for.
        viewers: usize,
        /// Addresses they need.
        wanted: usize,
        /// Addresses there are.
        given: usize,
        /// Viewers for whom each has ports; over RTSP they need two.
        per_address: usize,
    },
    /// More viewers than file descriptors.
    #[error("{viewers} viewers need {wanted} open files, and this process may have {allowed}: raise the hard limit (ulimit -Hn)")]
    Descriptors {
        /// Viewers asked for.
        viewers: usize,
        /// Descriptors they need.
        wanted: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// The server's process cannot be looked at.
    #[error("process {pid}: {error}")]
    Process {
        /// Its id.
        pid: u32,
        /// Why.
        error: io::Error,
    },
    /// No epoll, or the like.
    #[error("sockets: {0}")]
    Io(#[from] io::Error),
}

/// Runs a swarm to its end, or until `stop` is set, which ends it early and with its report; tells of its progress twice a second.
///
/// Viewers that fail are counted by cause and do not end the swarm.
///
/// # Errors
/// [`SwarmError`] where it cannot start.
pub fn swarm(options: SwarmOptions, stop: &AtomicBool, on_progress: impl FnMut(&Progress)) -> Result<SwarmReport, SwarmError> {
    if options.transport == Transport::Udp && options.url.scheme.is_http() {
        return Err(SwarmError::UdpOverHttp { url: options.url.to_string() });
    }
    if options.transport == Transport::Udp {
        let each = if options.url.scheme.is_rtsp() { 2 } else { 1 };
        let (given, per_address) = (options.addresses.0.len().max(1), options.ports.iter().count() / each);
        let wanted = options.viewers.div_ceil(per_address.max(1));
        if wanted > given {
            return Err(SwarmError::Ports { viewers: options.viewers, wanted, given, per_address });
        }
    }
    let sockets = match options.transport {
        Transport::Tcp => 1,
        Transport::Udp if options.url.scheme.is_rtsp() => 3,
        Transport::Udp => 2,
    };
    allow_descriptors(options.viewers, sockets)?;
    let server = server_address(&options)?;
    crowd::run(options, server, stop, on_progress)
}

/// Raises the limit on open files as far as the system lets us.
fn allow_descriptors(viewers: usize, each: u64) -> Result<(), SwarmError> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let wanted = (viewers as u64).saturating_mul(each).saturating_add(OTHER_DESCRIPTORS);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).map_err(io::Error::from)?;
    }
    match limit.current.filter(|allowed| *allowed < wanted) {
        Some(allowed) => Err(SwarmError::Descriptors { viewers, wanted, allowed }),
        None => Ok(()),
    }
}

/// Where the server is: of several addresses the first that takes a connection.
fn server_address(options: &SwarmOptions) -> Result<SocketAddr, SwarmError> {
    let (host, port) = (&options.url.host, options.url.port);
    let resolve = |error| SwarmError::Resolve { host: host.clone(), error };
    let mut found: Vec<SocketAddr> = (host.as_str(), port).to_socket_addrs().map_err(resolve)?.collect();
    if let Some(ours) = options.addresses.0.first() {
        found.retain(|address| address.is_ipv4() == ours.is_ipv4());
    }
    match found.as_slice() {
        [] => Err(resolve(io::Error::new(io::ErrorKind::NotFound, "no address of the family of --addresses"))),
        [only] => Ok(*only),
        several => {
            let mut last = io::ErrorKind::NotFound.into();
            for address in several {
                match TcpStream::connect_timeout(address, CONNECT_TIME) {
                    Ok(_) => return Ok(*address),
                    Err(error) => last = error,
                }
            }
            Err(SwarmError::Connect { host: host.clone(), port, error: last })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_ports_and_udp_over_http_are_told_before_anything_starts() {
        let mut options = SwarmOptions {
            url: "mms://127.0.0.1:1/none".parse().unwrap(),
            viewers: 25,
            transport: Transport::Udp,
            ramp_per_s: 1,
            measured: Duration::ZERO,
            start: None,
            addresses: SwarmAddresses(vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into()]),
            ports: PortRanges(vec![1024..=1033]),
            unread: false,
            gro: false,
            server: None,
        };
        let error = swarm(options.clone(), &AtomicBool::new(false), |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "25 viewers over UDP need 3 local addresses with ports for 10 each, and there are 2: give more by --addresses, such as \
             127.0.0.2-127.0.0.9 for a server on this machine, or widen --ports"
        );
        options.url = "mmsh://u:secret@a/b?key=1".parse().unwrap();
        let error = swarm(options, &AtomicBool::new(false), |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "mmsh://a/b?…: HTTP has no UDP: leave --transport out, or play by MMS: mms:// or mmsu://");
    }

    #[test]
    fn more_viewers_than_descriptors() {
        let error = allow_descriptors(usize::MAX / 4, 2).unwrap_err();
        assert!(error.to_string().contains("ulimit -Hn"), "{error}");
    }
}
