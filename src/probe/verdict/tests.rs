use super::*;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn seen() -> Seen {
    Seen {
        host: "media.example".into(),
        server: SERVER,
        local: Some(CLIENT),
        seen_as: Some(CLIENT),
        viewers: 10,
        tcp: Vec::new(),
        udp_in: Vec::new(),
        udp_out: Vec::new(),
        untried: Vec::new(),
        notes: Vec::new(),
    }
}

fn tcp_seen() -> Vec<TcpSeen> {
    vec![
        TcpSeen::Answered,
        TcpSeen::Refused,
        TcpSeen::Unreachable("no route to host".into()),
        TcpSeen::Silent,
        TcpSeen::Swallowed,
        TcpSeen::Other("HTTP/1.1 403".into()),
        TcpSeen::Kept("not permitted".into()),
    ]
}

fn ports_seen() -> Vec<PortSeen> {
    vec![
        PortSeen::Arrived((SERVER, 1755).into()),
        PortSeen::Missing,
        PortSeen::Taken,
        PortSeen::Leased,
        PortSeen::NotLetOut,
        PortSeen::Untried("why".into()),
    ]
}

fn echo(client_port: u16, seen_port: u16) -> Echo {
    Echo { server_port: 1755, client_port, seen_address: CLIENT.to_string(), seen_port }
}

fn media(ports: Vec<(u16, PortSeen)>) -> UdpInSeen {
    UdpInSeen { protocol: Protocol::Mms, server_port: 1755, ports, rule: "media".into() }
}

fn requests() -> UdpOutSeen {
    UdpOutSeen {
        protocol: Protocol::Mms,
        port: 1755,
        fresh: None,
        answer: None,
        kept: None,
        known: true,
        rule: "requests".into(),
    }
}

/// Every combination of two TCP ports: open is what answered and nothing else, and what is closed is asked for if it was planned.
#[test]
fn connections() {
    for first in tcp_seen() {
        for second in tcp_seen() {
            for rule in [None, Some("rule".to_owned())] {
                let tried = |port, seen: &TcpSeen| TcpTried { port, speaks: Speaks::Mms, seen: seen.clone(), rule: rule.clone() };
                let report = judge(&Seen { tcp: vec![tried(1755, &first), tried(1756, &second)], ..seen() });
                let [one, two] = report.lines.as_slice() else { panic!("{report:?}") };
                for (line, seen) in [(one, &first), (two, &second)] {
                    assert_eq!(line.state == State::Open, *seen == TcpSeen::Answered, "{line:?}");
                    assert_eq!(line.words.contains("open"), *seen == TcpSeen::Answered, "{line:?}");
                    assert_eq!(line.side.is_some(), matches!(seen, TcpSeen::Kept(_)), "{line:?}");
                }
                let all_open = first == TcpSeen::Answered && second == TcpSeen::Answered;
                assert_eq!(report.outcome, if all_open { Outcome::Open } else { Outcome::Blocked });
                assert_eq!(report.asks.is_empty(), all_open || rule.is_none(), "{report:?}");
                let both_silent = first == TcpSeen::Silent && second == TcpSeen::Silent;
                assert_eq!(report.notes.len(), usize::from(both_silent), "{report:?}");
            }
        }
    }
}

/// Where a packet was lost cannot be told of TCP: this machine's own firewall may have rejected or dropped it.
#[test]
fn this_machine_is_not_left_out_of_who_may_close_a_connection() {
    let tried = |port, seen| TcpTried { port, speaks: Speaks::Mms, seen, rule: Some("rule".into()) };
    let tcp = vec![
        tried(1755, TcpSeen::Refused),
        tried(1756, TcpSeen::Silent),
        tried(1757, TcpSeen::Unreachable("no route to host".into())),
        tried(1758, TcpSeen::Kept("not permitted".into())),
    ];
    let report = judge(&Seen { tcp, ..seen() });
    let words: Vec<_> = report.lines.iter().map(|line| line.words.as_str()).collect();
    assert!(words[..2].iter().all(|words| words.contains("a firewall here, on the way or at the server")), "{words:?}");
    assert!(words[2].contains("here or on the way") && words[3].contains("this machine itself"), "{words:?}");
    assert_eq!(report.asks, ["rule", "rule (the firewall of this machine itself)"]);
}

