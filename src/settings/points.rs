//! Publishing points: what names they may have and what each type of source needs.

use std::borrow::Cow;
use std::time::Duration;

use super::camera::camera;
use super::check::{Check, viewers};
use super::fallback;
use super::raw::{RawPoint, RawSource, RawSourceKind, RawStart};
use super::template::{template, watched_only};
use super::transcode::{self, DEFAULT_PROFILE};
use super::{PointAccess, PublishingPoint, Source, Start, Viewers};

/// Longest name that the MMS side opens, UTF-16 units: real names are shorter, and requests stay small.
const NAME_MAX: usize = 1024;

/// Endings that belong to announcement files and session descriptions of a publishing point.
const RESERVED_ENDINGS: [&str; 4] = [".asx", ".m3u", ".nsc", ".sdp"];

/// Whether viewers can open, and publishers name, a publishing point of that name.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn check_name(name: &str) -> Result<(), String> {
    let told = |why: &str| Err(format!("{name:?}: {why}"));
    let lower = name.to_ascii_lowercase();
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    if name.encode_utf16().count() > NAME_MAX {
        return Err(format!("the name is longer than {NAME_MAX} characters"));
    }
    if name.chars().any(char::is_control) {
        return told("control characters are not allowed in a name");
    }
    if name.trim() != name {
        return told("a name does not begin or end with a space");
    }
    if name.contains('\\') || drive {
        return told("it looks like a Windows path; folders in a name are separated by /");
    }
    if name.contains(['?', '#']) {
        return told("? and # end the name in a URL, so no player could ask for it");
    }
    if name.starts_with('/') || name.ends_with('/') {
        return told("write the name without / at its ends");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return told("empty parts, . and .. are not allowed between /");
    }
    if lower == "publish" || lower.starts_with("publish/") {
        return told("\"publish\" is reserved: publishers send to /publish/NAME");
    }
    if let Some(ending) = RESERVED_ENDINGS.iter().find(|ending| lower.ends_with(**ending)) {
        return told(&format!("names that end in {ending} are reserved for announcements of a publishing point"));
    }
    Ok(())
}

/// Checks all publishing points. Those that are wrong are left out; the check has noted why.
pub(super) fn publishing_points(
    check: &mut Check<'_>,
    raw: &[RawPoint],
    timeout: Option<Duration>,
    of_all: Viewers,
) -> Vec<PublishingPoint> {
    let mut points: Vec<(usize, PublishingPoint)> = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let key = format!("publishing_point[{i}]");
        let mut name = raw.name.clone().unwrap_or_default();
        let source = match &watched_only(check, &key, raw) {
            Some(source) => self::source(check, &format!("{key}.source"), source),
            None => {
                check.problem(&key, "lacks `source`, such as source = { type = \"push\" }".into());
                None
            }
        };
        // People write a folder's name with a slash at its end, or without.
        if source.as_ref().is_some_and(Source::is_folder) && name.ends_with('/') {
            name.pop();
        }
        if raw.name.is_none() {
            check.problem(&key, "lacks `name`".into());
        } else if let Err(why) = check_name(&name) {
            check.problem(&format!("{key}.name"), why);
        } else if let Some(other) = points.iter().map(|(_, other)| other).find(|other| other.name.eq_ignore_ascii_case(&name)) {
            let why = format!("{name:?} and {:?} differ only in capitals, which viewers do not keep apart", other.name);
            check.problem(&format!("{key}.name"), why);
        }
        let title = raw.title.clone();
        if title.as_ref().is_some_and(|title| title.is_empty() || title.chars().any(char::is_control)) {
            check.problem(&format!("{key}.title"), "is empty, or holds a line break or another control character".into());
        }
        let source_timeout = raw.source_timeout_s.map_or(timeout, |seconds| check.time_or_never(seconds));
        let access = PointAccess {
            viewers: viewers(raw.access, of_all),
            allow: check.networks(&format!("{key}.allow"), raw.allow.as_ref()),
            deny: check.networks(&format!("{key}.deny"), raw.deny.as_ref()),
        };
        check.not_denied_too(&format!("{key}.allow"), &access.allow, &access.deny);
        let at_once = template(check, &key, raw, &name, source.as_ref());
        let fallback = fallback::fallback(check, &key, raw, source.as_ref());
        if fallback.is_some() && name.contains('*') {
            check.problem(&format!("{key}.fallback"), "is for one publishing point, not for a name that stands for many".into());
        }
        fallback::in_time(check, &key, raw, fallback.as_ref(), source_timeout);
        let url_commands = raw.url_commands.unwrap_or_default();
        points.extend(source.map(|source| {
            let point = PublishingPoint::new(name, source);
            let at_once = at_once.unwrap_or(point.at_once);
            (i, PublishingPoint { source_timeout, url_commands, fallback, title, access, at_once, ..point })
        }));
    }
    fallback::connect(check, &mut points);
    points.into_iter().map(|(_, point)| point).collect()
}

