//! Viewing sessions: a viewer program asks at the control port, and its player watches with a ticket and a port of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's report")]

mod support;

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::Need::{self, Program};
use support::control::{Accounts, Caller};
use support::daemon::{Daemon, Launch, http_get};
use support::mms::{self, Control, Incoming, open_result};
use support::player::{self, frames};
use support::process::Process;
use support::viewer::{Viewer, wait_for_source};
use support::{ready, wait_until};

const FFMPEG: &[Need] = &[Program("ffmpeg")];
const MINUTE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(10);
const ACCESS_DENIED: u32 = 0x8007_0005;

/// A daemon that serves `demo` to all, and `secret` to those who know a password.
struct House {
    daemon: Daemon,
    viewer: Caller,
    _accounts: Accounts,
}

impl House {
    #[track_caller]
    fn open(settings: &str, control: &str) -> Self {
        let accounts = Accounts::new();
        let point = |name: &str, access: &str| {
            format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\naccess = \"{access}\"\n")
        };
        let viewers = accounts.file().with_file_name("viewers");
        std::fs::write(&viewers, "anna:wmrelay:0123456789abcdef0123456789abcdef\n").unwrap();
        let users = format!("[users]\nviewers_file = {viewers:?}\n");
        let settings = format!("{settings}\n{users}{}{}", point("demo", "all"), point("secret", "users"));
        let daemon = Launch::new(settings).control(accounts.settings(control)).start();
        wait_for_source(&daemon, "demo");
        wait_for_source(&daemon, "secret");
        let viewer = Caller::sign_in(daemon.control, "viewer");
        Self { daemon, viewer, _accounts: accounts }
    }

    fn leases(&self) -> Value {
        serde_json::from_str(&self.daemon.command(&["leases", "--json"]).0).unwrap()
    }

    /// What happened to the session that plays, or to the last one.
    fn story(&self, session: u64) -> String {
        self.daemon.command(&["why", &session.to_string()]).0
    }

    fn sessions(&self) -> Value {
        serde_json::from_str(&self.daemon.command(&["viewers", "--json"]).0).unwrap()
    }
}

/// The name with the ticket, as MMS has it.
fn name_of(answer: &Value) -> String {
    format!("{}?k={}", answer["name"].as_str().unwrap(), answer["ticket"].as_str().unwrap())
}

fn port_of(answer: &Value) -> u16 {
    u16::try_from(answer["client_port"].as_u64().unwrap()).unwrap()
}

#[track_caller]
fn ffmpeg_plays(url: &str) {
    let decoded = player::ffmpeg(url, 2).finish(MINUTE);
    let frames = frames(&decoded.stdout);
    assert!(decoded.status.success() && frames.len() >= 30, "{url}: {} frames\n{}", frames.len(), decoded.stderr);
}

#[track_caller]
fn ffmpeg_does_not_play(url: &str) {
    let decoded = player::ffmpeg(url, 1).finish(MINUTE);
    assert!(!decoded.status.success() && frames(&decoded.stdout).is_empty(), "{url}: {}", decoded.stderr);
}

