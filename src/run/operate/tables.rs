//! Answers of the daemon as people read them: columns, and sentences.

use std::fmt::Write as _;

use serde_json::Value;

/// How the daemon is.
pub(super) fn status(answer: &Value) -> String {
    let mut text = String::new();
    let number = |key: &str| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
    let _ = writeln!(text, "wmrelay {}, {}", word(answer, "version"), phase(answer));
    if let Some(state) = answer.get("drain").filter(|state| !state.is_null()) {
        text.push_str(&drain(state));
    }
    let _ = writeln!(text, "{} sessions, {} kbit/s", number("sessions"), number("bit_rate") / 1000);
    let _ = write!(text, "{} publishing points, {} of them live", number("points"), number("points_live"));
    let _ = match number("points_standing_in") {
        0 => writeln!(text),
        standing_in => writeln!(text, ", {standing_in} with a stand-in"),
    };
    let [leased, resting, held] = ["ports_leased", "ports_resting", "ports_held"].map(number);
    let _ = writeln!(text, "{leased} client ports leased, {resting} at rest, {held} held");
    for (what, addresses) in answer.get("listeners").and_then(Value::as_object).into_iter().flatten() {
        let addresses: Vec<_> = addresses.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !addresses.is_empty() {
            let _ = writeln!(text, "{what} on {}", addresses.join(", "));
        }
    }
    text
}

/// What the daemon does, and for how long: `serving for 2 h 3 min`.
pub(in crate::run) fn phase(answer: &Value) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 seconds")]
    let seconds = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).map(|seconds| span(seconds as f64));
    let runs = seconds(answer, "uptime_s").unwrap_or_default();
    let drains = answer.get("drain").and_then(|drain| seconds(drain, "lasts_s"));
    match (word(answer, "state").as_str(), drains) {
        ("serving", _) => format!("serving for {runs}"),
        ("draining", Some(drains)) => format!("draining for {drains}, runs for {runs}"),
        (state, _) => format!("{state}, runs for {runs}"),
    }
}

/// How a drain goes.
pub(in crate::run) fn drain(state: &Value) -> String {
    let is = |key: &str| state.get(key).and_then(Value::as_bool).unwrap_or_default();
    let away = match word(state, "redirect") {
        nowhere if nowhere.is_empty() => "refused".to_owned(),
        redirect => format!("sent to {redirect}"),
    };
    let then = if is("exit") { "then the daemon ends" } else { "then it goes on without viewers" };
    let finish = match state.get("left_s").and_then(Value::as_u64) {
        _ if is("over") => "nobody else watches, or their time is over".to_owned(),
        Some(left) => format!("those who watch have {left} s, {then}"),
        None => format!("those who watch finish, {then}"),
    };
    format!("draining: new viewers are {away}; {finish}\n")
}

/// Who watches.
pub(super) fn viewers(answer: &Value, bold: bool) -> String {
    let rows = rows_of(answer, |viewer| {
        vec![
            word(viewer, "session"),
            word(viewer, "peer"),
            format!("{}/{}", word(viewer, "protocol"), word(viewer, "transport")),
            word(viewer, "name"),
            viewer.get("plays").and_then(Value::as_bool).map_or("", |plays| if plays { "plays" } else { "idle" }).to_owned(),
            span(viewer.get("lasts_s").and_then(Value::as_f64).unwrap_or_default()),
            word(viewer, "packets"),
            word(viewer, "resends_granted"),
            word(viewer, "player").chars().take(40).collect(),
        ]
    });
    columns(&["SESSION", "FROM", "BY", "NAME", "", "FOR", "PACKETS", "RESENT", "PLAYER"], &rows, bold, "nobody watches\n")
}

/// Which client ports are taken.
pub(super) fn leases(answer: &Value, bold: bool) -> String {
    let rows = rows_of(answer, |lease| {
        vec![
            word(lease, "address"),
            word(lease, "port"),
            word(lease, "state"),
            span(lease.get("age_s").and_then(Value::as_f64).unwrap_or_default()),
            word(lease, "session"),
            word(lease, "packets"),
            word(lease, "resends"),
            word(lease, "user"),
        ]
    });
    let heads = ["ADDRESS", "PORT", "STATE", "FOR", "SESSION", "PACKETS", "RESENT", "TICKET OF"];
    columns(&heads, &rows, bold, "no client port is leased\n")
}

