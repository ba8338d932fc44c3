//! The binary's commands as a person runs them: what they print, and how they end.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is this test's report")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;
use wmrelay::text::Users;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/wmrelay.toml");

/// The binary, without what this machine's environment says about it.
fn wmrelay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"WMRELAY") {
            command.env_remove(name);
        }
    }
    command.args(args);
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    folder
}

#[test]
fn check_prints_what_is_in_force() {
    let built_in = run(&mut wmrelay(&["check"]));
    assert_eq!(built_in.status.code(), Some(0), "{}", err(&built_in));
    assert!(out(&built_in).contains("[mms]\nlisten = [\"*:1755\"]\n"), "{}", out(&built_in));
    assert_eq!(err(&built_in), "");

    let sample = run(&mut wmrelay(&["check", "--config", SAMPLE]));
    assert_eq!(sample.status.code(), Some(0), "{}", err(&sample));
    assert_eq!(err(&sample), format!("read {SAMPLE}\n"));
    let values =
        |text: String| -> Vec<String> { text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect() };
    assert_eq!(values(out(&sample)), values(out(&built_in)), "the sample says the built-in settings");
    assert!(out(&sample).contains(&format!("enabled = true # {SAMPLE}:")), "{}", out(&sample));
}

#[test]
fn check_lays_file_environment_and_flags_over_one_another() {
    let folder = folder(&[
        ("w.toml", "limits.viewers = 1\nlimits.idle_s = 7\nmms.listen = '127.0.0.1:1'\nhttp.listen = '127.0.0.1:2'\n"),
        ("conf.d/1.toml", "limits.viewers = 2\n[[publishing_point]]\nname = 'a'\nsource = { type = 'push' }\n"),
    ]);
    let config = folder.path().join("w.toml");
    let mut command = wmrelay(&["check", "--config", path(&config), "--http-listen", "127.0.0.1:4"]);
    command.env("WMRELAY__MMS__LISTEN", "127.0.0.1:3").env("WMRELAY__HTTP__LISTEN", "127.0.0.1:3");
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for line in [
        &format!("viewers = 2 # {}/conf.d/1.toml:1\n", path(folder.path())),
        &format!("idle_s = 7 # {}:2\n", path(&config)),
        "listen = [\"127.0.0.1:3\"] # environment variable WMRELAY__MMS__LISTEN\n",
        "listen = [\"127.0.0.1:4\"] # --http-listen\n",
        "\nname = \"a\"\nsource = { type = \"push\" }\n",
    ] {
        assert!(out(&output).contains(line), "{line:?} is not in\n{}", out(&output));
    }
    assert!(err(&output).starts_with("warning: users.file: is not set, so only this machine itself can publish \"a\"\n"));
    let quiet = run(command.arg("--quiet"));
    assert_eq!((quiet.status.code(), out(&quiet), err(&quiet)), (Some(0), String::new(), String::new()));
}

#[test]
fn mistakes_name_file_line_key_and_the_nearest_name() {
    let folder = folder(&[("w.toml", "[mms]\n\nlisen = '*:1755'\n[udp]\nenabled = 'perhaps'\n"), ("conf.d/1.toml", "a = [\n")]);
    let config = folder.path().join("w.toml");
    for command in ["check", "serve"] {
        let mut command = wmrelay(&[command, "--config", path(&config), "--log-format", "yaml"]);
        let output = run(command.env("WMRELAY__LIMITS__VIEWER", "5"));
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
        assert_eq!(out(&output), "");
        let told = err(&output).replace(path(folder.path()), "");
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 5, "{told}");
        assert_eq!(lines[0], "/w.toml:3: mms.lisen: unknown key `lisen`; did you mean `listen`?");
        assert_eq!(lines[1], "/w.toml:5: udp.enabled: invalid type: string \"perhaps\", expected true or false");
        assert!(lines[2].starts_with("/conf.d/1.toml:"), "{told}");
        assert_eq!(
            lines[3],
            "environment variable WMRELAY__LIMITS__VIEWER: limits.viewer: unknown key `viewer`; did you mean `viewers`?"
        );
        assert_eq!(
            lines[4],
            "--log-format: log.format: unknown value \"yaml\"; known here: \"auto\", \"text\", \"json\", \"journald\""
        );
    }
}

