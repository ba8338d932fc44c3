//! What viewers see while a source is gone, and while one that they started is on its way.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use support::Need::{self, Program};
use support::daemon::Daemon;
use support::player::{self, clip_pictures, frames, of_stream, video_stream};
use support::process::{Process, children_of, zombies_of};
use support::publisher::{clip, clip_for_ever, ffmpeg_push};
use support::viewer::Viewer;
use support::{Random, ready, stays, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);
/// What a daemon may take more after many turns; the allocator keeps some, and other viewers' buffers come and go.
const GROWTH_KIB: u64 = 24 << 10;

const SLATE: &str = "[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n\
                     fallback = { slate = \"Camera 1 is not there\" }\nfallback_after_s = 1\n";

/// Runs of pictures that are not the clip's, of five at least: less is what a decoder makes of a picture that was cut off.
fn slates_in(output: &str) -> usize {
    let clip = clip_pictures();
    let pictures = of_stream(&frames(output), video_stream(output));
    let is_clip: Vec<bool> = pictures.iter().map(|picture| clip.contains_key(&picture.md5)).collect();
    is_clip.chunk_by(|one, other| one == other).filter(|run| !run[0] && run.len() >= 5).count()
}

#[test]
fn a_source_killed_twenty_times_under_fifty_viewers_loses_none() {
    if !ready("a source killed twenty times", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(format!("[window]\nseconds = 4\n{SLATE}"));
    let url = daemon.publish_url("", "cam1");
    // The slate is of the clip's own format once that is known, so that players go on with the header that they have.
    let mut publisher = ffmpeg_push("asf_stream", "POST", &url);
    wait_until("the slate of the clip's format", MINUTE, || daemon.log().contains("slate made"));
    wait_until("the source", MINUTE, || !daemon.on_fallback("cam1").0 && daemon.metric("wmrelay_source_up", &[]) == 1.0);
    let first = daemon.on_fallback("cam1").1;
    let decoder = player::ffmpeg(&daemon.url("mmst", "cam1"), 0);
    let viewers = Viewer::fifty(&daemon, "cam1", 4890);
    wait_until("the decoder's first pictures", MINUTE, || decoder.stdout().lines().count() > 30);

    let mut random = Random(7);
    let mut steady = None;
    for round in 1..=20 {
        std::thread::sleep(Duration::from_millis(random.next() % 200));
        publisher.signal("KILL");
        drop(publisher);
        let turn = first + f64::from(round);
        wait_until("the slate", MINUTE, || daemon.on_fallback("cam1") == (true, turn));
        if round == 1 {
            // Now and then a while: the slate is a loop.
            std::thread::sleep(Duration::from_secs(4));
        }
        // Long enough for a run of pictures, see `slates_in`.
        std::thread::sleep(Duration::from_millis(600 + random.next() % 200));
        publisher = ffmpeg_push("asf_stream", "POST", &url);
        wait_until("the source", MINUTE, || daemon.on_fallback("cam1") == (false, turn));
        if round == 5 {
            steady = Some((daemon.resident_kib(), daemon.open_files()));
        }
    }
    viewers.iter().for_each(|viewer| viewer.assert_unbroken(MINUTE));
    let (resident, files) = steady.unwrap();
    let (resident_now, files_now) = (daemon.resident_kib(), daemon.open_files());
    eprintln!("resident {resident} KiB, then {resident_now} KiB; {files} files, then {files_now}");
    assert!(resident_now < resident + GROWTH_KIB, "{resident} KiB, then {resident_now} KiB");
    // The connection of a publisher that was killed may be open for a moment.
    wait_until("no more files than before", MINUTE, || daemon.open_files() <= files + 1);
    assert_eq!((zombies_of(daemon.id()), children_of(daemon.id()).len()), (0, 0));
    assert_eq!(daemon.metric("wmrelay_viewers", &[]), 51.0, "nobody left");

    // The real player decoded all of it in one go.
    wait_until("the last slate in the decoder", MINUTE, || slates_in(&decoder.stdout()) >= 20);
    let shown = slates_in(&decoder.stdout());
    assert_eq!(shown, 20, "slates, each left again");
    wait_until("the clip behind the last slate", MINUTE, || {
        let output = decoder.stdout();
        let last = of_stream(&frames(&output), video_stream(&output)).pop();
        last.is_some_and(|picture| clip_pictures().contains_key(&picture.md5))
    });
}

#[test]
fn where_nobody_ever_published_viewers_of_every_protocol_see_the_slate() {
    if !ready("the slate of a source that never came", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(SLATE);
    let urls = [daemon.url("mmst", "cam1"), daemon.url("mmsh", "cam1"), daemon.rtsp_url("rtsp", "cam1")];
    // All at once: each waits for the slate to be made.
    let players: Vec<Process> = urls.iter().map(|url| player::ffmpeg(url, 2)).collect();
    for (player, url) in players.into_iter().zip(&urls) {
        let decoded = player.finish(MINUTE);
        assert!(decoded.status.success(), "{url}: {}", decoded.stderr);
        let pictures = of_stream(&frames(&decoded.stdout), video_stream(&decoded.stdout));
        assert!(pictures.len() >= 10, "{url}: {} pictures", pictures.len());
        // Still: what the encoder makes better and better of one picture, once in a lap.
        let different: HashSet<&str> = pictures.iter().map(|picture| picture.md5.as_str()).collect();
        assert!(different.len() <= 10, "{url}: {} different pictures of {}", different.len(), pictures.len());
    }
}

/// A header of its own each way: StreamChange, and everybody stays.
#[test]
fn another_publishing_point_of_another_format_stands_in() {
    if !ready("another publishing point stands in", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(
        "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n\
         [[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\nfallback = \"Demo\"\nfallback_after_s = 1\n",
    );
    let url = daemon.publish_url("", "cam1");
    let publisher = ffmpeg_push("asf_stream", "POST", &url);
    wait_until("the source", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 1.0);
    wait_until("it alone", MINUTE, || !daemon.on_fallback("cam1").0);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["swarm", &daemon.url("mmst", "cam1"), "--viewers", "10", "--seconds", "20", "--json"]);
    let swarm = Process::start(command);
    wait_until("the swarm", MINUTE, || daemon.metric("wmrelay_viewers", &[]) == 10.0);
    let turn = daemon.on_fallback("cam1").1 + 1.0;
    drop(publisher);
    wait_until("the other one", MINUTE, || daemon.on_fallback("cam1") == (true, turn));
    assert!(daemon.log().contains("difference=stream 1: "), "{}", daemon.log());
    let _publisher = ffmpeg_push("asf_stream", "POST", &url);
    wait_until("the source again", MINUTE, || daemon.on_fallback("cam1") == (false, turn));
    let report = swarm.finish(2 * MINUTE);
    assert!(report.status.success(), "{}{}", report.stdout, report.stderr);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    let counts = ["viewers_joined", "viewers_playing", "viewers_failed"].map(|name| report[name].as_u64());
    assert_eq!(counts, [Some(10), Some(10), Some(0)], "{report}");
}

/// A source of the settings, started by its viewers, that takes longer to begin than a player's step may take.
fn slow_exec(wait: &str) -> String {
    let words: Vec<String> = clip_for_ever().iter().map(|word| format!("'{word}'")).collect();
    let line = format!("sleep {wait}; exec ffmpeg {} -f asf_stream -", words.join(" "));
    let argv = format!("[\"sh\", \"-c\", {line:?}]");
    format!(
        "source_timeout_s = 20\n[limits]\nhandshake_s = 1\n[[publishing_point]]\nname = \"cam1\"\n\
         source = {{ type = \"exec\", start = \"watched\", linger_s = 1, argv = {argv} }}\n"
    )
}

#[test]
fn a_join_waits_for_a_source_that_it_starts_in_every_protocol() {
    if !ready("a join waits for its source", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(slow_exec("3"));
    for url in [daemon.url("mmst", "cam1"), daemon.url("mmsh", "cam1"), daemon.rtsp_url("rtsp", "cam1")] {
        assert!(children_of(daemon.id()).is_empty(), "nobody watches");
        let decoded = player::ffmpeg(&url, 1).finish(MINUTE);
        let pictures = frames(&decoded.stdout).len();
        assert!(decoded.status.success() && pictures >= 10, "{url}: {pictures} frames\n{}", decoded.stderr);
        wait_until("the end of the source", MINUTE, || children_of(daemon.id()).is_empty());
    }
}

#[test]
fn a_join_is_refused_where_no_source_comes_in_its_time() {
    if !ready("a join is refused", FFMPEG) {
        return;
    }
    let daemon = Daemon::start(slow_exec("1000").replace("source_timeout_s = 20", "source_timeout_s = 3"));
    let urls = [daemon.url("mmst", "cam1"), daemon.url("mmsh", "cam1"), daemon.rtsp_url("rtsp", "cam1")];
    let players: Vec<Process> = urls.iter().map(|url| player::ffmpeg(url, 1)).collect();
    for (player, url) in players.into_iter().zip(&urls) {
        let decoded = player.finish(MINUTE);
        assert!(!decoded.status.success(), "{url}: {}", decoded.stdout);
    }
    assert_eq!(daemon.metric("wmrelay_refusals_total", &[("cause", "no_source")]), 3.0, "{}", daemon.metrics());
    wait_until("the end of the source", MINUTE, || children_of(daemon.id()).is_empty());
}

#[test]
fn a_file_is_played_while_somebody_watches() {
    if !ready("a file while somebody watches", FFMPEG) {
        return;
    }
    let file = clip().display().to_string();
    let daemon = Daemon::start(format!(
        "[[publishing_point]]\nname = \"cam1\"\nsource = {{ type = \"file\", path = {file:?}, start = \"watched\", linger_s = 1 }}\n"
    ));
    let packets = || daemon.metric("wmrelay_source_packets_total", &[("point", "cam1")]);
    assert_eq!(packets(), 0.0);
    for _ in 0..2 {
        let viewer = Viewer::tcp(daemon.mms, "cam1");
        viewer.wait_for_packets(20, MINUTE);
        drop(viewer);
        wait_until("the end of the file", MINUTE, || daemon.metric("wmrelay_source_up", &[("point", "cam1")]) == 0.0);
        let played = packets();
        stays("nothing is played to nobody", Duration::from_millis(500), || packets() == played);
    }
}

#[test]
fn mistakes_are_told_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wmrelay.toml");
    let point =
        |name: &str, rest: &str| format!("[[publishing_point]]\nname = {name:?}\nsource = {{ type = \"push\" }}\n{rest}\n");
    let text = [
        point("a", "fallback = \"b\""),
        point("b", "fallback = { point = \"A\" }"),
        point("c", "fallback = \"none\""),
        point("d", "fallback = { slate = \"\" }"),
        point("e", "fallback = { file = \"x.asf\", slate = \"x\" }"),
        point("f", "fallback = \"g\"\nfallback_after_s = 0"),
        point("g", ""),
    ];
    std::fs::write(&config, text.concat()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["check", "--config"]).arg(&config);
    let checked = Process::start(command).finish(MINUTE);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(!checked.status.success(), "{said}");
    for (line, key) in [
        (4, "publishing_point[0].fallback"),
        (8, "publishing_point[1].fallback"),
        (12, "publishing_point[2].fallback"),
        (16, "publishing_point[3].fallback"),
        (20, "publishing_point[4].fallback"),
        (25, "publishing_point[5].fallback_after_s"),
    ] {
        let place = format!("wmrelay.toml:{line}: {key}");
        assert!(said.contains(&place), "{place}\n{said}");
    }
}
