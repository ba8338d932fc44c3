//! The layers of the crate, checked in its source: imports point down only, the protocol layers know neither
//! runtime nor socket nor clock, and `unsafe` stays where the system calls are.
//!
//! The check reads text, not meaning: comments, strings and character literals are blanked first, then every
//! `crate::…` path counts as an import, wherever it stands.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A module at the crate's root, and those below it that it may use.
struct Layer {
    name: &'static str,
    below: &'static [&'static str],
    /// No runtime, no socket, no clock, no file: `now` and bytes are arguments.
    sans_io: bool,
}

/// `wire` is under everything, `settings` and `metrics` are leaves beside everything: [`EVERYWHERE`].
const LAYERS: &[Layer] = &[
    Layer { name: "wire", below: &[], sans_io: true },
    Layer { name: "settings", below: &[], sans_io: false },
    Layer { name: "metrics", below: &[], sans_io: false },
    Layer { name: "asf", below: &[], sans_io: true },
    Layer { name: "access_log", below: &[], sans_io: false },
    Layer { name: "text", below: &["asf"], sans_io: true },
    Layer { name: "viewing", below: &["asf"], sans_io: true },
    Layer { name: "playing", below: &["asf"], sans_io: true },
    Layer { name: "mms", below: &["asf", "text", "viewing", "playing"], sans_io: true },
    Layer { name: "rtsp", below: &["asf", "text", "viewing", "playing"], sans_io: true },
    Layer { name: "http", below: &["asf", "text", "viewing", "playing", "rtsp"], sans_io: true },
    Layer { name: "relay", below: &["asf"], sans_io: true },
    Layer { name: "firewall", below: &[], sans_io: true },
    Layer { name: "archive", below: &["asf"], sans_io: false },
    Layer { name: "hooks", below: &["asf", "relay"], sans_io: false },
    Layer {
        name: "shard",
        below: &["asf", "access_log", "archive", "text", "mms", "viewing", "playing", "http", "rtsp", "relay"],
        sans_io: false,
    },
    Layer { name: "client", below: &["asf", "text", "viewing", "playing", "mms", "http", "rtsp"], sans_io: false },
    Layer {
        name: "ingest",
        below: &["asf", "text", "mms", "viewing", "playing", "http", "rtsp", "relay", "shard", "client"],
        sans_io: false,
    },
    Layer { name: "control", below: &["asf", "text", "mms", "viewing", "http", "rtsp", "relay", "shard"], sans_io: false },
    // Pages, made of what the control plane knows; pictures by a child of ffmpeg.
    Layer { name: "console", below: &["asf", "text", "firewall", "relay", "shard", "ingest", "control"], sans_io: false },
    Layer {
        name: "run",
        below: &[
            "args",
            "logging",
            "access_log",
            "asf",
            "archive",
            "firewall",
            "hooks",
            "text",
            "mms",
            "viewing",
            "playing",
            "http",
            "rtsp",
            "relay",
            "shard",
            "ingest",
            "client",
            "control",
            "console",
        ],
        sans_io: false,
    },
    Layer { name: "args", below: &[], sans_io: false },
    Layer { name: "logging", below: &[], sans_io: false },
];

/// What every layer may use; these use only `wire`.
const EVERYWHERE: &[&str] = &["wire", "settings", "metrics"];

/// Words that a sans-IO layer has no business with.
const IO_WORDS: &[&str] = &[
    "tokio",
    "socket2",
    "quinn_udp",
    "libc",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::process",
    "std::thread",
];

/// Past this many lines a file probably holds a second idea. A hint, no failure.
const LONG_FILE_LINES: usize = 650;

