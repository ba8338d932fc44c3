//! Viewing sessions: addresses for a player, with a ticket in them and a UDP port held for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Failure, FailureBody, Path};
use super::caller::{Anybody, Here, Peer};
use crate::control::accounts::Role;
use crate::control::plane::Plane;
use crate::http::viewer::host_of;
use crate::relay::admission::{Order, OrderRefusal, PortWish, TICKET_LEN, TicketFacts, canonical};
use crate::text::{percent_encode, query_of, split_query};

/// What is to be watched.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// A name that viewers can open, as `/v1/points` lists them, or below one of those; `?profile=NAME` may follow.
    name: String,
    /// How media is to travel.
    #[serde(default)]
    transport: Transport,
    /// IP address that the addresses name, in place of what they would by themselves: for a client that knows which one it reached. It
    /// is of the IP version of this request.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    host: Option<IpAddr>,
}

/// How media is to travel.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Transport {
    /// By UDP if a client port is free, else by TCP.
    #[default]
    Auto,
    /// By UDP, or not at all.
    Udp,
    /// By TCP: no port is held.
    Tcp,
}

/// A viewing session, for whoever opened it.
#[derive(Serialize, ToSchema)]
pub(super) struct ViewingSession {
    /// Its number.
    id: u64,
    /// What its addresses open.
    name: String,
    transport: Transport,
    /// The only address that its ticket is good for: the one that asked for it.
    address: String,
    /// The UDP port at which the player is to listen (`wmrelay play --ports`); `null`: it plays by TCP. Over RTSP a player needs more
    /// ports than this one, and those are not held.
    client_port: Option<u16>,
    /// The player has to come within so many seconds. From then on it has as long again to get media, and from then on as long
    /// again to try other protocols.
    expires_s: u64,
    /// The ticket, as `?k=` has it in the addresses. It opens this name from this address, for one player at a time.
    ticket: String,
    urls: Urls,
}

/// Addresses for players, all with the ticket. `null`: that is not spoken here, or not by this transport.
///
/// They name the `host` of the request, or else what its `Host` field names; where that is a name and the request came to a public address
/// or by IPv6, they name that address. A player has to come by the IP version of the request, and goes by a name to either: behind a
/// NAT, a client that came by IPv4 says as `host` which address it reached, if the name has addresses of both.
#[derive(Serialize, ToSchema)]
pub(super) struct Urls {
    /// The player tries one protocol after the other.
    mms: Option<String>,
    /// MMS with media by UDP.
    mmsu: Option<String>,
    /// MMS with media by TCP.
    mmst: Option<String>,
    /// RTSP in Windows Media's manner.
    rtsp: Option<String>,
    /// Windows Media's streaming protocol over HTTP; a file on demand is downloaded by it too.
    http: Option<String>,
    /// The same for players that want to be told so (FFmpeg, VLC).
    mmsh: Option<String>,
    /// A playlist for Windows Media Player, with the ticket in its entries.
    asx: Option<String>,
}

/// A viewing session that is good, or that somebody plays by.
#[derive(Serialize, ToSchema)]
pub(super) struct ViewingFacts {
    /// Its number.
    id: u64,
    /// Who opened it.
    user: String,
    /// What its addresses open.
    name: String,
    /// The only address that its ticket is good for.
    address: String,
    /// The UDP port that is held for it, or that its player has.
    client_port: Option<u16>,
    /// It is good for so many seconds, if nobody comes or plays.
    expires_s: u64,
    /// The session that plays by it, as `/v1/viewers` numbers them.
    session: Option<u64>,
}

/// By which addresses a request came.
pub(super) struct Came {
    peer: IpAddr,
    /// As in a URL, without port.
    host: String,
    local: IpAddr,
}

impl<S: Send + Sync> FromRequestParts<S> for Came {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let peer = parts.extensions.get::<Peer>().map_or(here, |Peer(address)| *address);
        let local = parts.extensions.get::<Here>().map_or(here, |Here(address)| canonical(*address));
        let named = parts.headers.get(header::HOST).and_then(|value| host_of(value.to_str().ok()?));
        let host = host_for(named, local);
        Ok(Self { peer: canonical(peer), host, local })
    }
}

/// What addresses for players name: what the request named, or the address that it came to. The ticket is good for one address of the
/// viewer, and a name may have addresses of both IP versions: the address makes the player come by that of the request. It stays the
/// name where the address may be behind a NAT, and of no use outside.
fn host_for(named: Option<&str>, local: IpAddr) -> String {
    let is_name = |host: &&str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
    match named {
        Some(named) if !(is_reached_directly(local) && is_name(&named)) => named.to_owned(),
        _ => in_url(local),
    }
}

