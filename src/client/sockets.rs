//! The UDP sockets of a client.

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

/// Binds four ports of the ranges that follow each other, the first of them even, the lowest that are free on an address: for RTP and
/// RTCP of media, and for what is sent again. `None` where there are none.
///
/// # Errors
/// As of [`bind_lowest`].
pub(super) async fn bind_pairs(address: IpAddr, ports: &PortRanges) -> io::Result<Option<[UdpSocket; 4]>> {
    let free = |port: u16| {
        let ports = PortRanges(vec![port..=port]);
        async move { bind_lowest(address, &ports).await }
    };
    let has = |port: u16| ports.0.iter().any(|range| range.contains(&port));
    for first in ports.iter().filter(|first| first % 2 == 0) {
        let last = first.saturating_add(3);
        if last - first != 3 || !(first..=last).all(has) {
            continue;
        }
        let Some(rtp) = free(first).await? else { continue };
        let Some(rtcp) = free(first + 1).await? else { continue };
        let Some(resends) = free(first + 2).await? else { continue };
        let Some(requests) = free(last).await? else { continue };
        return Ok(Some([rtp, rtcp, resends, requests]));
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
        let wide = PortRanges(vec![1024..=1037]);
        let pairs = bind_pairs(address, &wide).await.unwrap().unwrap();
        // 1025 and 1030 are held.
        assert_eq!(pairs.map(|socket| socket.local_addr().unwrap().port()), [1026, 1027, 1028, 1029]);
        assert!(bind_pairs(address, &ports).await.unwrap().is_none());
        assert_eq!(bind_lowest(address, &ports).await.unwrap().unwrap().local_addr().unwrap().port(), 1024);
    }
}
