//! The control port and the local command line, end to end.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::daemon::{Daemon, Launch};
use support::viewer::Viewer;
use support::{tls, wait_for};

/// A file of three who may sign in, each with the name of their role and the password "geheim".
fn accounts() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("operators");
    for role in ["viewer", "publisher", "operator"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        command.args(["passwd", "--role", role]).arg(&file).arg(role);
        let mut passwd = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        passwd.stdin.take().unwrap().write_all(b"geheim\n").unwrap();
        assert!(passwd.wait().unwrap().success());
    }
    (folder, file)
}

/// One request; status and body.
fn ask(address: SocketAddr, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> (u16, Value) {
    let mut stream = tls::connect(address).unwrap();
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{token}{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end may come without TLS's own word for it.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn sign_in(daemon: &Daemon, user: &str) -> String {
    let (status, answer) = ask(daemon.control, "POST", "/v1/sign-in", None, Some(&json!({ "user": user, "password": "geheim" })));
    assert_eq!((status, answer["role"].as_str()), (200, Some(user)), "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

#[test]
fn no_role_does_what_it_may_not() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("").control(format!("users_file = {file:?}")).start();
    let (status, description) = ask(daemon.control, "GET", "/openapi.json", None, None);
    assert_eq!((status, description["info"]["title"].as_str()), (200, Some("wmrelay")));

    // Who may, in the order of the roles: what nobody is asked for, what each may, what fewer may.
    let least = |method: &str, path: &str| match (method, path) {
        ("post", "/v1/sign-in") => 0,
        ("post", "/v1/sign-out") | ("get", "/v1/me" | "/v1/points") => 1,
        ("get", "/v1/sources") => 2,
        ("get", "/v1/status" | "/v1/viewers" | "/v1/viewers/{session}" | "/v1/leases" | "/v1/log-level" | "/v1/events")
        | ("delete", "/v1/viewers/{session}")
        | ("put", "/v1/log-level")
        | ("post" | "delete", "/v1/drain")
        | ("post", "/v1/sources/disconnect") => 3,
        (method, path) => panic!("{method} {path} is not in this table"),
    };
    let mut calls = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            for (level, user) in [(0, None), (1, Some("viewer")), (2, Some("publisher")), (3, Some("operator"))] {
                let token = user.map(|user| sign_in(&daemon, user));
                let path = path.replace("{session}", "123456");
                let body = ["post", "put"].contains(&method.as_str()).then(|| json!({ "user": "nobody" }));
                if path == "/v1/events" && level >= 3 {
                    continue; // it has no end
                }
                let (status, answer) = ask(daemon.control, &method.to_uppercase(), &path, token.as_deref(), body.as_ref());
                let needed = least(method, &path.replace("123456", "{session}"));
                let expected_refusal = match (level < needed, level) {
                    (true, 0) => Some(401),
                    (true, _) => Some(403),
                    _ => None,
                };
                match expected_refusal {
                    Some(expected) => assert_eq!(status, expected, "{method} {path} as {user:?}: {answer}"),
                    None => {
                        assert!(![401, 403].contains(&status) && status < 500, "{method} {path} as {user:?}: {status} {answer}")
                    }
                }
                calls += 1;
            }
        }
    }
    assert!(calls >= 36, "{calls}");

    // What was signed out, or never signed in, opens nothing.
    let token = sign_in(&daemon, "operator");
    assert_eq!(ask(daemon.control, "POST", "/v1/sign-out", Some(&token), None).0, 204);
    for token in [token.as_str(), "", "AAAA"] {
        assert_eq!(ask(daemon.control, "GET", "/v1/status", Some(token), None).0, 401);
    }
    assert_eq!(ask(daemon.control, "GET", "/v1/nonsense", None, None).0, 404);
    assert_eq!(ask(daemon.control, "PUT", "/v1/status", None, None).0, 405);
}

#[test]
fn an_operator_disconnects_a_source_and_changes_what_is_logged() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n")
        .control(format!("users_file = {file:?}"))
        .start();
    let token = sign_in(&daemon, "operator");
    let disconnect =
        |point: &str| ask(daemon.control, "POST", "/v1/sources/disconnect", Some(&token), Some(&json!({ "point": point }))).0;
    assert_eq!((disconnect("none"), disconnect("cam1")), (404, 409));
    let mut publisher = support::publisher::ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    support::viewer::wait_for_source(&daemon, "cam1");
    assert_eq!(disconnect("cam1"), 204);
    wait_for("the publisher's end", Duration::from_secs(20), || (!publisher.runs()).then_some(()));
    assert!(daemon.log().contains("its source was disconnected by an operator"));

    let set = |level: &str| ask(daemon.control, "PUT", "/v1/log-level", Some(&token), Some(&json!({ "level": level }))).0;
    assert_eq!((set("wmrelay=louder"), set("warn")), (400, 204));
    let (_, answer) = ask(daemon.control, "GET", "/v1/log-level", Some(&token), None);
    assert_eq!(answer["level"], "warn");
    sign_in(&daemon, "viewer");
    assert!(!daemon.log().contains("role=viewer"), "what is said no longer: {}", daemon.log());
}

