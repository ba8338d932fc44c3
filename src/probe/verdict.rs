//! From what a probe saw to what that means: lines for people, and what to ask an administrator for.
//!
//! Nothing is called open that was not shown to be: a TCP port by an answer in its own protocol, a client port by a challenge with the
//! probe's token, a port of the server by the server's word that it got the token.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::plan::{Echo, Protocol, Speaks, Untried};
use crate::settings::PortRanges;

/// Characters that a text of a report may have.
pub const TEXT_MAX: usize = 512;
/// Lines that it may have.
pub const LINES_MAX: usize = 256;
/// Sentences of each kind that it may have.
pub const SENTENCES_MAX: usize = 64;
/// Runs of ports of which each is told by itself.
const RUNS_MAX: usize = 20;

/// What a TCP port did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpSeen {
    /// It answered in its own protocol.
    Answered,
    /// The connection was refused by a reset.
    Refused,
    /// ICMP said that there is no way; what the system makes of it.
    Unreachable(String),
    /// Nothing came at all.
    Silent,
    /// It took the connection and said nothing, or closed it.
    Swallowed,
    /// It answered something that the server does not say; what.
    Other(String),
    /// It answered as the server might, and as anybody else; what is not known.
    Unsure(String),
    /// This machine did not let it out; what the system says.
    Kept(String),
}

/// What became of a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSeen {
    /// It came, with the right token, from there.
    Arrived(SocketAddr),
    /// It was sent, and did not come.
    Missing,
    /// Another program of this machine has the port.
    Taken,
    /// A viewer at this address has it leased, so nothing was sent.
    Leased,
    /// The server's own system did not let it out.
    NotLetOut,
    /// It could not be tried; why.
    Untried(String),
}

/// Client ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpInSeen {
    /// What media comes by.
    pub protocol: Protocol,
    /// From this port of the server.
    pub server_port: u16,
    /// Each port, and what became of its challenge.
    pub ports: Vec<(u16, PortSeen)>,
    /// What a firewall is asked for.
    pub rule: String,
}

/// Requests for lost packets of one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpOutSeen {
    /// Of what.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
    /// What the server got of a port that nothing had come to before: as players may ask.
    pub fresh: Option<Echo>,
    /// What it got of a port that a challenge had come to: firewalls take that for an answer.
    pub answer: Option<Echo>,
    /// This machine did not let it out; what the system says.
    pub kept: Option<String>,
    /// Whether the server could be asked what it got.
    pub known: bool,
    /// What a firewall is asked for.
    pub rule: String,
}

/// A TCP port, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTried {
    /// The port.
    pub port: u16,
    /// What should be spoken there.
    pub speaks: Speaks,
    /// What it did.
    pub seen: TcpSeen,
    /// What a firewall is asked for; `None`: nobody said that the server listens there.
    pub rule: Option<String>,
}

/// All that a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As it was typed.
    pub host: String,
    /// Its address.
    pub server: IpAddr,
    /// Our address on the way to it, where one is known.
    pub local: Option<IpAddr>,
    /// Our address as the server sees it; `None`: it could not be asked.
    pub seen_as: Option<IpAddr>,
    /// Viewers that were planned for.
    pub viewers: u16,
    /// Connections.
    pub tcp: Vec<TcpTried>,
    /// Media.
    pub udp_in: Vec<UdpInSeen>,
    /// Requests for lost packets.
    pub udp_out: Vec<UdpOutSeen>,
    /// What is needed and could not be tried.
    pub untried: Vec<Untried>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// What a probe found, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The server as it was typed.
    #[schema(max_length = 512)]
    pub host: String,
    /// Its address.
    #[schema(max_length = 512)]
    pub server: String,
    /// The address of the probe's machine.
    #[schema(max_length = 512)]
    pub client: String,
    /// The same as the server sees it; `null`: the server could not be asked.
    #[schema(max_length = 512)]
    pub seen_as: Option<String>,
    /// Viewers that were planned for.
    #[schema(maximum = 65535)]
    pub viewers: u16,
    /// What it comes to.
    pub outcome: Outcome,
    /// Port by port.
    #[schema(max_items = 256)]
    pub lines: Vec<Line>,
    /// What was seen of addresses and ports that are rewritten on the way; sentences.
    #[schema(max_items = 64)]
    pub nat: Vec<String>,
    /// What to ask the firewall's administrator for.
    #[schema(max_items = 64)]
    pub asks: Vec<String>,
    /// What else is to be known; sentences.
    #[schema(max_items = 64)]
    pub notes: Vec<String>,
}

