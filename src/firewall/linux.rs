//! The plan for Linux's older and simpler tools: iptables, ufw, firewalld. Each prints a shell script.

use std::fmt::Write as _;

use super::plan::{Family, Flow, Plan, Side, Toward, Transport};
use super::{Rule, marked, range, said, union};
use crate::settings::PortRanges;

/// Chains of their own, for IPv4 and IPv6 each.
pub(super) fn iptables(plan: &Plan) -> String {
    let mut head = plan.head("iptables and ip6tables commands");
    head.extend(
        match plan.side {
            Side::Server => [
                "For the server itself, once. Chain WMRELAY judges all that comes in: your own rules go into it, before its DROP, \
                 such as iptables -I WMRELAY -p tcp --dport 22 -j ACCEPT",
                "A router before the server takes what `--side viewer --server ADDRESS` prints: it sees the same packets.",
            ],
            Side::Viewer => [
                "For a router between viewers and server, once. Chain WMRELAY judges what is forwarded from and to the server, or all that \
                 is forwarded where its address is not known (--server).",
                "Your own rules go into it, before its DROP.",
            ],
        }
        .map(String::from),
    );
    let mut text = said("#", head);
    for (family, program, icmp) in [(Family::V4, "iptables", "icmp"), (Family::V6, "ip6tables", "icmpv6")] {
        if plan.has(family) {
            text.push('\n');
            chains(&mut text, plan, family, program, icmp);
        }
    }
    let optional = [Toward::Server, Toward::Viewers].into_iter().flat_map(|toward| plan.rules(toward, false));
    let optional: Vec<_> = optional.collect();
    if !optional.is_empty() {
        text.push('\n');
    }
    for rule in optional {
        let program = if rule.family == Family::V4 { "iptables" } else { "ip6tables" };
        // Only where something is needed there is a chain of ours.
        let chain = match (plan.has(rule.family), plan.side) {
            (true, _) => "WMRELAY",
            (false, Side::Server) => "INPUT",
            (false, Side::Viewer) => "FORWARD",
        };
        for matched in iptables_matches(&rule) {
            let why = said("#  ", [format!("{}.", rule.flow.why)]);
            let _ = write!(text, "# May be added: {program} -I {chain} {matched} -j ACCEPT\n{why}");
        }
    }
    text.push_str(&said("#", plan.remarks()));
    text
}

fn chains(text: &mut String, plan: &Plan, family: Family, program: &str, icmp: &str) {
    let accept = |chain: &str, toward| {
        let mut told = String::new();
        for rule in plan.rules(toward, true).filter(|rule| rule.family == family) {
            for matched in iptables_matches(&rule) {
                let _ = writeln!(told, "{program} -A {chain} {matched} -m comment --comment \"{}\" -j ACCEPT", rule.flow.name);
            }
        }
        told
    };
    let _ = writeln!(text, "{program} -N WMRELAY");
    match plan.side {
        Side::Viewer => {
            let _ = writeln!(
                text,
                "# Answers on connections, and ICMP about them; UDP is judged by itself.\n\
                 {program} -A WMRELAY -p tcp -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
                 {program} -A WMRELAY -p {icmp} -m conntrack --ctstate RELATED -j ACCEPT"
            );
            text.push_str(&accept("WMRELAY", Toward::Server));
            text.push_str(&accept("WMRELAY", Toward::Viewers));
            let _ = writeln!(text, "{program} -A WMRELAY -j DROP");
            let mut servers: Vec<_> = plan
                .flows
                .iter()
                .flat_map(|flow| &flow.hosts)
                .filter(|host| host.family == family)
                .map(|host| host.address)
                .collect();
            servers.sort_unstable();
            servers.dedup();
            if servers.contains(&None) {
                servers = vec![None];
            }
            for server in servers {
                let _ = match server {
                    Some(server) => {
                        writeln!(text, "{program} -I FORWARD -d {server} -j WMRELAY\n{program} -I FORWARD -s {server} -j WMRELAY")
                    }
                    None => writeln!(text, "{program} -I FORWARD -j WMRELAY"),
                };
            }
        }
        Side::Server => {
            let _ = writeln!(
                text,
                "# This machine itself, and answers to what it asked others.\n\
                 {program} -A WMRELAY -i lo -j ACCEPT\n\
                 {program} -A WMRELAY -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
            );
            if family == Family::V6 {
                text.push_str("# Without these IPv6 finds neither neighbours nor routers.\n");
                for kind in ["neighbour-solicitation", "neighbour-advertisement", "router-advertisement"] {
                    let _ = writeln!(text, "{program} -A WMRELAY -p icmpv6 --icmpv6-type {kind} -j ACCEPT");
                }
            }
            text.push_str(&accept("WMRELAY", Toward::Server));
            let _ = writeln!(text, "{program} -A WMRELAY -j DROP\n{program} -I INPUT -j WMRELAY");
            // What comes from any port is governed nowhere, so that it needs no rule either.
            let media = accept("WMRELAY-OUT", Toward::Viewers);
            let media: String = media.lines().filter(|line| line.contains("--sport")).map(|line| format!("{line}\n")).collect();
            let mut from: Vec<_> = plan.rules(Toward::Viewers, true).filter_map(|rule| rule.flow.server_port).collect();
            from.sort_unstable();
            from.dedup();
            if !from.is_empty() {
                let _ = writeln!(
                    text,
                    "# Media over UDP to any other port; the rest of what leaves is not governed.\n{program} -N WMRELAY-OUT"
                );
                text.push_str(&media);
                for port in from {
                    let _ = writeln!(text, "{program} -A WMRELAY-OUT ! -o lo -p udp --sport {port} -j DROP");
                }
                let _ = writeln!(text, "{program} -I OUTPUT -j WMRELAY-OUT");
            }
        }
    }
}

