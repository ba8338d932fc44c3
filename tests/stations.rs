//! Station lists: names and URLs in a file, read again when it changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::path::Path;
use std::time::Duration;

use support::daemon::{Daemon, http_get};
use support::mms::open_result;
use support::viewer::Viewer;
use support::{wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// Puts a list in its place whole.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

#[test]
fn a_list_is_read_and_read_again() {
    let upstream = ["one", "two"]
        .map(|name| Daemon::start(format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\n")));
    let [one, two] = [upstream[0].url("mmst", "one"), upstream[1].url("mmst", "two")];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stations.txt");
    put(&file, &format!("# name url title\nJazz {one} Late Jazz\nrock {one}\nown {one}\n"));
    let daemon = Daemon::start(format!(
        "[[publishing_point]]\nname = \"own\"\nsource = {{ type = \"demo\" }}\n[[stations]]\nfile = {file:?}\nlinger_s = 0\n"
    ));
    assert!(daemon.log().contains("names=own") || daemon.log().contains("names=\"own\""), "{}", daemon.log());
    let list = file.to_str().unwrap();
    let watchers = |upstream: &Daemon| upstream.metric("wmrelay_viewers", &[]);
    let jazz = Viewer::tcp(daemon.mms, "jazz");
    jazz.wait_for_packets(20, LIMIT);
    assert_eq!((daemon.metric("wmrelay_source_up", &[("point", list)]), watchers(&upstream[0])), (1.0, 1.0));
    let (status, playlist) = http_get(daemon.http, "/jazz.asx");
    assert!(status == 200 && playlist.contains("Late Jazz"), "{playlist}");
    // The settings' own comes first.
    Viewer::tcp(daemon.mms, "own").wait_for_packets(5, LIMIT);
    assert_eq!(watchers(&upstream[0]), 1.0);
    assert_ne!(open_result(daemon.mms, list.trim_start_matches('/')), 0, "the list itself");

    // A broken list changes nothing, and is told once.
    put(&file, "jazz\n");
    let told = || daemon.log().matches("the station list cannot be used").count();
    wait_until("the broken list is told", LIMIT, || told() == 1);
    assert!(daemon.log().contains("stations.txt:1: a name alone"));
    assert_eq!(open_result(daemon.mms, "rock"), 0);

    // Another URL for one, another name, and one that is gone.
    put(&file, &format!("jazz {two} Later Jazz\nfolk {two}\n"));
    wait_for("the new name", LIMIT, || (open_result(daemon.mms, "folk") == 0).then_some(()));
    assert_ne!(open_result(daemon.mms, "rock"), 0);
    assert_eq!(told(), 1);
    assert!(http_get(daemon.http, "/jazz.asx").1.contains("Later Jazz"));
    // Who watches watches on; the other URL is for those who come when nobody does.
    let with_it = Viewer::tcp(daemon.mms, "jazz");
    with_it.wait_for_packets(5, LIMIT);
    jazz.assert_undisturbed();
    assert_eq!(watchers(&upstream[0]), 1.0);
    drop((jazz, with_it));
    wait_until("nobody pulls", LIMIT, || watchers(&upstream[0]) == 0.0 && watchers(&upstream[1]) == 0.0);
    wait_until("the loan's end", LIMIT, || daemon.metric("wmrelay_source_up", &[("point", list)]) == 0.0);
    let jazz = Viewer::tcp(daemon.mms, "jazz");
    jazz.wait_for_packets(5, LIMIT);
    assert_eq!((watchers(&upstream[0]), watchers(&upstream[1])), (0.0, 1.0));

    // Gone while it is watched.
    put(&file, "");
    wait_until("the empty list is read", LIMIT, || open_result(daemon.mms, "folk") != 0);
    jazz.assert_undisturbed();
    drop(jazz);
    assert_ne!(open_result(daemon.mms, "jazz"), 0);
}

#[test]
fn a_list_that_is_wrong_is_told_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stations.txt"), "ok mms://192.0.2.1/x\nno ftp://192.0.2.1/x\n").unwrap();
    let config = folder.path().join("wmrelay.toml");
    std::fs::write(&config, "[[stations]]\nfile = \"stations.txt\"\n").unwrap();
    for command in ["check", "serve"] {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_wmrelay")).arg(command).arg("--config").arg(&config).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("stations.txt:2: \"ftp://192.0.2.1/x\" does not begin"), "{text}");
    }
    std::fs::write(folder.path().join("stations.txt"), "ok mms://192.0.2.1/x\n").unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_wmrelay")).arg("check").arg("--config").arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("[[stations]]") && text.contains("at_once = 64"), "{text}");
}
