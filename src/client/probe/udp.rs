//! UDP: challenges that come in, and datagrams of ours that the server says it got.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::control::{Control, ControlError};
use crate::probe::datagram::token_of;
use crate::probe::plan::ChallengeWish;
use crate::probe::verdict::{PortSeen, UdpInSeen, UdpOutSeen};
use crate::probe::{CHALLENGES_MAX, Challenge, Datagram, Echo, Kind, ProbePlan, Protocol, Token};

/// A datagram may be lost on a way that is open.
const ROUNDS: usize = 3;
/// Time for the datagrams of a round.
const ROUND: Duration = Duration::from_millis(1500);
/// Time between our own datagrams to one port.
const BETWEEN: Duration = Duration::from_millis(300);
/// Where the server has sent enough for now.
const REST: Duration = Duration::from_secs(3);

/// A challenge that came: from which port of the server, to which of ours, from where.
type Came = (u16, u16, SocketAddr);
/// What became of the challenges from a port of the server to one of ours.
type Ports = HashMap<(u16, u16), PortSeen>;

/// Tries all UDP of a plan.
pub(super) async fn datagrams(control: &Control, plan: &ProbePlan) -> Result<(Vec<UdpInSeen>, Vec<UdpOutSeen>), ControlError> {
    let token = token_of(&plan.token).ok_or_else(|| ControlError::Answer("no token".into()))?;
    let mut sockets = HashMap::new();
    let mut seen = Ports::new();
    for test in &plan.udp_in {
        for port in &test.ports {
            let socket = match sockets.get(port) {
                Some(Ok(_)) => continue,
                Some(Err(seen)) => Err::<(), PortSeen>(PortSeen::clone(seen)),
                None => match UdpSocket::bind((control.port.local, *port)).await {
                    Ok(socket) => {
                        sockets.insert(*port, Ok(Arc::new(socket)));
                        continue;
                    }
                    Err(error) => {
                        let refused = unbound(&error);
                        sockets.insert(*port, Err(refused.clone()));
                        Err(refused)
                    }
                },
            };
            if let Err(refused) = socket {
                seen.insert((test.server_port, *port), refused);
            }
        }
    }
    let bound: HashMap<u16, Arc<UdpSocket>> =
        sockets.into_iter().filter_map(|(port, socket)| Some((port, socket.ok()?))).collect();
    challenges(control, plan, token, &bound, &mut seen).await?;
    let udp_out = echoes(control, plan, token, &bound, &seen).await?;
    let udp_in = plan.udp_in.iter().map(|test| UdpInSeen {
        protocol: test.protocol,
        server_port: test.server_port,
        ports: test
            .ports
            .iter()
            .map(|port| (*port, seen.remove(&(test.server_port, *port)).unwrap_or(PortSeen::Missing)))
            .collect(),
        rule: test.rule.clone(),
    });
    Ok((udp_in.collect(), udp_out))
}

fn unbound(error: &io::Error) -> PortSeen {
    match error.kind() {
        io::ErrorKind::AddrInUse => PortSeen::Taken,
        _ => PortSeen::Untried(format!("this machine does not give the port ({error})")),
    }
}

/// Asks for challenges, and listens for them.
async fn challenges(
    control: &Control,
    plan: &ProbePlan,
    token: Token,
    bound: &HashMap<u16, Arc<UdpSocket>>,
    seen: &mut Ports,
) -> Result<(), ControlError> {
    let (sender, mut came) = mpsc::channel(256);
    let server_ports: HashSet<u16> = plan.udp_in.iter().map(|test| test.server_port).collect();
    let mut listeners = JoinSet::new();
    for (port, socket) in bound {
        listeners.spawn(listen(Arc::clone(socket), *port, token, server_ports.clone(), sender.clone()));
    }
    drop(sender);
    let wanted: Vec<Challenge> = plan
        .udp_in
        .iter()
        .flat_map(|test| {
            test.ports.iter().map(|port| Challenge { protocol: test.protocol, server_port: test.server_port, port: *port })
        })
        .filter(|challenge| bound.contains_key(&challenge.port))
        .collect();
    for _ in 0..ROUNDS {
        let left: Vec<_> =
            wanted.iter().filter(|challenge| !seen.contains_key(&(challenge.server_port, challenge.port))).copied().collect();
        if left.is_empty() {
            break;
        }
        let mut missing: HashSet<_> = HashSet::new();
        let mut is_refused = false;
        for part in left.chunks(CHALLENGES_MAX) {
            let answer = if is_refused { None } else { asked(control, plan.id, part).await? };
            match answer {
                Some(answer) => {
                    let mut note = |challenges: Vec<Challenge>, became: PortSeen| {
                        for challenge in challenges {
                            seen.insert((challenge.server_port, challenge.port), became.clone());
                        }
                    };
                    note(answer.leased, PortSeen::Leased);
                    note(answer.failed, PortSeen::NotLetOut);
                    missing.extend(answer.sent.into_iter().map(|challenge| (challenge.server_port, challenge.port)));
                }
                None => {
                    is_refused = true;
                    for challenge in part {
                        let why = "the server sends no more challenges for now; try again later".to_owned();
                        seen.insert((challenge.server_port, challenge.port), PortSeen::Untried(why));
                    }
                }
            }
        }
        let until = Instant::now() + ROUND;
        while !missing.is_empty() {
            let Ok(Some((server_port, port, from))) = timeout_at(until, came.recv()).await else { break };
            missing.remove(&(server_port, port));
            seen.insert((server_port, port), PortSeen::Arrived(from));
        }
    }
    Ok(())
}

