//! `wmrelay drain`

use crate::args::DaemonArgs;
use crate::settings::Elsewhere;

/// `wmrelay drain`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DrainArgs {
    /// Send new viewers to the same name there, such as mms://other.example:8080, each with the scheme of its own protocol
    /// [default: as before; drain.redirect of the settings where it does not drain yet, and without one they are refused]
    #[arg(long, value_name = "URL")]
    pub redirect: Option<Elsewhere>,

    /// End those who still watch after so many seconds from now, 0: at once [default: as before; drain.timeout_s of the settings where it
    /// does not drain yet, and where that is 0, never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub timeout: Option<u32>,

    /// End the daemon when nobody watches any more, or the time is over; else it goes on without viewers, and can be told to take them again. Said once it holds until --cancel.
    /// Where systemd holds its ports (wmrelay.socket) the next connection starts it again: stop both units there
    #[arg(long)]
    pub exit: bool,

    /// Take new viewers again
    #[arg(long, conflicts_with_all = ["redirect", "timeout", "exit"])]
    pub cancel: bool,

    /// The daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}
