//! Probes of the way between a viewer and the server: they are run at the viewer's side, by `wmrelay probe`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;

use super::answer::{Body, Failure, FailureBody, Path};
use super::caller::{Anybody, Here, Operator, Peer};
use crate::control::plane::Plane;
use crate::control::probes::{LIFE, ProbeRefusal, ProbeReport};
use crate::control::running::reached_at;
use crate::firewall::{Flow, Media, Options, Plan, PlanError, RTSP_PORTS, Side, Toward, Transport};
use crate::probe::datagram::token_text;
use crate::probe::plan::{ChallengeWish, ProbeWish};
use crate::probe::verdict::Way;
use crate::probe::{
    CHALLENGES_MAX, Challenge, Challenged, Echo, ProbeAnswer, ProbePlan, Protocol, Report, Speaks, TcpTest, UdpInTest,
    UdpOutTest, Untried, Wanted,
};
use crate::settings::Settings;

/// Viewers that a probe is for: three hundred ports of RTSP.
const VIEWERS_MAX: u16 = 100;
/// No player is granted a lower one.
const LOWEST_PORT: u16 = 1024;

/// Where a request came from, and where to.
type Ends = (Option<Extension<Peer>>, Option<Extension<Here>>);

/// Begin a probe of the way to the address that asks: what there is to try. One of an address at a time.
#[utoipa::path(
    post, path = "/v1/probes", tag = "viewing", security(("token" = [])),
    request_body = ProbeWish,
    responses(
        (status = 201, description = "What is to be tried", body = ProbePlan),
        (status = 400, description = "No such JSON, or there is no plan for so many", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 409, description = "One of this address is under way, or the question came by the Unix socket", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
        (status = 429, description = "Too many, of this address or of all", body = FailureBody),
    )
)]
pub(super) async fn begin(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    (peer, here): Ends,
    Body(ProbeWish { viewers, protocol }): Body<ProbeWish>,
) -> Result<(StatusCode, Json<ProbePlan>), Failure> {
    let (Some(Extension(Peer(address))), Some(Extension(Here(local)))) = (peer, here) else {
        let why = "a probe is of the way to the control port; by the Unix socket there is none";
        return Err(Failure::new(StatusCode::CONFLICT, "no_address", why));
    };
    if !(1..=VIEWERS_MAX).contains(&viewers) {
        let why = format!("viewers is not between 1 and {VIEWERS_MAX}");
        return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_viewers", why));
    }
    let mut settings = plane.running_settings();
    reached_at(&mut settings, local, plane.listeners.contains_key("console"));
    let mut drawn = Drawn::of(&settings, viewers, protocol);
    drawn.tcp.sort_by_key(|test| (test.speaks != Speaks::Control, test.speaks != Speaks::Console));
    let mut token = [0; crate::probe::TOKEN_BYTES];
    getrandom::fill(&mut token)
        .map_err(|_| Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", "the system has no random numbers now"))?;
    let now = tokio::time::Instant::now().into_std();
    let open = plane.probes.begin(now, &caller.user, address, token).map_err(refused)?;
    tracing::info!(probe = open.id, user = caller.user, peer = %address, viewers, "a probe begins");
    let Drawn { tcp, udp_in, udp_out, untried, notes } = drawn;
    let plan = ProbePlan {
        id: open.id,
        address: address.to_string(),
        token: token_text(&token),
        expires_s: LIFE.as_secs(),
        tcp,
        udp_in,
        udp_out,
        untried,
        notes,
    };
    Ok((StatusCode::CREATED, Json(plan)))
}

/// Send challenges, a small datagram each, to client ports of the address that asks, and of no other; of the pool only. What was not
/// sent for want of leave may be asked for again later.
#[utoipa::path(
    post, path = "/v1/probes/{id}/challenges", tag = "viewing", security(("token" = [])),
    params(("id" = u64, Path, description = "Number of the probe")),
    request_body = ChallengeWish,
    responses(
        (status = 200, description = "What became of each", body = Challenged),
        (status = 400, description = "No such JSON, more than 64, or a port that is not of the pool", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 404, description = "There is no such probe of this user at this address", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
        (status = 429, description = "Too many, of this address or of all", body = FailureBody),
    )
)]
pub(super) async fn challenge(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    (peer, here): Ends,
    Path(id): Path<u64>,
    Body(ChallengeWish { challenges }): Body<ChallengeWish>,
) -> Result<Json<Challenged>, Failure> {
    let now = tokio::time::Instant::now().into_std();
    let (Some(Extension(Peer(address))), Some(Extension(Here(local)))) = (peer, here) else {
        return Err(refused(ProbeRefusal::None));
    };
    let open = plane.probes.open(now, id, &caller.user, address).map_err(refused)?;
    if challenges.len() > CHALLENGES_MAX {
        let why = format!("a request may ask for {CHALLENGES_MAX} challenges at most");
        return Err(Failure::new(StatusCode::BAD_REQUEST, "too_many_ports", why));
    }
    let pool = &plane.settings.udp.client_ports;
    let is_ours = |port: u16| port >= LOWEST_PORT && pool.contains(port);
    if let Some(Challenge { port, .. }) = challenges.iter().find(|challenge| !is_ours(challenge.port)) {
        let why = format!("{port} is no port that viewers are granted ([udp] client_ports = \"{pool}\", from {LOWEST_PORT} on)");
        return Err(Failure::new(StatusCode::BAD_REQUEST, "bad_port", why));
    }
    plane.probes.spend(now, address, challenges.len()).map_err(refused)?;
    let leased = plane.relay.admission().ports().list(now);
    let is_leased = |port: u16| leased.iter().any(|lease| lease.address == address && lease.port == port && !lease.resting);
    let mut answer = Challenged::default();
    for challenge in challenges {
        // A viewer that plays there has nothing to do with it.
        if is_leased(challenge.port) {
            answer.leased.push(challenge);
            continue;
        }
        let to = SocketAddr::new(address, challenge.port);
        let left = plane.probes.prober().challenge(challenge.protocol, challenge.server_port, local, to, open.token);
        (if left { &mut answer.sent } else { &mut answer.failed }).push(challenge);
    }
    Ok(Json(answer))
}