/// What a probe comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that was planned is open.
    Open,
    /// Nothing was found closed, and something could not be tried.
    Unknown,
    /// Something is closed.
    Blocked,
}

/// One port, or ports that follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which way, and by what: `tcp_out`, `udp_in`, `udp_out`, as the viewer sees it.
    pub way: Way,
    /// `1755`, `1024-1033`.
    #[schema(max_length = 512)]
    pub ports: String,
    /// What for.
    #[schema(max_length = 512)]
    pub what: String,
    /// What was found.
    pub state: State,
    /// Where it is closed, as far as can be told.
    pub side: Option<Side>,
    /// The same in words.
    #[schema(max_length = 512)]
    pub words: String,
}

/// Which way something goes, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A connection to the server.
    TcpOut,
    /// Datagrams to the viewer.
    UdpIn,
    /// Datagrams to the server.
    UdpOut,
}

/// What was found of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was shown to be open.
    Open,
    /// Something said no.
    Refused,
    /// Nothing came.
    Silent,
    /// Something else is in the server's place.
    Something,
    /// It could not be tried.
    Unknown,
}

/// Who closes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The viewer's machine, or its router.
    Viewer,
    /// The server's machine.
    Server,
}

/// Whom to ask, where that is known.
const AT_THIS_MACHINE: &str = " (the firewall of this machine itself)";
const AT_THE_SERVER: &str = " (the firewall of the server's own machine)";
const AT_THE_SERVER_TOO: &str = " (the firewall of the server's own machine too)";

/// State, side and words of one port.
type Judged = (State, Option<Side>, String);

/// What all that was seen comes to.
pub fn judge(seen: &Seen) -> Report {
    let all_silent = seen.tcp.iter().all(|tried| tried.seen == TcpSeen::Silent);
    let mut report = Report {
        host: seen.host.clone(),
        server: seen.server.to_string(),
        client: seen.local.map(|local| local.to_string()).unwrap_or_default(),
        seen_as: seen.seen_as.map(|address| address.to_string()),
        viewers: seen.viewers,
        outcome: Outcome::Open,
        lines: Vec::new(),
        nat: Vec::new(),
        asks: Vec::new(),
        notes: seen.notes.clone(),
    };
    for tried in &seen.tcp {
        let (state, side, words) = tcp(tried, all_silent);
        let mut ask = tried.rule.clone().unwrap_or_else(|| format!("TCP from viewers to the server's port {}", tried.port));
        if side == Some(Side::Viewer) {
            ask.push_str(AT_THIS_MACHINE);
        }
        // Nobody knows whether the server listens on the others of those that are tried at a venture.
        let is_wanted = tried.rule.is_some() || tried.speaks == Speaks::Control;
        report.ask(state, is_wanted, ask);
        let what = tried.speaks.name().to_owned();
        report.lines.push(Line { way: Way::TcpOut, ports: tried.port.to_string(), what, state, side, words });
    }
    if all_silent && !seen.tcp.is_empty() {
        report.notes.push(format!(
            "Nothing of {} answers: it is not the right address, it is down, or a firewall closes all of it.",
            seen.server
        ));
    }
    for media in &seen.udp_in {
        report.media(seen, media);
    }
    for requests in &seen.udp_out {
        report.requests(requests);
    }
    for Untried { way, ports, what, why } in &seen.untried {
        let words = format!("not tried: {why}");
        report.lines.push(Line { way: *way, ports: ports.clone(), what: what.clone(), state: State::Unknown, side: None, words });
    }
    report.seen_as_others(seen);
    let any = |state| report.lines.iter().any(|line| line.state == state);
    report.outcome = if any(State::Refused) || any(State::Silent) || any(State::Something) {
        Outcome::Blocked
    } else if any(State::Unknown) || report.lines.is_empty() {
        Outcome::Unknown
    } else {
        Outcome::Open
    };
    report.bound();
    report
}

