//! What the server says is to be tried, and the rest of what the two ends tell each other by the control port.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::verdict::Way;

/// What media comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// MMS.
    Mms,
    /// Windows Media RTSP.
    Rtsp,
}

impl Protocol {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mms => "MMS",
            Self::Rtsp => "RTSP",
        }
    }
}

/// What is spoken at a TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// MMS.
    Mms,
    /// RTSP.
    Rtsp,
    /// RTSP inside TLS.
    Rtsps,
    /// HTTP.
    Http,
    /// The control port: HTTP, inside TLS or not.
    Control,
    /// The web console: HTTP inside TLS.
    Console,
}

impl Speaks {
    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mms => "MMS",
            Self::Rtsp => "RTSP",
            Self::Rtsps => "RTSP in TLS",
            Self::Http => "HTTP",
            Self::Control => "control port",
            Self::Console => "web console",
        }
    }
}

/// What viewers are to watch by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// All that the server serves.
    #[default]
    All,
    /// MMS.
    Mms,
    /// RTSP.
    Rtsp,
    /// HTTP.
    Http,
}

impl Wanted {
    /// All of them, as where nothing is said: servers of before know no word for it.
    fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Whether its viewers need a port where that is spoken; everybody does the control port and the console.
    pub const fn takes(self, speaks: Speaks) -> bool {
        match speaks {
            Speaks::Mms => matches!(self, Self::All | Self::Mms),
            Speaks::Rtsp | Speaks::Rtsps => matches!(self, Self::All | Self::Rtsp),
            Speaks::Http => matches!(self, Self::All | Self::Http),
            Speaks::Control | Speaks::Console => true,
        }
    }

    /// The same of media over UDP.
    pub const fn takes_udp(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Mms => matches!(self, Self::All | Self::Mms),
            Protocol::Rtsp => matches!(self, Self::All | Self::Rtsp),
        }
    }

    /// As people write it; `None`: all.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Mms => Some("MMS"),
            Self::Rtsp => Some("RTSP"),
            Self::Http => Some("HTTP"),
        }
    }
}

/// Which probe is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeWish {
    /// Viewers at once behind the address of who asks, 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    pub viewers: u16,
    /// What they are to watch by; all.
    #[serde(default, skip_serializing_if = "Wanted::is_all")]
    pub protocol: Wanted,
}

/// What is to be tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbePlan {
    /// Number of the probe.
    pub id: u64,
    /// The address that the question came from, as the server sees it: challenges go there and nowhere else.
    pub address: String,
    /// What the datagrams of this probe carry: 32 hexadecimal digits.
    pub token: String,
    /// After so many seconds the server knows nothing of it any more.
    pub expires_s: u64,
    /// Connections to the server.
    pub tcp: Vec<TcpTest>,
    /// Datagrams from the server.
    pub udp_in: Vec<UdpInTest>,
    /// Datagrams to the server.
    pub udp_out: Vec<UdpOutTest>,
    /// What is needed and cannot be tried.
    #[serde(default)]
    pub untried: Vec<Untried>,
    /// What else is to be known; sentences.
    pub notes: Vec<String>,
}

/// A TCP port of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TcpTest {
    /// The port.
    pub port: u16,
    /// What is spoken there.
    pub speaks: Speaks,
    /// What a firewall is asked for, in the planner's words.
    pub rule: String,
}

/// Client ports that media comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UdpInTest {
    /// What it comes by.
    pub protocol: Protocol,
    /// From which port of the server.
    pub server_port: u16,
    /// To which of the client.
    pub ports: Vec<u16>,
    /// What a firewall is asked for, in the planner's words.
    pub rule: String,
}

/// A port of the server that players ask for lost packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UdpOutTest {
    /// Of which protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// What a firewall is asked for, in the planner's words.
    pub rule: String,
}

/// Something that is needed and cannot be tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Untried {
    /// Which way it goes.
    pub way: Way,
    /// Ports, as people write them.
    pub ports: String,
    /// What for.
    pub what: String,
    /// Why it cannot be tried.
    pub why: String,
}

/// One challenge that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// From the socket that media of this protocol comes from.
    pub protocol: Protocol,
    /// From this port of the server, as the plan names it.
    #[schema(maximum = 65535)]
    pub server_port: u16,
    /// To this port of the one who asks, from 1024 on.
    #[schema(minimum = 1024, maximum = 65535)]
    pub port: u16,
}

/// Challenges that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengeWish {
    /// At most 64.
    #[schema(max_items = 64)]
    pub challenges: Vec<Challenge>,
}

/// What became of challenges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Challenged {
    /// Those that left.
    pub sent: Vec<Challenge>,
    /// Those that were not sent, since a viewer at this address has the port now.
    pub leased: Vec<Challenge>,
    /// Those that the server's own system did not let out.
    pub failed: Vec<Challenge>,
}

/// A datagram of the probe that the server got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Echo {
    /// At which of its ports.
    pub server_port: u16,
    /// From which port, as the probe knows it.
    pub client_port: u16,
    /// From which address, as the server saw it.
    pub seen_address: String,
    /// From which port, as the server saw it.
    pub seen_port: u16,
}

/// What the server knows of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProbeAnswer {
    /// Its number.
    pub id: u64,
    /// The address of who asks for it.
    pub address: String,
    /// What came of its datagrams.
    pub echoes: Vec<Echo>,
}
