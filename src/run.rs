//! The commands.

mod check;
mod command_doors;
mod descriptors;
mod firewall;
mod operate;
mod out;
mod pages;
mod passwd;
mod play;
mod probe;
mod reload;
mod serve;
mod sign;
mod swarm;
mod top;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use tracing::warn;

use crate::args::{Args, Command, ServeArgs};
use crate::logging;
use crate::settings::{self, SettingsError};

/// Settings that cannot be used; clap takes the same for a command line that cannot.
const EXIT_SETTINGS: u8 = 2;

/// What a command names is not there.
const EXIT_NOT_THERE: u8 = 3;

/// Does what the command line says.
pub fn main(args: Args) -> ExitCode {
    let done = match args.command() {
        Command::Serve(args) => load_and_serve(args),
        Command::Check(args) => check::check(&args),
        Command::Passwd(args) => passwd::passwd(&args),
        Command::Sign(args) => sign::sign(&args),
        Command::Operate(command) => operate::operate(&command),
        Command::Play(args) => play::play(args),
        Command::Swarm(args) => swarm::swarm(args),
        Command::Firewall(args) => firewall::firewall(&args),
        Command::Probe(args) => match probe::probe(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if out::nobody_reads(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line a cause; nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{}", told(&error));
            ExitCode::from(if error.is::<SettingsError>() {
                EXIT_SETTINGS
            } else if error.is::<operate::NotThere>() {
                EXIT_NOT_THERE
            } else {
                1
            })
        }
    }
}

/// Problems of settings begin with their place, as compilers write it; all else with our name.
fn told(error: &anyhow::Error) -> String {
    if error.is::<SettingsError>() { error.to_string() } else { format!("wmrelay: {error:#}") }
}

fn load_and_serve(args: ServeArgs) -> anyhow::Result<()> {
    let sources = args.settings.sources();
    let loaded = settings::load(&sources)?;
    let level = logging::init(&loaded.settings.log)?;
    for problem in &loaded.warnings {
        let place = Some(problem.place.as_str()).filter(|place| !place.is_empty());
        warn!(place, key = problem.key, problem = problem.message, "a setting that was probably not meant so");
    }
    serve::serve(loaded.settings, sources, args.ready_file.as_deref(), level).map_err(|error| placed(error, &loaded.places))
}

/// Adds where a setting was written to problems that show only when it is put to use.
fn placed(mut error: anyhow::Error, places: &BTreeMap<String, String>) -> anyhow::Error {
    for problem in error.downcast_mut::<SettingsError>().into_iter().flat_map(|error| &mut error.problems) {
        if let Some(place) = places.get(&problem.key).filter(|_| problem.place.is_empty()) {
            problem.place.clone_from(place);
        }
    }
    error
}