/// Where UDP is refused.
pub(super) fn learned(answer: &Value, bold: bool) -> String {
    let seconds = |entry: &Value, key: &str| span(entry.get(key).and_then(Value::as_f64).unwrap_or_default());
    let rows = rows_of(answer, |entry| {
        vec![
            word(entry, "prefix"),
            entry.get("port").and_then(Value::as_u64).map_or_else(|| "all".to_owned(), |port| port.to_string()),
            word(entry, "sign"),
            seconds(entry, "age_s"),
            seconds(entry, "expires_s"),
            word(entry, "refused"),
        ]
    });
    columns(&["ADDRESS", "PORT", "BY", "FOR", "TRIED AGAIN IN", "REFUSED"], &rows, bold, "UDP is refused to no address\n")
}

/// Where it is tried again.
pub(super) fn forgotten(answer: &Value) -> String {
    match word(answer, "forgotten").as_str() {
        "0" => "no address was remembered there: nothing is forgotten\n".to_owned(),
        "1" => "1 address is forgotten: UDP is tried again there\n".to_owned(),
        number => format!("{number} addresses are forgotten: UDP is tried again there\n"),
    }
}

/// How a source is: the API's word, as people write it.
pub(in crate::run) fn state(source: &Value) -> String {
    word(source, "state").replace('_', " ")
}

/// What feeds the publishing points: a line for each, one below it for each name of it that is open, and one that tells why it failed
/// the last time.
pub(super) fn sources(answer: &Value, bold: bool) -> String {
    let number = |source: &Value, key: &str| source.get(key).and_then(Value::as_u64);
    let row = |source: &Value, name: String| {
        let comes = number(source, "bit_rate").filter(|bits| *bits > 0);
        let rate = comes.map_or_else(String::new, |bits| format!("{} kbit/s", bits / 1000));
        let last = match number(source, "silent_s") {
            Some(seconds) => format!("{seconds} s"),
            None if word(source, "state") == "on_demand" => String::new(),
            None => "never".to_owned(),
        };
        vec![
            name,
            state(source),
            word(source, "watchers"),
            rate,
            word(source, "packets"),
            word(source, "left_out"),
            word(source, "restarts"),
            last,
            word(source, "source"),
        ]
    };
    let (mut rows, mut whys) = (Vec::new(), Vec::new());
    for source in answer.as_array().into_iter().flatten() {
        rows.push(row(source, word(source, "point")));
        let since = number(source, "on_fallback_s").filter(|_| word(source, "state") == "standing_in");
        let since = since.map(|since| format!("something stands in for it, for {}", span(since as f64)));
        whys.push(since.into_iter().chain(failure(source)).collect::<Vec<_>>());
        for name in source.get("names").and_then(Value::as_array).into_iter().flatten() {
            rows.push(row(name, format!("  {}", word(name, "name"))));
            whys.push(failure(name).into_iter().collect());
        }
    }
    let heads = ["POINT", "STATE", "WATCHERS", "RATE", "PACKETS", "LEFT OUT", "RESTARTS", "LAST PACKET", "SOURCE"];
    let table = columns(&heads, &rows, bold, "there is no publishing point\n");
    // Of the head there is none.
    let whys = std::iter::once(Vec::new()).chain(whys);
    table.lines().zip(whys).fold(String::new(), |mut text, (line, whys)| {
        let _ = writeln!(text, "{line}");
        for why in whys {
            let _ = writeln!(text, "    {why}");
        }
        text
    })
}

/// Why a source failed the last time, and when.
fn failure(source: &Value) -> Option<String> {
    let failure = source.get("last_failure").filter(|failure| !failure.is_null())?;
    let number = |key: &str| failure.get(key).and_then(Value::as_f64).unwrap_or_default();
    let (reason, ago) = (word(failure, "reason"), span(number("ago_s")));
    Some(match number("in_a_row") {
        0.0 => format!("last failure {ago} ago: {reason}"),
        1.0 => format!("failed {ago} ago: {reason}"),
        times => format!("failed {times} times in a row, the last {ago} ago: {reason}"),
    })
}

