//! The API of the control port keeps what its description says: schemathesis makes up calls from the one and judges the other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "a panic is a test's report")]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Need::Program;
use support::daemon::{Daemon, Launch};
use support::process::Process;
use support::ready;

const NAME: &str = "the_api_keeps_what_its_description_says";
/// Of the program that judges.
const VERSION: &str = "4.32.5";
/// What all runs together may take on a machine that does nothing else; told, not asserted.
const LIMIT: Duration = Duration::from_secs(60);
/// A run that takes so long hangs.
const STUCK: Duration = Duration::from_secs(300);
/// Installing takes as long as the network does.
const INSTALL: Duration = Duration::from_secs(300);

/// What each answer is judged by.
///
/// Not by `positive_data_acceptance`: a log level or a network is more than a schema can say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,\
                      allow_header_conformance,ignored_auth";

/// Never asked: it does not end.
const ENDLESS: &str = "/v1/events";
/// Asked in the last run alone: after these there is no token any more, or no daemon.
const LAST: [&str; 2] = ["/v1/sign-out", "/v1/drain"];

/// The program, installed beside what cargo builds; `None` where it cannot be had and need not be.
fn schemathesis() -> Option<PathBuf> {
    if !ready(NAME, &[Program("python3")]) {
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let (program, done) = (folder.join("bin/schemathesis"), folder.join("whole"));
    if done.is_file() {
        return Some(program);
    }
    let _ = std::fs::remove_dir_all(&folder);
    let step = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        let finished = Process::start(command).finish(INSTALL);
        if finished.status.success() { Ok(()) } else { Err(finished.stdout + &finished.stderr) }
    };
    let package = format!("schemathesis=={VERSION}");
    let installed = step(Path::new("python3"), &["-m", "venv", folder.to_str().unwrap()])
        .and_then(|()| step(&folder.join("bin/pip"), &["install", "--quiet", "--disable-pip-version-check", &package]));
    match installed {
        Ok(()) => {
            std::fs::write(done, "").unwrap();
            Some(program)
        }
        Err(why) => {
            let required = std::env::var("WMRELAY_TESTS_REQUIRE").unwrap_or_default();
            assert!(matches!(required.as_str(), "" | "0"), "{NAME}: schemathesis cannot be installed: {why}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: {NAME}: schemathesis cannot be installed");
            None
        }
    }
}

/// A file of those who may sign in, each with the name of their role and the password "geheim".
fn accounts(file: &Path) {
    for role in ["viewer", "operator"] {
        let mut passwd = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        passwd.args(["passwd", "--role", role]).arg(file).arg(role).stdin(Stdio::piped());
        let mut passwd = Process::start(passwd);
        passwd.take_stdin().write_all(b"geheim\n").unwrap();
        assert!(passwd.finish(INSTALL).status.success());
    }
}

/// Signs in; the token.
fn sign_in(daemon: &Daemon, user: &str) -> String {
    let mut stream = std::net::TcpStream::connect(daemon.control).unwrap();
    let body = format!("{{\"user\":\"{user}\",\"password\":\"geheim\"}}");
    let length = body.len();
    write!(
        stream,
        "POST /v1/sign-in HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&support::daemon::parse_answer(&answer).1).unwrap();
    answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn the_api_keeps_what_its_description_says() {
    let Some(program) = schemathesis() else { return };
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("operators");
    accounts(&users);
    let daemon = Launch::new("[[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n")
        .control(format!("users_file = {users:?}\ntls = false"))
        .start();
    let tokens = ["operator", "viewer", "operator"].map(|user| sign_in(&daemon, user));
    let [operator, viewer, last] = tokens.each_ref().map(|token| Some(token.as_str()));
    let but_last = [&["--exclude-path", ENDLESS], &LAST.map(|path| ["--exclude-path", path]).concat()[..]].concat();
    let only_last = LAST.map(|path| ["--include-path", path]).concat();
    let runs = [
        ("operator", operator, &but_last, "12"),
        ("viewer", viewer, &but_last, "4"),
        ("nobody", None, &but_last, "4"),
        ("operator, last", last, &only_last, "10"),
    ];
    let begin = Instant::now();
    for (who, token, paths, examples) in runs {
        let mut command = Command::new(&program);
        command.current_dir(folder.path()).args(["run", &format!("http://{}/openapi.json", daemon.control)]);
        command.args(["--checks", CHECKS, "--max-examples", examples, "--generation-deterministic", "--no-shrink", "--no-color"]);
        command.args(["--phases", "examples,coverage,fuzzing"]);
        command.args(["--suppress-health-check", "all", "--request-timeout", "10", "--continue-on-failure"]);
        // One: two threads that read Python's own source at once fail now and then in Python 3.11.
        command.args(["--workers", "1"]);
        command.args(paths);
        if let Some(token) = token {
            command.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        let finished = Process::start(command).finish(STUCK);
        assert!(finished.status.success(), "{who}:\n{}{}", finished.stdout, finished.stderr);
        // Nothing is shown by calls that were not made.
        assert!(finished.stdout.contains("passed"), "{who}:\n{}", finished.stdout);
    }
    eprintln!("schemathesis took {} s of {}", begin.elapsed().as_secs(), LIMIT.as_secs());
}
