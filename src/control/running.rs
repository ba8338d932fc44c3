//! The settings in force as they came to be: listeners with the ports that the system gave them, and whether anybody may sign in.

use std::net::{IpAddr, SocketAddr};

use super::Plane;
use crate::settings::{Listen, Settings};

impl Plane {
    /// The settings in force for the firewall planner: what is bound in place of what was asked for, and no file of users where nobody
    /// is in it.
    pub fn running_settings(&self) -> Settings {
        let mut settings = self.relay.settings().as_ref().clone();
        let bound =
            |name: &str| self.listeners.get(name).map(|addresses| Listen { addresses: addresses.clone(), built_in: false });
        let places: [(&str, &mut Listen); 7] = [
            ("mms", &mut settings.mms),
            ("http", &mut settings.http),
            ("rtsp", &mut settings.rtsp),
            ("rtsps", &mut settings.rtsp_tls.listen),
            ("admin", &mut settings.admin),
            ("control", &mut settings.control.listen),
            ("console", &mut settings.console),
        ];
        for (name, place) in places {
            if let Some(bound) = bound(name) {
                *place = bound;
            }
        }
        if let Some(media) = self.probes.prober().rtp_ports().next() {
            settings.rtsp_server_port = media.port();
        }
        if !self.has_users() {
            settings.control.users_file = None;
        }
        settings
    }
}

/// The same for somebody who connected to `local`: listeners that do not listen there are left out, and where that is this machine
/// itself, what only it reaches counts as any other.
pub(super) fn reached_at(settings: &mut Settings, local: IpAddr, serves_console: bool) {
    let local = local.to_canonical();
    let places = [
        &mut settings.mms,
        &mut settings.http,
        &mut settings.rtsp,
        &mut settings.rtsp_tls.listen,
        &mut settings.control.listen,
        &mut settings.console,
    ];
    for place in places {
        place.addresses.retain(|address| {
            let ip = address.ip().to_canonical();
            ip == local || ip.is_unspecified() && ip.is_ipv4() == local.is_ipv4()
        });
        // By which address it is reached the one who asks knows better.
        let ports: Vec<_> = place.addresses.iter().map(SocketAddr::port).collect();
        place.addresses = ports.into_iter().flat_map(|port| Listen::anywhere(port).addresses).collect();
    }
    settings.admin.addresses.clear();
    if !serves_console {
        settings.console.addresses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(addresses: &[&str]) -> Listen {
        Listen { addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(), built_in: false }
    }

    #[test]
    fn what_is_reached_at_an_address() {
        let mut settings = Settings {
            mms: listen(&["192.0.2.1:1755", "192.0.2.2:1756", "[::]:1755"]),
            http: listen(&["0.0.0.0:80"]),
            rtsp: listen(&["127.0.0.1:554"]),
            ..Settings::default()
        };
        reached_at(&mut settings, "192.0.2.1".parse().unwrap(), false);
        assert_eq!(settings.mms, listen(&["0.0.0.0:1755", "[::]:1755"]));
        assert_eq!(settings.http, listen(&["0.0.0.0:80", "[::]:80"]));
        assert!(settings.rtsp.addresses.is_empty() && settings.console.addresses.is_empty());
        let mut settings = Settings { rtsp: listen(&["127.0.0.1:554", "192.0.2.1:554"]), ..Settings::default() };
        reached_at(&mut settings, "127.0.0.1".parse().unwrap(), true);
        assert_eq!(settings.rtsp, listen(&["0.0.0.0:554", "[::]:554"]));
        assert_eq!(settings.console.addresses, listen(&["0.0.0.0:8443", "[::]:8443"]).addresses);
    }
}
