//! The plan for a Cisco ASA: access lists.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::{Family, Plan, Side, Toward, Transport};
use super::{Rule, said};

/// One list for what comes from the viewers, one for what comes from the server. Unified lists, of ASA 9.0 on.
pub(super) fn cisco_asa(plan: &Plan) -> String {
    let mut text = said("!", plan.head("Cisco ASA access lists"));
    text.push_str(
        "! An ASA lets answers on connections pass by itself, and denies what no entry of a list permits: where an interface has a list\n\
         ! already, add these entries to it. `inspect rtsp` opens ports by itself for RTSP on TCP 554; leave it on or off, these entries do.\n",
    );
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
    let [from_viewers, from_server] = match plan.side {
        Side::Server => ["outside", "inside"],
        Side::Viewer => ["inside", "outside"],
    };
    let _ = writeln!(text, "access-group WMRELAY-TO-SERVER in interface {from_viewers}");
    if plan.rules(Toward::Viewers, true).next().is_some() {
        let _ = writeln!(text, "access-group WMRELAY-TO-VIEWERS in interface {from_server}");
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
