//! What is wrong with the settings, said so that a person finds the place and knows what to write instead.

use std::fmt;

/// One thing that is wrong, or that probably was not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: `wmrelay.toml:12`, an environment variable, a flag; empty for what was not written at all.
    pub place: String,
    /// The key, with its tables: `udp.client_ports`.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.key] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// The settings cannot be used; all that was found, at least one.
#[derive(Debug, thiserror::Error)]
pub struct SettingsError {
    /// In the order of the layers.
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Turns serde's sentence on an unknown field or variant into ours, with the nearest known name.
///
/// serde hands the known names over only inside that sentence, in backquotes, the unknown one first;
/// any other sentence keeps its form.
pub(super) fn reworded(message: &str) -> String {
    let (what, rest) = if let Some(rest) = message.strip_prefix("unknown field ") {
        ("key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant ") {
        ("value", rest)
    } else {
        return plain(message);
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next() else { return message.to_owned() };
    let known: Vec<&str> = quoted.collect();
    let quote = if what == "key" { '`' } else { '"' };
    match nearest(unknown, &known) {
        Some(near) => format!("unknown {what} {quote}{unknown}{quote}; did you mean {quote}{near}{quote}?"),
        None => {
            let all: Vec<String> = known.iter().map(|name| format!("{quote}{name}{quote}")).collect();
            format!("unknown {what} {quote}{unknown}{quote}; known here: {}", all.join(", "))
        }
    }
}

/// Names Rust's types in words that are not Rust's.
fn plain(message: &str) -> String {
    const U32: &str = "expected a whole number from 0 to 4294967295";
    const U64: &str = "expected a whole number from 0 on";
    const WORDS: [(&str, &str); 8] = [
        ("expected u32", U32),
        ("expected an unsigned 32 bit integer", U32),
        ("expected u64", U64),
        ("expected an unsigned u64 bit integer", U64),
        ("expected an integer", U64),
        ("expected a boolean", "expected true or false"),
        ("expected path string", "expected a path in quotes"),
        ("expected a sequence", "expected a list in brackets, such as [\"one\", \"two\"]"),
    ];
    let found = WORDS.iter().find_map(|(rust, words)| Some((message.strip_suffix(rust)?, words)));
    found.map_or_else(|| message.to_owned(), |(head, words)| format!("{head}{words}"))
}

/// The known name that a typing error could have turned into `unknown`.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let unknown = unknown.to_ascii_lowercase();
    let alike = |name: &str| {
        let same_start = name.starts_with(&unknown) || unknown.starts_with(name);
        strsim::jaro_winkler(name, &unknown) + if same_start { 0.1 } else { 0.0 }
    };
    known
        .iter()
        .copied()
        .map(|name| (alike(name), name))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its field names matter")]
    struct Two {
        listen: Option<u32>,
        seconds: Option<u32>,
        argv: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Push,
        File,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its type matters")]
    struct HasKind {
        kind: Kind,
    }

    #[test]
    fn the_nearest_known_name_is_told() {
        let of = |text: &str| reworded(toml::from_str::<Two>(text).unwrap_err().message());
        assert_eq!(of("lisen = 1"), "unknown key `lisen`; did you mean `listen`?");
        assert_eq!(of("Listen = 1"), "unknown key `Listen`; did you mean `listen`?");
        assert_eq!(of("second = 1"), "unknown key `second`; did you mean `seconds`?");
        assert_eq!(of("colour = 1"), "unknown key `colour`; known here: `listen`, `seconds`, `argv`");
        let list = r#"invalid type: string "echo hi", expected a list in brackets, such as ["one", "two"]"#;
        assert_eq!(of("argv = 'echo hi'"), list);
        assert_eq!(of("listen = 'x'"), r#"invalid type: string "x", expected a whole number from 0 to 4294967295"#);
        let of = |text: &str| reworded(toml::from_str::<HasKind>(text).unwrap_err().message());
        assert_eq!(of("kind = 'pushed'"), r#"unknown value "pushed"; did you mean "push"?"#);
        assert_eq!(of("kind = 'radio'"), r#"unknown value "radio"; known here: "push", "file""#);
    }

    #[test]
    fn a_problem_is_one_line() {
        let mut problem = Problem { place: "a.toml:3".into(), key: "udp.enabled".into(), message: "no".into() };
        assert_eq!(problem.to_string(), "a.toml:3: udp.enabled: no");
        problem.place.clear();
        assert_eq!(problem.to_string(), "udp.enabled: no");
    }
}
