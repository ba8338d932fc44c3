//! `wmrelay firewall`: what a firewall has to let through, by the settings in force or by those of a file.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, anyhow, bail};
use clap::ValueEnum as _;
use hyper::Method;
use serde_json::Value;

use super::operate;
use super::out::out;
use crate::args::{FirewallArgs, FirewallForm, FirewallProtocol, FirewallSide};
use crate::client::api::{self, Call};
use crate::control::accounts::AccountsFile;
use crate::firewall::{Form, Media, NO_ROOM, Options, Plan, PlanError, Side};
use crate::settings::{Sources, load};

/// Prints the plan: of the running daemon, else of the settings that one would take, warnings about those first on standard error.
///
/// # Errors
/// Settings that cannot be used, what [`Plan::of`] says, what the daemon says, a standard output that is closed.
pub(super) fn firewall(args: &FirewallArgs) -> anyhow::Result<()> {
    let args = &FirewallArgs { form: if args.json { FirewallForm::Json } else { args.form }, ..args.clone() };
    if args.config.is_none() {
        match operate::connect(args.socket.as_deref()) {
            Ok(stream) => return print(&planned_by(stream, args)?),
            Err(error) if args.socket.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    let mut loaded = load(&Sources::of_process(args.config.clone(), Vec::new()))?;
    let users = loaded.settings.control.users_file.as_deref().map(AccountsFile::open).transpose();
    let users = users.context("control.users_file")?;
    if users.is_some_and(|users| users.current().is_empty()) {
        // As with no file: nobody may sign in, so the daemon listens for nobody.
        loaded.settings.control.users_file = None;
    }
    let plan = Plan::of(&loaded.settings, &options(args)).map_err(|error| match error {
        PlanError::Pool { .. } => anyhow!("{error} ({})", ways_out(args)),
        _ => anyhow!(error),
    })?;
    let mut err = io::stderr().lock();
    if args.config.is_none() {
        let files: Vec<_> = loaded.files.iter().map(|file| file.display().to_string()).collect();
        let from = if files.is_empty() { "the built-in settings".to_owned() } else { files.join(", ") };
        writeln!(err, "no daemon runs here that could be asked; planned from {from}")?;
    }
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    print(&form(args.form).print(&plan))
}

/// The options that ask for less of the pool.
fn ways_out(args: &FirewallArgs) -> &'static str {
    match args.protocol {
        FirewallProtocol::Rtsp => "--viewers, --protocol mms, --rtsp-ports, --tcp-only",
        FirewallProtocol::All | FirewallProtocol::Mms | FirewallProtocol::Http => "--viewers, --tcp-only",
    }
}

fn print(plan: &str) -> anyhow::Result<()> {
    out().write_all(plan.as_bytes()).context("the plan cannot be written")
}

/// The plan of the daemon at the other end.
fn planned_by(stream: UnixStream, args: &FirewallArgs) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = path(args);
    runtime.block_on(async {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        let call = Call { method: Method::GET, path: &path, host: "localhost", token: None, body: None };
        let asked = tokio::time::timeout(operate::PATIENCE, api::call(stream, call)).await;
        let (status, body) = asked.map_err(|_| anyhow!("the daemon does not answer; its log may say why"))??;
        if !status.is_success() {
            let why = api::refusal(status, &body);
            let failure: Value = serde_json::from_slice(&body).unwrap_or_default();
            if failure.get("error").and_then(Value::as_str) == Some(NO_ROOM) {
                bail!("{why} ({})", ways_out(args));
            }
            bail!(why);
        }
        String::from_utf8(body.to_vec()).context("no text from the daemon")
    })
}

/// The call that asks for the same.
fn path(args: &FirewallArgs) -> String {
    let word = |word: Option<clap::builder::PossibleValue>| word.map(|word| word.get_name().to_owned()).unwrap_or_default();
    let mut path = format!(
        "/v1/firewall?viewers={}&for={}&side={}&protocol={}&rtsp_ports={}&tcp_only={}",
        args.viewers,
        word(args.form.to_possible_value()),
        word(args.side.to_possible_value()),
        word(args.protocol.to_possible_value()),
        args.rtsp_ports,
        args.tcp_only,
    );
    if let Some(net) = args.client_net {
        path.push_str(&format!("&client_net={net}"));
    }
    if !args.server.is_empty() {
        let servers: Vec<_> = args.server.iter().map(ToString::to_string).collect();
        path.push_str(&format!("&server={}", servers.join(",")));
    }
    path
}

fn options(args: &FirewallArgs) -> Options {
    Options {
        viewers: args.viewers.into(),
        side: match args.side {
            FirewallSide::Server => Side::Server,
            FirewallSide::Viewer => Side::Viewer,
        },
        media: match args.protocol {
            FirewallProtocol::All => Media::All,
            FirewallProtocol::Mms => Media::Mms,
            FirewallProtocol::Rtsp => Media::Rtsp,
            FirewallProtocol::Http => Media::Http,
        },
        client_net: args.client_net,
        servers: args.server.clone(),
        tcp_only: args.tcp_only,
        rtsp_ports: args.rtsp_ports.into(),
    }
}

fn form(form: FirewallForm) -> Form {
    match form {
        FirewallForm::Text => Form::Text,
        FirewallForm::Nftables => Form::Nftables,
        FirewallForm::Iptables => Form::Iptables,
        FirewallForm::Ufw => Form::Ufw,
        FirewallForm::Firewalld => Form::Firewalld,
        FirewallForm::Windows => Form::Windows,
        FirewallForm::CiscoAsa => Form::CiscoAsa,
        FirewallForm::AwsSg => Form::AwsSecurityGroup,
        FirewallForm::Json => Form::Json,
    }
}
