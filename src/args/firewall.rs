//! `wmrelay firewall`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use ipnet::IpNet;

use crate::settings::network;

/// `wmrelay firewall`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The settings are those of the running daemon, with the ports that it has. Where none runs, or with --config, they are those \
                        of `serve`: the same file, the same environment. Exit code: 2 where they or the command line cannot be used, 1 \
                        where there is no such plan."
)]
pub struct FirewallArgs {
    /// How many viewers at once, behind one address
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub viewers: u16,

    /// What to print
    #[arg(long = "for", value_enum, default_value_t)]
    pub form: FirewallForm,

    /// The same as --for json
    #[arg(long, conflicts_with = "form")]
    pub json: bool,

    /// Where the firewall stands: at the server, or before the viewers
    #[arg(long, value_enum, default_value_t)]
    pub side: FirewallSide,

    /// What viewers watch by
    #[arg(long, value_enum, default_value_t)]
    pub protocol: FirewallProtocol,

    /// The network that viewers come from, such as 192.0.2.0/24 [default: any]
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub client_net: Option<IpNet>,

    /// The server's address as viewers see it; several with commas [default: those of its listeners]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub server: Vec<IpAddr>,

    /// Plan for media over TCP alone
    #[arg(long)]
    pub tcp_only: bool,

    /// UDP ports of one viewer over RTSP: three for Windows Media Player and FFmpeg, two for GStreamer, four for `wmrelay play`
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub rtsp_ports: u8,

    /// Plan from this settings file instead of from the running daemon; conf.d/*.toml beside it is read too
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,

    /// The daemon's control socket [default: control.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/wmrelay or /run/wmrelay]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// For whom `firewall` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum FirewallForm {
    /// For people: each port with its reason, and how players are set
    #[default]
    Text,
    /// A table for `nft -f`
    Nftables,
    /// Commands of iptables and ip6tables
    Iptables,
    /// Commands of ufw
    Ufw,
    /// Commands of firewall-cmd
    Firewalld,
    /// PowerShell, and netsh
    Windows,
    /// Access lists of a Cisco ASA
    CiscoAsa,
    /// A security group, by the AWS command line
    AwsSg,
    /// For programs: an object of JSON
    Json,
}

/// Where a firewall of `firewall` stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum FirewallSide {
    /// At the server
    #[default]
    Server,
    /// Before the viewers, or at one
    Viewer,
}

/// By what viewers of `firewall` watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum FirewallProtocol {
    /// MMS
    Mms,
    /// RTSP
    Rtsp,
    /// HTTP
    Http,
    /// All that the settings serve
    #[default]
    All,
}