#[test]
fn a_wrong_meaning_ends_with_2_as_well() {
    let folder = folder(&[("w.toml", "\n[[publishing_point]]\nname = 'publish'\nsource = { type = 'demo' }\n")]);
    let config = folder.path().join("w.toml");
    let output = run(&mut wmrelay(&["check", "--config", path(&config)]));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("w.toml:3: publishing_point[0].name: \"publish\": \"publish\" is reserved"),
        "{}",
        err(&output)
    );
    let missing = run(&mut wmrelay(&["check", "--config", path(&folder.path().join("none.toml"))]));
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("none.toml: cannot be read: "), "{}", err(&missing));
    let unknown_flag = run(&mut wmrelay(&["check", "--confg", "x"]));
    assert_eq!(unknown_flag.status.code(), Some(2));
    assert!(err(&unknown_flag).contains("--config"), "{}", err(&unknown_flag));
}

#[test]
fn a_log_level_that_is_none_is_a_mistake_in_the_settings() {
    let folder = folder(&[("w.toml", "mms.listen = '127.0.0.1:0'\n[log]\nlevel = 'inof'\n")]);
    let config = folder.path().join("w.toml");
    for args in [&["check", "--quiet"][..], &["serve"]] {
        let output = run(wmrelay(args).args(["--config", path(&config)]));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let told = err(&output);
        assert!(told.contains("w.toml:3: log.level: \"inof\" is no log level; there are off, error"), "{told}");
    }
}

#[test]
fn a_redirect_to_the_daemon_itself_is_a_mistake_in_the_settings() {
    let told = |redirect: &str| {
        let folder = folder(&[("w.toml", &format!("[drain]\nredirect = '{redirect}'\n"))]);
        let output = run(&mut wmrelay(&["check", "--config", path(&folder.path().join("w.toml"))]));
        (output.status.code(), err(&output))
    };
    let (code, said) = told("mms://127.0.0.1:8080");
    let expected = "w.toml:2: drain.redirect: leads back to this daemon, which listens on 0.0.0.0:8080";
    assert!(code == Some(2) && said.contains(expected), "{said}");
    assert_eq!(told("mms://127.0.0.1:8081").0, Some(0));
}

#[test]
fn who_stops_reading_is_no_failure() {
    for args in [&["check"][..], &["completions", "bash"], &["firewall", "--viewers", "10", "--config", SAMPLE]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = wmrelay(args).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((ended.status.code(), err(&ended).contains("pipe")), (Some(0), false), "{args:?}: {}", err(&ended));
    }
}

#[test]
fn a_broken_users_file_is_a_mistake_in_the_settings() {
    let folder = folder(&[("w.toml", "mms.listen = '127.0.0.1:0'\nusers.file = 'users'\nhttp.listen = ''\nadmin.listen = ''\n")]);
    let config = folder.path().join("w.toml");
    let told = |command: &str| {
        let output = run(&mut wmrelay(&[command, "--config", path(&config)]));
        assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()), "{command}: {}", err(&output));
        err(&output).lines().last().unwrap().replace(path(folder.path()), "")
    };
    for command in ["check", "serve"] {
        let missing = told(command);
        assert!(missing.starts_with("/w.toml:2: users.file: /users cannot be read: No such file"), "{missing}");
    }
    fs::write(folder.path().join("users"), "# studio\ncam:wmrelay\n").unwrap();
    for command in ["check", "serve"] {
        let broken = told(command);
        assert!(broken.starts_with("/users:2: expected user:realm:digest"), "{broken}");
    }
}

