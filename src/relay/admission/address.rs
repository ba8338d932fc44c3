//! What counts as one address.

use std::net::{IpAddr, Ipv6Addr};

/// The address itself: an IPv4 address that a dual-stack socket shows as `::ffff:a.b.c.d` is `a.b.c.d`.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// What limits count as one client: an IPv4 address, an IPv6 /64.
// A single IPv6 host owns its /64 and could appear with a new address each time.
pub fn limit_key(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(canonical(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
        assert_eq!(limit_key(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
        assert_eq!(canonical(ip("2001:db8::7")), ip("2001:db8::7"));
    }

    #[test]
    fn ipv6_counts_per_64() {
        assert_eq!(limit_key(ip("2001:db8:0:1:aaaa::1")), limit_key(ip("2001:db8:0:1:bbbb::2")));
        assert_ne!(limit_key(ip("2001:db8:0:1::1")), limit_key(ip("2001:db8:0:2::1")));
        assert_ne!(limit_key(ip("192.0.2.1")), limit_key(ip("192.0.2.2")));
    }
}