fn source(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let Some(kind) = raw.kind else {
        let types = "\"push\", \"file\", \"files\", \"exec\", \"ffmpeg\", \"pull\", \"camera\" or \"demo\"";
        check.problem(key, format!("lacks `type`: {types}"));
        return None;
    };
    let (word, uses): (_, &[&str]) = match kind {
        RawSourceKind::Push => ("push", &[]),
        RawSourceKind::Demo => ("demo", &[]),
        RawSourceKind::File => ("file", &["path", "paths", "start", "linger_s"]),
        RawSourceKind::Exec => ("exec", &["argv", "start", "linger_s"]),
        RawSourceKind::Files => ("files", &["root"]),
        RawSourceKind::Pull => ("pull", &["url", "start", "linger_s"]),
        RawSourceKind::Ffmpeg => ("ffmpeg", &["input", "input_arguments", "profile", "start", "linger_s"]),
        RawSourceKind::Camera => ("camera", &["url", "user", "password", "transport", "start", "linger_s"]),
    };
    let written = [
        ("path", raw.path.is_some()),
        ("paths", raw.paths.is_some()),
        ("argv", raw.argv.is_some()),
        ("root", raw.root.is_some()),
        ("url", raw.url.is_some()),
        ("input", raw.input.is_some()),
        ("input_arguments", raw.input_arguments.is_some()),
        ("profile", raw.profile.is_some()),
        ("user", raw.user.is_some()),
        ("password", raw.password.is_some()),
        ("transport", raw.transport.is_some()),
        ("start", raw.start.is_some()),
        ("linger_s", raw.linger_s.is_some()),
    ];
    for (name, written) in written {
        if written && !uses.contains(&name) {
            check.problem(&format!("{key}.{name}"), format!("a source of type \"{word}\" has no `{name}`"));
        }
    }
    match kind {
        RawSourceKind::Push => Some(Source::Push),
        RawSourceKind::Demo => Some(Source::Demo),
        RawSourceKind::File => file(check, key, raw),
        RawSourceKind::Exec => exec(check, key, raw),
        RawSourceKind::Files => files(check, key, raw),
        RawSourceKind::Pull => pull(check, key, raw),
        RawSourceKind::Ffmpeg => {
            let input = transcode::input(check, key, raw.input.as_ref(), raw.input_arguments.as_ref());
            let profile = raw.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
            let (start, linger) = when(check, key, raw);
            Some(Source::Ffmpeg { input: input?, profile, start, linger })
        }
        RawSourceKind::Camera => camera(check, key, raw),
    }
}

fn file(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let written = match (&raw.path, &raw.paths) {
        (Some(path), None) => vec![(format!("{key}.path"), path)],
        (None, Some(paths)) => paths.iter().enumerate().map(|(i, path)| (format!("{key}.paths[{i}]"), path)).collect(),
        (Some(_), Some(_)) => {
            check.problem(key, "has both `path` and `paths`; keep one".into());
            return None;
        }
        (None, None) => Vec::new(),
    };
    if written.is_empty() {
        check.problem(key, "lacks `path` (one ASF file) or `paths` (several, one after the other)".into());
        return None;
    }
    let paths = written.into_iter().map(|(key, path)| {
        if path.as_os_str().is_empty() {
            check.problem(&key, "the path is empty".into());
        }
        check.existing_file(&key, path)
    });
    let paths = paths.collect();
    let (start, linger) = when(check, key, raw);
    Some(Source::File { paths, start, linger })
}

