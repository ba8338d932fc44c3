//! Numbers as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::control::calls::{SourceFailure, SourceState};

/// `512 bit/s`, `48 kbit/s`, `1.2 Mbit/s`.
pub(super) fn bit_rate(bits: u64) -> String {
    scaled(bits, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

/// `512 B`, `48 kB`, `1.2 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, ["B", "kB", "MB", "GB"])
}

fn scaled(number: u64, units: [&str; 4]) -> String {
    let [one, kilo, mega, giga] = units;
    let tenths = |unit: u64| format!("{}.{}", number / unit, number % unit * 10 / unit);
    match number {
        0..1_000 => format!("{number} {one}"),
        1_000..1_000_000 => format!("{} {kilo}", number / 1_000),
        1_000_000..1_000_000_000 => format!("{} {mega}", tenths(1_000_000)),
        _ => format!("{} {giga}", tenths(1_000_000_000)),
    }
}

/// `7 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(super) fn time(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// How a source is, and how that looks.
pub(super) const fn state(state: SourceState) -> (&'static str, &'static str) {
    match state {
        SourceState::Live => ("live", "Live"),
        SourceState::StandingIn => ("waits", "Stand-in"),
        SourceState::Starting => ("waits", "Starting"),
        SourceState::WaitingForViewer => ("files", "Waits for a viewer"),
        SourceState::WaitingForPublisher => ("waits", "Waits for a publisher"),
        SourceState::OnDemand => ("files", "On demand"),
        SourceState::OpenedByName => ("files", "Opened by name"),
        SourceState::Failing => ("off", "Failing"),
    }
}

/// Why a source failed, how often, and when.
pub(super) fn failure(failure: &SourceFailure) -> String {
    let SourceFailure { reason, ago_s, in_a_row } = failure;
    let ago = time(Duration::from_secs(*ago_s));
    match in_a_row {
        0 => format!("Last failure, {ago} ago: {reason}"),
        1 => format!("{reason}, {ago} ago"),
        _ => format!("{reason}, {ago} ago, {in_a_row} times in a row"),
    }
}

/// `2026-05-01 12:00:07 UTC`.
pub(super) fn date(at: SystemTime) -> String {
    let s = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let Ok(date) = OffsetDateTime::from_unix_timestamp(i64::try_from(s).unwrap_or(i64::MAX)) else { return "unknown".into() };
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", date.hour(), date.minute(), date.second())
}

/// `1 viewer`, `2 viewers`.
pub(super) fn count(number: impl Into<u64>, one: &str, many: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// A codec by the name that people know it by, of what the API calls it: the format tag of audio (mmreg.h), the four letters of video.
/// What is not known stays as it is.
pub(super) fn codec(word: &str) -> &str {
    match word {
        "0x0001" => "PCM",
        "0x0006" => "G.711 A-law",
        "0x0007" => "G.711 µ-law",
        "0x000A" => "WMA Voice",
        "0x0055" => "MP3",
        "0x00FF" | "0x1600" | "0x1610" => "AAC",
        "0x0160" => "WMA 1",
        "0x0161" => "WMA 2",
        "0x0162" => "WMA Pro",
        "0x0163" => "WMA Lossless",
        "MP42" => "MS MPEG-4 v2",
        "MP43" => "MS MPEG-4 v3",
        "MP4S" | "M4S2" | "mp4v" => "MPEG-4",
        "MSS1" | "MSS2" => "WMV Screen",
        "WMV1" => "WMV 7",
        "WMV2" => "WMV 8",
        "WMV3" => "WMV 9",
        "WMVA" | "WVC1" => "VC-1",
        "H264" | "h264" | "AVC1" | "avc1" => "H.264",
        "MJPG" | "mjpg" => "Motion JPEG",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_short() {
        let rates = [0, 999, 64_000, 1_250_000, 12_000_000_000].map(bit_rate);
        assert_eq!(rates, ["0 bit/s", "999 bit/s", "64 kbit/s", "1.2 Mbit/s", "12.0 Gbit/s"]);
        let times = [7, 185, 7_800, 356_400].map(|s| time(Duration::from_secs(s)));
        assert_eq!(times, ["7 s", "3 min 5 s", "2 h 10 min", "4 d 3 h"]);
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1_777_636_807)), "2026-05-01 12:00:07 UTC");
        assert_eq!([count(1u32, "viewer", "viewers"), count(0u32, "viewer", "viewers")], ["1 viewer", "0 viewers"]);
        assert_eq!(bytes(1_500_000), "1.5 MB");
        assert_eq!(["0x0161", "WMV3", "0x7777", "XVID"].map(codec), ["WMA 2", "WMV 9", "0x7777", "XVID"]);
    }
}
