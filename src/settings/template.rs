//! Templates: a name with `*` in it is one publishing point for many names, and what the `*` matched fills in its source.
//!
//! What fills in is a viewer's word. It is bounded here, in one place, for each kind of source: in a URL it is percent-encoded and
//! names no server, in an argument it is part of that one argument and begins no option, in a path it leads nowhere else.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::check::Check;
use super::points::check_name;
use super::raw::{RawPoint, RawSource, RawSourceKind, RawStart};
use super::{FfmpegInput, PublishingPoint, Source, scheme_of};

/// A `*` more than this helps nobody.
const STARS_MAX: usize = 4;
/// Longest text that one `*` matches, bytes: as long as the name of a file may be.
const MATCH_MAX: usize = 255;
/// Names of one template that are live at once where the settings do not say.
pub(super) const AT_ONCE: usize = 64;
/// Each one takes a little memory in every thread from the start on.
pub(super) const AT_ONCE_MAX: u32 = 1024;
/// Programs that take an argument for commands.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"];
/// The same with expressions in place of commands, by how their names begin.
const INTERPRETERS: [&str; 5] = ["python", "perl", "ruby", "node", "lua"];

/// A name with `*` in it: each stands for one or more characters, none of which is `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What stands in front of, between and behind the stars: one more than there are of them.
    literals: Vec<String>,
}

/// What the `*` of a template matched, the first one first; at most 255 bytes each, without `/` and control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captures(Vec<String>);

impl Pattern {
    /// `None` for a name without `*`.
    pub fn new(name: &str) -> Option<Self> {
        name.contains('*').then(|| Self { literals: name.split('*').map(str::to_owned).collect() })
    }

    /// How many `*` there are.
    pub fn stars(&self) -> usize {
        self.literals.len() - 1
    }

    /// Characters that a name must have as they are: of two templates that match the one with more says more.
    pub fn literal_chars(&self) -> usize {
        self.literals.iter().map(|literal| literal.chars().count()).sum()
    }

    /// What the stars match in a name; ASCII letters of the template itself may be written large or small, as people type them.
    /// Each star takes as little as it can. `None` also where the whole is no name that a publishing point could have.
    pub fn captures(&self, name: &str) -> Option<Captures> {
        if name.chars().any(char::is_control) || check_name(name).is_err() {
            return None;
        }
        // Of the same length, so that places in it are places in the name.
        let folded = name.to_ascii_lowercase();
        let (first, rest) = self.literals.split_first()?;
        let (last, between) = rest.split_last()?;
        let (first, last) = (first.to_ascii_lowercase(), last.to_ascii_lowercase());
        let end = folded.strip_suffix(last.as_str())?.len();
        let mut at = folded.starts_with(first.as_str()).then_some(first.len())?;
        let mut captures = Vec::with_capacity(rest.len());
        for literal in between {
            let least = name.get(at..end)?.chars().next()?.len_utf8();
            let from = at + least;
            let found = from + folded.get(from..end)?.find(literal.to_ascii_lowercase().as_str())?;
            captures.push(name.get(at..found)?.to_owned());
            at = found + literal.len();
        }
        captures.push(name.get(at..end)?.to_owned());
        let fits = |text: &String| !text.is_empty() && text.len() <= MATCH_MAX && !text.contains('/');
        captures.iter().all(fits).then_some(Captures(captures))
    }

    /// The name with these in place of the stars, as the settings write it.
    pub fn name(&self, captures: &Captures) -> String {
        let mut name = String::new();
        let mut captures = captures.0.iter();
        for literal in &self.literals {
            name.push_str(literal);
            name.push_str(captures.next().map_or("", String::as_str));
        }
        name
    }
}

impl Captures {
    /// A text with what was matched in place of `{1}`, `{2}` and so on.
    pub fn fill(&self, text: &str) -> String {
        self.fill_by(text, |value, filled| filled.push_str(value))
    }

