//! `wmrelay top`

use crate::args::DaemonArgs;

/// `wmrelay top`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TopArgs {
    /// Print the table once; so it is too where there is no terminal
    #[arg(long)]
    pub once: bool,

    /// Seconds between two looks, over which rates are measured
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub every: u16,

    /// The daemon; with --json a line for each look, without end unless --once is said.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}
