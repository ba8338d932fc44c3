//! The local addresses from which the viewers come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// As many as a swarm can have use for; a range of more is a slip of the pen.
const MAX_ADDRESSES: usize = 65_536;

/// Addresses in the order in which viewers take them, all of one family, none twice.
///
/// Written as a list with commas of addresses and inclusive ranges: `127.0.0.2-127.0.0.9,192.0.2.1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwarmAddresses(pub Vec<IpAddr>);

/// Why a text is no list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// A part is no address and no range.
    #[error("\"{0}\" is not an address or a range of addresses such as 127.0.0.2-127.0.0.9")]
    Part(String),
    /// IPv4 and IPv6 in one list: a server is reached by one of them.
    #[error("\"{0}\" is of another family than the addresses before it")]
    Family(String),
    /// The same address again.
    #[error("{0} is there twice")]
    Twice(IpAddr),
    /// Nothing, or far too much.
    #[error("from 1 to {MAX_ADDRESSES} addresses are wanted")]
    Count,
}

impl FromStr for SwarmAddresses {
    type Err = AddressesError;

    fn from_str(text: &str) -> Result<Self, AddressesError> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || AddressesError::Part(part.to_owned());
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
            let (first, last) = (parse(first)?, parse(last)?);
            if first.is_ipv4() != last.is_ipv4() || addresses.first().is_some_and(|known| known.is_ipv4() != first.is_ipv4()) {
                return Err(AddressesError::Family(part.to_owned()));
            }
            let (low, high) = (number(first), number(last));
            if low > high {
                return Err(wrong());
            }
            if high - low >= MAX_ADDRESSES as u128 {
                return Err(AddressesError::Count);
            }
            for number in low..=high {
                let address = address(number, first.is_ipv4());
                if !known.insert(address) {
                    return Err(AddressesError::Twice(address));
                }
                addresses.push(address);
            }
        }
        if (1..=MAX_ADDRESSES).contains(&addresses.len()) { Ok(Self(addresses)) } else { Err(AddressesError::Count) }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let texts =
            |text: &str| -> Vec<String> { text.parse::<SwarmAddresses>().unwrap().0.iter().map(ToString::to_string).collect() };
        assert_eq!(texts("127.0.0.2-127.0.0.4,192.0.2.1"), ["127.0.0.2", "127.0.0.3", "127.0.0.4", "192.0.2.1"]);
        assert_eq!(texts("127.0.0.255 - 127.0.1.0"), ["127.0.0.255", "127.0.1.0"]);
        assert_eq!(texts("::1-::2, 2001:db8::1"), ["::1", "::2", "2001:db8::1"]);
    }

    #[test]
    fn what_is_no_list() {
        let error = |text: &str| text.parse::<SwarmAddresses>().unwrap_err();
        for text in ["localhost", "127.0.0.9-127.0.0.2", "127.0.0.1-", "127.0.0", "127.0.0.0/8"] {
            assert_eq!(error(text), AddressesError::Part(text.to_owned()));
        }
        assert_eq!(error("127.0.0.1,::1"), AddressesError::Family("::1".into()));
        assert_eq!(error("::1-127.0.0.1"), AddressesError::Family("::1-127.0.0.1".into()));
        assert_eq!(error("127.0.0.1-127.0.0.3,127.0.0.2"), AddressesError::Twice("127.0.0.2".parse().unwrap()));
        assert_eq!(error(" , "), AddressesError::Count);
        assert_eq!(error("::-ffff::"), AddressesError::Count);
    }
}
