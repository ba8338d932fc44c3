//! The control port as a viewer program or an operator uses it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::tls;

/// The password of everybody in [`Accounts`].
const PASSWORD: &str = "geheim";

/// A file of those who may sign in, each with the name of their role.
pub struct Accounts {
    folder: tempfile::TempDir,
}

impl Accounts {
    /// Writes it.
    #[track_caller]
    pub fn new() -> Self {
        let accounts = Self { folder: tempfile::tempdir().unwrap() };
        for role in ["viewer", "operator"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
            command.args(["passwd", "--role", role]).arg(accounts.file()).arg(role);
            let mut passwd = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            passwd.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).unwrap();
            assert!(passwd.wait().unwrap().success());
        }
        accounts
    }

    /// Where it is.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("operators")
    }

    /// The keys of `[control]` that name it, and others.
    pub fn settings(&self, keys: &str) -> String {
        format!("users_file = {:?}\n{keys}", self.file())
    }
}

/// Somebody who is signed in.
pub struct Caller {
    control: SocketAddr,
    token: String,
}

impl Caller {
    /// Signs in.
    #[track_caller]
    pub fn sign_in(control: SocketAddr, user: &str) -> Self {
        let mut caller = Self { control, token: String::new() };
        let (status, answer) = caller.ask("POST", "/v1/sign-in", Some(&json!({ "user": user, "password": PASSWORD })));
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().clone_into(&mut caller.token);
        caller
    }

    /// One request; status and body.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut stream = tls::connect(self.control).unwrap();
        let token = if self.token.is_empty() { String::new() } else { format!("Authorization: Bearer {}\r\n", self.token) };
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}{kind}Content-Length: {}\r\n\r\n{body}",
            self.control,
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The end may come without TLS's own word for it.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Opens a viewing session.
    #[track_caller]
    pub fn watch(&self, name: &str, transport: &str) -> Value {
        let (status, answer) = self.ask("POST", "/v1/viewing-sessions", Some(&json!({ "name": name, "transport": transport })));
        assert_eq!(status, 201, "{answer}");
        answer
    }
}