/// Whether who came to an address of ours can come to it again: there is no NAT before it. Sources: RFC 6890, RFC 6598.
fn is_reached_directly(local: IpAddr) -> bool {
    match local {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64;
            !(v4.is_private() || is_shared || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified())
        }
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Open a viewing session: addresses for a player on the machine that asks, with a ticket in them, and a UDP port held for it.
#[utoipa::path(
    post, path = "/v1/viewing-sessions", tag = "viewing", security(("token" = [])),
    request_body = Wish,
    responses(
        (status = 201, description = "Where to watch", body = ViewingSession),
        (status = 400, description = "No such JSON, or a `host` of another IP version", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 403, description = "The access rules do not let this address watch", body = FailureBody),
        (status = 404, description = "There is no such name", body = FailureBody),
        (status = 409, description = "UDP was asked for, and no client port can be held", body = FailureBody),
        (status = 413, description = "Too long", body = FailureBody),
        (status = 415, description = "No JSON", body = FailureBody),
        (status = 423, description = "No new viewers are taken: the daemon drains", body = FailureBody),
        (status = 429, description = "Too many viewing sessions are open", body = FailureBody),
    )
)]
pub(super) async fn open(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    mut came: Came,
    Body(Wish { name, transport, host }): Body<Wish>,
) -> Result<(StatusCode, Json<ViewingSession>), Failure> {
    if plane.health.draining() {
        let why = "no new viewers are taken here: the daemon drains";
        return Err(Failure::new(StatusCode::LOCKED, "draining", why));
    }
    if let Some(host) = host.map(canonical) {
        if host.is_ipv4() != came.peer.is_ipv4() {
            let why = format!("`host` is to be of the IP version by which you came: the ticket is good for {} alone", came.peer);
            return Err(Failure::new(StatusCode::BAD_REQUEST, "other_ip_version", why));
        }
        came.host = in_url(host);
    }
    let (bare, _, profile) = split_query(name.trim_start_matches('/'));
    let found = plane.relay.resolve(bare);
    let (point, below) = found.ok_or_else(|| Failure::none("there is no such name; /v1/points lists those there are"))?;
    if below.is_empty() && point.settings().source.is_folder() {
        return Err(Failure::none("this is a folder: name what is in it"));
    }
    let admission = plane.relay.admission();
    if !admission.may_watch(came.peer) || !point.settings().access.may_watch(came.peer) {
        let why = format!("the access rules do not let {} watch this", came.peer);
        return Err(Failure::new(StatusCode::FORBIDDEN, "not_from_here", why));
    }
    let name = point.full_name(&below);
    let now = tokio::time::Instant::now().into_std();
    let port = match transport {
        Transport::Auto if admission.learned().would_refuse(now, came.peer) => PortWish::None,
        Transport::Auto => PortWish::IfFree,
        Transport::Udp => PortWish::Needed,
        Transport::Tcp => PortWish::None,
    };
    let mut random = [0; TICKET_LEN];
    getrandom::fill(&mut random)
        .map_err(|_| Failure::new(StatusCode::TOO_MANY_REQUESTS, "busy", "no random bytes at this moment; try again"))?;
    let order = Order { address: came.peer, name: name.clone(), user: caller.user.clone(), port };
    let issued = admission.tickets().issue(now, admission.ports(), order, random);
    let (ticket, facts) = issued.map_err(|refusal| match refusal {
        OrderRefusal::OfAddress | OrderRefusal::OfUser | OrderRefusal::InAll => {
            Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many", refusal.to_string())
        }
        OrderRefusal::Port(_) => Failure::new(StatusCode::CONFLICT, "no_port", refusal.to_string()),
    })?;
    tracing::info!(
        viewing_session = facts.serial, by = caller.user, address = %came.peer, name = %name.escape_debug(), client_port = facts.client_port,
        "a viewing session was opened"
    );
    let query = query_of(Some(&ticket), profile);
    let urls = urls(&plane, &came, &name, &query, transport);
    Ok((
        StatusCode::CREATED,
        Json(ViewingSession {
            id: facts.serial,
            name,
            transport,
            address: came.peer.to_string(),
            client_port: facts.client_port,
            expires_s: facts.expires.as_secs(),
            ticket,
            urls,
        }),
    ))
}

fn urls(plane: &Plane, came: &Came, name: &str, query: &str, transport: Transport) -> Urls {
    let settings = &plane.settings;
    // Each listener may speak all three; that of the protocol's own name has the port that players know.
    let at = |listener: &str, is_served: bool, default: u16| {
        let bound = plane.listeners.get(listener).filter(|_| is_served)?;
        let port = best(bound, came.local)?.port();
        Some(if port == default { came.host.clone() } else { format!("{}:{port}", came.host) })
    };
    let name = percent_encode(name);
    let url = |scheme: &str, authority: &Option<String>, ending: &str| {
        authority.as_ref().map(|authority| format!("{scheme}://{authority}/{name}{ending}{query}"))
    };
    let mms = at("mms", settings.mms_protocols.mms, 1755);
    let rtsp = at("rtsp", settings.rtsp_protocols.rtsp, 554);
    let http = at("http", settings.http_protocols.http, 80);
    let by_udp = transport != Transport::Tcp && settings.udp.enabled;
    Urls {
        mms: url("mms", &mms, ""),
        mmsu: url("mmsu", &mms, "").filter(|_| by_udp),
        mmst: url("mmst", &mms, ""),
        rtsp: url("rtsp", &rtsp, ""),
        http: url("http", &http, ""),
        mmsh: url("mmsh", &http, ""),
        asx: url("http", &http, ".asx"),
    }
}

