//! The control port and the local command line, end to end.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::accounts::accounts;
use support::daemon::{Daemon, Launch};
use support::mms::{self, Control};
use support::viewer::Viewer;
use support::{tls, wait_for};

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
    // Failures too.
    for field in ["\r\ncache-control: no-store", "\r\nx-content-type-options: nosniff"] {
        assert!(head.to_ascii_lowercase().contains(field), "{method} {path}: {head}");
    }
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
        ("post", "/v1/sign-out")
        | ("get", "/v1/me" | "/v1/points" | "/v1/viewing-sessions" | "/v1/firewall")
        | ("post", "/v1/viewing-sessions")
        | ("delete", "/v1/viewing-sessions/{id}") => 1,
        ("post", "/v1/probes" | "/v1/probes/{id}/challenges" | "/v1/probes/{id}/report") | ("get", "/v1/probes/{id}") => 1,
        ("get", "/v1/probes") => 3,
        ("get", "/v1/sources") => 2,
        (
            "get",
            "/v1/status"
            | "/v1/viewers"
            | "/v1/viewers/{session}"
            | "/v1/leases"
            | "/v1/log-level"
            | "/v1/events"
            | "/v1/learned",
        )
        | ("delete", "/v1/viewers/{session}" | "/v1/learned" | "/v1/learned/{prefix}")
        | ("put", "/v1/log-level")
        | ("post", "/v1/reload")
        | ("post" | "delete", "/v1/drain")
        | ("post", "/v1/sources/disconnect") => 3,
        (method, path) => panic!("{method} {path} is not in this table"),
    };
    let mut calls = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            for (level, user) in [(0, None), (1, Some("viewer")), (2, Some("publisher")), (3, Some("operator"))] {
                let token = user.map(|user| sign_in(&daemon, user));
                let path = path.replace("{session}", "123456").replace("{id}", "654321").replace("{prefix}", "192.0.2.7");
                let body = ["post", "put"].contains(&method.as_str()).then(|| json!({ "user": "nobody" }));
                if path == "/v1/events" && level >= 3 {
                    continue; // it has no end
                }
                let (status, answer) = ask(daemon.control, &method.to_uppercase(), &path, token.as_deref(), body.as_ref());
                let needed = least(
                    method,
                    &path.replace("123456", "{session}").replace("654321", "{id}").replace("192.0.2.7", "{prefix}"),
                );
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
    let (status, answer) = ask(daemon.control, "GET", "/v1/viewers/x", Some(&token), None);
    assert_eq!((status, answer["message"].as_str()), (400, Some("\"x\" stands where the path has a number")), "{answer}");
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
    wait_for("why it ended", Duration::from_secs(20), || {
        daemon
            .log()
            .lines()
            .any(|line| line.contains("publisher ended") && line.contains("An operator disconnected it."))
            .then_some(())
    });

    let set = |level: &str| ask(daemon.control, "PUT", "/v1/log-level", Some(&token), Some(&json!({ "level": level }))).0;
    assert_eq!((set("wmrelay=louder"), set(""), set("info,"), set("warn")), (400, 400, 400, 204));
    let (_, answer) = ask(daemon.control, "GET", "/v1/log-level", Some(&token), None);
    assert_eq!(answer["level"], "warn");
    sign_in(&daemon, "viewer");
    assert!(!daemon.log().contains("role=viewer"), "what is said no longer: {}", daemon.log());
}

