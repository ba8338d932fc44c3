//! The table as text: of a size, from what there is to show, and nothing else.

use serde_json::Value;

use super::sample::{Order, Row, Sample, text};
use crate::run::operate::tables;

/// Sources that are shown where there is little room; the others are counted.
const SOURCES_SHOWN: usize = 8;
/// Lines of the screen that sessions have at least.
const SESSIONS_LEAST: usize = 5;

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// Where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Lines and columns; `None`: as many as there are to show.
    pub(super) size: Option<(usize, usize)>,
    /// The first session shown, counted from 0.
    pub(super) first: usize,
    pub(super) order: Order,
    pub(super) colours: bool,
}

/// One line: its text, and how it looks.
struct Line(&'static str, String);

/// The lines of the page, each without its end.
pub(super) fn page(sample: &Sample, rows: &[Row], page: Page) -> Vec<String> {
    let mut lines = head(sample, rows);
    let room = page.size.map(|(height, _)| height);
    lines.extend(sources(sample, room.map(|room| room.saturating_sub(lines.len() + SESSIONS_LEAST + 4).min(SOURCES_SHOWN))));
    lines.push(Line("", String::new()));
    let mut table = sessions(rows);
    lines.push(table.remove(0));
    // The last line is for the keys.
    let room = room.map_or(usize::MAX, |room| room.saturating_sub(lines.len() + 1));
    lines.extend(table.into_iter().skip(page.first).take(room));
    if page.size.is_some() {
        let shown = (page.first + 1).min(rows.len())..=page.first.saturating_add(room).min(rows.len());
        let keys = format!(
            "q quit   up, down: sessions {} to {} of {}   s: sorted by {}",
            shown.start(),
            shown.end(),
            rows.len(),
            page.order.name()
        );
        lines.push(Line(DIM, keys));
    }
    let width = page.size.map_or(usize::MAX, |(_, width)| width);
    lines.into_iter().map(|line| line.shown(width, page.colours)).collect()
}

/// The last first session that leaves no line empty.
pub(super) fn last_first(sample: &Sample, rows: &[Row], size: (usize, usize)) -> usize {
    let here = Page { size: Some(size), first: 0, order: Order::default(), colours: false };
    // Without sessions all lines but theirs are there.
    let others = page(sample, &[], here).len();
    rows.len().saturating_sub(size.0.saturating_sub(others))
}

impl Line {
    fn shown(self, width: usize, colours: bool) -> String {
        let Self(look, text) = self;
        let text: String = text.chars().take(width).collect();
        let text = text.trim_end();
        if colours && !look.is_empty() { format!("{look}{text}{PLAIN}") } else { text.to_owned() }
    }
}

fn head(sample: &Sample, rows: &[Row]) -> Vec<Line> {
    let status = &sample.status;
    let number = |key: &str| status.get(key).and_then(Value::as_u64).unwrap_or_default();
    let look = if text(status, "state") == "serving" { BOLD } else { YELLOW };
    let playing = rows.iter().filter(|row| row.plays).count();
    let (bits, packets) =
        rows.iter().fold((0_u64, 0_u64), |(bits, packets), row| (bits + row.bit_rate, packets + row.packets_per_s));
    let mut lines = vec![
        Line(look, format!("wmrelay {}, {}", text(status, "version"), tables::phase(status))),
        Line(
            "",
            format!(
                "{} sessions, {playing} play: {} and {packets} packets/s; {} of {} publishing points live; {} client ports leased",
                rows.len(),
                rate(bits),
                number("points_live"),
                number("points"),
                number("ports_leased")
            ),
        ),
    ];
    if let Some(drain) = status.get("drain").filter(|drain| !drain.is_null()) {
        lines.push(Line(YELLOW, tables::drain(drain).trim_end().to_owned()));
    }
    lines
}

/// `most`: so many of them at most, those that do not send first.
fn sources(sample: &Sample, most: Option<usize>) -> Vec<Line> {
    let word = |source: &Value| source.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
    let watchers = |source: &Value| source.get("watchers").and_then(Value::as_u64).unwrap_or_default();
    let mut all: Vec<&Value> = sample.sources.as_array().into_iter().flatten().collect();
    // What is watched and does not send is what somebody looks for here.
    all.sort_by_key(|source| (word(source) == "live", std::cmp::Reverse(watchers(source))));
    let most = most.unwrap_or(usize::MAX);
    let mut cells = vec![["POINT".to_owned(), "STATE".into(), "WATCHERS".into(), "SOURCE".into()]];
    let mut looks = vec![BOLD];
    for source in all.iter().take(most) {
        let look = match &*word(source) {
            "failing" => RED,
            "standing_in" => YELLOW,
            "starting" | "waiting_for_publisher" if watchers(source) > 0 => YELLOW,
            _ => "",
        };
        cells.push([text(source, "point"), tables::state(source), watchers(source).to_string(), text(source, "source")]);
        looks.push(look);
    }
    if most == 0 || cells.len() == 1 {
        return Vec::new();
    }
    let mut lines = vec![Line("", String::new())];
    lines.extend(looks.into_iter().zip(aligned(&cells, &[false, false, true, false])).map(|(look, text)| Line(look, text)));
    if all.len() > most {
        lines.push(Line(DIM, format!("and {} more", all.len() - most)));
    }
    lines
}

/// The head of the table, and a line a session.
fn sessions(rows: &[Row]) -> Vec<Line> {
    let heads = ["SESSION", "BY", "NAME", "RATE", "PACKETS", "A SECOND", "RESENT", "FOR", "FROM"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        [
            row.session.to_string(),
            row.by.clone(),
            row.name.chars().take(40).collect(),
            if row.plays { rate(row.bit_rate) } else { "idle".to_owned() },
            row.packets.to_string(),
            row.packets_per_s.to_string(),
            row.resends.to_string(),
            tables::span(row.lasts_s.floor()).replace(".0 s", " s"),
            row.peer.clone(),
        ]
    });
    let cells: Vec<_> = std::iter::once(heads).chain(cells).collect();
    let right = [true, false, false, true, true, true, true, true, false];
    let looks = std::iter::once(BOLD).chain(rows.iter().map(|row| if row.plays { "" } else { DIM }));
    looks.zip(aligned(&cells, &right)).map(|(look, text)| Line(look, text)).collect()
}

