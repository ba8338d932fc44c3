//! `wmrelay top`

use crate::args::DaemonArgs;

/// `wmrelay top`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TopArgs {
    /// Print the table once; so it is too where there is no terminal, with --json unless --every is said
    #[arg(long)]
    pub once: bool,

    /// Seconds between two looks, over which rates are measured [default: 1]; with --json a line for each, without end
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub every: Option<u16>,

    /// The daemon.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}
