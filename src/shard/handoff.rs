//! How a connection that is not a viewer's leaves the shards.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// A connection whose first request is a publisher's.
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
}

/// Takes such connections; must not block.
pub type HandOff = Arc<dyn Fn(Handed) + Send + Sync>;
