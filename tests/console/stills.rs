//! Pictures of streams: what they show, to whom, and where there are none.

use std::process::Command;
use std::time::Duration;

use crate::chromium::pictures;
use crate::support::accounts::accounts;
use crate::support::daemon::Launch;
use crate::support::{Need, process, ready, wait_for, wait_until};
use crate::visitor::{Somebody, launch};

/// The brightness of 64 by 48 points of a picture.
fn luma(picture: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.jpg");
    std::fs::write(&file, picture).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(&file).args([
        "-vf",
        "scale=64:48",
        "-pix_fmt",
        "gray",
        "-f",
        "rawvideo",
        "-",
    ]);
    let luma = command.output().unwrap().stdout;
    assert_eq!(luma.len(), 64 * 48);
    luma
}

#[test]
fn a_still_is_the_last_key_frame_and_starts_no_source() {
    if !ready("a_still_is_the_last_key_frame_and_starts_no_source", &[Need::Program("ffmpeg")]) {
        return;
    }
    let (_folder, file) = accounts();
    let asleep = "[[publishing_point]]\nname = \"asleep\"\nsource = { type = \"exec\", argv = [\"sleep\", \"1000\"], start = \"watched\" }\n";
    let daemon = launch(&format!("[[publishing_point]]\nname = \"demo\"\nsource = {{ type = \"demo\" }}\n{asleep}"), &file);
    let viewer = Somebody::new(daemon.console, "viewer");
    let still = wait_for("a still", Duration::from_secs(60), || {
        let still = viewer.get("/still?point=demo");
        (still.header("content-type") == Some("image/jpeg")).then_some(still)
    });
    assert!(still.body.starts_with(&[0xFF, 0xD8]) && still.body.ends_with(&[0xFF, 0xD9]), "{} bytes", still.body.len());
    assert_eq!(still.header("x-still"), Some("fresh"));
    if let Some(folder) = pictures() {
        std::fs::write(folder.join("still.jpg"), &still.body).unwrap();
    }
    // What a decoder makes of other frames than key frames is grey, with what moves in it.
    let grey = luma(&still.body).iter().filter(|luma| luma.abs_diff(128) < 8).count();
    assert!(grey < 64 * 48 / 2, "{grey} of {} points are grey", 64 * 48);
    // Nothing runs for it when it is made, and nothing was started by who looked.
    wait_until("no child", Duration::from_secs(10), || process::children_of(daemon.id()).is_empty());
    let none = viewer.get("/still?point=asleep");
    assert_eq!((none.status, none.header("content-type"), none.header("x-still")), (200, Some("image/svg+xml"), Some("none")));
    assert!(process::children_of(daemon.id()).is_empty());
    let sources = daemon.command(&["sources"]).0;
    assert!(sources.lines().any(|line| line.contains("asleep") && !line.contains("up")), "{sources}");
}

#[test]
fn who_may_not_watch_sees_no_picture() {
    let (_folder, file) = accounts();
    let source = "source = { type = \"demo\" }";
    let points = format!(
        "[[publishing_point]]\nname = \"open\"\n{source}\n[[publishing_point]]\nname = \"closed\"\ndeny = [\"127.0.0.0/8\"]\n{source}\n"
    );
    let daemon = launch(&points, &file);
    let [viewer, publisher, operator] = ["viewer", "publisher", "operator"].map(|role| Somebody::new(daemon.console, role));
    let of = |somebody: &Somebody| ["/still?point=open", "/still?point=closed"].map(|path| somebody.get(path).status);
    assert_eq!([of(&viewer), of(&publisher), of(&operator)], [[200, 403], [200, 403], [200, 200]]);
    // Names are those of the settings to the letter.
    assert_eq!(operator.get("/still?point=OPEN").status, 404);
    if !ready("who_may_not_watch_sees_no_picture", &[Need::Program("ffmpeg")]) {
        return;
    }
    let stills = |somebody: &Somebody| somebody.get("/").text().matches("src=\"/still").count();
    wait_until("two that are live", Duration::from_secs(20), || stills(&operator) == 2);
    assert_eq!(stills(&viewer), 1);
}

#[test]
fn without_ffmpeg_the_page_says_so_once() {
    let (_folder, file) = accounts();
    let two = "[[publishing_point]]\nname = \"a\"\nsource = { type = \"demo\" }\n[[publishing_point]]\nname = \"b\"\nsource = { type = \"demo\" }\n";
    let daemon = Launch::new(two).control(format!("users_file = {file:?}")).console().without_programs().start();
    let viewer = Somebody::new(daemon.console, "viewer");
    let page = wait_for("two that are live", Duration::from_secs(20), || {
        let page = viewer.get("/").text();
        (page.matches(">Live<").count() == 2).then_some(page)
    });
    assert!(page.matches("there is no ffmpeg on this machine").count() == 1 && !page.contains("src=\"/still"), "{page}");
    assert_eq!(viewer.get("/still?point=a").header("content-type"), Some("image/svg+xml"));
}
