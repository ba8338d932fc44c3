//! Where a file begins to play, and which streams of it, in the words of each player.

use super::Config;
use super::pragma::{NONE, Pragmas, leading_number};
use crate::asf::{Header, Selection, StreamSet};
use crate::viewing::{Acceleration, Content, Description, Position, Until};

/// Top bit of `max-duration`: the time is one of the content.
const ABSOLUTE: u32 = 1 << 31;
/// What a player of version 8 takes as bandwidth, bits a second (MS-WMSP 2.2.1.4.1).
const BANDWIDTH_OF_8: u32 = 1_048_576;
/// Thinning level by which a stream is switched off.
const OFF: u16 = 2;
const KEY_FRAMES: u16 = 1;

/// Where to begin. `adds_preroll`: the player adds the preroll to the times that it names, as libmms does.
///
/// Source: MS-WMSP 3.2.5.6.
pub(super) fn position(pragmas: &Pragmas, file: &Description, adds_preroll: bool) -> Position {
    let time = pragmas.number("stream-time").filter(|time| !matches!(*time, 0 | NONE));
    if let Some(time) = time {
        let preroll = if adds_preroll { Header::parse(&file.header).map_or(0, |header| header.preroll_ms()) } else { 0 };
        return Position::Time(time.saturating_sub(preroll).into());
    }
    let packets = match file.content {
        Content::File { packets, .. } => packets,
        Content::Live => 0,
    };
    let clamped = |packet: u64| match u32::try_from(packet.min(packets.saturating_sub(1))) {
        Ok(0) => Position::Time(0),
        Ok(packet) => Position::Packet(packet),
        Err(_) => Position::Packet(u32::MAX),
    };
    if let Some(packet) = pragmas.number("packet-num").filter(|packet| *packet != NONE) {
        return clamped(packet.into());
    }
    let halves = pragmas.text("stream-offset").and_then(|offset| offset.split_once(':'));
    let halves = halves.and_then(|(high, low)| leading_number(high).zip(leading_number(low)));
    match halves.filter(|halves| *halves != (NONE, NONE)) {
        Some((high, low)) => clamped(packet_at(u64::from(high) << 32 | u64::from(low), file)),
        None => Position::Time(0),
    }
}

/// The packet at a byte: of the file, as the specification and libmms have it, or of the packets alone, as VLC has it.
fn packet_at(offset: u64, file: &Description) -> u64 {
    let size = u64::from(file.packet_size).max(1);
    match offset.checked_sub(file.header.len() as u64) {
        Some(behind) if behind.is_multiple_of(size) || !offset.is_multiple_of(size) => behind / size,
        None if !offset.is_multiple_of(size) => 0,
        _ => offset / size,
    }
}

/// Where to end.
pub(super) fn until(pragmas: &Pragmas) -> Option<Until> {
    match pragmas.number("max-duration")? {
        0 | NONE => None,
        time if time & ABSOLUTE != 0 => Some(Until::Time(time & !ABSOLUTE)),
        time => Some(Until::After(time)),
    }
}

/// The fast start that a player of this version asks for, cut to what it gets. Players before 8 misread the answer.
pub(super) fn acceleration(
    config: &Config,
    pragmas: &Pragmas,
    version: (u16, u16),
    bit_rate: u32,
) -> Option<(&'static str, Acceleration)> {
    let wish = |name, bandwidth, duration| {
        let bandwidth = pragmas.number(bandwidth).filter(|bandwidth| *bandwidth != 0)?;
        let duration_ms = pragmas.number(duration).filter(|duration| *duration != 0)?;
        Some((name, Acceleration { bandwidth, duration_ms }))
    };
    let accel = (version.0 >= 8).then(|| wish("Accel", "accelbw", "accelduration")).flatten();
    let burst = || (version.0 >= 9).then(|| wish("Burst", "burstbw", "burstduration")).flatten();
    let (name, asked) = accel.or_else(burst)?;
    let most = if version.0 == 8 { BANDWIDTH_OF_8 } else { u32::MAX };
    let most = most.min(bit_rate.max(1).saturating_mul(config.burst_rate));
    // A burst beyond what the player's link takes only fills buffers on the way.
    let link = pragmas.number("linkbw").filter(|link| *link != 0).unwrap_or(u32::MAX);
    let longest = u32::try_from(config.burst.as_millis()).unwrap_or(u32::MAX);
    let bandwidth = asked.bandwidth.min(most).min(link);
    let is_faster = bandwidth == asked.bandwidth || bandwidth > bit_rate;
    is_faster.then_some((name, Acceleration { bandwidth, duration_ms: asked.duration_ms.min(longest) }))
}

/// What `stream-switch-entry` makes of a selection; `None` without one, or where it names nothing that exists. Entries are
/// `source:destination:thinning`; numbers are hexadecimal, and decimal by ffmpeg.
///
/// Source: MS-WMSP 2.2.1.4.27.
pub(super) fn select(pragmas: &Pragmas, before: Selection, existing: StreamSet) -> Option<Selection> {
    let mut selection = before;
    let mut known = false;
    // Stream numbers end at 127, so more entries say nothing.
    for entry in pragmas.text("stream-switch-entry")?.split_ascii_whitespace().take(127) {
        let mut numbers = entry.trim_matches(',').split(':');
        let (Some(source), Some(destination)) = (numbers.next(), numbers.next()) else { continue };
        let thinning = numbers.next().and_then(|level| u16::from_str_radix(level, 16).ok()).unwrap_or(0);
        if let Some(stream) = stream(source, existing) {
            known = true;
            selection.streams.remove(stream);
            selection.thinned.remove(stream);
        }
        let Some(stream) = stream(destination, existing) else { continue };
        known = true;
        selection.thinned.remove(stream);
        if thinning == OFF {
            selection.streams.remove(stream);
        } else {
            selection.streams.insert(stream);
            if thinning == KEY_FRAMES {
                selection.thinned.insert(stream);
            }
        }
    }
    // Who wants nothing at all would wait for ever.
    known.then(|| if selection.streams.is_empty() { Selection::all(existing) } else { selection })
}