/// The matches of a rule: one for each range of client ports.
fn iptables_matches(rule: &Rule<'_>) -> Vec<String> {
    let Rule { flow, server, clients, .. } = rule;
    let mut ends = String::new();
    let [to_server, to_client] = if flow.toward == Toward::Server { ["-d", "-s"] } else { ["-s", "-d"] };
    if let Some(net) = clients {
        let _ = write!(ends, "{to_client} {net} ");
    }
    if let Some(server) = server {
        let _ = write!(ends, "{to_server} {server} ");
    }
    let _ = write!(ends, "-p {}", protocol(flow));
    let [server_port, client_port] = if flow.toward == Toward::Server { ["dport", "sport"] } else { ["sport", "dport"] };
    if let Some(port) = flow.server_port {
        let _ = write!(ends, " --{server_port} {port}");
    }
    match &flow.client_ports {
        None => vec![ends],
        Some(ports) => ports.0.iter().map(|ports| format!("{ends} --{client_port} {}", range(ports, ":"))).collect(),
    }
}

fn protocol(flow: &Flow) -> &'static str {
    match flow.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

/// For the machine itself, whose incoming traffic ufw denies and whose outgoing traffic it allows by itself; before viewers for a router
/// too, whose forwarded traffic has rules of its own.
pub(super) fn ufw(plan: &Plan) -> String {
    let mut text = said("#", plan.head("ufw commands"));
    let (inwards, outwards) = inwards_outwards(plan);
    let mut own = ufw_rules(plan, inwards, true, "allow in").concat();
    if own.is_empty() {
        own.push_str(NOTHING_COMES_IN);
    }
    let asked = ufw_rules(plan, outwards, true, "allow out").concat();
    if !asked.is_empty() {
        own.push_str("\n# Only where `ufw default deny outgoing` was said:\n");
        own.push_str(&marked("#", &asked));
    }
    let routed = ENDS.map(|toward| ufw_rules(plan, toward, true, "route allow").concat()).concat();
    let stance =
        "ufw denies what comes in and allows what goes out, unless it was told otherwise; it lets answers pass by itself.";
    let forwards = "ufw denies what is forwarded, unless it was told otherwise, and lets answers pass by itself.";
    places(&mut text, plan, (stance, &own), (forwards, &routed));
    let at_router = [(Toward::Server, "route allow"), (Toward::Viewers, "route allow")];
    let ways = if is_for_router(plan) { at_router } else { [(inwards, "allow in"), (outwards, "allow out")] };
    let optional = ways.map(|(toward, verb)| ufw_rules(plan, toward, false, verb).concat()).concat();
    if !optional.is_empty() {
        text.push_str("\n# May be left closed:\n");
        text.push_str(&marked("#", &optional));
    }
    text.push_str(&said("#", plan.remarks()));
    text
}