/// The control port is asked for even where nobody could say that the server listens there.
#[test]
fn a_closed_control_port_is_asked_for() {
    let tcp = vec![
        TcpTried { port: 3898, speaks: Speaks::Control, seen: TcpSeen::Silent, rule: None },
        TcpTried { port: 1755, speaks: Speaks::Mms, seen: TcpSeen::Answered, rule: None },
        TcpTried { port: 554, speaks: Speaks::Rtsp, seen: TcpSeen::Refused, rule: None },
    ];
    let report = judge(&Seen { seen_as: None, tcp, ..seen() });
    assert_eq!(report.asks, ["TCP from viewers to the server's port 3898"]);
    assert!(report.lines[2].words.contains("nothing listens there, or"));
}

/// Every combination of two client ports, behind a NAT and not.
#[test]
fn media_ports() {
    for first in ports_seen() {
        for second in ports_seen() {
            for seen_as in [CLIENT, SERVER] {
                let ports = vec![(1024, first.clone()), (1025, second.clone())];
                let report = judge(&Seen { seen_as: Some(seen_as), udp_in: vec![media(ports)], ..seen() });
                let open = |seen: &PortSeen| matches!(seen, PortSeen::Arrived(_));
                let closed = |seen: &PortSeen| matches!(seen, PortSeen::Missing | PortSeen::NotLetOut);
                assert_eq!(report.lines.len(), if first == second { 1 } else { 2 }, "{report:?}");
                let (one, two) = (report.lines.first().unwrap(), report.lines.last().unwrap());
                for (line, seen) in [(one, &first), (two, &second)] {
                    assert_eq!(line.state == State::Open, open(seen), "{line:?}");
                    assert_eq!(matches!(line.state, State::Silent | State::Refused), closed(seen), "{line:?}");
                }
                let wanted = match (closed(&first) || closed(&second), open(&first) && open(&second)) {
                    (true, _) => Outcome::Blocked,
                    (false, true) => Outcome::Open,
                    (false, false) => Outcome::Unknown,
                };
                assert_eq!(report.outcome, wanted, "{report:?}");
                let mut asked = match (closed(&first), closed(&second)) {
                    (true, true) => vec!["media".to_owned()],
                    (true, false) => vec!["media (closed are 1024)".to_owned()],
                    (false, true) => vec!["media (closed are 1025)".to_owned()],
                    (false, false) => vec![],
                };
                let any = |wanted: &PortSeen| first == *wanted || second == *wanted;
                if let [ask] = asked.as_mut_slice() {
                    match (any(&PortSeen::NotLetOut), any(&PortSeen::Missing)) {
                        (true, false) => ask.push_str(" (the firewall of the server's own machine)"),
                        (true, true) => ask.push_str(" (the firewall of the server's own machine too)"),
                        (false, _) => {}
                    }
                    if seen_as != CLIENT && any(&PortSeen::Missing) && !open(&first) && !open(&second) {
                        ask.push_str("; the router of the NAT has to forward the ports to this machine, 192.0.2.7");
                    }
                }
                assert_eq!(report.asks, asked);
                assert_eq!(report.nat.len(), usize::from(seen_as != CLIENT), "{report:?}");
                if first == PortSeen::Missing && !open(&second) {
                    assert_eq!(one.side, (seen_as != CLIENT).then_some(Side::Viewer));
                }
            }
        }
    }
}

