//! The flows between viewers and the server, from the settings.

use std::net::IpAddr;

use ipnet::IpNet;

use super::client_ports::{LOWEST, capacity, lowest};
use super::listeners::{Door, doors, spoken};
use crate::settings::{Control, Listen, OutsidePool, Oversize, PortRanges, Protocols, Settings, Source};

/// UDP ports that a Windows Media player leases over RTSP: a pair for what is sent again and its requests, and one for the media.
pub const RTSP_PORTS: usize = 3;

/// What programs are told instead of a plan where the pool is too small, [`PlanError::Pool`].
pub const NO_ROOM: &str = "no_room";

/// What is planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Viewers at once behind one address; at least 1.
    pub viewers: usize,
    /// Where the firewall stands.
    pub side: Side,
    /// What they watch by.
    pub media: Media,
    /// The network that viewers come from; `None`: any.
    pub client_net: Option<IpNet>,
    /// The server's addresses as viewers see them; none: those of its listeners.
    pub servers: Vec<IpAddr>,
    /// Media comes on the TCP connections alone.
    pub tcp_only: bool,
    /// UDP ports of one viewer over RTSP, usually [`RTSP_PORTS`]; at least 1.
    pub rtsp_ports: usize,
}

/// Where a firewall stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At the server, or before it.
    Server,
    /// Before the viewers, or at one.
    Viewer,
}

/// Protocols by which viewers watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// All that the settings serve.
    All,
    /// MMS.
    Mms,
    /// RTSP.
    Rtsp,
    /// HTTP.
    Http,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// 4 or 6.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// The server's end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// The IP version.
    pub family: Family,
    /// `None`: whatever addresses the server has.
    pub address: Option<IpAddr>,
}

/// What a flow travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Connections; a flow is named by who opens them.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Which end a flow goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From viewers to the server.
    Server,
    /// From the server to viewers.
    Viewers,
}

/// Something that has to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// What it is called in a rule's comment: letters, digits, commas and blanks, 40 at most.
    pub name: String,
    /// What it travels in.
    pub transport: Transport,
    /// Where to.
    pub toward: Toward,
    /// The server's port; `None`: any.
    pub server_port: Option<u16>,
    /// The viewers' ports; `None`: any.
    pub client_ports: Option<PortRanges>,
    /// The server's ends, sorted, at least one.
    pub hosts: Vec<Host>,
    /// Something that was asked for does not work without it.
    pub needed: bool,
    /// The other end is viewers, who are in the network that was named for them; else it is somebody else.
    pub is_of_viewers: bool,
    /// What for, a sentence without its full stop.
    pub why: String,
}

/// The flows, and what else an administrator has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Viewers at once behind one address.
    pub viewers: usize,
    /// Where the firewall stands.
    pub side: Side,
    /// The network that viewers come from; `None`: any.
    pub client_net: Option<IpNet>,
    /// What has to pass, in the order in which it is told.
    pub flows: Vec<Flow>,
    /// The client ports of MMS, `None` where it has no UDP.
    pub mms_ports: Option<PortRanges>,
    /// The same of RTSP.
    pub rtsp_ports: Option<PortRanges>,
    /// Viewers over RTSP that find ports among those at once; fewer than planned for where the pool has no more, 0 without such ports.
    pub rtsp_viewers: usize,
    /// What listens and has no rule, and why; sentences.
    pub left_out: Vec<String>,
    /// Sentences.
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The pool has too few ports.
    #[error(
        "[udp] client_ports = \"{pool}\" has room for {capacity} of {viewers} viewers over UDP by {protocol}, {each}; make that range \
         larger, plan for fewer viewers, {others}or for media over TCP alone"
    )]
    Pool {
        /// How many were asked for.
        viewers: usize,
        /// What the settings lease.
        pool: PortRanges,
        /// How many it has room for.
        capacity: usize,
        /// MMS or RTSP.
        protocol: &'static str,
        /// "1 port each", "3 ports each", and what of the pool does not count.
        each: String,
        /// "for MMS alone, ", where the pool has room for that, or nothing.
        others: &'static str,
    },
    /// The settings do not serve what was asked for.
    #[error(
        "no listener that other machines reach serves {what}{whom}; look at `listen` and `protocols` of [mms], [http] and [rtsp]"
    )]
    NotServed {
        /// "MMS", "any media".
        what: &'static str,
        /// " over IPv4", or nothing.
        whom: String,
    },
    /// An address and a network of different IP versions.
    #[error(
        "the viewers' network {net} and the server's address {server} are of different IP versions: nothing goes from one to the other"
    )]
    Families {
        /// Where viewers are.
        net: IpNet,
        /// The server's address.
        server: IpAddr,
    },
}

