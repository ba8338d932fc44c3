//! The plan for programs.

use serde_json::{Value, json};

use super::{Flow, Plan, Side, Toward, Transport};
use crate::settings::PortRanges;

/// One object: what was planned for, and each flow with its ends.
pub(super) fn json(plan: &Plan) -> String {
    let Plan { viewers, side, client_net, flows, mms_ports, rtsp_ports, rtsp_viewers, left_out, notes } = plan;
    let side = match side {
        Side::Server => "server",
        Side::Viewer => "viewer",
    };
    let object = json!({
        "viewers": viewers,
        "side": side,
        "client_net": client_net.map(|net| net.to_string()),
        "mms_client_ports": mms_ports.as_ref().map(ranges),
        "rtsp_client_ports": rtsp_ports.as_ref().map(ranges),
        "rtsp_viewers": rtsp_viewers,
        "flows": flows.iter().map(flow).collect::<Vec<_>>(),
        "left_out": left_out,
        "notes": notes,
    });
    format!("{object:#}\n")
}

fn flow(flow: &Flow) -> Value {
    let Flow { name, transport, toward, server_port, client_ports, hosts, needed, is_of_viewers, why } = flow;
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    let toward = match toward {
        Toward::Server => "server",
        Toward::Viewers => "viewers",
    };
    let hosts: Vec<_> = hosts.iter().map(|host| json!({ "ip": host.family.number(), "address": host.address })).collect();
    json!({
        "name": name,
        "transport": transport,
        "toward": toward,
        "server_port": server_port,
        "client_ports": client_ports.as_ref().map(ranges),
        "servers": hosts,
        "needed": needed,
        "is_of_viewers": is_of_viewers,
        "why": why,
    })
}

/// First and last of each range.
fn ranges(PortRanges(ranges): &PortRanges) -> Value {
    ranges.iter().map(|range| json!([range.start(), range.end()])).collect()
}
