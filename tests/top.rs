//! `wmrelay top`, on a terminal and without one.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a panic is this test's report; and it runs on the real clock"
)]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use support::daemon::Daemon;
use support::viewer::Viewer;
use support::{stays, wait_for, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// `top` on a terminal of 80 columns and 20 lines.
struct OnTerminal {
    child: Child,
    terminal: File,
    shown: String,
    /// Kept open: a terminal whose other end is closed forgets what was shown.
    end: OwnedFd,
}

impl OnTerminal {
    fn start(daemon: &Daemon, environment: &[(&str, &str)]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let end: OwnedFd = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap().into();
        tcsetwinsize(&end, Winsize { ws_row: 20, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
        command.arg("top").arg("--socket").arg(daemon.folder().join("control.sock"));
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
        command.stdin(end.try_clone().unwrap()).stdout(end.try_clone().unwrap()).stderr(end.try_clone().unwrap());
        let child = command.spawn().unwrap();
        Self { child, terminal: terminal.into(), shown: String::new(), end }
    }

    /// Reads on until this stands in what was shown since the last call.
    #[track_caller]
    fn wait_for(&mut self, text: &str) -> String {
        let begin = std::time::Instant::now();
        while !self.shown.contains(text) {
            assert!(begin.elapsed() < LIMIT, "{text:?} is not shown: {:?}", self.shown);
            let mut bytes = [0; 4096];
            let count = self.terminal.read(&mut bytes).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        std::mem::take(&mut self.shown)
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }
}

#[test]
fn a_table_lives_on_a_terminal_and_leaves_it_as_it_was() {
    let daemon = Daemon::start("");
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(5, LIMIT);
    let mut top = OnTerminal::start(&daemon, &[]);
    let before = tcgetattr(&top.end).unwrap().local_modes;
    let shown = top.wait_for("sessions 1 to 1 of 1   s: sorted by rate");
    assert!(shown.starts_with("\u{1b}[?1049h") && shown.contains("\u{1b}[1m") && shown.contains("mms/tcp"), "{shown:?}");
    wait_until("keys without Enter", LIMIT, || !tcgetattr(&top.end).unwrap().local_modes.contains(LocalModes::ICANON));
    // A rate needs a second look.
    let rate = |shown: &str| {
        shown.lines().any(|line| line.contains("mms/tcp") && line.contains(" kbit/s") && !line.contains(" 0 kbit/s"))
    };
    let mut shown = top.wait_for("sorted by rate");
    while !rate(&shown) {
        shown = top.wait_for("sorted by rate");
    }
    top.press("s");
    top.wait_for("sorted by age");
    top.press("\u{1b}[B\u{1b}[A");
    top.press("q");
    let status = wait_for("the end of top", LIMIT, || top.child.try_wait().unwrap());
    assert!(status.success());
    top.wait_for("\u{1b}[?1049l");
    let after = tcgetattr(&top.end).unwrap().local_modes;
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG) && after == before);
}

#[test]
fn it_is_plain_where_no_colours_are_wanted_and_ends_on_ctrl_c_and_sigterm() {
    let daemon = Daemon::start("");
    let mut top = OnTerminal::start(&daemon, &[("NO_COLOR", "1")]);
    let shown = top.wait_for("sorted by rate");
    assert!(!shown.contains("\u{1b}[1m") && !shown.contains("\u{1b}[2m"), "{shown:?}");
    top.press("\u{3}");
    assert!(wait_for("the end of top", LIMIT, || top.child.try_wait().unwrap()).success());
    let mut top = OnTerminal::start(&daemon, &[]);
    top.wait_for("sorted by rate");
    support::process::send_signal(top.child.id(), "TERM");
    assert!(wait_for("the end of top", LIMIT, || top.child.try_wait().unwrap()).success());
    top.wait_for("\u{1b}[?1049l");
}

#[test]
fn it_can_be_quit_while_the_daemon_does_not_answer() {
    let daemon = Daemon::start("");
    let ends: [fn(&mut OnTerminal); 2] = [|top| top.press("q"), |top| support::process::send_signal(top.child.id(), "TERM")];
    for end in ends {
        let mut top = OnTerminal::start(&daemon, &[]);
        top.wait_for("sorted by rate");
        support::process::send_signal(daemon.id(), "STOP");
        // Past the next look.
        stays("it waits for an answer", Duration::from_secs(3), || top.child.try_wait().unwrap().is_none());
        end(&mut top);
        let status = wait_for("the end of top", LIMIT, || top.child.try_wait().unwrap());
        support::process::send_signal(daemon.id(), "CONT");
        assert!(status.success());
        top.wait_for("\u{1b}[?1049l");
    }
}

#[test]
fn without_a_terminal_it_is_printed_once_or_as_json() {
    let daemon = Daemon::start("");
    let viewer = Viewer::tcp(daemon.mms, "demo");
    viewer.wait_for_packets(5, LIMIT);
    let (table, code) = daemon.command(&["top"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(
        table.contains("serving for") && table.contains("mms/tcp") && table.contains("demo") && !table.contains('\u{1b}'),
        "{table}"
    );
    let (json, code) = daemon.command(&["top", "--json"]);
    assert_eq!(code, Some(0), "once, for no --every asks for more: {json}");
    let look: Value = serde_json::from_str(&json).unwrap();
    assert!(look["viewers"][0]["bit_rate"].as_u64() > Some(0) && look["status"]["state"] == "serving", "{look}");
    assert_eq!(look["sources"][0]["point"], "demo");
    assert_eq!(daemon.command(&["top", "--every", "0"]).1, Some(2));
}
