//! `wmrelay firewall`: what a firewall has to let through, by the settings.

use std::io::{self, Write as _};

use anyhow::Context as _;

use crate::args::{FirewallArgs, FirewallForm, FirewallProtocol, FirewallSide};
use crate::firewall::{Form, Media, Options, Plan, Side};
use crate::settings::{Sources, load};

/// Prints the plan, warnings about the settings first on standard error.
///
/// # Errors
/// Settings that cannot be used, what [`Plan::of`] says, a standard output that is closed.
pub(super) fn firewall(args: &FirewallArgs) -> anyhow::Result<()> {
    let loaded = load(&Sources::of_process(args.config.clone(), Vec::new()))?;
    let plan = Plan::of(&loaded.settings, &options(args))?;
    let mut err = io::stderr().lock();
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    io::stdout().lock().write_all(form(args.form).print(&plan).as_bytes()).context("the plan cannot be written")
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
    }
}