/// What a reload changed, or would change.
pub(super) fn reload(answer: &Value) -> String {
    let mut text = String::new();
    let is = |value: &Value, key: &str| value.get(key).and_then(Value::as_bool).unwrap_or_default();
    let words = |value: &Value, key: &str| {
        let words = value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        words.collect::<Vec<_>>().join(", ")
    };
    let would = is(answer, "dry_run");
    for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        let parts = [word(warning, "place"), word(warning, "key"), word(warning, "message")];
        let _ = writeln!(text, "warning: {}", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "));
    }
    let begin = text.len();
    for point in answer.get("points").and_then(Value::as_array).into_iter().flatten() {
        let (name, keys) = (word(point, "name"), words(point, "keys"));
        let _ = match (word(point, "change").as_str(), is(point, "source_restarts"), would) {
            ("added", _, false) => writeln!(text, "{name}: added"),
            ("added", _, true) => writeln!(text, "{name}: would be added"),
            ("removed", _, false) => writeln!(text, "{name}: removed; its viewers got the end of the stream"),
            ("removed", _, true) => writeln!(text, "{name}: would be removed; its viewers would get the end of the stream"),
            (_, true, false) => writeln!(text, "{name}: {keys} changed; its source begins anew, its viewers stay"),
            (_, true, true) => writeln!(text, "{name}: {keys} would change; its source would begin anew, its viewers would stay"),
            (_, false, false) => writeln!(text, "{name}: {keys} changed; its viewers notice nothing"),
            (_, false, true) => writeln!(text, "{name}: {keys} would change; its viewers would notice nothing"),
        };
    }
    let (applied, waiting) = (words(answer, "applied"), words(answer, "waiting_for_restart"));
    if !applied.is_empty() {
        let _ = writeln!(text, "{}: {applied}", if would { "would be applied" } else { "applied" });
    }
    if !waiting.is_empty() {
        let _ = writeln!(text, "{} for a restart: {waiting}", if would { "would wait" } else { "waiting" });
    }
    if text.len() == begin {
        text.push_str(if would { "nothing would change\n" } else { "nothing differs from what was in force\n" });
    }
    text
}

/// What happened to a session.
pub(super) fn story(answer: &Value) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "session {} of {} by {} over {}, {}",
        word(answer, "session"),
        word(answer, "peer"),
        word(answer, "protocol"),
        word(answer, "transport"),
        answer.get("end").and_then(Value::as_str).map_or("goes on".to_owned(), |end| format!("ended: {end}")),
    );
    for step in answer.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let after = step.get("after_s").and_then(Value::as_f64).unwrap_or_default();
        let _ = writeln!(text, "{after:>9.3} s  {}", word(step, "text"));
    }
    let counts = ["packets", "bytes", "skipped", "resends_asked", "resends_granted"];
    let counts: Vec<_> = counts.iter().map(|key| format!("{} {}", word(answer, key), key.replace('_', " "))).collect();
    let _ = writeln!(text, "{}", counts.join(", "));
    let report = word(answer, "report");
    if !report.is_empty() {
        let _ = writeln!(text, "the player says: {report}");
    }
    text
}

fn rows_of(answer: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    answer.as_array().into_iter().flatten().map(row).collect()
}

/// A value as one word; empty for what is not there. The daemon has escaped what others say; what escapes it all the same is
/// escaped here, since it goes to a terminal.
fn word(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => {
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
        }
        Some(other) => other.to_string(),
    }
}

