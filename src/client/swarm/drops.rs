//! Datagrams that this machine dropped because a socket of ours was full.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Drops at UDP sockets bound to these addresses, as the kernel counts them; `None` where it does not tell.
pub(super) fn dropped(sockets: impl Iterator<Item = SocketAddr>) -> Option<u64> {
    let ours: HashSet<String> = sockets.map(key).collect();
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|table| fs::read_to_string(table).ok());
    tables.iter().flatten().map(|table| sum(table, &ours)).reduce(|a, b| a + b)
}

/// How the kernel writes an address: words of the machine's order, in hex.
fn key(address: SocketAddr) -> String {
    let hex = |word: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(word));
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => format!("{}:{port:04X}", hex(ip.octets())),
        IpAddr::V6(ip) => {
            let words: String = ip.octets().as_chunks::<4>().0.iter().map(|word| hex(*word)).collect();
            format!("{words}:{port:04X}")
        }
    }
}

/// The last field of each line whose second is one of ours.
fn sum(table: &str, ours: &HashSet<String>) -> u64 {
    let drops = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let is_ours = fields.nth(1).is_some_and(|local| ours.contains(local));
        is_ours.then(|| fields.next_back()?.parse::<u64>().ok())?
    });
    drops.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_our_sockets_are_added_up() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1: 0200007F:0400 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0000000000000000 5\n\
            2: 0200007F:0401 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0000000000000000 7\n\
            3: 0300007F:0400 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1 2 0000000000000000 100\n";
        let ours: HashSet<String> = ["127.0.0.2:1024", "127.0.0.2:1025"].map(|text| key(text.parse().unwrap())).into();
        assert_eq!(sum(table, &ours), 12);
        assert_eq!(key("[::1]:1755".parse().unwrap()), "00000000000000000000000001000000:06DB");
    }

    #[test]
    fn a_full_socket_drops() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(1).unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(dropped([address].into_iter()), Some(0));
        for _ in 0..50 {
            socket.send_to(&[0; 1000], address).unwrap();
        }
        assert!(dropped([address].into_iter()).unwrap() > 0);
    }
}
