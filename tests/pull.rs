//! Streams pulled from other daemons by MMS: a relay of a relay of a relay.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::Need::Program;
use support::archive::{HASTE, assert_same, decoded, serve, streams_of, vlc_dump};
use support::asf::Synthetic;
use support::daemon::{Daemon, Launch};
use support::forwarder::Forwarder;
use support::player::{self, Frame, Vlc, frames, of_stream};
use support::process::{Process, send_signal};
use support::publisher::Publisher;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, stays, wait_until};

const LIMIT: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

/// Settings of a daemon whose `cam` is pulled; `more` is added to its source.
fn pulled(url: &str, more: &str) -> String {
    format!("[[publishing_point]]\nname = \"cam\"\nsource = {{ type = \"pull\", url = \"{url}\"{more} }}\n")
}

/// A daemon with the demo, one that pulls it over UDP, and one that pulls that by the scheme given.
fn chain(scheme: &str) -> [Daemon; 3] {
    let first = Daemon::start("");
    let second = Daemon::start(pulled(&first.url("mmsu", "demo"), ""));
    let third = Daemon::start(pulled(&second.url(scheme, "cam"), ""));
    wait_for_source(&third, "cam");
    [first, second, third]
}

/// `wmrelay play` for three seconds; its report.
#[track_caller]
fn play(url: &str, more: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", url, "--seconds", "3", "--json"]).args(more);
    let played = Process::start(command).finish(MINUTE);
    assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
    serde_json::from_str(&played.stdout).unwrap()
}

/// The pictures of the built-in demo, in order.
#[track_caller]
fn demo_pictures() -> Vec<String> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ingest/demo.asf");
    let decoded = player::ffmpeg(&demo.display().to_string(), 0).finish(MINUTE);
    of_stream(&frames(&decoded.stdout), 0).into_iter().map(|frame| frame.md5).collect()
}

/// Each picture is the demo's next one, from the second on: the packet of the key frame may begin with the picture before it, which
/// nobody can decode.
#[track_caller]
fn assert_demo(pictures: &[Frame]) {
    let demo = demo_pictures();
    let place = |frame: &Frame| demo.iter().position(|md5| *md5 == frame.md5).expect("a picture that is not the demo's");
    let first = place(&pictures[1]);
    for (at, picture) in (first..).zip(&pictures[1..]) {
        assert_eq!(place(picture), at % demo.len());
    }
}

#[test]
fn a_relay_of_a_relay_of_a_relay() {
    let [first, second, third] = chain("mmst");
    assert_eq!(first.metric("wmrelay_viewers", &[("transport", "udp")]), 1.0);
    assert_eq!(second.metric("wmrelay_viewers", &[("transport", "tcp")]), 1.0);
    let written = third.folder().join("written.asf");
    for (scheme, more) in [("mmsu", vec![]), ("mmst", vec!["--write", written.to_str().unwrap()])] {
        let report = play(&third.url(scheme, "cam"), &more);
        // Twenty a second, and less than three seconds' worth where the first one had to be waited for.
        assert!(report["packets"].as_u64().unwrap() >= 40, "{report}");
        assert_eq!((&report["lost"], &report["live"]), (&0.into(), &true.into()), "{report}");
        // A viewer begins with a key frame; the demo has one each second.
        let ms = report["first_key_presentation_ms"].as_u64().unwrap();
        assert!(ms.is_multiple_of(1000) && report["first_send_time_ms"].as_u64().unwrap() <= ms, "{report}");
    }
    let count =
        |daemon: &Daemon, result: &str| daemon.metric("wmrelay_pull_connects_total", &[("point", "cam"), ("result", result)]);
    assert_eq!((count(&second, "failed"), count(&third, "failed")), (0.0, 0.0));
    if !ready("a_relay_of_a_relay_of_a_relay", &[Program("ffmpeg")]) {
        return;
    }
    for url in [third.url("mmst", "cam"), written.display().to_string()] {
        let decoded = player::ffmpeg(&url, 2).finish(MINUTE);
        let pictures = of_stream(&frames(&decoded.stdout), 0);
        assert!(pictures.len() >= 40, "{} pictures of {url}\n{}", pictures.len(), decoded.stderr);
        assert_demo(&pictures);
    }
    // Each leaves as it should when it is stopped.
    assert!(third.stop().success());
    wait_until("the third leaves the second", LIMIT, || second.metric("wmrelay_viewers", &[]) == 0.0);
    assert!(second.stop().success());
    wait_until("the second leaves the first", LIMIT, || first.metric("wmrelay_session_ends_total", &[("reason", "left")]) == 1.0);
}

