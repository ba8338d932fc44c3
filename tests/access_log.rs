//! The access log as programs read it that know those of Windows Media Services.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::archive::{HASTE, play, serve};
use support::daemon::{Daemon, http_get};
use support::media::data;
use support::mms::{Control, connect_body, funnel_body, open_body};
use support::process::send_signal;
use support::viewer::Viewer;
use support::{wait_for, wait_until};
use wmrelay::mms::frame::encode;
use wmrelay::mms::log::Logging;

const MINUTE: Duration = Duration::from_secs(60);
const DEMO: &str = "[[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n";

/// A line by its columns.
type Line = BTreeMap<String, String>;

fn lines(file: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let columns: Vec<String> = text
        .lines()
        .find_map(|line| line.strip_prefix("#Fields: "))
        .map(|names| names.split(' ').map(str::to_owned).collect())
        .unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let values: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(values.len(), columns.len(), "{line}");
            columns.iter().cloned().zip(values).collect()
        })
        .collect()
}

fn is(line: &Line, expected: &[(&str, &str)]) -> bool {
    expected.iter().all(|(column, value)| line[*column] == *value)
}

#[track_caller]
fn assert_has(lines: &[Line], expected: &[(&str, &str)]) -> Line {
    let found: Vec<&Line> = lines.iter().filter(|line| is(line, expected)).collect();
    assert_eq!(found.len(), 1, "lines with {expected:?} among {lines:#?}");
    found[0].clone()
}

/// A daemon with a file on demand, the demo, and an access log.
fn daemon(root: &Path, more: &str) -> (Daemon, PathBuf) {
    std::fs::copy(data("audio-wmav2.wma"), root.join("a.wma")).unwrap();
    let file = root.join("access.log");
    let settings = format!("{HASTE}[access_log]\nfile = {file:?}\n{more}{DEMO}");
    (serve(root, &settings), file)
}

