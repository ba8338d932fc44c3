//! Station lists, read at the start and again when their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::AsyncReadExt as _;
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use crate::relay::{Point, Relay};
use crate::settings::{Problem, STATIONS_BYTES_MAX, Settings, SettingsError, Source, Station, parse_stations};

/// So often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// Names that are told of at most where others stand before them.
const NAMES_TOLD: usize = 10;

/// Reads all station lists of the settings, to see whether they are sound; one that is not there may still come.
///
/// # Errors
/// Every mistake in a list, by file and line; a list that cannot be read.
pub fn check_stations(settings: &Settings) -> Result<(), SettingsError> {
    let lists = settings.publishing_points.iter().filter_map(|point| match &point.source {
        Source::Stations { file, .. } => Some(file),
        _ => None,
    });
    lists.filter(|file| file.exists()).try_for_each(|file| read(file).map(drop))
}

/// Gives a relay all lists that are there, once.
///
/// # Errors
/// As [`check_stations`].
pub fn load_stations(relay: &Relay) -> Result<(), SettingsError> {
    for point in relay.points() {
        if let Source::Stations { file, .. } = &point.settings().source
            && file.exists()
        {
            relay.set_stations(point.id(), read(file)?);
        }
    }
    Ok(())
}

/// Gives the relay the list as it is now; how the file looked.
///
/// # Errors
/// As [`check_stations`].
pub(super) fn begin(relay: &Relay, point: &Arc<Point>, file: &Path) -> Result<Option<Look>, SettingsError> {
    // Looked at first: what changes while it is read is read once more.
    let look = std::fs::metadata(file).ok().as_ref().and_then(Look::of);
    if look.is_some() {
        take(relay, point, read(file)?);
    } else {
        warn!(file = %file.display(), "the station list is not there; it is read when it is");
    }
    Ok(look)
}

/// Reads the list again whenever its file changes. One that is broken changes nothing, which is told once.
pub(super) async fn follow(relay: Arc<Relay>, point: Arc<Point>, file: PathBuf, mut taken: Option<Look>) {
    let mut last = taken;
    loop {
        sleep(INTERVAL).await;
        let look = tokio::fs::metadata(&file).await.ok().as_ref().and_then(Look::of);
        // Who writes it line by line is waited for.
        let is_settled = std::mem::replace(&mut last, look) == look;
        if !is_settled || taken == look {
            continue;
        }
        taken = look;
        let stations = match look {
            Some(_) => read_slowly(&file).await,
            None => Err(whole(&file, "is gone".into())),
        };
        match stations {
            Ok(stations) => take(&relay, &point, stations),
            Err(error) => {
                warn!(file = %file.display(), "the station list cannot be used, the one before stays in use:\n{error}");
            }
        }
    }
}

/// What tells that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Look {
    fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), inode: metadata.ino() })
    }
}

fn take(relay: &Relay, point: &Arc<Point>, stations: Vec<Station>) {
    let count = stations.len();
    let told = |names: &[&str]| names.get(..NAMES_TOLD).unwrap_or(names).join(", ");
    let Doubles { of_points, of_templates } = doubles(relay, &stations);
    if !of_points.is_empty() {
        let (count, names) = (of_points.len(), told(&of_points));
        warn!(list = point.name(), count, names, "stations have names of publishing points, which come before them");
    }
    if !of_templates.is_empty() {
        let (count, names) = (of_templates.len(), told(&of_templates));
        warn!(list = point.name(), count, names, "stations have names that templates match too; the stations come before these");
    }
    if stations.is_empty() {
        warn!(list = point.name(), "the station list names nothing: there are no stations of it, whatever it named before");
    }
    relay.set_stations(point.id(), stations);
    info!(list = point.name(), stations = count, "station list read");
}

/// Names of stations that are others' too.
#[derive(Debug, PartialEq)]
struct Doubles<'a> {
    of_points: Vec<&'a str>,
    of_templates: Vec<&'a str>,
}

fn doubles<'a>(relay: &Relay, stations: &'a [Station]) -> Doubles<'a> {
    let points = relay.points();
    let templates: Vec<_> = points.iter().filter_map(|point| point.settings().pattern()).collect();
    let names = || stations.iter().map(|station| station.name.as_str());
    Doubles {
        of_points: names().filter(|name| relay.point(name).is_some()).collect(),
        of_templates: names().filter(|name| templates.iter().any(|template| template.captures(name).is_some())).collect(),
    }
}

