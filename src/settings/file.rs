//! One settings file: strictly typed, every value with its file and line.

use std::path::Path;

use config::{Map, Value, ValueKind};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Problem, reworded};
use super::raw::Raw;

/// More than this in one file is not a settings file; the reader has enough to do by then.
const PROBLEMS_MAX: usize = 20;

/// Reads one file's text. The values' origins are `file:line`.
///
/// # Errors
/// Everything that is not TOML, not known, or not of its type: one problem a place, the first 20.
pub(super) fn read(path: &Path, text: &str) -> Result<Map<String, Value>, Vec<Problem>> {
    let lines = Lines { path: path.display().to_string(), text };
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let place = error.span().map_or_else(|| lines.path.clone(), |span| lines.place(span.start));
            return Err(vec![Problem { place, key: String::new(), message: error.message().to_owned() }]);
        }
    };
    let values = lines.table(table.get_ref());

    // serde stops at the first mistake: take that entry out and look again, so that all are told at once.
    let mut problems = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let Err(error) = Raw::deserialize(toml::Deserializer::from(table.clone())) else { break };
        let offset = error.span().map(|span| span.start);
        let key = offset.and_then(|offset| remove(table.get_mut(), offset)).unwrap_or_default();
        let place = offset.map_or_else(|| lines.path.clone(), |offset| lines.place(offset));
        let found = !key.is_empty();
        problems.push(Problem { place, key, message: reworded(error.message()) });
        if !found {
            break;
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

/// Removes the entry whose key or value begins at `offset`, or holds it, as deep inside as can be; its dotted key.
fn remove(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    let mut inside = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        if key.span().contains(&offset) {
            inside = Some((name, None));
            break;
        }
        if let Some(deeper) = remove_value(value, offset) {
            inside = Some((name, Some(deeper)));
            break;
        }
    }
    match inside? {
        (name, Some(deeper)) if !deeper.is_empty() => Some(join(&name, &deeper)),
        (name, _) => {
            table.remove(name.as_str());
            Some(name)
        }
    }
}

/// The key inside a value that was removed; empty: the value itself is the mistake. `None`: it is elsewhere.
fn remove_value(value: &mut Spanned<DeValue<'_>>, offset: usize) -> Option<String> {
    let holds = value.span().contains(&offset);
    match value.get_mut() {
        // The span of a table written as [head] is its head, so its entries are searched in any case.
        DeValue::Table(table) => remove(table, offset).or(holds.then(String::new)),
        DeValue::Array(array) => {
            let found = array.iter_mut().enumerate().find_map(|(i, item)| Some((i, remove_value(item, offset)?)));
            match found {
                Some((i, deeper)) if !deeper.is_empty() => Some(join(&format!("[{i}]"), &deeper)),
                _ => holds.then(String::new).or(found.map(|_| String::new())),
            }
        }
        _ => holds.then(String::new),
    }
}

/// `a` and `b` as `a.b`, `a` and `[0]` as `a[0]`.
fn join(outer: &str, inner: &str) -> String {
    if inner.starts_with('[') { format!("{outer}{inner}") } else { format!("{outer}.{inner}") }
}

/// Says in which line of which file an offset is.
struct Lines<'a> {
    path: String,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        format!("{}:{line}", self.path)
    }

    fn table(&self, table: &DeTable<'_>) -> Map<String, Value> {
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = key.get_ref();
            (name.to_string(), self.value(key.span().start, value.get_ref()))
        };
        table.iter().map(entry).collect()
    }

    fn value(&self, offset: usize, value: &DeValue<'_>) -> Value {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Integer(number) => integer(number),
            DeValue::Float(number) => number.as_str().parse().map_or(ValueKind::Nil, ValueKind::Float),
            DeValue::Boolean(yes) => ValueKind::Boolean(*yes),
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(items) => {
                ValueKind::Array(items.iter().map(|item| self.value(item.span().start, item.get_ref())).collect())
            }
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&self.place(offset)), kind)
    }
}

/// A number beyond 64 bits has failed the strict reading already; it never comes to use.
fn integer(number: &DeInteger<'_>) -> ValueKind {
    i64::from_str_radix(number.as_str(), number.radix()).map_or(ValueKind::Nil, ValueKind::I64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let problems = read(Path::new("w.toml"), text).unwrap_err();
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_mistake_of_a_file_is_told_with_its_line() {
        let text = "shards = 'many'\n\n[mms]\nlisen = 'x'\nlisten = ['*:1']\n[udp]\nmax_datagram = -1\noversize = 'fragments'\n\
                    [[publishing_point]]\nname = 'a'\nsource = { type = 'push', argw = [] }\n[[publishing_point]]\nname = 7\n[colours]\nred = 1\n";
        let mut found = problems(text);
        found.sort();
        assert_eq!(
            found,
            [
                "w.toml:11: publishing_point[0].source.argw: unknown key `argw`; did you mean `argv`?",
                "w.toml:13: publishing_point[1].name: invalid type: integer `7`, expected a string",
                "w.toml:14: colours: unknown key `colours`; known here: `shards`, `source_timeout_s`, `mms`, `http`, `rtsp`, `admin`, \
                 `control`, `console`, `drain`, `udp`, `delivery`, `on_demand`, `limits`, `window`, `publish`, `access`, `users`, `signing`, `log`, `access_log`, \
                 `transcode`, `profile`, `player_profile`, `publishing_point`, `stations`, `hooks`",
                "w.toml:1: shards: invalid type: string \"many\", expected a whole number from 0 to 4294967295",
                "w.toml:4: mms.lisen: unknown key `lisen`; did you mean `listen`?",
                "w.toml:7: udp.max_datagram: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
                "w.toml:8: udp.oversize: unknown value \"fragments\"; did you mean \"fragment\"?",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let found = problems("[mms]\nlisten = [\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("w.toml:"), "{found:?}");
        assert!(problems("a = 1\na = 2\n")[0].starts_with("w.toml:2: "));
    }

    #[test]
    fn wrong_shapes_are_told() {
        assert!(problems("mms = 5")[0].starts_with("w.toml:1: mms: "));
        assert!(problems("publishing_point = 5")[0].starts_with("w.toml:1: publishing_point: "));
        assert!(problems("[[publishing_point]]\nsource = 'push'")[0].contains("expected a table such as { type"));
        assert!(problems("\n[mms]\nlisten = [true]")[0].starts_with("w.toml:3: mms.listen: "));
        assert!(problems("shards = 99999999999999999999999999999999999999999999")[0].starts_with("w.toml:1: shards: "));
    }

    #[test]
    fn values_know_their_line() {
        let values = read(Path::new("w.toml"), "\n[mms]\nlisten = [\n 'a',\n 'b']\n").unwrap();
        let mms = values["mms"].clone().into_table().unwrap();
        assert_eq!(mms["listen"].origin(), Some("w.toml:3"));
        let items = mms["listen"].clone().into_array().unwrap();
        assert_eq!(items[1].origin(), Some("w.toml:5"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_told(text in r#"([a-z_\[\]{}=."', \n0-9]|mms|listen|publishing_point|source){0,40}"#) {
            if let Err(problems) = read(Path::new("w.toml"), &text) {
                proptest::prop_assert!(!problems.is_empty());
            }
        }
    }
}