    /// The same for a URL: all that has a meaning there is percent-encoded.
    fn fill_url(&self, url: &str) -> String {
        self.fill_by(url, |value, filled| {
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    filled.push(char::from(byte));
                } else {
                    // Writing to a String cannot fail.
                    let _ = write!(filled, "%{byte:02X}");
                }
            }
        })
    }

    fn fill_by(&self, text: &str, put: impl Fn(&str, &mut String)) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(place) = Place::first(rest) {
            filled.push_str(rest.get(..place.begin).unwrap_or_default());
            match place.star.checked_sub(1).and_then(|index| self.0.get(index)) {
                Some(value) => put(value, &mut filled),
                None => filled.push_str(rest.get(place.begin..place.end).unwrap_or_default()),
            }
            rest = rest.get(place.end..).unwrap_or_default();
        }
        filled.push_str(rest);
        filled
    }

    /// Whether each that stands in a text is fit for it by `rule`: what was matched, and whether it begins the text.
    fn all_fit(&self, text: &str, rule: impl Fn(&str, bool) -> bool) -> bool {
        Place::all(text).all(|place| {
            place.star.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|value| rule(value, place.begin == 0))
        })
    }
}

/// A `{n}` in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    begin: usize,
    end: usize,
    star: usize,
}

impl Place {
    fn first(text: &str) -> Option<Self> {
        text.match_indices('{').find_map(|(begin, _)| {
            let inside = text.get(begin + 1..)?;
            let digits = inside.get(..inside.find('}')?)?;
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            // A number that is too large is that of no star.
            is_number.then(|| Self { begin, end: begin + digits.len() + 2, star: digits.parse().unwrap_or(usize::MAX) })
        })
    }

    fn all(text: &str) -> impl Iterator<Item = Self> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let place = Self::first(text.get(at..)?)?;
            let place = Self { begin: at + place.begin, end: at + place.end, star: place.star };
            at = place.end;
            Some(place)
        })
    }
}

impl Source {
    /// The source of one name of a template; `None` where what was matched may not stand where it would, or where this type of
    /// source is none for templates.
    ///
    /// A type that can be a template has its arm here and in `blanks`.
    pub fn filled(&self, captures: &Captures) -> Option<Self> {
        match self {
            Self::Pull { url, start, linger } => {
                Some(Self::Pull { url: filled_url(captures, url)?, start: *start, linger: *linger })
            }
            Self::Exec { argv, start, linger } => {
                // Else a viewer could give the program an option.
                let is_fit = |argument: &String| captures.all_fit(argument, |value, begins| !(begins && value.starts_with('-')));
                let argv = argv.iter().all(is_fit).then(|| argv.iter().map(|argument| captures.fill(argument)).collect())?;
                Some(Self::Exec { argv, start: *start, linger: *linger })
            }
            Self::File { paths, start, linger } => {
                let fill = |path: &PathBuf| match path.to_str() {
                    Some(text) => filled_path(captures, text).map(PathBuf::from),
                    None => Some(path.clone()),
                };
                let paths = paths.iter().map(fill).collect::<Option<_>>()?;
                Some(Self::File { paths, start: *start, linger: *linger })
            }
            Self::Ffmpeg { input: FfmpegInput { input, arguments }, profile, start, linger } => {
                let filled =
                    if scheme_of(input).is_some() { filled_url(captures, input)? } else { filled_path(captures, input)? };
                let input = FfmpegInput { input: filled, arguments: arguments.clone() };
                Some(Self::Ffmpeg { input, profile: profile.clone(), start: *start, linger: *linger })
            }
            Self::Camera { url, login, udp, start, linger } => {
                let (url, login) = (filled_url(captures, url)?, login.clone());
                Some(Self::Camera { url, login, udp: *udp, start: *start, linger: *linger })
            }
            Self::Push | Self::Demo | Self::Files { .. } | Self::Stations { .. } => None,
        }
    }

    /// The texts in which `{n}` may stand, by their keys; `None` where this type of source is none for templates.
    fn blanks(&self) -> Option<Vec<(String, String)>> {
        match self {
            Self::Pull { url, .. } | Self::Camera { url, .. } => Some(vec![("url".into(), url.clone())]),
            Self::Exec { argv, .. } => {
                Some(argv.iter().enumerate().map(|(i, argument)| (format!("argv[{i}]"), argument.clone())).collect())
            }
            Self::File { paths, .. } => {
                let key = |i| if paths.len() == 1 { "path".into() } else { format!("paths[{i}]") };
                Some(paths.iter().enumerate().map(|(i, path)| (key(i), path.to_string_lossy().into_owned())).collect())
            }
            Self::Ffmpeg { input, .. } => Some(vec![("input".into(), input.input.clone())]),
            Self::Push | Self::Demo | Self::Files { .. } | Self::Stations { .. } => None,
        }
    }
}

