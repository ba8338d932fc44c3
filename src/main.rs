//! The `wmrelay` binary.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    wmrelay::run::main(wmrelay::args::Args::parse())
}
