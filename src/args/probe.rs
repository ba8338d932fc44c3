//! `wmrelay probe`.

use std::path::PathBuf;

use super::FirewallProtocol;

/// `wmrelay probe`
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Run it where viewers are. The password is asked for at the terminal, or taken from the file that --password-file names, \
                        or from the environment variable WMRELAY_PASSWORD. UDP counts as open only where the server's own datagram arrived.\n\n\
                        Exit code: 0 all that is needed is open; 1 it could not be found out, or not all of it; 2 the command line is \
                        wrong; 3 something is closed."
)]
pub struct ProbeArgs {
    /// The server, by name or address
    #[arg(value_name = "HOST")]
    pub host: String,

    /// By IPv4 alone, where the name has addresses of both versions
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,

    /// By IPv6 alone
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// How many viewers at once are to watch from here
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub viewers: u16,

    /// What they are to watch by, as of `wmrelay firewall`
    #[arg(long, value_enum, default_value_t)]
    pub protocol: FirewallProtocol,

    /// Who signs in at the control port; without it, it is asked for
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// The password is the first line of this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// The server's control port
    #[arg(long, value_name = "PORT", default_value_t = 3898, value_parser = clap::value_parser!(u16).range(1..))]
    pub control: u16,

    /// The certificate that the control port has to show, by its SHA-256, as the server logs it when it starts
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["insecure", "plain"])]
    pub fingerprint: Option<String>,

    /// Believe whatever certificate is shown: whoever is in between learns the password
    #[arg(long)]
    pub insecure: bool,

    /// The control port is not inside TLS: whoever is in between learns the password
    #[arg(long, conflicts_with = "insecure")]
    pub plain: bool,

    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}