/// A URL of another server; `None` where what was matched, alone or with what stands beside it, leads out of a folder there.
fn filled_url(captures: &Captures, url: &str) -> Option<String> {
    let filled = captures.fill_url(url);
    let is_step = |part: &&str| matches!(*part, "." | "..");
    let path = filled.split(['?', '#']).next().unwrap_or_default();
    let climbs = path.split('/').filter(is_step).count() > url.split('/').filter(is_step).count();
    (!climbs).then_some(filled)
}

/// A path; `None` where what was matched leads out of a folder, or to a hidden file.
fn filled_path(captures: &Captures, path: &str) -> Option<String> {
    let is_fit = |value: &str, _| !value.contains("..") && !value.starts_with('.') && !value.contains('/');
    captures.all_fit(path, is_fit).then(|| captures.fill(path))
}

impl PublishingPoint {
    /// The name as a pattern, where it is a template.
    pub fn pattern(&self) -> Option<Pattern> {
        Pattern::new(&self.name)
    }

    /// Whether it has no stream itself: each name that viewers open by it gets a publishing point of its own, for a while.
    pub fn is_lender(&self) -> bool {
        self.lends_whole_names() || (matches!(self.source, Source::Pull { .. }) && self.source.is_folder())
    }

    /// Whether those names are whole ones, not below its own: of a template, or of a list of stations.
    pub fn lends_whole_names(&self) -> bool {
        self.pattern().is_some() || matches!(self.source, Source::Stations { .. })
    }
}

/// The source as it is to be checked: that of a template runs while it is watched.
pub(super) fn watched_only(check: &mut Check<'_>, key: &str, raw: &RawPoint) -> Option<RawSource> {
    let mut source = raw.source.clone()?;
    if raw.name.as_ref().is_some_and(|name| name.contains('*')) {
        if source.start == Some(RawStart::Always) {
            let why = "nobody knows the names of a template before viewers say them; leave `start` out, or write \"watched\"";
            check.problem(&format!("{key}.source.start"), why.into());
        }
        use RawSourceKind::{Demo, Files, Push};
        if !matches!(source.kind, Some(Demo | Files | Push)) {
            source.start = Some(RawStart::Watched);
        }
    }
    Some(source)
}

/// Checks what is a template in a publishing point, and that nothing is that looks like one. How many names are live at once,
/// where that is of use.
pub(super) fn template(check: &mut Check<'_>, key: &str, raw: &RawPoint, name: &str, source: Option<&Source>) -> Option<usize> {
    let pattern = Pattern::new(name);
    let stars = pattern.as_ref().map_or(0, Pattern::stars);
    if stars > STARS_MAX {
        check.problem(&format!("{key}.name"), format!("{name:?} has {stars} `*`; {STARS_MAX} are enough"));
    }
    if name.contains("**") {
        check.problem(
            &format!("{key}.name"),
            format!("{name:?}: between two `*` there has to be something that tells them apart"),
        );
    }
    let at_once_key = format!("{key}.at_once");
    if let Some(at_once) = raw.at_once.filter(|at_once| !(1..=AT_ONCE_MAX).contains(at_once)) {
        check.problem(&at_once_key, format!("{at_once} is not between 1 and {AT_ONCE_MAX} names"));
    } else if raw.at_once.is_some() && stars == 0 {
        check.problem(&at_once_key, format!("{name:?} has no `*`, so there is but one name of it"));
    }
    let source = source?;
    let blanks = source.blanks();
    if stars > 0 && blanks.is_none() {
        let why = format!(
            "{name:?} has a `*` in it, which only sources of type \"pull\", \"exec\", \"file\", \"ffmpeg\" and \"camera\" can fill in"
        );
        check.problem(&format!("{key}.name"), why);
        return None;
    }
    if stars > 0 && source.is_folder() {
        check
            .problem(&format!("{key}.source.url"), "is a whole folder, whose names need no `*` in the publishing point's".into());
    }
    for (place, text) in blanks.unwrap_or_default() {
        // Single files and arguments have no place of their own.
        let place = format!("{key}.source.{place}");
        for blank in Place::all(&text).filter(|blank| !(1..=stars).contains(&blank.star)) {
            let shown = text.get(blank.begin..blank.end).unwrap_or_default();
            let why = match stars {
                0 => format!("{shown} stands for what a `*` in the name matches, and {name:?} has none"),
                _ => format!("{shown} stands for a `*` of that number, and {name:?} has {stars}"),
            };
            check.problem(&place, why);
        }
    }
    if stars > 0 {
        match source {
            Source::Pull { url, .. } | Source::Camera { url, .. } => server(check, &format!("{key}.source.url"), url),
            Source::Ffmpeg { input, .. } => ffmpeg_input(check, key, input),
            Source::Exec { argv, .. } => arguments(check, &format!("{key}.source.argv"), argv),
            _ => {}
        }
    }
    let at_once = raw.at_once.and_then(|at_once| usize::try_from(at_once).ok()).unwrap_or(AT_ONCE);
    pattern.map(|_| at_once)
}

