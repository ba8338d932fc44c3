//! A report as text.

use super::verdict::{Outcome, Report, State, Way};

/// A line a port, and behind them what to do.
pub fn table(report: &Report) -> String {
    let mut text = match &report.seen_as {
        Some(seen_as) if *seen_as == report.client => format!("{} ({}) from {}", report.host, report.server, report.client),
        Some(seen_as) => format!("{} ({}) from {}, seen as {seen_as}", report.host, report.server, report.client),
        None => format!("{} ({}), which could not be asked what it listens on", report.host, report.server),
    };
    text.push_str(&match report.viewers {
        1 => ", for one viewer\n\n".to_owned(),
        viewers => format!(", for {viewers} viewers\n\n"),
    });
    let rows: Vec<_> =
        report.lines.iter().map(|line| (format!("{} {}", way(line.way), line.ports), state(line.state), line)).collect();
    let wide = |of: &dyn Fn(&(String, &str, &super::verdict::Line)) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (ports, what) = (wide(&|row| row.0.chars().count()), wide(&|row| row.2.what.chars().count()));
    for (port, state, line) in &rows {
        text.push_str(&format!("{port:ports$}  {:what$}  {state:8}  {}\n", line.what, line.words));
    }
    let mut part = |title: &str, lines: &[String]| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("  - {line}\n")));
        }
    };
    part("Rewritten on the way:", &report.nat);
    part("Ask the administrator of the firewall to let pass:", &report.asks);
    part("Besides:", &report.notes);
    text.push_str(match report.outcome {
        Outcome::Open => "\nAll that is needed is open.\n",
        Outcome::Unknown => "\nNothing is closed, and something could not be tried.\n",
        Outcome::Blocked => "\nSomething is closed.\n",
    });
    text
}

/// How the way of a port is told.
pub fn way(way: Way) -> &'static str {
    match way {
        Way::TcpOut => "TCP to",
        Way::UdpIn => "UDP at",
        Way::UdpOut => "UDP to",
    }
}

/// How what became of a port is told.
pub fn state(state: State) -> &'static str {
    match state {
        State::Open => "OPEN",
        State::Refused | State::Silent | State::Something => "BLOCKED",
        State::Unknown => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Line;
    use super::*;

    #[test]
    fn columns_and_what_to_do() {
        let line = |way, ports: &str, what: &str, state, words: &str| Line {
            way,
            ports: ports.into(),
            what: what.into(),
            state,
            side: None,
            words: words.into(),
        };
        let report = Report {
            host: "media.example".into(),
            server: "198.51.100.1".into(),
            client: "192.168.0.5".into(),
            seen_as: Some("192.0.2.7".into()),
            viewers: 2,
            outcome: Outcome::Blocked,
            lines: vec![
                line(Way::TcpOut, "1755", "MMS", State::Open, "open: MMS answers"),
                line(Way::UdpIn, "1024-1025", "MMS media from UDP 1755", State::Silent, "nothing arrived"),
            ],
            nat: vec!["The server sees 192.168.0.5 as 192.0.2.7.".into()],
            asks: vec!["UDP from the server's port 1755 to viewers' ports 1024-1025".into()],
            notes: Vec::new(),
        };
        assert_eq!(
            table(&report),
            "media.example (198.51.100.1) from 192.168.0.5, seen as 192.0.2.7, for 2 viewers\n\n\
             TCP to 1755       MMS                      OPEN      open: MMS answers\n\
             UDP at 1024-1025  MMS media from UDP 1755  BLOCKED   nothing arrived\n\n\
             Rewritten on the way:\n  - The server sees 192.168.0.5 as 192.0.2.7.\n\n\
             Ask the administrator of the firewall to let pass:\n  - UDP from the server's port 1755 to viewers' ports 1024-1025\n\n\
             Something is closed.\n"
        );
    }
}