#[test]
fn swarm_says_what_it_cannot_do_before_it_starts() {
    let told = |args: &[&str]| {
        let output = run(&mut wmrelay(&[&["swarm"], args].concat()));
        assert_eq!(out(&output), "", "{args:?}");
        (output.status.code(), err(&output))
    };
    let url = "mms://127.0.0.1:1/none";
    for (args, code, words) in [
        (&[url][..], 2, "--viewers"),
        (&[url, "--viewers", "0"], 2, "1..=1000000"),
        (&[url, "--viewers", "1", "--ramp", "0/s"], 2, "a number per second from 1 on"),
        (&[url, "--viewers", "1", "--transport", "sctp"], 2, "[possible values: udp, tcp]"),
        (&[url, "--viewers", "1", "--ports", "5-1"], 2, "--ports"),
        (&["http://a/b", "--viewers", "1", "--transport", "udp"], 1, "http://a/b: HTTP has no UDP"),
        (&[url, "--viewers", "1", "--addresses", "127.0.0.1-x"], 1, "--addresses: \"127.0.0.1-x\" is not an address"),
        (&[url, "--viewers", "9", "--ports", "1024-1027"], 1, "need 3 local addresses with ports for 4 each, and there is 1"),
        (
            &["rtsp://127.0.0.1:1/none", "--viewers", "9", "--ports", "1024-1027"],
            1,
            "need 5 local addresses with ports for 2 each",
        ),
        (&["mmst://127.0.0.1:1/none", "--viewers", "1", "--addresses", "::1"], 1, "no address of the family of --addresses"),
        (&[url, "--viewers", "1", "--pid", "4294967295"], 1, "process 4294967295: there is no such process"),
    ] {
        let (status, said) = told(args);
        assert_eq!(status, Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(code == 2 || said.starts_with("wmrelay: ") && said.lines().count() == 1, "{args:?}: {said}");
    }
}

/// Runs `passwd` with a password on standard input.
fn passwd(file: &Path, args: &[&str], input: &str) -> Output {
    let mut command = wmrelay(&["passwd", path(file)]);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // An error: it ended without reading, as it should for wrong names.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn users(file: &Path) -> Users {
    Users::parse(&fs::read_to_string(file).unwrap(), "users").unwrap()
}

#[test]
fn passwd_writes_a_users_file() {
    let folder = folder(&[]);
    let file = folder.path().join("users");
    let added = passwd(&file, &["cam"], "Circle of Life\n");
    assert_eq!(added.status.code(), Some(0), "{}", err(&added));
    assert!(err(&added).ends_with(": user \"cam\" added\n"), "{}", err(&added));
    assert_eq!(fs::read_to_string(&file).unwrap(), "cam:wmrelay:5bb3f3234c9676605e185ff056d91246\n");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);

    assert!(passwd(&file, &["tv"], "a").status.success());
    let changed = passwd(&file, &["cam"], "other\n");
    assert!(err(&changed).ends_with(": user \"cam\" changed\n"), "{}", err(&changed));
    assert_eq!(users(&file).len(), 2);
    assert!(fs::read_to_string(&file).unwrap().starts_with("cam:wmrelay:") && users(&file).ha1("tv").is_some());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn another_password_leaves_the_role() {
    let folder = folder(&[("streams", "cam:wmrelay:5bb3f3234c9676605e185ff056d91246\n")]);
    let file = folder.path().join("operators");
    let told = |file: &Path, args: &[&str]| {
        let output = passwd(file, args, "geheim\n");
        (output.status.success(), err(&output))
    };
    for (args, words) in [
        (&["vera", "--role", "viewer"][..], "viewer \"vera\" added\n"),
        (&["vera"], "viewer \"vera\" changed\n"),
        (&["vera", "--role", "publisher"], "publisher \"vera\" changed, who was viewer\n"),
        (&["vera"], "publisher \"vera\" changed\n"),
    ] {
        let (done, said) = told(&file, args);
        assert!(done && said.ends_with(words), "{args:?}: {said}");
    }
    let before = fs::read_to_string(&file).unwrap();
    assert!(before.starts_with("vera:publisher:$argon2"), "{before}");
    let streams = folder.path().join("streams");
    for (file, args, words) in [
        (&file, &["anna"][..], "operators has no \"anna\" yet; say by --role what that one may do"),
        (&file, &["vera", "--realm", "r"], "leave --realm out"),
        (&streams, &["cam", "--role", "viewer"], "leave --role out"),
    ] {
        let (done, said) = told(file, args);
        assert!(!done && said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn passwd_refuses_what_would_not_work() {
    let folder = folder(&[("broken", "no such line\n")]);
    let file = folder.path().join("users");
    let refused = |file: &Path, args: &[&str], input: &str, word: &str| {
        let output = passwd(file, args, input);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(err(&output).starts_with("wmrelay: ") && err(&output).contains(word), "{args:?}: {}", err(&output));
    };
    refused(&file, &["cam"], "", "empty");
    refused(&file, &["cam"], "\n", "empty");
    refused(&file, &["c:am"], "a", "colon");
    refused(&folder.path().join("none/users"), &["cam"], "a", "cannot write");
    refused(&folder.path().join("broken"), &["cam"], "a", "broken:1: ");
    assert!(!file.exists());

    assert!(passwd(&file, &["cam", "--realm", "studio"], "a").status.success());
    refused(&file, &["tv", "--realm", "elsewhere"], "a", "one file has one realm");
    assert!(passwd(&file, &["tv"], "a").status.success(), "the file's realm is the default");
    assert!(users(&file).ha1("tv").is_some() && users(&file).realm() == "studio");
}

/// `passwd` on a terminal of its own.
struct OnTerminal {
    child: Child,
    err: ChildStderr,
    told: String,
    terminal: File,
    /// Kept open: a terminal whose other end is closed forgets what was shown.
    end: OwnedFd,
}

impl OnTerminal {
    fn start(file: &Path) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let end: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        let mut command = wmrelay(&["passwd", path(file), "cam"]);
        let mut child = command.stdin(end.try_clone().unwrap()).stderr(Stdio::piped()).spawn().unwrap();
        let err = child.stderr.take().unwrap();
        Self { child, err, told: String::new(), terminal: terminal.into(), end }
    }

    /// Reads what it says until it asks this.
    fn wait_for(&mut self, prompt: &str) {
        let mut byte = [0];
        while !self.told.ends_with(prompt) {
            self.err.read_exact(&mut byte).unwrap_or_else(|_| panic!("it ended, having said {:?}", self.told));
            self.told.push(byte[0].into());
        }
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.end).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    fn end(&mut self) -> Option<i32> {
        self.err.read_to_string(&mut self.told).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_terminal_does_not_show_the_password() {
    let folder = folder(&[]);
    let file = folder.path().join("users");
    let mut passwd = OnTerminal::start(&file);
    for prompt in ["Password of cam: ", "Once more: "] {
        passwd.wait_for(prompt);
        assert!(!passwd.echoes());
        passwd.terminal.write_all(b"Circle of Life\n").unwrap();
    }
    assert_eq!(passwd.end(), Some(0), "{}", passwd.told);
    assert!(passwd.echoes(), "the terminal is as before");
    // What the terminal shows: after a mark that is echoed, nothing more can come.
    passwd.terminal.write_all(b"mark\n").unwrap();
    let mut shown = Vec::new();
    while !shown.ends_with(b"mark\r\n") {
        let mut byte = [0];
        passwd.terminal.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    assert_eq!(String::from_utf8(shown).unwrap(), "mark\r\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "cam:wmrelay:5bb3f3234c9676605e185ff056d91246\n");
}

#[test]
fn two_different_passwords_or_ctrl_c_write_nothing() {
    let folder = folder(&[]);
    let file = folder.path().join("users");
    let mut differs = OnTerminal::start(&file);
    for (prompt, typed) in [("Password of cam: ", "a\n"), ("Once more: ", "b\n")] {
        differs.wait_for(prompt);
        differs.terminal.write_all(typed.as_bytes()).unwrap();
    }
    assert_eq!(differs.end(), Some(1));
    assert!(differs.told.contains("the two passwords differ"), "{}", differs.told);

    let mut interrupted = OnTerminal::start(&file);
    interrupted.wait_for("Password of cam: ");
    kill_process(Pid::from_child(&interrupted.child), Signal::INT).unwrap();
    assert_eq!(interrupted.end(), Some(1), "{}", interrupted.told);
    assert!(interrupted.told.contains("interrupted"), "{}", interrupted.told);
    assert!(interrupted.echoes(), "the terminal is as before");
    assert!(!file.exists());
}
