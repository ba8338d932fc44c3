//! Station lists: files with a name, a URL and a title a line, each of which is a publishing point while somebody watches it.

use std::collections::HashMap;
use std::time::Duration;

use super::check::{Check, viewers};
use super::points::{LINGER_S, check_name, url_problem, url_without_secrets};
use super::problem::{Problem, SettingsError};
use super::raw::RawStations;
use super::template::AT_ONCE_MAX;
use super::{PointAccess, PublishingPoint, Source, Viewers};

/// Longest station list, bytes.
pub const STATIONS_BYTES_MAX: usize = 1 << 20;
/// Lines of a station list, comments and empty ones too.
const LINES_MAX: usize = 10_000;
/// More than these in one list are told once the first are mended.
const PROBLEMS_MAX: usize = 20;
/// Longest title, bytes.
const TITLE_MAX: usize = 255;

/// A line of a station list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// The name that viewers open.
    pub name: String,
    /// What is pulled for it, as the `url` of a source of type pull.
    pub url: String,
    /// What people are shown in place of the name.
    pub title: Option<String>,
}

/// Reads a station list: `name url title` a line, the title to the end of the line or left out; `#` begins a comment.
///
/// # Errors
/// What is wrong with `file`, by its lines, the first 20 of them: what is no name or URL, names that come twice, more than 10,000
/// lines or 1 MiB.
pub fn parse_stations(text: &str, file: &str) -> Result<Vec<Station>, SettingsError> {
    let mut problems = Vec::new();
    let whole = |message: String| Problem { place: file.to_owned(), key: String::new(), message };
    if text.len() > STATIONS_BYTES_MAX {
        return Err(SettingsError { problems: vec![whole(format!("is longer than {STATIONS_BYTES_MAX} bytes"))] });
    }
    let mut stations = Vec::new();
    let mut lines_of: HashMap<String, usize> = HashMap::new();
    for (line, text) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        if line > LINES_MAX {
            problems.push(whole(format!("has more than {LINES_MAX} lines")));
            break;
        }
        let mut problem = |message| problems.push(Problem { place: format!("{file}:{line}"), key: String::new(), message });
        match station(text.trim()) {
            Ok(None) => {}
            Ok(Some(station)) => match lines_of.insert(station.name.to_ascii_lowercase(), line) {
                Some(first) => {
                    problem(format!("{:?} is the name in line {first} too; viewers keep no capitals apart", station.name))
                }
                None => stations.push(station),
            },
            Err(message) => problem(message),
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if problems.is_empty() { Ok(stations) } else { Err(SettingsError { problems }) }
}

fn station(line: &str) -> Result<Option<Station>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = line.split_once(char::is_whitespace).ok_or("a name alone; write a URL behind it, and then a title")?;
    let (url, title) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim_start(), ""));
    check_name(name)?;
    if name.contains('*') {
        return Err(format!("{name:?}: a `*` is for templates, which are publishing points of the settings"));
    }
    if let Some(why) = url_problem(url) {
        return Err(why);
    }
    // What an encoder serves over HTTP is at the root.
    let is_root = url.matches('/').count() == 3 && (url.starts_with("http://") || url.starts_with("mmsh://"));
    if url.ends_with('/') && !url.contains('?') && !is_root {
        return Err(format!("{:?} is a whole folder; name one stream", url_without_secrets(url)));
    }
    let title = title.trim();
    if title.chars().any(char::is_control) || title.len() > TITLE_MAX {
        return Err(format!("the title is longer than {TITLE_MAX} bytes, or holds a control character"));
    }
    let title = (!title.is_empty()).then(|| title.to_owned());
    Ok(Some(Station { name: name.to_owned(), url: url.to_owned(), title }))
}

