//! Where log lines go: fields in the journal under systemd, text for people, JSON for collectors.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tracing::warn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::settings::{Log, LogFormat};

/// Sets the process's logger. Call it once, before the first thread that logs.
///
/// # Errors
/// When a logger is set already, when the level is none, or when `journald` was asked for and there is no journal.
pub fn init(log: &Log) -> anyhow::Result<LevelSwitch> {
    let filter = Log::filter(&log.level).map_err(anyhow::Error::msg)?;
    let in_journal = in_journal();
    let (form, unheard) = match log.format {
        // Where the journal cannot be reached by its own protocol, it still takes the text of standard error.
        LogFormat::Auto if in_journal => journal().map_or_else(|error| (text(in_journal), Some(error)), |form| (form, None)),
        LogFormat::Auto | LogFormat::Text => (text(in_journal), None),
        LogFormat::Json => (json(), None),
        LogFormat::Journald => (journal().context("the systemd journal cannot be reached")?, None),
    };
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(form).with(filter).try_init()?;
    if let Some(error) = unheard {
        warn!(%error, "the systemd journal cannot be reached; logging text to standard error");
    }
    let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    Ok(LevelSwitch(Arc::new(Inner { change: Box::new(change), level: Mutex::new(log.level.clone()) })))
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LevelSwitch(Arc<Inner>);

struct Inner {
    change: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    level: Mutex<String>,
}

impl LevelSwitch {
    /// What is logged now, in the words of the settings.
    pub fn level(&self) -> String {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by another level from now on, until the process ends.
    ///
    /// # Errors
    /// The text is no level and no list of them; a sentence for the person who wrote it.
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = Log::filter(level)?;
        let mut current = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        (self.0.change)(filter)?;
        level.clone_into(&mut current);
        Ok(())
    }
}

type Form = Box<dyn Layer<Registry> + Send + Sync>;

fn journal() -> io::Result<Form> {
    // Without a prefix a field is named as in the code: `journalctl -o json`, `journalctl POINT=cam1`.
    Ok(tracing_journald::layer()?.with_field_prefix(None).with_syslog_identifier("wmrelay".into()).boxed())
}

fn text(in_journal: bool) -> Form {
    let text = fmt::layer().with_writer(io::stderr).with_ansi(colours(io::stderr().is_terminal(), std::env::var_os("NO_COLOR")));
    // The journal has the time of every line already.
    if in_journal { text.without_time().boxed() } else { text.boxed() }
}

fn json() -> Form {
    fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed()
}

/// Colours only for eyes, and not for those who said no (no-color.org).
fn colours(terminal: bool, no_color: Option<std::ffi::OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// Whether standard error is the stream that systemd connected to the journal.
// A child that a service started with its output elsewhere has the variable too: only device and inode are proof.
fn in_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok().and_then(|text| journal_stream(&text));
    let ours = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    matches!((named, ours), (Some(named), Ok(ours)) if named == (ours.dev(), ours.ino()))
}

/// Device and inode from `JOURNAL_STREAM`, "device:inode" in decimal; systemd.exec(5).
fn journal_stream(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journals_stream_is_read() {
        assert_eq!(journal_stream("9:12345"), Some((9, 12345)));
        for bad in ["", "9", "9:", "a:1", "1:2:3"] {
            assert_eq!(journal_stream(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_told() {
        for good in ["info", "off", "WARN", "debug,wmrelay::mms=trace", "wmrelay=debug"] {
            assert!(Log::filter(good).is_ok(), "{good}");
        }
        // The first would else be taken for a part of the program, and all others be silent.
        for bad in ["inof", "info,debugg", "wmrelay::mms=inof"] {
            let told = Log::filter(bad).unwrap_err();
            assert!(told.contains("is no log level") && told.contains("off, error, warn, info, debug and trace"), "{told}");
        }
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(colours(true, None) && colours(true, Some("".into())));
        assert!(!colours(true, Some("1".into())) && !colours(false, None));
    }
}
