//! The plan in words.

use super::plan::{Family, Flow, Plan, Side, Toward, Transport};
use super::{WIDTH, wrapped};
use crate::settings::PortRanges;

/// Paragraphs and lists, wrapped.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A paragraph and the blank line behind it.
    fn paragraph(&mut self, text: &str) {
        self.indented(text, "", "");
        self.0.push('\n');
    }

    /// Lines, the first begun by one text, the others by another.
    fn indented(&mut self, text: &str, first: &str, others: &str) {
        for (i, line) in wrapped(text, WIDTH - others.len()).into_iter().enumerate() {
            self.0.push_str(if i == 0 { first } else { others });
            self.0.push_str(&line);
            self.0.push('\n');
        }
    }

    fn item(&mut self, text: &str) {
        self.indented(text, "  - ", "    ");
    }
}

pub(super) fn text(plan: &Plan) -> String {
    let mut page = Page::default();
    page.paragraph(&plan.head("what a firewall has to let through").join(" "));
    if let Some(net) = plan.client_net {
        page.paragraph(&format!("Viewers are those of {net}."));
    }
    page.paragraph("Answers on connections that viewers opened pass by themselves, on any firewall that keeps state.");
    if plan.side == Side::Viewer && plan.flows.iter().any(|flow| flow.toward == Toward::Viewers) {
        page.paragraph("Media over UDP is no answer: it comes to ports that nothing was sent from.");
    }
    for (needed, title) in [(true, "Needed:"), (false, "May be left closed:")] {
        let flows: Vec<_> = plan.flows.iter().filter(|flow| flow.needed == needed).collect();
        if !flows.is_empty() {
            page.paragraph(title);
            for flow in flows {
                page.indented(&flow.way(), "  ", "      ");
                page.indented(&format!("{}.", flow.why), "      ", "      ");
            }
            page.0.push('\n');
        }
    }
    players(&mut page, plan);
    let remarks: Vec<_> = plan.remarks().collect();
    if !remarks.is_empty() {
        page.paragraph("Besides:");
        remarks.iter().for_each(|remark| page.item(remark));
    }
    let mut text = page.0;
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

impl Flow {
    /// From where to where it goes, for people: `UDP from the server's port 1755 to viewers' ports 1024-1033`.
    pub fn way(&self) -> String {
        let transport = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        let server = self.server_port.map_or_else(|| "any port".to_owned(), |port| format!("port {port}"));
        let hosts = hosts(self);
        match (self.toward, &self.client_ports) {
            (Toward::Server, _) => format!("{transport} from viewers to the server's {server}{hosts}"),
            (Toward::Viewers, None) => format!("{transport} from the server's {server}{hosts} to viewers"),
            (Toward::Viewers, Some(ports)) => format!("{transport} from the server's {server}{hosts} to viewers' ports {ports}"),
        }
    }
}

/// " at 192.0.2.1 and any IPv6 address", or nothing where any address of any version will do.
fn hosts(flow: &Flow) -> String {
    if flow.hosts.len() == 2 && flow.hosts.iter().all(|host| host.address.is_none()) {
        return String::new();
    }
    let told = flow.hosts.iter().map(|host| match (host.address, host.family) {
        (Some(address), _) => address.to_string(),
        (None, Family::V4) => "any IPv4 address".into(),
        (None, Family::V6) => "any IPv6 address".into(),
    });
    format!(" at {}", told.collect::<Vec<_>>().join(" and "))
}

/// How players are set, and which of them need the ports.
fn players(page: &mut Page, plan: &Plan) {
    if plan.mms_ports.is_none() && plan.rtsp_ports.is_none() {
        page.paragraph("Players need not be set to ports: all media comes on TCP connections.");
        return;
    }
    page.paragraph(
        "How players are set: a player says on which UDP ports it listens, and the server cannot propose others. So each has to be set to \
         those that are open. Where they are taken it is told at once, and where a firewall closes them it hears nothing; most take TCP then.",
    );
    if let (Some(mms), Some(rtsp)) = (&plan.mms_ports, &plan.rtsp_ports) {
        page.item(&format!(
            "Which ports: {mms} for MMS (Windows Media Player 6.4 to 8), {rtsp} for RTSP (Windows Media Player 9 to 12; 9 and 10 know \
             MMS too and ask for it last). Both begin at the lowest port of the pool: where viewers of both share an address, some take TCP. \
             Plan for more viewers where that is too many."
        ));
    }
    let [mms, rtsp] = [&plan.mms_ports, &plan.rtsp_ports].map(|ports| ports.as_ref().and_then(first));
    let older = mms.map(|(low, high)| format!("\"Use ports {low} to {high}\" up to version 8"));
    let newer = rtsp.map(|(low, high)| format!("\"Use ports {low} to {high}\" from version 9 on"));
    let told: Vec<String> = older.into_iter().chain(newer).collect();
    page.item(&format!("Windows Media Player: Tools, Options, Network: UDP ticked, {}.", told.join(", ")));
    page.item(
        "Players on several machines behind one address (a NAT) know nothing of each other: each machine gets a part of the range of its \
         own, and the router forwards that part to it.",
    );
    if let Some(ports) = &plan.mms_ports {
        page.item(&if ports.contains(7000) {
            "VLC over MMS: mms:// takes TCP; mmsu:// always listens on 7000, which is among the ports.".to_owned()
        } else {
            "VLC over MMS: mms:// takes TCP; mmsu:// always listens on 7000, which is not among the ports: it does not play."
                .to_owned()
        });
        page.item("FFmpeg, mpv and MPlayer over MMS: TCP alone.");
        page.item(&format!("wmrelay play mms://HOST/NAME --ports {ports}"));
    }
    if let (Some(ports), Some((low, high))) = (&plan.rtsp_ports, rtsp) {
        // It looks for a pair of ports for the media too, and uses one.
        let wide = high.max(low.saturating_add(3));
        page.item(&format!(
            "FFmpeg over RTSP: ffplay -rtsp_transport udp -min_port {low} -max_port {wide}; three ports each, of a range of at least four, \
             whose last need not be open. Several on one machine need four each and a part of the range of their own, that shares no port with \
             another's: plan for four ports a viewer (--rtsp-ports 4) then."
        ));
        page.item(&format!("GStreamer: rtspsrc port-range={low}-{high}; two ports each."));
        page.item(&format!(
            "wmrelay play rtsp://HOST/NAME --ports {ports}: four ports each that follow each other; --rtsp-ports 4 plans for that."
        ));
    }
    page.0.push('\n');
}

/// The ends of the first range: players are set to one.
fn first(ports: &PortRanges) -> Option<(u16, u16)> {
    ports.0.first().map(|range| (*range.start(), *range.end()))
}
