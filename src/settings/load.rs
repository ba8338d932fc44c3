//! From files, environment and flags to one checked [`Settings`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Map, Value, ValueKind};

use super::problem::{Problem, SettingsError, reworded};
use super::raw::Raw;
use super::{Settings, check, file};

/// Environment variables that begin with this are settings; two underlines separate the levels.
// One underline would also catch the WMRELAY_PORT and the like that container platforms set by themselves.
const PREFIX: &str = "WMRELAY__";

/// Where settings come from, the weakest first; the built-in ones lie below all.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The settings file; `conf.d/*.toml` beside it follow in the order of their names.
    pub file: Option<PathBuf>,
    /// The environment; variables that do not begin with `WMRELAY__` are passed over.
    pub env: Vec<(OsString, OsString)>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// A file, this process's environment, and flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        Self { file, env: std::env::vars_os().collect(), flags }
    }
}

/// A setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As it was typed, for messages: `--mms-listen`.
    pub name: &'static str,
    /// Its key: `mms.listen`.
    pub key: &'static str,
    /// The value; items of a list are separated by commas.
    pub value: String,
}

/// What [`load`] made of all layers.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The checked settings.
    pub settings: Settings,
    /// What works but was probably not meant.
    pub warnings: Vec<Problem>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// Where each setting that is not built in was written, by its dotted key (`udp.enabled`, `publishing_point[0].name`).
    pub places: BTreeMap<String, String>,
}

/// Reads all layers and checks what they amount to.
///
/// # Errors
/// Everything wrong in any of the files, variables and flags; if these are sound by themselves, everything wrong in the sum.
pub fn load(sources: &Sources) -> Result<Loaded, SettingsError> {
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    let files = files(sources.file.as_deref(), &mut problems);
    for path in &files {
        let read = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot be read: {error}");
            vec![Problem { place: path.display().to_string(), key: String::new(), message }]
        });
        match read.and_then(|text| file::read(path, &text)) {
            Ok(layer) => layers.push(layer),
            Err(found) => problems.extend(found),
        }
    }
    for (key, what) in [(POINTS, "publishing point"), ("profile", "profile")] {
        let merged = named(&mut layers, &mut problems, key, what);
        layers.push(Map::from_iter([(key.to_owned(), Value::new(None, ValueKind::Array(merged)))]));
    }

    let mut variables: Vec<_> =
        sources.env.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())).collect();
    variables.sort();
    for (name, value) in variables {
        let place = format!("environment variable {}", name.display());
        let single = match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => {
                let key = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase().replace("__", ".");
                single(place, &key, value)
            }
            _ => Err(Problem { place, key: String::new(), message: "is not UTF-8".into() }),
        };
        single.map(|layer| layers.push(layer)).unwrap_or_else(|problem| problems.push(problem));
    }
    for Flag { name, key, value } in &sources.flags {
        single((*name).to_owned(), key, value).map(|layer| layers.push(layer)).unwrap_or_else(|problem| problems.push(problem));
    }
    if !problems.is_empty() {
        return Err(SettingsError { problems });
    }

    let (raw, places) = merge(layers).map_err(|error| SettingsError { problems: vec![unplaced(&error)] })?;
    let (settings, warnings) = check::settings(&raw, &base(sources.file.as_deref()), &places)?;
    Ok(Loaded { settings, warnings, files, places })
}

