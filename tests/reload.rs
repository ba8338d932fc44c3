//! Settings that are read again while viewers play: who need not notice does not, and a mistake changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::asf::Synthetic;
use support::daemon::Daemon;
use support::process::send_signal;
use support::publisher::Publisher;
use support::viewer::{Viewer, wait_for_source};
use support::{Need, media, player, ready, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// 1400-byte packets, 560 kbit/s.
const STREAM: Synthetic = Synthetic { packet_size: 1400, packets_per_second: 50 };

/// A publishing point in the words of the settings.
fn point(name: &str, source: &str, more: &str) -> String {
    format!("[[publishing_point]]\nname = \"{name}\"\nsource = {source}\n{more}\n")
}

const PUSH: &str = "{ type = \"push\" }";
const DEMO: &str = "{ type = \"demo\" }";

fn file_source(path: &Path) -> String {
    format!("{{ type = \"file\", path = {path:?} }}")
}

fn settings_file(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("wmrelay.toml")
}

/// Changes words of the settings file.
#[track_caller]
fn rewrite(daemon: &Daemon, before: &str, after: &str) {
    let text = std::fs::read_to_string(settings_file(daemon)).unwrap();
    assert!(text.contains(before), "{before:?} is not in {text}");
    std::fs::write(settings_file(daemon), text.replace(before, after)).unwrap();
}

/// `wmrelay reload --json`, which has to do.
#[track_caller]
fn reload(daemon: &Daemon) -> Value {
    let (text, code) = daemon.command(&["reload", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Each publishing point of an answer with what happened to it.
fn changes(answer: &Value) -> Vec<String> {
    let of = |point: &Value| {
        let keys: Vec<&str> = point["keys"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let restarts = if point["source_restarts"] == true { " restarts" } else { "" };
        let stay = if point["viewers_stay"] == true { "" } else { " viewers end" };
        let text = format!(
            "{} {} {}{restarts}{stay}",
            point["name"].as_str().unwrap(),
            point["change"].as_str().unwrap(),
            keys.join(",")
        );
        text.trim_end().replace("  ", " ")
    };
    answer["points"].as_array().unwrap().iter().map(of).collect()
}

/// Whether our own player gets something within its two seconds.
fn plays(daemon: &Daemon, name: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let output = command.args(["play", "--seconds", "2", "--json", &daemon.url("mmst", name)]).output().unwrap();
    output.status.success()
}

#[test]
fn two_hundred_play_on_while_others_come_change_and_go() {
    let files = tempfile::tempdir().unwrap();
    let [one, two] = ["one.wmv", "two.wmv"].map(|name| files.path().join(name));
    for file in [&one, &two] {
        std::fs::copy(media::data("vod-wmv2-wmav2-indexed.wmv"), file).unwrap();
    }
    let gone = point("gone", DEMO, "");
    let daemon = Daemon::start(
        point("still", PUSH, "") + &point("titled", DEMO, "title = \"before\"") + &point("moved", &file_source(&one), "") + &gone,
    );
    let publisher = Publisher::start(daemon.http, "still", STREAM, u32::MAX);
    wait_for_source(&daemon, "still");
    let watch = |name: &str, count: usize| {
        std::thread::scope(|scope| {
            let joining: Vec<_> = (0..count).map(|_| scope.spawn(|| Viewer::tcp(daemon.mms, name))).collect();
            joining.into_iter().map(|viewer| viewer.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let mut still = watch("still", 140);
    still.extend((0..10).map(|port| Viewer::udp(daemon.mms, "still", 2100 + port, None)));
    let (titled, moved, ending) = (watch("titled", 20), watch("moved", 20), watch("gone", 10));
    for viewer in still.iter().chain(&titled).chain(&moved).chain(&ending) {
        viewer.wait_for_packets(5, LIMIT);
    }

    rewrite(&daemon, "title = \"before\"", "title = \"after\"\ndeny = [\"127.0.0.0/8\"]");
    rewrite(&daemon, &one.display().to_string(), &two.display().to_string());
    rewrite(&daemon, &gone, &point("new", DEMO, ""));
    let expected = ["titled changed title,deny", "moved changed source restarts", "new added", "gone removed viewers end"];
    // What would happen is told first, and happens then.
    let config = settings_file(&daemon).display().to_string();
    let differ = || daemon.command(&["check", "--diff", "--json", "--config", &config]);
    let (text, code) = differ();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(changes(&serde_json::from_str(&text).unwrap()), expected);
    assert!(plays(&daemon, "gone") && !plays(&daemon, "new"), "nothing has changed yet");
    let answer = reload(&daemon);
    assert_eq!((changes(&answer), answer["dry_run"].as_bool()), (expected.map(str::to_owned).into(), Some(false)));
    let (text, _) = daemon.command(&["check", "--diff", "--config", &config]);
    assert!(text.ends_with("nothing would change\n"), "{text}");

    for viewer in &ending {
        wait_until("the end of what is gone", LIMIT, || viewer.ended().is_some_and(|end| end.contains("end of stream")));
    }
    // All at once: a viewer after the other would take minutes.
    let played_on: Vec<_> = [&still, &titled, &moved].into_iter().flatten().collect();
    let seen: Vec<_> = played_on.iter().map(|viewer| viewer.seen().packets).collect();
    wait_until("all play on", LIMIT, || played_on.iter().zip(&seen).all(|(viewer, before)| viewer.seen().packets >= before + 40));
    for viewer in still.iter().chain(&titled) {
        let seen = viewer.seen();
        assert_eq!((seen.missing, seen.backward, seen.time_backward, &seen.ended), (0, 0, 0, &None), "{seen:?}");
    }
    // The file itself has numbers without a packet; its other copy goes on behind it, without a step back and without an end.
    for viewer in &moved {
        let seen = viewer.seen();
        assert_eq!((seen.backward, seen.time_backward, &seen.ended), (0, 0, &None), "{seen:?}");
    }
    assert!(publisher.runs());
    wait_until("the new source", LIMIT, || daemon.metric("wmrelay_source_up", &[("point", "moved")]) == 1.0);
    assert_eq!(daemon.metric("wmrelay_source_restarts_total", &[("point", "moved")]), 0.0, "that was no fault");
    assert!(plays(&daemon, "new") && plays(&daemon, "moved") && !plays(&daemon, "gone"));
    assert!(!plays(&daemon, "titled"), "the new rule holds for who comes");
    let (sources, _) = daemon.command(&["sources"]);
    assert!(sources.contains("two.wmv") && !sources.contains("one.wmv"), "{sources}");
    assert!(daemon.log().contains("settings reloaded: added: new; changed: titled, moved; removed: gone"), "{}", daemon.log());
    publisher.end().unwrap();
    // Each takes a moment to leave.
    std::thread::scope(|scope| {
        for viewer in still.into_iter().chain(titled).chain(moved).chain(ending) {
            scope.spawn(|| drop(viewer));
        }
    });
}

#[test]
fn a_mistake_changes_nothing_and_says_where_it_is() {
    let daemon = Daemon::start(point("one", DEMO, "") + &point("two", DEMO, ""));
    let viewer = Viewer::tcp(daemon.mms, "two");
    viewer.wait_for_packets(5, LIMIT);
    rewrite(&daemon, &point("two", DEMO, ""), &point("three", "{ type = \"dmeo\" }", ""));
    let (text, code) = daemon.command(&["reload"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("wmrelay.toml:7: ") && text.contains("demo"), "{text}");
    let config = settings_file(&daemon).display().to_string();
    assert_eq!(daemon.command(&["check", "--diff", "--config", &config]).1, Some(2));
    send_signal(daemon.id(), "HUP");
    let told = || daemon.log().matches("the settings cannot be used, those before stay in force").count();
    wait_until("the log of the reload by the signal", LIMIT, || told() == 2);
    assert!(daemon.log().contains("wmrelay.toml:7"), "{}", daemon.log());

    // What shows only in the files that are named is found before anything changes, too.
    let users = daemon.folder().join("users");
    std::fs::write(&users, "nonsense\n").unwrap();
    rewrite(&daemon, "dmeo", "demo");
    rewrite(&daemon, "[mms]", &format!("[users]\nfile = {users:?}\n[mms]"));
    let (text, code) = daemon.command(&["reload"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("users:1: "), "{text}");
    assert!(!plays(&daemon, "three") && plays(&daemon, "one"));
    viewer.assert_unbroken(LIMIT);

    // A level that is none is one of them.
    rewrite(&daemon, "[mms]", "[log]\nlevel = \"debugg\"\n[mms]");
    std::fs::remove_file(&users).unwrap();
    rewrite(&daemon, &format!("[users]\nfile = {users:?}\n"), "");
    let (text, code) = daemon.command(&["reload"]);
    assert!(code == Some(2) && text.contains("log.level: \"debugg\" is no log level"), "{text}");
    rewrite(&daemon, "[log]\nlevel = \"debugg\"\n", "");

    // Without the mistake it does, by the signal too.
    send_signal(daemon.id(), "HUP");
    wait_until("the reload", LIMIT, || daemon.log().contains("settings reloaded: added: three; removed: two"));
    assert!(plays(&daemon, "three"));
}

#[test]
fn what_waits_for_a_restart_is_told_and_the_rest_is_applied() {
    let daemon = Daemon::start(point("one", DEMO, ""));
    rewrite(&daemon, "[mms]", "[limits]\nviewers = 1\nidle_s = 30\n[log]\nlevel = \"debug\"\n[window]\nseconds = 10\n[mms]");
    let answer = reload(&daemon);
    assert_eq!(answer["applied"], serde_json::json!(["limits.viewers", "log.level"]));
    assert_eq!(answer["waiting_for_restart"], serde_json::json!(["limits.idle_s", "window.seconds"]));
    let viewer = Viewer::tcp(daemon.mms, "one");
    viewer.wait_for_packets(5, LIMIT);
    assert!(!plays(&daemon, "one"), "there is room for one viewer");
    assert!(daemon.log().contains("DEBUG"));
    let (text, code) = daemon.command(&["reload"]);
    assert_eq!((text.as_str(), code), ("waiting for a restart: limits.idle_s, window.seconds\n", Some(0)));
    // It is not compared with what it does not read.
    let other = daemon.folder().join("other.toml").display().to_string();
    std::fs::write(&other, point("other", DEMO, "")).unwrap();
    let (text, code) = daemon.command(&["check", "--diff", "--config", &other]);
    let told = format!("--config: the running daemon reads {}, not {other}", settings_file(&daemon).display());
    assert!(code == Some(2) && text.starts_with(&told), "{text}");
    let (text, code) = daemon.command(&["check", "--diff", "--mms-listen", "127.0.0.1:0"]);
    assert!(code == Some(2) && text.starts_with("--mms-listen: cannot go with --diff"), "{text}");
    let nobody = daemon.folder().join("nobody.sock").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let output = command.args(["check", "--diff", "--socket", &nobody]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon can be reached"));
}

fn wmrelay(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn users_and_keys_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let [users, keys, other] = ["users", "keys", "other"].map(|name| folder.path().join(name).display().to_string());
    for file in [&keys, &other] {
        wmrelay(&["sign", "--new-key", file], "");
    }
    wmrelay(&["passwd", &users, "anna"], "geheim\n");
    let daemon = Daemon::start(
        point("cam", PUSH, "access = \"all\"")
            + &point("door", DEMO, "access = \"signed\"")
            + &format!("[users]\nfile = {users:?}\n[signing]\nkey_file = {keys:?}\n"),
    );
    let config = settings_file(&daemon).display().to_string();
    let signed = || format!("door{}", wmrelay(&["sign", "door", "--for", "1h", "--config", &config], "").trim_end());
    let before = signed();
    let viewer = Viewer::tcp(daemon.mms, &before);
    viewer.wait_for_packets(5, LIMIT);
    std::fs::copy(&other, &keys).unwrap();
    let after = signed();
    assert!(plays(&daemon, &before) && !plays(&daemon, &after), "not read yet");
    // Berta may publish from now on, with her password; who has a password is asked for it though this is the same machine.
    let push = |user: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--basic", "-u", user, "-X", "POST", "-d", "nonsense"]);
        let output = command.arg(daemon.publish_url("", "cam")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let has_curl = ready("users_and_keys_are_read_again", &[Need::Program("curl")]);
    assert!(!has_curl || push("berta:geheim") == "401");
    wmrelay(&["passwd", &users, "berta"], "geheim\n");
    let answer = reload(&daemon);
    assert_eq!(answer["applied"], serde_json::json!(["users.file", "signing.key_file"]));
    assert!(!has_curl || push("berta:geheim") != "401");
    assert!(!plays(&daemon, &before) && plays(&daemon, &after));
    viewer.assert_unbroken(LIMIT);
    assert_eq!(reload(&daemon)["applied"], serde_json::json!([]));
}

#[test]
fn an_encoder_of_what_is_gone_is_told_and_a_name_comes_back() {
    let cam = point("cam", PUSH, "");
    let daemon = Daemon::start(point("one", DEMO, "") + &cam);
    let publisher = Publisher::start(daemon.http, "cam", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam");
    let viewer = Viewer::tcp(daemon.mms, "cam");
    viewer.wait_for_packets(5, LIMIT);
    rewrite(&daemon, &cam, "");
    assert_eq!(changes(&reload(&daemon)), ["cam removed viewers end"]);
    wait_until("the encoder's end", LIMIT, || !publisher.runs());
    wait_until("the viewer's end", LIMIT, || viewer.ended().is_some());
    rewrite(&daemon, "[mms]", &format!("{cam}[mms]"));
    assert_eq!(changes(&reload(&daemon)), ["cam added"]);
    let publisher = Publisher::start(daemon.http, "cam", STREAM, u32::MAX);
    wait_for_source(&daemon, "cam");
    let again = Viewer::tcp(daemon.mms, "cam");
    again.assert_unbroken(LIMIT);
    // From pushed to built in: the encoder has to go, the viewer stays.
    rewrite(&daemon, &cam, &point("cam", DEMO, ""));
    assert_eq!(changes(&reload(&daemon)), ["cam changed source restarts"]);
    wait_until("the encoder's end", LIMIT, || !publisher.runs());
    wait_until("the new source", LIMIT, || plays(&daemon, "cam"));
}

#[test]
fn viewers_of_files_that_are_gone_get_the_end_and_those_of_others_play_on() {
    if !ready("viewers_of_files_that_are_gone", &[Need::Program("ffmpeg")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    media::repeated(30, &folder.path().join("long.wmv"));
    let files = |name: &str| point(name, &format!("{{ type = \"files\", root = {:?} }}", folder.path()), "");
    let daemon = Daemon::start(files("stays") + &files("goes"));
    let [staying, going] = ["stays/long.wmv", "goes/long.wmv"].map(|name| Viewer::tcp(daemon.mms, name));
    [&staying, &going].iter().for_each(|viewer| viewer.wait_for_packets(5, LIMIT));
    rewrite(&daemon, &files("goes"), "");
    assert_eq!(changes(&reload(&daemon)), ["goes removed viewers end"]);
    wait_until("the end of what is gone", LIMIT, || going.ended().is_some_and(|end| end.contains("end of stream")));
    staying.assert_unbroken(LIMIT);
}

#[test]
fn fifty_reloads_leave_nothing_behind() {
    let sleeper = |name: &str| point(name, "{ type = \"exec\", argv = [\"sleep\", \"1000\"] }", "");
    let daemon = Daemon::start(point("still", DEMO, "") + "# begin\n" + &sleeper("a") + "# end\n");
    let viewer = Viewer::tcp(daemon.mms, "still");
    viewer.wait_for_packets(5, LIMIT);
    let body = std::fs::read_to_string(settings_file(&daemon)).unwrap();
    let (head, rest) = body.split_once("# begin\n").unwrap();
    let (_, tail) = rest.split_once("# end\n").unwrap();
    let template = point("cam-*", "{ type = \"exec\", argv = [\"sleep\", \"{1}\"] }", "");
    let odd = sleeper("b") + &point("c", DEMO, "title = \"odd\"") + &template;
    let even = sleeper("a") + &point("c", "{ type = \"exec\", argv = [\"sleep\", \"1001\"] }", "");
    let threads = || std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap().count();
    let mut before = None;
    for round in 0..50 {
        let points = if round % 2 == 0 { &odd } else { &even };
        std::fs::write(settings_file(&daemon), format!("{head}{points}{tail}")).unwrap();
        let answer = reload(&daemon);
        assert!(!changes(&answer).is_empty());
        if round == 9 {
            // Threads that read files have been made, buffers have their sizes.
            settle(&daemon, 2);
            before = Some((daemon.open_files(), threads(), daemon.resident_kib()));
        }
    }
    settle(&daemon, 2);
    let (files, tasks, resident) = before.unwrap();
    wait_until("open files as before", LIMIT, || daemon.open_files() <= files);
    wait_until("threads as before", LIMIT, || threads() <= tasks);
    let grown = daemon.resident_kib().saturating_sub(resident);
    assert!(grown < 8 << 10, "{grown} KiB more");
    viewer.assert_unbroken(LIMIT);
}

/// Waits until that many children run and no other: less than the half minute after which one that is forgotten would be ended for its
/// silence.
#[track_caller]
fn settle(daemon: &Daemon, children: usize) {
    wait_until("the children of now", Duration::from_secs(20), || {
        let of_daemon = support::process::children_of(daemon.id());
        of_daemon.len() == children && support::process::zombies_of(daemon.id()) == 0
    });
}

#[test]
fn a_stop_does_not_wait_for_settings_that_cannot_be_read() {
    let mut daemon = Daemon::start("");
    // Who opens it waits until somebody writes, as with a disk that is gone.
    std::fs::remove_file(settings_file(&daemon)).unwrap();
    assert!(Command::new("mkfifo").arg(settings_file(&daemon)).status().unwrap().success());
    send_signal(daemon.id(), "HUP");
    wait_until("it reads", LIMIT, || daemon.log().contains("SIGHUP: reading the settings again"));
    send_signal(daemon.id(), "TERM");
    wait_until("the end", LIMIT, || !daemon.runs());
    let log = daemon.log();
    assert!(!log.contains("could not be read within"), "the signal was heard before: {log}");
}

#[test]
fn ffmpeg_plays_on_across_a_reload() {
    if !ready("ffmpeg_plays_on_across_a_reload", &[Need::Program("ffmpeg")]) {
        return;
    }
    let clip = support::publisher::clip();
    let daemon = Daemon::start(point("still", &file_source(clip), "") + &point("gone", DEMO, ""));
    wait_for_source(&daemon, "still");
    let mut playing = player::ffmpeg(&daemon.url("mmst", "still"), 6);
    player::wait_for_frames(&mut playing, 20, LIMIT);
    rewrite(&daemon, &point("gone", DEMO, ""), &point("new", DEMO, "title = \"new\""));
    assert_eq!(changes(&reload(&daemon)), ["new added", "gone removed viewers end"]);
    let finished = playing.finish(LIMIT);
    assert!(finished.status.success(), "{}", finished.stderr);
    let frames = player::frames(&finished.stdout);
    let pictures = player::of_stream(&frames, player::video_stream(&finished.stdout));
    let md5s: Vec<&str> = pictures.iter().map(|frame| frame.md5.as_str()).collect();
    player::assert_clip_over_and_over(md5s.iter().copied());
}
