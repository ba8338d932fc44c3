//! How addresses, networks and port ranges are written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::{Listen, PortRanges};

impl Listen {
    /// Whether one of our addresses would take a port that `other` wants, so that only one of them can be bound.
    /// IPv6 sockets are IPv6 only, so `[::]` and `0.0.0.0` go together.
    pub(super) fn collides(&self, other: &Self) -> Option<(SocketAddr, SocketAddr)> {
        let pairs = self.addresses.iter().flat_map(|ours| other.addresses.iter().map(move |theirs| (*ours, *theirs)));
        pairs.into_iter().find(|(ours, theirs)| same_port(*ours, *theirs))
    }

    /// The first two addresses of this list that collide.
    pub(super) fn collides_itself(&self) -> Option<(SocketAddr, SocketAddr)> {
        let later = |i: usize| self.addresses.iter().skip(i.saturating_add(1));
        let pairs = self.addresses.iter().enumerate().flat_map(|(i, one)| later(i).map(move |two| (*one, *two)));
        pairs.into_iter().find(|(one, two)| same_port(*one, *two))
    }
}

fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && overlap
}

/// The addresses that one written address stands for, and whether a missing IPv6 may be passed over.
///
/// # Errors
/// A sentence for the person who wrote it.
pub(super) fn listen_addresses(text: &str) -> Result<(Vec<SocketAddr>, bool), String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((vec![address], false));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let both = |v4: Ipv4Addr, v6: Ipv6Addr, port: u16| (vec![SocketAddr::from((v4, port)), SocketAddr::from((v6, port))], true);
    match (host, port.parse::<u16>()) {
        ("*", Ok(port)) => Ok(both(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port)),
        ("localhost", Ok(port)) => Ok(both(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, port)),
        ("", Ok(port)) => Err(format!("\"{text}\" has no address; for all addresses write \"*:{port}\"")),
        _ if text.parse::<IpAddr>().is_ok() => Err(format!("\"{text}\" has no port; write \"{}\"", with_port(text))),
        _ if text.parse::<u16>().is_ok() => Err(format!("\"{text}\" is a port without an address; write \"*:{text}\"")),
        (host, Ok(_)) if !host.is_empty() && !host.contains([':', '[', ']']) => {
            Err(format!("\"{text}\": names are not looked up; write the IP address, or * for all addresses"))
        }
        _ => {
            Err(format!("\"{text}\" is not an address and port such as \"*:1755\", \"192.0.2.1:1755\" or \"[2001:db8::1]:1755\""))
        }
    }
}

fn with_port(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:1755") } else { format!("{ip}:1755") }
}

/// A network, or one address as a network of its own; IPv4 in IPv6's clothes is IPv4, as clients' addresses are.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net.trunc(),
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => return Err(format!("\"{text}\" is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\"")),
        },
    };
    if let IpNet::V6(v6) = net
        && let (Some(v4), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
        && let Ok(v4) = Ipv4Net::new(v4, prefix)
    {
        return Ok(IpNet::V4(v4));
    }
    Ok(net)
}

impl PortRanges {
    /// The union of ranges, sorted, neighbours joined.
    ///
    /// # Errors
    /// A sentence that names the range with port 0 or with its ends exchanged.
    pub fn new(mut ranges: Vec<RangeInclusive<u16>>) -> Result<Self, String> {
        if let Some(bad) = ranges.iter().find(|range| range.is_empty() || range.contains(&0)) {
            let (first, last) = (bad.start(), bad.end());
            return Err(if *first == 0 || *last == 0 {
                "port 0 is not a port".to_owned()
            } else {
                format!("\"{first}-{last}\" ends before it begins; write \"{last}-{first}\"")
            });
        }
        ranges.sort_by_key(|range| *range.start());
        let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if *range.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=*range.end().max(last.end());
                }
                _ => joined.push(range),
            }
        }
        Ok(Self(joined))
    }

    /// How many ports there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }
}

