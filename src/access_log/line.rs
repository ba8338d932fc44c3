//! A line of the log.

use std::fmt::Write as _;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::report::safe;
use super::{ClientReport, Visit};
#[cfg(test)]
pub(super) use tests::visit;

/// The columns: the 44 of the log of a player, and the 8 that Windows Media Services 9 puts behind them.
pub(super) const COLUMNS: [&str; 52] = [
    "c-ip",
    "date",
    "time",
    "c-dns",
    "cs-uri-stem",
    "c-starttime",
    "x-duration",
    "c-rate",
    "c-status",
    "c-playerid",
    "c-playerversion",
    "c-playerlanguage",
    "cs(User-Agent)",
    "cs(Referer)",
    "c-hostexe",
    "c-hostexever",
    "c-os",
    "c-osversion",
    "c-cpu",
    "filelength",
    "filesize",
    "avgbandwidth",
    "protocol",
    "transport",
    "audiocodec",
    "videocodec",
    "channelURL",
    "sc-bytes",
    "c-bytes",
    "s-pkts-sent",
    "c-pkts-received",
    "c-pkts-lost-client",
    "c-pkts-lost-net",
    "c-pkts-lost-cont-net",
    "c-resendreqs",
    "c-pkts-recovered-ECC",
    "c-pkts-recovered-resent",
    "c-buffercount",
    "c-totalbuffertime",
    "c-quality",
    "s-ip",
    "s-dns",
    "s-totalclients",
    "s-cpu-util",
    "cs-user-name",
    "s-session-id",
    "s-content-path",
    "cs-url",
    "cs-media-name",
    "c-max-bandwidth",
    "cs-media-role",
    "s-proxied",
];

/// How addresses of viewers are written.
#[derive(Debug)]
pub(super) enum Names {
    /// As they are.
    Plain,
    /// As a hash with this key: the same address is the same name for as long as the daemon runs, and nobody can tell which it is.
    Hashed([u8; 32]),
}

impl Names {
    fn of(&self, address: IpAddr) -> String {
        match self {
            Self::Plain => address.to_string(),
            Self::Hashed(key) => {
                let digest = Sha256::new().chain_update(key).chain_update(address.to_string()).finalize();
                digest.iter().take(8).fold(String::new(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
            }
        }
    }
}

/// `2024-05-01 12:00:00`, UTC.
pub(super) fn date_and_time(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The line of a visit, with its line end.
pub(super) fn line(visit: &Visit, names: &Names) -> String {
    let began = visit.ended.checked_sub(visit.lasted).unwrap_or(visit.ended);
    let began = date_and_time(began.into());
    let mut parts = began.split(' ').map(str::to_owned);
    let (date, time) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut line = String::with_capacity(400);
    for column in COLUMNS {
        let value = match column {
            "date" => date.clone(),
            "time" => time.clone(),
            _ => server_value(column, visit, names)
                .or_else(|| visit.report.as_ref()?.get(column).map(str::to_owned))
                .unwrap_or_else(|| fallback(column, visit)),
        };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&safe(&value));
    }
    line.push('\n');
    line
}

/// Columns that only we know.
fn server_value(column: &str, visit: &Visit, names: &Names) -> Option<String> {
    Some(match column {
        "c-ip" => names.of(visit.peer),
        // A name may need more room than is good for a line; `safe` cuts it.
        "cs-uri-stem" => format!("/{}", encoded(&visit.name)),
        "cs-url" => format!("{}://{}/{}", visit.protocol, visit.local, encoded(&visit.name)),
        "protocol" => visit.protocol.into(),
        "transport" => visit.transport.into(),
        "c-status" => status(visit).to_string(),
        "sc-bytes" => visit.bytes.to_string(),
        "s-pkts-sent" => visit.packets.to_string(),
        "s-ip" => visit.local.ip().to_canonical().to_string(),
        "s-totalclients" => visit.viewers.to_string(),
        "cs-user-name" => visit.user.clone().unwrap_or_default(),
        "s-session-id" => visit.session.to_string(),
        "s-dns" | "s-cpu-util" | "s-content-path" | "c-dns" => String::new(),
        "s-proxied" => "0".into(),
        _ => return None,
    })
}

/// What stands where the player said nothing.
fn fallback(column: &str, visit: &Visit) -> String {
    match column {
        "x-duration" => visit.lasted.as_secs().to_string(),
        "c-starttime" | "c-pkts-lost-client" | "c-pkts-lost-net" | "c-pkts-lost-cont-net" | "c-pkts-recovered-ECC" => "0".into(),
        "c-rate" => "1".into(),
        "c-resendreqs" => visit.resends_asked.to_string(),
        "c-playerid" => visit.player_id.as_ref().map(|id| format!("{{{id}}}")).unwrap_or_default(),
        "c-playerversion" => version(&visit.agent).to_owned(),
        "cs(User-Agent)" => visit.agent.clone(),
        "filelength" => visit.duration.as_secs().to_string(),
        "filesize" => visit.file_bytes.to_string(),
        "avgbandwidth" => visit.bit_rate.to_string(),
        "cs-media-name" => encoded(&visit.name),
        _ => String::new(),
    }
}

/// A player may call its playing fine, or a second attempt; what we refused or could not send it knows less well than we.
fn status(visit: &Visit) -> u16 {
    let claimed = visit.report.as_ref().and_then(|report| report.get("c-status")?.parse().ok());
    match (visit.status, claimed) {
        (200 | 408, Some(claimed @ (200 | 210))) => claimed,
        (408, Some(_)) => 200,
        (ours, _) => ours,
    }
}

/// The version in `NSPlayer/9.0.0.2980; {…}`.
fn version(agent: &str) -> &str {
    let Some((_, rest)) = agent.split_once('/') else { return "" };
    rest.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default()
}

/// A name for a URL. The layers below know no percent-encoding, and a log wants less of it than a request.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '%' | '?' | '#' | '"' => {
                let _ = write!(text, "%{:02X}", u32::from(c));
            }
            ' ' => text.push_str("%20"),
            c if c.is_control() || c.is_whitespace() => {
                let mut utf8 = [0; 4];
                for byte in c.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
            c => text.push(c),
        }
    }
    text
}