/// A player of ours; its report.
#[track_caller]
fn we_play(url: &str, ports: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    command.args(["play", url, "--ports", ports, "--seconds", "2", "--json"]);
    let done = Process::start(command).finish(MINUTE);
    assert!(done.status.success(), "{url}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

/// A connection from another address of this machine.
fn connect_from(address: &str, daemon: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("{address}:0").parse().unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&daemon.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(STEP)).unwrap();
    stream
}

fn status_from(address: &str, daemon: SocketAddr, path: &str) -> u16 {
    use std::io::{Read as _, Write as _};
    let mut stream = connect_from(address, daemon);
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {daemon}\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

/// The addresses of an answer, one protocol after the other, of a publishing point that asks for a password otherwise.
#[test]
fn ffmpeg_plays_what_a_viewing_session_names() {
    if !ready("ffmpeg_plays_what_a_viewing_session_names", FFMPEG) {
        return;
    }
    let house = House::open("", "");
    for scheme in ["mmst", "mmsh", "rtsp", "asx"] {
        let answer = house.viewer.watch("secret", "auto");
        let url = answer["urls"][scheme].as_str().unwrap().to_owned();
        if scheme == "asx" {
            let (status, text) = http_get(house.daemon.http, &url[url.find("/secret").unwrap()..]);
            let entry = format!("/secret?k={}\"", answer["ticket"].as_str().unwrap());
            assert!(status == 200 && text.contains(&entry), "{text}");
            // UDP, and the port that is held, are for who comes there.
            assert!(text.contains(answer["urls"]["mms"].as_str().unwrap()), "{text}");
        } else {
            ffmpeg_plays(&url);
        }
    }
    // Without the ticket the password is asked for.
    ffmpeg_does_not_play(&format!("mmst://{}/secret", house.daemon.mms));
    let log = house.daemon.log();
    assert!(!log.contains("k=t") && log.contains("a viewing session was opened"), "{log}");
}

/// `demo` is open to all: a ticket that is known and not good is worth less than none, and one that nobody knows, as after a restart,
/// counts as none.
#[test]
fn another_address_or_name_opens_nothing() {
    let house = House::open("", "");
    for name in ["demo", "secret"] {
        let answer = house.viewer.watch(name, "auto");
        let ticket = answer["ticket"].as_str().unwrap();
        let other = if name == "demo" { "secret" } else { "demo" };
        assert_eq!(open_result(house.daemon.mms, &format!("{other}?k={ticket}")), ACCESS_DENIED);
        for address in ["127.0.0.2", "127.0.0.1"] {
            let expected = if address == "127.0.0.1" { 200 } else { 403 };
            assert_eq!(status_from(address, house.daemon.http, &format!("/{name}.asx?k={ticket}")), expected, "{address} {name}");
            assert_eq!(status_from(address, house.daemon.http, &format!("/{other}.asx?k={ticket}")), 403, "{address} {other}");
        }
        // Letters of another size, and a profile, are the same name.
        assert_eq!(open_result(house.daemon.mms, &format!("{}?profile=x&k={ticket}", name.to_ascii_uppercase())), 0);
        let unknown = open_result(house.daemon.mms, &format!("{name}?k=t{}", &ticket[1..].replace(['0', '1', '2'], "3")));
        assert_eq!(unknown, if name == "demo" { 0 } else { ACCESS_DENIED }, "{name}");
    }
    assert!(house.daemon.metric("wmrelay_refusals_total", &[("cause", "wrong_ticket")]) >= 6.0);
    let log = house.daemon.log();
    assert!(!log.contains("k=t") && !log.contains("viewer not let in: peer="), "nobody is banned for a ticket: {log}");
}

#[test]
fn ten_viewers_have_the_ten_lowest_ports() {
    let house = House::open("[udp]\nclient_ports = \"4400-4409\"\n", "");
    let answers: Vec<Value> = (0..10).map(|_| house.viewer.watch("secret", "udp")).collect();
    let ports: Vec<u16> = answers.iter().map(port_of).collect();
    assert_eq!(ports, (4400..=4409).collect::<Vec<_>>());
    let (status, refusal) =
        house.viewer.ask("POST", "/v1/viewing-sessions", Some(&json!({ "name": "demo", "transport": "udp" })));
    assert_eq!((status, refusal["error"].as_str()), (409, Some("no_port")), "{refusal}");
    assert_eq!(house.viewer.watch("demo", "auto")["client_port"], Value::Null);
    let leases = house.leases();
    assert_eq!(leases.as_array().unwrap().len(), 10);
    assert!(leases.as_array().unwrap().iter().all(|lease| lease["state"] == "held" && lease["user"] == "viewer"), "{leases}");
    wait_until("the metric", STEP, || house.daemon.metric("wmrelay_port_leases", &[("state", "held")]) == 10.0);

    let viewers: Vec<_> =
        answers.iter().map(|answer| Viewer::udp(house.daemon.mms, &name_of(answer), port_of(answer), None)).collect();
    viewers.iter().for_each(|viewer| viewer.wait_for_packets(5, MINUTE));
    let leases = house.leases();
    for lease in leases.as_array().unwrap() {
        let told = (lease["state"].as_str(), lease["user"].as_str(), lease["session"].is_u64(), lease["address"].as_str());
        assert_eq!(told, (Some("leased"), Some("viewer"), true, Some("127.0.0.1")), "{lease}");
        assert!(lease["packets"].as_u64().unwrap() > 0 && lease["resends"] == 0, "{lease}");
    }
    let (table, _) = house.daemon.command(&["leases"]);
    assert!(table.contains("TICKET OF") && table.contains("viewer"), "{table}");
    let session = house.sessions()[0]["session"].as_u64().unwrap();
    let story = house.story(session);
    assert!(story.contains("it comes with a ticket of viewer") && story.contains("was held for its ticket"), "{story}");
    assert!(!story.contains("k=t"), "{story}");

    // Its holder sees it, and gives it back; others' are not there for it.
    let (_, own) = house.viewer.ask("GET", "/v1/viewing-sessions", None);
    assert_eq!(own.as_array().unwrap().len(), 11, "{own}");
    let operator = Caller::sign_in(house.daemon.control, "operator");
    let (_, all) = operator.ask("GET", "/v1/viewing-sessions", None);
    assert_eq!(all.as_array().unwrap().len(), 11, "{all}");
    let foreign = operator.watch("demo", "tcp")["id"].to_string();
    assert_eq!(house.viewer.ask("DELETE", &format!("/v1/viewing-sessions/{foreign}"), None).0, 404);
    let first = format!("/v1/viewing-sessions/{}", answers[0]["id"]);
    assert_eq!([204, 404].map(|_| house.viewer.ask("DELETE", &first, None).0), [204, 404]);
    viewers[0].wait_for_packets(20, MINUTE);
    assert_eq!(open_result(house.daemon.mms, &name_of(&answers[0])), ACCESS_DENIED);
}

/// Our own player, as a viewer program would start it: by UDP at the port that is held, and again by each protocol after that.
#[test]
fn a_player_rolls_over_from_protocol_to_protocol() {
    let house = House::open("[udp]\nclient_ports = \"4410-4429\"\n", "");
    let answer = house.viewer.watch("secret", "udp");
    let (port, url) = (port_of(&answer).to_string(), |scheme: &str| answer["urls"][scheme].as_str().unwrap().to_owned());
    for _ in 0..2 {
        let report = we_play(&url("mmsu"), &port);
        assert_eq!((report["transport"].as_str(), &report["port"]), (Some("udp"), &json!(4410)), "{report}");
        assert!(report["packets"].as_u64().unwrap() > 10);
        // It waits for the next one.
        wait_until("the hold", STEP, || house.leases()[0]["state"] == "held");
    }
    for scheme in ["mmst", "http", "mms"] {
        let report = we_play(&url(scheme), &port);
        assert!(report["packets"].as_u64().unwrap() > 10, "{scheme}: {report}");
    }
    // Another port is one like any other, and the one that was held is free.
    let report = we_play(&url("mmsu"), "4420");
    assert_eq!((report["transport"].as_str(), &report["port"]), (Some("udp"), &json!(4420)), "{report}");
    assert!(house.leases().as_array().unwrap().iter().all(|lease| lease["state"] != "held"));
    assert_eq!(house.viewer.watch("demo", "auto")["client_port"], 4411, "4410 rests");
}

/// RTSP has the ticket before it has a port.
#[test]
fn over_rtsp_a_held_port_is_for_its_ticket_alone() {
    let house = House::open("[udp]\nclient_ports = \"4430-4445\"\n", "");
    let (port, answer) = (4430, house.viewer.watch("secret", "auto"));
    assert_eq!(port_of(&answer), port);
    let ports = format!("{port}-{}", port + 3);
    let stranger = format!("rtsp://{}/demo", house.daemon.rtsp);
    let report = we_play(&stranger, &ports);
    assert_eq!(report["transport"].as_str(), Some("tcp"), "{report}");
    let report = we_play(answer["urls"]["rtsp"].as_str().unwrap(), &ports);
    assert_eq!((report["transport"].as_str(), &report["port"]), (Some("udp"), &json!(port)), "{report}");
}

#[test]
fn over_mms_whoever_comes_first_to_a_held_port_keeps_it() {
    let house = House::open("[udp]\nclient_ports = \"4450-4459\"\n", "");
    let answer = house.viewer.watch("demo", "auto");
    let stranger = Viewer::udp(house.daemon.mms, "demo", port_of(&answer), None);
    stranger.wait_for_packets(5, MINUTE);
    let report = we_play(answer["urls"]["mms"].as_str().unwrap(), "4451");
    assert_eq!(report["transport"].as_str(), Some("udp"), "{report}");
    let (_, own) = house.viewer.ask("GET", "/v1/viewing-sessions", None);
    assert_eq!(own[0]["client_port"], Value::Null);
    let story = house.story(house.sessions()[0]["session"].as_u64().unwrap());
    assert!(story.contains("was held for a ticket that it does not have"), "{story}");
    stranger.wait_for_packets(20, MINUTE);
}

#[test]
fn one_plays_at_a_time() {
    let house = House::open("", "");
    let answer = house.viewer.watch("secret", "tcp");
    assert_eq!((&answer["client_port"], &answer["urls"]["mmsu"]), (&Value::Null, &Value::Null));
    let name = name_of(&answer);
    let first = Viewer::tcp(house.daemon.mms, &name);
    first.wait_for_packets(5, MINUTE);
    assert_eq!(open_result(house.daemon.mms, &name), ACCESS_DENIED);
    assert_eq!(http_get(house.daemon.http, &format!("/{name}")).0, 403);
    first.assert_undisturbed();
    drop(first);
    wait_until("the end of the first", STEP, || open_result(house.daemon.mms, &name) == 0);
    // Two that open it before either plays: the second one is ended when it would begin.
    let mut ready: Vec<Control> = (0..2).map(|_| Control::connect(house.daemon.mms)).collect();
    for control in &mut ready {
        control.send(mms::CONNECT, &mms::connect_body(support::viewer::PLAYER));
        control.expect(mms::CONNECTED, STEP);
        control.send(mms::CONNECT_FUNNEL, &mms::funnel_body("\\\\127.0.0.1\\TCP\\1037"));
        control.expect(mms::FUNNEL_CONNECTED, STEP);
        control.send(mms::OPEN_FILE, &mms::open_body(&name));
        assert_eq!(mms::result_of(&control.expect(mms::OPENED, STEP)), 0);
        control.send(mms::READ_BLOCK, &mms::read_block_body());
        control.expect(mms::BLOCK_READ, STEP);
        let header_end = |incoming: &Incoming| matches!(incoming, Incoming::Data(data) if data.flags == 0x0C);
        assert!(std::iter::from_fn(|| control.receive(STEP)).any(|incoming| header_end(&incoming)), "the header");
        control.send(mms::STREAM_SWITCH, &mms::switch_body());
        control.expect(mms::SWITCHED, STEP);
    }
    for (control, plays) in ready.iter_mut().zip([true, false]) {
        control.send(mms::START_PLAYING, &mms::start_body());
        let incoming =
            std::iter::from_fn(|| control.receive(STEP)).find(|incoming| !matches!(incoming, Incoming::Control { .. }));
        assert_eq!(matches!(incoming, Some(Incoming::Data(_))), plays, "{incoming:x?}");
    }
    wait_until("its line in the log", STEP, || house.daemon.log().contains("another session plays by its ticket"));
}

/// A player over HTTP seeks by another connection of its session, while the first one may still be there: it is one player.
#[test]
fn over_http_a_session_is_one_player() {
    let house = House::open("", "hold_s = 3");
    let answer = house.viewer.watch("secret", "tcp");
    let ask = |tokens: &str| {
        use std::io::Write as _;
        let mut stream = connect_from("127.0.0.1", house.daemon.http);
        write!(
            stream,
            "GET /{} HTTP/1.0\r\nUser-Agent: NSPlayer/4.1.0.3928\r\nHost: {}\r\nPragma: no-cache{tokens}\r\n\r\n",
            name_of(&answer),
            house.daemon.http
        )
        .unwrap();
        stream
    };
    let read = |stream: &mut TcpStream, bytes: usize| {
        use std::io::Read as _;
        let mut answer = Vec::new();
        let _ = stream.take(bytes as u64).read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let described = read(&mut ask(""), usize::MAX);
    let client_id = described.split("client-id=").nth(1).unwrap().split([',', '\r']).next().unwrap();
    let play = |client_id: &str| ask(&format!(",xPlayStrm=1{client_id}"));
    let own = format!(",client-id={client_id}");
    let mut first = play(&own);
    assert!(read(&mut first, 30_000).starts_with("HTTP/1.0 200 "));
    assert!(read(&mut play(""), 12).ends_with(" 403"), "another player");
    let mut second = play(&own);
    assert!(read(&mut second, 30_000).starts_with("HTTP/1.0 200 "));
    // When the ticket is over, who has played by it may seek all the same.
    drop((first, second));
    wait_until("the ticket's end", STEP, || open_result(house.daemon.mms, &name_of(&answer)) == ACCESS_DENIED);
    assert!(house.daemon.metric("wmrelay_refusals_total", &[("cause", "expired_ticket")]) >= 1.0);
    assert!(read(&mut play(&own), 30_000).starts_with("HTTP/1.0 200 "));
    assert!(read(&mut play(""), 12).ends_with(" 403"));
}

/// Downloads that name a session of players are each one by itself, before the ticket's end and after it.
#[test]
fn downloads_are_no_player_by_naming_its_session() {
    use std::io::{Read as _, Write as _};
    let house = House::open("", "hold_s = 3");
    let answer = house.viewer.watch("secret", "tcp");
    let ask = |agent: &str, id: &str| {
        let mut stream = connect_from("127.0.0.1", house.daemon.http);
        let (name, host) = (name_of(&answer), house.daemon.http);
        write!(stream, "GET /{name} HTTP/1.0\r\nUser-Agent: {agent}\r\nHost: {host}\r\nPragma: no-cache{id}\r\n\r\n").unwrap();
        stream
    };
    let mut described = String::new();
    let mut stream = ask("NSPlayer/4.1.0.3928", "");
    let mut head = [0; 400];
    stream.read_exact(&mut head).unwrap();
    described.push_str(&String::from_utf8_lossy(&head));
    let id = described.split("client-id=").nth(1).unwrap().split([',', '\r']).next().unwrap().to_owned();
    drop(stream);
    let download = || ask("Lavf/60.0", &format!(",client-id={id}"));
    let status = |stream: &mut TcpStream| {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    let mut first = download();
    assert_eq!(status(&mut first), "200");
    // Media has come by it.
    first.read_exact(&mut [0; 30_000]).unwrap();
    assert_eq!(status(&mut download()), "403", "another one plays");
    wait_until("the ticket's end", STEP, || house.viewer.ask("GET", "/v1/viewing-sessions", None).1[0]["expires_s"] == 0);
    assert_eq!(status(&mut download()), "403", "it is over, and another one plays");
    drop(first);
    // Seconds are told without their fractions, so that it may be good for a moment yet.
    wait_until("that it is over for all", STEP, || {
        status(&mut download());
        house.daemon.metric("wmrelay_refusals_total", &[("cause", "expired_ticket")]) >= 1.0
    });
}

/// The end of its time closes the door and throws nobody out.
#[test]
fn it_ends_a_while_after_the_first_media() {
    let house = House::open("[udp]\nclient_ports = \"4460-4469\"\n", "hold_s = 2");
    let (unused, answer) = (house.viewer.watch("demo", "auto"), house.viewer.watch("secret", "auto"));
    let name = name_of(&answer);
    let viewer = Viewer::udp(house.daemon.mms, &name, port_of(&answer), None);
    viewer.wait_for_packets(5, MINUTE);
    wait_until("the hold's end", STEP, || house.leases().as_array().unwrap().iter().all(|lease| lease["state"] != "held"));
    assert_eq!(open_result(house.daemon.mms, &name_of(&unused)), ACCESS_DENIED);
    // While it plays that is what a second one hears; then it is the time.
    drop(viewer);
    wait_until("the session's end", STEP, || house.sessions().as_array().unwrap().is_empty());
    wait_until("the ticket's end", STEP, || open_result(house.daemon.mms, &name) == ACCESS_DENIED);
    assert!(house.daemon.metric("wmrelay_refusals_total", &[("cause", "expired_ticket")]) >= 1.0);
    let answer = house.viewer.watch("secret", "auto");
    let viewer = Viewer::tcp(house.daemon.mms, &name_of(&answer));
    wait_until("its end", STEP, || house.viewer.ask("GET", "/v1/viewing-sessions", None).1[0]["expires_s"] == 0);
    viewer.assert_undisturbed();
}

#[test]
fn what_cannot_be_watched_is_refused_in_words() {
    let accounts = Accounts::new();
    let settings = "[udp]\nenabled = false\n[[publishing_point]]\nname = \"far\"\nsource = { type = \"demo\" }\ndeny = [\"127.0.0.0/8\"]\n\
                    [[publishing_point]]\nname = \"demo\"\nsource = { type = \"demo\" }\n\
                    [[publishing_point]]\nname = \"films\"\nsource = { type = \"files\", root = \"/tmp\" }\n";
    let daemon = Launch::new(settings).control(accounts.settings("")).start();
    let viewer = Caller::sign_in(daemon.control, "viewer");
    let ask = |body: Value| {
        let (status, answer) = viewer.ask("POST", "/v1/viewing-sessions", Some(&body));
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (body, status, words) in [
        (json!({ "name": "nothing" }), 404, "no such name"),
        (json!({ "name": "films/" }), 404, ""),
        (json!({ "name": "films" }), 404, "a folder"),
        (json!({ "name": "far" }), 403, "access rules"),
        (json!({ "name": "demo", "transport": "udp" }), 409, "UDP is switched off"),
        (json!({ "name": "demo", "transport": "carrier pigeon" }), 400, "carrier pigeon"),
        (json!({ "transport": "udp" }), 400, "name"),
        (json!({ "name": "demo", "host": "tv.example" }), 400, "IP address"),
        (json!({ "name": "demo", "host": "2001:db8::1" }), 400, "127.0.0.1 alone"),
    ] {
        let (told, message) = ask(body.clone());
        assert!(told == status && message.contains(words), "{body}: {told} {message}");
    }
    for _ in 0..32 {
        assert_eq!(ask(json!({ "name": "/demo" })).0, 201);
    }
    let (status, message) = ask(json!({ "name": "demo" }));
    assert!(status == 429 && message.contains("give some back"), "{message}");
    for path in ["0", "999", "18446744073709551615", "18446744073709551616", "x"] {
        let (status, answer) = viewer.ask("DELETE", &format!("/v1/viewing-sessions/{path}"), None);
        assert!([400, 404].contains(&status), "{status} {answer}");
    }
}

/// Names that need it are escaped, and the default ports are left out.
#[test]
fn addresses_are_those_by_which_the_caller_came() {
    let accounts = Accounts::new();
    let daemon = Launch::new("[[publishing_point]]\nname = \"a b/K\u{f6}ln\"\nsource = { type = \"demo\" }\n")
        .listen(["[::1]:0", "[::1]:0", "[::1]:0"])
        .control(accounts.settings(""))
        .start();
    let viewer = Caller::sign_in(daemon.control, "viewer");
    let answer = viewer.watch("A b/K\u{f6}ln", "auto");
    let end = format!("[::1]:{}/a%20b/K%C3%B6ln?k={}", daemon.mms.port(), answer["ticket"].as_str().unwrap());
    assert_eq!(answer["urls"]["mms"].as_str().unwrap(), format!("mms://{end}"));
    assert_eq!(answer["address"], "::1");
    // A client may say by which address it is to be reached.
    for (host, named) in [(json!("2001:db8::5"), "[2001:db8::5]"), (Value::Null, "[::1]")] {
        let (_, named_so) = viewer.ask("POST", "/v1/viewing-sessions", Some(&json!({ "name": "A b/K\u{f6}ln", "host": host })));
        let mms = named_so["urls"]["mms"].as_str().unwrap_or_default();
        assert!(mms.starts_with(&format!("mms://{named}:{}/", daemon.mms.port())), "{named_so}");
    }
    let report = we_play(answer["urls"]["mmst"].as_str().unwrap(), "4470");
    assert!(report["packets"].as_u64().unwrap() > 10, "{report}");
}