/// Lines of columns as wide as what is in them.
fn aligned<const N: usize>(cells: &[[String; N]], right: &[bool; N]) -> Vec<String> {
    let mut widths = [0; N];
    for row in cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).zip(right);
        let cells =
            cells.map(|((cell, width), right)| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
        cells.collect::<Vec<_>>().join("  ")
    };
    cells.iter().map(line).collect()
}

/// `312 kbit/s`, `3.1 Mbit/s`.
fn rate(bit_rate: u64) -> String {
    match bit_rate {
        0..10_000_000 => format!("{} kbit/s", bit_rate / 1000),
        _ => format!("{}.{} Mbit/s", bit_rate / 1_000_000, bit_rate / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Sample {
        Sample {
            status: json!({
                "version": "1.2.3", "state": "serving", "uptime_s": 7380, "points": 2, "points_live": 1, "ports_leased": 1, "drain": null,
            }),
            viewers: Value::Null,
            sources: json!([
                { "point": "cam1", "source": "push", "state": "live", "watchers": 2 },
                { "point": "cam2\u{1b}[2J", "source": "push", "state": "failing", "watchers": 1 },
            ]),
        }
    }

    fn rows() -> Vec<Row> {
        let row = |session, by: &str, plays, bit_rate| Row {
            session,
            peer: "192.0.2.7:4000".into(),
            by: by.into(),
            name: "cam1".into(),
            plays,
            lasts_s: 61.4,
            bit_rate,
            packets: 1200,
            packets_per_s: 31,
            resends: 4,
        };
        vec![row(9, "mms/udp", true, 312_400), row(12, "rtsp/tcp", true, 12_345_678), row(13, "http/tcp", false, 0)]
    }

    const WHOLE: Page = Page { size: None, first: 0, order: Order::Rate, colours: false };

    #[test]
    fn all_of_it_without_a_terminal() {
        let expected = [
            "wmrelay 1.2.3, serving for 2 h 3 min",
            "3 sessions, 2 play: 12.6 Mbit/s and 93 packets/s; 1 of 2 publishing points live; 1 client ports leased",
            "",
            "POINT          STATE    WATCHERS  SOURCE",
            "cam2\\u{1b}[2J  failing         1  push",
            "cam1           live            2  push",
            "",
            "SESSION  BY        NAME         RATE  PACKETS  A SECOND  RESENT        FOR  FROM",
            "      9  mms/udp   cam1   312 kbit/s     1200        31       4  1 min 1 s  192.0.2.7:4000",
            "     12  rtsp/tcp  cam1  12.3 Mbit/s     1200        31       4  1 min 1 s  192.0.2.7:4000",
            "     13  http/tcp  cam1         idle     1200        31       4  1 min 1 s  192.0.2.7:4000",
        ];
        assert_eq!(page(&sample(), &rows(), WHOLE), expected);
    }

    #[test]
    fn a_small_screen_is_never_left() {
        let many: Vec<Row> = (0..100).flat_map(|_| rows()).collect();
        for height in 4..40 {
            for width in [1, 20, 80] {
                let here = Page { size: Some((height, width)), first: 0, order: Order::Name, colours: false };
                let lines = page(&sample(), &many, here);
                let least = if height < 6 { 6 } else { height };
                assert!(lines.len() <= least, "{height}: {lines:#?}");
                assert!(lines.iter().all(|line| line.chars().count() <= width));
            }
        }
        let size = (14, 100);
        let last = last_first(&sample(), &many, size);
        let lines = page(&sample(), &many, Page { size: Some(size), first: last, order: Order::Name, colours: false });
        let expected = format!("q quit   up, down: sessions {} to 300 of 300   s: sorted by name", last + 1);
        assert!(lines.len() == 14 && lines.last().unwrap() == &expected, "{lines:#?}");
        assert_eq!(last_first(&sample(), &rows(), (50, 80)), 0);
    }

    #[test]
    fn colours_where_they_are_wanted() {
        let lines = page(&sample(), &rows(), Page { colours: true, ..WHOLE });
        assert!(lines[0].starts_with(BOLD) && lines[0].ends_with(PLAIN));
        assert!(lines[4].starts_with(RED) && lines[5].starts_with("cam1") && lines[10].starts_with(DIM), "{lines:#?}");
    }

    #[test]
    fn a_drain_is_shown() {
        let mut sample = sample();
        sample.status["drain"] = json!({ "redirect": "mms://b.example", "left_s": 60, "exit": false, "over": false });
        let lines = page(&sample, &[], WHOLE);
        assert!(
            lines[2].starts_with("draining: new viewers are sent to mms://b.example; those who watch have 60 s"),
            "{lines:#?}"
        );
    }
}