#[test]
fn imports_point_down() {
    let mut faults = String::new();
    let sources = sources();
    assert!(sources.len() > 10, "found only {} source files", sources.len());
    let test_files = test_files(&sources);
    for (path, text) in &sources {
        let Some(layer) = layer_of(path) else { continue };
        // A file of tests is judged as the inline test module that it would be in a short file.
        let text = &if test_files.contains(path) { format!("#[cfg(test)] mod tests {{{text}\n}}") } else { text.clone() };
        for fault in faults_of(&layer, text) {
            writeln!(faults, "{}: {fault}", path.display()).unwrap();
        }
        let lines = text.lines().count();
        if lines > LONG_FILE_LINES {
            eprintln!("{}: {lines} lines: is there a second idea in it?", path.display());
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_module_has_a_layer() {
    for (path, _) in sources() {
        if let Some(name) = layer_of(&path) {
            assert!(
                LAYERS.iter().any(|layer| layer.name == name),
                "src/{name} has no layer: put it into the table of tests/layers.rs"
            );
        }
    }
}

#[test]
fn the_check_sees_what_it_should() {
    let faults = |layer: &str, text: &str| faults_of(layer, text).len();
    assert_eq!(faults("mms", "use crate::wire::Cursor; use crate::asf::{self, Header};"), 0);
    assert_eq!(faults("mms", "use crate::relay::Point;"), 1);
    assert_eq!(faults("mms", "use crate::{asf, relay::Point, wire::{Guid, Cursor}};"), 1);
    assert_eq!(faults("mms", "fn f() { crate :: http :: publish :: go() }"), 1);
    assert_eq!(faults("relay", "use super::super::mms::Session;"), 1);
    assert_eq!(faults("shard", "use crate::mms::session::Session;"), 0);
    assert_eq!(faults("wire", "use crate::asf::Header;"), 1);
    assert_eq!(faults("settings", "use crate::relay::Relay;"), 1);
    assert_eq!(faults("asf", "use tokio::time::Instant;"), 1);
    assert_eq!(faults("asf", "let t = Instant::now();"), 1);
    assert_eq!(faults("asf", "use std::net::{IpAddr, UdpSocket};"), 1);
    assert_eq!(faults("asf", "unsafe { f() }"), 1);
    assert_eq!(faults("shard", "unsafe { f() }"), 0);
    assert_eq!(faults("ingest", "let t = Instant::now();"), 0);
    // Not code, or not the word.
    assert_eq!(faults("asf", "// tokio, crate::relay\n/* unsafe /* crate::mms */ */ let s = \"crate::mms tokio\";"), 0);
    assert_eq!(faults("asf", "let s = r#\"unsafe \" crate::mms\"#; let c = '\"'; let l: &'static str = tail; // tokio"), 0);
    assert_eq!(faults("asf", "#![deny(unsafe_code)] let tokio_like = 1;"), 0);
    // A test module may read the clock, it may not reach up.
    assert_eq!(faults("asf", "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }"), 0);
    assert_eq!(faults("asf", "#[cfg(test)]\nmod tests { use crate::relay::Relay; }"), 1);
    assert_eq!(faults("asf", "#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\nfn g() { Instant::now(); }"), 1);
    assert_eq!(faults("asf", "#[cfg(test)]\nmod tests;\nfn g() { Instant::now(); }"), 1);
    let parent = (source_root().join("asf/mod.rs"), "mod a;\n#[cfg(test)]\nmod golden;\nfn f() {}".to_owned());
    assert!(test_files(&[parent]).contains(&source_root().join("asf/golden.rs")));
}

fn faults_of(layer: &str, text: &str) -> Vec<String> {
    let Some(rules) = LAYERS.iter().find(|known| known.name == layer) else { return vec![format!("unknown layer {layer}")] };
    let code = code_only(text);
    let mut faults = Vec::new();
    for import in imports(&code) {
        let known = LAYERS.iter().any(|layer| layer.name == import);
        let leaf = EVERYWHERE.contains(&layer);
        let allowed = import == layer
            || rules.below.contains(&import.as_str())
            || (EVERYWHERE.contains(&import.as_str()) && (!leaf || import == "wire"));
        if known && !allowed {
            faults.push(format!("{layer} may not use {import}"));
        }
    }
    if layer != "shard" && has_word(&code, "unsafe") {
        faults.push("unsafe outside of src/shard".into());
    }
    if rules.sans_io {
        let shipped = without_test_modules(&code);
        faults.extend(
            IO_WORDS.iter().filter(|word| has_word(&shipped, word)).map(|word| format!("{layer} is sans-IO and says {word}")),
        );
    }
    faults
}

/// The files of modules that are declared behind `#[cfg(test)]`.
fn test_files(sources: &[(PathBuf, String)]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (path, text) in sources {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let root = ["mod", "lib", "main"].contains(&stem);
        let folder = if root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        let code = code_only(text);
        for item in code.split("#[cfg(test)]").skip(1) {
            let declaration = item.split(['{', ';']).next().unwrap();
            if let (Some(name), true) = (declaration.split("mod ").nth(1), item[declaration.len()..].starts_with(';')) {
                files.push(folder.join(name.trim()).with_extension("rs"));
                files.push(folder.join(name.trim()).join("mod.rs"));
            }
        }
    }
    files
}

/// The layer that a file belongs to; `None` for the crate's root files.
fn layer_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(source_root()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let name = first.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then(|| name.to_owned())
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![source_root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// First names of all `crate::` paths, and of `super::super::` paths (a file's grandparent is the root, or a name
/// that no layer has).
fn imports(code: &str) -> Vec<String> {
    let squeezed = squeeze_paths(code);
    let mut found = Vec::new();
    for prefix in ["crate::", "super::super::"] {
        for (at, _) in squeezed.match_indices(prefix) {
            if squeezed[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let rest = &squeezed[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(first_names(list)),
                None => found.push(identifier(rest)),
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// Takes out the blanks round `::` and behind `{`, `,`.
fn squeeze_paths(code: &str) -> String {
    let mut squeezed = String::with_capacity(code.len());
    for word in code.split_whitespace() {
        let glue = squeezed.ends_with("::") || squeezed.ends_with(['{', ',']) || word.starts_with("::");
        if !glue {
            squeezed.push(' ');
        }
        squeezed.push_str(word);
    }
    squeezed
}

/// The first name of each entry of a `{a::b, c::{d, e}}` list, given from behind its brace.
fn first_names(list: &str) -> Vec<String> {
    let mut names = vec![identifier(list)];
    let mut depth = 1;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(identifier(&list[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    code.match_indices(word).any(|(at, _)| !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next()))
}

/// Cuts each item behind a `#[cfg(test)]`, to its `;` or closing brace, out of code whose strings and comments are
/// blanked.
fn without_test_modules(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let Some(open) = item.find(['{', ';']) else { break };
        let mut depth = 0;
        let end = item[open..].char_indices().find_map(|(offset, character)| {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(open + offset + 1)
        });
        rest = &item[end.unwrap_or(item.len())..];
    }
    kept.push_str(rest);
    kept
}

/// The text with comments, strings and character literals blanked.
fn code_only(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut index = 0;
    while index < characters.len() {
        let begin = index;
        match (at(index), at(index + 1)) {
            ('/', '/') => {
                while index < characters.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(index), at(index + 1)) {
                        ('/', '*') => (depth, index) = (depth + 1, index + 2),
                        ('*', '/') => (depth, index) = (depth - 1, index + 2),
                        _ => index += 1,
                    }
                    if depth == 0 || index >= characters.len() {
                        break;
                    }
                }
            }
            ('r', '"' | '#')
                if !code.ends_with(|before: char| before.is_alphanumeric() || before == '_') || code.ends_with('b') =>
            {
                let hashes = (index + 1..).take_while(|hash| at(*hash) == '#').count();
                if at(index + 1 + hashes) == '"' {
                    index += hashes + 2;
                    while index < characters.len() && !(at(index) == '"' && (1..=hashes).all(|hash| at(index + hash) == '#')) {
                        index += 1;
                    }
                    index += hashes + 1;
                } else {
                    index += 1; // r#identifier
                    code.push('r');
                    continue;
                }
            }
            ('"', _) => {
                index += 1;
                while index < characters.len() && at(index) != '"' {
                    index += if at(index) == '\\' { 2 } else { 1 };
                }
                index += 1;
            }
            // 'x' and '\n' are literals, 'static is a lifetime.
            ('\'', '\\') => {
                index += 3;
                while index < characters.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            ('\'', _) if at(index + 2) == '\'' => index += 3,
            (character, _) => {
                code.push(character);
                index += 1;
                continue;
            }
        }
        let blanked = characters.get(begin..index.min(characters.len())).unwrap_or_default();
        code.extend(blanked.iter().map(|character| if *character == '\n' { '\n' } else { ' ' }));
    }
    code
}