#[test]
fn a_relay_of_a_relay_of_a_relay_over_udp_plays_in_vlc_and_ffmpeg() {
    if !ready("a_relay_of_a_relay_of_a_relay_over_udp_plays_in_vlc_and_ffmpeg", &[Program("ffmpeg"), Program("cvlc")]) {
        return;
    }
    let [first, second, third] = chain("mmsu");
    // VLC over UDP wants one port of the machine, which others may have: the last hop is TCP.
    let mut vlc = Vlc::play(&third.url("mmst", "cam"));
    let decoded = player::ffmpeg(&third.url("mmst", "cam"), 2).finish(MINUTE);
    let pictures = of_stream(&frames(&decoded.stdout), 0);
    assert!(pictures.len() >= 40, "{} pictures\n{}", pictures.len(), decoded.stderr);
    assert_demo(&pictures);
    vlc.wait_for_pictures(60, MINUTE);
    for upstream in [&first, &second] {
        assert_eq!(upstream.metric("wmrelay_viewers", &[("transport", "udp")]), 1.0);
    }
}

#[test]
fn an_upstream_that_is_killed_and_comes_back() {
    let [mut first, second, third] = chain("mmst");
    let viewer = Viewer::tcp(third.mms, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let address: &'static str = Box::leak(first.mms.to_string().into_boxed_str());
    send_signal(first.id(), "KILL");
    wait_until("the first is dead", LIMIT, || !first.runs());
    wait_until("the second notices", LIMIT, || second.metric("wmrelay_source_up", &[("point", "cam")]) == 0.0);
    let again = Launch::new("").listen([address, "127.0.0.1:0", "127.0.0.1:0"]).start();
    wait_for_source(&second, "cam");
    viewer.wait_for_packets(20, LIMIT);
    let seen = viewer.seen();
    assert_eq!((seen.ended, seen.missing, seen.backward, seen.time_backward), (None, 0, 0, 0));
    assert!(second.metric("wmrelay_source_restarts_total", &[("point", "cam")]) >= 1.0);
    assert_eq!(third.metric("wmrelay_source_restarts_total", &[("point", "cam")]), 0.0, "the third waited with its viewer");
    assert_eq!(again.metric("wmrelay_viewers", &[]), 1.0);
    assert!(second.log().contains(&format!("url=mmsu://{address}/demo")), "{}", second.log());
}

#[test]
fn pulled_while_somebody_watches() {
    let upstream = Daemon::start("");
    let daemon = Daemon::start(pulled(&upstream.url("mms", "demo"), ", start = \"watched\", linger_s = 1"));
    let sessions = || upstream.metric("wmrelay_sessions_total", &[]);
    let viewers = || upstream.metric("wmrelay_viewers", &[]);
    stays("nobody asks upstream", Duration::from_millis(300), || sessions() == 0.0);
    let one = Viewer::tcp(daemon.mms, "cam");
    one.wait_for_packets(10, LIMIT);
    let two = Viewer::tcp(daemon.mms, "cam");
    two.wait_for_packets(10, LIMIT);
    assert_eq!((sessions(), viewers()), (1.0, 1.0), "one for both");
    drop(one);
    two.wait_for_packets(30, LIMIT);
    assert_eq!((sessions(), viewers()), (1.0, 1.0));
    drop(two);
    wait_until("the session upstream ends", LIMIT, || viewers() == 0.0);
    assert!(daemon.log().contains("nobody watches"), "{}", daemon.log());
    assert_eq!(sessions(), 1.0);
    let three = Viewer::tcp(daemon.mms, "cam");
    three.wait_for_packets(10, LIMIT);
    assert_eq!(sessions(), 2.0);
}

/// Settings of a daemon that mirrors another one as `mirror/`.
fn mirrored(upstream: &Daemon, scheme: &str) -> String {
    let url = upstream.url(scheme, "");
    format!(
        "[[publishing_point]]\nname = \"mirror/\"\nsource = {{ type = \"pull\", url = \"{url}\", start = \"watched\", linger_s = 1 }}\n"
    )
}

#[test]
fn live_names_of_a_mirrored_folder_are_pulled_once() {
    let point = |name: &str| format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\n");
    let upstream = Daemon::start(point("demo") + &point("shows/late one"));
    let daemon = Daemon::start(mirrored(&upstream, "mms"));
    let viewers = || upstream.metric("wmrelay_viewers", &[]);
    for (lap, name) in (1..).zip(["mirror/demo", "mirror/shows/late one", "mirror/demo"]) {
        let one = Viewer::tcp(daemon.mms, name);
        one.wait_for_packets(10, LIMIT);
        let two = Viewer::tcp(daemon.mms, name);
        two.wait_for_packets(10, LIMIT);
        assert_eq!(viewers(), 1.0, "one for both");
        // Somebody who asked, and somebody who pulls.
        assert_eq!(upstream.metric("wmrelay_sessions_total", &[]), 2.0 * f64::from(lap));
        // Nothing of the name that had the publishing point before: its numbers would be high by now.
        assert!(one.seen().first.unwrap() < 60, "{name}: {:?}", one.seen());
        drop(one);
        two.wait_for_packets(10, LIMIT);
        let seen = two.seen();
        assert_eq!((seen.ended, seen.missing, seen.backward), (None, 0, 0));
        drop(two);
        wait_until("the session upstream ends", LIMIT, || viewers() == 0.0);
        wait_until("the window is let go of", LIMIT, || daemon.metric("wmrelay_window_bytes", &[("point", "mirror")]) == 0.0);
    }
    for name in ["mirror/missing", "mirror/missing", "mirror", "mirror/", "mirror//demo"] {
        assert_ne!(support::mms::open_result(daemon.mms, name), 0, "{name}");
    }
    assert_eq!(upstream.metric("wmrelay_refusals_total", &[("cause", "unknown_name")]), 1.0, "remembered");
    assert_eq!(daemon.metric("wmrelay_refusals_total", &[]), 5.0);
    let log = daemon.log();
    assert!(log.contains("name=\"shows/late one\"") || log.contains("name=shows/late one"), "{log}");
    // A second viewer of a name over UDP, while another name plays.
    let (one, other) = (Viewer::udp(daemon.mms, "mirror/demo", 4000, None), Viewer::tcp(daemon.mms, "Mirror/shows/late one"));
    one.wait_for_packets(10, LIMIT);
    other.wait_for_packets(10, LIMIT);
    assert_eq!(viewers(), 2.0);
}

/// `wmrelay play` of a file; its report.
#[track_caller]
fn play_file(url: &str, more: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", url, "--json"]).args(more);
    let played = Process::start(command).finish(MINUTE);
    assert!(played.status.success(), "{}{}", played.stdout, played.stderr);
    serde_json::from_str(&played.stdout).unwrap()
}

#[test]
fn files_of_a_mirrored_folder_are_relayed_for_each_viewer() {
    const FILE: &str = "archive/vod-wmv2-wmav2-indexed.wmv";
    let root = support::media::folder();
    let archive =
        format!("[[publishing_point]]\nname = \"archive/\"\nsource = {{ type = \"files\", root = {:?} }}\n", root.path());
    let upstream = Daemon::start(format!("{HASTE}{archive}"));
    let daemon = Daemon::start(HASTE.to_owned() + &mirrored(&upstream, "mmst"));
    let mirror = |scheme: &str, name: &str| daemon.url(scheme, &format!("mirror/{name}"));
    let written = |name: &str| daemon.folder().join(name);
    let (direct, relayed) = (written("direct.wmv"), written("relayed.wmv"));
    // The whole file, byte for byte; packets that do not fit a datagram are cut anew by either, with a File ID of its own.
    let cases = [("mmst", FILE, true), ("mmsu", FILE, false), ("mmst", "archive/large-packets.wmv", true)];
    for (scheme, name, whole) in cases.into_iter().chain([("mmsu", "archive/camera-mjpeg-pcmu.asf", true)]) {
        if name.contains("large") && !ready("files_of_a_mirrored_folder_are_relayed_for_each_viewer", &[Program("ffmpeg")]) {
            continue;
        }
        let there = play_file(&upstream.url(scheme, name), &["--write", direct.to_str().unwrap()]);
        let here = play_file(&mirror(scheme, name), &["--write", relayed.to_str().unwrap()]);
        for fact in ["live", "lost", "packets", "packet_count", "duration_s", "transport"] {
            assert_eq!(there[fact], here[fact], "{scheme} {name}: {fact}\n{there}\n{here}");
        }
        assert_eq!((&here["live"], &here["lost"]), (&false.into(), &0.into()), "{here}");
        let packets = |file: &Path| {
            let (start, bytes) = (support::media::data_start(file).0, std::fs::read(file).unwrap());
            bytes[if whole { 0 } else { usize::try_from(start).unwrap() }..].to_vec()
        };
        assert!(packets(&direct) == packets(&relayed), "{scheme} {name}: not what the upstream sends");
    }
    for place in [["--start", "0.5"], ["--start", "3.2"], ["--start", "7.9"], ["--packet", "50"], ["--offset", "90000"]] {
        let whole = [&place[..], &["--seconds", "1"]].concat();
        let [there, here] = [upstream.url("mmst", FILE), mirror("mmst", FILE)].map(|url| play_file(&url, &whole));
        for fact in ["first_location", "first_send_time_ms", "first_key_presentation_ms", "duration_s"] {
            assert_eq!(there[fact], here[fact], "{place:?}: {fact}\n{there}\n{here}");
        }
        assert!(here["first_location"].is_number(), "{here}");
    }
    // While it plays, too.
    let report = play_file(&mirror("mmst", FILE), &["--seek-after", "0:5", "--seconds", "2"]);
    let there = play_file(&upstream.url("mmst", FILE), &["--start", "5", "--seconds", "1"]);
    assert_eq!(report["first_location"], there["first_location"], "{report}");
    assert!(support::mms::open_result(daemon.mms, "mirror/archive/missing.wmv") != 0);
    // All have left, and so has what was there for them.
    let connections = || upstream.metric("wmrelay_connections", &[]);
    wait_until("nobody is at the upstream", LIMIT, || connections() == 0.0);
    assert_eq!(daemon.metric("wmrelay_viewers", &[]), 0.0);
}

/// A daemon with the demo and the samples, and one that mirrors it; the settings are for both.
fn mirror(settings: &str) -> (Daemon, Daemon, tempfile::TempDir) {
    let root = support::media::folder();
    let demo = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";
    let upstream = serve(root.path(), &format!("{settings}{demo}"));
    let daemon = Daemon::start(settings.to_owned() + &mirrored(&upstream, "mms"));
    (upstream, daemon, root)
}

#[test]
fn ffmpeg_and_vlc_play_what_is_mirrored() {
    if !ready("ffmpeg_and_vlc_play_what_is_mirrored", &[Program("ffmpeg"), Program("cvlc")]) {
        return;
    }
    let (upstream, daemon, root) = mirror(HASTE);
    let mut vlc = Vlc::play(&daemon.url("mmst", "mirror/demo"));
    let live = player::ffmpeg(&daemon.url("mmst", "mirror/demo"), 2).finish(MINUTE);
    let pictures = of_stream(&frames(&live.stdout), 0);
    assert!(pictures.len() >= 30, "{} pictures\n{}", pictures.len(), live.stderr);
    assert_demo(&pictures);
    vlc.wait_for_pictures(30, MINUTE);
    assert_eq!(upstream.metric("wmrelay_viewers", &[]), 1.0, "one for all");
    // Files of one and of several rates, every frame.
    let out = tempfile::tempdir().unwrap();
    for name in ["h264-aac-bframes.asf", "mbr-2video-1audio.asf"] {
        let url = daemon.url("mmst", &format!("mirror/archive/{name}"));
        // Parsers are off: they would ask beyond the end.
        let stored = |input: &str| {
            let mut command = Command::new("ffmpeg");
            command.args(["-nostdin", "-loglevel", "error", "-fflags", "nofillin+noparse", "-i", input]);
            command.args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]);
            streams_of(&Process::start(command).finish(MINUTE))
        };
        assert_same(name, &stored(&url), &stored(&root.path().join(name).display().to_string()));
        let file = out.path().join(name);
        let done = vlc_dump(&url, &file).finish(MINUTE);
        assert!(file.exists(), "VLC wrote nothing of {name}\n{}", done.stderr);
        assert_same(name, &decoded(&file), &decoded(&root.path().join(name)));
    }
}