/// A source says of itself that it has so many bits a second; what counts is what goes out.
#[test]
fn the_load_is_what_is_sent() {
    let daemon = Daemon::start("[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n");
    let load = || {
        let status: Value = serde_json::from_str(&daemon.command(&["status", "--json"]).0).unwrap();
        (status["sessions"].as_u64().unwrap(), status["bit_rate"].as_u64().unwrap())
    };
    let limit = Duration::from_secs(30);
    let publisher = support::publisher::ffmpeg_push("asf_stream", "POST", &daemon.publish_url("", "cam1"));
    support::viewer::wait_for_source(&daemon, "cam1");
    let viewer = Viewer::tcp(daemon.mms, "cam1");
    viewer.wait_for_packets(5, limit);
    wait_for("a rate", limit, || (load().1 > 0).then_some(()));
    publisher.signal("STOP");
    wait_for("no rate, for nothing is sent", limit, || (load() == (1, 0)).then_some(()));
    publisher.signal("CONT");
    wait_for("a rate again", limit, || (load().1 > 0).then_some(()));
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

/// A site whose programs sign in together at eight in the morning comes by one address.
#[test]
fn many_who_know_their_password_come_in_together() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("").control(format!("users_file = {file:?}")).start();
    let control = daemon.control;
    let right = json!({ "user": "operator", "password": "geheim" });
    let all: Vec<_> = (0..20)
        .map(|_| {
            let right = right.clone();
            std::thread::spawn(move || ask(control, "POST", "/v1/sign-in", None, Some(&right)).0)
        })
        .collect();
    let answers: Vec<u16> = all.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(answers, [200; 20]);
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
    assert!(sources.contains("demo") && sources.contains("live"), "{sources}");

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

/// Challenges go to who asks for them, to ports of the pool, few at once; nobody else hears of a probe.
#[test]
fn a_probe_is_its_own_addresss_alone() {
    let (_folder, file) = accounts();
    let daemon = Launch::new("udp.client_ports = \"20000-20100\"\n").control(format!("users_file = {file:?}")).start();
    let (token, other) = (sign_in(&daemon, "viewer"), sign_in(&daemon, "operator"));
    let post = |token: &str, path: &str, body: Value| ask(daemon.control, "POST", path, Some(token), Some(&body));
    for wrong in [json!({ "viewers": 0 }), json!({ "viewers": 101 }), json!({ "viewers": 1, "address": "192.0.2.1" })] {
        assert_eq!(post(&token, "/v1/probes", wrong).0, 400);
    }
    let (status, plan) = post(&token, "/v1/probes", json!({ "viewers": 2 }));
    assert_eq!((status, plan["address"].as_str()), (201, Some("127.0.0.1")), "{plan}");
    assert_eq!(plan["udp_in"][0]["server_port"], daemon.mms.port(), "{plan}");
    assert_eq!(plan["udp_in"][0]["ports"], json!([20000, 20001]), "{plan}");
    assert_eq!(post(&token, "/v1/probes", json!({ "viewers": 2 })).0, 409, "one at a time");

    let path = |call: &str| format!("/v1/probes/{}{call}", plan["id"]);
    let challenges = |ports: Vec<u16>| {
        let challenges: Vec<_> =
            ports.into_iter().map(|port| json!({ "protocol": "mms", "server_port": daemon.mms.port(), "port": port })).collect();
        json!({ "challenges": challenges })
    };
    // Of another user, and of no pool; too many.
    assert_eq!(post(&other, &path("/challenges"), challenges(vec![20000])).0, 404);
    assert_eq!(ask(daemon.control, "GET", &path(""), Some(&other), None).0, 404);
    for port in [22, 1023, 1024, 19999, 20101, 65535] {
        let (status, answer) = post(&token, &path("/challenges"), challenges(vec![20000, port]));
        assert_eq!((status, answer["error"].as_str()), (400, Some("bad_port")), "{port} {answer}");
    }
    assert_eq!(post(&token, &path("/challenges"), challenges(vec![20000; 65])).0, 400);
    let elsewhere = json!({ "challenges": [{ "protocol": "mms", "server_port": 1755, "port": 20000, "address": "192.0.2.1" }] });
    assert_eq!(post(&token, &path("/challenges"), elsewhere).0, 400, "an address cannot even be said");

    let socket = std::net::UdpSocket::bind("127.0.0.1:20001").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (status, answer) = post(&token, &path("/challenges"), challenges(vec![20001]));
    assert_eq!((status, answer["sent"][0]["port"].as_u64()), (200, Some(20001)), "{answer}");
    let mut buffer = [0; 256];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((from, len), (daemon.mms, 29), "from the socket of media, and small");
    // What is not authenticated is not answered.
    socket.send_to(&buffer[..len], daemon.mms).unwrap();
    buffer[8] = b'E';
    socket.send_to(&buffer[..len], daemon.mms).unwrap();
    let heard = wait_for("the echo", Duration::from_secs(10), || {
        let (_, answer) = ask(daemon.control, "GET", &path(""), Some(&token), None);
        answer["echoes"].get(0).cloned()
    });
    assert_eq!((heard["server_port"].as_u64(), heard["seen_port"].as_u64()), (Some(daemon.mms.port().into()), Some(20001)));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv_from(&mut buffer).is_err(), "nothing comes back");

    let limited = (0..40).any(|_| post(&token, &path("/challenges"), challenges(vec![20005; 64])).0 == 429);
    assert!(limited, "no end of challenges");
    let report = json!({ "host": "h", "server": "s", "client": "c", "seen_as": null, "viewers": 2, "outcome": "open", "lines": [],
        "nat": [], "asks": [], "notes": [] });
    assert_eq!(post(&other, &path("/report"), report.clone()).0, 404);
    assert_eq!(post(&token, &path("/report"), report.clone()).0, 204);
    assert_eq!(post(&token, &path("/report"), report).0, 404, "it is over");
    let (_, reports) = ask(daemon.control, "GET", "/v1/probes", Some(&other), None);
    assert_eq!((reports[0]["user"].as_str(), reports[0]["address"].as_str()), (Some("viewer"), Some("127.0.0.1")), "{reports}");
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

#[test]
fn sources_tell_how_they_are_and_why() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let point = |name: &str, source: &str| format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ {source} }}\n");
    let missing = "type = \"file\", path = \"/no/such/file.asf\"";
    let points = [
        point("demo", "type = \"demo\""),
        point("push", "type = \"push\""),
        point("camera", "type = \"camera\", url = \"rtsp://anna:geheim@127.0.0.1:1/x\", start = \"always\""),
        point("asleep", "type = \"camera\", url = \"rtsp://127.0.0.1:1/x\", start = \"watched\""),
        point("missing", missing),
        point("shown", missing) + "fallback = \"demo\"\nfallback_after_s = 1\n",
        point("folder", &format!("type = \"files\", root = {data:?}")),
        point("any-*", &format!("type = \"file\", path = \"{data}/{{1}}.asf\"")),
    ];
    let daemon = Daemon::start(points.concat());
    let sources = || -> Value { serde_json::from_str(&daemon.command(&["sources", "--json"]).0).unwrap() };
    let of = |sources: &Value, name: &str| -> Value {
        sources.as_array().unwrap().iter().find(|source| source["point"] == name).unwrap().clone()
    };
    let _viewers = ["shown", "any-camera-mjpeg-pcmu"].map(|name| Viewer::tcp(daemon.mms, name));
    let all = wait_for("all of them", Duration::from_secs(30), || {
        let all = sources();
        let state = |name: &str| of(&all, name)["state"].as_str().unwrap().to_owned();
        let is_there = state("demo") == "live" && state("shown") == "standing_in" && state("missing") == "failing";
        (is_there && of(&all, "any-*")["names"][0]["state"] == "live" && of(&all, "camera")["restarts"].as_u64() > Some(1))
            .then_some(all)
    });
    for (name, state) in [
        ("push", "waiting_for_publisher"),
        ("camera", "failing"),
        ("asleep", "waiting_for_viewer"),
        ("folder", "on_demand"),
        ("any-*", "opened_by_name"),
    ] {
        assert_eq!(of(&all, name)["state"], state, "{name}: {all}");
    }
    let failure = of(&all, "camera")["last_failure"].clone();
    assert!(failure["reason"].as_str().unwrap().contains("Connection refused"), "{failure}");
    assert!(failure["in_a_row"].as_u64() > Some(1), "{failure}");
    assert!(of(&all, "shown")["on_fallback_s"].is_u64() && of(&all, "shown")["last_failure"]["reason"].is_string(), "{all}");
    let template = of(&all, "any-*");
    assert_eq!(
        (&template["names"][0]["name"], &template["watchers"]),
        (&json!("any-camera-mjpeg-pcmu"), &json!(1)),
        "{template}"
    );
    assert!(!all.to_string().contains("geheim"), "{all}");

    let (table, _) = daemon.command(&["sources"]);
    for words in
        ["failing", "standing in", "opened by name", "\n  any-camera-mjpeg-pcmu  live", "in a row, the last", "No such file"]
    {
        assert!(table.contains(words), "{words}: {table}");
    }
    // The stand-in is not the source.
    let (status, _) = daemon.command(&["status"]);
    assert!(status.contains("8 publishing points, 1 of them live, 1 with a stand-in"), "{status}");

    // Who finds nothing to see: the third session.
    let mut control = Control::connect(daemon.mms);
    control.send(mms::CONNECT, &mms::connect_body("NSPlayer/9.0.0.2980"));
    control.expect(mms::CONNECTED, Duration::from_secs(10));
    let funnel = format!("\\\\{}\\TCP\\1037", control.local());
    control.send(mms::CONNECT_FUNNEL, &mms::funnel_body(&funnel));
    control.expect(mms::FUNNEL_CONNECTED, Duration::from_secs(10));
    control.send(mms::OPEN_FILE, &mms::open_body("push"));
    control.expect(mms::OPENED, Duration::from_secs(10));
    let (story, _) = daemon.command(&["why", "3"]);
    assert!(story.contains("nobody publishes it"), "{story}");
}
