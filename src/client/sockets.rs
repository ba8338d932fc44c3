//! The UDP socket of a client.

use std::io;
use std::net::IpAddr;

use tokio::net::UdpSocket;

use crate::settings::PortRanges;

/// Room for a join burst that arrives while we do something else, bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Binds the lowest port of the ranges that is free on an address; `None` where none is.
///
/// # Errors
/// Those of binding, save "in use" and "not permitted", which mean that the next port is to be tried.
pub(super) async fn bind_lowest(address: IpAddr, ports: &PortRanges) -> io::Result<Option<UdpSocket>> {
    for port in ports.iter() {
        match UdpSocket::bind((address, port)).await {
            Ok(socket) => {
                // A smaller buffer loses a packet now and then, which is no reason to give up.
                let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
                return Ok(Some(socket));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn lowest_free_port_of_the_ranges() {
        // An address of this process alone, so that nobody else holds ports there.
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = IpAddr::V4(Ipv4Addr::new(127, high, low, 7));
        let ports = PortRanges(vec![1024..=1025, 1030..=1030]);
        let mut held = Vec::new();
        for expected in [1024, 1025, 1030] {
            let socket = bind_lowest(address, &ports).await.unwrap().unwrap();
            assert_eq!(socket.local_addr().unwrap().port(), expected);
            held.push(socket);
        }
        assert!(bind_lowest(address, &ports).await.unwrap().is_none());
        held.remove(0);
        assert_eq!(bind_lowest(address, &ports).await.unwrap().unwrap().local_addr().unwrap().port(), 1024);
    }
}