/// Whether a text has places that are filled in.
pub(super) fn has_blank(text: &str) -> bool {
    Place::first(text).is_some()
}

/// Viewers do not choose the server.
pub(super) fn server(check: &mut Check<'_>, key: &str, url: &str) {
    let begin = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url.get(begin..).and_then(|rest| rest.find(['/', '?', '#'])).map_or(url.len(), |len| begin + len);
    if Place::all(url).any(|place| place.begin < end) {
        let why = "a {n} in front of the path would let viewers choose the server; a list of [[stations]] can name many";
        check.problem(key, why.into());
    }
}

/// Viewers do not choose the server, nor what ffmpeg makes of a name that is none of a file.
fn ffmpeg_input(check: &mut Check<'_>, key: &str, input: &FfmpegInput) {
    let FfmpegInput { input, arguments } = input;
    if scheme_of(input).is_some() {
        server(check, &format!("{key}.source.input"), input);
    } else if has_blank(input) && arguments.iter().any(|argument| argument == "-f") {
        let why = "with `-f` this may be no file, and viewers would say what it is";
        check.problem(&format!("{key}.source.input"), why.into());
    }
    if arguments.iter().any(|argument| has_blank(argument)) {
        check.problem(&format!("{key}.source.input_arguments"), "a {n} is filled in only in `input`".into());
    }
}

/// Viewers do not choose the program, and no shell reads their words as commands.
fn arguments(check: &mut Check<'_>, key: &str, argv: &[String]) {
    if argv.first().is_some_and(|program| has_blank(program)) {
        check.problem(&format!("{key}[0]"), "viewers would choose the program".into());
    }
    let name = |argument: &String| argument.rsplit('/').next().unwrap_or_default().to_owned();
    let reads_code = |argument: &String| INTERPRETERS.iter().any(|known| name(argument).starts_with(known));
    let is_shell = |argument: &String| SHELLS.contains(&name(argument).as_str()) || reads_code(argument);
    let shell = argv.iter().rposition(is_shell).unwrap_or(argv.len());
    let has_expressions = argv.get(shell).is_some_and(reads_code);
    let mut reads_commands = false;
    for (i, argument) in argv.iter().enumerate().skip(shell + 1) {
        let is_option = argument.starts_with('-');
        let is_short = is_option && !argument.starts_with("--");
        reads_commands |= is_short && (argument.contains('c') || has_expressions && argument.contains('e'));
        if reads_commands && has_blank(argument) {
            let why =
                "a shell would read what viewers name as commands; hand it over as an argument behind them and write \"$1\"";
            check.problem(&format!("{key}[{i}]"), why.into());
        }
        // What stands behind the commands is an argument of theirs.
        if !is_option {
            break;
        }
    }
    for (i, _) in
        argv.iter().enumerate().skip(1).filter(|(_, argument)| Place::first(argument).is_some_and(|place| place.begin == 0))
    {
        let why =
            "begins with what viewers name; write something in front of it, so that they do not choose what kind of thing it is";
        check.warning(&format!("{key}[{i}]"), why.into());
    }
}

#[cfg(test)]
mod tests;
