//! The tokens of `Pragma` fields, in which players say what they want.
//!
//! Source: MS-WMSP 2.2.1.4.

use crate::http::head::Head;

/// Most tokens of a request.
const TOKENS_BOUND: usize = 64;
/// Longest token, bytes.
const TOKEN_BOUND: usize = 512;
/// The value that says "no value" where 0 is one.
pub(super) const NONE: u32 = u32::MAX;
/// Tokens whose value goes to the end of the line, commas included (MS-WMSP 2.2.1.4.10, 2.2.1.4.27).
const WHOLE_LINES: [&str; 2] = ["log-line", "stream-switch-entry"];
/// Tokens that only players of the streaming protocol send; `no-cache` everybody does.
const TELLING: [&str; 16] = [
    "rate",
    "stream-time",
    "stream-offset",
    "packet-num",
    "xclientguid",
    "xplaystrm",
    "xplaynextentry",
    "xstopstrm",
    "xkeepaliveinpause",
    "pipeline-experiment",
    "pipeline-request",
    "packet-pair-experiment",
    "version11-enabled",
    "client-id",
    "stream-switch-entry",
    "log-line",
];

/// The tokens of all `Pragma` fields of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pragmas {
    /// Names in lower case, values as sent.
    tokens: Vec<(String, String)>,
    /// The line with `xClientGUID` stands before the one with the position, as MPlayer has it and nobody else.
    pub(super) guid_first: bool,
}

impl Pragmas {
    /// # Errors
    /// What is wrong: more or longer tokens than a player sends.
    pub(super) fn of(head: &Head) -> Result<Self, &'static str> {
        let mut pragmas = Self::default();
        let (mut guid_line, mut position_line) = (None, None);
        for (number, line) in head.all("Pragma").enumerate() {
            let first = pragmas.tokens.len();
            pragmas.read_line(line)?;
            for (name, _) in pragmas.tokens.get(first..).unwrap_or_default() {
                match name.as_str() {
                    "xclientguid" => guid_line = guid_line.or(Some(number)),
                    "rate" | "stream-time" => position_line = position_line.or(Some(number)),
                    _ => {}
                }
            }
        }
        pragmas.guid_first = matches!((guid_line, position_line), (Some(guid), Some(position)) if guid < position);
        Ok(pragmas)
    }

    fn read_line(&mut self, line: &str) -> Result<(), &'static str> {
        let mut rest = line;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return Ok(());
            }
            let (name, _) = rest.split_once('=').unwrap_or((rest, ""));
            let whole = WHOLE_LINES.iter().any(|whole| name.trim().eq_ignore_ascii_case(whole));
            let end = if whole { rest.len() } else { comma(rest) };
            let (token, behind) = rest.split_at(end);
            rest = behind;
            if self.tokens.len() == TOKENS_BOUND {
                return Err("there are more than 64 Pragma tokens");
            }
            if !whole && token.len() > TOKEN_BOUND {
                return Err("a Pragma token is longer than 512 bytes");
            }
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            self.tokens.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The first value of a token; its name in lower case.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.tokens.iter().find(|(token, _)| token == name).map(|(_, value)| value.as_str())
    }

    /// Its number: the digits that it begins with. ffmpeg glues the next field to a value.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        // A later one counts where an earlier one is empty; ffmpeg sends some twice, with the same number.
        leading_number(self.text(name)?)
    }

    /// Whether it is there and not 0.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.number(name).is_some_and(|value| value != 0)
    }

    /// Whether any token is one that only a player of the streaming protocol sends.
    pub(super) fn are_streaming(&self) -> bool {
        self.tokens.iter().any(|(name, _)| TELLING.contains(&name.as_str()))
    }

    /// Text between the braces of `xClientGUID`, of any form; VLC's is none.
    pub(super) fn guid(&self) -> Option<String> {
        let value = self.text("xclientguid")?;
        let inner = value.trim_start_matches('{').split('}').next().unwrap_or_default();
        Some(inner.chars().take(64).collect::<String>()).filter(|guid| !guid.is_empty())
    }
}

/// Where a token ends: at a comma outside double quotes.
fn comma(text: &str) -> usize {
    let mut quoted = false;
    text.bytes()
        .position(|byte| {
            quoted ^= byte == b'"';
            byte == b',' && !quoted
        })
        .unwrap_or(text.len())
}

/// The number that a text begins with; the largest where it does not fit.
pub(super) fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).map_or(text, |end| text.get(..end).unwrap_or_default());
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;

    fn pragmas(lines: &[&str]) -> Result<Pragmas, &'static str> {
        let lines: String = lines.iter().map(|line| format!("Pragma: {line}\r\n")).collect();
        let head = format!("GET / HTTP/1.0\r\n{lines}\r\n");
        Pragmas::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap())
    }

    #[test]
    fn tokens() {
        let read = pragmas(&[
            "no-cache,RATE=1.000, Proxy-Client-Agent=\"a, b\" ,client-id=77",
            "stream-time=8000Connection: Close",
            "stream-switch-entry=ffff:1:0, ffff:2:0 ",
            "log-line=a, b=c",
            "xClientGUID={0xbabac001-0x5e8b}",
            "packet-num=99999999999",
        ])
        .unwrap();
        assert_eq!(read.text("proxy-client-agent"), Some("\"a, b\""));
        assert_eq!((read.number("client-id"), read.number("stream-time")), (Some(77), Some(8000)));
        assert_eq!(read.text("stream-switch-entry"), Some("ffff:1:0, ffff:2:0"));
        assert_eq!(read.text("log-line"), Some("a, b=c"));
        assert_eq!(read.guid().as_deref(), Some("0xbabac001-0x5e8b"));
        assert_eq!(read.number("packet-num"), Some(NONE));
        assert!(read.is_set("rate") && !read.is_set("xplaystrm") && read.are_streaming());
        assert!(!pragmas(&["no-cache", "getIfoFileURI.dlna.org"]).unwrap().are_streaming());
    }

    #[test]
    fn mplayer_shows() {
        let position = "no-cache,rate=1.000000,stream-time=0";
        assert!(pragmas(&["xClientGUID={a}", position]).unwrap().guid_first);
        assert!(!pragmas(&[position, "xClientGUID={a}"]).unwrap().guid_first);
        assert!(!pragmas(&[position, "xClientGUID={a}", "no-cache,rate=1.0,stream-time=0Connection: Close"]).unwrap().guid_first);
        assert!(!pragmas(&["xClientGUID={a}"]).unwrap().guid_first);
    }

    #[test]
    fn bounds() {
        assert!(pragmas(&[&"a,".repeat(64)]).is_ok());
        assert!(pragmas(&[&"a,".repeat(65)]).is_err());
        assert!(pragmas(&[&format!("a={}", "x".repeat(511))]).is_err());
        assert!(pragmas(&[&format!("log-line={}", "x".repeat(6000))]).is_ok());
        assert!(pragmas(&[",,\t,", "\"", "="]).is_ok());
    }
}