/// `2 d 3 h`, `4 min`, `5.2 s`.
pub(in crate::run) fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of seconds, saturating")]
    let whole = seconds as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60) {
        (0, 0, 0) => format!("{seconds:.1} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Columns as wide as what is in them; the last one is not filled up.
fn columns(heads: &[&str], rows: &[Vec<String>], bold: bool, none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let width = |column: usize, head: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head.chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = heads.iter().enumerate().map(|(column, head)| width(column, head)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let head = line(&mut heads.iter().copied());
    let mut text = if bold { format!("\u{1b}[1m{head}\u{1b}[0m\n") } else { format!("{head}\n") };
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed() {
        let answer = json!([
            { "address": "192.0.2.7", "port": 1024, "state": "leased", "age_s": 61, "session": 7, "packets": 12, "resends": 0 },
            { "address": "192.0.2.7", "port": 1025, "state": "held", "age_s": 3, "session": null, "user": "anna", "packets": 0, "resends": 0 },
            { "address": "2001:db8::1", "port": 1025, "state": "resting", "age_s": 2, "session": null, "packets": 0, "resends": 0 },
        ]);
        let expected = "ADDRESS      PORT  STATE    FOR        SESSION  PACKETS  RESENT  TICKET OF\n\
                        192.0.2.7    1024  leased   1 min 1 s  7        12       0\n\
                        192.0.2.7    1025  held     3.0 s               0        0       anna\n\
                        2001:db8::1  1025  resting  2.0 s               0        0\n";
        assert_eq!(leases(&answer, false), expected);
        assert!(leases(&answer, true).starts_with("\u{1b}[1mADDRESS"));
        assert_eq!(leases(&json!([]), true), "no client port is leased\n");
    }

    #[test]
    fn a_story_is_told_in_order() {
        let answer = json!({
            "session": 7, "peer": "192.0.2.7:4000", "protocol": "mms", "transport": "tcp", "end": "the player left",
            "steps": [{ "after_s": 0.0012, "text": "it opens \"cam\"" }, { "after_s": 12.5, "text": "it is over\u{1b}[2J" }],
            "packets": 3, "bytes": 4200, "skipped": 0, "resends_asked": 0, "resends_granted": 0, "report": "",
        });
        let expected = "session 7 of 192.0.2.7:4000 by mms over tcp, ended: the player left\n    0.001 s  it opens \"cam\"\n   12.500 s  it is over\\u{1b}[2J\n3 packets, 4200 bytes, 0 skipped, 0 resends asked, 0 resends granted\n";
        assert_eq!(story(&answer), expected);
    }

    #[test]
    fn what_is_forgotten_is_counted_in_words() {
        let told = |count: u64| forgotten(&json!({ "forgotten": count }));
        assert_eq!(told(0), "no address was remembered there: nothing is forgotten\n");
        assert_eq!(told(1), "1 address is forgotten: UDP is tried again there\n");
        assert_eq!(told(2), "2 addresses are forgotten: UDP is tried again there\n");
    }

    #[test]
    fn a_drain_lasts_as_long_as_it_does() {
        let mut answer = json!({ "state": "serving", "uptime_s": 1133, "drain": null });
        assert_eq!(phase(&answer), "serving for 18 min 53 s");
        answer["state"] = "draining".into();
        answer["drain"] = json!({ "lasts_s": 3 });
        assert_eq!(phase(&answer), "draining for 3.0 s, runs for 18 min 53 s");
        answer["state"] = "stopping".into();
        assert_eq!(phase(&answer), "stopping, runs for 18 min 53 s");
    }

    #[test]
    fn sources_tell_how_they_are_and_why() {
        let source = |point: &str, state: &str, failure: Value, names: Value| {
            json!({
                "point": point, "state": state, "source": "{ }", "watchers": 1, "bit_rate": 0, "packets": 7, "left_out": 0, "restarts": 2,
                "silent_s": null, "on_fallback_s": if state == "standing_in" { json!(61) } else { Value::Null }, "last_failure": failure,
                "names": names,
            })
        };
        let refused = |in_a_row: u32| json!({ "reason": "no connection\u{1b}[2J", "ago_s": 3, "in_a_row": in_a_row });
        let name = json!([{
            "name": "cam-1", "state": "live", "watchers": 1, "bit_rate": 300_000, "packets": 7, "left_out": 0, "restarts": 0,
            "silent_s": 0, "last_failure": null,
        }]);
        let answer = json!([
            source("gate", "standing_in", refused(42), json!([])),
            source("cam-*", "opened_by_name", refused(0), name),
            source("files", "on_demand", Value::Null, json!([])),
        ]);
        let expected = "POINT    STATE           WATCHERS  RATE        PACKETS  LEFT OUT  RESTARTS  LAST PACKET  SOURCE\n\
                        gate     standing in     1                     7        0         2         never        { }\n    \
                        something stands in for it, for 1 min 1 s\n    \
                        failed 42 times in a row, the last 3.0 s ago: no connection\\u{1b}[2J\n\
                        cam-*    opened by name  1                     7        0         2         never        { }\n    \
                        last failure 3.0 s ago: no connection\\u{1b}[2J\n\x20 \
                        cam-1  live            1         300 kbit/s  7        0         0         0 s\n\
                        files    on demand       1                     7        0         2                      { }\n";
        assert_eq!(sources(&answer, false), expected);
        assert_eq!(sources(&json!([]), true), "there is no publishing point\n");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in
            [(0.25, "0.2 s"), (59.9, "59.9 s"), (61.0, "1 min 1 s"), (7300.0, "2 h 1 min"), (190_000.0, "2 d 4 h")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}