impl ClientReport {
    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        COLUMNS.iter().all(|column| self.get(column).is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    pub(in crate::access_log) fn visit() -> Visit {
        Visit {
            peer: [198, 51, 100, 7].into(),
            local: ([192, 0, 2, 1], 8080).into(),
            // 2024-05-01 12:02:05 UTC.
            ended: SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_564_925),
            lasted: Duration::from_secs(125),
            protocol: "http",
            transport: "TCP",
            name: "live".into(),
            status: 408,
            agent: "NSPlayer/9.0.0.2980; {3300AD50}".into(),
            player_id: Some("3300AD50-2C39-46C0-AE0A-70B64F321A80".into()),
            user: None,
            duration: Duration::ZERO,
            file_bytes: 0,
            bit_rate: 313_441,
            bytes: 269_832,
            packets: 177,
            resends_asked: 2,
            viewers: 12,
            session: 3,
            report: None,
        }
    }

    fn columns(visit: &Visit) -> std::collections::BTreeMap<&'static str, String> {
        let line = line(visit, &Names::Plain);
        let values: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
        assert_eq!(values.len(), COLUMNS.len(), "{line}");
        COLUMNS.into_iter().zip(values.into_iter().map(str::to_owned)).collect()
    }

    #[test]
    fn a_session_without_a_report() {
        assert_eq!(
            line(&visit(), &Names::Plain),
            "198.51.100.7 2024-05-01 12:00:00 - /live 0 125 1 408 {3300AD50-2C39-46C0-AE0A-70B64F321A80} 9.0.0.2980 - \
             NSPlayer/9.0.0.2980;_{3300AD50} - - - - - - 0 0 313441 http TCP - - - 269832 - 177 - 0 0 0 2 0 - - - - 192.0.2.1 - 12 - - 3 - \
             http://192.0.2.1:8080/live live - - 0\n"
        );
    }

    #[test]
    fn the_players_own_report_is_merged() {
        let mut report = ClientReport::default();
        for (column, value) in [
            ("c-ip", "10.0.0.1"),
            ("x-duration", "120"),
            ("c-status", "210"),
            ("sc-bytes", "7"),
            ("c-bytes", "269000"),
            ("c-os", "Windows XP"),
            ("protocol", "Cache"),
        ] {
            report.set(column, value);
        }
        let columns = columns(&Visit { report: Some(report), ..visit() });
        for (column, value) in [
            ("c-ip", "198.51.100.7"),
            ("x-duration", "120"),
            ("c-status", "210"),
            ("sc-bytes", "269832"),
            ("c-bytes", "269000"),
            ("c-os", "Windows_XP"),
            ("protocol", "http"),
        ] {
            assert_eq!(columns[column], value, "{column}");
        }
    }

    #[test]
    fn what_we_refused_stays_refused() {
        let mut report = ClientReport::default();
        report.set("c-status", "200");
        let status = |ours, report: Option<&ClientReport>| status(&Visit { status: ours, report: report.cloned(), ..visit() });
        assert_eq!((status(404, Some(&report)), status(408, Some(&report)), status(408, None)), (404, 200, 408));
        let mut report = ClientReport::default();
        report.set("c-status", "999");
        assert_eq!(status(408, Some(&report)), 200, "it did submit a log");
    }

    #[test]
    fn names_and_agents_forge_no_line() {
        let forged = Visit { name: "a b\r\nc%d?k=1#\u{2028}".into(), agent: "x\n1.2.3.4 y".into(), ..visit() };
        let columns = columns(&forged);
        assert_eq!(columns["cs-uri-stem"], "/a%20b%0D%0Ac%25d%3Fk=1%23%E2%80%A8");
        assert_eq!(columns["cs(User-Agent)"], "x_1.2.3.4_y");
    }

    #[test]
    fn hashed_addresses_tell_visitors_apart_and_no_more() {
        let names = |key, last: u8| Names::Hashed([key; 32]).of([192, 0, 2, last].into());
        assert_eq!(names(1, 1), names(1, 1));
        assert_ne!(names(1, 1), names(1, 2));
        assert_ne!(names(1, 1), names(2, 1));
        assert_eq!(names(1, 1).len(), 16);
        let line = line(&visit(), &Names::Hashed([1; 32]));
        assert!(!line.contains("198.51.100.7"), "{line}");
    }
}
