//! `wmrelay check`: the settings in force, or what is wrong with them.

use std::io::{self, Write as _};

use super::placed;
use super::serve::read_certificate;
use super::sign::read_secrets;
use crate::args::CheckArgs;
use crate::hooks;
use crate::ingest;
use crate::settings::{SettingsError, effective, load};

/// Prints the settings in force, warnings first on standard error.
///
/// # Errors
/// What is wrong with the settings or with the files of users and keys that they name; standard output that cannot be written to.
pub(super) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let loaded = load(&args.settings.sources()).map_err(|error: SettingsError| anyhow::Error::new(error))?;
    if let Some(Err(error)) = loaded.settings.users_file.as_deref().map(ingest::read_users) {
        return Err(placed(error.into(), &loaded.places));
    }
    if let Some(Err(error)) = loaded.settings.viewers_file.as_deref().map(ingest::read_viewers) {
        return Err(placed(error.into(), &loaded.places));
    }
    if let Some(Err(error)) = loaded.settings.key_file.as_deref().map(read_secrets) {
        return Err(placed(error.into(), &loaded.places));
    }
    if let Err(error) = ingest::check_stations(&loaded.settings) {
        return Err(placed(error.into(), &loaded.places));
    }
    if let Err(error) = read_certificate(&loaded.settings.rtsp_tls) {
        return Err(placed(error.into(), &loaded.places));
    }
    if let Some(webhook) = &loaded.settings.hooks.webhook {
        hooks::check(webhook)?;
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
    io::stdout().lock().write_all(effective(&loaded).as_bytes())?;
    Ok(())
}