/// Sends a request and reads so many bytes of the answer, or to its end.
fn ask(daemon: SocketAddr, request: &str, bytes: usize) -> String {
    let mut connection = TcpStream::connect(daemon).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < bytes {
        match connection.read(&mut buffer).unwrap() {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_line_for_each_session_of_every_protocol() {
    let root = tempfile::tempdir().unwrap();
    let (daemon, file) = daemon(root.path(), "");
    // Our own player to the end of a file, over MMS.
    let copy = root.path().join("copy.wma");
    assert!(play(&daemon.url("mmst", "archive/a.wma"), &copy, &[]).finish(MINUTE).status.success());
    // Over MMS and UDP, left in the middle.
    let viewer = Viewer::udp(daemon.mms, "demo", 4890, None);
    viewer.wait_for_packets(5, MINUTE);
    drop(viewer);
    // A download, a name that is not there, a metafile, which is no session.
    assert!(ask(daemon.http, "GET /archive/a.wma HTTP/1.0\r\n\r\n", usize::MAX).contains(" 200 OK\r\n"));
    assert_eq!(http_get(daemon.http, "/nothing%20here?k=secret").0, 404);
    assert_eq!(http_get(daemon.http, "/demo.asx").0, 200);
    assert!(daemon.stop().success());

    let lines = lines(&file);
    let name = "/archive/a.wma";
    let whole = assert_has(&lines, &[("protocol", "mms"), ("cs-uri-stem", name), ("c-status", "200")]);
    let size = std::fs::metadata(root.path().join("a.wma")).unwrap().len();
    assert!(whole["sc-bytes"].parse::<u64>().unwrap() > size * 9 / 10 && whole["filelength"] != "0", "{whole:#?}");
    let left = assert_has(&lines, &[("protocol", "mms"), ("cs-uri-stem", "/demo"), ("transport", "UDP")]);
    assert!(left["s-pkts-sent"].parse::<u64>().unwrap() >= 5 && left["c-ip"] == "127.0.0.1", "{left:#?}");
    let bytes = size.to_string();
    assert_has(&lines, &[("protocol", "http"), ("cs-uri-stem", name), ("c-status", "200"), ("sc-bytes", &bytes)]);
    assert_has(&lines, &[("cs-uri-stem", "/nothing%20here"), ("c-status", "404")]);
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

/// What is tried under two names is one session; what follows on its connection is another.
#[test]
fn endings_that_only_show_what_it_is_and_connections_that_are_kept() {
    let root = tempfile::tempdir().unwrap();
    let (daemon, file) = daemon(root.path(), "");
    assert!(ask(daemon.http, "GET /demo.wmv HTTP/1.0\r\n\r\n", 20_000).contains(" 200 OK\r\n"));
    assert!(!daemon.log().contains("no such publishing point"));
    assert_eq!(http_get(daemon.http, "/nothing.wmv").0, 404);
    let get = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n");
    let kept = get("archive/a.wma").repeat(2) + &get("archive/nothing.asf");
    let answers = ask(daemon.http, &kept, usize::MAX);
    assert!(answers.matches(" 200 OK\r\n").count() == 2 && answers.contains(" 404 Not Found\r\n"), "{answers:.300}");
    assert_eq!(daemon.metric("wmrelay_refusals_total", &[("cause", "unknown_name")]), 2.0);
    assert!(daemon.stop().success());

    let lines = lines(&file);
    assert_has(&lines, &[("cs-uri-stem", "/demo"), ("c-status", "408")]);
    assert_has(&lines, &[("cs-uri-stem", "/nothing.wmv"), ("c-status", "404")]);
    assert_has(&lines, &[("cs-uri-stem", "/archive/nothing.asf"), ("c-status", "404")]);
    let size = std::fs::metadata(root.path().join("a.wma")).unwrap().len().to_string();
    let whole: Vec<&Line> = lines.iter().filter(|line| line["cs-uri-stem"] == "/archive/a.wma").collect();
    assert!(whole.len() == 2 && whole.iter().all(|line| line["sc-bytes"] == size && line["c-status"] == "200"), "{whole:#?}");
    assert_eq!(lines.len(), 5, "{lines:#?}");
}

/// The fields of MS-WMLOG 2.2.1, as a player fills them.
fn report(duration_s: u32) -> String {
    format!(
        "0.0.0.0 2024-05-01 12:00:00 - http://h/demo 0 {duration_s} 1 210 {{3300AD50-2C39-46c0-AE0A-70b64f321a80}} 9.0.0.2980 en-US - - \
         wmplayer.exe 9.0.0.2980 Windows_XP 5.1.0.2600 Pentium 0 0 313441 http TCP - - - - 4711 - 177 0 0 0 0 0 0 1 5 99 - - - -"
    )
}

#[test]
fn what_players_say_is_merged() {
    let root = tempfile::tempdir().unwrap();
    let (daemon, file) = daemon(root.path(), "");
    // Over HTTP: a player that plays twice in one session, each on a connection of its own, and says how it was on a third.
    let head = |pragma: &str| format!("HTTP/1.0\r\nUser-Agent: NSPlayer/9.0.0.2980\r\nHost: h\r\nPragma: {pragma}\r\n");
    let described = ask(daemon.http, &format!("GET /demo {}\r\n", head("no-cache")), usize::MAX);
    let client_id = described.split("client-id=").nth(1).unwrap().split([',', '\r']).next().unwrap();
    let plays = format!("GET /demo {}\r\n", head(&format!("xPlayStrm=1,client-id={client_id}")));
    for _ in 0..2 {
        let played = ask(daemon.http, &plays, 20_000);
        assert!(played.contains("200 OK"), "{played:.300}");
    }
    for duration_s in [7, 8] {
        let body = format!("<XML><Summary>{} - - -</Summary></XML>", report(duration_s));
        let posts = format!(
            "POST /demo {}Content-Type: application/x-wms-LogStats;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
            head(&format!("client-id={client_id}")),
            body.len()
        );
        assert!(ask(daemon.http, &posts, usize::MAX).starts_with("HTTP/1.0 204"));
    }
    // Over MMS.
    let mut control = Control::connect(daemon.mms);
    for (message, body, answer) in [
        (0x0003_0001, connect_body("NSPlayer/7.1.0.3055"), 0x0004_0001),
        (0x0003_0002, funnel_body(r"\\127.0.0.1\TCP\1755"), 0x0004_0002),
        (0x0003_0005, open_body("demo"), 0x0004_0006),
    ] {
        control.send(message, &body);
        control.expect(answer, MINUTE);
    }
    let said = Logging { os: "Windows 98".into(), played_ms: 61_000, packets_received: 812, ..Logging::default() };
    control.send_raw(&encode(4, &said));
    drop(control);
    wait_until("both sessions are over", MINUTE, || daemon.metric("wmrelay_connections", &[]) == 0.0);
    assert!(daemon.stop().success());

    let lines = lines(&file);
    let player = [("c-os", "Windows_XP"), ("x-duration", "8"), ("c-status", "210"), ("c-bytes", "4711"), ("c-ip", "127.0.0.1")];
    let line = assert_has(&lines, &player);
    assert!(line["sc-bytes"].parse::<u64>().unwrap() > 30_000, "both plays: {line:#?}");
    assert_has(&lines, &[("c-os", "Windows_98"), ("x-duration", "61"), ("c-pkts-received", "812"), ("cs-uri-stem", "/demo")]);
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn the_file_is_begun_anew_on_a_signal_and_tells_no_addresses() {
    let root = tempfile::tempdir().unwrap();
    let (daemon, file) = daemon(root.path(), "hash_addresses = true\n");
    let visit = || {
        let viewer = Viewer::tcp(daemon.mms, "demo");
        viewer.wait_for_packets(1, MINUTE);
    };
    visit();
    wait_until("a line", MINUTE, || !lines(&file).is_empty());
    let moved = root.path().join("moved.log");
    std::fs::rename(&file, &moved).unwrap();
    send_signal(daemon.id(), "USR1");
    wait_for("the new file", MINUTE, || file.exists().then_some(()));
    visit();
    wait_until("a line in the new file", MINUTE, || !lines(&file).is_empty());
    assert!(daemon.stop().success());
    let (before, after) = (lines(&moved), lines(&file));
    assert_eq!((before.len(), after.len()), (1, 1));
    let address = &before[0]["c-ip"];
    assert!(address.len() == 16 && address == &after[0]["c-ip"], "{address}");
    let text = std::fs::read_to_string(&file).unwrap() + &std::fs::read_to_string(&moved).unwrap();
    assert!(!text.lines().any(|line| line.starts_with("127.")), "{text}");
}