/// The lists that are named, each as one publishing point that stands for all in it.
pub(super) fn station_lists(
    check: &mut Check<'_>,
    raw: &[RawStations],
    timeout: Option<Duration>,
    of_all: Viewers,
) -> Vec<PublishingPoint> {
    let mut lists: Vec<PublishingPoint> = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let key = format!("stations[{i}]");
        let Some(path) = raw.file.as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            check.problem(&key, "lacks `file`: a list with `name url title` a line".into());
            continue;
        };
        let name = path.to_string_lossy().into_owned();
        let file = check.existing_file(&format!("{key}.file"), path);
        if lists.iter().any(|list| matches!(&list.source, Source::Stations { file: other, .. } if *other == file)) {
            check.problem(&format!("{key}.file"), format!("{name} is named twice"));
        }
        let point = PublishingPoint::new(
            name,
            Source::Stations { file, linger: Duration::from_secs(raw.linger_s.unwrap_or(LINGER_S).into()) },
        );
        if let Some(at_once) = raw.at_once.filter(|at_once| !(1..=AT_ONCE_MAX).contains(at_once)) {
            check.problem(&format!("{key}.at_once"), format!("{at_once} is not between 1 and {AT_ONCE_MAX} names"));
        }
        let access = PointAccess {
            viewers: viewers(raw.access, of_all),
            allow: check.networks(&format!("{key}.allow"), raw.allow.as_ref()),
            deny: check.networks(&format!("{key}.deny"), raw.deny.as_ref()),
        };
        check.not_denied_too(&format!("{key}.allow"), &access.allow, &access.deny);
        let at_once = raw.at_once.and_then(|at_once| usize::try_from(at_once).ok()).unwrap_or(point.at_once);
        let source_timeout = raw.source_timeout_s.map_or(timeout, |seconds| check.time_or_never(seconds));
        lists.push(PublishingPoint { access, at_once, source_timeout, ..point });
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(name: &str, url: &str, title: Option<&str>) -> Station {
        Station { name: name.into(), url: url.into(), title: title.map(str::to_owned) }
    }

    #[test]
    fn a_line_is_a_name_a_url_and_a_title() {
        let text = "\u{feff}# all of them\r\n\r\none http://h/\n  jazz/late \t http://u:p@h:8000/x?k=1   Late Jazz # 1 \r\n";
        let stations = parse_stations(text, "s").unwrap();
        assert_eq!(
            stations,
            [station("one", "http://h/", None), station("jazz/late", "http://u:p@h:8000/x?k=1", Some("Late Jazz # 1")),]
        );
        assert_eq!(parse_stations("", "s").unwrap(), []);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let text = "ok mms://h/1\nalone\n../x mms://h/1\ncam-* mms://h/1\nOK mms://h/2\na ftp://h/x\nb mms://h/x/\n\
                    c mms://h:0/x?k=secret\nd http://h/x a\u{7}b\n";
        let error = parse_stations(text, "list.txt").unwrap_err();
        let told: Vec<String> = error.problems.iter().map(Problem::to_string).collect();
        for (told, wanted) in told.iter().zip([
            "list.txt:2: a name alone",
            "list.txt:3: \"../x\"",
            "list.txt:4: \"cam-*\"",
            "list.txt:5: \"OK\" is the name in line 1 too",
            "list.txt:6: \"ftp://h/x\" does not begin",
            "list.txt:7: \"mms://h/x/\" is a whole folder",
            "list.txt:8: \"mms://h:0/x?…\": the port",
            "list.txt:9: the title",
        ]) {
            assert!(told.starts_with(wanted), "{told:?} and not {wanted:?}");
        }
        assert_eq!(told.len(), 8, "{told:#?}");
    }

    #[test]
    fn lists_are_bounded() {
        let line = |n: usize| format!("s{n} mms://h/{n}\n");
        let most: String = (0..LINES_MAX).map(line).collect();
        assert_eq!(parse_stations(&most, "s").unwrap().len(), LINES_MAX);
        assert!(parse_stations(&(most + "#"), "s").unwrap_err().to_string().contains("more than 10000 lines"));
        let long = "#".repeat(STATIONS_BYTES_MAX + 1);
        assert!(parse_stations(&long, "s").unwrap_err().to_string().contains("longer than 1048576 bytes"));
        assert_eq!(parse_stations(&"x\n".repeat(100), "s").unwrap_err().problems.len(), PROBLEMS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_told(text in r"([a-z#*/:. \t\n\r]|mms://|\PC){0,60}") {
            if let Err(error) = parse_stations(&text, "s") {
                proptest::prop_assert!(!error.problems.is_empty());
            }
        }
    }
}
