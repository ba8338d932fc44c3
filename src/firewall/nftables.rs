//! The plan for `nft -f`: a table of its own.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{Family, Flow, Plan, Side, Toward, Transport};
use super::{range, said};

/// Rules with a comment each, which `nft list` shows too.
pub(super) fn nftables(plan: &Plan) -> String {
    let mut head = plan.head("nftables rules");
    head.extend(
        match plan.side {
            Side::Server => [
                "For the server itself: `nft -f FILE`. It governs what comes in, all of it, and of what goes out the media over UDP.",
                "Nothing else comes in, not even SSH: add your own rules where the comment says so, or take these into your own table.",
                "A router before the server takes what `--side viewer --server ADDRESS` prints: it sees the same packets.",
            ],
            Side::Viewer => [
                "For a router between viewers and server: `nft -f FILE`. It governs all that is forwarded, and nothing else.",
                "Nothing else is forwarded: add your own rules where the comment says so, or take these into your own table.",
                "What another table drops stays dropped, whatever is accepted here.",
            ],
        }
        .map(String::from),
    );
    let mut text = said("#", head);
    // Declared so that it is there to be deleted: a second load takes the place of the first.
    text.push_str("table inet wmrelay\ndelete table inet wmrelay\ntable inet wmrelay {\n");
    match plan.side {
        Side::Server => server(&mut text, plan),
        Side::Viewer => viewer(&mut text, plan),
    }
    text.push_str("}\n");
    optional(&mut text, plan);
    text.push_str(&said("#", plan.remarks()));
    text
}

fn viewer(text: &mut String, plan: &Plan) {
    text.push_str(
        "  chain forward {
    type filter hook forward priority filter; policy drop;
    # Answers on connections that a rule below let begin, and ICMP about them: too big, unreachable. UDP is judged by itself:
    # a request from a port outside of the range would else open that port for media.
    meta l4proto { tcp, icmp, icmpv6 } ct state established,related accept comment \"answers\"
",
    );
    rules(text, plan, Toward::Server);
    rules(text, plan, Toward::Viewers);
    text.push_str("    # Your own rules go here. What is not accepted is dropped.\n  }\n");
}

fn server(text: &mut String, plan: &Plan) {
    text.push_str(
        "  chain input {
    type filter hook input priority filter; policy drop;
    iif lo accept comment \"this machine itself\"
    # Answers to what this machine asked others, and ICMP about its packets: too big, unreachable.
    ct state established,related accept comment \"answers\"
",
    );
    if plan.has(Family::V6) {
        text.push_str(
            "    # Without these IPv6 finds neither neighbours nor routers.
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept comment \"IPv6 neighbours\"
",
        );
    }
    rules(text, plan, Toward::Server);
    text.push_str("    # Your own rules go here, such as: tcp dport 22 accept\n  }\n");
    let media: Vec<_> = plan.flows.iter().filter(|flow| flow.toward == Toward::Viewers).collect();
    let mut from: Vec<_> = media.iter().filter_map(|flow| flow.server_port).collect();
    from.sort_unstable();
    from.dedup();
    if from.is_empty() {
        return;
    }
    text.push_str(
        "  chain output {
    type filter hook output priority filter; policy accept;
",
    );
    // What comes from any port is governed nowhere, so that it needs no rule either.
    let named = |flow: &&Flow| flow.toward == Toward::Viewers && flow.server_port.is_some();
    for rule in plan.flows.iter().filter(named).flat_map(|flow| of_flow(plan, flow)) {
        let _ = writeln!(text, "    {rule}");
    }
    let _ = writeln!(
        text,
        "    # Media to any other port; the rest of what leaves is not governed.\n    \
         oif != lo udp sport {} drop comment \"other media\"\n  }}",
        set(from)
    );
}

/// The flows that may stay closed, as comments.
fn optional(text: &mut String, plan: &Plan) {
    for flow in plan.flows.iter().filter(|flow| !flow.needed) {
        for rule in of_flow(plan, flow) {
            let _ = write!(text, "# May be added: {rule}\n{}", said("#  ", [format!("{}.", flow.why)]));
        }
    }
}

fn rules(text: &mut String, plan: &Plan, toward: Toward) {
    for flow in plan.flows.iter().filter(|flow| flow.needed && flow.toward == toward) {
        for rule in of_flow(plan, flow) {
            let _ = writeln!(text, "    {rule}");
        }
    }
}

/// A rule for each IP version, or one where their addresses do not matter.
fn of_flow(plan: &Plan, flow: &Flow) -> Vec<String> {
    let any = flow.hosts.iter().all(|host| host.address.is_none()) && plan.clients(flow).is_none();
    let of = |family| flow.hosts.iter().filter(move |host| host.family == family);
    let both = [Family::V4, Family::V6].map(|family| of(family).next().is_some());
    if any && both == [true, true] {
        return vec![rule(flow, String::new())];
    }
    let families = [Family::V4, Family::V6].into_iter().zip(both).filter(|(_, there)| *there);
    let rules = families.map(|(family, _)| {
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        let addresses: Vec<IpAddr> = of(family).filter_map(|host| host.address).collect();
        let client = plan.clients(flow).filter(|net| net.prefix_len() > 0).map(|net| net.to_string());
        let server = (!addresses.is_empty()).then(|| set(addresses));
        let [source, destination] = if flow.toward == Toward::Server { [client, server] } else { [server, client] };
        let mut ends = String::new();
        for (end, addresses) in [("saddr", source), ("daddr", destination)] {
            if let Some(addresses) = addresses {
                let _ = write!(ends, "{ip} {end} {addresses} ");
            }
        }
        if ends.is_empty() {
            let _ = write!(ends, "meta nfproto {} ", if family == Family::V4 { "ipv4" } else { "ipv6" });
        }
        rule(flow, ends)
    });
    rules.collect()
}

fn rule(flow: &Flow, ends: String) -> String {
    let mut rule = ends;
    let transport = match flow.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let [server, client] = if flow.toward == Toward::Server { ["dport", "sport"] } else { ["sport", "dport"] };
    if let Some(port) = flow.server_port {
        let _ = write!(rule, "{transport} {server} {port} ");
    }
    if let Some(ports) = &flow.client_ports {
        let _ = write!(rule, "{transport} {client} {} ", set(ports.0.iter().map(|ports| range(ports, "-")).collect()));
    }
    let _ = write!(rule, "accept comment \"{}\"", flow.name);
    rule
}

/// One value as it is, several in braces.
fn set<T: ToString>(values: Vec<T>) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    match values.as_slice() {
        [one] => one.clone(),
        more => format!("{{ {} }}", more.join(", ")),
    }
}
