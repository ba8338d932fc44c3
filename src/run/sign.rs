//! `wmrelay sign`: addresses that open a publishing point for a time, and the keys that sign them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};

use super::out::out;
use super::placed;
use crate::args::SignArgs;
use crate::ingest::load_stations;
use crate::relay::Relay;
use crate::settings::{Listen, Problem, Settings, SettingsError, Sources, Viewers, load};
use crate::text::percent_encode;
use crate::text::signed::{Claim, Secrets, SecretsError};
use crate::wire::Guid;

/// The ports that `mms` and `http` URLs need not name.
const DEFAULT_PORTS: [(&str, u16); 2] = [("mms", 1755), ("http", 80)];

/// Prints the query of a signed URL, and whole URLs where it is known how viewers reach the server; or writes a new key.
///
/// # Errors
/// Settings or keys that cannot be used, a name that opens nothing, a URL without a host, a file that is there already.
pub(super) fn sign(args: &SignArgs) -> anyhow::Result<()> {
    if let Some(file) = &args.new_key {
        return new_key(file);
    }
    let (Some(name), Some(span)) = (&args.name, args.span) else { bail!("a name and a time are needed") };
    let loaded = load(&Sources::of_process(args.config.clone(), Vec::new()))?;
    let settings = &loaded.settings;
    let file = settings.key_file.as_deref().context(
        "the settings name no [signing] key_file; make one with `wmrelay sign --new-key FILE`, and name their file with --config",
    )?;
    let secrets = read_secrets(file).map_err(|error| placed(error.into(), &loaded.places))?;
    let target = Target::of(settings, name)?;
    let ends_unix_s = unix_s().saturating_add(span.as_secs());
    let key = secrets.sign(&Claim { name: &target.name, ends_unix_s, address: args.address })?;
    let mut told = format!("?k={key}\n");
    if let Some(url) = &args.url {
        for url in urls(url, settings, &target.name)? {
            told.push_str(&format!("{url}?k={key}\n"));
        }
    }
    if !target.asks {
        writeln!(io::stderr(), "warning: {name:?} is open to everybody or to users: nobody is asked for this key there")?;
    }
    out().write_all(told.as_bytes())?;
    Ok(())
}

/// What is signed.
struct Target {
    /// As the settings write it: viewers may use other letters, keys may not.
    name: String,
    /// Whether anybody is asked for a key there.
    asks: bool,
}

impl Target {
    fn of(settings: &Settings, written: &str) -> anyhow::Result<Self> {
        let written = written.strip_prefix('/').unwrap_or(written);
        let is_clean = !written.chars().any(char::is_control) && !written.contains("//");
        ensure!(is_clean && !written.is_empty() && written != "/", "{written:?} is no name that viewers could open");
        let relay = Relay::new(settings, Box::new(Guid::default), Vec::new());
        load_stations(&relay)?;
        if let Some((point, below)) = relay.resolve(written) {
            // The name of a folder alone is none to play, all that is below it is.
            let is_whole = written.len() == point.name().len() || point.settings().lends_whole_names();
            let name = if is_whole { point.full_name(&below) } else { format!("{}/{below}", point.name()) };
            return Ok(Self { name, asks: point.settings().access.viewers == Viewers::Signed });
        }
        // A folder of publishing points, which is none itself.
        let points = relay.points();
        let mut inside = points.iter().filter_map(|point| {
            let folder = point.name().get(..written.len()).filter(|folder| folder.eq_ignore_ascii_case(written))?;
            Some((folder, point.settings().access.viewers == Viewers::Signed))
        });
        match inside.next().filter(|_| written.ends_with('/')) {
            Some((folder, asks)) => Ok(Self { name: folder.to_owned(), asks: asks || inside.any(|(_, asks)| asks) }),
            // An encoder may make it.
            None if settings.publish.create => {
                Ok(Self { name: written.to_owned(), asks: settings.access.viewers == Viewers::Signed })
            }
            None => bail!("the settings have no publishing point for {written:?}; is it the right file that --config names?"),
        }
    }
}