/// One request for challenges; `None` where the server has sent enough for now, even after a rest, or knows nothing of this probe any
/// more.
async fn asked(control: &Control, id: u64, challenges: &[Challenge]) -> Result<Option<crate::probe::Challenged>, ControlError> {
    let wish = ChallengeWish { challenges: challenges.to_vec() };
    for rest in [REST, Duration::ZERO] {
        match control.challenge(id, &wish).await {
            Err(ControlError::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. }) => sleep(rest).await,
            Err(ControlError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
            answer => return answer.map(Some),
        }
    }
    Ok(None)
}

/// Tells of challenges with the right token that come to a port under its own number.
async fn listen(socket: Arc<UdpSocket>, port: u16, token: Token, server_ports: HashSet<u16>, came: mpsc::Sender<Came>) {
    let mut buffer = [0; 256];
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { return };
        let datagram = Datagram::parse(buffer.get(..len).unwrap_or_default());
        let Some(datagram) = datagram.filter(|datagram| datagram.kind == Kind::Challenge && datagram.token == token) else {
            continue;
        };
        if datagram.client_port != port || !server_ports.contains(&datagram.server_port) {
            continue;
        }
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if came.send((datagram.server_port, port, from)).await.is_err() {
            return;
        }
    }
}

/// Sends to the ports that players ask for lost packets: from a port that nothing has come to, and from one that media came to.
async fn echoes(
    control: &Control,
    plan: &ProbePlan,
    token: Token,
    bound: &HashMap<u16, Arc<UdpSocket>>,
    seen: &Ports,
) -> Result<Vec<UdpOutSeen>, ControlError> {
    let mut tries = Vec::new();
    for test in &plan.udp_out {
        let fresh = UdpSocket::bind((control.port.local, 0)).await;
        // Those of RTSP are asked for at the next port.
        let media = if test.protocol == Protocol::Rtsp { test.port.saturating_sub(1) } else { test.port };
        let has_come = |port: &u16| matches!(seen.get(&(media, *port)), Some(PortSeen::Arrived(_)));
        let known = bound.iter().filter(|(port, _)| has_come(port)).min_by_key(|(port, _)| **port);
        tries.push((test, fresh, known.map(|(_, socket)| Arc::clone(socket)), None));
    }
    let mut heard: Vec<Echo> = Vec::new();
    let mut known = true;
    for _ in 0..ROUNDS {
        for _ in 0..2 {
            for (test, fresh, answer, kept) in &mut tries {
                let to = SocketAddr::new(control.port.address.ip(), test.port);
                match fresh {
                    Ok(fresh) => *kept = send(fresh, to, token).await.err(),
                    Err(error) => *kept = Some(error.to_string()),
                }
                if let Some(answer) = answer {
                    // The other one counts.
                    let _ = send(answer, to, token).await;
                }
            }
            sleep(BETWEEN).await;
        }
        match control.heard(plan.id).await {
            Ok(answer) => heard = answer.echoes,
            Err(ControlError::Refused { .. }) => known = false,
            Err(error) => return Err(error),
        }
        if tries.iter().all(|(test, fresh, ..)| of(&heard, test.port, fresh.as_ref().ok()).is_some()) {
            break;
        }
    }
    let told = tries.into_iter().map(|(test, fresh, answer, kept)| UdpOutSeen {
        protocol: test.protocol,
        port: test.port,
        fresh: of(&heard, test.port, fresh.as_ref().ok()),
        answer: of(&heard, test.port, answer.as_deref()),
        kept,
        known,
        rule: test.rule.clone(),
    });
    Ok(told.collect())
}

async fn send(socket: &UdpSocket, to: SocketAddr, token: Token) -> Result<(), String> {
    let client_port = local_port(socket);
    let bytes = Datagram { kind: Kind::Echo, token, server_port: to.port(), client_port }.bytes();
    match socket.send_to(&bytes, to).await {
        // An ICMP error of an earlier one: that there is no way is shown by what the server has.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// What the server got of a socket at one of its ports.
fn of(heard: &[Echo], port: u16, socket: Option<&UdpSocket>) -> Option<Echo> {
    let client_port = local_port(socket?);
    heard.iter().find(|echo| echo.server_port == port && echo.client_port == client_port).cloned()
}

fn local_port(socket: &UdpSocket) -> u16 {
    socket.local_addr().map_or(0, |local: SocketAddr| local.port())
}