/// The folder that relative paths start from, absolute: messages then name files that can be found.
fn base(file: Option<&Path>) -> PathBuf {
    let folder = file.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// The file and what lies in `conf.d` beside it.
fn files(file: Option<&Path>, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let Some(file) = file else { return Vec::new() };
    let mut files = vec![file.to_owned()];
    let folder = file.with_file_name("conf.d");
    let mut failed = |error: std::io::Error| {
        let message = format!("cannot be read: {error}");
        problems.push(Problem { place: folder.display().to_string(), key: String::new(), message });
    };
    match folder.read_dir() {
        Ok(entries) => {
            let mut found = Vec::new();
            for entry in entries {
                match entry {
                    Ok(entry) => found.push(entry.path()),
                    Err(error) => failed(error),
                }
            }
            // Editors and package managers leave .10-a.toml.swp and 10-a.toml.bak behind; these are not meant.
            let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            found.retain(|path| path.extension().is_some_and(|end| end == "toml") && !hidden(path) && path.is_file());
            found.sort();
            files.append(&mut found);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => failed(error),
    }
    files
}

const POINTS: &str = "publishing_point";

/// Takes a list of tables with names (publishing points, profiles) out of the layers and merges them by name: the same name in a
/// later file replaces the earlier one, at its place; twice in one file is a mistake. (`config` would replace the whole list.)
fn named(layers: &mut [Map<String, Value>], problems: &mut Vec<Problem>, key: &str, what: &str) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for layer in layers {
        let Some(ValueKind::Array(points)) = layer.remove(key).map(|list| list.kind) else { continue };
        let mut here: BTreeMap<String, String> = BTreeMap::new();
        for point in points {
            let Some(name) = name_of(&point) else {
                merged.push(point); // the check says that it lacks a name
                continue;
            };
            let place = point.origin().unwrap_or_default().to_owned();
            if let Some(first) = here.insert(name.clone(), place.clone()) {
                let message = format!("the {what} \"{name}\" was already defined at {first}; names are unique in a file");
                problems.push(Problem { place, key: format!("{key}.name"), message });
            }
            match merged.iter_mut().find(|earlier| name_of(earlier).as_ref() == Some(&name)) {
                Some(earlier) => *earlier = point,
                None => merged.push(point),
            }
        }
    }
    merged
}

fn name_of(point: &Value) -> Option<String> {
    let ValueKind::Table(table) = &point.kind else { return None };
    match &table.get("name")?.kind {
        ValueKind::String(name) => Some(name.clone()),
        _ => None,
    }
}

/// A layer of one value, read by itself first, so that what is wrong with it is told with its own name.
fn single(place: String, key: &str, value: &str) -> Result<Map<String, Value>, Problem> {
    if key.split('.').next() == Some(POINTS) {
        let message = "publishing points are set in files: in the settings file or in conf.d beside it".into();
        return Err(Problem { place, key: String::new(), message });
    }
    let value = Value::new(Some(&place), value);
    let nested =
        key.rsplit('.').fold(value, |value, level| Value::new(Some(&place), Map::from_iter([(level.to_owned(), value)])));
    let ValueKind::Table(layer) = nested.kind else { return Ok(Map::new()) };
    let read = Value::new(Some(&place), layer.clone()).try_deserialize::<Raw>();
    match read {
        Ok(_) => Ok(layer),
        Err(error) => Err(Problem { place, key: key.to_owned(), ..unplaced(&error) }),
    }
}

/// What a `config` error says, without its own account of key and origin.
fn unplaced(error: &ConfigError) -> Problem {
    let message = match error {
        ConfigError::At { error, .. } => return unplaced(error),
        ConfigError::Type { unexpected, expected, .. } => format!("invalid type: {unexpected}, expected {expected}"),
        other => other.to_string(),
    };
    Problem { place: String::new(), key: String::new(), message: reworded(&message) }
}

/// One layer as `config` wants to be handed it.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// Lays the layers over one another; also tells where each value of the result came from.
fn merge(layers: Vec<Map<String, Value>>) -> Result<(Raw, BTreeMap<String, String>), ConfigError> {
    let builder = layers.into_iter().fold(Config::builder(), |builder, layer| builder.add_source(Layer(layer)));
    let merged = builder.build()?;
    let mut places = BTreeMap::new();
    note_places(String::new(), &merged.cache, &mut places);
    Ok((merged.try_deserialize()?, places))
}

fn note_places(key: String, value: &Value, places: &mut BTreeMap<String, String>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                note_places(key, value, places);
            }
        }
        ValueKind::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                note_places(format!("{key}[{i}]"), item, places);
            }
        }
        _ => {}
    }
    if let Some(origin) = value.origin() {
        places.insert(key, origin.to_owned());
    }
}

#[cfg(test)]
mod tests;