/// Of several listeners the one that is reached by the address by which the request came.
fn best(bound: &[SocketAddr], local: IpAddr) -> Option<SocketAddr> {
    let serves = |listener: &&SocketAddr| {
        let ip = canonical(listener.ip());
        ip == local || ip.is_unspecified() && ip.is_ipv4() == local.is_ipv4()
    };
    bound.iter().find(serves).or(bound.first()).copied()
}

/// The viewing sessions of whoever asks; of all, for an operator.
#[utoipa::path(
    get, path = "/v1/viewing-sessions", tag = "viewing", security(("token" = [])),
    responses(
        (status = 200, description = "Those that are good, and those that somebody plays by", body = [ViewingFacts]),
        (status = 401, description = "Not signed in", body = FailureBody),
    )
)]
pub(super) async fn list(State(plane): State<Arc<Plane>>, Anybody(caller): Anybody) -> Json<Vec<ViewingFacts>> {
    let now = tokio::time::Instant::now().into_std();
    let facts = plane.relay.admission().tickets().list(now).into_iter();
    let own = facts.filter(|facts| caller.role >= Role::Operator || facts.user == caller.user);
    Json(own.map(ViewingFacts::of).collect())
}

/// Give a viewing session back: its ticket is worth nothing, and its port is free. Who plays by it plays on.
#[utoipa::path(
    delete, path = "/v1/viewing-sessions/{id}", tag = "viewing", security(("token" = [])),
    params(("id" = u64, Path, description = "Number of the viewing session")),
    responses(
        (status = 204, description = "It is over"),
        (status = 400, description = "No number", body = FailureBody),
        (status = 401, description = "Not signed in", body = FailureBody),
        (status = 404, description = "There is none of this number that is one's own and good", body = FailureBody),
    )
)]
pub(super) async fn give_back(
    State(plane): State<Arc<Plane>>,
    Anybody(caller): Anybody,
    Path(id): Path<u64>,
) -> Result<StatusCode, Failure> {
    let now = tokio::time::Instant::now().into_std();
    let tickets = plane.relay.admission().tickets();
    let is_own = |facts: &TicketFacts| caller.role >= Role::Operator || facts.user == caller.user;
    // Others' are nobody's business, so that there is one is not told.
    let known = tickets.list(now).iter().any(|facts| facts.serial == id && is_own(facts));
    if known && tickets.give_back(now, id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Failure::none(format!("there is no viewing session {id} of yours that is good")))
    }
}

impl ViewingFacts {
    fn of(facts: TicketFacts) -> Self {
        Self {
            id: facts.serial,
            user: facts.user,
            name: facts.name,
            address: facts.address.to_string(),
            client_port: facts.client_port,
            expires_s: facts.expires.as_secs(),
            session: facts.session,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_come_by_the_ip_version_of_the_request() {
        for (named, local, host) in [
            (Some("tv.example"), "198.51.100.1", "198.51.100.1"),
            (Some("tv.example"), "2001:db8::1", "[2001:db8::1]"),
            // Behind a NAT, or reached by who is on the same link or machine.
            (Some("tv.example"), "192.168.0.1", "tv.example"),
            (Some("tv.example"), "100.127.0.1", "tv.example"),
            (Some("tv.example"), "100.128.0.1", "100.128.0.1"),
            (Some("tv.example"), "169.254.0.1", "tv.example"),
            (Some("tv.example"), "fe80::1", "tv.example"),
            (Some("localhost"), "127.0.0.1", "localhost"),
            (Some("[2001:db8::9]"), "2001:db8::1", "[2001:db8::9]"),
            (Some("198.51.100.9"), "198.51.100.1", "198.51.100.9"),
            (None, "198.51.100.1", "198.51.100.1"),
            (None, "10.0.0.1", "10.0.0.1"),
            (None, "2001:db8::1", "[2001:db8::1]"),
        ] {
            let local: IpAddr = local.parse().unwrap();
            assert_eq!(host_for(named, local), host, "{named:?} {local}");
        }
    }

    #[test]
    fn listeners_are_chosen_by_the_way_that_the_request_came() {
        let bound: Vec<SocketAddr> =
            ["192.0.2.1:81", "0.0.0.0:80", "[::]:82"].iter().map(|address| address.parse().unwrap()).collect();
        for (local, port) in [("192.0.2.1", 81), ("192.0.2.9", 80), ("2001:db8::1", 82)] {
            assert_eq!(best(&bound, local.parse().unwrap()).unwrap().port(), port, "{local}");
        }
        assert_eq!(best(&bound[..1], "192.0.2.9".parse().unwrap()).unwrap().port(), 81);
        assert_eq!(
            (in_url("2001:db8::1".parse().unwrap()), best(&[], Ipv4Addr::LOCALHOST.into())),
            ("[2001:db8::1]".into(), None)
        );
    }
}
