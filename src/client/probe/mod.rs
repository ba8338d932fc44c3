//! The sockets of `wmrelay probe`: what is tried, and what it did. What that means is [`crate::probe::verdict`]'s.

mod control;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use crate::probe::verdict::{PortSeen, TcpTried, UdpInSeen, UdpOutSeen};
use crate::probe::{ProbePlan, Protocol, Seen, Speaks, TcpSeen, Wanted};

pub use control::{Control, ControlError, ControlPort, Sealed};
pub use tcp::connect;

/// Time for a connection, and for each answer: a SYN is sent again after one second and three.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is tried where the server cannot be asked: what such servers listen on by custom.
const BY_CUSTOM: [(u16, Speaks); 7] = [
    (1755, Speaks::Mms),
    (554, Speaks::Rtsp),
    (8554, Speaks::Rtsp),
    (80, Speaks::Http),
    (8080, Speaks::Http),
    (443, Speaks::Console),
    (8443, Speaks::Console),
];
/// The first client port by custom.
const FIRST_PORT: u16 = 1024;

/// Tries all of a plan.
///
/// # Errors
/// The server stops answering at the control port.
pub async fn by_plan(control: &Control, plan: &ProbePlan, viewers: u16) -> Result<Seen, ControlError> {
    let (server, local) = (control.port.address, control.port.local);
    // Our own datagrams go last: they would open the way for the server's.
    let connections = async {
        let tries = plan.tcp.iter().map(|test| async move {
            let seen = match test.speaks {
                Speaks::Control => TcpSeen::Answered,
                speaks => tcp::exchange(SocketAddr::new(server.ip(), test.port), speaks, &control.port).await,
            };
            TcpTried { port: test.port, speaks: test.speaks, seen, rule: Some(test.rule.clone()) }
        });
        futures_util::future::join_all(tries).await
    };
    let datagrams = udp::datagrams(control, plan);
    let (tcp, datagrams) = tokio::join!(connections, datagrams);
    let (udp_in, udp_out) = datagrams?;
    Ok(Seen {
        host: control.port.host.clone(),
        server: server.ip().to_canonical(),
        local: Some(local),
        seen_as: plan.address.parse().ok(),
        viewers,
        tcp,
        udp_in,
        udp_out,
        untried: plan.untried.clone(),
        notes: plan.notes.clone(),
    })
}

/// Tries what can be tried of a server that cannot be asked; `why` its control port did not answer.
pub async fn by_custom(port: &ControlPort, why: TcpSeen, viewers: u16, wanted: Wanted) -> Seen {
    let tries = BY_CUSTOM.into_iter().filter(|(_, speaks)| wanted.takes(*speaks)).map(|(number, speaks)| async move {
        let seen = tcp::exchange(SocketAddr::new(port.address.ip(), number), speaks, port).await;
        TcpTried { port: number, speaks, seen, rule: None }
    });
    let mut tcp = vec![TcpTried { port: port.address.port(), speaks: Speaks::Control, seen: why, rule: None }];
    tcp.extend(futures_util::future::join_all(tries).await);
    let untried = || PortSeen::Untried("the server could not be asked to send anything".into());
    let last = FIRST_PORT.saturating_add(viewers.saturating_sub(1));
    let udp_out = [(Protocol::Mms, 1755), (Protocol::Rtsp, 5005)].into_iter().filter(|(of, _)| wanted.takes_udp(*of)).map(
        |(protocol, port)| UdpOutSeen {
            protocol,
            port,
            fresh: None,
            answer: None,
            kept: None,
            known: false,
            rule: String::new(),
        },
    );
    let media = UdpInSeen {
        protocol: Protocol::Mms,
        server_port: 1755,
        ports: (FIRST_PORT..=last).map(|port| (port, untried())).collect(),
        rule: String::new(),
    };
    Seen {
        host: port.host.clone(),
        server: port.address.ip().to_canonical(),
        local: tcp::local_for(port.address).await,
        seen_as: None,
        viewers,
        tcp,
        udp_in: if wanted.takes_udp(Protocol::Mms) { vec![media] } else { Vec::new() },
        udp_out: udp_out.collect(),
        untried: Vec::new(),
        notes: vec![format!(
            "Nobody could be asked at the control port {}: the ports above are those that such servers have by custom, where yours may \
             listen on others, and nothing is known of UDP. Open that port first, or say which it is by --control, or by --plain that \
             it is not inside TLS.",
            port.address.port()
        )],
    }
}