fn exec(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let argv = raw.argv.clone().unwrap_or_default();
    match argv.first() {
        None => {
            check.problem(key, "lacks `argv`: the program and its arguments, one string each".into());
            return None;
        }
        Some(program) if program.is_empty() => check.problem(&format!("{key}.argv"), "the program's name is empty".into()),
        Some(program) if argv.len() == 1 && program.contains(' ') => {
            let why = "the program's name contains spaces; there is no shell, so every argument is a string of its own";
            check.warning(&format!("{key}.argv"), why.into());
        }
        Some(_) => {}
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        check.problem(&format!("{key}.argv"), "an argument contains a NUL character, which no program can be given".into());
    }
    let (start, linger) = when(check, key, raw);
    Some(Source::Exec { argv, start, linger })
}

pub(super) fn when(check: &mut Check<'_>, key: &str, raw: &RawSource) -> (Start, Duration) {
    let start = match raw.start {
        Some(RawStart::Watched) => Start::Watched,
        Some(RawStart::Always) | None => Start::Always,
    };
    if start == Start::Always && raw.linger_s.is_some() {
        check.warning(&format!("{key}.linger_s"), "has no effect without start = \"watched\"".into());
    }
    (start, Duration::from_secs(raw.linger_s.unwrap_or(LINGER_S).into()))
}

fn files(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let Some(root) = raw.root.as_deref().filter(|root| !root.as_os_str().is_empty()) else {
        check.problem(key, "lacks `root`: a folder of ASF files (.asf, .wmv, .wma), or one such file".into());
        return None;
    };
    Some(Source::Files { root: check.existing_path(&format!("{key}.root"), root) })
}

fn pull(check: &mut Check<'_>, key: &str, raw: &RawSource) -> Option<Source> {
    let Some(url) = raw.url.clone() else {
        check.problem(key, "lacks `url`, such as \"mms://192.0.2.1/live\"".into());
        return None;
    };
    if let Some(why) = url_problem(&url) {
        check.problem(&format!("{key}.url"), why);
    }
    let (start, linger) = when(check, key, raw);
    if url.ends_with('/') && !url.contains('?') && raw.start == Some(RawStart::Always) {
        check.warning(&format!("{key}.start"), "has no effect where a whole folder is pulled: nobody knows its names".into());
    }
    Some(Source::Pull { url, start, linger })
}

/// What is wrong with the URL of another server, if anything.
pub(super) fn url_problem(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let is_rtsp = ["rtsp", "rtspt", "rtspu"].contains(&scheme.as_str());
    let is_http = ["http", "mmsh"].contains(&scheme.as_str());
    let end = if is_http || is_rtsp { rest.find(['/', '?', '#']) } else { rest.find('/') };
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    // Passwords and access keys are not repeated.
    let shown = url_without_secrets(url);
    if !is_http && !is_rtsp && !["mms", "mmst", "mmsu"].contains(&scheme.as_str()) {
        let known =
            "mms://, mmst:// (TCP alone), mmsu:// (UDP alone), rtsp://, rtspt://, rtspu:// (likewise), http:// or mmsh://";
        return Some(format!("{shown:?} does not begin with {known}"));
    } else if login.is_some() && !is_http && !is_rtsp {
        let text = "user name and password cannot be given in the URL but with http://, mmsh:// and rtsp://";
        return Some(text.into());
    } else if port_of(host).is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Some(format!("{shown:?}: the port is not a number from 1 to 65535"));
    } else if host.is_empty() || host.starts_with(':') {
        return Some(format!("{shown:?} names no server"));
    } else if path.is_empty() && !is_http {
        return Some(format!("{shown:?} names nothing on that server; a slash at its end means all of it"));
    } else if is_rtsp && url.ends_with('/') && !url.contains('?') {
        let text =
            format!("{shown:?}: over RTSP packets have no numbers, so that no folder is pulled; name one stream, or use mms://");
        return Some(text);
    }
    None
}