#[test]
fn vlc_pauses_a_mirrored_file_and_our_client_leaves_streams_out() {
    if !ready("vlc_pauses_a_mirrored_file_and_our_client_leaves_streams_out", &[Program("ffmpeg"), Program("cvlc")]) {
        return;
    }
    let (upstream, daemon, _root) = mirror("[delivery]\nburst_ms = 0\n");
    let url = |daemon: &Daemon, below: &str| daemon.url("mmst", &format!("{below}archive/vod-wmv2-wmav2-indexed.wmv"));
    let mut vlc = Vlc::play(&url(&daemon, "mirror/"));
    vlc.wait_for_pictures(30, MINUTE);
    vlc.say("pause");
    // The upstream rests as well, with its connection kept.
    wait_until("the upstream's pause", MINUTE, || upstream.metric("wmrelay_viewers", &[]) == 0.0);
    let sent = |daemon: &Daemon| daemon.metric("wmrelay_sent_packets_total", &[]);
    stays("the pause", Duration::from_secs(1), || upstream.metric("wmrelay_viewers", &[]) == 0.0);
    // Counted by then.
    let before = (sent(&upstream), sent(&daemon));
    stays("nothing is sent", Duration::from_secs(1), || (sent(&upstream), sent(&daemon)) == before);
    let (shown, sessions) = (vlc.shown().0, upstream.metric("wmrelay_sessions_total", &[]));
    vlc.say("pause");
    vlc.wait_for_pictures(shown + 40, MINUTE);
    assert_eq!(upstream.metric("wmrelay_sessions_total", &[]), sessions, "the same connection");
    drop(vlc);
    // Sound alone: the same packets as from the upstream itself.
    let folder = tempfile::tempdir().unwrap();
    let of = |daemon: &Daemon, below: &str, file: &str| {
        let file = folder.path().join(file);
        let report = play_file(&url(daemon, below), &["--streams", "2", "--seconds", "3", "--write", file.to_str().unwrap()]);
        assert_eq!(report["lost"], 0, "{report}");
        std::fs::read(file).unwrap()
    };
    let (there, here) = (of(&upstream, "", "there.wma"), of(&daemon, "mirror/", "here.wma"));
    // Where the three seconds end is for the clock to say.
    let both = there.len().min(here.len());
    assert!(both > 20_000 && there[..both] == here[..both], "{} and {} bytes", there.len(), here.len());
    let log = daemon.log();
    let named = |line: &str| line.contains("point=\"mirror\" name=\"archive/vod-wmv2-wmav2-indexed.wmv\"");
    assert!(log.lines().any(named), "{log}");
}

