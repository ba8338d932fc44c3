//! Which UDP port each viewer listens on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::settings::PortRanges;

/// Hands out the ports of the ranges, the lowest first, an address at a time.
///
/// A port is tried once: a cursor an address, so that binding thousands is not quadratic. What a viewer gave back is not taken
/// again, since the server may let it rest.
#[derive(Debug)]
pub(super) struct PortCursors {
    ports: Vec<u16>,
    next: HashMap<IpAddr, usize>,
}

impl PortCursors {
    pub(super) fn new(ranges: &PortRanges) -> Self {
        Self { ports: ranges.iter().collect(), next: HashMap::new() }
    }

    /// Binds the next port of an address that is free, by `bind`; `None` where none is left.
    ///
    /// # Errors
    /// Those of binding, save "in use" and "not permitted", which mean that the next port is to be tried.
    pub(super) fn bind<T>(
        &mut self,
        address: IpAddr,
        mut bind: impl FnMut(SocketAddr) -> io::Result<T>,
    ) -> io::Result<Option<(T, u16)>> {
        let next = self.next.entry(address).or_default();
        while let Some(port) = self.ports.get(*next).copied() {
            *next += 1;
            match bind((address, port).into()) {
                Ok(socket) => return Ok(Some((socket, port))),
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_all_ports_and_each_port_is_tried_once() {
        let mut cursors = PortCursors::new(&PortRanges(vec![1024..=1025, 7000..=7000]));
        let [a, b]: [IpAddr; 2] = [[127, 0, 0, 2].into(), [127, 0, 0, 3].into()];
        let mut tried = Vec::new();
        let mut bind = |address: IpAddr| {
            let bound = cursors.bind(address, |socket| {
                tried.push(socket);
                if socket.port() == 1025 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
            });
            bound.unwrap().map(|((), port)| port)
        };
        assert_eq!([bind(a), bind(b), bind(a), bind(a), bind(b)], [Some(1024), Some(1024), Some(7000), None, Some(7000)]);
        assert_eq!(tried.len(), 6);
        let other = cursors.bind([127, 0, 0, 4].into(), |_| -> io::Result<()> { Err(io::ErrorKind::AddrNotAvailable.into()) });
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