impl Plan {
    /// The plan that these settings ask for. Somebody may sign in where they name a file of users: whoever knows that nobody is in it
    /// hands over settings without one.
    ///
    /// # Errors
    /// More viewers than the pool has ports, a protocol that is not served, ends that cannot meet.
    pub fn of(settings: &Settings, options: &Options) -> Result<Self, PlanError> {
        if let Some(net) = options.client_net
            && let Some(server) =
                options.servers.iter().find(|server| Family::of(server.to_canonical()) != Family::of(net.addr()))
        {
            return Err(PlanError::Families { net, server: *server });
        }
        let plan = Self {
            viewers: options.viewers,
            side: options.side,
            client_net: options.client_net,
            flows: Vec::new(),
            mms_ports: None,
            rtsp_ports: None,
            rtsp_viewers: 0,
            left_out: Vec::new(),
            notes: Vec::new(),
        };
        let mut draft = Draft { settings, options, plan };
        draft.control();
        let before = draft.plan.flows.len();
        let wanted = |media| options.media == Media::All || options.media == media;
        if wanted(Media::Mms) {
            draft.mms()?;
        }
        if wanted(Media::Rtsp) {
            draft.rtsp()?;
        }
        if wanted(Media::Http) {
            draft.http();
        }
        if draft.plan.flows.len() == before {
            let what = match options.media {
                Media::All => "any media",
                Media::Mms => "MMS",
                Media::Rtsp => "RTSP",
                Media::Http => "HTTP",
            };
            let net = options.client_net.map(|net| net.addr());
            let whom = match net.or(options.servers.first().copied()).map(Family::of) {
                None => "",
                Some(Family::V4) => " over IPv4",
                Some(Family::V6) => " over IPv6",
            };
            return Err(PlanError::NotServed { what, whom: whom.to_owned() });
        }
        draft.admin();
        draft.remarks();
        draft.plan.merge();
        Ok(draft.plan)
    }

    /// One flow of those that differ in name and reason alone.
    fn merge(&mut self) {
        let mut merged: Vec<Flow> = Vec::new();
        for flow in self.flows.drain(..) {
            let same = |other: &&mut Flow| {
                (other.transport, other.toward, other.server_port, other.needed, other.is_of_viewers)
                    == (flow.transport, flow.toward, flow.server_port, flow.needed, flow.is_of_viewers)
                    && (&other.client_ports, &other.hosts) == (&flow.client_ports, &flow.hosts)
            };
            match merged.iter_mut().find(same) {
                Some(other) => {
                    other.name = format!("{}, {}", other.name, flow.name);
                    other.why = format!("{}; {}", other.why, flow.why);
                }
                None => merged.push(flow),
            }
        }
        self.flows = merged;
    }
}

/// A plan in the making.
struct Draft<'a> {
    settings: &'a Settings,
    options: &'a Options,
    plan: Plan,
}