#[test]
fn events_are_told_as_they_happen() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("").control(format!("users_file = {file:?}")).start();
    let token = sign_in(&daemon, "operator");
    let mut stream = tls::connect(daemon.control).unwrap();
    let head =
        tls::ask(&mut stream, &format!("GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    let viewer = Viewer::tcp(daemon.mms, "demo");
    let mut heard = String::new();
    let mut read_until = |event: &str| {
        while !heard.contains(event) {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    };
    read_until("event: session_plays");
    drop(viewer);
    read_until("event: session_ended");
    assert!(heard.contains("\"name\":\"demo\""), "{heard}");
    // A listener does not hold up the end.
    assert!(daemon.stop().success());
}

#[test]
fn passwords_cannot_be_tried_for_ever() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("").control(format!("users_file = {file:?}")).start();
    let wrong = json!({ "user": "operator", "password": "offen" });
    let answers: Vec<u16> = (0..12).map(|_| ask(daemon.control, "POST", "/v1/sign-in", None, Some(&wrong)).0).collect();
    assert_eq!((&answers[..10], answers[11]), (&[401; 10][..], 429), "{answers:?}");
    let right = json!({ "user": "operator", "password": "geheim" });
    assert_eq!(ask(daemon.control, "POST", "/v1/sign-in", None, Some(&right)).0, 429, "the right one has to wait as well");
    let log = daemon.log();
    assert!(log.contains("nobody was signed in") && !log.contains("offen") && !log.contains("geheim"), "{log}");
}

#[test]
fn without_users_only_this_machine_is_listened_to() {
    let daemon = Launch::new("").listen(["127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0"]).start();
    assert!(daemon.control.ip().is_loopback(), "{}", daemon.control);
    let body = json!({ "user": "operator", "password": "geheim" });
    assert_eq!(ask(daemon.control, "POST", "/v1/sign-in", None, Some(&body)).0, 401);
    assert_eq!(ask(daemon.control, "GET", "/openapi.json", None, None).0, 200);
    // The certificate is kept for the next start, and told.
    assert!(daemon.folder().join("control-certificate.pem").is_file() && daemon.log().contains("sha256="), "{}", daemon.log());
}

#[test]
fn the_command_line_shows_a_viewer_and_sends_it_away() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.command(&["viewers"]), ("nobody watches\n".to_owned(), Some(0)));
    let viewer = Viewer::tcp(daemon.mms, "demo");
    let sessions = wait_for("a viewer that plays", Duration::from_secs(10), || {
        let sessions: Value = serde_json::from_str(&daemon.command(&["viewers", "--json"]).0).unwrap();
        (sessions[0]["plays"] == true && sessions[0]["packets"].as_u64() > Some(0)).then_some(sessions)
    });
    assert_eq!((sessions[0]["protocol"].as_str(), sessions[0]["name"].as_str()), (Some("mms"), Some("demo")), "{sessions}");
    let session = sessions[0]["session"].to_string();

    let (table, _) = daemon.command(&["viewers"]);
    assert!(table.starts_with("SESSION  FROM") && table.contains("mms/tcp") && table.contains("demo"), "{table}");
    let (story, code) = daemon.command(&["why", &session]);
    assert_eq!(code, Some(0));
    for step in
        ["it is admitted", "it opens \"demo\"", "it is a broadcast of", "it plays", "it was sent the first packet of media"]
    {
        assert!(story.contains(step), "{step}: {story}");
    }
    let (status, _) = daemon.command(&["status"]);
    assert!(
        status.contains("serving") && status.contains("1 sessions") && status.contains("1 publishing points, 1 of them live")
    );
    let (sources, _) = daemon.command(&["sources"]);
    assert!(sources.contains("demo") && sources.contains("up"), "{sources}");

    assert_eq!(daemon.command(&["kick", &session]), (format!("session {session} is ended\n"), Some(0)));
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
    wait_for("the session's end", Duration::from_secs(10), || daemon.command(&["viewers"]).0.contains("nobody").then_some(()));
    let (story, _) = daemon.command(&["why", &session]);
    assert!(story.contains("ended: an operator ended it"), "{story}");
    assert_eq!(daemon.command(&["kick", &session]).1, Some(3));
    assert_eq!(daemon.command(&["why", "4711"]).1, Some(3));
}

#[test]
fn a_lease_is_listed_with_its_session() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.command(&["leases"]).0, "no client port is leased\n");
    let _viewer = Viewer::udp(daemon.mms, "demo", 4950, None);
    let leases = wait_for("a lease", Duration::from_secs(10), || {
        let leases: Value = serde_json::from_str(&daemon.command(&["leases", "--json"]).0).unwrap();
        (leases[0]["packets"].as_u64() > Some(0)).then_some(leases)
    });
    let sessions: Value = serde_json::from_str(&daemon.command(&["viewers", "--json"]).0).unwrap();
    assert_eq!(leases[0]["session"], sessions[0]["session"]);
    assert_eq!((leases[0]["state"].as_str(), &leases[0]["port"]), (Some("leased"), &sessions[0]["client_ports"][0]), "{leases}");
}

#[test]
fn without_a_daemon_it_says_where_it_looked() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let output = command.arg("status").arg("--socket").arg(folder.path().join("control.sock")).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("no daemon can be reached") && text.contains("control.sock: No such file"), "{text}");
}