/// The address of a name for MMS and for HTTP, by how the server is reached.
fn urls(base: &str, settings: &Settings, name: &str) -> anyhow::Result<Vec<String>> {
    let (_, rest) = base.split_once("://").with_context(|| format!("{base:?} is no URL such as mms://media.example"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(path.is_empty(), "{base:?}: write the URL without a name, which stands by itself");
    let (host, port) = match authority.rsplit_once(']') {
        Some((host, behind)) => (format!("{host}]"), behind.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let is_name =
        |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let is_v6 =
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    ensure!(is_v6 || is_name(&host), "{base:?} names no server");
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port > 0));
    let port = match port {
        Some(None) => bail!("{base:?}: the port is not a number from 1 to 65535"),
        Some(port) => port,
        None => None,
    };
    let served = [&settings.mms, &settings.http];
    let mut urls = Vec::new();
    for ((scheme, default), listen) in DEFAULT_PORTS.into_iter().zip(served) {
        // Whatever port was named, it takes both.
        let Some(port) = port.or_else(|| first_port(listen)).or_else(|| first_port(&settings.mms)) else { continue };
        let at = if port == default { String::new() } else { format!(":{port}") };
        urls.push(format!("{scheme}://{host}{at}/{}", percent_encode(name)));
    }
    Ok(urls)
}

fn first_port(listen: &Listen) -> Option<u16> {
    listen.addresses.first().map(|address| address.port()).filter(|port| *port > 0)
}

/// Reads the file of the keys that sign.
///
/// # Errors
/// The file cannot be read, or a line of it is wrong: a problem of the settings, since they name it.
pub(super) fn read_secrets(path: &Path) -> Result<Secrets, SettingsError> {
    let file = path.display();
    let problem = |place: String, message: String| {
        let key = if place.is_empty() { "signing.key_file".to_owned() } else { String::new() };
        SettingsError { problems: vec![Problem { place, key, message }] }
    };
    let text = fs::read_to_string(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "it has to belong to the user that the server runs as".to_owned(),
            _ => format!("`wmrelay sign --new-key {file}` writes one"),
        };
        problem(String::new(), format!("{file} cannot be read: {error}; {advice}"))
    })?;
    Secrets::parse(&text, &file.to_string()).map_err(|error| match error {
        SecretsError::Line { file, line, reason } => problem(format!("{file}:{line}"), reason.to_owned()),
        error @ SecretsError::Empty { .. } => problem(String::new(), error.to_string()),
    })
}

/// Writes a file with a random key, its owner's alone. What is there stays: addresses that it signed would close.
fn new_key(path: &PathBuf) -> anyhow::Result<()> {
    let file = path.display();
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("the system has no random numbers")?;
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!(
            "{file} is there already and stays as it is; to change keys write a new file and put its key in front of those in this one"
        ),
        _ => anyhow::Error::new(error).context(format!("cannot write {file}")),
    })?;
    out.write_all(Secrets::file_of(secret).as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {file}"))?;
    writeln!(io::stderr(), "{file}: new key written; name the file as key_file of [signing]")?;
    Ok(())
}

/// The time of day, seconds of Unix time.
#[expect(clippy::disallowed_methods, reason = "the one place where signed URLs learn what time it is")]
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{PointAccess, PublishingPoint, Source, Start};
    use std::time::Duration;

    fn settings() -> Settings {
        let point = |name: &str, source, viewers| {
            let access = PointAccess { viewers, ..PointAccess::default() };
            PublishingPoint { access, ..PublishingPoint::new(name, source) }
        };
        let files = Source::Files { root: "/nowhere".into() };
        let pull = Source::Pull { url: "mms://h/{1}".into(), start: Start::Watched, linger: Duration::ZERO };
        let publishing_points = vec![
            point("Cam1", Source::Push, Viewers::Signed),
            point("archive", files, Viewers::Signed),
            point("tv/One", Source::Push, Viewers::All),
            point("tv/two", Source::Push, Viewers::Signed),
            point("door-*", pull, Viewers::Signed),
        ];
        Settings { publishing_points, ..Settings::default() }
    }

    #[test]
    fn names_are_signed_as_the_settings_write_them() {
        for (written, name, asks) in [
            ("cam1", "Cam1", true),
            ("/Cam1", "Cam1", true),
            ("archive", "archive", true),
            ("Archive/", "archive/", true),
            ("archive/A.wmv", "archive/A.wmv", true),
            ("ARCHIVE/a/b/", "archive/a/b/", true),
            ("tv/one", "tv/One", false),
            ("TV/", "tv/", true),
            ("DOOR-Back", "door-Back", true),
        ] {
            let target = Target::of(&settings(), written).unwrap();
            assert_eq!((target.name.as_str(), target.asks), (name, asks), "{written}");
        }
        for bad in ["", "/", "//", "cam2", "tv", "cam1/", "cam1/x", "t/", "archive//x"] {
            assert!(Target::of(&settings(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stations_are_signed_as_their_list_writes_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "Jazz mms://h/1\n").unwrap();
        let source = Source::Stations { file: file.path().to_owned(), linger: Duration::ZERO };
        let access = PointAccess { viewers: Viewers::Signed, ..PointAccess::default() };
        let list = PublishingPoint { access, ..PublishingPoint::new("list", source) };
        let settings = Settings { publishing_points: vec![list], ..Settings::default() };
        let target = Target::of(&settings, "jAZZ").unwrap();
        assert_eq!((target.name.as_str(), target.asks), ("Jazz", true));
        assert!(Target::of(&settings, "rock").is_err() && Target::of(&settings, "list").is_err());
    }

    #[test]
    fn addresses_for_both_protocols() {
        let told = |base: &str| urls(base, &settings(), "archive/a b").map(|urls| urls.join(" "));
        assert_eq!(told("mms://h").unwrap(), "mms://h/archive/a%20b http://h:8080/archive/a%20b");
        assert_eq!(told("http://h:80/").unwrap(), "mms://h:80/archive/a%20b http://h/archive/a%20b");
        assert_eq!(
            told("mms://[2001:db8::1]:7").unwrap(),
            "mms://[2001:db8::1]:7/archive/a%20b http://[2001:db8::1]:7/archive/a%20b"
        );
        for bad in ["h", "mms://", "mms://h:0", "mms://h:x", "mms://h/x", "mms://u@h", "mms://[::g]", "mms://h h"] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
