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

/// systemd itself finds nothing wrong with them, but that the program is not installed.
#[test]
fn systemd_can_read_them() {
    // Beside one another, for each names the other.
    let folder = tempfile::tempdir().unwrap();
    let units = ["wmrelay.service", "wmrelay.socket"].map(|name| {
        let unit = std::fs::read_to_string(std::path::Path::new(UNIT).with_file_name(name)).unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, unit.replace("/usr/bin/wmrelay", env!("CARGO_BIN_EXE_wmrelay"))).unwrap();
        file
    });
    match Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).args(&units).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours = said.lines().filter(|line| line.contains("wmrelay")).collect::<Vec<_>>();
            assert!(output.status.success() && ours.is_empty(), "{said}");
        }
        Err(error) => {
            let missing = format!("NOT RUN: the units are not verified: systemd-analyze: {error}");
            assert!(std::env::var_os("WMRELAY_TESTS_REQUIRE").is_none(), "{missing}");
            eprintln!("{missing}");
        }
    }
}

/// The socket unit has the addresses that are built in, and no others.
#[test]
fn the_socket_unit_has_the_built_in_listeners() {
    use std::collections::BTreeSet;
    use wmrelay::settings::{Control, Settings};

    let unit = std::fs::read_to_string(std::path::Path::new(UNIT).with_file_name("wmrelay.socket")).unwrap();
    let of_unit = |key: &str| -> BTreeSet<std::net::SocketAddr> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')?.parse().ok()).collect()
    };
    let settings = Settings::default();
    let control = Control::reachable(&settings.control.listen, false);
    let console = Control::reachable(&settings.console, false);
    let tcp = [&settings.mms, &settings.http, &settings.rtsp, &settings.admin, &control, &console];
    let tcp: BTreeSet<_> = tcp.into_iter().flat_map(|listen| listen.addresses.iter().copied()).collect();
    assert_eq!(of_unit("ListenStream"), tcp);
    let rtp = [settings.rtsp_server_port, settings.rtsp_server_port + 1];
    let rtp = rtp.into_iter().flat_map(|port| settings.rtsp.addresses.iter().map(move |at| (at.ip(), port).into()));
    assert_eq!(of_unit("ListenDatagram"), settings.mms.addresses.iter().copied().chain(rtp).collect());
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
