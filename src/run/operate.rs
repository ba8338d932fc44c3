//! The commands that ask the running daemon, or tell it what to do, by its Unix socket.

mod tables;

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::args::{DaemonArgs, OperateCommand};
use crate::client::api::{self, Call};
use crate::control::socket;
use crate::settings::{Problem, SettingsError};

/// An answer takes milliseconds; a daemon that needs longer is stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// What was named is not there: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotThere(String);

/// Does what a command says.
///
/// # Errors
/// No daemon answers, it refuses, or what was named is not there ([`NotThere`]).
pub(super) fn operate(command: &OperateCommand) -> anyhow::Result<()> {
    let daemon = command.daemon();
    let (method, path) = match command {
        OperateCommand::Status(_) => (Method::GET, "/v1/status".to_owned()),
        OperateCommand::Viewers(_) => (Method::GET, "/v1/viewers".to_owned()),
        OperateCommand::Leases(_) => (Method::GET, "/v1/leases".to_owned()),
        OperateCommand::Learned { reset: None, .. } => (Method::GET, "/v1/learned".to_owned()),
        OperateCommand::Learned { reset: Some(None), .. } => (Method::DELETE, "/v1/learned".to_owned()),
        OperateCommand::Learned { reset: Some(Some(prefix)), .. } => {
            (Method::DELETE, format!("/v1/learned/{}", prefix.to_string().replace('/', "%2F")))
        }
        OperateCommand::Sources(_) => (Method::GET, "/v1/sources".to_owned()),
        OperateCommand::Why { session, .. } => (Method::GET, format!("/v1/viewers/{session}")),
        OperateCommand::Reload(_) => (Method::POST, "/v1/reload".to_owned()),
        OperateCommand::Kick { session, .. } => (Method::DELETE, format!("/v1/viewers/{session}")),
    };
    let answer = ask(daemon, method, &path)?;
    let mut out = std::io::stdout().lock();
    if daemon.json {
        if !answer.is_null() {
            writeln!(out, "{answer}")?;
        }
        return Ok(());
    }
    let bold = out.is_terminal();
    let text = match command {
        OperateCommand::Status(_) => tables::status(&answer),
        OperateCommand::Viewers(_) => tables::viewers(&answer, bold),
        OperateCommand::Leases(_) => tables::leases(&answer, bold),
        OperateCommand::Learned { reset: None, .. } => tables::learned(&answer, bold),
        OperateCommand::Learned { .. } => tables::forgotten(&answer),
        OperateCommand::Sources(_) => tables::sources(&answer, bold),
        OperateCommand::Why { .. } => tables::story(&answer),
        OperateCommand::Reload(_) => tables::reload(&answer),
        OperateCommand::Kick { session, .. } => format!("session {session} is ended\n"),
    };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// Prints what the daemon would change if it read its settings again.
///
/// # Errors
/// No daemon answers; its settings cannot be used ([`SettingsError`]).
pub(super) fn differ(daemon: &DaemonArgs) -> anyhow::Result<()> {
    let answer = ask(daemon, Method::POST, "/v1/reload?dry_run=true")?;
    let text = if daemon.json { format!("{answer}\n") } else { tables::reload(&answer) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn ask(daemon: &DaemonArgs, method: Method, path: &str) -> anyhow::Result<Value> {
    let stream = connect(daemon.socket.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let talk = talk(stream, method, path);
        tokio::time::timeout(PATIENCE, talk).await.map_err(|_| anyhow!("the daemon does not answer; its log may say why"))?
    })
}

/// A connection to the daemon's control socket, where one serves.
///
/// # Errors
/// None does; the text says where it was looked for.
pub(super) fn connect(named: Option<&Path>) -> anyhow::Result<StdUnixStream> {
    let candidates = named.map_or_else(socket::candidates, |path| vec![path.to_owned()]);
    let mut tried = Vec::new();
    for path in candidates {
        match StdUnixStream::connect(&path) {
            Ok(stream) => return Ok(stream),
            Err(error) => tried.push(format!("{}: {error}", path.display())),
        }
    }
    bail!(
        "no daemon can be reached ({}). Does it run, and as this user? Name its socket by --socket, or run this as root",
        tried.join("; ")
    )
}

async fn talk(stream: StdUnixStream, method: Method, path: &str) -> anyhow::Result<Value> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::UnixStream::from_std(stream)?;
    let call = Call { method, path, host: "localhost", token: None, body: None };
    let (status, body) = api::call(stream, call).await.context("the daemon does not answer")?;
    if status.is_success() {
        return if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body).context("no JSON from the daemon") };
    }
    let failure: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(problems) = failure.get("problems").and_then(Value::as_array) {
        let text = |problem: &Value, key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let problem = |it: &Value| Problem { place: text(it, "place"), key: text(it, "key"), message: text(it, "message") };
        return Err(SettingsError { problems: problems.iter().map(problem).collect() }.into());
    }
    let message = api::refusal(status, &body);
    Err(if status == StatusCode::NOT_FOUND { NotThere(message).into() } else { anyhow!(message) })
}