fn read(file: &Path) -> Result<Vec<Station>, SettingsError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::metadata(file).and_then(|metadata| {
        // Of a pipe nothing may ever come.
        if metadata.is_file() { std::fs::File::open(file) } else { Err(std::io::Error::other("it is no file")) }
    });
    opened.and_then(|opened| opened.take(MOST).read_to_end(&mut bytes)).map_err(|error| unread(file, &error))?;
    parse(file, bytes)
}

async fn read_slowly(file: &Path) -> Result<Vec<Station>, SettingsError> {
    let mut bytes = Vec::new();
    let opened = match tokio::fs::metadata(file).await {
        Ok(metadata) if !metadata.is_file() => Err(std::io::Error::other("it is no file")),
        Ok(_) => tokio::fs::File::open(file).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => opened.take(MOST).read_to_end(&mut bytes).await.map_err(|error| unread(file, &error))?,
        Err(error) => return Err(unread(file, &error)),
    };
    parse(file, bytes)
}

/// One byte more than may be, so that it is seen.
const MOST: u64 = STATIONS_BYTES_MAX as u64 + 1;

fn parse(file: &Path, bytes: Vec<u8>) -> Result<Vec<Station>, SettingsError> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
        let place = format!("{}:{line}", file.display());
        SettingsError { problems: vec![Problem { place, key: String::new(), message: "is not UTF-8".into() }] }
    })?;
    parse_stations(&text, &file.display().to_string())
}

fn unread(file: &Path, error: &std::io::Error) -> SettingsError {
    whole(file, format!("cannot be read: {error}"))
}

fn whole(file: &Path, message: String) -> SettingsError {
    SettingsError { problems: vec![Problem { place: file.display().to_string(), key: String::new(), message }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::testing;

    fn list(file: &Path) -> Source {
        Source::Stations { file: file.to_owned(), linger: Duration::ZERO }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_list_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stations.txt");
        // Put in its place whole, so that it is another file whatever the clock of the file system says.
        let put = |text: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &file).unwrap();
        };
        let relay = testing::relay(&[("stations.txt", list(&file)), ("cam", Source::Push)]);
        let point = Arc::clone(&relay.points()[0]);
        let taken = begin(&relay, &point, &file).unwrap();
        assert!(taken.is_none() && relay.resolve("one").is_none());
        tokio::spawn(follow(Arc::clone(&relay), Arc::clone(&point), file.clone(), taken));
        let has = |name: &str| relay.resolve(name).map(|(point, below)| format!("{} + {below}", point.name()));
        let passes = || sleep(3 * INTERVAL);
        put("One mms://h/1 The One\ncam mms://h/c\n");
        passes().await;
        assert_eq!(has("oNE").as_deref(), Some("stations.txt + One"));
        assert_eq!((has("cam").as_deref(), has("stations.txt")), (Some("cam + "), None));
        assert_eq!((relay.title("one").as_deref(), relay.title("cam")), (Some("The One"), None));
        put("two mms://h/2\nnonsense\n");
        passes().await;
        assert!(has("one").is_some() && has("two").is_none(), "broken");
        std::fs::remove_file(&file).unwrap();
        passes().await;
        assert!(has("one").is_some(), "gone");
        put("two mms://h/2\n");
        passes().await;
        assert!(has("one").is_none() && has("two").is_some());
        assert_eq!(relay.station(point.id(), "TWO").unwrap().url, "mms://h/2");
    }

    #[test]
    fn names_that_others_have_too_are_found() {
        let pull = |url: &str| Source::Pull { url: url.into(), start: crate::settings::Start::Watched, linger: Duration::ZERO };
        let relay = testing::relay(&[("Cam", Source::Push), ("nvr-*", pull("mms://h/{1}"))]);
        let stations = parse_stations("cam mms://h/1\nnvr-7 mms://h/2\nnvr mms://h/3\n", "s").unwrap();
        assert_eq!(doubles(&relay, &stations), Doubles { of_points: vec!["cam"], of_templates: vec!["nvr-7"] });
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stations.txt");
        let relay = testing::relay(&[("s", list(&file))]);
        let point = Arc::clone(&relay.points()[0]);
        for (bytes, words) in
            [(&b"one mms://h/1\nalone\n"[..], "stations.txt:2: a name alone"), (b"\n\xff", "stations.txt:2: is not UTF-8")]
        {
            std::fs::write(&file, bytes).unwrap();
            let error = begin(&relay, &point, &file).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = begin(&relay, &point, folder.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be read: it is no file"), "{error}");
    }
}
