//! Files on demand: seeks, pauses, ends and paces, with players and by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a panic is a test's report, and it runs on the real clock"
)]

mod support;

use std::time::{Duration, Instant};

use support::Need::{self, Program};
use support::archive::{HASTE, archive, play, report, serve};
use support::daemon::Daemon;
use support::media::{data_start, key_frames, presentation_times, repeated, seek_samples};
use support::mms::{self, Control, Incoming, result_of};
use support::player::Vlc;
use support::{Random, asf::send_time_in, ready, stays, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg"), Program("ffprobe")];
const VLC: &[Need] = &[Program("ffmpeg"), Program("ffprobe"), Program("cvlc")];
const MINUTE: Duration = Duration::from_secs(60);

/// Where plays begin is logged.
const PLACES_IN_LOG: &str = "[log]\nlevel = \"info,wmrelay::shard=debug\"\n";
const NO_HASTE: &str = "[delivery]\nburst_ms = 0\n";
const INDEXED: &str = "vod-wmv2-wmav2-indexed.wmv";
/// The same media with an index, with none, with the empty one that VLC writes, with one of random entries.
const SEEK_SAMPLES: [&str; 4] = [INDEXED, "no-index.wmv", "bogus-index.wmv", "random-index.wmv"];

/// The packet that a play begins with which was asked to begin at a packet.
fn key_packet(keys: &[(u64, u64)], asked: u64) -> u64 {
    keys.iter().rev().find(|(_, packet)| *packet <= asked).unwrap_or(&keys[0]).1
}

#[test]
fn seeks_land_on_the_right_key_frame() {
    if !ready("seeks_land_on_the_right_key_frame", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    seek_samples(&root.path().join(INDEXED));
    let out = tempfile::tempdir().unwrap();
    let seek = |name: &str, form: usize| {
        let path = root.path().join(name);
        let (keys, (start, size)) = (key_frames(&path), data_start(&path));
        let mut random = Random(7 + form as u64);
        let url = daemon.url("mmst", &format!("archive/{name}"));
        let file = out.path().join(format!("{form}-{name}"));
        for _ in 0..10 {
            let ms = random.next() % 11_000;
            let packet = 1 + random.next() % (keys.last().unwrap().1 + 5);
            let (flag, value, expected) = match form {
                0 => {
                    let key = keys.iter().rev().find(|(at, _)| *at <= ms).unwrap_or(&keys[0]);
                    ("--start", format!("{}.{:03}", ms / 1000, ms % 1000), key.1)
                }
                1 => ("--packet", packet.to_string(), key_packet(&keys, packet)),
                _ => ("--offset", (start + packet * size + 1).to_string(), key_packet(&keys, packet)),
            };
            let report = report(&play(&url, &file, &[flag, &value, "--seconds", "1"]).finish(MINUTE));
            assert_eq!(report["first_location"].as_u64(), Some(expected), "{name} {flag} {value}: {report}\n{keys:?}");
        }
    };
    std::thread::scope(|scope| {
        for name in SEEK_SAMPLES.into_iter().chain(["h264-aac-nobframes.asf"]) {
            for form in 0..3 {
                scope.spawn(move || seek(name, form));
            }
        }
    });
}

/// What was asked of the daemon and where it led, for each play of a file so far: packets, or the time where the first is `None`.
fn plays(daemon: &Daemon, name: &str) -> Vec<(Option<u64>, u64)> {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("plays from here on") && line.contains(&format!("archive/{name} ")));
    let number_behind = |line: &str, mark: &str| -> Option<u64> {
        let rest = line.split_once(mark)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    lines.map(|line| (number_behind(line, "asked=Packet("), number_behind(line, " packet=").unwrap())).collect()
}

/// VLC shows seconds of the file, and asks for the packet that it takes for the place; what it asks for is its own affair.
#[test]
fn seeks_of_vlc_land_on_the_right_key_frame() {
    if !ready("seeks_of_vlc_land_on_the_right_key_frame", VLC) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // Long enough, and sent slowly enough, that it has not got everything already.
    repeated(20, &root.path().join(INDEXED));
    seek_samples(&root.path().join(INDEXED));
    let daemon = serve(root.path(), &format!("{PLACES_IN_LOG}{NO_HASTE}"));
    let seek = |scheme: &str, name: &str, seed: u64| {
        let keys = key_frames(&root.path().join(name));
        let mut random = Random(seed);
        let mut vlc = Vlc::play(&daemon.url(scheme, &format!("archive/{name}")));
        vlc.wait_for_pictures(5, MINUTE);
        for round in 1..=10 {
            let before = plays(&daemon, name).len();
            let shown = vlc.shown().0;
            vlc.say(&format!("seek {}", 1 + random.next() % 190));
            wait_until(&format!("VLC's seek {round} in {name}"), MINUTE, || plays(&daemon, name).len() > before);
            vlc.wait_for_pictures(shown + 3, MINUTE);
        }
        let plays = plays(&daemon, name);
        for (asked, landed) in &plays {
            assert_eq!(*landed, key_packet(&keys, asked.unwrap_or(0)), "{name}: asked for {asked:?}\n{plays:?}\n{keys:?}");
        }
        let places: std::collections::BTreeSet<_> = plays.iter().map(|(_, landed)| landed).collect();
        assert!(places.len() >= 3, "{name}: they lead to several places: {plays:?}");
    };
    std::thread::scope(|scope| {
        for (name, seed) in SEEK_SAMPLES.into_iter().take(3).zip(1..) {
            scope.spawn(move || seek("mmst", name, seed));
        }
        // Over HTTP, where it tells a byte of the packets and not a packet.
        scope.spawn(move || seek("mmsh", SEEK_SAMPLES[3], 4));
    });
}

#[test]
fn vlc_pauses_and_goes_on_where_it_stopped() {
    if !ready("vlc_pauses_and_goes_on_where_it_stopped", VLC) {
        return;
    }
    let (daemon, root) = archive(&format!("{PLACES_IN_LOG}{NO_HASTE}"));
    let keys = key_frames(&root.path().join(INDEXED));
    let mut vlc = Vlc::play(&daemon.url("mmst", &format!("archive/{INDEXED}")));
    vlc.wait_for_pictures(30, MINUTE);
    vlc.say("pause");
    wait_until("the daemon's pause", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 0.0);
    let sent = daemon.metric("wmrelay_sent_packets_total", &[]) as u64;
    stays("the pause", Duration::from_secs(2), || daemon.metric("wmrelay_sent_packets_total", &[]) as u64 == sent);
    let shown = vlc.shown().0;
    vlc.say("pause");
    wait_until("it goes on", MINUTE, || plays(&daemon, INDEXED).len() == 2);
    let (asked, landed) = plays(&daemon, INDEXED)[1];
    let asked = asked.expect("VLC asks for a packet");
    assert!(asked <= sent && asked + 10 >= sent, "asked for packet {asked} after {sent} packets");
    assert_eq!(landed, key_packet(&keys, asked));
    vlc.wait_for_pictures(shown + 40, MINUTE);
}

/// A viewer by hand, with its header; nothing plays yet. Behind it, what the daemon said of the file.
#[track_caller]
fn open(daemon: &Daemon, name: &str) -> (Control, Vec<u8>) {
    let mut control = Control::connect(daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body(support::viewer::PLAYER));
    control.expect(mms::CONNECTED, MINUTE);
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
    control.expect(mms::FUNNEL_CONNECTED, MINUTE);
    control.send(mms::OPEN_FILE, &mms::open_body(name));
    let opened = control.expect(mms::OPENED, MINUTE);
    assert_eq!(result_of(&opened), 0);
    control.send(mms::READ_BLOCK, &mms::read_block_body());
    assert_eq!(result_of(&control.expect(mms::BLOCK_READ, MINUTE)), 0);
    // Both streams.
    control.send(mms::STREAM_SWITCH, &[&[2, 0, 0, 0][..], &[0xFF, 0xFF, 1, 0, 0, 0], &[0xFF, 0xFF, 2, 0, 0, 0]].concat());
    assert_eq!(result_of(&control.expect(mms::SWITCHED, MINUTE)), 0);
    (control, opened)
}

/// Packets of a play up to the end of the stream, or so many: number and send time.
#[track_caller]
fn media(control: &mut Control, incarnation: u8, most: usize) -> Vec<(u32, u32)> {
    let mut packets = Vec::new();
    while packets.len() < most {
        match control.receive(MINUTE) {
            Some(Incoming::Data(data)) if data.incarnation == incarnation => {
                packets.push((data.location, send_time_in(&data.payload).unwrap()));
            }
            Some(Incoming::Control { message: mms::END_OF_STREAM, body }) => {
                assert_eq!(result_of(&body), 0);
                break;
            }
            Some(Incoming::End) | None => panic!("nothing more behind {packets:?}"),
            Some(_) => {}
        }
    }
    packets
}

#[test]
fn a_paused_session_goes_on_where_it_is_told() {
    if !ready("a_paused_session_goes_on_where_it_is_told", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    let keys = key_frames(&root.path().join(INDEXED));
    let (mut control, _) = open(&daemon, &format!("archive/{INDEXED}"));
    control.send(mms::START_PLAYING, &mms::start_at_body(10, 0.0, 0));
    assert_eq!(media(&mut control, 10, 5).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    control.send(mms::STOP_PLAYING, &mms::stop_body(10));
    control.expect(mms::END_OF_STREAM, MINUTE);
    assert_eq!(control.receive(Duration::from_secs(3)), None, "nothing comes in a pause");
    assert_eq!(daemon.metric("wmrelay_viewers", &[]), 0.0);
    for (incarnation, seconds) in [(11, 7.3), (12, 2.0)] {
        control.send(mms::START_PLAYING, &mms::start_at_body(incarnation.into(), seconds, 0));
        let (_, key) = keys.iter().rev().find(|(at, _)| *at as f64 <= seconds * 1000.0).unwrap();
        let packets = media(&mut control, incarnation, usize::MAX);
        assert_eq!((u64::from(packets[0].0), packets.len() as u64), (*key, 94 - key), "{seconds} s: to the end of the file");
    }
}

#[test]
fn a_play_ends_at_the_time_it_was_given() {
    if !ready("a_play_ends_at_the_time_it_was_given", FFMPEG) {
        return;
    }
    let (daemon, root) = archive(HASTE);
    let (mut control, _) = open(&daemon, &format!("archive/{INDEXED}"));
    // Times of the first payloads, without the preroll: what the daemon goes by.
    let times = presentation_times(&root.path().join(INDEXED));
    let first_at = |ms: u64| times.iter().position(|at| *at >= ms).unwrap();
    for (incarnation, start_s, frame_offset, end_ms) in
        [(10, 0.0, 3000, 3000), (11, 4.0, 7500, 7500), (12, 0.0, 0x8000_0000 | 2000, times[0] + 2000)]
    {
        control.send(mms::START_PLAYING, &mms::start_at_body(incarnation.into(), start_s, frame_offset));
        let packets = media(&mut control, incarnation, usize::MAX);
        let last = packets.last().expect("packets").0;
        assert_eq!(last as usize + 1, first_at(end_ms), "{frame_offset:#x} from {start_s} s on\n{times:?}");
    }
}

#[test]
fn there_is_no_fast_forward_and_none_is_promised() {
    let (daemon, _root) = archive("");
    for name in [INDEXED, "audio-wmav2.wma", "camera-mjpeg-pcmu.asf"] {
        let (mut control, opened) = open(&daemon, &format!("archive/{name}"));
        let attributes = u32::from_le_bytes(opened[20..24].try_into().unwrap());
        assert_eq!(attributes & !0x0180_0000, 0, "{name}: neither broadcast nor live: {attributes:#x}");
        assert_eq!(attributes & 0x0180_0000, 0x0100_0000, "{name}: seek, but no stride: {attributes:#x}");
        for rate in [5.0_f64, -5.0] {
            control.send(mms::START_STRIDING, &mms::stride_body(10, rate));
            assert_eq!(result_of(&control.expect(mms::STRIDING_STARTED, MINUTE)), 0xC00D_0045, "{name} at {rate}");
        }
        control.send(mms::START_PLAYING, &mms::start_at_body(11, 0.0, 0));
        assert_eq!(media(&mut control, 11, 1)[0].0, 0, "{name} plays all the same");
    }
}

/// The file has 240 kbit/s and would come at once.
#[test]
fn a_cap_holds() {
    let (daemon, _root) = archive(&format!("{HASTE}[limits]\nviewer_kbps = 500\n"));
    for scheme in ["mmst", "mmsu"] {
        let out = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let done = play(&daemon.url(scheme, &format!("archive/{INDEXED}")), &out.path().join("capped.asf"), &[]).finish(MINUTE);
        let took = begin.elapsed();
        let report = report(&done);
        assert_eq!(report["ended_by"], "the stream ended", "{report}");
        // What goes with one call, up to 64 KiB, may go early.
        let least = (report["bytes"].as_f64().unwrap() - 65536.0) * 8.0 / 500e3;
        assert!(least > 3.0 && took.as_secs_f64() >= least, "{scheme}: {took:?} for {least:.1} s: {report}");
    }
}