fn stream(number: &str, existing: StreamSet) -> Option<u8> {
    let known = |number: &u8| existing.contains(*number);
    u8::from_str_radix(number, 16).ok().filter(known).or_else(|| number.parse().ok().filter(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadReader;
    use crate::http::viewer::testing;

    fn pragmas(line: &str) -> Pragmas {
        let head = format!("GET / HTTP/1.0\r\nPragma: {line}\r\n\r\n");
        Pragmas::of(&HeadReader::default().push(head.as_bytes()).unwrap().1.unwrap()).unwrap()
    }

    /// The file of the captures: packets of 3,200 bytes behind a header of 909.
    fn file() -> Description {
        Description { streams: [1, 2, 16].into_iter().collect(), ..testing::file() }
    }

    #[test]
    fn positions() {
        for (line, expected) in [
            ("rate=1", Position::Time(0)),
            ("stream-time=0,stream-offset=0:0", Position::Time(0)),
            ("stream-time=60000,packet-num=3", Position::Time(60_000)),
            ("stream-time=4294967295,packet-num=3,stream-offset=0:0", Position::Packet(3)),
            ("stream-time=0,packet-num=4294967295,stream-offset=4294967295:4294967295", Position::Time(0)),
            // libmms, packet 93; VLC, packet 95; between packets.
            ("stream-time=0,stream-offset=0:298509", Position::Packet(93)),
            ("stream-time=0,stream-offset=0:304000", Position::Packet(95)),
            ("stream-offset=0:300000", Position::Packet(93)),
            ("stream-offset=0:17", Position::Time(0)),
            ("stream-offset=1:0", Position::Packet(999)),
            ("packet-num=5000", Position::Packet(999)),
            ("stream-offset=x:1", Position::Time(0)),
        ] {
            assert_eq!(position(&pragmas(line), &file(), false), expected, "{line}");
        }
        // libmms adds the preroll, 3 s in this header.
        assert_eq!(position(&pragmas("stream-time=11000"), &file(), true), Position::Time(8000));
        assert_eq!(position(&pragmas("stream-time=1000"), &file(), true), Position::Time(0));
    }

    #[test]
    fn ends() {
        assert_eq!(until(&pragmas("max-duration=0")), None);
        assert_eq!(until(&pragmas("rate=1")), None);
        assert_eq!(until(&pragmas("max-duration=4000")), Some(Until::After(4000)));
        assert_eq!(until(&pragmas("max-duration=2147487648")), Some(Until::Time(4000)));
    }

    #[test]
    fn fast_starts_are_cut() {
        let of = |line: &str, major| {
            acceleration(&Config::default(), &pragmas(line), (major, 0), 1_000_000)
                .map(|(name, a)| (name, a.bandwidth, a.duration_ms))
        };
        let wish = "AccelBW=2147483647, AccelDuration=18000";
        assert_eq!(of(wish, 12), Some(("Accel", 5_000_000, 5000)));
        assert_eq!(of(&format!("{wish}, LinkBW=2000000"), 12), Some(("Accel", 2_000_000, 5000)));
        assert_eq!(of(&format!("{wish}, LinkBW=900000"), 12), None, "the link takes no more than the stream has");
        assert_eq!(of(&format!("{wish}, LinkBW=0"), 12), Some(("Accel", 5_000_000, 5000)), "it does not know");
        assert_eq!(of(wish, 8), Some(("Accel", 1_048_576, 5000)));
        assert_eq!(of(wish, 7), None);
        assert_eq!(of("BurstBW=3500000, BurstDuration=4000", 9), Some(("Burst", 3_500_000, 4000)));
        assert_eq!(of("AccelBW=0,AccelDuration=18000", 12), None);
        assert_eq!(of("AccelBW=9", 12), None);
    }

    #[test]
    fn selections() {
        let all = Selection::all(file().streams);
        let of = |entry: &str, before| {
            let selected = select(&pragmas(&format!("stream-switch-entry={entry}")), before, all.streams)?;
            Some((selected.streams.iter().collect::<Vec<_>>(), selected.thinned.iter().collect::<Vec<_>>()))
        };
        let nothing = Selection::default();
        assert_eq!(of("ffff:1:0 ffff:2:0 ", nothing), Some((vec![1, 2], vec![])));
        assert_eq!(of("ffff:1:0 ffff:2:2", nothing), Some((vec![1], vec![])));
        assert_eq!(of("ffff:1:1", nothing), Some((vec![1], vec![1])));
        // Stream 16: hexadecimal by VLC, decimal by ffmpeg.
        assert_eq!(of("ffff:10:0", nothing), Some((vec![16], vec![])));
        assert_eq!(of("ffff:16:0", nothing), Some((vec![16], vec![])));
        // While it plays: only what changes.
        assert_eq!(of("1:2:0", all), Some((vec![2, 16], vec![])));
        assert_eq!(of("ffff:1:2 ffff:2:2 ffff:10:2", nothing), Some((vec![1, 2, 16], vec![])));
        assert_eq!(of("ffff:7f:0 x :: 1", nothing), None);
        assert_eq!(select(&pragmas("rate=1"), all, all.streams), None);
    }
}
