//! The commands that ask the running daemon, or tell it what to do, by its Unix socket.

pub(super) mod tables;

use std::io::{IsTerminal, Write as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::out::out;
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
        // It has its own way of asking.
        OperateCommand::Top(args) => return super::top::top(args),
        OperateCommand::Drain(drain) => (if drain.cancel { Method::DELETE } else { Method::POST }, "/v1/drain".to_owned()),
    };
    let body = match command {
        OperateCommand::Drain(drain) if !drain.cancel => {
            let redirect = drain.redirect.as_ref().map(ToString::to_string);
            // What is not said stays as it is.
            Some(json!({ "redirect": redirect, "timeout_s": drain.timeout, "exit": drain.exit.then_some(true) }))
        }
        _ => None,
    };
    let answer = ask(daemon, method, &path, body.as_ref())?;
    let mut out = out();
    if daemon.json {
        if !answer.is_null() {
            writeln!(out, "{answer}")?;
        }
        return Ok(());
    }
    let bold = coloured(&std::io::stdout());
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
        OperateCommand::Drain(drain) if drain.cancel => "new viewers are taken again\n".to_owned(),
        OperateCommand::Drain(_) => tables::drain(&answer),
        OperateCommand::Top(_) => String::new(),
    };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// Prints what the daemon would change if it read its settings again. `file`: the settings file that is meant.
///
/// # Errors
/// No daemon answers; its settings cannot be used, or it reads another file ([`SettingsError`]).
pub(super) fn differ(daemon: &DaemonArgs, file: Option<&Path>) -> anyhow::Result<()> {
    let answer = ask(daemon, Method::POST, "/v1/reload?dry_run=true", None)?;
    // It does not read what somebody else names: what it said about it could tell what stands there.
    if let Some(message) = file.and_then(|file| other_file(file, &answer)) {
        let problem = Problem { place: "--config".into(), key: String::new(), message };
        return Err(SettingsError { problems: vec![problem] }.into());
    }
    let text = if daemon.json { format!("{answer}\n") } else { tables::reload(&answer) };
    out().write_all(text.as_bytes())?;
    Ok(())
}

/// What to tell where the daemon's settings file, which it names first, is not this one.
fn other_file(file: &Path, answer: &Value) -> Option<String> {
    let theirs = answer.get("files").and_then(|files| files.get(0)).and_then(Value::as_str);
    let real =
        |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    if theirs.is_some_and(|theirs| real(Path::new(theirs)) == real(file)) {
        return None;
    }
    Some(format!(
        "the running daemon reads {}, not {}, and is compared with nothing else; leave --config out, or see by `wmrelay check` without \
         --diff what that file says",
        theirs.unwrap_or("no file"),
        file.display()
    ))
}

/// Whether a terminal is written to that wants colours (no-color.org).
pub(super) fn coloured(out: &impl IsTerminal) -> bool {
    let said = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    out.is_terminal() && said("NO_COLOR").is_none() && said("TERM").is_none_or(|term| term != "dumb")
}

fn ask(daemon: &DaemonArgs, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Line::open(daemon)?.ask(method, path, body).await })
}

/// A connection to the daemon's control socket, where one serves.
///
/// # Errors
/// None does; the text says where it was looked for.
pub(super) fn connect(named: Option<&Path>) -> anyhow::Result<StdUnixStream> {
    find(named).map(|(_, stream)| stream)
}

fn find(named: Option<&Path>) -> anyhow::Result<(PathBuf, StdUnixStream)> {
    let candidates = named.map_or_else(socket::candidates, |path| vec![path.to_owned()]);
    let mut tried = Vec::new();
    for socket in candidates {
        match StdUnixStream::connect(&socket) {
            Ok(stream) => return Ok((socket, stream)),
            Err(error) => tried.push(format!("{}: {error}", socket.display())),
        }
    }
    bail!(
        "no daemon can be reached ({}). Does it run, and as this user? Name its socket by --socket, or run this as root",
        tried.join("; ")
    )
}

/// The way to the daemon: a connection for each question.
pub(super) struct Line {
    /// Where it was found.
    socket: PathBuf,
}

impl Line {
    /// Finds the daemon.
    ///
    /// # Errors
    /// None can be reached; the text says where one was looked for.
    pub(super) fn open(daemon: &DaemonArgs) -> anyhow::Result<Self> {
        find(daemon.socket.as_deref()).map(|(socket, _)| Self { socket })
    }

    /// What there is at a path.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let talk = talk(&self.socket, method, path, body);
        tokio::time::timeout(PATIENCE, talk).await.map_err(|_| anyhow!("the daemon does not answer; its log may say why"))?
    }
}

async fn talk(socket: &Path, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let stream = tokio::net::UnixStream::connect(socket).await.context("the daemon is gone")?;
    let call = Call { method, path, host: "localhost", token: None, body: body.cloned() };
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