const ENDS: [Toward; 2] = [Toward::Server, Toward::Viewers];
const NOTHING_COMES_IN: &str = "# Nothing comes in but answers: there is nothing to open.\n";

/// Whether viewers are a network, before which a router stands: rules for what comes in at one machine let nothing through there.
fn is_for_router(plan: &Plan) -> bool {
    plan.side == Side::Viewer && plan.client_net.is_some_and(|net| net.prefix_len() < net.max_prefix_len())
}

/// Commands for a machine itself, and before viewers those for a router too: which of them is meant is in force, the other a comment.
/// Each comes with what the tool does by itself.
fn places(text: &mut String, plan: &Plan, own: (&str, &str), routed: (&str, &str)) {
    let told = |place: &str, stance: &str| said("#", [format!("{place}. {stance}")]);
    if plan.side == Side::Server {
        let router = "A router before the server takes what `--side viewer --server ADDRESS` prints: it sees the same packets.";
        text.push_str(&told("For the server itself", &format!("{} {router}", own.0)));
        text.push_str(own.1);
        return;
    }
    let machine = ("a viewer's machine itself", own);
    let router = ("a router between viewers and server", routed);
    let (meant, other) = if is_for_router(plan) { (router, machine) } else { (machine, router) };
    let (place, (stance, commands)) = meant;
    text.push_str(&told(&format!("For {place}"), stance));
    text.push_str(commands);
    let (place, (stance, commands)) = other;
    text.push('\n');
    text.push_str(&told(&format!("For {place} instead"), stance));
    for line in commands.lines().filter(|line| !line.is_empty()) {
        text.push_str(&if line.starts_with('#') { format!("{line}\n") } else { format!("# {line}\n") });
    }
}

fn ufw_rules(plan: &Plan, toward: Toward, needed: bool, verb: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for rule in plan.rules(toward, needed) {
        let Rule { flow, family, server, clients } = &rule;
        // "any" is both versions to ufw; a network of all addresses is one.
        let both = plan.has(Family::V4) && plan.has(Family::V6);
        let everything = match family {
            Family::V4 if !both => "0.0.0.0/0",
            Family::V6 if !both => "::/0",
            Family::V4 | Family::V6 => "any",
        };
        let server = server.map_or_else(|| everything.to_owned(), |server| server.to_string());
        let client = clients.map_or_else(|| everything.to_owned(), |net| net.to_string());
        let server_port = flow.server_port.map_or_else(String::new, |port| format!(" port {port}"));
        let client_ports: Vec<String> = match &flow.client_ports {
            None => vec![String::new()],
            Some(ports) => ports.0.iter().map(|ports| format!(" port {}", range(ports, ":"))).collect(),
        };
        for client_port in client_ports {
            let ends = match flow.toward {
                Toward::Server => format!("from {client}{client_port} to {server}{server_port}"),
                Toward::Viewers => format!("from {server}{server_port} to {client}{client_port}"),
            };
            let line = format!("ufw {verb} proto {} {ends} comment 'wmrelay: {}'\n", protocol(flow), flow.name);
            if !told.contains(&line) {
                told.push(line);
            }
        }
    }
    told
}

/// Which flows come in at the machine itself, and which leave it.
pub(super) fn inwards_outwards(plan: &Plan) -> (Toward, Toward) {
    match plan.side {
        Side::Server => (Toward::Server, Toward::Viewers),
        Side::Viewer => (Toward::Viewers, Toward::Server),
    }
}