impl Draft<'_> {
    fn control(&mut self) {
        let control = &self.settings.control;
        let faces = [
            ("control", "the control port", &control.listen, "the control port: viewer programs sign in and open sessions"),
            ("console", "the web console", &self.settings.console, "the web console: pages, inside TLS"),
        ];
        for (name, what, listen, why) in faces {
            self.tcp(name, what, &Control::reachable(listen, control.users_file.is_some()), why);
            // Without users all that is not loopback is gone from the list, and the listener is not off either.
            let closed = control.users_file.is_none() && listen.addresses.iter().any(|address| !address.ip().is_loopback());
            if closed && let Some(last) = self.plan.left_out.last_mut().filter(|last| last.starts_with(what)) {
                last.push_str(" There is nobody who could sign in yet ([control] users_file, wmrelay passwd --role).");
            }
        }
    }

    fn mms(&mut self) -> Result<(), PlanError> {
        let settings = self.settings;
        let own = self.media_tcp("MMS", &settings.mms, |speaks| speaks.mms, "MMS: control, and media for viewers over TCP");
        if !self.has_udp() || own.is_empty() {
            return Ok(());
        }
        let ports = self.lowest("MMS", 1)?;
        for door in own {
            self.plan.flows.push(Flow {
                name: "MMS media".into(),
                transport: Transport::Udp,
                toward: Toward::Viewers,
                // IP fragments of large packets have another socket, whose port the system chose.
                server_port: Some(door.port).filter(|_| settings.udp.oversize != Oversize::Fragment),
                client_ports: Some(ports.clone()),
                hosts: door.hosts.clone(),
                needed: true,
                is_of_viewers: true,
                why: format!("MMS: media over UDP; one port a viewer, so {ports} for {}", self.options.viewers),
            });
            self.plan.flows.push(Flow {
                name: "MMS resends".into(),
                transport: Transport::Udp,
                toward: Toward::Server,
                server_port: Some(door.port),
                client_ports: None,
                hosts: door.hosts,
                needed: true,
                is_of_viewers: true,
                why: "MMS: requests to send lost packets again, from any port".into(),
            });
        }
        self.plan.mms_ports = Some(ports);
        Ok(())
    }

    fn rtsp(&mut self) -> Result<(), PlanError> {
        let settings = self.settings;
        let why = "RTSP: control, and media for viewers over TCP";
        let own = self.media_tcp("RTSP", &settings.rtsp, |speaks| speaks.rtsp, why);
        self.tcp("RTSP in TLS", "RTSP in TLS", &settings.rtsp_tls.listen, "RTSP inside TLS, with its media");
        if !self.has_udp() || own.is_empty() {
            return Ok(());
        }
        let Some((ports, fit)) = self.room_for_rtsp()? else { return Ok(()) };
        let each = self.options.rtsp_ports;
        let mut hosts: Vec<_> = own.into_iter().flat_map(|door| door.hosts).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let server_port = Some(settings.rtsp_server_port).filter(|port| *port != 0);
        if server_port.is_none() {
            self.plan.notes.push(
                "[rtsp] server_port = 0 lets the system choose the server's UDP ports of RTSP, so that rules cannot name them, and \
                 requests to send again reach nothing; set it to 5004."
                    .into(),
            );
        }
        let of_each = match each {
            1 => "one port a viewer".to_owned(),
            2 => "a pair of ports a viewer".to_owned(),
            3 => "three ports a viewer (a pair for what is sent again, one for the media)".to_owned(),
            more => format!("{more} ports a viewer"),
        };
        let flow = |name: &str, toward, server_port, client_ports, needed, why: String| Flow {
            name: name.into(),
            transport: Transport::Udp,
            toward,
            server_port,
            client_ports,
            hosts: hosts.clone(),
            needed,
            is_of_viewers: true,
            why,
        };
        let why = format!("RTSP: media over UDP, and what is sent again; {of_each}, so {ports} for {fit}");
        self.plan.flows.push(flow("RTSP media", Toward::Viewers, server_port, Some(ports.clone()), true, why));
        if let Some(port) = server_port {
            let requests = Some(port.saturating_add(1));
            let why = "RTSP: requests to send lost packets again, from any port".to_owned();
            self.plan.flows.push(flow("RTSP resends", Toward::Server, requests, None, true, why));
            let why =
                "RTSP: datagrams with nothing in them by which players open the way back through a NAT; closed, players behind \
                       a NAT that forwards no ports take TCP"
                    .to_owned();
            self.plan.flows.push(flow("RTSP through NAT", Toward::Server, server_port, None, false, why));
        }
        self.plan.rtsp_ports = Some(ports);
        self.plan.rtsp_viewers = fit;
        Ok(())
    }

    fn http(&mut self) {
        self.media_tcp("HTTP", &self.settings.http, |speaks| speaks.http, "HTTP: streams, downloads, playlists, pages");
    }

    /// Metrics ask for no password: where other machines reach them, that is for one alone, and for no viewer.
    fn admin(&mut self) {
        if self.options.side == Side::Viewer {
            return;
        }
        let doors = doors(&self.settings.admin, &Options { client_net: None, ..self.options.clone() });
        for Door { port, hosts } in doors.open {
            self.plan.flows.push(Flow {
                name: "metrics".into(),
                transport: Transport::Tcp,
                toward: Toward::Server,
                server_port: Some(port),
                client_ports: None,
                hosts,
                needed: false,
                is_of_viewers: false,
                why: "the admin port: metrics and health, for the metrics' collector alone".into(),
            });
            self.plan.notes.push(format!(
                "[admin] listen: TCP {port} asks for no password and can be reached from other machines. Let the address of the metrics' \
                 collector in, and nobody else; no viewer needs it."
            ));
        }
    }

    fn has_udp(&self) -> bool {
        self.settings.udp.enabled && !self.options.tcp_only
    }

    fn lowest(&self, protocol: &'static str, each: usize) -> Result<PortRanges, PlanError> {
        let (pool, viewers) = (&self.settings.udp.client_ports, self.options.viewers);
        lowest(pool, viewers, each).ok_or_else(|| {
            let is_mms_served = spoken(self.settings, &self.settings.mms, |speaks| speaks.mms, self.options).1;
            let mms = protocol != "MMS" && is_mms_served && capacity(pool, 1) >= viewers;
            PlanError::Pool {
                viewers,
                pool: pool.clone(),
                capacity: capacity(pool, each),
                protocol,
                each: self.each(each),
                others: if mms { "for MMS alone, " } else { "" },
            }
        })
    }

    /// How many ports one viewer takes, and which of the pool nobody is granted.
    fn each(&self, each: usize) -> String {
        let ports = if each == 1 { "1 port each".to_owned() } else { format!("{each} ports each") };
        if self.settings.udp.client_ports.iter().any(|port| port < LOWEST) {
            format!("{ports} and none of those below {LOWEST}")
        } else {
            ports
        }
    }

    /// The client ports of RTSP, and for how many viewers; `None`: for nobody. Beside MMS, whose viewers all find ports, a pool that is
    /// too small for as many over RTSP is no reason for no plan: it was made for players with one port each.
    fn room_for_rtsp(&mut self) -> Result<Option<(PortRanges, usize)>, PlanError> {
        let (pool, viewers, each) = (&self.settings.udp.client_ports, self.options.viewers, self.options.rtsp_ports);
        if self.plan.mms_ports.is_none() {
            return self.lowest("RTSP", each).map(|ports| Some((ports, viewers)));
        }
        let fit = capacity(pool, each).min(viewers);
        if fit < viewers {
            let few = match fit {
                0 => "none".to_owned(),
                fit => fit.to_string(),
            };
            let others = if fit == 0 { "all of them" } else { "the others" };
            self.plan.notes.push(format!(
                "RTSP: [udp] client_ports = \"{pool}\" has room for {few} of {viewers} viewers over UDP, {}; {others} take TCP. MMS has \
                 room for all. Make that range larger where more are to have UDP by RTSP.",
                self.each(each)
            ));
        }
        // None fit: the lowest ports for nobody would be the first one.
        Ok(lowest(pool, fit, each).filter(|_| fit > 0).map(|ports| (ports, fit)))
    }

    /// The TCP flows of a protocol; the doors of its own listener, which UDP belongs to.
    fn media_tcp(
        &mut self,
        name: &'static str,
        own: &Listen,
        speaks: impl Fn(&Protocols) -> bool,
        why: &'static str,
    ) -> Vec<Door> {
        let (listens, is_own) = spoken(self.settings, own, speaks, self.options);
        if is_own {
            self.tcp(name, name, own, why);
            return doors(own, self.options).open;
        }
        let other = listens.into_iter().find(|listen| !doors(listen, self.options).open.is_empty());
        self.tcp(name, name, own, why);
        self.plan.flows.retain(|flow| flow.name != name);
        if let Some(other) = other {
            self.tcp(name, name, other, why);
            let ports: Vec<_> = doors(other, self.options).open.iter().map(|door| door.port.to_string()).collect();
            self.plan.notes.push(format!("{name} has no listener of its own here: its URLs name port {}.", ports.join(" or ")));
        } else if self.options.media == Media::All {
            self.plan.left_out.push(format!("{name}: nothing that other machines reach serves it."));
        }
        Vec::new()
    }

    /// The flows of a TCP listener, and what is left out of it.
    fn tcp(&mut self, name: &str, what: &str, listen: &Listen, why: &str) {
        let doors = doors(listen, self.options);
        for Door { port, hosts } in doors.open {
            self.plan.flows.push(Flow {
                name: name.into(),
                transport: Transport::Tcp,
                toward: Toward::Server,
                server_port: Some(port),
                client_ports: None,
                hosts,
                needed: true,
                is_of_viewers: true,
                why: why.into(),
            });
        }
        if !doors.loopback.is_empty() {
            let ports: Vec<_> = doors.loopback.iter().map(ToString::to_string).collect();
            self.plan.left_out.push(format!("{what}, TCP {}: only this machine reaches it.", ports.join(", ")));
        }
        if doors.any_port {
            self.plan.left_out.push(format!("{what}: the system chooses its port at each start, which no rule can name."));
        }
    }

    fn remarks(&mut self) {
        let (settings, options) = (self.settings, self.options);
        let notes = &mut self.plan.notes;
        if options.tcp_only {
            notes.push("TCP alone: players that ask for UDP wait until they give up, and take TCP then. [udp] enabled = false refuses them at \
                 once.".into());
        } else if !settings.udp.enabled && options.media != Media::Http {
            notes.push("[udp] enabled = false: all viewers take TCP.".into());
        }
        if self.plan.mms_ports.is_some() || self.plan.rtsp_ports.is_some() {
            if settings.udp.outside_pool == OutsidePool::Allow {
                notes.push(
                    "[udp] outside_pool = \"allow\" grants ports that no rule here lets through; their viewers wait in vain before \
                     they take TCP."
                        .into(),
                );
            }
            if settings.udp.oversize == Oversize::Fragment {
                notes.push(
                    "[udp] oversize = \"fragment\": IP fragments have to pass too, and come from any UDP port of the server."
                        .into(),
                );
            }
            if settings.udp.refuse_on_nat_mismatch {
                notes.push(
                    "[udp] refuse_on_nat_mismatch = true: MMS viewers behind a NAT without a helper for MMS take TCP.".into(),
                );
            }
        }
        let is_anywhere = self.plan.flows.iter().any(|flow| flow.hosts.iter().any(|host| host.address.is_none()));
        if options.side == Side::Viewer && is_anywhere {
            notes.push(
                "The listeners name no address, so the rules hold for any server; --server ADDRESS makes them for one.".into(),
            );
        }
        let of_one = settings.limits.viewers_per_address;
        if of_one != 0 && usize::try_from(of_one).is_ok_and(|of_one| of_one < options.viewers) {
            notes.push(format!(
                "[limits] viewers_per_address = {of_one}: no more than {of_one} of one address are served at all."
            ));
        }
        if settings.publishing_points.iter().any(|point| point.source == Source::Push) {
            notes.push(
                "Publishers need rules of their own, which are not in this plan; so do sources that the server connects to."
                    .into(),
            );
        }
    }
}