/// What came of a probe's own datagrams.
#[utoipa::path(
    get, path = "/v1/probes/{id}", tag = "viewing", security(("token" = [])),
    params(("id" = u64, Path, description = "Number of the probe")),
    responses(
        (status = 200, description = "Each datagram, and where it came from", body = ProbeAnswer),
        (status = 400, description = "No number", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 404, description = "There is no such probe of this user at this address", body = FailureBody),
    )
)]
pub(super) async fn heard(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    (peer, _): Ends,
    Path(id): Path<u64>,
) -> Result<Json<ProbeAnswer>, Failure> {
    let now = tokio::time::Instant::now().into_std();
    let Some(Extension(Peer(address))) = peer else { return Err(refused(ProbeRefusal::None)) };
    let open = plane.probes.open(now, id, &caller.user, address).map_err(refused)?;
    let echoes = plane.probes.heard(&open).into_iter().map(|heard| Echo {
        server_port: heard.server_port,
        client_port: heard.client_port,
        seen_address: heard.from.ip().to_string(),
        seen_port: heard.from.port(),
    });
    Ok(Json(ProbeAnswer { id, address: address.to_string(), echoes: echoes.collect() }))
}

/// End a probe with what it found: of one user the last five are kept, of all the last hundred.
#[utoipa::path(
    post, path = "/v1/probes/{id}/report", tag = "viewing", security(("token" = [])),
    params(("id" = u64, Path, description = "Number of the probe")),
    request_body = Report,
    responses(
        (status = 204, description = "It is kept"),
        (status = 400, description = "No such JSON, or more than any true report holds", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 404, description = "There is no such probe of this user at this address", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
    )
)]
pub(super) async fn report(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    (peer, _): Ends,
    Path(id): Path<u64>,
    Body(report): Body<Report>,
) -> Result<StatusCode, Failure> {
    let now = tokio::time::Instant::now().into_std();
    let Some(Extension(Peer(address))) = peer else { return Err(refused(ProbeRefusal::None)) };
    let open = plane.probes.open(now, id, &caller.user, address).map_err(refused)?;
    plane.probes.end(now, &open, report).map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the last probes found, a hundred at most and five of one user, the latest first. The texts are the probes' own: nothing vouches for them.
#[utoipa::path(
    get, path = "/v1/probes", tag = "operation", security(("token" = [])),
    responses(
        (status = 200, description = "The reports", body = [ProbeReport]),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "Not for this role", body = FailureBody),
    )
)]
pub(super) async fn reports(State(plane): State<Arc<Plane>>, _: Operator) -> Json<Vec<ProbeReport>> {
    Json(plane.probes.list(tokio::time::Instant::now().into_std(), 0..usize::MAX))
}

