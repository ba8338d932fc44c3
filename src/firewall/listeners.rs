//! Which listeners a protocol's viewers reach, and at which addresses.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::plan::{Family, Host, Options};
use crate::settings::{Listen, Protocols, Settings};

/// A port that viewers reach, and the addresses of the server at which they do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    pub port: u16,
    /// Sorted, at least one.
    pub hosts: Vec<Host>,
}

/// What became of a listener.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Doors {
    pub open: Vec<Door>,
    /// Ports that only this machine reaches.
    pub loopback: Vec<u16>,
    /// There is an address whose port the system chooses.
    pub any_port: bool,
}

/// The addresses of a listener that viewers of this plan reach, by port.
pub(super) fn doors(listen: &Listen, options: &Options) -> Doors {
    let mut doors = Doors::default();
    for address in &listen.addresses {
        let ip = address.ip().to_canonical();
        if address.port() == 0 {
            doors.any_port = true;
        } else if ip.is_loopback() {
            doors.loopback.push(address.port());
        } else {
            let hosts = hosts(SocketAddr::new(ip, address.port()), options);
            match doors.open.iter_mut().find(|door| door.port == address.port()) {
                Some(door) => door.hosts.extend(hosts),
                None if hosts.is_empty() => {}
                None => doors.open.push(Door { port: address.port(), hosts }),
            }
        }
    }
    for door in &mut doors.open {
        door.hosts.sort_unstable();
        door.hosts.dedup();
        // Any address of a version is that version's others too; it sorts first.
        let whole: Vec<Family> = door.hosts.iter().filter(|host| host.address.is_none()).map(|host| host.family).collect();
        door.hosts.retain(|host| host.address.is_none() || !whole.contains(&host.family));
    }
    doors.loopback.sort_unstable();
    doors.loopback.dedup();
    doors
}

/// What one address is to viewers: those that were said to be the server's take its place.
fn hosts(address: SocketAddr, options: &Options) -> Vec<Host> {
    let family = Family::of(address.ip());
    let is_client_family = match options.client_net {
        None => true,
        Some(IpNet::V4(_)) => family == Family::V4,
        Some(IpNet::V6(_)) => family == Family::V6,
    };
    if !is_client_family {
        return Vec::new();
    }
    if options.servers.is_empty() {
        return vec![Host { family, address: Some(address.ip()).filter(|ip| !ip.is_unspecified()) }];
    }
    let said = options.servers.iter().map(|ip| ip.to_canonical()).filter(|ip| Family::of(*ip) == family);
    said.map(|ip| Host { family, address: Some(ip) }).collect()
}

/// Where a protocol is spoken: at the listener that is made for it, or at the others where that one is closed to viewers.
///
/// The second is false where it is the others.
pub(super) fn spoken<'a>(
    settings: &'a Settings,
    own: &'a Listen,
    speaks: impl Fn(&Protocols) -> bool,
    options: &Options,
) -> (Vec<&'a Listen>, bool) {
    let all = [
        (&settings.mms, &settings.mms_protocols),
        (&settings.http, &settings.http_protocols),
        (&settings.rtsp, &settings.rtsp_protocols),
    ];
    let all = all.into_iter().filter(|(_, protocols)| speaks(protocols)).map(|(listen, _)| listen);
    let (mine, others): (Vec<_>, Vec<_>) = all.partition(|listen| std::ptr::eq(*listen, own));
    if mine.iter().any(|listen| !doors(listen, options).open.is_empty()) { (mine, true) } else { (others, false) }
}