/// A URL as it may be shown: without user name, password, and what stands behind a question mark.
pub fn url_without_secrets(url: &str) -> String {
    if let Some((_, behind)) = url.split_once('?')
        && behind.contains('@')
    {
        // Of a password with a question mark in it this would be the begin.
        return url.split_once("://").map_or_else(|| "…".to_owned(), |(scheme, _)| format!("{scheme}://…"));
    }
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?…"));
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let between = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{between}…@{host}{query}"),
        None => format!("{scheme}{between}{rest}{query}"),
    }
}

/// A line as it may be shown or logged: of each URL in it what [`url_without_secrets`] leaves.
pub fn line_without_secrets(line: &str) -> String {
    // Passwords may hold what else ends a word.
    let line: String = line.split_inclusive(' ').map(without_login).collect();
    let mut out = String::with_capacity(line.len());
    for word in line.split_inclusive([' ', '\'', '"', ',', '(', ')', '<', '>']) {
        let url = word.trim_end_matches([' ', '\'', '"', ',', '(', ')', '<', '>', ':', '.']);
        let rest = word.get(url.len()..).unwrap_or_default();
        if url.contains("://") {
            out.push_str(&url_without_secrets(url));
        } else {
            out.push_str(url);
        }
        out.push_str(rest);
    }
    out
}

/// The word without name and password, if there is a URL in it.
fn without_login(word: &str) -> Cow<'_, str> {
    let (url, query) = word.split_at(word.find('?').unwrap_or(word.len()));
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://…@{host}{query}").into(),
        None => word.into(),
    }
}

/// What stands behind the host's colon, if there is one; an IPv6 address has its own in brackets.
pub(super) fn port_of(host: &str) -> Option<&str> {
    match host.rsplit_once(']') {
        Some((_, behind)) => behind.strip_prefix(':'),
        None => host.split_once(':').map(|(_, port)| port),
    }
}

/// Long enough for a player's second connection and for zapping back, short enough to free a camera.
pub(super) const LINGER_S: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_no_login_whatever_is_in_it() {
        for (line, shown) in [
            ("'rtsp://u:p,w(d)@cam/1': 401", "'rtsp://…@cam/1': 401"),
            ("to http://a:b@h/x?k=s, and rtsp://c:\"d'@e:554 too", "to http://…@h/x?…, and rtsp://…@e:554 too"),
            ("nothing at http://h/x?mail=a@b or c@d", "nothing at http://… or c@d"),
        ] {
            assert_eq!(line_without_secrets(line), shown);
        }
    }

    #[test]
    fn names_that_viewers_can_open() {
        for good in ["cam1", "live/cam 1", "Übung", "a..b", "publisher", "cam.asf", "x.sdpx", "cam:1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let cases = [
            ("", "empty"),
            ("publish", "reserved"),
            ("Publish/x", "reserved"),
            ("a.ASX", ".asx"),
            ("a/b.sdp", ".sdp"),
            ("a.m3u", ".m3u"),
            ("a.nsc", ".nsc"),
            ("a\u{7}", "control"),
            ("a\0", "control"),
            ("../a", ".."),
            ("a/../b", ".."),
            ("a//b", "empty parts"),
            ("/a", "without /"),
            ("a/", "without /"),
            ("a\\b", "Windows"),
            ("c:a", "Windows"),
            (" a", "space"),
            ("a?b", "URL"),
        ];
        for (bad, word) in cases {
            assert!(check_name(bad).unwrap_err().contains(word), "{bad:?}: {:?}", check_name(bad));
        }
        assert!(check_name(&"n".repeat(1024)).is_ok());
        assert!(check_name(&"n".repeat(1025)).is_err());
    }
}
