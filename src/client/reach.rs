//! How near an address is to us: a server may name others as far away as itself, but none that only we can reach.

use std::net::IpAddr;

/// From everywhere to nowhere but here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The Internet.
    Public,
    /// A network that others have too, or a link (RFC 1918, 3927, 4193, 6598).
    Private,
    /// This machine.
    Here,
}

impl Reach {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) if v4.is_loopback() || v4.is_unspecified() => Self::Here,
            IpAddr::V4(v4) => {
                let [first, second, ..] = v4.octets();
                let is_shared = first == 100 && second & 0xC0 == 64;
                let is_private = v4.is_private() || v4.is_link_local() || is_shared || v4.is_broadcast() || v4.is_multicast();
                if is_private || first == 0 { Self::Private } else { Self::Public }
            }
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Self::Here,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() => Self::Private,
            IpAddr::V6(_) => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearer_and_farther() {
        let reach = |text: &str| Reach::of(text.parse().unwrap());
        for here in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert_eq!(reach(here), Reach::Here, "{here}");
        }
        for private in
            ["10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fe80::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert_eq!(reach(private), Reach::Private, "{private}");
        }
        for public in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "8.8.8.8"] {
            assert_eq!(reach(public), Reach::Public, "{public}");
        }
        assert!(Reach::Public < Reach::Private && Reach::Private < Reach::Here);
    }
}
