//! The plan for a Cisco ASA: access lists.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::{Family, Plan, Side, Toward, Transport};
use super::{Rule, said};

/// What is said before the entries.
const WARNINGS: [&str; 2] = [
    "An ASA lets answers on connections pass by itself. Entries alone change nothing: an interface obeys the one list that is bound to it, \
     and denies what no entry of that permits. `show running-config access-group` tells which are bound; the lines that bind are comments \
     here, since to bind a list takes away the one that was there.",
    "`inspect rtsp` opens ports by itself for RTSP on TCP 554; leave it on or off, these entries do.",
];
/// What becomes of the list of what comes from outside.
const OUTSIDE: &str = "where outside has a list, put the entries into that one, by its name. Where it has none, bind this one:";
/// The same from inside, from where an ASA lets all pass by itself.
const INSIDE: &str = "where inside has a list, put the entries into that one, by its name. Where it has none, all from inside passes \
                      already: leave it so. This list alone would cut off all else (web, DNS, mail); where one is wanted, permit \
                      behind its entries what has to pass, all of it by the first of these lines:";

/// One list for what comes from the viewers, one for what comes from the server. Unified lists, of ASA 9.0 on.
pub(super) fn cisco_asa(plan: &Plan) -> String {
    let mut text = said("!", plan.head("Cisco ASA access lists"));
    text.push_str(&said("!", WARNINGS.map(String::from)));
    let ends = [(Toward::Server, "WMRELAY-TO-SERVER"), (Toward::Viewers, "WMRELAY-TO-VIEWERS")];
    for (toward, list) in ends {
        let mut remarked = String::new();
        for rule in plan.rules(toward, true) {
            if remarked != rule.flow.name {
                remarked.clone_from(&rule.flow.name);
                let _ = writeln!(text, "access-list {list} remark {remarked}");
            }
            entries(&mut text, list, "", &rule);
        }
    }
    let from_outside = match plan.side {
        Side::Server => Toward::Server,
        Side::Viewer => Toward::Viewers,
    };
    for (toward, list) in ends.into_iter().filter(|(toward, _)| plan.rules(*toward, true).next().is_some()) {
        let (interface, told) = if toward == from_outside { ("outside", OUTSIDE) } else { ("inside", INSIDE) };
        text.push_str(&said("!", [format!("{list}: {told}")]));
        if toward != from_outside {
            let _ = writeln!(text, "! access-list {list} extended permit ip any any");
        }
        let _ = writeln!(text, "! access-group {list} in interface {interface}");
    }
    for (toward, list) in ends {
        for rule in plan.rules(toward, false) {
            text.push_str(&said("!", [format!("May be added: {}.", rule.flow.why)]));
            entries(&mut text, list, "! ", &rule);
        }
    }
    text.push_str(&said("!", plan.remarks()));
    text
}

fn entries(text: &mut String, list: &str, mark: &str, rule: &Rule<'_>) {
    let Rule { flow, family, server, clients } = rule;
    let transport = match flow.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let any = match family {
        Family::V4 => "any4",
        Family::V6 => "any6",
    };
    let server = server.map_or_else(|| any.to_owned(), host);
    let clients = clients.map_or_else(|| any.to_owned(), network);
    let server_port = flow.server_port.map_or_else(String::new, |port| format!(" eq {port}"));
    let client_ports = match &flow.client_ports {
        None => vec![String::new()],
        Some(ports) => ports
            .0
            .iter()
            .map(|ports| match (ports.start(), ports.end()) {
                (first, last) if first == last => format!(" eq {first}"),
                (first, last) => format!(" range {first} {last}"),
            })
            .collect(),
    };
    for client_port in client_ports {
        let ends = match flow.toward {
            Toward::Server => format!("{clients}{client_port} {server}{server_port}"),
            Toward::Viewers => format!("{server}{server_port} {clients}{client_port}"),
        };
        let _ = writeln!(text, "{mark}access-list {list} extended permit {transport} {ends}");
    }
}

fn host(address: IpAddr) -> String {
    format!("host {address}")
}

/// IPv4 with a mask, IPv6 with the length of its prefix.
fn network(net: IpNet) -> String {
    match net {
        IpNet::V4(net) if net.prefix_len() == 0 => "any4".into(),
        IpNet::V6(net) if net.prefix_len() == 0 => "any6".into(),
        net if net.prefix_len() == net.max_prefix_len() => host(net.addr()),
        IpNet::V4(net) => format!("{} {}", net.network(), net.netmask()),
        IpNet::V6(net) => net.to_string(),
    }
}