fn refused(refusal: ProbeRefusal) -> Failure {
    match refusal {
        ProbeRefusal::UnderWay(left_s) => {
            let why = format!("a probe of this address is under way; it is over within {left_s} s");
            Failure::new(StatusCode::CONFLICT, "under_way", why)
        }
        ProbeRefusal::TooMany => {
            Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "too many probes or challenges; wait some seconds")
        }
        ProbeRefusal::None => Failure::none("there is no such probe of yours from this address, or it is over"),
        ProbeRefusal::TooLarge => {
            let why = "a report has at most 256 lines and texts of 512 characters, 16 KiB in all";
            Failure::new(StatusCode::BAD_REQUEST, "bad_report", why)
        }
    }
}

/// What the planner says, as tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Drawn {
    tcp: Vec<TcpTest>,
    udp_in: Vec<UdpInTest>,
    udp_out: Vec<UdpOutTest>,
    untried: Vec<Untried>,
    notes: Vec<String>,
}

impl Drawn {
    /// Each protocol by itself: one that has too few ports does not keep the others from being tried.
    fn of(settings: &Settings, viewers: u16, wanted: Wanted) -> Self {
        let mut drawn = Self::default();
        let all = [
            (Media::Mms, Wanted::Mms, Some(Protocol::Mms)),
            (Media::Rtsp, Wanted::Rtsp, Some(Protocol::Rtsp)),
            (Media::Http, Wanted::Http, None),
        ];
        for (media, own, protocol) in all {
            if wanted != Wanted::All && wanted != own {
                continue;
            }
            let options = |viewers| Options {
                viewers,
                side: Side::Viewer,
                media,
                client_net: None,
                servers: Vec::new(),
                tcp_only: false,
                rtsp_ports: RTSP_PORTS,
            };
            let plan = match Plan::of(settings, &options(viewers.into())) {
                Err(PlanError::Pool { capacity, protocol, .. }) => {
                    let pool = &settings.udp.client_ports;
                    drawn.notes.push(format!(
                        "[udp] client_ports = \"{pool}\" of the server has room for {capacity} of {viewers} viewers over UDP by {protocol}; \
                         the others take TCP."
                    ));
                    drawn.untried.push(Untried {
                        way: Way::UdpIn,
                        ports: pool.to_string(),
                        what: format!("{protocol} media of {viewers} viewers"),
                        why: format!("the server has ports for {capacity} of them"),
                    });
                    let fewer = Options { tcp_only: capacity == 0, ..options(capacity.max(1)) };
                    Plan::of(settings, &fewer)
                }
                planned => planned,
            };
            if let (Err(error), Some(name)) = (&plan, wanted.name()) {
                drawn.notes.push(format!("The server says: {error}."));
                drawn.untried.push(Untried {
                    way: Way::TcpOut,
                    ports: "none".into(),
                    what: name.into(),
                    why: "the server does not serve it to other machines".into(),
                });
            }
            for flow in plan.iter().flat_map(|plan| &plan.flows).filter(|flow| flow.needed) {
                drawn.take(flow, protocol);
            }
        }
        drawn
    }

