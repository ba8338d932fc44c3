//! The unit file: its command lines are ours, and it is as closed as it claims.

#![allow(clippy::unwrap_used, reason = "a panic is this test's report")]

use std::process::Command;

use clap::Parser as _;
use wmrelay::args::Args;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/wmrelay.service");

/// Exposure 2.5 of 10, in tenths, by systemd's own account.
const THRESHOLD: &str = "--threshold=25";

#[test]
fn its_commands_can_be_parsed() {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let commands: Vec<(&str, &str)> =
        unit.lines().filter(|line| line.starts_with("Exec")).filter_map(|line| line.split_once('=')).collect();
    // RestartPreventExitStatus looks at the exit of ExecStart alone.
    let [("ExecStart", command), ("ExecReload", reload)] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(reload, "/bin/kill -HUP $MAINPID");
    Args::try_parse_from(command.split_whitespace()).unwrap_or_else(|error| panic!("{command}: {error}"));
}

#[test]
fn it_is_hardened() {
    let analyze =
        |args: &[&str]| Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).args(args).output();
    match analyze(&[THRESHOLD, UNIT]) {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            let missing = format!("NOT RUN: the unit file's hardening is not checked: systemd-analyze: {error}");
            assert!(std::env::var_os("WMRELAY_TESTS_REQUIRE").is_none(), "{missing}");
            eprintln!("{missing}");
        }
    }
}
