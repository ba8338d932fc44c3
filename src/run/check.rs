//! `wmrelay check`: the settings in force, or what is wrong with them; and what a reload would change.

use std::io::{self, Write as _};

use super::out::out;
use super::serve::read_certificate;
use super::sign::read_secrets;
use super::{operate, placed};
use crate::args::CheckArgs;
use crate::hooks;
use crate::ingest;
use crate::settings::{Problem, Settings, SettingsError, effective, load};
use crate::text::Users;
use crate::text::signed::Secrets;

/// What stands in the files of users and keys that the settings name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NamedFiles {
    /// Who may publish.
    pub(super) users: Option<Users>,
    /// Who may watch, where the settings name them.
    pub(super) viewers: Option<Users>,
    /// What signs URLs.
    pub(super) secrets: Option<Secrets>,
}

impl NamedFiles {
    /// Who may watch: publishers, where the settings name no others for that.
    pub(super) fn watchers(&self) -> Option<&Users> {
        self.viewers.as_ref().or(self.users.as_ref())
    }
}

/// Reads the files of users and keys that the settings name, and finds those of stations and certificates sound.
///
/// # Errors
/// One of them is not: a problem of the settings, since they name it.
pub(super) fn read_named_files(settings: &Settings) -> anyhow::Result<NamedFiles> {
    let users = settings.users_file.as_deref().map(ingest::read_users).transpose()?;
    let viewers = settings.viewers_file.as_deref().map(ingest::read_viewers).transpose()?;
    let secrets = settings.key_file.as_deref().map(read_secrets).transpose()?;
    ingest::check_stations(settings)?;
    read_certificate(&settings.rtsp_tls)?;
    if let Some(webhook) = &settings.hooks.webhook {
        hooks::check(webhook).map_err(|error| {
            let (key, message) = ("hooks".to_owned(), error.to_string());
            SettingsError { problems: vec![Problem { place: String::new(), key, message }] }
        })?;
    }
    Ok(NamedFiles { users, viewers, secrets })
}

/// Prints the settings in force, warnings first on standard error; or what the running daemon would make of its own.
///
/// # Errors
/// What is wrong with the settings or with the files of users and keys that they name; standard output that cannot be written to; no
/// daemon that could be asked, or one that reads another file.
pub(super) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let sources = args.settings.sources();
    if let Some(flag) = sources.flags.first().filter(|_| args.diff) {
        let message = "cannot go with --diff: the running daemon is asked, and does not hear of it; leave one of the two out";
        let problem = Problem { place: flag.name.to_owned(), key: String::new(), message: message.to_owned() };
        return Err(SettingsError { problems: vec![problem] }.into());
    }
    let loaded = load(&sources).map_err(|error: SettingsError| anyhow::Error::new(error))?;
    read_named_files(&loaded.settings).map_err(|error| placed(error, &loaded.places))?;
    if args.diff {
        return operate::differ(&args.daemon(), args.settings.config.as_deref());
    }
    if args.quiet {
        return Ok(());
    }
    let mut err = io::stderr().lock();
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    for file in &loaded.files {
        writeln!(err, "read {}", file.display())?;
    }
    out().write_all(effective(&loaded).as_bytes())?;
    Ok(())
}