#[test]
fn ranges_are_one_line_each() {
    let port = |port: u16| (port, if port < 1027 { PortSeen::Arrived((SERVER, 1755).into()) } else { PortSeen::Missing });
    let report = judge(&Seen { udp_in: vec![media((1024..=1033).map(port).collect())], ..seen() });
    let told: Vec<_> = report.lines.iter().map(|line| (line.ports.as_str(), line.state)).collect();
    assert_eq!(told, [("1024-1026", State::Open), ("1027-1033", State::Silent)]);
    assert!(report.lines[1].words.contains("too small"), "{report:?}");
    assert_eq!(report.asks, ["media (closed are 1027-1033)"]);
}

/// Every combination of what can be known of requests for lost packets.
#[test]
fn requests_for_lost_packets() {
    for fresh in [None, Some(echo(40_000, 40_000))] {
        for answer in [None, Some(echo(1024, 1024))] {
            for kept in [None, Some("not permitted".to_owned())] {
                for known in [false, true] {
                    let requests =
                        UdpOutSeen { fresh: fresh.clone(), answer: answer.clone(), kept: kept.clone(), known, ..requests() };
                    let report = judge(&Seen { udp_out: vec![requests], ..seen() });
                    let [line] = report.lines.as_slice() else { panic!("{report:?}") };
                    assert_eq!(line.state == State::Open, fresh.is_some(), "{line:?}");
                    let is_known = fresh.is_some() || kept.is_some() || known;
                    assert_eq!(line.state == State::Unknown, !is_known, "{line:?}");
                    assert_eq!(report.asks.len(), usize::from(is_known && fresh.is_none()));
                }
            }
        }
    }
}

#[test]
fn rewriting_is_told() {
    let rewritten = UdpOutSeen { fresh: Some(echo(40_000, 61_234)), ..requests() };
    let arrived = PortSeen::Arrived((CLIENT, 2000).into());
    let report = judge(&Seen { udp_out: vec![rewritten], udp_in: vec![media(vec![(1024, arrived)])], ..seen() });
    assert_eq!(report.nat.len(), 2, "{report:?}");
    assert!(report.nat[0].contains("40000") && report.nat[0].contains("61234"));
    assert!(report.nat[1].contains("comes from 192.0.2.7:2000"));
    assert_eq!(report.outcome, Outcome::Open);
}

/// One port is open, and something that is needed could not be tried, or may be anybody's.
#[test]
fn nothing_tried_is_not_open() {
    assert_eq!(judge(&seen()).outcome, Outcome::Unknown);
    let udp_in = vec![media(vec![(1024, PortSeen::Arrived((SERVER, 1755).into()))])];
    let open = Seen { udp_in, ..seen() };
    assert_eq!(judge(&open).outcome, Outcome::Open);
    let untried = Untried { way: Way::UdpIn, ports: "1024".into(), what: "RTSP media".into(), why: "it changes".into() };
    let report = judge(&Seen { untried: vec![untried], ..open.clone() });
    assert_eq!((report.outcome, report.lines[1].words.as_str()), (Outcome::Unknown, "not tried: it changes"));
    let tried = TcpTried {
        port: 443,
        speaks: Speaks::Console,
        seen: TcpSeen::Unsure("HTTPS answers; whose is not known".into()),
        rule: Some("rule".into()),
    };
    let report = judge(&Seen { tcp: vec![tried], ..open });
    assert_eq!((report.outcome, report.lines[0].state, report.asks.len()), (Outcome::Unknown, State::Unknown, 0));
}

#[test]
fn reports_are_as_small_as_the_server_takes_them() {
    let ports = (0..400).map(|n| 1024 + 2 * n).map(|port| (port, PortSeen::Missing)).collect();
    let (rule, notes) = ("r".repeat(600), vec!["n".repeat(513); 100]);
    let report = judge(&Seen { udp_in: vec![UdpInSeen { rule, ..media(ports) }], notes, ..seen() });
    let [line] = report.lines.as_slice() else { panic!("{}", report.lines.len()) };
    assert!(line.ports.ends_with("1062 and 380 more"), "{}", line.ports);
    assert_eq!((report.asks[0].chars().count(), report.notes.len(), report.notes[0].chars().count()), (512, 64, 512));
}
