//! The plan for the AWS command line: what one security group lets through.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::linux::inwards_outwards;
use super::plan::{Family, Plan, Toward, Transport};
use super::{Rule, marked, said, union};

/// Security groups name the port at the destination alone, so that ranges from several ports of the server become one.
pub(super) fn security_group(plan: &Plan) -> String {
    let mut text = said("#", plan.head("a security group, by the AWS command line"));
    text.push_str(
        "# Put the group's id into GROUP. A security group keeps state, denies what no rule allows to come in, and has a rule that allows\n\
         # all to go out; it knows no port of the sender, so that client ports of all protocols are one range, open from any port.\n",
    );
    let (inwards, outwards) = inwards_outwards(plan);
    match permissions(plan, inwards, true) {
        Some(permissions) => text.push_str(&command("ingress", &permissions)),
        None => text.push_str("# Nothing comes in but answers: there is nothing to open.\n"),
    }
    if let Some(permissions) = permissions(plan, outwards, true) {
        text.push_str("\n# Only where the rule that allows all to go out was taken away:\n");
        text.push_str(&marked("#", &command("egress", &permissions)));
    }
    for (toward, way) in [(inwards, "ingress"), (outwards, "egress")] {
        if let Some(permissions) = permissions(plan, toward, false) {
            let _ = writeln!(text, "\n# May be left closed:");
            text.push_str(&marked("#", &command(way, &permissions)));
        }
    }
    text.push_str(&said("#", plan.remarks()));
    text
}

fn command(way: &str, permissions: &[Value]) -> String {
    let lines: Vec<_> = permissions.iter().map(|permission| format!("  {permission}")).collect();
    format!("aws ec2 authorize-security-group-{way} --group-id \"$GROUP\" --ip-permissions '[\n{}\n]'\n", lines.join(",\n"))
}

/// What one permission lets through, and what for. The service refuses two of the same port, protocol and peer.
#[derive(PartialEq, Eq)]
struct Permission {
    protocol: &'static str,
    first: u16,
    last: u16,
    family: Family,
    peer: String,
}

impl Permission {
    fn json(&self, names: &[String]) -> Value {
        let (kind, address) = match self.family {
            Family::V4 => ("IpRanges", "CidrIp"),
            Family::V6 => ("Ipv6Ranges", "CidrIpv6"),
        };
        json!({
            "IpProtocol": self.protocol, "FromPort": self.first, "ToPort": self.last,
            kind: [{ address: self.peer, "Description": format!("wmrelay: {}", names.join(", ")) }],
        })
    }
}

fn permissions(plan: &Plan, toward: Toward, needed: bool) -> Option<Vec<Value>> {
    let mut drawn = drawn(plan, toward, needed);
    if !needed {
        // What is open already needs no second one.
        let open = self::drawn(plan, toward, true);
        drawn.retain(|(permission, _)| open.iter().all(|(other, _)| other != permission));
    }
    let permissions: Vec<_> = drawn.iter().map(|(permission, names)| permission.json(names)).collect();
    (!permissions.is_empty()).then_some(permissions)
}

/// Each permission once, with the names of all that it is for.
fn drawn(plan: &Plan, toward: Toward, needed: bool) -> Vec<(Permission, Vec<String>)> {
    let is_peer_server = plan.side == super::Side::Viewer;
    let media = union(plan.rules(toward, needed).filter_map(|rule| rule.flow.client_ports.as_ref()));
    let mut drawn: Vec<(Permission, Vec<String>)> = Vec::new();
    for rule in plan.rules(toward, needed) {
        let Rule { flow, family, server, clients } = &rule;
        let peer = if is_peer_server {
            server.map(|server| ipnet::IpNet::from(server).to_string())
        } else {
            clients.map(|net| net.to_string())
        };
        let all = if *family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
        let ports = match (toward, flow.server_port) {
            (Toward::Viewers, _) => media.0.clone(),
            (Toward::Server, Some(port)) => vec![port..=port],
            (Toward::Server, None) => Vec::new(),
        };
        let (protocol, name) = match flow.transport {
            Transport::Tcp => ("tcp", flow.name.clone()),
            Transport::Udp if toward == Toward::Viewers => ("udp", "media".to_owned()),
            Transport::Udp => ("udp", flow.name.clone()),
        };
        for ports in ports {
            let (first, last) = (*ports.start(), *ports.end());
            let peer = peer.clone().unwrap_or_else(|| all.to_owned());
            let permission = Permission { protocol, first, last, family: *family, peer };
            match drawn.iter_mut().find(|(other, _)| *other == permission) {
                Some((_, names)) if names.contains(&name) => {}
                Some((_, names)) => names.push(name.clone()),
                None => drawn.push((permission, vec![name.clone()])),
            }
        }
    }
    drawn
}
