//! Those who may sign in at control port and console.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A file of three who may sign in, each with the name of their role and the password "geheim".
pub fn accounts() -> (tempfile::TempDir, PathBuf) {
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
