//! From where a shard's datagrams go out: our UDP ports, and the addresses that viewers connected to.

use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;

use super::udp::{Route, Sent, UdpPort};

/// Local addresses that are told apart. A machine with more serves its viewers by TCP on those beyond.
const MOST: usize = 4096;

/// The number of an origin in its shard; small, so that it fits into a viewer's hot record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OriginId(u16);

/// One of our UDP ports, and the address from which a viewer expects its datagrams.
#[derive(Debug)]
struct Origin {
    port: Arc<UdpPort>,
    source: IpAddr,
}

/// The origins that a shard's viewers have or had; as many as the machine has addresses, so few.
#[derive(Debug, Default)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// The number of an origin; `None` where there are too many.
    pub fn id(&mut self, port: &Arc<UdpPort>, source: IpAddr) -> Option<OriginId> {
        let found = self.0.iter().position(|origin| origin.source == source && Arc::ptr_eq(&origin.port, port));
        let index = found.or_else(|| {
            (self.0.len() < MOST).then(|| self.0.push(Origin { port: Arc::clone(port), source }))?;
            Some(self.0.len() - 1)
        });
        index.and_then(|index| u16::try_from(index).ok()).map(OriginId)
    }

    /// The UDP port of an origin.
    pub fn port(&self, id: OriginId) -> Option<&Arc<UdpPort>> {
        self.0.get(usize::from(id.0)).map(|origin| &origin.port)
    }

    /// [`UdpPort::send`] from the route's origin.
    pub fn send(&self, route: &Route, parts: &[IoSlice<'_>], len: usize) -> Sent {
        self.0.get(usize::from(route.origin.0)).map_or_else(Sent::default, |from| from.port.send(from.source, route, parts, len))
    }
}
