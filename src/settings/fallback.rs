//! What viewers get in place of a source that is gone: how it is written, and what it has to be.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::check::Check;
use super::raw::RawPoint;
use super::{PublishingPoint, Source};

/// How long a source may be silent before its fallback takes over, seconds: longer than an encoder's hiccup, shorter than what
/// players take for the end.
const AFTER_S: u32 = 5;
/// Beyond an hour nobody watches any more.
const AFTER_S_MAX: u32 = 3600;
/// More text than this is too small to read.
const SLATE_CHARS_MAX: usize = 200;

/// What stands in for a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// What viewers get.
    pub kind: FallbackKind,
    /// How long the source is silent before that, at least a second.
    pub after: Duration,
}

/// What viewers get in place of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FallbackKind {
    /// What another broadcast shows, by its name as the settings have it.
    Point(String),
    /// An ASF file, over and over.
    File(PathBuf),
    /// A still picture with this text, and silence.
    Slate(String),
}

/// As it is written: a string is the name of a publishing point, a table says what it names.
#[derive(Debug, Default, Serialize)]
pub(super) struct RawFallback {
    point: Option<String>,
    file: Option<PathBuf>,
    slate: Option<String>,
}

impl<'de> Deserialize<'de> for RawFallback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[derive(Default)]
        struct Table {
            point: Option<String>,
            file: Option<PathBuf>,
            slate: Option<String>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawFallback;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a publishing point, or a table such as { slate = \"Back soon\" }")
            }

            fn visit_str<E>(self, name: &str) -> Result<RawFallback, E> {
                Ok(RawFallback { point: Some(name.to_owned()), ..RawFallback::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawFallback, A::Error> {
                let Table { point, file, slate } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawFallback { point, file, slate })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The fallback of one publishing point, without what only all of them tell.
pub(super) fn fallback(check: &mut Check<'_>, key: &str, raw: &RawPoint, source: Option<&Source>) -> Option<Fallback> {
    let after_key = format!("{key}.fallback_after_s");
    let Some(written) = &raw.fallback else {
        if raw.fallback_after_s.is_some() {
            check.warning(&after_key, "has no effect without `fallback`".into());
        }
        return None;
    };
    let after_s = raw.fallback_after_s.unwrap_or(AFTER_S);
    if !(1..=AFTER_S_MAX).contains(&after_s) {
        check.problem(&after_key, format!("{after_s} is not from 1 to {AFTER_S_MAX}"));
    }
    let key = format!("{key}.fallback");
    if source.is_some_and(Source::is_folder) {
        check.problem(&key, "a folder has no source that something could stand in for; only a broadcast has".into());
    }
    let kind = match (&written.point, &written.file, &written.slate) {
        (Some(name), None, None) => FallbackKind::Point(name.clone()),
        (None, Some(path), None) if path.as_os_str().is_empty() => {
            check.problem(&format!("{key}.file"), "the path is empty".into());
            return None;
        }
        (None, Some(path), None) => FallbackKind::File(check.existing_file(&format!("{key}.file"), path)),
        (None, None, Some(text)) => {
            if text.trim().is_empty() || text.chars().count() > SLATE_CHARS_MAX {
                check.problem(&format!("{key}.slate"), format!("the text is to have 1 to {SLATE_CHARS_MAX} characters"));
            } else if text.chars().any(|c| c.is_control() && c != '\n') {
                check.problem(&format!("{key}.slate"), "holds a control character; only line breaks can be shown".into());
            }
            FallbackKind::Slate(text.clone())
        }
        _ => {
            let why = "is to be the name of a publishing point, or to have one of `point`, `file` and `slate`";
            check.problem(&key, why.into());
            return None;
        }
    };
    Some(Fallback { kind, after: Duration::from_secs(after_s.into()) })
}

/// Warns of a fallback that comes when viewers have been told the end already. `timeout`: after what silence that is.
pub(super) fn in_time(check: &mut Check<'_>, key: &str, raw: &RawPoint, fallback: Option<&Fallback>, timeout: Option<Duration>) {
    let (Some(fallback), Some(timeout)) = (fallback, timeout) else { return };
    if fallback.after >= timeout {
        let place = if raw.fallback_after_s.is_some() { "fallback_after_s" } else { "fallback" };
        let why = format!(
            "comes after {} s of silence, and the stream ends for its viewers after {} s (source_timeout_s); let that be more",
            fallback.after.as_secs(),
            timeout.as_secs()
        );
        check.warning(&format!("{key}.{place}"), why);
    }
}

/// Finds the publishing points that fallbacks name, in any case of letters, and puts the names in as they are there.
pub(super) fn connect(check: &mut Check<'_>, points: &mut [(usize, PublishingPoint)]) {
    let known: Vec<(String, bool)> =
        points.iter().map(|(_, point)| (point.name.clone(), point.source.is_folder() || point.is_lender())).collect();
    for (i, point) in &mut *points {
        let Some(Fallback { kind: FallbackKind::Point(name), .. }) = &mut point.fallback else { continue };
        let key = format!("publishing_point[{i}].fallback");
        match known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            None => check.problem(&key, format!("there is no publishing point {name:?}; a file is written {{ file = … }}")),
            Some((_, true)) => check.problem(&key, format!("{name:?} is a folder or a template; only a broadcast can stand in")),
            Some((known, false)) => name.clone_from(known),
        }
    }
    for (i, point) in &*points {
        // Each names one other at most, so a circle is found by going on for as many steps as there are.
        let next = |name: &str| {
            let (_, point) = points.iter().find(|(_, point)| point.name == name)?;
            match &point.fallback.as_ref()?.kind {
                FallbackKind::Point(next) => Some(next.clone()),
                _ => None,
            }
        };
        let mut at = next(&point.name);
        for _ in 0..points.len() {
            if at.as_ref() == Some(&point.name) {
                let why = format!("{:?} would stand in for itself, if only by way of others", point.name);
                check.problem(&format!("publishing_point[{i}].fallback"), why);
                break;
            }
            at = at.and_then(|name| next(&name));
        }
    }
}

impl fmt::Display for FallbackKind {
    /// As a settings file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, text) = match self {
            Self::Point(name) => ("point", name.clone()),
            Self::File(path) => ("file", path.to_string_lossy().into_owned()),
            Self::Slate(text) => ("slate", text.clone()),
        };
        write!(f, "{{ {key} = {} }}", toml::Value::from(text))
    }
}