/// For the machine itself, and for a router by policies. A rule of firewalld names one port, so that ranges from several ports of the
/// server become one.
pub(super) fn firewalld(plan: &Plan) -> String {
    let mut text = said("#", plan.head("firewall-cmd commands"));
    text.push_str(&said(
        "#",
        ["A rule names one port: it knows no port of the sender, so that client ports of all protocols are one range, open from any port."
            .to_owned()],
    ));
    let (inwards, outwards) = inwards_outwards(plan);
    let mut own = firewalld_rules(plan, inwards, true, "");
    own.push_str(if own.is_empty() { NOTHING_COMES_IN } else { RELOAD });
    let what = if outwards == Toward::Server { "to the server" } else { "to viewers" };
    let _ = writeln!(own, "# What leaves {what} passes by itself; a policy that forbids it has to let through:");
    for flow in plan.flows.iter().filter(|flow| flow.toward == outwards && flow.needed) {
        let ports = match (&flow.client_ports, flow.server_port) {
            (Some(ports), _) => ports.to_string(),
            (None, Some(port)) => port.to_string(),
            (None, None) => "any port".into(),
        };
        let _ = writeln!(own, "#   {}: {} to {ports}", flow.name, protocol(flow).to_uppercase());
    }
    let stance = "For its default zone; another one by --zone. It rejects what else comes in, allows what goes out, and lets answers pass.";
    let forwards = "Policies of firewalld 0.9 on, between the zones of the two sides: put their names in. Where a NAT leads to viewers, \
                    the router has to forward the ports too.";
    places(&mut text, plan, (stance, &own), (forwards, &policies(plan)));
    let optional = if is_for_router(plan) {
        POLICIES.map(|(toward, policy, ..)| firewalld_rules(plan, toward, false, &format!(" --policy={policy}"))).concat()
    } else {
        firewalld_rules(plan, inwards, false, "")
    };
    if !optional.is_empty() {
        text.push_str("\n# May be left closed:\n");
        text.push_str(&marked("#", &optional));
    }
    text.push_str(&said("#", plan.remarks()));
    text
}

const RELOAD: &str = "firewall-cmd --reload\n";
/// Which way, the policy for it, and the zones that it goes from and to.
const POLICIES: [(Toward, &str, &str, &str); 2] =
    [(Toward::Server, "wmrelay-out", "$VIEWERS", "$SERVER"), (Toward::Viewers, "wmrelay-in", "$SERVER", "$VIEWERS")];

/// The rules for what a router forwards.
fn policies(plan: &Plan) -> String {
    let mut text = "VIEWERS=internal SERVER=external\n".to_owned();
    for (toward, policy, from, to) in POLICIES {
        let rules = firewalld_rules(plan, toward, true, &format!(" --policy={policy}"));
        if !rules.is_empty() {
            let _ = writeln!(
                text,
                "firewall-cmd --permanent --new-policy={policy}\n\
                 firewall-cmd --permanent --policy={policy} --add-ingress-zone=\"{from}\"\n\
                 firewall-cmd --permanent --policy={policy} --add-egress-zone=\"{to}\""
            );
            text.push_str(&rules);
        }
    }
    text.push_str(RELOAD);
    text
}

fn firewalld_rules(plan: &Plan, toward: Toward, needed: bool, place: &str) -> String {
    let mut told: Vec<String> = Vec::new();
    let media: PortRanges = union(plan.rules(toward, needed).filter_map(|rule| rule.flow.client_ports.as_ref()));
    for rule in plan.rules(toward, needed) {
        let ports = match (toward, rule.flow.server_port) {
            (Toward::Viewers, _) => media.0.clone(),
            (Toward::Server, Some(port)) => vec![port..=port],
            (Toward::Server, None) => Vec::new(),
        };
        for ports in ports {
            let line = firewalld_rule(&rule, &range(&ports, "-"), plan, place);
            if !told.contains(&line) {
                told.push(line);
            }
        }
    }
    told.concat()
}

fn firewalld_rule(rule: &Rule<'_>, ports: &str, plan: &Plan, place: &str) -> String {
    let Rule { flow, family, server, clients } = rule;
    let protocol = protocol(flow);
    let server = server.map(|server| server.to_string());
    let clients = clients.map(|net| net.to_string());
    let (source, destination) = if flow.toward == Toward::Server { (clients, server) } else { (server, clients) };
    let lone = !(plan.has(Family::V4) && plan.has(Family::V6));
    if source.is_none() && destination.is_none() && !lone {
        return format!("firewall-cmd --permanent{place} --add-port={ports}/{protocol}\n");
    }
    let family = if *family == Family::V4 { "ipv4" } else { "ipv6" };
    let mut rule = format!("rule family=\"{family}\"");
    for (end, address) in [("source", source), ("destination", destination)] {
        if let Some(address) = address {
            let _ = write!(rule, " {end} address=\"{address}\"");
        }
    }
    format!("firewall-cmd --permanent{place} --add-rich-rule='{rule} port port=\"{ports}\" protocol=\"{protocol}\" accept'\n")
}