/// Each name asks for a longer one of the same daemon, which ends with the questions that one address may have.
#[test]
fn a_mirror_of_itself_comes_to_an_end() {
    let [.., high, low] = std::process::id().to_be_bytes();
    let address: &'static str = Box::leak(format!("127.{high}.{low}.83:1755").into_boxed_str());
    let settings = format!(
        "[[publishing_point]]\nname = \"mirror/\"\nsource = {{ type = \"pull\", url = \"mmst://{address}/mirror/a/\" }}\n"
    );
    let daemon = Launch::new(settings).listen([address, "127.0.0.1:0", "127.0.0.1:0"]).start();
    for _ in 0..2 {
        assert_ne!(support::mms::open_result(daemon.mms, "mirror/x"), 0);
    }
    assert!(daemon.metric("wmrelay_sessions_total", &[]) <= 20.0, "{}", daemon.log());
    wait_until("all questions are over", LIMIT, || daemon.metric("wmrelay_connections", &[]) == 0.0);
}

/// Five of a hundred datagrams are lost on the way; viewers get what is asked for again where it belongs.
#[test]
fn resends_come_in_their_place() {
    let upstream = Daemon::start("[[publishing_point]]\nname = \"cam\"\nsource = { type = \"push\" }\n");
    let publisher = Publisher::start(upstream.http, "cam", Synthetic { packet_size: 400, packets_per_second: 500 }, u32::MAX);
    wait_for_source(&upstream, "cam");
    let forwarder = Forwarder::start(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 79)), upstream.mms, 50, 0x5EED);
    let daemon = Daemon::start(pulled(&format!("mmsu://{}/cam", forwarder.address), ""));
    wait_for_source(&daemon, "cam");
    let viewer = Viewer::tcp(daemon.mms, "cam");
    viewer.wait_for_packets(1, LIMIT);
    let begin = viewer.seen();
    viewer.wait_for_packets(2_500, LIMIT);
    let seen = viewer.seen();
    let (came, sent) = (seen.packets - begin.packets, u64::from(seen.number.unwrap() - begin.number.unwrap()));
    let (passed, lost) = forwarder.to_viewer();
    assert!(lost * 100 > (passed + lost) * 3, "the path lost {lost} of {}", passed + lost);
    assert!(came <= sent && (sent - came) * 1000 <= sent * 2, "{came} of {sent} came");
    assert_eq!((seen.backward, seen.time_backward), (0, 0), "{seen:?}");
    assert!(publisher.runs(), "{:?}", publisher.end());
}

#[test]
fn an_upstream_that_is_not_there_is_tried_again() {
    let nobody: SocketAddr = ([127, 0, 0, 80], 9).into();
    let daemon = Daemon::start(pulled(&format!("mms://{nobody}/cam"), ""));
    let failures = || daemon.metric("wmrelay_pull_connects_total", &[("point", "cam"), ("result", "failed")]);
    wait_until("two attempts", LIMIT, || failures() >= 2.0);
    let log = daemon.log();
    assert!(log.contains("connecting to 127.0.0.80 port 9") && log.contains("retry_s=0.5"), "{log}");
}
