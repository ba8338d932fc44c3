//! The firewall planner: from the settings to the rules that let so many viewers in and nothing else.
//!
//! [`Plan::of`] says which flows there are and why; [`Form::print`] writes them in the words of one firewall. Nothing here is applied,
//! and nothing is looked up.

mod aws;
mod cisco;
mod client_ports;
mod json;
mod linux;
mod listeners;
mod nftables;
mod plan;
#[cfg(test)]
mod tests;
mod text;
mod windows;

pub use plan::{Family, Flow, Host, Media, NO_ROOM, Options, Plan, PlanError, RTSP_PORTS, Side, Toward, Transport};

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::settings::PortRanges;

/// For whom the rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A person: every flow with its reason, and how players are set.
    Text,
    /// `nft -f`.
    Nftables,
    /// A shell script of iptables and ip6tables.
    Iptables,
    /// A shell script of ufw.
    Ufw,
    /// A shell script of firewall-cmd.
    Firewalld,
    /// PowerShell, with netsh for what is older.
    Windows,
    /// Access lists of a Cisco ASA.
    CiscoAsa,
    /// A shell script of the AWS command line: one security group.
    AwsSecurityGroup,
    /// Programs: one object of JSON.
    Json,
}

impl Form {
    /// The plan in this form; ends with a line feed.
    pub fn print(self, plan: &Plan) -> String {
        match self {
            Self::Text => text::text(plan),
            Self::Nftables => nftables::nftables(plan),
            Self::Iptables => linux::iptables(plan),
            Self::Ufw => linux::ufw(plan),
            Self::Firewalld => linux::firewalld(plan),
            Self::Windows => windows::windows(plan),
            Self::CiscoAsa => cisco::cisco_asa(plan),
            Self::AwsSecurityGroup => aws::security_group(plan),
            Self::Json => json::json(plan),
        }
    }
}

/// A flow between the ends of one IP version: what most firewalls call a rule.
struct Rule<'a> {
    flow: &'a Flow,
    family: Family,
    /// `None`: whatever addresses it has.
    server: Option<IpAddr>,
    /// `None`: from anywhere.
    clients: Option<IpNet>,
}

impl Plan {
    /// The needed flows of one direction, or those that may be left closed, one rule for each address of the server.
    fn rules(&self, toward: Toward, needed: bool) -> impl Iterator<Item = Rule<'_>> {
        let flows = self.flows.iter().filter(move |flow| flow.toward == toward && flow.needed == needed);
        flows.flat_map(|flow| {
            flow.hosts.iter().map(|host| Rule { flow, family: host.family, server: host.address, clients: self.clients(flow) })
        })
    }

    /// The network at the other end of a flow; `None`: anywhere.
    fn clients(&self, flow: &Flow) -> Option<IpNet> {
        self.client_net.filter(|_| flow.is_of_viewers)
    }

    /// Whether there are needed flows of this IP version: what may be left closed makes no firewall for another one.
    fn has(&self, family: Family) -> bool {
        self.flows.iter().filter(|flow| flow.needed).any(|flow| flow.hosts.iter().any(|host| host.family == family))
    }

    /// What every form says first, a line each, without marks of a comment.
    fn head(&self, form: &str) -> Vec<String> {
        let whom = match self.viewers {
            1 => "one viewer".to_owned(),
            viewers => format!("{viewers} viewers"),
        };
        let at = match self.side {
            Side::Server => "at the server's side",
            Side::Viewer => "at the viewers' side",
        };
        vec![format!("wmrelay: {form} for {whom} behind one address, {at}. Printed by `wmrelay firewall`, not applied.")]
    }

    /// What every form says last: what has no rule, and what else is to be known.
    fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        let left_out = self.left_out.iter().map(|what| format!("Left out: {what}"));
        left_out.chain(self.notes.iter().cloned())
    }
}

/// Columns of what is written for people.
const WIDTH: usize = 110;

/// Sentences as comments: a mark before each line, and no line much longer than others.
fn said(mark: &str, sentences: impl IntoIterator<Item = String>) -> String {
    let lines = sentences.into_iter().flat_map(|sentence| wrapped(&sentence, WIDTH));
    lines.map(|line| format!("{mark} {line}\n")).collect()
}

/// Commands as comments: a mark before each line.
fn marked(mark: &str, commands: &str) -> String {
    commands.lines().map(|line| format!("{mark} {line}\n")).collect()
}

/// A text in lines of at most so many characters where its words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `1024-1033`, or one port as it is, with what a firewall writes between the ends.
fn range(range: &RangeInclusive<u16>, between: &str) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}{between}{last}") }
}

/// The union of the client ports of rules that are equal but for the server's port: for firewalls whose rules cannot name both.
fn union<'a>(ports: impl Iterator<Item = &'a PortRanges>) -> PortRanges {
    // Ranges of a plan are none of them empty.
    PortRanges::new(ports.flat_map(|ports| ports.0.iter().cloned()).collect()).unwrap_or(PortRanges(Vec::new()))
}