    fn take(&mut self, flow: &Flow, protocol: Option<Protocol>) {
        let Some(port) = flow.server_port else {
            self.untried.push(Untried {
                way: match (flow.transport, flow.toward) {
                    (Transport::Tcp, _) => Way::TcpOut,
                    (Transport::Udp, Toward::Viewers) => Way::UdpIn,
                    (Transport::Udp, Toward::Server) => Way::UdpOut,
                },
                ports: flow.client_ports.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string),
                what: flow.name.clone(),
                why: "it comes from a port of the server that changes".into(),
            });
            return;
        };
        let rule = flow.way();
        match (flow.transport, flow.toward, protocol) {
            (Transport::Tcp, _, _) => {
                let speaks = match flow.name.as_str() {
                    "control" => Speaks::Control,
                    "console" => Speaks::Console,
                    "MMS" => Speaks::Mms,
                    "RTSP" => Speaks::Rtsp,
                    "RTSP in TLS" => Speaks::Rtsps,
                    "HTTP" => Speaks::Http,
                    _ => return,
                };
                let test = TcpTest { port, speaks, rule };
                // Control port and console are in each protocol's plan.
                if !self.tcp.contains(&test) {
                    self.tcp.push(test);
                }
            }
            (Transport::Udp, Toward::Viewers, Some(protocol)) => {
                let ports = flow.client_ports.iter().flat_map(crate::settings::PortRanges::iter).collect();
                self.udp_in.push(UdpInTest { protocol, server_port: port, ports, rule });
            }
            (Transport::Udp, Toward::Server, Some(protocol)) => self.udp_out.push(UdpOutTest { protocol, port, rule }),
            (Transport::Udp, _, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Listen;

    fn drawn(pool: &str, viewers: u16) -> Drawn {
        let mut settings = Settings::default();
        settings.control.users_file = Some("users".into());
        settings.console = Listen { addresses: Vec::new(), built_in: false };
        settings.udp.client_ports = pool.parse().unwrap();
        Drawn::of(&settings, viewers, Wanted::All)
    }

    #[test]
    fn the_plan_as_tests() {
        let Drawn { tcp, udp_in, udp_out, untried, notes } = drawn("1024-5000", 10);
        let tcp: Vec<_> = tcp.iter().map(|test| (test.port, test.speaks)).collect();
        assert_eq!(tcp, [(3898, Speaks::Control), (1755, Speaks::Mms), (8554, Speaks::Rtsp), (8080, Speaks::Http)]);
        let told: Vec<_> = udp_in.iter().map(|test| (test.server_port, test.ports.len())).collect();
        assert_eq!(told, [(1755, 10), (5004, 30)]);
        assert_eq!(udp_in[0].rule, "UDP from the server's port 1755 to viewers' ports 1024-1033");
        assert_eq!(udp_out.iter().map(|test| test.port).collect::<Vec<_>>(), [1755, 5005]);
        assert!(notes.is_empty() && untried.is_empty(), "{notes:?} {untried:?}");
    }

    #[test]
    fn a_pool_that_is_too_small_is_tried_as_far_as_it_goes() {
        let Drawn { tcp, udp_in, untried, notes, .. } = drawn("1024-1033", 10);
        assert_eq!(untried.iter().map(|untried| untried.what.as_str()).collect::<Vec<_>>(), ["RTSP media of 10 viewers"]);
        assert_eq!(tcp.len(), 4);
        assert_eq!(udp_in.iter().map(|test| test.ports.len()).collect::<Vec<_>>(), [10, 9]);
        assert!(notes.len() == 1 && notes[0].contains("3 of 10 viewers over UDP by RTSP"), "{notes:?}");
        let Drawn { udp_in, untried, notes, .. } = drawn("1000-1023", 2);
        assert!(udp_in.is_empty() && notes.len() == 2 && untried.len() == 2, "{notes:?}");
    }

    /// What a plan for one protocol leaves out on purpose is not asked for.
    #[test]
    fn one_protocol_is_tried_alone() {
        let mut settings = Settings::default();
        settings.control.users_file = Some("users".into());
        settings.console = Listen { addresses: Vec::new(), built_in: false };
        let of = |settings: &Settings, wanted| {
            let Drawn { tcp, udp_in, udp_out, untried, notes } = Drawn::of(settings, 10, wanted);
            let tcp: Vec<_> = tcp.iter().map(|test| test.speaks).collect();
            let udp: Vec<_> = udp_in.iter().map(|test| test.protocol).chain(udp_out.iter().map(|test| test.protocol)).collect();
            (tcp, udp, untried.len() + notes.len())
        };
        let (mms, rtsp) = (Protocol::Mms, Protocol::Rtsp);
        assert_eq!(of(&settings, Wanted::Mms), (vec![Speaks::Control, Speaks::Mms], vec![mms, mms], 0));
        assert_eq!(of(&settings, Wanted::Rtsp), (vec![Speaks::Control, Speaks::Rtsp], vec![rtsp, rtsp], 0));
        assert_eq!(of(&settings, Wanted::Http), (vec![Speaks::Control, Speaks::Http], vec![], 0));
        settings.mms = Listen { addresses: Vec::new(), built_in: false };
        settings.http_protocols.mms = false;
        settings.rtsp_protocols.mms = false;
        let none = Drawn::of(&settings, 10, Wanted::Mms);
        assert!(none.tcp.is_empty() && none.untried[0].what == "MMS" && none.notes[0].contains("serves MMS"), "{none:?}");
        let wish: ProbeWish = serde_json::from_str(r#"{"viewers":1,"protocol":"mms"}"#).unwrap();
        assert_eq!(wish, ProbeWish { viewers: 1, protocol: Wanted::Mms });
        let all = ProbeWish { viewers: 1, protocol: Wanted::All };
        assert_eq!(serde_json::to_string(&all).unwrap(), r#"{"viewers":1}"#, "older servers take that");
    }

    #[test]
    fn what_comes_from_ports_that_change_is_untried() {
        let mut settings = Settings { rtsp_server_port: 0, ..Settings::default() };
        settings.udp.oversize = crate::settings::Oversize::Fragment;
        let Drawn { udp_in, untried, .. } = Drawn::of(&settings, 1, Wanted::All);
        assert!(udp_in.is_empty());
        let told: Vec<_> = untried.iter().map(|untried| (untried.what.as_str(), untried.ports.as_str())).collect();
        assert_eq!(told, [("MMS media", "1024"), ("RTSP media", "1024-1026")]);
    }
}
