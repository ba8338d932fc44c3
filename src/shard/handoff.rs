//! How a connection that is not a viewer's leaves the shards.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A connection whose first request is a publisher's, or, over RTSP, whose next is.
#[derive(Debug)]
pub struct Handed {
    /// The connection, non-blocking.
    pub stream: TcpStream,
    /// Who connected.
    pub peer: SocketAddr,
    /// To which of our addresses.
    pub local: SocketAddr,
    /// Bytes already read from it.
    pub head: Vec<u8>,
    /// What it speaks.
    pub speaks: Speaks,
}

/// How a publisher publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// By HTTP.
    Http,
    /// By RTSP; the bytes begin with its ANNOUNCE.
    Rtsp {
        /// Its bytes come out of TLS and go into it.
        tls: bool,
    },
}

/// Takes such connections; must not block.
pub type HandOff = Arc<dyn Fn(Handed) + Send + Sync>;