/// `1024-5000`, or several with commas: `1024-1033,7000`.
impl FromStr for PortRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |part: &str| format!("\"{part}\" is not a port or a range of ports such as \"1024-5000\"");
        let port = |text: &str, part: &str| text.trim().parse::<u16>().map_err(|_| wrong(part));
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            ranges.push(port(first, part)?..=port(last, part)?);
        }
        Self::new(ranges)
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let (first, last) = (range.start(), range.end());
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        listen_addresses(text).unwrap().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_as_people_write_them() {
        assert_eq!(addresses("192.0.2.1:1755"), ["192.0.2.1:1755"]);
        assert_eq!(addresses("[::1]:1755"), ["[::1]:1755"]);
        assert_eq!(addresses("*:1755"), ["0.0.0.0:1755", "[::]:1755"]);
        assert_eq!(addresses("localhost:0"), ["127.0.0.1:0", "[::1]:0"]);
    }

    #[test]
    fn a_wrong_address_is_told_how_to_write_it() {
        let told = |text: &str| listen_addresses(text).unwrap_err();
        assert!(told("1755").contains("\"*:1755\""));
        assert!(told(":1755").contains("\"*:1755\""));
        assert!(told("192.0.2.1").contains("\"192.0.2.1:1755\""));
        assert!(told("::1").contains("\"[::1]:1755\""));
        assert!(told("media.example:1755").contains("names are not looked up"));
        for bad in ["", "*", "*:", "*:70000", "[::1:1755", "1.2.3.4:x", "a:b:c"] {
            assert!(told(bad).contains("is not an address and port"), "{bad}: {}", told(bad));
        }
    }

    #[test]
    fn one_port_is_bound_once() {
        let listen = |text: &str| Listen { addresses: listen_addresses(text).unwrap().0, built_in: false };
        assert!(listen("*:80").collides(&listen("192.0.2.1:80")).is_some());
        assert!(listen("192.0.2.1:80").collides(&listen("192.0.2.1:80")).is_some());
        assert!(listen("192.0.2.1:80").collides(&listen("192.0.2.2:80")).is_none());
        assert!(listen("*:0").collides(&listen("*:0")).is_none());
        assert!(listen("0.0.0.0:80").collides(&listen("[::1]:80")).is_none());
        assert!(listen("*:80").collides_itself().is_none());
        let twice = Listen { addresses: vec!["[::]:80".parse().unwrap(), "[::1]:80".parse().unwrap()], built_in: false };
        assert!(twice.collides_itself().is_some());
    }

    #[test]
    fn networks_are_canonical() {
        let net = |text: &str| network(text).unwrap().to_string();
        assert_eq!(net("192.0.2.7/24"), "192.0.2.0/24");
        assert_eq!(net("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(net("2001:db8::1"), "2001:db8::1/128");
        assert_eq!(net("::ffff:192.0.2.7/120"), "192.0.2.0/24");
        assert_eq!(net("::/0"), "::/0");
        assert!(network("home").unwrap_err().contains("192.0.2.0/24"));
    }

    #[test]
    fn port_ranges_are_joined_and_sorted() {
        let ports = |text: &str| text.parse::<PortRanges>().unwrap().to_string();
        assert_eq!(ports("1024-5000"), "1024-5000");
        assert_eq!(ports("7000, 1024-1033"), "1024-1033,7000");
        assert_eq!(ports("1-2,3,2-9,65535,65530-65535"), "1-9,65530-65535");
        assert_eq!(ports("1024-5000").parse::<PortRanges>().unwrap().count(), 3977);
        let wrong = |text: &str| text.parse::<PortRanges>().unwrap_err();
        assert!(wrong("5000-1024").contains("\"1024-5000\""));
        assert!(wrong("0-5").contains("port 0"));
        assert!(wrong("1024-70000").contains("1024-70000"));
        assert!(wrong("a").contains("\"a\""));
    }

    proptest::proptest! {
        #[test]
        fn port_ranges_keep_every_port(pairs in proptest::collection::vec((1u16.., 0u16..300), 0..6)) {
            let ranges: Vec<_> = pairs.iter().map(|(first, more)| *first..=first.saturating_add(*more)).collect();
            let joined = PortRanges::new(ranges.clone()).unwrap();
            let wanted: std::collections::BTreeSet<u16> = ranges.into_iter().flatten().collect();
            proptest::prop_assert!(joined.iter().eq(wanted.iter().copied()));
            proptest::prop_assert_eq!(joined.count(), wanted.len());
            proptest::prop_assert_eq!(joined.to_string().parse::<PortRanges>().unwrap(), joined);
        }
    }
}
