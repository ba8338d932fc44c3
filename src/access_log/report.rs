//! What a player says about its playing.

use super::line::COLUMNS;

/// Longest value of a column that is kept, characters.
const VALUE_BOUND: usize = 256;

/// A player's own account, by the names of the log's columns. All of it is a claim.
///
/// Values have no blanks or control characters, and at most 256 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientReport(Vec<(&'static str, String)>);

impl ClientReport {
    /// Reads a log as players send it over HTTP: a line of 44, 47 or 52 fields, bare or as the `Summary` of an XML text. `None`
    /// where it is neither.
    ///
    /// Source: MS-WMLOG 2.2.1, 2.4; MS-WMSP 2.2.1.4.15.
    pub fn parse(text: &str) -> Option<Self> {
        let summary = match text.split_once("<Summary>") {
            Some((_, rest)) => rest.split("</Summary>").next()?,
            None => text.strip_prefix("MX_STATS_LogLine:").unwrap_or(text),
        };
        let fields: Vec<&str> = summary.split_ascii_whitespace().collect();
        let columns: Vec<&'static str> = match fields.len() {
            // Three more: URL, name and role of the entry.
            47 => COLUMNS.iter().take(44).copied().chain(["cs-url", "cs-media-name", "cs-media-role"]).collect(),
            44 | 52 => COLUMNS.iter().take(fields.len()).copied().collect(),
            _ => return None,
        };
        let mut report = Self::default();
        for (column, field) in columns.into_iter().zip(fields) {
            report.set(column, field);
        }
        Some(report)
    }

    /// Notes the value of a column; `-` and nothing are the same.
    pub fn set(&mut self, column: &'static str, value: &str) {
        let value = safe(value);
        if value != "-" {
            self.0.push((column, value));
        }
    }

    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == column).map(|(_, value)| value.as_str())
    }
}

/// A value as it may stand in a line: blanks become `_`, nothing becomes `-`.
pub(super) fn safe(value: &str) -> String {
    let as_safe = |c: char| if c.is_whitespace() { '_' } else { c };
    let value: String = value.trim().chars().map(as_safe).filter(|c| !c.is_control()).take(VALUE_BOUND).collect();
    if value.is_empty() { "-".into() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of a log in the order of MS-WMLOG 2.2.1, with the three that players from version 9 on add.
    const LINE: &str = "0.0.0.0 2024-05-01 12:00:00 - http://media.example/live 0 125 1 200 \
        {3300AD50-2C39-46c0-AE0A-70b64f321a80} 12.0.7601.17514 en-US WMFSDK/12.0.7601.17514_WMPlayer/12.0.7601.17514 - wmplayer.exe \
        12.0.7601.17514 Windows 6.1.0.7601 Pentium 0 0 313441 http TCP Windows_Media_Audio_9 Windows_Media_Video_9 - - 269832 - 177 \
        0 0 0 0 0 0 1 5 100 - - - -";

    #[test]
    fn legacy_lines_and_summaries() {
        let report = ClientReport::parse(LINE).unwrap();
        for (column, value) in [("x-duration", "125"), ("c-status", "200"), ("c-bytes", "269832"), ("c-quality", "100")] {
            assert_eq!(report.get(column), Some(value), "{column}");
        }
        assert_eq!(report.get("cs(Referer)"), None, "a dash is nothing");
        let xml = format!("<XML>\r\n<Summary>{LINE} mms://h/live Live -</Summary><c-ip>0.0.0.0</c-ip></XML>");
        let report = ClientReport::parse(&xml).unwrap();
        assert_eq!((report.get("cs-url"), report.get("cs-media-name")), (Some("mms://h/live"), Some("Live")));
        assert_eq!(report.get("c-pkts-received"), Some("177"));
    }

    #[test]
    fn rubbish_is_no_report() {
        for text in ["", "1 2 3", "<Summary>", "<Summary></Summary>", &format!("{LINE} x"), &"- ".repeat(5000)] {
            assert_eq!(ClientReport::parse(text), None, "{text}");
        }
    }

    #[test]
    fn values_stay_in_their_column() {
        let mut report = ClientReport::default();
        report.set("c-os", " Windows 98\r\nforged\u{1b}[31m ");
        report.set("c-cpu", &"x".repeat(9999));
        assert_eq!(report.get("c-os"), Some("Windows_98__forged[31m"));
        assert_eq!(report.get("c-cpu").map(str::len), Some(256));
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_values_without_blanks(text in "\\PC*", blanks in "[ \\t\\r\\n\u{85}\u{2028}a-]{0,200}") {
            for text in [text, blanks] {
                if let Some(report) = ClientReport::parse(&text) {
                    for (_, value) in report.0 {
                        proptest::prop_assert!(!value.is_empty() && !value.contains(char::is_whitespace));
                    }
                }
            }
        }
    }
}