fn tcp(tried: &TcpTried, all_silent: bool) -> Judged {
    let name = tried.speaks.name();
    let listens = tried.rule.is_some();
    match &tried.seen {
        TcpSeen::Answered => (State::Open, None, format!("open: {name} answers")),
        TcpSeen::Refused if listens => (
            State::Refused,
            None,
            "refused, though the server listens there: a firewall here, on the way or at the server rejects it".into(),
        ),
        TcpSeen::Refused => (State::Refused, None, "refused: nothing listens there, or a firewall rejects it".into()),
        TcpSeen::Unreachable(what) => {
            let words = format!("no way there ({what}): a firewall or router here or on the way says so, or the machine is down");
            (State::Refused, None, words)
        }
        TcpSeen::Silent if all_silent => (State::Silent, None, "no answer".into()),
        TcpSeen::Silent => (State::Silent, None, "no answer: a firewall here, on the way or at the server drops it".into()),
        TcpSeen::Swallowed => (
            State::Something,
            None,
            format!(
                "the connection is taken and nothing of {name} is said: a firewall or proxy in between, or the server turns this address \
                 away"
            ),
        ),
        TcpSeen::Other(what) => (
            State::Something,
            None,
            format!("something else answers ({what}): a proxy on the way, or another program at the server"),
        ),
        TcpSeen::Unsure(what) => (State::Unknown, None, format!("not known: {what}")),
        TcpSeen::Kept(what) => {
            (State::Refused, Some(Side::Viewer), format!("this machine itself does not let it out ({what}): its own firewall"))
        }
    }
}

impl Report {
    fn ask(&mut self, state: State, is_wanted: bool, ask: String) {
        let is_closed = matches!(state, State::Refused | State::Silent | State::Something);
        if is_closed && is_wanted && !self.asks.contains(&ask) {
            self.asks.push(ask);
        }
    }

    /// Keeps it as small as the server takes it.
    fn bound(&mut self) {
        self.lines.truncate(LINES_MAX);
        for sentences in [&mut self.nat, &mut self.asks, &mut self.notes] {
            sentences.truncate(SENTENCES_MAX);
            sentences.iter_mut().for_each(shorten);
        }
        for line in &mut self.lines {
            [&mut line.ports, &mut line.what, &mut line.words].into_iter().for_each(shorten);
        }
        [&mut self.host, &mut self.server, &mut self.client].into_iter().for_each(shorten);
    }

    /// A line for each run of ports of which the same is to be said.
    fn media(&mut self, seen: &Seen, media: &UdpInSeen) {
        let arrived = media.ports.iter().filter(|(_, port)| matches!(port, PortSeen::Arrived(_))).count();
        let is_nat = seen.is_nat();
        let judged = |port: &PortSeen| -> Judged {
            match port {
                PortSeen::Arrived(_) => (State::Open, None, "open: the server's datagram arrived".into()),
                PortSeen::Missing if is_nat && arrived == 0 => (
                    State::Silent,
                    Some(Side::Viewer),
                    "nothing arrived: a NAT is between, whose router has to forward the ports to this machine; or a firewall drops it"
                        .into(),
                ),
                PortSeen::Missing if arrived > 0 => (
                    State::Silent,
                    None,
                    "nothing arrived, though other ports are open: a firewall's range of ports is too small".into(),
                ),
                PortSeen::Missing => {
                    (State::Silent, None, "nothing arrived: a firewall here, on the way or at the server drops it".into())
                }
                PortSeen::Taken => {
                    (State::Unknown, None, "not tried: another program of this machine has the port".into())
                }
                PortSeen::Leased => (State::Unknown, None, "not tried: a viewer at this address has the port now".into()),
                PortSeen::NotLetOut => (
                    State::Refused,
                    Some(Side::Server),
                    "the server's own system does not let it out: look at the firewall of that machine".into(),
                ),
                PortSeen::Untried(why) => (State::Unknown, None, format!("not tried: {why}")),
            }
        };
        let mut runs: Vec<(Vec<u16>, Judged)> = Vec::new();
        let mut closed = Vec::new();
        for (port, seen) in &media.ports {
            let said = judged(seen);
            if matches!(said.0, State::Refused | State::Silent) {
                closed.push(*port);
            }
            match runs.last_mut() {
                Some((ports, last)) if *last == said && ports.last().and_then(|last| last.checked_add(1)) == Some(*port) => {
                    ports.push(*port);
                }
                _ => runs.push((vec![*port], said)),
            }
        }
        if runs.len() > RUNS_MAX {
            let mut alike: Vec<(Vec<u16>, Judged)> = Vec::new();
            for (ports, said) in runs {
                match alike.iter_mut().find(|(_, other)| *other == said) {
                    Some((all, _)) => all.extend(ports),
                    None => alike.push((ports, said)),
                }
            }
            runs = alike;
        }
        for (ports, (state, side, words)) in runs {
            let what = format!("{} media from UDP {}", media.protocol.name(), media.server_port);
            self.lines.push(Line { way: Way::UdpIn, ports: ranges(&ports), what, state, side, words });
        }
        if !closed.is_empty() {
            let some = closed.len() < media.ports.len();
            let of_these = if some { format!(" (closed are {})", ranges(&closed)) } else { String::new() };
            let kept = media.ports.iter().filter(|(_, port)| *port == PortSeen::NotLetOut).count();
            let mut ask = format!("{}{of_these}", media.rule);
            if kept > 0 {
                ask.push_str(if kept == closed.len() { AT_THE_SERVER } else { AT_THE_SERVER_TOO });
            }
            if is_nat && arrived == 0 && kept < closed.len() {
                let to = seen.local.map(|local| format!(", {local}")).unwrap_or_default();
                ask.push_str(&format!("; the router of the NAT has to forward the ports to this machine{to}"));
            }
            self.ask(State::Silent, true, ask);
        }
    }

