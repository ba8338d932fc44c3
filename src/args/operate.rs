//! The commands that ask the running daemon, or tell it what to do.

use std::path::PathBuf;

use clap::Subcommand;
use ipnet::IpNet;

use super::{DrainArgs, TopArgs};
use crate::settings::network;

/// The commands that reach the running daemon by its Unix socket.
#[derive(Debug, Clone, Subcommand)]
#[command(subcommand_help_heading = "The running daemon")]
pub enum OperateCommand {
    /// Show who watches and what feeds, with rates, live on a terminal
    #[command(after_help = EXIT_CODES)]
    Top(TopArgs),
    /// Print how the running daemon is
    #[command(after_help = EXIT_CODES)]
    Status(DaemonArgs),
    /// List who watches
    #[command(after_help = EXIT_CODES)]
    Viewers(DaemonArgs),
    /// List the client ports that are leased, and to whom
    #[command(after_help = EXIT_CODES)]
    Leases(DaemonArgs),
    /// List the addresses where UDP does not arrive, so that their players are sent to TCP at once
    #[command(after_help = EXIT_CODES)]
    Learned {
        /// Forget one address or network (192.0.2.7, 2001:db8::/64), or all: UDP is tried again there
        #[arg(long, value_name = "PREFIX", value_parser = network)]
        reset: Option<Option<IpNet>>,
        /// The daemon.
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// List what feeds the publishing points, and how that is
    #[command(after_help = EXIT_CODES)]
    Sources(DaemonArgs),
    /// Print what happened to a session, step by step; of one that ended, too: why can't this viewer play?
    #[command(after_help = EXIT_CODES)]
    Why {
        /// Number of the session, as `wmrelay viewers` and the log show it
        session: u64,
        /// The daemon.
        #[command(flatten)]
        daemon: DaemonArgs,
    },
    /// Have the daemon read its settings again and put them into force, all or nothing; prints what changed
    #[command(after_help = EXIT_CODES)]
    Reload(DaemonArgs),
    /// Take no new viewers: send them elsewhere or refuse them, while those who watch finish; or take them again.
    /// While it drains, what is not said stays as it is
    #[command(after_help = EXIT_CODES)]
    Drain(DrainArgs),
    /// End a session
    #[command(after_help = EXIT_CODES)]
    Kick {
        /// Number of the session, as `wmrelay viewers` and the log show it
        session: u64,
        /// The daemon.
        #[command(flatten)]
        daemon: DaemonArgs,
    },
}

/// What all of them end with.
const EXIT_CODES: &str = "Exit code: 0 done; 1 no daemon answers, or it refuses; 2 the command line is wrong, or settings are; 3 there is no such session.";

impl OperateCommand {
    /// Which daemon, and how its answer is printed.
    pub fn daemon(&self) -> &DaemonArgs {
        match self {
            Self::Status(daemon)
            | Self::Viewers(daemon)
            | Self::Leases(daemon)
            | Self::Sources(daemon)
            | Self::Reload(daemon) => daemon,
            Self::Learned { daemon, .. } | Self::Why { daemon, .. } | Self::Kick { daemon, .. } => daemon,
            Self::Drain(drain) => &drain.daemon,
            Self::Top(top) => &top.daemon,
        }
    }
}

/// Which daemon, and how its answer is printed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DaemonArgs {
    /// The daemon's control socket [default: control.sock in $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/wmrelay or /run/wmrelay]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
}
