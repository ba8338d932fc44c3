//! The plan for the firewall of Windows.

use std::fmt::Write as _;

use super::linux::inwards_outwards;
use super::plan::{Family, Plan, Toward, Transport};
use super::{Rule, marked, range, said};

/// PowerShell, and the same for netsh of Windows Vista and 7 as comments.
pub(super) fn windows(plan: &Plan) -> String {
    let mut text = said("#", plan.head("PowerShell commands for Windows' firewall"));
    text.push_str(
        "# For the machine itself, as administrator. Windows blocks what comes in and allows what goes out, unless it was told otherwise;\n\
         # it lets answers pass by itself.\n",
    );
    let (inwards, outwards) = inwards_outwards(plan);
    let rules = Rules::of(plan, inwards, true, true);
    text.push_str(&rules.powershell);
    if rules.powershell.is_empty() {
        text.push_str("# Nothing comes in but answers: there is nothing to open.\n");
    } else {
        text.push_str("\n# The same before Windows 8, at a command prompt:\n");
        text.push_str(&marked("#", &rules.netsh));
    }
    let outwards = Rules::of(plan, outwards, true, false).powershell;
    if !outwards.is_empty() {
        text.push_str("\n# Only where outgoing connections are blocked by default:\n");
        text.push_str(&marked("#", &outwards));
    }
    let optional = [(inwards, true), (inwards_outwards(plan).1, false)];
    let optional = optional.map(|(toward, inwards)| Rules::of(plan, toward, false, inwards).powershell).concat();
    if !optional.is_empty() {
        text.push_str("\n# May be left closed:\n");
        text.push_str(&marked("#", &optional));
    }
    text.push_str(&said("#", plan.remarks()));
    text
}

#[derive(Default)]
struct Rules {
    powershell: String,
    netsh: String,
}

impl Rules {
    fn of(plan: &Plan, toward: Toward, needed: bool, inwards: bool) -> Self {
        let mut told = Self::default();
        let both = plan.has(Family::V4) && plan.has(Family::V6);
        let mut before = Vec::new();
        for rule in plan.rules(toward, needed) {
            let Rule { flow, family, server, clients } = &rule;
            let transport = match flow.transport {
                Transport::Tcp => "TCP",
                Transport::Udp => "UDP",
            };
            // "Any" is both versions to Windows.
            let everything = match family {
                _ if both => None,
                Family::V4 => Some("0.0.0.0/0".to_owned()),
                Family::V6 => Some("::/0".to_owned()),
            };
            let server = server.map(|server| server.to_string());
            let clients = clients.map(|net| net.to_string()).or(everything.filter(|_| server.is_none()));
            let server_port = flow.server_port.map(|port| port.to_string());
            let client_ports = flow
                .client_ports
                .as_ref()
                .map(|ports| ports.0.iter().map(|ports| range(ports, "-")).collect::<Vec<_>>().join(","));
            // The server is this machine where viewers' packets come in, or ours leave.
            let is_server = (toward == Toward::Server) == inwards;
            let server = [server, server_port];
            let clients = [clients, client_ports];
            let [[local, local_port], [remote, remote_port]] = if is_server { [server, clients] } else { [clients, server] };
            let name = format!("wmrelay: {}", flow.name);
            let direction = if inwards { "Inbound" } else { "Outbound" };
            let mut line =
                format!("New-NetFirewallRule -DisplayName '{name}' -Direction {direction} -Action Allow -Protocol {transport}");
            let mut old = format!(
                "netsh advfirewall firewall add rule name=\"{name}\" dir={} action=allow protocol={transport}",
                if inwards { "in" } else { "out" }
            );
            for (option, old_option, value) in [
                ("LocalAddress", "localip", local),
                ("LocalPort", "localport", local_port),
                ("RemoteAddress", "remoteip", remote),
                ("RemotePort", "remoteport", remote_port),
            ] {
                if let Some(value) = value {
                    let _ = write!(line, " -{option} {value}");
                    let _ = write!(old, " {old_option}={value}");
                }
            }
            if !before.contains(&line) {
                let _ = writeln!(told.powershell, "{line}");
                let _ = writeln!(told.netsh, "{old}");
                before.push(line);
            }
        }
        told
    }
}