    fn requests(&mut self, requests: &UdpOutSeen) {
        let (state, side, words) = if requests.fresh.is_some() {
            (State::Open, None, "open: the server got our datagram".to_owned())
        } else if let Some(what) = &requests.kept {
            (State::Refused, Some(Side::Viewer), format!("this machine itself does not let it out ({what}): its own firewall"))
        } else if !requests.known {
            (State::Unknown, None, "not known: the server could not be asked what it got".into())
        } else if requests.answer.is_some() {
            let words = "the server gets what is sent from a port that media came to, and nothing from other ports: players that ask \
                         from another one get no lost packets again";
            (State::Silent, None, words.into())
        } else {
            (State::Silent, None, "the server got nothing: a firewall here, on the way or at the server drops it".into())
        };
        let what = format!("requests for lost packets, {}", requests.protocol.name());
        self.lines.push(Line { way: Way::UdpOut, ports: requests.port.to_string(), what, state, side, words });
        let at_this_machine = if side == Some(Side::Viewer) { AT_THIS_MACHINE } else { "" };
        self.ask(state, true, format!("{}{at_this_machine}", requests.rule));
    }

    /// What shows that addresses or ports are rewritten.
    fn seen_as_others(&mut self, seen: &Seen) {
        if let (Some(local), Some(seen_as), true) = (seen.local, seen.seen_as, seen.is_nat()) {
            self.nat.push(format!("The server sees {local} as {seen_as}: there is a NAT between."));
        }
        for requests in &seen.udp_out {
            let echoes = [&requests.fresh, &requests.answer].into_iter().flatten();
            for echo in echoes.filter(|echo| echo.client_port != echo.seen_port) {
                self.nat.push(format!(
                    "UDP port {} of this machine is port {} to the server: a NAT rewrites the ports of what goes out.",
                    echo.client_port, echo.seen_port
                ));
            }
        }
        for media in &seen.udp_in {
            let from = media.ports.iter().find_map(|(_, port)| match port {
                PortSeen::Arrived(from) if from.ip() != seen.server || from.port() != media.server_port => Some(from),
                _ => None,
            });
            if let Some(from) = from {
                self.nat.push(format!(
                    "Media from UDP {} of {} comes from {from}: it is rewritten on the way, and some players drop it for that.",
                    media.server_port, seen.server
                ));
            }
        }
        self.nat.dedup();
    }
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.pop();
        text.push('\u{2026}');
    }
}

impl Seen {
    /// The server sees us under another address than ours.
    fn is_nat(&self) -> bool {
        matches!((self.local, self.seen_as), (Some(local), Some(seen_as)) if local != seen_as)
    }
}

/// Ports as people write them; of more than twenty ranges the first.
pub fn ranges(ports: &[u16]) -> String {
    let Ok(mut ranges) = PortRanges::new(ports.iter().map(|port| *port..=*port).collect()) else { return String::new() };
    let rest = ranges.0.split_off(ranges.0.len().min(RUNS_MAX));
    match rest.iter().map(ExactSizeIterator::len).sum::<usize>() {
        0 => ranges.to_string(),
        more => format!("{ranges} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
